//! Tests of changes to files, and of when they are read.

use super::debounce::Debounce;
use super::debounce::{OPEN_MS, OPEN_PATIENCE_MS};
use super::*;
use crate::testing::Folder;
use std::fs::{self, File, OpenOptions};
use std::io::Write;

const NOW: Instant = Instant::from_millis(1_000);

fn watched(path: &Path, users: FileUsers) -> Watched {
    Watched {
        path: path.to_path_buf(),
        users,
        pace: Pace::Whole,
    }
}

fn watch(path: &Path) -> Watcher {
    let watcher = Watcher::new(vec![watched(path, FileUsers::LOCAL)]);
    assert!(watcher.by_time.is_empty(), "inotify has room");
    watcher
}

fn users(watcher: &mut Watcher) -> FileUsers {
    // inotify queues an event before the system call that causes it returns.
    let changes = watcher.changes(NOW);
    changes.iter().fold(FileUsers::default(), |users, change| {
        users.with(change.users)
    })
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
    let both = [
        watched(&hosts, FileUsers::LOCAL),
        watched(&list, FileUsers::LISTS),
    ];
    let mut watcher = Watcher::new(both.into());
    folder.write("list", "b");
    assert_eq!(users(&mut watcher), FileUsers::LISTS);
    folder.write("hosts", "b");
    assert_eq!(users(&mut watcher), FileUsers::LOCAL);
    folder.write("hosts", "c");
    folder.write("list", "c");
    assert_eq!(users(&mut watcher), FileUsers::LOCAL.with(FileUsers::LISTS));
}

#[test]
fn a_lost_event_counts_as_every_event() {
    let folder = Folder::new();
    let (hosts, list) = (folder.write("hosts", "a"), folder.write("list", "a"));
    let both = [
        watched(&hosts, FileUsers::LOCAL),
        watched(&list, FileUsers::LISTS),
    ];
    let mut watcher = Watcher::new(both.into());
    let most: usize = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events")
        .expect("a limit")
        .trim()
        .parse()
        .expect("a number");
    // Two names in turn, because equal events in a row are merged.
    for number in 0..=most {
        drop(File::create(folder.path().join(["x", "y"][number % 2])).expect("made"));
    }
    assert_eq!(users(&mut watcher), FileUsers::LOCAL.with(FileUsers::LISTS));
}

/// As if all instances or watches were in use.
#[test]
fn what_inotify_has_no_room_for_is_looked_at_by_time() {
    let folder = Folder::new();
    let (list, hosts) = (folder.write("list", "a"), folder.path().join("hosts.d"));
    fs::create_dir(&hosts).expect("made");
    let both = vec![
        watched(&list, FileUsers::LISTS),
        watched(&hosts, FileUsers::LOCAL),
    ];
    let mut watcher = Watcher::new(both);
    // A descriptor that is no inotify instance takes no watch, like one without room.
    watcher.inotify = None;
    watcher.by_time = (0..2)
        .map(|index| (index, sight(&watcher.watched[index].path)))
        .collect();
    watcher.interests.clear();
    let at = |millis| Instant::from_millis(millis);
    let look = |watcher: &mut Watcher, millis| {
        let changes = watcher.look(at(millis));
        changes.iter().fold(FileUsers::default(), |users, change| {
            users.with(change.users)
        })
    };
    assert_eq!(watcher.deadline(), Some(at(0)), "not looked at yet");
    assert_eq!(
        look(&mut watcher, 0),
        FileUsers::default(),
        "nothing happened"
    );
    assert_eq!(watcher.deadline(), Some(at(LOOK_MS)));
    folder.write("list", "longer");
    assert_eq!(
        look(&mut watcher, LOOK_MS - 1),
        FileUsers::default(),
        "not yet"
    );
    assert_eq!(look(&mut watcher, LOOK_MS), FileUsers::LISTS);
    fs::write(hosts.join("a"), "x").expect("written");
    assert_eq!(look(&mut watcher, 2 * LOOK_MS), FileUsers::LOCAL);
    fs::write(hosts.join("a"), "longer").expect("written");
    assert_eq!(look(&mut watcher, 3 * LOOK_MS), FileUsers::LOCAL);
    fs::remove_file(&list).expect("removed");
    fs::remove_dir_all(&hosts).expect("removed");
    assert_eq!(
        look(&mut watcher, 4 * LOOK_MS),
        FileUsers::LOCAL.with(FileUsers::LISTS)
    );
    assert_eq!(look(&mut watcher, 5 * LOOK_MS), FileUsers::default());
    watcher.tell(Some(Errno::EMFILE));
    let trouble = watcher.take_trouble().expect("said");
    assert!(
        trouble.contains("looked at every 2 s instead: 2 files;"),
        "{trouble}"
    );
    watcher.tell(Some(Errno::EMFILE));
    assert_eq!(watcher.take_trouble(), None, "once");
    // There is room again.
    watcher.ask_at = Some(at(1));
    watcher.changes(at(10_000_000));
    assert!(watcher.by_time.is_empty() && watcher.inotify.is_some());
    folder.write("list", "back");
    assert_eq!(users(&mut watcher), FileUsers::LISTS);
}

fn change(pace: Pace, what: FileEvent, file: u64) -> Change {
    Change {
        users: FileUsers::LOCAL,
        pace,
        what,
        file,
    }
}

#[test]
fn a_live_file_is_read_after_quiet_or_when_patience_ends() {
    let at = Instant::from_millis;
    let lease = change(Pace::Live, FileEvent::Written, 1);
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
    // It is emptied in this moment, and written in the next. A writer that empties it all the time is not waited for.
    for (step, due_at) in [(100, 12_020), (10, 12_200)] {
        for millis in (10_000..due_at).step_by(step) {
            debounce.note(at(millis), &lease);
            assert!(!debounce.take_due(at(millis)), "{millis}");
        }
        assert_eq!(debounce.deadline(), Some(at(due_at)));
        assert!(debounce.take_due(at(due_at)));
    }
}

#[test]
fn a_whole_file_is_read_when_its_writer_has_closed_it() {
    let at = Instant::from_millis;
    let [written, closed, replaced] = [FileEvent::Written, FileEvent::Closed, FileEvent::Replaced]
        .map(|what| change(Pace::Whole, what, 1));
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
    // A new file in its place is complete.
    debounce.note(at(200_000), &replaced);
    assert!(debounce.take_due(at(200_200)));
    // A change of a lease does not read half of a hosts file.
    debounce.note(at(300_000), &written);
    debounce.note(at(300_100), &change(Pace::Live, FileEvent::Written, 2));
    assert!(!debounce.take_due(at(310_000)));
    // A writer that never closes the file.
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

/// As after a mount, which inotify does not report.
#[test]
fn a_path_that_leads_elsewhere_is_seen() {
    let folder = Folder::new();
    let below = folder.path().join("mnt");
    fs::create_dir(&below).expect("made");
    let path = folder.write("mnt/hosts", "a");
    let mut watcher = watch(&path);
    assert!(watcher.moved().is_empty());
    folder.write("mnt/hosts", "b");
    folder.write("mnt/other", "c");
    assert!(watcher.moved().is_empty(), "where it led");
    fs::rename(&below, folder.path().join("old")).expect("renamed");
    assert_eq!(watcher.moved().len(), 1, "gone");
    watcher.arm();
    assert!(watcher.moved().is_empty(), "known by now");
    fs::create_dir(&below).expect("made");
    assert_eq!(watcher.moved().len(), 1, "a folder that is nearer");
    watcher.arm();
    folder.write("mnt/hosts", "d");
    assert_eq!(watcher.moved().len(), 1, "another file");
}
