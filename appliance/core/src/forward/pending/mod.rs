//! Questions in flight, and the clients that wait for them.

pub mod crowd;
mod lingering;
mod waiting;

pub use lingering::Lingering;
pub use waiting::{Taken, Waiting};

use self::crowd::Crowds;
pub use super::letter_case::LetterCase;
use super::question::{NoAaaa, Question};
use super::slab::Slab;
use super::tries::Attempt;
use super::via::Via;
use crate::answer::{ChainPrefix, HashedKey};
use crate::dns::Name;
use crate::limits::{ALIASES, LINGERING, PENDING, SUB_QUESTIONS, WAITERS};
use crate::time::Instant;
use core::cmp::Reverse;
use heapless::Deque;
use heapless::index_map::FnvIndexMap;

/// Entries of the map of questions: twice the number of questions, so that probes stay short.
const QUESTION_MAP: usize = (PENDING * 2).next_power_of_two();
/// Number of buckets among which clients are spread, for fair shares of the table.
const CLIENT_BUCKETS: usize = 256;
/// Share (1/n) of the places for waiting clients that one client may hold while more than half of them are taken.
const CLIENT_SHARE: usize = 4;

const _: () = assert!(QUESTION_MAP <= 65_536, "heapless maps hold 16-bit indices");

/// A question asked in place of another one, which is answered with its result.
#[derive(Clone, Debug)]
pub struct SubQuestion {
    /// Name that is asked for, in lower case.
    pub name: Name,
    /// Number of sub-questions for the same question so far, this one included.
    pub steps: u8,
    /// Purpose.
    pub kind: SubKind,
}

/// Purpose of a sub-question: so far, only one.
#[derive(Clone, Debug)]
pub enum SubKind {
    /// A chain of aliases ended without an answer, or DNS64 has made an alias. The answer of the sub-question is appended to
    /// these aliases.
    Alias(ChainPrefix),
}

impl SubQuestion {
    /// Aliases that stand before its answer.
    #[must_use]
    pub const fn prefix(&self) -> &ChainPrefix {
        match &self.kind {
            SubKind::Alias(prefix) => prefix,
        }
    }
}

/// EDNS properties of the reply to a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientEdns {
    /// DO, copied from the query (RFC 3225 section 3).
    pub dnssec_ok: bool,
    /// Cookie option of the reply.
    pub cookie: Option<[u8; 24]>,
    /// edns-tcp-keepalive of the reply, in units of 100 ms.
    pub keepalive: Option<u16>,
}

/// A client that waits for an answer.
#[derive(Clone, Copy, Debug)]
pub struct Waiter<R> {
    /// Way back to the client.
    pub reply_path: R,
    /// ID of the query.
    pub id: u16,
    /// RD and CD of the query, and AD if the client may have it.
    pub flags: u16,
    /// Longest message that the client may get, in bytes.
    pub limit: u16,
    /// True if it waits on a stream, where no answer is truncated.
    pub is_tcp: bool,
    /// EDNS properties of the reply; `None` if the query has no EDNS.
    pub edns: Option<ClientEdns>,
    /// True if its address is not proven by a cookie, so that it gets no long answer over UDP.
    pub lacks_cookie: bool,
    /// Letter case of its QNAME.
    pub case: LetterCase,
    /// Fair share bucket of the client.
    pub bucket: u8,
    /// Links within the table.
    pub links: WaiterLinks,
}

/// Links of a waiting client within the table.
#[derive(Clone, Copy, Debug, Default)]
pub struct WaiterLinks {
    /// Place of its QNAME in the table of aliases, if that is not the name in flight.
    alias: Option<u16>,
    /// Next client that waits for the same question.
    next: Option<u16>,
}

/// Reason why a question or a client has no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PendingFull {
    /// No room for another question.
    Questions,
    /// No room for another client.
    Waiters,
    /// No room for another client of an alias.
    Aliases,
    /// The client has its share of the places for clients, or for aliases, and more than half of them are taken.
    Share,
}

