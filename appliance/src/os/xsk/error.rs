//! Errors: of set-up in words, of a flush as an enum.

use super::BindMode;
use nix::errno::Errno;
use std::fmt;

/// Why a socket could not be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetupError {
    /// Interface, as in the configuration.
    pub interface: String,
    /// RX queue.
    pub queue: u32,
    /// The step that failed.
    pub step: SetupStep,
    /// The kernel's errno.
    pub errno: Errno,
}

/// The steps of opening a socket, most of them a system call each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetupStep {
    /// Looking up the interface.
    Interface,
    /// Making the socket.
    Socket,
    /// Finding a socket to share the UMEM with, and a free place.
    Share,
    /// Registering the UMEM of so many bytes.
    UmemReg(usize),
    /// Setting the size of a ring; the option's name.
    RingSize(&'static str),
    /// Reading the layout of the rings.
    MmapOffsets,
    /// Mapping a ring; its name.
    MapRing(&'static str),
    /// Binding to the queue.
    Bind(BindMode),
    /// Reading the mode that the kernel chose.
    Options,
    /// A function of the `afxdp` crate, which hides the failed call.
    Crate(&'static str),
}

impl fmt::Display for SetupStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interface => f.write_str("SIOCGIFINDEX"),
            Self::Socket => f.write_str("socket(AF_XDP)"),
            Self::Share => f.write_str("XDP_SHARED_UMEM"),
            Self::UmemReg(bytes) => write!(f, "setsockopt(XDP_UMEM_REG) of {} KiB", bytes / 1024),
            Self::RingSize(option) => write!(f, "setsockopt({option})"),
            Self::MmapOffsets => f.write_str("getsockopt(XDP_MMAP_OFFSETS)"),
            Self::MapRing(ring) => write!(f, "mmap of the {ring} ring"),
            Self::Bind(mode) => write!(f, "bind in {mode} mode"),
            Self::Options => f.write_str("getsockopt(XDP_OPTIONS)"),
            Self::Crate(function) => f.write_str(function),
        }
    }
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            interface,
            queue,
            step,
            errno,
        } = self;
        write!(f, "AF_XDP on {interface} queue {queue}: {step}: {errno}")?;
        hint(*step, *errno).map_or(Ok(()), |hint| write!(f, " ({hint})"))
    }
}

impl std::error::Error for SetupError {}

/// Advice, where the errno alone does not suffice.
fn hint(step: SetupStep, errno: Errno) -> Option<&'static str> {
    // Only for errnos about which we know more than their names.
    if errno == Errno::EPERM && !matches!(step, SetupStep::Crate(_)) {
        return Some("CAP_NET_RAW is missing");
    }
    match step {
        SetupStep::Interface if errno == Errno::ENODEV => Some("no such interface"),
        SetupStep::Socket if errno == Errno::EAFNOSUPPORT => {
            Some("the kernel is built without CONFIG_XDP_SOCKETS")
        }
        SetupStep::Share if errno == Errno::ENOSPC => Some(
            "no place in the worker's UMEM before it has the chunks of a closed socket back; tried again",
        ),
        SetupStep::UmemReg(_) if errno == Errno::ENOBUFS => {
            Some("RLIMIT_MEMLOCK is below the UMEM's size: raise it or grant CAP_IPC_LOCK")
        }
        SetupStep::Bind(_) if errno == Errno::EBUSY => {
            Some("another AF_XDP socket is bound to this queue")
        }
        SetupStep::Bind(_) if errno == Errno::EINVAL => Some("the interface has no such RX queue"),
        SetupStep::Bind(BindMode::ZeroCopy) if errno == Errno::EOPNOTSUPP => {
            Some("the driver has no zero copy for this queue: set the mode to copy")
        }
        SetupStep::Bind(_) if errno == Errno::ENETDOWN => Some("the interface is down"),
        SetupStep::Crate("afxdp::Socket::new") if errno == Errno::ENOENT => {
            Some("the crate needs an XDP program attached first, with a map named xsks_map")
        }
        SetupStep::Crate(_) if errno == Errno::EPERM => {
            Some("CAP_SYS_ADMIN is missing, by which the library under the crate finds the program")
        }
        SetupStep::Interface
        | SetupStep::Socket
        | SetupStep::Share
        | SetupStep::UmemReg(_)
        | SetupStep::RingSize(_)
        | SetupStep::MmapOffsets
        | SetupStep::MapRing(_)
        | SetupStep::Bind(_)
        | SetupStep::Options
        | SetupStep::Crate(_) => None,
    }
}

