//! Cache, protocol options, log and identification.

use xdnsd_core::limits;

use super::{DEFAULT, optional, section};
use crate::config::types::{
    ClientNetwork, CookieSecret, FilePath, HttpAddress, HttpHost, InterfaceName, OptionalPath,
};
use crate::config::value::words;

words! {
    /// Where answers that are asked for often are given.
    Tier0Word {
        /// By user space, as all others.
        Off = "off",
        /// In the kernel, if the answers are known to leave. A veth pair whose other end cannot be asked counts as unknown.
        Auto = "auto",
        /// In the kernel, unless the answers are known to be lost.
        On = "on",
    }
}

section! {
    /// Answers that are kept.
    Cache = "cache", many: false {
        /// The most answers that are kept; 0: caching is off. When it is full, those that are not asked for make room.
        /// It counts to `memory.mib`.
        entries: u32 = limits::CACHE_ENTRIES as u32, 0..=limits::CACHE_ENTRIES_MAX as u64;
        /// The fewest seconds that an answer is kept, even if its TTL is shorter. TTL 0 is never kept.
        min_ttl: u32 = DEFAULT.ttl.min_secs, 0..=3600;
        /// The most seconds that an answer is kept.
        max_ttl: u32 = DEFAULT.ttl.max_secs, 1..=604_800;
        /// The most seconds that NXDOMAIN and NODATA are kept (RFC 2308).
        negative_max_ttl: u32 = DEFAULT.ttl.negative_max_secs, 0..=86_400;
        /// Whether an expired answer is given, with TTL 30, when all servers are silent (RFC 8767).
        serve_stale: bool = DEFAULT.serve_stale;
        /// Seconds after its TTL for which such an answer is good enough.
        stale_max_ttl: u32 = DEFAULT.stale_max_secs, 1..=604_800;
        /// Milliseconds that a client waits for a fresh answer before it gets such an answer.
        stale_after_ms: u32 = DEFAULT.stale_after_ms as u32, 0..=10_000;
        /// Whether a name that is asked for in the last tenth of its TTL is fetched anew, before it is missed.
        prefetch: bool = DEFAULT.prefetch;
        /// Whether the addresses of a name change their order from answer to answer.
        rotate: bool = DEFAULT.rotate;
        /// Whether the XDP program answers names that are asked for often, to clients that user space has answered before.
        /// Where more addresses turn by `rotate` than it has room for, user space answers. New, and therefore `off` by default. If the
        /// driver or the other end of a veth pair loses such answers, user space gives them. Needs a restart.
        tier0: Tier0Word = Tier0Word::Off;
        /// File that carries the cache over a restart. A second one beside it, with the ending `.old`, is the
        /// generation before; what else has that name stays, and the newest is alone.
        snapshot: OptionalPath = OptionalPath::default();
        /// Seconds between two snapshots at least. Flash wears out: keep it long there.
        snapshot_interval_secs: u32 = 3600, 1..=604_800;
    }
}

section! {
    /// What there is room for. All of it is taken at the start, and none later. `xdnsd memory FILE` prints what it comes to, line by
    /// line.
    Memory = "memory", many: false {
        /// Most memory of all parts together in MiB, but for block lists. A config that takes more is refused, with the bytes.
        mib: u16 = limits::MEMORY_MIB as u16, 4..=limits::MEMORY_MIB_MAX as u64;
        /// Most threads that answer over UDP and AF_XDP. There are as many as processors, and one for each queue with zero copy. More
        /// are chosen when the program is built (XDNSD_LIMIT_WORKERS).
        workers: u16 = limits::WORKERS as u16, 1..=limits::WORKERS as u64;
        /// Most addresses of an interface, counted for each port and VLAN, that are answered over AF_XDP. The kernel's sockets serve
        /// more of them.
        addresses: u16 = limits::ADDRESSES as u16, 1..=limits::ADDRESSES_MAX as u64;
        /// Most XDP programs at once: one for each interface, and one for each port of a bridge. The kernel's sockets serve more of
        /// them.
        programs: u16 = limits::PROGRAMS as u16, 1..=limits::PROGRAMS_MAX as u64;
    }
}

