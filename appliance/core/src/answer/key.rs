//! Key of a cached answer, and its hash.

use crate::dns::Query;
use crate::dns::header::flag;
use xdnsd_abi::hash;

/// Question of a cached answer. QCLASS is always IN.
///
/// DO and CD are part of the key: an answer with signatures is a different answer (RFC 4035 section 3.2.1), and an answer
/// that upstream did not validate must not reach a client that relies on validation (section 4.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key<'a> {
    /// QNAME in wire form with its root byte, ASCII letters in lower case (RFC 4343), not compressed.
    pub name: &'a [u8],
    /// QTYPE, or [`ANY_TYPE`].
    pub qtype: u16,
    /// DO: the client wants DNSSEC records (RFC 3225).
    pub dnssec_ok: bool,
    /// CD: the client validates by itself (RFC 4035).
    pub checking_disabled: bool,
    /// Number of the client's view: views share no answers.
    pub view: u8,
}

/// Bits of a key's hash that equal those of its name's hash. They select the shard, so all keys of a name are in one.
pub const NAME_MASK: u64 = 0xffff;

/// QTYPE of entries about the name as a whole: a denial, or a mark that it exists. Reserved by RFC 6895 section 3.1.
pub const ANY_TYPE: u16 = 0;

/// Keyed hash of a name, from which the hashes of its keys are made: SipHash-1-3 (the first half of 128 bits) under a seed
/// from the system's generator. Attackers choose names, and must not know which of them share a set.
#[must_use]
pub fn name_hash(name: &[u8], seed: &[u8; 16]) -> u64 {
    hash::of_bytes(name, seed)
}

impl<'a> Key<'a> {
    /// Key of the answer to `query` from a client of this view.
    #[must_use]
    #[inline(always)]
    pub fn of(query: &'a Query, view: u8) -> Self {
        Self {
            name: query.name.as_wire(),
            qtype: query.qtype,
            dnssec_ok: query.dnssec_ok(),
            checking_disabled: query.header.has(flag::CD),
            view,
        }
    }

    /// The key with its hash under this seed.
    #[must_use]
    pub fn hashed(self, seed: &[u8; 16]) -> HashedKey<'a> {
        self.with_name_hash(name_hash(self.name, seed))
    }

    /// The key with its hash, made from the name's hash. The bits of [`NAME_MASK`] depend on the name alone; the others
    /// differ by type and flags, in a way that depends on the seed too.
    #[must_use]
    #[inline(always)]
    pub const fn with_name_hash(self, name_hash: u64) -> HashedKey<'a> {
        let kind = (self.qtype as u64) << 8 | self.flags() as u64;
        let product = (name_hash ^ 0x9e37_79b9_7f4a_7c15) as u128
            * (kind.wrapping_mul(0xd6e8_feb8_6659_fd93) ^ 0xa076_1d64_78bd_642f) as u128;
        let mixed = product as u64 ^ (product >> 64) as u64;
        HashedKey {
            key: self,
            name_hash,
            hash: mixed & !NAME_MASK | name_hash & NAME_MASK,
        }
    }

    /// DO, CD and view in one byte.
    pub(crate) const fn flags(&self) -> u8 {
        bit(self.dnssec_ok, field::DNSSEC_OK)
            | bit(self.checking_disabled, field::CHECKING_DISABLED)
            | self.view << field::VIEW_SHIFT
    }

    /// The key for these [`flags`](Self::flags).
    pub(crate) const fn from_parts(name: &[u8], qtype: u16, flags: u8) -> Key<'_> {
        Key {
            name,
            qtype,
            dnssec_ok: flags & field::DNSSEC_OK != 0,
            checking_disabled: flags & field::CHECKING_DISABLED != 0,
            view: flags >> field::VIEW_SHIFT,
        }
    }
}

/// A key with its hash, for look-ups in a shard. Both always belong together.
#[derive(Clone, Copy, Debug)]
pub struct HashedKey<'a> {
    key: Key<'a>,
    name_hash: u64,
    hash: u64,
}

impl<'a> HashedKey<'a> {
    /// The key.
    #[must_use]
    #[inline(always)]
    pub const fn key(&self) -> &Key<'a> {
        &self.key
    }

    /// Hash of the whole key, which finds it in the cache and among questions in flight.
    #[must_use]
    #[inline(always)]
    pub const fn hash(&self) -> u64 {
        self.hash
    }

    /// Key of another type for the same name, with the same flags.
    #[must_use]
    #[inline(always)]
    pub const fn with_qtype(&self, qtype: u16) -> Self {
        Key { qtype, ..self.key }.with_name_hash(self.name_hash)
    }

    /// Key of the entry about the name as a whole.
    #[must_use]
    #[inline(always)]
    pub const fn any_type(&self) -> Self {
        self.with_qtype(ANY_TYPE)
    }

    /// The key with DO and CD clear.
    #[must_use]
    pub const fn without_flags(&self) -> Self {
        self.with_flags(0)
    }

    /// The key with each of the four values of DO and CD.
    pub fn with_any_flags(self) -> impl Iterator<Item = Self> {
        (0..=field::DNSSEC_OK | field::CHECKING_DISABLED).map(move |flags| self.with_flags(flags))
    }

    const fn with_flags(&self, flags: u8) -> Self {
        let flags = flags | self.key.view << field::VIEW_SHIFT;
        Key::from_parts(self.key.name, self.key.qtype, flags).with_name_hash(self.name_hash)
    }

    /// `key` with this hash, so that a test can fill a set.
    #[cfg(test)]
    pub(crate) const fn placed(key: Key<'a>, hash: u64) -> Self {
        Self {
            key,
            name_hash: hash,
            hash,
        }
    }
}

/// Bits of a key's flags.
pub(crate) mod field {
    use crate::limits::POLICIES_MAX;

    pub const DNSSEC_OK: u8 = 1;
    pub const CHECKING_DISABLED: u8 = 2;
    /// Position of the view's number, above DO and CD.
    pub const VIEW_SHIFT: u8 = 2;

    const _: () = assert!(POLICIES_MAX <= 1 << (8 - VIEW_SHIFT));
}

/// `mask` if `set`, else 0.
pub(crate) const fn bit(set: bool, mask: u8) -> u8 {
    if set { mask } else { 0 }
}
