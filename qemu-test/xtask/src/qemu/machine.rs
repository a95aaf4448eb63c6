//! Builds QEMU's command line for a virtual machine.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use crate::image::{Arch, Image};
use xdnsd_lab::netns::Namespace;
use xdnsd_lab::process::Process;

/// The host's address for the guest, whatever is behind the first port of its bridge.
pub const HOST: &str = "192.168.1.2";
/// The guest's address on its bridge, as in `buildroot/board/xdnsd/rootfs-overlay/etc/network/interfaces`.
pub const GUEST: &str = "192.168.1.1";
/// Ethernet address of the first port, and so of the bridge; that of the second port, and of the provider's card.
pub const GUEST_MAC: &str = "52:54:00:53:00:01";
const SECOND_MAC: &str = "52:54:00:53:00:02";
const WAN_MAC: &str = "52:54:00:53:00:03";
/// QEMU's own network stack without anybody behind it. It takes all frames; a hub without another port takes none.
const UNUSED: &str =
    "user,id=lan2,net=192.168.1.0/24,host=192.168.1.4,dns=192.168.1.5,restrict=on,ipv6=off";
/// Device of the host's KVM.
const KVM: &str = "/dev/kvm";
/// UEFI for QEMU's virt machine, which has no BIOS to boot from a disk.
pub const AARCH64_FIRMWARE: &str = "/usr/share/qemu-efi-aarch64/QEMU_EFI.fd";
/// Time limit for the first kernel message under KVM.
const KVM_PROBE_LIMIT: Duration = Duration::from_secs(5);

/// Time limit of a QEMU command.
const CONTROL_LIMIT: Duration = Duration::from_secs(20);

/// Accelerator that runs the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Accel {
    /// The host's processor.
    Kvm,
    /// QEMU's emulation.
    Tcg,
}

impl Accel {
    /// Fails if this host cannot run machines of `arch` with this accelerator.
    pub fn check(self, arch: Arch) -> Result<()> {
        ensure!(
            self == Self::Tcg || is_native(arch),
            "--accel kvm: only for x86_64 on x86_64; tcg emulates {}",
            arch.name()
        );
        ensure!(
            self == Self::Tcg || Path::new(KVM).exists(),
            "--accel kvm: there is no {KVM}; tcg needs none"
        );
        Ok(())
    }

    /// The requested accelerator, if possible; by default KVM where it works.
    pub fn choose(wanted: Option<Self>, image: &Image) -> Result<Self> {
        match wanted {
            Some(wanted) => wanted.check(image.arch).map(|()| wanted),
            None if is_native(image.arch) && kvm_works(image) => Ok(Self::Kvm),
            None => Ok(Self::Tcg),
        }
    }
}

/// True if this host's processor can run the guest natively.
fn is_native(arch: Arch) -> bool {
    arch == Arch::X86_64 && std::env::consts::ARCH == arch.name()
}

/// True if KVM runs this image's kernel. `/dev/kvm` alone proves nothing: nested in some clouds it opens, runs the firmware and
/// then fails on the kernel.
///
/// The probe is a machine without a disk, until the first kernel message.
fn kvm_works(image: &Image) -> bool {
    if !Path::new(KVM).exists() {
        return false;
    }
    let mut command = Command::new("qemu-system-x86_64");
    command.args([
        "-machine",
        "q35",
        "-accel",
        "kvm",
        "-cpu",
        "host",
        "-m",
        "128",
        "-display",
        "none",
        "-nodefaults",
    ]);
    command.args([
        "-no-user-config",
        "-no-reboot",
        "-serial",
        "stdio",
        "-append",
        "console=ttyS0 panic=-1",
        "-kernel",
    ]);
    command.arg(&image.kernel);
    let log = image.directory.join("kvm-probe.log");
    let Ok(mut probe) = Process::spawn(command, &log) else {
        return false;
    };
    probe.wait_for_log("Linux version", KVM_PROBE_LIMIT).is_ok()
}

/// Connection of a port of the bridge.
#[derive(Debug, Clone)]
pub enum Link<'a> {
    /// QEMU's own network stack, with two ports of the host forwarded to port 53 of the guest.
    User {
        /// Port on the host's loopback.
        udp_port: u16,
        /// Port on the host's loopback.
        tcp_port: u16,
    },
    /// A tap device in a namespace.
    Tap {
        /// Namespace of the device, and of QEMU.
        namespace: &'a Namespace,
        /// Name of the device.
        device: &'a str,
    },
}

