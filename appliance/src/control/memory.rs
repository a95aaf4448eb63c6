//! The memory budget: every capacity of the daemon in bytes, line by line. The compiler checks the total of the defaults, a start that
//! of its config.

use std::fmt::Write as _;

use serde_json::{Value, json};
use xdnsd_abi::{
    ACCESS_DROP_MAX, Behind, CLIENT_SETS, ClientSet, GUARDED_MAX, Listen, PROTECTED_MAX, PathCheck,
    Protected, QUEUES_MAX, Reason, TRIE_MAX, bridge, event, hot, rate,
};
use xdnsd_core::counters::Counters;
use xdnsd_core::forward::in_flight::InFlight;
use xdnsd_core::limits;
use xdnsd_core::policy::Policy;
use xdnsd_core::policy::view::POLICIES_MAX;

use super::socket::ARRIVING_BYTES;
use crate::config::{Config, Fault};
use crate::logging;
use crate::os::threads::{
    SETS_STACK_BYTES, SMALL_STACK_BYTES, STACK_BYTES, STATISTICS_STACK_BYTES,
};
use crate::os::xsk::Shape;
use crate::store;
use crate::store::tap::Tap;
use crate::worker::engines::TABLES_BYTES;
use crate::worker::{
    self, Arrivals, PORTS_BYTES, PORTS_SHARED_BYTES, Pulse, SLOTS_BYTES, STREAM_BYTES, SocketStats,
    WorkerStats,
};

/// What a config chooses of the capacities. The others are constants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacities {
    /// Maximum for everything together, in MiB.
    pub mib: usize,
    /// Workers.
    pub workers: usize,
    /// Answers in the cache.
    pub answers: usize,
    /// Addresses of an interface.
    pub addresses: usize,
    /// XDP programs.
    pub programs: usize,
    /// True if the rights are a process of their own.
    pub has_keeper: bool,
}

impl Capacities {
    /// Those of a config that says nothing of them.
    pub const DEFAULT: Self = Self {
        mib: limits::MEMORY_MIB,
        workers: limits::WORKERS,
        answers: limits::CACHE_ENTRIES,
        addresses: limits::ADDRESSES,
        programs: limits::PROGRAMS,
        has_keeper: false,
    };

    /// Those of a config.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Self {
            mib: config.memory.mib.into(),
            workers: config.memory.workers.into(),
            answers: config.cache.entries as usize,
            addresses: config.memory.addresses.into(),
            programs: config.memory.programs.into(),
            has_keeper: config.security.keeper,
        }
    }

    /// Maximum for everything together.
    #[must_use]
    pub const fn budget(&self) -> usize {
        self.mib * 1024 * 1024
    }

    /// Threads with an engine: the workers, and the one for TCP.
    const fn engines(&self) -> usize {
        self.workers + 1
    }

    /// Of the heap of the start, what a keeper has in its place: it loads the programs.
    const fn keeper_bytes(&self) -> usize {
        if self.has_keeper { KEEPER_BYTES } else { 0 }
    }

    /// Rings for received frames of all sockets: the larger of all shared, as many per worker as possible, and each with a worker
    /// for itself (`os::xsk::Shape`).
    const fn rx_bytes(&self) -> usize {
        let shared = limits::SOCKETS * Shape::LEAST.rx;
        most(shared, self.workers * Shape::of(1).rx) * (DESCRIPTOR + ADDRESS)
    }

    /// Rings for sent frames of all sockets, likewise.
    const fn tx_bytes(&self) -> usize {
        most(
            limits::SOCKETS * (Shape::LEAST.tx * DESCRIPTOR + Shape::LEAST.completion * ADDRESS),
            self.workers * (Shape::of(1).tx * DESCRIPTOR + Shape::of(1).completion * ADDRESS),
        )
    }

    /// Maps of one XDP program: XSKMAP, heartbeats, destinations and their addresses, guarded ports, protected addresses, and the
    /// counters and the scratch for limits of each processor. Clients that returned a SYN cookie have a line of their own.
    const fn program_bytes(&self) -> usize {
        QUEUES_MAX as usize * (size_of::<usize>() + size_of::<u64>())
            + (2 * self.addresses + GUARDED_MAX as usize)
                * (size_of::<Listen>() + size_of::<PathCheck>() + MAP_ENTRY)
            + PROTECTED_MAX as usize * (size_of::<Behind>() + size_of::<Protected>() + MAP_ENTRY)
            + (Reason::COUNT as usize * size_of::<u64>() + rate::SCRATCH_BYTES) * self.processors()
    }

    /// The maps of the program for hot names, with the counters and the scratch of each processor.
    const fn hot_maps_bytes(&self) -> usize {
        let of_one = hot::HotOutcome::COUNT as usize * size_of::<u64>() + hot::SCRATCH_BYTES;
        hot::BYTES + of_one * self.processors()
    }

    /// Processors that maps are counted for: as many as workers, of which there are as many as processors.
    const fn processors(&self) -> usize {
        self.workers
    }
}

