//! `ebpf/object/NOTE.toml`: sources and toolchain of the committed objects.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest as _, Sha256};

use super::toolchain::Toolchain;
use super::{HOT, LOOKUP, RUSTFLAGS, XDP, committed};
use crate::workspace::root;

/// Prefix of the crates that the programs are compiled from. Dependencies of their build scripts leave no bytes in the objects.
const CRATES: &str = "aya-ebpf";
/// Packages of the workspace that they are compiled from.
const PACKAGES: [&str; 2] = ["ebpf", "ebpf/abi"];
const PROFILE_HEADING: &str = "[profile.bpf]";

/// The note, key by key.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Note {
    /// SHA-256 over the sources, see [`hash_of_source`].
    pub source: String,
    /// SHA-256 of the object of the XDP program.
    pub object: String,
    /// SHA-256 of the object of the sk_lookup program.
    pub lookup: String,
    /// SHA-256 of the object of the program for hot names.
    pub hot: String,
    /// First line of `rustc -vV`.
    pub rustc: String,
    /// `bpf-linker --version`, and the LLVM that it is linked with.
    pub linker: String,
}

impl Note {
    /// The note for the present objects, made with this toolchain.
    pub(super) fn of(toolchain: &Toolchain) -> Result<Self> {
        Ok(Self {
            source: hash_of_source()?,
            object: hash_of_file(&committed(XDP))?,
            lookup: hash_of_file(&committed(LOOKUP))?,
            hot: hash_of_file(&committed(HOT))?,
            rustc: toolchain.rustc.clone(),
            linker: toolchain.linker.clone(),
        })
    }

    pub(super) fn read() -> Result<Self> {
        let path = path();
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let value = |key: &str| {
            let line = text.lines().find_map(|line| {
                let value = line.strip_prefix(key)?.strip_prefix(" = \"")?;
                value.strip_suffix('"')
            });
            let found = line.with_context(|| format!("no {key} in {}", path.display()));
            found.map(str::to_owned)
        };
        Ok(Self {
            source: value("source")?,
            object: value("object")?,
            lookup: value("lookup")?,
            hot: value("hot")?,
            rustc: value("rustc")?,
            linker: value("linker")?,
        })
    }

    pub(super) fn write(&self) -> Result<()> {
        let Self {
            source,
            object,
            lookup,
            hot,
            rustc,
            linker,
        } = self;
        let text = format!(
            "# Written by `cargo xtask ebpf`, compared by the tests: what the objects were made from, and by what.\n\
             # SHA-256 over ebpf/src and ebpf/abi/src with their manifests, the bpf profile, the compiler's flags and the\n\
             # locked versions of the {CRATES} crates.\n\
             source = \"{source}\"\n\
             # SHA-256 of xdnsd.bpf.o.\n\
             object = \"{object}\"\n\
             # SHA-256 of xdnsd-ports.bpf.o.\n\
             lookup = \"{lookup}\"\n\
             # SHA-256 of xdnsd-hot.bpf.o.\n\
             hot = \"{hot}\"\n\
             rustc = \"{rustc}\"\n\
             linker = \"{linker}\"\n"
        );
        fs::write(path(), text).with_context(|| format!("write {}", path().display()))
    }
}

fn path() -> PathBuf {
    root().join("ebpf/object/NOTE.toml")
}

pub(super) fn hash_of_file(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    Ok(hex(Sha256::digest(bytes).as_slice()))
}

/// Hash of everything that determines the objects, except the toolchain.
pub(super) fn hash_of_source() -> Result<String> {
    let mut parts = vec![RUSTFLAGS.join(" "), profile()?, locked()?];
    let mut files = Vec::new();
    for package in PACKAGES {
        let package = root().join(package);
        files.push(package.join("Cargo.toml"));
        sources(&package.join("src"), &mut files)?;
    }
    files.sort();
    for file in files {
        let name = file.strip_prefix(root()).unwrap_or(&file).to_string_lossy();
        parts.push(name.into_owned());
        parts.push(read(&file)?);
    }
    let mut hash = Sha256::new();
    for part in parts {
        // With its length, so that bytes cannot move from one part to the next without a new hash.
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    Ok(hex(hash.finalize().as_slice()))
}

/// Collects every file below a directory. The source tree is at most two levels deep.
fn sources(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        let entries = fs::read_dir(&directory);
        for entry in entries.with_context(|| format!("list {}", directory.display()))? {
            let path = entry?.path();
            let list = if path.is_dir() {
                &mut directories
            } else {
                &mut *files
            };
            list.push(path);
        }
    }
    Ok(())
}

/// The profile's lines in the workspace's manifest.
fn profile() -> Result<String> {
    let manifest = read(&root().join("Cargo.toml"))?;
    let lines = manifest.lines().skip_while(|line| *line != PROFILE_HEADING);
    let own = lines
        .enumerate()
        .take_while(|(at, line)| *at == 0 || !line.starts_with('['));
    let settings = own
        .map(|(_, line)| line)
        .filter(|line| !line.starts_with('#'));
    let settings: Vec<&str> = settings.filter(|line| !line.is_empty()).collect();
    anyhow::ensure!(!settings.is_empty(), "no {PROFILE_HEADING} in Cargo.toml");
    Ok(settings.join("\n"))
}

/// Name, version and checksum of the locked [`CRATES`].
fn locked() -> Result<String> {
    let lock = read(&root().join("Cargo.lock"))?;
    let prefix = format!("name = \"{CRATES}");
    let packages = lock.split("[[package]]").map(str::trim_start);
    let ours = packages.filter(|package| package.starts_with(&prefix));
    let mut text = String::new();
    for line in ours.flat_map(str::lines) {
        let kept = ["name", "version", "checksum"];
        if kept.iter().any(|key| line.starts_with(key)) {
            writeln!(text, "{line}")?;
        }
    }
    anyhow::ensure!(!text.is_empty(), "no {CRATES} in Cargo.lock");
    Ok(text)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
