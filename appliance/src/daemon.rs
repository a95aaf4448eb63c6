//! `xdnsd run`: makes the threads, wires them together, and waits for a signal.
//!
//! ```text
//!  main ──── supervisor: interfaces, signals          worker 0..n ── engine ── cache shards
//!            control: UNIX socket    snapshot: disk    statistics: log
//! ```

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use log::{Level, info, log, warn};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use xdnsd_abi::Reason;
use xdnsd_core::counters::{Counter, Counters};
use xdnsd_core::engine::Notice;
use xdnsd_core::limits::WORKERS;

use crate::cache::CACHE;
use crate::config::{Config, Devices, Plan, UpstreamPorts};
use crate::control::{Control, SocketFile};
use crate::crew::{ARRIVALS, COUNTERS, Crew, NOTICES, PORT_STATS, TCP};
use crate::listening::Listening;
use crate::notify::Notify;
use crate::reload::Reloader;
use crate::retry::Retry;
use crate::store::{Keeper, Saver, Store};
use crate::supervisor::{Supervisor, say_without_xdp};
use crate::telemetry::{self, Telemetry};
use crate::text;
use crate::worker::{Letter, Lookup, LookupProgram, Mailbox, QueueName, look_at_reserved_ports};
use crate::{clock, commands, seal, sys};

/// How often interfaces are looked after.
const TEND_MS: u16 = 1_000;
/// The first pause before a control socket that could not be had is tried again, in milliseconds.
const CONTROL_MS: u64 = 1_000;
/// The longest.
const CONTROL_MAX_MS: u64 = 60_000;

/// When the main thread last looked after things, in milliseconds of the monotonic clock.
pub static TENDED_MS: AtomicU64 = AtomicU64::new(0);

/// Why the daemon cannot start, or ended badly: one sentence.
pub type Failure = String;

/// Serves `config`, which was read from `path`, until SIGTERM or SIGINT. SIGHUP reads it again.
///
/// It starts with what there is: interfaces, addresses and servers' zones that are not there yet are served when they come.
///
/// # Errors
/// Nothing can be served by this process, or a worker has ended or hangs.
pub fn run(path: &Path, config: Config) -> Result<(), Failure> {
    seal::configure();
    sys::raise_descriptor_limit();
    look_at_reserved_ports();
    let signals = block_signals().map_err(|error| format!("signals: {error}"))?;
    // Before anything that takes queries: a process that serves already is not disturbed.
    let mut door = Door::new(&config);
    door.bind()?;
    let devices = Devices::read().map_err(|error| error.to_string())?;
    let plan = config.plan(&devices);
    CACHE.configure(random_key()?, config.cache.entries as usize);
    let store = restore(&config);
    let reloader = Reloader::start(path.to_owned(), &config, &plan)?;

    let mut listening = Listening::new(&config, &plan);
    let mut crew = Crew::new(&config, &plan, random_key()?)?;
    // It answers from the kernel's sockets while the kernel checks the XDP program, which takes longer than all the rest on a
    // slow processor, and has the processor to itself until it does.
    crew.start(0, &mut listening, reloader.set())?;
    crew.wait_serving()?;
    let supervisor = Supervisor::new(config.clone());
    let telemetry = Arc::new(register(&supervisor));
    let keeper = start_keeper(&config, store)?;
    if config.statistics.interval_secs > 0 {
        let interval = Duration::from_secs(config.statistics.interval_secs.into());
        telemetry::spawn_report(Arc::clone(&telemetry), interval)
            .map_err(|error| format!("statistics thread: {error}"))?;
    }
    let mut daemon = Daemon {
        supervisor,
        listening,
        reloader,
        crew,
        telemetry,
        saver: keeper.as_ref().map(Keeper::saver),
        door,
        notify: Notify::from_environment(),
        ports: None,
        workers: 0,
        queues: Vec::new(),
        is_ready: false,
    };
    let ended = daemon.start(&config).and_then(|()| daemon.attend(&signals));

    info!("stopping");
    daemon.notify.tell("STOPPING=1");
    daemon.supervisor.stop();
    daemon.crew.stop();
    drop(daemon.door);
    if let Some(keeper) = keeper {
        keeper.finish();
    }
    ended
}

