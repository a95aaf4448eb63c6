//! Questions in flight, and the clients that wait for them.

mod lingering;

pub use lingering::Lingering;

pub use super::letter_case::LetterCase;
use super::slab::Slab;
use super::upstreams::Tried;
use super::via::Via;
use crate::answer::{ChainStart, Key};
use crate::dns::Name;
use crate::limits::{ALIASES, CHASES, LINGERING, PENDING, TCP_MESSAGE_MAX, WAITERS};
use crate::time::Instant;
use core::cmp::Reverse;
use heapless::index_map::FnvIndexMap;
use heapless::{Deque, Vec};

/// Times that one question is sent upstream at most.
pub const ATTEMPTS: usize = 6;
/// Entries of the map of questions: twice the questions, so that probes stay short.
const QUESTION_MAP: usize = (PENDING * 2).next_power_of_two();
/// Buckets among which clients are spread to share the table fairly.
const CLIENT_BUCKETS: usize = 256;
/// Of the places to wait in, one client may hold this share (1/n) while more than half of them are taken.
const CLIENT_SHARE: usize = 4;

const _: () = assert!(QUESTION_MAP <= 65_536, "heapless maps hold 16-bit indices");

/// A transaction with an upstream: this message by this way, which is its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Which upstream.
    pub upstream: u8,
    /// The way that it went. `None`: no port could be had, and it never was sent.
    pub via: Option<Via>,
    /// The message ID.
    pub id: u16,
    /// When it was sent.
    pub sent: Instant,
    /// Whether an answer is still expected.
    pub live: bool,
    /// Whether the query carried EDNS.
    pub edns: bool,
    /// Whether the name was sent in random letter case, which has to come back.
    pub random_case: bool,
    /// It took longer than usual, or ICMP refused it, and was counted as a timeout of its upstream.
    pub overdue: bool,
    /// What came to its port from its upstream and was not its answer, so many times.
    pub forged: u8,
}

/// A question in flight.
#[derive(Clone, Debug)]
pub struct Pending {
    /// QNAME in lower case.
    pub name: Name,
    /// QTYPE.
    pub qtype: u16,
    /// DO.
    pub dnssec_ok: bool,
    /// CD.
    pub checking_disabled: bool,
    /// Keyed hash of the name.
    pub name_hash: u64,
    /// Group of upstreams.
    pub group: u8,
    /// When the first client asked.
    pub started: Instant,
    /// When the next upstream is asked.
    pub next_try: Instant,
    /// When all is given up.
    pub give_up: Instant,
    /// When those who wait get a stale answer, if there is one.
    pub stale_at: Instant,
    /// Transactions, the oldest first.
    pub attempts: Vec<Attempt, ATTEMPTS>,
    /// Upstreams that were asked.
    pub tried: Tried,
    /// The first of the list of waiting clients.
    pub first_waiter: Option<u16>,
    /// The response code of the worst answer so far that did not help, to be passed on if nothing better comes.
    pub failure: Option<u8>,
    /// The extended error that came with such an answer; `ede::NONE`: none did.
    pub failure_ede: u16,
    /// The letter case in which the name was sent upstream.
    pub sent_case: LetterCase,
    /// Upstreams that did not understand this question with EDNS.
    pub without_edns: Tried,
    /// Upstreams that lost the letter case of this question.
    pub without_case: Tried,
    /// The answer is known not to fit a datagram: it is fetched in a stream.
    pub by_stream: bool,
    /// The policy under which it was decided that upstream is asked.
    pub generation: u32,
    /// Fair share bucket of the client that asked first.
    pub bucket: u8,
    /// Its place among the chases, where its answer ended with an alias and the alias's target is asked for.
    pub chase: Option<u16>,
}

/// A chain of aliases that ended without an answer: its last target is asked for, and the answer put behind it.
#[derive(Clone, Debug)]
pub struct Chase {
    /// The name that is asked for, in lower case.
    pub target: Name,
    /// How often a target was asked for.
    pub steps: u8,
    /// The chain so far.
    pub chain: ChainStart,
}

impl Attempt {
    /// Its source port, if it is a datagram's.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.via.and_then(Via::port)
    }

    /// Whether it was asked in a stream.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        self.via.is_some_and(Via::is_stream)
    }
}

