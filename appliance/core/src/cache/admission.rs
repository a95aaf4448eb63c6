//! Admission and eviction within a set: names that are asked for once do not evict those that are asked for again.
//!
//! A new entry is *young*. Young entries are evicted first, the oldest before the others, however many there are, so a
//! flood or a scan replaces itself. A young entry that was asked for becomes *kept* when its turn to go comes; CLOCK
//! chooses among the kept ones. An evicted entry leaves its tag behind as a *ghost*; if its key comes back while the ghost
//! is there, it is kept at once. This is S3-FIFO (Yang and others, SOSP 2023) within a set, with one reference bit in place
//! of two.
//!
//! Answers without records (NXDOMAIN, NODATA) are a kind of their own: a young one is evicted for the next one, so names
//! that do not exist do not evict names that do, and at most [`DENIALS`] of a set are young and not asked for again. A kept
//! denial is like any other entry.

use crate::answer::Head;
use crate::limits::CACHE_WAYS;

const _: () = assert!(CACHE_WAYS <= u8::BITS as usize, "one bit per slot");

/// Most denials of a set that are young and not asked for again: a quarter.
pub(super) const DENIALS: u32 = CACHE_WAYS as u32 / 4;

/// Kind of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EntryKind {
    /// Records, or a mark.
    Records,
    /// NXDOMAIN or NODATA, without a record in the answer section.
    Denial,
}

impl EntryKind {
    /// The kind of an answer.
    pub const fn of(head: &Head) -> Self {
        if head.answers == 0 && !head.is_mark() {
            Self::Denial
        } else {
            Self::Records
        }
    }
}

/// Standing of an entry towards eviction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EvictionState {
    /// True if it was asked for since CLOCK last passed it.
    pub referenced: bool,
    /// True if it is kept, false if it is young.
    pub kept: bool,
}

impl EvictionState {
    /// Standing of an entry without a ghost.
    pub const NEW: Self = Self {
        referenced: false,
        kept: false,
    };
    /// Standing of an entry that comes back to its ghost.
    pub const BACK: Self = Self {
        referenced: false,
        kept: true,
    };
}

/// State of a set's eviction, beside the reference bits. All zero bits: no entries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Admission {
    /// One bit per slot: the entry is young.
    young: u8,
    /// One bit per slot: the entry is a denial.
    denials: u8,
    /// Next slot that CLOCK looks at, among the kept entries.
    hand: u8,
    /// Slot at which the search for a young entry begins. Young entries stand in order of arrival.
    young_hand: u8,
    /// Next place for a ghost.
    ghost_hand: u8,
}

impl Admission {
    /// State of an empty set.
    pub const NEW: Self = Self {
        young: 0,
        denials: 0,
        hand: 0,
        young_hand: 0,
        ghost_hand: 0,
    };

    /// True if the set has as many young denials as it may have.
    pub const fn has_its_denials(&self, referenced: u8) -> bool {
        (self.young & self.denials & !referenced).count_ones() >= DENIALS
    }

    /// Picks the slot whose entry is evicted for a new one of `kind`. Young entries that were asked for become kept first.
    /// Evicted is a young entry of the same kind; else one of the other kind if there is more than one; else CLOCK's
    /// choice.
    pub fn victim(&mut self, referenced: &mut u8, kind: EntryKind, ways: usize) -> usize {
        let promoted = self.young & *referenced;
        self.young &= !promoted;
        *referenced &= !promoted;
        let (records, denials) = (self.young & !self.denials, self.young & self.denials);
        let (same, other) = match kind {
            EntryKind::Records => (records, denials),
            EntryKind::Denial => (denials, records),
        };
        let from = if same != 0 {
            same
        } else if other.count_ones() > 1 {
            other
        } else {
            0
        };
        if from != 0 {
            return first_from(from, self.young_hand);
        }
        let kept = first_ways(ways) & !self.young;
        if kept == 0 {
            return first_from(self.young, self.young_hand);
        }
        self.advance_hand(referenced, kept)
    }

    /// CLOCK: finds the first entry of `kept` that was not asked for since the hand last passed it. The hand stays there.
    fn advance_hand(&mut self, referenced: &mut u8, kept: u8) -> usize {
        for _ in 0..CACHE_WAYS {
            let way = first_from(kept, self.hand);
            self.hand = way as u8;
            if *referenced & 1 << way == 0 {
                return way;
            }
            *referenced &= !(1 << way);
            self.hand += 1;
        }
        // All were asked for: the round has cleared every bit and ends where it began.
        first_from(kept, self.hand)
    }

    /// Notes a new entry at `way`. The hands move past it, so that it has a whole round in which it can be asked for.
    pub fn enter(
        &mut self,
        referenced: &mut u8,
        way: usize,
        kind: EntryKind,
        eviction: EvictionState,
        ways: usize,
    ) {
        let bit = 1 << way;
        let is_denial = kind == EntryKind::Denial;
        self.young = self.young & !bit | u8::from(!eviction.kept) << way;
        self.denials = self.denials & !bit | u8::from(is_denial) << way;
        *referenced = *referenced & !bit | u8::from(eviction.referenced) << way;
        let next = ((way + 1) % ways) as u8;
        if usize::from(self.hand) == way {
            self.hand = next;
        }
        if eviction == EvictionState::NEW {
            self.young_hand = next;
        }
    }

    /// Notes that the entry at `way` is gone, and returns its standing.
    pub const fn leave(&mut self, referenced: &mut u8, way: usize) -> EvictionState {
        let bit = 1 << way;
        let eviction = EvictionState {
            referenced: *referenced & bit != 0,
            kept: self.young & bit == 0,
        };
        self.young &= !bit;
        self.denials &= !bit;
        *referenced &= !bit;
        eviction
    }

    /// Place for the next ghost, which overwrites the oldest one.
    pub fn next_ghost(&mut self, ways: usize) -> usize {
        let place = usize::from(self.ghost_hand) % ways;
        self.ghost_hand = ((place + 1) % ways) as u8;
        place
    }
}

/// Bits of the first `ways` slots.
const fn first_ways(ways: usize) -> u8 {
    (0xff_u16 >> (8 - ways)) as u8
}

/// First slot among `ways`, which is not empty, from `from` on and around.
const fn first_from(ways: u8, from: u8) -> usize {
    let behind = ways & (0xff_u16 << from) as u8;
    let chosen = if behind != 0 { behind } else { ways };
    chosen.trailing_zeros() as usize
}
