//! The few system calls that no safe wrapper has: the fence around their unsafe blocks.

pub mod datagrams;

use std::io;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Whether the kernel holds the wall clock for synchronised: a time daemon has told it so (adjtimex(2)).
#[must_use]
pub fn clock_is_synchronised() -> bool {
    // SAFETY: timex is plain integers, for which all zero bits are a value; modes 0 asks and changes nothing.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a timex of our own that outlives the call, which is all that adjtimex(2) asks for.
    let state = unsafe { libc::adjtimex(&raw mut timex) };
    // Not synchronised shows as TIME_ERROR; a failed call (-1, in a sandbox) tells nothing, which is the same to us.
    (libc::TIME_OK..libc::TIME_ERROR).contains(&state) && timex.status & libc::STA_UNSYNC == 0
}

/// Random bytes from the system's generator, which waits until it is seeded: a router has little entropy at boot.
///
/// # Errors
/// getrandom(2) failed.
pub fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let mut filled = 0;
    // Bound: every round fills at least a byte, or is interrupted by a signal.
    while filled < N {
        let rest = &mut bytes[filled..];
        // SAFETY: the pointer and the length are those of `rest`, which outlives the call; bytes may hold anything.
        let got = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        match usize::try_from(got) {
            Ok(got) => filled += got,
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    Ok(bytes)
}

/// Index of the device that the handshake of an accepted connection came by. 0: the kernel does not say. The listener has
/// IP_PKTINFO or IPV6_RECVPKTINFO set, which its connections inherit.
#[must_use]
pub fn arrival_of(stream: &impl AsRawFd, is_v6: bool) -> u32 {
    /// linux/in.h and linux/in6.h, which libc does not carry.
    const IP_PKTOPTIONS: libc::c_int = 9;
    const IPV6_2292PKTOPTIONS: libc::c_int = 6;
    /// Level, type, and where the index stands behind the header: first in in_pktinfo, behind the address in in6_pktinfo.
    const V4: (libc::c_int, libc::c_int, usize) = (libc::IPPROTO_IP, libc::IP_PKTINFO, 0);
    const V6: (libc::c_int, libc::c_int, usize) = (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, 16);
    let ((level, kind, at), option) = match is_v6 {
        true => (V6, IPV6_2292PKTOPTIONS),
        false => (V4, IP_PKTOPTIONS),
    };
    let mut bytes = [0u8; 128];
    let mut len = bytes.len() as libc::socklen_t;
    // SAFETY: the pointer and the length are those of `bytes`, and `len` is ours; both outlive the call, which writes no more
    // than that. Bytes may hold anything.
    let code = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            level,
            option,
            bytes.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    let told = bytes.get(..len as usize).filter(|_| code == 0);
    let info = told.and_then(|told| control_message(told, level, kind));
    let index = info.and_then(|info| info.get(at..)?.first_chunk());
    index.map_or(0, |index| u32::from_ne_bytes(*index))
}

/// What stands in the first of these control messages (cmsg(3)) that is of this level and kind, and what is behind it.
fn control_message(mut told: &[u8], level: libc::c_int, kind: libc::c_int) -> Option<&[u8]> {
    const WORD: usize = size_of::<usize>();
    const HEADER: usize = WORD + 8;
    // Bound: each message is at least a header long.
    while let Some(header) = told.get(..HEADER) {
        let len = usize::from_ne_bytes(*header.first_chunk()?);
        let of_level = i32::from_ne_bytes(*header.get(WORD..)?.first_chunk()?);
        let of_kind = i32::from_ne_bytes(*header.get(WORD + 4..)?.first_chunk()?);
        if (of_level, of_kind) == (level, kind) {
            return told.get(HEADER..);
        }
        told = told.get(len.max(HEADER).next_multiple_of(WORD)..)?;
    }
    None
}

/// Attaches a classic BPF program that chooses among the sockets of `socket`'s address (SO_ATTACH_REUSEPORT_CBPF).
///
/// # Errors
/// setsockopt(2) failed: the program is not one, or is too long.
pub fn attach_reuseport_filter(
    socket: &impl AsRawFd,
    program: &[libc::sock_filter],
) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(io::Error::other)?;
    let filter = libc::sock_fprog {
        len,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the pointer and the size are those of `filter`, and its pointer and length those of `program`; both outlive
    // the call, which copies the program and writes to neither.
    let code = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const filter).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if code == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Descriptors that are wanted: sockets of clients and of questions, files, maps.
const DESCRIPTORS: u64 = 4096;

/// Raises the soft limit of open descriptors as far as is wanted and the hard limit lets it. Without more of them questions
/// have fewer ports at once.
pub fn raise_descriptor_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let wanted = DESCRIPTORS.min(hard);
        if soft < wanted {
            let _ = setrlimit(Resource::RLIMIT_NOFILE, wanted, hard);
        }
    }
}

