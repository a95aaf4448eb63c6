//! What the process may do as root could (capabilities(7)).

use std::io;

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
pub fn bound(kept: u64) -> io::Result<()> {
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
pub fn set(capabilities: u64) -> io::Result<()> {
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
