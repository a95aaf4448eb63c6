//! The shield's log: the record of a frame, in a BPF ring buffer.

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

/// The word of [`crate::shield::LOG`] that has every frame logged; with half of it every second one is. 0: none is.
pub const ALL: u32 = u32::MAX;

impl Reason {
    /// Whether it is logged: frames that the shield has answered or dropped, and the first segments of connections that it passed.
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

    /// Whether the frame holds the answer by now, from us to the client.
    #[must_use]
    pub const fn is_answer(self) -> bool {
        matches!(
            self,
            Self::SynCookie | Self::ForwardCookie | Self::ForwardProof
        )
    }
}
