//! Opening of the outputs, which may be FIFOs: one without a reader is waited for, but not in open(2), where no signal that is read
//! from a descriptor would be seen.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::SignalFd;

use super::told;
use crate::text;

/// Pause before the next try, in milliseconds.
const AGAIN_MILLIS: u8 = 100;

/// Opens an output, as soon as its FIFO has a reader. `None` if a signal comes first.
///
/// # Errors
/// It cannot be opened, with its path.
pub(super) fn open<T>(
    path: &Path,
    signals: &SignalFd,
    once: impl Fn() -> io::Result<T>,
) -> Result<Option<T>, String> {
    let mut is_said = false;
    loop {
        match once() {
            Ok(opened) => return Ok(Some(opened)),
            Err(error) if error.raw_os_error() == Some(Errno::ENXIO as i32) => {
                if !is_said {
                    crate::logging::print(&format!("{}: waits for a reader", text::path(path)));
                    is_said = true;
                }
            }
            Err(error) => return Err(told(path, &error)),
        }
        let mut fds = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        // Interrupted or failed: it is tried again.
        let _ = poll(&mut fds, PollTimeout::from(AGAIN_MILLIS));
        if fds[0].any().unwrap_or(false) {
            return Ok(None);
        }
    }
}

/// Opens a file for an output.
///
/// # Errors
/// It cannot be opened; ENXIO: it is a FIFO without a reader.
pub(super) fn file(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let file = options.custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    let flags = OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL)?);
    fcntl(&file, FcntlArg::F_SETFL(flags & !OFlag::O_NONBLOCK))?;
    Ok(file)
}

/// Makes a new file for an output, or empties the one that is there.
///
/// # Errors
/// As for [`file()`].
pub(super) fn new_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    file(options.write(true).create(true).truncate(true), path)
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::{SigSet, Signal, raise};
    use nix::sys::signalfd::SfdFlags;

    use super::*;
    use crate::testing::Folder;

    #[test]
    fn a_signal_ends_the_wait_for_a_reader() {
        let folder = Folder::new();
        let path = folder.path().join("fifo");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
        let mut set = SigSet::empty();
        set.add(Signal::SIGUSR1);
        set.thread_block().expect("blocked");
        raise(Signal::SIGUSR1).expect("raised");
        let signals = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC).expect("a descriptor");
        let opened = open(&path, &signals, || new_file(&path)).expect("no error");
        assert!(opened.is_none());
    }

    /// In open(2) it would wait for ever.
    #[test]
    fn a_fifo_without_a_reader_is_not_waited_for_in_open() {
        let folder = Folder::new();
        let path = folder.path().join("fifo");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
        let error = new_file(&path).expect_err("no reader");
        assert_eq!(error.raw_os_error(), Some(Errno::ENXIO as i32));
        let mut read = OpenOptions::new();
        let read = file(read.read(true), &path).expect("a reader");
        let opened = new_file(&path).expect("opened");
        for file in [&opened, &read] {
            let flags = fcntl(file, FcntlArg::F_GETFL).expect("flags");
            assert!(!OFlag::from_bits_retain(flags).contains(OFlag::O_NONBLOCK));
        }
    }
}
