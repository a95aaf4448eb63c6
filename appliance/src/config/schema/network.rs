//! Where queries come in, and where misses go.

use std::net::IpAddr;

use xdnsd_core::limits;
use xdnsd_core::policy::ranges::PREFIXES_MAX;

use super::{DEFAULT, optional, section};
use crate::config::server::UpstreamServer;
use crate::config::types::{AnswerNetwork, InterfaceName, OptionalPath, Suffix};
use crate::config::value::words;
use crate::config::zero_copy::ZeroCopy;

words! {
    /// How the XDP program is attached.
    XdpMode {
        /// In the driver where possible, else generic; where both fail, and on lo and tunnels, the kernel's sockets serve alone.
        Auto = "auto",
        /// In the driver only.
        Native = "native",
        /// After the driver, on any device: slower, for tests and for drivers without XDP.
        Generic = "generic",
        /// Off: the kernel's sockets serve alone.
        Off = "off",
    }
}

words! {
    /// Whether the kernel's routing table is asked before a reply goes back the way its query came.
    RouteCheck {
        /// On interfaces with VLAN devices; over IPv4 also where the kernel checks strictly (rp_filter of all or of it is 1, none 2).
        Auto = "auto",
        /// For every query.
        Always = "always",
        /// Never: the reply goes to the MAC address that the query came from.
        Never = "never",
    }
}

section! {
    /// An interface, or one VLAN on it, that is served. Stands once for each.
    Interface = "interface", many: true {
        /// The network interface that carries the frames, as `ip link` shows it: the port or the bridge, not a VLAN
        /// device on it. Of a bridge its ports get the XDP program.
        name: InterfaceName;
        /// VLAN ID of the queries, on a VLAN device that exists. 0: untagged. Of a bridge that filters VLANs, the VLAN as the
        /// bridge's own device has it; each port may have it with a tag or without.
        vlan: u16 = 0, 0..=4094;
        /// VLAN ID of the inner tag where queries carry two (802.1ad). 0: one tag.
        inner_vlan: u16 = 0, 0..=4094;
        /// Addresses of the router to answer on. Empty: every address that the device has, as they come and go.
        listen: Vec<IpAddr> = Vec::new(), 0..=limits::ADDRESSES_MAX as u64;
        /// UDP and TCP port to answer on.
        port: u16 = 53, 1..=65535;
        /// How the XDP program is attached. The same in every section with this name.
        xdp: XdpMode = XdpMode::Auto;
        /// Whether AF_XDP may share the driver's own buffers. Copies where the driver cannot. true: each queue has a worker for
        /// itself. "auto": only queues at which the driver shares have. The same in every section with this name.
        zero_copy: ZeroCopy = ZeroCopy::Off;
        /// Whether the kernel's routing table is asked before a reply goes back the way its query came. Where the routes
        /// would send it elsewhere, or to another MAC address, the query is left to the kernel. Needs forwarding
        /// (net.ipv4.ip_forward, net.ipv6.conf.all.forwarding): without, the kernel tells no routes, and all queries are left to it.
        route_check: RouteCheck = RouteCheck::Auto;
    }
}

words! {
    /// Which server of a group is asked first.
    StrategyWord {
        /// The first in the list that is not silent.
        Ordered = "ordered",
        /// The one that usually answers first.
        Fastest = "fastest",
        /// Two at once; the first good answer counts.
        Race = "race",
    }
}

words! {
    /// Where the source ports of questions to upstream servers come from.
    UpstreamPorts {
        /// By sk_lookup where the kernel has and permits it, else connected.
        Auto = "auto",
        /// A raw socket sends, an sk_lookup program (BPF, Linux 5.17) brings answers back; else as connected, with a warning.
        Lookup = "sk_lookup",
        /// A connected socket for each question, closed with it.
        Connected = "connected",
    }
}

words! {
    /// Which server of one group is asked first.
    GroupStrategyWord {
        /// As `[forward]` says.
        Usual = "usual",
        /// The first in the list that is not silent.
        Ordered = "ordered",
        /// The one that usually answers first.
        Fastest = "fastest",
        /// Two at once; the first good answer counts.
        Race = "race",
    }
}

impl GroupStrategyWord {
    /// What the group has of its own.
    #[must_use]
    pub const fn own(self) -> Option<StrategyWord> {
        match self {
            Self::Usual => None,
            Self::Ordered => Some(StrategyWord::Ordered),
            Self::Fastest => Some(StrategyWord::Fastest),
            Self::Race => Some(StrategyWord::Race),
        }
    }
}

