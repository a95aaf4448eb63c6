//! One ring in a reader's memory: a worker writes it, the reader empties it.
//!
//! ```text
//!  0      64     128          4096
//!  | head | lost | tail | ... | slot | slot | ...      one such ring per worker
//! ```
//! `head` counts entries written, `tail` entries read; each side trusts only its own counter. Full: the entry is lost, and
//! counted. A reader that writes nonsense to `tail` only loses entries.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use xdnsd_core::limits::WORKERS;

use super::entry::{ENTRY_BYTES, TapEntry};
use crate::os::shared_memory::SharedMemory;

/// Rings of a reader: one per engine.
pub const RINGS: usize = WORKERS + 1;
/// Bytes in front of the slots.
const HEAD_BYTES: usize = 4096;
const LOST: usize = 64;
const TAIL: usize = 128;
/// Most slots of a ring.
const SLOTS_MAX: usize = 8192;
/// Most bytes of a slot: a whole frame.
const SLOT_BYTES_MAX: usize = 2048;
/// Fewest bytes of a slot: a whole question.
const SLOT_BYTES_MIN: usize = 512;

/// Layout of a reader's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingLayout {
    slots: usize,
    slot_bytes: usize,
}

impl RingLayout {
    /// For readers of questions: a question fits whatever its name.
    pub const QUESTIONS: Self = Self {
        slots: 2048,
        slot_bytes: SLOT_BYTES_MIN,
    };
    /// For readers of whole messages or frames.
    pub const MESSAGES: Self = Self {
        slots: 1024,
        slot_bytes: SLOT_BYTES_MAX,
    };

    /// The layout that a reader asks for; `None` if it is invalid.
    #[must_use]
    pub fn new(slots: usize, slot_bytes: usize) -> Option<Self> {
        let is_one = slots.is_power_of_two()
            && slots <= SLOTS_MAX
            && slot_bytes.is_multiple_of(8)
            && (SLOT_BYTES_MIN..=SLOT_BYTES_MAX).contains(&slot_bytes);
        is_one.then_some(Self { slots, slot_bytes })
    }

    /// Slots of each ring.
    #[must_use]
    pub const fn slots(&self) -> usize {
        self.slots
    }

    /// Bytes of a slot.
    #[must_use]
    pub const fn slot_bytes(&self) -> usize {
        self.slot_bytes
    }

    const fn ring_bytes(&self) -> usize {
        HEAD_BYTES + self.slots * self.slot_bytes
    }

    /// Bytes of all rings.
    ///
    /// # Panics
    /// Never: a ring is not empty.
    #[must_use]
    pub fn bytes(&self) -> NonZeroUsize {
        NonZeroUsize::new(RINGS * self.ring_bytes()).expect("a ring has a head")
    }

    fn slot_at(&self, ring: usize, count: u64) -> usize {
        let slot = count as usize & (self.slots - 1);
        ring * self.ring_bytes() + HEAD_BYTES + slot * self.slot_bytes
    }
}

/// A worker's end of a ring.
#[derive(Debug)]
pub struct TapRing {
    memory: Arc<SharedMemory>,
    shape: RingLayout,
    wanted: u8,
    index: usize,
    head: u64,
    lost: u64,
}

impl TapRing {
    /// Ring `index` of `RINGS`, for a reader that wants these kinds.
    #[must_use]
    pub fn new(memory: Arc<SharedMemory>, shape: RingLayout, index: usize, wanted: u8) -> Self {
        assert!(index < RINGS, "a ring");
        Self {
            memory,
            shape,
            wanted,
            index,
            head: 0,
            lost: 0,
        }
    }

    /// Writes an entry with as many of the bytes as fit, if the reader wants it and the ring has room.
    pub fn write(&mut self, entry: &TapEntry, bytes: &[u8]) {
        if self.wanted & entry.kind.wanted() == 0 {
            return;
        }
        let base = self.index * self.shape.ring_bytes();
        let tail = self.memory.word(base + TAIL).load(Acquire);
        if self.head.wrapping_sub(tail) >= self.shape.slots as u64 {
            self.lost += 1;
            self.memory.word(base + LOST).store(self.lost, Relaxed);
            return;
        }
        let kept = bytes.len().min(self.shape.slot_bytes - ENTRY_BYTES);
        let entry = TapEntry {
            len: bytes.len() as u32,
            kept: kept as u16,
            ..*entry
        };
        let at = self.shape.slot_at(self.index, self.head);
        self.memory.write(at, &entry.emit());
        self.memory.write(at + ENTRY_BYTES, &bytes[..kept]);
        self.head += 1;
        self.memory.word(base).store(self.head, Release);
    }
}

/// The reader's end of all rings.
#[derive(Debug)]
pub struct RingReader {
    memory: SharedMemory,
    shape: RingLayout,
    tails: [u64; RINGS],
}

impl RingReader {
    /// Before the first entry.
    #[must_use]
    pub const fn new(memory: SharedMemory, shape: RingLayout) -> Self {
        Self {
            memory,
            shape,
            tails: [0; RINGS],
        }
    }

