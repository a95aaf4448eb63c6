//! Orders for the program that answers SYNs, in one word, so that it reads all of them at once.

/// Value of [`crate::shield::SYN_COOKIES`].
///
/// ```text
///  31              16 15  12 11     8 7   5 4        3        2      1            0
///  | verified for   | zero | scale | zero | strays | scales | SACK | timestamps | given |
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Orders(u32);

/// Options of a client that the kernel restores from the timestamp of a returned cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestoredOptions {
    /// Selective acknowledgment (RFC 2018).
    pub sack: bool,
    /// Window scale that the kernel will announce (RFC 7323 section 2), 0 to 14; `None` if it uses none.
    pub scale: Option<u8>,
}

const GIVEN: u32 = 1;
const TIMESTAMPS: u32 = 1 << 1;
const SACK: u32 = 1 << 2;
const SCALES: u32 = 1 << 3;
const STRAYS: u32 = 1 << 4;
const SCALE_SHIFT: u32 = 8;
const SCALE: u32 = 0xf << SCALE_SHIFT;
const VERIFIED_SHIFT: u32 = 16;

impl Orders {
    /// SYNs are counted and passed.
    pub const REST: Self = Self(0);

    /// SYNs are answered. `None`: the answer has an MSS and no other option.
    #[must_use]
    pub const fn give(kept: Option<RestoredOptions>) -> Self {
        let Some(kept) = kept else {
            return Self(GIVEN);
        };
        let sack = if kept.sack { SACK } else { 0 };
        let scale = match kept.scale {
            Some(scale) => SCALES | (scale as u32) << SCALE_SHIFT & SCALE,
            None => 0,
        };
        Self(GIVEN | TIMESTAMPS | sack | scale)
    }

    /// The orders with a time in seconds for which a client that brought a cookie back is not asked again.
    #[must_use]
    pub const fn verified_for(self, secs: u16) -> Self {
        Self(self.0 & 0xffff | (secs as u32) << VERIFIED_SHIFT)
    }

    /// The orders with segments without a connection dropped.
    #[must_use]
    pub const fn without_strays(self) -> Self {
        Self(self.0 | STRAYS)
    }

    /// Seconds for which a client that brought a cookie back is not asked again.
    #[inline(always)]
    #[must_use]
    pub const fn verified_secs(self) -> u32 {
        self.0 >> VERIFIED_SHIFT
    }

    /// True if segments without a connection are dropped.
    #[inline(always)]
    #[must_use]
    pub const fn drops_strays(self) -> bool {
        self.0 & (GIVEN | STRAYS) == GIVEN | STRAYS
    }

    /// True if SYNs are answered.
    #[inline(always)]
    #[must_use]
    pub const fn are_given(self) -> bool {
        self.0 & GIVEN != 0
    }

    /// Options that are restored if the client has timestamps.
    #[inline(always)]
    #[must_use]
    pub const fn kept(self) -> Option<RestoredOptions> {
        if self.0 & TIMESTAMPS == 0 {
            return None;
        }
        let scale = if self.0 & SCALES == 0 {
            None
        } else {
            Some(((self.0 & SCALE) >> SCALE_SHIFT) as u8)
        };
        Some(RestoredOptions {
            sack: self.0 & SACK != 0,
            scale,
        })
    }

    /// The orders as stored in the map.
    #[must_use]
    pub const fn to_word(self) -> u32 {
        self.0
    }

    /// From the value of [`Self::to_word`].
    #[inline(always)]
    #[must_use]
    pub const fn from_word(word: u32) -> Self {
        Self(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_what_is_read() {
        assert!(!Orders::REST.are_given());
        assert!(!Orders::REST.without_strays().drops_strays());
        assert_eq!(Orders::default(), Orders::REST);
        let scales = (0..=14).map(Some).chain([None]);
        let kept =
            scales.flat_map(|scale| [true, false].map(|sack| RestoredOptions { sack, scale }));
        for kept in kept.map(Some).chain([None]) {
            let orders = Orders::from_word(Orders::give(kept).to_word());
            assert!(orders.are_given());
            assert_eq!(orders.kept(), kept);
            assert_eq!((orders.verified_secs(), orders.drops_strays()), (0, false));
            for secs in [0, 1, 300, u16::MAX] {
                let orders = orders.without_strays().verified_for(secs);
                assert!(orders.are_given() && orders.drops_strays());
                assert_eq!(orders.kept(), kept);
                assert_eq!(orders.verified_secs(), secs.into());
            }
        }
    }
}
