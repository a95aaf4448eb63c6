//! The memory budget: every capacity of the daemon in bytes, line by line, and the total checked by the compiler.

use std::fmt::Write as _;

use serde_json::{Value, json};
use xdnsd_abi::{
    Behind, CLIENT_SETS, ClientSet, GUARDED_MAX, LISTEN_MAX, Listen, PROTECTED_MAX, PathCheck,
    Protected, QUEUES_MAX, Reason, TRIE_MAX, bridge, event, hot, rate,
};
use xdnsd_core::counters::Counters;
use xdnsd_core::limits;
use xdnsd_core::policy::Policy;
use xdnsd_core::policy::view::POLICIES_MAX;

use super::socket::ARRIVING_BYTES;
use crate::logging;
use crate::os::threads::{SMALL_STACK_BYTES, STACK_BYTES, STATISTICS_STACK_BYTES};
use crate::os::xsk::Shape;
use crate::store;
use crate::store::SharedCache;
use crate::store::tap::Tap;
use crate::worker::engines::{ENGINES, TABLES_BYTES};
use crate::worker::{
    self, Arrivals, PORTS_BYTES, PORTS_SHARED_BYTES, Pulse, SLOTS_BYTES, STREAM_BYTES, SocketStats,
    WorkerStats,
};

/// Maximum for everything together.
pub const BUDGET_BYTES: usize = limits::MEMORY_MIB * 1024 * 1024;

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

/// Rings of all sockets: the larger of all shared, as many per worker as possible, and each with a worker for itself
/// (`os::xsk::Shape`).
const RX_BYTES: usize = most(
    limits::SOCKETS * Shape::LEAST.rx,
    limits::WORKERS * Shape::of(1).rx,
) * (DESCRIPTOR + ADDRESS);
const TX_BYTES: usize = most(
    limits::SOCKETS * (Shape::LEAST.tx * DESCRIPTOR + Shape::LEAST.completion * ADDRESS),
    limits::WORKERS * (Shape::of(1).tx * DESCRIPTOR + Shape::of(1).completion * ADDRESS),
);

const fn most(one: usize, other: usize) -> usize {
    if one > other { one } else { other }
}

/// Threads with a worker's stack, besides the workers: the one for interfaces, and the one that reads the files of policy.
const OTHER_THREADS: usize = 2;
/// Threads with a small stack: the two of control, snapshot, and the first, which needs no more.
const SMALL_THREADS: usize = 4;
/// Heap that the start allocates and keeps: config, telemetry, names of interfaces and servers, libraries.
const HEAP_BYTES: usize = 256 * 1024;
/// Bytes of a BPF map's entry beside key and value (the kernel's `struct htab_elem` and bucket, rounded up).
const MAP_ENTRY: usize = 64;
/// Bytes of the kernel's `struct lpm_trie_node` with key and value, rounded up. There is a third node between two prefixes.
const TRIE_NODE: usize = 64;
/// Maps of one XDP program: XSKMAP, heartbeats, destinations and their addresses, guarded ports, protected addresses, and the
/// counters and the scratch for limits of 16 CPUs.
/// Clients that returned a SYN cookie have a line of their own.
const MAPS_BYTES: usize = QUEUES_MAX as usize * (size_of::<usize>() + size_of::<u64>())
    + (2 * LISTEN_MAX + GUARDED_MAX) as usize
        * (size_of::<Listen>() + size_of::<PathCheck>() + MAP_ENTRY)
    + PROTECTED_MAX as usize * (size_of::<Behind>() + size_of::<Protected>() + MAP_ENTRY)
    + Reason::COUNT as usize * size_of::<u64>() * 16
    + rate::SCRATCH_BYTES * 16;

/// The maps of the program for hot names, with the counters and the scratch of 16 CPUs.
const HOT_MAPS_BYTES: usize =
    hot::BYTES + (hot::HotOutcome::COUNT as usize * size_of::<u64>() + hot::SCRATCH_BYTES) * 16;

