//! The UMEM: a static block of packet memory, cut into chunks, and the tokens that say who may touch a chunk.
//!
//! ```text
//!  UMEM   | slot 0                         | slot 1      | ...          one slot per socket, claimed once at a time
//!  slot   | chunk 0 | chunk 1 | ...                      |              RX chunks, then TX chunks
//!  chunk  | headroom 256 | Ethernet frame ...      room  |              offset .. CHUNK_SIZE
//! ```
//!
//! A chunk is in exactly one place: fill ring, kernel, RX ring (all three: [`ChunkOwner::Rx`]), worker, TX ring, kernel,
//! completion ring (all three: [`ChunkOwner::Tx`]), or free. The worker's claim is a [`Frame`], which is neither `Clone` nor
//! `Copy`: who holds it is the only one who can reach the bytes. RX chunks always return to the fill ring and TX
//! chunks to the reserve for replies made later, so neither use can starve the other.

use super::ring::Descriptor;
use super::slot::{HEADROOM, RX_CHUNKS, UmemSlot};
use core::cell::UnsafeCell;
use core::mem;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use heapless::Vec;
use xdnsd_core::limits::{CHUNK_SIZE, CHUNKS_PER_QUEUE, TX_CHUNKS, WORKERS};

/// Bytes of one slot.
pub const SLOT_SIZE: usize = CHUNK_SIZE * CHUNKS_PER_QUEUE;
const DROPPED_WORDS: usize = CHUNKS_PER_QUEUE.div_ceil(64);

const _: () = assert!(
    WORKERS * CHUNKS_PER_QUEUE <= u32::MAX as usize && CHUNKS_PER_QUEUE <= u16::MAX as usize
);

/// Page-aligned, because the kernel pins pages; all zero, so it lies in .bss and costs no bytes of the file.
#[repr(C, align(4096))]
struct Memory(UnsafeCell<[[u8; SLOT_SIZE]; WORKERS]>);

// SAFETY: the bytes are reached only through a `Frame`, and the ledger of the one socket that claimed the slot makes at
// most one `Frame` per chunk at a time.
unsafe impl Sync for Memory {}

static UMEM: Memory = Memory(UnsafeCell::new([[0; SLOT_SIZE]; WORKERS]));
static DROPPED: [Dropped; WORKERS] = [const { Dropped::new() }; WORKERS];

/// First byte of a slot, for the kernel.
pub fn address_of(slot: &UmemSlot) -> *mut u8 {
    UMEM.0
        .get()
        .cast::<u8>()
        .wrapping_add(slot.index() * SLOT_SIZE)
}

/// A frame in the worker's hands: the token of its chunk.
///
/// It ends in `transmit` or `release` of the socket that it came from. One that is merely dropped panics in debug
/// builds; in release builds it is counted, and the socket takes the chunk back at the next flush.
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
    /// The received bytes; of a fresh frame none.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        let (start, _) = self.span();
        // SAFETY: `span` lies in UMEM, `len` is at most its length (invariant of the fields), and every byte of a
        // static is initialised. We hold the chunk's only token, borrowed shared: nobody writes, the kernel neither,
        // because a chunk with a token is in none of the kernel's rings.
        unsafe { core::slice::from_raw_parts(start, usize::from(self.len)) }
    }

    /// All bytes from the start of the frame to the end of its chunk: room for a reply longer than the query.
    #[must_use]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let (start, capacity) = self.span();
        // SAFETY: `span` lies in UMEM, whose bytes are a static's and so are initialised. The token is unique and borrowed exclusively for as
        // long as the slice lives, so there is no other reference, and the kernel does not have the chunk.
        unsafe { core::slice::from_raw_parts_mut(start, capacity) }
    }

    /// Received bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// First byte and the bytes from there to the chunk's end.
    fn span(&self) -> (*mut u8, usize) {
        let offset = usize::from(self.offset);
        let start = UMEM
            .0
            .get()
            .cast::<u8>()
            .wrapping_add(self.chunk as usize * CHUNK_SIZE + offset);
        (start, CHUNK_SIZE - offset)
    }

    fn slot(&self) -> usize {
        self.chunk as usize / CHUNKS_PER_QUEUE
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

/// Frames of one slot that were dropped by mistake and wait to be taken back.
struct Dropped {
    count: AtomicU32,
    chunks: [AtomicU64; DROPPED_WORDS],
}

impl Dropped {
    const fn new() -> Self {
        Self {
            count: AtomicU32::new(0),
            chunks: [const { AtomicU64::new(0) }; DROPPED_WORDS],
        }
    }

    fn add(&self, index: u16) {
        self.chunks[usize::from(index / 64)].fetch_or(1 << (index % 64), Ordering::Release);
        self.count.fetch_add(1, Ordering::Release);
    }
}

/// Who has a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkOwner {
    /// Nobody: it can be taken for a reply.
    Free,
    /// Fill ring, the kernel, or RX ring.
    Rx,
    /// The worker, as a [`Frame`].
    Worker,
    /// TX ring, the kernel, or completion ring.
    Tx,
}

