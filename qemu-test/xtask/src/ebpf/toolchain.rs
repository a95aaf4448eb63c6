//! The eBPF compiler, Debian's packages or rustup's nightly, and the matching linker.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::TARGET;
use crate::tools::Tool;

/// Debian's compiler (rustc-web), which is asked for the directory of its `core` for eBPF (libstd-rust-web-dev-bpf).
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const LINKER: Tool = Tool {
    name: "bpf-linker",
    version: "0.13.0",
};
/// Packages of the setup with Debian alone.
const PACKAGES: &str = "rustc-web libstd-rust-web-dev-bpf llvm-22-dev";

/// A compiler with its linker and their common LLVM.
#[derive(Debug)]
pub(super) struct Toolchain {
    kind: Kind,
    /// First line of `rustc -vV`.
    pub rustc: String,
    /// Version of bpf-linker and of the LLVM behind it.
    pub linker: String,
    pub linker_path: PathBuf,
    pub strip_path: PathBuf,
    /// `llvm-objcopy`.
    pub objcopy_path: PathBuf,
    /// Path of the standard library's sources in the compiler's debug information.
    pub library_path: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// `core` is precompiled for the target.
    Debian,
    /// `core` is compiled from rust-src.
    Nightly,
}

impl Toolchain {
    /// The first complete compiler, and its linker, which is installed below the build directory if missing.
    pub(super) fn find() -> Result<Self> {
        let (kind, version) = compiler()?;
        let rustc = version.lines().next().unwrap_or_default().to_owned();
        let major = llvm_major(&version)?;
        let llvm = PathBuf::from(format!("/usr/lib/llvm-{major}"));
        let llvm_config = llvm.join("bin/llvm-config");
        ensure!(
            llvm_config.exists(),
            "{rustc} brings LLVM {major}, and bpf-linker needs the same: apt-get install llvm-{major}-dev"
        );
        let linker_path = linker(major, &llvm)?;
        let linker = output(Command::new(&linker_path).arg("--version"))?;
        let llvm_version = output(Command::new(llvm_config).arg("--version"))?;
        Ok(Self {
            kind,
            linker: format!("{}, LLVM {}", linker.trim(), llvm_version.trim()),
            linker_path,
            strip_path: llvm.join("bin/llvm-strip"),
            objcopy_path: llvm.join("bin/llvm-objcopy"),
            library_path: library_path(kind, &version)?,
            rustc,
        })
    }

    /// Cargo with this compiler. The caller adds the subcommand.
    pub(super) fn cargo(&self) -> Command {
        let mut command = match self.kind {
            Kind::Debian => {
                let cargo = env::var_os("CARGO");
                let mut command = Command::new(cargo.as_deref().unwrap_or(OsStr::new("cargo")));
                command.env("RUSTC", DEBIAN_RUSTC);
                // aya-ebpf uses inline assembly for eBPF, which is unstable.
                command.env("RUSTC_BOOTSTRAP", "1");
                command
            }
            Kind::Nightly => {
                let mut command = nightly("cargo");
                command.env("CARGO_UNSTABLE_BUILD_STD", "core");
                command
            }
        };
        command
            .env_remove("RUSTC_WRAPPER")
            .env_remove("RUSTC_WORKSPACE_WRAPPER");
        command
    }
}

/// The first complete compiler and its `-vV`.
fn compiler() -> Result<(Kind, String)> {
    let libraries =
        output(Command::new(DEBIAN_RUSTC).args(["--print", "target-libdir", "--target", TARGET]));
    if libraries.is_ok_and(|path| Path::new(path.trim()).is_dir()) {
        return Ok((Kind::Debian, output(Command::new(DEBIAN_RUSTC).arg("-vV"))?));
    }
    let has_sources = nightly_sysroot().is_ok_and(|root| root.join("lib/rustlib/src").is_dir());
    if has_sources {
        return Ok((Kind::Nightly, output(nightly("rustc").arg("-vV"))?));
    }
    bail!(
        "no compiler for eBPF: `apt-get install {PACKAGES}`, or `rustup toolchain install nightly --component rust-src`"
    )
}

/// A program of rustup's nightly, whatever toolchain runs this.
fn nightly(program: &str) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly", program]);
    command
        .env_remove("RUSTC")
        .env_remove("CARGO")
        .env_remove("RUSTUP_TOOLCHAIN");
    command
}

fn nightly_sysroot() -> Result<PathBuf> {
    let root = output(nightly("rustc").args(["--print", "sysroot"]))?;
    Ok(PathBuf::from(root.trim()))
}

/// Debian compiles its libraries below /usr/src; rust-src is in the sysroot.
fn library_path(kind: Kind, version: &str) -> Result<PathBuf> {
    match kind {
        Kind::Debian => {
            let release = field(version, "release: ").context("rustc -vV names no release")?;
            Ok(PathBuf::from(format!("/usr/src/rustc-{release}")))
        }
        Kind::Nightly => Ok(nightly_sysroot()?.join("lib/rustlib/src/rust")),
    }
}

fn llvm_major(version: &str) -> Result<u32> {
    let llvm = field(version, "LLVM version: ").context("rustc -vV names no LLVM version")?;
    let major = llvm.split('.').next().unwrap_or_default();
    major
        .parse()
        .with_context(|| format!("LLVM version {llvm:?}"))
}

fn field<'a>(version: &'a str, name: &str) -> Option<&'a str> {
    version.lines().find_map(|line| line.strip_prefix(name))
}

/// Our own linker, or the one in PATH if it has the same version, or a newly installed one.
fn linker(llvm_major: u32, llvm: &Path) -> Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let in_path = env::split_paths(&path).map(|directory| directory.join(LINKER.name));
    let mut known = std::iter::once(LINKER.program()).chain(in_path);
    if let Some(path) = known.find(|path| LINKER.is_at(path)) {
        return Ok(path);
    }
    LINKER.own(|cargo| {
        cargo.args(["--no-default-features", "--features"]);
        cargo.arg(format!("llvm-{llvm_major}"));
        cargo.env("LLVM_PREFIX", llvm);
    })
}

fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("run {program}"))?;
    ensure!(
        output.status.success(),
        "{program}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8(output.stdout)?)
}
