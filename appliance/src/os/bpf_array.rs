//! A mappable BPF array of u64 in our address space: the fence around mmap(2). The XDP program or the kernel's socket
//! look-up reads what a worker stores, without a system call.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

/// The words of the array. The mapping keeps the map alive by itself.
#[derive(Debug)]
pub struct MappedWords {
    start: NonNull<AtomicU64>,
    count: usize,
}

// SAFETY: the mapping belongs to no thread, and is only reached as &AtomicU64.
unsafe impl Send for MappedWords {}
// SAFETY: it has no methods that change it but through the atomics.
unsafe impl Sync for MappedWords {}

impl MappedWords {
    /// Maps the first `count` words of the array.
    ///
    /// # Errors
    /// mmap(2) failed: the array is shorter, or not made to be mapped.
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

    /// All of them, for as long as the process lives.
    #[must_use]
    pub fn leak(self) -> &'static [AtomicU64] {
        let words = std::mem::ManuallyDrop::new(self);
        // SAFETY: so many words lie in the bytes that are mapped, and nobody unmaps them any more; they are page-aligned and zeroed
        // by the kernel. User space and programs store whole words alone.
        unsafe { std::slice::from_raw_parts(words.start.as_ptr(), words.count) }
    }

    /// The word at `index`.
    ///
    /// # Panics
    /// Without a map.
    #[must_use]
    pub fn word(&self, index: u32) -> &AtomicU64 {
        assert!((index as usize) < self.count, "a word of the array");
        // SAFETY: the index is below the count, so the word lies in the bytes that are mapped until drop; they are
        // page-aligned and zeroed by the kernel. All writers in user space store atomically, and programs whole words, if any.
        unsafe { self.start.add(index as usize).as_ref() }
    }
}

impl Drop for MappedWords {
    fn drop(&mut self) {
        let len = self.count * size_of::<AtomicU64>();
        // SAFETY: our own mapping of that many bytes; a word that is borrowed borrows self.
        unsafe { libc::munmap(self.start.as_ptr().cast(), len) };
    }
}
