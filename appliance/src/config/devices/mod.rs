//! Network devices of this machine, and what the config serves on each.

mod bridge;
mod protect;
mod routes;
mod servers;

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::path::Path;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nameindex;
use nix::sys::socket::{LinkAddr, SockaddrStorage};
use xdnsd_core::forward::via::Destination;
use xdnsd_core::policy::on_link::{Network, VlanDevice};

use super::Config;
use super::error::{ConfigText, Errors};
use super::schema::Interface;
use super::server::UpstreamServer;
use crate::compile::set::Links;
use crate::os::bridge::{self as bridges, Bridge, Port};

pub use bridge::{Member, PortRest};
pub use routes::Forwarding;

/// The kernel's list of VLAN devices. Absent without VLAN support.
const VLAN_LIST: &str = "/proc/net/vlan/config";

/// The kernel's list of IPv6 addresses with their flags. Absent without IPv6.
const IPV6_LIST: &str = "/proc/net/if_inet6";
/// Flags of linux/if_addr.h.
const IFA_F_OPTIMISTIC: u8 = 0x04;
const IFA_F_DADFAILED: u8 = 0x08;
const IFA_F_TENTATIVE: u8 = 0x40;
/// The kernel's settings for IPv4, by device.
const IPV4_SETTINGS: &str = "/proc/sys/net/ipv4/conf";
/// Name of the loopback device on every machine.
const LOOPBACK: &str = "lo";
/// The kernel's list of devices.
const DEVICES: &str = "/sys/class/net";

/// A network device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// Name, as `ip link` shows it.
    pub name: String,
    /// Index in the kernel.
    pub index: u32,
    /// For a VLAN device: the device below it, and its VLAN ID.
    pub vlan_of: Option<(String, u16)>,
    /// MAC address. `None` if its frames have none, like those of a tunnel.
    pub mac: Option<[u8; 6]>,
    /// Device that it is a port of, which has the addresses and gets the queries: `bridge br-lan`, `bond bond0`.
    pub port_of: Option<String>,
    /// State of the bridge, if it is one.
    pub bridge: Option<Bridge>,
    /// State of the port, if it is a port of a bridge.
    pub port: Option<Port>,
    /// Its addresses, IPv6 link-local ones included.
    pub addresses: Vec<IpAddr>,
    /// Those that the kernel does not deliver to: it still checks for duplicates (RFC 4862 section 5.4), or has found one.
    pub tentative: Vec<IpAddr>,
    /// Its directed broadcast addresses.
    pub broadcasts: Vec<IpAddr>,
    /// Networks of its addresses, and of its peers if it has any.
    pub networks: Vec<Network>,
    /// True if the kernel drops IPv4 packets from it if the route back to their source is by another device (RFC 3704 section
    /// 2.2).
    pub is_strict: bool,
    /// What the kernel forwards of what comes from it.
    pub forwarding: Forwarding,
}

/// Network devices of this machine, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Devices(pub Vec<Device>);

/// One (interface, VLAN, address, port) to answer on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Index into [`Config::interfaces`].
    pub interface: usize,
    /// Index of the interface that carries the frames: the XDP program is attached here.
    pub ifindex: u32,
    /// Index of the device that has the address: the VLAN device, or the interface itself.
    pub device_ifindex: u32,
    /// Name of the device that has the address.
    pub device: String,
    /// The address.
    pub addr: IpAddr,
    /// UDP and TCP port.
    pub port: u16,
}

impl Endpoint {
    /// Address of its sockets. A link-local one is only complete with its device (RFC 4007).
    #[must_use]
    pub fn socket_addr(&self) -> SocketAddr {
        match self.addr {
            IpAddr::V6(v6) if v6.is_unicast_link_local() => {
                SocketAddrV6::new(v6, self.port, 0, self.device_ifindex).into()
            }
            IpAddr::V4(_) | IpAddr::V6(_) => SocketAddr::new(self.addr, self.port),
        }
    }
}

