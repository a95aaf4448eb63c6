//! Compiles local data to the image that `xdnsd_core::policy::local` reads.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use xdnsd_core::dns::rtype;
use xdnsd_core::hash::HashKey;
use xdnsd_core::policy::local::{NONE, flag};
use xdnsd_core::policy::name::Labels;
use xdnsd_core::policy::special::private_reverse_zone;

use super::hosts::{Host, LeaseFormat, parse_hosts, parse_leases};
use super::name;
use super::prefix::pointer_name;
use super::problem::{Notes, Problem, files_behind, read_text};
use super::rdata;
use super::table::TableBuilder;
use super::words;

/// Larger hosts and lease files are a mistake.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Highest TTL (RFC 2181 section 8).
const TTL_MAX_SECS: u32 = i32::MAX as u32;

/// Where local data comes from.
#[derive(Clone, Debug)]
pub struct LocalInput {
    /// Records as text: `router.lan A 192.168.1.1`, `x.lan 300 TXT "hello"`, `*.dev.lan AAAA fd00::1`.
    pub records: Vec<String>,
    /// Hosts files, or folders of them. One that is not there yet is noted and watched for.
    pub hosts: Vec<PathBuf>,
    /// DHCP lease files, or folders of them, likewise.
    pub leases: Vec<LeaseFile>,
    /// Zones that are answered from here alone.
    pub zones: Vec<String>,
    /// The domain that names of one label belong to: `nas` is `nas.lan` too, and the other way round.
    pub search_domain: Option<String>,
    /// Whether an address points back to its name without a PTR record being written.
    pub reverse: bool,
    /// TTL of records and hosts that say none, in seconds.
    pub ttl_secs: u32,
    /// TTL of leases, in seconds.
    pub lease_ttl_secs: u32,
}

/// A DHCP server's lease file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseFile {
    /// The file, or a folder of them.
    pub path: PathBuf,
    /// How it is written.
    pub format: LeaseFormat,
}

impl Default for LocalInput {
    fn default() -> Self {
        Self {
            records: Vec::new(),
            hosts: Vec::new(),
            leases: Vec::new(),
            zones: Vec::new(),
            search_domain: None,
            reverse: true,
            ttl_secs: 60,
            lease_ttl_secs: 10,
        }
    }
}

/// A record on its way into the image.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Record {
    rtype: u16,
    ttl_secs: u32,
    rdata: Vec<u8>,
}

/// What is known at one name, before it has a place in the image.
#[derive(Clone, Debug, Default)]
struct Node {
    flags: u16,
    has_wildcard: bool,
    records: Vec<Record>,
}

/// Collects local data and compiles it.
#[derive(Debug, Default)]
pub struct LocalBuilder {
    /// Names in the order in which they came, so that an image does not depend on chance.
    names: Vec<Vec<u8>>,
    nodes: HashMap<Vec<u8>, Node>,
    zones: Vec<Vec<u8>>,
    search_domain: Option<Vec<u8>>,
    /// Addresses and the names that they point back to; the first name of an address counts.
    pointers: Vec<(IpAddr, Vec<u8>, u32)>,
}

impl LocalBuilder {
    /// With a search domain and local zones.
    ///
    /// # Errors
    /// One of them is not a name.
    pub fn new(search_domain: Option<&str>, zones: &[String]) -> Result<Self, Problem> {
        let parse = |key: &str, text: &str| {
            name::parse(text).map_err(|error| Problem::of(key, format!("`{text}` {error}")))
        };
        let search_domain = search_domain
            .map(|text| parse("search_domain", text))
            .transpose()?;
        let zones: Result<Vec<_>, _> = zones.iter().map(|text| parse("zones", text)).collect();
        Ok(Self {
            zones: zones?,
            search_domain,
            ..Self::default()
        })
    }

