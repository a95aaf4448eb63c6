//! Builds the measured programs as they ship: release profile, once with each backend.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::subject::{Backend, Kind};
use crate::progress::{Task, watch};
use crate::signals::Signals;
use crate::workspace;

/// Time limit of a build with fat link-time optimisation.
const LIMIT: Duration = Duration::from_secs(30 * 60);

/// The built programs.
#[derive(Clone, Debug)]
pub struct Programs {
    own: PathBuf,
    with_crate: PathBuf,
    /// The appliance, if another than the one built here.
    appliance: Option<PathBuf>,
}

impl Programs {
    /// Builds the programs that `kinds` need.
    pub fn build(kinds: &[Kind], signals: &Signals) -> Result<Self> {
        let programs = Self::at(workspace::target());
        programs.build_one(Backend::Own, signals)?;
        if kinds.iter().any(|kind| backend(*kind) == Backend::Crate) {
            programs.build_one(Backend::Crate, signals)?;
        }
        Ok(programs)
    }

    /// An appliance that was built before.
    #[must_use]
    pub fn built(appliance: PathBuf) -> Self {
        Self::at(workspace::target()).with_appliance(appliance)
    }

    fn at(target: PathBuf) -> Self {
        Self {
            // Separate directories, so that the two builds do not overwrite each other.
            with_crate: target.join("afxdp"),
            own: target,
            appliance: None,
        }
    }

    /// The programs, with another appliance.
    #[must_use]
    pub fn with_appliance(self, appliance: PathBuf) -> Self {
        Self {
            appliance: Some(appliance),
            ..self
        }
    }

    /// Path of a subject's program.
    #[must_use]
    pub fn path(&self, kind: Kind) -> PathBuf {
        let release = self.directory(backend(kind)).join("release");
        match kind {
            Kind::Echo(_) => release.join("examples/xsk_echo"),
            Kind::KernelEcho => release.join("examples/udp_echo"),
            Kind::Appliance(_) => {
                let built = || release.join("xdnsd");
                self.appliance.clone().unwrap_or_else(built)
            }
        }
    }

    fn directory(&self, backend: Backend) -> &PathBuf {
        match backend {
            Backend::Own => &self.own,
            Backend::Crate => &self.with_crate,
        }
    }

    fn build_one(&self, backend: Backend, signals: &Signals) -> Result<()> {
        let (what, features) = match backend {
            Backend::Own => ("bench-build", None),
            Backend::Crate => ("bench-build-afxdp", Some("--features=afxdp")),
        };
        let mut command = workspace::cargo();
        command
            .args([
                "build",
                "--release",
                "--package=xdnsd",
                "--bins",
                "--examples",
            ])
            .args(features)
            .arg("--target-dir")
            .arg(self.directory(backend));
        let log = workspace::logs().join(format!("{what}.log"));
        let task = Task {
            what,
            log: &log,
            limit: LIMIT,
        };
        let watched = watch(task, command, signals)?;
        ensure!(
            watched.is_success(),
            "{what} failed; all of it is in {}:\n{}",
            watched.log.display(),
            watched.output
        );
        Ok(())
    }
}

fn backend(kind: Kind) -> Backend {
    match kind {
        Kind::Echo(backend) | Kind::Appliance(backend) => backend,
        Kind::KernelEcho => Backend::Own,
    }
}
