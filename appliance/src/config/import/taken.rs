//! Options of dnsmasq that have a key.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use super::addressed::Addressed;
use super::lines::Line;
use super::listed;
use super::records::records;
use crate::config::written::quoted;
use crate::text;

/// The most that the cache holds in the memory that it has by default.
const ENTRIES_MAX: u64 = xdnsd_core::limits::CACHE_ENTRIES as u64;

/// A value of a key, as TOML, and the line that it comes from.
#[derive(Clone, Debug)]
pub struct KeyValue {
    pub text: String,
    pub from: Line,
    /// One of a list.
    pub is_element: bool,
}

/// An interface.
#[derive(Clone, Debug, Default)]
pub struct Served {
    pub name: String,
    pub vlan: u16,
    pub port: Option<(u16, Line)>,
    pub listen: Vec<(IpAddr, Line)>,
    pub from: Option<Line>,
}

/// A group of servers.
#[derive(Clone, Debug, Default)]
pub struct Group {
    pub name: String,
    pub servers: Vec<(String, Line)>,
    pub domains: Vec<(String, Line)>,
    pub resolv_file: Option<(String, Option<Line>)>,
    pub trusted: Option<Line>,
}

/// Names whose addresses go into sets.
#[derive(Clone, Debug, Default)]
pub struct NamesInSets {
    pub names: Vec<(String, Line)>,
    pub sets: Vec<(String, Line)>,
}

pub type Keys = Vec<(&'static str, Vec<KeyValue>)>;

/// What the config is made of.
#[derive(Debug, Default)]
pub struct Draft {
    pub served: Vec<Served>,
    /// The first is for all names that no other is for.
    pub groups: Vec<Group>,
    pub nft_sets: Vec<NamesInSets>,
    pub listed: Vec<String>,
    /// The files that it was read from.
    pub files: BTreeSet<String>,
    values: BTreeMap<&'static str, Keys>,
    /// Elements of its lists, by section and key.
    elements: HashSet<(&'static str, &'static str, String)>,
    /// The group of each domain with servers, by its place in `groups` until domains with the same servers are joined.
    routed: HashMap<String, usize>,
    /// Addresses to listen on, whose interfaces are to be found.
    pub(super) listen: Vec<(IpAddr, Line)>,
    /// True if a line says what is served, whether it was understood or not.
    pub(super) is_limited: bool,
    /// Patterns of interfaces that are served.
    pub(super) patterns: Vec<(String, Line)>,
    /// True with `bogus-priv`.
    pub(super) answers_private: bool,
    /// Interfaces that are not served.
    pub(super) excepted: Vec<(String, Line)>,
    pub(super) port: Option<(u16, Line)>,
    pub(super) without_resolv: Option<Line>,
    pub(super) without_hosts: bool,
    pub(super) gives_leases: Option<Line>,
    pub(super) localhost_may: Option<Line>,
    pub(super) guards: Option<Line>,
    /// Blocked names, with what they are answered.
    pub(super) blocked: Vec<(String, Blocked, Line)>,
    blocked_known: HashSet<(String, Blocked)>,
    /// Names that are asked of the default group, whatever is said of those above them.
    pub(super) usual: Vec<(String, Line)>,
    /// Blocked names that are asked for nevertheless, in wire form.
    pub(super) allowed: Vec<(Vec<u8>, Line)>,
    /// Domains that end here.
    pub(super) zones: Vec<String>,
    /// Names with an address.
    pub(super) addressed: Vec<Addressed>,
    /// Records that lines say, as `local.records` has them.
    pub(super) records: Vec<String>,
    /// Hosts files that are named.
    pub(super) hosts: Vec<String>,
    /// SRV records, whose names may lack the domain.
    pub(super) services: Vec<Line>,
    pub(super) domain: Option<String>,
}

/// What dnsmasq answers for a blocked name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Blocked {
    Nxdomain,
    Zero,
}

impl Draft {
    /// The sections that stand once, with their keys.
    pub fn sections(&self) -> impl Iterator<Item = (&'static str, &Keys)> {
        self.values.iter().map(|(section, keys)| (*section, keys))
    }

