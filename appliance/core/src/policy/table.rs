//! Hash table of names in an image. Look-ups are exact, because the names themselves are stored.
//!
//! ```text
//!  0         4         8                  24          28         32
//! | slots    | names   | key of the hash | max depth | max probe |
//! | slot 0: tag u32, at u32 | slot 1 … | entry: value u32, name | entry …
//! ```
//! `slots` is a power of two. A slot with `at` 0 is empty; otherwise the entry is `at` bytes into the table. The tag is the
//! low half of the name's hash, the high half selects the first slot; a name is at most `max probe` slots further on.

use super::bytes::{array_at, u32_at};
use super::name::Labels;
use xdnsd_abi::hash::{HashKey, NameHash};

/// Offsets in the table, shared with the compiler.
pub mod field {
    /// Number of slots.
    pub const SLOTS: usize = 0;
    /// Number of names.
    pub const NAMES: usize = 4;
    /// Key of the name hash.
    pub const KEY: usize = 8;
    /// Number of labels of the deepest name.
    pub const MAX_DEPTH: usize = 24;
    /// Slots to probe before a name is known to be absent.
    pub const MAX_PROBE: usize = 28;
    /// Offset of the first slot.
    pub const FIRST_SLOT: usize = 32;
}

/// Length of a slot in bytes.
pub const SLOT_LEN: usize = 8;
/// Length of an entry before its name, in bytes.
pub const ENTRY_HEAD: usize = 4;
/// Most slots that a look-up probes. The compiler takes another key or more slots rather than exceed it.
pub const PROBE_MAX: u32 = 64;

/// The bytes are not a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableError;

/// A table of names, each with a value.
#[derive(Clone, Copy, Debug)]
pub struct NameTable<'a> {
    bytes: &'a [u8],
    mask: u32,
    max_probe: u32,
    max_depth: usize,
    key: HashKey,
}

/// First slot and tag of a hash.
#[must_use]
pub const fn place(hash: u64, mask: u32) -> (u32, u32) {
    ((hash >> 32) as u32 & mask, hash as u32)
}

impl<'a> NameTable<'a> {
    /// A table without names.
    pub const EMPTY: Self = Self {
        bytes: &[],
        mask: 0,
        max_probe: 0,
        max_depth: 0,
        key: [0; 16],
    };

    /// Views `bytes` as a table. Empty bytes are an empty table.
    ///
    /// # Errors
    /// The header is invalid or does not match the bytes.
    pub fn view(bytes: &'a [u8]) -> Result<Self, TableError> {
        if bytes.is_empty() {
            return Ok(Self::EMPTY);
        }
        Self::view_header(bytes).ok_or(TableError)
    }

    fn view_header(bytes: &'a [u8]) -> Option<Self> {
        let slots = u32_at(bytes, field::SLOTS)?;
        let max_probe = u32_at(bytes, field::MAX_PROBE)?;
        let slots_end = field::FIRST_SLOT.checked_add(SLOT_LEN.checked_mul(slots as usize)?)?;
        if !slots.is_power_of_two() || slots_end > bytes.len() || max_probe > PROBE_MAX {
            return None;
        }
        Some(Self {
            bytes,
            mask: slots - 1,
            max_probe,
            max_depth: u32_at(bytes, field::MAX_DEPTH)? as usize,
            key: array_at(bytes, field::KEY)?,
        })
    }

    /// True if the table has no names.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Value of exactly this name.
    #[must_use]
    pub fn exact(&self, name: &Labels<'_>) -> Option<u32> {
        if self.is_empty() || name.count() > self.max_depth {
            return None;
        }
        self.probe(name.hash(&self.key).first(), name.name())
    }

    /// Calls `visit(depth, value)` for the name and each of its parents that is in the table, from the root down.
    pub fn visit_suffixes(&self, name: &Labels<'_>, mut visit: impl FnMut(usize, u32)) {
        if self.is_empty() {
            return;
        }
        let mut hash = NameHash::new(&self.key);
        for depth in 0..=name.count().min(self.max_depth) {
            hash.push(name.label(depth));
            if let Some(value) = self.probe(hash.hash().first(), name.suffix(depth)) {
                visit(depth, value);
            }
        }
    }

    /// Depth and value of the longest suffix of `name`, `name` included, that is in the table.
    #[must_use]
    pub fn longest(&self, name: &Labels<'_>) -> Option<(usize, u32)> {
        let mut longest = None;
        self.visit_suffixes(name, |depth, value| longest = Some((depth, value)));
        longest
    }

    fn probe(&self, hash: u64, name: &[u8]) -> Option<u32> {
        let (first, tag) = place(hash, self.mask);
        for step in 0..=self.max_probe {
            let slot = first.wrapping_add(step) & self.mask;
            let slot_at = field::FIRST_SLOT + SLOT_LEN * slot as usize;
            let at = u32_at(self.bytes, slot_at + 4)? as usize;
            if at == 0 {
                return None;
            }
            if u32_at(self.bytes, slot_at)? == tag && self.name_stands_at(at, name) {
                return u32_at(self.bytes, at);
            }
        }
        None
    }

    fn name_stands_at(&self, at: usize, name: &[u8]) -> bool {
        let stored = at
            .checked_add(ENTRY_HEAD)
            .and_then(|start| self.bytes.get(start..));
        stored.is_some_and(|stored| stored.starts_with(name))
    }
}
