//! Published statistics of state that only the worker may touch: its AF_XDP sockets, and upstream servers. It publishes copies;
//! while a reader holds the lock it goes on, and the next copy is newer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, TryLockError};

use xdnsd_core::counters::{self, Counter};
use xdnsd_core::forward::upstreams::{FailureKind, ServerCounts, Upstream};
use xdnsd_core::forward::via::Destination;
use xdnsd_core::limits::UPSTREAMS;
use xdnsd_core::time::Instant;

use crate::os::xsk::{Census, CopyMode, Pool, SocketCounters, Statistics, Xsk};

/// Name of an RX queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueName {
    /// Name of the interface.
    pub interface: String,
    /// Index of the RX queue.
    pub queue: u32,
}

/// Statistics of an AF_XDP socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketReading {
    /// The kernel's counters.
    pub statistics: Statistics,
    /// The worker's own counters.
    pub counters: SocketCounters,
    /// Chunks by where they are.
    pub census: Census,
    /// True if the driver receives into the UMEM.
    pub has_zero_copy: bool,
}

/// Statistics of an upstream server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerReading {
    /// Its address, and the way to it.
    pub to: Destination,
    /// Group of the server; 0 is the default group.
    pub group: u8,
    /// Smoothed round-trip time; `None` if never measured.
    pub rtt_ms: Option<u32>,
    /// True if it answers, as far as this worker knows.
    pub is_up: bool,
    /// Questions that this worker asked it, and their outcomes.
    pub counts: ServerCounts,
    /// Time of its latest answer, on the clock of all workers.
    pub answered: Option<Instant>,
    /// Time of its latest failure, on the same clock.
    pub failed: Option<Instant>,
    /// Kind of its latest failure, and its time in seconds since 1970.
    pub failure: Option<(FailureKind, u64)>,
}

impl ServerReading {
    fn of(upstream: &Upstream, now: Instant, unix_secs: u64) -> Self {
        let at = |then: Instant| unix_secs.saturating_sub(now.millis_since(then) / 1000);
        Self {
            to: upstream.config.to,
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

/// Published state at one place for AF_XDP sockets: the queue that it serves, or served last, and the counts of that queue.
#[derive(Debug)]
pub struct SocketStats {
    name: Mutex<Option<QueueName>>,
    /// By index into [`Self::COUNTED`]. Only the worker that has the socket writes.
    counts: [AtomicU64; Self::COUNTED.len()],
    reading: Mutex<Option<SocketReading>>,
}

impl SocketStats {
    /// Counters kept per queue, besides per worker: those of AF_XDP alone.
    pub const COUNTED: [Counter; 4] = [
        Counter::QueriesXdp,
        Counter::AnswersXdp,
        Counter::FramesRejected,
        Counter::TxFull,
    ];

    /// Without a queue.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            name: Mutex::new(None),
            counts: [const { AtomicU64::new(0) }; Self::COUNTED.len()],
            reading: Mutex::new(None),
        }
    }

    /// Assigns the place to a queue. Another queue's counts begin at 0.
    pub fn name(&self, name: &QueueName) {
        let mut old = self.name.lock().unwrap_or_else(PoisonError::into_inner);
        if old.as_ref() != Some(name) {
            for count in &self.counts {
                count.store(0, Ordering::Relaxed);
            }
            *old = Some(name.clone());
        }
    }

    /// Queue of this place. `None` if there was none yet.
    #[must_use]
    pub fn queue(&self) -> Option<QueueName> {
        let name = self.name.lock().unwrap_or_else(PoisonError::into_inner);
        name.clone()
    }

    /// Count of `counter` for the queue. `None` if it is not kept per queue.
    #[must_use]
    pub fn get(&self, counter: Counter) -> Option<u64> {
        let index = Self::COUNTED.iter().position(|other| *other == counter)?;
        Some(self.counts[index].load(Ordering::Relaxed))
    }

    /// Statistics of the socket; `None` if there is none now.
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
        counters::add(&self.counts[index], more);
    }

    /// Publishes the socket's statistics; for the `first` socket of a UMEM, chunks outside any socket are included.
    pub(super) fn publish(&self, xsk: &Xsk, pool: &Pool, first: bool) {
        let Some(mut reading) = free(&self.reading) else {
            return;
        };
        let before = reading.unwrap_or_default();
        let census = xsk.census(pool);
        *reading = Some(SocketReading {
            statistics: xsk.statistics().unwrap_or(before.statistics),
            counters: xsk.counters(),
            has_zero_copy: xsk.mode() == CopyMode::ZeroCopy,
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

    /// Notes that the socket is gone.
    pub(super) fn clear(&self) {
        *self.reading.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Default for SocketStats {
    fn default() -> Self {
        Self::new()
    }
}

/// Published statistics of upstream servers, of one worker.
#[derive(Debug)]
pub struct WorkerStats {
    /// Room for the most servers, so that none is left out.
    servers: Mutex<heapless::Vec<ServerReading, UPSTREAMS>>,
}

impl WorkerStats {
    /// Without servers.
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

    /// The servers that the worker asks.
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

/// Locks, unless another thread holds the lock.
fn free<T>(mutex: &Mutex<T>) -> Option<std::sync::MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}
