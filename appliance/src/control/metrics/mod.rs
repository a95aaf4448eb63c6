//! Counters to text: the report of rates in the log, and Prometheus' exposition format for `xdnsd stats`.
//!
//! It reads counters of other modules and never writes one. They are registered here before the start; their values at a moment are
//! a [`Reading`], and everything below works on readings alone.

mod answers;
mod exposition;
mod latency;
pub mod not_taken;
pub mod process;
mod queues;
mod reasons;
mod views;

use std::fmt::Write as _;
use std::io;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::thread;
use std::time::{Duration, Instant};

use log::info;
use xdnsd_abi::Reason;
use xdnsd_abi::hot::HotOutcome;
use xdnsd_core::counters::answers::AnswerReading;
use xdnsd_core::counters::{Counter, Counters};

use exposition::{Exposition, Json, Prometheus};
use latency::LatencyReadings;
use not_taken::NotTaken;
use process::{ListReading, ReadTimes};
use queues::QueueReading;
use views::ViewReading;

use super::upstreams::{self, ServerState, group_name};
use crate::logging;
use crate::os::nf_tables::{self, InSets};
use crate::os::{capabilities, device, seal, threads};
use crate::worker::{QueueName, ServerReading, SocketStats, WorkerStats};

/// Reads a value that the kernel counts. After an error the metric is absent.
pub type Read<T> = Box<dyn Fn() -> io::Result<T> + Send + Sync>;

/// Counts by name of the interface.
pub type ByInterface = Vec<(String, u64)>;

/// Queries by counter and name of the interface.
pub type QueryCounts = Vec<(Counter, ByInterface)>;

/// A thread that answers: its counters, and the queues of its AF_XDP sockets.
pub struct WorkerCounters {
    /// Its number, or `tcp` for the one that serves TCP.
    pub name: String,
    /// RX queues that it serves. Its kernel sockets receive queries from any interface.
    pub queues: Vec<QueueName>,
    /// Its counters.
    pub counters: &'static Counters,
    /// Its state of upstream servers.
    pub stats: &'static WorkerStats,
}

/// An XDP program: what became of frames, as `[reason][cpu]`.
pub struct ProgramCounters {
    /// Interface of the config that it serves.
    pub interface: String,
    /// State of its place for a port: the port and why the program serves no queries there, or `None` if the place is free. The
    /// field is `None` if the program is attached to the interface itself.
    pub port: Option<Box<dyn Fn() -> Option<PortState> + Send + Sync>>,
    /// One row per [`Reason`], in index order; one column per CPU.
    pub frames: Read<Vec<Vec<u64>>>,
    /// Why it gives no SYN cookies, in a word; empty if it gives some.
    pub no_syn_cookies: Box<dyn Fn() -> &'static str + Send + Sync>,
    /// Why it answers no hot names, in a word; empty if it answers them.
    pub no_tier0: Box<dyn Fn() -> &'static str + Send + Sync>,
}

