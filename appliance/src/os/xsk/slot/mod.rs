//! The right to the packet memory of one worker's sockets.

#[cfg(not(feature = "afxdp"))]
mod chunks;
#[cfg(not(feature = "afxdp"))]
mod lent;
#[cfg(not(feature = "afxdp"))]
pub use chunks::ChunkSet;
#[cfg(not(feature = "afxdp"))]
pub use lent::RxQueue;

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use xdnsd_core::limits::{BATCH, CHUNK_SIZE, CHUNKS_PER_QUEUE, RX_RING, TX_CHUNKS, WORKERS};

/// Offset at which the kernel puts a frame in its chunk (`XDP_PACKET_HEADROOM`). Our own frames start there too.
pub const HEADROOM: usize = 256;
/// Chunks that circulate between fill and RX ring; a reply in place takes them through the TX ring. They are the first of their
/// slot, those for replies made later follow.
pub const RX_CHUNKS: usize = CHUNKS_PER_QUEUE - TX_CHUNKS;

const _: () = assert!(CHUNK_SIZE <= 4096, "the kernel's chunk is at most a page");
const _: () = assert!(
    RX_CHUNKS >= RX_RING + BATCH,
    "a full fill ring and the batch in hand"
);
const _: () = assert!(
    xdnsd_abi::FRAME_MAX <= CHUNK_SIZE - HEADROOM,
    "a chunk holds what the program redirects"
);
const _: () = assert!(TX_CHUNKS >= BATCH, "a batch of replies made later");

static CLAIMED: [AtomicBool; WORKERS] = [const { AtomicBool::new(false) }; WORKERS];
/// Number of slots.
static COUNT: AtomicUsize = AtomicUsize::new(WORKERS);

/// Sets the number of slots, at most [`WORKERS`].
pub(super) fn set_count(slots: usize) {
    COUNT.store(slots.min(WORKERS), Ordering::Relaxed);
}

/// Number of slots.
pub(super) fn count() -> usize {
    COUNT.load(Ordering::Relaxed)
}

/// The right to one slot of packet memory. The opener, the sockets, and the pool share it; the last of them gives it back.
#[derive(Debug)]
pub struct UmemSlot {
    index: usize,
    retired: AtomicBool,
}

impl UmemSlot {
    /// Claims slot `index`. `None` if there is no such slot, or if it is claimed.
    #[must_use]
    pub fn claim(index: usize) -> Option<Self> {
        // Acquire pairs with the release in `drop`: the last owner's accesses to the memory are over.
        CLAIMED[..count()]
            .get(index)?
            .compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed)
            .ok()?;
        Some(Self {
            index,
            retired: AtomicBool::new(false),
        })
    }

    /// Index of the slot.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// Keeps the slot claimed for good, because a frame of it still exists.
    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }
}

impl Drop for UmemSlot {
    fn drop(&mut self) {
        if !*self.retired.get_mut() {
            CLAIMED[self.index].store(false, Ordering::Release);
        }
    }
}
