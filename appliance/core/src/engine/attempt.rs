//! The life of an attempt, one datagram to one server: what comes to its port that is not its answer, and its end.

use super::socket::is_port;
use super::{CacheAccess, Effects, Engine, Turn};
use crate::counters::Counter;
use crate::dns::rcode;
use crate::forward::pending::Attempt;
use crate::time::Instant;
use core::net::SocketAddr;

/// Forged answers on one port after which that port is given up: somebody knows it, and tries its IDs. So whoever finds a
/// port has this many of 65,536 guesses.
const FORGED_MAX: u8 = 8;
/// For how long a port may still receive an answer that nobody waits for any more.
const LINGER_MS: u64 = 5_000;

impl<R: Copy + PartialEq, C: CacheAccess> Engine<'_, R, C> {
    /// The attempt that was made through `socket`, which was opened for the question at `question`. A port's name may be
    /// another question's by now, or nobody's.
    pub(super) fn attempt_of(&self, socket: u16, question: u16) -> Option<(u16, Attempt)> {
        if !is_port(socket) {
            return self.tables.pending.by_socket(socket);
        }
        let mut attempts = self.tables.pending.get(question)?.attempts.iter().rev();
        let attempt = attempts.find(|attempt| attempt.socket == socket)?;
        Some((question, *attempt))
    }

    /// Counts what no attempt waits for. The late answer of a server is measured, and its port is closed.
    pub(super) fn not_awaited(
        &mut self,
        now: Instant,
        socket: u16,
        from: SocketAddr,
        id: Option<u16>,
        effects: &mut impl Effects<R>,
    ) {
        let counter = match self.tables.pending.lingering(socket) {
            Some(ended) if ended.server.is_at(from) && id == Some(ended.id) => {
                self.upstreams.late(socket, ended.id, from, now);
                self.tables.pending.forget_lingering(socket);
                effects.close_port(socket);
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
        if !is_port(attempt.socket) {
            self.counters.count(Counter::UpstreamMalformed);
            return self.lost(turn, attempt.socket, effects);
        }
        self.counters.count(Counter::UpstreamForged);
        let is_guessed = self.tables.pending.update(index, |pending| {
            let mut attempts = pending.attempts.iter_mut().rev();
            let attempt = attempts.find(|other| other.socket == attempt.socket);
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

    /// ICMP says that what was sent through `socket` did not arrive; `id` is that of the message where it was quoted so far.
    /// The next server is asked at once.
    pub fn unreachable(
        &mut self,
        turn: &Turn<'_>,
        socket: u16,
        question: u16,
        id: Option<u16>,
        effects: &mut impl Effects<R>,
    ) {
        let is_quoted = |attempt: &Attempt| attempt.live && id.is_none_or(|id| id == attempt.id);
        let found = self.attempt_of(socket, question);
        let Some((index, attempt)) = found.filter(|(_, attempt)| is_quoted(attempt)) else {
            if self.tables.pending.forget_lingering(socket) {
                effects.close_port(socket);
            }
            return;
        };
        self.counters.count(Counter::UpstreamUnreachable);
        if !attempt.overdue {
            let hash = self.tables.pending.update(index, |pending| {
                for sent in &mut pending.attempts {
                    sent.overdue |= sent.socket == attempt.socket && sent.id == attempt.id;
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
                if attempt.socket == ended.socket && attempt.id == ended.id {
                    was_live |= attempt.live;
                    attempt.live = false;
                }
            }
            was_live
        });
        if was_live == Some(true) && is_port(ended.socket) {
            effects.close_port(ended.socket);
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
                effects.close_port(attempt.socket);
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
        for attempt in &self.tables.pending.take_live_ports(index) {
            effects.close_port(attempt.socket);
        }
    }
}
