//! The upstream servers: how long each one usually takes, which one is silent, whom to ask next.

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
/// Timeouts in a row after which an upstream counts as silent.
const SILENT_AFTER: u8 = 3;
/// A silent upstream is asked again, with a real question, after this time; doubled up to `PROBE_MAX_MS`.
const PROBE_FIRST_MS: u64 = 1_000;
/// The longest time between two probes.
const PROBE_MAX_MS: u64 = 30_000;

/// One upstream server as configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpstreamConfig {
    /// Where it listens.
    pub address: SocketAddr,
    /// The group that it belongs to; 0 is the default group.
    pub group: u8,
    /// Whether its AD bit is passed on (RFC 6840 section 5.8: only where the path to it is trusted).
    pub trusted: bool,
}

/// In which order the servers of a group are asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// As configured.
    #[default]
    Ordered,
    /// The one with the shortest usual time first.
    Fastest,
    /// Two at once; the first good answer counts.
    Race,
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
    timeouts: u8,
    probe_at: Instant,
    probe_wait_ms: u64,
    /// Answers queries with an OPT record. Cleared by FORMERR or NOTIMP (RFC 6891 section 7).
    pub speaks_edns: bool,
    /// Repeats the letter case of the question. Cleared when it does not.
    pub keeps_case: bool,
}

impl Upstream {
    const fn new(config: UpstreamConfig) -> Self {
        Self {
            config,
            srtt8_ms: 0,
            rttvar4_ms: 0,
            timeouts: 0,
            probe_at: Instant::from_millis(0),
            probe_wait_ms: PROBE_FIRST_MS,
            speaks_edns: true,
            keeps_case: true,
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
        self.timeouts >= SILENT_AFTER
    }

    /// It answered `rtt_ms` after it was asked.
    fn answered(&mut self, rtt_ms: u32) {
        let rtt_ms = rtt_ms.clamp(1, 10_000);
        if self.srtt8_ms == 0 {
            self.srtt8_ms = rtt_ms * 8;
            self.rttvar4_ms = rtt_ms * 2;
        } else {
            // RFC 6298 section 2.3 with alpha 1/8 and beta 1/4.
            let deviation = (self.srtt8_ms / 8).abs_diff(rtt_ms);
            self.rttvar4_ms = self.rttvar4_ms - self.rttvar4_ms / 4 + deviation;
            self.srtt8_ms = (self.srtt8_ms - self.srtt8_ms / 8 + rtt_ms).max(8);
        }
        self.timeouts = 0;
        self.probe_wait_ms = PROBE_FIRST_MS;
    }

    /// It did not answer in time.
    fn timed_out(&mut self, now: Instant) {
        self.timeouts = self.timeouts.saturating_add(1);
        if self.is_silent() && now >= self.probe_at {
            self.probe_at = now + self.probe_wait_ms;
            self.probe_wait_ms = (self.probe_wait_ms * 2).min(PROBE_MAX_MS);
        }
    }
}

/// More upstream servers than [`UPSTREAMS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyUpstreams;

/// All upstream servers. Full: configuration is refused, see [`UPSTREAMS`].
#[derive(Debug)]
pub struct Upstreams {
    list: Vec<Upstream, UPSTREAMS>,
    strategy: Strategy,
}

/// Servers that were asked already, a bit each.
pub type Tried = u32;
const _: () = assert!(UPSTREAMS <= Tried::BITS as usize);

impl Upstreams {
    /// None.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            list: Vec::new(),
            strategy: Strategy::Ordered,
        }
    }

    /// Takes over a configuration; what is known of a server that stays is kept.
    ///
    /// # Errors
    /// There are more than [`UPSTREAMS`].
    pub fn configure(
        &mut self,
        servers: &[UpstreamConfig],
        strategy: Strategy,
    ) -> Result<(), TooManyUpstreams> {
        if servers.len() > UPSTREAMS {
            return Err(TooManyUpstreams);
        }
        let mut list: Vec<Upstream, UPSTREAMS> = Vec::new();
        for &config in servers {
            let known = self
                .list
                .iter()
                .find(|old| old.config.address == config.address);
            let upstream = known.map_or(Upstream::new(config), |old| Upstream { config, ..*old });
            // Cannot be full: checked above.
            let _ = list.push(upstream);
        }
        self.list = list;
        self.strategy = strategy;
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

    /// How they are chosen.
    #[must_use]
    pub const fn strategy(&self) -> Strategy {
        self.strategy
    }

    /// Whom to ask next in `group`: servers that answer before silent ones, untried before tried ones.
    #[must_use]
    pub fn pick(&self, group: u8, tried: Tried, now: Instant) -> Option<u8> {
        let members = || {
            self.list
                .iter()
                .enumerate()
                .filter(move |(_, upstream)| upstream.config.group == group)
        };
        let untried = |index: usize| tried & (1 << index) == 0;
        let best = |candidates: &mut dyn Iterator<Item = (usize, &Upstream)>| -> Option<u8> {
            match self.strategy {
                Strategy::Ordered => candidates.next(),
                // Never measured counts as fastest, so that everyone is measured once.
                Strategy::Fastest | Strategy::Race => {
                    candidates.min_by_key(|(_, upstream)| upstream.srtt8_ms)
                }
            }
            .map(|(index, _)| index as u8)
        };
        // A silent server whose probe is due takes part like a working one: that is the probe. The question goes on to
        // the next server after its usual time, so it costs one client little.
        let works = |upstream: &Upstream| !upstream.is_silent() || now >= upstream.probe_at;
        best(&mut members().filter(|(index, upstream)| untried(*index) && works(upstream)))
            .or_else(|| best(&mut members().filter(|(index, _)| untried(*index))))
            .or_else(|| best(&mut members().filter(|(_, upstream)| works(upstream))))
            .or_else(|| best(&mut members()))
    }

    /// Whether every server of `group` is silent and no probe is due.
    #[must_use]
    pub fn is_unreachable(&self, group: u8, now: Instant) -> bool {
        self.list
            .iter()
            .filter(|upstream| upstream.config.group == group)
            .all(|upstream| upstream.is_silent() && now < upstream.probe_at)
    }

    /// Notes an answer.
    pub fn answered(&mut self, index: u8, rtt_ms: u64) {
        if let Some(upstream) = self.get_mut(index) {
            upstream.answered(u32::try_from(rtt_ms).unwrap_or(u32::MAX));
        }
    }

    /// Notes a timeout.
    pub fn timed_out(&mut self, index: u8, now: Instant) {
        if let Some(upstream) = self.get_mut(index) {
            upstream.timed_out(now);
        }
    }
}

