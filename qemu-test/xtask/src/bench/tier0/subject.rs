//! The measured servers, each on its own pair, on one core.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::meter::{self, Load, Meter};
use crate::bench::build::Programs;
use crate::bench::pair::{ENDS, NEAR, Pair};
use crate::bench::query;
use crate::bench::subject::{Backend, Kind, pin_on_exec};
use crate::bench::upstream::Upstream;
use crate::bench::{LOAD_CORE, SUBJECT_CORE};
use xdnsd_lab::bpf::{Attach, Link, Program, attach_pass};
use xdnsd_lab::knot;
use xdnsd_lab::nsd::Zone;
use xdnsd_lab::peer::{Peer, Site};
use xdnsd_lab::process::{End, Process};
use xdnsd_lab::suite::Suite;
use xdnsd_lab::wait::wait_until;

/// Time until a subject is ready, and has all names where it should answer them from.
const PATIENCE: Duration = Duration::from_secs(5);
/// Queries a second while names and client become known to it.
const WARM_RATE: f64 = 5_000.0;
/// Duration of one check whether they are.
const WARM_LOOK: Duration = Duration::from_millis(200);
/// Share of a check's queries that must be answered from where this subject should answer.
const WARM_SHARE: f64 = 0.98;
/// Processes tried, since two hot names may collide in one place of the XDP program.
const TRIES: u32 = 5;

/// A measured server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// A program that swaps addresses: the upper bound.
    Reflector,
    /// A reflector that makes the frame as long as the answer and writes all of it: the upper bound with answers.
    Grower,
    /// The appliance with `tier0 = "on"`.
    Tier0,
    /// `xsk_echo`: the upper bound of AF_XDP.
    Echo,
    /// The appliance over AF_XDP.
    Tier1,
    /// The appliance with `xdp = "off"`.
    Sockets,
    /// Another forwarder.
    Peer(Peer),
    /// An authoritative server over XDP.
    Knot,
}

impl Who {
    /// All subjects, the upper bound first.
    pub const ALL: [Self; 9] = [
        Self::Reflector,
        Self::Grower,
        Self::Tier0,
        Self::Echo,
        Self::Tier1,
        Self::Sockets,
        Self::Peer(Peer::Dnsmasq),
        Self::Peer(Peer::Unbound { threads: 1 }),
        Self::Knot,
    ];

    /// Letter by which it is selected.
    pub fn letter(self) -> char {
        match self {
            Self::Reflector => 'a',
            Self::Tier0 => 'b',
            Self::Echo => 'c',
            Self::Tier1 => 'd',
            Self::Sockets => 'e',
            Self::Peer(Peer::Dnsmasq) => 'f',
            Self::Peer(Peer::Unbound { .. }) => 'g',
            Self::Knot => 'h',
            Self::Grower => 'i',
        }
    }

    /// Name in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reflector => "bare XDP_TX reflector",
            Self::Grower => "reflector of an answer's length",
            Self::Tier0 => "xdnsd, tier 0",
            Self::Echo => "bare AF_XDP echo",
            Self::Tier1 => "xdnsd, tier 1 (AF_XDP)",
            Self::Sockets => "xdnsd, kernel's sockets",
            Self::Peer(peer) => peer.name(),
            Self::Knot => "Knot DNS over XDP",
        }
    }

    /// Its program in the suite, if it has one.
    pub fn program(self) -> Option<&'static str> {
        match self {
            Self::Peer(peer) => Some(peer.name()),
            Self::Knot => Some("knotd"),
            Self::Reflector
            | Self::Grower
            | Self::Tier0
            | Self::Echo
            | Self::Tier1
            | Self::Sockets => None,
        }
    }

    /// True if it sends real answers instead of an echo.
    pub fn is_server(self) -> bool {
        !matches!(self, Self::Reflector | Self::Grower | Self::Echo)
    }

    /// True if the interface has an XDP program of its own, whose cost can be measured.
    pub fn has_program(self) -> bool {
        matches!(
            self,
            Self::Reflector | Self::Grower | Self::Tier0 | Self::Tier1
        )
    }

    fn kind(self) -> Option<Kind> {
        match self {
            Self::Echo => Some(Kind::Echo(Backend::Own)),
            Self::Tier0 | Self::Tier1 | Self::Sockets => Some(Kind::Appliance(Backend::Own)),
            Self::Reflector | Self::Grower | Self::Peer(_) | Self::Knot => None,
        }
    }

    /// Sections of the appliance's config.
    fn sections(self) -> &'static str {
        match self {
            Self::Tier0 => "[cache]\nrotate = false\ntier0 = \"on\"\n",
            Self::Tier1 | Self::Sockets => "[cache]\nrotate = false\ntier0 = \"off\"\n",
            Self::Reflector | Self::Grower | Self::Echo | Self::Peer(_) | Self::Knot => "",
        }
    }
}

