//! The contract between the XDP program and user space: map names, keys, values, limits.
//!
//! Both sides compile this file, so they cannot diverge. Wire fields are big-endian byte arrays, so neither side converts
//! them by accident; layouts are asserted below.

/// Names of the BPF maps in the object file.
pub mod map {
    /// XSKMAP: RX queue index -> AF_XDP socket. The name is fixed by libbpf 0.3, which the `afxdp` crate contains.
    pub const XSKS: &str = "xsks_map";
    /// HASH: [`super::Listen`] -> [`super::PathCheck`]: the UDP destinations that are ours.
    pub const LISTEN: &str = "listen";
    /// PERCPU_ARRAY of u64, indexed by [`crate::Reason`].
    pub const COUNTERS: &str = "counters";
    /// ARRAY of u64, mappable, indexed by RX queue: time of the worker's latest heartbeat, in nanoseconds of
    /// CLOCK_MONOTONIC.
    pub const HEARTBEAT: &str = "heartbeat";
    /// PROG_ARRAY: programs for tail calls, see [`super::tail`].
    pub const TAILS: &str = "tails";
    /// HASH: [`super::Listen`] with a TCP port -> [`super::PathCheck`]: the destinations that SYN cookies guard.
    pub const GUARDED: &str = "guarded";
    /// ARRAY of u32: settings of the shield, see [`super::shield`].
    pub const SHIELD: &str = "shield";
    /// ARRAY of [`crate::hash::HashKey`]: secret keys, see [`super::secret`].
    pub const SECRETS: &str = "secrets";
    /// LPM_TRIE: [`super::Behind`] after its prefix length -> [`super::Protected`]: destinations behind this host that the
    /// shield protects.
    pub const PROTECTED: &str = "protected";
    /// ARRAY of [`super::ClientSet`]: clients with a proven address, by a hash of it.
    pub const CLIENTS: &str = "clients";
    /// PERCPU_ARRAY of u64: state of each limit that holds per processor, see [`super::few`].
    pub const FEW: &str = "few";
    /// HASH: [`super::Listen`] with port 0 -> [`super::PathCheck`]: addresses that are ours, for any protocol.
    pub const ADDRESSES: &str = "addresses";
    /// ARRAY_OF_MAPS of LPM_TRIEs, see [`super::trie`], shared by all programs: [`super::PrefixKey`] -> u32, see
    /// [`super::verdict`].
    pub const PREFIXES: &str = "prefixes";
    /// PERCPU_ARRAY of u64, see [`crate::event::logged`].
    pub const LOGGED: &str = "logged";
    /// ARRAY_OF_MAPS of one RINGBUF, shared by all programs: records for readers of the shield's log, see [`crate::event`].
    pub const EVENTS: &str = "events";
    /// Name of the XDP program. It accepts frames in several buffers (`xdp.frags`), so that drivers allow a large MTU.
    pub const PROGRAM: &str = "xdnsd";
    /// Name of the same program for frames in one buffer, for kernels before 5.18.
    pub const PROGRAM_SINGLE: &str = "xdnsd_single";
    /// Name of the first program with a call of the program for hot names (see [`crate::hot`]) before the redirect.
    pub const PROGRAM_TIER0: &str = "xdnsd_tier0";
    /// Name of the program that answers SYNs. It accepts frames in several buffers, as its caller does.
    pub const PROGRAM_SYN: &str = "xdnsd_syn";
    /// Name of the program for segments that may bring a cookie back, or belong to no connection.
    pub const PROGRAM_STRAY: &str = "xdnsd_stray";
    /// Name of the program for segments to hosts behind this one.
    pub const PROGRAM_FORWARD: &str = "xdnsd_forward";
    /// Name of the program that writes records of the shield's log.
    pub const PROGRAM_LOG: &str = "xdnsd_log";
}

/// Indices of programs for tail calls. If an entry is empty, the frame passes.
pub mod tail {
    /// Program for SYNs.
    pub const SYN: u32 = 0;
    /// Program for queries that may be for a hot name.
    pub const HOT: u32 = 1;
    /// Program for other segments.
    pub const STRAY: u32 = 2;
    /// Program for segments to hosts behind this one; the programs for the other two call it for segments that are not for
    /// this host.
    pub const FORWARD: u32 = 3;
    /// Program that logs a frame, as the last step.
    pub const LOG: u32 = 4;
    /// Program for queries of clients with limits, see [`crate::rate`].
    pub const RATE: u32 = 5;
    /// Number of entries.
    pub const COUNT: u32 = 6;
}

