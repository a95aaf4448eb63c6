//! Headers of an answer of any kind: its MAC addresses and its IP header.

use super::link::Mac;
use super::network::Address;
use crate::frame::write::ViewMut;
use xdnsd_abi::checksum::Sum;
use xdnsd_abi::headers::{ethernet, ipv4, ipv6};

/// TTL or hop limit of an answer, as Linux's default.
const HOPS: u8 = 64;

/// IP header of an answer.
pub struct AnswerHeader {
    /// Our address, as in [`xdnsd_abi::Listen`].
    pub source: Address,
    /// The client's address.
    pub destination: Address,
    /// Sum of both addresses, in native order.
    pub addresses_sum: u64,
    /// IP protocol, see [`xdnsd_abi::headers::protocol`].
    pub protocol: u8,
    /// Length behind the header in bytes.
    pub payload_len: u16,
}

impl AnswerHeader {
    /// Writes an IPv4 header with `source` and `destination`, which are the answer's own in IPv4's form (RFC 791 section
    /// 3.1).
    #[inline(always)]
    pub fn write_ipv4(
        &self,
        mut header: ViewMut<'_, { ipv4::HEADER_LEN }>,
        source: u32,
        destination: u32,
    ) {
        use ipv4::field;
        const VERSION_TOS: u16 = u16::from_be_bytes([ipv4::VERSION_4_IHL_5, 0]);
        let ttl_protocol = u16::from_be_bytes([HOPS, self.protocol]);
        let len = ipv4::HEADER_LEN as u16 + self.payload_len;
        let sum = word(VERSION_TOS)
            + word(len)
            + word(ipv4::DONT_FRAGMENT)
            + word(ttl_protocol)
            + self.addresses_sum;
        header.set_be16::<{ field::VERSION_IHL }>(VERSION_TOS);
        header.set_be16::<{ field::TOTAL_LEN.start }>(len);
        header.set_be16::<{ field::ID.start }>(0);
        header.set_be16::<{ field::FLAGS_OFFSET.start }>(ipv4::DONT_FRAGMENT);
        header.set_be16::<{ field::TTL }>(ttl_protocol);
        header.set_be16::<{ field::CHECKSUM.start }>(Sum::of_few(sum).finish());
        header.set::<{ field::SOURCE.start }, u32>(source);
        header.set::<{ field::DESTINATION.start }, u32>(destination);
    }

    /// Writes an IPv6 header (RFC 8200 section 3).
    #[inline(always)]
    pub fn write_ipv6(&self, mut header: ViewMut<'_, { ipv6::HEADER_LEN }>) {
        use ipv6::field;
        const VERSION: u32 = u32::from_ne_bytes(ipv6::VERSION_6);
        header.set::<{ field::VERSION_CLASS_FLOW.start }, u32>(VERSION);
        header.set_be16::<{ field::PAYLOAD_LEN.start }>(self.payload_len);
        header.set_be16::<{ field::NEXT_HEADER }>(u16::from_be_bytes([self.protocol, HOPS]));
        header.set::<{ field::SOURCE.start }, u64>(self.source.0);
        header.set::<{ field::SOURCE.start + 8 }, u64>(self.source.1);
        header.set::<{ field::DESTINATION.start }, u64>(self.destination.0);
        header.set::<{ field::DESTINATION.start + 8 }, u64>(self.destination.1);
    }
}

/// Writes the MAC addresses at the start of a frame or of an Ethernet header.
#[inline(always)]
pub fn write_macs<const N: usize>(frame: &mut ViewMut<'_, N>, destination: Mac, source: Mac) {
    use ethernet::field::{DESTINATION, SOURCE};
    let (Mac([a, b, c]), Mac([d, e, f])) = (destination, source);
    frame.set::<{ DESTINATION.start }, u16>(a);
    frame.set::<{ DESTINATION.start + 2 }, u16>(b);
    frame.set::<{ DESTINATION.start + 4 }, u16>(c);
    frame.set::<{ SOURCE.start }, u16>(d);
    frame.set::<{ SOURCE.start + 2 }, u16>(e);
    frame.set::<{ SOURCE.start + 4 }, u16>(f);
}

/// A number as part of a sum in native order.
#[inline(always)]
pub const fn word(number: u16) -> u64 {
    number.to_be() as u64
}
