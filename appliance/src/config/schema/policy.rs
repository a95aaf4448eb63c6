//! What is answered here, what is blocked, what is withheld, and who is answered at all.

use std::net::IpAddr;

use xdnsd_core::policy::acl::PREFIXES_MAX;
use xdnsd_core::policy::special::SpecialUse;
use xdnsd_core::policy::{Action, LISTS_MAX, REFLECTOR_PORTS, rebind};

use super::{optional, section};
use crate::compile::Prefix;
use crate::compile::local::NEVER_LEASED;
use crate::config::types::{
    ClientNetwork, Domain, FilePath, FilterName, Ipv6Network, Nat64Prefix, NftSetName, Suffix,
};
use crate::config::value::words;

words! {
    /// Special-use names that are answered here.
    SpecialWord {
        /// And below: the loopback addresses (RFC 6761 section 6.3).
        Localhost = "localhost",
        /// Does not exist (RFC 6761 section 6.4).
        Invalid = "invalid",
        /// Does not exist (RFC 6761 section 6.2).
        Test = "test",
        /// Does not exist (RFC 7686).
        Onion = "onion",
        /// Does not exist here: it belongs to multicast DNS (RFC 6762 section 22.1).
        Local = "local",
        /// Empty (RFC 8375).
        HomeArpa = "home.arpa",
        /// Empty (RFC 9665).
        ServiceArpa = "service.arpa",
        /// Empty: there is no designated resolver (RFC 9462).
        ResolverArpa = "resolver.arpa",
        /// Reverse zones of addresses that mean something on this network only (RFC 6303, RFC 7793).
        PrivateReverse = "private-reverse",
        /// Does not exist: it is for names that mean something on one network only (ICANN's SAC113).
        Internal = "internal",
        /// Does not exist: its names are not resolved by DNS (RFC 9476).
        Alt = "alt",
        /// Does not exist: tells Firefox to keep to the network's DNS.
        FirefoxCanary = "use-application-dns.net",
    }
}

impl From<SpecialWord> for SpecialUse {
    fn from(word: SpecialWord) -> Self {
        match word {
            SpecialWord::Localhost => Self::Localhost,
            SpecialWord::Invalid => Self::Invalid,
            SpecialWord::Test => Self::Test,
            SpecialWord::Onion => Self::Onion,
            SpecialWord::Local => Self::Local,
            SpecialWord::HomeArpa => Self::HomeArpa,
            SpecialWord::ServiceArpa => Self::ServiceArpa,
            SpecialWord::ResolverArpa => Self::ResolverArpa,
            SpecialWord::PrivateReverse => Self::PrivateReverse,
            SpecialWord::Internal => Self::Internal,
            SpecialWord::Alt => Self::Alt,
            SpecialWord::FirefoxCanary => Self::FirefoxCanary,
        }
    }
}

/// As core's `Kinds::DEFAULT`, which says why `test` and the canary are not among them.
const SPECIAL: [SpecialWord; 10] = [
    SpecialWord::Localhost,
    SpecialWord::Invalid,
    SpecialWord::Onion,
    SpecialWord::Local,
    SpecialWord::HomeArpa,
    SpecialWord::ServiceArpa,
    SpecialWord::ResolverArpa,
    SpecialWord::PrivateReverse,
    SpecialWord::Internal,
    SpecialWord::Alt,
];

fn never_leased() -> Vec<Domain> {
    let names = NEVER_LEASED.iter();
    let parse = |name: &&str| name.parse().expect("a constant, and a test reads it");
    names.map(parse).collect()
}

section! {
    /// Names that are answered from here.
    Local = "local", many: false {
        /// Records, such as `"nas.lan A 192.168.1.10"`, `"*.dev.lan 300 AAAA fd00::1"` or
        /// `"_ipp._tcp.lan SRV 0 0 631 printer.lan"`. Types: A, AAAA, CNAME, PTR, MX, NS, TXT, SRV, SVCB, HTTPS.
        records: Vec<String> = Vec::new();
        /// Hosts files, or folders of them; read anew when they change. A record of the same name and type goes first.
        hosts: Vec<FilePath> = Vec::new();
        /// Lease files of dnsmasq's DHCP server, or folders of them; read anew when they change. A client gets a name of one
        /// label, by itself and in `search` or `zones`, if it is free: records, hosts files, special-use names, lists and
        /// routes come first. Of two clients with one name the one whose lease ends last has it; one over IPv6 gets the name of
        /// one over IPv4 only where its DUID, or the MAC address in that, says that both are one machine.
        dnsmasq_leases: Vec<FilePath> = Vec::new();
        /// State or hosts files of odhcpd, or folders of them; likewise.
        odhcpd_leases: Vec<FilePath> = Vec::new();
        /// Names that leases never get, in any domain.
        never_leased: Vec<Domain> = never_leased();
        /// Domains that are answered from local data alone: other names in them do not exist.
        zones: Vec<Domain> = Vec::new();
        /// The domain that names of one label belong to: with `"lan"`, `nas` is `nas.lan` and the other way round.
        search: Vec<Domain> = Vec::new(), 0..=1;
        /// Whether an address points back to its name without a PTR record being written.
        reverse: bool = true;
        /// TTL in seconds of hosts and of records without one.
        ttl: u32 = 60, 0..=86_400;
        /// TTL in seconds of leases, and of NXDOMAIN for names that a lease may bring.
        lease_ttl: u32 = 10, 0..=86_400;
        /// Special-use names that are answered here. A route or a record for one of them goes first.
        special: Vec<SpecialWord> = SPECIAL.to_vec();
        /// Whether questions for names of one label are asked upstream. If not, only those about the zone of a top-level domain
        /// are (NS, SOA, DS, DNSKEY), unless local data has the name.
        forward_plain_names: bool = true;
    }
}

