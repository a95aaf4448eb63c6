//! Compiled list of blocked and allowed names: a file, and the same bytes in memory.
//!
//! ```text
//!        0       8         10        12      16        20       24    40      56        72         80         84      88  92           96
//! header | magic | version | clauses | count | buckets | allows | key | exact | subtree | file len | body CRC | texts | - | header CRC |
//! filter | one u64 per bucket: four bits per name                                                                          |
//! starts | one u32 per bucket, and one more: index of the bucket's first entry                                             |
//! entries| fingerprint u64, fingerprint u16, tag u16: twelve bytes per name, in the order of the buckets                   |
//! clauses| twenty bytes per rule about a name whose rules a tag does not hold                                               |
//! texts  | patterns, and the hashes of excluded names                                                                       |
//! ```
//! For most names the tag holds all rules. If it cannot (rules of two ranks, for some types, with patterns, or with
//! excluded names), it refers to the name's first clause.
//!
//! Rules have ranks, as in AdGuard's engine: `$important` exceptions, `$important` rules, exceptions, rules. Names that the
//! operator allows have the first rank. The highest rank among the rules for a name decides.
//!
//! The 128-bit keyed hash of a name selects a bucket (the high bits), four bits of that bucket's filter word (the low 24)
//! and an 80-bit fingerprint (the rest). With four names per bucket on average a name costs 12 bytes, its share of the
//! starts 1 and of the filter 2: 15 bytes. A million names take 15 MB, whatever the length of the names.
//!
//! # Why a fingerprint is enough
//! A name outside the list is mistaken for a listed one only if an entry of its bucket has the same 80 bits. With four
//! entries in a bucket and four labels in a name, that is 16 comparisons: 16 / 2^80 = 1.3e-23 per name, for lists of any
//! size. A million households, each with its own key and each asking for ten billion distinct names, may expect 1.3e-7
//! mistakes altogether; a bit error in memory is far likelier. The hash is SipHash-1-3 with a key drawn when the list is
//! compiled, so the author of a list cannot craft an entry that collides with another name.
//!
//! `exact` and `subtree` hold the depths that occur in the list (bit d is set if a name of d labels is listed), so parents
//! that cannot be listed, such as top-level domains, are not looked up.

use super::bytes::{array_at, u16_at, u32_at, u64_at, u128_at};
use super::name::Labels;
use crate::limits::NAME_MAX;
use xdnsd_abi::hash::{Hash, HashKey, NameHash};

/// First bytes of a compiled list.
pub const MAGIC: [u8; 8] = *b"XDNSLIST";
/// Version of the format that is written and read.
pub const VERSION: u16 = 3;
/// Most names of a list. The compiler refuses more.
pub const NAMES_MAX: usize = 1 << 24;
/// Average number of names per bucket.
pub const NAMES_PER_BUCKET: usize = 4;
/// Most entries that a look-up compares. The compiler draws another key rather than exceed it.
pub const BUCKET_MAX: usize = 64;
/// Length of an entry in bytes.
pub const ENTRY_LEN: usize = 12;
/// Length of a clause in bytes.
pub const CLAUSE_LEN: usize = 20;
/// Most clauses of a list. The compiler refuses more.
pub const CLAUSES_MAX: usize = 1 << 15;
/// Most clauses of a name, and so of a look-up. The compiler refuses more.
pub const NAME_CLAUSES_MAX: usize = 64;
/// Most types of a clause.
pub const TYPES_MAX: usize = 4;
/// Longest pattern in bytes.
pub const PATTERN_MAX: usize = 128;
/// Length of an excluded name among the texts, in bytes.
pub const LEFT_OUT_LEN: usize = 16;

