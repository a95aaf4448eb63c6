//! How a worker is told that sockets come or go, and under which policy it serves.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use heapless::Deque;
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::ports::lookup::Lookup;
use super::{Listeners, PolicySource, Port};

/// Letters that wait at most: one change and what undoes it, twice.
const LETTERS: usize = 4;

/// What a worker is told.
pub enum Letter {
    /// Serve this AF_XDP socket.
    Adopt(Box<Port>),
    /// Close the AF_XDP socket; the kernel's sockets serve on.
    Detach,
    /// Ask upstreams through these ports from now on.
    Ports(Box<Lookup>),
    /// Listen with these kernel sockets, too.
    Listen(Box<Listeners>),
    /// Serve under this policy from now on.
    NewPolicy(Arc<dyn PolicySource>),
    /// End.
    Stop,
}

/// What has not been opened yet.
struct Letters {
    others: Deque<Letter, LETTERS>,
    /// The newest policy: nobody has to serve under one that is no longer in force, so it always has a place.
    policy: Option<Arc<dyn PolicySource>>,
}

/// Full: `post` gives the letter back, but for a new policy, which takes the place of one that was not opened yet.
pub struct Mailbox {
    letters: Mutex<Letters>,
    /// Sockets that the worker could not wait at, and why, on their way back.
    returned: Mutex<Option<(Listeners, io::Error)>>,
    event: EventFd,
}

impl Mailbox {
    /// Empty.
    ///
    /// # Errors
    /// eventfd(2) failed.
    pub fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self {
            letters: Mutex::new(Letters {
                others: Deque::new(),
                policy: None,
            }),
            returned: Mutex::new(None),
            event: EventFd::from_flags(flags)?,
        })
    }

    /// Puts a letter in and wakes the worker.
    ///
    /// # Errors
    /// The worker has not opened the letters before; this one comes back.
    pub fn post(&self, letter: Letter) -> Result<(), Letter> {
        if let Letter::NewPolicy(policy) = letter {
            self.post_policy(policy);
            return Ok(());
        }
        let posted = self.letters().others.push_back(letter);
        self.wake();
        posted
    }

    /// Serves under `policy` from now on.
    pub fn post_policy(&self, policy: Arc<dyn PolicySource>) {
        let replaced = self.letters().policy.replace(policy);
        self.wake();
        // Not behind the lock, where the worker would wait for it.
        drop(replaced);
    }

    /// The worker cannot wait at these sockets. May allocate.
    pub(crate) fn give_back(&self, mut listeners: Listeners, error: io::Error) {
        let mut returned = self.returned.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((earlier, _)) = returned.take() {
            listeners.udp.extend(earlier.udp);
            listeners.tcp.extend(earlier.tcp);
        }
        *returned = Some((listeners, error));
    }

    /// The sockets that the worker could not wait at since the last call.
    pub fn take_returned(&self) -> Option<(Listeners, io::Error)> {
        let mut returned = self.returned.lock().unwrap_or_else(PoisonError::into_inner);
        returned.take()
    }

    /// Takes the oldest letter out, the policy last. The worker is woken again while there are more.
    pub(crate) fn take(&self) -> Option<Letter> {
        let mut letters = self.letters();
        let letter = match letters.others.pop_front() {
            Some(letter) => Some(letter),
            None => letters.policy.take().map(Letter::NewPolicy),
        };
        if letters.others.is_empty() && letters.policy.is_none() {
            // Fails only when nothing is to be read.
            let _ = self.event.read();
        }
        letter
    }

    fn letters(&self) -> MutexGuard<'_, Letters> {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // Fails only when the counter is about to overflow, and then the worker wakes anyway.
        let _ = self.event.write(1);
    }
}

impl AsFd for Mailbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xdnsd_core::policy::Policy;

    struct Numbered(u32);

    impl PolicySource for Numbered {
        fn policy(&self) -> Policy<'_> {
            Policy {
                generation: self.0,
                ..Policy::OPEN
            }
        }
    }

    #[test]
    fn a_worker_that_sleeps_serves_under_the_newest_policy_when_it_wakes() {
        let mailbox = Mailbox::new().expect("eventfd");
        for _ in 0..LETTERS {
            assert!(mailbox.post(Letter::Detach).is_ok());
        }
        assert!(mailbox.post(Letter::Stop).is_err(), "full");
        let policies: Vec<Arc<dyn PolicySource>> = (1..=9)
            .map(|number| Arc::new(Numbered(number)) as Arc<_>)
            .collect();
        for policy in &policies {
            assert!(mailbox.post(Letter::NewPolicy(policy.clone())).is_ok());
        }
        assert_eq!(
            Arc::strong_count(&policies[0]),
            1,
            "nobody holds the old ones"
        );
        for _ in 0..LETTERS {
            assert!(matches!(mailbox.take(), Some(Letter::Detach)));
        }
        let Some(Letter::NewPolicy(policy)) = mailbox.take() else {
            panic!("the policy was lost")
        };
        assert_eq!(policy.policy().generation, 9);
        assert!(mailbox.take().is_none());
    }
}
