//! Record that a worker writes for readers about one query, answer or frame, and its layout in 64 bytes.
//!
//! ```text
//!  0        8       12     16      18     19     20    21    22       40      42        60   64
//!  | time_ns | micros | len | kept | kind | via | why | -- | client ... | port | upstream | -- | kept bytes: message or frame
//! ```

use std::net::{Ipv6Addr, SocketAddr};

use xdnsd_core::counters::{Counter, Counters};

/// Bytes of an entry, in front of the message or frame.
pub const ENTRY_BYTES: usize = 64;

/// Event of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum TapKind {
    /// A query, as received.
    Query,
    /// An answer that was given at once.
    Answer,
    /// A query that waits for its answer, as received.
    Waiting,
    /// The answer to a query that has waited.
    Late,
    /// A query that gets no answer, as received.
    Silence,
    /// A frame received by the AF_XDP socket.
    FrameIn,
    /// A frame sent by the AF_XDP socket.
    FrameOut,
}

impl TapKind {
    const ALL: [Self; 7] = [
        Self::Query,
        Self::Answer,
        Self::Waiting,
        Self::Late,
        Self::Silence,
        Self::FrameIn,
        Self::FrameOut,
    ];

    /// The bit in [`wanted`] for this kind.
    #[must_use]
    pub const fn wanted(self) -> u8 {
        match self {
            Self::Query => wanted::QUERIES,
            Self::Answer | Self::Waiting | Self::Late | Self::Silence => wanted::ANSWERS,
            Self::FrameIn | Self::FrameOut => wanted::FRAMES,
        }
    }
}

/// What a reader wants, as bits.
pub mod wanted {
    /// Outcomes of queries.
    pub const ANSWERS: u8 = 1;
    /// Queries as well, as received.
    pub const QUERIES: u8 = 2;
    /// Frames of AF_XDP sockets.
    pub const FRAMES: u8 = 4;
    /// Everything.
    pub const ALL: u8 = ANSWERS | QUERIES | FRAMES;
}

/// Path by which a query arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum QueryPath {
    /// Through an AF_XDP socket.
    Xdp,
    /// Through the kernel's UDP sockets.
    Udp,
    /// Over TCP.
    Tcp,
}

impl QueryPath {
    /// All paths.
    pub const ALL: [Self; 3] = [Self::Xdp, Self::Udp, Self::Tcp];

    /// Label value in metrics.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Xdp => "xdp",
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }
}

/// Why a query was answered as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum AnswerReason {
    /// A list blocks the name, or one that it leads to.
    Blocked,
    /// The upstream's answer has a private address (rebind protection).
    Rebind,
    /// Its address is one that is not passed on.
    Filtered,
    /// The access rules deny the client.
    Access,
    /// A rate limit of the client is exceeded.
    Rate,
    /// The client has to retry with a DNS cookie.
    Cookie,
    /// The query is malformed.
    Malformed,
    /// The query is of an unsupported kind.
    Unsupported,
    /// The query is refused.
    Refused,
    /// No upstream server answers.
    Failed,
    /// From the cache, past its TTL.
    Stale,
    /// From local data, or a special-use name.
    Local,
    /// From the cache.
    Cache,
    /// The query waits for an upstream server.
    Waiting,
    /// The message is not a query.
    Ignored,
    /// Answered by an upstream server.
    Upstream,
    /// Made here: for ANY, or a server's identification.
    Own,
    /// Made by DNS64 of an upstream server's answer.
    Dns64,
}

impl AnswerReason {
    /// Each of them.
    pub const ALL: [Self; 18] = [
        Self::Blocked,
        Self::Rebind,
        Self::Filtered,
        Self::Access,
        Self::Rate,
        Self::Cookie,
        Self::Malformed,
        Self::Unsupported,
        Self::Refused,
        Self::Failed,
        Self::Stale,
        Self::Local,
        Self::Cache,
        Self::Waiting,
        Self::Ignored,
        Self::Upstream,
        Self::Own,
        Self::Dns64,
    ];

