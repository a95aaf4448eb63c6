//! The thread that writes snapshots: when the interval is over and something changed, when asked to, and at the end.

use std::io;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use log::{debug, error, info};

use super::Store;
use crate::cache::SharedCache;
use crate::memory;
use crate::text;

/// Time between two lines about a disk that stays full or read-only.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(600);

/// The thread, and the way to it.
#[derive(Debug)]
pub struct Keeper {
    requests: Sender<Request>,
    thread: JoinHandle<()>,
}

/// Asks the thread to write.
#[derive(Clone, Debug)]
pub struct Saver(Sender<Request>);

#[derive(Debug)]
enum Request {
    Save(Sender<Result<usize, String>>),
    Finish,
}

impl Keeper {
    /// Starts the thread. `changes` grows with everything that is put into the cache or taken out of it; where it did
    /// not, there is nothing to write.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn spawn(
        store: Store,
        cache: &'static SharedCache,
        interval: Duration,
        changes: impl Fn() -> u64 + Send + 'static,
    ) -> io::Result<Self> {
        let (requests, inbox) = mpsc::channel();
        let written = changes();
        let keep = move || {
            let mut work = Work {
                store,
                cache,
                changes,
                written,
                complaint: None,
            };
            work.run(&inbox, interval);
        };
        let thread =
            memory::thread_with_stack("snapshot", memory::SMALL_STACK_BYTES).spawn(keep)?;
        Ok(Self { requests, thread })
    }

    /// A way to ask for a snapshot out of turn.
    #[must_use]
    pub fn saver(&self) -> Saver {
        Saver(self.requests.clone())
    }

    /// Writes a last snapshot where something changed, and waits for it.
    pub fn finish(self) {
        // If the thread is gone there is nothing to wait for: it said why.
        let _ = self.requests.send(Request::Finish);
        let _ = self.thread.join();
    }
}

impl Saver {
    /// Writes a snapshot now; says how many answers are in it.
    ///
    /// # Errors
    /// It cannot be written; in words.
    pub fn save(&self) -> Result<usize, String> {
        let gone = || "the snapshot thread has ended".to_owned();
        let (reply, outcome) = mpsc::channel();
        self.0.send(Request::Save(reply)).map_err(|_| gone())?;
        outcome.recv().map_err(|_| gone())?
    }
}

struct Work<C> {
    store: Store,
    cache: &'static SharedCache,
    changes: C,
    /// What `changes` was when the newest snapshot was written.
    written: u64,
    /// When the log last had a line about a failure that lasts.
    complaint: Option<Instant>,
}

impl<C: Fn() -> u64> Work<C> {
    fn run(&mut self, inbox: &Receiver<Request>, interval: Duration) {
        loop {
            match inbox.recv_timeout(interval) {
                Ok(Request::Save(reply)) => {
                    // Whoever asked may be gone.
                    let _ = reply.send(self.save());
                }
                Err(RecvTimeoutError::Timeout) => self.save_changes(),
                Ok(Request::Finish) | Err(RecvTimeoutError::Disconnected) => {
                    return self.save_changes();
                }
            }
        }
    }

    fn save_changes(&mut self) {
        if (self.changes)() != self.written {
            // The log has it.
            let _ = self.save();
        }
    }

    fn save(&mut self) -> Result<usize, String> {
        let changes = (self.changes)();
        match self.store.save(self.cache) {
            Ok(answers) => {
                self.written = changes;
                if self.complaint.take().is_some() {
                    info!("snapshot: works again");
                }
                debug!("snapshot: {} written", text::count(answers, "answer"));
                Ok(answers)
            }
            Err(error) => {
                if self
                    .complaint
                    .is_none_or(|since| since.elapsed() >= COMPLAINT_PAUSE)
                {
                    self.complaint = Some(Instant::now());
                    error!("snapshot: {error}");
                }
                Err(error.to_string())
            }
        }
    }
}
