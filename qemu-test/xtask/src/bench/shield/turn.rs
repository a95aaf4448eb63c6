//! One turn of one subject: all floods in sequence, in its own lab.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use super::callers::{Rates, Served, call};
use super::losses::Losses;
use crate::bench::build::Programs;
use crate::bench::pair::{receiver, thread};
use crate::bench::query;
use crate::bench::subject::{Backend, Kind as Build};
use crate::bench::upstream::Upstream;
use crate::bench::{LOAD_CORE, SUBJECT_CORE};
use nix::net::if_::if_nametoindex;
use xdnsd_lab::bpf::instruction::{Instruction, R0, R1, R2, R3};
use xdnsd_lab::bpf::{Attach, DATA, DATA_END, Link, Program, XDP_DROP, XDP_PASS};
use xdnsd_lab::flood::{self, Flood, Kind, SOURCES_V4};
use xdnsd_lab::lab::{HOST_INTERFACE, LAN, LAN_V4, Lab, Spec, UPSTREAM_V4};
use xdnsd_lab::netns::Namespace;
use xdnsd_lab::peer::{Peer, Site};
use xdnsd_lab::process::{End, Process};
use xdnsd_lab::suite::Suite;

/// Time until the appliance is ready.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time that callers ask before measuring: every name is hot by then.
const RUN_UP: Duration = Duration::from_secs(1);
/// The appliance's control socket, in the directory.
const SOCKET: &str = "xdnsd.sock";
/// Longer than any measurement.
const FLOOD_MAX: Duration = Duration::from_secs(600);

/// Subject of the floods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The appliance, with SYN cookies, limits and tier 0.
    Appliance,
    /// The appliance without XDP, behind a program of some ten instructions that drops packets from the flood's sources and
    /// passes all others: the share that link and machine leave to any program.
    Bare,
    /// Another forwarder, with the kernel's cookies.
    Peer(Peer),
}

impl Who {
    /// All subjects, ours first.
    pub const ALL: [Self; 4] = [
        Self::Appliance,
        Self::Bare,
        Self::Peer(Peer::Dnsmasq),
        Self::Peer(Peer::Unbound { threads: 1 }),
    ];

    /// Name in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Appliance => "xdnsd",
            Self::Bare => "bare filter",
            Self::Peer(peer) => peer.name(),
        }
    }
}

/// The floods; the first entry is no flood.
pub const FLOODS: [Option<Kind>; 6] = [
    None,
    Some(Kind::Syn),
    Some(Kind::Ack),
    Some(Kind::Rst),
    Some(Kind::Query),
    Some(Kind::Garbage),
];

/// Result of one flood.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Callers served.
    pub served: Served,
    /// Frames of the flood that the router received, per second.
    pub flood: f64,
    /// Frames without room on the link, per second.
    pub lost: f64,
    /// Where callers' frames and answers were lost.
    pub losses: Losses,
}

/// Parameters common to all turns.
#[derive(Debug)]
pub struct Ground<'a> {
    /// Our programs.
    pub programs: &'a Programs,
    /// The newer Debian suite of other servers; `None` leaves them out.
    pub suite: Option<&'a Suite>,
    /// Directory for files.
    pub directory: &'a Path,
    /// Rates of the callers.
    pub rates: Rates,
    /// Duration of each flood.
    pub length: Duration,
    /// Most frames of a flood per second.
    pub flood: Option<u32>,
}

/// Floods one subject with each of [`FLOODS`].
pub fn turn(who: Who, ground: &Ground<'_>) -> Result<[Outcome; FLOODS.len()]> {
    let lab = Lab::up(&Spec::default())?;
    flood::learn_routes(&lab.router)?;
    // Frames sent by XDP arrive at a veth's end only if it has a program. This one drops answers to the flood: a host that forges
    // sources gets none, and in the callers' stack they would slow down the measured traffic.
    let _receiver = attach_filter(&lab.client, HOST_INTERFACE, DESTINATION)?;
    let _upstream = Upstream::start_at(&lab.upstream, UPSTREAM_V4)?;
    let _filter = match who {
        Who::Bare => Some(attach_filter(&lab.router, LAN, SOURCE)?),
        Who::Appliance | Who::Peer(_) => None,
    };
    let process = start(who, &lab, ground)?;
    let mut outcomes = [Outcome::default(); FLOODS.len()];
    ask(&lab, ground.rates, RUN_UP)?;
    for (outcome, kind) in outcomes.iter_mut().zip(FLOODS) {
        let what = || format!("{}\nits log:\n{}", name(kind), process.log());
        let before = losses(who, &lab, ground)?;
        *outcome = one(&lab, kind, ground).with_context(what)?;
        outcome.losses = losses(who, &lab, ground)?.since(before);
    }
    Ok(outcomes)
}

fn losses(who: Who, lab: &Lab, ground: &Ground<'_>) -> Result<Losses> {
    let stats = (who == Who::Appliance).then(|| {
        let program = ground.programs.path(Build::Appliance(Backend::Own));
        let mut command = lab.router.command(program);
        command.args(["stats", "--prometheus", "--socket"]);
        command.arg(ground.directory.join(SOCKET));
        command
    });
    Losses::read(lab, stats)
}

/// Name of a flood.
pub fn name(kind: Option<Kind>) -> &'static str {
    kind.map_or("none", Kind::name)
}

fn ask(lab: &Lab, rates: Rates, length: Duration) -> Result<Served> {
    lab.client.run(|| call(LAN_V4, rates, length))
}

