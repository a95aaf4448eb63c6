//! Rate limits per client: the accounts of clients, and the verdict on one more query or question.
//!
//! The accounts are words in shared memory, see [`xdnsd_abi::rate`]: all workers and the program in the kernel use them.
//! When a set of accounts is full, the account that owes least is replaced, and its client starts again with its full
//! allowance.

use core::net::IpAddr;
use core::sync::atomic::{AtomicU64, Ordering};

use xdnsd_abi::hash::HashKey;
use xdnsd_abi::rate::{ClientPrefix, ELEMENT_WORDS, Rate, WAYS, WORDS, account, control, element};

use crate::time::Instant;

const NANOS_PER_MILLI: u64 = 1_000_000;

/// Rate limits of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimits {
    /// Queries over UDP, of any kind.
    pub queries: Rate,
    /// Questions that the cache cannot answer and that are not in flight.
    pub misses: Rate,
    /// Answers with TC, in place of queries over the limit. [`Rate::NONE`]: no such answers.
    pub slips: Rate,
    /// Queries per second of clients that no worker has answered lately, for all of them together, on each processor that
    /// takes frames in. The programs in the kernel enforce it. 0: no limit.
    pub newcomers: u32,
    /// Bytes of an answer that is given at once for which it counts as one query; a longer one counts as several. 0: each
    /// counts as one.
    pub answer_size: usize,
}

impl RateLimits {
    /// No limits.
    pub const NONE: Self = Self {
        queries: Rate::NONE,
        misses: Rate::NONE,
        slips: Rate::NONE,
        newcomers: 0,
        answer_size: 0,
    };

    /// Queries that an answer of this many bytes counts as, beside the one that was charged before it was known.
    #[must_use]
    pub const fn further_queries(&self, answer_len: usize) -> usize {
        if self.answer_size == 0 || answer_len == 0 {
            return 0;
        }
        (answer_len - 1) / self.answer_size
    }
}

/// Kind of a limited event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateKind {
    /// A query.
    Query,
    /// A question that the cache cannot answer and that is not in flight.
    Miss,
}

/// Verdict of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Within the limit.
    Within,
    /// Over the limit: the client gets TC, to come back over TCP, where its address is proven.
    Slip,
    /// Over the limit: the client gets no answer.
    Drop,
}

/// Unit by which a client is limited: its whole address if it is a neighbour, else its /24 or /56.
#[must_use]
pub fn unit(client: IpAddr, is_on_link: bool) -> ClientPrefix {
    let words = words(client);
    if is_on_link {
        ClientPrefix::whole(words)
    } else {
        ClientPrefix::prefix(words)
    }
}

/// An address in the form of [`ClientPrefix`].
#[must_use]
pub fn words(address: IpAddr) -> [u64; 2] {
    let octets = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    let (halves, _) = octets.as_chunks();
    [0, 1].map(|at| halves.get(at).map_or(0, |half| u64::from_ne_bytes(*half)))
}

/// View of the accounts.
#[derive(Clone, Copy, Debug)]
pub struct Accounts<'a> {
    words: &'a [AtomicU64],
}

/// An account.
type Account<'a> = &'a [AtomicU64; account::COUNT];

impl<'a> Accounts<'a> {
    /// No accounts: no client is limited.
    pub const NONE: Self = Self { words: &[] };

    /// Views these [`WORDS`] words.
    #[must_use]
    pub const fn view(words: &'a [AtomicU64; WORDS]) -> Self {
        Self { words }
    }

    /// A word of the first element, see [`control`]; 0 if there are no accounts.
    #[must_use]
    pub fn control(&self, word: usize) -> u64 {
        let word = self.words.get(word);
        word.map_or(0, |word| word.load(Ordering::Relaxed))
    }

    /// Charges one event to the client if that is within its limit.
    #[must_use]
    pub fn charge(
        &self,
        unit: ClientPrefix,
        kind: RateKind,
        rules: &RateLimits,
        now: Instant,
    ) -> Limit {
        let (rate, word) = match kind {
            RateKind::Query => (rules.queries, account::QUERIES),
            RateKind::Miss => (rules.misses, account::MISSES),
        };
        let now = self.now(now);
        let Some(account) = self.account(unit.tag(&self.key()), now) else {
            return Limit::Within;
        };
        if take(&account[word], rate, now) {
            Limit::Within
        } else if rules.slips.is_on() && take(&account[account::SLIPS], rules.slips, now) {
            Limit::Slip
        } else {
            Limit::Drop
        }
    }

