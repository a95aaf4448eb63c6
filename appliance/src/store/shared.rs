//! The cache that all workers share: core's shards, each behind its own lock, in memory of a size that the config chooses.
//!
//! A worker holds a lock for one look-up or one insertion. A walk over the whole cache takes a few slots at a time and releases
//! the lock in between, so it delays a worker by no more than a few copies.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use xdnsd_core::answer::{Answer, Head, Key};
use xdnsd_core::cache::snapshot::ServersTag;
use xdnsd_core::cache::{Shard, shard_of, shards_for};
use xdnsd_core::dns::Name;
use xdnsd_core::dns::name::is_within;
use xdnsd_core::engine::CacheAccess;
use xdnsd_core::limits::CACHE_LARGE_BYTES;

use super::hot::HOT;
use crate::os::zeroed;

/// Slots that a walk visits under one lock.
pub const STEP: usize = 8;

/// The cache of the process.
pub static CACHE: SharedCache = SharedCache::new();

/// Shards behind locks. A full set evicts one answer for another; see core's `Shard`.
#[derive(Debug, Default)]
pub struct SharedCache {
    table: OnceLock<CacheTable>,
    /// Answers that were removed on request.
    removals: AtomicU64,
    /// [`ServersTag`] of the servers of the default group.
    servers: AtomicU32,
}

/// What [`SharedCache::configure`] makes.
#[derive(Debug)]
struct CacheTable {
    seed: [u8; 16],
    shards: Box<[Locked]>,
}

