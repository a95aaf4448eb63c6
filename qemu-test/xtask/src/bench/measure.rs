//! One turn of one subject: counters at two moments while the load goes on.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::subject::Subject;
use xdnsd_lab::live::ENDLESS;

/// From the start of the load to the first look: queues are full and caches warm by then.
const RUN_UP: Duration = Duration::from_millis(300);

/// What happened in one turn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Turn {
    /// Queries sent per second.
    pub offered: f64,
    /// Replies per second.
    pub answered: f64,
    /// Processor time of the subject per reply, in nanoseconds.
    pub cpu_ns: f64,
    /// Processor time of the subject per second of the turn: 1 is a core that never rested.
    pub busy: f64,
}

impl Turn {
    /// Share of queries that were answered.
    #[must_use]
    pub fn answered_share(&self) -> f64 {
        self.answered / self.offered
    }
}

/// Counters at one moment.
struct Look {
    at: Instant,
    offered: u64,
    replies: u64,
    cpu_ns: u64,
}

/// Lets the load run from `load_core` for `length`, the subject being on `core`.
pub fn turn(subject: &Subject, length: Duration, load_core: usize, core: usize) -> Result<Turn> {
    let softirq_thread = softirq_thread(core)?;
    let look = || -> Result<Look> {
        Ok(Look {
            at: Instant::now(),
            offered: subject.pair.sent()?,
            replies: subject.pair.replies()?,
            cpu_ns: cpu_ns(subject.pid())? + cpu_ns(softirq_thread)?,
        })
    };
    let load = subject
        .load
        .start(&subject.pair.client, Some(load_core), ENDLESS);
    sleep(RUN_UP);
    let first = look();
    sleep(length);
    let last = look();
    load.stop()?;
    Ok(between(&first?, &last?))
}

fn between(first: &Look, last: &Look) -> Turn {
    let secs = (last.at - first.at).as_secs_f64();
    let replies = (last.replies - first.replies) as f64;
    let cpu_ns = (last.cpu_ns - first.cpu_ns) as f64;
    Turn {
        offered: (last.offered - first.offered) as f64 / secs,
        answered: replies / secs,
        cpu_ns: cpu_ns / replies,
        busy: cpu_ns / secs / 1e9,
    }
}

/// Processor time of all threads of a process. The kernel counts what it does on their behalf, sending among it.
pub fn cpu_ns(pid: u32) -> Result<u64> {
    let directory = format!("/proc/{pid}/task");
    let threads = fs::read_dir(&directory).with_context(|| format!("list {directory}"))?;
    let mut total = 0;
    for thread in threads {
        let path = thread.context("list threads")?.path().join("schedstat");
        let text = fs::read_to_string(&path);
        let text = text.with_context(|| format!("read {} (CONFIG_SCHED_INFO)", path.display()))?;
        let run = text
            .split(' ')
            .next()
            .and_then(|run| run.parse::<u64>().ok());
        total += run.with_context(|| format!("{text:?} starts with the run time"))?;
    }
    Ok(total)
}

/// The kernel's thread that takes over what a core's interrupts cannot finish: on the subject's core, replies on their
/// way into the client's kernel.
fn softirq_thread(core: usize) -> Result<u32> {
    let name = format!("ksoftirqd/{core}");
    let processes = fs::read_dir("/proc").context("list processes")?;
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let mut pids = pids.filter(|pid| {
        let comm = fs::read_to_string(format!("/proc/{pid}/comm"));
        comm.is_ok_and(|comm| comm.trim() == name)
    });
    pids.next().with_context(|| format!("there is no {name}"))
}
