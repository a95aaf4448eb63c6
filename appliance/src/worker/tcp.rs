//! DNS over TCP for clients (RFC 7766): fixed slots, pipelining, answers in whatever order they come.
//!
//! A slot holds one query as it arrives; of a query that is longer than a slot the rest is read and forgotten. Answers go straight into the kernel's send buffer, which is large enough for
//! the longest message, so nothing has to be kept here. A client that does not read its answers until that buffer is
//! full is closed; one that asks more than it may have in flight is not read from until an answer is out.

use std::cmp::Reverse;
use std::io::{self, IoSlice, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};

use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::socket::{
    self, AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, sockopt,
};
use xdnsd_core::limits::{TCP_CLIENTS, TCP_MESSAGE_MAX, TCP_QUERY_MAX};
use xdnsd_core::policy::OnLink;
use xdnsd_core::time::Instant;

use super::events::{Source, watch};
use super::listener::Places;

/// Length prefix (RFC 1035 section 4.2.2).
const PREFIX: usize = 2;
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 128;
/// Send buffer of a connection in bytes: the longest answer twice, as the kernel counts its own overhead in.
const SEND_BUFFER: usize = 2 * (TCP_MESSAGE_MAX + PREFIX);
/// Bytes of a query behind what a slot holds are read in pieces of this size.
const PIECE: usize = 512;
/// A query has to arrive whole within this time, in milliseconds.
pub const QUERY_MS: u64 = 5_000;
/// Questions of one connection that may be in flight: then it is not read from until one is answered.
const IN_FLIGHT_MAX: u8 = 64;

/// Which connection: the slot, and the how manieth that stands in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpClient {
    slot: u16,
    turn: u32,
}

struct Connection {
    stream: TcpStream,
    peer: SocketAddr,
    /// Whom it counts for.
    holder: IpAddr,
    /// Bytes of the query that are there, prefix included.
    filled: usize,
    /// When the first of them came; if there are none, when the last query was whole or the last answer was out.
    since: Instant,
    in_flight: u8,
    /// The client has said all it had to say.
    ended: bool,
}

struct Slot {
    connection: Option<Connection>,
    turn: u32,
    buffer: [u8; PREFIX + TCP_QUERY_MAX],
}

/// The TCP side of the worker that serves it. Full: the connection that has been idle longest makes room.
pub struct Tcp {
    listeners: Places<TcpListener>,
    slots: Box<[Slot]>,
    idle_ms: u64,
}

/// Bytes of the slots, for the memory budget.
pub const SLOTS_BYTES: usize = TCP_CLIENTS * size_of::<Slot>();

/// What reading from a connection brought.
#[derive(Debug)]
pub enum Arrived {
    /// Nothing whole yet.
    Nothing,
    /// A query of so many bytes, copied into the caller's buffer.
    Query(usize),
    /// The connection is closed.
    Closed,
}

/// Opens a TCP socket on `address`; as for UDP, the address need not be there yet.
///
/// # Errors
/// The system call that failed, with the address.
pub fn open_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let open = || -> nix::Result<TcpListener> {
        let family = if address.is_ipv4() {
            AddressFamily::Inet
        } else {
            AddressFamily::Inet6
        };
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let fd = socket::socket(family, SockType::Stream, flags, None)?;
        socket::setsockopt(&fd.as_fd(), sockopt::ReuseAddr, &true)?;
        socket::setsockopt(&fd.as_fd(), sockopt::IpFreebind, &true)?;
        if address.is_ipv6() {
            socket::setsockopt(&fd.as_fd(), sockopt::Ipv6V6Only, &true)?;
        }
        // Accepted connections inherit it.
        socket::setsockopt(&fd.as_fd(), sockopt::SndBuf, &SEND_BUFFER)?;
        socket::bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
        socket::listen(&fd, Backlog::new(BACKLOG)?)?;
        Ok(TcpListener::from(fd))
    };
    open().map_err(|errno| {
        let kind = io::Error::from(errno).kind();
        io::Error::new(kind, format!("TCP {address}: {}", errno.desc()))
    })
}

impl Tcp {
    /// Empty slots, for `listeners` at the start; without any, this worker never serves TCP. A connection may be idle for
    /// `idle_ms`.
    pub fn new(listeners: usize, idle_ms: u64) -> Self {
        let slot = |_| Slot {
            connection: None,
            turn: 0,
            buffer: [0; PREFIX + TCP_QUERY_MAX],
        };
        let count = if listeners == 0 { 0 } else { TCP_CLIENTS };
        Self {
            listeners: Places::new(listeners),
            slots: (0..count).map(slot).collect(),
            idle_ms,
        }
    }

