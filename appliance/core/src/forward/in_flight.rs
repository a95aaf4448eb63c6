//! Questions in flight at any engine, so that a question is asked once, whichever engine its clients came to.
//!
//! ```text
//!  engine 0: take ──► asks ──► answer into the cache ──► release ──► wakes who waits
//!  engine 1:      wait ────────────────────────────────────────────► looks into the cache
//! ```
//! Each place is one word, which changes in one step. So nobody waits for another's step, and an engine that has said that it
//! waits is either told of the end or learns at once that there is nothing to wait for.

#[cfg(not(loom))]
use core::sync::atomic::{AtomicU64, Ordering};
#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering};

use crate::limits::PENDING;

/// Number of places: twice as many as an engine has questions.
const PLACES: usize = (PENDING * 2).next_power_of_two();
/// Bits of a word that say who asks: number of the engine and 1. 0: free.
const OWNER_BITS: u32 = 8;
/// Bits that say who waits: one for each engine of the same remainder.
const WAITING_BITS: u32 = 16;
const OWNER: u64 = (1 << OWNER_BITS) - 1;
const TAG_SHIFT: u32 = OWNER_BITS + WAITING_BITS;

/// Places of questions. Where two of different names meet in one place the later is not in the table: it may be asked by
/// several engines.
#[derive(Debug)]
pub struct InFlight {
    places: [AtomicU64; PLACES],
}

/// Engines that wait for a question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WaitingEngines(u16);

impl WaitingEngines {
    /// True if nobody waits.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// True if this engine may be one of them.
    #[must_use]
    pub const fn has(self, engine: u8) -> bool {
        self.0 & bit(engine) != 0
    }
}

const fn bit(engine: u8) -> u16 {
    1 << (engine as u32 % WAITING_BITS)
}

/// The part of a hash that is not its place.
const fn tag(hash: u64) -> u64 {
    hash >> TAG_SHIFT << TAG_SHIFT
}

const fn owner(engine: u8) -> u64 {
    engine as u64 + 1
}

const _: () = assert!(
    PLACES <= 1 << TAG_SHIFT,
    "place and tag together are the hash"
);

impl InFlight {
    /// Without questions.
    #[must_use]
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self {
            places: [const { AtomicU64::new(0) }; PLACES],
        }
    }

    /// Without questions.
    #[cfg(loom)]
    pub fn new() -> Self {
        let places = core::array::from_fn(|_| AtomicU64::new(0));
        Self { places }
    }

    fn place(&self, hash: u64) -> &AtomicU64 {
        &self.places[hash as usize % PLACES]
    }

    /// Notes that this engine asks the question with this hash. False if another engine asks it, or has the place.
    pub fn take(&self, hash: u64, engine: u8) -> bool {
        let word = tag(hash) | owner(engine);
        let (order, free) = (Ordering::AcqRel, Ordering::Acquire);
        let place = self.place(hash);
        place.compare_exchange(0, word, order, free).is_ok()
    }

    /// Notes that this engine waits until another one no longer asks. False if no other engine asks.
    pub fn wait(&self, hash: u64, engine: u8) -> bool {
        let waits = |word| {
            let is_asked = asked_by_another(word, hash, engine);
            is_asked.then_some(word | u64::from(bit(engine)) << OWNER_BITS)
        };
        let place = self.place(hash);
        place
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, waits)
            .is_ok()
    }

    /// True while another engine than this asks.
    #[must_use]
    pub fn is_asked(&self, hash: u64, engine: u8) -> bool {
        let word = self.place(hash).load(Ordering::Acquire);
        asked_by_another(word, hash, engine)
    }

    /// Notes that this engine no longer asks, after its answer is in the cache. Returns who waits for that.
    pub fn release(&self, hash: u64, engine: u8) -> WaitingEngines {
        let is_own =
            |word: u64| (tag(word) == tag(hash) && word & OWNER == owner(engine)).then_some(0);
        let place = self.place(hash);
        let released = place.fetch_update(Ordering::AcqRel, Ordering::Acquire, is_own);
        released.map_or(WaitingEngines(0), |word| {
            WaitingEngines((word >> OWNER_BITS) as u16)
        })
    }
}

const fn asked_by_another(word: u64, hash: u64, engine: u8) -> bool {
    word != 0 && tag(word) == tag(hash) && word & OWNER != owner(engine)
}

impl Default for InFlight {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::vec::Vec;

    const HASH: u64 = 0x0123_4567_89ab_cdef;
    /// Another question in the same place.
    const NEIGHBOUR: u64 = HASH ^ 1 << 40;

