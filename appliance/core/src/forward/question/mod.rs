//! The life of a question in flight: the stage it is in, what may happen to it, and what is done then.
//!
//! ```text
//!  Begin ──► Beginning ──► Probing ──► Asking ───── TC was given, others want all of it ────┐
//!            one datagram, or two,      │  ▲                                              │
//!            then one to measure        │  │ opened, or none is free                      │
//!        TC, lost letter case, a port   ▼  │                                              ▼
//!        that somebody guesses at      Opening ◄── opened, or none is free ──► Fetching ◄── Begin, where the answer is
//!                                                                              known to fit no datagram
//! ```
//! [`Question::on`] is all of it: a pure step from what happened to what is to be done. It sends nothing itself.

mod learn;

pub use learn::ServerTraits;

use super::letter_case::LetterCase;
use super::tries::{Attempt, Tries, has};
use super::upstreams::{Strategy, Upstreams};
use super::zone::DomainBuckets;
use crate::answer::{HashedKey, Key};
use crate::counters::{Counter, Counters};
use crate::dns::Name;
use crate::dns::edns::ede;
use crate::dns::{rcode, rtype};
use crate::time::Instant;

/// How long to wait for a stream to become free.
pub const STREAM_WAIT_MS: u64 = 50;
/// How long to wait for an answer in a stream before the next server is asked beside it. A stream repeats by itself what is
/// lost, and a long answer takes a while; but a server, or a box on the way to it, may drop TCP in silence.
const STREAM_BESIDE_MS: u64 = 1_500;
/// A server that was asked already is asked again after this time at the earliest: the datagram may be lost. That it is
/// slower than it usually is says little where most of its answers come from its cache.
const REPEAT_MIN_MS: u64 = 400;
/// Sub-questions that are asked one after the other. A longer chain, or one that bites its tail, is a failure.
pub const STEPS_MAX: u8 = 8;

/// Where a question is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The first server is asked in a datagram, or the first two where they race.
    Beginning,
    /// One more is asked, to learn how it does. Nobody waits for it.
    Probing,
    /// Servers are asked in datagrams, one after the other, as long as none has answered.
    Asking,
    /// A stream to this server is to be opened.
    Opening {
        /// The server.
        server: u8,
        /// What for.
        purpose: StreamPurpose,
    },
    /// The answer is known to fit no datagram: servers are asked in streams, as soon as one is free.
    Fetching,
}

/// Why a question opens a stream, and so what happens where none is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamPurpose {
    /// The answer fits no datagram, and those who wait want all of it: they wait for a stream.
    Whole,
    /// An answer was truncated (RFC 7766 section 5): those who wait for a datagram get what there is, and TC.
    Rest,
    /// A datagram cannot be trusted at the moment, or was not understood: it is sent nevertheless.
    Instead,
}

/// What may happen to a question. An attempt that is named has ended by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It was taken on, or has become one for something else.
    Begin,
    /// What was to be sent has been sent.
    Sent,
    /// It could not be sent, or there was no stream.
    NotSent,
    /// There is no way to the server: it could not be sent, nor could it soon.
    NoWay(Attempt),
    /// Something is due.
    Deadline,
    /// An answer that says something about the name.
    Answered,
    /// As much of it as fits a datagram.
    Truncated(Attempt),
    /// An answer that says that the server does not know EDNS (RFC 6891 section 7).
    NotUnderstood(Attempt, Failure),
    /// An answer that does not help: a failure, a referral, or broken.
    Useless(Failure),
    /// An answer in another letter case than that of the question: forged, or the server loses the case.
    WrongCase(Attempt),
    /// Somebody guesses at the ID of this attempt.
    Guessed(Attempt),
    /// The stream ended without an answer.
    Lost(Attempt),
    /// ICMP says that it did not arrive, or the stream's connection was refused.
    Unreachable(Attempt),
    /// Its answer is not whole without that of another question.
    Incomplete {
        /// Sub-questions so far, this one included.
        steps: u8,
    },
    /// Its aliases end nowhere, within one answer.
    Endless,
    /// There is no room for the sub-question.
    NoRoom,
    /// Those who wait got the answer; where it was truncated, those who wait for a datagram.
    Delivered {
        /// Whether others still wait, for all of it.
        others_wait: bool,
    },
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send it to this server in a datagram.
    Send(u8),
    /// Open a stream to this server, and send it there.
    Open(u8),
    /// Nothing, until something happens.
    Wait,
    /// Give the answer that came to those who wait.
    Deliver,
    /// Give those who wait a stale answer, if there is one.
    Stale,
    /// End it with this failure, or a stale answer.
    Fail(Failure),
    /// Ask the sub-question.
    Ask,
    /// Forget it.
    End,
}

