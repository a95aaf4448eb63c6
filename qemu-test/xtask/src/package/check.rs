//! `cargo xtask package --check`: runs Debian's own checks of the package, and tries its contents.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::Made;
use crate::workspace;
use xdnsd_lab::process::output_of;

/// Files that the package must have.
const FILES: [&str; 12] = [
    "usr/bin/xdnsd",
    "usr/lib/systemd/system/xdnsd.service",
    "usr/lib/systemd/system/xdnsd-web.service",
    "usr/lib/systemd/system/xdnsd-fetch-lists.service",
    "usr/lib/systemd/system/xdnsd-fetch-lists.timer",
    "usr/libexec/xdnsd/fetch-lists",
    "etc/xdnsd/xdnsd.toml",
    "usr/share/man/man8/xdnsd.8.gz",
    "usr/share/man/man5/xdnsd.toml.5.gz",
    "usr/share/bash-completion/completions/xdnsd",
    "usr/share/doc/xdnsd/examples/home-router.toml",
    "usr/share/doc/xdnsd/copyright",
];

/// All checks.
pub fn all(package: &Path, made: &Made) -> Result<()> {
    lintian(package)?;
    for page in [Made::COMMANDS, Made::CONFIG] {
        manual(&made.folder.join(page))?;
    }
    contents(package)
}

/// Runs lintian: policy violations fail, oddities are printed.
fn lintian(package: &Path) -> Result<()> {
    let mut lintian = Command::new("lintian");
    lintian.args([
        "--allow-root",
        "--fail-on",
        "error,warning",
        "--tag-display-limit",
        "0",
    ]);
    let output = lintian.arg(package).output().context("run lintian")?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success(),
        "lintian of {}:\n{said}",
        package.display()
    );
    Ok(())
}

/// groff reads the page without a warning.
fn manual(page: &Path) -> Result<()> {
    let mut man = Command::new("man");
    man.args(["--warnings", "--encoding=UTF-8", "--local-file"])
        .arg(page);
    man.env("LC_ALL", "C.UTF-8").env("MANWIDTH", "80");
    let output = man.output().context("run man")?;
    let warnings = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success() && warnings.is_empty(),
        "man {}:\n{warnings}",
        page.display()
    );
    Ok(())
}

/// Unpacks the package: all files are present, its server runs, and its config is valid.
fn contents(package: &Path) -> Result<()> {
    let place = workspace::target().join("package-check");
    if place.exists() {
        fs::remove_dir_all(&place).with_context(|| format!("remove {}", place.display()))?;
    }
    output_of(
        Command::new("dpkg-deb")
            .arg("--extract")
            .arg(package)
            .arg(&place),
    )?;
    for file in FILES {
        ensure!(
            place.join(file).is_file(),
            "{} lacks /{file}",
            package.display()
        );
    }
    let server = place.join("usr/bin/xdnsd");
    let version = output_of(Command::new(&server).arg("version"))?;
    let expected = concat!("xdnsd ", env!("CARGO_PKG_VERSION"));
    ensure!(version.trim() == expected, "its server says {version:?}");
    let config = place.join("etc/xdnsd/xdnsd.toml");
    output_of(
        Command::new(&server)
            .args(["check", "--offline"])
            .arg(config),
    )?;
    fs::remove_dir_all(&place).with_context(|| format!("remove {}", place.display()))
}
