//! The log: lines on standard error that cannot end the process, block it, or deceive its reader.
//!
//! ```text
//!  any thread ─► Front: escaped, bounded, room? ─► simple_logger ─► pipe of ours (descriptor 2) ─► thread "log" ─► stderr
//! ```
//! `simple_logger` writes with `eprintln!`, which panics if standard error fails (no reader, a full disk) and blocks if it is
//! full. So descriptor 2 is a pipe of ours while the daemon runs, with room for a few hundred lines, and a dedicated thread
//! copies it to the original standard error. Only that thread blocks. O_NONBLOCK of standard error stays unset, since the parent
//! shares it. Lines without room are counted, and reported once there is room again.
//!
//! Here belongs how a line is written. What does not: what is logged, and which characters are shown as they are (`text`).
//!
//! It uses `os` and `text`.

mod copier;

use std::cell::Cell;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use log::{Level, LevelFilter, Log, Metadata, Record};
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{dup2_stderr, pipe2};
use simple_logger::SimpleLogger;

use crate::os::{capabilities, landlock, seal, threads};
use crate::text;
use copier::Copier;
pub use copier::Priorities;

/// Stack of the copying thread, in bytes.
pub const STACK_BYTES: usize = 32 * 1024;
/// Longest message in bytes, as shown; a longer one is cut. With level and target in front, a line takes at most a page, so it
/// fits one free page of the pipe.
const MESSAGE_MAX: usize = 2_048;
/// How long the end of the process waits for a reader of the last lines.
const LAST_LINES: Duration = Duration::from_millis(300);

static FRONT: OnceLock<Logger> = OnceLock::new();
/// Lines lost since the start.
static LOST: AtomicU64 = AtomicU64::new(0);
/// Lost lines that the log has not reported yet.
static UNSAID: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// True while this thread writes a line: a panic meanwhile is not logged.
    static WRITES: Cell<bool> = const { Cell::new(false) };
}

/// The global logger, in front of `simple_logger`.
struct Logger {
    writer: SimpleLogger,
    way: Mutex<LogSink>,
}

/// Destination of lines.
enum LogSink {
    /// Descriptor 2, which is our pipe; with the original standard error, and a channel for the end of the copying thread.
    Pipe(OwnedFd, Receiver<()>),
    /// No destination: the process ends.
    Closed,
}

/// Lines of the log lost since the start.
#[must_use]
pub fn lost() -> u64 {
    LOST.load(Ordering::Relaxed)
}

fn lose(lines: u64) {
    LOST.fetch_add(lines, Ordering::Relaxed);
    UNSAID.fetch_add(lines, Ordering::Relaxed);
}

/// Sets up the pipe and its thread. Call it once, before other threads start.
///
/// # Errors
/// The pipe or the thread cannot be made, or the log was started before.
pub fn start() -> io::Result<()> {
    let stderr = io::stderr().as_fd().try_clone_to_owned()?;
    let (from, into) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    let copier = Copier::new(stderr.try_clone()?);
    let (ended, end) = mpsc::channel();
    // The thread blocks all signals: SIGTTOU from a terminal or SIGXFSZ from a file size limit then fail a single write, and
    // SIGTERM is for the thread that waits for it.
    let mut blocked = SigSet::all();
    // Except SIGSYS, whose handler names the forbidden system call.
    blocked.remove(Signal::SIGSYS);
    let mask = blocked.thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_BLOCK)?;
    let (confined, is_confined) = mpsc::channel();
    let spawned = threads::builder_with_stack("log", STACK_BYTES).spawn(move || {
        // It only writes to what is open. Where the kernel cannot enforce that, it goes on all the same.
        let _ = landlock::restrict(&[], landlock::Reach::Paths);
        capabilities::keep(capabilities::NONE);
        // From here on it makes only the system calls of its loop.
        let _ = confined.send(());
        copier.run(&from);
        // The receiver may be gone.
        let _ = ended.send(());
    });
    mask.thread_set_mask()?;
    spawned?;
    let _ = is_confined.recv();
    dup2_stderr(&into)?;
    let front = Logger {
        writer: SimpleLogger::new().with_level(LevelFilter::Trace),
        way: Mutex::new(LogSink::Pipe(stderr, end)),
    };
    FRONT
        .set(front)
        .map_err(|_| io::Error::other("started twice"))?;
    let front = FRONT.get().expect("it was set a moment ago");
    log::set_logger(front).map_err(io::Error::other)?;
    set_level(LevelFilter::Info);
    std::panic::set_hook(Box::new(|panic| {
        let told = panic.to_string().replacen(":\n", ": ", 1);
        seal::unsealed(|| log::error!("{told}"));
        if cfg!(panic = "abort") {
            finish();
        }
    }));
    Ok(())
}

