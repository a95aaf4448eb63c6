//! Is this frame a DNS query to us that user space can answer in place? Ethernet, VLAN, IPv4 and IPv6, UDP.
//!
//! Anything that is not fully understood is a [`Reason`] to pass it, untouched, to the kernel. Checks stand in the
//! order of their cost, so that traffic which is not DNS leaves after a few compares and DNS to others after one map
//! lookup. It reads the frame and asks the [`Kernel`]; it writes nothing.

use crate::frame::{Cursor, View};
use xdnsd_ebpf::{HEARTBEAT_STALE_NS, Listen, MESSAGE_MAX, Reason, Route};

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
/// IEEE 802.1Q customer tag.
const ETHERTYPE_VLAN: u16 = 0x8100;
/// IEEE 802.1ad service tag.
const ETHERTYPE_QINQ: u16 = 0x88a8;
/// The lower 12 bits of the tag control information.
const VLAN_ID: u16 = 0x0fff;
/// Group bit of the first octet on the wire: multicast and broadcast.
const MAC_GROUP: u8 = 0x01;

/// Version 4, header of five 32-bit words (RFC 791 section 3.1).
const IPV4_NO_OPTIONS: u8 = 0x45;
const IPV4_HEADER_LEN: u16 = 20;
/// More Fragments and the fragment offset (RFC 791 section 3.1). Don't Fragment may be set.
const IPV4_FRAGMENT: u16 = 0x3fff;
const PROTOCOL_UDP: u8 = 17;

const UDP_HEADER_LEN: u16 = 8;
/// RFC 1035 section 4.1.1.
const DNS_HEADER_LEN: u16 = 12;
/// QR bit in the third octet of the DNS header (RFC 1035 section 4.1.1).
const DNS_QR: u8 = 0x80;
const UDP_LEN_MAX: u16 = UDP_HEADER_LEN + MESSAGE_MAX as u16;

/// Offsets of header fields.
mod field {
    pub mod ethernet {
        pub const SOURCE: usize = 6;
        pub const TYPE: usize = 12;
        pub const LEN: usize = 14;
    }
    pub mod vlan {
        pub const CONTROL: usize = 0;
        pub const TYPE: usize = 2;
        pub const LEN: usize = 4;
    }
    pub mod ipv4 {
        pub const VERSION_IHL: usize = 0;
        pub const TOTAL_LEN: usize = 2;
        pub const FRAGMENT: usize = 6;
        pub const PROTOCOL: usize = 9;
        pub const SOURCE: usize = 12;
        pub const DESTINATION: usize = 16;
        pub const LEN: usize = 20;
    }
    pub mod ipv6 {
        pub const VERSION: usize = 0;
        pub const PAYLOAD_LEN: usize = 4;
        pub const NEXT_HEADER: usize = 6;
        pub const SOURCE: usize = 8;
        pub const DESTINATION: usize = 24;
        pub const LEN: usize = 40;
    }
    pub mod udp {
        pub const SOURCE: usize = 0;
        pub const DESTINATION: usize = 2;
        pub const LENGTH: usize = 4;
        pub const CHECKSUM: usize = 6;
        pub const LEN: usize = 8;
    }
    pub mod dns {
        pub const FLAGS: usize = 2;
        pub const LEN: usize = 12;
    }
}

/// What the program asks of the kernel: maps, clock, FIB.
pub trait Kernel {
    /// The route of a destination that is ours.
    fn route(&self, listen: &Listen) -> Option<Route>;
    /// Where the FIB sends a reply.
    fn next_hop(&self, reply: &Reply) -> Option<NextHop>;
    /// Whether the frame is in several buffers, or longer than [`xdnsd_ebpf::FRAME_MAX`].
    fn is_large(&self) -> bool;
    /// When the worker of the frame's RX queue was last alive; `None` for a queue outside the map.
    fn heartbeat(&self) -> Option<u64>;
    /// CLOCK_MONOTONIC in nanoseconds.
    fn now(&self) -> u64;
}

/// A reply as the FIB wants it described.
pub struct Reply {
    /// Our address, as in [`Listen`].
    pub source: Address,
    /// The client's address.
    pub destination: Address,
    /// Our port, big-endian in memory.
    pub source_port: u16,
    /// The client's port, big-endian in memory.
    pub destination_port: u16,
}

