//! The workspace: its paths, its files, its cargo.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use xdnsd_lab::process::output_of;
pub use xdnsd_lab::workspace::{root, target};

/// Directory of the commands' logs.
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

/// Generated directories, not part of a release, relative to the root.
const MADE: [&str; 3] = [".git", "dist", "target"];

/// Files under version control, relative to the root; all files if there is no repository, as in an unpacked release.
pub fn files() -> Result<Vec<PathBuf>> {
    if !is_checkout() {
        return files_below(&root());
    }
    let mut git = Command::new("git");
    // New files that are not ignored belong to the current change.
    git.args(["ls-files", "--cached", "--others", "--exclude-standard"]);
    let listed = output_of(git.current_dir(root())).context("list the files of the workspace")?;
    let files = listed.lines().map(PathBuf::from);
    Ok(files.filter(|file| root().join(file).is_file()).collect())
}

/// True in a git checkout.
#[must_use]
pub fn is_checkout() -> bool {
    root().join(".git").exists()
}

/// Files of a tree without generated directories, relative to its root.
pub fn files_below(root: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut directories = vec![PathBuf::new()];
    while let Some(directory) = directories.pop() {
        let place = root.join(&directory);
        for entry in fs::read_dir(&place).with_context(|| format!("list {}", place.display()))? {
            let entry = entry.context("read a directory")?;
            let file = directory.join(entry.file_name());
            if MADE.iter().any(|made| file == Path::new(made)) {
                continue;
            }
            if entry.file_type().context("look at an entry")?.is_dir() {
                directories.push(file);
            } else if entry.path().is_file() {
                files.push(file);
            }
        }
    }
    files.sort();
    Ok(files)
}
