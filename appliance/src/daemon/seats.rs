//! Seats: assigns AF_XDP sockets to workers, opens and closes them.
//!
//! A new socket goes to the worker that has the fewest, among as many workers as there are CPUs. The sockets of one worker
//! share its UMEM. The size of their rings follows from the maximum number of sockets (`os::xsk::Shape`), which is fixed for a
//! UMEM while any of its sockets is open: for one more than that, the others are opened anew. A socket with zero copy has a
//! worker for itself.

use std::thread;
use std::time::{Duration, Instant};

use xdnsd_core::limits::{RX_RING, SOCKETS, WORKERS};

use crate::os::xsk::{Opener, Options, Pool, SHARERS_MAX, Shape, Xsk};
use crate::worker::engines::SOCKET_STATS;
use crate::worker::{Inbox, QueueName, WorkerCommand, XskPort};

/// Time that a worker may take to return sockets. It takes one turn, some hundred microseconds.
const PATIENCE: Duration = Duration::from_millis(100);
/// Time that a UMEM may take until it is free again: the worker has to take another turn.
const SLOT_PATIENCE: Duration = Duration::from_millis(100);
/// Time between two looks at it.
const SLOT_PAUSE: Duration = Duration::from_millis(2);

/// Seats of all workers that can have sockets.
pub struct Seats {
    seats: Vec<Seat>,
    /// Number of workers that share their UMEM among sockets.
    workers: usize,
    /// Number of sockets expected in all.
    expected: usize,
    /// Places: the queue of each, and whether its socket is open.
    places: [Option<SocketPlace>; SOCKETS],
}

/// Seat of one worker.
#[derive(Default)]
struct Seat {
    /// Number of sockets that it has or is to have.
    sockets: usize,
    /// True if its only socket may have zero copy.
    is_alone: bool,
    /// `Some` while any of its sockets is open.
    opener: Option<Opener>,
    /// `Some` until the first socket is handed to the worker.
    pool: Option<Box<Pool>>,
    /// Number of sockets that were called back.
    leaving: usize,
}

struct SocketPlace {
    name: QueueName,
    is_open: bool,
    /// True once its socket was called back.
    is_called: bool,
}

/// Where a queue is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seated {
    /// Index of the worker.
    pub worker: usize,
    /// True if the socket is the worker's only one, for zero copy.
    pub is_alone: bool,
}

impl Seats {
    /// Seats of at most `workers` workers, on a machine with this number of CPUs.
    pub fn new(cpus: usize, workers: usize) -> Self {
        let most = workers.clamp(1, WORKERS);
        // A backend without sharing has a worker for each socket.
        let workers = if SHARERS_MAX > 1 { cpus } else { most };
        Self {
            seats: (0..most).map(|_| Seat::default()).collect(),
            workers: workers.clamp(1, most),
            expected: 0,
            places: [const { None }; SOCKETS],
        }
    }

    /// Maximum number of sockets. A backend without sharing has one per worker.
    pub fn capacity(&self) -> usize {
        if SHARERS_MAX > 1 {
            SOCKETS
        } else {
            SOCKETS.min(self.seats.len())
        }
    }

    /// Announces the number of sockets that will be opened, so that the first ones get rings of the right size at once.
    pub fn expect(&mut self, sockets: usize) {
        self.expected = sockets.min(SOCKETS);
    }

    /// Takes a seat for one more socket; with zero copy on a worker of its own, if one is free. `None` if there is no room.
    pub fn take(&mut self, wants_zero_copy: bool) -> Option<Seated> {
        let seated = self.next(wants_zero_copy)?;
        let seat = &mut self.seats[seated.worker];
        seat.sockets += 1;
        seat.is_alone = seated.is_alone;
        Some(seated)
    }

    /// Lets other sockets share a worker whose only socket has no zero copy after all.
    pub fn share(&mut self, worker: usize) {
        self.seats[worker].is_alone = false;
    }

    /// True if there is no room for another socket that shares a worker.
    pub fn is_full(&self) -> bool {
        self.next(false).is_none()
    }

