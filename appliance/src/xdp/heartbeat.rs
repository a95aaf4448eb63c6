//! The heartbeat array, mapped: a worker says that it lives by one store, without a system call.

use super::Error;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use xdnsd_ebpf::QUEUES_MAX;

/// Bytes of the array: the kernel lays mappable arrays out without gaps, and rounds the mapping up to pages itself.
const LEN: usize = QUEUES_MAX as usize * size_of::<AtomicU64>();

/// The whole array in our address space.
pub(super) struct Beats {
    mapping: Arc<Mapping>,
}

impl Beats {
    /// Maps the array. The mapping keeps the map alive by itself.
    pub(super) fn map(fd: BorrowedFd<'_>) -> Result<Self, Error> {
        let mapping = Arc::new(Mapping::new(fd).map_err(Error::HeartbeatMmap)?);
        Ok(Self { mapping })
    }

    /// The caller has checked `queue < QUEUES_MAX`.
    pub(super) fn of_queue(&self, queue: u32) -> Heartbeat {
        assert!(queue < QUEUES_MAX, "a queue of the array");
        let mapping = Arc::clone(&self.mapping);
        Heartbeat { mapping, queue }
    }
}

/// The heartbeat of one RX queue. It outlives the program that it came from; nobody reads it then.
#[derive(Clone)]
pub struct Heartbeat {
    mapping: Arc<Mapping>,
    queue: u32,
}

impl Heartbeat {
    /// Says that the queue's worker was alive at `now_ns` of CLOCK_MONOTONIC. Due every
    /// [`xdnsd_ebpf::HEARTBEAT_INTERVAL_MS`] at the latest. Never allocates, never enters the kernel.
    pub fn beat(&self, now_ns: u64) {
        self.mapping
            .slot(self.queue)
            .store(now_ns, Ordering::Relaxed);
    }

    /// Takes the worker's word back: from here on the queue's frames go to the kernel.
    pub fn stop(&self) {
        self.beat(0);
    }
}

struct Mapping {
    start: NonNull<AtomicU64>,
}

// SAFETY: the mapping belongs to no thread, and is only reached as &AtomicU64.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(fd: BorrowedFd<'_>) -> std::io::Result<Self> {
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let null = std::ptr::null_mut();
        // SAFETY: a new mapping at an address of the kernel's choice disturbs no memory of ours; the descriptor is
        // open for the call.
        let start = unsafe { libc::mmap(null, LEN, prot, libc::MAP_SHARED, fd.as_raw_fd(), 0) };
        if start == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).expect("mmap without MAP_FIXED never maps page 0");
        Ok(Self { start })
    }

    fn slot(&self, queue: u32) -> &AtomicU64 {
        // SAFETY: `of_queue` asserted queue < QUEUES_MAX, so the slot lies in the LEN bytes that are mapped until
        // drop; they are page-aligned and zeroed by the kernel. All writers in user space store atomically, the program
        // only loads.
        unsafe { self.start.add(queue as usize).as_ref() }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: our own mapping of LEN bytes; every Heartbeat holds the Arc, so no slot is borrowed any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), LEN) };
    }
}
