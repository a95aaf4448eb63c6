//! `xdnsd run`: makes the threads, wires them together, and waits for a signal.
//!
//! ```text
//!  main ──── supervisor: interfaces, signals          worker 0..n ── engine ── cache shards
//!            policy: files           control: UNIX socket    snapshot: disk    statistics: log
//! ```

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use log::{Level, error, info, log, warn};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use xdnsd_core::counters::{Counter, Counters};
use xdnsd_core::engine::{Engine, Notice, Settings, Tables};
use xdnsd_core::forward::upstreams::Upstreams;
use xdnsd_core::limits::WORKERS;
use xdnsd_ebpf::Reason;

use crate::cache::CACHE;
use crate::config::{Config, Devices, Plan, UpstreamPorts};
use crate::control::{Control, SocketFile};
use crate::listening::Listening;
use crate::reload::{Reloader, Requester};
use crate::store::{Keeper, Saver, Store};
use crate::supervisor::{Supervisor, say_without_xdp};
use crate::telemetry::{self, Telemetry};
use crate::worker::{
    Letter, Lookup, LookupProgram, Mailbox, NoticeBoard, Parts, PortStats, Pulse, Route, Worker,
    look_at_reserved_ports,
};
use crate::{clock, commands, memory, seal, sys};

/// Threads with an engine: the workers, and one that serves TCP, so that it never makes UDP wait.
pub const ENGINES: usize = WORKERS + 1;

/// How long the first worker is waited for.
const START_MAX: Duration = Duration::from_secs(1);

/// How often interfaces are looked after.
const TEND_MS: u16 = 1_000;

/// The engines' tables, one per worker, in .bss. A worker holds the lock of its own for as long as it lives.
static TABLES: [Mutex<Tables<Route>>; ENGINES] = [const { Mutex::new(Tables::new()) }; ENGINES];
static COUNTERS: [Counters; ENGINES] = [const { Counters::new() }; ENGINES];
static PORT_STATS: [PortStats; ENGINES] = [const { PortStats::new() }; ENGINES];
static PULSES: [Pulse; ENGINES] = [const { Pulse::new() }; ENGINES];
static NOTICES: NoticeBoard = NoticeBoard::new();

/// Bytes of one engine's tables, for the memory budget.
pub const TABLES_BYTES: usize = size_of::<Mutex<Tables<Route>>>();

/// Why the daemon cannot start, or ended badly: one sentence.
pub type Failure = String;

/// Serves `config`, which was read from `path`, until SIGTERM or SIGINT. SIGHUP reads it again.
///
/// # Errors
/// What is missing: an interface, an address, a socket.
pub fn run(path: &Path, config: Config) -> Result<(), Failure> {
    seal::configure();
    sys::raise_descriptor_limit();
    look_at_reserved_ports();
    let signals = block_signals().map_err(|error| format!("signals: {error}"))?;
    let devices = Devices::read().map_err(|error| error.to_string())?;
    let plan = config.plan(&devices).map_err(|errors| errors.to_string())?;
    // Before anything that takes queries: a process that serves already is not disturbed.
    let control = bind_control(&config)?;
    CACHE.configure(random_key()?, config.cache.entries as usize);
    let store = restore(&config);
    let reloader = Reloader::start(path.to_owned(), &config, &plan)?;

    let mailboxes = make_mailboxes()?;
    let mut listening = Listening::new(&plan.endpoints);
    let mut crew = Crew {
        config: &config,
        plan: &plan,
        listening: &listening,
        reloader: &reloader,
        cookie_key: random_key()?,
        threads: Vec::new(),
    };
    crew.start_first(mailboxes)?;
    let mut supervisor = Supervisor::new(config.clone());
    let workers = worker_count(&supervisor);
    let mailboxes = &mailboxes[..=workers];
    crew.start_others(mailboxes)?;
    let threads = crew.threads;
    reloader.serve(mailboxes);
    supervisor.start(&plan, &devices, mailboxes);
    say_without_xdp(&supervisor);
    let _ports = take_ports(&config, mailboxes);

    let telemetry = Arc::new(register(&supervisor, workers));
    let keeper = start_keeper(&config, store)?;
    let saver = keeper.as_ref().map(Keeper::saver);
    let control = start_control(control, &telemetry, reloader.requester(), saver)?;
    if config.statistics.interval_secs > 0 {
        let interval = Duration::from_secs(config.statistics.interval_secs.into());
        telemetry::spawn_report(Arc::clone(&telemetry), interval)
            .map_err(|error| format!("statistics thread: {error}"))?;
    }
    info!(
        "ready: {} endpoints, {workers} workers",
        plan.endpoints.len()
    );

    attend(
        &signals,
        &mut supervisor,
        &mut listening,
        &reloader,
        mailboxes,
    );

    info!("stopping");
    supervisor.stop();
    for (mailbox, thread) in mailboxes.iter().zip(threads) {
        // A full mailbox belongs to a worker that hangs: the process ends without it.
        if mailbox.post(Letter::Stop).is_ok() && thread.join().is_err() {
            error!("a worker had panicked");
        }
    }
    drop(control);
    if let Some(keeper) = keeper {
        keeper.finish();
    }
    Ok(())
}

