//! Published lists of prefixes: Spamhaus' DROP, FireHOL's netsets, one prefix or address a line.
//!
//! ```text
//! ; Spamhaus DROP List          # a comment, behind either sign
//! 192.0.2.0/24 ; SBL123456
//! 2001:db8::/32
//! ```
//! One invalid line makes the whole file invalid: a truncated list, or another file, is not to be trusted. Then its last good
//! contents stay in force, and the other files are taken as they are.
//! If there is not enough room, the last prefixes are left out. Those of the config itself come first, then the files in their
//! order, and in each the allowed prefixes before the denied ones.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::prefix::{Prefix, PrefixError};
use super::problem::{Problem, read_text};
use crate::os::files;

/// Maximum size of a file, in bytes: ten thousand prefixes with long comments.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Maximum number of invalid lines that are reported for a file.
const PROBLEMS_MAX: usize = 8;
/// Maximum length of an invalid line in a report, in characters.
const SHOWN_MAX: usize = 60;

/// Verdict on packets from a prefix. The longest prefix that contains an address decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Dropped.
    Deny,
    /// Passed, although a shorter prefix denies them.
    Allow,
}

impl Verdict {
    /// Name of the verdict.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Allow => "allow",
        }
    }
}

/// Prefixes and files of prefixes in the config.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrefixInput {
    /// Prefixes of the config that are denied.
    pub deny: Vec<Prefix>,
    /// Prefixes of the config that are allowed.
    pub allow: Vec<Prefix>,
    /// Files of denied prefixes.
    pub deny_files: Vec<PathBuf>,
    /// Files of allowed prefixes.
    pub allow_files: Vec<PathBuf>,
}

impl PrefixInput {
    /// All files, in the order in which they are read.
    pub fn files(&self) -> impl Iterator<Item = PrefixFile<'_>> {
        let of = |verdict, files| {
            let files: std::slice::Iter<'_, PathBuf> = files;
            files.map(move |path| PrefixFile { path, verdict })
        };
        let allow = of(Verdict::Allow, self.allow_files.iter());
        allow.chain(of(Verdict::Deny, self.deny_files.iter()))
    }
}

/// A file, and the verdict on its prefixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixFile<'a> {
    /// Path of the file.
    pub path: &'a Path,
    /// Verdict on its prefixes.
    pub verdict: Verdict,
}

/// Set of files that have a prefix: bit N is the N-th of [`PrefixInput::files`]; those from the 16th on share a bit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sources(pub u16);

impl Sources {
    /// No file: the config itself.
    const CONFIG: Self = Self(0);

    /// The file at this index.
    #[must_use]
    pub fn of(place: usize) -> Self {
        Self(1 << place.min(u16::BITS as usize - 1))
    }

    /// True if it shares a file with `other`.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// A prefix with its verdict and sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The prefix; IPv4 in its own form.
    pub prefix: Prefix,
    /// Verdict on its packets.
    pub verdict: Verdict,
    /// Files that have the prefix, whatever their verdict.
    pub sources: Sources,
}

/// Result of reading the prefixes.
#[derive(Debug, Default)]
pub struct PrefixRules {
    /// Rules in order of their prefixes, each once; a prefix that is both denied and allowed is allowed.
    pub rules: Vec<Rule>,
    /// Problems. A file with a problem contributes nothing.
    pub problems: Vec<Problem>,
    /// Files that other accounts may write to: they are used all the same.
    pub doubts: Vec<Problem>,
    /// Maximum number of rules.
    room: usize,
    /// Number of rules that did not fit, by file.
    left_out: Vec<(String, usize)>,
}

