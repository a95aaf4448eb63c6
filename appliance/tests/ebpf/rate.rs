//! Limits per client: the fate of excess queries, and that the program's answers equal those of user space.

use crate::bench::{Bench, listen, monotonic_ns};
use crate::frames::{CLIENT_MAC, OUR_MAC, Query};
use crate::hot::Tiers;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use xdnsd::os::xdp::AccountsMap;
use xdnsd_abi::rate::{
    ClientPrefix, ELEMENT_WORDS, NETWORKS_AT, NETWORKS_MAX, Rate, WORDS, account, control, element,
    network,
};
use xdnsd_abi::{Reason, hash};
use xdnsd_core::policy::on_link::Network;
use xdnsd_core::rate::{Accounts, Limit, RateKind, RateLimits, unit, words};
use xdnsd_core::time::Instant;

const RULES: RateLimits = RateLimits {
    // One is earned back in a second, which even a busy machine does not spend between two frames.
    queries: Rate::new(1, 40),
    misses: Rate::new(10, 4),
    slips: Rate::new(2, 1),
    newcomers: 0,
    answer_size: 0,
};
const KEY: hash::HashKey = *b"sixteen byte key";
const SECRET: hash::HashKey = *b"the secret of it";
const VLAN: u16 = 0x8100;

/// Programs with the accounts that user space keeps.
struct Limited {
    bench: Bench,
    table: &'static [AtomicU64; WORDS],
    accounts: AccountsMap,
}

impl Limited {
    fn new(test: &str) -> Option<Self> {
        Bench::new(test).map(Self::of)
    }

    fn of(mut bench: Bench) -> Self {
        let (accounts, words) = AccountsMap::new().expect("the kernel has arrays");
        let table = words.leak().try_into().expect("as many as there are");
        let limited = bench.program.set_limits(Some(&accounts));
        limited.unwrap_or_else(|error| panic!("{error}"));
        let told = bench.program.set_limits_answer(true);
        told.expect("it takes it");
        let limited = Self {
            bench,
            table,
            accounts,
        };
        limited.show(control::QUERY_INTERVAL, RULES.queries.interval_ns);
        limited.show(control::QUERY_DEPTH, RULES.queries.depth_ns);
        limited.show(control::SLIP_INTERVAL, RULES.slips.interval_ns);
        limited.show(control::SLIP_DEPTH, RULES.slips.depth_ns);
        for (at, key) in [(control::KEY, KEY), (control::SECRETS + 2, SECRET)] {
            let (halves, _) = key.as_chunks();
            limited.show(at, u64::from_ne_bytes(halves[0]));
            limited.show(at + 1, u64::from_ne_bytes(halves[1]));
        }
        limited
    }

    fn show(&self, at: usize, word: u64) {
        self.table[at].store(word, Ordering::Relaxed);
    }

    /// Charges a client like a worker, by the program's clock. Returns how often it was within its limit.
    fn charge(&self, client: IpAddr, is_on_link: bool, count: usize) -> usize {
        let now = Instant::from_millis(monotonic_ns() / 1_000_000);
        let client = unit(client, is_on_link);
        let charged = || Accounts::view(self.table).charge(client, RateKind::Query, &RULES, now);
        (0..count).filter(|_| charged() == Limit::Within).count()
    }

    /// Charges the client until its limit is used up, including answers with TC.
    fn exhaust(&self, client: IpAddr, is_on_link: bool) {
        assert!(self.charge(client, is_on_link, 1_000) <= 50);
        let tag = self.tag(client, is_on_link);
        let start = element(tag) as usize * ELEMENT_WORDS;
        let set = &self.table[start..start + ELEMENT_WORDS];
        let (accounts, _) = set.as_chunks::<{ account::COUNT }>();
        let is_his = |account: &&[AtomicU64; _]| account[0].load(Ordering::Relaxed) == tag;
        let account = accounts.iter().find(is_his).expect("it was charged");
        account[account::SLIPS].store(0, Ordering::Relaxed);
    }

    fn tag(&self, client: IpAddr, is_on_link: bool) -> u64 {
        let unit = match is_on_link {
            true => ClientPrefix::whole(words(client)),
            false => ClientPrefix::prefix(words(client)),
        };
        unit.tag(&KEY)
    }
}

