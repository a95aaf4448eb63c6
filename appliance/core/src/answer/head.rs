//! An answer: its records, and a head with all other properties.

use crate::dns::edns::ede;
use crate::dns::rcode;
use crate::time::Instant;

/// An answer as it is cached and rendered.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// Properties of the answer besides its records.
    pub head: &'a Head,
    /// The message behind the question: records with their original TTLs, without OPT. Compression pointers count from the
    /// message's first byte (header of 12 bytes, then the question).
    pub body: &'a [u8],
}

impl<'a> Answer<'a> {
    /// An answer without records.
    #[must_use]
    pub const fn bare(head: &'a Head) -> Self {
        Self { head, body: &[] }
    }
}

/// Properties of an answer besides its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// RCODE (RFC 1035 section 4.1.1). Valid values: 0 to 15.
    pub rcode: u8,
    /// AD (RFC 4035 section 3.2.3).
    pub authentic_data: bool,
    /// AA (RFC 1035 section 4.1.1).
    pub authoritative: bool,
    /// Number of records in the answer section.
    pub answers: u16,
    /// Number of records in the authority section. Additional records are not kept.
    pub authorities: u16,
    /// Time for which the answer is fresh, from `stored` on, in seconds. 0: it is for the clients that wait, and not
    /// cached.
    pub ttl_secs: u32,
    /// Time at which it was stored.
    pub stored: Instant,
    /// True if it comes from a snapshot with unknown age: always stale.
    pub restored: bool,
    /// True if DNS64 had a part in it: its addresses were made of IPv4 ones, or there were none of those either; or its name
    /// led to that of an IPv4 address.
    pub translated: bool,
    /// Info code of an Extended DNS Error (RFC 8914): an assigned one, or [`ede::NONE`].
    pub ede: u16,
    /// Generation of the policy that last approved it; see [`Head::OF_SETS`]. 0: it comes from a snapshot, or was stored under
    /// `Policy::OPEN`.
    pub generation: u32,
    /// Index of the group of upstreams that gave it, or [`Head::MANY_GROUPS`].
    pub group: u8,
    /// Age at the last failed refresh, in seconds; 0 if none failed.
    pub failed_secs: u32,
}

// No byte is left. One more would make it 40 bytes long, and each slot of the cache eight bytes longer.
const _: () = assert!(size_of::<Head>() == 32);

impl Head {
    /// Value of `group` for the servers of names without a route.
    pub const DEFAULT_GROUP: u8 = 0;
    /// Value of `group` if there are several.
    pub const MANY_GROUPS: u8 = u8::MAX;

    /// Changes the generation of an answer whose addresses go into sets: policy has approved it, and is asked at each hit which
    /// sets. No generation is another's with this bit changed before 2^31 reloads.
    pub const OF_SETS: u32 = 1 << 31;

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
        translated: false,
        ede: 0,
        generation: 0,
        group: 0,
        failed_secs: 0,
    };

    /// True if it is a mark in place of an answer: of an answer that is longer than a slot, or, under a key for any type,
    /// of a name that exists. No other cached answer is NOERROR without records.
    #[must_use]
    pub const fn is_mark(&self) -> bool {
        self.rcode == rcode::NOERROR && self.answers == 0 && self.authorities == 0
    }

    /// Time at which the answer stops being fresh.
    #[must_use]
    pub const fn expires(&self) -> Instant {
        if self.restored {
            self.stored
        } else {
            self.stored.add_secs(self.ttl_secs)
        }
    }
}
