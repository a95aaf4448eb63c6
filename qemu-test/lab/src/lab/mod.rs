//! The lab: a client, a router and an upstream as network namespaces on this machine.
//!
//! ```text
//!   client                      router                          upstream
//!  ┌──────────────┐            ┌───────────────────┐           ┌──────────────┐
//!  │ eth0 ────────┼── veth ────┼─ lan0       wan0 ─┼── veth ───┼─ eth0        │
//!  │ 10.53.0.2/24 │  N queues  │ 10.53.0.1         │           │ 10.54.0.2/24 │
//!  │ fd53::2/64   │            │ fd53::1           │           │ fd54::2/64   │
//!  │              │            │         10.54.0.1 │           │              │
//!  │ eth0.10      │            │ lan0.10   fd54::1 │           │              │
//!  │ 10.53.10.2   │  VLAN 10,  │ 10.53.10.1        │           │              │
//!  │ fd53:10::2   │  on request│ fd53:10::1        │           │              │
//!  └──────────────┘            └───────────────────┘           └──────────────┘
//! ```
//! The router forwards, and is the default route of both others: packets from a client to the upstream pass through it. IPv6
//! addresses are usable at once (no duplicate address detection).

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use anyhow::{Context, Result, ensure};

use crate::netns::Namespace;
use crate::privilege::require_root;
use bridge::BridgeSpec;

pub mod bridge;
pub mod named;

/// The client's IPv4 address.
pub const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(10, 53, 0, 2);
/// The client's IPv6 address.
pub const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0xfd53, 0, 0, 0, 0, 0, 0, 2);
/// The router's IPv4 address on the client's side.
pub const LAN_V4: Ipv4Addr = Ipv4Addr::new(10, 53, 0, 1);
/// The router's IPv6 address on the client's side.
pub const LAN_V6: Ipv6Addr = Ipv6Addr::new(0xfd53, 0, 0, 0, 0, 0, 0, 1);
/// The router's IPv4 address on the upstream's side.
pub const WAN_V4: Ipv4Addr = Ipv4Addr::new(10, 54, 0, 1);
/// The router's IPv6 address on the upstream's side.
pub const WAN_V6: Ipv6Addr = Ipv6Addr::new(0xfd54, 0, 0, 0, 0, 0, 0, 1);
/// The upstream's IPv4 address.
pub const UPSTREAM_V4: Ipv4Addr = Ipv4Addr::new(10, 54, 0, 2);
/// The upstream's IPv6 address.
pub const UPSTREAM_V6: Ipv6Addr = Ipv6Addr::new(0xfd54, 0, 0, 0, 0, 0, 0, 2);
/// The client's IPv4 address in the VLAN.
pub const VLAN_CLIENT_V4: Ipv4Addr = Ipv4Addr::new(10, 53, 10, 2);
/// The client's IPv6 address in the VLAN.
pub const VLAN_CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0xfd53, 0x10, 0, 0, 0, 0, 0, 2);
/// The router's IPv4 address in the VLAN.
pub const VLAN_V4: Ipv4Addr = Ipv4Addr::new(10, 53, 10, 1);
/// The router's IPv6 address in the VLAN.
pub const VLAN_V6: Ipv6Addr = Ipv6Addr::new(0xfd53, 0x10, 0, 0, 0, 0, 0, 1);
/// VLAN ID.
pub const VLAN_ID: u16 = 10;
/// The router's interface towards the client.
pub const LAN: &str = "lan0";
/// The router's interface towards the upstream.
pub const WAN: &str = "wan0";
/// The only interface of the client, and of the upstream.
pub const HOST_INTERFACE: &str = "eth0";

/// MTU of Ethernet.
pub const MTU: u32 = 1500;
/// From the IPv6 minimum (RFC 8200 section 5) to the usual maximum of jumbo frames in switches.
pub const MTU_RANGE: RangeInclusive<u32> = 1280..=9_216;
/// Up to more queues than a router of this size has.
pub const QUEUE_RANGE: RangeInclusive<u32> = 1..=64;

/// Whether a sender leaves checksums to the interface. A veth pair never fills them in: with `On`, XDP in the router sees the
/// partial sum of the pseudo header; with `Off`, the same as on a cable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Offload {
    /// As veth pairs are by default: frames from the client's kernel carry partial checksums.
    On,
    /// `ethtool -K eth0 tx off` on the client and the upstream: checksums are full.
    #[default]
    Off,
}

/// Location of a VLAN frame's tag when XDP sees the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VlanTag {
    /// In the frame: `rxvlan` and `txvlan` are off, as the appliance asks for.
    InFrame,
    /// In the socket buffer beside the frame, where XDP cannot see it: the trap of interfaces with VLAN offload.
    BesideFrame,
}

