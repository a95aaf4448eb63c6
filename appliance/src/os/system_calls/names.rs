//! Names of system calls that an intruder would try, for the line that reports one. Others are reported by number, which
//! `ausyscall` translates.

use libc::c_long;

use super::allowed::MMAP;

macro_rules! names {
    ($($name:ident $word:literal)*) => { &[$((libc::$name, $word)),*] };
}

const NAMES: &[(c_long, &str)] = names! {
    SYS_execve "execve"
    SYS_execveat "execveat"
    SYS_clone "clone"
    SYS_unshare "unshare"
    SYS_setns "setns"
    SYS_ptrace "ptrace"
    SYS_process_vm_readv "process_vm_readv"
    SYS_process_vm_writev "process_vm_writev"
    SYS_pidfd_getfd "pidfd_getfd"
    SYS_kill "kill"
    SYS_tkill "tkill"
    SYS_tgkill "tgkill"
    SYS_mprotect "mprotect"
    SYS_mount "mount"
    SYS_umount2 "umount2"
    SYS_pivot_root "pivot_root"
    SYS_chroot "chroot"
    SYS_socket "socket"
    SYS_socketpair "socketpair"
    SYS_ioctl "ioctl"
    SYS_prctl "prctl"
    SYS_prlimit64 "prlimit64"
    SYS_bpf "bpf"
    SYS_perf_event_open "perf_event_open"
    SYS_io_uring_setup "io_uring_setup"
    SYS_userfaultfd "userfaultfd"
    SYS_keyctl "keyctl"
    SYS_add_key "add_key"
    SYS_init_module "init_module"
    SYS_finit_module "finit_module"
    SYS_setuid "setuid"
    SYS_setresuid "setresuid"
    SYS_setgid "setgid"
    SYS_capset "capset"
    SYS_mknodat "mknodat"
    SYS_symlinkat "symlinkat"
    SYS_linkat "linkat"
    SYS_reboot "reboot"
    SYS_settimeofday "settimeofday"
    SYS_seccomp "seccomp"
};

/// Name of a system call, if it is in the list.
pub fn of(number: c_long) -> Option<&'static str> {
    if number == MMAP {
        return Some("mmap");
    }
    let mut known = NAMES.iter();
    known.find_map(|&(of, name)| (of == number).then_some(name))
}
