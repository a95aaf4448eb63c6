//! The log without a reader: service goes on, SIGTERM and reload work, and lost lines are counted and reported. And text from
//! outside in the log.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, PipeReader, Read, pipe};
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use xdnsd::control;
use xdnsd_lab::lab::Lab;
use xdnsd_lab::privilege::root_or_skip;
use xdnsd_lab::wait::wait_until;

use crate::support::TIMEOUT;
use crate::support::client::{Family, UdpClient};
use crate::support::daemon::{BINARY, write};
use crate::support::message::{addresses, query, wire};
use crate::support::scene::{Directory, Setup};

/// A daemon with standard error of the test. Killed on drop.
struct Daemon {
    child: Child,
    lab: Lab,
    directory: Directory,
}

impl Daemon {
    /// `None` if `test` has to be skipped.
    fn start(test: &str, sections: &str, stderr: impl Into<Stdio>) -> Result<Option<Self>> {
        Self::start_with(test, sections, stderr, &[])
    }

    fn start_with(
        test: &str,
        sections: &str,
        stderr: impl Into<Stdio>,
        variables: &[(&str, &str)],
    ) -> Result<Option<Self>> {
        Self::start_by(test, sections, stderr, variables, None)
    }

    /// Runs `script` in a shell with the command as its arguments, if there is a script.
    fn start_by(
        test: &str,
        sections: &str,
        stderr: impl Into<Stdio>,
        variables: &[(&str, &str)],
        script: Option<&str>,
    ) -> Result<Option<Self>> {
        if !root_or_skip(test) {
            return Ok(None);
        }
        let lab = Lab::up(&Setup::default().lab)?;
        let directory = Directory::new()?;
        let record = "[local]\nrecords = [\"nas.test A 192.0.2.7\"]\n";
        let setup = Setup::default()
            .xdp("off")
            .sections(record)
            .sections(sections);
        let config = write(
            directory.path(),
            "config.toml",
            &setup.config(directory.path()),
        )?;
        let mut command = lab.router.command(script.map_or(BINARY, |_| "sh"));
        if let Some(script) = script {
            command.args(["-c", script, BINARY]);
        }
        command.arg("run").arg(&config).stdin(Stdio::null());
        command.envs(variables.iter().copied());
        let child = command.stdout(Stdio::null()).stderr(stderr).spawn()?;
        let mut daemon = Self {
            child,
            lab,
            directory,
        };
        wait_until("it serves", TIMEOUT, || daemon.asked("stats").is_ok())
            .with_context(|| format!("{:?}", daemon.child.try_wait()))?;
        Ok(Some(daemon))
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("sock")
    }

    fn asked(&self, request: &str) -> Result<String> {
        let mut out = Vec::new();
        control::ask(&self.socket(), request, &mut out)?;
        Ok(String::from_utf8(out)?)
    }

    fn lost(&self) -> Result<u64> {
        let metrics = self.asked("stats")?;
        let line = metrics
            .lines()
            .find_map(|line| line.strip_prefix("xdnsd_log_lines_lost_total "));
        Ok(line.context("no such metric")?.parse()?)
    }

