//! Start, stop, crash and changes of the interface: port 53 is never a black hole.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use hickory_proto::rr::RecordType;
use nix::sys::signal::Signal;
use xdnsd::control::memory::Capacities;
use xdnsd_abi::{HEARTBEAT_STALE_NS, Reason};
use xdnsd_core::counters::Counter;
use xdnsd_core::dns::rtype;
use xdnsd_lab::lab::{LAN, LAN_V4, Lab};
use xdnsd_lab::wait::wait_until;

use crate::support::TIMEOUT;
use crate::support::ask::Ask;
use crate::support::client::{DNS_PORT, Family, Fate, UdpClient};
use crate::support::daemon::{BINARY, Daemon};
use crate::support::frame::UdpFrame;
use crate::support::message::{addresses, query, wire};
use crate::support::run::{Run, only};
use crate::support::scene::{Scene, Setup, scene};
use crate::support::script::Rule;
use crate::support::stream::Stream;
use crate::support::view::View;
use crate::support::ways::{Way, Ways};

/// A query that is neither answered nor refused within this time was swallowed.
const FATE_WITHIN: Duration = Duration::from_secs(1);
/// Longer than most answers take.
const MOMENT: Duration = Duration::from_millis(200);

fn address_of_www(client: &UdpClient) -> Result<Vec<String>> {
    Ok(addresses(&client.ask(&query("www.test.", RecordType::A))?))
}

/// Fate of one query for `www.test.`.
fn fate(client: &UdpClient) -> Fate {
    client.try_ask(&wire(&query("www.test.", RecordType::A)), FATE_WITHIN)
}

/// Lifts ICMP rate limits, so that the kernel refuses every query of a test.
fn lift_icmp_limits(lab: &Lab) -> Result<()> {
    lab.router.write("/proc/sys/net/ipv4/icmp_ratelimit", "0")?;
    lab.router
        .write("/proc/sys/net/ipv4/icmp_msgs_per_sec", "1000000")?;
    lab.router
        .write("/proc/sys/net/ipv4/icmp_msgs_burst", "1000000")?;
    lab.router.write("/proc/sys/net/ipv6/icmp/ratelimit", "0")
}

#[test]
fn sigterm_ends_it_with_success_and_detaches() -> Result<()> {
    let mut scene = scene!(Setup::default());
    scene
        .upstream
        .on("www.test.", Rule::addresses(300, &["192.0.2.1"]));
    let client = scene.udp_client(Family::V4)?;
    assert_eq!(address_of_www(&client)?, ["192.0.2.1"]);
    assert_eq!(scene.attached()?, Run::this().attached());
    let status = scene.daemon.terminate()?;
    assert_eq!(status.code(), Some(0), "{status}");
    assert_eq!(scene.attached()?, "");
    assert_eq!(fate(&client), Fate::Refused);
    assert!(!scene.directory.path().join("sock").exists());
    Ok(())
}

/// Signals on which dnsmasq writes statistics and opens its log anew: they end no other server.
#[test]
fn signals_for_other_servers_end_nothing() -> Result<()> {
    let mut scene = scene!(Setup::default());
    scene
        .upstream
        .on("www.test.", Rule::addresses(300, &["192.0.2.1"]));
    for signal in [Signal::SIGUSR1, Signal::SIGUSR2] {
        scene.daemon.signal(signal)?;
        let said = format!("{signal}: nothing is done; `xdnsd stats`");
        scene.daemon.wait_log_count(&said, 1)?;
    }
    let client = scene.udp_client(Family::V4)?;
    assert_eq!(address_of_www(&client)?, ["192.0.2.1"]);
    assert_eq!(scene.daemon.terminate()?.code(), Some(0));
    Ok(())
}

/// Share of the budget for the code of the released program.
pub const PROGRAM_BYTES: usize = 4 << 20;

