//! Binds sockets for questions to the interface and the source address that a server is configured with.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd};

use nix::sys::socket::{self, SockaddrStorage, setsockopt};
use xdnsd_core::forward::via::Destination;

use crate::os::socket::BindToIfindex;

/// Binds a new socket to the interface of `to`, if it names one. To be called first: the interface, or the VRF that it is, decides
/// which addresses are local.
///
/// # Errors
/// The kernel refuses the interface.
pub fn bind_interface(socket: &impl AsFd, to: Destination) -> nix::Result<()> {
    match i32::try_from(to.egress.interface) {
        Ok(0) | Err(_) => Ok(()),
        Ok(index) => setsockopt(socket, BindToIfindex, &index),
    }
}

/// Binds a socket to the source address of `to`, if it names one; the kernel draws the port.
///
/// # Errors
/// The address is not on this machine.
pub fn bind_source(socket: &impl AsRawFd, to: Destination) -> nix::Result<()> {
    if to.egress.source.is_none() {
        return Ok(());
    }
    let local = SockaddrStorage::from(local_address(to, 0));
    socket::bind(socket.as_raw_fd(), &local)
}

/// Local address of a socket for `to`: its source address and `port`, or all addresses of its family.
#[must_use]
pub fn local_address(to: Destination, port: u16) -> SocketAddr {
    match (to.address, to.egress.source) {
        (SocketAddr::V4(_), Some(IpAddr::V4(source))) => (source, port).into(),
        (SocketAddr::V6(_), Some(IpAddr::V6(source))) => {
            SocketAddrV6::new(source, port, 0, scope(to)).into()
        }
        (SocketAddr::V4(_), _) => (Ipv4Addr::UNSPECIFIED, port).into(),
        (SocketAddr::V6(_), _) => (Ipv6Addr::UNSPECIFIED, port).into(),
    }
}

/// Zone of link-local addresses on the way to `to`: of the server, or else of its interface.
#[must_use]
pub const fn scope(to: Destination) -> u32 {
    match to.address {
        SocketAddr::V6(v6) if v6.scope_id() != 0 => v6.scope_id(),
        SocketAddr::V4(_) | SocketAddr::V6(_) => to.egress.interface,
    }
}
