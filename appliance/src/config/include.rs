//! The files that a config is made of: the one that was named, and those that `[include]` names in it or in another one.
//!
//! ```text
//!  xdnsd.toml ──[include]──► conf.d/*.toml in the order of their names, each with what it includes ──► one table of sections
//! ```
//! Each file is parsed by itself. In front of its text stand as many spaces as all files before it have bytes, so a place in
//! what was parsed is a place in the text of all, and [`ConfigText`] knows whose line that is.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::error::{BYTE_ORDER_MARK, ConfigText};
use super::read::Document;
use super::schema::{FILES_MAX, Include};
use super::section::Section;
use super::text_of;
use crate::os::files;
use crate::text;

/// How many files deep one may be included: `xdnsd.toml` itself is at 0.
const DEPTH_MAX: usize = 8;
/// What the name of a file in an included folder ends with.
const ENDING: &str = ".toml";
/// The key that is told.
const KEY: &str = "include.files";

/// A file that is yet to be read.
struct Wanted {
    path: PathBuf,
    depth: usize,
    /// Where it is named.
    at: usize,
}

/// Reads the text of each file, in order: that of the file at `path` is `first`. Faults are noted where a file is named.
pub fn gather(source: &mut ConfigText, path: &Path, first: &str) -> Vec<String> {
    let mut texts = vec![without_mark(first)];
    let mut known: Vec<((u64, u64), String)> = Vec::new();
    known.extend(identity(path).map(|identity| (identity, source.file().to_owned())));
    // The next one is the last of these: what a file includes stands in its place.
    let mut wanted = named_in(source, path, (0, &texts[0]), 0);
    while let Some(next) = wanted.pop() {
        if texts.len() == FILES_MAX {
            source.fault_at(
                next.at,
                KEY,
                "this is a file too many",
                format!("at most {FILES_MAX} files"),
            );
            break;
        }
        let Some(text) = read(source, &next, &mut known) else {
            continue;
        };
        let number = texts.len();
        let more = named_in(source, &next.path, (number, &text), next.depth);
        wanted.extend(more);
        texts.push(text);
    }
    texts
}

/// The text of one file, with spaces in front of it.
fn read(
    source: &mut ConfigText,
    wanted: &Wanted,
    known: &mut Vec<((u64, u64), String)>,
) -> Option<String> {
    let file = text::path(&wanted.path);
    if wanted.depth > DEPTH_MAX {
        let problem = format!("{file} is included {} files deep", wanted.depth);
        source.fault_at(wanted.at, KEY, problem, format!("at most {DEPTH_MAX}"));
        return None;
    }
    if let Some(identity) = identity(&wanted.path) {
        if let Some((_, earlier)) = known.iter().find(|(known, _)| *known == identity) {
            let problem = format!("{file} is read already, as {earlier}");
            source.fault_at(wanted.at, KEY, problem, "each file once");
            return None;
        }
        known.push((identity, file.clone()));
    }
    match text_of(&wanted.path, source.bytes() as u64) {
        Ok(text) => {
            let start = source.append(&file, &text);
            Some(format!("{:start$}{}", "", without_mark(&text)))
        }
        Err((valid, problem)) => {
            match valid {
                None => source.fault_at(wanted.at, KEY, format!("{file}: {problem}"), ""),
                Some(valid) => {
                    let start = source.append(&file, &valid);
                    source.fault_at(start + valid.len(), "", problem, "");
                }
            }
            None
        }
    }
}

/// A text for the parser: with as many spaces in place of a byte-order mark.
fn without_mark(text: &str) -> String {
    match text.strip_prefix(BYTE_ORDER_MARK) {
        Some(rest) => format!("{:1$}{rest}", "", BYTE_ORDER_MARK.len_utf8()),
        None => text.to_owned(),
    }
}

/// What tells a file from all others. `None`: it is not there.
fn identity(path: &Path) -> Option<(u64, u64)> {
    let found = fs::metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

/// The files that a text includes, the first of them last. What is wrong in it besides is noted when it is read.
fn named_in(
    source: &mut ConfigText,
    path: &Path,
    (number, text): (usize, &str),
    depth: usize,
) -> Vec<Wanted> {
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() || !table.get_ref().contains_key(Include::NAME) {
        return Vec::new();
    }
    let place = format!("{}[{number}]", Include::NAME);
    let include = Document::over(source, table.into_inner()).include(place.clone());
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut wanted = Vec::new();
    for (index, written) in include.files.iter().enumerate() {
        let at = source
            .offset(&format!("{place}.files[{index}]"))
            .unwrap_or_default();
        match found(&folder.join(written.as_str())) {
            Ok(paths) => wanted.extend(paths.into_iter().map(|path| Wanted {
                path,
                depth: depth + 1,
                at,
            })),
            Err(problem) => source.fault_at(at, KEY, problem, ""),
        }
    }
    wanted.reverse();
    wanted
}

/// The files that a path stands for, in the order of their names: itself; those of a folder; those that a `*` in its last part
/// covers.
fn found(path: &Path) -> Result<Vec<PathBuf>, String> {
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    if let Some((begin, end)) = name.split_once('*') {
        let folder = path.parent().unwrap_or(Path::new(""));
        return in_folder(folder, begin, end);
    }
    if path.is_dir() {
        return in_folder(path, "", ENDING);
    }
    Ok(vec![path.to_owned()])
}

/// Files whose names begin and end so. Hidden ones are left out, as a shell leaves them out.
fn in_folder(folder: &Path, begin: &str, end: &str) -> Result<Vec<PathBuf>, String> {
    let folder = if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    };
    let why = |error| format!("{}: {}", text::path(folder), files::why(&error));
    let is_meant = |name: &[u8]| {
        let is_long = name.len() >= begin.len() + end.len();
        let is_shown = begin.starts_with('.') || !name.starts_with(b".");
        is_long && is_shown && name.starts_with(begin.as_bytes()) && name.ends_with(end.as_bytes())
    };
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(why)? {
        let entry = entry.map_err(why)?;
        let path = entry.path();
        if is_meant(entry.file_name().as_encoded_bytes()) && !path.is_dir() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}
