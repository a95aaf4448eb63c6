//! What a worker leaves for the log. It never logs itself: the supervisor reads, once a second at most.

use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use xdnsd_core::dns::Name;
use xdnsd_core::engine::Notice;

/// The latest notice. Full: a newer one takes the place of the older; the counters have them all.
#[derive(Debug)]
pub struct NoticeBoard {
    latest: Mutex<Option<(Notice, Name)>>,
    /// Why no TCP connection can be accepted; 0: nothing to say.
    trouble: AtomicI32,
}

impl NoticeBoard {
    /// Nothing to say.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            latest: Mutex::new(None),
            trouble: AtomicI32::new(0),
        }
    }

    /// Puts a notice up, unless somebody reads at this moment.
    pub(super) fn put(&self, notice: Notice, name: &Name) {
        if let Ok(mut latest) = self.latest.try_lock() {
            *latest = Some((notice, *name));
        }
    }

    /// Takes the notice down.
    pub fn take(&self) -> Option<(Notice, Name)> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        latest.take()
    }

    /// Puts up why TCP connections cannot be accepted, if there is something new to say.
    pub(super) fn put_trouble(&self, trouble: Option<Errno>) {
        if let Some(errno) = trouble {
            self.trouble.store(errno as i32, Ordering::Relaxed);
        }
    }

    /// Takes that down.
    pub fn take_trouble(&self) -> Option<Errno> {
        let raw = self.trouble.swap(0, Ordering::Relaxed);
        (raw != 0).then(|| Errno::from_raw(raw))
    }
}

impl Default for NoticeBoard {
    fn default() -> Self {
        Self::new()
    }
}
