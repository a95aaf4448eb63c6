//! Capabilities of the process and its threads (capabilities(7)).

use std::io;

use log::debug;
use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, remove_capability_from_bounding_set,
    set_capabilities,
};

/// Access to other accounts' files: for threads that read or write files.
pub const FILES: CapabilitySet = CapabilitySet::DAC_OVERRIDE
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::CHOWN)
    .union(CapabilitySet::FOWNER);
/// [`FILES`] and BPF maps: for threads that make maps of prefixes.
pub const FILES_AND_MAPS: CapabilitySet = FILES.union(CapabilitySet::BPF);
/// Raw packets: for a thread that asks upstream servers.
pub const PACKETS: CapabilitySet = CapabilitySet::NET_RAW;
/// Settings of the network: for a thread that changes tables of the packet filter.
pub const NETWORK: CapabilitySet = CapabilitySet::NET_ADMIN;
/// Ports below 1024, kernel settings, and the capabilities of threads that it starts: for the first thread.
pub const FIRST: CapabilitySet = FILES
    .union(PACKETS)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::NET_ADMIN);
/// Another account: for a process that is to split.
pub const ACCOUNTS: CapabilitySet = CapabilitySet::SETUID.union(CapabilitySet::SETGID);
/// What a process has besides until it is known whether it is to split: also the right to drop those from the bounding set.
pub const UNTIL_SETTLED: CapabilitySet = ACCOUNTS.union(CapabilitySet::SETPCAP);
/// For the keeper's thread of sockets: AF_XDP, raw ones, ports below 1024, a send buffer beyond `net.core.wmem_max`.
pub const KEEPER_SOCKETS: CapabilitySet = PACKETS
    .union(NETWORK)
    .union(CapabilitySet::NET_BIND_SERVICE);
/// For the keeper's first thread: programs and their attachment, kernel settings, the control socket's group.
pub const KEEPER_OBJECTS: CapabilitySet = NETWORK
    .union(CapabilitySet::BPF)
    .union(CapabilitySet::PERFMON)
    .union(CapabilitySet::CHOWN);
/// For the keeper, all of its threads together.
pub const KEEPER: CapabilitySet = KEEPER_SOCKETS.union(KEEPER_OBJECTS);
/// For a thread that already has all descriptors that it needs.
pub const NONE: CapabilitySet = CapabilitySet::empty();

/// Drops all capabilities but `kept` for the calling thread and the threads that it starts. An attacker who gets a thread to make
/// system calls has that thread's capabilities only.
pub fn keep(kept: CapabilitySet) {
    if let Err(error) = limit(kept) {
        debug!("capset: {error}");
    }
}

/// Removes every capability but `kept` from the bounding set of this thread, and so of a program that it executes.
///
/// # Errors
/// prctl(2) failed: the thread may not change its bounding set.
pub fn bound(kept: CapabilitySet) -> io::Result<()> {
    for bit in 0..u64::BITS {
        // By number: a kernel may have capabilities without a name here.
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        if kept.contains(capability) {
            continue;
        }
        match remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // Beyond the last capability of this kernel.
            Err(Errno::INVAL) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Sets this thread's capabilities to `wanted`; a program that it executes inherits none.
///
/// # Errors
/// capset(2) failed: the thread lacks one of them.
pub fn set(wanted: CapabilitySet) -> io::Result<()> {
    let sets = CapabilitySets {
        effective: wanted,
        permitted: wanted,
        inheritable: CapabilitySet::empty(),
    };
    Ok(set_capabilities(None, sets)?)
}

/// True if this thread may use all of `wanted`.
#[must_use]
pub fn has(wanted: CapabilitySet) -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(wanted))
}

/// Drops this thread's capabilities except `kept`.
///
/// # Errors
/// capget(2) or capset(2) failed.
pub fn limit(kept: CapabilitySet) -> io::Result<()> {
    let has = capabilities(None)?.permitted;
    set(has.intersection(kept))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::{fs, thread};
    use xdnsd_lab::privilege::root_or_skip;

    /// Capability masks of this thread in /proc, by name.
    fn masks() -> BTreeMap<String, u64> {
        let status = fs::read_to_string("/proc/thread-self/status").expect("/proc");
        let masks = status.lines().filter_map(|line| {
            let (name, mask) = line.strip_prefix("Cap")?.split_once(":\t")?;
            Some((name.to_owned(), u64::from_str_radix(mask, 16).ok()?))
        });
        masks.collect()
    }

    #[test]
    fn what_is_kept_is_all_that_is_left() {
        if !root_or_skip("what_is_kept_is_all_that_is_left") {
            return;
        }
        let kept = CapabilitySet::NET_ADMIN.union(CapabilitySet::BPF);
        // Capabilities are per thread, and this thread ends.
        let left = thread::spawn(move || {
            bound(kept).expect("root may");
            set(kept).expect("root has them");
            masks()
        });
        let left = left.join().expect("it ends");
        let told = [
            ("Bnd", kept.bits()),
            ("Eff", kept.bits()),
            ("Inh", 0),
            ("Prm", kept.bits()),
        ];
        for (name, mask) in told {
            assert_eq!(left.get(name), Some(&mask), "Cap{name}");
        }
    }
    #[test]
    fn what_is_limited_is_what_was_there_and_no_more() {
        let before = masks();
        let kept = CapabilitySet::NET_ADMIN.union(CapabilitySet::BPF);
        let left = thread::spawn(move || {
            limit(kept).expect("anybody may");
            masks()
        });
        let left = left.join().expect("it ends");
        let expected = before["Prm"] & kept.bits();
        for name in ["Eff", "Prm"] {
            assert_eq!(left.get(name), Some(&expected), "Cap{name}");
        }
        assert_eq!(left.get("Inh"), Some(&0));
    }
}