/// Indices of the shield's settings. A value of 0 is off.
pub mod shield {
    /// Treatment of SYNs to guarded ports, see [`crate::Orders`].
    pub const SYN_COOKIES: u32 = 0;
    /// Drop frames that can only be an attack; off: they pass.
    pub const DROP_GARBAGE: u32 = 1;
    /// Tries of prefixes to look into, see [`super::trie::bit`]; the others are empty.
    pub const TRIES: u32 = 2;
    /// Treatment of SYNs to protected addresses, see [`super::protect`].
    pub const PROTECT: u32 = 3;
    /// Share of frames that are logged, see [`crate::event::ALL`]; off: the log has no reader.
    pub const LOG: u32 = 4;
    /// Let the program for limits answer by itself; off: user space answers.
    pub const RATE_ANSWERS: u32 = 5;
    /// The [`crate::Listen::address_bit`]s of all guarded ports. A destination without its bit among them is not looked up.
    pub const GUARDED_BITS: u32 = 6;
    /// On a port of a bridge: milliseconds after which the bridge has to see a station again, see [`crate::bridge`].
    pub const PORT_INTERVAL_MS: u32 = 7;
    /// On a port of a bridge: index of the bridge.
    pub const PORT_BRIDGE: u32 = 8;
    /// On a port of a bridge that looks at VLAN tags: [`FILTERS_VLANS`], and the ID of the VLAN of frames without a tag.
    pub const PORT_VLAN: u32 = 9;
    /// The bridge looks at VLAN tags.
    pub const FILTERS_VLANS: u32 = 1 << 16;
    /// Number of entries.
    pub const COUNT: u32 = 10;
}

/// Treatment of SYNs to protected addresses.
pub mod protect {
    /// All segments to them pass.
    pub const OFF: u32 = 0;
    /// No flood: SYNs are answered, except to destinations with [`super::Protected::is_auto`].
    pub const CALM: u32 = 1;
    /// Flood: SYNs are answered.
    pub const FLOOD: u32 = 2;
}

/// Indices of keys.
pub mod secret {
    /// Key of the hash of clients.
    pub const CLIENTS: u32 = 0;
    /// Key of our own cookies.
    pub const COOKIE: u32 = 1;
    /// Previous key of our own cookies, which are still accepted.
    pub const COOKIE_BEFORE: u32 = 2;
    /// Number of entries.
    pub const COUNT: u32 = 3;
}

/// Clients whose hashes share their lowest bits. When full, a further client replaces the one that proved its address
/// first.
pub type ClientSet = [u64; 2];
/// Number of client sets of an interface.
pub const CLIENT_SETS: u32 = 1024;
const _: () = assert!(CLIENT_SETS.is_power_of_two());
/// Seconds after a client has brought a cookie back for which its segments without a connection pass to the kernel: the
/// connection may be about to be made on another processor, or behind this frame in the same batch.
pub const PROVED_SECS: u32 = 60;

/// Events that happen a limited number of times per second on each processor: index of their counter, and the limit.
pub mod few {
    /// Strays that pass, so that a client whose connection the kernel has forgotten gets an RST.
    pub const STRAYS: (u32, u64) = (0, 16);
    /// SYNs for which the kernel's listener and connection are looked up. Further SYNs get a cookie without a look-up.
    pub const SYNS: (u32, u64) = (1, 1_024);
    /// RSTs whose connection is looked up. Further ones are dropped: a connection that misses its RST closes when it has
    /// been idle for long enough.
    pub const RESETS: (u32, u64) = (2, 1_024);
    /// Time at which the debt of new clients is paid: of neighbours, and of others. See
    /// [`crate::rate::control::NEWCOMERS`].
    pub const NEWCOMERS: [u32; 2] = [3, 4];
    /// The same for answers with TC to new clients over the limit.
    pub const NEWCOMER_SLIPS: [u32; 2] = [5, 6];
    /// Number of entries.
    pub const COUNT: u32 = 7;
}