/// What the main thread looks after.
struct Daemon {
    supervisor: Supervisor,
    listening: Listening,
    reloader: Reloader,
    crew: Crew,
    telemetry: Arc<Telemetry>,
    saver: Option<Saver>,
    door: Door,
    notify: Notify,
    /// Brings the upstreams' answers back, as long as it is there.
    ports: Option<LookupProgram>,
    /// How many workers are shown, and which queue each is shown by.
    workers: usize,
    queues: Vec<(usize, QueueName)>,
    /// The log has said where it serves.
    is_ready: bool,
}

impl Daemon {
    /// Starts all workers that are needed by now, and waits until they serve.
    fn start(&mut self, config: &Config) -> Result<(), Failure> {
        let plan = self.supervisor.tend(self.crew.mailboxes());
        // Without AF_XDP a worker for each CPU.
        let cpus = std::thread::available_parallelism();
        self.grow(cpus.map_or(1, usize::from))?;
        self.crew
            .start(TCP, &mut self.listening, self.reloader.set())?;
        self.crew.wait_serving()?;
        // Those that are started later, too: each gets the set in force with its start.
        self.reloader.serve(self.crew.mailboxes());
        say_without_xdp(&self.supervisor);
        self.ports = take_ports(config, self.crew.mailboxes());
        self.follow(plan.as_ref());
        self.tend_door()?;
        if !self.is_ready {
            warn!("not ready: nothing that the config names is there to be served; waiting for it");
            self.notify
                .tell("STATUS=not ready: waits for an interface or address");
        }
        Ok(())
    }

    /// Looks after the machine, the config and its files until somebody wants an end.
    fn attend(&mut self, signals: &SignalFd) -> Result<(), Failure> {
        loop {
            let event = wait(signals, &self.crew);
            TENDED_MS.store(clock::now().millis(), Ordering::Relaxed);
            match event {
                Event::Tick => {}
                Event::Reload => self.reloader.reload(),
                Event::Stop => return Ok(()),
            }
            if let Some(failure) = self.crew.failure() {
                return Err(failure);
            }
            let plan = self.supervisor.tend(self.crew.mailboxes());
            self.grow(0)?;
            self.follow(plan.as_ref());
            self.tend_door()?;
            look_at_reserved_ports();
            say_notice();
            // A manager that is not told for a while ends the process, and starts it again.
            if self.crew.look(std::time::Instant::now())? == Some(true) {
                self.notify.tell("WATCHDOG=1");
            }
        }
    }

    /// Starts workers until each RX queue has one, and at least `least`.
    fn grow(&mut self, least: usize) -> Result<(), Failure> {
        let queues = self.supervisor.queues();
        let last = queues.iter().map(|(worker, _)| worker + 1).max();
        let before = self.crew.workers();
        for worker in before..last.unwrap_or(least).min(WORKERS) {
            self.crew
                .start(worker, &mut self.listening, self.reloader.set())?;
        }
        // A worker that has lost its queue is shown by it until it has another.
        let mut shown = self.queues.clone();
        for (worker, name) in queues {
            shown.retain(|(other, known)| *other != worker && *known != name);
            shown.push((worker, name));
        }
        let workers = self.crew.workers();
        if self.workers != workers || self.queues != shown {
            self.telemetry.set_workers(registered(&self.crew, &shown));
            (self.workers, self.queues) = (workers, shown);
        }
        Ok(())
    }

    /// Listens where the machine has an address by now.
    fn follow(&mut self, plan: Option<&Plan>) {
        if let Some(plan) = plan {
            self.listening.want(&plan.endpoints);
            self.reloader.follow(plan);
            ARRIVALS.forget_gone();
        }
        let now = clock::now();
        if self.listening.is_due(now) {
            let engines = self.crew.engines();
            self.listening
                .tend(engines, now, self.crew.mailboxes(), !self.is_ready);
        }
        let endpoints = self.listening.serving();
        if !self.is_ready && endpoints > 0 {
            self.is_ready = true;
            let workers = self.crew.workers();
            let endpoints = text::count(endpoints, "endpoint");
            info!("ready: {endpoints}, {}", text::count(workers, "worker"));
            self.notify.tell("READY=1\nSTATUS=ready");
        }
    }

