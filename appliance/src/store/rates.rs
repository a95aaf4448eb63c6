//! Accounts of clients for rate limits, shared by all workers and the program in the kernel; with what that program needs
//! besides: the limits, the prefixes of neighbours, and the secrets of DNS cookies.
//!
//! Full: see [`xdnsd_core::rate`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use xdnsd_abi::hash::HashKey;
use xdnsd_abi::rate::{ELEMENT_WORDS, NETWORKS_AT, NETWORKS_MAX, Rate, WORDS, control, network};
use xdnsd_core::engine::{CookieSecrets, SecretRotations};
use xdnsd_core::policy::on_link::Network;
use xdnsd_core::rate::{Accounts, RateLimits, words};

use super::HOT;
use crate::os::bpf_array::MappedWords;
use crate::os::clock;

/// The accounts until a program in the kernel shares them.
static OWN: [AtomicU64; WORDS] = [const { AtomicU64::new(0) }; WORDS];
/// The accounts shared with the program.
static SHARED: OnceLock<&[AtomicU64; WORDS]> = OnceLock::new();
/// Setup published with the accounts.
static SETUP: Mutex<RateSetup> = Mutex::new(RateSetup {
    key: [0; 16],
    cookies: None,
    turns: SecretRotations::of_word(0),
    rules: RateLimits::NONE,
    networks: Vec::new(),
});

/// Bytes of both sets of accounts, for the memory budget.
pub const BYTES: usize = 2 * size_of_val(&OWN);

struct RateSetup {
    /// Random, so that an attacker cannot choose which accounts collide.
    key: HashKey,
    cookies: Option<CookieSecrets>,
    /// Rotations of the secret.
    turns: SecretRotations,
    rules: RateLimits,
    /// First address and mask of each network.
    networks: Vec<[u64; network::COUNT]>,
}

/// The accounts in use.
#[must_use]
pub fn accounts() -> Accounts<'static> {
    Accounts::view(present())
}

fn present() -> &'static [AtomicU64; WORDS] {
    SHARED.get().copied().unwrap_or(&OWN)
}

/// Initializes the accounts, before the first worker serves. `key` is random.
pub fn begin(key: HashKey, cookies: Option<CookieSecrets>) {
    let mut known = known();
    known.key = key;
    known.cookies = cookies;
    known.show_all(present());
}

/// Shares accounts with a program in the kernel from here on: all clients start anew, with full allowance. False if accounts were
/// shared before.
pub fn share(words: MappedWords) -> bool {
    let known = known();
    let Ok(words) = words.leak().try_into() else {
        return false;
    };
    known.show_all(words);
    SHARED.set(words).is_ok()
}

/// Changes the limits and the networks of neighbours.
pub fn set_policy(rules: &RateLimits, networks: &[Network]) {
    let mut known = known();
    known.rules = *rules;
    known.networks = networks.iter().map(with_mask).collect();
    known.show_policy(present());
}

/// True if queries are limited: the part that the program in the kernel can enforce.
#[must_use]
pub fn are_queries_limited() -> bool {
    known().rules.queries.is_on()
}

/// Updates what depends on the time of day. Call it once a second.
pub fn refresh() {
    let known = known();
    known.show_time(present());
    known.show_hot();
}

/// Result of a request to rotate the secret of DNS cookies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretTurn {
    /// Rotated. Cookies of the previous secret stay valid until their normal end, or until the next rotation.
    Anew,
    /// The secret is fixed by the config, and stays.
    Given,
    /// DNS cookies are off.
    Off,
}

/// Rotates the secret of DNS cookies, for workers and the program in the kernel.
pub fn turn_cookies() -> SecretTurn {
    let mut known = known();
    let turned = match known.cookies {
        None => SecretTurn::Off,
        Some(CookieSecrets::Given { .. }) => SecretTurn::Given,
        Some(CookieSecrets::Made(_)) => SecretTurn::Anew,
    };
    if turned == SecretTurn::Anew {
        known.turns = known.turns.one_more(clock::wall_secs() as u32);
        known.show_time(present());
        known.show_hot();
    }
    turned
}

/// Locks even after a panic of a thread with the lock: the setup is valid at every moment.
fn known() -> MutexGuard<'static, RateSetup> {
    SETUP.lock().unwrap_or_else(PoisonError::into_inner)
}

impl RateSetup {
    fn show_all(&self, words: &[AtomicU64; WORDS]) {
        show_key(words, control::KEY, &self.key);
        let engine_ns = clock::now().millis().wrapping_mul(1_000_000);
        let offset = clock::monotonic_ns().wrapping_sub(engine_ns);
        show(words, control::CLOCK, offset);
        self.show_time(words);
        self.show_policy(words);
    }

    fn show_time(&self, words: &[AtomicU64; WORDS]) {
        let (wall, secrets) = self.cookies_now();
        show(words, control::WALL, wall);
        let Some(secrets) = secrets else {
            return;
        };
        for (number, secret) in secrets.iter().enumerate() {
            show_key(words, control::SECRETS + 2 * number, secret);
        }
        show(words, control::TURNS, self.turns.to_word());
        show(words, control::HAS_COOKIES, 1);
    }

    /// Passes the cookie secret to the program for hot names.
    fn show_hot(&self) {
        let (wall, secrets) = self.cookies_now();
        HOT.set_cookies(wall, secrets.as_ref().map(|[present, _]| present));
    }

