//! Two appliances side by side: cost of a hit and of a miss for each, with ratios within one run.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::build::Programs;
use super::closed_loop;
use super::measure;
use super::miss::{self, Ground};
use super::report::{median, quartiles};
use super::subject::{Backend, Kind, Subject};
use crate::signals::Signals;
use crate::workspace;

/// The appliance over our own sockets.
pub const KIND: Kind = Kind::Appliance(Backend::Own);

/// One of the two appliances.
#[derive(Debug)]
pub struct Side<'a> {
    /// Heading of its column.
    pub name: &'a str,
    /// Its programs.
    pub programs: Programs,
    /// Further sections of its config.
    pub sections: String,
}

/// Bounds of the second's cost and rate as a ratio to the first's; empty for none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Goals {
    /// Processor time of a hit.
    pub hit: &'static str,
    /// Rate of hits.
    pub hits: &'static str,
    /// Processor time of a miss.
    pub miss: &'static str,
    /// Rate of misses, with a real client and upstream.
    pub misses: &'static str,
    /// Rate of misses in the closed loop.
    pub alone: &'static str,
}

/// One turn of one side.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    /// Processor time per answer from the cache, in nanoseconds.
    pub hit_ns: f64,
    /// Answers from the cache per second.
    pub hits: f64,
    /// Processor time per answer from upstream, in nanoseconds.
    pub miss_ns: f64,
    /// Answers from upstream per second. Client and upstream share the cores with the appliance, and bound the rate.
    pub misses: f64,
    /// Answers from upstream per second, with the appliance alone on its core, see [`closed_loop`].
    pub alone: f64,
    /// Processor time per answer there, in nanoseconds.
    pub alone_ns: f64,
}

/// Directory for the files of `bench WHAT`.
pub fn directory(what: &str) -> Result<PathBuf> {
    let directory = workspace::logs().join(format!("bench-{what}"));
    fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
    Ok(directory)
}

