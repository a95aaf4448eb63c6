//! Denied and allowed prefixes: who is kept out, by which file, and what a reload changes.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use hickory_proto::rr::RecordType;
use xdnsd_abi::Reason;
use xdnsd_lab::lab::{CLIENT_V4, CLIENT_V6, LAN_V4};
use xdnsd_lab::wait::wait_until;

use crate::support::TIMEOUT;
use crate::support::client::{Family, Fate, UdpClient};
use crate::support::message::{query, wire};
use crate::support::run::only;
use crate::support::scene::{Scene, Setup, scene};
use crate::support::script::Rule;
use crate::support::stream::Stream;

/// Long for an answer of the lab's.
const PATIENCE: Duration = Duration::from_secs(1);

fn setup() -> Setup {
    let section =
        "[shield]\ndeny_files = [\"{directory}/drop.txt\"]\nallow = [\"2001:db8:ffff::/48\"]\n";
    Setup::default().sections(section)
}

fn prepare(scene: &Scene) {
    let rule = Rule::addresses(300, &["192.0.2.1"]);
    scene.upstream.on("www.test.", rule);
}

/// Writes the list and has it read. Gives what is said of it.
fn reload(scene: &Scene, list: &str) -> Result<String> {
    fs::write(scene.directory.path().join("drop.txt"), list)?;
    scene.daemon.control("reload")
}

/// Whether the client gets an answer, by the counter of what is dropped.
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

/// What the kernel says to a datagram to a port where nobody listens.
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
    // What a file has that is cut off, or none at all, changes nothing.
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
    let head = "prefixes: 0 denied, 1 allowed; 0 of them said since the start\nlan0: in force; ";
    assert!(status.starts_with(head), "{status}");
    control(&format!("shield deny {CLIENT_V4}"))?;
    assert!(!is_answered(&scene, Family::V4)?);
    assert!(is_answered(&scene, Family::V6)?);
    let listed = format!("deny  {CLIENT_V4}/32 (said)\nallow 2001:db8:ffff::/48 (config)\n");
    assert_eq!(control("shield list")?, listed);
    // It outlives a reload, and the config's own word is there again when it is forgotten.
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
    // For a while.
    control(&format!("shield deny {CLIENT_V4} 1"))?;
    wait_until("it is over", TIMEOUT, || {
        control("shield list").is_ok_and(|listed| !listed.contains("said"))
    })?;
    assert!(is_answered(&scene, Family::V4)?);
    Ok(())
}
