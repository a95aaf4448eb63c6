//! The contract between the XDP program and user space: map names, keys, values, limits.
//!
//! Both sides compile this file, so neither can drift. Wire fields are big-endian byte arrays, so neither side converts by
//! accident; layouts are asserted below.

/// Names of the BPF maps, as they stand in the object file.
pub mod map {
    /// XSKMAP: RX queue index -> AF_XDP socket. The name is fixed by libbpf 0.3, which the `afxdp` crate carries.
    pub const XSKS: &str = "xsks_map";
    /// HASH: [`super::Listen`] -> [`super::PathCheck`]: the only destinations that are ours.
    pub const LISTEN: &str = "listen";
    /// PERCPU_ARRAY of u64, indexed by [`crate::Reason`].
    pub const COUNTERS: &str = "counters";
    /// ARRAY of u64, mappable, indexed by RX queue: CLOCK_MONOTONIC nanoseconds at which the queue's worker was last
    /// alive.
    pub const HEARTBEAT: &str = "heartbeat";
    /// PROG_ARRAY: what the program hands frames on to, see [`super::tail`].
    pub const TAILS: &str = "tails";
    /// HASH: [`super::Listen`] with a TCP port -> [`super::PathCheck`]: the only destinations that SYN cookies guard.
    pub const GUARDED: &str = "guarded";
    /// ARRAY of u32: what the shield is told, see [`super::shield`].
    pub const SHIELD: &str = "shield";
    /// ARRAY of [`crate::hash::HashKey`]: keys that nobody outside may know, see [`super::secret`].
    pub const SECRETS: &str = "secrets";
    /// LPM_TRIE: [`super::Behind`] with a number of bits in front -> [`super::Protected`]: whom the shield stands in front of.
    pub const PROTECTED: &str = "protected";
    /// ARRAY of [`super::ClientSet`]: clients that have proved their address, by a hash of it.
    pub const CLIENTS: &str = "clients";
    /// PERCPU_ARRAY of u64: how many there were of something in which second, see [`super::few`].
    pub const FEW: &str = "few";
    /// HASH: [`super::Listen`] with port 0 -> [`super::PathCheck`]: addresses that are ours, whatever the protocol.
    pub const ADDRESSES: &str = "addresses";
    /// ARRAY_OF_MAPS of one LPM_TRIE, which all programs share: [`super::PrefixKey`] -> u32, see [`super::verdict`].
    pub const PREFIXES: &str = "prefixes";
    /// PERCPU_ARRAY of u64: see [`crate::event::logged`].
    pub const LOGGED: &str = "logged";
    /// ARRAY_OF_MAPS of one RINGBUF, which all programs share: records for who reads the log, see [`crate::event`].
    pub const EVENTS: &str = "events";
    /// Name of the XDP program. It takes frames in several buffers (`xdp.frags`), so that drivers allow a large MTU.
    pub const PROGRAM: &str = "xdnsd";
    /// The same for kernels that only know frames in one buffer (before Linux 5.18).
    pub const PROGRAM_SINGLE: &str = "xdnsd_single";
    /// The first one again, that asks the program for hot names (see [`crate::hot`]) before it redirects.
    pub const PROGRAM_TIER0: &str = "xdnsd_tier0";
    /// Name of the program that answers SYNs. It takes frames in several buffers, as whoever hands them on has to.
    pub const PROGRAM_SYN: &str = "xdnsd_syn";
    /// Name of the program for what may bring a cookie back, or belong to no connection.
    pub const PROGRAM_STRAY: &str = "xdnsd_stray";
    /// Name of the program for segments to hosts behind this one.
    pub const PROGRAM_FORWARD: &str = "xdnsd_forward";
    /// Name of the program that writes records for who reads the log.
    pub const PROGRAM_LOG: &str = "xdnsd_log";
}

/// Places of the programs that frames are handed on to. An empty one: the frame passes.
pub mod tail {
    /// For SYNs.
    pub const SYN: u32 = 0;
    /// For queries that may be for a hot name.
    pub const HOT: u32 = 1;
    /// For other segments.
    pub const STRAY: u32 = 2;
    /// For segments to nobody here; the programs for the other two hand on what is not theirs.
    pub const FORWARD: u32 = 3;
    /// For frames that who reads the log is told of, when all else is done.
    pub const LOG: u32 = 4;
    /// For queries where clients have limits, see [`crate::rate`].
    pub const RATE: u32 = 5;
    /// How many there are.
    pub const COUNT: u32 = 6;
}

