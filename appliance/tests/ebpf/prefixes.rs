//! Denied and allowed prefixes: which packets are dropped, whatever they carry, and that packets to others pass; clients whose
//! queries alone are dropped.

use crate::bench::{Bench, listen};
use crate::frames::Query;
use std::net::IpAddr;
use xdnsd::os::xdp::{PrefixBits, Trie};
use xdnsd_abi::{PREFIXES_MAX, Reason, trie, verdict};

const VLAN: u16 = 0x8100;

/// `192.0.2.0/24` as a key of the trie.
fn bits(text: &str) -> PrefixBits {
    let (address, len) = text.split_once('/').expect("a prefix");
    let len: u8 = len.parse().expect("a length");
    match address.parse().expect("an address") {
        IpAddr::V4(v4) => PrefixBits {
            addr: v4.to_ipv6_mapped().octets(),
            len: 96 + len,
        },
        IpAddr::V6(v6) => PrefixBits {
            addr: v6.octets(),
            len,
        },
    }
}

/// A trie with these prefixes.
fn trie_of(rules: &[(&str, u8)]) -> Trie {
    let mut trie = Trie::new().expect("the kernel has tries");
    for (prefix, verdict) in rules {
        let set = trie.insert(bits(prefix), (*verdict).into());
        set.expect("there is room");
    }
    trie
}

/// A bench with these denied prefixes.
fn bench_with(test: &str, rules: &[(&str, u8)]) -> Option<(Bench, Trie)> {
    let mut bench = Bench::new(test)?;
    let trie = trie_of(rules);
    bench
        .program
        .share_trie(trie::DENIED, &trie)
        .expect("it takes it");
    bench
        .program
        .set_tries(trie::bit(trie::DENIED))
        .expect("it takes it");
    Some((bench, trie))
}

fn from(source: &str) -> Query {
    let is_v4 = source.contains('.');
    Query::between(source, if is_v4 { "192.0.2.53" } else { "2001:db8::53" })
}

#[test]
fn the_longest_prefix_decides() {
    let rules = [
        ("198.51.0.0/16", verdict::DENY),
        ("198.51.100.0/24", verdict::ALLOW),
        ("198.51.100.128/25", verdict::DENY),
        ("198.51.100.129/32", verdict::ALLOW),
        ("2001:db8:1::/48", verdict::DENY),
        ("2001:db8:1:1::/64", verdict::ALLOW),
        ("2001:db8:1:1::9/128", verdict::DENY),
    ];
    let Some((mut bench, _trie)) = bench_with("the_longest_prefix_decides", &rules) else {
        return;
    };
    for (source, reason) in [
        ("198.50.255.255", Reason::Redirected),
        ("198.51.0.0", Reason::DropDenied),
        ("198.51.255.255", Reason::DropDenied),
        ("198.52.0.0", Reason::Redirected),
        ("198.51.100.0", Reason::Redirected),
        ("198.51.100.127", Reason::Redirected),
        ("198.51.100.128", Reason::DropDenied),
        ("198.51.100.129", Reason::Redirected),
        ("198.51.101.0", Reason::DropDenied),
        ("2001:db8::1", Reason::Redirected),
        ("2001:db8:1::1", Reason::DropDenied),
        ("2001:db8:1:1::1", Reason::Redirected),
        ("2001:db8:1:1::9", Reason::DropDenied),
        ("2001:db8:2::1", Reason::Redirected),
    ] {
        bench.expect(&from(source).frame(), reason);
    }
}

/// In the shared trie a prefix of one family matches no address of the other.
#[test]
fn all_of_one_family_is_nothing_of_the_other() {
    let name = "all_of_one_family_is_nothing_of_the_other";
    let (v4, v6) = (Query::v4().frame(), Query::v6().frame());
    for (prefix, verdicts) in [
        ("0.0.0.0/0", [Reason::DropDenied, Reason::Redirected]),
        ("::/0", [Reason::Redirected, Reason::DropDenied]),
    ] {
        let Some((mut bench, mut trie)) = bench_with(name, &[(prefix, verdict::DENY)]) else {
            return;
        };
        bench.expect(&v4, verdicts[0]);
        bench.expect(&v6, verdicts[1]);
        assert_eq!(trie.entries().expect("readable").len(), 1);
        trie.remove(bits(prefix)).expect("it was there");
        bench.expect(&v4, Reason::Redirected);
        bench.expect(&v6, Reason::Redirected);
        assert_eq!(trie.entries().expect("readable"), []);
    }
}

