//! Tests of the snapshot: the process is killed, the disk is full, the disk is read-only.
//!
//! Each test runs this executable again as the affected process.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use xdnsd::compile::name::parse;
use xdnsd::os::clock;
use xdnsd::store::SharedCache;
use xdnsd::store::Store;
use xdnsd_core::answer::{Head, Key};
use xdnsd_lab::privilege::root_or_skip;
use xdnsd_lab::wait::wait_until;

/// Environment variable with the folder that the child works in.
const FOLDER: &str = "XDNSD_TEST_FOLDER";
/// Kills in one run. Each hits another moment of a save, which takes some milliseconds.
const KILLS: u32 = 40;
const ENTRIES: usize = 3000;
/// Time that a child may take to start and to write.
const PATIENCE: Duration = Duration::from_secs(20);

static CACHE: SharedCache = SharedCache::new();

fn fill() {
    let head = Head {
        rcode: 0,
        authentic_data: false,
        authoritative: false,
        answers: 1,
        authorities: 0,
        ttl_secs: 3600,
        stored: clock::now(),
        restored: false,
        ..Head::EMPTY
    };
    for index in 0..ENTRIES {
        let name = parse(&format!("n{index}.example")).expect("a name");
        let key = Key {
            name: &name,
            qtype: 1,
            dnssec_ok: false,
            checking_disabled: false,
            view: 0,
        };
        CACHE.insert(
            &key,
            &head,
            b"\xc0\x0c\0\x01\0\x01\0\0\x01\x2c\0\x04\xc0\0\x02\x01",
        );
    }
}

fn configure() {
    CACHE.configure(*b"sixteen bytes ..", 8192).expect("memory");
}

fn store(folder: &Path) -> Store {
    Store::new(&folder.join("cache"), 86_400)
}

/// Runs the test `name` of this executable again, under `wrapper`, with `folder` to work in.
fn again(wrapper: &[&str], name: &str, folder: &Path) -> Command {
    let executable = std::env::current_exe().expect("this executable");
    let mut words: Vec<String> = wrapper.iter().map(|word| (*word).to_owned()).collect();
    words.push(executable.display().to_string());
    let mut command = Command::new(&words[0]);
    command
        .args(&words[1..])
        .args(["--exact", "--nocapture", name])
        .env(FOLDER, folder);
    command
}

fn folder(test: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("xdnsd-store-{}-{test}", std::process::id()));
    // An earlier process of this number was killed.
    let _ = fs::remove_dir_all(&path);
    fs::create_dir(&path).expect("a new folder");
    path
}

#[test]
fn kill_9_in_the_middle_of_writing_costs_nothing_that_was_written() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        configure();
        fill();
        let store = store(Path::new(&folder));
        loop {
            store.save(&CACHE).expect("a folder to write to");
        }
    }
    let folder = folder("kill");
    let newest = folder.join("cache");
    let name = "kill_9_in_the_middle_of_writing_costs_nothing_that_was_written";
    configure();
    fill();
    let entries = CACHE.len();
    let mut unfinished = 0;
    for kill in 0..KILLS {
        let _ = fs::remove_file(&newest);
        let _ = fs::remove_file(folder.join("cache.old"));
        let mut child = Killed(
            again(&[], name, &folder)
                .stdout(Stdio::null())
                .spawn()
                .expect("a child"),
        );
        wait_until("a first snapshot", PATIENCE, || newest.exists()).expect("it writes");
        // Spread over one and a half saves, so that every stage is hit.
        thread::sleep(Duration::from_micros(u64::from(kill) * 700));
        child.0.kill().expect("it runs");
        let status = child.0.wait().expect("it was killed");
        assert_eq!(status.signal(), Some(9), "it was writing until then");
        unfinished += u32::from(folder.join("cache.tmp").exists());
        CACHE.clear();
        let restored = store(&folder).load(&CACHE, clock::now());
        assert_eq!(
            (restored.answers, restored.broken),
            (entries, 0),
            "kill {kill}: {restored}"
        );
    }
    assert!(unfinished > 0, "some kills hit a save");
    store(&folder)
        .save(&CACHE)
        .expect("what was left behind is in nobody's way");
    assert!(!folder.join("cache.tmp").exists());
    fs::remove_dir_all(&folder).expect("the folder");
}

/// A child that does not outlive a failed test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the test `name` again in a mount namespace of its own, with a tmpfs over its folder.
fn on_tmpfs(name: &str, options: &str) {
    if !root_or_skip(name) {
        return;
    }
    let folder = folder(name);
    let mount = format!(
        "mount -t tmpfs -o {options} none {} && exec \"$0\" \"$@\"",
        folder.display()
    );
    let output = again(&["unshare", "-m", "sh", "-c", &mount], name, &folder).output();
    let output = output.expect("unshare(1)");
    fs::remove_dir(&folder).expect("an empty folder: the tmpfs went with its namespace");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}"
    );
}

#[test]
fn a_full_disk_keeps_the_snapshot_that_is_there() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else {
        return on_tmpfs("a_full_disk_keeps_the_snapshot_that_is_there", "size=512k");
    };
    configure();
    let store = store(&folder);
    assert_eq!(store.save(&CACHE).expect("an empty snapshot fits"), 0);
    let before = fs::read(folder.join("cache")).expect("the snapshot");
    fs::write(folder.join("filler"), vec![0; 480 * 1024]).expect("almost all of the room");
    fill();
    for _ in 0..3 {
        let error = store.save(&CACHE).expect_err("there is no room");
        assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
        let newest = folder.join("cache");
        assert!(
            error
                .to_string()
                .starts_with(&format!("{}: ", newest.display())),
            "{error}"
        );
        assert!(!folder.join("cache.tmp").exists(), "the room is given back");
        assert_eq!(fs::read(newest).expect("the snapshot"), before);
    }
    fs::remove_file(folder.join("filler")).expect("the filler");
    assert_eq!(
        store.save(&CACHE).expect("there is room again"),
        CACHE.len()
    );
}

#[test]
fn a_read_only_disk_is_an_error_and_is_read() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else {
        return on_tmpfs("a_read_only_disk_is_an_error_and_is_read", "size=512k");
    };
    configure();
    fill();
    let (store, entries) = (store(&folder), CACHE.len());
    store.save(&CACHE).expect("a folder to write to");
    let remount = Command::new("mount")
        .args(["-o", "remount,ro"])
        .arg(&folder)
        .status();
    assert!(remount.expect("mount(8)").success());
    let error = store.save(&CACHE).expect_err("it is read-only");
    assert_eq!(error.kind(), ErrorKind::ReadOnlyFilesystem, "{error}");
    CACHE.clear();
    assert_eq!(store.load(&CACHE, clock::now()).answers, entries);
}
