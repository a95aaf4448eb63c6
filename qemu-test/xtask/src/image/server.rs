//! The server for the image: static, so that it needs no libraries of the root.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::packages::Role;
use super::{Arch, packages};
use crate::workspace;

/// Builds it with cargo and returns its path.
pub fn build(arch: Arch) -> Result<PathBuf> {
    let triple = format!("{}-unknown-linux-gnu", arch.name());
    let mut cargo = workspace::cargo();
    cargo.args([
        "build",
        "--release",
        "--locked",
        "-p",
        "xdnsd",
        "--target",
        &triple,
    ]);
    cargo.env("RUSTFLAGS", "-Ctarget-feature=+crt-static");
    cargo.env(
        "RUSTC_WRAPPER",
        workspace::root().join(".cargo/rustc-anywhere"),
    );
    if arch == Arch::Aarch64 {
        cross(&mut cargo)?;
    }
    let status = cargo.status().context("start cargo")?;
    ensure!(status.success(), "the server for {triple} does not build");
    Ok(workspace::target().join(triple).join("release/xdnsd"))
}

/// Uses the distribution's compiler with its standard library for the other machine, unpacked beside the installed one: the
/// toolchain lacks one, and the installed packages stay unchanged.
fn cross(cargo: &mut Command) -> Result<()> {
    let unpacked = packages().unpack(Role::Rust, Arch::Aarch64)?;
    let sysroot = unpacked.join("usr");
    cargo.env("RUSTC", "/usr/bin/rustc");
    cargo.env(
        "RUSTFLAGS",
        format!(
            "-Ctarget-feature=+crt-static --sysroot={}",
            sysroot.display()
        ),
    );
    cargo.env(
        "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER",
        "aarch64-linux-gnu-gcc",
    );
    Ok(())
}
