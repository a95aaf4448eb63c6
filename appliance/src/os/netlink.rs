//! Whether network devices or addresses have changed: rtnetlink's multicast groups (rtnetlink(7)).

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use std::os::fd::{AsRawFd as _, OwnedFd};

/// Devices made, changed and removed; VLAN devices are devices.
const RTMGRP_LINK: u32 = 1;
const RTMGRP_IPV4_IFADDR: u32 = 0x10;
const RTMGRP_IPV6_IFADDR: u32 = 0x100;
/// Messages taken out at once; what they say is not read.
const ROOM: usize = 16 * 1024;

/// Notes changes from its making on.
#[derive(Debug)]
pub struct Changes {
    /// `None`: it could not be had, so that everything may have changed at any time.
    socket: Option<OwnedFd>,
}

impl Changes {
    /// Starts to note. A kernel that refuses makes [`Self::take`] say yes always.
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

    /// Readable when something has changed, until [`Self::take`] was called. `None`: it cannot be waited for.
    #[must_use]
    pub fn watched(&self) -> Option<OwnedFd> {
        self.socket.as_ref()?.try_clone().ok()
    }

    /// Whether something has changed since the last call, or since the start.
    #[must_use]
    pub fn take(&self) -> bool {
        let Some(socket) = &self.socket else {
            return true;
        };
        let mut room = [0; ROOM];
        let mut changed = false;
        // Bound: as many messages as the kernel's buffer holds; what comes meanwhile is a reason to look again anyway.
        loop {
            match recv(socket.as_raw_fd(), &mut room, MsgFlags::MSG_DONTWAIT) {
                Err(Errno::EAGAIN) => return changed,
                // Lost ones (ENOBUFS) are changes too.
                Ok(_) | Err(Errno::ENOBUFS | Errno::EINTR) => changed = true,
                Err(_) => return true,
            }
        }
    }
}

/// A socket of rtnetlink, which nothing is asked by yet.
pub(super) fn route_socket() -> nix::Result<OwnedFd> {
    socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )
}

fn open() -> nix::Result<OwnedFd> {
    let socket = route_socket()?;
    let groups = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(socket)
}
