//! Errors of loading and attaching, with advice on what to do.

use crate::os::keeper::Refusal;
use aya::EbpfError;
use aya::maps::MapError;
use aya::programs::{ProgramError, XdpMode};
use nix::errno::Errno;
use std::fmt;
use xdnsd_abi::QUEUES_MAX;

/// Set-up of the XDP program failed. `source()` gives the cause; the text is complete without it.
#[derive(Debug)]
pub enum Error {
    /// The kernel refused a map or the program.
    Load(Box<EbpfError>),
    /// The object lacks a map or program of this name and type.
    Contract(&'static str),
    /// mmap of an array failed.
    Mmap {
        /// Name of the map.
        name: &'static str,
        /// Error of mmap(2).
        cause: std::io::Error,
    },
    /// The index of the interface cannot be read.
    Interface {
        /// As configured.
        name: String,
        /// ENODEV if there is no such interface.
        errno: Errno,
    },
    /// The kernel or the driver refused the attachment.
    Attach {
        /// Name of the interface.
        interface: String,
        /// Mode of the attempt.
        mode: XdpMode,
        /// The system call and its error.
        cause: Box<ProgramError>,
    },
    /// The interface is a bond, whose driver runs the program for frames that its ports receive; the kernel drops frames
    /// redirected from there to a socket of the bond.
    Bond(String),
    /// A map operation failed.
    Map {
        /// Name of the map.
        name: &'static str,
        /// The system call and its error.
        cause: Box<MapError>,
    },
    /// More entries than a map of one interface holds.
    NoRoom {
        /// Name of the map.
        name: &'static str,
        /// Number of entries.
        entries: usize,
        /// Capacity of the map.
        max: u32,
    },
    /// SYN cookies need a program that takes multi-buffer frames.
    NoShield,
    /// The random generator failed.
    Random(std::io::Error),
    /// An RX queue beyond the maps' slots.
    Queue(u32),
    /// The keeper did not carry a request out.
    Refused(Box<Refusal>),
}

impl Error {
    pub(super) fn map(name: &'static str, cause: MapError) -> Self {
        let cause = Box::new(cause);
        Self::Map { name, cause }
    }

    /// `Err` if a map that holds `max` is too small for `entries`.
    pub(super) const fn check_room(
        name: &'static str,
        entries: usize,
        max: u32,
    ) -> Result<(), Self> {
        if entries > max as usize {
            return Err(Self::NoRoom { name, entries, max });
        }
        Ok(())
    }

    /// The kernel's errno, if there is one.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        if let Self::Interface { errno, .. } = self {
            return Some(*errno);
        }
        if let Self::Refused(refusal) = self {
            return Some(refusal.errno);
        }
        errno(std::error::Error::source(self)?)
    }

    /// The innermost cause: aya's outer messages only name its own functions.
    #[must_use]
    pub fn innermost(&self) -> String {
        let mut cause: &dyn std::error::Error = self;
        // Bound: errors are nested a handful deep.
        while let Some(next) = cause.source() {
            cause = next;
        }
        cause.to_string()
    }

    /// The whole verifier log.
    pub(super) fn verifier_log(&self) -> String {
        let Self::Load(cause) = self else {
            return String::new();
        };
        refusal(cause).map_or_else(String::new, |(_, log)| log)
    }

    /// Why native mode failed, in a few words; the error itself has the details.
    pub(super) fn why_not_native(&self) -> &'static str {
        if matches!(self, Self::Bond(_)) {
            return "it is a bond, whose ports' frames no AF_XDP socket gets";
        }
        match self.errno() {
            Some(Errno::EOPNOTSUPP) => {
                "the driver has no native XDP, or its offloads stand in the way"
            }
            Some(Errno::ERANGE) => "the MTU is too large for the driver's native XDP",
            Some(Errno::EINVAL) => "the driver refuses native XDP with this interface's settings",
            Some(Errno::ENOSPC | Errno::ENOMEM) => {
                "too few queues or too little memory for native XDP"
            }
            Some(_) | None => "the driver refuses native XDP",
        }
    }

    /// The problem in an operator's words, without mode, system call and errno where a hint exists. The error itself has them.
    #[must_use]
    pub fn plain(&self) -> String {
        if let Self::Attach { cause, .. } = self
            && let Some(hint) = attach_hint(errno(cause.as_ref()))
        {
            return hint.to_owned();
        }
        self.to_string()
    }

    /// True if another program is attached.
    #[must_use]
    pub fn is_place_taken(&self) -> bool {
        let taken = [Errno::EBUSY, Errno::EEXIST];
        matches!(self, Self::Attach { .. })
            && self.errno().is_some_and(|errno| taken.contains(&errno))
    }

    /// True if the driver refused, for any reason: generic mode needs less. A missing permission, a missing interface and another
    /// attached program are the same in generic mode.
    pub(super) fn generic_may_help(&self) -> bool {
        let hopeless = [Errno::EPERM, Errno::ENODEV, Errno::EBUSY, Errno::EEXIST];
        matches!(self, Self::Attach { .. } | Self::Bond(_))
            && self.errno().is_none_or(|errno| !hopeless.contains(&errno))
    }
}

