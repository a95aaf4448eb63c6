//! SYN cookies: which SYNs are answered, and how; checked by smoltcp, against a listener of this machine's kernel.

use crate::bench::{Bench, LOOPBACK, listen, monotonic_ns};
use crate::frames::{CLIENT_MAC, OUR_MAC, Query, flipped};
use smoltcp::wire::{IpAddress, Ipv4Packet, Ipv6Packet, TcpPacket};
use std::net::{IpAddr, TcpListener};
use std::time::{Duration, Instant};
use xdnsd_abi::{
    GUARDED_MAX, Listen, Orders, PathCheck, Reason, RestoredOptions, SYN_FRAME_MAX, few,
};

/// Attempts at what a slow machine may be too slow for.
const ATTEMPTS: u32 = 50;

const VLAN: u16 = 0x8100;
const QINQ: u16 = 0x88a8;
/// MSS of a route that limits it.
pub const MSS: u16 = 1_412;
/// Options of Linux: MSS, SACK permitted, timestamp, no operation, window scale.
const LINUX: [u8; 20] = [
    2, 4, 0x05, 0xb4, 4, 2, 8, 10, 0x12, 0x34, 0x56, 0x78, 0, 0, 0, 0, 1, 3, 3, 7,
];
const SYN: u8 = 0x02;
const SYN_ACK: u8 = 0x12;

/// A SYN that can be modified.
#[derive(Clone)]
pub struct Syn {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub source_port: u16,
    pub destination_port: u16,
    pub sequence: u32,
    pub options: Vec<u8>,
    pub data: Vec<u8>,
    pub tags: Vec<[u16; 2]>,
}

impl Syn {
    pub fn between(source: &str, destination: &str) -> Self {
        Self {
            source: source.parse().expect("an address"),
            destination: destination.parse().expect("an address"),
            source_port: 40_000,
            destination_port: 53,
            sequence: 0xffff_ffff,
            options: LINUX.to_vec(),
            data: Vec::new(),
            tags: Vec::new(),
        }
    }

    pub fn both() -> [Self; 2] {
        [
            Self::between("192.0.2.1", "192.0.2.53"),
            Self::between("2001:db8::1", "2001:db8::53"),
        ]
    }

    /// The same behind a tag that carries a priority alone, from a client that has not been verified with it.
    pub fn with_priority(self) -> Self {
        Self {
            source: match self.source {
                IpAddr::V4(_) => IpAddr::from([198, 51, 100, 1]),
                IpAddr::V6(_) => IpAddr::from([0x2001, 0xdb9, 0, 0, 0, 0, 0, 1]),
            },
            tags: vec![[0x8100, 0xe000]],
            ..self
        }
    }

    fn ip(&self) -> usize {
        14 + 4 * self.tags.len()
    }

    pub fn tcp(&self) -> usize {
        self.ip() + if self.source.is_ipv4() { 20 } else { 40 }
    }

