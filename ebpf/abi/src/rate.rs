//! Contract about limits per client: a table of accounts, which workers keep and the program for limits reads.
//!
//! It is an array of elements of [`ELEMENT_WORDS`] words in mapped memory: user space and the program load and store words,
//! and neither makes a system call. The first elements have the settings, the others four accounts each.
//!
//! ```text
//!  0           1 .. 4                        5 ..
//!  | control   | networks that are on-link | sets of four accounts ...                        |
//!                                              | tag | queries | misses | slips | tag | ...
//! ```
//! An account has a time for each limit at which the client's debt is paid, in nanoseconds of CLOCK_MONOTONIC. Each event
//! moves it by an interval, and is within the limit if it is no more than a burst away: a token bucket without a level and
//! a clock of its own (GCRA, ITU-T I.371). Two processors that count at the same time may count one event for both.

use crate::hash::{self, HashKey};

/// Name of the map: ARRAY_OF_MAPS of one ARRAY of [`Element`], mappable, with [`ELEMENTS`] entries, shared by all programs.
pub const ACCOUNTS: &str = "accounts";
/// PERCPU_ARRAY of a message and its parsed properties.
pub const SCRATCH: &str = "rate_scratch";
/// Name of the program that reads the accounts.
pub const PROGRAM: &str = "xdnsd_rate";
/// Name of the same program with a call of the program for hot names before the redirect.
pub const PROGRAM_TIER0: &str = "xdnsd_rate_tier0";

/// Age in seconds up to which a DNS cookie is valid.
pub const COOKIE_AGE_MAX_SECS: u32 = 3_600;
/// Age in seconds from which on a client gets a new cookie.
pub const COOKIE_RENEW_SECS: u32 = 1_800;
/// Longest time in seconds by which a cookie may come from the future (RFC 9018 section 4.3).
pub const COOKIE_AHEAD_MAX_SECS: u32 = 300;
/// Scratch space of a processor in bytes.
pub const SCRATCH_BYTES: usize = 296;

/// Words of an element.
pub const ELEMENT_WORDS: usize = 16;
/// An element.
pub type Element = [u64; ELEMENT_WORDS];
/// Accounts of a set. When full, a new one replaces the account that owes least, whose client begins anew.
pub const WAYS: usize = ELEMENT_WORDS / account::COUNT;
/// Number of sets of accounts.
pub const SETS: u32 = 128;
const _: () = assert!(SETS.is_power_of_two());
/// Most on-link networks that the program can know. If there are more, it limits none of their clients, and user space does
/// so alone.
pub const NETWORKS_MAX: usize = 16;
/// Networks per element.
pub const NETWORKS_OF_ELEMENT: usize = ELEMENT_WORDS / network::COUNT;
/// The first element with networks.
pub const NETWORKS_AT: u32 = 1;
/// The first element with accounts.
pub const SETS_AT: u32 = NETWORKS_AT + (NETWORKS_MAX / NETWORKS_OF_ELEMENT) as u32;
/// Number of elements of the table.
pub const ELEMENTS: u32 = SETS_AT + SETS;
/// Number of words of the table.
pub const WORDS: usize = ELEMENTS as usize * ELEMENT_WORDS;

/// Indices of an account's words.
pub mod account {
    /// Client, see [`super::ClientPrefix::tag`]; 0 if empty.
    pub const TAG: usize = 0;
    /// Queries.
    pub const QUERIES: usize = 1;
    /// Questions that the cache could not answer and that were not in flight.
    pub const MISSES: usize = 2;
    /// Answers with TC in place of others.
    pub const SLIPS: usize = 3;
    /// Number of words.
    pub const COUNT: usize = 4;
}

/// Indices of a network's words, with addresses as in [`ClientPrefix`].
pub mod network {
    /// First address.
    pub const FIRST: usize = 0;
    /// Network mask.
    pub const MASK: usize = 2;
    /// Number of words.
    pub const COUNT: usize = 4;
}