/// A port of a bridge, and why its program serves no queries, in a word; empty if it serves.
pub type PortState = (String, &'static str);

/// Hosts behind this one that the shield protects, of one section of the config.
pub struct ProtectStatus {
    /// Interface that their clients come by, with its VLAN.
    pub interface: String,
    /// Addresses and prefixes.
    pub addresses: Vec<String>,
    /// TCP ports of each.
    pub ports: Vec<u16>,
    /// Why they are not protected, in a word; empty if they are.
    pub why_not: Box<dyn Fn() -> &'static str + Send + Sync>,
}

/// Metric of an upstream server: its name, its help, and its value with a reason, if there is one.
type OfServer = (
    &'static str,
    &'static str,
    fn(&ServerReading) -> Option<(u64, &'static str)>,
);

const SERVER_COUNTERS: [OfServer; 3] = [
    (
        "upstream_server_questions_total",
        "Questions that were sent to the server",
        |server| Some((server.counts.asked, "")),
    ),
    (
        "upstream_server_answers_total",
        "Answers of the server, late ones among them",
        |server| Some((server.counts.answered, "")),
    ),
    (
        "upstream_server_failures_total",
        "Questions that the server failed: no answer in time, unreachable (by ICMP or the routes), malformed, or not sent",
        |server| Some((server.counts.failed, "")),
    ),
];
const SERVER_GAUGES: [OfServer; 3] = [
    (
        "upstream_up",
        "Whether the server answers: 0 after three different questions in a row without an answer",
        |server| Some((server.is_up.into(), "")),
    ),
    (
        "upstream_rtt_milliseconds",
        "Usual time until the server answers",
        |server| Some((server.rtt_ms?.into(), "")),
    ),
    (
        "upstream_last_failure_timestamp_seconds",
        "When the server last failed, and how: no answer in time, unreachable (by ICMP or the routes), or malformed",
        |server| server.failure.map(|(failure, at)| (at, failure.name())),
    ),
];

/// A value that goes up and down.
pub struct Gauge {
    /// Metric name without its prefix.
    pub name: &'static str,
    /// Help text.
    pub help: &'static str,
    /// Reads the value.
    pub value: Box<dyn Fn() -> u64 + Send + Sync>,
}

/// All counters, and how to read them.
#[derive(Default)]
pub struct Telemetry {
    /// Threads that answer; there are more of them when an interface comes late.
    pub workers: RwLock<Vec<WorkerCounters>>,
    /// AF_XDP sockets, by place.
    pub sockets: &'static [SocketStats],
    /// XDP programs.
    pub programs: Vec<ProgramCounters>,
    /// Protection of hosts behind this one.
    pub protects: Vec<ProtectStatus>,
    /// Other values.
    pub gauges: Vec<Gauge>,
    /// Queries to the kernel's sockets, by the interface that they came in by.
    pub arrivals: Option<Box<dyn Fn() -> QueryCounts + Send + Sync>>,
    /// Names of the upstream groups, by number.
    pub groups: Option<Box<dyn Fn() -> Vec<String> + Send + Sync>>,
    /// Names of the views, from number 1 on.
    pub views: Option<Box<dyn Fn() -> Vec<String> + Send + Sync>>,
    /// Files with names that are blocked or allowed.
    pub lists: Option<Box<dyn Fn() -> Vec<ListReading> + Send + Sync>>,
    /// Outcomes of queries that the program for hot names was asked about, by [`HotOutcome`]; `None` if there is no such
    /// program.
    pub tier0: Option<Box<dyn Fn() -> Option<Outcomes> + Send + Sync>>,
}

/// Counts by [`HotOutcome`].
pub type Outcomes = [u64; HotOutcome::COUNT as usize];

/// All counters at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    workers: Vec<WorkerReading>,
    queues: Vec<QueueReading>,
    programs: Vec<ProgramReading>,
    /// Ports of bridges, and why their programs serve no queries.
    ports: Vec<PortState>,
    /// Interfaces of protected hosts, with the reason why they are not protected.
    protects: Vec<(String, &'static str)>,
    gauges: Vec<(&'static str, &'static str, u64)>,
    arrivals: QueryCounts,
    groups: Vec<String>,
    tier0: Option<Outcomes>,
    latencies: LatencyReadings,
    answers: AnswerReading,
    views: Vec<ViewReading>,
    not_taken: Vec<NotTaken>,
    read_times: ReadTimes,
    lists: Vec<ListReading>,
    sealed_allocations: u64,
    log_lines_lost: u64,
    /// Addresses for sets of nf_tables.
    in_sets: InSets,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct WorkerReading {
    name: String,
    queues: Vec<QueueName>,
    counters: [u64; Counter::COUNT],
    servers: Vec<ServerReading>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct ProgramReading {
    interface: String,
    /// `[reason][cpu]`.
    frames: Vec<Vec<u64>>,
    no_syn_cookies: &'static str,
    no_tier0: &'static str,
}

impl Telemetry {
    fn workers(&self) -> RwLockReadGuard<'_, Vec<WorkerCounters>> {
        self.workers.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the threads that answer.
    pub fn set_workers(&self, workers: Vec<WorkerCounters>) {
        *self.workers.write().unwrap_or_else(PoisonError::into_inner) = workers;
    }

    /// Sum of a counter over all workers.
    #[must_use]
    pub fn counted(&self, counter: Counter) -> u64 {
        let workers = self.workers();
        let counts = workers.iter().map(|worker| worker.counters.get(counter));
        counts.fold(0, u64::wrapping_add)
    }

    /// State of upstream servers, over all workers.
    #[must_use]
    pub fn servers(&self) -> Vec<ServerState> {
        let workers = self.workers();
        let readings: Vec<_> = workers
            .iter()
            .flat_map(|worker| worker.stats.servers())
            .collect();
        upstreams::servers(&readings)
    }

    /// Names of the upstream groups, by number.
    #[must_use]
    pub fn groups(&self) -> Vec<String> {
        self.groups.as_ref().map_or_else(Vec::new, |read| read())
    }

    /// Reads everything now. What cannot be read is left out.
    #[must_use]
    pub fn read(&self) -> Reading {
        let worker = |worker: &WorkerCounters| WorkerReading {
            name: worker.name.clone(),
            queues: worker.queues.clone(),
            counters: std::array::from_fn(|index| worker.counters.get(Counter::ALL[index])),
            servers: worker.stats.servers(),
        };
        let program = |program: &ProgramCounters| {
            let frames = (program.frames)().ok()?;
            Some(ProgramReading {
                interface: program.shown()?,
                frames,
                no_syn_cookies: (program.no_syn_cookies)(),
                no_tier0: (program.no_tier0)(),
            })
        };
        // Locked once: whoever waits to write goes before a second reader.
        let (workers, latencies, answers, views) = {
            let workers = self.workers();
            let counters: Vec<_> = workers.iter().map(|worker| worker.counters).collect();
            let names = self.views.as_ref().map_or_else(Vec::new, |read| read());
            let views = views::read(names, &counters);
            let latencies = latency::read(counters.iter().copied());
            let answers = answers::read(counters.into_iter());
            let workers = workers.iter().map(worker).collect();
            (workers, latencies, answers, views)
        };
        Reading {
            workers,
            queues: self.sockets.iter().filter_map(QueueReading::of).collect(),
            programs: self.programs.iter().filter_map(program).collect(),
            ports: self
                .programs
                .iter()
                .filter_map(ProgramCounters::port)
                .collect(),
            protects: self
                .protects
                .iter()
                .map(|protect| (protect.interface.clone(), (protect.why_not)()))
                .collect(),
            gauges: self
                .gauges
                .iter()
                .map(|gauge| (gauge.name, gauge.help, (gauge.value)()))
                .collect(),
            arrivals: self.arrivals.as_ref().map_or_else(Vec::new, |read| read()),
            groups: self.groups(),
            tier0: self.tier0.as_ref().and_then(|read| read()),
            latencies,
            answers,
            views,
            not_taken: not_taken::read(),
            read_times: process::read(),
            lists: self.lists.as_ref().map_or_else(Vec::new, |read| read()),
            sealed_allocations: seal::allocations(),
            log_lines_lost: logging::lost(),
            in_sets: nf_tables::COUNTS.read(),
        }
    }
}

impl WorkerReading {
    /// Name in the log.
    fn shown(&self) -> String {
        let queues = self.queues.iter();
        let queues: Vec<String> = queues
            .map(|QueueName { interface, queue }| format!("{interface} queue {queue}"))
            .collect();
        match queues.is_empty() {
            true => format!("worker {}", self.name),
            false => format!("worker {} ({})", self.name, queues.join(", ")),
        }
    }

    fn count(&self, counter: Counter) -> u64 {
        self.counters[counter as usize]
    }

    fn queries(&self) -> u64 {
        [
            Counter::QueriesXdp,
            Counter::QueriesUdp,
            Counter::QueriesTcp,
        ]
        .map(|counter| self.count(counter))
        .iter()
        .sum()
    }

    fn answers(&self) -> u64 {
        [
            Counter::AnswersXdp,
            Counter::AnswersUdp,
            Counter::AnswersTcp,
        ]
        .map(|counter| self.count(counter))
        .iter()
        .sum()
    }
}

/// Starts the thread that logs [`rates`] at every `interval`, as long as the process lives.
///
/// # Errors
/// The thread cannot be started.
pub fn spawn_report(telemetry: Arc<Telemetry>, interval: Duration) -> io::Result<()> {
    let report = move || {
        capabilities::keep(capabilities::NONE);
        let (mut earlier, mut since) = (telemetry.read(), Instant::now());
        loop {
            thread::sleep(interval);
            let (later, now) = (telemetry.read(), Instant::now());
            for line in rates(&earlier, &later, now - since) {
                info!("{line}");
            }
            (earlier, since) = (later, now);
        }
    };
    threads::builder_with_stack("statistics", threads::STATISTICS_STACK_BYTES)
        .spawn(report)
        .map(drop)
}

/// Rates per queue and per CPU between `earlier` and `later`, which are `elapsed` apart: lines for the log.
///
/// Leaves out what did not change, except queues: a queue without queries is worth knowing.
#[must_use]
pub fn rates(earlier: &Reading, later: &Reading, elapsed: Duration) -> Vec<String> {
    let mut lines = Vec::new();
    for worker in &later.workers {
        let before = earlier.workers.iter().find(|old| old.name == worker.name);
        let zero = [0; Counter::COUNT];
        let before = WorkerReading {
            counters: before.map_or(zero, |before| before.counters),
            ..worker.clone()
        };
        lines.push(queue_line(&before, worker, elapsed));
    }
    for program in &later.programs {
        let before = earlier
            .programs
            .iter()
            .find(|old| old.interface == program.interface);
        lines.extend(cpu_lines(before, program, elapsed));
    }
    lines
}

fn queue_line(before: &WorkerReading, worker: &WorkerReading, elapsed: Duration) -> String {
    let moved = |counter| worker.count(counter).wrapping_sub(before.count(counter));
    let hits = moved(Counter::CacheHits) + moved(Counter::CacheStale);
    let asked = hits + moved(Counter::CacheMisses);
    let mut line = format!(
        "{}: {} queries/s, {} answers/s",
        worker.shown(),
        rate(worker.queries().wrapping_sub(before.queries()), elapsed),
        rate(worker.answers().wrapping_sub(before.answers()), elapsed),
    );
    if asked > 0 {
        let _ = write!(
            line,
            ", {:.1} % from the cache",
            hits as f64 * 100.0 / asked as f64
        );
    }
    for (counter, what) in [
        (Counter::UpstreamQueries, "upstream queries/s"),
        (Counter::UpstreamTimeouts, "timeouts/s"),
        (Counter::ServfailGiven, "SERVFAIL/s"),
        (Counter::TxFull, "TX full/s"),
    ] {
        if moved(counter) > 0 {
            let _ = write!(line, ", {} {what}", rate(moved(counter), elapsed));
        }
    }
    line
}

fn cpu_lines(
    before: Option<&ProgramReading>,
    program: &ProgramReading,
    elapsed: Duration,
) -> Vec<String> {
    let count = |reading: &ProgramReading, reason: Reason, cpu: usize| {
        reading
            .frames
            .get(reason as usize)
            .and_then(|cpus| cpus.get(cpu))
            .copied()
            .unwrap_or(0)
    };
    let cpus = program.frames.iter().map(Vec::len).max().unwrap_or(0);
    let mut lines = Vec::new();
    for cpu in 0..cpus {
        let mut line = String::new();
        for reason in Reason::ALL {
            let earlier = before.map_or(0, |before| count(before, *reason, cpu));
            let moved = count(program, *reason, cpu).wrapping_sub(earlier);
            if moved > 0 {
                let separator = if line.is_empty() { ":" } else { "," };
                let _ = write!(
                    line,
                    "{separator} {}/s {}",
                    rate(moved, elapsed),
                    reason.name()
                );
            }
        }
        if !line.is_empty() {
            lines.push(format!("{} cpu {cpu}{line}", program.interface));
        }
    }
    lines
}

/// Events per second, rounded to whole ones if there are many.
fn rate(events: u64, elapsed: Duration) -> String {
    let rate = events as f64 / elapsed.as_secs_f64().max(0.001);
    if rate >= 10.0 || events == 0 {
        format!("{rate:.0}")
    } else {
        format!("{rate:.1}")
    }
}

impl Reading {
    /// Prometheus' text exposition format, version 0.0.4.
    #[must_use]
    pub fn prometheus(&self) -> String {
        let mut out = Prometheus::default();
        self.tell(&mut out);
        out.0
    }

    /// One line of JSON.
    #[must_use]
    pub fn json(&self) -> String {
        let mut out = Json::default();
        self.tell(&mut out);
        out.into_line()
    }

    fn tell(&self, out: &mut dyn Exposition) {
        self.process_families(out);
        for counter in Counter::ALL {
            let name = format!("{}_total", counter.name());
            out.family(&name, counter.help(), "counter");
            if !self.by_arrival(out, &name, *counter) {
                self.by_worker(out, &name, *counter);
            }
        }
        for (name, help, value) in [
            (
                "sealed_allocations_total",
                "Allocations after start-up in a sealed thread",
                self.sealed_allocations,
            ),
            (
                "log_lines_lost_total",
                "Lines of the log that were dropped",
                self.log_lines_lost,
            ),
            (
                "nftset_added_total",
                "Addresses of answers that were added to a set of nftables, or were there",
                self.in_sets.added,
            ),
            (
                "nftset_failures_total",
                "Addresses that a set did not take: the log has why",
                self.in_sets.failed,
            ),
            (
                "nftset_lost_total",
                "Addresses for sets that were lost for lack of a place to wait: their next answer brings them again",
                self.in_sets.lost,
            ),
        ] {
            out.family(name, help, "counter");
            out.sample(name, &[], value);
        }
        self.view_families(out);
        self.socket_families(out);
        self.server_families(out);
        self.frames_family(out);
        self.reason_families(out);
        self.tier0_family(out);
        latency::write(&self.latencies, out);
        answers::write(&self.answers, out);
        not_taken::write(&self.not_taken, out);
        for (name, help, value) in &self.gauges {
            out.family(name, help, "gauge");
            out.sample(name, &[], *value);
        }
    }

    /// Writes samples by the interface that queries came in by. False if this counter is not kept by interface.
    fn by_arrival(&self, out: &mut dyn Exposition, name: &str, counter: Counter) -> bool {
        let counted = self.arrivals.iter().find(|(other, _)| *other == counter);
        let Some((_, counts)) = counted else {
            return false;
        };
        let is_tcp = matches!(counter, Counter::QueriesTcp | Counter::AnswersTcp);
        let queue = if is_tcp { "tcp" } else { "kernel" };
        for (interface, count) in counts {
            let labels = [("interface", interface.as_str()), ("queue", queue)];
            out.sample(name, &labels, *count);
        }
        true
    }

    /// Writes samples by worker. Counters of AF_XDP have interface and RX queue; all others may come from any, and name none.
    fn by_worker(&self, out: &mut dyn Exposition, name: &str, counter: Counter) {
        let counted = SocketStats::COUNTED.iter();
        let Some(index) = { counted }.position(|other| *other == counter) else {
            for worker in &self.workers {
                let labels = [("worker", worker.name.as_str())];
                out.sample(name, &labels, worker.count(counter));
            }
            return;
        };
        for of in &self.queues {
            let queue = of.name.queue.to_string();
            let labels = [
                ("interface", of.name.interface.as_str()),
                ("queue", queue.as_str()),
            ];
            out.sample(name, &labels, of.counts[index]);
        }
    }

    /// Writes the state of each upstream server for each worker, which measures it by itself.
    fn server_families(&self, out: &mut dyn Exposition) {
        let counters = SERVER_COUNTERS.map(|shown| (shown, "counter"));
        let gauges = SERVER_GAUGES.map(|shown| (shown, "gauge"));
        for ((name, help, value), kind) in counters.into_iter().chain(gauges) {
            out.family(name, help, kind);
            for worker in &self.workers {
                for server in &worker.servers {
                    let Some((value, reason)) = value(server) else {
                        continue;
                    };
                    let address = device::written_server(server.to);
                    let group = group_name(&self.groups, server.group);
                    let labels = [
                        ("server", address.as_str()),
                        ("group", &group),
                        ("worker", &worker.name),
                        ("reason", reason),
                    ];
                    let labels = &labels[..labels.len() - usize::from(reason.is_empty())];
                    out.sample(name, labels, value);
                }
            }
        }
    }

    fn frames_family(&self, out: &mut dyn Exposition) {
        let name = "xdp_frames_total";
        out.family(
            name,
            "Frames that the XDP program saw, by what became of them",
            "counter",
        );
        for program in &self.programs {
            for (reason, cpus) in Reason::ALL.iter().zip(&program.frames) {
                for (cpu, value) in cpus.iter().enumerate() {
                    let (cpu, interface) = (cpu.to_string(), program.interface.as_str());
                    let labels = [
                        ("interface", interface),
                        ("cpu", cpu.as_str()),
                        ("reason", reason.name()),
                    ];
                    out.sample(name, &labels, *value);
                }
            }
        }
    }
}

impl Reading {
    /// Writes the outcomes of queries that the program for hot names was asked about.
    fn tier0_family(&self, out: &mut dyn Exposition) {
        let Some(outcomes) = &self.tier0 else { return };
        let name = "tier0_queries_total";
        let help = "What became of queries that the program for hot names was asked about";
        out.family(name, help, "counter");
        for (outcome, count) in HotOutcome::ALL.iter().zip(outcomes) {
            out.sample(name, &[("outcome", outcome.name())], *count);
        }
    }
}

#[cfg(test)]
mod tests;
