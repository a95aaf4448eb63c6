//! Denied and allowed prefixes: which packets are dropped, by which file, and what a reload changes.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use hickory_proto::rr::RecordType;
use xdnsd_abi::{PREFIXES_MAX, PREFIXES_ROOM, Reason};
use xdnsd_lab::lab::{CLIENT_V4, CLIENT_V6, LAN_V4};
use xdnsd_lab::wait::wait_until;

use crate::support::TIMEOUT;
use crate::support::client::{Family, Fate, UdpClient};
use crate::support::daemon::{BINARY, run};
use crate::support::message::{query, wire};
use crate::support::metrics::Metric;
use crate::support::run::only;
use crate::support::scene::{Scene, Setup, scene};
use crate::support::script::Rule;
use crate::support::stream::Stream;

/// Longer than any answer in the lab.
const PATIENCE: Duration = Duration::from_secs(1);

fn setup() -> Setup {
    let section =
        "[shield]\ndeny_files = [\"{directory}/drop.txt\"]\nallow = [\"2001:db8:ffff::/48\"]\n";
    Setup::default().sections(section)
}

/// Each file keeps its own prefixes: a truncated one does not keep others from being read.
#[test]
fn a_list_with_a_wrong_line_keeps_its_own_prefixes_and_the_other_is_taken() -> Result<()> {
    only!(ONCE, "the XDP program keeps them out by itself");
    let section = "[shield]\ndeny_files = [\"{directory}/drop.txt\", \"{directory}/other.txt\"]\n";
    let scene = scene!(Setup::default().sections(section));
    let other = scene.directory.path().join("other.txt");
    fs::write(&other, "198.51.100.0/24\n203.0.113.0/24\n")?;
    reload(&scene, "192.0.2.0/24\n203.0.113.0/24\n")?;
    fs::write(&other, "2001:db8:5::/48\n")?;
    let said = reload(&scene, "100.64.0.0/10\n192.0.2.0/33\n");
    let said = format!("{:#}", said.err().context("a line is wrong")?);
    for told in [
        "drop.txt:2: `192.0.2.0/33` has a length",
        "drop.txt: 2 prefixes of it stay in force",
        "3 denied and 0 allowed prefixes",
    ] {
        assert!(said.contains(told), "{said}");
    }
    let listed = "deny  192.0.2.0/24 (config)\ndeny  203.0.113.0/24 (config)\ndeny  2001:db8:5::/48 (config)\n";
    assert_eq!(scene.daemon.control("shield list")?, listed);
    // It is removed from the config, and comes back unchanged.
    let said = reload(&scene, "100.64.0.0/10\n")?;
    assert!(said.contains("2 denied and 0 allowed prefixes"), "{said}");
    Ok(())
}

fn prepare(scene: &Scene) {
    let rule = Rule::addresses(300, &["192.0.2.1"]);
    scene.upstream.on("www.test.", rule);
}

/// Writes the list and reloads. Returns the report.
fn reload(scene: &Scene, list: &str) -> Result<String> {
    fs::write(scene.directory.path().join("drop.txt"), list)?;
    scene.daemon.control("reload")
}

/// True if the client gets an answer; otherwise the drop has to be counted.
fn is_answered(scene: &Scene, family: Family) -> Result<bool> {
    let client = UdpClient::open(&scene.lab, family)?;
    let message = wire(&query("www.test.", RecordType::A));
    let before = scene.daemon.metrics()?;
    let is_answered = matches!(client.try_ask(&message, PATIENCE), Fate::Answered);
    let after = scene.daemon.metrics()?;
    let dropped = after.growth(&before, &Reason::DropDenied);
    assert_eq!(dropped == 0, is_answered, "dropped: {dropped}");
    Ok(is_answered)
}

/// Response of the kernel to a datagram to a closed port.
fn closed_port(scene: &Scene) -> Result<Fate> {
    let client = UdpClient::open_to(&scene.lab, (LAN_V4, 54).into())?;
    Ok(client.try_ask(&[0; 12], PATIENCE))
}

