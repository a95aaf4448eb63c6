//! The compiled list of blocked and allowed names: a file, and the same bytes in memory.
//!
//! ```text
//!        0        8         10    12      16      20       24     40       56        72         80      84       88      92  96
//! header | magic  | version | - | count | buckets | allows | key  | exact  | subtree | file len | body CRC | - | header CRC |
//! filter | one u64 per bucket: four bits per name                                                                          |
//! starts | one u32 per bucket, and one more: index of the bucket's first entry                                             |
//! entries| fingerprint u64, fingerprint u16, tag u16: twelve bytes per name, in the order of the buckets                   |
//! ```
//! A name's 128-bit keyed hash picks a bucket (the high bits), four bits of that bucket's filter word (the low 24) and
//! an 80-bit fingerprint (the rest). With four names per bucket on average a name costs 12 bytes, its share of the
//! starts 1 and of the filter 2: 15 bytes. A million names take 15 MB, however long the names are.
//!
//! # Why a fingerprint may decide
//! A name that is not in the list is mistaken for one that is only if an entry of its bucket has the same 80 bits. With
//! four entries in a bucket and four labels in a name, that is 16 comparisons: 16 / 2^80 = 1.3e-23 per name, whatever the
//! size of the list. A million households, each with a key of its own and each asking for ten billion distinct names,
//! may expect 1.3e-7 mistakes altogether; a bit error in memory is likelier by far. The hash is SipHash-1-3 with a key
//! that is drawn when the list is compiled, so no author of a list can aim an entry at a name of somebody else.
//!
//! The depths that occur in the list are known (`exact`, `subtree`: bit d is set where a name of d labels is listed), so
//! parents that cannot be listed, such as top-level domains, are not looked up at all.

use super::bytes::{array_at, u16_at, u32_at, u64_at, u128_at};
use super::name::Labels;
use crate::hash::{Hash, HashKey, NameHash};

/// What a compiled list begins with.
pub const MAGIC: [u8; 8] = *b"XDNSLIST";
/// The version of the format that is written and read.
pub const VERSION: u16 = 1;
/// Most names of a list. More is refused when it is compiled.
pub const NAMES_MAX: usize = 1 << 24;
/// Names per bucket on average.
pub const NAMES_PER_BUCKET: usize = 4;
/// Most entries that a lookup compares. The compiler draws another key before a bucket exceeds this.
pub const BUCKET_MAX: usize = 64;
/// Bytes of an entry.
pub const ENTRY_LEN: usize = 12;

/// Offsets in the header, shared with the compiler.
pub mod field {
    /// [`super::MAGIC`].
    pub const MAGIC: usize = 0;
    /// [`super::VERSION`].
    pub const VERSION: usize = 8;
    /// Number of entries, u32.
    pub const COUNT: usize = 12;
    /// Number of buckets, u32.
    pub const BUCKETS: usize = 16;
    /// Number of entries that allow, u32, for those who look at the file.
    pub const ALLOWS: usize = 20;
    /// Key of the hash.
    pub const KEY: usize = 24;
    /// Depths of the names that match themselves, u128.
    pub const EXACT_DEPTHS: usize = 40;
    /// Depths of the names that match what is below them, u128.
    pub const SUBTREE_DEPTHS: usize = 56;
    /// Length of the whole file, u64.
    pub const FILE_LEN: usize = 72;
    /// CRC of all that follows the header, u32.
    pub const BODY_CRC: usize = 80;
    /// CRC of the header up to here, u32.
    pub const HEADER_CRC: usize = 92;
    /// Length of the header.
    pub const HEADER_LEN: usize = 96;
}

/// What an entry's tag says, above the index of the list that the name came from.
pub mod tag {
    /// The name itself is blocked.
    pub const BLOCK_SELF: u16 = 0x1000;
    /// What is below the name is blocked.
    pub const BLOCK_BELOW: u16 = 0x2000;
    /// The name itself is allowed.
    pub const ALLOW_SELF: u16 = 0x4000;
    /// What is below the name is allowed.
    pub const ALLOW_BELOW: u16 = 0x8000;
    /// The index of the list that blocks.
    pub const LIST_MASK: u16 = 0x0fff;
}

/// The CRC of a compiled list (CRC-32C).
pub const CRC: crc::Crc<u32, crc::Table<16>> =
    crc::Crc::<u32, crc::Table<16>>::new(&crc::CRC_32_ISCSI);

