//! A DNS cookie in the form that user space gives to clients (RFC 7873, RFC 9018 section 4).
//!
//! ```text
//! | client's 8 | version 1 | reserved 3 | timestamp 4 | hash 8 |
//! hash = SipHash-2-4(all before it | client address, secret)
//! ```

use crate::flow::network::Address;
use xdnsd_abi::hash::{HashKey, siphash24};
use xdnsd_abi::headers::dns::opt::COOKIE_LEN;

const VERSION: u8 = 1;

/// A cookie that a client has brought.
pub struct DnsCookie {
    words: [u64; 2],
    hash: u64,
}

impl DnsCookie {
    #[inline(always)]
    pub fn of(bytes: &[u8; COOKIE_LEN]) -> Self {
        let (words, _) = bytes.as_chunks();
        let [client, head, hash] = [0, 1, 2].map(|at| u64::from_le_bytes(words[at]));
        let words = [client, head];
        Self { words, hash }
    }

    /// Age of the cookie at this Unix time, in seconds, by its timestamp. Serial number arithmetic, since the clock may
    /// have been set back (RFC 9018 section 4.3, RFC 1982).
    #[inline(always)]
    pub const fn age_secs(&self, wall_secs: u64) -> i32 {
        let [_, _, _, _, a, b, c, d] = self.words[1].to_le_bytes();
        (wall_secs as u32).wrapping_sub(u32::from_be_bytes([a, b, c, d])) as i32
    }

    /// True if the cookie was made for this client with this secret.
    #[inline(always)]
    pub fn is_made_for(&self, client: Address, secret: &HashKey) -> bool {
        let [version, ..] = self.words[1].to_le_bytes();
        if version != VERSION {
            return false;
        }
        let made = match client.ipv4() {
            Some(v4) => {
                let v4 = u32::from_le_bytes(v4.to_ne_bytes());
                siphash24(self.words, u64::from(v4) | 20 << 56, secret)
            }
            None => {
                let Address(high, low) = client;
                let [high, low] = [high, low].map(|half| u64::from_le_bytes(half.to_ne_bytes()));
                siphash24([self.words[0], self.words[1], high, low], 32 << 56, secret)
            }
        };
        made == self.hash
    }
}