/// A server that a file names and that is not asked, now or ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Index of its group in [`Config::upstreams`].
    pub group: usize,
    /// `None`: several, beyond the maximum.
    pub server: Option<UpstreamServer>,
    /// Why.
    pub problem: String,
}

/// The part of the config that this machine can serve.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Endpoints to serve.
    pub endpoints: Vec<Endpoint>,
    /// Items of the config that this machine lacks, or lacks yet, and impossible ones.
    pub missing: Errors,
    /// Items that are served as configured, but are implausible.
    pub doubts: Errors,
    /// Servers of files that are not asked.
    pub left_out: Vec<LeftOut>,
    /// Servers of each group of [`Config::upstreams`].
    pub servers: Vec<Vec<Destination>>,
    /// Facts about clients from the devices: martian sources, and which clients are neighbours.
    pub links: Links,
}

impl Devices {
    /// Reads the devices from the kernel.
    ///
    /// # Errors
    /// A system call failed; the error names it.
    pub fn read() -> io::Result<Self> {
        let names =
            if_nameindex().map_err(|errno| io::Error::other(format!("if_nameindex: {errno}")))?;
        let mut devices: Vec<Device> = names
            .iter()
            .map(|named| {
                let name = named.name().to_string_lossy().into_owned();
                Device {
                    port_of: port_of(Path::new(DEVICES), &name),
                    is_strict: is_strict(&name),
                    forwarding: Forwarding::of(&name),
                    name,
                    index: named.index(),
                    ..Device::default()
                }
            })
            .collect();
        for entry in
            getifaddrs().map_err(|errno| io::Error::other(format!("getifaddrs: {errno}")))?
        {
            let name = device_of(&entry.interface_name);
            let device = devices.iter_mut().find(|device| device.name == name);
            let Some(device) = device else { continue };
            let link = entry.address.as_ref().and_then(|addr| addr.as_link_addr());
            device.mac = link.and_then(mac).or(device.mac);
            if let Some(addr) = entry.address.as_ref().and_then(ip) {
                device.addresses.push(addr);
                let mask = entry.netmask.as_ref().and_then(ip);
                device.broadcasts.extend(broadcast(addr, mask));
                let is_host = mask.is_some_and(|mask| network_bits(mask) == address_bits(mask));
                let peer = entry.destination.or(entry.broadcast.filter(|_| is_host));
                let peer = peer.as_ref().and_then(ip);
                device.networks.extend(networks(addr, mask, peer));
            }
        }
        for (name, addr) in tentative(&std::fs::read_to_string(IPV6_LIST).unwrap_or_default()) {
            if let Some(device) = devices.iter_mut().find(|device| device.name == name) {
                device.tentative.push(addr.into());
            }
        }
        for (name, vlan, parent) in
            vlan_devices(&std::fs::read_to_string(VLAN_LIST).unwrap_or_default())
        {
            if let Some(device) = devices.iter_mut().find(|device| device.name == name) {
                device.vlan_of = Some((parent.to_owned(), vlan));
            }
        }
        let links = bridges::read();
        for link in links.map_err(|errno| io::Error::other(format!("rtnetlink: {errno}")))? {
            if let Some(device) = devices.iter_mut().find(|device| device.index == link.index) {
                (device.bridge, device.port) = (link.bridge, link.port);
            }
        }
        Ok(Self(devices))
    }

