//! What a worker leaves for the log. It never logs itself: the supervisor reads, once a second at most.

use std::sync::{Mutex, PoisonError};

use xdnsd_core::dns::Name;
use xdnsd_core::engine::Notice;

/// The latest notice. Full: a newer one takes the place of the older; the counters have them all.
#[derive(Debug)]
pub struct NoticeBoard(Mutex<Option<(Notice, Name)>>);

impl NoticeBoard {
    /// Nothing to say.
    #[must_use]
    pub const fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// Puts a notice up, unless somebody reads at this moment.
    pub(super) fn put(&self, notice: Notice, name: &Name) {
        if let Ok(mut latest) = self.0.try_lock() {
            *latest = Some((notice, *name));
        }
    }

    /// Takes the notice down.
    pub fn take(&self) -> Option<(Notice, Name)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Default for NoticeBoard {
    fn default() -> Self {
        Self::new()
    }
}