/// Offsets in the header, shared with the compiler.
pub mod field {
    /// [`super::MAGIC`].
    pub const MAGIC: usize = 0;
    /// [`super::VERSION`].
    pub const VERSION: usize = 8;
    /// Number of clauses, u16.
    pub const CLAUSES: usize = 10;
    /// Number of entries, u32.
    pub const COUNT: usize = 12;
    /// Number of buckets, u32.
    pub const BUCKETS: usize = 16;
    /// Number of entries that allow, u32, for statistics.
    pub const ALLOWS: usize = 20;
    /// Key of the name hash.
    pub const KEY: usize = 24;
    /// Depths of the names with rules for themselves, u128.
    pub const EXACT_DEPTHS: usize = 40;
    /// Depths of the names with rules for the names below them, u128.
    pub const SUBTREE_DEPTHS: usize = 56;
    /// Length of the whole file in bytes, u64.
    pub const FILE_LEN: usize = 72;
    /// CRC of all bytes behind the header, u32.
    pub const BODY_CRC: usize = 80;
    /// Length of the texts in bytes, u32.
    pub const TEXTS: usize = 84;
    /// CRC of the header before this field, u32.
    pub const HEADER_CRC: usize = 92;
    /// Length of the header in bytes.
    pub const HEADER_LEN: usize = 96;
}

/// Bits of an entry's tag, above the index of the name's list.
pub mod tag {
    /// The name itself is blocked.
    pub const BLOCK_SELF: u16 = 0x0400;
    /// The names below it are blocked.
    pub const BLOCK_BELOW: u16 = 0x0800;
    /// The name itself is allowed.
    pub const ALLOW_SELF: u16 = 0x1000;
    /// The names below it are allowed.
    pub const ALLOW_BELOW: u16 = 0x2000;
    /// The rules of the tag are `$important`.
    pub const IMPORTANT: u16 = 0x4000;
    /// The tag has none of the other bits: the rest is the index of the name's first clause.
    pub const CLAUSES: u16 = 0x8000;
    /// Index of the list that blocks.
    pub const LIST_MASK: u16 = 0x03ff;
}

/// Fields and flags of a clause.
pub mod clause {
    /// Flags, u16.
    pub const FLAGS: usize = 0;
    /// Index of the list, u16.
    pub const LIST: usize = 2;
    /// Four types, u16 each; 0 if unused.
    pub const TYPES: usize = 4;
    /// Offset of the pattern's text, u32. The excluded names follow it, in order.
    pub const TEXT: usize = 12;
    /// Length of the pattern in bytes, u8.
    pub const TEXT_LEN: usize = 16;
    /// Number of names that are excluded with all below them, u16.
    pub const LEFT_OUT: usize = 18;

    /// The clause applies to the name itself.
    pub const SELF: u16 = 1;
    /// The clause applies to the names below it.
    pub const BELOW: u16 = 2;
    /// The clause allows.
    pub const ALLOWS: u16 = 4;
    /// The clause is `$important`.
    pub const IMPORTANT: u16 = 8;
    /// The clause applies to its types alone.
    pub const TYPES_ONLY: u16 = 16;
    /// The clause applies to all types but its own.
    pub const TYPES_NOT: u16 = 32;
    /// The clause applies to names whose front matches the pattern.
    pub const PATTERN: u16 = 64;
    /// The clause is the last one of its name.
    pub const LAST: u16 = 128;
}

/// CRC of a compiled list (CRC-32C).
pub const CRC: crc::Crc<u32, crc::Table<16>> =
    crc::Crc::<u32, crc::Table<16>>::new(&crc::CRC_32_ISCSI);

/// Reason why bytes are not a compiled list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListError {
    /// The bytes do not begin like a list.
    Foreign,
    /// Another version of the format, written by a later release.
    Version {
        /// Version of the bytes.
        found: u16,
    },
    /// The length differs from the written one.
    Torn {
        /// Length that the header states, in bytes.
        written: u64,
        /// Present length in bytes.
        found: u64,
    },
    /// A CRC does not match.
    Damaged,
    /// The CRCs match, but the parts do not fit together: written by another compiler than ours.
    Inconsistent,
}

/// Verdict of a list on a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listing {
    /// The list has no rule for the name.
    None,
    /// The name is allowed, by its own rule or a parent's, which overrides blocking rules of the same rank.
    Allowed,
    /// The name is blocked, by its own rule or a parent's.
    Blocked {
        /// Index of the list that the rule came from.
        list: u16,
    },
}

/// Rank of a rule: the highest decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// No rule.
    None,
    /// A blocking rule.
    Block,
    /// An allowing rule.
    Allow,
    /// An `$important` blocking rule.
    ImportantBlock,
    /// An `$important` allowing rule.
    ImportantAllow,
}