/// The FIB's answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct NextHop {
    /// Index of the interface that the reply leaves through.
    pub ifindex: u32,
    /// Ethernet destination of the reply.
    pub mac: Mac,
}

/// An Ethernet address as it lies in the frame.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Mac(pub [u16; 3]);

impl Mac {
    /// Of its octets.
    #[inline(always)]
    const fn of([a, b, c, d, e, f]: [u8; 6]) -> Self {
        Self([
            u16::from_ne_bytes([a, b]),
            u16::from_ne_bytes([c, d]),
            u16::from_ne_bytes([e, f]),
        ])
    }
}

/// An address as it lies in the packet, in two loads; IPv4 as ::ffff:a.b.c.d (RFC 4291 section 2.5.5.2).
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

    #[inline(always)]
    const fn octets(self) -> [u8; 16] {
        let [a, b, c, d, e, f, g, h] = self.0.to_ne_bytes();
        let [i, j, k, l, m, n, o, p] = self.1.to_ne_bytes();
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
    }

    /// The sum of its 16-bit words, in native order.
    #[inline(always)]
    const fn sum(self) -> u64 {
        (self.0 >> 32) + (self.0 & 0xffff_ffff) + (self.1 >> 32) + (self.1 & 0xffff_ffff)
    }
}

/// Ethernet and VLAN, in front of the packet.
struct Link {
    destination: Mac,
    source: Mac,
    ethertype: u16,
    vlan_outer: u16,
    vlan_inner: u16,
}

/// What IPv4 and IPv6 say about the datagram.
struct Packet {
    source: Address,
    destination: Address,
    /// Bytes behind the IP header, as the IP header says; `None` when it is shorter than itself.
    payload_len: Option<u16>,
    /// A source that no reply may be sent to.
    source_unfit: bool,
    header_checksum_ok: bool,
    checksum_may_be_absent: bool,
    /// What the pseudo-header adds (RFC 768, RFC 8200 section 8.1), but for protocol and length.
    addresses_sum: u64,
}

/// `Ok`: the frame is ours, its bytes add up, the reply may leave as it came, and the worker is alive.
#[inline(always)]
pub fn classify(frame: Cursor<'_>, kernel: &impl Kernel) -> Result<(), Reason> {
    let (link, rest) = link(frame)?;
    let (packet, datagram) = match link.ethertype {
        ETHERTYPE_IPV4 => ipv4(rest)?,
        ETHERTYPE_IPV6 => ipv6(rest)?,
        _ => return Err(Reason::PassEthertype),
    };
    let (udp, message) = take::<{ field::udp::LEN }>(datagram)?;

    let listen = listen(&link, &packet, udp);
    let route = kernel.route(&listen).ok_or(Reason::PassForeign)?;
    if link.destination != Mac::of(route.mac) {
        return Err(Reason::PassOtherMac);
    }
    check_source(&packet, udp)?;
    check_lengths(&packet, udp)?;
    check_query(message)?;
    check_checksums(&packet, udp, datagram)?;
    check_route(route, &link, &packet, udp, kernel)?;
    check_heartbeat(kernel)?;
    // Last: here the verifier needs to know nothing of the frame any more, so that one walk stands for those behind every
    // path that leads here. In front of the others it takes minutes.
    if kernel.is_large() {
        return Err(Reason::PassLargeFrame);
    }
    Ok(())
}

#[inline(always)]
fn take<const N: usize>(cursor: Cursor<'_>) -> Result<(View<'_, N>, Cursor<'_>), Reason> {
    cursor.take::<N>().ok_or(Reason::PassTruncated)
}

