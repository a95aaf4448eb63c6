//! The event loop of one worker: at most one RX queue, kernel UDP sockets, upstream sockets, one engine.
//!
//! ```text
//!  epoll_wait ─┬─ AF_XDP socket: a batch of frames, each answered in place or given back
//!              ├─ kernel UDP sockets: a batch of queries
//!              ├─ upstream sockets: a batch of answers
//!              └─ mailbox: an AF_XDP socket comes or goes
//!  then: deadlines, one flush of the TX ring, the heartbeat
//! ```
//! A worker allocates nothing after it is sealed, takes no lock but a cache shard's, and blocks only in epoll_wait.

mod entropy;
mod events;
mod io;
mod listener;
mod mailbox;
mod pool;
mod stats;

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollTimeout};
use xdnsd_core::counters::{Counter, Counters};
use xdnsd_core::engine::{Client, Engine, Outcome, Transport};
use xdnsd_core::limits::{BATCH, UDP_MESSAGE_MAX};
use xdnsd_core::time::Instant;
use xdnsd_core::wire;
use xdnsd_ebpf::HEARTBEAT_INTERVAL_MS;

use crate::cache::SharedCache;
use crate::clock;
use crate::xdp::Heartbeat;
use crate::xsk::{Batch, Frame, Kick, Xsk};

pub use entropy::Entropy;
pub use io::{Io, Route};
pub use listener::{open_udp, scoped};
pub use mailbox::{Letter, Mailbox};
pub use stats::{PortStats, QueueName};

use events::{Source, watch};

/// Events taken from the kernel at once.
const EVENTS: usize = 64;
/// Longest wait without an AF_XDP socket, in milliseconds. Nothing depends on it; it bounds how late statistics are.
const IDLE_MS: u64 = 1_000;
/// Time between two looks at the AF_XDP socket's statistics, in milliseconds.
const STATS_MS: u64 = 500;
/// Pause before frames that the kernel did not take are offered again, in milliseconds.
const FLUSH_AGAIN_MS: u8 = 1;
/// Bytes of a message buffer: a longer message than ours must show as one, not as a whole one.
const BUFFER: usize = 4_096;

/// An AF_XDP socket with what belongs to its RX queue.
pub struct Port {
    /// The socket.
    pub xsk: Xsk,
    /// Tells the XDP program that this queue's worker is alive.
    pub heartbeat: Heartbeat,
    /// Interface and queue, for the statistics.
    pub queue: QueueName,
}

/// What a worker is made of.
pub struct Parts<'a> {
    /// Kernel UDP sockets, non-blocking.
    pub listeners: Vec<UdpSocket>,
    /// How it is told of AF_XDP sockets.
    pub mailbox: &'a Mailbox,
    /// Where it counts.
    pub counters: &'a Counters,
    /// Where it shows the statistics of its AF_XDP socket.
    pub port_stats: &'a PortStats,
}

/// The engine of a worker.
pub type WorkerEngine<'a> = Engine<'a, Route, &'a SharedCache>;

/// One worker. [`Worker::run`] is its thread.
pub struct Worker<'a> {
    engine: WorkerEngine<'a>,
    io: Io<'a>,
    mailbox: &'a Mailbox,
    port_stats: &'a PortStats,
    batch: Batch,
    buffer: [u8; BUFFER],
    next_heartbeat: Instant,
    next_stats: Instant,
    /// The kernel took no more frames: they stay in the TX ring until the next flush.
    flush_again: bool,
}

