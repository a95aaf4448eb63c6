//! Keeps policy up to date: reads changed files, and keeps the set in force if the new one is wrong.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use xdnsd_core::forward::upstreams::UpstreamConfig;
use xdnsd_core::time::Instant;

use super::local::LeaseFile;
use super::problem::{LoggedProblems, Notes, Problem};
use super::set::{Links, PolicyInput, PolicySet, Taking};
use super::watch::{Changes, FileUsers, LIVE_PATIENCE_MS, Pace, Watched, Watcher};
use crate::os::files::{self, Stamp};

/// Result of reading files again.
#[derive(Debug)]
pub struct Update {
    /// New set in force. `None` if the previous one stays.
    pub set: Option<Arc<PolicySet>>,
    /// What was skipped, with file and line; and the files that failed. After a start their names are missing until they can be
    /// read; later, the part that depends on them stays as it was.
    pub notes: Notes,
}

/// Files that were read, with their numbers of rules.
type Loaded = HashMap<String, usize>;

/// The set in force and its inputs. Belongs to one thread, which waits for its file descriptor and its deadline.
#[derive(Debug)]
pub struct PolicyReloader {
    input: PolicyInput,
    set: Arc<PolicySet>,
    watcher: Watcher,
    local_changes: Changes,
    list_changes: Changes,
    server_changes: Changes,
    /// Files of local data in the set in force.
    local_loaded: Loaded,
    /// Lists that lost rules and may still be written: their state, and since when they have it.
    smaller: HashMap<(PathBuf, Stamp), Instant>,
    /// Problems of files of local data, and of lists: their last good contents stay in force.
    held: [Vec<Problem>; 2],
    /// See [`Notes::last_good`].
    last_good: HashMap<String, String>,
    /// Warnings that were logged about files that other accounts may write to.
    doubts: HashSet<Problem>,
    /// End of the first of the leases in force, in seconds of the Unix epoch.
    next_end_secs: Option<i64>,
    /// Problems of local data that were logged.
    said: LoggedProblems,
    /// Problems of lists that were logged.
    lists_said: LoggedProblems,
    /// True if the machine's addresses differ from those that the leases in force were compared with.
    has_moved: bool,
    /// True while an empty lease file is waited for.
    waits_for_leases: bool,
}

impl PolicyReloader {
    /// The policy of the config alone, without any file, so that its errors show at once.
    ///
    /// # Errors
    /// The config itself is wrong.
    pub fn new(input: PolicyInput) -> Result<Self, Problem> {
        let set = Arc::new(PolicySet::build_fixed(&input)?);
        Ok(Self {
            // Watched before they are read, so that a change in between is read again.
            watcher: Watcher::new(files(&input)),
            input,
            set,
            local_changes: Changes::default(),
            list_changes: Changes::default(),
            server_changes: Changes::default(),
            local_loaded: Loaded::new(),
            smaller: HashMap::new(),
            held: [Vec::new(), Vec::new()],
            last_good: HashMap::new(),
            doubts: HashSet::new(),
            next_end_secs: None,
            said: LoggedProblems::default(),
            lists_said: LoggedProblems::default(),
            has_moved: false,
            waits_for_leases: false,
        })
    }

    /// Reads all files and watches them. A file that cannot be read does not keep a router from starting: its part is empty
    /// until it can, and the update says so.
    ///
    /// # Errors
    /// The config itself is wrong.
    pub fn start(input: PolicyInput, now_secs: Option<i64>) -> Result<(Self, Update), Problem> {
        let mut reloader = Self::new(input)?;
        let update = reloader.read_all(now_secs);
        Ok((reloader, update))
    }

    /// Reads all files at once.
    pub fn read_all(&mut self, now_secs: Option<i64>) -> Update {
        self.rebuild(FileUsers::ALL, &asked(), now_secs)
    }

    /// The set in force.
    #[must_use]
    pub fn set(&self) -> Arc<PolicySet> {
        Arc::clone(&self.set)
    }

    /// Gives the set in force another generation, in a new object; holders keep the old one.
    pub fn renew(&mut self) {
        self.set = Arc::new(self.set.renewed());
    }

    /// Takes events of changed files. To be called when the file descriptor is readable, and at the deadline.
    pub fn take_events(&mut self, now: Instant) {
        for change in self.watcher.changes(now) {
            if change.users.local {
                self.local_changes.note(now, &change);
            }
            if change.users.lists {
                self.list_changes.note(now, &change);
            }
            if change.users.servers {
                self.server_changes.note(now, &change);
            }
        }
    }