    /// The frame, without padding, with all checksums correct.
    pub fn frame(&self) -> Vec<u8> {
        let mut bytes = [OUR_MAC, CLIENT_MAC].concat();
        for word in self.tags.iter().flatten() {
            bytes.extend(word.to_be_bytes());
        }
        let len = (20 + self.options.len() + self.data.len()) as u16;
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                bytes.extend([0x08, 0x00, 0x45, 0x00]);
                bytes.extend((20 + len).to_be_bytes());
                bytes.extend([0x12, 0x34, 0x40, 0x00, 61, 6, 0, 0]);
                bytes.extend([source.octets(), destination.octets()].concat());
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                bytes.extend([0x86, 0xdd, 0x60, 0x00, 0x00, 0x00]);
                bytes.extend(len.to_be_bytes());
                bytes.extend([6, 61]);
                bytes.extend([source.octets(), destination.octets()].concat());
            }
            families => panic!("two families: {families:?}"),
        }
        bytes.extend(self.source_port.to_be_bytes());
        bytes.extend(self.destination_port.to_be_bytes());
        bytes.extend(self.sequence.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend([(5 + self.options.len() as u8 / 4) << 4, SYN, 0xfa, 0xf0]);
        bytes.extend([0; 4]);
        bytes.extend(&self.options);
        bytes.extend(&self.data);
        self.sealed(bytes)
    }

    /// The frame with all checksums corrected.
    fn sealed(&self, mut frame: Vec<u8>) -> Vec<u8> {
        let (source, destination) = self.ends();
        if self.source.is_ipv4() {
            Ipv4Packet::new_unchecked(&mut frame[self.ip()..]).fill_checksum();
        }
        let mut segment = TcpPacket::new_unchecked(&mut frame[self.tcp()..]);
        segment.fill_checksum(&source, &destination);
        frame
    }

    /// The frame after `change`, with the checksums corrected.
    pub fn resealed(&self, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
        let mut frame = self.frame();
        change(&mut frame);
        self.sealed(frame)
    }

    pub fn ends(&self) -> (IpAddress, IpAddress) {
        (self.source.into(), self.destination.into())
    }

    /// Checks every byte of the answer but the cookie, which it returns: the only option is an MSS.
    pub fn check(&self, answer: &[u8]) -> u32 {
        self.check_with(answer, &[], 64_240)
    }

    /// Checks an answer with a closed window.
    pub fn check_closed(&self, answer: &[u8]) -> u32 {
        self.check_with(answer, &[], 0)
    }

    /// Checks an answer with these options after its MSS.
    fn check_with(&self, answer: &[u8], options: &[u8], window: u16) -> u32 {
        let len = (24 + options.len()) as u16;
        let sent = self.frame();
        assert_eq!(answer[..6], CLIENT_MAC);
        assert_eq!(answer[6..12], OUR_MAC);
        assert_eq!(answer[12..self.ip()], sent[12..self.ip()], "tags");
        let (source, destination) = self.ends();
        let packet = &answer[self.ip()..];
        match self.source {
            IpAddr::V4(client) => {
                let packet = Ipv4Packet::new_checked(packet).expect("IPv4");
                assert!(packet.verify_checksum());
                assert_eq!(packet.total_len(), 20 + len);
                let header = [packet.dscp(), packet.ecn(), packet.hop_limit()];
                assert_eq!(header, [0, 0, 64]);
                assert!(packet.dont_frag() && !packet.more_frags());
                assert_eq!((packet.ident(), packet.frag_offset()), (0, 0));
                assert_eq!(IpAddr::from(packet.dst_addr()), IpAddr::from(client));
                assert_eq!(IpAddr::from(packet.src_addr()), self.destination);
            }
            IpAddr::V6(client) => {
                let packet = Ipv6Packet::new_checked(packet).expect("IPv6");
                assert_eq!(packet.payload_len(), len);
                let header = (packet.traffic_class(), packet.flow_label());
                assert_eq!(header, (0, 0));
                assert_eq!((packet.version(), packet.hop_limit()), (6, 64));
                assert_eq!(IpAddr::from(packet.dst_addr()), IpAddr::from(client));
                assert_eq!(IpAddr::from(packet.src_addr()), self.destination);
            }
        }
        assert_eq!(
            answer.len(),
            self.tcp() + usize::from(len),
            "not a byte more"
        );
        let segment = TcpPacket::new_checked(&answer[self.tcp()..]).expect("TCP");
        assert!(segment.verify_checksum(&destination, &source));
        assert_eq!(segment.src_port(), self.destination_port);
        assert_eq!(segment.dst_port(), self.source_port);
        assert_eq!(segment.ack_number().0 as u32, self.sequence.wrapping_add(1));
        assert_eq!(answer[self.tcp() + 13], SYN_ACK);
        assert_eq!((segment.window_len(), segment.urgent_at()), (window, 0));
        let mss = [&[2, 4][..], &MSS.to_be_bytes(), options].concat();
        assert_eq!(segment.options(), mss);
        segment.seq_number().0 as u32
    }
}

