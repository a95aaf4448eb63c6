//! IPv4 headers without options.

use super::{HOP_LIMIT, read_array, read_u16, write_u16};
use xdnsd_abi::checksum::Sum;
use xdnsd_abi::headers::ipv4::{DONT_FRAGMENT, FRAGMENT, VERSION_4_IHL_5, field};
use xdnsd_abi::headers::protocol;

pub use xdnsd_abi::headers::ipv4::HEADER_LEN;

/// An IPv4 address.
pub type Address = [u8; 4];

view! {
    /// View over a packet.
    pub struct Packet: HEADER_LEN;
}

impl<T: AsRef<[u8]>> Packet<T> {
    /// Version of the protocol: 4.
    #[must_use]
    pub fn version(&self) -> u8 {
        self.buffer.as_ref()[field::VERSION_IHL] >> 4
    }

    /// True if options follow the header, or IHL is below 5, too short for a header.
    #[must_use]
    pub fn has_options(&self) -> bool {
        self.buffer.as_ref()[field::VERSION_IHL] & 0x0f != VERSION_4_IHL_5 & 0x0f
    }

    /// Total length in bytes, from the header: header and payload, without Ethernet's padding.
    #[must_use]
    pub fn total_len(&self) -> u16 {
        read_u16(self.buffer.as_ref(), field::TOTAL_LEN)
    }

    /// True for a fragment, including the first.
    #[must_use]
    pub fn is_fragment(&self) -> bool {
        read_u16(self.buffer.as_ref(), field::FLAGS_OFFSET) & FRAGMENT != 0
    }

    /// Protocol of the payload.
    #[must_use]
    pub fn protocol(&self) -> u8 {
        self.buffer.as_ref()[field::PROTOCOL]
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
    /// Writes the whole header of a UDP packet of `total_len` bytes, with its checksum.
    ///
    /// ID 0 with "don't fragment" makes an atomic datagram, whose ID has no meaning (RFC 6864 section 4.1). With DF clear a
    /// constant ID would break section 4.3 there, and a forged fragment could replace a part of the answer; RFC 9715
    /// section 3.1 also asks a responder for DF. An answer that exceeds the path MTU is truncated (TC) instead, and
    /// [`crate::limits::UDP_MESSAGE_MAX`] fits every path that can carry IPv6.
    pub fn fill(&mut self, source: Address, destination: Address, total_len: u16) {
        let header = self.buffer.as_mut();
        header[field::VERSION_IHL] = VERSION_4_IHL_5;
        header[field::TOS] = 0;
        write_u16(header, field::TOTAL_LEN, total_len);
        write_u16(header, field::ID, 0);
        write_u16(header, field::FLAGS_OFFSET, DONT_FRAGMENT);
        header[field::TTL] = HOP_LIMIT;
        header[field::PROTOCOL] = protocol::UDP;
        write_u16(header, field::CHECKSUM, 0);
        header[field::SOURCE].copy_from_slice(&source);
        header[field::DESTINATION].copy_from_slice(&destination);
        let checksum = Sum::new().add_bytes(&header[..HEADER_LEN]).finish();
        write_u16(header, field::CHECKSUM, checksum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::QUERY_IPV4;
    use crate::wire::Truncated;

    const CLIENT: Address = [192, 0, 2, 77];
    const LOCAL: Address = [192, 0, 2, 1];

    #[test]
    fn deconstruct() {
        let packet = Packet::new_checked(&QUERY_IPV4[14..]).expect("a packet");
        assert_eq!(
            (packet.version(), packet.has_options(), packet.is_fragment()),
            (4, false, false)
        );
        assert_eq!((packet.total_len(), packet.protocol()), (68, protocol::UDP));
        assert_eq!((packet.source(), packet.destination()), (CLIENT, LOCAL));
    }

    #[test]
    fn construct() {
        let mut bytes = [0xa5; HEADER_LEN + 1];
        Packet::new_unchecked(&mut bytes).fill(CLIENT, LOCAL, 68);
        let mut expected = [0xa5; HEADER_LEN + 1];
        expected[..HEADER_LEN].copy_from_slice(&QUERY_IPV4[14..34]);
        // As in dig's packet, except for ID and DF; the checksum differs accordingly.
        expected[4..8].copy_from_slice(&[0, 0, 0x40, 0]);
        expected[10..12].copy_from_slice(&(0x9a9b_u16 + 0x5bbf - 0x4000).to_be_bytes());
        assert_eq!(bytes, expected);
    }

    #[test]
    fn every_bit_of_a_fragment_but_df() {
        let mut bytes = [0; HEADER_LEN];
        for bit in 0..16 {
            bytes[6..8].copy_from_slice(&(1u16 << bit).to_be_bytes());
            let packet = Packet::new_unchecked(&bytes);
            // Bit 15 is reserved, bit 14 is DF.
            assert_eq!(packet.is_fragment(), bit < 14, "bit {bit}");
        }
    }

    #[test]
    fn too_short() {
        for len in 0..HEADER_LEN {
            assert_eq!(
                Packet::new_checked(&QUERY_IPV4[14..][..len]).err(),
                Some(Truncated)
            );
        }
    }
}
