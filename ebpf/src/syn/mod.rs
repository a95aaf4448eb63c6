//! Answers SYNs to guarded ports with a cookie, in place of the kernel.
//!
//! This is a program of its own behind a tail call, so that it costs a query nothing, in the verifier and at run time. It
//! begins anew at the first byte of the frame, and writes only when all is decided. All segments but plain SYNs to guarded
//! ports pass untouched, with a [`Reason`], and the kernel answers them.
//!
//! The cookie is the kernel's own, so that the ACK that brings it back opens an ordinary connection. It carries the MSS of
//! the client's options; [`options`] has what else the answer offers.

mod options;

use crate::classify::{
    FrameContext, ReplyFlow, check_ours, check_route, check_source, from, garbage, listen,
};
use crate::flow::answer::{self, word, write_macs};
use crate::flow::link::Link;
use crate::flow::network::{Address, Packet};
use crate::flow::transport::Segment;
use crate::flow::{self, Flow};
use crate::frame::Cursor;
use crate::frame::write::{CursorMut, ViewMut};
use xdnsd_abi::checksum::Sum;
use xdnsd_abi::headers::{ethernet, ipv4, ipv6, protocol, tcp, vlan};
use xdnsd_abi::{Listen, Orders, PathCheck, Reason};

pub use options::{COUNT_MAX, OptionWalk, SynHeader, TcpOptions, no_header};

/// Length of the answer's TCP header in bytes, if its only option is an MSS.
const HEADER_LEN: usize = tcp::HEADER_LEN + tcp::mss::LEN;
/// Length of the header with all options.
const LONG_HEADER_LEN: usize = HEADER_LEN + TcpOptions::LEN;
const MSS_KIND_LEN: u16 = u16::from_be_bytes(tcp::mss::KIND_LEN);
/// Window of the answer in bytes, as Linux first announces on an Ethernet path.
const WINDOW: u16 = 64_240;

/// Access that the programs for segments to guarded ports share.
pub trait Guarded: FrameContext {
    /// Checks for a SYN to this port; `None` if the port is not guarded.
    fn guarded(&self, listen: &Listen) -> Option<PathCheck>;
    /// Orders for SYNs.
    fn orders(&self) -> Orders;
    /// True if the client has brought a cookie back in the last `secs` seconds.
    fn has_proved(&self, ends: &Ends, secs: u32) -> bool;
    /// Copies `len` bytes of the frame, 20 to 60, from offset `at` into `header`, which is zero behind them. Returns their
    /// number, with bounds known to the verifier; `None` if the frame ends before.
    fn copy(&self, at: u32, len: u32, header: &mut SynHeader) -> Option<u64>;
    /// True if the frame is in several buffers, or longer than [`xdnsd_abi::SYN_FRAME_MAX`].
    fn is_large(&self) -> bool;
    /// Zero, but unknown to the compiler.
    fn zero(&self) -> u32;
}

/// A guarded port.
pub struct Port<'a> {
    /// Key in the map of guarded ports.
    pub key: &'a Listen,
    /// Second of the latest look-up of the listener, see [`PathCheck::own`].
    pub asked: u32,
}

