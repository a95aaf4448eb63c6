//! One turn of one forwarder: all scenes, in its own lab.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use super::callers::{Served, call, flood as flood_from_one};
use crate::bench::LOAD_CORE;
use crate::bench::query::DNS_PORT;
use crate::bench::shield::turn::{DESTINATION, as_an_interrupt, attach_filter};
use xdnsd_lab::flood::{self, Flood, Kind, SOURCES_V4};
use xdnsd_lab::lab::{HOST_INTERFACE, LAN, LAN_V4, Lab, Spec, UPSTREAM_V4};
use xdnsd_lab::peer::{Peer, Site};
use xdnsd_lab::process::{End, Process};
use xdnsd_lab::scripted::{A, Asked, Record, Rule, Upstream};

/// Time until the appliance is ready.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time that clients ask before anything is measured: every known name is in the cache by then.
const RUN_UP: Duration = Duration::from_secs(2);
/// Addresses of the clients that are to be served, and of the one that floods by itself.
const CLIENTS: [Ipv4Addr; 4] = [
    Ipv4Addr::new(10, 53, 0, 21),
    Ipv4Addr::new(10, 53, 0, 22),
    Ipv4Addr::new(10, 53, 0, 23),
    Ipv4Addr::new(10, 53, 0, 24),
];
const FLOODER: Ipv4Addr = Ipv4Addr::new(10, 53, 0, 66);
/// Longer than any measurement.
const FLOOD_MAX: Duration = Duration::from_secs(600);

/// What happens meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scene {
    /// From 65,536 addresses; otherwise from one.
    pub is_spread: bool,
    /// The upstream does not answer for the random names.
    pub is_silent: bool,
}

/// All scenes.
pub const SCENES: [Scene; 4] = [
    Scene {
        is_spread: false,
        is_silent: false,
    },
    Scene {
        is_spread: false,
        is_silent: true,
    },
    Scene {
        is_spread: true,
        is_silent: false,
    },
    Scene {
        is_spread: true,
        is_silent: true,
    },
];

impl Scene {
    /// Name in the table.
    pub fn name(self) -> &'static str {
        match (self.is_spread, self.is_silent) {
            (false, false) => "from one address, answered",
            (false, true) => "from one address, upstream silent",
            (true, false) => "from many, answered",
            (true, true) => "from many, upstream silent",
        }
    }
}

/// What one scene came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// What clients got.
    pub served: Served,
    /// Random names a second that arrived.
    pub flood: f64,
}

/// What all turns have in common.
#[derive(Debug)]
pub struct Ground<'a> {
    /// The appliance.
    pub program: PathBuf,
    /// Directory for files.
    pub directory: &'a Path,
    /// Random names a second.
    pub rate: u32,
    /// Duration of each scene.
    pub length: Duration,
}

/// An upstream that counts its questions for known names.
struct Counting {
    server: Upstream,
    asked: Arc<AtomicU64>,
}

impl Counting {
    fn start(lab: &Lab) -> Result<Self> {
        let mut server = Upstream::without_record(Rule::answer(answer));
        let asked = Arc::new(AtomicU64::new(0));
        let counted = asked.clone();
        let rule = Rule::answer(move |question| {
            counted.fetch_add(1, Ordering::Relaxed);
            answer(question)
        });
        server.on("*.known.test.", rule);
        let started = lab
            .upstream
            .run(|| server.serve((UPSTREAM_V4, DNS_PORT).into()));
        started.context("start the upstream")?;
        Ok(Self { server, asked })
    }
}

/// Every name has an address for an hour.
fn answer(asked: &Asked) -> Vec<u8> {
    asked.response(&[Record {
        kind: A,
        ttl_secs: 3_600,
        data: vec![192, 0, 2, 1],
    }])
}

