//! `cargo xtask tidy`: checks the repository's rules that no other tool checks.
//!
//! Each rule is a test; failures name file and line.

mod deny;
mod modules;
mod mutations;
mod rooms;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::measure::{Function, MANY_PARAMETERS, Reading, is_test_path, ratio};
use crate::test::tally::Tally;
use crate::workspace;

/// Most lines of a source file, its tests included.
const FILE_LINES_MAX: usize = 650;
/// Most lines of a file that is all tests.
const TEST_FILE_LINES_MAX: usize = 1000;
/// Most lines of a function.
const FUNCTION_LINES_MAX: usize = 60;
/// Most lines of a function in tests, where a table of cases may be long.
const TEST_FUNCTION_LINES_MAX: usize = 100;

/// Folders and files that may contain `unsafe`, behind a safe interface that cannot be misused.
const FENCES: &[&str] = &[
    "appliance/src/os/",
    // The kernel's sockets alone, as fast as possible: a benchmark's reference.
    "appliance/examples/udp_echo.rs",
    // The frame, and the kernel's helpers and maps.
    "ebpf/src/context.rs",
    "ebpf/src/frame/",
    "ebpf/src/kernel/",
    "ebpf/src/hot/kernel.rs",
    // Entry point with the kernel's context.
    "ebpf/src/lookup.rs",
    // bpf(2), packet sockets, namespaces, code in a child before exec, signals.
    "qemu-test/lab/src/bpf/",
    "qemu-test/lab/src/frames.rs",
    "qemu-test/lab/src/netns.rs",
    "qemu-test/lab/src/process.rs",
    "qemu-test/lab/src/live.rs",
    "qemu-test/xtask/src/bench/subject.rs",
    "qemu-test/xtask/src/qemu/guest.rs",
];

/// Entries at the top of the repository: its parts, and files that tools and readers expect there.
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

/// Most functions of the engine with many parameters, in percent.
const WIDE_PERCENT_MAX: f64 = 3.0;
/// The engine: code that runs for each query.
const ENGINE: &str = "appliance/core/src/engine";

/// A text file under version control.
struct Source {
    path: PathBuf,
    text: String,
    /// Counts from a Rust parser; `None` for other files.
    reading: Option<Result<Reading>>,
}

impl Source {
    fn new(path: PathBuf, text: String) -> Self {
        let is_rust = path.extension().is_some_and(|extension| extension == "rs");
        let reading = is_rust.then(|| Reading::of(&text, is_test_path(&path)));
        Self {
            path,
            text,
            reading,
        }
    }

    fn is_rust(&self) -> bool {
        self.reading.is_some()
    }

    /// Functions of a Rust source; empty for other files, and for source that does not parse, which another rule reports.
    fn functions(&self) -> &[Function] {
        match &self.reading {
            Some(Ok(reading)) => &reading.functions,
            Some(Err(_)) | None => &[],
        }
    }

    fn is_manifest(&self) -> bool {
        self.path
            .file_name()
            .is_some_and(|name| name == "Cargo.toml")
    }

    fn is_all_tests(&self) -> bool {
        is_test_path(&self.path)
    }

    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line))
    }

    /// `file:line` of every wrong line.
    fn find(&self, is_wrong: impl Fn(&str) -> bool) -> Vec<String> {
        let wrong = self.lines().filter(|(_, line)| is_wrong(line));
        wrong
            .map(|(number, line)| format!("{}:{number}: {}", self.path.display(), line.trim()))
            .collect()
    }
}

/// A rule for single files, and its check.
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
        name: "a source can be parsed",
        check: no_rust,
    },
    Rule {
        name: "a file is in one of the parts",
        check: stray_at_top,
    },
    Rule {
        name: "every dependency says why it is there",
        check: unexplained_dependency,
    },
    Rule {
        name: "unsafe stands in a fence",
        check: unfenced_unsafe,
    },
    Rule {
        name: "what is below std stays there",
        check: above_ground,
    },
];