    /// The device with this name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Device> {
        self.0.iter().find(|device| device.name == name)
    }

    /// The VLAN device with this ID on `parent`.
    #[must_use]
    pub fn vlan_on(&self, parent: &str, vlan: u16) -> Option<&Device> {
        self.0.iter().find(|device| {
            device
                .vlan_of
                .as_ref()
                .is_some_and(|(name, id)| name == parent && *id == vlan)
        })
    }

    /// True if there are VLAN devices on `parent`: then the NIC may hide tags from XDP.
    #[must_use]
    pub fn has_vlans(&self, parent: &str) -> bool {
        self.0.iter().any(|device| {
            device
                .vlan_of
                .as_ref()
                .is_some_and(|(name, _)| name == parent)
        })
    }

    /// VLAN IDs on `parent`, and 0 for none, as a text of allowed values.
    fn vlans_on(&self, parent: &str) -> String {
        let vlans = self.0.iter().filter_map(|device| device.vlan_of.as_ref());
        let ids = vlans
            .filter(|(name, _)| name == parent)
            .map(|(_, id)| format!(", {id}"));
        format!("0{}", ids.collect::<String>())
    }

    /// Hint if the device `name` has no address: the VLAN devices on it that have one.
    fn with_addresses(&self, name: &str) -> String {
        let is_on = |(below, _): &&(String, u16)| below == name;
        let vlans = self.0.iter().filter(|device| !device.addresses.is_empty());
        let vlans = vlans.filter_map(|device| {
            let (_, id) = device.vlan_of.as_ref().filter(is_on)?;
            Some(format!("vlan = {id} ({} has one)", device.name))
        });
        let vlans: Vec<String> = vlans.collect();
        if vlans.is_empty() {
            "a device with an address".into()
        } else {
            vlans.join(", ")
        }
    }

    fn names(&self) -> String {
        let names: Vec<&str> = self.0.iter().map(|device| device.name.as_str()).collect();
        names.join(", ")
    }
}

/// Name of the device in an entry of getifaddrs(3), which has the label of an IPv4 address in place of the name: `lan0:1`. The
/// kernel assigns labels by itself to further addresses of a device that is renamed.
fn device_of(label: &str) -> &str {
    label
        .split_once(':')
        .map_or(label, |(device, _alias)| device)
}

/// True if the kernel checks the IPv4 sources of packets from the device `name` strictly: `rp_filter` is 1. The larger of the
/// values of the device and of `all` counts (ip-sysctl.rst); 2 is loose, and only requires any route.
#[must_use]
pub fn is_strict(name: &str) -> bool {
    let value = |of: &str| -> u8 {
        let text = std::fs::read_to_string(format!("{IPV4_SETTINGS}/{of}/rp_filter"));
        text.map_or(0, |text| text.trim().parse().unwrap_or(0))
    };
    value("all").max(value(name)) == 1
}

/// The device, with its kind, that gets all that `name` receives; `devices` is the kernel's list.
fn port_of(devices: &Path, name: &str) -> Option<String> {
    let master = std::fs::read_link(devices.join(name).join("master")).ok()?;
    let master = master.file_name()?.to_str()?;
    let uevent = std::fs::read_to_string(devices.join(master).join("uevent")).ok()?;
    taker(kind_of(&uevent), master)
}

/// A VRF leaves the addresses on its ports; all other masters do not, including a team, which has no kind.
fn taker(kind: Option<&str>, master: &str) -> Option<String> {
    match kind {
        Some("vrf") => None,
        Some(kind) => Some(format!("{kind} {master}")),
        None => Some(master.to_owned()),
    }
}

/// Kind of device, from the kernel's uevent.
fn kind_of(uevent: &str) -> Option<&str> {
    let mut lines = uevent.lines();
    lines.find_map(|line| line.strip_prefix("DEVTYPE="))
}

fn ip(addr: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = addr.as_sockaddr_in().map(|addr| IpAddr::V4(addr.ip()));
    v4.or_else(|| addr.as_sockaddr_in6().map(|addr| IpAddr::V6(addr.ip())))
}

/// MAC address of a device with Ethernet frames; zero for the loopback device.
fn mac(link: &LinkAddr) -> Option<[u8; 6]> {
    let is_ethernet = matches!(link.hatype(), libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK);
    link.addr().filter(|_| is_ethernet)
}

