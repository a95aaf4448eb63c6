//! The threads with an engine: workers, each with AF_XDP sockets of some RX queues or with kernel sockets alone, and one for
//! TCP, so that TCP never makes UDP wait. They are started as needed: an interface that comes late gets the worker with the
//! fewest sockets, or a new one.
//!
//! If one of them ends or hangs, the process ends: the kernel would go on to give it queries. The service manager restarts it.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use log::warn;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use xdnsd_core::engine::{Engine, Settings, Sharing};
use xdnsd_core::forward::upstreams::Upstreams;

use super::retry::Retry;
use super::sockets::Listening;
use crate::compile::set::PolicySet;
use crate::config::{Config, Plan, Tier0Word};
use crate::os::{capabilities, clock, seal, threads};
use crate::store::{CACHE, TAP, rates};
use crate::text::Sentence;
use crate::worker::engines::{
    ARRIVALS, COUNTERS, ENGINES, IN_FLIGHT, NOTICES, PULSES, TABLES, TCP, WORKER_STATS,
};
use crate::worker::{Inbox, Worker, WorkerCommand, WorkerParts};

/// First pause before a failed start of a worker is tried again, in milliseconds.
const WORKER_MS: u64 = 1_000;
/// Longest pause, in milliseconds.
const WORKER_MAX_MS: u64 = 60_000;
/// Time that a thread may take until it serves.
const START_MAX: Duration = Duration::from_secs(10);
/// Time that threads have to end. One that hangs is left behind.
const STOP_MAX: Duration = Duration::from_secs(2);
/// Looks, a second apart, that may find a thread without progress.
const STILL_MAX: u8 = 10;
/// Time between two looks.
const LOOK: Duration = Duration::from_secs(1);

/// All threads with an engine. Belongs to the main thread.
pub struct Workers {
    config: Config,
    plan: Plan,
    cookie_key: [u8; 16],
    inboxes: &'static [Inbox],
    /// Engines that run, in the order of their start.
    started: Vec<usize>,
    /// Reports of started threads.
    serving: Serving,
    ended: Arc<Ended>,
    looks: TurnWatch,
}

/// Which threads serve. Each reports once, before its first turn.
struct Serving {
    sender: Sender<Start>,
    receiver: Receiver<Start>,
    heard: Vec<usize>,
    failed: Vec<(usize, Sentence)>,
}

/// Result of a start: the thread serves, or lacks something and has ended.
type Start = (usize, Result<(), Sentence>);

impl Serving {
    fn new() -> Self {
        let (sender, receiver) = mpsc::channel();
        Self {
            sender,
            receiver,
            heard: Vec::new(),
            failed: Vec::new(),
        }
    }

    fn hear(&mut self, (engine, outcome): Start) {
        match outcome {
            Ok(()) => self.heard.push(engine),
            Err(why) => self.failed.push((engine, why)),
        }
    }

    /// Engines that failed to start since the last call.
    fn take_failed(&mut self) -> Vec<(usize, Sentence)> {
        while let Ok(start) = self.receiver.try_recv() {
            self.hear(start);
        }
        std::mem::take(&mut self.failed)
    }

    /// Waits until all that were `started` serve, except failed ones that are tried again.
    fn wait(
        &mut self,
        started: &[usize],
        failure: impl Fn() -> Option<Sentence>,
    ) -> Result<(), Sentence> {
        let deadline = Instant::now() + START_MAX;
        while let Some(engine) = started.iter().find(|engine| !self.is_heard(**engine)) {
            if let Some(failure) = failure() {
                return Err(failure);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!("worker {engine} does not come to serve"));
            }
            // A thread that ends sends nothing here, so `failure` is asked again.
            let look = left.min(Duration::from_millis(100));
            if let Ok(start) = self.receiver.recv_timeout(look) {
                self.hear(start);
            }
            if let Some((_, why)) = self.failed.iter().find(|(engine, _)| is_needed(*engine)) {
                return Err(why.clone());
            }
        }
        Ok(())
    }

    fn is_heard(&self, engine: usize) -> bool {
        self.heard.contains(&engine) || self.failed.iter().any(|(failed, _)| *failed == engine)
    }
}

/// True if nothing can be served without this engine.
fn is_needed(engine: usize) -> bool {
    engine == 0 || engine == TCP
}

/// Signalled by threads that end.
struct Ended {
    event: EventFd,
    /// Reason of the first one.
    why: Mutex<Option<Sentence>>,
}

impl Ended {
    fn why(&self) -> Option<Sentence> {
        let why = self.why.lock().unwrap_or_else(PoisonError::into_inner);
        why.clone()
    }
}