/// Reads all files, for a table with `room`. For an unusable file, `kept` gives its last good prefixes.
#[must_use]
pub fn read(
    input: &PrefixInput,
    room: usize,
    kept: impl Fn(PrefixFile<'_>) -> Vec<Prefix>,
) -> PrefixRules {
    let mut table = Table {
        rules: BTreeMap::new(),
        read: PrefixRules {
            room,
            ..PrefixRules::default()
        },
    };
    let by_config = |verdict| (verdict, Sources::CONFIG);
    table.add("shield.allow", by_config(Verdict::Allow), &input.allow);
    table.add("shield.deny", by_config(Verdict::Deny), &input.deny);
    for (place, file) in input.files().enumerate() {
        let name = file.path.display().to_string();
        let doubt = files::doubt(file.path, true);
        let doubt = doubt.map(|doubt| Problem::of(name.clone(), doubt));
        table.read.doubts.extend(doubt);
        let prefixes = read_file(file.path).unwrap_or_else(|problems| {
            table.read.problems.extend(problems);
            let kept = kept(file);
            table.read.problems.extend(say_kept(&name, kept.len()));
            kept
        });
        table.add(&name, (file.verdict, Sources::of(place)), &prefixes);
    }
    let rules = table.rules.into_iter();
    let rules = rules.map(|(prefix, (verdict, sources))| Rule {
        prefix,
        verdict,
        sources,
    });
    PrefixRules {
        rules: rules.collect(),
        ..table.read
    }
}

/// Notes how many prefixes of an unusable file stay in force.
fn say_kept(name: &str, count: usize) -> Option<Problem> {
    let what = match count {
        0 => return None,
        1 => "1 prefix of it stays in force".to_owned(),
        _ => format!("{count} prefixes of it stay in force"),
    };
    Some(Problem::of(name.to_owned(), what))
}

impl PrefixRules {
    /// A line about rules that did not fit; `None` if all did.
    #[must_use]
    pub fn left_out(&self) -> Option<String> {
        if self.left_out.is_empty() {
            return None;
        }
        let each = self.left_out.iter();
        let each: Vec<String> = each
            .map(|(source, count)| format!("{count} of {source}"))
            .collect();
        let (room, each) = (self.room, each.join(", "));
        Some(format!(
            "more denied and allowed prefixes than there is room for ({room}): left out are {each}"
        ))
    }

    /// All lines for the log.
    #[must_use]
    pub fn in_words(&self) -> Vec<String> {
        let problems = self.problems.iter().map(ToString::to_string);
        problems.chain(self.left_out()).collect()
    }
}

/// Rules collected so far.
struct Table {
    rules: BTreeMap<Prefix, (Verdict, Sources)>,
    read: PrefixRules,
}

impl Table {
    fn add(&mut self, source: &str, said: (Verdict, Sources), prefixes: &[Prefix]) {
        let (verdict, sources) = said;
        let mut left_out = 0;
        for prefix in prefixes.iter().map(|prefix| prefix.unmapped()) {
            let is_full = self.rules.len() >= self.read.room;
            match self.rules.get_mut(&prefix) {
                // Of two verdicts, the greater one holds: `Allow`.
                Some((known, by)) => {
                    *known = verdict.max(*known);
                    by.0 |= sources.0;
                }
                None if is_full => left_out += 1,
                None => drop(self.rules.insert(prefix, said)),
            }
        }
        if left_out > 0 {
            self.read.left_out.push((source.to_owned(), left_out));
        }
    }
}

fn read_file(file: &Path) -> Result<Vec<Prefix>, Vec<Problem>> {
    let text = read_text(file, FILE_BYTES_MAX).map_err(|problem| vec![problem])?;
    parse(&text).map_err(|wrong| {
        let count = wrong.len();
        let told = wrong.into_iter().take(PROBLEMS_MAX);
        let mut problems: Vec<_> = told
            .map(|(line, what)| Problem::in_line(file, line, what))
            .collect();
        if count > PROBLEMS_MAX {
            let place = file.display().to_string();
            problems.push(Problem::of(place, format!("{count} lines are wrong")));
        }
        problems
    })
}

/// Parses the prefixes of a text. `Err`: each invalid line, from 1, with the reason.
fn parse(text: &str) -> Result<Vec<Prefix>, Vec<(usize, String)>> {
    let (mut prefixes, mut wrong) = (Vec::new(), Vec::new());
    for (index, line) in text.lines().enumerate() {
        let content = line.split(['#', ';']).next().unwrap_or_default().trim();
        if content.is_empty() {
            continue;
        }
        match content.parse() {
            Ok(prefix) => prefixes.push(prefix),
            Err(error) => wrong.push((index + 1, why(content, error))),
        }
    }
    if wrong.is_empty() {
        Ok(prefixes)
    } else {
        Err(wrong)
    }
}

/// Describes an error, with the correct form.
fn why(content: &str, error: PrefixError) -> String {
    let shown: String = content.chars().take(SHOWN_MAX).collect();
    let allowed = match error {
        PrefixError::Syntax => ", such as 192.0.2.0/24; a comment stands behind # or ;",
        PrefixError::Length if content.contains(':') => "; allowed: 0 to 128",
        PrefixError::Length => "; allowed: 0 to 32",
        PrefixError::Zone | PrefixError::HostBits(_) => "",
    };
    format!("`{shown}` {error}{allowed}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;

    fn prefixes(texts: &[&str]) -> Vec<Prefix> {
        let parse = |text: &&str| text.parse().expect("a prefix");
        texts.iter().map(parse).collect()
    }

    #[test]
    fn drop_lists_and_netsets_are_read() {
        let text = "; Spamhaus DROP List 2026/11/29\n\
                    192.0.2.0/24 ; SBL123456\r\n\
                    \t198.51.100.7\n\
                    \n\
                    # firehol_level1\n\
                    2001:db8::/32# next\n\
                    ::ffff:192.0.2.1\n\
                    0.0.0.0/0";
        let expected = [
            "192.0.2.0/24",
            "198.51.100.7",
            "2001:db8::/32",
            "::ffff:192.0.2.1",
            "0.0.0.0/0",
        ];
        assert_eq!(parse(text), Ok(prefixes(&expected)));
        assert_eq!(parse(""), Ok(Vec::new()));
        assert_eq!(parse("#\n;\n \n"), Ok(Vec::new()));
    }

    #[test]
    fn every_wrong_line_is_told_with_what_is_allowed() {
        let wrong = |line: &str| match parse(&format!("192.0.2.0/24\n\n{line}\n192.0.2.9")) {
            Err(wrong) => wrong[0].clone(),
            Ok(prefixes) => panic!("{line}: {prefixes:?}"),
        };
        let syntax = "is not an address, or an address/length, such as 192.0.2.0/24; a comment stands behind # or ;";
        for line in [
            "192.0.2.0 /24",
            "192.0.2.0-192.0.2.9",
            "192.0.2",
            "192.0.2.0/24 SBL1",
            "192.0.2.0/",
            "/24",
            "add drop 192.0.2.0/24",
            "<html>",
            "192.0.2.0/24,192.0.3.0/24",
            "192.0.2.0/-1",
            "192.0.2.0/99999999999999999999",
            "192.0.2.0\u{fffd}",
            "192.0.2.0\0",
            "0300.0.2.0/24",
        ] {
            assert_eq!(wrong(line), (3, format!("`{line}` {syntax}")));
        }
        let (_, what) = wrong("fe80::1%eth0");
        assert!(
            what.starts_with("`fe80::1%eth0` names an interface behind %"),
            "{what}"
        );
        let (_, what) = wrong("192.0.2.0/33");
        assert!(
            what.ends_with("bits than the address; allowed: 0 to 32"),
            "{what}"
        );
        let (_, what) = wrong("2001:db8::/129");
        assert!(what.ends_with("allowed: 0 to 128"), "{what}");
        let (_, what) = wrong("192.0.2.1/24");
        assert!(what.ends_with("is 192.0.2.0/24 meant?"), "{what}");
        let (_, what) = wrong(&"x".repeat(10_000));
        assert!(what.len() < 200, "{what}");
        let many = parse("x\ny\n1.2.3.4\nz").expect_err("three");
        let lines: Vec<usize> = many.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [1, 2, 4]);
    }

    #[test]
    fn an_allowed_prefix_that_is_also_denied_is_allowed_and_a_file_with_a_wrong_line_is_left_out() {
        let folder = Folder::new();
        let good = folder.write("good", "192.0.2.0/24\n198.51.100.0/24\n192.0.2.0/24\n");
        let lines: String = (0..20).map(|line| format!("no {line}\n")).collect();
        let bad = folder.write("bad", format!("203.0.113.0/24\n{lines}"));
        let input = PrefixInput {
            deny: prefixes(&["2001:db8::/32"]),
            allow: prefixes(&["192.0.2.0/24", "192.0.2.9"]),
            deny_files: vec![good, bad.clone(), folder.path().join("none")],
            allow_files: Vec::new(),
        };
        let read = read(&input, 100, |_| Vec::new());
        let rule = |text: &str, verdict, sources| Rule {
            prefix: prefixes(&[text])[0],
            verdict,
            sources: Sources(sources),
        };
        let expected = [
            rule("192.0.2.0/24", Verdict::Allow, 1),
            rule("192.0.2.9", Verdict::Allow, 0),
            rule("198.51.100.0/24", Verdict::Deny, 1),
            rule("2001:db8::/32", Verdict::Deny, 0),
        ];
        assert_eq!(read.rules, expected);
        let told = read.in_words();
        assert_eq!(told.len(), PROBLEMS_MAX + 2, "{told:?}");
        let bad = bad.display();
        assert!(
            told[0].starts_with(&format!("{bad}:2: `no 0` is not")),
            "{told:?}"
        );
        assert_eq!(told[PROBLEMS_MAX], format!("{bad}: 20 lines are wrong"));
        assert!(told[PROBLEMS_MAX + 1].ends_with("is not there"), "{told:?}");
    }

    /// Each file keeps its own prefixes, by its own verdict, also those that others have as well.
    #[test]
    fn a_file_that_cannot_be_used_keeps_what_it_said_and_the_others_are_taken() {
        let folder = Folder::new();
        let write = |name: &str, text: &str| folder.write(name, text);
        let input = PrefixInput {
            allow_files: vec![write("allowed", "192.0.2.1\n")],
            deny_files: vec![
                write("bad", "203.0.113.0/33\n"),
                folder.path().join("gone"),
                write("good", "198.51.100.0/24\n"),
            ],
            ..PrefixInput::default()
        };
        let kept = |file: PrefixFile<'_>| {
            assert_eq!(file.verdict, Verdict::Deny, "what is used is not asked for");
            match file.path.ends_with("bad") {
                true => prefixes(&["192.0.2.1", "203.0.113.0/24"]),
                false => prefixes(&["198.51.100.0/24"]),
            }
        };
        let read = read(&input, 100, kept);
        let rules = read.rules.iter();
        let rules: Vec<_> = rules
            .map(|rule| (rule.prefix.to_string(), rule.verdict, rule.sources.0))
            .collect();
        let expected = [
            ("192.0.2.1/32", Verdict::Allow, 0b0011),
            ("198.51.100.0/24", Verdict::Deny, 0b1100),
            ("203.0.113.0/24", Verdict::Deny, 0b0010),
        ];
        let expected = expected.map(|(prefix, verdict, by)| (prefix.to_owned(), verdict, by));
        assert_eq!(rules, expected);
        let told = read.in_words();
        assert_eq!(told.len(), 4, "{told:?}");
        assert!(
            told[1].ends_with("bad: 2 prefixes of it stay in force"),
            "{told:?}"
        );
        assert!(told[2].ends_with("gone: is not there"), "{told:?}");
        assert!(
            told[3].ends_with("gone: 1 prefix of it stays in force"),
            "{told:?}"
        );
    }

    #[test]
    fn sources_from_the_sixteenth_on_are_one() {
        let of = Sources::of;
        assert!(of(3).has(of(3)) && !of(3).has(of(4)) && !Sources::CONFIG.has(of(0)));
        assert!(of(15).has(of(16)) && of(99).has(of(15)) && !of(14).has(of(15)));
    }

    #[test]
    fn what_there_is_no_room_for_is_left_out_from_the_end_and_said() {
        let folder = Folder::new();
        let [first, second, allowed] = [
            folder.write("first", "192.0.2.1\n192.0.2.2\n192.0.2.3\n192.0.2.9\n"),
            folder.write("second", "::ffff:192.0.2.1\n198.51.100.1\n198.51.100.2\n"),
            folder.write("allowed", "192.0.2.9\n"),
        ];
        let input = PrefixInput {
            deny: prefixes(&["203.0.113.0/24"]),
            allow: prefixes(&["2001:db8::/32"]),
            deny_files: vec![first.clone(), second.clone()],
            allow_files: vec![allowed],
        };
        let kept = |room: usize| {
            let read = read(&input, room, |_| Vec::new());
            let (rules, left_out) = (&read.rules, read.left_out());
            let kept = rules.iter().map(|rule| rule.prefix.to_string());
            (
                kept.collect::<Vec<_>>().join(" "),
                left_out.unwrap_or_default(),
            )
        };
        let (first, second) = (first.display(), second.display());
        let head = |room| {
            format!(
                "more denied and allowed prefixes than there is room for ({room}): left out are"
            )
        };
        let all = "192.0.2.1/32 192.0.2.2/32 192.0.2.3/32 192.0.2.9/32 198.51.100.1/32 198.51.100.2/32 203.0.113.0/24 2001:db8::/32";
        assert_eq!(kept(8), (all.into(), String::new()));
        for (room, left, told) in [
            (
                7,
                "192.0.2.1/32 192.0.2.2/32 192.0.2.3/32 192.0.2.9/32 198.51.100.1/32 203.0.113.0/24 2001:db8::/32",
                format!("1 of {second}"),
            ),
            (
                4,
                "192.0.2.1/32 192.0.2.9/32 203.0.113.0/24 2001:db8::/32",
                format!("2 of {first}, 2 of {second}"),
            ),
            (2, "203.0.113.0/24 2001:db8::/32", String::new()),
        ] {
            let (have, said) = kept(room);
            assert_eq!(have, left, "{room}");
            assert!(said.starts_with(&head(room)), "{said}");
            assert!(said.ends_with(&told), "{said}");
        }
    }

    #[test]
    fn who_else_may_write_to_a_file_is_told_and_the_file_used() {
        use std::os::unix::fs::PermissionsExt;
        let folder = Folder::new();
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).expect("mode");
        let mut input = PrefixInput::default();
        for (files, name) in [
            (&mut input.deny_files, "deny"),
            (&mut input.allow_files, "allow"),
        ] {
            let file = folder.write(name, "192.0.2.0/24\n");
            std::fs::set_permissions(&file, PermissionsExt::from_mode(0o666)).expect("mode");
            files.push(file);
        }
        let rules = read(&input, 9, |_| Vec::new());
        assert_eq!((rules.rules.len(), rules.problems.len()), (1, 0));
        let said: Vec<_> = rules.doubts.iter().map(ToString::to_string).collect();
        let is_told = |line: &String| line.ends_with(": anybody may write to it (mode 666)");
        assert!(said.len() == 2 && said.iter().all(is_told), "{said:?}");
    }
}
