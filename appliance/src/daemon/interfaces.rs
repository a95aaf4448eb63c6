//! The thread for interfaces, so that the main thread waits for no driver.
//!
//! ```text
//!  main ◄── eventfd, the newest news ── interfaces: netlink, programs, AF_XDP sockets ──► inboxes of the workers
//! ```
//! A driver that is given a program may stop its queues and wait for the card, and holds the kernel's RTNL lock meanwhile. To
//! attach a program to another interface, to bind an AF_XDP socket or (before Linux 6.9) to list the devices takes the same
//! lock. Threads for each interface would all wait there, so there is one for all of them.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use log::{info, warn};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::config::Plan;
use crate::os::threads;
use crate::worker::QueueName;

/// Period of rounds without a change, in milliseconds: sysctls and numbers of queues have no notification.
const ROUND_MS: u16 = 1_000;
/// Pause between a change and its round, in milliseconds: an interface comes with its addresses and routes. Endless changes
/// make ten rounds a second.
const SETTLE_MS: u16 = 100;
/// Time that the thread has to end. One that waits for a driver is left behind: programs and sockets go with the process.
const STOP_MAX: Duration = Duration::from_secs(2);
/// Time between two looks at the thread.
const LOOK: Duration = Duration::from_secs(1);
/// Looks that find it in the same round before the log says so.
const SAME_MAX: u8 = 10;

/// Result of one round.
#[derive(Debug, Default)]
pub struct Round {
    /// Newest plan: the part of the config that this machine can serve. `None` if unchanged.
    pub plan: Option<Plan>,
    /// Interfaces and queues by worker, for workers that have any.
    pub queues: Vec<(usize, QueueName)>,
}

/// Results that the main thread has not taken yet. A newer plan replaces an older one.
#[derive(Debug, Default)]
struct PlanResults {
    latest: Round,
    /// Number of finished rounds.
    rounds: u64,
}

#[derive(Debug)]
struct Shared {
    results: Mutex<PlanResults>,
    /// Signals news to the main thread.
    event: EventFd,
    /// Wakes the thread to end or to begin its next round.
    wake: EventFd,
    is_stopped: AtomicBool,
}

impl Shared {
    fn new() -> Result<Self, String> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let event = || EventFd::from_flags(flags).map_err(|errno| format!("eventfd: {errno}"));
        Ok(Self {
            results: Mutex::default(),
            event: event()?,
            wake: event()?,
            is_stopped: AtomicBool::new(false),
        })
    }

    fn results(&self) -> MutexGuard<'_, PlanResults> {
        self.results.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `round` until the thread is to end. `round` reads `changes` until it is no longer readable.
    fn run(&self, changes: Option<&OwnedFd>, tick: PollTimeout, mut round: impl FnMut() -> Round) {
        while !self.is_stopped.load(Ordering::Acquire) {
            self.tell(round());
            self.wait(changes, tick);
        }
    }

    /// Waits until a round is due.
    fn wait(&self, changes: Option<&OwnedFd>, tick: PollTimeout) {
        let readable = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut wake = [readable(self.wake.as_fd())];
        if let Some(changes) = changes {
            let mut fds = [wake[0].clone(), readable(changes.as_fd())];
            // Interrupted or failed: one round too many, which does no harm.
            let _ = poll(&mut fds, tick);
            if fds[1].any().unwrap_or(false) {
                let _ = poll(&mut wake, PollTimeout::from(SETTLE_MS));
            }
        } else {
            let _ = poll(&mut wake, tick);
        }
        // Fails if there is nothing to read.
        let _ = self.wake.read();
    }

    fn tell(&self, round: Round) {
        let mut results = self.results();
        // The main thread waits for the first two rounds.
        let is_new =
            results.rounds < 2 || round.plan.is_some() || round.queues != results.latest.queues;
        results.rounds += 1;
        if round.plan.is_some() {
            results.latest.plan = round.plan;
        }
        results.latest.queues = round.queues;
        drop(results);
        if is_new {
            // Fails only if the counter is about to overflow, and then the event is pending anyway.
            let _ = self.event.write(1);
        }
    }
}

