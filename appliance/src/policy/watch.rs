//! Watches files that others write: hosts files, lease files, lists.
//!
//! What is watched is the folder that a file is in, because most writers put a new file in its place. A file that is not
//! there yet is waited for in the nearest folder that is. Of a path through symbolic links each link's folder is watched.
//!
//! inotify has limits, and all users of the machine share some of them. What it does not watch is looked at by time.

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

/// How often what inotify does not watch is looked at.
const LOOK_MS: u64 = 2_000;
/// How often inotify is asked again.
const ASK_AGAIN_MS: u64 = 60_000;
/// Links of one path that are followed: as many as the kernel follows (path_resolution(7)).
const LINKS_MAX: usize = 40;

/// What uses a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Users {
    /// Local data.
    pub local: bool,
    /// Blocklists.
    pub lists: bool,
}

impl Users {
    /// Everything that reads files.
    pub const ALL: Self = Self {
        local: true,
        lists: true,
    };
    /// Local data.
    pub const LOCAL: Self = Self {
        local: true,
        lists: false,
    };
    /// Blocklists.
    pub const LISTS: Self = Self {
        local: false,
        lists: true,
    };

    /// Whether there is any.
    #[must_use]
    pub const fn any(self) -> bool {
        self.local || self.lists
    }

    /// Either's.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self {
            local: self.local || other.local,
            lists: self.lists || other.lists,
        }
    }
}

/// How a file is written, and so how long its writer is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// As a whole, now and then: hosts files, lists. Half of one is worth nothing.
    Whole,
    /// A line at a time, by a program that need not ever close it: leases.
    Live,
}

/// A file, or a folder of files, that is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// Where it is.
    pub path: PathBuf,
    /// Whose it is.
    pub users: Users,
    /// How it is written.
    pub pace: Pace,
}

/// What happened to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// Something was written to it, and its writer has it open.
    Written,
    /// It was made, or its writer has closed it.
    Closed,
    /// Another file has its name, or none has.
    Replaced,
    /// It is not what it was when it was looked at before.
    Seen,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub struct Change {
    /// Who has to know.
    pub users: Users,
    pace: Pace,
    what: What,
    /// Tells one file from another.
    file: u64,
}

/// What is waited for in one folder.
#[derive(Debug)]
struct Interest {
    folder: PathBuf,
    /// `None`: every file.
    name: Option<OsString>,
    users: Users,
    pace: Pace,
}

/// Over all files of policy.
#[derive(Debug)]
pub struct Watcher {
    watched: Vec<Watched>,
    /// `None`: the kernel gives none.
    inotify: Option<Inotify>,
    interests: HashMap<WatchDescriptor, Vec<Interest>>,
    /// Which of `watched` are looked at by time, and what they looked like.
    by_time: HashMap<usize, u64>,
    /// When they are looked at next, and when inotify is asked again. `None`: not before.
    look_at: Option<Instant>,
    ask_at: Option<Instant>,
    /// What has not been told yet.
    trouble: Option<String>,
    is_told: bool,
}

impl Watcher {
    /// Watches files or folders of files. What inotify has no room for is looked at by time.
    #[must_use]
    pub fn new(watched: Vec<Watched>) -> Self {
        let mut watcher = Self {
            watched,
            inotify: None,
            interests: HashMap::new(),
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

    /// What stands in the way of inotify, once.
    pub fn take_trouble(&mut self) -> Option<String> {
        self.trouble.take()
    }

    /// What has changed since the last call. Does not wait.
    pub fn changes(&mut self, now: Instant) -> Vec<Change> {
        let mut changes = self.events();
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
            // A folder or a link may have come to be, been replaced or gone.
            self.arm();
        }
        changes
    }

    /// When to ask although there is no event.
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
        // Bound: events are added by others; each round takes all that were there, and a queue has a length.
        loop {
            match inotify.read_events() {
                Ok(events) => events
                    .iter()
                    .for_each(|event| self.note(event, &mut changes)),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return changes,
                Err(_) => {
                    // It does not tell any more: everything is looked at.
                    changes.extend(
                        self.watched
                            .iter()
                            .map(|watched| lost(watched, What::Closed)),
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
                    .map(|watched| lost(watched, What::Closed)),
            );
            return;
        }
        let interests = self.interests.get(&event.wd).map(Vec::as_slice);
        let is_meant = |interest: &&Interest| match (&interest.name, &event.name) {
            (Some(wanted), Some(name)) => wanted == name,
            // The folder itself has gone or been renamed, or every file in it counts.
            (_, None) | (None, _) => true,
        };
        for interest in interests.unwrap_or_default().iter().filter(is_meant) {
            let name = event.name.as_deref().unwrap_or(OsStr::new(""));
            changes.push(Change {
                users: interest.users,
                pace: interest.pace,
                what: what(event.mask),
                file: hash_of(&interest.folder.join(name)),
            });
        }
    }

    /// Looks at what inotify does not watch, where it is time.
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
                changes.push(lost(&self.watched[index], What::Seen));
            }
        }
        changes
    }

    /// Watches every path's folders, as the file system is now. What is watched already stays so.
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
        self.tell(trouble);
    }

    fn tell(&mut self, trouble: Option<Errno>) {
        let files = self.by_time.len();
        if let Some(error) = trouble.filter(|_| files > 0 && !self.is_told) {
            let every = LOOK_MS / 1000;
            self.trouble = Some(format!(
                "{}; {files} files are looked at every {every} s instead; the limits are fs.inotify in sysctl",
                error.desc()
            ));
        }
        self.is_told = files > 0;
    }

    /// Readable when something happened in a watched folder.
    #[must_use]
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.inotify.as_ref().map(AsFd::as_fd)
    }
}

