//! Every capacity of the appliance. The doc of each table says what happens when it is full.
//!
//! A firmware builder sets what `capacity!` names in the environment of the build; Buildroot does it from its menu
//! (`buildroot/package/xdnsd/Config.in`). The rest is changed here.

/// The number in the environment variable `$name` at compile time, else `$default`.
///
/// A value that is not a number, or that the asserts below do not allow, does not compile. Nor does a variable of this
/// form that no line here names: the build script looks for its name in this file.
macro_rules! capacity {
    ($name:literal, $default:expr) => {
        match option_env!($name) {
            Some(text) => parse(text.as_bytes()),
            None => $default,
        }
    };
}

/// Reads a decimal number while compiling.
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

/// What everything together may take, in MiB. More does not compile: `xdnsd memory` prints the sum line by line.
pub const MEMORY_MIB: usize = capacity!("XDNSD_LIMIT_MEMORY_MIB", 16);

/// UMEM chunk in bytes. The kernel wants a power of two of at least 2048 in aligned mode.
pub const CHUNK_SIZE: usize = 2048;
/// Chunks of one worker's UMEM: fill rings plus frames in transmission.
pub const CHUNKS_PER_QUEUE: usize = capacity!("XDNSD_LIMIT_CHUNKS_PER_QUEUE", 640);
/// Chunks of one worker that are kept for replies made after their query's chunk went back to the fill ring. All in use:
/// those are sent at once; where that gives none back, the reply is not sent, and the stub asks again.
pub const TX_CHUNKS: usize = CHUNKS_PER_QUEUE / 10;
/// Entries of the fill and RX ring of a socket that has a worker for itself. Those of sockets that share one are smaller
/// (`os::xsk::Shape`).
pub const RX_RING: usize = capacity!("XDNSD_LIMIT_RX_RING", 512);
/// Entries of the TX and completion ring of such a socket.
pub const TX_RING: usize = capacity!("XDNSD_LIMIT_TX_RING", 256);
/// Frames that a worker takes from the RX ring at once.
pub const BATCH: usize = 64;
/// Threads that serve AF_XDP and UDP. AF_XDP sockets are spread over as many as there are CPUs; one with zero copy has a
/// worker for itself.
pub const WORKERS: usize = capacity!("XDNSD_LIMIT_WORKERS", 4);
/// AF_XDP sockets: RX queues, over all interfaces. More queues are served by the kernel's sockets.
pub const SOCKETS: usize = capacity!("XDNSD_LIMIT_SOCKETS", 16);

/// Longest wire-format name in bytes (RFC 1035 section 3.1).
pub const NAME_MAX: usize = xdnsd_abi::headers::dns::NAME_MAX;
/// Longest message over UDP in bytes, both ways: what fits an unfragmented IPv6 packet (RFC 9715).
pub const UDP_MESSAGE_MAX: usize = xdnsd_abi::UDP_MESSAGE_MAX;
/// Longest message over TCP in bytes (RFC 1035 section 4.2.2).
pub const TCP_MESSAGE_MAX: usize = 65535;

/// Cache shards, each behind a lock of its own. A power of two.
pub const CACHE_SHARDS: usize = capacity!("XDNSD_LIMIT_CACHE_SHARDS", 16);
/// Slots of one set, in both slot sizes.
pub const CACHE_WAYS: usize = 8;
/// Sets of small slots per shard.
pub const CACHE_SMALL_SETS: usize = capacity!("XDNSD_LIMIT_CACHE_SMALL_SETS", 53);
/// Bytes of a small slot: name and answer.
pub const CACHE_SMALL_BYTES: usize = 248;
/// Sets of large slots per shard.
pub const CACHE_LARGE_SETS: usize = capacity!("XDNSD_LIMIT_CACHE_LARGE_SETS", 11);
/// Bytes of a large slot: name and answer.
pub const CACHE_LARGE_BYTES: usize = NAME_MAX + UDP_MESSAGE_MAX;
/// Answers that the cache holds at most.
pub const CACHE_ENTRIES: usize = CACHE_SHARDS * CACHE_WAYS * (CACHE_SMALL_SETS + CACHE_LARGE_SETS);

/// Questions in flight per worker. All in use: the oldest question of the client that has the most ends, with SERVFAIL or a
/// stale answer, for the new one. A refresh is left out.
pub const PENDING: usize = capacity!("XDNSD_LIMIT_PENDING", 512);
/// Clients that wait for a question in flight, per worker. All in use: the oldest question of the client that has the most,
/// among those that somebody waits for, ends for the new client. While more than half are in use, a client that has a
/// quarter of them gets SERVFAIL, and nothing is asked for it.
pub const WAITERS: usize = capacity!("XDNSD_LIMIT_WAITERS", 1024);
/// Views that there may be, that of all other clients included.
pub const VIEWS_MAX: usize = 8;
/// Policies in force at once: one for each view, and one without lists for clients of it for whom they are paused.
pub const POLICIES_MAX: usize = 2 * VIEWS_MAX;
/// Clients that wait for what a local alias leads to, per worker. All in use: SERVFAIL, and the stub asks again; nobody
/// else pays for it. While more than half are in use, a client that has a quarter of them gets SERVFAIL.
pub const ALIASES: usize = capacity!("XDNSD_LIMIT_ALIASES", 64);
/// Questions per worker whose answers ended with an alias, so that its target is asked for, too. All in use: the oldest of
/// them of the client that has the most ends, with SERVFAIL, for the new one.
pub const SUB_QUESTIONS: usize = 12;
/// Upstream servers over all groups.
pub const UPSTREAMS: usize = capacity!("XDNSD_LIMIT_UPSTREAMS", 16);
/// Connected UDP sockets to upstreams at once, per worker, where each question has one (`forward.upstream_ports`). All in
/// use: of the client that has the most questions the oldest is closed, and its question is asked again when its time comes.
pub const UPSTREAM_SOCKETS: usize = capacity!("XDNSD_LIMIT_UPSTREAM_SOCKETS", 256);
/// Datagrams to upstreams that nobody waits for any more and that may still be answered, per worker. All in use: the port
/// of the oldest is closed, and its answer never seen.
pub const LINGERING: usize = 64;
/// TCP connections to upstreams at once, per worker. All in use: one that no question waits on makes room. There is none: as
/// for [`STREAM_QUESTIONS`].
pub const STREAMS: usize = capacity!("XDNSD_LIMIT_STREAMS", 8);
/// Questions in these connections at once, per worker. All in use: who waits for a datagram gets TC, who waits on a stream
/// waits until there is a place. While more than half are in use, a client that has a quarter of them gets no more.
pub const STREAM_QUESTIONS: usize = 32;
/// TCP connections of clients at once. Full: the one that has been idle for the longest time makes room.
pub const TCP_CLIENTS: usize = capacity!("XDNSD_LIMIT_TCP_CLIENTS", 32);
/// Bytes of a query over TCP that are looked at. The rest of a longer one is read and discarded.
pub const TCP_QUERY_MAX: usize = 2048;

/// Whether this build has another size of the cache.
const IS_CACHE_CHANGED: bool = option_env!("XDNSD_LIMIT_CACHE_SHARDS").is_some()
    || option_env!("XDNSD_LIMIT_CACHE_SMALL_SETS").is_some()
    || option_env!("XDNSD_LIMIT_CACHE_LARGE_SETS").is_some();

// The compiler prints the text of what does not hold, so each says what is wrong, and of which capacity.
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
