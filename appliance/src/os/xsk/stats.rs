//! Statistics of a socket: where its chunks are, its own counters, and the kernel's.

use xdnsd_core::limits::CHUNKS_PER_QUEUE;

/// Makes a structure whose fields are also values with a metric name, the field's, and its help, the doc comment.
macro_rules! named {
    (
        $(#[doc = $about:literal])+
        pub struct $name:ident: $value:ident {
            $($(#[doc = $doc:literal])+ $field:ident,)*
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name { $($(#[doc = $doc])+ pub $field: $value,)* }

        impl $name {
            /// Number of values.
            pub const COUNT: usize = [$(stringify!($field)),*].len();

            /// Metric name, help and value of each.
            #[must_use]
            pub const fn named(&self) -> [(&'static str, &'static str, $value); Self::COUNT] {
                [$((stringify!($field), concat!($($doc),+), self.$field),)*]
            }
        }
    };
}

named! {
    /// Where the chunks of one UMEM are at this moment. The kernel moves chunks while we count, so a chunk may be named one
    /// station early or late; none is counted twice or left out.
    pub struct Census: u32 {
        /// In the fill ring.
        fill,
        /// Taken from the fill ring, not yet in the RX ring.
        kernel_rx,
        /// In the RX ring.
        rx,
        /// In the worker's hands.
        worker,
        /// In the TX ring.
        tx,
        /// Taken from the TX ring, not yet in the completion ring.
        kernel_tx,
        /// In the completion ring.
        completion,
        /// Nowhere: waiting for the fill ring, or for a reply made later.
        free,
    }
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

    /// True if no chunk is missing and none is counted twice.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.total() as usize == CHUNKS_PER_QUEUE
    }
}

named! {
    /// What passed through the socket since it was opened.
    pub struct SocketCounters: u64 {
        /// Frames handed to the worker.
        received,
        /// Frames put into the TX ring.
        transmitted,
        /// Frames that the kernel has done with.
        completed,
        /// System calls made to wake the kernel's transmit side.
        kicks,
        /// Flushes after which frames stayed in the TX ring because the kernel took no more.
        again,
        /// Frames that the TX ring had no room for.
        tx_full,
        /// Entries from the kernel that name a chunk it does not have, or bytes beyond a chunk.
        stray,
        /// Frames dropped by mistake and taken back.
        dropped,
    }
}

named! {
    /// The kernel's own counters of the socket (`XDP_STATISTICS`).
    pub struct Statistics: u64 {
        /// Frames dropped for any other reason than those below; too long for a chunk, mostly.
        rx_dropped,
        /// Frames dropped because of an invalid fill ring entry.
        rx_invalid_descs,
        /// TX descriptors that the kernel refused.
        tx_invalid_descs,
        /// Frames dropped because the RX ring was full.
        rx_ring_full,
        /// Times the fill ring had no chunk for a frame.
        rx_fill_ring_empty_descs,
        /// Times the kernel looked at an empty TX ring.
        tx_ring_empty_descs,
    }
}
