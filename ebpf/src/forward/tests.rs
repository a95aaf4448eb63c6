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
    is_large: bool,
    /// Where its hosts are.
    vlan: u16,
    /// What is read by offset: of an odd frame alone.
    odd: Vec<u8>,
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
        self.is_large
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
        let is_here = behind.port == 53_u16.to_be_bytes() && behind.vlan == self.vlan.to_be_bytes();
        is_here.then_some(Protected {
            check,
            verified_secs: 300,
            is_auto: self.is_auto.into(),
        })
    }
    fn protects(&self) -> bool {
        true
    }
    fn words(&self, at: u32) -> Option<[u64; 2]> {
        let [one, other] = [at, at + 8].map(|at| self.word(at));
        Some([one?, other?])
    }
    fn word(&self, at: u32) -> Option<u64> {
        let is_odd = !self.odd.is_empty();
        assert!(is_odd, "plain segments are read where they stand");
        let bytes = self.odd.get(at as usize..)?.first_chunk()?;
        Some(u64::from_ne_bytes(*bytes))
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
        is_large: false,
        vlan: 0,
        odd: Vec::new(),
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

/// The segment with these flags and two bytes of data.
fn with_data(flags: u8) -> Vec<u8> {
    let mut frame = [&SYN[..], b"hi"].concat();
    frame[FLAGS] = flags;
    frame[17] += 2;
    frame[25] -= 2;
    frame
}

/// A SYN that is not answered would reach the host unasked; all else is the host's to judge.
#[test]
fn a_syn_that_is_not_plain_is_dropped_and_no_other_segment() {
    let large = FakeKernel {
        is_large: true,
        ..told([COOKIE, 7])
    };
    let mut kernel = told([COOKIE, 7]);
    kernel.is_auto = true;
    kernel.is_flooded = true;
    assert_eq!(
        run(flag::SYN | flag::FIN, &kernel),
        Err(Reason::DropForward)
    );
    assert_eq!(
        judged(&with_data(flag::SYN), &kernel),
        Err(Reason::DropForward)
    );
    assert_eq!(run(flag::SYN, &large), Err(Reason::DropForward));
    assert_eq!(
        judged(&with_data(flag::ACK), &kernel),
        Err(Reason::PassSynLength)
    );
    assert_eq!(run(flag::ACK, &large), Err(Reason::PassLargeFrame));
    for flags in [flag::SYN | flag::RST, flag::SYN | flag::RST | flag::FIN] {
        assert_eq!(run(flags, &kernel), Err(Reason::PassProtocol));
    }
    kernel.is_flooded = false;
    for frame in [
        with_data(flag::SYN),
        changed_flags(&SYN, FLAGS, flag::SYN | flag::FIN),
    ] {
        assert_eq!(judged(&frame, &kernel), Err(Reason::ForwardCalm));
        kernel.has_proved = true;
        assert_eq!(judged(&frame, &kernel), Err(Reason::ForwardVerified));
        kernel.has_proved = false;
    }
    assert_eq!((kernel.proofs.get(), large.proofs.get()), (0, 0));
}

fn changed_flags(frame: &[u8], at: usize, flags: u8) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[at] = flags;
    frame
}

/// Where its TCP header begins, and the frame.
type Odd = (usize, Vec<u8>);

/// The SYN behind so many words of options of IPv4.
fn with_options(words: u8) -> Odd {
    let mut frame = SYN.to_vec();
    frame[14] += words;
    frame[17] += 4 * words;
    frame.splice(34..34, vec![1; 4 * usize::from(words)]);
    (34 + 4 * usize::from(words), frame)
}

/// The SYN of IPv6 behind these headers, whose first byte is set right.
fn behind(headers: &[(u8, &[u8])]) -> Odd {
    let mut rest = SYN[34..].to_vec();
    let mut next = 6;
    for (kind, header) in headers.iter().rev() {
        rest = [&[next], &header[1..], &rest].concat();
        next = *kind;
    }
    let len = rest.len() as u8;
    let frame = [
        &SYN[..12],
        &[0x86, 0xdd, 0x60, 0, 0, 0, 0, len, next, 64],
        &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x53],
        &rest,
    ];
    let frame = frame.concat();
    (frame.len() - 20, frame)
}

