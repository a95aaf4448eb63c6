//! Counters as `xdnsd stats` shows them: totals of queries and answers, and current rates.
//!
//! Made by the client from Prometheus' text: the daemon keeps no earlier reading for it.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

/// A row: its title, and its metrics without prefix and suffix.
type Row = (&'static str, &'static [&'static str]);

/// What the XDP program answers, which no worker counts.
const BY_XDP: &str = "answered";

const QUERIES: &[&str] = &[BY_XDP, "queries_xdp", "queries_udp", "queries_tcp"];
const ANSWERS: &[&str] = &[BY_XDP, "answers_xdp", "answers_udp", "answers_tcp"];
const HITS: &[&str] = &[BY_XDP, "cache_hits", "cache_stale"];
const LOOKED_UP: &[&str] = &[BY_XDP, "cache_hits", "cache_stale", "cache_misses"];

const SLIPPED: &[&str] = &[
    "rate_queries_slipped",
    "rate_misses_slipped",
    "rate_slipped",
];
const RATE_DROPPED: &[&str] = &["rate_queries_dropped", "rate_misses_dropped", "drop_rate"];

const SCREENED: &[&str] = &["bogus_nxdomain", "family_withheld"];
const NO_ROOM: &[&str] = &[
    "pending_full",
    "zone_full",
    "group_full",
    "waiters_full",
    "aliases_full",
    "share_full",
];

const ROWS: &[Row] = &[
    ("queries", QUERIES),
    ("  in the XDP program", &[BY_XDP]),
    ("  over AF_XDP", &["queries_xdp"]),
    ("  over UDP", &["queries_udp"]),
    ("  over TCP", &["queries_tcp"]),
    ("answers", ANSWERS),
    ("  from the cache", &[BY_XDP, "cache_hits"]),
    ("  from the cache, stale", &["cache_stale"]),
    ("  local data, special names", &["local_answers"]),
    ("  blocked", &["blocked"]),
    ("  withheld: private address", &["rebind_withheld"]),
    ("  withheld: other addresses", SCREENED),
    ("  with addresses made by DNS64", &["dns64_answers"]),
    ("  REFUSED", &["refused_given"]),
    ("  SERVFAIL", &["servfail_given"]),
    ("not in the cache", &["cache_misses"]),
    (
        "  while somebody asked already",
        &["coalesced", "asked_elsewhere"],
    ),
    ("asked upstream", &["upstream_queries"]),
    ("  over TCP", &["upstream_tcp"]),
    ("  no answer in time", &["upstream_timeouts"]),
    ("  not reachable", &["upstream_unreachable"]),
    ("  answered too late", &["upstream_late"]),
    ("  answers that are forged", &["upstream_forged"]),
    ("  unmatched answers", &["upstream_unmatched"]),
    ("no room for a question", NO_ROOM),
    ("clients without an answer", &["acl_dropped", "drop_access"]),
    ("over the limit: sent to TCP", SLIPPED),
    ("  dropped", RATE_DROPPED),
];

/// Rows of each view, below its name.
const VIEW_ROWS: &[(&str, &str)] = &[
    ("  from the cache", "view_cached"),
    ("  blocked", "view_blocked"),
];
/// What the name of a view stands for.
const VIEW_QUERIES: &str = "view_queries";

/// Counters by name, summed over their labels, and those of views.
#[derive(Debug)]
pub struct CounterSums<'t> {
    sums: HashMap<&'t str, u64>,
    /// By name and view.
    of_views: HashMap<(&'t str, &'t str), u64>,
    /// Names of views, as they came.
    views: Vec<&'t str>,
}

impl<'t> CounterSums<'t> {
    /// Parses Prometheus' text.
    #[must_use]
    pub fn of(text: &'t str) -> Self {
        let (mut sums, mut of_views) = (HashMap::new(), HashMap::new());
        let mut views = Vec::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else {
                continue;
            };
            let name = series.split('{').next().unwrap_or_default();
            let name = name.strip_prefix("xdnsd_").unwrap_or(name);
            let mut name = name.strip_suffix("_total").unwrap_or(name);
            // All counts of frames have one name; their reason is a label.
            if name == "xdp_frames" {
                name = label(series, "reason=\"").unwrap_or(name);
            }
            let value = value.parse().unwrap_or(0);
            *sums.entry(name).or_insert(0) += value;
            if let Some(view) = label(series, "view=\"") {
                of_views.insert((name, view), value);
                if name == VIEW_QUERIES {
                    views.push(view);
                }
            }
        }
        Self {
            sums,
            of_views,
            views,
        }
    }

    /// A counter of a view.
    fn of_view(&self, name: &str, view: &str) -> u64 {
        self.of_views.get(&(name, view)).copied().unwrap_or(0)
    }

    /// Sum of these counters.
    #[must_use]
    pub fn sum(&self, names: &[&str]) -> u64 {
        let values = names.iter().filter_map(|name| self.sums.get(name));
        values.sum()
    }
}