words! {
    /// What a blocked name is answered with.
    BlockWord {
        /// NXDOMAIN.
        Nxdomain = "nxdomain",
        /// NODATA.
        Nodata = "nodata",
        /// 0.0.0.0 and ::.
        Zero = "zero",
        /// The addresses in `addresses`.
        Address = "address",
    }
}

section! {
    /// Names that are blocked, also where a CNAME leads to them. Allowed names are never blocked.
    Filter = "filter", many: false {
        /// Text files of blocked names: hosts files, plain domains and `*.` domains (with all below them), the domain rules of
        /// Adblock lists with `$important`, `$badfilter`, `$dnstype` and `$denyallow`, or dnsmasq's `address=/ads.example/`.
        /// A file that begins with `$TTL`, `$ORIGIN` or a SOA record is a response policy zone (RPZ): its names are blocked
        /// (`CNAME .`, `CNAME *.`, `rpz-drop.`) or allowed (`rpz-passthru.`); other triggers, and local data, are passed over.
        /// Other lines are counted by why they are passed over; the log has the first, and how a list was read.
        block_files: Vec<FilePath> = Vec::new();
        /// Text files of allowed names; they override block lists, `$important` included.
        allow_files: Vec<FilePath> = Vec::new();
        /// Files of `xdnsd lists compile`: they load at once, and take 15 bytes a name, twice while a new one is read.
        compiled: Vec<FilePath> = Vec::new(), 0..=(LISTS_MAX as u64 - 1);
        /// Whether a list is taken over that lost all its rules, or more than half of eight or more, while the daemon runs: as
        /// a rule it is half a download. Otherwise that list keeps the rules that it had, and all others are taken over; the log
        /// says so, and `xdnsd stats` and `xdnsd health` until it has grown again. A start takes every list as it is. A file with
        /// lines of which none is a rule, comments aside, is no list and is never taken.
        take_shrunk: bool = false;
        /// Blocked names, with all below them; `"*.ads.example"` is what is below alone.
        block: Vec<FilterName> = Vec::new();
        /// Allowed names, likewise.
        allow: Vec<FilterName> = Vec::new();
        /// What a blocked name is answered with.
        answer: BlockWord = BlockWord::Nxdomain;
        /// At most one IPv4 and one IPv6 address for `answer = "address"`.
        addresses: Vec<IpAddr> = Vec::new(), 0..=2;
        /// TTL in seconds of that answer.
        ttl: u32 = 60, 0..=86_400;
    }
}

words! {
    /// Addresses that a public name must not resolve to.
    RangeWord {
        /// 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16.
        Private = "private",
        /// 127.0.0.0/8 and ::1.
        Loopback = "loopback",
        /// 169.254.0.0/16 and fe80::/10.
        LinkLocal = "link-local",
        /// fc00::/7 and fec0::/10.
        UniqueLocal = "unique-local",
        /// 0.0.0.0/8 and ::, which reach the host itself on many systems.
        ThisHost = "this-host",
        /// 100.64.0.0/10; some providers have their own services there.
        SharedSpace = "shared-space",
    }
}

impl From<RangeWord> for rebind::Range {
    fn from(word: RangeWord) -> Self {
        match word {
            RangeWord::Private => Self::Private,
            RangeWord::Loopback => Self::Loopback,
            RangeWord::LinkLocal => Self::LinkLocal,
            RangeWord::UniqueLocal => Self::UniqueLocal,
            RangeWord::ThisHost => Self::ThisHost,
            RangeWord::SharedSpace => Self::SharedSpace,
        }
    }
}

