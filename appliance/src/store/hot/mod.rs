//! Answers to hot names for the program in the kernel: user space adds and removes them, and admits clients. Words are as in
//! [`xdnsd_abi::hot`].
//!
//! Nearly full: answers unused for a second are removed. Full: a new answer waits until then. Settings made before the program is
//! loaded are kept as far as they matter later.

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

/// Hot answers of the process, shared by all workers and the program.
pub static HOT: HotAnswers = HotAnswers::new();

/// While fewer numbers than this are free, a sweep also removes answers unused since the last sweep.
const FEW: usize = ANSWERS_MAX as usize / 4;
/// An answer is removed this long after it has expired, in nanoseconds.
const LEFT_NS: u64 = 1_000_000_000;

/// Sweeps, one a second, in which all clients are visited once. A client that has asked keeps its place for twice to three times
/// as long.
const CLIENT_SWEEPS: u32 = 8;
const _: () = assert!(CLIENTS_MAX.is_multiple_of(CLIENT_SWEEPS));

/// Bytes of [`HotAnswers`], for the memory budget.
pub const BOOKS_BYTES: usize = size_of::<HotAnswers>();

/// The answers, and the clients that may have them.
pub struct HotAnswers {
    maps: OnceLock<HotMaps>,
    /// Removals from the cache.
    removals: AtomicU32,
    /// Interfaces whose program asks the one for hot names.
    asking: AtomicU32,
    /// Sweeps so far.
    sweeps: AtomicU32,
    /// Holds so far: each stops all answers until it is released.
    holds: AtomicU32,
    books: Mutex<HotBookkeeping>,
}

/// A question that the program answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HotQuestion {
    /// Name in lower case, as in [`xdnsd_core::answer::hot_name`].
    pub name: [u64; NAME_WORDS],
    /// QTYPE and the bits of [`hot::kind`].
    pub kind: u64,
    /// Answers given since the name became hot.
    pub hits: u64,
}

/// State known only to user space.
struct HotBookkeeping {
    /// Generation of the policy in force.
    generation: u32,
    /// The latest hold that was released.
    released: u32,
    /// Source ports that get no answer, by the policy in force.
    silent: [u64; SILENT_WORDS as usize],
    /// Numbers of free answers.
    free: Vec<u16, { ANSWERS_MAX as usize }>,
    /// Numbers of removed answers that a running program may still read.
    retired: Vec<u16, { ANSWERS_MAX as usize }>,
    /// Hit count of the answer at each place when it was last compared, by a rival for the place or by a sweep.
    challenged: [u64; PLACES as usize],
}

