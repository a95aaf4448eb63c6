//! `cargo xtask bench shield`: service during a flood, and the cost of its frames.
//!
//! Callers ask at a fixed rate while the client's core sends as many frames of one kind as it can, to the same address and port,
//! over the same link. dnsmasq and unbound take the same place under the same floods, with the kernel's SYN cookies. A flood's
//! frames are received on the core that sends them, so a router that is slow per frame gets fewer: the column says how many.

use std::fs;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;

use super::Turns;
use super::build::Programs;
use super::compare::{self, KIND};
use super::record;
use crate::arguments::{SOME, number_in};
use crate::setup::{self, Purpose};
use crate::signals::Signals;
use xdnsd_lab::privilege::require_root;
use xdnsd_lab::suite::Suite;

pub mod callers;
mod cost;
mod losses;
mod report;
pub mod turn;

use callers::Rates;
use report::Row;
use turn::{Ground, Who};

const ROUNDS: u32 = 1;
const SECONDS: u32 = 4;

/// Arguments of `bench shield`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Cached queries over UDP a second.
    #[arg(long, value_name = "N", default_value_t = 250, value_parser = number_in(SOME))]
    udp: u32,
    /// New connections over TCP a second, with a query each.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = number_in(SOME))]
    tcp: u32,
    /// Frames of a flood a second at most [default: as many as a core makes].
    #[arg(long, value_name = "N", value_parser = number_in(1..=10_000_000))]
    rate: Option<u32>,
    /// Leaves other forwarders out.
    #[arg(long)]
    alone: bool,
    /// How long.
    #[command(flatten)]
    turns: Turns,
}

/// The command `bench shield`.
pub fn main(arguments: &Arguments, signals: &Signals) -> Result<ExitCode> {
    let Arguments {
        udp,
        tcp,
        rate,
        alone,
        turns,
    } = arguments;
    require_root("a benchmark in network namespaces")?;
    super::require_two_cores("flood")?;
    setup::ensure_all(&[Purpose::Lab], signals)?;
    let suite = match alone {
        true => None,
        false => Some(setup::ensure_suite(signals)?),
    };
    let programs = Programs::build(&[KIND], signals)?;
    let directory = compare::directory("shield")?;
    let ground = Ground {
        programs: &programs,
        suite: suite.as_ref(),
        directory: &directory,
        rates: Rates {
            udp: *udp,
            tcp: *tcp,
        },
        length: Duration::from_secs(turns.seconds.unwrap_or(SECONDS).into()),
        flood: *rate,
    };
    let mut rows = rows(suite.as_ref())?;
    let mut costs = Vec::new();
    let rounds = turns.rounds.unwrap_or(ROUNDS);
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        let floods = cost::Floods {
            length: ground.length / 2,
            rate: ground.flood,
        };
        costs.push(cost::turn(&programs, &directory, floods)?);
        for row in &mut rows {
            ensure!(!signals.wait(Duration::ZERO), "interrupted");
            let turn = turn::turn(row.who, &ground);
            row.turns.push(turn.with_context(|| row.who.name())?);
        }
    }
    let table = report::all(&rows, &costs);
    println!("\n{table}");
    fs::write(directory.join("table.txt"), &table).context("write the table")?;
    if turns.save {
        record::save(&table)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Rows of all subjects.
fn rows(suite: Option<&Suite>) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for who in Who::ALL {
        let version = match (who, suite) {
            (Who::Appliance | Who::Bare, _) => String::new(),
            (Who::Peer(peer), Some(suite)) => suite.version(peer.name())?,
            (Who::Peer(_), None) => continue,
        };
        let turns = Vec::new();
        rows.push(Row {
            who,
            version,
            turns,
        });
    }
    Ok(rows)
}
