//! Eviction from a full set.

use std::boxed::Box;
use std::collections::HashSet;
use std::vec;
use std::vec::Vec;

use super::{SMALL_SLOTS, at, head, insert, key, name, slots};
use crate::answer::{HashedKey, Head};
use crate::cache::{Inserted, Shard};
use crate::limits::CACHE_WAYS;
use crate::time::Instant;

/// A key for `name` in the first set of both tables. The tag differs by `number`.
pub(super) fn crowded(number: usize, name: &[u8]) -> HashedKey<'_> {
    HashedKey::placed(key(name), (number as u64 + 1) << 16)
}

/// A shard with helpers that make key and hash from a number, all in one set.
pub(super) struct Crowd {
    pub shard: Box<Shard>,
}

impl Crowd {
    pub fn new() -> Self {
        Self {
            shard: Box::new(Shard::new()),
        }
    }

    pub fn insert(
        &mut self,
        number: usize,
        stored: Instant,
        ttl_secs: u32,
        len: usize,
    ) -> Inserted {
        let name = name(number);
        let body = vec![number as u8; len];
        let (key, head) = (crowded(number, &name), head(stored, ttl_secs));
        insert(&mut self.shard, &key, &head, &body)
    }

    pub fn find(&mut self, number: usize) -> bool {
        let name = name(number);
        let found = self.shard.find(&crowded(number, &name));
        found
            .inspect(|found| assert!(found.body.iter().all(|byte| *byte == number as u8)))
            .is_some()
    }

    /// Numbers of the entries, without touching a reference bit.
    pub fn numbers(&self) -> Vec<usize> {
        let present = |number: &usize| {
            let name = name(*number);
            slots(&self.shard).any(|(_, key, _)| key.name == name)
        };
        (0..64).filter(present).collect()
    }
}

#[test]
fn a_full_small_set_takes_free_large_slots_first() {
    let mut crowd = Crowd::new();
    for number in 0..2 * CACHE_WAYS {
        assert_eq!(crowd.insert(number, at(0), 60, 10), Inserted::Added);
    }
    assert_eq!(
        slots(&crowd.shard)
            .filter(|(index, ..)| *index < SMALL_SLOTS)
            .count(),
        CACHE_WAYS
    );
    assert!((0..2 * CACHE_WAYS).all(|number| crowd.find(number)));
    assert_eq!(crowd.insert(63, at(0), 60, 10), Inserted::Evicted);
    assert_eq!(crowd.shard.len(), 2 * CACHE_WAYS);
}

/// A crowd whose small and large set are full of unexpired entries: 0 to 7 small, 8 to 15 large.
pub(super) fn full(ttl_secs: u32) -> Crowd {
    let mut crowd = Crowd::new();
    for number in 0..2 * CACHE_WAYS {
        let len = if number < CACHE_WAYS { 10 } else { 1000 };
        assert_eq!(
            crowd.insert(number, at(number as u64), ttl_secs, len),
            Inserted::Added
        );
    }
    crowd
}

/// Numbers that are gone after an insertion.
fn evicted(crowd: &mut Crowd, number: usize, now: Instant, len: usize) -> Vec<usize> {
    let before = crowd.numbers();
    assert_eq!(crowd.insert(number, now, 60, len), Inserted::Evicted);
    let after: HashSet<_> = crowd.numbers().into_iter().collect();
    assert!(after.contains(&number));
    before
        .into_iter()
        .filter(|number| !after.contains(number))
        .collect()
}

#[test]
fn the_longest_expired_goes_first() {
    // Entry n expires at n + 100; 0 to 7 are in the small set.
    let mut crowd = full(100);
    // Number 3 is stored again for a shorter time: it expires at 20, all others are fresh or expire later.
    assert_eq!(crowd.insert(3, at(10), 10, 10), Inserted::Replaced);
    assert_eq!(evicted(&mut crowd, 20, at(20), 10), [3], "at its very end");
    assert_eq!(
        evicted(&mut crowd, 21, at(105), 10),
        [20],
        "it expired at 80"
    );
    assert_eq!(evicted(&mut crowd, 22, at(105), 10), [0]);
    assert_eq!(
        evicted(&mut crowd, 23, at(109), 1000),
        [8],
        "large ones by themselves"
    );
}

#[test]
fn an_entry_of_unknown_age_counts_as_expired() {
    let mut crowd = full(1_000_000);
    let restored = Head {
        restored: true,
        ..head(at(50), 1_000_000)
    };
    let name = name(5);
    assert_eq!(
        insert(&mut crowd.shard, &crowded(5, &name), &restored, &[5; 10]),
        Inserted::Replaced
    );
    assert_eq!(evicted(&mut crowd, 20, at(51), 10), [5]);
}

