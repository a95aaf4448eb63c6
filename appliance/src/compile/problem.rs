//! Problems with their places: a file and its line, or a key of the config.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use xdnsd_core::policy::list::MAGIC;

use super::watch;
use crate::os::files::{self, Stamp};

/// Maximum number of notes kept for one build. Further ones are only counted.
const NOTES_MAX: usize = 64;

/// A problem at one place.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Problem {
    /// A file, or a key of the config.
    pub place: String,
    /// Line in the file, from 1. `None`: the whole place.
    pub line: Option<usize>,
    /// What is wrong.
    pub what: String,
    /// True for a missing file: it may come later.
    pub is_missing: bool,
}

impl Problem {
    /// A problem of a whole place.
    #[must_use]
    pub fn of(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            place: place.into(),
            line: None,
            what: what.into(),
            is_missing: false,
        }
    }

    /// A problem in one line of a file.
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

/// Notes of a build: lines that it could not use, missing files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// The first [`NOTES_MAX`] notes.
    pub first: Vec<Problem>,
    /// Number of all notes.
    pub count: usize,
    /// Leases that did not get the name that they ask for.
    pub refusals: Vec<Problem>,
    /// Hash of each hosts file's text, and state of each list, to detect changes.
    pub stamps: Vec<(String, u64)>,
    /// Files that could not be used at all: their contents are missing from the build.
    pub failures: Vec<Problem>,
    /// Files that were used, with their numbers of rules.
    pub loaded: Vec<(String, usize)>,
    /// Files that other accounts may write to, and obstacles to watching files. Logged once.
    pub doubts: Vec<Problem>,
    /// Files that are being written, as [`watch::is_among`] takes them: their last good contents hold.
    pub busy: HashSet<u64>,
    /// Lists that lost rules and may still be written, with their state: to be looked at again.
    pub smaller: Vec<(PathBuf, Stamp)>,
    /// Information about files, without a problem.
    pub told: Vec<String>,
    /// End of the first of the leases that were taken, in seconds of the Unix epoch.
    pub next_end_secs: Option<i64>,
    /// Last readable text of each hosts and lease file, by its place: used while it cannot be read.
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

    /// Notes a lease that does not get its name.
    pub fn refuse(&mut self, file: &Path, what: impl Into<String>) {
        if self.refusals.len() < NOTES_MAX {
            self.refusals
                .push(Problem::of(file.display().to_string(), what));
        }
    }

    /// Notes a file's contents or state, to detect changes.
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

    /// Notes the end of a lease.
    pub fn note_end(&mut self, end_secs: Option<i64>) {
        let ends = self.next_end_secs.into_iter().chain(end_secs);
        self.next_end_secs = ends.min();
    }

    /// True if a file is being written.
    #[must_use]
    pub fn is_busy(&self, file: &Path) -> bool {
        watch::is_among(file, &self.busy)
    }

    /// Notes that a file was used.
    pub fn load(&mut self, file: &Path, rules: usize) {
        self.loaded.push((file.display().to_string(), rules));
    }

    /// Returns the value, or notes the failure.
    pub fn or_fail<T>(&mut self, result: Result<T, Problem>) -> Option<T> {
        result.map_err(|problem| self.failures.push(problem)).ok()
    }

    /// Notes a skipped line.
    pub fn skip(&mut self, file: &Path, line: usize, what: impl Into<String>) {
        self.push(Problem::in_line(file, line, what));
    }
}

/// Problems that were logged for the files in force, so that each is logged once.
#[derive(Debug, Default)]
pub struct LoggedProblems {
    problems: HashSet<Problem>,
    stamps: HashMap<String, u64>,
}

impl LoggedProblems {
    /// Removes problems from `notes` that were logged before. Those of a changed hosts file or list are logged again. In a
    /// lease file the line number is ignored: its server rewrites it at each change, in any order.
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
            // A problem that occurs twice in one build is logged once.
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

/// Files behind a path: the file itself, or those in a directory, in the order of their names. Hidden files and editors'
/// backups are left out, as in dnsmasq. A missing path is noted and gives none.
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

/// Reads a text file of at most `bytes_max` bytes. Bytes that are not UTF-8 become replacement characters, which are invalid in
/// names: only their lines are skipped. A byte order mark is removed.
///
/// # Errors
/// The file cannot be read, is larger, is UTF-16 or is compressed.
pub fn read_text(file: &Path, bytes_max: u64) -> Result<String, Problem> {
    let bytes = files::read(file, bytes_max).map_err(|error| Problem::with_file(file, &error))?;
    check_encoding(file, &bytes)?;
    let text = bytes.strip_prefix(UTF8_MARK).unwrap_or(&bytes);
    Ok(String::from_utf8_lossy(text).into_owned())
}

/// Byte order mark that some editors put before a text in UTF-8.
pub(super) const UTF8_MARK: &[u8] = b"\xef\xbb\xbf";

/// Checks that a file begins like a text with one byte per ASCII letter.
///
/// # Errors
/// It does not.
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
