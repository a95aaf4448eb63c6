//! Hot names: conditions on a frame before its first byte is changed. Each test has an answer ready that would be given, and
//! one condition that fails.

use crate::bench::FRAME_LEN_MIN;
use crate::frames::{CLIENT_MAC, OUR_MAC, Query, flipped};
use crate::hot::{ONE, RD, Tiers, address, key, message, wire_name, with_message};
use xdnsd::os::xdp::{PrefixBits, Trie};
use xdnsd_abi::{Reason, trie, verdict};

const NAME: &str = "www.example.com";

/// Programs with the hot name, and a query for it of each family that is answered.
fn tiers(test: &str) -> Option<(Tiers, [Query; 2])> {
    let mut tiers = Tiers::new(test)?;
    tiers.keep(&key(&wire_name(NAME), 1, RD, &[]), ONE, &address(300));
    let queries =
        [Query::v4(), Query::v6()].map(|query| with_message(&query, message(NAME, 1, RD, &[])));
    for query in &queries {
        tiers.forward(&query.frame());
        assert!(tiers.ask(&query.frame()).is_ok());
    }
    Some((tiers, queries))
}

#[test]
fn what_was_damaged_is_not_answered() {
    let Some((mut tiers, queries)) = tiers("what_was_damaged_is_not_answered") else {
        return;
    };
    for query in &queries {
        let good = query.frame();
        for at in query.udp()..good.len() {
            // Lengths and the port decide before the checksum.
            if (query.udp() + 2..query.udp() + 6).contains(&at) {
                continue;
            }
            let damaged = flipped(good.clone(), at);
            tiers.bench.expect(&damaged, Reason::PassUdpChecksum);
        }
        if query.source.is_ipv4() {
            for at in [1, 4, 5, 8, 10, 11] {
                let damaged = flipped(good.clone(), query.ip() + at);
                tiers.bench.expect(&damaged, Reason::PassIpv4Checksum);
            }
        }
        assert!(tiers.ask(&good).is_ok(), "still hot");
    }
}

#[test]
fn what_is_to_another_station_or_address_is_not_answered() {
    let test = "what_is_to_another_station_or_address_is_not_answered";
    let Some((mut tiers, queries)) = tiers(test) else {
        return;
    };
    for query in &queries {
        let good = query.frame();
        assert_eq!((&good[..6], &good[6..12]), (&OUR_MAC[..], &CLIENT_MAC[..]));
        for at in 0..6 {
            // The first bit on the wire marks group addresses.
            let bit = if at == 0 { 2 } else { 1 };
            let mut other = good.clone();
            other[at] ^= bit;
            tiers.bench.expect(&other, Reason::PassOtherMac);
        }
        let v4 = query.source.is_ipv4();
        let (client, other) = if v4 {
            ("192.0.2.1", "192.0.2.54")
        } else {
            ("2001:db8::1", "2001:db8::54")
        };
        let foreign = with_message(&Query::between(client, other), query.message.clone());
        tiers.bench.expect(&foreign.frame(), Reason::PassForeign);
        assert!(tiers.ask(&good).is_ok(), "still hot");
    }
}

#[test]
fn who_is_denied_is_not_answered() {
    let Some((mut tiers, [query, other])) = tiers("who_is_denied_is_not_answered") else {
        return;
    };
    let mut trie = Trie::new().expect("the kernel has tries");
    let bits = PrefixBits {
        addr: "::ffff:192.0.2.0"
            .parse::<std::net::Ipv6Addr>()
            .expect("an address")
            .octets(),
        len: 120,
    };
    trie.insert(bits, verdict::DENY.into())
        .expect("there is room");
    let program = &mut tiers.bench.program;
    program
        .share_trie(trie::DENIED, &trie)
        .expect("it takes it");
    program
        .set_tries(trie::bit(trie::DENIED))
        .expect("it takes it");
    tiers.bench.expect(&query.frame(), Reason::DropDenied);
    assert!(tiers.ask(&other.frame()).is_ok(), "another one");
    tiers.bench.program.set_tries(0).expect("it takes it");
    assert!(tiers.ask(&query.frame()).is_ok(), "not any more");
}

#[test]
fn a_fragment_or_a_packet_with_options_is_not_answered() {
    let test = "a_fragment_or_a_packet_with_options_is_not_answered";
    let Some((mut tiers, [query, _])) = tiers(test) else {
        return;
    };
    let first = query.resealed(|frame| frame[14 + 6] |= 0x20);
    tiers.bench.expect(&first, Reason::PassFragment);
    let options = query.with_ipv4_options();
    tiers.bench.expect(&options, Reason::PassIpv4Options);
    for cut in FRAME_LEN_MIN..query.frame().len() {
        let cut = &query.frame()[..cut];
        assert_ne!(tiers.bench.reason(cut), Reason::Answered);
    }
}
