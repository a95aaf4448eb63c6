//! Confinement: what an attacker in the process can still do, tried in the running one.

#[cfg(target_arch = "x86_64")]
mod reach;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use hickory_proto::rr::RecordType;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use xdnsd::control::memory::Capacities;
use xdnsd_lab::wait::wait_until;

use crate::lifecycle::PROGRAM_BYTES;
use crate::support::TIMEOUT;
use crate::support::client::Family;
use crate::support::daemon::{Daemon, peak_memory};
use crate::support::message::{addresses, query};
use crate::support::run::{Run, only};
use crate::support::scene::{Scene, Setup, scene};
use crate::support::script::Rule;

/// Bits of capabilities (capabilities(7)).
const NET_RAW: u64 = 1 << 13;
const NET_ADMIN: u64 = 1 << 12;
const SYS_ADMIN: u64 = 1 << 21;
const PERFMON: u64 = 1 << 38;
const BPF: u64 = 1 << 39;
const NET_BIND_SERVICE: u64 = 1 << 10;

/// Has the rights be a process of their own.
const KEEPER: &str = "[security]\nkeeper = true\n";
/// The other backend makes its sockets itself, which takes rights.
const MAY_HAVE_KEEPER: bool = cfg!(not(feature = "afxdp"));

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
        Self::of(daemon.pid())
    }

    /// Threads of a process.
    fn of(pid: u32) -> Result<Vec<Self>> {
        let folder = format!("/proc/{pid}/task");
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
        self.set("CapEff")
    }

    /// A set of capabilities.
    fn set(&self, name: &str) -> Result<u64> {
        u64::from_str_radix(self.says(name), 16).context(self.name.clone())
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

/// The keeper of a daemon: its only child.
fn keeper_of(daemon: &Daemon) -> Result<u32> {
    let parent = format!("PPid:\t{}\n", daemon.pid());
    let is_child = |pid: &u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status"));
        status.is_ok_and(|status| status.contains(&parent))
    };
    let entries =
        fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut processes = entries.filter_map(|name| name.parse().ok());
    processes.find(is_child).context("no keeper")
}

/// With a keeper: whatever the thread does, and with all that takes a right in use.
#[test]
fn a_server_with_a_keeper_has_no_right_in_any_thread() -> Result<()> {
    only!(ONCE, "rights, whatever queries come by");
    if !MAY_HAVE_KEEPER {
        return Ok(());
    }
    let sections = format!(
        "{KEEPER}[statistics]\ninterval_secs = 60\n[cache]\nsnapshot = \"{{directory}}/state/cache\"\ntier0 = \"on\"\n\
         [shield]\nsyn_cookies = \"always\"\ndeny = [\"198.51.100.0/24\"]\n[rate_limit]\nqueries = 1000\nmisses = 1000\n"
    );
    let scene = scene!(Setup::default().sections(&sections));
    set_up(&scene)?;
    assert_eq!(scene.attached()?, Run::this().attached());
    let no_rights = || -> Result<()> {
        for thread in Thread::all(&scene.daemon)? {
            for set in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
                ensure!(thread.set(set)? == 0, "{set}: {thread:?}");
            }
            ensure!(thread.says("Seccomp") == "2", "{thread:?}");
            ensure!(thread.says("NoNewPrivs") == "1", "{thread:?}");
        }
        Ok(())
    };
    no_rights()?;
    let keeper = keeper_of(&scene.daemon)?;
    let together = scene.daemon.peak_memory()? + peak_memory(keeper)?;
    let budget = Capacities::DEFAULT.budget() - PROGRAM_BYTES;
    ensure!(together <= budget, "{together} bytes");
    let keeper = Thread::of(keeper)?;
    let names: Vec<&str> = keeper.iter().map(|thread| thread.name.as_str()).collect();
    ensure!(names == ["keeper", "keeper sockets"], "{names:?}");
    for thread in keeper {
        // No group is to have the control socket, so nobody gives it away.
        let kept = match thread.name.as_str() {
            "keeper" => NET_ADMIN | BPF | PERFMON,
            _ => NET_ADMIN | NET_RAW | NET_BIND_SERVICE,
        };
        assert_eq!(thread.rights()?, kept, "{thread:?}");
        assert_eq!(thread.set("CapPrm")?, kept, "{thread:?}");
        ensure!(thread.says("Seccomp") == "2", "{thread:?}");
        ensure!(thread.says("NoNewPrivs") == "1", "{thread:?}");
    }
    Ok(())
}

