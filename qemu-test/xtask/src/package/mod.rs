//! `cargo xtask package`: a Debian package of the static server, with manual pages, shell completion, a unit, and examples.
//!
//! cargo-deb packs it according to `[package.metadata.deb]` of appliance/Cargo.toml. Pages and completion are generated from the
//! server's own output, so that they always match its version.

mod check;
mod completion;
mod container;
mod install;
mod machine;
mod manual;
mod usage;

use std::env::consts::ARCH;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use clap::Args;

use crate::image::{Arch, server};
use crate::setup::{self, Purpose};
use crate::signals::Signals;
use crate::tools::Tool;
use crate::workspace;
use usage::Help;
use xdnsd_lab::privilege::require_root;
use xdnsd_lab::process::output_of;

/// The packing tool, in the tested version.
const CARGO_DEB: Tool = Tool {
    name: "cargo-deb",
    version: "3.8.0",
};

/// Arguments of `package`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Has lintian judge the package and man its pages, and looks whether what it unpacks to works.
    #[arg(long)]
    check: bool,
    /// Installs it on a bare Debian in namespaces by the commands of README, and asks it from the LAN; serves from the root of the
    /// container image as well. Needs root.
    #[arg(long)]
    install: bool,
}

/// Files generated from the server's output, under the names that Cargo.toml packs.
pub struct Made {
    /// Their folder, beside the server.
    pub folder: PathBuf,
}

impl Made {
    /// xdnsd(8).
    pub const COMMANDS: &str = "xdnsd.8";
    /// xdnsd.toml(5).
    pub const CONFIG: &str = "xdnsd.toml.5";
    /// bash completion.
    pub const WORDS: &str = "xdnsd.bash";

    /// Generates them from this server's output.
    fn of(server: &Path) -> Result<Self> {
        let folder = server.with_file_name("package");
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        let print = |words: &[&str]| output_of(Command::new(server).args(words));
        let help = Help::read(&print(&["help"])?, |name| {
            print(&Vec::from_iter(["help"].into_iter().chain(name.split(' '))))
        })?;
        let files = [
            (Self::COMMANDS, manual::commands(&help)),
            (Self::CONFIG, manual::config(&print(&["reference"])?)),
            (Self::WORDS, completion::bash(&help)),
        ];
        for (name, text) in files {
            let file = folder.join(name);
            fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
        }
        // Compressed as policy requires: cargo-deb leaves pages below target/release as they are.
        let mut gzip = Command::new("gzip");
        gzip.args(["-9", "--no-name", "--force", "--keep"]);
        gzip.current_dir(&folder);
        output_of(gzip.args([Self::COMMANDS, Self::CONFIG]))?;
        Ok(Self { folder })
    }
}

/// Carries out `package`.
pub fn main(arguments: &Arguments, signals: &Signals) -> Result<ExitCode> {
    if arguments.check {
        setup::ensure_all(&[Purpose::Package], signals)?;
    }
    if arguments.install {
        require_root("a machine in namespaces")?;
        setup::ensure_all(&[Purpose::Lab], signals)?;
    }
    let arch = if ARCH == "aarch64" {
        Arch::Aarch64
    } else {
        Arch::X86_64
    };
    let server = server::build(arch)?;
    let made = Made::of(&server)?;
    let package = pack(arch)?;
    if arguments.check {
        check::all(&package, &made)?;
    }
    if arguments.install {
        install::try_out(&package, signals)?;
        container::try_out(&server)?;
    }
    println!("{}", package.display());
    Ok(ExitCode::SUCCESS)
}

/// Packs the build. Returns the package's path.
fn pack(arch: Arch) -> Result<PathBuf> {
    let cargo_deb = CARGO_DEB.own(|cargo| {
        // A debug build: optimising it would take longer than it saves.
        cargo.args(["--locked", "--debug"]);
    })?;
    let mut pack = Command::new(cargo_deb);
    pack.current_dir(workspace::root())
        .args(["-p", "xdnsd", "--no-build", "--locked"]);
    pack.args(["--target", &format!("{}-unknown-linux-gnu", arch.name())]);
    let folder = workspace::root().join("dist");
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let said = output_of(pack.arg("--output").arg(&folder))?;
    let package = said.lines().last().map(PathBuf::from);
    let package = package.filter(|package| package.is_file());
    package.with_context(|| format!("cargo-deb names no package: {said:?}"))
}
