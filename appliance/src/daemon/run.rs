//! `xdnsd run`: starts the threads, connects them, and waits for a signal.
//!
//! ```text
//!  main: signals ── interfaces: XDP, AF_XDP    worker 0..n ── engine ── cache shards
//!                   control: UNIX socket      snapshot: disk      statistics: log
//! ```
//! The main thread waits for signals and events. It waits with a timeout for whatever may never come: a start goes on without
//! it, and an end leaves it behind. During such a wait at the start, and from the first signal to the end, SIGTERM and SIGINT
//! end the process at once.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use log::{info, log, warn};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use xdnsd_abi::Reason;
use xdnsd_core::counters::{Counter, Counters};
use xdnsd_core::engine::Notice;

use super::confine::confine;
use super::gauges::gauges;
use super::interfaces::{Interfaces, Round};
use super::keeper;
use super::nft_sets::SetThread;
use super::ports::SourcePorts;
use super::reload::{PolicyThread, Requester};
use super::shield::{CookieSettings, Events, Prefixes};
use super::sockets::Listening;
use super::supervisor::Supervisor;
use super::switches::Operation;
use super::workers::{WorkerStarts, Workers};
use crate::compile::set::PolicySet;
use crate::config::{Config, Devices, GroupWord, Plan};
use crate::control::commands;
use crate::control::health::MAIN_THREAD_MS;
use crate::control::metrics::{self, Telemetry};
use crate::control::readers::with_readers;
use crate::control::shield::{with_operator, with_shield, with_watcher};
use crate::control::socket::{Commands, Group};
use crate::control::thread::ControlThreads;
use crate::control::upstreams;
use crate::os::notify::Notify;
use crate::os::{capabilities, clock, descriptors, random, seal, xsk};
use crate::store::{CACHE, TAP, rates};
use crate::store::{SnapshotWriter, Store};
use crate::text::{self, Sentence};
use crate::worker::engines::{ARRIVALS, COUNTERS, NOTICES, SOCKET_STATS, TCP, WORKER_STATS};
use crate::worker::{Inbox, LookupProgram, QueueName, look_at_ports};

/// Period of the main loop, in milliseconds.
const LOOP_MS: u16 = 1_000;
/// Time that a start waits for the interfaces; meanwhile the kernel's sockets of one worker serve alone.
const INTERFACES_MAX: Duration = Duration::from_secs(30);
/// Time that requests over the control socket wait for the source ports of the sk_lookup program, once all else serves.
const PORTS_MAX: Duration = Duration::from_secs(5);
/// Rounds in which the thread for interfaces tries everything once: interfaces first, then those ports.
const ROUNDS: u64 = 2;
/// Minimum time between two looks at SYNs, in milliseconds: a rate over a shorter time is chance.
const GUARD_MS: u64 = 500;
/// Why a server without its keeper ends: what comes and goes would be served no more, and a restart has both again.
const KEEPER_ENDED: &str =
    "the process that keeps the rights (security.keeper) has ended, and so does this one";
/// Signals that have a meaning to other servers: dnsmasq writes statistics or opens a new log file, and scripts that rotate
/// logs send them. They are blocked, so that they do not end the process.
const UNUSED: [Signal; 2] = [Signal::SIGUSR1, Signal::SIGUSR2];

/// Serves `config`, which was read from `path`, until SIGTERM or SIGINT. SIGHUP reads it again.
///
/// It starts with what there is: interfaces, addresses and servers' zones that are missing are served when they come.
///
/// # Errors
/// Nothing can be served by this process, or a worker has ended or hangs.
pub fn run(path: &Path, config: Config) -> Result<(), Sentence> {
    seal::configure();
    if let Some(trouble) = descriptors::raise_limit() {
        warn!("{trouble}");
    }
    look_at_ports(clock::now());
    let signals = block_signals().map_err(|error| format!("signals: {error}"))?;
    // Before the first thread, and before anything from outside is read.
    keeper::start(&config)?;
    ends_at_once(|| confine(&config));
    keeper::drop_rights()?;
    // Before anything that takes queries, so that a process that serves already is not disturbed.
    let socket = config.control.socket.as_deref();
    let named_at = config.locate("control.socket");
    let control =
        socket.map(|path| ControlThreads::start(path.into(), named_at, group_of(&config)));
    let mut control = control.transpose()?;
    ends_at_once(|| control.as_mut().map_or(Ok(()), ControlThreads::wait))?;
    let mut daemon = Daemon::new(path, &config, control)?;
    metrics::process::have_read(true);
    start_report(&config, &daemon.telemetry)?;
    let ended = match daemon.start(&signals) {
        Ok(true) => daemon.main_loop(&signals),
        Ok(false) => Ok(()),
        Err(failure) => Err(failure),
    };
    daemon.end();
    ended
}

