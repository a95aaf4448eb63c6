//! The event loop of one worker: the RX queues of its AF_XDP sockets, kernel UDP sockets, upstream sockets, one engine.
//!
//! ```text
//!  poll ─┬─ AF_XDP sockets: batches of frames, each answered in place or given back
//!        └─ epoll ─┬─ kernel UDP sockets: a batch of queries
//!                  ├─ ports towards upstreams: answers, ICMP errors
//!                  ├─ TCP: clients' connections (one worker has them all), streams to upstreams
//!                  └─ inbox: an AF_XDP socket is attached or detached, a new policy, another worker's answer is in the cache
//!  then: deadlines, one flush of each TX ring, the heartbeats
//! ```
//! A worker allocates nothing after it is sealed, and blocks only in poll, or in epoll_wait while it has no AF_XDP socket. The
//! only lock that a query waits for is a cache shard's: those of hot names, readers and statistics are only tried, and the
//! inbox's is taken when a command has arrived.
//!
//! Here belongs what a thread with an engine does while it serves, and the state that it publishes.
//!
//! What does not: what to answer (`xdnsd_core::engine`), and which threads, sockets and policies there are (`daemon`): those
//! arrive by the inbox.
//!
//! It uses `os`; of `store` the cache, hot names, accounts and tap rings; and `text` for error messages.

mod arrival;
mod busy_poll;
mod egress;
pub mod engines;
mod events;
mod hot;
mod in_sets;
mod inbox;
mod io;
mod listener;
mod notices;
mod ports;
mod pulse;
mod serve;
mod sources;
mod stats;
mod streams;
mod tapped;
mod tcp;
mod xsks;

use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollTimeout};
use xdnsd_abi::HEARTBEAT_INTERVAL_MS;
use xdnsd_core::counters::Counters;
use xdnsd_core::engine::{Context, Engine, Settings};
use xdnsd_core::forward::upstreams::UpstreamConfig;
use xdnsd_core::limits::{TCP_MESSAGE_MAX, UDP_MESSAGE_MAX};
use xdnsd_core::policy::{Policy, Views};
use xdnsd_core::time::Instant;

use crate::os::clock;
use crate::os::nf_tables::SetQueue;
use crate::os::random::Entropy;
use crate::os::seal;
use crate::os::xsk::Batch;
use crate::store::SharedCache;
use crate::store::tap::TapRings;

pub use arrival::Arrivals;
pub use hot::BYTES as HOT_BYTES;
pub use inbox::{Inbox, WorkerCommand};
pub use io::{Io, ReplyPath};
pub use listener::{LISTENERS_MAX, Listeners, open_udp};
pub use notices::NoticeBoard;
pub use ports::look_again as look_at_ports;
pub use ports::lookup::LookupPorts;
pub use ports::table::LookupProgram;
pub use ports::{BYTES as PORTS_BYTES, SHARED_BYTES as PORTS_SHARED_BYTES};
pub use pulse::Pulse;
pub use stats::{QueueName, ServerReading, SocketReading, SocketStats, WorkerStats};
pub use streams::{BUFFER_BYTES as STREAM_BYTES, Progress as StreamProgress, Streams};
pub use tcp::{Accepted, SLOTS_BYTES, Tcp, TcpClient, TcpRead, open_tcp};
pub use xsks::XskPort;

use busy_poll::BusyPoll;
use events::{EventSource, watch};
use hot::Hotness;
use in_sets::SetFeed;
use listener::ListenerTable;
use sources::Sources;
use tapped::Tapped;
use xsks::Xsks;

/// Most events taken from epoll in one wait.
const EVENTS: usize = 64;
/// Longest wait without an AF_XDP socket, in milliseconds. It only bounds the age of published statistics.
const IDLE_MS: u64 = 1_000;
/// Time between two publications of statistics, in milliseconds.
const STATS_MS: u64 = 500;
/// Pause before frames that the kernel did not take are sent again, in milliseconds.
const FLUSH_AGAIN_MS: u8 = 1;
/// Bytes of a message buffer: room to recognize a message beyond our limit as too long, and for several upstream answers at once.
const BUFFER: usize = 4 * ports::lookup::PART;
/// Bytes of the message buffers of `workers`, one of which serves TCP, for the memory budget.
pub const fn buffer_bytes(workers: usize) -> usize {
    TCP_MESSAGE_MAX + (workers - 1) * BUFFER
}

