//! The fence around `mmap`: tables whose size is chosen at the start.
//!
//! The kernel's fresh pages are zero, and none is taken from the machine before it is written to: a table costs as much of them
//! as it uses. It is mapped for good.

use std::io;
use std::num::NonZeroUsize;

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};
use xdnsd_core::cache::Shard;

/// A type of which all bits zero are a value, as its documentation promises.
///
/// # Safety
/// All bits zero are a valid value, and it needs an alignment of at most a page.
pub unsafe trait Zeroed {}

// SAFETY: "All zero bits are an empty shard": it has integers, `Head`s of integers and booleans, whose zero is false, and
// heapless vectors: a length, here 0, and bytes that need not be initialised. A test below compares it with a new one.
unsafe impl Zeroed for Shard {}

// SAFETY: every pattern of bits is bytes.
unsafe impl<const LEN: usize> Zeroed for [u8; LEN] {}

/// Maps `count` values with all bits zero, at the start of a page.
///
/// # Errors
/// There is not as much memory, with the number of bytes.
pub fn slice<T: Zeroed>(count: usize) -> io::Result<&'static mut [T]> {
    let bytes = count.checked_mul(size_of::<T>());
    let Some(bytes) = bytes.and_then(NonZeroUsize::new) else {
        return Ok(&mut []);
    };
    let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: no address is given, so the kernel picks one where nothing of ours is mapped.
    let start = unsafe { mmap_anonymous(None, bytes, protection, MapFlags::MAP_PRIVATE) };
    let start = start.map_err(|errno| {
        let error = io::Error::from(errno);
        io::Error::new(error.kind(), format!("{bytes} bytes of memory: {errno}"))
    })?;
    // SAFETY: the mapping has as many bytes as `count` values, is private to this process, starts at a page, which aligns them,
    // and is never unmapped. It is all zero, which is a value of this type, and this is the only reference to it.
    Ok(unsafe { std::slice::from_raw_parts_mut(start.as_ptr().cast(), count) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_of_zeros_is_a_new_one() {
        static NEW: Shard = Shard::new();
        let zeroed = slice::<Shard>(2).expect("memory");
        // Everything that is defined of it, field by field.
        assert_eq!(format!("{:?}", zeroed[1]), format!("{NEW:?}"));
        assert_eq!(zeroed[0].clear(), 0);
    }

    #[test]
    fn pages_are_zero_and_what_there_is_not_is_said_in_bytes() {
        let pages = slice::<[u8; 4096]>(3).expect("memory");
        assert_eq!(pages.as_ptr() as usize % 4096, 0);
        assert!(pages.iter().flatten().all(|byte| *byte == 0));
        pages[2][4095] = 1;
        assert!(slice::<[u8; 4096]>(0).expect("nothing").is_empty());
        let refused = slice::<[u8; 4096]>(1 << 40).expect_err("4 PiB");
        let told = refused.to_string();
        assert!(
            told.starts_with("4503599627370496 bytes of memory: "),
            "{told}"
        );
    }
}
