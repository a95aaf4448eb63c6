//! The life of an attempt, one datagram to one server: what comes to its port that is not its answer, and its end.

use super::{CacheAccess, Effects, Engine, Turn};
use crate::counters::Counter;
use crate::dns::rcode;
use crate::forward::pending::Attempt;
use crate::forward::via::{Origin, Via};
use crate::time::Instant;

/// Forged answers on one port after which that port is given up: somebody knows it, and tries its IDs. So whoever finds a
/// port has this many of 65,536 guesses.
const FORGED_MAX: u8 = 8;
/// For how long a port may still receive an answer that nobody waits for any more.
const LINGER_MS: u64 = 5_000;

impl<R: Copy + PartialEq, C: CacheAccess> Engine<'_, R, C> {
    /// The attempt that was made by this way, which was opened for the question at `question`. A port's name may be
    /// another question's by now, or nobody's.
    pub(super) fn attempt_of(&self, via: Via, question: u16) -> Option<(u16, Attempt)> {
        if let Via::Stream { slot } = via {
            return self.tables.pending.by_stream(slot);
        }
        let mut attempts = self.tables.pending.get(question)?.attempts.iter().rev();
        let attempt = attempts.find(|attempt| attempt.via == Some(via))?;
        Some((question, *attempt))
    }

    /// Counts what no attempt waits for. The late answer of a server is measured, and its port is closed.
    pub(super) fn not_awaited(
        &mut self,
        now: Instant,
        Origin { via, from, .. }: Origin,
        id: Option<u16>,
        effects: &mut impl Effects<R>,
    ) {
        let lingering = via
            .port()
            .and_then(|port| self.tables.pending.lingering(port));
        let counter = match lingering {
            Some(ended) if ended.server.is_at(from) && id == Some(ended.id) => {
                let port = ended.port;
                self.upstreams.late(port, ended.id, from, now);
                self.tables.pending.forget_lingering(port);
                effects.close_port(port);
                Counter::UpstreamLate
            }
            Some(ended) if ended.server.is_at(from) => Counter::UpstreamForged,
            Some(_) | None => Counter::UpstreamUnmatched,
        };
        self.counters.count(counter);
    }

    /// From the right server to the right port, but not the answer to what was asked. Through a stream nobody but the server
    /// itself can have said it, and nothing else comes. Somebody who guesses at a port's ID has found the port: after a few
    /// guesses another one is taken, or a stream, which nobody can guess.
    pub(super) fn forged(
        &mut self,
        turn: &Turn<'_>,
        index: u16,
        attempt: &Attempt,
        effects: &mut impl Effects<R>,
    ) {
        if let Some(Via::Stream { slot }) = attempt.via {
            self.counters.count(Counter::UpstreamMalformed);
            return self.lost(turn, slot, effects);
        }
        self.counters.count(Counter::UpstreamForged);
        let is_guessed = self.tables.pending.update(index, |pending| {
            let mut attempts = pending.attempts.iter_mut().rev();
            let attempt = attempts.find(|other| other.via == attempt.via);
            attempt.is_some_and(|attempt| {
                attempt.forged = attempt.forged.saturating_add(1);
                attempt.forged >= FORGED_MAX
            })
        });
        if is_guessed == Some(true) && self.has_attempts_left(index) {
            self.end_attempt(index, attempt, effects);
            if !self.ask_stream(turn.now, index, attempt.upstream, effects) {
                self.ask(turn.now, index, attempt.upstream, effects);
            }
        }
    }

    /// ICMP says that what was sent from `port` did not arrive; `id` is that of the message where it was quoted so far.
    /// The next server is asked at once.
    pub fn unreachable(
        &mut self,
        turn: &Turn<'_>,
        port: u16,
        question: u16,
        id: Option<u16>,
        effects: &mut impl Effects<R>,
    ) {
        let is_quoted = |attempt: &Attempt| attempt.live && id.is_none_or(|id| id == attempt.id);
        let found = self.attempt_of(Via::Datagram { port }, question);
        let Some((index, attempt)) = found.filter(|(_, attempt)| is_quoted(attempt)) else {
            if self.tables.pending.forget_lingering(port) {
                effects.close_port(port);
            }
            return;
        };
        self.counters.count(Counter::UpstreamUnreachable);
        if !attempt.overdue {
            let hash = self.tables.pending.update(index, |pending| {
                for sent in &mut pending.attempts {
                    sent.overdue |= sent.via == attempt.via && sent.id == attempt.id;
                }
                pending.hash()
            });
            self.upstreams
                .timed_out(attempt.upstream, hash.unwrap_or(0), turn.now);
        }
        self.attempt_failed(turn, index, &attempt, rcode::SERVFAIL, effects);
    }

    /// No answer of this attempt is taken any more, and its port is closed.
    pub(super) fn end_attempt(
        &mut self,
        index: u16,
        ended: &Attempt,
        effects: &mut impl Effects<R>,
    ) {
        let was_live = self.tables.pending.update(index, |pending| {
            let mut was_live = false;
            for attempt in &mut pending.attempts {
                if attempt.via == ended.via && attempt.id == ended.id {
                    was_live |= attempt.live;
                    attempt.live = false;
                }
            }
            was_live
        });
        if was_live == Some(true)
            && let Some(port) = ended.port()
        {
            effects.close_port(port);
        }
    }

    /// Forgets a question. Who was asked as well and has had no time to answer is still measured if it does.
    pub(super) fn end(&mut self, now: Instant, index: u16, effects: &mut impl Effects<R>) {
        self.let_go(now, index, effects);
        self.tables.pending.remove(index);
    }

    /// Nobody waits any more for what this question was sent to. Their ports stay open for a moment, so that a server that
    /// is late is measured, and not taken for somebody else.
    pub(super) fn let_go(&mut self, now: Instant, index: u16, effects: &mut impl Effects<R>) {
        let attempts = self.tables.pending.take_live_ports(index);
        let hash = self
            .tables
            .pending
            .get(index)
            .map_or(0, |pending| pending.hash());
        for attempt in &attempts {
            let Some(upstream) = self.upstreams.get(attempt.upstream) else {
                attempt
                    .port()
                    .into_iter()
                    .for_each(|port| effects.close_port(port));
                continue;
            };
            let server = upstream.config;
            if !attempt.overdue {
                self.upstreams.overtaken(attempt, hash, now);
            }
            if let Some(oldest) = self.tables.pending.linger(attempt, server, now + LINGER_MS) {
                effects.close_port(oldest);
            }
        }
    }

    /// Closes the ports of a question that begins anew.
    pub(super) fn close_ports(&mut self, index: u16, effects: &mut impl Effects<R>) {
        let attempts = self.tables.pending.take_live_ports(index);
        for port in attempts.iter().filter_map(Attempt::port) {
            effects.close_port(port);
        }
    }
}
