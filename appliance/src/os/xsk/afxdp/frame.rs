//! The token of a chunk, around the crate's own buffer.

use super::Buffer;
use crate::os::xsk::slot::HEADROOM;
use afxdp::buf::Buf;
use core::mem::ManuallyDrop;
use core::sync::atomic::{AtomicU32, Ordering};
use heapless::Vec;
use std::sync::{Mutex, PoisonError};
use xdnsd_core::limits::{CHUNK_SIZE, CHUNKS_PER_QUEUE, WORKERS};

/// A received or fresh frame: the worker's token of its chunk.
///
/// It is consumed by `transmit` or `release` of the socket that it came from. Dropping it panics in debug builds; in release
/// builds the drop is counted, and the socket reclaims the chunk at the next flush.
#[must_use = "a frame ends in transmit or release"]
#[derive(Debug)]
pub struct Frame {
    buffer: ManuallyDrop<Buffer>,
    slot: u32,
}

#[expect(
    clippy::len_without_is_empty,
    reason = "a frame that was received is never empty"
)]
impl Frame {
    /// Makes the token of a buffer of slot `slot`.
    pub(super) fn new(buffer: Buffer, slot: usize) -> Self {
        Self {
            buffer: ManuallyDrop::new(buffer),
            slot: slot as u32,
        }
    }

    /// Consumes the token.
    pub(super) fn into_buffer(self, slot: usize) -> Buffer {
        assert_eq!(
            self.slot as usize, slot,
            "a frame returns to the socket that it came from"
        );
        let mut frame = ManuallyDrop::new(self);
        // SAFETY: the buffer is taken once: the frame around it is neither used again nor dropped.
        unsafe { ManuallyDrop::take(&mut frame.buffer) }
    }

    /// The received bytes; empty for a fresh frame.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        let len = self.len().min(self.capacity());
        &self.buffer.get_data()[..len]
    }

    /// All bytes from the start of the frame to the end of its chunk: room for a reply longer than the query.
    #[must_use]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let capacity = self.capacity();
        &mut self.buffer.get_data_mut()[..capacity]
    }

    /// Length of the received bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.buffer.get_len())
    }

    /// Bytes from the frame's start to the end of its chunk. The crate always makes the slice as long as a chunk after its
    /// headroom, so one that starts later runs into the next chunk. Chunks are aligned to their size: the address says where this
    /// one ends.
    fn capacity(&self) -> usize {
        let offset = self.buffer.get_data().as_ptr() as usize % CHUNK_SIZE;
        (CHUNK_SIZE - offset).min(CHUNK_SIZE - HEADROOM)
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        // SAFETY: drop runs once, and the buffer is not used after it.
        let buffer = unsafe { ManuallyDrop::take(&mut self.buffer) };
        DROPPED[self.slot as usize].add(buffer);
        if cfg!(debug_assertions) && !std::thread::panicking() {
            panic!(
                "frame of slot {} dropped: transmit or release it",
                self.slot
            );
        }
    }
}

/// Buffers of dropped frames, until their socket reclaims them. Room for all there are.
pub(super) struct Dropped {
    count: AtomicU32,
    buffers: Mutex<Vec<Buffer, CHUNKS_PER_QUEUE>>,
}

pub(super) static DROPPED: [Dropped; WORKERS] = [const { Dropped::new() }; WORKERS];

impl Dropped {
    const fn new() -> Self {
        Self {
            count: AtomicU32::new(0),
            buffers: Mutex::new(Vec::new()),
        }
    }

    fn add(&self, buffer: Buffer) {
        let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        let pushed = buffers.push(buffer);
        debug_assert!(pushed.is_ok(), "a slot has no more chunks than this");
        self.count.fetch_add(1, Ordering::Release);
    }

    /// Passes every waiting buffer to `take_back`; returns their number.
    pub(super) fn recover(&self, mut take_back: impl FnMut(Buffer)) -> u32 {
        if self.count.swap(0, Ordering::Acquire) == 0 {
            return 0;
        }
        let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut recovered = 0;
        while let Some(buffer) = buffers.pop() {
            take_back(buffer);
            recovered += 1;
        }
        recovered
    }
}