    /// Seat of the next socket.
    fn next(&self, wants_zero_copy: bool) -> Option<Seated> {
        if self.seats.iter().map(|seat| seat.sockets).sum::<usize>() >= SOCKETS {
            return None;
        }
        let free = self.seats.iter().position(|seat| seat.sockets == 0);
        let alone = free.filter(|_| wants_zero_copy);
        let worker = alone.or_else(|| self.least_loaded())?;
        let is_alone = alone.is_some();
        self.have_room(worker, is_alone)
            .then_some(Seated { worker, is_alone })
    }

    fn least_loaded(&self) -> Option<usize> {
        let seats = self.seats[..self.workers].iter().enumerate();
        let shared = seats.filter(|(_, seat)| !seat.is_alone && seat.sockets < SHARERS_MAX);
        let least = shared.min_by_key(|(_, seat)| seat.sockets);
        // If zero copy has taken all of these workers, another one shares.
        let beyond = || {
            let mut seats = self.seats.iter().enumerate();
            seats.find(|(_, seat)| !seat.is_alone && seat.sockets < SHARERS_MAX)
        };
        least.or_else(beyond).map(|(worker, _)| worker)
    }

    /// True if the RX rings of all sockets, with one more on `worker`, stay within the memory budget.
    fn have_room(&self, worker: usize, is_alone: bool) -> bool {
        let entries = self.seats.iter().enumerate().map(|(index, seat)| {
            let sockets = seat.sockets + usize::from(index == worker);
            let sharers = match (sockets, seat.is_alone || is_alone && index == worker) {
                (0 | 1, _) | (_, true) => 1,
                _ => sockets.next_power_of_two(),
            };
            sockets * Shape::of(sharers).rx
        });
        entries.sum::<usize>() <= (self.seats.len() * RX_RING).max(SOCKETS * Shape::LEAST.rx)
    }

    /// Frees the seat of one socket.
    pub fn leave(&mut self, worker: usize) {
        let seat = &mut self.seats[worker];
        seat.sockets = seat.sockets.saturating_sub(1);
        seat.is_alone &= seat.sockets > 0;
    }

    /// True if the worker is to have more sockets than its UMEM has room for: those that are open have to be closed first.
    pub fn is_crowded(&self, worker: usize) -> bool {
        let seat = &self.seats[worker];
        let opener = seat.opener.as_ref();
        opener.is_some_and(|opener| opener.sharers() < seat.sockets)
    }

    /// Opens a socket for a worker, under the name of its interface. Also returns its place.
    ///
    /// # Errors
    /// There is no UMEM, no place, or a system call failed.
    pub fn open(
        &mut self,
        worker: usize,
        options: &Options<'_>,
        shown: &str,
    ) -> Result<(Xsk, usize), String> {
        let name = QueueName {
            interface: shown.to_owned(),
            queue: options.queue,
        };
        let place = self.place_for(&name).ok_or("no place is free")?;
        let sharers = self.sharers(worker);
        let seat = &mut self.seats[worker];
        if seat.opener.is_none() {
            let (opener, pool) = claim(worker, sharers).ok_or("its UMEM is still in use")?;
            (seat.opener, seat.pool) = (Some(opener), Some(Box::new(pool)));
        }
        let opener = seat.opener.as_mut().ok_or("its UMEM is still in use")?;
        let opened = opener.open(options).map_err(|error| error.to_string());
        if opened.is_err() {
            seat.tidy();
        }
        let xsk = opened?;
        SOCKET_STATS[place].name(&name);
        self.places[place] = Some(SocketPlace {
            name,
            is_open: true,
            is_called: false,
        });
        Ok((xsk, place))
    }

    /// Number of sockets that the worker's UMEM should have room for.
    fn sharers(&self, worker: usize) -> usize {
        let seat = &self.seats[worker];
        if seat.is_alone {
            return 1;
        }
        let expected = self.expected.div_ceil(self.workers);
        seat.sockets
            .max(expected)
            .clamp(1, SHARERS_MAX)
            .next_power_of_two()
    }

    /// A place for the queue: the one it had before, else one never used, else any closed one.
    fn place_for(&self, name: &QueueName) -> Option<usize> {
        let position =
            |is_it: &dyn Fn(&Option<SocketPlace>) -> bool| self.places.iter().position(is_it);
        let closed = |place: &SocketPlace| !place.is_open;
        position(&|place| {
            place
                .as_ref()
                .is_some_and(|place| closed(place) && place.name == *name)
        })
        .or_else(|| position(&|place| place.is_none()))
        .or_else(|| position(&|place| place.as_ref().is_some_and(closed)))
    }

