//! Carries out the steps of a question, and sends it upstream.

use super::{CacheAccess, Call, Effects, Engine};
use crate::counters::Counter;
use crate::dns::build::Writer;
use crate::dns::edns::{OPT_LEN, OptReply};
use crate::dns::header::{HEADER_LEN, Header, flag};
use crate::dns::{Name, QUESTION_FIXED_LEN, class};
use crate::forward::pending::{LetterCase, SubQuestion};
use crate::forward::question::{Event, Question, Step};
use crate::forward::tries::Attempt;
use crate::forward::via::{Destination, NoPort, Via};
use crate::limits::{NAME_MAX, UDP_MESSAGE_MAX};
use crate::time::Instant;

/// Longest question that we send, in bytes: header, name, type and class, OPT.
const ASK_MAX: usize = HEADER_LEN + NAME_MAX + QUESTION_FIXED_LEN + OPT_LEN;
const _: () = assert!(ASK_MAX <= UDP_MESSAGE_MAX);

/// Server of an attempt, and the port or stream to it. `via` is `None` if no source port could be had.
struct AttemptTarget {
    server: u8,
    via: Option<Via>,
}

/// Result of sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sending {
    /// Sent.
    Done,
    /// Not sent.
    Failed,
    /// Not sent: there is no route to the server.
    NoWay(Attempt),
}

impl Sending {
    const fn event(self) -> Event {
        match self {
            Self::Done => Event::Sent,
            Self::Failed => Event::NotSent,
            Self::NoWay(attempt) => Event::NoWay(attempt),
        }
    }
}

/// The part of a step that is left to a caller with an answer in hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum CallerStep {
    /// Nothing: the question waits or has ended.
    Done,
    /// Deliver the answer to the waiting clients.
    Deliver,
    /// Ask the sub-question.
    Ask,
}

