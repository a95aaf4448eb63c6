//! Commands to a worker: sockets to open or close, and the policy to serve under.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use heapless::Deque;
use nix::sys::eventfd::{EfdFlags, EventFd};
use xdnsd_core::limits::SOCKETS;

use super::ports::lookup::LookupPorts;
use super::{Listeners, PolicySource, XskPort};
use crate::os::xsk::Closed;

/// Most commands that wait: one change and its reversal, twice; and for each AF_XDP socket its `Closed`, and for its successor
/// `Attach` and `Detach`, before which no other is opened.
const COMMANDS_MAX: usize = 4 + 4 * SOCKETS;

/// A command to a worker.
pub enum WorkerCommand {
    /// Serve this AF_XDP socket.
    Attach(Box<XskPort>),
    /// Give back the AF_XDP socket at this place.
    Detach(usize),
    /// The kernel has released all chunks of an AF_XDP socket that was given back.
    Closed(Closed),
    /// Ask upstreams through these ports from now on.
    Ports(Box<LookupPorts>),
    /// Also listen with these kernel sockets.
    Listen(Box<Listeners>),
    /// Serve under this policy from now on.
    NewPolicy(Arc<dyn PolicySource>),
    /// Answer the events at hand, then end.
    Stop,
}

/// Commands that the worker has not taken yet.
struct InboxQueue {
    others: Deque<WorkerCommand, COMMANDS_MAX>,
    /// The newest policy. It always has room, so that no worker serves under an old one.
    policy: Option<Arc<dyn PolicySource>>,
}

/// Command queue of one worker. Full: `send` returns the command; a new policy always fits, as it replaces one not yet taken.
pub struct Inbox {
    waiting: Mutex<InboxQueue>,
    /// Sockets that the worker could not add to its epoll, with the error, on their way back.
    returned: Mutex<Option<(Listeners, io::Error)>>,
    /// AF_XDP sockets on their way back.
    ports: Mutex<heapless::Vec<Box<XskPort>, SOCKETS>>,
    /// Signalled for each of them.
    has_port: Condvar,
    /// True if another engine has answered a question that this worker waits for.
    has_answers: AtomicBool,
    event: EventFd,
}

impl Inbox {
    /// An empty inbox.
    ///
    /// # Errors
    /// eventfd(2) failed.
    pub fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self {
            waiting: Mutex::new(InboxQueue {
                others: Deque::new(),
                policy: None,
            }),
            returned: Mutex::new(None),
            ports: Mutex::new(heapless::Vec::new()),
            has_port: Condvar::new(),
            has_answers: AtomicBool::new(false),
            event: EventFd::from_flags(flags)?,
        })
    }

    /// Queues a command and wakes the worker.
    ///
    /// # Errors
    /// The queue is full; the command is returned.
    pub fn send(&self, command: WorkerCommand) -> Result<(), WorkerCommand> {
        if let WorkerCommand::NewPolicy(policy) = command {
            self.send_policy(policy);
            return Ok(());
        }
        let sent = self.waiting().others.push_back(command);
        self.wake();
        sent
    }

    /// Has the worker serve under `policy` from now on.
    pub fn send_policy(&self, policy: Arc<dyn PolicySource>) {
        let replaced = self.waiting().policy.replace(policy);
        self.wake();
        // Dropped after the lock is released, since the worker would wait for it.
        drop(replaced);
    }

    /// Tells the worker that another engine no longer asks a question that it waits for. Never waits.
    pub(crate) fn tell_of_answers(&self) {
        self.has_answers.store(true, Ordering::Release);
        self.wake();
    }

    /// True if it was told of answers since the last call.
    pub(crate) fn take_answers(&self) -> bool {
        // Mostly false: a load leaves the line with the other workers.
        self.has_answers.load(Ordering::Relaxed) && self.has_answers.swap(false, Ordering::AcqRel)
    }

    /// Returns sockets that the worker could not add to its epoll. May allocate.
    pub(crate) fn give_back(&self, mut listeners: Listeners, error: io::Error) {
        let mut returned = self.returned.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((earlier, _)) = returned.take() {
            listeners.udp.extend(earlier.udp);
            listeners.tcp.extend(earlier.tcp);
        }
        *returned = Some((listeners, error));
    }

    /// Takes the sockets that were returned since the last call, with the latest error.
    pub fn take_returned(&self) -> Option<(Listeners, io::Error)> {
        let mut returned = self.returned.lock().unwrap_or_else(PoisonError::into_inner);
        returned.take()
    }

    /// Returns an AF_XDP socket to be closed.
    pub(crate) fn give_back_port(&self, port: Box<XskPort>) {
        let pushed = self.ports().push(port);
        debug_assert!(pushed.is_ok(), "there are no more sockets than places");
        self.has_port.notify_one();
    }

    /// Takes the AF_XDP sockets returned since the last call; waits up to `patience` for the first.
    pub fn take_ports(&self, patience: Duration) -> Vec<Box<XskPort>> {
        let ports = self.ports();
        let waited = self
            .has_port
            .wait_timeout_while(ports, patience, |ports| ports.is_empty());
        let (mut ports, _) = waited.unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *ports).into_iter().collect()
    }

    fn ports(&self) -> MutexGuard<'_, heapless::Vec<Box<XskPort>, SOCKETS>> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the oldest command, the policy last. The worker stays awake while there are more.
    pub(crate) fn take(&self) -> Option<WorkerCommand> {
        let mut waiting = self.waiting();
        let command = match waiting.others.pop_front() {
            Some(command) => Some(command),
            None => waiting.policy.take().map(WorkerCommand::NewPolicy),
        };
        if waiting.others.is_empty() && waiting.policy.is_none() {
            // Fails only when there is nothing to read.
            let _ = self.event.read();
        }
        command
    }

    fn waiting(&self) -> MutexGuard<'_, InboxQueue> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // Fails only when the counter would overflow, and then the worker wakes anyway.
        let _ = self.event.write(1);
    }
}

impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::tests::Numbered;

    #[test]
    fn a_worker_that_is_told_of_answers_wakes_and_is_told_once() {
        let inbox = Inbox::new().expect("eventfd");
        assert!(!inbox.take_answers());
        inbox.tell_of_answers();
        inbox.tell_of_answers();
        assert!(inbox.event.read().is_ok(), "it wakes");
        assert!(inbox.take_answers() && !inbox.take_answers());
    }

    #[test]
    fn a_worker_that_sleeps_serves_under_the_newest_policy_when_it_wakes() {
        let inbox = Inbox::new().expect("eventfd");
        for _ in 0..COMMANDS_MAX {
            assert!(inbox.send(WorkerCommand::Detach(0)).is_ok());
        }
        assert!(inbox.send(WorkerCommand::Stop).is_err(), "full");
        let policies: Vec<Arc<dyn PolicySource>> = (1..=9)
            .map(|number| Arc::new(Numbered(number)) as Arc<_>)
            .collect();
        for policy in &policies {
            assert!(inbox.send(WorkerCommand::NewPolicy(policy.clone())).is_ok());
        }
        assert_eq!(
            Arc::strong_count(&policies[0]),
            1,
            "nobody holds the old ones"
        );
        for _ in 0..COMMANDS_MAX {
            assert!(matches!(inbox.take(), Some(WorkerCommand::Detach(0))));
        }
        let Some(WorkerCommand::NewPolicy(policy)) = inbox.take() else {
            panic!("the policy was lost")
        };
        assert_eq!(policy.policy().generation, 9);
        assert!(inbox.take().is_none());
    }
}
