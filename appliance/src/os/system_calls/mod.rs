//! The fence around seccomp(2): restricts the system calls that this process may make from here on.
//!
//! ```text
//!  allowed ─► made   unknown to us, newer ─► ENOSYS, as from an older kernel   everything else ─► SIGSYS: named, and the end
//! ```
//! Without a crate: `seccompiler` has one action for calls that are not allowed, and three are needed; the program has no loop
//! and no state, and is written as a list in `allowed.rs`.
//!
//! Only numbers are compared. Memory behind a pointer argument is never read: another thread could change it between the check
//! and the call.

mod allowed;
mod names;
#[cfg(test)]
mod tests;

use std::io;
use std::mem;

use nix::sys::prctl;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use allowed::{ARCH, Rule, Test};

/// Action for a call that is not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeniedCall {
    /// The process ends, with a line that names the call.
    End,
    /// The call is made, and logged by the kernel (`type=1326` where the kernel audits).
    Log,
}

/// Whose calls are restricted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A process that loads programs and makes sockets of all kinds by itself: one alone, or the keeper.
    WithRights,
    /// A server that a keeper does it for.
    WithoutRights,
}

/// Exit status after a call that is not allowed: as a shell reports SIGSYS.
pub const STATUS: i32 = 128 + libc::SIGSYS;

/// Time for the last line to be read, in milliseconds.
const LAST_LINE_MS: libc::c_int = 200;
/// Lowest number of system calls unknown to us, on every architecture: newer than Linux 5.16. A C library that tries one also
/// works without it, for older kernels.
const UNKNOWN_FROM: u32 = 450;
/// linux/seccomp.h and linux/ptrace.h: offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;
/// Marks calls of the x32 ABI, which have their own numbers.
#[cfg(target_arch = "x86_64")]
const X32: u32 = 0x4000_0000;

/// Restricts all threads of the process, present and future, to the listed calls, for good.
///
/// # Errors
/// The kernel lacks seccomp filters, or there is no list for this processor: nothing is restricted.
pub fn restrict(otherwise: DeniedCall, caller: Caller) -> io::Result<()> {
    let arch = ARCH.ok_or(io::ErrorKind::Unsupported)?;
    let refused = match otherwise {
        DeniedCall::End => {
            watch()?;
            libc::SECCOMP_RET_TRAP
        }
        DeniedCall::Log => libc::SECCOMP_RET_LOG,
    };
    // Required for a filter without CAP_SYS_ADMIN.
    prctl::set_no_new_privs()?;
    // All threads. SPEC_ALLOW skips a mitigation that slows every thread: the process runs no foreign code.
    let flags = libc::SECCOMP_FILTER_FLAG_TSYNC | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    install(&program(arch, refused, caller), flags)
}

/// True if the kernel lacks such filters, or there is no list for this processor.
#[must_use]
pub fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Unsupported
        || [libc::ENOSYS, libc::EINVAL]
            .map(Some)
            .contains(&error.raw_os_error())
}

fn install(program: &[libc::sock_filter], flags: libc::c_ulong) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog {
        len,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel reads `len` instructions at `filter` during the call, and writes to neither. Both outlive it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const program,
        )
    };
    match result {
        0 => Ok(()),
        // A positive result is the ID of a thread with a different filter.
        thread if thread > 0 => Err(io::Error::other(format!(
            "thread {thread} has a filter of its own"
        ))),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The filter. Jumps only go forward, within the instructions of one rule.
fn program(arch: u32, refused: u32, caller: Caller) -> Vec<libc::sock_filter> {
    let mut program = vec![
        load(ARCHITECTURE),
        jump(libc::BPF_JEQ, arch, 1, 0),
        give(refused),
        load(NUMBER),
    ];
    #[cfg(target_arch = "x86_64")]
    program.extend([jump(libc::BPF_JGE, X32, 0, 1), give(refused)]);
    for &number in allowed::ALWAYS.iter().chain(allowed::OLD) {
        program.extend([
            jump(libc::BPF_JEQ, of(number), 0, 1),
            give(libc::SECCOMP_RET_ALLOW),
        ]);
    }
    let own = match caller {
        Caller::WithRights => allowed::WITH_RIGHTS,
        Caller::WithoutRights => allowed::WITHOUT_RIGHTS,
    };
    for rule in own.iter().chain(allowed::SOMETIMES) {
        program.extend(instructions(rule, refused));
    }
    let missing = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
    for &number in allowed::MISSING {
        program.extend([jump(libc::BPF_JEQ, of(number), 0, 1), give(missing)]);
    }
    program.extend([
        jump(libc::BPF_JGE, UNKNOWN_FROM, 0, 1),
        give(missing),
        give(refused),
    ]);
    program
}

/// Instructions for a call that is allowed with some arguments.
fn instructions(rule: &Rule, refused: u32) -> Vec<libc::sock_filter> {
    // The low half: the kernel uses only that of these arguments, or fails for other values.
    let low = ARGUMENTS + 8 * u32::from(rule.argument) + u32::from(cfg!(target_endian = "big")) * 4;
    let mut test = vec![load(low)];
    match rule.test {
        Test::OneOf(values) => {
            for &value in values {
                test.extend([
                    jump(libc::BPF_JEQ, value, 0, 1),
                    give(libc::SECCOMP_RET_ALLOW),
                ]);
            }
            test.push(give(refused));
        }
        Test::Without(bits) => test.extend([
            jump(libc::BPF_JSET, bits, 0, 1),
            give(refused),
            give(libc::SECCOMP_RET_ALLOW),
        ]),
        Test::With(bits) => test.extend([
            jump(libc::BPF_JSET, bits, 1, 0),
            give(refused),
            give(libc::SECCOMP_RET_ALLOW),
        ]),
    }
    let over = u8::try_from(test.len()).expect("a rule has a handful of values");
    test.insert(0, jump(libc::BPF_JEQ, of(rule.number), 0, over));
    test
}

/// Loads a word of `struct seccomp_data`.
fn load(at: u32) -> libc::sock_filter {
    statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, at)
}

