//! Served devices, and the networks that are on-link there, which are those of the devices' own addresses. A client with an
//! address in one of these networks that comes by one of the devices is a neighbour; all others come through a router.
//!
//! The table has room for as many networks as the machine has addresses, so it is never full.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Index of the loopback device in every network namespace. Queries by it come from this machine.
pub const LOOPBACK: u32 = 1;

/// Prefix length of the network that an off-link host or site has to itself (RFC 6177, RFC 7421).
const SITE_PREFIX_LEN: u32 = 64;

/// A device whose frames arrive on another device, with VLAN tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VlanDevice {
    /// Index of the device on which the frames arrive.
    pub carrier: u32,
    /// VLAN IDs of the tags, the outer one first; 0 if there is no tag.
    pub vlans: [u16; 2],
    /// Index of the device to which the frames belong.
    pub device: u32,
}

/// An address as a number, so that two are compared in a few instructions, as happens for every query. The order is that of
/// [`IpAddr`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct AddressBits {
    is_v6: bool,
    bits: u128,
}

impl AddressBits {
    #[inline(always)]
    pub(super) fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self {
                is_v6: false,
                bits: v4.to_bits().into(),
            },
            IpAddr::V6(v6) => Self {
                is_v6: true,
                bits: v6.to_bits(),
            },
        }
    }

    /// First address of the network of `length` bits, at most as many as the address has, that contains this one.
    #[inline(always)]
    fn masked(self, length: u8) -> Self {
        let width = if self.is_v6 { 128 } else { 32 };
        let mask = u128::MAX.checked_shl(width - u32::from(length));
        Self {
            bits: self.bits & mask.unwrap_or(0),
            ..self
        }
    }
}

/// A network: its first address and its prefix length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Network {
    first: AddressBits,
    length: u8,
}

impl Network {
    /// The network of `length` bits that contains `address`. A longer length than the address has counts as its full
    /// length.
    #[must_use]
    pub fn of(address: IpAddr, length: u8) -> Self {
        let length = length.min(if address.is_ipv4() { 32 } else { 128 });
        Self {
            first: AddressBits::of(address).masked(length),
            length,
        }
    }

    /// First address.
    #[must_use]
    pub const fn first(&self) -> IpAddr {
        if self.first.is_v6 {
            IpAddr::V6(Ipv6Addr::from_bits(self.first.bits))
        } else {
            IpAddr::V4(Ipv4Addr::from_bits(self.first.bits as u32))
        }
    }

    /// Prefix length in bits.
    #[must_use]
    pub const fn length(&self) -> u8 {
        self.length
    }

    /// True if the network contains `address`.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.holds(AddressBits::of(address))
    }

    #[inline(always)]
    fn holds(&self, address: AddressBits) -> bool {
        address.is_v6 == self.first.is_v6 && address.masked(self.length) == self.first
    }
}

/// View of the served devices and the networks that are on-link there.
#[derive(Clone, Copy, Debug)]
pub struct OnLink<'a> {
    networks: &'a [Network],
    devices: &'a [u32],
}

impl<'a> OnLink<'a> {
    /// No devices and no networks.
    pub const NONE: Self = Self {
        networks: &[],
        devices: &[],
    };

    /// Views `networks`, which have to be in ascending order and must not overlap. In another order some are not found.
    #[must_use]
    pub const fn view(networks: &'a [Network]) -> Self {
        Self {
            networks,
            devices: &[],
        }
    }

    /// The view with these indices of served devices.
    #[must_use]
    pub const fn by(self, devices: &'a [u32]) -> Self {
        Self { devices, ..self }
    }

