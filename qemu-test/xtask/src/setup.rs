//! Packages that a command needs: checked by name, reported, and installed by apt-get if missing.
//!
//! Only packages for the command at hand are installed, and a check costs a few file lookups.

use std::env;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};

use crate::progress::{Task, watch};
use crate::qemu::machine::AARCH64_FIRMWARE;
use crate::signals::Signals;
use crate::workspace;
use xdnsd_lab::privilege::is_root;
use xdnsd_lab::process::output_of;
use xdnsd_lab::programs::{find_program, find_unpacked, unpacked_root};
use xdnsd_lab::suite::{PACKAGES, SUITE, Suite};

/// Purpose of packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The lab: namespaces, an upstream server, tools that ask.
    Lab,
    /// The AF_XDP backend behind `--features afxdp`, which brings C sources.
    AfXdp,
    /// Building the eBPF object.
    Ebpf,
    /// Checks of scripts.
    Scripts,
    /// The image without Buildroot, and the virtual machine that boots it.
    Image,
    /// The image for 64-bit Arm.
    ImageAarch64,
    /// The newest of the servers that benchmarks compare with.
    Peers,
    /// Tools that capture, replay and read packets for `bench paper`.
    Paper,
    /// Checks of the Debian package and of its manual pages.
    Package,
}

impl Purpose {
    /// All purposes.
    pub const ALL: [Self; 9] = [
        Self::Lab,
        Self::AfXdp,
        Self::Ebpf,
        Self::Scripts,
        Self::Image,
        Self::ImageAarch64,
        Self::Peers,
        Self::Paper,
        Self::Package,
    ];

    /// Name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Lab => "lab",
            Self::AfXdp => "afxdp",
            Self::Ebpf => "ebpf",
            Self::Scripts => "scripts",
            Self::Image => "image",
            Self::ImageAarch64 => "image-aarch64",
            Self::Peers => "peers",
            Self::Paper => "paper",
            Self::Package => "package",
        }
    }

    /// Its packages, each with the sign that it is installed.
    fn needs(self) -> &'static [Need] {
        match self {
            Self::Lab => LAB,
            Self::AfXdp => AFXDP,
            Self::Ebpf => EBPF,
            Self::Scripts => SCRIPTS,
            Self::Image => IMAGE,
            Self::ImageAarch64 => IMAGE_AARCH64,
            Self::Peers => PEERS,
            Self::Paper => PAPER,
            Self::Package => PACKAGE,
        }
    }
}

impl ValueEnum for Purpose {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()))
    }
}

/// Arguments of `setup`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// What the packages are for [default: all of these].
    purposes: Vec<Purpose>,
}

/// Carries out `setup`.
pub fn main(arguments: Arguments, signals: &Signals) -> Result<ExitCode> {
    let mut purposes = arguments.purposes;
    if purposes.is_empty() {
        purposes.extend(Purpose::ALL);
    }
    ensure_all(&purposes, signals)?;
    println!("Nothing is missing.");
    Ok(ExitCode::SUCCESS)
}

