//! Compiles local data to the image that `xdnsd_core::policy::local` reads.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use xdnsd_abi::hash::HashKey;
use xdnsd_core::dns::rtype;
use xdnsd_core::policy::local::flag;
use xdnsd_core::policy::name::Labels;

use super::claims::{ClaimedNames, Claims, LeaseRules, Others, Refusal, names_of};
use super::hosts::{Host, Lease, LeaseFormat, parse_hosts, parse_leases};
use super::name::{self, cut_label};
use super::prefix::pointer_name;
use super::problem::{Notes, Problem, files_behind, read_text};
use super::rdata;
use super::zonefile;
use node::{Node, NodeRecord, RecordSource};

mod aliases;
mod crowd;
mod image;
mod node;
mod origin;

pub use origin::{GivenRecord, Origin};

/// Maximum size of hosts and lease files, in bytes; a larger one is a mistake.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Maximum length of a file whose text is kept, in bytes, for use when it cannot be read.
const LAST_GOOD_BYTES_MAX: usize = 1 << 20;
/// Highest TTL (RFC 2181 section 8).
const TTL_MAX_SECS: u32 = i32::MAX as u32;
/// TTL of denials, in seconds, when there are hosts files: a name may be new at the next query.
const HOSTS_DENIAL_TTL_SECS: u32 = 60;
/// Names that no lease gets: the machine itself, and names by which programs and people look for central services. Windows
/// looks for `wpad` and `isatap` by itself; its own DNS server does not serve them either.
pub const NEVER_LEASED: [&str; 13] = [
    "localhost",
    "localdomain",
    "localhost4",
    "localhost6",
    "ip6-localhost",
    "ip6-loopback",
    "broadcasthost",
    "wpad",
    "isatap",
    "router",
    "gateway",
    "dns",
    "proxy",
];
/// Sources of local data.
#[derive(Clone, Debug)]
pub struct LocalInput {
    /// Records in presentation format: `router.lan A 192.168.1.1`, `x.lan 300 TXT "hello"`, `*.dev.lan AAAA fd00::1`.
    pub records: Vec<String>,
    /// Hosts files, or folders of them. A missing one is noted and watched for.
    pub hosts: Vec<PathBuf>,
    /// DHCP lease files, or folders of them, likewise.
    pub leases: Vec<LeaseFile>,
    /// Zones that are answered from local data alone.
    pub zones: Vec<String>,
    /// Domain of names with one label: `nas` is `nas.lan` too, and the other way round.
    pub search_domain: Option<String>,
    /// True if addresses get PTR records without being configured.
    pub reverse: bool,
    /// TTL of records without one, and of hosts, in seconds.
    pub ttl_secs: u32,
    /// TTL of leases, in seconds.
    pub lease_ttl_secs: u32,
    /// Names that no lease gets, in any domain.
    pub never_leased: Vec<String>,
    /// True if questions for names of one label go upstream.
    pub forward_plain_names: bool,
}

impl LocalInput {
    /// TTL of a denial for a name that a lease or a hosts file may have next time, in seconds. `None` without such files.
    #[must_use]
    pub fn denial_ttl_secs(&self) -> Option<u32> {
        let hosts = self.ttl_secs.min(HOSTS_DENIAL_TTL_SECS);
        let hosts = (!self.hosts.is_empty()).then_some(hosts);
        let leases = (!self.leases.is_empty()).then_some(self.lease_ttl_secs);
        hosts.into_iter().chain(leases).min()
    }
}

/// A DHCP server's lease file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseFile {
    /// The file, or a folder of them.
    pub path: PathBuf,
    /// Format of the file.
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
            never_leased: NEVER_LEASED.map(String::from).into(),
            forward_plain_names: true,
        }
    }
}

/// Collects local data and compiles it.
#[derive(Debug, Default)]
pub struct LocalBuilder {
    /// Names in the order in which they were added, so that images are deterministic.
    names: Vec<Vec<u8>>,
    nodes: HashMap<Vec<u8>, Node>,
    rules: LeaseRules,
    /// Reverse names of addresses with the name that they point back to, in its original letter case; the first name of an
    /// address counts.
    pointers: Vec<(Vec<u8>, NodeRecord)>,
    forward_plain_names: bool,
}