impl Pending {
    /// When something has to be done.
    #[must_use]
    pub fn wake(&self) -> Instant {
        self.next_try.min(self.give_up).min(self.stale_at)
    }

    /// The cache key.
    #[must_use]
    pub fn key(&self) -> Key<'_> {
        Key {
            name: self.name.as_wire(),
            qtype: self.qtype,
            dnssec_ok: self.dnssec_ok,
            checking_disabled: self.checking_disabled,
        }
    }

    /// Keyed hash of the question: cache slot and table key.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.key().hash_under(self.name_hash)
    }

    /// Whether any transaction may still be answered.
    #[must_use]
    pub fn has_live_attempt(&self) -> bool {
        self.attempts.iter().any(|attempt| attempt.live)
    }
}

/// What a client's EDNS asked for that the reply has to repeat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientEdns {
    /// DO.
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
    pub route: R,
    /// Its query's ID.
    pub id: u16,
    /// RD and CD as it had them, and AD where it may have it.
    pub flags: u16,
    /// The longest message that it may get.
    pub limit: u16,
    /// Its EDNS, if it had any.
    pub edns: Option<ClientEdns>,
    /// Its address is not proven by a cookie, so it gets no long answer over UDP.
    pub is_unknown: bool,
    /// The letter case of its QNAME.
    pub case: LetterCase,
    /// Its fair share bucket.
    pub bucket: u8,
    /// What the table links it with.
    pub links: Links,
}

/// Where a waiting client stands in the table.
#[derive(Clone, Copy, Debug, Default)]
pub struct Links {
    /// Its QNAME in the table of aliases, where that is not the name in flight.
    alias: Option<u16>,
    /// The next client that waits for the same question.
    next: Option<u16>,
}

impl<R> Waiter<R> {
    /// Whether it waits on a stream, where nothing is cut.
    #[must_use]
    pub const fn is_tcp(&self) -> bool {
        self.limit as usize == TCP_MESSAGE_MAX
    }
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

/// A transaction cannot be noted: there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotBegun;

/// The table of questions in flight. Full: the caller ends the [`victim`](Self::victim) and takes the new one.
#[derive(Debug)]
pub struct PendingTable<R> {
    questions: Slab<Pending, PENDING>,
    waiters: Slab<Waiter<R>, WAITERS>,
    /// QNAMEs of those who wait for what another name has.
    aliases: Slab<Name, ALIASES>,
    chases: Slab<Chase, CHASES>,
    by_question: FnvIndexMap<u64, u16, QUESTION_MAP>,
    /// The oldest first. Full: the oldest makes room.
    lingering: Deque<Lingering, LINGERING>,
    /// `Pending::wake` in milliseconds by index; 0: free. Kept apart so that looking for what is due stays cheap.
    wakes: [u64; PENDING],
    /// Running number and bucket of each question by index; 0: free. Kept apart so that looking for the oldest stays cheap.
    ages: [u64; PENDING],
    /// Questions that were taken on so far.
    taken: u64,
    /// Questions by bucket of the client that asked first.
    held: [u16; CLIENT_BUCKETS],
    /// Waiting clients by bucket.
    waiting: [u16; CLIENT_BUCKETS],
    /// Nothing is due before.
    next_wake: Instant,
}

impl<R: Copy + PartialEq> PendingTable<R> {
    /// Empty.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            questions: Slab::new(),
            waiters: Slab::new(),
            aliases: Slab::new(),
            chases: Slab::new(),
            by_question: FnvIndexMap::new(),
            lingering: Deque::new(),
            wakes: [0; PENDING],
            ages: [0; PENDING],
            taken: 0,
            held: [0; CLIENT_BUCKETS],
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
    pub fn find(&self, hash: u64, key: &Key<'_>) -> Option<u16> {
        let index = *self.by_question.get(&hash)?;
        let same = |pending: &&Pending| {
            pending.name.as_wire() == key.name
                && pending.qtype == key.qtype
                && pending.dnssec_ok == key.dnssec_ok
                && pending.checking_disabled == key.checking_disabled
        };
        self.questions.get(index).filter(same).map(|_| index)
    }