/// Indices of the first element's words.
pub mod control {
    /// Interval of the limit of queries, see [`super::Rate`].
    pub const QUERY_INTERVAL: usize = 0;
    /// Depth of the limit of queries; 0: no limit.
    pub const QUERY_DEPTH: usize = 1;
    /// Interval of the limit of answers with TC, see [`super::Rate`].
    pub const SLIP_INTERVAL: usize = 2;
    /// Depth of the limit of answers with TC; 0: no such answers.
    pub const SLIP_DEPTH: usize = 3;
    /// Key of the hash of clients, two words.
    pub const KEY: usize = 4;
    /// Wall clock minus CLOCK_MONOTONIC in seconds, modulo 2^64.
    pub const WALL: usize = 6;
    /// Nonzero if DNS cookies are on.
    pub const HAS_COOKIES: usize = 7;
    /// The two secrets whose cookies are accepted, two words each.
    pub const SECRETS: usize = 8;
    /// Number of on-link networks; if more than [`super::NETWORKS_MAX`], they are not in the table.
    pub const NETWORKS: usize = 12;
    /// CLOCK_MONOTONIC minus the engine's clock in nanoseconds, modulo 2^64.
    pub const CLOCK: usize = 13;
    /// Rotations of the cookies' secret that the operator asked for, for workers.
    pub const TURNS: usize = 14;
    /// Nanoseconds that a query of a new client costs, one that no worker has answered lately; on each processor, for
    /// neighbours and for others. 0: no limit.
    pub const NEWCOMERS: usize = 15;
}

/// Most debt of new clients together in nanoseconds: a burst of queries for user space that its rings can hold.
pub const NEWCOMERS_DEPTH_NS: u64 = 20_000_000;
/// Seconds after a SYN cookie has come back for which a client does not count as new.
pub const NEWCOMER_PROVED_SECS: u32 = 600;

/// Rate of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Cost of one event in nanoseconds.
    pub interval_ns: u64,
    /// Most debt of a client in nanoseconds; 0: no limit.
    pub depth_ns: u64,
}

impl Rate {
    /// No limit.
    pub const NONE: Self = Self {
        interval_ns: 0,
        depth_ns: 0,
    };

    /// `per_sec` events a second, and those of `burst_secs` at once after as long a rest. 0 a second: no limit.
    #[must_use]
    pub const fn new(per_sec: u32, burst_secs: u32) -> Self {
        const NANOS_PER_SEC: u64 = 1_000_000_000;
        if per_sec == 0 {
            return Self::NONE;
        }
        Self {
            interval_ns: NANOS_PER_SEC / per_sec as u64,
            depth_ns: NANOS_PER_SEC * burst_secs as u64,
        }
    }

    /// True if there is a limit.
    #[must_use]
    #[inline(always)]
    pub const fn is_on(self) -> bool {
        self.depth_ns != 0
    }

    /// True if a client whose debt is paid at `clear_at` may have one more event at `now`.
    #[must_use]
    #[inline(always)]
    pub const fn has_room(self, clear_at: u64, now: u64) -> bool {
        clear_at
            .saturating_sub(now)
            .saturating_add(self.interval_ns)
            <= self.depth_ns
    }

    /// Time at which the debt is paid after one more event.
    #[must_use]
    #[inline(always)]
    pub const fn charge(self, clear_at: u64, now: u64) -> u64 {
        let from = if clear_at > now { clear_at } else { now };
        from.saturating_add(self.interval_ns)
    }
}

/// Unit of a client: an address, or a prefix of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientPrefix {
    /// Address in network byte order, in two words; IPv4 as ::ffff:a.b.c.d. For a prefix its first address.
    pub words: [u64; 2],
    /// Prefix length in bits.
    pub len: u64,
}

/// Mask of all bytes of a word but the last.
const WITHOUT_LAST: u64 = u64::from_ne_bytes([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0]);

impl ClientPrefix {
    /// The whole address.
    #[must_use]
    #[inline(always)]
    pub const fn whole(words: [u64; 2]) -> Self {
        Self { words, len: 128 }
    }