    /// Word for display.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Blocked => "blocked",
            Self::Rebind => "rebind",
            Self::Filtered => "filtered",
            Self::Access => "access",
            Self::Rate => "rate",
            Self::Cookie => "cookie",
            Self::Malformed => "malformed",
            Self::Unsupported => "unsupported",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Stale => "stale",
            Self::Local => "local",
            Self::Cache => "cache",
            Self::Waiting => "waiting",
            Self::Ignored => "ignored",
            Self::Upstream => "upstream",
            Self::Own => "own",
            Self::Dns64 => "dns64",
        }
    }
}

/// What the engine counts where it decides, in the order in which it is believed: several may be counted for one query.
const DECISIVE: [(Counter, AnswerReason); 21] = [
    (Counter::Blocked, AnswerReason::Blocked),
    (Counter::RebindWithheld, AnswerReason::Rebind),
    (Counter::BogusNxdomain, AnswerReason::Filtered),
    (Counter::FamilyWithheld, AnswerReason::Filtered),
    (Counter::Dns64Answers, AnswerReason::Dns64),
    (Counter::AclDropped, AnswerReason::Access),
    (Counter::RateQueriesSlipped, AnswerReason::Rate),
    (Counter::RateQueriesDropped, AnswerReason::Rate),
    (Counter::RateMissesSlipped, AnswerReason::Rate),
    (Counter::RateMissesDropped, AnswerReason::Rate),
    (Counter::BadCookies, AnswerReason::Cookie),
    (Counter::FormerrGiven, AnswerReason::Malformed),
    (Counter::NotimpGiven, AnswerReason::Unsupported),
    (Counter::RefusedGiven, AnswerReason::Refused),
    (Counter::ServfailGiven, AnswerReason::Failed),
    (Counter::CacheStale, AnswerReason::Stale),
    (Counter::LocalAnswers, AnswerReason::Local),
    (Counter::CacheHits, AnswerReason::Cache),
    (Counter::CacheMisses, AnswerReason::Waiting),
    (Counter::Coalesced, AnswerReason::Waiting),
    (Counter::IgnoredMessages, AnswerReason::Ignored),
];

/// Earlier values of the decisive counters: a changed one gives the reason. So the engine pays nothing for the tap.
#[derive(Clone, Debug, Default)]
pub struct Marks([u64; DECISIVE.len()]);

impl Marks {
    /// Takes the present values.
    pub fn set(&mut self, counters: &Counters) {
        for (mark, (counter, _)) in self.0.iter_mut().zip(DECISIVE) {
            *mark = counters.get(counter);
        }
    }

    /// Reason of the first counter that has changed since the last call, if any; takes the present values.
    pub fn moved(&mut self, counters: &Counters) -> Option<AnswerReason> {
        let mut found = None;
        for (mark, (counter, why)) in self.0.iter_mut().zip(DECISIVE) {
            let value = counters.get(counter);
            if value != *mark && found.is_none() {
                found = Some(why);
            }
            *mark = value;
        }
        found
    }
}

/// An entry: one query, answer or frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TapEntry {
    /// CLOCK_MONOTONIC in nanoseconds.
    pub time_ns: u64,
    /// Time that a worker spent on it, in microseconds; 0 if unknown.
    pub micros: u32,
    /// Bytes of the message or frame.
    pub len: u32,
    /// Bytes kept after the entry.
    pub kept: u16,
    /// The event.
    pub kind: TapKind,
    /// Path of the query.
    pub via: QueryPath,
    /// Reason of the answer.
    pub why: AnswerReason,
    /// Address of the client.
    pub client: SocketAddr,
    /// Upstream that answered, if any.
    pub upstream: Option<SocketAddr>,
}