/// Sets the level from now on.
pub fn set_level(level: LevelFilter) {
    log::set_max_level(level);
}

/// Sets when lines begin with `<N>`, their syslog level.
pub fn set_priorities(priorities: Priorities) {
    copier::set_priorities(priorities);
}

/// Writes the reason why a command failed, without time and level. Never fails; waits only if the log was not started.
pub fn print(lines: &str) {
    for line in lines.split('\n') {
        let line = text::line_up_to(line, MESSAGE_MAX);
        // A failure of standard error cannot be reported anywhere; our pipe has room.
        let write = || drop(writeln!(io::stderr(), "{line}"));
        match FRONT.get() {
            Some(front) => front.write(write),
            None => write(),
        }
    }
}

/// Waits briefly until the last lines are copied. Nothing is logged from here on.
pub fn finish() {
    let Some(front) = FRONT.get().filter(|_| !WRITES.get()) else {
        return;
    };
    let mut way = front.way();
    // Lost lines are reported now, since no other line follows.
    let is_unsaid = UNSAID.load(Ordering::Relaxed) > 0 && matches!(*way, LogSink::Pipe(..));
    if is_unsaid && has_room_within(io::stderr().as_fd(), LAST_LINES) {
        WRITES.set(true);
        front.report_lost();
        WRITES.set(false);
    }
    let way = std::mem::replace(&mut *way, LogSink::Closed);
    if let LogSink::Pipe(stderr, end) = way {
        // Closes the pipe's last writer, so that the thread ends.
        if dup2_stderr(&stderr).is_ok() {
            let _ = end.recv_timeout(LAST_LINES);
        }
    }
}

/// Leaves the log, in a process that was forked: standard error is again what it was at the start, and nothing is logged.
pub fn leave() {
    set_level(LevelFilter::Off);
    drop(std::panic::take_hook());
    let Some(front) = FRONT.get() else { return };
    let way = std::mem::replace(&mut *front.way(), LogSink::Closed);
    if let LogSink::Pipe(stderr, _) = way {
        // Its lines would go into the pipe, and keep it open after the server's end.
        let _ = dup2_stderr(&stderr);
    }
}

impl Logger {
    fn way(&self) -> MutexGuard<'_, LogSink> {
        self.way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `write` if there is room for a line; otherwise counts a loss.
    fn write(&self, write: impl FnOnce()) {
        if WRITES.replace(true) {
            return lose(1);
        }
        let way = self.way();
        match &*way {
            LogSink::Pipe(..) if has_room(io::stderr().as_fd()) => {
                self.report_lost();
                // The report may have taken the last room.
                if has_room(io::stderr().as_fd()) {
                    write();
                } else {
                    lose(1);
                }
            }
            LogSink::Pipe(..) | LogSink::Closed => lose(1),
        }
        drop(way);
        WRITES.set(false);
    }

    fn report_lost(&self) {
        let lines = UNSAID.swap(0, Ordering::Relaxed);
        if lines > 0 {
            let level = Level::Warn.min(log::max_level().to_level().unwrap_or(Level::Error));
            let told = told_of_lost(lines);
            self.pass_on(level, module_path!(), &format_args!("{told}"));
        }
    }

