//! The cache for an operator: shown, flushed, and carried over restarts and crashes by its snapshot.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use xdnsd_core::counters::Counter;
use xdnsd_lab::wait::wait_until;

use crate::support::TIMEOUT;
use crate::support::client::{Family, RawClient};
use crate::support::daemon::{BINARY, Daemon};
use crate::support::message::{addresses, query, query_edns, ttl};
use crate::support::preload;
use crate::support::run::Run;
use crate::support::scene::{Scene, Setup, scene};
use crate::support::script::Rule;

/// Answers that a test puts into the cache.
const NAMES: usize = 50;
/// TTL of a stale answer (RFC 8767 section 5.11).
const STALE_TTL_SECS: u32 = 30;
/// The first record in the snapshot is at least this far behind the beginning.
const HEADER_LEN_MAX: usize = 64;

fn with_snapshot(interval_secs: u32) -> Setup {
    Setup::default().sections(&format!(
        "[cache]\nsnapshot = \"{{directory}}/cache\"\nsnapshot_interval_secs = {interval_secs}"
    ))
}

fn fill(scene: &Scene) -> Result<()> {
    scene
        .upstream
        .on("*.test.", Rule::addresses(300, &["192.0.2.1"]));
    let client = scene.raw_client()?;
    for number in 0..NAMES {
        ask(&client, number)?;
    }
    Ok(())
}

fn ask(client: &RawClient, number: usize) -> Result<()> {
    let name = format!("n{number}.test.");
    let answer = client.ask(Family::V4, &query(&name, RecordType::A))?;
    assert_eq!(addresses(&answer), ["192.0.2.1"]);
    Ok(())
}

/// Answers in a dump. Each is followed by its records, which begin with spaces.
fn entries(dumped: &str) -> usize {
    let lines = dumped.lines();
    lines.filter(|line| !line.starts_with(' ')).count()
}

fn snapshot(scene: &Scene) -> PathBuf {
    scene.directory.path().join("cache")
}

/// Asks for every name while no upstream answers, and returns how many were answered from the cache.
fn count_restored(scene: &Scene) -> Result<usize> {
    let before = scene.daemon.metrics()?;
    scene.upstream.on("*.test.", Rule::silence());
    let dumped = scene.daemon.control("cache dump")?;
    let restored: Vec<usize> = (0..NAMES)
        .filter(|number| dumped.contains(&format!("n{number}.test. A ")))
        .collect();
    let client = scene.raw_client()?;
    for number in &restored {
        ask(&client, *number)?;
    }
    let now = scene.daemon.metrics()?;
    let hits = now.growth(&before, &Counter::CacheHits) + now.growth(&before, &Counter::CacheStale);
    assert_eq!(usize::try_from(hits)?, restored.len());
    scene
        .daemon
        .wait_growth(&before, &[(&Run::this().answers(), hits)])?;
    Ok(restored.len())
}

#[test]
fn the_cache_is_shown_and_flushed() -> Result<()> {
    let scene = scene!(Setup::default());
    fill(&scene)?;
    let socket = scene.directory.path().join("sock").display().to_string();
    let xdnsd = |words: &[&str]| -> Result<String> {
        let mut command = scene.lab.router.command(BINARY);
        let output = command.args(words).args(["--socket", &socket]).output()?;
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        Ok(String::from_utf8(output.stdout)?)
    };
    let dumped = xdnsd(&["cache", "dump"])?;
    assert_eq!(entries(&dumped), NAMES, "{dumped}");
    let one = xdnsd(&["cache", "dump", "n7.test"])?;
    assert!(
        one.starts_with("n7.test. A ") && entries(&one) == 1,
        "{one}"
    );
    assert!(one.contains("NOERROR") && one.contains("ttl "), "{one}");
    let record: Vec<&str> = one.lines().nth(1).unwrap_or_default().split(' ').collect();
    assert_eq!(record[..3], ["", "", "n7.test."], "{one}");
    assert_eq!(record[4..], ["IN", "A", "192.0.2.1"], "{one}");
    xdnsd(&["cache", "flush", "N7.test"])?;
    assert_eq!(entries(&xdnsd(&["cache", "dump"])?), NAMES - 1);
    let client = scene.raw_client()?;
    ask(&client, 7)?;
    ask(&client, 8)?;
    assert_eq!(scene.upstream.asked("n7.test.").len(), 2, "asked for anew");
    assert_eq!(scene.upstream.asked("n8.test.").len(), 1, "still there");
    xdnsd(&["cache", "flush"])?;
    assert_eq!(xdnsd(&["cache", "dump"])?, "");
    ask(&client, 8)?;
    assert_eq!(scene.upstream.asked("n8.test.").len(), 2);
    Ok(())
}

