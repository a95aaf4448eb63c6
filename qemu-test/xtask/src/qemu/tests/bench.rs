//! Common setup of the image's tests: files, an upstream, a machine, a first answer.

use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail, ensure};

use super::Case;
use crate::image::{Arch, Image, Kernel, disk};
use crate::qemu::guest::Guest;
use crate::qemu::machine::{Accel, HOST, Link, Machine, Scratch, free_port};
use crate::qemu::run::configuration;
use crate::qemu::upstream::{Upstream, expected};
use xdnsd_lab::process::output_of;
use xdnsd_lab::query;

/// Time limit of a boot on a host with other work.
pub const BOOT_LIMIT: Duration = Duration::from_secs(120);
/// Time limit of an answer, and number of attempts.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
const ANSWER_TRIES: u32 = 5;
/// Attempts to boot if a machine prints nothing at all.
const SILENT_TRIES: u32 = 2;

/// Environment of one test.
#[derive(Debug)]
pub struct Bench<'a> {
    /// The image under test.
    pub image: &'a Image,
    /// Its kernel, for an image built here.
    pub kernel: Kernel,
    /// The accelerator.
    pub accel: Accel,
    /// True for a long run.
    pub is_long: bool,
    /// Directory for its files.
    pub scratch: Scratch,
    /// The name server, unless the test has its own.
    pub upstream: Upstream,
    /// The test's name.
    pub name: &'static str,
}

/// A guest that has answered once, and its address.
#[derive(Debug)]
pub struct Router {
    /// Its console.
    pub guest: Guest,
    /// Line of its verdict.
    pub verdict: String,
    udp_port: u16,
    tcp_port: u16,
}

impl<'a> Bench<'a> {
    /// Makes the environment.
    pub fn new(case: &Case, image: &'a Image, accel: Accel, is_long: bool) -> Result<Self> {
        let name = case.name;
        let words = name.replace(|letter: char| !letter.is_ascii_alphanumeric(), "-");
        let scratch = Scratch::new(&format!("{words}-{}", image.arch.name()))?;
        let upstream = Upstream::start(Ipv4Addr::LOCALHOST)?;
        Ok(Self {
            image,
            kernel: case.kernel,
            accel,
            is_long,
            scratch,
            upstream,
            name,
        })
    }

    /// A configuration with this environment's upstream, and more lines for the interface.
    pub fn configuration(&self, interface: &str) -> String {
        configuration(&format!("{HOST}:{}", self.upstream.port), interface)
    }

    /// A data disk with this configuration.
    pub fn data_disk(&self, configuration: &str) -> Result<PathBuf> {
        let path = self.scratch.join("data.ext4");
        disk::make_data_with_config(&path, configuration)?;
        Ok(path)
    }

    /// A link through QEMU's own network stack.
    pub fn user_link(&self) -> Result<Link<'static>> {
        Ok(Link::User {
            udp_port: free_port()?,
            tcp_port: free_port()?,
        })
    }

    /// A machine with this environment's image.
    pub fn machine<'m>(&'m self, link: Link<'m>, data: &'m Path) -> Machine<'m> {
        let mut machine = Machine::new(self.image, self.accel, link);
        machine.data = Some(data);
        if self.image.arch == Arch::Aarch64 && self.image.initrd.is_some() {
            // Debian's kernel for this architecture is five times as large, and uncompressed.
            machine.memory_mib = 256;
        }
        machine
    }

    /// Boots and waits for the first answer.
    pub fn boot(&self, machine: &Machine<'_>) -> Result<Router> {
        let (udp_port, tcp_port) = match machine.link {
            Link::User { udp_port, tcp_port } => (udp_port, tcp_port),
            Link::Tap { .. } => (0, 0),
        };
        let mut guest = self.start(machine)?;
        let verdict = guest.wait_for_verdict(1, BOOT_LIMIT)?;
        println!("     {}: {verdict}", self.name);
        Ok(Router {
            guest,
            verdict,
            udp_port,
            tcp_port,
        })
    }

    /// Boots until init has printed something. A silent machine is started once more.
    pub fn start(&self, machine: &Machine<'_>) -> Result<Guest> {
        let log = self.scratch.join("console.log");
        for number in 1..=SILENT_TRIES {
            let mut guest = Guest::start(machine.command(), &log)?;
            let spoken = guest.wait_for("\n", BOOT_LIMIT / 2);
            if spoken.is_ok() {
                return Ok(guest);
            }
            ensure!(
                guest.is_running(),
                "QEMU has ended. It said:\n{}",
                guest.console()
            );
            println!(
                "     {}: boot {number} said nothing in {:?}",
                self.name,
                BOOT_LIMIT / 2
            );
        }
        bail!("{SILENT_TRIES} boots said nothing at all")
    }

    /// Makes data disk and link, boots, and logs in, as most tests do.
    pub fn router(&self, interface: &str, nic: &str) -> Result<Router> {
        self.router_with(&self.configuration(interface), nic)
    }

    /// [`Self::router`] with its own configuration.
    pub fn router_with(&self, configuration: &str, nic: &str) -> Result<Router> {
        let data = self.data_disk(configuration)?;
        let mut machine = self.machine(self.user_link()?, &data);
        machine.nic = nic;
        let mut router = self.boot(&machine)?;
        router.guest.log_in()?;
        Ok(router)
    }
}

