//! `cargo xtask run`: the image for interactive use. It boots, answers a few names, shows which tier answered, and stays.
//!
//! Nothing needs root: QEMU forwards a port of the loopback to the guest, and upstream is a server of this program or the host's
//! resolver. Except several queues: QEMU's own network stack has one, a tap device has more.

use std::fmt;
use std::io::{IsTerminal, Write, stderr};
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};

use super::cable::Cable;
use super::guest::{Guest, sum_with};
use super::machine::{Accel, GUEST, HOST, Link, Machine, Scratch, free_port};
use super::upstream::{Upstream, expected};
use crate::arguments::number_in;
use crate::image::{self, Arch, Image, Recipe, disk};
use crate::setup::{self, Purpose};
use crate::signals::Signals;
use xdnsd_lab::privilege::require_root;
use xdnsd_lab::process::output_of;

/// Time limit of a boot.
const BOOT_LIMIT: Duration = Duration::from_secs(120);
/// Least memory for Debian's kernels to start at all. The header of 6.12 asks for 56 MiB from 16 MiB on (init_size and
/// pref_address) before anything else is in memory; Buildroot's for 29. The one for aarch64 starts with 128 MiB.
const DEBIAN_MIB_MIN: u32 = 96;
const DEBIAN_MIB_MIN_AARCH64: u32 = 128;
/// Default memory: a small router.
const MEMORY_MIB: u32 = 128;
/// Accepted ranges. Buildroot's kernel supports 16 processors, QEMU's virt machine at most 8.
const MEMORY_RANGE_MIB: RangeInclusive<u32> = 64..=65_536;
const CPU_RANGE: RangeInclusive<u32> = 1..=8;
const QUEUE_RANGE: RangeInclusive<u32> = 1..=8;
/// The resolver of QEMU's network stack, which asks the host's.
const HOST_RESOLVER: &str = "192.168.1.3";
/// Counters of answers by tier.
const TIERS: [(&str, &str, &str); 4] = [
    ("XDP", FRAMES, ANSWERED),
    ("AF_XDP", "xdnsd_answers_xdp_total", ""),
    ("kernel UDP", "xdnsd_answers_udp_total", ""),
    ("kernel TCP", "xdnsd_answers_tcp_total", ""),
];
/// Counter of the XDP program's own answers, and its label.
pub const FRAMES: &str = "xdnsd_xdp_frames_total";
pub const ANSWERED: &str = "reason=\"answered\"";
/// Queries in a second for a name to become hot: more than enough.
const OFTEN: u32 = 20;

/// Arguments of `run` for its virtual machine.
#[derive(Debug, Args)]
pub struct MachineArguments {
    /// Boots the image in this folder, such as Buildroot's output/images.
    #[arg(long, value_name = "DIR")]
    image: Option<PathBuf>,
    /// The image to build, where there is none.
    #[command(flatten)]
    recipe: Recipe,
    /// Memory of the machine.
    #[arg(long, value_name = "MIB", default_value_t = MEMORY_MIB, value_parser = number_in(MEMORY_RANGE_MIB))]
    memory: u32,
    /// Processors of the machine.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = number_in(CPU_RANGE))]
    cpus: u32,
    /// What runs the guest's instructions [default: kvm where it works].
    #[arg(long)]
    accel: Option<Accel>,
    /// Which name server the guest asks.
    #[arg(long, value_name = "WHOSE", default_value = "own")]
    upstream: NameServer,
}

/// The name server behind the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum NameServer {
    /// One that is part of this program.
    Own,
    /// This host's resolver.
    Host,
}

/// Options from the command line.
#[derive(Debug)]
pub struct Options<'a> {
    machine: &'a MachineArguments,
    is_once: bool,
    queues: u32,
}

impl MachineArguments {
    /// The server to use instead of building one.
    pub fn server(&self) -> Option<&Path> {
        self.recipe.server.as_deref()
    }

    /// Options, validated before anything is built, with those common to the lab.
    pub fn options(&self, is_once: bool, queues: u32) -> Result<Options<'_>> {
        ensure!(
            QUEUE_RANGE.contains(&queues),
            "--queues: {queues} is not in {QUEUE_RANGE:?}, those of a virtual machine"
        );
        self.check_memory()?;
        if let (Some(accel), None) = (self.accel, &self.image) {
            accel.check(self.recipe.arch)?;
        }
        Ok(Options {
            machine: self,
            is_once,
            queues,
        })
    }

    /// With too little memory for its kernel, the guest would hang silently.
    fn check_memory(&self) -> Result<()> {
        let arch = self.recipe.arch;
        let least = match arch {
            _ if self.image.is_some() => *MEMORY_RANGE_MIB.start(),
            Arch::X86_64 => DEBIAN_MIB_MIN,
            Arch::Aarch64 => DEBIAN_MIB_MIN_AARCH64,
        };
        ensure!(
            self.memory >= least,
            "--memory: Debian's kernel for {} unpacks itself and its modules in {least} MiB or more; --image with \
             Buildroot's does with {}",
            arch.name(),
            MEMORY_RANGE_MIB.start()
        );
        Ok(())
    }
}

impl Options<'_> {
    fn is_host_upstream(&self) -> bool {
        self.machine.upstream == NameServer::Host
    }

    /// A tap device, if there are several queues.
    fn cable(&self) -> Result<Option<Cable>> {
        if self.queues <= 1 {
            return Ok(None);
        }
        require_root("--queues: a tap device, since QEMU's own network has one queue,")?;
        ensure!(
            !self.is_host_upstream(),
            "--queues: nothing leads from the tap device to the host's resolver; --upstream own"
        );
        Cable::new(true).map(Some)
    }

    fn image(&self) -> Result<Image> {
        match &self.machine.image {
            Some(directory) => Image::open(directory),
            None => image::build(&self.machine.recipe),
        }
    }

    /// A name to ask for, and the expected address, if known.
    fn question(&self) -> (&'static str, Option<String>) {
        if self.is_host_upstream() {
            ("debian.org", None)
        } else {
            ("router.test", Some(expected("router.test")))
        }
    }
}

