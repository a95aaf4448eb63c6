//! What has to hold for any bytes from outside: a target for each way by which they come in.
//!
//! A target is a function of bytes. It panics where something does not hold, and says whether the bytes were taken for what
//! they were to be, so that a run shows both sides. What tries it is another matter: the mutator of this package, which stable
//! Rust has (`cargo xtask fuzz`, and shortly with the tests), or libFuzzer by way of cargo-fuzz (`libfuzzer/`), which wants a
//! nightly compiler. Samples stand in `corpus/`, a folder for each target; [`samples`] makes those that no person can write.

#[path = "../../core/src/engine/tests/image.rs"]
mod image;
mod mutator;
pub mod samples;
mod targets;

use std::env;
use std::fmt;
use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::process;
use std::thread;
use std::time::{Duration, Instant};

pub use mutator::Mutator;

/// A way by which bytes come in.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, and that of its folder of samples.
    pub name: &'static str,
    /// Tries these bytes, and panics where something does not hold. Whether they were taken.
    pub run: fn(&[u8]) -> bool,
    /// Inputs of the run that goes with the tests: about a second without optimisation.
    pub rounds: u64,
}

impl Target {
    const fn new(name: &'static str, rounds: u64, run: fn(&[u8]) -> bool) -> Self {
        Self { name, run, rounds }
    }

    /// The target of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        TARGETS.iter().find(|target| target.name == name)
    }

    /// Where its samples are.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("corpus")
            .join(self.name)
    }

    /// Its samples, in the order of their names.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn samples(&self) -> io::Result<Vec<Vec<u8>>> {
        let entries = fs::read_dir(self.folder())?.collect::<io::Result<Vec<_>>>()?;
        let mut files: Vec<PathBuf> = entries.iter().map(fs::DirEntry::path).collect();
        files.sort();
        files.iter().map(fs::read).collect()
    }
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target::new("frame", 10_000, targets::wire::frame),
    Target::new("query", 1_500, targets::messages::query),
    Target::new("answer", 8_000, targets::messages::answer),
    Target::new("engine", 150, targets::engine::over_time),
    Target::new("stream", 1_000, targets::streams::of_clients),
    Target::new("answer-stream", 1_000, targets::streams::of_servers),
    Target::new("snapshot", 8_000, targets::files::snapshot),
    Target::new("list", 8_000, targets::files::compiled_list),
    Target::new("local", 8_000, targets::files::local_data),
    Target::new("rules", 2_000, targets::text::rules),
    Target::new("hosts", 4_000, targets::text::hosts),
    Target::new("leases", 4_000, targets::text::leases),
    Target::new("config", 150, targets::text::config),
    Target::new("control", 1_000, targets::control::requests),
];

/// For how long a target is tried.
#[derive(Clone, Copy, Debug)]
pub enum Limit {
    /// So many inputs.
    Rounds(u64),
    /// So long.
    Time(Duration),
}

/// What was tried.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// Inputs.
    pub rounds: u64,
    /// Those that were taken for what they were to be.
    pub taken: u64,
    /// How long it took.
    pub time: Duration,
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            rounds,
            taken,
            time,
        } = self;
        let percent = taken * 100 / (*rounds).max(1);
        let rate = *rounds as f64 / time.as_secs_f64().max(0.001);
        write!(
            formatter,
            "{rounds:>10} inputs, {percent:>3} % taken, {rate:>8.0} a second"
        )
    }
}

/// Tries a target: each sample as it is, then mutations, the same ones for the same seed.
///
/// # Errors
/// Something does not hold: in which file the input is. Or the samples cannot be read.
pub fn run(target: &Target, seed: u64, limit: Limit) -> Result<Report, String> {
    let samples = target
        .samples()
        .map_err(|error| format!("{}: {error}", target.folder().display()))?;
    on_large_stack(|| try_all(target, samples, seed, limit))
}

fn try_all(
    target: &Target,
    samples: Vec<Vec<u8>>,
    seed: u64,
    limit: Limit,
) -> Result<Report, String> {
    let begun = Instant::now();
    let mut mutator = Mutator::new(samples.clone(), seed);
    let mut as_they_are = samples.into_iter();
    let (mut rounds, mut taken) = (0, 0);
    let is_over = |rounds: u64| match limit {
        Limit::Rounds(most) => rounds >= most,
        Limit::Time(time) => begun.elapsed() >= time,
    };
    while !is_over(rounds) {
        let input = as_they_are.next().unwrap_or_else(|| mutator.input());
        rounds += 1;
        let tried = catch_unwind(AssertUnwindSafe(|| (target.run)(&input)));
        match tried {
            Ok(true) => {
                taken += 1;
                mutator.note_taken(input);
            }
            Ok(false) => {}
            Err(_) => return Err(failure(target, &input)),
        }
    }
    Ok(Report {
        rounds,
        taken,
        time: begun.elapsed(),
    })
}

/// Keeps an input for which something does not hold.
fn failure(target: &Target, input: &[u8]) -> String {
    let name = format!("xdnsd-fuzz-{}-{}.bin", target.name, process::id());
    let path = env::temp_dir().join(name);
    let kept = fs::write(&path, input);
    match kept {
        Ok(()) => format!(
            "{name}: see above; again: cargo run -p xdnsd-fuzz -- --input {name} {}",
            path.display(),
            name = target.name
        ),
        Err(error) => format!("{}: see above; {}: {error}", target.name, path.display()),
    }
}

/// Runs `f` on a thread whose stack holds tables that the product has in statics.
pub fn on_large_stack<T: Send>(f: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let builder = thread::Builder::new().stack_size(64 << 20);
        let thread = builder.spawn_scoped(scope, f).expect("a thread");
        thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// Removes what targets have left on the disk; to be called at the end.
pub fn clean_up() {
    targets::control::clean_up();
}
