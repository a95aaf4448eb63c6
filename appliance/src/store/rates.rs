//! What clients have had of what they may have: the accounts, which all workers share.
//!
//! Full: see [`xdnsd_core::rate`].

use std::sync::atomic::{AtomicU64, Ordering};

use xdnsd_abi::hash::HashKey;
use xdnsd_abi::rate::{WORDS, control};
use xdnsd_core::rate::Accounts;

use crate::os::clock;

/// The accounts while no program in the kernel looks into them.
static OWN: [AtomicU64; WORDS] = [const { AtomicU64::new(0) }; WORDS];

/// Bytes of the accounts, for the memory budget.
pub const BYTES: usize = size_of_val(&OWN);

/// The accounts.
#[must_use]
pub fn accounts() -> Accounts<'static> {
    Accounts::view(&OWN)
}

/// Before the first worker serves. `key` is drawn at random: nobody outside can choose whose account takes whose place.
pub fn begin(key: HashKey) {
    prepare(&OWN, key);
}

fn prepare(words: &[AtomicU64; WORDS], key: HashKey) {
    let (halves, _) = key.as_chunks();
    for (at, half) in (control::KEY..).zip(halves) {
        words[at].store(u64::from_ne_bytes(*half), Ordering::Relaxed);
    }
    let engine_ns = clock::now().millis().wrapping_mul(1_000_000);
    let offset = clock::monotonic_ns().wrapping_sub(engine_ns);
    words[control::CLOCK].store(offset, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accounts_go_by_the_kernels_clock() {
        let words = [const { AtomicU64::new(0) }; WORDS];
        prepare(&words, *b"sixteen byte key");
        let offset = words[control::CLOCK].load(Ordering::Relaxed);
        let engine_ns = clock::now().millis().wrapping_mul(1_000_000);
        let apart = clock::monotonic_ns().wrapping_sub(engine_ns.wrapping_add(offset)) as i64;
        assert!(apart.abs() < 1_000_000_000, "{apart}");
        let key = words[control::KEY].load(Ordering::Relaxed).to_ne_bytes();
        assert_eq!(key, *b"sixteen ");
    }
}
