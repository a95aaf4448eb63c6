//! Changes of network devices and addresses, from rtnetlink's multicast groups (rtnetlink(7)), and the parts of its messages that
//! other modules here read.

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto,
    socket,
};
use std::os::fd::{AsRawFd as _, OwnedFd};

/// Devices made, changed and removed; VLAN devices are devices.
const RTMGRP_LINK: u32 = 1;
const RTMGRP_IPV4_IFADDR: u32 = 0x10;
const RTMGRP_IPV6_IFADDR: u32 = 0x100;
/// linux/netlink.h and linux/rtnetlink.h: message types.
pub(super) const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
pub(super) const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
/// Request flags: for one device, and for all.
pub(super) const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
/// Bits of an attribute's type that are not flags.
const NLA_TYPE_MASK: u16 = 0x3fff;
/// Bytes of struct nlmsghdr, of struct ifinfomsg, and of struct nlattr.
pub(super) const HEADER_LEN: usize = 16;
pub(super) const DEVICE_LEN: usize = 16;
const ATTRIBUTE_LEN: usize = 4;
/// Bytes for one reply of the kernel.
pub(super) const ROOM: usize = 32 * 1024;

/// Notes changes from its creation on.
#[derive(Debug)]
pub struct Changes {
    /// `None` if the kernel refused; then changes are assumed at all times.
    socket: Option<OwnedFd>,
}

impl Changes {
    /// Starts to note changes. If the kernel refuses, [`Self::take`] is always true.
    #[must_use]
    pub fn watch() -> Self {
        let socket = open();
        if let Err(errno) = &socket {
            log::warn!("rtnetlink: {errno}; devices and addresses are read every second");
        }
        Self {
            socket: socket.ok(),
        }
    }

    /// Becomes readable on a change, until [`Self::take`] is called. `None` if the kernel refused.
    #[must_use]
    pub fn watched(&self) -> Option<OwnedFd> {
        self.socket.as_ref()?.try_clone().ok()
    }

    /// True if anything has changed since the last call, or since the start.
    #[must_use]
    pub fn take(&self) -> bool {
        let Some(socket) = &self.socket else {
            return true;
        };
        let mut room = [0; ROOM];
        let mut changed = false;
        // Bound: the messages in the kernel's buffer; those that arrive meanwhile are a reason to read again anyway.
        loop {
            match recv(socket.as_raw_fd(), &mut room, MsgFlags::MSG_DONTWAIT) {
                Err(Errno::EAGAIN) => return changed,
                // Lost messages (ENOBUFS) are changes, too.
                Ok(_) | Err(Errno::ENOBUFS | Errno::EINTR) => changed = true,
                Err(_) => return true,
            }
        }
    }
}

/// A fresh rtnetlink socket.
pub(super) fn route_socket() -> nix::Result<OwnedFd> {
    socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )
}

/// Sends a request to the kernel. Its reply, or the first part, is available on return.
pub(super) fn ask(socket: &OwnedFd, question: &[u8]) -> nix::Result<()> {
    let kernel = NetlinkAddr::new(0, 0);
    sendto(
        socket.as_raw_fd(),
        question,
        &kernel,
        MsgFlags::MSG_DONTWAIT,
    )?;
    Ok(())
}

/// Reads the kernel's reply, or its next part: so many bytes of `room`, which has [`ROOM`].
pub(super) fn answer(socket: &OwnedFd, room: &mut [u8]) -> nix::Result<usize> {
    recv(socket.as_raw_fd(), room, MsgFlags::MSG_DONTWAIT)
}

fn open() -> nix::Result<OwnedFd> {
    let socket = route_socket()?;
    let groups = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(socket)
}

/// Requests all devices of a family, and calls `take` with each message's payload.
pub(super) fn dump_links(
    family: u8,
    attributes: &[u8],
    mut take: impl FnMut(&[u8]),
) -> nix::Result<()> {
    let socket = route_socket()?;
    let question = get_link(NLM_F_REQUEST | NLM_F_DUMP, family, 0, attributes);
    ask(&socket, &question)?;
    let mut room = vec![0; ROOM];
    // Bound: the kernel marks the end, and has the next part ready whenever one was read.
    loop {
        let len = answer(&socket, &mut room)?;
        if take_messages(&room[..len], &mut take)? {
            return Ok(());
        }
    }
}

