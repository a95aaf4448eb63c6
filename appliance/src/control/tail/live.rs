//! Current activity, computed by the reader: rates of counters, and entries of the tap over about ten seconds.

use std::collections::HashMap;
use std::time::Duration;

use super::reader::SeenEntry;
use super::show::{self, ShownQuestion};
use crate::compile::name;
use crate::control::presentation::type_text;
use crate::control::summary::CounterSums;
use crate::store::tap::entry::TapKind;

/// Part of a count that is left after a second.
const FADING: f64 = 0.9;
/// Maximum number of keys in a table. When full, keys seen about once are dropped; if that frees none, the new key is not
/// counted.
const KEYS_MAX: usize = 4096;

/// Paths on which queries are answered, with their counters: the XDP program, and the ways to user space.
pub const WAYS: [(&str, &str); 4] = [
    ("XDP program", "answered"),
    ("AF_XDP", "queries_xdp"),
    ("UDP", "queries_udp"),
    ("TCP", "queries_tcp"),
];

/// Counts of keys that decay over time.
#[derive(Debug, Default)]
pub struct FadingCounts {
    counts: HashMap<String, f64>,
    /// Number of seconds so far.
    age: i32,
}

impl FadingCounts {
    fn count(&mut self, key: String) {
        let counts = &mut self.counts;
        if counts.len() >= KEYS_MAX && !counts.contains_key(&key) {
            counts.retain(|_, count| *count > 1.0);
            if counts.len() >= KEYS_MAX {
                return;
            }
        }
        *counts.entry(key).or_insert(0.0) += 1.0;
    }

    fn fade(&mut self) {
        self.age = self.age.saturating_add(1);
        self.counts.retain(|_, count| {
            *count *= FADING;
            *count > 0.05
        });
    }

    /// Most frequent keys with their rates per second.
    #[must_use]
    pub fn most(&self, rows: usize) -> Vec<(&str, f64)> {
        // Sum of the weights of all seconds so far.
        let seconds = (1.0 - FADING.powi(self.age.saturating_add(1))) / (1.0 - FADING);
        let mut all: Vec<(&str, f64)> = Vec::new();
        for (key, count) in &self.counts {
            all.push((key, count / seconds));
        }
        all.sort_by(|one, other| other.1.total_cmp(&one.1).then(one.0.cmp(other.0)));
        all.truncate(rows);
        all
    }
}

/// Current activity.
#[derive(Debug, Default)]
pub struct LiveRates {
    /// Names with their types.
    pub names: FadingCounts,
    /// Clients.
    pub clients: FadingCounts,
    /// Reasons of answers.
    pub reasons: FadingCounts,
    /// Response codes.
    pub codes: FadingCounts,
    /// Entries that were lost because a ring was full.
    pub lost: u64,
    earlier: String,
    later: String,
    elapsed: Duration,
}

/// Rates of the last interval: per second, or ratios from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Queries by [`WAYS`].
    pub ways: [f64; WAYS.len()],
    /// All queries.
    pub queries: f64,
    /// Ratio of lookups that the cache and the XDP program answered.
    pub hits: Option<f64>,
    /// Ratio of queries that lists block.
    pub blocked: Option<f64>,
    /// SERVFAIL responses.
    pub servfail: f64,
}

impl LiveRates {
    /// Counts an entry if it is an answer, or a query without one.
    pub fn take(&mut self, seen: &SeenEntry) {
        if !matches!(
            seen.entry.kind,
            TapKind::Answer | TapKind::Late | TapKind::Silence
        ) {
            return;
        }
        if let Some(asked) = ShownQuestion::of(&seen.bytes) {
            let name = name::display(asked.name.to_lower().as_wire());
            let qtype = type_text(asked.qtype);
            self.names.count(format!("{name} {qtype}"));
        }
        self.clients.count(seen.entry.client.ip().to_string());
        self.reasons.count(seen.entry.why.word().to_owned());
        self.codes.count(show::rcode(seen));
    }

    /// Takes the current counters; `elapsed` is the time since the last ones.
    pub fn count(&mut self, stats: String, elapsed: Duration) {
        self.earlier = std::mem::replace(&mut self.later, stats);
        self.elapsed = elapsed;
    }

    /// Decays the counts, once a second.
    pub fn fade(&mut self) {
        let Self {
            names,
            clients,
            reasons,
            codes,
            ..
        } = self;
        for tally in [names, clients, reasons, codes] {
            tally.fade();
        }
    }

    /// Rates between the last two readings of the counters.
    #[must_use]
    pub fn rates(&self) -> Rates {
        let (earlier, later) = (CounterSums::of(&self.earlier), CounterSums::of(&self.later));
        let rate = |names: &[&str]| {
            let moved = later.sum(names).saturating_sub(earlier.sum(names));
            moved as f64 / self.elapsed.as_secs_f64().max(0.001)
        };
        let share = |part: f64, whole: f64| (whole > 0.0).then(|| part / whole);
        let ways = WAYS.map(|(_, name)| rate(&[name]));
        let queries = ways.iter().sum();
        let hits = rate(&["cache_hits", "cache_stale", "answered"]);
        Rates {
            ways,
            queries,
            hits: share(hits, hits + rate(&["cache_misses"])),
            blocked: share(rate(&["blocked"]), queries),
            servfail: rate(&["servfail_given"]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the first second on, and after many.
    #[test]
    fn a_rate_is_what_it_is_however_long_it_lasts() {
        let mut tally = FadingCounts::default();
        for second in 0..60 {
            if second > 0 {
                tally.fade();
            }
            (0..7).for_each(|_| tally.count("a".into()));
            let rate = tally.most(1)[0].1;
            assert!((rate - 7.0).abs() < 0.001, "second {second}: {rate}");
        }
    }

    #[test]
    fn a_tally_fades_and_has_bounds() {
        let mut tally = FadingCounts::default();
        for number in 0..2 * KEYS_MAX {
            tally.count(number.to_string());
            tally.count("often".into());
        }
        assert_eq!(tally.most(1)[0].0, "often");
        assert!(tally.counts.len() <= KEYS_MAX);
        for _ in 0..200 {
            tally.fade();
        }
        assert!(tally.counts.is_empty(), "{tally:?}");
    }
}
