//! Contradictions between keys that are valid by themselves.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;

use xdnsd_core::limits;
use xdnsd_core::policy::acl::PREFIXES_MAX;

use super::Config;
use super::error::ConfigText;
use super::explain;
use super::schema::{
    Access, BlockWord, Cache, Control, Edns, Filter, Forward, Identity, Interface, Local,
    NFTSETS_MAX, NftSet, RateLimit, Upstream, View,
};
use super::section::Placed;
use super::types::ClientNetwork;
use super::views::is_named;

use crate::compile::local::{LocalBuilder, LocalInput};
use crate::compile::name;
use crate::compile::routes::parse_suffix;
use crate::os::socket::UNIX_PATH_BYTES_MAX;

/// Maximum length of a character-string in a TXT record, in bytes.
const TEXT_BYTES_MAX: usize = u8::MAX as usize;

/// Checks for sections that contradict each other, and addresses that cannot be listened on.
pub fn interfaces(source: &mut ConfigText, interfaces: &[Placed<Interface>]) {
    if interfaces.is_empty() && !source.has("interface") {
        source.fault(
            "interface",
            "no section says what is served",
            "[[interface]]",
        );
    }
    for (index, placed) in interfaces.iter().enumerate() {
        let (path, interface) = (&placed.path, &placed.section);
        let vlan = format!("{path}.vlan");
        if interface.inner_vlan != 0 && interface.vlan == 0 && source.are_read(&[&vlan]) {
            source.fault(
                &format!("{path}.inner_vlan"),
                "an inner tag needs an outer one",
                "vlan from 1 to 4094",
            );
        }
        addresses(source, path, interface);
        for earlier in &interfaces[..index] {
            one_device(source, placed, earlier);
            overlap(source, placed, earlier);
        }
    }
}

fn addresses(source: &mut ConfigText, path: &str, interface: &Interface) {
    for (index, addr) in interface.listen.iter().enumerate() {
        let path = format!("{path}.listen[{index}]");
        let one_of_ours = "an address of the device, or an empty list for all of them";
        if !is_listenable(addr) {
            source.fault(&path, format!("nobody can listen on {addr}"), one_of_ours);
        }
        if interface.listen[..index].contains(addr) {
            source.fault(&path, format!("{addr} stands twice"), "each address once");
        }
    }
}

fn is_listenable(addr: &IpAddr) -> bool {
    let mapped = matches!(addr, IpAddr::V6(addr) if addr.to_ipv4_mapped().is_some());
    let broadcast = matches!(addr, IpAddr::V4(addr) if addr.is_broadcast());
    !(mapped || broadcast || addr.is_unspecified() || addr.is_multicast())
}

/// True if these keys were read in both sections.
fn are_read_in(source: &ConfigText, sections: [&Placed<Interface>; 2], keys: &[&str]) -> bool {
    let paths = sections.into_iter().flat_map(|placed| {
        let path = &placed.path;
        keys.iter().map(move |key| format!("{path}.{key}"))
    });
    let paths: Vec<String> = paths.collect();
    source.are_read(&paths.iter().map(String::as_str).collect::<Vec<_>>())
}

/// The program is attached once per device, so the sections of a device have to agree on how.
fn one_device(source: &mut ConfigText, placed: &Placed<Interface>, earlier: &Placed<Interface>) {
    let (path, interface) = (&placed.path, &placed.section);
    let both = [placed, earlier];
    let earlier = &earlier.section;
    if interface.name != earlier.name {
        return;
    }
    let name = &interface.name;
    let problem = format!("{name} has another value in an earlier section");
    if interface.xdp != earlier.xdp && are_read_in(source, both, &["xdp"]) {
        source.fault(
            &format!("{path}.xdp"),
            &*problem,
            format!("\"{}\" here too", earlier.xdp.word()),
        );
    }
    if interface.zero_copy != earlier.zero_copy && are_read_in(source, both, &["zero_copy"]) {
        source.fault(
            &format!("{path}.zero_copy"),
            &*problem,
            format!("{} here too", earlier.zero_copy.written()),
        );
    }
}

fn overlap(source: &mut ConfigText, placed: &Placed<Interface>, earlier: &Placed<Interface>) {
    if !are_read_in(
        source,
        [placed, earlier],
        &["vlan", "inner_vlan", "listen", "port"],
    ) {
        return;
    }
    let (path, interface) = (&placed.path, &placed.section);
    let earlier = &earlier.section;
    let same_device = interface.name == earlier.name
        && (interface.vlan, interface.inner_vlan) == (earlier.vlan, earlier.inner_vlan);
    let all = interface.listen.is_empty() || earlier.listen.is_empty();
    let shared = |addr: &IpAddr| earlier.listen.contains(addr);
    let same_addresses = all || interface.listen.iter().any(shared);
    if same_device && interface.port == earlier.port && same_addresses {
        let name = &interface.name;
        let problem = format!("{name} with this VLAN, port and address is in an earlier section");
        source.fault(path, problem, "each once");
    }
}

