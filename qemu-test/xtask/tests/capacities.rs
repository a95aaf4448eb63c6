//! Capacities beyond the budget are compile errors, which say by how much.

use std::path::Path;
use std::process::Command;

/// Output of cargo for a package of the workspace with this capacity. Only checked, in a separate folder: the capacities would
/// invalidate other builds.
fn said(package: &str, capacity: (&str, &str)) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args([
        "check", "--quiet", "--color", "never", "--lib", "-p", package,
    ]);
    cargo
        .arg("--target-dir")
        .arg(xdnsd_lab::workspace::target().join("capacities"));
    let output = cargo.current_dir(root).env(capacity.0, capacity.1).output();
    let output = output.expect("cargo runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success(),
        "{capacity:?}: it compiles\n{said}"
    );
    said
}

#[test]
fn capacities_over_the_budget_do_not_compile_and_it_is_said_by_how_much() {
    let said = said("xdnsd", ("XDNSD_LIMIT_CACHE_SHARDS", "64"));
    let (_, rest) = said
        .split_once("do NOT fit the memory budget: ")
        .unwrap_or_else(|| panic!("{said}"));
    let mut numbers = rest
        .split(|char: char| !char.is_ascii_digit())
        .filter_map(|word| word.parse::<u64>().ok());
    let mut next = || numbers.next().unwrap_or_else(|| panic!("{said}"));
    let (total, budget, more) = (next(), next(), next());
    assert_eq!((budget, total - budget), (16 << 20, more), "{said}");
}

#[test]
fn a_capacity_that_makes_no_sense_is_named_by_the_compiler() {
    for (capacity, value, wanted) in [
        ("CACHE_SHARDS", "48", "is not a power of two"),
        ("STREAMS", "0", ", _STREAMS or _TCP_CLIENTS is 0"),
        ("TCP_CLIENTS", "65536", "is over 65535"),
    ] {
        let said = said("xdnsd-core", (&format!("XDNSD_LIMIT_{capacity}"), value));
        assert!(said.contains(wanted), "{capacity} {value}: {said}");
    }
}
