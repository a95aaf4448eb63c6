//! `cargo xtask bench miss`: uncached names, asked of the appliance and of other forwarders in its place.
//!
//! All are asked in the same lab by the same client, forward to the same upstream, and take turns, round after round, each time
//! as a new process with an empty cache. All share this machine's cores with the client and the upstream, so answers per second
//! reflect the total cost of an answer, and the row "upstream" is the upper bound. The latency that a forwarder adds is its
//! median less that of asking the upstream through the router's kernel, in the same round.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Args;

use super::Turns;
use super::build::Programs;
use super::record;
use super::subject::{Backend, Kind};
use crate::arguments::{SOME, number_in};
use crate::setup::{self, Purpose};
use crate::signals::Signals;
use crate::workspace;
use xdnsd_lab::lab::{Lab, Spec, UPSTREAM_V4};
use xdnsd_lab::nsd::{Upstream, Zone};
use xdnsd_lab::privilege::require_root;

mod report;
mod subject;
mod turn;

pub use subject::Subject;
pub use turn::turn;

use report::Row;

const ROUNDS: u32 = 7;
const SECONDS: u32 = 3;
/// Questions per second while latency is measured: few enough that none waits for another in any forwarder.
pub const RATE: u32 = 1000;
/// More questions per second than any subject answers here.
const RATE_MAX: u32 = 150_000;
/// The zone of the names.
const ORIGIN: &str = "miss.test.";

/// Arguments of `bench miss`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Questions per second while latency is measured.
    #[arg(long, value_name = "N", default_value_t = RATE, value_parser = number_in(SOME))]
    rate: u32,
    /// How long.
    #[command(flatten)]
    turns: Turns,
}

/// Plan of the measurement.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Turns of each subject.
    pub rounds: u32,
    /// Seconds of each measurement.
    pub seconds: u32,
    /// Questions per second while latency is measured.
    pub rate: u32,
}

impl Plan {
    /// Plan from `turns`, with these defaults.
    pub fn of(turns: &Turns, rounds: u32, seconds: u32) -> Self {
        Self {
            rounds: turns.rounds.unwrap_or(rounds),
            seconds: turns.seconds.unwrap_or(seconds),
            rate: RATE,
        }
    }
}

/// Files of questions. All names are distinct, within and across files.
#[derive(Debug)]
struct Questions {
    /// Asked before measuring, to warm code and connections.
    first: PathBuf,
    /// Asked as fast as they are answered.
    fast: PathBuf,
    /// Asked at a rate.
    slow: PathBuf,
}

/// The command `bench miss`.
pub fn main(arguments: &Arguments, signals: &Signals) -> Result<ExitCode> {
    let plan = Plan {
        rate: arguments.rate,
        ..Plan::of(&arguments.turns, ROUNDS, SECONDS)
    };
    require_root("a benchmark in network namespaces")?;
    setup::ensure_all(&[Purpose::Lab], signals)?;
    let kind = Kind::Appliance(Backend::Own);
    let program = Programs::build(&[kind], signals)?.path(kind);
    let rows = run(plan, &program, signals)?;
    let table = report::table(&rows, plan.rate);
    println!("\n{table}");
    if arguments.turns.save {
        record::save(&table)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn run(plan: Plan, program: &Path, signals: &Signals) -> Result<Vec<Row>> {
    let ground = Ground::make(plan, program)?;
    let mut rows: Vec<Row> = Subject::ALL.into_iter().map(Row::new).collect();
    for round in 1..=plan.rounds {
        eprintln!("round {round} of {}", plan.rounds);
        for row in &mut rows {
            ensure!(!signals.wait(std::time::Duration::ZERO), "interrupted");
            let turn = turn(row.subject, plan, &ground, "");
            row.turns.push(turn.with_context(|| row.subject.name())?);
        }
    }
    Ok(rows)
}

/// Environment of all turns.
#[derive(Debug)]
pub struct Ground {
    lab: Lab,
    _upstream: Upstream,
    /// The appliance's program.
    pub program: PathBuf,
    questions: Questions,
    directory: PathBuf,
}

impl Ground {
    /// The lab, its upstream, and the questions of the plan.
    pub fn make(plan: Plan, program: &Path) -> Result<Self> {
        let directory = workspace::logs().join("bench-miss");
        let made = fs::create_dir_all(&directory);
        made.with_context(|| format!("create {}", directory.display()))?;
        let lab = Lab::up(&Spec::default())?;
        let zone = Zone {
            origin: ORIGIN.to_owned(),
            text: format!(
                "$ORIGIN {ORIGIN}\n$TTL 300\n@ SOA ns hostmaster 1 3600 600 86400 60\n\
                 @ NS ns\nns A {UPSTREAM_V4}\n* A 192.0.2.1\n"
            ),
        };
        Ok(Self {
            _upstream: Upstream::start_with(&lab, &directory, &[zone])?,
            lab,
            program: program.to_owned(),
            questions: questions(plan, &directory)?,
            directory,
        })
    }
}

fn questions(plan: Plan, directory: &Path) -> Result<Questions> {
    let write = |file: &str, count: u32| -> Result<PathBuf> {
        let mut text = String::new();
        for number in 0..count {
            // Writing to a string never fails.
            let _ = writeln!(text, "{file}-{number}.{ORIGIN} A");
        }
        let path = directory.join(file);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    };
    Ok(Questions {
        first: write("first", RATE)?,
        fast: write("fast", RATE_MAX * plan.seconds)?,
        slow: write("slow", plan.rate * plan.seconds)?,
    })
}
