//! `xdnsd top`: what happens now, on one screen: rates by way in, hit ratio, what is asked for most, by whom, who says so.
//!
//! Rates are of the counters, so they are exact; names, clients and reasons are of the tap, over about ten seconds. What the XDP
//! program answers by itself is in the rates alone.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::termios::tcgetwinsize;

use super::reader::{Reader, Seen};
use super::show::Asked;
use super::{End, Event, failed, signals, wait};
use crate::compile::name;
use crate::control::presentation::type_text;
use crate::control::socket;
use crate::control::summary::Sums;
use crate::store::tap::entry::{Kind, wanted};
use crate::store::tap::ring::Shape;
use crate::text;

/// The time between two screens.
const SCREEN: Duration = Duration::from_secs(1);
/// The time between two looks at the rings.
const LOOK: Duration = Duration::from_millis(20);
/// What is left of a count after a second.
const FADING: f64 = 0.9;
/// Keys of a table. Full: what is asked for least gives way.
const KEYS_MAX: usize = 4096;
/// Columns and rows where nobody says how many there are.
const SIZE: (usize, usize) = (100, 30);
/// The cursor to the top, and what is below it away.
const CLEAR: &str = "\x1b[H\x1b[J";

const WAYS: [(&str, &str); 4] = [
    ("XDP program", "answered"),
    ("AF_XDP", "queries_xdp"),
    ("UDP", "queries_udp"),
    ("TCP", "queries_tcp"),
];

/// How often keys were seen, fading.
#[derive(Debug, Default)]
struct Tally(HashMap<String, f64>);

impl Tally {
    fn count(&mut self, key: String) {
        if self.0.len() >= KEYS_MAX && !self.0.contains_key(&key) {
            self.0.retain(|_, count| *count > 1.0);
            if self.0.len() >= KEYS_MAX {
                return;
            }
        }
        *self.0.entry(key).or_insert(0.0) += 1.0;
    }

    fn fade(&mut self) {
        self.0.retain(|_, count| {
            *count *= FADING;
            *count > 0.05
        });
    }

    /// The most, with their rates.
    fn most(&self, rows: usize) -> Vec<(&str, f64)> {
        let mut all: Vec<(&str, f64)> = self
            .0
            .iter()
            .map(|(key, count)| (key.as_str(), count * (1.0 - FADING)))
            .collect();
        all.sort_by(|one, other| other.1.total_cmp(&one.1).then(one.0.cmp(other.0)));
        all.truncate(rows);
        all
    }
}

/// What the screen shows.
#[derive(Debug, Default)]
struct Screen {
    names: Tally,
    clients: Tally,
    reasons: Tally,
    codes: Tally,
    upstreams: String,
    earlier: String,
    later: String,
    elapsed: Duration,
    lost: u64,
}

impl Screen {
    fn take(&mut self, seen: &Seen) {
        if !matches!(seen.entry.kind, Kind::Answer | Kind::Late | Kind::Silence) {
            return;
        }
        if let Some(asked) = Asked::of(&seen.bytes) {
            let name = name::display(asked.name.to_lower().as_wire());
            self.names
                .count(format!("{name} {}", type_text(asked.qtype)));
        }
        self.clients.count(seen.entry.client.ip().to_string());
        self.reasons.count(seen.entry.why.word().to_owned());
        self.codes.count(super::show::rcode(seen));
    }

