//! Licences of the crates compiled into the server and its XDP program, as one file of the release: Buildroot's `make legal-info`
//! collects files that a package names, but ignores vendored crates.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::workspace;
use xdnsd_lab::process::output_of;

/// File name in the release, also named by the package's `.mk`.
pub const FILE: &str = "THIRD-PARTY-LICENSES";

/// Compiled packages of the workspace, with their targets. Two targets for the server, since a crate may be for one of them only.
const COMPILED: [(&str, &str); 3] = [
    ("xdnsd", "x86_64-unknown-linux-gnu"),
    ("xdnsd", "aarch64-unknown-linux-gnu"),
    ("xdnsd-ebpf", "bpfel-unknown-none"),
];
/// Prefixes of the names of licence and notice files.
const BEGINNINGS: [&str; 6] = [
    "licence",
    "license",
    "copying",
    "copyright",
    "notice",
    "unlicense",
];

/// A crate from outside the workspace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Dependency {
    name: String,
    version: String,
    /// SPDX expression from its manifest.
    licence: String,
}

/// Text of [`FILE`], for the release at `tree`, with its crates below `vendor`.
pub fn collect(tree: &Path, vendor: &Path) -> Result<String> {
    let mut found = BTreeSet::new();
    for (package, target) in COMPILED {
        found.extend(dependencies(tree, package, target)?);
    }
    let mut text = String::from("The crates that are compiled into xdnsd and its XDP program.\n");
    for dependency in &found {
        let Dependency {
            name,
            version,
            licence,
        } = dependency;
        ensure!(!licence.is_empty(), "{name} {version} names no licence");
        text += &format!("\n======== {name} {version}: {licence}\n");
        let files = files(&directory(vendor, dependency)?)?;
        if files.is_empty() {
            text += "\n(The crate comes without the text.)\n";
        }
        for file in files {
            let content =
                fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
            let file = file.file_name().unwrap_or_default().display();
            text += &format!("\n---- {file}\n\n{}\n", content.trim_end());
        }
    }
    Ok(text)
}

/// Crates compiled into `package` for `target`, without our own.
fn dependencies(tree: &Path, package: &str, target: &str) -> Result<BTreeSet<Dependency>> {
    let mut cargo = workspace::cargo();
    cargo.args(["tree", "--locked", "--package", package, "--target", target]);
    cargo.args(["--edges", "normal", "--prefix", "none"]);
    cargo.args(["--format", "{p}|{l}"]).current_dir(tree);
    let listed: BTreeSet<_> = output_of(&mut cargo)?.lines().filter_map(parse).collect();
    ensure!(!listed.is_empty(), "{package} for {target} has no crates");
    Ok(listed)
}

/// Parses a line of cargo: `name vVERSION (what else)|LICENCE`, with a mark if repeated. `None` for our own crates, which have a
/// path.
fn parse(line: &str) -> Option<Dependency> {
    let (crate_, licence) = line.split_once('|')?;
    let mut words = crate_.split(' ');
    let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
    if words.any(|word| word.starts_with("(/")) {
        return None;
    }
    Some(Dependency {
        name: name.to_owned(),
        version: version.to_owned(),
        licence: licence.trim_end_matches("(*)").trim().to_owned(),
    })
}

/// The crate's directory made by cargo vendor: with the version if there are several.
fn directory(vendor: &Path, dependency: &Dependency) -> Result<PathBuf> {
    let Dependency { name, version, .. } = dependency;
    let line = format!("version = \"{version}\"");
    let places = [vendor.join(format!("{name}-{version}")), vendor.join(name)];
    let is_it = |place: &PathBuf| {
        let manifest = fs::read_to_string(place.join("Cargo.toml"));
        manifest.is_ok_and(|manifest| manifest.lines().any(|found| found == line))
    };
    let found = places.into_iter().find(is_it);
    found.with_context(|| format!("{name} {version} is not among the vendored crates"))
}

/// Licence and notice files of a crate, by name.
fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let listed =
        fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))?;
    let is_legal = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = name.to_lowercase();
        path.is_file() && BEGINNINGS.iter().any(|start| name.starts_with(start))
    };
    let mut found: Vec<PathBuf> = listed
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(is_legal)
        .collect();
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each crate that the lock file has for the server and the program, and none of ours.
    #[test]
    fn what_is_compiled_in_is_found() {
        let names = |package: &str, target: &str| -> BTreeSet<String> {
            let found = dependencies(&workspace::root(), package, target).expect("cargo lists it");
            found.into_iter().map(|found| found.name).collect()
        };
        for (package, target) in COMPILED {
            let found = names(package, target);
            assert!(found.iter().all(|name| !name.starts_with("xdnsd")));
            let loader = if package == "xdnsd" {
                "aya"
            } else {
                "aya-ebpf"
            };
            assert!(found.contains(loader), "{loader} is not in {found:?}");
            assert!(!found.contains("proptest"), "a crate of the tests");
        }
    }

    #[test]
    fn a_line_of_cargo_is_a_crate_or_one_of_ours() {
        let found = parse("serde v1.0.229|MIT OR Apache-2.0 (*)").expect("a crate");
        assert_eq!(
            (found.name.as_str(), found.version.as_str()),
            ("serde", "1.0.229")
        );
        assert_eq!(found.licence, "MIT OR Apache-2.0");
        let found = parse("serde_derive v1.0.2 (proc-macro)|MIT").expect("a macro's");
        assert_eq!(found.licence, "MIT");
        assert_eq!(parse("xdnsd v0.1.0 (/home/x/appliance)|MIT"), None);
        assert_eq!(parse(""), None);
    }
}
