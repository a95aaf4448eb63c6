//! Every capacity of the appliance. What is full says what happens in the doc of its table.
//!
//! A firmware builder changes them here.

/// UMEM chunk in bytes. The kernel wants a power of two of at least 2048 in aligned mode.
pub const CHUNK_SIZE: usize = 2048;
/// Chunks of one RX queue's UMEM: fill ring plus frames in transmission.
pub const CHUNKS_PER_QUEUE: usize = 1024;
/// Chunks of one queue that are kept for replies made after their query's chunk went back to the fill ring. All in use:
/// the reply is not sent, and the stub asks again.
pub const TX_CHUNKS: usize = CHUNKS_PER_QUEUE / 4;
/// Entries of the fill and RX ring of one queue.
pub const RX_RING: usize = 512;
/// Entries of the TX and completion ring of one queue.
pub const TX_RING: usize = 512;
/// Frames that a worker takes from the RX ring at once.
pub const BATCH: usize = 64;
/// Workers: RX queues with an AF_XDP socket, over all interfaces. More queues are served by the kernel's sockets.
pub const WORKERS: usize = 4;

/// Longest wire-format name in bytes (RFC 1035 section 3.1).
pub const NAME_MAX: usize = 255;
/// Longest message over UDP in bytes, both ways: what fits an unfragmented IPv6 packet (RFC 9715).
pub const UDP_MESSAGE_MAX: usize = 1232;
/// Longest message over TCP in bytes (RFC 1035 section 4.2.2).
pub const TCP_MESSAGE_MAX: usize = 65535;

/// Cache shards, each behind a lock of its own. A power of two.
pub const CACHE_SHARDS: usize = 16;
/// Slots of one set, in both slot sizes.
pub const CACHE_WAYS: usize = 8;
/// Sets of small slots per shard. A power of two.
pub const CACHE_SMALL_SETS: usize = 48;
/// Bytes of a small slot: name and answer.
pub const CACHE_SMALL_BYTES: usize = 256;
/// Sets of large slots per shard.
pub const CACHE_LARGE_SETS: usize = 16;
/// Bytes of a large slot: name and answer.
pub const CACHE_LARGE_BYTES: usize = NAME_MAX + UDP_MESSAGE_MAX;
/// Answers that the cache holds at most.
pub const CACHE_ENTRIES: usize = CACHE_SHARDS * CACHE_WAYS * (CACHE_SMALL_SETS + CACHE_LARGE_SETS);

/// Questions in flight per worker.
pub const PENDING: usize = 1024;
/// Clients that wait for a question in flight, per worker.
pub const WAITERS: usize = 2048;
/// Upstream servers over all groups.
pub const UPSTREAMS: usize = 16;
/// Upstream UDP sockets per worker, each on a random port of its own.
pub const UPSTREAM_SOCKETS: usize = 32;

const _: () = assert!(CACHE_SHARDS.is_power_of_two());
const _: () = assert!(CHUNK_SIZE.is_power_of_two() && CHUNK_SIZE >= 2048);
const _: () = assert!(RX_RING.is_power_of_two() && TX_RING.is_power_of_two());
const _: () = assert!(
    RX_RING + TX_RING <= CHUNKS_PER_QUEUE,
    "every ring entry needs a chunk"
);
const _: () = assert!(CACHE_ENTRIES == 8192, "the goal's figure: 8,192 answers");
// Headroom 256 + Ethernet 14 + two tags 8 + IPv6 40 + UDP 8 + message.
const _: () = assert!(
    256 + 70 + UDP_MESSAGE_MAX <= CHUNK_SIZE,
    "a full answer fits the query's own chunk"
);
