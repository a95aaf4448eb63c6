//! One slot size of a shard: sets of slots, each set with the tags of its slots beside each other.
//!
//! ```text
//!  set    | tag 0 .. tag 7 | referenced | admission |   what a look-up reads first: one cache line
//!  slots  | slot 0 | slot 1 | .. | slot 7 |
//!  slot   | head | QTYPE | flags | name length | ghost | name, body |
//! ```
//!
//! What a full set gives up for a new entry is said in [`super::admission`].

use heapless::Vec;

use super::admission::{Admission, EntryKind, Standing};
use crate::answer::{Answer, HashedKey, Head, Key, NAME_MASK};
use crate::limits::CACHE_WAYS;
use crate::time::Instant;

/// One answer with its key. The bytes are those of the name, then those of the body.
///
/// The order of the fields is that of memory: what a look-up compares lies in front of the bytes, in one or two cache lines, where
/// the compiler would put the single bytes behind them.
#[derive(Debug)]
#[repr(C)]
struct Slot<const BYTES: usize> {
    head: Head,
    qtype: u16,
    flags: u8,
    name_len: u8,
    /// Nothing of the entry, but of the set: the tag of an entry that was put out; 0: none. It costs no memory: a slot without
    /// it is as long.
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

    /// Name and body have to fit: the shard has looked.
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

/// What a look-up reads before any slot.
#[derive(Clone, Copy, Debug)]
struct Set {
    /// Of each slot; 0: free.
    tags: [u16; CACHE_WAYS],
    /// One bit per slot: found since it was last passed over.
    referenced: u8,
    /// Which entries are to go.
    admission: Admission,
}

impl Set {
    const FREE: Self = Self {
        tags: [0; CACHE_WAYS],
        referenced: 0,
        admission: Admission::NEW,
    };
}

/// The slot at `way` of `set`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SlotId {
    set: usize,
    way: usize,
}

/// Sets of [`CACHE_WAYS`] slots of `BYTES` bytes. A full set evicts the entry that expired longest ago among those
/// not asked for again, or else the one that [`Admission`] picks.
#[derive(Debug)]
pub(super) struct Table<const SETS: usize, const BYTES: usize> {
    sets: [Set; SETS],
    slots: [[Slot<BYTES>; CACHE_WAYS]; SETS],
    /// Sets at the end that are not used. Counted so that all zero means the whole table.
    sets_withheld: usize,
    /// Ways at the end of each set that are not used.
    ways_withheld: usize,
}

impl<const SETS: usize, const BYTES: usize> Table<SETS, BYTES> {
    /// Slots of the table.
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

    /// Forgets everything and uses at most `slots` slots from now on, in whole sets where that is at least one.
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

    /// True where an entry of so many bytes fits a slot, and there is a slot.
    pub const fn fits(&self, bytes: usize) -> bool {
        bytes <= BYTES && self.sets_used() > 0
    }

    /// Where the key's entry is. Tags are compared before any slot is touched.
    pub fn find(&self, key: &HashedKey<'_>) -> Option<SlotId> {
        let set = set_of(key.hash(), self.sets_used());
        let tag = tag_of(key.hash());
        // The tags of a set stand in one cache line; a slot is touched where its tag agrees, which one other key in 65,535 does.
        let slots = self.slots.get(set)?;
        let ways = self.sets[set].tags.iter().zip(slots);
        let way = ways
            .into_iter()
            .position(|(slot_tag, slot)| *slot_tag == tag && slot.holds(key.key()))?;
        Some(SlotId { set, way })
    }

    /// Notes that the entry was asked for.
    pub fn reference(&mut self, id: SlotId) {
        self.sets[id.set].referenced |= 1 << id.way;
    }

    /// What is known of the answer there, to change it.
    pub fn head_mut(&mut self, id: SlotId) -> &mut Head {
        &mut self.slots[id.set][id.way].head
    }

