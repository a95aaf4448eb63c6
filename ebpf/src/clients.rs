//! Verified clients: clients that have brought a cookie back, which proves their address.
//!
//! The table has sets of two, by a keyed hash of the address, so that an attacker cannot choose an address that collides
//! with another. When full, a set forgets its older entry. A look-up costs two loads; an LRU map would need a lock that a
//! flood contends for.
//!
//! ```text
//!  63            32 31                    0
//!  | fingerprint   | second of the proof  |      0: empty
//! ```

use xdnsd_abi::{CLIENT_SETS, ClientSet};

const NANOSECONDS_PER_SECOND: u64 = 1_000_000_000;

/// Place of a client's entry, and the fingerprint that tells it from others.
#[derive(Clone, Copy)]
pub struct ClientSlot {
    /// Index of its set.
    pub index: u32,
    fingerprint: u64,
}

impl ClientSlot {
    /// The slot for the hash of a client's address.
    #[inline(always)]
    pub const fn of(hash: u64) -> Self {
        const FINGERPRINT: u64 = 0xffff_ffff << 32;
        Self {
            index: hash as u32 & (CLIENT_SETS - 1),
            fingerprint: hash & FINGERPRINT,
        }
    }

    #[inline(always)]
    const fn is_in(self, entry: u64) -> bool {
        entry != 0 && (entry ^ self.fingerprint) >> 32 == 0
    }

    /// True if the client's latest proof is at most `secs` seconds old.
    #[inline(always)]
    pub const fn has_proved(self, set: ClientSet, now_ns: u64, secs: u32) -> bool {
        let now = (now_ns / NANOSECONDS_PER_SECOND) as u32;
        let [one, other] = set;
        self.is_in(one) && now.wrapping_sub(one as u32) <= secs
            || self.is_in(other) && now.wrapping_sub(other as u32) <= secs
    }

    /// Entry for a proof at `now_ns`, and true if it goes to the second place of the set.
    #[inline(always)]
    pub const fn prove(self, set: ClientSet, now_ns: u64) -> (bool, u64) {
        let now = (now_ns / NANOSECONDS_PER_SECOND) as u32;
        let [one, other] = set;
        let is_second = if self.is_in(one) {
            false
        } else if self.is_in(other) {
            true
        } else {
            now.wrapping_sub(other as u32) > now.wrapping_sub(one as u32)
        };
        (is_second, self.fingerprint | now as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = NANOSECONDS_PER_SECOND;

    fn prove(set: &mut ClientSet, place: ClientSlot, now_ns: u64) {
        let (is_second, entry) = place.prove(*set, now_ns);
        set[usize::from(is_second)] = entry;
    }

    #[test]
    fn a_proof_is_good_for_its_time_and_for_nobody_else() {
        let (client, other) = (ClientSlot::of(7 << 32 | 5), ClientSlot::of(8 << 32 | 5));
        assert_eq!((client.index, other.index), (5, 5));
        let mut set = ClientSet::default();
        assert!(!client.has_proved(set, 0, u32::MAX), "nobody at the start");
        assert!(
            !ClientSlot::of(0).has_proved(set, 0, u32::MAX),
            "nor a hash of zero"
        );
        prove(&mut set, client, 1_000 * SECOND + 1);
        assert!(client.has_proved(set, 1_000 * SECOND + 2, 0));
        assert!(client.has_proved(set, 1_060 * SECOND, 60));
        assert!(!client.has_proved(set, 1_061 * SECOND, 60));
        assert!(!other.has_proved(set, 1_000 * SECOND + 2, 60));
        // A second proof goes to the same place.
        prove(&mut set, client, 1_061 * SECOND);
        assert!(client.has_proved(set, 1_061 * SECOND, 60));
        assert_eq!(set.iter().filter(|entry| **entry != 0).count(), 1);
    }

    #[test]
    fn the_older_one_is_forgotten() {
        let client = |number: u64| ClientSlot::of(number << 32);
        let mut set = ClientSet::default();
        for (number, second) in [(1, 100), (2, 200), (1, 300), (3, 400), (4, 500)] {
            prove(&mut set, client(number), second * SECOND);
        }
        let known = [1, 2, 3, 4].map(|number| client(number).has_proved(set, 500 * SECOND, 1_000));
        assert_eq!(known, [false, false, true, true]);
    }

    #[test]
    fn every_set_has_a_client() {
        assert_eq!(ClientSlot::of(u64::MAX).index, CLIENT_SETS - 1);
        assert_eq!(ClientSlot::of(u64::from(CLIENT_SETS)).index, 0);
    }
}
