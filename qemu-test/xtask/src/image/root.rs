//! The root file system: busybox, our overlay and init scripts, and the server, as one read-only squashfs.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::tool::run;
use crate::workspace;
use xdnsd_lab::process::output_of;

const MODE_PROGRAM: u32 = 0o755;
const MODE_FILE: u32 = 0o644;
/// Mount points and directories that only have to exist.
const DIRECTORIES: [&str; 16] = [
    "etc/network/if-down.d",
    "etc/network/if-post-down.d",
    "etc/network/if-pre-up.d",
    "etc/network/if-up.d",
    "bin",
    "data",
    "dev",
    "mnt",
    "proc",
    "root",
    "run",
    "sbin",
    "sys",
    "tmp",
    "usr/bin",
    "usr/sbin",
];
/// Volatile directories: links into the two file systems in memory.
const VAR_LINKS: [(&str, &str); 5] = [
    ("run", "../run"),
    ("lock", "../run"),
    ("log", "../tmp"),
    ("tmp", "../tmp"),
    // Also in post-build.sh.
    ("lib/xdnsd", "/data/xdnsd"),
];

/// Parts of a root.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    /// The unpacked userland packages.
    pub userland: &'a Path,
    /// A busybox that runs on this machine, to list its applets.
    pub host_userland: &'a Path,
    /// The server.
    pub server: &'a Path,
}

/// Assembles the tree at `root`, which is made anew.
pub fn assemble(root: &Path, parts: Parts<'_>) -> Result<()> {
    if root.exists() {
        fs::remove_dir_all(root).with_context(|| format!("remove the old {}", root.display()))?;
    }
    for directory in DIRECTORIES {
        fs::create_dir_all(root.join(directory)).with_context(|| format!("create {directory}"))?;
    }
    install_busybox(root, parts)?;
    copy_tree(
        &workspace::root().join("qemu-test/image-skeleton/etc"),
        &root.join("etc"),
    )?;
    copy_tree(
        &workspace::root().join("buildroot/board/xdnsd/rootfs-overlay"),
        root,
    )?;
    install_package(root, parts.server)?;
    fs::create_dir_all(root.join("var/lib")).context("create var/lib")?;
    for (name, target) in VAR_LINKS {
        symlink(target, root.join("var").join(name)).with_context(|| format!("link var/{name}"))?;
    }
    symlink("../run/resolv.conf", root.join("etc/resolv.conf")).context("link resolv.conf")
}

/// Compresses the tree at `root` into `image`, everything owned by root. xz would be a quarter smaller and take three times as
/// long to read, in each boot.
pub fn compress(root: &Path, image: &Path) -> Result<()> {
    let mut command = Command::new("mksquashfs");
    command.arg(root).arg(image);
    command.args([
        "-noappend",
        "-all-root",
        "-comp",
        "gzip",
        "-b",
        "256K",
        "-no-progress",
        "-quiet",
    ]);
    // The same files give the same image.
    command.args(["-mkfs-time", "0", "-all-time", "0", "-no-xattrs"]);
    run(&mut command)
}

fn install_busybox(root: &Path, parts: Parts<'_>) -> Result<()> {
    install(
        &parts.userland.join("bin/busybox"),
        &root.join("bin/busybox"),
        MODE_PROGRAM,
    )?;
    let applets =
        output_of(Command::new(parts.host_userland.join("bin/busybox")).arg("--list-full"))?;
    for applet in applets
        .lines()
        .filter(|applet| !applet.ends_with("/busybox"))
    {
        let path = root.join(applet);
        let parent = path.parent().context("an applet has a directory")?;
        fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
        symlink("/bin/busybox", &path).with_context(|| format!("link {applet}"))?;
    }
    Ok(())
}

/// Installs the files that `package/xdnsd/xdnsd.mk` installs.
fn install_package(root: &Path, server: &Path) -> Result<()> {
    let package = workspace::root().join("buildroot/package/xdnsd");
    install(server, &root.join("usr/bin/xdnsd"), MODE_PROGRAM)?;
    install(
        &package.join("S60xdnsd"),
        &root.join("etc/init.d/S60xdnsd"),
        MODE_PROGRAM,
    )?;
    for script in ["supervise", "fetch-lists"] {
        let to = root.join("usr/libexec/xdnsd").join(script);
        install(&package.join(script), &to, MODE_PROGRAM)?;
    }
    Ok(())
}

/// Copies one file, following links; makes its directory and sets its mode.
pub(super) fn install(from: &Path, to: &Path, mode: u32) -> Result<()> {
    let parent = to.parent().context("a file has a directory")?;
    fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
    if to.is_symlink() {
        fs::remove_file(to).with_context(|| format!("remove the link {}", to.display()))?;
    }
    fs::copy(from, to).with_context(|| format!("copy {} to {}", from.display(), to.display()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(mode))
        .with_context(|| format!("set the mode of {}", to.display()))
}

/// Copies a tree of files and directories over another. Of the modes only the executable bit is kept.
fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    let mut pairs: Vec<(PathBuf, PathBuf)> = vec![(from.to_owned(), to.to_owned())];
    while let Some((from, to)) = pairs.pop() {
        fs::create_dir_all(&to).with_context(|| format!("create {}", to.display()))?;
        for entry in fs::read_dir(&from).with_context(|| format!("list {}", from.display()))? {
            let entry = entry.context("read a directory")?;
            let target = to.join(entry.file_name());
            let kind = entry.metadata().context("look at an entry")?;
            if kind.is_dir() {
                pairs.push((entry.path(), target));
            } else if entry.file_name() != ".keep" {
                let is_program = kind.permissions().mode() & 0o100 != 0;
                install(
                    &entry.path(),
                    &target,
                    if is_program { MODE_PROGRAM } else { MODE_FILE },
                )?;
            }
        }
    }
    Ok(())
}
