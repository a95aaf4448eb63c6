//! What a worker shows of what only it may touch: its AF_XDP socket, and what it knows of upstream servers. It publishes
//! copies; where somebody reads at that moment it goes on, and the next copy is newer.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError, TryLockError};

use xdnsd_core::forward::upstreams::{FailureKind, ServerCounts, Upstream};
use xdnsd_core::limits::UPSTREAMS;
use xdnsd_core::time::Instant;

use crate::os::xsk::{Census, SocketCounters, Statistics, Xsk};

/// Which RX queue a worker serves.
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

/// The last published copies.
#[derive(Debug)]
pub struct WorkerStats {
    socket: Mutex<Option<SocketReading>>,
    /// As many as there can be, so that none is left out.
    servers: Mutex<heapless::Vec<ServerReading, UPSTREAMS>>,
}

impl WorkerStats {
    /// No socket, no servers.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            socket: Mutex::new(None),
            servers: Mutex::new(heapless::Vec::new()),
        }
    }

    pub(super) fn publish_socket(&self, xsk: &Xsk) {
        let Some(mut socket) = free(&self.socket) else {
            return;
        };
        let before = socket.unwrap_or_default();
        *socket = Some(SocketReading {
            statistics: xsk.statistics().unwrap_or(before.statistics),
            counters: xsk.counters(),
            census: xsk.census(),
        });
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

    /// The socket is closed.
    pub(super) fn clear_socket(&self) {
        *self.socket.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Of its AF_XDP socket; `None`: it has none.
    #[must_use]
    pub fn socket(&self) -> Option<SocketReading> {
        *self.socket.lock().unwrap_or_else(PoisonError::into_inner)
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
