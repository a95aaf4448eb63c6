//! The ledger of a slot: who has each chunk. It belongs to the worker.
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
//! spare: whoever opens one, which is another thread, takes them to prime its fill ring.
//!
//! What a closed socket had in the kernel comes back when the kernel has it no more, and that whoever closed it says.

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

/// What the ledger, the sockets of a slot, and whoever opens them have together.
#[derive(Debug)]
pub struct SharedUmem {
    /// The right to the memory.
    pub slot: UmemSlot,
    /// How many sockets can be open at once, and how large the rings of each are.
    pub shape: Shape,
    /// RX chunks of sockets that are not open.
    pub spare: ChunkSet,
}

/// Who has a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkOwner(u8);

impl ChunkOwner {
    /// Nobody: it can be taken for a reply, or for a fill ring.
    pub const FREE: Self = Self(0);
    /// A socket that is not open.
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

/// What whoever closed a socket has to tell the ledger: the kernel has no chunk of it any more.
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
    /// Whether each socket is known.
    members: [bool; SHARERS_MAX],
    /// Spare chunks are missing.
    is_short: bool,
    owner: [ChunkOwner; CHUNKS_PER_QUEUE],
    count: [u16; ChunkOwner::COUNT],
    rx_free: Vec<u16, RX_CHUNKS>,
    tx_free: Vec<u16, TX_CHUNKS>,
}

impl Pool {
    /// No socket is open: all RX chunks are spare.
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

    /// The number of its slot.
    pub fn slot(&self) -> usize {
        self.shared.slot.index()
    }

    /// Whether no socket is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.members.contains(&true)
    }

    /// Chunks that `owner` has.
    pub fn count(&self, owner: ChunkOwner) -> u32 {
        u32::from(self.count[usize::from(owner.0)])
    }

    /// A socket is served from now on; its fill ring was primed with these of the spare chunks.
    pub fn adopt(&mut self, member: u8, primed: &ChunkSet) {
        self.members[usize::from(member)] = true;
        while let Some(index) = primed.take() {
            debug_assert_eq!(self.owner[usize::from(index)], ChunkOwner::SPARE);
            self.set(index, ChunkOwner::rx(member));
        }
        self.balance();
    }

    /// Takes back what a socket had that is closed now.
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

    /// Has as many spare chunks as sockets that are not open can rely on, and no more.
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

    /// Chunks that a socket's fill ring should get now: `arrived` frames have come since it was asked last.
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
        // What may come until it is asked again is as much as came, and as much again while that is answered.
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

    /// The next address for the fill ring of a socket.
    pub fn refill(&mut self, member: u8) -> Option<u64> {
        let index = self.rx_free.pop()?;
        self.set(index, ChunkOwner::rx(member));
        Some(address_of(index))
    }

    /// The token for a descriptor of a socket's RX ring. `None`: the kernel never had that chunk for receiving there, or the
    /// frame leaves it; in the second case the chunk is free again.
    pub fn received(&mut self, member: u8, descriptor: Descriptor) -> Option<Frame> {
        let index = self.index_of(descriptor.address, ChunkOwner::rx(member))?;
        let offset = descriptor.address as usize % CHUNK_SIZE;
        if descriptor.len as usize > CHUNK_SIZE - offset {
            self.free(index);
            return None;
        }
        Some(self.frame(index, offset, descriptor.len as usize))
    }

    /// A frame from the reserve for replies that are not made in the query's own frame. `None`: all are in use.
    pub fn take_free(&mut self) -> Option<Frame> {
        let index = self.tx_free.pop()?;
        Some(self.frame(index, HEADROOM, 0))
    }

    /// Turns a token into the descriptor of its first `len` bytes, which a socket sends. `Err`: that is more than the chunk
    /// holds.
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

    /// Frees the chunk of an entry of a socket's completion ring. False: the kernel never had it for sending there.
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

    /// Frees the chunks of frames that were dropped by mistake, and sets spare ones aside where they were missing; says how
    /// many were dropped.
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

    /// Whether no chunk is missing and none is there twice.
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

    /// Ends a token.
    fn take_back(&mut self, frame: Frame, to: ChunkOwner) -> u16 {
        // Holds in release builds too: another slot's chunk number names a chunk of ours that somebody else may hold.
        assert_eq!(
            frame.slot(),
            self.slot(),
            "a frame returns to the UMEM that it came from"
        );
        let index = frame.into_index();
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

/// First byte of a chunk, relative to the slot.
pub fn address_of(index: u16) -> u64 {
    u64::from(index) * CHUNK_SIZE as u64
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.recover();
        // A frame that is still out reaches its bytes without asking us. The next owner of the slot would make a second
        // token for the same chunk, so there must be no next owner.
        if self.count(ChunkOwner::WORKER) != 0 {
            self.shared.slot.retire();
        }
    }
}

#[cfg(test)]
mod tests;