/// Group that may use the control socket.
pub(super) fn group_of(config: &Config) -> Option<Group> {
    let control = &config.control;
    (!control.group.is_empty()).then(|| Group {
        name: control.group.clone(),
        may_change: control.group_may == GroupWord::All,
    })
}

/// State of the main thread.
struct Daemon {
    interfaces: Interfaces,
    /// Switches of the operator.
    operation: Operation,
    /// Log of the shield.
    events: Events,
    /// Kernel settings that are changed while SYN cookies are given.
    kernel: CookieSettings,
    listening: Listening,
    policy: PolicyThread,
    sets: SetThread,
    prefixes: Prefixes,
    workers: Workers,
    telemetry: Arc<Telemetry>,
    control: Option<ControlThreads>,
    notify: Notify,
    /// Number of workers in the metrics; below, the queues of each.
    shown_workers: usize,
    queues: Vec<(usize, QueueName)>,
    starts: WorkerStarts,
    /// True once the log has said where it serves.
    is_ready: bool,
    /// Writer of the snapshot, if the config names one.
    snapshot: Option<SnapshotWriter>,
    /// State of the upstream servers that was logged.
    servers: upstreams::UpstreamWatch,
    /// Reports the end of the keeper, if there is one.
    keeper: Option<OwnedFd>,
}

impl Daemon {
    /// Starts one worker, which answers from the kernel's sockets, after what it needs: the cache, as the snapshot has it, and
    /// the policy's files. Then it starts the thread for interfaces.
    fn new(
        path: &Path,
        config: &Config,
        control: Option<ControlThreads>,
    ) -> Result<Self, Sentence> {
        let devices = ends_at_once(Devices::read).map_err(|error| error.to_string())?;
        let plan = config.plan(&devices);
        // All of them at once, and before anything of the network is read.
        let entries = config.cache.entries as usize;
        let cached = CACHE.configure(ends_at_once(random_key)?, entries);
        cached.map_err(|error| format!("cache: {error}"))?;
        let workers = usize::from(config.memory.workers);
        xsk::reserve(workers).map_err(|error| format!("packets: {error}"))?;
        let cookie_key = ends_at_once(random_key)?;
        rates::begin(ends_at_once(random_key)?, config.cookies(cookie_key));
        CACHE.set_servers(config.servers_tag());
        let snapshot = start_snapshot(config)?;
        let prefixes = Prefixes::default();
        let policy = PolicyThread::start(path.to_owned(), config, &plan, prefixes.clone())?;
        ends_at_once(|| {
            snapshot.iter().for_each(SnapshotWriter::wait_restored);
            policy.wait_read();
        });

        let mut listening = Listening::new(config, &plan);
        let mut workers = Workers::new(config, &plan, cookie_key)?;
        // This worker answers from the kernel's sockets while the kernel checks the XDP program, which takes a slow processor
        // longer than all the rest. Until then it has the processor to itself.
        workers.start(0, &mut listening, policy.set())?;
        ends_at_once(|| workers.wait_serving())?;
        let supervisor = Supervisor::new(config.clone(), prefixes.clone());
        let (kernel, switches) = (supervisor.kernel(), supervisor.switches());
        let events = supervisor.events();
        let telemetry = Arc::new(register(&supervisor, &prefixes, policy.watch()));
        let interfaces =
            start_interfaces(config, supervisor, workers.inboxes(), policy.requester())?;
        // From here on only the thread for interfaces loads XDP programs.
        capabilities::keep(capabilities::FIRST);
        Ok(Self {
            operation: Operation::new(switches, interfaces.waker()),
            interfaces,
            events,
            kernel,
            listening,
            policy,
            sets: SetThread::default(),
            prefixes,
            workers,
            telemetry,
            control,
            notify: Notify::from_environment(),
            shown_workers: 0,
            queues: Vec::new(),
            starts: WorkerStarts::new(config.memory.workers.into()),
            is_ready: false,
            snapshot,
            servers: upstreams::UpstreamWatch::default(),
            keeper: keeper::watched(),
        })
    }

