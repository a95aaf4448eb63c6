//! Every capacity of the appliance. The doc of each table says what happens when it is full.
//!
//! A firmware builder sets the capacities in `capacity!` through the environment of the build; Buildroot does so from its
//! menu (`buildroot/package/xdnsd/Config.in`). The others are changed in this file. Answers, addresses,
//! programs and the maximum of all memory are defaults: the config may ask for more, up to the constant of the same name with `_MAX`.

/// The number in the environment variable `$name` at compile time, or `$default`.
///
/// A value that is not a number or fails the asserts below does not compile. Nor does a variable of this form that this
/// file does not name, for which the build script searches it.
macro_rules! capacity {
    ($name:literal, $default:expr) => {
        match option_env!($name) {
            Some(text) => parse(text.as_bytes()),
            None => $default,
        }
    };
}

/// Parses a decimal number at compile time.
const fn parse(digits: &[u8]) -> usize {
    assert!(!digits.is_empty(), "a capacity is an empty string");
    let mut value = 0_usize;
    let mut at = 0;
    while at < digits.len() {
        assert!(
            digits[at].is_ascii_digit(),
            "a capacity is not a decimal number"
        );
        value = value * 10 + (digits[at] - b'0') as usize;
        at += 1;
    }
    value
}

/// Most memory of all parts together, in MiB, unless the config allows more. Defaults that take more do not compile:
/// `xdnsd memory` prints the sum line by line.
pub const MEMORY_MIB: usize = capacity!("XDNSD_LIMIT_MEMORY_MIB", 16);
/// The most that a config can allow, in MiB.
pub const MEMORY_MIB_MAX: usize = most(MEMORY_MIB, 1024);

/// Size of a UMEM chunk in bytes. The kernel requires a power of two of at least 2048 in aligned mode.
pub const CHUNK_SIZE: usize = 2048;
/// Chunks in a worker's UMEM: fill rings and frames in transmission.
pub const CHUNKS_PER_QUEUE: usize = capacity!("XDNSD_LIMIT_CHUNKS_PER_QUEUE", 640);
/// Chunks of a worker that are reserved for replies made after their query's chunk went back to the fill ring. When all are
/// in use, they are sent at once; if that frees none, the reply is not sent, and the stub asks again.
pub const TX_CHUNKS: usize = CHUNKS_PER_QUEUE / 10;
/// Entries of the fill and RX ring of a socket with a worker of its own. Sockets that share a worker have smaller rings
/// (`os::xsk::Shape`).
pub const RX_RING: usize = capacity!("XDNSD_LIMIT_RX_RING", 512);
/// Entries of the TX and completion ring of such a socket.
pub const TX_RING: usize = capacity!("XDNSD_LIMIT_TX_RING", 256);
/// Most frames that a worker takes from an RX ring at once.
pub const BATCH: usize = 64;
/// Most threads that serve AF_XDP and UDP, unless the config wants fewer. AF_XDP sockets are spread over as many as there
/// are CPUs; a zero-copy socket has a worker of its own.
pub const WORKERS: usize = capacity!("XDNSD_LIMIT_WORKERS", 4);
/// Most addresses of an interface, with port and VLAN, that are served over AF_XDP, unless the config says otherwise. The
/// kernel's sockets serve further ones.
pub const ADDRESSES: usize = xdnsd_abi::LISTEN_MAX as usize;
/// The most that a config can ask for.
pub const ADDRESSES_MAX: usize = 4 * ADDRESSES;
/// Most XDP programs at once, unless the config says otherwise: one for each interface and each port of a bridge. The kernel's
/// sockets serve further ones.
pub const PROGRAMS: usize = 8;
/// The most that a config can ask for.
pub const PROGRAMS_MAX: usize = 64;
/// Most AF_XDP sockets, one per RX queue, over all interfaces. Further queues are served by the kernel's sockets.
pub const SOCKETS: usize = capacity!("XDNSD_LIMIT_SOCKETS", 16);

/// Longest name in wire form in bytes (RFC 1035 section 3.1).
pub const NAME_MAX: usize = xdnsd_abi::headers::dns::NAME_MAX;
/// Longest message over UDP in bytes, both ways: fits an unfragmented IPv6 packet (RFC 9715).
pub const UDP_MESSAGE_MAX: usize = xdnsd_abi::UDP_MESSAGE_MAX;
/// Longest message over TCP in bytes (RFC 1035 section 4.2.2).
pub const TCP_MESSAGE_MAX: usize = 65535;

