//! Recognises files of other programs, by their keywords.

use std::net::IpAddr;

use super::schema::SECTIONS;

/// What dnsmasq's is called.
pub const DNSMASQS: &str = "dnsmasq's configuration";
/// What OpenWrt's is called.
const UCIS: &str = "OpenWrt's UCI";
/// First words of dnsmasq's lines.
const DNSMASQ: &[&str] = &[
    "address",
    "addn-hosts",
    "all-servers",
    "auth-server",
    "auth-zone",
    "bind-dynamic",
    "bind-interfaces",
    "bogus-nxdomain",
    "bogus-priv",
    "cache-size",
    "clear-on-reload",
    "cname",
    "conf-dir",
    "conf-file",
    "dhcp-authoritative",
    "dhcp-boot",
    "dhcp-host",
    "dhcp-hostsfile",
    "dhcp-leasefile",
    "dhcp-option",
    "dhcp-range",
    "dnssec",
    "domain",
    "domain-needed",
    "edns-packet-max",
    "enable-ra",
    "except-interface",
    "expand-hosts",
    "filterwin2k",
    "group",
    "host-record",
    "interface",
    "interface-name",
    "keep-in-foreground",
    "listen-address",
    "local",
    "local-service",
    "local-ttl",
    "localise-queries",
    "log-dhcp",
    "log-facility",
    "log-queries",
    "max-cache-ttl",
    "min-cache-ttl",
    "mx-host",
    "neg-ttl",
    "no-daemon",
    "no-dhcp-interface",
    "no-hosts",
    "no-negcache",
    "no-poll",
    "no-resolv",
    "nftset",
    "ipset",
    "pid-file",
    "port",
    "proxy-dnssec",
    "ptr-record",
    "quiet-dhcp",
    "ra-param",
    "read-ethers",
    "rebind-domain-ok",
    "rebind-localhost-ok",
    "resolv-file",
    "rev-server",
    "server",
    "servers-file",
    "srv-host",
    "stop-dns-rebind",
    "strict-order",
    "trust-anchor",
    "txt-record",
    "user",
];
/// unbound's clauses.
const UNBOUND: &[&str] = &[
    "server:",
    "forward-zone:",
    "stub-zone:",
    "remote-control:",
    "auth-zone:",
    "view:",
    "rpz:",
    "include:",
    "include-toplevel:",
    "cachedb:",
    "dynlib:",
    "python:",
];
/// First words of lines in resolv.conf(5).
const RESOLV_CONF: &[&str] = &["nameserver", "search", "domain", "options", "sortlist"];
/// BIND's statements.
const NAMED: &[&str] = &[
    "options",
    "zone",
    "acl",
    "logging",
    "controls",
    "key",
    "include",
    "view",
    "server",
    "primaries",
];
/// Plugins in CoreDNS's blocks that choose an upstream.
const COREDNS: &[&str] = &["forward", "hosts", "kubernetes", "file"];
/// Calls in Knot Resolver's Lua.
const LUA: &[&str] = &["net.", "policy.add(", "modules.", "modules ="];
/// Keys of dnscrypt-proxy's TOML.
const DNSCRYPT: &[&str] = &["server_names", "listen_addresses", "bootstrap_resolvers"];
/// Keywords of OpenWrt's UCI.
const UCI: &[&str] = &["config", "option", "list", "package"];

