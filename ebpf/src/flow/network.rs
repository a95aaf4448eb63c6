//! IPv4 without options and IPv6 without extension headers.

use super::take;
use crate::frame::{Cursor, View};
use xdnsd_abi::Reason;
use xdnsd_abi::checksum::Sum;
use xdnsd_abi::headers::ethernet::ethertype;
use xdnsd_abi::headers::{ipv4, ipv6, protocol};

/// An address in packet order, in two words; IPv4 as ::ffff:a.b.c.d (RFC 4291 section 2.5.5.2).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Address(pub u64, pub u64);

impl Address {
    /// The mapped address of an IPv4 address that is big-endian in memory.
    #[inline(always)]
    pub const fn mapped(ipv4: u32) -> Self {
        let [a, b, c, d] = ipv4.to_ne_bytes();
        Self(0, u64::from_ne_bytes([0, 0, 0xff, 0xff, a, b, c, d]))
    }

    /// The IPv4 address, big-endian in memory, if this is a mapped one.
    #[inline(always)]
    pub fn ipv4(self) -> Option<u32> {
        let [0, 0, 0xff, 0xff, a, b, c, d] = self.1.to_ne_bytes() else {
            return None;
        };
        (self.0 == 0).then_some(u32::from_ne_bytes([a, b, c, d]))
    }

    /// True for a link-local address (RFC 4291 section 2.5.6).
    #[inline(always)]
    pub const fn is_link_local(self) -> bool {
        let [a, b, ..] = self.0.to_ne_bytes();
        a == 0xfe && b & 0xc0 == 0x80
    }

    /// The bytes in packet order.
    #[inline(always)]
    pub const fn octets(self) -> [u8; 16] {
        let [a, b, c, d, e, f, g, h] = self.0.to_ne_bytes();
        let [i, j, k, l, m, n, o, p] = self.1.to_ne_bytes();
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
    }

    /// Sum of its 16-bit words, in native order.
    #[inline(always)]
    const fn sum(self) -> u64 {
        (self.0 >> 32) + (self.0 & 0xffff_ffff) + (self.1 >> 32) + (self.1 & 0xffff_ffff)
    }
}

/// Fields that IPv4 and IPv6 headers have in common.
pub struct Packet {
    pub source: Address,
    pub destination: Address,
    /// Length behind the IP header in bytes, as the header states it; negative if it states less than its own length.
    pub payload_len: i32,
    /// True if the source is a martian, which gets no reply (RFC 1812 section 5.3.7).
    pub is_source_martian: bool,
    /// Sum over the header with its checksum. IPv6 has none: this is then a sum that adds up.
    pub header_sum: Sum,
    pub checksum_may_be_absent: bool,
    /// Sum of the pseudo-header without protocol and length (RFC 768, RFC 8200 section 8.1).
    pub addresses_sum: u64,
}

/// Payload of a packet, and where it begins.
pub enum Payload<'a> {
    /// An unfragmented datagram.
    Udp(Packet, Cursor<'a>),
    /// An unfragmented segment. [`segment`] reads its addresses where they are needed.
    Tcp(Cursor<'a>),
    /// Anything else.
    Other,
}

impl<'a> Payload<'a> {
    #[inline(always)]
    pub fn parse(ethertype: u16, rest: Cursor<'a>) -> Result<Self, Reason> {
        match ethertype {
            ethertype::IPV4 => {
                let (header, payload) = Ipv4::parse(rest)?;
                Self::of(header, payload)
            }
            ethertype::IPV6 => {
                let (header, payload) = Ipv6::parse(rest)?;
                Self::of(header, payload)
            }
            _ => Err(Reason::PassEthertype),
        }
    }

    #[inline(always)]
    fn of(header: impl Header, payload: Cursor<'a>) -> Result<Self, Reason> {
        if header.protocol() == protocol::UDP {
            if header.is_fragment() {
                return Err(Reason::PassFragment);
            }
            return Ok(Self::Udp(header.packet()?, payload));
        }
        // Compared after UDP, which so pays nothing for it.
        if header.protocol_anew() == protocol::TCP && !header.is_fragment() {
            return Ok(Self::Tcp(payload));
        }
        Ok(Self::Other)
    }
}

/// Source and destination of a packet with any payload and options. `None` if it is of another protocol, too short, or to
/// an address where nothing listens (see [`Ipv6::ends`]).
#[inline(always)]
pub fn ends(ethertype: u16, rest: Cursor<'_>) -> Option<(Address, Address)> {
    match ethertype {
        ethertype::IPV4 => {
            use ipv4::field::{DESTINATION, SOURCE};
            let (header, _) = rest.take::<{ ipv4::HEADER_LEN }>()?;
            let source = header.get::<{ SOURCE.start }, u32>();
            let destination = header.get::<{ DESTINATION.start }, u32>();
            Some((Address::mapped(source), Address::mapped(destination)))
        }
        ethertype::IPV6 => {
            let (header, _) = rest.take::<{ ipv6::HEADER_LEN }>()?;
            Ipv6(header).ends()
        }
        _ => None,
    }
}

/// IP header of an unfragmented segment, and where the segment begins. Other packets are refused.
#[inline(always)]
pub fn segment(ethertype: u16, rest: Cursor<'_>) -> Result<(Packet, Cursor<'_>), Reason> {
    match ethertype {
        ethertype::IPV4 => segment_behind(Ipv4::parse(rest)?),
        ethertype::IPV6 => segment_behind(Ipv6::parse(rest)?),
        _ => Err(Reason::PassEthertype),
    }
}

#[inline(always)]
fn segment_behind<'a>(
    (header, payload): (impl Header, Cursor<'a>),
) -> Result<(Packet, Cursor<'a>), Reason> {
    if header.protocol() != protocol::TCP || header.is_fragment() {
        return Err(Reason::PassProtocol);
    }
    let packet = header.packet().map_err(|_| Reason::PassProtocol)?;
    Ok((packet, payload))
}

/// An IP header, whose addresses are read only where they are needed.
trait Header: Copy {
    /// IP protocol, see [`xdnsd_abi::headers::protocol`].
    fn protocol(self) -> u8;
    /// IP protocol, read anew, see [`View::get_anew`].
    fn protocol_anew(self) -> u8;
    /// True if the packet carries a fragment of a datagram or segment.
    fn is_fragment(self) -> bool;
    /// The remaining fields.
    fn packet(self) -> Result<Packet, Reason>;
}

/// An IPv4 header without options.
#[derive(Clone, Copy)]
struct Ipv4<'a>(View<'a, { ipv4::HEADER_LEN }>);