    /// Commands of the control socket.
    fn commands(&self) -> Commands {
        let handle = self.snapshot.as_ref().map(SnapshotWriter::handle);
        let reader = self.policy.requester();
        let commands = commands::all(Arc::clone(&self.telemetry), &CACHE, reader, handle);
        let commands = with_operator(commands, &self.operation);
        let commands = with_watcher(commands, &self.events);
        let commands = with_readers(commands, &TAP);
        with_shield(commands, Arc::clone(&self.telemetry), self.prefixes.clone())
    }

    /// Starts all workers that are needed now, and waits until they serve. False if a signal asks for an end.
    fn start(&mut self, signals: &SignalFd) -> Result<bool, Sentence> {
        let mut is_reload_due = false;
        let deadline = std::time::Instant::now() + INTERFACES_MAX;
        while self.interfaces.rounds() == 0 && std::time::Instant::now() < deadline {
            match self.wait(signals) {
                MainEvent::Tick => {}
                MainEvent::Reload => is_reload_due = true,
                MainEvent::Stop => return Ok(false),
                MainEvent::KeeperEnded => return Err(KEEPER_ENDED.into()),
            }
            if let Some(failure) = self.workers.failure() {
                return Err(failure);
            }
        }
        self.sets.look(&self.policy.set(), clock::now());
        let round = self.interfaces.take();
        self.workers
            .start(TCP, &mut self.listening, self.policy.set())?;
        // Without AF_XDP there is a worker for each CPU.
        let cpus = std::thread::available_parallelism();
        self.grow(round.queues, cpus.map_or(1, usize::from));
        ends_at_once(|| self.workers.wait_serving())?;
        // All inboxes: a worker that is started later gets the set in force with its start.
        self.policy.serve(self.workers.inboxes());
        if is_reload_due {
            self.policy.reload();
        }
        self.follow(round.plan.as_ref())?;
        self.control.as_mut().map_or(Ok(()), ControlThreads::poll)?;
        // The rest can wait for a moment.
        self.interfaces.look_again();
        if !self.is_ready {
            let why = self.listening.why_silent();
            warn!("not ready: {why}");
            // The start is over all the same: units that wait for this one must not wait for an interface.
            self.notify
                .tell(&format!("READY=1\nSTATUS=not ready: {why}"));
        }
        Ok(true)
    }

    /// Main loop: config, files and threads, until a signal asks for an end.
    fn main_loop(&mut self, signals: &SignalFd) -> Result<(), Sentence> {
        let mut answers_at_last = Some(std::time::Instant::now() + PORTS_MAX);
        loop {
            let event = self.wait(signals);
            MAIN_THREAD_MS.store(clock::now().millis(), Ordering::Relaxed);
            match event {
                MainEvent::Tick => {}
                MainEvent::Reload => self.policy.reload(),
                MainEvent::Stop => return Ok(()),
                MainEvent::KeeperEnded => return Err(KEEPER_ENDED.into()),
            }
            if let Some(failure) = self.workers.failure() {
                return Err(failure);
            }
            let round = self.interfaces.take();
            self.grow(round.queues, 0);
            self.sets.look(&self.policy.set(), clock::now());
            self.follow(round.plan.as_ref())?;
            self.control.as_mut().map_or(Ok(()), ControlThreads::poll)?;
            self.notify.tell_again();
            TAP.look();
            log_notice();
            self.log_servers();
            let now = std::time::Instant::now();
            // A client that is answered may rely on everything available being set up.
            let is_due = |at: &mut _| self.interfaces.rounds() >= ROUNDS || now >= *at;
            if answers_at_last.take_if(is_due).is_some()
                && let Some(control) = &self.control
            {
                control.serve(self.commands());
            }
            self.interfaces.look(now)?;
            // Without these messages the service manager restarts the process.
            if self.workers.look(now)? == Some(true) {
                self.notify.beat();
            }
        }
    }

