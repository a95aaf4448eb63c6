//! `cargo xtask test`: all tests, in steps that go on after a failure.
//!
//! A step is a command in a child process, with its output in a log and a time limit; its counts are read from its output
//! ([`tally`]). The last line is `N passed, M failed`, and `, K skipped` if tests were skipped.

use std::collections::BTreeMap;
use std::fs;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::progress::{Task, Watched, watch};
use crate::qemu;
use crate::setup::{self, Purpose};
use crate::signals::Signals;
use crate::workspace;
use xdnsd_lab::privilege::{LEFT_OUT, SKIP_FILE_VARIABLE, is_ci, is_root};

mod again;
pub mod mutations;
mod steps;
pub mod tally;

use steps::{Scope, Step, Way};
use tally::Tally;

/// Arguments of `test`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Skips what takes minutes.
    #[arg(long, conflicts_with_all = ["long", "image"])]
    quick: bool,
    /// Runs the black-box tests alone, by this way of queries in or of questions out.
    #[arg(long, conflicts_with_all = ["quick", "long", "image"])]
    way: Vec<Way>,
    /// Brings back what once broke, by these rows or all of it, one at a time, and looks that the tests fail.
    #[arg(long, value_name = "ROW", num_args = 0.., conflicts_with_all = ["quick", "way", "long", "image", "filter"])]
    mutations: Option<Vec<String>>,
    /// What the tests of the image are told.
    #[command(flatten)]
    image: qemu::tests::ImageArguments,
}

/// Most lines of a failure's output that are shown; the log has all.
const SHOWN_LINES: usize = 150;

/// A failed step.
struct Failure {
    step: &'static str,
    text: String,
}