/// One of each kind: hop-by-hop, destination options (two units), routing, a first part, and RFC 4302's in another unit.
const HEADERS: [(u8, &[u8]); 5] = [
    (0, &[0, 0, 1, 4, 0, 0, 0, 0]),
    (60, &[0, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    (43, &[0, 0, 4, 0, 0, 0, 0, 0]),
    (44, &[0, 0, 0, 1, 0, 0, 0, 7]),
    (51, &[0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
];

fn odd_syns() -> Vec<Odd> {
    let mut all: Vec<Odd> = [1, 10].into_iter().map(with_options).collect();
    all.extend(HEADERS.map(|header| behind(&[header])));
    let five = HEADERS.to_vec();
    all.push(behind(&[&five[..], &HEADERS[..1]].concat()));
    // The first part of IPv4.
    let mut part = SYN.to_vec();
    part[20] = 0x20;
    all.push((34, part));
    all
}

/// What becomes of an odd frame: it is never answered.
fn odd(frame: &[u8], kernel: &mut FakeKernel) -> Reason {
    kernel.odd = frame.to_vec();
    let judged = judged(frame, kernel);
    judged.expect_err("no answer")
}

fn passes(reason: Reason) -> bool {
    matches!(reason, Reason::PassIpv4Options | Reason::PassProtocol)
}

#[test]
fn an_odd_syn_is_dropped_unless_the_client_is_known_or_it_is_calm() {
    for (at, frame) in odd_syns() {
        let mut kernel = told([COOKIE, 7]);
        assert_eq!(odd(&frame, &mut kernel), Reason::DropForward, "{frame:x?}");
        kernel.is_auto = true;
        assert_eq!(odd(&frame, &mut kernel), Reason::ForwardCalm);
        kernel.is_flooded = true;
        assert_eq!(odd(&frame, &mut kernel), Reason::DropForward);
        kernel.has_proved = true;
        assert_eq!(odd(&frame, &mut kernel), Reason::ForwardVerified);
        kernel.has_proved = false;
        // A tag with a priority alone is as none.
        let mut priority = frame.clone();
        priority.splice(12..12, [0x81, 0, 0xe0, 0]);
        assert_eq!(odd(&priority, &mut kernel), Reason::DropForward);
        for flags in [
            0,
            flag::FIN,
            flag::ACK,
            flag::RST,
            flag::SYN | flag::ACK,
            flag::SYN | flag::RST,
        ] {
            let other = changed_flags(&frame, at + 13, flags);
            assert!(passes(odd(&other, &mut kernel)), "{flags} {frame:x?}");
        }
        assert_eq!(
            odd(
                &changed_flags(&frame, at + 13, flag::SYN | flag::FIN),
                &mut kernel
            ),
            Reason::DropForward
        );
    }
    // More headers than are gone through hide what is behind them.
    let (_, deep) = behind(&[HEADERS[0]; 7]);
    assert_eq!(odd(&deep, &mut told([COOKIE, 7])), Reason::DropForward);
}

#[test]
fn what_is_odd_and_to_others_passes() {
    for (at, frame) in odd_syns() {
        let mut kernel = told([COOKIE, 7]);
        assert!(passes(odd(&changed_flags(&frame, at + 3, 54), &mut kernel)));
        assert!(passes(odd(&changed_flags(&frame, 5, 9), &mut kernel)));
        // In a VLAN of the hosts', and within another one in that.
        kernel.vlan = 5;
        assert!(passes(odd(&frame, &mut kernel)));
        for (tags, is_theirs) in [
            (&[0x81, 0, 0, 5][..], true),
            (&[0x81, 0, 0, 5, 0x81, 0, 0, 7], false),
        ] {
            let mut tagged = frame.clone();
            tagged.splice(12..12, tags.iter().copied());
            let reason = odd(&tagged, &mut kernel);
            assert_eq!(passes(reason), !is_theirs, "{tagged:x?}");
        }
    }
    let mut kernel = told([COOKIE, 7]);
    // Parts behind a first one, and what is no segment.
    let (_, options) = with_options(1);
    for (at, byte) in [(21, 1), (20, 0x1f), (23, 17)] {
        let other = changed_flags(&options, at, byte);
        assert!(passes(odd(&other, &mut kernel)), "{at}");
    }
    let (_, later) = behind(&[(44, &[0, 0, 0, 8, 0, 0, 0, 7])]);
    assert!(passes(odd(&later, &mut kernel)));
    let (_, mut datagram) = behind(&HEADERS[..1]);
    datagram[54] = 17;
    assert!(passes(odd(&datagram, &mut kernel)));
}

/// RFC 1858 section 3: a first part so short that the flags are in the next one. What stands behind it in the frame is no part of it.
#[test]
fn a_part_without_flags_is_dropped_whatever_pads_its_frame() {
    let mut v4 = SYN.to_vec();
    v4[20] = 0x20;
    let (_, v6) = behind(&HEADERS[3..4]);
    for (frame, len_at, len, at) in [(v4, 17, 28, 34), (v6, 19, 16, 62)] {
        let mut kernel = told([COOKIE, 7]);
        let mut short = changed_flags(&frame, len_at, len);
        for flags in [0, flag::ACK, flag::SYN] {
            short[at + 13] = flags;
            assert_eq!(odd(&short, &mut kernel), Reason::DropForward, "{flags}");
        }
        for end in at + 8..short.len() {
            let reason = odd(&short[..end], &mut kernel);
            assert_eq!(reason, Reason::DropForward, "{end}");
        }
        // Nor can be told for whom it is.
        assert!(passes(odd(&short[..at + 7], &mut kernel)));
        kernel.has_proved = true;
        assert_eq!(odd(&short, &mut kernel), Reason::ForwardVerified);
    }
}
