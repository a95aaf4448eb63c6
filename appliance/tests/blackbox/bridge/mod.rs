//! A bridge with the program on its ports: frames are treated as by the bridge, and no query is lost while ports come and go.

pub mod lan;
mod vlan;

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hickory_proto::rr::RecordType;
use xdnsd_abi::Reason;
use xdnsd_core::counters::Counter;
use xdnsd_lab::frames::parse_mac;
use xdnsd_lab::lab::HOST_INTERFACE;
use xdnsd_lab::wait::wait_until;

use crate::support::client::{DNS_PORT, mac};
use crate::support::message::{query, wire};
use crate::support::run::only;
use crate::support::scene::scene;
use crate::support::script::Rule;
use crate::support::stream::Stream;
use crate::support::{SILENCE, TIMEOUT};

use lan::{BRIDGE, BRIDGE_V4, BRIDGE_V6, Lan, setup};

/// A host that never sends by itself: no kernel has this address.
const SILENT: [u8; 6] = [2, 0, 0, 0, 0x77, 0x77];

#[test]
fn each_port_has_the_program_and_answers_leave_by_the_port_that_was_asked() -> Result<()> {
    only!(ONCE, "each port says its own way");
    let scene = scene!(setup());
    let lan = Lan::make(&scene, 3, "")?;
    let before = scene.daemon.metrics()?;
    for station in &lan.stations {
        // The bridge learns the station first, and its kernel answers.
        station.ask()?;
        station.ask()?;
    }
    let after = scene.daemon.metrics()?;
    for (reason, at_least) in [(Reason::Redirected, 3 * 3), (Reason::PassStation, 3)] {
        let growth = after.growth(&before, &reason);
        ensure!(growth >= at_least, "{reason:?}: {growth}");
    }
    ensure!(after.growth(&before, &Counter::AnswersXdp) >= 9);
    // An answer to one station reaches no other.
    let [one, other, _] = &lan.stations[..] else {
        unreachable!("three");
    };
    let [mut frame, _] = one.queries()?;
    frame.message[..2].copy_from_slice(&[0xbe, 0xef]);
    one.client.exchange(&frame)?;
    let heard = other.client.any_answer_to(&[frame], SILENCE)?;
    ensure!(heard.is_none(), "{heard:02x?}");
    let log = scene.daemon.log();
    let line = format!("{BRIDGE}: served by its ports: p1 native; p2 native; p3 native");
    ensure!(log.contains(&line), "{log}");
    let status = scene.daemon.control("shield status")?;
    ensure!(
        status.contains(&format!("{BRIDGE}/p2: in force")) && !status.contains("no XDP program"),
        "{status}"
    );
    // The bridge itself has no program.
    let shown = scene.lab.router.output(&["ip", "link", "show", BRIDGE])?;
    ensure!(!shown.contains("xdp"), "{shown}");
    Ok(())
}

#[test]
fn a_port_that_does_not_forward_is_neither_read_nor_written() -> Result<()> {
    only!(ONCE, "it counts frames");
    let scene = scene!(setup());
    let lan = Lan::make(&scene, 2, "")?;
    let [one, other] = &lan.stations[..] else {
        unreachable!("two");
    };
    one.ask()?;
    // Disabled and learning: the kernel keeps these states, unless `ip link` sets them, which makes it look again.
    for state in [0_u8, 2] {
        lan.set_state(&one.port, state)?;
        lan.wait_port(&one.port, "closed")?;
        let before = scene.daemon.metrics()?;
        one.ask_in_vain(None)?;
        let after = scene.daemon.metrics()?;
        ensure!(after.growth(&before, &Reason::PassPort) == 1, "{state}");
        ensure!(after.growth(&before, &Reason::Redirected) == 0, "{state}");
        other.ask()?;
        lan.set_state(&one.port, 3)?;
        lan.wait_port(&one.port, "")?;
        let before = lan.count(&Reason::Redirected)?;
        one.ask()?;
        ensure!(lan.count(&Reason::Redirected)? > before, "{state}: again");
    }
    // An unauthenticated station does not get through (802.1X).
    lan.ip(&format!(
        "link set {} type bridge_slave locked on\n",
        one.port
    ))?;
    lan.wait_port(&one.port, "locked")?;
    one.ask_in_vain(Some(SILENT))?;
    lan.ip(&format!(
        "link set {} type bridge_slave locked off\n",
        one.port
    ))?;
    lan.wait_port(&one.port, "")?;
    lan.ip(&format!("link set {BRIDGE} down\n"))?;
    lan.wait_port(&one.port, "bridge_down")?;
    one.ask_in_vain(None)?;
    lan.ip(&format!("link set {BRIDGE} up\n"))?;
    lan.wait_port(&one.port, "")?;
    let [frame, _] = one.queries()?;
    one.client.exchange(&frame).map(drop)
}

