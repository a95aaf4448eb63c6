//! Requests to the thread that reads the files of policy.

use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::compile::Prefix;
use crate::compile::why::{PolicyTrace, WhyQuestion};
use crate::config::Plan;
use crate::control::FILES_MAX;
use crate::control::commands::{PauseRequest, PauseState, PolicyReader};
use crate::worker::Inbox;

/// Result of a reload, in lines: what was read and what was passed over, or what was refused.
pub type ReloadOutcome = Result<Vec<String>, Vec<String>>;

/// Time that a new address waits until its network is let in.
const LET_IN_MAX: Duration = Duration::from_millis(500);

/// Request to the thread.
pub(super) enum ReloadRequest {
    /// Give these workers the set in force, and each later one.
    Serve(&'static [Inbox]),
    /// Follow the machine's addresses.
    Follow(Box<Plan>),
    /// Follow the machine's addresses, and report when the workers have been given them.
    LetIn(Box<Plan>, Sender<()>),
    /// Read everything again, and report to the sender if there is one.
    Reload(Option<Sender<ReloadOutcome>>),
    /// Pause lists if so asked, and report the current pauses.
    Pause(
        Option<PauseRequest>,
        Sender<Result<Vec<PauseState>, String>>,
    ),
    /// End the pause of one client, or of all; report whether there was one.
    Resume(Option<Prefix>, Sender<bool>),
    /// Trace why a question is answered as it is.
    Why(WhyQuestion, Sender<PolicyTrace>),
}

/// Requests without a waiting client. Repeated ones are merged while a file is read.
#[derive(Debug, Default)]
pub(super) struct Due {
    /// The newest plan.
    plan: Option<Box<Plan>>,
    is_reload: bool,
}

impl Due {
    fn take(&mut self) -> Option<ReloadRequest> {
        if let Some(plan) = self.plan.take() {
            return Some(ReloadRequest::Follow(plan));
        }
        std::mem::take(&mut self.is_reload).then_some(ReloadRequest::Reload(None))
    }
}

/// Sends requests to the thread that reads the files of policy.
#[derive(Clone, Debug)]
pub struct Requester {
    requests: Sender<ReloadRequest>,
    due: Arc<Mutex<Due>>,
    pub(super) wake: Arc<EventFd>,
}

/// Pending requests.
pub(super) struct ReloadRequests {
    requests: Receiver<ReloadRequest>,
    due: Arc<Mutex<Due>>,
}

impl ReloadRequests {
    pub(super) fn next(&self) -> Result<ReloadRequest, TryRecvError> {
        let request = self.requests.try_recv();
        if let Err(TryRecvError::Empty) = request {
            return lock(&self.due).take().ok_or(TryRecvError::Empty);
        }
        request
    }
}

impl Requester {
    pub(super) fn new() -> Result<(Self, ReloadRequests), String> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let wake = EventFd::from_flags(flags).map_err(|error| format!("eventfd: {error}"))?;
        let (requests, receiver) = mpsc::channel();
        let due = Arc::new(Mutex::default());
        let asked = ReloadRequests {
            requests: receiver,
            due: Arc::clone(&due),
        };
        let wake = Arc::new(wake);
        Ok((
            Self {
                requests,
                due,
                wake,
            },
            asked,
        ))
    }

    /// Sends a request and waits for the answer, with a timeout.
    fn wait_for<T>(&self, request: impl FnOnce(Sender<T>) -> ReloadRequest) -> Result<T, String> {
        let (reply, outcome) = mpsc::channel();
        if !self.ask(request(reply)) {
            return Err("the thread that reads files has ended".into());
        }
        let secs = FILES_MAX.as_secs();
        outcome
            .recv_timeout(FILES_MAX)
            .map_err(|_| format!("still reading after {secs} s"))
    }

    pub(super) fn ask(&self, request: ReloadRequest) -> bool {
        let is_sent = self.requests.send(request).is_ok();
        self.wake();
        is_sent
    }

    pub(super) fn follow(&self, plan: Plan) {
        lock(&self.due).plan = Some(Box::new(plan));
        self.wake();
    }

    /// Lets in the networks of the machine's new addresses before anybody listens there, so that the first query of a client
    /// finds its network let in. Waits for it, but not for long: a file that does not answer delays no address.
    pub fn let_in(&self, plan: &Plan) {
        let (reply, done) = mpsc::channel();
        if self.ask(ReloadRequest::LetIn(Box::new(plan.clone()), reply)) {
            let _ = done.recv_timeout(LET_IN_MAX);
        }
    }

    pub(super) fn reload_later(&self) {
        lock(&self.due).is_reload = true;
        self.wake();
    }

    fn wake(&self) {
        // Fails only if the counter is about to overflow, and then the thread wakes anyway.
        let _ = self.wake.write(1);
    }
}

impl PolicyReader for Requester {
    fn reload(&self) -> ReloadOutcome {
        let outcome = self.wait_for(|reply| ReloadRequest::Reload(Some(reply)));
        outcome.unwrap_or_else(|problem| {
            Err(vec![format!("{problem}; the log will say what came of it")])
        })
    }

    fn why(&self, question: WhyQuestion) -> Result<PolicyTrace, String> {
        self.wait_for(|reply| ReloadRequest::Why(question, reply))
    }

    fn pause(&self, wanted: Option<PauseRequest>) -> Result<Vec<PauseState>, String> {
        self.wait_for(|reply| ReloadRequest::Pause(wanted, reply))?
    }

    fn resume(&self, client: Option<Prefix>) -> Result<bool, String> {
        self.wait_for(|reply| ReloadRequest::Resume(client, reply))
    }
}

/// Locks even if a thread panicked while it held the lock: the state is valid at every moment.
pub(super) fn lock<T>(item: &Mutex<T>) -> MutexGuard<'_, T> {
    item.lock().unwrap_or_else(PoisonError::into_inner)
}