/// The budget. A new static, buffer or thread needs a line here. The memory of kernel sockets is not ours: it is bounded by
/// `net.core.rmem_max` and `wmem_max`.
pub const LINES: &[BudgetLine] = &[
    BudgetLine::new(
        "UMEM of a worker",
        limits::CHUNKS_PER_QUEUE * limits::CHUNK_SIZE,
        limits::WORKERS,
    ),
    BudgetLine::new(
        "RX and fill ring of a socket; fewer have larger ones",
        RX_BYTES / limits::SOCKETS,
        limits::SOCKETS,
    ),
    BudgetLine::new(
        "TX and completion ring of a socket, as well",
        TX_BYTES / limits::SOCKETS,
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
        ENGINES,
    ),
    BudgetLine::new(
        "counters and pulse of a worker",
        size_of::<Counters>() + size_of::<WorkerStats>() + size_of::<Pulse>(),
        ENGINES,
    ),
    BudgetLine::new(
        "who reads of queries: their rings are in memory that they bring",
        size_of::<Tap>(),
        1,
    ),
    BudgetLine::new("counters of devices", size_of::<Arrivals>(), 1),
    BudgetLine::new("TCP streams to upstreams", STREAM_BYTES, ENGINES),
    BudgetLine::new("source ports towards upstreams", PORTS_BYTES, ENGINES),
    BudgetLine::new("table of open source ports", PORTS_SHARED_BYTES, 1),
    BudgetLine::new("TCP connections of clients", SLOTS_BYTES, 1),
    BudgetLine::new(
        "message buffers of all workers",
        worker::buffer_bytes(ENGINES),
        1,
    ),
    BudgetLine::new(
        "shard of the cache",
        size_of::<SharedCache>() / limits::CACHE_SHARDS,
        limits::CACHE_SHARDS,
    ),
    BudgetLine::new("buffer of the snapshot", store::BUFFER, 1),
    BudgetLine::new(
        "policies of views, of a worker",
        POLICIES_MAX * size_of::<Policy<'static>>(),
        ENGINES,
    ),
    BudgetLine::new("stack of a worker", STACK_BYTES, ENGINES),
    BudgetLine::new("stack of another thread", STACK_BYTES, OTHER_THREADS),
    BudgetLine::new(
        "stack of a thread for control, snapshot, signals",
        SMALL_STACK_BYTES,
        SMALL_THREADS,
    ),
    BudgetLine::new("stack of the statistics' thread", STATISTICS_STACK_BYTES, 1),
    BudgetLine::new("requests that have not arrived", ARRIVING_BYTES, 1),
    BudgetLine::new("stack of the log's thread", logging::STACK_BYTES, 1),
    BudgetLine::new("heap of the start, reserved", HEAP_BYTES, 1),
    BudgetLine::new("BPF maps of an interface", MAPS_BYTES, limits::WORKERS),
    BudgetLine::new(
        "verified clients of an interface",
        CLIENT_SETS as usize * size_of::<ClientSet>(),
        limits::WORKERS,
    ),
    // Three pages of the kernel's, and one of records.
    BudgetLine::new("log of the shield", 4 * event::RING_BYTES as usize, 1),
    BudgetLine::new(
        "denied and allowed prefixes",
        2 * TRIE_NODE,
        TRIE_MAX as usize,
    ),
    BudgetLine::new("BPF maps of hot answers", HOT_MAPS_BYTES, 1),
    BudgetLine::new("books of hot answers", store::BOOKS_BYTES, 1),
    BudgetLine::new("hits of a worker", worker::HOT_BYTES, ENGINES),
    BudgetLine::new("accounts of clients", store::rates::BYTES, 1),
    BudgetLine::new("stations of bridges", bridge::BYTES, 1),
];

/// Sum of all lines.
#[must_use]
pub const fn total() -> usize {
    let mut total = 0;
    let mut index = 0;
    while index < LINES.len() {
        total += LINES[index].total();
        index += 1;
    }
    total
}

/// Message of the compiler if the capacities exceed the budget: it prints a text, without our numbers.
const TOO_MUCH: Text = too_much(total());

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

const _: () = if total() > BUDGET_BYTES {
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
pub fn report() -> String {
    let mut out = String::new();
    for line in LINES {
        let _ = writeln!(
            out,
            "{:>10} = {:>3} x {:>8}  {}",
            line.total(),
            line.count,
            line.bytes,
            line.what
        );
    }
    let percent = total() as f64 * 100.0 / BUDGET_BYTES as f64;
    let _ = writeln!(
        out,
        "{:>10} bytes in all, {percent:.1} % of the budget of {BUDGET_BYTES}",
        total()
    );
    out
}

/// The lines and the total as JSON.
#[must_use]
pub fn json() -> Value {
    let line = |line: &BudgetLine| json!({ "what": line.what, "bytes": line.bytes, "count": line.count, "total": line.total() });
    json!({
        "lines": LINES.iter().map(line).collect::<Value>(),
        "total": total(),
        "budget": BUDGET_BYTES,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_adds_up() {
        let report = report();
        let sum: usize = report
            .lines()
            .filter_map(|line| {
                line.split_once('=')
                    .and_then(|(total, _)| total.trim().parse::<usize>().ok())
            })
            .sum();
        assert_eq!(sum, total());
        assert!(report.contains(&format!("{sum} bytes in all")), "{report}");
        assert_eq!(report.lines().count(), LINES.len() + 1);
        let umem = limits::WORKERS * limits::CHUNKS_PER_QUEUE * limits::CHUNK_SIZE;
        assert_eq!(LINES[0].total(), umem, "{report}");
        let told = json();
        assert_eq!(
            (&told["total"], &told["budget"]),
            (&json!(sum), &json!(BUDGET_BYTES))
        );
        assert_eq!(told["lines"][0]["total"], json!(umem));
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
                .contains(&format!(" {} bytes of ", total()))
        );
        let number = |number| Text::new().number(number).as_str().to_owned();
        assert_eq!(
            [0, 9, 10, 1_048_576].map(number),
            ["0", "9", "10", "1048576"]
        );
        assert_eq!(number(usize::MAX), usize::MAX.to_string());
    }
}