/// Table of questions in flight. When full, the caller ends the [`victim`](Self::victim) and inserts the new one.
#[derive(Debug)]
pub struct PendingTable<R> {
    questions: Slab<Question, PENDING>,
    waiters: Slab<Waiter<R>, WAITERS>,
    /// QNAMEs of clients that wait for the target of an alias.
    aliases: Slab<Name, ALIASES>,
    subs: Slab<SubQuestion, SUB_QUESTIONS>,
    by_question: FnvIndexMap<u64, u16, QUESTION_MAP>,
    /// Oldest first. When full, the oldest makes room.
    lingering: Deque<Lingering, LINGERING>,
    /// `Question::wake` in milliseconds by index; 0 if free. A separate table keeps the search for due questions cheap.
    wakes: [u64; PENDING],
    /// Running number and bucket of each question by index; 0 if free. A separate table keeps the search for the oldest
    /// cheap.
    ages: [u64; PENDING],
    /// Number of questions inserted so far.
    taken: u64,
    /// Number of questions by bucket of the first client.
    held: [u16; CLIENT_BUCKETS],
    /// Number of questions by domain and group.
    crowds: Crowds,
    /// Number of waiting clients by bucket.
    waiting: [u16; CLIENT_BUCKETS],
    /// Time before which no question is due.
    next_wake: Instant,
}

