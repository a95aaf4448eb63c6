//! What a reader of the shield's log is told of a frame: a record in a ring of the kernel's.

use crate::Reason;

/// Words of a record.
///
/// ```text
///  0      1                  2                   3
///  | time | reason, ifindex  | len, bytes of head | head, as it is behind the verdict ...
/// ```
/// Each pair in one word, the first in its lower half, in the byte order of the machine. Time is CLOCK_MONOTONIC's in nanoseconds.
pub const WORDS: usize = HEAD + HEAD_BYTES_MAX / size_of::<u64>();
/// Where the frame's head begins.
pub const HEAD: usize = 3;
/// Bytes of it at most: Ethernet, two tags, IPv6, ports, rounded up.
pub const HEAD_BYTES_MAX: usize = 72;
/// Bytes of it: as many as the frame has, of these.
pub const HEAD_BYTES: [usize; 4] = [HEAD_BYTES_MAX, 58, 42, 34];
/// Bytes of the ring. With what the kernel keeps beside it that is 16 KiB.
pub const RING_BYTES: u32 = 4096;

/// Places of what a processor has on the way to the program that writes records.
pub mod logged {
    /// The verdict, and what becomes of the frame.
    pub const VERDICT: u32 = 0;
    /// How many records had no room.
    pub const LOST: u32 = 1;
    /// How many there are.
    pub const COUNT: u32 = 2;
}

/// Every frame is told of, where the word of [`crate::shield::LOG`] is this; of half of it every second one. 0: none.
pub const ALL: u32 = u32::MAX;

impl Reason {
    /// Whether a reader of the log is told of it: what the shield has done, and with a connection's first segments what it has not.
    #[inline(always)]
    #[must_use]
    pub const fn is_told(self) -> bool {
        matches!(
            self,
            Self::SynCookie
                | Self::PassNoCookie
                | Self::PassNoRoom
                | Self::PassCookie
                | Self::PassVerified
                | Self::PassStray
                | Self::ForwardCookie
                | Self::ForwardProof
                | Self::ForwardVerified
                | Self::DropStray
                | Self::DropReset
                | Self::DropResponse
                | Self::DropSource
                | Self::DropTruncated
                | Self::DropDenied
                | Self::DropForward
        )
    }

    /// Whether the frame is the answer by now, from us to the client.
    #[must_use]
    pub const fn is_answer(self) -> bool {
        matches!(
            self,
            Self::SynCookie | Self::ForwardCookie | Self::ForwardProof
        )
    }
}
