//! `cargo xtask dist --check`: every cargo of this machine makes the same release, byte for byte, and the server built from it is
//! the same wherever the release is unpacked and built.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};

use super::{make, sha256};
use crate::workspace;
use xdnsd_lab::process::output_of;
use xdnsd_lab::programs::find_program;

/// Two pairs of directories, of different length: the tree, and the builder's home.
const PLACES: [(&str, &str); 2] = [
    ("a", "home"),
    ("b/a-longer-name/of/a/folder", "elsewhere/me"),
];
/// Faster than the shipped profile, which takes minutes and compiles the same paths in.
const PROFILE: [(&str, &str); 3] = [
    ("CARGO_PROFILE_RELEASE_LTO", "off"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"),
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1"),
];

/// Carries out `dist --check`.
pub fn main() -> Result<ExitCode> {
    let work = workspace::target().join("dist-check");
    if work.exists() {
        fs::remove_dir_all(&work).with_context(|| format!("remove {}", work.display()))?;
    }
    let archive = same_archives(&work)?;
    same_servers(&archive, &work)?;
    fs::remove_dir_all(&work).with_context(|| format!("remove {}", work.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// Makes the release with each cargo. Returns one of the archives.
fn same_archives(work: &Path) -> Result<PathBuf> {
    let mut made: Vec<(String, PathBuf)> = Vec::new();
    for (number, cargo) in cargos()?.iter().enumerate() {
        let version = output_of(Command::new(cargo).arg("--version"))?;
        let (archive, _) = make(cargo, &work.join(format!("by-{number}")))?;
        let digest = sha256(&archive)?;
        println!("{digest} by {}", version.trim());
        made.push((digest, archive));
    }
    same_digests(&made).map(Path::to_owned)
}

/// Returns one of the archives, if all are the same.
fn same_digests(made: &[(String, PathBuf)]) -> Result<&Path> {
    let (first, archive) = made.first().context("no cargo on this machine")?;
    ensure!(
        made.iter().all(|(digest, _)| digest == first),
        "the release depends on which cargo makes it"
    );
    Ok(archive)
}

/// The cargo that runs this, and those installed by rustup or Debian. The program itself instead of rustup's proxy, which would
/// choose by the tree's `rust-toolchain.toml`.
fn cargos() -> Result<BTreeSet<PathBuf>> {
    let own = workspace::cargo().get_program().into();
    let mut found = BTreeSet::from([own]);
    let toolchains = rustup_home()?.join("toolchains");
    for entry in fs::read_dir(&toolchains).into_iter().flatten().flatten() {
        found.insert(entry.path().join("bin/cargo"));
    }
    found.insert("/usr/bin/cargo".into());
    Ok(found.into_iter().filter(|cargo| cargo.is_file()).collect())
}

fn rustup_home() -> Result<PathBuf> {
    if let Some(home) = env::var_os("RUSTUP_HOME") {
        return Ok(home.into());
    }
    let home = env::var_os("HOME").context("HOME is not set")?;
    Ok(Path::new(&home).join(".rustup"))
}

/// Builds the server in each place, without a network and without the user's settings.
fn same_servers(archive: &Path, work: &Path) -> Result<()> {
    let mut servers = Vec::new();
    for (place, home) in PLACES {
        let (place, home) = (work.join(place), work.join(home));
        for directory in [&place, &home] {
            fs::create_dir_all(directory)
                .with_context(|| format!("create {}", directory.display()))?;
        }
        output_of(
            Command::new("tar")
                .arg("-xzf")
                .arg(archive)
                .arg("-C")
                .arg(&place),
        )?;
        let tree = place.join(format!("xdnsd-{}", env!("CARGO_PKG_VERSION")));
        servers.push(build(&tree, &home)?);
    }
    same_bytes(&servers, work)?;
    println!(
        "{} bytes of the server, the same in {} places",
        servers[0].len(),
        servers.len()
    );
    Ok(())
}

/// Fails unless all servers are the same, and none contains the folder in which they were built.
fn same_bytes(servers: &[Vec<u8>], work: &Path) -> Result<()> {
    let path = work.as_os_str().as_encoded_bytes();
    for server in servers {
        ensure!(
            !server.windows(path.len()).any(|bytes| bytes == path),
            "a server names the folder that it was built in, {}",
            work.display()
        );
    }
    ensure!(
        servers.windows(2).all(|pair| pair[0] == pair[1]),
        "the server depends on where it is built"
    );
    Ok(())
}

fn build(tree: &Path, home: &Path) -> Result<Vec<u8>> {
    let mut cargo = Command::new(workspace::cargo().get_program());
    cargo.args(["build", "--release", "--offline", "--locked", "-p", "xdnsd"]);
    cargo.current_dir(tree).envs(PROFILE);
    // Cargo has set these for this program, for another tree.
    for name in [
        "CARGO_MANIFEST_DIR",
        "CARGO_TARGET_DIR",
        "CARGO_HOME",
        "RUSTFLAGS",
        "RUSTC_WRAPPER",
    ] {
        cargo.env_remove(name);
    }
    cargo.env("RUSTUP_HOME", rustup_home()?).env("HOME", home);
    // For rustup's proxies, and a C linker.
    if let Some(rustc) = find_program("rustc") {
        cargo.env("RUSTC", rustc);
    }
    output_of(&mut cargo)?;
    let server = tree.join("target/release/xdnsd");
    fs::read(&server).with_context(|| format!("read {}", server.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_that_depends_on_its_cargo_is_found() {
        let made = |digests: &[&str]| -> Vec<(String, PathBuf)> {
            let named = digests.iter().enumerate();
            named
                .map(|(number, digest)| ((*digest).to_owned(), format!("by-{number}").into()))
                .collect()
        };
        let same = made(&["a", "a", "a"]);
        assert_eq!(same_digests(&same).expect("the same"), Path::new("by-0"));
        for digests in [&["a", "b"][..], &["a", "a", "b"], &["b", "a", "a"], &[]] {
            assert!(same_digests(&made(digests)).is_err(), "{digests:?}");
        }
    }

    #[test]
    fn a_server_that_depends_on_its_place_is_found() {
        let work = Path::new("/work/dist-check");
        let server = |text: &str| text.as_bytes().to_vec();
        let same = [server("ELF one"), server("ELF one")];
        assert!(same_bytes(&same, work).is_ok());
        let other = [server("ELF one"), server("ELF two")];
        assert!(same_bytes(&other, work).is_err());
        let named = [
            server("at /work/dist-check/a"),
            server("at /work/dist-check/a"),
        ];
        assert!(
            same_bytes(&named, work).is_err(),
            "the same, and of this machine"
        );
    }

    /// The one that runs this is among them, so that there is something to compare.
    #[test]
    fn the_cargos_of_this_machine_are_programs() {
        let found = cargos().expect("they are listed");
        assert!(!found.is_empty());
        assert!(found.iter().all(|cargo| cargo.is_file()), "{found:?}");
    }
}
