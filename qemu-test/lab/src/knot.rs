//! Knot DNS over XDP: an authoritative server, so it serves a zone where a forwarder has a cache.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::netns::Namespace;
use crate::nsd::{self, Zone};
use crate::process::{End, Process};
use crate::suite::Suite;

/// Time until its first answer.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// Place of a Knot server.
#[derive(Clone, Copy, Debug)]
pub struct Site<'a> {
    /// Its host.
    pub host: &'a Namespace,
    /// Its interface; queries that arrive here are answered over XDP.
    pub interface: &'a str,
    /// Address of the kernel's sockets.
    pub address: SocketAddr,
    /// Directory for its files.
    pub directory: &'a Path,
}

/// Starts it with one zone, and waits until it answers.
///
/// # Errors
/// It failed to start; the error has its log.
pub fn start(suite: &Suite, site: &Site<'_>, zone: &Zone) -> Result<Process> {
    let Site {
        host,
        interface,
        address,
        directory,
    } = *site;
    let write = |name: &str, text: &str| {
        let path = directory.join(name);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        Ok::<_, anyhow::Error>(path)
    };
    let zone_file = write("knot.zone", &zone.text)?;
    let config = format!(
        "server:
    rundir: {directory:?}
    listen: {ip}@{port}
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
xdp:
    listen: {interface}@{port}
database:
    storage: {directory:?}
zone:
  - domain: {origin}
    file: {zone_file:?}
    zonefile-sync: -1
    journal-content: none
",
        ip = address.ip(),
        port = address.port(),
        origin = zone.origin,
    );
    let config = write("knot.conf", &config)?;
    let mut command = suite.command(host, "knotd");
    command.arg("-c").arg(config);
    let mut process =
        Process::spawn_with_end(command, &directory.join("knot.log"), End::Terminate)?;
    process.wait_until("Knot DNS answers", START_TIMEOUT, || {
        nsd::answers(host, address)
    })?;
    Ok(process)
}
