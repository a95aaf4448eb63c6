//! Finds the names that are asked for often enough to be answered by the program in the kernel.
//!
//! AF_XDP hits are counted in a small table: a hit increments the count of its place if its tag is there; any other hit
//! decrements it, and takes the place at zero. So the most frequent names stay. All counts are halved each second. Answers given
//! by the program are not counted here; they expire there before they do in the cache, so that the next client is answered from
//! the cache and triggers a refresh. A name that the program has answered often is hot again at its second hit.

use std::net::IpAddr;

use xdnsd_abi::hot::word;
use xdnsd_core::answer::{Fresh, hot_words};
use xdnsd_core::policy::OnLink;
use xdnsd_core::time::Instant;

use crate::os::clock;
use crate::store::HOT;

/// Places for names.
const PLACES: usize = 512;
/// Hits that make a name hot; counts are halved each second.
const HITS_MIN: u16 = 8;
/// Hits that make a name hot again, if the program gave its last answer, now expired, at least that often.
const AGAIN_HITS_MIN: u16 = 2;
/// Time between two halvings, in milliseconds.
const HALF_MS: u64 = 1_000;
/// Bytes of the table of a worker, for the memory budget.
pub const BYTES: usize = size_of::<Hotness>();

/// Hit counts of one worker.
pub struct Hotness {
    places: [HitCount; PLACES],
    /// Next halving.
    next_half: Instant,
}

#[derive(Clone, Copy, Default)]
struct HitCount {
    /// Hash bits beyond those that choose the place.
    tag: u16,
    count: u16,
}

/// An answer that was given to a client over AF_XDP.
pub struct GivenAnswer<'a> {
    /// The message.
    pub reply: &'a [u8],
    /// Hash and times of the answer, which the message lacks.
    pub fresh: Fresh,
    /// The client that was answered.
    pub client: IpAddr,
    /// On-link prefixes, by which a neighbour is recognized.
    pub on_link: OnLink<'a>,
    /// Validity stamp that [`HOT`] gave before the cache lookup.
    pub valid: u64,
}

impl Hotness {
    /// An empty table.
    pub fn new() -> Self {
        Self {
            places: [HitCount::default(); PLACES],
            next_half: Instant::default(),
        }
    }

    /// Counts a hit, admits this client to the program, and gives the program the answer if the name is hot.
    pub fn note(&mut self, given: &GivenAnswer<'_>, now: Instant) {
        HOT.admit(given.valid, given.client, || {
            given.on_link.contains(given.client)
        });
        let count = self.count(given.fresh.hash, now);
        // Only at powers of two, because not every answer fits the program, and not every place is free.
        if count < AGAIN_HITS_MIN || !count.is_power_of_two() {
            return;
        }
        let Some(mut words) = hot_words(given.reply, &given.fresh) else {
            return;
        };
        let (now_ns, now) = (clock::monotonic_ns(), clock::now());
        let ns = |millis: u64| millis.saturating_mul(1_000_000);
        let since_ns = now_ns.saturating_sub(ns(now.millis_since(given.fresh.since)));
        let fresh_ms = given.fresh.until.millis_since(given.fresh.since);
        words[word::SINCE] = since_ns;
        words[word::OVER] = since_ns.saturating_add(ns(fresh_ms));
        words[word::VALID] = given.valid;
        if count < HITS_MIN {
            HOT.renew(&words, now_ns, HITS_MIN.into());
        } else {
            HOT.put(&words, now_ns);
        }
    }

    /// Approximate number of hits of `hash`, this one included.
    fn count(&mut self, hash: u64, now: Instant) -> u16 {
        if now >= self.next_half {
            self.next_half = now + HALF_MS;
            self.places.iter_mut().for_each(|place| place.count /= 2);
        }
        // The lower half of the hash chooses the shard.
        let place = &mut self.places[(hash >> 32) as usize % PLACES];
        let tag = (hash >> 48) as u16;
        if place.tag == tag {
            place.count = place.count.saturating_add(1);
            return place.count;
        }
        match place.count.checked_sub(1) {
            Some(left) => place.count = left,
            None => *place = HitCount { tag, count: 1 },
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two hashes with the same place.
    const OFTEN: u64 = 0x1111_0003_0000_0000;
    const RARELY: u64 = 0x2222_0003_0000_0000;

    #[test]
    fn what_comes_most_has_the_place() {
        let mut hotness = Hotness::new();
        let now = Instant::from_millis(5_000);
        for turn in 1..=100 {
            let count = hotness.count(OFTEN, now);
            assert!(turn < 8 || count > 1, "turn {turn}: {count}");
            if turn % 3 == 0 {
                assert_eq!(hotness.count(RARELY, now), 0, "turn {turn}");
            }
        }
        let counts: Vec<u16> = (0..100).map(|_| hotness.count(RARELY, now)).collect();
        assert!(
            counts[99] >= HITS_MIN,
            "by now it is the other one: {counts:?}"
        );
    }

    #[test]
    fn half_of_it_is_forgotten_each_second() {
        let mut hotness = Hotness::new();
        let now = Instant::from_millis(5_000);
        for _ in 0..40 {
            hotness.count(OFTEN, now);
        }
        assert_eq!(hotness.count(OFTEN, now + (HALF_MS - 1)), 41);
        assert_eq!(hotness.count(OFTEN, now + HALF_MS), 21);
        // Seven hits a second never add up to eight in one second.
        let mut hotness = Hotness::new();
        for second in 0..60 {
            for _ in 0..HITS_MIN / 2 {
                let count = hotness.count(OFTEN, now + second * HALF_MS);
                assert!(count < HITS_MIN, "second {second}: {count}");
            }
        }
    }
}
