//! The AF_XDP sockets of a worker, each on its own RX queue, and the UMEM that they share.

use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags};
use xdnsd_core::limits::SOCKETS;

use super::stats::SocketStats;
use crate::os::clock;
use crate::os::xdp::Heartbeat;
use crate::os::xsk::{Batch, Closed, Frame, Kick, Pool, Xsk};

/// An AF_XDP socket with the state of its RX queue.
pub struct XskPort {
    /// The socket.
    pub xsk: Xsk,
    /// Tells the XDP program that this queue is served.
    pub heartbeat: Heartbeat,
    /// Place of the socket in `SOCKET_STATS`, and its identity: no other socket has it while this one is open.
    pub place: usize,
    /// Published statistics of the socket.
    pub stats: &'static SocketStats,
    /// Index of the interface that the config names: for a bridge port, its bridge. 0 if it is gone.
    pub device: u32,
    /// Of a port of a bridge that looks at VLAN tags: ID of the VLAN device there to which frames without a tag belong. 0: they are
    /// the bridge's own.
    pub vlan: u16,
    /// Chunk pool of the UMEM, with the first socket on it.
    pub pool: Option<Box<Pool>>,
}

/// A socket that is served.
struct Served {
    port: Box<XskPort>,
    /// Generation of the socket: a reply for an earlier one is dropped.
    generation: u32,
    /// Detached by command: it goes once its RX ring is empty.
    is_leaving: bool,
    /// The last receive found its RX ring empty.
    is_read: bool,
    /// Its interface is gone.
    is_gone: bool,
    /// The kernel took no more frames: they stay in the TX ring until the next flush.
    is_stuck: bool,
    /// Answers already added to `stats`.
    shown_answers: u64,
}

/// One entry per possible socket, and one more for the caller.
pub type PollFds<'a> = heapless::Vec<PollFd<'a>, { SOCKETS + 1 }>;

/// The sockets of one worker.
#[derive(Default)]
pub struct Xsks {
    list: heapless::Vec<Served, SOCKETS>,
    pool: Option<Box<Pool>>,
    generation: u32,
}

impl Xsks {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn len(&self) -> usize {
        self.list.len()
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Adds a socket.
    pub fn attach(&mut self, mut port: Box<XskPort>) {
        if let Some(pool) = port.pool.take() {
            debug_assert!(self.pool.is_none(), "a slot has one ledger");
            self.pool = Some(pool);
        }
        let Some(pool) = &mut self.pool else {
            debug_assert!(false, "the first socket brings the ledger");
            return;
        };
        port.xsk.join(pool);
        self.generation = self.generation.wrapping_add(1);
        let served = Served {
            port,
            generation: self.generation,
            is_leaving: false,
            is_read: false,
            is_gone: false,
            is_stuck: false,
            shown_answers: 0,
        };
        let pushed = self.list.push(served);
        debug_assert!(pushed.is_ok(), "there are no more sockets than places");
        // Fills the rest of the fill ring.
        self.flush(self.list.len() - 1);
    }

    /// Begins to detach the socket at `place`.
    pub fn leave(&mut self, place: usize) {
        let mut list = self.list.iter_mut();
        if let Some(served) = list.find(|served| served.port.place == place) {
            (served.is_leaving, served.is_read) = (true, false);
        }
    }

    /// Takes the next socket to give back: its interface is gone, or it is detached with an empty RX ring.
    pub fn take_leaver(&mut self) -> Option<Box<XskPort>> {
        let is_over = |served: &Served| served.is_gone || served.is_leaving && served.is_read;
        let index = self.list.iter().position(is_over)?;
        let served = self.list.remove(index);
        served.port.stats.clear();
        Some(served.port)
    }

    /// True if any socket is to be given back.
    pub fn has_leaver(&self) -> bool {
        let mut list = self.list.iter();
        list.any(|served| served.is_leaving || served.is_gone)
    }

    /// Reclaims the chunks of a socket that the kernel has closed.
    pub fn reclaim(&mut self, closed: &Closed) {
        if let Some(pool) = &mut self.pool {
            pool.reclaim(closed);
            // The supervisor may choose another number of sockets next.
            if pool.is_empty() {
                self.pool = None;
            }
        }
    }

    /// Index of the socket with this generation.
    pub fn find(&self, generation: u32) -> Option<usize> {
        let mut list = self.list.iter();
        list.position(|served| served.generation == generation)
    }

    /// Generation of the socket at `index`.
    pub fn generation(&self, index: usize) -> u32 {
        self.list.get(index).map_or(0, |served| served.generation)
    }

