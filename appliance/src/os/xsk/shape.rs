//! Sizes of a socket's rings: the more sockets share a UMEM, the smaller.
//!
//! ```text
//!  sockets of a worker       1     2     4     8    16       (the next power of two)
//!  fill and RX ring        512   256   128   128   128       entries of each
//!  TX ring                 256   128    64    64    64
//!  completion ring         256   256   128   128   128
//!  chunks of its own       512   256   128    32    16       in its fill ring while no frames arrive
//! ```
//! Up to four sockets, the rings together are as large as those of one, and there are chunks for all of their entries. Beyond, a
//! ring has more room than chunks: half of the chunks are divided evenly, the other half goes where frames arrive.

use xdnsd_core::limits::{RX_RING, SOCKETS, TX_RING};

/// Smaller rings save nothing: the kernel allocates whole pages.
const RX_LEAST: usize = least(RX_RING, 128);
const TX_LEAST: usize = least(TX_RING, 64);

/// Most sockets that share one UMEM.
pub const SHARERS_MAX: usize = SOCKETS.next_power_of_two();

/// Division of a UMEM: the entries of each socket's rings, and the chunks guaranteed to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Most sockets open at once: a power of two.
    pub sharers: usize,
    /// Entries of the fill ring and of the RX ring.
    pub rx: usize,
    /// Entries of the TX ring.
    pub tx: usize,
    /// Entries of the completion ring, which bounds the frames not sent yet.
    pub completion: usize,
    /// Chunks guaranteed to the socket.
    pub own: usize,
}

impl Shape {
    /// The smallest rings of a socket.
    pub const LEAST: Self = Self::of(SHARERS_MAX);

    /// The division for so many sockets, a power of two.
    #[must_use]
    pub const fn of(sharers: usize) -> Self {
        let even = RX_RING / sharers;
        let (rx, tx) = (most(even, RX_LEAST), most(TX_RING / sharers, TX_LEAST));
        Self {
            sharers,
            rx,
            tx,
            completion: if sharers == 1 { tx } else { 2 * tx },
            own: if even >= rx { rx } else { most(even / 2, 1) },
        }
    }
}

const fn least(one: usize, other: usize) -> usize {
    if one < other { one } else { other }
}

const fn most(one: usize, other: usize) -> usize {
    if one > other { one } else { other }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_chunks_for_what_sockets_can_rely_on_and_rings_for_all_chunks() {
        let mut sharers = 1;
        while sharers <= SHARERS_MAX {
            let Shape {
                rx,
                tx,
                completion,
                own,
                ..
            } = Shape::of(sharers);
            assert!(own * sharers <= RX_RING.max(sharers), "{sharers}");
            assert!(own <= rx && own > 0 && completion >= tx, "{sharers}");
            for ring in [rx, tx, completion] {
                assert!(ring.is_power_of_two(), "{sharers}: {ring}");
            }
            sharers *= 2;
        }
    }

    #[test]
    fn the_fewer_share_the_larger_are_the_rings() {
        let alone = Shape::of(1);
        assert_eq!((alone.rx, alone.tx), (RX_RING, TX_RING));
        assert_eq!((alone.completion, alone.own), (TX_RING, RX_RING));
        let of = |sharers| (Shape::of(sharers).rx, Shape::of(sharers).own);
        if RX_RING == 512 {
            assert_eq!(
                [2, 4, 8, 16].map(of),
                [(256, 256), (128, 128), (128, 32), (128, 16)]
            );
        }
    }
}
