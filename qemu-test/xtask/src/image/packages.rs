//! Distribution packages that are unpacked instead of installed: kernels, busybox, a boot loader.
//!
//! apt runs with its own configuration below `target/image`, so the machine's sources, lists and installed packages stay
//! unchanged. Each package is pinned by version and digest in `packages.lock`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail, ensure};

use super::tool::run;
use super::{Arch, Kernel};
use xdnsd_lab::process::output_of;

/// The pinned packages.
const LOCK: &str = include_str!("packages.lock");
/// Suites, besides the machine's own, from which packages come.
const SUITES: [&str; 4] = [
    "bookworm",
    "bookworm-backports",
    "trixie",
    "trixie-backports",
];
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Purpose of a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A guest kernel and its modules.
    Kernel(Kernel),
    /// Contents of the root file system, beside our own.
    Userland,
    /// The boot loader of the disk image.
    Loader,
    /// Rust's standard library for another machine.
    Rust,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Kernel(Kernel::V6_1) => "kernel-6.1",
            Self::Kernel(Kernel::V6_12) => "kernel-6.12",
            Self::Kernel(Kernel::Newest) => "kernel-newest",
            Self::Userland => "userland",
            Self::Loader => "loader",
            Self::Rust => "rust",
        }
    }
}

/// One line of the lock file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pinned {
    role: String,
    arch: String,
    suite: String,
    package: String,
    version: String,
    sha256: String,
}

impl Pinned {
    fn parse(line: &str) -> Result<Self> {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [role, arch, suite, package, version, sha256] = fields[..] else {
            bail!("packages.lock: six fields are wanted: {line}");
        };
        let [role, arch, suite, package, version, sha256] =
            [role, arch, suite, package, version, sha256].map(str::to_owned);
        Ok(Self {
            role,
            arch,
            suite,
            package,
            version,
            sha256,
        })
    }

    /// File name given by apt: a colon of the version is written as `%3a`.
    fn file_name(&self) -> String {
        format!(
            "{}_{}_{}.deb",
            self.package,
            self.version.replace(':', "%3a"),
            self.arch
        )
    }

    /// The package's name without version numbers, common to its later versions.
    fn form(&self) -> Vec<String> {
        form_of(&self.package)
    }
}

/// A package name in pieces, between which digits, dots and a distribution's revision may differ.
///
/// The first two numbers of a kernel (`6.12`) belong to the name: another series is another kernel.
fn form_of(package: &str) -> Vec<String> {
    let mut numbers_kept = 2;
    let mut pieces = vec![String::new()];
    for piece in package.split('-') {
        let is_version = piece.starts_with(|first: char| first.is_ascii_digit());
        if !is_version {
            pieces.push(piece.to_owned());
            continue;
        }
        let kept: Vec<&str> = piece.split('.').take(numbers_kept).collect();
        numbers_kept = 0;
        pieces.push(kept.join("."));
    }
    pieces
}

fn pinned(role: Role, arch: Arch) -> Result<Vec<Pinned>> {
    let lines = LOCK
        .lines()
        .filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    let all: Vec<Pinned> = lines.map(Pinned::parse).collect::<Result<_>>()?;
    let found: Vec<Pinned> = all
        .into_iter()
        .filter(|one| one.role == role.name() && one.arch == arch.debian())
        .collect();
    ensure!(
        !found.is_empty(),
        "packages.lock has no {} for {}",
        role.name(),
        arch.debian()
    );
    Ok(found)
}

/// Fetches missing packages and unpacks them. One directory per role, with the packages' files merged.
#[derive(Debug)]
pub struct Packages {
    directory: PathBuf,
    substitutions: Vec<String>,
    is_apt_ready: bool,
}