/// A shard behind its lock. In a cache line of its own, since workers write to locks side by side.
#[derive(Debug)]
#[repr(align(64))]
struct Locked(Mutex<&'static mut Shard>);

impl Locked {
    fn lock(&self) -> MutexGuard<'_, &'static mut Shard> {
        // A shard is consistent after each of its methods, so a panic elsewhere leaves it usable.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes that so many answers take, with the shards that hold them. Those that are never used cost no memory.
#[must_use]
pub const fn bytes_for(entries: usize) -> usize {
    let locks = shards_for(entries) * size_of::<Locked>();
    (entries * size_of::<Shard>()).div_ceil(Shard::SLOTS) + locks
}

impl SharedCache {
    /// Without room for answers, until [`configure`](Self::configure).
    #[must_use]
    pub const fn new() -> Self {
        Self {
            table: OnceLock::new(),
            removals: AtomicU64::new(0),
            servers: AtomicU32::new(0),
        }
    }

    /// Makes the memory, and sets the hash key and the number of answers, for good. Call it once, before the first look-up.
    ///
    /// # Errors
    /// There is not as much memory.
    ///
    /// # Panics
    /// It was called before.
    pub fn configure(&self, seed: [u8; 16], entries: usize) -> io::Result<()> {
        let shards = zeroed::slice::<Shard>(shards_for(entries))?;
        let shards = shards.iter_mut().map(|shard| Locked(Mutex::new(shard)));
        let shards = shards.collect();
        let set = self.table.set(CacheTable { seed, shards });
        assert!(set.is_ok(), "entries stand where the first seed put them");
        self.limit(entries);
        Ok(())
    }

    /// The shards; none before [`configure`](Self::configure).
    fn shards(&self) -> &[Locked] {
        self.table.get().map_or(&[], |table| &table.shards)
    }

    /// Removes everything and keeps at most `entries` answers from now on, of as many as it was made for.
    pub fn limit(&self, entries: usize) {
        let shards = self.shards();
        for (index, shard) in shards.iter().enumerate() {
            // The remainder goes to the first shards, so that the sum is exact.
            let share = (entries + shards.len() - 1 - index) / shards.len();
            shard.lock().limit(share);
        }
    }

    /// Number of shards; none before [`configure`](Self::configure).
    #[must_use]
    pub fn shard_count(&self) -> usize {
        self.shards().len()
    }

    /// Number of answers, counted one shard after the other.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards().iter().map(|shard| shard.lock().len()).sum()
    }

    /// True without answers.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shards().iter().all(|shard| shard.lock().is_empty())
    }

    /// Removes everything; returns the number of answers.
    pub fn clear(&self) -> usize {
        let removed = self.shards().iter().map(|shard| shard.lock().clear()).sum();
        self.note_removals(removed);
        removed
    }

    /// The servers that are asked now, those of routes aside: a snapshot has no answers of those.
    pub fn servers(&self) -> ServersTag {
        ServersTag::from_bits(self.servers.load(Ordering::Relaxed))
    }

    /// Sets which servers are asked from now on.
    pub fn set_servers(&self, servers: ServersTag) {
        self.servers.store(servers.to_bits(), Ordering::Relaxed);
    }

    /// Answers removed on request since the start: a snapshot that has them is outdated.
    #[must_use]
    pub fn removals(&self) -> u64 {
        self.removals.load(Ordering::Relaxed)
    }

    /// Counts removals. On return the program in the kernel no longer gives the removed answers; it may have one that the cache
    /// has not, so it is told in any case.
    fn note_removals(&self, removed: usize) {
        self.removals.fetch_add(removed as u64, Ordering::Relaxed);
        HOT.forget();
    }

    /// Stores an answer, as an engine does; for answers from a snapshot.
    pub fn insert(&self, key: &Key<'_>, head: &Head, body: &[u8]) {
        let key = key.hashed(&self.seed());
        let answer = Answer { head, body };
        self.with_shard(key.hash(), |shard| shard.insert(&key, &answer));
    }

    /// Removes the answers for `name` and for every name below it; returns their number.
    pub fn remove_below(&self, name: &Name) -> usize {
        let suffix = name.to_lower();
        self.remove_where(|name, _| is_within(name, suffix.as_wire()))
    }

    /// Removes what the servers of these groups have said; returns the number of answers.
    pub fn remove_of_groups(&self, groups: &[u8]) -> usize {
        self.remove_where(|_, head| groups.contains(&head.group))
    }

    /// Removes the answers whose name, in lower case, and head are `chosen`; returns their number.
    fn remove_where(&self, chosen: impl Fn(&[u8], &Head) -> bool) -> usize {
        let (mut removed, mut place) = (0, Cursor::default());
        while let Some((mut shard, slots)) = self.next_slots(&mut place) {
            for slot in slots {
                removed += usize::from(self.remove_slot(&mut shard, slot, &chosen));
            }
        }
        self.note_removals(removed);
        removed
    }

    /// Removes the answer in `slot` if it is `chosen`.
    fn remove_slot(
        &self,
        shard: &mut Shard,
        slot: usize,
        chosen: impl Fn(&[u8], &Head) -> bool,
    ) -> bool {
        let found = shard
            .slot(slot)
            .filter(|(key, answer)| chosen(key.name, answer.head));
        let Some((key, name)) = found.and_then(|(key, _)| Some((key, Name::from_wire(key.name)?)))
        else {
            return false;
        };
        let Key {
            qtype,
            dnssec_ok,
            checking_disabled,
            view,
            ..
        } = key;
        let key = Key {
            name: name.as_wire(),
            qtype,
            dnssec_ok,
            checking_disabled,
            view,
        };
        shard.remove(&key.hashed(&self.seed()))
    }

    /// Locks a shard and returns its next slots from `place`, at most [`STEP`]; advances `place`. `None` at the end.
    fn next_slots(&self, place: &mut Cursor) -> Option<(ShardGuard<'_>, Range<usize>)> {
        let shard = self.shards().get(place.shard)?.lock();
        let slots = place.slot..(place.slot + STEP).min(Shard::SLOTS);
        place.slot = slots.end;
        if place.slot == Shard::SLOTS {
            *place = Cursor {
                shard: place.shard + 1,
                slot: 0,
            };
        }
        Some((shard, slots))
    }
}

/// A shard while it is locked.
type ShardGuard<'c> = MutexGuard<'c, &'static mut Shard>;

/// Position of a walk.
#[derive(Debug, Default)]
struct Cursor {
    shard: usize,
    slot: usize,
}

impl CacheAccess for &SharedCache {
    fn with_shard<T>(&self, hash: u64, f: impl FnOnce(&mut Shard) -> T) -> T {
        let shards = self.shards();
        f(&mut shards[shard_of(hash, shards.len())].lock())
    }

    fn seed(&self) -> [u8; 16] {
        self.table.get().map_or([0; 16], |table| table.seed)
    }
}

/// Visits all slots and copies their answers, [`STEP`] under one lock: callers' code runs without the lock. Answers inserted
/// meanwhile may or may not be seen.
#[derive(Debug)]
pub struct Walk<'c> {
    cache: &'c SharedCache,
    place: Cursor,
    entries: Vec<Entry>,
    bytes: Vec<u8>,
}

