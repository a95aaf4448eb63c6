//! Ports of a bridge, and at which of them it gets all frames itself.
//!
//! The config names the bridge, which has the addresses; the program that answers is on its ports. The bridge never sees what
//! the program answers, so it answers only where the bridge would have delivered the frame.

use super::{Device, Devices};
use crate::os::bridge::{Bridge, Port};

/// Why the bridge gets all frames of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortRest {
    /// The bridge is down.
    BridgeDown,
    /// The spanning tree blocks it, or it has no carrier.
    Closed,
    /// 802.1X: the bridge decides which stations may send.
    Locked,
    /// The bridge looks at VLAN tags, and no VLAN that is served has one tag, or none, in both directions there.
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
            Self::Vlan => "no VLAN that is served has the same tag there both ways",
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
    /// State as a port.
    port: &'d Port,
}

impl Member<'_> {
    /// Why a program there answers nothing, whatever the VLAN; `None` if it may answer.
    #[must_use]
    pub fn rest(&self) -> Option<PortRest> {
        if !self.bridge.is_up {
            return Some(PortRest::BridgeDown);
        }
        if !self.port.is_forwarding {
            return Some(PortRest::Closed);
        }
        self.port.is_locked.then_some(PortRest::Locked)
    }

    /// Where the bridge looks at VLAN tags: ID of the VLAN to which frames of an address belong that is on the bridge's VLAN device
    /// with this ID, or on the bridge itself (0). `None` if no frames come there.
    #[must_use]
    pub fn vlan_of(&self, device: u16) -> Option<u16> {
        let mut own = self.bridge.vlans.iter();
        match device {
            0 => own
                .find(|vlan| vlan.is_pvid && vlan.is_untagged)
                .map(|vlan| vlan.id),
            id => own
                .any(|vlan| vlan.contains(id) && !vlan.is_untagged)
                .then_some(id),
        }
    }

    /// The tag that these frames have at the port, both those that arrive and those that leave; 0 for none. `None` if the port does
    /// not carry them, or if they arrive and leave in different ways: an answer is as its query was.
    #[must_use]
    pub fn tag_of(&self, device: u16) -> Option<u16> {
        let id = self.vlan_of(device)?;
        let vlan = self.port.vlans.iter().find(|vlan| vlan.contains(id))?;
        match (vlan.is_untagged, vlan.is_pvid) {
            (true, true) => Some(0),
            (true, false) => None,
            // The program takes customer tags alone.
            (false, _) => (!self.bridge.has_service_tags).then_some(id),
        }
    }

    /// VLAN of the frames that arrive there without a tag; 0 if the bridge drops them.
    #[must_use]
    pub fn pvid(&self) -> u16 {
        let mut vlans = self.port.vlans.iter();
        vlans.find(|vlan| vlan.is_pvid).map_or(0, |vlan| vlan.id)
    }
}

impl Devices {
    /// Ports of the bridge `name`, in the order in which the kernel made them. Empty for other devices.
    pub fn members(&self, name: &str) -> impl Iterator<Item = Member<'_>> {
        let of = self.named(name);
        let of = of.and_then(|device| device.bridge.as_ref().map(|bridge| (device.index, bridge)));
        self.0.iter().filter_map(move |device| {
            let ((index, bridge), port) = (of?, device.port.as_ref()?);
            (port.bridge == index).then_some(Member {
                device,
                bridge,
                port,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::bridge::Vlan;

    const OWN: Vlan = vlan(1, true, true);

    const fn vlan(id: u16, is_pvid: bool, is_untagged: bool) -> Vlan {
        Vlan {
            id,
            last: id,
            is_pvid,
            is_untagged,
        }
    }

    fn bridge(filters_vlans: bool) -> Bridge {
        Bridge {
            is_up: true,
            ageing_ms: 300_000,
            filters_vlans,
            has_service_tags: false,
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
        let lan = device("lan1", 4);
        let rest = |bridge: &Bridge, port: &Port| {
            let device = &lan;
            Member {
                device,
                bridge,
                port,
            }
            .rest()
        };
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

    /// Of frames to the bridge itself, and to its VLAN device 9.
    #[test]
    fn frames_of_a_vlan_have_one_tag_both_ways_or_are_the_bridges() {
        let all = Vlan {
            last: 4094,
            ..vlan(2, false, false)
        };
        for (vlans, expected) in [
            (&[OWN][..], [Some(0), None]),
            (&[OWN, vlan(9, false, false)], [Some(0), Some(9)]),
            (&[OWN, all], [Some(0), Some(9)]),
            (&[vlan(9, true, true)], [None, Some(0)]),
            (
                &[vlan(1, false, false), vlan(9, true, true)],
                [Some(1), Some(0)],
            ),
            (&[vlan(5, true, true)], [None, None]),
            // Untagged frames come, tagged ones leave.
            (&[vlan(1, true, false)], [Some(1), None]),
            // Tagged frames come, untagged ones leave.
            (&[vlan(1, false, true), vlan(9, false, true)], [None, None]),
            (&[], [None, None]),
        ] {
            let (bridge, port) = (bridge(true), port(vlans));
            let device = device("lan1", 4);
            let member = Member {
                device: &device,
                bridge: &bridge,
                port: &port,
            };
            assert_eq!([0, 9].map(|id| member.tag_of(id)), expected, "{vlans:?}");
        }
    }

    /// A bridge that is in none of its VLANs itself, is in one with a tag, or looks at service tags.
    #[test]
    fn addresses_get_frames_of_a_vlan_of_the_bridge_itself_alone() {
        let trunk = port(&[OWN, vlan(9, false, false)]);
        let of = |bridge: &Bridge| {
            let device = device("lan1", 4);
            let member = Member {
                device: &device,
                bridge,
                port: &trunk,
            };
            assert_eq!(member.pvid(), 1);
            [0, 1, 9].map(|id| member.tag_of(id))
        };
        let with = |vlans: &[Vlan]| Bridge {
            vlans: vlans.to_vec(),
            ..bridge(true)
        };
        assert_eq!(of(&with(&[])), [None, None, None]);
        assert_eq!(of(&with(&[vlan(1, true, false)])), [None, Some(0), None]);
        assert_eq!(of(&with(&[vlan(9, true, true)])), [Some(9), None, None]);
        let service = Bridge {
            has_service_tags: true,
            ..bridge(true)
        };
        assert_eq!(of(&service), [Some(0), None, None]);
    }
}
