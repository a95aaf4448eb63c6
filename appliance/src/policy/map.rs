//! The fence around `mmap`: a file as read-only bytes.

use std::fs::File;
use std::num::NonZeroUsize;
use std::path::Path;
use std::ptr::NonNull;

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// A file that is mapped read-only. It stays mapped when its name is given to another file.
///
/// A list is replaced by renaming a new file over it, as `xdnsd lists compile` does. Whoever shortens a mapped file in
/// place instead takes its pages away: reading them then ends the process, by the rules of `mmap`.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<core::ffi::c_void>,
    len: NonZeroUsize,
}

impl Mapping {
    /// Maps the whole file. `None`: it is empty, and there is nothing to map.
    ///
    /// # Errors
    /// The file cannot be opened or mapped.
    pub fn open(path: &Path) -> std::io::Result<Option<Self>> {
        let file = File::open(path)?;
        let len = usize::try_from(file.metadata()?.len())
            .map_err(|_| std::io::ErrorKind::FileTooLarge)?;
        let Some(len) = NonZeroUsize::new(len) else {
            return Ok(None);
        };
        // SAFETY: no address is asked for, so the kernel picks one where nothing of ours is mapped; nobody else knows it.
        let start = unsafe {
            mmap(
                None,
                len,
                ProtFlags::PROT_READ,
                MapFlags::MAP_PRIVATE,
                &file,
                0,
            )
        }?;
        Ok(Some(Self { start, len }))
    }
}

impl AsRef<[u8]> for Mapping {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `start` and `len` are those of a mapping that lives as long as `self` and is readable (PROT_READ). It is
        // aligned for bytes, and no part of this process writes to it: PROT_WRITE was not asked for. Another process that
        // writes to the file may change the bytes between two reads; every reader takes them as allegations and checks
        // each offset against this slice's length, which does not change.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.len.get()) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly what `open` mapped, and not unmapped before. Slices of it borrow `self`, so none is left.
        let unmapped = unsafe { munmap(self.start, self.len.get()) };
        debug_assert!(
            unmapped.is_ok(),
            "munmap fails only for addresses that are not page-aligned"
        );
    }
}

// SAFETY: the mapping is read-only memory that no thread owns.
unsafe impl Send for Mapping {}
// SAFETY: as above; shared references only read.
unsafe impl Sync for Mapping {}
