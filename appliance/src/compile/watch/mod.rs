//! Watches files that others write: hosts files, lease files, lists.
//!
//! The watch is on the folder of a file, because most writers replace the file. For a missing file, it is on the nearest
//! existing folder. For a path through symbolic links, it is on each link's folder.
//!
//! inotify has limits, and all accounts of the machine share some of them. Files that it has no room for are polled. It does
//! not report mounts over a folder or a file: after a mount each path is compared with where it led before.

mod debounce;
mod mounts;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use xdnsd_core::time::Instant;

use crate::text;

pub use debounce::{Changes, LIVE_PATIENCE_MS};
use mounts::Mounts;

/// Period of polling, in milliseconds.
const LOOK_MS: u64 = 2_000;
/// Period of attempts to use inotify again, in milliseconds.
const ASK_AGAIN_MS: u64 = 60_000;
/// Maximum number of links followed for one path: as in the kernel (path_resolution(7)).
const LINKS_MAX: usize = 40;

/// Parts of policy that use a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileUsers {
    /// Local data: a hosts file, or leases.
    pub local: bool,
    /// The image of names that are blocked.
    pub lists: bool,
    /// Whom to ask: files that name upstream servers.
    pub servers: bool,
}

impl FileUsers {
    /// All parts.
    pub const ALL: Self = Self {
        local: true,
        lists: true,
        servers: true,
    };
    const NONE: Self = Self {
        local: false,
        lists: false,
        servers: false,
    };
    /// Local data.
    pub const LOCAL: Self = Self {
        local: true,
        ..Self::NONE
    };
    /// Blocklists.
    pub const LISTS: Self = Self {
        lists: true,
        ..Self::NONE
    };
    /// Upstream servers.
    pub const SERVERS: Self = Self {
        servers: true,
        ..Self::NONE
    };

    /// True if there is any.
    #[must_use]
    pub const fn any(self) -> bool {
        self.local || self.lists || self.servers
    }

    /// Union of both.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self {
            local: self.local || other.local,
            lists: self.lists || other.lists,
            servers: self.servers || other.servers,
        }
    }
}

/// How a file is written, which determines how long its writer is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// As a whole, now and then: hosts files, lists. An incomplete one is useless.
    Whole,
    /// A line at a time, by a program that may never close it: leases.
    Live,
}

/// A file, or a folder of files, that is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// Path.
    pub path: PathBuf,
    /// Its users.
    pub users: FileUsers,
    /// How it is written.
    pub pace: Pace,
}

/// What happened to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FileEvent {
    /// It was written to, and its writer has it open.
    Written,
    /// It was made, or its writer has closed it.
    Closed,
    /// Another file has its name, or none has.
    Replaced,
    /// It differs from the last look.
    Seen,
}

/// A change of a file.
#[derive(Clone, Debug)]
pub struct Change {
    /// Users of the file.
    pub users: FileUsers,
    pace: Pace,
    what: FileEvent,
    /// Identifies the file.
    file: u64,
}

/// Events in one folder that are of interest.
#[derive(Debug)]
struct Interest {
    folder: PathBuf,
    /// Name in the folder; `None`: every file.
    name: Option<OsString>,
    users: FileUsers,
    pace: Pace,
}

/// Watches all files of policy.
#[derive(Debug)]
pub struct Watcher {
    watched: Vec<Watched>,
    /// `None` if the kernel gives none.
    inotify: Option<Inotify>,
    interests: HashMap<WatchDescriptor, Vec<Interest>>,
    /// Mount table; below, where each of `watched` led at the last look.
    mounts: Mounts,
    grounds: Vec<u64>,
    /// Indices in `watched` that are polled, with their last state.
    by_time: HashMap<usize, u64>,
    /// When they are polled next; below, when inotify is tried again. `None` if not scheduled.
    look_at: Option<Instant>,
    ask_at: Option<Instant>,
    /// A problem that was not reported yet.
    trouble: Option<String>,
    is_told: bool,
}

impl Watcher {
    /// Watches files or folders of files. Those that inotify has no room for are polled.
    #[must_use]
    pub fn new(watched: Vec<Watched>) -> Self {
        let mut watcher = Self {
            watched,
            inotify: None,
            interests: HashMap::new(),
            mounts: Mounts::open(),
            grounds: Vec::new(),
            by_time: HashMap::new(),
            look_at: None,
            ask_at: None,
            trouble: None,
            is_told: false,
        };
        watcher.arm();
        watcher
    }

    /// What is watched.
    #[must_use]
    pub fn watched(&self) -> &[Watched] {
        &self.watched
    }

    /// Takes the problem with inotify, which is reported once.
    pub fn take_trouble(&mut self) -> Option<String> {
        self.trouble.take()
    }

