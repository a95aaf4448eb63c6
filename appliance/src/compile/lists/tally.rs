//! Report about a list that was read.

use std::collections::BTreeMap;
use std::fmt;

use super::super::rules::{LineSyntax, NotARule, Rule};
use super::clauses::NO_ROOM;
use crate::text;

/// Maximum length of a skipped line in the report, in bytes.
const TOLD_MAX: usize = 80;

/// Counts of one source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListTally {
    /// Distinct rules that were taken.
    pub rules: usize,
    /// Repetitions of rules in the source.
    pub repeated: usize,
    /// Lines that are no rules about whole names.
    pub skipped: usize,
    /// The first of them: its number, its text, and why.
    pub first: Option<(usize, String, &'static str)>,
    /// Skipped lines by reason.
    pub reasons: BTreeMap<&'static str, usize>,
    /// First skipped line without room, and the number of them.
    pub beyond: Option<(usize, usize)>,
    /// Rules by the syntax of their lines, in the order of [`SHAPES`].
    pub shapes: [usize; SHAPES.len()],
}

/// For each syntax: the noun for one line, if it has one, and how it is read.
const SHAPES: [(LineSyntax, &str, &str); 6] = [
    (LineSyntax::Hosts, "hosts line", ", the name alone"),
    (LineSyntax::Plain, "name", ", with all below"),
    (
        LineSyntax::Wildcard,
        "`*.` name",
        ", the name and all below",
    ),
    (LineSyntax::Adblock, "", " in Adblock syntax"),
    (LineSyntax::Dnsmasq, "", " of dnsmasq, with all below"),
    (LineSyntax::Zone, "", " of a response policy zone"),
];

impl ListTally {
    /// Counts a rule.
    pub(super) fn take(&mut self, rule: &Rule) {
        self.rules += 1;
        let shapes = self.shapes.iter_mut().zip(SHAPES);
        let mut same = shapes.filter(|(_, (shape, ..))| *shape == rule.shape);
        same.by_ref().for_each(|(count, _)| *count += 1);
    }

    /// Counts a line with a rule that does not fit.
    pub(super) fn leave_out(&mut self, number: usize, line: &str, why: NotARule) {
        self.skip(number, line, why);
        let (_, count) = self.beyond.get_or_insert((number, 0));
        *count += 1;
    }

    /// The first line from which rules were skipped for lack of room, and a sentence with their number.
    #[must_use]
    pub fn beyond_in_words(&self) -> Option<(usize, String)> {
        let (line, count) = self.beyond?;
        let why = NO_ROOM.0;
        let what = match count {
            1 => format!("{why}, with those of all lists before: skipped"),
            _ => format!(
                "{why}, with those of all lists before: skipped, and {} behind it",
                count - 1
            ),
        };
        Some((line, what))
    }

    /// Counts a line that is not a rule.
    pub(super) fn skip(&mut self, number: usize, line: &str, why: NotARule) {
        self.skipped += 1;
        *self.reasons.entry(why.0).or_default() += 1;
        if self.first.is_none() {
            self.first = Some((number, text::line_up_to(line.trim(), TOLD_MAX), why.0));
        }
    }
}

impl ListTally {
    /// Number of skipped lines for each reason; `None` for a single reason, which the first line shows.
    #[must_use]
    pub fn reasons_in_words(&self) -> Option<String> {
        if self.reasons.len() < 2 {
            return None;
        }
        let mut reasons: Vec<_> = self.reasons.iter().collect();
        reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let each = reasons
            .iter()
            .map(|(why, count)| format!("{count} \"{why}\""));
        let each: Vec<String> = each.collect();
        Some(format!("skipped: {}", each.join(", ")))
    }
}

impl fmt::Display for ListTally {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{}, {} skipped",
            text::count(self.rules, "rule"),
            text::count(self.skipped, "line")
        )?;
        if self.repeated > 0 {
            write!(
                formatter,
                ", {} repeated",
                text::count(self.repeated, "rule")
            )?;
        }
        if let Some((number, line, why)) = &self.first {
            write!(formatter, "; first: line {number} \"{line}\": {why}")?;
        }
        let shapes = self
            .shapes
            .iter()
            .zip(SHAPES)
            .filter(|(count, _)| **count > 0);
        for (index, (count, (_, noun, how))) in shapes.enumerate() {
            let before = if index == 0 { "; read as " } else { ", " };
            let counted = match noun {
                "" => count.to_string(),
                noun => text::count(*count, noun),
            };
            write!(formatter, "{before}{counted}{how}")?;
        }
        Ok(())
    }
}
