//! The clocks: monotonic for the engine, the wall clock for the snapshot, and whether the wall clock can be believed.

use std::sync::OnceLock;
use std::time::{Instant as Monotonic, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};
use xdnsd_core::time::Instant;

/// 2026-01-01 in Unix time: a wall clock before it was never set, whatever the kernel says of it.
const EARLIEST_SECS: u64 = 1_767_225_600;

static EPOCH: OnceLock<Monotonic> = OnceLock::new();

/// The monotonic clock. All threads share its epoch, the first call.
#[must_use]
pub fn now() -> Instant {
    let elapsed = EPOCH.get_or_init(Monotonic::now).elapsed();
    Instant::from_millis(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
}

/// CLOCK_MONOTONIC in nanoseconds, as the XDP program's `bpf_ktime_get_ns` counts it.
#[must_use]
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("every kernel has CLOCK_MONOTONIC");
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}

/// Seconds since 1970 by the wall clock, which may be wrong.
#[must_use]
pub fn wall_secs() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// Whether the wall clock can be believed: a time daemon has told the kernel so (adjtimex(2)), and it is not before
/// this program was written.
#[must_use]
pub fn wall_is_synchronised() -> bool {
    is_believable(kernel_says_synchronised(), wall_secs())
}

const fn is_believable(kernel_says_so: bool, wall_secs: u64) -> bool {
    kernel_says_so && wall_secs >= EARLIEST_SECS
}

fn kernel_says_synchronised() -> bool {
    // SAFETY: timex is plain integers, for which all zero bits are a value; modes 0 asks and changes nothing.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a timex of our own that outlives the call, which is all that adjtimex(2) asks for.
    let state = unsafe { libc::adjtimex(&raw mut timex) };
    // Not synchronised shows as TIME_ERROR; a failed call (-1, in a sandbox) tells nothing, which is the same to us.
    (libc::TIME_OK..libc::TIME_ERROR).contains(&state) && timex.status & libc::STA_UNSYNC == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_monotonic_clock_does_not_go_back() {
        let earlier = now();
        assert!(now() >= earlier);
    }

    #[test]
    fn a_clock_that_was_never_set_is_not_believed() {
        assert!(is_believable(true, EARLIEST_SECS));
        assert!(
            !is_believable(true, EARLIEST_SECS - 1),
            "1970, or the image's build time"
        );
        assert!(!is_believable(false, EARLIEST_SECS));
    }

    #[test]
    fn the_kernel_can_be_asked() {
        // Either answer is right; the question must neither fail nor change the clock.
        assert_eq!(kernel_says_synchronised(), kernel_says_synchronised());
    }
}
