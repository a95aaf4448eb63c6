//! `cargo xtask lab`: the lab for interactive use.

use std::ffi::OsString;
use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};

use crate::arguments::{SOME, number_in};
use crate::setup::{self, Purpose};
use crate::signals::Signals;
use xdnsd_lab::flood::{self, Kind, SOURCES_V4, SOURCES_V6};
use xdnsd_lab::lab::bridge::{BridgeSpec, PORT_RANGE};
use xdnsd_lab::lab::named::{self, Lifetime, NamedLab};
use xdnsd_lab::lab::{
    HOST_INTERFACE, Host, LAN, LAN_V4, LAN_V6, MTU, MTU_RANGE, Offload, QUEUE_RANGE, Spec, VlanTag,
};

mod hping;
mod shield;

/// Default prefix of the namespaces.
pub const DEFAULT_PREFIX: &str = "xdnsd";

/// Subcommands of `lab`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Makes the three hosts and the links between them.
    Up {
        /// Which lab.
        #[command(flatten)]
        name: Name,
        /// What kind of lab.
        #[command(flatten)]
        knobs: Knobs,
    },
    /// Removes them.
    Down(Name),
    /// Shows which labs are up.
    Status,
    /// Starts the appliance in the router, with SYN cookies for every client.
    Attach {
        /// Which lab.
        #[command(flatten)]
        name: Name,
        /// Is the process that holds it.
        #[arg(long, hide = true)]
        stay: bool,
    },
    /// Ends it.
    Detach(Name),
    /// Shows what becomes of frames as it happens, until it is interrupted.
    Log(Name),
    /// Floods the router from the client, and says how much arrived.
    Flood {
        /// Which lab.
        #[command(flatten)]
        name: Name,
        /// What kind of frames.
        #[arg(value_parser = kind())]
        kind: Kind,
        /// The rate, and the sources.
        #[command(flatten)]
        order: FloodOrder,
    },
    /// Runs a command on a host.
    Exec {
        /// Which lab.
        #[command(flatten)]
        name: Name,
        /// Where to run it.
        #[arg(value_parser = host())]
        host: Host,
        /// The program and its arguments.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
}

/// Name of a lab.
#[derive(Debug, Args)]
pub struct Name {
    /// Prefix of the names of its namespaces.
    #[arg(long, value_name = "NAME", default_value = DEFAULT_PREFIX)]
    prefix: String,
}

/// Properties of a lab.
#[derive(Debug, Args)]
pub struct Knobs {
    /// RX and TX queues of the client's link.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = number_in(QUEUE_RANGE))]
    queues: u32,
    /// MTU of the client's link.
    #[arg(long, value_name = "N", default_value_t = MTU, value_parser = number_in(MTU_RANGE))]
    mtu: u32,
    /// Whether senders leave checksums to the interface.
    #[arg(long, value_name = "WHETHER", default_value = "off", value_parser = offload())]
    offload: Offload,
    /// Adds VLAN 10, with its tag in the frame or beside it (VLAN offload).
    #[arg(long, value_name = "WHERE", value_parser = vlan())]
    vlan: Option<VlanTag>,
    /// Makes the LAN a bridge, `br-lan`, of so many ports, with `PREFIX-client2` and so on behind those after the first.
    #[arg(long, value_name = "N", value_parser = number_in(PORT_RANGE), conflicts_with = "vlan")]
    ports: Option<u32>,
    /// Has the bridge look at VLAN tags.
    #[arg(long, requires = "ports")]
    filter: bool,
    /// Puts the first port into a bond.
    #[arg(long, requires = "ports")]
    bond: bool,
    /// Adds a bridge of its own for `PREFIX-guest`.
    #[arg(long, requires = "ports")]
    guest: bool,
}

/// The rate, and the sources.
#[derive(Debug, Args)]
pub struct FloodOrder {
    /// Seconds at most.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = number_in(1..=600))]
    seconds: u32,
    /// Frames at most.
    #[arg(long, value_name = "N", default_value_t = u32::MAX, value_parser = number_in(SOME))]
    count: u32,
    /// Frames a second at most [default: as many as a core makes].
    #[arg(long, value_name = "N", value_parser = number_in(1..=10_000_000))]
    rate: Option<u32>,
    /// 4 or 6.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = PossibleValuesParser::new(["4", "6"]).map(|word| if word == "6" { 6u8 } else { 4 }))]
    family: u8,
    /// Source addresses: this one with its last 16 bits drawn [default: of a prefix for benchmarks].
    #[arg(long, value_name = "ADDRESS")]
    from: Option<IpAddr>,
    /// The port.
    #[arg(long, value_name = "N", default_value_t = 53, value_parser = number_in(1..=65_535))]
    port: u32,
    /// What queries ask for.
    #[arg(long, value_name = "NAME", default_value = "www.lab.test")]
    qname: String,
    /// Who makes the frames: the kernel from one of ours, or hping3.
    #[arg(long, value_name = "WHO", default_value = "own", value_parser = PossibleValuesParser::new(["own", "hping3"]))]
    by: String,
}

fn kind() -> impl TypedValueParser<Value = Kind> {
    PossibleValuesParser::new(Kind::ALL.map(Kind::name)).map(|word| {
        let found = Kind::ALL.into_iter().find(|kind| kind.name() == word);
        found.expect("one of the names that are possible")
    })
}

