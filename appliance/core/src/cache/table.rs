//! Table of one slot size in a shard: sets of slots, each set with the tags of its slots side by side.
//!
//! ```text
//!  set    | tag 0 .. tag 7 | referenced | admission |   what a look-up reads first: one cache line
//!  slots  | slot 0 | slot 1 | .. | slot 7 |
//!  slot   | head | QTYPE | flags | name length | ghost | name, body |
//! ```
//!
//! [`super::admission`] describes which entry a full set evicts.

use heapless::Vec;

use super::admission::{Admission, EntryKind, EvictionState};
use crate::answer::{Answer, HashedKey, Head, Key, NAME_MASK};
use crate::limits::CACHE_WAYS;
use crate::time::Instant;

/// An answer with its key. `bytes` holds the name, then the body.
///
/// `repr(C)`, so that the fields that a look-up compares stand before the bytes, within one or two cache lines. Rust's own
/// order would put the single bytes behind them.
#[derive(Debug)]
#[repr(C)]
struct Slot<const BYTES: usize> {
    head: Head,
    qtype: u16,
    flags: u8,
    name_len: u8,
    /// Belongs to the set and not to the entry: the tag of an evicted entry; 0 if none. It fits into padding, so it costs
    /// no memory.
    ghost: u16,
    bytes: Vec<u8, BYTES, u16>,
}

impl<const BYTES: usize> Slot<BYTES> {
    const fn new() -> Self {
        Self {
            head: Head::ZERO,
            qtype: 0,
            flags: 0,
            name_len: 0,
            ghost: 0,
            bytes: Vec::new(),
        }
    }

    fn holds(&self, key: &Key) -> bool {
        self.qtype == key.qtype && self.flags == key.flags() && self.name() == key.name
    }

    fn name(&self) -> &[u8] {
        &self.bytes[..usize::from(self.name_len)]
    }

    fn body(&self) -> &[u8] {
        &self.bytes[usize::from(self.name_len)..]
    }

    fn key(&self) -> Key<'_> {
        Key::from_parts(self.name(), self.qtype, self.flags)
    }

    fn answer(&self) -> Answer<'_> {
        Answer {
            head: &self.head,
            body: self.body(),
        }
    }

    /// Stores an entry. The shard has checked that name and body fit.
    fn store(&mut self, key: &Key, answer: &Answer<'_>) {
        self.head = *answer.head;
        self.qtype = key.qtype;
        self.flags = key.flags();
        self.name_len = key.name.len() as u8;
        self.bytes.clear();
        let stored = self
            .bytes
            .extend_from_slice(key.name)
            .and_then(|()| self.bytes.extend_from_slice(answer.body));
        debug_assert!(
            stored.is_ok(),
            "the shard picks a table whose slots are long enough"
        );
    }
}

/// State of a set that a look-up reads before any slot.
#[derive(Clone, Copy, Debug)]
struct Set {
    /// Tag of each slot; 0 if the slot is free.
    tags: [u16; CACHE_WAYS],
    /// One bit per slot: the entry was found since it was last passed over.
    referenced: u8,
    /// State of eviction.
    admission: Admission,
}

impl Set {
    const FREE: Self = Self {
        tags: [0; CACHE_WAYS],
        referenced: 0,
        admission: Admission::NEW,
    };
}

/// Position of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SlotId {
    set: usize,
    way: usize,
}

/// Sets of [`CACHE_WAYS`] slots of `BYTES` bytes. When full, a set evicts the entry that expired first among those not
/// asked for again, or else the one that [`Admission`] picks.
#[derive(Debug)]
pub(super) struct Table<const SETS: usize, const BYTES: usize> {
    sets: [Set; SETS],
    slots: [[Slot<BYTES>; CACHE_WAYS]; SETS],
    /// Number of unused sets at the end. Counted this way so that all zero bits are the whole table.
    sets_withheld: usize,
    /// Number of unused slots at the end of each set.
    ways_withheld: usize,
}

impl<const SETS: usize, const BYTES: usize> Table<SETS, BYTES> {
    /// Number of slots of the table.
    pub const SLOTS: usize = SETS * CACHE_WAYS;

