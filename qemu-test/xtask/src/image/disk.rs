//! Disks for a virtual machine: the data partition by itself, and the one disk that is flashed.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::Image;
use super::packages::{Packages, Role};
use super::root::{compress, install};
use super::tool::run;
use crate::workspace;

/// Bytes of a data partition on its own disk.
const DATA_BYTES: u64 = 32 << 20;
/// Offset of the fourth partition's first sector in the partition table: after 446 bytes of code and three entries of 16 bytes, 8
/// bytes into its own.
const LAST_PARTITION_START: usize = 446 + 3 * 16 + 8;
/// Offsets of the slots in genimage.cfg.
const SLOT_STARTS: [u64; 2] = [9 << 20, 41 << 20];
/// GRUB modules to find, read and choose a slot.
const LOADER_MODULES: [&str; 18] = [
    "biosdisk",
    "part_msdos",
    "squash4",
    "gzio",
    "linux",
    "normal",
    "configfile",
    "serial",
    "terminal",
    "test",
    "regexp",
    "loadenv",
    "echo",
    "minicmd",
    "boot",
    "fat",
    "sleep",
    "reboot",
];

/// Makes a file system labelled `data` at `path`, with the files below `content`, if given.
pub fn make_data(path: &Path, content: Option<&Path>) -> Result<()> {
    let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
    file.set_len(DATA_BYTES)
        .with_context(|| format!("size {}", path.display()))?;
    let mut command = Command::new("mke2fs");
    command.args(["-q", "-F", "-t", "ext4", "-L", "data", "-m", "0"]);
    command.args([
        "-E",
        "root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0",
    ]);
    if let Some(content) = content {
        command.arg("-d").arg(content);
    }
    run(command.arg(path))
}

/// Makes a data disk with `config` as `/etc/xdnsd/xdnsd.toml`.
pub fn make_data_with_config(path: &Path, config: &str) -> Result<()> {
    let content = path.with_extension("content");
    let directory = content.join("etc/xdnsd");
    fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
    fs::write(directory.join("xdnsd.toml"), config)
        .context("write the data disk's configuration")?;
    make_data(path, Some(&content))?;
    fs::remove_dir_all(&content).with_context(|| format!("remove {}", content.display()))
}

/// Makes a slot: the root with its kernel inside.
pub fn make_slot(image: &Image, path: &Path) -> Result<()> {
    let tree = path.with_extension("tree");
    if tree.exists() {
        fs::remove_dir_all(&tree).with_context(|| format!("remove {}", tree.display()))?;
    }
    run(Command::new("cp")
        .arg("-a")
        .arg(image.directory.join("root"))
        .arg(&tree))?;
    install(&image.kernel, &tree.join("boot/bzImage"), 0o644)?;
    if let Some(initrd) = &image.initrd {
        install(initrd, &tree.join("boot/initrd"), 0o644)?;
    }
    compress(&tree, path)?;
    fs::remove_dir_all(&tree).with_context(|| format!("remove {}", tree.display()))
}

/// Makes a root at `path` with one file replaced, as if the overlay had been edited before the build.
pub fn make_root_with(image: &Image, file: &str, text: &str, path: &Path) -> Result<()> {
    let tree = path.with_extension("tree");
    run(Command::new("cp")
        .arg("-a")
        .arg(image.directory.join("root"))
        .arg(&tree))?;
    fs::write(tree.join(file), text).with_context(|| format!("write {file}"))?;
    compress(&tree, path)?;
    fs::remove_dir_all(&tree).with_context(|| format!("remove {}", tree.display()))
}

/// Overwrites the beginning of both slots of a disk.
pub fn ruin_slots(disk: &Path) -> Result<()> {
    let file = File::options().write(true).open(disk);
    let file = file.with_context(|| format!("open {}", disk.display()))?;
    for start in SLOT_STARTS {
        file.write_all_at(&[0; 1 << 16], start)
            .with_context(|| format!("write {}", disk.display()))?;
    }
    Ok(())
}

/// Makes the disk to flash, in `work`, with Buildroot's script, and `config` on its data partition.
pub fn make_disk(
    image: &Image,
    packages: &mut Packages,
    config: Option<&str>,
    work: &Path,
) -> Result<PathBuf> {
    if work.exists() {
        fs::remove_dir_all(work).with_context(|| format!("remove {}", work.display()))?;
    }
    let (images, data) = (work.join("images"), work.join("data"));
    let etc = data.join("etc/xdnsd");
    for directory in [&images, &etc] {
        fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
    }
    if let Some(config) = config {
        fs::write(etc.join("xdnsd.toml"), config).context("write the configuration")?;
    }
    make_slot(image, &images.join("rootfs.squashfs"))?;
    make_loader(image, packages, &images)?;
    let script = workspace::root().join("buildroot/board/xdnsd/make-disk.sh");
    run(Command::new(script).arg(&images).arg(&data))?;
    Ok(images.join("disk.img"))
}

/// Copies an image's disk to `path`, with `config` on the data partition, its last.
pub fn copy_disk(disk: &Path, config: &str, path: &Path) -> Result<()> {
    fs::copy(disk, path).with_context(|| format!("copy {}", disk.display()))?;
    let file = path.with_extension("toml");
    fs::write(&file, config).context("write the disk's configuration")?;
    let commands = path.with_extension("debugfs");
    let lines = format!(
        "mkdir etc\nmkdir etc/xdnsd\nwrite {} etc/xdnsd/xdnsd.toml\n",
        file.display()
    );
    fs::write(&commands, lines).context("write what debugfs is to do")?;
    let partition = format!("{}?offset={}", path.display(), start_of_data(path)?);
    run(Command::new("debugfs")
        .args(["-w", "-f"])
        .arg(&commands)
        .arg(partition))
}

/// Offset of the last of the four partitions in bytes, from the partition table.
fn start_of_data(disk: &Path) -> Result<u64> {
    let mut sector = [0; 512];
    let file = File::open(disk).with_context(|| format!("open {}", disk.display()))?;
    file.read_exact_at(&mut sector, 0)
        .with_context(|| format!("read {}", disk.display()))?;
    let start = sector[LAST_PARTITION_START..][..4].try_into()?;
    Ok(u64::from(u32::from_le_bytes(start)) * 512)
}

/// GRUB for a BIOS, with all modules built in: it finds `grub.cfg` in the first partition.
fn make_loader(image: &Image, packages: &mut Packages, images: &Path) -> Result<()> {
    let loader = packages.unpack(Role::Loader, image.arch)?;
    let modules = loader.join("usr/lib/grub/i386-pc");
    let mut mkimage = Command::new(loader.join("usr/bin/grub-mkimage"));
    mkimage
        .args(["-O", "i386-pc", "-p", "(hd0,msdos1)/boot/grub", "-d"])
        .arg(&modules);
    mkimage
        .arg("-o")
        .arg(images.join("grub.img"))
        .args(LOADER_MODULES);
    run(&mut mkimage)?;
    install(&modules.join("boot.img"), &images.join("boot.img"), 0o644)
}