/// Parts of a worker.
pub struct WorkerParts<'a> {
    /// Kernel sockets at the start.
    pub listeners: Listeners,
    /// Places for listeners, those at the start included.
    pub places: usize,
    /// True for the worker that serves TCP.
    pub has_tcp: bool,
    /// Idle timeout of TCP connections, in milliseconds.
    pub tcp_idle_ms: u64,
    /// Longest busy polling for an answer before the worker sleeps, in microseconds.
    pub busy_poll_us: u32,
    /// True if the worker finds hot names for the program in the kernel.
    pub has_hot: bool,
    /// Local data, lists, routes, access.
    pub policy: Arc<dyn PolicySource>,
    /// Notices for the log.
    pub notices: &'a NoticeBoard,
    /// Command queue of the worker.
    pub inbox: &'a Inbox,
    /// Those of all engines, by number: who waits for the same question is told when it ends.
    pub inboxes: &'a [Inbox],
    /// Counters of the worker.
    pub counters: &'a Counters,
    /// Counts per ingress device, of all workers.
    pub arrivals: &'a Arrivals,
    /// Published statistics of upstream servers.
    pub stats: &'a WorkerStats,
    /// Liveness of the worker.
    pub pulse: &'a Pulse,
    /// Tap rings for readers of queries.
    pub rings: &'a TapRings,
}

/// Owner of the images that a policy looks into. A reload makes a new one.
pub trait PolicySource: Send + Sync {
    /// View of the images.
    fn policy(&self) -> Policy<'_>;

    /// Policies of the views, for [`views`](Self::views). Empty if there is one policy for all clients.
    fn policies(&self) -> Vec<Policy<'_>> {
        Vec::new()
    }

    /// Maps clients to `policies`.
    fn views<'p>(&'p self, policies: &'p [Policy<'p>]) -> Views<'p> {
        let _ = policies;
        Views::NONE
    }

    /// Identifies the numbering of views: it changes when a view's number is given to another view.
    fn views_id(&self) -> u32 {
        0
    }

    /// Upstream servers that the routes name. `None` if they stay as they are.
    fn servers(&self) -> Option<&[UpstreamConfig]> {
        None
    }

    /// Queue for addresses that go into sets of the packet filter. `None` if none do.
    fn set_queue(&self) -> Option<&Arc<SetQueue>> {
        None
    }

    /// Further settings of the engine. `None` if they stay as they are.
    fn settings(&self) -> Option<&Settings> {
        None
    }
}

/// Engine of a worker.
pub type WorkerEngine<'a> = Engine<'a, ReplyPath, &'a SharedCache>;

/// Events of one wait.
type Events = heapless::Vec<EpollEvent, EVENTS>;

/// Policy and views in force until the next policy.
#[derive(Clone, Copy)]
struct PolicyInForce<'p> {
    policy: &'p Policy<'p>,
    views: &'p Views<'p>,
}

impl<'p> PolicyInForce<'p> {
    fn at(&self, now: Instant) -> Context<'p> {
        Context {
            now,
            unix_secs: clock::wall_secs() as u32,
            policy: self.policy,
            views: self.views,
        }
    }
}

/// Why `serve_under` returns.
enum TurnEnd {
    Stop,
    NewPolicy(Arc<dyn PolicySource>),
}

/// One worker. [`Worker::run`] is its thread.
pub struct Worker<'a> {
    engine: WorkerEngine<'a>,
    io: Io<'a>,
    inbox: &'a Inbox,
    stats: &'a WorkerStats,
    pulse: &'a Pulse,
    policy: Arc<dyn PolicySource>,
    /// Numbering of the views of the policy in force.
    views_id: u32,
    /// Events that arrived with a new policy, to be served under it. A TCP connection's event comes once, so none may be lost.
    left: Events,
    batch: Batch,
    /// One message from a kernel socket: [`BUFFER`] bytes, or the longest message for the worker that serves TCP.
    buffer: Box<[u8]>,
    next_heartbeat: Instant,
    next_stats: Instant,
    /// True if the last turn left frames in RX rings.
    has_frames: bool,
    /// Index of the AF_XDP socket to serve next.
    next_xsk: usize,
    /// Earliest deadline of a TCP connection.
    next_expiry: Option<Instant>,
    /// Hit counts of names, if the program for hot names is in use.
    hot: Option<Hotness>,
}

