//! One connected UDP socket per question, closed with it.
//!
//! The kernel delivers to it only what the server sends to the very address and port that asked, and the ICMP errors that quote
//! both (udp(7), IP_RECVERR reports transient ones too). The local address is the server's own, or follows from the route to it.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::epoll::Epoll;
use nix::sys::socket::{
    self, AddressFamily, MsgFlags, SockFlag, SockType, SockaddrStorage, setsockopt, sockopt,
};
use xdnsd_core::forward::via::{Destination, NoPort};
use xdnsd_core::limits::UPSTREAM_SOCKETS;

use super::{PORT_MIN, PortEvent, candidates, no_port};
use crate::os::random::Entropy;
use crate::worker::egress;
use crate::worker::events::{EventSource, watch};

/// Most errors of one socket that are skipped per receive.
const ERRORS_MAX: usize = 8;

#[derive(Debug)]
struct QuestionSocket {
    /// True until the question closes it.
    is_open: bool,
    /// The local port.
    number: u16,
    socket: Option<UdpSocket>,
    question: u16,
}

/// The sockets of one worker. Full: `open` fails with [`NoPort::Full`], and the caller closes one.
#[derive(Debug)]
pub struct Connected {
    places: [QuestionSocket; UPSTREAM_SOCKETS],
    free: heapless::Vec<u16, UPSTREAM_SOCKETS>,
}

const _: () = assert!(
    UPSTREAM_SOCKETS <= PORT_MIN as usize,
    "the names of places are no ports"
);

impl Connected {
    /// Without open sockets.
    #[must_use]
    pub fn new() -> Self {
        Self {
            places: [const {
                QuestionSocket {
                    is_open: false,
                    number: 0,
                    socket: None,
                    question: 0,
                }
            }; UPSTREAM_SOCKETS],
            free: (0..UPSTREAM_SOCKETS as u16).rev().collect(),
        }
    }

    /// Opens a socket for `question` to `to`.
    ///
    /// # Errors
    /// [`NoPort::Full`] without a free place; otherwise the system call's error, such as no route to `to` or no descriptor left.
    pub fn open(
        &mut self,
        to: Destination,
        question: u16,
        epoll: &Epoll,
        entropy: &mut Entropy,
    ) -> Result<u16, NoPort> {
        let place = self.free.pop().ok_or(NoPort::Full)?;
        let opened = connect(to, entropy).and_then(|(socket, number)| {
            watch(epoll, socket.as_fd(), EventSource::Connected(place))?;
            Ok((socket, number))
        });
        let (socket, number) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                // Has room: the place was just popped.
                let _ = self.free.push(place);
                return Err(why(&error));
            }
        };
        self.places[usize::from(place)] = QuestionSocket {
            is_open: true,
            number,
            socket: Some(socket),
            question,
        };
        Ok(place)
    }

    /// Closes a socket.
    pub fn close(&mut self, place: u16) {
        let Some(found) = self.places.get_mut(usize::from(place)) else {
            return;
        };
        found.socket = None;
        if std::mem::take(&mut found.is_open) {
            // Has room: a place is open once.
            let _ = self.free.push(place);
        }
    }

    /// Local port of an open place.
    #[must_use]
    pub fn number(&self, place: u16) -> u16 {
        let found = self.places.get(usize::from(place));
        found.map_or(0, |found| found.number)
    }

    /// Question that a place was opened for.
    #[must_use]
    pub fn question(&self, place: u16) -> u16 {
        let found = self.places.get(usize::from(place));
        found.map_or(u16::MAX, |found| found.question)
    }

    /// Sends `message`.
    ///
    /// # Errors
    /// The message was not sent.
    pub fn send(&self, place: u16, message: &[u8]) -> Result<(), NoPort> {
        let socket = self
            .places
            .get(usize::from(place))
            .and_then(|place| place.socket.as_ref());
        let sent = socket.ok_or(NoPort::Failed)?.send(message);
        sent.map(drop).map_err(|error| why(&error))
    }

    /// Receives from the socket at `place`.
    pub fn receive(&mut self, place: u16, buffer: &mut [u8]) -> PortEvent {
        let Some(found) = self.places.get_mut(usize::from(place)) else {
            return PortEvent::Nothing;
        };
        let question = found.question;
        let Some(receiver) = &found.socket else {
            return PortEvent::Nothing;
        };
        for _ in 0..ERRORS_MAX {
            match receiver.recv_from(buffer) {
                // May be from another host, if it arrived before the socket was connected.
                Ok((len, from)) => {
                    return PortEvent::Message {
                        port: place,
                        question,
                        len,
                        from,
                    };
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return PortEvent::Nothing;
                }
                // Path MTU: smaller packets arrive, so this is no loss.
                Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => drop_error(receiver),
                Err(_) => {
                    // Closed, since the kernel reports a pending error again at once.
                    found.socket = None;
                    return PortEvent::Unreachable {
                        port: place,
                        question,
                        id: None,
                    };
                }
            }
        }
        // The next event reports the rest.
        PortEvent::Nothing
    }
}

fn why(error: &io::Error) -> NoPort {
    no_port(Errno::from_raw(error.raw_os_error().unwrap_or_default()))
}

/// Takes the first error from the queue of `socket`, which polls as readable while the queue has one (ip(7), IP_RECVERR).
fn drop_error(socket: &UdpSocket) {
    let nowhere: &mut [u8] = &mut [];
    // Fails if the queue is empty, which is fine.
    let _ = socket::recv(socket.as_raw_fd(), nowhere, MsgFlags::MSG_ERRQUEUE);
}

/// Opens a socket on a random free port, connects it, and returns both.
fn connect(to: Destination, entropy: &mut Entropy) -> io::Result<(UdpSocket, u16)> {
    let family = match to.address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket::socket(family, SockType::Datagram, flags, None)?;
    match to.address {
        SocketAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?,
        SocketAddr::V6(_) => {
            setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
            setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?;
        }
    }
    egress::bind_interface(&socket, to)?;
    let number = bind(&socket, to, entropy)?;
    socket::connect(socket.as_raw_fd(), &SockaddrStorage::from(to.address))?;
    Ok((socket.into(), number))
}

/// Binds to a free port and returns it. Without a source address of its own, that follows from the route, once connected.
fn bind(socket: &OwnedFd, to: Destination, entropy: &mut Entropy) -> nix::Result<u16> {
    for port in candidates(entropy) {
        let local = SockaddrStorage::from(egress::local_address(to, port));
        match socket::bind(socket.as_raw_fd(), &local) {
            Err(Errno::EADDRINUSE | Errno::EACCES) => {}
            done => return done.map(|()| port),
        }
    }
    Err(Errno::EADDRINUSE)
}