#[test]
fn a_full_cache_makes_room_and_says_so() -> Result<()> {
    const ENTRIES: u64 = 16;
    let setup = Setup::default().sections(&format!("[cache]\nentries = {ENTRIES}"));
    let scene = scene!(setup);
    let before = scene.daemon.metrics()?;
    fill(&scene)?;
    let dumped = scene.daemon.control("cache dump")?;
    let kept = u64::try_from(entries(&dumped))?;
    assert!((1..=ENTRIES).contains(&kept), "{dumped}");
    let names = u64::try_from(NAMES)?;
    scene.daemon.wait_growth(
        &before,
        &[
            (&Counter::CacheInserts, names),
            (&Counter::CacheEvictions, names - kept),
        ],
    )
}

#[test]
fn a_restart_keeps_the_cache() -> Result<()> {
    // The interval is longer than the test: the file was written at the end.
    let mut scene = scene!(with_snapshot(3600));
    fill(&scene)?;
    scene.daemon.terminate()?;
    scene.daemon.start_again(&scene.lab)?;
    let log = scene.daemon.log();
    assert!(
        log.contains(&format!("restored {NAMES} answers from")),
        "{log}"
    );
    assert_eq!(count_restored(&scene)?, NAMES);
    Ok(())
}

/// Restarts the daemon on a machine with this state of the kernel's clock.
fn restart_with_clock(scene: &mut Scene, clock: &str) -> Result<()> {
    let folder = scene.directory.path().to_owned();
    let library = preload::compile("clock_says", &folder)?;
    scene.daemon.terminate()?;
    let mut command = scene.lab.router.command(BINARY);
    let config = folder.join("config.toml");
    command.arg("run").arg(&config);
    command.env("LD_PRELOAD", library).env("CLOCK", clock);
    scene.daemon = Daemon::start_command(command, &config, &folder.join("sock"))?;
    Ok(())
}

/// Answers that were stored with the first state of the clock, and are restored with the second.
fn restore(clocks: [&str; 2]) -> Result<Option<(Scene, Message)>> {
    let test = "restored_answers_are_as_old_as_they_are_or_stale_where_nobody_knows";
    let Some(mut scene) = Scene::set(test, &with_snapshot(3600))? else {
        return Ok(None);
    };
    restart_with_clock(&mut scene, clocks[0])?;
    fill(&scene)?;
    restart_with_clock(&mut scene, clocks[1])?;
    let client = scene.raw_client()?;
    let answer = client.ask(Family::V4, &query_edns("n1.test.", RecordType::A, 1232))?;
    assert_eq!(addresses(&answer), ["192.0.2.1"]);
    Ok(Some((scene, answer)))
}

#[test]
fn restored_answers_are_as_old_as_they_are_or_stale_where_nobody_knows() -> Result<()> {
    let Some((scene, answer)) = restore(["set", "set"])? else {
        return Ok(());
    };
    assert!(!scene.daemon.log().contains("unknown age"));
    assert!((200..=300).contains(&ttl(&answer)), "{answer}");
    assert_eq!(scene.upstream.asked("n1.test.").len(), 1);
    // Without a clock: stale, marked so (RFC 8914 section 4.4), and refreshed in the background. The log says why.
    for (clocks, why) in [
        (
            ["set", "not set"],
            "the kernel says that the clock is not synchronised",
        ),
        (
            ["not set", "set"],
            "the clock was not synchronised when it was written",
        ),
    ] {
        let Some((scene, answer)) = restore(clocks)? else {
            return Ok(());
        };
        let told = format!(", of unknown age ({why}), to be served as stale\n");
        scene.daemon.wait_log_count(&told, 1)?;
        assert_eq!(ttl(&answer), STALE_TTL_SECS);
        let edns = answer.extensions().as_ref().expect("OPT");
        let reason = edns.option(EdnsCode::Unknown(15));
        assert!(
            matches!(reason, Some(EdnsOption::Unknown(15, data)) if data.starts_with(&[0, 3])),
            "{reason:?}"
        );
        let client = scene.raw_client()?;
        wait_until("it is refreshed", TIMEOUT, || {
            let answer = client.ask(Family::V4, &query("n1.test.", RecordType::A));
            answer.is_ok_and(|answer| ttl(&answer) > STALE_TTL_SECS)
        })?;
        assert_eq!(scene.upstream.asked("n1.test.").len(), 2);
    }
    Ok(())
}