/// The ledger of one claimed slot: makes tokens, takes them back, knows every chunk's owner.
///
/// Invariant: a `Frame` of a chunk exists only while its owner is [`ChunkOwner::Worker`].
pub struct Umem {
    slot: UmemSlot,
    owner: [ChunkOwner; CHUNKS_PER_QUEUE],
    count: [u16; 4],
    rx_free: Vec<u16, RX_CHUNKS>,
    tx_free: Vec<u16, TX_CHUNKS>,
}

impl Umem {
    /// All chunks free.
    pub fn new(slot: UmemSlot) -> Self {
        let mut umem = Self {
            slot,
            owner: [ChunkOwner::Free; CHUNKS_PER_QUEUE],
            count: [CHUNKS_PER_QUEUE as u16, 0, 0, 0],
            rx_free: Vec::new(),
            tx_free: Vec::new(),
        };
        for index in (0..CHUNKS_PER_QUEUE as u16).rev() {
            umem.put_free(index);
        }
        umem
    }

    /// The claimed slot.
    pub fn slot(&self) -> &UmemSlot {
        &self.slot
    }

    /// Chunks that `owner` has.
    pub fn count(&self, owner: ChunkOwner) -> u32 {
        u32::from(self.count[owner as usize])
    }

    /// RX chunks that wait for room in the fill ring.
    pub fn refillable(&self) -> u32 {
        self.rx_free.len() as u32
    }

    /// The next address for the fill ring.
    pub fn refill(&mut self) -> Option<u64> {
        let index = self.rx_free.pop()?;
        self.set(index, ChunkOwner::Rx);
        Some(u64::from(index) * CHUNK_SIZE as u64)
    }

    /// The token for a descriptor of the RX ring. `None`: the kernel never had that chunk for receiving, or the frame
    /// leaves it; in the second case the chunk is free again.
    pub fn received(&mut self, descriptor: Descriptor) -> Option<Frame> {
        let index = self.index_of(descriptor.address, ChunkOwner::Rx)?;
        let offset = descriptor.address as usize % CHUNK_SIZE;
        if descriptor.len as usize > CHUNK_SIZE - offset {
            self.set(index, ChunkOwner::Free);
            self.put_free(index);
            return None;
        }
        Some(self.frame(index, offset, descriptor.len as usize))
    }

    /// A frame from the reserve for replies that are not made in the query's own frame. `None`: all are in use.
    pub fn take_free(&mut self) -> Option<Frame> {
        let index = self.tx_free.pop()?;
        Some(self.frame(index, HEADROOM, 0))
    }

    /// Turns a token into the descriptor of its first `len` bytes. `Err`: that is more than the chunk holds.
    pub fn transmit(&mut self, frame: Frame, len: usize) -> Result<Descriptor, Frame> {
        let offset = usize::from(frame.offset);
        if len > CHUNK_SIZE - offset {
            return Err(frame);
        }
        let index = self.take_back(frame, ChunkOwner::Tx);
        let address = u64::from(index) * CHUNK_SIZE as u64 + offset as u64;
        Ok(Descriptor {
            address,
            len: len as u32,
        })
    }

    /// Frees the chunk of an entry of the completion ring. False: the kernel never had it for sending.
    #[must_use]
    pub fn completed(&mut self, address: u64) -> bool {
        let Some(index) = self.index_of(address, ChunkOwner::Tx) else {
            return false;
        };
        self.set(index, ChunkOwner::Free);
        self.put_free(index);
        true
    }

    /// Frees the frame's chunk.
    pub fn release(&mut self, frame: Frame) {
        let index = self.take_back(frame, ChunkOwner::Free);
        self.put_free(index);
    }

