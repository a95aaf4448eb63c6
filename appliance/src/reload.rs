//! Policy while the daemon runs: files that change, SIGHUP, `xdnsd reload`. Workers get a new set between two turns; no
//! query waits for it.

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use log::{info, warn};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use xdnsd_core::forward::upstreams::UpstreamConfig;
use xdnsd_core::policy::on_link::Network;
use xdnsd_core::time::Instant;

use crate::cache::CACHE;
use crate::clock;
use crate::config::{Config, Devices, Plan, Server};
use crate::policy::Notes;
use crate::policy::keeper::{Keeper, Update};
use crate::policy::set::{PolicyInput, PolicySet};
use crate::worker::Mailbox;

/// Lines of the log that one update may take.
const NOTES_MAX: usize = 8;
/// What a reload has done.
const RELOADED: &str = "reloaded: local data, lists, upstream servers, routes, access and log; other keys hold from the next \
                        start on";

/// How long whoever asks for a reload waits for its result.
pub const PATIENCE: Duration = Duration::from_secs(55);

/// What came of a reload: what was read and what was passed over, or why all stays as it was; a line each.
pub type Outcome = Result<Vec<String>, Vec<String>>;

/// Asks the main thread to reload.
#[derive(Clone, Debug)]
pub struct Requester(Sender<Sender<Outcome>>);

impl Requester {
    /// For tests without a main thread.
    #[cfg(test)]
    pub fn to_nobody() -> Self {
        Self(mpsc::channel().0)
    }

    /// Has the config and its files read again, and waits for the result.
    ///
    /// # Errors
    /// The config was refused, or there was no result in time.
    pub fn reload(&self) -> Outcome {
        let ended = |_| vec!["the main thread has ended".to_owned()];
        let (reply, outcome) = mpsc::channel();
        self.0.send(reply).map_err(ended)?;
        // The main thread waits for signals and files.
        kill(Pid::this(), Signal::SIGHUP).map_err(|errno| vec![format!("kill: {errno}")])?;
        outcome.recv_timeout(PATIENCE).unwrap_or_else(|_| {
            let secs = PATIENCE.as_secs();
            Err(vec![format!(
                "still reading after {secs} s; the log will say what came of it"
            )])
        })
    }
}

/// Keeps the workers' policy up to date. Belongs to the main thread.
pub struct Reloader {
    path: PathBuf,
    /// The upstream groups, as the workers have them.
    groups: Groups,
    keeper: Keeper,
    /// Those who wait for the result of the next reload.
    requests: (Requester, Receiver<Sender<Outcome>>),
    /// Sets that were in force. Freed here when no worker serves under them any more, so that no worker has to.
    previous: Vec<Arc<PolicySet>>,
}

impl Reloader {
    /// Compiles the config's policy and watches its files. `path` is where the config is read anew; `plan` says which
    /// addresses this machine has.
    ///
    /// # Errors
    /// The policy of the config is wrong.
    pub fn start(path: PathBuf, config: &Config, plan: &Plan) -> Result<Self, String> {
        let servers = config.servers(plan);
        let (keeper, update) = start_keeper(config, servers, &plan.unfit_sources, &plan.on_link)?;
        say(&update.notes);
        Ok(Self {
            path,
            groups: Groups::of(config, plan),
            keeper,
            requests: {
                let (requests, inbox) = mpsc::channel();
                (Requester(requests), inbox)
            },
            previous: Vec::new(),
        })
    }

    /// A way to ask for a reload from another thread.
    #[must_use]
    pub fn requester(&self) -> Requester {
        self.requests.0.clone()
    }

    /// The set in force.
    #[must_use]
    pub fn set(&self) -> Arc<PolicySet> {
        self.keeper.set()
    }

    /// How many milliseconds there is nothing to do unless a file changes.
    #[must_use]
    pub fn wait_ms(&self, now: Instant) -> Option<u64> {
        let deadline = self.keeper.deadline()?;
        Some(deadline.millis_since(now))
    }

    /// Follows files that changed, and the addresses of this machine where there is a new `plan`.
    pub fn tend(&mut self, plan: Option<&Plan>, mailboxes: &[Mailbox]) {
        if let Some(plan) = plan {
            self.follow_addresses(plan, mailboxes);
        }
        let now = clock::now();
        if let Err(problem) = self.keeper.take_events(now) {
            warn!("{problem}");
        }
        let before = self.keeper.set();
        if let Some(update) = self.keeper.update_if_due(now, wall_secs()) {
            self.retire(before);
            hand_out(update, mailboxes);
        }
    }