/// Why bytes are not a compiled list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListError {
    /// They do not begin as one.
    Foreign,
    /// Another version of the format: written by a later release.
    Version {
        /// The version that it has.
        found: u16,
    },
    /// Shorter or longer than when it was written.
    Torn {
        /// The length that it was written with.
        written: u64,
        /// The length that it has.
        found: u64,
    },
    /// A CRC does not match.
    Damaged,
    /// The CRCs match and the parts do not fit together: not written by our compiler.
    Inconsistent,
}

/// What a list says about a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    None,
    /// It is allowed, by itself or by a parent. This wins over any entry that blocks.
    Allowed,
    /// It is blocked, by itself or by a parent.
    Blocked {
        /// Index of the list that the entry came from.
        list: u16,
    },
}

/// Where a name belongs in a list, by the first half of its hash.
#[derive(Clone, Copy, Debug)]
pub struct Spot {
    bits: u64,
}

impl Spot {
    /// The spot of a name whose hash begins with these 64 bits.
    #[must_use]
    pub const fn new(bits: u64) -> Self {
        Self { bits }
    }

    /// The bucket of `buckets`. Grows with the bits, so entries in the order of their hashes are in bucket order.
    #[must_use]
    pub const fn bucket(self, buckets: u32) -> usize {
        // The high half of a 64 by 32 bit product: below `buckets`.
        ((self.bits as u128 * buckets as u128) >> 64) as usize
    }

    /// The bits of the bucket's filter word that the name sets.
    #[must_use]
    pub const fn filter_bits(self) -> u64 {
        let bits = self.bits;
        1 << (bits & 63) | 1 << (bits >> 6 & 63) | 1 << (bits >> 12 & 63) | 1 << (bits >> 18 & 63)
    }

    /// The 16 bits that the fingerprint takes from here: neither the filter nor, with at most [`NAMES_MAX`] buckets, the
    /// bucket has used them. The other 64 are the second half of the hash.
    #[must_use]
    pub const fn fingerprint(self) -> u16 {
        (self.bits >> 24) as u16
    }
}

/// A compiled list.
#[derive(Clone, Copy, Debug)]
pub struct List<'a> {
    filter: &'a [u8],
    starts: &'a [u8],
    entries: &'a [u8],
    key: HashKey,
    exact_depths: u128,
    subtree_depths: u128,
    buckets: u32,
    allows: u32,
}

impl<'a> List<'a> {
    /// Without names.
    pub const EMPTY: Self = Self {
        filter: &[],
        starts: &[],
        entries: &[],
        key: [0; 16],
        exact_depths: 0,
        subtree_depths: 0,
        buckets: 0,
        allows: 0,
    };

    /// Reads all of `bytes` and says whether they are what the compiler wrote. To be asked once, when a list is loaded.
    ///
    /// # Errors
    /// They are not, see [`ListError`].
    pub fn check(bytes: &'a [u8]) -> Result<Self, ListError> {
        let list = Self::view(bytes)?;
        let body = bytes.get(field::HEADER_LEN..).ok_or(ListError::Damaged)?;
        if Some(CRC.checksum(body)) != u32_at(bytes, field::BODY_CRC) {
            return Err(ListError::Damaged);
        }
        if list.starts_are_in_order() {
            Ok(list)
        } else {
            Err(ListError::Inconsistent)
        }
    }

    /// Views bytes that were checked before. Looks at the header only; bytes that changed since give wrong verdicts at
    /// worst.
    ///
    /// # Errors
    /// The header is not one, or does not fit the bytes.
    pub fn view(bytes: &'a [u8]) -> Result<Self, ListError> {
        check_header(bytes, bytes.len() as u64)?;
        Self::cut(bytes).ok_or(ListError::Inconsistent)
    }

    fn cut(bytes: &'a [u8]) -> Option<Self> {
        let count = u32_at(bytes, field::COUNT)?;
        let buckets = u32_at(bytes, field::BUCKETS)?;
        if count as usize > NAMES_MAX || buckets as usize > NAMES_MAX {
            return None;
        }
        let body = bytes.get(field::HEADER_LEN..)?;
        let (filter, body) = body.split_at_checked(buckets as usize * 8)?;
        let (starts, entries) = body.split_at_checked((buckets as usize + 1) * 4)?;
        (entries.len() == count as usize * ENTRY_LEN).then_some(Self {
            filter,
            starts,
            entries,
            key: array_at(bytes, field::KEY)?,
            exact_depths: u128_at(bytes, field::EXACT_DEPTHS)?,
            subtree_depths: u128_at(bytes, field::SUBTREE_DEPTHS)?,
            buckets,
            allows: u32_at(bytes, field::ALLOWS)?,
        })
    }

