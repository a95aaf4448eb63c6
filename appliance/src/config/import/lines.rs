//! The lines of dnsmasq's configuration, with those of the files that it names.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::mem;
use std::path::{Path, PathBuf};
use std::vec;

use crate::config::foreign;
use crate::os::files;
use crate::text;

/// A file larger than this is something else.
pub const FILE_BYTES_MAX: u64 = 16 << 20;
/// Files that are followed.
const FILES_MAX: usize = 1_000;
/// What may stand in a file of servers.
const OF_SERVERS: &[&str] = &["server", "local", "rev-server"];

/// A line of a file, as it is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// The file and the number, from 1: `FILE:LINE`.
    pub place: String,
    /// The option, and what stands behind its `=`, without quotes.
    pub option: String,
    /// Empty: nothing.
    pub value: String,
    /// The value's parts between commas. A comma in quotes is part of what they hold.
    pub parts: Vec<String>,
}

impl Line {
    fn new(place: String, option: String, written: &str) -> Self {
        let chars = unquoted(written);
        let parts = chars.split(|(char, is_quoted)| *char == ',' && !is_quoted);
        Self {
            place,
            option,
            value: trimmed(&chars),
            parts: parts.map(trimmed).collect(),
        }
    }

    /// What is said of it.
    pub fn told(&self, why: &str) -> String {
        let Self { place, option, .. } = self;
        format!("{place}: {}: {why}", text::line(option))
    }
}

/// The characters of a value without its quotes, and whether each stood in them.
fn unquoted(written: &str) -> Vec<(char, bool)> {
    let mut chars = Vec::new();
    let mut is_quoted = false;
    let mut rest = written.chars().peekable();
    while let Some(char) = rest.next() {
        match char {
            '"' => is_quoted = !is_quoted,
            '\\' if is_quoted => {
                let meant = rest.peek().copied().and_then(escaped);
                if meant.is_some() {
                    rest.next();
                }
                chars.push((meant.unwrap_or(char), true));
            }
            char => chars.push((char, is_quoted)),
        }
    }
    chars
}

/// What a character behind a backslash means in quotes. `None`: the backslash is one.
const fn escaped(char: char) -> Option<char> {
    Some(match char {
        't' => '\t',
        'n' => '\n',
        'r' => '\r',
        'b' => '\u{8}',
        'e' => '\u{1b}',
        '\\' | '"' => char,
        _ => return None,
    })
}

/// Without the white space around it that is not in quotes.
fn trimmed(chars: &[(char, bool)]) -> String {
    let is_kept = |(char, is_quoted): &(char, bool)| *is_quoted || !char.is_whitespace();
    let start = chars.iter().position(is_kept).unwrap_or(chars.len());
    let end = chars.iter().rposition(is_kept).map_or(start, |at| at + 1);
    chars[start..end].iter().map(|(char, _)| char).collect()
}

/// What is yet to be read.
#[derive(Debug)]
enum Waiting {
    File {
        path: PathBuf,
        named_by: Option<Line>,
        /// Only servers may stand in it.
        is_servers: bool,
    },
    /// The rest of a file that names others.
    Rest {
        lines: vec::IntoIter<Line>,
        is_servers: bool,
    },
}

/// All lines, in the order in which dnsmasq reads them.
#[derive(Debug, Default)]
pub struct Lines {
    pub lines: Vec<Line>,
    /// What could not be followed.
    pub listed: Vec<String>,
    /// The files that were read.
    pub files: BTreeSet<String>,
    seen: HashSet<PathBuf>,
    /// The next one last: a file that is named stands in place of the line that names it. Each file is read once, so this has
    /// an end.
    waiting: Vec<Waiting>,
    /// Files of servers are named here. dnsmasq reads them behind all others.
    servers: Vec<Line>,
}

impl Lines {
    /// Reads these files and those that they name.
    ///
    /// # Errors
    /// One of these cannot be read; one that is named is listed.
    pub fn read(paths: &[PathBuf]) -> Result<Self, String> {
        let mut all = Self::default();
        for path in paths {
            match why_left_out(path).filter(|_| paths.len() > 1) {
                Some(why) => all.listed.push(format!("{}: {why}", text::path(path))),
                None => all.follow(path.clone(), None, false)?,
            }
        }
        for line in mem::take(&mut all.servers) {
            all.follow(PathBuf::from(&line.value), Some(line), true)?;
        }
        Ok(all)
    }

    fn follow(
        &mut self,
        path: PathBuf,
        named_by: Option<Line>,
        is_servers: bool,
    ) -> Result<(), String> {
        self.waiting.push(Waiting::File {
            path,
            named_by,
            is_servers,
        });
        while let Some(next) = self.waiting.pop() {
            match next {
                Waiting::File {
                    path,
                    named_by,
                    is_servers,
                } => self.file(&path, named_by.as_ref(), is_servers)?,
                Waiting::Rest { lines, is_servers } => self.rest(lines, is_servers),
            }
        }
        Ok(())
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
        let others = by.is_none().then(|| foreign::not_dnsmasqs(&bytes));
        if let Some(what) = others.flatten() {
            return Err(format!(
                "{shown}: this {what}; {} is wanted here",
                foreign::DNSMASQS
            ));
        }
        self.files.insert(shown.clone());
        let lines = (1..).zip(written.lines()).filter_map(|(number, written)| {
            let (option, value) = option(written)?;
            Some(Line::new(format!("{shown}:{number}"), option, &value))
        });
        let lines: Vec<Line> = lines.collect();
        self.waiting.push(Waiting::Rest {
            lines: lines.into_iter(),
            is_servers,
        });
        Ok(())
    }

