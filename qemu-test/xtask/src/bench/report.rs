//! The table.

use std::fmt::Write as _;

use super::measure::Turn;
use super::subject::{Backend, Kind};

/// Goal: fewest answers per second of the appliance's cache hits, as a ratio to the bare echo.
const GOAL: f64 = 0.80;

/// The turns of one subject.
#[derive(Debug)]
pub struct Row {
    /// The subject.
    pub kind: Kind,
    /// One per round.
    pub turns: Vec<Turn>,
}

impl Row {
    /// Without turns.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        let turns = Vec::new();
        Self { kind, turns }
    }

    fn median(&self, of: impl Fn(&Turn) -> f64) -> f64 {
        median(self.turns.iter().map(of).collect())
    }

    /// Median of the rounds' ratios.
    fn ratio_to(&self, yardstick: &Self, of: fn(&Turn) -> f64) -> f64 {
        let pairs = self.turns.iter().zip(&yardstick.turns);
        median(pairs.map(|(turn, bare)| of(turn) / of(bare)).collect())
    }
}

/// The table as text. Ratios are medians of the ratios within a round, because a machine's speed drifts between rounds; they are
/// left out if the yardstick was not measured.
#[must_use]
pub fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<34}{:>11}{:>11}{:>9}{:>7}{:>8}{:>10}{:>9}\n",
        "", "answers/s", "offered/s", "answered", "of (a)", "busy", "CPU us/", "CPU"
    );
    text += &format!("{:<34}{:>55}{:>10}{:>9}\n", "", "", "answer", "of (a)");
    let find = |kind| rows.iter().find(|row| row.kind == kind);
    let yardstick = find(Kind::ALL[0]);
    for row in rows {
        let ratio = |of: fn(&Turn) -> f64| {
            yardstick.map_or_else(String::new, |yardstick| {
                format!("{:.2}", row.ratio_to(yardstick, of))
            })
        };
        // Writing to a string never fails.
        let _ = writeln!(
            text,
            "{:<34}{:>11.0}{:>11.0}{:>8.0}%{:>7}{:>7.0}%{:>10.3}{:>9}",
            format!("({}) {}", row.kind.letter(), row.kind.name()),
            row.median(|turn| turn.answered),
            row.median(|turn| turn.offered),
            100.0 * row.median(Turn::answered_share),
            ratio(|turn| turn.answered),
            100.0 * row.median(|turn| turn.busy),
            row.median(|turn| turn.cpu_ns) / 1000.0,
            ratio(|turn| turn.cpu_ns),
        );
    }
    if let (Some(yardstick), Some(ours)) = (yardstick, find(Kind::Appliance(Backend::Own))) {
        let ratio = ours.ratio_to(yardstick, |turn| turn.answered);
        let verdict = if ratio >= GOAL { "met" } else { "missed" };
        let _ = writeln!(
            text,
            "\n(d) of (a): {ratio:.3}, the goal is at least {GOAL:.2}: {verdict}"
        );
    }
    text
}

/// The median: the middle value, or the mean of the two in the middle.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

/// First and third quartile. With few values these are values of the list.
pub fn quartiles(mut values: Vec<f64>) -> [f64; 2] {
    values.sort_by(f64::total_cmp);
    let Some(last) = values.len().checked_sub(1) else {
        return [f64::NAN; 2];
    };
    [values[last / 4], values[last - last / 4]]
}

#[cfg(test)]
mod tests {
    use super::{median, quartiles};

    #[test]
    fn the_middle_half_lies_between_the_quartiles() {
        assert_eq!(quartiles(vec![9.0, 1.0, 2.0, 3.0, 4.0]), [2.0, 4.0]);
        assert_eq!(quartiles(vec![9.0, 1.0]), [1.0, 9.0]);
        assert!(quartiles(Vec::new()).iter().all(|value| value.is_nan()));
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![9.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 9.0]), 3.0);
        assert!(median(Vec::new()).is_nan());
    }
}
