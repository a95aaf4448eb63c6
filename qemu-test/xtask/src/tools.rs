//! Programs out of crates: each of the version that is tested, below the target folder.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::workspace;
use xdnsd_lab::process::output_of;

/// A crate's program.
#[derive(Clone, Copy, Debug)]
pub struct Tool {
    /// The name of both.
    pub name: &'static str,
    pub version: &'static str,
}

impl Tool {
    /// Where our own one is, once it is installed.
    pub fn program(self) -> PathBuf {
        folder().join("bin").join(self.name)
    }

    /// Our own one; installed now where it is not, or is of another version, as `how` has cargo do it.
    pub fn own(self, how: impl FnOnce(&mut Command)) -> Result<PathBuf> {
        let program = self.program();
        if self.is_at(&program) {
            return Ok(program);
        }
        let Self { name, version } = self;
        eprintln!("installing {name} {version} (two minutes)");
        let mut cargo = workspace::cargo();
        cargo.args(["install", name, "--version", version, "--root"]);
        how(cargo.arg(folder()));
        let status = cargo.status().context("start cargo")?;
        ensure!(status.success(), "{name} {version} does not install");
        Ok(program)
    }

    /// Whether this program is it.
    pub fn is_at(self, program: &Path) -> bool {
        let version = output_of(Command::new(program).arg("--version"));
        let expected = format!("{} {}", self.name, self.version);
        version.is_ok_and(|version| version.trim() == expected)
    }
}

fn folder() -> PathBuf {
    workspace::target().join("tools")
}
