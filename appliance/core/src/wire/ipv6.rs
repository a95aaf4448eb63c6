//! IPv6 headers without extension headers.

use super::{HOP_LIMIT, read_array, read_u16, write_u16};
use xdnsd_abi::headers::ipv6::{VERSION_6, field};
use xdnsd_abi::headers::protocol;

pub use xdnsd_abi::headers::ipv6::HEADER_LEN;

/// An IPv6 address.
pub type Address = [u8; 16];

view! {
    /// View over a packet.
    pub struct Packet: HEADER_LEN;
}

impl<T: AsRef<[u8]>> Packet<T> {
    /// Version of the protocol: 6.
    #[must_use]
    pub fn version(&self) -> u8 {
        self.buffer.as_ref()[field::VERSION_CLASS_FLOW.start] >> 4
    }

    /// Payload length in bytes, from the header. 0 announces a jumbogram (RFC 2675), which is not supported.
    #[must_use]
    pub fn payload_len(&self) -> u16 {
        read_u16(self.buffer.as_ref(), field::PAYLOAD_LEN)
    }

    /// Protocol of the payload, or type of an extension header.
    #[must_use]
    pub fn next_header(&self) -> u8 {
        self.buffer.as_ref()[field::NEXT_HEADER]
    }

    /// Source address.
    #[must_use]
    pub fn source(&self) -> Address {
        read_array(self.buffer.as_ref(), field::SOURCE)
    }

    /// Destination address.
    #[must_use]
    pub fn destination(&self) -> Address {
        read_array(self.buffer.as_ref(), field::DESTINATION)
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    /// Writes the whole header of a UDP packet. The flow label is 0, "not labelled" (RFC 6437 section 3).
    pub fn fill(&mut self, source: Address, destination: Address, payload_len: u16) {
        let header = self.buffer.as_mut();
        header[field::VERSION_CLASS_FLOW].copy_from_slice(&VERSION_6);
        write_u16(header, field::PAYLOAD_LEN, payload_len);
        header[field::NEXT_HEADER] = protocol::UDP;
        header[field::HOP_LIMIT] = HOP_LIMIT;
        header[field::SOURCE].copy_from_slice(&source);
        header[field::DESTINATION].copy_from_slice(&destination);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::QUERY_IPV6;
    use crate::wire::Truncated;

    const CLIENT: Address = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x11];
    const LOCAL: Address = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

    #[test]
    fn deconstruct() {
        let packet = Packet::new_checked(&QUERY_IPV6[14..]).expect("a packet");
        assert_eq!(
            (packet.version(), packet.next_header(), packet.payload_len()),
            (6, protocol::UDP, 48)
        );
        assert_eq!((packet.source(), packet.destination()), (CLIENT, LOCAL));
    }

    #[test]
    fn construct() {
        let mut bytes = [0xa5; HEADER_LEN + 1];
        Packet::new_unchecked(&mut bytes).fill(CLIENT, LOCAL, 48);
        let mut expected = [0xa5; HEADER_LEN + 1];
        expected[..HEADER_LEN].copy_from_slice(&QUERY_IPV6[14..54]);
        // As in dig's packet, except for the flow label.
        expected[..4].copy_from_slice(&[0x60, 0, 0, 0]);
        assert_eq!(bytes, expected);
    }

    #[test]
    fn too_short() {
        for len in 0..HEADER_LEN {
            assert_eq!(
                Packet::new_checked(&QUERY_IPV6[14..][..len]).err(),
                Some(Truncated)
            );
        }
    }
}
