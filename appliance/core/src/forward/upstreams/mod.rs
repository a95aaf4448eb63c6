//! The upstream servers: how long each one usually takes, which ones are silent, which one is asked next.

use super::tries::{Attempt, ServerSet, has};
use crate::limits::UPSTREAMS;
use crate::time::Instant;
use core::net::SocketAddr;
use heapless::Vec;

/// Before the first answer an upstream is given this long before the next one is asked, too.
const RETRY_FIRST_MS: u32 = 400;
/// Never ask the next one sooner than this: a LAN resolver's jitter.
const RETRY_MIN_MS: u32 = 40;
/// Never wait longer than this before the next one is asked, too.
const RETRY_MAX_MS: u32 = 1_000;
/// Different questions in a row that have to fail before the upstream is to blame, and not the question.
const FAULTS: u8 = 3;
/// A silent upstream is asked again, beside another one, after this time; doubled up to `PROBE_MAX_MS`.
const PROBE_FIRST_MS: u64 = 1_000;
/// The longest time between two probes.
const PROBE_MAX_MS: u64 = 30_000;
/// Where the fastest is asked, the others are measured this often: one of them may have become faster.
const MEASURE_MS: u64 = 10_000;
/// For how long an upstream is asked without what it does not understand.
const WITHOUT_MS: u64 = 15 * 60 * 1_000;

/// One upstream server as configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpstreamConfig {
    /// Where it listens.
    pub address: SocketAddr,
    /// The group that it belongs to; 0 is the default group.
    pub group: u8,
    /// Whether its AD bit is passed on (RFC 6840 section 5.8: only where the path to it is trusted).
    pub trusted: bool,
    /// Whether it is asked with EDNS.
    pub edns: bool,
    /// How its group is asked: the same for all servers of the group.
    pub strategy: Strategy,
}

impl UpstreamConfig {
    /// Whether `from` is this server. A link-local address is one only together with its link (RFC 4007 section 6).
    #[must_use]
    pub fn is_at(&self, from: SocketAddr) -> bool {
        let scope = |address: &SocketAddr| match address {
            SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() => v6.scope_id(),
            SocketAddr::V4(_) | SocketAddr::V6(_) => 0,
        };
        self.address.ip() == from.ip()
            && self.address.port() == from.port()
            && scope(&self.address) == scope(&from)
    }
}

/// In which order the servers of a group are asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// In the order of the configuration.
    #[default]
    Ordered,
    /// The one with the shortest usual time first.
    Fastest,
    /// Two at once; the first good answer counts.
    Race,
}

/// Faults of one kind in a row. One question may fail as often as it likes, it counts once: a fault with one name is no
/// fault of the server.
#[derive(Clone, Copy, Debug, Default)]
struct Faults {
    count: u8,
    /// The question that was counted last.
    last: u64,
}

impl Faults {
    /// Counts a fault with the question that has this hash. Whether the server is to blame from now on.
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

/// Something that an upstream was found not to understand. It is tried again after a while.
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

/// How a server can fail a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// It did not answer in time.
    Timeout,
    /// ICMP says that it, its port or the way to it is not there; or it refuses the connection; or no route of this machine
    /// leads there.
    Unreachable,
    /// Its answer was not a well-formed message.
    Malformed,
}

impl FailureKind {
    /// Its name in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::Malformed => "malformed",
        }
    }
}

/// How often a server was asked, and what came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerCounts {
    /// Questions that were sent to it.
    pub asked: u64,
    /// Answers that came, late ones among them.
    pub answered: u64,
    /// Questions that it failed, those among them that could not be sent.
    pub failed: u64,
}

/// A query whose question was answered by another server before its own answer came.
#[derive(Clone, Copy, Debug)]
struct Superseded {
    port: u16,
    id: u16,
    sent: Instant,
    question: u64,
}

/// One upstream server and what is known of it.
#[derive(Clone, Copy, Debug)]
pub struct Upstream {
    /// As configured.
    pub config: UpstreamConfig,
    /// Smoothed round trip in ms, times 8 (RFC 6298); 0: never measured.
    srtt8_ms: u32,
    /// Its mean deviation in ms, times 4.
    rttvar4_ms: u32,
    timeouts: Faults,
    probe_at: Instant,
    probe_wait_ms: u64,
    measured_at: Instant,
    edns: Capability,
    /// Until when it counts that it has answered with EDNS: it does not drop such queries.
    edns_heard_until: Instant,
    /// When that was sent what it answered first without EDNS, since it has last answered with it.
    plain_since: Option<Instant>,
    letter_case: Capability,
    superseded: Option<Superseded>,
    counts: ServerCounts,
    /// When its latest answer came.
    answered_at: Option<Instant>,
    /// How it failed last, and when.
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

    /// After how many milliseconds without an answer the next server is asked, too: its own usual time.
    #[must_use]
    pub fn retry_ms(&self) -> u32 {
        if self.srtt8_ms == 0 {
            return RETRY_FIRST_MS;
        }
        (self.srtt8_ms / 8 + self.rttvar4_ms).clamp(RETRY_MIN_MS, RETRY_MAX_MS)
    }

    /// Usual round trip in milliseconds; `None`: never measured.
    #[must_use]
    pub const fn srtt_ms(&self) -> Option<u32> {
        if self.srtt8_ms == 0 {
            None
        } else {
            Some(self.srtt8_ms / 8)
        }
    }

    /// Whether it has not answered for a while.
    #[must_use]
    pub const fn is_silent(&self) -> bool {
        self.timeouts.is_blamed()
    }

    /// How often it was asked, and what came of it.
    #[must_use]
    pub const fn counts(&self) -> ServerCounts {
        self.counts
    }

