//! Where the upstream servers of a config and of its files are.

use std::net::SocketAddr;

use xdnsd_core::limits;

use super::{Devices, Endpoint};
use crate::config::error::ConfigText;
use crate::config::types::UpstreamServer;
use crate::config::{Config, Upstream};

/// Those of each group. `found`: those of its file. One server of a group without others comes before the second of another file.
pub fn all(
    source: &mut ConfigText,
    config: &Config,
    devices: &Devices,
    found: &[Vec<UpstreamServer>],
    endpoints: &[Endpoint],
) -> Vec<Vec<SocketAddr>> {
    let mut all = Vec::new();
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
            of_config.map(|(index, server)| (format!("{path}.servers[{index}]"), server));
        let of_file = found.get(group).into_iter().flatten();
        let of_file = of_file.map(|server| (format!("{path}.resolv_file"), server));
        let mut servers = servers(source, devices, of_config.chain(of_file), endpoints);
        let added = servers.len().saturating_sub(upstream.servers.len());
        if added > allowed {
            let more = added - allowed;
            servers.truncate(servers.len() - more);
            let problem = format!("{more} servers are too many and are not asked");
            let most = format!("at most {} over all groups", limits::UPSTREAMS);
            source.fault(&format!("{path}.resolv_file"), problem, most);
        }
        room -= added.min(allowed);
        all.push(servers);
    }
    all
}

/// Where the servers of a group are, each once. With each comes the path of the key that names it.
fn servers<'s>(
    source: &mut ConfigText,
    devices: &Devices,
    servers: impl Iterator<Item = (String, &'s UpstreamServer)>,
    endpoints: &[Endpoint],
) -> Vec<SocketAddr> {
    let mut addrs = Vec::new();
    for (path, server) in servers {
        let ours = |end: &Endpoint| end.addr == server.addr && end.port == server.port;
        if server.zone.is_none() && endpoints.iter().any(ours) {
            let problem = format!("{server} is this forwarder itself");
            source.fault(&path, problem, "servers elsewhere");
            continue;
        }
        match server.socket_addr(|zone| devices.named(zone).map(|device| device.index)) {
            Some(addr) if addrs.contains(&addr) => {}
            Some(addr) => addrs.push(addr),
            None => source.fault(
                &path,
                format!("{server}: no such interface"),
                devices.names(),
            ),
        }
    }
    addrs
}