    fn pass_on(&self, level: Level, target: &str, arguments: &std::fmt::Arguments<'_>) {
        let mut record = Record::builder();
        let record = record.level(level).target(target).args(*arguments);
        self.writer.log(&record.build());
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        is_wanted(metadata, log::max_level())
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            // Formatted before locking, since formatting may itself log.
            let message = text::line_up_to(&record.args().to_string(), MESSAGE_MAX);
            let target = text::line_up_to(record.target(), MESSAGE_MAX / 4);
            self.write(|| self.pass_on(record.level(), &target, &format_args!("{message}")));
        }
    }

    fn flush(&self) {}
}

/// True if a line is logged. Details from libraries, such as how a program was loaded, would hide our own: they need
/// [`LevelFilter::Trace`].
fn is_wanted(metadata: &Metadata<'_>, max: LevelFilter) -> bool {
    let is_ours = metadata.target().starts_with("xdnsd");
    metadata.level() <= max
        && (is_ours || metadata.level() < Level::Debug || max == LevelFilter::Trace)
}

/// True if a pipe has a free page: the kernel reports it as writable. Only one thread at a time writes, a line is shorter than a
/// page, and its end fits after it or in that page.
fn has_room(pipe: BorrowedFd<'_>) -> bool {
    has_room_within(pipe, Duration::ZERO)
}

/// True if it has a free page within the time.
fn has_room_within(pipe: BorrowedFd<'_>, time: Duration) -> bool {
    let timeout = PollTimeout::try_from(time).unwrap_or(PollTimeout::ZERO);
    let mut fds = [PollFd::new(pipe, PollFlags::POLLOUT)];
    let polled = poll(&mut fds, timeout);
    let state = fds[0].revents().unwrap_or(PollFlags::empty());
    // POLLERR: the reading thread is gone.
    polled == Ok(1) && state == PollFlags::POLLOUT
}

/// Report of lost lines.
fn told_of_lost(lines: u64) -> String {
    let lines = usize::try_from(lines).unwrap_or(usize::MAX);
    format!("{} lost", text::count(lines, "line"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_libraries_say_of_themselves_is_for_who_wants_everything() {
        use LevelFilter::{Debug, Info, Off, Trace, Warn};
        for (target, level, max, wanted) in [
            ("xdnsd::daemon::run", Level::Debug, Debug, true),
            ("xdnsd_core", Level::Debug, Debug, true),
            ("xdnsd::daemon::run", Level::Debug, Info, false),
            ("xdnsd::daemon::run", Level::Error, Off, false),
            ("aya_obj::relocation", Level::Debug, Debug, false),
            ("aya_obj::relocation", Level::Debug, Trace, true),
            ("aya_obj::relocation", Level::Trace, Debug, false),
            ("aya::bpf", Level::Warn, Debug, true),
            ("aya::bpf", Level::Info, Info, true),
            ("aya::bpf", Level::Info, Warn, false),
        ] {
            let metadata = Metadata::builder().level(level).target(target).build();
            assert_eq!(is_wanted(&metadata, max), wanted, "{target} {level} {max}");
        }
    }

    /// An assumption of the logger: a pipe that polls as writable takes a line and its end.
    #[test]
    fn a_pipe_with_room_takes_a_whole_line_whatever_stands_in_it() {
        for len in [1, 2, 100, 1_000, 2_047, 2_048, 2_700, 4_000, 4_095] {
            let (from, into) = pipe2(OFlag::O_NONBLOCK).expect("a pipe");
            let line = vec![b'x'; len];
            let mut lines = 0;
            while has_room(into.as_fd()) {
                assert_eq!(nix::unistd::write(&into, &line), Ok(len), "after {lines}");
                assert_eq!(nix::unistd::write(&into, b"\n"), Ok(1), "after {lines}");
                lines += 1;
            }
            assert!(lines >= 8, "{lines} lines of {len} bytes");
            drop(from);
            assert!(!has_room(into.as_fd()), "nobody reads");
        }
    }
}
