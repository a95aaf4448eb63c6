//! Questions in flight, and the clients that wait for them.

pub mod crowd;
mod lingering;
mod waiting;

pub use lingering::Lingering;
pub use waiting::{Taken, Waiting};

use self::crowd::Crowds;
pub use super::letter_case::LetterCase;
use super::question::Question;
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

/// Entries of the map of questions: twice the questions, so that probes stay short.
const QUESTION_MAP: usize = (PENDING * 2).next_power_of_two();
/// Buckets among which clients are spread to share the table fairly.
const CLIENT_BUCKETS: usize = 256;
/// Of the places to wait in, one client may hold this share (1/n) while more than half of them are taken.
const CLIENT_SHARE: usize = 4;

const _: () = assert!(QUESTION_MAP <= 65_536, "heapless maps hold 16-bit indices");

/// A question that another one waits for: upstream is asked this one, and the other one is answered with what comes of it.
#[derive(Clone, Debug)]
pub struct SubQuestion {
    /// The name that is asked for, in lower case.
    pub name: Name,
    /// How many there were for the same question, this one included.
    pub steps: u8,
    /// What it is asked for.
    pub kind: SubKind,
}

/// What a sub-question is asked for: so far, one thing.
#[derive(Clone, Debug)]
pub enum SubKind {
    /// A chain of aliases ended at its name without an answer. The answer is put behind these.
    Alias(ChainPrefix),
}

impl SubQuestion {
    /// The type that is asked for on behalf of `question`.
    #[must_use]
    pub const fn qtype(&self, question: &Question) -> u16 {
        match self.kind {
            SubKind::Alias(_) => question.qtype,
        }
    }

    /// The aliases that stand in front of its answer.
    #[must_use]
    pub const fn prefix(&self) -> &ChainPrefix {
        match &self.kind {
            SubKind::Alias(prefix) => prefix,
        }
    }
}

/// What a client's EDNS asked for that the reply has to repeat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientEdns {
    /// DO, which the reply repeats (RFC 3225 section 3).
    pub dnssec_ok: bool,
    /// The cookie to give.
    pub cookie: Option<[u8; 24]>,
    /// edns-tcp-keepalive to give.
    pub keepalive: Option<u16>,
}

/// A client that waits for an answer.
#[derive(Clone, Copy, Debug)]
pub struct Waiter<R> {
    /// The way back to it.
    pub reply_path: R,
    /// Its query's ID.
    pub id: u16,
    /// RD and CD as it had them, and AD where it may have it.
    pub flags: u16,
    /// The longest message that it may get.
    pub limit: u16,
    /// Whether it waits on a stream, where nothing is cut.
    pub is_tcp: bool,
    /// Its EDNS, if it had any.
    pub edns: Option<ClientEdns>,
    /// Its address is not proven by a cookie, so it gets no long answer over UDP.
    pub lacks_cookie: bool,
    /// The letter case of its QNAME.
    pub case: LetterCase,
    /// Its fair share bucket.
    pub bucket: u8,
    /// What the table links it with.
    pub links: WaiterLinks,
}

/// Where a waiting client stands in the table.
#[derive(Clone, Copy, Debug, Default)]
pub struct WaiterLinks {
    /// Its QNAME in the table of aliases, where that is not the name in flight.
    alias: Option<u16>,
    /// The next client that waits for the same question.
    next: Option<u16>,
}

/// Why a question cannot be taken on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PendingFull {
    /// No room for another question.
    Questions,
    /// No room for another client.
    Waiters,
    /// No room for another client that asked for an alias.
    Aliases,
    /// This client holds its share of the places to wait in, or of those for aliases, and more than half of them are taken.
    Share,
}