/// Environment common to all subjects.
#[derive(Debug)]
pub struct Ground<'a> {
    /// Our programs.
    pub programs: &'a Programs,
    /// The suite of other servers.
    pub suite: &'a Suite,
    /// Directory for files.
    pub directory: &'a Path,
}

/// A subject that is ready.
#[derive(Debug)]
pub struct Subject {
    /// The subject.
    pub who: Who,
    /// Its environment.
    pub pair: Pair,
    /// Its client.
    pub meter: Meter,
    process: Option<Process>,
    #[expect(dead_code, reason = "held for its drop")]
    helpers: (Option<Link>, Option<Upstream>),
}

impl Subject {
    /// Starts it on its core, and asks until it answers from where it should. Two names may collide in one place of the XDP
    /// program; a new process, with another key, is unlikely to have the same collision.
    pub fn start(who: Who, ground: &Ground<'_>) -> Result<Self> {
        let tries = if who == Who::Tier0 { TRIES } else { 1 };
        let mut started = Self::start_one(who, ground);
        for _ in 1..tries {
            if started.is_ok() {
                break;
            }
            started = Self::start_one(who, ground);
        }
        started
    }

    fn start_one(who: Who, ground: &Ground<'_>) -> Result<Self> {
        let pair = Pair::new()?;
        let meter = Meter::new(&pair)?;
        let upstream = match who.is_server() {
            true => Some(Upstream::start(&pair)?),
            false => None,
        };
        let link = match who {
            Who::Reflector => Some(attach(&pair, &Program::reflector()?)?),
            Who::Grower => {
                let program = Program::growing_reflector(meter::frame().len(), &query::ANSWER)?;
                Some(attach(&pair, &program)?)
            }
            Who::Sockets | Who::Peer(_) => Some(attach_pass(&pair.server, NEAR)?),
            Who::Tier0 | Who::Echo | Who::Tier1 | Who::Knot => None,
        };
        let process = start(who, &pair, upstream.as_ref(), ground)?;
        let subject = Self {
            who,
            pair,
            meter,
            process,
            helpers: (link, upstream),
        };
        let warmed = subject.warm();
        warmed.with_context(|| match &subject.process {
            Some(process) => format!("its log:\n{}", process.log()),
            None => "no process".to_owned(),
        })?;
        Ok(subject)
    }

    /// PID of its process, if it has one.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// Asks until every name is answered from where it should be.
    fn warm(&self) -> Result<()> {
        let load = self
            .meter
            .start(&self.pair, LOAD_CORE, Load::to_time(WARM_RATE))?;
        let mut seen = String::new();
        let waited = wait_until("it answers what it is asked", PATIENCE, || {
            let look = self.look();
            seen = format!("{look:?}");
            look.is_ok_and(|share| share >= WARM_SHARE)
        });
        load.stop()?;
        waited.with_context(|| format!("the last share was {seen}"))
    }

