//! The lines of dnsmasq's configuration, with those of the files that it names.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::os::files;
use crate::text;

/// A file larger than this is something else.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Files that are followed.
const FILES_MAX: usize = 1_000;

/// A line of a file, as it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The file and the number, from 1: `FILE:LINE`.
    pub place: String,
    /// The option, and what stands behind its `=`.
    pub option: String,
    /// Empty: nothing.
    pub value: String,
}

impl Line {
    /// What is said of it.
    pub fn told(&self, why: &str) -> String {
        let Self { place, option, .. } = self;
        format!("{place}: {}: {why}", text::line(option))
    }

    /// The value's parts between commas. Quotes are taken off, and a comma in them is part of what they hold.
    pub fn parts(&self) -> Vec<String> {
        let mut parts = vec![String::new()];
        let (mut is_quoted, mut is_escaped) = (false, false);
        for char in self.value.chars() {
            match char {
                _ if is_escaped => {
                    is_escaped = false;
                    parts.last_mut().expect("one at least").push(char);
                }
                '\\' if is_quoted => is_escaped = true,
                '"' => is_quoted = !is_quoted,
                ',' if !is_quoted => parts.push(String::new()),
                char => parts.last_mut().expect("one at least").push(char),
            }
        }
        parts.iter().map(|part| part.trim().to_owned()).collect()
    }
}

/// All lines, in the order in which dnsmasq reads them.
#[derive(Debug, Default)]
pub struct Lines {
    pub lines: Vec<Line>,
    /// What could not be followed.
    pub listed: Vec<String>,
    seen: HashSet<PathBuf>,
    /// Files to be read, the next one last, and whether only servers may stand in it.
    waiting: Vec<(PathBuf, Option<Line>, bool)>,
}

impl Lines {
    /// Reads these files and those that they name.
    ///
    /// # Errors
    /// One of these cannot be read; one that is named is listed.
    pub fn read(paths: &[PathBuf]) -> Result<Self, String> {
        let mut all = Self::default();
        for path in paths {
            all.waiting.push((path.clone(), None, false));
            while let Some((path, named_by, is_servers)) = all.waiting.pop() {
                all.file(&path, named_by.as_ref(), is_servers)?;
            }
        }
        Ok(all)
    }

    fn file(&mut self, path: &Path, by: Option<&Line>, is_servers: bool) -> Result<(), String> {
        let shown = text::path(path);
        let whole = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        if self.seen.len() >= FILES_MAX || !self.seen.insert(whole) {
            let why = format!("{shown} is read already, or is one file too many");
            self.listed.extend(by.map(|line| line.told(&why)));
            return Ok(());
        }
        let bytes = match (files::read(path, FILE_BYTES_MAX), by) {
            (Ok(bytes), _) => bytes,
            (Err(error), None) => return Err(format!("{shown}: {}", files::why(&error))),
            (Err(error), Some(line)) => {
                let why = format!("{shown}: {}", files::why(&error));
                self.listed.push(line.told(&why));
                return Ok(());
            }
        };
        let written = String::from_utf8_lossy(&bytes);
        let mut named = Vec::new();
        for (number, written) in (1..).zip(written.lines()) {
            let Some((option, value)) = option(written) else {
                continue;
            };
            let line = Line {
                place: format!("{shown}:{number}"),
                option,
                value,
            };
            match line.option.as_str() {
                _ if is_servers
                    && !["server", "local", "rev-server"].contains(&line.option.as_str()) =>
                {
                    self.listed
                        .push(line.told("only servers stand in such a file"));
                }
                "conf-file" => named.push((PathBuf::from(&line.value), Some(line), false)),
                "servers-file" => named.push((PathBuf::from(&line.value), Some(line), true)),
                "conf-dir" => match in_folder(&line.parts()) {
                    Ok(paths) => {
                        let paths = paths.into_iter();
                        named.extend(paths.map(|path| (path, Some(line.clone()), false)));
                    }
                    Err(why) => self.listed.push(line.told(&why)),
                },
                _ => self.lines.push(line),
            }
        }
        named.reverse();
        self.waiting.extend(named);
        Ok(())
    }
}

/// The option of a line and its value. A `#` begins a comment where a line does or behind a space.
fn option(line: &str) -> Option<(String, String)> {
    let (mut is_quoted, mut is_escaped, mut before) = (false, false, ' ');
    let mut end = line.len();
    for (at, char) in line.char_indices() {
        match char {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            '#' if !is_quoted && before.is_whitespace() => {
                end = at;
                break;
            }
            _ => {}
        }
        before = char;
    }
    let line = line[..end].trim();
    let (option, value) = line.split_once('=').unwrap_or((line, ""));
    let option = option.trim().trim_start_matches("--");
    (!option.is_empty()).then(|| (option.to_owned(), value.trim().to_owned()))
}