    fn load(&self) -> Result<(Config, Groups, Keeper, Update), String> {
        let config = Config::load(&self.path).map_err(|errors| errors.to_string())?;
        let devices = Devices::read().map_err(|error| error.to_string())?;
        let groups = match config.plan(&devices) {
            Ok(plan) => Groups::of(&config, &plan),
            // An interface may be away for the moment, which changes nothing about the same servers.
            Err(_) if config.group_servers() == self.groups.texts => self.groups.clone(),
            Err(errors) => return Err(errors.to_string()),
        };
        let (unfit_sources, on_link) = (self.keeper.unfit_sources(), self.keeper.on_link());
        let servers = groups.servers.clone();
        let (keeper, update) = start_keeper(&config, servers, unfit_sources, on_link)?;
        Ok((config, groups, keeper, update))
    }

    fn follow_addresses(&mut self, plan: &Plan, mailboxes: &[Mailbox]) {
        let (unfit_sources, on_link) = (&plan.unfit_sources, &plan.on_link);
        if unfit_sources == self.keeper.unfit_sources() && on_link == self.keeper.on_link() {
            return;
        }
        self.retire(self.keeper.set());
        let set = self
            .keeper
            .set_addresses(unfit_sources.clone(), on_link.clone());
        post(&set, mailboxes);
    }

    /// Keeps a set until nobody else does.
    fn retire(&mut self, set: Arc<PolicySet>) {
        self.previous.retain(|set| Arc::strong_count(set) > 1);
        self.previous.push(set);
    }

    /// Reads the config and all its files again, and tells those who asked for it. A fault changes nothing.
    pub fn reload(&mut self, mailboxes: &[Mailbox]) {
        // Whoever comes later has sent another signal.
        let waiting: Vec<_> = self.requests.1.try_iter().collect();
        let outcome = self.reload_once(mailboxes);
        for reply in waiting {
            // It may have gone.
            let _ = reply.send(outcome.clone());
        }
    }

    fn reload_once(&mut self, mailboxes: &[Mailbox]) -> Outcome {
        match self.load() {
            Ok((config, groups, keeper, update)) => {
                config.set_log();
                let told = in_words(&update.notes);
                self.retire(self.keeper.set());
                self.keeper = keeper;
                hand_out(update, mailboxes);
                if !groups.continue_those_of(&self.groups) {
                    // What is cached names its group by number.
                    CACHE.clear();
                }
                self.groups = groups;
                info!("{RELOADED}");
                Ok(told.into_iter().chain([RELOADED.to_owned()]).collect())
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
}

/// The upstream groups of a config, by their numbers.
#[derive(Clone)]
struct Groups {
    names: Vec<String>,
    /// As the config has them.
    texts: Vec<Vec<Server>>,
    /// As the workers have them.
    servers: Vec<UpstreamConfig>,
}

impl Groups {
    fn of(config: &Config, plan: &Plan) -> Self {
        Self {
            names: config.group_names(),
            texts: config.group_servers(),
            servers: config.servers(plan),
        }
    }

    /// Whether each number means the group that it meant.
    fn continue_those_of(&self, earlier: &Self) -> bool {
        let pairs = self.names.iter().zip(&earlier.names);
        pairs.into_iter().all(|(name, before)| name == before)
    }
}

impl AsFd for Reloader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.keeper.as_fd()
    }
}

/// Gives every worker the new set.
fn hand_out(update: Update, mailboxes: &[Mailbox]) {
    say(&update.notes);
    if let Some(set) = update.set {
        post(&set, mailboxes);
    }
}

fn post(set: &Arc<PolicySet>, mailboxes: &[Mailbox]) {
    for mailbox in mailboxes {
        mailbox.post_policy(Arc::<PolicySet>::clone(set));
    }
}

fn start_keeper(
    config: &Config,
    servers: Vec<UpstreamConfig>,
    unfit_sources: &[IpAddr],
    on_link: &[Network],
) -> Result<(Keeper, Update), String> {
    let input = PolicyInput {
        servers,
        unfit_sources: unfit_sources.to_vec(),
        on_link: on_link.to_vec(),
        ..config.policy()
    };
    Keeper::start(input, wall_secs()).map_err(|problem| problem.to_string())
}

/// What was read and what was passed over, a line each.
fn in_words(notes: &Notes) -> Vec<String> {
    let problems = notes.failures.iter().chain(&notes.first);
    let problems = problems
        .take(NOTES_MAX)
        .chain(notes.refusals.iter().take(NOTES_MAX))
        .map(|problem| format!("note: {problem}"));
    notes
        .told
        .iter()
        .take(NOTES_MAX)
        .cloned()
        .chain(problems)
        .collect()
}

fn say(notes: &Notes) {
    for told in notes.told.iter().take(NOTES_MAX) {
        info!("{told}");
    }
    let problems = notes.failures.iter().chain(&notes.first);
    for problem in problems.take(NOTES_MAX) {
        warn!("{problem}");
    }
    for refusal in notes.refusals.iter().take(NOTES_MAX) {
        warn!("{refusal}");
    }
    if notes.count > NOTES_MAX {
        warn!("{} lines were passed over in all", notes.count);
    }
}

/// The wall clock for the end of leases.
fn wall_secs() -> Option<i64> {
    clock::own_wall_secs().map(u64::cast_signed)
}
