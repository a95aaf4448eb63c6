//! Names below others. Of dnsmasq's lines that of the longest name counts, whatever it says; here a blocked name goes before a group
//! of servers, and one that is allowed before both.

use std::collections::HashMap;
use std::iter;

use super::addressed::Addressed;
use super::lines::Line;
use super::taken::{Blocked, Draft, Group};
use crate::compile::name;
use crate::compile::routes::parse_suffix;
use crate::config::UpstreamServer;
use crate::config::written::quoted;

/// What is said of names, in wire form and lower case.
pub struct Names<T>(HashMap<Vec<u8>, T>);

impl<T> Names<T> {
    /// Of a name that stands here twice the first counts. What is no name is refused elsewhere.
    pub fn of<'n>(all: impl Iterator<Item = (&'n str, T)>) -> Self
    where
        T: Clone,
    {
        let mut names = HashMap::new();
        for (text, said) in all {
            for name in wire(text) {
                names.entry(name).or_insert_with(|| said.clone());
            }
        }
        Self(names)
    }

    /// What is said of the nearest of this name and those above it.
    pub fn nearest(&self, name: &[u8]) -> Option<&T> {
        with_those_above(name).find_map(|name| self.0.get(name))
    }
}

/// The names that a text stands for: several for some prefixes.
pub fn wire(text: &str) -> Vec<Vec<u8>> {
    parse_suffix(text).unwrap_or_default()
}

/// A name and each that it is below, but for the root.
pub fn with_those_above(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    let all = iter::successors(Some(name), |name| {
        name.get(1 + usize::from(*name.first()?)..)
    });
    // The root has one byte.
    all.take_while(|name| name.len() > 1)
}

/// How a name is blocked: by which answer, and whether only what is below it is.
type HowBlocked = (Blocked, bool);

/// True if a name would be blocked whose servers dnsmasq asks: they stand for a longer name than the block does, or for the same
/// one, where they go before NXDOMAIN and behind addresses.
fn is_let_through(blocked: &Names<HowBlocked>, name: &[u8]) -> bool {
    let mut all = with_those_above(name);
    let itself = all.next().and_then(|name| blocked.0.get(name));
    match itself {
        Some((Blocked::Zero, false)) => false,
        Some((Blocked::Nxdomain, false)) => true,
        Some((_, true)) | None => all.any(|name| blocked.0.contains_key(name)),
    }
}

impl Draft {
    /// Makes a group of the default group's servers, for names below those of other servers and below domains that end here.
    pub(super) fn complete_usual(&mut self) {
        let usual = self.usual.clone();
        let routed = self.groups.iter().flat_map(|group| &group.domains);
        let routed = routed.map(|(name, line)| (name.as_str(), Some(line.clone())));
        let zones = self.zones.iter().map(|zone| (zone.as_str(), None));
        let others = Names::of(routed.chain(zones));
        let blocked = self.how_blocked();
        let mut domains: Vec<(String, Line)> = Vec::new();
        for (text, line) in usual {
            let mut is_needed = false;
            for name in wire(&text) {
                let is_blocked = is_let_through(&blocked, &name);
                if is_blocked {
                    self.allowed.push((name.clone(), line.clone()));
                }
                is_needed |= is_blocked;
                match (others.0.get(&name), others.nearest(&name)) {
                    (Some(Some(other)), _) => {
                        let why = format!("{} has other servers for it", other.place);
                        self.listed.push(line.told(&why));
                        is_needed = true;
                    }
                    (_, Some(_)) => {
                        domains.push((text.clone(), line.clone()));
                        is_needed = true;
                    }
                    (_, None) => {}
                }
            }
            if !is_needed {
                let why = "changes nothing: what is of no other group is asked of the default one";
                self.listed.push(line.told(why));
            }
        }
        let Some((name, line)) = domains.first().cloned() else {
            return;
        };
        let usual = self.default_group().clone();
        let servers = usual.servers.into_iter();
        self.groups.push(Group {
            name,
            servers: servers.map(|(server, _)| (server, line.clone())).collect(),
            domains,
            resolv_file: usual
                .resolv_file
                .map(|(path, _)| (path, Some(line.clone()))),
            trusted: usual.trusted.map(|_| line),
        });
    }

    /// Lets names through that are blocked, but for which servers are named.
    pub(super) fn allow_routed(&mut self) {
        let blocked = self.how_blocked();
        for group in &self.groups {
            let is_asked = |(server, _): &(String, Line)| server.parse::<UpstreamServer>().is_ok();
            if !group.servers.iter().any(is_asked) {
                continue;
            }
            for (text, line) in &group.domains {
                let names = wire(text).into_iter();
                let names = names.filter(|name| is_let_through(&blocked, name));
                self.allowed.extend(names.map(|name| (name, line.clone())));
            }
        }
        let allowed = std::mem::take(&mut self.allowed);
        for (name, line) in &allowed {
            let text = name::display(name);
            let text = text.strip_suffix('.').unwrap_or(&text);
            self.add("filter", "allow", quoted(text), line);
        }
        let allowed = Names(allowed.into_iter().collect());
        self.without_blocked(&allowed);
    }

    /// Takes out what is let through.
    fn without_blocked(&mut self, allowed: &Names<Line>) {
        let blocked = std::mem::take(&mut self.blocked);
        for (text, what, line) in blocked {
            let names = wire(&text);
            match names.iter().find_map(|name| allowed.nearest(name)) {
                Some(other) => {
                    let why = format!(
                        "{} has servers for it, or for a name above it: filter.allow goes first",
                        other.place
                    );
                    self.listed.push(line.told(&why));
                }
                None => self.blocked.push((text, what, line)),
            }
        }
    }

    fn how_blocked(&self) -> Names<HowBlocked> {
        let blocked = self.blocked.iter();
        // Of a name that has several answers, addresses go first.
        let (zeros, others): (Vec<_>, Vec<_>) =
            blocked.partition(|(_, what, _)| *what == Blocked::Zero);
        let all = zeros.into_iter().chain(others);
        Names::of(all.map(|(text, what, _)| (text.as_str(), (*what, text.starts_with("*.")))))
    }

    /// Says once what is different for names with an address.
    pub(super) fn list_other_types(&mut self) {
        let zones = self.zones.iter().map(|zone| (zone.as_str(), ()));
        let zones = Names::of(zones);
        let is_open = |of: &&Addressed| {
            let names = wire(&of.name);
            names.iter().any(|name| zones.nearest(name).is_none())
        };
        let first = self.addressed.iter().find(is_open);
        let why = "other types of names with an address are not asked upstream here, and an address ends at a name that a lease or a \
                   later line of a hosts file has below it";
        let told = first.map(|of| of.line.told(why));
        self.listed.extend(told);
    }
}
