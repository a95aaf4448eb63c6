//! `cargo xtask bench tap`: cost of readers of queries for hits. Nobody reads, beside `xdnsd tail` of all queries; with another build
//! that has no readers, also nobody beside that. Hits as in `bench against`: both of a pair serve at the same time and are asked in
//! alternating slices. The reader has the load's core, so that what is measured is the worker's part.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;

use super::build::Programs;
use super::compare::{self, KIND};
use super::measure::{self, Turn};
use super::report::{median, quartiles};
use super::subject::{Subject, pin_on_exec};
use super::{LOAD_CORE, Turns, record};
use crate::setup::{self, Purpose};
use crate::signals::Signals;
use xdnsd_lab::privilege::require_root;
use xdnsd_lab::process::Process;

const ROUNDS: u32 = 7;
const SECONDS: u32 = 2;
/// Least rate of hits with nobody who reads, of a build without readers.
const NOBODY_GOAL: &str = ">= 0.99";
/// Least rate of hits with a reader, of that with nobody.
const READER_GOAL: &str = ">= 0.90";
/// A reader of all queries whose lines nobody keeps.
const READ: &str = "exec \"$0\" tail --socket \"$1\" > /dev/null";

/// Time for it to attach.
const ATTACH: Duration = Duration::from_millis(500);
/// Fewest bytes that it writes in a turn: ten thousand lines.
const WRITTEN_MIN: u64 = 1_000_000;

/// Arguments of `bench tap`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// A build without readers, such as that of an earlier commit.
    #[arg(long, value_name = "PROGRAM")]
    without: Option<PathBuf>,
    /// A program in place of this build, which is not built then.
    #[arg(long, value_name = "PROGRAM")]
    ours: Option<PathBuf>,
    /// How long.
    #[command(flatten)]
    turns: Turns,
}

/// Two appliances that are compared.
struct Pair {
    name: &'static str,
    goal: &'static str,
    programs: [Programs; 2],
    /// True if `tail` reads of the second.
    is_read: bool,
}

/// The command `bench tap`.
pub fn main(arguments: &Arguments, signals: &Signals) -> Result<ExitCode> {
    for program in [&arguments.without, &arguments.ours].into_iter().flatten() {
        ensure!(program.is_file(), "{}: not a program", program.display());
    }
    require_root("a benchmark in network namespaces")?;
    setup::ensure_all(&[Purpose::Lab], signals)?;
    let ours = match &arguments.ours {
        Some(program) => Programs::built(program.clone()),
        None => Programs::build(&[KIND], signals)?,
    };
    let mut pairs = vec![Pair {
        name: "tail, of nobody",
        goal: READER_GOAL,
        programs: [ours.clone(), ours.clone()],
        is_read: true,
    }];
    if let Some(without) = &arguments.without {
        pairs.push(Pair {
            name: "nobody, of the build without",
            goal: NOBODY_GOAL,
            programs: [ours.clone().with_appliance(without.clone()), ours],
            is_read: false,
        });
    }
    let turns = &arguments.turns;
    let length = Duration::from_secs(turns.seconds.unwrap_or(SECONDS).into());
    let directory = compare::directory("tap")?;
    let mut rounds: Vec<Vec<[Turn; 2]>> = pairs.iter().map(|_| Vec::new()).collect();
    for round in 1..=turns.rounds.unwrap_or(ROUNDS) {
        eprintln!("round {round}");
        for (pair, rounds) in pairs.iter().zip(&mut rounds) {
            ensure!(!signals.wait(Duration::ZERO), "interrupted");
            rounds.push(pair.turn(round, length, &directory)?);
        }
    }
    let mut text = heading();
    for (pair, rounds) in pairs.iter().zip(&rounds) {
        text += &rows(pair.name, pair.goal, rounds);
    }
    println!("\n{text}");
    if turns.save {
        record::save(&text)?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Pair {
    fn turn(&self, round: u32, length: Duration, directory: &Path) -> Result<[Turn; 2]> {
        let at = |side: usize| directory.join(side.to_string());
        let subjects = compare::either_first(round, |side| {
            fs::create_dir_all(at(side)).context("create a folder")?;
            Subject::start_with(KIND, "", &self.programs[side], &at(side))
        })?;
        let reader = match self.is_read {
            true => Some(read(&self.programs[1].path(KIND), &at(1))?),
            false => None,
        };
        let turns = measure::by_turns([&subjects[0], &subjects[1]], length);
        if let Some(reader) = reader {
            let written = written(reader.pid())?;
            ensure!(
                written > WRITTEN_MIN,
                "the reader has written {written} bytes: {}",
                reader.log()
            );
        }
        turns
    }
}

/// Starts `tail` of the appliance with the files in `directory`.
fn read(program: &Path, directory: &Path) -> Result<Process> {
    let mut command = Command::new("sh");
    command.args(["-c", READ]).arg(program);
    command.arg(directory.join(format!("{}.sock", KIND.letter())));
    pin_on_exec(&mut command, LOAD_CORE)?;
    let process = Process::spawn(command, &directory.join("tail.log"))?;
    sleep(ATTACH);
    Ok(process)
}

/// Bytes that a process has written.
fn written(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/io");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("wchar: "));
    line.and_then(|count| count.parse().ok())
        .with_context(|| format!("{path} has no wchar:\n{text}"))
}

fn heading() -> String {
    format!(
        "{:<44}{:>12}{:>12}{:>8}{:>14}{:>12}\n",
        "hits", "of", "measured", "ratio", "middle half", "goal"
    )
}

/// Rate and processor time: medians over the rounds, and of the ratios within a round, with their quartiles.
fn rows(name: &str, goal: &str, rounds: &[[Turn; 2]]) -> String {
    let mut text = String::new();
    let mut row = |what: &str, goal: &str, of: fn(&Turn) -> f64| {
        let middle = |side: usize| median(rounds.iter().map(|turns| of(&turns[side])).collect());
        let ratios = rounds.iter().map(|[first, second]| of(second) / of(first));
        let ratios: Vec<f64> = ratios.collect();
        let [low, high] = quartiles(ratios.clone());
        let line = format!(
            "{:<44}{:>12.0}{:>12.0}{:>8.3}{:>14}{goal:>12}",
            format!("{name}: {what}"),
            middle(0),
            middle(1),
            median(ratios),
            format!("{low:.3}..{high:.3}"),
        );
        // Writing to a string never fails.
        let _ = writeln!(text, "{}", line.trim_end());
    };
    row("answers/s", goal, |turn| turn.answered);
    row("queries/s", "", |turn| turn.offered);
    row("CPU ns", "", |turn| turn.cpu_ns);
    text
}

#[cfg(test)]
mod tests {
    use super::{Turn, rows};

    #[test]
    fn ratios_are_of_the_second_to_the_first() {
        let turn = |answered: f64| Turn {
            offered: 2e6,
            answered,
            cpu_ns: 1e9 / answered,
            busy: 1.0,
        };
        let text = rows(
            "tail",
            ">= 0.90",
            &[[turn(1e6), turn(9e5)], [turn(2e6), turn(1e6)]],
        );
        let words: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        let rate = [
            "tail:",
            "answers/s",
            "1500000",
            "950000",
            "0.700",
            "0.500..0.900",
            ">=",
            "0.90",
        ];
        assert_eq!(words[0], rate);
        assert_eq!(
            words[1][2..],
            ["2000000", "2000000", "1.000", "1.000..1.000"]
        );
        assert_eq!(words[2][5], "1.556");
    }
}