/// Result of waking the kernel's transmit side at a flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Kick {
    /// There was nothing to send.
    Idle,
    /// The kernel has taken everything.
    Done,
    /// The kernel takes no more now. The rest stays in the TX ring: flush again soon (a millisecond), or wait until the
    /// descriptor is writable.
    Again,
    /// The interface is down. Frames stay in the TX ring and are sent when it comes up.
    Down,
    /// The interface is deleted. The socket is dead: drop it, open another when the interface is back.
    Gone,
    /// Another error; the frames stay in the TX ring.
    Failed(Errno),
}

impl Kick {
    /// Classifies the errno of a wake-up call.
    pub(super) fn from_errno(errno: Errno) -> Self {
        if [Errno::EAGAIN, Errno::EBUSY, Errno::ENOBUFS, Errno::EINTR].contains(&errno) {
            Self::Again
        } else if errno == Errno::ENETDOWN {
            Self::Down
        } else if [Errno::ENXIO, Errno::ENODEV].contains(&errno) {
            Self::Gone
        } else {
            Self::Failed(errno)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(step: SetupStep, errno: Errno) -> String {
        SetupError {
            interface: "eth0".into(),
            queue: 3,
            step,
            errno,
        }
        .to_string()
    }

    #[test]
    fn errors_name_the_call_and_the_knob() {
        let text = error(SetupStep::UmemReg(2 << 20), Errno::ENOBUFS);
        assert!(
            text.starts_with(
                "AF_XDP on eth0 queue 3: setsockopt(XDP_UMEM_REG) of 2048 KiB: ENOBUFS"
            ),
            "{text}"
        );
        assert!(text.contains("RLIMIT_MEMLOCK"), "{text}");
        let text = error(SetupStep::Share, Errno::ENOSPC);
        assert!(text.contains("tried again"), "{text}");
        let text = error(SetupStep::Bind(BindMode::ZeroCopy), Errno::EOPNOTSUPP);
        assert!(
            text.contains("bind in zero-copy mode") && text.contains("set the mode to copy"),
            "{text}"
        );
        assert!(
            error(SetupStep::RingSize("XDP_RX_RING"), Errno::ENOMEM)
                .contains("setsockopt(XDP_RX_RING): ENOMEM")
        );
        let text = error(SetupStep::Socket, Errno::EPERM);
        assert!(text.ends_with("(CAP_NET_RAW is missing)"), "{text}");
        let text = error(SetupStep::Crate("afxdp::Socket::new"), Errno::EPERM);
        assert!(text.contains("CAP_SYS_ADMIN is missing"), "{text}");
    }

    #[test]
    fn every_errno_of_sendto_has_its_class() {
        for errno in [Errno::EAGAIN, Errno::EBUSY, Errno::ENOBUFS, Errno::EINTR] {
            assert_eq!(Kick::from_errno(errno), Kick::Again);
        }
        assert_eq!(Kick::from_errno(Errno::ENETDOWN), Kick::Down);
        assert_eq!(Kick::from_errno(Errno::ENXIO), Kick::Gone);
        assert_eq!(
            Kick::from_errno(Errno::EOPNOTSUPP),
            Kick::Failed(Errno::EOPNOTSUPP)
        );
    }
}