    fn starts_are_in_order(&self) -> bool {
        let mut starts = self
            .starts
            .chunks_exact(4)
            .filter_map(|start| u32_at(start, 0));
        let first = starts.next();
        let mut last = 0;
        let steps = starts.all(|start| {
            let step = start.checked_sub(last);
            last = start;
            step.is_some_and(|step| step as usize <= BUCKET_MAX)
        });
        first == Some(0) && steps && last as usize == self.count()
    }

    /// How many names there are.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.entries.len() / ENTRY_LEN
    }

    /// What the list says about `name`. An entry that allows wins, wherever it stands; of those that block, the one
    /// nearest to the name is reported.
    #[must_use]
    pub fn verdict(&self, name: &Labels<'_>) -> Verdict {
        let count = name.count();
        // Bits of the depths at which an entry could say something: parents by `subtree`, the name by `exact`.
        let itself = 1u128 << count;
        let depths = (self.subtree_depths & (itself - 1)) | (self.exact_depths & itself);
        if depths == 0 {
            return Verdict::None;
        }
        let deepest = (u128::BITS - 1 - depths.leading_zeros()) as usize;
        let mut hash = NameHash::new(&self.key);
        let mut verdict = Verdict::None;
        for depth in 0..=deepest {
            hash.push(name.label(depth));
            if depths >> depth & 1 == 0 {
                continue;
            }
            match self.entry_says(hash.hash(), depth == count) {
                Verdict::None => {}
                Verdict::Allowed => return Verdict::Allowed,
                blocked @ Verdict::Blocked { .. } => verdict = blocked,
            }
        }
        verdict
    }

    /// How many names are allowed.
    #[must_use]
    pub const fn allows(&self) -> u32 {
        self.allows
    }

    fn entry_says(&self, hash: Hash, is_name: bool) -> Verdict {
        let Some(tag) = self.find(hash) else {
            return Verdict::None;
        };
        let (allow, block) = if is_name {
            (tag::ALLOW_SELF, tag::BLOCK_SELF)
        } else {
            (tag::ALLOW_BELOW, tag::BLOCK_BELOW)
        };
        if tag & allow != 0 {
            Verdict::Allowed
        } else if tag & block != 0 {
            Verdict::Blocked {
                list: tag & tag::LIST_MASK,
            }
        } else {
            Verdict::None
        }
    }

    /// The tag of the entry with this hash.
    fn find(&self, hash: Hash) -> Option<u16> {
        let spot = Spot::new(hash.first());
        let bucket = spot.bucket(self.buckets);
        let bits = spot.filter_bits();
        if u64_at(self.filter, bucket * 8)? & bits != bits {
            return None;
        }
        let start = u32_at(self.starts, bucket * 4)? as usize;
        let end = u32_at(self.starts, bucket * 4 + 4)? as usize;
        let entries = self
            .entries
            .get(start.checked_mul(ENTRY_LEN)?..end.checked_mul(ENTRY_LEN)?)?;
        let (low, high) = (hash.second(), spot.fingerprint());
        let mut candidates = entries.chunks_exact(ENTRY_LEN).take(BUCKET_MAX);
        let entry = candidates
            .find(|entry| u64_at(entry, 0) == Some(low) && u16_at(entry, 8) == Some(high))?;
        u16_at(entry, 10)
    }
}

/// Whether a file of `found` bytes that begins with `bytes`, which are a header's at least where the file has as many, can
/// be a list.
///
/// # Errors
/// It cannot, see [`ListError`].
pub fn check_header(bytes: &[u8], found: u64) -> Result<(), ListError> {
    let torn = ListError::Torn {
        written: field::HEADER_LEN as u64,
        found,
    };
    let magic: [u8; 8] = array_at(bytes, field::MAGIC).ok_or(ListError::Foreign)?;
    if magic != MAGIC {
        return Err(ListError::Foreign);
    }
    // The version comes before all else: a later format may have another header.
    let version = u16_at(bytes, field::VERSION).ok_or(torn)?;
    if version != VERSION {
        return Err(ListError::Version { found: version });
    }
    let header = bytes.get(..field::HEADER_CRC).ok_or(torn)?;
    if u32_at(bytes, field::HEADER_CRC).ok_or(torn)? != CRC.checksum(header) {
        return Err(ListError::Damaged);
    }
    let written = u64_at(bytes, field::FILE_LEN).ok_or(torn)?;
    if written == found {
        Ok(())
    } else {
        Err(ListError::Torn { written, found })
    }
}