    /// Takes over what a line says.
    ///
    /// # Errors
    /// It has no key, or says nothing that one can have: why.
    pub fn take(&mut self, line: &Line) -> Result<(), String> {
        let parts = &line.parts;
        match line.option.as_str() {
            "except-interface" => {
                let names = parts.iter().map(|name| (name.clone(), line.clone()));
                self.excepted.extend(names);
                Ok(())
            }
            "interface" => {
                self.is_limited = true;
                parts.iter().try_for_each(|name| self.interface(name, line))
            }
            "listen-address" => {
                self.is_limited = true;
                parts.iter().try_for_each(|part| {
                    self.listen.push((address(part)?, line.clone()));
                    Ok(())
                })
            }
            "port" => self.port(line),
            "server" | "local" => self.server(line),
            "rev-server" => self.reverse_server(line),
            "resolv-file" => self.resolv_file(line),
            "address" => self.address(line),
            "domain" => self.domain(line),
            "addn-hosts" | "hostsdir" => self.path("local", "hosts", line),
            "dhcp-leasefile" => self.path("local", "dnsmasq_leases", line),
            "host-record" | "cname" | "ptr-record" | "txt-record" | "mx-host" => {
                self.record(line, parts)
            }
            "srv-host" => {
                self.services.push(line.clone());
                Ok(())
            }
            "nftset" => self.nft_sets(line),
            "rebind-domain-ok" => match domains(&line.value) {
                names if names.is_empty() => Err("a domain is missing".into()),
                names => {
                    self.add_all("rebind", "allow", names, line);
                    Ok(())
                }
            },
            "bogus-nxdomain" => {
                self.add_all("forward", "bogus_nxdomain", parts.clone(), line);
                Ok(())
            }
            _ => self.mark(line),
        }
    }

    /// Options that change what others mean.
    fn mark(&mut self, line: &Line) -> Result<(), String> {
        match line.option.as_str() {
            "no-resolv" => self.without_resolv = Some(line.clone()),
            "no-hosts" => self.without_hosts = true,
            "bogus-priv" => {
                self.answers_private = true;
                return self.setting(line);
            }
            "proxy-dnssec" => self.default_group().trusted = Some(line.clone()),
            "stop-dns-rebind" => self.guards = Some(line.clone()),
            "rebind-localhost-ok" => self.localhost_may = Some(line.clone()),
            _ => {
                if line.option == "dhcp-range" {
                    self.gives_leases.get_or_insert(line.clone());
                }
                return self.setting(line);
            }
        }
        Ok(())
    }

    /// Options that set one key.
    fn setting(&mut self, line: &Line) -> Result<(), String> {
        match line.option.as_str() {
            "filter-A" => self.set("forward", "filter_a", "true", line),
            "filter-AAAA" => self.set("forward", "filter_aaaa", "true", line),
            "all-servers" => self.set("forward", "strategy", "\"race\"", line),
            "strict-order" => self.set("forward", "strategy", "\"ordered\"", line),
            "domain-needed" => self.set("local", "forward_plain_names", "false", line),
            "cache-size" => {
                let entries = number(line)?;
                self.set("cache", "entries", entries.min(ENTRIES_MAX), line);
                if entries > ENTRIES_MAX {
                    return Err(format!(
                        "{entries} became {ENTRIES_MAX}, the most that fits into the memory of the default; up to {} with \
                         memory.mib, see `xdnsd memory`",
                        xdnsd_core::limits::CACHE_ENTRIES_MAX
                    ));
                }
            }
            "no-negcache" => self.set("cache", "negative_max_ttl", 0, line),
            "max-cache-ttl" => self.set("cache", "max_ttl", number(line)?, line),
            "min-cache-ttl" => self.set("cache", "min_ttl", number(line)?, line),
            "use-stale-cache" => match number(line) {
                _ if line.value.is_empty() => self.set("cache", "serve_stale", "true", line),
                Ok(0) => return Err("stale answers have an end here: cache.stale_max_ttl".into()),
                secs => self.set("cache", "stale_max_ttl", secs?, line),
            },
            "no-round-robin" => self.set("cache", "rotate", "false", line),
            "local-ttl" => self.set("local", "ttl", number(line)?, line),
            "dhcp-ttl" => self.set("local", "lease_ttl", number(line)?, line),
            option => {
                let why = listed::why(option).unwrap_or("is not known of dnsmasq 2.90");
                return Err(why.to_owned());
            }
        }
        Ok(())
    }

