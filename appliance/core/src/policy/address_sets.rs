//! Names whose addresses go into sets of the packet filter.

use super::name::Labels;
use super::table::{NameTable, TableError};

/// Names, each with all names below it, and the sets for the addresses of their answers. The sets are a number here: what it stands
/// for is the caller's.
#[derive(Clone, Copy, Debug)]
pub struct AddressSets<'a> {
    /// A table of names, viewed for each look-up: a policy stands in the memory of each worker, and has room for no more.
    table: &'a [u8],
}

impl<'a> AddressSets<'a> {
    /// No names.
    pub const NONE: Self = Self { table: &[] };

    /// Views a table of names, whose values are the numbers.
    ///
    /// # Errors
    /// The bytes are not a table.
    pub fn view(bytes: &'a [u8]) -> Result<Self, TableError> {
        NameTable::view(bytes)?;
        Ok(Self { table: bytes })
    }

    /// Number of the sets for this name in lower case: that of the longest name at or above it.
    #[must_use]
    pub fn of(&self, name: &[u8]) -> Option<u16> {
        if self.table.is_empty() {
            return None;
        }
        let table = NameTable::view(self.table).ok()?;
        let (_, number) = table.longest(&Labels::new(name)?)?;
        u16::try_from(number).ok()
    }
}