/// A bench with port 53 guarded, a listener there, and the kernel's cookies on for all.
pub fn guarded(test: &str) -> Option<(Bench, TcpListener)> {
    let mut bench = Bench::new(test)?;
    bench.program.guard().unwrap_or_else(|e| panic!("{e}"));
    guard(&mut bench, &[(0, 0)]);
    let on = bench.program.set_syn_cookies(Orders::give(None));
    on.expect("the map takes it");
    set_sysctl(&bench, "2");
    let listener = bench.namespace.run(|| TcpListener::bind("[::]:53"));
    Some((bench, listener.expect("the port is free")))
}

fn set_sysctl(bench: &Bench, value: &str) {
    let path = "/proc/sys/net/ipv4/tcp_syncookies";
    bench.namespace.write(path, value).expect("root may");
}

/// Guards port 53 of both addresses in these VLANs.
fn guard(bench: &mut Bench, vlans: &[(u16, u16)]) {
    let route = PathCheck::new(0, LOOPBACK, OUR_MAC).with_mss(MSS);
    guard_by(bench, vlans, route);
}

fn guard_by(bench: &mut Bench, vlans: &[(u16, u16)], route: PathCheck) {
    let both = ["192.0.2.53", "2001:db8::53"];
    let entry = |address: &&str, (outer, inner)| (listen(address, outer, inner), route);
    let entries: Vec<_> = both
        .iter()
        .flat_map(|address| vlans.iter().map(move |vlan| entry(address, *vlan)))
        .collect();
    bench.program.set_guarded(&entries).expect("there is room");
}

#[test]
fn a_syn_is_answered_with_a_cookie() {
    let Some((mut bench, _listener)) = guarded("a_syn_is_answered_with_a_cookie") else {
        return;
    };
    for syn in Syn::both() {
        let cookie = |bench: &mut Bench, syn: &Syn| syn.check(&bench.answer(&syn.frame()));
        let first = cookie(&mut bench, &syn);
        let mut other = syn.clone();
        other.source_port += 1;
        assert_ne!(cookie(&mut bench, &other), first, "it depends on who asks");
        // ECN (RFC 3168): asked for, and not given.
        let ecn = bench.answer(&syn.resealed(|frame| frame[syn.tcp() + 13] |= 0xc0));
        syn.check(&ecn);
    }
}

#[test]
fn options_of_every_length_are_answered_and_so_are_none() {
    let Some((mut bench, _listener)) = guarded("options_of_every_length_are_answered") else {
        return;
    };
    for mut syn in Syn::both() {
        for words in 0..=10 {
            let nothing = vec![1; words * 4];
            let options = if words < 5 {
                nothing
            } else {
                [&LINUX[..], &nothing[20..]].concat()
            };
            syn.options = options;
            let frame = syn.frame();
            syn.check(&bench.answer(&frame));
            // Ethernet's padding, up to the longest frame that is parsed.
            for len in [60, SYN_FRAME_MAX]
                .into_iter()
                .filter(|len| *len >= frame.len())
            {
                let mut padded = frame.clone();
                padded.resize(len, 0xa5);
                syn.check(&bench.answer(&padded));
            }
            let mut padded = frame;
            padded.resize(SYN_FRAME_MAX + 1, 0xa5);
            bench.expect(&padded, Reason::PassLargeFrame);
        }
    }
}

/// Options that the kernel restores, in tests of them.
const KEPT: RestoredOptions = RestoredOptions {
    sack: true,
    scale: Some(9),
};
const NOP: &[u8] = &[1];
const SCALE: &[u8] = &[3, 3, 7];
const SACK: &[u8] = &[4, 2];
const TIMESTAMPS: &[u8] = &[8, 10, 0x12, 0x34, 0x56, 0x78, 0, 0, 0, 0];