const LAB: &[Need] = &[
    program("iproute2", "ip"),
    program("ethtool", "ethtool"),
    program("bind9-dnsutils", "dig"),
    program("curl", "curl"),
    program("nsd", "nsd"),
    program("dnsperf", "dnsperf"),
    program("unbound", "unbound"),
    program("dnsmasq-base", "dnsmasq"),
    program("ldnsutils", "ldns-signzone"),
    program("tcpdump", "tcpdump"),
    program("udhcpc", "udhcpc"),
    program("hping3", "hping3"),
    program("tshark", "tshark"),
    program("fstrm-bin", "fstrm_capture"),
    program("dnstap-ldns", "dnstap-ldns"),
    program("prometheus", "promtool"),
    program("nftables", "nft"),
    program("netcat-openbsd", "nc"),
    program("dropbear-bin", "dropbear"),
    program("musl-tools", "musl-gcc"),
    file("libsystemd-shared", "/usr/share/doc/libsystemd-shared"),
    program("systemd", "systemd-analyze"),
    program("chromium-headless-shell", "chromium-headless-shell"),
    program("busybox", "busybox"),
    unpacked("systemd-resolved", "lib/systemd/systemd-resolved"),
];
const AFXDP: &[Need] = &[
    program("gcc", "cc"),
    program("make", "make"),
    file("libelf-dev", "/usr/include/libelf.h"),
    file("zlib1g-dev", "/usr/include/zlib.h"),
];
const EBPF: &[Need] = &[
    package("rustc-web"),
    package("libstd-rust-web-dev-bpf"),
    package("llvm-22-dev"),
];
const SCRIPTS: &[Need] = &[program("shellcheck", "shellcheck")];
const IMAGE: &[Need] = &[
    program("qemu-system-x86", "qemu-system-x86_64"),
    program("squashfs-tools", "mksquashfs"),
    program("xz-utils", "xz"),
    program("e2fsprogs", "mke2fs"),
    program("genimage", "genimage"),
    program("mtools", "mcopy"),
    program("dosfstools", "mkdosfs"),
    program("bind9-dnsutils", "dig"),
    program("curl", "curl"),
    program("netcat-openbsd", "nc"),
    program("dropbear-bin", "dropbear"),
    program("iproute2", "ip"),
    program("ethtool", "ethtool"),
    program("binutils", "strip"),
    file(
        "libdevmapper1.02.1",
        "/lib/x86_64-linux-gnu/libdevmapper.so.1.02.1",
    ),
];
const IMAGE_AARCH64: &[Need] = &[
    package("rustc-web"),
    program("qemu-system-arm", "qemu-system-aarch64"),
    file("qemu-efi-aarch64", AARCH64_FIRMWARE),
    program("gcc-aarch64-linux-gnu", "aarch64-linux-gnu-gcc"),
    file("libc6-dev-arm64-cross", "/usr/aarch64-linux-gnu/lib/libc.a"),
];
/// Mirror for [`bootstrap`].
const MIRROR: &str = "http://deb.debian.org/debian";
const PEERS: &[Need] = &[program("mmdebstrap", "mmdebstrap")];
const PAPER: &[Need] = &[
    program("tcpdump", "tcpdump"),
    program("tcpreplay", "tcpreplay"),
    program("tshark", "tshark"),
];
const PACKAGE: &[Need] = &[program("lintian", "lintian"), program("man-db", "man")];

/// A required package.
#[derive(Clone, Copy, Debug)]
struct Need {
    package: &'static str,
    sign: Sign,
}