    pub const fn new() -> Self {
        const { assert!(SETS > 0 && BYTES <= u16::MAX as usize) };
        Self {
            sets: [Set::FREE; SETS],
            slots: [const { [const { Slot::new() }; CACHE_WAYS] }; SETS],
            sets_withheld: 0,
            ways_withheld: 0,
        }
    }

    /// Removes all entries and sets the limit to `slots` slots, in whole sets if it is at least one set.
    pub fn limit(&mut self, slots: usize) {
        self.clear();
        let sets = (slots / CACHE_WAYS).clamp(usize::from(slots > 0), SETS);
        self.sets_withheld = SETS - sets;
        self.ways_withheld = CACHE_WAYS - slots.min(CACHE_WAYS);
    }

    const fn sets_used(&self) -> usize {
        SETS - self.sets_withheld
    }

    const fn ways_used(&self) -> usize {
        CACHE_WAYS - self.ways_withheld
    }

    /// True if an entry of this many bytes fits a slot, and the table has slots.
    pub const fn fits(&self, bytes: usize) -> bool {
        bytes <= BYTES && self.sets_used() > 0
    }

    /// Finds the key's entry. Tags are compared before any slot is read.
    pub fn find(&self, key: &HashedKey<'_>) -> Option<SlotId> {
        let set = set_of(key.hash(), self.sets_used());
        let tag = tag_of(key.hash());
        // The tags of a set share a cache line. A slot is read only if its tag matches, as one in 65,535 other keys' does.
        let slots = self.slots.get(set)?;
        let ways = self.sets[set].tags.iter().zip(slots);
        let way = ways
            .into_iter()
            .position(|(slot_tag, slot)| *slot_tag == tag && slot.holds(key.key()))?;
        Some(SlotId { set, way })
    }

    /// Sets the entry's reference bit.
    pub fn reference(&mut self, id: SlotId) {
        self.sets[id.set].referenced |= 1 << id.way;
    }

    /// Head of the answer, for changes.
    pub fn head_mut(&mut self, id: SlotId) -> &mut Head {
        &mut self.slots[id.set][id.way].head
    }