/// The errno at the end of a chain of causes.
pub(super) fn errno(error: &(dyn std::error::Error + 'static)) -> Option<Errno> {
    let chain = std::iter::successors(Some(error), |error| error.source());
    let io = chain.filter_map(|error| error.downcast_ref::<std::io::Error>());
    let raw = io.last().and_then(std::io::Error::raw_os_error);
    raw.map(Errno::from_raw)
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Load(cause) => {
                f.write_str("bpf(2) refuses the XDP program: ")?;
                match refusal(cause) {
                    Some((io_error, log)) => f.write_str(&refused(io_error, &log)),
                    None => {
                        let hint = load_hint(errno(cause.as_ref()));
                        write!(f, "{}{hint}", Chain(cause.as_ref()))
                    }
                }
            }
            Self::Contract(name) => write!(f, "the eBPF object has no usable \"{name}\""),
            Self::Mmap { name, cause } => write!(f, "mmap(2) of the array {name}: {cause}"),
            Self::Random(cause) => write!(f, "getrandom(2): {cause}"),
            Self::Interface { name, errno } => {
                let hint = load_hint(Some(*errno));
                write!(f, "interface \"{name}\": {}{hint}", errno.desc())
            }
            Self::Attach {
                interface,
                mode,
                cause,
            } => {
                let mode = mode_name(*mode);
                let chain = Chain(cause.as_ref());
                write!(f, "attaching XDP to {interface} in {mode} mode: {chain}")?;
                match attach_hint(errno(cause.as_ref())) {
                    Some(hint) => write!(f, " ({hint})"),
                    None => Ok(()),
                }
            }
            Self::Bond(interface) => write!(
                f,
                "{interface} is a bond: in native mode the program runs in its ports, whose frames no AF_XDP socket of the \
                 bond gets (mode \"generic\" works)"
            ),
            Self::Map { name, cause } => write!(f, "eBPF map {name}: {}", Chain(cause.as_ref())),
            Self::NoRoom { name, entries, max } => write!(
                f,
                "eBPF map {name}: {entries} entries for one interface, at most {max}"
            ),
            Self::NoShield => f.write_str("SYN cookies in XDP need Linux 6.0"),
            Self::Queue(queue) => {
                write!(f, "RX queue {queue}: the maps hold 0 to {}", QUEUES_MAX - 1)
            }
            Self::Refused(refusal) => write!(f, "{refusal}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Load(cause) => Some(cause.as_ref()),
            Self::Mmap { cause, .. } | Self::Random(cause) => Some(cause),
            Self::Interface { errno, .. } => Some(errno),
            Self::Attach { cause, .. } => Some(cause.as_ref()),
            Self::Map { cause, .. } => Some(cause.as_ref()),
            Self::Refused(refusal) => Some(refusal.as_ref()),
            Self::Contract(_)
            | Self::Bond(_)
            | Self::NoRoom { .. }
            | Self::NoShield
            | Self::Queue(_) => None,
        }
    }
}

/// The kernel's error for a refused program, and the verifier's log.
fn refusal(error: &EbpfError) -> Option<(&std::io::Error, String)> {
    if let EbpfError::ProgramError(ProgramError::LoadError {
        io_error,
        verifier_log,
    }) = error
    {
        return Some((io_error, verifier_log.to_string()));
    }
    None
}

