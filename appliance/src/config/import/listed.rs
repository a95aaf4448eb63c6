//! Options of dnsmasq that have no key here, and what is to be said of them.

/// DHCP, router advertisements, booting over the network: dnsmasq goes on with them.
const DHCP: &str = "not DNS: stays with dnsmasq, which may run beside xdnsd with port=0";
const PROCESS: &str = "the service's unit or script says so: xdnsd run --user";
const PORTS: &str = "each question has a random port of its own, see forward.upstream_ports";
const SO_ANYWAY: &str = "is always so here";
const NONE: &str = "has no key here";
const AUTH: &str = "xdnsd is authoritative for local.zones alone, and transfers no zones";
const DNSSEC: &str =
    "no validation here: name servers that validate, and trusted = true in their group";
const LOG: &str = "the log is on standard error; queries: xdnsd tail";
const CLIENT_IDS: &str = "nothing about a client is told upstream";

/// What is said of an option. `None`: dnsmasq has none of this name either.
pub fn why(option: &str) -> Option<&'static str> {
    let is_dhcp = [
        "dhcp-", "tftp-", "pxe-", "ra-", "no-dhcp", "bootp-", "quiet-",
    ];
    if is_dhcp.iter().any(|begin| option.starts_with(begin)) {
        return Some(DHCP);
    }
    let (_, why) = LISTED
        .iter()
        .find(|(options, _)| options.contains(&option))?;
    Some(why)
}

const LISTED: &[(&[&str], &str)] = &[
    (
        &[
            "read-ethers",
            "leasefile-ro",
            "log-dhcp",
            "enable-ra",
            "enable-tftp",
            "bridge-interface",
            "shared-network",
            "no-ping",
            "script-arp",
            "script-on-renewal",
        ],
        DHCP,
    ),
    (
        &[
            "user",
            "group",
            "pid-file",
            "keep-in-foreground",
            "no-daemon",
            "version",
            "help",
            "test",
        ],
        PROCESS,
    ),
    (&["query-port", "port-limit", "min-port", "max-port"], PORTS),
    (
        &[
            "bind-interfaces",
            "bind-dynamic",
            "no-poll",
            "cache-rr",
            "no-ident",
            "strip-mac",
            "strip-subnet",
        ],
        SO_ANYWAY,
    ),
    (
        &["bogus-priv"],
        "is so by default: local.special has \"private-reverse\"",
    ),
    (
        &["local-service"],
        "is so by default: access.others = \"local\"",
    ),
    (
        &["expand-hosts"],
        "is so wherever local.search has a domain",
    ),
    (
        &["clear-on-reload"],
        "what is cached is looked at again after a reload; xdnsd cache flush",
    ),
    (
        &["log-queries", "log-facility", "log-async", "log-debug"],
        LOG,
    ),
    (
        &[
            "dnssec",
            "trust-anchor",
            "dnssec-debug",
            "dnssec-check-unsigned",
            "dnssec-no-timecheck",
            "dnssec-timestamp",
            "dnssec-limits",
        ],
        DNSSEC,
    ),
    (
        &[
            "auth-server",
            "auth-zone",
            "auth-ttl",
            "auth-soa",
            "auth-sec-servers",
            "auth-peer",
        ],
        AUTH,
    ),
    (
        &["add-mac", "add-subnet", "add-cpe-id", "umbrella"],
        CLIENT_IDS,
    ),
    (
        &["conf-script"],
        "a config does not run programs: have it write a file, and include that",
    ),
    (
        &["dns-forward-max"],
        "see forward.zone_questions and group_questions",
    ),
    (&["max-tcp-connections"], "the number is fixed; see [tcp]"),
    (
        &["fast-dns-retry"],
        "the next server is asked when one takes longer than it usually does",
    ),
    (&["edns-packet-max"], "see edns.nocookie_udp_size"),
    (&["neg-ttl"], "a negative answer without SOA is not cached"),
    (
        &["max-ttl"],
        "cache.max_ttl is for all answers that are cached",
    ),
    (
        &["localise-queries"],
        "a name has the same addresses for all; see [[view]]",
    ),
    (
        &["mx-target", "selfmx", "localmx"],
        "write the MX records that are wanted into local.records",
    ),
    (
        &[
            "filterwin2k",
            "filter-rr",
            "ignore-address",
            "alias",
            "interface-name",
            "dynamic-host",
            "naptr-record",
            "caa-record",
            "dns-rr",
            "synth-domain",
            "ipset",
            "connmark-allowlist",
            "connmark-allowlist-enable",
            "conntrack",
            "enable-dbus",
            "enable-ubus",
            "dns-loop-detect",
            "dumpfile",
            "dumpmask",
            "tag-if",
        ],
        NONE,
    ),
];