impl<'a> Worker<'a> {
    /// Makes a worker and its epoll.
    ///
    /// # Errors
    /// A descriptor for epoll or the random generator cannot be opened, or a listener cannot be added.
    pub fn new(engine: WorkerEngine<'a>, parts: WorkerParts<'a>) -> std::io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        watch(&epoll, parts.inbox.as_fd(), EventSource::Inbox)?;
        let WorkerParts {
            places, has_tcp, ..
        } = parts;
        let mut io = Io {
            epoll,
            xsks: Xsks::new(),
            sources: Sources::new(places),
            listeners: ListenerTable::new(places),
            ports: ports::Ports::new(),
            busy_poll: BusyPoll::new(parts.busy_poll_us),
            streams: Streams::new(),
            tcp: Tcp::new(if has_tcp { places } else { 0 }, parts.tcp_idle_ms),
            notices: parts.notices,
            sets: SetFeed::new(),
            inboxes: parts.inboxes,
            entropy: Entropy::open()?,
            tap: Tapped::new(parts.rings, parts.counters),
            counters: parts.counters,
            arrivals: parts.arrivals,
            now: clock::now(),
        };
        let mut listeners = parts.listeners;
        io.listen(&mut listeners)?;
        Ok(Self {
            engine,
            io,
            inbox: parts.inbox,
            stats: parts.stats,
            pulse: parts.pulse,
            views_id: parts.policy.views_id(),
            policy: parts.policy,
            left: Events::new(),
            batch: Batch::new(),
            buffer: vec![0; if has_tcp { TCP_MESSAGE_MAX } else { BUFFER }].into_boxed_slice(),
            next_heartbeat: Instant::default(),
            next_stats: Instant::default(),
            has_frames: false,
            next_xsk: 0,
            next_expiry: None,
            hot: parts.has_hot.then(Hotness::new),
        })
    }

    /// Serves until the inbox says stop. The caller seals the thread first.
    pub fn run(&mut self) {
        loop {
            // Keeps the images alive while the view of them is in use, whatever a reload does meanwhile.
            let source = Arc::clone(&self.policy);
            let policy = source.policy();
            let policies = seal::unsealed(|| source.policies());
            let views = source.views(&policies);
            let rules = PolicyInForce {
                policy: &policy,
                views: &views,
            };
            if let Some(settings) = source.settings() {
                self.engine.take_settings(settings);
            }
            self.io.sets.follow(source.set_queue());
            self.take_over(&rules, &*source);
            match self.serve_under(&rules) {
                TurnEnd::Stop => return,
                TurnEnd::NewPolicy(policy) => self.policy = policy,
            }
        }
    }

    /// Applies changes that concern questions in flight: numbering of views, and upstream servers.
    fn take_over(&mut self, rules: &PolicyInForce<'_>, source: &dyn PolicySource) {
        let context = rules.at(clock::now());
        let call = &mut context.call(&mut self.io);
        if std::mem::replace(&mut self.views_id, source.views_id()) != source.views_id() {
            self.engine.leave_views(call);
        }
        if let Some(servers) = source.servers() {
            let taken = self.engine.take_servers(call, servers);
            debug_assert!(taken.is_ok(), "the config allows no more than fit");
        }
        // A command's event may have been theirs as well.
        if self.inbox.take_answers() {
            self.engine.look_again(&mut context.call(&mut self.io));
        }
        self.flush_questions(&context);
        self.io.xsks.flush_all();
    }

    /// Serves under one policy until a command ends that.
    fn serve_under(&mut self, rules: &PolicyInForce<'_>) -> TurnEnd {
        let mut room = [EpollEvent::empty(); EVENTS];
        loop {
            self.keep_time();
            self.pulse.beat();
            // Usually empty, and then nothing is moved.
            let left = if self.left.is_empty() {
                Events::new()
            } else {
                std::mem::take(&mut self.left)
            };
            let events = if left.is_empty() {
                let count = self.wait(&mut room);
                &room[..count]
            } else {
                &left
            };
            self.io.now = clock::now();
            let context = rules.at(self.io.now);
            // Commands first: events that arrive after a new policy was posted are served under that policy.
            let is_inbox =
                |event: &EpollEvent| EventSource::from_bits(event.data()) == EventSource::Inbox;
            let has_command = events.iter().any(is_inbox);
            let end = has_command.then(|| self.take_command()).flatten();
            if let Some(end @ TurnEnd::NewPolicy(_)) = end {
                let others = events.iter().filter(|event| !is_inbox(event));
                self.left = others.copied().collect();
                return end;
            }
            self.has_frames = self.serve_xsks(&context);
            self.serve_events(&context, events);
            self.io.tap.turns_to(None);
            if self.inbox.take_answers() {
                self.engine.look_again(&mut context.call(&mut self.io));
            }
            self.engine.timeout(&mut context.call(&mut self.io));
            self.expire(&context);
            self.flush_questions(&context);
            self.io.xsks.flush_all();
            if self.io.xsks.has_leaver() {
                self.give_back();
            }
            // Events that had arrived before the stop are answered.
            if let Some(TurnEnd::Stop) = end {
                return TurnEnd::Stop;
            }
        }
    }

    /// Serves the events of kernel sockets. New connections come last: where slots are few, a connection whose query has arrived
    /// must not look idle to them.
    fn serve_events(&mut self, context: &Context<'_>, events: &[EpollEvent]) {
        for event in events {
            match EventSource::from_bits(event.data()) {
                EventSource::Inbox | EventSource::TcpListener(_) => {}
                EventSource::Listener(index) => self.serve_listener(context, index),
                EventSource::Connected(place) => self.serve_connected(context, place),
                EventSource::Answers { v6 } => self.serve_answers(context, v6),
                EventSource::Errors { v6 } => self.serve_errors(context, v6),
                EventSource::Stream(index) => self.serve_stream(context, index),
                EventSource::TcpClient { slot, generation } => {
                    if self.io.tcp.is_current(slot, generation) {
                        self.serve_tcp_client(context, slot);
                    }
                }
            }
        }
        for event in events {
            if let EventSource::TcpListener(index) = EventSource::from_bits(event.data()) {
                self.serve_tcp_listener(context, index);
            }
        }
    }

    /// Waits for an event or a deadline. Returns the number of events from epoll; RX rings are read anyway. Interrupted or
    /// failed: none, and the next turn waits again.
    ///
    /// AF_XDP sockets are polled, and only when their rings were found empty: in an epoll set they would always have a waiter,
    /// which the kernel would try to wake for every frame sent (`sock_wfree`), at a tenth of the cost of an answer.
    fn wait(&mut self, events: &mut [EpollEvent]) -> usize {
        let until_ns = self.io.busy_poll.until().filter(|_| !self.has_frames);
        if let Some(until_ns) = until_ns {
            if let Some(count) = self.busy_poll(until_ns, events) {
                return count;
            }
            self.io.busy_poll.was_in_vain();
        }
        let timeout = self.timeout_ms();
        let epoll = &self.io.epoll;
        if self.io.xsks.is_empty() {
            return epoll.wait(events, timeout).unwrap_or(0);
        }
        if !self.has_frames {
            let mut fds = self.io.xsks.poll_fds();
            let pushed = fds.push(PollFd::new(epoll.0.as_fd(), PollFlags::POLLIN));
            debug_assert!(pushed.is_ok(), "there is a place for it");
            let is_over = poll(&mut fds, timeout).is_err();
            if is_over || fds.last().and_then(PollFd::any) != Some(true) {
                return 0;
            }
        }
        epoll.wait(events, EpollTimeout::ZERO).unwrap_or(0)
    }

    /// Polls until `until_ns`, on the monotonic clock. Returns the number of events from epoll; `None` if nothing came.
    fn busy_poll(&self, until_ns: u64, events: &mut [EpollEvent]) -> Option<usize> {
        let mut xsks = self.io.xsks.poll_fds();
        let mut has_frames =
            || !xsks.is_empty() && poll(&mut xsks, 0u8).is_ok_and(|ready| ready > 0);
        while clock::monotonic_ns() < until_ns {
            // Usually the answer.
            let count = self.io.epoll.wait(events, EpollTimeout::ZERO).unwrap_or(0);
            if count > 0 || has_frames() {
                return Some(count);
            }
            thread::yield_now();
        }
        None
    }

    /// Time until the next deadline or periodic task.
    fn timeout_ms(&self) -> PollTimeout {
        if self.io.xsks.is_stuck() {
            return PollTimeout::from(FLUSH_AGAIN_MS);
        }
        let longest = if self.io.xsks.is_empty() {
            IDLE_MS
        } else {
            HEARTBEAT_INTERVAL_MS
        };
        let deadlines = [
            self.engine.next_deadline(),
            self.io.streams.next_deadline(),
            self.next_expiry,
        ];
        let next = deadlines.into_iter().flatten().min();
        let until = next.map_or(longest, |deadline| {
            deadline.millis_since(self.io.now).min(longest)
        });
        PollTimeout::try_from(until as i32).unwrap_or(PollTimeout::ZERO)
    }

    /// Publishes heartbeats, and statistics of AF_XDP sockets and of upstream servers, when due.
    fn keep_time(&mut self) {
        let now = self.io.now;
        let is_stats_due = now >= self.next_stats;
        if is_stats_due {
            self.next_stats = now + STATS_MS;
            let upstreams = self.engine.upstreams().as_slice();
            self.stats
                .publish_servers(upstreams, now, clock::wall_secs());
        }
        if self.io.xsks.is_empty() {
            return;
        }
        if now >= self.next_heartbeat {
            self.io.xsks.beat();
            self.next_heartbeat = now + HEARTBEAT_INTERVAL_MS;
        }
        if is_stats_due {
            self.io.xsks.publish();
        }
    }

    /// Gives back sockets whose interface is gone or that were detached, to be closed. The kernel's sockets serve on.
    fn give_back(&mut self) {
        while let Some(port) = self.io.xsks.take_leaver() {
            self.inbox.give_back_port(port);
        }
        if self.io.xsks.is_empty() {
            self.has_frames = false;
        }
    }

    /// Carries out the next command from the inbox.
    fn take_command(&mut self) -> Option<TurnEnd> {
        match self.inbox.take()? {
            WorkerCommand::Stop => return Some(TurnEnd::Stop),
            WorkerCommand::NewPolicy(policy) => return Some(TurnEnd::NewPolicy(policy)),
            WorkerCommand::Detach(place) => self.io.xsks.leave(place),
            WorkerCommand::Closed(closed) => self.io.xsks.reclaim(&closed),
            WorkerCommand::Attach(port) => self.attach(port),
            // Without room in epoll nothing changes: each question keeps its own socket.
            WorkerCommand::Ports(lookup) => drop(self.io.take_ports(*lookup)),
            // Without room in epoll the sockets go back, and are opened again later.
            WorkerCommand::Listen(mut listeners) => {
                if let Err(error) = self.io.listen(&mut listeners) {
                    seal::unsealed(|| self.inbox.give_back(*listeners, error));
                }
            }
        }
        None
    }

    /// Ends TCP connections and streams to upstreams whose deadline has passed.
    fn expire(&mut self, context: &Context<'_>) {
        let now = self.io.now;
        self.expire_streams(context);
        if self.next_expiry.is_none_or(|expiry| expiry <= now) {
            self.next_expiry = self.io.tcp.expire(now, &self.io.epoll);
        }
    }

    fn attach(&mut self, port: Box<XskPort>) {
        self.io.xsks.attach(port);
        self.next_heartbeat = Instant::default();
        self.next_stats = Instant::default();
    }
}

const _: () = assert!(BUFFER > UDP_MESSAGE_MAX);

#[cfg(test)]
mod tests;
