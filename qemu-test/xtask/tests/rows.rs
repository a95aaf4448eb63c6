//! The table of `appliance/tests/README.md`: each test that it names exists, and each row has something that brings it back.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Heading of the table.
const HEADING: &str = "## Which test holds what once broke";

/// The workspace's folder.
fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// Names of all functions and modules below `folder`.
fn names_below(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).expect("a folder of the sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            names.extend(
                path.file_name()
                    .map(|name| name.to_string_lossy().into_owned()),
            );
            names_below(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            names.extend(
                path.file_stem()
                    .map(|name| name.to_string_lossy().into_owned()),
            );
            let text = fs::read_to_string(&path).expect("a source");
            // Tests in a guest are called by name from a list.
            let functions = text.lines().map(str::trim_start).filter_map(|line| {
                let line = line.strip_prefix("pub ").unwrap_or(line);
                line.strip_prefix("fn ")
            });
            names.extend(functions.filter_map(|rest| Some(rest.split_once('(')?.0.to_owned())));
        }
    }
}

fn text_of(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The rows of the table, from its first column on.
fn rows(readme: &str) -> impl Iterator<Item = &str> {
    let (_, table) = readme.split_once(HEADING).expect("the table");
    table
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| row"))
}

/// Each row was seen to fail, and can be again: `cargo xtask test --mutations ROW`.
#[test]
fn every_row_of_the_table_has_a_mutation_and_the_other_way_round() {
    let readme = text_of("appliance/tests/README.md");
    let named = |row: &str| row.split(' ').nth(1).map(str::to_owned);
    let of_table: BTreeSet<String> = rows(&readme).filter_map(named).collect();
    let list = text_of("qemu-test/mutations.toml");
    let name = |line: &str| {
        Some(
            line.strip_prefix("row = \"")?
                .trim_end_matches('"')
                .to_owned(),
        )
    };
    let of_list: BTreeSet<String> = list.lines().filter_map(name).collect();
    let differ: Vec<&String> = of_table.symmetric_difference(&of_list).collect();
    assert!(differ.is_empty(), "{differ:?}");
}

#[test]
fn every_test_of_the_table_is_there() {
    let readme = text_of("appliance/tests/README.md");
    let mut names = BTreeSet::new();
    for folder in ["appliance", "qemu-test/xtask", "qemu-test/lab", "ebpf"] {
        names_below(&root().join(folder), &mut names);
    }
    let mut count = 0;
    for row in rows(&readme) {
        let tests = row
            .trim_end_matches(" |")
            .rsplit(" | ")
            .next()
            .unwrap_or_default();
        let named: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "no test in {row}");
        for test in named {
            let last = test.rsplit("::").next().unwrap_or_default();
            assert!(names.contains(last), "{test} of {row}");
        }
        count += 1;
    }
    assert!(count >= 41 + 25, "{count}");
}
