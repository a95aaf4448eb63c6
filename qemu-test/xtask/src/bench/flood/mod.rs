//! `cargo xtask bench flood`: who is served while somebody asks for random names.
//!
//! ```text
//!  random names, from one address or from many ─┐
//!  200 names, each 5 times a second ────────────┼─► subject ─► an upstream that answers all, or nothing of the random names
//!  new names of the same clients ───────────────┘
//! ```
//! The upstream counts its questions for the 200 names: what was answered without one came from the cache. unbound and dnsmasq
//! take the appliance's place, each in a lab of its own.

use std::fmt::Write as _;
use std::fs;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;

use super::Turns;
use super::build::Programs;
use super::compare::{self, KIND};
use super::record;
use crate::arguments::number_in;
use crate::setup::{self, Purpose};
use crate::signals::Signals;
use xdnsd_lab::peer::Peer;
use xdnsd_lab::privilege::require_root;

pub mod callers;
mod turn;

use callers::Served;
use turn::{Ground, SCENES, Scene};

const ROUNDS: u32 = 1;
const SECONDS: u32 = 8;
/// Random names a second.
const RATE: u32 = 20_000;
/// Goals in percent: known names answered from the cache; new names answered while the upstream is silent about the random ones.
const KNOWN_GOAL: f64 = 99.5;
const NEW_GOAL: f64 = 95.0;

/// Arguments of `bench flood`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Random names a second.
    #[arg(long, value_name = "N", default_value_t = RATE, value_parser = number_in(1..=1_000_000))]
    rate: u32,
    /// Leaves other forwarders out.
    #[arg(long)]
    alone: bool,
    /// How long.
    #[command(flatten)]
    turns: Turns,
}

/// A forwarder, and what its clients got in each scene, over all rounds.
#[derive(Debug)]
struct Row {
    who: Option<Peer>,
    served: [Served; SCENES.len()],
    /// Random names that arrived a second.
    floods: [f64; SCENES.len()],
}

/// The command `bench flood`.
pub fn main(arguments: &Arguments, signals: &Signals) -> Result<ExitCode> {
    let Arguments { rate, alone, turns } = arguments;
    require_root("a benchmark in network namespaces")?;
    super::require_two_cores("flood")?;
    setup::ensure_all(&[Purpose::Lab], signals)?;
    let programs = Programs::build(&[KIND], signals)?;
    let directory = compare::directory("flood")?;
    let ground = Ground {
        program: programs.path(KIND),
        directory: &directory,
        rate: *rate,
        length: Duration::from_secs(turns.seconds.unwrap_or(SECONDS).into()),
    };
    let peers = [Peer::Dnsmasq, Peer::Unbound { threads: 1 }];
    let others = peers.into_iter().filter(|_| !alone).map(Some);
    let mut rows: Vec<Row> = std::iter::once(None).chain(others).map(Row::new).collect();
    let rounds = turns.rounds.unwrap_or(ROUNDS);
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        for row in &mut rows {
            ensure!(!signals.wait(Duration::ZERO), "interrupted");
            let outcomes = turn::turn(row.who, &ground).with_context(|| row.name())?;
            for (at, outcome) in outcomes.into_iter().enumerate() {
                row.served[at] += outcome.served;
                row.floods[at] = row.floods[at].max(outcome.flood);
            }
        }
    }
    let table = table(&rows);
    println!("\n{table}");
    fs::write(directory.join("table.txt"), &table).context("write the table")?;
    if turns.save {
        record::save(&table)?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Row {
    fn new(who: Option<Peer>) -> Self {
        Self {
            who,
            served: Default::default(),
            floods: Default::default(),
        }
    }

    fn name(&self) -> &'static str {
        self.who.map_or("xdnsd", Peer::name)
    }
}

/// A line for each scene and forwarder.
fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<34}{:<9}{:>9}{:>14}{:>10}{:>10}{:>10}\n",
        "random names", "", "a second", "from the cache", "answered", "new names", "goals"
    );
    for (at, scene) in SCENES.into_iter().enumerate() {
        for row in rows {
            let Served { known, new, asked } = row.served[at];
            let from_cache = 100.0 * known.served.saturating_sub(asked) as f64 / known.asked as f64;
            let verdict = match row.who {
                Some(_) => "",
                None => goals(scene, from_cache, new.percent()),
            };
            let line = format!(
                "{:<34}{:<9}{:>9.0}{:>13.2}%{:>9.2}%{:>9.2}%{verdict:>10}",
                scene.name(),
                row.name(),
                row.floods[at],
                from_cache,
                known.percent(),
                new.percent(),
            );
            let _ = writeln!(text, "{}", line.trim_end());
        }
    }
    let _ = writeln!(
        text,
        "\nThe goals: {KNOWN_GOAL} % of the known names from the cache; with a silent upstream also {NEW_GOAL} % of the new names."
    );
    text
}

fn goals(scene: Scene, from_cache: f64, new: f64) -> &'static str {
    let is_met = from_cache >= KNOWN_GOAL && (!scene.is_silent || new >= NEW_GOAL);
    if is_met { "met" } else { "missed" }
}

#[cfg(test)]
mod tests {
    use super::callers::{Served, Share};
    use super::{Row, SCENES, table};
    use xdnsd_lab::peer::Peer;

    fn row(who: Option<Peer>, asked: u64, new: u64) -> Row {
        let share = |served, asked| Share { asked, served };
        let served = Served {
            known: share(1000, 1000),
            new: share(new, 100),
            asked,
        };
        Row {
            who,
            served: [served; SCENES.len()],
            floods: [20_000.0; SCENES.len()],
        }
    }

    #[test]
    fn known_names_count_as_cached_if_upstream_was_not_asked() {
        for (asked, new, verdicts) in [
            (5, 95, ["met"; 4]),
            (6, 95, ["missed"; 4]),
            (5, 94, ["met", "missed", "met", "missed"]),
        ] {
            let table = table(&[row(None, asked, new), row(Some(Peer::Dnsmasq), 0, 0)]);
            let ours: Vec<_> = table
                .lines()
                .filter(|line| line.contains("xdnsd"))
                .collect();
            for (line, verdict) in ours.iter().zip(verdicts) {
                assert!(line.ends_with(&format!(" {verdict}")), "{line}");
            }
            let cached = format!("{:.2}%", 100.0 - asked as f64 / 10.0);
            assert!(ours[0].contains(&cached), "{table}");
            let peers = table.lines().find(|line| line.contains("dnsmasq"));
            assert!(
                peers.is_some_and(|line| line.ends_with(" 0.00%")),
                "{table}"
            );
        }
    }
}
