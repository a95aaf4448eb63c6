//! Interoperable server cookies (RFC 9018 section 4): how they are made and checked.
//!
//! ```text
//! | version 1 | reserved 3 | timestamp 4 | hash 8 |
//! hash = SipHash-2-4(client cookie | version | reserved | timestamp | client address, secret)
//! ```

use crate::dns::edns::Cookie;
use core::net::IpAddr;
use xdnsd_abi::hash::{NameHash, siphash24};
use xdnsd_abi::rate::{COOKIE_AGE_MAX_SECS, COOKIE_AHEAD_MAX_SECS, COOKIE_RENEW_SECS};

/// Version in a server cookie.
const VERSION: u8 = 1;
/// Length of our server cookie in bytes.
const SERVER_LEN: usize = 16;
/// Age up to which a cookie is valid, in seconds: an hour.
const AGE_MAX_SECS: u32 = COOKIE_AGE_MAX_SECS;
/// Age from which a client gets a new cookie, in seconds: half of that.
const RENEW_AFTER_SECS: u32 = COOKIE_RENEW_SECS;
/// Longest time by which a cookie may come from the future, in seconds: five minutes, for clocks that differ (RFC 9018
/// section 4.3).
const AHEAD_MAX_SECS: u32 = COOKIE_AHEAD_MAX_SECS;
/// Lifetime of a derived secret in seconds: a day. The previous day's secret is still accepted (RFC 7873 section 7.1).
const ROLLOVER_SECS: u32 = 86_400;

/// Secrets of server cookies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CookieSecrets {
    /// Two secrets given by the operator: cookies are made with the first, and accepted with both. Several servers can
    /// share them, and replace them one after the other (RFC 9018 section 5).
    Given {
        /// Secret of new cookies.
        current: [u8; 16],
        /// Secret that is still accepted.
        previous: [u8; 16],
    },
    /// Key from which each day's secret is derived.
    Made([u8; 16]),
}

/// Number of rotations of the secret that the operator asked for, and the day of the last one.
///
/// ```text
///  63            32 31                 0
///  | day of the last | count            |      0: never
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SecretRotations(u64);

impl SecretRotations {
    /// From the value of [`Self::to_word`].
    #[must_use]
    pub const fn of_word(word: u64) -> Self {
        Self(word)
    }

    /// As one word, which other threads read as a whole.
    #[must_use]
    pub const fn to_word(self) -> u64 {
        self.0
    }

    /// With one more rotation at `now_secs` (Unix time).
    #[must_use]
    pub const fn one_more(self, now_secs: u32) -> Self {
        let day = (now_secs / ROLLOVER_SECS) as u64;
        Self(day << 32 | self.count().wrapping_add(1) as u64)
    }

    const fn count(self) -> u32 {
        self.0 as u32
    }

    const fn day(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// Time of a cookie's check.
#[derive(Clone, Copy, Debug)]
pub(super) struct CookieTime {
    /// Unix time in seconds.
    pub secs: u32,
    /// Rotations of the secret up to then.
    pub turns: SecretRotations,
}

/// Result of a cookie's check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Checked {
    /// True if we gave the client this cookie at its present address, which is so proven.
    pub is_valid: bool,
    /// Cookie option of the reply: client cookie and server cookie.
    pub reply: [u8; 24],
}

impl CookieSecrets {
    /// Checks the cookie that came from `address`, and makes the one of the reply.
    pub(super) fn check(&self, cookie: &Cookie, address: IpAddr, moment: CookieTime) -> Checked {
        let now_secs = moment.secs;
        let [current, previous] = self.secrets(now_secs, moment.turns);
        let by = |secret| timestamp_of(cookie, address, secret);
        let (timestamp, is_current) = match by(&current) {
            Some(timestamp) => (Some(timestamp), true),
            None => (by(&previous), false),
        };
        // Serial number arithmetic, since the clock may have been set back (RFC 9018 section 4.3, RFC 1982).
        let age_secs = timestamp.map(|then| now_secs.wrapping_sub(then) as i32);
        let is_valid = age_secs.is_some_and(|age_secs| {
            age_secs <= AGE_MAX_SECS as i32 && age_secs >= -(AHEAD_MAX_SECS as i32)
        });
        let keeps = is_valid
            && is_current
            && age_secs.is_some_and(|age_secs| age_secs < RENEW_AFTER_SECS as i32);
        let mut reply = [0; 24];
        reply[..8].copy_from_slice(&cookie.client);
        if keeps {
            reply[8..].copy_from_slice(&cookie.server[..SERVER_LEN]);
        } else {
            reply[8..].copy_from_slice(&make(&cookie.client, address, now_secs, &current));
        }
        Checked { is_valid, reply }
    }

