//! `cargo xtask bench lists`: what a blocklist of a million names costs a question that it says nothing of, beside an
//! empty list. Hits as in `bench xsk`, misses as in `bench miss`; turns alternate, each with a new process.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::build::Programs;
use super::measure;
use super::miss::{self, Ground};
use super::record;
use super::report::median;
use super::subject::{Backend, Kind, Subject};
use super::{LOAD_CORE, SUBJECT_CORE};
use crate::arguments::Arguments;
use crate::privilege::require_root;
use crate::process::output_of;
use crate::setup::{self, Purpose};
use crate::signals::Signals;
use crate::workspace;

const KIND: Kind = Kind::Appliance(Backend::Own);
const ROUNDS: u32 = 7;
const SECONDS: u32 = 2;
/// Names of the long list.
const NAMES: u32 = 1_000_000;
/// Its bytes at most.
const BYTES_GOAL: u64 = 16 << 20;
/// The long list's cost to that of the empty one: the goal.
const RATIO_GOAL: &str = "<= 1.10";

/// One turn with one list.
#[derive(Clone, Copy, Debug)]
struct Turn {
    /// Processor time per answer from the cache, in nanoseconds.
    hit_ns: f64,
    /// Answers from the cache per second.
    hits: f64,
    /// Processor time per answer from upstream, in nanoseconds.
    miss_ns: f64,
}

/// The command `bench lists`.
pub fn main(mut arguments: Arguments, signals: &Signals) -> Result<ExitCode> {
    let words: Vec<_> = arguments.clone().rest().collect();
    let plan = miss::Plan {
        rounds: arguments.number("--rounds")?.unwrap_or(ROUNDS),
        seconds: arguments.number("--seconds")?.unwrap_or(SECONDS),
        rate: miss::RATE,
    };
    let is_saved = arguments.flag("--save");
    arguments.finish()?;
    ensure!(
        plan.rounds > 0 && plan.seconds > 0,
        "rounds and seconds start at 1"
    );
    require_root("a benchmark in network namespaces")?;
    setup::ensure_all(&[Purpose::Lab], signals)?;
    let programs = Programs::build(&[KIND], signals)?;
    let directory = workspace::logs().join("bench-lists");
    fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
    let program = programs.path(KIND);
    let lists = [
        compile("empty", 0, &program, &directory)?,
        compile("long", NAMES, &program, &directory)?,
    ];
    let ground = Ground::make(plan, &program)?;
    let mut rounds = Vec::new();
    for round in 1..=plan.rounds {
        eprintln!("round {round} of {}", plan.rounds);
        ensure!(!signals.wait(Duration::ZERO), "interrupted");
        let [empty, long] = &lists;
        let turn = |list| turn(plan, list, &programs, &ground, &directory);
        rounds.push([turn(empty)?, turn(long)?]);
    }
    let bytes = fs::metadata(&lists[1]).context("the long list")?.len();
    let table = table(&rounds, bytes);
    println!("\n{table}");
    if is_saved {
        record::save("lists", &words, &table)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A compiled list of `count` names of two to four labels, none of which is asked for. All that is below them is listed,
/// too, so a question looks for each of its parents.
fn compile(file: &str, count: u32, program: &Path, directory: &Path) -> Result<PathBuf> {
    let mut text = String::new();
    for number in 0..count {
        let labels = ["", "www.", "cdn.eu."][number as usize % 3];
        // Writing to a string does not fail.
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

fn turn(
    plan: miss::Plan,
    list: &Path,
    programs: &Programs,
    ground: &Ground,
    directory: &Path,
) -> Result<Turn> {
    let sections = format!("[filter]\ncompiled = [{list:?}]\n");
    let length = Duration::from_secs(plan.seconds.into());
    let subject = Subject::start_with(KIND, &sections, programs, SUBJECT_CORE, directory)?;
    let hits = measure::turn(&subject, length, LOAD_CORE, SUBJECT_CORE)?;
    drop(subject);
    let misses = miss::turn(miss::Subject::Appliance, plan, ground, &sections)?;
    ensure!(misses.failed == 0, "{misses:?}");
    Ok(Turn {
        hit_ns: hits.cpu_ns,
        hits: hits.answered,
        miss_ns: 1000.0 * misses.cpu_us,
    })
}

/// Medians over the rounds, and of the ratios within a round.
fn table(rounds: &[[Turn; 2]], bytes: u64) -> String {
    let mut text = format!(
        "{:<30}{:>12}{:>12}{:>8}{:>9}\n",
        "", "empty list", "1 M names", "ratio", "goal"
    );
    let mut row = |name: &str, goal: &str, of: fn(&Turn) -> f64| {
        let middle = |list: usize| median(rounds.iter().map(|turns| of(&turns[list])).collect());
        let ratios = rounds.iter().map(|[empty, long]| of(long) / of(empty));
        let ratio = median(ratios.collect());
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "{name:<30}{:>12.0}{:>12.0}{ratio:>8.3}{goal:>9}",
            middle(0),
            middle(1)
        );
    };
    row("hits: CPU ns per answer", RATIO_GOAL, |turn| turn.hit_ns);
    row("hits: answers/s", "", |turn| turn.hits);
    row("misses: CPU ns per answer", RATIO_GOAL, |turn| turn.miss_ns);
    text + &format!("\n{NAMES} names take {bytes} bytes; at most {BYTES_GOAL} is the goal\n")
}

#[cfg(test)]
mod tests {
    use super::{Turn, table};

    #[test]
    fn ratios_are_of_the_long_list_to_the_empty_one() {
        let turn = |hit_ns| Turn {
            hit_ns,
            hits: 1e9 / hit_ns,
            miss_ns: 20_000.0,
        };
        let rounds = [[turn(100.0), turn(110.0)], [turn(200.0), turn(240.0)]];
        let table = table(&rounds, 15_000_000);
        let line = |start: &str| {
            let line = table.lines().find(|line| line.starts_with(start));
            line.expect("a row")
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" ")
        };
        let wanted = "hits: CPU ns per answer 150 175 1.150 <= 1.10";
        assert_eq!(line("hits: CPU"), wanted);
        assert_eq!(
            line("misses"),
            "misses: CPU ns per answer 20000 20000 1.000 <= 1.10"
        );
    }
}
