//! Is this frame a DNS query to us that user space can answer in place? Ethernet, VLAN, IPv4 and IPv6, UDP.
//!
//! Anything that is not fully understood is a [`Reason`] to pass it, untouched, to the kernel. Checks stand in the
//! order of their cost, so that traffic which is not DNS leaves after a few compares and DNS to others after one map
//! lookup. It reads the frame and asks the [`Kernel`]; it writes nothing.

use crate::frame::{Cursor, View};
use xdnsd_abi::checksum::Sum;
use xdnsd_abi::headers::ethernet::ethertype;
use xdnsd_abi::headers::{dns, ethernet, ipv4, ipv6, protocol, udp, vlan};
use xdnsd_abi::{HEARTBEAT_STALE_NS, Listen, MESSAGE_MAX, Reason, Route};

/// Longest datagram that is summed up.
const UDP_LEN_MAX: u16 = (udp::HEADER_LEN + MESSAGE_MAX) as u16;
/// Shortest datagram that holds a message.
const UDP_LEN_MIN: u16 = (udp::HEADER_LEN + dns::HEADER_LEN) as u16;

/// What the program asks of the kernel: maps, clock, FIB.
pub trait Kernel {
    /// The route of a destination that is ours.
    fn route(&self, listen: &Listen) -> Option<Route>;
    /// Where the FIB sends a reply.
    fn next_hop(&self, reply: &Reply) -> Option<NextHop>;
    /// Index of the interface that received the frame.
    fn ingress(&self) -> u32;
    /// Whether the frame is in several buffers, or longer than [`xdnsd_abi::FRAME_MAX`].
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
        ethertype::IPV4 => ipv4(rest)?,
        ethertype::IPV6 => ipv6(rest)?,
        _ => return Err(Reason::PassEthertype),
    };
    let (udp, message) = take::<{ udp::HEADER_LEN }>(datagram)?;

    let listen = listen(&link, &packet, udp);
    let route = kernel.route(&listen).ok_or(Reason::PassForeign)?;
    if link.destination != Mac::of(route.mac) {
        return Err(Reason::PassOtherMac);
    }
    if kernel.ingress() != route.ingress_ifindex {
        return Err(Reason::PassOtherDevice);
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
    let (ethernet, mut rest) = take::<{ ethernet::HEADER_LEN }>(frame)?;
    if ethernet.get::<0, u8>() & ethernet::GROUP != 0 {
        return Err(Reason::PassMulticast);
    }
    let mut link = Link {
        destination: Mac([
            ethernet.get::<0, u16>(),
            ethernet.get::<2, u16>(),
            ethernet.get::<4, u16>(),
        ]),
        source: Mac([
            ethernet.get::<{ ethernet::field::SOURCE.start }, u16>(),
            ethernet.get::<{ ethernet::field::SOURCE.start + 2 }, u16>(),
            ethernet.get::<{ ethernet::field::SOURCE.start + 4 }, u16>(),
        ]),
        ethertype: ethernet.be16::<{ ethernet::field::ETHERTYPE.start }>(),
        vlan_outer: 0,
        vlan_inner: 0,
    };
    if vlan::is_tag(link.ethertype) {
        (link.vlan_outer, link.ethertype, rest) = tag(rest)?;
        if vlan::is_tag(link.ethertype) {
            (link.vlan_inner, link.ethertype, rest) = tag(rest)?;
        }
        if vlan::is_tag(link.ethertype) {
            return Err(Reason::PassVlanDepth);
        }
    }
    Ok((link, rest))
}

/// VLAN ID and inner EtherType of one tag. ID 0 only carries a priority (IEEE 802.1Q section 6.9): in the listen map
/// it would look like no tag at all.
#[inline(always)]
fn tag(rest: Cursor<'_>) -> Result<(u16, u16, Cursor<'_>), Reason> {
    let (tag, rest) = take::<{ vlan::HEADER_LEN }>(rest)?;
    let id = tag.be16::<{ vlan::field::TCI.start }>() & vlan::ID;
    if id == 0 {
        return Err(Reason::PassVlanPriority);
    }
    Ok((id, tag.be16::<{ vlan::field::ETHERTYPE.start }>(), rest))
}

#[inline(always)]
fn ipv4(rest: Cursor<'_>) -> Result<(Packet, Cursor<'_>), Reason> {
    let (header, payload) = take::<{ ipv4::HEADER_LEN }>(rest)?;
    if header.get::<{ ipv4::field::VERSION_IHL }, u8>() != ipv4::VERSION_4_IHL_5 {
        return Err(Reason::PassIpv4Options);
    }
    if header.get::<{ ipv4::field::PROTOCOL }, u8>() != protocol::UDP {
        return Err(Reason::PassProtocol);
    }
    if header.be16::<{ ipv4::field::FLAGS_OFFSET.start }>() & ipv4::FRAGMENT != 0 {
        return Err(Reason::PassFragment);
    }
    let source = header.get::<{ ipv4::field::SOURCE.start }, u32>();
    let destination = header.get::<{ ipv4::field::DESTINATION.start }, u32>();
    let addresses_sum = u64::from(source) + u64::from(destination);
    let sum = u64::from(header.get::<0, u32>())
        + u64::from(header.get::<4, u32>())
        + u64::from(header.get::<8, u32>())
        + addresses_sum;
    let packet = Packet {
        source: Address::mapped(source),
        destination: Address::mapped(destination),
        payload_len: header
            .be16::<{ ipv4::field::TOTAL_LEN.start }>()
            .checked_sub(ipv4::HEADER_LEN as u16),
        // 0/8, 127/8, 224/4 and 240/4 with the broadcast address (RFC 6890).
        source_unfit: matches!(source.to_ne_bytes()[0], 0 | 127 | 224..),
        header_checksum_ok: Sum::of_few(sum).adds_up(),
        checksum_may_be_absent: true,
        addresses_sum,
    };
    Ok((packet, payload))
}

