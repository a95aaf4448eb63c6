//! The measured programs, each on its own pair.

use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use std::os::unix::process::CommandExt;
use std::process::Command;

use super::SUBJECT_CORE;
use super::build::Programs;
use super::pair::{ENDS, FAR, NEAR, Pair};
use super::query;
use super::upstream::Upstream;
use xdnsd_lab::bpf::{Link, attach_pass};
use xdnsd_lab::frames::FrameSocket;
use xdnsd_lab::live::Live;
use xdnsd_lab::process::Process;

/// Time until a subject is ready, and until an answer arrives.
const PATIENCE: Duration = Duration::from_secs(10);
/// Frames of the trial before the first round: they fit every queue on the way.
const TRIAL: u32 = 64;
/// Offsets in a reply's frame: source port, and the message's flags and answer count.
const SOURCE_PORT: usize = 34;
const FLAGS: usize = 44;
const ANSWER_COUNT: usize = 48;

/// Implementation of the sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Ours over libc.
    Own,
    /// The crate `afxdp`.
    Crate,
}

/// A measured program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `xsk_echo`: swaps addresses, sends back.
    Echo(Backend),
    /// `udp_echo`: the kernel's UDP sockets.
    KernelEcho,
    /// `xdnsd run`, every answer from the cache.
    Appliance(Backend),
}

impl Kind {
    /// All kinds, the yardstick first.
    pub const ALL: [Self; 5] = [
        Self::Echo(Backend::Own),
        Self::Echo(Backend::Crate),
        Self::KernelEcho,
        Self::Appliance(Backend::Own),
        Self::Appliance(Backend::Crate),
    ];

    /// Letter by which it is selected.
    #[must_use]
    pub fn letter(self) -> char {
        match self {
            Self::Echo(Backend::Own) => 'a',
            Self::Echo(Backend::Crate) => 'b',
            Self::KernelEcho => 'c',
            Self::Appliance(Backend::Own) => 'd',
            Self::Appliance(Backend::Crate) => 'e',
        }
    }

    /// Name in the table.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Echo(Backend::Own) => "AF_XDP echo",
            Self::Echo(Backend::Crate) => "AF_XDP echo, crate afxdp",
            Self::KernelEcho => "recvmmsg/sendmmsg echo",
            Self::Appliance(Backend::Own) => "xdnsd, cache hits",
            Self::Appliance(Backend::Crate) => "xdnsd, cache hits, crate afxdp",
        }
    }

    fn is_appliance(self) -> bool {
        matches!(self, Self::Appliance(_))
    }
}

/// A subject that is ready.
#[derive(Debug)]
pub struct Subject {
    /// Its kind.
    pub kind: Kind,
    /// Its environment.
    pub pair: Pair,
    /// Its load.
    pub load: Live,
    process: Process,
    #[expect(dead_code, reason = "held for its drop")]
    helpers: (Option<Link>, Option<Upstream>),
}

impl Subject {
    /// Starts it on its core, and checks that it answers.
    pub fn start(kind: Kind, programs: &Programs, directory: &Path) -> Result<Self> {
        Self::start_with(kind, "", programs, directory)
    }

    /// [`Self::start`] with more sections in the appliance's config.
    pub fn start_with(
        kind: Kind,
        sections: &str,
        programs: &Programs,
        directory: &Path,
    ) -> Result<Self> {
        let pair = Pair::new()?;
        let load = Live::new(&query::program(pair.far_index()?), query::frame(&ENDS))?;
        let mut command = pair.server.command(programs.path(kind));
        let mut helpers = (None, None);
        match kind {
            Kind::Echo(_) => drop(command.arg(NEAR)),
            Kind::KernelEcho => {
                // Frames sent by XDP arrive in the pair only if the other end has a program.
                let link =
                    attach_pass(&pair.server, NEAR).context("attach a program that passes")?;
                helpers.0 = Some(link);
                command.arg(format!("{}:53", ENDS.server));
            }
            Kind::Appliance(_) => {
                let upstream = Upstream::start(&pair)?;
                let config = write_config(kind, &upstream, sections, directory)?;
                command.arg("run").arg(config);
                helpers.1 = Some(upstream);
            }
        }
        pin_on_exec(&mut command, SUBJECT_CORE)?;
        let log = directory.join(format!("{}.log", kind.letter()));
        let mut process = Process::spawn(command, &log)?;
        process.wait_for_log("ready", PATIENCE)?;
        let subject = Self {
            kind,
            pair,
            load,
            process,
            helpers,
        };
        if kind.is_appliance() {
            subject.warm().context("fill the cache")?;
        }
        let tried = subject.try_out();
        tried.with_context(|| format!("its log:\n{}", subject.process.log()))?;
        Ok(subject)
    }

