//! Tries targets for a while, each with its own seed and samples: `cargo xtask fuzz`.

use std::env;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use xdnsd_fuzz::{Limit, TARGETS, Target, samples};

const USAGE: &str = "usage: xdnsd-fuzz [--minutes N | --seconds N] [--seed N] [TARGET...]\n\
                     \x20      xdnsd-fuzz --input TARGET FILE...\n\
                     \x20      xdnsd-fuzz --write-samples";

/// What is wanted.
struct Wanted {
    targets: Vec<&'static Target>,
    time: Duration,
    seed: u64,
}

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match &words[..] {
        ["--write-samples"] => write_samples(),
        ["--input", target, files @ ..] => run_files(target, files),
        words => wanted(words).and_then(|wanted| run(&wanted)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn wanted(words: &[&str]) -> Result<Wanted, String> {
    let mut wanted = Wanted {
        targets: Vec::new(),
        time: Duration::from_secs(60),
        seed: 1,
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut number = || {
            let text = words.next().unwrap_or(&"");
            let number: Result<u64, _> = text.parse();
            number.map_err(|_| format!("{word}: `{text}` is not a number\n{USAGE}"))
        };
        match *word {
            "--minutes" => wanted.time = Duration::from_secs(number()?.saturating_mul(60)),
            "--seconds" => wanted.time = Duration::from_secs(number()?),
            "--seed" => wanted.seed = number()?,
            name => wanted.targets.push(target(name)?),
        }
    }
    if wanted.targets.is_empty() {
        wanted.targets = TARGETS.iter().collect();
    }
    Ok(wanted)
}

fn target(name: &str) -> Result<&'static Target, String> {
    let known: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    let unknown = || {
        format!(
            "{name}: no such target; there are {}\n{USAGE}",
            known.join(", ")
        )
    };
    Target::named(name).ok_or_else(unknown)
}

/// As many at the same time as there are processors.
fn run(wanted: &Wanted) -> Result<(), String> {
    let rest = Mutex::new(wanted.targets.iter());
    let problems = Mutex::new(Vec::new());
    let next = || rest.lock().ok()?.next();
    let work = || {
        while let Some(target) = next() {
            match xdnsd_fuzz::run(target, wanted.seed, Limit::Time(wanted.time)) {
                Ok(report) => println!("{:14} {report}", target.name),
                Err(problem) => {
                    println!("{:14} FAILED", target.name);
                    problems
                        .lock()
                        .expect("nobody panics with it")
                        .push(problem);
                }
            }
        }
    };
    let at_once = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(work);
        }
    });
    xdnsd_fuzz::clean_up();
    let problems = problems.into_inner().expect("nobody panics with it");
    if problems.is_empty() {
        Ok(())
    } else {
        Err(problems.join("\n"))
    }
}

fn run_files(name: &str, files: &[&str]) -> Result<(), String> {
    let target = target(name)?;
    for file in files {
        let bytes = fs::read(file).map_err(|error| format!("{file}: {error}"))?;
        let is_taken = xdnsd_fuzz::on_large_stack(|| (target.run)(&bytes));
        println!("{file}: {}", if is_taken { "taken" } else { "refused" });
    }
    xdnsd_fuzz::clean_up();
    Ok(())
}

fn write_samples() -> Result<(), String> {
    for (target, file, bytes) in samples::all() {
        let folder = self::target(target)?.folder();
        let path = folder.join(file);
        let wrong = |path: &Path, error| format!("{}: {error}", path.display());
        fs::create_dir_all(&folder).map_err(|error| wrong(&folder, error))?;
        fs::write(&path, bytes).map_err(|error| wrong(&path, error))?;
    }
    Ok(())
}
