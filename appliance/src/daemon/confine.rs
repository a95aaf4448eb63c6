//! Confinement of the process from its start on: which system calls it may make, and where it may write.
//!
//! ```text
//!  config read ─► folders made and opened ─► Landlock: this thread and those to come ─► seccomp: all threads ─► the first thread
//! ```
//! Somebody who has broken in would want to run a program, control another process, read another's files or run code of his
//! own.
//! All of these are denied, whatever else the account may do.

use std::io;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use log::{info, warn};

use crate::config::{Config, LandlockWord, SeccompWord, SynCookiesWord};
use crate::os::landlock::{self, Reach, WritablePath};
use crate::os::system_calls::{self, Caller, DeniedCall};
use crate::os::{holder, keeper, notify, sysctl, threads};

/// Timeout for finding the folders: one may be on a file system that does not answer.
const FOLDERS_MAX: Duration = Duration::from_secs(3);

/// Drops what serving does not need, as `[security]` of the config says. Logs what cannot be dropped and goes on with it.
pub fn confine(config: &Config) {
    if config.security.landlock == LandlockWord::On {
        let ports = config.interfaces.iter().map(|interface| interface.port);
        holder::remember(&ports.collect::<Vec<_>>());
        match restrict_files(config) {
            Ok(()) => {}
            Err(error) if landlock::is_missing(&error) => {
                info!(
                    "security.landlock: this kernel has no Landlock; files are as the account's rights say"
                );
            }
            Err(error) => {
                warn!("security.landlock: files are as the account's rights say: {error}")
            }
        }
    }
    let otherwise = match config.security.seccomp {
        SeccompWord::On => DeniedCall::End,
        SeccompWord::Log => DeniedCall::Log,
        SeccompWord::Off => return,
    };
    let caller = match keeper::is_there() {
        true => Caller::WithoutRights,
        false => Caller::WithRights,
    };
    match system_calls::restrict(otherwise, caller) {
        Ok(()) => {}
        Err(error) if system_calls::is_missing(&error) => {
            info!(
                "security.seccomp: this kernel has no filters, or there is no list for this processor; all system calls can be made"
            );
        }
        Err(error) => warn!("security.seccomp: all system calls can be made: {error}"),
    }
}

fn restrict_files(config: &Config) -> io::Result<()> {
    let written = WrittenFiles::of(config);
    let (found, places) = mpsc::channel();
    // The thread may wait for ever; then it is left behind.
    let find = threads::builder("folders").spawn(move || {
        let _ = found.send(written.places());
    })?;
    let places = places
        .recv_timeout(FOLDERS_MAX)
        .map_err(|_| io::Error::other("the folders that are written to do not answer"))?;
    // Its stack is freed before others are made.
    let _ = find.join();
    let reach = match notify::is_abstract() {
        true => Reach::AbstractSockets,
        false => Reach::Paths,
    };
    landlock::restrict(&places, reach)
}

/// Files that this process creates or writes.
struct WrittenFiles {
    /// Files; temporary ones are made beside them.
    files: Vec<Box<Path>>,
    /// File that keeps the kernel's original settings.
    state: Option<Box<Path>>,
    gives_cookies: bool,
}

impl WrittenFiles {
    fn of(config: &Config) -> Self {
        let files = [
            config.cache.snapshot.as_deref(),
            config.control.socket.as_deref(),
        ];
        Self {
            files: files.into_iter().flatten().map(Box::from).collect(),
            state: config.shield.state_file.as_deref().map(Box::from),
            gives_cookies: config.shield.syn_cookies != SynCookiesWord::Off,
        }
    }

    /// Paths that exist or can be made. Failures are reported by the code that writes to them.
    fn places(mut self) -> Vec<WritablePath> {
        // A killed process may have left settings to restore.
        let is_left = |state: &Path| state.symlink_metadata().is_ok();
        let sets = self.gives_cookies || self.state.as_deref().is_some_and(is_left);
        self.files.extend(self.state.filter(|_| sets));
        let folders = self.files.iter();
        let mut places: Vec<WritablePath> = folders
            .filter_map(|file| WritablePath::folder_of(file).ok())
            .collect();
        if sets {
            let files = sysctl::FOR_COOKIES.map(|name| {
                let setting = sysctl::Sysctl::named(name);
                WritablePath::file_of_the_kernel(setting.path()).ok()
            });
            places.extend(files.into_iter().flatten());
        }
        places
    }
}
