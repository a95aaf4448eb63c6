//! Source ports without sockets: a raw socket sends from any port, and the sk_lookup program delivers what arrives for a question
//! in flight.
//!
//! The receiving socket is bound to loopback, so nobody outside reaches it by its own port. The sending sockets, one per server,
//! are of protocol IPPROTO_RAW, which receives nothing (raw(7)); they are bound and connected, so that a packet needs neither
//! address nor control message.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::socket::{
    self, AddressFamily, SockFlag, SockType, SockaddrStorage, setsockopt, sockopt,
};
use xdnsd_core::forward::via::{Destination, NoPort};
use xdnsd_core::limits::UPSTREAMS;
use xdnsd_core::time::Instant;

use super::datagram::OutgoingPacket;
use super::outbox::{Outbox, QueuedPacket, Unsent};
use super::table::{LookupProgram, PortTable};
use super::{PortEvent, candidates, icmp, no_port};
use crate::os::datagrams::{DATAGRAMS_MAX, DatagramBatch, DatagramInfo, receive_all, send_all};
use crate::os::keeper::SocketKind;
use crate::os::random::Entropy;
use crate::os::socket::obtain;
use crate::text::Sentence;
use crate::worker::egress;

/// How long the local address that the kernel's routes chose for a server is reused, in milliseconds: shorter than the pause
/// before a server is asked again, so that no question is sent twice from an address that is gone.
const ROUTE_MS: u64 = 200;
/// Bytes of one part of the buffer: a datagram that arrives in one frame. A longer one is truncated, and asked for over TCP.
pub const PART: usize = 1_472;

/// Questions that could not be sent.
type NotSent = heapless::Vec<Unsent, DATAGRAMS_MAX>;

/// Receiving sockets of one family.
#[derive(Debug)]
struct Family {
    receiver: OwnedFd,
    errors: OwnedFd,
}

/// Sends to one server: a raw socket, and the local address that the kernel's routes chose.
#[derive(Debug)]
struct Sender {
    to: Destination,
    local: IpAddr,
    /// Sends from `local` to `to`; each packet has its own header.
    socket: OwnedFd,
    until: Instant,
}

/// The ports of one worker.
#[derive(Debug)]
pub struct LookupPorts {
    table: Arc<PortTable>,
    worker: u8,
    v4: Option<Family>,
    v6: Option<Family>,
    /// Full: the oldest one makes room.
    senders: heapless::Deque<Sender, UPSTREAMS>,
    /// Boxed, since it would be moved with the rest over a small stack.
    outbox: Box<Outbox>,
}

impl LookupPorts {
    /// Opens the sockets of `worker` and puts them into the map of `program`. A family that the kernel lacks is left out.
    ///
    /// # Errors
    /// Neither family is available; the text says why.
    pub fn new(program: &mut LookupProgram, worker: u8) -> Result<Self, Sentence> {
        let mut family = |v6| -> Result<Family, Sentence> {
            let family = Family::open(v6).map_err(|errno| errno.to_string())?;
            program.receive_with(worker, v6, &family.receiver)?;
            Ok(family)
        };
        let v4 = family(false);
        let v6 = family(true).ok();
        let v4 = match v4 {
            Err(problem) if v6.is_none() => return Err(problem),
            v4 => v4.ok(),
        };
        Ok(Self {
            table: program.table(),
            worker,
            v4,
            v6,
            senders: heapless::Deque::new(),
            outbox: Box::default(),
        })
    }

    fn family(&self, v6: bool) -> Option<&Family> {
        if v6 {
            self.v6.as_ref()
        } else {
            self.v4.as_ref()
        }
    }

    /// For each family: the receiving socket, the socket for ICMP errors, and true for IPv6.
    pub fn sockets(&self) -> impl Iterator<Item = (&OwnedFd, &OwnedFd, bool)> {
        let families = [(&self.v4, false), (&self.v6, true)];
        families.into_iter().filter_map(|(family, v6)| {
            let family = family.as_ref()?;
            Some((&family.receiver, &family.errors, v6))
        })
    }

