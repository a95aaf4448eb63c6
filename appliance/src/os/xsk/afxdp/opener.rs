//! The right to open the one socket of a slot, and what stands for the ledger that the other backend has.

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

/// A socket was closed.
#[derive(Debug)]
#[must_use = "the ledger has to know"]
pub struct Closed(());

/// Keeps the slot for as long as a worker uses it.
pub struct Pool {
    _slot: Arc<UmemSlot>,
    is_empty: bool,
}

impl Opener {
    /// Claims slot `index`, for one socket at once. `None`: there is no such slot, or somebody has it.
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

    /// How many sockets can be open at once.
    #[must_use]
    pub fn sharers(&self) -> usize {
        1
    }

    /// Whether none is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.is_taken
    }

    /// Opens a socket on a queue. Nothing is allocated afterwards.
    ///
    /// The XDP program has to be attached before.
    ///
    /// # Errors
    /// Names the function that failed.
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

    /// Closes a socket, which is to be told to the ledger.
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

    /// A socket is closed.
    pub fn reclaim(&mut self, _: &Closed) {
        self.is_empty = true;
    }

    /// Whether there is no socket.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.is_empty
    }

    /// Each socket keeps the books itself.
    #[must_use]
    pub fn holds(&self) -> bool {
        true
    }
}
