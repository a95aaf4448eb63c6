//! Upstream servers: where they are by now, and what files say of them; or what those said last where they say nothing now.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;

use log::{info, warn};
use xdnsd_core::forward::upstreams::UpstreamConfig;

use super::ThreadState;
use crate::compile::Problem;
use crate::compile::set::Links;
use crate::config::{Config, Devices, NamedServers, Plan, ResolvConf, UpstreamServer};
use crate::store::CACHE;

/// The files of `upstream.resolv_file`.
#[derive(Default)]
pub(super) struct ResolvFiles {
    /// What each said when it last named a server.
    last: HashMap<PathBuf, ResolvConf>,
    /// Why they name none now.
    faults: Vec<Problem>,
    /// What was said of servers that are not asked.
    left_out: Vec<String>,
}

impl ResolvFiles {
    /// Reads all of them. What is new is logged; what stands in the way is given back.
    pub fn read(&mut self, config: &Config) -> Vec<String> {
        let mut last = std::mem::take(&mut self.last);
        let mut faults = Vec::new();
        for group in &config.upstreams {
            let Some(path) = group.resolv_file.as_deref() else {
                continue;
            };
            let before = last.remove(path).or_else(|| self.last.get(path).cloned());
            let taken = match ResolvConf::read(path) {
                Ok(found) => {
                    if before.as_ref() != Some(&found) {
                        found.notes.iter().for_each(|note| warn!("{note}"));
                        info!(
                            "{}: servers of {}: {}",
                            path.display(),
                            group.name,
                            shown(&found)
                        );
                    }
                    found
                }
                Err(problem) => {
                    let kept = before.unwrap_or_default();
                    let stays = match kept.servers.as_slice() {
                        [] => "no server is known from it yet".to_owned(),
                        _ => format!("asked are those that it named last: {}", shown(&kept)),
                    };
                    let what = format!("{}; {stays}", problem.what);
                    faults.push(Problem { what, ..problem });
                    kept
                }
            };
            self.last.insert(path.to_owned(), taken);
        }
        warn_of_new(&mut self.faults, faults);
        self.faults.iter().map(ToString::to_string).collect()
    }

    /// Why files name no server now.
    pub fn faults(&self) -> impl Iterator<Item = &Problem> {
        self.faults.iter()
    }

    /// Why servers that they name are not asked.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// The plan of a config with their servers.
    pub fn plan(&mut self, config: &Config, devices: &Devices) -> Plan {
        let plan = config.plan_with(devices, &self.found(config));
        let told = plan.left_out.iter().filter_map(|left_out| {
            let path = config
                .upstreams
                .get(left_out.group)?
                .resolv_file
                .as_deref()?;
            Some(self.last.get(path)?.told(left_out).to_string())
        });
        let told = told.collect();
        warn_of_new(&mut self.left_out, told);
        plan
    }

    /// The servers of a config, with those of its files.
    pub fn named(&self, config: &Config) -> Vec<NamedServers> {
        config.named_servers(&self.found(config))
    }

    /// What the file of each group said last, in the order of the config.
    fn found(&self, config: &Config) -> Vec<Vec<UpstreamServer>> {
        let groups = config.upstreams.iter();
        let found = groups.map(|group| {
            let path = group.resolv_file.as_deref();
            let known = path.and_then(|path| self.last.get(path));
            known.map_or(Vec::new(), |known| known.servers.clone())
        });
        found.collect()
    }
}

/// Cached answers that are no longer to be given.
#[derive(Default)]
pub(super) enum Forget {
    #[default]
    Nothing,
    /// Those of these groups.
    Groups(Vec<u8>),
    Everything,
}

impl Forget {
    pub fn take(&mut self) -> Self {
        std::mem::take(self)
    }

    /// Adds the answers of these groups.
    fn add(&mut self, groups: Vec<u8>) {
        match self {
            Self::Nothing if groups.is_empty() => {}
            Self::Nothing => *self = Self::Groups(groups),
            Self::Groups(earlier) => earlier.extend(groups),
            Self::Everything => {}
        }
    }

    /// Removes them.
    pub fn carry_out(self) {
        match self {
            Self::Nothing => {}
            Self::Groups(groups) => {
                CACHE.remove_of_groups(&groups);
            }
            Self::Everything => {
                CACHE.clear();
            }
        }
    }
}

impl ThreadState {
    /// Reads the files that name upstream servers, where there are any, and has those asked.
    pub(super) fn read_servers(&mut self) {
        if self.config.server_files().is_empty() {
            return;
        }
        self.resolv.read(&self.config);
        // Else they are asked when the next address comes or goes.
        if let Ok(devices) = Devices::read() {
            let plan = self.resolv.plan(&self.config, &devices);
            let links = self.reloader.links().clone();
            self.take_servers(self.config.servers(&plan), links);
        }
        self.forget_replaced();
    }

    /// Notes which servers are named now, and forgets what those have said that are no longer.
    pub(super) fn forget_replaced(&mut self) {
        let now = self.resolv.named(&self.config);
        let replaced = NamedServers::replaced(&self.named, &now);
        self.named = now;
        self.forget.add(replaced);
        CACHE.set_servers(self.config.servers_tag());
    }

