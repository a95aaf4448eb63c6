//! VLAN tags.

use super::{read_u16, write_u16};
use xdnsd_abi::headers::vlan::{ID, field};

pub use xdnsd_abi::headers::vlan::{HEADER_LEN, TAGS_MAX, is_tag};

/// A VLAN tag, kept whole, so that a reply has the priority of its query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tag {
    /// Tag protocol identifier: the EtherType that announced the tag.
    pub tpid: u16,
    /// Tag control information: priority, drop eligibility, VLAN ID.
    pub tci: u16,
}

impl Tag {
    /// VLAN ID: the lower 12 bits; 0 for a priority tag.
    #[must_use]
    pub const fn id(self) -> u16 {
        self.tci & ID
    }
}

view! {
    /// View over a tag's TCI and the EtherType after it.
    pub struct Header: HEADER_LEN;
}

impl<T: AsRef<[u8]>> Header<T> {
    /// Tag control information.
    #[must_use]
    pub fn tci(&self) -> u16 {
        read_u16(self.buffer.as_ref(), field::TCI)
    }

    /// EtherType of the payload.
    #[must_use]
    pub fn ethertype(&self) -> u16 {
        read_u16(self.buffer.as_ref(), field::ETHERTYPE)
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Header<T> {
    /// Sets the tag control information.
    pub fn set_tci(&mut self, tci: u16) {
        write_u16(self.buffer.as_mut(), field::TCI, tci);
    }

    /// Sets the EtherType of the payload.
    pub fn set_ethertype(&mut self, ethertype: u16) {
        write_u16(self.buffer.as_mut(), field::ETHERTYPE, ethertype);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Truncated;
    use xdnsd_abi::headers::ethernet::ethertype;

    /// VLAN 100 at priority 3, then IPv6.
    const BYTES: [u8; 4] = [0x60, 0x64, 0x86, 0xdd];

    #[test]
    fn deconstruct() {
        let header = Header::new_checked(&BYTES).expect("a tag");
        assert_eq!(header.tci(), 0x6064);
        assert_eq!(header.ethertype(), ethertype::IPV6);
        assert_eq!(
            Tag {
                tpid: ethertype::VLAN,
                tci: header.tci()
            }
            .id(),
            100
        );
    }

    #[test]
    fn construct() {
        let mut bytes = [0xa5; HEADER_LEN];
        let mut header = Header::new_unchecked(&mut bytes);
        header.set_tci(0x6064);
        header.set_ethertype(ethertype::IPV6);
        assert_eq!(bytes, BYTES);
    }

    #[test]
    fn too_short() {
        for len in 0..HEADER_LEN {
            assert_eq!(Header::new_checked(&BYTES[..len]).err(), Some(Truncated));
        }
    }
}
