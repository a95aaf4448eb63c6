//! `xdnsd top`: current activity on one screen: rates by path, hit ratio, and the most frequent names, clients and reasons.
//!
//! Rates are from counters and exact; names, clients and reasons are from the tap, over about ten seconds. Answers of the XDP
//! program are in the rates alone.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::termios::tcgetwinsize;

use super::live::{LiveRates, Rates, WAYS};
use super::reader::TapReader;
use super::{TailEnd, TailEvent, failed, signals, wait};
use crate::control::socket;
use crate::store::tap::entry::wanted;
use crate::store::tap::ring::RingLayout;
use crate::text;

/// Time between two screens.
const SCREEN: Duration = Duration::from_secs(1);
/// Time between two looks at the rings.
const LOOK: Duration = Duration::from_millis(20);
/// Columns and rows if the terminal does not say.
const SIZE: (usize, usize) = (100, 30);
/// Moves the cursor to the top and clears the screen below it.
const CLEAR: &str = "\x1b[H\x1b[J";
/// Lines outside of the tables: three above, and two between.
const OTHER_LINES: usize = 7;
/// Minimum rows of a table.
const ROWS_MIN: usize = 3;
/// Columns of the rate after each key, with the space between.
const RATE: usize = 10;
/// Columns of the keys except names, which get the rest.
const KEYS: [usize; 3] = [28, 14, 10];
const NAME_MIN: usize = 20;

/// Shows the daemon at `socket` until a signal comes; with `is_once` a single screen, after a second.
///
/// # Errors
/// No daemon answers there, or the daemon ends; in words.
pub fn run(socket: &Path, is_once: bool, out: &mut dyn Write) -> Result<(), String> {
    let signals = signals().map_err(|error| format!("signals: {error}"))?;
    let is_terminal = std::io::stdout().is_terminal();
    let reader = TapReader::attach(socket, wanted::ANSWERS, RingLayout::QUESTIONS);
    let mut reader = reader.map_err(|error| error.to_string())?;
    let mut live = LiveRates::default();
    live.count(ask(socket, "stats")?, SCREEN);
    let mut since = Instant::now();
    loop {
        match wait(&reader, &signals, LOOK) {
            TailEvent::Nothing => {}
            TailEvent::Signal => return Ok(()),
            TailEvent::DaemonLeft => return Err("xdnsd has ended".into()),
        }
        reader.read().iter().for_each(|seen| live.take(seen));
        if since.elapsed() < SCREEN {
            continue;
        }
        live.lost += reader.newly_lost();
        live.count(ask(socket, "stats")?, since.elapsed());
        since = Instant::now();
        let upstreams = ask(socket, "upstreams")?;
        let lead = if is_terminal && !is_once { CLEAR } else { "" };
        let shown = screen(&live, &upstreams, size(is_terminal));
        let written = write!(out, "{lead}{shown}").and_then(|()| out.flush());
        match failed(None, written) {
            Err(TailEnd::ReaderLeft) => return Ok(()),
            Err(TailEnd::Failed(problem)) => return Err(problem),
            Ok(()) if is_once => return Ok(()),
            Ok(()) => live.fade(),
        }
    }
}