/// One line of the budget.
#[derive(Clone, Copy, Debug)]
pub struct BudgetLine {
    /// What it is.
    pub what: &'static str,
    /// Bytes of one.
    pub bytes: usize,
    /// Number of them.
    pub count: usize,
}

impl BudgetLine {
    const fn new(what: &'static str, bytes: usize, count: usize) -> Self {
        Self { what, bytes, count }
    }

    /// Bytes of all of them.
    #[must_use]
    pub const fn total(&self) -> usize {
        self.bytes * self.count
    }
}

/// Bytes of a descriptor in the RX and TX ring, and in the fill and completion ring (af_xdp.rst).
const DESCRIPTOR: usize = size_of::<libc::xdp_desc>();
const ADDRESS: usize = size_of::<u64>();

const fn most(one: usize, other: usize) -> usize {
    if one > other { one } else { other }
}

/// Threads with a worker's stack, besides the workers: the one for interfaces, and the one that reads the files of policy.
const OTHER_THREADS: usize = 2;
/// Threads with a small stack: the two of control, snapshot, and the first, which needs no more.
const SMALL_THREADS: usize = 4;
/// Heap that the start allocates and keeps: config, telemetry, names of interfaces and servers, libraries.
const HEAP_BYTES: usize = 216 * 1024;
/// Heap of the thread for sets: a batch, the kernel's reply, and addresses that wait.
const SETS_HEAP_BYTES: usize = 8 * 1024;
/// Pages that a keeper has to itself: the programs that it holds, as their loader keeps them, and the stacks of its threads. All
/// else is the server's, as it was when it split off.
const KEEPER_BYTES: usize = 128 * 1024;
/// Bytes of a BPF map's entry beside key and value (the kernel's `struct htab_elem` and bucket, rounded up).
const MAP_ENTRY: usize = 64;
/// Bytes of the kernel's `struct lpm_trie_node` with key and value, rounded up. There is a third node between two prefixes.
const TRIE_NODE: usize = 64;
/// The budget of these capacities. A new static, buffer or thread needs a line in one of the three parts. The memory of kernel
/// sockets is not ours: it is bounded by `net.core.rmem_max` and `wmem_max`.
#[must_use]
pub fn lines(of: &Capacities) -> Vec<BudgetLine> {
    let (sockets, threads, maps) = (socket_lines(of), thread_lines(of), map_lines(of));
    let mut lines = [&sockets[..], &threads, &maps].concat();
    lines.retain(|line| line.count > 0);
    lines
}

/// What sockets, questions and connections take.
const fn socket_lines(of: &Capacities) -> [BudgetLine; 14] {
    [
        BudgetLine::new(
            "UMEM of a worker",
            limits::CHUNKS_PER_QUEUE * limits::CHUNK_SIZE,
            of.workers,
        ),
        BudgetLine::new(
            "RX and fill ring of a socket; fewer have larger ones",
            of.rx_bytes() / limits::SOCKETS,
            limits::SOCKETS,
        ),
        BudgetLine::new(
            "TX and completion ring of a socket, as well",
            of.tx_bytes() / limits::SOCKETS,
            limits::SOCKETS,
        ),
        BudgetLine::new(
            "counters of a socket",
            size_of::<SocketStats>(),
            limits::SOCKETS,
        ),
        BudgetLine::new(
            "questions in flight of a worker, their clients, two messages",
            TABLES_BYTES,
            of.engines(),
        ),
        BudgetLine::new(
            "questions in flight of all workers",
            size_of::<InFlight>(),
            1,
        ),
        BudgetLine::new(
            "counters and pulse of a worker",
            size_of::<Counters>() + size_of::<WorkerStats>() + size_of::<Pulse>(),
            of.engines(),
        ),
        BudgetLine::new(
            "who reads of queries: their rings are in memory that they bring",
            size_of::<Tap>(),
            1,
        ),
        BudgetLine::new("counters of devices", size_of::<Arrivals>(), 1),
        BudgetLine::new("TCP streams to upstreams", STREAM_BYTES, of.engines()),
        BudgetLine::new("source ports towards upstreams", PORTS_BYTES, of.engines()),
        BudgetLine::new("table of open source ports", PORTS_SHARED_BYTES, 1),
        BudgetLine::new("TCP connections of clients", SLOTS_BYTES, 1),
        BudgetLine::new(
            "message buffers of all workers",
            worker::buffer_bytes(of.engines()),
            1,
        ),
    ]
}

