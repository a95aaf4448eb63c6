//! `cargo xtask soak`: the appliance in the lab for an hour under continuous questions and a sequence of faults; each answer is
//! judged ([`oracle`]), and memory is monitored.

mod faults;
mod load;
mod oracle;
mod report;
mod router;
mod servers;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use xdnsd_lab::bpf::attach_pass;
use xdnsd_lab::lab::{HOST_INTERFACE, Lab, Spec};
use xdnsd_lab::privilege::require_root;

use crate::arguments::{SOME, number_in};
use crate::bench::record;
use crate::signals::Signals;
use crate::{run, workspace};
use faults::{ALL, Fault, Scene};
use load::{Event, Random, askers};
use oracle::Clock;
use report::{Report, Sample};
use router::{Disk, Router};
use servers::Servers;

/// Duration of a lasting fault, and of the observation afterwards.
const FAULT: Duration = Duration::from_secs(4);
const RECOVERY: Duration = Duration::from_secs(4);
/// Fills the cache before the first fault.
const WARM_UP: Duration = Duration::from_secs(3);
/// Permitted growth of memory in KiB: pages touched at a new peak of concurrent work.
const GROWTH_MAX: i64 = 512;
/// Shorter runs say nothing about memory.
const GROWTH_MINUTES_MIN: u64 = 10;
/// Record of the tables.
const RECORD: &str = "qemu-test/SOAK.md";

/// Arguments of `soak`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// How long it goes on.
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = number_in(SOME))]
    minutes: u32,
    /// Another number brings faults in another order, and asks for other names.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Adds the tables to qemu-test/SOAK.md.
    #[arg(long)]
    save: bool,
    /// The server to take in place of a release build.
    #[arg(long, value_name = "PATH")]
    server: Option<PathBuf>,
}

/// Carries out `soak`. The status is 0 only if no answer was wrong and memory was flat.
pub fn main(arguments: &Arguments, signals: &Signals) -> Result<ExitCode> {
    require_root("network namespaces")?;
    let server = match &arguments.server {
        Some(server) => server.clone(),
        None => run::build()?,
    };
    let report = soak(arguments, &server, signals)?;
    let shown = report.show();
    print!("{shown}");
    if arguments.save {
        save(&shown)?;
    }
    let growth = report.growth().unwrap_or_default();
    let is_long = u64::from(arguments.minutes) >= GROWTH_MINUTES_MIN;
    let is_flat = !is_long || growth <= GROWTH_MAX;
    if !is_flat {
        println!("memory has grown by {growth} KiB; at most {GROWTH_MAX} is flat");
    }
    Ok(if report.wrong_count() == 0 && is_flat {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn soak(arguments: &Arguments, server: &Path, signals: &Signals) -> Result<Report> {
    let folder = workspace::target().join("soak");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let lab = Lab::up(&Spec::default())?;
    // A veth pair needs a program at this end to receive frames that AF_XDP sends.
    let _other_end = attach_pass(&lab.client, HOST_INTERFACE)?;
    let disk = Disk::mount()?;
    let clock = Clock::start();
    let servers = Servers::start(&lab, clock)?;
    let mut router = Router::start(&lab, server, &folder, &disk)?;
    let (events, is_over) = (Mutex::new(Vec::new()), AtomicBool::new(false));
    let length = Duration::from_secs(u64::from(arguments.minutes) * 60);
    thread::scope(|scope| {
        // The asking threads are made inside the namespace, and end on `is_over`.
        let asking = scope.spawn(|| {
            lab.client.run(|| {
                thread::scope(|inside| {
                    for asker in askers(arguments.seed) {
                        let (events, is_over) = (&events, &is_over);
                        inside.spawn(move || asker.ask_on(clock, events, is_over));
                    }
                });
            });
        });
        let mut scene = Scene {
            lab: &lab,
            servers: &servers,
            router: &mut router,
            disk: &disk,
        };
        let report = go_wrong(&mut scene, length, arguments.seed, &events, signals);
        is_over.store(true, Ordering::Relaxed);
        let joined = asking.join();
        joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        report
    })
}

/// Causes one fault after the other, each equally often.
fn go_wrong(
    scene: &mut Scene<'_, '_>,
    length: Duration,
    seed: u64,
    events: &Mutex<Vec<Event>>,
    signals: &Signals,
) -> Result<Report> {
    let mut report = Report::default();
    let mut random = Random(seed);
    let mut coming: Vec<Fault> = Vec::new();
    let begun = Instant::now();
    thread::sleep(WARM_UP);
    take(events);
    while begun.elapsed() < length && !signals.wait(Duration::ZERO) {
        if coming.is_empty() {
            coming.extend(ALL);
        }
        let place = random.below(coming.len() as u64) as usize;
        let fault = coming.swap_remove(place);
        let since = Instant::now();
        fault
            .happen(scene, FAULT)
            .with_context(|| format!("fault: {}", fault.name()))?;
        thread::sleep(RECOVERY);
        scene.router.assert_runs()?;
        let until = Instant::now();
        report.take(fault, since, until, &take(events));
        let (rss, descriptors) = scene.router.measure()?;
        let at = begun.elapsed();
        report.note(Sample {
            at,
            rss,
            descriptors,
        });
        println!(
            "{:>5} s  {:26} {rss:>6} KiB {descriptors:>4} descriptors, {} wrong",
            at.as_secs(),
            fault.name(),
            report.wrong_count()
        );
    }
    Ok(report)
}

fn take(events: &Mutex<Vec<Event>>) -> Vec<Event> {
    std::mem::take(&mut *events.lock().expect("nobody panics with it"))
}

fn save(shown: &str) -> Result<()> {
    let path = workspace::root().join(RECORD);
    let old = fs::read_to_string(&path).unwrap_or_else(|_| "# Soaks\n".to_owned());
    let text = format!("{old}\n{}\n```text\n{shown}```\n", record::heading()?);
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))
}
