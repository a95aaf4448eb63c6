//! Policy while the daemon runs: changed files, SIGHUP, `xdnsd reload`. Workers take a new set between two turns, so no query
//! waits for it.

mod groups;
mod pause;
mod requests;
mod servers;
mod source;
mod words;

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use log::{info, warn};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;

use super::program;
use super::shield::Prefixes;
use crate::compile::acl;
use crate::compile::reloader::{PolicyReloader, Update};
use crate::compile::set::PolicySet;
use crate::compile::why::explain;
use crate::config::{Config, Devices, NamedServers, Plan};
use crate::control::commands::{PauseRequest, PauseState};
use crate::control::memory::{self, Capacities};
use crate::control::metrics::{not_taken, process};
use crate::os::{capabilities, clock, memory_limits, threads};
use crate::worker::Inbox;
use groups::{Groups, input};
use pause::Pause;
pub use requests::{ReloadOutcome, Requester};
use requests::{ReloadRequest, ReloadRequests, lock};
use servers::{Forget, ResolvFiles};
use words::{in_words, log_notes, missing_in_words, not_taken, warnings_of};

/// Result of a reload.
const RELOADED: &str = "reloaded: config and files are in force";
/// Result of a reload in which a file failed.
const RELOADED_IN_PART: &str =
    "reloaded, but for what is said above: what a file that failed said last stays in force";
/// Result of a reload that a busy worker has not taken yet.
const RELOADED_NOT_TAKEN: &str = "reloaded, but not every worker has taken it yet";

/// Time that a start waits for the files of policy. Files that take longer, as on a file server that does not answer, come
/// later: until then the daemon serves under the config alone.
const START_MAX: Duration = Duration::from_secs(10);
/// Period of looks for expired leases, in milliseconds.
const TICK_MS: u64 = 1_000;
/// Period of looks whether workers have left a replaced set, in milliseconds.
const SWEEP_MS: u64 = 50;
/// Time that a reload waits until all workers serve under the new set. They take it between two turns.
const TAKEN_MAX: Duration = Duration::from_secs(2);
/// Time between two looks whether they do.
const TAKEN_PAUSE: Duration = Duration::from_millis(2);

/// Handle of the thread that keeps the workers' policy up to date. Only that thread reads files, so one that does not answer
/// never holds up the main thread.
pub struct PolicyThread {
    requester: Requester,
    set: Arc<Mutex<Arc<PolicySet>>>,
    /// Receives a message when the files were read for the first time.
    is_read: Receiver<()>,
}

impl PolicyThread {
    /// Compiles the config's policy, and starts the thread that reads and watches its files. `path` is where the config is read
    /// again; `plan` has the addresses of this machine. The thread also reads the denied `prefixes`.
    ///
    /// # Errors
    /// The policy of the config is wrong.
    pub fn start(
        path: PathBuf,
        config: &Config,
        plan: &Plan,
        prefixes: Prefixes,
    ) -> Result<Self, String> {
        let groups = Groups::of(config, plan);
        let input = input(config, &groups, &plan.links);
        let reloader = PolicyReloader::new(input).map_err(|problem| problem.to_string())?;
        program::show_policy(&reloader.set());
        let set = Arc::new(Mutex::new(reloader.set()));
        let (requester, asked) = Requester::new()?;
        let state = ThreadState {
            path,
            started: config.clone(),
            config: config.clone(),
            groups,
            reloader,
            named: ResolvFiles::default().named(config),
            forget: Forget::default(),
            resolv: ResolvFiles::default(),
            prefixes,
            prefix_faults: Vec::new(),
            pause: Pause::default(),
            inboxes: &[],
            set: Arc::clone(&set),
            previous: Vec::new(),
        };
        let (ready, is_read) = mpsc::channel();
        let wake = Arc::clone(&requester.wake);
        threads::builder("policy")
            .spawn(move || {
                capabilities::keep(capabilities::FILES_AND_MAPS);
                state.run(&asked, &wake, &ready);
            })
            .map_err(|error| format!("policy thread: {error}"))?;
        Ok(Self {
            requester,
            set,
            is_read,
        })
    }

