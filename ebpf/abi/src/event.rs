//! The shield's log: the record of a frame, in a BPF ring buffer.

use crate::Reason;

/// Number of words of a record.
///
/// ```text
///  0      1                  2                   3
///  | time | reason, ifindex  | len, bytes of head | head, as it is behind the verdict ...
/// ```
/// Each pair is in one word, the first in its lower half, in the machine's byte order. Time is in nanoseconds of
/// CLOCK_MONOTONIC.
pub const WORDS: usize = HEAD + HEAD_BYTES_MAX / size_of::<u64>();
/// Word at which the frame's head begins.
pub const HEAD: usize = 3;
/// Most bytes of a frame's head: Ethernet, two tags, IPv6, ports, rounded up.
pub const HEAD_BYTES_MAX: usize = 72;
/// Possible lengths of the head in bytes: the longest one that the frame has.
pub const HEAD_BYTES: [usize; 4] = [HEAD_BYTES_MAX, 58, 42, 34];
/// Size of the ring in bytes. With the kernel's own pages it takes 16 KiB.
pub const RING_BYTES: u32 = 4096;

/// Indices of a processor's data for the program that writes records.
pub mod logged {
    /// Verdict on the frame, and its action.
    pub const VERDICT: u32 = 0;
    /// Number of records that had no room.
    pub const LOST: u32 = 1;
    /// Number of entries.
    pub const COUNT: u32 = 2;
}

/// Value of [`crate::shield::LOG`] that logs every frame; half of it logs every second one. 0: none.
pub const ALL: u32 = u32::MAX;

impl Reason {
    /// True if frames with this reason are logged: those that the shield has answered or dropped, and the first segments of
    /// connections that it passed.
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
                | Self::DropAccess
                | Self::DropForward
        )
    }

    /// True if the frame now holds our answer to the client.
    #[must_use]
    pub const fn is_answer(self) -> bool {
        matches!(
            self,
            Self::SynCookie | Self::ForwardCookie | Self::ForwardProof
        )
    }
}
