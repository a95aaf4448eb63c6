//! `cargo xtask bench xsk`: cost of the appliance beside the bare socket.
//!
//! Subjects take turns, round after round, so that drift of the machine affects all of them. Each turn has a new process on a new
//! veth pair: where the kernel happens to put a socket's structures makes a difference of several percent, and this way it does
//! not stay with one subject. The load has one core, the subject the other (`xdnsd_lab::live` says which kernel work belongs to
//! which). The load exceeds what any subject can answer, so a subject's rate is the capacity of its core; if a row's core was not
//! always busy, its processor time per answer is the figure to compare.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand};

use crate::arguments::{SOME, number_in};
use crate::setup::{self, Purpose};
use crate::signals::Signals;
use crate::workspace;
use xdnsd_lab::privilege::require_root;

mod against;
mod bridge;
mod build;
mod closed_loop;
mod compare;
pub mod flood;
mod lists;
mod measure;
mod miss;
mod pair;
mod paper;
mod query;
pub mod record;
mod report;
mod shield;
mod subject;
mod tap;
mod tier0;
mod upstream;

use build::Programs;
use measure::Turn;
use report::Row;
use subject::{Backend, Kind, Subject};

/// Core of the load, and core of the subject.
const LOAD_CORE: usize = 0;
const SUBJECT_CORE: usize = 1;
const ROUNDS: u32 = 7;
const SECONDS: u32 = 2;

/// Subcommands of `bench`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Cache hits over AF_XDP, against a bare AF_XDP echo and an echo over the kernel's sockets.
    Xsk {
        /// Measures only these rows: letters from a to e.
        #[arg(long, value_name = "LETTERS")]
        only: Option<String>,
        /// How long.
        #[command(flatten)]
        turns: Turns,
    },
    /// Cache misses, against dnsmasq and unbound.
    Miss(miss::Arguments),
    /// Hot names answered in the XDP program, against a bare reflector, AF_XDP, dnsmasq, unbound and Knot DNS over XDP.
    Tier0 {
        /// Measures only these rows: letters from a to i.
        #[arg(long, value_name = "LETTERS")]
        only: Option<String>,
        /// How long.
        #[command(flatten)]
        turns: Turns,
    },
    /// Who is served during floods, against dnsmasq and unbound, and what a flood's frame costs, against bare programs.
    Shield(shield::Arguments),
    /// Who is served while random names are asked for, 20,000 a second, against dnsmasq and unbound.
    Flood(flood::Arguments),
    /// The figures of the report that this project began with, from captures: first hits, hits in the cache, the upstream, dnsmasq.
    Paper(paper::Arguments),
    /// Hits and misses with a blocklist of a million names, against an empty one.
    Lists(Turns),
    /// Hits on a bridge of four ports, against a link without a bridge, and against generic XDP on the same bridge.
    Bridge {
        /// A program in place of this build, which is not built then.
        #[arg(long, value_name = "PROGRAM")]
        ours: Option<PathBuf>,
        /// How long.
        #[command(flatten)]
        turns: Turns,
    },
    /// Hits with nobody who reads queries, against `xdnsd tail` that reads all of them, and against a build without readers.
    Tap(tap::Arguments),
    /// Hits and misses of this build, against another build of the appliance.
    Against {
        /// The other build.
        program: PathBuf,
        /// A program in place of this build, which is not built then.
        #[arg(long, value_name = "PROGRAM")]
        ours: Option<PathBuf>,
        /// How long.
        #[command(flatten)]
        turns: Turns,
    },
}

/// How often and how long it is measured.
#[derive(Debug, Args)]
pub struct Turns {
    /// Turns of each subject [default: 7; 3 for `tier0`, 1 for `shield`].
    #[arg(long, value_name = "N", value_parser = number_in(SOME))]
    pub rounds: Option<u32>,
    /// Seconds of each measurement [default: 2; 3 for `miss`, 1 for `tier0`].
    #[arg(long, value_name = "N", value_parser = number_in(SOME))]
    pub seconds: Option<u32>,
    /// Adds the table to qemu-test/BENCH.md.
    #[arg(long)]
    pub save: bool,
}

/// Plan of `bench xsk`.
struct Plan {
    rounds: u32,
    length: Duration,
    kinds: Vec<Kind>,
}

/// The command `bench`.
pub fn main(command: Command, signals: &Signals) -> Result<ExitCode> {
    match command {
        Command::Xsk { only, turns } => xsk(only.as_deref(), &turns, signals),
        Command::Miss(arguments) => miss::main(&arguments, signals),
        Command::Tier0 { only, turns } => tier0::main(only.as_deref(), &turns, signals),
        Command::Shield(arguments) => shield::main(&arguments, signals),
        Command::Flood(arguments) => flood::main(&arguments, signals),
        Command::Paper(arguments) => paper::main(&arguments, signals),
        Command::Lists(turns) => lists::main(&turns, signals),
        Command::Bridge { ours, turns } => bridge::main(ours, &turns, signals),
        Command::Tap(arguments) => tap::main(&arguments, signals),
        Command::Against {
            program,
            ours,
            turns,
        } => against::main(program, ours, &turns, signals),
    }
}

/// Refuses a machine without a core for the subject and one for `what` else.
fn require_two_cores(what: &str) -> Result<()> {
    let cores = std::thread::available_parallelism().context("count the cores")?;
    ensure!(
        cores.get() > SUBJECT_CORE,
        "two cores are needed: one for the {what}"
    );
    Ok(())
}

/// Measures the sockets.
fn xsk(only: Option<&str>, turns: &Turns, signals: &Signals) -> Result<ExitCode> {
    let plan = plan(only, turns)?;
    require_root("a benchmark in network namespaces")?;
    require_two_cores("load")?;
    if plan.kinds.iter().any(|kind| {
        matches!(
            kind,
            Kind::Echo(Backend::Crate) | Kind::Appliance(Backend::Crate)
        )
    }) {
        setup::ensure_all(&[Purpose::AfXdp], signals)?;
    }
    let programs = Programs::build(&plan.kinds, signals)?;
    let rows = run(&plan, &programs, signals)?;
    let table = report::table(&rows);
    println!("\n{table}");
    if turns.save {
        record::save(&table)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn plan(only: Option<&str>, turns: &Turns) -> Result<Plan> {
    let is_wanted = |kind: &Kind| only.is_none_or(|letters| letters.contains(kind.letter()));
    let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(is_wanted).collect();
    ensure!(!kinds.is_empty(), "--only: letters from a to e");
    Ok(Plan {
        rounds: turns.rounds.unwrap_or(ROUNDS),
        length: Duration::from_secs(turns.seconds.unwrap_or(SECONDS).into()),
        kinds,
    })
}

fn run(plan: &Plan, programs: &Programs, signals: &Signals) -> Result<Vec<Row>> {
    let directory = workspace::logs().join("bench");
    fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
    let mut rows: Vec<Row> = plan.kinds.iter().copied().map(Row::new).collect();
    for round in 1..=plan.rounds {
        eprintln!("round {round} of {}", plan.rounds);
        for row in &mut rows {
            ensure!(!signals.wait(Duration::ZERO), "interrupted");
            let turn = turn(row.kind, plan.length, programs, &directory);
            row.turns.push(turn.with_context(|| row.kind.name())?);
        }
    }
    Ok(rows)
}

fn turn(kind: Kind, length: Duration, programs: &Programs, directory: &Path) -> Result<Turn> {
    let subject = Subject::start(kind, programs, directory)?;
    measure::turn(&subject, length)
}
