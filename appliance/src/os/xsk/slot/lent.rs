//! Drivers that may still write into a slot's memory. The other backend has its memory in a crate.

use super::UmemSlot;
use core::sync::atomic::{AtomicU64, Ordering};
use nix::net::if_::if_nameindex;
use xdnsd_core::limits::WORKERS;

/// For each slot the RX queue whose driver may still write into it, or 0.
static LENT: [AtomicU64; WORKERS] = [const { AtomicU64::new(0) }; WORKERS];

/// An RX queue of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RxQueue {
    /// Interface index. A device that is made anew has another one.
    pub ifindex: u32,
    /// Number of the queue.
    pub queue: u32,
}

impl RxQueue {
    fn to_bits(self) -> u64 {
        u64::from(self.ifindex) << 32 | u64::from(self.queue)
    }

    /// `None` for 0. Interface indices start at 1.
    fn from_bits(bits: u64) -> Option<Self> {
        let (ifindex, queue) = ((bits >> 32) as u32, bits as u32);
        (ifindex != 0).then_some(Self { ifindex, queue })
    }
}

impl UmemSlot {
    /// Notes that the driver of `queue` writes into the slot (zero copy). It may do so for a moment after the socket's close: the
    /// kernel detaches its buffer pool later (`xp_release_deferred`). So the slot stays lent when it is given back.
    pub(in crate::os::xsk) fn lend(&self, queue: RxQueue) {
        LENT[self.index].store(queue.to_bits(), Ordering::Relaxed);
    }

    /// True if a socket on `queue` may be bound with the slot: no driver of another queue may write into it any more. On the same
    /// queue the kernel returns EBUSY until the buffer pool of the previous socket is detached, and nothing accesses the bytes
    /// before bind; when a device is removed all its buffer pools are detached (`xsk_notifier`).
    pub(in crate::os::xsk) fn is_for(&self, queue: RxQueue) -> bool {
        let lent = RxQueue::from_bits(LENT[self.index].load(Ordering::Relaxed));
        lent.is_none_or(|lent| lent == queue || is_gone(lent.ifindex))
    }

    /// Notes that a socket is bound with the slot in copy mode: no driver writes any more.
    pub(in crate::os::xsk) fn take_back(&self) {
        LENT[self.index].store(0, Ordering::Relaxed);
    }
}

/// True if the device is gone. If that cannot be determined, it counts as present. (`if_indextoname` of nix 0.31 does not
/// distinguish an error from a name.)
fn is_gone(ifindex: u32) -> bool {
    if_nameindex().is_ok_and(|devices| !devices.iter().any(|device| device.index() == ifindex))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LO: u32 = 1;

    #[test]
    fn a_slot_that_a_driver_may_write_into_is_for_its_queue_alone() {
        // Made directly, without a claim: other tests claim slots.
        let slot = core::mem::ManuallyDrop::new(UmemSlot {
            index: WORKERS - 1,
            retired: false.into(),
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
