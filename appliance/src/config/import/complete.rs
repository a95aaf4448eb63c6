//! What dnsmasq does where no line says so, and what takes all lines to know.

use super::lines::Line;
use super::taken::{Blocked, Draft, Group, Served};
use crate::config::Devices;
use crate::config::written::quoted;

/// Where dnsmasq looks for servers, and DHCP's leases, where no option says so.
const RESOLV_CONF: &str = "/etc/resolv.conf";
const LEASES: &str = "/var/lib/misc/dnsmasq.leases";
const HOSTS: &str = "/etc/hosts";

impl Draft {
    /// Adds both.
    pub fn complete(&mut self, devices: &Devices) {
        self.complete_servers();
        self.complete_local();
        self.complete_blocked();
        if let Some(line) = self.guards.clone() {
            for range in [
                "private",
                "loopback",
                "link-local",
                "unique-local",
                "this-host",
            ] {
                if range != "loopback" || self.localhost_may.is_none() {
                    self.add("rebind", "ranges", quoted(range), &line);
                }
            }
        } else if let Some(line) = self.localhost_may.take() {
            self.listed
                .push(line.told("nothing is withheld without stop-dns-rebind"));
        }
        self.complete_served(devices);
    }

    /// Domains with the same servers become one group: of servers there is a number that no config may exceed.
    fn join_groups(&mut self) {
        let mut joined: Vec<Group> = Vec::new();
        for (index, group) in std::mem::take(&mut self.groups).into_iter().enumerate() {
            let servers = |group: &Group| -> Vec<String> {
                group
                    .servers
                    .iter()
                    .map(|(server, _)| server.clone())
                    .collect()
            };
            let same = joined
                .iter_mut()
                .skip(1)
                .find(|known| servers(known) == servers(&group));
            match same.filter(|_| index > 0) {
                Some(known) => known.domains.extend(group.domains),
                None => joined.push(group),
            }
        }
        self.groups = joined;
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
        let is_set = self
            .values
            .get("forward")
            .is_some_and(|keys| keys.iter().any(|(key, _)| *key == "strategy"));
        if !is_set {
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
        let has_leases = self
            .values
            .get("local")
            .is_some_and(|keys| keys.iter().any(|(key, _)| *key == "dnsmasq_leases"));
        if let Some(line) = self.gives_leases.take().filter(|_| !has_leases) {
            self.add("local", "dnsmasq_leases", quoted(LEASES), &line);
        }
    }

    /// All blocked names get one answer: that of the most of them.
    fn complete_blocked(&mut self) {
        let blocked = std::mem::take(&mut self.blocked);
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

    fn complete_served(&mut self, devices: &Devices) {
        for (address, line) in std::mem::take(&mut self.listen) {
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
        if self.served.is_empty() {
            self.serve_all(devices);
        } else if self.served.iter().all(|served| served.name != "lo") {
            // dnsmasq adds it.
            self.served.push(Served {
                name: "lo".into(),
                ..Served::default()
            });
        }
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

    /// dnsmasq serves all interfaces, if it is not told which.
    fn serve_all(&mut self, devices: &Devices) {
        let all = devices
            .0
            .iter()
            .filter(|device| device.port_of.is_none() && !device.addresses.is_empty());
        let names: Vec<String> = all.map(|device| device.name.clone()).collect();
        let names = if names.is_empty() {
            vec!["lo".to_owned()]
        } else {
            names
        };
        self.listed.push(format!(
            "no interface is named: these are served, of which those towards the Internet are to be taken out: {}",
            names.join(", ")
        ));
        self.served.extend(names.into_iter().map(|name| Served {
            name,
            ..Served::default()
        }));
    }
}

/// What comes from no line.
fn own(place: &str) -> Line {
    Line {
        place: place.into(),
        option: String::new(),
        value: String::new(),
    }
}