    /// The plan is that of the config at the start; the servers are those of the config that was read last.
    pub(super) fn follow_addresses(&mut self, plan: &Plan) {
        let (servers, views) = match Devices::read() {
            Ok(devices) => {
                let plan = self.resolv.plan(&self.config, &devices);
                (self.config.servers(&plan), plan.links)
            }
            Err(_) => {
                let links = self.reloader.links().clone();
                (self.groups.servers.clone(), links)
            }
        };
        let links = plan.links.clone().with_views_of(&views);
        self.take_servers(servers, links);
    }

    fn take_servers(&mut self, servers: Vec<UpstreamConfig>, links: Links) {
        if servers == self.groups.servers && links == *self.reloader.links() {
            return;
        }
        self.groups.servers.clone_from(&servers);
        self.reloader.set_addresses(servers, links);
        self.send_set();
    }
}

/// Logs those faults that are not known yet, and remembers all of them.
fn warn_of_new<T: PartialEq + fmt::Display>(known: &mut Vec<T>, faults: Vec<T>) {
    let new = faults.iter().filter(|fault| !known.contains(fault));
    new.for_each(|fault| warn!("{fault}"));
    *known = faults;
}

fn shown(found: &ResolvConf) -> String {
    let servers: Vec<String> = found.servers.iter().map(ToString::to_string).collect();
    servers.join(", ")
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::path::Path;
    use std::time::Duration;

    use xdnsd_lab::wait::wait_until;

    use super::*;
    use crate::control::commands::PolicyReader as _;
    use crate::daemon::reload::{PolicyThread, Prefixes};
    use crate::testing::Folder;

    const TIMEOUT: Duration = Duration::from_secs(20);

    fn start(file: &Path) -> PolicyThread {
        let config = Config::load(file).expect("valid");
        let plan = config.plan(&Devices::read().expect("devices"));
        let thread = PolicyThread::start(file.into(), &config, &plan, Prefixes::default());
        let thread = thread.expect("started");
        thread.wait_read();
        thread
    }

    fn servers(thread: &PolicyThread) -> Vec<(u8, SocketAddr)> {
        let set = thread.set();
        let servers = set.servers().iter();
        servers
            .map(|server| (server.group, server.to.address))
            .collect()
    }

    fn at(group: u8, addresses: &[&str]) -> Vec<(u8, SocketAddr)> {
        let addresses = addresses
            .iter()
            .map(|address| address.parse().expect("an address"));
        addresses.map(|address| (group, address)).collect()
    }

    fn wait_for(thread: &PolicyThread, what: &str, expected: &[(u8, SocketAddr)]) {
        wait_until(what, TIMEOUT, || servers(thread) == expected).expect("taken");
    }

    #[test]
    fn servers_of_a_file_are_asked_as_they_change_and_stay_where_it_names_none() {
        let folder = Folder::new();
        let resolv = folder.path().join("resolv.conf");
        let rest = "[[upstream]]\nname = \"corp\"\nservers = [\"192.0.2.9\"]\ndomains = [\"corp.example\"]\n";
        let text =
            format!("[[interface]]\nname = \"lo\"\n[[upstream]]\nresolv_file = {resolv:?}\n{rest}");
        let file = folder.write("xdnsd.toml", &text);
        let thread = start(&file);
        let corp = at(1, &["192.0.2.9:53"]);
        let with = |addresses: &[&str]| [at(0, addresses), corp.clone()].concat();
        assert_eq!(servers(&thread), corp, "the file is not there yet");
        let reload = || thread.requester().reload().expect("reloaded").join("\n");
        let told = reload();
        assert!(
            told.contains("resolv.conf: is not there; no server is known from it yet\n"),
            "{told}"
        );

        // As a script of a DHCP client writes it, and as pppd does.
        folder.write(
            "resolv.conf",
            "search lan\nnameserver 192.0.2.1\nnameserver 192.0.2.2\n",
        );
        wait_for(
            &thread,
            "they are asked",
            &with(&["192.0.2.1:53", "192.0.2.2:53"]),
        );
        let other = folder.write(
            "other",
            "nameserver 2001:db8::1\nnameserver 192.0.2.3\nnameserver fe80::1%no-such\n",
        );
        std::fs::rename(other, &resolv).expect("renamed");
        wait_for(
            &thread,
            "the others are",
            &with(&["[2001:db8::1]:53", "192.0.2.3:53"]),
        );

        for (content, why) in [
            ("", "names no server"),
            (
                "# nobody\nnameserver\n",
                "names no server (line 2: a server has an address)",
            ),
        ] {
            folder.write("resolv.conf", content);
            let told = reload();
            let whole = format!(
                "resolv.conf: {why}; asked are those that it named last: [2001:db8::1]:53, 192.0.2.3:53"
            );
            assert!(told.contains(&whole), "{told}");
            assert_eq!(
                servers(&thread),
                with(&["[2001:db8::1]:53", "192.0.2.3:53"])
            );
        }

        // Those of the config come first, and each counts once.
        let text = text.replace("resolv_file", "servers = [\"192.0.2.3\"]\nresolv_file");
        folder.write("xdnsd.toml", text);
        folder.write(
            "resolv.conf",
            "nameserver 192.0.2.4\nnameserver 192.0.2.3\n",
        );
        let told = reload();
        assert!(!told.contains("resolv.conf: "), "{told}");
        assert_eq!(servers(&thread), with(&["192.0.2.3:53", "192.0.2.4:53"]));
    }
}
