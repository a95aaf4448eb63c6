//! The fence around `mmap`: a file as read-only bytes.
//!
//! A list is replaced by renaming a new file over it, as `xdnsd lists compile` does, and then the old file stays mapped as
//! long as it is used. Whoever shortens a mapped file in place takes its pages away instead, and the kernel says so with
//! SIGBUS at the next read (mmap(2)). A download that is written over a list must not end the daemon: the handler here puts
//! pages of zeros in their place, which look-ups, who check every offset, take as a list that says nothing.

use std::fs::File;
use std::num::NonZeroUsize;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// Mappings at once: those of a set of policy, of the next one, and of some that workers still use. One more is refused.
const MAPPINGS_MAX: usize = 32;

/// A file that is mapped read-only. It stays mapped when its name is given to another file.
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
        let page_bytes = guard::install()?;
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
        let mapping = Self { start, len };
        let whole_pages = len.get().next_multiple_of(page_bytes);
        if guard::enter(start.as_ptr() as usize, whole_pages) {
            Ok(Some(mapping))
        } else {
            Err(std::io::Error::other("too many lists are mapped"))
        }
    }
}

impl AsRef<[u8]> for Mapping {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `start` and `len` are those of a mapping that lives as long as `self` and is readable (PROT_READ): where
        // the file was shortened, `guard` maps zeros. It is aligned for bytes, and no part of this process writes to it:
        // PROT_WRITE was not asked for. Another process that writes to the file may change the bytes between two reads;
        // every reader takes them as allegations and checks each offset against this slice's length, which does not change.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.len.get()) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        guard::leave(self.start.as_ptr() as usize);
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

/// What happens when a mapped page is gone.
mod guard {
    use super::{AtomicUsize, MAPPINGS_MAX, OnceLock, Ordering};

    /// A mapping that the handler knows. `start` 0: free.
    struct Place {
        start: AtomicUsize,
        bytes: AtomicUsize,
    }

    static PLACES: [Place; MAPPINGS_MAX] = [const {
        Place {
            start: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
        }
    }; MAPPINGS_MAX];
    /// 0: the handler is not installed.
    static PAGE_BYTES: AtomicUsize = AtomicUsize::new(0);
    /// What SIGBUS did before.
    static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

    /// Installs the handler, once. Gives the size of a page.
    pub(super) fn install() -> std::io::Result<usize> {
        static INSTALLED: OnceLock<Result<usize, i32>> = OnceLock::new();
        let installed = INSTALLED.get_or_init(|| {
            let failed = || std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
            // SAFETY: sysconf only reads.
            let page_bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
            let page_bytes = usize::try_from(page_bytes).map_err(|_| failed())?;
            PAGE_BYTES.store(page_bytes, Ordering::Release);
            // SAFETY: all zero bits are a sigaction: no flags, an empty mask, the default action.
            let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
            let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                on_bus;
            action.sa_sigaction = handler as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            // SAFETY: as above.
            let mut before: libc::sigaction = unsafe { std::mem::zeroed() };
            // SAFETY: both point to a sigaction, and the handler does only what a handler may.
            let done = unsafe { libc::sigaction(libc::SIGBUS, &raw const action, &raw mut before) };
            if done != 0 {
                return Err(failed());
            }
            let _ = BEFORE.set(before);
            Ok(page_bytes)
        });
        (*installed).map_err(std::io::Error::from_raw_os_error)
    }

    /// Notes a mapping. False: there is no place.
    pub(super) fn enter(start: usize, bytes: usize) -> bool {
        let free = PLACES.iter().find(|place| {
            let taken = place
                .start
                .compare_exchange(0, start, Ordering::AcqRel, Ordering::Relaxed);
            taken.is_ok()
        });
        if let Some(place) = free {
            place.bytes.store(bytes, Ordering::Release);
        }
        free.is_some()
    }

    /// Forgets a mapping, which nobody reads any more.
    pub(super) fn leave(start: usize) {
        if let Some(place) = PLACES
            .iter()
            .find(|place| place.start.load(Ordering::Acquire) == start)
        {
            place.bytes.store(0, Ordering::Release);
            place.start.store(0, Ordering::Release);
        }
    }

    /// Whether `address` is in a mapping of ours.
    fn is_ours(address: usize) -> bool {
        PLACES.iter().any(|place| {
            let bytes = place.bytes.load(Ordering::Acquire);
            let start = place.start.load(Ordering::Acquire);
            start != 0 && address.wrapping_sub(start) < bytes
        })
    }

    /// A page of a mapping of ours is gone: zeros take its place, and the read that failed is done again. Anything else is
    /// what it was before this handler.
    extern "C" fn on_bus(
        signal: libc::c_int,
        info: *mut libc::siginfo_t,
        _context: *mut libc::c_void,
    ) {
        // SAFETY: the kernel gives a siginfo that is valid during the handler, and SIGBUS fills the address in.
        let address = unsafe { (*info).si_addr() } as usize;
        if is_ours(address) {
            let page_bytes = PAGE_BYTES.load(Ordering::Acquire);
            let page = address & !(page_bytes - 1);
            // SAFETY: the page lies in a mapping of ours, read-only, whose readers take any bytes; mmap(2) is a system call
            // and nothing else, so a handler may make it.
            let mapped = unsafe {
                libc::mmap(
                    page as *mut libc::c_void,
                    page_bytes,
                    libc::PROT_READ,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
                    -1,
                    0,
                )
            };
            if mapped != libc::MAP_FAILED {
                return;
            }
        }
        if let Some(before) = BEFORE.get() {
            // SAFETY: `before` is what the kernel gave; the read that failed is done again under it.
            unsafe { libc::sigaction(signal, before, std::ptr::null_mut()) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing::Folder;
    use std::fs::OpenOptions;

    #[test]
    fn a_file_that_is_shortened_while_it_is_mapped_reads_as_zeros() {
        const LEN: usize = 100_000;
        let folder = Folder::new();
        let path = folder.write("list", "x".repeat(LEN));
        let mapping = Mapping::open(&path).expect("mapped").expect("not empty");
        let other = Mapping::open(&folder.write("other", "y")).expect("mapped");
        let file = OpenOptions::new().write(true).open(&path).expect("opened");
        let is_at = |at: usize| mapping.as_ref()[at];
        assert_eq!((is_at(0), is_at(LEN - 1)), (b'x', b'x'));
        file.set_len(10).expect("shortened");
        assert_eq!((is_at(9), is_at(LEN - 1), is_at(50_000)), (b'x', 0, 0));
        file.set_len(0).expect("shortened");
        assert!(mapping.as_ref().iter().all(|&byte| byte == 0));
        assert_eq!(other.expect("not empty").as_ref(), b"y");
    }

    #[test]
    fn places_are_given_back() {
        let folder = Folder::new();
        let path = folder.write("list", "x");
        for _ in 0..3 * MAPPINGS_MAX {
            assert!(Mapping::open(&path).expect("a place").is_some());
        }
    }
}