impl ClaimedNames for LocalBuilder {
    fn rules(&self) -> &LeaseRules {
        &self.rules
    }

    fn owner(&self, name: &[u8], address: IpAddr) -> Result<bool, Refusal> {
        let fixed = self.fixed(name);
        let Some(first) = fixed.first() else {
            return self
                .wildcard_above(name)
                .map_or(Ok(false), |wildcard| Err(Refusal::Wildcard(wildcard)));
        };
        if fixed.iter().any(|record| record.address() == Some(address)) {
            return Ok(true);
        }
        let told = fixed.iter().find(|record| record.address().is_some());
        let told = told.unwrap_or(first);
        Err(Refusal::Exists {
            place: told.place.to_string(),
            address: told.address(),
        })
    }
}

impl LocalBuilder {
    /// Takes the search domain, the local zones, and other settings for all names.
    ///
    /// # Errors
    /// One of them is not a name.
    pub fn new(input: &LocalInput) -> Result<Self, Problem> {
        let parse = |key: &str, text: &str| {
            name::parse(text).map_err(|error| Problem::of(key, format!("`{text}` {error}")))
        };
        let parse_all = |key: &str, texts: &[String]| {
            let names: Result<Vec<_>, _> = texts.iter().map(|text| parse(key, text)).collect();
            names
        };
        let search_domain = input.search_domain.as_deref();
        let search_domain = search_domain.map(|text| parse("search_domain", text));
        Ok(Self {
            rules: LeaseRules {
                search_domain: search_domain.transpose()?,
                zones: parse_all("zones", &input.zones)?,
                never: parse_all("never_leased", &input.never_leased)?,
            },
            forward_plain_names: input.forward_plain_names,
            ..Self::default()
        })
    }

    /// Records of a name, except those of leases.
    fn fixed(&self, name: &[u8]) -> Vec<&NodeRecord> {
        let records = self.nodes.get(name).into_iter().flat_map(|n| &n.records);
        let is_fixed = |record: &&NodeRecord| record.source < RecordSource::Lease;
        records.filter(is_fixed).collect()
    }

    /// Wildcard of the config that covers a name without data.
    fn wildcard_above(&self, name: &[u8]) -> Option<String> {
        let parents = std::iter::successors(name::parent(name), |name| name::parent(name));
        for parent in parents {
            let wildcard = name::child(b"*", parent)?;
            if !self.fixed(&wildcard).is_empty() {
                return Some(shown(&wildcard));
            }
            // An existing name stops the wildcards above it (RFC 4592 section 3.3.1).
            if !self.fixed(parent).is_empty() || self.rules.zones.iter().any(|z| z == parent) {
                return None;
            }
        }
        None
    }

