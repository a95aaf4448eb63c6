//! Confinement: what an attacker in the process can still do, tried in the running one.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use hickory_proto::rr::RecordType;
use xdnsd_lab::wait::wait_until;

use crate::support::TIMEOUT;
use crate::support::client::Family;
use crate::support::daemon::Daemon;
use crate::support::message::{addresses, query};
use crate::support::run::only;
use crate::support::scene::{Scene, Setup, scene};
use crate::support::script::Rule;

/// Bits of capabilities (capabilities(7)).
const NET_RAW: u64 = 1 << 13;
const NET_ADMIN: u64 = 1 << 12;
const SYS_ADMIN: u64 = 1 << 21;
const PERFMON: u64 = 1 << 38;
const BPF: u64 = 1 << 39;

/// State of a thread in /proc.
#[derive(Debug)]
struct Thread {
    #[cfg_attr(
        not(target_arch = "x86_64"),
        expect(dead_code, reason = "nobody is traced")
    )]
    id: i32,
    name: String,
    lines: BTreeMap<String, String>,
}

impl Thread {
    fn all(daemon: &Daemon) -> Result<Vec<Self>> {
        let folder = format!("/proc/{}/task", daemon.pid());
        let read = |entry: std::io::Result<fs::DirEntry>| -> Result<Option<Self>> {
            let entry = entry?;
            let Ok(text) = fs::read_to_string(entry.path().join("status")) else {
                // It has ended meanwhile.
                return Ok(None);
            };
            let lines = text.lines().filter_map(|line| line.split_once(":\t"));
            let lines: BTreeMap<String, String> = lines
                .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
                .collect();
            Ok(Some(Self {
                id: entry.file_name().to_string_lossy().parse()?,
                name: lines.get("Name").cloned().unwrap_or_default(),
                lines,
            }))
        };
        let threads = fs::read_dir(folder)?.map(read);
        threads.filter_map(Result::transpose).collect()
    }

    fn says(&self, key: &str) -> &str {
        self.lines.get(key).map_or("", String::as_str)
    }

    fn rights(&self) -> Result<u64> {
        u64::from_str_radix(self.says("CapEff"), 16).context(self.name.clone())
    }
}

fn serves(scene: &Scene) -> Result<()> {
    let answer = scene
        .udp_client(Family::V4)?
        .ask(&query("www.test.", RecordType::A))?;
    ensure!(addresses(&answer) == ["192.0.2.1"]);
    Ok(())
}

fn set_up(scene: &Scene) -> Result<()> {
    scene
        .upstream
        .on("www.test.", Rule::addresses(300, &["192.0.2.1"]));
    serves(scene)
}

/// Each has a filter and no way to more rights; only the thread for interfaces has those that XDP takes.
#[test]
fn every_thread_has_the_rights_that_it_needs_and_no_others() -> Result<()> {
    only!(ONCE, "rights, whatever queries come by");
    let sections =
        "[statistics]\ninterval_secs = 60\n[cache]\nsnapshot = \"{directory}/state/cache\"\n";
    let scene = scene!(Setup::default().sections(sections));
    set_up(&scene)?;
    let mut found = Ok(());
    // A thread that was started just now has the name and the rights of its parent.
    let waited = wait_until("each thread has its rights", TIMEOUT, || {
        found = look_at_rights(&scene.daemon);
        found.is_ok()
    });
    found.and(waited)
}

fn look_at_rights(daemon: &Daemon) -> Result<()> {
    let own = daemon.pid().to_string();
    let mut seen = Vec::new();
    for thread in Thread::all(daemon)? {
        ensure!(thread.says("Seccomp") == "2", "{thread:?}");
        ensure!(thread.says("NoNewPrivs") == "1", "{thread:?}");
        let rights = thread.rights()?;
        let allowed = match thread.name.as_str() {
            "interfaces" => {
                ensure!(rights & BPF != 0, "{thread:?}");
                continue;
            }
            "log" | "statistics" => 0,
            name if name.starts_with("worker") => NET_RAW,
            // These make maps of prefixes.
            "control" | "control files" | "policy" => !(NET_RAW | NET_ADMIN | SYS_ADMIN | PERFMON),
            "snapshot" => !(NET_RAW | NET_ADMIN | SYS_ADMIN | PERFMON | BPF),
            _ if thread.id.to_string() == own => !(SYS_ADMIN | PERFMON | BPF),
            name => anyhow::bail!("a thread that nobody knows: {name}"),
        };
        ensure!(rights & !allowed == 0, "{thread:?}");
        seen.push(thread.name);
    }
    for name in [
        "log",
        "statistics",
        "worker 0",
        "control",
        "control files",
        "policy",
        "snapshot",
    ] {
        ensure!(seen.iter().any(|seen| seen == name), "no {name}: {seen:?}");
    }
    Ok(())
}