    /// Takes over lines up to one that names other files: they come next.
    fn rest(&mut self, mut lines: vec::IntoIter<Line>, is_servers: bool) {
        while let Some(line) = lines.next() {
            let named = match line.option.as_str() {
                option if is_servers && !OF_SERVERS.contains(&option) => {
                    self.listed
                        .push(line.told("only servers stand in such a file"));
                    continue;
                }
                "conf-file" => vec![PathBuf::from(&line.value)],
                "conf-dir" => match in_folder(&line.parts) {
                    Ok(paths) => paths,
                    Err(why) => {
                        self.listed.push(line.told(&why));
                        continue;
                    }
                },
                "servers-file" => {
                    self.servers.push(line);
                    continue;
                }
                _ => {
                    self.lines.push(line);
                    continue;
                }
            };
            self.waiting.push(Waiting::Rest { lines, is_servers });
            let named = named.into_iter().rev().map(|path| Waiting::File {
                path,
                named_by: Some(line.clone()),
                is_servers: false,
            });
            self.waiting.extend(named);
            return;
        }
    }
}

/// Why this is left out where several are named, as a shell does for `*`.
fn why_left_out(path: &Path) -> Option<&'static str> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let ending = path.extension().unwrap_or_default().to_string_lossy();
    if path.is_dir() {
        Some("is a folder and left out: name its files")
    } else if is_backup(&name) || ending.starts_with("dpkg-") {
        Some("is a copy of an editor's or dpkg's, and left out")
    } else {
        None
    }
}

/// True for files that are in the making, or were left by an editor.
fn is_backup(name: &str) -> bool {
    let is_open = name.starts_with('#') && name.ends_with('#');
    name.ends_with('~') || is_open
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
        let mut others = endings
            .iter()
            .filter(|ending| !ending.is_empty() && !ending.starts_with('*'));
        let is_wanted = read.is_empty() || read.iter().any(|ending| name.ends_with(ending));
        is_backup(name)
            || name.starts_with('.')
            || !is_wanted
            || others.any(|ending| name.ends_with(ending.as_str()))
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
    }

    #[test]
    fn quotes_and_escapes_are_taken_off() {
        for (written, value, parts) in [
            (
                "a, \"b, \\\"c\\\"\" ,,d",
                "a, b, \"c\" ,,d",
                &["a", "b, \"c\"", "", "d"][..],
            ),
            ("\"192.0.2.1#53\"", "192.0.2.1#53", &["192.0.2.1#53"][..]),
            ("/x/\"192.0.2.1\" ", "/x/192.0.2.1", &["/x/192.0.2.1"][..]),
            (
                "\" \\t\\n\\r\\b\\e\\\\\\x\" ",
                " \t\n\r\u{8}\u{1b}\\\\x",
                &[" \t\n\r\u{8}\u{1b}\\\\x"][..],
            ),
            ("a\\t", "a\\t", &["a\\t"][..]),
            ("", "", &[""][..]),
        ] {
            let line = Line::new("f:1".into(), "txt-record".into(), written);
            assert_eq!(line.value, value, "{written}");
            assert_eq!(line.parts, parts, "{written}");
        }
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
            ("one", "option-one\nconf-file=none\noption-two\n"),
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
            format!(
                "option-m\nconf-file=\"{here}/one\"\nservers-file={here}/servers\nconf-file={here}/main\n\
                 conf-dir={here}/no\noption-n\n"
            ),
        );
        let found = Lines::read(&[main]).expect("read");
        let options: Vec<_> = found
            .lines
            .iter()
            .map(|line| line.option.as_str())
            .collect();
        assert_eq!(
            options,
            ["option-m", "option-one", "option-two", "option-n", "server"]
        );
        let listed: Vec<_> = found
            .listed
            .iter()
            .map(|line| line.replace(&here, ""))
            .collect();
        assert_eq!(listed.len(), 4, "{listed:?}");
        assert!(
            listed[0].starts_with("/one:2: conf-file: none: "),
            "{listed:?}"
        );
        assert_eq!(
            listed[1],
            "/main:4: conf-file: /main is read already, or is one file too many"
        );
        assert!(listed[2].starts_with("/main:5: conf-dir: "), "{listed:?}");
        assert_eq!(
            listed[3],
            "/servers:2: log-queries: only servers stand in such a file"
        );
        let problem = Lines::read(&[folder.path().join("none")]).expect_err("missing");
        assert!(problem.starts_with(&format!("{here}/none: ")), "{problem}");
    }

    #[test]
    fn what_a_shell_names_besides_files_is_left_out() {
        let folder = Folder::new();
        std::fs::create_dir_all(folder.path().join("sub")).expect("made");
        let names = ["a.conf", "a.conf~", "a.conf.dpkg-old", "#a#"];
        let mut paths: Vec<_> = names
            .iter()
            .map(|name| folder.write(name, "option-a\n"))
            .collect();
        paths.push(folder.path().join("sub"));
        let found = Lines::read(&paths).expect("read");
        assert_eq!(found.lines.len(), 1);
        let listed: Vec<_> = found
            .listed
            .iter()
            .map(|line| line.replace(&folder.path().display().to_string(), ""))
            .collect();
        assert_eq!(
            listed,
            [
                "/a.conf~: is a copy of an editor's or dpkg's, and left out",
                "/a.conf.dpkg-old: is a copy of an editor's or dpkg's, and left out",
                "/#a#: is a copy of an editor's or dpkg's, and left out",
                "/sub: is a folder and left out: name its files",
            ]
        );
        // One that is named alone is meant.
        let alone = Lines::read(&paths[1..2]).expect("read");
        assert_eq!((alone.lines.len(), alone.listed.len()), (1, 0));
        assert!(Lines::read(&paths[4..]).is_err());
    }
}
