//! Vendors the release's dependencies: the registry's archives, unpacked, as `Cargo.lock` names them.
//!
//! Without `cargo vendor`, whose set of packed files changes with the version of cargo. A crate's archive is fixed by its
//! checksum in `Cargo.lock`, so any cargo gives the same release. A crate that Linux never needs (for Windows, for browsers)
//! becomes an empty stub: cargo requires the manifest of every crate in `Cargo.lock`.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{sha256, write};
use xdnsd_lab::process::output_of;

/// Directory in which Buildroot looks for vendored dependencies.
pub const VENDOR: &str = "VENDOR";
/// Targets of the server, and of machines that build it.
const TARGETS: [&str; 11] = [
    "x86_64-unknown-linux-gnu",
    "x86_64-unknown-linux-musl",
    "aarch64-unknown-linux-gnu",
    "aarch64-unknown-linux-musl",
    "armv7-unknown-linux-gnueabihf",
    "armv7-unknown-linux-musleabihf",
    "armv7-unknown-linux-uclibceabihf",
    "i686-unknown-linux-gnu",
    "powerpc64le-unknown-linux-gnu",
    "riscv64gc-unknown-linux-gnu",
    "bpfel-unknown-none",
];
/// Target of the XDP program.
const BPF: &str = "bpfel-unknown-none";
/// Addition to the release's `.cargo/config.toml`. The wrapper keeps paths of the build machine out of the server.
const SETTINGS: &str = r#"
[build]
rustc-wrapper = ".cargo/rustc-anywhere"

[source.crates-io]
replace-with = "vendored-sources"

[source.vendored-sources]
directory = "VENDOR"
"#;

/// A crate of `Cargo.lock` from the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Locked {
    name: String,
    version: String,
    checksum: String,
}

impl Locked {
    /// Name of its directory, and of its archive without the ending.
    fn stem(&self) -> String {
        format!("{}-{}", self.name, self.version)
    }
}

/// Puts every dependency beside the sources at `tree`, and configures cargo to use them.
pub fn vendor(cargo: &Path, tree: &Path) -> Result<()> {
    output_of(cargo_in(cargo, tree).args(["fetch", "--locked"]))?;
    let lock = tree.join("Cargo.lock");
    let lock = fs::read_to_string(&lock).with_context(|| format!("read {}", lock.display()))?;
    let needed = needed(cargo, tree)?;
    let place = tree.join(VENDOR);
    fs::create_dir_all(&place).with_context(|| format!("create {}", place.display()))?;
    for locked in parse(&lock)? {
        let archive = archive(&locked)?;
        if needed.contains(&locked.stem()) {
            unpack(&archive, &place, &[])?;
        } else {
            stub(&archive, &locked, &place)?;
        }
        let checksum = format!("{{\"files\":{{}},\"package\":\"{}\"}}\n", locked.checksum);
        let file = place.join(locked.stem()).join(".cargo-checksum.json");
        write(&file, checksum.as_bytes())?;
    }
    let path = tree.join(".cargo/config.toml");
    let own = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    write(&path, format!("{own}{SETTINGS}").as_bytes())
}

fn cargo_in(cargo: &Path, tree: &Path) -> Command {
    let mut command = Command::new(cargo);
    command.current_dir(tree);
    command
}

/// `NAME-VERSION` of every crate that is built on or for any of the targets, tests included.
fn needed(cargo: &Path, tree: &Path) -> Result<BTreeSet<String>> {
    let mut needed = BTreeSet::new();
    for target in TARGETS {
        let mut command = cargo_in(cargo, tree);
        command.args(["tree", "--locked", "--target", target, "--edges", "all"]);
        command.args(["--prefix", "none", "--format", "{p}", "--all-features"]);
        command.args(if target == BPF {
            ["--package", "xdnsd-ebpf"].as_slice()
        } else {
            &["--workspace"]
        });
        needed.extend(output_of(&mut command)?.lines().filter_map(stem_of));
    }
    ensure!(!needed.is_empty(), "cargo tree lists no crate");
    Ok(needed)
}

/// Parses a line of `cargo tree`, `NAME vVERSION (what else)`.
fn stem_of(line: &str) -> Option<String> {
    let mut words = line.split(' ');
    let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
    Some(format!("{name}-{version}"))
}