impl<R: Copy + PartialEq> PendingTable<R> {
    /// A table without questions.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            questions: Slab::new(),
            waiters: Slab::new(),
            aliases: Slab::new(),
            subs: Slab::new(),
            by_question: FnvIndexMap::new(),
            lingering: Deque::new(),
            wakes: [0; PENDING],
            ages: [0; PENDING],
            taken: 0,
            held: [0; CLIENT_BUCKETS],
            crowds: Crowds::new(),
            waiting: [0; CLIENT_BUCKETS],
            next_wake: Instant::from_millis(0),
        }
    }

    /// Number of questions in flight.
    #[must_use]
    pub fn len(&self) -> usize {
        self.questions.len()
    }

    /// True if there is no room for another question.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.questions.is_full()
    }

    /// True if no question is in flight.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.questions.is_empty()
    }

    /// Index of the question in flight with this key.
    #[must_use]
    pub fn find(&self, key: &HashedKey<'_>) -> Option<u16> {
        let index = *self.by_question.get(&key.hash())?;
        let question = self.questions.get(index)?;
        (question.key().key() == key.key()).then_some(index)
    }

    /// Inserts a question and returns its index.
    ///
    /// # Errors
    /// The table is full.
    pub fn insert(&mut self, question: Question) -> Result<u16, PendingFull> {
        let (hash, bucket) = (question.hash(), question.bucket);
        let (zone, group) = (question.zone, question.group);
        let wake = question.wake();
        let index = self
            .questions
            .insert(question)
            .map_err(|_| PendingFull::Questions)?;
        // Has room: the map has twice the entries of the table.
        let _ = self.by_question.insert(hash, index);
        self.held[usize::from(bucket)] += 1;
        self.crowds.enter(zone, group);
        self.taken += 1;
        // The running number orders by age; the bucket is in the low byte.
        self.ages[usize::from(index)] = self.taken << 8 | u64::from(bucket);
        self.set_wake(index, wake);
        Ok(index)
    }

    /// The question at `index`.
    #[must_use]
    pub fn get(&self, index: u16) -> Option<&Question> {
        self.questions.get(index)
    }

    /// The question at `index`, for changes, and the sub-question that it waits for. After a change of its deadlines
    /// [`schedule`](Self::schedule) has to be called.
    pub fn get_mut(&mut self, index: u16) -> Option<(&mut Question, Option<&SubQuestion>)> {
        let question = self.questions.get_mut(index)?;
        let sub = question.sub.and_then(|place| self.subs.get(place));
        Some((question, sub))
    }

    /// Takes note of the deadlines of the question at `index`.
    pub fn schedule(&mut self, index: u16) {
        if let Some(question) = self.questions.get(index) {
            self.set_wake(index, question.wake());
        }
    }

    fn set_wake(&mut self, index: u16, wake: Instant) {
        self.wakes[usize::from(index)] = wake.millis().max(1);
        self.next_wake = self.next_wake.min(wake);
    }

    /// Sub-question that the question at `index` waits for.
    #[must_use]
    pub fn sub(&self, index: u16) -> Option<&SubQuestion> {
        self.subs.get(self.questions.get(index)?.sub?)
    }

    /// Name that upstream is asked for.
    #[must_use]
    pub fn asked_name(&self, index: u16) -> Option<&Name> {
        match self.sub(index) {
            Some(sub) => Some(&sub.name),
            None => self.questions.get(index).map(|question| &question.name),
        }
    }

    /// Makes the question at `index` wait for `sub`, which goes to `group` and has not been asked yet. Returns true if
    /// there was room.
    pub fn wait_for(&mut self, index: u16, sub: &SubQuestion, group: u8) -> bool {
        let Some(question) = self.questions.get_mut(index) else {
            return false;
        };
        match question.sub.and_then(|place| self.subs.get_mut(place)) {
            Some(earlier) => earlier.clone_from(sub),
            None => match self.subs.insert(sub.clone()) {
                Ok(place) => question.sub = Some(place),
                Err(_) => return false,
            },
        }
        self.crowds.leave_group(question.group);
        self.crowds.enter_group(group);
        question.restart(group);
        true
    }

    /// Makes the question at `index`, which is for AAAA, ask `group` for A records in their place. They have not been asked
    /// for yet.
    pub fn turn_to_a(&mut self, index: u16, no_aaaa: NoAaaa, group: u8) {
        if let Some(question) = self.questions.get_mut(index) {
            self.crowds.leave_group(question.group);
            self.crowds.enter_group(group);
            question.no_aaaa = Some(no_aaaa);
            question.translated = true;
            question.restart(group);
        }
    }

    /// Starts the question at `index` again from `now` on, with the servers of `group`.
    pub fn restart(&mut self, index: u16, group: u8, now: Instant) {
        if let Some(question) = self.questions.get_mut(index) {
            self.crowds.leave_group(question.group);
            self.crowds.enter_group(group);
            question.restart(group);
            question.deadlines.next_try = now;
            self.schedule(index);
        }
    }

    /// The live attempt that went this way, and the index of its question. A port was opened for the question at `index`; a
    /// stream has one question, which is searched for.
    #[must_use]
    pub fn attempt_by(&self, via: Via, index: u16) -> Option<(u16, Attempt)> {
        let live = |question: &Question| question.tries.by(via).filter(|one| one.live).copied();
        match via {
            // The name of a port may belong to another question by now.
            Via::Datagram { .. } => Some((index, live(self.questions.get(index)?)?)),
            Via::Stream { .. } => self
                .questions
                .iter()
                .find_map(|(index, question)| Some((index, live(question)?))),
        }
    }

    /// True if this client already waits for the question at `index`. A datagram that comes again while its client waits is
    /// not added. Over a stream every query is owed an answer, as nothing is repeated.
    #[must_use]
    pub fn is_joined(&self, index: u16, waiter: &Waiter<R>, alias: Option<&Name>) -> bool {
        let question = self.questions.get(index);
        let first = question.and_then(|question| question.first_waiter);
        !waiter.is_tcp && self.is_waiting(first, waiter, alias)
    }

    /// Checks that one more client of this bucket can wait, for an alias or not.
    ///
    /// # Errors
    /// There is no room, or the client has its share.
    pub fn room(&self, bucket: u8, has_alias: bool) -> Result<(), PendingFull> {
        let is_crowded = self.waiters.len() >= WAITERS / 2;
        if is_crowded && usize::from(self.waiting[usize::from(bucket)]) >= WAITERS / CLIENT_SHARE {
            return Err(PendingFull::Share);
        }
        if has_alias {
            self.room_for_alias(bucket)?;
        }
        if self.waiters.is_full() {
            return Err(PendingFull::Waiters);
        }
        Ok(())
    }

    fn room_for_alias(&self, bucket: u8) -> Result<(), PendingFull> {
        let used = self.aliases.len();
        if used < ALIASES / 2 {
            return Ok(());
        }
        let is_own = |waiter: &Waiter<R>| waiter.bucket == bucket && waiter.links.alias.is_some();
        let own = self.waiters.iter().filter(|(_, waiter)| is_own(waiter));
        if own.count() >= ALIASES.div_ceil(CLIENT_SHARE) {
            return Err(PendingFull::Share);
        }
        if used == ALIASES {
            return Err(PendingFull::Aliases);
        }
        Ok(())
    }

    /// Adds a client to those that wait for the question at `index`. `alias` is its QNAME, if that is another name.
    ///
    /// # Errors
    /// There is no room, as [`room`](Self::room) tells beforehand. Nothing has changed.
    pub fn join(
        &mut self,
        index: u16,
        waiter: Waiter<R>,
        alias: Option<&Name>,
    ) -> Result<(), PendingFull> {
        self.room(waiter.bucket, alias.is_some())?;
        let Some(question) = self.questions.get_mut(index) else {
            return Err(PendingFull::Questions);
        };
        // Both have room, as checked above.
        let alias = match alias {
            Some(name) => Some(
                self.aliases
                    .insert(*name)
                    .map_err(|_| PendingFull::Aliases)?,
            ),
            None => None,
        };
        let links = WaiterLinks {
            alias,
            next: question.first_waiter,
        };
        let bucket = usize::from(waiter.bucket);
        let waiter = Waiter { links, ..waiter };
        let at = self
            .waiters
            .insert(waiter)
            .map_err(|_| PendingFull::Waiters)?;
        question.first_waiter = Some(at);
        self.waiting[bucket] += 1;
        Ok(())
    }

    /// True if the list that begins with `first` already has this client with this question.
    fn is_waiting(&self, first: Option<u16>, waiter: &Waiter<R>, alias: Option<&Name>) -> bool {
        let mut at = first;
        // Bound: the list consists of distinct entries of `waiters`.
        while let Some(present) = at.and_then(|at| self.waiters.get(at)) {
            let same_name = present.links.alias.and_then(|at| self.aliases.get(at)) == alias;
            if present.id == waiter.id && present.reply_path == waiter.reply_path && same_name {
                return true;
            }
            at = present.links.next;
        }
        false
    }

    /// Clients that wait for the question at `index`.
    pub fn waiting(&mut self, index: u16) -> Option<Waiting<'_, R>> {
        Some(Waiting {
            question: self.questions.get_mut(index)?,
            waiters: &mut self.waiters,
            aliases: &mut self.aliases,
            counts: &mut self.waiting,
        })
    }

    /// Removes a question, and the clients that still wait for it.
    pub fn remove(&mut self, index: u16) {
        if let Some(mut waiting) = self.waiting(index) {
            while waiting.pop().is_some() {}
        }
        let Some(question) = self.questions.remove(index) else {
            return;
        };
        let hash = question.hash();
        // If two keys have one hash, the map has the later one.
        if self.by_question.get(&hash) == Some(&index) {
            self.by_question.remove(&hash);
        }
        if let Some(place) = question.sub {
            self.subs.remove(place);
        }
        self.held[usize::from(question.bucket)] -= 1;
        self.crowds.leave(question.zone, question.group);
        self.wakes[usize::from(index)] = 0;
        self.ages[usize::from(index)] = 0;
    }

    /// The question that ends for another: of the clients with the most questions, the one in flight for longest. So the
    /// client that fills the table pays for it, and others do not notice.
    #[must_use]
    pub fn victim(&self) -> Option<u16> {
        let most = *self.held.iter().max()?;
        let ages = self.ages.iter().enumerate();
        ages.filter(|(_, age)| **age != 0 && self.held[(**age & 0xff) as usize] == most)
            .min_by_key(|(_, age)| **age)
            .map(|(index, _)| index as u16)
    }

    /// The question that ends for another client, by the same rule: one with waiting clients, and not `but`.
    #[must_use]
    pub fn waited_victim(&self, but: Option<u16>) -> Option<u16> {
        let is_waited =
            |(index, question): &(u16, &Question)| question.has_waiters() && Some(*index) != but;
        let questions = self.questions.iter().filter(is_waited);
        questions
            .max_by_key(|(index, question)| {
                let held = self.held[usize::from(question.bucket)];
                (held, Reverse(self.ages[usize::from(*index)]))
            })
            .map(|(index, _)| index)
    }

    /// The question that ends for another one's sub-question, by the same rule.
    #[must_use]
    pub fn sub_victim(&self) -> Option<u16> {
        let waiting = || {
            let questions = self.questions.iter();
            questions.filter(|(_, question)| question.has_sub())
        };
        let held = |bucket| {
            waiting()
                .filter(|(_, other)| other.bucket == bucket)
                .count()
        };
        waiting()
            .max_by_key(|(index, question)| {
                (
                    held(question.bucket),
                    Reverse(self.ages[usize::from(*index)]),
                )
            })
            .map(|(index, _)| index)
    }

    /// Index of a question that is due. Called repeatedly until `None`; the caller has to act on each, so that its next
    /// deadline is in the future.
    pub fn due(&mut self, now: Instant) -> Option<u16> {
        if now < self.next_wake {
            return None;
        }
        let mut soonest = Instant::FAR_FUTURE;
        for (index, &wake) in self.wakes.iter().enumerate() {
            if wake == 0 {
                continue;
            }
            if wake <= now.millis() {
                return Some(index as u16);
            }
            soonest = soonest.min(Instant::from_millis(wake));
        }
        self.next_wake = soonest;
        None
    }

    /// Time before which no question is due.
    #[must_use]
    pub const fn next_wake(&self) -> Instant {
        self.next_wake
    }
}

impl<R: Copy + PartialEq> Default for PendingTable<R> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