    /// Interface that its frames are for, VLAN tags aside.
    pub fn device(&self, index: usize) -> u32 {
        self.list.get(index).map_or(0, |served| served.port.device)
    }

    /// VLAN of its frames without a tag, see [`XskPort::vlan`].
    pub fn vlan(&self, index: usize) -> u16 {
        self.list.get(index).map_or(0, |served| served.port.vlan)
    }

    /// Published statistics of the socket.
    pub fn stats(&self, index: usize) -> Option<&'static SocketStats> {
        self.list.get(index).map(|served| served.port.stats)
    }

    /// Receives frames until the batch is full or none is left; returns their number.
    pub fn receive(&mut self, index: usize, batch: &mut Batch) -> usize {
        let Some((served, pool)) = self.at(index) else {
            return 0;
        };
        let count = served.port.xsk.receive(pool, batch);
        served.is_read = count == 0;
        if count > 0 {
            served.port.stats.count_queries(count as u64);
        }
        count
    }

    /// See [`Xsk::take_free`].
    pub fn take_free(&mut self, index: usize) -> Option<Frame> {
        let (served, pool) = self.at(index)?;
        served.port.xsk.take_free(pool)
    }

    /// See [`Xsk::transmit`].
    ///
    /// # Errors
    /// Returns the frame if it was not queued.
    pub fn transmit(&mut self, index: usize, frame: Frame, len: usize) -> Result<(), Frame> {
        match self.at(index) {
            Some((served, pool)) => served.port.xsk.transmit(pool, frame, len),
            None => Err(frame),
        }
    }

    /// Gives a frame back unsent.
    pub fn release(&mut self, index: usize, frame: Frame) {
        match self.at(index) {
            Some((served, pool)) => served.port.xsk.release(pool, frame),
            None => debug_assert!(false, "no socket goes while its frames are in hand"),
        }
    }

    /// Sends the frames in the socket's TX ring, and services its other rings.
    pub fn flush(&mut self, index: usize) {
        if let Some((served, pool)) = self.at(index) {
            // Counted before they are sent, so that a client that has its answer finds it counted.
            let answers = served.port.xsk.counters().transmitted;
            let new = answers - std::mem::replace(&mut served.shown_answers, answers);
            if new > 0 {
                served.port.stats.count_answers(new);
            }
            let kick = served.port.xsk.flush(pool);
            served.after(kick);
        }
    }

    /// Flushes each socket that has work.
    pub fn flush_all(&mut self) {
        let is_alone = self.list.len() == 1;
        for index in 0..self.list.len() {
            let has_work =
                |served: &Served, pool: &Pool| served.is_stuck || served.port.xsk.has_work(pool);
            if is_alone
                || self
                    .at(index)
                    .is_some_and(|(served, pool)| has_work(served, pool))
            {
                self.flush(index);
            }
        }
    }

    /// True if the kernel took no more frames from one of them.
    pub fn is_stuck(&self) -> bool {
        self.list.iter().any(|served| served.is_stuck)
    }

    /// Tells the XDP programs that their queues are served.
    pub fn beat(&self) {
        let now_ns = clock::monotonic_ns();
        for served in &self.list {
            served.port.heartbeat.beat(now_ns);
        }
    }

    /// Publishes statistics of each socket, and finds out whether its interface still exists. Chunks outside any socket are
    /// published with the first one.
    pub fn publish(&mut self) {
        let Some(pool) = &self.pool else {
            return;
        };
        for (index, served) in self.list.iter_mut().enumerate() {
            let kick = served.port.xsk.probe();
            served
                .port
                .stats
                .publish(&served.port.xsk, pool, index == 0);
            served.after(kick);
        }
    }

    /// Descriptors to poll for received frames.
    pub fn poll_fds(&self) -> PollFds<'_> {
        let fds = self.list.iter();
        fds.map(|served| PollFd::new(served.port.xsk.as_fd(), PollFlags::POLLIN))
            .collect()
    }

    fn at(&mut self, index: usize) -> Option<(&mut Served, &mut Pool)> {
        self.list.get_mut(index).zip(self.pool.as_deref_mut())
    }
}

impl Served {
    fn after(&mut self, kick: Kick) {
        self.is_stuck = kick == Kick::Again;
        match kick {
            Kick::Gone => self.is_gone = true,
            Kick::Idle | Kick::Done | Kick::Again | Kick::Down | Kick::Failed(_) => {}
        }
    }
}
