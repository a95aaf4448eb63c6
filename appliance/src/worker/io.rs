//! The I/O of a worker: sockets, clock, randomness. Implements the effects that the engine asks for.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::epoll::Epoll;
use xdnsd_core::counters::answers::AnswerWay;
use xdnsd_core::counters::{Counter, Counters};
use xdnsd_core::dns::Name;
use xdnsd_core::engine::{Effects, Notice};
use xdnsd_core::forward::in_flight::WaitingEngines;
use xdnsd_core::forward::via::{Destination, NoPort, Via};
use xdnsd_core::respond::Path;
use xdnsd_core::time::Instant;

use super::arrival::{Arrivals, Ingress};
use super::busy_poll::BusyPoll;
use super::events::{EventSource, watch};
use super::in_sets::SetFeed;
use super::inbox::Inbox;
use super::listener::{ListenerTable, Listeners};
use super::notices::NoticeBoard;
use super::ports::Ports;
use super::ports::lookup::LookupPorts;
use super::sources::Sources;
use super::streams::Streams;
use super::tapped::{Asker, Tapped};
use super::tcp::{Tcp, TcpClient};
use super::xsks::Xsks;
use crate::os::clock;
use crate::os::datagrams::{self, Datagram};
use crate::os::random::Entropy;
use crate::store::tap::entry::QueryPath;

/// Path of a reply to its client.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ReplyPath {
    /// Through the AF_XDP socket of this generation.
    Xsk {
        /// Headers of the reply.
        path: Path,
        /// Generation of the socket: a reply for an earlier socket is dropped.
        socket_generation: u32,
    },
    /// Through the kernel UDP socket with this index.
    Udp {
        /// Index into the listeners.
        listener: u16,
        /// Address and port of the client.
        client: SocketAddr,
        /// Ingress under which the query was counted.
        ingress: Ingress,
    },
    /// Through a TCP connection.
    Tcp(TcpClient),
}

/// Effects of one worker.
pub struct Io<'a> {
    pub(super) epoll: Epoll,
    pub(super) xsks: Xsks,
    pub(super) listeners: ListenerTable<UdpSocket>,
    pub(super) sources: Sources,
    pub(super) ports: Ports,
    pub(super) busy_poll: BusyPoll,
    pub(super) streams: Streams,
    pub(super) tcp: Tcp,
    pub(super) notices: &'a NoticeBoard,
    /// Addresses that go into sets of the packet filter.
    pub(super) sets: SetFeed,
    /// Inboxes of all engines, by number.
    pub(super) inboxes: &'a [Inbox],
    pub(super) entropy: Entropy,
    pub(super) tap: Tapped<'a>,
    pub(super) counters: &'a Counters,
    pub(super) arrivals: &'a Arrivals,
    /// Time of this turn of the loop.
    pub(super) now: Instant,
}

impl Effects<ReplyPath> for Io<'_> {
    fn open_port(&mut self, to: Destination, question: u16) -> Result<u16, NoPort> {
        let Self {
            ports,
            epoll,
            entropy,
            now,
            ..
        } = self;
        ports.open(to, question, *now, epoll, entropy)
    }

    fn close_port(&mut self, port: u16) {
        self.ports.close(port);
    }

    fn leave_port(&mut self, port: u16) {
        self.ports.leave(port);
    }

    fn ask(&mut self, via: Via, to: Destination, message: &[u8]) -> bool {
        let port = match via {
            Via::Datagram { port } => port,
            Via::Stream { slot } => return self.streams.ask(slot, message),
        };
        if self.busy_poll.is_on() {
            let now_ns = clock::monotonic_ns();
            self.busy_poll.asked(now_ns);
            self.ports.note_asked(port, now_ns);
        }
        self.ports.send(port, to, message)
    }

    fn reply(&mut self, reply_path: &ReplyPath, message: &[u8]) {
        let Self { tap, tcp, .. } = self;
        tap.answered(|| asker(reply_path, tcp), message);
        match reply_path {
            ReplyPath::Xsk {
                path,
                socket_generation,
            } => self.reply_xsk(path, *socket_generation, message),
            ReplyPath::Udp {
                listener,
                client,
                ingress,
            } => self.reply_udp(*listener, *client, *ingress, message),
            ReplyPath::Tcp(client) => self.reply_tcp(*client, message),
        }
    }

    fn open_stream(&mut self, to: Destination, bucket: u8) -> Result<u16, NoPort> {
        let Self {
            streams,
            now,
            epoll,
            ..
        } = self;
        streams.open(to, bucket, *now, epoll)
    }

    fn leave_stream(&mut self, slot: u16) {
        self.streams.leave(slot);
    }

    fn notice(&mut self, notice: Notice, name: &Name) {
        self.notices.put(notice, name);
    }

    fn random(&mut self) -> u32 {
        self.entropy.next_u32()
    }

    fn add_to_sets(&mut self, sets: u16, address: IpAddr) {
        self.sets.put(sets, address, self.now);
    }

    fn wake(&mut self, engines: WaitingEngines) {
        let inboxes = self.inboxes.iter().enumerate();
        let waiting = inboxes.filter(|(engine, _)| engines.has(*engine as u8));
        waiting.for_each(|(_, inbox)| inbox.tell_of_answers());
    }
}

/// The client that waits there; `None` if its connection is gone.
fn asker(reply_path: &ReplyPath, tcp: &Tcp) -> Option<Asker> {
    let (via, client) = match reply_path {
        ReplyPath::Xsk { path, .. } => (QueryPath::Xdp, path.client()),
        ReplyPath::Udp { client, .. } => (QueryPath::Udp, *client),
        ReplyPath::Tcp(client) => (QueryPath::Tcp, tcp.peer(*client)?),
    };
    Some(Asker { client, via })
}

