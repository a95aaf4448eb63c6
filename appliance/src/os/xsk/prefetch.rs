//! Prefetching of received frames.

use super::Frame;

/// Bytes of a cache line.
const LINE: usize = 64;
/// Lines read for a query: Ethernet, VLAN tags, IP, UDP, and the question of a name of usual length.
const LINES: usize = 2;

/// Starts loading the headers and the question of `frame` into the L1 data cache. The kernel has just written them, usually on
/// another core. Does nothing on processors without a known prefetch instruction.
#[inline]
pub fn prefetch(frame: &Frame) {
    for line in frame.data().chunks(LINE).take(LINES) {
        hint(line.as_ptr());
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn hint(line: *const u8) {
    use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a prefetch has no effect that the program can see, and is valid for any address; SSE is part of x86-64.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) };
}

#[cfg(target_arch = "aarch64")]
#[inline]
fn hint(line: *const u8) {
    // SAFETY: PRFM has no effect that the program can see, is valid for any address and changes no flag.
    unsafe {
        core::arch::asm!("prfm pldl1keep, [{}]", in(reg) line, options(nostack, preserves_flags, readonly));
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn hint(_: *const u8) {}
