//! What the process may do as root could (capabilities(7)).

use std::io;

use log::debug;
use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, remove_capability_from_bounding_set,
    set_capabilities,
};

/// Files of other accounts, which root reads and writes: for threads that read or write files.
pub const FILES: CapabilitySet = CapabilitySet::DAC_OVERRIDE
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::CHOWN)
    .union(CapabilitySet::FOWNER);
/// The same, and maps for prefixes that programs look into: for threads that make such maps.
pub const FILES_AND_MAPS: CapabilitySet = FILES.union(CapabilitySet::BPF);
/// Packets with a header of our own: for a thread that asks upstream servers.
pub const PACKETS: CapabilitySet = CapabilitySet::NET_RAW;
/// Ports below 1024 and settings of the kernel, and what the threads that it starts have of theirs: for the first thread.
pub const FIRST: CapabilitySet = FILES
    .union(PACKETS)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::NET_ADMIN);
/// For a thread that has all that it needs in hand.
pub const NONE: CapabilitySet = CapabilitySet::empty();

/// Gives up what the calling thread, and those that it starts, do not need: all but `kept`. Whoever gets a thread to make system
/// calls of his own has its rights and no others.
pub fn keep(kept: CapabilitySet) {
    if let Err(error) = limit(kept) {
        debug!("capset: {error}");
    }
}

/// Takes every capability but those of `kept` from what this thread, and a program that it starts, can ever have again.
///
/// # Errors
/// prctl(2) failed: the thread may not change its bounding set.
pub fn bound(kept: CapabilitySet) -> io::Result<()> {
    for bit in 0..u64::BITS {
        // By its number: a kernel may have capabilities without a name here.
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        if kept.contains(capability) {
            continue;
        }
        match remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // Above the last that this kernel knows.
            Err(Errno::INVAL) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Sets what this thread may do to `wanted`; a program that it starts inherits none.
///
/// # Errors
/// capset(2) failed: the thread has not all of them.
pub fn set(wanted: CapabilitySet) -> io::Result<()> {
    let sets = CapabilitySets {
        effective: wanted,
        permitted: wanted,
        inheritable: CapabilitySet::empty(),
    };
    Ok(set_capabilities(None, sets)?)
}

/// Gives up what this thread may do besides `kept`.
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

    /// What /proc says of this thread's capabilities, by name.
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
        // Capabilities are a thread's, and this one ends.
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
