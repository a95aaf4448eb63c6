//! Tests of the thread of policy: what a reload takes, what it tells, and when a replaced set is freed.

use super::*;
use crate::control::commands::PolicyReader as _;
use crate::testing::{Folder, plan_with};
use crate::worker::Inbox;
use std::path::Path;
use std::sync::Weak;
use std::sync::atomic::{AtomicBool, Ordering};
use xdnsd_lab::wait::wait_until;

const TIMEOUT: Duration = Duration::from_secs(20);

fn config(text: &str) -> Config {
    let text = format!(
        "[[interface]]\nname = \"lo\"\n[[upstream]]\nname = \"up\"\nservers = [\"192.0.2.1\"]\n{text}"
    );
    Config::parse("test.toml", &text).expect("valid")
}

fn start(text: &str) -> (PolicyThread, &'static [Inbox]) {
    start_with(Path::new("test.toml"), &config(text))
}

fn start_with(file: &Path, config: &Config) -> (PolicyThread, &'static [Inbox]) {
    let plan = plan_with("192.0.2.1:53");
    let thread = PolicyThread::start(file.into(), config, &plan, Prefixes::default());
    let thread = thread.expect("started");
    thread.wait_read();
    let inboxes: &'static [Inbox] = Vec::leak(vec![Inbox::new().expect("a inbox")]);
    (thread, inboxes)
}

/// Stands for a worker that serves under its policy until it takes the next command.
#[test]
fn a_set_is_freed_when_the_last_worker_has_left_it() {
    let folder = Folder::new();
    let list = folder.write("ads.txt", "ads.example\n");
    let (thread, inboxes) = start(&format!("[filter]\nblock_files = [{list:?}]\n"));
    let mut serving = thread.set();
    thread.serve(inboxes);
    let old: Weak<PolicySet> = Arc::downgrade(&serving);
    assert_eq!(serving.listed_names(), 1);
    std::fs::write(&list, "ads.example\nmore.example\n").expect("written");
    wait_until("the new list is in force", TIMEOUT, || {
        thread.set().listed_names() == 2
    })
    .expect("taken");
    // When this is answered, all work on the new list is done.
    let _ = thread.requester().reload();
    assert_eq!(
        old.strong_count(),
        2,
        "a worker serves under it, and is not the last to leave"
    );
    serving = thread.set();
    wait_until("the old one is freed", TIMEOUT, || old.upgrade().is_none()).expect("freed");
    assert_eq!(serving.listed_names(), 2);
}

/// Stands for a worker in the middle of a turn: its next answer is by the new set.
#[test]
fn a_reload_is_answered_when_no_worker_serves_under_the_old_set() {
    let folder = Folder::new();
    let text = "[[interface]]\nname = \"lo\"\n[[upstream]]\nservers = [\"192.0.2.1\"]\n";
    let file = folder.write("test.toml", text);
    let (thread, _) = start_with(&file, &config(""));
    let (serving, watch) = (thread.set(), thread.watch());
    let has_left = Arc::new(AtomicBool::new(false));
    let leaves = Arc::clone(&has_left);
    let worker = std::thread::spawn(move || {
        let is_new = || !Arc::ptr_eq(&watch(), &serving);
        wait_until("there is a new set", TIMEOUT, is_new).expect("one");
        leaves.store(true, Ordering::Release);
        drop(serving);
    });
    let lines = thread.requester().reload().expect("reloaded");
    assert!(has_left.load(Ordering::Acquire), "{lines:?}");
    assert_eq!(lines.last().map(String::as_str), Some(RELOADED));
    worker.join().expect("it has left");
}

#[test]
fn a_reload_tells_what_it_has_taken_and_what_takes_a_start() {
    let folder = Folder::new();
    let text =
        "[[interface]]\nname = \"lo\"\n[[upstream]]\nname = \"up\"\nservers = [\"192.0.2.1\"]\n";
    let file = folder.write("test.toml", text);
    let (thread, _) = start_with(&file, &config(""));
    let reload = |more: &str| {
        folder.write("test.toml", format!("{text}{more}"));
        let mut lines = thread.requester().reload().expect("reloaded");
        assert_eq!(lines.pop().as_deref(), Some(RELOADED));
        lines
    };
    let nothing = "changed in the config: nothing";
    assert_eq!(reload(""), [nothing]);
    let at_start = "from the next start on: cache.entries";
    let of_this = "changed in the config: nothing that a reload takes over";
    assert_eq!(reload("[cache]\nentries = 7\n"), [at_start, of_this]);
    let more = "[cache]\nmax_ttl = 60\nentries = 7\n[local]\nzones = [\"lan\"]\n";
    assert_eq!(
        reload(more),
        [
            at_start,
            "changed in the config: cache.max_ttl, local.zones"
        ]
    );
    assert_eq!(thread.set().settings().ttl.max_secs, 60);
    // As long as it differs from what the start took.
    assert_eq!(reload(more), [at_start, nothing]);
    assert_eq!(
        reload(""),
        ["changed in the config: cache.max_ttl, local.zones"]
    );
}