/// Places of what the shield is told. 0: off.
pub mod shield {
    /// What becomes of SYNs to guarded ports: see [`crate::Orders`].
    pub const SYN_COOKIES: u32 = 0;
    /// What can only be an attack is dropped; off: it passes.
    pub const DROP_GARBAGE: u32 = 1;
    /// The trie of prefixes is looked into; off: it is empty.
    pub const PREFIXES: u32 = 2;
    /// What becomes of SYNs to protected addresses: see [`super::protect`].
    pub const PROTECT: u32 = 3;
    /// Of how many frames who reads the log is told, see [`crate::event::ALL`]; off: nobody reads.
    pub const LOG: u32 = 4;
    /// The program for limits answers by itself; off: it leaves that to user space.
    pub const RATE_ANSWERS: u32 = 5;
    /// The [`crate::Listen::address_bit`]s of all guarded ports: where a destination's is not among them, none is looked for.
    pub const GUARDED_BITS: u32 = 6;
    /// Of a port of a bridge: after so many milliseconds the bridge has to hear of a station again, see [`crate::bridge`].
    pub const PORT_INTERVAL_MS: u32 = 7;
    /// Of a port: the bridge's index.
    pub const PORT_BRIDGE: u32 = 8;
    /// How many there are.
    pub const COUNT: u32 = 9;
}

/// What becomes of SYNs to protected addresses.
pub mod protect {
    /// All to them passes.
    pub const OFF: u32 = 0;
    /// They are answered where that is always wanted.
    pub const CALM: u32 = 1;
    /// They are answered.
    pub const FLOOD: u32 = 2;
}

/// Places of keys.
pub mod secret {
    /// For the hash of clients.
    pub const CLIENTS: u32 = 0;
    /// For cookies of our own.
    pub const COOKIE: u32 = 1;
    /// The one before, by which they are still good.
    pub const COOKIE_BEFORE: u32 = 2;
    /// How many there are.
    pub const COUNT: u32 = 3;
}

/// Clients whose hashes share their lowest bits. One more takes the place of the one that proved its address first.
pub type ClientSet = [u64; 2];
/// Sets of clients on one interface.
pub const CLIENT_SETS: u32 = 1024;
const _: () = assert!(CLIENT_SETS.is_power_of_two());
/// For so many seconds after a client has brought a cookie back, what it sends without a connection is the kernel's to refuse: the
/// connection may be about to be made on another processor, or behind this frame in the same batch.
pub const PROVED_SECS: u32 = 60;

/// What is done a few times a second on each processor: places of its numbers, and how often.
pub mod few {
    /// Strays that pass, so that a client whose connection the kernel has forgotten gets an RST.
    pub const STRAYS: (u32, u64) = (0, 16);
    /// SYNs for which the kernel is asked who listens, and whether there is such a connection already. To more it gives a cookie
    /// without a look at any socket.
    pub const SYNS: (u32, u64) = (1, 1_024);
    /// RSTs whose connection is looked up. Further ones are dropped without: a connection that misses its RST closes when it has been
    /// idle for long enough.
    pub const RESETS: (u32, u64) = (2, 1_024);
    /// From when on nothing counts any more against new clients: neighbours, and others. See [`crate::rate::control::NEWCOMERS`].
    pub const NEWCOMERS: [u32; 2] = [3, 4];
    /// The same of answers with TC to those that are too many.
    pub const NEWCOMER_SLIPS: [u32; 2] = [5, 6];
    /// How many there are.
    pub const COUNT: u32 = 7;
}

/// What becomes of packets from a prefix: the low byte of its value in the trie.
pub mod verdict {
    /// As if it were not there.
    pub const NONE: u8 = 0;
    /// They are dropped.
    pub const DENY: u8 = 1;
    /// They are not, though a shorter prefix says so.
    pub const ALLOW: u8 = 2;
}

/// Prefixes that the config and its files deny or allow.
pub const PREFIXES_MAX: u32 = 10_000;
/// The same with those that are said while it runs: so many can be said in any case.
pub const PREFIXES_ROOM: u32 = PREFIXES_MAX + 64;
/// Entries of their trie: two besides. One is ::ffff:0:0/96, without a verdict where nobody names it, so that no prefix of IPv6
/// such as ::/0 is one of IPv4. And kernels before 6.13 want room for one more where they only replace.
pub const TRIE_MAX: u32 = PREFIXES_ROOM + 2;

