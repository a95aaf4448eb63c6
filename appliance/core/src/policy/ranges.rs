//! A byte for each address. The longest prefix that contains an address has decided it when the image was made.
//!
//! ```text
//!  0          4          8
//! | v4 ranges | v6 ranges | v4 starts, u32 each | v4 bytes, one each | v6 starts, u128 each | v6 bytes |
//! ```
//! The compiler cuts nested prefixes into ranges that do not overlap, so a look-up is one binary search. The first range of
//! each family starts at address 0.

use core::net::IpAddr;

use super::bytes::{u32_at, u128_at};

/// Most prefixes of a config, which refuses more.
pub const PREFIXES_MAX: usize = 1024;
/// Most ranges of a family: a prefix adds at most two bounds.
const RANGES_MAX: usize = 2 * PREFIXES_MAX + 1;

/// Ranges of one family.
#[derive(Clone, Copy, Debug)]
struct Family<'a> {
    starts: &'a [u8],
    values: &'a [u8],
}

impl<'a> Family<'a> {
    const EMPTY: Self = Self {
        starts: &[],
        values: &[],
    };

    fn cut(bytes: &'a [u8], ranges: usize, start_len: usize) -> Option<(Self, &'a [u8])> {
        let (starts, rest) = bytes.split_at_checked(ranges.checked_mul(start_len)?)?;
        let starts_at_0 = starts.get(..start_len)?.iter().all(|byte| *byte == 0);
        if !starts_at_0 {
            return None;
        }
        let (values, rest) = rest.split_at_checked(ranges)?;
        Some((Self { starts, values }, rest))
    }

    /// Byte of the last range that starts at or before `address`.
    #[inline(always)]
    fn value<T: PartialOrd>(
        &self,
        address: T,
        start: fn(&[u8], usize) -> Option<T>,
        start_len: usize,
    ) -> Option<u8> {
        // Without prefixes in the config there is one range, and nothing to search.
        if let [value] = self.values {
            return Some(*value);
        }
        let mut low = 0;
        let mut high = self.values.len();
        // Invariant: ranges below `low` start at or before the address, ranges from `high` on start behind it.
        while low < high {
            let middle = (low + high) / 2;
            match start(self.starts, middle * start_len) {
                Some(start) if start <= address => low = middle + 1,
                _ => high = middle,
            }
        }
        let index = low.checked_sub(1)?;
        self.values.get(index).copied()
    }
}

/// Ranges of both families.
#[derive(Clone, Copy, Debug)]
pub struct AddressRanges<'a> {
    v4: Family<'a>,
    v6: Family<'a>,
}

impl<'a> AddressRanges<'a> {
    /// Ranges in which no address has a byte.
    pub const EMPTY: Self = Self {
        v4: Family::EMPTY,
        v6: Family::EMPTY,
    };

    /// Views `bytes` as ranges; empty bytes are [`EMPTY`](Self::EMPTY). `None` if the parts do not match the bytes.
    #[must_use]
    pub fn view(bytes: &'a [u8]) -> Option<Self> {
        if bytes.is_empty() {
            return Some(Self::EMPTY);
        }
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

    /// True if no address has a byte.
    #[must_use]
    #[inline(always)]
    pub const fn is_empty(&self) -> bool {
        self.v4.values.is_empty()
    }

    /// Byte of an address in canonical form ([`IpAddr::to_canonical`]).
    #[must_use]
    #[inline(always)]
    pub fn value(&self, address: IpAddr) -> Option<u8> {
        match address {
            IpAddr::V4(address) => self.v4.value(address.to_bits(), u32_at, 4),
            IpAddr::V6(address) => self.v6.value(address.to_bits(), u128_at, 16),
        }
    }
}