/// Belongs to a thread, and reports its end when dropped.
struct Leaving {
    /// Empty if the thread never served, and has reported why.
    why: Sentence,
    ended: Arc<Ended>,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        if self.why.is_empty() {
            return;
        }
        let mut why = self
            .ended
            .why
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        why.get_or_insert_with(|| std::mem::take(&mut self.why));
        drop(why);
        // Fails only if the counter is about to overflow.
        let _ = self.ended.event.write(1);
    }
}

impl Workers {
    /// Nothing is started yet. `plan` has the first servers.
    ///
    /// # Errors
    /// eventfd(2) failed.
    pub fn new(config: &Config, plan: &Plan, cookie_key: [u8; 16]) -> Result<Self, Sentence> {
        let told = |error: std::io::Error| format!("eventfd: {error}");
        let inboxes: Result<Vec<Inbox>, _> = (0..ENGINES).map(|_| Inbox::new()).collect();
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let event = EventFd::from_flags(flags).map_err(|errno| told(errno.into()))?;
        Ok(Self {
            config: config.clone(),
            plan: plan.clone(),
            cookie_key,
            inboxes: Vec::leak(inboxes.map_err(told)?),
            started: Vec::new(),
            serving: Serving::new(),
            ended: Arc::new(Ended {
                event,
                why: Mutex::new(None),
            }),
            looks: TurnWatch::default(),
        })
    }

    /// Inboxes of all engines, whether they run or not.
    #[must_use]
    pub fn inboxes(&self) -> &'static [Inbox] {
        self.inboxes
    }

    /// Engines that run.
    #[must_use]
    pub fn engines(&self) -> &[usize] {
        &self.started
    }

    /// Number of those that serve UDP.
    #[must_use]
    pub fn udp_count(&self) -> usize {
        self.started.iter().filter(|&&engine| engine != TCP).count()
    }

    /// Starts `engine`, unless it runs, with the sockets of `listening` and under `policy`.
    ///
    /// # Errors
    /// The system is out of threads.
    pub fn start(
        &mut self,
        engine: usize,
        listening: &mut Listening,
        policy: Arc<PolicySet>,
    ) -> Result<(), Sentence> {
        if self.started.contains(&engine) {
            return Ok(());
        }
        let settings = self.config.settings();
        listening.expect_more();
        let parts = WorkerParts {
            listeners: listening.open(engine, clock::now()),
            places: listening.places_max(),
            has_tcp: engine == TCP,
            tcp_idle_ms: u64::from(settings.tcp_idle_100ms) * 100,
            busy_poll_us: self.config.forward.busy_poll_us,
            has_hot: self.config.cache.tier0 != Tier0Word::Off && engine != TCP,
            policy,
            notices: &NOTICES,
            inbox: &self.inboxes[engine],
            inboxes: self.inboxes,
            counters: &COUNTERS[engine],
            arrivals: &ARRIVALS,
            stats: &WORKER_STATS[engine],
            pulse: &PULSES[engine],
            rings: TAP.rings(engine),
        };
        let mut upstreams = Upstreams::new();
        upstreams
            .configure(&self.config.servers(&self.plan))
            .expect("the config allows no more servers than fit");
        let settings = Settings {
            cookies: self.config.cookies(self.cookie_key),
            ..settings
        };
        let serving = self.serving.sender.clone();
        let thread = threads::builder(&format!("worker {engine}"));
        spawn(thread, engine, &self.ended, move |leaving| {
            capabilities::keep(capabilities::PACKETS);
            work(engine, parts, upstreams, settings, &serving, leaving);
        })?;
        self.started.push(engine);
        Ok(())
    }

    /// Waits until all that were started serve.
    ///
    /// # Errors
    /// One of them ended instead, or takes too long.
    pub fn wait_serving(&mut self) -> Result<(), Sentence> {
        let ended = &self.ended;
        self.serving.wait(&self.started, || ended.why())
    }

    /// Engines that failed to start since the last call. They may be started again.
    pub fn take_failed(&mut self) -> Vec<(usize, Sentence)> {
        let failed = self.serving.take_failed();
        self.started
            .retain(|engine| !failed.iter().any(|(failed, _)| failed == engine));
        failed
    }

    /// Why the process has to end: a thread has ended.
    #[must_use]
    pub fn failure(&self) -> Option<Sentence> {
        self.ended.why()
    }

    /// Once a second: checks that all threads go on. `None` if it was not due. `Some(true)` if they do.
    ///
    /// # Errors
    /// One of them has hung for so long that the process has to end.
    pub fn look(&mut self, now: Instant) -> Result<Option<bool>, Sentence> {
        let turns = |engine: usize| PULSES[engine].turns();
        self.looks.look(now, &self.started, turns)
    }

    /// Ends all threads, leaving behind those that hang.
    pub fn stop(mut self) {
        // Threads that failed to start have ended already.
        drop(self.take_failed());
        for &engine in &self.started {
            // A full inbox belongs to a worker that hangs: the process ends without it.
            let _ = self.inboxes[engine].send(WorkerCommand::Stop);
        }
        let deadline = Instant::now() + STOP_MAX;
        let mut running = self.started.len() as u64;
        while running > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                warn!("workers do not end, left behind: {running}");
                return;
            }
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
            let _ = poll(&mut [PollFd::new(self.as_fd(), PollFlags::POLLIN)], timeout);
            running = running.saturating_sub(self.ended.event.read().unwrap_or(0));
        }
    }
}

