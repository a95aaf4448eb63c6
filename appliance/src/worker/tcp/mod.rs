//! DNS over TCP for clients (RFC 7766): fixed slots, pipelining, answers in whatever order they come.
//!
//! A slot holds one query as it arrives; of a query that is longer than a slot the rest is read and forgotten. Answers go
//! straight into the kernel's send buffer, which is large enough for the longest message, so nothing has to be kept here. A
//! client that does not read its answers until that buffer is full is closed; one that asks more than it may have in flight
//! is not read from until an answer is out.

use std::io::{self, IoSlice, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};

use crate::os::holder::{self, Protocol};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::socket::{
    self, AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, sockopt,
};
use xdnsd_core::limits::{TCP_CLIENTS, TCP_MESSAGE_MAX, TCP_QUERY_MAX};
use xdnsd_core::policy::Policy;
use xdnsd_core::time::Instant;

use super::arrival::{Arrivals, Ingress};
use super::events::EventSource;
use super::listener::Places;
use crate::os::socket::arrival_of;

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
/// The fair share of connections when all slots are taken: a client above it gives way first.
const SHARE: usize = if TCP_CLIENTS < 8 { 1 } else { TCP_CLIENTS / 8 };
/// A new connection has this time for its first query before it counts as idle, in milliseconds.
const GRACE_MS: u64 = 1_000;
/// In a crowd, a connection on which nothing was asked for so long goes before those that wait for answers, in milliseconds: who
/// connects to ask does so at once.
const ASK_MS: u64 = 100;
/// How long no connection is accepted where the system has no descriptor or no memory for one, in milliseconds. The
/// listener stays ready meanwhile, and would wake the worker each time it waits.
const PAUSE_MS: u64 = 200;
/// Trouble that comes again within this time is the same, in milliseconds.
const SAME_TROUBLE_MS: u64 = 60_000;

/// Which connection: the slot and its generation, so that a reused slot is not mistaken for the old client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpClient {
    slot: u16,
    generation: u32,
}

struct Connection {
    stream: TcpStream,
    peer: SocketAddr,
    /// Where what it asks is counted.
    ingress: Ingress,
    /// Index of the device that it came by; 0: nobody knows, or it is this machine itself.
    device: u32,
    /// Whom it counts for.
    holder: IpAddr,
    /// Bytes of the query that are there, prefix included.
    filled: usize,
    /// When the first of them came; if there are none, when the last query was complete or the last answer was sent.
    since: Instant,
    /// Nothing was asked yet.
    is_new: bool,
    in_flight: u8,
    /// The client has said all it had to say.
    ended: bool,
}

struct TcpSlot {
    connection: Option<Connection>,
    generation: u32,
    buffer: [u8; PREFIX + TCP_QUERY_MAX],
}

/// The TCP side of the worker that serves it. Full: see [`Tcp::gives_way`].
pub struct Tcp {
    listeners: Places<TcpListener>,
    slots: Box<[TcpSlot]>,
    idle_ms: u64,
    /// No connection is accepted until then.
    paused_until: Option<Instant>,
    /// When accepting last failed for want of descriptors or memory.
    trouble: Option<Instant>,
}

/// Bytes of the slots, for the memory budget.
pub const SLOTS_BYTES: usize = TCP_CLIENTS * size_of::<TcpSlot>();

/// What accepting brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// A connection, which was served, refused or lost: there may be more.
    One,
    /// One of somebody who is not answered: closed, and there may be more.
    Stranger,
    /// None waits.
    None,
    /// None can be had for the moment; why, where that has not been said lately.
    Paused(Option<Errno>),
}

/// What reading from a connection brought.
#[derive(Debug)]
pub enum TcpRead {
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
            socket::setsockopt(&fd.as_fd(), sockopt::Ipv6RecvPacketInfo, &true)?;
        } else {
            socket::setsockopt(&fd.as_fd(), sockopt::Ipv4PacketInfo, &true)?;
        }
        // Accepted connections inherit it.
        socket::setsockopt(&fd.as_fd(), sockopt::SndBuf, &SEND_BUFFER)?;
        socket::bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
        socket::listen(&fd, Backlog::new(BACKLOG)?)?;
        Ok(TcpListener::from(fd))
    };
    open().map_err(|errno| {
        let error = io::Error::from(errno);
        let problem = holder::explain(Protocol::Tcp, address, &error);
        io::Error::new(error.kind(), problem)
    })
}

