//! `cargo xtask tidy`: the habits of this repository that no other tool checks.
//!
//! Each rule is a test; its failures name file and line.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::arguments::Arguments;
use crate::signals::Signals;
use crate::test::tally::Tally;
use crate::workspace;

/// Lines of a source file, its tests included.
const FILE_LINES_MAX: usize = 650;
/// Lines of a file that is all tests.
const TEST_FILE_LINES_MAX: usize = 1000;
/// Lines of a function.
const FUNCTION_LINES_MAX: usize = 70;
/// Lines of a function in tests, where a table of cases is long and still one thing.
const TEST_FUNCTION_LINES_MAX: usize = 100;

/// What stands at the top of the repository: the parts, and beside them what tools and readers look for there.
const TOP: &[&str] = &[
    "appliance",
    "buildroot",
    "config",
    "ebpf",
    "findings",
    "qemu-test",
    ".cargo",
    ".ci",
    ".gitignore",
    "ARCHITECTURE.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "SECURITY.md",
    "deny.toml",
    "rust-toolchain.toml",
];

/// A file under version control that is text.
struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    fn is_rust(&self) -> bool {
        self.path
            .extension()
            .is_some_and(|extension| extension == "rs")
    }

    fn is_manifest(&self) -> bool {
        self.path
            .file_name()
            .is_some_and(|name| name == "Cargo.toml")
    }

    fn is_all_tests(&self) -> bool {
        self.path.file_stem().is_some_and(|stem| stem == "tests")
            || self
                .path
                .components()
                .any(|part| part.as_os_str() == "tests")
    }

    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line))
    }

    /// `file:line` of every line that is wrong.
    fn find(&self, is_wrong: impl Fn(&str) -> bool) -> Vec<String> {
        let wrong = self.lines().filter(|(_, line)| is_wrong(line));
        wrong
            .map(|(number, line)| format!("{}:{number}: {}", self.path.display(), line.trim()))
            .collect()
    }
}

/// A habit, and how to find what breaks it.
struct Rule {
    name: &'static str,
    check: fn(&Source) -> Vec<String>,
}

const RULES: &[Rule] = &[
    Rule {
        name: "no line ends in white space",
        check: trailing_space,
    },
    Rule {
        name: "every file ends in one newline",
        check: final_newline,
    },
    Rule {
        name: "what is left to do is an issue, not a comment",
        check: left_to_do,
    },
    Rule {
        name: "a lint is expected with a reason, never allowed",
        check: bare_allow,
    },
    Rule {
        name: "a file has a size that can be read",
        check: file_length,
    },
    Rule {
        name: "a function has a size that can be read",
        check: function_length,
    },
    Rule {
        name: "a file is in one of the parts",
        check: stray_at_top,
    },
    Rule {
        name: "every dependency says why it is there",
        check: unexplained_dependency,
    },
];

/// Carries out `tidy`.
pub fn main(arguments: Arguments, _: &Signals) -> Result<ExitCode> {
    arguments.finish()?;
    let sources = sources()?;
    let mut tally = Tally::default();
    for rule in RULES {
        let wrong: Vec<_> = sources.iter().flat_map(rule.check).collect();
        if wrong.is_empty() {
            tally.passed += 1;
            println!("ok {}", rule.name);
        } else {
            tally.failed += 1;
            println!("FAILED {}:\n    {}", rule.name, wrong.join("\n    "));
        }
    }
    println!("{tally}");
    Ok(if tally.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn sources() -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    for path in workspace::files()? {
        let bytes = fs::read(workspace::root().join(&path));
        let bytes = bytes.with_context(|| format!("read {}", path.display()))?;
        // What is not UTF-8 is an object or an image.
        if let Ok(text) = String::from_utf8(bytes)
            && !is_generated(&path)
        {
            sources.push(Source { path, text });
        }
    }
    Ok(sources)
}

fn is_generated(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| matches!(extension.to_str(), Some("lock" | "patch")))
        || path.file_name().is_some_and(|name| name == "LICENSE")
}

fn trailing_space(source: &Source) -> Vec<String> {
    source.find(|line| line.ends_with([' ', '\t', '\r']))
}

fn final_newline(source: &Source) -> Vec<String> {
    let text = &source.text;
    let is_right = text.is_empty() || (text.ends_with('\n') && !text.ends_with("\n\n"));
    if is_right {
        Vec::new()
    } else {
        vec![source.path.display().to_string()]
    }
}

fn left_to_do(source: &Source) -> Vec<String> {
    // In two parts, so that this file does not break its own rule.
    const MARKS: [&str; 7] = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X:"),
        concat!("HA", "CK:"),
        concat!("to", "do!("),
        concat!("unimple", "mented!("),
        concat!("db", "g!("),
    ];
    source.find(|line| MARKS.iter().any(|mark| line.contains(mark)))
}

fn bare_allow(source: &Source) -> Vec<String> {
    if !source.is_rust() {
        return Vec::new();
    }
    source.find(|line| {
        let line = line.trim_start();
        line.starts_with("#[allow(") || line.starts_with("#![allow(")
    })
}

