//! Tests that need root, and the line that reports them as skipped without it.

use std::env;
use std::fs::OpenOptions;
use std::io::Write;

use anyhow::{Result, ensure};

/// The file to which [`skip`] and [`leave_out`] add a line per test, so that `cargo xtask test` can count them.
pub const SKIP_FILE_VARIABLE: &str = "XTASK_SKIP_FILE";

/// True if this process runs as root.
#[must_use]
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Fails with advice if this process is not root.
pub fn require_root(for_what: &str) -> Result<()> {
    ensure!(
        is_root(),
        "{for_what} needs root: run the same command with sudo"
    );
    Ok(())
}

/// True if a test that needs root can go on. Otherwise it is reported as SKIPPED; with `CI=true` it fails.
#[must_use]
pub fn root_or_skip(test: &str) -> bool {
    if is_root() {
        return true;
    }
    skip(test, "network namespaces and XDP need root");
    false
}

/// Reports `test` as SKIPPED because of `why`.
///
/// # Panics
/// With `CI=true`: there, a test that does not run is a test that fails.
pub fn skip(test: &str, why: &str) {
    let line = format!("SKIPPED {test}: {why}");
    assert!(!is_ci(), "{line} (CI=true: a skip is a failure)");
    report(&line);
}

/// Prefix of a line of [`leave_out`].
pub const LEFT_OUT: &str = "LEFT OUT ";

/// Reports that `test` does not apply to this run because of `why`, and is covered by another run.
pub fn leave_out(test: &str, why: &str) {
    report(&format!("{LEFT_OUT}{test}: {why}"));
}

fn report(line: &str) {
    eprintln!("{line}");
    if let Some(path) = env::var_os(SKIP_FILE_VARIABLE) {
        let opened = OpenOptions::new().append(true).create(true).open(path);
        opened
            .and_then(|mut file| writeln!(file, "{line}"))
            .expect("the runner's file takes a line");
    }
}

/// True in continuous integration.
#[must_use]
pub fn is_ci() -> bool {
    env::var("CI").is_ok_and(|value| value == "true")
}
