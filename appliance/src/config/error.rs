//! Faults of a config file: the place, the key, the problem, and what is allowed.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::Range;

use crate::text;

/// Maximum number of faults that are reported for one key. Further ones are only counted.
const FAULTS_OF_A_KEY_MAX: usize = 20;
/// What some editors begin a file with: no part of its text.
pub const BYTE_ORDER_MARK: char = '\u{feff}';

/// Several faults of one file, in the order of their lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Errors {
    faults: Vec<Fault>,
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Name of the file as it was given.
    pub file: String,
    /// Line and column, both from 1. `None`: the whole file.
    pub position: Option<Position>,
    /// The key, as `section.key`. Empty if the fault is not about one key.
    pub key: String,
    /// What is wrong.
    pub problem: String,
    /// What is allowed instead. Empty if that is not known.
    pub allowed: String,
}

/// A place in a file. The column counts characters, not bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line number, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
}

impl Position {
    /// Position of byte `offset` in `text`; its end if the text is shorter.
    #[must_use]
    pub fn of(text: &str, offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = before.get(line_start..).unwrap_or_default();
        // An editor does not show the byte-order mark that some begin a file with.
        let line = match line_start {
            0 => line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line),
            _ => line,
        };
        Self {
            line: before.matches('\n').count() + 1,
            column: line.chars().count() + 1,
        }
    }
}

impl Errors {
    /// A fault of a file that cannot be read.
    #[must_use]
    pub fn whole_file(file: &str, problem: impl Into<String>) -> Self {
        let file = text::line(file).into_owned();
        Self {
            faults: vec![Fault {
                file,
                position: None,
                key: String::new(),
                problem: text::line(&problem.into()).into_owned(),
                allowed: String::new(),
            }],
        }
    }

    /// The faults, in their order. If one key has very many, the rest of them is only counted.
    #[must_use]
    pub fn bounded(faults: Vec<Fault>) -> Self {
        Self {
            faults: bounded(faults),
        }
    }

    /// The faults, in the order of their lines. Of those of one key, some are only counted.
    #[must_use]
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.file)?;
        if let Some(Position { line, column }) = self.position {
            write!(formatter, ":{line}:{column}")?;
        }
        if !self.key.is_empty() {
            write!(formatter, ": {}", self.key)?;
        }
        write!(formatter, ": {}", self.problem)?;
        if !self.allowed.is_empty() {
            write!(formatter, "; allowed: {}", self.allowed)?;
        }
        Ok(())
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            if index > 0 {
                writeln!(formatter)?;
            }
            fault.fmt(formatter)?;
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}

/// One file of several.
#[derive(Clone, Debug)]
struct Part {
    name: String,
    /// Where its text begins in that of all.
    start: usize,
}

/// Collects faults while a file is read, or several that are one config, and remembers where each key stood.
#[derive(Clone, Debug)]
pub struct ConfigText {
    /// Its files, in the order in which they were read; the first is the one that was named.
    files: Vec<Part>,
    /// The text of all, one behind the other.
    text: String,
    spans: Vec<(String, Range<usize>)>,
    faults: Vec<Fault>,
    warnings: Vec<Fault>,
    /// Keys whose values were refused, so that the defaults in their place are not checked.
    refused: HashSet<String>,
}

impl ConfigText {
    /// Nothing read yet.
    #[must_use]
    pub fn new(file: &str, written: &str) -> Self {
        Self {
            files: vec![Part {
                name: text::line(file).into_owned(),
                start: 0,
            }],
            text: written.into(),
            spans: Vec::new(),
            faults: Vec::new(),
            warnings: Vec::new(),
            refused: HashSet::new(),
        }
    }

