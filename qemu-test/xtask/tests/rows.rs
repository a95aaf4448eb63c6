//! The table of `appliance/tests/README.md`: each test that it names exists.

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

#[test]
fn every_test_of_the_table_is_there() {
    let text = fs::read_to_string(root().join("appliance/tests/README.md")).expect("the README");
    let (_, table) = text.split_once(HEADING).expect("the table");
    let mut names = BTreeSet::new();
    for folder in ["appliance", "qemu-test/xtask", "qemu-test/lab", "ebpf"] {
        names_below(&root().join(folder), &mut names);
    }
    let mut rows = 0;
    for row in table
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| row"))
    {
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
        rows += 1;
    }
    assert!(rows >= 41 + 25, "{rows}");
}
