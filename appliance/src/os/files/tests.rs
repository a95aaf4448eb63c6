//! Files, and everything that can be put in their place.

use super::*;
use crate::testing::{Folder, Writer};
use std::io::{SeekFrom, Write};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use xdnsd_lab::wait::wait_until;

const TIMEOUT: Duration = Duration::from_secs(20);

/// Everything but a regular file, with the word for it.
fn impostors(folder: &Folder) -> Vec<(PathBuf, &'static str)> {
    let path = |name: &str| folder.path().join(name);
    mkfifo(&path("fifo"), Mode::S_IRWXU).expect("a FIFO");
    fs::create_dir(path("folder")).expect("a folder");
    let _listener = UnixListener::bind(path("socket")).expect("a socket");
    vec![
        (path("fifo"), "FIFO"),
        (path("folder"), "folder"),
        (path("socket"), "socket"),
        (PathBuf::from("/dev/null"), "device"),
        (PathBuf::from("/dev/zero"), "device"),
        (PathBuf::from("/dev/full"), "device"),
    ]
}

#[test]
fn what_is_no_file_is_refused_at_once_and_named() {
    let folder = Folder::new();
    for (path, kind) in impostors(&folder) {
        for opened in [
            open(&path),
            open_own(&path),
            read(&path, 9).and_then(|_| open(&path)),
        ] {
            let error = opened.expect_err(kind).to_string();
            assert_eq!(error, format!("is a {kind}, not a file"), "{path:?}");
        }
        let link = folder.path().join(format!("link to {kind}"));
        let _ = fs::remove_file(&link);
        symlink(&path, &link).expect("a link");
        let error = open(&link).expect_err(kind).to_string();
        assert_eq!(error, format!("is a {kind}, not a file"), "through a link");
    }
}

#[test]
fn policy_is_read_through_links_and_own_files_are_not() {
    let folder = Folder::new();
    let file = folder.write("2026-11-28.txt", "ads.example\n");
    let link = folder.path().join("list.txt");
    symlink(&file, &link).expect("a link");
    assert_eq!(read(&link, 100).expect("read"), b"ads.example\n");
    let error = open_own(&link).expect_err("a link").to_string();
    assert_eq!(error, "is a symbolic link, not a file");
}

#[test]
fn own_files_are_believed_only_where_nobody_else_can_have_written_them() {
    let folder = Folder::new();
    let file = folder.write("cache", "x");
    let with_mode =
        |mode| fs::set_permissions(&file, PermissionsExt::from_mode(mode)).expect("mode");
    for mode in [0o600, 0o640, 0o644, 0o400] {
        with_mode(mode);
        assert!(open_own(&file).is_ok(), "{mode:o}");
    }
    for mode in [0o666, 0o620, 0o602, 0o660] {
        with_mode(mode);
        let error = open_own(&file).expect_err("not ours alone").to_string();
        assert_eq!(
            error,
            format!("others may write to it (mode {mode:o}): not believed")
        );
    }
    with_mode(0o600);
    if chown(&file, Some(12_345), None).is_ok() {
        let error = open_own(&file).expect_err("somebody else's").to_string();
        assert_eq!(error, "belongs to user 12345: not believed");
    }
}

#[test]
fn a_file_that_is_made_never_writes_through_what_had_its_name() {
    let folder = Folder::new();
    let (victim, new) = (
        folder.write("victim", "precious"),
        folder.path().join("cache.tmp"),
    );
    symlink(&victim, &new).expect("a link");
    create_own(&new, 0o600)
        .and_then(|mut file| file.write_all(b"mine"))
        .expect("made");
    fs::remove_file(&new).expect("removed");
    fs::hard_link(&victim, &new).expect("a hard link");
    create_own(&new, 0o600)
        .and_then(|mut file| file.write_all(b"mine"))
        .expect("made");
    assert_eq!(fs::read(&victim).expect("read"), b"precious");
    assert_eq!(fs::read(&new).expect("read"), b"mine");
    assert_eq!(
        fs::metadata(&new).expect("made").permissions().mode() & 0o777,
        0o600
    );
    fs::remove_file(&new).expect("removed");
    symlink(folder.path().join("nowhere"), &new).expect("a link to nothing");
    create_own(&new, 0o600).expect("made");
    assert!(!folder.path().join("nowhere").exists());
    fs::remove_file(&new).expect("removed");
    mkfifo(&new, Mode::S_IRWXU).expect("a FIFO");
    create_own(&new, 0o600).expect("made in its place");
    fs::remove_file(&new).expect("removed");
    fs::create_dir(&new).expect("a folder");
    assert_eq!(
        create_own(&new, 0o600).expect_err("a folder").to_string(),
        "is a folder, not a file"
    );
}