/// A failure, ours or an upstream's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// RCODE for the client. Valid values: 1 to 15.
    pub rcode: u8,
    /// Extended error, or [`ede::NONE`].
    pub ede: u16,
}

impl Failure {
    /// SERVFAIL, about which no more is known.
    pub const SERVFAIL: Self = Self {
        rcode: rcode::SERVFAIL,
        ede: ede::NONE,
    };
}

/// When something is due. [`Instant::FAR_FUTURE`]: never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// When the next upstream is asked.
    pub next_try: Instant,
    /// When those who wait get a stale answer, if there is one.
    pub stale: Instant,
    /// When all is given up.
    pub give_up: Instant,
}

/// A question in flight.
#[derive(Clone, Debug)]
pub struct Question {
    /// QNAME in lower case.
    pub name: Name,
    /// QTYPE, which a sub-question has as well.
    pub qtype: u16,
    /// Whether upstream is asked with DO (RFC 3225).
    pub dnssec_ok: bool,
    /// Whether upstream is asked with CD (RFC 4035 section 3.2.2).
    pub checking_disabled: bool,
    /// The view of those who wait for it.
    pub view: u8,
    /// Keyed hash of the name.
    pub name_hash: u64,
    /// Group of upstreams.
    pub group: u8,
    /// Where it is in its life.
    pub stage: Stage,
    /// When something is due.
    pub deadlines: Deadlines,
    /// What was sent upstream for it.
    pub tries: Tries,
    /// The first of the list of waiting clients.
    pub(super) first_waiter: Option<u16>,
    /// The response code of the first answer that did not help, to be passed on if nothing better comes.
    pub failure: Option<u8>,
    /// The extended error that came with the last such answer, or what is said where none came.
    pub failure_ede: u16,
    /// The letter case in which the name is sent upstream.
    pub sent_case: LetterCase,
    /// The policy under which it was decided that upstream is asked.
    pub generation: u32,
    /// Fair share bucket of the client that asked first.
    pub bucket: u8,
    /// The domain that its name is counted under.
    pub zone: DomainBuckets,
    /// The place of the sub-question that it waits for, if it does.
    pub(super) sub: Option<u16>,
}

/// What a question sees of the world when something happens: the servers, the time, and where it is counted.
#[derive(Debug)]
pub struct Scene<'s> {
    /// The servers.
    pub upstreams: &'s mut Upstreams,
    /// What is counted.
    pub counters: &'s Counters,
    /// The time.
    pub now: Instant,
}

impl Question {
    /// A question for A in the default group, of which nobody has been asked yet.
    #[must_use]
    pub const fn new(name: Name, stage: Stage, deadlines: Deadlines) -> Self {
        Self {
            name,
            qtype: rtype::A,
            dnssec_ok: false,
            checking_disabled: false,
            view: 0,
            name_hash: 0,
            group: 0,
            stage,
            deadlines,
            tries: Tries::new(),
            first_waiter: None,
            failure: None,
            failure_ede: ede::NO_REACHABLE_AUTHORITY,
            sent_case: LetterCase::LOWER,
            generation: 0,
            bucket: 0,
            zone: DomainBuckets::NONE,
            sub: None,
        }
    }

