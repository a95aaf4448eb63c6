//! When something that failed is tried again: later each time, so that what stays broken costs nothing.

use xdnsd_core::time::Instant;

/// The next try of one thing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retry {
    /// `None`: it has not failed.
    at: Option<Instant>,
    pause_ms: u64,
}

impl Retry {
    /// It failed: again after `first_ms`, and twice as long each time, up to `max_ms`. What went well for as long as that
    /// after the latest pause begins anew, whether anybody has said so or not.
    pub fn fail(&mut self, now: Instant, first_ms: u64, max_ms: u64) {
        let is_long_ago = self.at.is_none_or(|at| at + max_ms <= now);
        self.pause_ms = if is_long_ago {
            first_ms
        } else {
            (self.pause_ms * 2).min(max_ms)
        };
        self.at = Some(now + self.pause_ms);
    }

    /// It went well.
    pub fn succeed(&mut self) {
        *self = Self::default();
    }

    /// Whether it may be tried: it never failed, or the pause is over.
    #[must_use]
    pub fn may_try(&self, now: Instant) -> bool {
        self.at.is_none_or(|at| at <= now)
    }

    /// Whether it failed and the pause is over.
    #[must_use]
    pub fn is_due(&self, now: Instant) -> bool {
        self.at.is_some_and(|at| at <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_the_longest_and_begin_anew_after_success() {
        let mut retry = Retry::default();
        let mut now = Instant::from_millis(5);
        assert!(retry.may_try(now) && !retry.is_due(now));
        for pause in [10, 20, 40, 50, 50] {
            retry.fail(now, 10, 50);
            assert!(!retry.may_try(now + (pause - 1)));
            now = now + pause;
            assert!(retry.may_try(now) && retry.is_due(now));
        }
        retry.fail(now + 49, 10, 50);
        assert!(!retry.may_try(now + 98), "still the longest");
        now = now + 99 + 50;
        retry.fail(now, 10, 50);
        assert!(retry.may_try(now + 10), "it was long ago");
        retry.succeed();
        assert_eq!(retry, Retry::default());
    }
}
