//! A running guest: its console, and commands typed into it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

use xdnsd_lab::wait::wait_until;

/// Time limit of a command in the guest, on a host with other work.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);
/// Prefix of the line that `/usr/libexec/xdnsd/boot-check` writes.
const VERDICT: &str = "xdnsd-boot: ";
/// Part of the line that the server logs once all of it runs.
const READY: &str = "] ready: ";

/// Prompt of root's shell, in either image.
const PROMPT: &str = "\n# ";

/// QEMU with its console. Killed when dropped, and by the kernel when the thread that started it ends.
#[derive(Debug)]
pub struct Guest {
    child: Child,
    input: ChildStdin,
    console: Arc<Mutex<Vec<u8>>>,
    started: Instant,
    commands: u32,
    logins: usize,
}

impl Guest {
    /// Starts QEMU. Console output is also written to `log`.
    pub fn start(mut command: Command, log: &Path) -> Result<Self> {
        // SAFETY: the closure runs in the forked child and makes one system call (prctl) on a constant: it takes no
        // lock and allocates nothing, which is what may be done between fork and exec.
        unsafe {
            command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?));
        }
        let started = Instant::now();
        let mut child = command
            .spawn()
            .context("start QEMU (`cargo xtask setup image` installs it)")?;
        let input = child.stdin.take().context("the console can be written")?;
        let output = child.stdout.take().context("the console can be read")?;
        let errors = child.stderr.take().context("QEMU's errors can be read")?;
        let console = Arc::new(Mutex::new(Vec::new()));
        let log = File::create(log).with_context(|| format!("create {}", log.display()))?;
        let log_of_errors = log.try_clone().context("duplicate the log's descriptor")?;
        copy_in_background(output, Arc::clone(&console), log);
        copy_in_background(errors, Arc::clone(&console), log_of_errors);
        Ok(Self {
            child,
            input,
            console,
            started,
            commands: 0,
            logins: 0,
        })
    }

    /// All console output.
    #[must_use]
    pub fn console(&self) -> String {
        let bytes = self
            .console
            .lock()
            .map(|bytes| bytes.clone())
            .unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace('\r', "")
    }

    /// When QEMU was started.
    #[must_use]
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Time since QEMU was started.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Waits until `text` has appeared `times` times on the console; fails early if QEMU ends.
    pub fn wait_for_nth(&mut self, text: &str, times: usize, limit: Duration) -> Result<()> {
        let mut is_said = false;
        let what = format!("the console says {text:?}");
        let waited = wait_until(&what, limit, || {
            is_said = self.console().matches(text).count() >= times;
            is_said || !self.is_running()
        });
        // It may have been the last output.
        if is_said || self.console().matches(text).count() >= times {
            return Ok(());
        }
        let why = waited
            .err()
            .map_or_else(|| "QEMU has ended".to_owned(), |error| format!("{error:#}"));
        bail!(
            "{why}; not said: {text:?}. The console:\n{}",
            self.console()
        )
    }

    /// Waits until `text` has appeared on the console.
    pub fn wait_for(&mut self, text: &str, limit: Duration) -> Result<()> {
        self.wait_for_nth(text, 1, limit)
    }

    /// Waits for the `nth` boot's verdict and returns its line; FAIL is an error. The first answer comes from the kernel's
    /// sockets; XDP and TCP are ready when this returns.
    pub fn wait_for_verdict(&mut self, nth: usize, limit: Duration) -> Result<String> {
        self.wait_for_nth(VERDICT, nth, limit)?;
        let mut line = String::new();
        let whole = || {
            let console = self.console();
            let rest = console
                .match_indices(VERDICT)
                .nth(nth - 1)
                .map(|(at, _)| console[at..].to_owned());
            let found = rest.as_deref().and_then(|rest| rest.split_once('\n'));
            line = found.map_or_else(String::new, |(line, _)| line.to_owned());
            !line.is_empty()
        };
        wait_until("the verdict's line is whole", COMMAND_LIMIT, whole)?;
        ensure!(
            line.starts_with("xdnsd-boot: PASS"),
            "{line}. The console:\n{}",
            self.console()
        );
        self.wait_for_nth(READY, nth, COMMAND_LIMIT)?;
        Ok(line)
    }

    /// Logs in as root, who has no password in a fresh image.
    pub fn log_in(&mut self) -> Result<()> {
        let logins = self.console().matches("login: ").count();
        self.type_line("")?;
        self.wait_for_nth("login: ", logins + 1, COMMAND_LIMIT)?;
        // Input before the shell's prompt is discarded.
        let prompts = self.console().matches(PROMPT).count();
        self.type_line("root")?;
        self.wait_for_nth(PROMPT, prompts + 1, COMMAND_LIMIT)?;
        // The typed text differs from the marker, so its echo does not count.
        self.type_line("stty -echo; PS1=; echo logged''-in")?;
        self.logins += 1;
        self.wait_for_nth("logged-in", self.logins, COMMAND_LIMIT)
    }

    /// Runs a line of shell and returns its output; a non-zero status is an error.
    pub fn shell(&mut self, line: &str) -> Result<String> {
        self.commands += 1;
        let number = self.commands;
        self.type_line(&format!(
            "echo begin-{number}; {line}; echo end-{number}=$?"
        ))?;
        let end = format!("end-{number}=");
        let begin = format!("begin-{number}\n");
        let mut said = None;
        let waited = wait_until(
            &format!("the guest has done {line:?}"),
            COMMAND_LIMIT,
            || {
                said = between(&self.console(), &begin, &end);
                said.is_some() || !self.is_running()
            },
        );
        let Some((output, status)) = said else {
            waited?;
            bail!(
                "QEMU has ended during {line:?}. The console:\n{}",
                self.console()
            );
        };
        ensure!(
            status == "0",
            "{line:?} ended with {status} and said: {output}"
        );
        Ok(output)
    }

    /// A counter of the server, summed over its labels.
    pub fn counter(&mut self, name: &str) -> Result<u64> {
        let stats = self.shell("xdnsd stats --prometheus")?;
        Ok(sum(&stats, name))
    }

    /// A counter of the server, summed over samples with this label.
    pub fn counter_with(&mut self, name: &str, label: &str) -> Result<u64> {
        let stats = self.shell("xdnsd stats --prometheus")?;
        Ok(sum_with(&stats, name, label))
    }

    /// Switches the power off, without flushing anything.
    pub fn cut_power(mut self) -> Result<()> {
        self.child.kill().context("kill QEMU")?;
        self.child.wait().context("wait for QEMU").map(drop)
    }

    /// Waits until QEMU has ended by itself.
    pub fn wait_for_end(&mut self, limit: Duration) -> Result<()> {
        wait_until("QEMU ends", limit, || !self.is_running())
            .with_context(|| format!("the console:\n{}", self.console()))
    }

    /// True while QEMU runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Types a line into the console.
    pub fn type_line(&mut self, line: &str) -> Result<()> {
        writeln!(self.input, "{line}").context("type into the console")
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Both fail only if it has ended already, which is fine.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Sum of a counter's samples, whatever their labels, in Prometheus's text format.
pub fn sum(stats: &str, name: &str) -> u64 {
    sum_with(stats, name, "")
}

/// Sum of a counter's samples with this label.
pub fn sum_with(stats: &str, name: &str, label: &str) -> u64 {
    let samples = stats.lines().filter_map(|line| line.split_once(' '));
    let named = samples.filter(|(sample, _)| sample.split('{').next() == Some(name));
    named
        .filter(|(sample, _)| sample.contains(label))
        .filter_map(|(_, value)| value.trim().parse::<u64>().ok())
        .sum()
}

/// Output between `begin` and `end`, and the word after `end`, once its line is complete.
fn between(console: &str, begin: &str, end: &str) -> Option<(String, String)> {
    let (_, after) = console.rsplit_once(begin)?;
    let (output, rest) = after.split_once(end)?;
    let (status, _) = rest.split_once('\n')?;
    Some((output.to_owned(), status.trim().to_owned()))
}

fn copy_in_background(
    mut from: impl Read + Send + 'static,
    to: Arc<Mutex<Vec<u8>>>,
    mut log: File,
) {
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if let Ok(mut console) = to.lock() {
                console.extend_from_slice(&buffer[..count]);
            }
            // A failed write loses the log, but not the test.
            drop(log.write_all(&buffer[..count]));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::{between, sum};

    #[test]
    fn counter_is_summed_over_its_queues() {
        let stats =
            "# TYPE a counter\na{queue=\"0\"} 2\na{queue=\"1\"} 3\na_b{queue=\"0\"} 9\nc 1\n";
        assert_eq!(sum(stats, "a"), 5);
        assert_eq!(sum(stats, "c"), 1);
        assert_eq!(sum(stats, "absent"), 0);
    }

    #[test]
    fn output_is_what_is_between_the_marks_once_the_line_is_whole() {
        let whole = "echo begin-1; x; echo end-1=$?\nbegin-1\nhello\nend-1=0\n";
        assert_eq!(
            between(whole, "begin-1\n", "end-1="),
            Some(("hello\n".to_owned(), "0".to_owned()))
        );
        assert_eq!(
            between("begin-1\nhello\nend-1=", "begin-1\n", "end-1="),
            None
        );
        assert_eq!(between("begin-1\nhel", "begin-1\n", "end-1="), None);
    }
}
