//! Time as the engine sees it: an argument, never read from a clock.

use core::ops::Add;

/// A point on the caller's monotonic clock, in milliseconds since an epoch of the caller's choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant {
    millis: u64,
}

impl Instant {
    /// Later than every instant of a clock: a deadline that never comes.
    pub const FAR_FUTURE: Self = Self { millis: u64::MAX };

    /// The instant `millis` milliseconds after the epoch.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self { millis }
    }

    /// Milliseconds since the epoch.
    #[must_use]
    pub const fn millis(self) -> u64 {
        self.millis
    }

    /// Whole seconds from `earlier` to `self`; 0 if `earlier` is later.
    #[must_use]
    pub const fn secs_since(self, earlier: Self) -> u32 {
        let secs = self.millis.saturating_sub(earlier.millis) / 1000;
        if secs > u32::MAX as u64 {
            u32::MAX
        } else {
            secs as u32
        }
    }

    /// Milliseconds from `earlier` to `self`; 0 if `earlier` is later.
    #[must_use]
    pub const fn millis_since(self, earlier: Self) -> u64 {
        self.millis.saturating_sub(earlier.millis)
    }

    /// `secs` seconds earlier, but not before the epoch.
    #[must_use]
    pub const fn sub_secs(self, secs: u32) -> Self {
        Self {
            millis: self.millis.saturating_sub(secs as u64 * 1000),
        }
    }

    /// `secs` seconds later.
    #[must_use]
    pub const fn add_secs(self, secs: u32) -> Self {
        Self {
            millis: self.millis.saturating_add(secs as u64 * 1000),
        }
    }
}

impl Add<u64> for Instant {
    type Output = Self;
    /// `millis` milliseconds later.
    fn add(self, millis: u64) -> Self {
        Self {
            millis: self.millis.saturating_add(millis),
        }
    }
}