impl Packages {
    /// Keeps everything below `directory`.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            substitutions: Vec::new(),
            is_apt_ready: false,
        }
    }

    /// Substitutes for pinned packages, for the report.
    #[must_use]
    pub fn substitutions(&self) -> &[String] {
        &self.substitutions
    }

    /// The directory with the unpacked packages of `role`. Several tests may want them at the same time: they take turns, since
    /// apt locks its lists, and each may find packages that another has fetched.
    pub fn unpack(&mut self, role: Role, arch: Arch) -> Result<PathBuf> {
        static TURN: Mutex<()> = Mutex::new(());
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let files = self.fetch(role, arch)?;
        let name: Vec<&str> = files
            .iter()
            .filter_map(|file| file.file_stem()?.to_str())
            .collect();
        let root = self.directory.join("unpacked").join(name.join("+"));
        if root.join(".complete").exists() {
            return Ok(root);
        }
        if root.exists() {
            fs::remove_dir_all(&root)
                .with_context(|| format!("remove the unfinished {}", root.display()))?;
        }
        fs::create_dir_all(&root).with_context(|| format!("create {}", root.display()))?;
        for file in files {
            run(Command::new("dpkg-deb").arg("-x").arg(file).arg(&root))?;
        }
        fs::write(root.join(".complete"), "").context("mark the packages as unpacked")?;
        Ok(root)
    }

    fn fetch(&mut self, role: Role, arch: Arch) -> Result<Vec<PathBuf>> {
        let cache = self.directory.join("packages");
        fs::create_dir_all(&cache).with_context(|| format!("create {}", cache.display()))?;
        let pinned = pinned(role, arch)?;
        pinned
            .iter()
            .map(|one| self.fetch_one(one, &cache))
            .collect()
    }

    fn fetch_one(&mut self, one: &Pinned, cache: &Path) -> Result<PathBuf> {
        let path = cache.join(one.file_name());
        if path.exists() && sha256(&path)? == one.sha256 {
            return Ok(path);
        }
        self.prepare_apt()?;
        let wanted = format!("{}:{}={}", one.package, one.arch, one.version);
        eprintln!("image: fetching {wanted}");
        if self
            .apt("apt-get")
            .arg("download")
            .arg(&wanted)
            .current_dir(cache)
            .output()?
            .status
            .success()
        {
            let found = sha256(&path)?;
            ensure!(
                found == one.sha256,
                "{} has the digest {found}, packages.lock wants {}",
                path.display(),
                one.sha256
            );
            return Ok(path);
        }
        self.fetch_substitute(one, cache)
    }

    /// Fetches the newest package of the same form, trusted by the archive's signature alone.
    fn fetch_substitute(&mut self, one: &Pinned, cache: &Path) -> Result<PathBuf> {
        let names = output_of(self.apt("apt-cache").args([
            "pkgnames",
            one.form().join("-").split('.').next().unwrap_or(""),
        ]))?;
        let form = one.form();
        let mut same: Vec<&str> = names.lines().filter(|name| form_of(name) == form).collect();
        same.push(&one.package);
        let mut newest: Option<(String, String)> = None;
        for name in same {
            let versions = output_of(
                self.apt("apt-cache")
                    .arg("madison")
                    .arg(format!("{name}:{}", one.arch)),
            )?;
            for version in versions.lines().filter_map(|line| line.split('|').nth(1)) {
                let candidate = (name.to_owned(), version.trim().to_owned());
                if newest
                    .as_ref()
                    .is_none_or(|(_, best)| is_newer(&candidate.1, best))
                {
                    newest = Some(candidate);
                }
            }
        }
        let (package, version) =
            newest.with_context(|| format!("the mirror has nothing like {}", one.package))?;
        self.substitutions.push(format!(
            "{package} {version} instead of {} {}",
            one.package, one.version
        ));
        eprintln!(
            "image: {} {} has left the mirror, taking {package} {version}",
            one.package, one.version
        );
        let taken = Pinned {
            package,
            version,
            ..one.clone()
        };
        let wanted = format!("{}:{}={}", taken.package, taken.arch, taken.version);
        run(self
            .apt("apt-get")
            .arg("download")
            .arg(wanted)
            .current_dir(cache))?;
        Ok(cache.join(taken.file_name()))
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", self.directory.join("apt/apt.conf"));
        command
    }

    fn prepare_apt(&mut self) -> Result<()> {
        if self.is_apt_ready {
            return Ok(());
        }
        let directory = self.directory.join("apt");
        for part in ["lists/partial", "cache/archives/partial", "empty"] {
            fs::create_dir_all(directory.join(part))
                .with_context(|| format!("create {part} for apt"))?;
        }
        fs::write(directory.join("sources.list"), sources(&mirrors()?))
            .context("write apt's sources")?;
        fs::write(directory.join("apt.conf"), configuration(&directory))
            .context("write apt's configuration")?;
        eprintln!("image: reading the mirror's package lists");
        run(self.apt("apt-get").args(["-qq", "update"]))?;
        self.is_apt_ready = true;
        Ok(())
    }
}

