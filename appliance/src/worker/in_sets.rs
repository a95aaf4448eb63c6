//! Addresses of answers on their way to sets of the packet filter.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use xdnsd_core::time::Instant;

use crate::os::nf_tables::{COUNTS, FoundAddress, SetQueue};

/// Time for which an address is not handed on again, in milliseconds: a name that is asked for often must not fill the queue.
const PAUSE_MS: u64 = 5_000;
/// Addresses that are remembered for it. When full, the oldest is forgotten, and handed on again with its next answer.
const REMEMBERED: usize = 32;

/// What one worker hands on.
#[derive(Debug)]
pub struct SetFeed {
    /// `None` if no name has sets.
    queue: Option<Arc<SetQueue>>,
    /// What was handed on, and until when it is not again.
    lately: [Option<(FoundAddress, Instant)>; REMEMBERED],
    oldest: usize,
}

impl SetFeed {
    pub const fn new() -> Self {
        Self {
            queue: None,
            lately: [None; REMEMBERED],
            oldest: 0,
        }
    }

    /// Takes the queue of the policy in force. With other sets, addresses begin anew.
    pub fn follow(&mut self, queue: Option<&Arc<SetQueue>>) {
        let is_same = match (&self.queue, queue) {
            (Some(own), Some(new)) => Arc::ptr_eq(own, new),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        if !is_same {
            *self = Self {
                queue: queue.cloned(),
                ..Self::new()
            };
        }
    }

    /// Hands an address on. Without a place it is lost, and counted.
    pub fn put(&mut self, sets: u16, address: IpAddr, now: Instant) {
        let Some(queue) = &self.queue else {
            return;
        };
        let found = FoundAddress { sets, address };
        let is_it = |(known, until): &(FoundAddress, Instant)| *known == found && now < *until;
        if self.lately.iter().flatten().any(is_it) {
            return;
        }
        if !queue.put(found) {
            COUNTS.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.lately[self.oldest] = Some((found, now + PAUSE_MS));
        self.oldest = (self.oldest + 1) % REMEMBERED;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::nf_tables::PLACES;

    fn queue() -> Arc<SetQueue> {
        Arc::new(SetQueue::new(vec![vec!["t#s".parse().expect("a set")]]))
    }

    fn address(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    #[test]
    fn an_address_comes_again_after_its_pause_and_with_other_sets() {
        let now = Instant::from_millis(9_000);
        let mut feed = SetFeed::new();
        feed.put(0, address(1), now);
        let first = queue();
        feed.follow(Some(&first));
        let work = first.take_work().expect("nobody has it");
        let came = || work.found.try_iter().count();
        feed.put(0, address(1), now);
        feed.put(0, address(1), now + (PAUSE_MS - 1));
        assert_eq!(came(), 1);
        feed.put(1, address(1), now);
        feed.put(0, address(2), now);
        feed.put(0, address(1), now + PAUSE_MS);
        assert_eq!(came(), 3);
        // The same sets under another policy.
        feed.follow(Some(&first));
        feed.put(0, address(2), now);
        assert_eq!(came(), 0);
        feed.follow(Some(&queue()));
        feed.follow(Some(&first));
        feed.put(0, address(2), now);
        assert_eq!(came(), 1);
        feed.follow(None);
        feed.put(0, address(3), now);
        assert_eq!(came(), 0);
    }

    #[test]
    fn what_is_lost_comes_again_at_once() {
        let now = Instant::from_millis(9_000);
        let mut feed = SetFeed::new();
        let queue = queue();
        feed.follow(Some(&queue));
        let work = queue.take_work().expect("nobody has it");
        for last in 0..=PLACES as u8 {
            feed.put(0, address(last), now);
        }
        assert_eq!(work.found.try_iter().count(), PLACES);
        feed.put(0, address(PLACES as u8), now);
        assert_eq!(work.found.try_iter().count(), 1);
    }
}
