//! The UDP sockets towards the upstreams: a pool of random source ports that change.
//!
//! An answer is believed when it comes to the right port with the right ID (RFC 5452). A port lives for a while, then
//! a new random one takes its place; the old one still receives for as long as a question can be in flight.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;

use nix::sys::epoll::Epoll;
use xdnsd_core::limits::UPSTREAM_SOCKETS;
use xdnsd_core::time::Instant;

use super::entropy::Entropy;
use super::events::{Source, watch};

/// A port is changed after this many questions,
const USES_MAX: u32 = 64;
/// but not sooner than this: by then every question that went out through the port before it is answered or given up.
const AGE_MIN_MS: u64 = 6_000;
/// Lowest random port: those below are reserved (RFC 6335 section 6).
const PORT_MIN: u16 = 1024;
/// Random ports that are tried before the kernel chooses.
const PORT_TRIES: usize = 8;

#[derive(Debug)]
struct Place {
    /// The one that sends and the one before it, which only receives what is late.
    sockets: [Option<UdpSocket>; 2],
    /// Which of `sockets` is the current one.
    current: usize,
    opened: Instant,
    uses: u32,
    /// When the latest question went out, in nanoseconds, where somebody wants to know.
    asked_ns: u64,
}

impl Place {
    const EMPTY: Self = Self {
        sockets: [None, None],
        current: 0,
        opened: Instant::from_millis(0),
        uses: 0,
        asked_ns: 0,
    };
}

/// The pool: `UPSTREAM_SOCKETS` places for each address family. Never full: the engine names the place.
#[derive(Debug)]
pub struct Pool {
    v4: [Place; UPSTREAM_SOCKETS],
    v6: [Place; UPSTREAM_SOCKETS],
}

impl Pool {
    /// No socket is open: each is opened when it is first used.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            v4: [Place::EMPTY; UPSTREAM_SOCKETS],
            v6: [Place::EMPTY; UPSTREAM_SOCKETS],
        }
    }

    fn place(&mut self, socket: u16, v6: bool) -> Option<&mut Place> {
        let places = if v6 { &mut self.v6 } else { &mut self.v4 };
        places.get_mut(usize::from(socket))
    }

    /// Sends `message` to `to` from the place `socket`, opening or changing its port where that is due.
    ///
    /// # Errors
    /// The socket cannot be opened, or the system call failed.
    pub fn send(
        &mut self,
        socket: u16,
        to: SocketAddr,
        message: &[u8],
        now: Instant,
        epoll: &Epoll,
        entropy: &mut Entropy,
    ) -> io::Result<()> {
        let v6 = to.is_ipv6();
        let place = self.place(socket, v6).ok_or(io::ErrorKind::NotFound)?;
        let due = place.uses >= USES_MAX && now.millis_since(place.opened) >= AGE_MIN_MS;
        if place.sockets[place.current].is_none() || due {
            let other = 1 - place.current;
            let opened = open(v6, entropy)?;
            let source = Source::Upstream {
                socket,
                v6,
                side: other as u8,
            };
            watch(epoll, opened.as_fd(), source)?;
            // What stood there before is closed; it has not sent for at least AGE_MIN_MS.
            place.sockets[other] = Some(opened);
            place.current = other;
            place.opened = now;
            place.uses = 0;
        }
        place.uses += 1;
        let sender = place.sockets[place.current]
            .as_ref()
            .ok_or(io::ErrorKind::NotConnected)?;
        sender.send_to(message, to).map(|_| ())
    }

    /// Keeps when the latest question went out from the place `socket`.
    pub fn note_asked(&mut self, socket: u16, v6: bool, now_ns: u64) {
        if let Some(place) = self.place(socket, v6) {
            place.asked_ns = now_ns;
        }
    }

    /// What [`Pool::note_asked`] kept.
    pub fn asked_ns(&mut self, socket: u16, v6: bool) -> Option<u64> {
        self.place(socket, v6).map(|place| place.asked_ns)
    }

    /// Receives one message from one side of the place; `None`: nothing is there.
    pub fn receive(
        &mut self,
        socket: u16,
        v6: bool,
        side: u8,
        buffer: &mut [u8],
    ) -> Option<(usize, SocketAddr)> {
        let place = self.place(socket, v6)?;
        let receiver = place.sockets.get(usize::from(side))?.as_ref()?;
        loop {
            match receiver.recv_from(buffer) {
                Ok(received) => return Some(received),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // An ICMP error that the kernel remembered is taken off; there may be messages behind it.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(_) => return None,
            }
        }
    }
}

/// Opens a socket on a random port of the wide range that is free.
fn open(v6: bool, entropy: &mut Entropy) -> io::Result<UdpSocket> {
    let unspecified = |port| -> SocketAddr {
        if v6 {
            (Ipv6Addr::UNSPECIFIED, port).into()
        } else {
            (Ipv4Addr::UNSPECIFIED, port).into()
        }
    };
    let mut bound = None;
    for _ in 0..PORT_TRIES {
        let span = u32::from(u16::MAX - PORT_MIN) + 1;
        let port = PORT_MIN + (entropy.next_u32() % span) as u16;
        if let Ok(socket) = UdpSocket::bind(unspecified(port)) {
            bound = Some(socket);
            break;
        }
    }
    let socket = match bound {
        Some(socket) => socket,
        None => UdpSocket::bind(unspecified(0))?,
    };
    socket.set_nonblocking(true)?;
    Ok(socket)
}
