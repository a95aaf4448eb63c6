//! One shard: a table of small slots and a table of large ones.

use super::table::{Found, Place, Table};
use crate::answer::{Head, Key, NAME_MASK};
use crate::limits::{
    CACHE_ENTRIES, CACHE_LARGE_BYTES, CACHE_LARGE_SETS, CACHE_SHARDS, CACHE_SMALL_BYTES,
    CACHE_SMALL_SETS, CACHE_WAYS, NAME_MAX,
};

type Small = Table<CACHE_SMALL_SETS, CACHE_SMALL_BYTES>;
type Large = Table<CACHE_LARGE_SETS, CACHE_LARGE_BYTES>;

/// What became of an insertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// In a slot that was free.
    Added,
    /// In place of the key's earlier answer.
    Replaced,
    /// Another key's answer was put out for it.
    Evicted,
    /// Not stored, nothing changed: longer than a large slot, or the limit is 0.
    TooLarge,
}

/// What one lock guards. Where it is full, an insertion puts out one other answer, in the set that the hash names.
///
/// An answer goes where it fits: into a small slot, or a large one. A small answer whose small set is full takes a
/// free large slot before it puts out another. A key is never in both tables.
///
/// All zero bits make an empty shard, so a static of them lies in .bss; and what the limit withholds is never touched.
#[derive(Debug)]
pub struct Shard {
    small: Small,
    large: Large,
}

impl Shard {
    /// Slots of a shard.
    pub const SLOTS: usize = Small::SLOTS + Large::SLOTS;

    /// An empty shard that uses all of its slots.
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

    /// Forgets everything and uses at most `entries` slots from now on: whole sets of both sizes in the proportion of
    /// the full shard, or, below one set, so many large slots. 0: nothing is stored.
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

    /// The key's answer, fresh or expired: the caller decides by its [`Head`]. Notes that it was asked for.
    ///
    /// `hash` is the key's, and has led to this shard.
    pub fn find(&mut self, hash: u64, key: &Key) -> Option<Found<'_>> {
        if let Some(place) = self.small.find(hash, key) {
            self.small.reference(place);
            return Some(self.small.get(place));
        }
        let place = self.large.find(hash, key)?;
        self.large.reference(place);
        Some(self.large.get(place))
    }

    /// What is known of the key's answer. Does not note that it was asked for.
    #[must_use]
    pub fn head(&self, hash: u64, key: &Key) -> Option<Head> {
        if let Some(place) = self.small.find(hash, key) {
            return Some(self.small.get(place).head);
        }
        let place = self.large.find(hash, key)?;
        Some(self.large.get(place).head)
    }

    /// Stores an answer in place of the key's earlier one. `head.stored` is the present moment: entries that have
    /// expired by then and that nobody asks for are the first to go.
    pub fn insert(&mut self, hash: u64, key: &Key, head: &Head, body: &[u8]) -> Inserted {
        let bytes = key.name.len() + body.len();
        if key.name.len() > NAME_MAX || !(self.small.fits(bytes) || self.large.fits(bytes)) {
            return Inserted::TooLarge;
        }
        let earlier = self.take(hash, key);
        let referenced = earlier.unwrap_or(false);
        let evicted = self.place(hash, key, head, body, referenced);
        match (evicted, earlier) {
            (true, _) => Inserted::Evicted,
            (false, Some(_)) => Inserted::Replaced,
            (false, None) => Inserted::Added,
        }
    }

    /// Puts the answer into a free slot or a victim's; says whether it was a victim's. It fits one of the tables.
    fn place(&mut self, hash: u64, key: &Key, head: &Head, body: &[u8], referenced: bool) -> bool {
        let bytes = key.name.len() + body.len();
        let small = self.small.fits(bytes);
        if let Some(place) = small.then(|| self.small.free(hash)).flatten() {
            self.small.put(place, hash, key, head, body, referenced);
            return false;
        }
        if let Some(place) = self.large.free(hash) {
            self.large.put(place, hash, key, head, body, referenced);
            return false;
        }
        if small {
            let place = self.small.victim(hash, head.stored);
            self.small.put(place, hash, key, head, body, referenced);
        } else {
            let place = self.large.victim(hash, head.stored);
            self.large.put(place, hash, key, head, body, referenced);
        }
        true
    }

    /// Changes what is known of the key's answer, if there is one.
    pub fn amend(&mut self, hash: u64, key: &Key, change: impl FnOnce(&mut Head)) {
        if let Some(place) = self.small.find(hash, key) {
            change(self.small.head_mut(place));
        } else if let Some(place) = self.large.find(hash, key) {
            change(self.large.head_mut(place));
        }
    }

    /// Removes the key's answer, if there is one.
    pub fn remove(&mut self, hash: u64, key: &Key) -> bool {
        self.take(hash, key).is_some()
    }

    /// Removes the key's answer and says whether it had been asked for.
    fn take(&mut self, hash: u64, key: &Key) -> Option<bool> {
        if let Some(place) = self.small.find(hash, key) {
            return Some(self.small.take(place));
        }
        self.large
            .find(hash, key)
            .map(|place: Place| self.large.take(place))
    }

    /// Removes everything; says how many answers that were.
    pub fn clear(&mut self) -> usize {
        let entries = self.len();
        self.small.clear();
        self.large.clear();
        entries
    }

    /// Answers in the shard, counted anew.
    #[must_use]
    pub fn len(&self) -> usize {
        self.small.len() + self.large.len()
    }

    /// True where there is no answer.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is in the slot at `index` (below [`SLOTS`](Self::SLOTS)): key, head and body; `None` for a free slot.
    /// For dump and snapshot, which take a few slots at a time and let the lock go in between.
    #[must_use]
    pub fn slot(&self, index: usize) -> Option<(Key<'_>, Head, &[u8])> {
        match index.checked_sub(Small::SLOTS) {
            None => self.small.slot(index),
            Some(index) => self.large.slot(index),
        }
    }
}

/// The bits of a hash that name its shard.
const SHARD_MASK: u64 = CACHE_SHARDS as u64 - 1;

/// The shard that a hash belongs to: below [`CACHE_SHARDS`]. All keys of a name are in one, so that one lock is enough to
/// look at several of them.
#[must_use]
pub const fn shard_of(hash: u64) -> usize {
    (hash & SHARD_MASK) as usize
}

const _: () = assert!(
    SHARD_MASK & !NAME_MASK == 0,
    "a name's keys are in one shard"
);
// The goal's figure; a builder who sets other capacities has other memory.
const _: () = assert!(
    size_of::<Shard>() * CACHE_SHARDS <= 5 * 1024 * 1024 || CACHE_ENTRIES != 8192,
    "8,192 answers within 5 MiB"
);
const _: () = assert!(CACHE_SMALL_BYTES < CACHE_LARGE_BYTES);