impl Io<'_> {
    /// Opens further listeners, after closing those in `left`.
    ///
    /// # Errors
    /// A system call failed: the sockets still in `listeners` are not listened on.
    pub(super) fn listen(&mut self, listeners: &mut Listeners) -> io::Result<()> {
        for place in listeners.left.drain(..) {
            self.listeners.remove(place);
            self.sources.remove(place);
            self.tcp.leave(place);
        }
        while let Some((place, socket)) = listeners.udp.last() {
            let address = socket.local_addr()?;
            watch(&self.epoll, socket.as_fd(), EventSource::Listener(*place))?;
            self.sources.put(*place, address);
            if let Some((place, socket)) = listeners.udp.pop() {
                self.listeners.put(place, socket);
            }
        }
        while let Some((place, listener)) = listeners.tcp.last() {
            watch(
                &self.epoll,
                listener.as_fd(),
                EventSource::TcpListener(*place),
            )?;
            if let Some((place, listener)) = listeners.tcp.pop() {
                self.tcp.listen(place, listener);
            }
        }
        Ok(())
    }

    /// Sends questions through the ports of `lookup` from now on. Questions in flight through sockets are still answered there.
    ///
    /// # Errors
    /// A system call failed; nothing has changed.
    pub(super) fn take_ports(&mut self, lookup: LookupPorts) -> io::Result<()> {
        for (answers, errors, v6) in lookup.sockets() {
            watch(&self.epoll, answers.as_fd(), EventSource::Answers { v6 })?;
            watch(&self.epoll, errors.as_fd(), EventSource::Errors { v6 })?;
        }
        self.ports.lookup = Some(lookup);
        Ok(())
    }

    /// Notes that an answer or error came to `port`.
    pub(super) fn note_answered(&mut self, port: u16) {
        if self.busy_poll.is_on() {
            let asked_ns = self.ports.asked_ns(port);
            let took_ns = clock::monotonic_ns().saturating_sub(asked_ns);
            self.busy_poll.answered(took_ns);
        }
    }

    /// Builds the reply in a fresh chunk: the query's own is long back in the pool.
    fn reply_xsk(&mut self, path: &Path, socket_generation: u32, message: &[u8]) {
        let Some(xsk) = self.xsks.find(socket_generation) else {
            return;
        };
        let free = self.xsks.take_free(xsk).or_else(|| {
            // Many clients may wait for one answer. Sending what is ready frees chunks where frames are copied; the flush at the
            // end of the turn sees to the rest.
            self.xsks.flush(xsk);
            self.xsks.take_free(xsk)
        });
        let Some(mut frame) = free else {
            self.count_tx_full(xsk);
            return;
        };
        let header_len = path.header_len();
        let bytes = frame.bytes_mut();
        let emitted = bytes
            .get_mut(header_len..header_len + message.len())
            .map(|room| room.copy_from_slice(message))
            .and_then(|()| path.emit(bytes, message.len()).ok());
        if let Some(len) = emitted {
            self.tap.frame_out(&frame.bytes_mut()[..len]);
        }
        match emitted.map(|len| self.xsks.transmit(xsk, frame, len)) {
            Some(Ok(())) => self.count_answer(AnswerWay::AfXdp, message),
            Some(Err(frame)) => {
                self.count_tx_full(xsk);
                self.xsks.release(xsk, frame);
            }
            None => debug_assert!(false, "a UDP answer fits a chunk"),
        }
    }

    /// Counts an answer that found no room in the socket's TX ring, or no chunk.
    pub(super) fn count_tx_full(&self, xsk: usize) {
        self.counters.count(Counter::TxFull);
        if let Some(stats) = self.xsks.stats(xsk) {
            stats.count(Counter::TxFull);
        }
    }

    /// Counts an answer that was handed on.
    pub(super) fn count_answer(&self, way: AnswerWay, message: &[u8]) {
        self.counters.count(match way {
            AnswerWay::AfXdp => Counter::AnswersXdp,
            AnswerWay::Udp => Counter::AnswersUdp,
            AnswerWay::Tcp => Counter::AnswersTcp,
        });
        self.counters.answers.count(way, message);
    }

    pub(super) fn reply_tcp(&mut self, client: TcpClient, message: &[u8]) {
        // Read first: the reply may close the connection.
        let ingress = self.tcp.ingress(client);
        let Self {
            tcp, now, epoll, ..
        } = self;
        if tcp.reply_later(client, message, *now, epoll) {
            self.count_answer(AnswerWay::Tcp, message);
            self.arrivals.count(ingress, Counter::AnswersTcp);
        }
    }

    pub(super) fn reply_udp(
        &mut self,
        listener: u16,
        client: SocketAddr,
        ingress: Ingress,
        message: &[u8],
    ) {
        let Some(socket) = self.listeners.get(listener) else {
            return;
        };
        // A full send buffer counts as a lost datagram: the client asks again.
        if socket.send_to(message, client).is_ok() {
            self.count_answer(AnswerWay::Udp, message);
            self.arrivals.count(ingress, Counter::AnswersUdp);
        }
    }

    /// Receives one query of the listener. `None` if none is there.
    pub(super) fn receive_udp(&self, listener: u16, buffer: &mut [u8]) -> Option<Datagram> {
        let socket = self.listeners.get(listener)?;
        loop {
            match datagrams::receive(socket, buffer) {
                Ok(received) => return received,
                // Interrupted, or an ICMP error about an earlier answer.
                Err(Errno::EINTR | Errno::ECONNREFUSED) => {}
                Err(_) => return None,
            }
        }
    }
}
