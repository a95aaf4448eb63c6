//! A child process that ends with its owner, and whose output can be read while it runs.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait::wait_until;

/// Time for a process to end after it was asked to.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// A running child: killed when dropped, and killed by the kernel when the thread that started it ends.
#[derive(Debug)]
pub struct Process {
    what: String,
    child: Child,
    log: PathBuf,
    end: End,
}

/// How a child is ended when its owner is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// At once, by SIGKILL.
    Kill,
    /// By SIGTERM, for a child that has to end its own children; then as [`End::Kill`] if it does not.
    Terminate,
}

impl End {
    fn signal(self) -> Signal {
        match self {
            Self::Kill => Signal::SIGKILL,
            Self::Terminate => Signal::SIGTERM,
        }
    }
}

impl Process {
    /// Starts `command` with its output and errors going to the file `log`.
    ///
    /// The kernel kills the child when the *calling thread* ends, so call this from a thread that lives as long.
    pub fn spawn(command: Command, log: &Path) -> Result<Self> {
        Self::spawn_with_end(command, log, End::Kill)
    }

    /// [`Process::spawn`] with the way in which the child is ended.
    pub fn spawn_with_end(mut command: Command, log: &Path, end: End) -> Result<Self> {
        let what = command.get_program().to_string_lossy().into_owned();
        let file = File::create(log).with_context(|| format!("create {}", log.display()))?;
        let errors = file.try_clone().context("duplicate the log's descriptor")?;
        command.stdin(Stdio::null()).stdout(file).stderr(errors);
        // SAFETY: the closure runs in the forked child and makes one system call (prctl) on a copied integer: it takes
        // no lock and allocates nothing, which is what may be done between fork and exec.
        unsafe {
            command.pre_exec(move || Ok(set_pdeathsig(end.signal())?));
        }
        let child = command.spawn().with_context(|| format!("start {what}"))?;
        let log = log.to_owned();
        Ok(Self {
            what,
            child,
            log,
            end,
        })
    }

    /// Its PID.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its output so far.
    #[must_use]
    pub fn log(&self) -> String {
        read_log(&self.log)
    }

    /// True while it runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until `predicate` holds; fails early, with the child's output, if it exits before that.
    pub fn wait_until(
        &mut self,
        what: &str,
        timeout: Duration,
        mut predicate: impl FnMut() -> bool,
    ) -> Result<()> {
        let mut holds = false;
        let waited = wait_until(what, timeout, || {
            holds = predicate();
            holds || !self.is_running()
        });
        if holds {
            return Ok(());
        }
        let state = if self.is_running() {
            "still runs"
        } else {
            "has exited"
        };
        let reason = waited
            .err()
            .map(|error| format!("{error:#}; "))
            .unwrap_or_default();
        bail!(
            "{reason}{} {state} without that: {what}. Its log:\n{}",
            self.what,
            self.log()
        )
    }

    /// Waits until its log contains `text`; fails early if it exits before that.
    pub fn wait_for_log(&mut self, text: &str, timeout: Duration) -> Result<()> {
        let log = self.log.clone();
        let what = format!("its log contains {text:?}");
        self.wait_until(&what, timeout, || read_log(&log).contains(text))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.pid()).context("a process number fits an i32")?;
        kill(Pid::from_raw(pid), signal).with_context(|| format!("send {signal} to {}", self.what))
    }

    /// Kills it with -9, as a crash would, and waits for its end.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.child
            .kill()
            .with_context(|| format!("kill {}", self.what))?;
        self.child
            .wait()
            .with_context(|| format!("wait for {}", self.what))
    }

    /// Stops it by SIGSTOP, and waits until it is stopped: the kernel signals one thread, and the others go on until that one
    /// runs.
    pub fn stop(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)?;
        let stat = format!("/proc/{}/stat", self.pid());
        wait_until("it is stopped", END_TIMEOUT, || {
            fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") T "))
        })
    }

    /// Asks it to end by SIGTERM and waits; fails if it does not.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.wait_exit(END_TIMEOUT)
    }

    /// Waits until it ends by itself.
    pub fn wait_exit(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let what = format!("{} (process {}) ends", self.what, self.pid());
        let waited = wait_until(&what, timeout, || !self.is_running());
        waited.with_context(|| format!("its log:\n{}", self.log()))?;
        // It has ended, so this does not block.
        let status = self.child.wait();
        status.with_context(|| format!("wait for {}", self.what))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.end == End::Terminate
            && let Err(error) = self.terminate()
        {
            eprintln!("{error:#}");
        }
        // Both fail only if it has ended already, which is fine.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn read_log(path: &Path) -> String {
    fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}

/// Runs a command to its end and returns its output; an error has the command and its error output.
pub fn output_of(command: &mut Command) -> Result<String> {
    let arguments = command
        .get_args()
        .map(|argument| argument.to_string_lossy());
    let line: Vec<_> = [command.get_program().to_string_lossy()]
        .into_iter()
        .chain(arguments)
        .collect();
    let line = line.join(" ");
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("run {line}"))?;
    check(&line, &output)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Fails with the command's output unless it succeeded.
pub(crate) fn check(line: &str, output: &Output) -> Result<()> {
    let said = String::from_utf8_lossy(&output.stderr);
    let printed = String::from_utf8_lossy(&output.stdout);
    let status = output.status;
    ensure!(
        status.success(),
        "{line}\n{status}: {}{}",
        said.trim(),
        printed.trim()
    );
    Ok(())
}
