//! Disks for a virtual machine: the data partition by itself, and the one disk that is flashed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::Image;
use super::packages::{Packages, Role};
use super::root::{compress, install};
use super::tool::run;
use crate::workspace;

/// The size of a data partition that is a disk of its own.
const DATA_BYTES: u64 = 32 << 20;
const SECTOR: usize = 512;
/// GRUB's core image begins behind the master boot record.
const CORE_SECTOR: usize = 1;
/// The environment block is at sector 1024, in the gap before the first partition.
const ENVIRONMENT_OFFSET: usize = 1024 * SECTOR;
const ENVIRONMENT_BYTES: usize = 1024;
const ENVIRONMENT_START: &str = "# GRUB Environment Block\ngood=a\ntry=\n";
/// What the loader needs to find, read and choose a slot.
const LOADER_MODULES: [&str; 16] = [
    "biosdisk",
    "part_msdos",
    "squash4",
    "xzio",
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
];

/// A new file system labelled `data` at `path`, with what is below `content`, if anything.
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

/// A data disk whose `/etc/xdnsd/xdnsd.toml` is `config`.
pub fn make_data_with_config(path: &Path, config: &str) -> Result<()> {
    let content = path.with_extension("content");
    let directory = content.join("etc/xdnsd");
    fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
    fs::write(directory.join("xdnsd.toml"), config)
        .context("write the data disk's configuration")?;
    make_data(path, Some(&content))?;
    fs::remove_dir_all(&content).with_context(|| format!("remove {}", content.display()))
}

/// A slot: the root with its kernel inside.
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

/// The disk that is flashed, by the same `genimage.cfg` as Buildroot's, with `config` on its data partition.
pub fn make_disk(image: &Image, packages: &mut Packages, config: Option<&str>) -> Result<PathBuf> {
    let work = image.directory.join("disk");
    if work.exists() {
        fs::remove_dir_all(&work).with_context(|| format!("remove {}", work.display()))?;
    }
    let inputs = work.join("inputs");
    let root = work.join("root");
    fs::create_dir_all(root.join("data/etc/xdnsd"))
        .context("create the data partition's content")?;
    fs::create_dir_all(inputs.join("efi-part/EFI"))
        .context("create the boot partition's content")?;
    if let Some(config) = config {
        fs::write(root.join("data/etc/xdnsd/xdnsd.toml"), config)
            .context("write the configuration")?;
    }
    make_slot(image, &inputs.join("rootfs.squashfs"))?;
    let output = work.join("images");
    let mut genimage = Command::new("genimage");
    genimage
        .arg("--config")
        .arg(workspace::root().join("buildroot/board/xdnsd/genimage.cfg"));
    genimage
        .arg("--rootpath")
        .arg(&root)
        .arg("--tmppath")
        .arg(work.join("tmp"));
    run(genimage
        .arg("--inputpath")
        .arg(&inputs)
        .arg("--outputpath")
        .arg(&output))?;
    let disk = output.join("disk.img");
    install_loader(image, packages, &disk, &work)?;
    Ok(disk)
}

/// Writes GRUB for a BIOS into the gap before the first partition, with an environment block that names slot a.
fn install_loader(image: &Image, packages: &mut Packages, disk: &Path, work: &Path) -> Result<()> {
    let loader = packages.unpack(Role::Loader, image.arch)?;
    let modules = loader.join("usr/lib/grub/i386-pc");
    let core = work.join("core.img");
    let mut mkimage = Command::new(loader.join("usr/bin/grub-mkimage"));
    mkimage
        .args(["-O", "i386-pc", "-p", "/", "-c"])
        .arg(workspace::root().join("buildroot/board/xdnsd/grub.cfg"));
    mkimage
        .arg("-d")
        .arg(&modules)
        .arg("-o")
        .arg(&core)
        .args(LOADER_MODULES);
    run(&mut mkimage)?;
    let boot = fs::read(modules.join("boot.img")).context("read GRUB's boot.img")?;
    let core = fs::read(&core).context("read GRUB's core image")?;
    let mut bytes = fs::read(disk).with_context(|| format!("read {}", disk.display()))?;
    write_loader(&mut bytes, &boot, &core)?;
    fs::write(disk, bytes).with_context(|| format!("write {}", disk.display()))
}

/// The boot code ends where the partition table and the disk's signature begin. boot.img's and core.img's own defaults
/// say "sector 1" and "from sector 2 on", which is where they are put.
fn write_loader(disk: &mut [u8], boot: &[u8], core: &[u8]) -> Result<()> {
    const BOOT_CODE: usize = 440;
    let core_at = CORE_SECTOR * SECTOR;
    anyhow::ensure!(
        core_at + core.len() <= ENVIRONMENT_OFFSET,
        "GRUB's core image reaches into its environment block"
    );
    anyhow::ensure!(
        boot.len() == SECTOR && disk.len() > ENVIRONMENT_OFFSET + ENVIRONMENT_BYTES,
        "no boot sector or no disk"
    );
    disk[..BOOT_CODE].copy_from_slice(&boot[..BOOT_CODE]);
    disk[core_at..core_at + core.len()].copy_from_slice(core);
    let environment = &mut disk[ENVIRONMENT_OFFSET..ENVIRONMENT_OFFSET + ENVIRONMENT_BYTES];
    environment.fill(b'#');
    environment[..ENVIRONMENT_START.len()].copy_from_slice(ENVIRONMENT_START.as_bytes());
    Ok(())
}
