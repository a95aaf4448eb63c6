//! Terms of a bridge for its port, and what the program there is told of them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use xdnsd_abi::PathCheck;

use crate::config::{Member, PortRest};
use crate::daemon::destinations::ListenEntry;
use crate::os::xdp::{Error, Program, ProtectedPrefix, StationsMap};

/// Terms of the bridge for a port that has a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortTerms {
    /// Index of the bridge.
    bridge: u32,
    /// Interval in which the bridge has to hear of each station, in milliseconds.
    interval_ms: u32,
    /// Why all frames are left to the bridge.
    rest: Option<PortRest>,
    /// True if the bridge looks at VLAN tags.
    filters_vlans: bool,
}

impl PortTerms {
    pub fn of(member: &Member<'_>) -> Self {
        let Member { bridge, rest, .. } = *member;
        Self {
            bridge: member.device.port.as_ref().map_or(0, |port| port.bridge),
            // Three in a row may be lost before the bridge forgets a station. Without an ageing time it keeps none that could
            // age.
            interval_ms: match bridge.ageing_ms {
                0 => u32::MAX,
                ageing_ms => ageing_ms / 4,
            },
            rest,
            filters_vlans: bridge.filters_vlans,
        }
    }

    /// Why no program is needed; `None` if one is.
    pub const fn rest(&self) -> Option<PortRest> {
        self.rest
    }

    /// True if the driver has to leave tags in the frames.
    pub const fn needs_tags(&self) -> bool {
        self.filters_vlans
    }

    /// Ingress index that a frame must have: the port's, or 0, which matches none, if the bridge is to get the frames.
    /// `hides_tags`: the driver hides tags.
    const fn ingress(&self, port: u32, is_tagged: bool, hides_tags: bool) -> u32 {
        let is_sorted = self.filters_vlans && (is_tagged || hides_tags);
        if self.rest.is_some() || is_sorted {
            0
        } else {
            port
        }
    }

    /// Changes the destinations to those that the port with this index meets.
    pub fn move_listen(&self, entries: &mut [ListenEntry], port: u32, hides_tags: bool) {
        for ours in entries {
            let is_tagged = ours.listen.vlan_outer != [0; 2];
            let ingress = self.ingress(port, is_tagged, hides_tags);
            ours.check = ours.check.by_port(ingress);
        }
    }

    /// The same for hosts behind this one.
    pub fn move_protected(&self, entries: &mut [ProtectedPrefix], port: u32, hides_tags: bool) {
        for (_, behind, protected) in entries {
            let ingress = self.ingress(port, behind.vlan != [0; 2], hides_tags);
            protected.check = PathCheck {
                ingress_ifindex: ingress,
                ..protected.check
            };
        }
    }

    /// Tells the program about the port.
    pub fn tell(&self, stations: &StationTable, program: &mut Program) -> Result<(), Error> {
        stations.with(|map| program.set_port(map, self.bridge, self.interval_ms))
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
    use xdnsd_abi::{Behind, Listen, Protected};

    const OPEN: PortTerms = PortTerms {
        bridge: 7,
        interval_ms: 75_000,
        rest: None,
        filters_vlans: false,
    };

    fn ours(vlan: u16) -> ListenEntry {
        let listen = Listen {
            addr: [0; 16],
            vlan_outer: vlan.to_be_bytes(),
            vlan_inner: [0; 2],
            port: [0, 53],
            padding: [0; 2],
        };
        ListenEntry::new(listen, PathCheck::new(0, 7, [2; 6]), "br-lan")
    }

    #[test]
    fn a_port_that_rests_has_no_destination_and_tags_of_a_filtering_bridge_are_the_bridges() {
        let filtering = PortTerms {
            filters_vlans: true,
            ..OPEN
        };
        let resting = PortTerms {
            rest: Some(PortRest::Closed),
            ..OPEN
        };
        for (terms, hides_tags, expected) in [
            (OPEN, false, [8, 8]),
            (OPEN, true, [8, 8]),
            (resting, false, [0, 0]),
            (filtering, false, [8, 0]),
            (filtering, true, [0, 0]),
        ] {
            let mut entries = [ours(0), ours(10)];
            terms.move_listen(&mut entries, 8, hides_tags);
            let found = entries.map(|ours| {
                assert!(ours.check.is_by_port());
                ours.check.ingress_ifindex
            });
            assert_eq!(found, expected, "{terms:?} {hides_tags}");
            let mut entries = [0_u16, 10].map(|vlan| {
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
            });
            terms.move_protected(&mut entries, 8, hides_tags);
            let found = entries.map(|(_, _, protected)| {
                assert_eq!(protected.check.mss, 1460);
                protected.check.ingress_ifindex
            });
            assert_eq!(found, expected, "{terms:?} {hides_tags}");
        }
    }
}