/// A stub's query with DO and these options.
fn with_edns(query: &Query, options: &[u8]) -> Query {
    let mut query = query.clone();
    query.message[11] = 1;
    query.message.extend([0, 0, 41, 16, 0, 0, 0, 0x80, 0]);
    let len = u16::try_from(options.len()).expect("short");
    query.message.extend(len.to_be_bytes());
    query.message.extend(options);
    query
}

/// Answer of user space: the question and TC, with our OPT record, and no options.
fn slipped(query: &Query, has_edns: bool) -> Vec<u8> {
    let mut message = query.message.clone();
    message.truncate(12 + 17 + 4);
    message[2..4].copy_from_slice(&[0x83, 0x80]);
    message[11] = u8::from(has_edns);
    if has_edns {
        message.extend([0, 0, 41, 0x04, 0xd0, 0, 0, 0x80, 0, 0, 0]);
    }
    let answer = Query {
        source: query.destination,
        destination: query.source,
        source_port: query.destination_port,
        destination_port: query.source_port,
        message,
        tags: query.tags.clone(),
    };
    answer.resealed(|frame| {
        frame[..6].copy_from_slice(&CLIENT_MAC);
        frame[6..12].copy_from_slice(&OUR_MAC);
        let ip = answer.ip();
        if query.source.is_ipv4() {
            // Don't fragment.
            frame[ip + 6] = 0x40;
        }
    })
}

fn queries() -> Vec<Query> {
    let queries = [Query::v4(), Query::v6()];
    let tagged = queries.clone().map(|query| query.tagged(&[[VLAN, 5]]));
    let twice = queries
        .clone()
        .map(|query| query.tagged(&[[0x88a8, 6], [VLAN, 5]]));
    [queries, tagged, twice].concat()
}

#[test]
fn who_has_had_too_much_is_told_to_come_over_tcp_and_then_dropped() {
    let name = "who_has_had_too_much_is_told_to_come_over_tcp_and_then_dropped";
    let Some(mut limited) = Limited::new(name) else {
        return;
    };
    for query in queries() {
        limited.bench.listen_for(&query);
        for has_edns in [false, true] {
            let asked = match has_edns {
                // NSID.
                true => with_edns(&query, &[0, 3, 0, 0]),
                false => query.clone(),
            };
            let frame = asked.frame();
            for word in &limited.table[ELEMENT_WORDS..] {
                word.store(0, Ordering::Relaxed);
            }
            limited.bench.expect(&frame, Reason::Redirected);
            assert_eq!(limited.charge(query.source, false, 30), 30);
            limited.bench.expect(&frame, Reason::Redirected);
            limited.exhaust(query.source, false);
            for _ in 0..2 {
                let answer = limited.bench.sent(&frame, Reason::RateSlipped);
                assert_eq!(
                    answer,
                    slipped(&query, has_edns),
                    "{} {:?}",
                    query.source,
                    query.tags
                );
            }
            limited.bench.expect(&frame, Reason::DropRate);
        }
    }
    // If answers do not leave, user space gives them: first, and then it drops as well.
    let query = Query::v4();
    limited.bench.listen_for(&query);
    limited.exhaust(query.source, false);
    let told = limited.bench.program.set_limits_answer(false);
    told.expect("it takes it");
    for _ in 0..3 {
        limited.bench.expect(&query.frame(), Reason::Redirected);
    }
    // Messages without a question are dropped, and so are those too long to be parsed.
    for message in [vec![0; 12], [&query.message[..], &[0; 256]].concat()] {
        let odd = Query {
            message,
            ..query.clone()
        };
        limited.bench.expect(&odd.frame(), Reason::DropRate);
    }
    // Others are not affected, nor is anybody when limits are off.
    let other = Query::between("198.51.100.1", "192.0.2.53");
    limited.bench.expect(&other.frame(), Reason::Redirected);
    let told = limited.bench.program.set_limits_answer(true);
    told.expect("it takes it");
    let answer = limited.bench.sent(&query.frame(), Reason::RateSlipped);
    assert_eq!(answer, slipped(&query, false));
    limited.bench.program.set_limits(None).expect("it takes it");
    limited.bench.expect(&query.frame(), Reason::Redirected);
    let again = limited.bench.program.set_limits(Some(&limited.accounts));
    again.expect("it takes it");
    limited.show(control::QUERY_DEPTH, 0);
    limited.bench.expect(&query.frame(), Reason::Redirected);
}