    /// Takes on a question.
    ///
    /// # Errors
    /// There is no room.
    pub fn insert(&mut self, pending: Pending) -> Result<u16, PendingFull> {
        let (hash, bucket) = (pending.hash(), pending.bucket);
        let wake = pending.wake();
        let index = self
            .questions
            .insert(pending)
            .map_err(|_| PendingFull::Questions)?;
        // Cannot be full: the map has twice the entries of the table.
        let _ = self.by_question.insert(hash, index);
        self.held[usize::from(bucket)] += 1;
        self.taken += 1;
        self.ages[usize::from(index)] = self.taken << 8 | u64::from(bucket);
        self.set_wake(index, wake);
        Ok(index)
    }

    /// The question at `index`.
    #[must_use]
    pub fn get(&self, index: u16) -> Option<&Pending> {
        self.questions.get(index)
    }

    /// Changes the question at `index` and keeps its deadlines known.
    pub fn update<T>(&mut self, index: u16, change: impl FnOnce(&mut Pending) -> T) -> Option<T> {
        let pending = self.questions.get_mut(index)?;
        let result = change(pending);
        let wake = pending.wake();
        self.set_wake(index, wake);
        Some(result)
    }

    fn set_wake(&mut self, index: u16, wake: Instant) {
        self.wakes[usize::from(index)] = wake.millis().max(1);
        self.next_wake = self.next_wake.min(wake);
    }

    /// Notes a transaction of the question at `index`.
    ///
    /// # Errors
    /// There is no room.
    pub fn begin(&mut self, index: u16, attempt: Attempt) -> Result<(), NotBegun> {
        let pending = self.questions.get_mut(index).ok_or(NotBegun)?;
        pending.attempts.push(attempt).map_err(|_| NotBegun)?;
        pending.tried |= 1 << attempt.upstream;
        Ok(())
    }

    /// The chain of aliases that the question at `index` follows.
    #[must_use]
    pub fn chase(&self, index: u16) -> Option<&Chase> {
        self.chases.get(self.questions.get(index)?.chase?)
    }

    /// The name that upstream is asked for.
    #[must_use]
    pub fn asked_name(&self, index: u16) -> Option<&Name> {
        match self.chase(index) {
            Some(chase) => Some(&chase.target),
            None => self.questions.get(index).map(|pending| &pending.name),
        }
    }

    /// Makes the question at `index` one for `chase.target`, which nobody has been asked for yet. Whether there was room.
    pub fn follow(&mut self, index: u16, chase: &Chase) -> bool {
        let Some(pending) = self.questions.get_mut(index) else {
            return false;
        };
        let place = pending.chase;
        match place.and_then(|place| self.chases.get_mut(place)) {
            Some(present) => present.clone_from(chase),
            None => match self.chases.insert(chase.clone()) {
                Ok(place) => pending.chase = Some(place),
                Err(_) => return false,
            },
        }
        self.forget_attempts(index);
        true
    }

    /// Makes the question at `index` one for `group`, which nobody has been asked yet.
    pub fn restart(&mut self, index: u16, group: u8, now: Instant) {
        self.forget_attempts(index);
        self.update(index, |pending| {
            pending.group = group;
            pending.next_try = now;
        });
    }

    fn forget_attempts(&mut self, index: u16) {
        let Some(pending) = self.questions.get_mut(index) else {
            return;
        };
        pending.attempts.clear();
        (pending.tried, pending.without_edns, pending.without_case) = (0, 0, 0);
        pending.by_stream = false;
    }

    /// The live transaction on the stream in `slot`, which has one question at a time.
    #[must_use]
    pub fn by_stream(&self, slot: u16) -> Option<(u16, Attempt)> {
        let via = Some(Via::Stream { slot });
        self.questions.iter().find_map(|(index, pending)| {
            let mut attempts = pending.attempts.iter();
            let attempt = attempts.find(|attempt| attempt.live && attempt.via == via)?;
            Some((index, *attempt))
        })
    }

