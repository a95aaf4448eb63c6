//! Keys, lengths, limits and the spread of hashes.

mod admission;
mod eviction;
mod model;
mod snapshot;

use std::boxed::Box;
use std::collections::HashSet;
use std::vec;
use std::vec::Vec;

use super::table::{set_of, tag_of};
use super::*;
use crate::answer::{Answer, HashedKey, Head, Key, name_hash};
use crate::limits::{
    CACHE_LARGE_BYTES, CACHE_LARGE_SETS, CACHE_SHARDS, CACHE_SHARDS_MAX, CACHE_SMALL_BYTES,
    CACHE_SMALL_SETS, CACHE_WAYS,
};
use crate::testing::Random;
use crate::time::Instant;

const SEED: [u8; 16] = *b"0123456789abcdef";
const SMALL_SLOTS: usize = CACHE_SMALL_SETS * CACHE_WAYS;

fn at(secs: u64) -> Instant {
    Instant::from_millis(secs * 1000)
}

fn head(stored: Instant, ttl_secs: u32) -> Head {
    Head {
        rcode: 0,
        authentic_data: false,
        authoritative: false,
        answers: 1,
        authorities: 0,
        ttl_secs,
        stored,
        restored: false,
        ..Head::EMPTY
    }
}

/// The name `n<number>.example.`.
fn name(number: usize) -> Vec<u8> {
    let label = std::format!("n{number}");
    let mut name = vec![label.len() as u8];
    name.extend(label.as_bytes());
    name.extend(b"\x07example\0");
    name
}

fn key(name: &[u8]) -> Key<'_> {
    Key {
        name,
        qtype: 1,
        dnssec_ok: false,
        checking_disabled: false,
        view: 0,
    }
}

fn body_len(name: &[u8], slot: usize) -> usize {
    slot - name.len()
}

/// Every entry of a shard with its index.
fn slots(shard: &Shard) -> impl Iterator<Item = (usize, Key<'_>, Answer<'_>)> {
    (0..Shard::SLOTS).filter_map(|index| {
        let (key, answer) = shard.slot(index)?;
        Some((index, key, answer))
    })
}

/// Stores an answer from its parts.
fn insert(shard: &mut Shard, key: &HashedKey<'_>, head: &Head, body: &[u8]) -> Inserted {
    shard.insert(key, &Answer { head, body })
}

#[test]
fn found_with_every_part_of_the_key() {
    let mut shard = Box::new(Shard::new());
    let (name, other) = (name(1), name(2));
    let key = key(&name);
    let hashed = key.hashed(&SEED);
    assert!(shard.find(&hashed).is_none());
    let head = Head {
        rcode: 3,
        authentic_data: true,
        authoritative: true,
        answers: 1,
        authorities: 2,
        ttl_secs: 4,
        stored: at(5),
        restored: true,
        translated: true,
        ede: 6,
        generation: 70_000,
        group: 8,
        failed_secs: 9,
    };
    assert_eq!(insert(&mut shard, &hashed, &head, b"body"), Inserted::Added);
    let found = shard.find(&hashed).expect("it is there");
    assert_eq!((*found.head, found.body), (head, &b"body"[..]));
    // The same hash, and so the same tag, but another question.
    for other in [
        Key {
            name: &other,
            ..key
        },
        Key { qtype: 28, ..key },
        Key {
            dnssec_ok: true,
            ..key
        },
        Key {
            checking_disabled: true,
            ..key
        },
    ] {
        let other = HashedKey::placed(other, hashed.hash());
        assert!(shard.find(&other).is_none(), "{other:?}");
        assert!(!shard.remove(&other));
    }
    assert!(shard.remove(&hashed));
    assert!(shard.find(&hashed).is_none() && shard.is_empty());
}

#[test]
fn keys_of_one_hash_live_beside_each_other() {
    let mut shard = Box::new(Shard::new());
    let name = name(1);
    let keys = |qtype| {
        let key = Key {
            qtype,
            ..key(&name)
        };
        HashedKey::placed(key, 7)
    };
    for qtype in 0..CACHE_WAYS as u16 {
        let body = qtype.to_be_bytes();
        assert_eq!(
            insert(&mut shard, &keys(qtype), &head(at(0), 60), &body),
            Inserted::Added
        );
    }
    for qtype in 0..CACHE_WAYS as u16 {
        let found = shard.find(&keys(qtype)).expect("it is there");
        assert_eq!(found.body, qtype.to_be_bytes());
    }
}