    /// Logs which upstream servers have fallen silent or answer again.
    fn log_servers(&mut self) {
        let (servers, groups) = (self.telemetry.servers(), self.telemetry.groups());
        for (level, line) in self.servers.look(&servers, &groups, clock::now()) {
            log!(level, "{line}");
        }
    }

    /// Ends all threads that serve. One that does not end in time is left behind.
    fn end(mut self) {
        info!("stopping");
        // From here on a second signal ends the process at once.
        let _ = end_signals().thread_unblock();
        self.notify.tell("STOPPING=1");
        self.interfaces.stop();
        // Cookies that were given before may still come back.
        self.kernel.stop();
        self.workers.stop();
        if let Some(control) = self.control {
            control.stop();
        }
        if let Some(snapshot) = self.snapshot {
            snapshot.finish();
        }
    }

    /// Starts every worker that `queues` names, or `least` workers if there are no queues. A failed start is tried again, and
    /// the others serve.
    fn grow(&mut self, queues: Vec<(usize, QueueName)>, least: usize) {
        let last = queues.iter().map(|(worker, _)| worker + 1).max();
        let wanted = &mut self.starts.wanted;
        *wanted = (*wanted).max(last.unwrap_or(least).min(self.starts.most));
        for (engine, why) in self.workers.take_failed() {
            self.listening.forget(engine);
            self.starts.fail(engine, &why);
        }
        if self.starts.retry.may_try(clock::now()) {
            for worker in 0..self.starts.wanted {
                let policy = self.policy.set();
                if let Err(why) = self.workers.start(worker, &mut self.listening, policy) {
                    self.listening.forget(worker);
                    self.starts.fail(worker, &why);
                    break;
                }
            }
        }
        let workers = self.workers.udp_count();
        if self.shown_workers != workers || self.queues != queues {
            self.telemetry
                .set_workers(registered(&self.workers, &queues));
            (self.shown_workers, self.queues) = (workers, queues);
        }
    }

    /// Follows the machine's addresses: listens on new ones.
    ///
    /// # Errors
    /// Too few descriptors are left to ask upstream servers.
    fn follow(&mut self, plan: Option<&Plan>) -> Result<(), Sentence> {
        if let Some(plan) = plan {
            self.listening.want(&plan.endpoints);
            self.policy.follow(plan);
            ARRIVALS.forget_gone();
        }
        let now = clock::now();
        self.listening
            .take_back(self.workers.engines(), now, self.workers.inboxes());
        if self.listening.is_due(now) {
            let engines = self.workers.engines();
            self.listening
                .poll(engines, now, self.workers.inboxes(), !self.is_ready);
        }
        let endpoints = self.listening.serving();
        if !self.is_ready && endpoints > 0 {
            descriptors::check_spare()?;
            self.is_ready = true;
            let workers = self.workers.udp_count();
            let endpoints = text::count(endpoints, "endpoint");
            info!("ready: {endpoints}, {}", text::count(workers, "worker"));
            self.notify.tell("READY=1\nSTATUS=ready");
        }
        Ok(())
    }