    /// When its latest answer came; `None`: none has.
    #[must_use]
    pub const fn answered_at(&self) -> Option<Instant> {
        self.answered_at
    }

    /// How it failed last, and when; an answer since then does not undo it.
    #[must_use]
    pub const fn failure(&self) -> Option<(FailureKind, Instant)> {
        self.failure
    }

    /// Whether it is asked with an OPT record: the config wants that, and it answers such queries, as far as is known (RFC
    /// 6891 section 7).
    #[must_use]
    pub fn speaks_edns(&self, now: Instant) -> bool {
        self.config.edns && self.edns.is_there(now)
    }

    /// Whether it has not answered with EDNS lately, so that its silence may be because of that.
    #[must_use]
    pub fn may_drop_edns(&self, now: Instant) -> bool {
        self.speaks_edns(now) && now >= self.edns_heard_until
    }

    /// Whether silence on what was sent with EDNS at `sent` is about EDNS, if the server answers without now: it did so
    /// before, too. A line that was down loses the first questions, whatever they carry.
    #[must_use]
    pub fn was_there(&self, sent: Instant) -> bool {
        self.plain_since.is_some_and(|since| since <= sent)
    }

    /// Whether it repeats the letter case of the question, as far as is known.
    #[must_use]
    pub fn keeps_case(&self, now: Instant) -> bool {
        self.letter_case.is_there(now)
    }

    /// It answered `rtt_ms` after it was asked.
    fn answered(&mut self, rtt_ms: u64, now: Instant) {
        let rtt_ms = rtt_ms.clamp(1, 10_000) as u32;
        if self.srtt8_ms == 0 {
            self.srtt8_ms = rtt_ms * 8;
            self.rttvar4_ms = rtt_ms * 2;
        } else {
            // RFC 6298 section 2.3 with alpha 1/8 and beta 1/4.
            // Both are kept scaled, by 8 and by 4, so that integers lose no fraction that matters.
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

    /// It did not answer this question in time.
    fn timed_out(&mut self, question: u64, now: Instant) {
        if self.timeouts.count(question) {
            self.probe_at = now + self.probe_wait_ms;
        }
    }

    /// Whether it should be asked beside another one, to learn how it does.
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

    /// Its answer is no longer waited for, but still measured. One such query is remembered at a time; it counts as a
    /// timeout when the next one comes and it is overdue.
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

/// All upstream servers. Full: configuration is refused, see [`UPSTREAMS`].
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

    /// Takes over a configuration; what is known of a server that stays is kept.
    ///
    /// # Errors
    /// There are more than [`UPSTREAMS`].
    pub fn configure(&mut self, servers: &[UpstreamConfig]) -> Result<(), TooManyUpstreams> {
        if servers.len() > UPSTREAMS {
            return Err(TooManyUpstreams);
        }
        let mut list: Vec<Upstream, UPSTREAMS> = Vec::new();
        for &config in servers {
            let known = self.list.iter().find(|old| {
                old.config.address == config.address && old.config.group == config.group
            });
            let upstream = known.map_or(Upstream::new(config), |old| Upstream { config, ..*old });
            // Cannot be full: checked above.
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

    /// The server at `index`, to change it.
    #[must_use]
    pub fn get_mut(&mut self, index: u8) -> Option<&mut Upstream> {
        self.list.get_mut(usize::from(index))
    }

    /// All of them.
    #[must_use]
    pub fn as_slice(&self) -> &[Upstream] {
        &self.list
    }

    /// How the servers of `group` are chosen.
    #[must_use]
    pub fn strategy(&self, group: u8) -> Strategy {
        let mut servers = self.list.iter();
        servers
            .find(|upstream| upstream.config.group == group)
            .map_or(Strategy::Ordered, |upstream| upstream.config.strategy)
    }

    /// Whether there are servers of another group.
    #[must_use]
    pub fn has_other(&self, group: u8) -> bool {
        let mut servers = self.list.iter();
        servers.any(|upstream| upstream.config.group != group)
    }

    /// The server to ask next in `group`: servers that answer before silent ones, untried before tried ones.
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
                // Never measured counts as fastest, so that everyone is measured once.
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

    /// The server to ask again in `group`, where `times` says how often each was asked: the one that was asked least, silent ones
    /// last.
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

    /// A server of `group` that is to be asked beside those that were `tried`, so that it costs no client anything: a
    /// silent one that may be back, or one that may have become the fastest. Its next turn comes later.
    pub fn probe(&mut self, group: u8, tried: ServerSet, now: Instant) -> Option<u8> {
        let mut servers = self.list.iter_mut().enumerate();
        let (index, upstream) = servers.find(|(index, upstream)| {
            upstream.config.group == group && !has(tried, *index as u8) && upstream.wants_probe(now)
        })?;
        upstream.probed(now);
        Some(index as u8)
    }

    /// Whether every server of `group` is silent.
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

    /// Notes how the server failed a question. That is for metrics alone: it has no influence on which server is asked.
    pub fn failed(&mut self, index: u8, failure: FailureKind, now: Instant) {
        if let Some(upstream) = self.get_mut(index) {
            upstream.failure = Some((failure, now));
            upstream.counts.failed += 1;
        }
    }

    /// Notes that the server did not take the question with EDNS, but without (RFC 6891 section 7).
    pub fn lacked_edns(&mut self, index: u8, question: u64, now: Instant) {
        if let Some(upstream) = self.get_mut(index) {
            upstream.edns.failed(question, now);
        }
    }

    /// Notes that the server answered what was sent without EDNS at `sent`.
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

    /// Measures an answer that nobody waits for any more, if it is one.
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
