//! `cargo xtask measure`: sizes and habits of the sources as a table, for this repository and for others beside it.
//!
//! Tests are items under `#[cfg(test)]` and `#[test]`, and files in a folder or module named `tests`. Functions, comments and
//! `unsafe` are counted outside them; a function is measured from `fn` to its closing brace, its parameters without `self`.
//! Comments and docs are given as lines per 100 lines of code.

mod reading;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::workspace;
pub use reading::{Function, Reading};

/// Most lines of a function of the product. Longer ones are listed.
pub const FUNCTION_LINES_MAX: usize = 60;
/// Earlier limit for functions.
const OLD_FUNCTION_LINES_MAX: usize = 70;
/// From this many parameters a function should group some of them into a type.
pub const MANY_PARAMETERS: usize = 5;

/// Rows for this repository: name and folders.
const ROWS: [(&str, &[&str]); 6] = [
    ("core", &["appliance/core"]),
    ("core, engine", &["appliance/core/src/engine"]),
    ("appliance/src", &["appliance/src"]),
    ("ebpf", &["ebpf"]),
    ("product, all", &["appliance", "ebpf"]),
    ("qemu-test", &["qemu-test"]),
];

/// Arguments of `measure`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Folders of other sources; each gets a row.
    folders: Vec<PathBuf>,
    /// Also lists the functions with many lines or parameters.
    #[arg(long)]
    list: bool,
}

/// Carries out `measure`.
pub fn main(arguments: &Arguments) -> Result<ExitCode> {
    let own = own_sources()?;
    let mut rows = Vec::new();
    for (name, folders) in ROWS {
        let is_in = |source: &&Source| folders.iter().any(|folder| source.path.starts_with(folder));
        rows.push(Row::of(name, own.iter().filter(is_in)));
    }
    let mut foreign = Vec::new();
    for folder in &arguments.folders {
        let sources = sources_below(folder)?;
        rows.push(Row::of(&folder.display().to_string(), sources.iter()));
        foreign.extend(sources);
    }
    println!("{HEAD}");
    for row in &rows {
        println!("{row}");
    }
    if arguments.list {
        print!("\n{}", list(own.iter().chain(&foreign)));
    }
    Ok(ExitCode::SUCCESS)
}

/// A parsed file.
#[derive(Debug)]
struct Source {
    path: PathBuf,
    reading: Reading,
    is_all_tests: bool,
}

fn own_sources() -> Result<Vec<Source>> {
    let files = workspace::files()?.into_iter();
    let files: Vec<_> = files.filter(|file| is_rust(file)).collect();
    read_all(&workspace::root(), files)
}

/// All sources of a folder, except cargo's output.
fn sources_below(folder: &Path) -> Result<Vec<Source>> {
    let (mut files, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    // Bound: the number of folders; links are not followed.
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))? {
            let entry = entry.context("read a folder")?;
            let kind = entry.file_type().context("look at an entry")?;
            if kind.is_dir() && entry.file_name() != "target" {
                folders.push(entry.path());
            } else if kind.is_file() && is_rust(&entry.path()) {
                files.push(entry.path());
            }
        }
    }
    ensure!(
        !files.is_empty(),
        "{}: no sources of Rust",
        folder.display()
    );
    read_all(Path::new(""), files)
}

fn is_rust(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "rs")
}

/// Parses the files. One that no parser accepts, such as an example of invalid source, is reported and skipped.
fn read_all(root: &Path, files: Vec<PathBuf>) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    for path in files {
        let text = fs::read_to_string(root.join(&path));
        let text = text.with_context(|| format!("read {}", path.display()))?;
        let is_all_tests = is_test_path(&path);
        match Reading::of(&text, is_all_tests) {
            Ok(reading) => sources.push(Source {
                path,
                reading,
                is_all_tests,
            }),
            Err(error) => eprintln!("{} is left out: {error:#}", path.display()),
        }
    }
    mark_test_modules(root, &mut sources)?;
    Ok(sources)
}