/// Looks after the machine, the config and its files until somebody wants an end.
fn attend(
    signals: &SignalFd,
    supervisor: &mut Supervisor,
    listening: &mut Listening,
    reloader: &Reloader,
    mailboxes: &[Mailbox],
) {
    loop {
        match wait(signals) {
            Event::Tick => {}
            Event::Reload => reloader.reload(),
            Event::Stop => return,
        }
        let plan = supervisor.tend(mailboxes);
        if let Some(plan) = &plan {
            listening.follow(&plan.endpoints, mailboxes);
            reloader.follow(plan);
        }
        look_at_reserved_ports();
        say_notice();
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
    /// A second is over.
    Tick,
    /// SIGHUP.
    Reload,
    /// SIGTERM or SIGINT.
    Stop,
}

/// Waits for a signal or the next turn.
fn wait(signals: &SignalFd) -> Event {
    let mut fds = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
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

/// A worker for each RX queue; without AF_XDP one for each CPU.
fn worker_count(supervisor: &Supervisor) -> usize {
    match supervisor.queues().len() {
        0 => std::thread::available_parallelism()
            .map_or(1, usize::from)
            .min(WORKERS),
        queues => queues,
    }
}

/// As many as there can be threads with an engine: how many queues there are is known once the program is attached.
fn make_mailboxes() -> Result<&'static [Mailbox], Failure> {
    let mailboxes: Vec<Mailbox> = (0..ENGINES)
        .map(|_| Mailbox::new())
        .collect::<Result<_, _>>()
        .map_err(|error| format!("eventfd: {error}"))?;
    Ok(Vec::leak(mailboxes))
}

/// What every worker is started with.
struct Crew<'a> {
    config: &'a Config,
    plan: &'a Plan,
    listening: &'a Listening,
    reloader: &'a Reloader,
    cookie_key: [u8; 16],
    /// Those that run, in the order of their mailboxes.
    threads: Vec<JoinHandle<()>>,
}

