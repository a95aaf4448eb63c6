//! One turn of one subject: counters read twice while the load runs.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::subject::Subject;
use super::{LOAD_CORE, SUBJECT_CORE};
use xdnsd_lab::live::ENDLESS;

/// From the start of the load to the first reading: queues are full and caches warm by then.
const RUN_UP: Duration = Duration::from_millis(200);
/// Slices of each of two alternating turns.
const SLICES: u32 = 6;

/// Result of one turn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Turn {
    /// Queries sent per second.
    pub offered: f64,
    /// Replies per second.
    pub answered: f64,
    /// Processor time of the subject per reply, in nanoseconds.
    pub cpu_ns: f64,
    /// Processor time of the subject per second of the turn: 1 is a core that is always busy.
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

/// Increments of counters between two readings, and the time between.
#[derive(Clone, Copy, Default)]
struct Span {
    secs: f64,
    offered: u64,
    replies: u64,
    cpu_ns: u64,
}

impl Span {
    fn between(first: &Look, last: &Look) -> Self {
        Self {
            secs: (last.at - first.at).as_secs_f64(),
            offered: last.offered - first.offered,
            replies: last.replies - first.replies,
            cpu_ns: last.cpu_ns - first.cpu_ns,
        }
    }

    fn and(self, next: Self) -> Self {
        Self {
            secs: self.secs + next.secs,
            offered: self.offered + next.offered,
            replies: self.replies + next.replies,
            cpu_ns: self.cpu_ns + next.cpu_ns,
        }
    }

    fn turn(self) -> Turn {
        let [offered, replies, cpu_ns] =
            [self.offered, self.replies, self.cpu_ns].map(|count| count as f64);
        Turn {
            offered: offered / self.secs,
            answered: replies / self.secs,
            cpu_ns: cpu_ns / replies,
            busy: cpu_ns / self.secs / 1e9,
        }
    }
}

/// Runs the load for `length`.
pub fn turn(subject: &Subject, length: Duration) -> Result<Turn> {
    Ok(span(subject, length)?.turn())
}

/// Runs the load on both subjects in alternating short slices, for `length` in all each. A shared machine is twice as fast at one
/// moment as at the next: so both subjects get their share of each.
pub fn by_turns(subjects: [&Subject; 2], length: Duration) -> Result<[Turn; 2]> {
    let mut spans = [Span::default(); 2];
    for slice in 0..SLICES {
        let order = if slice % 2 == 0 { [0, 1] } else { [1, 0] };
        for side in order {
            let more = span(subjects[side], length / SLICES)?;
            spans[side] = spans[side].and(more);
        }
    }
    Ok(spans.map(Span::turn))
}

fn span(subject: &Subject, length: Duration) -> Result<Span> {
    let softirq_thread = softirq_thread(SUBJECT_CORE)?;
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
        .start(&subject.pair.client, Some(LOAD_CORE), ENDLESS);
    sleep(RUN_UP);
    let first = look();
    sleep(length);
    let last = look();
    load.stop()?;
    Ok(Span::between(&first?, &last?))
}

/// Busy time of a core, for anything, in nanoseconds; as exact as the kernel's clock ticks.
pub fn core_ns(core: usize) -> Result<u64> {
    let text = fs::read_to_string("/proc/stat").context("read /proc/stat")?;
    busy_ns(&text, core).with_context(|| format!("/proc/stat has no core {core}"))
}

/// Sum of user, nice, system, irq, softirq and steal time of a core; fields are in hundredths of a second (proc(5)).
fn busy_ns(text: &str, core: usize) -> Option<u64> {
    const TICK_NS: u64 = 10_000_000;
    const IDLE: [usize; 2] = [3, 4];
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(&format!("cpu{core} ")))?;
    let ticks: Option<Vec<u64>> = line.split(' ').map(|word| word.parse().ok()).collect();
    let busy = ticks?
        .into_iter()
        .take(8)
        .enumerate()
        .filter(|(at, _)| !IDLE.contains(at));
    Some(busy.map(|(_, ticks)| ticks).sum::<u64>() * TICK_NS)
}

/// Processor time of all threads of a process, including kernel work on their behalf, such as sending.
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

/// The kernel thread that takes over softirq work of a core: on the subject's core, replies on their way into the client's
/// kernel.
pub fn softirq_thread(core: usize) -> Result<u32> {
    kernel_thread(&format!("ksoftirqd/{core}"))
}

/// PID of the kernel thread whose name begins with `name`; none of our processes has such a name.
pub fn kernel_thread(name: &str) -> Result<u32> {
    let processes = fs::read_dir("/proc").context("list processes")?;
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let mut pids = pids.filter(|pid| {
        let comm = fs::read_to_string(format!("/proc/{pid}/comm"));
        comm.is_ok_and(|comm| comm.trim().starts_with(name))
    });
    pids.next().with_context(|| format!("there is no {name}"))
}

#[cfg(test)]
mod tests {
    use super::busy_ns;

    #[test]
    fn a_core_is_busy_when_it_does_not_idle() {
        let text =
            "cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 1 2 3 1000 2000 4 5 6 7 8\ncpu1 0 0 1 9 9 0 0 0 0 0\n";
        assert_eq!(busy_ns(text, 0), Some(210_000_000));
        assert_eq!(busy_ns(text, 1), Some(10_000_000));
        assert_eq!(busy_ns(text, 2), None);
    }
}