    /// Wall clock minus CLOCK_MONOTONIC, in seconds modulo 2^64, and the two valid secrets, present and previous.
    fn cookies_now(&self) -> (u64, Option<[HashKey; 2]>) {
        let (wall_secs, secs) = (clock::wall_secs(), clock::monotonic_ns() / 1_000_000_000);
        let secrets = |cookies: &CookieSecrets| cookies.secrets(wall_secs as u32, self.turns);
        let secrets = self.cookies.as_ref().map(secrets);
        (wall_secs.wrapping_sub(secs), secrets)
    }

    /// While networks change, the program sees u64::MAX of them, and leaves all queries to user space.
    fn show_policy(&self, words: &[AtomicU64; WORDS]) {
        words[control::NETWORKS].store(u64::MAX, Ordering::Release);
        for (place, network) in self.networks.iter().take(NETWORKS_MAX).enumerate() {
            let start = NETWORKS_AT as usize * ELEMENT_WORDS + place * network::COUNT;
            for (at, word) in (start..).zip(network) {
                show(words, at, *word);
            }
        }
        words[control::NETWORKS].store(self.networks.len() as u64, Ordering::Release);
        let newcomers = Rate::new(self.rules.newcomers, 1);
        show(words, control::NEWCOMERS, newcomers.interval_ns);
        show_rate(words, control::SLIP_INTERVAL, self.rules.slips);
        show_rate(words, control::QUERY_INTERVAL, self.rules.queries);
    }
}

fn show(words: &[AtomicU64; WORDS], at: usize, word: u64) {
    words[at].store(word, Ordering::Relaxed);
}

fn show_rate(words: &[AtomicU64; WORDS], at: usize, rate: Rate) {
    show(words, at, rate.interval_ns);
    show(words, at + 1, rate.depth_ns);
}

fn show_key(words: &[AtomicU64; WORDS], at: usize, key: &HashKey) {
    let (halves, _) = key.as_chunks();
    for (at, half) in (at..).zip(halves) {
        show(words, at, u64::from_ne_bytes(*half));
    }
}

/// First address and mask, as the program compares addresses with them.
fn with_mask(network: &Network) -> [u64; network::COUNT] {
    let [first, second] = words(network.first());
    let unused = if network.first().is_ipv4() { 32 } else { 128 } - u32::from(network.length());
    let mask = u128::MAX.checked_shl(unused).unwrap_or(0).to_be_bytes();
    let (halves, _) = mask.as_chunks();
    let [high, low] = [0, 1].map(|at| u64::from_ne_bytes(halves[at]));
    [first, second, high, low]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_program_has_to_know_stands_in_the_table() {
        let table = [const { AtomicU64::new(0) }; WORDS];
        let networks = ["192.0.2.0/24", "2001:db8::/60", "0.0.0.0/0", "::/0"].map(|text| {
            let (first, length) = text.split_once('/').expect("a network");
            let address = first.parse().expect("an address");
            with_mask(&Network::of(address, length.parse().expect("a length")))
        });
        let known = RateSetup {
            key: *b"sixteen byte key",
            cookies: Some(CookieSecrets::Given {
                current: *b"the present one.",
                previous: *b"the one before..",
            }),
            turns: SecretRotations::of_word(7),
            rules: RateLimits {
                queries: Rate::new(10, 2),
                misses: Rate::new(5, 2),
                slips: Rate::new(4, 1),
                newcomers: 1_000,
                answer_size: 0,
            },
            networks: networks.to_vec(),
        };
        known.show_all(&table);
        let word = |at: usize| table[at].load(Ordering::Relaxed);
        let text = |at: usize| [word(at), word(at + 1)].map(u64::to_ne_bytes).concat();
        assert_eq!(text(control::KEY), *b"sixteen byte key");
        assert_eq!(text(control::SECRETS), *b"the present one.");
        assert_eq!(text(control::SECRETS + 2), *b"the one before..");
        assert_eq!(word(control::HAS_COOKIES), 1);
        assert_eq!(word(control::TURNS), 7);
        assert_eq!(word(control::QUERY_INTERVAL), 100_000_000);
        assert_eq!(word(control::QUERY_DEPTH), 2_000_000_000);
        assert_eq!(word(control::SLIP_INTERVAL), 250_000_000);
        assert_eq!(word(control::NEWCOMERS), 1_000_000);
        let engine_ns = clock::now().millis().wrapping_mul(1_000_000);
        let engine_ns = engine_ns.wrapping_add(word(control::CLOCK));
        let apart = clock::monotonic_ns().wrapping_sub(engine_ns) as i64;
        assert!(apart.abs() < 1_000_000_000, "{apart}");
        let wall = (clock::monotonic_ns() / 1_000_000_000).wrapping_add(word(control::WALL));
        assert!(wall.abs_diff(clock::wall_secs()) <= 2);
        assert_eq!(word(control::NETWORKS), 4);
        let bytes = |place: usize| {
            let start = NETWORKS_AT as usize * ELEMENT_WORDS + place * network::COUNT;
            (start..start + network::COUNT)
                .map(|at| word(at).to_ne_bytes())
                .collect::<Vec<_>>()
                .concat()
        };
        let v4 = |last: [u8; 4]| [&[0; 10][..], &[0xff, 0xff], &last].concat();
        let mask = |ones: usize| [vec![0xff; ones], vec![0; 16 - ones]].concat();
        assert_eq!(bytes(0), [v4([192, 0, 2, 0]), mask(15)].concat());
        assert_eq!(bytes(1)[..8], [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0]);
        assert_eq!(
            bytes(1)[16..24],
            [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xf0]
        );
        assert_eq!(bytes(2), [v4([0; 4]), mask(12)].concat());
        assert_eq!(bytes(3), [0; 32]);
    }
}