/// Options after the MSS in the answer to a SYN with these options, except the timestamp; and the bits encoded there.
fn answered(
    bench: &mut Bench,
    syn: &Syn,
    kept: RestoredOptions,
    options: &[&[u8]],
) -> (Vec<u8>, u32) {
    let orders = Orders::give(Some(kept));
    bench.program.set_syn_cookies(orders).expect("it takes it");
    let mut options = options.concat();
    options.resize(options.len().next_multiple_of(4), 0);
    let syn = Syn {
        options,
        ..syn.clone()
    };
    let before = monotonic_ns() / 1_000_000;
    let answer = bench.answer(&syn.frame());
    let after = monotonic_ns() / 1_000_000;
    let mut options = answer[syn.tcp() + 24..].to_vec();
    syn.check_with(&answer, &options, 64_240);
    if options.is_empty() {
        return (options, 0);
    }
    let stamp = options[4..8].try_into().map(u32::from_be_bytes);
    let stamp = stamp.expect("four bytes");
    // Not in the future, and no older than the encoded bits and the coarse clock's tick allow.
    let age = (after as u32).wrapping_sub(stamp);
    assert!(u64::from(age) <= after - before + 128 + 20, "{age}");
    options[4..8].fill(0);
    (options, stamp & 0x3f)
}

/// With a timestamp all options are kept, encoded in the kernel's bits of the timestamp; without one, none.
#[test]
fn options_are_kept_as_the_kernels_own_cookies_keep_them() {
    let Some((mut bench, _listener)) = guarded("options_are_kept") else {
        return;
    };
    let stamps = [8, 10, 0, 0, 0, 0, 0x12, 0x34, 0x56, 0x78];
    let all = [SACK, &stamps, &[1, 3, 3, 9]].concat();
    let no_sack = [&[1, 1][..], &stamps, &[1, 3, 3, 9]].concat();
    let no_scale = [SACK, &stamps, &[1; 4]].concat();
    let (no_kept_sack, no_kept_scale) = (
        RestoredOptions {
            sack: false,
            ..KEPT
        },
        RestoredOptions {
            scale: None,
            ..KEPT
        },
    );
    let cut = &TIMESTAMPS[..9];
    type Case<'a> = (RestoredOptions, &'a [&'a [u8]], &'a [u8], u32);
    let cases: [Case<'_>; 14] = [
        (KEPT, &[&LINUX], &all, 0x17),
        (KEPT, &[TIMESTAMPS, SCALE, SACK], &all, 0x17),
        (KEPT, &[TIMESTAMPS, SCALE], &no_sack, 0x07),
        (KEPT, &[SACK, TIMESTAMPS], &no_scale, 0x1f),
        (
            KEPT,
            &[TIMESTAMPS],
            &[&[1, 1][..], &stamps, &[1; 4]].concat(),
            0x0f,
        ),
        // More than fourteen counts as fourteen (RFC 7323 section 2.3).
        (KEPT, &[TIMESTAMPS, &[3, 3, 0], SACK], &all, 0x10),
        (KEPT, &[TIMESTAMPS, &[3, 3, 15], SACK], &all, 0x1e),
        (KEPT, &[TIMESTAMPS, &[3, 3, 255], SACK], &all, 0x1e),
        // Options that the kernel is told to ignore are not kept: it would refuse the ACK.
        (no_kept_sack, &[&LINUX], &no_sack, 0x07),
        (no_kept_scale, &[&LINUX], &no_scale, 0x1f),
        // Without a timestamp.
        (KEPT, &[SCALE, SACK], &[], 0),
        (KEPT, &[], &[], 0),
        // One that is truncated, and one after the end.
        (KEPT, &[SCALE, SACK, NOP, NOP, cut], &[], 0),
        (KEPT, &[SCALE, &[0], TIMESTAMPS], &[], 0),
    ];
    for syn in Syn::both() {
        for (kept, options, expected, bits) in cases {
            let found = answered(&mut bench, &syn, kept, options);
            assert_eq!(found, (expected.to_vec(), bits), "{options:?}");
        }
        let both = [LINUX.to_vec(), vec![1; 20]].concat();
        assert_eq!(
            answered(&mut bench, &syn, KEPT, &[&both]),
            (all.clone(), 0x17)
        );
        // Anywhere in the header.
        for gap in 0..=20 {
            let gap = NOP.repeat(gap);
            let found = answered(&mut bench, &syn, KEPT, &[&gap, &LINUX]);
            assert_eq!(found, (all.clone(), 0x17));
        }
    }
}

