//! Sending a question upstream: to whom, from which port, when the next one is asked.

use super::{CacheAccess, Effects, Engine};
use crate::counters::Counter;
use crate::dns::build::Writer;
use crate::dns::edns::OptReply;
use crate::dns::header::{HEADER_LEN, Header, flag};
use crate::dns::{Name, class};
use crate::forward::pending::{Attempt, LetterCase, Pending};
use crate::forward::upstreams::{Strategy, Tried, UpstreamConfig};
use crate::forward::via::{NoPort, Via};
use crate::limits::{NAME_MAX, UDP_MESSAGE_MAX};
use crate::time::Instant;

/// Longest question that we send: header, name, type and class, OPT.
const ASK_MAX: usize = HEADER_LEN + NAME_MAX + 4 + 11;
const _: () = assert!(ASK_MAX <= UDP_MESSAGE_MAX);
/// A server that was asked already is asked again after this time at the earliest: the datagram may be lost. That it is
/// slower than it usually is says little where most of its answers come from its cache.
const REPEAT_MIN_MS: u64 = 400;

/// How long to wait for a stream to become free.
pub(super) const STREAM_WAIT_MS: u64 = 50;

impl<R: Copy + PartialEq, C: CacheAccess> Engine<'_, R, C> {
    /// Asks for the first time: one upstream, or two where they race, and beside them one that is to be probed.
    pub(super) fn ask_first(&mut self, now: Instant, index: u16, effects: &mut impl Effects<R>) {
        if self.settings.random_case {
            let case = LetterCase::from_random(|| effects.random());
            self.tables
                .pending
                .update(index, |pending| pending.sent_case = case);
        }
        self.ask_next(now, index, effects);
        let Some(pending) = self.tables.pending.get(index) else {
            return;
        };
        if pending.by_stream {
            return;
        }
        if self.upstreams.strategy(pending.group) == Strategy::Race {
            self.ask_other(now, index, effects);
        }
        self.probe(now, index, effects);
    }

    /// Asks a second server of the group, if it has one.
    fn ask_other(&mut self, now: Instant, index: u16, effects: &mut impl Effects<R>) {
        let Some(pending) = self.tables.pending.get(index) else {
            return;
        };
        let (group, tried) = (pending.group, pending.tried);
        let other = self.upstreams.pick(group, tried);
        if let Some(other) = other.filter(|other| tried & (1 << other) == 0) {
            self.ask(now, index, other, effects);
        }
    }

    /// Asks a server to learn how it does. The time at which the next one is asked stays.
    fn probe(&mut self, now: Instant, index: u16, effects: &mut impl Effects<R>) {
        let Some(pending) = self.tables.pending.get(index) else {
            return;
        };
        if let Some(upstream) = self.upstreams.probe(pending.group, pending.tried, now) {
            self.send_datagram(now, index, upstream, effects);
        }
    }

    /// Asks the next upstream and sets the time at which the one after it is asked.
    pub(super) fn ask_next(&mut self, now: Instant, index: u16, effects: &mut impl Effects<R>) {
        let Some(pending) = self.tables.pending.get(index) else {
            return;
        };
        let (full, by_stream) = (pending.attempts.is_full(), pending.by_stream);
        let next = self.next_server(pending);
        match next.filter(|_| !full) {
            Some(upstream) if by_stream => {
                if !self.ask_stream(now, index, upstream, effects) {
                    self.try_again_at(index, now + STREAM_WAIT_MS);
                }
            }
            Some(upstream) => self.ask(now, index, upstream, effects),
            None if pending.has_live_attempt() => self.try_again_at(index, Instant::FAR_FUTURE),
            // Nobody can be asked.
            None => {
                let pending = &mut self.tables.pending;
                pending.update(index, |pending| pending.give_up = now);
            }
        }
    }

    /// Whom to ask next. Once all were asked, they take turns.
    fn next_server(&self, pending: &Pending) -> Option<u8> {
        let next = self.upstreams.pick(pending.group, pending.tried)?;
        if pending.tried & (1 << next) == 0 {
            return Some(next);
        }
        let times = |server| {
            let attempts = pending.attempts.iter();
            attempts
                .filter(|attempt| attempt.upstream == server)
                .count()
        };
        self.upstreams.pick_again(pending.group, times)
    }

    pub(super) fn try_again_at(&mut self, index: u16, at: Instant) {
        self.tables
            .pending
            .update(index, |pending| pending.next_try = at);
    }

    /// Asks `upstream` in a datagram, and sets the time at which the next one is asked.
    pub(super) fn ask(
        &mut self,
        now: Instant,
        index: u16,
        upstream: u8,
        effects: &mut impl Effects<R>,
    ) {
        let Some(retry_ms) = self.upstreams.get(upstream).map(|server| server.retry_ms()) else {
            return;
        };
        let went_out = self.send_datagram(now, index, upstream, effects);
        let (tables, upstreams) = (&mut self.tables, &self.upstreams);
        tables.pending.update(index, |pending| {
            let tried = pending.tried;
            let next = upstreams.pick(pending.group, tried);
            let is_repeat = next.is_some_and(|next| tried & (1 << next) != 0);
            let wait_ms = match (went_out, is_repeat) {
                (false, _) => 1 << pending.attempts.len(),
                (true, false) => u64::from(retry_ms),
                (true, true) => {
                    // Each round over the same servers waits twice as long as the one before.
                    let others = tried.count_ones() as usize;
                    let rounds = pending.attempts.len().saturating_sub(1) / others.max(1);
                    u64::from(retry_ms).max(REPEAT_MIN_MS) << rounds
                }
            };
            pending.next_try = now + wait_ms;
        });
    }

    fn send_datagram(
        &mut self,
        now: Instant,
        index: u16,
        upstream: u8,
        effects: &mut impl Effects<R>,
    ) -> bool {
        let Some(server) = self.upstreams.get(upstream) else {
            return false;
        };
        let has_room = |pending: &Pending| !pending.attempts.is_full();
        if !self.tables.pending.get(index).is_some_and(has_room) {
            return false;
        }
        let to = server.config.address;
        let opened = match effects.open_port(to, index) {
            Err(NoPort::Full) if self.free_a_port(effects) => effects.open_port(to, index),
            opened => opened,
        };
        let via = opened.ok().map(|port| Via::Datagram { port });
        let went_out = self.send(now, index, upstream, via, effects) == Some(true);
        self.counters.count(if went_out {
            Counter::UpstreamQueries
        } else {
            Counter::UpstreamSendErrors
        });
        went_out
    }

    /// Closes the port of what may be missed most easily: an answer that nobody waits for, or else the one that has been
    /// waited for for longest; its question is asked again when its time comes. Whether there was one.
    #[cold]
    fn free_a_port(&mut self, effects: &mut impl Effects<R>) -> bool {
        let pending = &mut self.tables.pending;
        if let Some(port) = pending.linger_no_longer(Instant::FAR_FUTURE) {
            effects.close_port(port);
            return true;
        }
        let Some((index, attempt)) = pending.oldest_datagram() else {
            return false;
        };
        self.end_attempt(index, &attempt, effects);
        true
    }

    /// Asks `upstream` in a stream. Whether one could be opened.
    pub(super) fn ask_stream(
        &mut self,
        now: Instant,
        index: u16,
        upstream: u8,
        effects: &mut impl Effects<R>,
    ) -> bool {
        // A stream that is opened and not asked on would hold one of few places.
        let pending = self.tables.pending.get(index);
        if pending.is_none_or(|pending| pending.attempts.is_full()) {
            return false;
        }
        let Some(address) = self
            .upstreams
            .get(upstream)
            .map(|server| server.config.address)
        else {
            return false;
        };
        let Some(slot) = effects.open_stream(address) else {
            return false;
        };
        let via = Some(Via::Stream { slot });
        let went_out = self.send(now, index, upstream, via, effects) == Some(true);
        if went_out {
            self.counters.count(Counter::UpstreamTcp);
            // A stream repeats by itself what is lost.
            self.try_again_at(index, Instant::FAR_FUTURE);
        }
        went_out
    }

    /// Notes a transaction with a random ID and sends the question. `None`: there is no room for one more. False: it did
    /// not go out, which counts as a timeout.
    fn send(
        &mut self,
        now: Instant,
        index: u16,
        upstream: u8,
        via: Option<Via>,
        effects: &mut impl Effects<R>,
    ) -> Option<bool> {
        self.note_silence_with_edns(now, index, upstream);
        let server = self.upstreams.get(upstream)?;
        let pending = self.tables.pending.get(index)?;
        let with = |without: Tried| without & (1 << upstream) == 0;
        let random_case = self.settings.random_case && !via.is_some_and(Via::is_stream);
        let attempt = Attempt {
            upstream,
            via,
            id: effects.random() as u16,
            sent: now,
            live: true,
            edns: with(pending.without_edns) && server.speaks_edns(now),
            random_case: random_case && with(pending.without_case) && server.keeps_case(now),
            overdue: false,
            forged: 0,
        };
        let UpstreamConfig {
            address, trusted, ..
        } = server.config;
        self.tables.pending.begin(index, attempt).ok()?;
        let pending = self.tables.pending.get(index)?;
        let name = self.tables.pending.asked_name(index)?;
        let mut message = [0; ASK_MAX];
        let len = write_question(&mut message, name, pending, &attempt, trusted);
        let went_out = via.is_some_and(|via| effects.ask(via, address, &message[..len]));
        if !went_out {
            self.note_timeout(now, index, &attempt);
            self.end_attempt(index, &attempt, effects);
        }
        Some(went_out)
    }
}

