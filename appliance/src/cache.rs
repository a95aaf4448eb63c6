//! The cache that all workers share: core's shards, each behind a lock of its own, in one static.
//!
//! A worker holds a lock for one look-up or one insertion. Whoever walks the whole cache takes a few slots at a time and
//! lets the lock go in between, so it delays a worker by no more than a few copies.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use xdnsd_core::cache::{Head, Key, Shard, shard_of};
use xdnsd_core::dns::Name;
use xdnsd_core::dns::name::is_within;
use xdnsd_core::engine::CacheAccess;
use xdnsd_core::limits::CACHE_SHARDS;
use xdnsd_core::time::Instant;

use crate::presentation::{rcode_text, type_text};

/// Slots that a walk looks at under one lock.
pub const STEP: usize = 8;

/// The cache of the process.
pub static CACHE: SharedCache = SharedCache::new();

/// Shards behind locks. A full set puts an answer out for another; see core's `Shard`.
#[derive(Debug)]
pub struct SharedCache {
    shards: [Mutex<Shard>; CACHE_SHARDS],
    /// Two halves; zero until `configure`. All zero bits, unlike a `OnceLock`: one other bit would put the whole static
    /// into the executable.
    seed: [AtomicU64; 2],
    configured: AtomicBool,
}

impl SharedCache {
    /// Empty.
    #[must_use]
    #[expect(
        clippy::new_without_default,
        reason = "5 MiB: it belongs in a static, not on a stack"
    )]
    pub const fn new() -> Self {
        Self {
            shards: [const { Mutex::new(Shard::new()) }; CACHE_SHARDS],
            seed: [const { AtomicU64::new(0) }; 2],
            configured: AtomicBool::new(false),
        }
    }

    /// Sets the key of the hash, which stays, and how many answers are kept. Once, before the first look-up.
    pub fn configure(&self, seed: [u8; 16], entries: usize) {
        let again = self.configured.swap(true, Ordering::AcqRel);
        assert!(!again, "entries stand where the first seed put them");
        let whole = u128::from_ne_bytes(seed);
        self.seed[0].store(whole as u64, Ordering::Release);
        self.seed[1].store((whole >> 64) as u64, Ordering::Release);
        self.limit(entries);
    }

    /// Forgets everything and keeps at most `entries` answers from now on.
    pub fn limit(&self, entries: usize) {
        for (index, shard) in self.shards.iter().enumerate() {
            // The remainder goes to the first shards, so that the sum is exact.
            let share = (entries + CACHE_SHARDS - 1 - index) / CACHE_SHARDS;
            lock(shard).limit(share);
        }
    }

    /// Answers in the cache, counted anew, one shard after the other.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    /// Whether there is no answer.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shards.iter().all(|shard| lock(shard).is_empty())
    }

    /// Removes everything; says how many answers that were.
    pub fn clear(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).clear()).sum()
    }

    /// Stores an answer, as an engine does; for what comes from a snapshot.
    pub fn insert(&self, key: &Key<'_>, head: &Head, body: &[u8]) {
        let hash = key.hash(&self.seed());
        self.with_shard(hash, |shard| shard.insert(hash, key, head, body));
    }

    /// Removes the answers for `name` and for every name below it; says how many that were.
    pub fn remove_below(&self, name: &Name) -> usize {
        let suffix = name.to_lower();
        let mut removed = 0;
        let mut walk = Walk::new(self);
        while walk.take_slots(|shard, slots| {
            removed += slots
                .filter(|slot| self.remove_slot(shard, *slot, &suffix))
                .count();
        }) {}
        removed
    }

    /// Removes what is in `slot` where it belongs to `suffix`.
    fn remove_slot(&self, shard: &mut Shard, slot: usize, suffix: &Name) -> bool {
        let Some((key, ..)) = shard.slot(slot) else {
            return false;
        };
        if !is_within(key.name, suffix.as_wire()) {
            return false;
        }
        let name = key.name.to_vec();
        let Key {
            qtype,
            dnssec_ok,
            checking_disabled,
            ..
        } = key;
        let key = Key {
            name: &name,
            qtype,
            dnssec_ok,
            checking_disabled,
        };
        shard.remove(key.hash(&self.seed()), &key)
    }
}

