//! What dnsmasq does where no line says so, and what takes all lines to know.

use std::collections::{HashMap, HashSet};
use std::mem;
use std::net::IpAddr;

use xdnsd_core::limits;

use super::lines::Line;
use super::taken::{Blocked, Draft, Group, Served};
use crate::config::written::quoted;
use crate::config::{Devices, UpstreamServer};
use crate::text;

/// Where dnsmasq looks for servers, and DHCP's leases, where no option says so.
const RESOLV_CONF: &str = "/etc/resolv.conf";
const LEASES: &str = "/var/lib/misc/dnsmasq.leases";
pub const HOSTS: &str = "/etc/hosts";
/// How what is said of every file ends.
pub const SEE_SPECIAL: &str = "see local.special";

impl Draft {
    /// Adds both.
    pub fn complete(&mut self, devices: &Devices) {
        self.complete_servers();
        self.complete_usual();
        self.bound_servers();
        self.complete_local();
        self.complete_addressed();
        self.allow_routed();
        self.complete_blocked();
        self.list_other_types();
        self.complete_guarded();
        self.complete_served(devices);
        self.list_special();
    }

    /// dnsmasq asks its servers for names that are special here, and for reverse names of private addresses without bogus-priv.
    fn list_special(&mut self) {
        let private = if self.answers_private {
            ""
        } else {
            " and reverse names of private addresses (there is no bogus-priv)"
        };
        self.listed.push(format!(
            "names of special use (home.arpa, test and more){private} are not asked upstream here unless a group of servers has \
             their domain: {SEE_SPECIAL}"
        ));
    }

    /// dnsmasq withholds private addresses, whichever server they come from; with `rebind-localhost-ok` this host's may pass.
    fn complete_guarded(&mut self) {
        let Some(line) = self.guards.clone() else {
            let line = self.localhost_may.take();
            let why = "nothing is withheld without stop-dns-rebind";
            self.listed.extend(line.map(|line| line.told(why)));
            return;
        };
        let always = ["private", "link-local", "unique-local"];
        let of_host = ["loopback", "this-host"];
        let guards_host = self.localhost_may.is_none();
        let of_host = of_host.iter().filter(|_| guards_host);
        for range in always.iter().chain(of_host) {
            self.add("rebind", "ranges", quoted(range), &line);
        }
        if self.groups.iter().any(|group| !group.domains.is_empty()) {
            self.set("rebind", "allow_routed", "false", &line);
        }
        let why = "addresses of documentation (192.0.2.0/24, 198.51.100.0/24, 203.0.113.0/24) and 255.255.255.255 are not withheld here";
        self.listed.push(line.told(why));
    }

    /// Domains with the same servers become one group: of servers there is a number that no config may exceed.
    fn join_groups(&mut self) {
        let mut joined: Vec<Group> = Vec::new();
        let mut known: HashMap<Vec<String>, usize> = HashMap::new();
        for (index, group) in mem::take(&mut self.groups).into_iter().enumerate() {
            let servers = group.servers.iter().map(|(server, _)| server.clone());
            let same = match index {
                0 => joined.len(),
                _ => *known.entry(servers.collect()).or_insert(joined.len()),
            };
            match joined.get_mut(same) {
                Some(known) => known.domains.extend(group.domains),
                None => joined.push(group),
            }
        }
        self.groups = joined;
    }

    /// Keeps the first servers, as many as a config may name. A group that has none left falls with its domains.
    fn bound_servers(&mut self) {
        let mut room = limits::UPSTREAMS;
        let mut over: Vec<Line> = Vec::new();
        for group in &mut self.groups {
            let mut kept: Vec<UpstreamServer> = Vec::new();
            let is_kept = |(server, line): &(String, Line)| match server.parse() {
                Ok(server) if !kept.contains(&server) => {
                    if room == 0 {
                        over.push(line.clone());
                        return false;
                    }
                    room -= 1;
                    kept.push(server);
                    true
                }
                // The reader of configs refuses it: it takes no place.
                _ => true,
            };
            group.servers.retain(is_kept);
            if group.servers.is_empty() && group.resolv_file.is_none() {
                over.extend(
                    mem::take(&mut group.domains)
                        .into_iter()
                        .map(|(_, line)| line),
                );
            }
        }
        self.groups
            .retain(|group| !group.servers.is_empty() || group.resolv_file.is_some());
        let why = format!(
            "is too much: at most {} servers over all groups",
            limits::UPSTREAMS
        );
        let mut told: HashSet<&str> = HashSet::new();
        let over = over.iter().filter(|line| told.insert(&line.place));
        self.listed.extend(over.map(|line| line.told(&why)));
    }