/// Any bytes: each option is found as by the RFC, and nothing of the frame after the header is read.
#[test]
fn options_of_any_bytes_are_looked_at_within_bounds() {
    let Some((mut bench, _listener)) = guarded("options_of_any_bytes") else {
        return;
    };
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 56) as u8
    };
    for syn in Syn::both().into_iter().cycle().take(400) {
        let len = usize::from(next() % 11) * 4;
        // Mostly valid kinds and lengths.
        let words: Vec<u8> = (0..len)
            .map(|_| match next() {
                octet @ 0..192 => [0, 1, 1, 2, 2, 3, 3, 4, 8, 10, 3, 5][usize::from(octet % 12)],
                octet => octet,
            })
            .collect();
        let (sack, scale, stamp) = by_the_book(&words);
        let expected = stamp.map(|stamp| {
            let sack_bytes = if sack { SACK } else { &[1, 1] };
            let scale_bytes = if scale.is_some() {
                [1, 3, 3, 9]
            } else {
                [1; 4]
            };
            let bytes = [sack_bytes, &[8, 10, 0, 0, 0, 0], &stamp, &scale_bytes].concat();
            (bytes, u32::from(sack) << 4 | u32::from(scale.unwrap_or(15)))
        });
        let found = answered(&mut bench, &syn, KEPT, &[&words]);
        assert_eq!(found, expected.unwrap_or_default(), "{words:?}");
    }
}

/// SACK permitted, scale and timestamp of these options (RFC 9293 section 3.1).
fn by_the_book(mut rest: &[u8]) -> (bool, Option<u8>, Option<[u8; 4]>) {
    let (mut sack, mut scale, mut stamp) = (false, None, None);
    loop {
        match rest {
            [] | [0, ..] => break,
            [1, behind @ ..] => rest = behind,
            [kind, len, ..] if (2..=rest.len()).contains(&usize::from(*len)) => {
                let (option, behind) = rest.split_at(usize::from(*len));
                match (kind, option) {
                    (4, [_, _]) => sack = true,
                    (3, [_, _, shift]) => scale = Some(*shift.min(&14)),
                    (8, [_, _, a, b, c, d, _, _, _, _]) => stamp = Some([*a, *b, *c, *d]),
                    _ => {}
                }
                rest = behind;
            }
            _ => break,
        }
    }
    (sack, scale, stamp)
}

#[test]
fn tags_stay_and_a_vlan_has_guarded_ports_of_its_own() {
    let Some((mut bench, _listener)) = guarded("tags_stay") else {
        return;
    };
    for (vlan, tags) in [
        ((5, 0), vec![[VLAN, 0xe005]]),
        ((6, 5), vec![[QINQ, 0xf006], [VLAN, 0x1005]]),
    ] {
        for mut syn in Syn::both() {
            guard(&mut bench, &[vlan]);
            bench.expect(&syn.frame(), Reason::PassProtocol);
            syn.tags = tags.clone();
            syn.check(&bench.answer(&syn.frame()));
            guard(&mut bench, &[(0, 0), (vlan.0 ^ 1, vlan.1)]);
            bench.expect(&syn.frame(), Reason::PassProtocol);
        }
    }
}

/// The kernel takes a tag with ID 0 for none. In a flood such a SYN would cost as much as it does without the shield.
#[test]
fn a_priority_alone_makes_no_difference() {
    let Some((mut bench, _listener)) = guarded("a_priority_alone") else {
        return;
    };
    for (vlan, tags) in [
        ((0, 0), vec![[VLAN, 0xe000]]),
        ((5, 0), vec![[VLAN, 0xa000], [VLAN, 5]]),
    ] {
        guard(&mut bench, &[vlan]);
        for mut syn in Syn::both() {
            syn.tags = tags.clone();
            syn.check(&bench.answer(&syn.frame()));
            syn.destination_port = 54;
            bench.expect(&syn.frame(), Reason::PassProtocol);
        }
    }
    // A datagram is as without the shield.
    let query = Query::v4().tagged(&[[VLAN, 0xe000]]);
    bench.expect(&query.frame(), Reason::PassVlanPriority);
}

