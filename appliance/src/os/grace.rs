//! Waits for programs in the kernel that run now: what they have read of a map they still use.

use std::thread;
use std::time::Duration;

/// linux/membarrier.h, which libc does not carry for every target.
const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
/// What is waited instead where the kernel does not say when (`nohz_full`). A program runs for some microseconds.
const INSTEAD: Duration = Duration::from_millis(50);

/// Returns when every run of a program that had begun before the call is over. Takes some milliseconds, up to some tens.
///
/// membarrier(2) waits for a grace period of RCU, and programs run inside of such read sections.
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

    /// Of linux/membarrier.h: gives the commands that the kernel knows, a bit each.
    const MEMBARRIER_CMD_QUERY: libc::c_int = 0;

    /// Where the kernel waits it does so at once each time, and never fails: that it is a grace period is what
    /// `tier0::after_a_reload_or_a_flush_no_old_answer_leaves` shows.
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
        // A command that no kernel knows is what one without this call says.
        assert_ne!(membarrier(1 << 30), 0);
    }
}