    pub(super) fn set(
        &mut self,
        section: &'static str,
        key: &'static str,
        value: impl ToString,
        line: &Line,
    ) {
        let value = KeyValue {
            text: value.to_string(),
            from: line.clone(),
            is_element: false,
        };
        let before = std::mem::replace(self.values_of(section, key), vec![value]);
        let why = format!("{} says otherwise, and is what counts", line.place);
        self.listed
            .extend(before.iter().map(|before| before.from.told(&why)));
    }

    /// Values of a key. It stands in the config from now on.
    fn values_of(&mut self, section: &'static str, key: &'static str) -> &mut Vec<KeyValue> {
        let keys = self.values.entry(section).or_default();
        let index = keys.iter().position(|(known, _)| *known == key);
        let index = index.unwrap_or_else(|| {
            keys.push((key, Vec::new()));
            keys.len() - 1
        });
        &mut keys[index].1
    }

    /// True if a key stands in the config.
    pub(super) fn has(&self, section: &str, key: &str) -> bool {
        let keys = self.values.get(section);
        keys.is_some_and(|keys| keys.iter().any(|(known, _)| *known == key))
    }

    /// Adds to a list, unless it is there.
    pub(super) fn add(
        &mut self,
        section: &'static str,
        key: &'static str,
        text: String,
        line: &Line,
    ) {
        if !self.elements.insert((section, key, text.clone())) {
            return;
        }
        self.values_of(section, key).push(KeyValue {
            text,
            from: line.clone(),
            is_element: true,
        });
    }

    fn add_all(&mut self, section: &'static str, key: &'static str, all: Vec<String>, line: &Line) {
        for element in all {
            self.add(section, key, quoted(&element), line);
        }
    }

    fn path(
        &mut self,
        section: &'static str,
        key: &'static str,
        line: &Line,
    ) -> Result<(), String> {
        if !line.value.starts_with('/') {
            return Err("a path begins with / here".into());
        }
        // dnsmasq takes endings behind a folder.
        if line.parts.len() > 1 {
            return Err("a folder is read with all of its files here".into());
        }
        self.add(section, key, quoted(&line.value), line);
        if key == "hosts" {
            self.hosts.push(line.value.clone());
        }
        Ok(())
    }

    fn interface(&mut self, name: &str, line: &Line) -> Result<(), String> {
        if name.ends_with('*') {
            self.patterns.push((name.to_owned(), line.clone()));
            return Ok(());
        }
        if name.contains(['*', ':']) {
            return Err(format!(
                "{}: each interface is named here, as `ip link` shows it",
                text::line(name)
            ));
        }
        if self.served.iter().all(|served| served.name != name) {
            self.served.push(Served {
                name: name.to_owned(),
                from: Some(line.clone()),
                ..Served::default()
            });
        }
        Ok(())
    }

    fn port(&mut self, line: &Line) -> Result<(), String> {
        match number(line)? {
            0 => Err("DNS is off there; here it is what the program is for".into()),
            port => {
                let port = u16::try_from(port).map_err(|_| format!("{port} is not a port"))?;
                self.port = Some((port, line.clone()));
                Ok(())
            }
        }
    }

    pub(super) fn default_group(&mut self) -> &mut Group {
        if self.groups.is_empty() {
            self.groups.push(Group::default());
        }
        &mut self.groups[0]
    }

    /// `SERVER`, `/DOMAIN/…/SERVER`, `/DOMAIN/`, `/DOMAIN/#`: the default group.
    fn server(&mut self, line: &Line) -> Result<(), String> {
        let Some(rest) = line.value.strip_prefix('/') else {
            let server = self.server_of(&line.value, line);
            self.default_group().servers.push((server, line.clone()));
            return Ok(());
        };
        let Some((domains, to)) = rest.rsplit_once('/') else {
            return Err("a domain stands between two slashes".into());
        };
        let (mut domains, further) = split_names(domains);
        if further.plain && to.is_empty() {
            self.deny_plain(line);
        } else if further.plain && to != "#" {
            let why =
                "names of one label have no servers of their own; see local.forward_plain_names";
            self.listed.push(line.told(why));
        }
        match (further.all, to) {
            (false, _) => {}
            (true, "" | "#") => {
                let why = "all names belong to the group without domains";
                self.listed.push(line.told(why));
            }
            (true, _) => domains.push("#"),
        }
        match to {
            "" => {
                for name in domains {
                    let name = self.with_itself(name, line);
                    self.add("local", "zones", quoted(name), line);
                    self.zones.push(name.to_owned());
                }
            }
            "#" => {
                for name in domains {
                    let name = self.with_itself(name, line);
                    self.usual.push((name.to_owned(), line.clone()));
                }
            }
            to => {
                let server = self.server_of(to, line);
                for name in domains {
                    if name == "#" {
                        let server = (server.clone(), line.clone());
                        self.default_group().servers.push(server);
                        continue;
                    }
                    let name = self.with_itself(name, line);
                    self.route(name, &server, line);
                }
            }
        }
        Ok(())
    }