/// The listener has no address, so it would match any (and the client's connection to another host would be taken over).
#[test]
fn what_is_not_ours_passes_although_somebody_listens_on_all_addresses() {
    let Some((mut bench, _listener)) = guarded("what_is_not_ours_passes") else {
        return;
    };
    for syn in Syn::both() {
        let mut other_port = syn.clone();
        other_port.destination_port = 54;
        bench.expect(&other_port.frame(), Reason::PassProtocol);
        for at in 0..6 {
            let mut other_mac = syn.frame();
            other_mac[at] ^= 0x40;
            bench.expect(&other_mac, Reason::PassOtherMac);
        }
        guard_by(
            &mut bench,
            &[(0, 0)],
            PathCheck::new(0, LOOPBACK + 1, OUR_MAC),
        );
        bench.expect(&syn.frame(), Reason::PassOtherDevice);
        guard(&mut bench, &[(0, 0)]);
    }
    for (source, destination) in [
        ("192.0.2.1", "203.0.113.9"),
        ("2001:db8::1", "2001:4860:4860::8888"),
        ("2001:db8::1", "::ffff:192.0.2.53"),
    ] {
        let syn = Syn::between(source, destination);
        bench.expect(&syn.frame(), Reason::PassProtocol);
    }
}

#[test]
fn a_source_that_cannot_be_answered_passes() {
    let Some((mut bench, _listener)) = guarded("a_source_that_cannot_be_answered_passes") else {
        return;
    };
    for source in [
        "0.0.0.0",
        "127.0.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "192.0.2.53",
    ] {
        let syn = Syn::between(source, "192.0.2.53");
        bench.expect(&syn.frame(), Reason::PassSource);
    }
    for source in ["::", "::1", "::ffff:192.0.2.1", "ff02::1", "2001:db8::53"] {
        let syn = Syn::between(source, "2001:db8::53");
        bench.expect(&syn.frame(), Reason::PassSource);
    }
    for mut syn in Syn::both() {
        syn.source_port = 0;
        bench.expect(&syn.frame(), Reason::PassSource);
    }
}

#[test]
fn only_the_segment_that_asks_for_a_connection_is_answered() {
    let Some((mut bench, _listener)) = guarded("only_the_segment_that_asks") else {
        return;
    };
    for syn in Syn::both() {
        for flags in 0..=u8::MAX {
            let frame = syn.resealed(|frame| frame[syn.tcp() + 13] = flags);
            // PSH, URG and the two of ECN do not matter.
            if flags & 0b01_0111 == SYN {
                syn.check(&bench.answer(&frame));
            } else {
                bench.expect(&frame, Reason::PassProtocol);
            }
        }
    }
}

#[test]
fn options_of_ip_fragments_and_cut_headers_pass() {
    let Some((mut bench, _listener)) = guarded("options_of_ip_fragments_and_cut_headers_pass")
    else {
        return;
    };
    let [v4, v6] = Syn::both();
    let mut options = v4.frame();
    options.splice(34..34, [1; 4]);
    options[14] = 0x46;
    bench.expect(&options, Reason::PassIpv4Options);
    for fragment in [0x2000_u16, 0x0001] {
        let set = |frame: &mut [u8]| frame[20..22].copy_from_slice(&fragment.to_be_bytes());
        bench.expect(&v4.resealed(set), Reason::PassProtocol);
    }
    // Hop-by-hop, routing, fragment, destination options.
    for next_header in [0, 43, 44, 60] {
        let frame = v6.resealed(|frame| frame[20] = next_header);
        bench.expect(&frame, Reason::PassProtocol);
    }
    for syn in [v4, v6] {
        let frame = syn.frame();
        for len in syn.tcp()..frame.len() {
            let reason = if len < syn.tcp() + 20 {
                Reason::PassProtocol
            } else {
                Reason::PassTruncated
            };
            bench.expect(&frame[..len], reason);
        }
    }
}

