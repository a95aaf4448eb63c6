//! Segments to protected hosts behind this one: a client may open a connection only after it has brought a cookie back.
//!
//! No socket of ours listens there, so the cookie is our own. The ACK that brings it back verifies the client and is
//! answered with an RST; the client connects again, and passes.
//!
//! ```text
//!  client                        here                                      host
//!    SYN ────────────────────────► SYN-ACK, number = cookie
//!    ACK, number + 1 ────────────► verified; RST
//!    SYN ────────────────────────────────────────────────────────────────► SYN
//! ```
//! All other segments pass, so that existing connections go on. A SYN that cannot be answered is dropped: one with data or
//! a FIN here; one with IP options or extension headers, or a fragment, in [`odd`].

mod odd;

use crate::classify::{check_ours, check_route, check_source};
use crate::flow::link::Link;
use crate::flow::transport::Segment;
use crate::flow::{self, Flow};
use crate::frame::Cursor;
use crate::syn::{self, Ends, Guarded, SegmentAnswer, TcpOptions};
use xdnsd_abi::headers::tcp::flag;
use xdnsd_abi::{Behind, Protected, Reason};

/// Further access that the program needs.
pub trait Forwarding: Guarded {
    /// Protection of this address and port in this VLAN; `None` if there is none.
    fn protected(&self, destination: &Behind) -> Option<Protected>;
    /// True if any host is protected.
    fn protects(&self) -> bool;
    /// The 16 bytes of the frame from an offset on, in frame order; `None` if it ends before.
    fn words(&self, at: u32) -> Option<[u64; 2]>;
    /// The first eight of these bytes.
    fn word(&self, at: u32) -> Option<u64>;
    /// True during a flood.
    fn is_flooded(&self) -> bool;
    /// Cookies for a SYN with this sequence number: by the present secret, and by the previous one.
    fn cookies(&self, ends: &Ends, sequence: u32) -> [u32; 2];
    /// Notes that the client is verified.
    fn prove(&self, ends: &Ends);
}

/// `Ok`: the answer to the segment, and the reason by which it is counted.
#[inline(always)]
pub fn classify(
    frame: Cursor<'_>,
    kernel: &impl Forwarding,
) -> Result<(SegmentAnswer, Reason), Reason> {
    let Flow {
        link,
        packet,
        transport: segment,
    } = flow::segment(frame).map_err(|reason| odd::judge(frame, kernel, reason))?;
    let ends = Ends::of(&packet, &segment);
    let behind = Behind {
        port: ends.destination_port.to_ne_bytes(),
        vlan: link.vlan_outer.to_be_bytes(),
        addr: ends.destination.octets(),
    };
    let protected = kernel.protected(&behind).ok_or(Reason::PassProtocol)?;
    let check = &protected.check;
    if link.vlan_inner != 0 {
        return Err(Reason::PassProtocol);
    }
    check_ours(&link, check, kernel)?;
    check_source(&packet, ends.source_port, kernel)?;
    let opens = segment.opens();
    let begins = segment.flags() & (flag::SYN | flag::ACK | flag::RST) == flag::SYN;
    let cookie = if begins {
        if kernel.has_proved(&ends, protected.verified_secs.into()) {
            return Err(Reason::ForwardVerified);
        }
        if protected.is_auto != 0 && !kernel.is_flooded() {
            return Err(Reason::ForwardCalm);
        }
        if !opens {
            return Err(Reason::DropForward);
        }
        let [cookie, _] = kernel.cookies(&ends, u32::from_be(segment.sequence()));
        cookie
    } else {
        brought_back(&segment, &ends, kernel)?
    };
    let mut header = syn::no_header(kernel.zero());
    let checked = syn::check_bytes(&link, &packet, &segment, kernel, &mut header);
    checked.map_err(|reason| if opens { refused(reason) } else { reason })?;
    check_route(check, &link, &syn::reply(&ends), kernel)?;
    let addresses_sum = packet.addresses_sum;
    if opens {
        let acknowledgment = syn::behind(&segment);
        let flags = flag::SYN | flag::ACK;
        let answer = answer(link, ends, addresses_sum, cookie);
        let answer = SegmentAnswer {
            acknowledgment,
            flags,
            mss: check.mss,
            ..answer
        };
        return Ok((answer, Reason::ForwardCookie));
    }
    kernel.prove(&ends);
    let answer = answer(link, ends, addresses_sum, cookie.wrapping_add(1));
    Ok((answer, Reason::ForwardProof))
}

/// Reason for a SYN that is not answered. One with a wrong checksum passes: it may be right by the time the network card
/// sends it, and otherwise the host refuses it.
#[inline(always)]
const fn refused(reason: Reason) -> Reason {
    if matches!(reason, Reason::PassSynLength | Reason::PassLargeFrame) {
        return Reason::DropForward;
    }
    reason
}

/// The cookie that a segment brings back.
#[inline(always)]
fn brought_back(
    segment: &Segment<'_>,
    ends: &Ends,
    kernel: &impl Forwarding,
) -> Result<u32, Reason> {
    if segment.flags() & (flag::SYN | flag::ACK | flag::RST | flag::FIN) != flag::ACK {
        return Err(Reason::PassProtocol);
    }
    let sequence = u32::from_be(segment.sequence()).wrapping_sub(1);
    let cookie = u32::from_be(segment.acknowledgment()).wrapping_sub(1);
    let [now, before] = kernel.cookies(ends, sequence);
    if cookie != now && cookie != before {
        return Err(Reason::PassProtocol);
    }
    Ok(cookie)
}

/// An RST with this sequence number. The window is closed in any case, as no data is accepted here.
#[inline(always)]
fn answer(link: Link, ends: Ends, addresses_sum: u64, sequence: u32) -> SegmentAnswer {
    SegmentAnswer {
        link,
        ends,
        addresses_sum,
        sequence,
        acknowledgment: 0,
        flags: flag::RST,
        window: 0,
        mss: 0,
        options: TcpOptions::NONE,
    }
}

#[cfg(test)]
mod tests;
