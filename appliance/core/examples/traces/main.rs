//! How often the cache answers, on traces that are made here: `cargo run --release -p xdnsd-core --example traces`.
//!
//! Beside the shards stand three models: the cache as it was before it had an admission (CLOCK in the same sets), LRU over the
//! whole capacity, and Belady's limit: whoever knows the future keeps what is asked for soonest, and need not keep what came. An
//! entry that has expired is a miss for all of them. What is printed are answers from the cache in percent of the requests that
//! are judged: those of a flood or a scan itself are not. `between` says how far the cache is from CLOCK towards Belady.
//!
//! The traces, all from one seed:
//!
//! - **Zipf** 0.9 and 1.1 over 100,000 names, 1,000 requests a second, an hour's TTL.
//! - **A household's day**: 25 devices ask for six names of their own each, every 20 seconds to 15 minutes. Four people, of whom
//!   each is there for six hours between 7 and 23 o'clock, open a page every 40 seconds on average: a site (Zipf 1.0 over 2,000),
//!   12 names of third parties (Zipf 1.0 over 3,000), two that nobody asks for again; every third name without AAAA, which is
//!   asked for too. TTLs of 60 seconds to an hour. The second time with 512 entries, as a small router is set.
//! - **Loop** over 9,000 names, a tenth more than there are slots.
//! - **Scan**: Zipf 1.1 over 5,000 names at 200 a second; every ten seconds somebody asks for 3,000 names once.
//! - **Floods**: 200 names are asked for five times a second each; after ten seconds 20,000 random names a second come, which
//!   do not exist, or do (a wildcard), or are 12,000, again and again. A household (Zipf 0.9 over 10,000 at 200 a second) under
//!   the same, from a minute on.

mod models;
#[path = "../../src/testing.rs"]
#[expect(dead_code, reason = "the tests of the crate want more of it")]
mod testing;

use models::{Belady, Cache, Clock, Lru, Shards};
use testing::Random;

/// Asks for one name.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// When, in milliseconds.
    at: u64,
    /// Number of the name.
    name: u32,
    /// TTL of its answer.
    ttl_secs: u32,
    /// What its answer says.
    says: Says,
    /// It counts.
    is_judged: bool,
}

/// What an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    /// Addresses.
    Addresses,
    /// The name has none of this type.
    NoData,
    /// There is no such name.
    NoName,
}

/// Names of floods and scans begin here, so that they are nobody else's.
const STRANGERS: u32 = 1 << 24;

fn main() {
    println!(
        "{:44} {:>9} {:>7} {:>7} {:>7} {:>7} {:>8}",
        "trace", "requests", "CLOCK", "LRU", "xdnsd", "Belady", "between"
    );
    let mut random = Random::new(14);
    let zipf =
        |exponent, random: &mut Random| steady(&Zipf::new(100_000, exponent), 1_000, 1_000, random);
    show("Zipf 0.9", usize::MAX, &zipf(0.9, &mut random));
    show("Zipf 1.1", usize::MAX, &zipf(1.1, &mut random));
    let day = household(&mut random);
    show("a household's day", usize::MAX, &day);
    show("a household's day, 512 entries", 512, &day);
    show("loop", usize::MAX, &lap());
    show("scan", usize::MAX, &scan(&mut random));
    for (what, says) in [
        ("that do not exist", Says::NoName),
        ("by a wildcard", Says::Addresses),
    ] {
        let flood = flood(&mut random, says);
        show(
            &format!("200 names, flood of names {what}"),
            usize::MAX,
            &flood,
        );
        let flood = flooded_household(&mut random, says);
        show(
            &format!("household, flood of names {what}"),
            usize::MAX,
            &flood,
        );
    }
    show(
        "200 names, a loop of 12,000",
        usize::MAX,
        &flooding_loop(&mut random),
    );
}

/// Runs all caches of so many entries over a trace, and prints the line.
fn show(what: &str, entries: usize, trace: &[Request]) {
    let judged = trace.iter().filter(|request| request.is_judged).count();
    let ratio = |cache: &mut dyn Cache| {
        let hits = trace
            .iter()
            .filter(|request| cache.ask(request) & request.is_judged)
            .count();
        hits as f64 * 100.0 / judged as f64
    };
    let clock = ratio(&mut Clock::new(entries));
    let lru = ratio(&mut Lru::new(entries));
    let ours = ratio(&mut Shards::new(entries));
    let belady = ratio(&mut Belady::new(entries, trace));
    let between = (ours - clock) / (belady - clock);
    let between = if belady - clock < 0.05 {
        String::from("-")
    } else {
        format!("{between:.2}")
    };
    println!(
        "{what:44} {judged:>9} {clock:>7.2} {lru:>7.2} {ours:>7.2} {belady:>7.2} {between:>8}"
    );
}

/// Numbers from 0 on, of which the first is drawn most often.
struct Zipf {
    sums: Vec<f64>,
}