    /// A name as groups and zones have it: for itself and all below it. dnsmasq's `*.name` is what is below it alone.
    fn with_itself<'n>(&mut self, name: &'n str, line: &Line) -> &'n str {
        if let Some(name) = name.strip_prefix("*.") {
            let why = format!("{} itself belongs to it as well here", text::line(name));
            self.listed.push(line.told(&why));
        }
        plain(name)
    }

    /// `ADDRESS[/LENGTH],SERVER`.
    fn reverse_server(&mut self, line: &Line) -> Result<(), String> {
        let [network, to] = line.parts.as_slice() else {
            return Err("an address and a server are wanted".into());
        };
        let to = self.server_of(to, line);
        self.route(network, &to, line);
        Ok(())
    }

    /// A server as it is written here.
    fn server_of(&mut self, text: &str, line: &Line) -> String {
        let (server, has_source_port) = server(text);
        if has_source_port {
            let why = "each question has a random port of its own, see forward.upstream_ports";
            self.listed.push(line.told(why));
        }
        server
    }

    /// One more server for a domain.
    fn route(&mut self, domain: &str, server: &str, line: &Line) {
        self.default_group();
        let known = self.routed.get(domain).copied();
        let server = (server.to_owned(), line.clone());
        match known.and_then(|index| self.groups.get_mut(index)) {
            Some(group) if group.servers.iter().any(|(known, _)| *known == server.0) => {}
            Some(group) => group.servers.push(server),
            None => {
                self.routed.insert(domain.to_owned(), self.groups.len());
                self.groups.push(Group {
                    name: domain.to_owned(),
                    servers: vec![server],
                    domains: vec![(domain.to_owned(), line.clone())],
                    ..Group::default()
                });
            }
        }
    }

    fn resolv_file(&mut self, line: &Line) -> Result<(), String> {
        if !line.value.starts_with('/') {
            return Err("a path begins with / here".into());
        }
        let group = self.default_group();
        if let Some((path, _)) = &group.resolv_file {
            return Err(format!("one file is read, {}", text::line(path)));
        }
        group.resolv_file = Some((line.value.clone(), Some(line.clone())));
        Ok(())
    }

    /// `/NAME/…/ADDRESS`: names with all below them.
    fn address(&mut self, line: &Line) -> Result<(), String> {
        let rest = line
            .value
            .strip_prefix('/')
            .and_then(|rest| rest.rsplit_once('/'));
        let Some((names, to)) = rest else {
            return Err("names stand between slashes".into());
        };
        let (names, further) = split_names(names);
        if further.all {
            let why = "there is no answer for all names";
            self.listed.push(line.told(why));
        }
        if further.plain && to.is_empty() {
            self.deny_plain(line);
        } else if further.plain {
            let why = "is for names of one label there, which have no address of their own here; see local.forward_plain_names";
            self.listed.push(line.told(why));
        }
        let blocked = match to {
            "" => Some(Blocked::Nxdomain),
            "#" => Some(Blocked::Zero),
            to => address(to)?.is_unspecified().then_some(Blocked::Zero),
        };
        for name in names {
            let Some(blocked) = blocked else {
                self.addressed.push(Addressed {
                    name: plain(name).to_owned(),
                    address: address(to)?,
                    is_below: name.starts_with("*."),
                    line: line.clone(),
                });
                continue;
            };
            // `*.` is what is below alone, here as well.
            let name = name.strip_prefix('.').unwrap_or(name);
            // `0.0.0.0` and `::` in two lines are one.
            if self.blocked_known.insert((name.to_owned(), blocked)) {
                self.blocked.push((name.to_owned(), blocked, line.clone()));
            }
        }
        Ok(())
    }

    /// Names of one label do not exist, unless something here has them.
    fn deny_plain(&mut self, line: &Line) {
        if !self.has("local", "forward_plain_names") {
            self.set("local", "forward_plain_names", "false", line);
        }
    }

    /// `DOMAIN[,RANGE[,local]]`.
    fn domain(&mut self, line: &Line) -> Result<(), String> {
        match line.parts.as_slice() {
            [domain] if domain == "#" => {
                Err("write the domain into local.search: it is not taken from resolv.conf".into())
            }
            [domain] => {
                if self.domain.is_some() {
                    return Err("one domain is searched here".into());
                }
                self.domain = Some(domain.clone());
                self.add("local", "search", quoted(domain), line);
                Ok(())
            }
            _ => Err("clients of a network have no domain of their own here".into()),
        }
    }

    /// `/NAME/…/SET,…`. The name `#` stands for all.
    fn nft_sets(&mut self, line: &Line) -> Result<(), String> {
        let Some((names, sets)) = line.value.rsplit_once('/') else {
            return Err("a domain is missing".into());
        };
        let sets = sets.split(',').map(str::trim);
        let sets: Vec<_> = sets.filter(|set| !set.is_empty()).collect();
        let names = domains(names);
        if names.is_empty() || sets.is_empty() {
            return Err("a domain or a set is missing".into());
        }
        let from_here = |text: &str| (text.to_owned(), line.clone());
        let name = |name: &String| from_here(if name == "#" { "." } else { name });
        self.nft_sets.push(NamesInSets {
            names: names.iter().map(name).collect(),
            sets: sets.into_iter().map(from_here).collect(),
        });
        Ok(())
    }

    pub(super) fn record(&mut self, line: &Line, parts: &[String]) -> Result<(), String> {
        for record in records(&line.option, parts)? {
            self.records.push(record.clone());
            self.add("local", "records", quoted(&record), line);
        }
        Ok(())
    }
}

