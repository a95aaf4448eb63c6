//! The thread that restores the snapshot at the start and writes others: when the interval is over and something changed,
//! when asked to, and at the end. A file system that does not answer keeps it waiting, and nobody else for long.

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

/// How long a start waits for the snapshot.
const RESTORE_MAX: Duration = Duration::from_secs(10);
/// How long the end waits for the last snapshot: as long as a slow flash memory takes for a full cache, and longer.
const FINISH_MAX: Duration = Duration::from_secs(10);
/// Time between two lines about a disk that stays full or read-only.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(600);

/// The thread, and the way to it.
#[derive(Debug)]
pub struct SnapshotWriter {
    requests: Sender<WriterRequest>,
    /// Told when the snapshot was restored, and closed when the thread has ended.
    progress: Receiver<()>,
    /// Nobody waits any more for what is being restored.
    is_late: Arc<AtomicBool>,
}

/// Asks the thread to write.
#[derive(Clone, Debug)]
pub struct SnapshotHandle(Sender<WriterRequest>);

#[derive(Debug)]
enum WriterRequest {
    Save(Sender<Result<usize, String>>),
    Finish,
}

impl SnapshotWriter {
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
        let (restored, progress) = mpsc::channel();
        let is_late = Arc::new(AtomicBool::new(false));
        let late = Arc::clone(&is_late);
        let written = changes();
        let keep = move || {
            capabilities::keep(capabilities::FILES);
            restore(&store, cache, &late);
            let _ = restored.send(());
            let mut work = Work {
                store,
                cache,
                changes,
                written,
                complaint: None,
            };
            work.run(&inbox, interval);
            // It tells of the end by its own.
            drop(restored);
        };
        threads::builder_with_stack("snapshot", threads::SMALL_STACK_BYTES).spawn(keep)?;
        Ok(Self {
            requests,
            progress,
            is_late,
        })
    }

    /// Waits until the snapshot is restored, but not for ever: one that comes later is left alone.
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

    /// A way to ask for a snapshot out of turn.
    #[must_use]
    pub fn handle(&self) -> SnapshotHandle {
        SnapshotHandle(self.requests.clone())
    }

    /// Writes a last snapshot where something changed, and waits for it, but not for ever.
    pub fn finish(self) {
        self.finish_within(FINISH_MAX);
    }

    fn finish_within(self, max: Duration) {
        // If the thread is gone there is nothing to wait for: it said why.
        let _ = self.requests.send(WriterRequest::Finish);
        let deadline = Instant::now() + max;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.progress.recv_timeout(left) {
                // It had not restored yet.
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
    /// Writes a snapshot now; says how many answers are in it.
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

/// Puts the snapshot into the cache. What is wrong with it stops nothing.
fn restore(store: &Store, cache: &SharedCache, is_late: &AtomicBool) {
    let restored = store.load_unless(cache, clock::now(), || is_late.load(Ordering::Acquire));
    let trouble = store.trouble();
    match (restored.is_faulty(), &trouble) {
        (false, _) => info!("snapshot: {restored}"),
        // A file of another kind is neither restored from nor overwritten: one line says so.
        (true, Some(_)) if restored.answers == 0 => {}
        (true, _) => warn!("snapshot: {restored}"),
    }
    if let Some(trouble) = trouble {
        warn!("snapshot: {trouble}");
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
    fn run(&mut self, inbox: &Receiver<WriterRequest>, interval: Duration) {
        loop {
            match inbox.recv_timeout(interval) {
                Ok(WriterRequest::Save(reply)) => {
                    // Whoever asked may be gone.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A writer, and what its thread would have: its requests, and the sign that it lives.
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

    /// A file system that does not answer.
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
            // As of one that came late, which is not an end.
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
