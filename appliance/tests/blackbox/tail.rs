//! `xdnsd tail`: queries and answers in lines, in a log file, for other programs, and frames of AF_XDP sockets.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use hickory_proto::rr::RecordType;
use serde_json::{Value, json};
use xdnsd_lab::lab::{CLIENT_V4, UPSTREAM_V4};
use xdnsd_lab::process::{End, Process, output_of};
use xdnsd_lab::wait::wait_until;

use crate::support::TIMEOUT;
use crate::support::client::{Family, RawClient};
use crate::support::daemon::{BINARY, run};
use crate::support::message::query;
use crate::support::run::{Run, only};
use crate::support::scene::{Scene, Setup, scene};
use crate::support::script::Rule;
use crate::support::ways::Way;

fn setup() -> Setup {
    Setup::default().sections("[filter]\nblock = [\"ads.test\"]\n")
}

/// A running `xdnsd tail`, and the file with its lines.
struct Tail {
    process: Process,
    lines: PathBuf,
}

impl Tail {
    /// Starts it with these options, and waits until it reads.
    fn start(scene: &Scene, client: &RawClient, options: &[&str]) -> Result<Self> {
        let tail = Self::spawn(scene, "lines", options)?;
        wait_until("the first query is told of", TIMEOUT, || {
            let asked = client.ask(Family::V4, &query("begin.ads.test.", RecordType::A));
            asked.is_ok() && tail.values().is_ok_and(|values| !values.is_empty())
        })?;
        Ok(tail)
    }

    fn spawn(scene: &Scene, lines: &str, options: &[&str]) -> Result<Self> {
        let mut command = scene.lab.router.command(BINARY);
        let socket = scene.directory.path().join("sock");
        command
            .arg("tail")
            .arg("--socket")
            .arg(socket)
            .args(options);
        let lines = scene.directory.path().join(lines);
        Ok(Self {
            process: Process::spawn_with_end(command, &lines, End::Kill)?,
            lines,
        })
    }

    fn values(&self) -> Result<Vec<Value>> {
        values(&self.lines)
    }

    /// Waits for a line about this name, and returns the one at `index` among them.
    fn about(&self, name: &str, index: usize) -> Result<Value> {
        let found = || -> Option<Value> {
            let values = self.values().ok()?;
            let mut named = values.into_iter().filter(|value| value["name"] == name);
            named.nth(index)
        };
        let what = format!("line {index} about {name} is told");
        wait_until(&what, TIMEOUT, || found().is_some())?;
        found().context("it was there")
    }
}

fn values(path: &Path) -> Result<Vec<Value>> {
    let text = fs::read_to_string(path)?;
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let read = whole.lines().map(serde_json::from_str);
    Ok(read.collect::<Result<_, _>>()?)
}

fn via() -> &'static str {
    match Run::this().way() {
        Way::Xdp => "xdp",
        Way::Udp => "udp",
        Way::Tcp => "tcp",
    }
}

fn ensure_has(value: &Value, expected: &[(&str, Value)]) -> Result<()> {
    for (key, expected) in expected {
        ensure!(value[*key] == *expected, "{key}, not {expected}: {value}");
    }
    Ok(())
}

