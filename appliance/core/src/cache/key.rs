//! What an answer is found by, and its hash.

use crate::hash::NameHash;
use crate::limits::CACHE_SHARDS;

/// The question that an answer belongs to. QCLASS is always IN.
///
/// DO and CD are part of it: an answer with signatures is another answer (RFC 4035 section 3.2.1), and one that
/// upstream did not validate must not reach a client that relies on it (section 4.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key<'a> {
    /// QNAME in wire form with its root byte, ASCII letters in lower case (RFC 4343), not compressed.
    pub name: &'a [u8],
    /// QTYPE.
    pub qtype: u16,
    /// DO: the client wants DNSSEC records (RFC 3225).
    pub dnssec_ok: bool,
    /// CD: the client validates by itself (RFC 4035).
    pub checking_disabled: bool,
}

/// The QTYPE under which it is kept whether a name exists, whatever is asked for. RFC 6895 section 3.1 reserves it.
pub const NO_NAME: u16 = 0;

/// The keyed hash of a name, from which those of all its keys are made. SipHash-1-3 (the first half of 128 bits) under a
/// seed from the system's generator: names are chosen by attackers, who must not know which of them meet in one set.
#[must_use]
pub fn name_hash(name: &[u8], seed: &[u8; 16]) -> u64 {
    let mut hash = NameHash::new(seed);
    hash.push(name);
    hash.hash().first()
}

impl<'a> Key<'a> {
    /// The hash under this seed.
    #[must_use]
    pub fn hash(&self, seed: &[u8; 16]) -> u64 {
        self.hash_under(name_hash(self.name, seed))
    }

    /// The hash, where that of the name is known. All keys of a name are in one shard, so that one lock is enough to
    /// look at several of them; set and tag differ by type and flags, in a way that depends on the secret too.
    #[must_use]
    pub const fn hash_under(&self, name_hash: u64) -> u64 {
        let kind = (self.qtype as u64) << 8 | self.flags() as u64;
        let product = (name_hash ^ 0x9e37_79b9_7f4a_7c15) as u128
            * (kind.wrapping_mul(0xd6e8_feb8_6659_fd93) ^ 0xa076_1d64_78bd_642f) as u128;
        let mixed = product as u64 ^ (product >> 64) as u64;
        mixed & !SHARD_MASK | name_hash & SHARD_MASK
    }

    /// The key under which it is kept whether the name exists.
    #[must_use]
    pub const fn of_name(&self) -> Self {
        Self {
            qtype: NO_NAME,
            ..*self
        }
    }

    /// This key with all four values of its flags.
    pub fn with_any_flags(self) -> impl Iterator<Item = Self> {
        (0..=field::DNSSEC_OK | field::CHECKING_DISABLED)
            .map(move |flags| Key::from_parts(self.name, self.qtype, flags))
    }

    /// DO and CD in one byte.
    pub(super) const fn flags(&self) -> u8 {
        bit(self.dnssec_ok, field::DNSSEC_OK)
            | bit(self.checking_disabled, field::CHECKING_DISABLED)
    }

    /// The key whose [`flags`](Self::flags) were `flags`.
    pub(super) const fn from_parts(name: &[u8], qtype: u16, flags: u8) -> Key<'_> {
        Key {
            name,
            qtype,
            dnssec_ok: flags & field::DNSSEC_OK != 0,
            checking_disabled: flags & field::CHECKING_DISABLED != 0,
        }
    }
}

/// Bits of a key's flags.
pub(super) mod field {
    pub const DNSSEC_OK: u8 = 1;
    pub const CHECKING_DISABLED: u8 = 2;
}

/// `mask` where `set`, or else 0.
pub(super) const fn bit(set: bool, mask: u8) -> u8 {
    if set { mask } else { 0 }
}

/// The bits of a hash that name its shard.
const SHARD_MASK: u64 = CACHE_SHARDS as u64 - 1;

/// The shard that a hash belongs to: below [`CACHE_SHARDS`].
#[must_use]
pub const fn shard_of(hash: u64) -> usize {
    (hash & SHARD_MASK) as usize
}

/// The set among `sets` that a hash belongs to, by multiply and shift: `sets` need not be a power of two.
pub(super) const fn set_of(hash: u64, sets: usize) -> usize {
    (((hash >> 32) * sets as u64) >> 32) as usize
}

/// The tag of a hash: never 0, which marks a free slot.
pub(super) const fn tag_of(hash: u64) -> u16 {
    match (hash >> 16) as u16 {
        0 => 1,
        tag => tag,
    }
}

// Shard, tag and set are taken from bits of their own, or the tags of one shard's set would be alike.
const _: () = assert!(CACHE_SHARDS <= 1 << 16);
