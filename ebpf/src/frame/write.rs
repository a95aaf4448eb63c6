//! Bounds-checked writes to a frame: the other half of the fence.
//!
//! A [`CursorMut`] moves like a [`super::Cursor`], over bytes that have been compared with the end of the frame, and
//! returns them as a [`ViewMut`]. Neither can be copied, so no two of them refer to the same byte.

use super::{Plain, ahead};
use core::marker::PhantomData;

/// A position in a frame, for writing.
pub struct CursorMut<'a> {
    at: *mut u8,
    end: *const u8,
    frame: PhantomData<&'a mut [u8]>,
}

impl<'a> CursorMut<'a> {
    /// A cursor at the first byte of the frame from `start` to `end`.
    ///
    /// # Safety
    ///
    /// Both pointers are into one buffer that is writable between them for `'a`, and that nobody else reads or writes
    /// during it, or `end` is not after `start`.
    #[inline(always)]
    pub const unsafe fn new(start: *mut u8, end: *const u8) -> Self {
        Self {
            at: start,
            end,
            frame: PhantomData,
        }
    }

    /// The next `N` bytes and the position behind them; `None` if the frame ends before.
    #[inline(always)]
    pub fn take<const N: usize>(self) -> Option<(ViewMut<'a, N>, Self)> {
        let next = ahead::<N>(self.at, self.end)?;
        let view = ViewMut {
            start: self.at,
            frame: PhantomData,
        };
        let at = next.cast_mut();
        Some((view, Self { at, ..self }))
    }
}

/// `N` bytes of the frame, which have been compared with its end, and which no other view covers.
pub struct ViewMut<'a, const N: usize> {
    start: *mut u8,
    frame: PhantomData<&'a mut [u8]>,
}

impl<const N: usize> ViewMut<'_, N> {
    /// Writes a value at offset `AT`, in native order. An offset outside the view does not compile.
    #[inline(always)]
    pub fn set<const AT: usize, T: Plain>(&mut self, value: T) {
        const { assert!(AT + size_of::<T>() <= N) };
        // SAFETY: `take` has compared start + N with the end of the frame, and AT + size_of::<T>() <= N is asserted above,
        // so the bytes are inside the buffer that `new`'s caller vouched for. `take` returns each byte once, so no other
        // view covers them. A `Plain` value has no padding, and write_unaligned accepts any address.
        unsafe { self.start.add(AT).cast::<T>().write_unaligned(value) }
    }

    /// Writes a big-endian 16-bit number at offset `AT`.
    #[inline(always)]
    pub fn set_be16<const AT: usize>(&mut self, value: u16) {
        self.set::<AT, u16>(value.to_be());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor(bytes: &mut [u8]) -> CursorMut<'_> {
        let range = bytes.as_mut_ptr_range();
        // SAFETY: the range of a slice that is borrowed as long.
        unsafe { CursorMut::new(range.start, range.end) }
    }

    #[test]
    fn what_is_written_stands_where_it_was_asked_to_and_nowhere_else() {
        let mut bytes = [0xa5; 12];
        let (mut first, rest) = cursor(&mut bytes).take::<4>().expect("twelve are there");
        let (mut second, rest) = rest.take::<7>().expect("eight are left");
        second.set_be16::<1>(0x0102);
        first.set::<0, u8>(0x03);
        second.set::<3, u32>(u32::from_be_bytes([4, 5, 6, 7]).to_be());
        first.set_be16::<2>(0x0809);
        assert!(rest.take::<1>().is_some(), "one is left");
        let written = [3, 0xa5, 8, 9, 0xa5, 1, 2, 4, 5, 6, 7, 0xa5];
        assert_eq!(bytes, written);
    }

    #[test]
    fn it_ends_with_the_frame() {
        let mut bytes = [0; 4];
        for len in 0..=4 {
            let fits = cursor(&mut bytes[..len]).take::<4>().is_some();
            assert_eq!(fits, len == 4, "{len}");
            let rest = cursor(&mut bytes[..len]).take::<0>();
            assert!(rest.is_some(), "nothing always fits");
        }
        let (_, rest) = cursor(&mut bytes).take::<3>().expect("four are there");
        assert!(rest.take::<2>().is_none());
    }

    /// Like the other half: the same positions, and written values are read back.
    #[test]
    fn what_is_written_is_what_is_read() {
        let mut bytes = [0; 16];
        let (mut view, _) = cursor(&mut bytes).take::<16>().expect("all of it");
        view.set::<0, u64>(0x0123_4567_89ab_cdef);
        view.set::<9, u32>(0xdead_beef);
        view.set_be16::<14>(0xcafe);
        let range = bytes.as_ptr_range();
        // SAFETY: the range of a live slice.
        let cursor = unsafe { super::super::Cursor::new(range.start, range.end) };
        let (view, _) = cursor.take::<16>().expect("all of it");
        assert_eq!(view.get::<0, u64>(), 0x0123_4567_89ab_cdef);
        assert_eq!(view.get::<9, u32>(), 0xdead_beef);
        assert_eq!(view.be16::<14>(), 0xcafe);
    }
}