impl<R: Copy + PartialEq, C: CacheAccess> Engine<'_, R, C> {
    /// Some servers, and boxes on the way to them, drop queries with EDNS (RFC 6891 section 7). One of which no answer with
    /// EDNS is known, and that leaves this question unanswered or is silent, is asked without. If it answers that to
    /// several questions in a row, it is remembered, as where it says FORMERR.
    fn note_silence_with_edns(&mut self, now: Instant, index: u16, upstream: u8) {
        let Some(server) = self.upstreams.get(upstream) else {
            return;
        };
        if !server.may_drop_edns(now) {
            return;
        }
        let is_silent = server.is_silent();
        self.tables.pending.update(index, |pending| {
            // Without DO an answer is no answer for those who validate: that is tried last.
            let is_silent = is_silent && !pending.dnssec_ok;
            let is_unanswered = |attempt: &Attempt| {
                let is_its_own = attempt.upstream == upstream && attempt.port().is_some();
                is_its_own && attempt.edns && attempt.live && attempt.overdue
            };
            if is_silent || pending.attempts.iter().any(is_unanswered) {
                pending.without_edns |= 1 << upstream;
            }
        });
    }
}

/// Writes the question for an upstream: RD set, CD as the client had it, EDNS with DO as the client had it. AD asks a
/// trusted one to say whether the answer is authentic (RFC 6840 section 5.7).
fn write_question(
    message: &mut [u8; ASK_MAX],
    name: &Name,
    pending: &Pending,
    attempt: &Attempt,
    trusted: bool,
) -> usize {
    let mut writer = Writer::new(message);
    writer
        .question(name.as_wire(), pending.qtype, class::IN)
        .expect("ASK_MAX holds the longest name");
    let mut end = writer.position();
    if attempt.random_case {
        pending.sent_case.apply(&mut message[HEADER_LEN..end - 4]);
    }
    if attempt.edns {
        let opt = OptReply {
            dnssec_ok: pending.dnssec_ok,
            ..OptReply::default()
        };
        end = opt.emit(message, end).expect("ASK_MAX holds an OPT record");
    }
    let checking = if pending.checking_disabled {
        flag::CD
    } else {
        0
    };
    let authentic = if trusted { flag::AD } else { 0 };
    let header = Header {
        id: attempt.id,
        flags: flag::RD | checking | authentic,
        counts: [1, 0, 0, u16::from(attempt.edns)],
    };
    header.emit(message).expect("ASK_MAX holds a header");
    end
}