/// Further access that the program needs.
pub trait Cookies: Guarded {
    /// Tail-calls the program for other segments (`stray.rs`). Returns only if it is not loaded.
    fn hand_on_stray(&self);
    /// Takes all steps of a walk, at most [`COUNT_MAX`].
    fn walk(&self, walk: &mut OptionWalk);
    /// CLOCK_MONOTONIC in nanoseconds, the clock of the kernel's timestamps.
    fn now(&self) -> u64;
    /// The kernel's cookie for a SYN to this port with this header and its `len`, both from [`Self::copy`]; `None` if no
    /// listener may give one.
    fn cookie(&self, ends: &Ends, port: &Port<'_>, header: &mut SynHeader, len: u64)
    -> Option<u32>;
}

/// Addresses and ports of a segment.
pub struct Ends {
    pub source: Address,
    pub destination: Address,
    /// Big-endian in memory.
    pub source_port: u16,
    /// Big-endian in memory.
    pub destination_port: u16,
}

impl Ends {
    /// The ends of a segment in a packet.
    #[inline(always)]
    pub fn of(packet: &Packet, segment: &Segment<'_>) -> Self {
        Self {
            source: packet.source,
            destination: packet.destination,
            source_port: segment.source_port(),
            destination_port: segment.destination_port(),
        }
    }
}

/// The answer to a segment.
pub struct SegmentAnswer {
    pub link: Link,
    /// Ends of the segment that is answered.
    pub ends: Ends,
    /// Sum of the addresses.
    pub addresses_sum: u64,
    pub sequence: u32,
    pub acknowledgment: u32,
    /// Flags, see [`tcp::flag`].
    pub flags: u8,
    pub window: u16,
    /// MSS; 0 for an answer without options.
    pub mss: u16,
    /// Options behind the MSS.
    pub options: TcpOptions,
}

/// `Ok`: the answer to the SYN.
#[inline(always)]
pub fn classify(frame: Cursor<'_>, kernel: &impl Cookies) -> Result<SegmentAnswer, Reason> {
    let Flow {
        link,
        packet,
        transport: segment,
    } = flow::segment(frame)?;
    if !segment.opens() {
        // Behind a tag that carries a priority alone nobody has looked yet.
        kernel.hand_on_stray();
        return Err(Reason::PassProtocol);
    }
    let syn = Ends::of(&packet, &segment);
    let key = listen(&link, syn.destination, syn.destination_port);
    // Counted as without this program, since the port is not guarded.
    let check = kernel.guarded(&key).ok_or(Reason::PassProtocol)?;
    check_ours(&link, &check, kernel)?;
    check_source(&packet, syn.source_port, kernel)?;
    if kernel.guarded(&from(&packet, &key)).is_some() {
        return Err(garbage(kernel, Reason::DropSource, Reason::PassSource));
    }
    let mut walk = OptionWalk::new(kernel.zero());
    let len = check_bytes(&link, &packet, &segment, kernel, &mut walk.header)?;
    let orders = kernel.orders();
    if !orders.are_given() {
        return Err(Reason::PassSyn);
    }
    let verified_secs = orders.verified_secs();
    if verified_secs != 0 && kernel.has_proved(&syn, verified_secs) {
        return Err(Reason::PassVerified);
    }
    check_route(&check, &link, &reply(&syn), kernel)?;
    let port = Port {
        key: &key,
        asked: check.own,
    };
    let cookie = kernel.cookie(&syn, &port, &mut walk.header, len);
    let cookie = cookie.ok_or(Reason::PassNoCookie)?;
    let options = match orders.kept() {
        Some(kept) => {
            walk.begin(segment.header_len());
            kernel.walk(&mut walk);
            walk.answer(kept, kernel.now())
        }
        None => TcpOptions::NONE,
    };
    Ok(SegmentAnswer {
        link,
        addresses_sum: packet.addresses_sum,
        sequence: cookie,
        acknowledgment: behind(&segment),
        flags: tcp::flag::SYN | tcp::flag::ACK,
        window: WINDOW,
        mss: check.mss,
        ends: syn,
        options,
    })
}

/// Checks that the lengths agree, the checksums are right, and the packet is a header and nothing else. Returns its length,
/// and its bytes in `header`.
#[inline(always)]
pub fn check_bytes(
    link: &Link,
    packet: &Packet,
    segment: &Segment<'_>,
    kernel: &impl Guarded,
    header: &mut SynHeader,
) -> Result<u64, Reason> {
    let len = segment.header_len();
    if packet.payload_len != i32::from(len) || len < tcp::HEADER_LEN as u8 {
        return Err(Reason::PassSynLength);
    }
    if !packet.header_sum.adds_up() {
        return Err(Reason::PassIpv4Checksum);
    }
    if kernel.is_large() {
        return Err(Reason::PassLargeFrame);
    }
    let copied = kernel.copy(tcp_at(link, packet), len.into(), header);
    let copied = copied.ok_or(Reason::PassTruncated)?;
    let pseudo = packet.addresses_sum + word(protocol::TCP.into()) + word(len.into());
    let sum = header
        .iter()
        .fold(pseudo, |sum, word| sum + u64::from(*word));
    if !Sum::of_few(sum).adds_up() {
        return Err(Reason::PassTcpChecksum);
    }
    Ok(copied)
}

#[inline(always)]
pub fn reply(syn: &Ends) -> ReplyFlow {
    ReplyFlow {
        protocol: protocol::TCP,
        source: syn.destination,
        destination: syn.source,
        source_port: syn.destination_port,
        destination_port: syn.source_port,
    }
}

/// Sequence number of the byte behind a SYN.
#[inline(always)]
pub fn behind(syn: &Segment<'_>) -> u32 {
    u32::from_be(syn.sequence()).wrapping_add(1)
}

/// Offset of the segment of a packet.
#[inline(always)]
fn tcp_at(link: &Link, packet: &Packet) -> u32 {
    (link_len(link) + ip_len(packet.source)) as u32
}

/// Length of the headers before the packet in bytes.
#[inline(always)]
pub const fn link_len(link: &Link) -> usize {
    ethernet::HEADER_LEN + link.tags as usize * vlan::HEADER_LEN
}

/// Length of an IP header with addresses of this family in bytes.
#[inline(always)]
fn ip_len(address: Address) -> usize {
    match address.ipv4() {
        Some(_) => ipv4::HEADER_LEN,
        None => ipv6::HEADER_LEN,
    }
}

impl SegmentAnswer {
    /// Length of its frame in bytes.
    #[inline(always)]
    pub fn len(&self) -> usize {
        link_len(&self.link) + ip_len(self.ends.source) + usize::from(self.tcp_len())
    }

