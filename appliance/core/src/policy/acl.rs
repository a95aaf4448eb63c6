//! Which clients are answered: the longest prefix that holds a client's address decides.
//!
//! ```text
//!  0          4          8
//! | v4 ranges | v6 ranges | v4 starts, u32 each | v4 actions, a byte each | v6 starts, u128 each | v6 actions |
//! ```
//! The compiler cuts the nested prefixes into ranges that do not overlap, so a lookup is one binary search. The first
//! range of each family starts at address 0. No ranges: everyone is answered.

use core::net::IpAddr;

use super::bytes::{u32_at, u128_at};

/// Most prefixes that a config may name. More is refused there.
pub const PREFIXES_MAX: usize = 1024;
/// Most ranges of a family: a prefix adds two bounds at most.
const RANGES_MAX: usize = 2 * PREFIXES_MAX + 1;

/// What a client gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Action {
    /// An answer.
    Allow = 0,
    /// REFUSED.
    Refuse = 1,
    /// Silence.
    Drop = 2,
}

impl Action {
    /// From the byte of an image. Unknown bytes refuse: an ACL must not fail open.
    const fn from_byte(byte: u8) -> Self {
        match byte {
            0 => Self::Allow,
            2 => Self::Drop,
            _ => Self::Refuse,
        }
    }
}

/// Why bytes are not an ACL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AclError;

/// The ranges of one family.
#[derive(Clone, Copy, Debug)]
struct Family<'a> {
    starts: &'a [u8],
    actions: &'a [u8],
}

impl<'a> Family<'a> {
    const EMPTY: Self = Self {
        starts: &[],
        actions: &[],
    };

    fn cut(bytes: &'a [u8], ranges: usize, start_len: usize) -> Option<(Self, &'a [u8])> {
        let (starts, rest) = bytes.split_at_checked(ranges.checked_mul(start_len)?)?;
        let (actions, rest) = rest.split_at_checked(ranges)?;
        Some((Self { starts, actions }, rest))
    }

    /// The action of the last range that starts at or before `address`.
    fn action<T: PartialOrd>(
        &self,
        address: T,
        start: fn(&[u8], usize) -> Option<T>,
        start_len: usize,
    ) -> Action {
        let mut low = 0;
        let mut high = self.actions.len();
        // Invariant: what is below `low` starts at or before the address, what is from `high` on starts behind it.
        while low < high {
            let middle = (low + high) / 2;
            match start(self.starts, middle * start_len) {
                Some(start) if start <= address => low = middle + 1,
                _ => high = middle,
            }
        }
        match low.checked_sub(1).and_then(|index| self.actions.get(index)) {
            Some(&byte) => Action::from_byte(byte),
            None => Action::Refuse,
        }
    }
}

/// Clients by prefix.
#[derive(Clone, Copy, Debug)]
pub struct Acl<'a> {
    v4: Family<'a>,
    v6: Family<'a>,
}

impl<'a> Acl<'a> {
    /// Everyone is answered.
    pub const OPEN: Self = Self {
        v4: Family::EMPTY,
        v6: Family::EMPTY,
    };

    /// Views `bytes` as an ACL. Empty bytes answer everyone.
    ///
    /// # Errors
    /// The parts do not fit the bytes.
    pub fn view(bytes: &'a [u8]) -> Result<Self, AclError> {
        if bytes.is_empty() {
            Ok(Self::OPEN)
        } else {
            Self::cut(bytes).ok_or(AclError)
        }
    }

    fn cut(bytes: &'a [u8]) -> Option<Self> {
        let v4_ranges = u32_at(bytes, 0)? as usize;
        let v6_ranges = u32_at(bytes, 4)? as usize;
        let in_bounds = |ranges| (1..=RANGES_MAX).contains(&ranges);
        if !in_bounds(v4_ranges) || !in_bounds(v6_ranges) {
            return None;
        }
        let (v4, rest) = Family::cut(bytes.get(8..)?, v4_ranges, 4)?;
        let (v6, rest) = Family::cut(rest, v6_ranges, 16)?;
        rest.is_empty().then_some(Self { v4, v6 })
    }

    /// What a client with this address gets. A v4-mapped IPv6 address is the IPv4 address in it.
    #[must_use]
    pub fn action(&self, client: IpAddr) -> Action {
        if self.v4.actions.is_empty() {
            return Action::Allow;
        }
        match client.to_canonical() {
            IpAddr::V4(address) => self.v4.action(address.to_bits(), u32_at, 4),
            IpAddr::V6(address) => self.v6.action(address.to_bits(), u128_at, 16),
        }
    }
}
