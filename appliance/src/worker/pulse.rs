//! Liveness of a worker: a number that it changes with each turn of its loop, at least once a second.

use std::sync::atomic::{AtomicU32, Ordering};

/// Turn count of one worker. Only the worker changes it.
#[derive(Debug)]
pub struct Pulse(AtomicU32);

impl Pulse {
    /// No turn yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Counts one more turn.
    pub(super) fn beat(&self) {
        let turns = self.0.load(Ordering::Relaxed).wrapping_add(1);
        self.0.store(turns, Ordering::Relaxed);
    }

    /// Number of turns, modulo 2^32.
    #[must_use]
    pub fn turns(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Default for Pulse {
    fn default() -> Self {
        Self::new()
    }
}
