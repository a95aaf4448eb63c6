//! Filters for one thread each, which return an error here, since the usual action would end the test process.

use super::*;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;
use std::ptr;
use std::thread;

/// Runs `f` on a thread that may make the listed calls; others fail with EPERM.
fn with_list<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    let restricted = || {
        let arch = ARCH.expect("tests run where there is a list");
        prctl::set_no_new_privs().expect("anybody may");
        let refused = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
        install(&program(arch, refused, Caller::WithRights), 0).expect("the kernel has filters");
        f()
    };
    thread::scope(|scope| scope.spawn(restricted).join().expect("it ends"))
}

/// Result or error of a call, on a thread under the list.
fn tried(number: libc::c_long, arguments: [libc::c_ulong; 4]) -> Result<libc::c_long, i32> {
    let [one, two, three, four] = arguments;
    // SAFETY: each caller passes numbers, or null where the kernel would read memory; a call that is made fails, or leaves our
    // memory alone.
    let result = unsafe { libc::syscall(number, one, two, three, four) };
    match result {
        -1 => Err(io::Error::last_os_error().raw_os_error().unwrap_or(0)),
        _ => Ok(result),
    }
}

#[test]
fn what_somebody_who_got_in_would_try_is_refused() {
    let word = |number: libc::c_int| libc::c_ulong::from(number as u32);
    let exec = word(libc::PROT_EXEC | libc::PROT_READ);
    let private = word(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    let calls = [
        ("execve", libc::SYS_execve, [0; 4]),
        ("execveat", libc::SYS_execveat, [0; 4]),
        ("fork", libc::SYS_clone, [word(libc::SIGCHLD), 0, 0, 0]),
        ("ptrace", libc::SYS_ptrace, [0; 4]),
        ("process_vm_writev", libc::SYS_process_vm_writev, [0; 4]),
        ("kill", libc::SYS_kill, [0; 4]),
        ("tgkill", libc::SYS_tgkill, [0, 0, word(libc::SIGKILL), 0]),
        ("mount", libc::SYS_mount, [0; 4]),
        (
            "unshare",
            libc::SYS_unshare,
            [word(libc::CLONE_NEWNS), 0, 0, 0],
        ),
        ("setns", libc::SYS_setns, [0; 4]),
        ("chroot", libc::SYS_chroot, [0; 4]),
        (
            "AF_PACKET",
            libc::SYS_socket,
            [word(libc::AF_PACKET), word(libc::SOCK_RAW), 0, 0],
        ),
        ("AF_ALG", libc::SYS_socket, [word(libc::AF_ALG), 0, 0, 0]),
        ("BPF_PROG_GET_NEXT_ID", libc::SYS_bpf, [11, 0, 0, 0]),
        ("BPF_OBJ_GET", libc::SYS_bpf, [7, 0, 0, 0]),
        ("TIOCSTI", libc::SYS_ioctl, [2, libc::TIOCSTI, 0, 0]),
        (
            "PR_SET_DUMPABLE",
            libc::SYS_prctl,
            [word(libc::PR_SET_DUMPABLE), 1, 0, 0],
        ),
        ("mmap of code", libc::SYS_mmap, [0, 4096, exec, private]),
        ("mprotect to code", libc::SYS_mprotect, [0, 4096, exec, 0]),
        ("io_uring_setup", libc::SYS_io_uring_setup, [0; 4]),
        ("userfaultfd", libc::SYS_userfaultfd, [0; 4]),
        ("perf_event_open", libc::SYS_perf_event_open, [0; 4]),
        ("finit_module", libc::SYS_finit_module, [0; 4]),
        ("keyctl", libc::SYS_keyctl, [0; 4]),
        ("setresuid", libc::SYS_setresuid, [0; 4]),
        ("prlimit of init", libc::SYS_prlimit64, [1, 0, 0, 0]),
        ("mknodat", libc::SYS_mknodat, [0; 4]),
        ("seccomp", libc::SYS_seccomp, [0; 4]),
    ];
    let gone =
        with_list(|| calls.map(|(name, number, arguments)| (name, tried(number, arguments))));
    for (name, result) in gone {
        assert_eq!(result, Err(libc::EPERM), "{name}");
    }
}

/// Other tests need each of these as well; here they are named.
#[test]
fn what_serving_takes_is_allowed() {
    let told = with_list(|| {
        let mut text = String::new();
        let read = File::open("/proc/thread-self/status")?.read_to_string(&mut text);
        let threads = thread::spawn(|| vec![1_u8; 1 << 20].len()).join();
        assert_eq!(threads.expect("a thread"), 1 << 20);
        let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
        socket.set_nonblocking(true)?;
        crate::os::device::index("lo")?;
        read.map(|_| text)
    });
    assert!(told.expect("all of it is allowed").contains("Seccomp:\t2"));
}

/// A C library that tries a newer call goes on without it.
#[test]
fn what_came_later_is_not_there() {
    let results = with_list(|| {
        [libc::SYS_clone3, libc::c_long::from(UNKNOWN_FROM), 1 << 20]
            .map(|number| tried(number, [0; 4]))
    });
    assert_eq!(results, [Err(libc::ENOSYS); 3]);
}

/// Where the numbers mean other calls.
#[cfg(target_arch = "x86_64")]
#[test]
fn another_abi_gets_no_further() {
    let x32 = libc::c_long::from(X32) + libc::SYS_getpid;
    assert_eq!(with_list(|| tried(x32, [0; 4])), Err(libc::EPERM));
}

/// Set in the child process that makes the call.
const CHILD: &str = "XDNSD_TEST_SYSTEM_CALL";

#[test]
fn a_call_that_is_not_allowed_ends_the_process_and_is_named() {
    const NAME: &str =
        "os::system_calls::tests::a_call_that_is_not_allowed_ends_the_process_and_is_named";
    if std::env::var_os(CHILD).is_some() {
        restrict(DeniedCall::End, Caller::WithRights).expect("the kernel has filters");
        // SAFETY: the call would fail for want of a path, and is never made.
        unsafe {
            libc::syscall(
                libc::SYS_execve,
                ptr::null::<u8>(),
                ptr::null::<u8>(),
                ptr::null::<u8>(),
            )
        };
        unreachable!("the process has ended");
    }
    let own = std::env::current_exe().expect("this program");
    let ended = Command::new(own)
        .args(["--exact", NAME, "--nocapture"])
        .env(CHILD, "1")
        .output()
        .expect("it is started");
    let said = String::from_utf8_lossy(&ended.stderr);
    let told = format!(
        "xdnsd: system call {} (execve) is none that xdnsd makes",
        libc::SYS_execve
    );
    assert!(said.contains(&told), "{said}");
    assert_eq!(
        (ended.status.code(), ended.status.signal()),
        (Some(STATUS), None),
        "{said}"
    );
}

#[test]
fn a_number_is_written_in_digits() {
    for number in [0, 7, 10, 4_294_967_295] {
        let mut line = Line::default();
        line.add_number(number);
        assert_eq!(&line.bytes[..line.len], number.to_string().as_bytes());
    }
    let mut line = Line::default();
    line.add(&[b'x'; 300]);
    assert_eq!(line.len, 256, "what finds no room is left out");
}
