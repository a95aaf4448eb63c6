//! `cargo xtask run`: the image for a person. It boots, is asked a few names, shows which tier answered, and stays.
//!
//! Nothing needs root: QEMU forwards a port of the loopback to the guest, and upstream is a server of this program or
//! the resolver that this host uses. Only several queues do: QEMU's own network stack has one, a tap device has more.

use std::fmt;
use std::io::{IsTerminal, Write, stderr};
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::cable::Cable;
use super::guest::{Guest, sum};
use super::machine::{Accel, GUEST, HOST, Link, Machine, Scratch, free_port};
use super::upstream::{Upstream, expected};
use crate::arguments::Arguments;
use crate::image::{self, Arch, Image, Kernel, Recipe, disk};
use crate::setup::{self, Purpose};
use crate::signals::Signals;
use xdnsd_lab::privilege::require_root;
use xdnsd_lab::process::output_of;

/// What `cargo xtask help` shows.
pub const USAGE: &str = "run [--once] [--image DIR] [--kernel 6.1|6.12|newest] [--arch x86_64|aarch64] [--memory MIB] \
                         [--queues N] [--cpus N] [--accel kvm|tcg] [--upstream own|host]";

/// How long a boot may take.
const BOOT_LIMIT: Duration = Duration::from_secs(120);
/// What a kernel of Debian's needs to start at all. The header of 6.12's asks for 56 MiB from 16 MiB on (init_size and
/// pref_address) before anything else is in memory; Buildroot's for 29. The one for aarch64 starts with 128 MiB.
const DEBIAN_MIB_MIN: u32 = 96;
const DEBIAN_MIB_MIN_AARCH64: u32 = 128;
/// A small router.
const MEMORY_MIB: u32 = 128;
/// What may be asked for. Buildroot's kernel is made for 16 processors, QEMU's virt has 8 at most.
const MEMORY_RANGE_MIB: RangeInclusive<u32> = 64..=65_536;
const CPU_RANGE: RangeInclusive<u32> = 1..=8;
const QUEUE_RANGE: RangeInclusive<u32> = 1..=8;
/// The resolver that QEMU's network stack offers: it asks the host's.
const HOST_RESOLVER: &str = "192.168.1.3";
/// Where each tier's answers are counted.
const TIERS: [(&str, &str); 3] = [
    ("AF_XDP", "xdnsd_answers_xdp_total"),
    ("kernel UDP", "xdnsd_answers_udp_total"),
    ("kernel TCP", "xdnsd_answers_tcp_total"),
];

/// What was asked for on the command line.
struct Options {
    is_once: bool,
    image: Option<PathBuf>,
    server: Option<PathBuf>,
    kernel: Kernel,
    arch: Arch,
    memory_mib: u32,
    queues: u32,
    cpus: u32,
    accel: Option<Accel>,
    is_host_upstream: bool,
}

impl Options {
    fn take(mut arguments: Arguments) -> Result<Self> {
        let upstream = arguments.value("--upstream")?;
        let is_host_upstream = match upstream.as_deref() {
            None | Some("own") => false,
            Some("host") => true,
            Some(other) => bail!("--upstream: own or host, not {other}"),
        };
        let image = arguments.value("--image")?.map(PathBuf::from);
        for name in ["--kernel", "--arch", "--server"] {
            let has_two = image.is_some() && arguments.contains(name);
            ensure!(!has_two, "{name}: --image has its own");
        }
        let arch = arguments
            .value("--arch")?
            .map_or(Ok(Arch::X86_64), |name| Arch::parse(&name))?;
        let accel = arguments.value("--accel")?;
        let options = Self {
            is_once: arguments.flag("--once"),
            server: arguments.value("--server")?.map(PathBuf::from),
            kernel: arguments
                .value("--kernel")?
                .map_or(Ok(Kernel::V6_12), |name| Kernel::parse(&name))?,
            arch,
            memory_mib: memory_mib(&mut arguments, image.is_some(), arch)?,
            queues: arguments.number_in("--queues", QUEUE_RANGE)?.unwrap_or(1),
            cpus: arguments.number_in("--cpus", CPU_RANGE)?.unwrap_or(2),
            accel: accel.map(|name| Accel::parse(&name)).transpose()?,
            is_host_upstream,
            image,
        };
        arguments.finish()?;
        // Before anything is built.
        if let (Some(accel), None) = (options.accel, &options.image) {
            accel.check(options.arch)?;
        }
        Ok(options)
    }