impl TapEntry {
    /// Encodes the entry.
    #[must_use]
    pub fn emit(&self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        bytes[..8].copy_from_slice(&self.time_ns.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.micros.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.len.to_le_bytes());
        bytes[16..18].copy_from_slice(&self.kept.to_le_bytes());
        bytes[18..21].copy_from_slice(&[self.kind as u8, self.via as u8, self.why as u8]);
        put_address(&mut bytes[22..40], Some(self.client));
        put_address(&mut bytes[42..60], self.upstream);
        bytes
    }

    /// Decodes an entry. `None` if it is malformed.
    #[must_use]
    pub fn parse(bytes: &[u8; ENTRY_BYTES]) -> Option<Self> {
        let number = |at: usize| {
            let bytes = bytes[at..].first_chunk();
            bytes.map(|bytes| u32::from_le_bytes(*bytes))
        };
        Some(Self {
            time_ns: u64::from_le_bytes(*bytes.first_chunk()?),
            micros: number(8)?,
            len: number(12)?,
            kept: number(16)? as u16,
            kind: *TapKind::ALL.get(usize::from(bytes[18]))?,
            via: *QueryPath::ALL.get(usize::from(bytes[19]))?,
            why: *AnswerReason::ALL.get(usize::from(bytes[20]))?,
            client: address(&bytes[22..40])?,
            upstream: address(&bytes[42..60]).filter(|upstream| upstream.port() != 0),
        })
    }
}

/// Encodes an address as 16 bytes, IPv4-mapped, and the port; all zeros for `None`.
fn put_address(bytes: &mut [u8], address: Option<SocketAddr>) {
    let Some(address) = address else { return };
    let ip = match address.ip() {
        std::net::IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        std::net::IpAddr::V6(ip) => ip,
    };
    bytes[..16].copy_from_slice(&ip.octets());
    bytes[16..18].copy_from_slice(&address.port().to_le_bytes());
}

fn address(bytes: &[u8]) -> Option<SocketAddr> {
    let ip = Ipv6Addr::from(*bytes.first_chunk::<16>()?);
    let port = u16::from_le_bytes(*bytes[16..].first_chunk()?);
    Some(SocketAddr::new(ip.to_canonical(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_read_as_it_was_written() {
        let entry = TapEntry {
            time_ns: u64::MAX - 7,
            micros: 1_234_567,
            len: 65_535,
            kept: 448,
            kind: TapKind::Late,
            via: QueryPath::Tcp,
            why: AnswerReason::Own,
            client: "[2001:db8::1]:4711".parse().expect("an address"),
            upstream: "192.0.2.1:53".parse().ok(),
        };
        assert_eq!(TapEntry::parse(&entry.emit()), Some(entry));
        let other = TapEntry {
            client: "10.0.0.7:53".parse().expect("an address"),
            upstream: None,
            ..entry
        };
        assert_eq!(TapEntry::parse(&other.emit()), Some(other));
        for at in [18, 19, 20] {
            let mut bytes = entry.emit();
            bytes[at] = 99;
            assert_eq!(TapEntry::parse(&bytes), None, "byte {at}");
        }
    }

    #[test]
    fn words_stand_where_their_numbers_say() {
        for (index, kind) in TapKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index);
            assert_ne!(kind.wanted() & wanted::ALL, 0);
        }
        for (index, via) in QueryPath::ALL.into_iter().enumerate() {
            assert_eq!(via as usize, index);
        }
        for (index, why) in AnswerReason::ALL.into_iter().enumerate() {
            assert_eq!(why as usize, index);
        }
    }

    #[test]
    fn what_has_moved_says_why_and_a_list_before_the_cache() {
        let counters = Counters::new();
        let mut marks = Marks::default();
        counters.count(Counter::CacheHits);
        marks.set(&counters);
        assert_eq!(marks.moved(&counters), None);
        counters.count(Counter::CacheHits);
        assert_eq!(marks.moved(&counters), Some(AnswerReason::Cache));
        assert_eq!(marks.moved(&counters), None, "once");
        counters.count(Counter::CacheMisses);
        counters.count(Counter::Blocked);
        assert_eq!(marks.moved(&counters), Some(AnswerReason::Blocked));
    }
}