/// Value of a label, which is given with `="`.
fn label<'t>(series: &'t str, name: &str) -> Option<&'t str> {
    let (_, behind) = series.split_once(name)?;
    Some(behind.split_once('"')?.0)
}

/// Table of two readings that are `elapsed` apart.
#[must_use]
pub fn table(earlier: &CounterSums<'_>, later: &CounterSums<'_>, elapsed: Duration) -> String {
    let mut out = format!("{:<32}{:>16}{:>14}\n", "", "in all", "per second");
    let moved = |names| later.sum(names).saturating_sub(earlier.sum(names));
    let mut row = |what: &str, before: u64, now: u64| {
        let rate = now.saturating_sub(before) as f64 / elapsed.as_secs_f64().max(0.001);
        // Writing to a `String` cannot fail.
        let _ = writeln!(out, "{what:<32}{now:>16}{rate:>14.1}");
    };
    for (what, names) in ROWS {
        row(what, earlier.sum(names), later.sum(names));
    }
    for view in &later.views {
        let mut of =
            |what: &str, name| row(what, earlier.of_view(name, view), later.of_view(name, view));
        of(&format!("view {view}"), VIEW_QUERIES);
        VIEW_ROWS.iter().for_each(|(what, name)| of(what, name));
    }
    let all = percent(later.sum(HITS), later.sum(LOOKED_UP));
    let now = percent(moved(HITS), moved(LOOKED_UP));
    let _ = writeln!(out, "{:<32}{all:>16}{now:>14}", "hit ratio of the cache");
    if later.sum(&["lists_paused"]) > 0 {
        out += "lists are paused\n";
    }
    out
}

