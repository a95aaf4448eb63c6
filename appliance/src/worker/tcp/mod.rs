//! DNS over TCP for clients (RFC 7766): fixed slots, pipelining, answers in any order.
//!
//! A slot holds one query as it arrives; of a query longer than a slot the rest is read and discarded, and options that are cut
//! there are left out. Answers go straight into the kernel's send buffer, which holds the longest message, so none is kept here. A
//! client that leaves its answers unread until that buffer is full is closed; one that has too many queries in flight is read from
//! again once an answer is sent.

use std::io::{self, IoSlice, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;

use crate::os::holder::{self, Protocol};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, sockopt};
use xdnsd_core::limits::{TCP_CLIENTS, TCP_MESSAGE_MAX, TCP_QUERY_MAX};
use xdnsd_core::policy::Policy;
use xdnsd_core::time::Instant;

use super::arrival::{Arrivals, Ingress};
use super::events::EventSource;
use super::listener::ListenerTable;
use crate::os::socket::{arrival_of, bind};

/// Bytes of the length prefix (RFC 1035 section 4.2.2).
const PREFIX: usize = 2;
/// Most connections that wait to be accepted.
const BACKLOG: i32 = 128;
/// Send buffer of a connection in bytes: twice the longest answer, as the kernel counts its own overhead.
const SEND_BUFFER: usize = 2 * (TCP_MESSAGE_MAX + PREFIX);
/// The part of a query beyond its slot is read in pieces of this many bytes.
const PIECE: usize = 512;
/// Time for a query to arrive whole, in milliseconds.
pub const QUERY_MS: u64 = 5_000;
/// Most queries of one connection in flight: beyond, reading pauses until one is answered.
const IN_FLIGHT_MAX: u8 = 64;
/// Fair share of connections when all slots are taken: a client above it gives way first.
const SHARE: usize = if TCP_CLIENTS < 8 { 1 } else { TCP_CLIENTS / 8 };
/// Time for the first query of a new connection before it counts as idle, in milliseconds.
const GRACE_MS: u64 = 1_000;
/// When [`Tcp::crowded_out`] decides, a connection without a query for so long goes before those that wait for answers, in
/// milliseconds: a client that connects to ask does so at once.
const ASK_MS: u64 = 100;
/// How long accepting pauses when the system lacks a descriptor or memory, in milliseconds. The listener stays readable
/// meanwhile, and would wake the worker at each wait.
const PAUSE_MS: u64 = 200;
/// An error that recurs within this time is reported once, in milliseconds.
const SAME_TROUBLE_MS: u64 = 60_000;

/// Identifies a connection by its slot and generation, so that a reused slot is not mistaken for the old client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpClient {
    slot: u16,
    generation: u32,
}

struct Connection {
    stream: TcpStream,
    peer: SocketAddr,
    /// Ingress under which its queries are counted.
    ingress: Ingress,
    /// Index of the ingress device; 0 if unknown, or if the client is this machine itself.
    device: u32,
    /// Fairness unit of the client.
    holder: IpAddr,
    /// Bytes of the next query that have arrived, prefix included.
    filled: usize,
    /// When the first of them arrived; without any, when the last query was complete or the last answer was sent.
    since: Instant,
    /// True until the first query.
    is_new: bool,
    in_flight: u8,
    /// True once the client has closed its side.
    ended: bool,
}

struct TcpSlot {
    connection: Option<Connection>,
    generation: u32,
    buffer: [u8; PREFIX + TCP_QUERY_MAX],
}

/// The TCP side of the worker that serves it. Full: see [`Tcp::gives_way`].
pub struct Tcp {
    listeners: ListenerTable<TcpListener>,
    slots: Box<[TcpSlot]>,
    idle_ms: u64,
    /// End of the pause in accepting.
    paused_until: Option<Instant>,
    /// When accepting last failed for want of descriptors or memory.
    trouble: Option<Instant>,
}

/// Bytes of the slots, for the memory budget.
pub const SLOTS_BYTES: usize = TCP_CLIENTS * size_of::<TcpSlot>();

/// Result of accepting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// A connection, which was served, refused or lost: there may be more.
    One,
    /// A connection of a client that the policy does not answer: closed; there may be more.
    Stranger,
    /// No connection waits.
    None,
    /// Accepting pauses; with the errno unless it was reported lately.
    Paused(Option<Errno>),
}

/// Result of reading from a connection.
#[derive(Debug)]
pub enum TcpRead {
    /// No whole query yet.
    Nothing,
    /// A query of so many bytes, copied into the caller's buffer.
    Query(usize),
    /// The connection is closed.
    Closed,
}

