//! Parses `mutations.toml`: changes of source text that reintroduce former faults, and the test that must detect each.

use std::fmt;

use anyhow::{Context, Result, bail, ensure};
use toml::{Table, Value};

/// Path of the list, relative to the root.
pub const LIST: &str = "qemu-test/mutations.toml";

/// Keys that every entry has.
const KEYS: [&str; 6] = ["row", "holds", "file", "text", "replacement", "test"];

/// An entry: a change that reintroduces a former fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mutation {
    /// Its name; several entries may share it.
    pub row: String,
    /// Property that is violated while it is applied.
    pub holds: String,
    /// Source file, relative to the root.
    pub file: String,
    /// Text that occurs there exactly once.
    pub text: String,
    /// Text that replaces it.
    pub replacement: String,
    /// Test that must fail.
    pub test: Test,
}

/// A test, as `cargo test` finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Test {
    /// The package and its target: `-p xdnsd --test blackbox`.
    pub binary: Binary,
    /// Name with its modules.
    pub name: String,
}

/// A binary of tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binary {
    /// Name of the package.
    pub package: String,
    /// Target in the package.
    pub target: Target,
}

/// A target with tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The library's unit tests.
    Lib,
    /// The program's unit tests.
    Bins,
    /// A file or folder of `tests/`.
    Test(String),
}

impl Mutation {
    /// The source with the replacement; fails unless `text` occurs exactly once.
    pub fn apply(&self, source: &str) -> Result<String> {
        let count = source.matches(&self.text).count();
        ensure!(
            count == 1,
            "{self}: the text is {count} times in {}, not once",
            self.file
        );
        Ok(source.replacen(&self.text, &self.replacement, 1))
    }

    fn of(entry: &Table) -> Result<Self> {
        let strange = entry.keys().find(|key| !KEYS.contains(&key.as_str()));
        if let Some(key) = strange {
            bail!("{key:?} is none of {KEYS:?}");
        }
        let word = |key: &str| {
            let value = entry.get(key).and_then(Value::as_str);
            value
                .map(str::to_owned)
                .with_context(|| format!("no {key}"))
        };
        let mutation = Self {
            row: word("row")?,
            holds: word("holds")?,
            file: word("file")?,
            text: word("text")?,
            replacement: word("replacement")?,
            test: Test::parse(&word("test")?)?,
        };
        ensure!(mutation.text != mutation.replacement, "nothing is replaced");
        Ok(mutation)
    }
}

impl fmt::Display for Mutation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({})", self.row, self.holds)
    }
}

impl Test {
    /// Parses arguments of `cargo test`.
    fn parse(words: &str) -> Result<Self> {
        let words: Vec<&str> = words.split_whitespace().collect();
        let (package, target, name) = match words[..] {
            ["-p", package, "--lib", name] => (package, Target::Lib, name),
            ["-p", package, "--bins", name] => (package, Target::Bins, name),
            ["-p", package, "--test", file, name] => (package, Target::Test(file.into()), name),
            _ => {
                bail!("a test is `-p PACKAGE --lib NAME`, or with --bins or --test FILE: {words:?}")
            }
        };
        let package = package.to_owned();
        Ok(Self {
            binary: Binary { package, target },
            name: name.to_owned(),
        })
    }

    /// Files that may contain the test, relative to the package: those of its modules, or the target itself.
    pub fn files(&self) -> Vec<String> {
        let (folder, mut files) = match &self.binary.target {
            Target::Lib => ("src".to_owned(), vec!["src/lib.rs".to_owned()]),
            Target::Bins => ("src".to_owned(), vec!["src/main.rs".to_owned()]),
            Target::Test(test) => {
                let folder = format!("tests/{test}");
                let alone = vec![format!("{folder}.rs"), format!("{folder}/main.rs")];
                (folder, alone)
            }
        };
        let mut place = folder;
        let modules = self.name.rsplit_once("::").map(|(modules, _)| modules);
        for module in modules.into_iter().flat_map(|modules| modules.split("::")) {
            place = format!("{place}/{module}");
            files.extend([format!("{place}.rs"), format!("{place}/mod.rs")]);
        }
        files
    }

