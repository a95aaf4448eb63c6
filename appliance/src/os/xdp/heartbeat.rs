//! The mapped heartbeat array: a worker reports liveness by one store, without a system call.

use super::Error;
use crate::os::bpf_array::MappedWords;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use xdnsd_abi::{QUEUES_MAX, map};

/// The whole array, mapped.
pub(super) struct HeartbeatArray {
    mapping: Arc<MappedWords>,
}

impl HeartbeatArray {
    /// Maps the array. The mapping keeps the map alive by itself.
    pub(super) fn map(fd: BorrowedFd<'_>) -> Result<Self, Error> {
        let mapped = MappedWords::map(fd, QUEUES_MAX as usize).map_err(|cause| Error::Mmap {
            name: map::HEARTBEAT,
            cause,
        });
        let mapping = Arc::new(mapped?);
        Ok(Self { mapping })
    }

    /// Heartbeat of `queue`, which the caller has checked against `QUEUES_MAX`.
    pub(super) fn of_queue(&self, queue: u32) -> Heartbeat {
        assert!(queue < QUEUES_MAX, "a queue of the array");
        let mapping = Arc::clone(&self.mapping);
        Heartbeat { mapping, queue }
    }
}

/// Heartbeat of one RX queue. It may outlive its program, and is then unread.
#[derive(Clone)]
pub struct Heartbeat {
    mapping: Arc<MappedWords>,
    queue: u32,
}

impl Heartbeat {
    /// Reports that the queue's worker was alive at `now_ns` of CLOCK_MONOTONIC. Due every [`xdnsd_abi::HEARTBEAT_INTERVAL_MS`]
    /// at the latest. Never allocates, never enters the kernel.
    pub fn beat(&self, now_ns: u64) {
        self.mapping
            .word(self.queue)
            .store(now_ns, Ordering::Relaxed);
    }

    /// Clears the heartbeat: from here on the queue's frames pass to the kernel.
    pub fn stop(&self) {
        self.beat(0);
    }
}