#[test]
fn what_is_too_large_or_without_a_length_is_bounded() {
    let folder = Folder::new();
    let file = folder.write("list", "12345");
    assert_eq!(read(&file, 5).expect("read"), b"12345");
    assert_eq!(
        read(&file, 4).expect_err("larger").to_string(),
        "is larger than 4 bytes"
    );
    // Sparse: a terabyte that takes no disk space.
    File::options()
        .write(true)
        .open(&file)
        .and_then(|file| file.set_len(1 << 40))
        .expect("grown");
    assert!(read(&file, 1000).is_err());
    // Files of /proc have length 0 in stat(2).
    assert!(
        !read(Path::new("/proc/self/status"), 100_000)
            .expect("read")
            .is_empty()
    );
}

#[test]
fn a_file_that_grows_faster_than_it_is_read_ends_nevertheless() {
    let folder = Folder::new();
    let path = folder.write("list", "12345");
    let file = open(&path).expect("opened");
    let mut bytes = bytes_of(&file).expect("a length");
    let len = UNSIZED_BYTES_MAX as usize;
    folder.write("list", vec![7; 3 * len]);
    let mut read = Vec::new();
    bytes.read_to_end(&mut read).expect("read");
    assert_eq!((read.len(), bytes.limit()), (len + 1, 0));
    let file = open(&path).expect("opened");
    let mut bytes = bytes_of(&file).expect("a length");
    assert_eq!(bytes.read_to_end(&mut read).expect("read"), 3 * len);
    assert_ne!(bytes.limit(), 0, "it is whole");
}

/// A half-written file must not be taken for the whole.
#[test]
fn a_file_that_goes_on_changing_is_not_read() {
    let folder = Folder::new();
    let file = folder.write("hosts", "192.0.2.1 a.example\n");
    let writer = Writer::start(&file, b"192.0.2.2 b.example\n", SeekFrom::End(0));
    let refused = wait_until("it changes while it is read", TIMEOUT, || {
        read(&file, 1 << 40).is_err_and(|error| error.to_string() == "changes while it is read")
    });
    drop(writer);
    refused.expect("refused");
    assert!(read(&file, 1 << 40).is_ok(), "it was left alone");
}

#[test]
fn who_else_has_a_say_is_told() {
    let folder = Folder::new();
    fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).expect("mode");
    let file = folder.write("hosts", "x");
    let with_mode = |path: &Path, mode| {
        fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("mode")
    };
    with_mode(&file, 0o644);
    assert_eq!(doubt(&file, true), None);
    with_mode(&file, 0o666);
    assert_eq!(
        doubt(&file, true).as_deref(),
        Some("anybody may write to it (mode 666)")
    );
    assert!(doubt(&file, false).is_some(), "leases, too");
    with_mode(&file, 0o644);
    with_mode(folder.path(), 0o777);
    assert!(
        doubt(&file, true)
            .is_some_and(|doubt| doubt.starts_with("anybody may put another file in its place"))
    );
    with_mode(folder.path(), 0o1777);
    assert_eq!(doubt(&file, true), None, "as in /tmp");
    assert_eq!(
        doubt(folder.path(), true).as_deref(),
        Some("anybody may put files there (mode 1777)")
    );
    with_mode(folder.path(), 0o755);
    let device = folder.path().join("device");
    std::os::unix::fs::symlink("/dev/zero", &device).expect("a link");
    assert_eq!(doubt(&device, true), None, "it is not read");
    with_mode(&file, 0o664);
    assert_eq!(doubt(&file, true), None, "our own group");
    if chown(&file, None, Some(12_345)).is_ok() {
        assert_eq!(
            doubt(&file, true).as_deref(),
            Some("group 12345 may write to it (mode 664)")
        );
        assert_eq!(doubt(&file, false), None, "the DHCP server's");
    }
    with_mode(&file, 0o644);
    if chown(&file, Some(12_345), None).is_ok() {
        assert_eq!(doubt(&file, true).as_deref(), Some("belongs to user 12345"));
        assert_eq!(doubt(&file, false), None, "the DHCP server's");
        let (own, link) = (folder.write("own", "x"), folder.path().join("link"));
        symlink(own, &link).expect("a link");
        std::os::unix::fs::lchown(&link, Some(12_345), None).expect("given away");
        assert_eq!(
            doubt(&link, true).as_deref(),
            Some("is a symbolic link of user 12345")
        );
    }
    assert_eq!(doubt(&folder.path().join("missing"), true), None);
}