impl<'a> Ipv4<'a> {
    #[inline(always)]
    fn parse(rest: Cursor<'a>) -> Result<(Self, Cursor<'a>), Reason> {
        let (header, payload) = take::<{ ipv4::HEADER_LEN }>(rest)?;
        if header.get::<{ ipv4::field::VERSION_IHL }, u8>() != ipv4::VERSION_4_IHL_5 {
            return Err(Reason::PassIpv4Options);
        }
        Ok((Self(header), payload))
    }
}

impl Header for Ipv4<'_> {
    #[inline(always)]
    fn protocol(self) -> u8 {
        self.0.get::<{ ipv4::field::PROTOCOL }, u8>()
    }

    #[inline(always)]
    fn protocol_anew(self) -> u8 {
        self.0.get_anew::<{ ipv4::field::PROTOCOL }>()
    }

    #[inline(always)]
    fn is_fragment(self) -> bool {
        self.0.be16::<{ ipv4::field::FLAGS_OFFSET.start }>() & ipv4::FRAGMENT != 0
    }

    #[inline(always)]
    fn packet(self) -> Result<Packet, Reason> {
        use ipv4::field::{DESTINATION, SOURCE, TOTAL_LEN};
        let Self(header) = self;
        let source = header.get::<{ SOURCE.start }, u32>();
        let destination = header.get::<{ DESTINATION.start }, u32>();
        let addresses_sum = u64::from(source) + u64::from(destination);
        let sum = u64::from(header.get::<0, u32>())
            + u64::from(header.get::<4, u32>())
            + u64::from(header.get::<8, u32>())
            + addresses_sum;
        Ok(Packet {
            source: Address::mapped(source),
            destination: Address::mapped(destination),
            payload_len: i32::from(header.be16::<{ TOTAL_LEN.start }>()) - ipv4::HEADER_LEN as i32,
            // 0/8, 127/8, 224/4 and 240/4 with the broadcast address (RFC 6890).
            is_source_martian: matches!(source.to_ne_bytes()[0], 0 | 127 | 224..),
            header_sum: Sum::of_few(sum),
            checksum_may_be_absent: true,
            addresses_sum,
        })
    }
}

/// An IPv6 header. Extension headers count as unknown protocols.
#[derive(Clone, Copy)]
struct Ipv6<'a>(View<'a, { ipv6::HEADER_LEN }>);

impl<'a> Ipv6<'a> {
    #[inline(always)]
    fn parse(rest: Cursor<'a>) -> Result<(Self, Cursor<'a>), Reason> {
        let (header, payload) = take::<{ ipv6::HEADER_LEN }>(rest)?;
        if header.get::<{ ipv6::field::VERSION_CLASS_FLOW.start }, u8>() >> 4 != 6 {
            return Err(Reason::PassProtocol);
        }
        Ok((Self(header), payload))
    }

    /// Source and destination. `None` for a destination in ::/64, which contains ::1, :: and the mapped IPv4 addresses,
    /// which would match a listener of the other family.
    #[inline(always)]
    fn ends(self) -> Option<(Address, Address)> {
        use ipv6::field::{DESTINATION, SOURCE};
        let Self(header) = self;
        let source = Address(
            header.get::<{ SOURCE.start }, u64>(),
            header.get::<{ SOURCE.start + 8 }, u64>(),
        );
        let destination = Address(
            header.get::<{ DESTINATION.start }, u64>(),
            header.get::<{ DESTINATION.start + 8 }, u64>(),
        );
        (destination.0 != 0).then_some((source, destination))
    }
}

impl Header for Ipv6<'_> {
    #[inline(always)]
    fn protocol(self) -> u8 {
        self.0.get::<{ ipv6::field::NEXT_HEADER }, u8>()
    }

    #[inline(always)]
    fn protocol_anew(self) -> u8 {
        self.0.get_anew::<{ ipv6::field::NEXT_HEADER }>()
    }

    #[inline(always)]
    fn is_fragment(self) -> bool {
        false
    }

    #[inline(always)]
    fn packet(self) -> Result<Packet, Reason> {
        let (source, destination) = self.ends().ok_or(Reason::PassForeign)?;
        let Self(header) = self;
        Ok(Packet {
            source,
            destination,
            payload_len: header.be16::<{ ipv6::field::PAYLOAD_LEN.start }>().into(),
            is_source_martian: source.0 == 0 || source.octets()[0] == 0xff,
            header_sum: Sum::of_few(0xffff),
            checksum_may_be_absent: false,
            addresses_sum: source.sum() + destination.sum(),
        })
    }
}