/// Sets a socket option whose value is `words`.
///
/// # Errors
/// setsockopt(2) failed.
pub fn set_words(
    socket: &impl AsRawFd,
    level: libc::c_int,
    name: libc::c_int,
    words: &[u32],
) -> nix::Result<()> {
    // SAFETY: the pointer and the size are those of `words`, which outlive the call; setsockopt(2) only reads them.
    let code = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            words.as_ptr().cast(),
            size_of_val(words) as libc::socklen_t,
        )
    };
    Errno::result(code).map(drop)
}

/// The highest bit that a capability may have: the kernel's masks have 64.
const CAPABILITY_MAX: libc::c_ulong = 63;
/// _LINUX_CAPABILITY_VERSION_3 (linux/capability.h): 64 bits in two words.
const CAPABILITY_VERSION: u32 = 0x2008_0522;

/// What capset(2) is told about: the calling thread.
#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: libc::c_int,
}

/// Half of the three masks, 32 capabilities of each.
#[repr(C)]
struct CapabilityWords {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Takes every capability but those of `kept` from what this thread, and a program that it starts, can ever have again.
///
/// # Errors
/// prctl(2) failed: the thread may not change its bounding set.
pub fn bound_capabilities(kept: u64) -> io::Result<()> {
    for capability in (0..=CAPABILITY_MAX).filter(|bit| kept >> bit & 1 == 0) {
        // SAFETY: PR_CAPBSET_DROP takes a number and touches no memory of ours.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } != 0 {
            let error = io::Error::last_os_error();
            // Above the last that this kernel knows.
            if error.kind() == io::ErrorKind::InvalidInput {
                return Ok(());
            }
            return Err(error);
        }
    }
    Ok(())
}

/// Sets what this thread may do to `capabilities`, a bit each; a program that it starts inherits none.
///
/// # Errors
/// capset(2) failed: the thread has not all of them.
pub fn set_capabilities(capabilities: u64) -> io::Result<()> {
    let header = CapabilityHeader {
        version: CAPABILITY_VERSION,
        pid: 0,
    };
    let half = |shift: u32| CapabilityWords {
        effective: (capabilities >> shift) as u32,
        permitted: (capabilities >> shift) as u32,
        inheritable: 0,
    };
    let words = [half(0), half(32)];
    // SAFETY: both pointers are to values of our own that outlive the call, laid out as this version of capset(2) asks
    // for: a header, and two triples of words.
    let done = unsafe { libc::syscall(libc::SYS_capset, &raw const header, words.as_ptr()) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_can_be_asked_for_its_clock() {
        // Either answer is right; the question must neither fail nor change it.
        assert_eq!(clock_is_synchronised(), clock_is_synchronised());
    }

    #[test]
    fn random_bytes_differ() {
        let once: [u8; 16] = random().expect("a generator");
        assert_ne!(once, random::<16>().expect("a generator"));
        assert_eq!(random::<0>().expect("nothing to do"), []);
    }
}