    /// Charges so many queries that were answered already: the client's next ones pay for them.
    pub fn charge_answered(
        &self,
        unit: ClientPrefix,
        queries: usize,
        rules: &RateLimits,
        now: Instant,
    ) {
        let now = self.now(now);
        let Some(account) = self.account(unit.tag(&self.key()), now) else {
            return;
        };
        let word = &account[account::QUERIES];
        let charge = |clear_at, _| rules.queries.charge(clear_at, now);
        let clear_at = (0..queries).fold(word.load(Ordering::Relaxed), charge);
        word.store(clear_at, Ordering::Relaxed);
    }

    /// Account of this tag. If there is none, the account of its set that owes least is replaced.
    fn account(&self, tag: u64, now: u64) -> Option<Account<'a>> {
        let start = element(tag) as usize * ELEMENT_WORDS;
        let set = self.words.get(start..start + ELEMENT_WORDS)?;
        let (accounts, _) = set.as_chunks::<{ account::COUNT }>();
        let of_tag =
            |account: &&[AtomicU64; _]| account[account::TAG].load(Ordering::Relaxed) == tag;
        if let Some(account) = accounts.iter().find(of_tag) {
            return Some(account);
        }
        let account = accounts.iter().min_by_key(|account| owed(account, now))?;
        for word in &account[account::QUERIES..] {
            word.store(0, Ordering::Relaxed);
        }
        account[account::TAG].store(tag, Ordering::Relaxed);
        Some(account)
    }

    fn key(&self) -> HashKey {
        let mut key = HashKey::default();
        let (halves, _) = key.as_chunks_mut();
        for (half, at) in halves.iter_mut().zip(control::KEY..) {
            *half = self.control(at).to_ne_bytes();
        }
        key
    }

    /// The time by CLOCK_MONOTONIC, the clock of the program in the kernel.
    fn now(&self, now: Instant) -> u64 {
        let nanos = now.millis().wrapping_mul(NANOS_PER_MILLI);
        nanos.wrapping_add(self.control(control::CLOCK))
    }
}

const _: () = assert!(WAYS * account::COUNT == ELEMENT_WORDS);

/// Debt of an account, in nanoseconds.
fn owed(account: Account<'_>, now: u64) -> u64 {
    let owed = |word: &AtomicU64| word.load(Ordering::Relaxed).saturating_sub(now);
    let words = account[account::QUERIES..].iter();
    words.map(owed).max().unwrap_or(0)
}

