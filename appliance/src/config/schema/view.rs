//! Clients for whom policy is another one.

use xdnsd_core::policy::ranges::PREFIXES_MAX;

use super::{optional, section};
use crate::config::types::{ClientNetwork, FilePath, FilterName, InterfaceName, ViewName};
use crate::config::value::words;

words! {
    /// Whether clients get addresses that DNS64 makes.
    ViewDns64Word {
        /// As `dns64.all_clients` says.
        Usual = "usual",
        /// They do.
        On = "on",
        /// They do not.
        Off = "off",
    }
}

impl ViewDns64Word {
    /// What the view has of its own.
    #[must_use]
    pub const fn own(self) -> Option<bool> {
        match self {
            Self::Usual => None,
            Self::On => Some(true),
            Self::Off => Some(false),
        }
    }
}

section! {
    /// Clients for whom policy is another one: guests, children. Stands once for each, 7 times at most. Who is in none is
    /// answered as the other sections say. An address that a view names goes before the interface, and the longest prefix before
    /// others. What is cached for one view is given to no other.
    View = "view", many: true {
        /// The view's name, in answers of `xdnsd why`.
        name: ViewName;
        /// Clients by address.
        clients: Vec<ClientNetwork> = Vec::new(), 0..=PREFIXES_MAX as u64;
        /// Clients by the interface that they ask by: the one that has the address, so of a VLAN its device, of a port its bridge.
        interfaces: Vec<InterfaceName> = Vec::new();
        /// Whether `[filter]` blocks names for them.
        filter: bool = true;
        /// Files of `[filter]` that hold for them. Empty: all.
        lists: Vec<FilePath> = Vec::new();
        /// Names that are blocked for them as well, each with all below it; `*.` in front: only what is below it.
        block: Vec<FilterName> = Vec::new();
        /// Names that are allowed for them as well, whatever blocks them.
        allow: Vec<FilterName> = Vec::new();
        /// The group of upstream servers that is asked for them, but for names that another group has by its `domains`. The
        /// group may have no `domains`. Empty: the default group.
        upstreams: String = String::new();
        /// Whether they can look up local names: records, hosts files, leases, and the domains of upstream groups. If not, names
        /// in `local.zones` do not exist for them, and the rest is asked as any other name.
        local_names: bool = true;
        /// Whether they get no IPv4 addresses from upstream servers, as `forward.filter_a` is for all.
        filter_a: bool = false;
        /// Whether they get no IPv6 addresses from upstream servers, as `forward.filter_aaaa` is for all.
        filter_aaaa: bool = false;
        /// Whether they get addresses that `[dns64]` makes.
        dns64: ViewDns64Word = ViewDns64Word::Usual;
    }
}
