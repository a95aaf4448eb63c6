//! Unexpected messages and errors at a port or stream, and the end of ports.

use super::{CacheAccess, Call, Effects, Engine};
use crate::counters::Counter;
use crate::forward::question::Event;
use crate::forward::tries::Attempt;
use crate::forward::via::{ResponseOrigin, SourcePort, StreamLoss, Via};
use crate::time::Instant;

/// Time for which a port may still receive a late answer, in milliseconds.
const LINGER_MS: u64 = 5_000;

impl<R: Copy + PartialEq, C: CacheAccess> Engine<'_, R, C> {
    /// Counts a message that no attempt awaits. A server's late answer is measured, and closes its port.
    pub(super) fn not_awaited<E: Effects<R>>(
        &mut self,
        call: &mut Call<'_, E>,
        origin: &ResponseOrigin,
        id: Option<u16>,
    ) {
        let port = origin.via.port();
        let lingering = port.and_then(|port| self.tables.pending.lingering(port));
        let counter = match lingering.filter(|ended| ended.server.is_at(origin.from)) {
            Some(ended) if id == Some(ended.id) => {
                let (port, id) = (ended.port, ended.id);
                let (from, now) = (origin.from, call.context.now);
                self.upstreams.measure_late(port, id, from, now);
                self.tables.pending.forget_lingering(port);
                call.effects.close_port(port);
                Counter::UpstreamLate
            }
            Some(_) => Counter::UpstreamForged,
            None => Counter::UpstreamUnmatched,
        };
        self.counters.count(counter);
    }

    /// Handles a message from the right server to the right port that does not answer the question. Over a stream it comes
    /// from the server itself, which sends nothing else for this question. Over UDP somebody who guesses IDs has found the
    /// port: after a few guesses the question moves to another port, or to a stream, where there is nothing to guess.
    pub(super) fn forged<E: Effects<R>>(
        &mut self,
        call: &mut Call<'_, E>,
        index: u16,
        attempt: &Attempt,
    ) {
        if attempt.is_stream() {
            self.counters.count(Counter::UpstreamMalformed);
            self.end_attempt(index, attempt, call.effects);
            return self.go_on(call, index, Event::Lost(*attempt));
        }
        self.counters.count(Counter::UpstreamForged);
        let found = self.tables.pending.get_mut(index);
        if found.is_some_and(|(question, _)| question.tries.note_forged(attempt)) {
            self.leave_attempt(index, attempt, call.effects);
            self.go_on(call, index, Event::Guessed(*attempt));
        }
    }

    /// Handles the end of the stream in `slot` before an answer came.
    pub fn lost<E: Effects<R>>(&mut self, call: &mut Call<'_, E>, slot: u16, loss: StreamLoss) {
        let found = self
            .tables
            .pending
            .attempt_by(Via::Stream { slot }, u16::MAX);
        let Some((index, attempt)) = found else {
            return;
        };
        self.end_attempt(index, &attempt, call.effects);
        let event = match loss {
            StreamLoss::Unanswered => Event::Lost(attempt),
            StreamLoss::Unreachable => {
                self.counters.count(Counter::UpstreamUnreachable);
                Event::Unreachable(attempt)
            }
        };
        self.go_on(call, index, event);
    }

    /// Handles an ICMP error for the message sent from this port; `id` is the message's ID if the error quotes that much.
    /// The next server is asked at once.
    pub fn unreachable<E: Effects<R>>(
        &mut self,
        call: &mut Call<'_, E>,
        SourcePort { port, question }: SourcePort,
        id: Option<u16>,
    ) {
        let via = Via::Datagram { port };
        let found = self.tables.pending.attempt_by(via, question);
        let is_quoted = |attempt: &Attempt| id.is_none_or(|id| id == attempt.id);
        match found.filter(|(_, attempt)| is_quoted(attempt)) {
            Some((index, attempt)) => {
                self.counters.count(Counter::UpstreamUnreachable);
                self.end_attempt(index, &attempt, call.effects);
                self.go_on(call, index, Event::Unreachable(attempt));
            }
            None => {
                if self.tables.pending.forget_lingering(port) {
                    call.effects.close_port(port);
                }
            }
        }
    }

    /// Ends an attempt and closes its port: it gets no other answer.
    pub(super) fn end_attempt(
        &mut self,
        index: u16,
        ended: &Attempt,
        effects: &mut impl Effects<R>,
    ) {
        if let Some(port) = self.port_of_ended(index, ended) {
            effects.close_port(port);
        }
    }

    /// Ends an attempt whose answer may still come.
    pub(super) fn leave_attempt(
        &mut self,
        index: u16,
        left: &Attempt,
        effects: &mut impl Effects<R>,
    ) {
        if let Some(port) = self.port_of_ended(index, left) {
            effects.leave_port(port);
        }
    }

    fn port_of_ended(&mut self, index: u16, ended: &Attempt) -> Option<u16> {
        let found = self.tables.pending.get_mut(index);
        found.and_then(|(question, _)| question.tries.end(ended))
    }

    /// Removes a question. A server that was asked as well and has had no time to answer is still measured if it does.
    pub(super) fn end(&mut self, now: Instant, index: u16, effects: &mut impl Effects<R>) {
        self.let_go(now, index, effects);
        // After its answer was cached: who waits for it looks there.
        self.release(index, effects);
        self.tables.pending.remove(index);
    }

    /// Stops waiting for all attempts of a question. Their ports stay open for a moment, so that a late server is measured
    /// and not counted as unmatched.
    pub(super) fn let_go(&mut self, now: Instant, index: u16, effects: &mut impl Effects<R>) {
        let Some((question, _)) = self.tables.pending.get_mut(index) else {
            return;
        };
        let attempts = question.tries.take_live();
        if attempts.is_empty() {
            return;
        }
        let hash = question.hash();
        for attempt in &attempts {
            let upstream = self.upstreams.get(attempt.upstream);
            let server = upstream.map(|upstream| upstream.config);
            // Over a stream a late answer says little about the server; a server that is no longer configured is not
            // measured.
            let Some(server) = server.filter(|_| !attempt.is_stream()) else {
                leave(attempt, effects);
                continue;
            };
            // Notes the loser of a race, so that a server that always loses is measured as well.
            if !attempt.overdue {
                self.upstreams.superseded(attempt, hash, now);
            }
            if let Some(oldest) = self.tables.pending.linger(attempt, server, now + LINGER_MS) {
                effects.leave_port(oldest);
            }
        }
    }

    /// Closes the ports and leaves the streams of a question that begins anew.
    pub(super) fn leave_ports(&mut self, index: u16, effects: &mut impl Effects<R>) {
        if let Some((question, _)) = self.tables.pending.get_mut(index) {
            let attempts = question.tries.take_live();
            attempts.iter().for_each(|attempt| leave(attempt, effects));
        }
    }
}

/// Stops waiting for the answer of this attempt.
fn leave<R>(attempt: &Attempt, effects: &mut impl Effects<R>) {
    match attempt.via {
        Some(Via::Datagram { port }) => effects.leave_port(port),
        Some(Via::Stream { slot }) => effects.leave_stream(slot),
        None => {}
    }
}