/// A folder that was replaced since the start is not ours: root could write there.
#[test]
fn files_are_written_in_the_folders_of_the_start_and_nowhere_else() -> Result<()> {
    only!(ONCE, "files, whatever queries come by");
    for (word, is_written) in [("on", false), ("off", true)] {
        let sections = format!(
            "[cache]\nsnapshot = \"{{directory}}-state/cache\"\n[security]\nlandlock = \"{word}\"\n"
        );
        let scene = scene!(Setup::default().sections(&sections));
        set_up(&scene)?;
        // Outside of the control socket's folder.
        let state = PathBuf::from(format!("{}-state", scene.directory.path().display()));
        scene.daemon.control("cache save")?;
        ensure!(state.join("cache").exists());
        fs::rename(&state, scene.directory.path().join("away"))?;
        fs::create_dir(&state)?;
        let saved = scene.daemon.control("cache save");
        let written = state.join("cache").exists();
        fs::remove_dir_all(&state)?;
        assert_eq!(written, is_written, "{word}: {saved:?}");
        if !is_written {
            let log = scene.daemon.log();
            let said = format!("{saved:?} {log}");
            ensure!(said.contains("Permission denied"), "{said}");
            ensure!(said.contains("(security.landlock)"), "{said}");
        }
        serves(&scene)?;
    }
    Ok(())
}

#[test]
fn seccomp_can_be_watched_and_switched_off() -> Result<()> {
    only!(ONCE, "rights, whatever queries come by");
    for (word, mode) in [("log", "2"), ("off", "0")] {
        let sections = format!("[security]\nseccomp = \"{word}\"\n");
        let scene = scene!(Setup::default().sections(&sections));
        set_up(&scene)?;
        for thread in Thread::all(&scene.daemon)? {
            assert_eq!(thread.says("Seccomp"), mode, "{word}: {thread:?}");
        }
    }
    Ok(())
}

/// Makes system calls in a thread of the daemon, like an intruder.
#[cfg(target_arch = "x86_64")]
mod intruder {
    use anyhow::{Result, bail, ensure};
    use nix::libc;
    use nix::sys::ptrace;
    use nix::sys::signal::Signal;
    use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
    use nix::unistd::Pid;

    /// The last bytes of a memory word with the instruction.
    const SYSCALL: [u8; 2] = [0x0f, 0x05];

    /// One for the call, and one that was still to be reported of the call before.
    const STEPS_MAX: usize = 3;

    /// Fate of a call.
    #[derive(Debug, PartialEq, Eq)]
    pub enum Fate {
        /// The filter: its signal, which ends the process, is held back here.
        Refused,
        /// The kernel carried it out, or returned an error.
        Made(i64),
    }

    /// A stopped thread that was waiting in a system call.
    pub struct Held {
        thread: Pid,
        registers: libc::user_regs_struct,
    }

    impl Held {
        /// `None` if it was not in a system call.
        pub fn take(thread: i32) -> Result<Option<Self>> {
            let thread = Pid::from_raw(thread);
            ptrace::attach(thread)?;
            let stopped = waitpid(thread, Some(WaitPidFlag::__WALL))?;
            ensure!(
                matches!(stopped, WaitStatus::Stopped(_, Signal::SIGSTOP)),
                "{stopped:?}"
            );
            let registers = ptrace::getregs(thread)?;
            let at = registers.rip - SYSCALL.len() as u64;
            let word = ptrace::read(thread, at as ptrace::AddressType)?.to_le_bytes();
            if word[..2] != SYSCALL {
                ptrace::detach(thread, None)?;
                return Ok(None);
            }
            Ok(Some(Self { thread, registers }))
        }