    /// The first file's name as it was given.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.files[0].name
    }

    /// Adds a further file. Where its text begins in that of all.
    pub fn append(&mut self, file: &str, written: &str) -> usize {
        self.text.push('\n');
        let start = self.text.len();
        self.text.push_str(written);
        self.files.push(Part {
            name: text::line(file).into_owned(),
            start,
        });
        start
    }

    /// Bytes of all files.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.text.len()
    }

    /// The file of byte `offset` in the text of all, and where that is in it.
    #[must_use]
    pub fn place(&self, offset: usize) -> (&str, Position) {
        let index = self.files.iter().rposition(|part| part.start <= offset);
        let index = index.unwrap_or_default();
        let start = self.files[index].start;
        // A newline that is no file's stands between two.
        let end = self.files.get(index + 1).map(|next| next.start - 1);
        let text = &self.text[start..end.unwrap_or(self.text.len())];
        (&self.files[index].name, Position::of(text, offset - start))
    }

    /// Text of the file at `place`.
    #[must_use]
    pub fn written(&self, place: Range<usize>) -> &str {
        self.text.get(place).unwrap_or_default()
    }

    /// Notes a fault of the file as a whole.
    pub fn fault_of_all(&mut self, problem: String) {
        self.push(None, "", problem, String::new());
    }

    /// Remembers the place of `path`, for faults that are found later.
    pub fn remember(&mut self, path: &str, span: Range<usize>) {
        self.spans.push((path.into(), span));
    }

    /// True if `path` was in the file.
    #[must_use]
    pub fn has(&self, path: &str) -> bool {
        self.span(path).is_some()
    }

    /// Where `path` begins in the text of all, or the nearest that encloses it.
    #[must_use]
    pub fn offset(&self, path: &str) -> Option<usize> {
        let mut path = path;
        loop {
            if let Some(span) = self.span(path) {
                return Some(span.start);
            }
            path = &path[..path.rfind(['.', '['])?];
        }
    }

    /// Text of the file at `path`.
    #[must_use]
    pub fn written_at(&self, path: &str) -> Option<String> {
        let span = self.span(path)?;
        Some(self.written(span.clone()).to_owned())
    }

    fn span(&self, path: &str) -> Option<&Range<usize>> {
        self.spans
            .iter()
            .find(|(known, _)| known == path)
            .map(|(_, span)| span)
    }

    /// Notes a fault at a byte range.
    pub fn fault_at(
        &mut self,
        offset: usize,
        path: &str,
        problem: impl Into<String>,
        allowed: impl Into<String>,
    ) {
        self.push(Some(offset), path, problem.into(), allowed.into());
    }

    /// Notes a fault of `path`, which was read before.
    pub fn fault(&mut self, path: &str, problem: impl Into<String>, allowed: impl Into<String>) {
        self.push(self.offset(path), path, problem.into(), allowed.into());
    }

    fn push(&mut self, offset: Option<usize>, path: &str, problem: String, allowed: String) {
        let fault = self.told(offset, path, problem, allowed);
        self.faults.push(fault);
    }

    /// Notes a deprecated form that still works.
    pub fn warn_at(&mut self, offset: usize, path: &str, problem: String) {
        let warning = self.told(Some(offset), path, problem, String::new());
        self.warnings.push(warning);
    }

    /// Notes a valid but implausible value of `path`, which was read before.
    pub fn warn(&mut self, path: &str, problem: String) {
        let warning = self.told(self.offset(path), path, problem, String::new());
        self.warnings.push(warning);
    }

    /// Takes the warnings, in the order of their lines.
    pub fn take_warnings(&mut self) -> Errors {
        let warnings = std::mem::take(&mut self.warnings);
        Errors {
            faults: self.in_order(warnings),
        }
    }

    /// The warnings, in the order of the sections.
    pub fn warnings(&self) -> &[Fault] {
        &self.warnings
    }

    /// Makes a fault without noting it.
    pub fn told(
        &self,
        offset: Option<usize>,
        path: &str,
        problem: String,
        allowed: String,
    ) -> Fault {
        let key = without_indices(path);
        let (file, position) = match offset.map(|offset| self.place(offset)) {
            Some((file, position)) => (file, Some(position)),
            None => (self.file(), None),
        };
        // Values are shown as they were written: this is the one place that removes control characters.
        Fault {
            file: file.to_owned(),
            position,
            key: text::line(&key).into_owned(),
            problem: text::line(&problem).into_owned(),
            allowed: text::line(&allowed).into_owned(),
        }
    }

    /// Notes that the value of `path`, or an element of it, was refused.
    pub fn refuse(&mut self, path: &str) {
        self.refused.insert(path.into());
    }

    /// True if none of these keys was refused: only then can they contradict each other.
    #[must_use]
    pub fn are_read(&self, paths: &[&str]) -> bool {
        !paths.iter().any(|path| self.refused.contains(*path))
    }

    /// True if all sections of this name were read; `count` were.
    #[must_use]
    pub fn are_all(&self, section: &str, count: usize) -> bool {
        // With a refused section, the file has more sections than were read.
        !self.has(&format!("{section}[{count}]"))
    }

    /// True if a fault was noted.
    #[must_use]
    pub fn is_faulty(&self) -> bool {
        !self.faults.is_empty()
    }

    /// Takes all faults, in the order of their lines.
    pub fn take_faults(&mut self) -> Vec<Fault> {
        let faults = std::mem::take(&mut self.faults);
        self.in_order(faults)
    }

    /// Takes the faults as they are reported.
    pub fn take_errors(&mut self) -> Errors {
        Errors::bounded(self.take_faults())
    }

    /// By file and line; those of all files come first.
    fn in_order(&self, mut faults: Vec<Fault>) -> Vec<Fault> {
        let number = |file: &str| self.files.iter().position(|part| part.name == file);
        faults.sort_by_key(|fault| (number(&fault.file), fault.position));
        faults
    }
}

