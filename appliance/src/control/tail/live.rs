//! What happens now, put together by who looks: rates of counters, and what the tap has shown in the last ten seconds or so.

use std::collections::HashMap;
use std::time::Duration;

use super::reader::SeenEntry;
use super::show::{self, ShownQuestion};
use crate::compile::name;
use crate::control::presentation::type_text;
use crate::control::summary::Sums;
use crate::store::tap::entry::TapKind;

/// What is left of a count after a second.
const FADING: f64 = 0.9;
/// Keys of a table. Full: what is asked for least gives way.
const KEYS_MAX: usize = 4096;

/// Where queries are answered, with what counts them: the XDP program, and the ways to user space.
pub const WAYS: [(&str, &str); 4] = [
    ("XDP program", "answered"),
    ("AF_XDP", "queries_xdp"),
    ("UDP", "queries_udp"),
    ("TCP", "queries_tcp"),
];

/// How often keys were seen, fading.
#[derive(Debug, Default)]
pub struct FadingCounts {
    counts: HashMap<String, f64>,
    /// Seconds that are over.
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

    /// The most, with how often they are seen in a second.
    #[must_use]
    pub fn most(&self, rows: usize) -> Vec<(&str, f64)> {
        // As many seconds as there were, each with what is left of it.
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

/// What happens now.
#[derive(Debug, Default)]
pub struct LiveRates {
    /// Names and types.
    pub names: FadingCounts,
    /// Clients.
    pub clients: FadingCounts,
    /// Who says so.
    pub reasons: FadingCounts,
    /// Codes of answers.
    pub codes: FadingCounts,
    /// Entries that had no room.
    pub lost: u64,
    earlier: String,
    later: String,
    elapsed: Duration,
}

/// Rates of the last look: in a second, and shares of 1 where there is a whole.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Queries by [`WAYS`].
    pub ways: [f64; WAYS.len()],
    /// All of them.
    pub queries: f64,
    /// What the cache and the XDP program had of what was looked up.
    pub hits: Option<f64>,
    /// What lists withhold of queries.
    pub blocked: Option<f64>,
    /// SERVFAIL.
    pub servfail: f64,
}

impl LiveRates {
    /// Counts one that was answered, or gets no answer.
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

    /// Counters as they stand, so long after the last look at them.
    pub fn count(&mut self, stats: String, elapsed: Duration) {
        self.earlier = std::mem::replace(&mut self.later, stats);
        self.elapsed = elapsed;
    }

    /// A second is over.
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

    /// Rates between the last two looks at the counters.
    #[must_use]
    pub fn rates(&self) -> Rates {
        let (earlier, later) = (Sums::of(&self.earlier), Sums::of(&self.later));
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
