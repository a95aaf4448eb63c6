//! The memory of one ring, mapped from the socket.

use super::ring::{RingEntry, RingMemory};
use core::marker::PhantomData;
use core::num::NonZeroUsize;
use core::ptr::NonNull;
use core::sync::atomic::AtomicU32;
use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use rustix::net::xdp::XdpRingOffset;
use std::os::fd::BorrowedFd;

/// Owns the mapping; unmapped on drop.
///
/// Invariant: `base` is the page-aligned start of `bytes` mapped bytes, readable and writable; `producer`, `consumer`
/// and `flags` are 4-aligned offsets of words in it, and `entries` is the 8-aligned offset of `size` entries in it.
pub struct Mapping<E> {
    base: NonNull<u8>,
    bytes: NonZeroUsize,
    producer: usize,
    consumer: usize,
    flags: usize,
    entries: usize,
    size: usize,
    _entries: PhantomData<E>,
}

// SAFETY: the mapping belongs to the process, and is only reached through atomics.
unsafe impl<E> Send for Mapping<E> {}

impl<E> Mapping<E> {
    /// Maps the ring of `size` entries at file offset `page`; `offsets` is the kernel's layout of it.
    pub fn new(
        fd: BorrowedFd<'_>,
        page: libc::off_t,
        offsets: &XdpRingOffset,
        size: usize,
    ) -> nix::Result<Self> {
        // Kernels before 5.4 have no flags word.
        let flags = offsets.flags.ok_or(Errno::EINVAL)?;
        let [producer, consumer, flags, entries] =
            [offsets.producer, offsets.consumer, flags, offsets.desc].map(|offset| offset as usize);
        let bytes = entries + size * size_of::<E>();
        check_layout::<E>(producer, consumer, flags, entries, bytes)?;
        let bytes = NonZeroUsize::new(bytes).ok_or(Errno::EINVAL)?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice cannot touch memory that exists.
        let base = unsafe {
            mmap(
                None,
                bytes,
                access,
                MapFlags::MAP_SHARED | MapFlags::MAP_POPULATE,
                fd,
                page,
            )
        }?;
        Ok(Self {
            base: base.cast(),
            bytes,
            producer,
            consumer,
            flags,
            entries,
            size,
            _entries: PhantomData,
        })
    }

    /// The word at a checked offset.
    fn word(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: by the invariant the offset lies in the mapping and is aligned; the mapping lives as long as self.
        // The kernel writes the word too, which an atomic allows.
        unsafe { self.base.add(offset).cast::<AtomicU32>().as_ref() }
    }
}

/// Checks the kernel's layout once, so that every later access may rely on it.
fn check_layout<E>(
    producer: usize,
    consumer: usize,
    flags: usize,
    entries: usize,
    bytes: usize,
) -> nix::Result<()> {
    let word_fits = |offset: usize| {
        offset.is_multiple_of(align_of::<AtomicU32>()) && offset + size_of::<AtomicU32>() <= bytes
    };
    let fits = word_fits(producer)
        && word_fits(consumer)
        && word_fits(flags)
        && entries.is_multiple_of(align_of::<E>());
    if fits { Ok(()) } else { Err(Errno::EINVAL) }
}

impl<E: RingEntry> RingMemory for Mapping<E> {
    type Entry = E;

    fn producer(&self) -> &AtomicU32 {
        self.word(self.producer)
    }

    fn consumer(&self) -> &AtomicU32 {
        self.word(self.consumer)
    }

    fn flags(&self) -> &AtomicU32 {
        self.word(self.flags)
    }

    fn entries(&self) -> &[E] {
        // SAFETY: by the invariant `size` aligned entries lie in the mapping, which lives as long as self. Entries are
        // structs of atomics, for which any bytes are a value and concurrent writes by the kernel are allowed.
        unsafe {
            core::slice::from_raw_parts(self.base.add(self.entries).cast::<E>().as_ptr(), self.size)
        }
    }
}

impl<E> Drop for Mapping<E> {
    fn drop(&mut self) {
        // SAFETY: base and bytes are what mmap gave us, and no reference outlives self.
        let unmapped = unsafe { munmap(self.base.cast(), self.bytes.get()) };
        debug_assert!(unmapped.is_ok(), "munmap of our own mapping");
    }
}