/// Key of the trie of prefixes: `struct bpf_lpm_trie_key`.
///
/// ```text
///  0     4                  20
///  | len | addr (v4-mapped) |
/// ```
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixKey {
    /// How many bits count, of a mapped IPv4 address 96 and those of its own.
    pub len: u32,
    /// As in [`Listen`], in words as they lie in memory: the verifier takes only aligned stores to the stack.
    pub addr: [u32; 4],
}
const _: () = assert!(size_of::<PrefixKey>() == 20 && align_of::<PrefixKey>() == 4);

/// Entries of the XSKMAP and of the heartbeat array: the RX queues that one interface may have. More are passed.
pub const QUEUES_MAX: u32 = 64;
/// Entries of the listen map: (VLAN, address, port) triples on one interface.
pub const LISTEN_MAX: u32 = 64;
/// Entries of the map of guarded TCP ports: (VLAN, address, port) triples on one interface. More are the kernel's.
pub const GUARDED_MAX: u32 = 20;
/// A heartbeat older than this is stale: the program passes, the kernel's sockets answer.
pub const HEARTBEAT_STALE_NS: u64 = 1_000_000_000;
/// How often user space writes its heartbeat. At least three fit into the stale time.
pub const HEARTBEAT_INTERVAL_MS: u64 = 200;
const _: () = assert!(HEARTBEAT_INTERVAL_MS * 1_000_000 * 3 < HEARTBEAT_STALE_NS);
/// Longest DNS message in bytes that the program sums up and redirects. Longer queries are rare and go to the kernel.
pub const MESSAGE_MAX: usize = 512;
/// Bytes of the longest message of ours over UDP, which an OPT record names: what fits an unfragmented IPv6 packet (RFC 9715).
pub const UDP_MESSAGE_MAX: usize = 1232;
/// Longest frame in bytes that the program redirects: the longest message behind all headers, and padding. A chunk of the
/// UMEM holds more, and the kernel drops what a chunk does not hold (`xsk_rcv`).
pub const FRAME_MAX: usize = 1024;
/// Longest frame in bytes with a SYN that is answered: the longest headers, and room for padding.
pub const SYN_FRAME_MAX: usize = 128;

/// Entries of the map of protected addresses: prefixes with a port, on one interface.
pub const PROTECTED_MAX: u32 = 64;

/// Key of the map of protected addresses, behind the number of its bits that count: those of port and VLAN, and of a prefix.
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
    /// Big-endian VLAN ID of the only tag, 0: untagged.
    pub vlan: [u8; 2],
    /// IPv6 address, or IPv4 as ::ffff:a.b.c.d (RFC 4291 section 2.5.5.2).
    pub addr: [u8; 16],
}
const _: () = assert!(size_of::<Behind>() == 20 && align_of::<Behind>() == 1);

impl Behind {
    /// Bits in front of the address.
    pub const PORT_BITS: u32 = 32;

    /// The key as the map holds it.
    #[must_use]
    pub fn to_bytes(self) -> [u8; size_of::<Self>()] {
        let mut bytes = [0; size_of::<Self>()];
        bytes[..2].copy_from_slice(&self.port);
        bytes[2..4].copy_from_slice(&self.vlan);
        bytes[4..].copy_from_slice(&self.addr);
        bytes
    }
}

/// Value of the same map.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protected {
    /// What is checked, so that the answer leaves as the segment came.
    pub check: PathCheck,
    /// For so many seconds a client that brought a cookie back is not asked again.
    pub verified_secs: u16,
    /// Not 0: clients are asked while somebody floods, and else not.
    pub is_auto: u16,
}
const _: () = assert!(size_of::<Protected>() == 24 && align_of::<Protected>() == 4);

impl Protected {
    /// The value as the map holds it.
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

/// Key of the listen map, and of the map of guarded ports: a destination that is ours.
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
    /// Big-endian VLAN ID of the outer tag (12 bits), 0: untagged.
    pub vlan_outer: [u8; 2],
    /// Big-endian VLAN ID of the inner tag, 0: no second tag.
    pub vlan_inner: [u8; 2],
    /// Big-endian UDP port, or TCP port.
    pub port: [u8; 2],
    /// Zero.
    pub padding: [u8; 2],
}
const _: () = assert!(size_of::<Listen>() == 24 && align_of::<Listen>() == 1);