    /// Waits for a signal, the end of a worker, news of interfaces, or the next turn.
    fn wait(&self, signals: &SignalFd) -> MainEvent {
        let mut fds = [
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.workers.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.interfaces.as_fd(), PollFlags::POLLIN),
            // Reports a hang-up alone.
            PollFd::new(
                self.keeper.as_ref().map_or(signals.as_fd(), OwnedFd::as_fd),
                PollFlags::empty(),
            ),
        ];
        // Interrupted or failed: a turn without an event, and the next one waits again.
        let _ = poll(&mut fds, PollTimeout::from(LOOP_MS));
        if !fds[0].any().unwrap_or(false) {
            return match fds[3].any().unwrap_or(false) {
                true => MainEvent::KeeperEnded,
                false => MainEvent::Tick,
            };
        }
        match signals.read_signal() {
            Ok(Some(signal)) => match Signal::try_from(signal.ssi_signo.cast_signed()) {
                Ok(Signal::SIGHUP) => MainEvent::Reload,
                Ok(signal) if UNUSED.contains(&signal) => {
                    info!(
                        "{signal}: nothing is done; `xdnsd stats` and `xdnsd cache dump` show what is asked for, and a log file \
                         that is moved is its writer's to open anew"
                    );
                    MainEvent::Tick
                }
                Ok(_) | Err(_) => MainEvent::Stop,
            },
            Err(_) => MainEvent::Stop,
            Ok(None) => MainEvent::Tick,
        }
    }
}

/// A secret key. Waits until the kernel has enough entropy, which a router may lack at its first boot; later reads of
/// /dev/urandom are good then as well.
fn random_key() -> Result<[u8; 16], Sentence> {
    random::bytes().map_err(|error| format!("getrandom: {error}"))
}

/// Signals that ask for an end.
fn end_signals() -> SigSet {
    let mut set = SigSet::empty();
    set.add(Signal::SIGTERM);
    set.add(Signal::SIGINT);
    set
}

/// Runs `wait`, which may never return, with end signals unblocked: they end the process at once. `wait` must start no thread,
/// which would keep the signals unblocked for as long as it lives.
fn ends_at_once<R>(wait: impl FnOnce() -> R) -> R {
    // Fails only for wrong arguments.
    let _ = end_signals().thread_unblock();
    let waited = wait();
    let _ = end_signals().thread_block();
    waited
}

/// Blocks the signals, to read them from a descriptor; no handler ever runs.
fn block_signals() -> nix::Result<SignalFd> {
    let mut set = end_signals();
    set.add(Signal::SIGHUP);
    set.extend(UNUSED);
    set.thread_block()?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC)
}

/// Event of the main loop.
enum MainEvent {
    /// The period is over, or a worker has ended.
    Tick,
    /// A reload was asked for (SIGHUP).
    Reload,
    /// The process is to end (SIGTERM, SIGINT).
    Stop,
    /// The keeper has ended.
    KeeperEnded,
}

/// Logs what a worker noticed, at most once in a turn.
fn log_notice() {
    if let Some(errno) = NOTICES.take_trouble() {
        warn!(
            "TCP: accept: {}; new connections wait until it can be had",
            errno.desc()
        );
    }
    if let Some((Notice::Rebind, name)) = NOTICES.take() {
        warn!("{name}: upstream's answer leads to a private address, withheld (rebind protection)");
    }
}

/// Starts the thread that logs statistics, if the config wants them.
fn start_report(config: &Config, telemetry: &Arc<Telemetry>) -> Result<(), Sentence> {
    if config.statistics.interval_secs == 0 {
        return Ok(());
    }
    let interval = Duration::from_secs(config.statistics.interval_secs.into());
    metrics::spawn_report(Arc::clone(telemetry), interval)
        .map_err(|error| format!("statistics thread: {error}"))
}

/// Starts the thread that restores the snapshot and writes new ones, if the config names one.
fn start_snapshot(config: &Config) -> Result<Option<SnapshotWriter>, Sentence> {
    let Some(path) = config.cache.snapshot.as_deref() else {
        return Ok(None);
    };
    let store = Store::new(path, config.cache.stale_max_ttl);
    let store = store.named_at(&config.locate("cache.snapshot"));
    let interval = Duration::from_secs(config.cache.snapshot_interval_secs.into());
    let changes = || {
        let inserts = |counters: &Counters| counters.get(Counter::CacheInserts);
        COUNTERS
            .iter()
            .map(inserts)
            .sum::<u64>()
            .wrapping_add(CACHE.removals())
    };
    let writer = SnapshotWriter::spawn(store, &CACHE, interval, changes);
    writer
        .map(Some)
        .map_err(|error| format!("snapshot thread: {error}"))
}

