//! Learning about servers from a question's attempts, and the choice of EDNS and letter case for the next attempt.

use super::{Question, QuestionContext};
use crate::counters::Counter;
use crate::forward::tries::{Attempt, has};
use crate::forward::upstreams::{FailureKind, Upstream, Upstreams};
use crate::time::Instant;

/// Properties of a server that an answer shows.
#[derive(Clone, Copy, Debug)]
pub struct ServerTraits {
    /// True if it came with an OPT record.
    pub has_edns: bool,
    /// True if it is no failure, but says something about the name.
    pub is_useful: bool,
}

impl Question {
    /// An attempt at `server`, without way and ID yet: with EDNS and random letter case if the server is believed to
    /// support them.
    pub fn prepare(&mut self, server: u8, upstream: &Upstream, now: Instant) -> Attempt {
        self.note_silence_with_edns(server, upstream, now);
        Attempt {
            upstream: server,
            via: None,
            id: 0,
            sent: now,
            live: true,
            edns: !has(self.tries.without_edns, server) && upstream.speaks_edns(now),
            random_case: !has(self.tries.without_case, server) && upstream.keeps_case(now),
            overdue: false,
            forged: 0,
        }
    }

    /// Some servers, and middleboxes before them, drop queries with EDNS (RFC 6891 section 7). A server that is not known
    /// to answer with EDNS, and that leaves this question unanswered or is silent, is asked without. If that works for
    /// several questions in a row, it is remembered, as after FORMERR.
    fn note_silence_with_edns(&mut self, server: u8, upstream: &Upstream, now: Instant) {
        if !upstream.may_drop_edns(now) {
            return;
        }
        // An answer without DO is useless to validating clients, so this is tried last.
        let is_silent = upstream.is_silent() && !self.dnssec_ok;
        let is_unanswered = |attempt: &Attempt| {
            attempt.port().is_some() && attempt.edns && attempt.live && attempt.overdue
        };
        if is_silent || self.tries.of(server).any(is_unanswered) {
            self.tries.without_edns |= 1 << server;
        }
    }

    /// Learns from an answer to `attempt` what the server supports. The answer for one name is not enough to conclude from.
    pub fn learn(&self, attempt: &Attempt, seen: ServerTraits, context: &mut QuestionContext<'_>) {
        let (server, now) = (attempt.upstream, context.now);
        let rtt_ms = now.millis_since(attempt.sent);
        context.upstreams.answered(server, rtt_ms, now);
        if attempt.random_case {
            context.upstreams.kept_case(server);
        }
        let fell_back = has(self.tries.without_edns, server);
        if seen.has_edns && attempt.edns {
            context.upstreams.spoke_edns(server, now);
        } else if fell_back && seen.is_useful {
            if self.has_failed_with_edns(server, context.upstreams) {
                context.upstreams.lacked_edns(server, self.hash(), now);
            }
            context.upstreams.spoke_plain(server, attempt.sent);
        }
    }

    /// True if `server` failed this question because of EDNS: it said so, or was silent while it answered others.
    fn has_failed_with_edns(&self, server: u8, upstreams: &Upstreams) -> bool {
        let upstream = upstreams.get(server);
        let was_there = |sent| upstream.is_some_and(|upstream| upstream.was_there(sent));
        let with_edns = self.tries.of(server).filter(|attempt| attempt.edns);
        let mut with_edns = with_edns;
        with_edns.any(|attempt| match (attempt.live, attempt.overdue) {
            (true, _) => was_there(attempt.sent),
            (false, is_lost) => !is_lost,
        })
    }

    /// True if a stream to the server was opened for lost letter case alone, so that it may still answer a datagram in
    /// plain case.
    pub(super) fn may_be_lost_for_case(&self, attempt: &Attempt) -> bool {
        let server = attempt.upstream;
        let is_plain = |attempt: &Attempt| !attempt.random_case && attempt.port().is_some();
        has(self.tries.without_case, server)
            && !self.tries.of(server).any(is_plain)
            && !self.tries.is_full()
    }

    /// Counts `attempt` as a timeout of its server. A late answer is still accepted.
    pub fn note_timeout(&mut self, attempt: &Attempt, context: &mut QuestionContext<'_>) {
        context.counters.count(Counter::UpstreamTimeouts);
        let (server, now) = (attempt.upstream, context.now);
        context.upstreams.failed(server, FailureKind::Timeout, now);
        self.blame(attempt, context);
    }

    /// Notes that `attempt` was refused by ICMP, its connection was refused, or no route leads to its server.
    pub(super) fn note_unreachable(
        &mut self,
        attempt: &Attempt,
        context: &mut QuestionContext<'_>,
    ) {
        let (server, now) = (attempt.upstream, context.now);
        context
            .upstreams
            .failed(server, FailureKind::Unreachable, now);
        if !attempt.overdue {
            self.blame(attempt, context);
        }
    }

    /// Notes that the server did not return the letter case: this question goes to it in plain case.
    pub(super) fn note_lost_case(&mut self, attempt: &Attempt, context: &mut QuestionContext<'_>) {
        self.tries.without_case |= 1 << attempt.upstream;
        let hash = self.hash();
        context
            .upstreams
            .lost_case(attempt.upstream, hash, context.now);
    }

    fn blame(&mut self, attempt: &Attempt, context: &mut QuestionContext<'_>) {
        self.tries.set_overdue(attempt);
        let hash = self.hash();
        context
            .upstreams
            .timed_out(attempt.upstream, hash, context.now);
    }

    /// Counts attempts as timeouts that take longer than their upstream usually does.
    pub(super) fn note_timeouts(&mut self, context: &mut QuestionContext<'_>) {
        // Bound: `ATTEMPTS`. One at a time, because each changes the state of its server.
        for place in 0..self.tries.as_slice().len() {
            let attempt = self.tries.as_slice()[place];
            let server = context.upstreams.get(attempt.upstream);
            let usual_ms = server.map(|server| u64::from(server.retry_ms()));
            let is_over = usual_ms.is_some_and(|ms| context.now.millis_since(attempt.sent) >= ms);
            if attempt.live && !attempt.overdue && is_over {
                self.note_timeout(&attempt, context);
            }
        }
    }
}
