//! Terms of a bridge for its port, and what the program there is told of them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use xdnsd_abi::{Behind, Listen, PathCheck};

use crate::config::{Member, PortRest};
use crate::daemon::destinations::ListenEntry;
use crate::os::xdp::{Error, Program, ProtectedPrefix, StationsMap};

/// Terms of the bridge for a port that has a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortTerms {
    /// Index of the bridge.
    bridge: u32,
    /// Interval in which the bridge has to hear of each station, in milliseconds.
    interval_ms: u32,
    /// Why all frames are left to the bridge.
    rest: Option<PortRest>,
    /// The VLANs that are served, if the bridge looks at tags.
    vlans: Option<PortVlans>,
}

/// VLANs at a port of a bridge that looks at tags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct PortVlans {
    /// VLAN of frames without a tag.
    pvid: u16,
    /// Those of the config.
    served: Vec<PortVlan>,
}

/// A VLAN of the config at a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PortVlan {
    /// VLAN ID in the config: of the bridge's VLAN device, or 0 for the bridge itself.
    device: u16,
    /// Its ID in the bridge, if its frames come to the device.
    id: Option<u16>,
    /// Tag of its frames at the port; 0 for none. `None`: they are the bridge's.
    tag: Option<u16>,
}

impl PortTerms {
    /// `served`: IDs of the bridge's VLAN devices that the config names, and 0 for the bridge itself.
    pub fn of(member: &Member<'_>, served: &[u16]) -> Self {
        let bridge = member.bridge;
        let vlan = |device: &u16| PortVlan {
            device: *device,
            id: member.vlan_of(*device),
            tag: member.tag_of(*device),
        };
        let vlans = bridge.filters_vlans.then(|| PortVlans {
            pvid: member.pvid(),
            served: served.iter().map(vlan).collect(),
        });
        let has_none = |vlans: &PortVlans| vlans.served.iter().all(|vlan| vlan.tag.is_none());
        let is_useless = vlans.as_ref().is_some_and(has_none);
        Self {
            bridge: member.device.port.as_ref().map_or(0, |port| port.bridge),
            // Three in a row may be lost before the bridge forgets a station. Without an ageing time it keeps none that could
            // age.
            interval_ms: match bridge.ageing_ms {
                0 => u32::MAX,
                ageing_ms => ageing_ms / 4,
            },
            rest: member.rest().or(is_useless.then_some(PortRest::Vlan)),
            vlans,
        }
    }

    /// Why no program is needed; `None` if one is.
    pub const fn rest(&self) -> Option<PortRest> {
        self.rest
    }

    /// True if the driver has to leave tags in the frames.
    pub const fn needs_tags(&self) -> bool {
        self.vlans.is_some()
    }

    /// ID of the bridge's VLAN device to which frames without a tag belong; 0 for the bridge itself.
    pub fn untagged(&self) -> u16 {
        let mut served = self.vlans.iter().flat_map(|vlans| &vlans.served);
        let untagged = served.find(|vlan| vlan.tag == Some(0));
        untagged.map_or(0, |vlan| vlan.device)
    }

    /// Tag at the port of frames to the config's VLAN `device`, and whether they are answered there. `has_inner`: behind a second
    /// tag. `hides_tags`: the driver hides tags.
    fn tag(&self, device: u16, has_inner: bool, hides_tags: bool) -> (u16, bool) {
        let Some(vlans) = &self.vlans else {
            return (device, self.rest.is_none());
        };
        let mut served = vlans.served.iter();
        let tag = served
            .find(|vlan| vlan.device == device)
            .and_then(|vlan| vlan.tag);
        match tag {
            // What has one tag belongs to that tag's VLAN.
            Some(0) if has_inner => (device, false),
            Some(tag) => (tag, self.rest.is_none() && !hides_tags),
            None => (device, false),
        }
    }

    /// Changes the destinations to those that the port with this index meets. Returns further ones: frames that come to them
    /// with another tag than the port's answers would have, which are the bridge's.
    pub fn move_listen(
        &self,
        entries: &mut Vec<ListenEntry>,
        port: u32,
        hides_tags: bool,
    ) -> Vec<(Listen, PathCheck)> {
        let others: Vec<_> = entries.iter().flat_map(|ours| self.others(ours)).collect();
        for ours in entries.iter_mut() {
            let device = u16::from_be_bytes(ours.listen.vlan_outer);
            let has_inner = ours.listen.vlan_inner != [0; 2];
            let (tag, is_answered) = self.tag(device, has_inner, hides_tags);
            ours.listen.vlan_outer = tag.to_be_bytes();
            ours.check = ours.check.by_port(if is_answered { port } else { 0 });
        }
        // An address of two VLANs may be answered in one of them: that entry is the first, and stays.
        entries.sort_by_key(|ours| ours.check.ingress_ifindex == 0);
        let mut known: Vec<Listen> = Vec::new();
        let mut is_new = |listen: Listen| {
            let is_new = !known.contains(&listen);
            known.push(listen);
            is_new
        };
        entries.retain(|ours| is_new(ours.listen));
        others
            .into_iter()
            .filter(|(listen, _)| is_new(*listen))
            .collect()
    }

