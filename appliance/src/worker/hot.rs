//! Which names are asked for so often that the program in the kernel is to answer them.
//!
//! Hits of AF_XDP are counted in a table of few places: who has a place counts up, everybody else who comes there counts it down,
//! and takes it at zero. So what stays is what comes most. Each second all counts are halved. What the program answers is not
//! counted here any more; its time is over before the cache's, so that the next client finds it in the cache, and has it fetched
//! anew. What the program has given often is hot again by its second hit.

use std::net::IpAddr;

use xdnsd_abi::hot::word;
use xdnsd_core::answer::{Fresh, hot_words};
use xdnsd_core::policy::OnLink;
use xdnsd_core::time::Instant;

use crate::os::clock;
use crate::store::HOT;

/// Places for names.
const PLACES: usize = 512;
/// Hits, of which half are forgotten each second, from which a name is hot.
const HITS_MIN: u16 = 8;
/// Hits from which it is hot, if the program gave as many of its last answer: that one is over.
const AGAIN_HITS_MIN: u16 = 2;
/// Time between two halvings, in milliseconds.
const HALF_MS: u64 = 1_000;
/// Bytes of the table of a worker, for the memory budget.
pub const BYTES: usize = size_of::<Hotness>();

/// What is counted.
pub struct Hotness {
    places: [HitCount; PLACES],
    /// When they are halved next.
    next_half: Instant,
}

#[derive(Clone, Copy, Default)]
struct HitCount {
    /// Bits of the hash that are not those of the place.
    tag: u16,
    count: u16,
}

/// An answer that was given to a client over AF_XDP.
pub struct GivenAnswer<'a> {
    /// The message.
    pub reply: &'a [u8],
    /// What it does not say.
    pub fresh: Fresh,
    /// To whom.
    pub client: IpAddr,
    /// Who is a neighbour.
    pub on_link: OnLink<'a>,
    /// What [`HOT`] said of it before the cache was looked into.
    pub valid: u64,
}

impl Hotness {
    /// Nothing is hot.
    pub fn new() -> Self {
        Self {
            places: [HitCount::default(); PLACES],
            next_half: Instant::default(),
        }
    }

    /// Counts a hit, and lets the program give the answer, if it is asked for that often; and to this client.
    pub fn note(&mut self, given: &GivenAnswer<'_>, now: Instant) {
        HOT.admit(given.valid, given.client, || {
            given.on_link.contains(given.client)
        });
        let count = self.count(given.fresh.hash, now);
        // Not each time, because not every answer can be had, and not every place.
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

    /// How often it has come, by and large.
    fn count(&mut self, hash: u64, now: Instant) -> u16 {
        if now >= self.next_half {
            self.next_half = now + HALF_MS;
            self.places.iter_mut().for_each(|place| place.count /= 2);
        }
        // The lower half names the shard.
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

    /// Two that meet in one place.
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
        // Seven a second never reach what eight in one do.
        let mut hotness = Hotness::new();
        for second in 0..60 {
            for _ in 0..HITS_MIN / 2 {
                let count = hotness.count(OFTEN, now + second * HALF_MS);
                assert!(count < HITS_MIN, "second {second}: {count}");
            }
        }
    }
}
