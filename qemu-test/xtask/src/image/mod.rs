//! `cargo xtask image`: the appliance's image without Buildroot, in seconds.
//!
//! Kernel and userland come from Debian's packages; overlay, init scripts, their order, configuration and server are the files
//! that Buildroot uses. The image is for tests and demonstrations, and is no firmware.

pub mod cpio;
pub mod disk;
mod initramfs;
pub mod modules;
pub mod packages;
mod root;
pub mod server;
mod tool;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};

use crate::setup::{self, Purpose};
use crate::signals::Signals;
use crate::workspace;
use packages::{Packages, Role};
use root::Parts;

/// Architecture of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arch {
    /// A PC; QEMU's q35.
    X86_64,
    /// 64-bit Arm; QEMU's virt.
    Aarch64,
}

impl Arch {
    /// Name in Linux and Buildroot.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// Name in Debian.
    #[must_use]
    pub fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }
}

impl ValueEnum for Arch {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::X86_64, Self::Aarch64]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()))
    }
}

/// A guest kernel of the test matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// The oldest supported kernel.
    V6_1,
    /// The kernel of Debian stable.
    V6_12,
    /// The newest kernel that Debian packages for its stable release; AF_XDP zero copy on virtio-net.
    Newest,
}

impl Kernel {
    /// All, oldest first.
    pub const ALL: [Self; 3] = [Self::V6_1, Self::V6_12, Self::Newest];

    /// Name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
            Self::Newest => "newest",
        }
    }
}

impl ValueEnum for Kernel {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()))
    }
}

/// A bootable image.
#[derive(Debug, Clone)]
pub struct Image {
    /// Directory of its files.
    pub directory: PathBuf,
    /// Its architecture.
    pub arch: Arch,
    /// The kernel.
    pub kernel: PathBuf,
    /// The first root, if the kernel needs one.
    pub initrd: Option<PathBuf>,
    /// The root file system.
    pub root: PathBuf,
    /// The disk to flash, if the image has one.
    pub disk: Option<PathBuf>,
    /// Pinned packages that the mirror lacks, with their substitutes.
    pub substitutions: Vec<String>,
}

impl Image {
    /// Opens an image built elsewhere: a directory with a kernel and `rootfs.squashfs`, like Buildroot's `output/images`.
    pub fn open(directory: &Path) -> Result<Self> {
        let find = |names: &[&str]| {
            names
                .iter()
                .map(|name| directory.join(name))
                .find(|path| path.exists())
        };
        let pc = find(&["bzImage"]).map(|kernel| (kernel, Arch::X86_64));
        let found = pc.or_else(|| find(&["Image"]).map(|kernel| (kernel, Arch::Aarch64)));
        let (kernel, arch) = found
            .with_context(|| format!("neither bzImage nor Image in {}", directory.display()))?;
        let root = find(&["rootfs.squashfs", "root.squashfs"]);
        let root =
            root.with_context(|| format!("no rootfs.squashfs in {}", directory.display()))?;
        let initrd = find(&["initrd"]);
        Ok(Self {
            directory: directory.to_owned(),
            arch,
            kernel,
            initrd,
            root,
            disk: find(&["disk.img"]),
            substitutions: Vec::new(),
        })
    }
}

/// Image to build.
#[derive(Debug, Clone, Args)]
pub struct Recipe {
    /// For which machine.
    #[arg(
        long,
        value_name = "ARCH",
        default_value = "x86_64",
        conflicts_with = "image"
    )]
    pub arch: Arch,
    /// With which kernel.
    #[arg(
        long,
        value_name = "VERSION",
        default_value = "6.12",
        conflicts_with = "image"
    )]
    pub kernel: Kernel,
    /// A server that is built already [default: cargo builds it].
    #[arg(long, value_name = "FILE", conflicts_with = "image")]
    pub server: Option<PathBuf>,
}

/// The packages' directory, shared by all images.
#[must_use]
pub fn packages() -> Packages {
    Packages::new(&directory())
}

