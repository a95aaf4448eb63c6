//! What of upstream's answers is not passed on, compiled for `xdnsd_core::policy::screen`.

use std::sync::Arc;

use xdnsd_core::policy::Screen;
use xdnsd_core::policy::ranges::AddressRanges;

use super::COMPILED;
use crate::compile::prefix::Prefix;
use crate::compile::ranges::{self, Span};

/// Families of which no address is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FilteredFamilies {
    /// IPv4's.
    pub a: bool,
    /// IPv6's.
    pub aaaa: bool,
}

impl FilteredFamilies {
    /// What either withholds.
    pub(super) const fn with(self, other: Self) -> Self {
        Self {
            a: self.a || other.a,
            aaaa: self.aaaa || other.aaaa,
        }
    }
}

/// What the config says about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScreenInput {
    /// Addresses that mean that a name does not exist.
    pub bogus: Vec<Prefix>,
    /// For all clients.
    pub without: FilteredFamilies,
}

/// The same, compiled.
#[derive(Clone, Debug)]
pub(super) struct ScreenSet {
    bogus: Arc<[u8]>,
    pub without: FilteredFamilies,
}

impl ScreenSet {
    pub fn of(input: &ScreenInput) -> Self {
        Self {
            bogus: compile(&input.bogus).into(),
            without: input.without,
        }
    }

    pub fn view(&self) -> Screen<'_> {
        Screen {
            bogus: AddressRanges::view(&self.bogus).expect(COMPILED),
            without_a: self.without.a,
            without_aaaa: self.without.aaaa,
        }
    }

    pub fn bytes(&self) -> usize {
        self.bogus.len()
    }
}

/// A byte of 1 for each address of these.
pub(super) fn compile(prefixes: &[Prefix]) -> Vec<u8> {
    if prefixes.is_empty() {
        return Vec::new();
    }
    let lay = |cut, is_ipv4| {
        ranges::of_family(prefixes, is_ipv4)
            .fold(cut, |cut, prefix| ranges::lay(cut, Span::of(prefix), |_| 1))
    };
    ranges::compile(0, lay, |byte| byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use xdnsd_core::dns::rtype;

    #[test]
    fn every_address_of_a_prefix_is_bogus_and_none_beside_it() {
        let set = |prefixes: &[&str]| {
            let bogus = prefixes
                .iter()
                .map(|prefix| prefix.parse().expect("a prefix"));
            ScreenSet::of(&ScreenInput {
                bogus: bogus.collect(),
                without: FilteredFamilies::default(),
            })
        };
        let some = set(&["192.0.2.0/24", "192.0.2.7", "0.0.0.0", "2001:db8::/32"]);
        let screen = some.view();
        assert!(screen.looks_at(rtype::A) && screen.looks_at(rtype::MX));
        for (v4, is_bogus) in [
            ([192, 0, 1, 255], false),
            ([192, 0, 2, 0], true),
            ([192, 0, 2, 7], true),
            ([192, 0, 2, 255], true),
            ([192, 0, 3, 0], false),
            ([0, 0, 0, 0], true),
            ([0, 0, 0, 1], false),
        ] {
            assert_eq!(screen.is_bogus(rtype::A, &v4), is_bogus, "{v4:?}");
            let [a, b, c, d] = v4;
            let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d];
            assert_eq!(screen.is_bogus(rtype::AAAA, &mapped), is_bogus, "{v4:?}");
        }
        let mut v6 = [0; 16];
        assert!(!screen.is_bogus(rtype::AAAA, &v6));
        v6[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        assert!(screen.is_bogus(rtype::AAAA, &v6));
        assert!(!screen.is_bogus(rtype::TXT, &[192, 0, 2, 7]));
        assert!(!screen.is_bogus(rtype::A, &[192, 0, 2]));
        let none = set(&[]);
        assert!(!none.view().looks_at(rtype::A));
        assert!(!none.view().is_bogus(rtype::A, &[0, 0, 0, 0]));
    }
}