/// A machine to boot an image on.
#[derive(Debug, Clone)]
pub struct Machine<'a> {
    /// The image to boot.
    pub image: &'a Image,
    /// The accelerator.
    pub accel: Accel,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Processors.
    pub cpus: u32,
    /// Queue pairs of the first port.
    pub queues: u32,
    /// Connection of the first port.
    pub link: Link<'a>,
    /// Name of the tap device, beside that of the first port, to which the second one is connected; `None`: nobody is behind it.
    pub second: Option<&'a str>,
    /// Further properties of both ports, each with a leading comma.
    pub nic: &'a str,
    /// A disk with the data partition.
    pub data: Option<&'a Path>,
    /// True to make the data partition read-only.
    pub is_data_read_only: bool,
    /// The flashed disk, whose loader starts instead of the image's kernel.
    pub disk: Option<&'a Path>,
    /// Port on the loopback for QEMU's control protocol ([`press_power_button`]).
    pub control_port: Option<u16>,
    /// Initial time of the clock, if other than the host's.
    pub clock: Option<&'a str>,
}

impl<'a> Machine<'a> {
    /// A small router: 128 MiB, two processors, two ports of one queue for the home, a card for the provider.
    #[must_use]
    pub fn new(image: &'a Image, accel: Accel, link: Link<'a>) -> Self {
        Self {
            image,
            accel,
            memory_mib: 128,
            cpus: 2,
            queues: 1,
            link,
            second: None,
            nic: "",
            data: None,
            is_data_read_only: false,
            disk: None,
            control_port: None,
            clock: None,
        }
    }

    /// QEMU's command line. The serial console is its standard input and output.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = match &self.link {
            Link::Tap { namespace, .. } => namespace.command(program(self.image.arch)),
            Link::User { .. } => Command::new(program(self.image.arch)),
        };
        command.args(self.base());
        command.args([
            "-m",
            &self.memory_mib.to_string(),
            "-smp",
            &self.cpus.to_string(),
        ]);
        command.args([
            "-display",
            "none",
            "-nodefaults",
            "-no-user-config",
            "-monitor",
            "none",
            "-serial",
            "stdio",
        ]);
        command.args(["-device", "virtio-rng-pci"]);
        self.add_cards(&mut command);
        command.args(["-device", "i6300esb", "-action", "watchdog=reset"]);
        match self.disk {
            Some(disk) => {
                if self.image.arch == Arch::Aarch64 {
                    command.args(["-bios", AARCH64_FIRMWARE]);
                }
                add_disk(&mut command, "disk", disk, false);
            }
            None => self.add_kernel(&mut command),
        }
        if let Some(data) = self.data {
            add_disk(&mut command, "data", data, self.is_data_read_only);
        }
        if let Some(port) = self.control_port {
            command.args(["-qmp", &format!("tcp:127.0.0.1:{port},server=on,wait=off")]);
        }
        if let Some(clock) = self.clock {
            command.args(["-rtc", &format!("base={clock}")]);
        }
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn base(&self) -> Vec<String> {
        let arguments: &[&str] = match (self.image.arch, self.accel) {
            (Arch::X86_64, Accel::Kvm) => &["-machine", "q35", "-accel", "kvm", "-cpu", "host"],
            // QEMU 7.2 leaves wrong flags after cmpxchg16b, which crashes the guest in about one of twelve boots.
            (Arch::X86_64, Accel::Tcg) => &[
                "-machine",
                "q35",
                "-accel",
                "tcg,thread=multi",
                "-cpu",
                "max,cx16=off",
            ],
            (Arch::Aarch64, _) => &[
                "-machine",
                "virt",
                "-accel",
                "tcg,thread=multi",
                "-cpu",
                "cortex-a57",
            ],
        };
        arguments
            .iter()
            .map(|argument| (*argument).to_owned())
            .collect()
    }

    /// Adds the image's kernel, started by QEMU itself, with the root as the first disk.
    fn add_kernel(&self, command: &mut Command) {
        let console = if self.image.arch == Arch::X86_64 {
            "ttyS0"
        } else {
            "ttyAMA0"
        };
        command.arg("-kernel").arg(&self.image.kernel);
        if let Some(initrd) = &self.image.initrd {
            command.arg("-initrd").arg(initrd);
        }
        command.args([
            "-append",
            &format!("console={console} root=/dev/vda ro rootwait panic=5 quiet"),
        ]);
        add_disk(command, "root", &self.image.root, true);
    }

    /// Adds the network cards in the order in which the guest counts them. The provider's is the last.
    fn add_cards(&self, command: &mut Command) {
        let second = match self.second {
            Some(device) => format!("tap,id=lan2,ifname={device},script=no,downscript=no"),
            None => UNUSED.to_owned(),
        };
        let nic = self.nic;
        for (netdev, device) in [
            (self.netdev(), self.network_device()),
            (
                second,
                format!("netdev=lan2,mac={SECOND_MAC},romfile={nic}"),
            ),
            (
                "user,id=wan,net=10.0.2.0/24,ipv6=off".to_owned(),
                format!("netdev=wan,mac={WAN_MAC},romfile="),
            ),
        ] {
            let device = format!("virtio-net-pci,{device}");
            command.args(["-netdev", &netdev, "-device", &device]);
        }
    }

    fn netdev(&self) -> String {
        match &self.link {
            Link::User { udp_port, tcp_port } => format!(
                "user,id=lan,net=192.168.1.0/24,host={HOST},dns=192.168.1.3,dhcpstart=192.168.1.100,\
                 hostfwd=udp:127.0.0.1:{udp_port}-{GUEST}:53,hostfwd=tcp:127.0.0.1:{tcp_port}-{GUEST}:53"
            ),
            Link::Tap { device, .. } => {
                let queues = if self.queues > 1 {
                    format!(",queues={}", self.queues)
                } else {
                    String::new()
                };
                format!("tap,id=lan,ifname={device},script=no,downscript=no{queues}")
            }
        }
    }

    fn network_device(&self) -> String {
        let queues = match self.queues {
            1 => String::new(),
            many => format!(",mq=on,vectors={}", 2 * many + 2),
        };
        format!("netdev=lan,mac={GUEST_MAC}{queues}{}", self.nic)
    }
}