#[test]
fn every_packet_to_us_is_dropped_whatever_it_carries_and_others_are_left_alone() {
    let name = "every_packet_to_us_is_dropped_whatever_it_carries_and_others_are_left_alone";
    let rules = [
        ("192.0.2.1/32", verdict::DENY),
        ("2001:db8::/64", verdict::DENY),
    ];
    let Some((mut bench, trie)) = bench_with(name, &rules) else {
        return;
    };
    for query in [Query::v4(), Query::v6()] {
        let address = query.destination.to_string();
        bench.listen(&[(listen(&address, 0, 0), 0), (listen(&address, 5, 0), 0)]);
        bench.expect(&query.frame(), Reason::DropDenied);
        bench.expect(
            &query.clone().tagged(&[[VLAN, 5]]).frame(),
            Reason::DropDenied,
        );
        // A priority alone is no VLAN.
        for tags in [&[[VLAN, 0xe000]][..], &[[VLAN, 0xe000], [VLAN, 5]]] {
            bench.expect(&query.clone().tagged(tags).frame(), Reason::DropDenied);
        }
        // Another port, another protocol, a fragment, a wrong checksum.
        let mut elsewhere = query.clone();
        elsewhere.destination_port = 22;
        bench.expect(&elsewhere.frame(), Reason::DropDenied);
        let protocol = query.ip() + if query.source.is_ipv4() { 9 } else { 6 };
        for other in [1, 6, 44, 58] {
            bench.expect(
                &query.resealed(|frame| frame[protocol] = other),
                Reason::DropDenied,
            );
        }
        let mut damaged = query.frame();
        *damaged.last_mut().expect("it has bytes") ^= 1;
        bench.expect(&damaged, Reason::DropDenied);
        // To another station, VLAN or host.
        let mut other_mac = query.frame();
        other_mac[5] ^= 0x40;
        bench.expect(&other_mac, Reason::PassOtherMac);
        bench.expect(
            &query.clone().tagged(&[[VLAN, 6]]).frame(),
            Reason::PassForeign,
        );
        bench.listen(&[]);
        bench.expect(&query.frame(), Reason::PassForeign);
        bench.listen(&[(listen(&address, 0, 0), 0)]);
        bench.program.set_tries(0).expect("it takes it");
        bench.expect(&query.frame(), Reason::Redirected);
        bench
            .program
            .set_tries(trie::bit(trie::DENIED))
            .expect("it takes it");
    }
    bench.expect(&Query::v4().with_ipv4_options(), Reason::PassIpv4Options);
    bench.listen(&[(listen("192.0.2.53", 0, 0), 0)]);
    bench.expect(&Query::v4().with_ipv4_options(), Reason::DropDenied);
    // Another program uses the same trie.
    let mut second = Bench::single(name).expect("root");
    second
        .program
        .share_trie(trie::DENIED, &trie)
        .expect("it takes it");
    second.expect(&Query::v4().frame(), Reason::Redirected);
    second
        .program
        .set_tries(trie::bit(trie::DENIED))
        .expect("it takes it");
    second.expect(&Query::v4().frame(), Reason::DropDenied);
    let _trie = trie;
}

/// The trie has room for the promised number, and a full one can still be changed (Linux before 6.13 needs room for that).
#[test]
fn ten_thousand_prefixes_fit_and_can_be_changed() {
    let name = "ten_thousand_prefixes_fit_and_can_be_changed";
    let Some((mut bench, mut trie)) = bench_with(name, &[]) else {
        return;
    };
    let foreign = Query::between("192.0.2.1", "8.8.8.8").frame();
    let query = Query::v4().frame();
    bench.program.set_tries(0).expect("it takes it");
    let [without, foreign_without] = [&query, &foreign].map(|frame| bench.measure(frame));
    bench
        .program
        .set_tries(trie::bit(trie::DENIED))
        .expect("it takes it");
    let prefix = |number: u32| PrefixBits {
        addr: std::net::Ipv4Addr::from_bits(number.wrapping_mul(0x9e37_79b1))
            .to_ipv6_mapped()
            .octets(),
        len: 128,
    };
    for number in 1..=PREFIXES_MAX {
        let set = trie.insert(prefix(number), verdict::DENY.into());
        set.unwrap_or_else(|error| panic!("{number}: {error}"));
    }
    assert_eq!(
        trie.entries().expect("readable").len(),
        PREFIXES_MAX as usize
    );
    let [with, foreign_with] = [&query, &foreign].map(|frame| bench.measure(frame));
    eprintln!(
        "a query {without} ns without prefixes, {with} with {PREFIXES_MAX}; what is forwarded {foreign_without}, {foreign_with}"
    );
    for number in [1, PREFIXES_MAX / 2, PREFIXES_MAX] {
        let set = trie.insert(prefix(number), verdict::ALLOW.into());
        set.unwrap_or_else(|error| panic!("{number}: {error}"));
    }
    bench.expect(&query, Reason::Redirected);
}

