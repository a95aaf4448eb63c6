//! What is wrong, and where: a file and its line, or a key of the config.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use xdnsd_core::policy::list::MAGIC;

use super::watch;
use crate::os::files::{self, Stamp};

/// Notes that are kept of one build. More are counted only.
const NOTES_MAX: usize = 64;

/// Something that is wrong at one place.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Problem {
    /// A file, or a key of the config.
    pub place: String,
    /// The line in the file, from 1. `None`: the whole place.
    pub line: Option<usize>,
    /// What is wrong.
    pub what: String,
    /// It is a file that is not there: it may come later.
    pub is_missing: bool,
}

impl Problem {
    /// Wrong as a whole.
    #[must_use]
    pub fn of(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            place: place.into(),
            line: None,
            what: what.into(),
            is_missing: false,
        }
    }

    /// Wrong in one line of a file.
    #[must_use]
    pub fn in_line(file: &Path, line: usize, what: impl Into<String>) -> Self {
        Self {
            place: file.display().to_string(),
            line: Some(line),
            what: what.into(),
            is_missing: false,
        }
    }

    /// A file that cannot be read or written.
    #[must_use]
    pub fn with_file(file: &Path, error: &std::io::Error) -> Self {
        Self {
            is_missing: error.kind() == std::io::ErrorKind::NotFound,
            ..Self::of(file.display().to_string(), files::why(error))
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(formatter, "{}:{line}: {}", self.place, self.what),
            None => write!(formatter, "{}: {}", self.place, self.what),
        }
    }
}

impl std::error::Error for Problem {}

/// What a build passed over: lines that it could not use, files that are not there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// The first of them.
    pub first: Vec<Problem>,
    /// How many there were.
    pub count: usize,
    /// Leases that did not get the name that they ask for.
    pub refusals: Vec<Problem>,
    /// What the text of each hosts file hashes to, and the state of each list: whether it changed since.
    pub stamps: Vec<(String, u64)>,
    /// Files that could not be used at all: what they hold is missing from what was built.
    pub failures: Vec<Problem>,
    /// Files that were used, and how many rules each had.
    pub loaded: Vec<(String, usize)>,
    /// Who else may write to files; and what stands in the way of watching them. Said once.
    pub doubts: Vec<Problem>,
    /// Files that are being written, as [`watch::is_among`] takes them: of those, what they said last holds.
    pub busy: HashSet<u64>,
    /// Lists that lost rules and may be written yet, as they were found: looked at again.
    pub smaller: Vec<(PathBuf, Stamp)>,
    /// What was taken from which file: no problem, good to know.
    pub told: Vec<String>,
    /// When the first of the leases that were taken ends, in seconds of the Unix epoch.
    pub next_end_secs: Option<i64>,
    /// The text of each hosts and lease file when it could last be read, by its place: used where it cannot be read now.
    pub last_good: HashMap<String, String>,
}

impl Notes {
    /// Notes a problem that does not stop the build.
    pub fn push(&mut self, problem: Problem) {
        self.count += 1;
        if self.first.len() < NOTES_MAX {
            self.first.push(problem);
        }
    }

    /// Notes that a lease does not get its name.
    pub fn refuse(&mut self, file: &Path, what: impl Into<String>) {
        if self.refusals.len() < NOTES_MAX {
            self.refusals
                .push(Problem::of(file.display().to_string(), what));
        }
    }

    /// Notes what a file says, or its state, by which a change of it is told.
    pub fn stamp(&mut self, file: &Path, state: impl Hash) {
        let mut hasher = DefaultHasher::new();
        state.hash(&mut hasher);
        self.stamps
            .push((file.display().to_string(), hasher.finish()));
    }

    /// Adds the notes of another part.
    pub fn merge(&mut self, other: Self) {
        self.count += other.count;
        let room = NOTES_MAX.saturating_sub(self.first.len());
        self.first.extend(other.first.into_iter().take(room));
        let room = NOTES_MAX.saturating_sub(self.refusals.len());
        self.refusals.extend(other.refusals.into_iter().take(room));
        self.stamps.extend(other.stamps);
        self.failures.extend(other.failures);
        self.loaded.extend(other.loaded);
        self.doubts.extend(other.doubts);
        self.smaller.extend(other.smaller);
        self.told.extend(other.told);
        self.last_good.extend(other.last_good);
        self.note_end(other.next_end_secs);
    }

    /// Notes when a lease ends.
    pub fn note_end(&mut self, end_secs: Option<i64>) {
        let ends = self.next_end_secs.into_iter().chain(end_secs);
        self.next_end_secs = ends.min();
    }

    /// Whether a file is being written.
    #[must_use]
    pub fn is_busy(&self, file: &Path) -> bool {
        watch::is_among(file, &self.busy)
    }

    /// Notes that a file was used.
    pub fn load(&mut self, file: &Path, rules: usize) {
        self.loaded.push((file.display().to_string(), rules));
    }

    /// Gives the value, or notes the failure.
    pub fn or_fail<T>(&mut self, result: Result<T, Problem>) -> Option<T> {
        result.map_err(|problem| self.failures.push(problem)).ok()
    }

    /// Notes a line that is passed over.
    pub fn skip(&mut self, file: &Path, line: usize, what: impl Into<String>) {
        self.push(Problem::in_line(file, line, what));
    }
}