/// A veth pair whose other end has more TX queues than it has RX queues takes no native program. Hairpin is about frames from port
/// to port.
#[test]
fn a_port_without_native_xdp_is_generic_beside_others_and_hairpin_changes_nothing() -> Result<()> {
    only!(ONCE, "each port says its own way");
    let scene = scene!(setup());
    let lan = Lan::make(&scene, 2, "")?;
    let [one, other] = &lan.stations[..] else {
        unreachable!("two");
    };
    lan.ip(&format!("link set {} nomaster\n", other.port))?;
    wait_until("p2 has no program any more", TIMEOUT, || {
        let shown = scene.lab.router.output(&["ip", "link", "show", "p2"]);
        shown.is_ok_and(|shown| !shown.contains("xdp"))
    })?;
    other
        .host
        .output(&["ethtool", "-L", HOST_INTERFACE, "tx", "2"])?;
    lan.ip(&format!(
        "link set {} master {BRIDGE}\nlink set {} type bridge_slave hairpin on\n",
        other.port, one.port
    ))?;
    let line = format!("{BRIDGE}: served by its ports: p1 native; p2 generic: ");
    scene.daemon.wait_log_count(&line, 1)?;
    for station in [one, other] {
        lan.wait_port(&station.port, "")?;
        station.ask()?;
        let before = lan.count(&Counter::AnswersXdp)?;
        station.ask()?;
        ensure!(lan.count(&Counter::AnswersXdp)? == before + 2);
    }
    Ok(())
}

/// A station's frames reach the bridge once in a quarter of its ageing time, and at once after a move.
#[test]
fn a_station_that_asks_nothing_but_names_is_not_forgotten_and_may_move() -> Result<()> {
    const AGEING: Duration = Duration::from_secs(3);
    only!(ONCE, "it counts frames");
    let scene = scene!(setup());
    let lan = Lan::make(&scene, 2, "ageing_time 300")?;
    let [one, other] = &lan.stations[..] else {
        unreachable!("two");
    };
    let silent = |station: &lan::Station| -> Result<_> {
        let [mut frame, _] = station.queries()?;
        frame.source_mac = SILENT;
        frame.source.set_ip("10.56.0.77".parse()?);
        Ok(frame)
    };
    let octets = SILENT.map(|octet| format!("{octet:02x}")).join(":");
    lan.ip(&format!(
        "neighbour add 10.56.0.77 lladdr {octets} nud permanent dev {BRIDGE}\n"
    ))?;
    let frame = silent(one)?;
    one.client.exchange(&frame)?;
    let before = scene.daemon.metrics()?;
    let end = Instant::now() + 3 * AGEING + Duration::from_millis(200);
    let mut asked = 0;
    while Instant::now() < end {
        one.client.exchange(&frame)?;
        asked += 1;
        thread::sleep(Duration::from_millis(50));
    }
    ensure!(
        lan.known_by(SILENT)?.as_deref() == Some(one.port.as_str()),
        "forgotten"
    );
    let after = scene.daemon.metrics()?;
    let passed = after.growth(&before, &Reason::PassStation);
    ensure!(passed <= 4 * 3 + 3, "{passed} of {asked} passed");
    ensure!(after.growth(&before, &Reason::Redirected) + passed >= asked);
    // It moves to another port, and back.
    for station in [other, one] {
        let frame = silent(station)?;
        let before = lan.count(&Reason::PassStation)?;
        station.client.exchange(&frame)?;
        ensure!(lan.count(&Reason::PassStation)? == before + 1);
        ensure!(lan.known_by(SILENT)?.as_deref() == Some(station.port.as_str()));
    }
    Ok(())
}

