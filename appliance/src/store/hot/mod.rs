//! The hot answers, which the program in the kernel gives: what user space puts there, takes away, and says who may have it. The
//! words are those of [`xdnsd_abi::hot`].
//!
//! Nearly full: what nobody has asked for in a second makes room. Full: an answer waits until then. What is asked of it while nothing is loaded
//! is remembered as far as it counts later.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};

use heapless::Vec;
use xdnsd_abi::hash::HashKey;
use xdnsd_abi::hot::entry_of_client::{IS_NEAR, LATELY, LATELY_ONE, MARKS};
use xdnsd_abi::hot::{
    self, ANSWERS_MAX, AnswerWords, CLIENTS_MAX, NAME_WORDS, PLACES, SILENT_WORDS, control,
    silent_bit, word,
};

use crate::os::grace::wait_for_programs;
use crate::os::xdp::HotMaps;

/// What all workers and the program share.
pub static HOT: HotAnswers = HotAnswers::new();

/// While fewer answers can be written, those leave that nobody has asked for since the last look.
const FEW: usize = ANSWERS_MAX as usize / 4;
/// An answer whose time is over for so long, in nanoseconds, leaves its place.
const LEFT_NS: u64 = 1_000_000_000;

/// In so many seconds all clients are looked at once. Who has asked keeps its place for twice to three times as long.
const CLIENT_SWEEPS: u32 = 8;
const _: () = assert!(CLIENTS_MAX.is_multiple_of(CLIENT_SWEEPS));

/// Bytes of the books, for the memory budget.
pub const BOOKS_BYTES: usize = size_of::<HotAnswers>();

/// The answers, and who may have them.
pub struct HotAnswers {
    maps: OnceLock<HotMaps>,
    /// How often something was removed from the cache.
    removals: AtomicU32,
    /// On how many interfaces the program is asked.
    asking: AtomicU32,
    /// How often was swept.
    sweeps: AtomicU32,
    /// How often nothing was to be answered until somebody says so.
    holds: AtomicU32,
    books: Mutex<Books>,
}

/// A question that the program answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HotQuestion {
    /// The name in lower case, as [`xdnsd_core::answer::hot_name`] has it.
    pub name: [u64; NAME_WORDS],
    /// The type and the bits of [`hot::kind`].
    pub kind: u64,
    /// How often it was answered since the name is hot.
    pub hits: u64,
}

/// What only user space knows.
struct Books {
    /// Of the policy in force.
    generation: u32,
    /// The last hold that is over.
    released: u32,
    /// Where clients get no answer, by the policy in force.
    silent: [u64; SILENT_WORDS as usize],
    /// Numbers of answers that can be written.
    free: Vec<u16, { ANSWERS_MAX as usize }>,
    /// Those that cannot be found any more, but that a run of the program may still read.
    retired: Vec<u16, { ANSWERS_MAX as usize }>,
    /// How often the answer at each place had been given at the last look: another one wanted the place, or a sweep.
    challenged: [u64; PLACES as usize],
}