    /// When [`Self::take_events`] and [`Self::update_if_due`] have something to do. `None`: after the next event.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let debounces = [
            &self.local_changes,
            &self.list_changes,
            &self.server_changes,
        ];
        let deadlines = debounces.into_iter().filter_map(Changes::deadline);
        deadlines.chain(self.watcher.deadline()).min()
    }

    /// Reads changed files once their writers have had the time to finish, and leases when one has ended. `None` if nothing is
    /// due. To be called about once a second.
    pub fn update_if_due(&mut self, now: Instant, now_secs: Option<i64>) -> Option<Update> {
        let ends = self.next_end_secs.zip(now_secs);
        let has_ended = ends.is_some_and(|(end_secs, now_secs)| end_secs < now_secs);
        let due = FileUsers {
            local: self.take_local_due(now) || has_ended || std::mem::take(&mut self.has_moved),
            lists: self.list_changes.take_due(now),
            servers: false,
        };
        if !due.any() {
            return None;
        }
        let quiet = self
            .smaller
            .iter()
            .filter(|(_, since)| **since + SETTLED_MS <= now);
        let taking = Taking {
            is_asked: false,
            settled: quiet.map(|(state, _)| state.clone()).collect(),
        };
        let update = self.rebuild(due, &taking, now_secs);
        if due.lists {
            self.look_again_at(&update.notes.smaller, now);
        }
        Some(update)
    }

    /// Whether a file that names upstream servers has changed, and its writer has had the time to finish.
    pub fn take_servers_due(&mut self, now: Instant) -> bool {
        self.server_changes.take_due(now)
    }

    /// Schedules another look at lists that lost rules, when they may have settled.
    fn look_again_at(&mut self, smaller: &[(PathBuf, Stamp)], now: Instant) {
        let known = std::mem::take(&mut self.smaller);
        let since = |state| known.get(state).copied().unwrap_or(now);
        let smaller = smaller.iter().map(|state| (state.clone(), since(state)));
        self.smaller = smaller.collect();
        if let Some(first) = self.smaller.values().min() {
            let at = *first + SETTLED_MS;
            self.list_changes.look_again(now, at.millis_since(now));
        }
    }

    /// Problems of files whose last good contents stay in force until they are solved.
    pub fn held(&self) -> impl Iterator<Item = &Problem> {
        self.held.iter().flatten()
    }

    /// True if local data is to be read. dnsmasq empties its lease file before it writes it, and may wait for the disk in
    /// between.
    fn take_local_due(&mut self, now: Instant) -> bool {
        let is_due = self.local_changes.take_due(now);
        if is_due && !self.waits_for_leases && self.has_emptied_leases() {
            self.local_changes.look_again(now, LIVE_PATIENCE_MS);
            self.waits_for_leases = true;
            return false;
        }
        self.waits_for_leases &= !is_due;
        is_due
    }

    /// True if a lease file is empty now and was not when it was last read.
    fn has_emptied_leases(&self) -> bool {
        self.input
            .local
            .leases
            .iter()
            .any(|LeaseFile { path, .. }| {
                let before = self.last_good.get(&path.display().to_string());
                before.is_some_and(|text| !text.is_empty())
                    && fs::metadata(path).is_ok_and(|found| found.len() == 0)
            })
    }

    /// Inputs of the set.
    #[must_use]
    pub const fn input(&self) -> &PolicyInput {
        &self.input
    }

    /// Latest facts about clients from the machine's devices.
    #[must_use]
    pub fn links(&self) -> &Links {
        &self.input.links
    }

    /// Takes over the machine's current addresses.
    pub fn set_addresses(&mut self, servers: Vec<UpstreamConfig>, links: Links) -> Arc<PolicySet> {
        // No client may have one of our own addresses.
        let before = &self.input.links;
        let is_other = links.martian_sources != before.martian_sources
            || links.own_addresses != before.own_addresses;
        self.has_moved |= self.has_leases() && is_other;
        self.input.servers = servers;
        self.input.links = links;
        self.set = Arc::new(self.set.with_addresses(&self.input));
        self.set()
    }

    /// Takes over another config and reads all files again at once. If a file could be read before and cannot now, its part,
    /// local data or lists, stays as it was.
    ///
    /// # Errors
    /// The config itself is wrong; nothing has changed.
    pub fn reload(&mut self, input: PolicyInput, now_secs: Option<i64>) -> Result<Update, Problem> {
        let fixed = PolicySet::build_fixed(&input)?;
        let fixed = fixed.with_files_of(&self.set, &input)?;
        let watched = files(&input);
        if watched != self.watcher.watched() {
            self.watcher = Watcher::new(watched);
        }
        self.input = input;
        // The client that asked gets all problems, logged or not.
        self.said = LoggedProblems::default();
        self.lists_said = LoggedProblems::default();
        self.set = Arc::new(fixed);
        let mut update = self.rebuild(FileUsers::ALL, &asked(), now_secs);
        update.set = Some(self.set());
        Ok(update)
    }

    fn has_leases(&self) -> bool {
        !self.input.local.leases.is_empty()
    }

    fn rebuild(&mut self, changed: FileUsers, taking: &Taking, now_secs: Option<i64>) -> Update {
        let before = Arc::clone(&self.set);
        let mut notes = Notes::default();
        if changed.lists {
            notes.merge(self.rebuild_lists(taking));
        }
        // A lease does not get a name that a list blocks.
        if changed.local || changed.lists && self.has_leases() {
            notes.merge(self.rebuild_local(taking, now_secs));
        }
        self.note_doubts(&mut notes);
        let trouble = self.watcher.take_trouble();
        notes
            .doubts
            .extend(trouble.map(|what| Problem::of("inotify", what)));
        let is_new = !Arc::ptr_eq(&before, &self.set);
        Update {
            set: is_new.then(|| self.set()),
            notes,
        }
    }

    fn rebuild_lists(&mut self, taking: &Taking) -> Notes {
        let mut notes = Notes {
            busy: busy(&self.list_changes, taking),
            ..Notes::default()
        };
        for path in self.input.lists.files() {
            let state = fs::metadata(path).ok();
            notes.stamp(path, state.map(|found| Stamp::of(&found)));
        }
        let built = self.set.with_lists(&self.input, taking, &mut notes);
        if let Some(set) = notes.or_fail(built) {
            // If no file could be taken, all stays as it was, except for what the config itself says.
            if taking.is_asked || !notes.loaded.is_empty() {
                self.set = Arc::new(set);
            }
        }
        let [_, held] = &mut self.held;
        held.clone_from(&notes.failures);
        self.lists_said.leave_new(&mut notes);
        notes
    }

    fn rebuild_local(&mut self, taking: &Taking, now_secs: Option<i64>) -> Notes {
        let mut notes = Notes {
            busy: busy(&self.local_changes, taking),
            last_good: std::mem::take(&mut self.last_good),
            ..Notes::default()
        };
        let built = self.set.with_local(&self.input, now_secs, &mut notes);
        self.next_end_secs = notes.next_end_secs;
        if let Some(set) = accept(built, &mut notes, &mut self.local_loaded) {
            self.set = Arc::new(set);
        }
        self.last_good = std::mem::take(&mut notes.last_good);
        self.last_good
            .retain(|place, _| self.local_loaded.contains_key(place));
        let [held, _] = &mut self.held;
        held.clone_from(&notes.failures);
        self.said.leave_new(&mut notes);
        notes
    }

    /// Logs once which files other accounts than root and the daemon's may write to.
    fn note_doubts(&mut self, notes: &mut Notes) {
        let leases: HashSet<&Path> = self
            .input
            .local
            .leases
            .iter()
            .map(|lease| lease.path.as_path())
            .collect();
        let doubt = |watched: &Watched| {
            let doubt = files::doubt(&watched.path, !leases.contains(watched.path.as_path()))?;
            Some(Problem::of(watched.path.display().to_string(), doubt))
        };
        let doubts: HashSet<Problem> = self.watcher.watched().iter().filter_map(doubt).collect();
        notes
            .doubts
            .extend(doubts.difference(&self.doubts).cloned());
        self.doubts = doubts;
    }

    /// Readable when [`PolicyReloader::take_events`] has something to take.
    #[must_use]
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.watcher.descriptor()
    }
}