section! {
    /// Rebind protection: an answer from upstream that leads to this network is withheld.
    Rebind = "rebind", many: false {
        /// The ranges of this network. Empty: off, the default of other forwarders as well. A home router wants `["private",
        /// "loopback", "link-local", "unique-local", "this-host"]`.
        ranges: Vec<RangeWord> = Vec::new();
        /// Domains that may lead there.
        allow: Vec<Suffix> = Vec::new();
        /// Whether the domains of upstream groups may lead there.
        allow_routed: bool = true;
    }
}

section! {
    /// DNS64 (RFC 6147), for clients with IPv6 alone that reach IPv4 hosts by a NAT64: a name that has no IPv6 address upstream
    /// gets one for each of its IPv4 addresses, made of that and the NAT64's prefix. Names that are answered here stay as they
    /// are, and clients that validate by themselves (DO and CD) get nothing that is made. The name of such an address leads to
    /// that of the IPv4 address.
    Dns64 = "dns64", many: false {
        /// The prefix of the NAT64. No address is made of this host's and loopback addresses, nor, with the well-known prefix
        /// "64:ff9b::/96", of those that are not global (RFC 6052 section 3.1). Empty: no DNS64.
        prefix: Nat64Prefix = Nat64Prefix::default();
        /// Whether it is for all clients, but for those of a view that has it off (`view.dns64`). False: only for those of a view
        /// that has it on.
        all_clients: bool = true;
        /// IPv6 addresses in upstream's answers that count as none, and that clients do not get.
        exclude: Vec<Ipv6Network> = vec![Ipv6Network(Prefix::mapped())], 0..=PREFIXES_MAX as u64;
    }
}

/// Sections of this kind.
pub const NFTSETS_MAX: usize = 64;

section! {
    /// Names whose addresses go into sets of nftables, for rules that route or filter by name: a VPN for some sites, say. Stands once for
    /// each choice of sets, 64 times at most; the longest name decides. An address is on its way into its sets when its answer is
    /// given, and again with each further answer; it takes a fraction of a millisecond, and clients do not wait for it. In a set
    /// with a timeout its time begins anew, five seconds apart at most. The sets are made by whoever makes the rules, and never
    /// emptied from here. Answers out of `[local]` go into none.
    NftSet = "nftset", many: true {
        /// Names, each with all names below it. `"."` is all names.
        names: Vec<Domain>, 1..=u64::MAX;
        /// Sets of type ipv4_addr or ipv6_addr, as `"[4#|6#][FAMILY#]TABLE#SET"`; without a family, the table is of `ip`. Each gets the
        /// addresses of its type; `4#` or `6#` in front: those of IPv4 or IPv6 alone. A set with `flags interval` gets each
        /// address as a range of its own, unless one of its ranges has it.
        sets: Vec<NftSetName>, 1..=8;
    }
}

words! {
    /// What a client gets.
    ActionWord {
        /// An answer.
        Allow = "allow",
        /// REFUSED.
        Refuse = "refuse",
        /// Silence.
        Drop = "drop",
        /// An answer for neighbours on the served interfaces and for this machine; silence for others: they may be forged.
        Local = "local",
    }
}

impl From<ActionWord> for Action {
    fn from(word: ActionWord) -> Self {
        match word {
            ActionWord::Allow => Self::Allow,
            ActionWord::Refuse => Self::Refuse,
            ActionWord::Drop => Self::Drop,
            ActionWord::Local => Self::Local,
        }
    }
}

/// Each query's port is compared with all of them.
const REFLECTOR_PORTS_MAX: u64 = 16;

section! {
    /// Which clients are answered. The longest prefix that holds a client's address decides.
    Access = "access", many: false {
        /// Clients that get an answer.
        allow: Vec<ClientNetwork> = Vec::new(), 0..=PREFIXES_MAX as u64;
        /// Clients that get REFUSED.
        refuse: Vec<ClientNetwork> = Vec::new(), 0..=PREFIXES_MAX as u64;
        /// Clients whose queries are dropped: over UDP by the XDP program, before anything else is done for them, unless there are
        /// more than 64 prefixes in the three lists. That counts as `drop_access`, and is not in the query log.
        drop: Vec<ClientNetwork> = Vec::new(), 0..=PREFIXES_MAX as u64;
        /// What all other clients get. Where it is `local`, networks behind another router, of containers and of VPNs
        /// belong into `allow`.
        others: ActionWord = ActionWord::Local;
        /// UDP source ports whose queries are dropped: those of services that answer every datagram. After one forged query
        /// such a service and this server would answer each other for ever. The default is echo, daytime, quote of the day,
        /// chargen and time. Port 0 is always dropped, port 53 never.
        reflector_ports was silent_ports: Vec<u16> = REFLECTOR_PORTS.to_vec(), 0..=REFLECTOR_PORTS_MAX;
    }
}
