//! Decides whether a frame is a DNS query to us that user space can answer in place. [`Frame`] is the parsed frame.
//!
//! A frame that cannot be parsed passes to the kernel untouched, with a [`Reason`]. A frame to us that can only be an
//! attack is dropped with a reason: the kernel would discard it too, and here that costs least. Checks are in the order of
//! their cost: traffic other than DNS passes after a few compares, and DNS to others after one map look-up. This module
//! reads the frame and asks the [`Kernel`]; it writes nothing.

use crate::flow::link::{Link, Mac};
use crate::flow::network::{Address, Packet};
use crate::flow::transport::Datagram;
use crate::flow::{Flow, Frame, take};
use crate::frame::Cursor;
use xdnsd_abi::checksum::Sum;
use xdnsd_abi::headers::{dns, protocol, udp};
use xdnsd_abi::{HEARTBEAT_STALE_NS, Listen, MESSAGE_MAX, PathCheck, Reason};

/// Longest datagram that is summed up, in bytes.
const UDP_LEN_MAX: u16 = (udp::HEADER_LEN + MESSAGE_MAX) as u16;
/// Port of DNS.
const DNS_PORT: u16 = 53;
/// Shortest datagram with a DNS message, in bytes.
const UDP_LEN_MIN: u16 = (udp::HEADER_LEN + dns::HEADER_LEN) as u16;

/// Access to what decides whether a reply may leave the way the frame came.
pub trait FrameContext {
    /// The FIB's next hop for a reply; `None` if it has none.
    fn next_hop(&self, reply: &ReplyFlow) -> Option<NextHop>;
    /// Index of the interface that received the frame.
    fn ingress(&self) -> u32;
    /// True if frames that can only be an attack are dropped.
    fn drops_garbage(&self) -> bool;
}

/// Access to maps, the clock and other programs.
pub trait Kernel: FrameContext {
    /// Checks for a query to this destination; `None` if the destination is not ours.
    fn path_check(&self, listen: &Listen) -> Option<PathCheck>;
    /// Tail-calls the program for SYNs (`syn/`). Returns only if it is not loaded.
    fn hand_on_syn(&self);
    /// Tail-calls the program for other segments (`stray.rs`).
    fn hand_on_stray(&self);
    /// Tail-calls the program for packets behind options or a priority, or in parts (`forward/`).
    fn hand_on_odd(&self);
    /// Whether the frame is in several buffers, or longer than [`xdnsd_abi::FRAME_MAX`].
    fn is_large(&self) -> bool;
    /// True if the bridge has seen a frame of this station by this port lately.
    fn has_heard(&self, station: Mac) -> bool;
    /// Latest heartbeat of the worker of the frame's RX queue; `None` for a queue outside the map.
    fn heartbeat(&self) -> Option<u64>;
    /// CLOCK_MONOTONIC in nanoseconds.
    fn now(&self) -> u64;
}

/// A reply, for the FIB look-up.
pub struct ReplyFlow {
    /// IP protocol, see [`protocol`].
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
    /// Index of the interface through which the reply leaves.
    pub ifindex: u32,
    /// Ethernet destination of the reply.
    pub mac: Mac,
}

/// `Ok`: the frame is a valid query to us, the reply may leave the way the query came, and the worker is alive. The value
/// is true if limits per client apply.
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
        // Each by itself: a reason that has to be kept over the call would take the stack of this program to 256 bytes, and then
        // Linux 6.1 allows no tail call in a function that it calls.
        Err(Reason::PassIpv4Options) => {
            kernel.hand_on_odd();
            Err(Reason::PassIpv4Options)
        }
        Err(Reason::PassVlanPriority) => {
            // Whatever it carries: that program hands on what is not for it.
            kernel.hand_on_syn();
            Err(Reason::PassVlanPriority)
        }
        Err(reason) => Err(reason),
    }
}