    /// The answer in a slot that [`find`](Self::find) gave.
    pub fn get(&self, id: SlotId) -> Answer<'_> {
        self.slots[id.set][id.way].answer()
    }

    /// The entry at `index`, counted over all slots.
    pub fn slot(&self, index: usize) -> Option<(Key<'_>, Answer<'_>)> {
        let (set, way) = (index / CACHE_WAYS, index % CACHE_WAYS);
        if self.sets.get(set)?.tags[way] == 0 {
            return None;
        }
        let slot = &self.slots[set][way];
        Some((slot.key(), slot.answer()))
    }

    /// Puts the answer into a free slot of its set, if it may have one. Whether it did. `earlier`: how the key's last answer stood.
    pub fn add(
        &mut self,
        key: &HashedKey<'_>,
        answer: &Answer<'_>,
        earlier: Option<Standing>,
    ) -> bool {
        let standing = earlier.unwrap_or(Standing::NEW);
        let Some(id) = self.free(key.hash(), EntryKind::of(answer.head), standing) else {
            return false;
        };
        self.put(id, key, answer, standing);
        true
    }

    /// Puts the answer into its set, which has a slot, in place of another entry.
    pub fn replace(&mut self, key: &HashedKey<'_>, answer: &Answer<'_>, earlier: Option<Standing>) {
        let standing = earlier.unwrap_or_else(|| self.standing(key.hash()));
        let kind = EntryKind::of(answer.head);
        let id = self.victim(key.hash(), kind, answer.head.stored);
        self.put(id, key, answer, standing);
    }

    /// A free slot of the hash's set, if an entry of this kind may have it.
    fn free(&self, hash: u64, kind: EntryKind, standing: Standing) -> Option<SlotId> {
        let set = set_of(hash, self.sets_used());
        let Set {
            tags,
            admission,
            referenced,
        } = self.sets.get(set)?;
        let way = tags[..self.ways_used()].iter().position(|tag| *tag == 0)?;
        let is_bound = kind == EntryKind::Denial
            && standing == Standing::NEW
            && admission.has_its_denials(*referenced);
        (!is_bound).then_some(SlotId { set, way })
    }

    /// How a new entry of the hash stands: whether one of its tag was put out of its set lately. The ghost is laid: the entry is
    /// about to come back.
    fn standing(&mut self, hash: u64) -> Standing {
        let (set, tag) = (set_of(hash, self.sets_used()), tag_of(hash));
        let ways = self.ways_used();
        let ghost = self
            .slots
            .get_mut(set)
            .and_then(|slots| slots[..ways].iter_mut().find(|slot| slot.ghost == tag));
        match ghost {
            Some(slot) => {
                slot.ghost = 0;
                Standing::BACK
            }
            None => Standing::NEW,
        }
    }

    /// The slot of the hash's set whose entry goes for one of this kind. There is a set.
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

    /// Among the expired entries that nobody has asked for since they were passed over, the one that expired first. Expired
    /// entries that are asked for are what clients get while upstream is silent (RFC 8767): for them it counts whether they are
    /// asked for.
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

    /// Puts an entry into a slot of its set, in place of what was there, of which a ghost stays.
    pub fn put(
        &mut self,
        id: SlotId,
        key: &HashedKey<'_>,
        answer: &Answer<'_>,
        standing: Standing,
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
            standing,
            ways,
        );
        slots[id.way].store(key.key(), answer);
    }

    /// Frees a slot and says how its entry stood.
    pub fn take(&mut self, id: SlotId) -> Standing {
        let set = &mut self.sets[id.set];
        set.tags[id.way] = 0;
        set.admission.leave(&mut set.referenced, id.way)
    }

    /// Frees every slot.
    pub fn clear(&mut self) {
        self.sets.fill(Set::FREE);
    }

    /// How many slots are in use, counted anew.
    pub fn len(&self) -> usize {
        self.sets
            .iter()
            .flat_map(|set| &set.tags)
            .filter(|tag| **tag != 0)
            .count()
    }
}

/// The set among `sets` that a hash belongs to, by multiply and shift: `sets` need not be a power of two.
pub(super) const fn set_of(hash: u64, sets: usize) -> usize {
    (((hash >> 32) * sets as u64) >> 32) as usize
}

/// The tag of a hash: never 0, which marks a free slot.
pub(super) const fn tag_of(hash: u64) -> u16 {
    match (hash >> 16) as u16 {
        0 => 1,
        tag => tag,
    }
}

// Set and tag are taken from bits that differ by type and flags, or all types of a name would meet in one set.
const _: () = assert!(NAME_MASK <= 0xffff);
