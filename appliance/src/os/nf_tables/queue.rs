//! Addresses on their way from the workers to the thread that adds them. A worker never waits: what has no place is lost, and
//! counted.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use super::SetName;

/// Addresses that wait at most. When full, a further one is lost; the next answer brings it again.
pub const PLACES: usize = 64;

/// What became of addresses since the start.
#[derive(Debug)]
pub struct Counts {
    /// Added, or there already.
    pub added: AtomicU64,
    /// Not added, by a fault of the set.
    pub failed: AtomicU64,
    /// Lost for lack of a place.
    pub lost: AtomicU64,
}

/// The same at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InSets {
    /// Added, or there already.
    pub added: u64,
    /// Not added, by a fault of the set.
    pub failed: u64,
    /// Lost for lack of a place.
    pub lost: u64,
}

impl Counts {
    /// Reads them.
    #[must_use]
    pub fn read(&self) -> InSets {
        InSets {
            added: self.added.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            lost: self.lost.load(Ordering::Relaxed),
        }
    }
}

/// Counts of this process.
pub static COUNTS: Counts = Counts {
    added: AtomicU64::new(0),
    failed: AtomicU64::new(0),
    lost: AtomicU64::new(0),
};

/// An address of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundAddress {
    /// Number of the sets that it goes into.
    pub sets: u16,
    /// The address.
    pub address: IpAddr,
}

/// What the thread works on: sets by number, and the addresses as they come.
#[derive(Debug)]
pub struct SetWork {
    /// Sets by number.
    pub sets: Arc<[Vec<SetName>]>,
    /// Ends when nobody holds the queue any more.
    pub found: Receiver<FoundAddress>,
}

/// The queue for some sets.
#[derive(Debug)]
pub struct SetQueue {
    sets: Arc<[Vec<SetName>]>,
    sender: SyncSender<FoundAddress>,
    receiver: Mutex<Option<Receiver<FoundAddress>>>,
}

impl SetQueue {
    /// An empty queue for these sets.
    #[must_use]
    pub fn new(sets: Vec<Vec<SetName>>) -> Self {
        let (sender, receiver) = sync_channel(PLACES);
        Self {
            sets: sets.into(),
            sender,
            receiver: Mutex::new(Some(receiver)),
        }
    }

    /// Sets by number.
    #[must_use]
    pub fn sets(&self) -> &[Vec<SetName>] {
        &self.sets
    }

    /// Adds an address without waiting. False if it is lost.
    #[must_use]
    pub fn put(&self, found: FoundAddress) -> bool {
        self.sender.try_send(found).is_ok()
    }

    /// The work; `None` if a thread has it.
    pub fn take_work(&self) -> Option<SetWork> {
        let mut receiver = self.receiver.lock().unwrap_or_else(PoisonError::into_inner);
        Some(SetWork {
            sets: Arc::clone(&self.sets),
            found: receiver.take()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_place_is_lost_and_the_work_ends_with_the_queue() {
        let queue = SetQueue::new(vec![vec!["t#s".parse().expect("a set")]]);
        let found = |last| FoundAddress {
            sets: 0,
            address: [192, 0, 2, last].into(),
        };
        for last in 0..PLACES as u8 {
            assert!(queue.put(found(last)), "{last}");
        }
        assert!(!queue.put(found(255)));
        let work = queue.take_work().expect("nobody has it");
        assert!(queue.take_work().is_none());
        assert_eq!(work.found.recv(), Ok(found(0)));
        assert!(queue.put(found(200)));
        drop(queue);
        assert_eq!(work.found.iter().last(), Some(found(200)));
    }
}
