//! `xdnsd tail` and `top`: read the tap of a daemon, and pass entries to lines, a log file, dnstap, a capture or a screen.
//!
//! All of it runs in the reader: files, sockets, memory and time. The daemon only writes to the rings.

pub mod dnstap;
pub mod live;
pub mod log_file;
mod output;
pub mod pcap;
pub mod reader;
pub mod show;
pub mod top;

use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::store::tap::entry::{TapKind, wanted};
use crate::store::tap::ring::RingLayout;
use crate::text;
use dnstap::Dnstap;
use log_file::LogFile;
use pcap::Pcap;
use reader::{SeenEntry, TapReader};
use show::Filter;

/// Pause between two looks at idle rings: a reader is not woken.
const REST: Duration = Duration::from_millis(50);
/// Pause while entries arrive.
const BUSY: Duration = Duration::from_millis(2);

/// Filter and outputs of `tail`.
#[derive(Clone, Debug, Default)]
pub struct TailOptions {
    /// Entries to show.
    pub filter: Filter,
    /// Print JSON.
    pub is_json: bool,
    /// Log file, its maximum size in bytes before rotation (0: unlimited), and the number of rotated files to keep.
    pub log: Option<(PathBuf, u64, u32)>,
    /// Output for dnstap: a file, or a socket after `unix:`.
    pub dnstap: Option<PathBuf>,
    /// Output for captured frames.
    pub pcap: Option<PathBuf>,
}

impl TailOptions {
    /// True if lines go to standard output: no other output was asked for.
    const fn has_lines(&self) -> bool {
        self.log.is_none() && self.dnstap.is_none() && self.pcap.is_none()
    }

    fn wanted(&self) -> u8 {
        let mut all = 0;
        if self.has_lines() || self.log.is_some() {
            all |= wanted::ANSWERS;
        }
        if self.dnstap.is_some() {
            all |= wanted::ANSWERS | wanted::QUERIES;
        }
        if self.pcap.is_some() {
            all |= wanted::FRAMES;
        }
        all
    }

    const fn shape(&self) -> RingLayout {
        if self.dnstap.is_some() || self.pcap.is_some() {
            RingLayout::MESSAGES
        } else {
            RingLayout::QUESTIONS
        }
    }
}

/// The outputs.
struct Sinks<'o> {
    options: &'o TailOptions,
    out: &'o mut dyn Write,
    log: Option<LogFile>,
    dnstap: Option<Dnstap>,
    pcap: Option<Pcap<io::BufWriter<std::fs::File>>>,
}

/// Shows what the daemon at `socket` is asked, until the reader of `out` has gone, or a signal comes.
///
/// # Errors
/// No daemon answers there, the daemon ends, or writing fails; in words.
pub fn run(socket: &Path, options: &TailOptions, out: &mut dyn Write) -> Result<(), String> {
    let signals = signals().map_err(|error| format!("signals: {error}"))?;
    let Some(mut sinks) = Sinks::open(options, out, &signals)? else {
        return Ok(());
    };
    let reader = TapReader::attach(socket, options.wanted(), options.shape());
    let mut reader = reader.map_err(|error| error.to_string())?;
    let followed = sinks.follow(&mut reader, &signals);
    let finished = sinks.finish();
    match followed {
        Err(TailEnd::ReaderLeft) => Ok(()),
        Err(TailEnd::Failed(problem)) => Err(problem),
        Ok(()) => finished,
    }
}

/// Why `tail` ends.
enum TailEnd {
    /// The reader of standard output has gone.
    ReaderLeft,
    Failed(String),
}

