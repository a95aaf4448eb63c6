//! Cost of frames other than queries in the appliance's programs, beside bare programs with the same verdicts.
//!
//! A bare program is an instruction or two, so its own nanoseconds say little about the cost of a frame. The relevant figure is
//! the processor time per frame of a flood of the thread that receives the interface's frames: driver and program.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::turn::shield;
use crate::bench::build::Programs;
use crate::bench::measure::{cpu_ns, softirq_thread};
use crate::bench::pair::{ENDS, FAR, NEAR, Pair, receiver};
use crate::bench::query;
use crate::bench::subject::{Backend, Kind as Build, pin_on_exec};
use crate::bench::upstream::Upstream;
use crate::bench::{LOAD_CORE, SUBJECT_CORE};
use xdnsd_lab::bpf::cost::{Grows, measure};
use xdnsd_lab::bpf::{Attach, Link, Program, XDP_DROP, XDP_PASS, XDP_TX};
use xdnsd_lab::flood::{self, Flood, Kind, SOURCES_V4};
use xdnsd_lab::process::{End, Process};

const PATIENCE: Duration = Duration::from_secs(10);
const RUN_UP: Duration = Duration::from_millis(100);
/// An address without a host, which the appliance does not serve.
const FOREIGN: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 200);

/// A kind of frame, and its verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// Name in the table.
    pub name: &'static str,
    /// Kind of frame.
    pub kind: Kind,
    /// True for another destination than the appliance's address.
    pub is_foreign: bool,
    /// Action that the program returns.
    pub verdict: i32,
}

const fn case(name: &'static str, kind: Kind, verdict: i32) -> Case {
    Case {
        name,
        kind,
        is_foreign: verdict == XDP_PASS,
        verdict,
    }
}

/// All cases.
pub const CASES: [Case; 7] = [
    case("SYN: cookie", Kind::Syn, XDP_TX),
    case("ACK of no connection: dropped", Kind::Ack, XDP_DROP),
    case("RST of no connection: dropped", Kind::Rst, XDP_DROP),
    case("response: dropped", Kind::Response, XDP_DROP),
    case("short datagram: dropped", Kind::Garbage, XDP_DROP),
    case("somebody else's UDP: passed", Kind::Query, XDP_PASS),
    case("somebody else's TCP: passed", Kind::Ack, XDP_PASS),
];

/// Cost of a frame, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// The program alone, by BPF_PROG_TEST_RUN.
    pub program_ns: f64,
    /// Driver and program, during a flood; `None` for passed frames, where the kernel's part dominates.
    pub frame_ns: Option<f64>,
}

/// Costs of ours and of the bare program.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Costs {
    /// The appliance's.
    pub ours: Cost,
    /// The bare program's.
    pub bare: Cost,
}

/// Parameters of the floods.
#[derive(Clone, Copy, Debug)]
pub struct Floods {
    /// Duration.
    pub length: Duration,
    /// Most frames a second. `None` for as many as a core makes, more than any program takes; the link is then full, and the cost
    /// of that is in every figure.
    pub rate: Option<u32>,
}

/// Measures every case with the appliance, then with the bare programs.
pub fn turn(programs: &Programs, directory: &Path, floods: Floods) -> Result<Vec<Costs>> {
    let ours = {
        let pair = Pair::new()?;
        let _receiver = attach(&pair, XDP_DROP)?;
        let upstream = Upstream::start(&pair)?;
        let process = start(&pair, &upstream, programs, directory)?;
        let costs = CASES.map(|case| cost(&pair, case, floods));
        costs
            .into_iter()
            .collect::<Result<Vec<_>>>()
            .with_context(|| format!("its log:\n{}", process.log()))?
    };
    let mut costs = Vec::new();
    for (case, ours) in CASES.into_iter().zip(ours) {
        let pair = Pair::new()?;
        let _receiver = attach(&pair, XDP_DROP)?;
        let index = pair.near_index()?;
        let bare = pair.server.run(|| {
            let program = match case.verdict {
                XDP_TX => Program::reflector()?,
                verdict => Program::verdict(verdict)?,
            };
            program.attach(index, Attach::Native)
        });
        let _bare = bare.context("attach a bare program")?;
        let bare = cost(&pair, case, floods)?;
        costs.push(Costs { ours, bare });
    }
    Ok(costs)
}