/// True if the path marks a file as all tests.
pub fn is_test_path(path: &Path) -> bool {
    path.file_stem().is_some_and(|stem| stem == "tests")
        || path.components().any(|part| part.as_os_str() == "tests")
}

/// Parses again the files of modules that another file declares as tests.
fn mark_test_modules(root: &Path, sources: &mut [Source]) -> Result<()> {
    let modules: Vec<PathBuf> = sources.iter().flat_map(test_modules).collect();
    for source in sources {
        let is_one = |module: &PathBuf| {
            source.path == module.with_extension("rs") || source.path.starts_with(module)
        };
        if !source.is_all_tests && modules.iter().any(is_one) {
            source.is_all_tests = true;
            source.reading = Reading::of(&fs::read_to_string(root.join(&source.path))?, true)?;
        }
    }
    Ok(())
}

/// Paths of the modules that a file declares as tests, without extension.
fn test_modules(source: &Source) -> Vec<PathBuf> {
    let stem = source.path.with_extension("");
    let is_root = ["mod", "lib", "main"]
        .iter()
        .any(|name| stem.file_name().is_some_and(|stem| stem == *name));
    let folder = if is_root {
        stem.parent().unwrap_or(Path::new("")).to_owned()
    } else {
        stem
    };
    let modules = source.reading.test_modules.iter();
    modules.map(|name| folder.join(name)).collect()
}

/// The functions with many lines or parameters, the longest first.
fn list<'a>(sources: impl Iterator<Item = &'a Source>) -> String {
    let mut found = Vec::new();
    for source in sources {
        for function in source
            .reading
            .functions
            .iter()
            .filter(|function| !function.is_test)
        {
            let Function {
                name,
                line,
                lines,
                parameters,
                ..
            } = function;
            if *lines > FUNCTION_LINES_MAX || *parameters >= MANY_PARAMETERS {
                let path = source.path.display();
                let text =
                    format!("{lines:4} lines, {parameters} parameters: {path}:{line} {name}\n");
                found.push((*lines, text));
            }
        }
    }
    found.sort_by(|(one, _), (other, _)| other.cmp(one));
    found.into_iter().map(|(_, text)| text).collect()
}

const HEAD: &str = "\
| | files: med / p90 / max | fn: med / p90 / max | > 60 lines | > 70 lines | >= 5 params | comments | docs | test : code \
| unsafe / SAFETY | pub with doc | module doc |
|---|---|---|---|---|---|---|---|---|---|---|---|";

/// A row of the table.
#[derive(Debug, Default)]
struct Row {
    name: String,
    /// Lines of each file that is not all tests.
    files: Vec<usize>,
    /// Lines of each function.
    functions: Vec<usize>,
    /// Functions with many parameters.
    wide: usize,
    /// Files with a module doc comment.
    with_module_doc: usize,
    /// Sums over all files.
    sum: Reading,
}

impl Row {
    fn of<'a>(name: &str, sources: impl Iterator<Item = &'a Source>) -> Self {
        let mut row = Self {
            name: name.to_owned(),
            ..Self::default()
        };
        for source in sources {
            row.add(source);
        }
        row.files.sort_unstable();
        row.functions.sort_unstable();
        row
    }

    fn add(&mut self, source: &Source) {
        let reading = &source.reading;
        if !source.is_all_tests {
            self.files.push(reading.lines);
            self.with_module_doc += usize::from(reading.has_module_doc);
        }
        for function in reading
            .functions
            .iter()
            .filter(|function| !function.is_test)
        {
            self.functions.push(function.lines);
            self.wide += usize::from(function.parameters >= MANY_PARAMETERS);
        }
        let sum = &mut self.sum;
        for (sum, number) in [
            (&mut sum.code, reading.code),
            (&mut sum.tests, reading.tests),
            (&mut sum.comments, reading.comments),
            (&mut sum.docs, reading.docs),
            (&mut sum.unsafes, reading.unsafes),
            (&mut sum.safeties, reading.safeties),
            (&mut sum.publics, reading.publics),
            (&mut sum.documented, reading.documented),
        ] {
            *sum += number;
        }
    }

    fn longer_than(&self, lines: usize) -> usize {
        self.functions
            .iter()
            .filter(|function| **function > lines)
            .count()
    }
}