    /// Adds a record in the config's syntax. Returns its owner, in lower case.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn add_text(&mut self, text: &str, default_ttl_secs: u32) -> Result<Vec<u8>, String> {
        let words = zonefile::split(text)?;
        let (owner, mut rest) = words.split_first().ok_or("is empty")?;
        let mut ttl_secs = None;
        // TTL and class, in either order (RFC 1035 section 5.1).
        for _ in 0..2 {
            match rest {
                [word, behind @ ..] if word.eq_ignore_ascii_case("IN") => rest = behind,
                [word, behind @ ..]
                    if word.bytes().all(|byte| byte.is_ascii_digit()) && !word.is_empty() =>
                {
                    if ttl_secs.is_some() {
                        return Err(format!("has two TTLs, the second is {word}"));
                    }
                    ttl_secs = Some(parse_ttl(word)?);
                    rest = behind;
                }
                _ => break,
            }
        }
        let (word, rest) = rest.split_first().ok_or("has no type")?;
        let rtype = rdata::type_number(word).ok_or_else(|| rdata::no_type(word))?;
        let owner = parse_owner(owner, rtype)?;
        let rdata = rdata::parse(rtype, rest)
            .map_err(|what| format!("{} {what}", word.to_ascii_uppercase()))?;
        if rtype == rtype::CNAME && Labels::new(&name::lower(&rdata)).is_none() {
            return Err("CNAME takes one name".into());
        }
        let record = NodeRecord {
            rtype,
            ttl_secs: ttl_secs.unwrap_or(default_ttl_secs),
            rdata,
            source: RecordSource::Records,
            place: "local.records".into(),
        };
        self.add_both_forms(&owner, &record)?;
        Ok(name::lower(&owner))
    }

    /// Adds a machine of a hosts file under each of its names. Its address points back to the first one.
    ///
    /// # Errors
    /// Names that were skipped, because a hosts file may not define them.
    pub fn add_host(
        &mut self,
        host: &Host,
        ttl_secs: u32,
        place: &Rc<str>,
        others: &Others<'_>,
    ) -> Result<(), String> {
        let record = NodeRecord::of_address(host.address, ttl_secs, RecordSource::Hosts, place);
        let mut refused = Vec::new();
        for name in &host.names {
            let added = self.check_host(name, &record, others);
            let added = added.and_then(|()| self.add_both_forms(name, &record));
            refused.extend(added.err());
        }
        if refused.is_empty() {
            Ok(())
        } else {
            Err(refused.join("; "))
        }
    }

    /// Checks that a hosts file may give this address to a name. It may not contradict the config's records, nor what an RFC
    /// fixes for all networks.
    fn check_host(
        &self,
        name: &[u8],
        record: &NodeRecord,
        others: &Others<'_>,
    ) -> Result<(), String> {
        let owner = name::lower(name);
        for form in [Some(&owner), self.other_form(&owner).as_ref()] {
            let Some(form) = form else { continue };
            let kind = others.special(form);
            if kind.is_some_and(|kind| !kind.is_for_private_use()) {
                return Err(format!("`{}` is a special-use name", shown(form)));
            }
            let records = self.nodes.get(form).map_or(&[][..], |node| &node.records);
            let alias = |known: &&NodeRecord| known.rtype == rtype::CNAME;
            if let Some(NodeRecord { place, .. }) = records.iter().find(alias) {
                let name = shown(name);
                return Err(format!("`{name}` is an alias (CNAME) in {place}"));
            }
            let of_config = |known: &&NodeRecord| {
                known.source == RecordSource::Records && known.rtype == record.rtype
            };
            let mut of_config = records.iter().filter(of_config).peekable();
            if let Some(first) = of_config.peek().copied()
                && !of_config.any(|known| known.is_same(record))
            {
                let known = first.address().map_or(String::new(), |a| a.to_string());
                let (name, place) = (shown(form), &first.place);
                return Err(format!("`{name}` has the address {known} in {place}"));
            }
        }
        Ok(())
    }

    /// Gives a client the names that it may have, and a PTR record for the first one to its address. `refuse` is called for
    /// each refused name, with the reason.
    fn add_lease(
        &mut self,
        lease: &Lease,
        record: &NodeRecord,
        claims: &mut Claims,
        others: &Others<'_>,
        mut refuse: impl FnMut(&[u8], &Refusal),
    ) {
        let rules = std::mem::take(&mut self.rules);
        let names = names_of(lease, &rules);
        self.rules = rules;
        for written in names {
            match claims.decide(lease, written, self, others) {
                Ok(forms) => {
                    if let Some(longest) = forms.first() {
                        self.add_lease_pointer(longest, record, others);
                    }
                    for form in forms {
                        let added = self.add(&name::lower(&form), record.clone());
                        debug_assert!(added.is_ok(), "leases have addresses only");
                    }
                }
                Err(refusal) => refuse(written, &refusal),
            }
        }
    }

    /// Adds the PTR record of a lease, unless another source claims or blocks the reverse name.
    fn add_lease_pointer(&mut self, longest: &[u8], record: &NodeRecord, others: &Others<'_>) {
        let Some(owner) = record.address().map(pointer_name) else {
            return;
        };
        let refusal = others.refusal(&owner, rtype::PTR);
        if self.wildcard_above(&owner).is_none() && refusal.is_none() {
            self.add_pointer(longest.to_vec(), record);
        }
    }

    /// Adds a record under its owner name. If the owner has one label, or one label below the search domain, it is added under
    /// the other form as well.
    fn add_both_forms(&mut self, written: &[u8], record: &NodeRecord) -> Result<(), String> {
        let owner = name::lower(written);
        let other = self.other_form(&owner);
        for form in [Some(&owner), other.as_ref()].into_iter().flatten() {
            self.add(form, record.clone())
                .map_err(|what| format!("`{}` {what}", shown(written)))?;
        }
        if is_wildcard(&owner).is_none() {
            // An address points back to the longer form.
            let written_other = self.other_form(written);
            let longer = written_other.filter(|other| other.len() > written.len());
            self.add_pointer(longer.unwrap_or_else(|| written.to_vec()), record);
        }
        Ok(())
    }

    fn other_form(&self, owner: &[u8]) -> Option<Vec<u8>> {
        let search_domain = self.rules.search_domain.as_deref()?;
        let (label, parent) = cut_label(owner)?;
        if label == b"*" {
            None
        } else if parent == [0] && !owner.eq_ignore_ascii_case(search_domain) {
            name::child(label, search_domain)
        } else if parent.eq_ignore_ascii_case(search_domain) {
            name::child(label, &[0])
        } else {
            None
        }
    }

    fn add_pointer(&mut self, target: Vec<u8>, record: &NodeRecord) {
        let Some(address) = record.address() else {
            return;
        };
        // Blocklists give these addresses to all names; no host has them.
        if address.is_unspecified() || address.is_loopback() {
            return;
        }
        let pointer = NodeRecord {
            rtype: rtype::PTR,
            rdata: target,
            ..record.clone()
        };
        self.pointers.push((pointer_name(address), pointer));
    }

    fn add(&mut self, owner: &[u8], record: NodeRecord) -> Result<(), &'static str> {
        let node = self.node(owner);
        node.flags |= flag::EXISTS;
        let is_alias = |record: &NodeRecord| record.rtype == rtype::CNAME;
        if node.records.iter().any(|known| known.is_same(&record)) {
            return Ok(());
        }
        // An alias excludes other records (RFC 1034 section 3.6.2, RFC 2181 section 10.1).
        if !node.records.is_empty() && (is_alias(&record) || node.records.iter().any(is_alias)) {
            return Err("cannot be an alias (CNAME) and have other records");
        }
        if node.records.len() >= usize::from(u16::MAX) {
            return Err("has more than 65535 records");
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

    /// True if all names below `name` have the address of a reverse name as well: a machine that has it goes first.
    fn is_of_all_below(&self, reverse: &[u8], name: &[u8]) -> bool {
        let wildcard = name::child(b"*", &name::lower(name));
        let node = wildcard.and_then(|wildcard| self.nodes.get(&wildcard));
        let mut records = node.into_iter().flat_map(|node| &node.records);
        records.any(|known| {
            let address = known.address();
            address.is_some_and(|address| pointer_name(address) == reverse)
        })
    }

    /// Makes PTR records for the addresses without configured ones.
    pub fn add_pointers(&mut self) {
        let mut pointers = std::mem::take(&mut self.pointers);
        pointers.sort_by_key(|(owner, record)| self.is_of_all_below(owner, &record.rdata));
        for (owner, record) in pointers {
            let has_pointer = self
                .nodes
                .get(&owner)
                .is_some_and(|node| !node.records.is_empty());
            if !has_pointer {
                let added = self.add(&owner, record);
                debug_assert!(added.is_ok(), "the name had no records");
            }
        }
    }
}

