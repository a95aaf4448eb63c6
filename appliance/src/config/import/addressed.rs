//! Names with an address: `address=/NAME/ADDRESS` of dnsmasq is for a name and all below it. There a name that has addresses of its
//! own, from a hosts file or a record, has those, and what is below it the others; here a wildcard ends at each name that exists
//! (RFC 4592 section 2.2.1), so each of them gets one of its own.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::path::Path;

use super::complete::HOSTS;
use super::lines::{FILE_BYTES_MAX, Line};
use super::names::{Names, wire, with_those_above};
use super::taken::Draft;
use crate::compile::hosts::parse_hosts;
use crate::compile::name;
use crate::compile::problem::{Notes, files_behind, read_text};
use crate::config::written::quoted;

/// An address of a name.
#[derive(Clone, Debug)]
pub struct Addressed {
    /// The name, as it is written.
    pub name: String,
    pub address: IpAddr,
    /// It is for what is below the name alone.
    pub is_below: bool,
    pub line: Line,
}

impl Addressed {
    const fn rtype(&self) -> &'static str {
        if self.address.is_ipv6() { "AAAA" } else { "A" }
    }
}

/// Names that are there, with the types that they have.
type Known = HashSet<(Vec<u8>, &'static str)>;

impl Draft {
    /// Makes their records.
    pub(super) fn complete_addressed(&mut self) {
        if self.addressed.is_empty() {
            return;
        }
        let known = self.known_names();
        let all = std::mem::take(&mut self.addressed);
        for addressed in &all {
            let Addressed { name, line, .. } = addressed;
            let is_own = |name| known.contains(&(name, addressed.rtype()));
            if wire(name).into_iter().any(is_own) {
                let why = "has an address of its own, which goes first; below it this one counts";
                self.listed.push(line.told(why));
            } else if !addressed.is_below {
                self.add_address(name, addressed);
            }
            self.add_address(&format!("*.{name}"), addressed);
        }
        let mut by_name: HashMap<Vec<u8>, Vec<&Addressed>> = HashMap::new();
        for addressed in &all {
            for name in wire(&addressed.name) {
                by_name.entry(name).or_default().push(addressed);
            }
        }
        for (name, is_there) in names_between(&known, &by_name) {
            let nearest = with_those_above(&name).find_map(|name| by_name.get(name));
            let text = name::display(&name);
            let text = text.strip_suffix('.').unwrap_or(&text);
            for addressed in nearest.into_iter().flatten() {
                if !is_there {
                    self.add_address(text, addressed);
                }
                self.add_address(&format!("*.{text}"), addressed);
            }
        }
        self.list_below(&all);
        self.addressed = all;
    }

    fn add_address(&mut self, owner: &str, addressed: &Addressed) {
        let record = format!("{owner} {} {}", addressed.rtype(), addressed.address);
        self.add("local", "records", quoted(&record), &addressed.line);
    }

    /// Lists what says something else of names below those with an address: a wildcard goes before it here.
    fn list_below(&mut self, all: &[Addressed]) {
        let addressed = all.iter().map(|of| (of.name.as_str(), of.line.clone()));
        let addressed = Names::of(addressed);
        let blocked = self.blocked.iter().map(|(name, _, line)| (name, line));
        let routed = self.groups.iter().flat_map(|group| &group.domains);
        let routed = routed.chain(&self.usual).map(|(name, line)| (name, line));
        let mut told = BTreeSet::new();
        for (text, line) in blocked.chain(routed) {
            for name in wire(text) {
                let above = name::parent(&name).and_then(|name| addressed.nearest(name));
                let why = above.map(|above| {
                    format!(
                        "{} has an address for all below a name above it, which goes first here",
                        above.place
                    )
                });
                told.extend(why.map(|why| line.told(&why)));
            }
        }
        self.listed.extend(told);
    }

    /// Names of the records and of the hosts files that can be read now.
    fn known_names(&self) -> Known {
        let mut known = Known::new();
        for (name, address) in self.hosts_names() {
            let rtype = if address.is_ipv6() { "AAAA" } else { "A" };
            known.insert((name::lower(&name), rtype));
        }
        for record in &self.records {
            let mut words = record.split_ascii_whitespace();
            let owner = words.next().unwrap_or_default();
            let rtype = words.find_map(|word| match word {
                "A" => Some("A"),
                "AAAA" => Some("AAAA"),
                _ => None,
            });
            if !owner.starts_with("*.") {
                let names = wire(owner).into_iter();
                known.extend(names.map(|name| (name, rtype.unwrap_or("other"))));
            }
        }
        known
    }

    fn hosts_names(&self) -> Vec<(Vec<u8>, IpAddr)> {
        let usual = (!self.without_hosts).then(|| HOSTS.to_owned());
        let domain = self.domain.as_deref().and_then(|text| wire(text).pop());
        let mut notes = Notes::default();
        let mut names = Vec::new();
        for path in usual.iter().chain(&self.hosts) {
            // Whoever checks the config is told of what cannot be read.
            let files = files_behind(Path::new(path), &mut notes).unwrap_or_default();
            for file in files {
                let text = read_text(&file, FILE_BYTES_MAX).unwrap_or_default();
                for host in parse_hosts(&file, &text, &mut notes) {
                    for name in host.names {
                        let is_plain = name::parent(&name).is_some_and(|parent| parent == [0]);
                        let label = name.get(1..name.len().saturating_sub(1));
                        let whole = domain.as_deref().zip(label).filter(|_| is_plain);
                        let whole = whole.and_then(|(domain, label)| name::child(label, domain));
                        names.extend(whole.map(|whole| (whole, host.address)));
                        names.push((name, host.address));
                    }
                }
            }
        }
        names
    }
}

/// Names below those with an address that exist, and whether each is there itself or only has names below it. In order.
fn names_between(
    known: &Known,
    addressed: &HashMap<Vec<u8>, Vec<&Addressed>>,
) -> Vec<(Vec<u8>, bool)> {
    let there: HashSet<&[u8]> = known.iter().map(|(name, _)| name.as_slice()).collect();
    let mut between: BTreeSet<(Vec<u8>, bool)> = BTreeSet::new();
    for name in &there {
        let is_below = |name: &&[u8]| !addressed.contains_key(*name);
        let below: Vec<&[u8]> = with_those_above(name).take_while(is_below).collect();
        // The last one has the name with an address above it.
        let has_address = with_those_above(name).any(|name| addressed.contains_key(name));
        let below = below.into_iter().filter(|_| has_address);
        between.extend(below.map(|name| (name.to_vec(), there.contains(name))));
    }
    between.into_iter().collect()
}