    /// The /24 of an IPv4 address, the /56 of an IPv6 address.
    #[must_use]
    #[inline(always)]
    pub const fn prefix(words: [u64; 2]) -> Self {
        let [high, low] = words;
        if let (0, [0, 0, 0xff, 0xff, ..]) = (high, low.to_ne_bytes()) {
            return Self {
                words: [high, low & WITHOUT_LAST],
                len: 120,
            };
        }
        Self {
            words: [high & WITHOUT_LAST, 0],
            len: 56,
        }
    }

    /// Tag of its account.
    #[must_use]
    #[inline(always)]
    pub fn tag(self, key: &HashKey) -> u64 {
        let [high, low] = self.words;
        hash::of_words([high, low, self.len], key) | 1
    }
}

/// Element with the account of this tag.
#[must_use]
#[inline(always)]
pub const fn element(tag: u64) -> u32 {
    SETS_AT + (tag >> 32) as u32 % SETS
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::IpAddr;

    fn words(text: &str) -> [u64; 2] {
        let octets = match text.parse().expect("an address") {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        let (halves, _) = octets.as_chunks();
        [0, 1].map(|at| u64::from_ne_bytes(halves[at]))
    }

    #[test]
    fn a_burst_and_then_one_for_each_interval() {
        let rate = Rate::new(10, 2);
        let (mut clear_at, start) = (0, 5_000_000_000);
        let mut given = 0;
        while rate.has_room(clear_at, start) {
            clear_at = rate.charge(clear_at, start);
            given += 1;
        }
        assert_eq!(given, 20, "two seconds' worth at once");
        assert!(!rate.has_room(clear_at, start + 99_999_999));
        assert!(rate.has_room(clear_at, start + 100_000_000));
        clear_at = rate.charge(clear_at, start + 100_000_000);
        assert!(!rate.has_room(clear_at, start + 100_000_000));
        // Allowance that was not used for longer than a burst is lost.
        let later = start + 60_000_000_000;
        let given = (0..)
            .take_while(|_| {
                let has_room = rate.has_room(clear_at, later);
                clear_at = rate.charge(clear_at, later);
                has_room
            })
            .count();
        assert_eq!(given, 20);
    }

    #[test]
    fn no_limit_is_none_and_the_least_gives_one() {
        assert!(!Rate::new(0, 60).is_on());
        let least = Rate::new(1, 1);
        assert!(least.is_on() && least.has_room(0, 1));
        assert!(!least.has_room(least.charge(0, 1), 1));
        let most = Rate::new(1_000_000, 60);
        assert!(most.has_room(u64::MAX, u64::MAX) && most.charge(u64::MAX, 0) == u64::MAX);
    }

    #[test]
    fn a_prefix_is_a_24_or_a_56() {
        for (one, other, is_same) in [
            ("192.0.2.1", "192.0.2.255", true),
            ("192.0.2.1", "192.0.3.1", false),
            ("2001:db8:0:100::1", "2001:db8:0:1ff:ffff::", true),
            ("2001:db8:0:100::1", "2001:db8:0:200::1", false),
            // Prefixes of one family do not cover the other.
            ("0.0.0.1", "::1", false),
            ("::ffff:0:0:0", "0.0.0.0", false),
        ] {
            let [one, other] = [one, other].map(|text| ClientPrefix::prefix(words(text)));
            assert_eq!(one == other, is_same, "{one:?} {other:?}");
        }
        let first = words("192.0.2.0");
        assert_ne!(ClientPrefix::prefix(first), ClientPrefix::whole(first));
        let key = [7; 16];
        assert_ne!(
            ClientPrefix::prefix(first).tag(&key),
            ClientPrefix::whole(first).tag(&key)
        );
        assert_ne!(
            ClientPrefix::whole(first).tag(&key),
            ClientPrefix::whole(first).tag(&[8; 16])
        );
    }

    #[test]
    fn every_tag_has_a_set() {
        for tag in [1, u64::MAX, 1 << 32 | 1, (u64::from(SETS) << 32) | 1] {
            assert!((SETS_AT..ELEMENTS).contains(&element(tag)), "{tag:x}");
        }
        assert_eq!(element(1), SETS_AT);
    }
}
