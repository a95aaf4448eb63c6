//! `cargo xtask fuzz`: checks the invariants for arbitrary input, for longer than the tests do.
//!
//! The targets are in appliance/fuzz, and so is the default mutator, which any compiler builds. With `--libfuzzer` libFuzzer runs
//! them, which observes branch coverage and so gets further; it needs a nightly compiler and cargo-fuzz.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::arguments::{SOME, number_in};
use crate::signals::Signals;
use crate::workspace;

/// The folder of the targets.
const FOLDER: &str = "appliance/fuzz";
/// Their package.
const PACKAGE: &str = "xdnsd-fuzz";

/// Arguments of `fuzz`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The targets to try, by their names; otherwise all.
    targets: Vec<String>,
    /// Minutes for each of them. As many are tried at the same time as there are processors.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = number_in(SOME))]
    minutes: u32,
    /// Another number makes other inputs of the samples.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// By libFuzzer, one target after the other.
    #[arg(long)]
    libfuzzer: bool,
}

/// Carries out `fuzz`.
pub fn main(arguments: &Arguments, signals: &Signals) -> Result<ExitCode> {
    if arguments.libfuzzer {
        return by_libfuzzer(arguments, signals);
    }
    let mut command = workspace::cargo();
    command.args(["run", "--quiet", "--profile", "fuzz", "-p", PACKAGE, "--"]);
    command.arg("--minutes").arg(arguments.minutes.to_string());
    command.arg("--seed").arg(arguments.seed.to_string());
    command.args(&arguments.targets);
    run(&mut command)
}

fn by_libfuzzer(arguments: &Arguments, signals: &Signals) -> Result<ExitCode> {
    let has_cargo_fuzz = Command::new("cargo-fuzz").arg("--version").output().is_ok();
    ensure!(
        has_cargo_fuzz,
        "there is no cargo-fuzz: cargo install cargo-fuzz, or leave --libfuzzer out"
    );
    let corpus = workspace::root().join(FOLDER).join("corpus");
    let mut targets = arguments.targets.clone();
    if targets.is_empty() {
        let entries = corpus
            .read_dir()
            .with_context(|| format!("list {}", corpus.display()))?;
        let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        targets = names.collect::<std::io::Result<_>>()?;
        targets.sort();
    }
    for target in &targets {
        if signals.wait(std::time::Duration::ZERO) {
            return Ok(ExitCode::FAILURE);
        }
        // New inputs go into a separate folder in the build directory: the samples in the tree are selected.
        let found = workspace::target().join("fuzz").join(target);
        std::fs::create_dir_all(&found).with_context(|| format!("create {}", found.display()))?;
        // Without this program's cargo, whose toolchain is stable.
        let mut command = Command::new("cargo");
        command
            .current_dir(workspace::root())
            .env_remove("RUSTUP_TOOLCHAIN")
            .args(["+nightly", "fuzz", "run", "--fuzz-dir"])
            .arg(format!("{FOLDER}/libfuzzer"))
            .arg(target)
            .arg(&found)
            .arg(corpus.join(target))
            .arg("--")
            .arg(format!(
                "-max_total_time={}",
                u64::from(arguments.minutes) * 60
            ))
            .arg(format!("-seed={}", arguments.seed));
        let ended = run(&mut command)?;
        if ended != ExitCode::SUCCESS {
            return Ok(ended);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn run(command: &mut Command) -> Result<ExitCode> {
    let status = command.status().context("run cargo")?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
