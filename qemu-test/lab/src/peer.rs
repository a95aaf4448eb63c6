//! Other forwarders in the router's place, with the same questions as the appliance: unbound and dnsmasq from Debian.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::netns::Namespace;
use crate::nsd;
use crate::process::{End, Process, output_of};
use crate::programs::find_program;
use crate::suite::Suite;

/// Time until a peer's first answer on a loaded machine.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// dnsmasq's cache size: the same as the appliance's.
const DNSMASQ_CACHE: &str = "--cache-size=8192";
/// dnsmasq's questions in flight: more than any load here has.
const DNSMASQ_IN_FLIGHT: &str = "--dns-forward-max=2000";

/// Another forwarder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// dnsmasq (package dnsmasq-base).
    Dnsmasq,
    /// unbound, with so many threads.
    Unbound {
        /// `num-threads`.
        threads: u32,
    },
}

/// Place of a peer.
#[derive(Clone, Copy, Debug)]
pub struct Site<'a> {
    /// Its host.
    pub host: &'a Namespace,
    /// Its address.
    pub address: SocketAddr,
    /// Its upstream, on port 53.
    pub upstream: IpAddr,
    /// Directory for its files.
    pub directory: &'a Path,
}

impl Peer {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Dnsmasq => "dnsmasq",
            Self::Unbound { .. } => "unbound",
        }
    }

    /// Settings other than the defaults, in words.
    #[must_use]
    pub fn settings(self) -> String {
        match self {
            Self::Dnsmasq => format!("{DNSMASQ_CACHE} {DNSMASQ_IN_FLIGHT}, no query log"),
            Self::Unbound { threads } => {
                format!("num-threads: {threads}, module-config: \"iterator\", forward-zone \".\"")
            }
        }
    }

    /// Starts the peer, forwarding everything, and waits until it answers. For unbound, `server` are more lines of its section
    /// `server:`; dnsmasq ignores them.
    pub fn start(self, site: &Site<'_>, server: &str) -> Result<Process> {
        self.start_of(None, site, server)
    }

    /// [`Self::start`] with the peer of this suite, or with this machine's own for `None`.
    pub fn start_of(self, suite: Option<&Suite>, site: &Site<'_>, server: &str) -> Result<Process> {
        let command = match self {
            Self::Dnsmasq => dnsmasq(suite, site),
            Self::Unbound { threads } => {
                let config = site.directory.join("unbound.conf");
                let text = unbound_config(site, threads, server);
                fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
                let mut command = match suite {
                    Some(suite) => suite.command(site.host, "unbound"),
                    None => site.host.command(unbound_copy(site.directory)?),
                };
                command.arg("-d").arg("-c").arg(&config);
                command
            }
        };
        let log = site.directory.join(format!("{}.log", self.name()));
        let mut process = Process::spawn_with_end(command, &log, End::Terminate)?;
        let what = format!("{} answers", self.name());
        process.wait_until(&what, START_TIMEOUT, || {
            nsd::answers(site.host, site.address)
        })?;
        Ok(process)
    }
}

fn dnsmasq(suite: Option<&Suite>, site: &Site<'_>) -> Command {
    let mut command = match suite {
        Some(suite) => suite.command(site.host, "dnsmasq"),
        None => site.host.command("dnsmasq"),
    };
    command
        .args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-hosts",
        ])
        .args([
            "--no-resolv",
            "--bind-interfaces",
            "--user=root",
            "--pid-file=",
        ])
        .args([DNSMASQ_CACHE, DNSMASQ_IN_FLIGHT])
        .arg(format!("--server={}", site.upstream))
        .arg(format!("--listen-address={}", site.address.ip()))
        .arg(format!("--port={}", site.address.port()));
    command
}

/// A copy of unbound: Debian's AppArmor profile applies to the original path, and denies access to our files.
fn unbound_copy(directory: &Path) -> Result<PathBuf> {
    let program = find_program("unbound").context("unbound is not installed (package unbound)")?;
    let copy = directory.join("unbound");
    // A copy that is still running will do.
    if !copy.exists() {
        // Copied by another process: a program that this process had open for writing may stay so for a moment in a child that
        // another thread has just forked, and cannot be executed meanwhile (ETXTBSY of execve(2)).
        output_of(Command::new("cp").arg(&program).arg(&copy))?;
    }
    Ok(copy)
}

/// unbound answers `test.` itself unless told otherwise.
fn unbound_config(site: &Site<'_>, threads: u32, server: &str) -> String {
    let directory = site.directory.display();
    let default = |key: &str, line: &'static str| if server.contains(key) { "" } else { line };
    let modules = default("module-config:", "    module-config: \"iterator\"\n");
    let access = default(
        "access-control:",
        "    access-control: 0.0.0.0/0 allow\n    access-control: ::/0 allow\n",
    );
    format!(
        "server:
    interface: {ip}@{port}
    num-threads: {threads}
{access}{modules}    local-zone: \"test.\" nodefault
    do-not-query-localhost: no
    chroot: \"\"
    username: \"\"
    directory: \"{directory}\"
    pidfile: \"\"
    use-syslog: no
    do-daemonize: no
{server}forward-zone:
    name: \".\"
    forward-addr: {upstream}
remote-control:
    control-enable: no
",
        ip = site.address.ip(),
        port = site.address.port(),
        upstream = site.upstream,
    )
}