    /// Adds a record as it is written in the config.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn add_text(&mut self, text: &str, default_ttl_secs: u32) -> Result<(), String> {
        let words = words::split(text)?;
        let (owner, mut rest) = words.split_first().ok_or("is empty")?;
        let owner = name::parse(owner).map_err(|error| format!("`{owner}` {error}"))?;
        let mut ttl_secs = default_ttl_secs;
        // TTL and class, in either order (RFC 1035 section 5.1).
        for _ in 0..2 {
            match rest {
                [word, behind @ ..] if word.eq_ignore_ascii_case("IN") => rest = behind,
                [word, behind @ ..]
                    if word.bytes().all(|byte| byte.is_ascii_digit()) && !word.is_empty() =>
                {
                    ttl_secs = parse_ttl(word)?;
                    rest = behind;
                }
                _ => break,
            }
        }
        let (word, rest) = rest.split_first().ok_or("has no type")?;
        let rtype =
            rdata::type_number(word).ok_or_else(|| format!("`{word}` is not a record type"))?;
        let rdata = rdata::parse(rtype, rest)
            .map_err(|what| format!("{} {what}", word.to_ascii_uppercase()))?;
        self.add_both_forms(
            &owner,
            Record {
                rtype,
                ttl_secs,
                rdata,
            },
        )
    }

    /// Adds a machine under each of its names. Its address points back to the first of them.
    ///
    /// # Errors
    /// A name is an alias already.
    pub fn add_host(&mut self, host: &Host, ttl_secs: u32) -> Result<(), String> {
        let (rtype, rdata) = match host.address {
            IpAddr::V4(address) => (rtype::A, address.octets().to_vec()),
            IpAddr::V6(address) => (rtype::AAAA, address.octets().to_vec()),
        };
        for name in &host.names {
            self.add_both_forms(
                name,
                Record {
                    rtype,
                    ttl_secs,
                    rdata: rdata.clone(),
                },
            )?;
        }
        Ok(())
    }

    /// Adds a record under its owner, and where the owner is one label, or one label below the search domain, under
    /// the other form of it too.
    fn add_both_forms(&mut self, owner: &[u8], record: Record) -> Result<(), String> {
        let other = self.other_form(owner);
        if is_wildcard(owner).is_none() {
            // The longer form is what an address points back to.
            let whole = other
                .iter()
                .map(Vec::as_slice)
                .find(|other| other.len() > owner.len())
                .unwrap_or(owner);
            self.add_pointer(whole.to_vec(), &record);
        }
        if let Some(other) = other {
            self.add(&other, record.clone())?;
        }
        self.add(owner, record)
    }

    fn other_form(&self, owner: &[u8]) -> Option<Vec<u8>> {
        let search_domain = self.search_domain.as_deref()?;
        let (label, parent) = cut_label(owner)?;
        if label == b"*" {
            None
        } else if parent == [0] && owner != search_domain {
            name::child(label, search_domain)
        } else if parent == search_domain {
            name::child(label, &[0])
        } else {
            None
        }
    }

    fn add_pointer(&mut self, owner: Vec<u8>, record: &Record) {
        let address = match record.rtype {
            rtype::A => record
                .rdata
                .first_chunk()
                .map(|&octets| IpAddr::V4(Ipv4Addr::from(octets))),
            rtype::AAAA => record
                .rdata
                .first_chunk()
                .map(|&octets: &[u8; 16]| IpAddr::V6(Ipv6Addr::from(octets))),
            _ => None,
        };
        // Lists of blocked names give these addresses to everything; nobody lives there.
        let address = address.filter(|address| !address.is_unspecified() && !address.is_loopback());
        self.pointers
            .extend(address.map(|address| (address, owner, record.ttl_secs)));
    }

    fn add(&mut self, owner: &[u8], record: Record) -> Result<(), String> {
        let node = self.node(owner);
        node.flags |= flag::EXISTS;
        let is_alias = |record: &Record| record.rtype == rtype::CNAME;
        if node
            .records
            .iter()
            .any(|known| known.rtype == record.rtype && known.rdata == record.rdata)
        {
            return Ok(());
        }
        // RFC 1034 section 3.6.2, RFC 2181 section 10.1.
        if !node.records.is_empty() && (is_alias(&record) || node.records.iter().any(is_alias)) {
            return Err(format!(
                "`{}` cannot be an alias (CNAME) and have other records",
                name::display(owner)
            ));
        }
        if node.records.len() >= usize::from(u16::MAX) {
            return Err(format!(
                "`{}` has more than 65535 records",
                name::display(owner)
            ));
        }
        node.records.push(record);
        Ok(())
    }

    fn node(&mut self, name: &[u8]) -> &mut Node {
        if !self.nodes.contains_key(name) {
            self.names.push(name.to_vec());
        }
        self.nodes.entry(name.to_vec()).or_default()
    }

    /// Makes PTR records of the addresses that have none written.
    pub fn add_pointers(&mut self) {
        for (address, target, ttl_secs) in std::mem::take(&mut self.pointers) {
            let owner = pointer_name(address);
            let has_pointer = self
                .nodes
                .get(&owner)
                .is_some_and(|node| !node.records.is_empty());
            if !has_pointer {
                let record = Record {
                    rtype: rtype::PTR,
                    ttl_secs,
                    rdata: target,
                };
                let added = self.add(&owner, record);
                debug_assert!(added.is_ok(), "the name had no records");
            }
        }
    }

    /// The image. Without names and zones it is empty.
    #[must_use]
    pub fn build(mut self, draw_key: impl FnMut() -> HashKey) -> Vec<u8> {
        if self.names.is_empty() && self.zones.is_empty() {
            return Vec::new();
        }
        self.mark_zones();
        self.mark_wildcards();
        self.mark_parents();
        self.mark_plain_names();
        self.emit(draw_key)
    }

    fn mark_zones(&mut self) {
        for zone in self.zones.clone() {
            self.node(&zone).flags |= flag::ZONE | flag::EXISTS;
        }
    }

    fn mark_wildcards(&mut self) {
        let parents: Vec<Vec<u8>> = self
            .names
            .iter()
            .filter_map(|name| Some(is_wildcard(name)?.to_vec()))
            .collect();
        for parent in parents {
            self.node(&parent).has_wildcard = true;
        }
    }

    /// The parents of every name exist as far up as the data around them is ours: to the apex of a local zone, to below
    /// the parent of a wildcard, to below the apex of a reverse zone of private addresses (RFC 4592 section 2.2.2,
    /// RFC 8020).
    fn mark_parents(&mut self) {
        for owner in self.names.clone() {
            let mut name = is_wildcard(&owner).unwrap_or(&owner);
            // Bound: a name has at most 127 parents.
            loop {
                if self.is_ours(name) {
                    self.node(name).flags |= flag::EXISTS;
                }
                match name::parent(name) {
                    Some(parent) => name = parent,
                    None => break,
                }
            }
        }
    }

    fn is_ours(&self, name: &[u8]) -> bool {
        let is_private = |labels: Labels<'_>| {
            private_reverse_zone(&labels).is_some_and(|zone| labels.count() > zone)
        };
        if Labels::new(name).is_some_and(is_private) {
            return true;
        }
        let has = |name: &[u8], what: fn(&Node) -> bool| self.nodes.get(name).is_some_and(what);
        let parents = std::iter::successors(name::parent(name), |name| name::parent(name));
        has(name, |node| node.flags & flag::ZONE != 0)
            || parents.into_iter().any(|name| {
                has(name, |node| {
                    node.flags & flag::ZONE != 0 || node.has_wildcard
                })
            })
    }

    fn mark_plain_names(&mut self) {
        for name in &self.names {
            let is_plain = name::parent(name).is_some_and(|parent| parent == [0]);
            let node = self
                .nodes
                .get_mut(name)
                .filter(|node| is_plain && node.flags & flag::ZONE == 0);
            if let Some(node) = node {
                node.flags |= flag::ADDRESSES_ONLY;
            }
        }
    }

    fn emit(&self, draw_key: impl FnMut() -> HashKey) -> Vec<u8> {
        let mut places: HashMap<&[u8], u32> = HashMap::new();
        let mut nodes = Vec::new();
        let mut table = TableBuilder::default();
        for name in &self.names {
            let at = nodes.len() as u32;
            places.insert(name, at);
            table.insert(name, at);
            emit_node(&mut nodes, &self.nodes[name]);
        }
        for name in self
            .names
            .iter()
            .filter(|name| self.nodes[*name].has_wildcard)
        {
            let wildcard = name::child(b"*", name)
                .and_then(|wildcard| places.get(wildcard.as_slice()).copied());
            let at = places[name.as_slice()] as usize + 4;
            nodes[at..][..4].copy_from_slice(&wildcard.unwrap_or(NONE).to_le_bytes());
        }
        let table = table.build(draw_key);
        let mut image = Vec::from((table.len() as u32).to_le_bytes());
        image.extend(table);
        image.extend(nodes);
        image
    }
}

