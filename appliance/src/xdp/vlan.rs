//! Which device has to carry a reply, where VLANs may hide their tags from XDP.
//!
//! A NIC with rx-vlan-offload, and veth always when its peer is a VLAN device, moves the tag out of the frame: a query
//! of VLAN 5 then looks untagged, and a reply made from it would leave untagged. So where VLAN devices stand on the
//! interface, the program asks the FIB, and passes what would not return the way that it came.

use crate::ethtool::{self, RxVlanOffload, VlanDevice};
use nix::net::if_::if_nametoindex;
use std::io;
use xdnsd_ebpf::Route;

/// The VLAN devices of an interface, and what became of its offload.
#[derive(Debug)]
pub struct Vlans {
    /// Index of the interface itself.
    pub index: u32,
    /// Devices on the interface, and devices on those.
    pub devices: Vec<VlanDevice>,
    /// `Off` without looking when there are no VLAN devices.
    pub offload: RxVlanOffload,
    interface: String,
}

impl Vlans {
    /// Finds the VLAN devices of `interface`; where there are some, or `tagged` listeners are wanted, turns
    /// rx-vlan-offload off.
    ///
    /// # Errors
    ///
    /// No such interface, or its driver cannot be asked.
    pub fn prepare(interface: &str, tagged: bool) -> io::Result<Self> {
        let index = if_nametoindex(interface)?;
        let devices = on_top_of(interface, ethtool::vlan_devices()?);
        let offload = if devices.is_empty() && !tagged {
            RxVlanOffload::Off
        } else {
            ethtool::turn_off_rx_vlan_offload(interface)?
        };
        Ok(Self {
            index,
            devices,
            offload,
            interface: interface.to_owned(),
        })
    }

    /// The route for a listener: untagged (0, 0), on a VLAN (id, 0), or on a VLAN in a VLAN.
    ///
    /// `None`: tagged, and the kernel has no device for that VLAN. Then its sockets cannot answer there either, and
    /// the listener is a mistake.
    #[must_use]
    pub fn route(&self, outer: u16, inner: u16) -> Option<Route> {
        if outer == 0 {
            let alone = self.devices.is_empty();
            let egress_ifindex = if alone { 0 } else { self.index };
            return Some(Route { egress_ifindex });
        }
        let outer = self.device(&self.interface, outer)?;
        let device = match inner {
            0 => outer,
            id => self.device(&outer.name, id)?,
        };
        Some(Route {
            egress_ifindex: device.index,
        })
    }

    fn device(&self, lower: &str, id: u16) -> Option<&VlanDevice> {
        let mut devices = self.devices.iter();
        devices.find(|device| device.lower == lower && device.id == id)
    }
}

/// Those that stand on the interface, directly or on one that does. Two tags are all that the program parses.
fn on_top_of(interface: &str, all: Vec<VlanDevice>) -> Vec<VlanDevice> {
    let direct = all.iter().filter(|device| device.lower == interface);
    let direct: Vec<String> = direct.map(|device| device.name.clone()).collect();
    let ours = |device: &VlanDevice| device.lower == interface || direct.contains(&device.lower);
    all.into_iter().filter(ours).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str, index: u32, lower: &str, id: u16) -> VlanDevice {
        let (name, lower) = (name.to_owned(), lower.to_owned());
        VlanDevice {
            name,
            index,
            lower,
            id,
        }
    }

    fn vlans(all: Vec<VlanDevice>) -> Vlans {
        Vlans {
            index: 2,
            devices: on_top_of("eth0", all),
            offload: RxVlanOffload::Off,
            interface: "eth0".to_owned(),
        }
    }

    #[test]
    fn the_reply_leaves_by_the_device_of_its_vlan() {
        let vlans = vlans(vec![
            device("eth0.5", 10, "eth0", 5),
            device("eth1.7", 11, "eth1", 7),
            device("eth0.5.6", 12, "eth0.5", 6),
        ]);
        let egress = |outer, inner| vlans.route(outer, inner).map(|route| route.egress_ifindex);
        assert_eq!(egress(0, 0), Some(2));
        assert_eq!(egress(5, 0), Some(10));
        assert_eq!(egress(5, 6), Some(12));
        assert_eq!(egress(7, 0), None, "VLAN 7 is another interface's");
        assert_eq!(egress(6, 0), None, "VLAN 6 is inside VLAN 5");
    }

    #[test]
    fn without_vlan_devices_the_fib_is_not_asked() {
        let vlans = vlans(vec![device("eth1.7", 11, "eth1", 7)]);
        assert_eq!(vlans.route(0, 0), Some(Route { egress_ifindex: 0 }));
    }
}