#[test]
fn an_expired_entry_that_is_asked_for_outlives_one_that_is_not() {
    let mut crowd = full(100);
    assert!(crowd.find(0) && crowd.find(1));
    assert_eq!(
        evicted(&mut crowd, 20, at(200), 10),
        [2],
        "0 and 1 expired earlier"
    );
}

#[test]
fn young_entries_go_in_their_order_and_those_that_were_asked_for_stay() {
    let mut crowd = full(1_000_000);
    assert!(crowd.find(0) && crowd.find(1) && crowd.find(3));
    let gone: Vec<_> = (20..28)
        .flat_map(|number| evicted(&mut crowd, number, at(100), 10))
        .collect();
    assert_eq!(gone, [2, 4, 5, 6, 7, 20, 21, 22]);
}

#[test]
fn clock_decides_among_those_that_are_kept() {
    let mut crowd = full(1_000_000);
    assert!((0..CACHE_WAYS).all(|number| crowd.find(number)));
    assert_eq!(evicted(&mut crowd, 20, at(100), 10), [0]);
    assert!(crowd.find(20) && crowd.find(1));
    assert_eq!(
        evicted(&mut crowd, 21, at(100), 10),
        [2],
        "1 was asked for, 20 is kept"
    );
    assert!(crowd.find(21));
    assert_eq!(evicted(&mut crowd, 22, at(100), 10), [3]);
    assert_eq!(
        evicted(&mut crowd, 23, at(100), 10),
        [22],
        "the only young one"
    );
}

#[test]
fn who_comes_back_soon_is_kept() {
    let mut crowd = full(1_000_000);
    assert_eq!(evicted(&mut crowd, 20, at(100), 10), [0]);
    assert_eq!(evicted(&mut crowd, 0, at(100), 10), [1]);
    for number in 21..40 {
        evicted(&mut crowd, number, at(100), 10);
    }
    assert!(crowd.find(0));
}

#[test]
fn a_ghost_is_forgotten_when_as_many_others_have_gone_as_there_are_slots() {
    let mut crowd = full(1_000_000);
    for number in 20..29 {
        evicted(&mut crowd, number, at(100), 10);
    }
    // Among those left, 0 is the oldest.
    evicted(&mut crowd, 0, at(100), 10);
    for number in 30..39 {
        evicted(&mut crowd, number, at(100), 10);
    }
    assert!(!crowd.find(0));
}

#[test]
fn each_size_has_ghosts_of_its_own() {
    let mut crowd = full(1_000_000);
    assert_eq!(evicted(&mut crowd, 20, at(100), 10), [0]);
    evicted(&mut crowd, 0, at(100), 1_000);
    for number in 30..39 {
        evicted(&mut crowd, number, at(100), 1_000);
    }
    assert!(!crowd.find(0));
}

#[test]
fn a_replaced_entry_keeps_its_reference() {
    let mut crowd = full(1_000_000);
    assert!(crowd.find(2) && crowd.find(10));
    // Within its size, and from small to large: the slot of 9 is made free for it.
    assert_eq!(crowd.insert(2, at(50), 1_000_000, 11), Inserted::Replaced);
    let now = at(100);
    let gone: Vec<_> = (20..27)
        .flat_map(|number| evicted(&mut crowd, number, now, 10))
        .collect();
    assert_eq!(gone, [0, 1, 3, 4, 5, 6, 7]);
    assert!(crowd.find(2) && crowd.shard.remove(&crowded(9, &name(9))));
    assert_eq!(crowd.insert(2, at(50), 1_000_000, 1000), Inserted::Replaced);
    let gone: Vec<_> = (30..36)
        .flat_map(|number| evicted(&mut crowd, number, now, 1000))
        .collect();
    assert_eq!(
        gone,
        [8, 11, 12, 13, 14, 15],
        "2 stands where 9 stood, 10 is spared too"
    );
}

#[test]
fn each_size_has_reference_bits_of_its_own() {
    let mut crowd = full(1_000_000);
    assert!(crowd.find(0) && crowd.find(9));
    assert_eq!(evicted(&mut crowd, 20, at(100), 1000), [8]);
    assert_eq!(evicted(&mut crowd, 21, at(100), 1000), [10]);
    assert_eq!(evicted(&mut crowd, 22, at(100), 10), [1]);
}