/// Listeners are as the start made them.
#[test]
fn what_is_missing_is_awaited_by_whoever_serves_it() {
    let folder = Folder::new();
    let write = |name: &str| {
        let upstream = "[[upstream]]\nservers = [\"192.0.2.1\", \"fe80::1%nosuch3\"]\n";
        let text = format!("[[interface]]\nname = \"{name}\"\n{upstream}");
        folder.write("test.toml", text)
    };
    let started = Config::load(&write("nosuch1")).expect("a config");
    let (thread, _) = start_with(&write("nosuch1"), &started);
    for (name, expected) in [("nosuch1", [2, 0]), ("nosuch2", [1, 1])] {
        write(name);
        let told = thread.requester().reload().expect("reloaded").join("\n");
        let ends = ["; the rest is served, ", "; a start takes it, "];
        let found = ends.map(|end| told.matches(end).count());
        assert_eq!(found, expected, "{told}");
    }
}

/// Clients of a new address are let in before anybody listens on it.
#[test]
fn addresses_are_followed_before_whoever_has_them_let_in_goes_on() {
    let (thread, inboxes) = start("");
    thread.serve(inboxes);
    for number in 1..50 {
        let mut plan = Plan::default();
        plan.links.own_addresses = vec![[192, 0, 2, number].into()];
        let before = thread.set();
        let (reply, done) = mpsc::channel();
        let request = ReloadRequest::LetIn(Box::new(plan), reply);
        assert!(thread.requester().ask(request));
        done.recv_timeout(TIMEOUT).expect("they are followed");
        assert!(!Arc::ptr_eq(&before, &thread.set()), "{number}");
    }
}

#[test]
fn whoever_asks_for_a_reload_is_told_what_failed() {
    let (thread, _) = start("");
    let lines = thread.requester().reload().expect_err("no such file");
    assert!(
        lines[0].starts_with("not reloaded, all stays as it was: test.toml: "),
        "{lines:?}"
    );
}

/// Such as a server in the zone of a missing interface: the reload succeeds, but that server is not asked.
#[test]
fn whoever_asks_for_a_reload_is_told_what_is_not_there() {
    let folder = Folder::new();
    let text = "[[interface]]\nname = \"lo\"\n[[upstream]]\nservers = [\"fe80::1%no-such\"]\n";
    let file = folder.write("test.toml", text);
    let (thread, _) = start_with(&file, &config(""));
    let lines = thread.requester().reload().expect("it may come later");
    let server = ":4:12: upstream.servers: [fe80::1%no-such]:53: no such interface; ";
    assert!(lines[0].contains(server), "{lines:?}");
    assert_eq!(lines.last().map(String::as_str), Some(RELOADED));
}

/// A storm of SIGHUPs, or of addresses that come and go, while a file is read.
#[test]
fn what_is_asked_for_again_and_again_is_done_once_and_with_the_newest_addresses() {
    let (requester, asked) = Requester::new().expect("an eventfd");
    for zone in 1..=1_000 {
        requester.reload_later();
        requester.follow(Plan {
            servers: vec![Vec::new(); zone],
            ..Plan::default()
        });
    }
    assert!(requester.ask(ReloadRequest::Serve(&[])));
    assert!(matches!(asked.next(), Ok(ReloadRequest::Serve(_))));
    let Ok(ReloadRequest::Follow(plan)) = asked.next() else {
        panic!("the addresses")
    };
    assert_eq!(plan.servers.len(), 1_000);
    assert!(matches!(asked.next(), Ok(ReloadRequest::Reload(None))));
    assert!(matches!(asked.next(), Err(TryRecvError::Empty)));
    drop(requester);
    assert!(matches!(asked.next(), Err(TryRecvError::Disconnected)));
}

/// A FIFO without a writer: opening it blocks.
#[test]
fn a_start_waits_for_no_fifo() {
    let folder = Folder::new();
    let fifo = folder.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
    let good = folder.write("good.txt", "good.example\n");
    let (thread, _) = start(&format!(
        "[filter]\nblock_files = [{fifo:?}, {good:?}]\n[local]\nhosts = [{fifo:?}]\n"
    ));
    assert_eq!(thread.set().listed_names(), 1);
}
