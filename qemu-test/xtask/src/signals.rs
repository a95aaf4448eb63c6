//! Waiting for Ctrl-C, so that cleanup runs.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

/// Catches the signals that ask this program to end, while it runs.
///
/// They are handled rather than blocked, since children would inherit the block.
#[derive(Debug)]
pub struct Signals {
    /// Readable once a signal has arrived.
    receiver: UnixStream,
}

impl Signals {
    /// Catches SIGINT, SIGTERM and SIGHUP from now on.
    pub fn catch() -> Result<Self> {
        let (receiver, sender) = UnixStream::pair().context("make a pair of sockets")?;
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            let sender = sender.try_clone().context("duplicate a socket")?;
            pipe::register(signal, sender).with_context(|| format!("catch signal {signal}"))?;
        }
        Ok(Self { receiver })
    }

    /// True if a signal has arrived; waits up to `timeout`. It is reported again at the next call.
    #[must_use]
    pub fn wait(&self, timeout: Duration) -> bool {
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(self.receiver.as_fd(), PollFlags::POLLIN)];
        // If interrupted by the signal itself, its byte is written by then.
        let ready = poll(&mut fds, timeout).or_else(|_| poll(&mut fds, PollTimeout::ZERO));
        ready.is_ok_and(|ready| ready > 0)
    }
}
