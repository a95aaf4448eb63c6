//! The clocks: monotonic for the engine, wall clock for the snapshot, and whether the wall clock is credible.

use std::sync::OnceLock;
use std::time::{Duration, Instant as Monotonic, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};
use xdnsd_core::time::Instant;

/// Reading of the engine's clock at the start. Restored answers were stored before the start; older ones than this are useless.
const START: Duration = Duration::from_secs(30 * 86_400);
/// 2026-01-01 in Unix time: an earlier wall clock was never set, whatever the kernel says.
const EARLIEST_SECS: u64 = 1_767_225_600;

static EPOCH: OnceLock<Monotonic> = OnceLock::new();

/// The engine's monotonic clock, shared by all threads.
#[must_use]
pub fn now() -> Instant {
    let elapsed = START + EPOCH.get_or_init(Monotonic::now).elapsed();
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

/// True if the wall clock is credible: the kernel holds it for synchronised, and it is not before [`EARLIEST_SECS`].
#[must_use]
pub fn wall_is_synchronised() -> bool {
    is_believable(kernel_says_so(), wall_secs())
}

/// Seconds since 1970 for comparison with times that this machine's clock wrote, such as the end of a lease. `None` if the clock
/// was never set.
#[must_use]
pub fn own_wall_secs() -> Option<u64> {
    Some(wall_secs()).filter(|&secs| secs >= EARLIEST_SECS)
}

/// True if the kernel holds the wall clock for synchronised: a time daemon has told it so (adjtimex(2)).
fn kernel_says_so() -> bool {
    // SAFETY: timex is plain integers, for which all zero bits are a value; modes 0 reads and changes nothing.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to our own timex, which outlives the call; adjtimex(2) asks for no more.
    let state = unsafe { libc::adjtimex(&raw mut timex) };
    is_synchronised(state, timex.status)
}

/// Interprets the result and status of adjtimex(2): unsynchronised shows as TIME_ERROR; a failed call (-1, in a sandbox) counts
/// as unsynchronised.
fn is_synchronised(state: libc::c_int, status: libc::c_int) -> bool {
    (libc::TIME_OK..libc::TIME_ERROR).contains(&state) && status & libc::STA_UNSYNC == 0
}

const fn is_believable(kernel_says_so: bool, wall_secs: u64) -> bool {
    kernel_says_so && wall_secs >= EARLIEST_SECS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_monotonic_clock_does_not_go_back() {
        let earlier = now();
        assert!(now() >= earlier);
        assert!(
            earlier.sub_secs(29 * 86_400) > Instant::from_millis(0),
            "room for what was stored before"
        );
    }

    #[test]
    fn the_kernel_says_by_state_and_status_that_the_clock_is_synchronised() {
        use libc::{STA_PLL, STA_UNSYNC, TIME_ERROR, TIME_INS, TIME_OK, TIME_WAIT};
        for (state, status, wanted) in [
            (TIME_OK, 0, true),
            (TIME_OK, STA_PLL, true),
            // A leap second is near, or just over.
            (TIME_INS, STA_PLL, true),
            (TIME_WAIT, 0, true),
            (TIME_ERROR, 0, false),
            (TIME_ERROR, STA_UNSYNC, false),
            (TIME_OK, STA_PLL | STA_UNSYNC, false),
            // The call failed.
            (-1, 0, false),
        ] {
            assert_eq!(is_synchronised(state, status), wanted, "{state} {status}");
        }
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
}