/// Crates of a lock file that come from the registry.
fn parse(lock: &str) -> Result<Vec<Locked>> {
    let mut found = Vec::new();
    for package in lock.split("[[package]]").skip(1) {
        let value = |key: &str| {
            let start = format!("{key} = \"");
            let line = package.lines().find_map(|line| line.strip_prefix(&start));
            line.map(|line| line.trim_end_matches('"').to_owned())
        };
        let name = value("name").context("a package has a name")?;
        let Some(source) = value("source") else {
            continue;
        };
        ensure!(
            source.starts_with("registry+"),
            "{name} is from {source}: only what a registry has can be packed"
        );
        found.push(Locked {
            version: value("version").context("a package has a version")?,
            checksum: value("checksum").with_context(|| format!("{name} has no checksum"))?,
            name,
        });
    }
    Ok(found)
}

/// Path of a crate's archive in cargo's cache, verified.
fn archive(locked: &Locked) -> Result<PathBuf> {
    let home = match env::var_os("CARGO_HOME") {
        Some(home) => PathBuf::from(home),
        None => PathBuf::from(env::var_os("HOME").context("HOME is not set")?).join(".cargo"),
    };
    let cache = home.join("registry/cache");
    let name = format!("{}.crate", locked.stem());
    let registries = fs::read_dir(&cache).with_context(|| format!("list {}", cache.display()))?;
    let mut places = registries.flatten().map(|entry| entry.path().join(&name));
    let is_it = |place: &PathBuf| sha256(place).is_ok_and(|digest| digest == locked.checksum);
    let found = places.find(|place| place.is_file() && is_it(place));
    found.with_context(|| {
        format!(
            "no {name} with the checksum of Cargo.lock below {}: where cargo takes its crates from a directory, \
             nothing can be packed",
            cache.display()
        )
    })
}

/// Unpacks an archive, or only the files in `only`.
fn unpack(archive: &Path, place: &Path, only: &[&str]) -> Result<()> {
    let mut tar = Command::new("tar");
    tar.args(["--no-same-owner", "-xzf"]).arg(archive);
    tar.arg("-C").arg(place).args(only);
    output_of(&mut tar).map(drop)
}

/// Makes a stub of a crate that is never built: its manifest, and an empty file for each source that the manifest names.
fn stub(archive: &Path, locked: &Locked, place: &Path) -> Result<()> {
    let stem = locked.stem();
    unpack(archive, place, &[&format!("{stem}/Cargo.toml")])?;
    let directory = place.join(&stem);
    let manifest = directory.join("Cargo.toml");
    let manifest =
        fs::read_to_string(&manifest).with_context(|| format!("read {}", manifest.display()))?;
    for file in sources(&manifest) {
        write(&directory.join(file), b"")?;
    }
    Ok(())
}

/// Source files that a manifest names, and the library's default one.
fn sources(manifest: &str) -> BTreeSet<String> {
    let named = manifest.lines().filter_map(|line| {
        let path = line
            .strip_prefix("path = \"")
            .or(line.strip_prefix("build = \""))?;
        path.strip_suffix('"').filter(|path| path.ends_with(".rs"))
    });
    named.chain(["src/lib.rs"]).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace;

    #[test]
    fn lock_file_gives_every_crate_of_the_registry() {
        let lock = fs::read_to_string(workspace::root().join("Cargo.lock")).expect("it is there");
        let found = parse(&lock).expect("it is one");
        assert_eq!(found.len(), lock.matches("\nchecksum = ").count());
        assert!(found.iter().all(|locked| locked.checksum.len() == 64));
        let foreign = "[[package]]\nname = \"x\"\nversion = \"1.0.0\"\nsource = \"git+https://example.org/x#1\"\n";
        assert!(parse(foreign).is_err());
    }

    /// Crates that only other systems need are left out; those that any Linux needs are packed.
    #[test]
    fn crates_of_other_systems_are_not_needed() {
        let cargo = env::var_os("CARGO").expect("cargo runs the tests");
        let needed = needed(Path::new(&cargo), &workspace::root()).expect("cargo lists them");
        let has = |start: &str| needed.iter().any(|stem| stem.starts_with(start));
        for name in [
            "aya-0",
            "aya-ebpf-0",
            "hickory-proto-0",
            "libbpf-sys-0",
            "syn-2",
        ] {
            assert!(has(name), "{name} is not in {needed:?}");
        }
        for stem in &needed {
            assert!(!stem.starts_with("windows"), "{stem}");
        }
        assert_eq!(stem_of("serde v1.0.2 (*)").as_deref(), Some("serde-1.0.2"));
        assert_eq!(stem_of(""), None);
    }

    #[test]
    fn stub_has_what_its_manifest_names() {
        let manifest = "[package]\nbuild = \"build.rs\"\n[lib]\npath = \"lib/x.rs\"\n[dependencies.y]\nversion = \"1\"\n";
        let found: Vec<_> = sources(manifest).into_iter().collect();
        assert_eq!(found, ["build.rs", "lib/x.rs", "src/lib.rs"]);
    }
}
