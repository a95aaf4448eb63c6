//! Retries with growing pauses, so that what stays broken costs nothing.

use xdnsd_core::time::Instant;

/// Time of the next attempt at one thing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retry {
    /// `None` if it has not failed.
    at: Option<Instant>,
    pause_ms: u64,
}

impl Retry {
    /// Records a failure: the next attempt is due after `first_ms`, and after twice as long each time, up to `max_ms`. If the
    /// latest pause has been over for `max_ms`, the pauses start again at `first_ms`, even if success was not reported.
    pub fn fail(&mut self, now: Instant, first_ms: u64, max_ms: u64) {
        let is_long_ago = self.at.is_none_or(|at| at + max_ms <= now);
        self.pause_ms = if is_long_ago {
            first_ms
        } else {
            (self.pause_ms * 2).min(max_ms)
        };
        self.at = Some(now + self.pause_ms);
    }

    /// Records a success.
    pub fn succeed(&mut self) {
        *self = Self::default();
    }

    /// True if an attempt is allowed: it never failed, or the pause is over.
    #[must_use]
    pub fn may_try(&self, now: Instant) -> bool {
        self.at.is_none_or(|at| at <= now)
    }

    /// True if it failed and the pause is over.
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