/// Answer of a daemon to a request.
///
/// # Errors
/// In words.
pub fn ask(path: &Path, request: &str) -> Result<String, String> {
    let mut answer = Vec::new();
    let asked = socket::ask(path, request, &mut answer);
    asked.map_err(|error| error.to_string())?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Columns and rows of the terminal.
fn size(is_terminal: bool) -> (usize, usize) {
    let size = tcgetwinsize(std::io::stdout().as_fd()).ok();
    let size = size.filter(|size| is_terminal && size.ws_col > 0 && size.ws_row > 0);
    size.map_or(SIZE, |size| (size.ws_col.into(), size.ws_row.into()))
}

/// The text of a screen.
fn screen(live: &LiveRates, upstreams: &str, (columns, rows): (usize, usize)) -> String {
    let Rates {
        ways,
        queries,
        hits,
        blocked,
        servfail,
    } = live.rates();
    let percent = |share: Option<f64>| {
        share.map_or_else(|| "-".into(), |share| format!("{:.1} %", share * 100.0))
    };
    let mut out = format!(
        "{queries:.0} queries/s  hits {}  blocked {}  SERVFAIL {servfail:.0}/s",
        percent(hits),
        percent(blocked),
    );
    if live.lost > 0 {
        // Writing to a `String` cannot fail, here and below.
        let _ = write!(out, "  ({} not seen one by one)", live.lost);
    }
    let ways = WAYS.iter().zip(ways);
    let ways: Vec<String> = ways
        .map(|((word, _), rate)| format!("{word} {rate:.0}/s"))
        .collect();
    let _ = write!(out, "\n{}\n\n", ways.join("  "));
    let upstreams: Vec<&str> = upstreams.lines().collect();
    let left = rows.saturating_sub(upstreams.len() + OTHER_LINES);
    tables(live, &mut out, columns, left.max(ROWS_MIN));
    out.push('\n');
    for line in upstreams {
        let _ = writeln!(out, "{line}");
    }
    cut(&out, columns, rows)
}

fn tables(live: &LiveRates, out: &mut String, columns: usize, rows: usize) {
    let others: usize = KEYS.iter().map(|width| width + RATE).sum();
    let name = columns.saturating_sub(others + RATE).max(NAME_MIN);
    let tables = [
        ("name", name, live.names.most(rows)),
        ("client", KEYS[0], live.clients.most(rows)),
        ("source", KEYS[1], live.reasons.most(rows)),
        ("code", KEYS[2], live.codes.most(rows)),
    ];
    for (head, width, _) in &tables {
        let _ = write!(out, "{head:<width$}{:>8}  ", "/s");
    }
    out.push('\n');
    let longest = tables.iter().map(|(_, _, rows)| rows.len()).max();
    for row in 0..longest.unwrap_or(0) {
        let mut line = String::new();
        for (_, width, rows) in &tables {
            let cell = rows.get(row).map(|(key, rate)| {
                let key: String = text::line(key).chars().take(width - 1).collect();
                format!("{key:<width$}{rate:>8.1}  ")
            });
            line += &cell.unwrap_or_else(|| " ".repeat(width + RATE));
        }
        let _ = writeln!(out, "{}", line.trim_end());
    }
}

/// Truncates to the screen: a longer line would take two.
fn cut(text: &str, columns: usize, rows: usize) -> String {
    let mut out = String::new();
    for line in text.lines().take(rows.saturating_sub(1)) {
        out.extend(line.trim_end().chars().take(columns));
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::show::tests::seen;
    use super::*;
    use crate::store::tap::entry::{AnswerReason, TapKind};

    #[test]
    fn a_screen_has_rates_and_what_is_seen_most() {
        let mut live = LiveRates::default();
        let stats = |queries: u64, hits: u64, more: &str| {
            format!("xdnsd_queries_xdp_total {queries}\nxdnsd_cache_hits_total {hits}\n{more}")
        };
        live.count(stats(10, 5, ""), Duration::ZERO);
        let more = "xdnsd_cache_misses_total 10\nxdnsd_xdp_frames_total{reason=\"answered\"} 200\nxdnsd_blocked_total 30\n";
        live.count(stats(110, 95, more), Duration::from_secs(2));
        for _ in 0..20 {
            live.take(&seen(TapKind::Answer, AnswerReason::Cache));
        }
        live.take(&seen(TapKind::Answer, AnswerReason::Blocked));
        live.take(&seen(TapKind::Waiting, AnswerReason::Waiting));
        let text = screen(&live, "group server state\n", (120, 30));
        let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        for part in [
            "150 queries/s  hits 96.7 %  blocked 10.0 %  SERVFAIL 0/s\n",
            "XDP program 100/s  AF_XDP 50/s  UDP 0/s  TCP 0/s\n",
            "www.example. AAAA 21.0 10.0.0.7 21.0 cache 20.0 NXDOMAIN 21.0",
            "blocked 1.0",
            "group server state",
        ] {
            let part = squeezed(part);
            assert!(squeezed(&text).contains(&part), "{part} in {text}");
        }
        assert!(!text.contains("waiting"), "{text}");
        let narrow = screen(&live, "", (20, 5));
        assert_eq!(narrow.lines().count(), 4);
        assert!(narrow.lines().all(|line| line.len() <= 20), "{narrow}");
    }
}
