//! What a worker shows of its AF_XDP socket. Only the worker may touch the socket, so it publishes copies.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crate::telemetry::XskStatistics;
use crate::xsk::{Census, Xsk};

/// Which RX queue a worker serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueName {
    /// Name of the interface.
    pub interface: String,
    /// RX queue.
    pub queue: u32,
}

/// Counters of [`XskStatistics`].
const KERNEL: usize = 6;

/// The last published copies. A reader may see values of two moments beside each other.
#[derive(Debug)]
pub struct PortStats {
    open: AtomicBool,
    kernel: [AtomicU64; KERNEL],
    census: [AtomicU32; 8],
}

impl PortStats {
    /// No socket.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            open: AtomicBool::new(false),
            kernel: [const { AtomicU64::new(0) }; KERNEL],
            census: [const { AtomicU32::new(0) }; 8],
        }
    }

    pub(super) fn publish(&self, xsk: &Xsk) {
        if let Ok(statistics) = xsk.statistics() {
            for (slot, (_, value)) in self.kernel.iter().zip(statistics.named()) {
                slot.store(value, Ordering::Relaxed);
            }
        }
        for (slot, (_, value)) in self.census.iter().zip(xsk.census().named()) {
            slot.store(value, Ordering::Relaxed);
        }
        self.open.store(true, Ordering::Relaxed);
    }

    pub(super) fn clear(&self) {
        self.open.store(false, Ordering::Relaxed);
    }

    /// Whether the worker has an AF_XDP socket.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    /// The kernel's counters; `None`: no socket.
    #[must_use]
    pub fn kernel(&self) -> Option<XskStatistics> {
        let value = |index: usize| self.kernel[index].load(Ordering::Relaxed);
        self.is_open().then(|| XskStatistics {
            rx_dropped: value(0),
            rx_invalid_descs: value(1),
            tx_invalid_descs: value(2),
            rx_ring_full: value(3),
            rx_fill_ring_empty_descs: value(4),
            tx_ring_empty_descs: value(5),
        })
    }

    /// Chunks by place, as [`Census::named`] has them.
    #[must_use]
    pub fn census(&self) -> [(&'static str, u32); 8] {
        let mut named = Census::default().named();
        for ((_, value), slot) in named.iter_mut().zip(&self.census) {
            *value = slot.load(Ordering::Relaxed);
        }
        named
    }
}

impl Default for PortStats {
    fn default() -> Self {
        Self::new()
    }
}
