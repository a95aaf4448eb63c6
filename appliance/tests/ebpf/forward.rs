//! Segments to hosts behind this one: a client that has not returned a cookie opens no connection to protected ones.

use crate::bench::{Bench, LOOPBACK};
use crate::frames::OUR_MAC;
use crate::syn::{MSS, Syn};
use smoltcp::wire::TcpPacket;
use std::net::IpAddr;
use xdnsd_abi::{Behind, PathCheck, Protected, Reason, protect};

const FIN: u8 = 0x01;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;

/// A prefix with a port and clients that are always challenged.
fn behind(address: &str, len: u32, port: u16) -> (u32, Behind, Protected) {
    let (addr, len) = match address.parse().expect("an address") {
        IpAddr::V4(address) => (address.to_ipv6_mapped().octets(), 96 + len),
        IpAddr::V6(address) => (address.octets(), len),
    };
    let port = port.to_be_bytes();
    let check = PathCheck::new(0, LOOPBACK, OUR_MAC).with_mss(MSS);
    let behind = Behind {
        port,
        vlan: [0; 2],
        addr,
    };
    let protected = Protected {
        check,
        verified_secs: 300,
        is_auto: 0,
    };
    (Behind::PORT_BITS + len, behind, protected)
}

/// A bench in front of two networks, of which port 53 is protected.
fn protecting(test: &str) -> Option<Bench> {
    let mut bench = Bench::new(test)?;
    bench
        .program
        .protect()
        .unwrap_or_else(|error| panic!("{error}"));
    let networks = [behind("192.0.2.0", 26, 53), behind("2001:db8::", 32, 53)];
    bench
        .program
        .set_protected(&networks)
        .expect("there is room");
    tell(&mut bench, protect::CALM);
    Some(bench)
}

fn tell(bench: &mut Bench, word: u32) {
    bench.program.set_protecting(word).expect("it takes it");
}

/// A segment between the same ends.
fn segment(syn: &Syn, flags: u8, sequence: u32, acknowledgment: u32) -> Vec<u8> {
    let segment = Syn {
        sequence,
        options: Vec::new(),
        ..syn.clone()
    };
    let tcp = segment.tcp();
    segment.resealed(|frame| {
        frame[tcp + 8..tcp + 12].copy_from_slice(&acknowledgment.to_be_bytes());
        frame[tcp + 13] = flags;
    })
}

/// Cookie in the answer to a SYN.
fn cookie(bench: &mut Bench, syn: &Syn) -> u32 {
    syn.check_closed(&bench.sent(&syn.frame(), Reason::ForwardCookie))
}

#[test]
fn a_client_is_asked_once_and_told_to_come_again() {
    let Some(mut bench) = protecting("a_client_is_asked_once") else {
        return;
    };
    let with_priority = Syn::both().map(|syn| Syn {
        source_port: 50_000,
        ..syn.with_priority()
    });
    for syn in Syn::both().into_iter().chain(with_priority) {
        let cookie = cookie(&mut bench, &syn);
        let next = syn.sequence.wrapping_add(1);
        let proof = segment(&syn, ACK, next, cookie.wrapping_add(1));
        let answer = bench.sent(&proof, Reason::ForwardProof);
        assert_eq!(answer.len(), syn.tcp() + 20, "a header and nothing else");
        let (client, server) = syn.ends();
        let reset = TcpPacket::new_checked(&answer[syn.tcp()..]).expect("TCP");
        assert!(reset.verify_checksum(&server, &client));
        assert_eq!(
            (reset.src_port(), reset.dst_port()),
            (syn.destination_port, syn.source_port)
        );
        assert_eq!(answer[syn.tcp() + 13], RST);
        assert_eq!(
            reset.seq_number().0 as u32,
            cookie.wrapping_add(1),
            "the client takes no other"
        );
        assert_eq!(reset.window_len(), 0);
        // From here on it passes.
        bench.expect(&syn.frame(), Reason::ForwardVerified);
        let mut again = syn.clone();
        again.source_port += 1;
        bench.expect(&again.frame(), Reason::ForwardVerified);
        for flags in [ACK, ACK | PSH, ACK | FIN, RST] {
            bench.expect(&segment(&again, flags, 7, 9), Reason::PassProtocol);
        }
    }
    // As many tags as there may be, and one more.
    let [syn, _] = Syn::both();
    let other = IpAddr::from([198, 51, 100, 2]);
    for (tags, reason) in [
        (vec![[0x8100, 0], [0x8100, 5]], Reason::PassProtocol),
        (vec![[0x8100, 0]; 3], Reason::PassVlanDepth),
    ] {
        let odd = Syn {
            source: other,
            tags,
            ..syn.clone()
        };
        bench.expect(&odd.frame(), reason);
    }
}

