//! The kernel's UDP sockets: they answer what XDP passed up, and everything where there is no AF_XDP.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::AsFd;

use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage, sockopt};

/// Receive buffer in bytes: a burst of a few thousand queries while the worker is busy.
const RECEIVE_BUFFER: usize = 1 << 20;

/// Opens a UDP socket on `address`. Several workers share one address (SO_REUSEPORT: the kernel spreads clients over
/// them). The address need not be there yet: an interface may come up later (IP_FREEBIND). `scope` is the interface
/// index for link-local addresses.
///
/// # Errors
/// The system call that failed, with the address.
pub fn open_udp(address: SocketAddr, scope: u32) -> io::Result<UdpSocket> {
    open(address, scope).map_err(|(call, errno)| {
        let kind = io::Error::from(errno).kind();
        io::Error::new(kind, format!("UDP {address}: {call}: {}", errno.desc()))
    })
}

fn open(address: SocketAddr, scope: u32) -> Result<UdpSocket, (&'static str, nix::Error)> {
    let family = if address.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = socket::socket(family, SockType::Datagram, flags, None)
        .map_err(|errno| ("socket", errno))?;
    let borrowed = &fd.as_fd();
    socket::setsockopt(borrowed, sockopt::ReusePort, &true)
        .map_err(|errno| ("SO_REUSEPORT", errno))?;
    socket::setsockopt(borrowed, sockopt::IpFreebind, &true)
        .map_err(|errno| ("IP_FREEBIND", errno))?;
    if address.is_ipv6() {
        socket::setsockopt(borrowed, sockopt::Ipv6V6Only, &true)
            .map_err(|errno| ("IPV6_V6ONLY", errno))?;
    }
    // As much of it as net.core.rmem_max permits; less is no fault.
    let _ = socket::setsockopt(borrowed, sockopt::RcvBuf, &RECEIVE_BUFFER);
    let bound = SockaddrStorage::from(scoped(address, scope));
    socket::bind(std::os::fd::AsRawFd::as_raw_fd(&fd), &bound).map_err(|errno| ("bind", errno))?;
    Ok(UdpSocket::from(fd))
}

/// A link-local address is only complete with its interface (RFC 4007).
pub fn scoped(address: SocketAddr, scope: u32) -> SocketAddr {
    match address.ip() {
        IpAddr::V6(v6) if v6.is_unicast_link_local() => {
            SocketAddrV6::new(v6, address.port(), 0, scope).into()
        }
        IpAddr::V4(_) | IpAddr::V6(_) => address,
    }
}
