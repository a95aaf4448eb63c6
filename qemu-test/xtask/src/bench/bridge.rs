//! `cargo xtask bench bridge`: cache hits on a bridge of four ports, beside those on a link without a bridge, and beside those of
//! generic XDP on the same bridge.
//!
//! ```text
//!   clients                       server
//!  ┌──────────┐                  ┌─────────────────────────┐
//!  │ far1   ──┼──────── veth ────┼─ near1 ─┐                │
//!  │  …       │                  │         ├─ lan 10.77.0.1 │
//!  │ far4   ──┼──────── veth ────┼─ near4 ─┘                │
//!  └──────────┘                  └─────────────────────────┘
//! ```
//! The load is that of `bench xsk`, one sender for each port, all on one core, with what the kernel does to receive their frames; the
//! server has the other core. So its rate is what that core can do, as long as the senders' core offers more. Names are of a set that
//! is in the cache. Every turn has new devices and a new process; what is compared takes turns, in another order from round to round.
//! Processor time is that of both cores with all softirqs and the senders, by /proc/stat.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::net::if_::if_nametoindex;

use super::build::Programs;
use super::compare::{self, KIND};
use super::measure::core_ns;
use super::pair::{ENDS, mac, open_counter, read_counter};
use super::query::{self, Ends};
use super::report::{median, quartiles};
use super::subject::pin_on_exec;
use super::upstream::Upstream;
use super::{LOAD_CORE, SUBJECT_CORE, Turns, record};
use crate::setup::{self, Purpose};
use crate::signals::Signals;
use xdnsd_lab::live::{ENDLESS, Live};
use xdnsd_lab::netns::Namespace;
use xdnsd_lab::privilege::require_root;
use xdnsd_lab::process::Process;

const ROUNDS: u32 = 7;
const SECONDS: u32 = 2;
/// The bridge.
const LAN: &str = "lan";
const PORTS: u8 = 4;
/// Bursts from which on all names are in the cache and all stations are known, their frames, and the time between two.
const BURSTS: u32 = 200;
const BURST: u32 = 64;
const PAUSE: Duration = Duration::from_millis(2);
/// From the start of the load to the first reading.
const RUN_UP: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(10);
/// Fewest answers a second: below, the loop is broken.
const LEAST: f64 = 10_000.0;

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scene {
    /// One port that has the address itself.
    Link,
    /// The program on each port of a bridge.
    Ports,
    /// The program on the bridge, generic.
    Generic,
}

impl Scene {
    const ALL: [Self; 3] = [Self::Link, Self::Ports, Self::Generic];

    const fn name(self) -> &'static str {
        match self {
            Self::Link => "(a) a link, no bridge",
            Self::Ports => "(b) bridge of four ports",
            Self::Generic => "(c) the same, generic XDP",
        }
    }

    /// Number of ports.
    const fn ports(self) -> u8 {
        match self {
            Self::Link => 1,
            Self::Ports | Self::Generic => PORTS,
        }
    }

    /// The device that has the address.
    fn served(self) -> String {
        match self {
            Self::Link => near(1),
            Self::Ports | Self::Generic => LAN.to_owned(),
        }
    }

    /// The appliance's word for it in its log.
    const fn said(self) -> &'static str {
        match self {
            Self::Link => "near1: XDP program attached, mode native",
            Self::Ports => "near1 native; near2 native; near3 native; near4 native",
            Self::Generic => "lan: XDP program attached, mode generic",
        }
    }
}

fn near(number: u8) -> String {
    format!("near{number}")
}

fn far(number: u8) -> String {
    format!("far{number}")
}

/// Result of one turn.
#[derive(Clone, Copy, Debug)]
struct Turn {
    /// Answers per second.
    rate: f64,
    /// Processor time of all cores per answer, in nanoseconds.
    cpu_ns: f64,
}