/// Attaches a program to the client's end, where returned frames end.
fn attach(pair: &Pair, verdict: i32) -> Result<Link> {
    let index = pair.far_index()?;
    let link = pair
        .client
        .run(|| Program::verdict(verdict)?.attach(index, Attach::Native));
    link.context("attach a program to the client's end")
}

fn cost(pair: &Pair, case: Case, floods: Floods) -> Result<Cost> {
    one(pair, case, floods).with_context(|| case.name)
}

fn one(pair: &Pair, case: Case, floods: Floods) -> Result<Cost> {
    let path = flood::Path {
        from: (&pair.client, FAR),
        to: (&pair.server, NEAR),
    };
    let to = if case.is_foreign {
        FOREIGN
    } else {
        ENDS.server
    };
    let order = flood::Order {
        kind: case.kind,
        from: SOURCES_V4,
        to: IpAddr::V4(to),
        port: query::DNS_PORT,
        qname: query::name(0),
        rate: floods.rate,
    };
    let flood = Flood::new(path, &order)?;
    let (program, index) = (pair.near_program()?, pair.near_index()?);
    let measured = pair
        .server
        .run(|| measure(&program, flood.sample(), index, Grows::Tail));
    let measured = measured.context("measure the program (BPF_PROG_TEST_RUN)")?;
    ensure!(
        measured.verdict == case.verdict,
        "the program's verdict is {}, not {}",
        measured.verdict,
        case.verdict
    );
    let frame_ns = match case.verdict {
        XDP_PASS => None,
        _ => Some(frame_ns(pair, &flood, floods.length)?),
    };
    Ok(Cost {
        program_ns: measured.nanos.into(),
        frame_ns,
    })
}

/// Processor time of the server's driver per frame of the flood.
fn frame_ns(pair: &Pair, flood: &Flood<'_>, length: Duration) -> Result<f64> {
    pair.thread_server(Some(SUBJECT_CORE))?;
    let threads = [receiver(NEAR)?, softirq_thread(SUBJECT_CORE)?];
    let cpu = || -> Result<u64> { threads.into_iter().map(cpu_ns).sum() };
    let running = flood.start(LOAD_CORE);
    sleep(RUN_UP);
    let (frames, before) = (pair.received()?, cpu()?);
    sleep(length);
    let (frames, after) = (pair.received()? - frames, cpu()?);
    running.stop()?;
    pair.thread_server(None)?;
    ensure!(frames > 0, "no frame of the flood was taken in");
    Ok((after - before) as f64 / frames as f64)
}

fn start(
    pair: &Pair,
    upstream: &Upstream,
    programs: &Programs,
    directory: &Path,
) -> Result<Process> {
    let text = format!(
        "[[interface]]\nname = \"{NEAR}\"\nlisten = [\"{}\"]\nxdp = \"native\"\n\n\
         [upstream]\nservers = [\"{}\"]\n\n[control]\nsocket = {:?}\n{}",
        ENDS.server,
        upstream.address(),
        directory.join("cost.sock"),
        shield(directory),
    );
    let config = directory.join("cost.toml");
    fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
    let mut command = pair
        .server
        .command(programs.path(Build::Appliance(Backend::Own)));
    command.arg("run").arg(config);
    pin_on_exec(&mut command, SUBJECT_CORE)?;
    let log = directory.join("cost.log");
    let mut process = Process::spawn_with_end(command, &log, End::Terminate)?;
    process.wait_for_log("ready", PATIENCE)?;
    Ok(process)
}
