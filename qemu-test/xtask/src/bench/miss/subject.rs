//! The measured servers.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use xdnsd_lab::lab::{LAN, LAN_V4, Lab, UPSTREAM_V4};
use xdnsd_lab::peer::{Peer, Site};
use xdnsd_lab::process::{End, Process};

/// Time until the appliance is ready.
const PATIENCE: Duration = Duration::from_secs(10);
const DNS_PORT: u16 = 53;

/// A measured server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The upstream itself, through the router's kernel.
    Upstream,
    /// The appliance.
    Appliance,
    /// Another forwarder.
    Peer(Peer),
}

impl Subject {
    /// All subjects, the yardstick first, then ours.
    pub const ALL: [Self; 4] = [
        Self::Upstream,
        Self::Appliance,
        Self::Peer(Peer::Dnsmasq),
        Self::Peer(Peer::Unbound { threads: 2 }),
    ];

    /// Name in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Upstream => "upstream",
            Self::Appliance => "xdnsd",
            Self::Peer(peer) => peer.name(),
        }
    }

    /// Settings, for the table.
    pub fn settings(self) -> String {
        match self {
            Self::Upstream => "NSD 1 server process, rrl off, a wildcard".to_owned(),
            Self::Appliance => {
                "AF_XDP on one RX queue, so one worker; the rest by default".to_owned()
            }
            Self::Peer(peer) => peer.settings(),
        }
    }

    /// Address that it is asked at.
    pub fn address(self) -> IpAddr {
        match self {
            Self::Upstream => UPSTREAM_V4.into(),
            Self::Appliance | Self::Peer(_) => LAN_V4.into(),
        }
    }

    /// Starts it, unless it runs anyway. `sections` extend the appliance's config.
    pub fn start(
        self,
        lab: &Lab,
        program: &Path,
        sections: &str,
        directory: &Path,
    ) -> Result<Option<Process>> {
        match self {
            Self::Upstream => Ok(None),
            Self::Appliance => start(lab, program, sections, directory).map(Some),
            Self::Peer(peer) => {
                let site = Site {
                    host: &lab.router,
                    address: SocketAddr::new(self.address(), DNS_PORT),
                    upstream: UPSTREAM_V4.into(),
                    directory,
                };
                peer.start(&site, "").map(Some)
            }
        }
    }
}

fn start(lab: &Lab, program: &Path, sections: &str, directory: &Path) -> Result<Process> {
    let socket = directory.join("xdnsd.sock");
    let text = format!(
        "[[interface]]\nname = \"{LAN}\"\nlisten = [\"{LAN_V4}\"]\nxdp = \"native\"\n\n\
         [upstream]\nservers = [\"{UPSTREAM_V4}\"]\n\n[control]\nsocket = {socket:?}\n{sections}"
    );
    let config = directory.join("xdnsd.toml");
    fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
    let mut command = lab.router.command(program);
    command.arg("run").arg(config);
    let log = directory.join("xdnsd.log");
    let mut process = Process::spawn_with_end(command, &log, End::Terminate)?;
    process.wait_for_log("ready", PATIENCE)?;
    Ok(process)
}