    /// The key of its answer in the cache, and its own among those in flight.
    #[must_use]
    pub fn key(&self) -> HashedKey<'_> {
        let key = Key {
            name: self.name.as_wire(),
            qtype: self.qtype,
            dnssec_ok: self.dnssec_ok,
            checking_disabled: self.checking_disabled,
            view: self.view,
        };
        key.with_name_hash(self.name_hash)
    }

    /// The hash of its key.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.key().hash()
    }

    /// When something has to be done.
    #[must_use]
    pub fn wake(&self) -> Instant {
        let Deadlines {
            next_try,
            stale,
            give_up,
        } = self.deadlines;
        next_try.min(give_up).min(stale)
    }

    /// Whether a client waits for it.
    #[must_use]
    pub const fn has_waiters(&self) -> bool {
        self.first_waiter.is_some()
    }

    /// Whether it waits for a sub-question.
    #[must_use]
    pub const fn has_sub(&self) -> bool {
        self.sub.is_some()
    }

    /// Makes it one that nobody in `group` was asked yet; [`Event::Begin`] or its deadline goes on.
    pub fn restart(&mut self, group: u8) {
        self.group = group;
        self.tries = Tries::new();
        self.stage = Stage::Asking;
    }

    /// Takes the step that `event` leads to.
    pub fn on(&mut self, event: Event, scene: &mut Scene<'_>) -> Step {
        match (self.stage, event) {
            (Stage::Fetching, Event::Begin) => self.ask_next(scene),
            (_, Event::Begin) => {
                self.stage = Stage::Beginning;
                self.ask_next(scene)
            }
            (stage, Event::Sent) => self.on_sent(stage, scene),
            (stage, Event::NotSent) => self.on_not_sent(stage, scene),
            (stage, Event::NoWay(attempt)) => self.on_no_way(stage, &attempt, scene),

            (_, Event::Answered) => Step::Deliver,
            (Stage::Fetching, Event::Truncated(_)) => Step::Deliver,
            (_, Event::Truncated(attempt)) => self.open(attempt.upstream, StreamPurpose::Rest),
            (_, Event::NotUnderstood(_, failure)) if self.tries.is_full() => {
                self.fail_over(failure, scene)
            }
            (_, Event::NotUnderstood(attempt, _)) => self.ask_without_edns(&attempt),
            (_, Event::Useless(failure)) => self.fail_over(failure, scene),
            (_, Event::WrongCase(attempt)) => {
                self.note_lost_case(&attempt, scene);
                self.open_instead(&attempt)
            }
            (_, Event::Guessed(attempt)) => self.open_instead(&attempt),
            (_, Event::Lost(attempt)) => {
                self.note_timeout(&attempt, scene);
                self.after_loss(&attempt, scene)
            }
            (_, Event::Unreachable(attempt)) => {
                self.note_unreachable(&attempt, scene);
                self.after_loss(&attempt, scene)
            }

            (_, Event::Deadline) => self.on_deadline(scene),

            (_, Event::Incomplete { steps }) if steps <= STEPS_MAX => Step::Ask,
            (_, Event::Incomplete { .. } | Event::Endless) => {
                self.failure = Some(rcode::SERVFAIL);
                self.fail(ede::OTHER)
            }
            (_, Event::NoRoom) => self.fail(ede::NOT_READY),
            (_, Event::Delivered { others_wait: false }) => Step::End,
            (Stage::Fetching, Event::Delivered { .. }) if self.tries.has_live_stream() => {
                Step::Wait
            }
            (_, Event::Delivered { .. }) => self.wait_for_stream(scene),
        }
    }

    fn on_sent(&mut self, stage: Stage, scene: &mut Scene<'_>) -> Step {
        match stage {
            Stage::Beginning => {
                self.schedule(true, scene);
                self.ask_beside(scene)
            }
            Stage::Asking => {
                self.schedule(true, scene);
                Step::Wait
            }
            Stage::Probing => self.wait(Stage::Asking),
            Stage::Opening { purpose, .. } => {
                self.deadlines.next_try = if self.has_untried(scene) {
                    scene.now + STREAM_BESIDE_MS
                } else {
                    Instant::FAR_FUTURE
                };
                self.wait(match purpose {
                    StreamPurpose::Whole => Stage::Fetching,
                    StreamPurpose::Rest | StreamPurpose::Instead => Stage::Asking,
                })
            }
            // Nothing is sent in this stage but by way of `Opening`.
            Stage::Fetching => Step::Wait,
        }
    }

    fn on_not_sent(&mut self, stage: Stage, scene: &mut Scene<'_>) -> Step {
        match stage {
            Stage::Beginning => {
                self.schedule(false, scene);
                self.ask_beside(scene)
            }
            Stage::Asking => {
                self.schedule(false, scene);
                Step::Wait
            }
            Stage::Probing => self.wait(Stage::Asking),
            Stage::Opening { server, purpose } => match purpose {
                StreamPurpose::Whole => self.wait_for_stream(scene),
                StreamPurpose::Rest => self.deliver(),
                StreamPurpose::Instead => self.send(server),
            },
            Stage::Fetching => Step::Wait,
        }
    }

    /// As where ICMP says so, which is what a router says that has no way.
    fn on_no_way(&mut self, stage: Stage, attempt: &Attempt, scene: &mut Scene<'_>) -> Step {
        self.note_unreachable(attempt, scene);
        let purpose = match stage {
            Stage::Probing => return self.wait(Stage::Asking),
            Stage::Opening { purpose, .. } => Some(purpose),
            Stage::Beginning | Stage::Asking | Stage::Fetching => None,
        };
        match purpose {
            Some(StreamPurpose::Rest) => return self.deliver(),
            Some(StreamPurpose::Instead) if self.may_be_lost_for_case(attempt) => {
                return self.send(attempt.upstream);
            }
            Some(StreamPurpose::Whole) => self.stage = Stage::Fetching,
            Some(StreamPurpose::Instead) => self.stage = Stage::Asking,
            None => {}
        }
        // For those that were asked beside it.
        self.schedule(false, scene);
        let step = self.fail_over(Failure::SERVFAIL, scene);
        if step == Step::Wait && self.stage == Stage::Beginning {
            self.stage = Stage::Asking;
        }
        step
    }
}

