//! `cargo xtask bench tier0`: hot names answered inside the XDP program, beside other servers and bare programs.
//!
//! ```text
//!   core 0, the client                         core 1, the server
//!  ┌─────────────────────────────────┐        ┌──────────────────────────────────────┐
//!  │ BPF_PROG_TEST_RUN: sends ───────┼─ veth ─┼─► the driver's thread: XDP program ──┼─► the server's process
//!  │ the driver's thread: counts ◄───┼────────┼──────────────────────────────────────┼─◄
//!  └─────────────────────────────────┘        └──────────────────────────────────────┘
//! ```
//! Subjects take turns, round after round, each with a new process on a new pair. Everything that serves has one core, including
//! its driver's work; client and generator have the other. A subject's rate is the highest at any rate of queries (`search`).
//! Latency is measured without driver threads, as on a card whose interrupts come where the frames do: a thread's wake-up would
//! dominate it. It is measured in the kernel at both ends (`meter`).

use std::fs;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Turns;
use super::build::Programs;
use super::compare;
use super::record;
use super::subject::{Backend, Kind};
use crate::setup::{self, Purpose};
use crate::signals::Signals;
use xdnsd_lab::privilege::require_root;

mod meter;
mod report;
mod search;
mod subject;
mod turn;

use report::Row;
use subject::{Ground, Subject, Who};

const ROUNDS: u32 = 3;
const SECONDS: u32 = 1;

/// The command `bench tier0`.
pub fn main(only: Option<&str>, turns: &Turns, signals: &Signals) -> Result<ExitCode> {
    let is_wanted = |who: &Who| only.is_none_or(|letters| letters.contains(who.letter()));
    let wanted: Vec<Who> = Who::ALL.into_iter().filter(is_wanted).collect();
    ensure!(!wanted.is_empty(), "--only: letters from a to i");
    require_root("a benchmark in network namespaces")?;
    super::require_two_cores("client")?;
    setup::ensure_all(&[Purpose::Lab], signals)?;
    let suite = setup::ensure_suite(signals)?;
    let programs = Programs::build(
        &[Kind::Echo(Backend::Own), Kind::Appliance(Backend::Own)],
        signals,
    )?;
    let directory = compare::directory("tier0")?;
    let ground = Ground {
        programs: &programs,
        suite: &suite,
        directory: &directory,
    };
    let mut rows = Vec::new();
    for who in wanted {
        let version = who.program().map(|program| suite.version(program));
        rows.push(Row {
            who,
            version: version.transpose()?.unwrap_or_default(),
            turns: Vec::new(),
        });
    }
    let length = Duration::from_secs(turns.seconds.unwrap_or(SECONDS).into());
    let rounds = turns.rounds.unwrap_or(ROUNDS);
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        for row in &mut rows {
            ensure!(!signals.wait(Duration::ZERO), "interrupted");
            let turn =
                Subject::start(row.who, &ground).and_then(|subject| turn::turn(&subject, length));
            row.turns.push(turn.with_context(|| row.who.name())?);
        }
    }
    let table = report::table(&rows);
    println!("\n{table}");
    fs::write(directory.join("table.txt"), &table).context("write the table")?;
    if turns.save {
        record::save(&table)?;
    }
    Ok(ExitCode::SUCCESS)
}
