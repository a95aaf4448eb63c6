//! `cargo xtask run`: a demonstration. In a virtual machine ([`crate::qemu::run`]), or with `--lab` in the lab on this machine:
//! an upstream and the appliance are started, asked, checked, and left for interactive use.

use std::env;
use std::fs;
use std::io::stdin;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::arguments::number_in;
use crate::lab::{DEFAULT_PREFIX, offload};
use crate::setup::{self, Purpose};
use crate::signals::Signals;
use crate::{qemu, workspace};
use xdnsd_lab::bpf::{Link, attach_pass};
use xdnsd_lab::lab::named::{Lifetime, NamedLab, namespace_name};
use xdnsd_lab::lab::{
    HOST_INTERFACE, Host, LAN_V4, LAN_V6, Lab, MTU, MTU_RANGE, Offload, QUEUE_RANGE, Spec,
};
use xdnsd_lab::nsd::Upstream;
use xdnsd_lab::privilege::is_root;
use xdnsd_lab::process::{End, Process};
use xdnsd_lab::zone;

mod check;
mod dig;
mod stats;

/// The lab's configuration in the repository.
pub const CONFIG: &str = "config/lab.toml";
/// Directory of the appliance's files in that configuration.
pub const STATE: &str = "/run/xdnsd-lab";
/// Time for the appliance to answer on its control socket.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Time between two checks whether the user wants to end.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// Arguments of `run`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Uses network namespaces on this machine instead of a virtual machine; needs root.
    #[arg(long, conflicts_with_all = ["image", "arch", "kernel", "memory", "cpus", "accel", "upstream"])]
    lab: bool,
    /// Exits after the answers, with status 0 only if all of them were right.
    #[arg(long)]
    once: bool,
    /// RX and TX queues of the router's interface; without --lab at most 8, more than one needs root.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = number_in(QUEUE_RANGE))]
    queues: u32,
    /// What there is in the lab alone.
    #[command(flatten, next_help_heading = "With --lab")]
    in_lab: LabArguments,
    /// What there is in a virtual machine; a server of one's own is for both.
    #[command(flatten, next_help_heading = "Without --lab, but for --server")]
    machine: qemu::run::MachineArguments,
}

#[derive(Debug, Args)]
struct LabArguments {
    /// MTU of the client's link.
    #[arg(long, value_name = "N", default_value_t = MTU, value_parser = number_in(MTU_RANGE), requires = "lab")]
    mtu: u32,
    /// Whether senders leave checksums to the interface.
    #[arg(long, value_name = "WHETHER", default_value = "off", value_parser = offload(), requires = "lab")]
    offload: Offload,
    /// Prefix of the names of its namespaces.
    #[arg(long, value_name = "NAME", default_value = DEFAULT_PREFIX, requires = "lab")]
    prefix: String,
}

/// Carries out `run`.
pub fn main(arguments: Arguments, signals: &Signals) -> Result<ExitCode> {
    if !arguments.lab {
        return qemu::run::main(
            &arguments
                .machine
                .options(arguments.once, arguments.queues)?,
            signals,
        );
    }
    setup::ensure_all(&[Purpose::Lab], signals)?;
    let given = arguments.machine.server();
    let server = match given {
        Some(server) => server.to_owned(),
        None => build()?,
    };
    if !is_root() {
        return Err(run_as_root(given.is_none().then_some(&server)));
    }
    run(&Options::of(arguments), &server, signals)
}

/// Options from the command line.
struct Options {
    is_once: bool,
    prefix: String,
    spec: Spec,
}

impl Options {
    fn of(arguments: Arguments) -> Self {
        let LabArguments {
            mtu,
            offload,
            prefix,
        } = arguments.in_lab;
        Self {
            is_once: arguments.once,
            prefix,
            spec: Spec {
                queues: arguments.queues,
                mtu,
                offload,
                vlan: None,
                bridge: None,
            },
        }
    }
}

/// Builds the appliance; returns its path.
pub fn build() -> Result<PathBuf> {
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--release", "-p", "xdnsd"]);
    let status = cargo.status().context("run cargo build")?;
    ensure!(status.success(), "the appliance does not build");
    Ok(workspace::target().join("release/xdnsd"))
}

/// Replaces this process by the same command as root, with the server that was built as this user. Returns only on failure.
fn run_as_root(built: Option<&PathBuf>) -> anyhow::Error {
    eprintln!("network namespaces need root: asking sudo");
    let Ok(program) = env::current_exe() else {
        return anyhow::anyhow!("this program is not found");
    };
    let mut sudo = Command::new("sudo");
    sudo.arg(program).args(env::args_os().skip(1));
    if let Some(built) = built {
        sudo.arg("--server").arg(built);
    }
    anyhow::Error::new(sudo.exec()).context("run sudo; without it, run the same command as root")
}

fn run(options: &Options, server: &Path, signals: &Signals) -> Result<ExitCode> {
    // A lab that ends by itself is unnamed, so that several run side by side.
    if options.is_once {
        let lab = Lab::up(&options.spec)?;
        let _other_end = other_end(&lab, options)?;
        let state = State::make(&format!("{STATE}-once-{}", std::process::id()))?;
        let router = Router::start(&lab, server, &state)?;
        return examine(&router, &lab, options);
    }
    let named = NamedLab::up(&options.prefix, &options.spec, Lifetime::ThisProcess)?;
    let state = match options.prefix.as_str() {
        DEFAULT_PREFIX => State::make(STATE)?,
        prefix => State::make(&format!("{STATE}-{prefix}"))?,
    };
    let _other_end = other_end(named.lab(), options)?;
    let mut router = Router::start(named.lab(), server, &state)?;
    let code = examine(&router, named.lab(), options)?;
    invite(options, &router);
    attend(&mut router, signals)?;
    Ok(code)
}