/// Indices of the tries of prefixes.
pub mod trie {
    /// Prefixes whose packets to us are dropped, whatever they carry.
    pub const DENIED: u32 = 0;
    /// Clients whose queries are dropped.
    pub const ACCESS: u32 = 1;
    /// Number of tries.
    pub const COUNT: u32 = 2;

    /// The bit of a trie in [`super::shield::TRIES`].
    #[must_use]
    pub const fn bit(trie: u32) -> u32 {
        1 << trie
    }
}

/// Verdict on packets from a prefix: the low byte of its value in the trie.
pub mod verdict {
    /// No verdict, as if the prefix were absent.
    pub const NONE: u8 = 0;
    /// The packets are dropped.
    pub const DENY: u8 = 1;
    /// The packets are not dropped, whatever a shorter prefix says.
    pub const ALLOW: u8 = 2;
}

/// Most prefixes that the config and its files deny or allow.
pub const PREFIXES_MAX: u32 = 10_000;
/// Most prefixes including those given at run time, for which the difference is always free.
pub const PREFIXES_ROOM: u32 = PREFIXES_MAX + 64;
/// Entries of the trie of prefixes: two more. One is ::ffff:0:0/96, without a verdict unless the config names it, so that
/// an IPv6 prefix such as ::/0 does not cover IPv4. The other is for kernels before 6.13, which want room for one more
/// entry even to replace one.
pub const TRIE_MAX: u32 = PREFIXES_ROOM + 2;

/// Most prefixes by which clients are dropped. With more, user space alone drops them.
pub const ACCESS_DROP_MAX: u32 = 64;

/// Key of the trie of prefixes: `struct bpf_lpm_trie_key`.
///
/// ```text
///  0     4                  20
///  | len | addr (v4-mapped) |
/// ```
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixKey {
    /// Prefix length in bits; for a mapped IPv4 address 96 more than its own.
    pub len: u32,
    /// Address as in [`Listen`], in words in memory order: the verifier accepts only aligned stores to the stack.
    pub addr: [u32; 4],
}
const _: () = assert!(size_of::<PrefixKey>() == 20 && align_of::<PrefixKey>() == 4);

/// Entries of the XSKMAP and of the heartbeat array: most RX queues of an interface. Frames of further queues pass.
pub const QUEUES_MAX: u32 = 64;
/// Entries of the listen map: most (VLAN, address, port) triples of an interface.
pub const LISTEN_MAX: u32 = 64;
/// Entries of the map of guarded TCP ports: most (VLAN, address, port) triples of an interface. Further ones are left to
/// the kernel.
pub const GUARDED_MAX: u32 = 20;
/// Age in nanoseconds from which on a heartbeat is stale: the program passes all frames, and the kernel's sockets answer.
pub const HEARTBEAT_STALE_NS: u64 = 1_000_000_000;
/// Interval in milliseconds between heartbeats of user space. At least three fit into the stale time.
pub const HEARTBEAT_INTERVAL_MS: u64 = 200;
const _: () = assert!(HEARTBEAT_INTERVAL_MS * 1_000_000 * 3 < HEARTBEAT_STALE_NS);
/// Longest DNS message in bytes that the program sums up and redirects. Longer queries are rare and pass to the kernel.
pub const MESSAGE_MAX: usize = 512;
/// Longest message of ours over UDP in bytes, as stated in OPT records: fits an unfragmented IPv6 packet (RFC 9715).
pub const UDP_MESSAGE_MAX: usize = 1232;
/// Longest frame in bytes that the program redirects: the longest message behind all headers, and padding. A UMEM chunk
/// holds more; the kernel drops what a chunk does not hold (`xsk_rcv`).
pub const FRAME_MAX: usize = 1024;
/// Longest frame in bytes with a SYN that is answered: the longest headers, and room for padding.
pub const SYN_FRAME_MAX: usize = 128;

/// Entries of the map of protected addresses: most prefixes with a port of an interface.
pub const PROTECTED_MAX: u32 = 64;

