//! Programs from crates, each in the tested version, below the target folder.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::workspace;
use xdnsd_lab::process::output_of;

/// A crate's program.
#[derive(Clone, Copy, Debug)]
pub struct Tool {
    /// Name of the crate and of its program.
    pub name: &'static str,
    pub version: &'static str,
}

impl Tool {
    /// Path of our own installation.
    pub fn program(self) -> PathBuf {
        folder().join("bin").join(self.name)
    }

    /// Path of our own installation, installed now if it is missing or of another version, with cargo set up by `how`.
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

    /// True if the program at this path has the right version.
    pub fn is_at(self, program: &Path) -> bool {
        let version = output_of(Command::new(program).arg("--version"));
        let expected = format!("{} {}", self.name, self.version);
        version.is_ok_and(|version| version.trim() == expected)
    }
}

fn folder() -> PathBuf {
    workspace::target().join("tools")
}
