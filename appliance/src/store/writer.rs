//! The thread that restores the snapshot at the start and writes new ones: after each interval if something changed, on request,
//! and at the end. An unresponsive file system blocks this thread, and others only briefly.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use log::{debug, error, info, warn};

use super::snapshot::Store;
use crate::os::{capabilities, clock, threads};
use crate::store::SharedCache;
use crate::text;

/// How long the start waits for the snapshot.
const RESTORE_MAX: Duration = Duration::from_secs(10);
/// How long the end waits for the last snapshot: longer than a slow flash memory takes for a full cache.
const FINISH_MAX: Duration = Duration::from_secs(10);
/// Time between two log lines about a disk that stays full or read-only.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(600);

/// Handle of the thread, for its owner.
#[derive(Debug)]
pub struct SnapshotWriter {
    requests: Sender<WriterRequest>,
    /// Signalled once the snapshot was restored; closed when the thread has ended.
    progress: Receiver<()>,
    /// The start no longer waits for the restore.
    is_late: Arc<AtomicBool>,
}

/// Requests snapshots from the thread.
#[derive(Clone, Debug)]
pub struct SnapshotHandle(Sender<WriterRequest>);

#[derive(Debug)]
enum WriterRequest {
    Save(Sender<Result<usize, String>>),
    Finish,
}

impl SnapshotWriter {
    /// Starts the thread. `changes` grows with every insertion into the cache and every removal; while it is unchanged, nothing
    /// is written.
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
        let (restored, progress) = mpsc::channel();
        let is_late = Arc::new(AtomicBool::new(false));
        let late = Arc::clone(&is_late);
        let written = changes();
        let keep = move || {
            capabilities::keep(capabilities::FILES);
            let told = restore(&store, cache, &late);
            let _ = restored.send(());
            let mut work = Work {
                store,
                cache,
                changes,
                written,
                complaint: None,
                told,
            };
            work.run(&inbox, interval);
            // The thread's own copy signals its end.
            drop(restored);
        };
        threads::builder_with_stack("snapshot", threads::SMALL_STACK_BYTES).spawn(keep)?;
        Ok(Self {
            requests,
            progress,
            is_late,
        })
    }

    /// Waits until the snapshot is restored, at most [`RESTORE_MAX`]: a later one is discarded.
    pub fn wait_restored(&self) {
        self.wait_restored_for(RESTORE_MAX);
    }

    fn wait_restored_for(&self, max: Duration) {
        if self.progress.recv_timeout(max).is_err() {
            self.is_late.store(true, Ordering::Release);
            warn!(
                "snapshot: still being read after {} s, served without it",
                max.as_secs()
            );
        }
    }

    /// A handle to request snapshots out of turn.
    #[must_use]
    pub fn handle(&self) -> SnapshotHandle {
        SnapshotHandle(self.requests.clone())
    }

    /// Writes a last snapshot if something changed, and waits for it, at most [`FINISH_MAX`].
    pub fn finish(self) {
        self.finish_within(FINISH_MAX);
    }

    fn finish_within(self, max: Duration) {
        // If the thread is gone it has said why, and nothing is left to wait for.
        let _ = self.requests.send(WriterRequest::Finish);
        let deadline = Instant::now() + max;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.progress.recv_timeout(left) {
                // The restore has just ended.
                Ok(()) => {}
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    let secs = max.as_secs();
                    return warn!("snapshot: not written after {secs} s, left as it was");
                }
            }
        }
    }
}

impl SnapshotHandle {
    /// Writes a snapshot now; returns the number of answers in it.
    ///
    /// # Errors
    /// It cannot be written; in words.
    pub fn save(&self) -> Result<usize, String> {
        let gone = || "the snapshot thread has ended".to_owned();
        let (reply, outcome) = mpsc::channel();
        self.0
            .send(WriterRequest::Save(reply))
            .map_err(|_| gone())?;
        outcome.recv().map_err(|_| gone())?
    }
}