/// Checks for ambiguous groups, too many servers, and servers that are this forwarder.
pub fn upstreams(
    source: &mut ConfigText,
    upstreams: &[Placed<Upstream>],
    interfaces: &[Placed<Interface>],
    views: &[Placed<View>],
) {
    if upstreams.is_empty() && !source.has("upstream") {
        source.fault("upstream", "no section says whom to ask", "[upstream]");
    }
    let mut servers_total = 0;
    for Placed { path, section } in upstreams {
        servers_total += section.servers.len();
        if servers_total > limits::UPSTREAMS {
            let problem = format!("{servers_total} servers over all groups are too many");
            let allowed = format!("at most {}", limits::UPSTREAMS);
            source.fault(&format!("{path}.servers"), problem, allowed);
        }
        servers(source, path, section, interfaces);
    }
    groups(source, upstreams, views);
    domains(source, upstreams);
}

/// Checks that one group is for all other names, and that names distinguish the groups.
fn groups(source: &mut ConfigText, upstreams: &[Placed<Upstream>], views: &[Placed<View>]) {
    let of_views = |group: &Upstream| {
        let views = views.iter().map(|placed| &placed.section);
        group.domains.is_empty() && is_named(views, group)
    };
    let of_view = upstreams.iter().filter(|placed| of_views(&placed.section));
    let of_view = of_view.count();
    let mut default: Option<&str> = None;
    for (index, Placed { path, section }) in upstreams.iter().enumerate() {
        let same = |earlier: &Placed<Upstream>| earlier.section.name == section.name;
        if upstreams[..index].iter().any(same) {
            let problem = format!("\"{}\" is the name of an earlier group", section.name);
            source.fault(&format!("{path}.name"), problem, "a name of its own");
        }
        if !section.domains.is_empty() || !source.are_read(&[&format!("{path}.domains")]) {
            continue;
        }
        // The group of a view is for its clients, unless there is no other for the rest.
        if of_views(section) {
            continue;
        }
        if let Some(earlier) = default {
            let problem = format!("this group and \"{earlier}\" both have no domains");
            source.fault(path, problem, "one group without domains");
        }
        default = Some(&section.name);
    }
    let are_all = source.are_all("upstream", upstreams.len());
    let mut paths = upstreams.iter().map(|Placed { path, .. }| path);
    let are_read = paths.all(|path| source.are_read(&[&format!("{path}.domains")]));
    if default.is_none() && of_view != 1 && !upstreams.is_empty() && are_all && are_read {
        let problem = match of_view {
            0 => "every group has domains",
            _ => "every group has domains, or is that of a view",
        };
        source.fault(
            "upstream",
            problem,
            "one group without domains, for all other names",
        );
    }
}

/// Checks for a name that belongs to two groups.
fn domains(source: &mut ConfigText, upstreams: &[Placed<Upstream>]) {
    let mut seen: HashMap<Vec<u8>, &str> = HashMap::new();
    for Placed { path, section } in upstreams {
        let group = section.name.as_str();
        for (index, suffix) in section.domains.iter().enumerate() {
            // It was parsed before, so it has names.
            let names = parse_suffix(suffix.as_str()).unwrap_or_default();
            let mut taken = names.iter().filter_map(|name| seen.get(name));
            if let Some(other) = taken.find(|other| **other != group) {
                let problem = format!("{suffix} belongs to group \"{other}\" already");
                let path = format!("{path}.domains[{index}]");
                source.fault(&path, problem, "each name in one group");
            }
            for name in names {
                seen.entry(name).or_insert(group);
            }
        }
    }
}

/// What a group needs.
const SERVERS: &str = "at least one server, or resolv_file = \"/etc/resolv.conf\", for example";

fn servers(
    source: &mut ConfigText,
    path: &str,
    upstream: &Upstream,
    interfaces: &[Placed<Interface>],
) {
    let keys = ["servers", "resolv_file"].map(|key| format!("{path}.{key}"));
    let has_none = upstream.servers.is_empty() && upstream.resolv_file.as_deref().is_none();
    if has_none && source.are_read(&[&keys[0], &keys[1]]) {
        let problem = match source.has(&keys[0]) {
            true => "the list is empty",
            false => "is missing, and there is no resolv_file",
        };
        source.fault(&keys[0], problem, SERVERS);
    }
    for (index, server) in upstream.servers.iter().enumerate() {
        let path = format!("{path}.servers[{index}]");
        if upstream.servers[..index].contains(server) {
            source.fault(&path, format!("{server} stands twice"), "each server once");
        }
        if ENCRYPTED_PORTS.contains(&server.port) {
            let problem = format!(
                "{server}: port {} is that of encrypted DNS, and this asks in plain text: no answer will come; the usual port is 53",
                server.port
            );
            source.warn(&path, problem);
        }
        let ours = |placed: &&Placed<Interface>| {
            placed.section.port == server.port && placed.section.listen.contains(&server.addr)
        };
        if let Some(Placed { section, .. }) = interfaces.iter().find(ours) {
            let problem = format!("{server} is this forwarder itself, on {}", section.name);
            source.fault(&path, problem, "servers elsewhere");
        }
    }
}