/// Addresses that the kernel does not deliver to, with their devices, from lines of `address ifindex length scope flags name`
/// in hexadecimal. An optimistic address is in use already (RFC 4429), and a deprecated one still is.
fn tentative(list: &str) -> impl Iterator<Item = (&str, Ipv6Addr)> {
    list.lines().filter_map(|line| {
        let mut columns = line.split_ascii_whitespace();
        let addr = u128::from_str_radix(columns.next()?, 16).ok()?;
        let flags = u8::from_str_radix(columns.nth(3)?, 16).ok()?;
        let waits = flags & IFA_F_TENTATIVE != 0 && flags & IFA_F_OPTIMISTIC == 0;
        let is_unready = waits || flags & IFA_F_DADFAILED != 0;
        is_unready.then_some((columns.next()?, Ipv6Addr::from_bits(addr)))
    })
}

/// Directed broadcast address of an IPv4 subnet, whether or not it was assigned to the interface: the kernel uses the last
/// address, if the subnet has more than two.
fn broadcast(addr: IpAddr, mask: Option<IpAddr>) -> Option<IpAddr> {
    let (IpAddr::V4(addr), Some(IpAddr::V4(mask))) = (addr, mask) else {
        return None;
    };
    let is_wide = mask.to_bits().count_zeros() > 1;
    is_wide.then(|| Ipv4Addr::from_bits(addr.to_bits() | !mask.to_bits()).into())
}

/// Network of an address, and that of its peer if it has one (`ip address add LOCAL peer PEER`): the kernel's route is to the
/// peer's. A mask without bits gives no network: all addresses would be neighbours.
fn networks(
    addr: IpAddr,
    mask: Option<IpAddr>,
    peer: Option<IpAddr>,
) -> impl Iterator<Item = Network> {
    let length = mask.map_or(0, network_bits) as u8;
    let addrs = [Some(addr), peer].into_iter().flatten();
    addrs
        .filter(move |_| length > 0)
        .map(move |addr| Network::of(addr, length))
}

fn network_bits(mask: IpAddr) -> u32 {
    match mask {
        IpAddr::V4(mask) => mask.to_bits().leading_ones(),
        IpAddr::V6(mask) => mask.to_bits().leading_ones(),
    }
}

fn address_bits(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(_) => u32::BITS,
        IpAddr::V6(_) => u128::BITS,
    }
}

/// Networks in ascending order, without those within another one.
fn disjoint<'n>(networks: impl Iterator<Item = &'n Network>) -> Vec<Network> {
    let mut sorted: Vec<Network> = networks.copied().collect();
    // By first address, then the wider before the narrower.
    sorted.sort_unstable();
    // Networks are nested or disjoint, so one within an earlier one is within the last that was kept.
    sorted.dedup_by(|next, kept| kept.contains(next.first()));
    sorted
}