    /// The networks.
    #[must_use]
    pub const fn networks(&self) -> &'a [Network] {
        self.networks
    }

    /// True if a query that came by `device` may be a neighbour's: a served device or loopback. 0 means that the kernel
    /// does not tell, and the address alone decides.
    #[must_use]
    pub fn is_served(&self, device: u32) -> bool {
        matches!(device, 0 | LOOPBACK) || self.devices.contains(&device)
    }

    /// True if `address` is a neighbour's. A link-local address always is: no router forwards it (RFC 4291 section 2.5.6).
    /// A v4-mapped IPv6 address counts as its IPv4 address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.contains_canonical(address.to_canonical())
    }

    /// Like [`contains`](Self::contains), for an address in canonical form ([`IpAddr::to_canonical`]).
    #[inline(always)]
    pub(super) fn contains_canonical(&self, address: IpAddr) -> bool {
        if matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local()) {
            return true;
        }
        let address = AddressBits::of(address);
        let behind = self
            .networks
            .partition_point(|network| network.first <= address);
        let last = behind.checked_sub(1);
        last.and_then(|index| self.networks.get(index))
            .is_some_and(|network| network.holds(address))
    }

    /// Address as which a client gets its fair share. A neighbour and an IPv4 host count by their whole address. Any other
    /// IPv6 host counts by its /64, all addresses of which may belong to one host; on-link a /64 is the whole LAN.
    #[must_use]
    pub fn fairness_unit(&self, address: IpAddr) -> IpAddr {
        match address.to_canonical() {
            IpAddr::V6(v6) if !self.contains(address) => {
                let host_bits = 128 - SITE_PREFIX_LEN;
                Ipv6Addr::from_bits(v6.to_bits() >> host_bits << host_bits).into()
            }
            address @ (IpAddr::V4(_) | IpAddr::V6(_)) => address,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// As the table of a router may be: LANs of both families, a point-to-point peer, loopback.
    fn networks() -> [Network; 7] {
        [
            ("10.0.0.2", 32),
            ("127.0.0.1", 8),
            ("192.168.1.1", 24),
            ("192.168.3.1", 25),
            ("::1", 128),
            ("2001:db8:1::1", 60),
            ("fd00:53::1", 64),
        ]
        .map(|(text, length)| Network::of(address(text), length))
    }

    #[test]
    fn a_neighbour_has_an_address_in_one_of_the_networks() {
        let networks = networks();
        let on_link = OnLink::view(&networks);
        let cases = [
            ("10.0.0.2", true),
            ("10.0.0.1", false),
            ("10.0.0.3", false),
            ("126.255.255.255", false),
            ("127.0.0.0", true),
            ("127.255.255.255", true),
            ("192.168.0.255", false),
            ("192.168.1.0", true),
            ("192.168.1.255", true),
            ("192.168.2.0", false),
            ("192.168.3.127", true),
            ("192.168.3.128", false),
            ("255.255.255.255", false),
            ("::ffff:192.168.1.7", true),
            ("::ffff:192.168.2.7", false),
            ("::", false),
            ("::1", true),
            ("2001:db8:1:f::1", true),
            ("2001:db8:1:10::1", false),
            ("fd00:53::ffff:ffff:ffff:ffff", true),
            ("fd00:53:0:1::", false),
            ("fe80::1", true),
            ("febf::1", true),
            ("fec0::1", false),
        ];
        for (text, expected) in cases {
            assert_eq!(on_link.contains(address(text)), expected, "{text}");
        }
        assert!(!OnLink::NONE.contains(address("127.0.0.1")));
    }

    #[test]
    fn what_came_by_another_device_is_a_strangers() {
        let on_link = OnLink::NONE.by(&[7, 9]);
        for (device, expected) in [(0, true), (1, true), (7, true), (9, true), (8, false)] {
            assert_eq!(on_link.is_served(device), expected, "{device}");
        }
        assert!(!OnLink::NONE.is_served(7));
    }

    #[test]
    fn a_neighbour_counts_for_itself_and_others_for_their_64() {
        let networks = networks();
        let on_link = OnLink::view(&networks);
        let cases = [
            ("192.168.1.7", "192.168.1.7"),
            ("203.0.113.7", "203.0.113.7"),
            ("::ffff:203.0.113.7", "203.0.113.7"),
            ("fd00:53::7", "fd00:53::7"),
            ("fe80::7", "fe80::7"),
            ("2001:db8:1:f::7", "2001:db8:1:f::7"),
            ("2001:db8:1:10::7", "2001:db8:1:10::"),
            ("2001:db8:2:3:4:5:6:7", "2001:db8:2:3::"),
        ];
        for (client, share) in cases {
            assert_eq!(
                on_link.fairness_unit(address(client)),
                address(share),
                "{client}"
            );
        }
    }

    #[test]
    fn lengths_at_both_ends() {
        assert!(Network::of(address("10.0.0.1"), 0).contains(address("255.255.255.255")));
        assert!(!Network::of(address("10.0.0.1"), 0).contains(address("::1")));
        assert_eq!(Network::of(address("10.0.0.1"), 33).length(), 32);
        assert!(Network::of(address("::1"), 0).contains(address("ffff::")));
        for length in [0, 32, 33, 64, 128] {
            assert!(!Network::of(address("::1"), length).contains(address("0.0.0.1")));
            assert!(!Network::of(address("0.0.0.1"), length).contains(address("::1")));
        }
        assert_eq!(Network::of(address("::1"), 200).length(), 128);
        assert_eq!(
            Network::of(address("fd00::ff"), 121).first(),
            address("fd00::80")
        );
    }
}
