//! The compiled list of blocked and allowed names: a file, and the same bytes in memory.
//!
//! ```text
//!        0       8         10        12      16        20       24    40      56        72         80         84      88  92           96
//! header | magic | version | clauses | count | buckets | allows | key | exact | subtree | file len | body CRC | texts | - | header CRC |
//! filter | one u64 per bucket: four bits per name                                                                          |
//! starts | one u32 per bucket, and one more: index of the bucket's first entry                                             |
//! entries| fingerprint u64, fingerprint u16, tag u16: twelve bytes per name, in the order of the buckets                   |
//! clauses| twenty bytes per rule about a name whose rules a tag does not hold                                               |
//! texts  | patterns                                                                                                         |
//! ```
//! A tag says all of most names. Where it does not (rules of two ranks, for some types, for names that a pattern fits, with
//! names that are left out), it leads to the name's first clause.
//!
//! Rules have ranks, as in AdGuard's engine: `$important` exceptions, `$important` rules, exceptions, rules. The operator's
//! own allowed names are of the first rank. The highest rank that says something about a name decides.
//!
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
use crate::limits::NAME_MAX;
use xdnsd_abi::hash::{Hash, HashKey, NameHash};

/// What a compiled list begins with.
pub const MAGIC: [u8; 8] = *b"XDNSLIST";
/// The version of the format that is written and read.
pub const VERSION: u16 = 2;
/// Most names of a list. More is refused when it is compiled.
pub const NAMES_MAX: usize = 1 << 24;
/// Names per bucket on average.
pub const NAMES_PER_BUCKET: usize = 4;
/// Most entries that a lookup compares. The compiler draws another key before a bucket exceeds this.
pub const BUCKET_MAX: usize = 64;
/// Bytes of an entry.
pub const ENTRY_LEN: usize = 12;
/// Bytes of a clause.
pub const CLAUSE_LEN: usize = 20;
/// Most clauses of a list. More is refused when it is compiled.
pub const CLAUSES_MAX: usize = 1 << 15;
/// Most clauses of one name, and so most that a lookup looks at. More is refused when it is compiled.
pub const NAME_CLAUSES_MAX: usize = 64;
/// Types that a clause may name.
pub const TYPES_MAX: usize = 4;
/// Longest pattern in bytes.
pub const PATTERN_MAX: usize = 128;
/// Rules with names that are left out, which may hold for one name at once. Full: one more says nothing.
const OPEN_MAX: usize = 8;

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
    /// Bytes of the texts, u32.
    pub const TEXTS: usize = 84;
    /// CRC of the header up to here, u32.
    pub const HEADER_CRC: usize = 92;
    /// Length of the header.
    pub const HEADER_LEN: usize = 96;
}

/// What an entry's tag says, above the index of the list that the name came from.
pub mod tag {
    /// The name itself is blocked.
    pub const BLOCK_SELF: u16 = 0x0400;
    /// What is below the name is blocked.
    pub const BLOCK_BELOW: u16 = 0x0800;
    /// The name itself is allowed.
    pub const ALLOW_SELF: u16 = 0x1000;
    /// What is below the name is allowed.
    pub const ALLOW_BELOW: u16 = 0x2000;
    /// All that the tag says is important.
    pub const IMPORTANT: u16 = 0x4000;
    /// None of the others: the rest is the index of the name's first clause.
    pub const CLAUSES: u16 = 0x8000;
    /// The index of the list that blocks.
    pub const LIST_MASK: u16 = 0x03ff;
}

/// What a clause says.
pub mod clause {
    /// Flags, u16.
    pub const FLAGS: usize = 0;
    /// Index of the list, u16.
    pub const LIST: usize = 2;
    /// Four types, u16 each; 0: none.
    pub const TYPES: usize = 4;
    /// Where the pattern's text begins, u32; or the number of the rule that names are left out of.
    pub const TEXT: usize = 12;
    /// Length of the pattern, u8.
    pub const TEXT_LEN: usize = 16;

    /// It is about the name itself.
    pub const SELF: u16 = 1;
    /// It is about what is below the name.
    pub const BELOW: u16 = 2;
    /// It allows.
    pub const ALLOWS: u16 = 4;
    /// It is important.
    pub const IMPORTANT: u16 = 8;
    /// It is about the named types alone.
    pub const TYPES_ONLY: u16 = 16;
    /// It is about all types but the named.
    pub const TYPES_NOT: u16 = 32;
    /// It is about names whose front fits the pattern.
    pub const PATTERN: u16 = 64;
    /// Names are left out of it, see [`STOP`].
    pub const OPEN: u16 = 128;
    /// The rule with this number says nothing about the name and what is below it.
    pub const STOP: u16 = 256;
    /// It is the last one of its name.
    pub const LAST: u16 = 512;
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
pub enum Listing {
    /// The list has no rule for it.
    None,
    /// It is allowed, by itself or by a parent. This wins over any entry of its rank that blocks.
    Allowed,
    /// It is blocked, by itself or by a parent.
    Blocked {
        /// Index of the list that the entry came from.
        list: u16,
    },
}

/// How much a rule counts: the higher one decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// There is no rule.
    None,
    /// A rule that blocks.
    Block,
    /// One that allows.
    Allow,
    /// One that blocks and is important.
    ImportantBlock,
    /// One that allows and is important.
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
    /// How much it counts.
    pub rank: Rank,
    /// Index of the list that it came from, where it blocks.
    pub list: u16,
    /// Whether it is about some types alone: others of the name exist.
    pub is_of_types: bool,
}