/// True if an address of a device is ours on every link. A link-local one is ours only on its own link, so those of devices
/// that are not served may belong to others as well.
fn is_ours(device: &Device, served: &[&Device], addr: IpAddr) -> bool {
    let is_link_local = match addr {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !is_link_local || served.iter().any(|served| served.index == device.index)
}

/// Addresses of all devices, served or not.
fn own_addresses(devices: &Devices, served: &[&Device]) -> Vec<IpAddr> {
    let of = |device: &Device| {
        let addresses = device.addresses.iter().copied();
        let ours = addresses.filter(|addr| is_ours(device, served, *addr));
        ours.collect::<Vec<IpAddr>>()
    };
    devices.0.iter().flat_map(of).collect()
}

/// Addresses that no query from the wire has as its source: those of all devices, served or not, and the first and last of
/// their networks. The first one was a broadcast address once (RFC 1122 section 3.3.6); over IPv6 every router has it (RFC 4291
/// section 2.6.1).
fn martian_sources(devices: &Devices, served: &[&Device]) -> Vec<IpAddr> {
    let of = |device: &Device| {
        let firsts = device.networks.iter().filter(is_wide).map(Network::first);
        let all = device.addresses.iter().chain(&device.broadcasts).copied();
        let all = all.chain(firsts);
        let all = all.filter(|addr| is_ours(device, served, *addr));
        all.collect::<Vec<IpAddr>>()
    };
    let martians: BTreeSet<IpAddr> = devices.0.iter().flat_map(of).collect();
    martians.into_iter().collect()
}

/// True if it has more than two hosts (RFC 3021, RFC 6164).
fn is_wide(network: &&Network) -> bool {
    let host_bits = address_bits(network.first()) - u32::from(network.length());
    host_bits > 1
}

/// Parses lines of `name
/// VLAN ID
/// device below`; the two heading lines do not have that form.
fn vlan_devices(list: &str) -> impl Iterator<Item = (&str, u16, &str)> {
    list.lines().filter_map(|line| {
        let mut columns = line.split('|').map(str::trim);
        let (name, vlan, parent) = (
            columns.next()?,
            columns.next()?.parse().ok()?,
            columns.next()?,
        );
        Some((name, vlan, parent))
    })
}

impl Config {
    /// Devices of endpoints whose frames arrive by other devices.
    fn carried(&self, endpoints: &[Endpoint]) -> Vec<VlanDevice> {
        let mut carried: Vec<VlanDevice> = Vec::new();
        for endpoint in endpoints {
            let section = &self.interfaces[endpoint.interface];
            let one = VlanDevice {
                carrier: endpoint.ifindex,
                vlans: [section.vlan, section.inner_vlan],
                device: endpoint.device_ifindex,
            };
            if section.vlan != 0 && !carried.contains(&one) {
                carried.push(one);
            }
        }
        carried
    }

    /// Plans what is served on this machine, and which upstream servers are asked: all of the config that is there. The rest is
    /// in [`Plan::missing`], with its lines and with what there is.
    #[must_use]
    pub fn plan(&self, devices: &Devices) -> Plan {
        self.plan_with(devices, &[])
    }

    /// The same with the servers that files name, for each group of [`Config::upstreams`].
    #[must_use]
    pub fn plan_with(&self, devices: &Devices, found: &[Vec<UpstreamServer>]) -> Plan {
        let mut source = self.source.clone();
        // Warnings about the file itself were reported already.
        let _ = source.take_warnings();
        let mut plan = Plan::default();
        for (index, interface) in self.interfaces.iter().enumerate() {
            endpoints(&mut source, devices, index, interface, &mut plan.endpoints);
        }
        let served = plan.endpoints.iter().map(|endpoint| &endpoint.device);
        let served: BTreeSet<&String> = served.collect();
        let served = served.into_iter().filter_map(|name| devices.named(name));
        let served: Vec<&Device> = served.collect();
        plan.links = Links {
            martian_sources: martian_sources(devices, &served),
            own_addresses: own_addresses(devices, &served),
            on_link: disjoint(served.iter().flat_map(|device| &device.networks)),
            served: served.iter().map(|device| device.index).collect(),
            views: views(&mut source, self, devices, &served),
            carried: self.carried(&plan.endpoints),
            networks: Vec::new(),
        };
        for (device, _) in plan.links.views.clone() {
            let mut all = devices.0.iter();
            let found = all.find(|known| known.index == device);
            let networks = found.into_iter().flat_map(|found| found.networks.clone());
            plan.links
                .networks
                .extend(networks.map(|network| (device, network)));
        }
        (plan.servers, plan.left_out) =
            servers::all(&mut source, self, devices, found, &plan.endpoints);
        protect::check(&mut source, self, devices, &plan.endpoints);
        routes::check(&mut source, self, devices, &plan.endpoints);
        plan.missing = source.take_errors();
        plan.doubts = source.take_warnings();
        plan
    }
}

/// Devices of views, with the numbers of the views.
fn views(
    source: &mut ConfigText,
    config: &Config,
    devices: &Devices,
    served: &[&Device],
) -> Vec<(u32, u8)> {
    let mut found = Vec::new();
    for ((index, view), number) in config.views.iter().enumerate().zip(1u8..) {
        for (at, name) in view.interfaces.iter().enumerate() {
            let path = format!("view[{index}].interfaces[{at}]");
            let Some(device) = devices.named(name.as_str()) else {
                let problem = format!("no interface {name} on this machine");
                source.fault(&path, problem, devices.names());
                continue;
            };
            if !served.iter().any(|served| served.index == device.index) {
                let problem = format!(
                    "{name} is no interface that is served: nobody asks by it (of a VLAN, its own device is meant; of a port, its bridge)"
                );
                source.warn(&path, problem);
            }
            found.push((device.index, number));
        }
    }
    found
}

/// True if the kernel takes an address for local although no device has it: all of a network of IPv4 in which the loopback
/// device has an address, except its first and its last.
fn is_local_of(device: &Device, addr: IpAddr) -> bool {
    let IpAddr::V4(v4) = addr else {
        return false;
    };
    let holds = |network: &Network| {
        let is_first = |addr: IpAddr| Network::of(addr, network.length()).first() == addr;
        let is_edge = is_first(addr) || is_first((!v4).into());
        network.contains(addr) && (!is_edge || network.length() > 30)
    };
    device.name == LOOPBACK && device.networks.iter().any(holds)
}

fn endpoints(
    source: &mut ConfigText,
    devices: &Devices,
    index: usize,
    interface: &Interface,
    out: &mut Vec<Endpoint>,
) {
    let path = format!("interface[{index}]");
    let Some(carrier) = devices.named(interface.name.as_str()) else {
        let problem = format!("no interface {} on this machine", interface.name);
        return source.fault(&format!("{path}.name"), problem, devices.names());
    };
    let vlans = [interface.vlan, interface.inner_vlan];
    let Some(device) = tagged(source, devices, &path, carrier, vlans) else {
        return;
    };
    if let Some(master) = &device.port_of {
        let problem = format!(
            "{} is a port of {master}, which has the addresses and gets the queries",
            device.name
        );
        let allowed = master.split(' ').next_back().unwrap_or_default();
        return source.fault(&format!("{path}.name"), problem, allowed);
    }
    let mut available: BTreeSet<IpAddr> = device.addresses.iter().copied().collect();
    if available.is_empty() {
        let problem = format!("{} has no address", device.name);
        return source.fault(&path, problem, devices.with_addresses(&device.name));
    }
    let wanted = interface.listen.iter().copied();
    for (index, addr) in interface.listen.iter().enumerate() {
        if !available.contains(addr) && !is_local_of(device, *addr) {
            let shown: Vec<String> = available.iter().map(IpAddr::to_string).collect();
            let mut problem = format!("{addr} is not an address of {}", device.name);
            if addr.is_loopback() && device.name != LOOPBACK {
                problem += "; to answer this router itself add [[interface]] name = \"lo\"";
            }
            source.fault(
                &format!("{path}.listen[{index}]"),
                problem,
                shown.join(", "),
            );
        }
    }
    available.extend(wanted.filter(|addr| is_local_of(device, *addr)));
    let is_wanted = |addr: &IpAddr| interface.listen.is_empty() || interface.listen.contains(addr);
    let served = available.into_iter().filter(is_wanted);
    out.extend(served.map(|addr| Endpoint {
        interface: index,
        ifindex: carrier.index,
        device_ifindex: device.index,
        device: device.name.clone(),
        addr,
        port: interface.port,
    }));
}

/// Device for the VLAN IDs of a section, the outer one and the inner one.
fn tagged<'d>(
    source: &mut ConfigText,
    devices: &'d Devices,
    path: &str,
    carrier: &'d Device,
    [outer, inner]: [u16; 2],
) -> Option<&'d Device> {
    let mut device = carrier;
    for (key, vlan) in [("vlan", outer), ("inner_vlan", inner)] {
        if vlan == 0 {
            continue;
        }
        let below = device.name.as_str();
        let Some(found) = devices.vlan_on(below, vlan) else {
            let problem = format!("no VLAN device with ID {vlan} on {below}");
            source.fault(&format!("{path}.{key}"), problem, devices.vlans_on(below));
            return None;
        };
        device = found;
    }
    Some(device)
}

#[cfg(test)]
mod tests;
