//! Letter case of a name, stored apart from the name.

use crate::limits::NAME_MAX;

/// Bytes for which a letter case is drawn even if the name is shorter.
const RANDOM_MIN: usize = 64;

/// Bit set of the upper-case letters of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LetterCase([u8; NAME_MAX.div_ceil(8)]);

impl LetterCase {
    /// All letters in lower case.
    pub const LOWER: Self = Self([0; NAME_MAX.div_ceil(8)]);

    /// The letter case of the wire-form name `wire`.
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

    /// A letter case from `random` bits for a name of `len` bytes, and for the targets of its aliases. At least
    /// [`RANDOM_MIN`] bytes are random; a longer target ends in lower case.
    #[must_use]
    pub fn from_random(len: usize, mut random: impl FnMut() -> u32) -> Self {
        let mut case = Self::LOWER;
        let words = len.max(RANDOM_MIN).div_ceil(32);
        for word in case.0.chunks_exact_mut(4).take(words) {
            word.copy_from_slice(&random().to_ne_bytes());
        }
        case
    }

    /// Changes the lower-case `wire` to this letter case.
    pub fn apply(&self, wire: &mut [u8]) {
        for (index, byte) in wire.iter_mut().enumerate().take(NAME_MAX) {
            if self.0[index / 8] & (1 << (index % 8)) != 0 {
                byte.make_ascii_uppercase();
            }
        }
    }
}