/// Ports of DNS over TLS and QUIC (RFC 7858, RFC 9250), and over HTTPS (RFC 8484).
const ENCRYPTED_PORTS: [u16; 2] = [853, 443];

/// Checks the sections that occur once.
pub fn sections(source: &mut ConfigText, config: &Config) {
    times(source, &config.forward, &config.cache);
    local(source, &config.local);
    block_addresses(source, &config.filter);
    networks(source, &config.access);
    reflector_ports(source, &config.access);
    nocookie_size(source, &config.edns);
    socket(source, &config.control);
    identity(source, &config.identity);
}

/// Checks for texts that do not fit one string of a TXT record (RFC 1035 section 3.3.14).
fn identity(source: &mut ConfigText, identity: &Identity) {
    let texts = [
        ("identity.version", &identity.version),
        ("identity.id", &identity.id),
    ];
    for (path, text) in texts {
        if text.len() > TEXT_BYTES_MAX {
            let problem = format!("the text has {} bytes", text.len());
            source.fault(path, problem, format!("at most {TEXT_BYTES_MAX} bytes"));
        }
    }
}

/// Checks for a path that no socket can have.
fn socket(source: &mut ConfigText, control: &Control) {
    let len = control
        .socket
        .as_deref()
        .map_or(0, |path| path.as_os_str().len());
    if len > UNIX_PATH_BYTES_MAX {
        let problem = format!("the path has {len} bytes");
        let allowed = format!("at most {UNIX_PATH_BYTES_MAX} bytes");
        source.fault("control.socket", problem, allowed);
    }
}

/// Checks that related times are in order.
fn times(source: &mut ConfigText, forward: &Forward, cache: &Cache) {
    if cache.min_ttl > cache.max_ttl && source.are_read(&["cache.min_ttl", "cache.max_ttl"]) {
        let problem = format!("{} is more than max_ttl", cache.min_ttl);
        source.fault(
            "cache.min_ttl",
            problem,
            format!("at most {}", cache.max_ttl),
        );
    }
    let keys = [
        "cache.serve_stale",
        "cache.stale_after_ms",
        "forward.give_up_ms",
    ];
    if cache.serve_stale && cache.stale_after_ms >= forward.give_up_ms && source.are_read(&keys) {
        let (stale, give_up) = (cache.stale_after_ms, forward.give_up_ms);
        if source.has("cache.stale_after_ms") {
            let problem = format!("{stale} is not before forward.give_up_ms");
            source.fault(
                "cache.stale_after_ms",
                problem,
                format!("less than {give_up}"),
            );
        } else {
            let problem =
                format!("{give_up} is not after cache.stale_after_ms, by default {stale}");
            source.fault("forward.give_up_ms", problem, format!("more than {stale}"));
        }
    }
}

/// Checks records by adding one after the other, as some exclude each other.
fn local(source: &mut ConfigText, local: &Local) {
    let domains = LocalInput {
        zones: local.zones.iter().map(ToString::to_string).collect(),
        search_domain: local.search.first().map(ToString::to_string),
        ..LocalInput::default()
    };
    let mut builder = match LocalBuilder::new(&domains) {
        Ok(builder) => builder,
        Err(problem) => return source.fault("local.zones", problem.to_string(), ""),
    };
    let mut owners = Vec::new();
    for (index, record) in local.records.iter().enumerate() {
        let added = builder.add_text(record, local.ttl);
        if let Err(problem) = &added {
            let hint = explain::record(record).unwrap_or_default();
            source.fault(
                &format!("local.records[{index}]"),
                format!("`{record}`: {problem}{hint}"),
                "\"NAME [TTL] TYPE DATA\" as in a zone file, the TTL in seconds",
            );
        }
        owners.push(added.unwrap_or_default());
    }
    for (index, problem) in builder.crowded(&owners) {
        source.warn(&format!("local.records[{index}]"), problem);
    }
    // Names that nobody can have do not stop the others.
    for (index, problem) in builder.dead_ends(&owners) {
        source.warn(&format!("local.records[{index}]"), problem);
    }
}