#[test]
fn each_query_is_told_of_with_who_says_so_by_whatever_way_it_came() -> Result<()> {
    let scene = scene!(setup());
    let rule = || Rule::addresses(300, &["192.0.2.1"]);
    scene.upstream.on("www.test.", rule());
    let client = scene.raw_client()?;
    let mut tail = Tail::start(&scene, &client, &["--json"])?;
    for name in ["www.test.", "www.test.", "x.ads.test."] {
        client.ask(Family::V4, &query(name, RecordType::A))?;
    }
    let upstream = json!(format!("{UPSTREAM_V4}:53"));
    for (name, index, rcode, why, upstream) in [
        ("www.test.", 0, "NOERROR", "upstream", upstream),
        ("www.test.", 1, "NOERROR", "cache", Value::Null),
        ("x.ads.test.", 0, "NXDOMAIN", "blocked", Value::Null),
    ] {
        let value = tail.about(name, index)?;
        let expected = [
            ("via", json!(via())),
            ("client", json!(CLIENT_V4.to_string())),
            ("type", json!("A")),
            ("rcode", json!(rcode)),
            ("why", json!(why)),
            ("upstream", upstream),
        ];
        ensure_has(&value, &expected)?;
        let is_time = value["us"].as_u64().is_some_and(|us| us > 0)
            && value["time_ms"]
                .as_u64()
                .is_some_and(|ms| ms > 1_700_000_000_000)
            && value["port"].as_u64().is_some_and(|port| port > 0);
        ensure!(is_time, "{value}");
    }
    let socket = scene.directory.path().join("sock").display().to_string();
    let screen = run(Some(&scene.lab), &["top", "--once", "--socket", &socket])?;
    let screen = String::from_utf8(screen.stdout)?;
    ensure!(
        screen.contains(" queries/s  hits ") && screen.contains(&UPSTREAM_V4.to_string()),
        "{screen}"
    );
    // The server ends, and the reader reports it.
    let mut scene = scene;
    scene.daemon.terminate()?;
    ensure!(!tail.process.wait_exit(TIMEOUT)?.success());
    let said = fs::read_to_string(&tail.lines)?;
    ensure!(said.ends_with("xdnsd has ended\n"), "{said}");
    Ok(())
}

#[test]
fn readers_that_are_killed_make_room_and_the_daemon_serves_on() -> Result<()> {
    only!(ONCE, "the control socket, whatever way queries come");
    let scene = scene!(setup());
    let client = scene.raw_client()?;
    let names = |name: &str| ["--json", "--blocked", "--name", name].map(str::to_owned);
    for _ in 0..2 {
        let mut readers = Vec::new();
        for number in 0..4 {
            let options = names(&format!("r{number}.ads.test"));
            let options: Vec<&str> = options.iter().map(String::as_str).collect();
            let mut tail = Tail::spawn(&scene, &format!("lines-{number}"), &options)?;
            wait_until("this reader reads", TIMEOUT, || {
                let name = format!("a.r{number}.ads.test.");
                let asked = client.ask(Family::V4, &query(&name, RecordType::A));
                let told = tail.about_now(&name);
                asked.is_ok() && (told || tail.has_ended())
            })?;
            ensure!(!tail.has_ended(), "refused: {}", tail.process.log());
            readers.push(tail);
        }
        let socket = scene.directory.path().join("sock").display().to_string();
        let fifth = run(Some(&scene.lab), &["tail", "--socket", &socket])?;
        let said = String::from_utf8_lossy(&fifth.stderr);
        ensure!(
            fifth.status.code() == Some(1) && said.contains("4 read already"),
            "{said}"
        );
        for reader in &mut readers {
            reader.process.kill()?;
        }
    }
    client.ask(Family::V4, &query("x.ads.test.", RecordType::A))?;
    Ok(())
}

impl Tail {
    fn about_now(&self, name: &str) -> bool {
        let is_named = |value: &Value| value["name"] == name;
        self.values()
            .is_ok_and(|values| values.iter().any(is_named))
    }

    fn has_ended(&mut self) -> bool {
        !self.process.is_running()
    }
}