/// Opens a TCP socket on `address`; as for UDP, the address may still be absent.
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
        // Accepted connections inherit the buffer size.
        socket::setsockopt(&fd.as_fd(), sockopt::SndBuf, &SEND_BUFFER)?;
        bind(&fd, address)?;
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
    /// Empty slots; `listeners` are expected at the start, and 0 means that this worker never serves TCP. `idle_ms` is the idle
    /// timeout of a connection.
    pub fn new(listeners: usize, idle_ms: u64) -> Self {
        let slot = |_| TcpSlot {
            connection: None,
            generation: 0,
            buffer: [0; PREFIX + TCP_QUERY_MAX],
        };
        let count = if listeners == 0 { 0 } else { TCP_CLIENTS };
        Self {
            listeners: ListenerTable::new(listeners),
            slots: (0..count).map(slot).collect(),
            idle_ms,
            paused_until: None,
            trouble: None,
        }
    }

    /// Accepts connections of `listener`, which epoll already watches, from now on.
    pub fn listen(&mut self, place: u16, listener: TcpListener) {
        self.listeners.put(place, listener);
    }

    /// Closes the listener at `place`. Connections accepted there go on.
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
        // Closed at once, without a slot.
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

    /// Pauses accepting at all listeners.
    fn pause(&mut self, errno: Errno, now: Instant, epoll: &Epoll) -> Accepted {
        self.paused_until = Some(now + PAUSE_MS);
        self.arm(EpollFlags::empty(), epoll);
        let earlier = self.trouble.replace(now);
        let is_known = earlier.is_some_and(|earlier| now < earlier + SAME_TROUBLE_MS);
        Accepted::Paused((!is_known).then_some(errno))
    }

    /// Sets the events of all listeners to `flags`.
    fn arm(&self, flags: EpollFlags, epoll: &Epoll) {
        for (place, listener) in self.listeners.iter_with_places() {
            let mut event = EpollEvent::new(flags, EventSource::TcpListener(place).to_bits());
            // Fails only for a descriptor that was never added.
            let _ = epoll.modify(listener.as_fd(), &mut event);
        }
    }

    /// A free slot for `holder`; if all are taken, one whose connection gives way.
    fn free_slot(&mut self, holder: IpAddr, now: Instant) -> Option<usize> {
        let free = self.slots.iter().position(|slot| slot.connection.is_none());
        if free.is_some() {
            return free;
        }
        let index = self.gives_way(holder, now)?;
        self.slots[index].connection = None;
        Some(index)
    }

    /// Slot of the connection to end when all are taken and `holder` connects. If a client has more than its share, one of the
    /// client with the most; if that is `holder` itself, only one of its own that is idle or done asking. If no client exceeds
    /// its share: an idle or done one; else one of the client with the most, if that has more than `holder` then has; else
    /// [`Self::crowded_out`].
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

    /// Slot of the connection to end when clients outnumber slots, and each has at least `own` connections, as many as the
    /// newcomer then has: one without a query despite time to ask, else the oldest. A host may have many addresses; even so each
    /// newcomer lasts until all slots have turned over, and an answer from the cache takes less.
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

    /// The connection to end first among those that `of` selects: the longest idle one; then the oldest whose client has closed
    /// its side and still waits for answers, and may be gone; and, if `any` may go, the oldest that waits, and last a new one
    /// that has not asked yet.
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
        // Connections with unread bytes: they have asked.
        let mut busy: heapless::Vec<usize, TCP_CLIENTS> = heapless::Vec::new();
        // Bound: each round but the last adds a slot to `busy`.
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

    /// The client with the most connections, and their number.
    fn greediest(&self) -> Option<(usize, IpAddr)> {
        let clients = self.connections().map(|(_, connection)| connection.holder);
        clients.map(|client| (self.held(client), client)).max()
    }

    /// Number of connections of `client`.
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

    /// True if the slot still has this generation.
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

    /// Ingress under which this client's queries are counted.
    pub fn ingress(&self, client: TcpClient) -> Ingress {
        let connection = self.known(client);
        connection.map_or(Ingress::Other, |connection| connection.ingress)
    }

    /// Index of the ingress device; 0 if unknown.
    pub fn device(&self, client: TcpClient) -> u32 {
        let connection = self.known(client);
        connection.map_or(0, |connection| connection.device)
    }

    fn known(&self, client: TcpClient) -> Option<&Connection> {
        let slot = self.slots.get(usize::from(client.slot));
        let slot = slot.filter(|slot| slot.generation == client.generation);
        slot.and_then(|slot| slot.connection.as_ref())
    }

    /// Address of the client, while it is connected.
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

    /// Sends an answer announced by [`Self::expect`]. True if it was sent.
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

    /// Notes that an announced answer will not come.
    pub fn forget(&mut self, client: TcpClient) {
        if let Some(connection) = self.connection(client) {
            connection.in_flight = connection.in_flight.saturating_sub(1);
        }
    }

    /// Waits for more from the connection in slot `index`, unless it has ended or has too many queries in flight.
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

    /// Sends an answer. A client whose send buffer has no room for all of it is closed: it does not read.
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

    /// Closes connections that were idle or slow for too long, and resumes accepting after a pause. Returns the next deadline.
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
            // The idle time begins when the last answer is sent.
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

/// True if accept(2) failed for the one connection that it took from the queue, so that the next may succeed. Other errors last:
/// the connection stays in the queue, and there is no descriptor or memory for it.
const fn is_of_one_connection(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::EINTR
            | Errno::ECONNABORTED
            | Errno::ECONNRESET
            | Errno::ETIMEDOUT
            // Errors of the network on the new socket (accept(2)).
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
    /// True if it waits for no answer, and has had time to ask.
    fn is_idle(&self, now: Instant) -> bool {
        let is_fresh = self.is_new && now < self.since + GRACE_MS;
        self.in_flight == 0 && !is_fresh
    }

    /// True if unread bytes have arrived.
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
