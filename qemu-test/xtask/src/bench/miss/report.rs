//! The table.

use std::fmt::Write as _;

use super::subject::Subject;
use super::turn::Turn;
use crate::bench::report::median;

/// Goal for the ratio of answers per second, ours to theirs.
const RATE_GOAL: &str = ">= 1.00";
/// Goal for the ratio of added latency, ours to theirs.
const ADDED_GOAL: &str = "<= 0.50";

/// The turns of one subject.
#[derive(Debug)]
pub struct Row {
    /// The subject.
    pub subject: Subject,
    /// One per round.
    pub turns: Vec<Turn>,
}

impl Row {
    /// Without turns.
    pub fn new(subject: Subject) -> Self {
        let turns = Vec::new();
        Self { subject, turns }
    }

    /// Median over the rounds of a value computed from this row's turn and the other row's.
    fn median_with(&self, other: &Self, of: impl Fn(&Turn, &Turn) -> f64) -> f64 {
        let pairs = self.turns.iter().zip(&other.turns);
        median(pairs.map(|(turn, other)| of(turn, other)).collect())
    }

    fn median(&self, of: impl Fn(&Turn) -> f64) -> f64 {
        median(self.turns.iter().map(of).collect())
    }

    /// Added latency over the yardstick, in microseconds, for each round.
    fn added_us<'a>(&'a self, yardstick: &'a Self) -> impl Iterator<Item = f64> + 'a {
        let pairs = self.turns.iter().zip(&yardstick.turns);
        pairs.map(|(turn, bare)| turn.latency_us - bare.latency_us)
    }
}

/// The table as text: medians over the rounds. `rows` begin with the yardstick and ours; ratios are ours to theirs, medians of
/// the ratios within a round.
#[must_use]
pub fn table(rows: &[Row], rate: u32) -> String {
    let mut text = line([
        "",
        "answers/s",
        "failed",
        "ours/",
        "goal",
        "CPU us/",
        "median us",
        "added us",
        "ours/",
        "goal",
    ]);
    let at_rate = format!("at {rate}/s");
    text += &line([
        "", "", "", "theirs", "", "answer", &at_rate, "", "theirs", "",
    ]);
    let [yardstick, ours, ..] = rows else {
        return text;
    };
    for row in rows {
        let is_peer = matches!(row.subject, Subject::Peer(_));
        let is_added = row.subject != Subject::Upstream;
        let shown = |value: f64, is_shown: bool, decimals: usize| match is_shown {
            true => format!("{value:.decimals$}"),
            false => String::new(),
        };
        let goal = |goal| if is_peer { goal } else { "" };
        let rates = row.median_with(ours, |theirs, ours| ours.rate / theirs.rate);
        let added = median(row.added_us(yardstick).collect());
        let both = ours.added_us(yardstick).zip(row.added_us(yardstick));
        let ratio = median(both.map(|(ours, theirs)| ours / theirs).collect());
        text += &line([
            row.subject.name(),
            &format!("{:.0}", row.median(|turn| turn.rate)),
            &row.turns
                .iter()
                .map(|turn| turn.failed)
                .sum::<u64>()
                .to_string(),
            &shown(rates, is_peer, 2),
            goal(RATE_GOAL),
            &shown(row.median(|turn| turn.cpu_us), is_added, 1),
            &format!("{:.1}", row.median(|turn| turn.latency_us)),
            &shown(added, is_added, 1),
            &shown(ratio, is_peer, 2),
            goal(ADDED_GOAL),
        ]);
    }
    text.push('\n');
    for row in rows {
        // Writing to a string never fails.
        let _ = writeln!(text, "{}: {}", row.subject.name(), row.subject.settings());
    }
    text
}

fn line(cells: [&str; 10]) -> String {
    let widths = [10, 10, 8, 8, 9, 9, 12, 10, 8, 9];
    let first = format!("{:<10}", cells[0]);
    let rest = cells.iter().zip(widths).skip(1);
    rest.fold(first, |line, (cell, width)| format!("{line}{cell:>width$}")) + "\n"
}

#[cfg(test)]
mod tests {
    use super::{Row, Subject, Turn, table};
    use xdnsd_lab::peer::Peer;

    fn row(subject: Subject, turns: &[(f64, f64)]) -> Row {
        let turns = turns.iter().map(|&(rate, latency_us)| Turn {
            rate,
            failed: 1,
            cpu_us: 20.0,
            latency_us,
        });
        Row {
            subject,
            turns: turns.collect(),
        }
    }

    #[test]
    fn ratios_are_ours_to_theirs_within_a_round() {
        let rows = [
            row(Subject::Upstream, &[(40_000.0, 50.0), (20_000.0, 150.0)]),
            row(Subject::Appliance, &[(30_000.0, 90.0), (10_000.0, 190.0)]),
            row(
                Subject::Peer(Peer::Dnsmasq),
                &[(10_000.0, 150.0), (2_500.0, 350.0)],
            ),
        ];
        let table = table(&rows, 1000);
        let line = |name: &str| -> Vec<&str> {
            let line = table.lines().find(|line| line.starts_with(name));
            line.expect("a row").split_whitespace().collect()
        };
        assert_eq!(line("upstream "), ["upstream", "30000", "2", "100.0"]);
        assert_eq!(
            line("xdnsd "),
            ["xdnsd", "20000", "2", "20.0", "140.0", "40.0"]
        );
        // Ratios 3 and 4; 40 of 100 and 40 of 200.
        let wanted = "dnsmasq 6250 2 3.50 >= 1.00 20.0 250.0 150.0 0.30 <= 0.50";
        assert_eq!(line("dnsmasq ").join(" "), wanted);
    }
}