#[test]
fn a_list_keeps_out_who_is_on_it_until_a_reload_says_otherwise() -> Result<()> {
    only!(ONCE, "the XDP program keeps them out by itself");
    let scene = scene!(setup());
    prepare(&scene);
    let log = scene.daemon.log();
    assert!(log.contains("drop.txt: is not there"), "{log}");
    for family in Family::ALL {
        assert!(is_answered(&scene, family)?, "nobody is denied");
    }
    let said = reload(&scene, &format!("; DROP\n{CLIENT_V4} ; SBL1\n"))?;
    assert!(said.contains("1 denied and 1 allowed prefixes"), "{said}");
    assert!(!is_answered(&scene, Family::V4)?);
    assert!(is_answered(&scene, Family::V6)?);
    // Whatever it carries.
    assert_eq!(closed_port(&scene)?, Fate::Swallowed);
    assert!(Stream::open(&scene.lab, Family::V6).is_ok());
    // A truncated or missing file changes nothing.
    let said = reload(&scene, &format!("{CLIENT_V6}\n198.51.100.0/33\n"));
    let said = format!("{:#}", said.err().context("a line is wrong")?);
    assert!(
        said.contains("drop.txt:2: `198.51.100.0/33` has a length"),
        "{said}"
    );
    assert!(!is_answered(&scene, Family::V4)?, "as it was");
    assert!(is_answered(&scene, Family::V6)?, "as it was");
    let said = reload(&scene, "fd00::/8\n::/0 # but for what is allowed\n")?;
    assert!(said.contains("2 denied and 1 allowed prefixes"), "{said}");
    assert!(is_answered(&scene, Family::V4)?);
    assert!(!is_answered(&scene, Family::V6)?);
    reload(&scene, "")?;
    for family in Family::ALL {
        assert!(is_answered(&scene, family)?);
    }
    assert_eq!(closed_port(&scene)?, Fate::Refused);
    Ok(())
}

#[test]
fn what_is_said_holds_at_once_over_the_config_and_until_it_is_forgotten() -> Result<()> {
    only!(ONCE, "the XDP program keeps them out by itself");
    let scene = scene!(setup());
    prepare(&scene);
    let control = |request: &str| scene.daemon.control(request);
    let status = control("shield status")?;
    let head = "prefixes: 0 denied, 1 allowed; 0 of them said since the start\n";
    assert!(status.starts_with(head), "{status}");
    assert!(status.contains("\nlan0: in force; "), "{status}");
    control(&format!("shield deny {CLIENT_V4}"))?;
    assert!(!is_answered(&scene, Family::V4)?);
    assert!(is_answered(&scene, Family::V6)?);
    let listed = format!("deny  {CLIENT_V4}/32 (said)\nallow 2001:db8:ffff::/48 (config)\n");
    assert_eq!(control("shield list")?, listed);
    // It survives a reload, and the config's own verdict holds again when it is forgotten.
    reload(&scene, &format!("{CLIENT_V6}\n"))?;
    control(&format!("shield allow {CLIENT_V6}"))?;
    assert!(!is_answered(&scene, Family::V4)?);
    assert!(is_answered(&scene, Family::V6)?);
    for client in [CLIENT_V4.to_string(), CLIENT_V6.to_string()] {
        control(&format!("shield forget {client}"))?;
        assert!(
            control(&format!("shield forget {client}")).is_err(),
            "it is"
        );
    }
    assert!(is_answered(&scene, Family::V4)?);
    assert!(!is_answered(&scene, Family::V6)?);
    // With a time limit.
    control(&format!("shield deny {CLIENT_V4} 1"))?;
    wait_until("it is over", TIMEOUT, || {
        control("shield list").is_ok_and(|listed| !listed.contains("said"))
    })?;
    assert!(is_answered(&scene, Family::V4)?);
    Ok(())
}

/// Without a program that would obey, the request fails.
#[test]
fn nobody_is_denied_without_a_program_and_that_is_said() -> Result<()> {
    only!(ONCE, "the XDP program keeps them out by itself");
    let scene = scene!(setup().xdp("off"));
    prepare(&scene);
    let control = |request: &str| scene.daemon.control(request);
    for verdict in ["deny", "allow"] {
        let said = control(&format!("shield {verdict} {CLIENT_V4}"));
        let said = format!("{:#}", said.err().context("nobody obeys")?);
        assert!(
            said.contains("refused: no interface has an XDP program"),
            "{said}"
        );
    }
    let status = control("shield status")?;
    let head = "prefixes: 0 denied, 1 allowed; 0 of them said since the start\nnothing in force: no interface";
    assert!(status.starts_with(head), "{status}");
    let socket = scene.directory.path().join("sock").display().to_string();
    let command = [
        "shield",
        "deny",
        &CLIENT_V4.to_string(),
        "--socket",
        &socket,
    ]
    .map(str::to_owned);
    let output = scene.lab.router.command(BINARY).args(command).output()?;
    assert_eq!(output.status.code(), Some(1));
    Ok(())
}

