//! Ethernet II frames.

use super::{read_array, read_u16, write_u16};
use xdnsd_abi::headers::ethernet::field;

pub use xdnsd_abi::headers::ethernet::{GROUP, HEADER_LEN, ethertype};

/// A MAC address.
pub type Address = [u8; 6];

view! {
    /// View over a frame.
    pub struct Frame: HEADER_LEN;
}

impl<T: AsRef<[u8]>> Frame<T> {
    /// Destination address.
    #[must_use]
    pub fn destination(&self) -> Address {
        read_array(self.buffer.as_ref(), field::DESTINATION)
    }

    /// Source address.
    #[must_use]
    pub fn source(&self) -> Address {
        read_array(self.buffer.as_ref(), field::SOURCE)
    }

    /// EtherType of the payload, which may be a VLAN tag.
    #[must_use]
    pub fn ethertype(&self) -> u16 {
        read_u16(self.buffer.as_ref(), field::ETHERTYPE)
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Frame<T> {
    /// Sets the destination address.
    pub fn set_destination(&mut self, address: Address) {
        self.buffer.as_mut()[field::DESTINATION].copy_from_slice(&address);
    }

    /// Sets the source address.
    pub fn set_source(&mut self, address: Address) {
        self.buffer.as_mut()[field::SOURCE].copy_from_slice(&address);
    }

    /// Sets the EtherType.
    pub fn set_ethertype(&mut self, ethertype: u16) {
        write_u16(self.buffer.as_mut(), field::ETHERTYPE, ethertype);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::QUERY_IPV4;
    use crate::wire::Truncated;

    #[test]
    fn deconstruct() {
        let frame = Frame::new_checked(QUERY_IPV4).expect("a frame");
        assert_eq!(frame.destination(), [0x02, 0, 0, 0, 0, 0x22]);
        assert_eq!(frame.source(), [0x02, 0, 0, 0, 0, 0x11]);
        assert_eq!(frame.ethertype(), ethertype::IPV4);
    }

    #[test]
    fn construct() {
        let mut bytes = [0xa5; HEADER_LEN];
        let mut frame = Frame::new_unchecked(&mut bytes);
        frame.set_destination([0x02, 0, 0, 0, 0, 0x22]);
        frame.set_source([0x02, 0, 0, 0, 0, 0x11]);
        frame.set_ethertype(ethertype::IPV4);
        assert_eq!(bytes, QUERY_IPV4[..HEADER_LEN]);
    }

    #[test]
    fn too_short() {
        for len in 0..HEADER_LEN {
            assert_eq!(
                Frame::new_checked(&QUERY_IPV4[..len]).err(),
                Some(Truncated)
            );
        }
    }
}
