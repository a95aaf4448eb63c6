//! Whether a DNS cookie is one that user space has given to this client (RFC 7873, RFC 9018 section 4).
//!
//! ```text
//! | client's 8 | version 1 | reserved 3 | timestamp 4 | hash 8 |
//! hash = SipHash-2-4(all before it | client address, secret)
//! ```

use super::question::{Asked, COOKIE_LEN};
use super::{Accounts, Scratch, key};
use crate::flow::network::Address;
use xdnsd_abi::hash::siphash24;
use xdnsd_abi::rate::{COOKIE_AGE_MAX_SECS, COOKIE_AHEAD_MAX_SECS, control};

const VERSION: u8 = 1;
const NANOS_PER_SEC: u64 = 1_000_000_000;
const LEN: usize = COOKIE_LEN as usize;

/// Whether the cookie at this place of the message in the scratch is good.
#[inline(always)]
pub fn is_good<K: Accounts>(kernel: &K, scratch: &Scratch, asked: &Asked, client: Address) -> bool {
    check(kernel, scratch, asked.cookie, client).unwrap_or(false)
}

#[inline(always)]
fn check<K: Accounts>(kernel: &K, scratch: &Scratch, at: usize, client: Address) -> Option<bool> {
    let head = kernel.element(0)?;
    if kernel.word(head, control::HAS_COOKIES) == 0 {
        return Some(false);
    }
    let cookie: &[u8; LEN] = scratch.message.get(at..at + LEN)?.first_chunk()?;
    let (words, _) = cookie.as_chunks();
    let [words @ .., hash] = [0, 1, 2].map(|at| u64::from_le_bytes(words[at]));
    let [version, _, _, _, a, b, c, d] = words[1].to_le_bytes();
    let secs = kernel.now() / NANOS_PER_SEC;
    let wall_secs = secs.wrapping_add(kernel.word(head, control::WALL)) as u32;
    // Serial number arithmetic: the clock may have been set back (RFC 9018 section 4.3, RFC 1982).
    let age_secs = wall_secs.wrapping_sub(u32::from_be_bytes([a, b, c, d])) as i32;
    let is_fresh =
        age_secs <= COOKIE_AGE_MAX_SECS as i32 && age_secs >= -(COOKIE_AHEAD_MAX_SECS as i32);
    if version != VERSION || !is_fresh {
        return Some(false);
    }
    for secret in 0..2 {
        let secret = key(kernel, control::SECRETS + 2 * secret)?;
        let made = match client.ipv4() {
            Some(v4) => {
                let v4 = u32::from_le_bytes(v4.to_ne_bytes());
                siphash24(words, u64::from(v4) | 20 << 56, &secret)
            }
            None => {
                let Address(high, low) = client;
                let [high, low] = [high, low].map(|half| u64::from_le_bytes(half.to_ne_bytes()));
                siphash24([words[0], words[1], high, low], 32 << 56, &secret)
            }
        };
        if made == hash {
            return Some(true);
        }
    }
    Some(false)
}