/// Time without a write after which a list that lost rules is taken, in milliseconds: a writer may open it for each part.
const SETTLED_MS: u64 = 10_000;

/// Files that may be incomplete. After a request, closed files count as finished.
fn busy(changes: &Changes, taking: &Taking) -> HashSet<u64> {
    if taking.is_asked {
        changes.open()
    } else {
        changes.unfinished()
    }
}

/// A reload was asked for: writers have finished.
fn asked() -> Taking {
    Taking {
        is_asked: true,
        ..Taking::default()
    }
}

/// Returns the new set, unless a file failed that the set in force has. A hosts or lease file whose last good text was used
/// does not count as failed, so that a new device gets its name all the same.
fn accept(
    built: Result<PolicySet, Problem>,
    notes: &mut Notes,
    loaded: &mut Loaded,
) -> Option<PolicySet> {
    let set = notes.or_fail(built)?;
    if notes.failures.iter().any(|failure| {
        let place = &failure.place;
        loaded.contains_key(place) && !notes.last_good.contains_key(place)
    }) {
        return None;
    }
    *loaded = notes.loaded.drain(..).collect();
    Some(set)
}

fn files(input: &PolicyInput) -> Vec<Watched> {
    let watched = |users, pace| {
        move |path: &PathBuf| Watched {
            path: path.clone(),
            users,
            pace,
        }
    };
    let local = &input.local;
    let hosts = local
        .hosts
        .iter()
        .map(watched(FileUsers::LOCAL, Pace::Whole));
    let leases = local.leases.iter().map(|lease| &lease.path);
    // A script of a DHCP client writes a line at a time, and opens it for each.
    let servers = input.server_files.iter();
    hosts
        .chain(leases.map(watched(FileUsers::LOCAL, Pace::Live)))
        .chain(
            input
                .lists
                .files()
                .map(watched(FileUsers::LISTS, Pace::Whole)),
        )
        .chain(servers.map(watched(FileUsers::SERVERS, Pace::Live)))
        .collect()
}

#[cfg(test)]
mod tests;
