//! Ports that were closed before their answer arrived, of either kind and any worker. They rest for a while: a late answer would
//! otherwise reach the port's next question, with another ID, and look like a spoofing attempt.
//!
//! Two generations, one bit per port: ports are added to the current one, and the older is forgotten as a whole.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use xdnsd_core::time::Instant;

/// Shortest rest of a port, in milliseconds; the longest is twice as long. Later answers are rare.
const REST_MS: u64 = 5_000;
const WORDS: usize = (u16::MAX as usize + 1) / 64;

/// Bytes of it, for the memory budget.
pub const BYTES: usize = size_of::<Resting>();

/// Resting ports of all workers.
pub static RESTING: Resting = Resting::new();

/// Set of ports that expire.
#[derive(Debug)]
pub struct Resting {
    generations: [[AtomicU64; WORDS]; 2],
    current: AtomicUsize,
    /// When the current generation began, in milliseconds.
    since_ms: AtomicU64,
}

impl Resting {
    const fn new() -> Self {
        Self {
            generations: [const { [const { AtomicU64::new(0) }; WORDS] }; 2],
            current: AtomicUsize::new(0),
            since_ms: AtomicU64::new(0),
        }
    }

    /// Lets `port` rest from now on.
    pub fn put(&self, port: u16) {
        let current = &self.generations[self.current.load(Ordering::Relaxed) % 2];
        current[usize::from(port) / 64].fetch_or(1 << (port % 64), Ordering::Relaxed);
    }

    /// True while `port` rests.
    #[must_use]
    pub fn has(&self, port: u16) -> bool {
        let word = |generation: &[AtomicU64; WORDS]| {
            generation[usize::from(port) / 64].load(Ordering::Relaxed)
        };
        let noted = self
            .generations
            .iter()
            .map(word)
            .fold(0, |all, word| all | word);
        noted >> (port % 64) & 1 != 0
    }

    /// Starts a new generation once the current one is old enough. One thread calls this about once a second; if it stalls, ports
    /// rest longer.
    pub fn look_again(&self, now: Instant) {
        let since_ms = self.since_ms.load(Ordering::Relaxed);
        if now.millis() < since_ms.saturating_add(REST_MS) {
            return;
        }
        self.since_ms.store(now.millis(), Ordering::Relaxed);
        let next = (self.current.load(Ordering::Relaxed) + 1) % 2;
        for word in &self.generations[next] {
            word.store(0, Ordering::Relaxed);
        }
        self.current.store(next, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_rests_for_its_time_and_no_longer_than_twice_that() {
        for noted_at in [0, 1, REST_MS - 1] {
            let resting = Resting::new();
            let start = Instant::from_millis(77_777);
            resting.look_again(start);
            let mut rested = Vec::new();
            for ms in 0..4 * REST_MS {
                resting.look_again(start + ms);
                if ms == noted_at {
                    resting.put(50_000);
                }
                if resting.has(50_000) {
                    rested.push(ms);
                }
                assert!(!resting.has(50_001) && !resting.has(50_000 - 64));
            }
            let (first, last) = (rested[0], rested[rested.len() - 1]);
            assert_eq!((first, last - first + 1), (noted_at, rested.len() as u64));
            assert!(
                (REST_MS..=2 * REST_MS).contains(&(last - first + 1)),
                "{noted_at}: {last}"
            );
        }
    }
}