/// Ethernet header and up to two tags.
///
/// The destination is asked for its group bit first of all: ARP, neighbour discovery and mDNS leave here.
#[inline(always)]
fn link(frame: Cursor<'_>) -> Result<(Link, Cursor<'_>), Reason> {
    let (ethernet, mut rest) = take::<{ field::ethernet::LEN }>(frame)?;
    if ethernet.get::<0, u8>() & MAC_GROUP != 0 {
        return Err(Reason::PassMulticast);
    }
    let mut link = Link {
        destination: Mac([
            ethernet.get::<0, u16>(),
            ethernet.get::<2, u16>(),
            ethernet.get::<4, u16>(),
        ]),
        source: Mac([
            ethernet.get::<{ field::ethernet::SOURCE }, u16>(),
            ethernet.get::<{ field::ethernet::SOURCE + 2 }, u16>(),
            ethernet.get::<{ field::ethernet::SOURCE + 4 }, u16>(),
        ]),
        ethertype: ethernet.be16::<{ field::ethernet::TYPE }>(),
        vlan_outer: 0,
        vlan_inner: 0,
    };
    if is_tag(link.ethertype) {
        (link.vlan_outer, link.ethertype, rest) = tag(rest)?;
        if is_tag(link.ethertype) {
            (link.vlan_inner, link.ethertype, rest) = tag(rest)?;
        }
        if is_tag(link.ethertype) {
            return Err(Reason::PassVlanDepth);
        }
    }
    Ok((link, rest))
}

#[inline(always)]
const fn is_tag(ethertype: u16) -> bool {
    matches!(ethertype, ETHERTYPE_VLAN | ETHERTYPE_QINQ)
}

/// VLAN ID and inner EtherType of one tag. ID 0 only carries a priority (IEEE 802.1Q section 6.9): in the listen map
/// it would look like no tag at all.
#[inline(always)]
fn tag(rest: Cursor<'_>) -> Result<(u16, u16, Cursor<'_>), Reason> {
    let (tag, rest) = take::<{ field::vlan::LEN }>(rest)?;
    let id = tag.be16::<{ field::vlan::CONTROL }>() & VLAN_ID;
    if id == 0 {
        return Err(Reason::PassVlanPriority);
    }
    Ok((id, tag.be16::<{ field::vlan::TYPE }>(), rest))
}

#[inline(always)]
fn ipv4(rest: Cursor<'_>) -> Result<(Packet, Cursor<'_>), Reason> {
    let (header, payload) = take::<{ field::ipv4::LEN }>(rest)?;
    if header.get::<{ field::ipv4::VERSION_IHL }, u8>() != IPV4_NO_OPTIONS {
        return Err(Reason::PassIpv4Options);
    }
    if header.get::<{ field::ipv4::PROTOCOL }, u8>() != PROTOCOL_UDP {
        return Err(Reason::PassProtocol);
    }
    if header.be16::<{ field::ipv4::FRAGMENT }>() & IPV4_FRAGMENT != 0 {
        return Err(Reason::PassFragment);
    }
    let source = header.get::<{ field::ipv4::SOURCE }, u32>();
    let destination = header.get::<{ field::ipv4::DESTINATION }, u32>();
    let addresses_sum = u64::from(source) + u64::from(destination);
    let sum = u64::from(header.get::<0, u32>())
        + u64::from(header.get::<4, u32>())
        + u64::from(header.get::<8, u32>())
        + addresses_sum;
    let packet = Packet {
        source: Address::mapped(source),
        destination: Address::mapped(destination),
        payload_len: header
            .be16::<{ field::ipv4::TOTAL_LEN }>()
            .checked_sub(IPV4_HEADER_LEN),
        // 0/8, 127/8, 224/4 and 240/4 with the broadcast address (RFC 6890).
        source_unfit: matches!(source.to_ne_bytes()[0], 0 | 127 | 224..),
        header_checksum_ok: adds_up(sum),
        checksum_may_be_absent: true,
        addresses_sum,
    };
    Ok((packet, payload))
}