    /// Answer in a slot that [`find`](Self::find) has returned.
    pub fn get(&self, id: SlotId) -> Answer<'_> {
        self.slots[id.set][id.way].answer()
    }

    /// Entry at `index` among all slots; `None` if the slot is free.
    pub fn slot(&self, index: usize) -> Option<(Key<'_>, Answer<'_>)> {
        let (set, way) = (index / CACHE_WAYS, index % CACHE_WAYS);
        if self.sets.get(set)?.tags[way] == 0 {
            return None;
        }
        let slot = &self.slots[set][way];
        Some((slot.key(), slot.answer()))
    }

    /// Stores the answer in a free slot of its set, if it may have one; returns true if it did. `earlier` is the standing
    /// of the key's earlier answer.
    pub fn add(
        &mut self,
        key: &HashedKey<'_>,
        answer: &Answer<'_>,
        earlier: Option<EvictionState>,
    ) -> bool {
        let eviction = earlier.unwrap_or(EvictionState::NEW);
        let Some(id) = self.free(key.hash(), EntryKind::of(answer.head), eviction) else {
            return false;
        };
        self.put(id, key, answer, eviction);
        true
    }

    /// Stores the answer in its set in place of another entry. The table must have a slot.
    pub fn replace(
        &mut self,
        key: &HashedKey<'_>,
        answer: &Answer<'_>,
        earlier: Option<EvictionState>,
    ) {
        let eviction = earlier.unwrap_or_else(|| self.eviction(key.hash()));
        let kind = EntryKind::of(answer.head);
        let id = self.victim(key.hash(), kind, answer.head.stored);
        self.put(id, key, answer, eviction);
    }

    /// A free slot of the hash's set; `None` if there is none or an entry of this kind may not have it.
    fn free(&self, hash: u64, kind: EntryKind, eviction: EvictionState) -> Option<SlotId> {
        let set = set_of(hash, self.sets_used());
        let Set {
            tags,
            admission,
            referenced,
        } = self.sets.get(set)?;
        let way = tags[..self.ways_used()].iter().position(|tag| *tag == 0)?;
        let is_bound = kind == EntryKind::Denial
            && eviction == EvictionState::NEW
            && admission.has_its_denials(*referenced);
        (!is_bound).then_some(SlotId { set, way })
    }

    /// Standing of a new entry: `BACK` if the set has a ghost of its tag, which is removed.
    fn eviction(&mut self, hash: u64) -> EvictionState {
        let (set, tag) = (set_of(hash, self.sets_used()), tag_of(hash));
        let ways = self.ways_used();
        let ghost = self
            .slots
            .get_mut(set)
            .and_then(|slots| slots[..ways].iter_mut().find(|slot| slot.ghost == tag));
        match ghost {
            Some(slot) => {
                slot.ghost = 0;
                EvictionState::BACK
            }
            None => EvictionState::NEW,
        }
    }

    /// Slot of the hash's set whose entry is evicted for one of this kind. The set must have a slot.
    fn victim(&mut self, hash: u64, kind: EntryKind, now: Instant) -> SlotId {
        let set = set_of(hash, self.sets_used());
        let ways = self.ways_used();
        let way = match self.longest_expired(set, now) {
            Some(way) => way,
            None => {
                let Set {
                    admission,
                    referenced,
                    ..
                } = &mut self.sets[set];
                admission.victim(referenced, kind, ways)
            }
        };
        SlotId { set, way }
    }

    /// Finds the entry that expired first among those that were not asked for since they were last passed over. Expired
    /// entries that are asked for are what clients get while upstream is silent (RFC 8767), so their reference bit protects
    /// them.
    fn longest_expired(&self, set: usize, now: Instant) -> Option<usize> {
        let (slots, held) = (&self.slots[set], &self.sets[set]);
        let expired = |way: &usize| {
            let is_idle = held.tags[*way] != 0 && held.referenced & 1 << *way == 0;
            is_idle && slots[*way].head.expires() <= now
        };
        (0..self.ways_used())
            .filter(expired)
            .min_by_key(|way| slots[*way].head.expires())
    }

    /// Stores an entry in a slot. The entry that was there leaves a ghost.
    pub fn put(
        &mut self,
        id: SlotId,
        key: &HashedKey<'_>,
        answer: &Answer<'_>,
        eviction: EvictionState,
    ) {
        let ways = self.ways_used();
        let Set {
            tags,
            referenced,
            admission,
        } = &mut self.sets[id.set];
        let slots = &mut self.slots[id.set];
        let evicted = core::mem::replace(&mut tags[id.way], tag_of(key.hash()));
        if evicted != 0 {
            slots[admission.next_ghost(ways)].ghost = evicted;
        }
        admission.enter(
            referenced,
            id.way,
            EntryKind::of(answer.head),
            eviction,
            ways,
        );
        slots[id.way].store(key.key(), answer);
    }

    /// Frees a slot and returns the standing of its entry.
    pub fn take(&mut self, id: SlotId) -> EvictionState {
        let set = &mut self.sets[id.set];
        set.tags[id.way] = 0;
        set.admission.leave(&mut set.referenced, id.way)
    }

    /// Frees all slots.
    pub fn clear(&mut self) {
        self.sets.fill(Set::FREE);
    }

    /// Number of entries, counted at each call.
    pub fn len(&self) -> usize {
        self.sets
            .iter()
            .flat_map(|set| &set.tags)
            .filter(|tag| **tag != 0)
            .count()
    }
}

/// Set of a hash among `sets`, by multiply and shift; `sets` need not be a power of two.
pub(super) const fn set_of(hash: u64, sets: usize) -> usize {
    (((hash >> 32) * sets as u64) >> 32) as usize
}

/// Tag of a hash; never 0, which marks a free slot.
pub(super) const fn tag_of(hash: u64) -> u16 {
    match (hash >> 16) as u16 {
        0 => 1,
        tag => tag,
    }
}

// Set and tag come from bits that differ by type and flags; otherwise all types of a name would share a set.
const _: () = assert!(NAME_MASK <= 0xffff);