    /// Whether this client waits for the question at `index` already: a datagram that comes again while its client waits
    /// is not put in twice. A stream repeats nothing by itself, and every query on it is owed an answer.
    #[must_use]
    pub fn is_joined(&self, index: u16, waiter: &Waiter<R>, alias: Option<&Name>) -> bool {
        let Some(pending) = self.questions.get(index) else {
            return false;
        };
        !waiter.is_tcp() && self.is_waiting(pending.first_waiter, waiter, alias)
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
        let Some(pending) = self.questions.get_mut(index) else {
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
        let links = Links {
            alias,
            next: pending.first_waiter,
        };
        let bucket = usize::from(waiter.bucket);
        let waiter = Waiter { links, ..waiter };
        let at = self
            .waiters
            .insert(waiter)
            .map_err(|_| PendingFull::Waiters)?;
        pending.first_waiter = Some(at);
        self.waiting[bucket] += 1;
        Ok(())
    }

    /// Whether the list that begins with `first` has this client with this question already.
    fn is_waiting(&self, first: Option<u16>, waiter: &Waiter<R>, alias: Option<&Name>) -> bool {
        let mut at = first;
        // Bound: the list is made of distinct entries of `waiters`.
        while let Some(present) = at.and_then(|at| self.waiters.get(at)) {
            let same_name = present.links.alias.and_then(|at| self.aliases.get(at)) == alias;
            if present.id == waiter.id && present.route == waiter.route && same_name {
                return true;
            }
            at = present.links.next;
        }
        false
    }

    /// Takes one waiting client off the question at `index`, with its QNAME where that is another one.
    pub fn pop_waiter(&mut self, index: u16) -> Option<(Waiter<R>, Option<Name>)> {
        self.pop_waiter_that(index, |_| true)
    }

    /// Takes one waiting client that is `wanted` off the question at `index`.
    pub fn pop_waiter_that(
        &mut self,
        index: u16,
        wanted: impl Fn(&Waiter<R>) -> bool,
    ) -> Option<(Waiter<R>, Option<Name>)> {
        let pending = self.questions.get_mut(index)?;
        let mut before = None;
        let mut at = pending.first_waiter?;
        // Bound: the list is made of distinct entries of `waiters`.
        while !wanted(self.waiters.get(at)?) {
            before = Some(at);
            at = self.waiters.get(at)?.links.next?;
        }
        let waiter = self.waiters.remove(at)?;
        match before.and_then(|before| self.waiters.get_mut(before)) {
            Some(before) => before.links.next = waiter.links.next,
            None => pending.first_waiter = waiter.links.next,
        }
        self.waiting[usize::from(waiter.bucket)] -= 1;
        let alias = waiter
            .links
            .alias
            .and_then(|alias| self.aliases.remove(alias));
        Some((waiter, alias))
    }

    /// Ends a question. Clients that still wait are forgotten.
    pub fn remove(&mut self, index: u16) {
        while self.pop_waiter(index).is_some() {}
        let Some(pending) = self.questions.remove(index) else {
            return;
        };
        let hash = pending.hash();
        if self.by_question.get(&hash) == Some(&index) {
            self.by_question.remove(&hash);
        }
        if let Some(place) = pending.chase {
            self.chases.remove(place);
        }
        self.held[usize::from(pending.bucket)] -= 1;
        self.wakes[usize::from(index)] = 0;
        self.ages[usize::from(index)] = 0;
    }

    /// The question that makes room for another: of those clients that have the most questions, the one that has been in
    /// flight for the longest time. So whoever fills the table pays for it, and the others do not notice.
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
        let is_waited = |(index, pending): &(u16, &Pending)| {
            pending.first_waiter.is_some() && Some(*index) != but
        };
        let questions = self.questions.iter().filter(is_waited);
        questions
            .max_by_key(|(index, pending)| {
                let held = self.held[usize::from(pending.bucket)];
                (held, Reverse(self.ages[usize::from(*index)]))
            })
            .map(|(index, _)| index)
    }

    /// The question that makes room for another one's chain of aliases, by the same rule.
    #[must_use]
    pub fn chase_victim(&self) -> Option<u16> {
        let chases = || {
            let questions = self.questions.iter();
            questions.filter(|(_, pending)| pending.chase.is_some())
        };
        let held = |bucket| chases().filter(|(_, other)| other.bucket == bucket).count();
        chases()
            .max_by_key(|(index, pending)| {
                (
                    held(pending.bucket),
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
