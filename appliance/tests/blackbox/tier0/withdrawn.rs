//! When hot answers go: with a reload, a flush, what is switched, and the process. A name is asked for all the time meanwhile.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;
use xdnsd_lab::wait::wait_until;

use super::{answered, ask_until_hot, open, says, setup, www};
use crate::support::TIMEOUT;
use crate::support::client::{Family, RawClient, client_address};
use crate::support::frame::UdpFrame;
use crate::support::message::{addresses, answers as answers_of, read_answer};
use crate::support::run::only;
use crate::support::scene::{Scene, scene};
use crate::support::script::Rule;
use crate::support::upstream::SECOND_V4;

/// Rounds of reloads and flushes under load.
const ROUNDS: usize = 6;

/// Asks without a pause, and keeps each answer with the time of its question.
struct Hammer<'a> {
    client: &'a RawClient,
    frame: &'a UdpFrame,
    answered: AtomicUsize,
    is_over: AtomicBool,
}

impl<'a> Hammer<'a> {
    fn new(client: &'a RawClient, frame: &'a UdpFrame) -> Self {
        Self {
            client,
            frame,
            answered: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
        }
    }

    /// Times of the questions, with the addresses in their answers.
    fn run(&self) -> Result<Vec<(Instant, String)>> {
        let mut answers = Vec::new();
        while !self.is_over.load(Ordering::Relaxed) {
            let sent = Instant::now();
            let answer = self.client.exchange(self.frame)?;
            let answer = Message::from_vec(&answer)?;
            let address = answers_of(&answer, RecordType::A).pop();
            answers.push((sent, address.unwrap_or_default()));
            self.answered.store(answers.len(), Ordering::Relaxed);
        }
        Ok(answers)
    }

    /// Waits for this number of further answers: on a loaded machine that may take long.
    fn go_on(&self, more: usize) -> Result<()> {
        let enough = self.answered.load(Ordering::Relaxed) + more;
        wait_until("more is answered", TIMEOUT, || {
            self.answered.load(Ordering::Relaxed) >= enough
        })
    }

    /// Asks during `change`, and for a while after it. Questions sent after it has returned have to get `wanted`.
    fn over(&self, change: impl FnOnce() -> Result<()>, wanted: &str) -> Result<()> {
        const SOME: usize = 16;
        self.answered.store(0, Ordering::Relaxed);
        self.is_over.store(false, Ordering::Relaxed);
        let (answers, returned) = std::thread::scope(|scope| {
            let answers = scope.spawn(|| self.run());
            let begun = self.go_on(SOME);
            let changed = begun.and_then(|()| change());
            let returned = Instant::now();
            std::thread::sleep(Duration::from_millis(50));
            let gone_on = self.go_on(SOME);
            self.is_over.store(true, Ordering::Relaxed);
            let answers = answers.join().expect("no panic")?;
            changed.and(gone_on).map(|()| (answers, returned))
        })?;
        let (after, before): (Vec<_>, Vec<_>) =
            answers.iter().partition(|(sent, _)| *sent > returned);
        ensure!(before.len() > 1 && after.len() > 1, "{answers:?}");
        ensure!(
            after.iter().all(|(_, address)| address == wanted),
            "{wanted}: {after:?}"
        );
        Ok(())
    }
}

#[test]
fn after_a_reload_or_a_flush_no_old_answer_leaves() -> Result<()> {
    only!(ONCE, "the XDP program answers by itself");
    let local = |address: &str| {
        setup("on").sections(&format!("[local]\nrecords = [\"own.test A {address}\"]\n"))
    };
    let scene = scene!(local("192.0.2.8"));
    let (_program, client) = open(&scene)?;
    let frame = www(&client)?;
    let hammer = Hammer::new(&client, &frame);
    for round in 0..ROUNDS {
        let address = |step: usize| format!("192.0.2.{}", 10 + 2 * round + step);
        says(&scene, 3600, &address(0));
        scene.daemon.control("cache flush")?;
        ask_until_hot(&scene, &client, &frame)?;
        says(&scene, 3600, &address(1));
        let flush = ["cache flush", "cache flush www.test"][round % 2];
        hammer.over(|| scene.daemon.control(flush).map(drop), &address(1))?;
        // The name is local by now, and upstream's again after the next round.
        ask_until_hot(&scene, &client, &frame)?;
        let path = scene.directory.path();
        let own = setup("on").sections("[local]\nrecords = [\"www.test A 192.0.2.9\"]\n");
        fs::write(path.join("config.toml"), own.config(path))?;
        hammer.over(|| scene.daemon.control("reload").map(drop), "192.0.2.9")?;
        fs::write(path.join("config.toml"), local("192.0.2.8").config(path))?;
        scene.daemon.control("reload")?;
    }
    Ok(())
}

/// What a reload changes of the answer for `www.test.`.
struct Change {
    what: &'static str,
    /// More of the config, with `CLIENT` for the address of who asks.
    sections: &'static str,
    /// Names of the list.
    list: &'static str,
    /// The address from then on. Empty: there is none any more.
    wanted: &'static str,
}

impl Change {
    fn new(what: &'static str, sections: &'static str, wanted: &'static str) -> Self {
        Self {
            what,
            sections,
            list: "",
            wanted,
        }
    }