/// A change of which nobody knows what it was.
fn lost(watched: &Watched, what: What) -> Change {
    Change {
        users: watched.users,
        pace: watched.pace,
        what,
        file: hash_of(&watched.path),
    }
}

fn what(mask: AddWatchFlags) -> What {
    if mask.contains(AddWatchFlags::IN_MODIFY) {
        What::Written
    } else if mask.intersects(AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_CREATE) {
        What::Closed
    } else {
        What::Replaced
    }
}

fn hash_of(value: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// What a file, or a folder with its files, looks like: something else when any of them changes.
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

/// Watches a folder; `None` where it has gone in the meantime.
fn add_watch(inotify: &Inotify, folder: &Path) -> nix::Result<Option<WatchDescriptor>> {
    // dnsmasq never closes its lease file: IN_MODIFY is all that it shows. IN_ATTRIB: a file that may be read from now on.
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

/// The folders in which something may happen to `path`, and to which name in them: that of each symbolic link on the way,
/// the one that the file is in, or the nearest that is there; and the path itself where it is a folder.
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

/// The names of a path, in order.
fn names(path: &Path) -> VecDeque<OsString> {
    let name = |component: Component<'_>| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
    };
    path.components().filter_map(name).collect()
}

/// A file that is written in one go is read when nothing happened to it for so long …
const QUIET_MS: u64 = 200;
/// … or, where writing to it does not end, after so long.
const PATIENCE_MS: u64 = 2_000;
/// A file that was written in place and closed: its writer may open it again, as a script does that puts parts together.
const CLOSED_MS: u64 = 1_000;
/// It is read at last although that does not end.
const CLOSED_PATIENCE_MS: u64 = 60_000;
/// One that is looked at by time: whether its writer has finished shows at the next look.
const SEEN_MS: u64 = 2 * LOOK_MS + CLOSED_MS;
/// One that is written as a whole and is still open: a slow download. Whoever writes nothing for so long has been
/// forgotten.
const OPEN_MS: u64 = 30_000;
/// Such a file is read at last although its writer goes on.
const OPEN_PATIENCE_MS: u64 = 600_000;

/// Waits until whoever writes has finished, but not for ever.
#[derive(Clone, Debug, Default)]
pub struct Debounce {
    /// What is not dealt with yet.
    waiting: Option<Waiting>,
    /// Files whose writers have them open.
    open: HashSet<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    first: Instant,
    /// Nothing else happens: it is over then.
    quiet_at: Instant,
    /// It is over then whatever happens.
    last: Instant,
}

impl Debounce {
    /// Something has changed.
    pub fn note(&mut self, now: Instant, change: &Change) {
        let was_open = self.is_open();
        match (change.pace, change.what) {
            (Pace::Whole, What::Written) => {
                self.open.insert(change.file);
            }
            (Pace::Whole, What::Closed | What::Replaced | What::Seen) => {
                self.open.remove(&change.file);
            }
            (Pace::Live, _) => {}
        }
        let (quiet_ms, patience_ms) = match (change.pace, change.what) {
            _ if self.is_open() => (OPEN_MS, OPEN_PATIENCE_MS),
            (Pace::Live, _) => (QUIET_MS, PATIENCE_MS),
            (Pace::Whole, What::Replaced) => (QUIET_MS, CLOSED_PATIENCE_MS),
            (Pace::Whole, What::Closed | What::Written) => (CLOSED_MS, CLOSED_PATIENCE_MS),
            (Pace::Whole, What::Seen) => (SEEN_MS, CLOSED_PATIENCE_MS),
        };
        // When the last of those who write has finished, the wait begins anew.
        let before = self.waiting.filter(|_| !was_open || self.is_open());
        let first = before.map_or(now, |before| before.first);
        let quiet_at = now + quiet_ms;
        self.waiting = Some(Waiting {
            first,
            quiet_at: before.map_or(quiet_at, |before| before.quiet_at.max(quiet_at)),
            last: first + patience_ms,
        });
    }

    /// When to look again. `None`: nothing is waited for.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.waiting
            .map(|waiting| waiting.quiet_at.min(waiting.last))
    }

    /// Whether somebody is writing.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// Whether the wait is over. It begins anew with the next change.
    pub fn take_due(&mut self, now: Instant) -> bool {
        let is_due = self.deadline().is_some_and(|deadline| deadline <= now);
        if is_due {
            self.waiting = None;
            self.open.clear();
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing::Folder;
    use std::fs::{self, File, OpenOptions};
    use std::io::Write;

    const NOW: Instant = Instant::from_millis(1_000);

    fn watched(path: &Path, users: Users) -> Watched {
        Watched {
            path: path.to_path_buf(),
            users,
            pace: Pace::Whole,
        }
    }

    fn watch(path: &Path) -> Watcher {
        let watcher = Watcher::new(vec![watched(path, Users::LOCAL)]);
        assert!(watcher.by_time.is_empty(), "inotify has room");
        watcher
    }

    fn users(watcher: &mut Watcher) -> Users {
        // inotify queues an event before the system call that causes it returns.
        let changes = watcher.changes(NOW);
        changes
            .iter()
            .fold(Users::default(), |users, change| users.with(change.users))
    }

    fn changed(watcher: &mut Watcher) -> bool {
        users(watcher).local
    }

    #[test]
    fn a_file_that_is_written_replaced_removed_and_made_again() {
        let folder = Folder::new();
        let path = folder.write("hosts", "a");
        let mut watcher = watch(&path);
        assert!(!changed(&mut watcher), "nothing happened");
        folder.write("hosts", "b");
        assert!(changed(&mut watcher), "written in place");
        folder.write("hosts.new", "c");
        assert!(!changed(&mut watcher), "another file");
        fs::rename(folder.path().join("hosts.new"), &path).expect("renamed");
        assert!(changed(&mut watcher), "renamed over it");
        fs::remove_file(&path).expect("removed");
        assert!(changed(&mut watcher), "removed");
        folder.write("hosts", "d");
        assert!(changed(&mut watcher), "made again");
        assert!(!changed(&mut watcher), "told once");
    }

    #[test]
    fn a_file_that_its_writer_never_closes() {
        let folder = Folder::new();
        let path = folder.write("leases", "a");
        let mut watcher = watch(&path);
        let mut file = OpenOptions::new().append(true).open(&path).expect("opened");
        assert!(!changed(&mut watcher));
        file.write_all(b"more").expect("written");
        assert!(changed(&mut watcher));
    }

    #[test]
    fn a_file_in_folders_that_are_not_there_yet() {
        let folder = Folder::new();
        let path = folder.path().join("tmp/dhcp/leases");
        let mut watcher = watch(&path);
        fs::create_dir(folder.path().join("tmp")).expect("made");
        assert!(changed(&mut watcher));
        fs::create_dir(folder.path().join("tmp/dhcp")).expect("made");
        assert!(changed(&mut watcher));
        fs::write(&path, "a").expect("written");
        assert!(changed(&mut watcher));
        fs::remove_dir_all(folder.path().join("tmp")).expect("removed");
        assert!(changed(&mut watcher));
        fs::create_dir_all(folder.path().join("tmp/dhcp")).expect("made");
        assert!(changed(&mut watcher), "and all over again");
        fs::write(&path, "b").expect("written");
        assert!(changed(&mut watcher));
    }

    #[test]
    fn a_folder_of_files() {
        let folder = Folder::new();
        let hosts = folder.path().join("hosts.d");
        fs::create_dir(&hosts).expect("made");
        let mut watcher = watch(&hosts);
        fs::write(hosts.join("a"), "a").expect("written");
        assert!(changed(&mut watcher));
        fs::remove_file(hosts.join("a")).expect("removed");
        assert!(changed(&mut watcher));
        folder.write("other", "x");
        assert!(!changed(&mut watcher));
    }

    #[test]
    fn a_symbolic_link_at_both_ends() {
        let folder = Folder::new();
        fs::create_dir(folder.path().join("real")).expect("made");
        fs::write(folder.path().join("real/hosts"), "a").expect("written");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("real/hosts", &link).expect("linked");
        let mut watcher = watch(&link);
        fs::write(folder.path().join("real/hosts"), "b").expect("written");
        assert!(changed(&mut watcher), "the target is written");
        fs::write(folder.path().join("real/other"), "c").expect("written");
        fs::remove_file(&link).expect("removed");
        assert!(changed(&mut watcher), "the link is removed");
        std::os::unix::fs::symlink("real/other", &link).expect("linked");
        assert!(changed(&mut watcher), "the link points elsewhere");
        fs::write(folder.path().join("real/other"), "d").expect("written");
        assert!(changed(&mut watcher), "the new target is written");
    }

    /// `current -> v1`, and the list is `current/ads.txt`.
    #[test]
    fn a_symbolic_link_on_the_way() {
        let folder = Folder::new();
        for version in ["v1", "v2"] {
            fs::create_dir(folder.path().join(version)).expect("made");
            fs::write(folder.path().join(version).join("ads.txt"), version).expect("written");
        }
        let (current, new) = (folder.path().join("current"), folder.path().join("new"));
        std::os::unix::fs::symlink("v1", &current).expect("linked");
        let mut watcher = watch(&current.join("ads.txt"));
        std::os::unix::fs::symlink("v2", &new).expect("linked");
        assert!(!changed(&mut watcher));
        fs::rename(&new, &current).expect("renamed");
        assert!(changed(&mut watcher), "another version");
        fs::write(folder.path().join("v2/ads.txt"), "new").expect("written");
        assert!(changed(&mut watcher), "the new version is written");
        fs::remove_file(&current).expect("removed");
        std::os::unix::fs::symlink("current", &current).expect("a circle");
        assert!(changed(&mut watcher), "a circle ends");
    }

    #[test]
    fn each_file_has_its_users() {
        let folder = Folder::new();
        let (hosts, list) = (folder.write("hosts", "a"), folder.write("list", "a"));
        let both = [watched(&hosts, Users::LOCAL), watched(&list, Users::LISTS)];
        let mut watcher = Watcher::new(both.into());
        folder.write("list", "b");
        assert_eq!(users(&mut watcher), Users::LISTS);
        folder.write("hosts", "b");
        assert_eq!(users(&mut watcher), Users::LOCAL);
        folder.write("hosts", "c");
        folder.write("list", "c");
        assert_eq!(users(&mut watcher), Users::ALL);
    }

    #[test]
    fn a_lost_event_counts_as_every_event() {
        let folder = Folder::new();
        let (hosts, list) = (folder.write("hosts", "a"), folder.write("list", "a"));
        let both = [watched(&hosts, Users::LOCAL), watched(&list, Users::LISTS)];
        let mut watcher = Watcher::new(both.into());
        let most: usize = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events")
            .expect("a limit")
            .trim()
            .parse()
            .expect("a number");
        // Two names in turn, because equal events in a row are one.
        for number in 0..=most {
            drop(File::create(folder.path().join(["x", "y"][number % 2])).expect("made"));
        }
        assert_eq!(users(&mut watcher), Users::ALL);
    }

    /// As where all instances or watches are in use.
    #[test]
    fn what_inotify_has_no_room_for_is_looked_at_by_time() {
        let folder = Folder::new();
        let (list, hosts) = (folder.write("list", "a"), folder.path().join("hosts.d"));
        fs::create_dir(&hosts).expect("made");
        let both = vec![watched(&list, Users::LISTS), watched(&hosts, Users::LOCAL)];
        let mut watcher = Watcher::new(both);
        // A descriptor that is no inotify instance takes no watch, as one that has no room.
        watcher.inotify = None;
        watcher.by_time = (0..2)
            .map(|index| (index, sight(&watcher.watched[index].path)))
            .collect();
        watcher.interests.clear();
        let at = |millis| Instant::from_millis(millis);
        let look = |watcher: &mut Watcher, millis| {
            let changes = watcher.look(at(millis));
            changes
                .iter()
                .fold(Users::default(), |users, change| users.with(change.users))
        };
        assert_eq!(look(&mut watcher, 0), Users::default(), "nothing happened");
        folder.write("list", "longer");
        assert_eq!(look(&mut watcher, LOOK_MS - 1), Users::default(), "not yet");
        assert_eq!(look(&mut watcher, LOOK_MS), Users::LISTS);
        fs::write(hosts.join("a"), "x").expect("written");
        assert_eq!(look(&mut watcher, 2 * LOOK_MS), Users::LOCAL);
        fs::write(hosts.join("a"), "longer").expect("written");
        assert_eq!(look(&mut watcher, 3 * LOOK_MS), Users::LOCAL);
        fs::remove_file(&list).expect("removed");
        fs::remove_dir_all(&hosts).expect("removed");
        assert_eq!(look(&mut watcher, 4 * LOOK_MS), Users::ALL);
        assert_eq!(look(&mut watcher, 5 * LOOK_MS), Users::default());
        watcher.tell(Some(Errno::EMFILE));
        let trouble = watcher.take_trouble().expect("said");
        assert!(
            trouble.contains("2 files are looked at every 2 s instead"),
            "{trouble}"
        );
        watcher.tell(Some(Errno::EMFILE));
        assert_eq!(watcher.take_trouble(), None, "once");
        // Room again.
        watcher.ask_at = Some(at(1));
        watcher.changes(at(10_000_000));
        assert!(watcher.by_time.is_empty() && watcher.inotify.is_some());
        folder.write("list", "back");
        assert_eq!(users(&mut watcher), Users::LISTS);
    }

    fn change(pace: Pace, what: What, file: u64) -> Change {
        Change {
            users: Users::LOCAL,
            pace,
            what,
            file,
        }
    }

    #[test]
    fn a_live_file_is_read_after_quiet_or_when_patience_ends() {
        let at = Instant::from_millis;
        let lease = change(Pace::Live, What::Written, 1);
        let mut debounce = Debounce::default();
        assert_eq!(
            (debounce.deadline(), debounce.take_due(at(1_000))),
            (None, false)
        );
        debounce.note(at(1_000), &lease);
        debounce.note(at(1_150), &lease);
        assert!(!debounce.take_due(at(1_349)));
        assert!(debounce.take_due(at(1_350)));
        assert!(!debounce.take_due(at(9_000)), "once");
        for millis in (10_000..12_000).step_by(100) {
            debounce.note(at(millis), &lease);
            assert!(!debounce.take_due(at(millis)));
        }
        assert_eq!(debounce.deadline(), Some(at(12_000)));
        assert!(debounce.take_due(at(12_000)), "written to without end");
    }

    #[test]
    fn a_whole_file_is_read_when_its_writer_has_closed_it() {
        let at = Instant::from_millis;
        let [written, closed, replaced] =
            [What::Written, What::Closed, What::Replaced].map(|what| change(Pace::Whole, what, 1));
        let mut debounce = Debounce::default();
        // Twenty seconds of `cp`, with pauses.
        for millis in (1_000..21_000).step_by(5_000) {
            debounce.note(at(millis), &written);
            assert!(!debounce.take_due(at(millis + 4_999)), "half of it");
        }
        debounce.note(at(21_000), &closed);
        assert!(!debounce.take_due(at(21_999)), "it may be opened again");
        assert!(debounce.take_due(at(22_000)));
        // Parts that a script puts together.
        debounce.note(at(30_000), &written);
        debounce.note(at(30_000), &closed);
        debounce.note(at(30_900), &written);
        assert!(!debounce.take_due(at(40_000)));
        debounce.note(at(150_000), &closed);
        assert_eq!(
            debounce.deadline(),
            Some(at(151_000)),
            "however long it took"
        );
        assert!(debounce.take_due(at(151_000)));
        // A new file in its place is whole.
        debounce.note(at(200_000), &replaced);
        assert!(debounce.take_due(at(200_200)));
        // A lease does not bring half a hosts file with it.
        debounce.note(at(300_000), &written);
        debounce.note(at(300_100), &change(Pace::Live, What::Written, 2));
        assert!(!debounce.take_due(at(310_000)));
        // A writer that is gone without a word.
        assert!(debounce.take_due(at(300_100 + OPEN_MS)));
        debounce.note(at(400_000), &written);
        for millis in (400_000..1_000_000).step_by(20_000) {
            debounce.note(at(millis), &written);
            assert!(!debounce.take_due(at(millis)));
        }
        assert!(
            debounce.take_due(at(400_000 + OPEN_PATIENCE_MS)),
            "one that never ends"
        );
    }
}
