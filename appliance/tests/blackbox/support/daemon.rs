//! The real binary in the router's namespace: starts it, reads its counters, kills it, starts it again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};
use std::time::Duration;

use anyhow::{Context, Result};
use xdnsd::control;
use xdnsd_lab::lab::Lab;
use xdnsd_lab::process::{End, Process};
use xdnsd_lab::wait::wait_until;

use super::TIMEOUT;
use super::metrics::{Metric, Metrics};

/// The binary under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_xdnsd");
/// Time that it may take on a loaded machine to load the program and open its sockets.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// Makes a worker that allocates abort instead of counting it.
const SEAL: (&str, &str) = ("XDNSD_SEAL", "abort");

/// A running `xdnsd run`. Its log goes to the test's output on drop.
#[derive(Debug)]
pub struct Daemon {
    process: Process,
    config: PathBuf,
    log: PathBuf,
    socket: PathBuf,
    /// Logs of earlier processes of this daemon.
    earlier_logs: String,
}

impl Daemon {
    /// Starts it with the file `config`, which names `socket`, and waits until it serves.
    pub fn start(lab: &Lab, config: &Path, socket: &Path) -> Result<Self> {
        let log = config.with_extension("log");
        let mut daemon = Self {
            process: spawn(lab, config, &log)?,
            config: config.to_owned(),
            log,
            socket: socket.to_owned(),
            earlier_logs: String::new(),
        };
        daemon.wait_ready()?;
        Ok(daemon)
    }

    /// Starts it by `command`, which becomes the server, and waits until it serves on `socket`. The log is beside `config`.
    pub fn start_command(mut command: Command, config: &Path, socket: &Path) -> Result<Self> {
        let log = config.with_extension("log");
        command.env(SEAL.0, SEAL.1);
        let mut daemon = Self {
            process: Process::spawn_with_end(command, &log, End::Kill)?,
            config: config.to_owned(),
            log,
            socket: socket.to_owned(),
            earlier_logs: String::new(),
        };
        daemon.wait_ready()?;
        Ok(daemon)
    }

    /// Starts it again after its end.
    pub fn start_again(&mut self, lab: &Lab) -> Result<()> {
        self.earlier_logs += &self.process.log();
        self.process = spawn(lab, &self.config, &self.log)?;
        self.wait_ready()
    }

    fn wait_ready(&mut self) -> Result<()> {
        let socket = self.socket.clone();
        let is_ready = || ask(&socket, "stats").is_ok();
        self.process
            .wait_until("xdnsd serves", START_TIMEOUT, is_ready)
    }

    /// Kills it, like a crash.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.process.kill()
    }

    /// Ends it by SIGTERM.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        self.process.terminate()
    }

    /// Waits until it has ended.
    pub fn wait_exit(&mut self) -> Result<ExitStatus> {
        self.process.wait_exit(TIMEOUT)
    }

    /// Sends a signal.
    pub fn signal(&self, signal: nix::sys::signal::Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Stops it, and waits until it is.
    pub fn stop(&self) -> Result<()> {
        self.process.stop()
    }

    /// The process's ID.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Log of this process so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Waits until `text` is in the log `count` times.
    pub fn wait_log_count(&self, text: &str, count: usize) -> Result<()> {
        let what = format!("the log says {text:?} {count} times");
        wait_until(&what, TIMEOUT, || self.log().matches(text).count() >= count)
    }

    /// Peak memory in bytes, without mapped pages of files (VmHWM minus RssFile of proc_pid_status(5)): those of an unoptimised
    /// build are several times those of the released one.
    pub fn peak_memory(&self) -> Result<usize> {
        peak_memory(self.process.pid())
    }

    /// Answer of the control socket to `request`.
    pub fn control(&self, request: &str) -> Result<String> {
        ask(&self.socket, request)
    }

    /// Current counters.
    pub fn metrics(&self) -> Result<Metrics> {
        Ok(Metrics::new(self.control("stats")?))
    }

    /// Waits until each metric has grown by exactly this much since `earlier`.
    pub fn wait_growth(&self, earlier: &Metrics, expected: &[(&dyn Metric, u64)]) -> Result<()> {
        let mut last = earlier.clone();
        let waited = wait_until("the counters are as expected", TIMEOUT, || {
            if let Ok(metrics) = self.metrics() {
                last = metrics;
            }
            expected
                .iter()
                .all(|(metric, growth)| last.growth(earlier, *metric) == *growth)
        });
        waited.with_context(|| {
            let lines = expected.iter().map(|(metric, growth)| {
                format!(
                    "{metric:?}: {}, expected {growth}\n",
                    last.growth(earlier, *metric)
                )
            });
            format!("{}\n{}", lines.collect::<String>(), last.text())
        })
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // The test harness shows it if the test fails.
        eprint!("{}{}", self.earlier_logs, self.process.log());
    }
}

/// Peak memory of a process, as [`Daemon::peak_memory`].
pub fn peak_memory(pid: u32) -> Result<usize> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let bytes = |name: &str| -> Result<usize> {
        let mut words = status.split_whitespace().skip_while(|word| *word != name);
        let kib: Option<usize> = words.nth(1).and_then(|kib| kib.parse().ok());
        Ok(kib.with_context(|| format!("no {name} in {path}"))? * 1024)
    };
    Ok(bytes("VmHWM:")?.saturating_sub(bytes("RssFile:")?))
}

fn spawn(lab: &Lab, config: &Path, log: &Path) -> Result<Process> {
    let mut command = lab.router.command(BINARY);
    command.arg("run").arg(config).env(SEAL.0, SEAL.1);
    Process::spawn_with_end(command, log, End::Kill)
}

fn ask(socket: &Path, request: &str) -> Result<String> {
    let mut answer = Vec::new();
    control::ask(socket, request, &mut answer).with_context(|| format!("ask for {request:?}"))?;
    Ok(String::from_utf8(answer)?)
}

/// Runs the binary to its end with these arguments, in the lab's router if there is a lab.
pub fn run(lab: Option<&Lab>, arguments: &[&str]) -> Result<Output> {
    let mut command = lab.map_or_else(|| Command::new(BINARY), |lab| lab.router.command(BINARY));
    let output = command.args(arguments).output();
    output.with_context(|| format!("run {BINARY} {}", arguments.join(" ")))
}

/// Writes a config file, or another file of a test.
pub fn write(directory: &Path, file: &str, text: &str) -> Result<PathBuf> {
    let path = directory.join(file);
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}
