//! The repository's record of measurements.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::workspace;
use xdnsd_lab::process::output_of;

/// Adds a table to the record, with its context, such as the command line.
pub fn save(table: &str) -> Result<()> {
    let path = workspace::root().join("qemu-test/BENCH.md");
    let old = read_or_empty(&path)?;
    let table: String = table
        .lines()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect();
    let text = format!("{old}\n{}\n```text\n{table}```\n", heading()?);
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))
}

/// Heading with date, commit, kernel and command.
pub fn heading() -> Result<String> {
    let date = output_of(Command::new("date").args(["-u", "+%F"]))?;
    let revision = output_of(
        Command::new("git")
            .args(["rev-parse", "--short", "HEAD"])
            .current_dir(workspace::root()),
    )?;
    let release = output_of(Command::new("uname").arg("-r"))?;
    let words: Vec<_> = env::args().skip(1).collect();
    Ok(format!(
        "## {}, {}, Linux {}\n\n`cargo xtask {}`\n",
        date.trim(),
        revision.trim(),
        version(&release),
        words.join(" ")
    ))
}

/// Major and minor version of a kernel release; the rest is specific to a machine.
fn version(release: &str) -> &str {
    let mut dots = release.match_indices('.');
    let end = dots.nth(1).map_or(release.len(), |(at, _)| at);
    release[..end].trim()
}

fn read_or_empty(path: &Path) -> Result<String> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Ok("# Measurements\n".to_owned())
        }
        read => read.with_context(|| format!("read {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn a_machines_name_in_the_release_is_left_out() {
        assert_eq!(version("6.18.44-somewhere-7\n"), "6.18");
        assert_eq!(version("7.2\n"), "7.2");
    }
}