/// Charges one event to a word. Returns true if there was room. Another thread may charge the same room between the two
/// steps.
fn take(word: &AtomicU64, rate: Rate, now: u64) -> bool {
    let clear_at = word.load(Ordering::Relaxed);
    let has_room = rate.has_room(clear_at, now);
    if has_room {
        word.store(rate.charge(clear_at, now), Ordering::Relaxed);
    }
    has_room
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::boxed::Box;
    use std::vec::Vec;
    use xdnsd_abi::rate::{SETS, SETS_AT};

    const NOW: Instant = Instant::from_millis(9_000_000);
    const RULES: RateLimits = RateLimits {
        queries: Rate::new(10, 1),
        misses: Rate::new(5, 1),
        slips: Rate::new(2, 1),
        newcomers: 0,
        answer_size: 512,
    };

    fn table() -> &'static [AtomicU64; WORDS] {
        Box::leak(Box::new([const { AtomicU64::new(0) }; WORDS]))
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// Verdicts on so many events at once.
    fn burst(
        accounts: Accounts<'_>,
        unit: ClientPrefix,
        kind: RateKind,
        now: Instant,
        count: usize,
    ) -> [usize; 3] {
        let limits: Vec<_> = (0..count)
            .map(|_| accounts.charge(unit, kind, &RULES, now))
            .collect();
        [Limit::Within, Limit::Slip, Limit::Drop]
            .map(|limit| limits.iter().filter(|other| **other == limit).count())
    }

    #[test]
    fn what_is_too_much_slips_first_and_is_dropped_then() {
        let accounts = Accounts::view(table());
        let client = unit(address("192.0.2.7"), true);
        assert_eq!(
            burst(accounts, client, RateKind::Query, NOW, 30),
            [10, 2, 18]
        );
        // The limits are independent, except for slips.
        assert_eq!(burst(accounts, client, RateKind::Miss, NOW, 30), [5, 0, 25]);
        let other = unit(address("192.0.2.8"), true);
        assert_eq!(burst(accounts, other, RateKind::Query, NOW, 10), [10, 0, 0]);
        assert_eq!(
            burst(accounts, client, RateKind::Query, NOW + 500, 30),
            [5, 1, 24]
        );
        assert_eq!(
            burst(accounts, client, RateKind::Query, NOW + 9_000, 30),
            [10, 2, 18]
        );
    }

    #[test]
    fn an_answer_counts_as_many_queries_as_it_is_long() {
        for (len, queries) in [(0, 0), (1, 0), (512, 0), (513, 1), (1024, 1), (1232, 2)] {
            assert_eq!(RULES.further_queries(len), queries, "{len}");
        }
        let each_is_one = RateLimits {
            answer_size: 0,
            ..RULES
        };
        assert_eq!(each_is_one.further_queries(1232), 0);
        let accounts = Accounts::view(table());
        let client = unit(address("192.0.2.7"), true);
        assert_eq!(burst(accounts, client, RateKind::Query, NOW, 1), [1, 0, 0]);
        accounts.charge_answered(client, 4, &RULES, NOW);
        assert_eq!(burst(accounts, client, RateKind::Query, NOW, 9), [5, 2, 2]);
        // What is over the limit is owed as well.
        accounts.charge_answered(client, 10, &RULES, NOW);
        let later = NOW + 1_000;
        assert_eq!(
            burst(accounts, client, RateKind::Query, later, 1),
            [0, 1, 0]
        );
        Accounts::NONE.charge_answered(client, 4, &RULES, NOW);
    }

    #[test]
    fn without_slips_the_rest_is_dropped_at_once() {
        let accounts = Accounts::view(table());
        let rules = RateLimits {
            slips: Rate::NONE,
            ..RULES
        };
        let client = unit(address("2001:db8::7"), true);
        let mut limit = Limit::Within;
        for _ in 0..=10 {
            limit = accounts.charge(client, RateKind::Query, &rules, NOW);
        }
        assert_eq!(limit, Limit::Drop);
    }

    #[test]
    fn a_neighbour_counts_for_itself_and_others_for_their_prefix() {
        for (one, other) in [
            ("192.0.2.7", "192.0.2.200"),
            ("2001:db8:0:1100::7", "2001:db8:0:11ff::7"),
        ] {
            for is_on_link in [true, false] {
                let accounts = Accounts::view(table());
                let [one, other] = [one, other].map(|text| unit(address(text), is_on_link));
                assert_eq!(burst(accounts, one, RateKind::Query, NOW, 10), [10, 0, 0]);
                let left = if is_on_link { 10 } else { 0 };
                let [within, ..] = burst(accounts, other, RateKind::Query, NOW, 10);
                assert_eq!(within, left, "{one:?} {other:?}");
            }
        }
    }

    /// A flood of addresses that ask once each replaces its own accounts, not those that owe much.
    #[test]
    fn who_owes_much_is_not_forgotten_for_many_who_owe_little() {
        let accounts = Accounts::view(table());
        let heavy = unit(address("198.51.100.1"), true);
        assert_eq!(burst(accounts, heavy, RateKind::Query, NOW, 12), [10, 2, 0]);
        let crowd = SETS as usize * WAYS * 20;
        for number in 0..crowd as u32 {
            let one = unit(IpAddr::V4((0x0a00_0000 + number).into()), true);
            let limit = accounts.charge(one, RateKind::Query, &RULES, NOW);
            assert_eq!(limit, Limit::Within);
        }
        assert_eq!(burst(accounts, heavy, RateKind::Query, NOW, 5), [0, 0, 5]);
    }

    #[test]
    fn the_key_says_where_an_account_is_and_the_clock_is_the_kernels() {
        let words = table();
        let accounts = Accounts::view(words);
        let offset = 77_000_000_u64.wrapping_sub(NOW.millis() * NANOS_PER_MILLI);
        words[control::CLOCK].store(offset, Ordering::Relaxed);
        let client = unit(address("192.0.2.7"), true);
        let taken = || {
            let sets = &words[SETS_AT as usize * ELEMENT_WORDS..];
            let tags = sets.iter().step_by(account::COUNT).enumerate();
            let taken = tags.filter(|(_, tag)| tag.load(Ordering::Relaxed) != 0);
            taken.map(|(at, _)| at).collect::<Vec<_>>()
        };
        assert_eq!(
            accounts.charge(client, RateKind::Query, &RULES, NOW),
            Limit::Within
        );
        let before = taken();
        assert_eq!(before.len(), 1);
        let at = SETS_AT as usize * ELEMENT_WORDS + before[0] * account::COUNT;
        let clear_at = words[at + account::QUERIES].load(Ordering::Relaxed);
        assert_eq!(clear_at, 177_000_000);
        words[control::KEY].store(1, Ordering::Relaxed);
        assert_eq!(
            accounts.charge(client, RateKind::Query, &RULES, NOW),
            Limit::Within
        );
        assert_eq!(taken().len(), 2, "another key, another place or tag");
    }

    #[test]
    fn without_accounts_everything_is_within() {
        let client = unit(address("192.0.2.7"), true);
        assert_eq!(
            burst(Accounts::NONE, client, RateKind::Query, NOW, 99),
            [99, 0, 0]
        );
    }
}
