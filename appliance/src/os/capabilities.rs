//! What the process may do as root could (capabilities(7)).

use std::io;

use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, remove_capability_from_bounding_set, set_capabilities,
};

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

/// Sets what this thread may do to `capabilities`; a program that it starts inherits none.
///
/// # Errors
/// capset(2) failed: the thread has not all of them.
pub fn set(capabilities: CapabilitySet) -> io::Result<()> {
    let sets = CapabilitySets {
        effective: capabilities,
        permitted: capabilities,
        inheritable: CapabilitySet::empty(),
    };
    Ok(set_capabilities(None, sets)?)
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
        let wanted = [
            ("Bnd", kept.bits()),
            ("Eff", kept.bits()),
            ("Inh", 0),
            ("Prm", kept.bits()),
        ];
        for (name, mask) in wanted {
            assert_eq!(left.get(name), Some(&mask), "Cap{name}");
        }
    }
}
