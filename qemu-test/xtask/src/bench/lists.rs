//! `cargo xtask bench lists`: cost of a blocklist of a million names for a question that it does not match, beside an empty list.
//! Hits as in `bench xsk`, misses as in `bench miss`; turns alternate, each with a new process.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use super::Turns;
use super::build::Programs;
use super::compare::{self, Goals, KIND, Side};
use super::miss;
use super::record;
use crate::setup::{self, Purpose};
use crate::signals::Signals;
use xdnsd_lab::privilege::require_root;
use xdnsd_lab::process::output_of;

const ROUNDS: u32 = 7;
const SECONDS: u32 = 2;
/// Names of the long list.
const NAMES: u32 = 1_000_000;
/// Most bytes of the compiled list.
const BYTES_GOAL: u64 = 16 << 20;
/// Ratio of the long list's cost to the empty one's.
const GOALS: Goals = Goals {
    hit: "<= 1.10",
    miss: "<= 1.10",
    hits: "",
    misses: "",
    alone: "",
};

/// The command `bench lists`.
pub fn main(turns: &Turns, signals: &Signals) -> Result<ExitCode> {
    let plan = miss::Plan::of(turns, ROUNDS, SECONDS);
    require_root("a benchmark in network namespaces")?;
    setup::ensure_all(&[Purpose::Lab], signals)?;
    let programs = Programs::build(&[KIND], signals)?;
    let directory = compare::directory("lists")?;
    let program = programs.path(KIND);
    let list = |file, count| compile(file, count, &program, &directory);
    let (empty, long) = (list("empty", 0)?, list("long", NAMES)?);
    let side = |name, list: &Path| Side {
        name,
        programs: programs.clone(),
        sections: format!("[filter]\ncompiled = [{list:?}]\n"),
    };
    let sides = [side("empty list", &empty), side("1 M names", &long)];
    let rounds = compare::compare(&sides, plan, &directory, signals)?;
    let table = compare::table([sides[0].name, sides[1].name], &rounds, GOALS);
    let bytes = fs::metadata(&long).context("the long list")?.len();
    let table =
        format!("{table}\n{NAMES} names take {bytes} bytes; at most {BYTES_GOAL} is the goal\n");
    println!("\n{table}");
    if turns.save {
        record::save(&table)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A compiled list of `count` names of two to four labels, none of which is asked for. It covers all names below them, too, so a
/// question looks for each of its parents.
fn compile(file: &str, count: u32, program: &Path, directory: &Path) -> Result<PathBuf> {
    let mut text = String::new();
    for number in 0..count {
        let labels = ["", "www.", "cdn.eu."][number as usize % 3];
        // Writing to a string never fails.
        let _ = writeln!(text, "{labels}listed-{number}.example");
    }
    let (names, list) = (
        directory.join(format!("{file}.txt")),
        directory.join(format!("{file}.list")),
    );
    fs::write(&names, text).with_context(|| format!("write {}", names.display()))?;
    let mut command = Command::new(program);
    output_of(command.args(["lists", "compile"]).arg(&list).arg(&names))?;
    Ok(list)
}