#[inline(always)]
fn ipv6(rest: Cursor<'_>) -> Result<(Packet, Cursor<'_>), Reason> {
    let (header, payload) = take::<{ field::ipv6::LEN }>(rest)?;
    let version = header.get::<{ field::ipv6::VERSION }, u8>() >> 4;
    if version != 6 || header.get::<{ field::ipv6::NEXT_HEADER }, u8>() != PROTOCOL_UDP {
        return Err(Reason::PassProtocol);
    }
    let source = Address(
        header.get::<{ field::ipv6::SOURCE }, u64>(),
        header.get::<{ field::ipv6::SOURCE + 8 }, u64>(),
    );
    let destination = Address(
        header.get::<{ field::ipv6::DESTINATION }, u64>(),
        header.get::<{ field::ipv6::DESTINATION + 8 }, u64>(),
    );
    // ::/64 holds ::1, :: and the mapped IPv4 addresses, which would match a listener of the other family.
    if destination.0 == 0 {
        return Err(Reason::PassForeign);
    }
    let packet = Packet {
        source,
        destination,
        payload_len: Some(header.be16::<{ field::ipv6::PAYLOAD_LEN }>()),
        source_unfit: source.0 == 0 || source.octets()[0] == 0xff,
        header_checksum_ok: true,
        checksum_may_be_absent: false,
        addresses_sum: source.sum() + destination.sum(),
    };
    Ok((packet, payload))
}

#[inline(always)]
fn listen(link: &Link, packet: &Packet, udp: View<'_, { field::udp::LEN }>) -> Listen {
    Listen {
        addr: packet.destination.octets(),
        vlan_outer: link.vlan_outer.to_be_bytes(),
        vlan_inner: link.vlan_inner.to_be_bytes(),
        port: udp.get::<{ field::udp::DESTINATION }, u16>().to_ne_bytes(),
        padding: [0; 2],
    }
}

#[inline(always)]
fn check_source(packet: &Packet, udp: View<'_, { field::udp::LEN }>) -> Result<(), Reason> {
    let port = udp.get::<{ field::udp::SOURCE }, u16>();
    if packet.source_unfit || port == 0 || packet.source == packet.destination {
        return Err(Reason::PassSource);
    }
    Ok(())
}

/// IP and UDP agree to the byte. What follows the packet in the frame is Ethernet padding and nobody's business.
#[inline(always)]
fn check_lengths(packet: &Packet, udp: View<'_, { field::udp::LEN }>) -> Result<(), Reason> {
    let len = udp.be16::<{ field::udp::LENGTH }>();
    if packet.payload_len != Some(len) || len < UDP_HEADER_LEN + DNS_HEADER_LEN {
        return Err(Reason::PassLength);
    }
    if len > UDP_LEN_MAX {
        return Err(Reason::PassLong);
    }
    Ok(())
}

#[inline(always)]
fn check_query(message: Cursor<'_>) -> Result<(), Reason> {
    let (header, _) = take::<{ field::dns::LEN }>(message)?;
    if header.get::<{ field::dns::FLAGS }, u8>() & DNS_QR != 0 {
        return Err(Reason::PassResponse);
    }
    Ok(())
}

/// Both checksums, and with the walk over the datagram that all its bytes are in the frame.
#[inline(always)]
fn check_checksums(
    packet: &Packet,
    udp: View<'_, { field::udp::LEN }>,
    datagram: Cursor<'_>,
) -> Result<(), Reason> {
    if !packet.header_checksum_ok {
        return Err(Reason::PassIpv4Checksum);
    }
    let len = udp.be16::<{ field::udp::LENGTH }>();
    let sum = datagram
        .sum::<UDP_LEN_MAX>(len)
        .ok_or(Reason::PassTruncated)?;
    let ok = match udp.get::<{ field::udp::CHECKSUM }, u16>() {
        // RFC 768: the sender computed none. RFC 8200 section 8.1: over IPv6 it has to.
        0 => packet.checksum_may_be_absent,
        _ => {
            let pseudo = u64::from(u16::from(PROTOCOL_UDP).to_be()) + u64::from(len.to_be());
            adds_up(sum + packet.addresses_sum + pseudo)
        }
    };
    ok.then_some(()).ok_or(Reason::PassUdpChecksum)
}

/// Folds the carries into 16 bits: an undamaged sum is all ones (RFC 1071).
#[inline(always)]
const fn adds_up(sum: u64) -> bool {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    (sum & 0xffff) + (sum >> 16) == 0xffff
}

