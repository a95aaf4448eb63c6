//! Bridges and their ports, as the kernel has them now (rtnetlink(7)).
//!
//! A frame that an XDP program on a port answers never reaches the bridge, so that program has to know what the bridge would have
//! done with it.

use xdnsd_abi::headers::ethernet::ethertype;

use super::netlink::{DEVICE_LEN, attribute, attributes, dump_links, u16_at, u32_at, with};

/// linux/if_link.h: bridge of a port, settings by kind, settings by family, filter of a request.
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_EXT_MASK: u16 = 29;
/// Inside IFLA_LINKINFO: kind and its settings; kind of the master and the port's settings.
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
/// Settings of a bridge. Times are in hundredths of a second.
const IFLA_BR_FORWARD_DELAY: u16 = 1;
const IFLA_BR_AGEING_TIME: u16 = 4;
const IFLA_BR_VLAN_FILTERING: u16 = 7;
const IFLA_BR_VLAN_PROTOCOL: u16 = 8;
const IFLA_BR_TOPOLOGY_CHANGE: u16 = 14;
const CENTISECOND_MS: u32 = 10;
/// Settings of a port.
const IFLA_BRPORT_STATE: u16 = 1;
const IFLA_BRPORT_LOCKED: u16 = 39;
/// linux/if_bridge.h: BR_STATE_FORWARDING, and a port's VLANs inside IFLA_AF_SPEC.
const FORWARDING: u8 = 3;
const IFLA_BRIDGE_VLAN_INFO: u16 = 2;
const BRIDGE_VLAN_INFO_PVID: u16 = 2;
const BRIDGE_VLAN_INFO_UNTAGGED: u16 = 4;
const BRIDGE_VLAN_INFO_RANGE_END: u16 = 16;
const BRIDGE_VLAN_INFO_RANGE_BEGIN: u16 = 8;
/// linux/rtnetlink.h: lists VLANs, those with equal flags in ranges. One by one, those of a trunk would not fit a message.
const RTEXT_FILTER_BRVLAN_COMPRESSED: u32 = 4;
const AF_BRIDGE: u8 = 7;
/// net/if.h, and offsets of index and flags in struct ifinfomsg.
const IFF_UP: u32 = 1;
const INDEX: usize = 4;
const FLAGS: usize = 8;
/// IFLA_INFO_KIND of a bridge.
const BRIDGE: &[u8] = b"bridge\0";

/// A device that is a bridge, a port of one, or both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Interface index.
    pub index: u32,
    /// Settings, if it is a bridge.
    pub bridge: Option<Bridge>,
    /// Settings as a port, if it is one.
    pub port: Option<Port>,
}

/// A bridge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bridge {
    /// True if it is up.
    pub is_up: bool,
    /// How long it remembers on which port it heard a station, in milliseconds. Shorter during a topology change of the spanning
    /// tree (IEEE 802.1D section 17.11).
    pub ageing_ms: u32,
    /// True if it filters VLANs.
    pub filters_vlans: bool,
    /// True if the tags that it looks at are service tags (IEEE 802.1ad).
    pub has_service_tags: bool,
    /// VLANs of the bridge device itself.
    pub vlans: Vec<Vlan>,
}

/// A port of a bridge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Port {
    /// Interface index of the bridge.
    pub bridge: u32,
    /// True if it forwards frames: the spanning tree has not blocked it, and it has carrier.
    pub is_forwarding: bool,
    /// True if it drops frames of unknown stations (802.1X).
    pub is_locked: bool,
    /// Its VLANs, if the bridge filters VLANs.
    pub vlans: Vec<Vlan>,
}

/// VLANs of a port, or of a bridge device itself, with consecutive IDs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vlan {
    /// First VLAN ID.
    pub id: u16,
    /// Last one.
    pub last: u16,
    /// True if untagged frames that arrive on the port belong to this VLAN.
    pub is_pvid: bool,
    /// True if frames of this VLAN leave untagged.
    pub is_untagged: bool,
}

impl Vlan {
    /// True if this VLAN is among them.
    #[must_use]
    pub const fn contains(&self, id: u16) -> bool {
        self.id <= id && id <= self.last
    }
}

/// Reads all bridges and their ports.
///
/// # Errors
/// The kernel refused.
pub fn read() -> nix::Result<Vec<Link>> {
    let mut links = Vec::new();
    dump_links(0, &[], |said| links.extend(Link::of(said)))?;
    let filters = |link: &Link| {
        link.bridge
            .as_ref()
            .is_some_and(|bridge| bridge.filters_vlans)
    };
    if links.iter().any(filters) {
        let with_vlans = with(IFLA_EXT_MASK, &RTEXT_FILTER_BRVLAN_COMPRESSED.to_ne_bytes());
        dump_links(AF_BRIDGE, &with_vlans, |said| add_vlans(&mut links, said))?;
    }
    Ok(links)
}