/// Parses the messages. True if the last one of a dump is among them.
fn take_messages(mut octets: &[u8], take: &mut impl FnMut(&[u8])) -> nix::Result<bool> {
    // Bound: each round consumes at least a header.
    while !octets.is_empty() {
        let len = u32_at(octets, 0).ok_or(Errno::EPROTO)? as usize;
        let message = octets.get(..len).ok_or(Errno::EPROTO)?;
        let said = message.get(HEADER_LEN..).ok_or(Errno::EPROTO)?;
        match u16_at(message, 4) {
            Some(NLMSG_DONE) => return Ok(true),
            Some(NLMSG_ERROR) => return Err(error_of(message)),
            Some(RTM_NEWLINK) => take(said),
            Some(_) | None => {}
        }
        octets = octets.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// The error in a message.
pub(super) fn error_of(message: &[u8]) -> Errno {
    let errno = u32_at(message, HEADER_LEN).unwrap_or(0);
    Errno::from_raw((errno as i32).wrapping_neg())
}

/// Builds a request for one device, or for all of a family.
pub(super) fn get_link(flags: u16, family: u8, index: u32, attributes: &[u8]) -> Vec<u8> {
    let len = HEADER_LEN + DEVICE_LEN + attributes.len();
    let mut message = Vec::with_capacity(len);
    message.extend((len as u32).to_ne_bytes());
    message.extend(RTM_GETLINK.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    // Sequence number and port ID.
    message.extend([0; 8]);
    // Family, padding and device type.
    message.extend([family, 0, 0, 0]);
    message.extend(index.to_ne_bytes());
    // Flags and change mask.
    message.extend([0; 8]);
    message.extend(attributes);
    message
}

/// Encodes an attribute.
pub(super) fn with(kind: u16, value: &[u8]) -> Vec<u8> {
    let len = ATTRIBUTE_LEN + value.len();
    let mut octets = (len as u16).to_ne_bytes().to_vec();
    octets.extend(kind.to_ne_bytes());
    octets.extend(value);
    octets.resize(len.next_multiple_of(4), 0);
    octets
}

/// Attributes with their kinds, up to the first incomplete one.
pub(super) fn attributes(mut octets: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    // Bound: each consumes at least four octets.
    std::iter::from_fn(move || {
        let len = usize::from(u16_at(octets, 0)?);
        let kind = u16_at(octets, 2)? & NLA_TYPE_MASK;
        let value = octets.get(ATTRIBUTE_LEN..len)?;
        octets = octets.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// Value of the first attribute of this kind.
pub(super) fn attribute(octets: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(octets).find_map(|(kind, value)| (kind == wanted).then_some(value))
}

pub(super) fn u16_at(octets: &[u8], at: usize) -> Option<u16> {
    let octets = octets.get(at..)?.first_chunk()?;
    Some(u16::from_ne_bytes(*octets))
}

pub(super) fn u32_at(octets: &[u8], at: usize) -> Option<u32> {
    let octets = octets.get(at..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*octets))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, said: &[u8]) -> Vec<u8> {
        let len = (HEADER_LEN + said.len()) as u32;
        let mut octets = len.to_ne_bytes().to_vec();
        octets.extend(kind.to_ne_bytes());
        octets.resize(HEADER_LEN, 0);
        octets.extend(said);
        octets.resize(octets.len().next_multiple_of(4), 0);
        octets
    }

    #[test]
    fn a_dump_is_over_when_the_kernel_says_so_and_an_error_is_one() {
        let read = |octets: &[u8]| {
            let mut said = Vec::new();
            let over = take_messages(octets, &mut |message: &[u8]| said.push(message.to_vec()));
            (over, said)
        };
        let (one, other) = (message(RTM_NEWLINK, b"one"), message(RTM_NEWLINK, b"two"));
        let done = message(NLMSG_DONE, &[0; 4]);
        let both = vec![b"one".to_vec(), b"two".to_vec()];
        assert_eq!(
            read(&[one.clone(), other.clone()].concat()),
            (Ok(false), both.clone())
        );
        let all = [one.clone(), message(1, b""), other, done].concat();
        assert_eq!(read(&all), (Ok(true), both));
        let refused = message(NLMSG_ERROR, &(-libc::EPERM).to_ne_bytes());
        assert_eq!(read(&refused).0, Err(Errno::EPERM));
        for len in 1..one.len() - 1 {
            assert_eq!(read(&one[..len]).0, Err(Errno::EPROTO), "{len}");
        }
        // A length of 0 would never advance.
        assert_eq!(read(&[0; 64]).0, Err(Errno::EPROTO));
    }

    #[test]
    fn all_devices_are_many_messages_and_lo_is_among_them() {
        let mut count = 0;
        let dumped = dump_links(0, &[], |said| {
            count += u32::from(u32_at(said, 4) == Some(1));
        });
        assert_eq!((dumped, count), (Ok(()), 1));
    }
}
