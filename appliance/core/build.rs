//! Refuses a capacity that `limits.rs` does not know: a misspelt name would otherwise change nothing, silently.
//!
//! It looks when the crate is built for the first time, as in a firmware build; not again for every variable that comes.

use std::env;
use std::process::ExitCode;

/// What every variable that sets a capacity begins with.
const PREFIX: &str = "XDNSD_LIMIT_";
/// Where the capacities are.
const LIMITS: &str = include_str!("src/limits.rs");

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=src/limits.rs");
    let names = env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for name in names.filter(|name| name.starts_with(PREFIX)) {
        println!("cargo::rerun-if-env-changed={name}");
        if !LIMITS.contains(&format!("capacity!(\"{name}\"")) {
            println!("cargo::error={name}: src/limits.rs has no capacity of that name");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
