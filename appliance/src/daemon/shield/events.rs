//! The log of the shield. Programs write records for a reader for as long as it asks again.
//!
//! ```text
//!  asked ─► programs write ─► asked: what is in the ring, what was lost ─► nobody has asked for a while ─► programs rest
//! ```
//! The ring is small. Lost records are counted, and while there are any, programs record a smaller share of frames.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use log::warn;
use xdnsd_abi::event;
use xdnsd_core::time::Instant;

use super::Follower;
use crate::control::shield::{LogSwitch, SeenFrames};
use crate::daemon::program::lock;
use crate::os::clock;
use crate::os::xdp::{Error, EventRing};

/// A reader that has not asked for this time is gone, in milliseconds.
const READER_MS: u64 = 3_000;
/// The smallest share is one frame out of this many.
const EVERY_MAX: u32 = 1 << 20;
/// If one answer has fewer records than this, and none were lost, the share doubles.
const FEW: usize = 8;

/// The log, shared by threads.
#[derive(Clone, Default)]
pub struct Events(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    programs: Vec<Follower>,
    /// Made on first use by the thread for interfaces, which alone has the right to.
    ring: Option<EventRing>,
    share: Share,
    /// When the reader counts as gone. `None` if there is no reader.
    until: Option<Instant>,
    /// Lost records up to the last look.
    lost: u64,
    /// Last problem that was logged.
    trouble: String,
}

/// Share of frames that are recorded: one out of `every`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Share {
    every: u32,
}

impl Default for Share {
    fn default() -> Self {
        Self { every: 1 }
    }
}

impl Share {
    /// The share in the form that programs take.
    fn word(self) -> u32 {
        event::ALL / self.every
    }

    /// Adapts the share to the numbers of records read and lost.
    fn follow(&mut self, read: usize, lost: u64) {
        if lost > 0 {
            self.every = (self.every * 2).min(EVERY_MAX);
        } else if read < FEW {
            self.every = (self.every / 2).max(1);
        }
    }
}

impl Events {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the programs that write records.
    pub fn follow(&self, programs: impl Iterator<Item = Follower>) {
        self.state().programs = programs.collect();
    }

    /// Once a second, by the thread for interfaces: starts programs that were attached meanwhile, and stops all once the reader
    /// is gone.
    pub fn look(&self) {
        let mut state = self.state();
        let Some(until) = state.until else {
            return;
        };
        if clock::now() < until {
            state.make();
            state.write();
            return;
        }
        state.until = None;
        for follower in &state.programs {
            if let Some(program) = lock(&follower.program).as_mut() {
                let _ = program.stop_log();
            }
        }
    }
}

impl State {
    /// Makes the ring, if there is none.
    fn make(&mut self) {
        if self.ring.is_none() {
            let made = EventRing::new().map(|ring| {
                self.ring = Some(ring);
            });
            self.complain(made);
        }
    }

    /// Makes all programs write, once there is a ring.
    fn write(&mut self) {
        if self.ring.is_some() {
            let told = self.try_write();
            self.complain(told);
        }
    }

    fn complain(&mut self, done: Result<(), Error>) {
        let trouble = done
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default();
        if !trouble.is_empty() && trouble != self.trouble {
            warn!("the shield's log: {trouble}");
        }
        self.trouble = trouble;
    }

    fn try_write(&mut self) -> Result<(), Error> {
        let mut result = Ok(());
        let Some(ring) = &self.ring else {
            return result;
        };
        for follower in &self.programs {
            if let Some(program) = lock(&follower.program).as_mut() {
                // The others write all the same.
                result = result.and(program.write_log(ring, self.share.word()));
            }
        }
        result
    }

    /// Number of lost records in all. The number of a detached program is gone with it.
    fn count_lost(&self) -> u64 {
        let lost = |follower: &Follower| {
            let program = lock(&follower.program);
            program.as_ref().and_then(|program| program.log_lost().ok())
        };
        self.programs.iter().filter_map(lost).sum()
    }
}

impl LogSwitch for Events {
    fn watch(&self) -> Result<SeenFrames, String> {
        let mut state = self.state();
        let now = clock::now();
        if state.until.replace(now + READER_MS).is_none() {
            // Drops what an earlier reader has left.
            while state.ring.as_mut().and_then(EventRing::pop).is_some() {}
            state.share = Share::default();
            state.lost = state.count_lost();
            state.write();
            return Ok(SeenFrames::default());
        }
        if !state.trouble.is_empty() {
            return Err(state.trouble.clone());
        }
        let every = state.share.every;
        let mut events = Vec::new();
        while let Some(event) = state.ring.as_mut().and_then(EventRing::pop) {
            events.push(event);
        }
        let lost = state.count_lost();
        let more = lost.saturating_sub(std::mem::replace(&mut state.lost, lost));
        let before = state.share;
        state.share.follow(events.len(), more);
        if state.share != before {
            state.write();
        }
        Ok(SeenFrames {
            events,
            every,
            lost: more,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_smaller_share_is_told_of_while_some_are_lost_and_all_when_there_are_few() {
        let mut share = Share::default();
        assert_eq!(share.word(), u32::MAX, "all of them");
        share.follow(39, 0);
        assert_eq!(share.every, 1);
        for every in [2, 4, 8] {
            share.follow(39, 1);
            assert_eq!((share.every, share.word()), (every, u32::MAX / every));
        }
        share.follow(FEW, 0);
        assert_eq!(share.every, 8, "it fits");
        for every in [4, 2, 1, 1] {
            share.follow(FEW - 1, 0);
            assert_eq!(share.every, every);
        }
        for _ in 0..40 {
            share.follow(0, 1);
        }
        assert_eq!(share.every, EVERY_MAX);
        assert_ne!(share.word(), 0, "0 would be nobody");
    }
}