    /// Frees the chunks of frames that were dropped by mistake; says how many.
    pub fn recover_dropped(&mut self) -> u32 {
        let dropped = &DROPPED[self.slot.index()];
        if dropped.count.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        dropped.count.store(0, Ordering::Relaxed);
        let mut recovered = 0;
        for (word, chunks) in dropped.chunks.iter().enumerate() {
            // Acquire pairs with the release in `add`: the dropped frame's last use of the bytes is over.
            let mut bits = chunks.swap(0, Ordering::Acquire);
            while bits != 0 {
                let index = (word * 64) as u16 + bits.trailing_zeros() as u16;
                bits &= bits - 1;
                self.set(index, ChunkOwner::Free);
                self.put_free(index);
                recovered += 1;
            }
        }
        recovered
    }

    /// Makes the chunk's token. The caller has just taken the chunk from the kernel or from a free list.
    fn frame(&mut self, index: u16, offset: usize, len: usize) -> Frame {
        debug_assert!(offset + len <= CHUNK_SIZE);
        self.set(index, ChunkOwner::Worker);
        let chunk = (self.slot.index() * CHUNKS_PER_QUEUE) as u32 + u32::from(index);
        Frame {
            chunk,
            offset: offset as u16,
            len: len as u16,
        }
    }

    /// Ends a token.
    fn take_back(&mut self, frame: Frame, to: ChunkOwner) -> u16 {
        // Holds in release builds too: another socket's chunk number names a chunk of ours that somebody else may hold.
        assert_eq!(
            frame.slot(),
            self.slot.index(),
            "a frame returns to the socket that it came from"
        );
        let index = frame.index();
        mem::forget(frame);
        self.set(index, to);
        index
    }

    /// The chunk that holds `address`, if `owner` has it: what the kernel names is checked before it is believed.
    fn index_of(&self, address: u64, owner: ChunkOwner) -> Option<u16> {
        let index = usize::try_from(address / CHUNK_SIZE as u64).ok()?;
        (*self.owner.get(index)? == owner).then_some(index as u16)
    }

    fn set(&mut self, index: u16, owner: ChunkOwner) {
        let old = mem::replace(&mut self.owner[usize::from(index)], owner);
        self.count[old as usize] -= 1;
        self.count[owner as usize] += 1;
    }

    fn put_free(&mut self, index: u16) {
        let pushed = if usize::from(index) < RX_CHUNKS {
            self.rx_free.push(index)
        } else {
            self.tx_free.push(index)
        };
        debug_assert!(pushed.is_ok(), "chunk {index} was free already");
    }
}