/// Median, ninth decile and maximum of sorted numbers.
fn spread(sorted: &[usize]) -> String {
    let at = |share: f64| {
        let index = (sorted.len().saturating_sub(1) as f64 * share).round() as usize;
        sorted.get(index).copied().unwrap_or_default()
    };
    format!("{} / {} / {}", at(0.5), at(0.9), at(1.0))
}

/// `part` divided by `whole`, or 0 if `whole` is 0.
pub fn ratio(part: usize, whole: usize) -> f64 {
    part as f64 / whole.max(1) as f64
}

impl fmt::Display for Row {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sum = &self.sum;
        write!(
            formatter,
            "| {} | {} | {} | {} | {} | {:.1} % | {:.1} | {:.0} | {:.2} | {} / {} | {:.0} % | {} of {} |",
            self.name,
            spread(&self.files),
            spread(&self.functions),
            self.longer_than(FUNCTION_LINES_MAX),
            self.longer_than(OLD_FUNCTION_LINES_MAX),
            100.0 * ratio(self.wide, self.functions.len()),
            100.0 * ratio(sum.comments, sum.code),
            100.0 * ratio(sum.docs, sum.code),
            ratio(sum.tests, sum.code),
            sum.unsafes,
            sum.safeties,
            100.0 * ratio(sum.documented, sum.publics),
            self.with_module_doc,
            self.files.len(),
        )
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::{Reading, Row, Source, is_test_path, list, spread, test_modules};

    fn source(path: &str, text: &str) -> Source {
        let is_all_tests = is_test_path(Path::new(path));
        Source {
            path: path.into(),
            reading: Reading::of(text, is_all_tests).expect("Rust"),
            is_all_tests,
        }
    }

    #[test]
    fn a_row_sums_up_what_is_in_its_files() {
        let long = format!("//! Doc.\nfn long() {{\n{}}}\n", "    work();\n".repeat(69));
        let sources = [
            source("a/src/long.rs", &long),
            source(
                "a/src/wide.rs",
                "// Why.\npub fn wide(a: u8, b: u8, c: u8, d: u8, e: u8) {}\n",
            ),
            source(
                "a/tests/all.rs",
                "fn test(a: u8, b: u8, c: u8, d: u8, e: u8) {}\n",
            ),
        ];
        let row = Row::of("a", sources.iter());
        let code = 72;
        let [comments, docs] = [1, 1].map(|lines| 100.0 * f64::from(lines) / f64::from(code));
        assert_eq!(
            row.to_string(),
            format!(
                "| a | 72 / 72 / 72 | 71 / 71 / 71 | 1 | 1 | 50.0 % | {comments:.1} | {docs:.0} | 0.01 | 0 / 0 | 0 % | 1 of 2 |"
            )
        );
        assert_eq!(
            list(sources.iter()),
            "  71 lines, 0 parameters: a/src/long.rs:2 long\n   \
             1 lines, 5 parameters: a/src/wide.rs:2 wide\n"
        );
    }

    #[test]
    fn a_spread_is_median_ninth_decile_and_maximum() {
        let numbers: Vec<usize> = (1..=101).collect();
        assert_eq!(spread(&numbers), "51 / 91 / 101");
        assert_eq!(spread(&[]), "0 / 0 / 0");
    }

    #[test]
    fn a_module_of_tests_is_found_beside_its_parent() {
        let text = "#[cfg(test)]\nmod testing;\nmod other;\n";
        for (path, wanted) in [
            ("a/src/lib.rs", "a/src/testing"),
            ("a/src/room/mod.rs", "a/src/room/testing"),
            ("a/src/room.rs", "a/src/room/testing"),
        ] {
            assert_eq!(test_modules(&source(path, text)), [PathBuf::from(wanted)]);
        }
    }
}