/// Properties of a lab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// RX and TX queues of `lan0` and of its peer.
    pub queues: u32,
    /// MTU of the client's link.
    pub mtu: u32,
    /// Checksum offload.
    pub offload: Offload,
    /// Adds `eth0.10` and `lan0.10`.
    pub vlan: Option<VlanTag>,
    /// Makes a bridge of the LAN, with `lan0` as a port.
    pub bridge: Option<BridgeSpec>,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            queues: 1,
            mtu: MTU,
            offload: Offload::Off,
            vlan: None,
            bridge: None,
        }
    }
}

impl Spec {
    fn check(&self) -> Result<()> {
        ensure!(
            QUEUE_RANGE.contains(&self.queues),
            "queues: {} is not in {QUEUE_RANGE:?}",
            self.queues
        );
        ensure!(
            MTU_RANGE.contains(&self.mtu),
            "MTU: {} is not in {MTU_RANGE:?}",
            self.mtu
        );
        self.bridge.map_or(Ok(()), |bridge| bridge.check())
    }
}

/// A host of the lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// The stub resolver's machine.
    Client,
    /// Runs the appliance.
    Router,
    /// Runs the authoritative server.
    Upstream,
}

impl Host {
    /// All hosts.
    pub const ALL: [Self; 3] = [Self::Client, Self::Router, Self::Upstream];

    /// Name on the command line and in the namespace's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Router => "router",
            Self::Upstream => "upstream",
        }
    }

    /// The host of this name.
    pub fn parse(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|host| host.name() == name);
        found.with_context(|| format!("no host {name:?} in the lab: client, router or upstream"))
    }
}

/// A lab that is up. Dropping it takes an unnamed lab down; a named one is taken down by [`named::NamedLab`].
#[derive(Debug)]
pub struct Lab {
    /// The stub resolver's machine.
    pub client: Namespace,
    /// Runs the appliance.
    pub router: Namespace,
    /// Runs the authoritative server.
    pub upstream: Namespace,
    /// The hosts behind the other ports of a bridge, and that of the guest network.
    pub stations: Vec<Namespace>,
}

impl Lab {
    /// A lab of unnamed namespaces: any number can be up at once, and the kernel removes each one with its last process, even if
    /// this process is killed.
    pub fn up(spec: &Spec) -> Result<Self> {
        Self::build(spec, |_| Namespace::unnamed())
    }

    /// The namespace of one host.
    #[must_use]
    pub fn host(&self, host: Host) -> &Namespace {
        match host {
            Host::Client => &self.client,
            Host::Router => &self.router,
            Host::Upstream => &self.upstream,
        }
    }

    /// Steers the client's frames from now on to RX queue `queue` of `lan0`, by the client's XPS maps.
    ///
    /// A connected socket keeps the queue it began with: open sockets after this call.
    pub fn steer_client_to_queue(&self, spec: &Spec, queue: u32) -> Result<()> {
        ensure!(queue < spec.queues, "queue {queue} of {}", spec.queues);
        // A veth frame arrives on the RX queue with the index of its TX queue.
        let every_cpu = self.client.read("/sys/devices/system/cpu/possible")?;
        for tx in 0..spec.queues {
            let mask = if tx == queue {
                cpu_mask(&every_cpu)?
            } else {
                "0".to_owned()
            };
            self.client.write(
                &format!("/sys/class/net/{HOST_INTERFACE}/queues/tx-{tx}/xps_cpus"),
                &mask,
            )?;
        }
        Ok(())
    }

    fn build(spec: &Spec, make: impl Fn(&str) -> Result<Namespace>) -> Result<Self> {
        require_root("the lab")?;
        spec.check()?;
        let stations = spec.bridge.map_or_else(Vec::new, BridgeSpec::stations);
        let stations = stations.iter().map(|station| make(&station.name));
        let lab = Self {
            stations: stations.collect::<Result<_>>()?,
            client: make(Host::Client.name())?,
            router: make(Host::Router.name())?,
            upstream: make(Host::Upstream.name())?,
        };
        lab.prepare_hosts()?;
        lab.connect(spec)?;
        if let Some(bridge) = spec.bridge {
            bridge.make(&lab, spec.offload)?;
        }
        if let Some(tag) = spec.vlan {
            lab.add_vlan(tag)?;
        }
        Ok(lab)
    }

    fn prepare_hosts(&self) -> Result<()> {
        let hosts = Host::ALL.map(|host| self.host(host));
        for namespace in hosts.into_iter().chain(&self.stations) {
            for scope in ["all", "default"] {
                namespace.write(
                    &format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6"),
                    "0",
                )?;
                namespace.write(&format!("/proc/sys/net/ipv6/conf/{scope}/accept_dad"), "0")?;
            }
            namespace.ip("link set lo up\n")?;
        }
        self.router.write("/proc/sys/net/ipv4/ip_forward", "1")?;
        self.router
            .write("/proc/sys/net/ipv6/conf/all/forwarding", "1")
    }

