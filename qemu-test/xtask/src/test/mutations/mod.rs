//! `cargo xtask test --mutations`: applies each entry of [`list::LIST`] alone, upon which its test has to fail.
//!
//! This happens in a copy of the workspace. A test that fails without the mutation, a text that does not occur exactly once, a
//! build error and a test that does not end are failures as well: they prove nothing.

pub mod list;
mod tree;

use std::fmt;
use std::fs;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use self::list::{Binary, LIST, Mutation, Test};
use self::tree::Tree;
use super::tally::Tally;
use crate::progress::{Task, Watched, watch};
use crate::signals::Signals;
use crate::workspace;

/// Time limit of a build: the first one builds everything.
const BUILD_LIMIT: Duration = Duration::from_secs(30 * 60);
/// Time limit of the tests of one binary.
const TEST_LIMIT: Duration = Duration::from_secs(10 * 60);
/// Sources of the committed objects, which other packages' tests run in the kernel.
const KERNEL: &str = "ebpf/";
/// Packages whose own tests run these sources outside the kernel.
const KERNEL_PACKAGES: [&str; 2] = ["xdnsd-ebpf", "xdnsd-abi"];

/// Outcome of a mutation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Its test failed.
    Seen,
    /// Its test passed.
    Survived,
    /// It does not build.
    Unbuilt,
    /// Its test was killed at the time limit.
    Endless,
    /// Its test fails without the mutation, or does not exist.
    Unsound,
}

impl fmt::Display for Fate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Seen => "seen",
            Self::Survived => "SURVIVED",
            Self::Unbuilt => "DOES NOT BUILD",
            Self::Endless => "DOES NOT END",
            Self::Unsound => "FAILS WITHOUT IT",
        })
    }
}

/// Carries out `test --mutations ROWS…`; without rows all are tried.
pub fn main(rows: &[String], signals: &Signals) -> Result<ExitCode> {
    let text = fs::read_to_string(workspace::root().join(LIST));
    let mutations = list::parse(&text.with_context(|| format!("read {LIST}"))?)?;
    if let Some(row) = rows
        .iter()
        .find(|row| !mutations.iter().any(|mutation| mutation.row == **row))
    {
        anyhow::bail!("{LIST} has no row {row}");
    }
    let is_wanted = |mutation: &&Mutation| rows.is_empty() || rows.contains(&mutation.row);
    let mutations: Vec<&Mutation> = mutations.iter().filter(is_wanted).collect();
    let bench = Bench {
        tree: Tree::copy()?,
        signals,
    };
    let sound = bench.sound_tests(&mutations)?;
    let mut tally = Tally::default();
    for mutation in mutations {
        let begun = Instant::now();
        let fate = if sound.contains(&&mutation.test) {
            bench.try_out(mutation)?
        } else {
            Fate::Unsound
        };
        let Mutation { row, holds, .. } = mutation;
        let (test, secs) = (&mutation.test.name, begun.elapsed().as_secs());
        println!("{row:<4} {fate:<16} {secs:>4} s  {holds}: {test}");
        tally.passed += usize::from(fate == Fate::Seen);
        tally.failed += usize::from(fate != Fate::Seen);
    }
    bench.tree.restore()?;
    println!("\n{tally}");
    Ok(if tally.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Environment for trying mutations.
struct Bench<'a> {
    tree: Tree,
    signals: &'a Signals,
}

impl Bench<'_> {
    /// Tests of `mutations` that exist and pass without a mutation.
    fn sound_tests<'m>(&self, mutations: &[&'m Mutation]) -> Result<Vec<&'m Test>> {
        let mut binaries: Vec<&Binary> = Vec::new();
        for mutation in mutations {
            // Checked before anything is built.
            self.tree.mutated(mutation)?;
            if !binaries.contains(&&mutation.test.binary) {
                binaries.push(&mutation.test.binary);
            }
        }
        let mut sound = Vec::new();
        for binary in binaries {
            let tests = mutations.iter().map(|mutation| &mutation.test);
            let tests: Vec<&Test> = tests.filter(|test| test.binary == *binary).collect();
            let names: Vec<&str> = tests.iter().map(|test| &test.name[..]).collect();
            self.run("mutations-none-build", self.build(binary), BUILD_LIMIT)?;
            let watched = self.run("mutations-none", self.test(binary, &names), TEST_LIMIT)?;
            if !watched.is_success() {
                println!("{}", super::explain(&watched));
            }
            let has_passed = |test: &&Test| {
                let line = format!("test {} ... ok", test.name);
                watched.output.lines().any(|found| found == line)
            };
            sound.extend(tests.into_iter().filter(has_passed));
        }
        Ok(sound)
    }

    fn try_out(&self, mutation: &Mutation) -> Result<Fate> {
        self.tree.apply(mutation)?;
        let binary = &mutation.test.binary;
        let is_in_object = mutation.file.starts_with(KERNEL)
            && !KERNEL_PACKAGES.contains(&binary.package.as_str());
        if is_in_object {
            let mut command = self.tree.cargo();
            command.args(["run", "--quiet", "-p", "xtask", "--", "ebpf"]);
            if !self
                .run("mutations-ebpf", command, BUILD_LIMIT)?
                .is_success()
            {
                return Ok(Fate::Unbuilt);
            }
        }
        let built = self.run("mutations-build", self.build(binary), BUILD_LIMIT)?;
        if !built.is_success() {
            return Ok(Fate::Unbuilt);
        }
        let command = self.test(binary, &[&mutation.test.name]);
        let watched = self.run("mutations", command, TEST_LIMIT)?;
        Ok(match watched.status {
            None => Fate::Endless,
            Some(status) if status.success() => Fate::Survived,
            Some(_) => Fate::Seen,
        })
    }

    fn build(&self, binary: &Binary) -> Command {
        let mut command = self.tree.cargo();
        command.arg("test").args(binary.arguments()).arg("--no-run");
        command
    }

    fn test(&self, binary: &Binary, names: &[&str]) -> Command {
        let mut command = self.tree.cargo();
        command.arg("test").args(binary.arguments());
        command.args(["--", "--exact"]).args(names);
        // A skipped test proves nothing; with CI=true it fails.
        command.env("CI", "true");
        command
    }

    fn run(&self, what: &str, command: Command, limit: Duration) -> Result<Watched> {
        let log = workspace::logs().join(format!("{what}.log"));
        let task = Task {
            what,
            log: &log,
            limit,
        };
        watch(task, command, self.signals)
    }
}
