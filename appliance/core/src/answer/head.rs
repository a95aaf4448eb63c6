//! An answer: what is known of it besides its records, and these.

use crate::dns::edns::ede;
use crate::dns::rcode;
use crate::time::Instant;

/// An answer as it is kept and given: what is known of it, and its records.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// What is known of it.
    pub head: &'a Head,
    /// The message after the question: records with their original TTLs, without OPT, their compression pointers
    /// counted from the message's first byte (header 12, then the question).
    pub body: &'a [u8],
}

impl<'a> Answer<'a> {
    /// An answer without records.
    #[must_use]
    pub const fn bare(head: &'a Head) -> Self {
        Self { head, body: &[] }
    }
}

/// What is known of an answer besides its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// RCODE (RFC 1035 section 4.1.1). Valid values: 0 to 15.
    pub rcode: u8,
    /// AD (RFC 4035 section 3.2.3).
    pub authentic_data: bool,
    /// AA (RFC 1035 section 4.1.1).
    pub authoritative: bool,
    /// Records of the answer section.
    pub answers: u16,
    /// Records of the authority section. Of the additional section none is kept.
    pub authorities: u16,
    /// How long the answer is fresh, from `stored` on. 0: it is for those who wait, and not kept.
    pub ttl_secs: u32,
    /// When it was stored.
    pub stored: Instant,
    /// It comes from a snapshot and its age is unknown: always stale.
    pub restored: bool,
    /// Info code of an Extended DNS Error (RFC 8914). Valid values: assigned ones, or [`ede::NONE`].
    pub ede: u16,
    /// The generation of the policy that last approved it. 0: it came from a snapshot, or under `Policy::OPEN`.
    pub generation: u32,
    /// The group of upstreams that gave it. Valid values: indices of groups, or [`Head::ANY_GROUP`].
    pub group: u8,
    /// Age in seconds at the last failed refresh. 0: none failed.
    pub failed_secs: u32,
}

// One byte is left. With two more it is 40 bytes long, and each slot of the cache eight longer.
const _: () = assert!(size_of::<Head>() == 32);

impl Head {
    /// The value of `group` where nobody knows: an answer from a snapshot.
    pub const ANY_GROUP: u8 = u8::MAX;

    /// NOERROR without records or extended error.
    pub const EMPTY: Self = Self {
        ede: ede::NONE,
        ..Self::ZERO
    };

    /// All zero bits, so that a table of them needs no place in the executable.
    pub const ZERO: Self = Self {
        rcode: 0,
        authentic_data: false,
        authoritative: false,
        answers: 0,
        authorities: 0,
        ttl_secs: 0,
        stored: Instant::from_millis(0),
        restored: false,
        ede: 0,
        generation: 0,
        group: 0,
        failed_secs: 0,
    };

    /// Whether it is a mark in place of an answer: of one that is longer than a slot, or of a name that exists where its key is for any
    /// type. Nothing else that is kept says NOERROR without records.
    #[must_use]
    pub const fn is_mark(&self) -> bool {
        self.rcode == rcode::NOERROR && self.answers == 0 && self.authorities == 0
    }

    /// When the answer stopped being fresh, or will.
    #[must_use]
    pub const fn expires(&self) -> Instant {
        if self.restored {
            self.stored
        } else {
            self.stored.add_secs(self.ttl_secs)
        }
    }
}