impl Zipf {
    fn new(count: usize, exponent: f64) -> Self {
        let mut sum = 0.0;
        let sums = (1..=count).map(|rank| {
            sum += (rank as f64).powf(-exponent);
            sum
        });
        Self {
            sums: sums.collect(),
        }
    }

    fn draw(&self, random: &mut Random) -> u32 {
        let sum = self.sums.last().expect("it has numbers");
        let drawn = fraction(random) * sum;
        self.sums.partition_point(|sum| *sum < drawn) as u32
    }
}

/// From 0 to 1.
fn fraction(random: &mut Random) -> f64 {
    (random.next() >> 11) as f64 / (1u64 << 53) as f64
}

const fn plain(at: u64, name: u32) -> Request {
    Request {
        at,
        name,
        ttl_secs: 3_600,
        says: Says::Addresses,
        is_judged: true,
    }
}

/// `per_sec` requests a second for so many seconds.
fn steady(zipf: &Zipf, per_sec: u64, secs: u64, random: &mut Random) -> Vec<Request> {
    (0..per_sec * secs)
        .map(|number| plain(number * 1000 / per_sec, zipf.draw(random)))
        .collect()
}

fn lap() -> Vec<Request> {
    (0..200_000)
        .map(|number| plain(number.into(), number % 9_000))
        .collect()
}

fn scan(random: &mut Random) -> Vec<Request> {
    let mut trace = steady(&Zipf::new(5_000, 1.1), 200, 300, random);
    let strangers = (0..30 * 3_000).map(|number| Request {
        says: if number % 2 == 0 {
            Says::NoName
        } else {
            Says::Addresses
        },
        is_judged: false,
        ..plain(
            u64::from(number / 3_000) * 10_000 + u64::from(number % 3_000),
            STRANGERS + number,
        )
    });
    trace.extend(strangers);
    trace.sort_by_key(|request| request.at);
    trace
}

/// 20,000 names a second from `begin` to `end`, in seconds, nobody's twice.
fn strangers(begin: u64, end: u64, says: Says) -> impl Iterator<Item = Request> {
    (0..(end - begin) * 20_000).map(move |number| Request {
        says,
        is_judged: false,
        ..plain(begin * 1000 + number / 20, STRANGERS + number as u32)
    })
}

fn flood(random: &mut Random, says: Says) -> Vec<Request> {
    let mut trace: Vec<_> = (0..40_000)
        .map(|number| plain(number, random.below(200) as u32))
        .collect();
    trace.extend(strangers(10, 40, says));
    trace.sort_by_key(|request| request.at);
    trace
}

fn flooded_household(random: &mut Random, says: Says) -> Vec<Request> {
    let mut trace = steady(&Zipf::new(10_000, 0.9), 200, 120, random);
    trace.extend(strangers(60, 120, says));
    trace.sort_by_key(|request| request.at);
    trace
}

/// 200 names again, and others that ask for 12,000 names, 20,000 a second, one after the other.
fn flooding_loop(random: &mut Random) -> Vec<Request> {
    let mut trace = flood(random, Says::Addresses);
    for request in &mut trace {
        if request.name >= STRANGERS {
            request.name = STRANGERS + request.name % 12_000;
        }
    }
    trace
}

/// A day of a household, as the head of this file says.
fn household(random: &mut Random) -> Vec<Request> {
    const DAY_MS: u64 = 24 * 3_600_000;
    const TTLS: [u32; 6] = [60, 60, 300, 300, 300, 3_600];
    let ttl_of = |name: u32| TTLS[(name as usize).wrapping_mul(0x9e37_79b9) % TTLS.len()];
    let (sites, parties) = (Zipf::new(2_000, 1.0), Zipf::new(3_000, 1.0));
    let mut trace = Vec::new();
    let mut ask = |at: u64, name: u32| {
        let request = Request {
            ttl_secs: ttl_of(name),
            ..plain(at, name)
        };
        trace.push(request);
        if name.is_multiple_of(3) {
            let without_aaaa = Request {
                name: name | 1 << 31,
                says: Says::NoData,
                ..request
            };
            trace.push(without_aaaa);
        }
    };
    for own in 0..25 * 6 {
        let every = 20_000 + random.below(880_000) as u64;
        let mut at = random.below(every as usize) as u64;
        while at < DAY_MS {
            ask(at, 1_000_000 + own);
            at += every;
        }
    }
    let mut unique = STRANGERS;
    for _ in 0..4 {
        let mut at = (7 + random.below(11) as u64) * 3_600_000;
        let end = at + 6 * 3_600_000;
        while at < end {
            ask(at, sites.draw(random));
            for _ in 0..12 {
                ask(
                    at + random.below(2_000) as u64,
                    10_000 + parties.draw(random),
                );
            }
            for _ in 0..2 {
                unique += 1;
                ask(at + random.below(2_000) as u64, unique);
            }
            at += random.below(80_000) as u64;
        }
    }
    trace.sort_by_key(|request| request.at);
    trace
}