/// How steps are chosen.
impl Question {
    const fn wait(&mut self, stage: Stage) -> Step {
        self.stage = stage;
        Step::Wait
    }

    fn wait_for_stream(&mut self, scene: &Scene<'_>) -> Step {
        self.deadlines.next_try = scene.now + STREAM_WAIT_MS;
        self.wait(Stage::Fetching)
    }

    const fn deliver(&mut self) -> Step {
        self.stage = Stage::Asking;
        Step::Deliver
    }

    const fn send(&mut self, server: u8) -> Step {
        self.stage = Stage::Asking;
        Step::Send(server)
    }

    const fn open(&mut self, server: u8, purpose: StreamPurpose) -> Step {
        self.stage = Stage::Opening { server, purpose };
        Step::Open(server)
    }

    /// Asks the same server once more, in a stream, which cannot be forged by somebody who does not see it.
    fn open_instead(&mut self, attempt: &Attempt) -> Step {
        let purpose = match self.stage {
            Stage::Fetching => StreamPurpose::Whole,
            Stage::Beginning | Stage::Probing | Stage::Asking | Stage::Opening { .. } => {
                StreamPurpose::Instead
            }
        };
        self.open(attempt.upstream, purpose)
    }

    /// RFC 6891 section 7: the server may not know EDNS. It is asked again at once, without, by the same way.
    fn ask_without_edns(&mut self, attempt: &Attempt) -> Step {
        self.tries.without_edns |= 1 << attempt.upstream;
        if attempt.is_stream() || self.stage == Stage::Fetching {
            self.open_instead(attempt)
        } else {
            self.send(attempt.upstream)
        }
    }

    fn fail(&self, reason: u16) -> Step {
        Step::Fail(self.failure(reason))
    }

    /// What it ends with where it ends without an answer, for this reason; `ede::NONE`: what an upstream said.
    #[must_use]
    pub fn failure(&self, reason: u16) -> Failure {
        Failure {
            rcode: match self.failure {
                Some(rcode::REFUSED) => rcode::REFUSED,
                // FORMERR or NOTIMP from upstream is about our message, and the client's own was understood.
                None | Some(_) => rcode::SERVFAIL,
            },
            ede: if reason == ede::NONE {
                self.failure_ede
            } else {
                reason
            },
        }
    }

    /// Asks the next server.
    fn ask_next(&mut self, scene: &Scene<'_>) -> Step {
        let next = self.next_server(scene.upstreams);
        match next.filter(|_| !self.tries.is_full()) {
            Some(server) if self.stage == Stage::Fetching => {
                self.open(server, StreamPurpose::Whole)
            }
            Some(server) => Step::Send(server),
            None if self.tries.has_live() => {
                self.deadlines.next_try = Instant::FAR_FUTURE;
                self.wait(if self.stage == Stage::Fetching {
                    Stage::Fetching
                } else {
                    Stage::Asking
                })
            }
            None => self.fail(ede::NO_REACHABLE_AUTHORITY),
        }
    }