/// Too many prefixes: the config's own are in force, and the files as far as they fit; there is still room for overrides.
#[test]
fn a_list_that_is_too_long_is_cut_at_its_end_and_leaves_room_to_say_more() -> Result<()> {
    only!(ONCE, "the XDP program keeps them out by itself");
    let scene = scene!(setup());
    prepare(&scene);
    let control = |request: &str| scene.daemon.control(request);
    let prefix = |number: u32| std::net::Ipv4Addr::from_bits(0x6440_0000 + number);
    let list = |count: u32| -> String {
        let lines = (0..count).map(|number| format!("{}\n", prefix(number)));
        lines.collect()
    };
    // One is allowed by the config.
    let full = list(PREFIXES_MAX - 1);
    let said = reload(&scene, &full)?;
    assert!(
        said.contains("9999 denied and 1 allowed prefixes"),
        "{said}"
    );
    assert!(!said.contains("left out"), "{said}");
    // In IPv4-mapped form it is the same.
    let said = reload(
        &scene,
        &format!("{full}::ffff:{}\n{CLIENT_V4}\n", prefix(7)),
    )?;
    assert!(said.contains("(10000): left out are 1 of "), "{said}");
    assert!(said.contains("drop.txt"), "{said}");
    scene.daemon.wait_log_count("left out are 1 of", 1)?;
    assert!(is_answered(&scene, Family::V4)?, "its end");
    control(&format!("shield deny {CLIENT_V4}"))?;
    assert!(!is_answered(&scene, Family::V4)?);
    for number in 1..PREFIXES_ROOM - PREFIXES_MAX {
        control(&format!("shield deny {}", prefix(PREFIXES_MAX + number)))?;
    }
    let said = control("shield deny 203.0.113.1");
    let said = format!("{:#}", said.err().context("it is full")?);
    let room = "there is no room: 10000 prefixes of the config and its files, 10064 in all";
    assert!(said.contains(room), "{said}");
    // An override of an existing one.
    control(&format!("shield allow {}", prefix(7)))?;
    control("shield forget 100.64.39.17")?;
    control("shield deny 203.0.113.1")?;
    let metrics = scene.daemon.metrics()?;
    assert_eq!(metrics.get(&Prefixes("denied")), Some(10_062));
    assert_eq!(metrics.get(&Prefixes("allowed")), Some(2));
    // At a start as well.
    let mut scene = scene;
    scene.daemon.terminate()?;
    fs::write(
        scene.directory.path().join("drop.txt"),
        list(PREFIXES_MAX + 5),
    )?;
    scene.daemon.start_again(&scene.lab)?;
    scene.daemon.wait_log_count("left out are 6 of", 1)?;
    let status = scene.daemon.control("shield status")?;
    let head = "prefixes: 9999 denied, 1 allowed; 0 of them said since the start\n";
    assert!(status.starts_with(head), "{status}");
    Ok(())
}

/// A gauge of them.
#[derive(Debug)]
struct Prefixes(&'static str);

impl Metric for Prefixes {
    fn family(&self) -> String {
        format!("xdnsd_shield_prefixes_{}", self.0)
    }

    fn label(&self) -> String {
        String::new()
    }
}

/// A problem in an external file is reported, and does not stop the start.
#[test]
fn a_list_with_a_wrong_line_is_noted_by_check_and_left_out_by_a_start() -> Result<()> {
    only!(ONCE, "the XDP program keeps them out by itself");
    let mut scene = scene!(setup());
    scene.daemon.terminate()?;
    fs::write(scene.directory.path().join("drop.txt"), "203.0.113.0/33\n")?;
    let config = scene.directory.path().join("config.toml");
    let output = run(Some(&scene.lab), &["check", &config.display().to_string()])?;
    let noted = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{noted}");
    let wrong = "drop.txt:1: `203.0.113.0/33` has a length";
    assert!(noted.contains("note: ") && noted.contains(wrong), "{noted}");
    scene.daemon.start_again(&scene.lab)?;
    scene.daemon.wait_log_count(wrong, 1)
}