/// What the cache, policy and threads take.
const fn thread_lines(of: &Capacities) -> [BudgetLine; 12] {
    [
        BudgetLine::new("answers in the cache", store::cache_bytes(of.answers), 1),
        BudgetLine::new("buffer of the snapshot", store::BUFFER, 1),
        BudgetLine::new(
            "policies of views, of a worker",
            POLICIES_MAX * size_of::<Policy<'static>>(),
            of.engines(),
        ),
        BudgetLine::new("stack of a worker", STACK_BYTES, of.engines()),
        BudgetLine::new("stack of another thread", STACK_BYTES, OTHER_THREADS),
        BudgetLine::new(
            "stack of a thread for control, snapshot, signals",
            SMALL_STACK_BYTES,
            SMALL_THREADS,
        ),
        BudgetLine::new("stack of the statistics' thread", STATISTICS_STACK_BYTES, 1),
        BudgetLine::new(
            "stack of the thread for sets of nftables, with its messages",
            SETS_STACK_BYTES + SETS_HEAP_BYTES,
            1,
        ),
        BudgetLine::new("requests that have not arrived", ARRIVING_BYTES, 1),
        BudgetLine::new("stack of the log's thread", logging::STACK_BYTES, 1),
        BudgetLine::new(
            "heap of the start, reserved",
            HEAP_BYTES - of.keeper_bytes(),
            1,
        ),
        BudgetLine::new(
            "heap and stacks of the keeper",
            KEEPER_BYTES,
            of.has_keeper as usize,
        ),
    ]
}

/// What the programs in the kernel take, with what user space knows of them.
const fn map_lines(of: &Capacities) -> [BudgetLine; 10] {
    [
        BudgetLine::new(
            "BPF maps of an interface or a port",
            of.program_bytes(),
            of.programs,
        ),
        BudgetLine::new(
            "verified clients of an interface or a port",
            CLIENT_SETS as usize * size_of::<ClientSet>(),
            of.programs,
        ),
        // Three pages of the kernel's, and one of records.
        BudgetLine::new("log of the shield", 4 * event::RING_BYTES as usize, 1),
        BudgetLine::new(
            "denied and allowed prefixes",
            2 * TRIE_NODE,
            TRIE_MAX as usize,
        ),
        BudgetLine::new(
            "clients that are dropped",
            2 * TRIE_NODE,
            ACCESS_DROP_MAX as usize,
        ),
        BudgetLine::new("BPF maps of hot answers", of.hot_maps_bytes(), 1),
        BudgetLine::new("books of hot answers", store::BOOKS_BYTES, 1),
        BudgetLine::new("hits of a worker", worker::HOT_BYTES, of.engines()),
        BudgetLine::new("accounts of clients", store::rates::BYTES, 1),
        BudgetLine::new("stations of bridges", bridge::BYTES, 1),
    ]
}

/// Sum of all lines.
#[must_use]
pub const fn total(of: &Capacities) -> usize {
    sum(&socket_lines(of)) + sum(&thread_lines(of)) + sum(&map_lines(of))
}

const fn sum(lines: &[BudgetLine]) -> usize {
    let (mut sum, mut index) = (0, 0);
    while index < lines.len() {
        sum += lines[index].total();
        index += 1;
    }
    sum
}