    /// Its PID.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Asks every name once, so that the load only meets hits.
    fn warm(&self) -> Result<()> {
        let socket = self
            .pair
            .client
            .run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)));
        let socket = socket.context("bind a client")?;
        socket.connect((ENDS.server, 53)).context("connect")?;
        socket
            .set_read_timeout(Some(PATIENCE))
            .context("set a timeout")?;
        for index in 0..query::NAMES {
            let name = query::name(index);
            let sent = socket.send(&query::message(index, index as u16));
            sent.with_context(|| format!("ask for {name}"))?;
            let mut reply = [0; 512];
            let len = socket
                .recv(&mut reply)
                .with_context(|| format!("no answer for {name}"))?;
            ensure!(
                len > 12 && reply[..2] == (index as u16).to_be_bytes() && reply[7] == 1,
                "{name} has no answer: {:02x?}",
                &reply[..len]
            );
        }
        Ok(())
    }

    /// Sends a few frames and checks the replies: all arrive, they are what this subject should send, and the server's UDP
    /// sockets were used if and only if the subject is the kernel's echo.
    fn try_out(&self) -> Result<()> {
        let socket = FrameSocket::open(&self.pair.client, FAR)?;
        let datagrams = self.pair.kernel_datagrams()?;
        self.load.burst(&self.pair.client, TRIAL)?;
        for number in 0..TRIAL {
            let reply = socket.receive(PATIENCE, |frame| self.is_reply(frame))?;
            ensure!(
                reply.is_some(),
                "{number} of {TRIAL} queries of the trial were answered"
            );
        }
        let datagrams = self.pair.kernel_datagrams()? - datagrams;
        let expected = if self.kind == Kind::KernelEcho {
            TRIAL
        } else {
            0
        };
        ensure!(
            datagrams == u64::from(expected),
            "{datagrams} of {TRIAL} queries of the trial went through the kernel's UDP"
        );
        Ok(())
    }

    /// True for a reply of this subject: an echo has the query's flags, the appliance sends a response with one answer.
    fn is_reply(&self, frame: &[u8]) -> bool {
        let has = |at: usize, bytes: &[u8]| frame.get(at..at + bytes.len()) == Some(bytes);
        let is_appliance = self.kind.is_appliance();
        has(0, &ENDS.client_mac)
            && has(SOURCE_PORT, &[0, 53])
            && frame
                .get(FLAGS)
                .is_some_and(|flags| (flags & 0x80 != 0) == is_appliance)
            && has(ANSWER_COUNT, &[0, u8::from(is_appliance)])
    }
}

fn write_config(
    kind: Kind,
    upstream: &Upstream,
    sections: &str,
    directory: &Path,
) -> Result<PathBuf> {
    let letter = kind.letter();
    let socket = directory.join(format!("{letter}.sock"));
    let text = format!(
        "[[interface]]\nname = \"{NEAR}\"\nlisten = [\"{}\"]\nxdp = \"native\"\n\n\
         [upstream]\nservers = [\"{}\"]\n\n\
         [control]\nsocket = {socket:?}\n{sections}",
        ENDS.server,
        upstream.address(),
    );
    let path = directory.join(format!("{letter}.toml"));
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

/// Makes `command`, with all its threads, run on one core.
pub fn pin_on_exec(command: &mut Command, core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core).context("a core has a number that fits")?;
    // SAFETY: the closure runs in the forked child and makes one system call on a copied bit set: it takes no lock and
    // allocates nothing, which is what may be done between fork and exec.
    unsafe {
        command.pre_exec(move || Ok(sched_setaffinity(Pid::from_raw(0), &set)?));
    }
    Ok(())
}