impl Drop for Umem {
    fn drop(&mut self) {
        self.recover_dropped();
        // A frame that is still out reaches its bytes without asking us. The next owner of the slot would make a second
        // token for the same chunk, so there must be no next owner.
        if self.count(ChunkOwner::Worker) != 0 {
            self.slot.retire();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// Slots are shared by the whole process, so tests take turns.
    static TURN: Mutex<()> = Mutex::new(());

    fn with_umem(test: impl FnOnce(&mut Umem)) {
        let _turn = TURN
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut umem = Umem::new(UmemSlot::claim(0).expect("slot 0 is free"));
        test(&mut umem);
        let total: u32 = [
            ChunkOwner::Free,
            ChunkOwner::Rx,
            ChunkOwner::Worker,
            ChunkOwner::Tx,
        ]
        .map(|owner| umem.count(owner))
        .iter()
        .sum();
        assert_eq!(total as usize, CHUNKS_PER_QUEUE);
    }

    fn descriptor(address: u64, len: u32) -> Descriptor {
        Descriptor {
            address: address + HEADROOM as u64,
            len,
        }
    }

    #[test]
    fn a_slot_has_one_owner_at_a_time() {
        let _turn = TURN
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let slot = UmemSlot::claim(1).expect("slot 1 is free");
        assert!(UmemSlot::claim(1).is_none());
        drop(slot);
        assert!(UmemSlot::claim(1).is_some());
        assert!(UmemSlot::claim(WORKERS).is_none(), "there is no such slot");
    }

    #[test]
    fn slots_are_page_aligned_and_do_not_overlap() {
        let _turn = TURN
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let slots: std::vec::Vec<_> = (0..WORKERS).filter_map(UmemSlot::claim).collect();
        assert_eq!(slots.len(), WORKERS);
        for (index, slot) in slots.iter().enumerate() {
            assert_eq!(address_of(slot) as usize % 4096, 0);
            assert_eq!(
                address_of(slot) as usize,
                address_of(&slots[0]) as usize + index * SLOT_SIZE
            );
        }
    }

    #[test]
    fn a_chunk_goes_round_in_place() {
        with_umem(|umem| {
            let address = umem.refill().expect("all chunks are free");
            let mut frame = umem
                .received(descriptor(address, 60))
                .expect("the kernel had it");
            assert_eq!(
                (frame.len(), frame.bytes_mut().len()),
                (60, CHUNK_SIZE - HEADROOM)
            );
            frame.bytes_mut().fill(0x5a);
            assert_eq!(frame.data(), [0x5a; 60]);
            let sent = umem.transmit(frame, 1000).expect("it fits");
            assert_eq!(sent, descriptor(address, 1000));
            assert!(umem.completed(sent.address));
            assert_eq!(umem.count(ChunkOwner::Free) as usize, CHUNKS_PER_QUEUE);
            assert_eq!(
                umem.refillable() as usize,
                RX_CHUNKS,
                "an RX chunk returns to the RX side"
            );
        });
    }

    #[test]
    fn neither_side_can_starve_the_other() {
        with_umem(|umem| {
            let mut late = std::vec::Vec::new();
            while let Some(frame) = umem.take_free() {
                late.push(frame);
            }
            assert_eq!(late.len(), TX_CHUNKS);
            assert_eq!(umem.refillable() as usize, RX_CHUNKS);
            let mut filled = 0;
            while umem.refill().is_some() {
                filled += 1;
            }
            assert_eq!(filled, RX_CHUNKS);
            late.drain(..).for_each(|frame| umem.release(frame));
            assert!(
                umem.refill().is_none(),
                "a TX chunk does not return to the RX side"
            );
            assert_eq!(umem.tx_free.len(), TX_CHUNKS, "but to the reserve");
        });
    }

    #[test]
    fn what_the_kernel_names_is_checked() {
        with_umem(|umem| {
            let address = umem.refill().expect("all chunks are free");
            assert!(
                umem.received(descriptor(address + CHUNK_SIZE as u64, 60))
                    .is_none(),
                "not given to the kernel"
            );
            assert!(
                umem.received(descriptor(u64::MAX / 2, 60)).is_none(),
                "no such chunk"
            );
            assert!(
                !umem.completed(address),
                "given for receiving, not for sending"
            );
            let room = (CHUNK_SIZE - HEADROOM) as u32;
            assert!(
                umem.received(descriptor(address, room + 1)).is_none(),
                "leaves the chunk"
            );
            assert_eq!(
                umem.count(ChunkOwner::Free) as usize,
                CHUNKS_PER_QUEUE,
                "and the chunk is not lost"
            );
            let address = umem.refill().expect("a chunk is free");
            let frame = umem
                .received(descriptor(address, room))
                .expect("it fits exactly");
            assert!(
                umem.received(descriptor(address, 60)).is_none(),
                "never two tokens for one chunk"
            );
            umem.release(frame);
        });
    }

    #[test]
    fn a_reply_longer_than_the_chunk_comes_back() {
        with_umem(|umem| {
            let frame = umem.take_free().expect("the reserve is full");
            let frame = umem
                .transmit(frame, CHUNK_SIZE - HEADROOM + 1)
                .expect_err("one byte too many");
            let sent = umem
                .transmit(frame, CHUNK_SIZE - HEADROOM)
                .expect("to the last byte");
            assert!(umem.completed(sent.address));
        });
    }

    #[test]
    fn a_dropped_frame_is_seen_and_its_chunk_recovered() {
        with_umem(|umem| {
            let frame = umem.take_free().expect("the reserve is full");
            let dropped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(frame)));
            assert_eq!(
                dropped.is_err(),
                cfg!(debug_assertions),
                "debug builds panic"
            );
            assert_eq!(umem.count(ChunkOwner::Worker), 1);
            assert_eq!((umem.recover_dropped(), umem.recover_dropped()), (1, 0));
            assert_eq!(umem.count(ChunkOwner::Free) as usize, CHUNKS_PER_QUEUE);
        });
    }

    #[test]
    #[should_panic(expected = "the socket that it came from")]
    fn a_frame_of_another_slot_is_refused() {
        let _turn = TURN
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut umem = Umem::new(UmemSlot::claim(2).expect("slot 2 is free"));
        let mut other = Umem::new(UmemSlot::claim(3).expect("slot 3 is free"));
        umem.release(other.take_free().expect("the reserve is full"));
    }
}