#[inline(always)]
fn ipv6(rest: Cursor<'_>) -> Result<(Packet, Cursor<'_>), Reason> {
    let (header, payload) = take::<{ ipv6::HEADER_LEN }>(rest)?;
    let version = header.get::<{ ipv6::field::VERSION_CLASS_FLOW.start }, u8>() >> 4;
    if version != 6 || header.get::<{ ipv6::field::NEXT_HEADER }, u8>() != protocol::UDP {
        return Err(Reason::PassProtocol);
    }
    let source = Address(
        header.get::<{ ipv6::field::SOURCE.start }, u64>(),
        header.get::<{ ipv6::field::SOURCE.start + 8 }, u64>(),
    );
    let destination = Address(
        header.get::<{ ipv6::field::DESTINATION.start }, u64>(),
        header.get::<{ ipv6::field::DESTINATION.start + 8 }, u64>(),
    );
    // ::/64 holds ::1, :: and the mapped IPv4 addresses, which would match a listener of the other family.
    if destination.0 == 0 {
        return Err(Reason::PassForeign);
    }
    let packet = Packet {
        source,
        destination,
        payload_len: Some(header.be16::<{ ipv6::field::PAYLOAD_LEN.start }>()),
        source_unfit: source.0 == 0 || source.octets()[0] == 0xff,
        header_checksum_ok: true,
        checksum_may_be_absent: false,
        addresses_sum: source.sum() + destination.sum(),
    };
    Ok((packet, payload))
}

#[inline(always)]
fn listen(link: &Link, packet: &Packet, udp: View<'_, { udp::HEADER_LEN }>) -> Listen {
    Listen {
        addr: packet.destination.octets(),
        vlan_outer: link.vlan_outer.to_be_bytes(),
        vlan_inner: link.vlan_inner.to_be_bytes(),
        port: udp
            .get::<{ udp::field::DESTINATION_PORT.start }, u16>()
            .to_ne_bytes(),
        padding: [0; 2],
    }
}

#[inline(always)]
fn check_source(packet: &Packet, udp: View<'_, { udp::HEADER_LEN }>) -> Result<(), Reason> {
    let port = udp.get::<{ udp::field::SOURCE_PORT.start }, u16>();
    if packet.source_unfit || port == 0 || packet.source == packet.destination {
        return Err(Reason::PassSource);
    }
    Ok(())
}

/// IP and UDP agree to the byte. What follows the packet in the frame is Ethernet padding and nobody's business.
#[inline(always)]
fn check_lengths(packet: &Packet, udp: View<'_, { udp::HEADER_LEN }>) -> Result<(), Reason> {
    let len = udp.be16::<{ udp::field::LENGTH.start }>();
    if packet.payload_len != Some(len) || len < UDP_LEN_MIN {
        return Err(Reason::PassLength);
    }
    if len > UDP_LEN_MAX {
        return Err(Reason::PassLong);
    }
    Ok(())
}

#[inline(always)]
fn check_query(message: Cursor<'_>) -> Result<(), Reason> {
    let (header, _) = take::<{ dns::HEADER_LEN }>(message)?;
    if header.get::<{ dns::field::FLAGS.start }, u8>() & dns::QR != 0 {
        return Err(Reason::PassResponse);
    }
    Ok(())
}

/// Both checksums, and with the walk over the datagram that all its bytes are in the frame.
#[inline(always)]
fn check_checksums(
    packet: &Packet,
    udp: View<'_, { udp::HEADER_LEN }>,
    datagram: Cursor<'_>,
) -> Result<(), Reason> {
    if !packet.header_checksum_ok {
        return Err(Reason::PassIpv4Checksum);
    }
    let len = udp.be16::<{ udp::field::LENGTH.start }>();
    let sum = datagram
        .sum::<UDP_LEN_MAX>(len)
        .ok_or(Reason::PassTruncated)?;
    let ok = match udp.get::<{ udp::field::CHECKSUM.start }, u16>() {
        // RFC 768: the sender computed none. RFC 8200 section 8.1: over IPv6 it has to.
        0 => packet.checksum_may_be_absent,
        _ => {
            let pseudo = u64::from(u16::from(protocol::UDP).to_be()) + u64::from(len.to_be());
            Sum::of_few(sum + packet.addresses_sum + pseudo).adds_up()
        }
    };
    ok.then_some(()).ok_or(Reason::PassUdpChecksum)
}

#[inline(always)]
fn check_route(
    route: Route,
    link: &Link,
    packet: &Packet,
    udp: View<'_, { udp::HEADER_LEN }>,
    kernel: &impl Kernel,
) -> Result<(), Reason> {
    if route.egress_ifindex == 0 {
        return Ok(());
    }
    let reply = Reply {
        source: packet.destination,
        destination: packet.source,
        source_port: udp.get::<{ udp::field::DESTINATION_PORT.start }, u16>(),
        destination_port: udp.get::<{ udp::field::SOURCE_PORT.start }, u16>(),
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
mod tests;
