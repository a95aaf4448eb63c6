//! The contract about limits per client: one table of accounts, which workers keep, and which the program for limits looks into.
//!
//! It is an array of [`ELEMENT_WORDS`] words an element, in mapped memory: user space loads and stores words, and so does the
//! program, and nobody makes a system call. The first elements say what holds, the others have four accounts each.
//!
//! ```text
//!  0           1 .. 4                        5 ..
//!  | control   | networks that are on-link | sets of four accounts ...                        |
//!                                              | tag | queries | misses | slips | tag | ...
//! ```
//! An account has for each limit the moment from which on nothing counts against the client any more, in nanoseconds of
//! CLOCK_MONOTONIC. Who asks moves it by an interval, and may do so while it is no more than a burst away: a token bucket that
//! needs neither a level nor a clock of its own (GCRA, ITU-T I.371). Two that count at the same time may count one for both.

use crate::hash::{self, HashKey};

/// ARRAY_OF_MAPS of one ARRAY of [`Element`], mappable, with [`ELEMENTS`] entries, which all programs share.
pub const ACCOUNTS: &str = "accounts";
/// PERCPU_ARRAY of one message, and what is known of it.
pub const SCRATCH: &str = "rate_scratch";
/// Name of the program that looks into them.
pub const PROGRAM: &str = "xdnsd_rate";
/// The same, that asks the program for hot names before it redirects.
pub const PROGRAM_TIER0: &str = "xdnsd_rate_tier0";

/// A DNS cookie is good for so long.
pub const COOKIE_AGE_MAX_SECS: u32 = 3_600;
/// From this age on its client gets another one.
pub const COOKIE_RENEW_SECS: u32 = 1_800;
/// And may come from a clock that is so far ahead (RFC 9018 section 4.3).
pub const COOKIE_AHEAD_MAX_SECS: u32 = 300;
/// Bytes of the scratch of a processor.
pub const SCRATCH_BYTES: usize = 296;

/// Words of an element.
pub const ELEMENT_WORDS: usize = 16;
/// An element.
pub type Element = [u64; ELEMENT_WORDS];
/// Accounts of a set. One more takes the place of the one that owes least, and who had that begins anew.
pub const WAYS: usize = ELEMENT_WORDS / account::COUNT;
/// Sets of accounts.
pub const SETS: u32 = 128;
const _: () = assert!(SETS.is_power_of_two());
/// Networks on-link that the program can know. More: it limits none of their clients, and user space does so alone.
pub const NETWORKS_MAX: usize = 16;
/// Networks of an element.
pub const NETWORKS_OF_ELEMENT: usize = ELEMENT_WORDS / network::COUNT;
/// The first element with networks.
pub const NETWORKS_AT: u32 = 1;
/// The first element with accounts.
pub const SETS_AT: u32 = NETWORKS_AT + (NETWORKS_MAX / NETWORKS_OF_ELEMENT) as u32;
/// Elements of the table.
pub const ELEMENTS: u32 = SETS_AT + SETS;
/// Words of the table.
pub const WORDS: usize = ELEMENTS as usize * ELEMENT_WORDS;

/// Which word of an account is what.
pub mod account {
    /// The client: see [`super::ClientPrefix::tag`]. 0: empty.
    pub const TAG: usize = 0;
    /// Queries.
    pub const QUERIES: usize = 1;
    /// Questions that the cache could not answer, and nobody had asked.
    pub const MISSES: usize = 2;
    /// Answers with TC in place of others.
    pub const SLIPS: usize = 3;
    /// How many there are.
    pub const COUNT: usize = 4;
}

/// Which word of a network is what: as [`ClientPrefix`] has addresses.
pub mod network {
    /// The first address.
    pub const FIRST: usize = 0;
    /// The bits that count.
    pub const MASK: usize = 2;
    /// How many there are.
    pub const COUNT: usize = 4;
}

