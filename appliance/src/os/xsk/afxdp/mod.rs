//! The other backend (`--features afxdp`): the same interface, through the crate of that name.
//!
//! The crate brings libbpf 0.3, which wants the XDP program attached first and its map named `xsks_map`: it puts the socket into
//! the map itself. The packet memory is the crate's own mapping, not a static. The crate aborts when it sends on a deleted
//! interface, so every send checks first; an interface deleted in between still aborts. The rings are hidden, so the census knows
//! the two sides, but not the stations. A UMEM has one socket, which tracks its chunks itself.

mod frame;
mod handles;
mod opener;

pub use frame::Frame;
pub use opener::{Closed, Opener, Pool};

/// Sockets that can share one UMEM.
pub const SHARERS_MAX: usize = 1;

use super::error::{Kick, SetupError, SetupStep};
use super::slot::{RX_CHUNKS, UmemSlot};
use super::stats::{Census, SocketCounters, Statistics};
use super::{Batch, CopyMode, Options, sys};
use afxdp::PENDING_LEN;
use afxdp::buf::Buf;
use afxdp::buf_mmap::BufMmap;
use arraydeque::{ArrayDeque, Wrapping};
use frame::DROPPED;
use handles::Handles;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use xdnsd_core::limits::{BATCH, CHUNK_SIZE, CHUNKS_PER_QUEUE, RX_RING, TX_CHUNKS, TX_RING};

/// A chunk, as the crate passes it around. Its bytes stay mapped as long as [`Handles`] lives, or for good if a frame outlives
/// it.
type Buffer = BufMmap<'static, ()>;
/// The crate's queue between its caller and its rings.
type Pending = ArrayDeque<[Buffer; PENDING_LEN], Wrapping>;

/// Frames that one wake-up sends without the budget option.
const KICK_BUDGET: usize = 32;
const _: () = assert!(CHUNKS_PER_QUEUE <= PENDING_LEN);

/// An AF_XDP socket bound to one RX queue, with its UMEM and its four rings. One thread uses it.
pub struct Xsk {
    mode: CopyMode,
    counters: SocketCounters,
    /// Received from the crate, on their way into a batch.
    received: Box<Pending>,
    /// Transmitted, on their way into the TX ring.
    transmitted: Box<Pending>,
    completed: Vec<Buffer>,
    rx_free: Vec<Buffer>,
    tx_free: Vec<Buffer>,
    /// Chunks in the fill ring, the kernel, or the RX ring.
    rx_side: usize,
    /// Chunks in the TX ring, the kernel, or the completion ring.
    tx_side: usize,
    worker: usize,
    // These drop last, in this order: first the socket and the memory of the buffers above, then the right to it.
    handles: Handles,
    slot: Arc<UmemSlot>,
}

impl Xsk {
    fn open(options: &Options<'_>, slot: Arc<UmemSlot>) -> Result<Self, SetupError> {
        let (handles, buffers) = Handles::open(options)?;
        let mode = sys::mode(handles.fd()).map_err(|errno| SetupError {
            interface: options.interface.to_owned(),
            queue: options.queue,
            step: SetupStep::Options,
            errno,
        })?;
        sys::tune(handles.fd(), TX_RING);
        let mut xsk = Self {
            mode,
            counters: SocketCounters::default(),
            received: handles::queue()?,
            transmitted: handles::queue()?,
            completed: Vec::with_capacity(TX_RING),
            rx_free: Vec::with_capacity(RX_CHUNKS),
            tx_free: Vec::with_capacity(TX_CHUNKS),
            rx_side: 0,
            tx_side: 0,
            worker: 0,
            handles,
            slot,
        };
        for buffer in buffers {
            xsk.put_free(buffer);
        }
        xsk.refill();
        Ok(xsk)
    }

    /// For the interface of the other backend: here the socket tracks its chunks itself.
    pub fn join(&mut self, pool: &mut Pool) {
        pool.join();
    }

    /// Copy mode that the kernel chose.
    #[must_use]
    pub fn mode(&self) -> CopyMode {
        self.mode
    }

    /// Receives frames until the batch is full or none is left; returns their number.
    pub fn receive(&mut self, _: &mut Pool, batch: &mut Batch) -> usize {
        let room = BATCH - batch.len();
        let received = self.handles.rx.try_recv(&mut self.received, room, ());
        debug_assert!(received.is_ok(), "the crate never says otherwise");
        let mut count = 0;
        while let Some(buffer) = self.received.pop_front() {
            batch
                .push(Frame::new(buffer, self.slot.index()))
                .expect("room was counted");
            count += 1;
        }
        self.rx_side -= count;
        self.worker += count;
        self.counters.received += count as u64;
        count
    }

    /// A frame for a reply that cannot use its query's own frame. `None` if all are in flight.
    #[must_use]
    pub fn take_free(&mut self, _: &mut Pool) -> Option<Frame> {
        let buffer = self.tx_free.pop()?;
        self.worker += 1;
        Some(Frame::new(buffer, self.slot.index()))
    }

    /// Puts the first `len` bytes of the frame into the TX ring; they are sent at the next [`Self::flush`].
    ///
    /// # Errors
    /// Returns the frame: the TX ring is full, or `len` exceeds the frame.
    pub fn transmit(&mut self, _: &mut Pool, mut frame: Frame, len: usize) -> Result<(), Frame> {
        if self.tx_side + self.transmitted.len() >= TX_RING {
            self.counters.tx_full += 1;
            return Err(frame);
        }
        if len > frame.bytes_mut().len() {
            return Err(frame);
        }
        let mut buffer = frame.into_buffer(self.slot.index());
        buffer.set_len(len as u16);
        let pushed_out = self.transmitted.push_back(buffer);
        debug_assert!(pushed_out.is_none(), "the queue holds every chunk there is");
        self.worker -= 1;
        self.counters.transmitted += 1;
        Ok(())
    }