/// Key of the map of protected addresses, after its prefix length, which counts the bits of port, VLAN and address prefix.
///
/// ```text
///  0      2      4                20
///  | port | vlan | addr (v4-mapped) |
/// ```
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Behind {
    /// Big-endian TCP port.
    pub port: [u8; 2],
    /// Big-endian VLAN ID of the only tag; 0 if untagged.
    pub vlan: [u8; 2],
    /// IPv6 address, or IPv4 as ::ffff:a.b.c.d (RFC 4291 section 2.5.5.2).
    pub addr: [u8; 16],
}
const _: () = assert!(size_of::<Behind>() == 20 && align_of::<Behind>() == 1);

impl Behind {
    /// Number of bits before the address.
    pub const PORT_BITS: u32 = 32;

    /// The key as stored in the map.
    #[must_use]
    pub fn to_bytes(self) -> [u8; size_of::<Self>()] {
        let mut bytes = [0; size_of::<Self>()];
        bytes[..2].copy_from_slice(&self.port);
        bytes[2..4].copy_from_slice(&self.vlan);
        bytes[4..].copy_from_slice(&self.addr);
        bytes
    }
}

/// Value of the map of protected addresses.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protected {
    /// Checks that the answer leaves the way the segment came.
    pub check: PathCheck,
    /// Seconds for which a client that brought a cookie back is not asked again.
    pub verified_secs: u16,
    /// Nonzero if clients are asked only during a flood.
    pub is_auto: u16,
}
const _: () = assert!(size_of::<Protected>() == 24 && align_of::<Protected>() == 4);

impl Protected {
    /// The value as stored in the map.
    #[must_use]
    pub fn to_bytes(self) -> [u8; size_of::<Self>()] {
        let mut bytes = [0; size_of::<Self>()];
        let (check, terms) = bytes.split_at_mut(size_of::<PathCheck>());
        check.copy_from_slice(&self.check.to_bytes());
        terms[..2].copy_from_slice(&self.verified_secs.to_ne_bytes());
        terms[2..].copy_from_slice(&self.is_auto.to_ne_bytes());
        bytes
    }
}

/// Key of the listen map and of the map of guarded ports: a destination that is ours.
///
/// ```text
///  0               16      18      20      22    24
///  | addr (v4-mapped) | outer | inner | port | zero |
/// ```
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen {
    /// IPv6 address, or IPv4 as ::ffff:a.b.c.d (RFC 4291 section 2.5.5.2).
    pub addr: [u8; 16],
    /// Big-endian VLAN ID of the outer tag (12 bits); 0 if untagged.
    pub vlan_outer: [u8; 2],
    /// Big-endian VLAN ID of the inner tag; 0 if there is no second tag.
    pub vlan_inner: [u8; 2],
    /// Big-endian UDP port, or TCP port.
    pub port: [u8; 2],
    /// Always zero.
    pub padding: [u8; 2],
}
const _: () = assert!(size_of::<Listen>() == 24 && align_of::<Listen>() == 1);

impl Listen {
    /// The key as stored in the map.
    #[must_use]
    pub fn to_bytes(self) -> [u8; size_of::<Self>()] {
        let mut bytes = [0; size_of::<Self>()];
        bytes[..16].copy_from_slice(&self.addr);
        bytes[16..18].copy_from_slice(&self.vlan_outer);
        bytes[18..20].copy_from_slice(&self.vlan_inner);
        bytes[20..22].copy_from_slice(&self.port);
        bytes
    }

    /// One bit of 32 for the address. The exclusive or of its bytes selects it, so that neighbours in a network have
    /// different ones.
    #[inline(always)]
    #[must_use]
    pub const fn address_bit(&self) -> u32 {
        let [a, b, c, d, e, f, g, h, low @ ..] = self.addr;
        let words = u64::from_ne_bytes([a, b, c, d, e, f, g, h]) ^ u64::from_ne_bytes(low);
        let word = (words ^ (words >> 32)) as u32;
        let half = word ^ (word >> 16);
        1 << ((half ^ (half >> 8)) & 31)
    }
}