/// All scenes with one forwarder; `None` for the appliance.
pub fn turn(who: Option<Peer>, ground: &Ground<'_>) -> Result<[Outcome; SCENES.len()]> {
    let lab = Lab::up(&Spec::default())?;
    flood::learn_routes(&lab.router)?;
    for address in CLIENTS.iter().chain([&FLOODER]) {
        lab.client
            .ip(&format!("address add {address}/24 dev {HOST_INTERFACE}\n"))?;
    }
    // Answers to forged sources end here, and do not keep the clients' core busy.
    let _receiver = attach_filter(&lab.client, HOST_INTERFACE, DESTINATION)?;
    let upstream = Counting::start(&lab)?;
    let process = match who {
        None => start_own(&lab, ground)?,
        Some(peer) => {
            let site = Site {
                host: &lab.router,
                address: SocketAddr::new(LAN_V4.into(), DNS_PORT),
                upstream: UPSTREAM_V4.into(),
                directory: ground.directory,
            };
            peer.start(&site, "")?
        }
    };
    if who.is_some() {
        // A veth's end without an XDP program has a receiving thread only with GRO.
        lab.router.output(&["ethtool", "-K", LAN, "gro", "on"])?;
    }
    as_an_interrupt(&lab)?;
    lab.client
        .run(|| call(&CLIENTS, LAN_V4, RUN_UP, "-first"))?;
    let mut outcomes = [Outcome::default(); SCENES.len()];
    for (outcome, scene) in outcomes.iter_mut().zip(SCENES) {
        let what = || format!("{}\nits log:\n{}", scene.name(), process.log());
        *outcome = one(&lab, &upstream, scene, ground).with_context(what)?;
    }
    Ok(outcomes)
}

/// Floods, and serves clients meanwhile.
fn one(lab: &Lab, upstream: &Counting, scene: Scene, ground: &Ground<'_>) -> Result<Outcome> {
    let rule = if scene.is_silent {
        Rule::silence()
    } else {
        Rule::answer(answer)
    };
    upstream.server.on("*.flood.test.", rule);
    let before = upstream.asked.load(Ordering::Relaxed);
    let is_over = AtomicBool::new(false);
    let mark = format!("-{}-{}", scene.is_spread, scene.is_silent);
    thread::scope(|scope| {
        let flooding = scope.spawn(|| match scene.is_spread {
            true => flood_from_many(lab, ground.rate, &is_over),
            false => lab
                .client
                .run(|| flood_from_one(FLOODER, LAN_V4, ground.rate, &is_over)),
        });
        let served = lab
            .client
            .run(|| call(&CLIENTS, LAN_V4, ground.length, &mark));
        is_over.store(true, Ordering::Relaxed);
        let flood = flooding
            .join()
            .map_err(|_| anyhow!("the flood panicked"))??;
        let asked = upstream.asked.load(Ordering::Relaxed) - before;
        let served = Served { asked, ..served? };
        Ok(Outcome { served, flood })
    })
}

/// Random names from 65,536 addresses until `is_over`; returns how many arrived a second.
fn flood_from_many(lab: &Lab, rate: u32, is_over: &AtomicBool) -> Result<f64> {
    let path = flood::Path {
        from: (&lab.client, HOST_INTERFACE),
        to: (&lab.router, LAN),
    };
    let order = flood::Order {
        kind: Kind::Names,
        from: SOURCES_V4,
        to: LAN_V4.into(),
        port: DNS_PORT,
        qname: "flood.test".into(),
        rate: Some(rate),
    };
    let flood = Flood::new(path, &order)?;
    let bounds = flood::Bounds {
        count: u32::MAX,
        length: FLOOD_MAX,
        core: Some(LOAD_CORE),
    };
    let report = flood.run(bounds, || is_over.load(Ordering::Relaxed))?;
    Ok(report.arrived as f64 / report.took.as_secs_f64())
}

/// The appliance as it comes, but that forged sources are not those of neighbours, and are to be answered as by the others.
fn start_own(lab: &Lab, ground: &Ground<'_>) -> Result<Process> {
    let directory = ground.directory;
    let text = format!(
        "[[interface]]\nname = \"{LAN}\"\nlisten = [\"{LAN_V4}\"]\nxdp = \"native\"\n\n\
         [access]\nothers = \"allow\"\n\n[upstream]\nservers = [\"{UPSTREAM_V4}\"]\n\n\
         [control]\nsocket = {:?}\n",
        directory.join("xdnsd.sock"),
    );
    let config = directory.join("xdnsd.toml");
    fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
    let mut command = lab.router.command(&ground.program);
    command.arg("run").arg(config);
    let log = directory.join("xdnsd.log");
    let mut process = Process::spawn_with_end(command, &log, End::Terminate)?;
    process.wait_for_log("ready", PATIENCE)?;
    Ok(process)
}