/// A copied answer; name and body are in the walk's bytes.
#[derive(Debug)]
struct Entry {
    name: Range<usize>,
    body: Range<usize>,
    qtype: u16,
    dnssec_ok: bool,
    checking_disabled: bool,
    view: u8,
    head: Head,
}

impl<'c> Walk<'c> {
    /// Starts before the first slot. Allocates all memory here, so that nothing is allocated under a lock.
    #[must_use]
    pub fn new(cache: &'c SharedCache) -> Self {
        let (entries, bytes) = (
            Vec::with_capacity(STEP),
            Vec::with_capacity(STEP * CACHE_LARGE_BYTES),
        );
        Self {
            cache,
            place: Cursor::default(),
            entries,
            bytes,
        }
    }

    /// Copies the next slots. False at the end.
    pub fn step(&mut self) -> bool {
        self.entries.clear();
        self.bytes.clear();
        let cache = self.cache;
        let Some((shard, slots)) = cache.next_slots(&mut self.place) else {
            return false;
        };
        for (key, answer) in slots.filter_map(|slot| shard.slot(slot)) {
            let name = self.copy(key.name);
            let body = self.copy(answer.body);
            let Key {
                qtype,
                dnssec_ok,
                checking_disabled,
                view,
                ..
            } = key;
            self.entries.push(Entry {
                name,
                body,
                qtype,
                dnssec_ok,
                checking_disabled,
                view,
                head: *answer.head,
            });
        }
        true
    }

    fn copy(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        start..self.bytes.len()
    }

