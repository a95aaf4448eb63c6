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
mod tests {
    use super::*;
    use crate::syn::SynHeader;
    use crate::testing::{FLAGS, OUR_MAC, segment, without_routes};
    use std::cell::Cell;
    use xdnsd_abi::{Listen, Orders, PathCheck};

    /// A SYN from 192.0.2.1, port 40000, to 192.0.2.53, port 53, and an ACK that brings the cookie 0x55667787 back.
    const SYN: [u8; 54] = segment([0x50, 0x02, 0, 0]);
    const COOKIE: u32 = 0x5566_7787;

    /// A kernel that answers as told.
    struct FakeKernel {
        cookies: [u32; 2],
        has_proved: bool,
        is_auto: bool,
        is_flooded: bool,
        /// The route is asked for, and there is none.
        has_no_route: bool,
        proofs: Cell<u32>,
    }

    without_routes!(FakeKernel);

    impl Guarded for FakeKernel {
        fn guarded(&self, _: &Listen) -> Option<PathCheck> {
            None
        }
        fn orders(&self) -> Orders {
            Orders::REST
        }
        fn is_large(&self) -> bool {
            false
        }
        fn zero(&self) -> u32 {
            0
        }
        fn has_proved(&self, _: &Ends, secs: u32) -> bool {
            assert_eq!(secs, 300);
            self.has_proved
        }
        /// Whatever stands there, it adds up with the addresses.
        fn copy(&self, at: u32, len: u32, header: &mut SynHeader) -> Option<u64> {
            assert_eq!((at, len), (34, 20));
            let addresses = [[192_u8, 0, 2, 1], [192, 0, 2, 53]].map(u32::from_ne_bytes);
            let rest = addresses.map(u64::from).iter().sum::<u64>()
                + u64::from(6_u16.to_be())
                + u64::from(20_u16.to_be());
            let rest = (rest & 0xffff) + (rest >> 16 & 0xffff) + (rest >> 32);
            header[0] = 0xffff_ffff - u32::try_from(rest).expect("small");
            Some(len.into())
        }
    }

    impl Forwarding for FakeKernel {
        fn protected(&self, behind: &Behind) -> Option<Protected> {
            let egress_ifindex = if self.has_no_route { 7 } else { 0 };
            let check = PathCheck::new(egress_ifindex, 3, OUR_MAC).with_mss(1_400);
            let is_here = behind.port == 53_u16.to_be_bytes() && behind.vlan == [0, 0];
            is_here.then_some(Protected {
                check,
                verified_secs: 300,
                is_auto: self.is_auto.into(),
            })
        }
        fn protects(&self) -> bool {
            true
        }
        fn words(&self, _: u32) -> Option<[u64; 2]> {
            panic!("plain segments are read where they stand")
        }
        fn word(&self, _: u32) -> Option<u64> {
            panic!("plain segments are read where they stand")
        }
        fn is_flooded(&self) -> bool {
            self.is_flooded
        }
        fn cookies(&self, _: &Ends, sequence: u32) -> [u32; 2] {
            assert!([0x1122_3344, 0x1122_3343].contains(&sequence));
            self.cookies
        }
        fn prove(&self, _: &Ends) {
            self.proofs.set(self.proofs.get() + 1);
        }
    }

    fn told(cookies: [u32; 2]) -> FakeKernel {
        FakeKernel {
            cookies,
            has_proved: false,
            is_auto: false,
            is_flooded: false,
            has_no_route: false,
            proofs: Cell::new(0),
        }
    }

    /// What becomes of a segment with these flags: why it passes, or number and flags of the answer and what it is counted by.
    fn run(flags: u8, kernel: &FakeKernel) -> Result<(u32, u8, Reason), Reason> {
        let mut frame = SYN.to_vec();
        frame[FLAGS] = flags;
        judged(&frame, kernel)
    }

