//! Bounds-checked reads of a frame: one half of the fence around packet memory. The other half is [`write`].
//!
//! A [`Cursor`] is a position in the frame. It can only be moved by [`Cursor::take`], which first compares with the end of
//! the frame and returns a [`View`] of exactly the bytes compared. It never writes.
//!
//! Every step is a compile-time constant. So the verifier knows the offset on each path, and needs no permission for
//! arithmetic with variables (CAP_PERFMON): a message of variable length is walked, and its length never added to a
//! pointer.

pub mod write;

use core::marker::PhantomData;

/// Bytes that one round of the loop in [`Cursor::sum`] adds up.
const STRIDE: u16 = 16;
/// Bytes that one round of the loop in [`Cursor::holds`] skips.
const STEP: usize = 64;

/// A position in a frame.
#[derive(Clone, Copy)]
pub struct Cursor<'a> {
    at: *const u8,
    end: *const u8,
    frame: PhantomData<&'a [u8]>,
}

impl<'a> Cursor<'a> {
    /// A cursor at the first byte of the frame from `start` to `end`.
    ///
    /// # Safety
    ///
    /// Both pointers are into one buffer that is readable between them for `'a`, or `end` is not after `start`.
    #[inline(always)]
    pub const unsafe fn new(start: *const u8, end: *const u8) -> Self {
        Self {
            at: start,
            end,
            frame: PhantomData,
        }
    }

    /// The next `N` bytes and the position behind them; `None` if the frame ends before.
    #[inline(always)]
    pub fn take<const N: usize>(self) -> Option<(View<'a, N>, Self)> {
        let next = ahead::<N>(self.at, self.end)?;
        let view = View {
            start: self.at,
            frame: PhantomData,
        };
        Some((view, Self { at: next, ..self }))
    }

    /// Sum of the next `len` bytes as 16-bit words in native order, an odd last byte padded with zero (RFC 1071).
    ///
    /// `None` if the frame ends before, or if `len` is above `MAX`, which bounds the loop for the verifier.
    #[inline(always)]
    pub fn sum<const MAX: u16>(self, len: u16) -> Option<u64> {
        let (mut rest, mut left, mut sum) = (self, len, 0);
        for _ in 0..MAX.div_ceil(STRIDE) {
            if left < STRIDE {
                break;
            }
            let (view, next) = rest.take::<{ STRIDE as usize }>()?;
            sum += u64::from(view.get::<0, u32>()) + u64::from(view.get::<4, u32>());
            sum += u64::from(view.get::<8, u32>()) + u64::from(view.get::<12, u32>());
            (rest, left) = (next, left - STRIDE);
        }
        if left >= STRIDE {
            return None;
        }
        Some(sum + rest.sum_tail(left)?)
    }

    /// True if the next `len` bytes are there, and `len` is at most `MAX`, which bounds the loop for the verifier.
    #[inline(always)]
    pub fn holds<const MAX: usize>(self, len: u64) -> bool {
        self.walk::<MAX>(len).is_some()
    }

    #[inline(always)]
    fn walk<const MAX: usize>(self, len: u64) -> Option<Self> {
        if len > MAX as u64 {
            return None;
        }
        let (mut rest, mut left) = (self, len);
        for _ in 0..MAX.div_ceil(STEP) {
            if left < STEP as u64 {
                break;
            }
            (rest, left) = (rest.take::<STEP>()?.1, left - STEP as u64);
        }
        // By the binary digits of the rest.
        if left & 32 != 0 {
            rest = rest.take::<32>()?.1;
        }
        if left & 16 != 0 {
            rest = rest.take::<16>()?.1;
        }
        if left & 8 != 0 {
            rest = rest.take::<8>()?.1;
        }
        if left & 4 != 0 {
            rest = rest.take::<4>()?.1;
        }
        if left & 2 != 0 {
            rest = rest.take::<2>()?.1;
        }
        if left & 1 != 0 {
            rest = rest.take::<1>()?.1;
        }
        Some(rest)
    }

    /// Sum of fewer than [`STRIDE`] bytes, by the binary digits of `left`.
    #[inline(always)]
    fn sum_tail(self, left: u16) -> Option<u64> {
        let (mut rest, mut sum) = (self, 0);
        if left & 8 != 0 {
            let (view, next) = rest.take::<8>()?;
            sum += u64::from(view.get::<0, u32>()) + u64::from(view.get::<4, u32>());
            rest = next;
        }
        if left & 4 != 0 {
            let (view, next) = rest.take::<4>()?;
            sum += u64::from(view.get::<0, u32>());
            rest = next;
        }
        if left & 2 != 0 {
            let (view, next) = rest.take::<2>()?;
            sum += u64::from(view.get::<0, u16>());
            rest = next;
        }
        if left & 1 != 0 {
            let (view, _) = rest.take::<1>()?;
            sum += u64::from(u16::from_ne_bytes([view.get::<0, u8>(), 0]));
        }
        Some(sum)
    }
}

