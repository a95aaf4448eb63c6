//! The default backend: our own socket over libc, UMEM in a static.

use super::error::Kick;
use super::pool::{ChunkOwner, Pool, SharedUmem};
use super::setup::{self, Opened, Rings};
use super::slot::ChunkSet;
use super::stats::{Census, SocketCounters, Statistics};
use super::umem::Frame;
use super::{Batch, CopyMode, sys};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Arc, Weak};
use xdnsd_core::limits::BATCH;

/// An AF_XDP socket bound to one RX queue, with its four rings. One thread uses it, together with the pool of the UMEM that it
/// shares with others.
pub struct Xsk {
    // Fields drop in this order: mappings, then the socket, which takes its chunks from the kernel, then the slot. In zero copy
    // the kernel detaches its buffer pool from the driver after close has returned: the slot is lent until then
    // (`UmemSlot::is_for`).
    rings: Rings,
    fd: Arc<OwnedFd>,
    /// Keeps the memory claimed while the kernel may use some of it.
    shared: Arc<SharedUmem>,
    member: u8,
    mode: CopyMode,
    counters: SocketCounters,
    /// Frames received since the last flush.
    arrived: u32,
    /// Chunks that its fill ring was primed with, until the pool adopts them.
    primed: Option<ChunkSet>,
}

impl Xsk {
    pub(super) fn new(
        opened: Opened,
        shared: Arc<SharedUmem>,
        member: u8,
    ) -> (Self, Weak<OwnedFd>) {
        let Opened {
            rings,
            fd,
            primed,
            mode,
        } = opened;
        let fd = Arc::new(fd);
        let weak = Arc::downgrade(&fd);
        let xsk = Self {
            rings,
            fd,
            shared,
            member,
            mode,
            counters: SocketCounters::default(),
            arrived: 0,
            primed: Some(primed),
        };
        (xsk, weak)
    }

    pub(super) fn slot(&self) -> usize {
        self.shared.slot.index()
    }

    pub(super) fn member(&self) -> u8 {
        self.member
    }

    pub(super) fn take_primed(&mut self) -> Option<ChunkSet> {
        self.primed.take()
    }

    /// Has the pool adopt the socket. Frames are received only after that.
    pub fn join(&mut self, pool: &mut Pool) {
        self.check(pool);
        if let Some(primed) = self.primed.take() {
            pool.adopt(self.member, &primed);
        }
    }

    /// Checked in release builds too: in another slot our indices name chunks that may have another owner.
    fn check(&self, pool: &Pool) {
        assert_eq!(pool.slot(), self.slot(), "the ledger of its UMEM");
    }

    /// Copy mode that the kernel chose.
    #[must_use]
    pub fn mode(&self) -> CopyMode {
        self.mode
    }

    /// Receives frames until the batch is full or none is left; returns their number.
    pub fn receive(&mut self, pool: &mut Pool, batch: &mut Batch) -> usize {
        self.check(pool);
        let room = (BATCH - batch.len()) as u32;
        let before = batch.len();
        for _ in 0..self.rings.rx.available(room).min(room) {
            let Some(descriptor) = self.rings.rx.pop() else {
                break;
            };
            match pool.received(self.member, descriptor) {
                Some(frame) => batch.push(frame).expect("room was counted"),
                None => self.counters.stray += 1,
            }
        }
        self.rings.rx.release();
        let received = batch.len() - before;
        self.counters.received += received as u64;
        self.arrived += received as u32;
        received
    }

    /// A frame for a reply that cannot use its query's own frame. `None` if all are in flight.
    #[must_use]
    pub fn take_free(&mut self, pool: &mut Pool) -> Option<Frame> {
        pool.take_free()
    }

    /// Puts the first `len` bytes of the frame into the TX ring; they are sent at the next [`Self::flush`].
    ///
    /// # Errors
    /// Returns the frame: the TX ring is full, or `len` exceeds the frame.
    pub fn transmit(&mut self, pool: &mut Pool, frame: Frame, len: usize) -> Result<(), Frame> {
        self.check(pool);
        if self.rings.tx.free(1) == 0 {
            self.counters.tx_full += 1;
            return Err(frame);
        }
        let descriptor = pool.transmit(self.member, frame, len)?;
        let pushed = self.rings.tx.push(descriptor);
        debug_assert!(pushed, "the TX ring had room");
        self.counters.transmitted += 1;
        Ok(())
    }

    /// Gives a frame back unsent.
    pub fn release(&mut self, pool: &mut Pool, frame: Frame) {
        pool.release(frame);
    }