/// Also during the start: the loader of the XDP program would read the types of the whole kernel if it could; it does not if
/// there is no room for them. So the peak is checked, and then the process is limited to the budget (RLIMIT_DATA: private
/// writable memory), which includes all queues.
#[test]
fn memory_never_exceeds_the_budget() -> Result<()> {
    let mut scene = scene!(Setup::default());
    scene
        .upstream
        .on("www.test.", Rule::addresses(300, &["192.0.2.1"]));
    assert_eq!(scene.attached()?, Run::this().attached());
    let peak = scene.daemon.peak_memory()?;
    assert!(
        peak <= Capacities::DEFAULT.budget() - PROGRAM_BYTES,
        "{peak} bytes"
    );
    scene.daemon.terminate()?;
    let folder = scene.directory.path().to_owned();
    let config = folder.join("config.toml");
    let mut command = scene.lab.router.command("prlimit");
    command.arg(format!("--data={}", Capacities::DEFAULT.budget()));
    command.args(["--", BINARY, "run"]).arg(&config);
    scene.daemon = Daemon::start_command(command, &config, &folder.join("sock"))?;
    let attached = Run::this().attached();
    wait_until("its program is attached", TIMEOUT, || {
        scene.attached().is_ok_and(|seen| seen == attached)
    })?;
    let client = scene.udp_client(Family::V4)?;
    assert_eq!(address_of_www(&client)?, ["192.0.2.1"]);
    Ok(())
}

#[test]
fn after_a_crash_the_kernel_refuses_and_a_new_process_serves() -> Result<()> {
    let mut scene = scene!(Setup::default());
    scene
        .upstream
        .on("www.test.", Rule::addresses(300, &["192.0.2.1"]));
    let clients = [scene.udp_client(Family::V4)?, scene.udp_client(Family::V6)?];
    for _ in 0..2 {
        for client in &clients {
            assert_eq!(address_of_www(client)?, ["192.0.2.1"]);
        }
        scene.daemon.kill()?;
        for client in &clients {
            assert_eq!(fate(client), Fate::Refused);
        }
        // The kernel detaches a link when the last descriptor of a process is closed, a moment later.
        wait_until("the program is detached", TIMEOUT, || {
            scene.attached().is_ok_and(|mode| mode.is_empty())
        })?;
        scene.daemon.start_again(&scene.lab)?;
        let before = scene.daemon.metrics()?;
        for client in &clients {
            assert_eq!(address_of_www(client)?, ["192.0.2.1"]);
        }
        scene
            .daemon
            .wait_growth(&before, &[(&Run::this().answers(), 2)])?;
    }
    Ok(())
}

/// Fate of one query, and its time.
#[derive(Clone, Copy, Debug)]
struct Sent {
    at: Instant,
    fate: Fate,
}

