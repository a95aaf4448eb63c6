//! Ports of a bridge, and at which of them it gets all frames itself.
//!
//! The config names the bridge, which has the addresses; the program that answers is on its ports. The bridge never sees what
//! the program answers, so it answers only where the bridge would have delivered the frame.

use super::{Device, Devices};
use crate::os::bridge::{Bridge, Port, Vlan};

/// Why the bridge gets all frames of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortRest {
    /// The bridge is down.
    BridgeDown,
    /// The spanning tree blocks it, or it has no carrier.
    Closed,
    /// 802.1X: the bridge decides which stations may send.
    Locked,
    /// The bridge looks at VLAN tags, and some frames of the port do not belong to the VLAN of its untagged address.
    Vlan,
}

impl PortRest {
    /// The reason in a word.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::BridgeDown => "bridge_down",
            Self::Closed => "closed",
            Self::Locked => "locked",
            Self::Vlan => "vlan",
        }
    }

    /// The reason in a sentence.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::BridgeDown => "the bridge is down",
            Self::Closed => "the bridge does not forward by it",
            Self::Locked => "it is locked",
            Self::Vlan => "its VLANs are not the bridge's untagged one alone",
        }
    }
}

/// A port of a bridge.
#[derive(Clone, Copy, Debug)]
pub struct Member<'d> {
    /// The device.
    pub device: &'d Device,
    /// Its bridge.
    pub bridge: &'d Bridge,
    /// Why a program there answers nothing; `None` if it may answer.
    pub rest: Option<PortRest>,
}

impl Devices {
    /// Ports of the bridge `name`, in the order in which the kernel made them. Empty for other devices.
    pub fn members(&self, name: &str) -> impl Iterator<Item = Member<'_>> {
        let of = self.named(name);
        let of = of.and_then(|device| device.bridge.as_ref().map(|bridge| (device.index, bridge)));
        self.0.iter().filter_map(move |device| {
            let ((index, bridge), port) = (of?, device.port.as_ref()?);
            let rest = rest(bridge, port);
            (port.bridge == index).then_some(Member {
                device,
                bridge,
                rest,
            })
        })
    }
}

fn rest(bridge: &Bridge, port: &Port) -> Option<PortRest> {
    if !bridge.is_up {
        return Some(PortRest::BridgeDown);
    }
    if !port.is_forwarding {
        return Some(PortRest::Closed);
    }
    if port.is_locked {
        return Some(PortRest::Locked);
    }
    (bridge.filters_vlans && !is_access_port(bridge, port)).then_some(PortRest::Vlan)
}

/// True if all frames of the port are untagged, in both directions, and belong to the VLAN of the bridge's own untagged
/// address.
fn is_access_port(bridge: &Bridge, port: &Port) -> bool {
    let is_untagged = |vlan: &&Vlan| vlan.is_pvid && vlan.is_untagged;
    let [vlan] = port.vlans.as_slice() else {
        return false;
    };
    let own = bridge.vlans.iter().find(|own| own.id == vlan.id);
    is_untagged(&vlan) && own.as_ref().is_some_and(is_untagged)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Vlan = vlan(1, true, true);

    const fn vlan(id: u16, is_pvid: bool, is_untagged: bool) -> Vlan {
        Vlan {
            id,
            is_pvid,
            is_untagged,
        }
    }

    fn bridge(filters_vlans: bool) -> Bridge {
        Bridge {
            is_up: true,
            ageing_ms: 300_000,
            filters_vlans,
            vlans: vec![OWN, vlan(9, false, false)],
        }
    }

    fn port(vlans: &[Vlan]) -> Port {
        Port {
            bridge: 7,
            is_forwarding: true,
            is_locked: false,
            vlans: vlans.to_vec(),
        }
    }

    fn device(name: &str, index: u32) -> Device {
        Device {
            name: name.into(),
            index,
            ..Device::default()
        }
    }

    #[test]
    fn the_ports_of_a_bridge_are_those_that_name_it_and_others_have_none() {
        let of = |bridge| {
            Some(Port {
                bridge,
                ..port(&[])
            })
        };
        let lan = Device {
            bridge: Some(bridge(false)),
            ..device("br-lan", 7)
        };
        let guest = Device {
            bridge: Some(bridge(false)),
            ..device("br-guest", 8)
        };
        let mut devices = Devices(vec![lan, guest, device("wan0", 3)]);
        for (name, index, bridge) in [("lan1", 4, 7), ("lan2", 5, 7), ("guest1", 6, 8)] {
            let port = of(bridge);
            devices.0.push(Device {
                port,
                ..device(name, index)
            });
        }
        let names = |name| -> Vec<&str> {
            let members = devices.members(name);
            members.map(|member| member.device.name.as_str()).collect()
        };
        assert_eq!(names("br-lan"), ["lan1", "lan2"]);
        assert_eq!(names("br-guest"), ["guest1"]);
        for other in ["wan0", "lan1", "br-none"] {
            assert!(names(other).is_empty(), "{other}");
        }
    }

    #[test]
    fn a_port_rests_where_the_bridge_would_not_have_delivered_the_frame() {
        let (up, open) = (bridge(false), port(&[]));
        assert_eq!(rest(&up, &open), None);
        let down = Bridge {
            is_up: false,
            ..up.clone()
        };
        assert_eq!(rest(&down, &open), Some(PortRest::BridgeDown));
        let closed = Port {
            is_forwarding: false,
            ..open.clone()
        };
        assert_eq!(rest(&up, &closed), Some(PortRest::Closed));
        let locked = Port {
            is_locked: true,
            ..open
        };
        assert_eq!(rest(&up, &locked), Some(PortRest::Locked));
    }

    #[test]
    fn where_tags_are_looked_at_a_port_serves_the_bridges_untagged_vlan_alone() {
        for (vlans, expected) in [
            (&[OWN][..], None),
            // A trunk: the driver may hide the tag of a frame in another VLAN.
            (&[OWN, vlan(9, false, false)], Some(PortRest::Vlan)),
            (&[vlan(9, true, true)], Some(PortRest::Vlan)),
            (&[vlan(5, true, true)], Some(PortRest::Vlan)),
            (&[vlan(1, true, false)], Some(PortRest::Vlan)),
            (&[vlan(1, false, true)], Some(PortRest::Vlan)),
            (&[], Some(PortRest::Vlan)),
        ] {
            assert_eq!(rest(&bridge(true), &port(vlans)), expected, "{vlans:?}");
            assert_eq!(rest(&bridge(false), &port(vlans)), None, "{vlans:?}");
        }
        let tagged = Bridge {
            vlans: vec![vlan(1, false, false)],
            ..bridge(true)
        };
        assert_eq!(rest(&tagged, &port(&[OWN])), Some(PortRest::Vlan));
    }
}