fn one(lab: &Lab, kind: Option<Kind>, ground: &Ground<'_>) -> Result<Outcome> {
    let Some(kind) = kind else {
        let served = ask(lab, ground.rates, ground.length)?;
        return Ok(Outcome {
            served,
            ..Outcome::default()
        });
    };
    let path = flood::Path {
        from: (&lab.client, HOST_INTERFACE),
        to: (&lab.router, LAN),
    };
    let order = flood::Order {
        kind,
        from: SOURCES_V4,
        to: LAN_V4.into(),
        port: query::DNS_PORT,
        qname: query::name(0),
        rate: ground.flood,
    };
    let flood = Flood::new(path, &order)?;
    as_an_interrupt(lab)?;
    let bounds = flood::Bounds {
        count: u32::MAX,
        length: FLOOD_MAX,
        core: Some(LOAD_CORE),
    };
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let flooding = scope.spawn(|| flood.run(bounds, || is_over.load(Ordering::Relaxed)));
        let served = ask(lab, ground.rates, ground.length);
        is_over.store(true, Ordering::Relaxed);
        let flooded = flooding
            .join()
            .map_err(|_| anyhow!("the flood panicked"))??;
        let secs = flooded.took.as_secs_f64();
        Ok(Outcome {
            served: served?,
            flood: flooded.arrived as f64 / secs,
            lost: flooded.lost as f64 / secs,
            losses: Losses::default(),
        })
    })
}

/// Has frames received on the subject's core by a kernel thread that nothing there delays, like a card's interrupt: otherwise
/// they are received on the sender's core, which rarely yields, and never at a router's expense.
pub fn as_an_interrupt(lab: &Lab) -> Result<()> {
    const PRIORITY: &str = "50";
    thread(&lab.router, LAN, Some(SUBJECT_CORE))?;
    let pid = receiver(LAN)?.to_string();
    let arguments = ["chrt", "--fifo", "--pid", PRIORITY, &pid];
    let set = lab.router.output(&arguments);
    set.map(drop).context("have the driver's thread go first")
}

fn start(who: Who, lab: &Lab, ground: &Ground<'_>) -> Result<Process> {
    match who {
        Who::Appliance => start_own(lab, ground, "native"),
        Who::Bare => start_own(lab, ground, "off"),
        Who::Peer(peer) => {
            let site = Site {
                host: &lab.router,
                address: SocketAddr::new(LAN_V4.into(), query::DNS_PORT),
                upstream: UPSTREAM_V4.into(),
                directory: ground.directory,
            };
            peer.start_of(ground.suite, &site, "")
        }
    }
}

/// Offset of the source address in an untagged IPv4 frame.
const SOURCE: i16 = 26;
/// Offset of the destination address.
pub const DESTINATION: i16 = 30;

/// Attaches a program that drops frames with a flood's source at this offset, and passes all others.
pub fn attach_filter(host: &Namespace, interface: &str, at: i16) -> Result<Link> {
    const HEADERS_END: i32 = 34;
    const NETWORK: i32 = u16::from_ne_bytes([198, 18]) as i32;
    let program = Program::load(&[
        Instruction::load_u32(R2, R1, DATA_END),
        Instruction::load_u32(R1, R1, DATA),
        Instruction::set(R0, XDP_PASS),
        Instruction::copy(R3, R1),
        Instruction::add(R3, HEADERS_END),
        Instruction::skip_if_greater(R3, R2, 3),
        Instruction::load_u16(R1, R1, at),
        Instruction::skip_if_other(R1, NETWORK, 1),
        Instruction::set(R0, XDP_DROP),
        Instruction::exit(),
    ]);
    let program = program.context("load a bare filter")?;
    let attached = host.run(|| program.attach(if_nametoindex(interface)?, Attach::Native));
    attached.with_context(|| format!("attach a bare filter to {interface}"))
}

fn start_own(lab: &Lab, ground: &Ground<'_>, xdp: &str) -> Result<Process> {
    let directory = ground.directory;
    let (tier0, shield) = match xdp {
        "off" => ("off", String::new()),
        _ => ("on", shield(directory)),
    };
    // Half as much again as the callers ask, who count as one client.
    let limit = ground.rates.udp + ground.rates.udp / 2;
    let text = format!(
        "[[interface]]\nname = \"{LAN}\"\nlisten = [\"{LAN_V4}\"]\nxdp = \"{xdp}\"\n\n\
         [upstream]\nservers = [\"{UPSTREAM_V4}\"]\n\n[cache]\nrotate = false\ntier0 = \"{tier0}\"\n\n\
         [rate_limit]\nqueries = {limit}\nmisses = {limit}\nburst_secs = 1\n\n\
         [control]\nsocket = {:?}\n{shield}",
        directory.join(SOCKET),
    );
    let config = directory.join("xdnsd.toml");
    fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
    let program = ground.programs.path(Build::Appliance(Backend::Own));
    let mut command = lab.router.command(program);
    command.arg("run").arg(config);
    let log = directory.join("xdnsd.log");
    let mut process = Process::spawn_with_end(command, &log, End::Terminate)?;
    process.wait_for_log("ready", PATIENCE)?;
    Ok(process)
}

/// Section of the config that enables SYN cookies.
pub fn shield(directory: &Path) -> String {
    let state = directory.join("syncookies");
    format!("\n[shield]\nsyn_cookies = \"always\"\nstate_file = {state:?}\n")
}