/// Mirrors of the archive and of its security updates, as configured on this machine.
struct Mirrors {
    archive: String,
    security: Option<String>,
}

fn mirrors() -> Result<Mirrors> {
    let format = "$(LABEL) $(REPO_URI)";
    let targets = output_of(Command::new("apt-get").args([
        "indextargets",
        "--format",
        format,
        "Created-By: Packages",
    ]))?;
    let of = |label: &str| {
        let mut lines = targets.lines().filter_map(|line| line.split_once(' '));
        lines
            .find(|(found, _)| *found == label)
            .map(|(_, uri)| uri.to_owned())
    };
    let archive = of("Debian")
        .context("no package list of Debian on this machine: run apt-get update first")?;
    Ok(Mirrors {
        archive,
        security: of("Debian-Security"),
    })
}

fn sources(mirrors: &Mirrors) -> String {
    let line = |uri: &str, suite: &str| format!("deb [signed-by={KEYRING}] {uri} {suite} main\n");
    let mut text: String = SUITES
        .iter()
        .map(|suite| line(&mirrors.archive, suite))
        .collect();
    if let Some(security) = &mirrors.security {
        text.push_str(&line(security, "bookworm-security"));
        text.push_str(&line(security, "trixie-security"));
    }
    text
}

fn configuration(directory: &Path) -> String {
    let at = directory.display();
    format!(
        "Dir::Etc::sourcelist \"{at}/sources.list\";\n\
         Dir::Etc::sourceparts \"{at}/empty\";\n\
         Dir::Etc::preferencesparts \"{at}/empty\";\n\
         Dir::State::lists \"{at}/lists\";\n\
         Dir::Cache \"{at}/cache\";\n\
         Dir::State::status \"/dev/null\";\n\
         APT::Architectures {{ \"amd64\"; \"arm64\"; }};\n\
         APT::Sandbox::User \"\";\n\
         Acquire::Languages \"none\";\n\
         Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n"
    )
}

fn sha256(path: &Path) -> Result<String> {
    let line = output_of(Command::new("sha256sum").arg(path))?;
    Ok(line
        .split_ascii_whitespace()
        .next()
        .unwrap_or_default()
        .to_owned())
}

fn is_newer(version: &str, than: &str) -> bool {
    let compared = Command::new("dpkg")
        .args(["--compare-versions", version, "gt", than])
        .status();
    compared.is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_lock_file_is_whole() {
        for line in LOCK.lines().filter(|line| !line.starts_with('#')) {
            let one = Pinned::parse(line).expect("six fields");
            assert_eq!(one.sha256.len(), 64, "{line}");
            assert!(
                SUITES.contains(&one.suite.as_str()) || one.suite.ends_with("-security"),
                "{line}"
            );
        }
    }

    #[test]
    fn a_point_release_has_the_same_form_and_another_series_has_not() {
        let form = form_of("linux-image-6.12.107+deb13-cloud-amd64");
        assert_eq!(form, form_of("linux-image-6.12.111+deb13-cloud-amd64"));
        assert_ne!(form, form_of("linux-image-6.1.111+deb13-cloud-amd64"));
        assert_ne!(
            form,
            form_of("linux-image-6.12.111+deb13-cloud-amd64-unsigned")
        );
        assert_ne!(form, form_of("linux-image-6.12.111+deb13-amd64"));
    }

    #[test]
    fn a_kernel_is_pinned_for_every_choice() {
        for kernel in Kernel::ALL {
            assert!(
                pinned(Role::Kernel(kernel), Arch::X86_64).is_ok(),
                "{kernel:?}"
            );
        }
        assert!(pinned(Role::Kernel(Kernel::V6_12), Arch::Aarch64).is_ok());
    }
}
