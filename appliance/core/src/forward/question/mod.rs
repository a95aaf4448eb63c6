//! State machine of a question in flight: its stages, events and steps.
//!
//! ```text
//!  AskedElsewhere ──► Elsewhere ──► Begin, where the other's answer is not in the cache, or its time is over
//!
//!  Begin ──► Beginning ──► Probing ──► Asking ───── TC was given, others want all of it ────┐
//!            one datagram, or two,      │  ▲                                              │
//!            then one to measure        │  │ opened, or none is free                      │
//!        TC, lost letter case, a port   ▼  │                                              ▼
//!        that somebody guesses at      Opening ◄── opened, or none is free ──► Fetching ◄── Begin, where the answer is
//!                                                                              known to fit no datagram
//! ```
//! [`Question::on`] is the whole machine: a pure function from an event to the next step. It sends nothing itself.

mod failure;
mod learn;

pub use failure::Failure;
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

/// Time to wait for a free stream, in milliseconds.
pub const STREAM_WAIT_MS: u64 = 50;
/// Time to wait for an answer over a stream before the next server is asked as well, in milliseconds. A stream repeats lost
/// segments by itself, and a long answer takes a while; but a server, or a middlebox before it, may drop TCP silently.
const STREAM_BESIDE_MS: u64 = 1_500;
/// Longest time to wait for the answer to another engine's question, in milliseconds. By then that engine has asked more than
/// one server; what is wrong with its question may not be wrong with this one.
pub const ELSEWHERE_MS: u64 = 1_500;
/// Shortest time after which a server is asked again, in milliseconds, since the datagram may be lost. A server that
/// usually answers from its cache may well take longer.
const REPEAT_MIN_MS: u64 = 400;
/// Most sub-questions of a question, one after the other. A longer chain, or a loop, is a failure.
pub const STEPS_MAX: u8 = 8;

/// Stage of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The first server is asked in a datagram, or the first two if they race.
    Beginning,
    /// One more server is asked, to measure it. No client waits for its answer.
    Probing,
    /// Servers are asked in datagrams, one after the other, until one answers.
    Asking,
    /// A stream to this server is being opened.
    Opening {
        /// Server of the stream.
        server: u8,
        /// Purpose of the stream.
        purpose: StreamPurpose,
    },
    /// The answer is known not to fit a datagram: servers are asked over streams, as soon as one is free.
    Fetching,
    /// Another engine asks: its answer is waited for.
    Elsewhere,
}

/// Purpose of a stream, which decides what happens if none is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamPurpose {
    /// The answer fits no datagram, and clients want all of it: they wait for a stream.
    Whole,
    /// An answer was truncated (RFC 7766 section 5). Without a stream, clients over UDP get TC.
    Rest,
    /// A datagram is not to be trusted at the moment, or was not understood. Without a stream it is sent nevertheless.
    Instead,
}

/// Events in the life of a question. The attempt of an event has ended by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The question was taken on, or begins anew with a sub-question.
    Begin,
    /// The question was taken on, and another engine asks it already.
    AskedElsewhere,
    /// The message was sent.
    Sent,
    /// The message could not be sent, or there was no stream.
    NotSent,
    /// There is no route to the server: the message could not be sent, and cannot be soon.
    NoWay(Attempt),
    /// A deadline has passed.
    Deadline,
    /// An answer came that says something about the name.
    Answered,
    /// A truncated answer came.
    Truncated(Attempt),
    /// An answer says that the server does not understand EDNS (RFC 6891 section 7).
    NotUnderstood(Attempt, Failure),
    /// A useless answer came: a failure, a referral, or malformed.
    Useless(Failure),
    /// An answer came in another letter case than the question's: it is forged, or the server does not keep the case.
    WrongCase(Attempt),
    /// Somebody guesses at the ID of this attempt.
    Guessed(Attempt),
    /// The stream ended without an answer.
    Lost(Attempt),
    /// ICMP reported the message undeliverable, or the stream's connection was refused.
    Unreachable(Attempt),
    /// The answer needs that of a sub-question.
    Incomplete {
        /// Number of sub-questions, this one included.
        steps: u8,
    },
    /// The aliases of one answer form a loop or are too many.
    Endless,
    /// There is no room for the sub-question.
    NoRoom,
    /// The waiting clients have the answer; if it was truncated, those over UDP.
    Delivered {
        /// True if other clients still wait for all of it.
        others_wait: bool,
    },
}