    /// Closes a socket that no worker holds.
    pub fn close(&mut self, worker: usize, place: usize, xsk: Xsk, inbox: &Inbox) {
        let seat = &mut self.seats[worker];
        if let Some(place) = &mut self.places[place] {
            place.is_open = false;
        }
        let Some(opener) = &mut seat.opener else {
            debug_assert!(false, "a socket has an opener");
            return;
        };
        if let Some(closed) = opener.close(xsk) {
            let sent = inbox.send(WorkerCommand::Closed(closed));
            debug_assert!(sent.is_ok(), "there is a place for each socket's");
        }
        seat.tidy();
    }

    /// Hands a socket to its worker.
    ///
    /// # Errors
    /// The worker takes no commands; the socket is closed.
    pub fn hand_over(&mut self, worker: usize, port: XskPort, inbox: &Inbox) -> Result<(), String> {
        let pool = self.seats[worker].pool.take();
        let port = Box::new(XskPort { pool, ..port });
        let Err(WorkerCommand::Attach(port)) = inbox.send(WorkerCommand::Attach(port)) else {
            return Ok(());
        };
        let XskPort {
            xsk, pool, place, ..
        } = *port;
        self.seats[worker].pool = pool;
        self.close(worker, place, xsk, inbox);
        Err("its worker is not responding".into())
    }

    /// Calls the socket at a place back, unless it is closed or was called already.
    pub fn call_back(&mut self, worker: usize, place: usize, inbox: &Inbox) {
        let open = self.places[place].as_mut().filter(|place| place.is_open);
        let is_new = open.is_some_and(|place| !std::mem::replace(&mut place.is_called, true));
        if !is_new {
            return;
        }
        self.seats[worker].leaving += 1;
        let sent = inbox.send(WorkerCommand::Detach(place));
        debug_assert!(sent.is_ok(), "there is a place for each socket's");
    }

    /// Closes the sockets that workers have returned; waits up to [`PATIENCE`] for those that were called back. Returns their
    /// places.
    pub fn collect(&mut self, inboxes: &[Inbox]) -> Vec<usize> {
        let mut places = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        for (worker, inbox) in inboxes.iter().enumerate().take(self.seats.len()) {
            loop {
                let left = deadline.saturating_duration_since(Instant::now());
                let patience = if self.seats[worker].leaving > 0 {
                    left
                } else {
                    Duration::ZERO
                };
                let ports = inbox.take_ports(patience);
                if ports.is_empty() {
                    break;
                }
                for port in ports {
                    let seat = &mut self.seats[worker];
                    seat.leaving = seat.leaving.saturating_sub(1);
                    let XskPort { xsk, place, .. } = *port;
                    places.push(place);
                    self.close(worker, place, xsk, inbox);
                }
            }
        }
        places
    }
}

impl Seat {
    /// Releases the UMEM once no socket is open.
    fn tidy(&mut self) {
        if self.opener.as_ref().is_some_and(Opener::is_empty) {
            (self.opener, self.pool) = (None, None);
            self.leaving = 0;
        }
    }
}

/// Claims a UMEM. It is free once the worker has heard that its last socket is closed, and has dropped its ledger.
fn claim(worker: usize, sharers: usize) -> Option<(Opener, Pool)> {
    let deadline = Instant::now() + SLOT_PATIENCE;
    loop {
        let claimed = Opener::claim(worker, sharers);
        if claimed.is_some() || Instant::now() >= deadline {
            return claimed;
        }
        thread::sleep(SLOT_PAUSE);
    }
}

#[cfg(all(test, not(feature = "afxdp")))]
mod tests {
    use super::*;

    fn worker(seats: &mut Seats, wants_zero_copy: bool) -> Option<usize> {
        seats.take(wants_zero_copy).map(|seat| seat.worker)
    }

    #[test]
    fn sockets_are_spread_evenly_over_as_many_workers_as_there_are_cpus() {
        let mut seats = Seats::new(2, WORKERS);
        let taken: Vec<usize> = std::iter::from_fn(|| worker(&mut seats, false)).collect();
        assert_eq!(taken.len(), SOCKETS, "and no more");
        for (index, worker) in taken.iter().enumerate() {
            assert_eq!(*worker, index % 2_usize.min(WORKERS));
        }
        seats.leave(1);
        assert_eq!(worker(&mut seats, false), Some(1), "the least loaded");
        assert_eq!(worker(&mut Seats::new(1_000, WORKERS), false), Some(0));
    }