#[test]
fn a_crash_costs_what_came_after_the_last_snapshot() -> Result<()> {
    let mut scene = scene!(with_snapshot(3600));
    fill(&scene)?;
    let saved = scene.daemon.control("cache save")?;
    assert!(saved.starts_with(&NAMES.to_string()), "{saved}");
    scene.daemon.kill()?;
    scene.daemon.start_again(&scene.lab)?;
    assert_eq!(count_restored(&scene)?, NAMES);
    Ok(())
}

/// Waits for this many seconds, and a bit.
fn wait_for_intervals(secs: u64) -> Result<()> {
    let (start, enough) = (Instant::now(), Duration::from_millis(1_000 * secs + 200));
    wait_until("the intervals are over", TIMEOUT, || {
        start.elapsed() > enough
    })
}

#[test]
fn a_snapshot_is_written_at_its_interval_where_something_changed() -> Result<()> {
    let scene = scene!(with_snapshot(1));
    fill(&scene)?;
    let file = snapshot(&scene);
    wait_until("the snapshot is there", TIMEOUT, || file.exists())?;
    let written = |file: &PathBuf| -> Result<_> { Ok(fs::metadata(file)?.modified()?) };
    // The first file may have been written while answers still came. After it nothing changes: no write, even after two
    // intervals. A new answer makes a new file.
    wait_for_intervals(2)?;
    let first = written(&file)?;
    wait_for_intervals(2)?;
    assert_eq!(written(&file)?, first, "flash is not worn for nothing");
    ask(&scene.raw_client()?, NAMES)?;
    wait_until("it is written again", TIMEOUT, || {
        written(&file).is_ok_and(|second| second > first)
    })
}

#[test]
fn crashes_in_the_middle_of_writing_lose_no_generation() -> Result<()> {
    const ROUNDS: u64 = 8;
    let mut scene = scene!(with_snapshot(3600));
    fill(&scene)?;
    scene.daemon.control("cache save")?;
    let socket = scene.directory.path().join("sock");
    for round in 0..ROUNDS {
        let is_over = AtomicBool::new(false);
        let saved = AtomicBool::new(false);
        thread::scope(|scope| -> Result<()> {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let mut out = Vec::new();
                    // Fails when the process is killed, which is the purpose.
                    let done = xdnsd::control::ask(&socket, "cache save", &mut out).is_ok();
                    saved.fetch_or(done, Ordering::Relaxed);
                }
            });
            let waited = wait_until("snapshots are written", TIMEOUT, || {
                saved.load(Ordering::Relaxed)
            });
            // At another moment of the save each time.
            thread::sleep(Duration::from_micros(700 * round));
            let killed = scene.daemon.kill();
            is_over.store(true, Ordering::Relaxed);
            waited?;
            killed.map(drop)
        })?;
        scene.daemon.start_again(&scene.lab)?;
        let log = scene.daemon.log();
        assert!(
            log.contains(&format!("restored {NAMES} answers from")),
            "{log}"
        );
        assert!(!log.contains("broken") && !log.contains("missing"), "{log}");
    }
    assert_eq!(count_restored(&scene)?, NAMES);
    Ok(())
}

#[test]
fn a_damaged_snapshot_costs_its_broken_records_and_stops_nothing() -> Result<()> {
    let mut scene = scene!(with_snapshot(3600));
    fill(&scene)?;
    scene.daemon.terminate()?;
    let file = snapshot(&scene);
    let whole = fs::read(&file)?;
    fs::remove_file(file.with_extension("old")).ok();
    let mut flipped = whole.clone();
    flipped[HEADER_LEN_MAX + 40] ^= 0x10;
    let foreign = fs::read(scene.directory.path().join("config.toml"))?;
    for (what, bytes, restored) in [
        ("flipped", flipped.as_slice(), NAMES - 2..=NAMES - 1),
        ("torn", &whole[..whole.len() / 2], NAMES / 3..=NAMES / 2),
        ("cut to the header's half", &whole[..7], 0..=0),
        ("empty", &[], 0..=0),
        ("foreign", &foreign, 0..=0),
    ] {
        fs::write(&file, bytes)?;
        scene.daemon.start_again(&scene.lab)?;
        let lines: Vec<String> = scene
            .daemon
            .log()
            .lines()
            .filter(|line| line.contains("snapshot: "))
            .map(str::to_owned)
            .collect();
        assert_eq!(lines.len(), 1, "one line says it: {lines:?}");
        let count = count_restored(&scene)?;
        assert!(restored.contains(&count), "{what}: {count}, {lines:?}");
        scene.daemon.kill()?;
    }
    Ok(())
}