impl Rank {
    const fn new(allows: bool, is_important: bool) -> Self {
        match (allows, is_important) {
            (false, false) => Self::Block,
            (true, false) => Self::Allow,
            (false, true) => Self::ImportantBlock,
            (true, true) => Self::ImportantAllow,
        }
    }
}

/// The rule of a list that decides about a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ruling {
    /// Rank of the rule.
    pub rank: Rank,
    /// Index of the list that it came from, if it blocks.
    pub list: u16,
    /// True if it applies to some types alone, so that the name exists.
    pub is_of_types: bool,
}

impl Ruling {
    /// The ruling without any rule.
    pub const NONE: Self = Self {
        rank: Rank::None,
        list: 0,
        is_of_types: false,
    };

    /// The ruling as a verdict.
    #[must_use]
    pub const fn listing(&self) -> Listing {
        match self.rank {
            Rank::None => Listing::None,
            Rank::Allow | Rank::ImportantAllow => Listing::Allowed,
            Rank::Block | Rank::ImportantBlock => Listing::Blocked { list: self.list },
        }
    }

    /// Takes the other rule, which is nearer to the name, if its rank is at least as high.
    fn hear(&mut self, other: Self) {
        if other.rank >= self.rank && other.rank != Rank::None {
            *self = other;
        }
    }
}

/// An excluded name among the texts, from both halves of its hash. The bytes have the order of the hashes.
#[must_use]
pub fn left_out(first: u64, second: u64) -> [u8; LEFT_OUT_LEN] {
    let hash = u128::from(first) << u64::BITS | u128::from(second);
    hash.to_be_bytes()
}

/// Place of a name in a list, from the first half of its hash.
#[derive(Clone, Copy, Debug)]
pub struct Spot {
    bits: u64,
}

impl Spot {
    /// The place of a name whose hash begins with these 64 bits.
    #[must_use]
    pub const fn new(bits: u64) -> Self {
        Self { bits }
    }

    /// Bucket among `buckets`. It grows with the bits, so entries in hash order are in bucket order.
    #[must_use]
    pub const fn bucket(self, buckets: u32) -> usize {
        // The high half of a 64 by 32 bit product, which is below `buckets`.
        ((self.bits as u128 * buckets as u128) >> 64) as usize
    }

    /// Bits of the bucket's filter word that the name sets.
    #[must_use]
    pub const fn filter_bits(self) -> u64 {
        let bits = self.bits;
        1 << (bits & 63) | 1 << (bits >> 6 & 63) | 1 << (bits >> 12 & 63) | 1 << (bits >> 18 & 63)
    }

    /// Sixteen bits of the fingerprint: neither the filter nor, with at most [`NAMES_MAX`] buckets, the bucket uses them.
    /// The other 64 bits are the second half of the hash.
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
    clauses: &'a [u8],
    texts: &'a [u8],
    key: HashKey,
    exact_depths: u128,
    subtree_depths: u128,
    buckets: u32,
    allows: u32,
}

impl<'a> List<'a> {
    /// A list without rules.
    pub const EMPTY: Self = Self {
        filter: &[],
        starts: &[],
        entries: &[],
        clauses: &[],
        texts: &[],
        key: [0; 16],
        exact_depths: 0,
        subtree_depths: 0,
        buckets: 0,
        allows: 0,
    };

    /// Checks all of `bytes` against the CRCs and for consistency. To be called once, when a list is loaded.
    ///
    /// # Errors
    /// [`ListError`] if the bytes are not a list that the compiler wrote.
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