    /// Share of queries answered from where they should be, over a moment.
    fn look(&self) -> Result<f64> {
        let (before, left) = (self.meter.count()?, self.pair.xdp_sent()?);
        std::thread::sleep(WARM_LOOK);
        let (after, left) = (self.meter.count()?, self.pair.xdp_sent()? - left);
        let counted = before.until(&after);
        let answered = match self.who {
            Who::Reflector | Who::Grower => counted.replies.min(left as f64),
            Who::Tier0 => counted.answers.min(left as f64),
            Who::Echo => counted.replies,
            Who::Tier1 | Who::Sockets | Who::Peer(_) | Who::Knot => counted.answers,
        };
        Ok(answered / counted.sent)
    }
}

fn attach(pair: &Pair, reflector: &Program) -> Result<Link> {
    let index = pair.near_index()?;
    let link = pair.server.run(|| reflector.attach(index, Attach::Native));
    link.context("attach the reflector")
}

fn start(
    who: Who,
    pair: &Pair,
    upstream: Option<&Upstream>,
    ground: &Ground<'_>,
) -> Result<Option<Process>> {
    let Ground {
        suite, directory, ..
    } = *ground;
    let address = SocketAddr::new(ENDS.server.into(), query::DNS_PORT);
    match (who, upstream) {
        (Who::Peer(peer), Some(upstream)) => {
            let site = Site {
                host: &pair.server,
                address,
                upstream: upstream.address().ip(),
                directory,
            };
            let process = peer.start_of(Some(suite), &site, "")?;
            pin(&process)?;
            Ok(Some(process))
        }
        (Who::Knot, _) => {
            let site = knot::Site {
                host: &pair.server,
                interface: NEAR,
                address,
                directory,
            };
            let process = knot::start(suite, &site, &zone())?;
            pin(&process)?;
            Ok(Some(process))
        }
        (who, upstream) => match who.kind() {
            Some(kind) => start_own(who, kind, (pair, upstream), ground).map(Some),
            None => Ok(None),
        },
    }
}

fn start_own(
    who: Who,
    kind: Kind,
    (pair, upstream): (&Pair, Option<&Upstream>),
    ground: &Ground<'_>,
) -> Result<Process> {
    let name = who.letter();
    let mut command = pair.server.command(ground.programs.path(kind));
    match upstream {
        Some(upstream) => {
            let socket = ground.directory.join(format!("{name}.sock"));
            let xdp = if who == Who::Sockets { "off" } else { "native" };
            let text = format!(
                "[[interface]]\nname = \"{NEAR}\"\nlisten = [\"{}\"]\nxdp = \"{xdp}\"\n\n\
                 [upstream]\nservers = [\"{}\"]\n\n[control]\nsocket = {socket:?}\n{}",
                ENDS.server,
                upstream.address(),
                who.sections()
            );
            let config = ground.directory.join(format!("{name}.toml"));
            fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
            command.arg("run").arg(config);
        }
        None => drop(command.arg(NEAR)),
    }
    pin_on_exec(&mut command, SUBJECT_CORE)?;
    let log = ground.directory.join(format!("{name}.log"));
    let mut process = Process::spawn_with_end(command, &log, End::Terminate)?;
    process.wait_for_log("ready", PATIENCE)?;
    Ok(process)
}

/// Moves all threads of a server to the subject's core.
fn pin(process: &Process) -> Result<()> {
    let mut taskset = Command::new("taskset");
    taskset.args(["-a", "-c", "-p", &SUBJECT_CORE.to_string()]);
    taskset.arg(process.pid().to_string());
    xdnsd_lab::process::output_of(&mut taskset)
        .map(drop)
        .context("pin it (package util-linux)")
}

/// The upstream's zone.
fn zone() -> Zone {
    let names: String = (0..meter::NAMES)
        .map(|index| format!("{}. A 192.0.2.1\n", query::name(index)))
        .collect();
    Zone {
        origin: "bench.test.".to_owned(),
        text: format!(
            "$ORIGIN bench.test.\n$TTL 86400\n@ SOA ns hostmaster 1 3600 600 86400 60\n@ NS ns\n\
             ns A 192.0.2.53\n{names}"
        ),
    }
}