/// Sign that a package is installed. A program or file from elsewhere also counts.
#[derive(Clone, Copy, Debug)]
enum Sign {
    /// A program in PATH or in root's directories.
    Program(&'static str),
    /// A file.
    File(&'static str),
    /// dpkg's list of the package's files.
    Package,
    /// A file of a package that is unpacked instead of installed, since its scripts would change this machine.
    Unpacked(&'static str),
}

/// A package whose sign is its program.
const fn program(package: &'static str, name: &'static str) -> Need {
    let sign = Sign::Program(name);
    Need { package, sign }
}

/// A package whose sign is its file.
const fn file(package: &'static str, path: &'static str) -> Need {
    let sign = Sign::File(path);
    Need { package, sign }
}

/// A package that must be installed itself.
const fn package(package: &'static str) -> Need {
    let sign = Sign::Package;
    Need { package, sign }
}

/// A package that is unpacked below the build directory: systemd-resolved's scripts would redirect /etc/resolv.conf.
const fn unpacked(package: &'static str, path: &'static str) -> Need {
    let sign = Sign::Unpacked(path);
    Need { package, sign }
}

impl Need {
    fn is_met(self) -> bool {
        match self.sign {
            Sign::Program(name) => find_program(name).is_some(),
            Sign::File(path) => Path::new(path).exists(),
            Sign::Package => is_unpacked(self.package),
            Sign::Unpacked(path) => find_unpacked(self.package, path).is_some(),
        }
    }
}

/// True if dpkg has a list of the package's files. For a multi-arch package its name has the architecture.
fn is_unpacked(package: &str) -> bool {
    let info = Path::new("/var/lib/dpkg/info");
    let names = [
        format!("{package}.list"),
        format!("{package}:{}.list", debian_arch()),
    ];
    names.iter().any(|name| info.join(name).exists())
}

fn debian_arch() -> &'static str {
    match env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Packages that are missing for these purposes.
#[must_use]
pub fn missing(purposes: &[Purpose]) -> Vec<&'static str> {
    let needs = purposes.iter().flat_map(|purpose| purpose.needs());
    let mut missing: Vec<_> = needs
        .filter(|need| !need.is_met())
        .map(|need| need.package)
        .collect();
    missing.sort_unstable();
    missing.dedup();
    missing
}

/// Installs the packages missing for these purposes. Silent if there are none.
pub fn ensure_all(purposes: &[Purpose], signals: &Signals) -> Result<()> {
    let packages = missing(purposes);
    if !packages.is_empty() {
        eprintln!("missing: {}", packages.join(", "));
        let (to_unpack, to_install): (Vec<_>, Vec<_>) = packages
            .into_iter()
            .partition(|package| is_to_unpack(package));
        if !to_install.is_empty() {
            install(&to_install, signals)?;
        }
        for package in to_unpack {
            unpack(package)?;
        }
        let still = missing(purposes);
        ensure!(
            still.is_empty(),
            "installed, but still not found: {}",
            still.join(", ")
        );
    }
    Ok(())
}

fn is_to_unpack(package: &str) -> bool {
    let all = Purpose::ALL.into_iter().flat_map(Purpose::needs);
    let mut same = all.filter(|need| need.package == package);
    same.any(|need| matches!(need.sign, Sign::Unpacked(_)))
}

/// Downloads a Debian package and unpacks it, without running any of it.
fn unpack(package: &str) -> Result<()> {
    let root = unpacked_root(package);
    fs::create_dir_all(&root).with_context(|| format!("create {}", root.display()))?;
    eprintln!("apt-get download {package}");
    let script = "apt-get -q download \"$1\" && dpkg-deb -x \"$1\"_*.deb . && rm -f \"$1\"_*.deb";
    let mut command = Command::new("sh");
    command
        .args(["-c", script, "sh", package])
        .current_dir(&root);
    output_of(&mut command).map(drop)
}

/// Unpacks the suite with the newest servers for benchmarks, unless it is there.
pub fn ensure_suite(signals: &Signals) -> Result<Suite> {
    if let Some(suite) = Suite::find() {
        return Ok(suite);
    }
    let what = format!("unpack {PACKAGES} of {SUITE}");
    let include = format!("--include={PACKAGES}");
    // Packages are only unpacked. A mirror may be weeks behind; its signature is checked all the same.
    let words = [
        "--variant=extract",
        "--aptopt=Acquire::Check-Valid-Until \"false\"",
        &include,
    ];
    bootstrap(&what, &words, SUITE, &Suite::root(), signals)?;
    Suite::find().with_context(|| format!("{what}: no server is in it"))
}

/// Has mmdebstrap make the folder `root` of a Debian suite, with more `words`. One that is there is replaced.
pub fn bootstrap(
    what: &str,
    words: &[&str],
    suite: &str,
    root: &Path,
    signals: &Signals,
) -> Result<()> {
    ensure_all(&[Purpose::Peers], signals)?;
    let half = root.with_extension("half");
    for left in [root, &half] {
        if left.exists() {
            fs::remove_dir_all(left).with_context(|| format!("remove {}", left.display()))?;
        }
    }
    eprintln!("{what} into {}", root.display());
    let mut command = Command::new("mmdebstrap");
    command.args(words).arg(suite).arg(&half).arg(MIRROR);
    let log = workspace::logs().join("suite.log");
    let task = Task {
        what,
        log: &log,
        limit: APT_LIMIT,
    };
    let watched = watch(task, command, signals)?;
    ensure!(
        watched.is_success(),
        "{what}: mmdebstrap failed; its output is in {}:\n{}",
        log.display(),
        watched.output
    );
    fs::rename(&half, root).with_context(|| format!("make {}", root.display()))
}

/// Installs Debian packages, as root or through sudo.
///
/// apt-get's package lists are refreshed only if needed: they are missing or older than the mirror.
pub fn install(packages: &[&str], signals: &Signals) -> Result<()> {
    let list = packages.join(" ");
    let by_hand = format!("install it by hand: apt-get install {list}");
    ensure!(
        find_program("apt-get").is_some(),
        "this is not Debian (no apt-get); {by_hand}"
    );
    ensure!(
        is_root() || find_program("sudo").is_some(),
        "neither root nor sudo; {by_hand}"
    );
    let log = workspace::logs().join("setup.log");
    let what = format!("apt-get install {list}");
    let install = [&["install"], packages].concat();
    if apt(&what, &install, &log, signals)? {
        return Ok(());
    }
    eprintln!("apt-get knows no such version: updating its package lists");
    ensure!(
        apt("apt-get update", &["update"], &log, signals)?,
        "apt-get update failed; its output is in {}",
        log.display()
    );
    let said = || {
        format!(
            "apt-get failed; its output is in {}; or {by_hand}",
            log.display()
        )
    };
    ensure!(apt(&what, &install, &log, signals)?, said());
    Ok(())
}

/// Time limit of apt-get, download included.
const APT_LIMIT: Duration = Duration::from_secs(1200);

/// Runs apt-get without questions, and without starting packaged services: the lab starts its own server in its own namespace,
/// and a second one on port 53 of this machine would conflict.
const APT_SCRIPT: &str = r#"
set -u
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' INT TERM
    printf '#!/bin/sh\nexit 101\n' > "$policy" && chmod 755 "$policy"
fi
had_nsd=$(command -v nsd)
had_unbound=$(command -v unbound)
had_prometheus=$(command -v prometheus)
DEBIAN_FRONTEND=noninteractive
export DEBIAN_FRONTEND
apt-get -q -y --no-install-recommends -o DPkg::Lock::Timeout=300 "$@" || exit 1
if [ -d /run/systemd/system ]; then
    if [ -z "$had_nsd" ] && command -v nsd > /dev/null; then systemctl --quiet disable nsd; fi
    if [ -z "$had_unbound" ] && command -v unbound > /dev/null; then systemctl --quiet disable unbound; fi
    if [ -z "$had_prometheus" ] && command -v prometheus > /dev/null; then systemctl --quiet disable prometheus; fi
fi
exit 0
"#;

fn apt(what: &str, words: &[&str], log: &Path, signals: &Signals) -> Result<bool> {
    let mut command = if is_root() {
        Command::new("sh")
    } else {
        // Asked here, on the terminal; what follows runs in the background.
        let status = Command::new("sudo")
            .arg("-v")
            .status()
            .context("run sudo")?;
        ensure!(
            status.success(),
            "sudo refused: run the same command as root"
        );
        let mut sudo = Command::new("sudo");
        sudo.args(["-n", "sh"]);
        sudo
    };
    command.args(["-c", APT_SCRIPT, "apt"]).args(words);
    eprintln!("{what}");
    let task = Task {
        what,
        log,
        limit: APT_LIMIT,
    };
    Ok(watch(task, command, signals)?.is_success())
}

#[cfg(test)]
mod tests {
    use super::{Need, Purpose, Sign, missing, package};
    use clap::ValueEnum;

    #[test]
    fn every_purpose_is_found_by_its_name() {
        for purpose in Purpose::ALL {
            let parsed = Purpose::from_str(purpose.name(), false).expect("its own name");
            assert_eq!(parsed, purpose);
            assert!(!purpose.needs().is_empty());
        }
        assert!(Purpose::from_str("kitchen", false).is_err());
    }

    #[test]
    fn need_is_met_by_program_file_or_package() {
        let is_met = |sign| {
            Need {
                package: "dpkg",
                sign,
            }
            .is_met()
        };
        assert!(is_met(Sign::Program("sh")));
        assert!(!is_met(Sign::Program("no-such-program")));
        assert!(is_met(Sign::File("/proc/self/stat")));
        assert!(!is_met(Sign::File("/no/such/file")));
        assert!(!package("no-such-package").is_met());
    }

    #[test]
    fn missing_says_each_package_once() {
        let all = missing(&[Purpose::Lab, Purpose::Lab, Purpose::AfXdp]);
        let mut unique = all.clone();
        unique.dedup();
        assert_eq!(all, unique);
    }
}