    #[test]
    fn there_are_no_more_workers_than_the_config_has() {
        for most in 1..=WORKERS {
            let mut seats = Seats::new(1_000, most);
            let mut workers: Vec<usize> =
                std::iter::from_fn(|| worker(&mut seats, false)).collect();
            workers.sort_unstable();
            workers.dedup();
            let expected: Vec<usize> = (0..most.min(SOCKETS)).collect();
            assert_eq!(workers, expected);
            let mut seats = Seats::new(1, most);
            let alone = std::iter::from_fn(|| seats.take(true).filter(|seat| seat.is_alone));
            assert_eq!(alone.count(), most.min(SOCKETS));
        }
    }

    #[test]
    fn a_socket_with_zero_copy_has_a_worker_for_itself_while_there_is_one() {
        let mut seats = Seats::new(1, WORKERS);
        let alone = seats.take(true).expect("a worker is free");
        assert!(alone.is_alone && alone.worker == 0);
        if WORKERS == 1 {
            return;
        }
        assert_eq!(worker(&mut seats, false), Some(1), "one beyond the CPUs");
        assert_eq!(worker(&mut seats, false), Some(1));
        for worker in 2..WORKERS {
            let alone = seats.take(true).expect("a worker is free");
            assert!(alone.is_alone && alone.worker == worker);
        }
        let shared = seats.take(true).expect("there is room for one more");
        assert!(!shared.is_alone && shared.worker == 1, "it is copied");
        seats.leave(0);
        let again = seats.take(true).expect("a worker is free");
        assert!(again.is_alone && again.worker == 0);
    }

    #[test]
    fn a_worker_whose_socket_is_copied_after_all_is_shared() {
        let mut seats = Seats::new(1, WORKERS);
        let alone = seats.take(true).expect("a worker is free");
        assert!(alone.is_alone);
        seats.share(alone.worker);
        assert_eq!(worker(&mut seats, false), Some(alone.worker));
    }

    #[test]
    fn the_rings_of_all_sockets_take_no_more_than_the_budget_has() {
        if (RX_RING, WORKERS, SOCKETS) != (512, 4, 16) {
            return;
        }
        let mut seats = Seats::new(1, WORKERS);
        (0..3).for_each(|_| assert!(seats.take(true).is_some_and(|seat| seat.is_alone)));
        // 3 * 512, and the size of a fourth: four rings of 128.
        let rest = std::iter::from_fn(|| worker(&mut seats, false)).count();
        assert_eq!(rest, 4);
    }

    #[test]
    fn rings_are_made_for_those_that_are_expected_and_those_that_come() {
        let mut seats = Seats::new(2, WORKERS);
        assert_eq!(seats.sharers(0), 1);
        seats.expect(SOCKETS);
        let even = SOCKETS.div_ceil(2).next_power_of_two();
        assert_eq!(seats.sharers(0), even);
        seats.expect(1);
        seats.seats[0].sockets = 3;
        assert_eq!(seats.sharers(0), 4_usize.min(SHARERS_MAX));
        seats.seats[0].is_alone = true;
        assert_eq!(seats.sharers(0), 1);
    }

    #[test]
    fn a_queue_that_comes_back_is_shown_where_it_was() {
        let mut seats = Seats::new(1, WORKERS);
        let name = |queue| QueueName {
            interface: "lan0".into(),
            queue,
        };
        let mut set = |at: usize, queue, is_open| {
            let (name, is_called) = (name(queue), false);
            seats.places[at] = Some(SocketPlace {
                name,
                is_open,
                is_called,
            });
        };
        set(0, 7, true);
        set(1, 8, false);
        set(2, 9, false);
        assert_eq!(seats.place_for(&name(9)), Some(2), "its own");
        let new = (SOCKETS > 3).then_some(3);
        assert_eq!(seats.place_for(&name(1)), new, "where none was");
        for at in 3..SOCKETS {
            let (name, is_open) = (name(at as u32 + 100), true);
            seats.places[at] = Some(SocketPlace {
                name,
                is_open,
                is_called: false,
            });
        }
        assert_eq!(seats.place_for(&name(1)), Some(1), "where none is");
    }
}
