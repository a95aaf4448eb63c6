//! How the supervisor tells a worker that an AF_XDP socket comes or goes.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};

use heapless::Deque;
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::{PolicySource, Port};

/// Letters that wait at most: one change and what undoes it, twice.
const LETTERS: usize = 4;

/// What a worker is told.
pub enum Letter {
    /// Serve this AF_XDP socket.
    Adopt(Box<Port>),
    /// Close the AF_XDP socket; the kernel's sockets serve on.
    Detach,
    /// Serve under this policy from now on.
    NewPolicy(Arc<dyn PolicySource>),
    /// End.
    Stop,
}

/// Full: `post` gives the letter back.
pub struct Mailbox {
    letters: Mutex<Deque<Letter, LETTERS>>,
    event: EventFd,
}

impl Mailbox {
    /// Empty.
    ///
    /// # Errors
    /// eventfd(2) failed.
    pub fn new() -> std::io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self {
            letters: Mutex::new(Deque::new()),
            event: EventFd::from_flags(flags)?,
        })
    }

    /// Puts a letter in and wakes the worker.
    ///
    /// # Errors
    /// The worker has not opened the letters before; this one comes back.
    pub fn post(&self, letter: Letter) -> Result<(), Letter> {
        let mut letters = self.letters.lock().unwrap_or_else(PoisonError::into_inner);
        letters.push_back(letter)?;
        drop(letters);
        // Fails only when the counter is about to overflow, and then the worker wakes anyway.
        let _ = self.event.write(1);
        Ok(())
    }

    /// Takes the oldest letter out. The worker is woken again while there are more.
    pub(super) fn take(&self) -> Option<Letter> {
        let mut letters = self.letters.lock().unwrap_or_else(PoisonError::into_inner);
        let letter = letters.pop_front();
        if letters.is_empty() {
            // Fails only when nothing is to be read.
            let _ = self.event.read();
        }
        letter
    }
}

impl AsFd for Mailbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}