    /// Changes since the last call. Does not wait.
    pub fn changes(&mut self, now: Instant) -> Vec<Change> {
        let mut changes = self.events();
        if self.mounts.have_changed() {
            changes.extend(self.moved());
        }
        if self.by_time.is_empty() {
            (self.look_at, self.ask_at) = (None, None);
        } else {
            changes.extend(self.look(now));
            let is_time = now >= *self.ask_at.get_or_insert(now + ASK_AGAIN_MS);
            if is_time {
                self.ask_at = None;
                self.arm();
            }
        }
        if !changes.is_empty() {
            // A folder or a link may have been made, replaced or removed.
            self.arm();
        }
        changes
    }

    /// When to call [`Self::changes`] even without an event.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let is_new = || (!self.by_time.is_empty()).then_some(Instant::from_millis(0));
        self.look_at.or_else(is_new)
    }

    fn events(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        let Some(inotify) = &self.inotify else {
            return changes;
        };
        // Bounded: each round takes all queued events, and the kernel's queue is bounded.
        loop {
            match inotify.read_events() {
                Ok(events) => events
                    .iter()
                    .for_each(|event| self.note(event, &mut changes)),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return changes,
                Err(_) => {
                    // Events were lost: all files count as changed.
                    changes.extend(
                        self.watched
                            .iter()
                            .map(|watched| lost(watched, FileEvent::Closed)),
                    );
                    return changes;
                }
            }
        }
    }

    fn note(&self, event: &InotifyEvent, changes: &mut Vec<Change>) {
        if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
            changes.extend(
                self.watched
                    .iter()
                    .map(|watched| lost(watched, FileEvent::Closed)),
            );
            return;
        }
        let interests = self.interests.get(&event.wd).map(Vec::as_slice);
        let is_meant = |interest: &&Interest| match (&interest.name, &event.name) {
            (Some(wanted), Some(name)) => wanted == name,
            // The folder itself was removed or renamed, or every file in it counts.
            (_, None) | (None, _) => true,
        };
        for interest in interests.unwrap_or_default().iter().filter(is_meant) {
            let name = event.name.as_deref().unwrap_or(OsStr::new(""));
            changes.push(Change {
                users: interest.users,
                pace: interest.pace,
                what: what(event.mask),
                file: hash_of(interest.folder.join(name).as_path()),
            });
        }
    }

    /// Paths that lead to another file or folder than before.
    fn moved(&self) -> Vec<Change> {
        let pairs = self.watched.iter().zip(&self.grounds);
        let moved = pairs.filter(|(watched, before)| ground(&watched.path) != **before);
        moved
            .map(|(watched, _)| lost(watched, FileEvent::Replaced))
            .collect()
    }

    /// Polls files without inotify, if due.
    fn look(&mut self, now: Instant) -> Vec<Change> {
        if self.look_at.is_some_and(|at| now < at) {
            return Vec::new();
        }
        self.look_at = Some(now + LOOK_MS);
        let mut changes = Vec::new();
        for (&index, seen) in &mut self.by_time {
            let now = sight(&self.watched[index].path);
            if now != *seen {
                *seen = now;
                changes.push(lost(&self.watched[index], FileEvent::Seen));
            }
        }
        changes
    }

    /// Watches every path's folders in the current file system. Existing watches stay.
    fn arm(&mut self) {
        let mut trouble = None;
        if self.inotify.is_none() {
            let flags = InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC;
            let made = Inotify::init(flags).map_err(|error| trouble = Some(error));
            self.inotify = made.ok();
        }
        let mut interests: HashMap<WatchDescriptor, Vec<Interest>> = HashMap::new();
        let mut by_time = HashMap::new();
        for (index, watched) in self.watched.iter().enumerate() {
            let armed = self.inotify.as_ref().ok_or(Errno::EMFILE);
            let armed = armed.and_then(|inotify| arm(inotify, watched, &mut interests));
            if let Err(error) = armed {
                trouble = trouble.or(Some(error));
                let seen = self.by_time.get(&index).copied();
                by_time.insert(index, seen.unwrap_or_else(|| sight(&watched.path)));
            }
        }
        let unused = |watch: &&WatchDescriptor| !interests.contains_key(*watch);
        for gone in self.interests.keys().filter(unused) {
            // EINVAL: the folder was deleted, and its watch with it.
            let _ = self.inotify.as_ref().map(|inotify| inotify.rm_watch(*gone));
        }
        (self.interests, self.by_time) = (interests, by_time);
        let watched = self.watched.iter();
        self.grounds = watched.map(|watched| ground(&watched.path)).collect();
        self.tell(trouble);
    }

    fn tell(&mut self, trouble: Option<Errno>) {
        let files = self.by_time.len();
        if let Some(error) = trouble.filter(|_| files > 0 && !self.is_told) {
            let every = LOOK_MS / 1000;
            self.trouble = Some(format!(
                "{}; looked at every {every} s instead: {}; the limits are fs.inotify in sysctl",
                error.desc(),
                text::count(files, "file")
            ));
        }
        self.is_told = files > 0;
    }

    /// Readable after an event in a watched folder.
    #[must_use]
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.inotify.as_ref().map(AsFd::as_fd)
    }
}