/// Checks the addresses for blocked names.
fn block_addresses(source: &mut ConfigText, filter: &Filter) {
    if !source.are_read(&["filter.answer", "filter.addresses"]) {
        return;
    }
    let wanted = filter.answer == BlockWord::Address;
    if wanted && filter.addresses.is_empty() {
        let problem = "\"address\" needs addresses to answer with";
        source.fault(
            "filter.answer",
            problem,
            "with addresses = [\"192.0.2.1\"], for example",
        );
    }
    if !wanted && !filter.addresses.is_empty() {
        let problem = format!("not used with answer = \"{}\"", filter.answer.word());
        source.fault(
            "filter.addresses",
            problem,
            "with answer = \"address\" alone",
        );
    }
    if let [first, second] = filter.addresses[..]
        && first.is_ipv4() == second.is_ipv4()
    {
        source.fault(
            "filter.addresses[1]",
            format!("{second} is a second of its kind"),
            "one IPv4 and one IPv6 address",
        );
    }
}

/// Checks for a size limit for clients without a cookie while cookies are off.
fn nocookie_size(source: &mut ConfigText, edns: &Edns) {
    let are_read = source.are_read(&["edns.cookies", "edns.nocookie_udp_size"]);
    if are_read && !edns.cookies && usize::from(edns.nocookie_udp_size) < limits::UDP_MESSAGE_MAX {
        source.fault(
            "edns.nocookie_udp_size",
            "without cookies nobody can prove an address",
            format!("cookies = true, or {}", limits::UDP_MESSAGE_MAX),
        );
    }
}

/// Checks for ports that need not or must not be in the list.
fn reflector_ports(source: &mut ConfigText, access: &Access) {
    for (index, port) in access.reflector_ports.iter().enumerate() {
        let problem = match port {
            0 => "nobody asks from port 0, and it never gets an answer",
            53 => "other forwarders ask from port 53",
            port if access.reflector_ports[..index].contains(port) => "this port stands twice",
            _ => continue,
        };
        let path = format!("access.reflector_ports[{index}]");
        source.fault(&path, problem, "each port from 1 to 65535 but 53, once");
    }
}

/// Checks that the limit on queries is not below the one on misses.
pub fn rate_limit(source: &mut ConfigText, rates: &RateLimit) {
    let RateLimit {
        queries, misses, ..
    } = *rates;
    let problem = match misses {
        _ if queries == 0 || (1..=queries).contains(&misses) => return,
        0 => "hits would be limited where misses are not".to_owned(),
        _ => format!("hits would be limited before {misses} misses are"),
    };
    source.fault(
        "rate_limit.queries",
        problem,
        "at least rate_limit.misses, which is to be at least 1; or 0",
    );
}

/// Checks for a network with two actions.
fn networks(source: &mut ConfigText, access: &Access) {
    let lists = [
        ("allow", &access.allow),
        ("refuse", &access.refuse),
        ("drop", &access.drop),
    ];
    let mut seen: Vec<ClientNetwork> = Vec::new();
    for (key, networks) in lists {
        for (index, network) in networks.iter().enumerate() {
            if seen.contains(network) {
                source.fault(
                    &format!("access.{key}[{index}]"),
                    format!("{network} stands twice"),
                    "each network once",
                );
            }
            seen.push(*network);
        }
    }
    if seen.len() > PREFIXES_MAX {
        let problem = format!("{} networks are too many", seen.len());
        source.fault("access", problem, format!("at most {PREFIXES_MAX}"));
    }
}

/// Checks for names and sets that stand twice.
pub fn nft_sets(source: &mut ConfigText, sections: &[Placed<NftSet>]) {
    if sections.len() > NFTSETS_MAX {
        let problem = format!("{} sections are too many", sections.len());
        source.fault("nftset", problem, format!("at most {NFTSETS_MAX}"));
    }
    let mut known: HashMap<Vec<u8>, String> = HashMap::new();
    for Placed { path, section } in sections {
        for (index, text) in section.names.iter().enumerate() {
            let path = format!("{path}.names[{index}]");
            // A name that is none was told of.
            let Ok(name) = name::parse(text.as_str()) else {
                continue;
            };
            match known.entry(name) {
                Entry::Occupied(earlier) => {
                    let problem = format!("{text} stands in {} already", earlier.get());
                    source.fault(&path, problem, "each name once, with all of its sets");
                }
                Entry::Vacant(place) => {
                    place.insert(path);
                }
            }
        }
        for (index, set) in section.sets.iter().enumerate() {
            if section.sets[..index].contains(set) {
                let path = format!("{path}.sets[{index}]");
                source.fault(&path, format!("{set} stands twice"), "each set once");
            }
        }
    }
}
