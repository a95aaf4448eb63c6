//! Contradictions in the shield's sections between keys that are valid by themselves.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use xdnsd_abi::PROTECTED_MAX;

use super::error::ConfigText;
use super::schema::{Interface, Protect, Shield, SynCookiesWord, XdpMode};
use super::section::Placed;
use crate::compile::prefix::Prefix;

/// Name of the loopback device on every machine.
const LOOPBACK: &str = "lo";

/// Checks for SYN cookies that no interface can give, and ports that need not or cannot be in the list.
pub fn shield(source: &mut ConfigText, shield: &Shield, interfaces: &[Placed<Interface>]) {
    let is_wanted = shield.syn_cookies != SynCookiesWord::Off;
    let mut with_program = interfaces
        .iter()
        .filter(|placed| placed.section.xdp != XdpMode::Off);
    let are_all = source.are_all("interface", interfaces.len()) && !interfaces.is_empty();
    if is_wanted && with_program.next().is_none() && are_all {
        let problem = "SYN cookies are given by XDP programs, and no interface has one";
        source.fault(
            "shield.syn_cookies",
            problem,
            "xdp = \"auto\" for one, or \"off\"",
        );
    }
    for (index, port) in shield.ports.iter().enumerate() {
        let is_dns = |placed: &Placed<Interface>| placed.section.port == *port;
        let problem = match port {
            0 => "nobody listens on port 0",
            port if shield.ports[..index].contains(port) => "this port stands twice",
            _ if are_all && interfaces.iter().all(is_dns) => {
                "it is answered on, and guarded anyway"
            }
            _ => continue,
        };
        let path = format!("shield.ports[{index}]");
        source.fault(&path, problem, "each port from 1 to 65535, once");
    }
}

/// Checks for hosts that no program can protect, and ports without connections.
pub fn protects(
    source: &mut ConfigText,
    protects: &[Placed<Protect>],
    interfaces: &[Placed<Interface>],
) {
    for (index, placed) in protects.iter().enumerate() {
        interface(source, placed, &protects[..index], interfaces);
        hosts(source, placed);
        ports(source, placed);
    }
}

fn interface(
    source: &mut ConfigText,
    Placed { path, section }: &Placed<Protect>,
    earlier: &[Placed<Protect>],
    interfaces: &[Placed<Interface>],
) {
    let name = &section.interface;
    let path = format!("{path}.interface");
    if name.as_str() == LOOPBACK {
        let problem = "nobody comes to a host behind this one by the loopback device";
        source.fault(&path, problem, "the interface that the clients come by");
    }
    let is_same = |earlier: &Placed<Protect>| {
        (&earlier.section.interface, earlier.section.vlan) == (name, section.vlan)
    };
    if earlier.iter().any(is_same) {
        let problem = "this interface stands twice";
        source.fault(&path, problem, "one section for it and each VLAN of it");
    }
    let is_off = |placed: &Placed<Interface>| {
        placed.section.name == *name && placed.section.xdp == XdpMode::Off
    };
    if interfaces.iter().any(is_off) {
        let problem = "hosts are protected by the XDP program, and this interface has none";
        source.fault(&path, problem, "xdp = \"auto\" for it");
    }
}

/// Checks that each host occurs once and can exist. Warns of a prefix within another one.
fn hosts(source: &mut ConfigText, Placed { path, section }: &Placed<Protect>) {
    let prefixes: Vec<Prefix> = section
        .addresses
        .iter()
        .map(|network| network.0.unmapped())
        .collect();
    for (index, prefix) in prefixes.iter().enumerate() {
        let path = format!("{path}.addresses[{index}]");
        if let Some(what) = no_host(prefix) {
            let problem = format!("{prefix} is {what}: nobody opens a TCP connection to it");
            source.fault(&path, problem, "addresses of hosts, and prefixes of such");
        }
        if prefixes[..index].contains(prefix) {
            source.fault(&path, format!("{prefix} stands twice"), "each once");
            continue;
        }
        let holds = |other: &&Prefix| *other != prefix && other.contains(prefix);
        if let Some(holder) = prefixes.iter().find(holds) {
            source.warn(&path, format!("{prefix} is in {holder} already"));
        }
    }
}

/// Type of a prefix without host addresses.
fn no_host(prefix: &Prefix) -> Option<&'static str> {
    let none = [
        (
            IpAddr::from(Ipv4Addr::BROADCAST),
            32,
            "the broadcast address",
        ),
        (Ipv4Addr::new(224, 0, 0, 0).into(), 4, "multicast"),
        (
            Ipv4Addr::new(127, 0, 0, 0).into(),
            8,
            "the loopback network",
        ),
        (Ipv4Addr::UNSPECIFIED.into(), 32, "no address"),
        (
            Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0).into(),
            8,
            "multicast",
        ),
        (Ipv6Addr::LOCALHOST.into(), 128, "the loopback address"),
        (Ipv6Addr::UNSPECIFIED.into(), 128, "no address"),
    ];
    let mut none = none.into_iter();
    none.find(|(address, len, _)| Prefix::masked(*address, *len).contains(prefix))
        .map(|(_, _, what)| what)
}

fn ports(source: &mut ConfigText, Placed { path, section }: &Placed<Protect>) {
    let count = section.addresses.len() * section.ports.len();
    if count > PROTECTED_MAX as usize {
        let problem = format!("{count} addresses with a port");
        let allowed = format!("at most {PROTECTED_MAX}");
        source.fault(&format!("{path}.ports"), problem, allowed);
    }
    for (index, port) in section.ports.iter().enumerate() {
        let problem = match port {
            0 => "nobody listens on port 0",
            port if section.ports[..index].contains(port) => "this port stands twice",
            _ => continue,
        };
        let path = format!("{path}.ports[{index}]");
        source.fault(&path, problem, "each port from 1 to 65535, once");
    }
}