impl Ruling {
    /// Where no rule says anything.
    pub const NONE: Self = Self {
        rank: Rank::None,
        list: 0,
        is_of_types: false,
    };

    /// Whether that allows or blocks the name.
    #[must_use]
    pub const fn listing(&self) -> Listing {
        match self.rank {
            Rank::None => Listing::None,
            Rank::Allow | Rank::ImportantAllow => Listing::Allowed,
            Rank::Block | Rank::ImportantBlock => Listing::Blocked { list: self.list },
        }
    }

    /// Takes over a rule that stands nearer to the name.
    fn hear(&mut self, other: Self) {
        if other.rank >= self.rank && other.rank != Rank::None {
            *self = other;
        }
    }
}

/// Rules with names that are left out, while the walk is in the part of the tree that they are about.
struct Open {
    rules: [(u32, Ruling); OPEN_MAX],
    used: usize,
}

impl Open {
    const fn new() -> Self {
        Self {
            rules: [(0, Ruling::NONE); OPEN_MAX],
            used: 0,
        }
    }

    fn start(&mut self, number: u32, ruling: Ruling) {
        if let Some(place) = self.rules.get_mut(self.used) {
            *place = (number, ruling);
            self.used += 1;
        }
    }

    fn stop(&mut self, number: u32) {
        let stopped = self.rules.iter_mut().filter(|(open, _)| *open == number);
        stopped.for_each(|(_, ruling)| *ruling = Ruling::NONE);
    }
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
    clauses: &'a [u8],
    texts: &'a [u8],
    key: HashKey,
    exact_depths: u128,
    subtree_depths: u128,
    buckets: u32,
    allows: u32,
}

impl<'a> List<'a> {
    /// A list that says nothing about any name.
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

    /// How many names there are.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.entries.len() / ENTRY_LEN
    }

    /// What the list says about a question for `name`, see [`Self::ruling`].
    #[must_use]
    pub fn listing(&self, name: &Labels<'_>, qtype: u16) -> Listing {
        self.ruling(name, qtype).listing()
    }

    /// The rule that decides about a question for `name`: that of the highest rank, wherever it stands; of those, the one
    /// nearest to the name.
    #[must_use]
    pub fn ruling(&self, name: &Labels<'_>, qtype: u16) -> Ruling {
        let count = name.count();
        // Bits of the depths at which an entry could say something: parents by `subtree`, the name by `exact`.
        let itself = 1u128 << count;
        let depths = (self.subtree_depths & (itself - 1)) | (self.exact_depths & itself);
        if depths == 0 {
            return Ruling::NONE;
        }
        let deepest = (u128::BITS - 1 - depths.leading_zeros()) as usize;
        let mut hash = NameHash::new(&self.key);
        let mut ruling = Ruling::NONE;
        let mut open = Open::new();
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
                let visit = Visit { name, qtype, depth };
                self.hear_clauses(tag & !tag::CLAUSES, &visit, &mut ruling, &mut open);
            }
        }
        let still_open = open.rules.iter().take(open.used);
        still_open.for_each(|(_, open)| ruling.hear(*open));
        ruling
    }

    /// What the clauses of the name at one depth say.
    fn hear_clauses(
        &self,
        first: u16,
        visit: &Visit<'_, '_>,
        ruling: &mut Ruling,
        open: &mut Open,
    ) {
        let clauses = self
            .clauses
            .chunks_exact(CLAUSE_LEN)
            .skip(usize::from(first));
        for clause in clauses.take(NAME_CLAUSES_MAX) {
            let flags = u16_at(clause, clause::FLAGS).unwrap_or(clause::LAST);
            let text = u32_at(clause, clause::TEXT).unwrap_or(0);
            if self.is_about(clause, flags, visit) {
                let said = Ruling {
                    rank: Rank::new(flags & clause::ALLOWS != 0, flags & clause::IMPORTANT != 0),
                    list: u16_at(clause, clause::LIST).unwrap_or(0),
                    is_of_types: flags & (clause::TYPES_ONLY | clause::TYPES_NOT) != 0,
                };
                match (flags & clause::STOP != 0, flags & clause::OPEN != 0) {
                    (true, _) => open.stop(text),
                    (false, true) => open.start(text, said),
                    (false, false) => ruling.hear(said),
                }
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
    }

    /// Whether the name's front, from the beginning of any of its labels on, fits the clause's pattern.
    fn fits(&self, clause: &[u8], visit: &Visit<'_, '_>) -> bool {
        let at = u32_at(clause, clause::TEXT).unwrap_or(0) as usize;
        let len = clause.get(clause::TEXT_LEN).copied().map_or(0, usize::from);
        let pattern = self.texts.get(at..).and_then(|text| text.get(..len));
        let name = visit.name;
        // The front with a dot in place of each label's length.
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

    /// How many names are allowed.
    #[must_use]
    pub const fn allows(&self) -> u32 {
        self.allows
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

/// A question, and the depth of the parent of its name whose rules are read.
struct Visit<'l, 'n> {
    name: &'l Labels<'n>,
    qtype: u16,
    depth: usize,
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

/// Whether `text` fits `pattern`, in which `*` stands for any bytes.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut pattern_at, mut text_at) = (0, 0);
    // The last star, and how much of the text it stands for so far.
    let mut star: Option<(usize, usize)> = None;
    // Bound: each turn moves on in the text, or in the pattern, or lets the star stand for a byte more.
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
