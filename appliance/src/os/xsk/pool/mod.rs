//! The chunk ledger of a slot: records the owner of each chunk. It belongs to the worker.
//!
//! ```text
//!            ┌──────────────► free ─────────────┐ fill ring of a socket
//!  released, │               ▲  ▲               ▼
//!  completed │      sockets  │  │ its socket   Rx(socket): fill ring, kernel, RX ring
//!            │      that are │  │ is closed     │ received
//!            │      not open ▼  │               ▼
//!            │             spare │            worker, as a `Frame`
//!            └─ Tx(socket): TX ring, kernel, completion ring ◄─┘ transmitted
//! ```
//! RX chunks always return to a fill ring and TX chunks to the reserve for replies made later, so neither use can starve the
//! other. Nor can a socket starve another: each has chunks of its own (`Shape::own`). Those of sockets that are not open are
//! spare: the `Opener`, on another thread, takes them to prime the fill ring of a new socket.
//!
//! Chunks that a closed socket had in the kernel return once the kernel has released them, which the opener reports ([`Closed`]).

use super::ring::Descriptor;
use super::shape::{SHARERS_MAX, Shape};
use super::slot::{ChunkSet, HEADROOM, RX_CHUNKS, UmemSlot};
use super::umem::{Frame, take_dropped};
use core::mem;
use heapless::Vec;
use std::sync::Arc;
use xdnsd_core::limits::{CHUNK_SIZE, CHUNKS_PER_QUEUE, TX_CHUNKS};

const _: () = assert!(CHUNKS_PER_QUEUE <= u16::MAX as usize);
const _: () = assert!(ChunkOwner::COUNT <= u8::MAX as usize);

/// State shared by the pool, the sockets of a slot, and their opener.
#[derive(Debug)]
pub struct SharedUmem {
    /// The right to the memory.
    pub slot: UmemSlot,
    /// Division of the slot: most sockets open at once, and the ring sizes of each.
    pub shape: Shape,
    /// RX chunks of sockets that are not open.
    pub spare: ChunkSet,
}

/// Owner of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkOwner(u8);

impl ChunkOwner {
    /// No owner: the chunk may be taken for a reply, or for a fill ring.
    pub const FREE: Self = Self(0);
    /// Reserved for a socket that is not open.
    pub const SPARE: Self = Self(1);
    /// The worker, as a [`Frame`].
    pub const WORKER: Self = Self(2);
    const COUNT: usize = 3 + 2 * SHARERS_MAX;

    /// Fill ring, the kernel, or RX ring of a socket.
    pub const fn rx(member: u8) -> Self {
        Self(3 + 2 * member)
    }

    /// TX ring, the kernel, or completion ring of a socket.
    pub const fn tx(member: u8) -> Self {
        Self(4 + 2 * member)
    }
}

/// Report by the opener that the kernel has released all chunks of a closed socket.
#[derive(Debug)]
#[must_use = "its chunks are lost until the ledger knows"]
pub struct Closed {
    pub(super) slot: usize,
    pub(super) member: u8,
}

/// The ledger of one claimed slot: makes tokens, takes them back, knows every chunk's owner.
///
/// Invariant: a `Frame` of a chunk exists only while its owner is [`ChunkOwner::WORKER`].
pub struct Pool {
    shared: Arc<SharedUmem>,
    /// True for each socket that the pool has adopted.
    members: [bool; SHARERS_MAX],
    /// Too few chunks are spare.
    is_short: bool,
    owner: [ChunkOwner; CHUNKS_PER_QUEUE],
    count: [u16; ChunkOwner::COUNT],
    rx_free: Vec<u16, RX_CHUNKS>,
    tx_free: Vec<u16, TX_CHUNKS>,
}

impl Pool {
    /// Without open sockets: all RX chunks are spare.
    pub fn new(shared: Arc<SharedUmem>) -> Self {
        let mut count = [0; ChunkOwner::COUNT];
        count[usize::from(ChunkOwner::FREE.0)] = CHUNKS_PER_QUEUE as u16;
        let mut pool = Self {
            shared,
            members: [false; SHARERS_MAX],
            is_short: false,
            owner: [ChunkOwner::FREE; CHUNKS_PER_QUEUE],
            count,
            rx_free: Vec::new(),
            tx_free: Vec::new(),
        };
        for index in (0..CHUNKS_PER_QUEUE as u16).rev() {
            if usize::from(index) < RX_CHUNKS {
                pool.set(index, ChunkOwner::SPARE);
                pool.shared.spare.put(index);
            } else {
                pool.put_free(index);
            }
        }
        pool
    }

