//! The table.

use std::fmt::Write as _;

use super::subject::Who;
use super::turn::{LOADS, Turn};
use crate::bench::report::median;
use xdnsd_lab::peer::Peer;

/// A core busy for this share of the time is the bottleneck.
const BUSY: f64 = 0.95;
/// If other processes had more than this share of a core's time, the result is doubtful.
const OTHERS_MAX: f64 = 0.05;

/// The turns of one subject.
#[derive(Debug)]
pub struct Row {
    /// The subject.
    pub who: Who,
    /// Its version; empty for ours.
    pub version: String,
    /// One per round.
    pub turns: Vec<Turn>,
}

/// A goal: the ratio of two subjects, and its bound.
struct Goal {
    what: &'static str,
    ours: Who,
    theirs: Who,
    of: fn(&Turn) -> f64,
    wanted: Wanted,
}

/// Bound of a ratio.
#[derive(Clone, Copy)]
enum Wanted {
    AtLeast(f64),
    AtMost(f64),
}

impl Wanted {
    fn is_met(self, ratio: f64) -> bool {
        match self {
            Self::AtLeast(least) => ratio >= least,
            Self::AtMost(most) => ratio <= most,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtLeast(least) => format!(">= {least:.1}"),
            Self::AtMost(most) => format!("<= {most:.1}"),
        }
    }
}

const UNBOUND: Who = Who::Peer(Peer::Unbound { threads: 1 });
const DNSMASQ: Who = Who::Peer(Peer::Dnsmasq);

const fn rate(theirs: Who, least: f64) -> Goal {
    Goal {
        what: "answers/s",
        ours: Who::Tier0,
        theirs,
        of: |turn| turn.answered,
        wanted: Wanted::AtLeast(least),
    }
}

const GOALS: [Goal; 6] = [
    rate(Who::Reflector, 0.8),
    rate(Who::Tier1, 2.0),
    rate(DNSMASQ, 4.0),
    rate(UNBOUND, 1.0),
    rate(Who::Knot, 3.0),
    Goal {
        what: "p50 at 1 % load",
        ours: Who::Tier0,
        theirs: Who::Tier1,
        of: |turn| turn.latency[0].p50_us,
        wanted: Wanted::AtMost(0.6),
    },
];

impl Row {
    fn median(&self, of: impl Fn(&Turn) -> f64) -> f64 {
        median(self.turns.iter().map(of).collect())
    }
}

/// The table as text: medians over the rounds; ratios are medians of the ratios within a round.
pub fn table(rows: &[Row]) -> String {
    let mut text = line([
        "",
        "answers/s",
        "offered/s",
        "CPU ns/",
        "busy",
        "bound by",
        "p50 us",
        "p99 us",
        "p50 us",
        "p99 us",
        "program",
    ]);
    let [low, half] = LOADS.map(|load| format!("at {:.0} %", 100.0 * load));
    text += &line(["", "", "", "answer", "", "", &low, "", &half, "", "ns"]);
    for row in rows {
        text += &measured(row);
    }
    if rows
        .iter()
        .any(|row| row.median(|turn| turn.others) > OTHERS_MAX)
    {
        text +=
            "\nOther programs had a part of the server's core: measure again on a quiet machine.\n";
    }
    for row in rows.iter().filter(|row| row.who == Who::Tier0) {
        let share = 100.0 * row.median(|turn| turn.in_xdp);
        text += &format!(
            "\n{}: the XDP program gave {share:.1} % of the answers\n",
            row.who.name()
        );
    }
    text + &goals(rows)
}

