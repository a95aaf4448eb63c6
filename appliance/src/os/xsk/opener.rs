//! Opens and closes the sockets of one slot: the first registers the memory, the others share it (`XDP_SHARED_UMEM`).
//!
//! It belongs to a thread other than the worker: closing a socket waits until the kernel has finished with the packets at hand,
//! some ten milliseconds.

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
    /// Descriptor of each open socket. A socket that is dropped instead of passed to [`Opener::close`] closes it as well.
    members: [Weak<OwnedFd>; SHARERS_MAX],
    /// Members in use, open or not: the pool has not learnt of the end of a dropped one.
    taken: [bool; SHARERS_MAX],
}

impl Opener {
    /// Claims slot `index`, for at most `sharers` sockets at once. `None` if there is no such slot, or if it is claimed.
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

    /// Most sockets open at once.
    #[must_use]
    pub fn sharers(&self) -> usize {
        self.shared.shape.sharers
    }

    /// True if no socket is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.taken.contains(&true)
    }

    /// Opens a socket on a queue. Nothing is allocated afterwards.
    ///
    /// Frames arrive once an XDP program redirects to the socket through an XSKMAP. They are copied, unless the slot is for a
    /// single socket.
    ///
    /// # Errors
    /// A system call failed; the error names it.
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
                // The interface of that socket is gone, and the socket is not closed yet.
                Err((step @ SetupStep::Bind(_), errno @ Errno::EBADF)) => last = (step, errno),
                opened => return opened,
            }
        }
        match sharing.is_empty() {
            true => setup::open(options, &self.shared, None),
            false => Err(last),
        }
    }

    /// Closes a socket. The result is for the pool; `None` if the pool never adopted the socket.
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