#[test]
fn what_brings_no_cookie_back_passes_and_proves_nothing() {
    let Some(mut bench) = protecting("what_brings_no_cookie_back") else {
        return;
    };
    for syn in Syn::both() {
        let cookie = cookie(&mut bench, &syn);
        let (next, good) = (syn.sequence.wrapping_add(1), cookie.wrapping_add(1));
        let mut other = syn.clone();
        other.source_port += 1;
        let mut damaged = segment(&syn, ACK, next, good);
        damaged[syn.tcp() + 17] ^= 1;
        bench.expect(&damaged, Reason::PassTcpChecksum);
        for frame in [
            segment(&syn, ACK, next, good.wrapping_add(1)),
            segment(&syn, ACK, next, good.wrapping_sub(1)),
            segment(&syn, ACK, next.wrapping_add(1), good),
            segment(&other, ACK, next, good),
            segment(&syn, ACK | RST, next, good),
            segment(&syn, ACK | FIN, next, good),
            segment(&syn, RST, next, good),
        ] {
            bench.expect(&frame, Reason::PassProtocol);
        }
        syn.check_closed(&bench.sent(&syn.frame(), Reason::ForwardCookie));
    }
}

#[test]
fn a_cookie_is_good_until_the_key_has_changed_twice() {
    let Some(mut bench) = protecting("a_cookie_is_good_until") else {
        return;
    };
    for (changes, reason) in [
        (0, Reason::ForwardProof),
        (1, Reason::ForwardProof),
        (2, Reason::PassProtocol),
    ] {
        for mut syn in Syn::both() {
            // Another client each time.
            syn.source = match syn.source {
                IpAddr::V4(_) => IpAddr::from([198, 51, 100, changes]),
                IpAddr::V6(_) => IpAddr::from([0x2001, 0xdb9, 0, 0, 0, 0, 0, u16::from(changes)]),
            };
            let first = cookie(&mut bench, &syn);
            for _ in 0..changes {
                bench.program.change_cookie_key().expect("the map takes it");
                assert_ne!(cookie(&mut bench, &syn), first);
            }
            let next = syn.sequence.wrapping_add(1);
            let proof = segment(&syn, ACK, next, first.wrapping_add(1));
            if reason == Reason::ForwardProof {
                bench.sent(&proof, reason);
            } else {
                bench.expect(&proof, reason);
            }
        }
    }
}

