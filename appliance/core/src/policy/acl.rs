//! Access control: the longest prefix that contains a client's address decides. Without ranges every client is answered.

use core::net::IpAddr;

use super::ranges::AddressRanges;
pub use super::ranges::PREFIXES_MAX;

/// Action of access control for a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Action {
    /// The client is answered.
    Allow = 0,
    /// The client gets REFUSED.
    Refuse = 1,
    /// The client gets no response.
    Drop = 2,
    /// Neighbours and this machine itself are answered, all others get no response. [`super::Policy::admit`] tells them
    /// apart.
    Local = 3,
}

impl Action {
    /// The action for a byte of an image. Unknown bytes refuse: an ACL must not fail open.
    const fn from_byte(byte: u8) -> Self {
        match byte {
            0 => Self::Allow,
            2 => Self::Drop,
            3 => Self::Local,
            _ => Self::Refuse,
        }
    }
}

/// The bytes are not an ACL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AclError;

/// Access control list: actions by prefix.
#[derive(Clone, Copy, Debug)]
pub struct Acl<'a> {
    ranges: AddressRanges<'a>,
}

impl<'a> Acl<'a> {
    /// An ACL that allows every client.
    pub const OPEN: Self = Self {
        ranges: AddressRanges::EMPTY,
    };

    /// Views `bytes` as an ACL. Empty bytes allow every client.
    ///
    /// # Errors
    /// The parts do not match the bytes.
    pub fn view(bytes: &'a [u8]) -> Result<Self, AclError> {
        let ranges = AddressRanges::view(bytes).ok_or(AclError)?;
        Ok(Self { ranges })
    }

    /// Action for a client with this address. A v4-mapped IPv6 address counts as its IPv4 address.
    #[must_use]
    pub fn action(&self, client: IpAddr) -> Action {
        self.action_canonical(client.to_canonical())
    }

    /// Like [`action`](Self::action), for an address in canonical form ([`IpAddr::to_canonical`]).
    #[inline(always)]
    pub(super) fn action_canonical(&self, client: IpAddr) -> Action {
        if self.ranges.is_empty() {
            return Action::Allow;
        }
        let value = self.ranges.value(client);
        value.map_or(Action::Refuse, Action::from_byte)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    /// 10.0.0.0/8 is answered, 10.66.0.0/16 in it gets silence, all else is refused; fd00::/8 is answered.
    fn image() -> Vec<u8> {
        let mut bytes = Vec::new();
        for count in [5u32, 3] {
            bytes.extend(count.to_le_bytes());
        }
        for start in [0u32, 0x0a00_0000, 0x0a42_0000, 0x0a43_0000, 0x0b00_0000] {
            bytes.extend(start.to_le_bytes());
        }
        bytes.extend([1, 0, 2, 0, 1]);
        for start in [0u128, 0xfd << 120, 0xfe << 120] {
            bytes.extend(start.to_le_bytes());
        }
        bytes.extend([1, 0, 1]);
        bytes
    }

    #[test]
    fn the_range_that_holds_the_address_decides() {
        let image = image();
        let acl = Acl::view(&image).expect("well-formed");
        let cases = [
            ("0.0.0.0", Action::Refuse),
            ("9.255.255.255", Action::Refuse),
            ("10.0.0.0", Action::Allow),
            ("10.65.255.255", Action::Allow),
            ("10.66.0.0", Action::Drop),
            ("10.66.255.255", Action::Drop),
            ("10.67.0.0", Action::Allow),
            ("11.0.0.0", Action::Refuse),
            ("255.255.255.255", Action::Refuse),
            ("::ffff:10.0.0.1", Action::Allow),
            ("::", Action::Refuse),
            ("fd00::1", Action::Allow),
            ("fdff:ffff::", Action::Allow),
            ("fe80::1", Action::Refuse),
        ];
        for (client, action) in cases {
            assert_eq!(
                acl.action(client.parse().expect("an address")),
                action,
                "{client}"
            );
        }
    }

    #[test]
    fn bytes_of_another_length_are_no_acl() {
        let mut image = image();
        for len in 1..image.len() {
            assert!(Acl::view(&image[..len]).is_err(), "cut at {len}");
        }
        image.push(0);
        assert!(Acl::view(&image).is_err(), "one byte more");
        assert!(Acl::view(&[0; 8]).is_err(), "no ranges");
    }

    /// Otherwise the addresses before it would have no action.
    #[test]
    fn the_first_range_of_each_family_starts_at_address_0() {
        let (v4, v6) = (8, 8 + 5 * 4 + 5);
        for at in (v4..v4 + 4).chain(v6..v6 + 16) {
            let mut image = image();
            image[at] = 1;
            assert!(Acl::view(&image).is_err(), "byte {at}");
        }
    }

    #[test]
    fn one_range_is_for_all_addresses_of_its_family() {
        let mut image = std::vec![1, 0, 0, 0, 1, 0, 0, 0];
        image.extend([0, 0, 0, 0, 2]);
        image.extend([0; 16]);
        image.push(0);
        let acl = Acl::view(&image).expect("well-formed");
        for (client, action) in [
            ("0.0.0.0", Action::Drop),
            ("255.255.255.255", Action::Drop),
            ("::ffff:10.0.0.1", Action::Drop),
            ("::", Action::Allow),
            ("ffff::", Action::Allow),
        ] {
            let client = client.parse().expect("an address");
            assert_eq!(acl.action(client), action, "{client}");
        }
    }

    #[test]
    fn an_acl_does_not_fail_open() {
        let mut image = image();
        let actions = 8 + 5 * 4;
        image[actions + 1] = 77;
        let acl = Acl::view(&image).expect("well-formed");
        assert_eq!(
            acl.action("10.0.0.1".parse().expect("an address")),
            Action::Refuse,
            "an unknown action"
        );
        assert_eq!(
            Acl::OPEN.action("10.0.0.1".parse().expect("an address")),
            Action::Allow
        );
    }
}
