//! `cargo xtask bench xsk`: what the appliance costs beside the bare socket.
//!
//! Subjects take turns, round after round, so that drift of the machine meets all of them. Each turn has a new process
//! on a new veth pair: where the kernel happens to put a socket's structures makes several hundredths, and so does not
//! stay with one subject. The load has one core, the subject the other (`load.rs` says which kernel work is
//! whose). The load is more than any subject can answer, so a subject's rate is what its core can do; where a row's
//! core was not busy all the time, its processor time per answer is the figure to compare.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::arguments::Arguments;
use crate::setup::{self, Purpose};
use crate::signals::Signals;
use crate::workspace;
use xdnsd_lab::privilege::require_root;

mod against;
mod build;
mod compare;
mod lists;
mod load;
mod measure;
mod miss;
mod pair;
mod query;
mod record;
mod report;
mod subject;

mod upstream;

use build::Programs;
use measure::Turn;
use report::Row;
use subject::{Backend, Kind, Subject};

/// How it is called.
pub const USAGE: &str = "bench xsk [--only LETTERS] | miss [--rate N] | lists | against PROGRAM, each with [--rounds N] [--seconds N] [--save]";

/// The core that sends, and the core of the subject.
const LOAD_CORE: usize = 0;
const SUBJECT_CORE: usize = 1;
const ROUNDS: u32 = 7;
const SECONDS: u32 = 2;

/// What the words ask for.
struct Plan {
    rounds: u32,
    length: Duration,
    kinds: Vec<Kind>,
    is_saved: bool,
}

/// The command `bench`.
pub fn main(mut arguments: Arguments, signals: &Signals) -> Result<ExitCode> {
    match arguments.next().as_deref() {
        Some("xsk") => xsk(arguments, signals),
        Some("miss") => miss::main(arguments, signals),
        Some("lists") => lists::main(arguments, signals),
        Some("against") => against::main(arguments, signals),
        Some(other) => bail!("nothing to measure by the name of {other:?}: {USAGE}"),
        None => bail!("{USAGE}"),
    }
}

/// Measures the sockets.
pub fn xsk(mut arguments: Arguments, signals: &Signals) -> Result<ExitCode> {
    let words: Vec<_> = arguments.clone().rest().collect();
    let plan = plan(&mut arguments)?;
    arguments.finish()?;
    require_root("a benchmark in network namespaces")?;
    let cores = std::thread::available_parallelism().context("count the cores")?;
    ensure!(
        cores.get() > SUBJECT_CORE,
        "two cores are needed: one for the load"
    );
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
    if plan.is_saved {
        record::save("xsk", &words, &table)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn plan(arguments: &mut Arguments) -> Result<Plan> {
    let rounds = arguments.number("--rounds")?.unwrap_or(ROUNDS);
    let seconds = arguments.number("--seconds")?.unwrap_or(SECONDS);
    ensure!(rounds > 0 && seconds > 0, "rounds and seconds start at 1");
    let only = arguments.value("--only")?;
    let is_wanted = |kind: &Kind| {
        only.as_ref()
            .is_none_or(|letters| letters.contains(kind.letter()))
    };
    let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(is_wanted).collect();
    ensure!(!kinds.is_empty(), "--only takes letters of {USAGE}: a to e");
    Ok(Plan {
        rounds,
        length: Duration::from_secs(seconds.into()),
        kinds,
        is_saved: arguments.flag("--save"),
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
    let subject = Subject::start(kind, programs, SUBJECT_CORE, directory)?;
    measure::turn(&subject, length, LOAD_CORE, SUBJECT_CORE)
}