/// A change of unknown details.
fn lost(watched: &Watched, what: FileEvent) -> Change {
    Change {
        users: watched.users,
        pace: watched.pace,
        what,
        file: hash_of(watched.path.as_path()),
    }
}

fn what(mask: AddWatchFlags) -> FileEvent {
    if mask.contains(AddWatchFlags::IN_MODIFY) {
        FileEvent::Written
    } else if mask.intersects(AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_CREATE) {
        FileEvent::Closed
    } else {
        FileEvent::Replaced
    }
}

/// True if a file is one of `files`, by the identifiers of [`Changes`].
#[must_use]
pub fn is_among(path: &Path, files: &HashSet<u64>) -> bool {
    let is_one = |file: &Path| files.contains(&hash_of(file));
    let behind =
        |(folder, name): (PathBuf, Option<OsString>)| folder.join(name.unwrap_or_default());
    !files.is_empty()
        && (is_one(path)
            || places(path)
                .into_iter()
                .map(behind)
                .any(|file| is_one(&file)))
}

fn hash_of(value: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// State of a file, or of a folder with its files, as a hash: it differs when any of them changes.
fn sight(path: &Path) -> u64 {
    let of = |path: &Path| {
        fs::metadata(path).ok().map(|found| {
            let times = (
                found.mtime(),
                found.mtime_nsec(),
                found.ctime(),
                found.ctime_nsec(),
            );
            (found.dev(), found.ino(), found.len(), found.mode(), times)
        })
    };
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries
        .map(|entry| (entry.file_name(), of(&entry.path())))
        .collect();
    files.sort();
    hash_of(&(of(path), files))
}

/// Where a path leads, as a hash: it differs when one of the folders on its way, or its end, is replaced.
fn ground(path: &Path) -> u64 {
    let of = |path: &Path| {
        fs::metadata(path)
            .ok()
            .map(|found| (found.dev(), found.ino()))
    };
    let folders: Vec<_> = places(path).iter().map(|(folder, _)| of(folder)).collect();
    hash_of(&(of(path), folders))
}

/// Watches the folders of one path.
fn arm(
    inotify: &Inotify,
    watched: &Watched,
    interests: &mut HashMap<WatchDescriptor, Vec<Interest>>,
) -> nix::Result<()> {
    for (folder, name) in places(&watched.path) {
        if let Some(watch) = add_watch(inotify, &folder)? {
            interests.entry(watch).or_default().push(Interest {
                folder,
                name,
                users: watched.users,
                pace: watched.pace,
            });
        }
    }
    Ok(())
}

/// Watches a folder; `None` if it was removed meanwhile.
fn add_watch(inotify: &Inotify, folder: &Path) -> nix::Result<Option<WatchDescriptor>> {
    // dnsmasq never closes its lease file: only IN_MODIFY shows its writes. IN_ATTRIB: a file may have become readable.
    let flags = AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_MODIFY
        | AddWatchFlags::IN_ATTRIB
        | AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_MOVE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_DELETE_SELF
        | AddWatchFlags::IN_MOVE_SELF
        | AddWatchFlags::IN_ONLYDIR;
    match inotify.add_watch(folder, flags) {
        Ok(watch) => Ok(Some(watch)),
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::EACCES) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Folders in which an event may affect `path`, with the name in each: that of each symbolic link on the way, and that of the
/// file, or the nearest existing one; also the path itself if it is a folder.
fn places(path: &Path) -> Vec<(PathBuf, Option<OsString>)> {
    let mut places = Vec::new();
    if path.is_dir() {
        places.push((path.to_path_buf(), None));
    }
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let mut at = PathBuf::from("/");
    let mut rest = names(&path);
    let mut links = 0;
    while let Some(name) = rest.pop_front() {
        if name == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&name);
        let kind = fs::symlink_metadata(&next).map(|found| found.file_type());
        if kind.as_ref().is_ok_and(|kind| kind.is_dir()) && !rest.is_empty() {
            at = next;
            continue;
        }
        places.push((at.clone(), Some(name)));
        let is_link = kind.is_ok_and(|kind| kind.is_symlink());
        let target = fs::read_link(&next)
            .ok()
            .filter(|_| is_link && links < LINKS_MAX);
        let Some(target) = target else {
            break;
        };
        links += 1;
        if target.is_absolute() {
            at = PathBuf::from("/");
        }
        let behind = std::mem::replace(&mut rest, names(&target));
        rest.extend(behind);
    }
    places
}

/// Components of a path, in order.
fn names(path: &Path) -> VecDeque<OsString> {
    let name = |component: Component<'_>| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
    };
    path.components().filter_map(name).collect()
}