impl Crew<'_> {
    /// Starts the first. It answers from the kernel's sockets while the kernel checks the XDP program, which takes longer
    /// than all the rest on a slow processor, and has the processor to itself until it does.
    fn start_first(&mut self, mailboxes: &'static [Mailbox]) -> Result<(), Failure> {
        let (serving, serves) = mpsc::channel();
        self.start(&mailboxes[0], false, serving)?;
        // Late or ended: nothing depends on it.
        let _ = serves.recv_timeout(START_MAX);
        Ok(())
    }

    /// Starts all but the first; the last one serves TCP alone.
    fn start_others(&mut self, mailboxes: &'static [Mailbox]) -> Result<(), Failure> {
        for (index, mailbox) in mailboxes.iter().enumerate().skip(1) {
            self.start(mailbox, index + 1 == mailboxes.len(), mpsc::channel().0)?;
        }
        Ok(())
    }

    /// Starts the next worker: for UDP, or for TCP alone. It tells `serving` when it is about to serve.
    fn start(
        &mut self,
        mailbox: &'static Mailbox,
        has_tcp: bool,
        serving: Sender<()>,
    ) -> Result<(), Failure> {
        let index = self.threads.len();
        let listeners = self.listening.open(index, has_tcp);
        let parts = Parts {
            listeners: listeners.map_err(|error| error.to_string())?,
            tcp_idle_ms: u64::from(self.config.settings().tcp_idle_100ms) * 100,
            busy_poll_us: self.config.forward.busy_poll_us,
            policy: self.reloader.set(),
            notices: &NOTICES,
            mailbox,
            counters: &COUNTERS[index],
            port_stats: &PORT_STATS[index],
            pulse: &PULSES[index],
        };
        let upstreams = upstreams(self.config, self.plan);
        let settings = Settings {
            cookies: self.config.cookies(self.cookie_key),
            ..self.config.settings()
        };
        let thread = memory::thread(&format!("worker {index}"))
            .spawn(move || work(index, parts, upstreams, settings, &serving))
            .map_err(|error| format!("worker thread: {error}"))?;
        self.threads.push(thread);
        Ok(())
    }
}

/// The thread of one worker.
fn work(
    index: usize,
    parts: Parts<'static>,
    upstreams: Upstreams,
    settings: Settings,
    serving: &Sender<()>,
) {
    let mut tables = TABLES[index].lock().unwrap_or_else(PoisonError::into_inner);
    let engine = Engine::new(&mut tables, &CACHE, parts.counters, upstreams, settings);
    match Worker::new(engine, parts) {
        Ok(mut worker) => {
            // Only the first one is waited for.
            let _ = serving.send(());
            let _seal = seal::Seal::this_thread();
            worker.run();
        }
        Err(error) => error!("worker {index}: {error}"),
    }
}

/// The servers of every group, as the engine wants them.
fn upstreams(config: &Config, plan: &Plan) -> Upstreams {
    let mut upstreams = Upstreams::new();
    upstreams
        .configure(&config.servers(plan))
        .expect("the config allows no more servers than fit");
    upstreams
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
fn register(supervisor: &Supervisor, workers: usize) -> Telemetry {
    let queues = supervisor.queues();
    let worker = |index: usize| {
        let named = queues.get(index);
        telemetry::Worker {
            interface: named.map_or("kernel".into(), |name| name.interface.clone()),
            queue: match named {
                Some(name) => name.queue.to_string(),
                None if index == workers => "tcp".into(),
                None => index.to_string(),
            },
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
        workers: (0..=workers).map(worker).collect(),
        programs: programs.collect(),
        gauges: vec![telemetry::Gauge {
            name: "cache_entries",
            help: "Answers in the cache",
            value: Box::new(|| CACHE.len() as u64),
        }],
    }
}

/// Listens at the control socket, where the config wants one.
fn bind_control(config: &Config) -> Result<Option<Control>, Failure> {
    let path = config.control.socket.as_deref();
    if let Some(folder) = path.and_then(Path::parent) {
        // /run is empty after a boot. If it fails, so does the bind, which says why.
        let _ = std::fs::create_dir_all(folder);
    }
    let control = path.map(Control::bind).transpose();
    control.map_err(|error| format!("control socket: {error}"))
}

/// Starts to serve it.
fn start_control(
    control: Option<Control>,
    telemetry: &Arc<Telemetry>,
    requester: Requester,
    saver: Option<Saver>,
) -> Result<Option<SocketFile>, Failure> {
    let Some(control) = control else {
        return Ok(None);
    };
    let commands = commands::all(Arc::clone(telemetry), &CACHE, requester, saver);
    let socket = control.spawn(commands).map(Some);
    socket.map_err(|error| format!("control socket: {error}"))
}
