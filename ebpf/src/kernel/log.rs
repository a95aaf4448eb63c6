//! Records of the shield's log. Without a reader a frame with such a reason pays one look into an array, and any other
//! frame nothing.
//!
//! ```text
//!  verdict: dropped ... ─► somebody reads, and this one is drawn ─► tail call ─► xdnsd_log: record ─► the same verdict
//! ```

use super::{TAILS, told};
use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use aya_ebpf::btf_maps::{ArrayOfMaps, RingBuf};
use aya_ebpf::helpers::generated::{
    bpf_get_prandom_u32, bpf_ktime_get_ns, bpf_ringbuf_output, bpf_xdp_get_buff_len,
    bpf_xdp_load_bytes,
};
use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::PerCpuArray;
use aya_ebpf::programs::XdpContext;
use core::mem::MaybeUninit;
use xdnsd_abi::event::{HEAD, HEAD_BYTES, WORDS, logged};
use xdnsd_abi::{Reason, shield, tail};

#[map(name = "logged")]
static LOGGED: PerCpuArray<u64> = PerCpuArray::with_max_entries(logged::COUNT, 0);
/// A ring as large as a page of any machine; the one that user space installs is smaller.
#[btf_map(name = "events")]
static EVENTS: ArrayOfMaps<Ring, 1> = ArrayOfMaps::new();

/// Declaration of the ring for the loader.
type Ring = RingBuf<u64, 65_536>;

/// Tail-calls the program that writes a record, if the log has a reader and the frame is drawn. Otherwise returns, and the
/// verdict is still to be given.
#[inline(always)]
pub fn tell_reader(ctx: &XdpContext, reason: Reason, action: u32) {
    if !reason.is_told() {
        return;
    }
    let share = told(shield::LOG);
    // SAFETY: a helper without arguments.
    if share == 0 || unsafe { bpf_get_prandom_u32() } > share {
        return;
    }
    let Some(verdict) = LOGGED.get_ptr_mut(logged::VERDICT) else {
        return;
    };
    // SAFETY: this CPU's own slot, aligned and alive as long as the program; nothing else runs on it while the program
    // does. No value here has a drop that the tail call would skip.
    unsafe {
        *verdict = u64::from(action) << 32 | reason as u64;
        TAILS.tail_call(ctx, tail::LOG);
    }
}

/// Writes the record of this frame, and returns the frame's action.
#[inline(always)]
pub fn write_record(ctx: &XdpContext) -> u32 {
    let Some(verdict) = LOGGED.get_ptr(logged::VERDICT) else {
        return u32::MAX;
    };
    // SAFETY: this CPU's own slot, aligned and alive as long as the program; the program that made the tail call has
    // written it.
    let verdict = unsafe { *verdict };
    record(ctx, verdict as u32);
    (verdict >> 32) as u32
}

#[inline(always)]
fn record(ctx: &XdpContext, reason: u32) {
    let Some(ring) = EVENTS.get(0) else {
        return;
    };
    let mut words = MaybeUninit::<[u64; WORDS]>::uninit();
    let start = words.as_mut_ptr().cast::<u64>();
    // SAFETY: the context is the kernel's, and its field an aligned u32; each word is inside the place, at its alignment.
    // Written one by one and volatile, since the compiler would call memset.
    unsafe {
        for word in HEAD..WORDS {
            start.add(word).write_volatile(0);
        }
        let head_len = load_head(ctx, start.add(HEAD).cast());
        let (ifindex, len) = ((*ctx.ctx).ingress_ifindex, bpf_xdp_get_buff_len(ctx.ctx));
        start.write_volatile(bpf_ktime_get_ns());
        start
            .add(1)
            .write_volatile(u64::from(ifindex) << 32 | u64::from(reason));
        start
            .add(2)
            .write_volatile(head_len << 32 | len & 0xffff_ffff);
    }
    let ring = core::ptr::from_ref(ring).cast_mut().cast();
    let flags = u64::from(BPF_RB_NO_WAKEUP);
    // SAFETY: the ring that the look-up returned, and as many bytes as were written above.
    let result =
        unsafe { bpf_ringbuf_output(ring, start.cast(), size_of::<[u64; WORDS]>() as u64, flags) };
    if result != 0
        && let Some(lost) = LOGGED.get_ptr_mut(logged::LOST)
    {
        // SAFETY: this CPU's own slot, aligned and alive as long as the program; nothing else runs on it while the program does.
        unsafe { *lost = (*lost).wrapping_add(1) }
    }
}

/// Copies the frame's head, the longest of [`HEAD_BYTES`] that it has, and returns the length.
///
/// # Safety
/// There is room for the longest head.
#[inline(always)]
unsafe fn load_head(ctx: &XdpContext, to: *mut u8) -> u64 {
    for len in HEAD_BYTES {
        // SAFETY: the context is the kernel's; there is room for `len` bytes.
        if unsafe { bpf_xdp_load_bytes(ctx.ctx, 0, to.cast(), len as u32) } == 0 {
            return len as u64;
        }
    }
    0
}
