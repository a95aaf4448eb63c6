//! Upstream servers: the usual RTT of each, which of them are silent, and which one is asked next.

use super::tries::{Attempt, ServerSet, has};
use super::via::Destination;
use crate::limits::UPSTREAMS;
use crate::time::Instant;
use core::net::SocketAddr;
use heapless::Vec;

/// Time that an upstream without a measured RTT gets before the next one is asked as well, in milliseconds.
const RETRY_FIRST_MS: u32 = 400;
/// Shortest time before the next one is asked as well, in milliseconds: the jitter of a resolver on the LAN.
const RETRY_MIN_MS: u32 = 40;
/// Longest time before the next one is asked as well, in milliseconds.
const RETRY_MAX_MS: u32 = 1_000;
/// Number of different questions in a row that have to fail before the upstream is blamed, and not the question.
const FAULTS: u8 = 3;
/// Time after which a silent upstream is asked again, beside another one, in milliseconds; doubled up to `PROBE_MAX_MS`.
const PROBE_FIRST_MS: u64 = 1_000;
/// Longest time between two probes, in milliseconds.
const PROBE_MAX_MS: u64 = 30_000;
/// Time after which a server other than the fastest is measured again, in milliseconds: it may have become faster.
const MEASURE_MS: u64 = 10_000;
/// Time for which an upstream is asked without what it does not support, in milliseconds.
const WITHOUT_MS: u64 = 15 * 60 * 1_000;

/// One upstream server as configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpstreamConfig {
    /// Address and port of the server, and the way to it.
    pub to: Destination,
    /// Group of the server; 0 is the default group.
    pub group: u8,
    /// True if its AD bit is passed on (RFC 6840 section 5.8: only if the path to it is trusted).
    pub trusted: bool,
    /// True if it is asked with EDNS.
    pub edns: bool,
    /// Strategy of its group, the same for all servers of the group.
    pub strategy: Strategy,
}

impl UpstreamConfig {
    /// True if `from` is this server. Link-local addresses are compared with their zone index (RFC 4007 section 6).
    #[must_use]
    pub fn is_at(&self, from: SocketAddr) -> bool {
        let scope = |address: &SocketAddr| match address {
            SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() => v6.scope_id(),
            SocketAddr::V4(_) | SocketAddr::V6(_) => 0,
        };
        let address = &self.to.address;
        address.ip() == from.ip() && address.port() == from.port() && scope(address) == scope(&from)
    }
}

/// Order in which the servers of a group are asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// In the order of the configuration.
    #[default]
    Ordered,
    /// The server with the shortest RTT first.
    Fastest,
    /// Two servers at once; the first useful answer counts.
    Race,
}

/// Faults of one kind in a row. A question counts once, however often it fails: a fault with one name is no fault of the
/// server.
#[derive(Clone, Copy, Debug, Default)]
struct Faults {
    count: u8,
    /// Hash of the question that was counted last.
    last: u64,
}

impl Faults {
    /// Counts a fault with the question of this hash. Returns true if the server is blamed from now on.
    fn count(&mut self, question: u64) -> bool {
        if self.count > 0 && self.last == question {
            return false;
        }
        self.last = question;
        self.count = self.count.saturating_add(1);
        self.count == FAULTS
    }

    const fn is_blamed(&self) -> bool {
        self.count >= FAULTS
    }
}

/// A capability that an upstream was found to lack. It is tried again after a while.
#[derive(Clone, Copy, Debug, Default)]
struct Capability {
    faults: Faults,
    again_at: Instant,
}

impl Capability {
    fn is_there(&self, now: Instant) -> bool {
        now >= self.again_at
    }

    fn failed(&mut self, question: u64, now: Instant) {
        if self.faults.count(question) {
            *self = Self {
                faults: Faults::default(),
                again_at: now + WITHOUT_MS,
            };
        }
    }

    fn worked(&mut self) {
        self.faults = Faults::default();
    }
}

/// Kind of failure of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// No answer in time.
    Timeout,
    /// An ICMP error about the server, its port or the path to it; a refused connection; or no route on this machine.
    Unreachable,
    /// A malformed answer.
    Malformed,
}

impl FailureKind {
    /// Label of the kind in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::Malformed => "malformed",
        }
    }
}

/// Counts of a server's questions and answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerCounts {
    /// Questions that were sent to the server.
    pub asked: u64,
    /// Answers, including late ones.
    pub answered: u64,
    /// Questions that failed, including those that could not be sent.
    pub failed: u64,
}

/// A query whose question another server answered first.
#[derive(Clone, Copy, Debug)]
struct Superseded {
    port: u16,
    id: u16,
    sent: Instant,
    question: u64,
}