    /// Entries lost so far, over all rings.
    #[must_use]
    pub fn lost(&self) -> u64 {
        let lost = |ring| {
            let base = ring * self.shape.ring_bytes();
            self.memory.word(base + LOST).load(Relaxed)
        };
        (0..RINGS).map(lost).sum()
    }

    /// Reads all entries with their bytes, in order of time.
    #[must_use]
    pub fn drain(&mut self) -> Vec<(TapEntry, Vec<u8>)> {
        let mut read = Vec::new();
        for ring in 0..RINGS {
            let base = ring * self.shape.ring_bytes();
            let head = self.memory.word(base).load(Acquire);
            // Bound: the slots of a ring.
            for _ in 0..self.shape.slots {
                let tail = self.tails[ring];
                if tail >= head {
                    break;
                }
                read.extend(self.slot(self.shape.slot_at(ring, tail)));
                self.tails[ring] = tail + 1;
                self.memory.word(base + TAIL).store(tail + 1, Release);
            }
        }
        read.sort_by_key(|(entry, _)| entry.time_ns);
        read
    }

    fn slot(&self, at: usize) -> Option<(TapEntry, Vec<u8>)> {
        let mut head = [0; ENTRY_BYTES];
        self.memory.read(at, &mut head);
        let entry = TapEntry::parse(&head)?;
        let kept = usize::from(entry.kept).min(self.shape.slot_bytes - ENTRY_BYTES);
        let mut bytes = vec![0; kept];
        self.memory.read(at + ENTRY_BYTES, &mut bytes);
        Some((entry, bytes))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::entry::{AnswerReason, QueryPath, TapKind, wanted};
    use super::*;

    pub(crate) fn entry(time_ns: u64) -> TapEntry {
        TapEntry {
            time_ns,
            micros: 1,
            len: 0,
            kept: 0,
            kind: TapKind::Answer,
            via: QueryPath::Udp,
            why: AnswerReason::Cache,
            client: "10.0.0.7:4711".parse().expect("an address"),
            upstream: None,
        }
    }

    fn ends(shape: RingLayout) -> (RingReader, TapRing) {
        let (file, memory) = SharedMemory::make(shape.bytes()).expect("memory");
        let daemon = Arc::new(SharedMemory::take(&file, shape.bytes()).expect("memory"));
        let ring = TapRing::new(daemon, shape, RINGS - 1, wanted::ANSWERS);
        (RingReader::new(memory, shape), ring)
    }

    #[test]
    fn what_is_written_is_read_in_order_and_once() {
        let (mut reader, mut ring) = ends(RingLayout::new(16, 512).expect("a shape"));
        for turn in 0..5u8 {
            for number in 0..10 {
                ring.write(&entry(number), &[turn; 600]);
            }
            let read = reader.drain();
            assert_eq!(read.len(), 10);
            for (number, (entry, bytes)) in read.iter().enumerate() {
                assert_eq!(entry.time_ns, number as u64);
                assert_eq!(
                    (entry.len, bytes.len()),
                    (600, 448),
                    "cut, and that is said"
                );
                assert!(bytes.iter().all(|byte| *byte == turn));
            }
            assert!(reader.drain().is_empty());
        }
        assert_eq!(reader.lost(), 0);
    }

    #[test]
    fn what_has_no_room_is_counted_and_what_was_there_stays() {
        let (mut reader, mut ring) = ends(RingLayout::new(16, 512).expect("a shape"));
        for number in 0..40 {
            ring.write(&entry(number), b"");
        }
        let read = reader.drain();
        assert_eq!((read.len(), reader.lost()), (16, 24));
        assert_eq!(read[15].0.time_ns, 15);
        ring.write(&entry(41), b"");
        assert_eq!(reader.drain().len(), 1);
    }

    #[test]
    fn what_nobody_wants_is_not_written() {
        let (mut reader, mut ring) = ends(RingLayout::QUESTIONS);
        let query = TapEntry {
            kind: TapKind::Query,
            ..entry(1)
        };
        ring.write(&query, b"");
        assert!(reader.drain().is_empty());
    }

    /// The other side may write anything.
    #[test]
    fn a_tail_that_is_nonsense_costs_entries_and_nothing_else() {
        let (mut reader, mut ring) = ends(RingLayout::new(16, 512).expect("a shape"));
        let tail = (RINGS - 1) * reader.shape.ring_bytes() + TAIL;
        for nonsense in [1, u64::MAX, 1 << 40] {
            reader.memory.word(tail).store(nonsense, Relaxed);
            for number in 0..40 {
                ring.write(&entry(number), &[1; 4000]);
            }
        }
        assert!(reader.lost() > 0);
        assert!(reader.drain().len() <= 16);
    }

    #[test]
    fn a_shape_has_bounds() {
        for (slots, bytes) in [
            (0, 512),
            (3, 512),
            (16384, 512),
            (16, 0),
            (16, 256),
            (16, 4096),
        ] {
            assert_eq!(RingLayout::new(slots, bytes), None, "{slots} {bytes}");
        }
        for shape in [RingLayout::QUESTIONS, RingLayout::MESSAGES] {
            assert_eq!(RingLayout::new(shape.slots, shape.slot_bytes), Some(shape));
        }
    }
}