    /// Gives a frame back unsent.
    pub fn release(&mut self, _: &mut Pool, frame: Frame) {
        let buffer = frame.into_buffer(self.slot.index());
        self.worker -= 1;
        self.put_free(buffer);
    }

    /// Ends a batch: sends transmitted frames, reclaims sent chunks, refills the fill ring.
    pub fn flush(&mut self, _: &mut Pool) -> Kick {
        let kick = self.send();
        self.counters.again += u64::from(kick == Kick::Again);
        self.recover_dropped();
        self.reap();
        self.refill();
        debug_assert!(self.chunks().holds(), "{:?}", self.chunks());
        kick
    }

    /// True if a flush would do anything.
    #[must_use]
    pub fn has_work(&self, _: &Pool) -> bool {
        true
    }

    /// Checks the interface by a wake-up, which sends frames in the TX ring. A deleted interface makes no event on the
    /// descriptor, so a worker that only receives calls this on its timer.
    pub fn probe(&mut self) -> Kick {
        match sys::wake_tx(self.handles.fd()) {
            Ok(()) => Kick::Done,
            Err(errno) => Kick::from_errno(errno),
        }
    }

    /// Where the chunks are, as far as is visible from outside the crate.
    #[must_use]
    pub fn census(&self, _: &Pool) -> Census {
        self.chunks()
    }

    fn chunks(&self) -> Census {
        Census {
            kernel_rx: self.rx_side as u32,
            worker: self.worker as u32,
            tx: self.transmitted.len() as u32,
            kernel_tx: self.tx_side as u32,
            free: (self.rx_free.len() + self.tx_free.len()) as u32,
            ..Census::default()
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
        sys::statistics(self.handles.fd())
    }

    /// Sends. The crate wakes the kernel once per call and panics if the interface is gone, so the interface is checked before.
    /// What one wake-up leaves in the TX ring is sent by wake-ups of our own.
    fn send(&mut self) -> Kick {
        let count = self.transmitted.len();
        if count == 0 && self.tx_side == 0 {
            return Kick::Idle;
        }
        self.counters.kicks += 1;
        let kick = self.probe();
        match kick {
            Kick::Down | Kick::Gone | Kick::Failed(_) => return kick,
            Kick::Idle | Kick::Done | Kick::Again => {}
        }
        if count == 0 {
            return kick;
        }
        self.counters.kicks += 1;
        let sent = self
            .handles
            .tx
            .try_send(&mut self.transmitted, count)
            .unwrap_or(0);
        self.tx_side += sent;
        if sent < count {
            return Kick::Again;
        }
        self.kick_rest(sent)
    }

    fn kick_rest(&mut self, sent: usize) -> Kick {
        let mut kick = Kick::Done;
        for _ in 0..sent / KICK_BUDGET {
            self.counters.kicks += 1;
            kick = self.probe();
            if kick != Kick::Again {
                break;
            }
        }
        kick
    }

    fn reap(&mut self) {
        let reaped = self
            .handles
            .completion
            .service(&mut self.completed, TX_RING);
        debug_assert!(reaped.is_ok(), "the crate never says otherwise");
        while let Some(buffer) = self.completed.pop() {
            self.tx_side -= 1;
            self.counters.completed += 1;
            self.put_free(buffer);
        }
    }

    /// Refills the fill ring. The crate fills all or nothing, so it is asked for no more than surely fits.
    fn refill(&mut self) {
        let count = self.rx_free.len().min(RX_RING - self.rx_side.min(RX_RING));
        self.rx_side += self
            .handles
            .fill
            .fill(&mut self.rx_free, count)
            .unwrap_or(0);
        if self.mode == CopyMode::ZeroCopy && self.handles.fill.needs_wakeup() {
            sys::wake_rx(self.handles.fd());
        }
    }

    fn recover_dropped(&mut self) {
        let (rx_free, tx_free, base) = (&mut self.rx_free, &mut self.tx_free, self.handles.base());
        let recovered = DROPPED[self.slot.index()].recover(|buffer| {
            if is_rx_chunk(&buffer, base) {
                rx_free.push(buffer);
            } else {
                tx_free.push(buffer);
            }
        });
        self.worker -= recovered as usize;
        self.counters.dropped += u64::from(recovered);
    }

    fn put_free(&mut self, buffer: Buffer) {
        if is_rx_chunk(&buffer, self.handles.base()) {
            self.rx_free.push(buffer);
        } else {
            self.tx_free.push(buffer);
        }
    }
}

/// True for a chunk that circulates between fill and RX ring.
fn is_rx_chunk(buffer: &Buffer, base: usize) -> bool {
    (buffer.get_data().as_ptr() as usize - base) / CHUNK_SIZE < RX_CHUNKS
}

impl Drop for Xsk {
    fn drop(&mut self) {
        self.recover_dropped();
        if self.worker != 0 {
            self.handles.leak_memory();
            self.slot.retire();
        }
    }
}

impl AsFd for Xsk {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handles.fd()
    }
}

impl AsRawFd for Xsk {
    fn as_raw_fd(&self) -> RawFd {
        self.handles.fd().as_raw_fd()
    }
}