    /// What several queues need.
    fn cable(&self) -> Result<Option<Cable>> {
        if self.queues <= 1 {
            return Ok(None);
        }
        require_root("--queues: a tap device, since QEMU's own network has one queue,")?;
        ensure!(
            !self.is_host_upstream,
            "--queues: nothing leads from the tap device to the host's resolver; --upstream own"
        );
        Cable::new(true).map(Some)
    }

    fn image(&self) -> Result<Image> {
        match &self.image {
            Some(directory) => Image::open(directory),
            None => image::build(&Recipe {
                arch: self.arch,
                kernel: self.kernel,
                server: self.server.clone(),
            }),
        }
    }
}

/// How much memory the guest gets. Too little for its kernel, it would hang without a word.
fn memory_mib(arguments: &mut Arguments, is_foreign: bool, arch: Arch) -> Result<u32> {
    let wanted = arguments.number_in("--memory", MEMORY_RANGE_MIB)?;
    let least = match arch {
        _ if is_foreign => *MEMORY_RANGE_MIB.start(),
        Arch::X86_64 => DEBIAN_MIB_MIN,
        Arch::Aarch64 => DEBIAN_MIB_MIN_AARCH64,
    };
    let memory_mib = wanted.unwrap_or(MEMORY_MIB);
    ensure!(
        memory_mib >= least,
        "--memory: Debian's kernel for {} unpacks itself and its modules in {least} MiB or more; --image with Buildroot's \
         does with {}",
        arch.name(),
        MEMORY_RANGE_MIB.start()
    );
    Ok(memory_mib)
}

/// The command.
pub fn main(arguments: Arguments, signals: &Signals) -> Result<ExitCode> {
    let options = Options::take(arguments)?;
    setup::ensure_all(&[Purpose::Image], signals)?;
    if options.arch == Arch::Aarch64 {
        setup::ensure_all(&[Purpose::ImageAarch64], signals)?;
    }
    let cable = options.cable()?;
    let image = options.image()?;
    let scratch = Scratch::new("run")?;
    let upstream = Upstream::start(Ipv4Addr::LOCALHOST)?;
    let upstream = cable.as_ref().map_or(&upstream, |cable| &cable.upstream);
    let server = if options.is_host_upstream {
        HOST_RESOLVER.to_owned()
    } else {
        format!("{HOST}:{}", upstream.port)
    };
    let data = scratch.join("data.ext4");
    disk::make_data_with_config(&data, &configuration(&server, ""))?;
    let link = match &cable {
        Some(cable) => cable.link(),
        None => Link::User {
            udp_port: free_port()?,
            tcp_port: free_port()?,
        },
    };
    let accel = Accel::choose(options.accel, &image)?;
    let mut machine = Machine::new(&image, accel, link.clone());
    machine.data = Some(&data);
    (machine.memory_mib, machine.cpus, machine.queues) =
        (options.memory_mib, options.cpus, options.queues);
    eprintln!(
        "booting {} with {accel:?}, {} MiB, {} processors",
        image.kernel.display(),
        machine.memory_mib,
        machine.cpus
    );
    let mut guest = Guest::start(machine.command(), &scratch.join("console.log"))?;
    let verdict = boot(&mut guest, signals)?;
    println!("{verdict}");
    guest.log_in()?;
    let (name, wanted) = if options.is_host_upstream {
        ("debian.org", None)
    } else {
        ("router.test", Some(expected("router.test")))
    };
    let mut wrong = 0;
    for is_tcp in [false, false, true] {
        let asked = ask(&mut guest, name, &link, is_tcp)?;
        wrong += u32::from(!asked.is_right(wanted.as_deref()));
        println!("{asked}");
    }
    if wrong > 0 {
        println!("{wrong} answers were wrong");
    }
    println!("ask it yourself: {}", how_to_ask(&link));
    if options.is_once {
        guest.type_line("poweroff")?;
        guest.wait_for_end(BOOT_LIMIT)?;
        return Ok(if wrong == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        });
    }
    println!("this is the router's console; Ctrl-C ends it");
    attend(&mut guest, signals)
}

/// The configuration of a guest that asks `server`, with more lines for its interface.
#[must_use]
pub fn configuration(server: &str, interface: &str) -> String {
    format!(
        "[[interface]]\nname = \"eth0\"\nlisten = [\"192.168.1.1\", \"fd00:53::1\"]\n{interface}\n\
         [upstream]\nservers = [\"{server}\"]\n\n\
         [cache]\nsnapshot = \"/data/xdnsd/cache\"\nsnapshot_interval_secs = 1\n"
    )
}