/// An XDP program at the client's end of the link, which a veth pair needs to receive frames that XDP sends. A cable needs none.
fn other_end(lab: &Lab, options: &Options) -> Result<Option<Link>> {
    // With checksum offload all queries have a part of a checksum, and user space answers them.
    if options.spec.offload == Offload::On {
        return Ok(None);
    }
    let attached = attach_pass(&lab.client, HOST_INTERFACE);
    attached.context("a program at the client's end").map(Some)
}

fn examine(router: &Router, lab: &Lab, options: &Options) -> Result<ExitCode> {
    let wrong = check::all(lab, router, options.spec.offload == Offload::Off)?;
    println!("\nCounters that are not zero:\n{}", router.stats()?);
    if wrong == 0 {
        println!("Every answer was right.");
        return Ok(ExitCode::SUCCESS);
    }
    println!(
        "{wrong} answers were wrong. The appliance's log:\n{}",
        router.process.log()
    );
    Ok(ExitCode::FAILURE)
}

/// A directory for the servers' files, removed when dropped.
struct State(PathBuf);

impl State {
    /// Makes it empty, whatever an earlier run left: with a restored cache there would be no first hits.
    fn make(path: &str) -> Result<Self> {
        let path = PathBuf::from(path);
        if path.exists() {
            fs::remove_dir_all(&path).with_context(|| format!("remove {}", path.display()))?;
        }
        fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(Self(path))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for State {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{} is left behind: {error}", self.0.display());
        }
    }
}

/// The appliance in the router, and its upstream. Dropped in this order.
struct Router {
    process: Process,
    server: PathBuf,
    socket: PathBuf,
    /// Questions for dnsperf.
    questions: PathBuf,
    _upstream: Upstream,
}

impl Router {
    fn start(lab: &Lab, server: &Path, state: &State) -> Result<Self> {
        let questions = state.path("questions");
        fs::write(&questions, zone::load()).context("write the questions of the load")?;
        let upstream = Upstream::start(lab, &state.0)?;
        let mut command = lab.router.command(server);
        command.arg("run").arg(config(state)?);
        let log = state.path("xdnsd.log");
        let process = Process::spawn_with_end(command, &log, End::Terminate)?;
        let (server, socket) = (server.to_owned(), state.path("control.sock"));
        let mut router = Self {
            process,
            server: server.clone(),
            socket: socket.clone(),
            questions,
            _upstream: upstream,
        };
        let what = "xdnsd answers at its control socket";
        router
            .process
            .wait_until(what, START_TIMEOUT, || stats::ask(&server, &socket).is_ok())?;
        print!("{}", router.process.log());
        Ok(router)
    }

    fn stats(&self) -> Result<stats::Stats> {
        stats::ask(&self.server, &self.socket)
    }
}

/// The repository's configuration, with its paths in `state`.
fn config(state: &State) -> Result<PathBuf> {
    let original = workspace::root().join(CONFIG);
    if state.0 == Path::new(STATE) {
        return Ok(original);
    }
    let text = fs::read_to_string(&original).with_context(|| format!("read {CONFIG}"))?;
    let prefix = format!("{STATE}/");
    ensure!(text.contains(&prefix), "{CONFIG} keeps nothing in {STATE}");
    let moved = state.path("lab.toml");
    let text = text.replace(&prefix, &format!("{}/", state.0.display()));
    fs::write(&moved, text).with_context(|| format!("write {}", moved.display()))?;
    Ok(moved)
}

fn invite(options: &Options, router: &Router) {
    let client = namespace_name(&options.prefix, Host::Client);
    let sudo = if env::var_os("SUDO_USER").is_some() {
        "sudo "
    } else {
        ""
    };
    println!(
        "
The lab is yours. In another terminal:
  {sudo}ip netns exec {client} dig @{LAN_V4} host-7.{zone}
  {sudo}ip netns exec {client} dig @{LAN_V6} big.{zone} TXT
  {sudo}ip netns exec {client} dnsperf -s {LAN_V4} -d {questions} -l 5
  {sudo}{server} stats --socket {socket}
Enter or Ctrl-C ends it.",
        zone = zone::ORIGIN,
        questions = router.questions.display(),
        server = router.server.display(),
        socket = router.socket.display(),
    );
}

/// Waits for Enter, for Ctrl-C, or for the end of the appliance, which is a fault.
fn attend(router: &mut Router, signals: &Signals) -> Result<()> {
    let has_entered = Arc::new(AtomicBool::new(false));
    let tell = has_entered.clone();
    // Detached: a thread that reads a terminal cannot be interrupted.
    thread::spawn(move || {
        let mut line = String::new();
        // End of file on a closed standard input is no request to end.
        let has_line = stdin().read_line(&mut line).is_ok_and(|len| len > 0);
        tell.store(has_line, Ordering::Relaxed);
    });
    while !signals.wait(LOOK_INTERVAL) && !has_entered.load(Ordering::Relaxed) {
        if !router.process.is_running() {
            bail!(
                "xdnsd has ended by itself. Its log:\n{}",
                router.process.log()
            );
        }
    }
    Ok(())
}
