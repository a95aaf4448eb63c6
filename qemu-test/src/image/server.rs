//! The server as the image carries it: static, so that it needs nothing of the root's libraries.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::Arch;
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
    if arch == Arch::Aarch64 {
        cross(&mut cargo);
    }
    let status = cargo.status().context("start cargo")?;
    ensure!(status.success(), "the server for {triple} does not build");
    Ok(workspace::target().join(triple).join("release/xdnsd"))
}

/// The linker of the other machine.
fn cross(cargo: &mut Command) {
    cargo.env(
        "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER",
        "aarch64-linux-gnu-gcc",
    );
}
