//! Floods by hping3, in the client's namespace: a common tool, beside the kernel's own frames.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::FloodOrder;
use crate::signals::Signals;
use crate::workspace;
use xdnsd_lab::flood::Kind;
use xdnsd_lab::lab::{HOST_INTERFACE, LAN_V4};
use xdnsd_lab::netns::Namespace;
use xdnsd_lab::process::{End, Process};

/// Time between two checks of it.
const LOOK: Duration = Duration::from_millis(50);

/// Arguments of hping3 for this kind of frames.
fn words(kind: Kind) -> Option<&'static [&'static str]> {
    match kind {
        Kind::Syn => Some(&["-S"]),
        Kind::Ack => Some(&["-A"]),
        Kind::Rst => Some(&["-R"]),
        // Shorter than a message's header.
        Kind::Garbage => Some(&["--udp", "-d", "2"]),
        Kind::Query | Kind::Names | Kind::Response => None,
    }
}

/// Floods the router until a bound is reached; returns the frames sent, and the duration.
pub fn flood(
    client: &Namespace,
    kind: Kind,
    order: &FloodOrder,
    signals: &Signals,
) -> Result<(u64, Duration)> {
    ensure!(order.family == 4, "hping3 speaks IPv4 alone");
    let Some(words) = words(kind) else {
        bail!(
            "hping3 makes syn, ack, rst and garbage, not {}",
            kind.name()
        );
    };
    let mut command = client.command("hping3");
    command
        .args(["-n", "-q", "-p", &order.port.to_string()])
        .args(words);
    match order.from {
        Some(source) => command.args(["-a", &source.to_string()]),
        None => command.arg("--rand-source"),
    };
    // With --flood it has no limit.
    match order.count {
        u32::MAX => command.arg("--flood"),
        count => command.args(["--faster", "-c", &count.to_string()]),
    };
    command.arg(LAN_V4.to_string());
    let sent = || -> Result<u64> {
        let path = format!("/sys/class/net/{HOST_INTERFACE}/statistics/tx_packets");
        client.read(&path)?.trim().parse().context("a counter")
    };
    let (before, started) = (sent()?, Instant::now());
    let log = workspace::logs().join("hping3.log");
    let mut process = Process::spawn_with_end(command, &log, End::Kill)?;
    let most = Duration::from_secs(order.seconds.into());
    while process.is_running() && started.elapsed() < most && !signals.wait(LOOK) {}
    let took = started.elapsed();
    drop(process);
    Ok((sent()? - before, took))
}