/// Builds an image.
pub fn build(recipe: &Recipe) -> Result<Image> {
    let server = match &recipe.server {
        Some(path) => path.clone(),
        None => server::build(recipe.arch)?,
    };
    let mut packages = packages();
    let userland = packages.unpack(Role::Userland, recipe.arch)?;
    let host_userland = packages.unpack(Role::Userland, Arch::X86_64)?;
    let modules = packages.unpack(Role::Kernel(recipe.kernel), recipe.arch)?;

    let at = directory().join(format!("{}-{}", recipe.arch.name(), recipe.kernel.name()));
    fs::create_dir_all(&at).with_context(|| format!("create {}", at.display()))?;
    let parts = Parts {
        userland: &userland,
        host_userland: &host_userland,
        server: &server,
    };
    root::assemble(&at.join("root"), parts)?;
    let squashfs = at.join("root.squashfs");
    root::compress(&at.join("root"), &squashfs)?;

    let kernel = at.join(if recipe.arch == Arch::X86_64 {
        "bzImage"
    } else {
        "Image"
    });
    root::install(&find_kernel(&modules)?, &kernel, 0o644)?;
    let initrd = at.join("initrd");
    initramfs::write(&modules, &userland.join("bin/busybox"), &initrd)?;
    Ok(Image {
        directory: at,
        arch: recipe.arch,
        kernel,
        initrd: Some(initrd),
        root: squashfs,
        disk: None,
        substitutions: packages.substitutions().to_vec(),
    })
}

/// `boot/vmlinuz-*`, or beside the modules in packages with the newer layout.
fn find_kernel(unpacked: &Path) -> Result<PathBuf> {
    let list = |directory: PathBuf| -> Vec<PathBuf> {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    };
    let named = |path: &PathBuf| {
        path.file_name()
            .and_then(|n| n.to_str())
            .is_some_and(|n| n.starts_with("vmlinuz"))
    };
    let releases = list(unpacked.join("usr/lib/modules"));
    let places = releases
        .into_iter()
        .flat_map(list)
        .chain(list(unpacked.join("boot")));
    places
        .into_iter()
        .find(named)
        .with_context(|| format!("no vmlinuz in {}", unpacked.display()))
}

/// Directory of images and packages.
#[must_use]
pub fn directory() -> PathBuf {
    workspace::target().join("image")
}

/// Arguments of `image`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// What to build.
    #[command(flatten)]
    recipe: Recipe,
    /// Also makes a disk image to flash.
    #[arg(long)]
    disk: bool,
    /// Measures the image and adds the figures to qemu-test/REPORT.md.
    #[arg(long)]
    report: bool,
    /// Measures the image in this folder and builds none.
    #[arg(long, value_name = "DIR", requires = "report")]
    image: Option<PathBuf>,
}

/// The command: builds an image and prints its path.
pub fn main(arguments: Arguments, signals: &Signals) -> Result<ExitCode> {
    let recipe = &arguments.recipe;
    ensure!(
        !arguments.disk || recipe.arch == Arch::X86_64,
        "--disk: the loader is packaged for x86_64 only"
    );
    setup::ensure_all(&[Purpose::Image], signals)?;
    if let Some(directory) = arguments.image {
        let words = "cargo xtask image --report --image output/images";
        crate::qemu::report::write(&Image::open(&directory)?, words)?;
        return Ok(ExitCode::SUCCESS);
    }
    let started = Instant::now();
    let image = build(recipe)?;
    println!("kernel  {}", described(&image.kernel)?);
    if let Some(initrd) = &image.initrd {
        println!("initrd  {}", described(initrd)?);
    }
    println!("root    {}", described(&image.root)?);
    if arguments.disk {
        println!(
            "disk    {}",
            described(&disk::make_disk(
                &image,
                &mut packages(),
                None,
                &image.directory.join("disk")
            )?)?
        );
    }
    println!("in      {:.1} s", started.elapsed().as_secs_f64());
    for substitution in &image.substitutions {
        println!("note    {substitution}");
    }
    if arguments.report {
        let words = format!(
            "cargo xtask image --arch {} --kernel {} --report",
            recipe.arch.name(),
            recipe.kernel.name()
        );
        crate::qemu::report::write(&image, &words)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn described(path: &Path) -> Result<String> {
    let bytes = fs::metadata(path)
        .with_context(|| format!("look at {}", path.display()))?
        .len();
    Ok(format!(
        "{:7.2} MiB  {}",
        bytes as f64 / f64::from(1 << 20),
        path.display()
    ))
}
