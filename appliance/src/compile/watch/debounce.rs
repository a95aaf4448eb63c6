//! Detects when the writer of a file has finished.

use std::collections::{HashMap, HashSet};

use xdnsd_core::time::Instant;

use super::{Change, FileEvent, LOOK_MS, Pace};

/// Time without a change after which a live or replaced file is read, in milliseconds.
const QUIET_MS: u64 = 200;
/// Maximum wait for a live file after its first change, in milliseconds.
pub const LIVE_PATIENCE_MS: u64 = 2_000;
/// Minimum wait after the latest change, in milliseconds: dnsmasq empties its lease file, and then writes it.
const BREATH_MS: u64 = 20;
/// Time without a change after which a file that was written in place and closed is read, in milliseconds: its writer may open
/// it again, like a script that puts parts together.
const CLOSED_MS: u64 = 1_000;
/// Maximum wait for a closed or replaced file that is written as a whole, in milliseconds.
const CLOSED_PATIENCE_MS: u64 = 60_000;
/// Time without a change after which a polled file is read, in milliseconds: the next look shows whether its writer has
/// finished.
const SEEN_MS: u64 = 2 * LOOK_MS + CLOSED_MS;
/// Time without a write after which an open file is read that is written as a whole, in milliseconds, such as a slow download:
/// its writer has been forgotten.
pub(super) const OPEN_MS: u64 = 30_000;
/// Maximum wait for such a file while its writer goes on, in milliseconds.
pub(super) const OPEN_PATIENCE_MS: u64 = 600_000;

/// Changed files. Each is waited for by itself: one that never gets finished delays no other.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    files: HashMap<u64, (Pace, Debounce)>,
    /// When all are looked at even without a change.
    again: Option<Instant>,
}

impl Changes {
    /// Notes a change.
    pub fn note(&mut self, now: Instant, change: &Change) {
        let new = (change.pace, Debounce::default());
        let (_, debounce) = self.files.entry(change.file).or_insert(new);
        debounce.note(now, change);
    }

    /// Schedules a look at all files in `millis`, unless a change comes first.
    pub fn look_again(&mut self, now: Instant, millis: u64) {
        self.again = Some(now + millis);
    }

    /// Time of the next look. `None` if none is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let files = self.files.values();
        let deadlines = files.filter_map(|(_, debounce)| debounce.deadline());
        deadlines.chain(self.again).min()
    }

    /// True if the wait for one of them is over. It begins again with its next change.
    pub fn take_due(&mut self, now: Instant) -> bool {
        let before = self.files.len();
        self.files
            .retain(|_, (_, debounce)| !debounce.take_due(now));
        let is_due = self.files.len() < before || self.again.is_some_and(|at| at <= now);
        if is_due {
            self.again = None;
        }
        is_due
    }

    /// Files that may be incomplete: they are being written.
    #[must_use]
    pub fn open(&self) -> HashSet<u64> {
        self.those(|_, debounce| debounce.is_open())
    }

    /// Files that are being written, and those whose writers may not have finished.
    #[must_use]
    pub fn unfinished(&self) -> HashSet<u64> {
        self.those(|pace, _| pace == Pace::Whole)
    }

    fn those(&self, are: impl Fn(Pace, &Debounce) -> bool) -> HashSet<u64> {
        let files = self.files.iter();
        let meant = files.filter(|(_, (pace, debounce))| are(*pace, debounce));
        meant.map(|(file, _)| *file).collect()
    }
}

/// Waits for the writer to finish, with a limit.
#[derive(Clone, Debug, Default)]
pub struct Debounce {
    /// Changes that were not taken yet.
    waiting: Option<HeldChange>,
    /// Files that their writers have open.
    open: HashSet<u64>,
}

#[derive(Clone, Copy, Debug)]
struct HeldChange {
    first: Instant,
    /// End of the wait if nothing else happens.
    quiet_at: Instant,
    /// End of the wait in any case, except for [`BREATH_MS`] after the latest change.
    last: Instant,
    latest: Instant,
}

impl Debounce {
    /// Notes a change.
    pub fn note(&mut self, now: Instant, change: &Change) {
        let was_open = self.is_open();
        match (change.pace, change.what) {
            (Pace::Whole, FileEvent::Written) => {
                self.open.insert(change.file);
            }
            (Pace::Whole, FileEvent::Closed | FileEvent::Replaced | FileEvent::Seen) => {
                self.open.remove(&change.file);
            }
            (Pace::Live, _) => {}
        }
        let (quiet_ms, patience_ms) = match (change.pace, change.what) {
            _ if self.is_open() => (OPEN_MS, OPEN_PATIENCE_MS),
            (Pace::Live, _) => (QUIET_MS, LIVE_PATIENCE_MS),
            (Pace::Whole, FileEvent::Replaced) => (QUIET_MS, CLOSED_PATIENCE_MS),
            (Pace::Whole, FileEvent::Closed | FileEvent::Written) => {
                (CLOSED_MS, CLOSED_PATIENCE_MS)
            }
            (Pace::Whole, FileEvent::Seen) => (SEEN_MS, CLOSED_PATIENCE_MS),
        };
        // When the last of several writers has finished, the wait begins again.
        let before = self.waiting.filter(|_| !was_open || self.is_open());
        let first = before.map_or(now, |before| before.first);
        let quiet_at = now + quiet_ms;
        self.waiting = Some(HeldChange {
            first,
            quiet_at: before.map_or(quiet_at, |before| before.quiet_at.max(quiet_at)),
            last: first + patience_ms,
            latest: now,
        });
    }

    /// Time of the next look. `None` if none is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.waiting.map(|waiting| {
            // A file that never rests for that long is not waited for either.
            let breath = (waiting.latest + BREATH_MS).min(waiting.last + QUIET_MS);
            waiting.quiet_at.min(waiting.last.max(breath))
        })
    }

    /// True if a writer has it open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// True if the wait is over. It begins again with the next change.
    pub fn take_due(&mut self, now: Instant) -> bool {
        let is_due = self.deadline().is_some_and(|deadline| deadline <= now);
        if is_due {
            self.waiting = None;
            self.open.clear();
        }
        is_due
    }
}