/// The position `N` bytes behind `at`, or `None` if the frame ends before. The only comparison with the end.
#[inline(always)]
fn ahead<const N: usize>(at: *const u8, end: *const u8) -> Option<*const u8> {
    let next = at.wrapping_add(N);
    (next <= end).then_some(next)
}

/// `N` bytes of the frame, which have been compared with its end.
#[derive(Clone, Copy)]
pub struct View<'a, const N: usize> {
    start: *const u8,
    frame: PhantomData<&'a [u8]>,
}

impl<const N: usize> View<'_, N> {
    /// Value at offset `AT`, in native order. An offset outside the view does not compile.
    #[inline(always)]
    pub fn get<const AT: usize, T: Plain>(self) -> T {
        const { assert!(AT + size_of::<T>() <= N) };
        // SAFETY: `take` has compared start + N with the end of the frame, and AT + size_of::<T>() <= N is asserted above,
        // so the bytes are inside the buffer that `new`'s caller vouched for. Any bits are a `Plain` value, and
        // read_unaligned accepts any address. Writes to the frame go through another pointer, between two reads.
        unsafe { self.start.add(AT).cast::<T>().read_unaligned() }
    }

    /// Like [`get`](Self::get), but the compiler does not know that the value is the same. So it does not turn two
    /// comparisons into a switch that puts the rare value first.
    #[inline(always)]
    pub fn get_anew<const AT: usize>(self) -> u8 {
        const { assert!(AT < N) };
        // SAFETY: `take` has compared start + N with the end of the frame, and AT < N is asserted above; one byte is always
        // aligned, and any bits are a value of it.
        unsafe { self.start.add(AT).read_volatile() }
    }

    /// Big-endian 16-bit number at offset `AT`.
    #[inline(always)]
    pub fn be16<const AT: usize>(self) -> u16 {
        u16::from_be(self.get::<AT, u16>())
    }
}

/// Types that may be read out of a frame.
///
/// # Safety
///
/// Every bit pattern is a value, and there is no padding.
pub unsafe trait Plain: Copy {}

/// Implements `Plain` for integers.
macro_rules! plain {
    ($($integer:ident)+) => {$(
        // Only integers have `BITS`, and here it shows that there is no padding.
        const _: () = assert!($integer::BITS as usize == 8 * size_of::<$integer>());
        // SAFETY: every bit of an integer counts, and any bits are a value.
        unsafe impl Plain for $integer {}
    )+};
}
plain!(u8 u16 u32 u64);

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor(bytes: &[u8]) -> Cursor<'_> {
        let range = bytes.as_ptr_range();
        // SAFETY: the range of a live slice.
        unsafe { Cursor::new(range.start, range.end) }
    }

    /// RFC 1071 literally: 16-bit words, one after the other.
    fn sum_by_words(bytes: &[u8]) -> u64 {
        let words = bytes.chunks(2);
        words
            .map(|w| u64::from(u16::from_ne_bytes([w[0], w.get(1).copied().unwrap_or(0)])))
            .sum()
    }

    #[test]
    fn take_ends_with_the_frame() {
        let bytes = [1, 2, 3, 4];
        let (view, rest) = cursor(&bytes).take::<3>().expect("four bytes are there");
        assert_eq!(view.get::<2, u8>(), 3);
        assert!(rest.take::<2>().is_none());
        let (view, rest) = rest.take::<1>().expect("one byte is left");
        assert_eq!(view.get::<0, u8>(), 4);
        assert!(rest.take::<1>().is_none());
        assert_eq!(
            cursor(&bytes).take::<2>().map(|(v, _)| v.be16::<0>()),
            Some(0x0102)
        );
    }

    #[test]
    fn sum_equals_the_sum_of_words() {
        let bytes: Vec<u8> = (0..600u32).map(|i| (i * 167 + 13) as u8).collect();
        for len in 0..=520 {
            let sum = cursor(&bytes)
                .sum::<520>(len)
                .expect("the buffer is longer");
            // Both are congruent modulo 2^16 - 1, which one's complement addition preserves.
            let words = sum_by_words(&bytes[..usize::from(len)]);
            assert_eq!(sum % 0xffff, words % 0xffff, "{len} bytes");
        }
    }

    #[test]
    fn sum_ends_with_the_frame_and_with_its_bound() {
        let bytes = [0xa5; 64];
        for len in 0..=64u16 {
            let cursor = cursor(&bytes[..usize::from(len)]);
            assert!(cursor.sum::<64>(len).is_some(), "{len} of {len}");
            assert!(cursor.sum::<80>(len + 1).is_none(), "{} of {len}", len + 1);
        }
        assert!(cursor(&bytes).sum::<32>(64).is_none());
    }
}