#[test]
fn data_and_lengths_that_disagree_pass() {
    let Some((mut bench, _listener)) = guarded("data_and_lengths_that_disagree_pass") else {
        return;
    };
    for syn in Syn::both() {
        let mut fast_open = syn.clone();
        fast_open.data = b"query".to_vec();
        bench.expect(&fast_open.frame(), Reason::PassSynLength);
        for words in (0..16).filter(|words| *words != 10) {
            let set = |frame: &mut [u8]| frame[syn.tcp() + 12] = words << 4;
            bench.expect(&syn.resealed(set), Reason::PassSynLength);
        }
        // IP is shorter than TCP, and longer.
        let at = if syn.source.is_ipv4() {
            syn.ip() + 3
        } else {
            syn.ip() + 5
        };
        for by in [4, -4_i8] {
            let set = |frame: &mut [u8]| frame[at] = frame[at].wrapping_add_signed(by);
            let padded = [syn.resealed(set), vec![0; 4]].concat();
            bench.expect(&padded, Reason::PassSynLength);
        }
    }
}

#[test]
fn one_wrong_bit_anywhere_under_the_checksums_passes() {
    let Some((mut bench, _listener)) = guarded("one_wrong_bit_anywhere_passes") else {
        return;
    };
    for syn in Syn::both() {
        let good = syn.frame();
        let tcp = syn.tcp();
        // Other tests cover ports, offset and flags.
        for at in (tcp + 4..tcp + 12).chain(tcp + 14..good.len()) {
            bench.expect(&flipped(good.clone(), at), Reason::PassTcpChecksum);
        }
        if syn.source.is_ipv4() {
            for at in [15, 18, 19, 22, 24, 25] {
                bench.expect(&flipped(good.clone(), at), Reason::PassIpv4Checksum);
            }
        }
    }
}

#[test]
fn without_the_kernels_consent_a_syn_passes() {
    let Some((mut bench, listener)) = guarded("without_the_kernels_consent_a_syn_passes") else {
        return;
    };
    for value in ["0", "1"] {
        set_sysctl(&bench, value);
        for syn in Syn::both() {
            bench.expect(&syn.frame(), Reason::PassNoCookie);
        }
    }
    set_sysctl(&bench, "2");
    for syn in Syn::both() {
        bench.answer(&syn.frame());
    }
    drop(listener);
    for syn in Syn::both() {
        bench.expect(&syn.frame(), Reason::PassNoCookie);
    }
}

#[test]
fn at_rest_and_off_nothing_is_written() {
    let Some((mut bench, _listener)) = guarded("at_rest_and_off_nothing_is_written") else {
        return;
    };
    bench
        .program
        .set_syn_cookies(Orders::REST)
        .expect("it takes it");
    for syn in Syn::both() {
        bench.expect(&syn.frame(), Reason::PassSyn);
    }
    // Never guarded: no SYN is answered, whatever the maps contain.
    for bench in [Bench::new("off"), Bench::single("off")] {
        let Some(mut bench) = bench else { return };
        guard(&mut bench, &[(0, 0)]);
        bench
            .program
            .set_syn_cookies(Orders::give(None))
            .expect("it takes it");
        for syn in Syn::both() {
            bench.expect(&syn.frame(), Reason::PassProtocol);
        }
    }
}

#[test]
fn a_kernel_with_frames_in_one_buffer_is_refused_by_name() {
    let Some(mut bench) = Bench::single("a_kernel_with_frames_in_one_buffer") else {
        return;
    };
    let error = bench.program.guard().expect_err("nothing to hand on to");
    assert!(error.to_string().contains("6.0"), "{error}");
}

/// A listener counts for the rest of the second after it was found. Here it is gone meanwhile.
#[test]
fn in_a_flood_a_cookie_takes_no_look_at_a_socket() {
    let Some((mut bench, first)) = guarded("in_a_flood_a_cookie_takes_no_look") else {
        return;
    };
    drop(first);
    for syn in Syn::both() {
        let is_answered = (0..ATTEMPTS).any(|_| {
            let listener = bench.namespace.run(|| TcpListener::bind("[::]:53"));
            let (answer, _) = bench.flood(&syn.frame(), 2 * few::SYNS.1);
            let cookie = syn.check(&answer);
            drop(listener.expect("the port is free"));
            let (answer, _) = bench.flood(&syn.frame(), 1);
            // Another second has begun, or another processor counts.
            if answer == syn.frame() {
                return false;
            }
            let again = syn.check(&answer);
            // The kernel's cookies change with each minute.
            assert!(again == cookie || again.wrapping_sub(cookie) >> 24 == 1);
            true
        });
        assert!(is_answered, "{ATTEMPTS} times somebody was asked");
        let deadline = Instant::now() + Duration::from_secs(20);
        while bench.flood(&syn.frame(), 1).0 != syn.frame() {
            assert!(Instant::now() < deadline, "nobody is asked any more");
        }
    }
}