    /// A destination of the config without a tag, and with that of its VLAN, as the bridge's.
    fn others(&self, ours: &ListenEntry) -> Vec<(Listen, PathCheck)> {
        let device = u16::from_be_bytes(ours.listen.vlan_outer);
        let served = self.vlans.iter().flat_map(|vlans| &vlans.served);
        let here = served.filter(|vlan| vlan.device == device && self.rest.is_none());
        here.flat_map(|vlan| [Some(0), vlan.id].into_iter().flatten())
            .map(|tag| {
                let vlan_outer = tag.to_be_bytes();
                let listen = Listen {
                    vlan_outer,
                    ..ours.listen
                };
                (listen, ours.check.by_port(0))
            })
            .collect()
    }

    /// The same for hosts behind this one.
    pub fn move_protected(&self, entries: &mut Vec<ProtectedPrefix>, port: u32, hides_tags: bool) {
        for (_, behind, protected) in entries.iter_mut() {
            let device = u16::from_be_bytes(behind.vlan);
            let (tag, is_answered) = self.tag(device, false, hides_tags);
            behind.vlan = tag.to_be_bytes();
            protected.check = PathCheck {
                ingress_ifindex: if is_answered { port } else { 0 },
                ..protected.check
            };
        }
        entries.sort_by_key(|(.., protected)| protected.check.ingress_ifindex == 0);
        let mut known: Vec<(u32, Behind)> = Vec::new();
        entries.retain(|(bits, behind, _)| {
            let is_new = !known.contains(&(*bits, *behind));
            known.push((*bits, *behind));
            is_new
        });
    }

    /// Tells the program about the port.
    pub fn tell(&self, stations: &StationTable, program: &mut Program) -> Result<(), Error> {
        let pvid = self.vlans.as_ref().map(|vlans| vlans.pvid);
        stations.with(|map| program.set_port(map, self.bridge, self.interval_ms, pvid))
    }
}

/// The table of stations, made on first use.
#[derive(Default)]
pub struct StationTable(Mutex<Option<StationsMap>>);

impl StationTable {
    fn with(&self, then: impl FnOnce(&StationsMap) -> Result<(), Error>) -> Result<(), Error> {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *map {
            Some(map) => then(map),
            none => then(none.insert(StationsMap::new()?)),
        }
    }

    /// Forgets all stations, if the table was made.
    pub fn forget_all(&self) {
        let map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(map) = &*map {
            map.forget_all();
        }
    }
}

