//! Threads with names and stacks that the memory budget counts.

use std::thread;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};

/// Names the first thread, and with it the process.
pub fn name_first(name: &str) {
    // Fails only for a name that has a zero.
    if let Ok(name) = std::ffi::CString::new(name) {
        let _ = nix::sys::prctl::set_name(&name);
    }
}

/// Extra stack for builds without optimisation, which copy values from frame to frame. Such builds never ship, so the budget
/// leaves it out.
const DEBUG_STACK_BYTES: usize = if cfg!(debug_assertions) { 96 * 1024 } else { 0 };

/// Stack of each thread but the first, in bytes.
pub const STACK_BYTES: usize = 128 * 1024;

/// Stack of a small thread, in bytes: control and snapshot touch 16 KiB of it, compiled without optimisation.
pub const SMALL_STACK_BYTES: usize = 44 * 1024;
/// Stack of the thread that formats the statistics, in bytes.
pub const STATISTICS_STACK_BYTES: usize = 64 * 1024;
/// Stack of the thread that fills sets of nf_tables, in bytes.
pub const SETS_STACK_BYTES: usize = 32 * 1024;
/// A named thread with [`STACK_BYTES`].
pub fn builder(name: &str) -> thread::Builder {
    builder_with_stack(name, STACK_BYTES)
}

/// A named thread with a stack that has its own line in the budget.
pub fn builder_with_stack(name: &str, bytes: usize) -> thread::Builder {
    let bytes = bytes + DEBUG_STACK_BYTES;
    thread::Builder::new().name(name.into()).stack_size(bytes)
}

/// Turns exceeding the file size limit into an error of the write, for this thread and all that it starts: SIGXFSZ would end the
/// process.
pub fn survive_file_limit() {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGXFSZ);
    // Fails only for wrong arguments.
    let _ = signals.thread_block();
}

/// Stack that the first thread may need, with room to spare, in bytes.
const FIRST_STACK_BYTES: u64 = if cfg!(debug_assertions) {
    1024 * 1024
} else {
    512 * 1024
};

/// Raises the stack limit of the first thread as far as needed. The kernel checks the limit whenever the stack grows.
///
/// # Errors
/// The limit may not be raised: a sentence with the limit, and what is needed.
pub fn widen_first_stack() -> Result<(), String> {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_STACK) else {
        return Ok(());
    };
    if soft >= FIRST_STACK_BYTES {
        return Ok(());
    }
    // Raising it beyond the hard limit needs CAP_SYS_RESOURCE.
    setrlimit(
        Resource::RLIMIT_STACK,
        FIRST_STACK_BYTES,
        hard.max(FIRST_STACK_BYTES),
    )
    .map_err(|_| too_small(soft))
}

fn too_small(limit: u64) -> String {
    let (limit, needed) = (limit / 1024, FIRST_STACK_BYTES / 1024);
    format!("the stack may have {limit} KiB: {needed} are needed (`ulimit -s`, LimitSTACK)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_has_its_name() {
        let name = builder("statistics").spawn(|| thread::current().name().map(str::to_owned));
        assert_eq!(
            name.expect("it starts").join().expect("it ends").as_deref(),
            Some("statistics")
        );
    }
}
