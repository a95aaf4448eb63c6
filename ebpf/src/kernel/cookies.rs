//! Access of the program for SYNs to the kernel.

use super::{GUARDED, IpHeader, LISTENING, Run, SECOND_BITS, describe, hand_on, is_one_of, now};
use crate::syn::{COUNT_MAX, Cookies, Ends, OptionWalk, Port, SynHeader};
use aya_ebpf::helpers::generated::{
    bpf_loop, bpf_sk_release, bpf_tcp_gen_syncookie, bpf_tcp_raw_gen_syncookie_ipv4,
    bpf_tcp_raw_gen_syncookie_ipv6,
};
use core::ffi::c_void;
use core::mem::MaybeUninit;
use xdnsd_abi::{few, tail};

impl Cookies for Run<'_, true> {
    #[inline(always)]
    fn hand_on_stray(&self) {
        hand_on(self.ctx, tail::STRAY);
    }

    #[inline(always)]
    fn walk(&self, walk: &mut OptionWalk) {
        // The binding declares a function without arguments, unlike the kernel.
        let step = step as *const () as *mut c_void;
        // SAFETY: the kernel calls `step` with this walk and on this processor, before the helper returns.
        unsafe { bpf_loop(COUNT_MAX, step, (&raw mut *walk).cast(), 0) };
    }

    #[inline(always)]
    fn now(&self) -> u64 {
        now()
    }

    /// A listener is asked at least once a second, because it accepts no cookie unless it has lately given one. So are the
    /// listeners of the first SYNs of a second. That costs two look-ups of sockets, the first of which waits for memory if
    /// every client is a different one.
    #[inline(always)]
    fn cookie(
        &self,
        ends: &Ends,
        port: &Port<'_>,
        header: &mut SynHeader,
        len: u64,
    ) -> Option<u32> {
        let (mut tuple, mut ip) = (MaybeUninit::uninit(), MaybeUninit::uninit());
        let (tuple_len, ip_len) = describe(ends, &mut tuple, &mut ip);
        let header = header.as_mut_ptr().cast();
        let second = (now() >> SECOND_BITS) as u32;
        if port.asked == second && !is_one_of(few::SYNS) {
            // SAFETY: both headers are initialized as far as their lengths say.
            let result = unsafe { raw_cookie(ip.as_mut_ptr(), ip_len, header, len as u32) };
            return (result >= 0).then_some(result as u32);
        }
        let socket = self.socket(&mut tuple, tuple_len)?;
        // SAFETY: the kernel holds a reference to the socket for us until it is released, exactly once and last. Both
        // headers are initialized as far as their lengths say.
        let result = unsafe {
            let result = if (&raw const (*socket).state).read_volatile() == LISTENING {
                let ip = ip.as_mut_ptr().cast();
                bpf_tcp_gen_syncookie(socket.cast(), ip, ip_len, header.cast(), len as u32)
            } else {
                -1
            };
            bpf_sk_release(socket.cast());
            result
        };
        if result < 0 {
            return None;
        }
        if port.asked != second
            && let Some(check) = GUARDED.get_ptr_mut(port.key)
        {
            // SAFETY: the look-up returned an aligned value whose memory the map keeps while the program runs, and the
            // field is within it. User space may reuse it for another port at the same time, which then counts as asked for
            // a second.
            unsafe { (&raw mut (*check).own).write_volatile(second) }
        }
        // The MSS of the cookie is in the upper half.
        Some(result as u32)
    }
}

/// The kernel's cookie for a SYN, with its MSS in the upper half, without a look at any socket.
///
/// # Safety
///
/// Both headers are initialized as far as their lengths say.
#[inline(always)]
unsafe fn raw_cookie(ip: *mut IpHeader, ip_len: u32, header: *mut u32, len: u32) -> i64 {
    // SAFETY: by the caller's promise; the helper reads an IP header of its family.
    unsafe {
        if ip_len == size_of::<IpHeader>() as u32 {
            bpf_tcp_raw_gen_syncookie_ipv6(ip.cast(), header.cast(), len)
        } else {
            bpf_tcp_raw_gen_syncookie_ipv4(ip.cast(), header.cast(), len)
        }
    }
}

/// One step of a walk, called by bpf_loop. Returns 0 to go on.
unsafe extern "C" fn step(_: u64, walk: *mut c_void) -> i64 {
    // SAFETY: the walk that was passed to bpf_loop, which nobody else accesses until that returns.
    let walk = unsafe { &mut *walk.cast::<OptionWalk>() };
    i64::from(!walk.step())
}