fn percent(part: u64, whole: u64) -> String {
    match whole {
        0 => "-".into(),
        whole => format!("{:.1} %", part as f64 * 100.0 / whole as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::metrics::Reading;
    use xdnsd_abi::Reason;
    use xdnsd_core::counters::Counter;

    const EARLIER: &str = "# HELP xdnsd_queries_udp_total Queries\n\
        xdnsd_queries_udp_total{interface=\"a b\",queue=\"kernel\"} 5\n\
        xdnsd_queries_udp_total{interface=\"c\",queue=\"kernel\"} 6\n\
        xdnsd_cache_hits_total{worker=\"0\"} 4\nxdnsd_cache_misses_total{worker=\"0\"} 4\n";
    const LATER: &str = "xdnsd_queries_udp_total{interface=\"a b\",queue=\"kernel\"} 15\n\
        xdnsd_queries_udp_total{interface=\"c\",queue=\"kernel\"} 7\n\
        xdnsd_queries_xdp_total 2\n\
        xdnsd_cache_hits_total{worker=\"0\"} 10\nxdnsd_cache_stale_total{worker=\"0\"} 3\n\
        xdnsd_rate_queries_dropped_total{worker=\"0\"} 3\n\
        xdnsd_xdp_frames_total{interface=\"lan0\",cpu=\"0\",reason=\"drop_rate\"} 5\n\
        xdnsd_xdp_frames_total{interface=\"lan0\",cpu=\"0\",reason=\"redirected\"} 9\n\
        xdnsd_xdp_frames_total{interface=\"lan0\",cpu=\"0\",reason=\"answered\"} 40\n\
        xdnsd_xdp_frames_total{interface=\"lan1\",cpu=\"1\",reason=\"answered\"} 2\n\
        xdnsd_cache_misses_total{worker=\"0\"} 5\n";

    #[test]
    fn rows_add_up_and_rates_are_of_the_time_between() {
        let table = table(
            &CounterSums::of(EARLIER),
            &CounterSums::of(LATER),
            Duration::from_secs(2),
        );
        let row = |what: &str| {
            let line = table.lines().find_map(|line| line.strip_prefix(what));
            let cells: Vec<_> = line
                .unwrap_or_default()
                .split("  ")
                .map(str::trim)
                .collect();
            let cells = cells.into_iter().filter(|cell| !cell.is_empty());
            cells.map(str::to_owned).collect::<Vec<_>>()
        };
        for (what, all, now) in [
            ("queries", "66", "27.5"),
            ("  in the XDP program", "42", "21.0"),
            ("  over AF_XDP", "2", "1.0"),
            ("  over UDP", "22", "5.5"),
            ("  from the cache  ", "52", "24.0"),
            ("  from the cache, stale", "3", "1.5"),
            ("not in the cache", "5", "0.5"),
            ("over the limit: sent to TCP", "0", "0.0"),
            ("  dropped", "8", "4.0"),
            ("blocked", "", ""),
            ("  blocked", "0", "0.0"),
            ("hit ratio of the cache", "91.7 %", "98.1 %"),
        ] {
            let cells: Vec<&str> = [all, now]
                .into_iter()
                .filter(|cell| !cell.is_empty())
                .collect();
            assert_eq!(row(what), cells, "{what}\n{table}");
        }
        for view in ["default", "guests"] {
            assert!(!table.contains(view), "{table}");
        }
        let views = "xdnsd_view_queries_total{view=\"default\"} 9\n\
            xdnsd_view_queries_total{view=\"guests\"} 8\nxdnsd_view_cached_total{view=\"guests\"} 5\n\
            xdnsd_view_blocked_total{view=\"guests\"} 2\n";
        let none = CounterSums::of("");
        let views = super::table(&none, &CounterSums::of(views), Duration::from_secs(1));
        let words: Vec<&str> = views.split_whitespace().collect();
        let words = words.join(" ");
        let rows = "view default 9 9.0 from the cache 0 0.0 blocked 0 0.0 view guests 8 8.0 from the cache 5 5.0 blocked 2 2.0";
        assert!(words.contains(rows), "{views}");
        let paused = CounterSums::of("xdnsd_lists_paused 1\n");
        let paused = super::table(&paused, &paused, Duration::ZERO);
        assert!(paused.ends_with("\nlists are paused\n"), "{paused}");
        let none = super::table(&CounterSums::of(""), &CounterSums::of(""), Duration::ZERO);
        assert!(none.ends_with("               -             -\n"), "{none}");
    }

    #[test]
    fn every_row_is_of_counters_that_there_are() {
        let counters = Counter::ALL.iter().map(|counter| counter.name());
        let reasons = Reason::ALL.iter().map(|reason| reason.name());
        let names: Vec<&str> = counters.chain(reasons).collect();
        for name in ROWS.iter().flat_map(|(_, names)| *names) {
            assert!(names.contains(name), "{name}");
        }
        let text = Reading::default().prometheus();
        assert_eq!(CounterSums::of(&text).sum(QUERIES), 0);
    }
}