/// Line of one subject.
fn measured(row: &Row) -> String {
    let latency = |at: usize, of: fn(&super::turn::Latency) -> f64| {
        format!("{:.1}", row.median(|turn| of(&turn.latency[at])))
    };
    let busy = row.median(|turn| turn.busy);
    let others = row.median(|turn| turn.others);
    let bound = match (busy >= BUSY, others > OTHERS_MAX) {
        (true, _) => "its core",
        (false, true) => "others",
        (false, false) => "the load",
    };
    let program = match row.who.has_program() {
        true => format!(
            "{:.0}",
            row.median(|turn| turn.program_ns.unwrap_or(f64::NAN))
        ),
        false => String::new(),
    };
    let name = format!("({}) {} {}", row.who.letter(), row.who.name(), row.version);
    line([
        name.trim_end(),
        &format!("{:.0}", row.median(|turn| turn.answered)),
        &format!("{:.0}", row.median(|turn| turn.offered)),
        &format!("{:.0}", row.median(|turn| turn.cpu_ns)),
        &format!("{:.0}%", 100.0 * busy),
        bound,
        &latency(0, |latency| latency.p50_us),
        &latency(0, |latency| latency.p99_us),
        &latency(1, |latency| latency.p50_us),
        &latency(1, |latency| latency.p99_us),
        &program,
    ])
}

/// A line for each goal whose two subjects were measured.
fn goals(rows: &[Row]) -> String {
    let find = |who| rows.iter().find(|row| row.who == who);
    let mut text = String::from("\n");
    for goal in &GOALS {
        let (Some(ours), Some(theirs)) = (find(goal.ours), find(goal.theirs)) else {
            continue;
        };
        let pairs = ours.turns.iter().zip(&theirs.turns);
        let of = goal.of;
        let ratio = median(pairs.map(|(ours, theirs)| of(ours) / of(theirs)).collect());
        let (what, wanted) = (goal.what, goal.wanted.text());
        let verdict = match goal.wanted.is_met(ratio) {
            true => "met",
            false => "missed",
        };
        // Writing to a string never fails.
        let _ = writeln!(
            text,
            "{what}: {} of {}: {ratio:.2}, the goal is {wanted}: {verdict}",
            goal.ours.name(),
            goal.theirs.name()
        );
    }
    text
}

fn line(cells: [&str; 11]) -> String {
    let widths = [33, 10, 11, 9, 6, 10, 9, 9, 9, 9, 9];
    let first = format!("{:<33}", cells[0]);
    let rest = cells.iter().zip(widths).skip(1);
    rest.fold(first, |line, (cell, width)| format!("{line}{cell:>width$}")) + "\n"
}

#[cfg(test)]
mod tests {
    use super::{Row, Turn, Who, table};
    use crate::bench::tier0::turn::Latency;

    fn row(who: Who, turns: &[(f64, f64)]) -> Row {
        let turns = turns.iter().map(|&(answered, p50_us)| Turn {
            answered,
            offered: 2.0 * answered,
            cpu_ns: 250.0,
            busy: 0.97,
            in_xdp: 0.995,
            others: 0.01,
            latency: [Latency {
                p50_us,
                p99_us: 2.0 * p50_us,
            }; 2],
            program_ns: Some(40.0),
        });
        Row {
            who,
            version: String::new(),
            turns: turns.collect(),
        }
    }

    #[test]
    fn ratios_are_of_one_round_and_beside_their_goals() {
        let rows = [
            row(Who::Reflector, &[(4e6, 2.0), (2e6, 2.0)]),
            row(Who::Tier0, &[(3e6, 3.0), (2e6, 3.0)]),
            row(Who::Tier1, &[(1e6, 10.0), (0.5e6, 4.0)]),
        ];
        let table = table(&rows);
        let has = |line: &str| assert!(table.contains(line), "no {line:?} in\n{table}");
        // Ratios 0.75 and 1; 3 and 4; 0.3 and 0.75.
        has("xdnsd, tier 0: the XDP program gave 99.5 % of the answers");
        has("answers/s: xdnsd, tier 0 of bare XDP_TX reflector: 0.88, the goal is >= 0.8: met");
        has("answers/s: xdnsd, tier 0 of xdnsd, tier 1 (AF_XDP): 3.50, the goal is >= 2.0: met");
        has(
            "p50 at 1 % load: xdnsd, tier 0 of xdnsd, tier 1 (AF_XDP): 0.53, the goal is <= 0.6: met",
        );
        assert!(!table.contains("Knot"), "{table}");
        let words: Vec<_> = table
            .lines()
            .nth(2)
            .expect("a row")
            .split_whitespace()
            .collect();
        let wanted = "3000000 6000000 250 97% its core 2.0 4.0 2.0 4.0 40";
        assert_eq!(words[4..].join(" "), wanted);
    }
}