/// What was said of the files in force, so that it is said once.
#[derive(Debug, Default)]
pub struct LoggedProblems {
    problems: HashSet<Problem>,
    stamps: HashMap<String, u64>,
}

impl LoggedProblems {
    /// Leaves of `notes` what was not said before. A hosts file or a list that changed is spoken of anew. In a lease file the line does
    /// not matter: its server writes it anew at each change, in any order.
    pub fn leave_new(&mut self, notes: &mut Notes) {
        let stamps: HashMap<String, u64> = notes.stamps.drain(..).collect();
        let mut problems = HashSet::new();
        let mut is_new = |problem: &Problem| {
            let stamp = stamps.get(&problem.place);
            let line = problem.line.filter(|_| stamp.is_some());
            let key = Problem {
                line,
                ..problem.clone()
            };
            let is_known = self.problems.contains(&key) && stamp == self.stamps.get(&problem.place);
            // Told twice in one build: said once.
            problems.insert(key) && !is_known
        };
        let before = notes.first.len();
        notes.first.retain(&mut is_new);
        notes.refusals.retain(&mut is_new);
        notes.failures.retain(&mut is_new);
        notes.count = match notes.first.len() {
            0 => 0,
            now => notes.count - (before - now),
        };
        (self.problems, self.stamps) = (problems, stamps);
    }
}

/// The files behind a path: itself, or what is in it where it is a directory, in the order of their names. Hidden files
/// and editors' backups are left out, as dnsmasq does. A path that is not there is noted and gives none.
///
/// # Errors
/// The path cannot be looked at.
pub fn files_behind(path: &Path, notes: &mut Notes) -> Result<Vec<PathBuf>, Problem> {
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            notes.push(Problem::with_file(path, &error));
            return Ok(Vec::new());
        }
        Err(error) => return Err(Problem::with_file(path, &error)),
    };
    if !metadata.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let entries = std::fs::read_dir(path).map_err(|error| Problem::with_file(path, &error))?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|f| is_wanted(f))
        .collect();
    files.sort();
    Ok(files)
}

fn is_wanted(file: &Path) -> bool {
    let name = file.file_name().unwrap_or_default().as_encoded_bytes();
    file.is_file() && !name.starts_with(b".") && !name.starts_with(b"#") && !name.ends_with(b"~")
}

/// Reads a text file of at most `bytes_max` bytes. Bytes that are not UTF-8 become replacement characters, which no name
/// may have: their line is passed over, the others are not. A byte order mark is no part of the text.
///
/// # Errors
/// The file cannot be read, is larger, is UTF-16 or is compressed.
pub fn read_text(file: &Path, bytes_max: u64) -> Result<String, Problem> {
    let bytes = files::read(file, bytes_max).map_err(|error| Problem::with_file(file, &error))?;
    check_encoding(file, &bytes)?;
    let text = bytes.strip_prefix(UTF8_MARK).unwrap_or(&bytes);
    Ok(String::from_utf8_lossy(text).into_owned())
}

/// What some editors put before a text in UTF-8.
pub(super) const UTF8_MARK: &[u8] = b"\xef\xbb\xbf";

/// Whether the first bytes of a file are those of a text with one byte per ASCII letter.
///
/// # Errors
/// They are not.
pub(super) fn check_encoding(file: &Path, first: &[u8]) -> Result<(), Problem> {
    let compiled = "is a compiled list: it belongs to filter.compiled, and the text that it was made of to other keys";
    let compiled = first.starts_with(&MAGIC).then(|| compiled.to_owned());
    match compiled.or_else(|| files::no_text(first)) {
        Some(what) => Err(Problem::of(file.display().to_string(), what)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;

    #[test]
    fn a_list_that_is_missing_is_said_as_a_hosts_file_is() {
        let path = Folder::new().path().join("later");
        let list = read_text(&path, 100).expect_err("missing");
        let mut notes = Notes::default();
        assert_eq!(files_behind(&path, &mut notes), Ok(Vec::new()));
        assert_eq!(
            (list.what.as_str(), list.is_missing),
            ("is not there", true)
        );
        let folder = Folder::new();
        let wrong = read_text(folder.path(), 100).expect_err("no file");
        assert!(!wrong.is_missing, "{wrong}");
        assert_eq!(notes.first, [list]);
    }

    #[test]
    fn a_mark_before_the_text_is_no_part_of_it_and_other_encodings_are_named() {
        let folder = Folder::new();
        let read = |content: &[u8]| read_text(&folder.write("hosts", content), 100);
        assert_eq!(
            read(b"\xef\xbb\xbf192.0.2.1 nas\n").as_deref(),
            Ok("192.0.2.1 nas\n")
        );
        assert_eq!(
            read(b"192.0.2.1 nas # caf\xe9\n").as_deref(),
            Ok("192.0.2.1 nas # caf\u{fffd}\n")
        );
        let compiled = read(b"XDNSLIST\x02\0\x01\n").expect_err("no text");
        assert!(
            compiled
                .what
                .starts_with("is a compiled list: it belongs to filter.compiled"),
            "{compiled}"
        );
        for utf16 in [&b"\xff\xfe1\x009\x00"[..], b"\xfe\xff\x001\x009"] {
            assert!(read(utf16).is_err_and(|error| error.what == "is UTF-16; save it as UTF-8"));
        }
    }
}
