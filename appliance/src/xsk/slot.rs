//! The right to the packet memory of one socket.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use nix::net::if_::if_nameindex;
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
    xdnsd_ebpf::FRAME_MAX <= CHUNK_SIZE - HEADROOM,
    "a chunk holds what the program redirects"
);
const _: () = assert!(TX_CHUNKS >= BATCH, "a batch of replies made later");

static CLAIMED: [AtomicBool; WORKERS] = [const { AtomicBool::new(false) }; WORKERS];

/// For each slot the RX queue whose driver may still write into it. 0: none.
static LENT: [AtomicU64; WORKERS] = [const { AtomicU64::new(0) }; WORKERS];

/// An RX queue of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RxQueue {
    /// Index of the device. A device that is made anew has another one.
    pub ifindex: u32,
    /// Number of the queue.
    pub queue: u32,
}

impl RxQueue {
    fn to_bits(self) -> u64 {
        u64::from(self.ifindex) << 32 | u64::from(self.queue)
    }

    /// `None`: no queue. Devices are counted from 1.
    fn from_bits(bits: u64) -> Option<Self> {
        let (ifindex, queue) = ((bits >> 32) as u32, bits as u32);
        (ifindex != 0).then_some(Self { ifindex, queue })
    }
}

/// The right to one slot of packet memory. Opening a socket takes it; dropping the socket gives it back.
#[derive(Debug)]
pub struct UmemSlot {
    index: usize,
    retired: bool,
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
            retired: false,
        })
    }

    /// Whether no socket has slot `index`.
    #[must_use]
    pub fn is_free(index: usize) -> bool {
        let claimed = CLAIMED.get(index);
        claimed.is_some_and(|claimed| !claimed.load(Ordering::Relaxed))
    }

    /// The slot's number.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// The driver of `queue` writes into the slot by itself (zero copy). It does so for a moment after the socket's close:
    /// the kernel detaches the pool later (`xp_release_deferred`). So the slot stays lent when it is given back.
    pub(super) fn lend(&self, queue: RxQueue) {
        LENT[self.index].store(queue.to_bits(), Ordering::Relaxed);
    }

    /// Whether a socket on `queue` may be bound with the slot: no driver of another queue may write into it any more. On
    /// the same queue the kernel says EBUSY until the pool of the socket before is detached, and nobody reaches the bytes
    /// before bind; of a device that is gone all pools are detached (`xsk_notifier`).
    pub(super) fn is_for(&self, queue: RxQueue) -> bool {
        let lent = RxQueue::from_bits(LENT[self.index].load(Ordering::Relaxed));
        lent.is_none_or(|lent| lent == queue || is_gone(lent.ifindex))
    }

    /// A socket is bound with the slot, and its frames are copied: no driver writes any more.
    pub(super) fn take_back(&self) {
        LENT[self.index].store(0, Ordering::Relaxed);
    }

    /// Nobody gets the slot again, because a frame of it is still about.
    pub(super) fn retire(&mut self) {
        self.retired = true;
    }
}

impl Drop for UmemSlot {
    fn drop(&mut self) {
        if !self.retired {
            CLAIMED[self.index].store(false, Ordering::Release);
        }
    }
}

/// Whether there is no such device. What cannot be found out is there. (`if_indextoname` of nix 0.31 does not tell an
/// error from a name.)
fn is_gone(ifindex: u32) -> bool {
    if_nameindex().is_ok_and(|devices| !devices.iter().any(|device| device.index() == ifindex))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LO: u32 = 1;

    #[test]
    fn a_slot_that_a_driver_may_write_into_is_for_its_queue_alone() {
        // Without the right to it: other tests claim slots.
        let slot = core::mem::ManuallyDrop::new(UmemSlot {
            index: WORKERS - 1,
            retired: false,
        });
        let queue = |ifindex, queue| RxQueue { ifindex, queue };
        assert!(slot.is_for(queue(LO, 0)) && slot.is_for(queue(LO, 1)));
        slot.lend(queue(LO, 1));
        assert!(slot.is_for(queue(LO, 1)));
        assert!(!slot.is_for(queue(LO, 0)), "another queue");
        assert!(!slot.is_for(queue(LO + 1, 1)), "another device");
        slot.lend(queue(i32::MAX as u32, 0));
        assert!(slot.is_for(queue(LO, 0)), "its device is gone");
        slot.lend(queue(LO, 1));
        slot.take_back();
        assert!(slot.is_for(queue(LO, 0)));
    }
}