/// The kernel would go on to give queries to a server whose interfaces nobody follows any more.
#[test]
fn a_keeper_and_its_server_end_together_and_a_restart_has_both() -> Result<()> {
    only!(ONCE, "rights, whatever queries come by");
    if !MAY_HAVE_KEEPER {
        return Ok(());
    }
    let mut scene = scene!(Setup::default().sections(KEEPER));
    set_up(&scene)?;
    let keeper = keeper_of(&scene.daemon)?;
    kill(Pid::from_raw(keeper.cast_signed()), Signal::SIGKILL)?;
    let status = scene.daemon.wait_exit()?;
    assert_eq!(status.code(), Some(1), "{status:?}");
    let said =
        "the process that keeps the rights (security.keeper) has ended, and so does this one";
    assert_eq!(scene.daemon.log().matches(said).count(), 1);
    assert_eq!(scene.attached()?, "", "its program has gone with it");
    scene.daemon.start_again(&scene.lab)?;
    serves(&scene)?;
    let keeper = keeper_of(&scene.daemon)?;
    scene.daemon.kill()?;
    wait_until("the keeper ends as well", TIMEOUT, || {
        fs::exists(format!("/proc/{keeper}")).is_ok_and(|is_there| !is_there)
    })
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

        /// Writes bytes below the stack of the thread, and gives their address.
        pub fn write(&self, bytes: &[u8]) -> Result<u64> {
            // Beyond the red zone of the ABI.
            let at = (self.registers.rsp - 4096) & !7;
            for (index, chunk) in bytes.chunks(8).enumerate() {
                let mut word = [0; 8];
                word[..chunk.len()].copy_from_slice(chunk);
                let to = at + 8 * index as u64;
                let word = i64::from_le_bytes(word);
                ptrace::write(self.thread, to as ptrace::AddressType, word)?;
            }
            Ok(at)
        }

        /// Resumes the thread as if nothing had happened.
        pub fn let_go(self) -> Result<()> {
            ptrace::setregs(self.thread, self.registers)?;
            Ok(ptrace::detach(self.thread, None)?)
        }
    }
}

