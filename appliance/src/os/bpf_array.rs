//! A mappable BPF array of u64 in our address space: the fence around mmap(2). The XDP program or the kernel's sk_lookup program
//! reads what a worker stores, without a system call.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

/// The mapped words of the array. The mapping keeps the map alive by itself.
#[derive(Debug)]
pub struct MappedWords {
    start: NonNull<AtomicU64>,
    count: usize,
}

// SAFETY: the mapping belongs to the process, and is reached only as &AtomicU64.
unsafe impl Send for MappedWords {}
// SAFETY: as for Send: all access is by atomics.
unsafe impl Sync for MappedWords {}

impl MappedWords {
    /// Maps the first `count` words of the array.
    ///
    /// # Errors
    /// mmap(2) failed: the array is shorter, or lacks BPF_F_MMAPABLE.
    pub fn map(array: BorrowedFd<'_>, count: usize) -> io::Result<Self> {
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let (null, len) = (std::ptr::null_mut(), count * size_of::<AtomicU64>());
        // SAFETY: a new mapping at an address of the kernel's choice disturbs no memory of ours; the descriptor is open
        // for the call.
        let start = unsafe { libc::mmap(null, len, prot, libc::MAP_SHARED, array.as_raw_fd(), 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).expect("mmap without MAP_FIXED never maps page 0");
        Ok(Self { start, count })
    }

    /// All words, mapped for the life of the process.
    #[must_use]
    pub fn leak(self) -> &'static [AtomicU64] {
        let words = std::mem::ManuallyDrop::new(self);
        // SAFETY: `count` words lie in the mapped bytes, and ManuallyDrop keeps them mapped; they are page-aligned and zeroed by
        // the kernel. User space and programs store only whole words.
        unsafe { std::slice::from_raw_parts(words.start.as_ptr(), words.count) }
    }

    /// The word at `index`.
    ///
    /// # Panics
    /// `index` is beyond the array.
    #[must_use]
    pub fn word(&self, index: u32) -> &AtomicU64 {
        assert!((index as usize) < self.count, "a word of the array");
        // SAFETY: the index is below the count, so the word lies in the bytes that are mapped until drop; they are page-aligned
        // and zeroed by the kernel. User space stores atomically, and programs store only whole words.
        unsafe { self.start.add(index as usize).as_ref() }
    }
}

impl Drop for MappedWords {
    fn drop(&mut self) {
        let len = self.count * size_of::<AtomicU64>();
        // SAFETY: our own mapping of that many bytes; borrowed words borrow self, so none is left.
        unsafe { libc::munmap(self.start.as_ptr().cast(), len) };
    }
}