/// Next step of a question, for the engine to carry out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send the question to this server in a datagram.
    Send(u8),
    /// Open a stream to this server, and send the question there.
    Open(u8),
    /// Wait for the next event.
    Wait,
    /// Deliver the answer to the waiting clients.
    Deliver,
    /// Give the waiting clients a stale answer, if there is one.
    Stale,
    /// End the question with a stale answer, or this failure.
    Fail(Failure),
    /// Ask the sub-question.
    Ask,
    /// Remove the question.
    End,
}

/// Deadlines of a question; [`Instant::FAR_FUTURE`] for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// Time at which the next upstream is asked.
    pub next_try: Instant,
    /// Time at which waiting clients get a stale answer, if there is one.
    pub stale: Instant,
    /// Time at which the question fails.
    pub give_up: Instant,
}

/// What upstream has said of AAAA records in place of which A records are asked for (DNS64, RFC 6147).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoAaaa {
    /// Longest TTL of addresses that are made of the A records, in seconds.
    pub ttl_secs: u32,
    /// True if it was said with AD by a trusted server.
    pub authentic_data: bool,
}

/// A question in flight.
#[derive(Clone, Debug)]
pub struct Question {
    /// QNAME in lower case.
    pub name: Name,
    /// QTYPE of the waiting clients.
    pub qtype: u16,
    /// Set if A records are asked for, as there are none of QTYPE, which is AAAA.
    pub no_aaaa: Option<NoAaaa>,
    /// True if DNS64 has a part in the answer.
    pub translated: bool,
    /// True if upstream is asked with DO (RFC 3225).
    pub dnssec_ok: bool,
    /// True if upstream is asked with CD (RFC 4035 section 3.2.2).
    pub checking_disabled: bool,
    /// Number of the waiting clients' view.
    pub view: u8,
    /// Keyed hash of the name.
    pub name_hash: u64,
    /// Group of upstreams.
    pub group: u8,
    /// Present stage.
    pub stage: Stage,
    /// Deadlines.
    pub deadlines: Deadlines,
    /// Attempts at upstreams.
    pub tries: Tries,
    /// First entry in the list of waiting clients.
    pub(super) first_waiter: Option<u16>,
    /// RCODE of the first useless answer, for clients if no better answer comes.
    pub failure: Option<u8>,
    /// Extended error of the last useless answer that had one, or the default.
    pub failure_ede: u16,
    /// Letter case in which the name is sent upstream.
    pub sent_case: LetterCase,
    /// Generation of the policy that decided to forward the question.
    pub generation: u32,
    /// Fair share bucket of the first client.
    pub bucket: u8,
    /// Domain under which the question is counted.
    pub zone: DomainBuckets,
    /// True if it is in the table of all engines as asked by this one.
    pub is_claimed: bool,
    /// Place of the sub-question that it waits for, if any.
    pub(super) sub: Option<u16>,
    /// True if its answer is put together from what several groups said.
    pub is_of_many_groups: bool,
}

/// Surroundings of a question when it handles an event.
#[derive(Debug)]
pub struct QuestionContext<'s> {
    /// Upstream servers.
    pub upstreams: &'s mut Upstreams,
    /// Counters.
    pub counters: &'s Counters,
    /// Present time.
    pub now: Instant,
}

impl Question {
    /// A question for type A in group 0, without attempts.
    #[must_use]
    pub const fn new(name: Name, stage: Stage, deadlines: Deadlines) -> Self {
        Self {
            name,
            qtype: rtype::A,
            no_aaaa: None,
            translated: false,
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
            is_claimed: false,
            sub: None,
            is_of_many_groups: false,
        }
    }

