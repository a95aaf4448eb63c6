//! Random operations against a map that forgets nothing.

use std::boxed::Box;
use std::collections::{HashMap, HashSet};
use std::vec::Vec;

use super::{SEED, at, head, insert, key, name, slots};
use crate::answer::Head;
use crate::cache::{Inserted, Shard};
use crate::limits::{CACHE_LARGE_BYTES, CACHE_SMALL_BYTES, CACHE_WAYS};
use crate::testing::Random;

/// Entry of the model test under a key; its body is made from the version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    head: Head,
    number: u64,
    len: usize,
}

impl Version {
    fn body(&self) -> Vec<u8> {
        Random::new(self.number).bytes(self.len)
    }
}

/// Small answers mostly, some at the border of the two sizes, some large, a few too large.
fn random_len(random: &mut Random) -> usize {
    match random.below(10) {
        0..=5 => random.below(200),
        6 => CACHE_SMALL_BYTES - 20 + random.below(20),
        7 | 8 => 256 + random.below(1100),
        _ => 1400 + random.below(120),
    }
}

/// Runs random operations over `keys` keys and compares with a map that forgets nothing: what is found is what was
/// stored last. Returns how many operations of each outcome there were.
fn compare_with_model(
    seed: u64,
    keys: usize,
    limit: Option<usize>,
) -> HashMap<&'static str, usize> {
    let mut random = Random::new(seed);
    let mut shard = Box::new(Shard::new());
    let capacity = limit.unwrap_or(Shard::SLOTS);
    if let Some(limit) = limit {
        shard.limit(limit);
    }
    let names: Vec<_> = (0..keys).map(name).collect();
    let mut model: HashMap<usize, Version> = HashMap::new();
    let mut outcomes: HashMap<&'static str, usize> = HashMap::new();
    for round in 0..20_000u64 {
        let number = random.below(keys);
        let key = key(&names[number]).hashed(&SEED);
        let before = shard.len();
        let outcome = match random.below(100) {
            0..=49 => find(&mut shard, &key, model.get(&number)),
            50..=97 => {
                let head = head(at(round), random.below(3000) as u32);
                let version = Version {
                    head,
                    number: round,
                    len: random_len(&mut random),
                };
                match insert(&mut shard, &key, &head, &version.body()) {
                    Inserted::TooLarge => {
                        assert!(
                            key.key().name.len() + version.len > CACHE_LARGE_BYTES || capacity == 0
                        );
                        "too large"
                    }
                    Inserted::Added => {
                        assert_eq!(shard.len(), before + 1);
                        model.insert(number, version);
                        "added"
                    }
                    Inserted::Replaced => {
                        assert!(model.insert(number, version).is_some());
                        assert_eq!(shard.len(), before);
                        "replaced"
                    }
                    Inserted::Evicted => {
                        // One fewer if the key itself moved to the other size and evicted an entry there.
                        assert!(shard.len() == before || shard.len() + 1 == before);
                        model.insert(number, version);
                        "evicted"
                    }
                }
            }
            _ => {
                let removed = shard.remove(&key);
                assert!(model.remove(&number).is_some() || !removed);
                assert!(shard.find(&key).is_none());
                if removed { "removed" } else { "not removed" }
            }
        };
        *outcomes.entry(outcome).or_default() += 1;
        if round % 100 == 0 {
            assert_whole(&shard, capacity, &model, &names);
        }
    }
    let entries = shard.len();
    assert_eq!(shard.clear(), entries);
    assert!(shard.is_empty() && slots(&shard).next().is_none());
    outcomes
}

/// Looks the key up, and compares with the version that was stored last.
fn find(
    shard: &mut Shard,
    key: &crate::answer::HashedKey<'_>,
    stored: Option<&Version>,
) -> &'static str {
    let found = shard.find(key);
    let found = found.map(|found| (*found.head, found.body.to_vec()));
    let stored = stored.map(|version| (version.head, version.body()));
    assert!(
        found.is_none() || found == stored,
        "not what was stored last"
    );
    if found.is_some() {
        "found"
    } else {
        "not found"
    }
}

/// Every entry is seen once by `slot`, under its own key, as it was stored last.
fn assert_whole(
    shard: &Shard,
    capacity: usize,
    model: &HashMap<usize, Version>,
    names: &[Vec<u8>],
) {
    let mut seen = HashSet::new();
    for (_, key, answer) in slots(shard) {
        let number = names
            .iter()
            .position(|name| name == key.name)
            .expect("a name of ours");
        assert!(seen.insert(number), "{number} is there twice");
        let version = &model[&number];
        assert_eq!(
            (*answer.head, answer.body),
            (version.head, &version.body()[..])
        );
    }
    assert_eq!(seen.len(), shard.len());
    assert!(seen.len() <= capacity);
}

#[test]
fn equals_the_model_where_nothing_is_put_out() {
    for seed in 0..4 {
        let outcomes = compare_with_model(seed, CACHE_WAYS, None);
        assert!(!outcomes.contains_key("evicted"), "eight keys fit any set");
        assert!(outcomes["found"] > 5000 && outcomes["replaced"] > 5000);
    }
}

#[test]
fn equals_the_model_under_pressure() {
    for seed in 10..14 {
        let outcomes = compare_with_model(seed, 1500, None);
        for outcome in [
            "found",
            "not found",
            "added",
            "replaced",
            "evicted",
            "too large",
            "removed",
        ] {
            assert!(outcomes[outcome] > 20, "{outcome}: {outcomes:?}");
        }
    }
}

#[test]
fn equals_the_model_within_a_limit() {
    for limit in [0, 1, 5, 8, 9, 16, 40, 100] {
        let outcomes = compare_with_model(20, 200, Some(limit));
        assert_eq!(outcomes.contains_key("found"), limit > 0, "limit {limit}");
    }
}