impl Default for Upstreams {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(strategy: Strategy) -> Upstreams {
        let mut upstreams = Upstreams::new();
        let config = |port, group| UpstreamConfig {
            address: ([192, 0, 2, 1], port).into(),
            group,
            trusted: false,
        };
        upstreams
            .configure(&[config(1, 0), config(2, 0), config(3, 1)], strategy)
            .expect("fits");
        upstreams
    }

    const NOW: Instant = Instant::from_millis(5_000);

    #[test]
    fn ordered_asks_in_order_and_repeats_when_all_were_asked() {
        let upstreams = servers(Strategy::Ordered);
        assert_eq!(upstreams.pick(0, 0, NOW), Some(0));
        assert_eq!(upstreams.pick(0, 0b01, NOW), Some(1));
        assert_eq!(upstreams.pick(0, 0b11, NOW), Some(0));
        assert_eq!(upstreams.pick(1, 0, NOW), Some(2));
        assert_eq!(upstreams.pick(2, 0, NOW), None);
    }

    #[test]
    fn a_silent_server_is_left_out_until_its_probe() {
        let mut upstreams = servers(Strategy::Ordered);
        for _ in 0..SILENT_AFTER {
            upstreams.timed_out(0, NOW);
        }
        assert_eq!(upstreams.pick(0, 0, NOW), Some(1));
        assert_eq!(
            upstreams.pick(0, 0b10, NOW),
            Some(0),
            "better a silent server than none"
        );
        assert_eq!(
            upstreams.pick(0, 0, NOW + PROBE_FIRST_MS),
            Some(0),
            "the probe"
        );
        upstreams.answered(0, 10);
        assert_eq!(upstreams.pick(0, 0, NOW), Some(0));
    }

    #[test]
    fn fastest_prefers_the_shortest_time() {
        let mut upstreams = servers(Strategy::Fastest);
        upstreams.answered(0, 50);
        upstreams.answered(1, 5);
        assert_eq!(upstreams.pick(0, 0, NOW), Some(1));
    }

    #[test]
    fn the_retry_time_follows_the_usual_time() {
        let mut upstreams = servers(Strategy::Ordered);
        assert_eq!(upstreams.get(0).expect("there").retry_ms(), RETRY_FIRST_MS);
        for _ in 0..50 {
            upstreams.answered(0, 100);
        }
        let settled = upstreams.get(0).expect("there").retry_ms();
        assert!((100..150).contains(&settled), "{settled}");
    }

    #[test]
    fn a_new_configuration_keeps_what_is_known() {
        let mut upstreams = servers(Strategy::Ordered);
        upstreams.answered(1, 20);
        let kept = upstreams.get(1).expect("there").config;
        upstreams
            .configure(&[kept], Strategy::Ordered)
            .expect("fits");
        assert_eq!(upstreams.get(0).expect("there").srtt_ms(), Some(20));
    }
}