    fn judged(frame: &[u8], kernel: &FakeKernel) -> Result<(u32, u8, Reason), Reason> {
        let range = frame.as_ptr_range();
        // SAFETY: the range of a live slice.
        let frame = unsafe { Cursor::new(range.start, range.end) };
        classify(frame, kernel).map(|(answer, reason)| (answer.sequence, answer.flags, reason))
    }

    #[test]
    fn a_syn_is_answered_unless_the_client_is_known() {
        let mut kernel = told([COOKIE, 7]);
        let flags = flag::SYN | flag::ACK;
        assert_eq!(
            run(flag::SYN, &kernel),
            Ok((COOKIE, flags, Reason::ForwardCookie))
        );
        kernel.has_proved = true;
        assert_eq!(run(flag::SYN, &kernel), Err(Reason::ForwardVerified));
        assert_eq!(kernel.proofs.get(), 0);
    }

    /// A cookie that was given in a flood is good when that is over.
    #[test]
    fn where_floods_alone_are_kept_away_nobody_is_asked_while_it_is_calm() {
        let mut kernel = told([COOKIE, 7]);
        kernel.is_auto = true;
        assert_eq!(run(flag::SYN, &kernel), Err(Reason::ForwardCalm));
        let reset = (COOKIE + 1, flag::RST, Reason::ForwardProof);
        assert_eq!(run(flag::ACK, &kernel), Ok(reset));
        kernel.is_flooded = true;
        let cookie = (COOKIE, flag::SYN | flag::ACK, Reason::ForwardCookie);
        assert_eq!(run(flag::SYN, &kernel), Ok(cookie));
        kernel.has_proved = true;
        assert_eq!(run(flag::SYN, &kernel), Err(Reason::ForwardVerified));
    }

    #[test]
    fn a_cookie_of_either_key_is_a_proof_and_no_other() {
        for cookies in [[COOKIE, 7], [7, COOKIE]] {
            let kernel = told(cookies);
            let reset = (COOKIE + 1, flag::RST, Reason::ForwardProof);
            for flags in [flag::ACK, flag::ACK | 0x08] {
                assert_eq!(run(flags, &kernel), Ok(reset));
            }
            assert_eq!(kernel.proofs.get(), 2);
            for flags in [0, flag::RST, flag::ACK | flag::RST, flag::ACK | flag::FIN] {
                assert_eq!(run(flags, &kernel), Err(Reason::PassProtocol));
            }
            assert_eq!(
                run(flag::SYN | flag::ACK, &kernel),
                Err(Reason::PassProtocol)
            );
        }
        let kernel = told([COOKIE + 1, COOKIE - 1]);
        assert_eq!(run(flag::ACK, &kernel), Err(Reason::PassProtocol));
        assert_eq!(kernel.proofs.get(), 0);
    }

    /// Who would not get the answer, or was asked by nobody, is not answered: the host may know better.
    #[test]
    fn what_would_not_be_a_query_of_ours_is_no_segment_of_ours() {
        let mut kernel = told([COOKIE, 7]);
        for flags in [flag::SYN, flag::ACK] {
            let with = |at: usize, bytes: &[u8]| {
                let mut frame = SYN.to_vec();
                frame[FLAGS] = flags;
                frame[at..at + bytes.len()].copy_from_slice(bytes);
                frame
            };
            let mut tagged = with(0, &[]);
            tagged.splice(12..12, [0x81, 0, 0, 5]);
            for (frame, reason) in [
                (tagged, Reason::PassProtocol),
                (with(5, &[9]), Reason::PassOtherMac),
                (with(26, &[127]), Reason::PassSource),
                (with(34, &[0, 0]), Reason::PassSource),
                (with(24, &[0]), Reason::PassIpv4Checksum),
            ] {
                assert_eq!(judged(&frame, &kernel), Err(reason));
            }
            kernel.has_no_route = true;
            assert_eq!(run(flags, &kernel), Err(Reason::PassRoute));
            kernel.has_no_route = false;
        }
        assert_eq!(kernel.proofs.get(), 0);
    }
}
