//! The upstream: NSD, a real authoritative server from Debian, in the upstream namespace with the zone of [`crate::zone`].

use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::lab::{Lab, UPSTREAM_V4, UPSTREAM_V6};
use crate::netns::Namespace;
use crate::process::{End, Process};
use crate::zone;

/// How long a server may take to its first answer on a loaded machine.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// How long one question of the start-up check waits.
const PROBE_TIMEOUT: Duration = Duration::from_millis(200);
const DNS_PORT: u16 = 53;

/// A running NSD, ended when dropped.
#[derive(Debug)]
pub struct Upstream {
    process: Process,
}

impl Upstream {
    /// Starts NSD in the lab's upstream host with the zone `lab.test` and waits until it answers on both families.
    /// Its files go to `directory`, which must exist.
    pub fn start(lab: &Lab, directory: &Path) -> Result<Self> {
        let zone = directory.join("lab.test.zone");
        fs::write(&zone, zone::text()).with_context(|| format!("write {}", zone.display()))?;
        let config = directory.join("nsd.conf");
        fs::write(&config, config_text(directory))
            .with_context(|| format!("write {}", config.display()))?;
        let mut command = lab.upstream.command("nsd");
        command.arg("-d").arg("-c").arg(&config);
        // SIGTERM, so that NSD ends its own children.
        let log = directory.join("nsd.log");
        let process = Process::spawn_with_end(command, &log, End::Terminate);
        let mut process = process.context("start nsd (package nsd)")?;
        let addresses = [IpAddr::V4(UPSTREAM_V4), IpAddr::V6(UPSTREAM_V6)];
        process.wait_until("nsd answers over IPv4 and IPv6", START_TIMEOUT, || {
            addresses
                .into_iter()
                .all(|address| answers(&lab.upstream, address))
        })?;
        Ok(Self { process })
    }

    /// What NSD wrote.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }
}

/// Whether a DNS server at that address answers a question for the zone's SOA.
fn answers(namespace: &Namespace, address: IpAddr) -> bool {
    /// ID 0x5af1, no flags, one question: lab.test. SOA IN.
    const QUESTION: &[u8] = b"\x5a\xf1\0\0\0\x01\0\0\0\0\0\0\x03lab\x04test\0\0\x06\0\x01";
    let ask = || -> std::io::Result<bool> {
        let unspecified = if address.is_ipv4() {
            "0.0.0.0:0"
        } else {
            "[::]:0"
        };
        let socket = UdpSocket::bind(unspecified)?;
        socket.connect(SocketAddr::new(address, DNS_PORT))?;
        socket.set_read_timeout(Some(PROBE_TIMEOUT))?;
        socket.send(QUESTION)?;
        let mut response = [0; 512];
        let len = socket.recv(&mut response)?;
        Ok(response
            .get(..len)
            .is_some_and(|response| response.starts_with(&QUESTION[..2])))
    };
    namespace.run(ask).unwrap_or(false)
}

fn config_text(directory: &Path) -> String {
    let directory = directory.display();
    format!(
        "server:
    ip-address: {UPSTREAM_V4}
    ip-address: {UPSTREAM_V6}
    port: {DNS_PORT}
    server-count: 1
    username: \"\"
    chroot: \"\"
    zonesdir: \"{directory}\"
    zonelistfile: \"{directory}/zone.list\"
    xfrdfile: \"{directory}/xfrd.state\"
    xfrdir: \"{directory}\"
    pidfile: \"\"
    database: \"\"
    rrl-ratelimit: 0
    verbosity: 1
remote-control:
    control-enable: no
zone:
    name: {zone}
    zonefile: lab.test.zone
",
        zone = zone::ORIGIN,
    )
}
