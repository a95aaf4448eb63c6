//! A shard: a table of small slots and a table of large ones.

use super::admission::EvictionState;
use super::table::Table;
use crate::answer::{Answer, HashedKey, Head, Key, NAME_MASK};
use crate::limits::{
    CACHE_ENTRIES, CACHE_LARGE_BYTES, CACHE_LARGE_SETS, CACHE_SHARDS, CACHE_SHARDS_MAX,
    CACHE_SMALL_BYTES, CACHE_SMALL_SETS, CACHE_WAYS, NAME_MAX, SHARD_ENTRIES,
};

type Small = Table<CACHE_SMALL_SETS, CACHE_SMALL_BYTES>;
type Large = Table<CACHE_LARGE_SETS, CACHE_LARGE_BYTES>;

/// Result of an insertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// Stored in a free slot.
    Added,
    /// Stored in place of the key's earlier answer.
    Replaced,
    /// Stored in place of another key's answer, which was evicted.
    Evicted,
    /// Not stored, and nothing changed: the answer is longer than a large slot, or the limit is 0.
    TooLarge,
}

/// Part of the cache behind one lock. When full, an insertion evicts one other answer of the set that the hash selects.
///
/// An answer goes into a small slot if it fits, else into a large one. A small answer whose small set is full takes a free
/// large slot before it evicts another. A key is in one table at most.
///
/// All zero bits are an empty shard, so a static shard lies in .bss, and memory beyond the limit is never touched.
#[derive(Debug)]
pub struct Shard {
    small: Small,
    large: Large,
}

impl Shard {
    /// Number of slots of a shard.
    pub const SLOTS: usize = Small::SLOTS + Large::SLOTS;