    #[test]
    fn one_engine_asks_and_the_others_are_told_of_the_end() {
        let table = InFlight::new();
        assert!(!table.wait(HASH, 1), "nobody asks");
        assert!(table.take(HASH, 0));
        assert!(!table.take(HASH, 1));
        assert!(!table.take(HASH, 0), "it has it already");
        assert!(table.is_asked(HASH, 1) && !table.is_asked(HASH, 0));
        assert!(!table.wait(HASH, 0), "nobody waits for himself");
        assert!(table.wait(HASH, 1) && table.wait(HASH, 4) && table.wait(HASH, 4));
        assert!(table.release(HASH, 1).is_empty(), "not its own");
        let waiting = table.release(HASH, 0);
        let told: Vec<u8> = (0..6).filter(|&engine| waiting.has(engine)).collect();
        assert_eq!(told, [1, 4]);
        assert!(table.release(HASH, 0).is_empty(), "told once");
        assert!(table.take(HASH, 1), "free again");
    }

    #[test]
    fn a_question_without_a_place_is_nobodys() {
        let table = InFlight::new();
        assert!(table.take(HASH, 0));
        assert!(!table.take(NEIGHBOUR, 1) && !table.wait(NEIGHBOUR, 1));
        assert!(!table.is_asked(NEIGHBOUR, 1));
        assert!(table.release(NEIGHBOUR, 0).is_empty());
        assert!(table.is_asked(HASH, 1), "the first one stays");
        assert!(table.take(HASH + 1, 1), "another place");
    }

    #[test]
    fn engines_beyond_the_bits_share_one() {
        let table = InFlight::new();
        assert!(table.take(HASH, 64));
        assert!(table.wait(HASH, 20));
        let waiting = table.release(HASH, 64);
        assert!(waiting.has(4) && waiting.has(20) && !waiting.has(5));
    }

    /// What an engine does for a client whose answer is not in the cache, one step at a time.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    enum At {
        Look,
        Take,
        Wait,
        Keep,
        Release,
        Asleep,
        Done,
    }

    struct Play {
        table: InFlight,
        is_cached: bool,
        at: [At; 3],
        is_awake: [bool; 3],
        asked: usize,
    }

    impl Play {
        fn new() -> Self {
            Self {
                table: InFlight::new(),
                is_cached: false,
                at: [At::Look; 3],
                is_awake: [false; 3],
                asked: 0,
            }
        }

        fn can_step(&self, engine: usize) -> bool {
            match self.at[engine] {
                At::Done => false,
                At::Asleep => self.is_awake[engine],
                At::Look | At::Take | At::Wait | At::Keep | At::Release => true,
            }
        }

        fn step(&mut self, engine: usize) {
            let number = engine as u8;
            self.at[engine] = match self.at[engine] {
                At::Look if self.is_cached => At::Done,
                At::Look => At::Take,
                At::Take if self.table.take(HASH, number) => {
                    self.asked += 1;
                    At::Keep
                }
                At::Take => At::Wait,
                At::Wait if self.table.wait(HASH, number) => At::Asleep,
                At::Wait => At::Take,
                At::Keep => {
                    self.is_cached = true;
                    At::Release
                }
                At::Release => {
                    let waiting = self.table.release(HASH, number);
                    let told = (0..3).filter(|&other| waiting.has(other));
                    told.for_each(|other| self.is_awake[usize::from(other)] = true);
                    At::Done
                }
                At::Asleep => {
                    assert!(self.is_cached, "woken with the answer in the cache");
                    At::Done
                }
                At::Done => At::Done,
            };
        }
    }

    /// All orders of the steps of three engines.
    #[test]
    #[cfg_attr(miri, ignore = "thousands of rounds")]
    fn in_whatever_order_nobody_sleeps_on_and_who_waits_finds_the_answer() {
        // Each order is the list of who steps next; the next order is found by counting up its last choice.
        let (mut order, mut orders): (Vec<usize>, usize) = (Vec::new(), 0);
        loop {
            let mut play = Play::new();
            let mut steps = 0;
            while let Some(first) = (0..3).find(|&engine| play.can_step(engine)) {
                if steps == order.len() {
                    order.push(first);
                }
                play.step(order[steps]);
                steps += 1;
            }
            assert_eq!(play.at, [At::Done; 3], "{order:?}");
            assert!(play.asked >= 1);
            orders += 1;
            if !next_order(&mut order) {
                break;
            }
        }
        assert!(orders > 1_000, "{orders}");
    }

    /// Changes the last choice of the order that can be changed. False if none can.
    fn next_order(order: &mut Vec<usize>) -> bool {
        while !order.is_empty() {
            let at = order.len() - 1;
            let mut play = Play::new();
            order[..at].iter().for_each(|&engine| play.step(engine));
            let next = (order[at] + 1..3).find(|&engine| play.can_step(engine));
            match next {
                Some(engine) => {
                    order[at] = engine;
                    return true;
                }
                None => {
                    order.pop();
                }
            }
        }
        false
    }
}