#[inline(always)]
fn check_route(
    route: Route,
    link: &Link,
    packet: &Packet,
    udp: View<'_, { field::udp::LEN }>,
    kernel: &impl Kernel,
) -> Result<(), Reason> {
    if route.egress_ifindex == 0 {
        return Ok(());
    }
    let reply = Reply {
        source: packet.destination,
        destination: packet.source,
        source_port: udp.get::<{ field::udp::DESTINATION }, u16>(),
        destination_port: udp.get::<{ field::udp::SOURCE }, u16>(),
    };
    let as_it_came = NextHop {
        ifindex: route.egress_ifindex,
        mac: link.source,
    };
    match kernel.next_hop(&reply) {
        Some(hop) if hop == as_it_came => Ok(()),
        Some(_) | None => Err(Reason::PassRoute),
    }
}

/// A queue that nobody has ever served has no socket. The two clocks may be apart by a tick in either direction; far
/// apart in either direction is stale.
#[inline(always)]
fn check_heartbeat(kernel: &impl Kernel) -> Result<(), Reason> {
    let beat = kernel.heartbeat().unwrap_or(0);
    if beat == 0 {
        return Err(Reason::PassNoSocket);
    }
    if kernel.now().abs_diff(beat) > HEARTBEAT_STALE_NS {
        return Err(Reason::PassStale);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    /// Query for www.example.com, type A, from 192.0.2.1 to 192.0.2.53, computed by another implementation.
    const QUERY_V4: [u8; 75] = [
        0x02, 0x00, 0x00, 0x00, 0x00, 0x01, 0x02, 0x00, 0x00, 0x00, 0x00, 0x02, 0x08, 0x00, 0x45,
        0x00, 0x00, 0x3d, 0x12, 0x34, 0x40, 0x00, 0x40, 0x11, 0xa4, 0x45, 0xc0, 0x00, 0x02, 0x01,
        0xc0, 0x00, 0x02, 0x35, 0x9c, 0x40, 0x00, 0x35, 0x00, 0x29, 0xd5, 0xa3, 0xbe, 0xef, 0x01,
        0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x03, 0x77, 0x77, 0x77, 0x07, 0x65,
        0x78, 0x61, 0x6d, 0x70, 0x6c, 0x65, 0x03, 0x63, 0x6f, 0x6d, 0x00, 0x00, 0x01, 0x00, 0x01,
    ];

    /// The same from 2001:db8::1 to 2001:db8::53.
    const QUERY_V6: [u8; 95] = [
        0x02, 0x00, 0x00, 0x00, 0x00, 0x01, 0x02, 0x00, 0x00, 0x00, 0x00, 0x02, 0x86, 0xdd, 0x60,
        0x00, 0x00, 0x00, 0x00, 0x29, 0x11, 0x40, 0x20, 0x01, 0x0d, 0xb8, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x20, 0x01, 0x0d, 0xb8, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x53, 0x9c, 0x40, 0x00, 0x35, 0x00, 0x29,
        0xfe, 0x14, 0xbe, 0xef, 0x01, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x03,
        0x77, 0x77, 0x77, 0x07, 0x65, 0x78, 0x61, 0x6d, 0x70, 0x6c, 0x65, 0x03, 0x63, 0x6f, 0x6d,
        0x00, 0x00, 0x01, 0x00, 0x01,
    ];

    const NOW: u64 = 77_000_000_000;
    const OUR_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];
    const CLIENT: Mac = Mac([
        u16::from_ne_bytes([0x02, 0x00]),
        u16::from_ne_bytes([0x00, 0x00]),
        u16::from_ne_bytes([0x00, 0x02]),
    ]);

    /// A kernel that answers as told and remembers the listen key it was asked for.
    struct Told {
        egress_ifindex: u32,
        mac: [u8; 6],
        is_large: bool,
        next_hop: Option<NextHop>,
        heartbeat: Option<u64>,
        asked: RefCell<Option<Listen>>,
    }

    impl Kernel for Told {
        fn route(&self, listen: &Listen) -> Option<Route> {
            *self.asked.borrow_mut() = Some(*listen);
            let ours = [53, 153].map(u16::to_be_bytes).contains(&listen.port);
            ours.then_some(Route::new(self.egress_ifindex, self.mac))
        }
        fn is_large(&self) -> bool {
            self.is_large
        }
        fn next_hop(&self, reply: &Reply) -> Option<NextHop> {
            assert_eq!(
                reply.source.octets(),
                [[0; 8], [0, 0, 0xff, 0xff, 192, 0, 2, 53]].concat()[..]
            );
            assert_eq!(
                reply.destination.octets(),
                [[0; 8], [0, 0, 0xff, 0xff, 192, 0, 2, 1]].concat()[..]
            );
            assert_eq!(reply.source_port.to_ne_bytes(), 53u16.to_be_bytes());
            assert_eq!(reply.destination_port.to_ne_bytes(), 40000u16.to_be_bytes());
            self.next_hop
        }
        fn heartbeat(&self) -> Option<u64> {
            self.heartbeat
        }
        fn now(&self) -> u64 {
            NOW
        }
    }

    fn alive() -> Told {
        Told {
            egress_ifindex: 0,
            mac: OUR_MAC,
            is_large: false,
            next_hop: None,
            heartbeat: Some(NOW),
            asked: RefCell::new(None),
        }
    }

    fn run(bytes: &[u8], kernel: &Told) -> Result<(), Reason> {
        // Exactly as long as the frame, so that a memory checker sees any byte read behind it.
        let frame = bytes.to_vec().into_boxed_slice();
        let range = frame.as_ptr_range();
        // SAFETY: the range of a live slice.
        classify(unsafe { Cursor::new(range.start, range.end) }, kernel)
    }

    fn changed(frame: &[u8], at: usize, to: u8) -> Vec<u8> {
        let mut frame = frame.to_vec();
        assert_ne!(frame[at], to, "a change changes something");
        frame[at] = to;
        frame
    }

    fn tagged(frame: &[u8], tags: &[[u8; 4]]) -> Vec<u8> {
        [&frame[..12], tags.concat().as_slice(), &frame[12..]].concat()
    }

    #[test]
    fn a_query_to_us_is_ours() {
        assert_eq!(run(&QUERY_V4, &alive()), Ok(()));
        assert_eq!(run(&QUERY_V6, &alive()), Ok(()));
    }

    #[test]
    fn the_key_is_the_destination() {
        let kernel = alive();
        let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 53];
        let mut key = Listen {
            addr: mapped,
            vlan_outer: [0; 2],
            vlan_inner: [0; 2],
            port: [0, 53],
            padding: [0; 2],
        };
        assert_eq!(run(&QUERY_V4, &kernel), Ok(()));
        assert_eq!(kernel.asked.take(), Some(key));

        let tags = [[0x88, 0xa8, 0x61, 0x23], [0x81, 0x00, 0xe0, 0x05]];
        assert_eq!(run(&tagged(&QUERY_V4, &tags), &kernel), Ok(()));
        (key.vlan_outer, key.vlan_inner) = ([0x01, 0x23], [0x00, 0x05]);
        assert_eq!(kernel.asked.take(), Some(key));

        assert_eq!(run(&QUERY_V6, &kernel), Ok(()));
        let asked = kernel.asked.take().map(|listen| listen.addr);
        assert_eq!(asked, QUERY_V6[38..54].first_chunk().copied());
    }

    #[test]
    fn tags_that_name_no_vlan_and_too_many_tags() {
        let priority = tagged(&QUERY_V4, &[[0x81, 0x00, 0xe0, 0x00]]);
        assert_eq!(run(&priority, &alive()), Err(Reason::PassVlanPriority));
        let three = tagged(&QUERY_V4, &[[0x81, 0x00, 0x00, 0x05]; 3]);
        assert_eq!(run(&three, &alive()), Err(Reason::PassVlanDepth));
    }

    #[test]
    fn one_wrong_bit_anywhere_under_the_checksums_is_seen() {
        for (frame, from) in [(&QUERY_V4[..], 14), (&QUERY_V6[..], 22)] {
            for at in from..frame.len() {
                for bit in 0..8 {
                    let damaged = changed(frame, at, frame[at] ^ (1 << bit));
                    assert!(run(&damaged, &alive()).is_err(), "byte {at}, bit {bit}");
                }
            }
        }
    }

    #[test]
    fn a_cut_frame_is_never_ours_and_padding_is_no_matter() {
        for frame in [&QUERY_V4[..], &QUERY_V6[..]] {
            for len in 0..frame.len() {
                assert_eq!(
                    run(&frame[..len], &alive()),
                    Err(Reason::PassTruncated),
                    "{len}"
                );
            }
            let padded = [frame, &[0xa5; 9]].concat();
            assert_eq!(run(&padded, &alive()), Ok(()));
        }
    }

    /// A port of a bridge hears what goes to other stations.
    #[test]
    fn a_frame_to_another_stations_mac_passes() {
        for frame in [&QUERY_V4[..], &QUERY_V6[..]] {
            for at in 0..6 {
                for bit in 0..8 {
                    let other = changed(frame, at, frame[at] ^ (1 << bit));
                    let is_group = at == 0 && bit == 0;
                    let reason = if is_group {
                        Reason::PassMulticast
                    } else {
                        Reason::PassOtherMac
                    };
                    assert_eq!(run(&other, &alive()), Err(reason), "byte {at}, bit {bit}");
                }
            }
            let kernel = Told {
                mac: [0x02, 0, 0, 0, 0, 0x03],
                ..alive()
            };
            assert_eq!(run(frame, &kernel), Err(Reason::PassOtherMac));
            assert_eq!(
                run(&changed(frame, 5, 0x03), &kernel),
                Ok(()),
                "the address that the device has now"
            );
        }
    }

    #[test]
    fn a_frame_in_several_buffers_passes() {
        let kernel = Told {
            is_large: true,
            ..alive()
        };
        for frame in [&QUERY_V4[..], &QUERY_V6[..]] {
            assert_eq!(run(frame, &kernel), Err(Reason::PassLargeFrame));
        }
    }

    #[test]
    fn a_buffer_holds_its_own_length_and_no_more() {
        const MAX: usize = 200;
        for len in [0, 1, 63, 64, 65, 127, 128, 191, 199, 200, 201, 300] {
            let bytes = vec![0; len].into_boxed_slice();
            let range = bytes.as_ptr_range();
            // SAFETY: the range of a live slice.
            let cursor = unsafe { Cursor::new(range.start, range.end) };
            for asked in (0..=300u64).chain([u64::MAX]) {
                let expected = asked <= len as u64 && asked <= MAX as u64;
                assert_eq!(cursor.holds::<MAX>(asked), expected, "{asked} of {len}");
            }
        }
    }

    #[test]
    fn the_reply_has_to_leave_as_the_query_came() {
        let hop = |ifindex, mac| Some(NextHop { ifindex, mac });
        let other = Mac([1, 2, 3]);
        for (next_hop, verdict) in [
            (hop(7, CLIENT), Ok(())),
            (hop(8, CLIENT), Err(Reason::PassRoute)),
            (hop(7, other), Err(Reason::PassRoute)),
            (None, Err(Reason::PassRoute)),
        ] {
            let kernel = Told {
                egress_ifindex: 7,
                next_hop,
                ..alive()
            };
            assert_eq!(run(&QUERY_V4, &kernel), verdict);
        }
    }

    #[test]
    fn a_heartbeat_far_away_in_either_direction_is_stale() {
        for (heartbeat, verdict) in [
            (Some(NOW - HEARTBEAT_STALE_NS), Ok(())),
            (Some(NOW + HEARTBEAT_STALE_NS), Ok(())),
            (Some(NOW - HEARTBEAT_STALE_NS - 1), Err(Reason::PassStale)),
            (Some(NOW + HEARTBEAT_STALE_NS + 1), Err(Reason::PassStale)),
            (Some(0), Err(Reason::PassNoSocket)),
            (None, Err(Reason::PassNoSocket)),
        ] {
            let kernel = Told {
                heartbeat,
                ..alive()
            };
            assert_eq!(run(&QUERY_V4, &kernel), verdict, "{heartbeat:?}");
        }
    }

    #[test]
    fn an_address_is_mapped_and_back() {
        let ipv4 = u32::from_ne_bytes([192, 0, 2, 53]);
        assert_eq!(Address::mapped(ipv4).ipv4(), Some(ipv4));
        assert_eq!(Address(1, Address::mapped(ipv4).1).ipv4(), None);
        assert_eq!(Address(0, 1).ipv4(), None);
    }
}
