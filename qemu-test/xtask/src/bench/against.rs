//! `cargo xtask bench against PROGRAM`: cost of hits and misses, and their rates, beside another build of the appliance, such as
//! that of an earlier commit. Hits as in `bench xsk`, misses as in `bench miss` and in a closed loop, where client and upstream
//! leave the cores to the appliance; turns alternate, each with a new process.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, ensure};

use super::Turns;
use super::build::Programs;
use super::compare::{self, Goals, KIND, Side};
use super::miss;
use super::record;
use crate::setup::{self, Purpose};
use crate::signals::Signals;
use xdnsd_lab::privilege::require_root;

const ROUNDS: u32 = 7;
const SECONDS: u32 = 2;

/// The command `bench against`.
pub fn main(
    other: PathBuf,
    ours: Option<PathBuf>,
    turns: &Turns,
    signals: &Signals,
) -> Result<ExitCode> {
    let plan = miss::Plan::of(turns, ROUNDS, SECONDS);
    for program in [Some(&other), ours.as_ref()].into_iter().flatten() {
        ensure!(program.is_file(), "{}: not a program", program.display());
    }
    require_root("a benchmark in network namespaces")?;
    setup::ensure_all(&[Purpose::Lab], signals)?;
    let ours = match ours {
        Some(program) => Programs::built(program),
        None => Programs::build(&[KIND], signals)?,
    };
    let theirs = ours.clone().with_appliance(other);
    let sections = String::new;
    let sides = [
        Side {
            name: "the other",
            programs: theirs,
            sections: sections(),
        },
        Side {
            name: "this build",
            programs: ours,
            sections: sections(),
        },
    ];
    let goals = Goals {
        hit: "0.98 to 1.02",
        hits: ">= 1.00",
        miss: "<= 0.95",
        alone: ">= 1.10",
        ..Goals::default()
    };
    let rounds = compare::compare(&sides, plan, &compare::directory("against")?, signals)?;
    let table = compare::table([sides[0].name, sides[1].name], &rounds, goals);
    println!("\n{table}");
    if turns.save {
        record::save(&table)?;
    }
    Ok(ExitCode::SUCCESS)
}