/// Which word of the first element is what.
pub mod control {
    /// See [`super::Rate`]: of queries.
    pub const QUERY_INTERVAL: usize = 0;
    /// 0: they are not limited.
    pub const QUERY_DEPTH: usize = 1;
    /// See [`super::Rate`]: of answers with TC.
    pub const SLIP_INTERVAL: usize = 2;
    /// 0: none is given.
    pub const SLIP_DEPTH: usize = 3;
    /// Key of the hash of clients: two words.
    pub const KEY: usize = 4;
    /// Seconds of the wall clock less those of CLOCK_MONOTONIC, modulo 2^64.
    pub const WALL: usize = 6;
    /// Whether there are DNS cookies.
    pub const HAS_COOKIES: usize = 7;
    /// The two secrets by which a cookie is good: two words each.
    pub const SECRETS: usize = 8;
    /// Networks on-link; more than [`super::NETWORKS_MAX`]: they are not there.
    pub const NETWORKS: usize = 12;
    /// Nanoseconds of CLOCK_MONOTONIC less those of the engine's clock, modulo 2^64.
    pub const CLOCK: usize = 13;
    /// How often an operator wanted another secret for DNS cookies, and when: to workers.
    pub const TURNS: usize = 14;
    /// Nanoseconds that a query costs of a client that no worker has answered lately, on each processor, for neighbours and for others.
    /// 0: there is no limit.
    pub const NEWCOMERS: usize = 15;
}

/// What new clients may owe together: so many queries come to user space at once, and no more than its rings hold.
pub const NEWCOMERS_DEPTH_NS: u64 = 20_000_000;
/// For so many seconds after it has brought a SYN cookie back a client is not counted among the new ones.
pub const NEWCOMER_PROVED_SECS: u32 = 600;

/// How much of something a client may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Nanoseconds that one costs.
    pub interval_ns: u64,
    /// Nanoseconds that a client may owe. 0: there is no limit.
    pub depth_ns: u64,
}

impl Rate {
    /// No limit.
    pub const NONE: Self = Self {
        interval_ns: 0,
        depth_ns: 0,
    };

    /// So many a second, and those of `burst_secs` at once after as long a rest. 0 a second: there is no limit.
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

    /// Whether there is a limit.
    #[must_use]
    #[inline(always)]
    pub const fn is_on(self) -> bool {
        self.depth_ns != 0
    }

    /// Whether a client whose debt is paid at `clear_at` may have one more at `now`.
    #[must_use]
    #[inline(always)]
    pub const fn has_room(self, clear_at: u64, now: u64) -> bool {
        clear_at
            .saturating_sub(now)
            .saturating_add(self.interval_ns)
            <= self.depth_ns
    }

    /// When the debt is paid, with one more.
    #[must_use]
    #[inline(always)]
    pub const fn charge(self, clear_at: u64, now: u64) -> u64 {
        let from = if clear_at > now { clear_at } else { now };
        from.saturating_add(self.interval_ns)
    }
}

/// What counts as one client: an address, or a prefix of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientPrefix {
    /// The address as it lies in a packet, in two loads, IPv4 as ::ffff:a.b.c.d; of a prefix its first.
    pub words: [u64; 2],
    /// How many bits count.
    pub len: u64,
}

/// All bytes of a word but the last.
const WITHOUT_LAST: u64 = u64::from_ne_bytes([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0]);

impl ClientPrefix {
    /// The whole address.
    #[must_use]
    #[inline(always)]
    pub const fn whole(words: [u64; 2]) -> Self {
        Self { words, len: 128 }
    }

    /// The /24 of an IPv4 address, the /56 of another one.
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

    /// The tag of its account.
    #[must_use]
    #[inline(always)]
    pub fn tag(self, key: &HashKey) -> u64 {
        let [high, low] = self.words;
        hash::of_words([high, low, self.len], key) | 1
    }
}

/// The element with the account of this tag.
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
        // What was not used for longer than a burst is lost.
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
            // Neither family's prefixes are the other's.
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
