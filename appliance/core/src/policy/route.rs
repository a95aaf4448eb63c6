//! Routes: the longest routed suffix of a name selects the upstream group.

use super::name::Labels;
use super::table::{NameTable, TableError};

/// Upstream group of names without a route, in a view without a group of its own.
pub const DEFAULT_GROUP: u16 = 0;

/// A route that covers a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Number of labels of the routed suffix.
    pub depth: usize,
    /// Index of the upstream group.
    pub group: u16,
}

/// Routed suffixes, including reverse zones. The values of the table are group indices.
#[derive(Clone, Copy, Debug)]
pub struct Routes<'a> {
    suffixes: NameTable<'a>,
}

impl<'a> Routes<'a> {
    /// No routes: everything goes to the default group.
    pub const EMPTY: Self = Self {
        suffixes: NameTable::EMPTY,
    };

    /// Views a table of suffixes as routes.
    ///
    /// # Errors
    /// The bytes are not a table.
    pub fn view(bytes: &'a [u8]) -> Result<Self, TableError> {
        Ok(Self {
            suffixes: NameTable::view(bytes)?,
        })
    }

    /// The longest route that covers `name`; `None` for the default group.
    #[must_use]
    pub fn lookup(&self, name: &Labels<'_>) -> Option<Route> {
        let (depth, value) = self.suffixes.longest(name)?;
        Some(Route {
            depth,
            group: u16::try_from(value).ok()?,
        })
    }
}

/// A set of suffixes.
#[derive(Clone, Copy, Debug)]
pub struct Suffixes<'a> {
    suffixes: NameTable<'a>,
}

impl<'a> Suffixes<'a> {
    /// The empty set.
    pub const EMPTY: Self = Self {
        suffixes: NameTable::EMPTY,
    };

    /// Views a table of suffixes as a set; the values are ignored.
    ///
    /// # Errors
    /// The bytes are not a table.
    pub fn view(bytes: &'a [u8]) -> Result<Self, TableError> {
        Ok(Self {
            suffixes: NameTable::view(bytes)?,
        })
    }

    /// True if `name` is in the set or below a name in it.
    #[must_use]
    pub fn covers(&self, name: &Labels<'_>) -> bool {
        self.suffixes.longest(name).is_some()
    }
}