/// Handle of the thread. Belongs to the main thread, which waits for it only at the end.
#[derive(Debug)]
pub struct Interfaces {
    shared: Arc<Shared>,
    /// Closed when the thread has ended.
    over: Receiver<()>,
    looks: RoundWatch,
}

impl Interfaces {
    /// Starts the thread. It calls `round` now, every second, and soon after `changes` becomes readable; `round` has to read
    /// that descriptor until it is empty. The thread drops both when it ends.
    ///
    /// # Errors
    /// The system is out of threads or descriptors.
    pub fn start(
        changes: Option<OwnedFd>,
        round: impl FnMut() -> Round + Send + 'static,
    ) -> Result<Self, String> {
        Self::start_with(changes, PollTimeout::from(ROUND_MS), round)
    }

    fn start_with(
        changes: Option<OwnedFd>,
        tick: PollTimeout,
        round: impl FnMut() -> Round + Send + 'static,
    ) -> Result<Self, String> {
        let shared = Arc::new(Shared::new()?);
        let (living, over) = mpsc::channel();
        let thread = Arc::clone(&shared);
        threads::builder("interfaces")
            .spawn(move || {
                let _living: Sender<()> = living;
                thread.run(changes.as_ref(), tick, round);
            })
            .map_err(|error| format!("interfaces thread: {error}"))?;
        Ok(Self {
            shared,
            over,
            looks: RoundWatch::default(),
        })
    }

    /// Number of finished rounds.
    #[must_use]
    pub fn rounds(&self) -> u64 {
        self.shared.results().rounds
    }

    /// Makes the thread begin its next round as soon as it can.
    pub fn look_again(&self) {
        self.waker().look_again();
    }

    /// A waker for other threads.
    #[must_use]
    pub fn waker(&self) -> Waker {
        Waker(Arc::clone(&self.shared))
    }

    /// Takes the news. A plan is given once.
    #[must_use]
    pub fn take(&self) -> Round {
        // Fails if there is nothing to read.
        let _ = self.shared.event.read();
        let mut results = self.shared.results();
        Round {
            plan: results.latest.plan.take(),
            queues: results.latest.queues.clone(),
        }
    }

    /// Logs, once, that a round takes long, and logs when it is over.
    ///
    /// # Errors
    /// The thread has ended.
    pub fn look(&mut self, now: Instant) -> Result<(), String> {
        if self.over.try_recv() == Err(TryRecvError::Disconnected) {
            return Err("the thread for interfaces has ended".into());
        }
        let rounds = self.shared.results().rounds;
        match self.looks.look(now, rounds) {
            None => {}
            Some(true) => warn!(
                "interfaces: no answer from the kernel or a driver for {SAME_MAX} s; what is served goes on, \
                 changes of interfaces and addresses wait"
            ),
            Some(false) => info!("interfaces: looked after again"),
        }
        Ok(())
    }

    /// Stops the thread, which detaches every program, and waits [`STOP_MAX`] at most. From here on the kernel's sockets serve
    /// alone.
    pub fn stop(self) {
        self.shared.is_stopped.store(true, Ordering::Release);
        let _ = self.shared.wake.write(1);
        if self.over.recv_timeout(STOP_MAX) == Err(RecvTimeoutError::Timeout) {
            warn!("interfaces: no answer from the kernel or a driver, left behind");
        }
    }
}

/// Readable while there is news.
impl AsFd for Interfaces {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.event.as_fd()
    }
}

/// Makes the thread begin its next round, from any other thread.
#[derive(Clone, Debug)]
pub struct Waker(Arc<Shared>);

impl Waker {
    /// See [`Interfaces::look_again`].
    pub fn look_again(&self) {
        // Fails only if the counter is about to overflow, and then the event is pending anyway.
        let _ = self.0.wake.write(1);
    }
}

