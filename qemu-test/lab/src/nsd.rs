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

/// Time until a server's first answer on a loaded machine.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// Timeout of one question of the start-up check.
const PROBE_TIMEOUT: Duration = Duration::from_millis(200);
const DNS_PORT: u16 = 53;

/// A zone to serve.
#[derive(Clone, Debug)]
pub struct Zone {
    /// Its name, with the final dot.
    pub origin: String,
    /// The zone file.
    pub text: String,
}

/// A running NSD, ended when dropped.
#[derive(Debug)]
pub struct Upstream {
    process: Process,
}

impl Upstream {
    /// Starts NSD in the lab's upstream host with the zone `lab.test` and waits until it answers on both families. `directory`
    /// for its files must exist.
    pub fn start(lab: &Lab, directory: &Path) -> Result<Self> {
        let zone = Zone {
            origin: zone::ORIGIN.to_owned(),
            text: zone::text(),
        };
        Self::start_with(lab, directory, &[zone])
    }

    /// [`Upstream::start`] with other zones.
    pub fn start_with(lab: &Lab, directory: &Path, zones: &[Zone]) -> Result<Self> {
        for zone in zones {
            let path = directory.join(file_name(zone));
            fs::write(&path, &zone.text).with_context(|| format!("write {}", path.display()))?;
        }
        let config = directory.join("nsd.conf");
        fs::write(&config, config_text(directory, zones))
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
                .all(|address| answers(&lab.upstream, SocketAddr::new(address, DNS_PORT)))
        })?;
        Ok(Self { process })
    }

    /// NSD's log.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }
}

/// True if a DNS server at this address answers a question for the lab zone's SOA, even with REFUSED.
pub(crate) fn answers(namespace: &Namespace, address: SocketAddr) -> bool {
    /// ID 0x5af1, no flags, one question: lab.test. SOA IN.
    const QUESTION: &[u8] = b"\x5a\xf1\0\0\0\x01\0\0\0\0\0\0\x03lab\x04test\0\0\x06\0\x01";
    let ask = || -> std::io::Result<bool> {
        let unspecified = if address.is_ipv4() {
            "0.0.0.0:0"
        } else {
            "[::]:0"
        };
        let socket = UdpSocket::bind(unspecified)?;
        socket.connect(address)?;
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

fn file_name(zone: &Zone) -> String {
    format!("{}zone", zone.origin)
}

fn config_text(directory: &Path, zones: &[Zone]) -> String {
    let directory = directory.display();
    let mut text = format!(
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
"
    );
    for zone in zones {
        let (name, file) = (&zone.origin, file_name(zone));
        text += &format!("zone:\n    name: {name}\n    zonefile: {file}\n");
    }
    text
}