    /// An empty shard without a limit.
    #[must_use]
    #[expect(
        clippy::new_without_default,
        reason = "300 KiB: a shard belongs in a static, not on a stack"
    )]
    pub const fn new() -> Self {
        Self {
            small: Table::new(),
            large: Table::new(),
        }
    }

    /// Removes all answers and sets the limit to `entries` slots: whole sets of both sizes in the proportion of the full
    /// shard, or, for less than a set, as many large slots. 0: nothing is stored.
    pub fn limit(&mut self, entries: usize) {
        let sets = entries.min(Self::SLOTS) / CACHE_WAYS;
        let large_sets = (sets * CACHE_LARGE_SETS).div_ceil(CACHE_SMALL_SETS + CACHE_LARGE_SETS);
        let large = if sets == 0 {
            entries
        } else {
            large_sets * CACHE_WAYS
        };
        self.large.limit(large);
        self.small.limit((sets - large_sets) * CACHE_WAYS);
    }

    /// Finds the key's answer, fresh or expired (its [`Head`] tells), and sets its reference bit.
    ///
    /// The key must belong to this shard, see [`shard_of`].
    pub fn find(&mut self, key: &HashedKey<'_>) -> Option<Answer<'_>> {
        if let Some(id) = self.small.find(key) {
            self.small.reference(id);
            return Some(self.small.get(id));
        }
        let id = self.large.find(key)?;
        self.large.reference(id);
        Some(self.large.get(id))
    }

    /// Head of the key's answer. Leaves the reference bit alone.
    #[must_use]
    pub fn head(&self, key: &HashedKey<'_>) -> Option<&Head> {
        if let Some(id) = self.small.find(key) {
            return Some(self.small.get(id).head);
        }
        let id = self.large.find(key)?;
        Some(self.large.get(id).head)
    }

    /// Stores an answer in place of the key's earlier one. `head.stored` has to be the present time: entries that have
    /// expired by then and are not asked for are evicted first.
    pub fn insert(&mut self, key: &HashedKey<'_>, answer: &Answer<'_>) -> Inserted {
        let name_len = key.key().name.len();
        let bytes = name_len + answer.body.len();
        if name_len > NAME_MAX || !(self.small.fits(bytes) || self.large.fits(bytes)) {
            return Inserted::TooLarge;
        }
        // The new answer may belong in the other table, and a key is never in both.
        let earlier = self.take(key);
        let evicted = self.put(key, answer, earlier);
        match (evicted, earlier) {
            (true, _) => Inserted::Evicted,
            (false, Some(_)) => Inserted::Replaced,
            (false, None) => Inserted::Added,
        }
    }

    /// Stores the answer, which fits one of the tables, in a free slot or in place of another entry. Returns true if it
    /// evicted one.
    fn put(
        &mut self,
        key: &HashedKey<'_>,
        answer: &Answer<'_>,
        earlier: Option<EvictionState>,
    ) -> bool {
        let is_small = self.small.fits(key.key().name.len() + answer.body.len());
        if is_small && self.small.add(key, answer, earlier) || self.large.add(key, answer, earlier)
        {
            return false;
        }
        if is_small {
            self.small.replace(key, answer, earlier);
        } else {
            self.large.replace(key, answer, earlier);
        }
        true
    }

    /// Changes the head of the key's answer, if there is one.
    pub fn amend(&mut self, key: &HashedKey<'_>, change: impl FnOnce(&mut Head)) {
        if let Some(id) = self.small.find(key) {
            change(self.small.head_mut(id));
        } else if let Some(id) = self.large.find(key) {
            change(self.large.head_mut(id));
        }
    }

    /// Removes the key's answer; true if there was one.
    pub fn remove(&mut self, key: &HashedKey<'_>) -> bool {
        self.take(key).is_some()
    }

    /// Removes the key's answer and returns its standing.
    fn take(&mut self, key: &HashedKey<'_>) -> Option<EvictionState> {
        if let Some(id) = self.small.find(key) {
            return Some(self.small.take(id));
        }
        self.large.find(key).map(|id| self.large.take(id))
    }

    /// Removes all answers and returns their number.
    pub fn clear(&mut self) -> usize {
        let entries = self.len();
        self.small.clear();
        self.large.clear();
        entries
    }

    /// Number of answers in the shard, counted at each call.
    #[must_use]
    pub fn len(&self) -> usize {
        self.small.len() + self.large.len()
    }

    /// True if the shard has no answer.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Entry in the slot at `index` (below [`SLOTS`](Self::SLOTS)); `None` if the slot is free. For dump and snapshot,
    /// which read a few slots at a time and release the lock in between.
    #[must_use]
    pub fn slot(&self, index: usize) -> Option<(Key<'_>, Answer<'_>)> {
        match index.checked_sub(Small::SLOTS) {
            None => self.small.slot(index),
            Some(index) => self.large.slot(index),
        }
    }
}

/// Number of shards of a cache for so many answers: a power of two. A small cache has as many locks as the default one.
#[must_use]
pub const fn shards_for(entries: usize) -> usize {
    let mut shards = CACHE_SHARDS;
    while shards < CACHE_SHARDS_MAX && shards * SHARD_ENTRIES < entries {
        shards *= 2;
    }
    shards
}

/// Shard of a hash among `shards`, a power of two. All keys of a name are in one shard, so one lock covers look-ups of several
/// of them.
#[must_use]
pub const fn shard_of(hash: u64, shards: usize) -> usize {
    hash as usize & (shards - 1)
}

const _: () = assert!(
    (CACHE_SHARDS_MAX as u64 - 1) & !NAME_MASK == 0,
    "a name's keys are in one shard"
);
// Holds for the default capacity; a build with other capacities takes other memory.
const _: () = assert!(
    size_of::<Shard>() * CACHE_SHARDS <= 5 * 1024 * 1024 || CACHE_ENTRIES != 8192,
    "8,192 answers within 5 MiB"
);
const _: () = assert!(CACHE_SMALL_BYTES < CACHE_LARGE_BYTES);