/// Keeps the first faults of each key, and replaces the rest by a line with their number.
fn bounded(faults: Vec<Fault>) -> Vec<Fault> {
    let mut counts: HashMap<String, usize> = HashMap::new();
    for fault in &faults {
        *counts.entry(fault.key.clone()).or_default() += 1;
    }
    let mut told: HashMap<String, usize> = HashMap::new();
    let mut kept = Vec::with_capacity(faults.len());
    for fault in faults {
        let told = told.entry(fault.key.clone()).or_default();
        *told += 1;
        if *told <= FAULTS_OF_A_KEY_MAX {
            kept.push(fault);
        } else if *told == FAULTS_OF_A_KEY_MAX + 1 {
            let more = counts[&fault.key] - FAULTS_OF_A_KEY_MAX;
            kept.push(Fault {
                problem: format!("and from here on {more} more"),
                allowed: String::new(),
                ..fault
            });
        }
    }
    kept
}

/// `interface[0].listen[1]` -> `interface.listen`: the line number identifies the section.
pub fn without_indices(path: &str) -> String {
    let mut inside = false;
    let outside = |char: &char| {
        inside = (inside || *char == '[') && *char != ']';
        !inside && *char != ']'
    };
    path.chars().filter(outside).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_counts_lines_and_characters() {
        let text = "a = 1\nü = 2\n";
        assert_eq!(Position::of(text, 0), Position { line: 1, column: 1 });
        assert_eq!(Position::of(text, 6), Position { line: 2, column: 1 });
        assert_eq!(
            Position::of(text, 8),
            Position { line: 2, column: 2 },
            "two bytes, one character"
        );
        assert_eq!(
            Position::of(text, text.len()),
            Position { line: 3, column: 1 }
        );
        assert_eq!(Position::of(text, 1000), Position { line: 3, column: 1 });
        let text = "\u{feff}a = 1\n";
        assert_eq!(Position::of(text, 7), Position { line: 1, column: 5 });
        assert_eq!(Position::of(text, 0), Position { line: 1, column: 1 });
    }

    #[test]
    fn a_fault_names_the_nearest_place_that_was_written() {
        let mut source = ConfigText::new("f.toml", "x = 1\n[cache]\nmin_ttl = 3\n");
        source.remember("cache", 6..13);
        source.remember("cache.min_ttl", 14..21);
        source.fault("cache.min_ttl", "too low", "4 to 5");
        source.fault("cache.max_ttl", "absent", "");
        source.fault("upstream[0].servers[1]", "absent", "");
        let errors = source.take_errors();
        let lines: Vec<String> = errors.faults().iter().map(Fault::to_string).collect();
        assert_eq!(
            lines,
            [
                "f.toml: upstream.servers: absent",
                "f.toml:2:1: cache.max_ttl: absent",
                "f.toml:3:1: cache.min_ttl: too low; allowed: 4 to 5",
            ]
        );
        assert!(!source.is_faulty());
    }
}