    /// The secret of new cookies, and the previous one, which is still accepted: that from before the last rotation if it
    /// was today, else that of the day before.
    #[must_use]
    pub fn secrets(&self, now_secs: u32, turns: SecretRotations) -> [[u8; 16]; 2] {
        match self {
            Self::Given { current, previous } => [*current, *previous],
            Self::Made(key) => {
                let (day, count) = (now_secs / ROLLOVER_SECS, turns.count());
                let previous = match turns.day() == day {
                    true => made_secret(key, day, count.wrapping_sub(1)),
                    false => made_secret(key, day.wrapping_sub(1), count),
                };
                [made_secret(key, day, count), previous]
            }
        }
    }
}

/// Secret of a day after so many rotations.
fn made_secret(key: &[u8; 16], day: u32, turns: u32) -> [u8; 16] {
    let mut hash = NameHash::new(key);
    hash.push(&(u64::from(turns) << 32 | u64::from(day)).to_be_bytes());
    let hash = hash.hash();
    let mut secret = [0; 16];
    secret[..8].copy_from_slice(&hash.first().to_le_bytes());
    secret[8..].copy_from_slice(&hash.second().to_le_bytes());
    secret
}

/// Our server cookie for `client` at `address`.
fn make(client: &[u8; 8], address: IpAddr, now_secs: u32, secret: &[u8; 16]) -> [u8; SERVER_LEN] {
    let mut server = [0; SERVER_LEN];
    server[0] = VERSION;
    server[4..8].copy_from_slice(&now_secs.to_be_bytes());
    let hash = hash(client, &server, address, secret);
    server[8..].copy_from_slice(&hash);
    server
}

/// Hash over all fields before it, in the byte order of SipHash's own test vectors (RFC 9018 section 4.4).
fn hash(
    client: &[u8; 8],
    server: &[u8; SERVER_LEN],
    address: IpAddr,
    secret: &[u8; 16],
) -> [u8; 8] {
    let (words, _) = server.as_chunks();
    let [client, head] = [*client, words[0]].map(u64::from_le_bytes);
    let hash = match address {
        IpAddr::V4(v4) => {
            let v4 = u32::from_le_bytes(v4.octets());
            siphash24([client, head], u64::from(v4) | 20 << 56, secret)
        }
        IpAddr::V6(v6) => {
            let v6 = u128::from_le_bytes(v6.octets());
            let [low, high] = [v6 as u64, (v6 >> 64) as u64];
            siphash24([client, head, low, high], 32 << 56, secret)
        }
    };
    hash.to_le_bytes()
}

/// Timestamp of the cookie; `None` unless it was made with `secret` for `address`.
fn timestamp_of(cookie: &Cookie, address: IpAddr, secret: &[u8; 16]) -> Option<u32> {
    let server = cookie.server.get(..usize::from(cookie.server_len))?;
    let server: &[u8; SERVER_LEN] = server.try_into().ok()?;
    let timestamp = u32::from_be_bytes([server[4], server[5], server[6], server[7]]);
    // The reserved bytes are hashed as they came: another server with the same secret may use them.
    let expected = hash(&cookie.client, server, address, secret);
    // Compared in constant time: no branch on the first byte that differs.
    let difference = server[8..]
        .iter()
        .zip(expected)
        .fold(server[0] ^ VERSION, |difference, (one, other)| {
            difference | (one ^ other)
        });
    (difference == 0).then_some(timestamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex<const N: usize>(text: &str) -> [u8; N] {
        core::array::from_fn(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).expect("hex"))
    }

    fn cookie(client: &str, server: &str) -> Cookie {
        let mut cookie = Cookie {
            client: hex(client),
            server: [0; 32],
            server_len: (server.len() / 2) as u8,
        };
        for (i, byte) in cookie.server.iter_mut().enumerate().take(server.len() / 2) {
            *byte = u8::from_str_radix(&server[2 * i..2 * i + 2], 16).expect("hex");
        }
        cookie
    }

    /// A moment before any rotation.
    fn never(secs: u32) -> CookieTime {
        let turns = SecretRotations::default();
        CookieTime { secs, turns }
    }

    /// RFC 9018 appendix A.1 and A.2.
    const SECRET: &str = "e5e973e5a6b2a43f48e7dc849e37bfcf";

    fn secret() -> CookieSecrets {
        CookieSecrets::Given {
            current: hex(SECRET),
            previous: [0; 16],
        }
    }

    #[test]
    fn the_rfcs_examples_come_out() {
        let address = "198.51.100.100".parse().expect("an address");
        let first = secret().check(
            &cookie("2464c4abcf10c957", ""),
            address,
            never(1_559_731_985),
        );
        assert!(!first.is_valid);
        assert_eq!(
            first.reply,
            hex("2464c4abcf10c957010000005cf79f111f8130c3eee29480")
        );
        // A.2: the same client forty minutes later: valid, and renewed.
        let old = cookie("2464c4abcf10c957", "010000005cf79f111f8130c3eee29480");
        let renewed = secret().check(&old, address, never(1_559_734_385));
        assert!(renewed.is_valid);
        assert_eq!(
            renewed.reply,
            hex("2464c4abcf10c957010000005cf7a871d4a564a1442aca77")
        );
        // A.3: reserved bits are no reason to refuse a cookie.
        let address = "203.0.113.203".parse().expect("an address");
        let old = cookie("fc93fc62807ddb86", "01abcdef5cf78f71a314227b6679ebf5");
        assert!(secret().check(&old, address, never(0x5cf7_8f71)).is_valid);
    }

    #[test]
    fn the_rfcs_ipv6_example_with_two_secrets() {
        let secret = CookieSecrets::Given {
            current: hex("445536bcd2513298075a5d379663c962"),
            previous: hex("dd3bdf9344b678b185a6f5cb60fca715"),
        };
        let address = "2001:db8:220:1:59de:d0f4:8769:82b8"
            .parse()
            .expect("an address");
        let old = cookie("22681ab97d52c298", "010000005cf7c57926556bd0934c72f8");
        let checked = secret.check(&old, address, never(1_559_741_961));
        assert!(checked.is_valid);
        assert_eq!(
            checked.reply,
            hex("22681ab97d52c298010000005cf7c609a6bb79d16625507a")
        );
    }

    #[test]
    fn cookies_end_and_belong_to_their_address() {
        let here = "192.0.2.1".parse().expect("an address");
        let made = CookieSecrets::Made([7; 16]);
        let now = 1_700_000_000;
        let fresh = made
            .check(&cookie("0011223344556677", ""), here, never(now))
            .reply;
        let mut returned = cookie("0011223344556677", "");
        returned.server[..16].copy_from_slice(&fresh[8..]);
        returned.server_len = 16;
        let valid = |address, at| made.check(&returned, address, never(at)).is_valid;
        assert!(valid(here, now) && valid(here, now + 3_600) && valid(here, now - 300));
        assert!(!valid(here, now + 3_601) && !valid(here, now - 301));
        assert!(!valid("192.0.2.2".parse().expect("an address"), now));
        assert_eq!(
            made.check(&returned, here, never(now + 60)).reply,
            fresh,
            "kept while young"
        );
        assert_ne!(
            made.check(&returned, here, never(now + 1_800)).reply,
            fresh,
            "renewed"
        );
        for i in 0..16 {
            returned.server[i] ^= 1;
            assert!(
                !made.check(&returned, here, never(now)).is_valid,
                "byte {i}"
            );
            returned.server[i] ^= 1;
        }
    }
    /// A cookie of the current or the previous secret is valid, one of an older secret is not.
    #[test]
    fn a_turn_makes_another_secret_and_the_one_before_is_good_until_the_next() {
        let here = "192.0.2.1".parse().expect("an address");
        let made = CookieSecrets::Made([7; 16]);
        // Half an hour before the end of a day.
        let now = 20_000 * ROLLOVER_SECS - 1_800;
        let new = |at, turns| {
            let reply = made
                .check(
                    &cookie("0011223344556677", ""),
                    here,
                    CookieTime { secs: at, turns },
                )
                .reply;
            let mut returned = cookie("0011223344556677", "");
            returned.server[..16].copy_from_slice(&reply[8..]);
            returned.server_len = 16;
            returned
        };
        let never = SecretRotations::default();
        let once = never.one_more(now);
        let twice = once.one_more(now + 60);
        assert_eq!(SecretRotations::of_word(twice.to_word()), twice);
        let old = new(now, never);
        let is_good = |cookie: &Cookie, at, turns| {
            made.check(cookie, here, CookieTime { secs: at, turns })
                .is_valid
        };
        assert_ne!(new(now, once).server, old.server);
        assert!(is_good(&old, now, never) && is_good(&old, now, once));
        assert!(!is_good(&old, now + 60, twice));
        let young = new(now + 60, twice);
        let middle = new(now, once);
        assert!(is_good(&middle, now + 60, twice));
        // The day's end is another rotation: the secret of the day is the previous one.
        assert!(is_good(&young, now + 1_800, twice));
        assert!(!is_good(&middle, now + 1_800, twice));
        // Given secrets do not rotate.
        assert_eq!(
            secret().secrets(now, twice),
            secret().secrets(now, SecretRotations::default())
        );
    }
}