    fn connect(&self, spec: &Spec) -> Result<()> {
        let Spec { queues, mtu, .. } = spec;
        let queues = format!("numrxqueues {queues} numtxqueues {queues}");
        let lan = match spec.bridge {
            Some(_) => String::new(),
            None => addresses_of(LAN),
        };
        self.router.ip(&format!(
            "link add name {LAN} {queues} mtu {mtu} type veth peer name {HOST_INTERFACE} {queues} mtu {mtu} netns {client}
             link add name {WAN} type veth peer name {HOST_INTERFACE} netns {upstream}
             link set {LAN} up
             link set {WAN} up
             {lan}address add {WAN_V4}/24 dev {WAN}
             address add {WAN_V6}/64 dev {WAN} nodad\n",
            client = self.client.path(),
            upstream = self.upstream.path(),
        ))?;
        let client = (CLIENT_V4, CLIENT_V6);
        connect_host(&self.client, spec.offload, client, (LAN_V4, LAN_V6))?;
        let upstream = (UPSTREAM_V4, UPSTREAM_V6);
        connect_host(&self.upstream, spec.offload, upstream, (WAN_V4, WAN_V6))
    }

    fn add_vlan(&self, tag: VlanTag) -> Result<()> {
        match tag {
            VlanTag::InFrame => {
                self.client.output(&[
                    "ethtool",
                    "-K",
                    HOST_INTERFACE,
                    "txvlan",
                    "off",
                    "rxvlan",
                    "off",
                ])?;
                self.router
                    .output(&["ethtool", "-K", LAN, "txvlan", "off", "rxvlan", "off"])?;
            }
            VlanTag::BesideFrame => (),
        }
        add_vlan_device(&self.client, HOST_INTERFACE, VLAN_CLIENT_V4, VLAN_CLIENT_V6)?;
        add_vlan_device(&self.router, LAN, VLAN_V4, VLAN_V6)
    }
}

/// Lines of `ip` that give a device of the router the addresses of the LAN.
fn addresses_of(device: &str) -> String {
    format!("address add {LAN_V4}/24 dev {device}\naddress add {LAN_V6}/64 dev {device} nodad\n")
}

/// Configures a host with its addresses and a route to its router.
fn connect_host(
    host: &Namespace,
    offload: Offload,
    (own_v4, own_v6): (Ipv4Addr, Ipv6Addr),
    (v4, v6): (Ipv4Addr, Ipv6Addr),
) -> Result<()> {
    if offload == Offload::Off {
        host.output(&["ethtool", "-K", HOST_INTERFACE, "tx", "off"])?;
    }
    host.ip(&format!(
        "link set {HOST_INTERFACE} up
         address add {own_v4}/24 dev {HOST_INTERFACE}
         address add {own_v6}/64 dev {HOST_INTERFACE} nodad
         route add default via {v4}
         route add ::/0 via {v6}\n"
    ))
}

fn add_vlan_device(host: &Namespace, parent: &str, v4: Ipv4Addr, v6: Ipv6Addr) -> Result<()> {
    let added = host.ip(&format!(
        "link add link {parent} name {parent}.{VLAN_ID} type vlan id {VLAN_ID}
         link set {parent}.{VLAN_ID} up
         address add {v4}/24 dev {parent}.{VLAN_ID}
         address add {v6}/64 dev {parent}.{VLAN_ID} nodad\n"
    ));
    added.context("make a VLAN interface (the kernel needs CONFIG_VLAN_8021Q; without it, send tagged frames)")
}

/// Bitmap of the CPUs `0-LAST` in sysfs format: 32-bit words in hexadecimal, separated by commas.
fn cpu_mask(possible: &str) -> Result<String> {
    let last: u32 = match possible.trim().rsplit(['-', ',']).next() {
        Some(last) => last
            .parse()
            .with_context(|| format!("the CPUs of this machine are {possible:?}"))?,
        None => 0,
    };
    let mut words = vec!["ffffffff".to_owned(); (last / 32) as usize];
    words.insert(0, format!("{:x}", u32::MAX >> (31 - last % 32)));
    Ok(words.join(","))
}

#[cfg(test)]
mod tests {
    use super::cpu_mask;

    #[test]
    fn cpu_mask_has_a_bit_per_cpu() {
        let mask = |possible| cpu_mask(possible).expect("a list of CPUs");
        assert_eq!(mask("0\n"), "1");
        assert_eq!(mask("0-1\n"), "3");
        assert_eq!(mask("0-31\n"), "ffffffff");
        assert_eq!(mask("0-32\n"), "1,ffffffff");
        assert!(cpu_mask("").is_err());
    }
}