#[inline(always)]
fn classify_datagram(flow: &Flow<Datagram<'_>>, kernel: &impl Kernel) -> Result<bool, Reason> {
    let Flow {
        link,
        packet,
        transport: datagram,
    } = flow;
    let mut key = listen(link, packet.destination, datagram.destination_port());
    let check = kernel.path_check(&key).ok_or(Reason::PassForeign)?;
    check_ours(link, &check, kernel)?;
    check_source(packet, datagram.source_port(), kernel)?;
    // The key is made first, so that the stack is the same on both paths and the verifier walks what follows once; in the place of
    // the other one, since the stack is scarce.
    key.addr = packet.source.octets();
    let bit = core::hint::black_box(&key).address_bit();
    if check.own & bit != 0 && kernel.path_check(&key).is_some() {
        return Err(garbage(kernel, Reason::DropSource, Reason::PassSource));
    }
    check_lengths(packet, datagram, kernel)?;
    check_query(datagram, kernel)?;
    check_checksums(flow)?;
    let reply = ReplyFlow {
        protocol: protocol::UDP,
        source: packet.destination,
        destination: packet.source,
        source_port: datagram.destination_port(),
        destination_port: datagram.source_port(),
    };
    check_route(&check, link, &reply, kernel)?;
    check_heartbeat(kernel)?;
    // Last, because here the verifier need not know anything about the frame, so that one walk covers all paths that lead
    // here. Before the other checks verification takes minutes.
    if kernel.is_large() {
        return Err(Reason::PassLargeFrame);
    }
    if check.is_by_port() && !kernel.has_heard(link.source) {
        return Err(Reason::PassStation);
    }
    Ok(check.has_limits())
}

/// Key of a destination in the listen map.
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

/// Checks that the frame is to our MAC address, and came by the interface that is served.
#[inline(always)]
pub fn check_ours(link: &Link, check: &PathCheck, way: &impl FrameContext) -> Result<(), Reason> {
    if link.destination != Mac::of(check.mac) {
        return Err(Reason::PassOtherMac);
    }
    if way.ingress() == check.ingress_ifindex {
        return Ok(());
    }
    // Compared last: a query that is answered never gets here.
    if check.ingress_ifindex == 0 {
        return Err(Reason::PassPort);
    }
    Err(Reason::PassOtherDevice)
}

/// Reason for a frame to us that can only be an attack: `dropped` if `shield.drop_garbage` is on, else `passed`.
#[inline(always)]
pub fn garbage(way: &impl FrameContext, dropped: Reason, passed: Reason) -> Reason {
    if way.drops_garbage() { dropped } else { passed }
}

/// Checks that the source can be answered: it is no martian and not the destination itself.
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

/// Key of the frame's source address at the destination's VLAN and port. A source in the listen map is forged.
#[inline(always)]
pub fn from(packet: &Packet, destination: &Listen) -> Listen {
    Listen {
        addr: packet.source.octets(),
        ..*destination
    }
}

/// Checks that the lengths of IP and UDP are equal. Bytes behind the packet are Ethernet padding.
#[inline(always)]
fn check_lengths(
    packet: &Packet,
    datagram: &Datagram<'_>,
    way: &impl FrameContext,
) -> Result<(), Reason> {
    let len = datagram.len();
    // RFC 2675 section 4: the datagram is as long as its packet. The kernel handles it.
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
    // No query of ours leaves from port 53. Another port may be shared: responses of multicast DNS come to 5353 (RFC 6762
    // section 6.7).
    if datagram.destination_port() == DNS_PORT.to_be() {
        return Err(garbage(way, Reason::DropResponse, Reason::PassResponse));
    }
    Err(Reason::PassResponse)
}

/// Verifies both checksums. The walk over the datagram also proves that all its bytes are in the frame.
///
/// A sender on this machine or in a guest of it leaves the sum of the pseudo-header for a device to complete, and there is none on
/// the way. Such a frame was on no wire. One that was damaged on a wire so that it looks the same is as rare as one that still adds up,
/// and its address, port and length are those that the sum is of.
#[inline(always)]
fn check_checksums(flow: &Flow<Datagram<'_>>) -> Result<(), Reason> {
    let Flow {
        packet,
        transport: datagram,
        ..
    } = flow;
    if !packet.header_sum.adds_up() {
        return Err(Reason::PassIpv4Checksum);
    }
    let len = datagram.len();
    let sum = datagram
        .start
        .sum::<UDP_LEN_MAX>(len)
        .ok_or(Reason::PassTruncated)?;
    // RFC 768: the sender may have computed none. RFC 8200 section 8.1: over IPv6 it must.
    let ok = if datagram.has_checksum() {
        // Both ways to be right need it: computed twice it would take eight bytes of the stack more, and Linux 6.1 the tail call.
        let pseudo = core::hint::black_box(flow.pseudo_sum());
        Sum::of_few(sum + pseudo).adds_up()
            || Sum::of_few(pseudo + u64::from(!datagram.checksum())).adds_up()
    } else {
        packet.checksum_may_be_absent
    };
    ok.then_some(()).ok_or(Reason::PassUdpChecksum)
}

/// Checks that the FIB sends the reply back the way the frame came, if `route_check` applies.
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

/// Checks that the queue has a socket and its worker is alive. The two clocks may differ by a tick in either direction; a
/// larger difference in either direction is stale.
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