/// Why a config cannot have its capacities, as a fault of the first of their keys that asks for more than the default.
#[must_use]
pub fn fault(config: &Config) -> Option<Fault> {
    let of = Capacities::of(config);
    let total = total(&of);
    let excess = total
        .checked_sub(of.budget())
        .filter(|excess| *excess > 0)?;
    let problem = format!(
        "cache.entries, memory.workers, memory.addresses and memory.programs take {total} bytes with all else, \
         {excess} more than {} MiB",
        of.mib
    );
    let allowed = format!(
        "memory.mib of {} or more, or less of those",
        total.div_ceil(1024 * 1024)
    );
    let Capacities {
        answers,
        addresses,
        programs,
        ..
    } = Capacities::DEFAULT;
    let asks_for_more = [
        ("cache.entries", of.answers > answers),
        ("memory.addresses", of.addresses > addresses),
        ("memory.programs", of.programs > programs),
    ];
    let first = asks_for_more.iter().find(|(_, is_more)| *is_more);
    let key = first.map_or("memory.mib", |(key, _)| key);
    Some(config.fault(key, problem, &allowed))
}

/// Message of the compiler if the capacities exceed the budget: it prints a text, without our numbers.
const TOO_MUCH: Text = too_much(total(&Capacities::DEFAULT));

/// Budget of the defaults.
const BUDGET_BYTES: usize = Capacities::DEFAULT.budget();

const fn too_much(total: usize) -> Text {
    Text::new()
        .text("the capacities do NOT fit the memory budget: ")
        .number(total)
        .text(" bytes of ")
        .number(BUDGET_BYTES)
        .text(", ")
        .number(total.saturating_sub(BUDGET_BYTES))
        .text(" too many; take smaller ones, or more by XDNSD_LIMIT_MEMORY_MIB")
}

const _: () = if total(&Capacities::DEFAULT) > BUDGET_BYTES {
    panic!("{}", TOO_MUCH.as_str());
};

/// A text composed at compile time. What does not fit is left out.
struct Text {
    bytes: [u8; Self::BYTES_MAX],
    len: usize,
}

impl Text {
    const BYTES_MAX: usize = 224;

    const fn new() -> Self {
        Self {
            bytes: [0; Self::BYTES_MAX],
            len: 0,
        }
    }

    const fn text(mut self, text: &str) -> Self {
        let mut at = 0;
        while at < text.len() && self.len < Self::BYTES_MAX {
            self.bytes[self.len] = text.as_bytes()[at];
            self.len += 1;
            at += 1;
        }
        self
    }

    /// Appends the number in decimal.
    const fn number(mut self, number: usize) -> Self {
        const DIGITS: &str = "0123456789";
        let mut unit = 1;
        while number / unit >= 10 {
            unit *= 10;
        }
        while unit > 0 {
            let digit = number / unit % 10;
            self = self.text(DIGITS.split_at(digit).1.split_at(1).0);
            unit /= 10;
        }
        self
    }

    const fn as_str(&self) -> &str {
        match std::str::from_utf8(self.bytes.split_at(self.len).0) {
            Ok(text) => text,
            Err(_) => "the capacities do NOT fit the memory budget",
        }
    }
}

/// The lines and the total, for `xdnsd memory`.
#[must_use]
pub fn report(of: &Capacities) -> String {
    let mut out = String::new();
    for line in lines(of) {
        let _ = writeln!(
            out,
            "{:>10} = {:>3} x {:>8}  {}",
            line.total(),
            line.count,
            line.bytes,
            line.what
        );
    }
    let (total, budget) = (total(of), of.budget());
    let percent = total as f64 * 100.0 / budget as f64;
    let _ = writeln!(
        out,
        "{total:>10} bytes in all, {percent:.1} % of the budget of {budget}"
    );
    out
}