/// Restores the snapshot into the cache. Errors are logged only. Returns what was logged about the next snapshot.
fn restore(store: &Store, cache: &SharedCache, is_late: &AtomicBool) -> Option<String> {
    let restored = store.load_unless(cache, clock::now(), || is_late.load(Ordering::Acquire));
    let trouble = store.trouble();
    match (restored.is_faulty(), &trouble) {
        (false, _) => info!("snapshot: {restored}"),
        // A foreign file is neither restored nor overwritten: the line below says so.
        (true, Some(_)) if restored.answers == 0 => {}
        (true, _) => warn!("snapshot: {restored}"),
    }
    if let Some(trouble) = &trouble {
        warn!("snapshot: {trouble}");
    }
    trouble
}

struct Work<C> {
    store: Store,
    cache: &'static SharedCache,
    changes: C,
    /// Value of `changes` when the newest snapshot was written.
    written: u64,
    /// Time of the last log line about a lasting failure.
    complaint: Option<Instant>,
    /// Obstacle or doubt that was last logged.
    told: Option<String>,
}

impl<C: Fn() -> u64> Work<C> {
    fn run(&mut self, inbox: &Receiver<WriterRequest>, interval: Duration) {
        loop {
            match inbox.recv_timeout(interval) {
                Ok(WriterRequest::Save(reply)) => {
                    // The requester may be gone.
                    let _ = reply.send(self.save());
                }
                Err(RecvTimeoutError::Timeout) => self.save_changes(),
                Ok(WriterRequest::Finish) | Err(RecvTimeoutError::Disconnected) => {
                    return self.save_changes();
                }
            }
        }
    }

    fn save_changes(&mut self) {
        if (self.changes)() != self.written {
            // `save` has logged the error.
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
                self.tell_doubt();
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

    /// Logs why the previous snapshot is not kept, once while that lasts.
    fn tell_doubt(&mut self) {
        let trouble = self.store.trouble();
        if let Some(trouble) = trouble.as_ref().filter(|_| trouble != self.told) {
            warn!("snapshot: {trouble}");
        }
        self.told = trouble;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A writer, and the thread's ends of its channels: its requests, and the sign that it lives.
    fn writer() -> (SnapshotWriter, Receiver<WriterRequest>, Sender<()>) {
        let (requests, inbox) = mpsc::channel();
        let (living, progress) = mpsc::channel();
        let writer = SnapshotWriter {
            requests,
            progress,
            is_late: Arc::default(),
        };
        (writer, inbox, living)
    }

    /// A file system that does not respond.
    #[test]
    fn a_snapshot_that_hangs_keeps_neither_a_start_nor_an_end_waiting() {
        let (writer, inbox, living) = writer();
        let is_late = Arc::clone(&writer.is_late);
        writer.wait_restored_for(Duration::from_millis(1));
        assert!(is_late.load(Ordering::Acquire), "it stays away");
        living.send(()).expect("the writer listens");
        writer.finish_within(Duration::from_millis(1));
        assert!(matches!(inbox.try_recv(), Ok(WriterRequest::Finish)));
    }

    #[test]
    fn a_start_waits_for_the_snapshot_and_an_end_for_the_last_one() {
        let (writer, inbox, living) = writer();
        let is_late = Arc::clone(&writer.is_late);
        let is_written = Arc::new(AtomicBool::new(false));
        let written = Arc::clone(&is_written);
        let thread = std::thread::spawn(move || {
            living.send(()).expect("the writer listens");
            // A late restore is signalled, which is not an end.
            living.send(()).expect("the writer listens");
            assert!(matches!(inbox.recv(), Ok(WriterRequest::Finish)));
            written.store(true, Ordering::Release);
            drop(living);
        });
        writer.wait_restored();
        assert!(!is_late.load(Ordering::Acquire));
        writer.finish();
        assert!(is_written.load(Ordering::Acquire));
        thread.join().expect("it ends");
    }
}
