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
    // SAFETY: takes numbers only, and touches no memory of ours.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result != 0 {
        thread::sleep(INSTEAD);
    }
}