    /// Name of the function without its modules.
    pub fn function(&self) -> &str {
        self.name.rsplit("::").next().unwrap_or(&self.name)
    }
}

impl Binary {
    /// Arguments that select it in cargo.
    pub fn arguments(&self) -> Vec<&str> {
        let mut arguments = vec!["-p", &self.package];
        match &self.target {
            Target::Lib => arguments.push("--lib"),
            Target::Bins => arguments.push("--bins"),
            Target::Test(test) => arguments.extend(["--test", test]),
        }
        arguments
    }
}

/// Parses the list. The error names the invalid entry.
pub fn parse(text: &str) -> Result<Vec<Mutation>> {
    let table: Table = text.parse().with_context(|| LIST.to_owned())?;
    let entries = table.get("mutation").and_then(Value::as_array);
    let entries = entries.with_context(|| format!("{LIST} has no [[mutation]]"))?;
    let mut mutations = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let entry = entry.as_table().context("a table in double brackets")?;
        let name = entry.get("row").and_then(Value::as_str).unwrap_or("?");
        let mutation = Mutation::of(entry);
        mutations.push(mutation.with_context(|| format!("{LIST}: entry {} ({name})", index + 1))?);
    }
    Ok(mutations)
}

#[cfg(test)]
mod tests {
    use super::{Target, Test, parse};

    const ENTRY: &str = r#"
[[mutation]]
row = "U1"
holds = "everybody is answered"
file = "a.rs"
text = "true"
replacement = "false"
test = "-p xdnsd --test blackbox ways::messages::an_answer"
"#;

    #[test]
    fn an_entry_is_read_whole() {
        let [mutation] = &parse(ENTRY).expect("it is right")[..] else {
            panic!("one entry");
        };
        assert_eq!(mutation.to_string(), "U1 (everybody is answered)");
        let test = &mutation.test;
        assert_eq!(test.binary.target, Target::Test("blackbox".into()));
        assert_eq!(
            test.binary.arguments(),
            ["-p", "xdnsd", "--test", "blackbox"]
        );
        assert_eq!(test.function(), "an_answer");
        let files = test.files();
        for wanted in ["tests/blackbox/main.rs", "tests/blackbox/ways/messages.rs"] {
            assert!(files.iter().any(|file| file == wanted), "{files:?}");
        }
    }

    #[test]
    fn a_test_beside_the_code_stands_in_a_module_or_its_file() {
        let test = Test::parse("-p xdnsd-core --lib dns::name::tests::long").expect("it is right");
        let files = test.files();
        for wanted in [
            "src/lib.rs",
            "src/dns/name.rs",
            "src/dns/name/mod.rs",
            "src/dns/name/tests.rs",
        ] {
            assert!(files.iter().any(|file| file == wanted), "{files:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (from, to, wanted) in [
            ("row = \"U1\"\n", "", "no row"),
            ("holds", "hodls", "\"hodls\" is none of"),
            ("\"false\"", "\"true\"", "nothing is replaced"),
            ("--test blackbox ", "", "a test is `-p PACKAGE --lib NAME`"),
            ("[[mutation]]", "[[mutations]]", "has no [[mutation]]"),
        ] {
            let error = parse(&ENTRY.replace(from, to)).expect_err(wanted);
            assert!(format!("{error:#}").contains(wanted), "{error:#}");
        }
    }

    #[test]
    fn a_text_is_replaced_where_it_stands_once() {
        let mutation = &parse(ENTRY).expect("it is right")[0];
        let mutated = mutation.apply("if true {").expect("it is there once");
        assert_eq!(mutated, "if false {");
        for (source, count) in [("if false {", 0), ("true || true", 2)] {
            let error = mutation.apply(source).expect_err("not once");
            let wanted = format!("is {count} times in a.rs");
            assert!(error.to_string().contains(&wanted), "{error}");
        }
    }
}
