//! Where things are: the workspace, the build directory, cargo.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::output_of;

/// The root of the workspace.
#[must_use]
pub fn root() -> PathBuf {
    // Cargo sets the variable when it runs this program, also where the checkout has moved since the build.
    let package = env::var_os("CARGO_MANIFEST_DIR");
    let package = package.unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&package)
        .parent()
        .map_or_else(PathBuf::new, Path::to_path_buf)
}

/// Cargo's build directory.
#[must_use]
pub fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Where the commands put their logs.
#[must_use]
pub fn logs() -> PathBuf {
    target().join("xtask")
}

/// Cargo in the workspace, with the toolchain that runs this program.
#[must_use]
pub fn cargo() -> Command {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    command.current_dir(root());
    command
}

/// The files under version control, relative to the root.
pub fn files() -> Result<Vec<PathBuf>> {
    let mut git = Command::new("git");
    // New files that are not ignored belong to the change at hand.
    git.args(["ls-files", "--cached", "--others", "--exclude-standard"]);
    let listed = output_of(git.current_dir(root())).context("list the files of the workspace")?;
    let files = listed.lines().map(PathBuf::from);
    Ok(files.filter(|file| root().join(file).is_file()).collect())
}