/// The lines and the total as JSON.
#[must_use]
pub fn json(of: &Capacities) -> Value {
    let line = |line: &BudgetLine| json!({ "what": line.what, "bytes": line.bytes, "count": line.count, "total": line.total() });
    json!({
        "lines": lines(of).iter().map(line).collect::<Value>(),
        "total": total(of),
        "budget": of.budget(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_adds_up() {
        let of = &Capacities::DEFAULT;
        let report = report(of);
        let sum: usize = report
            .lines()
            .filter_map(|line| {
                line.split_once('=')
                    .and_then(|(total, _)| total.trim().parse::<usize>().ok())
            })
            .sum();
        assert_eq!(sum, total(of));
        assert!(report.contains(&format!("{sum} bytes in all")), "{report}");
        assert_eq!(report.lines().count(), lines(of).len() + 1);
        let umem = limits::WORKERS * limits::CHUNKS_PER_QUEUE * limits::CHUNK_SIZE;
        assert_eq!(lines(of)[0].total(), umem, "{report}");
        let told = json(of);
        assert_eq!(
            (&told["total"], &told["budget"]),
            (&json!(sum), &json!(BUDGET_BYTES))
        );
        assert_eq!(told["lines"][0]["total"], json!(umem));
    }

    /// A config with these lines.
    fn config(lines: &str) -> Config {
        let least = "[[interface]]\nname = \"lo\"\n[[upstream]]\nservers = [\"192.0.2.1\"]\n";
        Config::parse("f", &format!("{least}{lines}")).unwrap_or_else(|errors| panic!("{errors}"))
    }

    #[test]
    fn capacities_of_a_config_are_counted_and_held_against_its_own_maximum() {
        assert_eq!(Capacities::of(&config("")), Capacities::DEFAULT);
        assert!(fault(&config("")).is_none());
        let sum = |lines: &str| total(&Capacities::of(&config(lines)));
        let default = sum("");
        assert!(limits::WORKERS == 1 || sum("[memory]\nworkers = 1\n") < default);
        // What a keeper needs, the server does not.
        assert_eq!(sum("[security]\nkeeper = true\n"), default);
        for (fewer, more) in [
            ("[cache]\nentries = 1000\n", "[cache]\nentries = 65536\n"),
            ("[memory]\naddresses = 8\n", "[memory]\naddresses = 256\n"),
            ("[memory]\nprograms = 1\n", "[memory]\nprograms = 64\n"),
        ] {
            assert!(sum(fewer) < default && default < sum(more), "{more}");
            assert!(fault(&config(fewer)).is_none(), "{fewer}");
            let told = fault(&config(more)).expect("too much").to_string();
            let (total, budget) = (sum(more), 16 << 20);
            let excess = format!(
                "take {total} bytes with all else, {} more than 16 MiB",
                total - budget
            );
            assert!(told.contains(&excess), "{told}");
            let mib = total.div_ceil(1 << 20);
            assert!(
                told.ends_with(&format!(
                    "allowed: memory.mib of {mib} or more, or less of those"
                )),
                "{told}"
            );
            // In a file of several sections the key stands once.
            let enough = match more.split_once("[memory]") {
                Some((_, rest)) => format!("[memory]\nmib = {mib}{rest}"),
                None => format!("{more}[memory]\nmib = {mib}\n"),
            };
            assert!(fault(&config(&enough)).is_none(), "{enough}");
            let too_little = enough.replace(&format!("mib = {mib}"), &format!("mib = {}", mib - 1));
            assert!(fault(&config(&too_little)).is_some(), "{too_little}");
        }
    }

    /// What ARCHITECTURE.md says: eight ports of two queues, all with SYN cookies.
    #[test]
    fn a_bridge_of_eight_ports_with_two_queues_each_is_within_the_default() {
        let of = Capacities::DEFAULT;
        assert!(limits::SOCKETS >= 8 * 2 && of.programs >= 8);
        assert!(total(&of) <= of.budget());
    }

    #[test]
    fn budget_that_is_exceeded_is_said_with_its_bytes() {
        for (total, more) in [(BUDGET_BYTES + 1, 1), (BUDGET_BYTES + 69_632, 69_632)] {
            let text = too_much(total);
            let expected = format!(
                "the capacities do NOT fit the memory budget: {total} bytes of {BUDGET_BYTES}, {more} too many; "
            );
            assert!(text.as_str().starts_with(&expected), "{}", text.as_str());
            assert!(text.as_str().ends_with("MEMORY_MIB"), "{}", text.as_str());
        }
        assert!(
            TOO_MUCH
                .as_str()
                .contains(&format!(" {} bytes of ", total(&Capacities::DEFAULT)))
        );
        let number = |number| Text::new().number(number).as_str().to_owned();
        assert_eq!(
            [0, 9, 10, 1_048_576].map(number),
            ["0", "9", "10", "1048576"]
        );
        assert_eq!(number(usize::MAX), usize::MAX.to_string());
    }
}