/// Waits for the first answer and shows meanwhile how far the boot is.
fn boot(guest: &mut Guest, signals: &Signals) -> Result<String> {
    let is_terminal = stderr().is_terminal();
    let step = Duration::from_millis(500);
    loop {
        let is_there = guest.wait_for("xdnsd-boot: ", step).is_ok();
        if is_there {
            if is_terminal {
                eprintln!();
            }
            return guest.wait_for_verdict(1, BOOT_LIMIT);
        }
        ensure!(!signals.wait(Duration::ZERO), "interrupted");
        ensure!(
            guest.age() < BOOT_LIMIT && guest.is_running(),
            "no answer. The console:\n{}",
            guest.console()
        );
        if is_terminal {
            let console = guest.console();
            let last = console
                .lines()
                .rev()
                .find(|line| !line.trim().is_empty())
                .unwrap_or("");
            let shown: String = last
                .chars()
                .filter(|letter| !letter.is_control())
                .take(90)
                .collect();
            eprint!("\r\x1b[2K{:4.1} s  {shown}", guest.age().as_secs_f64());
        }
    }
}

/// dig, from where the guest is reached.
fn dig(link: &Link<'_>, is_tcp: bool) -> Command {
    match link {
        Link::User { udp_port, tcp_port } => {
            let port = if is_tcp { tcp_port } else { udp_port };
            let mut dig = Command::new("dig");
            dig.args(["@127.0.0.1", "-p", &port.to_string()]);
            dig
        }
        Link::Tap { namespace, .. } => {
            let mut dig = namespace.command("dig");
            dig.arg(format!("@{GUEST}"));
            dig
        }
    }
}

/// The same for a person.
fn how_to_ask(link: &Link<'_>) -> String {
    match link {
        Link::User { udp_port, tcp_port } => format!(
            "dig @127.0.0.1 -p {udp_port} NAME     over TCP: dig +tcp @127.0.0.1 -p {tcp_port} NAME"
        ),
        Link::Tap { namespace, .. } => {
            format!("nsenter --net={} dig @{GUEST} NAME", namespace.path())
        }
    }
}

/// A name that was asked for.
struct Asked {
    /// The answer's line, or that there is none.
    answer: String,
    tier: &'static str,
    time: String,
}

impl Asked {
    /// Whether it is an answer, and has the address `wanted`, if any address is.
    fn is_right(&self, wanted: Option<&str>) -> bool {
        let mut words = self.answer.split_whitespace().skip(3);
        words.next() == Some("A")
            && words
                .next()
                .is_some_and(|address| wanted.is_none_or(|wanted| address == wanted))
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { answer, tier, time } = self;
        write!(formatter, "{answer}    answered by {tier} in {time}")
    }
}

/// Asks one name from outside and finds out which tier has answered.
fn ask(guest: &mut Guest, name: &str, link: &Link<'_>, is_tcp: bool) -> Result<Asked> {
    let before = guest.shell("xdnsd stats")?;
    let mut dig = dig(link, is_tcp);
    dig.args([
        "+tries=3", "+time=3", "+noall", "+answer", "+stats", name, "A",
    ]);
    if is_tcp {
        dig.arg("+tcp");
    }
    // No answer at all is an answer to the person, too.
    let said = output_of(&mut dig).unwrap_or_default();
    let after = guest.shell("xdnsd stats")?;
    let tier = TIERS
        .iter()
        .find(|(_, counter)| sum(&after, counter) > sum(&before, counter));
    let tier = tier.map_or("nobody", |(tier, _)| tier);
    let answer = said
        .lines()
        .find(|line| !line.starts_with(';') && !line.is_empty());
    let time = said
        .lines()
        .find_map(|line| line.strip_prefix(";; Query time: "));
    Ok(Asked {
        answer: answer.unwrap_or("no answer").to_owned(),
        tier,
        time: time.unwrap_or("unknown time").to_owned(),
    })
}

/// The person's words go to the console and the console's to the person, until either ends.
fn attend(guest: &mut Guest, signals: &Signals) -> Result<ExitCode> {
    let (sender, lines) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    guest.type_line("stty echo; PS1='# '")?;
    let mut shown = guest.console().len();
    while guest.is_running() && !signals.wait(Duration::from_millis(100)) {
        while let Ok(line) = lines.try_recv() {
            guest.type_line(&line)?;
        }
        let console = guest.console();
        if let Some(new) = console.get(shown..) {
            let mut output = std::io::stdout();
            write!(output, "{new}").context("show the console")?;
            output.flush().context("show the console")?;
        }
        shown = console.len();
    }
    Ok(ExitCode::SUCCESS)
}
