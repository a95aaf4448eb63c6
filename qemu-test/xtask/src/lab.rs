//! `cargo xtask lab`: the lab for a person.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::arguments::Arguments;
use crate::setup::{self, Purpose};
use crate::signals::Signals;
use xdnsd_lab::lab::named::{self, Lifetime, NamedLab};
use xdnsd_lab::lab::{Host, Offload, Spec, VlanTag};

/// The prefix of the namespaces where none is given.
pub const DEFAULT_PREFIX: &str = "xdnsd";

/// How it is called.
pub const USAGE: &str = "lab up [--queues N] [--mtu N] [--offload on|off] [--vlan in-frame|beside] | down | status
                | exec HOST COMMAND…, each with [--prefix NAME]; HOST is client, router or upstream";

/// Carries out `lab WORDS…`.
pub fn main(mut arguments: Arguments, signals: &Signals) -> Result<ExitCode> {
    let verb = arguments.next().context("lab: up, down, status or exec?")?;
    match verb.as_str() {
        "up" => up(arguments, signals),
        "down" => down(arguments),
        "status" => status(arguments),
        "exec" => exec(arguments),
        other => bail!("lab {other}: up, down, status or exec?"),
    }
}

fn prefix(arguments: &mut Arguments) -> Result<String> {
    Ok(arguments
        .value("--prefix")?
        .unwrap_or_else(|| DEFAULT_PREFIX.to_owned()))
}

fn up(mut arguments: Arguments, signals: &Signals) -> Result<ExitCode> {
    let prefix = prefix(&mut arguments)?;
    let spec = spec(&mut arguments)?;
    arguments.finish()?;
    setup::ensure_all(&[Purpose::Lab], signals)?;
    NamedLab::up(&prefix, &spec, Lifetime::UntilDown)?;
    println!("The lab is up. Try: ip netns exec {prefix}-client ip address");
    Ok(ExitCode::SUCCESS)
}

/// The knobs of the lab on the command line.
pub fn spec(arguments: &mut Arguments) -> Result<Spec> {
    let mut spec = Spec::default();
    if let Some(queues) = arguments.number("--queues")? {
        spec.queues = queues;
    }
    if let Some(mtu) = arguments.number("--mtu")? {
        spec.mtu = mtu;
    }
    match arguments.value("--offload")?.as_deref() {
        None => (),
        Some("on") => spec.offload = Offload::On,
        Some("off") => spec.offload = Offload::Off,
        Some(other) => bail!("--offload {other}: on or off?"),
    }
    spec.vlan = match arguments.value("--vlan")?.as_deref() {
        None => None,
        Some("in-frame") => Some(VlanTag::InFrame),
        Some("beside") => Some(VlanTag::BesideFrame),
        Some(other) => bail!("--vlan {other}: in-frame or beside?"),
    };
    Ok(spec)
}

fn down(mut arguments: Arguments) -> Result<ExitCode> {
    let prefix = prefix(&mut arguments)?;
    arguments.finish()?;
    let pids = named::down(&prefix)?;
    if !pids.is_empty() {
        println!("These processes still hold their namespace until they end: {pids:?}");
    }
    Ok(ExitCode::SUCCESS)
}

fn status(arguments: Arguments) -> Result<ExitCode> {
    arguments.finish()?;
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

fn exec(mut arguments: Arguments) -> Result<ExitCode> {
    let prefix = if arguments.peek() == Some("--prefix") {
        prefix(&mut arguments)?
    } else {
        DEFAULT_PREFIX.to_owned()
    };
    let host = Host::parse(&arguments.next().context("lab exec: on which host?")?)?;
    let program = arguments.next().context("lab exec: which command?")?;
    let mut command = named::host(&prefix, host)?.command(&program);
    let status = command
        .args(arguments.rest())
        .status()
        .with_context(|| format!("run {program}"))?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}
