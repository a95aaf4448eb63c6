//! Watches files that others write: hosts files, lease files, lists.
//!
//! What is watched is the folder that a file is in, because most writers put a new file in its place. A file that is not
//! there yet is waited for in the nearest folder that is. A path through a symbolic link is watched at both ends.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use xdnsd_core::time::Instant;

/// A file is read when nothing was written to it for so long …
const QUIET_MS: u64 = 200;
/// … or when it has been written to for so long.
const PATIENCE_MS: u64 = 2_000;

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

/// What is waited for in one folder.
#[derive(Debug)]
struct Interest {
    /// `None`: every file.
    name: Option<OsString>,
    users: Users,
}

/// An inotify instance over all files of policy.
#[derive(Debug)]
pub struct Watcher {
    inotify: Inotify,
    paths: Vec<(PathBuf, Users)>,
    interests: HashMap<WatchDescriptor, Vec<Interest>>,
}

impl Watcher {
    /// Watches `paths`, files or folders of files.
    ///
    /// # Errors
    /// The kernel gives no inotify instance or no watch: its limits are `fs.inotify.max_user_instances` and
    /// `fs.inotify.max_user_watches`.
    pub fn new(paths: Vec<(PathBuf, Users)>) -> nix::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let mut watcher = Self {
            inotify,
            paths,
            interests: HashMap::new(),
        };
        watcher.arm()?;
        Ok(watcher)
    }

    /// What has changed since the last call. Does not wait.
    ///
    /// # Errors
    /// The kernel does not tell, or gives no watch for a folder that came to be.
    pub fn changes(&mut self) -> nix::Result<Users> {
        let mut users = Users::default();
        // Bound: events are added by others; each round takes all that were there.
        loop {
            match self.inotify.read_events() {
                Ok(events) => {
                    users = events
                        .iter()
                        .fold(users, |users, event| users.with(self.users_of(event)))
                }
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error),
            }
        }
        if users.any() {
            // A folder may have come to be, been replaced or gone.
            self.arm()?;
        }
        Ok(users)
    }

    fn users_of(&self, event: &InotifyEvent) -> Users {
        if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
            return Users::ALL;
        }
        let interests = self
            .interests
            .get(&event.wd)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let concerned = interests
            .iter()
            .filter(|interest| match (&interest.name, &event.name) {
                (Some(wanted), Some(name)) => wanted == name,
                // The folder itself has gone or been renamed, or every file in it counts.
                (_, None) | (None, _) => true,
            });
        concerned.fold(Users::default(), |users, interest| {
            users.with(interest.users)
        })
    }

    /// Watches every path's folder, as the file system is now. What is watched already stays so.
    fn arm(&mut self) -> nix::Result<()> {
        let mut interests: HashMap<WatchDescriptor, Vec<Interest>> = HashMap::new();
        for (path, users) in &self.paths {
            let real = path.canonicalize().ok().filter(|real| real != path);
            for path in std::iter::once(path.as_path()).chain(real.as_deref()) {
                for (folder, name) in places(path) {
                    let Some(watch) = add_watch(&self.inotify, &folder)? else {
                        continue;
                    };
                    interests.entry(watch).or_default().push(Interest {
                        name,
                        users: *users,
                    });
                }
            }
        }
        for gone in self
            .interests
            .keys()
            .filter(|watch| !interests.contains_key(watch))
        {
            // EINVAL: the folder was deleted, and its watch with it.
            let _ = self.inotify.rm_watch(*gone);
        }
        self.interests = interests;
        Ok(())
    }
}

