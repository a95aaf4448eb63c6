//! Which entry of a set goes, so that names that are asked for once do not put out those that are asked for again.
//!
//! A new entry is *young*. Young ones go first, the oldest of them before the others, as many as there may come: so a flood or
//! a scan replaces itself. One that was asked for meanwhile is *kept* when its turn comes; among those that are kept CLOCK
//! decides. Of what was put out the tag stays as a *ghost*: who comes back while it is remembered is kept at once. That is
//! S3-FIFO (Yang and others, SOSP 2023) within a set, with one bit where it has two.
//!
//! Answers without a record (NXDOMAIN, NODATA) are a kind of their own: a young one goes for the next one, so names that do not
//! exist put out none that do, and nobody has asked for more than [`DENIALS`] of a set again. A denial that is kept is like
//! every other entry.

use crate::answer::Head;
use crate::limits::CACHE_WAYS;

const _: () = assert!(CACHE_WAYS <= u8::BITS as usize, "one bit per slot");

/// Young denials of a set that nobody has asked for again, at most: a quarter.
pub(super) const DENIALS: u32 = CACHE_WAYS as u32 / 4;

/// What an entry says of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EntryKind {
    /// Records, or a mark of ours.
    Records,
    /// NXDOMAIN or NODATA.
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

/// What an entry has earned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// It was asked for since it was last passed over.
    pub referenced: bool,
    /// It is kept.
    pub kept: bool,
}

impl Standing {
    /// Of an entry that nobody knows.
    pub const NEW: Self = Self {
        referenced: false,
        kept: false,
    };
    /// Of one that has come back.
    pub const BACK: Self = Self {
        referenced: false,
        kept: true,
    };
}

/// What is known of a set's entries beside that they were asked for. All zero bits: nothing is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Admission {
    /// One bit per slot: young.
    young: u8,
    /// One bit per slot: a denial.
    denials: u8,
    /// The slot that CLOCK looks at next among those that are kept.
    hand: u8,
    /// The slot from which on young ones are looked for: they stand in the order in which they came.
    young_hand: u8,
    /// The next place for a ghost.
    ghost_hand: u8,
}

impl Admission {
    /// Nothing is known.
    pub const NEW: Self = Self {
        young: 0,
        denials: 0,
        hand: 0,
        young_hand: 0,
        ghost_hand: 0,
    };

    /// Whether there are as many young denials as there may be.
    pub const fn has_its_denials(&self, referenced: u8) -> bool {
        (self.young & self.denials & !referenced).count_ones() >= DENIALS
    }

    /// The way whose entry goes for a new one of `kind`. Young ones that were asked for are kept from now on. A young one of the
    /// same kind goes; then one of the other kind where it has more than one; then what CLOCK picks.
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

    /// CLOCK: the first entry of `kept` that was not asked for since the hand last passed it. The hand stays there.
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
        // All were asked for: the round took every bit away and ended where it began.
        first_from(kept, self.hand)
    }

    /// An entry has come to `way`. The hands move off it, so that it has a whole round in which to be asked for.
    pub fn enter(
        &mut self,
        referenced: &mut u8,
        way: usize,
        kind: EntryKind,
        standing: Standing,
        ways: usize,
    ) {
        let bit = 1 << way;
        let is_denial = kind == EntryKind::Denial;
        self.young = self.young & !bit | u8::from(!standing.kept) << way;
        self.denials = self.denials & !bit | u8::from(is_denial) << way;
        *referenced = *referenced & !bit | u8::from(standing.referenced) << way;
        let next = ((way + 1) % ways) as u8;
        if usize::from(self.hand) == way {
            self.hand = next;
        }
        if standing == Standing::NEW {
            self.young_hand = next;
        }
    }

    /// The entry at `way` has gone; how it stood.
    pub const fn leave(&mut self, referenced: &mut u8, way: usize) -> Standing {
        let bit = 1 << way;
        let standing = Standing {
            referenced: *referenced & bit != 0,
            kept: self.young & bit == 0,
        };
        self.young &= !bit;
        self.denials &= !bit;
        *referenced &= !bit;
        standing
    }

    /// The place for the next ghost: that of the oldest one.
    pub fn next_ghost(&mut self, ways: usize) -> usize {
        let place = usize::from(self.ghost_hand) % ways;
        self.ghost_hand = ((place + 1) % ways) as u8;
        place
    }
}

/// The bits of the first `ways` ways.
const fn first_ways(ways: usize) -> u8 {
    (0xff_u16 >> (8 - ways)) as u8
}

/// The first way of `ways`, which is not empty, from `from` on and around.
const fn first_from(ways: u8, from: u8) -> usize {
    let behind = ways & (0xff_u16 << from) as u8;
    let chosen = if behind != 0 { behind } else { ways };
    chosen.trailing_zeros() as usize
}
