//! The default backend: our own socket over libc, UMEM in a static.

use super::error::{Kick, SetupError, SetupStep};
use super::setup::{self, Rings};
use super::slot::UmemSlot;
use super::stats::{Census, SocketCounters, Statistics};
use super::umem::{ChunkOwner, Frame, Umem};
use super::{Batch, CopyMode, Options, sys};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use xdnsd_core::limits::{BATCH, TX_RING};

/// An AF_XDP socket bound to one RX queue, with its UMEM and its four rings. One thread uses it.
pub struct Xsk {
    // Fields drop in this order: mappings, then the socket, which takes the UMEM from the kernel, then the slot.
    // In zero copy the kernel detaches the pool from the driver after close has returned: the slot is lent until then
    // (`UmemSlot::is_for`).
    rings: Rings,
    fd: OwnedFd,
    umem: Umem,
    mode: CopyMode,
    counters: SocketCounters,
}

impl Xsk {
    /// Opens a socket on a queue. Nothing is allocated afterwards.
    ///
    /// Frames arrive once an XDP program redirects to the descriptor through an XSKMAP.
    ///
    /// # Errors
    /// Names the system call that failed. The slot is free again.
    pub fn open(options: &Options<'_>, slot: UmemSlot) -> Result<Self, SetupError> {
        let (rings, fd, umem) = setup::open(options, slot)?;
        let mode = sys::mode(fd.as_fd()).map_err(|errno| SetupError {
            interface: options.interface.to_owned(),
            queue: options.queue,
            step: SetupStep::Options,
            errno,
        })?;
        Ok(Self {
            rings,
            fd,
            umem,
            mode,
            counters: SocketCounters::default(),
        })
    }

    /// Copy or zero copy: what the kernel gave us.
    #[must_use]
    pub fn mode(&self) -> CopyMode {
        self.mode
    }

    /// Takes received frames until the batch is full or none is left; says how many it took.
    pub fn receive(&mut self, batch: &mut Batch) -> usize {
        let room = (BATCH - batch.len()) as u32;
        let before = batch.len();
        for _ in 0..self.rings.rx.available(room).min(room) {
            let Some(descriptor) = self.rings.rx.pop() else {
                break;
            };
            match self.umem.received(descriptor) {
                Some(frame) => batch.push(frame).expect("room was counted"),
                None => self.counters.stray += 1,
            }
        }
        self.rings.rx.release();
        let received = batch.len() - before;
        self.counters.received += received as u64;
        received
    }

    /// A frame for a reply that is not made in its query's own frame. `None`: all of them are on their way.
    #[must_use]
    pub fn take_free(&mut self) -> Option<Frame> {
        self.umem.take_free()
    }

    /// Puts the first `len` bytes of the frame into the TX ring; they leave at the next [`Self::flush`].
    ///
    /// # Errors
    /// Gives the frame back: the TX ring is full, or `len` is more than the frame holds.
    pub fn transmit(&mut self, frame: Frame, len: usize) -> Result<(), Frame> {
        if self.rings.tx.free(1) == 0 {
            self.counters.tx_full += 1;
            return Err(frame);
        }
        let pushed = self.rings.tx.push(self.umem.transmit(frame, len)?);
        debug_assert!(pushed, "the TX ring had room");
        self.counters.transmitted += 1;
        Ok(())
    }

    /// Gives a frame back unsent.
    pub fn release(&mut self, frame: Frame) {
        self.umem.release(frame);
    }

    /// Ends a batch: sends what was transmitted, takes back what was sent, refills the fill ring.
    pub fn flush(&mut self) -> Kick {
        self.rings.tx.submit();
        let kick = self.kick();
        self.counters.again += u64::from(kick == Kick::Again);
        self.counters.dropped += u64::from(self.umem.recover_dropped());
        self.reap();
        setup::fill(&mut self.rings.fill, &mut self.umem);
        self.wake_rx();
        debug_assert!(self.census().holds(), "{:?}", self.census());
        kick
    }

    /// Asks the kernel how the interface is, sending what may wait in the TX ring. A deleted interface makes no event
    /// on the descriptor, so a worker that only receives calls this on its timer.
    pub fn probe(&mut self) -> Kick {
        match sys::wake_tx(self.fd.as_fd()) {
            Ok(()) if self.rings.tx.pending() == 0 => Kick::Done,
            Ok(()) => Kick::Again,
            Err(errno) => Kick::from_errno(errno),
        }
    }

    /// Where the chunks are.
    #[must_use]
    pub fn census(&self) -> Census {
        // The station further down the road is read first: a chunk that moves meanwhile is missed there, not counted
        // twice. The kernel may publish it there before it takes it from the ring before, hence the minimum.
        let (rx_side, tx_side) = (
            self.umem.count(ChunkOwner::Rx),
            self.umem.count(ChunkOwner::Tx),
        );
        let rx = self.rings.rx.pending().min(rx_side);
        let fill = self.rings.fill.pending().min(rx_side - rx);
        let completion = self.rings.completion.pending().min(tx_side);
        let tx = self.rings.tx.pending().min(tx_side - completion);
        Census {
            fill,
            kernel_rx: rx_side - rx - fill,
            rx,
            worker: self.umem.count(ChunkOwner::Worker),
            tx,
            kernel_tx: tx_side - completion - tx,
            completion,
            free: self.umem.count(ChunkOwner::Free),
        }
    }

    /// What passed through the socket.
    #[must_use]
    pub fn counters(&self) -> SocketCounters {
        self.counters
    }

    /// The kernel's counters.
    ///
    /// # Errors
    /// What getsockopt says.
    pub fn statistics(&self) -> nix::Result<Statistics> {
        sys::statistics(self.fd.as_fd())
    }

    /// In copy mode one call sends 32 frames (unless the budget option holds) and then says EAGAIN, as it does when it
    /// cannot send: so go on as long as the ring moves. Every turn takes at least one of its entries.
    fn kick(&mut self) -> Kick {
        let mut pending = self.rings.tx.pending();
        if pending == 0 {
            return Kick::Idle;
        }
        if !self.rings.tx.needs_wakeup() {
            return Kick::Done;
        }
        for _ in 0..TX_RING {
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

    /// Takes sent chunks back.
    fn reap(&mut self) {
        let completed = self.rings.completion.available(TX_RING as u32);
        for _ in 0..completed {
            let Some(address) = self.rings.completion.pop() else {
                break;
            };
            if self.umem.completed(address) {
                self.counters.completed += 1;
            } else {
                self.counters.stray += 1;
            }
        }
        self.rings.completion.release();
    }

    /// A zero-copy driver that ran out of buffers sleeps until it is told of new ones. Copy mode never asks for it.
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