impl<R: Copy + PartialEq, C: CacheAccess> Engine<'_, R, C> {
    /// Asks upstream for the first time.
    pub(super) fn begin<E: Effects<R>>(&mut self, call: &mut Call<'_, E>, index: u16) {
        self.claim(index);
        if self.ask_for_v4_name(call, index) {
            return;
        }
        self.draw_case(index, call.effects);
        self.go_on(call, index, Event::Begin);
    }

    /// Draws the letter case in which the name is sent.
    pub(super) fn draw_case(&mut self, index: u16, effects: &mut impl Effects<R>) {
        if self.settings.random_case
            && let Some((question, _)) = self.tables.pending.get_mut(index)
        {
            let letters = question.name.as_wire().len();
            question.sent_case = LetterCase::from_random(letters, || effects.random());
        }
    }

    /// Like [`advance`](Self::advance), for events without an answer.
    pub(super) fn go_on<E: Effects<R>>(
        &mut self,
        call: &mut Call<'_, E>,
        index: u16,
        event: Event,
    ) {
        let rest = self.advance(call, index, event);
        debug_assert_eq!(rest, CallerStep::Done, "there is no answer in hand");
    }

    /// Passes an event to the question at `index`, and carries out its steps until it waits.
    pub(super) fn advance<E: Effects<R>>(
        &mut self,
        call: &mut Call<'_, E>,
        index: u16,
        event: Event,
    ) -> CallerStep {
        let mut event = event;
        // Bound: each send takes one of `ATTEMPTS`, a question that cannot be sent waits, and one turns to A once.
        loop {
            let (pending, mut question_context) = self.question_context(call.context.now);
            let Some((question, _)) = pending.get_mut(index) else {
                debug_assert!(false, "nothing happens to a question that has ended");
                return CallerStep::Done;
            };
            event = match question.on(event, &mut question_context) {
                Step::Send(server) => self.send_datagram(call, index, server).event(),
                Step::Open(server) => self.send_in_stream(call, index, server).event(),
                Step::Wait => {
                    pending.schedule(index);
                    return CallerStep::Done;
                }
                Step::Deliver => return CallerStep::Deliver,
                Step::Ask => return CallerStep::Ask,
                Step::Stale => {
                    pending.schedule(index);
                    self.reply_stale(call, index);
                    return CallerStep::Done;
                }
                Step::Fail(failure) if self.turns_to_a_after(call, index, failure) => {
                    self.draw_case(index, call.effects);
                    Event::Begin
                }
                Step::Fail(failure) => {
                    self.fail(call, index, failure);
                    return CallerStep::Done;
                }
                Step::End => {
                    self.end(call.context.now, index, call.effects);
                    return CallerStep::Done;
                }
            };
        }
    }

    /// Handles all deadlines that have passed.
    pub fn timeout<E: Effects<R>>(&mut self, call: &mut Call<'_, E>) {
        let now = call.context.now;
        while let Some(port) = self.tables.pending.linger_no_longer(now) {
            call.effects.close_port(port);
        }
        // Bound: each question that is due gets a later deadline or ends.
        while let Some(index) = self.tables.pending.due(now) {
            self.go_on(call, index, Event::Deadline);
        }
    }

    fn send_datagram<E: Effects<R>>(
        &mut self,
        call: &mut Call<'_, E>,
        index: u16,
        server: u8,
    ) -> Sending {
        let Some(to) = self.may_be_asked(index, server) else {
            return Sending::Failed;
        };
        let opened = match call.effects.open_port(to, index) {
            Err(NoPort::Full) if self.free_a_port(call.effects) => {
                call.effects.open_port(to, index)
            }
            opened => opened,
        };
        if opened == Err(NoPort::Unreachable) {
            return self.note_no_way(call, index, server);
        }
        let via = opened.ok().map(|port| Via::Datagram { port });
        if self.send(call, index, &AttemptTarget { server, via }) {
            self.counters.count(Counter::UpstreamQueries);
            Sending::Done
        } else {
            self.counters.count(Counter::UpstreamSendErrors);
            Sending::Failed
        }
    }

    /// Notes an attempt at a server without a route: nothing was sent.
    #[cold]
    fn note_no_way<E: Effects<R>>(
        &mut self,
        call: &mut Call<'_, E>,
        index: u16,
        server: u8,
    ) -> Sending {
        let (pending, question_context) = self.question_context(call.context.now);
        let (Some(upstream), Some((question, _))) = (
            question_context.upstreams.get(server),
            pending.get_mut(index),
        ) else {
            return Sending::Failed;
        };
        let mut attempt = question.prepare(server, upstream, question_context.now);
        // A random ID tells the attempt from others that were not sent.
        attempt.id = call.effects.random() as u16;
        attempt.live = false;
        question.tries.push(attempt);
        self.counters.count(Counter::UpstreamUnreachable);
        Sending::NoWay(attempt)
    }

    /// Frees a source port: the oldest lingering one, or else one of the client with the most questions, whose question is
    /// asked again at its next deadline. Returns true if there was one.
    #[cold]
    fn free_a_port(&mut self, effects: &mut impl Effects<R>) -> bool {
        let pending = &mut self.tables.pending;
        if let Some(port) = pending.linger_no_longer(Instant::FAR_FUTURE) {
            effects.leave_port(port);
            return true;
        }
        let Some((index, attempt)) = pending.datagram_victim() else {
            return false;
        };
        self.leave_attempt(index, &attempt, effects);
        true
    }

    /// Sends the question over a stream, if there is a slot.
    fn send_in_stream<E: Effects<R>>(
        &mut self,
        call: &mut Call<'_, E>,
        index: u16,
        server: u8,
    ) -> Sending {
        // Checked before a stream is opened: an unused one would hold one of few places.
        let to = self.may_be_asked(index, server);
        let bucket = self.tables.pending.room_in_streams(index);
        let Some((to, bucket)) = to.zip(bucket) else {
            return Sending::Failed;
        };
        let slot = match call.effects.open_stream(to, bucket) {
            Ok(slot) => slot,
            Err(NoPort::Unreachable) => return self.note_no_way(call, index, server),
            Err(NoPort::Full | NoPort::Failed) => return Sending::Failed,
        };
        let via = Some(Via::Stream { slot });
        if !self.send(call, index, &AttemptTarget { server, via }) {
            return Sending::Failed;
        }
        self.counters.count(Counter::UpstreamTcp);
        Sending::Done
    }

    /// Where `server` is, if the question may have one more attempt.
    fn may_be_asked(&self, index: u16, server: u8) -> Option<Destination> {
        let question = self.tables.pending.get(index)?;
        let upstream = self.upstreams.get(server)?;
        (!question.tries.is_full()).then_some(upstream.config.to)
    }

    /// Notes an attempt with a random ID and sends the question. Returns true if it was sent; a failure counts as a
    /// timeout.
    fn send<E: Effects<R>>(
        &mut self,
        call: &mut Call<'_, E>,
        index: u16,
        way: &AttemptTarget,
    ) -> bool {
        let AttemptTarget { server, via } = *way;
        let is_random = self.settings.random_case && !via.is_some_and(Via::is_stream);
        let (pending, mut question_context) = self.question_context(call.context.now);
        let (Some(upstream), Some((question, sub))) = (
            question_context.upstreams.get(server),
            pending.get_mut(index),
        ) else {
            return false;
        };
        let mut attempt = question.prepare(server, upstream, question_context.now);
        attempt.via = via;
        attempt.id = call.effects.random() as u16;
        attempt.random_case &= is_random;
        question.tries.push(attempt);
        let server = upstream.config;
        let outgoing = Outgoing {
            question,
            sub,
            wants_ad: server.trusted,
        };
        let mut message = [0; ASK_MAX];
        let len = outgoing.write(&mut message, &attempt);
        let message = &message[..len];
        let went_out = via.is_some_and(|via| call.effects.ask(via, server.to, message));
        if went_out {
            question_context.upstreams.asked(attempt.upstream);
        } else {
            question.note_timeout(&attempt, &mut question_context);
            self.end_attempt(index, &attempt, call.effects);
        }
        went_out
    }
}

