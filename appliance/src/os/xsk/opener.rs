//! Opens and closes the sockets of one slot: the first registers the memory, the others share it (`XDP_SHARED_UMEM`).
//!
//! One thread has it, and that is not the worker's: to close a socket waits until the kernel reads no packet any more that it
//! had in hand, some ten milliseconds.

use super::error::{SetupError, SetupStep};
use super::pool::{Closed, Pool, SharedUmem};
use super::setup::{self, Opened};
use super::shape::{SHARERS_MAX, Shape};
use super::slot::{ChunkSet, UmemSlot};
use super::socket::Xsk;
use super::{Options, sys};
use nix::errno::Errno;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Weak};

/// The right to open sockets on one slot.
#[derive(Debug)]
pub struct Opener {
    shared: Arc<SharedUmem>,
    /// The descriptor of each that is open. Whoever drops a socket without us closes it as well.
    members: [Weak<OwnedFd>; SHARERS_MAX],
    /// Which of them are in use, open or not: the ledger has not heard of the end of one that was dropped.
    taken: [bool; SHARERS_MAX],
}

impl Opener {
    /// Claims slot `index`, for at most `sharers` sockets at once. `None`: there is no such slot, or somebody has it.
    #[must_use]
    pub fn claim(index: usize, sharers: usize) -> Option<(Self, Pool)> {
        let sharers = sharers.clamp(1, SHARERS_MAX).next_power_of_two();
        let shared = Arc::new(SharedUmem {
            slot: UmemSlot::claim(index)?,
            shape: Shape::of(sharers),
            spare: ChunkSet::new(),
        });
        let opener = Self {
            shared: Arc::clone(&shared),
            members: [const { Weak::new() }; SHARERS_MAX],
            taken: [false; SHARERS_MAX],
        };
        Some((opener, Pool::new(shared)))
    }

    /// How many sockets can be open at once.
    #[must_use]
    pub fn sharers(&self) -> usize {
        self.shared.shape.sharers
    }

    /// Whether none is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.taken.contains(&true)
    }

    /// Opens a socket on a queue. Nothing is allocated afterwards.
    ///
    /// Frames arrive once an XDP program redirects to the descriptor through an XSKMAP. They are copied, unless the socket is
    /// the only one that can be.
    ///
    /// # Errors
    /// Names the system call that failed.
    pub fn open(&mut self, options: &Options<'_>) -> Result<Xsk, SetupError> {
        let failed = |(step, errno)| SetupError {
            interface: options.interface.to_owned(),
            queue: options.queue,
            step,
            errno,
        };
        let places = &self.taken[..self.shared.shape.sharers];
        let place = places.iter().position(|taken| !taken);
        let member = place.ok_or_else(|| failed((SetupStep::Share, Errno::ENOSPC)))?;
        let opened = self.open_as(options).map_err(failed)?;
        let (xsk, fd) = Xsk::new(opened, Arc::clone(&self.shared), member as u8);
        self.members[member] = fd;
        self.taken[member] = true;
        Ok(xsk)
    }

    fn open_as(&self, options: &Options<'_>) -> setup::StepResult<Opened> {
        sys::raise_memlock();
        let sharing: Vec<Arc<OwnedFd>> = self.members.iter().filter_map(Weak::upgrade).collect();
        let mut last = (SetupStep::Share, Errno::EBADF);
        for other in &sharing {
            match setup::open(options, &self.shared, Some(other.as_fd())) {
                // Its interface is gone, and it is not closed yet.
                Err((step @ SetupStep::Bind(_), errno @ Errno::EBADF)) => last = (step, errno),
                opened => return opened,
            }
        }
        match sharing.is_empty() {
            true => setup::open(options, &self.shared, None),
            false => Err(last),
        }
    }

    /// Closes a socket. What it had is to be told to the ledger, unless that never knew it.
    #[must_use]
    pub fn close(&mut self, mut xsk: Xsk) -> Option<Closed> {
        let slot = self.shared.slot.index();
        assert_eq!(xsk.slot(), slot, "a socket of this UMEM");
        let member = xsk.member();
        let primed = xsk.take_primed();
        drop(xsk);
        self.members[usize::from(member)] = Weak::new();
        self.taken[usize::from(member)] = false;
        match primed {
            Some(primed) => {
                std::iter::from_fn(|| primed.take()).for_each(|index| self.shared.spare.put(index));
                None
            }
            None => Some(Closed { slot, member }),
        }
    }
}
