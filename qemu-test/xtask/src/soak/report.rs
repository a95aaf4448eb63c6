//! Results: a table of faults, and memory over time.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::faults::{ALL, Fault};
use super::load::{Event, Kind};
use super::oracle::Verdict;

/// Most wrong answers that are shown.
const SHOWN_MAX: usize = 20;

/// Questions of one kind during one fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    asked: u64,
    right: u64,
    /// Longest time between two right answers, over all askers.
    worst_gap: Duration,
}

/// Number of occurrences and shares of one fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Row {
    times: u64,
    known: Share,
    new: Share,
}

/// Memory and descriptors at one time.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Time since the soak began.
    pub at: Duration,
    /// Resident memory in KiB.
    pub rss: u64,
    /// Number of descriptors.
    pub descriptors: usize,
}

/// All results.
#[derive(Debug, Default)]
pub struct Report {
    rows: BTreeMap<usize, Row>,
    samples: Vec<Sample>,
    questions: u64,
    wrong: Vec<String>,
    wrong_count: u64,
}

impl Report {
    /// Counts events noted during `fault` and some seconds after.
    pub fn take(&mut self, fault: Fault, since: Instant, until: Instant, events: &[Event]) {
        let place = ALL.iter().position(|other| *other == fault);
        let row = self.rows.entry(place.unwrap_or(ALL.len())).or_default();
        row.times += 1;
        for kind in [Kind::Known, Kind::New] {
            let share = match kind {
                Kind::Known => &mut row.known,
                Kind::New => &mut row.new,
            };
            let of_kind: Vec<&Event> = events.iter().filter(|event| event.kind == kind).collect();
            share.take(since, until, &of_kind);
        }
        self.questions += events.len() as u64;
        for event in events {
            if let Some(Verdict::Wrong(what)) = &event.verdict {
                self.wrong_count += 1;
                if self.wrong.len() < SHOWN_MAX {
                    self.wrong.push(format!("{}: {what}", fault.name()));
                }
            }
        }
    }

    /// Adds a sample.
    pub fn note(&mut self, sample: Sample) {
        self.samples.push(sample);
    }

    /// Number of wrong answers.
    #[must_use]
    pub fn wrong_count(&self) -> u64 {
        self.wrong_count
    }

    /// Growth in KiB from the second quarter's maximum to the last quarter's: initial growth, such as filling the cache, is left
    /// out. `None` with too few samples.
    #[must_use]
    pub fn growth(&self) -> Option<i64> {
        let quarter = self.samples.len() / 4;
        let most = |samples: &[Sample]| samples.iter().map(|sample| sample.rss).max();
        let second = most(self.samples.get(quarter..2 * quarter)?)?;
        let last = most(self.samples.get(3 * quarter..)?)?;
        Some(last as i64 - second as i64)
    }

    /// The table of faults, and memory.
    #[must_use]
    pub fn show(&self) -> String {
        let mut text = format!(
            "{:26} {:>5}  {:>24}  {:>24}\n{:26} {:>5}  {:>8} {:>7} {:>7}  {:>8} {:>7} {:>7}\n",
            "",
            "",
            "known, local and listed",
            "new names",
            "fault",
            "times",
            "asked",
            "right %",
            "gap ms",
            "asked",
            "right %",
            "gap ms"
        );
        for (place, row) in &self.rows {
            let name = ALL.get(*place).map_or("", |fault| fault.name());
            let _ = write!(text, "{name:26} {:>5}", row.times);
            for share in [row.known, row.new] {
                let percent = 100.0 * share.right as f64 / share.asked.max(1) as f64;
                let gap = share.worst_gap.as_millis();
                let _ = write!(text, "  {:>8} {percent:>7.2} {gap:>7}", share.asked);
            }
            text.push('\n');
        }
        let _ = writeln!(
            text,
            "\n{} questions, {} wrong answers",
            self.questions, self.wrong_count
        );
        for wrong in &self.wrong {
            let _ = writeln!(text, "wrong: {wrong}");
        }
        text.push_str(&self.memory());
        text
    }

    /// Ten rows over time, each with its maximum.
    fn memory(&self) -> String {
        let mut text = format!(
            "\n{:>8} {:>9} {:>12}\n",
            "after s", "RSS KiB", "descriptors"
        );
        for samples in self.samples.chunks(self.samples.len().div_ceil(10).max(1)) {
            let rss = samples.iter().map(|sample| sample.rss).max();
            let descriptors = samples.iter().map(|sample| sample.descriptors).max();
            let at = samples.last().map_or(0, |sample| sample.at.as_secs());
            let _ = writeln!(
                text,
                "{at:>8} {:>9} {:>12}",
                rss.unwrap_or_default(),
                descriptors.unwrap_or_default()
            );
        }
        if let Some(growth) = self.growth() {
            let _ = writeln!(text, "last quarter above the second one: {growth} KiB");
        }
        text
    }
}

impl Share {
    fn take(&mut self, since: Instant, until: Instant, events: &[&Event]) {
        self.asked += events.len() as u64;
        let is_right = |event: &&&Event| event.verdict == Some(Verdict::Right);
        let mut times: Vec<Instant> = events
            .iter()
            .filter(is_right)
            .map(|event| event.known.clamp(since, until))
            .collect();
        self.right += times.len() as u64;
        times.push(until);
        times.sort();
        let mut last = since;
        for time in times {
            self.worst_gap = self.worst_gap.max(time - last);
            last = time;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(from: Instant, at_ms: u64, verdict: Option<Verdict>) -> Event {
        Event {
            known: from + Duration::from_millis(at_ms),
            kind: Kind::Known,
            verdict,
        }
    }

    #[test]
    fn gaps_are_between_right_answers_and_to_the_ends() {
        let from = Instant::now();
        let until = from + Duration::from_secs(10);
        let mut report = Report::default();
        let wrong = Verdict::Wrong("it".into());
        let events = [
            event(from, 1_000, Some(Verdict::Right)),
            event(from, 2_000, None),
            event(from, 3_000, Some(Verdict::Failed)),
            event(from, 5_000, Some(Verdict::Right)),
            event(from, 6_000, Some(wrong)),
        ];
        report.take(Fault::Kill, from, until, &events);
        let row = report.rows[&11];
        assert_eq!((row.times, row.known.asked, row.known.right), (1, 5, 2));
        assert_eq!(row.known.worst_gap, Duration::from_secs(5));
        assert_eq!((report.wrong_count(), report.questions), (1, 5));
        assert!(report.show().contains("SIGKILL and start"));
        assert!(report.show().contains("wrong: SIGKILL and start: it"));
    }

    #[test]
    fn memory_that_grows_is_told_from_memory_that_is_filled_once() {
        let growth = |rss: &[u64]| {
            let mut report = Report::default();
            for rss in rss {
                report.note(Sample {
                    at: Duration::ZERO,
                    rss: *rss,
                    descriptors: 9,
                });
            }
            report.growth()
        };
        assert_eq!(growth(&[1, 5, 9, 10, 10, 10, 10, 10]), Some(0));
        assert_eq!(growth(&[1, 2, 3, 4, 5, 6, 7, 8]), Some(4));
        assert_eq!(growth(&[7]), None);
    }
}