    /// Key of its answer in the cache, and of itself among questions in flight.
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

    /// Hash of its key.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.key().hash()
    }

    /// Earliest deadline.
    #[must_use]
    pub fn wake(&self) -> Instant {
        let Deadlines {
            next_try,
            stale,
            give_up,
        } = self.deadlines;
        next_try.min(give_up).min(stale)
    }

    /// Type that upstream is asked for, also in sub-questions.
    #[must_use]
    pub const fn asked_type(&self) -> u16 {
        match self.no_aaaa {
            Some(_) => rtype::A,
            None => self.qtype,
        }
    }

    /// True if a client waits for it.
    #[must_use]
    pub const fn has_waiters(&self) -> bool {
        self.first_waiter.is_some()
    }

    /// True if it waits for a sub-question.
    #[must_use]
    pub const fn has_sub(&self) -> bool {
        self.sub.is_some()
    }

    /// Makes the question one without attempts, for the servers of `group`. [`Event::Begin`] or its deadline continues it.
    pub fn restart(&mut self, group: u8) {
        let has_part = self.sub.is_some() || self.no_aaaa.is_some();
        self.is_of_many_groups |= has_part && group != self.group;
        self.group = group;
        self.tries = Tries::new();
        self.stage = Stage::Asking;
    }

    /// Handles an event, and returns the next step.
    pub fn on(&mut self, event: Event, context: &mut QuestionContext<'_>) -> Step {
        match (self.stage, event) {
            (Stage::Fetching, Event::Begin) => self.ask_next(context),
            (_, Event::Begin) => self.begin(context),
            (_, Event::AskedElsewhere) => {
                self.deadlines.next_try = context.now + ELSEWHERE_MS;
                self.wait(Stage::Elsewhere)
            }
            (stage, Event::Sent) => self.on_sent(stage, context),
            (stage, Event::NotSent) => self.on_not_sent(stage, context),
            (stage, Event::NoWay(attempt)) => self.on_no_way(stage, &attempt, context),

            (_, Event::Answered) => Step::Deliver,
            (Stage::Fetching, Event::Truncated(_)) => Step::Deliver,
            (_, Event::Truncated(attempt)) => self.open(attempt.upstream, StreamPurpose::Rest),
            (_, Event::NotUnderstood(_, failure)) if self.tries.is_full() => {
                self.fail_over(failure, context)
            }
            (_, Event::NotUnderstood(attempt, _)) => self.ask_without_edns(&attempt),
            (_, Event::Useless(failure)) => self.fail_over(failure, context),
            (_, Event::WrongCase(attempt)) => {
                self.note_lost_case(&attempt, context);
                self.open_instead(&attempt)
            }
            (_, Event::Guessed(attempt)) => self.open_instead(&attempt),
            (_, Event::Lost(attempt)) => {
                self.note_timeout(&attempt, context);
                self.after_loss(&attempt, context)
            }
            (_, Event::Unreachable(attempt)) => {
                self.note_unreachable(&attempt, context);
                self.after_loss(&attempt, context)
            }

            (_, Event::Deadline) => self.on_deadline(context),

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
            (_, Event::Delivered { .. }) => self.wait_for_stream(context),
        }
    }

    fn on_sent(&mut self, stage: Stage, context: &mut QuestionContext<'_>) -> Step {
        match stage {
            Stage::Beginning => {
                self.schedule(true, context);
                self.ask_beside(context)
            }
            Stage::Asking => {
                self.schedule(true, context);
                Step::Wait
            }
            Stage::Probing => self.wait(Stage::Asking),
            Stage::Opening { purpose, .. } => {
                self.deadlines.next_try = if self.has_untried(context) {
                    context.now + STREAM_BESIDE_MS
                } else {
                    Instant::FAR_FUTURE
                };
                self.wait(match purpose {
                    StreamPurpose::Whole => Stage::Fetching,
                    StreamPurpose::Rest | StreamPurpose::Instead => Stage::Asking,
                })
            }
            // In these stages messages are sent by way of `Opening` or `Beginning` only.
            Stage::Fetching | Stage::Elsewhere => Step::Wait,
        }
    }

    fn on_not_sent(&mut self, stage: Stage, context: &mut QuestionContext<'_>) -> Step {
        match stage {
            Stage::Beginning => {
                self.schedule(false, context);
                self.ask_beside(context)
            }
            Stage::Asking => {
                self.schedule(false, context);
                Step::Wait
            }
            Stage::Probing => self.wait(Stage::Asking),
            Stage::Opening { server, purpose } => match purpose {
                StreamPurpose::Whole => self.wait_for_stream(context),
                StreamPurpose::Rest => self.deliver(),
                StreamPurpose::Instead => self.send(server),
            },
            Stage::Fetching | Stage::Elsewhere => Step::Wait,
        }
    }

    /// Like an ICMP error, which a router without a route would send.
    fn on_no_way(
        &mut self,
        stage: Stage,
        attempt: &Attempt,
        context: &mut QuestionContext<'_>,
    ) -> Step {
        self.note_unreachable(attempt, context);
        let purpose = match stage {
            Stage::Probing => return self.wait(Stage::Asking),
            Stage::Opening { purpose, .. } => Some(purpose),
            Stage::Beginning | Stage::Asking | Stage::Fetching | Stage::Elsewhere => None,
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
        // For the servers that were asked as well.
        self.schedule(false, context);
        let step = self.fail_over(Failure::SERVFAIL, context);
        if step == Step::Wait && self.stage == Stage::Beginning {
            self.stage = Stage::Asking;
        }
        step
    }
}

