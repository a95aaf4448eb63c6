//! A program that several threads have: the one that attaches it, those that read its counters and those that tell it something.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::os::xdp::Program;

/// A program that others may have a look at; `None` while the interface is away.
pub type SharedProgram = Arc<Mutex<Option<Program>>>;

/// Locks although a thread panicked while it held the lock: a program is valid at every moment.
pub fn lock(program: &SharedProgram) -> MutexGuard<'_, Option<Program>> {
    program.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Detaches the program. That may take a driver long, so nobody who reads its counters waits for it.
pub fn detach(program: &SharedProgram) {
    let taken = lock(program).take();
    drop(taken);
}
