//! The thread that copies the log's pipe to standard error, line by line, and blocks for as long as that takes.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU8, Ordering};

use log::Level;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{SFlag, fstat, major, minor};
use nix::unistd::{read, write};

use super::{UNSAID, lose, told_of_lost};

/// Longest line with its end, in bytes: a pipe takes it in one piece (PIPE_BUF), so that lines of several writers stay whole.
const LINE_MAX: usize = libc::PIPE_BUF;
/// Bytes of `<N>` in it.
const PREFIX_LEN: usize = 3;
/// Bytes for text, besides two line ends: the line's own, and one for a preceding line that was cut short.
const TEXT_MAX: usize = LINE_MAX - PREFIX_LEN - 2;
/// Device number of /dev/kmsg.
const KMSG: (u64, u64) = (1, 11);

/// When lines begin with `<N>`, their syslog level (sd-daemon(3)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Priorities {
    /// If standard error is the journal or the kernel's log, which read it.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

static PRIORITIES: AtomicU8 = AtomicU8::new(Priorities::Auto as u8);

pub(super) fn set_priorities(priorities: Priorities) {
    PRIORITIES.store(priorities as u8, Ordering::Relaxed);
}

/// Copies lines to the original standard error.
pub(super) struct Copier {
    to: OwnedFd,
    /// True if the reader is known to parse priorities.
    reads_priorities: bool,
    /// Start of an incomplete line.
    line: Vec<u8>,
    /// The last line failed, or was written only in part.
    failed: bool,
    torn: bool,
}

impl Copier {
    pub(super) fn new(to: OwnedFd) -> Self {
        let stream = std::env::var("JOURNAL_STREAM").ok();
        Self {
            reads_priorities: is_journal(&to, stream.as_deref()) || is_kernel_log(&to),
            to,
            line: Vec::with_capacity(LINE_MAX),
            failed: false,
            torn: false,
        }
    }

    /// Copies until every writer of `from` is gone.
    pub(super) fn run(mut self, from: &OwnedFd) {
        let mut buffer = vec![0; TEXT_MAX];
        loop {
            match read(from, &mut buffer) {
                Ok(0) => {
                    self.end_line();
                    return self.report_lost();
                }
                Ok(len) => self.take(&buffer[..len]),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    self.report_lost();
                    wait_for(from, PollFlags::POLLIN);
                }
                // Impossible for a pipe of our own.
                Err(_) => return,
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            if self.line.len() + piece.len() > TEXT_MAX {
                self.end_line();
            }
            self.line.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                self.pass_on();
            }
        }
    }

    /// Ends a line that is longer than a log line can be, or that lacks an end, as the runtime writes when it dies.
    fn end_line(&mut self) {
        if !self.line.is_empty() {
            self.line.push(b'\n');
            self.pass_on();
        }
    }

    /// Writes the line, or counts it as lost.
    fn pass_on(&mut self) {
        if self.failed {
            self.report_lost();
        }
        let line = std::mem::take(&mut self.line);
        if self.failed || self.write(&line).is_err() {
            self.failed = true;
            lose(1);
        }
        self.line = line;
        self.line.clear();
    }

    /// Reports the number of lost lines, if any.
    fn report_lost(&mut self) {
        let lines = UNSAID.swap(0, Ordering::Relaxed);
        if lines == 0 {
            self.failed = false;
            return;
        }
        let level = Level::Warn.min(log::max_level().to_level().unwrap_or(Level::Error));
        let told = format!("{level:<5} [xdnsd::logging] {}\n", told_of_lost(lines));
        self.failed = self.write(told.as_bytes()).is_err();
        if self.failed {
            UNSAID.fetch_add(lines, Ordering::Relaxed);
        }
    }

    /// Writes a line in one piece. Waits if another process has made standard error non-blocking.
    fn write(&mut self, line: &[u8]) -> nix::Result<()> {
        let mut whole = Vec::with_capacity(line.len() + PREFIX_LEN + 1);
        if std::mem::take(&mut self.torn) {
            whole.push(b'\n');
        }
        if self.has_priorities() {
            whole.extend_from_slice(prefix(line));
        }
        whole.extend_from_slice(line);
        let mut rest = whole.as_slice();
        // Bound: each round writes something, waits for room, or was interrupted.
        while !rest.is_empty() {
            match write(&self.to, rest) {
                Ok(0) => return Err(Errno::EIO),
                Ok(len) => rest = &rest[len..],
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => wait_for(&self.to, PollFlags::POLLOUT),
                Err(errno) => {
                    self.torn = rest.len() < whole.len();
                    return Err(errno);
                }
            }
        }
        Ok(())
    }

    fn has_priorities(&self) -> bool {
        let set = PRIORITIES.load(Ordering::Relaxed);
        set == Priorities::Always as u8 || set == Priorities::Auto as u8 && self.reads_priorities
    }
}