impl Link {
    /// Reads a device from a message; `None` if it is neither a bridge nor a port of one.
    fn of(said: &[u8]) -> Option<Self> {
        let (index, flags) = (u32_at(said, INDEX)?, u32_at(said, FLAGS)?);
        let all = said.get(DEVICE_LEN..)?;
        let info = attribute(all, IFLA_LINKINFO).unwrap_or_default();
        let is_bridge = attribute(info, IFLA_INFO_KIND) == Some(BRIDGE);
        let is_port = attribute(info, IFLA_INFO_SLAVE_KIND) == Some(BRIDGE);
        let settings = |kind| attribute(info, kind).unwrap_or_default();
        let bridge = is_bridge.then(|| Bridge::of(settings(IFLA_INFO_DATA), flags & IFF_UP != 0));
        let master = attribute(all, IFLA_MASTER).and_then(|master| u32_at(master, 0));
        let port = master.filter(|_| is_port);
        let port = port.map(|bridge| Port::of(settings(IFLA_INFO_SLAVE_DATA), bridge));
        (bridge.is_some() || port.is_some()).then_some(Self {
            index,
            bridge,
            port,
        })
    }
}

impl Bridge {
    fn of(settings: &[u8], is_up: bool) -> Self {
        let centiseconds = |kind| {
            attribute(settings, kind)
                .and_then(|octets| u32_at(octets, 0))
                .unwrap_or(0)
        };
        let time = match is_set(settings, IFLA_BR_TOPOLOGY_CHANGE) {
            true => IFLA_BR_FORWARD_DELAY,
            false => IFLA_BR_AGEING_TIME,
        };
        Self {
            is_up,
            ageing_ms: centiseconds(time).saturating_mul(CENTISECOND_MS),
            filters_vlans: is_set(settings, IFLA_BR_VLAN_FILTERING),
            has_service_tags: attribute(settings, IFLA_BR_VLAN_PROTOCOL)
                == Some(&ethertype::SERVICE_VLAN.to_be_bytes()),
            vlans: Vec::new(),
        }
    }
}

impl Port {
    fn of(settings: &[u8], bridge: u32) -> Self {
        let state = attribute(settings, IFLA_BRPORT_STATE);
        Self {
            bridge,
            is_forwarding: state == Some(&[FORWARDING]),
            is_locked: is_set(settings, IFLA_BRPORT_LOCKED),
            vlans: Vec::new(),
        }
    }
}

/// True if a one-octet attribute is present and not zero.
fn is_set(settings: &[u8], kind: u16) -> bool {
    attribute(settings, kind).is_some_and(|octets| octets.iter().any(|octet| *octet != 0))
}