/// An upstream server and its measured state.
#[derive(Clone, Copy, Debug)]
pub struct Upstream {
    /// Configuration.
    pub config: UpstreamConfig,
    /// Smoothed RTT in ms, times 8 (RFC 6298); 0 if never measured.
    srtt8_ms: u32,
    /// Mean deviation of the RTT in ms, times 4.
    rttvar4_ms: u32,
    timeouts: Faults,
    probe_at: Instant,
    probe_wait_ms: u64,
    measured_at: Instant,
    edns: Capability,
    /// Time until which the server counts as one that does not drop EDNS, since it has answered with it.
    edns_heard_until: Instant,
    /// Time of sending of the first query without EDNS that it answered since its last answer with EDNS.
    plain_since: Option<Instant>,
    letter_case: Capability,
    superseded: Option<Superseded>,
    counts: ServerCounts,
    /// Time of its latest answer.
    answered_at: Option<Instant>,
    /// Kind and time of its latest failure.
    failure: Option<(FailureKind, Instant)>,
}

impl Upstream {
    const fn new(config: UpstreamConfig) -> Self {
        const ABLE: Capability = Capability {
            faults: Faults { count: 0, last: 0 },
            again_at: Instant::from_millis(0),
        };
        Self {
            config,
            srtt8_ms: 0,
            rttvar4_ms: 0,
            timeouts: ABLE.faults,
            probe_at: Instant::from_millis(0),
            probe_wait_ms: PROBE_FIRST_MS,
            measured_at: Instant::from_millis(0),
            edns: ABLE,
            edns_heard_until: Instant::from_millis(0),
            plain_since: None,
            letter_case: ABLE,
            superseded: None,
            counts: ServerCounts {
                asked: 0,
                answered: 0,
                failed: 0,
            },
            answered_at: None,
            failure: None,
        }
    }

    /// Milliseconds without an answer after which the next server is asked as well: the server's own usual time.
    #[must_use]
    pub fn retry_ms(&self) -> u32 {
        if self.srtt8_ms == 0 {
            return RETRY_FIRST_MS;
        }
        (self.srtt8_ms / 8 + self.rttvar4_ms).clamp(RETRY_MIN_MS, RETRY_MAX_MS)
    }

    /// Smoothed RTT in milliseconds; `None` if never measured.
    #[must_use]
    pub const fn srtt_ms(&self) -> Option<u32> {
        if self.srtt8_ms == 0 {
            None
        } else {
            Some(self.srtt8_ms / 8)
        }
    }

    /// True if several questions in a row had no answer.
    #[must_use]
    pub const fn is_silent(&self) -> bool {
        self.timeouts.is_blamed()
    }

    /// Counts of its questions and answers.
    #[must_use]
    pub const fn counts(&self) -> ServerCounts {
        self.counts
    }

    /// Time of its latest answer; `None` if there was none.
    #[must_use]
    pub const fn answered_at(&self) -> Option<Instant> {
        self.answered_at
    }

    /// Kind and time of its latest failure, which an answer does not reset.
    #[must_use]
    pub const fn failure(&self) -> Option<(FailureKind, Instant)> {
        self.failure
    }

    /// True if it is asked with an OPT record: the config wants it, and the server supports it, as far as is known (RFC
    /// 6891 section 7).
    #[must_use]
    pub fn speaks_edns(&self, now: Instant) -> bool {
        self.config.edns && self.edns.is_there(now)
    }

    /// True if it has not answered with EDNS lately, so that EDNS may be the reason for its silence.
    #[must_use]
    pub fn may_drop_edns(&self, now: Instant) -> bool {
        self.speaks_edns(now) && now >= self.edns_heard_until
    }

    /// True if silence on a query with EDNS that was sent at `sent` may be blamed on EDNS: the server had answered without
    /// it before. A line that was down loses the first questions of any kind.
    #[must_use]
    pub fn was_there(&self, sent: Instant) -> bool {
        self.plain_since.is_some_and(|since| since <= sent)
    }

    /// True if it repeats the letter case of the question, as far as is known.
    #[must_use]
    pub fn keeps_case(&self, now: Instant) -> bool {
        self.letter_case.is_there(now)
    }

    /// Notes an answer after `rtt_ms`.
    fn answered(&mut self, rtt_ms: u64, now: Instant) {
        let rtt_ms = rtt_ms.clamp(1, 10_000) as u32;
        if self.srtt8_ms == 0 {
            self.srtt8_ms = rtt_ms * 8;
            self.rttvar4_ms = rtt_ms * 2;
        } else {
            // RFC 6298 section 2.3 with alpha 1/8 and beta 1/4.
            // Both are kept scaled, by 8 and by 4, so that integers lose no relevant fraction.
            let deviation = (self.srtt8_ms / 8).abs_diff(rtt_ms);
            self.rttvar4_ms = self.rttvar4_ms - self.rttvar4_ms / 4 + deviation;
            self.srtt8_ms = (self.srtt8_ms - self.srtt8_ms / 8 + rtt_ms).max(8);
        }
        self.timeouts = Faults::default();
        self.probe_wait_ms = PROBE_FIRST_MS;
        self.measured_at = now;
        self.answered_at = Some(now);
        self.counts.answered += 1;
    }

