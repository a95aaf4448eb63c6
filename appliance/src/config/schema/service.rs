//! Cache, protocol options, log and identification.

use xdnsd_core::limits;

use super::{DEFAULT, optional, section};
use crate::config::types::{
    ClientNetwork, CookieSecret, FilePath, HttpAddress, InterfaceName, OptionalPath,
};
use crate::config::value::words;

words! {
    /// Where answers that are asked for often are given.
    Tier0Word {
        /// By user space, as all others.
        Off = "off",
        /// In the kernel, but where answers do not leave, or nobody could tell: behind a veth pair whose other end cannot be asked.
        Auto = "auto",
        /// In the kernel, but where answers are known not to leave.
        On = "on",
    }
}

section! {
    /// Answers that are kept.
    Cache = "cache", many: false {
        /// Answers kept at most; 0: none. When it is full, those that nobody asks for make room.
        entries: u32 = limits::CACHE_ENTRIES as u32, 0..=limits::CACHE_ENTRIES as u64;
        /// Seconds that an answer is kept at least, whatever its TTL says. TTL 0 is never kept.
        min_ttl: u32 = DEFAULT.ttl.min_secs, 0..=3600;
        /// Seconds that an answer is kept at most.
        max_ttl: u32 = DEFAULT.ttl.max_secs, 1..=604_800;
        /// Seconds that NXDOMAIN and NODATA are kept at most (RFC 2308).
        negative_max_ttl: u32 = DEFAULT.ttl.negative_max_secs, 0..=86_400;
        /// Whether an answer whose TTL is over is given when no server answers, with TTL 30 (RFC 8767).
        serve_stale: bool = DEFAULT.serve_stale;
        /// Seconds after its TTL for which such an answer is good enough.
        stale_max_ttl: u32 = DEFAULT.stale_max_secs, 1..=604_800;
        /// Milliseconds that a client waits for a fresh answer before it gets such an answer.
        stale_after_ms: u32 = DEFAULT.stale_after_ms as u32, 0..=10_000;
        /// Whether a name that is asked for in the last tenth of its TTL is fetched anew, before it is missed.
        prefetch: bool = DEFAULT.prefetch;
        /// Whether the addresses of a name change their order from answer to answer.
        rotate: bool = DEFAULT.rotate;
        /// Whether an answer that is asked for often is given by the XDP program, to clients that were answered before, without that
        /// user space wakes up. Not while its addresses change their order, see `rotate`. It is new: `off` until it has proved
        /// itself. Where such answers do not leave, as the driver or the other end of a veth pair says, user space gives them. Holds
        /// from the start on.
        tier0: Tier0Word = Tier0Word::Off;
        /// File that carries the cache over a restart. A second one beside it, with the ending `.old`, is the
        /// generation before.
        snapshot: OptionalPath = OptionalPath::default();
        /// Seconds between two snapshots at least. Flash wears out: keep it long there.
        snapshot_interval_secs: u32 = 3600, 1..=604_800;
    }
}

words! {
    /// How much is logged.
    LogLevel {
        /// Nothing.
        Off = "off",
        /// What stops a part of the service.
        Error = "error",
        /// What is wrong and is worked around.
        Warn = "warn",
        /// Start, stop, modes and statistics.
        Info = "info",
        /// Decisions that are taken rarely.
        Debug = "debug",
        /// Everything but packets, and what libraries say of themselves.
        Trace = "trace",
    }
}

words! {
    /// Whether each line of the log begins with `<N>`, its level as syslog counts it.
    PriorityWord {
        /// Where standard error is systemd's journal or the kernel's log: both read it and take it off.
        Auto = "auto",
        /// Always, for a program behind it that reads it, such as `logger --prio-prefix`.
        Always = "always",
        /// Never.
        Never = "never",
    }
}

section! {
    /// The log, on standard error. It never holds anything up: lines that nobody takes are counted and told of later.
    /// Both keys hold from the next reload on.
    Log = "log", many: false {
        /// How much is logged. Nothing is ever logged per packet.
        level: LogLevel = LogLevel::Info;
        /// Whether each line begins with `<N>`, its level as syslog counts it.
        priority: PriorityWord = PriorityWord::Auto;
    }
}

section! {
    /// Statistics in the log.
    Statistics = "statistics", many: false {
        /// Seconds between two reports of rates per queue and per CPU. 0: none.
        interval_secs: u32 = 0, 0..=86_400;
    }
}

words! {
    /// What the group of the control socket may do.
    GroupWord {
        /// Ask for what shows something and changes nothing, which is all that a program needs that watches.
        Read = "read",
        /// Everything, as with the sockets of Knot and unbound.
        All = "all",
    }
}

section! {
    /// The control socket, which `xdnsd stats`, `upstreams`, `cache` and `reload` use.
    Control = "control", many: false {
        /// UNIX socket, for root and the account that serves.
        socket: OptionalPath = "/run/xdnsd/control.sock".parse().expect("an absolute path");
        /// A group that may use it as well, by its name in /etc/group or its number (mode 0660). Empty: none. An account that is not
        /// root's has to be a member.
        group: String = String::new();
        /// What the group may do.
        group_may: GroupWord = GroupWord::Read;
    }
}

