//! Detects that a file system was mounted or unmounted. inotify does not report a mount: it goes on watching the folder below,
//! which is hidden then.

use std::fs::File;
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// The mount table, which is never read. It becomes readable with an error when it changes.
#[derive(Debug)]
pub struct Mounts(Option<File>);

impl Mounts {
    /// Opens it. Without /proc changes go unnoticed.
    pub fn open() -> Self {
        Self(File::open("/proc/thread-self/mountinfo").ok())
    }

    /// True if it has changed since the last call (proc_pid_mounts(5)). Does not wait.
    pub fn have_changed(&self) -> bool {
        let Some(table) = &self.0 else {
            return false;
        };
        let mut fds = [PollFd::new(table.as_fd(), PollFlags::POLLPRI)];
        let has_changed = |flags: PollFlags| flags.contains(PollFlags::POLLPRI);
        poll(&mut fds, PollTimeout::ZERO).is_ok() && fds[0].revents().is_some_and(has_changed)
    }
}