/// Value of the same maps: checks that the reply leaves the way the query came.
///
/// ```text
///  0                4                 8     14    16    20
///  | egress_ifindex | ingress_ifindex | mac | mss | own |
/// ```
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathCheck {
    /// Index of the interface that the kernel's FIB has to name for the reply: the VLAN's own device, or the interface
    /// itself. 0: the FIB is not asked, and swapping the MAC addresses is right. Otherwise any answer of the FIB but this
    /// interface with the query's source MAC as next hop makes the frame pass to the kernel. User space sets it if there
    /// are VLAN devices on the interface, because a NIC or veth may have moved the tag out of the frame where XDP cannot
    /// see it, and if the kernel would check the source by the same table (`rp_filter`).
    pub egress_ifindex: u32,
    /// Index of the interface that the AF_XDP sockets are bound to. The kernel runs the program of a bond, and of some
    /// other devices, for frames that their ports receive, and drops those that are redirected to a socket of the bond. 0:
    /// a port of a bridge whose frames all belong to the bridge.
    pub ingress_ifindex: u32,
    /// MAC address of the device with the destination's address. A frame to another one is not for us: a port of a bridge,
    /// or any promiscuous device, also receives frames of other stations.
    pub mac: [u8; 6],
    /// For a guarded port: largest segment that a client may send (RFC 9293 section 3.7.1). For the listen map: bits for
    /// queries that go to the program for limits, and for queries by a port of a bridge. Else zero.
    pub mss: u16,
    /// For the listen map: the [`Listen::address_bit`]s of all its entries. A source without its bit among them is none of
    /// our addresses, which spares nearly every query a look-up. For the map of guarded ports: the second, nearly, in which
    /// the kernel was last asked for a cookie of the listener, which the program itself writes. Else zero.
    pub own: u32,
}
const _: () = assert!(size_of::<PathCheck>() == 20 && align_of::<PathCheck>() == 4);

impl PathCheck {
    const LIMITS: u16 = 1;
    const PORT: u16 = 2;

    /// The value for the device with this MAC address.
    #[must_use]
    pub const fn new(egress_ifindex: u32, ingress_ifindex: u32, mac: [u8; 6]) -> Self {
        Self {
            egress_ifindex,
            ingress_ifindex,
            mac,
            mss: 0,
            own: 0,
        }
    }

    /// The value with an MSS, for a guarded port.
    #[must_use]
    pub const fn with_mss(self, mss: u16) -> Self {
        Self { mss, ..self }
    }

    /// The value with the bits of our addresses, for the listen map.
    #[must_use]
    pub const fn with_own(self, own: u32) -> Self {
        Self { own, ..self }
    }

    /// The value for a destination whose queries go to the program for limits.
    #[must_use]
    pub const fn with_limits(self) -> Self {
        self.with_mss(self.mss | Self::LIMITS)
    }

    /// True if queries go to the program for limits.
    #[inline(always)]
    #[must_use]
    pub const fn has_limits(&self) -> bool {
        self.mss & Self::LIMITS != 0
    }

    /// The value for frames that come by the bridge port with this index; 0: by a port whose frames all belong to the
    /// bridge.
    #[must_use]
    pub const fn by_port(self, ifindex: u32) -> Self {
        Self {
            ingress_ifindex: ifindex,
            ..self.with_mss(self.mss | Self::PORT)
        }
    }

    /// True if queries come by a port of a bridge, which has to see their senders.
    #[inline(always)]
    #[must_use]
    pub const fn is_by_port(&self) -> bool {
        self.mss & Self::PORT != 0
    }

    /// The value as stored in the map.
    #[must_use]
    pub fn to_bytes(self) -> [u8; size_of::<Self>()] {
        let mut bytes = [0; size_of::<Self>()];
        bytes[..4].copy_from_slice(&self.egress_ifindex.to_ne_bytes());
        bytes[4..8].copy_from_slice(&self.ingress_ifindex.to_ne_bytes());
        bytes[8..14].copy_from_slice(&self.mac);
        bytes[14..16].copy_from_slice(&self.mss.to_ne_bytes());
        bytes[16..].copy_from_slice(&self.own.to_ne_bytes());
        bytes
    }

    /// From the value of [`Self::to_bytes`].
    #[must_use]
    pub const fn from_bytes(bytes: [u8; size_of::<Self>()]) -> Self {
        let [a, b, c, d, e, f, g, h, mac @ .., i, j, k, l, m, n] = bytes;
        let (egress, ingress) = ([a, b, c, d], [e, f, g, h]);
        let check = Self::new(u32::from_ne_bytes(egress), u32::from_ne_bytes(ingress), mac);
        let check = check.with_mss(u16::from_ne_bytes([i, j]));
        check.with_own(u32::from_ne_bytes([k, l, m, n]))
    }
}