impl AsFd for Watcher {
    /// Readable when something happened in a watched folder.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

/// Watches a folder; `None` where it has gone in the meantime.
fn add_watch(inotify: &Inotify, folder: &Path) -> nix::Result<Option<WatchDescriptor>> {
    // dnsmasq never closes its lease file: IN_MODIFY is all that it shows.
    let flags = AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_MODIFY
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

/// The folders in which something may happen to `path`, and to which name in them. The folder that it is in, or the
/// nearest that is there; and the path itself where it is a folder.
fn places(path: &Path) -> Vec<(PathBuf, Option<OsString>)> {
    let mut places = Vec::new();
    if path.is_dir() {
        places.push((path.to_path_buf(), None));
    }
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let nearest = path.ancestors().skip(1).find(|folder| folder.is_dir());
    if let Some(folder) = nearest {
        let rest = path.strip_prefix(folder).unwrap_or(&path);
        let name = rest
            .components()
            .next()
            .map(|name| name.as_os_str().to_owned());
        places.extend(name.map(|name| (folder.to_path_buf(), Some(name))));
    }
    places
}

/// Waits until whoever writes has finished, but not for ever.
#[derive(Clone, Copy, Debug, Default)]
pub struct Debounce {
    /// The first and the latest change that is not dealt with yet.
    waiting: Option<(Instant, Instant)>,
}

impl Debounce {
    /// Something has changed.
    pub fn note(&mut self, now: Instant) {
        let first = self.waiting.map_or(now, |(first, _)| first);
        self.waiting = Some((first, now));
    }

    /// When to look again. `None`: nothing is waited for.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.waiting
            .map(|(first, latest)| (latest + QUIET_MS).min(first + PATIENCE_MS))
    }

    /// Whether the wait is over. It begins anew with the next change.
    pub fn take_due(&mut self, now: Instant) -> bool {
        let is_due = self.deadline().is_some_and(|deadline| deadline <= now);
        if is_due {
            self.waiting = None;
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

    fn watch(path: &Path) -> Watcher {
        Watcher::new(vec![(path.to_path_buf(), Users::LOCAL)]).expect("a watcher")
    }

    fn changed(watcher: &mut Watcher) -> bool {
        // inotify queues an event before the system call that causes it returns.
        watcher.changes().expect("events").local
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

    #[test]
    fn each_file_has_its_users() {
        let folder = Folder::new();
        let (hosts, list) = (folder.write("hosts", "a"), folder.write("list", "a"));
        let mut watcher =
            Watcher::new(vec![(hosts, Users::LOCAL), (list, Users::LISTS)]).expect("a watcher");
        folder.write("list", "b");
        assert_eq!(watcher.changes(), Ok(Users::LISTS));
        folder.write("hosts", "b");
        assert_eq!(watcher.changes(), Ok(Users::LOCAL));
        folder.write("hosts", "c");
        folder.write("list", "c");
        assert_eq!(watcher.changes(), Ok(Users::ALL));
    }

    #[test]
    fn a_lost_event_counts_as_every_event() {
        let folder = Folder::new();
        let path = folder.write("hosts", "a");
        let mut watcher = watch(&path);
        let most: usize = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events")
            .expect("a limit")
            .trim()
            .parse()
            .expect("a number");
        // Two names in turn, because equal events in a row are one.
        for number in 0..=most {
            drop(File::create(folder.path().join(["x", "y"][number % 2])).expect("made"));
        }
        assert_eq!(watcher.changes(), Ok(Users::ALL));
    }

    #[test]
    fn a_change_is_dealt_with_after_quiet_or_when_patience_ends() {
        let at = Instant::from_millis;
        let mut debounce = Debounce::default();
        assert_eq!(
            (debounce.deadline(), debounce.take_due(at(1_000))),
            (None, false)
        );
        debounce.note(at(1_000));
        debounce.note(at(1_150));
        assert!(!debounce.take_due(at(1_349)));
        assert!(debounce.take_due(at(1_350)));
        assert!(!debounce.take_due(at(9_000)), "once");
        for millis in (10_000..12_000).step_by(100) {
            debounce.note(at(millis));
            assert!(!debounce.take_due(at(millis)));
        }
        assert_eq!(debounce.deadline(), Some(at(12_000)));
        assert!(debounce.take_due(at(12_000)), "written to without end");
    }
}