    /// Accepts connections of `listener` from now on.
    ///
    /// # Errors
    /// epoll_ctl(2) failed.
    pub fn listen(&mut self, place: u16, listener: TcpListener, epoll: &Epoll) -> io::Result<()> {
        watch(epoll, listener.as_fd(), Source::TcpListener(place))?;
        self.listeners.put(place, listener);
        Ok(())
    }

    /// Accepts one connection; false: none waits.
    pub fn accept(
        &mut self,
        listener: u16,
        now: Instant,
        on_link: OnLink<'_>,
        epoll: &Epoll,
    ) -> bool {
        let Some(listener) = self.listeners.get(listener) else {
            return false;
        };
        let (stream, peer) = match listener.accept() {
            Ok(accepted) => accepted,
            // The client is gone already; there may be others.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => return true,
            Err(_) => return false,
        };
        let holder = on_link.share_of(peer.ip());
        let Some(index) = self.free_slot(holder) else {
            return true;
        };
        let ready = stream.set_nonblocking(true).is_ok()
            && stream.set_nodelay(true).is_ok()
            && epoll.add(stream.as_fd(), event(index as u16)).is_ok();
        if ready {
            let slot = &mut self.slots[index];
            slot.turn = slot.turn.wrapping_add(1);
            slot.connection = Some(Connection {
                stream,
                peer,
                holder,
                filled: 0,
                since: now,
                in_flight: 0,
                ended: false,
            });
        }
        true
    }

    /// A slot without a connection for `holder`, made free if need be: the one that has been idle for the longest time; where
    /// every client waits for an answer, the oldest of a client that has nothing more to say and may be gone, or else of
    /// the client that has the most connections, if it has more than `holder` then has.
    fn free_slot(&mut self, holder: IpAddr) -> Option<usize> {
        let free = self.slots.iter().position(|slot| slot.connection.is_none());
        if free.is_some() {
            return free;
        }
        let rank = |slot: &Slot| {
            let connection = slot.connection.as_ref()?;
            let waits = connection.in_flight > 0;
            (!waits || connection.ended).then_some((waits, connection.since))
        };
        let candidates = self.slots.iter().enumerate();
        let dispensable = candidates
            .filter_map(|(index, slot)| Some((index, rank(slot)?)))
            .min_by_key(|&(_, rank)| rank);
        let index = match dispensable {
            Some((index, _)) => index,
            None => self.of_the_greediest(holder)?,
        };
        self.slots[index].connection = None;
        Some(index)
    }

    /// The oldest connection of the client that has the most, at least two more than `holder`.
    fn of_the_greediest(&self, holder: IpAddr) -> Option<usize> {
        let connections = || {
            let slots = self.slots.iter().enumerate();
            slots.filter_map(|(index, slot)| Some((index, slot.connection.as_ref()?)))
        };
        let held = |client: IpAddr| {
            let same = |(_, other): &(usize, &Connection)| other.holder == client;
            connections().filter(same).count()
        };
        let fair = held(holder) + 2;
        connections()
            .map(|(index, connection)| {
                let count = held(connection.holder);
                (count, Reverse((connection.since, index)))
            })
            .filter(|(count, ..)| *count >= fair)
            .max()
            .map(|(_, Reverse((_, index)))| index)
    }

    /// Reads from the connection in slot `index`: at most one query, into `query`.
    pub fn read(&mut self, index: u16, now: Instant, query: &mut [u8]) -> Arrived {
        let Some(slot) = self.slots.get_mut(usize::from(index)) else {
            return Arrived::Nothing;
        };
        let Slot {
            connection, buffer, ..
        } = slot;
        let Some(open) = connection else {
            return Arrived::Nothing;
        };
        match open.read(buffer, now) {
            Ok(Some(len)) => {
                query[..len].copy_from_slice(&buffer[PREFIX..PREFIX + len]);
                Arrived::Query(len)
            }
            Ok(None) if !open.ended || open.in_flight > 0 => Arrived::Nothing,
            Ok(None) | Err(_) => {
                *connection = None;
                Arrived::Closed
            }
        }
    }

    /// The client in slot `index`, and its address.
    pub fn client(&self, index: u16) -> Option<(TcpClient, SocketAddr)> {
        let slot = self.slots.get(usize::from(index))?;
        let connection = slot.connection.as_ref()?;
        let client = TcpClient {
            slot: index,
            turn: slot.turn,
        };
        Some((client, connection.peer))
    }

    /// Notes that an answer will come later.
    pub fn expect(&mut self, client: TcpClient) {
        if let Some(connection) = self.connection(client) {
            connection.in_flight = connection.in_flight.saturating_add(1);
        }
    }