    /// The server to ask next. Once all were asked, they take turns.
    fn next_server(&self, upstreams: &Upstreams) -> Option<u8> {
        let asked = self.tries.asked();
        let next = upstreams.pick(self.group, asked)?;
        if !has(asked, next) {
            return Some(next);
        }
        upstreams.pick_again(self.group, |server| self.tries.times(server))
    }

    /// Whether there is a server that was not asked, and that may be.
    fn has_untried(&self, scene: &Scene<'_>) -> bool {
        let asked = self.tries.asked();
        let next = scene.upstreams.pick(self.group, asked);
        next.is_some_and(|next| !has(asked, next)) && !self.tries.is_full()
    }

    /// A second server where they race, then one that is to be probed.
    fn ask_beside(&mut self, scene: &mut Scene<'_>) -> Step {
        let (group, asked) = (self.group, self.tries.asked());
        let races = scene.upstreams.strategy(group) == Strategy::Race;
        if races && asked.count_ones() == 1 && !self.tries.is_full() {
            let rival = scene.upstreams.pick(group, asked);
            if let Some(rival) = rival.filter(|rival| !has(asked, *rival)) {
                return Step::Send(rival);
            }
        }
        match scene.upstreams.probe(group, asked, scene.now) {
            Some(server) => {
                self.stage = Stage::Probing;
                Step::Send(server)
            }
            None => self.wait(Stage::Asking),
        }
    }

    /// Sets when the server after the latest one is asked.
    fn schedule(&mut self, went_out: bool, scene: &Scene<'_>) {
        let attempts = self.tries.as_slice();
        let server = attempts.last();
        let server = server.and_then(|attempt| scene.upstreams.get(attempt.upstream));
        let retry_ms = server.map_or(0, |server| u64::from(server.retry_ms()));
        let asked = self.tries.asked();
        let next = scene.upstreams.pick(self.group, asked);
        let is_repeat = next.is_some_and(|next| has(asked, next));
        let wait_ms = match (went_out, is_repeat) {
            // Milliseconds, doubled with each of at most `ATTEMPTS`: what is in the way, a full queue mostly, is soon gone.
            (false, _) => 1 << attempts.len(),
            (true, false) => retry_ms,
            (true, true) => {
                // Each round over the same servers waits twice as long as the one before.
                let others = asked.count_ones() as usize;
                let rounds = attempts.len().saturating_sub(1) / others.max(1);
                retry_ms.max(REPEAT_MIN_MS) << rounds
            }
        };
        self.deadlines.next_try = scene.now + wait_ms;
    }

    /// What was sent is lost: the next server is asked, or the same one in a datagram where that may help.
    fn after_loss(&mut self, attempt: &Attempt, scene: &mut Scene<'_>) -> Step {
        let may_be_answered = self.stage != Stage::Fetching && attempt.is_stream();
        if may_be_answered && self.may_be_lost_for_case(attempt) {
            self.send(attempt.upstream)
        } else {
            self.fail_over(Failure::SERVFAIL, scene)
        }
    }

    /// One server did not help: the next one is asked, or those are waited for that were asked as well, or it has failed.
    fn fail_over(&mut self, failure: Failure, scene: &mut Scene<'_>) -> Step {
        self.failure.get_or_insert(failure.rcode);
        if failure.ede != ede::NONE {
            self.failure_ede = failure.ede;
        }
        if self.has_untried(scene) {
            scene.counters.count(Counter::UpstreamRetries);
            self.ask_next(scene)
        } else if self.tries.has_live() {
            Step::Wait
        } else {
            self.fail(ede::NONE)
        }
    }

    fn on_deadline(&mut self, scene: &mut Scene<'_>) -> Step {
        let now = scene.now;
        if self.deadlines.give_up <= now {
            self.note_timeouts(scene);
            return self.fail(ede::NO_REACHABLE_AUTHORITY);
        }
        if self.deadlines.stale <= now {
            self.deadlines.stale = Instant::FAR_FUTURE;
            return Step::Stale;
        }
        self.note_timeouts(scene);
        scene.counters.count(Counter::UpstreamRetries);
        self.ask_next(scene)
    }
}

#[cfg(test)]
mod tests;