    /// Writes it over the SYN's frame, whose tags and EtherType stay. `None` if the frame is shorter than [`Self::len`].
    #[inline(always)]
    pub fn write(&self, frame: CursorMut<'_>) -> Option<()> {
        let (mut header, mut rest) = frame.take::<{ ethernet::HEADER_LEN }>()?;
        write_macs(&mut header, self.link.source, self.link.destination);
        for tag in 0..vlan::TAGS_MAX {
            if tag < usize::from(self.link.tags) {
                rest = rest.take::<{ vlan::HEADER_LEN }>()?.1;
            }
        }
        let ip = answer::AnswerHeader {
            source: self.ends.destination,
            destination: self.ends.source,
            addresses_sum: self.addresses_sum,
            protocol: protocol::TCP,
            payload_len: self.tcp_len(),
        };
        match (ip.source.ipv4(), ip.destination.ipv4()) {
            (Some(source), Some(destination)) => {
                let (header, rest) = rest.take::<{ ipv4::HEADER_LEN }>()?;
                ip.write_ipv4(header, source, destination);
                self.write_tcp(rest)
            }
            _ => {
                let (header, rest) = rest.take::<{ ipv6::HEADER_LEN }>()?;
                ip.write_ipv6(header);
                self.write_tcp(rest)
            }
        }
    }

    /// Length of its TCP header in bytes.
    #[inline(always)]
    const fn tcp_len(&self) -> u16 {
        if self.options.are_there {
            LONG_HEADER_LEN as u16
        } else if self.mss != 0 {
            HEADER_LEN as u16
        } else {
            tcp::HEADER_LEN as u16
        }
    }

    #[inline(always)]
    fn write_tcp(&self, rest: CursorMut<'_>) -> Option<()> {
        let (header, rest) = rest.take::<{ tcp::HEADER_LEN }>()?;
        self.write_header(header);
        if self.mss == 0 {
            return Some(());
        }
        let (mut option, rest) = rest.take::<{ tcp::mss::LEN }>()?;
        option.set_be16::<0>(MSS_KIND_LEN);
        option.set_be16::<{ tcp::mss::VALUE.start }>(self.mss);
        if !self.options.are_there {
            return Some(());
        }
        let (mut tail, _) = rest.take::<{ TcpOptions::LEN }>()?;
        let [a, b, c, d] = self.options.words;
        tail.set::<0, u32>(a);
        tail.set::<4, u32>(b);
        tail.set::<8, u32>(c);
        tail.set::<12, u32>(d);
        Some(())
    }

    /// Writes the header without options. Its checksum covers the options as well.
    #[inline(always)]
    fn write_header(&self, mut header: ViewMut<'_, { tcp::HEADER_LEN }>) {
        use tcp::field;
        let [a, b, c, d] = self.options.words.map(u64::from);
        let mss = match self.mss {
            0 => 0,
            mss => word(MSS_KIND_LEN) + word(mss),
        };
        let len = self.tcp_len();
        // Header length in words, four bits before the flags.
        let offset_flags = ((len / 4) << 12) | u16::from(self.flags);
        let sequence = self.sequence.to_be();
        let acknowledgment = self.acknowledgment.to_be();
        let sum = self.addresses_sum
            + (a + b + c + d)
            + mss
            + word(protocol::TCP.into())
            + word(len)
            + u64::from(self.ends.source_port)
            + u64::from(self.ends.destination_port)
            + u64::from(sequence)
            + u64::from(acknowledgment)
            + word(offset_flags)
            + word(self.window);
        header.set::<{ field::SOURCE_PORT.start }, u16>(self.ends.destination_port);
        header.set::<{ field::DESTINATION_PORT.start }, u16>(self.ends.source_port);
        header.set::<{ field::SEQUENCE.start }, u32>(sequence);
        header.set::<{ field::ACKNOWLEDGMENT.start }, u32>(acknowledgment);
        header.set_be16::<{ field::OFFSET }>(offset_flags);
        header.set_be16::<{ field::WINDOW.start }>(self.window);
        header.set_be16::<{ field::CHECKSUM.start }>(Sum::of_few(sum).finish());
        header.set_be16::<{ field::URGENT.start }>(0);
    }
}

#[cfg(test)]
mod tests;