    /// The answers of the last step.
    pub fn entries(&self) -> impl Iterator<Item = (Key<'_>, Head, &[u8])> {
        self.entries.iter().map(|entry| {
            let Entry {
                qtype,
                dnssec_ok,
                checking_disabled,
                view,
                head,
                ..
            } = *entry;
            let name = &self.bytes[entry.name.clone()];
            let key = Key {
                name,
                qtype,
                dnssec_ok,
                checking_disabled,
                view,
            };
            (key, head, &self.bytes[entry.body.clone()])
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::compile::name::parse;
    use xdnsd_core::limits::{CACHE_ENTRIES, CACHE_ENTRIES_MAX, CACHE_SHARDS_MAX};
    use xdnsd_core::time::Instant;

    /// A cache for one test: in a static, as it is too large for a stack.
    macro_rules! test_cache {
        ($entries:expr) => {{
            static CACHE: $crate::store::SharedCache = $crate::store::SharedCache::new();
            CACHE
                .configure(*b"sixteen bytes ..", $entries)
                .expect("memory");
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
            ttl_secs,
            stored: Instant::from_millis(10_000),
            restored: false,
            ..Head::EMPTY
        }
    }

    /// One A record whose owner is the question's name.
    pub(crate) const BODY: &[u8] = b"\xc0\x0c\0\x01\0\x01\0\0\x01\x2c\0\x04\xc0\0\x02\x01";

    pub(crate) fn name(text: &str) -> Name {
        Name::from_wire(&parse(text).expect("a name")).expect("in wire form")
    }

    /// Two answers for each name, with `head`.
    pub(crate) fn fill(cache: &SharedCache, names: &[&str], head: &Head) {
        for text in names {
            let name = name(text);
            for dnssec_ok in [false, true] {
                let key = Key {
                    name: name.as_wire(),
                    qtype: 1,
                    dnssec_ok,
                    checking_disabled: false,
                    view: 0,
                };
                cache.insert(&key, head, BODY);
            }
        }
    }

    /// The names in the cache, without duplicates.
    pub(crate) fn names(cache: &SharedCache) -> Vec<String> {
        let mut names = Vec::new();
        let mut walk = Walk::new(cache);
        while walk.step() {
            let shown = |name: &[u8]| Name::from_wire(name).map(|name| name.to_string());
            names.extend(walk.entries().filter_map(|(key, ..)| shown(key.name)));
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
            &head(300),
        );
        assert_eq!(cache.len(), 1000);
        assert_eq!(names(cache), expected);
        let (mut steps, mut seen) = (0, 0);
        let mut walk = Walk::new(cache);
        while walk.step() {
            steps += 1;
            seen += walk
                .entries()
                .filter(|(_, kept, body)| *kept == head(300) && *body == BODY)
                .count();
        }
        assert_eq!(
            (seen, steps),
            (1000, CACHE_SHARDS_MAX * Shard::SLOTS.div_ceil(STEP))
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
            &head(300),
        );
        let flush = |text: &str| cache.remove_below(&name(text));
        assert_eq!(flush("Example.ORG"), 4);
        assert_eq!(names(cache), ["badexample.org.", "example.com.", "org."]);
        assert_eq!(flush("example.net"), 0);
        assert_eq!(flush("."), 6);
        assert_eq!(cache.removals(), 10);
        assert!(cache.is_empty());
    }

    #[test]
    fn what_some_groups_have_said_is_removed_and_nothing_else() {
        let cache = test_cache!(8192);
        for (text, group) in [("a.example", 0), ("b.example", 1), ("c.example", 2)] {
            fill(cache, &[text], &Head { group, ..head(300) });
        }
        assert_eq!(cache.remove_of_groups(&[]), 0);
        assert_eq!(cache.remove_of_groups(&[2, 0]), 4);
        assert_eq!(names(cache), ["b.example."]);
        assert_eq!(cache.removals(), 4);
    }

    #[test]
    fn a_larger_cache_keeps_more_answers_and_finds_them_again() {
        let cache = test_cache!(CACHE_ENTRIES_MAX);
        let names: Vec<Name> = (0..2 * CACHE_ENTRIES)
            .map(|index| name(&format!("n{index}.example")))
            .collect();
        fn key(name: &Name) -> Key<'_> {
            Key {
                name: name.as_wire(),
                qtype: 1,
                dnssec_ok: false,
                checking_disabled: false,
                view: 0,
            }
        }
        for name in &names {
            cache.insert(&key(name), &head(300), BODY);
        }
        let is_kept = |name: &&Name| {
            let key = key(name).hashed(&cache.seed());
            cache.with_shard(key.hash(), |shard| shard.find(&key).is_some())
        };
        let kept = names.iter().filter(is_kept).count();
        assert_eq!(kept, cache.len());
        assert!(kept * 100 > names.len() * 99, "{kept} of {}", names.len());
        assert!(bytes_for(CACHE_ENTRIES_MAX) > 7 * bytes_for(CACHE_ENTRIES));
    }

    #[test]
    fn the_limit_is_kept_to_the_last_entry() {
        let cache = test_cache!(0);
        for entries in [0, 1, 100, 4096] {
            cache.limit(entries);
            for index in 0..8000 {
                let name = name(&format!("n{index}.example"));
                let key = Key {
                    name: name.as_wire(),
                    qtype: 1,
                    dnssec_ok: false,
                    checking_disabled: false,
                    view: 0,
                };
                cache.insert(&key, &head(300), BODY);
            }
            assert!(cache.len() <= entries, "{} of {entries}", cache.len());
            assert_eq!(cache.is_empty(), entries == 0);
        }
    }
}