/// Emulator of this architecture.
pub fn program(arch: Arch) -> String {
    format!("qemu-system-{}", arch.name())
}

fn add_disk(command: &mut Command, id: &str, path: &Path, is_read_only: bool) {
    let read_only = if is_read_only { ",readonly=on" } else { "" };
    command.args([
        "-drive",
        &format!(
            "if=none,id={id},format=raw,file={}{read_only}",
            path.display()
        ),
    ]);
    command.args(["-device", &format!("virtio-blk-pci,drive={id}")]);
}

/// Presses the machine's power button, through the QEMU Machine Protocol.
pub fn press_power_button(control_port: u16) -> Result<()> {
    let mut control = TcpStream::connect(("127.0.0.1", control_port)).context("connect to QEMU")?;
    control.set_read_timeout(Some(CONTROL_LIMIT))?;
    let mut said = BufReader::new(control.try_clone()?).lines();
    for command in ["qmp_capabilities", "system_powerdown"] {
        writeln!(control, "{{\"execute\": \"{command}\"}}").context("ask QEMU")?;
        // The greeting and events come in between.
        let is_done = said
            .by_ref()
            .any(|line| line.is_ok_and(|line| line.contains("\"return\"")));
        ensure!(is_done, "QEMU does not do {command}");
    }
    Ok(())
}

/// A port of the loopback that is free now, for UDP and TCP.
pub fn free_port() -> Result<u16> {
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").context("find a free port")?;
    Ok(tcp
        .local_addr()
        .context("a bound socket has an address")?
        .port())
}

/// Directory for the files of a test or a run, removed when dropped.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// A new directory whose name begins with `name`.
    pub fn new(name: &str) -> Result<Self> {
        let path = crate::image::directory()
            .join("run")
            .join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(Self(path))
    }

    /// A path in the directory.
    #[must_use]
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A leftover directory is in the build directory, where `cargo clean` removes it.
        drop(std::fs::remove_dir_all(&self.0));
    }
}