#[test]
fn ports_come_and_go_and_others_lose_no_query() -> Result<()> {
    only!(OVER_XDP, "it changes where the program is");
    let scene = scene!(setup());
    let lan = Lan::make(&scene, 3, "")?;
    let [one, other, third] = &lan.stations[..] else {
        unreachable!("three");
    };
    let (is_over, asked) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| -> Result<()> {
        let load = scope.spawn(|| -> Result<()> {
            while !is_over.load(Ordering::Relaxed) {
                one.ask()?;
                asked.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
        let changed = (|| -> Result<()> {
            lan.ip(&format!("link set {} nomaster\n", other.port))?;
            lan.ip(&format!("link delete {}\n", third.port))?;
            wait_until("p2 has no program any more", TIMEOUT, || {
                let shown = scene.lab.router.output(&["ip", "link", "show", "p2"]);
                shown.is_ok_and(|shown| !shown.contains("xdp"))
            })?;
            let fourth = lan.connect(4)?;
            lan.ip(&format!("link set {} master {BRIDGE}\n", other.port))?;
            for station in [other, &fourth] {
                lan.wait_port(&station.port, "")?;
                let before = lan.count(&Counter::AnswersXdp)?;
                station.ask()?;
                ensure!(lan.count(&Counter::AnswersXdp)? > before);
            }
            Ok(())
        })();
        is_over.store(true, Ordering::Relaxed);
        let loaded = load.join().ok().context("the load panicked")?;
        changed.and(loaded.context("lost"))
    })?;
    ensure!(asked.load(Ordering::Relaxed) > 0);
    Ok(())
}

#[test]
fn the_bridges_address_may_change_and_others_are_left_alone() -> Result<()> {
    only!(ONCE, "it counts frames");
    let scene = scene!(setup());
    let lan = Lan::make(&scene, 2, "")?;
    let [one, other] = &lan.stations[..] else {
        unreachable!("two");
    };
    let moved = "02:00:00:00:99:99";
    lan.ip(&format!("link set {BRIDGE} address {moved}\n"))?;
    one.ask_in_vain(None)?;
    let [mut frame, _] = one.queries()?;
    frame.destination_mac = parse_mac(moved)?;
    wait_until("the new address is ours", TIMEOUT, || {
        let before = lan.count(&Reason::Redirected).unwrap_or(u64::MAX);
        one.client.exchange(&frame).is_ok()
            && lan.count(&Reason::Redirected).is_ok_and(|now| now > before)
    })?;
    // Frames between ports, and to all: unchanged, except between isolated ports.
    let [to_other, _] = &mut one.queries()?;
    to_other.destination_mac = mac(&other.host, xdnsd_lab::lab::HOST_INTERFACE)?;
    let mut to_all = to_other.clone();
    to_all.destination_mac = [0x01, 0, 0x5e, 0, 0, 0xfb];
    to_all.destination = "224.0.0.251:5353".parse()?;
    let reaches = |frame: &crate::support::frame::UdpFrame, patience| -> Result<bool> {
        let bytes = frame.to_bytes();
        one.client.send(&bytes)?;
        let heard = other.client.next_frame(patience, |heard| heard == bytes)?;
        Ok(heard.is_some())
    };
    for frame in [&*to_other, &to_all] {
        ensure!(reaches(frame, TIMEOUT)?, "{frame:?}");
    }
    for station in [one, other] {
        lan.ip(&format!(
            "link set {} type bridge_slave isolated on\n",
            station.port
        ))?;
    }
    for frame in [&*to_other, &to_all] {
        ensure!(!reaches(frame, SILENCE)?, "{frame:?}");
    }
    one.client.exchange(&frame).map(drop)
}

#[test]
fn hot_names_and_syn_cookies_are_given_by_ports_and_denied_prefixes_are_kept_out() -> Result<()> {
    only!(ONCE, "the XDP program answers by itself");
    let scene = scene!(setup().sections(
        "[cache]\ntier0 = \"on\"\nrotate = false\n[shield]\nsyn_cookies = \"always\"\nstate_file = \"{directory}/syncookies\"\n"
    ));
    let rule = Rule::addresses(300, &["192.0.2.1", "2001:db8::1"]);
    scene.upstream.on("www.test.", rule);
    let lan = Lan::make(&scene, 2, "")?;
    let [one, other] = &lan.stations[..] else {
        unreachable!("two");
    };
    let message = wire(&query("www.test.", RecordType::A));
    let frame = one.client.frame((BRIDGE_V4, DNS_PORT).into(), &message)?;
    wait_until("the name is hot", TIMEOUT, || {
        (0..16).all(|_| one.client.exchange(&frame).is_ok())
            && lan.count(&Reason::Answered).is_ok_and(|count| count > 0)
    })?;
    for (station, server) in [(one, BRIDGE_V4.into()), (other, BRIDGE_V6.into())] {
        let family = usize::from(!std::net::IpAddr::is_ipv4(&server));
        let before = lan.count(&Reason::SynCookie)?;
        let local = station.addresses[family];
        let to = std::net::SocketAddr::new(server, DNS_PORT);
        wait_until(&format!("a cookie of {server}"), TIMEOUT, || {
            let stream = Stream::open_in(&station.host, local, to, TIMEOUT);
            let answer = stream.and_then(|mut stream| stream.exchange(&message));
            answer.is_ok() && lan.count(&Reason::SynCookie).is_ok_and(|now| now > before)
        })?;
    }
    let denied = other.addresses[0];
    scene.daemon.control(&format!("shield deny {denied}"))?;
    other.ask_in_vain(None)?;
    ensure!(lan.count(&Reason::DropDenied)? > 0);
    one.ask()?;
    scene.daemon.control(&format!("shield forget {denied}"))?;
    let config = scene.directory.path().join("config.toml");
    let text = fs::read_to_string(&config)?;
    fs::write(&config, format!("{text}[access]\ndrop = [\"{denied}\"]\n"))?;
    scene.daemon.control("reload")?;
    other.ask_in_vain(None)?;
    ensure!(lan.count(&Reason::DropAccess)? > 0);
    one.ask()
}