/// Parses `on` or `off`.
pub fn offload() -> impl TypedValueParser<Value = Offload> {
    PossibleValuesParser::new(["on", "off"]).map(|word| match word.as_str() {
        "on" => Offload::On,
        _ => Offload::Off,
    })
}

fn vlan() -> impl TypedValueParser<Value = VlanTag> {
    PossibleValuesParser::new(["in-frame", "beside"]).map(|word| match word.as_str() {
        "in-frame" => VlanTag::InFrame,
        _ => VlanTag::BesideFrame,
    })
}

fn host() -> impl TypedValueParser<Value = Host> {
    PossibleValuesParser::new(Host::ALL.map(Host::name)).try_map(|name| Host::parse(&name))
}

/// Carries out `lab`.
pub fn main(command: Command, signals: &Signals) -> Result<ExitCode> {
    match command {
        Command::Up { name, knobs } => up(&name.prefix, &knobs, signals),
        Command::Down(name) => down(&name.prefix),
        Command::Status => status(),
        Command::Attach { name, stay } => match stay {
            true => shield::stay(&name.prefix, signals),
            false => shield::attach(&name.prefix),
        },
        Command::Detach(name) => shield::detach(&name.prefix),
        Command::Log(name) => shield::log(&name.prefix),
        Command::Flood { name, kind, order } => flood(&name.prefix, kind, &order, signals),
        Command::Exec {
            name,
            host,
            command,
        } => exec(&name.prefix, host, &command),
    }
}

fn up(prefix: &str, knobs: &Knobs, signals: &Signals) -> Result<ExitCode> {
    let spec = Spec {
        queues: knobs.queues,
        mtu: knobs.mtu,
        offload: knobs.offload,
        vlan: knobs.vlan,
        bridge: knobs.ports.map(|ports| BridgeSpec {
            ports,
            filters_vlans: knobs.filter,
            has_bond: knobs.bond,
            has_guest: knobs.guest,
        }),
    };
    setup::ensure_all(&[Purpose::Lab], signals)?;
    NamedLab::up(prefix, &spec, Lifetime::UntilDown)?;
    println!("The lab is up. Try: ip netns exec {prefix}-client ip address");
    Ok(ExitCode::SUCCESS)
}

fn down(prefix: &str) -> Result<ExitCode> {
    shield::end(prefix)?;
    let pids = named::down(prefix)?;
    if !pids.is_empty() {
        println!("These processes still hold their namespace until they end: {pids:?}");
    }
    Ok(ExitCode::SUCCESS)
}

fn status() -> Result<ExitCode> {
    let prefixes = named::all()?;
    if prefixes.is_empty() {
        println!("No lab is up.");
    }
    for prefix in prefixes {
        for host in Host::ALL {
            println!("{}", named::namespace_name(&prefix, host));
            let namespace = named::host(&prefix, host)?;
            print!("{}", namespace.output(&["ip", "-brief", "address"])?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn flood(prefix: &str, kind: Kind, order: &FloodOrder, signals: &Signals) -> Result<ExitCode> {
    let client = named::host(prefix, Host::Client)?;
    let router = named::host(prefix, Host::Router)?;
    if order.by == "hping3" {
        let (frames, took) = hping::flood(&client, kind, order, signals)?;
        let (secs, rate) = (took.as_secs_f64(), frames as f64 / took.as_secs_f64());
        println!("{frames} frames in {secs:.2} s, {rate:.0} a second");
        return Ok(ExitCode::SUCCESS);
    }
    let (to, sources): (IpAddr, _) = match order.family {
        6 => (LAN_V6.into(), SOURCES_V6),
        _ => (LAN_V4.into(), SOURCES_V4),
    };
    let from = order.from.unwrap_or(sources);
    ensure!(
        from.is_ipv4() == to.is_ipv4(),
        "--from {from}: an address of IPv{}",
        order.family
    );
    let frames = flood::Order {
        kind,
        from,
        to,
        port: u16::try_from(order.port).context("--port")?,
        qname: order.qname.clone(),
        rate: order.rate,
    };
    let path = flood::Path {
        from: (&client, HOST_INTERFACE),
        to: (&router, LAN),
    };
    let bounds = flood::Bounds {
        count: order.count,
        length: Duration::from_secs(order.seconds.into()),
        core: None,
    };
    flood::learn_routes(&router)?;
    let is_over = || signals.wait(Duration::ZERO);
    let report = flood::Flood::new(path, &frames)?.run(bounds, is_over)?;
    println!(
        "{} frames in {:.2} s, {:.0} a second; {} more found no room",
        report.arrived,
        report.took.as_secs_f64(),
        report.arrived as f64 / report.took.as_secs_f64(),
        report.lost
    );
    Ok(ExitCode::SUCCESS)
}

fn exec(prefix: &str, host: Host, command: &[OsString]) -> Result<ExitCode> {
    let (program, rest) = command.split_first().context("lab exec: which command?")?;
    let mut command = named::host(prefix, host)?.command(program);
    let status = command
        .args(rest)
        .status()
        .with_context(|| format!("run {}", program.display()))?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}