/// Owner name of a record of this type.
fn parse_owner(text: &str, rtype: u16) -> Result<Vec<u8>, String> {
    if text == "@" {
        return Err("`@` stands for no zone here: the name is written out".into());
    }
    // Escaped, it would be a literal star (RFC 4592 section 2.1.1), which nobody means.
    let written = text.replace("\\*", "");
    let has_part = |label: &str| label != "*" && label.contains('*');
    if written.split('.').any(has_part) {
        return Err(format!(
            "`{text}` has a `*` within a label: it is a label of its own, `*.lan`, and `\\*` where a star is meant"
        ));
    }
    match text.parse() {
        Ok(address) if rtype == rtype::PTR => {
            let pointer = name::display(&pointer_name(address)).to_string();
            let pointer = pointer.trim_end_matches('.');
            Err(format!("the name of address `{text}` is {pointer}"))
        }
        Ok(_) => Err(format!("`{text}` is an address, a name is wanted here")),
        Err(_) => name::parse_written(text).map_err(|error| format!("`{text}` {error}")),
    }
}

/// A name in presentation format.
fn shown(name: &[u8]) -> String {
    let text = name::display(name);
    let short = text.strip_suffix('.').filter(|short| !short.is_empty());
    short.map_or(text.clone(), String::from)
}