/// The table of questions in flight. Full: the caller ends the [`victim`](Self::victim) and takes the new one.
#[derive(Debug)]
pub struct PendingTable<R> {
    questions: Slab<Question, PENDING>,
    waiters: Slab<Waiter<R>, WAITERS>,
    /// QNAMEs of those who wait for what another name has.
    aliases: Slab<Name, ALIASES>,
    subs: Slab<SubQuestion, SUB_QUESTIONS>,
    by_question: FnvIndexMap<u64, u16, QUESTION_MAP>,
    /// The oldest first. Full: the oldest makes room.
    lingering: Deque<Lingering, LINGERING>,
    /// `Question::wake` in milliseconds by index; 0: free. Kept apart so that looking for what is due stays cheap.
    wakes: [u64; PENDING],
    /// Running number and bucket of each question by index; 0: free. Kept apart so that looking for the oldest stays cheap.
    ages: [u64; PENDING],
    /// Questions that were taken on so far.
    taken: u64,
    /// Questions by bucket of the client that asked first.
    held: [u16; CLIENT_BUCKETS],
    /// Questions by domain and group.
    crowds: Crowds,
    /// Waiting clients by bucket.
    waiting: [u16; CLIENT_BUCKETS],
    /// Nothing is due before.
    next_wake: Instant,
}

impl<R: Copy + PartialEq> PendingTable<R> {
    /// With nothing in flight.
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

    /// Questions in flight.
    #[must_use]
    pub fn len(&self) -> usize {
        self.questions.len()
    }