    /// Views bytes that were checked before. Checks the header only; bytes that changed since then give wrong verdicts at
    /// worst.
    ///
    /// # Errors
    /// [`ListError`] if the header is invalid or does not match the bytes.
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
        let (starts, body) = body.split_at_checked((buckets as usize + 1) * 4)?;
        let (entries, body) = body.split_at_checked(count as usize * ENTRY_LEN)?;
        let clauses = usize::from(u16_at(bytes, field::CLAUSES)?);
        let (clauses, texts) = body.split_at_checked(clauses * CLAUSE_LEN)?;
        (texts.len() == u32_at(bytes, field::TEXTS)? as usize).then_some(Self {
            filter,
            starts,
            entries,
            clauses,
            texts,
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

    /// Number of names.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.entries.len() / ENTRY_LEN
    }

    /// Verdict of the list on a question for `name`, see [`Self::ruling`].
    #[must_use]
    pub fn listing(&self, name: &Labels<'_>, qtype: u16) -> Listing {
        self.ruling(name, qtype).listing()
    }

    /// The rule that decides about a question for `name`: the one of the highest rank on the name or a parent; among
    /// several, the one nearest to the name.
    #[must_use]
    pub fn ruling(&self, name: &Labels<'_>, qtype: u16) -> Ruling {
        let count = name.count();
        // Depths at which an entry may have a rule: parents by `subtree`, the name by `exact`.
        let itself = 1u128 << count;
        let depths = (self.subtree_depths & (itself - 1)) | (self.exact_depths & itself);
        if depths == 0 {
            return Ruling::NONE;
        }
        let deepest = (u128::BITS - 1 - depths.leading_zeros()) as usize;
        let mut hash = NameHash::new(&self.key);
        let mut ruling = Ruling::NONE;
        for depth in 0..=deepest {
            hash.push(name.label(depth));
            if depths >> depth & 1 == 0 {
                continue;
            }
            let Some(tag) = self.find(hash.hash()) else {
                continue;
            };
            if tag & tag::CLAUSES == 0 {
                ruling.hear(tag_says(tag, depth == count));
            } else {
                let visit = Visit {
                    name,
                    qtype,
                    depth,
                    hash,
                };
                self.hear_clauses(tag & !tag::CLAUSES, &visit, &mut ruling);
            }
        }
        ruling
    }

    /// Applies the clauses of the name at one depth.
    fn hear_clauses(&self, first: u16, visit: &Visit<'_, '_>, ruling: &mut Ruling) {
        let clauses = self
            .clauses
            .chunks_exact(CLAUSE_LEN)
            .skip(usize::from(first));
        for clause in clauses.take(NAME_CLAUSES_MAX) {
            let flags = u16_at(clause, clause::FLAGS).unwrap_or(clause::LAST);
            if self.is_about(clause, flags, visit) {
                ruling.hear(Ruling {
                    rank: Rank::new(flags & clause::ALLOWS != 0, flags & clause::IMPORTANT != 0),
                    list: u16_at(clause, clause::LIST).unwrap_or(0),
                    is_of_types: flags & (clause::TYPES_ONLY | clause::TYPES_NOT) != 0,
                });
            }
            if flags & clause::LAST != 0 {
                break;
            }
        }
    }

    fn is_about(&self, clause: &[u8], flags: u16, visit: &Visit<'_, '_>) -> bool {
        let is_name = visit.depth == visit.name.count();
        let place = if is_name { clause::SELF } else { clause::BELOW };
        let mut types =
            (0..TYPES_MAX).filter_map(|index| u16_at(clause, clause::TYPES + 2 * index));
        let is_named = flags & (clause::TYPES_ONLY | clause::TYPES_NOT) != 0
            && types.any(|rtype| rtype == visit.qtype);
        flags & place != 0
            && (flags & clause::TYPES_ONLY == 0 || is_named)
            && (flags & clause::TYPES_NOT == 0 || !is_named)
            && (flags & clause::PATTERN == 0 || self.fits(clause, visit))
            && !self.is_left_out(clause, visit)
    }

    /// True if the clause excludes the name, or a parent of it.
    fn is_left_out(&self, clause: &[u8], visit: &Visit<'_, '_>) -> bool {
        let count = u16_at(clause, clause::LEFT_OUT).map_or(0, usize::from);
        if count == 0 {
            return false;
        }
        let at = u32_at(clause, clause::TEXT).unwrap_or(0) as usize;
        let pattern_len = clause.get(clause::TEXT_LEN).copied().map_or(0, usize::from);
        let names = self.texts.get(at.saturating_add(pattern_len)..);
        let names = names.and_then(|names| names.get(..count * LEFT_OUT_LEN));
        let (names, _) = names.unwrap_or_default().as_chunks::<LEFT_OUT_LEN>();
        let mut hash = visit.hash;
        // An excluded name is below that of the clause.
        (visit.depth + 1..=visit.name.count()).any(|depth| {
            hash.push(visit.name.label(depth));
            let here = hash.hash();
            let here = left_out(here.first(), here.second());
            names.binary_search(&here).is_ok()
        })
    }

    /// True if the name's front, from the start of any of its labels on, matches the clause's pattern.
    fn fits(&self, clause: &[u8], visit: &Visit<'_, '_>) -> bool {
        let at = u32_at(clause, clause::TEXT).unwrap_or(0) as usize;
        let len = clause.get(clause::TEXT_LEN).copied().map_or(0, usize::from);
        let pattern = self.texts.get(at..).and_then(|text| text.get(..len));
        let name = visit.name;
        // The front, with a dot in place of each length byte.
        let mut front = [b'.'; NAME_MAX];
        let end = name.start(visit.depth);
        for depth in visit.depth + 1..=name.count() {
            let (label, at) = (name.label(depth), name.start(depth));
            let text = label.get(1..).unwrap_or_default();
            if let Some(place) = front.get_mut(at + 1..at + 1 + text.len()) {
                place.copy_from_slice(text);
            }
        }
        let fits = |depth| {
            let front = front.get(name.start(depth) + 1..end);
            front
                .zip(pattern)
                .is_some_and(|(front, pattern)| glob(pattern, front))
        };
        (visit.depth + 1..=name.count()).any(fits)
    }

    /// Number of names that are allowed.
    #[must_use]
    pub const fn allows(&self) -> u32 {
        self.allows
    }

    /// Tag of the entry with this hash.
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

/// A question, and the depth of the name or parent whose rules are read.
struct Visit<'l, 'n> {
    name: &'l Labels<'n>,
    qtype: u16,
    depth: usize,
    /// Hash of the name at this depth.
    hash: NameHash,
}

fn tag_says(tag: u16, is_name: bool) -> Ruling {
    let (allow, block) = if is_name {
        (tag::ALLOW_SELF, tag::BLOCK_SELF)
    } else {
        (tag::ALLOW_BELOW, tag::BLOCK_BELOW)
    };
    if tag & (allow | block) == 0 {
        return Ruling::NONE;
    }
    Ruling {
        rank: Rank::new(tag & allow != 0, tag & tag::IMPORTANT != 0),
        list: tag & tag::LIST_MASK,
        is_of_types: false,
    }
}

/// True if `text` matches `pattern`, in which `*` stands for any bytes.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut pattern_at, mut text_at) = (0, 0);
    // The last star, and the end of the text that it stands for so far.
    let mut star: Option<(usize, usize)> = None;
    // Bound: each step advances in the text or in the pattern, or extends the star by a byte.
    while let Some(byte) = text.get(text_at) {
        match pattern.get(pattern_at) {
            Some(b'*') => {
                star = Some((pattern_at, text_at));
                pattern_at += 1;
            }
            Some(wanted) if wanted == byte => {
                pattern_at += 1;
                text_at += 1;
            }
            Some(_) | None => {
                let Some((star_at, stands_to)) = star else {
                    return false;
                };
                star = Some((star_at, stands_to + 1));
                (pattern_at, text_at) = (star_at + 1, stands_to + 1);
            }
        }
    }
    let rest = pattern.get(pattern_at..).unwrap_or_default();
    rest.iter().all(|&byte| byte == b'*')
}

/// Checks the header of a file of `found` bytes. `bytes` are its beginning: a whole header, if the file is long enough.
///
/// # Errors
/// [`ListError`] if the file cannot be a list.
pub fn check_header(bytes: &[u8], found: u64) -> Result<(), ListError> {
    let torn = ListError::Torn {
        written: field::HEADER_LEN as u64,
        found,
    };
    let magic: [u8; 8] = array_at(bytes, field::MAGIC).ok_or(ListError::Foreign)?;
    if magic != MAGIC {
        return Err(ListError::Foreign);
    }
    // The version is checked first: a later format may have another header.
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
