//! Protected hosts: whether their clients can come by the interface, and whether they are behind this machine at all.

use std::net::IpAddr;

use super::{Device, Devices, Endpoint};
use crate::compile::prefix::Prefix;
use crate::config::Config;
use crate::config::error::ConfigText;
use crate::config::schema::{Protect, SynCookiesWord};

/// Notes what this machine lacks, or lacks yet, and warns of implausible items.
pub fn check(source: &mut ConfigText, config: &Config, devices: &Devices, endpoints: &[Endpoint]) {
    for (index, section) in config.protects.iter().enumerate() {
        let path = format!("protect[{index}]");
        carrier(source, devices, &path, section);
        for (index, network) in section.addresses.iter().enumerate() {
            let path = format!("{path}.addresses[{index}]");
            host(source, devices, &path, network.0.unmapped());
        }
        for (index, port) in section.ports.iter().enumerate() {
            let path = format!("{path}.ports[{index}]");
            let end = ProtectedPort {
                config,
                section,
                port: *port,
            };
            if let Some(endpoint) = endpoints.iter().find(|endpoint| end.is(endpoint)) {
                let addr = endpoint.addr;
                let problem = format!(
                    "port {port} of {addr} is this machine's own: shield.syn_cookies is for that, here its first connections \
                     are reset"
                );
                source.warn(&path, problem);
            }
        }
    }
}

/// Finds the device that the clients come by.
fn carrier(source: &mut ConfigText, devices: &Devices, section_path: &str, section: &Protect) {
    let name = &section.interface;
    let path = format!("{section_path}.interface");
    let Some(device) = devices.named(name.as_str()) else {
        let problem = format!("no interface {name} on this machine");
        return source.fault(&path, problem, devices.names());
    };
    if device.mac.is_none() {
        let problem =
            format!("frames of {name} have no MAC address, so no XDP program answers there");
        return source.fault(&path, problem, "a device of Ethernet");
    }
    if let Some(master) = &device.port_of {
        let problem = format!("{name} is a port of {master}, which clients come by");
        let allowed = master.split(' ').next_back().unwrap_or_default();
        return source.fault(&path, problem, allowed);
    }
    super::tagged(source, devices, section_path, device, [section.vlan, 0]);
}

/// Warns of a host that is this machine, or cannot be a host.
fn host(source: &mut ConfigText, devices: &Devices, path: &str, prefix: Prefix) {
    if !prefix.is_host() {
        return;
    }
    let addr = prefix.address();
    let with = |has: fn(&Device) -> &Vec<IpAddr>| {
        devices.0.iter().find(|device| has(device).contains(&addr))
    };
    if let Some(device) = with(|device| &device.broadcasts) {
        let problem = format!("{addr} is the broadcast address of {}", device.name);
        source.fault(path, problem, "addresses of hosts, and prefixes of such");
    } else if let Some(device) = with(|device| &device.addresses) {
        let problem = format!(
            "{addr} is an address of {}, of this machine: right where its ports are translated to a host behind; for those of this \
             machine there is shield.ports",
            device.name
        );
        source.warn(path, problem);
    }
}

/// A protected port that is also answered on here.
struct ProtectedPort<'c> {
    config: &'c Config,
    section: &'c Protect,
    port: u16,
}

impl ProtectedPort<'_> {
    /// True if this is the endpoint and no SYN cookies are given there: with cookies, its frames do not get as far as
    /// protection.
    fn is(&self, endpoint: &Endpoint) -> bool {
        let interface = &self.config.interfaces[endpoint.interface];
        let address = Prefix::masked(endpoint.addr, u8::MAX);
        let mut hosts = self.section.addresses.iter();
        self.config.shield.syn_cookies == SynCookiesWord::Off
            && interface.name == self.section.interface
            && endpoint.port == self.port
            && hosts.any(|network| network.0.unmapped().contains(&address))
    }
}
