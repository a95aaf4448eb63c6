//! Captures: made by tcpdump, replayed by tcpreplay, read by tshark.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use xdnsd_lab::lab::HOST_INTERFACE;
use xdnsd_lab::netns::Namespace;
use xdnsd_lab::process::{Process, output_of};

/// Time until tcpdump listens.
const PATIENCE: Duration = Duration::from_secs(10);
/// From the last query to the end of a capture: longer than any answer takes.
const SETTLE: Duration = Duration::from_millis(300);
/// Kibibytes of tcpdump's buffer: more than all frames of a capture.
const BUFFER: &str = "8192";

/// tcpdump, capturing a host's DNS queries and responses.
#[derive(Debug)]
pub struct Capture {
    process: Process,
    path: PathBuf,
}

impl Capture {
    /// Starts the capture; frames sent from here on are in it.
    pub fn start(host: &Namespace, path: &Path) -> Result<Self> {
        let mut command = host.command("tcpdump");
        command
            .args(["-i", HOST_INTERFACE, "-n", "--immediate-mode", "-B", BUFFER])
            // As root it would change to another account, which may not write here.
            .args(["-Z", "root", "--time-stamp-precision=nano", "-w"])
            .arg(path)
            .args(["udp", "port", "53"]);
        let log = path.with_extension("log");
        let mut process = Process::spawn(command, &log)?;
        process.wait_for_log("listening on", PATIENCE)?;
        Ok(Self {
            process,
            path: path.to_owned(),
        })
    }

    /// Ends the capture after the last answer, and returns its path.
    pub fn finish(mut self) -> Result<PathBuf> {
        sleep(SETTLE);
        self.process.terminate()?;
        let log = self.process.log();
        let is_whole = log
            .lines()
            .any(|line| line.trim() == "0 packets dropped by kernel");
        ensure!(is_whole, "{} is not whole:\n{log}", self.path.display());
        Ok(self.path)
    }
}

/// Extracts the queries into a file of their own.
pub fn queries_of(capture: &Path, queries: &Path) -> Result<()> {
    let mut tcpdump = Command::new("tcpdump");
    tcpdump.args(["-n", "-Z", "root", "-r"]).arg(capture);
    tcpdump.arg("-w").arg(queries).args(["dst", "port", "53"]);
    output_of(&mut tcpdump).map(drop)
}

/// Replays the frames of a file from `host`, at `rate` a second or as fast as possible, `times` times.
pub fn replay(host: &Namespace, queries: &Path, rate: Option<u32>, times: u32) -> Result<()> {
    let mut tcpreplay = host.command("tcpreplay");
    tcpreplay.args(["--intf1", HOST_INTERFACE, &format!("--loop={times}")]);
    tcpreplay.arg(match rate {
        Some(rate) => format!("--pps={rate}"),
        None => "--topspeed".to_owned(),
    });
    tcpreplay.arg(queries);
    let said = output_of(&mut tcpreplay).context("tcpreplay (package tcpreplay)")?;
    let failed = said
        .lines()
        .find_map(|line| line.trim().strip_prefix("Failed packets:"));
    ensure!(
        failed.map(str::trim) == Some("0"),
        "not all was sent:\n{said}"
    );
    Ok(())
}

/// Microseconds from each query to its response, in the order of the responses.
pub fn latencies_us(capture: &Path) -> Result<Vec<f64>> {
    let mut tshark = Command::new("tshark");
    tshark.args(["-n", "-r"]).arg(capture);
    tshark.args(["-Y", "dns.time", "-T", "fields", "-e", "dns.time"]);
    let said = output_of(&mut tshark).context("tshark (package tshark)")?;
    parse(&said)
}

/// Parses a line for each response, with its time in seconds.
fn parse(said: &str) -> Result<Vec<f64>> {
    let secs = said.lines().map(|line| {
        let secs = line.trim().parse::<f64>();
        secs.with_context(|| format!("tshark gives no time: {line:?}"))
    });
    secs.map(|secs| Ok(1e6 * secs?)).collect()
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn times_are_read_as_tshark_prints_them() {
        let read = parse("0.000012500\n0.026322772\n").expect("two times");
        assert_eq!(read.len(), 2);
        assert!((read[0] - 12.5).abs() < 1e-9 && (read[1] - 26_322.772).abs() < 1e-6);
        assert!(parse("0.1\nno time\n").is_err());
    }
}
