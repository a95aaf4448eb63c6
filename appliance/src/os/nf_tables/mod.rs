//! Sets of nf_tables, and addresses that are added to them by nfnetlink (linux/netfilter/nf_tables.h).
//!
//! ```text
//!  workers ── SetQueue ──► a thread: Filter::add ── one batch ──► kernel
//! ```
//! Of crates for it one links a C library, one runs `nft`, and one may not be linked to from this licence.

mod message;
mod name;
mod queue;

use std::fmt;
use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

use super::netlink::{HEADER_LEN, NLMSG_ERROR, ROOM, error_of, u16_at, u32_at};
use message::{add, get_set, read_set};

pub use name::{AddressFamilies, SetName};
pub use queue::{COUNTS, FoundAddress, InSets, PLACES, SetQueue, SetWork};

/// What decides how an address is added to a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetInfo {
    /// True if its keys are IPv6 addresses, else IPv4's.
    pub is_v6: bool,
    /// True if its elements are ranges.
    pub is_interval: bool,
    /// True if its elements end by themselves.
    pub has_timeout: bool,
}

impl SetInfo {
    /// True if it has place for addresses of this kind.
    #[must_use]
    pub const fn takes(&self, address: IpAddr) -> bool {
        address.is_ipv6() == self.is_v6
    }
}

/// Why an address is not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetFault {
    /// There is no such table, or no such set in it.
    Missing,
    /// The process may not change tables.
    Forbidden,
    /// Its table belongs to another program, which alone may change it.
    Owned,
    /// Its keys are no addresses.
    OtherKeys,
    /// It takes no elements while it is there.
    Constant,
    /// It is a map or a verdict map.
    Map,
    /// It has as many elements as its `size` says.
    Full,
    /// The kernel's reason.
    Kernel(Errno),
}

impl fmt::Display for SetFault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Missing => "there is no such set: nft list sets",
            Self::Forbidden => "CAP_NET_ADMIN is missing",
            Self::Owned => "its table belongs to another program (flags owner)",
            Self::OtherKeys => "its type is neither ipv4_addr nor ipv6_addr",
            Self::Constant => "it is constant",
            Self::Map => "it is a map",
            Self::Full => "it is full: see its size",
            Self::Kernel(errno) => return write!(formatter, "{} ({errno:?})", errno.desc()),
        };
        formatter.write_str(text)
    }
}

impl From<Errno> for SetFault {
    fn from(errno: Errno) -> Self {
        const KNOWN: [(Errno, SetFault); 3] = [
            (Errno::ENOENT, SetFault::Missing),
            (Errno::EPERM, SetFault::Forbidden),
            (Errno::ENFILE, SetFault::Full),
        ];
        let known = KNOWN.iter().find(|(known, _)| *known == errno);
        known.map_or(Self::Kernel(errno), |(_, fault)| *fault)
    }
}

/// The packet filter of this network namespace. Its calls wait while another program changes the tables.
#[derive(Debug)]
pub struct Filter {
    socket: OwnedFd,
    room: Vec<u8>,
}

impl Filter {
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

#[cfg(test)]
mod tests;
