//! `cargo xtask bench paper`: figures 3 to 5 of the report that this project began with, reproduced with its tools.
//!
//! ```text
//!   client                                        router                  upstream
//!  ┌───────────────────────────────────┐         ┌─────────────┐         ┌──────────────────┐
//!  │ dig, dnsperf ─► eth0 ─► tcpdump   │         │ who answers │         │ an answer, as    │
//!  │ tcpreplay of what was captured ─► ┼── veth ─┼─►           ├── veth ─┼─► late as one    │
//!  │ tshark: from query to response    │         │             │         │ from far away    │
//!  └───────────────────────────────────┘         └─────────────┘         └──────────────────┘
//! ```
//! Each name is asked for once, by dig or by dnsperf, and captured; the captured queries are replayed, and captured again.
//! tshark's times from the captures make the figures: first hits from the first capture, cache hits from the second.
//!
//! Two things differ from the report: its upstream was 8.8.8.8, which no lab reaches, so ours answers after a set delay; and it
//! asked as fast as answers came, so that its times are mostly queueing. Here a query is sent once the one before has its answer,
//! or nearly so.

use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;

use super::build::Programs;
use super::compare;
use super::record;
use super::subject::{Backend, Kind};
use crate::arguments::number_in;
use crate::setup::{self, Purpose};
use crate::signals::Signals;
use crate::workspace;
use xdnsd_lab::privilege::require_root;

mod capture;
mod plot;
mod report;
mod site;
mod turn;

use report::Series;
use site::{Ground, Who};
use xdnsd_lab::family::Family;

/// Number of names: fewer than the XDP program has room for.
const NAMES_RANGE: RangeInclusive<u32> = 10..=400;
/// Queries a second.
const RATE_RANGE: RangeInclusive<u32> = 1..=10_000;
/// Delay of the upstream, in milliseconds.
const DISTANCE_RANGE: RangeInclusive<u32> = 1..=1_000;
/// Directory of the committed figures.
const KEPT: &str = "qemu-test/paper";

/// Arguments of `bench paper`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Names that are asked for.
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = number_in(NAMES_RANGE))]
    names: u32,
    /// Queries a second.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = number_in(RATE_RANGE))]
    rate: u32,
    /// Milliseconds to the upstream's answer.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = number_in(DISTANCE_RANGE))]
    distance: u32,
    /// Writes the table and the figures to qemu-test/paper.
    #[arg(long)]
    save: bool,
}

/// The command.
pub fn main(arguments: &Arguments, signals: &Signals) -> Result<ExitCode> {
    require_root("a benchmark in network namespaces")?;
    setup::ensure_all(&[Purpose::Lab, Purpose::Paper], signals)?;
    let kind = Kind::Appliance(Backend::Own);
    let program = Programs::build(&[kind], signals)?.path(kind);
    let directory = compare::directory("paper")?;
    let distance = Duration::from_millis(arguments.distance.into());
    let ground = Ground::make(program, arguments.names, distance, &directory)?;
    let mut series = Vec::new();
    for family in Family::ALL {
        for who in Who::ALL {
            ensure!(!signals.wait(Duration::ZERO), "interrupted");
            eprintln!("{} over {}", who.name(), family.name());
            let measured = turn::turn(&ground, who, family, arguments.rate);
            series.extend(measured.with_context(|| who.name())?);
        }
    }
    let table = report::table(&series);
    println!("\n{table}");
    let conditions = format!(
        "{} names for each family, {} queries a second, an upstream that answers after {} ms.",
        arguments.names, arguments.rate, arguments.distance
    );
    let kept = match arguments.save {
        true => workspace::root().join(KEPT),
        false => directory,
    };
    write(&kept, &series, &table, &conditions)?;
    println!("the page and its figures are in {}", kept.display());
    Ok(ExitCode::SUCCESS)
}

/// Writes the figures, and the page that shows them.
fn write(place: &Path, series: &[Series], table: &str, conditions: &str) -> Result<()> {
    fs::create_dir_all(place).with_context(|| format!("create {}", place.display()))?;
    for figure in &plot::FIGURES {
        let path: PathBuf = place.join(figure.file);
        let drawn = plot::draw(figure, series).with_context(|| format!("draw {}", figure.file))?;
        fs::write(&path, drawn).with_context(|| format!("write {}", path.display()))?;
    }
    let page = report::page(&record::heading()?, conditions, table, &plot::FIGURES);
    let path = place.join("README.md");
    fs::write(&path, page).with_context(|| format!("write {}", path.display()))
}