#[test]
fn what_is_not_protected_passes() {
    let Some(mut bench) = protecting("what_is_not_protected_passes") else {
        return;
    };
    for (source, destination) in [
        ("198.51.100.1", "192.0.2.64"),
        ("2001:db8::1", "2001:db9::53"),
    ] {
        let syn = Syn::between(source, destination);
        bench.expect(&syn.frame(), Reason::PassProtocol);
    }
    for syn in Syn::both() {
        let mut other_port = syn.clone();
        other_port.destination_port = 54;
        bench.expect(&other_port.frame(), Reason::PassProtocol);
        let mut tagged = syn.clone();
        tagged.tags = vec![[0x8100, 5]];
        bench.expect(&tagged.frame(), Reason::PassProtocol);
        let mut other_mac = syn.frame();
        other_mac[5] ^= 0x40;
        bench.expect(&other_mac, Reason::PassOtherMac);
        // A longer prefix of its own, switched off.
        let own = match syn.destination {
            IpAddr::V4(_) => behind("192.0.2.53", 32, 54),
            IpAddr::V6(_) => behind("2001:db8::53", 128, 54),
        };
        bench.program.set_protected(&[own]).expect("there is room");
        bench.expect(&syn.frame(), Reason::PassProtocol);
        other_port.check_closed(&bench.sent(&other_port.frame(), Reason::ForwardCookie));
        tell(&mut bench, protect::OFF);
        bench.expect(&other_port.frame(), Reason::PassProtocol);
        tell(&mut bench, protect::CALM);
        let networks = [behind("192.0.2.0", 26, 53), behind("2001:db8::", 32, 53)];
        bench
            .program
            .set_protected(&networks)
            .expect("there is room");
    }
}

/// Hosts in a VLAN are apart from others: the answer has the tag of the SYN.
#[test]
fn hosts_in_a_vlan_are_protected_there_and_nowhere_else() {
    let Some(mut bench) = protecting("hosts_in_a_vlan_are_protected") else {
        return;
    };
    let in_vlan = |address, len| {
        let (bits, mut behind, protected) = behind(address, len, 53);
        behind.vlan = 5_u16.to_be_bytes();
        (bits, behind, protected)
    };
    let networks = [in_vlan("192.0.2.0", 26), in_vlan("2001:db8::", 32)];
    bench
        .program
        .set_protected(&networks)
        .expect("there is room");
    for untagged in Syn::both() {
        bench.expect(&untagged.frame(), Reason::PassProtocol);
        let with = |tags: &[[u16; 2]]| Syn {
            tags: tags.to_vec(),
            ..untagged.clone()
        };
        for tags in [&[[0x8100, 6]][..], &[[0x8100, 5], [0x8100, 7]]] {
            bench.expect(&with(tags).frame(), Reason::PassProtocol);
        }
        // With a priority.
        let tagged = with(&[[0x8100, 0x6005]]);
        let cookie = cookie(&mut bench, &tagged);
        let next = tagged.sequence.wrapping_add(1);
        let proof = segment(&tagged, ACK, next, cookie.wrapping_add(1));
        let answer = bench.sent(&proof, Reason::ForwardProof);
        assert_eq!(answer[12..16], [0x81, 0, 0x60, 5]);
        bench.expect(&tagged.frame(), Reason::ForwardVerified);
    }
}

/// A SYN with unusual contents is still a SYN; what Linux does not take for one goes to the host.
#[test]
fn odd_syns_are_syns() {
    let Some(mut bench) = protecting("odd_syns_are_syns") else {
        return;
    };
    const SYN: u8 = 0x02;
    const URG: u8 = 0x20;
    const ECE: u8 = 0x40;
    const CWR: u8 = 0x80;
    for syn in Syn::both() {
        let tcp = syn.tcp();
        for more in [0, PSH, URG, ECE, ECE | CWR, PSH | URG | ECE | CWR] {
            let odd = syn.clone().resealed(|frame| frame[tcp + 13] = SYN | more);
            syn.check_closed(&bench.sent(&odd, Reason::ForwardCookie));
        }
        for flags in [SYN | FIN, SYN | FIN | PSH | URG] {
            let odd = syn.clone().resealed(|frame| frame[tcp + 13] = flags);
            bench.expect(&odd, Reason::DropForward);
        }
        for flags in [0, SYN | RST, SYN | ACK, FIN, FIN | PSH | URG] {
            let none = syn.clone().resealed(|frame| frame[tcp + 13] = flags);
            bench.expect(&none, Reason::PassProtocol);
        }
        for options in [
            vec![],
            vec![0; 40],
            vec![1; 40],
            vec![2, 0, 5, 180],
            vec![2, 255, 5, 180],
            // A Fast Open cookie request (RFC 7413).
            vec![34, 2, 1, 1],
        ] {
            let odd = Syn {
                options,
                ..syn.clone()
            };
            syn.check_closed(&bench.sent(&odd.frame(), Reason::ForwardCookie));
        }
    }
}

