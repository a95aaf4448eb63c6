//! The server as the image carries it: static, so that it needs nothing of the root's libraries.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::packages::Role;
use super::{Arch, packages};
use crate::workspace;

/// Builds it with cargo and returns where it is.
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

/// The distribution's compiler with its standard library for the other machine, unpacked beside the installed one: the
/// toolchain's own has none, and what is installed stays as it is.
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