impl CacheAccess for &SharedCache {
    fn with_shard<T>(&self, hash: u64, f: impl FnOnce(&mut Shard) -> T) -> T {
        f(&mut lock(&self.shards[shard_of(hash)]))
    }

    fn seed(&self) -> [u8; 16] {
        let half = |index: usize| u128::from(self.seed[index].load(Ordering::Relaxed));
        (half(0) | half(1) << 64).to_ne_bytes()
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    // A shard is whole again after each of its methods, so one that panicked elsewhere leaves nothing to fear.
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Goes through all slots, [`STEP`] under one lock. What is inserted meanwhile may or may not be seen.
#[derive(Debug)]
pub struct Walk<'c> {
    cache: &'c SharedCache,
    shard: usize,
    slot: usize,
}

impl<'c> Walk<'c> {
    /// At the first slot.
    #[must_use]
    pub const fn new(cache: &'c SharedCache) -> Self {
        Self {
            cache,
            shard: 0,
            slot: 0,
        }
    }

    /// Shows the answers of the next slots to `see`, which runs under the lock and has to be quick. False: there were
    /// no slots left.
    pub fn step(&mut self, mut see: impl FnMut(&Key<'_>, &Head, &[u8])) -> bool {
        self.take_slots(|shard, slots| {
            for (key, head, body) in slots.filter_map(|slot| shard.slot(slot)) {
                see(&key, &head, body);
            }
        })
    }

    fn take_slots(&mut self, use_slots: impl FnOnce(&mut Shard, Range<usize>)) -> bool {
        let Some(shard) = self.cache.shards.get(self.shard) else {
            return false;
        };
        let slots = self.slot..(self.slot + STEP).min(Shard::SLOTS);
        self.slot = slots.end;
        if self.slot == Shard::SLOTS {
            (self.shard, self.slot) = (self.shard + 1, 0);
        }
        use_slots(&mut lock(shard), slots);
        true
    }
}

/// One entry as `xdnsd cache dump` shows it:
/// `www.example.org. AAAA do+ad NOERROR ttl 287 upstream 1/0/0 44 bytes`.
#[must_use]
pub fn entry_text(key: &Key<'_>, head: &Head, body: &[u8], now: Instant) -> String {
    let name = Name::from_wire(key.name).map_or_else(|| "?".to_owned(), |name| name.to_string());
    let flags = [
        (key.dnssec_ok, "do"),
        (key.checking_disabled, "cd"),
        (head.authentic_data, "ad"),
    ];
    let flags: Vec<&str> = flags
        .iter()
        .filter(|(set, _)| *set)
        .map(|(_, word)| *word)
        .collect();
    let flags = if flags.is_empty() {
        "-".to_owned()
    } else {
        flags.join("+")
    };
    let expires = head.expires();
    let freshness = match (head.restored, expires > now) {
        (true, _) => "stale of unknown age".to_owned(),
        (false, true) => format!("ttl {}", expires.secs_since(now)),
        (false, false) => format!("stale for {}", now.secs_since(expires)),
    };
    let origin = if head.restored {
        "snapshot"
    } else {
        "upstream"
    };
    let (rtype, rcode) = (type_text(key.qtype), rcode_text(head.rcode));
    let (answers, authorities, additionals) = (head.answers, head.authorities, head.additionals);
    let len = body.len();
    format!(
        "{name} {rtype} {flags} {rcode} {freshness} {origin} {answers}/{authorities}/{additionals} {len} bytes"
    )
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::presentation::parse_name;

    /// A cache of the test's own: in a static, as it is too large for a stack.
    macro_rules! test_cache {
        ($entries:expr) => {{
            static CACHE: $crate::cache::SharedCache = $crate::cache::SharedCache::new();
            CACHE.configure(*b"sixteen bytes ..", $entries);
            &CACHE
        }};
    }
    pub(crate) use test_cache;

    pub(crate) fn head(ttl_secs: u32) -> Head {
        Head {
            rcode: 0,
            authentic_data: false,
            authoritative: false,
            answers: 1,
            authorities: 0,
            additionals: 0,
            ttl_secs,
            stored: Instant::from_millis(10_000),
            restored: false,
            ede: Head::NO_EDE,
        }
    }

    /// One A record whose owner is the question's name.
    pub(crate) const BODY: &[u8] = b"\xc0\x0c\0\x01\0\x01\0\0\x01\x2c\0\x04\xc0\0\x02\x01";

    pub(crate) fn fill(cache: &SharedCache, names: &[&str]) {
        for name in names {
            let name = parse_name(name).expect("a name").to_lower();
            for dnssec_ok in [false, true] {
                let key = Key {
                    name: name.as_wire(),
                    qtype: 1,
                    dnssec_ok,
                    checking_disabled: false,
                };
                cache.insert(&key, &head(300), BODY);
            }
        }
    }

    /// The names in the cache, without duplicates.
    pub(crate) fn names(cache: &SharedCache) -> Vec<String> {
        let mut names = Vec::new();
        let mut walk = Walk::new(cache);
        while walk
            .step(|key, _, _| names.extend(Name::from_wire(key.name).map(|name| name.to_string())))
        {
        }
        names.sort();
        names.dedup();
        names
    }

    #[test]
    fn a_walk_sees_every_entry_once() {
        let cache = test_cache!(usize::MAX / 2);
        let expected: Vec<String> = (0..500)
            .map(|index| format!("n{index:03}.example."))
            .collect();
        fill(
            cache,
            &expected.iter().map(String::as_str).collect::<Vec<_>>(),
        );
        assert_eq!(cache.len(), 1000);
        assert_eq!(names(cache), expected);
        let (mut steps, mut seen) = (0, 0);
        let mut walk = Walk::new(cache);
        while walk.step(|_, _, _| seen += 1) {
            steps += 1;
        }
        assert_eq!(
            (seen, steps),
            (1000, CACHE_SHARDS * Shard::SLOTS.div_ceil(STEP))
        );
        assert_eq!(cache.clear(), 1000);
        assert!(cache.is_empty());
    }

    #[test]
    fn a_name_is_flushed_with_what_is_below_it_and_nothing_else() {
        let cache = test_cache!(8192);
        fill(
            cache,
            &[
                "example.org",
                "www.example.org",
                "badexample.org",
                "org",
                "example.com",
            ],
        );
        let flush = |name: &str| cache.remove_below(&parse_name(name).expect("a name"));
        assert_eq!(flush("Example.ORG"), 4);
        assert_eq!(names(cache), ["badexample.org.", "example.com.", "org."]);
        assert_eq!(flush("example.net"), 0);
        assert_eq!(flush("."), 6);
        assert!(cache.is_empty());
    }

    #[test]
    fn the_limit_is_kept_to_the_last_entry() {
        let cache = test_cache!(0);
        for entries in [0, 1, 100, 4096] {
            cache.limit(entries);
            for index in 0..8000 {
                let name = parse_name(&format!("n{index}.example")).expect("a name");
                let key = Key {
                    name: name.as_wire(),
                    qtype: 1,
                    dnssec_ok: false,
                    checking_disabled: false,
                };
                cache.insert(&key, &head(300), BODY);
            }
            assert!(cache.len() <= entries, "{} of {entries}", cache.len());
            assert_eq!(cache.is_empty(), entries == 0);
        }
    }

    #[test]
    fn an_entry_is_shown_with_its_age_and_origin() {
        let key = Key {
            name: b"\x03www\x07example\0",
            qtype: 28,
            dnssec_ok: true,
            checking_disabled: false,
        };
        let at = |secs| Instant::from_millis(10_000).add_secs(secs);
        let fresh = Head {
            authentic_data: true,
            ..head(300)
        };
        assert_eq!(
            entry_text(&key, &fresh, BODY, at(13)),
            "www.example. AAAA do+ad NOERROR ttl 287 upstream 1/0/0 16 bytes"
        );
        assert!(entry_text(&key, &fresh, BODY, at(335)).contains("stale for 35 upstream"));
        let restored = Head {
            restored: true,
            rcode: 3,
            answers: 0,
            authorities: 1,
            ..head(300)
        };
        assert_eq!(
            entry_text(
                &Key {
                    dnssec_ok: false,
                    ..key
                },
                &restored,
                BODY,
                at(13)
            ),
            "www.example. AAAA - NXDOMAIN stale of unknown age snapshot 0/1/0 16 bytes"
        );
    }
}
