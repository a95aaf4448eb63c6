//! Where the upstream servers of a config and of its files are.

use std::net::IpAddr;

use xdnsd_core::forward::via::Destination;
use xdnsd_core::limits;

use super::{Devices, Endpoint, LeftOut, is_local_of};
use crate::config::error::ConfigText;
use crate::config::server::UpstreamServer;
use crate::config::{Config, Upstream};

/// Those of each group, and those of files that are not asked. `found`: those of its file. One server of a group without others comes before the second of another file.
pub fn all(
    source: &mut ConfigText,
    config: &Config,
    devices: &Devices,
    found: &[Vec<UpstreamServer>],
    endpoints: &[Endpoint],
) -> (Vec<Vec<Destination>>, Vec<LeftOut>) {
    let (mut all, mut left_out) = (Vec::new(), Vec::new());
    let named: usize = config
        .upstreams
        .iter()
        .map(|group| group.servers.len())
        .sum();
    let mut room = limits::UPSTREAMS.saturating_sub(named);
    let lives_on_file = |(group, upstream): (usize, &Upstream)| {
        let has_file = found.get(group).is_some_and(|found| !found.is_empty());
        upstream.servers.is_empty() && has_file
    };
    let groups = || config.upstreams.iter().enumerate();
    for (group, upstream) in groups() {
        let others = groups()
            .skip(group + 1)
            .filter(|other| lives_on_file(*other));
        let allowed = room.saturating_sub(others.count());
        let path = format!("upstream[{group}]");
        let of_config = upstream.servers.iter().enumerate();
        let of_config =
            of_config.map(|(index, server)| (Some(format!("{path}.servers[{index}]")), server));
        let of_file = found.get(group).into_iter().flatten();
        let of_file = of_file.map(|server| (None, server));
        let mut servers = Vec::new();
        for (path, server) in of_config.chain(of_file) {
            match (destination(devices, server, endpoints), path) {
                (Ok(to), _) if servers.contains(&to) => {}
                (Ok(to), _) => servers.push(to),
                (Err((problem, allowed)), Some(path)) => source.fault(&path, problem, allowed),
                // Somebody else's file: what there is here is no help.
                (Err((problem, _)), None) => left_out.push(LeftOut {
                    group,
                    server: Some(server.clone()),
                    problem,
                }),
            }
        }
        let added = servers.len().saturating_sub(upstream.servers.len());
        if added > allowed {
            let more = added - allowed;
            servers.truncate(servers.len() - more);
            left_out.push(too_many(group, more));
        }
        room -= added.min(allowed);
        all.push(servers);
    }
    (all, left_out)
}

fn too_many(group: usize, more: usize) -> LeftOut {
    let most = limits::UPSTREAMS;
    LeftOut {
        group,
        server: None,
        problem: format!(
            "{more} servers are too many and are not asked: at most {most} over all groups"
        ),
    }
}

/// Where a server is, and the way to it.
///
/// # Errors
/// It is this forwarder, or the way is not there, or not yet: what is wrong, and what there is.
fn destination(
    devices: &Devices,
    server: &UpstreamServer,
    endpoints: &[Endpoint],
) -> Result<Destination, (String, String)> {
    let ours = |end: &Endpoint| end.addr == server.addr && end.port == server.port;
    if server.zone.is_none() && endpoints.iter().any(ours) {
        let problem = format!("{server} is this forwarder itself");
        return Err((problem, "servers elsewhere".to_owned()));
    }
    way(devices, server).map_err(|(problem, allowed)| (format!("{server}: {problem}"), allowed))
}

/// The way to a server.
fn way(devices: &Devices, server: &UpstreamServer) -> Result<Destination, (String, String)> {
    let index_of = |name: &str| devices.named(name).map(|device| device.index);
    let to = server.destination(index_of);
    let to = to.ok_or_else(|| ("no such interface".to_owned(), devices.names()))?;
    let interface = server.interface.as_ref();
    let device = interface.and_then(|name| devices.named(name.as_str()));
    if let Some(device) = device
        && let Some(master) = &device.port_of
    {
        let name = &device.name;
        let problem = format!("{name} is a port of {master}, which has the addresses");
        let allowed = master.split(' ').next_back().unwrap_or_default();
        return Err((problem, allowed.to_owned()));
    }
    match to.egress.source {
        Some(source) if !devices.have(source) => {
            let problem = format!("{source} is not an address of this machine");
            Err((problem, devices.addresses_like(source)))
        }
        Some(_) | None => Ok(to),
    }
}

impl Devices {
    /// True if the kernel sends from an address.
    fn have(&self, addr: IpAddr) -> bool {
        let mut devices = self.0.iter();
        devices.any(|device| device.addresses.contains(&addr) || is_local_of(device, addr))
    }

    /// All addresses of the same family, for a message.
    fn addresses_like(&self, addr: IpAddr) -> String {
        let all = self.0.iter().flat_map(|device| &device.addresses);
        let of_family = all.filter(|other| other.is_ipv4() == addr.is_ipv4());
        let shown: Vec<String> = of_family.map(IpAddr::to_string).collect();
        shown.join(", ")
    }
}
