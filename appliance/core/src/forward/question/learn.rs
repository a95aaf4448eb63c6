//! What a question learns of servers on its way, and what it is believed to be able to ask them.

use super::{Question, Scene};
use crate::counters::Counter;
use crate::forward::tries::{Attempt, has};
use crate::forward::upstreams::{FailureKind, Upstream, Upstreams};
use crate::time::Instant;

/// What an answer shows of its server.
#[derive(Clone, Copy, Debug)]
pub struct ServerTraits {
    /// It came with an OPT record.
    pub has_edns: bool,
    /// It says something about the name, so it is not a failure.
    pub is_useful: bool,
}

impl Question {
    /// An attempt at `server`, whose way and ID are not chosen yet: what the server is believed to understand.
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

    /// Some servers, and boxes on the way to them, drop queries with EDNS (RFC 6891 section 7). One of which no answer with
    /// EDNS is known, and that leaves this question unanswered or is silent, is asked without. If it answers that to
    /// several questions in a row, it is remembered, as where it says FORMERR.
    fn note_silence_with_edns(&mut self, server: u8, upstream: &Upstream, now: Instant) {
        if !upstream.may_drop_edns(now) {
            return;
        }
        // Without DO an answer is no answer for those who validate: that is tried last.
        let is_silent = upstream.is_silent() && !self.dnssec_ok;
        let is_unanswered = |attempt: &Attempt| {
            attempt.port().is_some() && attempt.edns && attempt.live && attempt.overdue
        };
        if is_silent || self.tries.of(server).any(is_unanswered) {
            self.tries.without_edns |= 1 << server;
        }
    }

    /// Learns from an answer to `attempt` what the server understands. What one name is answered with is not enough to tell.
    pub fn learn(&self, attempt: &Attempt, seen: ServerTraits, scene: &mut Scene<'_>) {
        let (server, now) = (attempt.upstream, scene.now);
        let rtt_ms = now.millis_since(attempt.sent);
        scene.upstreams.answered(server, rtt_ms, now);
        if attempt.random_case {
            scene.upstreams.kept_case(server);
        }
        let fell_back = has(self.tries.without_edns, server);
        if seen.has_edns && attempt.edns {
            scene.upstreams.spoke_edns(server, now);
        } else if fell_back && seen.is_useful {
            if self.has_failed_with_edns(server, scene.upstreams) {
                scene.upstreams.lacked_edns(server, self.hash(), now);
            }
            scene.upstreams.spoke_plain(server, attempt.sent);
        }
    }

    /// Whether it was because of EDNS that `server` did not help with this question: it said so, or was silent while it
    /// answered others.
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

    /// Whether a stream to the server was opened for lost letter case alone: it may still answer a datagram in plain case.
    pub(super) fn may_be_lost_for_case(&self, attempt: &Attempt) -> bool {
        let server = attempt.upstream;
        let is_plain = |attempt: &Attempt| !attempt.random_case && attempt.port().is_some();
        has(self.tries.without_case, server)
            && !self.tries.of(server).any(is_plain)
            && !self.tries.is_full()
    }

    /// Counts `attempt` as a timeout of its server. An answer to it is still taken if it comes.
    pub fn note_timeout(&mut self, attempt: &Attempt, scene: &mut Scene<'_>) {
        scene.counters.count(Counter::UpstreamTimeouts);
        let (server, now) = (attempt.upstream, scene.now);
        scene.upstreams.failed(server, FailureKind::Timeout, now);
        self.blame(attempt, scene);
    }

    /// ICMP has refused `attempt`, or its connection was refused, or no route leads to its server.
    pub(super) fn note_unreachable(&mut self, attempt: &Attempt, scene: &mut Scene<'_>) {
        let (server, now) = (attempt.upstream, scene.now);
        scene
            .upstreams
            .failed(server, FailureKind::Unreachable, now);
        if !attempt.overdue {
            self.blame(attempt, scene);
        }
    }

    /// Their letter case did not come back from there: this question is sent as it is.
    pub(super) fn note_lost_case(&mut self, attempt: &Attempt, scene: &mut Scene<'_>) {
        self.tries.without_case |= 1 << attempt.upstream;
        let hash = self.hash();
        scene.upstreams.lost_case(attempt.upstream, hash, scene.now);
    }

    fn blame(&mut self, attempt: &Attempt, scene: &mut Scene<'_>) {
        self.tries.set_overdue(attempt);
        let hash = self.hash();
        scene.upstreams.timed_out(attempt.upstream, hash, scene.now);
    }

    /// Counts as timeouts the attempts that take longer than their upstream usually does.
    pub(super) fn note_timeouts(&mut self, scene: &mut Scene<'_>) {
        // Bound: `ATTEMPTS`. One at a time, because each changes what is known of its server.
        for place in 0..self.tries.as_slice().len() {
            let attempt = self.tries.as_slice()[place];
            let server = scene.upstreams.get(attempt.upstream);
            let usual_ms = server.map(|server| u64::from(server.retry_ms()));
            let is_over = usual_ms.is_some_and(|ms| scene.now.millis_since(attempt.sent) >= ms);
            if attempt.live && !attempt.overdue && is_over {
                self.note_timeout(&attempt, scene);
            }
        }
    }
}