fn number(line: &Line) -> Result<u64, String> {
    let number = line.value.parse();
    number.map_err(|_| format!("{} is not a number", quoted(&line.value)))
}

fn address(text: &str) -> Result<IpAddr, String> {
    text.parse()
        .map_err(|_| format!("{} is not an address", quoted(text)))
}

/// Names that a list has besides those that are written out.
#[derive(Clone, Copy, Debug, Default)]
struct FurtherNames {
    /// All names: `#`, or a dot.
    all: bool,
    /// Those of one label: nothing between two slashes.
    plain: bool,
}

/// The names between slashes.
fn split_names(names: &str) -> (Vec<&str>, FurtherNames) {
    let mut further = FurtherNames::default();
    let names = names.split('/').filter(|name| match *name {
        "" => {
            further.plain = true;
            false
        }
        "#" | "." => {
            further.all = true;
            false
        }
        _ => true,
    });
    (names.collect(), further)
}

/// A name, which dnsmasq also takes with a dot or `*.` in front.
fn plain(name: &str) -> &str {
    let name = name.strip_prefix("*.").unwrap_or(name);
    name.strip_prefix('.').unwrap_or(name)
}

/// `/a/b/`, or a name alone.
fn domains(value: &str) -> Vec<String> {
    let names = value.split('/').filter(|name| !name.is_empty());
    names.map(|name| plain(name).to_owned()).collect()
}

/// `ADDRESS[%ZONE][#PORT][@INTERFACE][@SOURCE[#PORT]]`, and whether the source has a port.
fn server(text: &str) -> (String, bool) {
    let (server, way) = match text.split_once('@') {
        Some((server, way)) => (server, Some(way)),
        None => (text, None),
    };
    let (host, port) = match server.split_once('#') {
        Some((host, port)) => (host, Some(port)),
        None => (server, None),
    };
    let mut written = match port {
        None => host.to_owned(),
        Some(port) if host.contains(':') => format!("[{host}]:{port}"),
        Some(port) => format!("{host}:{port}"),
    };
    let Some(way) = way else {
        return (written, false);
    };
    let (way, source_port) = match way.split_once('#') {
        Some((way, port)) => (way, Some(port)),
        None => (way, None),
    };
    written.push('@');
    written += way;
    (written, source_port.is_some_and(|port| port != "0"))
}
