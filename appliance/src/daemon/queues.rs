//! Numbers of an interface's queues, as the kernel has them now.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Numbers of RX and TX queues. virtio-net gets more RX queues than TX queues when a program is attached.
///
/// # Errors
/// There is no such interface, or no sysfs.
pub(super) fn count(interface: &str) -> io::Result<(u32, u32)> {
    let (mut rx, mut tx) = (0, 0);
    for entry in fs::read_dir(folder(interface))? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        rx += u32::from(name.starts_with("rx-"));
        tx += u32::from(name.starts_with("tx-"));
    }
    Ok((rx, tx))
}

/// True if an RX queue and a TX queue with this number exist.
pub(super) fn has(interface: &str, number: u32) -> bool {
    let folder = folder(interface);
    let is_there = |kind| folder.join(format!("{kind}-{number}")).exists();
    is_there("rx") && is_there("tx")
}

fn folder(interface: &str) -> PathBuf {
    Path::new("/sys/class/net").join(interface).join("queues")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The loopback device has one queue of each kind, wherever it is.
    #[test]
    fn a_queue_is_there_or_not() {
        assert_eq!(count("lo").ok(), Some((1, 1)));
        assert!(has("lo", 0) && !has("lo", 1));
        assert!(count("no-such-if").is_err() && !has("no-such-if", 0));
    }
}