fn file_length(source: &Source) -> Vec<String> {
    let limit = if source.is_all_tests() {
        TEST_FILE_LINES_MAX
    } else {
        FILE_LINES_MAX
    };
    let lines = source.text.lines().count();
    if !source.is_rust() || lines <= limit {
        return Vec::new();
    }
    vec![format!(
        "{}: {lines} lines, at most {limit}",
        source.path.display()
    )]
}

/// rustfmt puts the closing brace of a function under its first word.
fn function_length(source: &Source) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut limit = if source.is_all_tests() {
        TEST_FUNCTION_LINES_MAX
    } else {
        FUNCTION_LINES_MAX
    };
    let mut open: Option<(usize, String)> = None;
    for (number, line) in source.lines().filter(|_| source.is_rust()) {
        // Tests stand last in a file.
        if line == "#[cfg(test)]" {
            limit = TEST_FUNCTION_LINES_MAX;
        }
        if open.is_none() && is_function(line) && !line.ends_with([';', '}']) {
            let indent = line.len() - line.trim_start().len();
            open = Some((number, " ".repeat(indent) + "}"));
        } else if let Some((first, _)) = open.take_if(|(_, end)| line == end.as_str()) {
            let lines = number - first + 1;
            if lines > limit {
                let path = source.path.display();
                wrong.push(format!("{path}:{first}: {lines} lines, at most {limit}"));
            }
        }
    }
    wrong
}

fn is_function(line: &str) -> bool {
    const BEFORE: [&str; 8] = [
        "pub",
        "pub(crate)",
        "pub(super)",
        "const",
        "async",
        "unsafe",
        "extern",
        "\"C\"",
    ];
    let mut words = line
        .split_whitespace()
        .skip_while(|word| BEFORE.contains(word));
    words.next() == Some("fn")
}

fn stray_at_top(source: &Source) -> Vec<String> {
    let top = source.path.components().next();
    let is_known = top.is_some_and(|top| TOP.iter().any(|name| top.as_os_str() == *name));
    if is_known {
        Vec::new()
    } else {
        vec![source.path.display().to_string()]
    }
}

/// In a table of dependencies, a comment stands right above each, or above the first of a group without blank lines.
fn unexplained_dependency(source: &Source) -> Vec<String> {
    if !source.is_manifest() {
        return Vec::new();
    }
    let (mut is_table, mut is_explained, mut wrong) = (false, false, Vec::new());
    for (number, line) in source.lines() {
        if line.starts_with('[') {
            is_table = line.trim_end_matches(']').ends_with("dependencies");
            is_explained = false;
        } else if line.starts_with('#') {
            is_explained = true;
        } else if line.is_empty() {
            is_explained = false;
        } else if is_table && !is_explained && is_key(line) {
            wrong.push(format!("{}:{number}: {line}", source.path.display()));
        }
    }
    wrong
}

fn is_key(line: &str) -> bool {
    line.starts_with(|first: char| first.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::{FUNCTION_LINES_MAX, RULES, Source};

    /// The names of the rules that a file breaks.
    fn broken(path: &str, text: &str) -> Vec<&'static str> {
        let source = Source {
            path: path.into(),
            text: text.to_owned(),
        };
        RULES
            .iter()
            .filter(|rule| !(rule.check)(&source).is_empty())
            .map(|rule| rule.name)
            .collect()
    }

    #[test]
    fn every_rule_finds_what_breaks_it() {
        let long = format!(
            "fn long() {{\n{}}}\n",
            "    work();\n".repeat(FUNCTION_LINES_MAX - 1)
        );
        let cases = [
            ("config/a.md", "space \n".to_owned()),
            ("config/a.md", "no newline".to_owned()),
            ("ebpf/a.rs", concat!("// TO", "DO later\n").to_owned()),
            (
                "ebpf/a.rs",
                concat!("    #[al", "low(dead_code)]\n").to_owned(),
            ),
            ("ebpf/a.rs", "\n".repeat(2000) + "fn\n"),
            ("ebpf/a.rs", long),
            ("examples/a.rs", "fn main() {}\n".to_owned()),
            (
                "ebpf/Cargo.toml",
                "[dependencies]\nserde = \"1\"\n".to_owned(),
            ),
        ];
        for ((path, text), rule) in cases.iter().zip(RULES) {
            assert_eq!(broken(path, text), [rule.name], "{text}");
        }
    }

    #[test]
    fn what_is_right_breaks_no_rule() {
        let fits = "    work();\n".repeat(FUNCTION_LINES_MAX - 2);
        let table = "    work();\n".repeat(FUNCTION_LINES_MAX);
        let tests = format!("#[cfg(test)]\nfn cases() {{\n{table}}}\n");
        assert!(broken("ebpf/a.rs", &tests).is_empty());
        let code = format!("impl A {{\n    pub const fn fits() {{\n{fits}    }}\n}}\nfn f();\n");
        assert!(broken("ebpf/a.rs", &code).is_empty());
        let manifest = "[dependencies]\n# Why.\nserde = \"1\"\n\n[features]\na = []\n";
        assert!(broken("Cargo.toml", manifest).is_empty());
        assert!(broken("ebpf/empty.rs", "").is_empty());
    }
}