impl Sinks<'_> {
    /// Opens the outputs, a FIFO as soon as it has a reader. `None` if a signal comes first.
    fn open<'o>(
        options: &'o TailOptions,
        out: &'o mut dyn Write,
        signals: &SignalFd,
    ) -> Result<Option<Sinks<'o>>, String> {
        let mut sinks = Sinks {
            options,
            out,
            log: None,
            dnstap: None,
            pcap: None,
        };
        if let Some((path, rotate_bytes, keep)) = &options.log {
            sinks.log = output::open(path, signals, || LogFile::open(path, *rotate_bytes, *keep))?;
        }
        if let Some(path) = &options.dnstap {
            sinks.dnstap = output::open(path, signals, || Dnstap::open(path))?;
        }
        if let Some(path) = &options.pcap {
            sinks.pcap = output::open(path, signals, || Pcap::create(path))?;
        }
        let is_open = sinks.log.is_some() == options.log.is_some()
            && sinks.dnstap.is_some() == options.dnstap.is_some()
            && sinks.pcap.is_some() == options.pcap.is_some();
        Ok(is_open.then_some(sinks))
    }

    fn follow(&mut self, reader: &mut TapReader, signals: &SignalFd) -> Result<(), TailEnd> {
        loop {
            let seen = reader.read();
            seen.iter().try_for_each(|seen| self.take(seen))?;
            let lost = reader.newly_lost();
            if lost > 0 {
                let line = show::lost(lost, self.options.is_json);
                self.line(&line)?;
            }
            self.flush()?;
            let rest = if seen.is_empty() { REST } else { BUSY };
            match wait(reader, signals, rest) {
                TailEvent::Nothing => {}
                TailEvent::Signal => return Ok(()),
                TailEvent::DaemonLeft => return Err(TailEnd::Failed("xdnsd has ended".into())),
            }
        }
    }

    fn take(&mut self, seen: &SeenEntry) -> Result<(), TailEnd> {
        if matches!(seen.entry.kind, TapKind::FrameIn | TapKind::FrameOut) {
            let path = self.options.pcap.as_deref();
            let pcap = self.pcap.as_mut();
            return pcap.map_or(Ok(()), |pcap| failed(path, pcap.write(seen)));
        }
        if !self.options.filter.lets_through(seen) {
            return Ok(());
        }
        if let Some(dnstap) = &mut self.dnstap {
            failed(self.options.dnstap.as_deref(), dnstap.write(seen))?;
        }
        if self.log.is_none() && !self.options.has_lines() {
            return Ok(());
        }
        let line = match self.options.is_json {
            true => show::json_line(seen),
            false => show::line(seen),
        };
        line.map_or(Ok(()), |line| self.line(&line))
    }

    /// Writes a line to the log file or standard output.
    fn line(&mut self, line: &str) -> Result<(), TailEnd> {
        if let Some(log) = &mut self.log {
            let path = self.options.log.as_ref().map(|(path, ..)| path.as_path());
            return failed(path, log.write(line));
        }
        failed(None, writeln!(self.out, "{line}"))
    }

    fn flush(&mut self) -> Result<(), TailEnd> {
        let TailOptions {
            log, dnstap, pcap, ..
        } = self.options;
        let log = log.as_ref().map(|(path, ..)| path.as_path());
        let flushed = [
            (log, self.log.as_mut().map(LogFile::flush)),
            (dnstap.as_deref(), self.dnstap.as_mut().map(Dnstap::flush)),
            (pcap.as_deref(), self.pcap.as_mut().map(Pcap::flush)),
            (None, Some(self.out.flush())),
        ];
        for (path, flushed) in flushed {
            failed(path, flushed.unwrap_or(Ok(())))?;
        }
        Ok(())
    }

    /// Finishes the outputs that need it.
    fn finish(self) -> Result<(), String> {
        let path = self.options.dnstap.as_deref();
        let finished = self.dnstap.map_or(Ok(()), Dnstap::finish);
        finished.map_err(|error| told(path.unwrap_or(Path::new("")), &error))
    }
}

/// Maps an error of the file at `path`, or of standard output.
fn failed(path: Option<&Path>, written: io::Result<()>) -> Result<(), TailEnd> {
    written.map_err(|error| match path {
        Some(path) => TailEnd::Failed(told(path, &error)),
        None if error.kind() == ErrorKind::BrokenPipe => TailEnd::ReaderLeft,
        None => TailEnd::Failed(error.to_string()),
    })
}

fn told(path: &Path, error: &io::Error) -> String {
    format!("{}: {error}", text::path(path))
}

/// Event after a pause.
enum TailEvent {
    Nothing,
    Signal,
    DaemonLeft,
}

/// Blocks the signals that end it, to read them from a descriptor, so that outputs are finished.
fn signals() -> nix::Result<SignalFd> {
    let mut set = SigSet::empty();
    set.extend([Signal::SIGINT, Signal::SIGTERM]);
    set.thread_block()?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC)
}

fn wait(reader: &TapReader, signals: &SignalFd, rest: Duration) -> TailEvent {
    let mut fds = [
        PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        PollFd::new(reader.connection().as_fd(), PollFlags::POLLIN),
    ];
    // Interrupted or failed: the rings are read again.
    let _ = poll(
        &mut fds,
        PollTimeout::try_from(rest).unwrap_or(PollTimeout::ZERO),
    );
    match fds.map(|fd| fd.any().unwrap_or(false)) {
        [true, _] => TailEvent::Signal,
        // The daemon sends nothing on this connection, so readable means closed.
        [_, true] => TailEvent::DaemonLeft,
        [false, false] => TailEvent::Nothing,
    }
}