    /// Waits, up to [`START_MAX`], until the files were read for the first time.
    pub fn wait_read(&self) {
        if self.is_read.recv_timeout(START_MAX).is_err() {
            let secs = START_MAX.as_secs();
            warn!(
                "the files of policy are still being read after {secs} s: served without them until then"
            );
        }
    }

    /// A handle that asks for reloads from another thread.
    #[must_use]
    pub fn requester(&self) -> Requester {
        self.requester.clone()
    }

    /// The set in force.
    #[must_use]
    pub fn set(&self) -> Arc<PolicySet> {
        Arc::clone(&lock(&self.set))
    }

    /// A closure that reads the set in force, from any thread.
    pub fn watch(&self) -> impl Fn() -> Arc<PolicySet> + Send + Sync + use<> {
        let set = Arc::clone(&self.set);
        move || Arc::clone(&lock(&set))
    }

    /// Gives every set from now on to the workers behind `inboxes`. To be called once they run: a command in the inbox of a
    /// worker that never runs would keep its set alive.
    pub fn serve(&self, inboxes: &'static [Inbox]) {
        self.requester.ask(ReloadRequest::Serve(inboxes));
    }

    /// Passes on new addresses of this machine.
    pub fn follow(&self, plan: &Plan) {
        self.requester.follow(plan.clone());
    }

    /// Asks for a reload of the config and all its files, without waiting for it.
    pub fn reload(&self) {
        self.requester.reload_later();
    }
}

/// State of the thread.
struct ThreadState {
    path: PathBuf,
    /// Config at the start, for the keys that a reload does not take over.
    started: Config,
    /// Config as read last.
    config: Config,
    /// Upstream groups, as the workers have them.
    groups: Groups,
    reloader: PolicyReloader,
    resolv: ResolvFiles,
    /// Servers as the config and those files name them.
    named: Vec<NamedServers>,
    /// Answers to remove when every worker has left the earlier sets. One that has not keeps what the earlier servers say.
    forget: Forget,
    prefixes: Prefixes,
    /// Faults of the denied prefixes.
    prefix_faults: Vec<String>,
    pause: Pause,
    inboxes: &'static [Inbox],
    /// The set in force, for workers that start.
    set: Arc<Mutex<Arc<PolicySet>>>,
    /// Replaced sets. Each is freed here, once no worker serves under it, so that no worker has to free it.
    previous: Vec<Arc<PolicySet>>,
}

impl ThreadState {
    /// Runs until all senders of requests are gone.
    fn run(mut self, asked: &ReloadRequests, wake: &EventFd, ready: &Sender<()>) {
        self.read_servers();
        let first = self.reloader.read_all(wall_secs());
        self.hand_out(first);
        self.drop_clients();
        self.prefix_faults = self.prefixes.start(&self.config.prefixes());
        self.prefix_faults.iter().for_each(|line| warn!("{line}"));
        self.show_not_taken();
        // Fails if the start has stopped waiting.
        let _ = ready.send(());
        loop {
            match asked.next() {
                Ok(request) => self.carry_out(request),
                Err(TryRecvError::Disconnected) => return,
                Err(TryRecvError::Empty) => {
                    self.wait(wake);
                    self.follow_files();
                    if self.pause.end_if_due(clock::now()) {
                        self.filter_again();
                    }
                    self.sweep();
                }
            }
        }
    }

