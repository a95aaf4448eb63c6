//! Segments to protected hosts that are not plain: behind IPv4 options, behind IPv6 extension headers, or fragmented.
//!
//! None of them is answered. A segment that opens a connection, or hides whether it does, is dropped until the client is
//! verified, because the host behind would answer it. Fragments other than the first pass, as they are useless without it.

use super::Forwarding;
use crate::classify::check_ours;
use crate::flow::link::Link;
use crate::flow::network;
use crate::frame::Cursor;
use crate::syn::{Ends, link_len};
use xdnsd_abi::headers::ethernet::ethertype;
use xdnsd_abi::headers::tcp::{self, flag};
use xdnsd_abi::headers::{extension, ipv4, ipv6, protocol};
use xdnsd_abi::{Behind, Reason};

/// Most extension headers that are walked: each kind of RFC 8200 section 4.1, and one of them twice.
const HEADERS_MAX: usize = 6;

/// Bytes of a segment in which its flags are, as [`Forwarding::words`] gives them.
const WITH_FLAGS: u32 = 16;

/// Where a segment begins.
enum SegmentStart {
    /// At this offset of the frame.
    At {
        /// Of its first byte.
        at: u32,
        /// Of what is behind the packet, where Ethernet has its padding.
        end: u32,
    },
    /// Behind more headers than are gone through.
    Deep,
}

/// Decides about a packet behind options or in fragments. `passed` is the reason if it passes.
#[inline(always)]
pub fn judge(frame: Cursor<'_>, kernel: &impl Forwarding, passed: Reason) -> Reason {
    look(frame, kernel).unwrap_or(passed)
}

#[inline(always)]
fn look(frame: Cursor<'_>, kernel: &impl Forwarding) -> Option<Reason> {
    let (link, rest) = Link::parse_any_priority(frame).ok()?;
    if link.vlan_inner != 0 || !kernel.protects() {
        return None;
    }
    let (source, destination) = network::ends(link.ethertype, rest)?;
    let at = link_len(&link) as u32;
    let place = match link.ethertype {
        ethertype::IPV4 => behind_options(rest, at),
        _ => behind_extensions(rest, at, kernel),
    };
    let (at, end) = match place? {
        SegmentStart::At { at, end } => (at, end),
        SegmentStart::Deep => return Some(Reason::DropForward),
    };
    let (ports, flags) = match kernel.words(at) {
        Some([ports, rest]) if at + WITH_FLAGS <= end => {
            (ports, Some(rest.to_ne_bytes()[tcp::field::FLAGS - 8]))
        }
        // The flags are in another part, whatever stands behind this one (RFC 1858 section 3).
        _ => (kernel.word(at)?, None),
    };
    if flags.is_some_and(|flags| flags & (flag::SYN | flag::ACK | flag::RST) != flag::SYN) {
        return None;
    }
    let [a, b, c, d, ..] = ports.to_ne_bytes();
    let ends = Ends {
        source,
        destination,
        source_port: u16::from_ne_bytes([a, b]),
        destination_port: u16::from_ne_bytes([c, d]),
    };
    let protected = kernel.protected(&Behind {
        port: [c, d],
        vlan: link.vlan_outer.to_be_bytes(),
        addr: destination.octets(),
    })?;
    check_ours(&link, &protected.check, kernel).ok()?;
    Some(
        if kernel.has_proved(&ends, protected.verified_secs.into()) {
            Reason::ForwardVerified
        } else if protected.is_auto != 0 && !kernel.is_flooded() {
            Reason::ForwardCalm
        } else {
            Reason::DropForward
        },
    )
}

/// Position of the segment; `None` if this is no segment, or not its first fragment.
#[inline(always)]
fn behind_options(rest: Cursor<'_>, at: u32) -> Option<SegmentStart> {
    use ipv4::field::{FLAGS_OFFSET, PROTOCOL, TOTAL_LEN, VERSION_IHL};
    let (header, _) = rest.take::<{ ipv4::HEADER_LEN }>()?;
    let is_first = header.be16::<{ FLAGS_OFFSET.start }>() & ipv4::OFFSET == 0;
    if header.get::<PROTOCOL, u8>() != protocol::TCP || !is_first {
        return None;
    }
    let words = header.get::<VERSION_IHL, u8>() & 0x0f;
    Some(SegmentStart::At {
        at: at + u32::from(words) * 4,
        end: at + u32::from(header.be16::<{ TOTAL_LEN.start }>()),
    })
}

/// The same behind extension headers.
#[inline(always)]
fn behind_extensions(rest: Cursor<'_>, at: u32, kernel: &impl Forwarding) -> Option<SegmentStart> {
    let (header, _) = rest.take::<{ ipv6::HEADER_LEN }>()?;
    let mut kind = header.get::<{ ipv6::field::NEXT_HEADER }, u8>();
    let mut at = at + ipv6::HEADER_LEN as u32;
    let end = at + u32::from(header.be16::<{ ipv6::field::PAYLOAD_LEN.start }>());
    for _ in 0..HEADERS_MAX {
        if !extension::is_one(kind) {
            break;
        }
        let [next, len, high, low, ..] = kernel.word(at)?.to_ne_bytes();
        let len = u32::from(len);
        at += match kind {
            extension::FRAGMENT if u16::from_be_bytes([high, low]) & extension::OFFSET != 0 => {
                return None;
            }
            extension::FRAGMENT => 8,
            // RFC 4302 section 2.2: in words of four bytes, minus two.
            extension::AUTHENTICATION => (len + 2) * 4,
            _ => (len + 1) * 8,
        };
        kind = next;
    }
    if kind == protocol::TCP {
        return Some(SegmentStart::At { at, end });
    }
    extension::is_one(kind).then_some(SegmentStart::Deep)
}