impl Listen {
    /// The key as the map holds it.
    #[must_use]
    pub fn to_bytes(self) -> [u8; size_of::<Self>()] {
        let mut bytes = [0; size_of::<Self>()];
        bytes[..16].copy_from_slice(&self.addr);
        bytes[16..18].copy_from_slice(&self.vlan_outer);
        bytes[18..20].copy_from_slice(&self.vlan_inner);
        bytes[20..22].copy_from_slice(&self.port);
        bytes
    }

    /// One bit of 32 for the address: the exclusive or of its bytes decides, so that neighbours in a network have different ones.
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

/// Value of the same maps: what is checked, so that the reply leaves as the query came.
///
/// ```text
///  0                4                 8     14    16    20
///  | egress_ifindex | ingress_ifindex | mac | mss | own |
/// ```
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathCheck {
    /// Interface index that the kernel's FIB must name for the reply: the VLAN's own device, or the interface itself.
    /// 0: do not ask the FIB, swapping the MAC addresses is right. Not 0: any other answer than this interface with
    /// the query's source MAC as next hop is passed to the kernel. User space sets it where VLAN devices stand on the
    /// interface, because a NIC or veth may have moved the tag out of the frame where XDP cannot see it, and where the
    /// kernel would check the source by the same table (`rp_filter`).
    pub egress_ifindex: u32,
    /// Index of the interface that the AF_XDP sockets are bound to. The kernel runs the program of a bond, and of some others,
    /// for frames that their ports receive, and drops what is redirected from there to a socket of the bond. 0: of a port of a
    /// bridge that takes all frames itself.
    pub ingress_ifindex: u32,
    /// MAC address of the device that has the destination's address. A frame to another one is not for us: a port of a
    /// bridge, or any promiscuous device, hears those of other stations, too.
    pub mac: [u8; 6],
    /// Of a guarded port: the largest segment that a client may send (RFC 9293 section 3.7.1). Of one that is answered on: bits
    /// that say whether its queries go to the program for limits, and whether they come by a port of a bridge. Else zero.
    pub mss: u16,
    /// Of the listen map: the [`Listen::address_bit`]s of all its entries. A source whose bit is not among them is none of them,
    /// so that nearly every query is spared a look-up. Of the map of guarded ports: in which second, nearly, the kernel was last
    /// asked for a cookie of the listener, which the program itself writes there. Else zero.
    pub own: u32,
}
const _: () = assert!(size_of::<PathCheck>() == 20 && align_of::<PathCheck>() == 4);

impl PathCheck {
    const LIMITS: u16 = 1;
    const PORT: u16 = 2;

    /// The value for the device with this address.
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

    /// The same for a guarded port.
    #[must_use]
    pub const fn with_mss(self, mss: u16) -> Self {
        Self { mss, ..self }
    }

    /// The same for the listen map.
    #[must_use]
    pub const fn with_own(self, own: u32) -> Self {
        Self { own, ..self }
    }

    /// The same for a port whose queries go to the program for limits.
    #[must_use]
    pub const fn with_limits(self) -> Self {
        self.with_mss(self.mss | Self::LIMITS)
    }

    /// Whether queries go to the program for limits.
    #[inline(always)]
    #[must_use]
    pub const fn has_limits(&self) -> bool {
        self.mss & Self::LIMITS != 0
    }

    /// The same for what comes by the port of a bridge with this index; 0: by one whose frames are all the bridge's.
    #[must_use]
    pub const fn by_port(self, ifindex: u32) -> Self {
        Self {
            ingress_ifindex: ifindex,
            ..self.with_mss(self.mss | Self::PORT)
        }
    }

    /// Whether queries come by a port of a bridge, which has to hear of their senders.
    #[inline(always)]
    #[must_use]
    pub const fn is_by_port(&self) -> bool {
        self.mss & Self::PORT != 0
    }

    /// The value as the map holds it.
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

    /// What [`Self::to_bytes`] made.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; size_of::<Self>()]) -> Self {
        let [a, b, c, d, e, f, g, h, mac @ .., i, j, k, l, m, n] = bytes;
        let (egress, ingress) = ([a, b, c, d], [e, f, g, h]);
        let check = Self::new(u32::from_ne_bytes(egress), u32::from_ne_bytes(ingress), mac);
        let check = check.with_mss(u16::from_ne_bytes([i, j]));
        check.with_own(u32::from_ne_bytes([k, l, m, n]))
    }
}