/// Who listens is asked for each port: a flood of one says nothing of another.
#[test]
fn in_a_flood_of_one_port_no_cookie_is_given_for_another_that_nobody_listens_at() {
    let Some((mut bench, _listener)) = guarded("in_a_flood_of_one_port") else {
        return;
    };
    let route = PathCheck::new(0, LOOPBACK, OUR_MAC).with_mss(MSS);
    let entries = ["192.0.2.53", "2001:db8::53"].map(|address| {
        let other = Listen {
            port: 54_u16.to_be_bytes(),
            ..listen(address, 0, 0)
        };
        [(listen(address, 0, 0), route), (other, route)]
    });
    let entries = entries.concat();
    bench.program.set_guarded(&entries).expect("there is room");
    for syn in Syn::both() {
        let mut other = syn.clone();
        other.destination_port = 54;
        bench.flood(&syn.frame(), 2 * few::SYNS.1);
        let (answer, _) = bench.flood(&other.frame(), 1);
        assert_eq!(answer, other.frame(), "nobody listens there");
    }
}

/// The FIB of the bench's namespace has no way back.
#[test]
fn where_the_route_wants_it_the_fib_is_asked() {
    let Some((mut bench, _listener)) = guarded("where_the_route_wants_it_the_fib_is_asked") else {
        return;
    };
    let checked = PathCheck::new(LOOPBACK, LOOPBACK, OUR_MAC).with_mss(MSS);
    guard_by(&mut bench, &[(0, 0)], checked);
    for syn in Syn::both() {
        bench.expect(&syn.frame(), Reason::PassRoute);
    }
}

#[test]
fn a_frame_in_several_buffers_passes() {
    let Some((mut bench, _listener)) = guarded("a_frame_in_several_buffers_passes") else {
        return;
    };
    for syn in Syn::both() {
        let frame = syn.frame();
        let mut long = frame.clone();
        long.resize(5_000, 0xa5);
        bench.expect(&long, Reason::PassLargeFrame);
        for first in 14..frame.len() {
            let reason = if first < syn.tcp() {
                Reason::PassTruncated
            } else if first < syn.tcp() + 20 {
                Reason::PassProtocol
            } else {
                Reason::PassLargeFrame
            };
            if !bench.expect_split(&frame, first, reason) {
                eprintln!("this kernel cannot split a test frame (before Linux 6.18)");
                return;
            }
        }
    }
}

#[test]
fn the_map_of_guarded_ports_becomes_what_is_asked_for() {
    let Some((mut bench, _listener)) = guarded("the_map_of_guarded_ports") else {
        return;
    };
    let entry = |port: u16| {
        let key = Listen {
            port: port.to_be_bytes(),
            ..listen("192.0.2.53", 0, 0)
        };
        (key, PathCheck::new(0, LOOPBACK, OUR_MAC).with_mss(MSS))
    };
    let full = |first: u16| -> Vec<_> { (first..first + GUARDED_MAX as u16).map(entry).collect() };
    for first in [1, 600] {
        bench.program.set_guarded(&full(first)).expect("it is full");
    }
    let mut syn = Syn::between("192.0.2.1", "192.0.2.53");
    bench.expect(&syn.frame(), Reason::PassProtocol);
    syn.destination_port = 600;
    bench.expect(&syn.frame(), Reason::PassNoCookie);
    let too_many = [full(1), vec![entry(9_999)]].concat();
    assert!(bench.program.set_guarded(&too_many).is_err());
}