#[test]
fn a_neighbour_counts_for_itself_and_others_for_their_prefix() {
    let name = "a_neighbour_counts_for_itself_and_others_for_their_prefix";
    let Some(mut limited) = Limited::new(name) else {
        return;
    };
    let networks = [("192.0.2.0", 25), ("2001:db8::", 64)];
    for (place, (address, length)) in networks.into_iter().enumerate() {
        let network = Network::of(address.parse().expect("an address"), length);
        let [high, low] = words(network.first());
        let mask = u128::MAX << (if network.first().is_ipv4() { 32 } else { 128 } - length);
        let [high_mask, low_mask] = [mask >> 64, mask].map(|half| (half as u64).to_be());
        let start = NETWORKS_AT as usize * ELEMENT_WORDS + place * 4;
        for (at, word) in (start..).zip([high, low, high_mask, low_mask]) {
            limited.show(at, word);
        }
    }
    limited.show(control::NETWORKS, 2);
    for (one, other, is_on_link) in [
        ("192.0.2.7", "192.0.2.8", true),
        ("2001:db8::7", "2001:db8::8", true),
        ("fe80::7", "fe80::8", true),
        ("192.0.2.200", "192.0.2.201", false),
        ("2001:db8:0:17::7", "2001:db8:0:18::8", false),
    ] {
        let to = if one.contains('.') {
            "192.0.2.53"
        } else {
            "2001:db8::53"
        };
        let [one, other] = [one, other].map(|source| Query::between(source, to));
        limited.bench.listen(&[(listen(to, 0, 0), 0)]);
        limited.exhaust(one.source, is_on_link);
        limited.bench.sent(&one.frame(), Reason::RateSlipped);
        match is_on_link {
            true => limited.bench.expect(&other.frame(), Reason::Redirected),
            false => drop(limited.bench.sent(&other.frame(), Reason::RateSlipped)),
        }
    }
    // More networks than it knows: only user space knows neighbours then.
    limited.show(control::NETWORKS, NETWORKS_MAX as u64 + 1);
    let query = Query::between("192.0.2.200", "192.0.2.53");
    limited.bench.listen_for(&query);
    limited.bench.expect(&query.frame(), Reason::Redirected);
}

/// Only a cookie from the forwarder is valid in the kernel.
#[test]
fn a_dns_cookie_of_ours_is_exempt() {
    let Some(mut limited) = Limited::new("a_dns_cookie_of_ours_is_exempt") else {
        return;
    };
    let wall_secs: u64 = 1_800_000_000;
    let secs = monotonic_ns() / 1_000_000_000;
    limited.show(control::WALL, wall_secs.wrapping_sub(secs));
    for query in [Query::v4(), Query::v6()] {
        limited.bench.listen_for(&query);
        let made = |secs: u64, client: IpAddr| {
            let mut cookie = b"a client\x01\0\0\0".to_vec();
            cookie.extend((secs as u32).to_be_bytes());
            let (halves, _) = cookie.as_chunks();
            let [first, second] = [0, 1].map(|at| u64::from_le_bytes(halves[at]));
            let made = match client {
                IpAddr::V4(v4) => {
                    let v4 = u32::from_le_bytes(v4.octets());
                    hash::siphash24([first, second], u64::from(v4) | 20 << 56, &SECRET)
                }
                IpAddr::V6(_) => {
                    let [high, low] =
                        words(client).map(|half| u64::from_le_bytes(half.to_ne_bytes()));
                    hash::siphash24([first, second, high, low], 32 << 56, &SECRET)
                }
            };
            cookie.extend(made.to_le_bytes());
            [&[0, 3, 0, 0, 0, 10, 0, 24][..], &cookie].concat()
        };
        let with = |cookie: &[u8]| with_edns(&query, cookie).frame();
        let good = made(wall_secs - 60, query.source);
        limited.exhaust(query.source, false);
        limited.show(control::HAS_COOKIES, 0);
        limited.bench.sent(&with(&good), Reason::RateSlipped);
        limited.show(control::HAS_COOKIES, 1);
        for _ in 0..5 {
            limited.bench.expect(&with(&good), Reason::Redirected);
        }
        let old = made(wall_secs - 3_700, query.source);
        let ahead = made(wall_secs + 400, query.source);
        let other = made(wall_secs, "192.0.2.99".parse().expect("an address"));
        let mut forged = good.clone();
        forged[31] ^= 1;
        for bad in [old, ahead, other, forged] {
            limited.exhaust(query.source, false);
            limited.bench.sent(&with(&bad), Reason::RateSlipped);
        }
    }
}

