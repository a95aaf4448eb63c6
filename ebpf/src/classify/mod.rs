//! Decides whether a frame is a DNS query to us that user space can answer in place. [`Frame`] is the parsed frame.
//!
//! A frame that cannot be parsed passes to the kernel untouched, with a [`Reason`]. A frame to us that can only be an attack is
//! dropped with a reason: the kernel would discard it too, and here that costs least. Checks stand in the order of their cost:
//! traffic other than DNS passes after a few compares, and DNS to others after one map lookup. This module reads the frame and
//! asks the [`Kernel`]; it writes nothing.

use crate::flow::link::{Link, Mac};
use crate::flow::network::{Address, Packet};
use crate::flow::transport::Datagram;
use crate::flow::{Flow, Frame, take};
use crate::frame::Cursor;
use xdnsd_abi::checksum::Sum;
use xdnsd_abi::headers::{dns, protocol, udp};
use xdnsd_abi::{HEARTBEAT_STALE_NS, Listen, MESSAGE_MAX, PathCheck, Reason};

/// Longest datagram that is summed up.
const UDP_LEN_MAX: u16 = (udp::HEADER_LEN + MESSAGE_MAX) as u16;
/// The port of DNS.
const DNS_PORT: u16 = 53;
/// Shortest datagram that holds a message.
const UDP_LEN_MIN: u16 = (udp::HEADER_LEN + dns::HEADER_LEN) as u16;

/// Reads what decides whether a reply may leave as the frame came.
pub trait FrameContext {
    /// Where the FIB sends a reply.
    fn next_hop(&self, reply: &ReplyFlow) -> Option<NextHop>;
    /// Index of the interface that received the frame.
    fn ingress(&self) -> u32;
    /// Whether frames that can only be an attack are dropped.
    fn drops_garbage(&self) -> bool;
}

/// Reads maps and the clock, and tail-calls other programs.
pub trait Kernel: FrameContext {
    /// The checks for a query to this destination; `None`: the destination is not ours.
    fn path_check(&self, listen: &Listen) -> Option<PathCheck>;
    /// Tail-calls the program for SYNs (`syn/`). Returns only where that is not loaded.
    fn hand_on_syn(&self);
    /// Tail-calls the program for other segments (`stray.rs`).
    fn hand_on_stray(&self);
    /// Tail-calls the program for packets behind options or in parts (`forward/`).
    fn hand_on_odd(&self);
    /// Whether the frame is in several buffers, or longer than [`xdnsd_abi::FRAME_MAX`].
    fn is_large(&self) -> bool;
    /// Whether the bridge had a frame of this station by this port lately.
    fn has_heard(&self, station: Mac) -> bool;
    /// When the worker of the frame's RX queue was last alive; `None` for a queue outside the map.
    fn heartbeat(&self) -> Option<u64>;
    /// CLOCK_MONOTONIC in nanoseconds.
    fn now(&self) -> u64;
}

