//! DNS64 of the config, compiled for `xdnsd_core::policy::dns64`.

use std::sync::Arc;

use xdnsd_core::policy::ranges::AddressRanges;
use xdnsd_core::policy::{Dns64, TranslationPrefix};

use super::{COMPILED, screen};
use crate::compile::prefix::Prefix;

/// What the config says about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns64Input {
    /// Prefix of the NAT64.
    pub prefix: Option<TranslationPrefix>,
    /// True if it is for all clients whose view says nothing else.
    pub is_for_all: bool,
    /// Addresses that count as none.
    pub exclude: Vec<Prefix>,
}

impl Default for Dns64Input {
    fn default() -> Self {
        Self {
            prefix: None,
            is_for_all: true,
            exclude: vec![Prefix::mapped()],
        }
    }
}

/// The same, compiled.
#[derive(Clone, Debug)]
pub(super) struct Dns64Set {
    prefix: Option<TranslationPrefix>,
    is_for_all: bool,
    excluded: Arc<[u8]>,
}

impl Dns64Set {
    pub fn of(input: &Dns64Input) -> Self {
        let exclude: Vec<Prefix> = input
            .exclude
            .iter()
            .map(|prefix| prefix.unmapped())
            .collect();
        Self {
            prefix: input.prefix,
            is_for_all: input.is_for_all,
            excluded: screen::compile(&exclude).into(),
        }
    }

    /// For clients whose view says this; `None`: nothing, or they are in none.
    pub fn view(&self, own: Option<bool>) -> Dns64<'_> {
        Dns64 {
            prefix: self.prefix.filter(|_| own.unwrap_or(self.is_for_all)),
            excluded: AddressRanges::view(&self.excluded).expect(COMPILED),
        }
    }

    pub fn bytes(&self) -> usize {
        self.excluded.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv6Addr;

    #[test]
    fn a_view_has_its_own_word_and_else_that_of_all() {
        for (is_for_all, own, has) in [
            (true, None, true),
            (true, Some(false), false),
            (true, Some(true), true),
            (false, None, false),
            (false, Some(false), false),
            (false, Some(true), true),
        ] {
            let set = |prefix| {
                Dns64Set::of(&Dns64Input {
                    prefix,
                    is_for_all,
                    exclude: Vec::new(),
                })
            };
            let well_known = Some(TranslationPrefix::WELL_KNOWN);
            assert_eq!(set(well_known).view(own).prefix.is_some(), has, "{own:?}");
            assert_eq!(set(None).view(own).prefix, None);
        }
    }

    #[test]
    fn excluded_addresses_are_those_of_the_prefixes() {
        let exclude = ["::ffff:0:0/96", "2001:db8:6::/48"];
        let set = Dns64Set::of(&Dns64Input {
            exclude: exclude.map(|text| text.parse().expect("a prefix")).into(),
            ..Dns64Input::default()
        });
        let dns64 = set.view(None);
        for (address, is_excluded) in [
            ("::ffff:0.0.0.0", true),
            ("::ffff:192.0.2.1", true),
            ("::ffff:255.255.255.255", true),
            ("::1:0:0:0", false),
            ("::fffe:ffff:ffff", false),
            ("2001:db8:6::1", true),
            ("2001:db8:5:ffff::1", false),
            ("2001:db8:7::", false),
        ] {
            let octets = address.parse::<Ipv6Addr>().expect("an address").octets();
            assert_eq!(dns64.is_excluded(&octets), is_excluded, "{address}");
        }
    }
}