/// With the program for hot names it is another one.
#[test]
fn it_stands_in_front_of_hot_names() {
    let Some(bench) = Bench::hot("it_stands_in_front_of_hot_names") else {
        return;
    };
    let mut limited = Limited::of(bench);
    for query in [Query::v4(), Query::v6()] {
        limited.bench.listen_for(&query);
        limited.bench.expect(&query.frame(), Reason::Redirected);
        limited.exhaust(query.source, false);
        let answer = limited.bench.sent(&query.frame(), Reason::RateSlipped);
        assert_eq!(answer, slipped(&query, false));
    }
}

/// Each processor has a count of its own.
fn stay_on_one_processor() {
    let this = Pid::from_raw(0);
    let allowed = sched_getaffinity(this).expect("it runs somewhere");
    let is_allowed = |core: &usize| allowed.is_set(*core).unwrap_or(false);
    let core = (0..CpuSet::count()).find(is_allowed).expect("there is one");
    let mut set = CpuSet::new();
    set.set(core).expect("it fits");
    sched_setaffinity(this, &set).expect("it is allowed");
}

/// Clients that no worker has answered lately share one limit, whether a name is hot or not.
#[test]
fn new_clients_are_too_many_together() {
    let Some(tiers) = Tiers::new("new_clients_are_too_many_together") else {
        return;
    };
    stay_on_one_processor();
    let (bench, _program, hot) = tiers.into_programs();
    let mut limited = Limited::of(bench);
    for query in queries() {
        limited.bench.listen_for(&query);
        limited.show(control::NEWCOMERS, 0);
        let frame = query.frame();
        for _ in 0..3 {
            limited.bench.expect(&frame, Reason::Redirected);
        }
    }
    // One per hour, which is the first one. Neighbours do not count.
    limited.show(control::NEWCOMERS, 3_600_000_000_000);
    let query = Query::v4();
    limited.bench.listen_for(&query);
    limited.bench.expect(&query.frame(), Reason::Redirected);
    let answer = limited.bench.sent(&query.frame(), Reason::RateSlipped);
    assert_eq!(answer, slipped(&query, false));
    for query in queries() {
        limited.bench.listen_for(&query);
        let frame = with_edns(&query, &[0, 3, 0, 0]).frame();
        limited.bench.expect(&frame, Reason::DropNewcomer);
    }
    let query = Query::v6();
    limited.bench.listen_for(&query);
    hot.admit(Tiers::valid(&hot), query.source, || false);
    for _ in 0..3 {
        limited.bench.expect(&query.frame(), Reason::Redirected);
    }
}

/// Cost: none if limits are off.
#[test]
fn what_limits_cost_a_query() {
    let Some(mut limited) = Limited::new("what_limits_cost_a_query") else {
        return;
    };
    let query = Query::v4();
    limited.bench.listen_for(&query);
    limited.charge(query.source, false, 1);
    let on = limited.bench.measure(&query.frame());
    for at in 0..NETWORKS_MAX * network::COUNT {
        limited.show(NETWORKS_AT as usize * ELEMENT_WORDS + at, u64::MAX);
    }
    limited.show(control::NETWORKS, NETWORKS_MAX as u64);
    let networks = limited.bench.measure(&query.frame());
    limited.show(control::NETWORKS, 0);
    limited.exhaust(query.source, false);
    let told = limited.bench.program.set_limits_answer(false);
    told.expect("it takes it");
    limited.show(control::SLIP_DEPTH, 0);
    let dropped = limited.bench.measure(&query.frame());
    limited.bench.program.set_limits(None).expect("it takes it");
    let off = limited.bench.measure(&query.frame());
    eprintln!(
        "a query {off} ns without limits, {on} with them, {networks} beside {NETWORKS_MAX} networks; one that is too much {dropped}"
    );
}
