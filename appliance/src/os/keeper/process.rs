//! The fence around fork(2): one process becomes the server and its keeper.

use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::sync::Mutex;

use nix::errno::Errno;
use nix::unistd::{ForkResult, fork};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::{LANES, OURS};

/// Which of the two processes this is.
#[derive(Debug)]
pub enum Side {
    /// The server, the process that was there before.
    Server,
    /// The keeper, with its ends of the lanes.
    Keeper([OwnedFd; LANES]),
}

/// Splits the process, once. In the keeper, other threads than the caller's are gone, and what they had locked stays locked: it
/// must not log before it has left the log.
///
/// # Errors
/// There is no process or no descriptor left.
pub fn split() -> nix::Result<Side> {
    let pair = || {
        let flags = SocketFlags::CLOEXEC;
        let made = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
        made.map_err(|errno| Errno::from_raw(errno.raw_os_error()))
    };
    let pairs = [pair()?, pair()?, pair()?];
    // SAFETY: besides the caller's there is at most the log's thread, which writes to descriptors and takes no lock but the C
    // library's for memory; the libraries that this is built with (glibc, musl) have that one free in the child.
    match unsafe { fork() }? {
        ForkResult::Parent { .. } => {
            let ours = pairs.map(|(ours, _)| Mutex::new(ours));
            let is_first = OURS.set(ours).is_ok();
            assert!(is_first, "the process is split once");
            Ok(Side::Server)
        }
        ForkResult::Child => Ok(Side::Keeper(pairs.map(|(_, theirs)| theirs))),
    }
}

/// Closes all descriptors but the standard ones and the lanes. For the keeper, which never returns to who owns them.
pub fn close_others(lanes: &[OwnedFd; LANES]) {
    let kept = lanes.each_ref().map(|lane| lane.as_raw_fd());
    let names = fs::read_dir("/proc/self/fd").into_iter().flatten();
    let numbers = names.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    // All are read before the first is closed: the folder's own is among them.
    let numbers: Vec<RawFd> = numbers.collect();
    for number in numbers {
        if number > libc::STDERR_FILENO && !kept.contains(&number) {
            // SAFETY: takes a number. Whatever owns the descriptor belongs to frames that the keeper never goes back to.
            unsafe { libc::close(number) };
        }
    }
}