    /// Notes that this question was not answered in time.
    fn timed_out(&mut self, question: u64, now: Instant) {
        if self.timeouts.count(question) {
            self.probe_at = now + self.probe_wait_ms;
        }
    }

    /// True if it should be asked beside another server, to measure it.
    fn wants_probe(&self, now: Instant) -> bool {
        if self.is_silent() {
            now >= self.probe_at
        } else {
            self.config.strategy == Strategy::Fastest
                && now.millis_since(self.measured_at) >= MEASURE_MS
        }
    }

    fn probed(&mut self, now: Instant) {
        self.measured_at = now;
        if self.is_silent() {
            self.probe_wait_ms = (self.probe_wait_ms * 2).min(PROBE_MAX_MS);
            self.probe_at = now + self.probe_wait_ms;
        }
    }

    /// Notes a query whose answer is no longer waited for, but still measured. One such query is kept at a time; if it is
    /// overdue when the next one comes, it counts as a timeout.
    fn superseded(&mut self, query: Superseded, now: Instant) {
        if let Some(earlier) = self.superseded {
            if now.millis_since(earlier.sent) < u64::from(self.retry_ms()) {
                return;
            }
            self.timed_out(earlier.question, now);
        }
        self.superseded = Some(query);
    }
}

/// More upstream servers than [`UPSTREAMS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyUpstreams;

/// All upstream servers. More than [`UPSTREAMS`] are refused.
#[derive(Debug)]
pub struct Upstreams {
    list: Vec<Upstream, UPSTREAMS>,
}

impl Upstreams {
    /// No servers: every question fails.
    #[must_use]
    pub const fn new() -> Self {
        Self { list: Vec::new() }
    }

    /// Replaces the configuration. The state of a server that stays is kept.
    ///
    /// # Errors
    /// There are more than [`UPSTREAMS`].
    pub fn configure(&mut self, servers: &[UpstreamConfig]) -> Result<(), TooManyUpstreams> {
        if servers.len() > UPSTREAMS {
            return Err(TooManyUpstreams);
        }
        let mut list: Vec<Upstream, UPSTREAMS> = Vec::new();
        for &config in servers {
            let known = self
                .list
                .iter()
                .find(|old| old.config.to == config.to && old.config.group == config.group);
            let upstream = known.map_or(Upstream::new(config), |old| Upstream { config, ..*old });
            // Has room, as checked above.
            let _ = list.push(upstream);
        }
        self.list = list;
        Ok(())
    }

    /// The server at `index`.
    #[must_use]
    pub fn get(&self, index: u8) -> Option<&Upstream> {
        self.list.get(usize::from(index))
    }

    /// The server at `index`, for changes.
    #[must_use]
    pub fn get_mut(&mut self, index: u8) -> Option<&mut Upstream> {
        self.list.get_mut(usize::from(index))
    }

    /// All servers.
    #[must_use]
    pub fn as_slice(&self) -> &[Upstream] {
        &self.list
    }

    /// Strategy of `group`.
    #[must_use]
    pub fn strategy(&self, group: u8) -> Strategy {
        let mut servers = self.list.iter();
        servers
            .find(|upstream| upstream.config.group == group)
            .map_or(Strategy::Ordered, |upstream| upstream.config.strategy)
    }

    /// True if there are servers of another group.
    #[must_use]
    pub fn has_other(&self, group: u8) -> bool {
        let mut servers = self.list.iter();
        servers.any(|upstream| upstream.config.group != group)
    }

    /// Server to ask next in `group`: working servers before silent ones, untried before tried ones.
    #[must_use]
    pub fn pick(&self, group: u8, tried: ServerSet) -> Option<u8> {
        let strategy = self.strategy(group);
        let members = || {
            self.list
                .iter()
                .enumerate()
                .filter(move |(_, upstream)| upstream.config.group == group)
        };
        let untried = |index: usize| !has(tried, index as u8);
        let best = |candidates: &mut dyn Iterator<Item = (usize, &Upstream)>| -> Option<u8> {
            match strategy {
                Strategy::Ordered => candidates.next(),
                // A server that was never measured counts as fastest, so that each is measured once.
                Strategy::Fastest | Strategy::Race => {
                    candidates.min_by_key(|(_, upstream)| upstream.srtt8_ms)
                }
            }
            .map(|(index, _)| index as u8)
        };
        let works = |upstream: &Upstream| !upstream.is_silent();
        best(&mut members().filter(|(index, upstream)| untried(*index) && works(upstream)))
            .or_else(|| best(&mut members().filter(|(index, _)| untried(*index))))
            .or_else(|| best(&mut members().filter(|(_, upstream)| works(upstream))))
            .or_else(|| best(&mut members()))
    }

