//! A lab whose namespaces have names, for people and for `ip netns exec`.
//!
//! A file in `/run/xdnsd-labs` marks the lab as ours, with its lifetime: only labs with such a file are ever removed.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::bridge::BridgeSpec;
use super::{Host, Lab, Spec};
use crate::netns::Namespace;
use crate::privilege::require_root;
use crate::process::output_of;

/// One file per named lab, with its owner.
const REGISTER: &str = "/run/xdnsd-labs";
/// Content of the file for a lab that stays until it is taken down.
const UNTIL_DOWN: &str = "until down";
/// Names of namespaces are names of files; a short prefix keeps command lines readable.
const PREFIX_LEN_MAX: usize = 40;

/// Lifetime of a named lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// Until `cargo xtask lab down`.
    UntilDown,
    /// Until this value is dropped. If the process is killed before that, the next `up` or `down` removes it.
    ThisProcess,
}

/// A lab that `ip netns exec PREFIX-client …` finds.
#[derive(Debug)]
pub struct NamedLab {
    prefix: String,
    lifetime: Lifetime,
    lab: Lab,
}

impl NamedLab {
    /// Makes the namespaces `PREFIX-client`, `PREFIX-router` and `PREFIX-upstream`, and those of a bridge's stations.
    pub fn up(prefix: &str, spec: &Spec, lifetime: Lifetime) -> Result<Self> {
        require_root("the lab")?;
        check_prefix(prefix)?;
        spec.check()?;
        if is_registered(prefix) {
            ensure!(
                owner_is_gone(prefix),
                "the lab {prefix} is up already: `cargo xtask lab down --prefix {prefix}` removes it"
            );
            remove(prefix)?;
        }
        for name in names(prefix) {
            ensure!(
                !Namespace::exists(&name),
                "a namespace {name} exists and is not ours: choose another prefix"
            );
        }
        register(prefix, lifetime)?;
        match Lab::build(spec, |host| Namespace::named(&format!("{prefix}-{host}"))) {
            Ok(lab) => Ok(Self {
                prefix: prefix.to_owned(),
                lifetime,
                lab,
            }),
            Err(error) => {
                remove(prefix).context("clean up after a lab that could not be made")?;
                Err(error)
            }
        }
    }

    /// The lab itself.
    #[must_use]
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// Prefix of its namespaces.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }
}

impl Drop for NamedLab {
    fn drop(&mut self) {
        match self.lifetime {
            Lifetime::UntilDown => (),
            Lifetime::ThisProcess => {
                if let Err(error) = remove(&self.prefix) {
                    eprintln!("the lab {} is not wholly removed: {error:#}", self.prefix);
                }
            }
        }
    }
}

/// Removes a lab that [`NamedLab::up`] made, and nothing else. Returns the processes that still run in it: the kernel frees a
/// namespace only with its last process.
pub fn down(prefix: &str) -> Result<Vec<u32>> {
    require_root("the lab")?;
    check_prefix(prefix)?;
    ensure!(
        is_registered(prefix),
        "no lab {prefix} is up (nothing in {REGISTER})"
    );
    let mut pids = Vec::new();
    for name in existing(prefix) {
        pids.extend(pids_in(&name)?);
    }
    remove(prefix)?;
    Ok(pids)
}

/// Namespace of a host of a lab that is up.
pub fn host(prefix: &str, host: Host) -> Result<Namespace> {
    require_root("the lab")?;
    check_prefix(prefix)?;
    ensure!(
        is_registered(prefix),
        "no lab {prefix} is up: `cargo xtask lab up --prefix {prefix}` makes it"
    );
    Namespace::open(&namespace_name(prefix, host))
}

/// Prefixes of the named labs on this machine.
pub fn all() -> Result<Vec<String>> {
    let entries = match fs::read_dir(REGISTER) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).context(format!("read {REGISTER}")),
    };
    let mut prefixes = Vec::new();
    for entry in entries {
        prefixes.push(
            entry
                .context("read the register of labs")?
                .file_name()
                .to_string_lossy()
                .into_owned(),
        );
    }
    prefixes.sort();
    Ok(prefixes)
}

/// Name of a host's namespace.
#[must_use]
pub fn namespace_name(prefix: &str, host: Host) -> String {
    format!("{prefix}-{}", host.name())
}

fn check_prefix(prefix: &str) -> Result<()> {
    let is_plain = prefix
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let has_len = (1..=PREFIX_LEN_MAX).contains(&prefix.len());
    ensure!(
        is_plain && has_len,
        "prefix {prefix:?}: 1 to {PREFIX_LEN_MAX} letters, digits and hyphens"
    );
    Ok(())
}

fn register_path(prefix: &str) -> PathBuf {
    PathBuf::from(REGISTER).join(prefix)
}

fn is_registered(prefix: &str) -> bool {
    register_path(prefix).exists()
}

fn register(prefix: &str, lifetime: Lifetime) -> Result<()> {
    fs::create_dir_all(REGISTER).with_context(|| format!("create {REGISTER}"))?;
    let path = register_path(prefix);
    let owner = match lifetime {
        Lifetime::UntilDown => UNTIL_DOWN.to_owned(),
        Lifetime::ThisProcess => {
            identity(std::process::id()).context("this process is in /proc")?
        }
    };
    // create_new: of two processes that start at once, one gets the prefix.
    let file = OpenOptions::new().write(true).create_new(true).open(&path);
    let mut file = file.with_context(|| format!("create {}", path.display()))?;
    file.write_all(owner.as_bytes())
        .with_context(|| format!("write {}", path.display()))
}

fn owner_is_gone(prefix: &str) -> bool {
    let owner = fs::read_to_string(register_path(prefix)).unwrap_or_default();
    if owner.is_empty() || owner == UNTIL_DOWN {
        return false;
    }
    let pid = owner.split(' ').next().and_then(|pid| pid.parse().ok());
    pid.and_then(identity)
        .is_none_or(|identity| identity != owner)
}

/// A PID and its start time: PIDs are reused, the pair is unique.
fn identity(pid: u32) -> Option<String> {
    /// Fields after the command's closing parenthesis in `/proc/PID/stat`; `starttime` is field 22 overall (proc(5)).
    const START_TIME_AFTER_NAME: usize = 19;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(") ")?;
    let start_time = after_name.split(' ').nth(START_TIME_AFTER_NAME)?;
    Some(format!("{pid} {start_time}"))
}

/// Names of all namespaces that a lab may have.
fn names(prefix: &str) -> impl Iterator<Item = String> {
    let hosts = Host::ALL.map(|host| host.name().to_owned());
    let hosts = hosts.into_iter().chain(BridgeSpec::names());
    hosts.map(move |host| format!("{prefix}-{host}"))
}

fn existing(prefix: &str) -> Vec<String> {
    names(prefix)
        .filter(|name| Namespace::exists(name))
        .collect()
}

fn remove(prefix: &str) -> Result<()> {
    for name in existing(prefix) {
        Namespace::delete(&name)?;
    }
    let path = register_path(prefix);
    fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))
}

fn pids_in(name: &str) -> Result<Vec<u32>> {
    let pids = output_of(Command::new("ip").args(["netns", "pids", name]))?;
    Ok(pids
        .lines()
        .filter_map(|line| line.trim().parse().ok())
        .collect())
}