/// Displays the line of a verifier log that gives the reason: the last one before the statistics; empty for an empty log.
struct VerifierLog<'a>(&'a str);

impl fmt::Display for VerifierLog<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const STATISTICS: [&str; 3] = ["processed ", "verification time ", "stack depth "];
        let is_statistics = |line: &&str| STATISTICS.iter().any(|word| line.starts_with(word));
        let lines = self.0.lines().map(str::trim).rev();
        match lines
            .filter(|line| !line.is_empty())
            .find(|line| !is_statistics(line))
        {
            Some(line) => write!(f, "; the verifier says: {line}"),
            None => Ok(()),
        }
    }
}

/// Displays an error and its causes in one line, without causes that their parent already quotes.
struct Chain<'a>(&'a (dyn std::error::Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.0.to_string();
        f.write_str(&said)?;
        for cause in std::iter::successors(self.0.source(), |error| error.source()) {
            let text = cause.to_string();
            if !said.contains(&text) {
                write!(f, ": {text}")?;
                said = text;
            }
        }
        Ok(())
    }
}

const fn mode_name(mode: XdpMode) -> &'static str {
    match mode {
        XdpMode::Default => "default",
        XdpMode::Skb => "generic",
        XdpMode::Driver => "native",
        XdpMode::Hardware => "offloaded",
    }
}

fn load_hint(errno: Option<Errno>) -> &'static str {
    match errno {
        Some(Errno::EPERM | Errno::EACCES) => " (needs CAP_BPF and CAP_NET_ADMIN, or root)",
        Some(Errno::EMFILE) => " (no descriptor is left: `ulimit -n`, LimitNOFILE)",
        Some(_) | None => "",
    }
}

/// Why the kernel refuses a program, and what is missing.
fn refused(error: &std::io::Error, log: &str) -> String {
    let hint = if log.is_empty() {
        load_hint(errno(error))
    } else {
        verifier_hint(log)
    };
    format!("{error}{}{hint}", VerifierLog(log))
}

/// What is missing where the verifier has looked at the program. It looks only for who has CAP_BPF and CAP_NET_ADMIN, and without
/// CAP_PERFMON it is stricter (kernel/bpf/verifier.c, `allow_ptr_leaks`).
fn verifier_hint(log: &str) -> &'static str {
    const STRICTER: [&str; 3] = ["corrupt spilled pointer", "!root", "unpriv"];
    if STRICTER.iter().any(|word| log.contains(word)) {
        " (needs CAP_PERFMON besides CAP_BPF and CAP_NET_ADMIN, or root)"
    } else {
        ""
    }
}

