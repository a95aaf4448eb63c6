//! `cargo xtask lab`: the lab for a person.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};

use crate::arguments::number_in;
use crate::setup::{self, Purpose};
use crate::signals::Signals;
use xdnsd_lab::lab::named::{self, Lifetime, NamedLab};
use xdnsd_lab::lab::{Host, MTU, MTU_RANGE, Offload, QUEUE_RANGE, Spec, VlanTag};

/// The prefix of the namespaces where none is given.
pub const DEFAULT_PREFIX: &str = "xdnsd";

/// What `lab` is to do.
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

/// Which lab.
#[derive(Debug, Args)]
pub struct Name {
    /// Prefix of the names of its namespaces.
    #[arg(long, value_name = "NAME", default_value = DEFAULT_PREFIX)]
    prefix: String,
}

/// What kind of lab.
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
}

/// `on` or `off`.
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
    };
    setup::ensure_all(&[Purpose::Lab], signals)?;
    NamedLab::up(prefix, &spec, Lifetime::UntilDown)?;
    println!("The lab is up. Try: ip netns exec {prefix}-client ip address");
    Ok(ExitCode::SUCCESS)
}

fn down(prefix: &str) -> Result<ExitCode> {
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
