//! The threads with an engine, as many as there can be, and what each of them has in static memory.

use std::sync::Mutex;

use xdnsd_core::counters::Counters;
use xdnsd_core::engine::Tables;
use xdnsd_core::limits::{SOCKETS, WORKERS};

use crate::store::tap::ring::RINGS;

use super::{Arrivals, NoticeBoard, Pulse, ReplyPath, SocketStats, WorkerStats};

/// Threads with an engine.
pub const ENGINES: usize = WORKERS + 1;
const _: () = assert!(RINGS == ENGINES, "a reader has a ring for each");
/// The one that serves TCP, alone; those before it serve UDP.
pub const TCP: usize = WORKERS;

/// The engines' tables, one per worker, in .bss. A worker holds the lock of its own for as long as it lives.
pub static TABLES: [Mutex<Tables<ReplyPath>>; ENGINES] =
    [const { Mutex::new(Tables::new()) }; ENGINES];
/// What they count.
pub static COUNTERS: [Counters; ENGINES] = [const { Counters::new() }; ENGINES];
/// What came to their kernel sockets by which device.
pub static ARRIVALS: Arrivals = Arrivals::new();
/// What they show of upstream servers.
pub static WORKER_STATS: [WorkerStats; ENGINES] = [const { WorkerStats::new() }; ENGINES];
/// What they show of their AF_XDP sockets, each at a place of its own.
pub static SOCKET_STATS: [SocketStats; SOCKETS] = [const { SocketStats::new() }; SOCKETS];
/// Where they show that they live.
pub static PULSES: [Pulse; ENGINES] = [const { Pulse::new() }; ENGINES];
/// What they leave for the log.
pub static NOTICES: NoticeBoard = NoticeBoard::new();

/// Bytes of one engine's tables, for the memory budget.
pub const TABLES_BYTES: usize = size_of::<Mutex<Tables<ReplyPath>>>();

/// The threads that hang, for a watchdog. A thread turns at least once a second; `wait` waits a
/// little and says whether to look again.
pub fn still(mut wait: impl FnMut() -> bool) -> Vec<usize> {
    let turns = |engine: usize| PULSES[engine].turns();
    // One that has turned runs.
    let running = (0..ENGINES).filter(|&engine| turns(engine) != 0);
    let before: Vec<(usize, u32)> = running.map(|engine| (engine, turns(engine))).collect();
    loop {
        let same = before
            .iter()
            .filter(|(engine, before)| turns(*engine) == *before);
        let still: Vec<usize> = same.map(|(engine, _)| *engine).collect();
        if still.is_empty() || !wait() {
            return still;
        }
    }
}