    /// Has it read.
    fn reload(&self, scene: &Scene) -> Result<()> {
        let path = scene.directory.path();
        fs::write(path.join("list"), format!("elsewhere.test\n{}", self.list))?;
        let client = client_address(Family::V4).to_string();
        let sections = self.sections.replace("CLIENT", &client);
        let setup = setup("on").sections(&sections);
        fs::write(path.join("config.toml"), setup.config(path))?;
        scene.daemon.control("reload").map(drop)
    }
}

const LIST: &str = "[filter]\nblock_files = [\"{directory}/list\"]\n";

/// The lists, the routes, who is answered, views, and what rebinding is.
#[test]
fn whatever_a_reload_changes_no_old_answer_leaves() -> Result<()> {
    only!(ONCE, "the XDP program answers by itself");
    let scene = scene!(setup("on"));
    let (_program, client) = open(&scene)?;
    let frame = www(&client)?;
    let hammer = Hammer::new(&client, &frame);
    says(&scene, 3600, "192.168.7.1");
    let other = Rule::addresses(3600, &["192.0.2.2"]);
    scene.upstream.on_server(SECOND_V4, "www.test.", other);
    let route =
        "[[upstream]]\nname = \"other\"\nservers = [\"10.54.0.3\"]\ndomains = [\"www.test\"]\n";
    let view = "[[view]]\nname = \"guests\"\nclients = [\"CLIENT\"]\nblock = [\"www.test\"]\n";
    for change in [
        Change {
            list: "www.test\n",
            ..Change::new("a list", LIST, "")
        },
        Change::new("a view", view, ""),
        Change::new("a route", route, "192.0.2.2"),
        Change::new("access", "[access]\nrefuse = [\"CLIENT\"]\n", ""),
        Change::new("rebinding", "[rebind]\nranges = [\"private\"]\n", ""),
    ] {
        // The list stands in the config before, and has other names.
        Change::new("", LIST, "").reload(&scene)?;
        ask_until_hot(&scene, &client, &frame)?;
        let changed = hammer.over(|| change.reload(&scene), change.wanted);
        changed.with_context(|| change.what)?;
    }
    Ok(())
}

/// Lists that are paused by hand, until they are not.
#[test]
fn when_lists_are_resumed_no_answer_of_the_pause_leaves() -> Result<()> {
    only!(ONCE, "the XDP program answers by itself");
    let scene = scene!(setup("on").sections("[filter]\nblock = [\"www.test\"]\n"));
    let (_program, client) = open(&scene)?;
    let frame = www(&client)?;
    let hammer = Hammer::new(&client, &frame);
    says(&scene, 3600, "192.0.2.1");
    for _ in 0..2 {
        scene.daemon.control("pause 1h")?;
        ask_until_hot(&scene, &client, &frame)?;
        hammer.over(|| scene.daemon.control("resume").map(drop), "")?;
    }
    Ok(())
}

/// The program goes with the process: nobody is answered until the next one starts, which knows no earlier answers.
#[test]
fn after_a_kill_under_load_no_old_answer_leaves() -> Result<()> {
    only!(ONCE, "the XDP program answers by itself");
    let mut scene = scene!(setup("on"));
    let (_program, asking) = open(&scene)?;
    let frame = www(&asking)?;
    for round in 0..3 {
        let client = scene.raw_client()?;
        let address = |step: usize| format!("192.0.2.{}", 10 + 2 * round + step);
        says(&scene, 3600, &address(0));
        ask_until_hot(&scene, &client, &frame)?;
        says(&scene, 3600, &address(1));
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| -> Result<()> {
            // Answers are not read here: it only keeps the load up.
            let load = scope.spawn(|| -> Result<()> {
                while !is_over.load(Ordering::Relaxed) {
                    asking.send(&frame.to_bytes())?;
                    std::thread::sleep(Duration::from_micros(50));
                }
                Ok(())
            });
            let checked = killed_and_started_again(&mut scene, &frame, &address(1));
            is_over.store(true, Ordering::Relaxed);
            load.join().expect("no panic")?;
            checked
        })?;
        scene.daemon.control("cache flush")?;
    }
    Ok(())
}

/// Asserts that every answer after the kill is from the next process.
fn killed_and_started_again(scene: &mut Scene, frame: &UdpFrame, wanted: &str) -> Result<()> {
    scene.daemon.kill()?;
    wait_until("the program is detached", TIMEOUT, || {
        scene.attached().is_ok_and(|mode| mode.is_empty())
    })?;
    // It sees no earlier answers.
    let client = scene.raw_client()?;
    let silence = client.next_for(frame, Duration::from_millis(100))?;
    ensure!(silence.is_none(), "nobody is there: {silence:02x?}");
    scene.daemon.start_again(&scene.lab)?;
    let deadline = Instant::now() + TIMEOUT;
    let mut count = 0;
    // Until the program answers.
    while answered(scene)? == 0 || count < 100 {
        ensure!(Instant::now() < deadline, "{count} answers");
        let Some(answer) = client.next_for(frame, Duration::from_millis(100))? else {
            continue;
        };
        let answer = read_answer(&frame.message, &answer)?;
        ensure!(addresses(&answer) == [wanted], "{answer}");
        count += 1;
    }
    Ok(())
}