    /// Opens a port for `question` to `to`.
    ///
    /// # Errors
    /// No route to `to`, or no free port.
    pub fn open(
        &mut self,
        to: Destination,
        question: u16,
        now: Instant,
        entropy: &mut Entropy,
    ) -> Result<u16, NoPort> {
        if self.family(to.address.is_ipv6()).is_none() {
            return Err(NoPort::Unreachable);
        }
        let local = self.look_up_local(to, now).map_err(no_port)?;
        for port in candidates(entropy) {
            let entry = self
                .table
                .entry(port, to.address, local)
                .ok_or(NoPort::Failed)?;
            if self.table.open(port, entry, self.worker, question) {
                return Ok(port);
            }
        }
        Err(NoPort::Full)
    }

    /// Closes a port.
    pub fn close(&self, port: u16) {
        self.table.close(port);
    }

    /// Queues `message` from `port` to `to` for the next [`LookupPorts::flush`]. False if no route to `to` is known, or if the
    /// message is too long. Questions for which sending has failed meanwhile are added to `unsent`.
    pub fn send(
        &mut self,
        port: u16,
        to: Destination,
        message: &[u8],
        unsent: &mut NotSent,
    ) -> bool {
        let Some(local) = self.sender(to).map(|sender| sender.local) else {
            return false;
        };
        let Some(packet) = OutgoingPacket::new(local, port, to.address, message) else {
            return false;
        };
        if self.outbox.is_full() {
            self.send_waiting(unsent);
        }
        let waiting = QueuedPacket {
            packet,
            local,
            port,
            to,
        };
        self.outbox.push(waiting).is_ok()
    }

    /// Sends the queue. Questions in flight for which that fails are added to `unsent`.
    pub fn flush(&mut self, unsent: &mut NotSent) {
        self.send_waiting(unsent);
    }

    fn send_waiting(&mut self, unsent: &mut NotSent) {
        let Self {
            outbox,
            senders,
            table,
            worker,
            ..
        } = self;
        let mut rest = outbox.as_slice();
        // Bound: each round takes at least one away.
        while let Some(first) = rest.first() {
            let to = first.to;
            let same = rest.iter().take_while(|waiting| waiting.to == to).count();
            let packets = rest.iter().take(same);
            let sent = match senders.iter().find(|sender| sender.to == to) {
                Some(sender) => send_all(&sender.socket, packets.map(|one| one.packet.as_bytes())),
                None => Err(Errno::ENETUNREACH),
            };
            let count = match sent {
                Ok(count) => count,
                Err(Errno::EINTR) => continue,
                Err(_) => {
                    // The address may be gone: the next question looks it up again.
                    senders.retain(|sender| sender.to != to);
                    let entry = table.entry(first.port, to.address, first.local);
                    let question =
                        entry.and_then(|entry| table.question(first.port, entry, *worker));
                    if let Some(question) = question {
                        let port = first.port;
                        // If more fail than `unsent` holds, the others time out.
                        let _ = unsent.push(Unsent { port, question });
                    }
                    1
                }
            };
            rest = rest.get(count..).unwrap_or_default();
        }
        outbox.clear();
    }

    /// Receives messages for questions of this worker, each into a part of `buffer` of [`PART`] bytes. True if there may be more.
    pub fn receive(&self, v6: bool, buffer: &mut [u8]) -> (DatagramBatch, bool) {
        let family = self.family(v6);
        let received = family.map(|family| {
            loop {
                match receive_all(&family.receiver, buffer, PART) {
                    Err(Errno::EINTR) => {}
                    received => break received,
                }
            }
        });
        received.and_then(Result::ok).unwrap_or_default()
    }

    /// The event for a message from [`LookupPorts::receive`].
    pub fn arrived(&self, received: &DatagramInfo) -> PortEvent {
        let port = received.to.port();
        let entry = self.table.entry(port, received.from, received.to.ip());
        let question = entry.and_then(|entry| self.table.question(port, entry, self.worker));
        PortEvent::Message {
            port,
            // Closed meanwhile: the receiver finds no question.
            question: question.unwrap_or(u16::MAX),
            len: received.len,
            from: received.from,
        }
    }

    /// Receives the next ICMP error, if it is about a question of this worker.
    pub fn receive_error(&self, v6: bool, buffer: &mut [u8]) -> PortEvent {
        let Some(family) = self.family(v6) else {
            return PortEvent::Nothing;
        };
        let Some(quoted) = icmp::receive(&family.errors, v6, buffer) else {
            return PortEvent::Nothing;
        };
        let port = quoted.local.port();
        let entry = self.table.entry(port, quoted.remote, quoted.local.ip());
        let question = entry.and_then(|entry| self.table.question(port, entry, self.worker));
        question.map_or(PortEvent::Nothing, |question| PortEvent::Unreachable {
            port,
            question,
            id: quoted.id,
        })
    }

