//! Runs external programs to their end.

use std::process::Command;

use anyhow::{Context, Result, bail};

/// Runs `command`; an error has its output.
pub fn run(command: &mut Command) -> Result<()> {
    bytes(command).map(drop)
}

/// Runs `command` and returns its raw standard output.
pub fn bytes(command: &mut Command) -> Result<Vec<u8>> {
    let name = command.get_program().to_string_lossy().into_owned();
    let done = command
        .output()
        .with_context(|| format!("start {name} (`cargo xtask setup` installs it)"))?;
    if !done.status.success() {
        bail!(
            "{command:?} ended with {}:\n{}",
            done.status,
            String::from_utf8_lossy(&done.stderr)
        );
    }
    Ok(done.stdout)
}