/// What Ethernet pads is no part of the packet.
const PADDED: &str = "a part without flags in a padded frame";
const CUT: &str = "a part without flags";

/// SYNs that cannot be answered: they would reach the host without a proof.
fn unanswerable() -> Vec<(Syn, Vec<u8>, &'static str)> {
    let mut all = Vec::new();
    for syn in Syn::both() {
        let tcp = syn.tcp();
        let mut fast_open = syn.clone();
        fast_open.data = b"query".to_vec();
        all.push((syn.clone(), fast_open.frame(), "data"));
        let short = syn.resealed(|frame| frame[tcp + 12] = 4 << 4);
        all.push((syn.clone(), short, "a header that is too short"));
        let mut padded = syn.frame();
        padded.resize(200, 0);
        all.push((syn.clone(), padded, "a long frame"));
    }
    let [v4, v6] = Syn::both();
    for words in [1, 10] {
        let mut options = v4.frame();
        options.splice(34..34, vec![1; 4 * words]);
        options[14] = 0x45 + words as u8;
        options[17] += 4 * words as u8;
        all.push((v4.clone(), options, "options of IPv4"));
    }
    let first = |frame: &mut [u8]| frame[20] = 0x20;
    let mut part = v4.resealed(first);
    all.push((v4.clone(), part.clone(), "the first part"));
    part.truncate(34 + 8);
    all.push((v4.clone(), part.clone(), CUT));
    // As long as its packet says, and padded with what could be flags (RFC 1858 section 3).
    part[17] = 28;
    part.resize(60, ACK);
    all.push((v4.clone(), part, PADDED));
    // Hop-by-hop and destination options, routing; a first fragment, and a fragment that is all; and RFC 4302's, with another
    // unit.
    let headers: [(u8, &[u8]); 6] = [
        (0, &[6, 0, 1, 4, 0, 0, 0, 0]),
        (60, &[6, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        (43, &[6, 0, 4, 0, 0, 0, 0, 0]),
        (44, &[6, 0, 0, 1, 0, 0, 0, 7]),
        (44, &[6, 0, 0, 0, 0, 0, 0, 7]),
        (51, &[6, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
    ];
    let behind = |headers: &[(u8, &[u8])]| {
        let mut frame = v6.frame();
        for (kind, header) in headers.iter().rev() {
            let mut header = header.to_vec();
            header[0] = frame[20];
            frame[20] = *kind;
            frame[19] += header.len() as u8;
            frame.splice(54..54, header);
        }
        frame
    };
    for header in headers {
        all.push((v6.clone(), behind(&[header]), "an extension header"));
    }
    all.push((v6.clone(), behind(&headers), "six of them"));
    all.push((v6.clone(), behind(&[headers[0]; 7]), "seven of them"));
    all
}

#[test]
fn a_syn_that_cannot_be_answered_is_dropped_until_the_client_is_verified() {
    let Some(mut bench) = protecting("a_syn_that_cannot_be_answered") else {
        return;
    };
    for (_, frame, what) in unanswerable() {
        let reason = bench.reason(&frame);
        assert_eq!(reason, Reason::DropForward, "{what}");
    }
    for syn in Syn::both() {
        let cookie = cookie(&mut bench, &syn);
        let next = syn.sequence.wrapping_add(1);
        let proof = segment(&syn, ACK, next, cookie.wrapping_add(1));
        bench.sent(&proof, Reason::ForwardProof);
    }
    for (_, frame, what) in unanswerable() {
        let reason = bench.reason(&frame);
        let is_deep = what == "seven of them";
        let expected = if is_deep {
            Reason::DropForward
        } else {
            Reason::ForwardVerified
        };
        assert_eq!(reason, expected, "{what}");
    }
}

/// Unusual segments that open nothing, or nothing protected, pass.
#[test]
fn odd_segments_of_others_pass() {
    let Some(mut bench) = protecting("odd_segments_of_others_pass") else {
        return;
    };
    const FLAGS_IN_TCP: usize = 13;
    for (syn, frame, what) in unanswerable() {
        if ["data", "a long frame", "a header that is too short"].contains(&what) {
            continue;
        }
        let is_deep = what == "seven of them";
        let tcp = frame.len() - (syn.frame().len() - syn.tcp());
        let mut passes = |frame: &[u8], change: &str| {
            let reason = bench.reason(frame);
            let expected = [Reason::PassIpv4Options, Reason::PassProtocol];
            assert!(expected.contains(&reason), "{what}, {change}: {reason:?}");
        };
        if !is_deep && !what.starts_with(CUT) {
            for flags in [ACK, ACK | PSH, RST, 0x12] {
                let mut other = frame.clone();
                other[tcp + FLAGS_IN_TCP] = flags;
                passes(&other, "other flags");
            }
            let mut other_port = frame.clone();
            other_port[tcp + 3] = 54;
            passes(&other_port, "another port");
        }
        if !is_deep {
            let mut other_mac = frame.clone();
            other_mac[5] ^= 0x40;
            passes(&other_mac, "another station");
        }
        let mut other_host = frame.clone();
        other_host[if syn.source.is_ipv4() { 33 } else { 39 }] ^= 0xc0;
        if !is_deep {
            passes(&other_host, "another host");
        }
    }
    // The rest after a first fragment, and packets that are no segments.
    let [v4, v6] = Syn::both();
    for at in [0x2001_u16, 0x0001, 0x1fff] {
        let later = v4.resealed(|frame| frame[20..22].copy_from_slice(&at.to_be_bytes()));
        bench.expect(&later, Reason::PassProtocol);
    }
    let mut later = v6.frame();
    later[20] = 44;
    later.splice(54..54, [6, 0, 0, 8, 0, 0, 0, 7]);
    bench.expect(&later, Reason::PassProtocol);
    for protocol in [1, 47, 50] {
        bench.expect(
            &v4.resealed(|frame| frame[23] = protocol),
            Reason::PassProtocol,
        );
        let mut other = v6.frame();
        other[20] = 60;
        other.splice(54..54, [protocol, 0, 1, 4, 0, 0, 0, 0]);
        bench.expect(&other, Reason::PassProtocol);
    }
    tell(&mut bench, protect::OFF);
    for (_, frame, what) in unanswerable() {
        let reason = bench.reason(&frame);
        assert!(!reason.name().starts_with("drop"), "{what}");
    }
}

#[test]
fn clients_are_asked_in_a_flood_alone_where_that_is_wanted() {
    let Some(mut bench) = protecting("clients_are_asked_in_a_flood_alone") else {
        return;
    };
    let networks = [behind("192.0.2.0", 26, 53), behind("2001:db8::", 32, 53)];
    let auto = networks.map(|(bits, behind, protected)| {
        let is_auto = 1;
        let protected = Protected {
            is_auto,
            ..protected
        };
        (bits, behind, protected)
    });
    for (wanted, is_auto) in [(&networks, false), (&auto, true)] {
        bench.program.set_protected(wanted).expect("there is room");
        for syn in Syn::both() {
            tell(&mut bench, protect::CALM);
            if is_auto {
                bench.expect(&syn.frame(), Reason::ForwardCalm);
            } else {
                cookie(&mut bench, &syn);
            }
            tell(&mut bench, protect::FLOOD);
            cookie(&mut bench, &syn);
        }
    }
}