fn attach_hint(errno: Option<Errno>) -> Option<&'static str> {
    let hint = match errno {
        Some(Errno::EBUSY | Errno::EEXIST) => {
            "another XDP program is there: `ip link show` names its id, `bpftool net` its owner; only one fits"
        }
        Some(Errno::ERANGE) => {
            "the MTU is too large for native XDP: about 3500 without jumbo frames"
        }
        Some(Errno::EOPNOTSUPP) => {
            "the driver has no native XDP, or offloads such as LRO, GRO_HW or guest offloads stand in its way; \
             mode \"generic\" works anywhere"
        }
        Some(Errno::EINVAL) => {
            "the driver refuses the interface's settings, often the MTU; mode \"generic\" works anywhere"
        }
        Some(Errno::ENOSPC | Errno::ENOMEM) => {
            "too few queues or too little memory: on veth and virtio XDP needs spare queues"
        }
        Some(Errno::EPERM) => "needs CAP_NET_ADMIN and CAP_BPF, or root",
        Some(_) | None => return None,
    };
    Some(hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::xdp::Attached;
    use aya::sys::SyscallError;

    #[test]
    fn why_a_verifier_refuses_is_one_line_and_not_its_whole_log() {
        let steps = "0: R1=ctx() R10=fp0\n; let frame = unsafe {\n".repeat(200);
        let log = format!(
            "{steps}77: (71) r0 = *(u8 *)(r2 +9)\n invalid access to packet, off=9 size=1\n\
             verification time 312 usec\nstack depth 64\nprocessed 77 insns (limit 1000000) max_states_per_insn 1\n\n"
        );
        assert_eq!(
            VerifierLog(&log).to_string(),
            "; the verifier says: invalid access to packet, off=9 size=1"
        );
        for nothing in ["", "\n", "processed 7 insns\n"] {
            assert_eq!(VerifierLog(nothing).to_string(), "");
        }
    }

    /// The verifier looks at a program only for who has CAP_BPF and CAP_NET_ADMIN.
    #[test]
    fn what_is_missing_to_load_a_program_is_told_by_who_refuses_it() {
        let told = |errno, log: &str| refused(&std::io::Error::from_raw_os_error(errno), log);
        for (errno, log, expected) in [
            (
                libc::EACCES,
                "9: (7b) *(u64 *)(r10 -8) = r1\nattempt to corrupt spilled pointer on stack\nprocessed 9 insns\n",
                "Permission denied (os error 13); the verifier says: attempt to corrupt spilled pointer on stack (needs CAP_PERFMON besides CAP_BPF and CAP_NET_ADMIN, or root)",
            ),
            (
                libc::EACCES,
                "invalid access to packet, off=9 size=1\n",
                "Permission denied (os error 13); the verifier says: invalid access to packet, off=9 size=1",
            ),
            (
                libc::EPERM,
                "",
                "Operation not permitted (os error 1) (needs CAP_BPF and CAP_NET_ADMIN, or root)",
            ),
        ] {
            assert_eq!(told(errno, log), expected);
        }
    }

    #[test]
    fn a_device_that_cannot_be_asked_for_is_not_said_to_be_missing() {
        let told = |errno| {
            let name = "lan0".into();
            Error::Interface { name, errno }.plain()
        };
        assert_eq!(
            told(Errno::EMFILE),
            "interface \"lan0\": Too many open files (no descriptor is left: `ulimit -n`, LimitNOFILE)"
        );
        assert_eq!(told(Errno::ENODEV), "interface \"lan0\": No such device");
    }

    #[test]
    fn why_a_mode_is_generic_or_none_is_one_plain_line() {
        for (errno, reason, plain) in [
            (
                libc::EOPNOTSUPP,
                "the driver has no native XDP, or its offloads stand in the way",
                "the driver has no native XDP, or offloads such as ",
            ),
            (
                libc::ERANGE,
                "the MTU is too large for the driver's native XDP",
                "the MTU is too large for native XDP",
            ),
            (
                libc::EINVAL,
                "the driver refuses native XDP with this interface's settings",
                "the driver refuses the interface's settings",
            ),
            (
                libc::ENOSPC,
                "too few queues or too little memory for native XDP",
                "too few queues or too little memory",
            ),
            (
                libc::EBUSY,
                "the driver refuses native XDP",
                "another XDP program is there",
            ),
            (
                libc::EPERM,
                "the driver refuses native XDP",
                "needs CAP_NET_ADMIN and CAP_BPF",
            ),
            // An errno without a hint: the full error is shown.
            (
                libc::EIO,
                "the driver refuses native XDP",
                "attaching XDP to eth0 in native mode: `bpf_link_create` failed",
            ),
        ] {
            let cause = ProgramError::SyscallError(SyscallError {
                call: "bpf_link_create",
                io_error: std::io::Error::from_raw_os_error(errno),
            });
            let error = Error::Attach {
                interface: "eth0".into(),
                mode: XdpMode::Driver,
                cause: Box::new(cause),
            };
            assert!(error.to_string().contains("bpf_link_create"), "{error}");
            let said = error.plain();
            assert!(said.starts_with(plain), "{said}");
            let is_known = errno != libc::EIO;
            assert_eq!(!said.contains("os error"), is_known, "{said}");
            let attached = Attached::GenericInstead(error).to_string();
            assert_eq!(attached, format!("generic: {reason}"));
        }
        let bond = Error::Bond("bond0".into());
        assert!(bond.generic_may_help() && bond.to_string().contains("\"generic\" works"));
        let attached = Attached::GenericInstead(bond).to_string();
        assert!(attached.starts_with("generic: it is a bond"), "{attached}");
    }
}
