//! The right to open the one socket of a slot, and a stand-in for the other backend's pool.

use super::Xsk;
use crate::os::xsk::error::SetupError;
use crate::os::xsk::slot::UmemSlot;
use crate::os::xsk::{Options, error::SetupStep};
use nix::errno::Errno;
use std::sync::Arc;

/// The right to open the socket of one slot.
#[derive(Debug)]
pub struct Opener {
    slot: Arc<UmemSlot>,
    is_taken: bool,
}

/// Proof that a socket was closed.
#[derive(Debug)]
#[must_use = "the ledger has to know"]
pub struct Closed(());

/// Keeps the slot claimed while a worker uses it.
pub struct Pool {
    _slot: Arc<UmemSlot>,
    is_empty: bool,
}

impl Opener {
    /// Claims slot `index`, for one socket at once. `None` if there is no such slot, or if it is claimed.
    #[must_use]
    pub fn claim(index: usize, _: usize) -> Option<(Self, Pool)> {
        let slot = Arc::new(UmemSlot::claim(index)?);
        let pool = Pool {
            _slot: Arc::clone(&slot),
            is_empty: true,
        };
        let is_taken = false;
        Some((Self { slot, is_taken }, pool))
    }

    /// Most sockets open at once.
    #[must_use]
    pub fn sharers(&self) -> usize {
        1
    }

    /// True if no socket is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.is_taken
    }

    /// Opens a socket on a queue. Nothing is allocated afterwards.
    ///
    /// The XDP program has to be attached before.
    ///
    /// # Errors
    /// A function of the crate failed; the error names it.
    pub fn open(&mut self, options: &Options<'_>) -> Result<Xsk, SetupError> {
        if self.is_taken {
            return Err(SetupError {
                interface: options.interface.to_owned(),
                queue: options.queue,
                step: SetupStep::Share,
                errno: Errno::ENOSPC,
            });
        }
        let xsk = Xsk::open(options, Arc::clone(&self.slot))?;
        self.is_taken = true;
        Ok(xsk)
    }

    /// Closes a socket; the result is for the worker's [`Pool`].
    #[must_use]
    pub fn close(&mut self, xsk: Xsk) -> Option<Closed> {
        drop(xsk);
        self.is_taken = false;
        Some(Closed(()))
    }
}

impl Pool {
    pub(super) fn join(&mut self) {
        self.is_empty = false;
    }

    /// Notes that a socket is closed.
    pub fn reclaim(&mut self, _: &Closed) {
        self.is_empty = true;
    }

    /// True without a socket.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.is_empty
    }

    /// Always true: each socket tracks its chunks itself.
    #[must_use]
    pub fn holds(&self) -> bool {
        true
    }
}