impl<'a> Worker<'a> {
    /// Opens what it waits with.
    ///
    /// # Errors
    /// epoll or the random generator cannot be opened.
    pub fn new(engine: WorkerEngine<'a>, parts: Parts<'a>) -> std::io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        watch(&epoll, parts.mailbox.as_fd(), Source::Mailbox)?;
        for (index, listener) in parts.listeners.iter().enumerate() {
            watch(&epoll, listener.as_fd(), Source::Listener(index as u16))?;
        }
        let io = Io {
            epoll,
            port: None,
            adoption: 0,
            listeners: parts.listeners,
            pool: pool::Pool::new(),
            entropy: Entropy::open()?,
            counters: parts.counters,
            now: clock::now(),
        };
        Ok(Self {
            engine,
            io,
            mailbox: parts.mailbox,
            port_stats: parts.port_stats,
            batch: Batch::new(),
            buffer: [0; BUFFER],
            next_heartbeat: Instant::default(),
            next_stats: Instant::default(),
            flush_again: false,
        })
    }

    /// Serves until the mailbox says stop. The caller seals the thread first.
    pub fn run(&mut self) {
        let mut events = [EpollEvent::empty(); EVENTS];
        loop {
            self.keep_time();
            let timeout = self.timeout_ms();
            // Interrupted or failed: an empty turn, and the next one waits again.
            let count = self.io.epoll.wait(&mut events, timeout).unwrap_or(0);
            self.io.now = clock::now();
            for event in &events[..count] {
                if !self.serve(Source::from_bits(event.data())) {
                    return;
                }
            }
            let now = self.io.now;
            self.engine.timeout(now, &mut self.io);
            self.flush();
        }
    }

    /// Takes what one source has. False: the worker ends.
    fn serve(&mut self, source: Source) -> bool {
        match source {
            Source::Mailbox => return self.open_mail(),
            Source::Xsk => self.serve_xsk(),
            Source::Listener(index) => self.serve_listener(index),
            Source::Upstream { socket, v6, side } => self.serve_upstream(socket, v6, side),
        }
        true
    }

    /// How long there is nothing to do unless something comes.
    fn timeout_ms(&self) -> EpollTimeout {
        if self.flush_again {
            return EpollTimeout::from(FLUSH_AGAIN_MS);
        }
        let longest = if self.io.port.is_some() {
            HEARTBEAT_INTERVAL_MS
        } else {
            IDLE_MS
        };
        let until = self.engine.next_deadline().map_or(longest, |deadline| {
            deadline.millis_since(self.io.now).min(longest)
        });
        EpollTimeout::try_from(until as i32).unwrap_or(EpollTimeout::ZERO)
    }

    /// The heartbeat and the statistics of the AF_XDP socket.
    fn keep_time(&mut self) {
        let now = self.io.now;
        let Some(port) = &mut self.io.port else {
            return;
        };
        if now >= self.next_heartbeat {
            port.heartbeat.beat(clock::monotonic_ns());
            self.next_heartbeat = now + HEARTBEAT_INTERVAL_MS;
        }
        if now >= self.next_stats {
            self.next_stats = now + STATS_MS;
            let probed = port.xsk.probe();
            self.port_stats.publish(&port.xsk);
            self.after_kick(probed);
        }
    }

    /// Frames from the RX ring, a batch. What is left wakes the worker again.
    fn serve_xsk(&mut self) {
        let Some(port) = &mut self.io.port else {
            return;
        };
        port.xsk.receive(&mut self.batch);
        self.io
            .counters
            .add(Counter::QueriesXdp, self.batch.len() as u64);
        while let Some(frame) = self.batch.pop() {
            self.answer_frame(frame);
        }
        self.flush();
    }

    /// Answers one query in its own frame, or gives the frame back.
    fn answer_frame(&mut self, mut frame: Frame) {
        let Ok((path, message)) = wire::parse(frame.data()) else {
            self.io.counters.count(Counter::FramesRejected);
            return self.release(frame);
        };
        let client = Client {
            route: Route::Xsk {
                path,
                adoption: self.io.adoption,
            },
            address: path.client().ip(),
            transport: Transport::Udp,
        };
        let room = &mut frame.bytes_mut()[message.start..];
        let now = self.io.now;
        let outcome = self
            .engine
            .query(now, &client, room, message.len(), &mut self.io);
        let Outcome::Reply(len) = outcome else {
            return self.release(frame);
        };
        match path.emit(frame.bytes_mut(), len) {
            Ok(frame_len) => self.transmit(frame, frame_len),
            Err(_) => self.release(frame),
        }
    }

    fn transmit(&mut self, frame: Frame, len: usize) {
        let Some(port) = &mut self.io.port else {
            return;
        };
        match port.xsk.transmit(frame, len) {
            Ok(()) => self.io.counters.count(Counter::AnswersXdp),
            Err(frame) => {
                self.io.counters.count(Counter::TxFull);
                port.xsk.release(frame);
            }
        }
    }

    fn release(&mut self, frame: Frame) {
        if let Some(port) = &mut self.io.port {
            port.xsk.release(frame);
        }
    }

    /// Queries of one kernel socket, a batch.
    fn serve_listener(&mut self, index: u16) {
        for _ in 0..BATCH {
            let Some((len, address)) = self.io.receive_udp(index, &mut self.buffer) else {
                return;
            };
            self.io.counters.count(Counter::QueriesUdp);
            if len > BUFFER - 1 || !self.may_answer(index, address) {
                self.io.counters.count(Counter::IgnoredMessages);
                continue;
            }
            let client = Client {
                route: Route::Udp {
                    listener: index,
                    client: address,
                },
                address: address.ip().to_canonical(),
                transport: Transport::Udp,
            };
            let now = self.io.now;
            if let Outcome::Reply(len) =
                self.engine
                    .query(now, &client, &mut self.buffer, len, &mut self.io)
            {
                self.io.reply_udp(index, address, &self.buffer[..len]);
            }
        }
    }

    /// An answer to ourselves would be a loop, one to port 0 goes nowhere.
    fn may_answer(&self, index: u16, client: SocketAddr) -> bool {
        let own = self
            .io
            .listeners
            .get(usize::from(index))
            .and_then(|listener| listener.local_addr().ok());
        client.port() != 0
            && own.is_none_or(|own| own.ip() != client.ip() || own.port() != client.port())
    }

    /// Answers on one upstream socket, a batch.
    fn serve_upstream(&mut self, socket: u16, v6: bool, side: u8) {
        for _ in 0..BATCH {
            let Some((len, from)) = self.io.pool.receive(socket, v6, side, &mut self.buffer) else {
                return;
            };
            let now = self.io.now;
            self.engine
                .response(now, socket, from, &self.buffer[..len], &mut self.io);
        }
    }

    /// Sends what waits in the TX ring.
    fn flush(&mut self) {
        if let Some(port) = &mut self.io.port {
            let kicked = port.xsk.flush();
            self.after_kick(kicked);
        }
    }

    /// The interface is gone: the socket is closed, the kernel's sockets serve on.
    fn after_kick(&mut self, kicked: Kick) {
        self.flush_again = kicked == Kick::Again;
        match kicked {
            Kick::Gone => self.drop_port(),
            Kick::Idle | Kick::Done | Kick::Again | Kick::Down | Kick::Failed(_) => {}
        }
    }

    fn drop_port(&mut self) {
        self.io.port = None;
        self.port_stats.clear();
    }

    /// What the supervisor has to say. False: the worker ends.
    fn open_mail(&mut self) -> bool {
        match self.mailbox.take() {
            None => {}
            Some(Letter::Stop) => return false,
            Some(Letter::Detach) => self.drop_port(),
            Some(Letter::Adopt(port)) => self.adopt(port),
        }
        true
    }

    fn adopt(&mut self, port: Box<Port>) {
        self.drop_port();
        if watch(&self.io.epoll, port.xsk.as_fd(), Source::Xsk).is_ok() {
            self.io.adoption = self.io.adoption.wrapping_add(1);
            self.io.port = Some(port);
            self.next_heartbeat = Instant::default();
            self.next_stats = Instant::default();
        }
    }
}

const _: () = assert!(BUFFER > UDP_MESSAGE_MAX);