    /// Serves the control socket, where the config wants one and it can be had.
    fn tend_door(&mut self) -> Result<(), Failure> {
        if self.door.is_due(clock::now()) {
            self.door.bind()?;
        }
        let Some(control) = self.door.bound.take() else {
            return Ok(());
        };
        let requester = self.reloader.requester();
        let telemetry = Arc::clone(&self.telemetry);
        let commands = commands::all(telemetry, &CACHE, requester, self.saver.clone());
        let file = control.spawn(commands);
        self.door.file = Some(file.map_err(|error| format!("control socket: {error}"))?);
        Ok(())
    }
}

/// The control socket on its way into being.
struct Door {
    path: Option<Box<Path>>,
    /// Listens, and is not served yet.
    bound: Option<Control>,
    /// It is served.
    file: Option<SocketFile>,
    retry: Retry,
    /// The last trouble that was logged.
    trouble: String,
}

impl Door {
    fn new(config: &Config) -> Self {
        Self {
            path: config.control.socket.as_deref().map(Into::into),
            bound: None,
            file: None,
            retry: Retry::default(),
            trouble: String::new(),
        }
    }

    /// Whether it is tried again now.
    fn is_due(&self, now: xdnsd_core::time::Instant) -> bool {
        self.bound.is_none() && self.file.is_none() && self.retry.is_due(now)
    }

    /// Listens, where the config wants that.
    ///
    /// # Errors
    /// Another process answers there: it serves already. What else there is, is logged and tried again.
    fn bind(&mut self) -> Result<(), Failure> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        if let Some(folder) = path.parent() {
            // /run is empty after a boot. If it fails, so does the bind, which says why.
            let _ = std::fs::create_dir_all(folder);
        }
        match Control::bind(path) {
            Ok(control) => {
                self.bound = Some(control);
                self.retry.succeed();
            }
            Err(error) => {
                let trouble = format!("control socket: {error}");
                if error.kind() == std::io::ErrorKind::AddrInUse {
                    return Err(trouble);
                }
                self.retry.fail(clock::now(), CONTROL_MS, CONTROL_MAX_MS);
                if self.trouble != trouble {
                    warn!("{trouble}; tried again until it can be had");
                    self.trouble = trouble;
                }
            }
        }
        Ok(())
    }
}

/// Has every worker ask through ports of the sk_lookup program, where there can be one. It is loaded last: until then, and
/// without it, a question has a socket of its own.
fn take_ports(config: &Config, mailboxes: &[Mailbox]) -> Option<LookupProgram> {
    let wanted = config.forward.upstream_ports;
    if wanted == UpstreamPorts::Connected {
        return None;
    }
    let hand_out = |mut program: LookupProgram| {
        for (worker, mailbox) in (0..).zip(mailboxes) {
            let lookup = Box::new(Lookup::new(&mut program, worker)?);
            if mailbox.post(Letter::Ports(lookup)).is_err() {
                return Err(format!("worker {worker} does not open its mail"));
            }
        }
        Ok(program)
    };
    match LookupProgram::start().and_then(hand_out) {
        Ok(program) => Some(program),
        Err(problem) => {
            let level = if wanted == UpstreamPorts::Auto {
                Level::Info
            } else {
                Level::Warn
            };
            log!(
                level,
                "upstream_ports: a connected socket for each question, without sk_lookup: {problem}"
            );
            None
        }
    }
}

/// A key that nobody knows. Waits until the kernel has enough entropy, which a router at its first boot may lack; what is
/// drawn later, from /dev/urandom, is good then as well.
fn random_key() -> Result<[u8; 16], Failure> {
    sys::random().map_err(|error| format!("getrandom: {error}"))
}

/// Signals are read from a descriptor; no handler ever runs.
fn block_signals() -> nix::Result<SignalFd> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGTERM);
    set.add(Signal::SIGINT);
    set.add(Signal::SIGHUP);
    set.thread_block()?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC)
}

/// What the main thread waits for.
enum Event {
    /// A second is over, or a worker has ended.
    Tick,
    /// SIGHUP.
    Reload,
    /// SIGTERM or SIGINT.
    Stop,
}