/// Readable when a thread has ended.
impl AsFd for Workers {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ended.event.as_fd()
    }
}

/// Counts, for each thread, looks without progress.
#[derive(Debug, Default)]
struct TurnWatch {
    last: Option<Instant>,
    turns: [u32; ENGINES],
    still: [u8; ENGINES],
}

impl TurnWatch {
    /// Counts looks, not seconds: if the whole process was stopped, no thread could go on.
    fn look(
        &mut self,
        now: Instant,
        engines: &[usize],
        turns: impl Fn(usize) -> u32,
    ) -> Result<Option<bool>, Sentence> {
        if self
            .last
            .is_some_and(|last| now.duration_since(last) < LOOK)
        {
            return Ok(None);
        }
        self.last = Some(now);
        let mut all = true;
        for &engine in engines {
            let turned = turns(engine) != self.turns[engine];
            self.turns[engine] = turns(engine);
            self.still[engine] = if turned { 0 } else { self.still[engine] + 1 };
            all &= turned;
            if self.still[engine] >= STILL_MAX {
                return Err(format!("worker {engine} hangs"));
            }
        }
        Ok(Some(all))
    }
}

/// Starts the thread of an engine. The guard that reports its end is made in the thread: one that never started has not ended.
fn spawn(
    thread: thread::Builder,
    engine: usize,
    ended: &Arc<Ended>,
    run: impl FnOnce(Leaving) + Send + 'static,
) -> Result<(), Sentence> {
    let ended = Arc::clone(ended);
    let leaving = move || Leaving {
        why: format!("worker {engine} panicked"),
        ended,
    };
    let spawned = thread.spawn(move || run(leaving()));
    spawned
        .map(drop)
        .map_err(|error| format!("worker thread: {error}"))
}

/// The thread of one worker.
fn work(
    index: usize,
    parts: WorkerParts<'static>,
    upstreams: Upstreams,
    settings: Settings,
    serving: &Sender<Start>,
    mut leaving: Leaving,
) {
    let mut tables = TABLES[index].lock().unwrap_or_else(PoisonError::into_inner);
    let engine = Engine::new(&mut tables, &CACHE, parts.counters, settings)
        .with_upstreams(upstreams)
        .with_accounts(rates::accounts)
        .beside(Sharing {
            in_flight: &IN_FLIGHT,
            engine: index as u8,
        });
    match Worker::new(engine, parts) {
        Ok(mut worker) => {
            // Fails if nobody waits any more.
            let _ = serving.send((index, Ok(())));
            let _seal = seal::Seal::this_thread();
            worker.run();
            seal::unsealed(|| leaving.why = format!("worker {index} has ended"));
        }
        Err(error) => {
            leaving.why.clear();
            let _ = serving.send((index, Err(format!("worker {index}: {error}"))));
        }
    }
}

/// Wanted workers, and the state of failed starts.
#[derive(Debug, Default)]
pub struct WorkerStarts {
    /// Number of them.
    pub wanted: usize,
    /// The most that the config allows.
    pub most: usize,
    /// When failed ones are tried again.
    pub retry: Retry,
    /// Last problem that was logged.
    trouble: String,
}

impl WorkerStarts {
    /// None yet, and at most `most`.
    pub fn new(most: usize) -> Self {
        Self {
            most,
            ..Self::default()
        }
    }

