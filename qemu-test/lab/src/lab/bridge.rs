//! A LAN that is a bridge, as a home router has it.
//!
//! ```text
//!  client  eth0 ── lan0 ─┐
//!  client2 eth0 ── lan1 ─┼─ br-lan  10.53.0.1         guest eth0 ── guest0 ── br-guest  10.53.20.1
//!  client3 eth0 ── lan2 ─┘          fd53::1                                             fd53:20::1
//! ```

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use anyhow::{Context, Result, ensure};

use super::{HOST_INTERFACE, LAN, LAN_V4, LAN_V6, Lab, Offload, addresses_of, connect_host};

/// The bridge, which has the LAN's addresses.
pub const BRIDGE: &str = "br-lan";
/// The guests' bridge, and its only port.
pub const GUEST: &str = "br-guest";
const GUEST_PORT: &str = "guest0";
/// The router's addresses in the guest network.
pub const GUEST_V4: Ipv4Addr = Ipv4Addr::new(10, 53, 20, 1);
/// The same over IPv6.
pub const GUEST_V6: Ipv6Addr = Ipv6Addr::new(0xfd53, 0x20, 0, 0, 0, 0, 0, 1);
/// The bond with `lan0` in it.
const BOND: &str = "bond0";
/// Ports of the bridge.
pub const PORT_RANGE: RangeInclusive<u32> = 1..=9;

/// Properties of the bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BridgeSpec {
    /// Number of ports, with a client behind each.
    pub ports: u32,
    /// True if it looks at VLAN tags. The kernel needs CONFIG_BRIDGE_VLAN_FILTERING.
    pub filters_vlans: bool,
    /// True if `lan0` is in a bond, which is the port. The kernel needs CONFIG_BONDING.
    pub has_bond: bool,
    /// True if there is a bridge for a guest.
    pub has_guest: bool,
}

/// A host besides the client.
pub struct Station {
    /// Name of the host: `client2` and so on, or `guest`.
    pub name: String,
    port: String,
    bridge: &'static str,
    addresses: (Ipv4Addr, Ipv6Addr),
    routers: (Ipv4Addr, Ipv6Addr),
}

impl BridgeSpec {
    pub(super) fn check(&self) -> Result<()> {
        ensure!(
            PORT_RANGE.contains(&self.ports),
            "ports: {} is not in {PORT_RANGE:?}",
            self.ports
        );
        Ok(())
    }

    /// The hosts besides the client.
    #[must_use]
    pub fn stations(self) -> Vec<Station> {
        let clients = (2..=self.ports as u8).map(|number| Station {
            name: format!("client{number}"),
            port: format!("lan{}", number - 1),
            bridge: BRIDGE,
            addresses: (
                Ipv4Addr::new(10, 53, 0, 10 + number),
                Ipv6Addr::new(0xfd53, 0, 0, 0, 0, 0, 0, 0x10 + u16::from(number)),
            ),
            routers: (LAN_V4, LAN_V6),
        });
        let guest = Station {
            name: "guest".into(),
            port: GUEST_PORT.into(),
            bridge: GUEST,
            addresses: (
                Ipv4Addr::new(10, 53, 20, 2),
                Ipv6Addr::new(0xfd53, 0x20, 0, 0, 0, 0, 0, 2),
            ),
            routers: (GUEST_V4, GUEST_V6),
        };
        clients.chain(self.has_guest.then_some(guest)).collect()
    }

    /// Names of all hosts that a bridge may have besides the client.
    pub(super) fn names() -> impl Iterator<Item = String> {
        let most = Self {
            ports: *PORT_RANGE.end(),
            filters_vlans: false,
            has_bond: false,
            has_guest: true,
        };
        most.stations().into_iter().map(|station| station.name)
    }

    /// Makes bridges and stations of a lab whose `lan0` has no addresses.
    pub(super) fn make(self, lab: &Lab, offload: Offload) -> Result<()> {
        let router = &lab.router;
        router.ip(&format!(
            "link add {BRIDGE} type bridge\nlink set {BRIDGE} up\n{}",
            addresses_of(BRIDGE)
        ))?;
        if self.filters_vlans {
            let set = router.ip(&format!("link set {BRIDGE} type bridge vlan_filtering 1\n"));
            set.context("a bridge that looks at VLAN tags (CONFIG_BRIDGE_VLAN_FILTERING)")?;
        }
        if self.has_guest {
            router.ip(&format!(
                "link add {GUEST} type bridge
                 link set {GUEST} up
                 address add {GUEST_V4}/24 dev {GUEST}
                 address add {GUEST_V6}/64 dev {GUEST} nodad\n"
            ))?;
        }
        let first = if self.has_bond {
            let made = router.ip(&format!("link add {BOND} type bond mode active-backup\n"));
            made.context("make a bond (CONFIG_BONDING)")?;
            router.ip(&format!(
                "link set {LAN} down\nlink set {LAN} master {BOND}\nlink set {BOND} up\n"
            ))?;
            BOND
        } else {
            LAN
        };
        router.ip(&format!("link set {first} master {BRIDGE}\n"))?;
        for (station, host) in self.stations().iter().zip(&lab.stations) {
            let Station { port, bridge, .. } = station;
            router.ip(&format!(
                "link add name {port} type veth peer name {HOST_INTERFACE} netns {}
                 link set {port} master {bridge}
                 link set {port} up\n",
                host.path()
            ))?;
            connect_host(host, offload, station.addresses, station.routers)?;
        }
        Ok(())
    }
}