/// Returns an action.
fn give(what: u32) -> libc::sock_filter {
    statement(libc::BPF_RET | libc::BPF_K, what)
}

fn statement(code: u32, k: u32) -> libc::sock_filter {
    jump_of(code, k, 0, 0)
}

/// Compares the loaded word with `k`.
fn jump(how: u32, k: u32, when: u8, otherwise: u8) -> libc::sock_filter {
    jump_of(libc::BPF_JMP | libc::BPF_K | how, k, when, otherwise)
}

fn jump_of(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    }
}

/// Number of a system call as the filter sees it.
const fn of(number: libc::c_long) -> u32 {
    number as u32
}

/// Installs the SIGSYS handler, which names the call before the process ends.
fn watch() -> io::Result<()> {
    let action = SigAction::new(
        SigHandler::SigAction(end),
        SaFlags::SA_SIGINFO,
        SigSet::all(),
    );
    // SAFETY: the handler calls only write(2), poll(2) and _exit(2), which are async-signal-safe, and touches only its own stack
    // and constant text.
    unsafe { sigaction(Signal::SIGSYS, &action) }?;
    Ok(())
}

/// Start of the kernel's `siginfo_t` for SIGSYS (asm-generic/siginfo.h), whose fields libc lacks.
#[repr(C)]
struct SigInfo {
    /// Signal, errno and code.
    head: [libc::c_int; 3],
    address: *const libc::c_void,
    number: libc::c_int,
}

const _: () = assert!(size_of::<SigInfo>() <= size_of::<libc::siginfo_t>());
const _: () = assert!(mem::align_of::<SigInfo>() <= mem::align_of::<libc::siginfo_t>());

extern "C" fn end(_: libc::c_int, told: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel passes the handler a siginfo_t of SIGSYS, which begins like this, and which nothing else accesses.
    let number = unsafe { (*told.cast::<SigInfo>()).number };
    let mut line = Line::default();
    line.add(b"xdnsd: system call ");
    line.add_number(number.unsigned_abs());
    if let Some(name) = names::of(number.into()) {
        line.add(b" (");
        line.add(name.as_bytes());
        line.add(b")");
    }
    line.add(
        b" is none that xdnsd makes: ended. Somebody may have got in; if not, security.seccomp = \"log\" serves on, and this \
          line is worth a report\n",
    );
    line.write_and_end();
}

/// A fixed buffer for one line.
struct Line {
    bytes: [u8; 256],
    len: usize,
}

impl Default for Line {
    fn default() -> Self {
        Self {
            bytes: [0; 256],
            len: 0,
        }
    }
}

impl Line {
    /// Appends `text`; bytes beyond the buffer are dropped.
    fn add(&mut self, text: &[u8]) {
        for (place, &byte) in self.bytes.iter_mut().skip(self.len).zip(text) {
            *place = byte;
            self.len += 1;
        }
    }

    fn add_number(&mut self, number: u32) {
        let mut digits = [0; 10];
        let mut rest = number;
        let mut first = digits.len();
        // Bound: a u32 has at most ten digits.
        for place in digits.iter_mut().rev() {
            *place = b'0' + (rest % 10) as u8;
            rest /= 10;
            first -= 1;
            if rest == 0 {
                break;
            }
        }
        self.add(digits.get(first..).unwrap_or_default());
    }

    /// Writes the line, gives the log's thread a moment to pass it on, and ends the process.
    fn write_and_end(&self) -> ! {
        // SAFETY: the bytes are ours and outlive the call; whatever descriptor 2 is, write at worst fails. poll without
        // descriptors only waits. Nothing runs in this process after _exit.
        unsafe {
            libc::write(libc::STDERR_FILENO, self.bytes.as_ptr().cast(), self.len);
            libc::poll(std::ptr::null_mut(), 0, LAST_LINE_MS);
            libc::_exit(STATUS)
        }
    }
}