/// Parent of the wildcard `*.parent`.
fn is_wildcard(name: &[u8]) -> Option<&[u8]> {
    name.strip_prefix(b"\x01*")
}

fn parse_ttl(word: &str) -> Result<u32, String> {
    let ttl = word.parse().ok().filter(|&ttl| ttl <= TTL_MAX_SECS);
    ttl.ok_or_else(|| format!("`{word}` is not a TTL; allowed: 0 to {TTL_MAX_SECS}"))
}

/// Reads and compiles local data. Records come first, then hosts, then leases: the first source of a name is believed, and an
/// address points back to its first name. Notes unusable lines and files, and leases that do not get their name. `others` have
/// been compiled already.
///
/// # Errors
/// A record of the config is wrong.
pub fn compile(
    input: &LocalInput,
    others: &Others<'_>,
    now_secs: Option<i64>,
    notes: &mut Notes,
    draw_key: impl FnMut() -> HashKey,
) -> Result<Vec<u8>, Problem> {
    let mut builder = LocalBuilder::new(input)?;
    for text in &input.records {
        let wrong = |what| Problem::of("records", format!("`{text}`: {what}"));
        builder.add_text(text, input.ttl_secs).map_err(wrong)?;
    }
    for path in &input.hosts {
        for (file, text) in texts(path, notes) {
            notes.stamp(&file, &text);
            let place: Rc<str> = file.display().to_string().into();
            for host in parse_hosts(&file, &text, notes) {
                let added = builder.add_host(&host, input.ttl_secs, &place, others);
                if let Err(what) = added {
                    notes.push(Problem::in_line(&file, host.line, what));
                }
            }
        }
    }
    add_leases(&mut builder, input, others, now_secs, notes);
    if input.reverse {
        builder.add_pointers();
    }
    Ok(builder.build(draw_key))
}

/// Files behind a path with their text.
fn texts(path: &Path, notes: &mut Notes) -> Vec<(PathBuf, String)> {
    let mut texts = Vec::new();
    let found = files_behind(path, notes);
    for file in notes.or_fail(found).unwrap_or_default() {
        let kept = last_good(&file, notes);
        let is_busy = kept.is_some() && notes.is_busy(&file);
        let text = if is_busy {
            None
        } else {
            notes.or_fail(read_text(&file, FILE_BYTES_MAX))
        };
        if let Some(text) = text.or(kept) {
            notes.load(&file, 0);
            if text.len() <= LAST_GOOD_BYTES_MAX {
                let place = file.display().to_string();
                notes.last_good.insert(place, text.clone());
            }
            texts.push((file, text));
        }
    }
    texts
}

fn last_good(file: &Path, notes: &mut Notes) -> Option<String> {
    notes.last_good.remove(&file.display().to_string())
}

/// Adds the leases of all files: those over IPv4 first, of these those that end last.
fn add_leases(
    builder: &mut LocalBuilder,
    input: &LocalInput,
    others: &Others<'_>,
    now_secs: Option<i64>,
    notes: &mut Notes,
) {
    let mut leases = Vec::new();
    for LeaseFile { path, format } in &input.leases {
        for (file, text) in texts(path, notes) {
            let found = parse_leases(&file, &text, *format, now_secs, notes);
            leases.extend(found.into_iter().map(|lease| (file.clone(), lease)));
        }
    }
    leases.sort_by_key(|(_, lease)| (lease.address.is_ipv6(), std::cmp::Reverse(lease.end_secs)));
    let mut claims = Claims::default();
    for (file, lease) in &leases {
        notes.note_end(lease.ends_secs());
        let place: Rc<str> = file.display().to_string().into();
        let ttl_secs = input.lease_ttl_secs;
        let record = NodeRecord::of_address(lease.address, ttl_secs, RecordSource::Lease, &place);
        builder.add_lease(lease, &record, &mut claims, others, |name, refusal| {
            let (name, address) = (shown(name), lease.address);
            let what =
                format!("not giving name {name} to the DHCP lease of {address} because {refusal}");
            notes.refuse(file, what);
        });
    }
}

#[cfg(test)]
mod tests;