/// Some devices act when they are opened, and a process at the other end of a FIFO notices.
#[test]
fn what_is_no_file_is_not_even_opened() {
    let folder = Folder::new();
    let (fifo, link) = (folder.path().join("fifo"), folder.path().join("link"));
    mkfifo(&fifo, Mode::S_IRWXU).expect("a FIFO");
    symlink(&fifo, &link).expect("a link");
    let openings = Inotify::init(InitFlags::IN_NONBLOCK).expect("an instance");
    openings
        .add_watch(&fifo, AddWatchFlags::IN_OPEN)
        .expect("watched");
    for refused in [open(&fifo), open(&link), open_own(&fifo), open_own(&link)] {
        assert!(refused.is_err());
    }
    assert!(read(&link, 9).is_err());
    assert!(matches!(openings.read_events(), Err(Errno::EAGAIN)));
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NONBLOCK);
    options.open(&fifo).expect("opened");
    assert_eq!(openings.read_events().map(|events| events.len()), Ok(1));
}

/// Between the check of a name and its opening anything may take the name.
#[test]
fn what_takes_a_files_name_is_refused_when_it_is_open() {
    let folder = Folder::new();
    let impostors = impostors(&folder);
    let (refused, refusals) = mpsc::channel();
    thread::spawn(move || {
        // A socket cannot be opened at all.
        let others = impostors.into_iter().filter(|(_, kind)| *kind != "socket");
        for (path, kind) in others {
            let error = open_checked(&path, 0).map(drop);
            refused.send((kind, error)).expect("it is waited for");
        }
    });
    for _ in 0..5 {
        let told = refusals.recv_timeout(Duration::from_secs(20));
        let (kind, error) = told.expect("nothing waits for the other end");
        let error = error.expect_err(kind).to_string();
        assert_eq!(error, format!("is a {kind}, not a file"));
    }
}

#[test]
fn a_link_that_takes_the_name_of_our_own_file_is_not_followed() {
    let folder = Folder::new();
    let link = folder.path().join("cache");
    symlink(folder.write("victim", "v"), &link).expect("a link");
    let error = open_own_now(&link).expect_err("a link");
    assert_eq!(error.raw_os_error(), Some(libc::ELOOP));
}

/// Attempts to act between two system calls.
const TURNS: usize = 10_000;

#[test]
fn a_link_that_takes_the_name_of_a_file_to_be_made_is_not_written_to() {
    let folder = Folder::new();
    let (victim, new) = (
        folder.write("victim", "precious"),
        folder.path().join("cache.tmp"),
    );
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                // Either may be too late.
                let _ = fs::hard_link(&victim, &new);
                let _ = symlink(&victim, &new);
            }
        });
        for _ in 0..TURNS {
            let _ = create_own(&new, 0o600).and_then(|mut file| file.write_all(b"mine"));
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert_eq!(fs::read(&victim).expect("read"), b"precious");
}