/// Starts the thread for interfaces.
fn start_interfaces(
    config: &Config,
    mut supervisor: Supervisor,
    inboxes: &'static [Inbox],
    policy: Requester,
) -> Result<Interfaces, Sentence> {
    let mut is_first = true;
    let mut guard_at = clock::now();
    let mut ports = SourcePorts::new(config.forward.upstream_ports, LookupProgram::start);
    Interfaces::start(supervisor.changes.watched(), move || {
        look_at_ports(clock::now());
        supervisor.change_keys();
        let plan = supervisor.poll(inboxes, |plan| policy.let_in(plan));
        let now = clock::now();
        if now >= guard_at {
            supervisor.guard();
            guard_at = now + GUARD_MS;
        }
        if std::mem::take(&mut is_first) {
            supervisor.warn_without_xdp();
        } else {
            // The start does not wait for the ports: until then each question has a socket of its own.
            ports.poll(inboxes, now);
        }
        Round {
            plan,
            queues: supervisor.queues(),
        }
    })
}

/// Registers all counters.
fn register(
    supervisor: &Supervisor,
    prefixes: &Prefixes,
    policy: impl Fn() -> Arc<PolicySet> + Send + Sync + 'static,
) -> Telemetry {
    let policy = Arc::new(policy);
    let (current, views, lists) = (
        Arc::clone(&policy),
        Arc::clone(&policy),
        Arc::clone(&policy),
    );
    let programs = supervisor.attachments().iter().map(|attachment| {
        let program = Arc::clone(&attachment.program);
        let (state, hot) = (
            attachment.programs.guard.state(),
            attachment.programs.hot.state(),
        );
        let port = attachment.port.clone();
        metrics::ProgramCounters {
            interface: attachment.interface.clone(),
            port: attachment
                .is_place()
                .then(|| Box::new(move || port.get()) as Box<dyn Fn() -> _ + Send + Sync>),
            frames: Box::new(move || {
                let program = program.lock().unwrap_or_else(PoisonError::into_inner);
                let program = program.as_ref().ok_or(std::io::ErrorKind::NotConnected)?;
                let counters = program.counters().map_err(std::io::Error::other)?;
                Ok(Reason::ALL
                    .iter()
                    .map(|&reason| counters.of(reason))
                    .collect())
            }),
            no_syn_cookies: Box::new(move || state.get().reason()),
            no_tier0: Box::new(move || hot.get().reason()),
        }
    });
    let tier0 = supervisor.tier0.clone();
    Telemetry {
        programs: programs.collect(),
        protects: supervisor.protects(),
        gauges: gauges(prefixes, move || current()),
        tier0: Some(Box::new(move || tier0.outcomes())),
        arrivals: Some(Box::new(|| ARRIVALS.read())),
        groups: Some(Box::new(move || policy().groups().to_vec())),
        views: Some(Box::new(move || {
            views().view_names().map(str::to_owned).collect()
        })),
        lists: Some(Box::new(move || lists().list_rules())),
        sockets: &SOCKET_STATS,
        ..Telemetry::default()
    }
}

/// Workers by number, with their interfaces and queues.
fn registered(workers: &Workers, queues: &[(usize, QueueName)]) -> Vec<metrics::WorkerCounters> {
    let worker = |index: usize| {
        let of_it = queues.iter().filter(|(worker, _)| *worker == index);
        metrics::WorkerCounters {
            name: match index {
                TCP => "tcp".into(),
                _ => index.to_string(),
            },
            queues: of_it.map(|(_, name)| name.clone()).collect(),
            counters: &COUNTERS[index],
            stats: &WORKER_STATS[index],
        }
    };
    // The engine that serves TCP has the highest number.
    let mut engines = workers.engines().to_vec();
    engines.sort_unstable();
    engines.into_iter().map(worker).collect()
}