/// Adds VLANs from a message of family AF_BRIDGE. The bridge's own VLANs come under its own index.
fn add_vlans(links: &mut [Link], said: &[u8]) {
    let Some(index) = u32_at(said, INDEX) else {
        return;
    };
    let of_family = attribute(said.get(DEVICE_LEN..).unwrap_or_default(), IFLA_AF_SPEC);
    let all = attributes(of_family.unwrap_or_default());
    let mut begun = None;
    let vlan = |(kind, octets): (u16, &[u8])| {
        let (flags, last) = (u16_at(octets, 0)?, u16_at(octets, 2)?);
        if kind != IFLA_BRIDGE_VLAN_INFO {
            return None;
        }
        if flags & BRIDGE_VLAN_INFO_RANGE_BEGIN != 0 {
            begun = Some(last);
            return None;
        }
        let begun = begun.take();
        Some(Vlan {
            id: begun
                .filter(|_| flags & BRIDGE_VLAN_INFO_RANGE_END != 0)
                .unwrap_or(last),
            last,
            is_pvid: flags & BRIDGE_VLAN_INFO_PVID != 0,
            is_untagged: flags & BRIDGE_VLAN_INFO_UNTAGGED != 0,
        })
    };
    let Some(link) = links.iter_mut().find(|link| link.index == index) else {
        return;
    };
    let vlans = match (&mut link.port, &mut link.bridge) {
        (Some(port), _) => &mut port.vlans,
        (None, Some(bridge)) => &mut bridge.vlans,
        (None, None) => return,
    };
    vlans.extend(all.filter_map(vlan));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message about a device, as the kernel sends it.
    fn said(index: u32, flags: u32, attributes: &[Vec<u8>]) -> Vec<u8> {
        let mut octets = vec![0; INDEX];
        octets.extend(index.to_ne_bytes());
        octets.extend(flags.to_ne_bytes());
        octets.resize(DEVICE_LEN, 0);
        octets.extend(attributes.concat());
        octets
    }

    fn nested(kind: u16, attributes: &[Vec<u8>]) -> Vec<u8> {
        // With the flag that newer kernels set.
        with(0x8000 | kind, &attributes.concat())
    }

    fn bridge(flags: u32, topology_change: u8, filtering: u8) -> Vec<u8> {
        let settings = nested(
            IFLA_INFO_DATA,
            &[
                with(IFLA_BR_FORWARD_DELAY, &1_500_u32.to_ne_bytes()),
                with(IFLA_BR_AGEING_TIME, &30_000_u32.to_ne_bytes()),
                with(IFLA_BR_VLAN_FILTERING, &[filtering]),
                with(IFLA_BR_VLAN_PROTOCOL, &[0x81, 0]),
                with(IFLA_BR_TOPOLOGY_CHANGE, &[topology_change]),
            ],
        );
        let kind = with(IFLA_INFO_KIND, BRIDGE);
        said(
            7,
            flags,
            &[
                with(3, b"br-lan\0"),
                nested(IFLA_LINKINFO, &[kind, settings]),
            ],
        )
    }

    fn port(kind: &[u8], state: u8, locked: u8) -> Vec<u8> {
        let settings = nested(
            IFLA_INFO_SLAVE_DATA,
            &[
                with(IFLA_BRPORT_STATE, &[state]),
                with(IFLA_BRPORT_LOCKED, &[locked]),
            ],
        );
        let info = [
            with(IFLA_INFO_KIND, b"veth\0"),
            with(IFLA_INFO_SLAVE_KIND, kind),
            settings,
        ];
        let master = with(IFLA_MASTER, &7_u32.to_ne_bytes());
        said(8, IFF_UP, &[master, nested(IFLA_LINKINFO, &info)])
    }

    #[test]
    fn a_bridge_forgets_sooner_while_spanning_trees_change() {
        let read = |message: &[u8]| Link::of(message).and_then(|link| link.bridge);
        let calm = Bridge {
            is_up: true,
            ageing_ms: 300_000,
            ..Bridge::default()
        };
        assert_eq!(read(&bridge(IFF_UP, 0, 0)), Some(calm.clone()));
        let down = Bridge {
            is_up: false,
            filters_vlans: true,
            ..calm.clone()
        };
        assert_eq!(read(&bridge(0x1002, 0, 1)), Some(down));
        let ageing_ms = 15_000;
        assert_eq!(
            read(&bridge(IFF_UP, 1, 0)),
            Some(Bridge { ageing_ms, ..calm })
        );
        assert_eq!(Link::of(&said(1, IFF_UP, &[with(3, b"lo\0")])), None);
    }

    #[test]
    fn a_port_lets_frames_through_in_one_state_alone() {
        let read = |message: &[u8]| Link::of(message).and_then(|link| link.port);
        for state in 0..=5 {
            let is_forwarding = state == 3;
            let expected = Port {
                bridge: 7,
                is_forwarding,
                ..Port::default()
            };
            assert_eq!(read(&port(BRIDGE, state, 0)), Some(expected), "{state}");
        }
        assert!(read(&port(BRIDGE, 3, 1)).is_some_and(|port| port.is_locked));
        assert_eq!(read(&port(b"bond\0", 3, 0)), None, "a bond's");
        let whole = port(BRIDGE, 3, 0);
        for len in 0..whole.len() {
            let cut = read(&whole[..len]);
            assert!(cut.is_none_or(|port| !port.is_forwarding), "{len}");
        }
    }

    #[test]
    fn vlans_belong_to_the_port_or_to_the_bridge_itself() {
        let vlan = |flags: u16, id: u16| {
            let octets = [flags.to_ne_bytes(), id.to_ne_bytes()].concat();
            with(IFLA_BRIDGE_VLAN_INFO, &octets)
        };
        let mut links: Vec<Link> = [bridge(IFF_UP, 0, 1), port(BRIDGE, 3, 0)]
            .iter()
            .filter_map(|message| Link::of(message))
            .collect();
        let of = |index, vlans: &[Vec<u8>]| said(index, 0, &[nested(IFLA_AF_SPEC, vlans)]);
        add_vlans(&mut links, &of(7, &[vlan(1 | 2 | 4, 1)]));
        add_vlans(
            &mut links,
            &of(
                8,
                &[
                    with(0, &[1, 0]),
                    vlan(2 | 4, 1),
                    vlan(0, 10),
                    vlan(8, 20),
                    vlan(16, 29),
                ],
            ),
        );
        add_vlans(&mut links, &of(9, &[vlan(2, 5)]));
        let pvid = Vlan {
            id: 1,
            last: 1,
            is_pvid: true,
            is_untagged: true,
        };
        let tagged = |id, last| Vlan {
            id,
            last,
            ..Vlan::default()
        };
        let vlans: Vec<_> = links
            .iter()
            .map(|link| match (&link.bridge, &link.port) {
                (Some(bridge), _) => bridge.vlans.clone(),
                (None, port) => port.clone().expect("a port").vlans,
            })
            .collect();
        assert_eq!(
            vlans,
            [vec![pvid], vec![pvid, tagged(10, 10), tagged(20, 29)]]
        );
    }
}
