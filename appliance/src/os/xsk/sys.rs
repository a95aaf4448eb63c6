//! System calls on an open AF_XDP socket that nix does not wrap, each as a safe function.

use super::{Mode, Statistics};
use nix::errno::Errno;
use nix::libc::{c_int, c_void, socklen_t};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;
use xdnsd_core::limits::{CHUNK_SIZE, TX_RING};

/// The kernel frees a closed socket's hold on its queue in a work queue; until then bind answers EBUSY.
pub const BIND_TRIES: u32 = 50;
/// Between two tries.
pub const BIND_PAUSE: Duration = Duration::from_millis(10);
/// Linux 6.17: how many descriptors one wake-up may send in copy mode, 32 otherwise. Not in libc yet.
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;

/// Plain integers, for which any bytes from the kernel, zero among them, are a value.
///
/// # Safety
/// The type has no padding that matters, no references and no invalid bit patterns.
pub unsafe trait Plain: Copy {}
// SAFETY: an integer.
unsafe impl Plain for u32 {}
// SAFETY: a C struct of integers.
unsafe impl Plain for libc::xdp_statistics {}
// SAFETY: a C struct of integers.
unsafe impl Plain for libc::xdp_mmap_offsets {}

/// Reads an option of level SOL_XDP. An older kernel may fill less than all of it: the rest is zero.
pub fn option<T: Plain>(fd: BorrowedFd<'_>, name: c_int) -> nix::Result<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    let mut len = size_of::<T>() as socklen_t;
    // SAFETY: value and len are valid for writes during the call, and len says how long value is.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_XDP,
            name,
            value.as_mut_ptr().cast::<c_void>(),
            &mut len,
        )
    };
    Errno::result(result)?;
    // SAFETY: zeroed above and overwritten by the kernel at most; `Plain` makes any bytes a value.
    Ok(unsafe { value.assume_init() })
}

/// Sets an option that is one number.
pub fn set_number(fd: BorrowedFd<'_>, level: c_int, name: c_int, number: u32) -> nix::Result<()> {
    let value = (&raw const number).cast::<c_void>();
    // SAFETY: value points to 4 bytes that live through the call, and the length says so. An option that is one number
    // cannot hand memory to the kernel.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            value,
            size_of::<u32>() as socklen_t,
        )
    };
    Errno::result(result).map(drop)
}

/// The copy mode that the kernel chose.
pub fn mode(fd: BorrowedFd<'_>) -> nix::Result<Mode> {
    let flags: u32 = option(fd, libc::XDP_OPTIONS)?;
    Ok(if flags & libc::XDP_OPTIONS_ZEROCOPY == 0 {
        Mode::Copy
    } else {
        Mode::ZeroCopy
    })
}

/// The kernel's counters.
pub fn statistics(fd: BorrowedFd<'_>) -> nix::Result<Statistics> {
    let raw: libc::xdp_statistics = option(fd, libc::XDP_STATISTICS)?;
    Ok(Statistics {
        rx_dropped: raw.rx_dropped,
        rx_invalid_descs: raw.rx_invalid_descs,
        tx_invalid_descs: raw.tx_invalid_descs,
        rx_ring_full: raw.rx_ring_full,
        rx_fill_ring_empty_descs: raw.rx_fill_ring_empty_descs,
        tx_ring_empty_descs: raw.tx_ring_empty_descs,
    })
}

/// Wakes the kernel's transmit side. Without MSG_DONTWAIT the kernel answers EOPNOTSUPP.
pub fn wake_tx(fd: BorrowedFd<'_>) -> nix::Result<()> {
    // SAFETY: no buffer and no address are passed.
    let sent = unsafe {
        libc::sendto(
            fd.as_raw_fd(),
            std::ptr::null(),
            0,
            libc::MSG_DONTWAIT,
            std::ptr::null(),
            0,
        )
    };
    Errno::result(sent).map(drop)
}

/// Wakes the driver's receive side. What it answers does not matter: received frames are in the RX ring or not.
pub fn wake_rx(fd: BorrowedFd<'_>) {
    // SAFETY: no buffer and no address are passed.
    let _ = unsafe {
        libc::recvfrom(
            fd.as_raw_fd(),
            std::ptr::null_mut(),
            0,
            libc::MSG_DONTWAIT,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
        )
    };
}

/// The UMEM is locked memory. Best effort: with CAP_IPC_LOCK no limit counts, without any right the registration fails
/// and says so.
pub fn raise_memlock() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_MEMLOCK) {
        let unlimited = libc::RLIM_INFINITY;
        if soft != unlimited && setrlimit(Resource::RLIMIT_MEMLOCK, unlimited, unlimited).is_err() {
            // Without CAP_SYS_RESOURCE the hard limit is all there is; registering tells if that is too little.
            let _ = setrlimit(Resource::RLIMIT_MEMLOCK, hard, hard);
        }
    }
}

/// Fewer wake-ups for a full TX ring; every one of these may fail without harm, so no result is looked at.
pub fn tune(fd: BorrowedFd<'_>) {
    let _ = set_number(fd, libc::SOL_XDP, XDP_MAX_TX_SKB_BUDGET, TX_RING as u32);
    // In copy mode each frame in flight is charged to the send buffer: room for a whole ring of them. The kernel
    // doubles the number. The first option needs CAP_NET_ADMIN, the second is clamped to net.core.wmem_max.
    let bytes = (TX_RING * CHUNK_SIZE) as u32;
    if set_number(fd, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, bytes).is_err() {
        let _ = set_number(fd, libc::SOL_SOCKET, libc::SO_SNDBUF, bytes);
    }
}