    fn assert_serves(&self) -> Result<()> {
        let client = UdpClient::open(&self.lab, Family::V4)?;
        let answer = client.exchange(&wire(&query("nas.test.", RecordType::A)))?;
        assert_eq!(addresses(&Message::from_vec(&answer)?), ["192.0.2.7"]);
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(self.child.id().try_into()?), signal)?)
    }

    /// Sends SIGTERM, and returns the status.
    fn terminate(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        let mut status = None;
        wait_until("it ends", TIMEOUT, || {
            status = self.child.try_wait().ok().flatten();
            status.is_some()
        })?;
        status.context("it has ended")
    }

    /// Reloads until a line was lost.
    fn reload_until_lost(&self) -> Result<u64> {
        // Bounded: each reload logs a line of at least 40 bytes, and a pipe of 64 KiB takes no more than 2,000.
        for _ in 0..5_000 {
            self.asked("reload")?;
            let lost = self.lost()?;
            if lost > 0 {
                return Ok(lost);
            }
        }
        anyhow::bail!("nothing was ever lost")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Leaves `stderr` without a reader, and shows that nothing else is affected.
fn survives(test: &str, stderr: impl Into<Stdio>, shut: impl FnOnce()) -> Result<()> {
    let Some(mut daemon) = Daemon::start(test, "", stderr)? else {
        return Ok(());
    };
    shut();
    let lost = daemon.reload_until_lost()?;
    daemon.signal(Signal::SIGHUP)?;
    daemon.asked("reload")?;
    wait_until("each line is counted", TIMEOUT, || {
        daemon.lost().is_ok_and(|now| now > lost)
    })?;
    daemon.assert_serves()?;
    let status = daemon.terminate()?;
    assert_eq!(status.code(), Some(0), "{status}");
    Ok(())
}

#[test]
fn a_reader_of_the_log_that_has_gone_ends_nothing() -> Result<()> {
    let (reader, writer) = pipe()?;
    survives(
        "a_reader_of_the_log_that_has_gone_ends_nothing",
        writer,
        || drop(reader),
    )
}

#[test]
fn a_socket_whose_other_end_has_gone_ends_nothing() -> Result<()> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    let theirs = std::os::fd::OwnedFd::from(theirs);
    survives(
        "a_socket_whose_other_end_has_gone_ends_nothing",
        theirs,
        || drop(ours),
    )
}

#[test]
fn a_full_disk_under_the_log_ends_nothing() -> Result<()> {
    let full = File::options().write(true).open("/dev/full")?;
    survives("a_full_disk_under_the_log_ends_nothing", full, || {})
}

/// The runtime opens /dev/null in its place, or the pipe would be our own first socket.
#[test]
fn a_standard_error_that_is_closed_ends_nothing() -> Result<()> {
    let test = "a_standard_error_that_is_closed_ends_nothing";
    let closed = Some("exec \"$0\" \"$@\" <&- >&- 2>&-");
    let Some(mut daemon) = Daemon::start_by(test, "", Stdio::null(), &[], closed)? else {
        return Ok(());
    };
    daemon.asked("reload")?;
    daemon.assert_serves()?;
    assert_eq!(daemon.terminate()?.code(), Some(0));
    Ok(())
}

/// The pipe is full before the daemon starts: every line waits, from the first on.
#[test]
fn a_reader_of_the_log_that_does_not_read_holds_up_nothing() -> Result<()> {
    let (reader, writer) = pipe()?;
    fill(&writer)?;
    survives(
        "a_reader_of_the_log_that_does_not_read_holds_up_nothing",
        writer,
        || {},
    )?;
    drop(reader);
    Ok(())
}

/// Fills the pipe; the shared descriptor is non-blocking only meanwhile.
fn fill(writer: &std::io::PipeWriter) -> Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let flags = OFlag::from_bits_retain(fcntl(writer, FcntlArg::F_GETFL)?);
    fcntl(writer, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    while nix::unistd::write(writer, &[b'\n'; 4096]).is_ok() {}
    fcntl(writer, FcntlArg::F_SETFL(flags))?;
    Ok(())
}

#[test]
fn a_start_that_fails_does_not_wait_for_a_reader_either() -> Result<()> {
    let (_reader, writer) = pipe()?;
    fill(&writer)?;
    let mut command = std::process::Command::new(BINARY);
    let mut child = command
        .args(["run", "/nonexistent/x.toml"])
        .stderr(writer)
        .spawn()?;
    let mut status = None;
    wait_until("it ends", TIMEOUT, || {
        status = child.try_wait().ok().flatten();
        status.is_some()
    })?;
    assert_eq!(status.and_then(|status| status.code()), Some(78));
    Ok(())
}

#[test]
fn the_parents_descriptor_stays_as_it_was() -> Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let (reader, writer) = pipe()?;
    let ours = writer.try_clone()?;
    let Some(daemon) = Daemon::start("the_parents_descriptor_stays_as_it_was", "", writer)? else {
        return Ok(());
    };
    let flags = OFlag::from_bits_retain(fcntl(&ours, FcntlArg::F_GETFL)?);
    assert!(!flags.contains(OFlag::O_NONBLOCK), "{flags:?}");
    drop((daemon, reader));
    Ok(())
}