/// Name of the other program that `text` belongs to: at least half of its lines match, and it has no section of ours.
#[must_use]
pub fn recognise(text: &str) -> Option<&'static str> {
    let is_comment = |line: &str| line.starts_with(['#', ';']) || line.starts_with("//");
    let lines = text.lines().map(str::trim);
    let lines: Vec<&str> = lines
        .filter(|line| !line.is_empty() && !is_comment(line))
        .collect();
    if lines.is_empty() || lines.iter().any(|line| is_our_section(line)) {
        return None;
    }
    let has = |is_like: fn(&str) -> bool| lines.iter().any(|line| is_like(line));
    let mostly = |is_like: fn(&str) -> bool| {
        lines.iter().filter(|line| is_like(line)).count() * 2 >= lines.len()
    };
    Some(if has(|line| is_dnscrypts(before(line, '='))) {
        "dnscrypt-proxy's configuration"
    } else if lines[0].starts_with('{') {
        "JSON"
    } else if lines[0].starts_with('<') {
        "a web page or XML"
    } else if text.starts_with("#!") {
        "a script"
    } else if has(|line| ["$TTL", "$ORIGIN"].contains(&first(line))) {
        "a zone file"
    } else if has(|line| LUA.iter().any(|call| line.starts_with(call))) {
        "Knot Resolver's configuration"
    } else if lines[0].ends_with('{') && has(|line| COREDNS.contains(&first(line))) {
        "CoreDNS's configuration"
    } else if has(|line| line == "[Resolve]") {
        "systemd-resolved's configuration"
    } else if has(|line| UNBOUND.contains(&first(line))) && mostly(has_colon) {
        "unbound's configuration"
    } else if has(|line| NAMED.contains(&first(line)) && line.ends_with('{')) {
        "BIND's configuration"
    } else if has(|line| first(line) == "config") && mostly(|line| UCI.contains(&first(line))) {
        UCIS
    } else if mostly(|line| RESOLV_CONF.contains(&first(line)) && !line.contains('=')) {
        "resolv.conf"
    } else if mostly(|line| DNSMASQ.contains(&before(line, '=')) && !has_toml_value(line)) {
        DNSMASQS
    } else if mostly(|line| first(line).parse::<IpAddr>().is_ok()) {
        "a hosts file"
    } else if mostly(|line| {
        line.starts_with("||") || line.starts_with("@@") || line.starts_with('!')
    }) {
        "a blocklist"
    } else if mostly(has_colon) {
        "YAML"
    } else {
        return None;
    })
}

/// True for a key of dnscrypt-proxy, whose file is TOML as well.
#[must_use]
pub fn is_dnscrypts(key: &str) -> bool {
    DNSCRYPT.contains(&key)
}

/// What these bytes are, if they are not dnsmasq's configuration for sure: another program's, ours, or no text.
#[must_use]
pub fn not_dnsmasqs(bytes: &[u8]) -> Option<String> {
    if bytes.contains(&0) {
        return Some("is no text file".into());
    }
    let text = String::from_utf8_lossy(bytes);
    if text.lines().any(|line| is_our_section(line.trim())) {
        return Some("is a config of xdnsd's already".into());
    }
    let lines = text.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    let (ours, others): (Vec<&str>, Vec<&str>) =
        lines.partition(|line| DNSMASQ.contains(&before(line, '=')));
    let whose = recognise(&text).filter(|_| ours.len() < others.len())?;
    let hint = match whose {
        UCIS => ", of which OpenWrt makes /var/etc/dnsmasq.conf.*",
        _ => "",
    };
    (whose != DNSMASQS).then(|| format!("looks like {whose}{hint}"))
}

fn is_our_section(line: &str) -> bool {
    let name = line
        .trim_start_matches('[')
        .split([']', '.'])
        .next()
        .unwrap_or_default();
    line.starts_with('[') && SECTIONS.iter().any(|section| section.name == name.trim())
}

fn first(line: &str) -> &str {
    line.split_whitespace().next().unwrap_or_default()
}

fn before(line: &str, end: char) -> &str {
    line.split(end).next().unwrap_or_default().trim()
}

/// True if a value has the form of TOML's text, lists or tables: then the file is meant for us.
fn has_toml_value(line: &str) -> bool {
    let value = line.split_once('=').map(|(_, value)| value.trim_start());
    value.is_some_and(|value| value.starts_with(['"', '\'', '[', '{']))
}

