//! Sets of the packet filter by nfnetlink: each request and its replies.

use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

use super::message::{add, get_set, read_set};
use super::{SetFault, SetInfo, SetName};
use crate::os::netlink::{HEADER_LEN, NLMSG_ERROR, ROOM, error_of, u16_at, u32_at};

/// The packet filter of this network namespace, by a socket of this process.
#[derive(Debug)]
pub struct Direct {
    socket: OwnedFd,
    room: Vec<u8>,
}

impl Direct {
    /// Opens a socket to it.
    ///
    /// # Errors
    /// The kernel has no nfnetlink, or no descriptor is left.
    pub fn open() -> Result<Self, SetFault> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkNetFilter,
        )?;
        Ok(Self {
            socket,
            room: vec![0; ROOM / 8],
        })
    }

    /// What the set is now.
    ///
    /// # Errors
    /// It is not there, or takes no addresses.
    pub fn set(&mut self, set: &SetName) -> Result<SetInfo, SetFault> {
        self.send(&get_set(set))?;
        let len = recv(
            self.socket.as_raw_fd(),
            &mut self.room,
            MsgFlags::MSG_DONTWAIT,
        )?;
        let reply = &self.room[..len];
        match u16_at(reply, 4) {
            Some(NLMSG_ERROR) => Err(error_of(reply).into()),
            _ => read_set(reply),
        }
    }

    /// Adds addresses of the set's kind to it, all or none. In a set whose elements end by themselves each begins anew, also one that
    /// is there.
    ///
    /// # Errors
    /// The kernel's reason. An address that is there, alone or in a range, is none.
    pub fn add(
        &mut self,
        set: &SetName,
        info: SetInfo,
        addresses: &[IpAddr],
    ) -> Result<(), SetFault> {
        self.send(&add(set, info, addresses))?;
        match self.first_error()? {
            // Another element overlaps it: the address is in the set already.
            None | Some(Errno::EEXIST | Errno::ENOTEMPTY) => Ok(()),
            // The socket was allowed to ask for the set.
            Some(Errno::EPERM) => Err(SetFault::Owned),
            Some(errno) => Err(errno.into()),
        }
    }

    fn send(&self, octets: &[u8]) -> nix::Result<()> {
        let kernel = NetlinkAddr::new(0, 0);
        // What came after an earlier call is of no use.
        let mut left = [0; HEADER_LEN];
        while recv(self.socket.as_raw_fd(), &mut left, MsgFlags::MSG_DONTWAIT).is_ok() {}
        sendto(self.socket.as_raw_fd(), octets, &kernel, MsgFlags::empty())?;
        Ok(())
    }

    /// The first error of the batch that was sent. The kernel has carried it out, so all errors are there.
    fn first_error(&mut self) -> nix::Result<Option<Errno>> {
        let mut first = None;
        // Bound: the messages in the socket's buffer.
        loop {
            let received = recv(
                self.socket.as_raw_fd(),
                &mut self.room,
                MsgFlags::MSG_DONTWAIT,
            );
            let len = match received {
                Ok(len) => len,
                Err(Errno::EAGAIN) => return Ok(first),
                Err(errno) => return Err(errno),
            };
            let reply = &self.room[..len];
            let is_error = u16_at(reply, 4) == Some(NLMSG_ERROR);
            if is_error && u32_at(reply, HEADER_LEN) != Some(0) {
                first.get_or_insert(error_of(reply));
            }
        }
    }
}
