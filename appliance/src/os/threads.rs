//! Threads with a name and a stack that the memory budget knows.

use std::thread;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};

/// What a build without optimisation needs beside it: values are copied from frame to frame there. It is no build that ships, and
/// has no line in the budget.
const DEBUG_STACK_BYTES: usize = if cfg!(debug_assertions) { 64 * 1024 } else { 0 };

/// Stack of every thread but the first.
pub const STACK_BYTES: usize = 128 * 1024;

/// Stack of a small thread: control and snapshot touch 16 KiB of it, compiled without optimisation.
pub const SMALL_STACK_BYTES: usize = 44 * 1024;
/// Stack of the thread that puts the statistics into words.
pub const STATISTICS_STACK_BYTES: usize = 64 * 1024;
/// A thread with a name and a stack that the budget knows.
pub fn builder(name: &str) -> thread::Builder {
    builder_with_stack(name, STACK_BYTES)
}

/// A thread whose stack has a line of its own in the budget.
pub fn builder_with_stack(name: &str, bytes: usize) -> thread::Builder {
    let bytes = bytes + DEBUG_STACK_BYTES;
    thread::Builder::new().name(name.into()).stack_size(bytes)
}

/// Has a limit on the size of files be an error of the one write that meets it, in this thread and all that it starts: the signal
/// that comes with it would end the process.
pub fn survive_file_limit() {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGXFSZ);
    // Fails for wrong arguments alone.
    let _ = signals.thread_block();
}

/// Stack that the first thread may come to need, with room to spare.
const FIRST_STACK_BYTES: u64 = if cfg!(debug_assertions) {
    1024 * 1024
} else {
    512 * 1024
};

/// Lets the stack of the first thread grow as far as it has to. The kernel asks for the limit when it grows.
///
/// # Errors
/// It may not: a sentence with the limit, and what is needed.
pub fn widen_first_stack() -> Result<(), String> {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_STACK) else {
        return Ok(());
    };
    if soft >= FIRST_STACK_BYTES {
        return Ok(());
    }
    // Above the hard limit with CAP_SYS_RESOURCE alone.
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
