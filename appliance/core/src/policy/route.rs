//! Which upstreams answer for a name: the longest routed suffix wins.

use super::name::Labels;
use super::table::{NameTable, TableError};

/// The upstream group of names that no route names, in a view that names no other.
pub const DEFAULT_GROUP: u16 = 0;

/// A route that covers a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Labels of the suffix that was routed.
    pub depth: usize,
    /// Index of the upstream group.
    pub group: u16,
}

/// Routed suffixes, reverse zones among them. The values of the table are group indices.
#[derive(Clone, Copy, Debug)]
pub struct Routes<'a> {
    suffixes: NameTable<'a>,
}

impl<'a> Routes<'a> {
    /// Everything goes to the default group.
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

    /// The longest route that covers `name`. `None`: the default group.
    #[must_use]
    pub fn lookup(&self, name: &Labels<'_>) -> Option<Route> {
        let (depth, value) = self.suffixes.longest(name)?;
        Some(Route {
            depth,
            group: u16::try_from(value).ok()?,
        })
    }
}

/// A set of suffixes: whether a name is one of them or below one.
#[derive(Clone, Copy, Debug)]
pub struct Suffixes<'a> {
    suffixes: NameTable<'a>,
}

impl<'a> Suffixes<'a> {
    /// No name is covered.
    pub const EMPTY: Self = Self {
        suffixes: NameTable::EMPTY,
    };

    /// Views a table of suffixes as a set; the values do not matter.
    ///
    /// # Errors
    /// The bytes are not a table.
    pub fn view(bytes: &'a [u8]) -> Result<Self, TableError> {
        Ok(Self {
            suffixes: NameTable::view(bytes)?,
        })
    }

    /// Whether `name` is in the set or below a name that is.
    #[must_use]
    pub fn covers(&self, name: &Labels<'_>) -> bool {
        self.suffixes.longest(name).is_some()
    }
}
