//! What is known of an answer besides its records.

use crate::dns::edns::ede;
use crate::time::Instant;

/// What is known of an answer besides its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// RCODE (RFC 1035 section 4.1.1).
    pub rcode: u8,
    /// AD (RFC 4035 section 3.2.3).
    pub authentic_data: bool,
    /// AA (RFC 1035 section 4.1.1).
    pub authoritative: bool,
    /// ANCOUNT.
    pub answers: u16,
    /// NSCOUNT.
    pub authorities: u16,
    /// ARCOUNT, without OPT.
    pub additionals: u16,
    /// How long the answer is fresh, from `stored` on.
    pub ttl_secs: u32,
    /// When it was stored.
    pub stored: Instant,
    /// It comes from a snapshot and its age is unknown: always stale.
    pub restored: bool,
    /// Info code of an Extended DNS Error (RFC 8914); [`ede::NONE`]: none.
    pub ede: u16,
    /// The policy that last found nothing in it to withhold, by its [number](crate::policy::Policy::generation).
    pub generation: u16,
    /// The group of upstreams that gave it; [`Head::ANY_GROUP`] where that is not known.
    pub group: u8,
    /// How old it was, in seconds, when it was last asked for anew in vain. 0: it never was.
    pub failed_secs: u32,
}

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
        additionals: 0,
        ttl_secs: 0,
        stored: Instant::from_millis(0),
        restored: false,
        ede: 0,
        generation: 0,
        group: 0,
        failed_secs: 0,
    };

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