/// The files of a folder that dnsmasq reads, in the order of their names. Behind the folder stand endings: those that are left out,
/// or with `*` in front those that are read alone.
fn in_folder(parts: &[String]) -> Result<Vec<PathBuf>, String> {
    let Some((folder, endings)) = parts.split_first() else {
        return Ok(Vec::new());
    };
    let read: Vec<&str> = endings
        .iter()
        .filter_map(|ending| ending.strip_prefix('*'))
        .collect();
    let is_left_out = |name: &str| {
        let is_backup = name.ends_with('~') || name.starts_with('.');
        let is_open = name.starts_with('#') && name.ends_with('#');
        let mut others = endings
            .iter()
            .filter(|ending| !ending.is_empty() && !ending.starts_with('*'));
        let is_wanted = read.is_empty() || read.iter().any(|ending| name.ends_with(ending));
        is_backup || is_open || !is_wanted || others.any(|ending| name.ends_with(ending.as_str()))
    };
    let entries = fs::read_dir(folder).map_err(|error| files::why(&error))?;
    let mut paths = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| files::why(&error))?;
        let is_meant = !is_left_out(&entry.file_name().to_string_lossy());
        if is_meant && !entry.path().is_dir() {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;

    #[test]
    fn a_line_is_an_option_and_its_value() {
        for (line, expected) in [
            ("# a comment", None),
            ("   ", None),
            ("domain-needed", Some(("domain-needed", ""))),
            (" domain-needed   # so", Some(("domain-needed", ""))),
            (
                "server = /x/192.0.2.1#53 # so",
                Some(("server", "/x/192.0.2.1#53")),
            ),
            ("server=/x/#", Some(("server", "/x/#"))),
            (
                "txt-record=a,\"b # \\\" c\" # so",
                Some(("txt-record", "a,\"b # \\\" c\"")),
            ),
        ] {
            let expected = expected.map(|(option, value)| (option.to_owned(), value.to_owned()));
            assert_eq!(option(line), expected, "{line}");
        }
        let line = Line {
            place: "f:1".into(),
            option: "txt-record".into(),
            value: "a, \"b, \\\"c\\\"\" ,,d".into(),
        };
        assert_eq!(line.parts(), ["a", "b, \"c\"", "", "d"]);
    }

    #[test]
    fn files_are_followed_as_dnsmasq_does() {
        let folder = Folder::new();
        let here = folder.path().display().to_string();
        std::fs::create_dir_all(folder.path().join("d/sub")).expect("made");
        for (name, content) in [
            ("d/20.conf", "option-b\n"),
            ("d/10.conf", "option-a\n"),
            ("d/30.conf~", "option-x\n"),
            ("d/.40.conf", "option-x\n"),
            ("d/#50.conf#", "option-x\n"),
            ("d/60.conf.dpkg-dist", "option-x\n"),
            ("d/70.txt", "option-t\n"),
            ("one", "option-one\nconf-file=none\n"),
            ("servers", "server=192.0.2.1\nlog-queries\n"),
        ] {
            folder.write(name, content);
        }
        for (endings, options) in [
            (",*.conf", vec!["a", "b"]),
            (",.dpkg-dist", vec!["a", "b", "t"]),
            ("", vec!["a", "b", "x", "t"]),
        ] {
            let main = folder.write("main", format!("conf-dir={here}/d{endings}\n"));
            let found = Lines::read(&[main]).expect("read");
            let found = found
                .lines
                .iter()
                .map(|line| &line.option["option-".len()..]);
            assert_eq!(found.collect::<Vec<_>>(), options);
        }
        let main = folder.write(
            "main",
            format!("conf-file={here}/one\nservers-file={here}/servers\nconf-file={here}/main\nconf-dir={here}/no\n"),
        );
        let found = Lines::read(&[main]).expect("read");
        let options: Vec<_> = found
            .lines
            .iter()
            .map(|line| line.option.as_str())
            .collect();
        assert_eq!(options, ["option-one", "server"]);
        let listed: Vec<_> = found
            .listed
            .iter()
            .map(|line| line.replace(&here, ""))
            .collect();
        assert_eq!(listed.len(), 4, "{listed:?}");
        assert!(listed[0].starts_with("/main:4: conf-dir: "), "{listed:?}");
        assert!(
            listed[1].starts_with("/one:2: conf-file: none: "),
            "{listed:?}"
        );
        assert_eq!(
            listed[2],
            "/servers:2: log-queries: only servers stand in such a file"
        );
        assert_eq!(
            listed[3],
            "/main:3: conf-file: /main is read already, or is one file too many"
        );
        let problem = Lines::read(&[folder.path().join("none")]).expect_err("missing");
        assert!(problem.starts_with(&format!("{here}/none: ")), "{problem}");
    }
}
