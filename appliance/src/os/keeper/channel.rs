//! Messages with descriptors on a lane: a UNIX socket of kind SOCK_SEQPACKET (unix(7)).

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use nix::errno::Errno;
use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// Most descriptors that come with a message: the maps of the largest object. The kernel closes further ones.
pub const DESCRIPTORS_MAX: usize = 16;

/// Descriptors that came with a message.
pub type Descriptors = heapless::Vec<OwnedFd, DESCRIPTORS_MAX>;

/// Sends a message.
///
/// # Errors
/// The other end is closed (EPIPE), or sendmsg(2) failed.
pub fn send(lane: BorrowedFd<'_>, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> nix::Result<()> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(Errno::EMSGSIZE);
    }
    loop {
        match sendmsg(
            lane,
            &[IoSlice::new(bytes)],
            &mut control,
            SendFlags::NOSIGNAL,
        ) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(Errno::from_raw(errno.raw_os_error())),
        }
    }
}

/// Waits for a message; returns its length, and adds its descriptors. 0: the other end is closed.
///
/// # Errors
/// The message is longer than `bytes` (EMSGSIZE), or recvmsg(2) failed.
pub fn receive(
    lane: BorrowedFd<'_>,
    bytes: &mut [u8],
    descriptors: &mut Descriptors,
) -> nix::Result<usize> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut parts = [IoSliceMut::new(bytes)];
        match recvmsg(lane, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(received) => break received,
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(Errno::from_raw(errno.raw_os_error())),
        }
    };
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(brought) = message {
            // What finds no room is closed.
            brought.for_each(|descriptor| drop(descriptors.push(descriptor)));
        }
    }
    if received.flags.contains(ReturnFlags::TRUNC) {
        return Err(Errno::EMSGSIZE);
    }
    Ok(received.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::os::fd::AsFd as _;

    fn lane() -> (OwnedFd, OwnedFd) {
        use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
        let kind = (SocketType::SEQPACKET, SocketFlags::CLOEXEC);
        socketpair(AddressFamily::UNIX, kind.0, kind.1, None).expect("a pair")
    }

    #[test]
    fn a_descriptor_that_is_sent_leads_to_the_same_file() {
        let (ours, theirs) = lane();
        let (mut from, into) = std::io::pipe().expect("a pipe");
        send(ours.as_fd(), b"two", &[into.as_fd(), into.as_fd()]).expect("sent");
        drop(into);
        let (mut bytes, mut came) = ([0; 4], Descriptors::new());
        assert_eq!(receive(theirs.as_fd(), &mut bytes, &mut came), Ok(3));
        assert_eq!((&bytes[..3], came.len()), (&b"two"[..], 2));
        let mut file = std::fs::File::from(came.pop().expect("two came"));
        file.write_all(b"x").expect("it can be written to");
        drop((file, came));
        let mut read = String::new();
        from.read_to_string(&mut read).expect("it ends");
        assert_eq!(read, "x");
    }

    #[test]
    fn messages_stay_apart_and_one_that_is_too_long_is_none() {
        let (ours, theirs) = lane();
        for message in [&b"one"[..], b"longer", b"2"] {
            send(ours.as_fd(), message, &[]).expect("sent");
        }
        let mut bytes = [0; 4];
        let mut next = || receive(theirs.as_fd(), &mut bytes, &mut Descriptors::new());
        assert_eq!(next(), Ok(3));
        assert_eq!(next(), Err(Errno::EMSGSIZE));
        assert_eq!(next(), Ok(1));
        drop(ours);
        assert_eq!(next(), Ok(0), "the end");
        assert_eq!(send(theirs.as_fd(), b"x", &[]), Err(Errno::EPIPE));
    }
}