    /// Waits for a request, a changed file, or the next turn.
    fn wait(&self, wake: &EventFd) {
        let now = clock::now();
        let tick_ms = if self.previous.is_empty() {
            TICK_MS
        } else {
            SWEEP_MS
        };
        let until_ms = self
            .reloader
            .deadline()
            .map_or(tick_ms, |deadline| deadline.millis_since(now));
        let timeout = PollTimeout::from(until_ms.min(tick_ms) as u16);
        let descriptors = [Some(wake.as_fd()), self.reloader.descriptor()];
        let mut fds: Vec<_> = descriptors
            .into_iter()
            .flatten()
            .map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN))
            .collect();
        // Interrupted or failed: a turn without an event, and the next one waits again.
        let _ = poll(&mut fds, timeout);
        // Fails if nobody has asked.
        let _ = wake.read();
    }

    fn carry_out(&mut self, request: ReloadRequest) {
        match request {
            ReloadRequest::Serve(inboxes) => {
                self.inboxes = inboxes;
                self.send_set();
            }
            ReloadRequest::Follow(plan) => self.follow_addresses(&plan),
            ReloadRequest::LetIn(plan, reply) => {
                self.follow_addresses(&plan);
                // Fails if the sender has stopped waiting.
                let _ = reply.send(());
            }
            ReloadRequest::Reload(reply) => {
                let outcome = self.reload();
                process::have_read(outcome.is_ok());
                // Fails if the client has gone.
                let _ = reply.map(|reply| reply.send(outcome));
            }
            ReloadRequest::Pause(wanted, reply) => {
                let _ = reply.send(self.pause_lists(wanted));
            }
            ReloadRequest::Resume(client, reply) => {
                let was_on = self.pause.end(client);
                if was_on {
                    self.filter_again();
                }
                let _ = reply.send(was_on);
            }
            ReloadRequest::Why(question, reply) => {
                let place_of = |value| self.config.place_of(value);
                let set = self.pause.in_force(self.reloader.set());
                let input = self.reloader.input();
                let _ = reply.send(explain(&set, input, &place_of, question));
            }
        }
    }

    fn follow_files(&mut self) {
        let now = clock::now();
        self.reloader.take_events(now);
        if self.reloader.take_servers_due(now) {
            self.read_servers();
            self.show_not_taken();
        }
        if let Some(update) = self.reloader.update_if_due(now, wall_secs()) {
            self.hand_out(update);
        }
    }

    /// Reads the config and all its files again. A fault in the config changes nothing; a file that fails keeps what it
    /// belongs to as it was, and the rest is taken over.
    fn reload(&mut self) -> ReloadOutcome {
        let mut told = Vec::new();
        match self.load(&mut told) {
            Ok((config, groups, update)) => {
                config.set_log();
                told.extend(warnings_of(&config));
                told.extend(not_taken(&config.changes(&self.started)));
                told.iter().for_each(|line| warn!("{line}"));
                told.extend(in_words(&update.notes));
                told.push(config.changes(&self.config).in_words());
                let mut has_failed = !update.notes.failures.is_empty();
                self.hand_out(update);
                self.drop_clients();
                let (prefixes_told, faults) = self.prefixes.reload(&config.prefixes());
                faults.iter().for_each(|line| warn!("{line}"));
                has_failed |= !faults.is_empty();
                told.extend(faults.iter().cloned().chain(prefixes_told));
                self.prefix_faults = faults;
                self.show_not_taken();
                let is_continued = groups.continue_those_of(&self.groups);
                self.groups = groups;
                self.config = config;
                self.forget_replaced();
                if !is_continued {
                    // Cached answers name their group and view by number.
                    self.forget = Forget::Everything;
                }
                let head = match (has_failed, self.wait_taken()) {
                    (true, _) => RELOADED_IN_PART,
                    (false, false) => RELOADED_NOT_TAKEN,
                    (false, true) => RELOADED,
                };
                info!("{head}");
                let lines = told.into_iter().chain([head.to_owned()]).collect();
                if has_failed { Err(lines) } else { Ok(lines) }
            }
            Err(problem) => {
                let mut lines = vec!["not reloaded, all stays as it was:".to_owned()];
                lines.extend(problem.lines().map(str::to_owned));
                if let [head, only] = lines.as_slice() {
                    lines = vec![format!("{head} {only}")];
                }
                lines.iter().for_each(|line| warn!("{line}"));
                Err(lines)
            }
        }
    }

    /// Reads the config. Adds what it names and this machine lacks to `told`.
    fn load(&mut self, told: &mut Vec<String>) -> Result<(Config, Groups, Update), String> {
        let config = Config::load(&self.path).map_err(|errors| errors.to_string())?;
        can_start(&config)?;
        let devices = Devices::read().map_err(|error| error.to_string())?;
        told.extend(self.resolv.read(&config));
        // A server whose zone is away for the moment is asked when it comes.
        let plan = self.resolv.plan(&config, &devices);
        told.extend_from_slice(self.resolv.left_out());
        let of_start = self.started.plan(&devices).missing;
        told.extend(missing_in_words(&plan.missing, &of_start));
        let groups = Groups::of(&config, &plan);
        // Listeners stay as the start made them; the views of clients are those of this config.
        let links = self.reloader.links().clone().with_views_of(&plan.links);
        let input = input(&config, &groups, &links);
        let update = self.reloader.reload(input, wall_secs());
        let update = update.map_err(|problem| problem.to_string())?;
        Ok((config, groups, update))
    }

    /// Logs the result, and gives every worker the new set.
    fn hand_out(&mut self, update: Update) {
        log_notes(&update.notes);
        self.show_not_taken();
        if update.set.is_some() {
            self.send_set();
        }
    }

    /// Has the XDP programs drop queries that workers would drop for their source alone. They can be done without.
    fn drop_clients(&self) {
        let clients = acl::dropped(&self.reloader.input().acl);
        if let Err(problem) = self.prefixes.drop_clients(&clients) {
            warn!("{problem}");
        }
    }

    /// Publishes which files are not taken as they are.
    fn show_not_taken(&self) {
        let held = self.reloader.held();
        let held = held.map(|problem| (problem.place.clone(), problem.what.clone()));
        let servers = self.resolv.faults();
        let servers = servers.map(|problem| (problem.place.clone(), problem.what.clone()));
        let prefixes = self.prefix_faults.iter();
        let prefixes = prefixes.map(|line| ("shield".to_owned(), line.clone()));
        not_taken::set(held.chain(servers).chain(prefixes).collect());
    }

    fn send_set(&mut self) {
        let new = self.pause.in_force(self.reloader.set());
        let old = std::mem::replace(&mut *lock(&self.set), Arc::clone(&new));
        if !Arc::ptr_eq(&old, &new) {
            self.previous.push(old);
            // Before any worker answers under the new set: no program may give an old answer after a new one.
            program::show_policy(&new);
        }
        for inbox in self.inboxes {
            inbox.send_policy(Arc::<PolicySet>::clone(&new));
        }
    }

    /// Pauses lists as `wanted`, and returns once every worker has left the set with them; `None` changes nothing. Returns the
    /// current pauses.
    fn pause_lists(&mut self, wanted: Option<PauseRequest>) -> Result<Vec<PauseState>, String> {
        let now = clock::now();
        if let Some(PauseRequest { length, client }) = wanted {
            let was_on = self.pause.is_on();
            self.pause.begin(now, length, client)?;
            if !was_on {
                // All workers have to leave the set in force, while the reloader keeps its own.
                self.reloader.renew();
            }
            let state = PauseState {
                client,
                secs: length.as_secs(),
            };
            info!("{state}");
            self.send_set();
            self.wait_taken();
        }
        Ok(self.pause.state(now))
    }

    fn filter_again(&mut self) {
        match self.pause.is_on() {
            false => info!("lists are in force again"),
            true => info!("lists are in force again for some clients"),
        }
        self.send_set();
        self.wait_taken();
    }

    /// Waits, up to [`TAKEN_MAX`], until no worker serves under an earlier set. True if none does.
    fn wait_taken(&mut self) -> bool {
        let deadline = std::time::Instant::now() + TAKEN_MAX;
        loop {
            self.sweep();
            let is_taken = self.previous.is_empty();
            if is_taken || std::time::Instant::now() >= deadline {
                return is_taken;
            }
            thread::sleep(TAKEN_PAUSE);
        }
    }

    /// Frees the sets that have no other holder, and removes answers that none but those may give.
    fn sweep(&mut self) {
        self.previous.retain(|set| Arc::strong_count(set) > 1);
        if self.previous.is_empty() {
            self.forget.take().carry_out();
        }
    }
}

/// Checks that the next start will take the capacities of this config.
fn can_start(config: &Config) -> Result<(), String> {
    let fault = memory::fault(config).map(|fault| fault.to_string());
    fault.map_or(Ok(()), Err)?;
    memory_limits::check(Capacities::of(config).budget() as u64)
}

/// Wall-clock time in seconds, for the end of leases.
fn wall_secs() -> Option<i64> {
    clock::own_wall_secs().map(u64::cast_signed)
}

#[cfg(test)]
mod tests;
