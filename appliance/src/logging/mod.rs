//! The log: lines on standard error that can neither end, nor hold up, nor deceive.
//!
//! ```text
//!  any thread ─► Front: escaped, bounded, room? ─► simple_logger ─► pipe of ours (descriptor 2) ─► thread "log" ─► stderr
//! ```
//! `simple_logger` writes with `eprintln!`, which panics where standard error takes nothing (no reader, a full disk) and
//! waits where it takes nothing yet. So descriptor 2 is a pipe of ours while the daemon runs, with room for a few hundred
//! lines, and a thread that does nothing else copies it to what standard error was. That thread alone waits. Its
//! O_NONBLOCK is never touched: the parent shares it. What finds no room is counted, and said once there is room again.
//!
//! Here belongs how a line comes out. What does not: what is logged, and which characters are shown as they are (`text`).
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

/// Stack of the thread that copies.
pub const STACK_BYTES: usize = 32 * 1024;
/// Longest message in bytes, as it is shown; what is longer is cut. With level and target in front of it a line takes a
/// page at most, so one free page of the pipe is room for it.
const MESSAGE_MAX: usize = 2_048;
/// How long the end of the process waits for a reader of the last lines.
const LAST_LINES: Duration = Duration::from_millis(300);

static FRONT: OnceLock<Front> = OnceLock::new();
/// Lines that nobody got, since the start.
static LOST: AtomicU64 = AtomicU64::new(0);
/// Those of them that the log has not told of.
static UNSAID: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// A panic while a line is written is not written.
    static WRITES: Cell<bool> = const { Cell::new(false) };
}

/// What stands between everybody who logs and the writer.
struct Front {
    writer: SimpleLogger,
    way: Mutex<LogSink>,
}

/// Where lines go.
enum LogSink {
    /// To descriptor 2, which is our pipe; what it was, and the thread's last word.
    Pipe(OwnedFd, Receiver<()>),
    /// Nowhere: the process ends.
    Closed,
}

/// Lines of the log that were dropped, since the start.
#[must_use]
pub fn lost() -> u64 {
    LOST.load(Ordering::Relaxed)
}

fn lose(lines: u64) {
    LOST.fetch_add(lines, Ordering::Relaxed);
    UNSAID.fetch_add(lines, Ordering::Relaxed);
}

/// Puts the pipe and its thread in place. Once, before other threads start.
///
/// # Errors
/// The pipe or the thread cannot be had, or the log was started before.
pub fn start() -> io::Result<()> {
    let stderr = io::stderr().as_fd().try_clone_to_owned()?;
    let (from, into) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    let copier = Copier::new(stderr.try_clone()?);
    let (ended, end) = mpsc::channel();
    // Its signals are everybody else's: a terminal that stops those who write (SIGTTOU) or a limit on a file's size
    // (SIGXFSZ) is an error of one write, and SIGTERM is for the thread that waits for it.
    let mut blocked = SigSet::all();
    // But for the one that says which system call it was.
    blocked.remove(Signal::SIGSYS);
    let mask = blocked.thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_BLOCK)?;
    let (confined, is_confined) = mpsc::channel();
    let spawned = threads::builder_with_stack("log", STACK_BYTES).spawn(move || {
        // It writes to what is open, and to no file besides. Where the kernel cannot hold it to that it goes on all the same.
        let _ = landlock::restrict(&[]);
        capabilities::keep(capabilities::NONE);
        // From here on it makes no system call but those that it lives by.
        let _ = confined.send(());
        copier.run(&from);
        // Nobody may be waiting any more.
        let _ = ended.send(());
    });
    mask.thread_set_mask()?;
    spawned?;
    let _ = is_confined.recv();
    dup2_stderr(&into)?;
    let front = Front {
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

/// How much is logged from now on.
pub fn set_level(level: LevelFilter) {
    log::set_max_level(level);
}

/// Whether lines begin with `<N>`, their level as syslog counts it.
pub fn set_priorities(priorities: Priorities) {
    copier::set_priorities(priorities);
}

/// Writes the reason why a command failed, without time and level. Never fails; waits only where the log was not
/// started.
pub fn print(lines: &str) {
    for line in lines.split('\n') {
        let line = text::line_up_to(line, MESSAGE_MAX);
        // Nobody is left to be told that standard error takes nothing; our pipe has room.
        let write = || drop(writeln!(io::stderr(), "{line}"));
        match FRONT.get() {
            Some(front) => front.write(write),
            None => write(),
        }
    }
}

/// Waits a moment until the last lines have been copied. Nothing is logged from here on.
pub fn finish() {
    let Some(front) = FRONT.get().filter(|_| !WRITES.get()) else {
        return;
    };
    let mut way = front.way();
    // A reader that has just come back wants to know what it missed, and no other line follows.
    let is_unsaid = UNSAID.load(Ordering::Relaxed) > 0 && matches!(*way, LogSink::Pipe(..));
    if is_unsaid && has_room_within(io::stderr().as_fd(), LAST_LINES) {
        WRITES.set(true);
        front.report_lost();
        WRITES.set(false);
    }
    let way = std::mem::replace(&mut *way, LogSink::Closed);
    if let LogSink::Pipe(stderr, end) = way {
        // The pipe's last writer goes, so the thread comes to its end.
        if dup2_stderr(&stderr).is_ok() {
            let _ = end.recv_timeout(LAST_LINES);
        }
    }
}

impl Front {
    fn way(&self) -> MutexGuard<'_, LogSink> {
        self.way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries out `write` if there is room for a line, else counts a loss.
    fn write(&self, write: impl FnOnce()) {
        if WRITES.replace(true) {
            return lose(1);
        }
        let way = self.way();
        match &*way {
            LogSink::Pipe(..) if has_room(io::stderr().as_fd()) => {
                self.report_lost();
                // The line about lost ones may have taken the last room.
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

impl Log for Front {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        is_wanted(metadata, log::max_level())
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            // Before the lock: what is shown may log itself.
            let message = text::line_up_to(&record.args().to_string(), MESSAGE_MAX);
            let target = text::line_up_to(record.target(), MESSAGE_MAX / 4);
            self.write(|| self.pass_on(record.level(), &target, &format_args!("{message}")));
        }
    }

    fn flush(&self) {}
}

/// Whether a line is logged. What libraries say of themselves, such as how a program was loaded, would hide what is said
/// of this server: it is for who wants everything.
fn is_wanted(metadata: &Metadata<'_>, max: LevelFilter) -> bool {
    let is_ours = metadata.target().starts_with("xdnsd");
    metadata.level() <= max
        && (is_ours || metadata.level() < Level::Debug || max == LevelFilter::Trace)
}

/// Whether a pipe has a free page: the kernel says that it can be written to. Only one thread at a time writes, a line is
/// shorter than a page, and its end finds room behind it or in that page.
fn has_room(pipe: BorrowedFd<'_>) -> bool {
    has_room_within(pipe, Duration::ZERO)
}

/// Whether it has before the time is over.
fn has_room_within(pipe: BorrowedFd<'_>, time: Duration) -> bool {
    let timeout = PollTimeout::try_from(time).unwrap_or(PollTimeout::ZERO);
    let mut fds = [PollFd::new(pipe, PollFlags::POLLOUT)];
    let polled = poll(&mut fds, timeout);
    let state = fds[0].revents().unwrap_or(PollFlags::empty());
    // POLLERR: the thread that reads is gone.
    polled == Ok(1) && state == PollFlags::POLLOUT
}

/// What is said of lines that were lost.
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

    /// What the front relies on: where the kernel says that a pipe takes something, it takes a line and its end.
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