impl Router {
    /// A router that was booted otherwise.
    pub fn of(guest: Guest, link: &Link<'_>) -> Self {
        let (udp_port, tcp_port) = match *link {
            Link::User { udp_port, tcp_port } => (udp_port, tcp_port),
            Link::Tap { .. } => (0, 0),
        };
        Self {
            guest,
            verdict: String::new(),
            udp_port,
            tcp_port,
        }
    }

    /// Asks for the address of `name` over UDP and checks it.
    pub fn ask(&self, name: &str) -> Result<()> {
        check(name, &dig(self.udp_port, &[name, "A"])?)
    }

    /// Asks `count` times for the address of `name`, as fast as answers come, and checks each. Without a cookie, which is
    /// specific to one client.
    pub fn ask_often(&self, name: &str, count: u32) -> Result<()> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.connect((Ipv4Addr::LOCALHOST, self.udp_port))?;
        socket.set_read_timeout(Some(ANSWER_LIMIT))?;
        for id in 0..count as u16 {
            // A datagram may be lost.
            let mut is_answered = false;
            for _ in 0..ANSWER_TRIES {
                is_answered = is_answered || ask_once(&socket, id, name)?;
            }
            ensure!(is_answered, "{name}, asked {id} times before");
        }
        Ok(())
    }

    /// Asks for the address of `name` over TCP and checks it.
    pub fn ask_tcp(&self, name: &str) -> Result<()> {
        check(name, &dig(self.tcp_port, &["+tcp", name, "A"])?)
    }

    /// Waits until `text` appears on the console: with two programs to load, a slow guest is ready before they are.
    pub fn console_will_say(&mut self, text: &str) -> Result<()> {
        self.guest.wait_for(text, BOOT_LIMIT)
    }

    /// Checks that `text` has appeared on the console.
    pub fn console_says(&self, text: &str) -> Result<()> {
        let console = self.guest.console();
        ensure!(
            console.contains(text),
            "the console does not say {text:?}:\n{console}"
        );
        Ok(())
    }
}

/// Asks once for the address of `name` and checks the answer; false if none comes in time.
pub fn ask_once(socket: &UdpSocket, id: u16, name: &str) -> Result<bool> {
    let address: Ipv4Addr = expected(name).parse()?;
    socket.send(&query::for_address(id, name))?;
    let mut answer = [0; 512];
    let Ok(len) = socket.recv(&mut answer) else {
        return Ok(false);
    };
    let answer = &answer[..len];
    ensure!(
        answer.starts_with(&id.to_be_bytes()) && answer.ends_with(&address.octets()),
        "{name}, asked with ID {id}: {answer:02x?}"
    );
    Ok(true)
}

/// Asks a port of the loopback with dig; returns the short form of the answer.
fn dig(port: u16, words: &[&str]) -> Result<String> {
    let mut command = Command::new("dig");
    command
        .args([
            "@127.0.0.1",
            "-p",
            &port.to_string(),
            "+short",
            "+tries=3",
            "+time=4",
        ])
        .args(words);
    output_of(&mut command)
}

/// Fails unless `said` is the upstream's address of `name`.
pub fn check(name: &str, said: &str) -> Result<()> {
    let wanted = expected(name);
    ensure!(
        said.trim() == wanted,
        "{name} has the address {wanted}, the answer was {said:?}"
    );
    Ok(())
}