    /// Server of `group` to ask again: the one that was asked least by `times`, silent ones last.
    #[must_use]
    pub fn pick_again(&self, group: u8, times: impl Fn(u8) -> usize) -> Option<u8> {
        let members = self
            .list
            .iter()
            .zip(0..)
            .filter(|(upstream, _)| upstream.config.group == group);
        members
            .min_by_key(|(upstream, index)| (upstream.is_silent(), times(*index)))
            .map(|(_, index)| index)
    }

    /// A server of `group` to ask beside those that were `tried`, so that it costs clients nothing: a silent one that may
    /// be back, or one that may have become the fastest. Sets the time of its next probe.
    pub fn probe(&mut self, group: u8, tried: ServerSet, now: Instant) -> Option<u8> {
        let mut servers = self.list.iter_mut().enumerate();
        let (index, upstream) = servers.find(|(index, upstream)| {
            upstream.config.group == group && !has(tried, *index as u8) && upstream.wants_probe(now)
        })?;
        upstream.probed(now);
        Some(index as u8)
    }

    /// True if every server of `group` is silent.
    #[must_use]
    pub fn is_unreachable(&self, group: u8) -> bool {
        self.list
            .iter()
            .filter(|upstream| upstream.config.group == group)
            .all(Upstream::is_silent)
    }

    /// Notes that a question was sent.
    pub fn asked(&mut self, index: u8) {
        if let Some(upstream) = self.get_mut(index) {
            upstream.counts.asked += 1;
        }
    }

    /// Notes an answer.
    pub fn answered(&mut self, index: u8, rtt_ms: u64, now: Instant) {
        if let Some(upstream) = self.get_mut(index) {
            upstream.answered(rtt_ms, now);
        }
    }

    /// Notes that the question with this hash was not answered in time.
    pub fn timed_out(&mut self, index: u8, question: u64, now: Instant) {
        if let Some(upstream) = self.get_mut(index) {
            upstream.timed_out(question, now);
        }
    }

    /// Notes a failure of the server, for metrics alone: the choice of servers does not depend on it.
    pub fn failed(&mut self, index: u8, failure: FailureKind, now: Instant) {
        if let Some(upstream) = self.get_mut(index) {
            upstream.failure = Some((failure, now));
            upstream.counts.failed += 1;
        }
    }

    /// Notes that the server answered this question without EDNS, but not with it (RFC 6891 section 7).
    pub fn lacked_edns(&mut self, index: u8, question: u64, now: Instant) {
        if let Some(upstream) = self.get_mut(index) {
            upstream.edns.failed(question, now);
        }
    }

    /// Notes that the server answered a query without EDNS that was sent at `sent`.
    pub fn spoke_plain(&mut self, index: u8, sent: Instant) {
        if let Some(upstream) = self.get_mut(index) {
            upstream.plain_since.get_or_insert(sent);
        }
    }

    /// Notes that the server answered with EDNS.
    pub fn spoke_edns(&mut self, index: u8, now: Instant) {
        if let Some(upstream) = self.get_mut(index) {
            upstream.edns.worked();
            upstream.plain_since = None;
            upstream.edns_heard_until = now + WITHOUT_MS;
        }
    }

    /// Notes that the server repeated the letter case of the question.
    pub fn kept_case(&mut self, index: u8) {
        if let Some(upstream) = self.get_mut(index) {
            upstream.letter_case.worked();
        }
    }

    /// Notes that the server did not repeat the letter case of this question.
    pub fn lost_case(&mut self, index: u8, question: u64, now: Instant) {
        if let Some(upstream) = self.get_mut(index) {
            upstream.letter_case.failed(question, now);
        }
    }

    /// Notes that the answer to `attempt` at the question with this hash is no longer waited for.
    pub fn superseded(&mut self, attempt: &Attempt, question: u64, now: Instant) {
        let Attempt { id, sent, .. } = *attempt;
        if let Some(upstream) = self.get_mut(attempt.upstream)
            && let Some(port) = attempt.port()
        {
            let query = Superseded {
                port,
                id,
                sent,
                question,
            };
            upstream.superseded(query, now);
        }
    }

    /// Measures an answer that is no longer waited for, if it is one.
    pub fn measure_late(&mut self, port: u16, id: u16, from: SocketAddr, now: Instant) {
        let late = self.list.iter_mut().find_map(|upstream| {
            let query = upstream.superseded?;
            let same = query.port == port && query.id == id;
            (same && upstream.config.is_at(from)).then_some((upstream, query))
        });
        if let Some((upstream, query)) = late {
            upstream.superseded = None;
            upstream.answered(now.millis_since(query.sent), now);
        }
    }
}

impl Default for Upstreams {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