    /// Ends a batch: sends transmitted frames, reclaims sent chunks, refills the fill ring.
    pub fn flush(&mut self, pool: &mut Pool) -> Kick {
        self.check(pool);
        self.rings.tx.submit();
        let kick = self.kick();
        self.counters.again += u64::from(kick == Kick::Again);
        self.counters.dropped += u64::from(pool.recover());
        self.reap(pool);
        let wanted = pool.wanted(self.member, std::mem::take(&mut self.arrived));
        setup::fill(&mut self.rings.fill, pool, self.member, wanted);
        self.wake_rx();
        debug_assert!(pool.holds(), "a chunk is missing, or there twice");
        kick
    }

    /// True if a flush would do anything: of a worker's many sockets, most have no work.
    #[must_use]
    pub fn has_work(&self, pool: &Pool) -> bool {
        let is_short = || pool.wanted(self.member, 0) > 0;
        self.arrived > 0 || pool.count(ChunkOwner::tx(self.member)) > 0 || is_short()
    }

    /// Checks the interface by a wake-up, which sends frames in the TX ring. A deleted interface makes no event on the
    /// descriptor, so a worker that only receives calls this on its timer.
    pub fn probe(&mut self) -> Kick {
        match sys::wake_tx(self.fd.as_fd()) {
            Ok(()) if self.rings.tx.pending() == 0 => Kick::Done,
            Ok(()) => Kick::Again,
            Err(errno) => Kick::from_errno(errno),
        }
    }

    /// Where its chunks are, and those of the UMEM that no socket has.
    #[must_use]
    pub fn census(&self, pool: &Pool) -> Census {
        // The later station is read first: a chunk that moves meanwhile is missed there instead of counted twice. The kernel may
        // publish it there before it removes it from the earlier ring, hence the minimum.
        let rx_side = pool.count(ChunkOwner::rx(self.member));
        let tx_side = pool.count(ChunkOwner::tx(self.member));
        let rx = self.rings.rx.pending().min(rx_side);
        let fill = self.rings.fill.pending().min(rx_side - rx);
        let completion = self.rings.completion.pending().min(tx_side);
        let tx = self.rings.tx.pending().min(tx_side - completion);
        Census {
            fill,
            kernel_rx: rx_side - rx - fill,
            rx,
            worker: pool.count(ChunkOwner::WORKER),
            tx,
            kernel_tx: tx_side - completion - tx,
            completion,
            free: pool.count(ChunkOwner::FREE) + pool.count(ChunkOwner::SPARE),
        }
    }

    /// Frames and calls counted since the socket was opened.
    #[must_use]
    pub fn counters(&self) -> SocketCounters {
        self.counters
    }

    /// The kernel's counters.
    ///
    /// # Errors
    /// getsockopt(2) failed.
    pub fn statistics(&self) -> nix::Result<Statistics> {
        sys::statistics(self.fd.as_fd())
    }

    /// Wakes the kernel's transmit side. In copy mode one call sends 32 frames (unless the budget option holds) and then returns
    /// EAGAIN, as it does when it cannot send: so it is repeated as long as the ring moves. Every turn takes at least one of its
    /// entries.
    fn kick(&mut self) -> Kick {
        let mut pending = self.rings.tx.pending();
        if pending == 0 {
            return Kick::Idle;
        }
        if !self.rings.tx.needs_wakeup() {
            return Kick::Done;
        }
        let turns = pending;
        for _ in 0..turns {
            self.counters.kicks += 1;
            let Err(errno) = sys::wake_tx(self.fd.as_fd()) else {
                return Kick::Done;
            };
            let kick = Kick::from_errno(errno);
            let left = self.rings.tx.pending();
            if kick != Kick::Again || left == pending {
                return kick;
            }
            if left == 0 {
                return Kick::Done;
            }
            pending = left;
        }
        Kick::Again
    }

    /// Reclaims sent chunks.
    fn reap(&mut self, pool: &mut Pool) {
        let completed = self.rings.completion.available(u32::MAX);
        for _ in 0..completed {
            let Some(address) = self.rings.completion.pop() else {
                break;
            };
            if pool.completed(self.member, address) {
                self.counters.completed += 1;
            } else {
                self.counters.stray += 1;
            }
        }
        self.rings.completion.release();
    }

    /// A zero-copy driver that ran out of buffers sleeps until it is woken for new ones. Copy mode never needs it.
    fn wake_rx(&mut self) {
        if self.mode == CopyMode::ZeroCopy && self.rings.fill.needs_wakeup() {
            sys::wake_rx(self.fd.as_fd());
        }
    }
}

impl AsFd for Xsk {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Xsk {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}