    fn complete_servers(&mut self) {
        self.join_groups();
        let without = self.without_resolv.clone();
        let group = self.default_group();
        let by = match (&without, &group.resolv_file) {
            (Some(_), Some((_, Some(line)))) => Some(line.told("is not read with no-resolv")),
            _ => None,
        };
        if without.is_some() && !group.servers.is_empty() {
            group.resolv_file = None;
        } else if group.resolv_file.is_none() {
            group.resolv_file = Some((RESOLV_CONF.into(), None));
        }
        let is_alone = without.is_some() && group.servers.is_empty();
        self.listed.extend(by);
        if is_alone {
            let line = without.expect("it is there");
            self.listed
                .push(line.told("no server is named: resolv_file stays in"));
        }
        // dnsmasq asks the one that answers first, unless it is told otherwise.
        if !self.has("forward", "strategy") {
            self.set(
                "forward",
                "strategy",
                "\"fastest\"",
                &own("dnsmasq's default"),
            );
        }
    }

    fn complete_local(&mut self) {
        if !self.without_hosts {
            self.add("local", "hosts", quoted(HOSTS), &own("dnsmasq's default"));
        }
        let has_leases = self.has("local", "dnsmasq_leases");
        if let Some(line) = self.gives_leases.take().filter(|_| !has_leases) {
            self.add("local", "dnsmasq_leases", quoted(LEASES), &line);
        }
        for line in mem::take(&mut self.services) {
            let mut parts = line.parts.clone();
            // `_service._protocol` is of the domain.
            if let (Some(domain), Some(name)) = (&self.domain, parts.first_mut())
                && name.matches('.').count() == 1
            {
                *name = format!("{name}.{domain}");
            }
            if let Err(why) = self.record(&line, &parts) {
                self.listed.push(line.told(&why));
            }
        }
    }

    /// All blocked names get one answer: that of the most of them.
    fn complete_blocked(&mut self) {
        let blocked = mem::take(&mut self.blocked);
        let zeros = blocked
            .iter()
            .filter(|(_, what, _)| *what == Blocked::Zero)
            .count();
        let most = if zeros * 2 > blocked.len() {
            Blocked::Zero
        } else {
            Blocked::Nxdomain
        };
        for (name, what, line) in &blocked {
            self.add("filter", "block", quoted(name), line);
            if *what != most {
                let why = match most {
                    Blocked::Zero => "0.0.0.0 and ::",
                    Blocked::Nxdomain => "NXDOMAIN",
                };
                self.listed.push(line.told(&format!(
                    "is blocked and gets {why} as most others do (filter.answer)"
                )));
            }
        }
        if let Some((_, _, line)) = blocked.iter().find(|_| most == Blocked::Zero) {
            self.set("filter", "answer", "\"zero\"", line);
        }
    }

    /// dnsmasq serves what is named, and then loopback with it; the addresses that are named; or all interfaces.
    fn complete_served(&mut self, devices: &Devices) {
        let excepted = mem::take(&mut self.excepted);
        let is_excepted = |name: &str| excepted.iter().any(|(pattern, _)| is_meant(pattern, name));
        self.serve_patterns(devices);
        let is_named = !self.served.is_empty();
        let named = mem::take(&mut self.served).into_iter();
        let (mut gone, kept): (Vec<Served>, Vec<Served>) =
            named.partition(|served| is_excepted(&served.name));
        self.served = kept;
        let why = "except-interface says otherwise, and is what counts";
        let lines = gone.iter().filter_map(|served| served.from.as_ref());
        self.listed.extend(lines.map(|line| line.told(why)));
        // An address goes before what is excepted.
        self.serve_addresses(devices);
        let lo = self.served.iter_mut().find(|served| served.name == "lo");
        if let Some(lo) = lo.filter(|_| is_named && !is_excepted("lo")) {
            // It comes with the interfaces that are named, with all of its addresses.
            lo.listen.clear();
        }
        let further = if is_named {
            vec!["lo".to_owned()]
        } else if !self.served.is_empty() {
            Vec::new()
        } else if self.is_limited {
            let why = "none of the interfaces that are named is here: lo alone is served";
            self.listed.push(why.into());
            vec!["lo".to_owned()]
        } else {
            all_of(devices)
        };
        let further = further.into_iter().map(|name| Served {
            name,
            ..Served::default()
        });
        let (out, further): (Vec<Served>, Vec<Served>) =
            further.partition(|served| is_excepted(&served.name));
        gone.extend(out);
        let names: Vec<&str> = further.iter().map(|served| served.name.as_str()).collect();
        if !self.is_limited && !names.is_empty() {
            self.listed.push(format!(
                "no interface is named: these are served, of which those towards the Internet are to be taken out: {}",
                names.join(", ")
            ));
        }
        for served in further {
            if self.served.iter().all(|known| known.name != served.name) {
                self.served.push(served);
            }
        }
        for (pattern, line) in &excepted {
            if !gone.iter().any(|served| is_meant(pattern, &served.name)) {
                self.listed.push(line.told("is not served anyway"));
            }
        }
        self.leave_out_own(devices);
        self.complete_sections(devices);
    }