fn read_to_end(mut reader: PipeReader) -> Result<String> {
    let mut text = Vec::new();
    reader.read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn what_was_lost_is_told_once_there_is_a_reader_again() -> Result<()> {
    let (reader, writer) = pipe()?;
    fill(&writer)?;
    let test = "what_was_lost_is_told_once_there_is_a_reader_again";
    let Some(mut daemon) = Daemon::start(test, "", writer)? else {
        return Ok(());
    };
    let lost = daemon.reload_until_lost()?;
    let text = Arc::new(Mutex::new(String::new()));
    let shared = Arc::clone(&text);
    let reads = std::thread::spawn(move || {
        for line in BufReader::new(reader).lines().map_while(Result::ok) {
            let mut text = shared.lock().expect("nobody panics with it");
            *text += &format!("{line}\n");
        }
    });
    let so_far = || text.lock().expect("nobody panics with it").clone();
    wait_until("it is told", TIMEOUT, || so_far().contains(" lost\n"))?;
    daemon.terminate()?;
    reads.join().expect("it ends");
    let text = so_far();
    let told: u64 = text
        .lines()
        .filter_map(|line| {
            line.strip_suffix(" lost")?
                .trim_end_matches('s')
                .strip_suffix(" line")?
                .rsplit(' ')
                .next()?
                .parse::<u64>()
                .ok()
        })
        .sum();
    assert!(told >= lost && lost > 0, "{told} told, {lost} lost\n{text}");
    assert!(text.contains("reloaded: "), "{text}");
    Ok(())
}

#[test]
fn what_comes_from_outside_cannot_move_the_cursor() -> Result<()> {
    let (reader, writer) = pipe()?;
    let directory = Directory::new()?;
    let hosts = directory.path().join("hosts\x1b[31m");
    fs::write(
        &hosts,
        "192.0.2.1 a\x1b]0;title\x07b\u{9b}2J\u{202e}c bad\rINFO forged\n",
    )?;
    let rules = directory.path().join("rules");
    fs::write(&rules, "||a\x1b[2Jb^$third\u{85}party\n")?;
    let sections = format!(
        "hosts = [{:?}]\n[filter]\nblock_files = [{:?}]\n",
        hosts
            .display()
            .to_string()
            .replace('\x1b', "\\u001B")
            .as_str(),
        rules.display().to_string(),
    )
    .replace("\\\\u", "\\u");
    let test = "what_comes_from_outside_cannot_move_the_cursor";
    let Some(mut daemon) = Daemon::start(test, &sections, writer)? else {
        return Ok(());
    };
    let reads = std::thread::spawn(move || read_to_end(reader));
    daemon.terminate()?;
    let text = reads.join().expect("it ends")?;
    assert!(text.contains("hosts\\x1b[31m"), "{text:?}");
    let obeyed = |char: char| char.is_control() && char != '\n' || char == '\u{202e}';
    assert_eq!(text.find(obeyed), None, "{text:?}");
    assert!(
        !text.lines().any(|line| line.starts_with("INFO forged")),
        "{text:?}"
    );
    Ok(())
}

#[test]
fn the_journal_gets_a_level_with_each_line_and_a_pipe_does_not() -> Result<()> {
    for (is_journal, key, prefixed) in [
        (true, "auto", true),
        (true, "never", false),
        (false, "auto", false),
        (false, "always", true),
    ] {
        let (reader, writer) = pipe()?;
        let status = nix::sys::stat::fstat(&writer)?;
        let stream = format!(
            "{}:{}",
            status.st_dev,
            status.st_ino + u64::from(!is_journal)
        );
        let section = format!("[log]\npriority = {key:?}\n");
        let variables = [("JOURNAL_STREAM", stream.as_str())];
        let test = "the_journal_gets_a_level_with_each_line_and_a_pipe_does_not";
        let Some(mut daemon) = Daemon::start_with(test, &section, writer, &variables)? else {
            return Ok(());
        };
        let reads = std::thread::spawn(move || read_to_end(reader));
        daemon.terminate()?;
        let text = reads.join().expect("it ends")?;
        let ready = text
            .lines()
            .find(|line| line.contains("ready: "))
            .context(text.clone())?;
        let expected = if prefixed { "<6>INFO  [" } else { "INFO  [" };
        assert!(ready.starts_with(expected), "{ready}");
    }
    Ok(())
}
