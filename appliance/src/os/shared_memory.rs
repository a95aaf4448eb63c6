//! The fence around memory shared with another process: a memfd that it has made, sealed and passed to us.
//!
//! ```text
//!  reader: memfd_create, ftruncate, F_SEAL_SHRINK ── SCM_RIGHTS ──► daemon: checks the seals, maps it
//! ```
//! Sealed memory can never shrink, so no access within its length faults (SIGBUS), whatever the other side does. Its content is
//! untrusted: words are read as atomics and validated, bytes are copied and never borrowed.

use std::io::{self, ErrorKind};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::sys::stat::fstat;
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};
use nix::unistd::ftruncate;

/// Memory shared by two processes.
#[derive(Debug)]
pub struct SharedMemory {
    start: NonNull<u8>,
    len: NonZeroUsize,
}

// SAFETY: the mapping belongs to the process; it is reached only by atomics and by copies.
unsafe impl Send for SharedMemory {}
// SAFETY: as for Send. If both sides copy at the same moment, which their protocol avoids, bytes are garbled and memory stays
// safe.
unsafe impl Sync for SharedMemory {}

impl SharedMemory {
    /// Makes `len` zero bytes to be passed on.
    ///
    /// # Errors
    /// A system call failed.
    pub fn make(len: NonZeroUsize) -> io::Result<(OwnedFd, Self)> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let file = memfd_create("xdnsd-tap", flags)?;
        ftruncate(&file, i64::try_from(len.get()).map_err(io::Error::other)?)?;
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
        // MAP_POPULATE: the maker pays for the pages, before anybody writes.
        let memory = Self::map(&file, len, MapFlags::MAP_POPULATE)?;
        Ok((file, memory))
    }

    /// Maps memory that another process has made, if it is as [`make`](Self::make) makes it and has this length.
    ///
    /// # Errors
    /// It is anything else, or a system call failed.
    pub fn take(file: impl AsFd, len: NonZeroUsize) -> io::Result<Self> {
        let refused = |what: &str| Err(io::Error::new(ErrorKind::InvalidInput, what.to_owned()));
        let Ok(seals) = fcntl(&file, FcntlArg::F_GET_SEALS) else {
            return refused("the memory is no memfd");
        };
        // Huge pages would fault when the machine has none left.
        if fstatfs(&file)?.filesystem_type() != TMPFS_MAGIC {
            return refused("the memory is not of ordinary pages");
        }
        if !SealFlag::from_bits_retain(seals).contains(SealFlag::F_SEAL_SHRINK) {
            return refused("the memory is not sealed against becoming shorter");
        }
        // Checked after the seal: from here on it cannot shrink.
        if i64::try_from(len.get()).ok() != Some(fstat(&file)?.st_size) {
            return refused("the memory is not as long as it should be");
        }
        Self::map(&file, len, MapFlags::empty())
    }

    fn map(file: impl AsFd, len: NonZeroUsize, more: MapFlags) -> io::Result<Self> {
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let flags = MapFlags::MAP_SHARED | more;
        // SAFETY: no address is given, so the kernel picks one where nothing of ours is mapped.
        let start = unsafe { mmap(None, len, protection, flags, file, 0) }?.cast();
        Ok(Self { start, len })
    }

    /// The word at a byte offset.
    ///
    /// # Panics
    /// The offset is outside, or not aligned.
    #[must_use]
    pub fn word(&self, at: usize) -> &AtomicU64 {
        self.check(at, size_of::<AtomicU64>());
        assert!(at.is_multiple_of(align_of::<AtomicU64>()), "aligned");
        // SAFETY: the word lies in the mapping, which is page-aligned and lives as long as `self`; this process reaches it only
        // as an atomic, which the other process may change at any time.
        unsafe { self.start.add(at).cast().as_ref() }
    }

    /// Copies bytes into the memory.
    ///
    /// # Panics
    /// They exceed the memory after `at`.
    pub fn write(&self, at: usize, bytes: &[u8]) {
        self.check(at, bytes.len());
        // SAFETY: the destination lies in the mapping, the source is a slice elsewhere; no reference to the destination exists.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.start.as_ptr().add(at), bytes.len());
        }
    }

    /// Copies bytes out of the memory.
    ///
    /// # Panics
    /// They exceed the memory after `at`.
    pub fn read(&self, at: usize, bytes: &mut [u8]) {
        self.check(at, bytes.len());
        // SAFETY: the source lies in the mapping and is initialised (zeros at first), the destination is a slice elsewhere; no
        // reference to the source exists.
        unsafe {
            std::ptr::copy_nonoverlapping(
                self.start.as_ptr().add(at),
                bytes.as_mut_ptr(),
                bytes.len(),
            );
        }
    }

    fn check(&self, at: usize, bytes: usize) {
        let end = at.checked_add(bytes);
        assert!(end.is_some_and(|end| end <= self.len.get()), "within");
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: exactly what `map` mapped, still mapped. Words of it borrow `self`, so none is left.
        let unmapped = unsafe { munmap(self.start.cast(), self.len.get()) };
        debug_assert!(unmapped.is_ok(), "munmap fails only for wrong arguments");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering::Relaxed;

    const LEN: NonZeroUsize = NonZeroUsize::new(8192).expect("not zero");

    #[test]
    fn both_sides_have_the_same_bytes() {
        let (file, reader) = SharedMemory::make(LEN).expect("memory");
        let daemon = SharedMemory::take(&file, LEN).expect("its own make");
        daemon.write(8189, b"end");
        let mut bytes = [0; 3];
        reader.read(8189, &mut bytes);
        assert_eq!(&bytes, b"end");
        reader.word(64).store(7, Relaxed);
        assert_eq!(daemon.word(64).load(Relaxed), 7);
        assert!(ftruncate(&file, 4096).is_err(), "it is sealed");
    }

    fn refused(file: impl AsFd) -> String {
        let error = SharedMemory::take(file, LEN).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        error.to_string()
    }

    #[test]
    fn what_could_become_shorter_is_not_taken() {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let file = memfd_create("open", flags).expect("memfd");
        ftruncate(&file, 8192).expect("its size");
        assert!(refused(&file).contains("not sealed"));
        let seals = SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).expect("seals");
        assert!(refused(&file).contains("not sealed"), "other seals");
        let file = std::fs::File::open("/proc/self/exe").expect("a file");
        assert!(refused(&file).contains("no memfd"));
        let (file, _memory) =
            SharedMemory::make(NonZeroUsize::new(4096).expect("not zero")).expect("memory");
        assert!(refused(&file).contains("not as long"));
    }

    #[test]
    #[should_panic(expected = "within")]
    fn nothing_is_written_behind_its_end() {
        let (_file, memory) = SharedMemory::make(LEN).expect("memory");
        memory.write(8190, b"end");
    }
}
