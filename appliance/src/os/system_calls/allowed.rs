//! System calls that this program makes after its start: itself, through std, and through the C libraries that it is built with
//! (glibc and musl), at any optimisation level.
//!
//! Left out: executing programs (execve), other processes (fork, ptrace, process_vm_*, signals), mounts and namespaces, kernel
//! keys and modules, io_uring, userfaultfd, performance counters, changes of account, code generated at run time.

use libc::c_long;

/// AUDIT_ARCH of this processor (linux/audit.h). `None` if there is no list for it.
pub const ARCH: Option<u32> = if cfg!(all(target_arch = "x86_64", target_pointer_width = "64")) {
    Some(0xc000_003e)
} else if cfg!(target_arch = "aarch64") {
    Some(0xc000_00b7)
} else if cfg!(target_arch = "riscv64") {
    Some(0xc000_00f3)
} else {
    None
};

/// A call that is allowed if one of its arguments passes a test.
pub struct Rule {
    pub number: c_long,
    /// Index of the argument, from 0.
    pub argument: u8,
    pub test: Test,
}

/// Test of an argument.
pub enum Test {
    /// Equals one of these.
    OneOf(&'static [u32]),
    /// Has none of these bits.
    Without(u32),
    /// Has at least one of these bits.
    With(u32),
}

macro_rules! calls {
    ($($name:ident)*) => { &[$(libc::$name),*] };
}

/// Calls on every architecture.
#[cfg(target_pointer_width = "64")]
pub const ALWAYS: &[c_long] = calls! {
    // Network and descriptors.
    SYS_ppoll SYS_recvfrom SYS_sendto SYS_recvmsg SYS_sendmsg SYS_recvmmsg SYS_sendmmsg SYS_read SYS_write SYS_readv SYS_writev
    SYS_epoll_create1 SYS_epoll_ctl SYS_epoll_pwait SYS_pselect6 SYS_accept SYS_accept4 SYS_bind SYS_connect SYS_listen SYS_shutdown
    SYS_getsockname SYS_getpeername SYS_getsockopt SYS_setsockopt SYS_pipe2 SYS_eventfd2 SYS_signalfd4 SYS_close SYS_dup SYS_dup3
    SYS_fcntl
    // Time and randomness. Setting the clock needs a capability that the daemon's account lacks.
    SYS_clock_gettime SYS_clock_getres SYS_clock_nanosleep SYS_nanosleep SYS_gettimeofday SYS_adjtimex SYS_clock_adjtime
    SYS_getrandom SYS_restart_syscall
    // Threads and memory.
    SYS_futex SYS_exit SYS_exit_group SYS_rt_sigaction SYS_rt_sigprocmask SYS_rt_sigreturn SYS_rt_sigtimedwait SYS_sigaltstack
    SYS_set_tid_address SYS_set_robust_list SYS_get_robust_list SYS_rseq SYS_sched_yield SYS_sched_getaffinity SYS_membarrier
    SYS_getpid SYS_gettid SYS_getppid SYS_getuid SYS_geteuid SYS_getgid SYS_getegid SYS_getresuid SYS_getresgid SYS_getgroups
    SYS_capget SYS_capset SYS_uname SYS_sysinfo SYS_getrusage SYS_times SYS_getcpu SYS_brk SYS_munmap SYS_mremap SYS_madvise SYS_mlock
    SYS_munlock SYS_msync SYS_mincore SYS_memfd_create
    // Files: account and Landlock decide which.
    SYS_openat SYS_newfstatat SYS_fstat SYS_statx SYS_statfs SYS_fstatfs SYS_lseek SYS_pread64 SYS_pwrite64 SYS_preadv SYS_pwritev
    SYS_getdents64 SYS_getcwd SYS_readlinkat SYS_faccessat SYS_faccessat2 SYS_unlinkat SYS_mkdirat SYS_renameat2
    SYS_fchmod SYS_fchmodat SYS_fchown SYS_fchownat SYS_ftruncate SYS_fallocate SYS_fadvise64 SYS_fsync SYS_fdatasync SYS_flock
    SYS_utimensat SYS_umask SYS_inotify_init1 SYS_inotify_add_watch SYS_inotify_rm_watch
};

#[cfg(not(target_pointer_width = "64"))]
pub const ALWAYS: &[c_long] = &[];

/// Old calls that newer architectures lack.
#[cfg(target_arch = "x86_64")]
pub const OLD: &[c_long] = calls! {
    SYS_poll SYS_select SYS_epoll_wait SYS_epoll_create SYS_pipe SYS_dup2 SYS_open SYS_stat SYS_lstat SYS_access SYS_readlink
    SYS_unlink SYS_rmdir SYS_mkdir SYS_rename SYS_renameat SYS_chmod SYS_chown SYS_lchown SYS_getdents SYS_time SYS_inotify_init SYS_pause
    SYS_eventfd
};
#[cfg(target_arch = "aarch64")]
pub const OLD: &[c_long] = calls! { SYS_renameat };
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub const OLD: &[c_long] = &[];

/// linux/bpf.h: commands of bpf(2) that make, read and write maps, load programs and attach them by descriptor. Left out:
/// commands that open others' objects by ID or path.
const BPF_COMMANDS: &[u32] = &[
    0,  // BPF_MAP_CREATE
    1,  // BPF_MAP_LOOKUP_ELEM
    2,  // BPF_MAP_UPDATE_ELEM
    3,  // BPF_MAP_DELETE_ELEM
    4,  // BPF_MAP_GET_NEXT_KEY
    5,  // BPF_PROG_LOAD
    15, // BPF_OBJ_GET_INFO_BY_FD
    16, // BPF_PROG_QUERY
    18, // BPF_BTF_LOAD
    21, // BPF_MAP_LOOKUP_AND_DELETE_ELEM
    22, // BPF_MAP_FREEZE
    28, // BPF_LINK_CREATE
    29, // BPF_LINK_UPDATE
    34, // BPF_LINK_DETACH
    BY_NUMBER[0],
    BY_NUMBER[1],
];
/// BPF_PROG_GET_FD_BY_ID and BPF_MAP_GET_FD_BY_ID, by which libbpf finds the program that we have attached; otherwise none.
const BY_NUMBER: [u32; 2] = if cfg!(feature = "afxdp") {
    [13, 14]
} else {
    [0, 0]
};
/// The commands of a process without rights: those on maps that it was given, by descriptor.
const BPF_COMMANDS_OF_SERVER: &[u32] = &[1, 2, 3, 4, 15, 21];
/// linux/prctl.h: names of threads, and of memory (glibc).
const PRCTLS: &[u32] = &[
    libc::PR_SET_NAME as u32,
    libc::PR_GET_NAME as u32,
    PR_SET_VMA,
];
const PR_SET_VMA: u32 = 0x5356_4d41;
/// Device index and name, ethtool, non-blocking mode; whether a descriptor is a terminal.
const IOCTLS: &[u32] = &[
    libc::FIONBIO as u32,
    libc::FIOCLEX as u32,
    libc::FIONREAD as u32,
    libc::TCGETS as u32,
    libc::SIOCGIFINDEX as u32,
    libc::SIOCGIFNAME as u32,
    SIOCETHTOOL,
];
const SIOCETHTOOL: u32 = 0x8946;
/// Left out: AF_PACKET, which reads and sends any frame, and unused families.
const FAMILIES: &[u32] = &[
    libc::AF_UNIX as u32,
    libc::AF_INET as u32,
    libc::AF_INET6 as u32,
    libc::AF_NETLINK as u32,
    libc::AF_XDP as u32,
];

/// The families of a process without rights: it is given AF_XDP sockets.
const FAMILIES_OF_SERVER: &[u32] = &[
    libc::AF_UNIX as u32,
    libc::AF_INET as u32,
    libc::AF_INET6 as u32,
    libc::AF_NETLINK as u32,
];

const fn rule(number: c_long, argument: u8, test: Test) -> Rule {
    Rule {
        number,
        argument,
        test,
    }
}

#[cfg(target_pointer_width = "64")]
pub const MMAP: c_long = libc::SYS_mmap;
#[cfg(not(target_pointer_width = "64"))]
pub const MMAP: c_long = libc::SYS_mmap2;

/// Calls that are allowed with some arguments to a process that has rights.
pub const WITH_RIGHTS: &[Rule] = &[
    rule(libc::SYS_socket, 0, Test::OneOf(FAMILIES)),
    rule(libc::SYS_bpf, 0, Test::OneOf(BPF_COMMANDS)),
];
/// The same calls of a process that has none.
pub const WITHOUT_RIGHTS: &[Rule] = &[
    rule(libc::SYS_socket, 0, Test::OneOf(FAMILIES_OF_SERVER)),
    rule(libc::SYS_bpf, 0, Test::OneOf(BPF_COMMANDS_OF_SERVER)),
];
/// Calls that are allowed with some arguments to both.
pub const SOMETIMES: &[Rule] = &[
    rule(
        libc::SYS_socketpair,
        0,
        Test::OneOf(&[libc::AF_UNIX as u32]),
    ),
    rule(libc::SYS_ioctl, 1, Test::OneOf(IOCTLS)),
    rule(libc::SYS_prctl, 0, Test::OneOf(PRCTLS)),
    // Only threads.
    rule(libc::SYS_clone, 0, Test::With(libc::CLONE_THREAD as u32)),
    // No code is generated at run time.
    rule(libc::SYS_mprotect, 2, Test::Without(libc::PROT_EXEC as u32)),
    rule(MMAP, 2, Test::Without(libc::PROT_EXEC as u32)),
    // Only its own limits.
    rule(libc::SYS_prlimit64, 0, Test::OneOf(&[0])),
    // For abort(3).
    rule(libc::SYS_tgkill, 2, Test::OneOf(&[libc::SIGABRT as u32])),
    rule(libc::SYS_tkill, 1, Test::OneOf(&[libc::SIGABRT as u32])),
];

/// Calls that a C library tries first and can do without: the flags of clone3 are in memory, which a filter cannot read.
pub const MISSING: &[c_long] = &[libc::SYS_clone3];
