//! The fence around `mmap`: bytes that are written once and immutable afterwards.
//!
//! A list is copied into its own memory, which then becomes read-only, and is checked there. So the checked bytes are the used
//! bytes: overwriting the list's file, truncating or removing it changes nothing until the file is read again. A shared mapping
//! of the file would save the copy, but then the kernel may take pages away (SIGBUS), and bytes behind a `&[u8]` may change.
//!
//! The memory is mapped instead of allocated, so that all of it returns to the kernel when a list is dropped.

use std::io::{self, Read};
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

/// Memory that is read-only once constructed.
#[derive(Debug)]
pub struct Sealed {
    start: NonNull<core::ffi::c_void>,
    len: NonZeroUsize,
}

impl Sealed {
    /// Reads the next `len` bytes of `source`.
    ///
    /// # Errors
    /// The memory cannot be mapped, or the source fails or ends early.
    pub fn read_from(mut source: impl Read, len: NonZeroUsize) -> io::Result<Self> {
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: no address is given, so the kernel picks one where nothing of ours is mapped.
        let start = unsafe { mmap_anonymous(None, len, protection, MapFlags::MAP_PRIVATE) }?;
        // From here on an early return unmaps it.
        let sealed = Self { start, len };
        // SAFETY: `start` and `len` are those of a mapping that was just made, readable and writable, all zeros, aligned for
        // bytes, and private to this process. Until `sealed` is returned this is the only reference to it, and it ends here.
        let bytes = unsafe { std::slice::from_raw_parts_mut(start.as_ptr().cast(), len.get()) };
        source.read_exact(bytes)?;
        // SAFETY: exactly the mapping; the reference that could write to it is no longer used.
        unsafe { mprotect(start, len.get(), ProtFlags::PROT_READ) }?;
        Ok(sealed)
    }
}

impl AsRef<[u8]> for Sealed {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `start` and `len` are those of a mapping that lives as long as `self`, is readable and aligned for bytes, and
        // was initialised by `read_from`. Nothing writes to it: it is private to this process, and read-only (PROT_READ).
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.len.get()) }
    }
}

impl Drop for Sealed {
    fn drop(&mut self) {
        // SAFETY: exactly what `read_from` mapped, still mapped. Slices of it borrow `self`, so none is left.
        let unmapped = unsafe { munmap(self.start, self.len.get()) };
        debug_assert!(
            unmapped.is_ok(),
            "munmap fails only for addresses that are not page-aligned"
        );
    }
}

// SAFETY: the mapping belongs to the process: any thread may read it and may unmap it.
unsafe impl Send for Sealed {}
// SAFETY: the memory is read-only, and a shared reference gives only reads.
unsafe impl Sync for Sealed {}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(bytes: &[u8]) -> io::Result<Sealed> {
        let len = NonZeroUsize::new(bytes.len()).expect("not empty");
        Sealed::read_from(bytes, len)
    }

    #[test]
    fn bytes_are_what_they_were() {
        let bytes: Vec<u8> = (0..100_000u32).map(|number| number as u8).collect();
        assert_eq!(sealed(&bytes).expect("memory").as_ref(), bytes);
    }

    #[test]
    fn a_source_that_ends_early_fails() {
        let len = NonZeroUsize::new(5).expect("not zero");
        let error = Sealed::read_from(&b"four"[..], len).expect_err("too short");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    /// Permissions of the kernel's mapping at an address: `r--p` is read-only and private.
    fn permissions(address: usize) -> Option<String> {
        let maps = std::fs::read_to_string("/proc/self/maps").expect("proc");
        let covers = |line: &&str| {
            let range = line
                .split(' ')
                .next()
                .and_then(|range| range.split_once('-'));
            let parse = |text| usize::from_str_radix(text, 16).unwrap_or(0);
            range.is_some_and(|(start, end)| (parse(start)..parse(end)).contains(&address))
        };
        let line = maps.lines().find(covers)?;
        line.split(' ').nth(1).map(str::to_owned)
    }

    #[test]
    fn nobody_can_write_to_it() {
        let sealed = sealed(&vec![1; 1 << 20]).expect("memory");
        let address = sealed.as_ref().as_ptr() as usize;
        assert_eq!(permissions(address).as_deref(), Some("r--p"));
    }
}
