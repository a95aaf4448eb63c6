//! The fence around AF_XDP: all unsafe code about it is here, behind a safe interface.
//!
//! A worker's batch:
//!
//! ```text
//!  receive -> for each frame: transmit (the reply, in the query's own frame) or release -> flush
//!             for each reply made later: take_free, transmit                            -> flush
//! ```
//!
//! A worker has one UMEM, whose chunks its [`Pool`] tracks, and several sockets on it, each with its rings. Another thread opens
//! and closes them by an [`Opener`].
//!
//! There are two backends with this interface. Ours over libc (`socket.rs`, the default) keeps its UMEM in a static. The other
//! one (`--features afxdp`) uses the crate of that name, and has one socket on each UMEM. Exactly one is compiled in; calls are
//! direct.
//!
//! It never reads a frame's content, blocks only in an [`Opener`], and never allocates after that.

mod error;
mod prefetch;
mod shape;
mod slot;
mod stats;
mod sys;

#[cfg(not(feature = "afxdp"))]
mod mapping;
#[cfg(not(feature = "afxdp"))]
mod opener;
#[cfg(not(feature = "afxdp"))]
mod pool;
#[cfg(not(feature = "afxdp"))]
mod ring;
#[cfg(not(feature = "afxdp"))]
mod setup;
#[cfg(not(feature = "afxdp"))]
mod socket;
#[cfg(not(feature = "afxdp"))]
mod umem;
#[cfg(not(feature = "afxdp"))]
pub use {
    opener::Opener,
    pool::{Closed, Pool},
    shape::SHARERS_MAX,
    socket::Xsk,
    umem::Frame,
};

#[cfg(feature = "afxdp")]
mod afxdp;
#[cfg(feature = "afxdp")]
pub use afxdp::{Closed, Frame, Opener, Pool, SHARERS_MAX, Xsk};

pub use error::{Kick, SetupError, SetupStep};
pub use prefetch::prefetch;
pub use shape::Shape;
pub use stats::{Census, SocketCounters, Statistics};
pub use sys::raise_memlock;

use std::{fmt, io};
use xdnsd_core::limits::BATCH;

/// Frames that a worker is processing.
pub type Batch = heapless::Vec<Frame, BATCH>;

/// Makes packet memory for so many workers, at most `limits::WORKERS`, instead of the default. Call it once, before the first
/// socket.
///
/// # Errors
/// There is not as much memory.
pub fn reserve(workers: usize) -> io::Result<()> {
    slot::set_count(workers);
    #[cfg(not(feature = "afxdp"))]
    umem::map(slot::count())?;
    Ok(())
}

/// Parameters of a socket.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// Name of the interface.
    pub interface: &'a str,
    /// RX queue.
    pub queue: u32,
    /// Bind mode.
    pub mode: BindMode,
}

/// Requested bind mode. Use `Copy` with a program attached in generic (SKB) mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BindMode {
    /// The kernel copies frames into the UMEM. Works with every driver.
    #[default]
    Copy,
    /// The driver receives into the UMEM, or opening fails.
    ZeroCopy,
    /// Zero copy if the driver has it, else copy.
    Auto,
}

impl fmt::Display for BindMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Copy => "copy",
            Self::ZeroCopy => "zero-copy",
            Self::Auto => "auto",
        })
    }
}

/// Copy mode that the kernel chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyMode {
    /// The kernel copies.
    Copy,
    /// The driver receives into the UMEM.
    ZeroCopy,
}

impl fmt::Display for CopyMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Copy => "copy",
            Self::ZeroCopy => "zero-copy",
        })
    }
}
