//! System calls on an open AF_XDP socket, each as a function named for its purpose.

use super::{CopyMode, Statistics};
use crate::os::keeper;
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::sockopt::{SndBuf, SndBufForce};
use nix::sys::socket::{MsgFlags, recv, send, setsockopt};
use nix::{setsockopt_impl, sockopt_impl};
use rustix::net::sockopt;
use rustix::net::xdp::XdpOptionsFlags;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;
use xdnsd_core::limits::CHUNK_SIZE;

/// Tries to bind: the kernel releases a closed socket's queue in a work queue; until then bind returns EBUSY.
pub const BIND_TRIES: u32 = 50;
/// Pause between two tries.
pub const BIND_PAUSE: Duration = Duration::from_millis(10);
/// Linux 6.17: most descriptors that one wake-up sends in copy mode, 32 otherwise. Not in libc yet.
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;

sockopt_impl!(
    /// Most descriptors that one wake-up sends in copy mode.
    MaxTxBudget,
    SetOnly,
    libc::SOL_XDP,
    XDP_MAX_TX_SKB_BUDGET,
    u32
);

/// Converts rustix's errno to nix's: the same numbers.
pub const fn errno(errno: rustix::io::Errno) -> Errno {
    Errno::from_raw(errno.raw_os_error())
}

/// The copy mode that the kernel chose.
pub fn mode(fd: BorrowedFd<'_>) -> nix::Result<CopyMode> {
    let flags = sockopt::xdp_options(fd).map_err(errno)?;
    Ok(if flags.contains(XdpOptionsFlags::XDP_OPTIONS_ZEROCOPY) {
        CopyMode::ZeroCopy
    } else {
        CopyMode::Copy
    })
}

/// The kernel's counters. Those that an older kernel lacks are 0.
pub fn statistics(fd: BorrowedFd<'_>) -> nix::Result<Statistics> {
    let told = sockopt::xdp_statistics(fd).map_err(errno)?;
    Ok(Statistics {
        rx_dropped: told.rx_dropped,
        rx_invalid_descs: told.rx_invalid_descs,
        tx_invalid_descs: told.tx_invalid_descs,
        rx_ring_full: told.rx_ring_full.unwrap_or(0),
        rx_fill_ring_empty_descs: told.rx_fill_ring_empty_descs.unwrap_or(0),
        tx_ring_empty_descs: told.tx_ring_empty_descs.unwrap_or(0),
    })
}

/// Wakes the kernel's transmit side. Without MSG_DONTWAIT the kernel returns EOPNOTSUPP.
pub fn wake_tx(fd: BorrowedFd<'_>) -> nix::Result<()> {
    send(fd.as_raw_fd(), &[], MsgFlags::MSG_DONTWAIT).map(drop)
}

/// Wakes the driver's receive side. The result is irrelevant: received frames show in the RX ring.
pub fn wake_rx(fd: BorrowedFd<'_>) {
    let _ = recv(fd.as_raw_fd(), &mut [], MsgFlags::MSG_DONTWAIT);
}

/// Raises the limit of locked memory, for the UMEM. Best effort: with CAP_IPC_LOCK the limit does not apply; otherwise the
/// registration fails and reports it.
pub fn raise_memlock() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_MEMLOCK) {
        let unlimited = libc::RLIM_INFINITY;
        if soft != unlimited && setrlimit(Resource::RLIMIT_MEMLOCK, unlimited, unlimited).is_err() {
            // Without CAP_SYS_RESOURCE the hard limit is the most; the registration reports if that is too little.
            let _ = setrlimit(Resource::RLIMIT_MEMLOCK, hard, hard);
        }
    }
}

/// Reduces wake-ups for a full TX ring of `entries`, the most that the kernel takes. Each option may fail without harm, so
/// results are ignored.
pub fn tune(fd: BorrowedFd<'_>, entries: usize) {
    let _ = setsockopt(&fd, MaxTxBudget, &(entries as u32));
    // In copy mode each frame in flight is charged to the send buffer: room for two such rings, since the kernel doubles the
    // number. The first option needs CAP_NET_ADMIN, the second is clamped to net.core.wmem_max.
    let bytes = entries * CHUNK_SIZE;
    if keeper::is_there() {
        // It has given the socket the largest already.
        return;
    }
    if setsockopt(&fd, SndBufForce, &bytes).is_err() {
        let _ = setsockopt(&fd, SndBuf, &bytes);
    }
}
