//! Servers and lab of the reproduction.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use xdnsd_lab::bpf::{Link, attach_pass};
use xdnsd_lab::family::Family;
use xdnsd_lab::lab::{HOST_INTERFACE, LAN, LAN_V4, LAN_V6, Lab, Spec, UPSTREAM_V4, UPSTREAM_V6};
use xdnsd_lab::peer::{Peer, Site};
use xdnsd_lab::process::{End, Process};
use xdnsd_lab::scripted::{self, A, Asked, Record, Rule};

/// Time until the appliance is ready.
const PATIENCE: Duration = Duration::from_secs(10);
const DNS_PORT: u16 = 53;
const DAY_SECS: u32 = 86_400;
/// Address of every name, as dig prints it.
pub const ADDRESS: &str = "192.0.2.1";

/// Answering server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The upstream, through the router's kernel.
    Upstream,
    /// The appliance over AF_XDP.
    Appliance,
    /// The appliance with `tier0 = "on"`.
    Tier0,
    /// dnsmasq.
    Dnsmasq,
}

impl Who {
    /// All servers.
    pub const ALL: [Self; 4] = [Self::Upstream, Self::Appliance, Self::Tier0, Self::Dnsmasq];

    /// Name for progress messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Upstream => "the upstream itself",
            Self::Appliance => "xdnsd",
            Self::Tier0 => "xdnsd, hot names",
            Self::Dnsmasq => "dnsmasq",
        }
    }

    /// Address to ask. The forwarder's own questions always go over IPv4.
    pub fn address(self, family: Family) -> IpAddr {
        match self {
            Self::Upstream => family.of(UPSTREAM_V4.into(), UPSTREAM_V6.into()),
            Self::Appliance | Self::Tier0 | Self::Dnsmasq => {
                family.of(LAN_V4.into(), LAN_V6.into())
            }
        }
    }
}

/// Environment of all turns.
#[derive(Debug)]
pub struct Ground {
    /// The three hosts.
    pub lab: Lab,
    /// Directory for files.
    pub directory: PathBuf,
    /// The names, without the domain.
    pub names: Vec<String>,
    program: PathBuf,
    _upstream: scripted::Upstream,
    _pass: Link,
}

impl Ground {
    /// The lab, with an upstream that answers everything after `distance`.
    pub fn make(program: PathBuf, names: u32, distance: Duration, at: &Path) -> Result<Self> {
        let lab = Lab::up(&Spec::default())?;
        let rule = Rule {
            delay: distance,
            ..Rule::answer(answer)
        };
        let mut upstream = scripted::Upstream::without_record(rule);
        for address in [UPSTREAM_V4.into(), UPSTREAM_V6.into()] {
            let served = lab
                .upstream
                .run(|| upstream.serve(SocketAddr::new(address, DNS_PORT)));
            served.with_context(|| format!("start the upstream at {address}"))?;
        }
        // Frames sent by XDP_TX arrive only if the other end of the pair has a program.
        let pass = attach_pass(&lab.client, HOST_INTERFACE);
        Ok(Self {
            _pass: pass.context("attach a program that passes to the client")?,
            _upstream: upstream,
            lab,
            directory: at.to_owned(),
            names: (0..names)
                .map(|number| format!("n{number}.paper.test"))
                .collect(),
            program,
        })
    }

    /// Starts the server with an empty cache, unless it runs anyway.
    pub fn start(&self, who: Who, family: Family) -> Result<Option<Process>> {
        match who {
            Who::Upstream => Ok(None),
            Who::Appliance => self.start_own("off").map(Some),
            Who::Tier0 => self.start_own("on").map(Some),
            Who::Dnsmasq => {
                let site = Site {
                    host: &self.lab.router,
                    address: SocketAddr::new(who.address(family), DNS_PORT),
                    upstream: UPSTREAM_V4.into(),
                    directory: &self.directory,
                };
                Peer::Dnsmasq.start(&site, "").map(Some)
            }
        }
    }

    fn start_own(&self, tier0: &str) -> Result<Process> {
        let directory = &self.directory;
        let socket = directory.join("xdnsd.sock");
        let text = format!(
            "[[interface]]\nname = \"{LAN}\"\nlisten = [\"{LAN_V4}\", \"{LAN_V6}\"]\nxdp = \"native\"\n\n\
             [upstream]\nservers = [\"{UPSTREAM_V4}\"]\n\n[cache]\ntier0 = \"{tier0}\"\n\n\
             [control]\nsocket = {socket:?}\n"
        );
        let config = directory.join("xdnsd.toml");
        fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
        let mut command = self.lab.router.command(&self.program);
        command.arg("run").arg(config);
        let log = directory.join("xdnsd.log");
        let mut process = Process::spawn_with_end(command, &log, End::Terminate)?;
        process.wait_for_log("ready", PATIENCE)?;
        Ok(process)
    }
}

fn answer(asked: &Asked) -> Vec<u8> {
    asked.response(&[Record {
        kind: A,
        ttl_secs: DAY_SECS,
        data: vec![192, 0, 2, 1],
    }])
}