    fn fade(&mut self) {
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

    /// The text of it.
    fn text(&self, (columns, rows): (usize, usize)) -> String {
        let (earlier, later) = (Sums::of(&self.earlier), Sums::of(&self.later));
        let rate = |names: &[&str]| {
            let moved = later.sum(names).saturating_sub(earlier.sum(names));
            moved as f64 / self.elapsed.as_secs_f64().max(0.001)
        };
        let queries: f64 = WAYS.iter().map(|(_, name)| rate(&[name])).sum();
        let hits = rate(&["cache_hits", "cache_stale", "answered"]);
        let looked_up = hits + rate(&["cache_misses"]);
        let share = |part: f64, whole: f64| match whole > 0.0 {
            true => format!("{:.1} %", part * 100.0 / whole),
            false => "-".to_owned(),
        };
        let mut out = format!(
            "{queries:.0} queries/s  hits {}  blocked {}  SERVFAIL {:.0}/s",
            share(hits, looked_up),
            share(rate(&["blocked"]), queries),
            rate(&["servfail_given"]),
        );
        if self.lost > 0 {
            let _ = write!(out, "  ({} not seen one by one)", self.lost);
        }
        out += "\n";
        let ways = WAYS.map(|(word, name)| format!("{word} {:.0}/s", rate(&[name])));
        let _ = writeln!(out, "{}\n", ways.join("  "));
        let upstreams: Vec<&str> = self.upstreams.lines().collect();
        let left = rows.saturating_sub(upstreams.len() + 7).max(3);
        self.tables(&mut out, columns, left);
        out += "\n";
        for line in upstreams {
            let _ = writeln!(out, "{line}");
        }
        cut(&out, columns, rows)
    }

    fn tables(&self, out: &mut String, columns: usize, rows: usize) {
        let tables = [
            ("name", self.names.most(rows)),
            ("client", self.clients.most(rows)),
            ("who says so", self.reasons.most(rows)),
            ("code", self.codes.most(rows)),
        ];
        // The first has what the others leave.
        let name = columns.saturating_sub(3 * 10 + 28 + 14 + 10 + 8).max(20);
        let widths = [name, 28, 14, 10];
        for (index, (head, _)) in tables.iter().enumerate() {
            let _ = write!(out, "{head:<width$}{:>8}  ", "/s", width = widths[index]);
        }
        out.push('\n');
        let longest = tables.iter().map(|(_, rows)| rows.len()).max();
        for row in 0..longest.unwrap_or(0) {
            let mut line = String::new();
            for (index, (_, rows)) in tables.iter().enumerate() {
                let width = widths[index];
                let cell = rows.get(row).map(|(key, rate)| {
                    let key: String = text::line(key).chars().take(width - 1).collect();
                    format!("{key:<width$}{rate:>8.1}  ")
                });
                line += &cell.unwrap_or_else(|| " ".repeat(width + 10));
            }
            let _ = writeln!(out, "{}", line.trim_end());
        }
    }
}

/// As much of it as a screen has room for: a line too long would take two.
fn cut(text: &str, columns: usize, rows: usize) -> String {
    let mut out = String::new();
    for line in text.lines().take(rows.saturating_sub(1)) {
        out.extend(line.trim_end().chars().take(columns));
        out.push('\n');
    }
    out
}

/// Shows the daemon at `socket` until a signal comes; `is_once`: one screen, of a second.
///
/// # Errors
/// Nobody answers there or it ends; in words.
pub fn run(socket: &Path, is_once: bool, out: &mut dyn Write) -> Result<(), String> {
    let signals = signals().map_err(|error| format!("signals: {error}"))?;
    let is_terminal = std::io::stdout().is_terminal();
    let reader = Reader::attach(socket, wanted::ANSWERS, Shape::QUESTIONS);
    let mut reader = reader.map_err(|error| error.to_string())?;
    let mut screen = Screen {
        later: ask(socket, "stats")?,
        ..Screen::default()
    };
    let mut since = Instant::now();
    loop {
        match wait(&reader, &signals, LOOK) {
            Event::Nothing => {}
            Event::Signal => return Ok(()),
            Event::DaemonLeft => return Err("xdnsd has ended".into()),
        }
        reader.read().iter().for_each(|seen| screen.take(seen));
        if since.elapsed() < SCREEN {
            continue;
        }
        screen.lost += reader.newly_lost();
        screen.earlier = std::mem::replace(&mut screen.later, ask(socket, "stats")?);
        screen.upstreams = ask(socket, "upstreams")?;
        (screen.elapsed, since) = (since.elapsed(), Instant::now());
        let lead = if is_terminal && !is_once { CLEAR } else { "" };
        let shown = screen.text(size(is_terminal));
        let written = write!(out, "{lead}{shown}").and_then(|()| out.flush());
        match failed(None, written) {
            Err(End::ReaderLeft) => return Ok(()),
            Err(End::Failed(problem)) => return Err(problem),
            Ok(()) if is_once => return Ok(()),
            Ok(()) => screen.fade(),
        }
    }
}

fn ask(path: &Path, request: &str) -> Result<String, String> {
    let mut answer = Vec::new();
    let asked = socket::ask(path, request, &mut answer);
    asked.map_err(|error| error.to_string())?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Columns and rows.
fn size(is_terminal: bool) -> (usize, usize) {
    let size = tcgetwinsize(std::io::stdout().as_fd()).ok();
    let size = size.filter(|size| is_terminal && size.ws_col > 0 && size.ws_row > 0);
    size.map_or(SIZE, |size| (size.ws_col.into(), size.ws_row.into()))
}

#[cfg(test)]
mod tests {
    use super::super::show::tests::seen;
    use super::*;
    use crate::store::tap::entry::Why;

    #[test]
    fn a_screen_has_rates_and_what_is_seen_most() {
        let mut screen = Screen {
            earlier: "xdnsd_queries_xdp_total 10\nxdnsd_cache_hits_total 5\n".into(),
            later: "xdnsd_queries_xdp_total 110\nxdnsd_cache_hits_total 95\nxdnsd_cache_misses_total 10\n\
                xdnsd_xdp_frames_total{reason=\"answered\"} 200\nxdnsd_blocked_total 30\n"
                .into(),
            elapsed: Duration::from_secs(2),
            upstreams: "group server state\n".into(),
            ..Screen::default()
        };
        for _ in 0..20 {
            screen.take(&seen(Kind::Answer, Why::Cache));
        }
        screen.take(&seen(Kind::Answer, Why::Blocked));
        screen.take(&seen(Kind::Waiting, Why::Waiting));
        let text = screen.text((120, 30));
        for part in [
            "150 queries/s  hits 96.7 %  blocked 10.0 %  SERVFAIL 0/s\n",
            "XDP program 100/s  AF_XDP 50/s  UDP 0/s  TCP 0/s\n",
            "www.example. AAAA ",
            "10.0.0.7 ",
            "cache              2.0",
            "NXDOMAIN       2.1\n",
            "\nblocked            0.1",
            "group server state",
        ] {
            let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(
                squeezed(&text).contains(&squeezed(part)),
                "{part} in {text}"
            );
        }
        assert!(!text.contains("waiting"), "{text}");
        let narrow = screen.text((20, 5));
        assert_eq!(narrow.lines().count(), 4);
        assert!(narrow.lines().all(|line| line.len() <= 20), "{narrow}");
    }

    #[test]
    fn a_tally_fades_and_has_bounds() {
        let mut tally = Tally::default();
        for number in 0..2 * KEYS_MAX {
            tally.count(number.to_string());
            tally.count("often".into());
        }
        assert_eq!(tally.most(1)[0].0, "often");
        assert!(tally.0.len() <= KEYS_MAX);
        for _ in 0..200 {
            tally.fade();
        }
        assert!(tally.0.is_empty(), "{tally:?}");
    }
}