/// Number of cache shards of [`CACHE_ENTRIES`], each behind a lock of its own. A power of two. A larger cache has more of them.
pub const CACHE_SHARDS: usize = capacity!("XDNSD_LIMIT_CACHE_SHARDS", 16);
/// Slots of a set, for both slot sizes.
pub const CACHE_WAYS: usize = 8;
/// Sets of small slots per shard.
pub const CACHE_SMALL_SETS: usize = capacity!("XDNSD_LIMIT_CACHE_SMALL_SETS", 53);
/// Size of a small slot in bytes: name and answer.
pub const CACHE_SMALL_BYTES: usize = 248;
/// Sets of large slots per shard.
pub const CACHE_LARGE_SETS: usize = capacity!("XDNSD_LIMIT_CACHE_LARGE_SETS", 11);
/// Size of a large slot in bytes: name and answer.
pub const CACHE_LARGE_BYTES: usize = NAME_MAX + UDP_MESSAGE_MAX;
/// Answers of a full shard.
pub const SHARD_ENTRIES: usize = CACHE_WAYS * (CACHE_SMALL_SETS + CACHE_LARGE_SETS);
/// Most answers in the cache, unless the config says otherwise.
pub const CACHE_ENTRIES: usize = CACHE_SHARDS * SHARD_ENTRIES;
/// Shards of the largest cache.
pub const CACHE_SHARDS_MAX: usize = 8 * CACHE_SHARDS;
/// The most answers that a config can ask for.
pub const CACHE_ENTRIES_MAX: usize = CACHE_SHARDS_MAX * SHARD_ENTRIES;

/// Questions in flight per worker. When full, the oldest question of the client with the most questions ends, with SERVFAIL
/// or a stale answer, for the new one. A refresh is left out.
pub const PENDING: usize = capacity!("XDNSD_LIMIT_PENDING", 512);
/// Clients that wait for questions in flight, per worker. When full, the oldest question of the client with the most
/// questions, among those with waiting clients, ends for the new client. While more than half of the places are in use, a
/// client that has a quarter of them gets SERVFAIL, and no upstream is asked for it.
pub const WAITERS: usize = capacity!("XDNSD_LIMIT_WAITERS", 1024);
/// Most views, including that of all other clients.
pub const VIEWS_MAX: usize = 8;
/// Most policies in force at once: one for each view, and one without lists for its clients with paused lists.
pub const POLICIES_MAX: usize = 2 * VIEWS_MAX;
/// Clients that wait for the target of a local alias, per worker. When full, the client gets SERVFAIL, and the stub asks
/// again; no other client is affected. While more than half of the places are in use, a client that has a quarter of them
/// gets SERVFAIL.
pub const ALIASES: usize = capacity!("XDNSD_LIMIT_ALIASES", 64);
/// Questions per worker whose answers end in an alias, so that its target is asked for. When full, the oldest of them of
/// the client with the most ends, with SERVFAIL, for the new one.
pub const SUB_QUESTIONS: usize = 12;
/// Upstream servers over all groups.
pub const UPSTREAMS: usize = capacity!("XDNSD_LIMIT_UPSTREAMS", 16);
/// Connected UDP sockets to upstreams at once, per worker, if each question has its own (`forward.upstream_ports`). When
/// full, the oldest socket of the client with the most questions is closed, and its question is asked again at its next
/// deadline.
pub const UPSTREAM_SOCKETS: usize = capacity!("XDNSD_LIMIT_UPSTREAM_SOCKETS", 256);
/// Datagrams to upstreams that are no longer waited for and may still be answered, per worker. When full, the port of the
/// oldest is closed, and its answer is not seen.
pub const LINGERING: usize = 64;
/// TCP connections to upstreams at once, per worker. When full, one without questions makes room. If all have questions, as
/// for [`STREAM_QUESTIONS`].
pub const STREAMS: usize = capacity!("XDNSD_LIMIT_STREAMS", 8);
/// Questions in these connections at once, per worker. When full, a client over UDP gets TC, a client on a stream waits for
/// a place. While more than half of the places are in use, a client that has a quarter of them gets no more.
pub const STREAM_QUESTIONS: usize = 32;
/// TCP connections of clients at once. When full, the one that has been idle for longest makes room.
pub const TCP_CLIENTS: usize = capacity!("XDNSD_LIMIT_TCP_CLIENTS", 32);
/// Bytes of a query over TCP that are parsed. The rest of a longer one is read and discarded.
pub const TCP_QUERY_MAX: usize = 2048;