/// Sends query after query until it is over.
fn ask_until(is_over: &AtomicBool, client: &UdpClient, sent: &dyn Fn(Sent)) {
    while !is_over.load(Ordering::Relaxed) {
        let at = Instant::now();
        let fate = fate(client);
        sent(Sent { at, fate });
        // A thousand queries per second, whatever their fate.
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_crash_under_load_swallows_nothing_but_what_was_in_flight() -> Result<()> {
    const CLIENTS: usize = 4;
    let mut scene = scene!(Setup::default());
    lift_icmp_limits(&scene.lab)?;
    scene
        .upstream
        .on("www.test.", Rule::addresses(300, &["192.0.2.1"]));
    let clients: Result<Vec<UdpClient>> = (0..CLIENTS)
        .map(|number| scene.udp_client(Family::ALL[number % 2]))
        .collect();
    let clients = clients?;
    let is_over = AtomicBool::new(false);
    let sent = std::sync::Mutex::new(Vec::new());
    let note = |one: Sent| sent.lock().expect("no thread panics with it").push(one);
    let count = |fate: Fate, since: Instant| {
        let sent = sent.lock().expect("no thread panics with it");
        sent.iter()
            .filter(|sent| sent.fate == fate && sent.at >= since)
            .count()
    };
    let (killed, started) = thread::scope(|scope| -> Result<(Instant, Instant)> {
        let _over = Over(&is_over);
        for client in &clients {
            scope.spawn(|| ask_until(&is_over, client, &note));
        }
        let begin = Instant::now();
        wait_until("queries are answered", TIMEOUT, || {
            count(Fate::Answered, begin) > 200
        })?;
        scene.daemon.kill()?;
        let killed = Instant::now();
        wait_until("queries are refused", TIMEOUT, || {
            count(Fate::Refused, killed) > 200
        })?;
        scene.daemon.start_again(&scene.lab)?;
        let started = Instant::now();
        wait_until("a query is answered again", FATE_WITHIN, || {
            count(Fate::Answered, started) > 0
        })?;
        wait_until("queries are answered again", TIMEOUT, || {
            count(Fate::Answered, started) > 200
        })?;
        Ok((killed, started))
    })?;
    let sent = sent.into_inner()?;
    let swallowed: Vec<&Sent> = sent
        .iter()
        .filter(|sent| sent.fate == Fate::Swallowed)
        .collect();
    assert!(
        swallowed.iter().all(|sent| sent.at < killed),
        "{swallowed:?}, killed {killed:?}"
    );
    assert!(swallowed.len() <= CLIENTS, "{swallowed:?}");
    let is_late = |sent: &&Sent| sent.at > started && sent.fate != Fate::Answered;
    assert_eq!(
        sent.iter().filter(is_late).count(),
        0,
        "once it serves, it answers everything"
    );
    Ok(())
}

/// Ends the load on drop, after success or an error.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_process_that_hangs_is_passed_by_and_loses_nothing() -> Result<()> {
    only!(
        OVER_XDP_IN_BURSTS,
        "the heartbeat that the XDP program reads"
    );
    let scene = scene!(Setup::default());
    scene
        .upstream
        .on("www.test.", Rule::addresses(300, &["192.0.2.1"]));
    let client = scene.udp_client(Family::V4)?;
    address_of_www(&client)?;
    let before = scene.daemon.metrics()?;
    scene.daemon.stop()?;
    let stopped = Instant::now();
    let mut queries = Vec::new();
    // The program reads the heartbeat at every query; a stale one does not show from outside.
    let stale = Duration::from_nanos(HEARTBEAT_STALE_NS) + Duration::from_millis(300);
    wait_until("the heartbeat is stale", TIMEOUT, || {
        let query = wire(&query("www.test.", RecordType::A));
        client.send(&query).expect("nobody refuses");
        queries.push(query);
        stopped.elapsed() > stale
    })?;
    scene.daemon.signal(Signal::SIGCONT)?;
    let mut missing: Vec<&[u8]> = queries.iter().map(|query| &query[..2]).collect();
    wait_until("every query is answered", TIMEOUT, || {
        while let Some(answer) = client.try_receive() {
            missing.retain(|id| answer.get(..2) != Some(*id));
        }
        missing.is_empty()
    })?;
    let now = scene.daemon.metrics()?;
    let (stale, redirected) = (
        now.growth(&before, &Reason::PassStale),
        now.growth(&before, &Reason::Redirected),
    );
    assert!(stale > 0 && redirected > 0, "{stale} {redirected}");
    assert_eq!(stale, now.growth(&before, &Counter::AnswersUdp));
    assert_eq!(redirected, now.growth(&before, &Counter::AnswersXdp));
    assert_eq!(stale + redirected, u64::try_from(queries.len())?);
    Ok(())
}

/// Asks until an answer comes by the way of this run.
fn wait_for_answer(scene: &Scene) -> Result<()> {
    let before = scene.daemon.metrics()?;
    wait_until(
        "queries are answered as they should be again",
        2 * TIMEOUT,
        || {
            let Ok(client) = scene.udp_client(Family::V4) else {
                return false;
            };
            let fate = fate(&client);
            let now = scene.daemon.metrics();
            fate == Fate::Answered
                && now.is_ok_and(|now| now.growth(&before, &Run::this().answers()) > 0)
        },
    )
}

#[test]
fn an_interface_that_is_deleted_and_made_again_is_served_again() -> Result<()> {
    only!(
        IN_DATAGRAMS,
        "it sends datagrams and waits for what becomes of them"
    );
    let scene = scene!(Setup::default());
    scene
        .upstream
        .on("www.test.", Rule::addresses(300, &["192.0.2.1"]));
    let gone = match Run::this().attached() {
        "" => "no interface lan0 on this machine",
        _ => "the interface is gone",
    };
    for round in 0..3 {
        wait_for_answer(&scene)?;
        scene.unplug()?;
        scene.daemon.wait_log_count(gone, round + 1)?;
        scene.plug()?;
    }
    wait_for_answer(&scene)?;
    assert_eq!(scene.attached()?, Run::this().attached());
    for family in Family::ALL {
        let before = scene.daemon.metrics()?;
        assert_eq!(address_of_www(&scene.udp_client(family)?)?, ["192.0.2.1"]);
        scene
            .daemon
            .wait_growth(&before, &[(&Run::this().answers(), 1)])?;
    }
    Ok(())
}

#[test]
fn a_link_that_goes_down_and_up_is_served_again() -> Result<()> {
    only!(
        IN_DATAGRAMS,
        "it sends datagrams and waits for what becomes of them"
    );
    let scene = scene!(Setup::default());
    scene
        .upstream
        .on("www.test.", Rule::addresses(300, &["192.0.2.1"]));
    for _ in 0..2 {
        wait_for_answer(&scene)?;
        scene.lab.router.ip(&format!("link set {LAN} down\n"))?;
        scene.lab.router.ip(&format!("link set {LAN} up\n"))?;
    }
    wait_for_answer(&scene)
}

/// A frame with a query for `www.test.` to an address of the router.
fn frame_to(ways: &Ways<'_>, way: Way, address: &str) -> Result<UdpFrame> {
    let server = SocketAddr::new(address.parse()?, DNS_PORT);
    let message = Ask::of("www.test.", rtype::A).bytes();
    let mut frame = ways.frame(way, Family::of_address(server.ip()), &message)?;
    frame.destination = server;
    Ok(frame)
}

/// Asks for `www.test.` at an address of the router by all ways. Each has to answer.
fn ask_at(scene: &Scene, ways: &Ways<'_>, address: &str) -> Result<()> {
    let server = SocketAddr::new(address.parse()?, DNS_PORT);
    let message = Ask::of("www.test.", rtype::A).bytes();
    for way in Way::ALL {
        let reply = match way {
            Way::Xdp | Way::Udp => ways.raw().exchange(&frame_to(ways, way, address)?),
            Way::Tcp => Stream::open_to(&scene.lab, server)?.exchange(&message),
        };
        let reply = reply.with_context(|| format!("{way:?} at {address}"))?;
        assert_eq!(View::parse(&reply)?.data(rtype::A).len(), 1);
        ways.count(way, &message);
    }
    Ok(())
}

#[test]
fn addresses_that_come_and_go_are_served_while_they_are_there() -> Result<()> {
    let scene = scene!(Setup::three_ways().on_all_addresses());
    scene
        .upstream
        .on("www.test.", Rule::addresses(300, &["192.0.2.1"]));
    let change = |verb: &str, address: &str| {
        let nodad = if address.contains(':') { "nodad" } else { "" };
        let prefix = if address.contains(':') { 64 } else { 24 };
        let router = &scene.lab.router;
        router.ip(&format!(
            "address {verb} {address}/{prefix} dev {LAN} {nodad}\n"
        ))
    };
    for address in ["10.53.0.99", "fd53::99"] {
        let ways = Ways::open(&scene)?;
        ask_at(&scene, &ways, &LAN_V4.to_string())?;
        change("add", address)?;
        let said = format!(
            "listening on {}, too",
            SocketAddr::new(address.parse()?, DNS_PORT)
        );
        scene.daemon.wait_log_count(&said, 1)?;
        ask_at(&scene, &ways, address)?;
        ways.check_tiers()?;
        // Removed and added: its sockets are the previous ones. The kernel delivers nothing there for a moment.
        change("delete", address)?;
        change("add", address)?;
        let frame = frame_to(&ways, Way::Udp, address)?;
        let raw = ways.raw();
        wait_until("the address is back", TIMEOUT, || {
            let sent = raw.send(&frame.to_bytes());
            sent.is_ok() && matches!(raw.next_for(&frame, MOMENT), Ok(Some(_)))
        })?;
        ask_at(&scene, &Ways::open(&scene)?, address)?;
        change("delete", address)?;
    }
    Ok(())
}
