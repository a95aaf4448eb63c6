//! The keeper: a small process that keeps the rights, for a server that has none. This is the server's side.
//!
//! ```text
//!  start ── fork ─┬─ keeper: NET_ADMIN, NET_RAW, BPF ...; reads requests of one size, and nothing else
//!                 │     ▲ request      │ status, descriptors (SCM_RIGHTS)
//!                 └─ server: no capability; reads bytes from outside
//! ```
//! The server stays the process that was started, so its signals, readiness and exit status need no relay. There are three
//! lanes, sockets that keep messages apart, so that a worker that wants a socket does not wait while the kernel checks a program. If
//! the keeper ends, so does the server; if the server ends, the keeper sees the end of its lanes. What is handed over ends with
//! the server: the keeper closes its own copy of a link or a socket.

mod channel;
mod message;
mod process;

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::{Mutex, OnceLock, PoisonError};

use nix::errno::Errno;

pub use channel::{DESCRIPTORS_MAX, Descriptors, receive, send};
pub use message::{
    AttachPoint, InterfaceName, LANES, Lane, MapKind, ObjectKind, REPLY_BYTES, REQUEST_BYTES,
    Refusal, Reply, Request, SocketKind,
};
pub use process::{Side, close_others, split};

/// The server's ends. Empty: there is no keeper, and this process does all by itself.
static OURS: OnceLock<[Mutex<OwnedFd>; LANES]> = OnceLock::new();

/// What came back with a request that was carried out.
#[derive(Debug)]
pub struct Granted {
    /// A number, as [`Request`] says.
    pub value: u32,
    /// Descriptors, as [`Request`] says.
    pub descriptors: Descriptors,
}

/// True if a keeper has the rights of this process.
#[must_use]
pub fn is_there() -> bool {
    OURS.get().is_some()
}

/// A descriptor that reports a hang-up (poll(2)) when the keeper has ended. `None`: there is no keeper.
#[must_use]
pub fn watched() -> Option<OwnedFd> {
    let lane = OURS.get()?[Lane::Objects as usize].lock();
    let lane = lane.unwrap_or_else(PoisonError::into_inner);
    lane.try_clone().ok()
}

/// Has the keeper carry out a request, and waits for it. Never allocates.
///
/// # Errors
/// The keeper refused, or has ended (EPIPE).
pub fn ask(request: Request, brought: Option<BorrowedFd<'_>>) -> Result<Granted, Refusal> {
    let lanes = OURS.get().ok_or(Refusal::of(Errno::EPIPE))?;
    let lane = &lanes[request.lane() as usize];
    // A request and its reply belong together.
    let lane = lane.lock().unwrap_or_else(PoisonError::into_inner);
    let brought = brought.as_slice();
    send(lane.as_fd(), &request.to_bytes(), brought).map_err(Refusal::of)?;
    let mut reply = [0; REPLY_BYTES];
    let mut descriptors = Descriptors::new();
    match receive(lane.as_fd(), &mut reply, &mut descriptors) {
        Ok(len) if len == REPLY_BYTES => {}
        Ok(_) => return Err(Refusal::of(Errno::EPIPE)),
        Err(errno) => return Err(Refusal::of(errno)),
    }
    let Reply { value } = Reply::from_bytes(&reply)?;
    Ok(Granted { value, descriptors })
}
