//! What is counted about a socket: where its chunks are, what passed through it, what the kernel says.

use xdnsd_core::limits::CHUNKS_PER_QUEUE;

/// Where the chunks of one UMEM are at this moment. The kernel moves chunks while we count, so a chunk may be named one
/// station early or late; none is counted twice or left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// In the fill ring.
    pub fill: u32,
    /// Taken from the fill ring, not yet in the RX ring.
    pub kernel_rx: u32,
    /// In the RX ring.
    pub rx: u32,
    /// In the worker's hands.
    pub worker: u32,
    /// In the TX ring.
    pub tx: u32,
    /// Taken from the TX ring, not yet in the completion ring.
    pub kernel_tx: u32,
    /// In the completion ring.
    pub completion: u32,
    /// Nowhere: waiting for the fill ring, or for a reply made later.
    pub free: u32,
}

impl Census {
    /// All chunks: always [`CHUNKS_PER_QUEUE`].
    #[must_use]
    pub fn total(&self) -> u32 {
        self.fill
            + self.kernel_rx
            + self.rx
            + self.worker
            + self.tx
            + self.kernel_tx
            + self.completion
            + self.free
    }

    /// Whether no chunk is missing and none is there twice.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.total() as usize == CHUNKS_PER_QUEUE
    }

    /// Every place with its metric name.
    #[must_use]
    pub fn named(&self) -> [(&'static str, u32); 8] {
        [
            ("fill", self.fill),
            ("kernel_rx", self.kernel_rx),
            ("rx", self.rx),
            ("worker", self.worker),
            ("tx", self.tx),
            ("kernel_tx", self.kernel_tx),
            ("completion", self.completion),
            ("free", self.free),
        ]
    }
}

/// What passed through the socket since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames handed to the worker.
    pub received: u64,
    /// Frames put into the TX ring.
    pub transmitted: u64,
    /// Frames that the kernel has done with.
    pub completed: u64,
    /// System calls made to wake the kernel's transmit side.
    pub kicks: u64,
    /// Flushes after which frames stayed in the TX ring because the kernel took no more.
    pub again: u64,
    /// Frames that the TX ring had no room for.
    pub tx_full: u64,
    /// Entries from the kernel that name a chunk it does not have, or bytes beyond a chunk.
    pub stray: u64,
    /// Frames dropped by mistake and taken back.
    pub dropped: u64,
}

impl Counters {
    /// Every counter with its metric name.
    #[must_use]
    pub fn named(&self) -> [(&'static str, u64); 8] {
        [
            ("received", self.received),
            ("transmitted", self.transmitted),
            ("completed", self.completed),
            ("kicks", self.kicks),
            ("again", self.again),
            ("tx_full", self.tx_full),
            ("stray", self.stray),
            ("dropped", self.dropped),
        ]
    }
}

/// The kernel's own counters of the socket (`XDP_STATISTICS`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Frames dropped for any other reason than those below; too long for a chunk, mostly.
    pub rx_dropped: u64,
    /// Frames dropped because of an invalid fill ring entry.
    pub rx_invalid_descs: u64,
    /// TX descriptors that the kernel refused.
    pub tx_invalid_descs: u64,
    /// Frames dropped because the RX ring was full.
    pub rx_ring_full: u64,
    /// Times the fill ring had no chunk for a frame.
    pub rx_fill_ring_empty_descs: u64,
    /// Times the kernel looked at an empty TX ring.
    pub tx_ring_empty_descs: u64,
}

impl Statistics {
    /// Every counter with its metric name.
    #[must_use]
    pub fn named(&self) -> [(&'static str, u64); 6] {
        [
            ("rx_dropped", self.rx_dropped),
            ("rx_invalid_descs", self.rx_invalid_descs),
            ("tx_invalid_descs", self.tx_invalid_descs),
            ("rx_ring_full", self.rx_ring_full),
            ("rx_fill_ring_empty_descs", self.rx_fill_ring_empty_descs),
            ("tx_ring_empty_descs", self.tx_ring_empty_descs),
        ]
    }
}
