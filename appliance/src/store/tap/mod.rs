//! The tap: readers of queries and answers as they happen, and the rings in which workers write for them.
//!
//! ```text
//!  worker 0 ─► ring of reader 0, ring of reader 1, ...     each reader has brought its memory, with a ring for each worker
//!  worker 1 ─► ring of reader 0, ...
//! ```
//! Without readers a worker loads one word per query, and does nothing else. A worker never waits for a reader: if its ring is
//! full, or being attached or detached, the entry is lost. Otherwise the worker has the lock of a ring to itself.

pub mod entry;
pub mod ring;

use std::io::{ErrorKind, Read as _};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use entry::TapEntry;
use ring::{RINGS, RingLayout, TapRing};

use crate::os::shared_memory::SharedMemory;

/// Most readers at once. Full: the next one is refused.
pub const READERS_MAX: usize = 4;

/// The tap of this process.
pub static TAP: Tap = Tap::new();

/// Rings in which one worker writes.
#[derive(Debug)]
pub struct TapRings([Mutex<Option<TapRing>>; READERS_MAX]);

impl TapRings {
    const fn new() -> Self {
        Self([const { Mutex::new(None) }; READERS_MAX])
    }

    /// Writes an entry for each reader that wants it. Only the worker itself may call this.
    pub fn write(&self, entry: &TapEntry, bytes: &[u8]) {
        for ring in &self.0 {
            if let Ok(mut ring) = ring.try_lock()
                && let Some(ring) = &mut *ring
            {
                ring.write(entry, bytes);
            }
        }
    }

    fn put(&self, place: usize, ring: Option<TapRing>) {
        let mut present = self.0[place].lock().unwrap_or_else(PoisonError::into_inner);
        let earlier = std::mem::replace(&mut *present, ring);
        // Dropped after the lock is released, and never by a worker: dropping the last one unmaps the memory.
        drop(present);
        drop(earlier);
    }
}

/// A reader, attached as long as its connection is open.
#[derive(Debug)]
struct Reader {
    connection: UnixStream,
    wanted: u8,
}

impl Reader {
    /// True while the connection is open. Anything that the reader sends is ignored.
    fn is_there(&self) -> bool {
        let mut said = [0; 64];
        match (&self.connection).read(&mut said) {
            Ok(count) => count > 0,
            Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        }
    }
}

/// All readers, and the rings of all workers.
#[derive(Debug)]
pub struct Tap {
    wanted: AtomicU8,
    rings: [TapRings; RINGS],
    readers: Mutex<[Option<Reader>; READERS_MAX]>,
}

impl Tap {
    const fn new() -> Self {
        Self {
            wanted: AtomicU8::new(0),
            rings: [const { TapRings::new() }; RINGS],
            readers: Mutex::new([const { None }; READERS_MAX]),
        }
    }

    /// Union of what all readers want; 0 without readers.
    #[must_use]
    pub fn wanted(&self) -> u8 {
        self.wanted.load(Relaxed)
    }

    /// Rings of a worker.
    #[must_use]
    pub const fn rings(&self, worker: usize) -> &TapRings {
        &self.rings[worker]
    }

    /// Number of attached readers.
    #[must_use]
    pub fn readers(&self) -> usize {
        self.lock().iter().flatten().count()
    }

    /// Attaches a reader, until its connection ends.
    ///
    /// # Errors
    /// [`READERS_MAX`] readers are attached, or the connection cannot be prepared; in words.
    pub fn attach(
        &self,
        memory: SharedMemory,
        shape: RingLayout,
        wanted: u8,
        connection: UnixStream,
    ) -> Result<(), String> {
        self.look();
        let set = connection.set_nonblocking(true);
        set.map_err(|error| format!("the reader's connection: {error}"))?;
        let mut readers = self.lock();
        let Some(place) = readers.iter().position(Option::is_none) else {
            return Err(format!("{READERS_MAX} read already"));
        };
        let memory = Arc::new(memory);
        for (index, rings) in self.rings.iter().enumerate() {
            let ring = TapRing::new(Arc::clone(&memory), shape, index, wanted);
            rings.put(place, Some(ring));
        }
        readers[place] = Some(Reader { connection, wanted });
        self.publish(&readers);
        Ok(())
    }

    /// Detaches readers whose connection has ended.
    pub fn look(&self) {
        if self.wanted() == 0 {
            return;
        }
        let mut readers = self.lock();
        for (place, reader) in readers.iter_mut().enumerate() {
            if reader.take_if(|reader| !reader.is_there()).is_some() {
                self.rings.iter().for_each(|rings| rings.put(place, None));
            }
        }
        self.publish(&readers);
    }

    fn publish(&self, readers: &[Option<Reader>; READERS_MAX]) {
        let wanted = readers.iter().flatten().map(|reader| reader.wanted);
        self.wanted
            .store(wanted.fold(0, |all, one| all | one), Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, [Option<Reader>; READERS_MAX]> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::entry::wanted;
    use super::ring::RingReader;
    use super::ring::tests::entry;
    use super::*;

    fn attach(tap: &Tap, kinds: u8) -> (UnixStream, RingReader) {
        let shape = RingLayout::new(16, 512).expect("a shape");
        let (file, memory) = SharedMemory::make(shape.bytes()).expect("memory");
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let daemon = SharedMemory::take(&file, shape.bytes()).expect("memory");
        tap.attach(daemon, shape, kinds, ours).expect("a place");
        (theirs, RingReader::new(memory, shape))
    }

    #[test]
    fn readers_come_and_go_and_nothing_is_wanted_without_them() {
        let tap = Tap::new();
        assert_eq!(tap.wanted(), 0);
        let (one, mut rings) = attach(&tap, wanted::ANSWERS);
        let (other, mut other_rings) = attach(&tap, wanted::FRAMES);
        assert_eq!(tap.wanted(), wanted::ANSWERS | wanted::FRAMES);
        tap.rings(RINGS - 1).write(&entry(1), b"");
        tap.rings(0).write(&entry(2), b"");
        let times: Vec<u64> = rings.drain().iter().map(|(seen, _)| seen.time_ns).collect();
        assert_eq!(times, [1, 2]);
        assert!(other_rings.drain().is_empty());
        drop(one);
        tap.look();
        assert_eq!((tap.wanted(), tap.readers()), (wanted::FRAMES, 1));
        tap.rings(0).write(&entry(3), b"");
        assert!(rings.drain().is_empty(), "it has gone");
        drop(other);
        tap.look();
        assert_eq!((tap.wanted(), tap.readers()), (0, 0));
    }

    #[test]
    fn one_too_many_is_refused_and_has_a_place_when_another_has_gone() {
        let tap = Tap::new();
        let mut readers: Vec<_> = (0..READERS_MAX)
            .map(|_| attach(&tap, wanted::ANSWERS))
            .collect();
        let shape = RingLayout::QUESTIONS;
        let (_file, memory) = SharedMemory::make(shape.bytes()).expect("memory");
        let (ours, _theirs) = UnixStream::pair().expect("a pair");
        let refused = tap.attach(memory, shape, wanted::ANSWERS, ours);
        assert_eq!(refused, Err("4 read already".into()));
        readers.pop();
        attach(&tap, wanted::ANSWERS);
    }
}
