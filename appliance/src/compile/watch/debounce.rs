//! When whoever writes a file has finished.

use std::collections::HashSet;

use xdnsd_core::time::Instant;

use super::{Change, LOOK_MS, Pace, What};

/// A file that is written in one go is read when nothing happened to it for so long …
const QUIET_MS: u64 = 200;
/// … or, where writing to it does not end, after so long.
const PATIENCE_MS: u64 = 2_000;
/// It is not read at the very moment of a change, though: dnsmasq empties its lease file, and then writes it.
const BREATH_MS: u64 = 20;
/// A file that was written in place and closed: its writer may open it again, as a script does that puts parts together.
const CLOSED_MS: u64 = 1_000;
/// It is read at last although that does not end.
const CLOSED_PATIENCE_MS: u64 = 60_000;
/// One that is looked at by time: whether its writer has finished shows at the next look.
const SEEN_MS: u64 = 2 * LOOK_MS + CLOSED_MS;
/// One that is written as a whole and is still open: a slow download. Whoever writes nothing for so long has been
/// forgotten.
pub(super) const OPEN_MS: u64 = 30_000;
/// Such a file is read at last although its writer goes on.
pub(super) const OPEN_PATIENCE_MS: u64 = 600_000;

/// Waits until whoever writes has finished, but not for ever.
#[derive(Clone, Debug, Default)]
pub struct Debounce {
    /// What is not dealt with yet.
    waiting: Option<Waiting>,
    /// Files whose writers have them open.
    open: HashSet<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    first: Instant,
    /// Nothing else happens: it is over then.
    quiet_at: Instant,
    /// It is over then whatever happens, but for [`BREATH_MS`] after the latest change.
    last: Instant,
    latest: Instant,
    /// What there is may not be all: the next change tells, and has the usual wait.
    is_more: bool,
}

impl Debounce {
    /// Something has changed.
    pub fn note(&mut self, now: Instant, change: &Change) {
        let was_open = self.is_open();
        match (change.pace, change.what) {
            (Pace::Whole, What::Written) => {
                self.open.insert(change.file);
            }
            (Pace::Whole, What::Closed | What::Replaced | What::Seen) => {
                self.open.remove(&change.file);
            }
            (Pace::Live, _) => {}
        }
        let (quiet_ms, patience_ms) = match (change.pace, change.what) {
            _ if self.is_open() => (OPEN_MS, OPEN_PATIENCE_MS),
            (Pace::Live, _) => (QUIET_MS, PATIENCE_MS),
            (Pace::Whole, What::Replaced) => (QUIET_MS, CLOSED_PATIENCE_MS),
            (Pace::Whole, What::Closed | What::Written) => (CLOSED_MS, CLOSED_PATIENCE_MS),
            (Pace::Whole, What::Seen) => (SEEN_MS, CLOSED_PATIENCE_MS),
        };
        // When the last of those who write has finished, the wait begins anew.
        let before = self.waiting.filter(|_| !was_open || self.is_open());
        let first = before.map_or(now, |before| before.first);
        let quiet_at = now + quiet_ms;
        let longer = before.filter(|before| !before.is_more);
        self.waiting = Some(Waiting {
            first,
            quiet_at: longer.map_or(quiet_at, |before| before.quiet_at.max(quiet_at)),
            last: first + patience_ms,
            latest: now,
            is_more: false,
        });
    }

    /// Waits on, as long as for a file that is written without end: a file was found that cannot be all.
    pub fn wait_on(&mut self, now: Instant) {
        let end = now + PATIENCE_MS;
        self.waiting = Some(Waiting {
            first: now,
            quiet_at: end,
            last: end,
            latest: now,
            is_more: true,
        });
    }

    /// When to look again. `None`: nothing is waited for.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.waiting.map(|waiting| {
            // Who never stops for so long is not waited for either.
            let breath = (waiting.latest + BREATH_MS).min(waiting.last + QUIET_MS);
            waiting.quiet_at.min(waiting.last.max(breath))
        })
    }

    /// Whether somebody is writing.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// Whether the wait is over. It begins anew with the next change.
    pub fn take_due(&mut self, now: Instant) -> bool {
        let is_due = self.deadline().is_some_and(|deadline| deadline <= now);
        if is_due {
            self.waiting = None;
            self.open.clear();
        }
        is_due
    }
}