/// Carries out `test WORDS…`.
pub fn main(arguments: Arguments, signals: &Signals) -> Result<ExitCode> {
    let Arguments {
        quick,
        way,
        mutations,
        image,
    } = arguments;
    if let Some(rows) = mutations {
        return mutations::main(&rows, signals);
    }
    if image.image.is_some() {
        // With an image built elsewhere, the sources of this workspace do not matter.
        return qemu::tests::main(image, signals);
    }
    ensure!(
        image.server.is_none() && image.accel.is_none() && image.jobs.is_none(),
        "--server, --accel and --jobs: only with --image, or for `cargo xtask boot`"
    );
    let scope = Scope::new(image.filter, quick)?.long(image.long).ways(way);
    let steps = scope.steps();
    ensure!(!steps.is_empty(), "no step is quick and has that name");
    set_up(&steps, signals);
    let started = Instant::now();
    let (mut total, mut failures) = (Tally::default(), Vec::new());
    for (index, step) in steps.iter().enumerate() {
        let begun = Instant::now();
        let (tally, failure) = run(step, &scope, signals)?;
        let (number, of, secs) = (index + 1, steps.len(), begun.elapsed().as_secs_f64());
        println!("[{number:2}/{of}] {:<28} {tally} ({secs:.1} s)", step.name);
        total += tally;
        failures.extend(failure);
    }
    for Failure { step, text } in &failures {
        println!("\nFAILED {step}:\n{text}");
    }
    ensure!(
        total != Tally::default(),
        "no step and no test has that name"
    );
    println!("\nIn {} s:\n{total}", started.elapsed().as_secs());
    Ok(if total.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Installs what the steps need. A package that cannot be installed only fails the steps that need it.
fn set_up(steps: &[&Step], signals: &Signals) {
    let purposes: Vec<Purpose> = steps.iter().flat_map(|step| needed(step)).collect();
    if let Err(error) = setup::ensure_all(&purposes, signals) {
        println!("{error:#}");
    }
}

/// Purposes of a step; the lab is useless without root.
fn needed(step: &Step) -> Vec<Purpose> {
    let purposes = step.purposes.iter().copied();
    purposes
        .filter(|purpose| *purpose != Purpose::Lab || is_root())
        .collect()
}

fn run(step: &Step, scope: &Scope, signals: &Signals) -> Result<(Tally, Option<Failure>)> {
    let failed = |text: String| {
        (
            Tally::FAILED,
            Some(Failure {
                step: step.name,
                text,
            }),
        )
    };
    if step.needs_root && !is_root() {
        let why = format!("SKIPPED {}: network namespaces need root", step.name);
        println!("{why}");
        return Ok(if is_ci() {
            failed(format!("{why} (CI=true)"))
        } else {
            (Tally::SKIPPED, None)
        });
    }
    let missing = setup::missing(&needed(step));
    if !missing.is_empty() {
        return Ok(failed(format!(
            "missing on this machine: {}",
            missing.join(", ")
        )));
    }
    let mut command = match (step.command)(scope) {
        Ok(command) => command,
        Err(error) => return Ok(failed(format!("{error:#}"))),
    };
    let name = step.name.replace(' ', "-");
    let skip_file = workspace::logs().join(format!("{name}.skips"));
    fs::create_dir_all(workspace::logs()).context("create the directory of logs")?;
    fs::write(&skip_file, "").with_context(|| format!("write {}", skip_file.display()))?;
    command.env(SKIP_FILE_VARIABLE, &skip_file);
    let log = workspace::logs().join(format!("{name}.log"));
    let task = Task {
        what: step.name,
        log: &log,
        limit: Duration::from_secs(60 * scope.limit_mins(step)),
    };
    let watched = watch(task, command, signals)?;
    let told = fs::read_to_string(&skip_file).context("read which tests did not run")?;
    let [left_out, skips] = tell(&told, &watched.output);
    let mut tally = Tally::of(&watched.output, watched.is_success(), skips, is_ci());
    // Such tests pass without testing anything.
    tally.passed = tally.passed.saturating_sub(left_out);
    let mut again = again::of(&(step.command)(scope)?, &watched.output, tally);
    if let Some(again) = &mut again {
        again.command.env(SKIP_FILE_VARIABLE, &skip_file);
    }
    if again.map_or(Ok(false), |again| again.have_passed(task, signals))? {
        (tally.passed, tally.failed) = (tally.passed + tally.failed, 0);
    }
    let failure = (tally.failed > 0).then(|| Failure {
        step: step.name,
        text: explain(&watched),
    });
    Ok((tally, failure))
}

/// Prints which tests did not run, from `told`, and the verifier's work; returns the numbers of tests left out and skipped.
fn tell(told: &str, output: &str) -> [usize; 2] {
    let (left_out, skips): (Vec<&str>, Vec<&str>) =
        told.lines().partition(|line| line.starts_with(LEFT_OUT));
    for skip in &skips {
        println!("{skip}");
    }
    print!("{}", by_reason(&left_out));
    for line in verified(output) {
        println!("{line}");
    }
    [left_out.len(), skips.len()]
}

/// Reports of the eBPF tests on the verifier's work per program, without duplicates.
fn verified(output: &str) -> Vec<&str> {
    const SIGN: &str = "verifier: ";
    let mut lines: Vec<_> = output
        .lines()
        .filter_map(|line| Some(&line[line.find(SIGN)?..]))
        .filter(|line| line.ends_with(" instructions"))
        .collect();
    lines.dedup();
    lines
}

/// Number of tests left out per reason, a line each.
fn by_reason(left_out: &[&str]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for line in left_out {
        let reason = line.split_once(": ").map_or(*line, |(_, reason)| reason);
        *counts.entry(reason).or_default() += 1;
    }
    let lines = counts.iter();
    lines
        .map(|(reason, count)| format!("{LEFT_OUT}{count}: {reason}\n"))
        .collect()
}

/// The relevant part of a failed command's output.
fn explain(watched: &Watched) -> String {
    let lines: Vec<_> = watched
        .output
        .lines()
        .filter(|line| !tally::is_routine(line))
        .collect();
    let left_out = lines.len().saturating_sub(SHOWN_LINES);
    let mut text = format!("(all of it: {})\n", watched.log.display());
    if left_out > 0 {
        text += &format!("({left_out} lines left out)\n");
    }
    text + &lines[left_out..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::{by_reason, verified};

    #[test]
    fn the_verifiers_work_is_shown_line_by_line() {
        let output = "test a ... ok\nverifier: xdnsd 5 instructions\nverifier: said no\n\
                      test b ... verifier: xdnsd_hot 7 instructions\nok\n";
        let lines = [
            "verifier: xdnsd 5 instructions",
            "verifier: xdnsd_hot 7 instructions",
        ];
        assert_eq!(verified(output), lines);
    }

    #[test]
    fn what_was_left_out_is_counted_by_its_reason() {
        let lines = [
            "LEFT OUT blackbox::frames::a: frames: by hand",
            "LEFT OUT blackbox::vlan::b: tags",
            "LEFT OUT blackbox::frames::c: frames: by hand",
        ];
        assert_eq!(
            by_reason(&lines),
            "LEFT OUT 2: frames: by hand\nLEFT OUT 1: tags\n"
        );
        assert_eq!(by_reason(&[]), "");
    }
}