words! {
    /// How much is logged.
    LogLevel {
        /// Off.
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
    /// The log, on standard error. It never delays the service: lines that cannot be written at once are dropped and counted. A
    /// reload takes over both keys.
    Log = "log", many: false {
        /// How much is logged; packets are never logged one by one.
        level: LogLevel = LogLevel::Info;
        /// Whether each line begins with `<N>`, its level as syslog counts it.
        priority: PriorityWord = PriorityWord::Auto;
    }
}

section! {
    /// Statistics in the log.
    Statistics = "statistics", many: false {
        /// Seconds between two reports of rates per queue and per CPU. 0: off.
        interval_secs: u32 = 0, 0..=86_400;
    }
}

words! {
    /// What the group of the control socket may do.
    GroupWord {
        /// Read: all that monitoring needs.
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
        /// A group that may use it as well, by its name in /etc/group or its number (mode 0660). Empty: only root and the
        /// account that serves. If that account is not root, it has to be a member.
        group: String = String::new();
        /// What the group may do.
        group_may: GroupWord = GroupWord::Read;
    }
}

section! {
    /// Metrics over HTTP and a status page. `xdnsd web FILE` serves them, a process of its own that only needs access to the
    /// control socket, and the only one that reads this section.
    Web = "web", many: false {
        /// Where it listens: `/` is the page, `/metrics` is for Prometheus. Empty: off.
        listen: Vec<HttpAddress> = Vec::new(), 0..=8;
        /// Whom it answers, besides this machine.
        allow: Vec<ClientNetwork> = Vec::new(), 0..=64;
        /// Names that it may be asked by, besides addresses and `localhost`, such as "router.lan". Else a page of somebody else's could
        /// read it in a browser that is let in.
        hosts: Vec<HttpHost> = Vec::new(), 0..=16;
    }
}

words! {
    /// What becomes of a system call that this program never makes.
    SeccompWord {
        /// It ends the process, which says on standard error which call it was.
        On = "on",
        /// It is done, and stands in the kernel's log, where that is kept (`type=1326`).
        Log = "log",
        /// It is done.
        Off = "off",
    }
}

words! {
    /// Where files can be written.
    LandlockWord {
        /// To the folders of `cache.snapshot`, `control.socket` and `shield.state_file`, and no others; no program is started.
        On = "on",
        /// Wherever the account may.
        Off = "off",
    }
}

section! {
    /// What is left to somebody who has got into this process. Both hold from the start on, for root as well; what the kernel does not
    /// have is left out, and the log says so. `xdnsd run --user NAME` takes all rights besides but those that serving takes.
    Security = "security", many: false {
        /// Which system calls may be made (seccomp): a list of about 120 of 350, of some with certain arguments alone. No program,
        /// process, mount, module or code can be had by the others. Not for a debugger of memory such as valgrind, which makes calls and
        /// code of its own.
        seccomp: SeccompWord = SeccompWord::On;
        /// Where files can be written (Landlock): besides those folders to the kernel's settings for SYN cookies, where they are given.
        /// A folder that was not there at the start and could not be made, or is mounted anew
        /// later, is not written to until the next start.
        landlock: LandlockWord = LandlockWord::On;
        /// Whether the rights are a process of their own, which loads programs and makes sockets for this one and reads nothing but its
        /// requests. This one, which reads what comes from outside, then has none (capabilities(7)), and reads files as its account may.
        /// Needs Linux 5.19. If one of the two ends, so does the other. `[[nftset]]` fills the sets of the start: others that a reload
        /// brings need a restart.
        keeper: bool = false;
        /// The account of that process, of its own, so that this one can neither signal it nor look into it. Empty: `xdnsd-keeper` if
        /// there is such an account and the server may give it (root, or CAP_SETUID and CAP_SETGID), else the server's.
        keeper_user: String = String::new();
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
    /// Protection from floods. A reload takes over denied and allowed prefixes; the other keys need a restart.
    Shield = "shield", many: false {
        /// Whether the XDP programs drop attack traffic to a served port: DNS responses to port 53, packets whose source is
        /// their destination or another address of the same device, and datagrams that are longer than their packet or too
        /// short for a DNS header. It would stay unanswered anyway; here a drop costs least. Merely unusual packets pass.
        /// Switch it off where this machine masquerades, on a served address, resolvers that ask from port 53, or where a
        /// program of its own sends from port 53 of such an address.
        drop_garbage: bool = true;
        /// Prefixes whose packets of any protocol to a served address are dropped, before everything else. The XDP programs do
        /// this; without one, `access.drop` drops queries. The longest prefix of `deny`, `allow` and their files decides; a
        /// reload reads them again.
        deny: Vec<ClientNetwork> = Vec::new(), 0..=xdnsd_abi::PREFIXES_MAX as u64;
        /// Files of such prefixes, a prefix or an address a line, with comments behind `#` or `;`: Spamhaus' DROP, FireHOL's
        /// netsets. A file with any other line is rejected: `check` notes it, a start warns and goes on without the file, and a
        /// reload warns and keeps what that file said before. There is room for 10000 prefixes of the config and its files, and for 64
        /// more by `xdnsd shield`. The config's own prefixes come first, then the files in their order, of both the allowed
        /// before the denied ones; those beyond the limit are left out, and the log says how many of which file.
        deny_files: Vec<FilePath> = Vec::new();
        /// Prefixes whose packets pass although the same or a shorter prefix is denied.
        allow: Vec<ClientNetwork> = Vec::new(), 0..=xdnsd_abi::PREFIXES_MAX as u64;
        /// Files of such prefixes.
        allow_files: Vec<FilePath> = Vec::new();
        /// Whether the XDP programs answer SYNs to TCP port 53 (or the interface's `port`), and to `ports`, with the kernel's
        /// own SYN cookies, so that a flood of forged SYNs never reaches the kernel. Needs Linux 6.0. While they are given,
        /// net.ipv4.tcp_syncookies is 2, for all of this machine; it is put back at the end. The firewall sees neither such a
        /// SYN nor its answer.
        syn_cookies: SynCookiesWord = SynCookiesWord::Off;
        /// Whether connections that begin with a cookie keep window scale, SACK and timestamps of the client, as with the
        /// kernel's own cookies. They travel in the timestamp, so they need a client with timestamps, and
        /// net.ipv4.tcp_timestamps is 2 in place of 1 while cookies are given: timestamps of new connections then reveal this
        /// machine's uptime. If it is 0, or this is false, the MSS is the only TCP option of such connections.
        tcp_options: bool = true;
        /// Seconds for which the SYNs of a client that has brought a cookie back pass to the kernel. 0: each SYN is answered
        /// with a cookie. SYNs with the forged address of such a client reach the kernel.
        verified_secs: u16 = 0, 0..=3600;
        /// More TCP ports of this machine to guard, on the served addresses: `[22, 443]`. Without a listener the kernel answers
        /// as before. 20 addresses with a port can be guarded on each interface. Unsuitable are ports with a listener that the
        /// firewall translates to another host (Docker publishes such ones) or that masqueraded connections may use, since
        /// those would end, and ports whose clients sign segments (TCP-MD5, TCP-AO).
        ports: Vec<u16> = Vec::new(), 0..=7;
        /// With `auto`: cookies begin at so many SYNs a second that are not completed.
        syn_threshold: u32 = 200, 1..=1_000_000;
        /// With `auto`: they end after so many seconds with fewer.
        calm_secs: u32 = 60, 1..=3600;
        /// File that keeps the former value of net.ipv4.tcp_syncookies while it is 2, so that the next start after a kill can
        /// put it back; the same name with `.timestamps` keeps that of net.ipv4.tcp_timestamps. Empty: off.
        state_file: OptionalPath = "/var/lib/xdnsd/tcp_syncookies".parse().expect("an absolute path");
    }
}

section! {
    /// How much each client may ask over UDP, so that forged queries cannot make this forwarder flood others or delay other
    /// clients. Clients with a valid DNS cookie (`edns.cookies`), clients over TCP, and this machine itself are exempt. A
    /// neighbour counts for itself; a client behind a router counts together with its /24 (IPv4) or /56 (IPv6). Queries over
    /// the limit are answered with TC a few times a second, so that a real client comes back over TCP, and dropped otherwise.
    /// From Linux 5.18 on the XDP programs apply the limit of queries as well, where a drop costs least.
    RateLimit = "rate_limit", many: false {
        /// Queries a second. 0: unlimited. Requires `misses`, and at least as many: cache misses are limited before hits.
        queries: u32 = 0, 0..=1_000_000;
        /// Cache misses a second, except for questions already in flight. 0: unlimited.
        misses: u32 = 0, 0..=1_000_000;
        /// How many seconds' worth of both a client may use at once, after as many seconds of quiet.
        burst_secs: u32 = 5, 1..=60;
        /// Queries a second over the limit that are answered with TC. 0: all are dropped.
        slips: u32 = 5, 0..=1000;
        /// Queries a second that user space is given of clients it has lately answered nothing to from the cache, of neighbours and of
        /// others each, on each processor that takes frames in. More of them are answered with TC, as many again, if `slips` is
        /// not 0; the rest is dropped, but where a client has a good DNS cookie, or has opened a TCP connection by a SYN cookie
        /// in the last ten minutes. Counts with `queries` and on interfaces that ask the program for hot names (`cache.tier0`).
        /// 0: no limit.
        newcomers: u32 = 10_000, 0..=1_000_000;
        /// Bytes of an answer from the cache, or of local data, that count as one of the `queries`: a longer one counts as several,
        /// since it is worth more to who asks under a forged address. 512, which every client takes without EDNS, is more than
        /// nearly all answers to people have. 0: each answer counts as one.
        answer_size: u32 = 512, 0..=1232;
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
    /// Hosts behind this one that are protected from forged SYNs: only clients that have shown that their address is real open
    /// TCP connections to them, so a flood of SYNs reaches neither the hosts nor this machine's firewall. One section for each
    /// interface and VLAN that their clients come by, whether it is served or not. Needs Linux 5.18. A client's first
    /// connection is opened here and reset at once; its next ones go through. Without an XDP program on the interface, or where
    /// its answers are lost, all passes: the log says so, and `xdnsd shield status` why. SYNs of new clients with data, a FIN,
    /// IPv4 options or extension headers, or in fragments, are dropped. Clients that sign segments (TCP-MD5, TCP-AO) do not get
    /// through.
    Protect = "protect", many: true {
        /// The network interface that the clients come by, as `ip link` shows it; it may come later. What comes by a VLAN of it
        /// passes, but for the one that `vlan` names.
        interface: InterfaceName;
        /// VLAN ID of the frames that are protected; frames with a second tag pass. 0: untagged frames, and those whose tag has ID 0.
        vlan: u16 = 0, 0..=4094;
        /// When they are asked. "auto": from `shield.syn_threshold` SYNs a second by the interface to its hosts on, until
        /// clients have left fewer cookies than that unanswered for `shield.calm_secs`. While clients are not asked, completed
        /// connections cannot be told from forged ones, so a busy hour may count as a flood: it costs each new client one
        /// connection.
        ask: AskWord = AskWord::Always;
        /// The hosts: addresses and prefixes as they stand in the packets there, in front of any translation.
        addresses: Vec<ClientNetwork>, 1..=64;
        /// The TCP ports of each. 64 of both together can be protected on each interface.
        ports: Vec<u16>, 1..=64;
        /// Seconds for which a client that has come again is remembered.
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
