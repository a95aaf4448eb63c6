//! Which names the clients of a DHCP server get. A client chooses its own name, so it gets only names that no source of more trust
//! mentions.
//!
//! A client has a name of one label. It stands by itself, and right below the search domain or a local zone.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;

use xdnsd_core::dns::rtype;
use xdnsd_core::policy::special::{self, SpecialUse};
use xdnsd_core::policy::{Labels, Policy};

use super::hosts::Lease;
use super::links::Links;
use super::name;

/// What records and hosts files say about names.
pub(super) trait ClaimedNames {
    /// What may be a client's at all.
    fn rules(&self) -> &LeaseRules;

    /// Whether a name is a record's or a hosts file's: an error, unless that says nothing but the same address, which is
    /// `true`.
    ///
    /// # Errors
    /// Whose it is.
    fn owner(&self, name: &[u8], address: IpAddr) -> Result<bool, Refusal>;
}

/// What else a config says about names, besides local data.
#[derive(Clone, Copy, Debug)]
pub struct Others<'p> {
    /// Special-use names, lists and routes.
    pub policy: &'p Policy<'p>,
    /// What the machine's devices say of addresses that no client has.
    pub links: &'p Links,
}

impl Others<'_> {
    /// Nobody says anything.
    pub const NONE: Self = Self {
        policy: &Policy::OPEN,
        links: &Links::NONE,
    };

    /// Whether somebody else is named for it, or it is withheld. The root's route is for all other names, and counts for none.
    pub(super) fn refusal(&self, name: &[u8]) -> Option<Refusal> {
        let labels = Labels::new(name)?;
        let route = self.policy.routes.lookup(&labels);
        if route.is_some_and(|route| route.depth > 0) {
            return Some(Refusal::Routed);
        }
        let is_blocked = self.policy.lists.blocked(&labels, rtype::A).is_some();
        is_blocked.then_some(Refusal::Blocked)
    }

    /// The family of special-use names that it belongs to, if that is switched on.
    pub(super) fn special(&self, name: &[u8]) -> Option<SpecialUse> {
        let found = special::lookup(&Labels::new(name)?, rtype::A, self.policy.special);
        found.map(|special| special.kind)
    }
}

/// Why a client does not get a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The address is one of the router's.
    OwnAddress,
    /// The address is no host's: loopback, multicast, broadcast, unspecified or reserved.
    NoAddress,
    /// It does not begin with a letter or a digit.
    NotAHost,
    /// It reads as a number, and numbers read as addresses.
    Number,
    /// It has dots, and does not stand right below the search domain or a local zone.
    Elsewhere,
    /// The config lists it.
    Never,
    /// It is a local zone, or the search domain.
    Zone,
    /// It is a special-use name.
    Special,
    /// A record or a hosts file has it.
    Exists {
        /// The file and line that has it.
        place: String,
        /// With this address, if any.
        address: Option<IpAddr>,
    },
    /// A wildcard of the config covers it.
    Wildcard(String),
    /// A list blocks it.
    Blocked,
    /// An upstream group is named for it.
    Routed,
    /// Another client has it.
    Lease(IpAddr),
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::OwnAddress => "the address is this router's own",
            Self::NoAddress => "no host of a network has the address",
            Self::NotAHost => "it does not begin with a letter or a digit",
            Self::Number => "it reads as a number",
            Self::Elsewhere => "it is not a host of local.search or local.zones",
            Self::Never => "local.never_leased has it",
            Self::Zone => "it is a zone of the config",
            Self::Special => "it is a special-use name",
            Self::Exists {
                place,
                address: Some(address),
            } => {
                return write!(
                    formatter,
                    "the name exists in {place} with address {address}"
                );
            }
            Self::Exists {
                place,
                address: None,
            } => return write!(formatter, "the name exists in {place}"),
            Self::Wildcard(wildcard) => return write!(formatter, "{wildcard} covers it"),
            Self::Blocked => "it is blocked",
            Self::Routed => "an upstream group is named for it",
            Self::Lease(address) => {
                return write!(
                    formatter,
                    "the lease of {address} has it and ends no sooner"
                );
            }
        };
        formatter.write_str(text)
    }
}

/// The forms in which a client may be known, each in the letter case that the client writes.
pub(super) type Forms = Vec<Vec<u8>>;

/// The domains in which leases name hosts, and what the config says of leases.
#[derive(Debug, Default)]
pub(super) struct LeaseRules {
    pub search_domain: Option<Vec<u8>>,
    pub zones: Vec<Vec<u8>>,
    pub never: Vec<Vec<u8>>,
}

impl LeaseRules {
    /// The forms of a name that a client gives itself.
    fn forms(&self, written: &[u8]) -> Result<Forms, Refusal> {
        let (label, parent) = name::cut_label(written).ok_or(Refusal::NotAHost)?;
        check_label(label)?;
        let search = self.search_domain.as_deref();
        let domain = name::lower(parent);
        let mut forms = Vec::new();
        if domain == [0] {
            forms.extend(search.and_then(|search| name::child(label, search)));
            forms.extend(name::child(label, &[0]));
        } else if Some(domain.as_slice()) == search {
            forms.push(written.to_vec());
            forms.extend(name::child(label, &[0]));
        } else if self.zones.contains(&domain) && !is_reverse(&domain) {
            forms.push(written.to_vec());
        } else {
            return Err(Refusal::Elsewhere);
        }
        Ok(forms)
    }

