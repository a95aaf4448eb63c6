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

/// Parses a segment with all its headers. Other packets are refused with [`Reason::PassProtocol`].
#[inline(always)]
pub fn segment(frame: Cursor<'_>) -> Result<Flow<Segment<'_>>, Reason> {
    segment_behind(Link::parse(frame)?)
}

/// The same with a tag that carries a priority alone.
#[inline(always)]
pub fn segment_any_priority(frame: Cursor<'_>) -> Result<Flow<Segment<'_>>, Reason> {
    segment_behind(Link::parse_any_priority(frame)?)
}

#[inline(always)]
fn segment_behind<'a>((link, rest): (Link, Cursor<'a>)) -> Result<Flow<Segment<'a>>, Reason> {
    let (packet, rest) = network::segment(link.ethertype, rest)?;
    let transport = Segment::parse(rest).ok_or(Reason::PassProtocol)?;
    Ok(Flow {
        link,
        packet,
        transport,
    })
}

/// The next `N` bytes; `Err` if the frame ends before.
#[inline(always)]
pub fn take<const N: usize>(cursor: Cursor<'_>) -> Result<(View<'_, N>, Cursor<'_>), Reason> {
    cursor.take::<N>().ok_or(Reason::PassTruncated)
}

#[cfg(test)]
mod tests;
