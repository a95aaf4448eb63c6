//! Access to the frame through the kernel's helpers: the fence around the context, for both objects. Built for the kernel
//! only.

use crate::frame::Cursor;
use crate::frame::write::CursorMut;
use aya_ebpf::helpers::generated::{
    bpf_csum_diff, bpf_xdp_get_buff_len, bpf_xdp_load_bytes, bpf_xdp_store_bytes,
};
use aya_ebpf::programs::XdpContext;
use core::mem::MaybeUninit;

/// The same number, hidden from the compiler. The verifier keeps the bounds that it knew.
#[inline(always)]
pub fn opaque(number: u64) -> u64 {
    let mut slot = MaybeUninit::uninit();
    let slot: *mut u64 = slot.as_mut_ptr();
    // SAFETY: a place of our own, written before it is read.
    unsafe {
        slot.write_volatile(number);
        slot.read_volatile()
    }
}

/// Both ends of the first buffer. They are read anew, so that the verifier sees the same position on every path that leads
/// here.
#[inline(always)]
fn ends(ctx: &XdpContext) -> (usize, usize) {
    let ctx = ctx.ctx;
    // SAFETY: the context is the one that the kernel called us with; each field is an aligned u32 in it.
    unsafe {
        let (start, end) = (&raw const (*ctx).data, &raw const (*ctx).data_end);
        (start.read_volatile() as usize, end.read_volatile() as usize)
    }
}

/// The first buffer, as if nothing of it had been read.
#[inline(always)]
pub fn frame(ctx: &XdpContext) -> Cursor<'_> {
    let (start, end) = ends(ctx);
    // SAFETY: the kernel keeps the frame between the two pointers readable while the program runs; later writes go through
    // pointers that are read again.
    unsafe { Cursor::new(start as *const u8, end as *const u8) }
}

/// The first buffer, for writing.
#[inline(always)]
pub fn frame_mut(ctx: &XdpContext) -> CursorMut<'_> {
    let (start, end) = ends(ctx);
    // SAFETY: the frame between the two pointers is writable while the program runs, and nobody else has it.
    unsafe { CursorMut::new(start as *mut u8, end as *const u8) }
}

/// Length of the frame in all its buffers, in bytes.
#[inline(always)]
pub fn frame_len(ctx: &XdpContext) -> u64 {
    // SAFETY: the context is the one that the kernel called us with.
    unsafe { bpf_xdp_get_buff_len(ctx.ctx) }
}

/// Copies `len` bytes of the frame, 1 to `N`, from offset `at`.
#[inline(always)]
pub fn load<const N: usize>(
    ctx: &XdpContext,
    at: usize,
    len: usize,
    message: &mut [u8; N],
) -> Option<()> {
    let len = bound::<N>(len)?;
    let to = message.as_mut_ptr().cast();
    // SAFETY: the helper writes `len` bytes, at most those of the message; the context is the kernel's.
    (unsafe { bpf_xdp_load_bytes(ctx.ctx, at as u32, to, len) } == 0).then_some(())
}

/// Writes `len` bytes of the message, 1 to `N`, to the frame at offset `at`.
#[inline(always)]
pub fn store<const N: usize>(
    ctx: &XdpContext,
    at: usize,
    message: &[u8; N],
    len: usize,
) -> Option<()> {
    let len = bound::<N>(len)?;
    let from = message.as_ptr().cast_mut().cast();
    // SAFETY: the helper reads `len` bytes, at most those of the message; the context is the kernel's.
    (unsafe { bpf_xdp_store_bytes(ctx.ctx, at as u32, from, len) } == 0).then_some(())
}

/// Sum of the message's first `len` bytes as 16-bit words in native order. The bytes up to the next multiple of four must
/// be zero.
#[inline(always)]
pub fn sum<const N: usize>(message: &[u8; N], len: usize) -> u64 {
    let Some(len) = bound::<N>(len.next_multiple_of(4)) else {
        return 0;
    };
    let (nothing, from) = (core::ptr::null_mut(), message.as_ptr().cast_mut().cast());
    // SAFETY: the helper reads `len` bytes, at most those of the message.
    unsafe { bpf_csum_diff(nothing, 0, from, len, 0) as u64 & 0xffff_ffff }
}

/// A length of 1 to `N`, as the verifier can see. The compiler may know these bounds already, and would omit the comparison
/// that tells the verifier. That of Linux 6.1 learns nothing from `len != 0`, so the masked value is one less; 0 becomes more
/// than `N`.
#[inline(always)]
fn bound<const N: usize>(len: usize) -> Option<u32> {
    let mask = const { (N as u64 + 1).next_power_of_two() - 1 };
    let len = (opaque((len as u64).wrapping_sub(1)) & mask) + 1;
    if len > N as u64 {
        return None;
    }
    // Hidden again: to the verifier of Linux 6.1 a copy from before the comparison has no lower bound.
    Some(opaque(len) as u32)
}