/// Calls that no thread may make, with their names.
#[cfg(target_arch = "x86_64")]
fn refused() -> Vec<(&'static str, nix::libc::c_long, [u64; 4])> {
    use nix::libc;

    let word = |number: i32| u64::from(number as u32);
    let exec = word(libc::PROT_READ | libc::PROT_EXEC);
    let private = word(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    vec![
        ("execve", libc::SYS_execve, [0; 4]),
        ("fork", libc::SYS_clone, [word(libc::SIGCHLD), 0, 0, 0]),
        ("vfork", libc::SYS_vfork, [0; 4]),
        ("kill", libc::SYS_kill, [1, 0, 0, 0]),
        ("ptrace", libc::SYS_ptrace, [word(16), 1, 0, 0]),
        ("memory", libc::SYS_process_vm_writev, [1, 0, 0, 0]),
        ("mount", libc::SYS_mount, [0; 4]),
        (
            "unshare",
            libc::SYS_unshare,
            [word(libc::CLONE_NEWNS), 0, 0, 0],
        ),
        ("setns", libc::SYS_setns, [0; 4]),
        ("setuid", libc::SYS_setuid, [0; 4]),
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
    ]
}

/// Those that take a right, and that a server with a keeper does not make either.
#[cfg(target_arch = "x86_64")]
fn refused_without_rights() -> [(&'static str, nix::libc::c_long, [u64; 4]); 4] {
    use nix::libc;

    let xdp = [libc::AF_XDP as u64, libc::SOCK_RAW as u64, 0, 0];
    [
        ("a map", libc::SYS_bpf, [0, 0, 0, 0]),
        ("a program", libc::SYS_bpf, [5, 0, 0, 0]),
        ("an attachment", libc::SYS_bpf, [28, 0, 0, 0]),
        ("AF_XDP", libc::SYS_socket, xdp),
    ]
}

/// The first worker of a scene, stopped in a system call.
#[cfg(target_arch = "x86_64")]
fn hold_worker(scene: &Scene) -> Result<intruder::Held> {
    hold(scene.daemon.pid(), "worker 0")
}

/// A thread of a process, by its name.
#[cfg(target_arch = "x86_64")]
fn hold(process: u32, name: &str) -> Result<intruder::Held> {
    let mut held = None;
    wait_until("the thread waits", TIMEOUT, || {
        let threads = Thread::of(process).unwrap_or_default();
        let found = threads.iter().find(|thread| thread.name == name);
        held = found.and_then(|thread| intruder::Held::take(thread.id).ok()?);
        held.is_some()
    })?;
    held.context("a thread")
}

/// In the thread that parses bytes from outside. Afterwards it serves on: none of the calls was carried out.
#[cfg(target_arch = "x86_64")]
#[test]
fn who_has_a_worker_gets_no_further() -> Result<()> {
    use intruder::Fate;
    use nix::libc;

    only!(ONCE, "rights, whatever queries come by");
    let both = ["", KEEPER].into_iter();
    for sections in both.filter(|sections| MAY_HAVE_KEEPER || sections.is_empty()) {
        let scene = scene!(Setup::default().sections(sections));
        set_up(&scene)?;
        let mut refused = refused();
        if sections == KEEPER {
            refused.extend(refused_without_rights());
        }
        let held = hold_worker(&scene)?;
        let fates: Result<Vec<_>> = refused
            .iter()
            .map(|&(name, number, arguments)| Ok((name, held.call(number, arguments)?)))
            .collect();
        // Shows that calls are made at all.
        let own = held.call(libc::SYS_getpid, [0; 4])?;
        held.let_go()?;
        for (name, fate) in fates? {
            assert_eq!(fate, Fate::Refused, "{name} {sections}");
        }
        assert_eq!(own, Fate::Made(scene.daemon.pid().into()));
        serves(&scene)?;
    }
    Ok(())
}

/// Calls that are made, and that the kernel refuses to who has no right: as root, too.
#[cfg(target_arch = "x86_64")]
#[test]
fn who_has_a_worker_of_a_server_without_rights_gets_nothing_that_takes_one() -> Result<()> {
    use intruder::Fate;
    use nix::libc;

    only!(ONCE, "rights, whatever queries come by");
    if !MAY_HAVE_KEEPER {
        return Ok(());
    }
    let scene = scene!(Setup::default().sections(KEEPER));
    set_up(&scene)?;
    let keeper = keeper_of(&scene.daemon)?;
    let outside = format!("{}-outside\0", scene.directory.path().display());
    let memory = format!("/proc/{keeper}/mem\0");
    let held = hold_worker(&scene)?;
    let here = libc::AT_FDCWD as u64;
    let new = (libc::O_WRONLY | libc::O_CREAT) as u64;
    let open = |path: &str, flags: u64| -> Result<Fate> {
        held.call(
            libc::SYS_openat,
            [here, held.write(path.as_bytes())?, flags, 0o600],
        )
    };
    let raw = |family: i32, protocol: i32| {
        let arguments = [family as u64, libc::SOCK_RAW as u64, protocol as u64, 0];
        held.call(libc::SYS_socket, arguments)
    };
    let tried = (|| -> Result<_> {
        Ok([
            (
                "a raw socket",
                raw(libc::AF_INET, libc::IPPROTO_RAW)?,
                libc::EPERM,
            ),
            (
                "ICMPv6",
                raw(libc::AF_INET6, libc::IPPROTO_ICMPV6)?,
                libc::EPERM,
            ),
            ("another folder", open(&outside, new)?, libc::EACCES),
            (
                "the keeper's memory",
                open(&memory, libc::O_RDWR as u64)?,
                libc::EACCES,
            ),
            (
                "the shadow file",
                open("/etc/shadow\0", libc::O_RDWR as u64)?,
                libc::EACCES,
            ),
        ])
    })();
    held.let_go()?;
    for (name, fate, errno) in tried? {
        assert_eq!(fate, Fate::Made(-i64::from(errno)), "{name}");
    }
    ensure!(!fs::exists(outside.trim_end_matches('\0'))?);
    serves(&scene)
}