/// `key:` or `key: value`, as in YAML.
fn has_colon(line: &str) -> bool {
    let word = first(line.trim_start_matches("- "));
    let key = word.strip_suffix(':').unwrap_or_default();
    let is_key = |char: char| char.is_ascii_alphanumeric() || "-_.".contains(char);
    !key.is_empty() && key.chars().all(is_key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_other_programs_are_known() {
        for (text, whose) in [
            (
                "# a comment\ndomain-needed\nbogus-priv\nserver=9.9.9.9\n",
                Some("dnsmasq's configuration"),
            ),
            ("cache-size=1000\n", Some("dnsmasq's configuration")),
            (
                "interface=br-lan\ndhcp-range=192.168.1.100,192.168.1.200,12h\n",
                Some("dnsmasq's configuration"),
            ),
            ("port = 53\nno-resolv\n", Some("dnsmasq's configuration")),
            (
                "server:\n  interface: 0.0.0.0\n  access-control: 10.0.0.0/8 allow\n",
                Some("unbound's configuration"),
            ),
            (
                "forward-zone:\n\tname: \".\"\n\tforward-addr: 9.9.9.9\n",
                Some("unbound's configuration"),
            ),
            (
                "include: \"/etc/unbound/x.conf\"\n",
                Some("unbound's configuration"),
            ),
            ("nameserver 9.9.9.9\nsearch lan\n", Some("resolv.conf")),
            ("; made by hand\nnameserver 9.9.9.9\n", Some("resolv.conf")),
            (
                "[Resolve]\nDNS=9.9.9.9\n",
                Some("systemd-resolved's configuration"),
            ),
            (
                "options {\n\tdirectory \"/var\";\n};\n",
                Some("BIND's configuration"),
            ),
            (
                "config dnsmasq\n\toption domain 'lan'\n\tlist server '9.9.9.9'\n",
                Some("OpenWrt's UCI"),
            ),
            ("{ \"dns\": { } }\n", Some("JSON")),
            ("dns:\n  bind_hosts:\n    - 0.0.0.0\n", Some("YAML")),
            ("127.0.0.1 localhost\n::1 localhost\n", Some("a hosts file")),
            ("||ads.example^\n@@||ok.example^\n", Some("a blocklist")),
            (
                ". {\n    forward . 9.9.9.9\n    cache\n}\n",
                Some("CoreDNS's configuration"),
            ),
            (
                "net.listen('127.0.0.1', 53)\n",
                Some("Knot Resolver's configuration"),
            ),
            ("$TTL 1h\n@ SOA a b 1 2 3 4 5\n", Some("a zone file")),
            ("<!DOCTYPE html>\n<html>\n", Some("a web page or XML")),
            ("#!/bin/sh\nset -e\n", Some("a script")),
            (
                "server_names = ['quad9']\n[sources]\n[sources.public]\nurls = ['https://lists.example/']\n",
                Some("dnscrypt-proxy's configuration"),
            ),
            ("interface = \"br-lan\"\n", None),
            ("interface = ['br-lan']\nserver = \"9.9.9.9\"\n", None),
            ("", None),
            ("# nothing\n", None),
            ("[interface]\nname = br-lan\n", None),
            (
                "[[interface]]\nname = \"br-lan\"\nlisten = [192.168.1.1]\n",
                None,
            ),
            ("[ cache ]\nentries =\n", None),
            ("hello world\n", None),
        ] {
            assert_eq!(recognise(text), whose, "{text}");
            // What dnsmasq would read itself is never said to be another's.
            if let Some(whose) = whose {
                let is_others = not_dnsmasqs(text.as_bytes()).is_some();
                assert_eq!(is_others, whose != DNSMASQS, "{text}");
            }
        }
    }

    #[test]
    fn what_is_not_dnsmasqs_is_known_and_a_file_of_it_is_never_said_to_be_anothers() {
        let told = |text: &str| not_dnsmasqs(text.as_bytes());
        for (text, what) in [
            ("\x7fELF\0\0", "is no text file"),
            (
                "# a comment\n[[interface]]\nname = \"lo\"\n",
                "is a config of xdnsd's already",
            ),
            (
                "config dnsmasq\n\toption domain 'lan'\n",
                "looks like OpenWrt's UCI, of which OpenWrt makes /var/etc/dnsmasq.conf.*",
            ),
            (
                "server:\n  interface: 0.0.0.0\n",
                "looks like unbound's configuration",
            ),
            ("domain lan\nnameserver 9.9.9.9\n", "looks like resolv.conf"),
        ] {
            assert_eq!(told(text).as_deref(), Some(what), "{text}");
        }
        for text in [
            "",
            "# nothing\n",
            "domain\n",
            "no-such=1\n",
            "interface=br-lan\ndhcp-range=192.168.1.100,192.168.1.200,12h\n",
            "dhcp-host=02:00:00:00:00:01,192.168.1.2\n",
        ] {
            assert_eq!(told(text), None, "{text}");
        }
    }
}