fn emit_node(nodes: &mut Vec<u8>, node: &Node) {
    nodes.extend(node.flags.to_le_bytes());
    nodes.extend((node.records.len() as u16).to_le_bytes());
    nodes.extend(NONE.to_le_bytes());
    for record in &node.records {
        nodes.extend(record.rtype.to_le_bytes());
        nodes.extend((record.rdata.len() as u16).to_le_bytes());
        nodes.extend(record.ttl_secs.to_le_bytes());
        nodes.extend(&record.rdata);
    }
}

/// The parent of the wildcard `*.parent`.
fn is_wildcard(name: &[u8]) -> Option<&[u8]> {
    name.strip_prefix(b"\x01*")
}

fn cut_label(name: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&len, rest) = name.split_first()?;
    rest.split_at_checked(usize::from(len)).filter(|_| len > 0)
}

fn parse_ttl(word: &str) -> Result<u32, String> {
    let ttl = word.parse().ok().filter(|&ttl| ttl <= TTL_MAX_SECS);
    ttl.ok_or_else(|| format!("`{word}` is not a TTL; allowed: 0 to {TTL_MAX_SECS}"))
}

/// Reads and compiles local data. Records come first, then hosts, then leases: an address points back to the first name
/// that it was given. Lines and files that cannot be used are noted.
///
/// # Errors
/// A record of the config is wrong.
pub fn compile(
    input: &LocalInput,
    now_secs: Option<i64>,
    notes: &mut Notes,
    draw_key: impl FnMut() -> HashKey,
) -> Result<Vec<u8>, Problem> {
    let mut builder = LocalBuilder::new(input.search_domain.as_deref(), &input.zones)?;
    for text in &input.records {
        let wrong = |what| Problem::of("records", format!("`{text}`: {what}"));
        builder.add_text(text, input.ttl_secs).map_err(wrong)?;
    }
    for path in &input.hosts {
        for (file, text) in texts(path, notes) {
            let hosts = parse_hosts(&file, &text, notes);
            add_hosts(&mut builder, &file, &hosts, input.ttl_secs, notes);
        }
    }
    for LeaseFile { path, format } in &input.leases {
        for (file, text) in texts(path, notes) {
            let hosts = parse_leases(&file, &text, *format, now_secs, notes);
            add_hosts(&mut builder, &file, &hosts, input.lease_ttl_secs, notes);
        }
    }
    if input.reverse {
        builder.add_pointers();
    }
    Ok(builder.build(draw_key))
}

/// The files behind a path with their text.
fn texts(path: &Path, notes: &mut Notes) -> Vec<(PathBuf, String)> {
    let mut texts = Vec::new();
    let found = files_behind(path, notes);
    for file in notes.or_fail(found).unwrap_or_default() {
        let text = notes.or_fail(read_text(&file, FILE_BYTES_MAX));
        texts.extend(text.map(|text| (file, text)));
    }
    texts
}

fn add_hosts(
    builder: &mut LocalBuilder,
    file: &Path,
    hosts: &[Host],
    ttl_secs: u32,
    notes: &mut Notes,
) {
    for host in hosts {
        notes.note_end(host.ends_secs);
        if let Err(what) = builder.add_host(host, ttl_secs) {
            notes.push(Problem::of(file.display().to_string(), what));
        }
    }
}

#[cfg(test)]
mod tests;
