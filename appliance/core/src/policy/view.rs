//! Views: groups of clients with a policy of their own, selected by address or by the device that receives the query.
//!
//! A view's policy is a [`Policy`] like any other, and its number is part of the key of cached answers and questions in
//! flight. So from [`Views::of`] on a query meets its own view alone: local data, lists, routes, cached answers, questions
//! in flight.

use core::net::IpAddr;

use super::Policy;
use super::on_link::VlanDevice;
use super::ranges::AddressRanges;

pub use crate::limits::{POLICIES_MAX, VIEWS_MAX};

/// Bit in the byte of an address: lists are paused for it. The other bits are the number of its view, or 0.
pub const PAUSED: u8 = 0x80;

/// Policies in force, and the selection of a client's policy.
#[derive(Clone, Copy, Debug)]
pub struct Views<'p> {
    /// View number of each address, and [`PAUSED`].
    pub clients: AddressRanges<'p>,
    /// Devices, with the view number of clients that ask by them.
    pub devices: &'p [(u32, u8)],
    /// Devices whose frames arrive on other devices.
    pub carried: &'p [VlanDevice],
    /// A policy for each view by its number, then the same without lists, if lists are paused for some clients.
    pub policies: &'p [Policy<'p>],
    /// Number of views, including that of all other clients.
    pub count: usize,
}

impl<'p> Views<'p> {
    /// One policy for all clients.
    pub const NONE: Self = Self {
        clients: AddressRanges::EMPTY,
        devices: &[],
        carried: &[],
        policies: &[],
        count: 0,
    };

    /// True if there is one policy for all clients.
    #[must_use]
    #[inline(always)]
    pub const fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    /// Policy of a client with this canonical address that asks by this device; `None` if there is one for all.
    ///
    /// A view by address takes precedence over a view by device.
    #[must_use]
    #[inline(never)]
    pub fn of(&self, client: IpAddr, device: u32) -> Option<&'p Policy<'p>> {
        let byte = self.clients.value(client).unwrap_or(0);
        let view = match byte & !PAUSED {
            0 => self.of_device(device),
            view => view,
        };
        let index = if byte & PAUSED == 0 {
            usize::from(view)
        } else {
            self.count + usize::from(view)
        };
        self.policies.get(index).or(self.policies.first())
    }

    /// Index of the device to which a frame belongs that `carrier` received with these VLAN IDs; 0 if unknown.
    #[must_use]
    pub fn device_of(&self, carrier: u32, vlans: impl Iterator<Item = u16>) -> u32 {
        let mut wanted = [0; 2];
        // A priority tag names no VLAN.
        let vlans = vlans.filter(|vlan| *vlan != 0);
        wanted
            .iter_mut()
            .zip(vlans)
            .for_each(|(place, vlan)| *place = vlan);
        if wanted == [0; 2] {
            return carrier;
        }
        let is_it = |known: &&VlanDevice| known.carrier == carrier && known.vlans == wanted;
        self.carried
            .iter()
            .find(is_it)
            .map_or(0, |known| known.device)
    }

    fn of_device(&self, device: u32) -> u8 {
        let mut devices = self.devices.iter();
        let found = devices.find(|(index, _)| *index == device);
        found.map_or(0, |(_, view)| *view)
    }

    /// Policy of this number; `None` if there is one for all.
    #[must_use]
    pub fn by_number(&self, number: u8) -> Option<&'p Policy<'p>> {
        let by = |number| self.policies.iter().find(|policy| policy.view == number);
        // If its pause has ended, that of the view. If the view is gone, its waiting clients belong to the rest.
        by(number)
            .or_else(|| by(number % VIEWS_MAX as u8))
            .or(self.policies.first())
    }
}

/// Number of the policy of a view with its lists paused.
#[must_use]
pub const fn number_of_paused(view: u8) -> u8 {
    VIEWS_MAX as u8 + view
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 10.0.0.0/8 is view 1, 10.66.0.0/16 in it is paused, 11.0.0.0/8 of no view is paused.
    fn image() -> std::vec::Vec<u8> {
        let mut bytes = std::vec::Vec::new();
        for count in [6u32, 1] {
            bytes.extend(count.to_le_bytes());
        }
        for start in [
            0u32,
            0x0a00_0000,
            0x0a42_0000,
            0x0a43_0000,
            0x0b00_0000,
            0x0c00_0000,
        ] {
            bytes.extend(start.to_le_bytes());
        }
        bytes.extend([0, 1, 1 | PAUSED, 1, PAUSED, 0]);
        bytes.extend(0u128.to_le_bytes());
        bytes.push(0);
        bytes
    }

    #[test]
    fn an_address_goes_before_the_device_and_a_pause_changes_no_view() {
        let image = image();
        let of_number = |view| Policy {
            view,
            ..Policy::OPEN
        };
        let numbers = [0, 1, 2, 8, 9, 10];
        let policies = numbers.map(of_number);
        let views = Views {
            clients: AddressRanges::view(&image).expect("well-formed"),
            devices: &[(7, 2)],
            carried: &[],
            policies: &policies,
            count: 3,
        };
        for (client, device, number) in [
            ("192.0.2.1", 0, 0),
            ("192.0.2.1", 3, 0),
            ("192.0.2.1", 7, 2),
            ("10.1.0.1", 0, 1),
            ("10.1.0.1", 7, 1),
            ("10.66.0.1", 3, 9),
            ("10.66.0.1", 7, 9),
            ("11.0.0.1", 3, 8),
            ("11.0.0.1", 7, 10),
            ("fe80::1", 3, 0),
            ("fe80::1", 7, 2),
        ] {
            let client = client.parse().expect("an address");
            let view = views.of(client, device).map(|policy| policy.view);
            assert_eq!(view, Some(number), "{client} {device}");
        }
        for number in numbers {
            let found = views.by_number(number).map(|policy| policy.view);
            assert_eq!(found, Some(number));
        }
        let fewer = Views {
            policies: &policies[..3],
            ..views
        };
        for (number, found) in [(5, 0), (13, 0), (9, 1), (10, 2)] {
            let policy = fewer.by_number(number).map(|policy| policy.view);
            assert_eq!(policy, Some(found), "{number}");
        }
        assert!(Views::NONE.of([10, 0, 0, 1].into(), 7).is_none());
        assert!(Views::NONE.by_number(1).is_none());
    }

    #[test]
    fn tags_say_whose_frame_it_is_but_for_those_of_priority_alone() {
        let carried = |vlans, device| VlanDevice {
            carrier: 3,
            vlans,
            device,
        };
        let views = Views {
            carried: &[carried([10, 0], 11), carried([10, 20], 12)],
            ..Views::NONE
        };
        for (carrier, vlans, device) in [
            (3, &[][..], 3),
            (3, &[0], 3),
            (3, &[10], 11),
            (3, &[0, 10], 11),
            (3, &[10, 0], 11),
            (3, &[10, 20], 12),
            (3, &[20, 10], 0),
            (3, &[20], 0),
            (4, &[10], 0),
        ] {
            let found = views.device_of(carrier, vlans.iter().copied());
            assert_eq!(found, device, "{carrier} {vlans:?}");
        }
    }
}
