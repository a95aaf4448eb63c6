//! Clients whose request has not arrived yet. All of them are waited for together, so a silent one delays no other; if there is
//! no room for another, the oldest is closed.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{PATIENCE, REQUEST_BYTES_MAX, handover, log_client};

/// Maximum number of clients that are waited for at once, besides those not yet accepted.
pub(super) const ARRIVING_MAX: usize = 4;

/// Maximum bytes of all unfinished requests.
pub const BYTES: usize = ARRIVING_MAX * REQUEST_BYTES_MAX;

/// A client, and the bytes that it has sent so far.
#[derive(Debug)]
pub(super) struct Arriving {
    client: UnixStream,
    /// Deadline, which further bytes do not extend.
    over: Instant,
    /// Bytes, up to [`REQUEST_BYTES_MAX`].
    request: Vec<u8>,
    /// Descriptor that came with them.
    brought: Option<OwnedFd>,
}

/// A request that has arrived.
#[derive(Debug)]
pub(super) struct ReadRequest {
    /// The client.
    pub client: UnixStream,
    /// A line with its newline; or an invalid one: too long, cut short, or not UTF-8.
    pub request: String,
    /// Descriptor that came with it.
    pub brought: Option<OwnedFd>,
}

/// Clients by age, the oldest first. When full, the first is closed for the next.
#[derive(Debug, Default)]
pub(super) struct PendingRequests(Vec<Arriving>);

impl Arriving {
    /// Reads the available bytes without waiting. True if the request is complete.
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
    /// Waits until a request arrives, a deadline passes, or a new client can be accepted. Returns the arrived requests, and
    /// whether there is a new client.
    pub(super) fn wait(&mut self, listener: &UnixListener) -> (Vec<ReadRequest>, bool) {
        let timeout = self.0.first().map_or(PollTimeout::NONE, |first| {
            let left = first.over.saturating_duration_since(Instant::now());
            // Rounded up to whole milliseconds, so that the deadline has passed.
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        });
        let mut sources: Vec<PollFd<'_>> = [listener.as_fd()]
            .into_iter()
            .chain(self.0.iter().map(|arriving| arriving.client.as_fd()))
            .map(|source| PollFd::new(source, PollFlags::POLLIN))
            .collect();
        // Interrupted or out of memory: all are looked at.
        let is_polled = poll(&mut sources, timeout).is_ok();
        let is_new = !is_polled || sources[0].any() != Some(false);
        (self.take(Instant::now()), is_new)
    }

    /// Takes the requests that have arrived. Drops clients past their deadline at `now`, and those with a broken connection.
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

    /// Adds a client. Returns the one that has to go for it.
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