/// A question in the form in which it is sent upstream.
struct Outgoing<'q> {
    question: &'q Question,
    /// Sub-question, asked in place of the question.
    sub: Option<&'q SubQuestion>,
    /// Set AD, which asks a server on a trusted path whether the answer is authentic (RFC 6840 section 5.7).
    wants_ad: bool,
}

impl Outgoing<'_> {
    /// Writes the message: RD set, CD and DO as in the client's query. Returns its length in bytes.
    fn write(&self, message: &mut [u8; ASK_MAX], attempt: &Attempt) -> usize {
        let question = self.question;
        let name: &Name = self.sub.map_or(&question.name, |sub| &sub.name);
        let mut writer = Writer::new(message);
        writer
            .question(name.as_wire(), question.asked_type(), class::IN)
            .expect("ASK_MAX holds the longest name");
        let mut end = writer.position();
        if attempt.random_case {
            let wire = &mut message[HEADER_LEN..end - QUESTION_FIXED_LEN];
            question.sent_case.apply(wire);
        }
        if attempt.edns {
            let opt = OptReply {
                dnssec_ok: question.dnssec_ok,
                ..OptReply::default()
            };
            end = opt.emit(message, end).expect("ASK_MAX holds an OPT record");
        }
        let checking = if question.checking_disabled {
            flag::CD
        } else {
            0
        };
        let authentic = if self.wants_ad { flag::AD } else { 0 };
        let header = Header {
            id: attempt.id,
            flags: flag::RD | checking | authentic,
            counts: [1, 0, 0, u16::from(attempt.edns)],
        };
        header.emit(message).expect("ASK_MAX holds a header");
        end
    }
}