        /// Makes the thread call the kernel.
        pub fn call(&self, number: libc::c_long, arguments: [u64; 4]) -> Result<Fate> {
            let [rdi, rsi, rdx, r10] = arguments;
            let registers = libc::user_regs_struct {
                rip: self.registers.rip - SYSCALL.len() as u64,
                rax: number as u64,
                // No call to resume.
                orig_rax: u64::MAX,
                rdi,
                rsi,
                rdx,
                r10,
                ..self.registers
            };
            ptrace::setregs(self.thread, registers)?;
            for _ in 0..STEPS_MAX {
                ptrace::step(self.thread, None)?;
                let status = waitpid(self.thread, Some(WaitPidFlag::__WALL))?;
                if matches!(status, WaitStatus::Stopped(_, Signal::SIGSYS)) {
                    return Ok(Fate::Refused);
                }
                let is_step = matches!(status, WaitStatus::Stopped(_, Signal::SIGTRAP));
                ensure!(is_step, "{status:?}");
                let now = ptrace::getregs(self.thread)?;
                if now.rip != registers.rip {
                    return Ok(Fate::Made(now.rax.cast_signed()));
                }
                // The end of the last call's step.
            }
            bail!("system call {number} is not made")
        }

        /// Resumes the thread as if nothing had happened.
        pub fn let_go(self) -> Result<()> {
            ptrace::setregs(self.thread, self.registers)?;
            Ok(ptrace::detach(self.thread, None)?)
        }
    }
}

/// In the thread that parses bytes from outside. Afterwards it serves on: none of the calls was carried out.
#[cfg(target_arch = "x86_64")]
#[test]
fn who_has_a_worker_gets_no_further() -> Result<()> {
    use intruder::{Fate, Held};
    use nix::libc;

    only!(ONCE, "rights, whatever queries come by");
    let scene = scene!(Setup::default());
    set_up(&scene)?;
    let word = |number: i32| u64::from(number as u32);
    let exec = word(libc::PROT_READ | libc::PROT_EXEC);
    let private = word(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    let refused = [
        ("execve", libc::SYS_execve, [0; 4]),
        ("fork", libc::SYS_clone, [word(libc::SIGCHLD), 0, 0, 0]),
        ("vfork", libc::SYS_vfork, [0; 4]),
        ("kill", libc::SYS_kill, [1, 0, 0, 0]),
        ("ptrace", libc::SYS_ptrace, [word(16), 1, 0, 0]),
        ("mount", libc::SYS_mount, [0; 4]),
        (
            "unshare",
            libc::SYS_unshare,
            [word(libc::CLONE_NEWNS), 0, 0, 0],
        ),
        ("setns", libc::SYS_setns, [0; 4]),
        ("setresuid", libc::SYS_setresuid, [0; 4]),
        (
            "packets",
            libc::SYS_socket,
            [word(libc::AF_PACKET), word(libc::SOCK_RAW), 0, 0],
        ),
        ("code", libc::SYS_mmap, [0, 4096, exec, private]),
        ("other programs", libc::SYS_bpf, [11, 0, 0, 0]),
        ("modules", libc::SYS_finit_module, [0; 4]),
        ("io_uring", libc::SYS_io_uring_setup, [1, 0, 0, 0]),
    ];
    let mut held = None;
    wait_until("a worker waits", TIMEOUT, || {
        let threads = Thread::all(&scene.daemon).unwrap_or_default();
        let worker = threads.iter().find(|thread| thread.name == "worker 0");
        held = worker.and_then(|worker| Held::take(worker.id).ok()?);
        held.is_some()
    })?;
    let held = held.context("a worker")?;
    let fates: Result<Vec<_>> = refused
        .iter()
        .map(|&(name, number, arguments)| Ok((name, held.call(number, arguments)?)))
        .collect();
    // Shows that calls are made at all.
    let own = held.call(libc::SYS_getpid, [0; 4])?;
    held.let_go()?;
    for (name, fate) in fates? {
        assert_eq!(fate, Fate::Refused, "{name}");
    }
    assert_eq!(own, Fate::Made(scene.daemon.pid().into()));
    serves(&scene)
}