/// Choice of steps.
impl Question {
    const fn wait(&mut self, stage: Stage) -> Step {
        self.stage = stage;
        Step::Wait
    }

    fn wait_for_stream(&mut self, context: &QuestionContext<'_>) -> Step {
        self.deadlines.next_try = context.now + STREAM_WAIT_MS;
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

    /// Asks the same server again over a stream, which cannot be spoofed off-path.
    fn open_instead(&mut self, attempt: &Attempt) -> Step {
        let purpose = match self.stage {
            Stage::Fetching => StreamPurpose::Whole,
            Stage::Beginning
            | Stage::Probing
            | Stage::Asking
            | Stage::Opening { .. }
            | Stage::Elsewhere => StreamPurpose::Instead,
        };
        self.open(attempt.upstream, purpose)
    }

    /// RFC 6891 section 7: the server may not know EDNS. It is asked again at once without it, by the same transport.
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

    /// Failure with which the question ends without an answer. `reason` is an extended error; with `ede::NONE` an
    /// upstream's is used.
    #[must_use]
    pub fn failure(&self, reason: u16) -> Failure {
        Failure {
            rcode: match self.failure {
                Some(rcode::REFUSED) => rcode::REFUSED,
                // FORMERR or NOTIMP from upstream is about our message; the client's own was understood.
                None | Some(_) => rcode::SERVFAIL,
            },
            ede: if reason == ede::NONE {
                self.failure_ede
            } else {
                reason
            },
        }
    }

    fn begin(&mut self, context: &QuestionContext<'_>) -> Step {
        self.stage = Stage::Beginning;
        self.ask_next(context)
    }

    /// Asks the next server.
    fn ask_next(&mut self, context: &QuestionContext<'_>) -> Step {
        let next = self.next_server(context.upstreams);
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

    /// Server to ask next. Once all have been asked, they take turns.
    fn next_server(&self, upstreams: &Upstreams) -> Option<u8> {
        let asked = self.tries.asked();
        let next = upstreams.pick(self.group, asked)?;
        if !has(asked, next) {
            return Some(next);
        }
        upstreams.pick_again(self.group, |server| self.tries.times(server))
    }

    /// True if there is a server that has not been asked, and room for an attempt at it.
    fn has_untried(&self, context: &QuestionContext<'_>) -> bool {
        let asked = self.tries.asked();
        let next = context.upstreams.pick(self.group, asked);
        next.is_some_and(|next| !has(asked, next)) && !self.tries.is_full()
    }

    /// Asks a second server if they race, then one that is due for a probe.
    fn ask_beside(&mut self, context: &mut QuestionContext<'_>) -> Step {
        let (group, asked) = (self.group, self.tries.asked());
        let races = context.upstreams.strategy(group) == Strategy::Race;
        if races && asked.count_ones() == 1 && !self.tries.is_full() {
            let rival = context.upstreams.pick(group, asked);
            if let Some(rival) = rival.filter(|rival| !has(asked, *rival)) {
                return Step::Send(rival);
            }
        }
        match context.upstreams.probe(group, asked, context.now) {
            Some(server) => {
                self.stage = Stage::Probing;
                Step::Send(server)
            }
            None => self.wait(Stage::Asking),
        }
    }

    /// Sets the time at which the next server is asked.
    fn schedule(&mut self, went_out: bool, context: &QuestionContext<'_>) {
        let attempts = self.tries.as_slice();
        let server = attempts.last();
        let server = server.and_then(|attempt| context.upstreams.get(attempt.upstream));
        let retry_ms = server.map_or(0, |server| u64::from(server.retry_ms()));
        let asked = self.tries.asked();
        let next = context.upstreams.pick(self.group, asked);
        let is_repeat = next.is_some_and(|next| has(asked, next));
        let wait_ms = match (went_out, is_repeat) {
            // 1 ms, doubled with each of at most `ATTEMPTS`: the obstacle is mostly a full queue, which empties soon.
            (false, _) => 1 << attempts.len(),
            (true, false) => retry_ms,
            (true, true) => {
                // Each round over the same servers waits twice as long as the previous one.
                let others = asked.count_ones() as usize;
                let rounds = attempts.len().saturating_sub(1) / others.max(1);
                retry_ms.max(REPEAT_MIN_MS) << rounds
            }
        };
        self.deadlines.next_try = context.now + wait_ms;
    }

    /// After a loss: asks the next server, or the same one in a datagram if that may help.
    fn after_loss(&mut self, attempt: &Attempt, context: &mut QuestionContext<'_>) -> Step {
        let may_be_answered = self.stage != Stage::Fetching && attempt.is_stream();
        if may_be_answered && self.may_be_lost_for_case(attempt) {
            self.send(attempt.upstream)
        } else {
            self.fail_over(Failure::SERVFAIL, context)
        }
    }

    /// After a useless answer: asks the next server, waits for the others that were asked, or fails.
    fn fail_over(&mut self, failure: Failure, context: &mut QuestionContext<'_>) -> Step {
        self.failure.get_or_insert(failure.rcode);
        if failure.ede != ede::NONE {
            self.failure_ede = failure.ede;
        }
        if self.has_untried(context) {
            context.counters.count(Counter::UpstreamRetries);
            self.ask_next(context)
        } else if self.tries.has_live() {
            Step::Wait
        } else {
            self.fail(ede::NONE)
        }
    }

    fn on_deadline(&mut self, context: &mut QuestionContext<'_>) -> Step {
        let now = context.now;
        if self.deadlines.give_up <= now {
            self.note_timeouts(context);
            return self.fail(ede::NO_REACHABLE_AUTHORITY);
        }
        if self.deadlines.stale <= now {
            self.deadlines.stale = Instant::FAR_FUTURE;
            return Step::Stale;
        }
        if self.stage == Stage::Elsewhere {
            return self.begin(context);
        }
        self.note_timeouts(context);
        context.counters.count(Counter::UpstreamRetries);
        self.ask_next(context)
    }
}

#[cfg(test)]
mod tests;