impl HotAnswers {
    /// Of a program that is not loaded.
    #[must_use]
    #[expect(
        clippy::new_without_default,
        reason = "24 KiB: it belongs in a static, not on a stack"
    )]
    pub const fn new() -> Self {
        Self {
            maps: OnceLock::new(),
            removals: AtomicU32::new(0),
            asking: AtomicU32::new(0),
            sweeps: AtomicU32::new(0),
            holds: AtomicU32::new(0),
            books: Mutex::new(Books {
                generation: 0,
                released: 0,
                silent: [0; SILENT_WORDS as usize],
                free: Vec::new(),
                retired: Vec::new(),
                challenged: [0; PLACES as usize],
            }),
        }
    }

    /// The program is loaded, with these maps. `key` is drawn at random. A second program's maps are not taken.
    pub fn open(&self, maps: HotMaps, key: u64) -> bool {
        if self.maps.set(maps).is_err() {
            return false;
        }
        let mut books = self.books();
        books.free = (0..ANSWERS_MAX as u16).collect();
        if let Some(maps) = self.maps.get() {
            maps.control
                .word(control::KEY)
                .store(key, Ordering::Relaxed);
            books.show_silent(maps);
            self.show_valid(maps, &books);
        }
        true
    }

    /// On one interface more the program is asked.
    pub fn begin_asking(&self) {
        self.asking.fetch_add(1, Ordering::Relaxed);
    }

    /// On one interface less.
    pub fn end_asking(&self) {
        self.asking.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether the program is asked anywhere, so that it is of use to know what is hot.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.asking.load(Ordering::Relaxed) > 0
    }

    /// Another policy is in force: of the one before no answer leaves when this returns. Workers learn of it later.
    pub fn set_policy(&self, generation: u32, silent_ports: &[u16]) {
        let mut books = self.books();
        books.generation = generation;
        books.silent = [0; SILENT_WORDS as usize];
        for port in silent_ports {
            let (index, bit) = silent_bit(*port);
            books.silent[index as usize] |= bit;
        }
        let Some(maps) = self.maps.get() else { return };
        maps.control
            .word(control::VALID)
            .store(0, Ordering::Release);
        wait_for_programs();
        Self::forget_clients(maps);
        books.show_silent(maps);
        self.show_valid(maps, &books);
    }

    /// Nothing is answered from here on, until this hold is released: there are limits that not every program keeps yet.
    pub fn hold(&self) {
        let books = self.books();
        self.holds.fetch_add(1, Ordering::AcqRel);
        let Some(maps) = self.maps.get() else { return };
        self.show_valid(maps, &books);
    }

    /// How often there was a hold: to be asked for before it is looked at what that waits for.
    #[must_use]
    pub fn holds(&self) -> u32 {
        self.holds.load(Ordering::Acquire)
    }

    /// What all holds up to this one waited for has come.
    pub fn release(&self, holds: u32) {
        let mut books = self.books();
        if books.released == holds {
            return;
        }
        books.released = holds;
        let Some(maps) = self.maps.get() else { return };
        self.show_valid(maps, &books);
    }

    /// Something was removed from the cache: no answer from before leaves when this returns.
    pub fn forget(&self) {
        let books = self.books();
        self.removals.fetch_add(1, Ordering::AcqRel);
        let Some(maps) = self.maps.get() else { return };
        Self::forget_clients(maps);
        self.show_valid(maps, &books);
        wait_for_programs();
    }

    /// DNS cookies by this secret are given back while they are young, at the wall clock that is so many seconds before
    /// CLOCK_MONOTONIC, modulo 2^64. `None`: there are no cookies. A query with one of which half is written is user space's.
    pub fn set_cookies(&self, wall: u64, secret: Option<&HashKey>) {
        let Some(maps) = self.maps.get() else { return };
        let show = |at, word| maps.control.word(at).store(word, Ordering::Relaxed);
        show(control::WALL, wall);
        show(control::HAS_COOKIES, secret.is_some().into());
        let (halves, _) = secret.map_or(&[][..], |secret| secret).as_chunks();
        for (at, half) in (control::SECRET..).zip(halves) {
            show(at, u64::from_ne_bytes(*half));
        }
    }

    /// What holds for an answer from the cache under the policy of this generation. To be asked for before the cache is: what is
    /// removed in between must not come back.
    #[must_use]
    pub fn valid(&self, generation: u32) -> u64 {
        valid(generation, self.removals.load(Ordering::Acquire))
    }

    fn show_valid(&self, maps: &HotMaps, books: &Books) {
        let valid = match books.generation {
            generation if generation != 0 && books.released == self.holds() => {
                self.valid(generation)
            }
            _ => 0,
        };
        maps.control
            .word(control::VALID)
            .store(valid, Ordering::Release);
    }

    /// The client is answered while `valid` holds. Who has its place and asks keeps it, but not from a neighbour if it is none.
    pub fn admit(&self, valid: u64, client: IpAddr, is_near: impl FnOnce() -> bool) {
        let Some(maps) = self.maps.get() else { return };
        let octets = match client {
            IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
            IpAddr::V6(address) => address.octets(),
        };
        let (halves, _) = octets.as_chunks();
        let address = [0, 1].map(|at| u64::from_ne_bytes(halves[at]));
        let client = hot::client(key(maps), valid, address);
        let place = maps.clients.word(hot::client_place(client));
        let entry = place.load(Ordering::Relaxed);
        // Mostly it is there: then the line stays where it is.
        if entry & !MARKS == client {
            return;
        }
        // A neighbour has a while to ask again.
        let marks = if is_near() { IS_NEAR | LATELY_ONE } else { 0 };
        if entry & LATELY == 0 || entry & IS_NEAR < marks & IS_NEAR {
            place.store(client | marks, Ordering::Relaxed);
        }
    }

    /// Nobody is known any more.
    fn forget_clients(maps: &HotMaps) {
        for place in 0..CLIENTS_MAX {
            maps.clients.word(place).store(0, Ordering::Relaxed);
        }
    }

    /// Counts down for some clients how lately they have asked: for each once in [`CLIENT_SWEEPS`] sweeps.
    fn sweep_clients(&self, maps: &HotMaps) {
        let sweep = self.sweeps.fetch_add(1, Ordering::Relaxed) % CLIENT_SWEEPS;
        let places = CLIENTS_MAX / CLIENT_SWEEPS;
        for place in sweep * places..(sweep + 1) * places {
            let word = maps.clients.word(place);
            let entry = word.load(Ordering::Relaxed);
            if entry & LATELY != 0 {
                let (old, new) = (entry, entry - LATELY_ONE);
                // The program has just written: it asks.
                let _ = word.compare_exchange(old, new, Ordering::Relaxed, Ordering::Relaxed);
            }
        }
    }

    /// Puts an answer, whose words are complete, where the program finds it, in place of the same question's or of one that
    /// nobody has asked for lately. False: it has to wait.
    pub fn put(&self, words: &AnswerWords, now_ns: u64) -> bool {
        self.put_if(words, |books, maps, place, before| {
            before == 0 || books.may_replace(maps, place, number(before), words, now_ns)
        })
    }

    /// Puts it in place of the same question's expired answer, if that was given at least so often. Whether it did.
    pub fn renew(&self, words: &AnswerWords, now_ns: u64, hits_min: u64) -> bool {
        self.put_if(words, |_, maps, _, before| {
            before != 0
                && is_same(maps, number(before), words)
                && now_ns >= answer(maps, number(before), word::OVER)
                && hits(maps, number(before)) >= hits_min
        })
    }

    /// Puts it, if its place, and what the index has there, are right.
    fn put_if(
        &self,
        words: &AnswerWords,
        is_right: impl FnOnce(&mut Books, &HotMaps, u32, u64) -> bool,
    ) -> bool {
        let Some(maps) = self.maps.get() else {
            return false;
        };
        let mut books = match self.books.try_lock() {
            Ok(books) => books,
            Err(TryLockError::Poisoned(books)) => books.into_inner(),
            // A worker waits for nobody.
            Err(TryLockError::WouldBlock) => return false,
        };
        let present = maps.control.word(control::VALID).load(Ordering::Relaxed);
        if words[word::VALID] != present || present == 0 {
            return false;
        }
        let mut name = [0; NAME_WORDS];
        name.copy_from_slice(&words[word::NAME..word::OVER]);
        let hash = hot::hash(key(maps), words[word::KIND], &name);
        let place = hot::place(hash);
        let before = maps.index.word(place).load(Ordering::Relaxed);
        if !is_right(&mut books, maps, place, before) {
            return false;
        }
        let Some(free) = books.free.pop() else {
            return false;
        };
        for (at, word) in (0..).zip(words) {
            maps.answers
                .word(answer_word(free, at))
                .store(*word, Ordering::Relaxed);
        }
        // The same question's count goes on.
        let given = match before {
            0 => 0,
            before if is_same(maps, number(before), words) => hits(maps, number(before)),
            _ => 0,
        };
        maps.hits.word(free.into()).store(given, Ordering::Relaxed);
        books.challenged[place as usize] = given;
        let entry = hot::entry(hash, free);
        maps.index.word(place).store(entry, Ordering::Release);
        if before != 0 {
            books.retire(number(before));
        }
        true
    }

    /// The questions that the program answers, and how often it has answered each of them.
    #[must_use]
    pub fn asked(&self) -> std::vec::Vec<HotQuestion> {
        let Some(maps) = self.maps.get() else {
            return std::vec::Vec::new();
        };
        // Nothing is written anew meanwhile.
        let _books = self.books();
        let present = maps.control.word(control::VALID).load(Ordering::Relaxed);
        let entries = (0..PLACES).map(|place| maps.index.word(place).load(Ordering::Relaxed));
        let taken = entries.filter(|entry| *entry != 0).map(number);
        taken
            .filter(|number| answer(maps, *number, word::VALID) == present)
            .map(|number| HotQuestion {
                name: std::array::from_fn(|at| answer(maps, number, word::NAME + at)),
                kind: answer(maps, number, word::KIND),
                hits: hits(maps, number),
            })
            .collect()
    }

    /// Takes away what is over or does not hold any more, and makes room of what nobody can read any more. Once a second, and not
    /// by a worker: it waits.
    pub fn sweep(&self, now_ns: u64) {
        let Some(maps) = self.maps.get() else { return };
        self.sweep_clients(maps);
        let mut books = self.books();
        for place in 0..PLACES {
            let index = maps.index.word(place);
            let entry = index.load(Ordering::Relaxed);
            if entry == 0 {
                continue;
            }
            let hits = hits(maps, number(entry));
            let before = std::mem::replace(&mut books.challenged[place as usize], hits);
            let is_cold = hits == before && books.free.len() < FEW;
            if is_cold || is_left(maps, number(entry), now_ns) {
                index.store(0, Ordering::Release);
                books.retire(number(entry));
            }
        }
        let retired = std::mem::take(&mut books.retired);
        drop(books);
        if retired.is_empty() {
            return;
        }
        wait_for_programs();
        let mut books = self.books();
        for number in retired {
            // There are no more numbers than places.
            let _ = books.free.push(number);
        }
    }

    /// How many answers the program has.
    #[must_use]
    pub fn len(&self) -> usize {
        let Some(maps) = self.maps.get() else {
            return 0;
        };
        let is_taken = |place: &u32| maps.index.word(*place).load(Ordering::Relaxed) != 0;
        (0..PLACES).filter(is_taken).count()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Locks although a thread panicked while it held the lock: the words are valid at every moment.
    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    fn show_silent(&self, maps: &HotMaps) {
        for (index, word) in (0..).zip(self.silent) {
            maps.silent.word(index).store(word, Ordering::Relaxed);
        }
    }

    /// Whether the answer at `place` gives way to the one of `words`.
    fn may_replace(
        &mut self,
        maps: &HotMaps,
        place: u32,
        number: u16,
        words: &AnswerWords,
        now_ns: u64,
    ) -> bool {
        let word = |at| answer(maps, number, at);
        if is_same(maps, number, words)
            || word(word::VALID) != words[word::VALID]
            || now_ns >= word(word::OVER)
        {
            return true;
        }
        let hits = hits(maps, number);
        std::mem::replace(&mut self.challenged[place as usize], hits) == hits
    }

    fn retire(&mut self, number: u16) {
        // There are no more numbers than places.
        let _ = self.retired.push(number);
    }
}