/// A place, as other threads see it.
#[derive(Clone, Debug, Default)]
pub struct ShownPort(Arc<Mutex<Option<(String, &'static str)>>>);

impl ShownPort {
    fn lock(&self) -> MutexGuard<'_, Option<(String, &'static str)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The port that has it, and why the program serves no queries there, in a word; empty if it serves.
    #[must_use]
    pub fn get(&self) -> Option<(String, &'static str)> {
        self.lock().clone()
    }

    pub(super) fn set(&self, port: Option<(String, &'static str)>) {
        *self.lock() = port;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xdnsd_abi::Protected;

    const OPEN: PortTerms = PortTerms {
        bridge: 7,
        interval_ms: 75_000,
        rest: None,
        vlans: None,
    };
    const PORT: u32 = 8;

    /// Of a bridge that looks at tags: the tags of frames to itself, in VLAN 1, and to its VLAN devices 10 and 20.
    fn filtering(own: Option<u16>, ten: Option<u16>, twenty: Option<u16>) -> PortTerms {
        let vlan = |device, id, tag| PortVlan {
            device,
            id: Some(id),
            tag,
        };
        let vlans = PortVlans {
            pvid: 1,
            served: vec![vlan(0, 1, own), vlan(10, 10, ten), vlan(20, 20, twenty)],
        };
        PortTerms {
            vlans: Some(vlans),
            ..OPEN
        }
    }

    fn resting() -> PortTerms {
        PortTerms {
            rest: Some(PortRest::Closed),
            ..OPEN
        }
    }

    /// An address in this VLAN, behind this second tag.
    fn ours(vlan: u16, inner: u16, last: u8) -> ListenEntry {
        let mut addr = [0; 16];
        addr[15] = last;
        let listen = Listen {
            addr,
            vlan_outer: vlan.to_be_bytes(),
            vlan_inner: inner.to_be_bytes(),
            port: [0, 53],
            padding: [0; 2],
        };
        ListenEntry::new(listen, PathCheck::new(0, 7, [2; 6]), "br-lan")
    }

    /// Last octet, tag and ingress index of each destination of a port.
    fn met(
        terms: &PortTerms,
        mut entries: Vec<ListenEntry>,
        hides_tags: bool,
    ) -> Vec<(u8, u16, u32)> {
        let others = terms.move_listen(&mut entries, PORT, hides_tags);
        let own = entries.iter().map(|ours| (ours.listen, ours.check));
        let all: Vec<_> = own.chain(others).collect();
        let met = all.iter().map(|(listen, check)| {
            assert!(check.is_by_port());
            let tag = u16::from_be_bytes(listen.vlan_outer);
            (listen.addr[15], tag, check.ingress_ifindex)
        });
        met.collect()
    }

    #[test]
    fn destinations_are_met_with_the_tag_that_the_port_has_for_their_vlan() {
        let both = || vec![ours(0, 0, 1), ours(10, 0, 2)];
        for hides_tags in [false, true] {
            assert_eq!(
                met(&OPEN, both(), hides_tags),
                [(1, 0, PORT), (2, 10, PORT)]
            );
            assert_eq!(met(&resting(), both(), hides_tags), [(1, 0, 0), (2, 10, 0)]);
        }
        // A trunk port: its own VLAN untagged. What has another tag is the bridge's.
        let trunk = filtering(Some(0), Some(10), None);
        let others = [(1, 1, 0), (2, 0, 0)];
        let served = [(1, 0, PORT), (2, 10, PORT)];
        assert_eq!(met(&trunk, both(), false), [served, others].concat());
        assert_eq!(trunk.untagged(), 0);
        // An access port of VLAN 10.
        let access = filtering(None, Some(0), None);
        let expected = [(2, 0, PORT), (1, 0, 0), (1, 1, 0), (2, 10, 0)];
        assert_eq!(met(&access, both(), false), expected);
        assert_eq!(access.untagged(), 10);
        // The bridge's own VLAN with a tag.
        let tagged = filtering(Some(1), Some(0), None);
        let expected = [(1, 1, PORT), (2, 0, PORT), (1, 0, 0), (2, 10, 0)];
        assert_eq!(met(&tagged, both(), false), expected);
        // The driver hides tags, or the port rests.
        let hidden = met(&trunk, both(), true);
        assert!(
            hidden.iter().all(|(.., ingress)| *ingress == 0),
            "{hidden:?}"
        );
        let rests = PortTerms {
            rest: Some(PortRest::Closed),
            ..trunk
        };
        assert_eq!(met(&rests, both(), false), [(1, 0, 0), (2, 10, 0)]);
    }

    #[test]
    fn an_address_of_two_vlans_is_answered_where_one_of_them_is() {
        let both = || vec![ours(0, 0, 1), ours(10, 0, 1)];
        let access = filtering(None, Some(0), None);
        assert_eq!(
            met(&access, both(), false),
            [(1, 0, PORT), (1, 1, 0), (1, 10, 0)]
        );
        let trunk = filtering(Some(0), Some(10), None);
        assert_eq!(
            met(&trunk, both(), false),
            [(1, 0, PORT), (1, 10, PORT), (1, 1, 0)]
        );
    }

    #[test]
    fn a_second_tag_is_behind_the_first_one() {
        let within = || vec![ours(10, 30, 2)];
        let trunk = filtering(Some(0), Some(10), None);
        assert!(met(&trunk, within(), false).contains(&(2, 10, PORT)));
        let access = filtering(None, Some(0), None);
        let met = met(&access, within(), false);
        assert!(met.iter().all(|(.., ingress)| *ingress == 0), "{met:?}");
    }

    #[test]
    fn hosts_behind_are_met_likewise() {
        let entry = |vlan: u16| {
            let behind = Behind {
                port: [0, 80],
                vlan: vlan.to_be_bytes(),
                addr: [0; 16],
            };
            let protected = Protected {
                check: PathCheck::new(0, 7, [2; 6]).with_mss(1460),
                verified_secs: 1,
                is_auto: 0,
            };
            (32, behind, protected)
        };
        for (terms, hides_tags, expected) in [
            (OPEN, false, &[(0, PORT), (10, PORT)][..]),
            (resting(), false, &[(0, 0), (10, 0)]),
            (
                filtering(Some(0), Some(10), None),
                false,
                &[(0, PORT), (10, PORT)],
            ),
            (filtering(Some(0), Some(10), None), true, &[(0, 0), (10, 0)]),
            (filtering(None, Some(0), None), false, &[(0, PORT)]),
        ] {
            let mut entries = vec![entry(0), entry(10)];
            terms.move_protected(&mut entries, PORT, hides_tags);
            let found = entries.iter().map(|(_, behind, protected)| {
                assert_eq!(protected.check.mss, 1460);
                (
                    u16::from_be_bytes(behind.vlan),
                    protected.check.ingress_ifindex,
                )
            });
            assert_eq!(
                found.collect::<Vec<_>>(),
                expected,
                "{terms:?} {hides_tags}"
            );
        }
    }
}