/// Nothing but a query to us is dropped, and what cannot be told from one is user space's.
#[test]
fn of_a_client_without_access_queries_alone_are_dropped() {
    let Some(mut bench) = Bench::new("of_a_client_without_access_queries_alone_are_dropped") else {
        return;
    };
    let clients = trie_of(&[
        ("192.0.2.0/24", verdict::DENY),
        ("192.0.2.7/32", verdict::ALLOW),
        ("2001:db8::/64", verdict::DENY),
        ("2001:db8::7/128", verdict::ALLOW),
    ]);
    let share = bench.program.share_trie(trie::ACCESS, &clients);
    share.expect("it takes it");
    let none = trie_of(&[]);
    bench
        .program
        .share_trie(trie::DENIED, &none)
        .expect("it takes it");
    let both = trie::bit(trie::DENIED) | trie::bit(trie::ACCESS);
    for (query, allowed) in [(Query::v4(), "192.0.2.7"), (Query::v6(), "2001:db8::7")] {
        let address = query.destination.to_string();
        bench.listen(&[(listen(&address, 0, 0), 0), (listen(&address, 5, 0), 0)]);
        for tries in [trie::bit(trie::ACCESS), both] {
            bench.program.set_tries(tries).expect("it takes it");
            bench.expect(&query.frame(), Reason::DropAccess);
            let allowed = Query::between(allowed, &address);
            bench.expect(&allowed.frame(), Reason::Redirected);
            for tags in [
                &[[VLAN, 5]][..],
                &[[VLAN, 0xe000]],
                &[[VLAN, 0xe000], [VLAN, 5]],
            ] {
                bench.expect(&query.clone().tagged(tags).frame(), Reason::DropAccess);
            }
            // Damage does not matter.
            let mut damaged = query.frame();
            *damaged.last_mut().expect("it has bytes") ^= 1;
            bench.expect(&damaged, Reason::DropAccess);
            // Another port, another protocol, another station, another VLAN.
            let mut elsewhere = query.clone();
            elsewhere.destination_port = 22;
            bench.expect(&elsewhere.frame(), Reason::PassForeign);
            let protocol = query.ip() + if query.source.is_ipv4() { 9 } else { 6 };
            let other = query.resealed(|frame| frame[protocol] = 58);
            bench.expect(&other, Reason::PassProtocol);
            let mut other_mac = query.frame();
            other_mac[5] ^= 0x40;
            bench.expect(&other_mac, Reason::PassOtherMac);
            let other_vlan = query.clone().tagged(&[[VLAN, 6]]).frame();
            bench.expect(&other_vlan, Reason::PassForeign);
        }
        // A prefix that denies all of its packets is asked first.
        let denied = trie_of(&[
            ("192.0.2.0/24", verdict::DENY),
            ("2001:db8::/64", verdict::DENY),
        ]);
        let share = bench.program.share_trie(trie::DENIED, &denied);
        share.expect("it takes it");
        bench.expect(&query.frame(), Reason::DropDenied);
        bench.program.set_tries(0).expect("it takes it");
        bench.expect(&query.frame(), Reason::Redirected);
        bench
            .program
            .share_trie(trie::DENIED, &none)
            .expect("it takes it");
    }
    bench.program.set_tries(both).expect("it takes it");
    bench.listen(&[(listen("192.0.2.53", 0, 0), 0)]);
    bench.expect(&Query::v4().with_ipv4_options(), Reason::PassIpv4Options);
}