/// Counts looks that found the thread in the same round.
#[derive(Debug, Default)]
struct RoundWatch {
    last: Option<Instant>,
    rounds: u64,
    same: u8,
}

impl RoundWatch {
    /// `Some(true)`: it has been in the same round for long. `Some(false)`: it was, and goes on. Counts looks, not seconds: the
    /// thread of a process that was stopped does not hang.
    fn look(&mut self, now: Instant, rounds: u64) -> Option<bool> {
        if self
            .last
            .is_some_and(|last| now.duration_since(last) < LOOK)
        {
            return None;
        }
        self.last = Some(now);
        if rounds == self.rounds {
            self.same = self.same.saturating_add(1);
            return (self.same == SAME_MAX).then_some(true);
        }
        self.rounds = rounds;
        let was_long = std::mem::take(&mut self.same) >= SAME_MAX;
        was_long.then_some(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait_event(interfaces: &Interfaces) {
        let mut fds = [PollFd::new(interfaces.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::from(10_000_u16)), Ok(1));
    }

    fn queue(interface: &str) -> Vec<(usize, QueueName)> {
        let name = QueueName {
            interface: interface.into(),
            queue: 0,
        };
        vec![(0, name)]
    }

    /// With a driver that never returns, the main thread keeps what it had before, and can end.
    #[test]
    fn an_interface_that_hangs_keeps_the_main_thread_neither_from_its_turns_nor_from_its_end() {
        let (go, driver) = mpsc::channel::<()>();
        let (hang, hangs) = mpsc::channel();
        let mut rounds = 0;
        let mut interfaces = Interfaces::start(None, move || {
            rounds += 1;
            if rounds == 2 {
                hang.send(()).expect("the test waits for it");
                // Blocks until the test is over.
                let _ = driver.recv();
            }
            Round {
                plan: Some(Plan::default()),
                queues: queue("lan0"),
            }
        })
        .expect("a thread");
        wait_event(&interfaces);
        let hung = hangs.recv_timeout(Duration::from_secs(10));
        assert_eq!(hung, Ok(()));
        assert_eq!(interfaces.rounds(), 1);
        let round = interfaces.take();
        assert!(round.plan.is_some() && round.queues == queue("lan0"));
        assert!(interfaces.shared.event.read().is_err(), "taken");
        let round = interfaces.take();
        assert!(round.plan.is_none(), "given once");
        assert_eq!(round.queues, queue("lan0"), "its workers keep them");
        assert_eq!(interfaces.look(Instant::now()), Ok(()));
        interfaces.stop();
        drop(go);
    }

    #[test]
    fn a_round_that_is_asked_for_begins_at_once_and_is_one() {
        let (say, rounds) = mpsc::channel();
        let interfaces = Interfaces::start(None, move || {
            say.send(Instant::now()).expect("the test waits for it");
            Round::default()
        })
        .expect("a thread");
        let round = || {
            rounds
                .recv_timeout(Duration::from_secs(10))
                .expect("a round")
        };
        round();
        interfaces.look_again();
        let asked = round();
        let next = round();
        // Not at once: the event was taken.
        assert!(next - asked >= Duration::from_millis(u64::from(ROUND_MS) / 2));
        interfaces.stop();
    }

    /// Without a tick: only the change begins a round.
    #[test]
    fn a_change_begins_a_round_and_a_burst_of_changes_is_one() {
        let (noted, changes) = nix::unistd::pipe2(nix::fcntl::OFlag::O_NONBLOCK).expect("a pipe");
        let (say, rounds) = mpsc::channel();
        let watched = noted.try_clone().expect("a descriptor");
        let interfaces = Interfaces::start_with(Some(watched), PollTimeout::NONE, move || {
            let mut room = [0; 64];
            let changes = nix::unistd::read(&noted, &mut room).unwrap_or(0);
            say.send(changes).expect("the test waits for it");
            Round::default()
        })
        .expect("a thread");
        let round = || rounds.recv_timeout(Duration::from_secs(10));
        assert_eq!(round(), Ok(0), "the first");
        let write = |changes: &OwnedFd| nix::unistd::write(changes, b"c").expect("there is room");
        for _ in 0..2 {
            write(&changes);
            assert_eq!(round(), Ok(1));
        }
        // The second change comes while the first one settles.
        write(&changes);
        std::thread::sleep(Duration::from_millis(u64::from(SETTLE_MS) / 10));
        write(&changes);
        assert_eq!(round(), Ok(2), "a burst");
        assert!(rounds.try_recv().is_err(), "one round for both");
        interfaces.stop();
    }

    #[test]
    fn the_main_thread_is_woken_for_what_is_new_and_for_nothing_else() {
        let shared = Shared::new().expect("eventfd");
        let tell = |plan: Option<Plan>, interface| {
            let queues = queue(interface);
            shared.tell(Round { plan, queues });
            shared.event.read().is_ok()
        };
        assert!(tell(None, "lan0"), "the first round");
        assert!(tell(None, "lan0"), "the second round");
        assert!(!tell(None, "lan0"), "the same");
        assert!(tell(None, "lan1"), "another queue");
        assert!(tell(Some(Plan::default()), "lan1"), "a plan");
        assert!(!tell(None, "lan1"), "the same");
    }

    #[test]
    fn the_end_waits_until_the_programs_are_detached() {
        struct Attached(Arc<AtomicBool>);
        impl Drop for Attached {
            fn drop(&mut self) {
                self.0.store(false, Ordering::Release);
            }
        }
        let is_attached = Arc::new(AtomicBool::new(true));
        let attached = Attached(Arc::clone(&is_attached));
        let interfaces = Interfaces::start(None, move || {
            assert!(attached.0.load(Ordering::Acquire));
            Round::default()
        });
        let interfaces = interfaces.expect("a thread");
        wait_event(&interfaces);
        interfaces.stop();
        assert!(!is_attached.load(Ordering::Acquire));
    }

    #[test]
    fn a_thread_for_interfaces_that_ended_is_noticed() {
        let mut interfaces =
            Interfaces::start(None, || std::panic::resume_unwind(Box::new(()))).expect("a thread");
        let over = interfaces.over.recv_timeout(Duration::from_secs(10));
        assert_eq!(over, Err(RecvTimeoutError::Disconnected));
        assert!(interfaces.look(Instant::now()).is_err());
    }

    #[test]
    fn a_round_that_takes_long_is_said_once_and_so_is_its_end() {
        let mut looks = RoundWatch::default();
        let start = Instant::now();
        let mut said = Vec::new();
        for second in 0..40_u32 {
            let rounds = if second < 25 { 1 } else { u64::from(second) };
            let now = start + LOOK * second;
            said.extend(looks.look(now, rounds).map(|long| (second, long)));
            assert_eq!(looks.look(now, rounds), None, "not time yet");
        }
        assert_eq!(said, [(u32::from(SAME_MAX), true), (25, false)]);
        // The whole process was stopped.
        let mut looks = RoundWatch::default();
        assert_eq!(looks.look(start, 1), None);
        assert_eq!(looks.look(start + LOOK * 1_000, 1), None);
    }

    #[test]
    fn an_older_plan_gives_way_and_a_round_without_one_takes_nothing_back() {
        let interfaces = Interfaces::start(None, Round::default).expect("a thread");
        let one = |zone: u16| Plan {
            servers: vec![Vec::new(); usize::from(zone)],
            ..Plan::default()
        };
        for plan in [Some(one(1)), Some(one(2)), None] {
            interfaces.shared.tell(Round {
                plan,
                queues: queue("lan1"),
            });
        }
        let plan = interfaces.take().plan;
        assert_eq!(plan.map(|plan| plan.servers.len()), Some(2));
        interfaces.stop();
    }
}
