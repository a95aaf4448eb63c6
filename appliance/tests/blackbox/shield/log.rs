//! The shield's log: verdicts on frames, only while there is a reader.

use std::fs;
use std::time::Duration;

use anyhow::Result;
use hickory_proto::rr::RecordType;
use serde_json::{Value, json};
use xdnsd_lab::lab::{CLIENT_V4, LAN, LAN_V4};
use xdnsd_lab::process::{End, Process};
use xdnsd_lab::wait::wait_until;

use super::{always, forged, wait_state, with_program};
use crate::support::TIMEOUT;
use crate::support::client::{Family, Fate, UdpClient};
use crate::support::daemon::BINARY;
use crate::support::message::{query, wire};
use crate::support::run::only;
use crate::support::scene::scene;

#[test]
fn who_reads_the_log_is_told_of_frames_and_of_how_many_more() -> Result<()> {
    only!(ONCE, "the shield in front of all ways");
    let scene = scene!(always());
    let _program = with_program(&scene.lab.client)?;
    wait_state(&scene.daemon, "")?;
    scene.daemon.control(&format!("shield deny {CLIENT_V4}"))?;
    let denied = UdpClient::open(&scene.lab, Family::V4)?;
    let deny = || {
        let message = wire(&query("www.test.", RecordType::A));
        let fate = denied.try_ask(&message, Duration::from_millis(50));
        assert_ne!(fate, Fate::Answered);
    };
    // Without a reader nothing is kept for a later one.
    deny();
    let socket = scene.directory.path().join("sock");
    let mut command = scene.lab.router.command(BINARY);
    command
        .args(["shield", "log", "--json", "--socket"])
        .arg(&socket);
    let shown = scene.directory.path().join("shown");
    let mut reader = Process::spawn_with_end(command, &shown, End::Kill)?;
    let lines = || -> Vec<Value> {
        let text = fs::read_to_string(&shown).unwrap_or_default();
        text.lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    };
    wait_until("a denied query is told of", TIMEOUT, || {
        deny();
        !lines().is_empty()
    })?;
    let first = lines()[0].clone();
    for (key, value) in [
        ("interface", json!(LAN)),
        ("reason", json!("drop_denied")),
        ("protocol", json!("udp")),
        ("source", json!(CLIENT_V4.to_string())),
        ("destination", json!(LAN_V4.to_string())),
        ("destination_port", json!(53)),
        ("every", json!(1)),
    ] {
        assert_eq!(first[key], value, "{key} of {first}");
    }
    // More than the ring has room for.
    let client = scene.raw_client()?;
    wait_until(
        "some had no room, and then fewer are told of",
        TIMEOUT,
        || {
            for number in 0..500 {
                let _ = forged(&client, number).and_then(|frame| client.send(&frame));
            }
            let lines = lines();
            let is_sampled = |line: &Value| line["every"].as_u64().is_some_and(|every| every > 1);
            lines
                .iter()
                .any(|line| line["lost"].as_u64().is_some_and(|lost| lost > 0))
                && lines.iter().any(is_sampled)
        },
    )?;
    let lines_now = lines();
    let cookie = lines_now.iter().find(|line| line["reason"] == "syn_cookie");
    let cookie = cookie.expect("a SYN that was answered");
    assert_eq!(
        cookie["destination_port"],
        json!(53),
        "as it came: {cookie}"
    );
    // The server ends, and the reader reports it.
    let mut scene = scene;
    scene.daemon.terminate()?;
    assert!(!reader.wait_exit(TIMEOUT)?.success());
    Ok(())
}