#[test]
fn a_hash_whose_tag_bits_are_zero_is_no_free_slot() {
    let mut shard = Box::new(Shard::new());
    let name = name(1);
    let key = HashedKey::placed(key(&name), 0xffff_ffff_0000_ffff);
    assert_eq!(
        insert(&mut shard, &key, &head(at(0), 60), b"body"),
        Inserted::Added
    );
    assert!(shard.find(&key).is_some());
    assert_eq!(shard.len(), 1);
}

#[test]
fn lengths_at_the_edges() {
    let mut shard = Box::new(Shard::new());
    let name = name(1);
    let short = HashedKey::placed(key(&name), 0);
    let mut insert_of = |len: usize| {
        let inserted = insert(&mut shard, &short, &head(at(0), 60), &vec![0x5a; len]);
        let index = slots(&shard).map(|(index, ..)| index).next();
        (
            inserted,
            index.map(|index| index < SMALL_SLOTS),
            shard.len(),
        )
    };
    let small = body_len(&name, CACHE_SMALL_BYTES);
    let large = body_len(&name, CACHE_LARGE_BYTES);
    assert_eq!(insert_of(0), (Inserted::Added, Some(true), 1));
    assert_eq!(insert_of(small), (Inserted::Replaced, Some(true), 1));
    assert_eq!(
        insert_of(small + 1),
        (Inserted::Replaced, Some(false), 1),
        "moved, not doubled"
    );
    assert_eq!(insert_of(large), (Inserted::Replaced, Some(false), 1));
    assert_eq!(
        insert_of(small),
        (Inserted::Replaced, Some(true), 1),
        "moved back"
    );
    assert_eq!(insert_of(large + 1), (Inserted::TooLarge, Some(true), 1));
    assert_eq!(
        shard.find(&short).map(|found| found.body.len()),
        Some(small),
        "kept"
    );
    let long = vec![0; 256];
    let long = HashedKey::placed(key(&long), 0);
    assert_eq!(
        insert(&mut shard, &long, &head(at(0), 60), b""),
        Inserted::TooLarge
    );
}

#[test]
fn a_limit_is_kept_and_used() {
    let mut shard = Box::new(Shard::new());
    for limit in (0..50).chain([100, 255, 256, 300, 511, 512, 513, 100_000]) {
        shard.limit(limit);
        assert!(shard.is_empty(), "a limit begins anew");
        for number in 0..4000 {
            let name = name(number);
            let key = key(&name).hashed(&SEED);
            insert(&mut shard, &key, &head(at(0), 60), b"body");
        }
        let limit = limit.min(Shard::SLOTS);
        let whole_sets = if limit < CACHE_WAYS {
            limit
        } else {
            limit / CACHE_WAYS * CACHE_WAYS
        };
        assert_eq!(shard.len(), whole_sets, "limit {limit}");
    }
}

#[test]
fn a_limit_keeps_both_sizes_usable() {
    let mut shard = Box::new(Shard::new());
    for limit in [1, 7, 8, 15, 16, 24, 64, 512] {
        shard.limit(limit);
        for len in [10, 1000] {
            let name = name(len);
            let key = key(&name).hashed(&SEED);
            assert_ne!(
                insert(&mut shard, &key, &head(at(0), 60), &vec![0; len]),
                Inserted::TooLarge
            );
            assert!(shard.find(&key).is_some(), "limit {limit}, {len} bytes");
        }
    }
}

#[test]
fn slot_reaches_every_slot_and_no_further() {
    let mut shard = Box::new(Shard::new());
    for number in 0..20_000 {
        let name = name(number);
        let key = key(&name).hashed(&SEED);
        insert(&mut shard, &key, &head(at(0), 60), b"body");
    }
    assert_eq!(slots(&shard).count(), Shard::SLOTS);
    assert!(shard.slot(Shard::SLOTS).is_none());
    assert!(shard.slot(usize::MAX).is_none());
    let indices: Vec<_> = slots(&shard).map(|(index, ..)| index).collect();
    assert_eq!(indices, (0..Shard::SLOTS).collect::<Vec<_>>());
}

#[test]
fn hashes_differ_by_seed_and_every_part_of_the_key() {
    let names = [name(1), name(2), b"\0".to_vec(), b"\x01a\0".to_vec()];
    let mut hashes = HashSet::new();
    let mut keys = 0;
    for seed in [SEED, [0; 16]] {
        for name in &names {
            for qtype in [1, 28, 0x0100, 0x0101] {
                for (dnssec_ok, checking_disabled) in
                    [(false, false), (false, true), (true, false), (true, true)]
                {
                    let key = Key {
                        name,
                        qtype,
                        dnssec_ok,
                        checking_disabled,
                        view: 0,
                    };
                    assert!(hashes.insert(key.hashed(&seed).hash()), "{key:?}");
                    keys += 1;
                }
            }
        }
    }
    assert_eq!(hashes.len(), keys);
}

