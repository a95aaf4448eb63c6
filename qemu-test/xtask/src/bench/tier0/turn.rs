//! One turn of one subject.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::meter::{Counted, Load};
use super::search::{Trial, highest};
use super::subject::{Subject, Who};
use crate::bench::measure::{core_ns, cpu_ns, softirq_thread};
use crate::bench::pair::{NEAR, receiver};
use crate::bench::{LOAD_CORE, SUBJECT_CORE};
use xdnsd_lab::bpf::cost::{Grows, measure};
use xdnsd_lab::bpf::{XDP_REDIRECT, XDP_TX};

/// From the start of the load to the first reading.
const RUN_UP: Duration = Duration::from_millis(100);
/// Trials of the search per length of a measurement.
const TRIALS: u32 = 4;
/// Shares of the highest rate at which latency is measured.
pub const LOADS: [f64; 2] = [0.01, 0.5];

/// Latency of replies, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Latency {
    /// Median.
    pub p50_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
}

/// Result of one turn.
#[derive(Clone, Debug, PartialEq)]
pub struct Turn {
    /// Answers a second at the best rate.
    pub answered: f64,
    /// Queries a second at that rate.
    pub offered: f64,
    /// Processor time of the server's core per answer, in nanoseconds: driver, kernel, process.
    pub cpu_ns: f64,
    /// Share of the answers that the program on the interface has sent itself.
    pub in_xdp: f64,
    /// Share of the time in which that core was busy with these.
    pub busy: f64,
    /// Share of the time that went to other processes: the machine was not quiet.
    pub others: f64,
    /// Latency at each of [`LOADS`].
    pub latency: [Latency; 2],
    /// Nanoseconds of its XDP program for one query, by BPF_PROG_TEST_RUN.
    pub program_ns: Option<f64>,
}

/// Measures a subject that is ready.
pub fn turn(subject: &Subject, length: Duration) -> Result<Turn> {
    let program_ns = program_ns(subject)?;
    // Received by a thread on the server's core, so that the generator's core only generates.
    subject.pair.thread_server(Some(SUBJECT_CORE))?;
    let (rate, _) = highest(|rate| {
        let Window { counted, .. } = window(subject, Load::to_count(rate), length / TRIALS)?;
        Ok(Trial {
            offered: counted.sent / counted.secs,
            answered: answered(subject, &counted) / counted.secs,
        })
    })?;
    let sent_back = subject.pair.xdp_sent()?;
    let Window { counted, cpu, core } = window(subject, Load::to_count(rate), length)?;
    let sent_back = subject.pair.xdp_sent()? - sent_back;
    let replies = answered(subject, &counted);
    subject.pair.thread_server(None)?;
    let mut latency = Vec::new();
    for load in LOADS {
        let rate = load * replies / counted.secs;
        latency.push(at_rate(subject, rate, length)?);
    }
    let latency = <[Latency; 2]>::try_from(latency).ok();
    Ok(Turn {
        answered: replies / counted.secs,
        offered: counted.sent / counted.secs,
        cpu_ns: cpu / replies,
        // The run-up counts among the frames sent back, so this is slightly too high.
        in_xdp: (sent_back as f64 / replies).min(1.0),
        busy: cpu / counted.secs / 1e9,
        others: (core - cpu).max(0.0) / counted.secs / 1e9,
        latency: latency.context("one for each load")?,
        program_ns,
    })
}

/// For an echo every datagram counts, for a server every response with an answer.
fn answered(subject: &Subject, counted: &Counted) -> f64 {
    match subject.who.is_server() {
        true => counted.answers,
        false => counted.replies,
    }
}

/// Result of a measurement.
struct Window {
    counted: Counted,
    /// Processor time of the server, in nanoseconds.
    cpu: f64,
    /// Processor time of everything on its core, in nanoseconds.
    core: f64,
}

/// Counts for `length` under this load.
fn window(subject: &Subject, load: Load, length: Duration) -> Result<Window> {
    let threads = [
        Some(softirq_thread(SUBJECT_CORE)?),
        // None if the kernel receives frames where they are sent.
        receiver(NEAR).ok(),
        subject.pid(),
    ];
    let look = || -> Result<_> {
        let cpu: Result<u64> = threads.into_iter().flatten().map(cpu_ns).sum();
        Ok((subject.meter.count()?, cpu?, core_ns(SUBJECT_CORE)?))
    };
    let load = subject.meter.start(&subject.pair, LOAD_CORE, load)?;
    sleep(RUN_UP);
    let first = look();
    sleep(length);
    let last = look();
    load.stop()?;
    let ((first, cpu_first, core_first), (last, cpu_last, core_last)) = (first?, last?);
    Ok(Window {
        counted: first.until(&last),
        cpu: (cpu_last - cpu_first) as f64,
        core: (core_last - core_first) as f64,
    })
}

fn at_rate(subject: &Subject, rate: f64, length: Duration) -> Result<Latency> {
    let Window { counted, .. } = window(subject, Load::to_time(rate), length)?;
    let us = |share| {
        let time = counted.quantile(share);
        let time = time.with_context(|| format!("no reply at {rate:.0} queries a second"))?;
        Ok::<_, anyhow::Error>(time.as_secs_f64() * 1e6)
    };
    Ok(Latency {
        p50_us: us(0.5)?,
        p99_us: us(0.99)?,
    })
}

/// Cost of a query in the program on the interface.
fn program_ns(subject: &Subject) -> Result<Option<f64>> {
    let (grows, wanted) = match subject.who {
        Who::Tier0 | Who::Grower => (Grows::Head, XDP_TX),
        Who::Reflector => (Grows::Tail, XDP_TX),
        Who::Tier1 => (Grows::Tail, XDP_REDIRECT),
        Who::Echo | Who::Sockets | Who::Peer(_) | Who::Knot => return Ok(None),
    };
    let pair = &subject.pair;
    let (program, index) = (pair.near_program()?, pair.near_index()?);
    let measured = pair
        .server
        .run(|| measure(&program, &super::meter::frame(), index, grows));
    let cost = measured.context("measure the program (BPF_PROG_TEST_RUN)")?;
    ensure!(
        cost.verdict == wanted,
        "the program's verdict of a query is {}, not {wanted}",
        cost.verdict
    );
    Ok(Some(cost.nanos.into()))
}