    /// Whether another question has no room.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.questions.is_full()
    }

    /// Whether nothing is in flight.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.questions.is_empty()
    }

    /// The question in flight with this key.
    #[must_use]
    pub fn find(&self, key: &HashedKey<'_>) -> Option<u16> {
        let index = *self.by_question.get(&key.hash())?;
        let question = self.questions.get(index)?;
        (question.key().key() == key.key()).then_some(index)
    }

    /// Takes on a question.
    ///
    /// # Errors
    /// There is no room.
    pub fn insert(&mut self, question: Question) -> Result<u16, PendingFull> {
        let (hash, bucket) = (question.hash(), question.bucket);
        let (zone, group) = (question.zone, question.group);
        let wake = question.wake();
        let index = self
            .questions
            .insert(question)
            .map_err(|_| PendingFull::Questions)?;
        // Cannot be full: the map has twice the entries of the table.
        let _ = self.by_question.insert(hash, index);
        self.held[usize::from(bucket)] += 1;
        self.crowds.enter(zone, group);
        self.taken += 1;
        // The running number decides who is oldest; the bucket rides along in the low byte.
        self.ages[usize::from(index)] = self.taken << 8 | u64::from(bucket);
        self.set_wake(index, wake);
        Ok(index)
    }

    /// The question at `index`.
    #[must_use]
    pub fn get(&self, index: u16) -> Option<&Question> {
        self.questions.get(index)
    }

    /// The question at `index`, to be changed, and the sub-question that it waits for. Whoever changes its deadlines says so
    /// to [`schedule`](Self::schedule).
    pub fn get_mut(&mut self, index: u16) -> Option<(&mut Question, Option<&SubQuestion>)> {
        let question = self.questions.get_mut(index)?;
        let sub = question.sub.and_then(|place| self.subs.get(place));
        Some((question, sub))
    }

    /// Notes the deadlines that the question at `index` has now.
    pub fn schedule(&mut self, index: u16) {
        if let Some(question) = self.questions.get(index) {
            self.set_wake(index, question.wake());
        }
    }

    fn set_wake(&mut self, index: u16, wake: Instant) {
        self.wakes[usize::from(index)] = wake.millis().max(1);
        self.next_wake = self.next_wake.min(wake);
    }

    /// The sub-question that the question at `index` waits for.
    #[must_use]
    pub fn sub(&self, index: u16) -> Option<&SubQuestion> {
        self.subs.get(self.questions.get(index)?.sub?)
    }

    /// The name that upstream is asked for.
    #[must_use]
    pub fn asked_name(&self, index: u16) -> Option<&Name> {
        match self.sub(index) {
            Some(sub) => Some(&sub.name),
            None => self.questions.get(index).map(|question| &question.name),
        }
    }

    /// Makes the question at `index` wait for `sub`, of which nobody in `group` has been asked yet. Whether there was room.
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

    /// Makes the question at `index` one that nobody in `group` has been asked yet, from `now` on.
    pub fn restart(&mut self, index: u16, group: u8, now: Instant) {
        if let Some(question) = self.questions.get_mut(index) {
            self.crowds.leave_group(question.group);
            self.crowds.enter_group(group);
            question.restart(group);
            question.deadlines.next_try = now;
            self.schedule(index);
        }
    }

    /// The live transaction that went this way, which was opened for the question at `index`; a stream has one question, which
    /// is looked for.
    #[must_use]
    pub fn attempt_by(&self, via: Via, index: u16) -> Option<(u16, Attempt)> {
        let live = |question: &Question| question.tries.by(via).filter(|one| one.live).copied();
        match via {
            // The name of a port may have been given to another question by now.
            Via::Datagram { .. } => Some((index, live(self.questions.get(index)?)?)),
            Via::Stream { .. } => self
                .questions
                .iter()
                .find_map(|(index, question)| Some((index, live(question)?))),
        }
    }

    /// Whether this client waits for the question at `index` already: a datagram that comes again while its client waits
    /// is not put in twice. A stream repeats nothing by itself, and every query on it is owed an answer.
    #[must_use]
    pub fn is_joined(&self, index: u16, waiter: &Waiter<R>, alias: Option<&Name>) -> bool {
        let question = self.questions.get(index);
        let first = question.and_then(|question| question.first_waiter);
        !waiter.is_tcp && self.is_waiting(first, waiter, alias)
    }

    /// Whether one more client of this bucket can wait, for an alias or not.
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

    /// Puts a client in front of those who wait for the question at `index`; `alias` is its QNAME where that is another
    /// one.
    ///
    /// # Errors
    /// There is no room; [`room`](Self::room) would have said so. Nothing has changed.
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
        // Neither is full: there was room.
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

    /// Whether the list that begins with `first` has this client with this question already.
    fn is_waiting(&self, first: Option<u16>, waiter: &Waiter<R>, alias: Option<&Name>) -> bool {
        let mut at = first;
        // Bound: the list is made of distinct entries of `waiters`.
        while let Some(present) = at.and_then(|at| self.waiters.get(at)) {
            let same_name = present.links.alias.and_then(|at| self.aliases.get(at)) == alias;
            if present.id == waiter.id && present.reply_path == waiter.reply_path && same_name {
                return true;
            }
            at = present.links.next;
        }
        false
    }

    /// Those who wait for the question at `index`.
    pub fn waiting(&mut self, index: u16) -> Option<Waiting<'_, R>> {
        Some(Waiting {
            question: self.questions.get_mut(index)?,
            waiters: &mut self.waiters,
            aliases: &mut self.aliases,
            counts: &mut self.waiting,
        })
    }

    /// Ends a question. Clients that still wait are forgotten.
    pub fn remove(&mut self, index: u16) {
        if let Some(mut waiting) = self.waiting(index) {
            while waiting.pop().is_some() {}
        }
        let Some(question) = self.questions.remove(index) else {
            return;
        };
        let hash = question.hash();
        // Two keys may have one hash: then the map names the later one.
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

    /// The question that makes room for another: of those clients that have the most questions, the one that has been in
    /// flight for the longest time. So the client that fills the table pays for it, and the others do not notice.
    #[must_use]
    pub fn victim(&self) -> Option<u16> {
        let most = *self.held.iter().max()?;
        let ages = self.ages.iter().enumerate();
        ages.filter(|(_, age)| **age != 0 && self.held[(**age & 0xff) as usize] == most)
            .min_by_key(|(_, age)| **age)
            .map(|(index, _)| index as u16)
    }

    /// The question that makes room for another client, by the same rule: somebody waits for it, and it is not the one
    /// `but`.
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

    /// The question that makes room for another one's sub-question, by the same rule.
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

    /// A question for which something is due. Asked repeatedly until `None`; the caller must act on each, so that its
    /// next deadline lies ahead.
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

    /// Nothing is due before this.
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