/// The crate shared with the kernel's programs: no dependencies, no features.
const GROUND: &str = "ebpf/abi/";
/// Crates without std, alloc and unsafe.
const BELOW_STD: &[&str] = &[GROUND, "appliance/core/"];
/// Lines by which they could get std or alloc.
const WITH_STD: &[&str] = &["extern crate std;", "extern crate alloc;"];
/// Lines that their root module must have.
const BELOW_STD_SAYS: &[&str] = &["#![no_std]", "#![forbid(unsafe_code)]"];

/// A rule for all files together.
struct TreeRule {
    name: &'static str,
    check: fn(&[Source]) -> Vec<String>,
}

const TREE_RULES: &[TreeRule] = &[
    TreeRule {
        name: "functions of the engine take what belongs together as one",
        check: wide_functions,
    },
    TreeRule {
        name: "the drawings of ARCHITECTURE.md are those of the code",
        check: rooms::wrong_drawings,
    },
    TreeRule {
        name: "no modules use each other in a circle",
        check: rooms::circles_of_modules,
    },
    TreeRule {
        name: "a module with parts is the mod.rs of their folder",
        check: rooms::files_beside_folders,
    },
    TreeRule {
        name: "every mutation has its text and its test",
        check: mutations::without_text_or_test,
    },
    TreeRule {
        name: "the crates of the tree are what deny.toml allows",
        check: deny::breaches,
    },
];

/// Carries out `tidy`.
pub fn main() -> Result<ExitCode> {
    let sources = sources()?;
    let mut tally = Tally::default();
    let mut note = |name: &str, wrong: Vec<String>| {
        if wrong.is_empty() {
            tally.passed += 1;
            println!("ok {name}");
        } else {
            tally.failed += 1;
            println!("FAILED {name}:\n    {}", wrong.join("\n    "));
        }
    };
    for rule in RULES {
        note(rule.name, sources.iter().flat_map(rule.check).collect());
    }
    for rule in TREE_RULES {
        note(rule.name, (rule.check)(&sources));
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
        // Files that are not UTF-8 are objects or images.
        if let Ok(text) = String::from_utf8(bytes)
            && !is_generated(&path)
        {
            sources.push(Source::new(path, text));
        }
    }
    Ok(sources)
}

fn is_generated(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| matches!(extension.to_str(), Some("lock" | "patch" | "bin")))
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

fn function_length(source: &Source) -> Vec<String> {
    let wrong = source.functions().iter().filter_map(|function| {
        let limit = if function.is_test {
            TEST_FUNCTION_LINES_MAX
        } else {
            FUNCTION_LINES_MAX
        };
        let (
            path,
            Function {
                name, line, lines, ..
            },
        ) = (source.path.display(), function);
        (*lines > limit)
            .then(|| format!("{path}:{line}: {name} has {lines} lines, at most {limit}"))
    });
    wrong.collect()
}

/// No names while there are few: some functions of an interface need many parameters.
fn wide_functions(sources: &[Source]) -> Vec<String> {
    let (mut all, mut wide) = (0, Vec::new());
    for source in sources
        .iter()
        .filter(|source| source.path.starts_with(ENGINE))
    {
        for function in source
            .functions()
            .iter()
            .filter(|function| !function.is_test)
        {
            all += 1;
            if function.parameters >= MANY_PARAMETERS {
                let (
                    path,
                    Function {
                        name,
                        line,
                        parameters,
                        ..
                    },
                ) = (source.path.display(), function);
                wide.push(format!("{path}:{line}: {name} has {parameters} parameters"));
            }
        }
    }
    let percent = 100.0 * ratio(wide.len(), all);
    if percent <= WIDE_PERCENT_MAX {
        return Vec::new();
    }
    wide.push(format!(
        "{percent:.1} % of {all}, at most {WIDE_PERCENT_MAX} %"
    ));
    wide
}

