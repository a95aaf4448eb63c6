//! Clients whose request has not arrived yet. All of them are waited for together, so a silent one holds up no other; where one more
//! comes than fit, the oldest is closed.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{PATIENCE, REQUEST_BYTES_MAX, handover, log_client};

/// Clients that are waited for at the same time, beside those that wait to be accepted.
pub(super) const ARRIVING_MAX: usize = 4;

/// What all of them may have sent without its end.
pub const BYTES: usize = ARRIVING_MAX * REQUEST_BYTES_MAX;

/// A client, and what it has sent so far.
#[derive(Debug)]
pub(super) struct Arriving {
    client: UnixStream,
    /// When it is given up, whatever arrives by then: a byte now and then lasts no longer than silence does.
    over: Instant,
    /// Cut at [`REQUEST_BYTES_MAX`].
    request: Vec<u8>,
    /// A descriptor that came along.
    brought: Option<OwnedFd>,
}

/// A client that has sent what it had to.
#[derive(Debug)]
pub(super) struct ReadRequest {
    /// Who.
    pub client: UnixStream,
    /// A line with its end; or an invalid one: too long, cut short, or not UTF-8.
    pub request: String,
    /// A descriptor that came along.
    pub brought: Option<OwnedFd>,
}

/// All of them, those first who have been waited for longest. A full table lets the first one go for the next.
#[derive(Debug, Default)]
pub(super) struct PendingRequests(Vec<Arriving>);

impl Arriving {
    /// Takes what is there, without waiting. Whether that is all that is wanted of it.
    fn read(&mut self) -> io::Result<bool> {
        loop {
            let mut buffer = [0; REQUEST_BYTES_MAX];
            let room = REQUEST_BYTES_MAX - self.request.len();
            let received = handover::receive(&self.client, &mut buffer[..room], &mut self.brought);
            let len = match received {
                Ok(len) => len,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            };
            self.request.extend_from_slice(&buffer[..len]);
            if let Some(end) = self.request.iter().position(|byte| *byte == b'\n') {
                self.request.truncate(end + 1);
                return Ok(true);
            }
            if len == 0 || self.request.len() == REQUEST_BYTES_MAX {
                return Ok(true);
            }
        }
    }

    fn arrived(self) -> ReadRequest {
        ReadRequest {
            client: self.client,
            request: String::from_utf8_lossy(&self.request).into_owned(),
            brought: self.brought,
        }
    }
}

impl PendingRequests {
    /// Waits until a request has arrived, somebody's time is over, or somebody new wants to be accepted. Gives whose request
    /// has arrived, and whether there is somebody new.
    pub(super) fn wait(&mut self, listener: &UnixListener) -> (Vec<ReadRequest>, bool) {
        let timeout = self.0.first().map_or(PollTimeout::NONE, |first| {
            let left = first.over.saturating_duration_since(Instant::now());
            // The next whole millisecond: not before it is over.
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        });
        let mut sources: Vec<PollFd<'_>> = [listener.as_fd()]
            .into_iter()
            .chain(self.0.iter().map(|arriving| arriving.client.as_fd()))
            .map(|source| PollFd::new(source, PollFlags::POLLIN))
            .collect();
        // Interrupted, or without memory: everybody is looked at.
        let is_polled = poll(&mut sources, timeout).is_ok();
        let is_new = !is_polled || sources[0].any() != Some(false);
        (self.take(Instant::now()), is_new)
    }

    /// Whose request is there. Whose time is over by `now`, and whose connection is broken, is left.
    pub(super) fn take(&mut self, now: Instant) -> Vec<ReadRequest> {
        let mut taken = Vec::new();
        for mut arriving in std::mem::take(&mut self.0) {
            match arriving.read() {
                Ok(true) => taken.push(arriving.arrived()),
                Ok(false) if arriving.over > now => self.0.push(arriving),
                Ok(false) => log_client(Err(ErrorKind::TimedOut.into())),
                Err(error) => log_client(Err(error)),
            }
        }
        taken
    }

    /// Adds a client. Gives the one that has to go for it.
    pub(super) fn add(&mut self, client: UnixStream) -> Option<UnixStream> {
        let oldest = (self.0.len() == ARRIVING_MAX).then(|| self.0.remove(0).client);
        self.0.push(Arriving {
            client,
            over: Instant::now() + PATIENCE,
            request: Vec::new(),
            brought: None,
        });
        oldest
    }
}
