//! What a worker shows of what only it may touch: its AF_XDP sockets, and what it knows of upstream servers. It publishes
//! copies; where somebody reads at that moment it goes on, and the next copy is newer.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, TryLockError};

use xdnsd_core::counters::Counter;
use xdnsd_core::forward::upstreams::{FailureKind, ServerCounts, Upstream};
use xdnsd_core::limits::UPSTREAMS;
use xdnsd_core::time::Instant;

use crate::os::xsk::{Census, Pool, SocketCounters, Statistics, Xsk};

/// An RX queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueName {
    /// Name of the interface.
    pub interface: String,
    /// RX queue.
    pub queue: u32,
}

/// What is known of an AF_XDP socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketReading {
    /// The kernel's counters.
    pub statistics: Statistics,
    /// What the worker counts itself.
    pub counters: SocketCounters,
    /// Where its chunks are.
    pub census: Census,
}

/// What is known of an upstream server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerReading {
    /// Where it listens.
    pub address: SocketAddr,
    /// The group that it belongs to; 0 is the default group.
    pub group: u8,
    /// Usual round trip; `None`: never measured.
    pub rtt_ms: Option<u32>,
    /// Whether it answers, as far as this worker knows.
    pub is_up: bool,
    /// How often this worker asked it, and what came of it.
    pub counts: ServerCounts,
    /// When its latest answer came, on the clock of all workers.
    pub answered: Option<Instant>,
    /// When it failed last, on the same clock.
    pub failed: Option<Instant>,
    /// How it failed last, and when, in seconds since 1970.
    pub failure: Option<(FailureKind, u64)>,
}

impl ServerReading {
    fn of(upstream: &Upstream, now: Instant, unix_secs: u64) -> Self {
        let at = |then: Instant| unix_secs.saturating_sub(now.millis_since(then) / 1000);
        Self {
            address: upstream.config.address,
            group: upstream.config.group,
            rtt_ms: upstream.srtt_ms(),
            is_up: !upstream.is_silent(),
            counts: upstream.counts(),
            answered: upstream.answered_at(),
            failed: upstream.failure().map(|(_, then)| then),
            failure: upstream
                .failure()
                .map(|(failure, then)| (failure, at(then))),
        }
    }
}

/// The place of an AF_XDP socket among all: which queue it serves, or the last one that was there did, and what is counted of
/// that queue.
#[derive(Debug)]
pub struct SocketStats {
    name: Mutex<Option<QueueName>>,
    /// By index into [`Self::COUNTED`]. Only the worker that has the socket writes.
    counts: [AtomicU64; Self::COUNTED.len()],
    reading: Mutex<Option<SocketReading>>,
}

impl SocketStats {
    /// What is counted by queue, besides by worker: what comes over AF_XDP alone.
    pub const COUNTED: [Counter; 4] = [
        Counter::QueriesXdp,
        Counter::AnswersXdp,
        Counter::FramesRejected,
        Counter::TxFull,
    ];

    /// No queue.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            name: Mutex::new(None),
            counts: [const { AtomicU64::new(0) }; Self::COUNTED.len()],
            reading: Mutex::new(None),
        }
    }

    /// Shows this queue from now on. Another one begins at 0.
    pub fn name(&self, name: &QueueName) {
        let mut old = self.name.lock().unwrap_or_else(PoisonError::into_inner);
        if old.as_ref() != Some(name) {
            for count in &self.counts {
                count.store(0, Ordering::Relaxed);
            }
            *old = Some(name.clone());
        }
    }

    /// The queue that it shows. `None`: there was none yet.
    #[must_use]
    pub fn queue(&self) -> Option<QueueName> {
        let name = self.name.lock().unwrap_or_else(PoisonError::into_inner);
        name.clone()
    }

    /// How often `counter` was counted there. `None`: it is not counted by queue.
    #[must_use]
    pub fn get(&self, counter: Counter) -> Option<u64> {
        let index = Self::COUNTED.iter().position(|other| *other == counter)?;
        Some(self.counts[index].load(Ordering::Relaxed))
    }

    /// What is known of the socket; `None`: there is none now.
    #[must_use]
    pub fn reading(&self) -> Option<SocketReading> {
        *self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn count_queries(&self, more: u64) {
        self.add(0, more);
    }

    pub(super) fn count_answers(&self, more: u64) {
        self.add(1, more);
    }

    #[cold]
    pub(super) fn count(&self, counter: Counter) {
        if let Some(index) = Self::COUNTED.iter().position(|other| *other == counter) {
            self.add(index, 1);
        }
    }

    fn add(&self, index: usize, more: u64) {
        let count = &self.counts[index];
        count.store(
            count.load(Ordering::Relaxed).wrapping_add(more),
            Ordering::Relaxed,
        );
    }

    /// Shows where the socket's chunks are, and those that no socket has as well where it is the `first` of its UMEM.
    pub(super) fn publish(&self, xsk: &Xsk, pool: &Pool, first: bool) {
        let Some(mut reading) = free(&self.reading) else {
            return;
        };
        let before = reading.unwrap_or_default();
        let census = xsk.census(pool);
        *reading = Some(SocketReading {
            statistics: xsk.statistics().unwrap_or(before.statistics),
            counters: xsk.counters(),
            census: match first {
                true => census,
                false => Census {
                    worker: 0,
                    free: 0,
                    ..census
                },
            },
        });
    }

    /// The socket goes.
    pub(super) fn clear(&self) {
        *self.reading.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Default for SocketStats {
    fn default() -> Self {
        Self::new()
    }
}

/// The last published copies.
#[derive(Debug)]
pub struct WorkerStats {
    /// As many as there can be, so that none is left out.
    servers: Mutex<heapless::Vec<ServerReading, UPSTREAMS>>,
}

impl WorkerStats {
    /// No servers.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            servers: Mutex::new(heapless::Vec::new()),
        }
    }

    pub(super) fn publish_servers(&self, upstreams: &[Upstream], now: Instant, unix_secs: u64) {
        let Some(mut servers) = free(&self.servers) else {
            return;
        };
        servers.clear();
        servers.extend(
            upstreams
                .iter()
                .map(|upstream| ServerReading::of(upstream, now, unix_secs)),
        );
    }

    /// Of the servers that it asks.
    #[must_use]
    pub fn servers(&self) -> Vec<ServerReading> {
        let servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        servers.to_vec()
    }
}

impl Default for WorkerStats {
    fn default() -> Self {
        Self::new()
    }
}

/// The lock, unless somebody has it.
fn free<T>(mutex: &Mutex<T>) -> Option<std::sync::MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}
