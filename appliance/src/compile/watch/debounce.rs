//! When the writer of a file has finished.

use std::collections::{HashMap, HashSet};

use xdnsd_core::time::Instant;

use super::{Change, LOOK_MS, Pace, What};

/// A file that is written in one go is read when nothing happened to it for so long …
const QUIET_MS: u64 = 200;
/// … or, where writing to it does not end, after so long.
pub const LIVE_PATIENCE_MS: u64 = 2_000;
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

/// Files that have changed. Each is waited for by itself: one whose writer does not come to an end keeps nobody from the others.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    files: HashMap<u64, (Pace, Debounce)>,
    /// When it is looked at all of them although none has changed.
    again: Option<Instant>,
}

impl Changes {
    /// Something has changed.
    pub fn note(&mut self, now: Instant, change: &Change) {
        let new = (change.pace, Debounce::default());
        let (_, debounce) = self.files.entry(change.file).or_insert(new);
        debounce.note(now, change);
    }

    /// It is looked at all of them after so long, unless one has changed before.
    pub fn look_again(&mut self, now: Instant, millis: u64) {
        self.again = Some(now + millis);
    }

    /// When to look. `None`: nothing is waited for.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let files = self.files.values();
        let deadlines = files.filter_map(|(_, debounce)| debounce.deadline());
        deadlines.chain(self.again).min()
    }

    /// Whether the wait for one of them is over. It begins anew with its next change.
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

    /// Files of which there may be half by now: they are being written.
    #[must_use]
    pub fn open(&self) -> HashSet<u64> {
        self.those(|_, debounce| debounce.is_open())
    }

    /// Those, and files whose writers may not have finished.
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

/// Waits until whoever writes has finished, but not for ever.
#[derive(Clone, Debug, Default)]
pub struct Debounce {
    /// What is not dealt with yet.
    waiting: Option<HeldChange>,
    /// Files whose writers have them open.
    open: HashSet<u64>,
}

#[derive(Clone, Copy, Debug)]
struct HeldChange {
    first: Instant,
    /// Nothing else happens: it is over then.
    quiet_at: Instant,
    /// It is over then whatever happens, but for [`BREATH_MS`] after the latest change.
    last: Instant,
    latest: Instant,
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
            (Pace::Live, _) => (QUIET_MS, LIVE_PATIENCE_MS),
            (Pace::Whole, What::Replaced) => (QUIET_MS, CLOSED_PATIENCE_MS),
            (Pace::Whole, What::Closed | What::Written) => (CLOSED_MS, CLOSED_PATIENCE_MS),
            (Pace::Whole, What::Seen) => (SEEN_MS, CLOSED_PATIENCE_MS),
        };
        // When the last of those who write has finished, the wait begins anew.
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