fn no_rust(source: &Source) -> Vec<String> {
    let error = source
        .reading
        .as_ref()
        .and_then(|reading| reading.as_ref().err());
    let error = error.map(|error| format!("{}: {error:#}", source.path.display()));
    error.into_iter().collect()
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

/// In a table of dependencies, each needs a comment right above it, or above its group without blank lines.
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

/// Tests may use std, to play the kernel's part.
fn above_ground(source: &Source) -> Vec<String> {
    let path = source.path.to_string_lossy();
    if path.strip_prefix(GROUND) == Some("Cargo.toml") {
        return source.find(is_table_of_more);
    }
    let inside = BELOW_STD
        .iter()
        .find_map(|folder| path.strip_prefix(*folder));
    let mut wrong = Vec::new();
    if inside == Some("src/lib.rs") {
        let says = |wanted: &&&str| source.lines().any(|(_, line)| line == **wanted);
        let missing = BELOW_STD_SAYS.iter().filter(|wanted| !says(wanted));
        wrong.extend(missing.map(|wanted| format!("{path}: {wanted} is missing")));
    }
    let mut is_for_tests = inside.is_none();
    for (number, line) in source.lines() {
        if !is_for_tests && WITH_STD.contains(&line) {
            wrong.push(format!("{path}:{number}: {line}"));
        }
        is_for_tests = inside.is_none() || line == "#[cfg(test)]";
    }
    wrong
}

/// True for a manifest table that a crate without dependencies and features must not have. Dev-dependencies are allowed.
fn is_table_of_more(line: &str) -> bool {
    let table = line
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    table.is_some_and(|table| {
        table == "features" || table.ends_with("dependencies") && table != "dev-dependencies"
    })
}

fn unfenced_unsafe(source: &Source) -> Vec<String> {
    let path = source.path.to_string_lossy();
    let is_fenced = FENCES.iter().any(|fence| path.starts_with(fence));
    match &source.reading {
        Some(Ok(reading)) if reading.unsafes > 0 && !is_fenced => {
            vec![format!("{path}: {} times", reading.unsafes)]
        }
        _ => Vec::new(),
    }
}

fn is_key(line: &str) -> bool {
    line.starts_with(|first: char| first.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::{FUNCTION_LINES_MAX, RULES, Source, wide_functions};

    /// Names of the rules that a file breaks.
    fn broken(path: &str, text: &str) -> Vec<&'static str> {
        let source = Source::new(path.into(), text.to_owned());
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
                concat!("    #[al", "low(dead_code)]\nfn f() {}\n").to_owned(),
            ),
            ("ebpf/a.rs", "\n".repeat(2000) + "fn f() {}\n"),
            ("ebpf/a.rs", long),
            ("ebpf/a.rs", "fn broken(\n".to_owned()),
            ("examples/a.rs", "fn main() {}\n".to_owned()),
            (
                "ebpf/Cargo.toml",
                "[dependencies]\nserde = \"1\"\n".to_owned(),
            ),
            (
                "appliance/src/worker/a.rs",
                "fn f() {\n    unsafe { g() }\n}\n".to_owned(),
            ),
            ("appliance/core/src/lib.rs", "#![no_std]\n".to_owned()),
        ];
        for ((path, text), rule) in cases.iter().zip(RULES) {
            assert_eq!(broken(path, text), [rule.name], "{text}");
        }
    }

    #[test]
    fn a_few_functions_of_the_engine_may_be_wide() {
        let wide = "fn wide(a: u8, b: u8, c: u8, d: u8, e: u8) {}\n";
        let narrow = "fn narrow(&self, a: u8, b: u8, c: u8, d: u8) {}\n";
        let of = |wide_count: usize, narrow_count: usize| {
            let methods = wide.repeat(wide_count) + &narrow.repeat(narrow_count);
            format!("impl Engine {{\n{methods}}}\n")
        };
        let wrong = |path: &str, text: &str| {
            let source = Source::new(path.into(), text.to_owned());
            wide_functions(&[source])
        };
        let engine = "appliance/core/src/engine/a.rs";
        assert!(wrong(engine, &of(3, 97)).is_empty());
        let named = wrong(engine, &of(4, 96));
        assert_eq!(named.len(), 5);
        assert!(
            named[0].ends_with("a.rs:2: wide has 5 parameters"),
            "{named:?}"
        );
        assert!(wrong("appliance/core/src/policy/a.rs", &of(4, 96)).is_empty());
        let tests = format!("fn narrow() {{}}\n#[cfg(test)]\nmod tests {{\n{wide}}}\n");
        assert!(wrong(engine, &tests).is_empty());
    }

    #[test]
    fn what_is_right_breaks_no_rule() {
        let fits = "    work();\n".repeat(FUNCTION_LINES_MAX - 2);
        let table = "    work();\n".repeat(FUNCTION_LINES_MAX);
        let tests = format!("#[cfg(test)]\nfn cases() {{\n{table}}}\nfn f() {{}}\n");
        assert!(broken("ebpf/a.rs", &tests).is_empty());
        let code =
            format!("impl A {{\n    pub const fn fits() {{\n{fits}    }}\n}}\nfn f() {{}}\n");
        assert!(broken("ebpf/a.rs", &code).is_empty());
        let manifest = "[dependencies]\n# Why.\nserde = \"1\"\n\n[features]\na = []\n";
        assert!(broken("Cargo.toml", manifest).is_empty());
        assert!(broken("ebpf/empty.rs", "").is_empty());
        let fenced = "unsafe impl Send for A {}\n";
        assert!(broken("appliance/src/os/a.rs", fenced).is_empty());
        let in_tests = format!("#[cfg(test)]\nmod tests {{\n    {fenced}}}\n");
        assert!(broken("ebpf/src/flow/a.rs", &in_tests).is_empty());
        assert!(broken("ebpf/a.rs", "#[unsafe(no_mangle)]\nfn f() {}\n").is_empty());
    }

    #[test]
    fn what_is_below_std_is_known_by_its_words() {
        let lib = "#![no_std]\n#![forbid(unsafe_code)]\n";
        let for_tests = format!("{lib}#[cfg(test)]\nextern crate std;\n");
        for right in [
            ("ebpf/abi/src/lib.rs", lib),
            ("ebpf/abi/src/lib.rs", for_tests.as_str()),
            ("appliance/core/src/lib.rs", for_tests.as_str()),
            ("appliance/src/lib.rs", "extern crate alloc;\n"),
            (
                "ebpf/abi/Cargo.toml",
                "[package]\nname = \"a\"\n[dev-dependencies]\n# Why.\nb = \"1\"\n",
            ),
            ("ebpf/Cargo.toml", "[features]\na = []\n"),
        ] {
            assert!(broken(right.0, right.1).is_empty(), "{right:?}");
        }
        let with_alloc = format!("{lib}extern crate alloc;\n");
        for wrong in [
            ("ebpf/abi/src/lib.rs", "#![forbid(unsafe_code)]\n"),
            ("appliance/core/src/lib.rs", with_alloc.as_str()),
            ("appliance/core/src/dns/mod.rs", "extern crate std;\n"),
            ("ebpf/abi/Cargo.toml", "[features]\na = []\n"),
            ("ebpf/abi/Cargo.toml", "[dependencies]\n# Why.\nb = \"1\"\n"),
            (
                "ebpf/abi/Cargo.toml",
                "[target.'cfg(unix)'.dependencies]\n# Why.\nb = \"1\"\n",
            ),
        ] {
            let told = broken(wrong.0, wrong.1);
            assert_eq!(told, ["what is below std stays there"], "{wrong:?}");
        }
    }
}