#[test]
fn the_hash_of_a_name_is_siphash_1_3() {
    let seed = core::array::from_fn(|i| i as u8);
    for name in [
        &b"\0"[..],
        b"\x07example\0",
        b"\x06seven7\0",
        b"\x05seven\x0eand-some-more-\0",
    ] {
        // Filled up to whole words, to an independent implementation with 128 bits of output.
        let mut input = Vec::from(name);
        input.resize(name.len().next_multiple_of(8), 0);
        let oracle = siphasher::sip128::SipHasher13::new_with_key(&seed).hash(&input);
        assert_eq!(name_hash(name, &seed), oracle.h1, "{name:?}");
    }
}

#[test]
fn all_keys_of_a_name_are_in_one_shard_and_spread_over_its_sets() {
    let name = name(1);
    let shard = shard_of(key(&name).hashed(&SEED).hash(), CACHE_SHARDS_MAX);
    let mut sets = [0; CACHE_SMALL_SETS];
    let mut tags = HashSet::new();
    for qtype in 0..12_000 {
        let key = Key {
            qtype,
            ..key(&name)
        };
        for key in key.hashed(&SEED).with_any_flags() {
            let hash = key.hash();
            assert_eq!(shard_of(hash, CACHE_SHARDS_MAX), shard);
            sets[set_of(hash, CACHE_SMALL_SETS)] += 1;
            tags.insert(tag_of(hash));
        }
    }
    // Six standard deviations around 1000; 48,000 draws of 65,535 leave 31,500 distinct ones.
    assert!(sets.iter().all(|n| (810..1190).contains(n)), "{sets:?}");
    assert!(tags.len() > 30_000, "{}", tags.len());
}

#[test]
fn hashes_spread_over_shards_sets_and_tags() {
    let mut shards = [0; CACHE_SHARDS];
    let mut sets = [0; CACHE_SMALL_SETS];
    let mut tags = HashSet::new();
    let count = 48_000;
    for number in 0..count {
        let name = name(number);
        let hash = key(&name).hashed(&SEED).hash();
        shards[shard_of(hash, CACHE_SHARDS)] += 1;
        sets[set_of(hash, CACHE_SMALL_SETS)] += 1;
        assert!(set_of(hash, CACHE_LARGE_SETS) < CACHE_LARGE_SETS);
        if shard_of(hash, CACHE_SHARDS) == 0 {
            tags.insert(tag_of(hash));
        }
    }
    // Six standard deviations around 3000 and 1000.
    assert!(
        shards.iter().all(|n| (2670..3330).contains(n)),
        "{shards:?}"
    );
    assert!(sets.iter().all(|n| (810..1190).contains(n)), "{sets:?}");
    // Some 3000 keys of one shard share few of 65,535 tags: 3000^2 / 131,070 = 69 are expected to meet another.
    assert!(
        tags.len() + 140 > shards[0],
        "{} of {}",
        tags.len(),
        shards[0]
    );
    assert!(!tags.contains(&0));
}

#[test]
fn each_bit_of_a_hash_serves_one_purpose() {
    let mut random = Random::new(1);
    let mut decides = [false; 3];
    for bit in 0..64 {
        for _ in 0..50 {
            let hash = random.next();
            let parts = |hash| {
                let set = set_of(hash, CACHE_SMALL_SETS);
                [shard_of(hash, CACHE_SHARDS), usize::from(tag_of(hash)), set]
            };
            let (one, other) = (parts(hash), parts(hash ^ 1 << bit));
            let differ: Vec<_> = (0..3).filter(|part| one[*part] != other[*part]).collect();
            assert!(
                differ.len() <= 1,
                "bit {bit} decides on shard, tag or set: {differ:?}"
            );
            differ.iter().for_each(|part| decides[*part] = true);
        }
    }
    assert_eq!(decides, [true; 3]);
}

#[test]
fn a_whole_cache_of_small_answers_keeps_nine_in_ten() {
    let mut shards: Vec<_> = (0..CACHE_SHARDS).map(|_| Box::new(Shard::new())).collect();
    for number in 0..Shard::SLOTS * CACHE_SHARDS {
        let name = name(number);
        let key = key(&name).hashed(&SEED);
        insert(
            &mut shards[shard_of(key.hash(), CACHE_SHARDS)],
            &key,
            &head(at(0), 60),
            &[0; 60],
        );
    }
    let kept: usize = shards.iter().map(|shard| shard.len()).sum();
    assert!(kept * 10 > Shard::SLOTS * CACHE_SHARDS * 9, "{kept} kept");
}
