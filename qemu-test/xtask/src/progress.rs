//! Long commands: output goes to a log, and the terminal shows progress.

use std::fs::{self, File};
use std::io::{IsTerminal, Read, Seek, SeekFrom, Write, stderr};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::signals::Signals;

/// Time between two checks of a command.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Time between two progress lines on a terminal.
const TERMINAL_INTERVAL: Duration = Duration::from_millis(500);
/// Time between two progress lines in a log.
const LOG_INTERVAL: Duration = Duration::from_secs(30);
/// Bytes read from the end of a log for its last line.
const TAIL_LEN: u64 = 400;
/// Characters of a last line that are shown.
const SHOWN_LEN: usize = 90;
/// Time for an interrupted command to end before it is killed.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// Result of a watched command.
#[derive(Debug)]
pub struct Watched {
    /// Its exit status; `None` if it was killed at its time limit.
    pub status: Option<ExitStatus>,
    /// Path of its log.
    pub log: PathBuf,
    /// Its output.
    pub output: String,
}

impl Watched {
    /// True if it ended by itself with success.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.status.is_some_and(|status| status.success())
    }
}

/// Description of a command.
#[derive(Clone, Copy, Debug)]
pub struct Task<'a> {
    /// What it does, in words.
    pub what: &'a str,
    /// File for its output.
    pub log: &'a Path,
    /// Time limit.
    pub limit: Duration,
}

/// Runs `command` until it ends, reaches its time limit, or is interrupted.
///
/// It gets its own process group, which is killed as a whole at the limit.
pub fn watch(task: Task<'_>, mut command: Command, signals: &Signals) -> Result<Watched> {
    let Task { what, log, limit } = task;
    let mut file = create(log)?;
    let output = file.try_clone().context("duplicate the log's descriptor")?;
    let errors = file.try_clone().context("duplicate the log's descriptor")?;
    command
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .process_group(0);
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .spawn()
        .with_context(|| format!("start {program}"))?;
    let mut sign = SignOfLife::new(what);
    let deadline = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child
            .try_wait()
            .with_context(|| format!("wait for {program}"))?
        {
            break Some(status);
        }
        if Instant::now() >= deadline {
            signal_group(&child, Signal::SIGKILL)?;
            child
                .wait()
                .with_context(|| format!("wait for {program}"))?;
            writeln!(file, "killed: not done within {} s", limit.as_secs())
                .context("write the log")?;
            break None;
        }
        if signals.wait(LOOK_INTERVAL) {
            interrupt(&mut child)?;
            bail!("interrupted");
        }
        sign.give(log);
    };
    sign.clear();
    let output = fs::read(log).with_context(|| format!("read {}", log.display()))?;
    let output = String::from_utf8_lossy(&output).into_owned();
    Ok(Watched {
        status,
        log: log.to_owned(),
        output,
    })
}

fn create(log: &Path) -> Result<File> {
    let directory = log.parent().context("a log is in a directory")?;
    fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
    File::create(log).with_context(|| format!("create {}", log.display()))
}

fn signal_group(child: &Child, signal: Signal) -> Result<()> {
    let group = i32::try_from(child.id()).context("a process number fits an i32")?;
    killpg(Pid::from_raw(group), signal).with_context(|| format!("send {signal} to a command"))
}

fn interrupt(child: &mut Child) -> Result<()> {
    signal_group(child, Signal::SIGINT)?;
    let ended = xdnsd_lab::wait::wait_until("the interrupted command ends", END_TIMEOUT, || {
        !matches!(child.try_wait(), Ok(None))
    });
    if ended.is_err() {
        signal_group(child, Signal::SIGKILL)?;
    }
    Ok(())
}

/// Shows a command's running time and its last line of output.
struct SignOfLife<'what> {
    what: &'what str,
    started: Instant,
    next: Instant,
    is_terminal: bool,
}

impl<'what> SignOfLife<'what> {
    fn new(what: &'what str) -> Self {
        let (started, is_terminal) = (Instant::now(), stderr().is_terminal());
        let interval = if is_terminal {
            TERMINAL_INTERVAL
        } else {
            LOG_INTERVAL
        };
        Self {
            what,
            started,
            next: started + interval,
            is_terminal,
        }
    }

    fn give(&mut self, log: &Path) {
        let now = Instant::now();
        if now < self.next {
            return;
        }
        let (what, secs) = (self.what, (now - self.started).as_secs());
        let last = last_line(log).unwrap_or_default();
        if self.is_terminal {
            eprint!("\r\x1b[2K{what}: {secs} s  {last}");
            self.next = now + TERMINAL_INTERVAL;
        } else {
            eprintln!("        {what}: still at it after {secs} s: {last}");
            self.next = now + LOG_INTERVAL;
        }
    }

    fn clear(&self) {
        if self.is_terminal {
            eprint!("\r\x1b[2K");
        }
    }
}

/// The last line of a growing log that is not blank, cut to fit a terminal.
fn last_line(log: &Path) -> Option<String> {
    let mut file = File::open(log).ok()?;
    let len = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(TAIL_LEN)))
        .ok()?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail).ok()?;
    let tail = String::from_utf8_lossy(&tail).into_owned();
    let line = tail
        .lines()
        .rev()
        .map(str::trim)
        .find(|line| !line.is_empty())?;
    Some(
        line.chars()
            .filter(|letter| !letter.is_control())
            .take(SHOWN_LEN)
            .collect(),
    )
}
