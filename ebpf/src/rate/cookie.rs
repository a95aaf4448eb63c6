//! Check that user space has given a DNS cookie to this client (RFC 7873, RFC 9018 section 4).

use super::question::RateQuestion;
use super::{RateKernel, RateScratch, key};
use crate::cookie::DnsCookie;
use crate::flow::network::Address;
use xdnsd_abi::headers::dns::opt::COOKIE_LEN;
use xdnsd_abi::rate::{COOKIE_AGE_MAX_SECS, COOKIE_AHEAD_MAX_SECS, control};

const NANOS_PER_SEC: u64 = 1_000_000_000;

/// True if the cookie in the scratch's message is valid.
#[inline(always)]
pub fn is_good<K: RateKernel>(
    kernel: &K,
    scratch: &RateScratch,
    asked: &RateQuestion,
    client: Address,
) -> bool {
    check(kernel, scratch, asked.cookie, client).unwrap_or(false)
}

#[inline(always)]
fn check<K: RateKernel>(
    kernel: &K,
    scratch: &RateScratch,
    at: usize,
    client: Address,
) -> Option<bool> {
    let head = kernel.element(0)?;
    if kernel.word(head, control::HAS_COOKIES) == 0 {
        return Some(false);
    }
    let bytes = scratch.message.get(at..at + COOKIE_LEN)?.first_chunk()?;
    let cookie = DnsCookie::of(bytes);
    let secs = kernel.now() / NANOS_PER_SEC;
    let age_secs = cookie.age_secs(secs.wrapping_add(kernel.word(head, control::WALL)));
    let is_fresh =
        age_secs <= COOKIE_AGE_MAX_SECS as i32 && age_secs >= -(COOKIE_AHEAD_MAX_SECS as i32);
    if !is_fresh {
        return Some(false);
    }
    for secret in 0..2 {
        let secret = key(kernel, control::SECRETS + 2 * secret)?;
        if cookie.is_made_for(client, &secret) {
            return Some(true);
        }
    }
    Some(false)
}