const fn valid(generation: u32, removals: u32) -> u64 {
    (generation as u64) << 32 | removals as u64
}

fn key(maps: &HotMaps) -> u64 {
    maps.control.word(control::KEY).load(Ordering::Relaxed)
}

const fn number(entry: u64) -> u16 {
    entry as u16
}

/// Where a word of an answer is among all of them.
const fn answer_word(number: u16, at: u32) -> u32 {
    number as u32 * word::COUNT as u32 + at
}

/// A word of an answer.
fn answer(maps: &HotMaps, number: u16, at: usize) -> u64 {
    let word = maps.answers.word(answer_word(number, at as u32));
    word.load(Ordering::Relaxed)
}

/// How often an answer was given.
fn hits(maps: &HotMaps, number: u16) -> u64 {
    maps.hits.word(number.into()).load(Ordering::Relaxed)
}

/// Whether it is one to the same question.
fn is_same(maps: &HotMaps, number: u16, words: &AnswerWords) -> bool {
    (word::KIND..word::OVER).all(|at| answer(maps, number, at) == words[at])
}

/// Whether the answer is over for a while, or does not hold any more.
fn is_left(maps: &HotMaps, number: u16, now_ns: u64) -> bool {
    let word = |at| answer(maps, number, at);
    let present = maps.control.word(control::VALID).load(Ordering::Relaxed);
    word(word::VALID) != present || now_ns >= word(word::OVER).saturating_add(LEFT_NS)
}

#[cfg(test)]
mod tests;
