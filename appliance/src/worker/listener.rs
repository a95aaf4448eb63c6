//! The kernel's UDP sockets: they answer queries that XDP passes, and all queries where there is no AF_XDP.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd;

use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, sockopt};

use crate::os::holder::{self, Protocol};
use crate::os::socket::bind;

/// Receive buffer in bytes: a burst of a few thousand queries while the worker is busy.
const RECEIVE_BUFFER: usize = 1 << 20;

/// Addresses that a worker can listen on, unless it starts with more.
pub const LISTENERS_MAX: usize = xdnsd_abi::LISTEN_MAX as usize;

/// Kernel sockets for a worker, each with its place among the worker's listeners.
#[derive(Debug, Default)]
pub struct Listeners {
    /// Non-blocking.
    pub udp: Vec<(u16, UdpSocket)>,
    /// Non-blocking; one worker has them all.
    pub tcp: Vec<(u16, TcpListener)>,
    /// Places to close first: the machine has lost the address, or has it on a device that is not served.
    pub left: Vec<u16>,
}

impl Listeners {
    /// True if there is nothing to open or close.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.udp.is_empty() && self.tcp.is_empty() && self.left.is_empty()
    }

    /// Places of the sockets to open.
    #[must_use]
    pub fn places(&self) -> Vec<u16> {
        let udp = self.udp.iter().map(|(place, _)| *place);
        udp.chain(self.tcp.iter().map(|(place, _)| *place))
            .collect()
    }
}

/// Fixed table by place, for a worker's listeners.
#[derive(Debug)]
pub struct ListenerTable<T>(Box<[Option<T>]>);

impl<T> ListenerTable<T> {
    /// Empty places: `count`, and at least [`LISTENERS_MAX`].
    pub fn new(count: usize) -> Self {
        let count = count.max(LISTENERS_MAX);
        Self((0..count).map(|_| None).collect())
    }

    /// Stores `item` at `place`, replacing what was there. A place beyond the table: the item is dropped, and so closed.
    pub fn put(&mut self, place: u16, item: T) {
        if let Some(slot) = self.0.get_mut(usize::from(place)) {
            *slot = Some(item);
        }
    }

    /// Empties `place`.
    pub fn remove(&mut self, place: u16) {
        if let Some(slot) = self.0.get_mut(usize::from(place)) {
            *slot = None;
        }
    }

    /// The item at `place`.
    pub fn get(&self, place: u16) -> Option<&T> {
        self.0.get(usize::from(place))?.as_ref()
    }

    /// All items, with their places.
    pub fn iter_with_places(&self) -> impl Iterator<Item = (u16, &T)> {
        let places = self.0.iter().enumerate();
        places.filter_map(|(place, item)| Some((place as u16, item.as_ref()?)))
    }

    /// All items.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().flatten()
    }
}

/// Opens a UDP socket on `address`. Several workers share one address (SO_REUSEPORT: the kernel spreads queries over them). The
/// address may be absent: an interface may come up later (IP_FREEBIND).
///
/// # Errors
/// The system call that failed, with the address.
pub fn open_udp(address: SocketAddr) -> io::Result<UdpSocket> {
    open(address).map_err(|(call, errno)| {
        let error = io::Error::from(errno);
        let problem = match call {
            "bind" => holder::explain(Protocol::Udp, address, &error),
            _ => format!("UDP {address}: {call}: {}", errno.desc()),
        };
        io::Error::new(error.kind(), problem)
    })
}

fn open(address: SocketAddr) -> Result<UdpSocket, (&'static str, nix::Error)> {
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
        socket::setsockopt(borrowed, sockopt::Ipv6RecvPacketInfo, &true)
            .map_err(|errno| ("IPV6_RECVPKTINFO", errno))?;
    } else {
        socket::setsockopt(borrowed, sockopt::Ipv4PacketInfo, &true)
            .map_err(|errno| ("IP_PKTINFO", errno))?;
    }
    // Capped by net.core.rmem_max, which is no error.
    let _ = socket::setsockopt(borrowed, sockopt::RcvBuf, &RECEIVE_BUFFER);
    bind(&fd, address).map_err(|errno| ("bind", errno))?;
    Ok(UdpSocket::from(fd))
}
