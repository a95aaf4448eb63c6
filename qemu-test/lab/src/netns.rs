//! Network namespaces: made, entered by threads and by child processes, and removed with their last user.
//!
//! An unnamed namespace is held only by a file descriptor, so that nothing is left behind even if the process is killed. A named
//! one is found by `ip netns exec NAME` and outlives the process.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio, id};
use std::thread;

use anyhow::{Context, Result, anyhow};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

use crate::process::{check, output_of};

/// Directory of the `ip` command's named namespaces.
const NAMED: &str = "/run/netns";

/// A network namespace. Dropping it and its clones frees an unnamed one; a named one stays until [`Namespace::delete`].
#[derive(Clone, Debug)]
pub struct Namespace {
    name: Option<String>,
    /// Shared with the `pre_exec` closures of commands, which may outlive this value.
    file: std::sync::Arc<File>,
}

impl Namespace {
    /// A new namespace that lives as long as this value and the processes in it.
    pub fn unnamed() -> Result<Self> {
        let opened = thread::spawn(|| -> io::Result<File> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            File::open("/proc/thread-self/ns/net")
        });
        let file = opened
            .join()
            .map_err(|_| anyhow!("the thread that makes a namespace panicked"))?;
        let file = file.context("make a network namespace (unshare CLONE_NEWNET)")?;
        Ok(Self {
            name: None,
            file: file.into(),
        })
    }

    /// A new namespace that `ip netns exec NAME` finds. Fails if the name exists: that one is not ours.
    pub fn named(name: &str) -> Result<Self> {
        output_of(Command::new("ip").args(["netns", "add", name]))?;
        Self::open(name)
    }

    /// Opens an existing namespace by name.
    pub fn open(name: &str) -> Result<Self> {
        let path = PathBuf::from(NAMED).join(name);
        let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        Ok(Self {
            name: Some(name.to_owned()),
            file: file.into(),
        })
    }

    /// True if a namespace of this name exists.
    #[must_use]
    pub fn exists(name: &str) -> bool {
        PathBuf::from(NAMED).join(name).exists()
    }

    /// Removes the name. The namespace itself ends with its last process.
    pub fn delete(name: &str) -> Result<()> {
        output_of(Command::new("ip").args(["netns", "delete", name])).map(drop)
    }

    /// Name for `ip netns exec`, if it has one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Path for `ip link … netns PATH`; valid while this value lives.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", id(), self.file.as_raw_fd())
    }

    /// A command that will run inside, with the namespace's own `/sys`.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        self.enter_on_exec(&mut command);
        command
    }

    /// Makes `command` run inside.
    pub fn enter_on_exec(&self, command: &mut Command) {
        let file = self.file.clone();
        // SAFETY: the closure runs in the forked child, where only async-signal-safe calls are allowed. `enter` makes
        // four system calls on constants and on a descriptor that the closure keeps open; it takes no lock and does
        // not allocate (nix copies short paths to the stack, and an errno becomes an io::Error without a box).
        unsafe {
            command.pre_exec(move || Ok(enter(file.as_fd())?));
        }
    }

    /// Runs `work` on a thread inside, and returns its result. Sockets that it makes stay inside wherever they are used later,
    /// and threads that it starts are inside, too.
    ///
    /// # Panics
    /// If `work` panics, or if the namespace cannot be entered.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let joined = thread::scope(|scope| {
            let inside = || {
                enter(self.file.as_fd()).expect("root may enter a namespace that it made");
                work()
            };
            scope.spawn(inside).join()
        });
        joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Runs a command to its end and returns its output; an error has the command and its error output.
    pub fn output(&self, arguments: &[&str]) -> Result<String> {
        let (program, rest) = arguments
            .split_first()
            .context("a command needs a program")?;
        output_of(self.command(program).args(rest))
    }

    /// Runs lines of the `ip` command (without the word `ip`); an error has the lines.
    pub fn ip(&self, script: &str) -> Result<()> {
        let mut command = self.command("ip");
        command
            .args(["-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().context("run ip (package iproute2)")?;
        let mut stdin = child.stdin.take().context("ip has a standard input")?;
        stdin
            .write_all(script.as_bytes())
            .context("write to ip -batch")?;
        drop(stdin);
        let output = child.wait_with_output().context("wait for ip -batch")?;
        check(&format!("ip -batch of\n{script}"), &output)
    }

    /// Writes a file under `/proc/sys` or `/sys` as the namespace sees it.
    pub fn write(&self, path: &str, value: &str) -> Result<()> {
        self.run(|| std::fs::write(path, value))
            .with_context(|| format!("write {value:?} to {path}"))
    }

    /// A counter of the kernel's network stack by group and name, such as `Tcp` and `InSegs` (RFC 1213).
    pub fn snmp(&self, group: &str, name: &str) -> Result<u64> {
        let text = self.read("/proc/thread-self/net/snmp")?;
        let counter = || {
            let mut rows = text
                .lines()
                .filter_map(|line| line.strip_prefix(group)?.strip_prefix(": "));
            let (names, values) = (rows.next()?, rows.next()?);
            let mut both = names.split(' ').zip(values.split(' '));
            both.find(|(column, _)| *column == name)?.1.parse().ok()
        };
        counter().with_context(|| format!("the kernel counts {group} {name}"))
    }

    /// Reads a file under `/proc` or `/sys` as the namespace sees it.
    pub fn read(&self, path: &str) -> Result<String> {
        self.run(|| std::fs::read_to_string(path))
            .with_context(|| format!("read {path}"))
    }
}

/// Moves the calling thread into a network namespace and gives it the `/sys` of that namespace, as `ip netns exec` does.
fn enter(namespace: BorrowedFd) -> nix::Result<()> {
    const NONE: Option<&str> = None;
    setns(namespace, CloneFlags::CLONE_NEWNET)?;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(NONE, "/", NONE, MsFlags::MS_SLAVE | MsFlags::MS_REC, NONE)?;
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), NONE)
}