section! {
    /// Metrics over HTTP and a status page. They are given by `xdnsd web FILE`, a process of its own that asks over the control socket
    /// and needs no right but that; nothing else reads this section.
    Web = "web", many: false {
        /// Where it listens: `/` is the page, `/metrics` is for Prometheus. None: it is off.
        listen: Vec<HttpAddress> = Vec::new(), 0..=8;
        /// Whom it answers, besides this machine.
        allow: Vec<ClientNetwork> = Vec::new(), 0..=64;
        /// Names that it may be asked by, besides addresses and `localhost`, such as "router.lan". Else a page of somebody else's could
        /// read it in a browser that is let in.
        hosts: Vec<String> = Vec::new(), 0..=16;
    }
}

section! {
    /// EDNS (RFC 6891).
    Edns = "edns", many: false {
        /// Whether DNS cookies are given and checked (RFC 7873).
        cookies: bool = true;
        /// The secret that cookies are made with, and the one before, whose cookies are still good. For several servers
        /// behind one address (RFC 9018 section 5). Empty: drawn at the start, changed every day.
        cookie_secrets: Vec<CookieSecret> = Vec::new(), 0..=2;
        /// Longest answer in bytes that a client without a valid DNS cookie gets over UDP; it has to ask for a longer one over
        /// TCP. Below 1232, forged queries gain less.
        nocookie_udp_size was unknown_client_max: u16 = limits::UDP_MESSAGE_MAX as u16, 512..=limits::UDP_MESSAGE_MAX as u64;
    }
}

section! {
    /// DNS over TCP (RFC 7766).
    Tcp = "tcp", many: false {
        /// Seconds after which an idle connection is closed.
        idle_secs: u16 = 10, 1..=120;
    }
}

words! {
    /// When SYN cookies are given.
    SynCookiesWord {
        /// Never: the kernel answers SYNs.
        Off = "off",
        /// While more SYNs come than are completed, see `syn_threshold`.
        Auto = "auto",
        /// Always.
        Always = "always",
    }
}

const _: () = assert!(
    xdnsd_abi::GUARDED_MAX == 20 && xdnsd_abi::PREFIXES_MAX == 10_000,
    "the reference says so"
);

section! {
    /// What keeps floods away. It holds from the start on; a reload changes nothing of it but denied and allowed prefixes.
    Shield = "shield", many: false {
        /// Whether the XDP programs drop what can be nothing but an attack on a port that is answered on: DNS responses to port 53,
        /// packets from the very address that they go to, or from another one of the same device, and datagrams that are longer
        /// than their packet or too short for a DNS header. Nobody would answer any of it; dropped here it costs least. What is
        /// merely unusual passes. To be switched off where this machine masquerades, on an address that is answered on, for
        /// resolvers that ask from port 53, or where a program of its own sends from port 53 of such an address.
        drop_garbage: bool = true;
        /// Prefixes whose packets to an address that is answered on are dropped, whatever they carry, before everything else. By
        /// the XDP programs alone: where there is none, `access.drop` says who gets no answer. The longest prefix of `deny`,
        /// `allow` and their files decides; a reload reads them again.
        deny: Vec<ClientNetwork> = Vec::new(), 0..=xdnsd_abi::PREFIXES_MAX as u64;
        /// Files of such prefixes, one or an address a line, with comments behind `#` or `;`: Spamhaus' DROP, FireHOL's netsets. A
        /// file with a line that is neither is not used: `check` notes it, a start warns and goes on without the file, and a reload
        /// leaves all prefixes as they were. There is room for 10000 prefixes of the config and its files, and for 64 more that are
        /// said by `xdnsd shield`. What is too much is left out, and the log says how many of which file: first come those of the
        /// config itself, then the files in their order, and of both those that are allowed before those that are denied.
        deny_files: Vec<FilePath> = Vec::new();
        /// Prefixes whose packets are not dropped, though a shorter one is denied, or the same one.
        allow: Vec<ClientNetwork> = Vec::new(), 0..=xdnsd_abi::PREFIXES_MAX as u64;
        /// Files of such prefixes.
        allow_files: Vec<FilePath> = Vec::new();
        /// Whether the XDP programs answer SYNs to TCP port 53 (or the interface's `port`), and to `ports`, with the kernel's own
        /// SYN cookies, so that a flood of forged SYNs never reaches the kernel. Needs Linux 6.0. While they are given,
        /// net.ipv4.tcp_syncookies is 2, for all of this machine; it is put back at the end. The firewall sees nothing of such a
        /// SYN and its answer.
        syn_cookies: SynCookiesWord = SynCookiesWord::Off;
        /// Whether connections that begin with a cookie keep what the client offers of window scale, SACK and timestamps, as with
        /// the kernel's own cookies. They travel in the timestamp, so a client without one has none of them, and
        /// net.ipv4.tcp_timestamps is 2 in place of 1 while cookies are given: timestamps of new connections then tell for how
        /// long this machine runs. Where it is 0, or this is false, such connections have an MSS and no other TCP option.
        tcp_options: bool = true;
        /// For so many seconds after a client has brought a cookie back its SYNs are the kernel's to answer, without a cookie of
        /// the program. 0: it is asked each time. Who sends SYNs in the name of such a client reaches the kernel.
        verified_secs: u16 = 0, 0..=3600;
        /// TCP ports of this machine that are guarded besides, on the addresses that are answered on: `[22, 443]`. Where nobody
        /// listens on one, the kernel answers as ever. 20 addresses with a port can be guarded on each interface. Not for a port
        /// where somebody listens and the firewall translates to another host (Docker publishes such ones), or that masqueraded
        /// connections may have: theirs would end. Nor for clients that sign segments (TCP-MD5, TCP-AO).
        ports: Vec<u16> = Vec::new(), 0..=7;
        /// With `auto`: SYNs a second that nobody completes, from which cookies are given.
        syn_threshold: u32 = 200, 1..=1_000_000;
        /// With `auto`: seconds for which there have to be fewer until they end.
        calm_secs: u32 = 60, 1..=3600;
        /// Where it is written down what net.ipv4.tcp_syncookies was, while it is 2: after a kill the next start puts it
        /// back; and with `.timestamps` behind its name what net.ipv4.tcp_timestamps was. Empty: nowhere.
        state_file: OptionalPath = "/var/lib/xdnsd/tcp_syncookies".parse().expect("an absolute path");
    }
}