    /// Leaves out servers at addresses that are served. A group that has none left falls with its domains.
    fn leave_out_own(&mut self, devices: &Devices) {
        let port = self.port.as_ref();
        let port = port.map_or(UpstreamServer::PORT, |(port, _)| *port);
        let mut own: HashSet<IpAddr> = HashSet::new();
        for served in &self.served {
            let of_device = devices.named(&served.name).into_iter();
            let of_device = of_device.flat_map(|device| device.addresses.iter().copied());
            if served.listen.is_empty() {
                own.extend(of_device);
            } else {
                own.extend(served.listen.iter().map(|(address, _)| *address));
            }
        }
        let is_own = |server: &UpstreamServer| {
            server.zone.is_none() && server.port == port && own.contains(&server.addr)
        };
        let mut told: Vec<Line> = Vec::new();
        for group in &mut self.groups {
            group.servers.retain(|(server, line)| {
                let is_own = server.parse().is_ok_and(|server| is_own(&server));
                if is_own && told.iter().all(|known| known.place != line.place) {
                    told.push(line.clone());
                }
                !is_own
            });
        }
        self.groups
            .retain(|group| !group.servers.is_empty() || group.resolv_file.is_some());
        let why = "is at an address that is served here: it is left out";
        self.listed.extend(told.iter().map(|line| line.told(why)));
    }

    /// Serves the interfaces of this machine that a pattern is for.
    fn serve_patterns(&mut self, devices: &Devices) {
        for (pattern, line) in mem::take(&mut self.patterns) {
            let here = all_of(devices).into_iter();
            let names: Vec<String> = here.filter(|name| is_meant(&pattern, name)).collect();
            let what = match names.as_slice() {
                [] => "no interface of this machine: write the interface's section".to_owned(),
                names => names.join(", "),
            };
            self.listed
                .push(line.told(&format!("{} is {what}", text::line(&pattern))));
            for name in names {
                // One that is named as well is there already, or comes with loopback.
                let is_known = self.served.iter().any(|served| served.name == name);
                if !is_known {
                    self.served.push(Served {
                        name,
                        from: Some(line.clone()),
                        ..Served::default()
                    });
                }
            }
        }
    }

    /// Serves the interfaces that have the addresses to listen on.
    fn serve_addresses(&mut self, devices: &Devices) {
        for (address, line) in mem::take(&mut self.listen) {
            let is_loopback = address.is_loopback();
            let device = devices
                .0
                .iter()
                .find(|device| device.addresses.contains(&address));
            let name = match device {
                Some(device) => device.name.clone(),
                None if is_loopback => "lo".into(),
                None => {
                    let why = format!(
                        "no interface of this machine has {address}: write the interface's section"
                    );
                    self.listed.push(line.told(&why));
                    continue;
                }
            };
            match self.served.iter_mut().find(|served| served.name == name) {
                // All of its addresses are served.
                Some(served) if served.listen.is_empty() => {}
                Some(served) => served.listen.push((address, line)),
                None => self.served.push(Served {
                    name,
                    listen: vec![(address, line)],
                    ..Served::default()
                }),
            }
        }
    }

    /// Port and VLAN of each.
    fn complete_sections(&mut self, devices: &Devices) {
        for served in &mut self.served {
            served.port.clone_from(&self.port);
            let device = devices.named(&served.name);
            let vlan = device.and_then(|device| device.vlan_of.clone());
            let dotted = served.name.rsplit_once('.').and_then(|(carrier, id)| {
                let id = id.parse().ok().filter(|id| (1..=4094).contains(id))?;
                Some((carrier.to_owned(), id))
            });
            if let Some((carrier, id)) = vlan.or(dotted) {
                let was = std::mem::replace(&mut served.name, carrier);
                served.vlan = id;
                let why = format!("{was} is taken for VLAN {id} on {}", served.name);
                self.listed
                    .extend(served.from.as_ref().map(|line| line.told(&why)));
            }
        }
    }
}

/// The interfaces of a machine, where none is named.
fn all_of(devices: &Devices) -> Vec<String> {
    let all = devices
        .0
        .iter()
        .filter(|device| device.port_of.is_none() && !device.addresses.is_empty());
    let names: Vec<String> = all.map(|device| device.name.clone()).collect();
    if names.is_empty() {
        vec!["lo".to_owned()]
    } else {
        names
    }
}

/// True if an interface is meant. A `*` may stand at the end.
fn is_meant(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(begin) => name.starts_with(begin),
        None => name == pattern,
    }
}

/// What comes from no line.
fn own(place: &str) -> Line {
    Line {
        place: place.into(),
        ..Line::default()
    }
}
