//! All at once, without a loss: a load with misses, a first upstream that is dead, and a compiled blocklist that is replaced
//! again and again.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use xdnsd_core::counters::Counter;
use xdnsd_lab::dnsperf::{self, Report};
use xdnsd_lab::lab::{LAN_V4, Lab, Spec, UPSTREAM_V4};
use xdnsd_lab::nsd::{Upstream, Zone};
use xdnsd_lab::privilege::root_or_skip;

use crate::support::daemon::{self, Daemon};
use crate::support::run::only;
use crate::support::scene::{Directory, Setup};

/// No host has this address.
const DEAD_V4: &str = "10.54.0.99";
/// Queries per second that the slowest machine with a debug build handles; below, for how long.
const RATE: u64 = 1_000;
const SECONDS: u64 = 10;
const QUESTIONS: u64 = RATE * SECONDS;
/// Of ten questions one is new and one is for a blocked name; the others were asked before.
const GROUP: u64 = 10;
const MISS: u64 = 0;
const BLOCKED: u64 = 1;
/// Different names among the repeated ones.
const HOT: u64 = 50;
/// Names of a blocklist.
const LISTED: u64 = 20_000;
/// Pause between two new lists.
const RELOAD_PAUSE: Duration = Duration::from_millis(100);
/// Minimum number of new lists, on a busy machine.
const RELOADS_MIN: usize = 10;

/// Compiles a list with `own.test`, the names that are asked for, and many others.
fn compile(directory: &Path, own: &str) -> Result<PathBuf> {
    let mut text = format!("blocked.churn.test\n{own}.test\n");
    for number in 0..LISTED {
        writeln!(text, "n{number}.{own}.example")?;
    }
    let names = daemon::write(directory, &format!("{own}.txt"), &text)?;
    let list = directory.join(format!("{own}.list"));
    let paths = [&list, &names].map(|path| path.display().to_string());
    let output = daemon::run(None, &["lists", "compile", &paths[0], &paths[1]])?;
    ensure!(output.status.success(), "{output:?}");
    Ok(list)
}

fn questions() -> String {
    let mut text = String::new();
    for number in 0..QUESTIONS {
        let name = match number % GROUP {
            MISS => format!("miss{number}"),
            BLOCKED => format!("ad{}.blocked", number / GROUP % HOT),
            _ => format!("hot{}", number % HOT),
        };
        writeln!(text, "{name}.churn.test A").expect("a String takes any text");
    }
    text
}

/// Replaces the list in use by one after the other and reloads, until `stop`. Returns the number of lists.
fn replace(daemon: &Daemon, lists: &[PathBuf; 2], used: &Path, stop: &AtomicBool) -> Result<usize> {
    let fresh = used.with_extension("new");
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        fs::copy(&lists[count % 2], &fresh).context("copy a list")?;
        fs::rename(&fresh, used).context("replace the list")?;
        daemon.control("reload")?;
        count += 1;
        thread::sleep(RELOAD_PAUSE);
    }
    Ok(count)
}

fn load(lab: &Lab, directory: &Path) -> Result<Report> {
    let file = daemon::write(directory, "questions", &questions())?;
    let mut command = dnsperf::command(&lab.client, LAN_V4.into(), &file);
    // Late is not lost: on a busy machine the upstream may be as slow as the dead one.
    command.args(["-n", "1", "-c", "8", "-t", "20", "-Q", &RATE.to_string()]);
    dnsperf::run(command)
}

#[test]
fn misses_a_dead_upstream_and_new_lists_lose_nothing() -> Result<()> {
    only!(ONCE, "a load over AF_XDP; load:: goes by each way");
    if !root_or_skip("misses_a_dead_upstream_and_new_lists_lose_nothing") {
        return Ok(());
    }
    let (lab, directory) = (Lab::up(&Spec::default())?, Directory::new()?);
    let directory = directory.path();
    let zone = Zone {
        origin: "churn.test.".to_owned(),
        text: "$ORIGIN churn.test.\n$TTL 300\n@ SOA ns hostmaster 1 3600 600 86400 60\n\
               @ NS ns\nns A 10.54.0.2\n* A 192.0.2.1\n"
            .to_owned(),
    };
    let _upstream = Upstream::start_with(&lab, directory, &[zone])?;
    let lists = [compile(directory, "one")?, compile(directory, "two")?];
    let used = directory.join("used.list");
    fs::copy(&lists[0], &used)?;
    let setup = Setup::default()
        .servers(&[DEAD_V4, &UPSTREAM_V4.to_string()])
        .sections("[filter]\ncompiled = [\"{directory}/used.list\"]");
    let config = daemon::write(directory, "config.toml", &setup.config(directory))?;
    let daemon = Daemon::start(&lab, &config, &directory.join("sock"))?;
    let before = daemon.metrics()?;
    let stop = AtomicBool::new(false);
    let (report, replaced) = thread::scope(|scope| {
        let replaced = scope.spawn(|| replace(&daemon, &lists, &used, &stop));
        let report = load(&lab, directory);
        stop.store(true, Ordering::Relaxed);
        (report, replaced.join().expect("no panic"))
    });
    let (report, replaced) = (report?, replaced?);
    let now = daemon.metrics()?;
    assert_eq!(
        (report.sent, report.lost),
        (QUESTIONS, 0),
        "{report:?}\n{}",
        now.text()
    );
    // All of the blocked names, and no others, were blocked with every list; no SERVFAIL.
    let blocked = QUESTIONS / GROUP;
    let answered = (report.code("NOERROR"), report.code("NXDOMAIN"));
    assert_eq!(answered, (QUESTIONS - blocked, blocked), "{report:?}");
    // The conditions held: new lists, a dead server that was asked, misses.
    assert!(replaced >= RELOADS_MIN, "{replaced} new lists");
    let log = daemon.log();
    let reloaded = log.matches("reloaded: ").count();
    assert!(
        reloaded >= RELOADS_MIN && !log.contains("not reloaded"),
        "{log}"
    );
    let growth = |counter| now.growth(&before, &counter);
    assert!(growth(Counter::UpstreamTimeouts) >= 3, "{}", now.text());
    assert!(
        growth(Counter::CacheMisses) >= QUESTIONS / GROUP,
        "{}",
        now.text()
    );
    assert_eq!(growth(Counter::Blocked), blocked, "{}", now.text());
    Ok(())
}