    /// Index of its slot.
    pub fn slot(&self) -> usize {
        self.shared.slot.index()
    }

    /// True without adopted sockets.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.members.contains(&true)
    }

    /// Number of chunks that `owner` has.
    pub fn count(&self, owner: ChunkOwner) -> u32 {
        u32::from(self.count[usize::from(owner.0)])
    }

    /// Adopts a socket, whose fill ring was primed with these spare chunks.
    pub fn adopt(&mut self, member: u8, primed: &ChunkSet) {
        self.members[usize::from(member)] = true;
        while let Some(index) = primed.take() {
            debug_assert_eq!(self.owner[usize::from(index)], ChunkOwner::SPARE);
            self.set(index, ChunkOwner::rx(member));
        }
        self.balance();
    }

    /// Reclaims all chunks of a closed socket.
    pub fn reclaim(&mut self, closed: &Closed) {
        assert_eq!(closed.slot, self.slot(), "a socket of this UMEM");
        let Closed { member, .. } = *closed;
        for index in 0..CHUNKS_PER_QUEUE as u16 {
            let owner = self.owner[usize::from(index)];
            if owner == ChunkOwner::rx(member) || owner == ChunkOwner::tx(member) {
                self.free(index);
            }
        }
        self.members[usize::from(member)] = false;
        self.balance();
    }

    /// Keeps exactly as many spare chunks as the sockets that are not open are entitled to.
    fn balance(&mut self) {
        let open = self.members.iter().filter(|is_open| **is_open).count();
        let Shape { sharers, own, .. } = self.shared.shape;
        let wanted = (sharers - open) * own;
        let wanted = if open == 0 { RX_CHUNKS } else { wanted };
        let mut spare = self.shared.spare.len();
        while spare > wanted {
            let Some(index) = self.shared.spare.take() else {
                break;
            };
            self.free(index);
            spare -= 1;
        }
        while spare < wanted {
            let Some(index) = self.rx_free.pop() else {
                break;
            };
            self.set(index, ChunkOwner::SPARE);
            self.shared.spare.put(index);
            spare += 1;
        }
        self.is_short = spare < wanted && open > 0;
    }

    /// Chunks to add to a socket's fill ring now, after `arrived` frames since the last call.
    pub fn wanted(&self, member: u8, arrived: u32) -> u32 {
        let free = self.rx_free.len() as u32;
        let Shape {
            sharers, rx, own, ..
        } = self.shared.shape;
        if sharers == 1 {
            return free;
        }
        let (ring, own) = (rx as u32, own as u32);
        let has = self.count(ChunkOwner::rx(member));
        let least = own.saturating_sub(has);
        // Until the next call as many frames may arrive as before, and as many again while those are answered.
        let most = (own + 2 * arrived).min(ring).saturating_sub(has);
        if most <= least {
            return least.min(free);
        }
        let others = (0..sharers as u8).filter(|other| *other != member);
        let owed: u32 = others
            .map(|other| match self.members[usize::from(other)] {
                true => own.saturating_sub(self.count(ChunkOwner::rx(other))),
                false => 0,
            })
            .sum();
        least.min(free).max(most.min(free.saturating_sub(owed)))
    }

    /// Takes a free chunk for the fill ring of a socket; returns its address.
    pub fn refill(&mut self, member: u8) -> Option<u64> {
        let index = self.rx_free.pop()?;
        self.set(index, ChunkOwner::rx(member));
        Some(address_of(index))
    }

    /// The token for a descriptor of a socket's RX ring. `None` if the chunk was never given to the kernel for receiving there,
    /// or if the frame exceeds the chunk, which is then freed.
    pub fn received(&mut self, member: u8, descriptor: Descriptor) -> Option<Frame> {
        let index = self.index_of(descriptor.address, ChunkOwner::rx(member))?;
        let offset = descriptor.address as usize % CHUNK_SIZE;
        if descriptor.len as usize > CHUNK_SIZE - offset {
            self.free(index);
            return None;
        }
        Some(self.frame(index, offset, descriptor.len as usize))
    }

    /// A frame from the reserve for replies that cannot use the query's own frame. `None` if all are in use.
    pub fn take_free(&mut self) -> Option<Frame> {
        let index = self.tx_free.pop()?;
        Some(self.frame(index, HEADROOM, 0))
    }

    /// Turns a token into the descriptor of its first `len` bytes, to be sent by a socket. Returns the frame if `len` exceeds the
    /// chunk.
    pub fn transmit(&mut self, member: u8, frame: Frame, len: usize) -> Result<Descriptor, Frame> {
        let offset = frame.offset();
        if len > CHUNK_SIZE - offset {
            return Err(frame);
        }
        let index = self.take_back(frame, ChunkOwner::tx(member));
        Ok(Descriptor {
            address: address_of(index) + offset as u64,
            len: len as u32,
        })
    }

    /// Frees the chunk of an entry of a socket's completion ring. False if it was never given to the kernel for sending there.
    #[must_use]
    pub fn completed(&mut self, member: u8, address: u64) -> bool {
        let Some(index) = self.index_of(address, ChunkOwner::tx(member)) else {
            return false;
        };
        self.free(index);
        true
    }

    /// Frees the frame's chunk.
    pub fn release(&mut self, frame: Frame) {
        let index = self.take_back(frame, ChunkOwner::FREE);
        self.put_free(index);
    }

    /// Frees the chunks of frames that were dropped by mistake, and completes the spare chunks; returns the number dropped.
    pub fn recover(&mut self) -> u32 {
        let mut recovered = 0;
        while let Some(index) = take_dropped(&self.shared.slot) {
            self.free(index);
            recovered += 1;
        }
        if self.is_short {
            self.balance();
        }
        recovered
    }

    /// True if no chunk is missing and none is listed twice.
    #[must_use]
    pub fn holds(&self) -> bool {
        let total: usize = self.count.iter().map(|count| usize::from(*count)).sum();
        let free = self.rx_free.len() + self.tx_free.len();
        total == CHUNKS_PER_QUEUE && self.count(ChunkOwner::FREE) as usize == free
    }

    /// Makes the chunk's token. The caller has just taken the chunk from the kernel or from a free list.
    fn frame(&mut self, index: u16, offset: usize, len: usize) -> Frame {
        self.set(index, ChunkOwner::WORKER);
        Frame::new(self.slot(), index, offset, len)
    }

    /// Consumes a token, and gives its chunk to `to`.
    fn take_back(&mut self, frame: Frame, to: ChunkOwner) -> u16 {
        // Checked in release builds too: another slot's index names a chunk of ours that may have another owner.
        assert_eq!(
            frame.slot(),
            self.slot(),
            "a frame returns to the UMEM that it came from"
        );
        let index = frame.into_index();
        self.set(index, to);
        index
    }

    /// Index of the chunk that contains `address`, if `owner` has it: addresses from the kernel are checked.
    fn index_of(&self, address: u64, owner: ChunkOwner) -> Option<u16> {
        let index = usize::try_from(address / CHUNK_SIZE as u64).ok()?;
        (*self.owner.get(index)? == owner).then_some(index as u16)
    }

    fn set(&mut self, index: u16, owner: ChunkOwner) {
        let old = mem::replace(&mut self.owner[usize::from(index)], owner);
        self.count[usize::from(old.0)] -= 1;
        self.count[usize::from(owner.0)] += 1;
    }

    fn free(&mut self, index: u16) {
        self.set(index, ChunkOwner::FREE);
        self.put_free(index);
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

/// Offset of a chunk's first byte in the slot.
pub fn address_of(index: u16) -> u64 {
    u64::from(index) * CHUNK_SIZE as u64
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.recover();
        // A frame that still exists reaches its bytes without the pool. The slot's next owner would make a second token for the
        // same chunk, so the slot is never claimed again.
        if self.count(ChunkOwner::WORKER) != 0 {
            self.shared.slot.retire();
        }
    }
}

#[cfg(test)]
mod tests;
