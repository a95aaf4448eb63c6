//! dnsmasq's configuration as one of ours. What has a key is translated; what has none is listed with its file and line. Nothing is
//! left out without a word.
//!
//! ```text
//!  dnsmasq.conf and what it names ──► lines ──► taken: sections ──► output ──► the reader of configs
//!                                       └──► listed ◄── what it refuses, line by line ──┘
//! ```

mod addressed;
mod complete;
mod lines;
mod listed;
mod names;
mod output;
mod records;
mod taken;

use std::path::PathBuf;

use super::Devices;
use lines::{Line, Lines};
use taken::Draft;

/// A config, and what is not in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// The config. It is valid, unless nothing is left that it needs: then `listed` says what.
    pub config: String,
    /// What has no place in it, a line each, and what is to be looked at.
    pub listed: Vec<String>,
}

/// Translates these files, and those that they name, for a machine with these devices.
///
/// # Errors
/// One of them cannot be read, or is not dnsmasq's for sure.
pub fn import(paths: &[PathBuf], devices: &Devices) -> Result<Imported, String> {
    let Lines {
        lines,
        listed,
        files,
        ..
    } = Lines::read(paths)?;
    let mut draft = Draft::default();
    (draft.listed, draft.files) = (listed, files);
    for line in &lines {
        if let Err(why) = draft.take(line) {
            draft.listed.push(line.told(&why));
        }
    }
    draft.complete(devices);
    Ok(output::write(draft))
}

#[cfg(test)]
mod tests;
