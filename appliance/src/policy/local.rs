//! Compiles local data to the image that `xdnsd_core::policy::local` reads.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use xdnsd_core::dns::rtype;
use xdnsd_core::policy::hash::HashKey;
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
        if let Err(what) = builder.add_host(host, ttl_secs) {
            notes.push(Problem::of(file.display().to_string(), what));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::table::random_key;
    use crate::policy::testing::Folder;
    use xdnsd_core::policy::local::{CHAIN_MAX, End, Local, LocalData};

    const NS: u16 = rtype::NS;
    const TXT: u16 = rtype::TXT;

    fn input(records: &[&str]) -> LocalInput {
        let records = records.iter().map(|&text| text.into()).collect();
        LocalInput {
            records,
            zones: vec!["lan".into()],
            ..LocalInput::default()
        }
    }

    fn build(input: &LocalInput) -> Vec<u8> {
        let mut notes = Notes::default();
        let image = compile(input, None, &mut notes, random_key).expect("compiled");
        assert_eq!(notes, Notes::default());
        image
    }

    /// The whole answer as text: the records, then how it ends.
    fn ask(image: &[u8], question: &str, qtype: u16) -> String {
        let data = LocalData::view(image).expect("local data");
        let name = name::parse(question).expect("a name");
        let mut told = String::new();
        let end = data.resolve(
            &Labels::new(&name).expect("well-formed"),
            qtype,
            |owner, record| {
                let rdata = match record.rtype {
                    rtype::A => record
                        .rdata
                        .iter()
                        .map(u8::to_string)
                        .collect::<Vec<_>>()
                        .join("."),
                    rtype::CNAME | rtype::PTR => name::display(record.rdata),
                    _ => format!("{} bytes", record.rdata.len()),
                };
                let (owner, rtype, ttl) = (name::display(owner), record.rtype, record.ttl_secs);
                told.push_str(&format!("{owner} {ttl} {rtype} {rdata}; "));
            },
        );
        let end = match end {
            End::Records => "records".into(),
            End::Upstream(name) => format!("ask {}", name::display(name)),
            End::Nodata(zone) => format!("nodata {}", zone.map_or("-".into(), name::display)),
            End::Nxdomain(zone) => format!("nxdomain {}", name::display(zone)),
            End::Endless => "endless".into(),
        };
        told + &end
    }

    #[test]
    fn records_are_answered_in_their_order_and_with_their_ttl() {
        let image = build(&input(&[
            "r.lan A 192.168.1.9",
            "r.lan 300 IN A 192.168.1.1",
            "R.lan. IN 5 TXT hi",
        ]));
        let both = "r.lan. 60 1 192.168.1.9; r.lan. 300 1 192.168.1.1; records";
        assert_eq!(ask(&image, "r.lan", rtype::A), both);
        assert_eq!(ask(&image, "r.lan", TXT), "r.lan. 5 16 3 bytes; records");
        assert_eq!(ask(&image, "r.lan", rtype::AAAA), "nodata lan.");
    }

    #[test]
    fn a_local_zone_is_answered_to_its_end() {
        let image = build(&input(&["a.b.c.lan A 192.168.1.1"]));
        assert_eq!(ask(&image, "x.lan", rtype::A), "nxdomain lan.");
        assert_eq!(ask(&image, "y.x.lan", rtype::A), "nxdomain lan.");
        assert_eq!(
            ask(&image, "b.c.lan", rtype::A),
            "nodata lan.",
            "a parent exists"
        );
        assert_eq!(ask(&image, "c.lan", rtype::A), "nodata lan.");
        assert_eq!(ask(&image, "lan", NS), "nodata lan.", "the apex exists");
        assert_eq!(ask(&image, "x.b.c.lan", rtype::A), "nxdomain lan.");
        assert_eq!(ask(&image, "x.a.b.c.lan", rtype::A), "nxdomain lan.");
        assert_eq!(ask(&image, "xlan", rtype::A), "ask xlan.");
    }

    #[test]
    fn outside_local_zones_only_names_with_data_are_ours() {
        let image = build(&input(&["a.b.example.org A 192.0.2.1"]));
        assert_eq!(ask(&image, "a.b.example.org", rtype::AAAA), "nodata -");
        assert_eq!(ask(&image, "b.example.org", rtype::A), "ask b.example.org.");
        assert_eq!(
            ask(&image, "x.a.b.example.org", rtype::A),
            "ask x.a.b.example.org."
        );
        assert_eq!(
            ask(&image, "c.b.example.org", rtype::A),
            "ask c.b.example.org."
        );
    }

    #[test]
    fn the_deepest_zone_is_told() {
        let mut input = input(&["a.sub.lan A 192.168.1.1"]);
        input.zones.push("sub.lan".into());
        let image = build(&input);
        assert_eq!(ask(&image, "x.sub.lan", rtype::A), "nxdomain sub.lan.");
        assert_eq!(ask(&image, "x.lan", rtype::A), "nxdomain lan.");
        assert_eq!(ask(&image, "sub.lan", rtype::A), "nodata sub.lan.");
    }

    #[test]
    fn aliases_are_followed_while_their_targets_are_local() {
        let image = build(&input(&[
            "www.lan CNAME web.lan",
            "web.lan 30 CNAME nas.lan",
            "nas.lan A 192.168.1.2",
            "out.lan CNAME www.example.org",
            "gone.lan CNAME no.lan",
        ]));
        let chain = "www.lan. 60 5 web.lan.; web.lan. 30 5 nas.lan.; ";
        assert_eq!(
            ask(&image, "www.lan", rtype::A),
            format!("{chain}nas.lan. 60 1 192.168.1.2; records")
        );
        assert_eq!(ask(&image, "www.lan", TXT), format!("{chain}nodata lan."));
        assert_eq!(
            ask(&image, "www.lan", rtype::CNAME),
            "www.lan. 60 5 web.lan.; records"
        );
        assert_eq!(
            ask(&image, "out.lan", rtype::A),
            "out.lan. 60 5 www.example.org.; ask www.example.org."
        );
        assert_eq!(
            ask(&image, "gone.lan", rtype::A),
            "gone.lan. 60 5 no.lan.; nxdomain lan."
        );
    }

    #[test]
    fn aliases_in_a_circle_end() {
        let image = build(&input(&[
            "a.lan CNAME b.lan",
            "b.lan CNAME a.lan",
            "self.lan CNAME self.lan",
        ]));
        assert!(ask(&image, "a.lan", rtype::A).ends_with("endless"));
        assert!(ask(&image, "self.lan", rtype::A).ends_with("endless"));
        let chain: Vec<String> = (0..CHAIN_MAX + 1)
            .map(|n| format!("c{n}.lan CNAME c{}.lan", n + 1))
            .collect();
        let chain: Vec<&str> = chain.iter().map(String::as_str).collect();
        let last = format!("c{}.lan A 192.168.1.1", CHAIN_MAX + 1);
        let image = build(&input(&[&chain[..], &[last.as_str()]].concat()));
        assert!(
            ask(&image, "c1.lan", rtype::A).ends_with("records"),
            "as many steps as allowed"
        );
        assert!(
            ask(&image, "c0.lan", rtype::A).ends_with("endless"),
            "one more"
        );
    }

    /// RFC 4592 section 2.2.1, with its names.
    #[test]
    fn wildcards_cover_what_does_not_exist_below_their_parent() {
        let image = build(&input(&[
            "*.dev.lan A 192.168.1.1",
            "*.dev.lan TXT wild",
            "sub.*.dev.lan TXT literal",
            "host1.dev.lan A 192.168.1.2",
            "_ssh._tcp.host1.dev.lan SRV 0 0 22 host1.dev.lan",
        ]));
        assert_eq!(
            ask(&image, "x.dev.lan", rtype::A),
            "x.dev.lan. 60 1 192.168.1.1; records"
        );
        assert_eq!(
            ask(&image, "y.x.dev.lan", rtype::A),
            "y.x.dev.lan. 60 1 192.168.1.1; records"
        );
        assert_eq!(ask(&image, "x.dev.lan", rtype::AAAA), "nodata lan.");
        assert_eq!(
            ask(&image, "host1.dev.lan", TXT),
            "nodata lan.",
            "it exists"
        );
        assert_eq!(
            ask(&image, "_telnet._tcp.host1.dev.lan", rtype::SRV),
            "nxdomain lan.",
            "_tcp.host1 exists"
        );
        assert_eq!(
            ask(&image, "x.host1.dev.lan", rtype::A),
            "nxdomain lan.",
            "host1 exists"
        );
        assert_eq!(
            ask(&image, "dev.lan", rtype::A),
            "nodata lan.",
            "the parent is not covered"
        );
        assert_eq!(
            ask(&image, "*.dev.lan", rtype::A),
            "*.dev.lan. 60 1 192.168.1.1; records",
            "asked for by its name"
        );
        assert_eq!(
            ask(&image, "x.*.dev.lan", rtype::A),
            "nxdomain lan.",
            "below the wildcard itself"
        );
    }

    #[test]
    fn wildcards_outside_local_zones_leave_their_parent_alone() {
        let image = build(&input(&[
            "*.dev.example.org A 192.0.2.1",
            "a.b.dev.example.org A 192.0.2.2",
        ]));
        assert_eq!(
            ask(&image, "x.dev.example.org", rtype::A),
            "x.dev.example.org. 60 1 192.0.2.1; records"
        );
        assert_eq!(
            ask(&image, "dev.example.org", rtype::A),
            "ask dev.example.org."
        );
        assert_eq!(
            ask(&image, "b.dev.example.org", rtype::A),
            "nodata -",
            "between our own names"
        );
        let image = build(&input(&["*.w.lan CNAME nas.lan", "nas.lan A 192.168.1.2"]));
        assert_eq!(
            ask(&image, "q.w.lan", rtype::A),
            "q.w.lan. 60 5 nas.lan.; nas.lan. 60 1 192.168.1.2; records"
        );
    }

    #[test]
    fn names_of_one_label_belong_to_the_search_domain() {
        let mut input = input(&[
            "nas A 192.168.1.2",
            "tv.lan A 192.168.1.3",
            "a.b.lan A 192.168.1.4",
        ]);
        input.search_domain = Some("lan".into());
        let image = build(&input);
        for name in ["nas", "nas.lan"] {
            assert_eq!(
                ask(&image, name, rtype::A),
                format!("{name}. 60 1 192.168.1.2; records")
            );
        }
        assert_eq!(ask(&image, "tv", rtype::A), "tv. 60 1 192.168.1.3; records");
        assert_eq!(
            ask(&image, "b", rtype::A),
            "ask b.",
            "only hosts right below the search domain"
        );
        assert_eq!(
            ask(&image, "2.1.168.192.in-addr.arpa", rtype::PTR),
            "2.1.168.192.in-addr.arpa. 60 12 nas.lan.; records"
        );
    }

    #[test]
    fn a_plain_name_hides_a_top_level_domain_for_addresses_only() {
        let image = build(&input(&["dev A 192.168.1.2"]));
        assert_eq!(ask(&image, "dev", rtype::AAAA), "nodata -");
        assert_eq!(ask(&image, "dev", rtype::DS), "ask dev.");
        assert_eq!(ask(&image, "web.dev", rtype::A), "ask web.dev.");
        assert_eq!(
            ask(&image, "lan", rtype::DS),
            "nodata lan.",
            "a local zone is ours altogether"
        );
    }

    #[test]
    fn addresses_point_back_to_their_first_name() {
        let records = [
            "nas.lan A 192.168.1.2",
            "alias.lan A 192.168.1.2",
            "nas.lan AAAA fd00::2",
            "*.w.lan A 192.168.1.3",
        ];
        let zero = [
            "ads.example A 0.0.0.0",
            "own.lan A 192.168.1.4",
            "4.1.168.192.in-addr.arpa PTR written.lan",
        ];
        let mut input = input(&[&records[..], &zero[..]].concat());
        let image = build(&input);
        let pointer = |image: &[u8], address: &str| {
            let owner = pointer_name(address.parse().expect("an address"));
            let told = ask(image, &name::display(&owner), rtype::PTR);
            told.rsplit_once(" 12 ")
                .map_or(told.clone(), |(_, rest)| rest.into())
        };
        assert_eq!(pointer(&image, "192.168.1.2"), "nas.lan.; records");
        assert_eq!(pointer(&image, "fd00::2"), "nas.lan.; records");
        assert_eq!(pointer(&image, "192.168.1.4"), "written.lan.; records");
        assert_eq!(
            pointer(&image, "192.168.1.3"),
            "ask 3.1.168.192.in-addr.arpa.",
            "nobody's own"
        );
        assert_eq!(pointer(&image, "0.0.0.0"), "ask 0.0.0.0.in-addr.arpa.");
        assert_eq!(
            ask(&image, "1.168.192.in-addr.arpa", rtype::PTR),
            "nodata -",
            "a parent in a private zone exists"
        );
        assert_eq!(
            ask(&image, "168.192.in-addr.arpa", rtype::PTR),
            "ask 168.192.in-addr.arpa.",
            "the zone is special"
        );
        input.reverse = false;
        assert_eq!(
            pointer(&build(&input), "192.168.1.2"),
            "ask 2.1.168.192.in-addr.arpa."
        );
    }

    #[test]
    fn hosts_and_leases_are_read_and_their_faults_noted() {
        let folder = Folder::new();
        let hosts = folder.write("hosts", "192.168.1.2 nas\n192.168.1.2 nas\nbad line\n");
        let leases = folder.write(
            "leases",
            "0 02:00:00:00:00:01 192.168.1.7 phone *\n0 m 192.168.1.8 www *\n",
        );
        let mut input = input(&["www.lan CNAME nas.lan"]);
        input.search_domain = Some("lan".into());
        input.hosts = vec![hosts.clone(), folder.path().join("later")];
        input.leases = vec![LeaseFile {
            path: leases.clone(),
            format: LeaseFormat::Dnsmasq,
        }];
        let mut notes = Notes::default();
        let image = compile(&input, None, &mut notes, random_key).expect("compiled");
        assert_eq!(
            ask(&image, "nas.lan", rtype::A),
            "nas.lan. 60 1 192.168.1.2; records"
        );
        assert_eq!(
            ask(&image, "phone.lan", rtype::A),
            "phone.lan. 10 1 192.168.1.7; records"
        );
        assert_eq!(
            ask(&image, "www.lan", rtype::CNAME),
            "www.lan. 60 5 nas.lan.; records",
            "the config wins"
        );
        let expected = [
            format!("{}:3: `bad` is not an address", hosts.display()),
            format!("{}: is not there", folder.path().join("later").display()),
            format!(
                "{}: `www.lan.` cannot be an alias (CNAME) and have other records",
                leases.display()
            ),
        ];
        let told: Vec<String> = notes.first.iter().map(ToString::to_string).collect();
        assert_eq!(told, expected);
    }

    #[test]
    fn a_folder_of_hosts_files_is_read_but_for_hidden_files() {
        let folder = Folder::new();
        folder.write("a", "192.168.1.2 a.lan\n");
        folder.write("b~", "192.168.1.2 b.lan\n");
        folder.write(".c", "192.168.1.2 c.lan\n");
        let image = build(&LocalInput {
            hosts: vec![folder.path().into()],
            ..input(&[])
        });
        assert!(ask(&image, "a.lan", rtype::A).ends_with("records"));
        for hidden in ["b.lan", "c.lan"] {
            assert_eq!(ask(&image, hidden, rtype::A), "nxdomain lan.");
        }
    }

    #[test]
    fn records_that_are_wrong_say_why() {
        let cases = [
            ("", "is empty"),
            ("a.lan", "has no type"),
            ("a.lan 60 IN", "has no type"),
            ("a.lan 4294967296 A 192.0.2.1", "is not a TTL"),
            ("a.lan B 192.0.2.1", "`B` is not a record type"),
            ("a.lan A", "A takes one address"),
            ("a..lan A 192.0.2.1", "empty label"),
            ("a.lan TXT \"x", "quote"),
        ];
        for (record, part) in cases {
            let error = compile(&input(&[record]), None, &mut Notes::default(), random_key)
                .expect_err("wrong")
                .to_string();
            assert!(
                error.starts_with("records: ") && error.contains(part),
                "{error}"
            );
        }
        let both = input(&["a.lan A 192.0.2.1", "a.lan CNAME b.lan"]);
        assert!(compile(&both, None, &mut Notes::default(), random_key).is_err());
        let zone = LocalInput {
            zones: vec!["a..b".into()],
            ..LocalInput::default()
        };
        let error = compile(&zone, None, &mut Notes::default(), random_key)
            .expect_err("wrong")
            .to_string();
        assert_eq!(error, "zones: `a..b` has an empty label");
    }

    #[test]
    fn an_image_cut_or_changed_anywhere_is_survived() {
        let image = build(&input(&[
            "*.dev.lan A 192.168.1.1",
            "www.lan CNAME nas.lan",
            "nas.lan A 192.168.1.2",
        ]));
        let ask_all = |image: &[u8]| {
            let Ok(data) = LocalData::view(image) else {
                return;
            };
            for question in ["x.dev.lan", "www.lan", "nas.lan", "no.lan", "example.org"] {
                let name = name::parse(question).expect("a name");
                let _ = data.resolve(
                    &Labels::new(&name).expect("well-formed"),
                    rtype::A,
                    |_, _| {},
                );
            }
        };
        for at in 0..image.len() {
            ask_all(&image[..at]);
            for byte in [0, 1, 0x7f, 0x80, 0xff, !image[at]] {
                let mut changed = image.clone();
                changed[at] = byte;
                ask_all(&changed);
            }
        }
    }

    #[test]
    fn nothing_is_an_empty_image() {
        let image = compile(
            &LocalInput::default(),
            None,
            &mut Notes::default(),
            random_key,
        )
        .expect("compiled");
        assert_eq!(image.len(), 0);
        assert!(matches!(
            LocalData::view(&image)
                .expect("local data")
                .lookup(&Labels::new(b"\x01a\0").expect("well-formed"), rtype::A),
            Local::Unknown
        ));
    }
}