impl Tcp {
    /// Empty slots, for `listeners` at the start; without any, this worker never serves TCP. A connection may be idle for
    /// `idle_ms`.
    pub fn new(listeners: usize, idle_ms: u64) -> Self {
        let slot = |_| TcpSlot {
            connection: None,
            generation: 0,
            buffer: [0; PREFIX + TCP_QUERY_MAX],
        };
        let count = if listeners == 0 { 0 } else { TCP_CLIENTS };
        Self {
            listeners: Places::new(listeners),
            slots: (0..count).map(slot).collect(),
            idle_ms,
            paused_until: None,
            trouble: None,
        }
    }

    /// Accepts connections of `listener`, which is watched, from now on.
    pub fn listen(&mut self, place: u16, listener: TcpListener) {
        self.listeners.put(place, listener);
    }

    /// Accepts no connection at this place any more. Those that were accepted there go on.
    pub fn leave(&mut self, place: u16) {
        self.listeners.remove(place);
    }

    /// Accepts one connection.
    pub fn accept(
        &mut self,
        listener: u16,
        now: Instant,
        policy: &Policy<'_>,
        arrivals: &Arrivals,
        epoll: &Epoll,
    ) -> Accepted {
        let Some(listener) = self.listeners.get(listener) else {
            return Accepted::None;
        };
        let (stream, peer) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Accepted::None,
            Err(error) => {
                let errno = Errno::from_raw(error.raw_os_error().unwrap_or_default());
                return if is_of_one_connection(errno) {
                    Accepted::One
                } else {
                    self.pause(errno, now, epoll)
                };
            }
        };
        // A stranger gets no slot: closed at once.
        let device = arrival_of(&stream, peer.is_ipv6());
        if !policy.may_come_by(peer.ip(), device) || policy.is_stranger(peer.ip()) {
            return Accepted::Stranger;
        }
        let is_own = policy.is_own(peer.ip().to_canonical());
        let ingress = arrivals.ingress(device, is_own);
        let device = if is_own { 0 } else { device };
        let holder = policy.on_link.fairness_unit(peer.ip());
        let Some(index) = self.free_slot(holder, now) else {
            return Accepted::One;
        };
        let slot = &mut self.slots[index];
        slot.generation = slot.generation.wrapping_add(1);
        let event = event(index as u16, slot.generation);
        let ready = stream.set_nonblocking(true).is_ok()
            && stream.set_nodelay(true).is_ok()
            && epoll.add(stream.as_fd(), event).is_ok();
        if ready {
            slot.connection = Some(Connection {
                stream,
                peer,
                ingress,
                device,
                holder,
                filled: 0,
                since: now,
                is_new: true,
                in_flight: 0,
                ended: false,
            });
        }
        Accepted::One
    }

    /// Looks away from all listeners for a moment.
    fn pause(&mut self, errno: Errno, now: Instant, epoll: &Epoll) -> Accepted {
        self.paused_until = Some(now + PAUSE_MS);
        self.arm(EpollFlags::empty(), epoll);
        let earlier = self.trouble.replace(now);
        let is_known = earlier.is_some_and(|earlier| now < earlier + SAME_TROUBLE_MS);
        Accepted::Paused((!is_known).then_some(errno))
    }

    /// Waits for `flags` at all listeners.
    fn arm(&self, flags: EpollFlags, epoll: &Epoll) {
        for (place, listener) in self.listeners.iter_with_places() {
            let mut event = EpollEvent::new(flags, EventSource::TcpListener(place).to_bits());
            // Fails only for a descriptor that was never added.
            let _ = epoll.modify(listener.as_fd(), &mut event);
        }
    }

    /// A slot without a connection, for `holder`, made free if need be and if somebody gives way.
    fn free_slot(&mut self, holder: IpAddr, now: Instant) -> Option<usize> {
        let free = self.slots.iter().position(|slot| slot.connection.is_none());
        if free.is_some() {
            return free;
        }
        let index = self.gives_way(holder, now)?;
        self.slots[index].connection = None;
        Some(index)
    }

    /// Whose connection ends where every slot is taken and `holder` comes: one of the client that has the most, if that is
    /// more than its share. If that is `holder` itself, what it waits for goes before what it has new. While nobody has more
    /// than a share, what is idle gives way; where all wait for answers one of a client that has more than `holder` then has; and
    /// where all have as many, see [`Self::crowded_out`].
    fn gives_way(&self, holder: IpAddr, now: Instant) -> Option<usize> {
        let own = self.held(holder) + 1;
        let (most, greediest) = self.greediest()?;
        let of_greediest = |connection: &Connection| connection.holder == greediest;
        if most.max(own) <= SHARE {
            let idle = self.least_missed(now, false, |_| true);
            return idle
                .or_else(|| (most > own).then(|| self.least_missed(now, true, of_greediest))?)
                .or_else(|| self.crowded_out(now, own));
        }
        if most > own {
            self.least_missed(now, true, of_greediest)
        } else {
            self.least_missed(now, false, |connection| connection.holder == holder)
        }
    }

    /// The connection that ends where more clients come than there are slots, and each has as many as the one that comes then
    /// has, `own`: one on which nothing was asked although there was time to, else the one that has been served for longest. A host
    /// may have many addresses: whoever comes has as much time as there are slots, and is answered from the cache in less.
    fn crowded_out(&self, now: Instant, own: usize) -> Option<usize> {
        let connections = self.connections();
        let others = connections.filter(|(_, connection)| self.held(connection.holder) >= own);
        let ranked = others.map(|(index, connection)| {
            let has_said = !connection.is_new || connection.filled > 0;
            let is_silent =
                !has_said && now >= connection.since + ASK_MS && !connection.has_unread();
            (!is_silent, connection.since, index)
        });
        ranked.min().map(|(_, _, index)| index)
    }

    /// The connection among those that `of` names which is missed least: the longest idle one; then the oldest that waits
    /// for answers and has nothing more to say, whose client may be gone; and where `any` may go, the oldest that waits, and
    /// last a new one that has not asked yet.
    fn least_missed(
        &self,
        now: Instant,
        any: bool,
        of: impl Fn(&Connection) -> bool,
    ) -> Option<usize> {
        let rank = |connection: &Connection| match connection {
            _ if connection.is_idle(now) => 0,
            Connection { ended: true, .. } => 1,
            Connection { in_flight: 0, .. } => 3,
            Connection { .. } => 2,
        };
        // Has asked, which was not read yet.
        let mut busy: heapless::Vec<usize, TCP_CLIENTS> = heapless::Vec::new();
        // Bound: each round but the last one adds a slot to `busy`.
        loop {
            let connections = self.connections().filter(|(_, connection)| of(connection));
            let ranked = connections.map(|(index, connection)| {
                let rank = if busy.contains(&index) {
                    2
                } else {
                    rank(connection)
                };
                (rank, connection.since, index)
            });
            let (rank, _, index) = ranked.min().filter(|&(rank, ..)| any || rank <= 1)?;
            let has_asked = |connection: &Connection| connection.has_unread();
            let asks = self.slots[index].connection.as_ref().is_some_and(has_asked);
            if rank > 0 || !asks || busy.push(index).is_err() {
                return Some(index);
            }
        }
    }

    /// The client that has the most connections, and how many.
    fn greediest(&self) -> Option<(usize, IpAddr)> {
        let clients = self.connections().map(|(_, connection)| connection.holder);
        clients.map(|client| (self.held(client), client)).max()
    }

    /// Connections of `client`.
    fn held(&self, client: IpAddr) -> usize {
        let same = |(_, other): &(usize, &Connection)| other.holder == client;
        self.connections().filter(same).count()
    }

    fn connections(&self) -> impl Iterator<Item = (usize, &Connection)> {
        let slots = self.slots.iter().enumerate();
        slots.filter_map(|(index, slot)| Some((index, slot.connection.as_ref()?)))
    }

    /// Reads from the connection in slot `index`: at most one query, into `query`.
    pub fn read(&mut self, index: u16, now: Instant, query: &mut [u8]) -> TcpRead {
        let Some(slot) = self.slots.get_mut(usize::from(index)) else {
            return TcpRead::Nothing;
        };
        let TcpSlot {
            connection, buffer, ..
        } = slot;
        let Some(open) = connection else {
            return TcpRead::Nothing;
        };
        match open.read(buffer, now) {
            Ok(Some(len)) => {
                query[..len].copy_from_slice(&buffer[PREFIX..PREFIX + len]);
                TcpRead::Query(len)
            }
            Ok(None) if !open.ended || open.in_flight > 0 => TcpRead::Nothing,
            Ok(None) | Err(_) => {
                *connection = None;
                TcpRead::Closed
            }
        }
    }

    /// Whether the connection in slot `index` is still the one that had this turn.
    pub fn is_current(&self, index: u16, generation: u32) -> bool {
        let slot = self.slots.get(usize::from(index));
        slot.is_some_and(|slot| slot.generation == generation)
    }

    /// The client in slot `index`, and its address.
    pub fn client(&self, index: u16) -> Option<(TcpClient, SocketAddr)> {
        let slot = self.slots.get(usize::from(index))?;
        let connection = slot.connection.as_ref()?;
        let client = TcpClient {
            slot: index,
            generation: slot.generation,
        };
        Some((client, connection.peer))
    }

    /// Where what this client asks is counted.
    pub fn ingress(&self, client: TcpClient) -> Ingress {
        let connection = self.known(client);
        connection.map_or(Ingress::Other, |connection| connection.ingress)
    }

    /// The device that it came by; 0: nobody knows.
    pub fn device(&self, client: TcpClient) -> u32 {
        let connection = self.known(client);
        connection.map_or(0, |connection| connection.device)
    }

    fn known(&self, client: TcpClient) -> Option<&Connection> {
        let slot = self.slots.get(usize::from(client.slot));
        let slot = slot.filter(|slot| slot.generation == client.generation);
        slot.and_then(|slot| slot.connection.as_ref())
    }

    /// Who is at the other end, while it is there.
    pub fn peer(&self, client: TcpClient) -> Option<SocketAddr> {
        let (present, peer) = self.client(client.slot)?;
        (present == client).then_some(peer)
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
        let Some(slot) = self.slots.get(usize::from(index)) else {
            return;
        };
        let Some(connection) = &slot.connection else {
            return;
        };
        if !connection.ended && connection.in_flight < IN_FLIGHT_MAX {
            // Fails only for a descriptor that was never added.
            let _ = epoll.modify(
                connection.stream.as_fd(),
                &mut event(index, slot.generation),
            );
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
            .filter(|_| slot.generation == client.generation)
    }

    /// Closes what has been idle, or slow, for too long, and looks at the listeners again after a pause. Returns when to
    /// come back.
    pub fn expire(&mut self, now: Instant, epoll: &Epoll) -> Option<Instant> {
        if self.paused_until.is_some_and(|until| until <= now) {
            self.paused_until = None;
            self.arm(EpollFlags::EPOLLIN, epoll);
        }
        let mut next = self.paused_until;
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
fn event(slot: u16, generation: u32) -> EpollEvent {
    let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT;
    EpollEvent::new(flags, EventSource::TcpClient { slot, generation }.to_bits())
}

/// Whether accept(2) failed for the one connection that it took from the queue, so that the next may do. Everything else
/// lasts: the connection waits on, and no descriptor or no memory is there to take it.
const fn is_of_one_connection(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::EINTR
            | Errno::ECONNABORTED
            | Errno::ECONNRESET
            | Errno::ETIMEDOUT
            // What the network had to say of the new socket (accept(2)).
            | Errno::ENETDOWN
            | Errno::EPROTO
            | Errno::ENOPROTOOPT
            | Errno::EHOSTDOWN
            | Errno::ENONET
            | Errno::EHOSTUNREACH
            | Errno::EOPNOTSUPP
            | Errno::ENETUNREACH
    )
}

impl Connection {
    /// Waits for nothing from us, and has had the time to ask.
    fn is_idle(&self, now: Instant) -> bool {
        let is_fresh = self.is_new && now < self.since + GRACE_MS;
        self.in_flight == 0 && !is_fresh
    }

    /// Something has come that was not read.
    fn has_unread(&self) -> bool {
        self.stream.peek(&mut [0]).is_ok_and(|count| count > 0)
    }

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
                self.is_new = false;
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

#[cfg(test)]
mod tests;