/// The command `bench bridge`.
pub fn main(ours: Option<PathBuf>, turns: &Turns, signals: &Signals) -> Result<ExitCode> {
    require_root("a benchmark in network namespaces")?;
    setup::ensure_all(&[Purpose::Lab], signals)?;
    let programs = match ours {
        Some(program) => Programs::built(program),
        None => Programs::build(&[KIND], signals)?,
    };
    let (program, directory) = (programs.path(KIND), compare::directory("bridge")?);
    let length = Duration::from_secs(turns.seconds.unwrap_or(SECONDS).into());
    let mut rounds = Vec::new();
    for round in 0..turns.rounds.unwrap_or(ROUNDS) {
        eprintln!("round {}", round + 1);
        let mut of_round = [None; 3];
        for step in 0..Scene::ALL.len() {
            ensure!(!signals.wait(Duration::ZERO), "interrupted");
            let at = (step + round as usize) % Scene::ALL.len();
            let scene = Scene::ALL[at];
            let turn = turn(scene, &program, &directory, length);
            of_round[at] = Some(turn.with_context(|| scene.name())?);
        }
        rounds.push(of_round.map(|turn| turn.expect("each was measured")));
    }
    let table = table(&rounds);
    println!("\n{table}");
    if turns.save {
        record::save(&table)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Starts the appliance on new devices and runs the loop for `length`.
fn turn(scene: Scene, program: &Path, directory: &Path, length: Duration) -> Result<Turn> {
    let ground = Ground::make(scene)?;
    let upstream = Upstream::start_at(&ground.server, Ipv4Addr::new(127, 0, 0, 53))?;
    let config = directory.join("bridge.toml");
    let mode = match scene {
        Scene::Link | Scene::Ports => "native",
        Scene::Generic => "generic",
    };
    let text = format!(
        "[[interface]]\nname = \"{}\"\nlisten = [\"{}\"]\nxdp = \"{mode}\"\n\n\
         [upstream]\nservers = [\"{}\"]\n\n[control]\nsocket = {:?}\n",
        scene.served(),
        ENDS.server,
        upstream.address(),
        directory.join("bridge.sock"),
    );
    fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
    let mut command = ground.server.command(program);
    command.arg("run").arg(config);
    pin_on_exec(&mut command, SUBJECT_CORE)?;
    let mut process = Process::spawn(command, &directory.join("bridge.log"))?;
    process.wait_for_log("ready", PATIENCE)?;
    process.wait_for_log(scene.said(), PATIENCE)?;
    let measured = ground.measure(length);
    measured.with_context(|| format!("its log:\n{}", process.log()))
}

/// The devices, and the programs at the clients' ends.
struct Ground {
    server: Namespace,
    clients: Namespace,
    ports: Vec<Port>,
}

/// A port of the server, and the client behind it.
struct Port {
    load: Live,
    replies: File,
}

impl Ground {
    fn make(scene: Scene) -> Result<Self> {
        let (server, clients) = (Namespace::unnamed()?, Namespace::unnamed()?);
        // The upstream is there.
        server.ip("link set lo up\n")?;
        if scene != Scene::Link {
            server.ip(&format!(
                "link add {LAN} address {} type bridge\nlink set {LAN} addrgenmode none up\n",
                mac(ENDS.server_mac)
            ))?;
        }
        let mut ports = Vec::new();
        for number in 1..=scene.ports() {
            ports.push(Port::make(scene, number, (&server, &clients))?);
        }
        let served = scene.served();
        server.ip(&format!("address add {}/24 dev {served}\n", ENDS.server))?;
        for number in 1..=scene.ports() {
            let ends = ends(number);
            server.ip(&format!(
                "neigh add {} lladdr {} nud permanent dev {served}\n",
                ends.client,
                mac(ends.client_mac)
            ))?;
        }
        Ok(Self {
            server,
            clients,
            ports,
        })
    }

    fn measure(&self, length: Duration) -> Result<Turn> {
        for burst in 0..BURSTS {
            let port = &self.ports[burst as usize % self.ports.len()];
            port.load.burst(&self.clients, BURST)?;
            sleep(PAUSE);
        }
        let look = || -> Result<_> {
            let busy = core_ns(LOAD_CORE)? + core_ns(SUBJECT_CORE)?;
            Ok((Instant::now(), self.replies()?, busy))
        };
        let start = |port: &Port| port.load.start(&self.clients, Some(LOAD_CORE), ENDLESS);
        let loads: Vec<_> = self.ports.iter().map(start).collect();
        sleep(RUN_UP);
        let first = look();
        sleep(length);
        let last = look();
        for load in loads {
            load.stop()?;
        }
        let ((start, replies, busy), (end, replies_after, busy_after)) = (first?, last?);
        let answers = (replies_after - replies) as f64;
        let rate = answers / (end - start).as_secs_f64();
        ensure!(rate > LEAST, "{rate} answers a second");
        Ok(Turn {
            rate,
            cpu_ns: (busy_after - busy) as f64 / answers,
        })
    }

    fn replies(&self) -> Result<u64> {
        let ports = self.ports.iter();
        ports.map(|port| read_counter(&port.replies)).sum()
    }
}

/// Addresses of the client behind a port, and of the server.
fn ends(number: u8) -> Ends {
    Ends {
        client_mac: [0x02, 0, 0, 0, 0x77, 0x10 + number],
        client: Ipv4Addr::new(10, 77, 0, 10 + number),
        ..ENDS
    }
}

impl Port {
    fn make(scene: Scene, number: u8, hosts: (&Namespace, &Namespace)) -> Result<Self> {
        let (server, clients) = hosts;
        let (near, far) = (near(number), far(number));
        let queues = "numrxqueues 1 numtxqueues 1";
        let (address, master) = match scene {
            Scene::Link => (mac(ENDS.server_mac), String::new()),
            Scene::Ports | Scene::Generic => {
                let own = mac([0x02, 0, 0, 0, 0x78, number]);
                (own, format!("link set {near} master {LAN}\n"))
            }
        };
        server.ip(&format!(
            "link add {near} address {address} {queues} type veth peer name {far} {queues} netns {}\n\
             {master}link set {near} addrgenmode none up\n",
            clients.path(),
        ))?;
        clients.ip(&format!("link set {far} addrgenmode none up\n"))?;
        // Without a program of its own a veth takes frames that XDP sends only with GRO.
        server.output(&["ethtool", "-K", &near, "gro", "on"])?;
        let index = clients.run(|| if_nametoindex(far.as_str()));
        let index = index.with_context(|| format!("find {far}"))?;
        Ok(Self {
            load: Live::new(&query::program(index), query::frame(&ends(number)))?,
            replies: open_counter((clients, &far), "rx_packets")?,
        })
    }
}

/// Medians over the rounds, and of the ratios within a round with their quartiles.
fn table(rounds: &[[Turn; 3]]) -> String {
    let [link, ports, generic] = [0, 1, 2];
    let mut text = format!("{:<28}{:>12}{:>16}\n", "", "answers/s", "CPU ns/answer");
    for (at, scene) in Scene::ALL.into_iter().enumerate() {
        let of = |value: fn(&Turn) -> f64| median(rounds.iter().map(|of| value(&of[at])).collect());
        // Writing to a string never fails.
        let _ = writeln!(
            text,
            "{:<28}{:>12.0}{:>16.0}",
            scene.name(),
            of(|turn| turn.rate),
            of(|turn| turn.cpu_ns)
        );
    }
    text.push('\n');
    let mut row = |what: &str, goal: &str, of: &dyn Fn(&[Turn; 3]) -> f64| {
        let ratios: Vec<f64> = rounds.iter().map(of).collect();
        let [low, high] = quartiles(ratios.clone());
        let _ = writeln!(
            text,
            "{what:<40}{:>8.3}   {low:.3}..{high:.3}   goal {goal}",
            median(ratios)
        );
    };
    row("answers of (b), of those of (a)", ">= 0.95", &|of| {
        of[ports].rate / of[link].rate
    });
    row("CPU per answer of (b), of that of (c)", "<= 0.75", &|of| {
        of[ports].cpu_ns / of[generic].cpu_ns
    });
    text
}

#[cfg(test)]
mod tests {
    use super::{Turn, table};

    #[test]
    fn ratios_are_made_within_a_round() {
        let turn = |rate: f64| Turn {
            rate,
            cpu_ns: 2e9 / rate,
        };
        let rounds = [
            [turn(100e3), turn(98e3), turn(49e3)],
            [turn(200e3), turn(190e3), turn(100e3)],
            [turn(50e3), turn(48e3), turn(30e3)],
        ];
        let table = table(&rounds);
        let has = |line: &str| {
            let mut lines = table
                .lines()
                .map(|line| line.split_whitespace().collect::<Vec<_>>());
            lines.any(|words| words.join(" ") == line)
        };
        assert!(has("(b) bridge of four ports 98000 20408"), "{table}");
        assert!(
            has("answers of (b), of those of (a) 0.960 0.950..0.980 goal >= 0.95"),
            "{table}"
        );
        assert!(
            has("CPU per answer of (b), of that of (c) 0.526 0.500..0.625 goal <= 0.75"),
            "{table}"
        );
    }
}
