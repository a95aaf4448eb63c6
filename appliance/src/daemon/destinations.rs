//! Destinations that are ours, by interface: the entries of the maps that its program looks into.

use std::fs;
use std::net::IpAddr;

use xdnsd_abi::headers::{ipv4, ipv6, tcp};
use xdnsd_abi::{Behind, GUARDED_MAX, Listen, PathCheck, Protected};

use crate::compile::prefix::Prefix;
use crate::config::{
    AskWord, Config, Device, Devices, Endpoint, Plan, Protect, RouteCheck, Shield, SynCookiesWord,
    XdpMode,
};
use crate::os::xdp;

/// MSS that every host accepts (RFC 9293 section 3.7.1).
const MSS_MIN_V4: u16 = 536;
const MSS_MIN_V6: u16 = 1220;
const ETHERNET_MTU: usize = 1500;

/// A destination that is ours.
pub struct ListenEntry {
    pub listen: Listen,
    pub check: PathCheck,
    /// Name of the device that has the address.
    device: String,
}

impl ListenEntry {
    /// A destination at the device `device`.
    #[cfg(test)]
    pub fn new(listen: Listen, check: PathCheck, device: &str) -> Self {
        Self {
            listen,
            check,
            device: device.to_owned(),
        }
    }
}

/// The destinations on the interface `name` that are ours.
pub fn listen_entries(
    name: &str,
    config: &Config,
    plan: &Plan,
    devices: &Devices,
) -> Vec<ListenEntry> {
    let on_this =
        |endpoint: &&Endpoint| config.interfaces[endpoint.interface].name.as_str() == name;
    let entry = |endpoint: &Endpoint| {
        let interface = &config.interfaces[endpoint.interface];
        let device = devices.named(&endpoint.device)?;
        // A device without MAC addresses has no Ethernet frames, and the kernel drops packets to a tentative address.
        let mac = device
            .mac
            .filter(|_| !device.tentative.contains(&endpoint.addr))?;
        let check = interface.asks_routes(endpoint, devices);
        let addr = match endpoint.addr {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        let listen = Listen {
            addr: addr.octets(),
            vlan_outer: interface.vlan.to_be_bytes(),
            vlan_inner: interface.inner_vlan.to_be_bytes(),
            port: endpoint.port.to_be_bytes(),
            padding: [0; 2],
        };
        let egress_ifindex = if check { endpoint.device_ifindex } else { 0 };
        Some(ListenEntry {
            listen,
            check: PathCheck::new(egress_ifindex, endpoint.ifindex, mac),
            device: endpoint.device.clone(),
        })
    };
    let on_this = plan.endpoints.iter().filter(on_this);
    on_this.filter_map(entry).collect()
}

/// True if anything is served on the interface `name`.
pub fn is_served(name: &str, config: &Config, plan: &Plan) -> bool {
    let is_here = |endpoint: &Endpoint| config.interfaces[endpoint.interface].name.as_str() == name;
    plan.endpoints.iter().any(is_here)
}

/// Destinations guarded by SYN cookies: the ports of `ours` first, then those of the config. Also how many did not fit the map.
pub fn guarded_entries(ours: &[ListenEntry], shield: &Shield) -> (Vec<(Listen, PathCheck)>, usize) {
    if shield.syn_cookies == SynCookiesWord::Off {
        return (Vec::new(), 0);
    }
    let ports = &shield.ports;
    let more = |ours: &ListenEntry| {
        let ports = ports.iter().map(|port| port.to_be_bytes());
        ports
            .map(|port| {
                (
                    Listen {
                        port,
                        ..ours.listen
                    },
                    guarded_check(ours),
                )
            })
            .collect::<Vec<_>>()
    };
    let own = ours.iter().map(|ours| (ours.listen, guarded_check(ours)));
    let mut entries: Vec<(Listen, PathCheck)> = Vec::new();
    for (listen, check) in own.chain(ours.iter().flat_map(more)) {
        // A section with another port may have the same address.
        if !entries.iter().any(|(other, _)| *other == listen) {
            entries.push((listen, check));
        }
    }
    let left = entries.len().saturating_sub(GUARDED_MAX as usize);
    entries.truncate(GUARDED_MAX as usize);
    (entries, left)
}

/// Protected addresses behind the interface `name`, each with a port.
pub fn protected_entries(
    name: &str,
    config: &Config,
    devices: &Devices,
) -> Vec<xdp::ProtectedPrefix> {
    let Some(carrier) = devices.named(name) else {
        return Vec::new();
    };
    let entry = |section: &Protect, device: &Device, prefix: Prefix, port: u16| {
        let (addr, family_bits, is_ipv4) = match prefix.address() {
            IpAddr::V4(v4) => (v4.to_ipv6_mapped(), 96, true),
            IpAddr::V6(v6) => (v6, 0, false),
        };
        // Under VLAN devices the tag may be hidden from the program.
        let egress_ifindex = match devices.has_vlans(name) {
            true => device.index,
            false => 0,
        };
        let check = PathCheck::new(egress_ifindex, carrier.index, device.mac?);
        let behind = Behind {
            port: port.to_be_bytes(),
            vlan: section.vlan.to_be_bytes(),
            addr: addr.octets(),
        };
        let protected = Protected {
            check: check.with_mss(mss(mtu(&device.name), is_ipv4)),
            verified_secs: section.verified_secs,
            is_auto: (section.ask == AskWord::Auto).into(),
        };
        let bits = Behind::PORT_BITS + family_bits + u32::from(prefix.length());
        Some((bits, behind, protected))
    };
    let here = config
        .protects
        .iter()
        .filter(|section| section.interface.as_str() == name);
    here.flat_map(|section| {
        let device = match section.vlan {
            0 => Some(carrier),
            vlan => devices.vlan_on(name, vlan),
        };
        let all = section
            .addresses
            .iter()
            .flat_map(|network| section.ports.iter().map(|port| (network.0, *port)));
        all.filter_map(|(prefix, port)| entry(section, device?, prefix, port))
            .collect::<Vec<_>>()
    })
    .collect()
}

fn guarded_check(ours: &ListenEntry) -> PathCheck {
    const MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
    let is_ipv4 = ours.listen.addr.starts_with(&MAPPED);
    ours.check.with_mss(mss(mtu(&ours.device), is_ipv4))
}

/// MSS for the device's MTU, as Linux announces it (RFC 6691), and at least what every host accepts.
fn mss(mtu: usize, is_ipv4: bool) -> u16 {
    let (headers, least) = match is_ipv4 {
        true => (ipv4::HEADER_LEN + tcp::HEADER_LEN, MSS_MIN_V4),
        false => (ipv6::HEADER_LEN + tcp::HEADER_LEN, MSS_MIN_V6),
    };
    let mss = u16::try_from(mtu.saturating_sub(headers)).unwrap_or(u16::MAX);
    mss.max(least)
}

/// MTU of a device; Ethernet's if the kernel does not say.
fn mtu(device: &str) -> usize {
    let text = fs::read_to_string(format!("/sys/class/net/{device}/mtu"));
    let mtu = text.ok().and_then(|text| text.trim().parse().ok());
    mtu.unwrap_or(ETHERNET_MTU)
}

/// Devices of listeners, each with whether the kernel checks sources there.
pub fn sources_checked(config: &Config, plan: &Plan, devices: &Devices) -> Vec<(String, bool)> {
    let follows = |endpoint: &&Endpoint| {
        let interface = &config.interfaces[endpoint.interface];
        interface.route_check == RouteCheck::Auto && interface.xdp != XdpMode::Off
    };
    let named = plan.endpoints.iter().filter(follows);
    let named = named.filter_map(|endpoint| devices.named(&endpoint.device));
    let mut checked: Vec<_> = named
        .map(|device| (device.name.clone(), device.is_strict))
        .collect();
    checked.sort_unstable();
    checked.dedup();
    checked
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::OptionalPath;

    #[test]
    fn the_guarded_ports_are_those_of_the_addresses_and_those_of_the_config() {
        let ours = |addr: IpAddr, port: u16| ListenEntry {
            listen: Listen {
                addr: match addr {
                    IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
                    IpAddr::V6(v6) => v6.octets(),
                },
                vlan_outer: [0, 5],
                vlan_inner: [0; 2],
                port: port.to_be_bytes(),
                padding: [0; 2],
            },
            check: PathCheck::new(7, 8, [9; 6]),
            device: "no-such-device".into(),
        };
        let (v4, v6) = (
            IpAddr::from([192, 0, 2, 1]),
            IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 1]),
        );
        let all = [ours(v4, 53), ours(v4, 5353), ours(v6, 53)];
        let mut shield = Shield {
            syn_cookies: SynCookiesWord::Auto,
            tcp_options: true,
            verified_secs: 0,
            ports: vec![22, 53],
            syn_threshold: 1,
            calm_secs: 1,
            drop_garbage: true,
            deny: Vec::new(),
            deny_files: Vec::new(),
            allow: Vec::new(),
            allow_files: Vec::new(),
            state_file: OptionalPath::default(),
        };
        let (entries, left) = guarded_entries(&all, &shield);
        assert_eq!(left, 0);
        let of = |listen: &Listen| (listen.addr, u16::from_be_bytes(listen.port));
        let found: Vec<_> = entries
            .iter()
            .map(|(listen, check)| (of(listen), check.mss))
            .collect();
        let (a, b) = (all[0].listen.addr, all[2].listen.addr);
        let expected = [
            ((a, 53), 1460),
            ((a, 5353), 1460),
            ((b, 53), 1440),
            ((a, 22), 1460),
            ((b, 22), 1440),
        ];
        assert_eq!(found, expected);
        for (listen, check) in &entries {
            assert_eq!((listen.vlan_outer, check.egress_ifindex), ([0, 5], 7));
        }
        shield.syn_cookies = SynCookiesWord::Off;
        assert_eq!(guarded_entries(&all, &shield), (Vec::new(), 0));
        shield.syn_cookies = SynCookiesWord::Always;
        let many: Vec<_> = (1..=GUARDED_MAX as u8)
            .map(|last| ours([10, 0, 0, last].into(), 53))
            .collect();
        let (entries, left) = guarded_entries(&many, &shield);
        assert_eq!(left, entries.len(), "each has 22 besides");
        let ports = entries.iter().map(|(listen, _)| listen.port);
        assert!(ports.eq([[0, 53]; GUARDED_MAX as usize]), "their own first");
    }

    #[test]
    fn a_segment_fits_the_devices_packets_and_is_never_shorter_than_any_host_takes() {
        for (mtu, v4, v6) in [
            (1500, 1460, 1440),
            (1492, 1452, 1432),
            (9000, 8960, 8940),
            (65_536, 65_496, 65_476),
            (100_000, 65_535, 65_535),
            (576, 536, 1220),
            (0, 536, 1220),
        ] {
            assert_eq!((mss(mtu, true), mss(mtu, false)), (v4, v6), "{mtu}");
        }
        assert_eq!(mtu("lo"), 65_536);
    }
}
