//! Claims of DHCP clients to names. A client chooses its own name, so it gets only names that no source of more trust mentions.
//!
//! A client's name has one label. It exists by itself, and directly below the search domain or a local zone.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;

use xdnsd_core::dns::rtype;
use xdnsd_core::policy::special::{self, SpecialUse};
use xdnsd_core::policy::{Labels, Policy};

use super::client::Client;
use super::hosts::Lease;
use super::links::Links;
use super::name;

/// Names of records and hosts files.
pub(super) trait ClaimedNames {
    /// Rules for names of leases.
    fn rules(&self) -> &LeaseRules;

    /// Checks whether a record or a hosts file has the name. `true` if it says nothing but the same address.
    ///
    /// # Errors
    /// The source that has it.
    fn owner(&self, name: &[u8], address: IpAddr) -> Result<bool, Refusal>;
}

/// Sources of a config that claim names, besides local data.
#[derive(Clone, Copy, Debug)]
pub struct Others<'p> {
    /// Special-use names, lists and routes.
    pub policy: &'p Policy<'p>,
    /// Facts from the machine's devices about addresses that no client has.
    pub links: &'p Links,
}

impl Others<'_> {
    /// No other sources.
    pub const NONE: Self = Self {
        policy: &Policy::OPEN,
        links: &Links::NONE,
    };

    /// Reason if another source has the name, or a list blocks it for this type. The root's route is for all other names and does not
    /// count.
    pub(super) fn refusal(&self, name: &[u8], qtype: u16) -> Option<Refusal> {
        let labels = Labels::new(name)?;
        let route = self.policy.routes.lookup(&labels);
        if route.is_some_and(|route| route.depth > 0) {
            return Some(Refusal::Routed);
        }
        let is_blocked = self.policy.lists.blocked(&labels, qtype).is_some();
        is_blocked.then_some(Refusal::Blocked)
    }

    /// Family of special-use names that it belongs to, if switched on.
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
    /// The address belongs to no host: loopback, multicast, broadcast, unspecified or reserved.
    NoAddress,
    /// It does not begin with a letter or a digit.
    NotAHost,
    /// It is a number, which would be parsed as an address.
    Number,
    /// It has dots, and is not directly below the search domain or a local zone.
    Elsewhere,
    /// The config lists it as never leased.
    Never,
    /// It is a local zone, or the search domain.
    Zone,
    /// It is a special-use name.
    Special,
    /// A record or a hosts file has it.
    Exists {
        /// File and line.
        place: String,
        /// Its address, if any.
        address: Option<IpAddr>,
    },
    /// A wildcard of the config covers it.
    Wildcard(String),
    /// A list blocks it.
    Blocked,
    /// An upstream group is configured for it.
    Routed,
    /// Another client has it.
    Lease(IpAddr),
    /// A client has it over IPv4 of which nothing says that it is the same machine.
    Stranger(IpAddr),
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
            Self::Stranger(address) => {
                return write!(
                    formatter,
                    "the lease of {address} has it, and neither DUID nor MAC address says that both are of one client"
                );
            }
        };
        formatter.write_str(text)
    }
}

/// Forms of a client's name, each in the letter case that the client writes.
pub(super) type Forms = Vec<Vec<u8>>;

/// Domains in which leases name hosts, and rules of the config for leases.
#[derive(Debug, Default)]
pub(super) struct LeaseRules {
    pub search_domain: Option<Vec<u8>>,
    pub zones: Vec<Vec<u8>>,
    pub never: Vec<Vec<u8>>,
}

impl LeaseRules {
    /// Forms of a name that a client asks for.
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

    /// Checks that the config does not keep the name from all leases.
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
        // A zone of the config may have hosts, even if it is a special-use zone for private use.
        match others.special(name) {
            Some(kind) if parent == [0] || !kind.is_for_private_use() => Err(Refusal::Special),
            Some(_) | None => Ok(()),
        }
    }
}

fn is_reverse(zone: &[u8]) -> bool {
    zone.ends_with(b"\x07in-addr\x04arpa\0") || zone.ends_with(b"\x03ip6\x04arpa\0")
}

/// Names of services begin with an underscore (RFC 8552), numbers are parsed as addresses (`inet_aton`, browsers).
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

/// Names held by leases, to be decided in the order of trust: IPv4 first, then by their ends, the last one first. Of two clients
/// with one name the later one gets it, as in dnsmasq, since its lease ends last. An IPv6 lease gets the name of an IPv4 lease only
/// if both are of one machine: clients try IPv6 addresses first.
#[derive(Debug, Default)]
pub(super) struct Claims {
    /// Holders by name and family: IPv4 or IPv6.
    holders: HashMap<(Vec<u8>, bool), Holder>,
}

/// The client that has a name.
#[derive(Debug)]
struct Holder {
    client: Client,
    /// At least one.
    addresses: Vec<IpAddr>,
}

impl Claims {
    /// Forms of the name that the lease gets; none if a record or a hosts file gives the same address already.
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
        // Apart from our own addresses these are the first and last ones of networks.
        if !is_of_a_host(lease.address) || martian_sources.contains(&lease.address) {
            return Err(Refusal::NoAddress);
        }
        let qtype = match lease.address {
            IpAddr::V4(_) => rtype::A,
            IpAddr::V6(_) => rtype::AAAA,
        };
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
            if let Some(refusal) = others.refusal(&form, qtype) {
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
        for (form, is_ipv4) in &keys {
            let holder = |is_ipv4: bool| self.holders.get(&(form.clone(), is_ipv4));
            match holder(*is_ipv4) {
                Some(known) if known.addresses.contains(&lease.address) => continue,
                Some(known) if !known.client.is(&lease.client) => {
                    return Err(Refusal::Lease(known.addresses[0]));
                }
                _ => {}
            }
            if let Some(other) = holder(!is_ipv4)
                && !other.client.is_same_machine(&lease.client)
            {
                return Err(Refusal::Stranger(other.addresses[0]));
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

/// Names of a lease's line that are to be decided. Of several, as in a hosts file, those with dots count only if all of them
/// are hosts of our domains: the server writes a client called `a.b` as `a.b.lan`.
pub(super) fn names_of<'l>(lease: &'l Lease, rules: &LeaseRules) -> Vec<&'l [u8]> {
    let has_dots = |name: &&[u8]| name::parent(name).is_some_and(|parent| parent != [0]);
    let names = lease.names.iter().map(Vec::as_slice);
    let (dotted, plain): (Vec<_>, Vec<_>) = names.partition(has_dots);
    let mut elsewhere = dotted.clone();
    elsewhere.retain(|name| rules.forms(name).is_err());
    match (elsewhere.is_empty(), plain.is_empty()) {
        (true, _) => [dotted, plain].concat(),
        // It will be refused, with a note.
        (false, true) => elsewhere,
        (false, false) => plain,
    }
}

/// True if a host of a network can have the address (RFC 6890).
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
