//! A request with a descriptor, on a connection that stays: a reader of the tap brings the memory for its rings.
//!
//! ```text
//!  client: tap 1 ...\n  + a memfd (SCM_RIGHTS)
//!  daemon: ok\n                                   and the connection stays, for as long as the client reads
//! ```

use std::io::{self, BufRead as _, BufReader, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use super::{CommandError, ERROR, OK, PATIENCE, connect, connection_failed};
use crate::text;

/// A reader that brought memory and stays connected.
#[derive(Debug)]
pub struct AttachedReader {
    /// The memory.
    pub memory: OwnedFd,
    /// Closed when the reader goes.
    pub connection: UnixStream,
}

/// Admits a reader; gets the words after the request's name.
pub type Admit = Box<dyn Fn(&[&str], AttachedReader) -> Result<(), String> + Send + Sync>;

/// Reads a client's bytes without waiting, and takes the descriptor that comes with them. The kernel closes any further ones.
pub(super) fn receive(
    client: &UnixStream,
    buffer: &mut [u8],
    brought: &mut Option<OwnedFd>,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let mut parts = [IoSliceMut::new(buffer)];
    let received = recvmsg(client, &mut parts, &mut control, flags)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            *brought = descriptors.last().or(brought.take());
        }
    }
    Ok(received.bytes)
}

/// Carries out a request with a descriptor.
pub(super) fn admit(
    admit: Option<&Admit>,
    words: &str,
    client: &UnixStream,
    brought: Option<OwnedFd>,
) -> Result<(), CommandError> {
    let refused = |problem: &str| CommandError::Refused(problem.into());
    let admit = admit.ok_or_else(|| refused("nothing can be read here"))?;
    let memory = brought.ok_or_else(|| refused("no memory came with it"))?;
    let guest = AttachedReader {
        memory,
        connection: client.try_clone()?,
    };
    let words: Vec<&str> = words.split_ascii_whitespace().collect();
    admit(&words, guest).map_err(CommandError::Refused)
}

/// Client side: sends `memory` with `request`, and returns the connection that stays.
///
/// # Errors
/// No daemon answers at `path`, or the daemon reports a problem.
pub fn hand_over(path: &Path, request: &str, memory: BorrowedFd<'_>) -> io::Result<UnixStream> {
    let failed = |error: io::Error| connection_failed(path, PATIENCE, &error);
    let daemon = connect(path, PATIENCE).map_err(failed)?;
    let line = format!("{request}\n");
    let descriptors = [memory];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    let parts = [IoSlice::new(line.as_bytes())];
    let sent = sendmsg(daemon.as_fd(), &parts, &mut control, SendFlags::NOSIGNAL);
    let sent = sent.map_err(|errno| failed(errno.into()))?;
    if sent < line.len() {
        return Err(io::Error::other("the request was not sent whole"));
    }
    let mut status = String::new();
    // The daemon sends only this line, so the buffer swallows nothing that comes later.
    BufReader::new(&daemon)
        .read_line(&mut status)
        .map_err(failed)?;
    match status.trim_end() {
        OK => Ok(daemon),
        said => {
            let problem = said.strip_prefix(ERROR).unwrap_or("no answer");
            Err(io::Error::other(text::line(problem).into_owned()))
        }
    }
}
