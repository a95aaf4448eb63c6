//! The engines: how many threads have one, and the static memory of each.

use std::sync::Mutex;

use xdnsd_core::counters::Counters;
use xdnsd_core::engine::Tables;
use xdnsd_core::forward::in_flight::InFlight;
use xdnsd_core::limits::{SOCKETS, WORKERS};

use crate::store::tap::ring::RINGS;

use super::{Arrivals, NoticeBoard, Pulse, ReplyPath, SocketStats, WorkerStats};

/// Most threads with an engine.
pub const ENGINES: usize = WORKERS + 1;
const _: () = assert!(RINGS == ENGINES, "a reader has a ring for each");
/// Index of the engine that serves TCP, alone; those before it serve UDP.
pub const TCP: usize = WORKERS;

/// The engines' tables, one per worker, in .bss. A worker holds its lock for as long as it lives.
pub static TABLES: [Mutex<Tables<ReplyPath>>; ENGINES] =
    [const { Mutex::new(Tables::new()) }; ENGINES];
/// Questions in flight at any engine.
pub static IN_FLIGHT: InFlight = InFlight::new();
const _: () = assert!(ENGINES < 255, "a place has a byte for who asks");
/// Counters of each engine.
pub static COUNTERS: [Counters; ENGINES] = [const { Counters::new() }; ENGINES];
/// Counts per ingress device, for the kernel sockets of all engines.
pub static ARRIVALS: Arrivals = Arrivals::new();
/// Published statistics of upstream servers, one per engine.
pub static WORKER_STATS: [WorkerStats; ENGINES] = [const { WorkerStats::new() }; ENGINES];
/// Published statistics of AF_XDP sockets, one per socket.
pub static SOCKET_STATS: [SocketStats; SOCKETS] = [const { SocketStats::new() }; SOCKETS];
/// Liveness of each engine.
pub static PULSES: [Pulse; ENGINES] = [const { Pulse::new() }; ENGINES];
/// Notices for the log, from all engines.
pub static NOTICES: NoticeBoard = NoticeBoard::new();

/// Bytes of one engine's tables, for the memory budget.
pub const TABLES_BYTES: usize = size_of::<Mutex<Tables<ReplyPath>>>();

/// The engines that hang, for a watchdog. A running worker's loop turns at least once a second; `wait` waits a little and says
/// whether to look again.
pub fn still(mut wait: impl FnMut() -> bool) -> Vec<usize> {
    let turns = |engine: usize| PULSES[engine].turns();
    // Only a worker that has turned at least once is running.
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