    /// Worker `engine` failed to start.
    pub fn fail(&mut self, engine: usize, why: &str) {
        self.retry.fail(clock::now(), WORKER_MS, WORKER_MAX_MS);
        if self.trouble != why {
            warn!("worker {engine} cannot be started, the others serve; tried again: {why}");
            why.clone_into(&mut self.trouble);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_stands_still_is_given_up_after_so_many_looks() {
        let mut looks = TurnWatch::default();
        let start = Instant::now();
        let turning = std::cell::Cell::new(0);
        let turns = |engine: usize| if engine == 1 { 7 } else { turning.get() };
        for second in 0..u32::from(STILL_MAX) {
            turning.set(second + 1);
            let now = start + LOOK * second;
            let looked = looks.look(now, &[0, 1, TCP], turns);
            assert_eq!(looked, Ok(Some(second == 0)), "its first turns were seen");
            assert_eq!(
                looks.look(now, &[0, 1, TCP], turns),
                Ok(None),
                "not time yet"
            );
        }
        turning.set(u32::MAX);
        let now = start + LOOK * u32::from(STILL_MAX);
        assert_eq!(
            looks.look(now, &[0, 1, TCP], turns),
            Err("worker 1 hangs".to_owned())
        );
    }

    /// Between the two looks a worker may not have made its first turn.
    #[test]
    fn a_worker_that_came_to_serve_is_not_waited_for_again() {
        let mut serving = Serving::new();
        for (engine, started) in [(0, &[0][..]), (TCP, &[0, TCP])] {
            let start = (engine, Ok(()));
            serving.sender.send(start).expect("the receiver lives");
            assert_eq!(serving.wait(started, || None), Ok(()));
        }
        assert_eq!(serving.wait(&[0, TCP], || Some("ended".into())), Ok(()));
        let failed = serving.wait(&[0, 1, TCP], || Some("ended".into()));
        assert_eq!(failed, Err("ended".into()));
    }

    #[test]
    fn a_worker_that_cannot_be_started_leaves_the_others_to_serve() {
        let mut serving = Serving::new();
        let send = |serving: &Serving, engine, outcome| {
            let sent = serving.sender.send((engine, outcome));
            sent.expect("the receiver lives");
        };
        send(&serving, 0, Ok(()));
        send(&serving, 1, Err("no descriptors".to_owned()));
        send(&serving, TCP, Ok(()));
        assert_eq!(serving.wait(&[0, 1, TCP], || None), Ok(()));
        assert_eq!(serving.take_failed(), [(1, "no descriptors".to_owned())]);
        send(&serving, 1, Err("still none".to_owned()));
        assert_eq!(serving.take_failed(), [(1, "still none".to_owned())]);
        send(&serving, 1, Ok(()));
        assert!(serving.take_failed().is_empty());
        assert_eq!(serving.wait(&[0, 1, TCP], || None), Ok(()));
        for needed in [0, TCP] {
            let mut serving = Serving::new();
            send(&serving, needed, Err("no descriptors".to_owned()));
            let waited = serving.wait(&[needed, 1], || None);
            assert_eq!(waited, Err("no descriptors".to_owned()));
        }
    }

    #[test]
    fn a_process_that_was_stopped_for_long_has_no_worker_that_hangs() {
        let mut looks = TurnWatch::default();
        let start = Instant::now();
        assert_eq!(looks.look(start, &[0], |_| 1), Ok(Some(true)));
        let later = start + LOOK * 1_000;
        assert_eq!(looks.look(later, &[0], |_| 1), Ok(Some(false)));
        assert_eq!(looks.look(later + LOOK, &[0], |_| 2), Ok(Some(true)));
    }

    fn nobody_ended() -> Arc<Ended> {
        Arc::new(Ended {
            event: EventFd::from_flags(EfdFlags::EFD_NONBLOCK).expect("eventfd"),
            why: Mutex::new(None),
        })
    }

    /// As for an account at its limit of threads: the others go on, and it is tried again.
    #[test]
    fn a_thread_that_cannot_be_is_told_and_has_not_ended() {
        let ended = nobody_ended();
        // A larger stack than the address space.
        let thread = threads::builder_with_stack("worker 1", 1 << 50);
        let spawned = spawn(thread, 1, &ended, |_| {});
        let told = spawned.expect_err("no memory is so large");
        assert!(told.starts_with("worker thread: "), "{told}");
        assert_eq!(ended.why(), None);
        assert!(ended.event.read().is_err());
        // A thread that runs and ends is reported.
        spawn(threads::builder("worker 1"), 1, &ended, drop).expect("a thread");
        let mut fds = [PollFd::new(ended.event.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::from(20_000_u16)), Ok(1));
        assert_eq!(ended.why().as_deref(), Some("worker 1 panicked"));
    }

    #[test]
    fn who_ends_says_why_and_the_first_is_heard() {
        let ended = nobody_ended();
        let leave = |why: &str| Leaving {
            why: why.into(),
            ended: Arc::clone(&ended),
        };
        drop(leave(""));
        assert!(ended.event.read().is_err(), "it never served");
        drop(leave("first"));
        drop(leave("second"));
        assert_eq!(ended.event.read(), Ok(2));
        assert_eq!(
            ended.why.lock().expect("nobody panics").as_deref(),
            Some("first")
        );
    }
}