const fn most(one: usize, other: usize) -> usize {
    if one > other { one } else { other }
}

/// True if this build has another size of the cache than the default.
const IS_CACHE_CHANGED: bool = option_env!("XDNSD_LIMIT_CACHE_SHARDS").is_some()
    || option_env!("XDNSD_LIMIT_CACHE_SMALL_SETS").is_some()
    || option_env!("XDNSD_LIMIT_CACHE_LARGE_SETS").is_some();

// The compiler prints the text of a failed assert, so each says what is wrong, and with which capacity.
const _: () = assert!(
    CACHE_SHARDS.is_power_of_two(),
    "XDNSD_LIMIT_CACHE_SHARDS is not a power of two"
);
const _: () = assert!(
    CHUNK_SIZE.is_power_of_two() && CHUNK_SIZE >= 2048,
    "CHUNK_SIZE is not a power of two of at least 2048"
);
const _: () = assert!(
    RX_RING.is_power_of_two() && TX_RING.is_power_of_two(),
    "XDNSD_LIMIT_RX_RING or XDNSD_LIMIT_TX_RING is not a power of two"
);
const _: () = assert!(
    RX_RING + BATCH + TX_CHUNKS <= CHUNKS_PER_QUEUE,
    "XDNSD_LIMIT_CHUNKS_PER_QUEUE is too small: a full fill ring (XDNSD_LIMIT_RX_RING), the batch in hand (64) and a tenth \
     for later replies do not fit"
);
const _: () = assert!(
    CACHE_ENTRIES == 8192 || IS_CACHE_CHANGED,
    "the defaults of the cache do not hold 8,192 answers, which is the goal"
);
const _: () = assert!(
    CACHE_SMALL_SETS > 0 && CACHE_LARGE_SETS > 0,
    "XDNSD_LIMIT_CACHE_SMALL_SETS or XDNSD_LIMIT_CACHE_LARGE_SETS is 0: answers of that size have no place"
);
const _: () = assert!(
    WORKERS > 0 && PENDING > 0 && UPSTREAMS > 0 && UPSTREAM_SOCKETS > 0,
    "XDNSD_LIMIT_WORKERS, _PENDING, _UPSTREAMS or _UPSTREAM_SOCKETS is 0"
);
const _: () = assert!(
    SOCKETS > 0 && SOCKETS <= 64,
    "XDNSD_LIMIT_SOCKETS is 0 or over 64"
);
const _: () = assert!(
    ALIASES > 0 && STREAMS > 0 && TCP_CLIENTS > 0,
    "XDNSD_LIMIT_ALIASES, _STREAMS or _TCP_CLIENTS is 0: local aliases, long answers and clients over TCP would have no place"
);
const _: () = assert!(
    TCP_CLIENTS <= u16::MAX as usize,
    "XDNSD_LIMIT_TCP_CLIENTS is over 65535"
);
const _: () = assert!(
    UPSTREAM_SOCKETS <= 512 && STREAMS < 255 && STREAM_QUESTIONS < 255,
    "the names of an engine's ports and streams, see `forward::via`"
);
const _: () = assert!(
    WAITERS >= PENDING,
    "XDNSD_LIMIT_WAITERS is smaller than XDNSD_LIMIT_PENDING: not even who asks first could wait"
);
// Headroom 256 + Ethernet 14 + two tags 8 + IPv6 40 + UDP 8 + message.
const _: () = assert!(
    256 + 70 + UDP_MESSAGE_MAX <= CHUNK_SIZE,
    "UDP_MESSAGE_MAX is too large: a full answer does not fit the query's own chunk"
);

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn capacity_is_read_as_a_decimal_number() {
        assert_eq!(parse(b"8192"), 8192);
        assert_eq!(parse(b"0"), 0);
    }

    #[test]
    #[should_panic(expected = "not a decimal number")]
    fn capacity_with_a_unit_is_refused() {
        parse(b"8k");
    }

    #[test]
    #[should_panic(expected = "empty string")]
    fn capacity_that_is_empty_is_refused() {
        parse(b"");
    }
}