/// Measures both, each time as new processes: hits in alternating slices, misses one after the other. The order changes from
/// round to round, so that drift of the machine, and effects of a build, affect both.
pub fn compare(
    sides: &[Side<'_>; 2],
    plan: miss::Plan,
    directory: &Path,
    signals: &Signals,
) -> Result<Vec<[Turn; 2]>> {
    let mut ground = Ground::make(plan, &sides[0].programs.path(KIND))?;
    let mut rounds = Vec::new();
    for round in 1..=plan.rounds {
        eprintln!("round {round} of {}", plan.rounds);
        ensure!(!signals.wait(Duration::ZERO), "interrupted");
        let hits = hits(sides, plan, round, directory)?;
        let turns = either_first(round, |at| {
            let side = &sides[at];
            ground.program = side.programs.path(KIND);
            turn(side, hits[at], plan, &ground, directory).with_context(|| side.name.to_owned())
        })?;
        let of = |rate: fn(&Turn) -> f64| rate(&turns[1]) / rate(&turns[0]);
        let (hits, misses, alone) = (of(|t| t.hits), of(|t| t.misses), of(|t| t.alone));
        eprintln!("rates: hits {hits:.3}, misses {misses:.3}, misses alone {alone:.3}");
        rounds.push(turns);
    }
    Ok(rounds)
}

/// Does the same for both: for the first before the second in odd rounds, after it in even ones.
pub fn either_first<T>(round: u32, mut of: impl FnMut(usize) -> Result<T>) -> Result<[T; 2]> {
    if round % 2 == 1 {
        return Ok([of(0)?, of(1)?]);
    }
    let second = of(1)?;
    Ok([of(0)?, second])
}

/// Both serve at the same time, with the load on one of them. The starting order changes with the round: the process that starts
/// first has other memory than the second.
fn hits(
    sides: &[Side<'_>; 2],
    plan: miss::Plan,
    round: u32,
    directory: &Path,
) -> Result<[measure::Turn; 2]> {
    let start = |at: usize| {
        let side = &sides[at];
        let directory = directory.join(at.to_string());
        fs::create_dir_all(&directory)
            .with_context(|| format!("create {}", directory.display()))?;
        Subject::start_with(KIND, &side.sections, &side.programs, &directory)
            .with_context(|| side.name.to_owned())
    };
    let subjects = either_first(round, start)?;
    let length = Duration::from_secs(plan.seconds.into());
    measure::by_turns([&subjects[0], &subjects[1]], length)
}

fn turn(
    side: &Side<'_>,
    hits: measure::Turn,
    plan: miss::Plan,
    ground: &Ground,
    directory: &Path,
) -> Result<Turn> {
    let length = Duration::from_secs(plan.seconds.into());
    let misses = miss::turn(miss::Subject::Appliance, plan, ground, &side.sections)?;
    ensure!(misses.failed == 0, "{misses:?}");
    let alone = closed_loop::turn(&ground.program, &side.sections, length, directory)?;
    Ok(Turn {
        hit_ns: hits.cpu_ns,
        hits: hits.answered,
        miss_ns: 1000.0 * misses.cpu_us,
        misses: misses.rate,
        alone: alone.rate,
        alone_ns: alone.cpu_ns,
    })
}

/// Medians over the rounds, and of the ratios within a round, second to first, with their quartiles: a goal between the quartiles
/// is neither clearly met nor clearly missed.
pub fn table(names: [&str; 2], rounds: &[[Turn; 2]], goals: Goals) -> String {
    let [first, second] = names;
    let mut text = format!(
        "{:<30}{first:>12}{second:>12}{:>8}{:>14}{:>15}\n",
        "", "ratio", "middle half", "goal"
    );
    let mut row = |name: &str, goal: &str, of: fn(&Turn) -> f64| {
        let middle = |side: usize| median(rounds.iter().map(|turns| of(&turns[side])).collect());
        let ratios = rounds.iter().map(|[first, second]| of(second) / of(first));
        let ratios: Vec<f64> = ratios.collect();
        let [low, high] = quartiles(ratios.clone());
        let line = format!(
            "{name:<30}{:>12.0}{:>12.0}{:>8.3}{:>14}{goal:>15}",
            middle(0),
            middle(1),
            median(ratios),
            format!("{low:.3}..{high:.3}")
        );
        // Writing to a string never fails.
        let _ = writeln!(text, "{}", line.trim_end());
    };
    row("hits: CPU ns per answer", goals.hit, |turn| turn.hit_ns);
    row("hits: answers/s", goals.hits, |turn| turn.hits);
    row("misses: CPU ns per answer", goals.miss, |turn| turn.miss_ns);
    row("misses: answers/s", goals.misses, |turn| turn.misses);
    row("misses, alone: CPU ns", goals.miss, |turn| turn.alone_ns);
    row("misses, alone: answers/s", goals.alone, |turn| turn.alone);
    text
}

#[cfg(test)]
mod tests {
    use super::{Goals, Turn, table};

    #[test]
    fn ratios_are_of_the_second_to_the_first() {
        let turn = |hit_ns| Turn {
            hit_ns,
            hits: 1e9 / hit_ns,
            miss_ns: 20_000.0,
            misses: 5e6 / hit_ns,
            alone: 1e6,
            alone_ns: 5_000.0,
        };
        let rounds = [[turn(100.0), turn(110.0)], [turn(200.0), turn(240.0)]];
        let goals = Goals {
            hit: "<= 1.10",
            misses: ">= 0.90",
            ..Goals::default()
        };
        let table = table(["one", "other"], &rounds, goals);
        let line = |start: &str| {
            let line = table.lines().find(|line| line.starts_with(start));
            line.expect("a row")
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" ")
        };
        let wanted = "hits: CPU ns per answer 150 175 1.150 1.100..1.200 <= 1.10";
        assert_eq!(line("hits: CPU"), wanted);
        assert_eq!(
            line("misses: CPU"),
            "misses: CPU ns per answer 20000 20000 1.000 1.000..1.000"
        );
        // 50,000 and 25,000 a second beside 45,454 and 20,833: medians of the rounds, and of the ratios within each.
        assert_eq!(
            line("misses: answers"),
            "misses: answers/s 37500 33144 0.871 0.833..0.909 >= 0.90"
        );
    }
}