fn wait_for(descriptor: &OwnedFd, flags: PollFlags) {
    let mut fds = [PollFd::new(descriptor.as_fd(), flags)];
    // Interrupted or failed: the caller tries again.
    let _ = poll(&mut fds, PollTimeout::NONE);
}

/// Priority of a line, from its leading level. Without a level, as in the runtime's last words, it is an error.
fn prefix(line: &[u8]) -> &'static [u8] {
    let is = |level: Level| line.starts_with(level.as_str().as_bytes());
    if is(Level::Warn) {
        b"<4>"
    } else if is(Level::Info) {
        b"<6>"
    } else if is(Level::Debug) || is(Level::Trace) {
        b"<7>"
    } else {
        b"<3>"
    }
}

/// True if `descriptor` is the stream that systemd gave the service: `JOURNAL_STREAM` is its `DEVICE:INODE` (systemd.exec(5)).
/// The variable alone proves nothing, since children with another standard error inherit it.
fn is_journal(descriptor: &OwnedFd, stream: Option<&str>) -> bool {
    let Ok(status) = fstat(descriptor) else {
        return false;
    };
    stream == Some(&format!("{}:{}", status.st_dev, status.st_ino))
}

/// True for the kernel's log, which parses the same prefix (printk).
fn is_kernel_log(descriptor: &OwnedFd) -> bool {
    fstat(descriptor).is_ok_and(|status| {
        status.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFCHR.bits()
            && (major(status.st_rdev), minor(status.st_rdev)) == KMSG
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::pipe;
    use std::fs::File;
    use std::io::{Read as _, Seek as _};
    use std::sync::{Mutex, PoisonError};

    /// The counters of lost lines are per process.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

    fn copier(to: impl Into<OwnedFd>, reads_priorities: bool) -> Copier {
        Copier {
            reads_priorities,
            ..Copier::new(to.into())
        }
    }

    /// Output for `input`, written in one piece, after the log is closed.
    fn copied(input: &[u8], reads_priorities: bool) -> Vec<u8> {
        let (from, into) = pipe().expect("a pipe");
        let (mut out, to) = std::io::pipe().expect("a pipe");
        let thread = std::thread::spawn(move || copier(to, reads_priorities).run(&from));
        let mut rest = input;
        while !rest.is_empty() {
            rest = &rest[write(&into, rest).expect("it is read")..];
        }
        drop(into);
        let mut text = Vec::new();
        out.read_to_end(&mut text).expect("it ends");
        thread.join().expect("it ends well");
        text
    }

    #[test]
    fn lines_come_out_as_they_went_in() {
        let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = b"INFO  [a] one\nWARN  [b] two\n";
        assert_eq!(copied(lines, false), lines);
        assert_eq!(copied(b"no end", false), b"no end\n");
        let long = vec![b'x'; 3 * LINE_MAX];
        let out = copied(&long, false);
        assert_eq!(out.iter().filter(|&&byte| byte == b'x').count(), long.len());
        assert!(
            out.split_inclusive(|&byte| byte == b'\n')
                .all(|line| line.len() <= LINE_MAX)
        );
    }

    #[test]
    fn the_journal_gets_the_level_of_each_line() {
        let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = b"ERROR [a] 1\nWARN  [a] 2\nINFO  [a] 3\nDEBUG [a] 4\nTRACE [a] 5\nelse\n";
        let expected = b"<3>ERROR [a] 1\n<4>WARN  [a] 2\n<6>INFO  [a] 3\n<7>DEBUG [a] 4\n<7>TRACE [a] 5\n<3>else\n";
        assert_eq!(copied(lines, true), expected);
    }

    #[test]
    fn the_journal_is_known_by_the_stream_and_not_by_the_variable_alone() {
        let (_from, to) = pipe().expect("a pipe");
        let status = fstat(&to).expect("its status");
        let stream = format!("{}:{}", status.st_dev, status.st_ino);
        assert!(is_journal(&to, Some(&stream)));
        for other in [
            None,
            Some(""),
            Some("1:2"),
            Some("x"),
            Some(&*format!("{stream}0")),
        ] {
            assert!(!is_journal(&to, other), "{other:?}");
        }
        assert!(!is_kernel_log(&to));
        let null = File::open("/dev/null").expect("every system has it").into();
        assert!(!is_kernel_log(&null));
    }

    #[test]
    fn lines_that_are_not_taken_are_counted_and_told_of_when_there_is_a_reader_again() {
        let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let before = super::super::lost();
        let full = File::options()
            .write(true)
            .open("/dev/full")
            .expect("every system has it");
        let mut copier = copier(full, false);
        copier.take(b"INFO  [a] 1\nINFO  [a] 2\nINFO  [a] 3\n");
        assert_eq!(super::super::lost() - before, 3);
        let mut file = tempfile();
        copier.to = file.try_clone().expect("a descriptor").into();
        copier.take(b"INFO  [a] 4\nINFO  [a] 5\n");
        let mut text = String::new();
        file.rewind().expect("a file");
        file.read_to_string(&mut text).expect("text");
        let told = ["[xdnsd::logging] 3 lines lost", "[a] 4", "[a] 5"];
        assert_eq!(text.lines().count(), told.len(), "{text}");
        for (line, end) in text.lines().zip(told) {
            assert!(line.ends_with(end), "{text}");
        }
        assert_eq!(super::super::lost() - before, 3);
    }

    /// Also at the end, when no line follows.
    #[test]
    fn what_was_lost_is_told_when_the_log_ends() {
        let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let (from, into) = pipe().expect("a pipe");
        let (mut out, to) = std::io::pipe().expect("a pipe");
        lose(2);
        drop(into);
        copier(to, false).run(&from);
        let mut text = String::new();
        out.read_to_string(&mut text).expect("text");
        assert!(text.ends_with("[xdnsd::logging] 2 lines lost\n"), "{text}");
    }

    /// A parent may have made the shared descriptor non-blocking.
    #[test]
    fn a_standard_error_that_is_non_blocking_is_waited_for() {
        let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let (out, to) = nix::unistd::pipe2(nix::fcntl::OFlag::O_NONBLOCK).expect("a pipe");
        let mut input = Vec::new();
        (0..5_000).for_each(|line| input.extend(format!("INFO  [a] line {line:050}\n").bytes()));
        let expected = input.clone();
        let thread = std::thread::spawn(move || copier(to, false).take(&input));
        let mut text = Vec::new();
        let mut buffer = [0; 1_000];
        while text.len() < expected.len() {
            wait_for(&out, PollFlags::POLLIN);
            match read(&out, &mut buffer) {
                Ok(0) => break,
                Ok(len) => text.extend_from_slice(&buffer[..len]),
                Err(_) => {}
            }
        }
        thread.join().expect("it ends well");
        assert!(
            text == expected,
            "{} of {} bytes",
            text.len(),
            expected.len()
        );
    }

    fn tempfile() -> File {
        let path = std::env::temp_dir().join(format!("xdnsd-log-{}", std::process::id()));
        let mut options = File::options();
        let file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path);
        std::fs::remove_file(&path).expect("it was made");
        file.expect("a temporary file")
    }
}
