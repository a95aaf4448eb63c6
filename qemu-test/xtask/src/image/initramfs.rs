//! First root of a kernel with modular drivers: busybox, the modules in order, one script.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::cpio::Archive;
use super::modules::collect;
use super::tool::bytes;
use crate::workspace;

/// Modules needed before and after the root is mounted. [`collect`] leaves out those that a kernel has built in.
const MODULES: [&str; 16] = [
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "virtio_rng",
    "virtio_mmio",
    "squashfs",
    "overlay",
    "8021q",
    "bridge",
    "i6300esb",
    "button",
    "evdev",
    "ext4",
    "af_packet",
    "xsk_diag",
    "ipv6",
];
/// Busybox applets that the script calls.
const APPLETS: [&str; 17] = [
    "[",
    "basename",
    "cat",
    "dd",
    "dirname",
    "echo",
    "head",
    "hexdump",
    "insmod",
    "mount",
    "readlink",
    "sed",
    "sh",
    "sleep",
    "switch_root",
    "tr",
    "umount",
];
/// Devices that a kernel opens before anything is mounted.
const DEVICES: [(&str, u32, u32); 2] = [("dev/console", 5, 1), ("dev/null", 1, 3)];

/// Writes the archive for the kernel with the modules below `modules` to `path`.
pub fn write(modules: &Path, busybox: &Path, path: &Path) -> Result<()> {
    let mut archive = Archive::default();
    for directory in ["bin", "dev", "modules", "proc", "root", "sys"] {
        archive.directory(directory);
    }
    for (name, major, minor) in DEVICES {
        archive.character_device(name, major, minor);
    }
    let read = |path: &Path| fs::read(path).with_context(|| format!("read {}", path.display()));
    archive.program(
        "init",
        &read(&workspace::root().join("qemu-test/image-skeleton/init"))?,
    );
    archive.program("bin/busybox", &read(busybox)?);
    for applet in APPLETS {
        archive.link(&format!("bin/{applet}"), "busybox");
    }
    let mut order = String::new();
    for module in collect(modules, &MODULES)? {
        let file = format!("{}.ko", module.name);
        archive.program(&format!("modules/{file}"), &module.object);
        order.push_str(&file);
        order.push('\n');
    }
    archive.program("modules/order", order.as_bytes());
    let plain = path.with_extension("cpio");
    fs::write(&plain, archive.finish()).with_context(|| format!("write {}", plain.display()))?;
    // The kernel's decoder supports only CRC32, and uses as much memory as the dictionary is large.
    let packed = bytes(
        Command::new("xz")
            .args(["--lzma2=preset=9,dict=1MiB", "--check=crc32", "-c"])
            .arg(&plain),
    )?;
    fs::write(path, packed).with_context(|| format!("write {}", path.display()))
}
