//! Notices of workers for the log. A worker never logs itself: the supervisor reads them, once a second at most.

use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use xdnsd_core::dns::Name;
use xdnsd_core::engine::Notice;

/// The latest notice of all workers. Full: a newer notice replaces the older; counters count all of them.
#[derive(Debug)]
pub struct NoticeBoard {
    latest: Mutex<Option<(Notice, Name)>>,
    /// Errno of failed accepts of TCP connections; 0: none.
    trouble: AtomicI32,
}

impl NoticeBoard {
    /// An empty board.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            latest: Mutex::new(None),
            trouble: AtomicI32::new(0),
        }
    }

    /// Stores a notice; dropped while another thread holds the lock.
    pub(super) fn put(&self, notice: Notice, name: &Name) {
        if let Ok(mut latest) = self.latest.try_lock() {
            *latest = Some((notice, *name));
        }
    }

    /// Takes the notice.
    pub fn take(&self) -> Option<(Notice, Name)> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        latest.take()
    }

    /// Stores why TCP connections cannot be accepted, if there is something new.
    pub(super) fn put_trouble(&self, trouble: Option<Errno>) {
        if let Some(errno) = trouble {
            self.trouble.store(errno as i32, Ordering::Relaxed);
        }
    }

    /// Takes that errno.
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
