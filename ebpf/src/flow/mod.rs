//! Parses a frame in three stages: link, network, transport.
//!
//! A stage takes a position in the frame, and returns what it found and the position behind it. It refuses a frame that it
//! cannot parse with the [`Reason`] to pass it. `classify` decides whether the frame is ours. [`answer`] and [`envelope`]
//! write the headers of an answer.

pub mod answer;
pub mod envelope;
pub mod link;
pub mod network;
pub mod transport;

use crate::frame::{Cursor, View};
use link::Link;
use network::{Packet, Payload};
use transport::{Datagram, Segment};
use xdnsd_abi::Reason;
use xdnsd_abi::checksum::Sum;
use xdnsd_abi::headers::protocol;

/// A parsed frame, by its payload.
pub enum Frame<'a> {
    /// An unfragmented datagram.
    Udp(Flow<Datagram<'a>>),
    /// A TCP header, without its options. [`segment`] reads its addresses where they are needed.
    Tcp(Segment<'a>),
    /// Another protocol, or a fragment of a segment.
    Other,
}

/// All headers of a packet.
pub struct Flow<T> {
    pub link: Link,
    pub packet: Packet,
    pub transport: T,
}

impl Flow<Datagram<'_>> {
    /// Sum of the pseudo-header (RFC 768, RFC 8200 section 8.1), in native order.
    #[inline(always)]
    pub fn pseudo_sum(&self) -> u64 {
        let protocol = u64::from(u16::from(protocol::UDP).to_be());
        self.packet.addresses_sum + protocol + u64::from(self.transport.len().to_be())
    }

    /// True if the checksum is the sum of the pseudo-header, not inverted: what a sender leaves whose device is to complete it.
    #[inline(always)]
    pub fn has_partial_checksum(&self) -> bool {
        Sum::of_few(self.pseudo_sum()).fold() == u16::from_be(self.transport.checksum())
    }
}

impl<'a> Frame<'a> {
    /// Runs the three stages, one after the other.
    #[inline(always)]
    pub fn parse(frame: Cursor<'a>) -> Result<Self, Reason> {
        let (link, rest) = Link::parse(frame)?;
        match Payload::parse(link.ethertype, rest)? {
            Payload::Udp(packet, rest) => Ok(Self::Udp(Flow {
                link,
                packet,
                transport: Datagram::parse(rest)?,
            })),
            Payload::Tcp(rest) => Ok(Segment::parse(rest).map_or(Self::Other, Self::Tcp)),
            Payload::Other => Ok(Self::Other),
        }
    }
}

/// Parses a segment with all its headers; a tag that carries a priority alone is as none. Other packets are refused, behind such a
/// tag with [`Reason::PassVlanPriority`], as [`Frame::parse`] does.
#[inline(always)]
pub fn segment(frame: Cursor<'_>) -> Result<Flow<Segment<'_>>, Reason> {
    let (link, rest) = Link::parse_any_priority(frame)?;
    match segment_behind(link.ethertype, rest) {
        Ok((packet, transport)) => Ok(Flow {
            link,
            packet,
            transport,
        }),
        Err(_) if link.has_priority_alone() => Err(Reason::PassVlanPriority),
        Err(reason) => Err(reason),
    }
}

#[inline(always)]
fn segment_behind(ethertype: u16, rest: Cursor<'_>) -> Result<(Packet, Segment<'_>), Reason> {
    let (packet, rest) = network::segment(ethertype, rest)?;
    let segment = Segment::parse(rest).ok_or(Reason::PassProtocol)?;
    Ok((packet, segment))
}

/// The next `N` bytes; `Err` if the frame ends before.
#[inline(always)]
pub fn take<const N: usize>(cursor: Cursor<'_>) -> Result<(View<'_, N>, Cursor<'_>), Reason> {
    cursor.take::<N>().ok_or(Reason::PassTruncated)
}

#[cfg(test)]
mod tests;