    fn sender(&self, to: Destination) -> Option<&Sender> {
        self.senders.iter().find(|sender| sender.to == to)
    }

    /// Local address on the route to `to`, and its sender kept in `senders`.
    fn look_up_local(&mut self, to: Destination, now: Instant) -> nix::Result<IpAddr> {
        let known = self.sender(to).map(|sender| (sender.local, sender.until));
        if let Some((local, _)) = known.filter(|(_, until)| now < *until) {
            return Ok(local);
        }
        let local = local_address(to);
        let mut old = self.senders.iter_mut().find(|sender| sender.to == to);
        let is_as_it_was = |old: &&mut Sender| match local {
            Ok(local) => local == old.local,
            // No descriptor for the lookup: the old address stays in use.
            Err(errno) => matches!(errno, Errno::EMFILE | Errno::ENFILE),
        };
        if let Some(sender) = old.as_mut().filter(|old| is_as_it_was(old)) {
            sender.until = now + ROUTE_MS;
            return Ok(sender.local);
        }
        self.senders.retain(|sender| sender.to != to);
        let local = local?;
        let socket = open_sender(local, to)?;
        if self.senders.is_full() {
            self.senders.pop_front();
        }
        // Has room: it was made above.
        let _ = self.senders.push_back(Sender {
            to,
            local,
            socket,
            until: now + ROUTE_MS,
        });
        Ok(local)
    }
}

impl Family {
    fn open(v6: bool) -> nix::Result<Self> {
        let (family, local): (_, SocketAddr) = if v6 {
            (AddressFamily::Inet6, (Ipv6Addr::LOCALHOST, 0).into())
        } else {
            (AddressFamily::Inet, (Ipv4Addr::LOCALHOST, 0).into())
        };
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let receiver = socket::socket(family, SockType::Datagram, flags, None)?;
        if v6 {
            setsockopt(&receiver, sockopt::Ipv6V6Only, &true)?;
            setsockopt(&receiver, sockopt::Ipv6OrigDstAddr, &true)?;
        } else {
            setsockopt(&receiver, sockopt::Ipv4OrigDstAddr, &true)?;
        }
        // Loopback may be down, without an address.
        setsockopt(&receiver, sockopt::IpFreebind, &true)?;
        socket::bind(receiver.as_raw_fd(), &SockaddrStorage::from(local))?;
        let errors = icmp::open(v6)?;
        Ok(Self { receiver, errors })
    }
}

/// Opens a raw socket that sends packets as they are, from `local` to `server`.
fn open_sender(local: IpAddr, server: Destination) -> nix::Result<OwnedFd> {
    // A raw socket takes a port for a protocol number, so both ports are 0.
    let (kind, local, to) = match (local, server.address) {
        (IpAddr::V6(local), SocketAddr::V6(to)) => (
            SocketKind::Sender6,
            SocketAddrV6::new(local, 0, 0, egress::scope(server)).into(),
            SocketAddrV6::new(*to.ip(), 0, 0, to.scope_id()).into(),
        ),
        (local, to) => (
            SocketKind::Sender4,
            SocketAddr::new(local, 0),
            SocketAddr::new(to.ip(), 0),
        ),
    };
    let sender = obtain(kind)?;
    egress::bind_interface(&sender, server)?;
    socket::bind(sender.as_raw_fd(), &SockaddrStorage::from(local))?;
    socket::connect(sender.as_raw_fd(), &SockaddrStorage::from(to))?;
    Ok(sender)
}

/// The local address of questions to `to`: its source address, if it can be had, or the one that the kernel's routes choose, found
/// by connecting a temporary UDP socket.
fn local_address(to: Destination) -> nix::Result<IpAddr> {
    let family = match to.address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let socket = socket::socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    egress::bind_interface(&socket, to)?;
    egress::bind_source(&socket, to)?;
    socket::connect(socket.as_raw_fd(), &SockaddrStorage::from(to.address))?;
    let local = UdpSocket::from(socket).local_addr();
    local.map(|local| local.ip()).map_err(|error| {
        let errno = error.raw_os_error();
        errno.map_or(Errno::EADDRNOTAVAIL, Errno::from_raw)
    })
}
