//! Attaches a BPF program by a link (BPF_LINK_CREATE): the fence around bpf(2), which aya has for a program of its own alone and
//! then keeps the descriptor, so that no other process could have it.
//!
//! The attachment ends with the link's last descriptor.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

/// linux/bpf.h: the command, and the kinds of attachment.
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_SK_LOOKUP: u32 = 36;
const BPF_XDP: u32 = 37;
/// linux/if_link.h: flags of an XDP attachment.
const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// Where a program is attached.
#[derive(Clone, Copy, Debug)]
pub enum LinkTarget<'a> {
    /// In the driver of the interface with this index.
    Driver(u32),
    /// On the interface with this index, for an skb per frame.
    Skb(u32),
    /// In a network namespace, for look-ups of sockets.
    Namespace(BorrowedFd<'a>),
}

/// Start of `union bpf_attr` for the command. What the kernel has beyond it counts as zero.
#[repr(C)]
struct LinkCreate {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
}

/// Attaches a loaded program.
///
/// # Errors
/// bpf(2) failed: another program is there, or the driver or the kernel cannot do it (EINVAL before Linux 5.9).
pub fn create(program: &impl AsFd, target: LinkTarget<'_>) -> io::Result<OwnedFd> {
    let (target, attach_type, flags) = match target {
        LinkTarget::Driver(index) => (index, BPF_XDP, XDP_FLAGS_DRV_MODE),
        LinkTarget::Skb(index) => (index, BPF_XDP, XDP_FLAGS_SKB_MODE),
        LinkTarget::Namespace(namespace) => {
            (namespace.as_raw_fd().cast_unsigned(), BPF_SK_LOOKUP, 0)
        }
    };
    let attributes = LinkCreate {
        program: program.as_fd().as_raw_fd().cast_unsigned(),
        target,
        attach_type,
        flags,
    };
    // SAFETY: the kernel reads so many bytes of `attributes`, which are all initialised and outlive the call, and writes none.
    let made = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_LINK_CREATE,
            &raw const attributes,
            size_of::<LinkCreate>(),
        )
    };
    match libc::c_int::try_from(made) {
        // SAFETY: the call has just returned this descriptor, so we are its only owner.
        Ok(link @ 0..) => Ok(unsafe { OwnedFd::from_raw_fd(link) }),
        Ok(_) | Err(_) => Err(io::Error::last_os_error()),
    }
}