/// Waits for a signal, a worker that ends, or the next turn.
fn wait(signals: &SignalFd, crew: &Crew) -> Event {
    let mut fds = [
        PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        PollFd::new(crew.as_fd(), PollFlags::POLLIN),
    ];
    // Interrupted or failed: a turn without an event, and the next one waits again.
    let _ = poll(&mut fds, PollTimeout::from(TEND_MS));
    if !fds[0].any().unwrap_or(false) {
        return Event::Tick;
    }
    match signals.read_signal() {
        Ok(Some(signal)) if signal.ssi_signo == Signal::SIGHUP as u32 => Event::Reload,
        Ok(Some(_)) | Err(_) => Event::Stop,
        Ok(None) => Event::Tick,
    }
}

/// Logs what a worker noticed, at most once in a turn.
fn say_notice() {
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

/// Puts the snapshot into the cache, where the config names one. What is wrong with it stops nothing.
fn restore(config: &Config) -> Option<Store> {
    let path = config.cache.snapshot.as_deref()?;
    let store = Store::new(path, config.cache.stale_max_ttl);
    let restored = store.load(&CACHE, clock::now());
    let level = if restored.is_faulty() {
        Level::Warn
    } else {
        Level::Info
    };
    log!(level, "snapshot: {restored}");
    if let Some(problem) = store.folder_problem() {
        warn!("snapshot: {problem}");
    }
    Some(store)
}

/// Starts the thread that writes snapshots.
fn start_keeper(config: &Config, store: Option<Store>) -> Result<Option<Keeper>, Failure> {
    let Some(store) = store else {
        return Ok(None);
    };
    let interval = Duration::from_secs(config.cache.snapshot_interval_secs.into());
    let changes = || {
        let inserts = |counters: &Counters| counters.get(Counter::CacheInserts);
        COUNTERS
            .iter()
            .map(inserts)
            .sum::<u64>()
            .wrapping_add(CACHE.removals())
    };
    let keeper = Keeper::spawn(store, &CACHE, interval, changes);
    keeper
        .map(Some)
        .map_err(|error| format!("snapshot thread: {error}"))
}

/// Registers everything that is counted.
fn register(supervisor: &Supervisor) -> Telemetry {
    let programs = supervisor.attachments().iter().map(|attachment| {
        let program = Arc::clone(&attachment.program);
        telemetry::Program {
            interface: attachment.name.clone(),
            frames: Box::new(move || {
                let program = program.lock().unwrap_or_else(PoisonError::into_inner);
                let program = program.as_ref().ok_or(std::io::ErrorKind::NotConnected)?;
                let counters = program.counters().map_err(std::io::Error::other)?;
                Ok(Reason::ALL
                    .iter()
                    .map(|&reason| counters.of(reason))
                    .collect())
            }),
        }
    });
    Telemetry {
        programs: programs.collect(),
        gauges: vec![telemetry::Gauge {
            name: "cache_entries",
            help: "Answers in the cache",
            value: Box::new(|| CACHE.len() as u64),
        }],
        arrivals: Some(Box::new(|| ARRIVALS.read())),
        ..Telemetry::default()
    }
}

/// The workers, as they are shown: by number, and by interface and queue where they have one.
fn registered(crew: &Crew, queues: &[(usize, QueueName)]) -> Vec<telemetry::Worker> {
    let worker = |index: usize| {
        let named = queues.iter().find(|(worker, _)| *worker == index);
        let named = named.map(|(_, name)| name);
        telemetry::Worker {
            name: match index {
                TCP => "tcp".into(),
                _ => index.to_string(),
            },
            queue: named.cloned(),
            counters: &COUNTERS[index],
            xsk: named.map(|_| -> telemetry::Read<_> {
                Box::new(move || {
                    PORT_STATS[index]
                        .kernel()
                        .ok_or_else(|| std::io::ErrorKind::NotConnected.into())
                })
            }),
        }
    };
    // The last one serves TCP, as long as the process lives.
    let engines = (0..crew.workers()).chain([TCP]);
    engines.map(worker).collect()
}
