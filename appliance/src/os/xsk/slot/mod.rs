//! The right to the packet memory of one worker's sockets.

#[cfg(not(feature = "afxdp"))]
mod chunks;
#[cfg(not(feature = "afxdp"))]
mod lent;
#[cfg(not(feature = "afxdp"))]
pub use chunks::ChunkSet;
#[cfg(not(feature = "afxdp"))]
pub use lent::RxQueue;

use core::sync::atomic::{AtomicBool, Ordering};
use xdnsd_core::limits::{BATCH, CHUNK_SIZE, CHUNKS_PER_QUEUE, RX_RING, TX_CHUNKS, WORKERS};

/// Where the kernel puts the first byte of a frame in its chunk (`XDP_PACKET_HEADROOM`). Our own frames start there too.
pub const HEADROOM: usize = 256;
/// Chunks that circulate between fill and RX ring; a reply in place lets them pass through the TX ring. They are the
/// first of their slot, those for replies made later follow.
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

/// The right to one slot of packet memory. Whoever opens sockets on it, the sockets, and the ledger of its chunks have it
/// together; the last of them gives it back.
#[derive(Debug)]
pub struct UmemSlot {
    index: usize,
    retired: AtomicBool,
}

impl UmemSlot {
    /// Claims slot `index` of [`WORKERS`]. `None`: there is no such slot, or a socket has it.
    #[must_use]
    pub fn claim(index: usize) -> Option<Self> {
        // Acquire pairs with the release in `drop`: what the last owner did to the memory is over.
        CLAIMED
            .get(index)?
            .compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed)
            .ok()?;
        Some(Self {
            index,
            retired: AtomicBool::new(false),
        })
    }

    /// The slot's number.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// Nobody gets the slot again, because a frame of it is still about.
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