section! {
    /// How much each client may ask over UDP: so that nobody has this forwarder flood somebody in a forged name, or others
    /// wait. Who has a valid DNS cookie (`edns.cookies`), comes over TCP or is this machine itself is not limited. A neighbour counts
    /// for itself; who comes through a router counts together with its /24 (IPv4) or /56 (IPv6). What is too much is answered with
    /// TC a few times a second, so that a real client comes back over TCP, and dropped otherwise. XDP programs keep the limit of queries
    /// as well, from Linux 5.18 on, so that such a flood costs least.
    RateLimit = "rate_limit", many: false {
        /// Queries a second. 0: no limit. Not without `misses`, nor fewer than those: what the cache answers is never limited before
        /// what it cannot.
        queries: u32 = 0, 0..=1_000_000;
        /// Questions a second that the cache cannot answer and that nobody waits for already. 0: no limit.
        misses: u32 = 0, 0..=1_000_000;
        /// So many seconds' worth of both a client may ask for at once, when it has been quiet as long.
        burst_secs: u32 = 5, 1..=60;
        /// Queries a second of each client that are answered with TC beyond that. 0: none.
        slips: u32 = 5, 0..=1000;
    }
}

const _: () = assert!(xdnsd_abi::PROTECTED_MAX == 64, "the reference says so");

words! {
    /// When clients of hosts behind this one are asked.
    AskWord {
        /// Always.
        Always = "always",
        /// In a flood, see below.
        Auto = "auto",
    }
}

section! {
    /// Hosts behind this one in front of which the shield stands: who has not shown that it is where it says opens no TCP connection
    /// to them, so that a flood of forged SYNs reaches neither the host nor this machine's firewall. Stands once for each
    /// interface and VLAN that their clients come by, which need not be one that is served. Needs Linux 5.18. A client's first
    /// connection is opened here and reset at once; it has to come again, and its next ones go through. Where the interface has no
    /// XDP program, or its answers are lost, all passes: the log says so, and `xdnsd shield status` why. A SYN with data, IP
    /// options or extension headers passes, as do fragments: the firewall is to refuse those. Clients that sign segments
    /// (TCP-MD5, TCP-AO) do not get through.
    Protect = "protect", many: true {
        /// The network interface that the clients come by, as `ip link` shows it; it may come later. What comes by a VLAN of it
        /// passes, but for the one that `vlan` names.
        interface: InterfaceName;
        /// Frames with this VLAN ID, and no second one, are seen. 0: untagged frames.
        vlan: u16 = 0, 0..=4094;
        /// When they are asked. "auto": from `shield.syn_threshold` SYNs a second on that come by the interface to its hosts, until
        /// clients have left fewer cookies than that unanswered for `shield.calm_secs`. Nobody here sees whether clients complete
        /// what they begin while they are not asked, so a busy hour may count as a flood: it costs each new client one connection.
        ask: AskWord = AskWord::Always;
        /// The hosts: addresses and prefixes as they stand in the packets there, in front of any translation.
        addresses: Vec<ClientNetwork>, 1..=64;
        /// The TCP ports of each. 64 of both together can be protected on each interface.
        ports: Vec<u16>, 1..=64;
        /// For so many seconds a client that has come again is not asked anew.
        verified_secs: u16 = 600, 1..=3600;
    }
}

section! {
    /// What is told in class CHAOS. Empty: REFUSED.
    Identity = "identity", many: false {
        /// For `version.bind` and `version.server`.
        version: String = String::new();
        /// For `id.server` and `hostname.bind` (RFC 4892).
        id: String = String::new();
    }
}
