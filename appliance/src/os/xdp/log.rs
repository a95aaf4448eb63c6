//! The shield's log: records that the programs write into a ring buffer while there is a reader.

use super::object::Object;
use super::{Error, Program, shared_maps, take};
use crate::os::keeper::MapKind;
use aya::maps::{ArrayOfMaps, MapData, MapError, PerCpuArray, RingBuf};
use xdnsd_abi::event::{HEAD, WORDS, logged};
use xdnsd_abi::{Reason, map, shield, tail};

/// Maps of the log, and whether its program is loaded.
pub(super) struct Log {
    events: ArrayOfMaps<MapData, RingBuf<MapData>>,
    counts: PerCpuArray<MapData, u64>,
    is_loaded: bool,
}

impl Log {
    pub(super) fn of(object: &mut Object) -> Result<Self, Error> {
        Ok(Self {
            events: take(object, map::EVENTS, ArrayOfMaps::try_from)?,
            counts: take(object, map::LOGGED, PerCpuArray::try_from)?,
            is_loaded: false,
        })
    }
}

/// The ring buffer, shared by all programs.
pub struct EventRing(RingBuf<MapData>);

/// A record of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameEvent {
    /// CLOCK_MONOTONIC in nanoseconds.
    pub time_ns: u64,
    /// Verdict on the frame.
    pub reason: Reason,
    /// Index of the ingress interface.
    pub ifindex: u32,
    /// Bytes of the frame.
    pub len: u32,
    /// Number of its first bytes in `head`.
    pub head_len: usize,
    /// Those bytes, followed by zeros.
    pub head: [u8; (WORDS - HEAD) * size_of::<u64>()],
}

impl FrameEvent {
    /// Parses a record. `None` if it is malformed.
    #[must_use]
    pub fn parse(record: &[u8]) -> Option<Self> {
        let (words, rest) = record.as_chunks::<8>();
        if words.len() != WORDS || !rest.is_empty() {
            return None;
        }
        let word = |at: usize| u64::from_ne_bytes(words[at]);
        let lower = |at: usize| word(at) as u32;
        let upper = |at: usize| (word(at) >> u32::BITS) as u32;
        let mut head = [0; (WORDS - HEAD) * size_of::<u64>()];
        head.copy_from_slice(&record[HEAD * size_of::<u64>()..]);
        Some(Self {
            time_ns: word(0),
            reason: *Reason::ALL.get(lower(1) as usize)?,
            ifindex: upper(1),
            len: lower(2),
            head_len: (upper(2) as usize).min(head.len()),
            head,
        })
    }
}

impl EventRing {
    /// An empty ring buffer of at least a page.
    ///
    /// # Errors
    /// The kernel denies BPF to this process.
    pub fn new() -> Result<Self, Error> {
        let failed = |cause| Error::map(map::EVENTS, cause);
        let made = shared_maps::obtain(MapKind::Events)?;
        Ok(Self(RingBuf::try_from(made).map_err(failed)?))
    }

    /// Takes the next record.
    pub fn pop(&mut self) -> Option<FrameEvent> {
        loop {
            let record = self.0.next()?;
            // Malformed records are skipped.
            if let Some(event) = FrameEvent::parse(&record) {
                return Some(event);
            }
        }
    }
}

impl Program {
    /// Writes records into the ring, for a share of the frames; see [`xdnsd_abi::event::ALL`].
    ///
    /// # Errors
    /// The kernel refused the program (before Linux 5.18), or a map.
    pub fn write_log(&mut self, ring: &EventRing, share: u32) -> Result<(), Error> {
        if !self.log.is_loaded {
            if !self.takes_several_buffers() {
                return Err(Error::NoShield);
            }
            let set = self.log.events.set(0, &ring.0, 0);
            set.map_err(|cause| Error::map(map::EVENTS, cause))?;
            self.load_shield(map::PROGRAM_LOG)?;
            self.hand_on(tail::LOG, map::PROGRAM_LOG)?;
            self.log.is_loaded = true;
        }
        self.tell(shield::LOG, share)
    }

    /// Stops writing records.
    ///
    /// # Errors
    /// The map refused.
    pub fn stop_log(&mut self) -> Result<(), Error> {
        self.tell(shield::LOG, 0)
    }

    /// Records lost so far because the ring was full.
    ///
    /// # Errors
    /// The map refused.
    pub fn log_lost(&self) -> Result<u64, Error> {
        let lost = self.log.counts.get(&logged::LOST, 0);
        let lost = lost.map_err(|cause: MapError| Error::map(map::LOGGED, cause))?;
        Ok(lost.iter().fold(0, |sum, count| sum.wrapping_add(*count)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written_and_anything_else_is_none() {
        let mut record = Vec::new();
        for word in [
            7,
            9 << 32 | u64::from(Reason::DropDenied as u32),
            58 << 32 | 300,
        ] {
            record.extend(u64::to_ne_bytes(word));
        }
        record.extend([0xa5; 72]);
        let event = FrameEvent::parse(&record).expect("a record");
        assert_eq!((event.time_ns, event.reason), (7, Reason::DropDenied));
        assert_eq!((event.ifindex, event.len, event.head_len), (9, 300, 58));
        for len in 0..record.len() {
            assert_eq!(FrameEvent::parse(&record[..len]), None, "{len}");
        }
        assert_eq!(FrameEvent::parse(&[&record[..], &[0]].concat()), None);
        record[8..12].copy_from_slice(&Reason::COUNT.to_ne_bytes());
        assert_eq!(FrameEvent::parse(&record), None, "no such verdict");
    }
}
