//! Every section and key: name, type, default, range and the reference's sentences, written once.
//!
//! The doc comments below are the reference: `xdnsd reference` prints them.

use std::net::IpAddr;

use xdnsd_core::engine::Settings;
use xdnsd_core::limits;

use super::read::{Description, Fields, Key, Section};
use super::value::{InterfaceName, OptionalPath, Server, Value, words};

/// The engine's own defaults are the file's.
const DEFAULT: Settings = Settings::DEFAULT;

/// Every section, in the reference's order.
pub const SECTIONS: &[Description] = &[
    Description::of::<Interface>(),
    Description::of::<Upstream>(),
    Description::of::<Forward>(),
    Description::of::<Cache>(),
    Description::of::<Log>(),
    Description::of::<Statistics>(),
    Description::of::<Control>(),
];

/// A section: the struct, the table that describes it and the reader, from one list of keys.
///
/// `key: Type = default, range;` where the default and the range may be left out: without a default the key is
/// required.
macro_rules! section {
    ($(#[doc = $doc:literal])+ $name:ident = $word:literal, many: $many:literal {
        $($(#[doc = $key_doc:literal])+ $key:ident: $type:ty $(= $default:expr)? $(, $range:expr)?;)+
    }) => {
        $(#[doc = $doc])+
        #[derive(Clone, Debug)]
        pub struct $name { $($(#[doc = $key_doc])+ pub $key: $type,)+ }

        impl Section for $name {
            const NAME: &'static str = $word;
            const MANY: bool = $many;
            const DOC: &'static [&'static str] = &[$($doc),+];
            const KEYS: &'static [Key] = &[$(Key {
                name: stringify!($key),
                doc: &[$($key_doc),+],
                range: optional!($($range)?),
                allowed: <$type as Value>::allowed,
                words: <$type as Value>::WORDS,
                default: optional!($(|| <$type as Value>::to_toml(&$default))?),
            },)+];

            fn read(fields: &mut Fields<'_, '_>) -> Option<Self> {
                let mut keys = Self::KEYS.iter();
                $(let $key: Option<$type> =
                    fields.take(keys.next().expect("KEYS has every key, in this order"), optional!($($default)?));)+
                Some(Self { $($key: $key?,)+ })
            }
        }
    };
}

macro_rules! optional {
    () => {
        None
    };
    ($value:expr) => {
        Some($value)
    };
}

words! {
    /// How the XDP program is attached.
    XdpMode {
        /// In the driver where it can, else generic, else not at all: the kernel's sockets serve alone.
        Auto = "auto",
        /// In the driver, or not at all.
        Native = "native",
        /// After the driver, on any device: slower, for tests and for drivers without XDP.
        Generic = "generic",
        /// Not at all: the kernel's sockets serve alone.
        Off = "off",
    }
}

words! {
    /// Whether the kernel's routing table is asked before a reply goes back the way its query came.
    RouteCheck {
        /// Where VLAN devices stand on the interface.
        Auto = "auto",
        /// For every query.
        Always = "always",
        /// For none: the reply goes to the MAC address that the query came from.
        Never = "never",
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
        /// Everything but packets.
        Trace = "trace",
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

section! {
    /// An interface, or one VLAN on it, that is served. Stands once for each.
    Interface = "interface", many: true {
        /// The network interface that carries the frames, as `ip link` shows it: the port or the bridge, not a VLAN
        /// device on it.
        name: InterfaceName;
        /// VLAN ID of the queries, on a VLAN device that exists. 0: untagged.
        vlan: u16 = 0, 0..=4094;
        /// VLAN ID of the inner tag where queries carry two (802.1ad). 0: one tag.
        inner_vlan: u16 = 0, 0..=4094;
        /// Addresses of the router to answer on. Empty: every address that the device has at the start.
        listen: Vec<IpAddr> = Vec::new(), 0..=xdnsd_ebpf::LISTEN_MAX as u64;
        /// UDP and TCP port to answer on.
        port: u16 = 53, 1..=65535;
        /// How the XDP program is attached. The same in every section with this name.
        xdp: XdpMode = XdpMode::Auto;
        /// Whether AF_XDP may share the driver's own buffers. Copies where the driver cannot. The same in every
        /// section with this name.
        zero_copy: bool = false;
        /// Whether the kernel's routing table is asked before a reply goes back the way its query came.
        route_check: RouteCheck = RouteCheck::Auto;
    }
}

section! {
    /// A group of upstream servers. `[upstream]` stands for a single one.
    Upstream = "upstream", many: true {
        /// The group's name, in logs and statistics.
        name: String = String::from("default");
        /// The servers, in the order in which they are asked where the strategy is `ordered`.
        servers: Vec<Server>, 1..=limits::UPSTREAMS as u64;
        /// Whether the AD bit of these servers is passed on. Only where they validate and nobody can interfere on the
        /// way to them (RFC 6840 section 5.8).
        trusted: bool = false;
    }
}

section! {
    /// How upstream servers are asked.
    Forward = "forward", many: false {
        /// Which server of a group is asked first. When one takes longer than it usually does, the next is asked, too.
        strategy: StrategyWord = StrategyWord::Ordered;
        /// Milliseconds after which a client is told SERVFAIL if no server has answered.
        give_up_ms: u32 = DEFAULT.give_up_ms as u32, 500..=30_000;
        /// Whether the letter case of names is made random on the way to upstream (0x20): harder to spoof, but some
        /// old servers lose the case.
        random_case: bool = DEFAULT.random_case;
        /// Seconds for which a failure is remembered, so that a broken domain is not asked for again at once (RFC
        /// 9520).
        failure_ttl: u32 = DEFAULT.failure_ttl_secs, 1..=30;
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
        /// File that carries the cache over a restart. A second one beside it, with the ending `.old`, is the
        /// generation before.
        snapshot: OptionalPath = OptionalPath::default();
        /// Seconds between two snapshots at least. Flash wears out: keep it long there.
        snapshot_interval_secs: u32 = 3600, 1..=604_800;
    }
}

section! {
    /// The log, on standard error.
    Log = "log", many: false {
        /// How much is logged. Nothing is ever logged per packet.
        level: LogLevel = LogLevel::Info;
    }
}

section! {
    /// Statistics in the log.
    Statistics = "statistics", many: false {
        /// Seconds between two reports of rates per queue and per CPU. 0: none.
        interval_secs: u32 = 0, 0..=86_400;
    }
}

section! {
    /// The control socket, which `xdnsd stats` and `xdnsd cache` use.
    Control = "control", many: false {
        /// UNIX socket, for root only.
        socket: OptionalPath = "/run/xdnsd.sock".parse().expect("an absolute path");
    }
}
