//! Waits until BPF programs that are running now have finished: they may still use values that they have read from a map.

use std::thread;
use std::time::Duration;

/// linux/membarrier.h; libc lacks it for some targets.
const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
/// Wait where membarrier(2) fails (`nohz_full`). A program runs for some microseconds.
const INSTEAD: Duration = Duration::from_millis(50);

/// Returns once every program run that began before the call is over. Takes some milliseconds, up to some tens.
///
/// membarrier(2) waits for an RCU grace period, and programs run inside RCU read-side critical sections.
pub fn wait_for_programs() {
    if membarrier(MEMBARRIER_CMD_GLOBAL) != 0 {
        thread::sleep(INSTEAD);
    }
}

fn membarrier(command: libc::c_int) -> libc::c_long {
    // SAFETY: takes numbers only, and touches no memory of ours.
    unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    /// linux/membarrier.h: returns the supported commands, one bit each.
    const MEMBARRIER_CMD_QUERY: libc::c_int = 0;

    /// A kernel that waits does so each time, and never fails; that it waits for a grace period is shown by
    /// `tier0::after_a_reload_or_a_flush_no_old_answer_leaves`.
    #[test]
    fn the_kernel_waits_or_we_do() {
        let known = membarrier(MEMBARRIER_CMD_QUERY);
        let is_known = known > 0 && known & libc::c_long::from(MEMBARRIER_CMD_GLOBAL) != 0;
        for _ in 0..3 {
            let begin = Instant::now();
            wait_for_programs();
            assert!(is_known || begin.elapsed() >= INSTEAD, "{known:#x}");
            assert_eq!(membarrier(MEMBARRIER_CMD_GLOBAL) == 0, is_known);
        }
        // An unknown command fails, as does a kernel without this call.
        assert_ne!(membarrier(1 << 30), 0);
    }
}