    /// Sends the answer that was expected. Whether it went out.
    pub fn reply_later(
        &mut self,
        client: TcpClient,
        message: &[u8],
        now: Instant,
        epoll: &Epoll,
    ) -> bool {
        let Some(connection) = self.connection(client) else {
            return false;
        };
        let was_full = connection.in_flight >= IN_FLIGHT_MAX;
        connection.in_flight = connection.in_flight.saturating_sub(1);
        if connection.filled == 0 {
            connection.since = now;
        }
        let sent = self.reply(client, message);
        if was_full {
            self.wait(client.slot, epoll);
        }
        sent
    }

    /// Notes that the answer that was expected does not come.
    pub fn forget(&mut self, client: TcpClient) {
        if let Some(connection) = self.connection(client) {
            connection.in_flight = connection.in_flight.saturating_sub(1);
        }
    }

    /// Waits for more from the connection in slot `index`, unless it has ended or asked too much.
    pub fn wait(&self, index: u16, epoll: &Epoll) {
        let slot = self.slots.get(usize::from(index));
        let Some(connection) = slot.and_then(|slot| slot.connection.as_ref()) else {
            return;
        };
        if !connection.ended && connection.in_flight < IN_FLIGHT_MAX {
            // Fails only for a descriptor that was never added.
            let _ = epoll.modify(connection.stream.as_fd(), &mut event(index));
        }
    }

    /// Sends an answer. A client that does not take it whole is closed: it does not read.
    pub fn reply(&mut self, client: TcpClient, message: &[u8]) -> bool {
        let Some(connection) = self.connection(client) else {
            return false;
        };
        let Ok(len) = u16::try_from(message.len()) else {
            return false;
        };
        let prefix = len.to_be_bytes();
        let parts = [IoSlice::new(&prefix), IoSlice::new(message)];
        let sent = connection.stream.write_vectored(&parts);
        let whole = sent.is_ok_and(|sent| sent == PREFIX + message.len());
        let is_done = connection.ended && connection.in_flight == 0;
        if !whole || is_done {
            self.slots[usize::from(client.slot)].connection = None;
        }
        whole
    }

    fn connection(&mut self, client: TcpClient) -> Option<&mut Connection> {
        let slot = self.slots.get_mut(usize::from(client.slot))?;
        slot.connection
            .as_mut()
            .filter(|_| slot.turn == client.turn)
    }

    /// Closes what has been idle, or slow, for too long. Returns when to look again.
    pub fn expire(&mut self, now: Instant) -> Option<Instant> {
        let mut next = None;
        for slot in &mut self.slots {
            let Some(connection) = &slot.connection else {
                continue;
            };
            let patience = if connection.filled > 0 {
                QUERY_MS
            } else {
                self.idle_ms
            };
            // Patience begins when the last answer is out.
            let is_idle = connection.in_flight == 0;
            let deadline = if is_idle { connection.since } else { now } + patience;
            if deadline <= now {
                slot.connection = None;
            } else {
                next = Some(next.unwrap_or(deadline).min(deadline));
            }
        }
        next
    }
}

/// One event per wait: a client that has ended, or may not ask more, does not keep the worker awake.
fn event(slot: u16) -> EpollEvent {
    let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT;
    EpollEvent::new(flags, Source::TcpClient(slot).to_bits())
}

impl Connection {
    /// Reads until one query is whole (`Some`, with the length of what the buffer holds of it), or nothing more is there
    /// (`None`).
    fn read(
        &mut self,
        buffer: &mut [u8; PREFIX + TCP_QUERY_MAX],
        now: Instant,
    ) -> io::Result<Option<usize>> {
        if self.in_flight >= IN_FLIGHT_MAX {
            return Ok(None);
        }
        // Bound: each round reads more of one query, which its length bounds.
        loop {
            let wanted = match self.filled {
                0..PREFIX => PREFIX,
                _ => PREFIX + usize::from(u16::from_be_bytes([buffer[0], buffer[1]])),
            };
            if self.filled >= PREFIX && self.filled == wanted {
                self.filled = 0;
                self.since = now;
                return Ok(Some(wanted.min(buffer.len()) - PREFIX));
            }
            let mut piece = [0; PIECE];
            let room = match buffer.get_mut(self.filled..wanted.min(PREFIX + TCP_QUERY_MAX)) {
                Some(room) if !room.is_empty() => room,
                Some(_) | None => &mut piece[..(wanted - self.filled).min(PIECE)],
            };
            match self.stream.read(room) {
                Ok(0) => {
                    self.ended = true;
                    return Ok(None);
                }
                Ok(count) => {
                    if self.filled == 0 {
                        self.since = now;
                    }
                    self.filled += count;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}
