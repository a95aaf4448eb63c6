//! A state that one thread sets and others read.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Shared state; a clone refers to the same one.
#[derive(Clone, Debug, Default)]
pub struct SharedState<S>(Arc<Mutex<S>>);

impl<S: Copy> SharedState<S> {
    /// Reads the state.
    #[must_use]
    pub fn get(&self) -> S {
        *self.lock()
    }

    /// Sets the state for all.
    pub fn set(&self, state: S) {
        *self.lock() = state;
    }

    /// Locks even if a thread panicked while it held the lock: the state is valid at every moment.
    fn lock(&self) -> MutexGuard<'_, S> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::SharedState;

    #[test]
    fn what_one_sets_the_others_read() {
        let shared = SharedState::<u8>::default();
        let reader = shared.clone();
        assert_eq!(reader.get(), 0);
        shared.set(7);
        assert_eq!(reader.get(), 7);
    }
}