    /// Whether the config itself keeps a name from all leases.
    fn check(&self, name: &[u8], others: &Others<'_>) -> Result<(), Refusal> {
        let (label, parent) = name::cut_label(name).ok_or(Refusal::NotAHost)?;
        let is_never = |never: &Vec<u8>| {
            let single = name::cut_label(never).filter(|(_, parent)| *parent == [0]);
            never == name || single.is_some_and(|(never, _)| never == label)
        };
        if self.never.iter().any(is_never) {
            return Err(Refusal::Never);
        }
        let is_zone = |zone: &Vec<u8>| zone == name;
        if self.zones.iter().chain(&self.search_domain).any(is_zone) {
            return Err(Refusal::Zone);
        }
        // In a zone of the config there may be hosts, also where that zone is for private use.
        match others.special(name) {
            Some(kind) if parent == [0] || !kind.is_for_private_use() => Err(Refusal::Special),
            Some(_) | None => Ok(()),
        }
    }
}

fn is_reverse(zone: &[u8]) -> bool {
    zone.ends_with(b"\x07in-addr\x04arpa\0") || zone.ends_with(b"\x03ip6\x04arpa\0")
}

/// Names of services begin with an underscore (RFC 8552), numbers are read as addresses (`inet_aton`, browsers).
fn check_label(label: &[u8]) -> Result<(), Refusal> {
    let is_number = |digits: &[u8], is_digit: fn(&u8) -> bool| {
        !digits.is_empty() && digits.iter().all(is_digit)
    };
    let hexadecimal = label
        .strip_prefix(b"0x")
        .or_else(|| label.strip_prefix(b"0X"));
    if !label.first().is_some_and(u8::is_ascii_alphanumeric) {
        Err(Refusal::NotAHost)
    } else if is_number(label, u8::is_ascii_digit)
        || hexadecimal.is_some_and(|digits| is_number(digits, u8::is_ascii_hexdigit))
    {
        Err(Refusal::Number)
    } else {
        Ok(())
    }
}

/// The leases that name hosts, in the order of their trust: those that end last first. Of two clients with one name the one
/// that came last has it, as in dnsmasq; who came last ends last.
#[derive(Debug, Default)]
pub(super) struct Claims {
    /// By name and family.
    holders: HashMap<(Vec<u8>, bool), Holder>,
}

/// The client that has a name.
#[derive(Debug)]
struct Holder {
    client: String,
    /// One at least.
    addresses: Vec<IpAddr>,
}

impl Claims {
    /// The forms of a name that the lease gets, none where a record or a hosts file gives the same address already.
    pub fn decide(
        &mut self,
        lease: &Lease,
        written: &[u8],
        known: &impl ClaimedNames,
        others: &Others<'_>,
    ) -> Result<Forms, Refusal> {
        let Links {
            own_addresses,
            martian_sources,
            ..
        } = others.links;
        if own_addresses.contains(&lease.address) {
            return Err(Refusal::OwnAddress);
        }
        // Of those that are not own what is left are the first and the last of networks.
        if !is_of_a_host(lease.address) || martian_sources.contains(&lease.address) {
            return Err(Refusal::NoAddress);
        }
        let rules = known.rules();
        let forms = rules.forms(written)?;
        let mut exists = None;
        for form in &forms {
            let form = name::lower(form);
            match known.owner(&form, lease.address) {
                Err(refusal) => return Err(refusal),
                Ok(is_same) => exists = exists.or(is_same.then_some(())),
            }
            rules.check(&form, others)?;
            if let Some(refusal) = others.refusal(&form) {
                return Err(refusal);
            }
        }
        if exists.is_some() {
            return Ok(Vec::new());
        }
        self.take(&forms, lease)?;
        Ok(forms)
    }

    fn take(&mut self, forms: &Forms, lease: &Lease) -> Result<(), Refusal> {
        let keys = forms
            .iter()
            .map(|form| (name::lower(form), lease.address.is_ipv4()));
        let keys: Vec<_> = keys.collect();
        for key in &keys {
            if let Some(holder) = self.holders.get(key)
                && holder.client != lease.client
                && !holder.addresses.contains(&lease.address)
            {
                return Err(Refusal::Lease(holder.addresses[0]));
            }
        }
        for key in keys {
            let holder = self.holders.entry(key).or_insert_with(|| Holder {
                client: lease.client.clone(),
                addresses: Vec::new(),
            });
            holder.addresses.push(lease.address);
        }
        Ok(())
    }
}

/// The names of a lease's line that are to be decided about. Where a line gives several, as a hosts file does, those with
/// dots count only if all of them are hosts of our domains: a client that calls itself `a.b` is `a.b.lan` for its server.
pub(super) fn names_of<'l>(lease: &'l Lease, rules: &LeaseRules) -> Vec<&'l [u8]> {
    let has_dots = |name: &&[u8]| name::parent(name).is_some_and(|parent| parent != [0]);
    let names = lease.names.iter().map(Vec::as_slice);
    let (dotted, plain): (Vec<_>, Vec<_>) = names.partition(has_dots);
    let mut elsewhere = dotted.clone();
    elsewhere.retain(|name| rules.forms(name).is_err());
    match (elsewhere.is_empty(), plain.is_empty()) {
        (true, _) => [dotted, plain].concat(),
        // To be refused, and said so.
        (false, true) => elsewhere,
        (false, false) => plain,
    }
}

/// Whether a host of a network can have the address (RFC 6890).
fn is_of_a_host(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !matches!(v4.octets()[0], 0 | 224..),
        IpAddr::V6(v6) => {
            let is_special = v6.is_unspecified() || v6.is_loopback() || v6.is_multicast();
            !is_special && v6.to_ipv4_mapped().is_none()
        }
    }
}

#[cfg(test)]
mod tests;