/// A reply, as the FIB look-up takes it.
pub struct ReplyFlow {
    /// See [`protocol`].
    pub protocol: u8,
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

/// `Ok`: the frame is a sound query to us, the reply may leave as the query came, and the worker is alive. The value: whether
/// limits per client apply.
#[inline(always)]
pub fn classify(frame: Cursor<'_>, kernel: &impl Kernel) -> Result<bool, Reason> {
    match Frame::parse(frame) {
        Ok(Frame::Udp(flow)) => classify_datagram(&flow, kernel),
        Ok(Frame::Tcp(segment)) if segment.opens() => {
            kernel.hand_on_syn();
            Err(Reason::PassProtocol)
        }
        Ok(Frame::Tcp(_)) => {
            kernel.hand_on_stray();
            Err(Reason::PassProtocol)
        }
        Ok(Frame::Other) => {
            kernel.hand_on_odd();
            Err(Reason::PassProtocol)
        }
        Err(reason) => {
            if reason == Reason::PassIpv4Options {
                kernel.hand_on_odd();
            }
            Err(reason)
        }
    }
}

#[inline(always)]
fn classify_datagram(flow: &Flow<Datagram<'_>>, kernel: &impl Kernel) -> Result<bool, Reason> {
    let Flow {
        link,
        packet,
        transport: datagram,
    } = flow;
    let listen = listen(link, packet.destination, datagram.destination_port());
    let check = kernel.path_check(&listen).ok_or(Reason::PassForeign)?;
    check_ours(link, &check, kernel)?;
    check_source(packet, datagram.source_port(), kernel)?;
    // The key is made first, so that both ways lead to the same stack: the verifier walks what follows once.
    let from = from(packet, &listen);
    let bit = core::hint::black_box(&from).address_bit();
    if check.own & bit != 0 && kernel.path_check(&from).is_some() {
        return Err(garbage(kernel, Reason::DropSource, Reason::PassSource));
    }
    check_lengths(packet, datagram, kernel)?;
    check_query(datagram, kernel)?;
    check_checksums(packet, datagram)?;
    let reply = ReplyFlow {
        protocol: protocol::UDP,
        source: packet.destination,
        destination: packet.source,
        source_port: datagram.destination_port(),
        destination_port: datagram.source_port(),
    };
    check_route(&check, link, &reply, kernel)?;
    check_heartbeat(kernel)?;
    // Last: here the verifier needs to know nothing of the frame any more, so that one walk stands for those behind every
    // path that leads here. In front of the others it takes minutes.
    if kernel.is_large() {
        return Err(Reason::PassLargeFrame);
    }
    if check.is_by_port() && !kernel.has_heard(link.source) {
        return Err(Reason::PassStation);
    }
    Ok(check.has_limits())
}

/// The listen map's key of a destination.
#[inline(always)]
pub fn listen(link: &Link, destination: Address, port: u16) -> Listen {
    Listen {
        addr: destination.octets(),
        vlan_outer: link.vlan_outer.to_be_bytes(),
        vlan_inner: link.vlan_inner.to_be_bytes(),
        port: port.to_ne_bytes(),
        padding: [0; 2],
    }
}

/// The frame has our MAC address, and came by the interface that is served.
#[inline(always)]
pub fn check_ours(link: &Link, check: &PathCheck, way: &impl FrameContext) -> Result<(), Reason> {
    if link.destination != Mac::of(check.mac) {
        return Err(Reason::PassOtherMac);
    }
    if way.ingress() == check.ingress_ifindex {
        return Ok(());
    }
    // Compared last: a query that is answered never comes here.
    if check.ingress_ifindex == 0 {
        return Err(Reason::PassPort);
    }
    Err(Reason::PassOtherDevice)
}

/// The reason for a frame to us that can only be an attack: `dropped` where `shield.drop_garbage` is on, else `passed`.
#[inline(always)]
pub fn garbage(way: &impl FrameContext, dropped: Reason, passed: Reason) -> Reason {
    if way.drops_garbage() { dropped } else { passed }
}

/// The source can be answered: it is no martian, and not our own address.
#[inline(always)]
pub fn check_source(packet: &Packet, port: u16, way: &impl FrameContext) -> Result<(), Reason> {
    if packet.source == packet.destination {
        return Err(garbage(way, Reason::DropSource, Reason::PassSource));
    }
    if packet.is_source_martian || port == 0 {
        return Err(Reason::PassSource);
    }
    Ok(())
}

/// A destination's key with the frame's source address. A source that the listen map has is forged.
#[inline(always)]
pub fn from(packet: &Packet, destination: &Listen) -> Listen {
    Listen {
        addr: packet.source.octets(),
        ..*destination
    }
}

/// The lengths of IP and UDP agree to the byte. Bytes behind the packet are Ethernet padding.
#[inline(always)]
fn check_lengths(
    packet: &Packet,
    datagram: &Datagram<'_>,
    way: &impl FrameContext,
) -> Result<(), Reason> {
    let len = datagram.len();
    // RFC 2675 section 4: the datagram is as long as its packet, which the kernel knows.
    if len == 0 {
        return Err(Reason::PassLength);
    }
    if len < UDP_LEN_MIN || i32::from(len) > packet.payload_len {
        return Err(garbage(way, Reason::DropTruncated, Reason::PassLength));
    }
    if i32::from(len) != packet.payload_len {
        return Err(Reason::PassLength);
    }
    if len > UDP_LEN_MAX {
        return Err(Reason::PassLong);
    }
    Ok(())
}

#[inline(always)]
fn check_query(datagram: &Datagram<'_>, way: &impl FrameContext) -> Result<(), Reason> {
    let (header, _) = take::<{ dns::HEADER_LEN }>(datagram.message)?;
    if header.get::<{ dns::field::FLAGS.start }, u16>() & dns::QR.to_be() == 0 {
        return Ok(());
    }
    // No question leaves port 53. Another port may be shared: responses of multicast DNS come to 5353 (RFC 6762 section 6.7).
    if datagram.destination_port() == DNS_PORT.to_be() {
        return Err(garbage(way, Reason::DropResponse, Reason::PassResponse));
    }
    Err(Reason::PassResponse)
}

/// Verifies both checksums. The walk over the datagram also shows that all its bytes are in the frame.
#[inline(always)]
fn check_checksums(packet: &Packet, datagram: &Datagram<'_>) -> Result<(), Reason> {
    if !packet.header_sum.adds_up() {
        return Err(Reason::PassIpv4Checksum);
    }
    let len = datagram.len();
    let sum = datagram
        .start
        .sum::<UDP_LEN_MAX>(len)
        .ok_or(Reason::PassTruncated)?;
    // RFC 768: the sender may have computed none. RFC 8200 section 8.1: over IPv6 it has to.
    let ok = if datagram.has_checksum() {
        let pseudo = u64::from(u16::from(protocol::UDP).to_be()) + u64::from(len.to_be());
        Sum::of_few(sum + packet.addresses_sum + pseudo).adds_up()
    } else {
        packet.checksum_may_be_absent
    };
    ok.then_some(()).ok_or(Reason::PassUdpChecksum)
}

/// Where `route_check` applies, the FIB sends the reply back to where the frame came from.
#[inline(always)]
pub fn check_route(
    check: &PathCheck,
    link: &Link,
    reply: &ReplyFlow,
    way: &impl FrameContext,
) -> Result<(), Reason> {
    if check.egress_ifindex == 0 {
        return Ok(());
    }
    let as_it_came = NextHop {
        ifindex: check.egress_ifindex,
        mac: link.source,
    };
    match way.next_hop(reply) {
        Some(hop) if hop == as_it_came => Ok(()),
        Some(_) | None => Err(Reason::PassRoute),
    }
}

/// The queue has a socket, and its worker is alive. The two clocks may differ by a tick in either direction; a larger difference
/// in either direction is stale.
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
