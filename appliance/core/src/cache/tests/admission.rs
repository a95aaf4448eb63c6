//! Effect of a flood, a scan, a loop and names that do not exist on the entries that others ask for.

use std::boxed::Box;

use super::eviction::{Crowd, crowded, full};
use super::{SEED, at, head, insert, key, name};
use crate::answer::{Answer, Head};
use crate::cache::{Inserted, Shard};
use crate::dns::rcode;
use crate::limits::{CACHE_SHARDS, CACHE_WAYS};
use crate::testing::Random;
use crate::time::Instant;

/// Names that are asked for five times a second each: a shard's part of 200.
const NAMES: usize = 200 / CACHE_SHARDS + 1;
/// Names a second that others ask for: a shard's part of 20,000.
const FLOOD: u64 = 20_000 / CACHE_SHARDS as u64;
/// Seconds before anything is counted.
const WARM_UP: u64 = 2;
/// Seconds of a test.
const LONG: u64 = 12;

/// Requests of others in the meantime.
#[derive(Clone, Copy, Debug)]
enum Others {
    /// Ever new names, which do not exist.
    NoNames,
    /// Ever new names.
    Names,
    /// This many names, one after the other.
    Loop(usize),
}

/// An answer that says that the name does not exist.
fn denial(stored: Instant) -> Head {
    Head {
        rcode: rcode::NXDOMAIN,
        answers: 0,
        authorities: 1,
        ..head(stored, 3_600)
    }
}

/// Asks for a name, and stores an answer if there is none. Returns true if there was one.
fn ask(shard: &mut Shard, number: usize, head: &Head) -> bool {
    let name = name(number);
    let hashed = key(&name).hashed(&SEED);
    if shard.find(&hashed).is_some() {
        return true;
    }
    let answer = Answer {
        head,
        body: b"body",
    };
    if head.rcode == rcode::NXDOMAIN {
        shard.insert(&hashed.any_type(), &answer);
    }
    shard.insert(&hashed, &answer);
    false
}

/// Number of answered requests out of 1,000 for those names while others ask.
fn answered_beside(others: Others, seed: u64) -> usize {
    let mut shard = Box::new(Shard::new());
    let mut random = Random::new(seed);
    let (mut asked, mut hits, mut stranger) = (0, 0, 0);
    // A round for each request of the flood; in every so many of them a request for the names.
    let every = FLOOD as usize / (NAMES * 5);
    for turn in 0..FLOOD * LONG {
        let now = Instant::from_millis(turn * 1_000 / FLOOD);
        stranger += 1;
        let (number, head) = match others {
            Others::NoNames => (stranger, denial(now)),
            Others::Names => (stranger, head(now, 3_600)),
            Others::Loop(names) => (stranger % names, head(now, 3_600)),
        };
        ask(&mut shard, NAMES + number, &head);
        if random.below(every) == 0 {
            let is_hit = ask(&mut shard, random.below(NAMES), &super::head(now, 3_600));
            if now >= at(WARM_UP) {
                asked += 1;
                hits += usize::from(is_hit);
            }
        }
    }
    hits * 1_000 / asked
}

#[test]
fn a_flood_of_names_that_do_not_exist_puts_out_nothing_that_is_asked_for() {
    for seed in 0..2 {
        let answered = answered_beside(Others::NoNames, seed);
        assert!(answered >= 995, "{answered} of 1000, seed {seed}");
    }
}

#[test]
fn a_flood_of_names_that_exist_or_a_scan_puts_out_nothing_that_is_asked_for() {
    for seed in 0..2 {
        let answered = answered_beside(Others::Names, seed);
        assert!(answered >= 995, "{answered} of 1000, seed {seed}");
    }
}

/// A loop that is not much longer than the memory of ghosts comes back before it is forgotten, and counts as asked for
/// again: it costs the others something.
#[test]
fn a_loop_puts_out_little_that_is_asked_for() {
    for (names, least) in [(Shard::SLOTS * 3 / 2, 930), (Shard::SLOTS * 5, 995)] {
        for seed in 0..2 {
            let answered = answered_beside(Others::Loop(names), seed);
            assert!(
                answered >= least,
                "{answered} of 1000, {names} names, seed {seed}"
            );
        }
    }
}

/// Stores that the name does not exist.
fn deny(crowd: &mut Crowd, number: usize) -> Inserted {
    let name = name(number);
    insert(
        &mut crowd.shard,
        &crowded(number, &name),
        &denial(at(100)),
        &[number as u8; 10],
    )
}

#[test]
fn denials_that_nobody_asks_for_again_have_a_quarter_of_each_set() {
    let mut crowd = Crowd::new();
    for number in 0..20 {
        deny(&mut crowd, number);
    }
    let numbers = crowd.numbers();
    assert_eq!(numbers.len(), 2 * CACHE_WAYS / 4, "{numbers:?}");
    assert!(numbers.contains(&19), "the latest is there");
}

#[test]
fn denials_that_are_asked_for_again_have_no_bound() {
    let mut crowd = Crowd::new();
    for number in 0..2 * CACHE_WAYS {
        assert_eq!(deny(&mut crowd, number), Inserted::Added);
        assert!(crowd.find(number));
    }
    assert_eq!(crowd.numbers().len(), 2 * CACHE_WAYS);
}

#[test]
fn a_denial_puts_out_a_denial() {
    let mut crowd = full(1_000_000);
    assert_eq!(deny(&mut crowd, 20), Inserted::Evicted);
    for number in 21..50 {
        deny(&mut crowd, number);
        let numbers = crowd.numbers();
        let strangers: usize = numbers.iter().filter(|number| **number >= 20).count();
        assert_eq!((strangers, numbers.len()), (1, 2 * CACHE_WAYS));
    }
}

#[test]
fn a_denial_that_is_asked_for_is_kept_as_every_other_answer() {
    let mut crowd = full(1_000_000);
    deny(&mut crowd, 20);
    assert!(crowd.find(20));
    for number in 21..40 {
        deny(&mut crowd, number);
    }
    for number in 40..60 {
        crowd.insert(number, at(100), 1_000_000, 10);
    }
    assert!(crowd.find(20));
}