impl HotAnswers {
    /// For a program that is not loaded yet.
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
            books: Mutex::new(HotBookkeeping {
                generation: 0,
                released: 0,
                silent: [0; SILENT_WORDS as usize],
                free: Vec::new(),
                retired: Vec::new(),
                challenged: [0; PLACES as usize],
            }),
        }
    }

    /// Takes the maps of the loaded program. `key` is random. False if another program's maps were taken before.
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

    /// One more interface asks the program.
    pub fn begin_asking(&self) {
        self.asking.fetch_add(1, Ordering::Relaxed);
    }

    /// One interface fewer asks it.
    pub fn end_asking(&self) {
        self.asking.fetch_sub(1, Ordering::Relaxed);
    }

    /// True if any interface asks the program, so that hits are worth counting.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.asking.load(Ordering::Relaxed) > 0
    }

    /// Switches to another policy: on return, answers of the previous one are no longer given. Workers learn of it later.
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

    /// Stops all answers until this hold is released: some programs do not enforce the new limits yet.
    pub fn hold(&self) {
        let books = self.books();
        self.holds.fetch_add(1, Ordering::AcqRel);
        let Some(maps) = self.maps.get() else { return };
        self.show_valid(maps, &books);
    }

    /// Number of holds: read it before checking whether the reason for a hold is gone.
    #[must_use]
    pub fn holds(&self) -> u32 {
        self.holds.load(Ordering::Acquire)
    }

    /// Releases all holds up to this one.
    pub fn release(&self, holds: u32) {
        let mut books = self.books();
        if books.released == holds {
            return;
        }
        books.released = holds;
        let Some(maps) = self.maps.get() else { return };
        self.show_valid(maps, &books);
    }

    /// Notes a removal from the cache: on return, earlier answers are no longer given.
    pub fn forget(&self) {
        let books = self.books();
        self.removals.fetch_add(1, Ordering::AcqRel);
        let Some(maps) = self.maps.get() else { return };
        Self::forget_clients(maps);
        self.show_valid(maps, &books);
        wait_for_programs();
    }

    /// Sets the secret by which the program returns DNS cookies while they are young, and `wall`, the wall clock minus
    /// CLOCK_MONOTONIC in seconds modulo 2^64. `None` without cookies. While a secret is half written, queries with cookies are
    /// left to user space.
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

    /// Validity stamp for an answer from the cache under the policy of this generation. Read it before the cache: an answer
    /// removed in between must not come back.
    #[must_use]
    pub fn valid(&self, generation: u32) -> u64 {
        valid(generation, self.removals.load(Ordering::Acquire))
    }

    fn show_valid(&self, maps: &HotMaps, books: &HotBookkeeping) {
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

    /// Admits the client while `valid` holds. A client that keeps asking keeps its place, except that a neighbour displaces a
    /// stranger.
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
        // Usually present: then the cache line stays shared.
        if entry & !MARKS == client {
            return;
        }
        // A neighbour has a while to ask again.
        let marks = if is_near() { IS_NEAR | LATELY_ONE } else { 0 };
        if entry & LATELY == 0 || entry & IS_NEAR < marks & IS_NEAR {
            place.store(client | marks, Ordering::Relaxed);
        }
    }

    /// Forgets all clients.
    fn forget_clients(maps: &HotMaps) {
        for place in 0..CLIENTS_MAX {
            maps.clients.word(place).store(0, Ordering::Relaxed);
        }
    }

    /// Decrements how recently some clients have asked: each client once in [`CLIENT_SWEEPS`] sweeps.
    fn sweep_clients(&self, maps: &HotMaps) {
        let sweep = self.sweeps.fetch_add(1, Ordering::Relaxed) % CLIENT_SWEEPS;
        let places = CLIENTS_MAX / CLIENT_SWEEPS;
        for place in sweep * places..(sweep + 1) * places {
            let word = maps.clients.word(place);
            let entry = word.load(Ordering::Relaxed);
            if entry & LATELY != 0 {
                let (old, new) = (entry, entry - LATELY_ONE);
                // Failure means that the program has just written: the client asks.
                let _ = word.compare_exchange(old, new, Ordering::Relaxed, Ordering::Relaxed);
            }
        }
    }

    /// Publishes an answer, whose words are complete, in place of the same question's, or of one unused lately. False if it has
    /// to wait.
    pub fn put(&self, words: &AnswerWords, now_ns: u64) -> bool {
        self.put_if(words, |books, maps, place, before| {
            before == 0 || books.may_replace(maps, place, number(before), words, now_ns)
        })
    }

    /// Publishes an answer in place of the same question's expired one, if that was given at least `hits_min` times. True if it
    /// did.
    pub fn renew(&self, words: &AnswerWords, now_ns: u64, hits_min: u64) -> bool {
        self.put_if(words, |_, maps, _, before| {
            before != 0
                && is_same(maps, number(before), words)
                && now_ns >= answer(maps, number(before), word::OVER)
                && hits(maps, number(before)) >= hits_min
        })
    }

    /// Publishes an answer if `is_right` accepts its place and the index entry there.
    fn put_if(
        &self,
        words: &AnswerWords,
        is_right: impl FnOnce(&mut HotBookkeeping, &HotMaps, u32, u64) -> bool,
    ) -> bool {
        let Some(maps) = self.maps.get() else {
            return false;
        };
        let mut books = match self.books.try_lock() {
            Ok(books) => books,
            Err(TryLockError::Poisoned(books)) => books.into_inner(),
            // Workers never wait for this lock.
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
        // The same question's count continues.
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

    /// Questions that the program answers, each with its number of answers.
    #[must_use]
    pub fn asked(&self) -> std::vec::Vec<HotQuestion> {
        let Some(maps) = self.maps.get() else {
            return std::vec::Vec::new();
        };
        // Keeps answers unchanged meanwhile.
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

    /// Removes expired and invalid answers, and frees those that no program run can read any more. Call it once a second, on
    /// another thread than a worker: it waits.
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
            // Has room: there are no more numbers than places.
            let _ = books.free.push(number);
        }
    }

    /// Number of published answers.
    #[must_use]
    pub fn len(&self) -> usize {
        let Some(maps) = self.maps.get() else {
            return 0;
        };
        let is_taken = |place: &u32| maps.index.word(*place).load(Ordering::Relaxed) != 0;
        (0..PLACES).filter(is_taken).count()
    }

    /// True without answers.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Locks even after a panic of a thread with the lock: the words are valid at every moment.
    fn books(&self) -> MutexGuard<'_, HotBookkeeping> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HotBookkeeping {
    fn show_silent(&self, maps: &HotMaps) {
        for (index, word) in (0..).zip(self.silent) {
            maps.silent.word(index).store(word, Ordering::Relaxed);
        }
    }

    /// True if the answer at `place` gives way to `words`.
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
        // Has room: there are no more numbers than places.
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

/// Index of an answer's word in the map.
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

/// True if both answer the same question.
fn is_same(maps: &HotMaps, number: u16, words: &AnswerWords) -> bool {
    (word::KIND..word::OVER).all(|at| answer(maps, number, at) == words[at])
}

/// True if the answer has been expired for [`LEFT_NS`], or is invalid.
fn is_left(maps: &HotMaps, number: u16, now_ns: u64) -> bool {
    let word = |at| answer(maps, number, at);
    let present = maps.control.word(control::VALID).load(Ordering::Relaxed);
    word(word::VALID) != present || now_ns >= word(word::OVER).saturating_add(LEFT_NS)
}

#[cfg(test)]
mod tests;