#[test]
fn tools_of_others_read_messages_and_frames_that_tcpdump_does_not_see() -> Result<()> {
    only!(ONCE, "frames of AF_XDP sockets");
    let scene = scene!(setup());
    let rule = || Rule::addresses(300, &["192.0.2.1"]);
    scene.upstream.on("www.test.", rule());
    let client = scene.raw_client()?;
    let file = |name: &str| scene.directory.path().join(name).display().to_string();
    let [log, tap, frames, socket] = ["queries.log", "tap", "frames.pcap", "tap.sock"].map(file);
    let captured = file("captured");
    let mut command = Command::new("fstrm_capture");
    command.args([
        "-t",
        "protobuf:dnstap.Dnstap",
        "-u",
        &socket,
        "-w",
        &captured,
    ]);
    let mut capture = Process::spawn(command, Path::new(&file("capture.log")))?;
    wait_until("fstrm_capture listens", TIMEOUT, || {
        Path::new(&socket).exists()
    })?;
    let unix = format!("unix:{socket}");
    let mut to_socket = Tail::spawn(&scene, "to-socket", &["--dnstap", &unix])?;
    let options = [
        "--json", "--log", &log, "--rotate", "4K", "--keep", "2", "--dnstap", &tap, "--pcap",
        &frames,
    ];
    let mut to_files = Tail::spawn(&scene, "to-files", &options)?;
    let has = |path: &str, what: &str| fs::read(path).is_ok_and(|bytes| contains(&bytes, what));
    wait_until("both read", TIMEOUT, || {
        let said = scene.daemon.control("stats");
        said.is_ok_and(|said| said.contains("\nxdnsd_tap_readers 2\n"))
    })?;
    for _ in 0..2 {
        client.ask(Family::V4, &query("www.test.", RecordType::A))?;
    }
    for number in 0..40 {
        let name = format!("name-{number}.ads.test.");
        client.ask(Family::V4, &query(&name, RecordType::A))?;
    }
    wait_until("all is written", TIMEOUT, || {
        has(&log, "name-39.ads.test.") && has(&tap, "name-39") && has(&frames, "name-39")
    })?;
    for tail in [&mut to_files, &mut to_socket] {
        ensure!(
            tail.process.terminate()?.success(),
            "{}",
            tail.process.log()
        );
    }
    ensure!(Path::new(&format!("{log}.1")).exists(), "it was moved away");
    ensure!(!values(Path::new(&log))?.is_empty());
    ensure_frames(&frames)?;
    ensure_messages(&tap)?;
    // It flushes when it ends.
    capture.terminate()?;
    ensure_messages(&captured)
}

fn contains(bytes: &[u8], what: &str) -> bool {
    bytes
        .windows(what.len())
        .any(|part| part == what.as_bytes())
}

/// Checks the capture with tshark: a query and its answer, twice, with correct checksums.
fn ensure_frames(path: &str) -> Result<()> {
    let mut tshark = Command::new("tshark");
    tshark.args(["-n", "-r", path, "-o", "udp.check_checksum:TRUE"]);
    tshark.args([
        "-Y",
        "dns.qry.name == \"www.test\" && udp.checksum.status == 1",
    ]);
    tshark.args([
        "-T",
        "fields",
        "-e",
        "dns.flags.response",
        "-e",
        "dns.a",
        "-e",
        "ip.src",
    ]);
    let said = output_of(&mut tshark)?;
    let lines: Vec<Vec<&str>> = said
        .lines()
        .map(|line| line.split('\t').collect())
        .collect();
    ensure!(lines.len() == 4, "two queries, two answers: {said}");
    for pair in lines.chunks(2) {
        let is_query = ["0", "False"].contains(&pair[0][0]) && pair[0][2] == CLIENT_V4.to_string();
        let is_answer = ["1", "True"].contains(&pair[1][0]) && pair[1][1] == "192.0.2.1";
        ensure!(is_query && is_answer, "{said}");
    }
    Ok(())
}

/// Checks the stream with dnstap-ldns.
fn ensure_messages(path: &str) -> Result<()> {
    let said = output_of(Command::new("dnstap-ldns").args(["-q", "-r", path]))?;
    let about = |what: &str| {
        let is_meant = |line: &&str| {
            line.contains(what)
                && line.contains("www.test.")
                && line.contains(&CLIENT_V4.to_string())
        };
        said.lines().filter(is_meant).count()
    };
    ensure!((about(" CQ "), about(" CR ")) == (2, 2), "{said}");
    ensure!(said.contains("UDP"), "{said}");
    let yaml = output_of(Command::new("dnstap-ldns").args(["-y", "-r", path]))?;
    ensure!(
        yaml.contains("CLIENT_RESPONSE") && yaml.contains("192.0.2.1") && yaml.contains("xdnsd 0"),
        "{yaml}"
    );
    Ok(())
}