section! {
    /// A group of upstream servers. The group without `domains` is the default one, for all other names; if it is the only
    /// group, `[upstream]` may stand for it.
    Upstream = "upstream", many: true {
        /// The group's name, in logs and statistics.
        name: String = String::from("default");
        /// The servers, in the order in which they are asked where the strategy is `ordered`. They may be left out where
        /// `resolv_file` has some. `@wan1` behind a server binds questions to it to that interface (SO_BINDTODEVICE) or VRF,
        /// `@198.51.100.7` to that source address, `@wan1@198.51.100.7` to both; it is asked as soon as these are there.
        /// dnsmasq writes them alike, unbound has `outgoing-interface` for all servers.
        servers: Vec<UpstreamServer> = Vec::new(), 0..=limits::UPSTREAMS as u64;
        /// A file in the format of resolv.conf(5) that names further servers of this group: such as a DHCP client, pppd or whoever
        /// reads router advertisements writes. It is read anew when it changes; while it is missing or names none, those that it
        /// named last are asked. Its search domains and options are ignored. dnsmasq has `resolv-file` for it.
        resolv_file: OptionalPath = OptionalPath::default();
        /// Names that are asked for here, each with all below it, and reverse zones by prefix. The longest name wins.
        domains: Vec<Suffix> = Vec::new();
        /// Whether the AD bit of these servers is passed on. For servers that validate, over a path that is secure (RFC 6840
        /// section 5.8).
        trusted: bool = false;
        /// Whether these servers are asked with EDNS (RFC 6891). A server that drops such queries is detected, which costs its
        /// first questions 0.4 seconds each, and again every quarter of an hour; false skips the attempt. Without EDNS, DNSSEC
        /// is lost and answers above 512 bytes come over TCP.
        edns: bool = true;
        /// Which server of this group is asked first.
        strategy: GroupStrategyWord = GroupStrategyWord::Usual;
    }
}

section! {
    /// How upstream servers are asked.
    Forward = "forward", many: false {
        /// Which server of a group is asked first, where the group does not say. When one takes longer than it usually does, the next is asked, too.
        strategy: StrategyWord = StrategyWord::Ordered;
        /// Milliseconds after which a client gets SERVFAIL if all servers were silent.
        give_up_ms: u32 = DEFAULT.give_up_ms as u32, 500..=30_000;
        /// Whether the letter case of names is made random on the way to upstream (0x20): harder to spoof. A server that
        /// loses the case is asked again over TCP, and after three names in a row in lower case, for a quarter of an hour.
        random_case: bool = DEFAULT.random_case;
        /// Seconds for which a failure is cached, so that a broken domain is asked for less often (RFC 9520).
        failure_ttl: u32 = DEFAULT.failure_ttl_secs, 1..=30;
        /// The most questions for new names under one domain (the last two labels of a name) that a worker has in flight; at
        /// most as many as it has places free, or 4. Further ones get SERVFAIL at once. So a flood of random names under a domain,
        /// from however many addresses, leaves places to other names. Clients over TCP or with a valid DNS cookie are exempt.
        /// 0: unlimited.
        zone_questions: u16 = DEFAULT.bounds.zone, 0..=limits::PENDING as u64;
        /// The most questions for new names that a worker has in flight to one of several groups of servers, so that a silent
        /// group leaves places to the others. One more ends the oldest question to that group of the client that has the most.
        /// 0: unlimited.
        group_questions: u16 = DEFAULT.bounds.group, 0..=limits::PENDING as u64;
        /// Addresses by which a provider's servers answer for names that do not exist, to lead to a page of its own. An answer
        /// with one of them becomes NXDOMAIN, for `filter.ttl` seconds. dnsmasq has `bogus-nxdomain` for it.
        bogus_nxdomain: Vec<AnswerNetwork> = Vec::new(), 0..=PREFIXES_MAX as u64;
        /// Whether clients get no IPv4 addresses from upstream servers: such an answer becomes NODATA, for `filter.ttl` seconds.
        /// Names that are answered here keep theirs, and HTTPS and SVCB records their address hints. dnsmasq has `filter-A` for
        /// it.
        filter_a: bool = false;
        /// Whether clients get no IPv6 addresses from upstream servers, likewise: where this network has IPv6 and the way out has
        /// none. dnsmasq has `filter-AAAA` for it.
        filter_aaaa: bool = false;
        /// Microseconds for which a worker that has just asked busy-polls for the answer before it sleeps, where the latest
        /// answer came that soon: servers on this machine or beside it. 0: never, which saves power.
        busy_poll_us: u32 = 100, 0..=1000;
        /// Where the source ports of questions to upstream servers come from. Each question has a random one of its own, open
        /// to its server alone until the answer is due.
        upstream_ports: UpstreamPorts = UpstreamPorts::Auto;
    }
}
