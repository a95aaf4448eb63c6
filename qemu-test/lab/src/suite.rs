//! Programs of a newer Debian than this machine's, unpacked beside it: nothing of it is installed, and only the programs called
//! here run.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::netns::Namespace;
use crate::process::output_of;
use crate::programs::unpacked_root;

/// The suite with the newest packages.
pub const SUITE: &str = "sid";
/// Packages that are unpacked, with their dependencies.
pub const PACKAGES: &str = "knot,unbound,dnsmasq-base";
/// The last program to be unpacked: if it exists, all do.
const SIGN: &str = "usr/sbin/knotd";

/// An unpacked suite.
#[derive(Clone, Debug)]
pub struct Suite {
    root: PathBuf,
}

impl Suite {
    /// Directory that it is unpacked to.
    #[must_use]
    pub fn root() -> PathBuf {
        unpacked_root(SUITE)
    }

    /// The suite, if it is unpacked.
    #[must_use]
    pub fn find() -> Option<Self> {
        let root = Self::root();
        root.join(SIGN).is_file().then_some(Self { root })
    }

    /// Command for one of its servers, in `host`, with the suite's own libraries.
    #[must_use]
    pub fn command(&self, host: &Namespace, program: &str) -> Command {
        let (loader, words) = self.loaded(program);
        let mut command = host.command(loader);
        command.args(words);
        command
    }

    /// A server's version, from the first line of its output.
    ///
    /// # Errors
    /// The program failed.
    pub fn version(&self, program: &str) -> Result<String> {
        let (loader, words) = self.loaded(program);
        let ask = match program {
            "dnsmasq" => "-v",
            _ => "-V",
        };
        let said = output_of(Command::new(loader).args(words).arg(ask))?;
        version_in(&said).with_context(|| format!("{program} {ask} names no version:\n{said}"))
    }

    /// The suite's dynamic loader, and its arguments: library path and program.
    fn loaded(&self, program: &str) -> (PathBuf, [PathBuf; 3]) {
        let libraries = format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH);
        let loader = match std::env::consts::ARCH {
            "aarch64" => format!("{libraries}/ld-linux-aarch64.so.1"),
            _ => format!("{libraries}/ld-linux-x86-64.so.2"),
        };
        let server = Path::new("usr/sbin").join(program);
        let words = [
            PathBuf::from("--library-path"),
            self.root.join(libraries),
            self.root.join(server),
        ];
        (self.root.join(loader), words)
    }
}

/// The first word of digits with dots.
fn version_in(said: &str) -> Option<String> {
    let mut words = said.split([' ', '\n', ',']);
    let is_version = |word: &&str| {
        word.starts_with(|letter: char| letter.is_ascii_digit()) && word.contains('.')
    };
    words.find(is_version).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::version_in;

    #[test]
    fn a_version_is_the_first_number_with_dots() {
        for (said, version) in [
            ("knotd, Knot DNS 3.5.8\n\nQuery", "3.5.8"),
            ("Version 1.26.2\n\nConfigure line", "1.26.2"),
            ("Dnsmasq version 2.93  Copyright (c) 2000-2026", "2.93"),
        ] {
            assert_eq!(version_in(said).as_deref(), Some(version));
        }
        assert_eq!(version_in("no such thing"), None);
    }
}