/// The command.
pub fn main(options: &Options<'_>, signals: &Signals) -> Result<ExitCode> {
    setup::ensure_all(&[Purpose::Image], signals)?;
    if options.machine.recipe.arch == Arch::Aarch64 {
        setup::ensure_all(&[Purpose::ImageAarch64], signals)?;
    }
    let cable = options.cable()?;
    let image = options.image()?;
    let scratch = Scratch::new("run")?;
    let upstream = Upstream::start(Ipv4Addr::LOCALHOST)?;
    let upstream = cable.as_ref().map_or(&upstream, |cable| &cable.upstream);
    let server = if options.is_host_upstream() {
        HOST_RESOLVER.to_owned()
    } else {
        format!("{HOST}:{}", upstream.port)
    };
    let data = scratch.join("data.ext4");
    let config = configuration(&server, "") + HOT_NAMES;
    disk::make_data_with_config(&data, &config)?;
    let link = match &cable {
        Some(cable) => cable.link(),
        None => Link::User {
            udp_port: free_port()?,
            tcp_port: free_port()?,
        },
    };
    let accel = Accel::choose(options.machine.accel, &image)?;
    let mut machine = Machine::new(&image, accel, link.clone());
    machine.data = Some(&data);
    let wanted = options.machine;
    (machine.memory_mib, machine.cpus, machine.queues) =
        (wanted.memory, wanted.cpus, options.queues);
    eprintln!(
        "booting {} with {accel:?}, {} MiB, {} processors",
        image.kernel.display(),
        machine.memory_mib,
        machine.cpus
    );
    let mut guest = Guest::start(machine.command(), &scratch.join("console.log"))?;
    println!("{}", boot(&mut guest, signals)?);
    guest.log_in()?;
    let wrong = try_out(&mut guest, &link, options)?;
    if options.is_once {
        return power_off(&mut guest, wrong);
    }
    println!("this is the router's console; Ctrl-C ends it");
    attend(&mut guest, signals)
}

/// Asks over UDP twice, so that the second answer comes from the cache, over TCP, and after many queries. Returns the number of
/// wrong answers.
fn try_out(guest: &mut Guest, link: &Link<'_>, options: &Options<'_>) -> Result<u32> {
    let (name, wanted) = options.question();
    let mut wrong = 0;
    for (is_tcp, often) in [(false, 0), (false, 0), (true, 0), (false, OFTEN)] {
        for _ in 0..often {
            // Only the last answer is shown.
            let _ = output_of(&mut question(link, name, is_tcp));
        }
        let asked = ask(guest, name, link, is_tcp)?;
        wrong += u32::from(!asked.is_right(wanted.as_deref()));
        println!("{asked}");
    }
    if wrong > 0 {
        println!("{wrong} answers were wrong");
    }
    println!("ask it yourself: {}", how_to_ask(link));
    Ok(wrong)
}

fn power_off(guest: &mut Guest, wrong: u32) -> Result<ExitCode> {
    guest.type_line("poweroff")?;
    guest.wait_for_end(BOOT_LIMIT)?;
    Ok(if wrong == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Configuration of a guest with upstream `server`, and more lines for its interface.
#[must_use]
pub fn configuration(server: &str, interface: &str) -> String {
    format!(
        "[[interface]]\nname = \"br-lan\"\nlisten = [\"192.168.1.1\", \"fd00:53::1\"]\n{interface}\n\
         [upstream]\nservers = [\"{server}\"]\n\n\
         [cache]\nsnapshot = \"/data/xdnsd/cache\"\nsnapshot_interval_secs = 1\n"
    )
}

/// Appended to [`configuration`], whose last section is the cache: the XDP program answers hot names.
pub const HOT_NAMES: &str = "tier0 = \"auto\"\n";

/// Waits for the first answer and shows the boot's progress.
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

/// dig, from where the guest is reachable.
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

/// The command that asks. Without a cookie, which is specific to one client and so left to user space.
fn question(link: &Link<'_>, name: &str, is_tcp: bool) -> Command {
    let mut dig = dig(link, is_tcp);
    dig.args(["+tries=3", "+time=3", "+noall", "+answer", "+stats"]);
    dig.args(["+nocookie", name, "A"]);
    if is_tcp {
        dig.arg("+tcp");
    }
    dig
}

/// How to ask, for the user.
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

/// Result of a question.
struct Asked {
    /// The answer's record, or a note that there is none.
    answer: String,
    tier: &'static str,
    time: String,
}

impl Asked {
    /// True for an answer, with the address `wanted` if given.
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

/// Asks one name from outside and determines the tier that answered.
fn ask(guest: &mut Guest, name: &str, link: &Link<'_>, is_tcp: bool) -> Result<Asked> {
    let before = guest.shell("xdnsd stats --prometheus")?;
    // A missing answer is reported to the user as well.
    let said = output_of(&mut question(link, name, is_tcp)).unwrap_or_default();
    let after = guest.shell("xdnsd stats --prometheus")?;
    let tier = TIERS.iter().find(|(_, counter, label)| {
        sum_with(&after, counter, label) > sum_with(&before, counter, label)
    });
    let tier = tier.map_or("nobody", |(tier, ..)| tier);
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

/// Connects the user's terminal to the console, until either ends.
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
