//! The UMEM: a block of packet memory that is mapped once, cut into chunks, and the tokens that give access to a chunk.
//!
//! ```text
//!  UMEM   | slot 0                         | slot 1      | ...          one slot per worker, claimed once at a time
//!  slot   | chunk 0 | chunk 1 | ...                      |              RX chunks, then TX chunks
//!  chunk  | headroom 256 | Ethernet frame ...      room  |              offset .. CHUNK_SIZE
//! ```
//!
//! The worker's claim to a chunk is a [`Frame`], which is neither `Clone` nor `Copy`: only its holder can reach the bytes. The
//! pool (`pool/`) records where the other chunks are.

use super::slot::{self, ChunkSet, UmemSlot};
use crate::os::zeroed;
use core::mem;
use core::sync::atomic::{AtomicU32, Ordering};
use std::io;
use std::sync::OnceLock;
use xdnsd_core::limits::{CHUNK_SIZE, CHUNKS_PER_QUEUE, WORKERS};

/// Bytes of one slot.
pub const SLOT_SIZE: usize = CHUNK_SIZE * CHUNKS_PER_QUEUE;

const _: () = assert!(
    WORKERS * CHUNKS_PER_QUEUE <= u32::MAX as usize && CHUNKS_PER_QUEUE <= u16::MAX as usize
);

/// All slots. Page-aligned, because the kernel pins pages.
struct Memory(*mut u8);

// SAFETY: the bytes are reached only through a `Frame`, and the one pool of a claimed slot makes at most one `Frame` per chunk at
// a time.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

static UMEM: OnceLock<Memory> = OnceLock::new();
static DROPPED: [Dropped; WORKERS] = [const { Dropped::new() }; WORKERS];

/// Maps the memory of so many slots.
pub(super) fn map(slots: usize) -> io::Result<()> {
    let slots = zeroed::slice::<[u8; SLOT_SIZE]>(slots)?;
    let is_first = UMEM.set(Memory(slots.as_mut_ptr().cast())).is_ok();
    assert!(is_first, "the memory of all slots is mapped once");
    Ok(())
}

/// First byte of the first slot.
fn start() -> *mut u8 {
    let memory = UMEM.get_or_init(|| {
        let slots = zeroed::slice::<[u8; SLOT_SIZE]>(slot::count());
        Memory(slots.expect("memory for the slots").as_mut_ptr().cast())
    });
    memory.0
}

/// First byte of a slot, for the kernel.
pub fn address_of(slot: &UmemSlot) -> *mut u8 {
    start().wrapping_add(slot.index() * SLOT_SIZE)
}

/// A received or fresh frame: the worker's token of its chunk.
///
/// It is consumed by `transmit` or `release` of a socket of the same UMEM. Dropping it panics in debug builds; in release builds
/// the drop is counted, and its chunk is reclaimed at the next flush.
#[must_use = "a frame ends in transmit or release"]
#[derive(Debug)]
pub struct Frame {
    /// Index over all slots.
    chunk: u32,
    /// Invariant: at most `CHUNK_SIZE`.
    offset: u16,
    /// Invariant: `offset + len` is at most `CHUNK_SIZE`.
    len: u16,
}
const _: () = assert!(size_of::<Frame>() == 8);

#[expect(
    clippy::len_without_is_empty,
    reason = "a frame that was received is never empty"
)]
impl Frame {
    /// The received bytes; empty for a fresh frame.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        let (start, _) = self.span();
        // SAFETY: `span` lies in UMEM, `len` is at most its length (invariant of the fields), and every byte of mapped memory is
        // initialised. We hold the chunk's only token, borrowed shared: we do not write, and neither does the kernel, because a
        // chunk with a token is in none of the kernel's rings.
        unsafe { core::slice::from_raw_parts(start, usize::from(self.len)) }
    }

    /// All bytes from the start of the frame to the end of its chunk: room for a reply longer than the query.
    #[must_use]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let (start, capacity) = self.span();
        // SAFETY: `span` lies in UMEM, whose bytes are mapped memory and so are initialised. The token is unique and borrowed
        // exclusively for as long as the slice lives, so there is no other reference, and the kernel does not have the chunk.
        unsafe { core::slice::from_raw_parts_mut(start, capacity) }
    }

    /// Length of the received bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Pointer to the first byte, and the bytes from there to the chunk's end.
    fn span(&self) -> (*mut u8, usize) {
        let offset = usize::from(self.offset);
        let start = start().wrapping_add(self.chunk as usize * CHUNK_SIZE + offset);
        (start, CHUNK_SIZE - offset)
    }

    /// Makes the token of a chunk of `slot`. The caller guarantees that there is no other one.
    pub(super) fn new(slot: usize, index: u16, offset: usize, len: usize) -> Self {
        assert!(offset + len <= CHUNK_SIZE, "the frame lies in its chunk");
        Self {
            chunk: (slot * CHUNKS_PER_QUEUE) as u32 + u32::from(index),
            offset: offset as u16,
            len: len as u16,
        }
    }

    /// Consumes the token; returns the index of its chunk.
    pub(super) fn into_index(self) -> u16 {
        let index = self.index();
        mem::forget(self);
        index
    }

    /// Slot of its chunk.
    pub(super) fn slot(&self) -> usize {
        self.chunk as usize / CHUNKS_PER_QUEUE
    }

    /// Offset of the frame in its chunk.
    pub(super) fn offset(&self) -> usize {
        usize::from(self.offset)
    }

    fn index(&self) -> u16 {
        (self.chunk as usize % CHUNKS_PER_QUEUE) as u16
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        DROPPED[self.slot()].add(self.index());
        if cfg!(debug_assertions) && !std::thread::panicking() {
            panic!(
                "frame of chunk {} dropped: transmit or release it",
                self.chunk
            );
        }
    }
}

/// Frames of one slot that were dropped by mistake and wait to be reclaimed.
struct Dropped {
    count: AtomicU32,
    chunks: ChunkSet,
}

impl Dropped {
    const fn new() -> Self {
        Self {
            count: AtomicU32::new(0),
            chunks: ChunkSet::new(),
        }
    }

    fn add(&self, index: u16) {
        self.chunks.put(index);
        self.count.fetch_add(1, Ordering::Release);
    }
}

/// Takes the chunk of a frame of `slot` that was dropped by mistake.
pub fn take_dropped(slot: &UmemSlot) -> Option<u16> {
    let dropped = &DROPPED[slot.index()];
    if dropped.count.load(Ordering::Relaxed) == 0 {
        return None;
    }
    let taken = dropped.chunks.take();
    if taken.is_some() {
        dropped.count.fetch_sub(1, Ordering::Relaxed);
    }
    taken
}
