//! The allocator seal: counts allocations of sealed threads after start-up, and in tests aborts the process.
//!
//! The daemon's only global allocator. It passes every request to the system's allocator and checks a thread-local flag on the
//! way. Freeing memory is allowed.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::marker::PhantomData;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Environment variable: `abort` aborts the process at the first allocation in a sealed thread.
pub const VARIABLE: &str = "XDNSD_SEAL";

#[global_allocator]
static ALLOCATOR: SealedAllocator = SealedAllocator;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static ABORT: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// Constant and without a destructor: reading it neither allocates nor fails, even while the thread ends.
    static SEALED: Cell<bool> = const { Cell::new(false) };
    /// Largest allocation that the calling thread is given, in bytes.
    static PIECE_MAX: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// Keeps the calling thread sealed until it is dropped.
#[derive(Debug)]
#[must_use = "dropping it lifts the seal"]
pub struct Seal {
    /// Makes the type !Send, since it belongs to its thread.
    not_send: PhantomData<*const ()>,
}

impl Seal {
    /// Seals the calling thread.
    pub fn this_thread() -> Self {
        SEALED.set(true);
        Self {
            not_send: PhantomData,
        }
    }
}

impl Drop for Seal {
    fn drop(&mut self) {
        SEALED.set(false);
    }
}

/// Runs `f` with the seal lifted, for rare work that may allocate, such as a log line.
pub fn unsealed<R>(f: impl FnOnce() -> R) -> R {
    let sealed = SEALED.replace(false);
    let result = f();
    SEALED.set(sealed);
    result
}

/// Runs `f` while every allocation of the calling thread above `bytes` fails. Only for code that can do without the memory:
/// elsewhere a failed allocation ends the process.
pub fn with_pieces_up_to<R>(bytes: usize, f: impl FnOnce() -> R) -> R {
    let before = PIECE_MAX.replace(bytes);
    let result = f();
    PIECE_MAX.set(before);
    result
}

/// Reads [`VARIABLE`] once, at the start.
pub fn configure() {
    let abort = std::env::var_os(VARIABLE).is_some_and(|value| value == "abort");
    ABORT.store(abort, Ordering::Relaxed);
}

/// Allocations in sealed threads since the start.
#[must_use]
pub fn allocations() -> u64 {
    ALLOCATIONS.load(Ordering::Relaxed)
}

/// Gives free memory back to the kernel, where the C library does not by itself (malloc_trim(3)). For a process that waits long
/// after it needed much.
pub fn give_back() {
    // SAFETY: takes a number, and only frees pages that no allocation has.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0)
    };
}

/// Counts an allocation if the calling thread is sealed. Never allocates itself.
fn note() {
    if !SEALED.get() {
        return;
    }
    ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    if ABORT.load(Ordering::Relaxed) {
        // What follows, such as capturing a backtrace, may allocate.
        SEALED.set(false);
        eprintln!(
            "xdnsd: allocation in a sealed thread:\n{}",
            std::backtrace::Backtrace::force_capture()
        );
        std::process::abort();
    }
}

struct SealedAllocator;

// SAFETY: every method either passes its arguments unchanged to `System`, which upholds GlobalAlloc's contract, and returns its
// result, or returns null, which reports failure and leaves existing memory as it is; `note` neither unwinds nor allocates (it
// aborts the process instead).
unsafe impl GlobalAlloc for SealedAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note();
        if layout.size() > PIECE_MAX.get() {
            return ptr::null_mut();
        }
        // SAFETY: the caller promises a layout of non-zero size, as `System` requires.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note();
        if layout.size() > PIECE_MAX.get() {
            return ptr::null_mut();
        }
        // SAFETY: the caller promises a layout of non-zero size, as `System` requires.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        note();
        if new_size > PIECE_MAX.get() {
            return ptr::null_mut();
        }
        // SAFETY: the caller promises that `ptr` came from this allocator, hence from `System`, with this layout, and
        // that `new_size` is neither zero nor too large.
        unsafe { System.realloc(ptr, layout, new_size) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller promises that `ptr` came from this allocator, hence from `System`, with this layout.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hint::black_box;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    /// Counts on its own thread; the counter is per process, so only one test may increment it.
    #[test]
    fn allocations_count_only_where_the_thread_is_sealed() {
        let before = allocations();
        let mut kept: Vec<u8> = black_box(Vec::with_capacity(1));
        assert_eq!(allocations(), before, "not sealed");

        let seal = Seal::this_thread();
        drop(black_box(Box::new(1)));
        assert_eq!(allocations(), before + 1, "alloc");
        drop(black_box(vec![0_u8; 64]));
        assert_eq!(allocations(), before + 2, "alloc_zeroed");
        kept.reserve_exact(4096);
        assert_eq!(allocations(), before + 3, "realloc");
        drop(black_box(kept));
        assert_eq!(allocations(), before + 3, "giving back is free");
        drop(unsealed(|| black_box(Box::new(2))));
        assert_eq!(allocations(), before + 3, "lifted");
        let other = unsealed(|| std::thread::spawn(|| drop(black_box(Box::new(3)))));
        unsealed(|| other.join().expect("the other thread ends"));
        assert_eq!(allocations(), before + 3, "another thread");
        drop(seal);

        drop(black_box(Box::new(4)));
        assert_eq!(allocations(), before + 3, "dropped");
    }

    #[test]
    fn large_pieces_are_refused_where_the_thread_says_so_and_nowhere_else() {
        let reserve = |mut kept: Vec<u8>, bytes| kept.try_reserve_exact(bytes).is_ok();
        with_pieces_up_to(64, || {
            assert!(reserve(Vec::new(), 64), "alloc");
            assert!(!reserve(Vec::new(), 65), "alloc");
            assert!(!reserve(vec![1], 65), "realloc");
        });
        assert!(reserve(Vec::new(), 65), "afterwards");
    }

    /// Runs itself in a child process that allocates while sealed.
    #[test]
    fn a_sealed_thread_that_allocates_aborts_where_it_is_told_to() {
        const CHILD: &str = "XDNSD_TEST_ALLOCATES";
        if std::env::var_os(CHILD).is_some() {
            configure();
            let _seal = Seal::this_thread();
            drop(black_box(Box::new(1)));
            return;
        }
        let child = |seal: &str| {
            Command::new(std::env::current_exe().expect("the test executable"))
                .args([
                    "--exact",
                    "--nocapture",
                    "os::seal::tests::a_sealed_thread_that_allocates_aborts_where_it_is_told_to",
                ])
                .env(CHILD, "1")
                .env(VARIABLE, seal)
                .output()
                .expect("the child runs")
        };
        let aborted = child("abort");
        assert_eq!(aborted.status.signal(), Some(6), "SIGABRT: {aborted:?}");
        let said = String::from_utf8_lossy(&aborted.stderr).into_owned();
        assert!(said.contains("allocation in a sealed thread"), "{said}");
        assert!(child("count").status.success());
    }
}
