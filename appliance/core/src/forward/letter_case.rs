//! The letter case of a name, apart from the name.

use crate::limits::NAME_MAX;

/// Bytes of a name, however short, for which a letter case is drawn.
const RANDOM_MIN: usize = 64;

/// Bits that say which letters of a name are upper case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LetterCase([u8; NAME_MAX.div_ceil(8)]);

impl LetterCase {
    /// All lower case.
    pub const LOWER: Self = Self([0; NAME_MAX.div_ceil(8)]);

    /// Notes the letter case of the wire-form name `wire`.
    #[must_use]
    pub fn of(wire: &[u8]) -> Self {
        let mut case = Self::LOWER;
        for (index, byte) in wire.iter().enumerate().take(NAME_MAX) {
            if byte.is_ascii_uppercase() {
                case.0[index / 8] |= 1 << (index % 8);
            }
        }
        case
    }

    /// A letter case chosen by `random` bits, for a name of so many bytes and what its aliases lead to: those have as many such
    /// letters, or [`RANDOM_MIN`]; what is longer ends in lower case.
    #[must_use]
    pub fn from_random(len: usize, mut random: impl FnMut() -> u32) -> Self {
        let mut case = Self::LOWER;
        let words = len.max(RANDOM_MIN).div_ceil(32);
        for word in case.0.chunks_exact_mut(4).take(words) {
            word.copy_from_slice(&random().to_ne_bytes());
        }
        case
    }

    /// Gives the lower-case `wire` this letter case.
    pub fn apply(&self, wire: &mut [u8]) {
        for (index, byte) in wire.iter_mut().enumerate().take(NAME_MAX) {
            if self.0[index / 8] & (1 << (index % 8)) != 0 {
                byte.make_ascii_uppercase();
            }
        }
    }
}
