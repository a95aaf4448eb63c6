//! `cargo xtask dist`: the release as one archive, with its dependencies, for builds without a network.
//!
//! The same commit gives the same bytes with any cargo: files sorted by name, one time, one owner, two modes. The archive leaves
//! out `buildroot/`, since that holds the archive's own hash.

mod check;
mod licences;
mod vendor;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::workspace;
use xdnsd_lab::process::output_of;

/// Arguments of `dist`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Proves that every cargo of this machine makes the same archive, and that it makes the same server anywhere.
    #[arg(long)]
    check: bool,
}

/// Left out: it contains the archive's hash.
const LEFT_OUT: &str = "buildroot";

/// Makes the archive and the file with its hash.
pub fn main(arguments: &Arguments) -> Result<ExitCode> {
    if arguments.check {
        return check::main();
    }
    note_changes()?;
    let cargo = workspace::cargo();
    let directory = workspace::root().join("dist");
    let (archive, licences) = make(Path::new(cargo.get_program()), &directory)?;
    let digest = sha256(&archive)?;
    let package = workspace::root().join("buildroot/package/xdnsd");
    let own = package.join("xdnsd.hash");
    let own = fs::read_to_string(&own).with_context(|| format!("read {}", own.display()))?;
    // Buildroot prefers the hashes of this version to those beside the package.
    let hash = package.join(env!("CARGO_PKG_VERSION")).join("xdnsd.hash");
    let name = archive
        .file_name()
        .and_then(|name| name.to_str())
        .context("an archive has a name")?;
    write(
        &hash,
        format!(
            "{own}\n# From cargo xtask dist\nsha256  {digest}  {name}\nsha256  {licences}  {}\n",
            licences::FILE
        )
        .as_bytes(),
    )?;
    println!("{digest}  {}", archive.display());
    Ok(ExitCode::SUCCESS)
}

fn sha256(file: &Path) -> Result<String> {
    let line = output_of(Command::new("sha256sum").arg(file))?;
    let digest = line.split(' ').next();
    Ok(digest.context("sha256sum prints a digest")?.to_owned())
}

/// Makes the archive in `directory`. Returns its path, and the digest of its licence file.
fn make(cargo: &Path, directory: &Path) -> Result<(PathBuf, String)> {
    let name = format!("xdnsd-{}", env!("CARGO_PKG_VERSION"));
    let work = workspace::target().join("dist");
    let tree = work.join(&name);
    if work.exists() {
        fs::remove_dir_all(&work).with_context(|| format!("remove {}", work.display()))?;
    }
    for file in workspace::files()?
        .iter()
        .filter(|file| !file.starts_with(LEFT_OUT))
    {
        copy(&workspace::root().join(file), &tree.join(file))?;
    }
    vendor::vendor(cargo, &tree)?;
    let licences = tree.join(licences::FILE);
    let text = licences::collect(&tree, &tree.join(vendor::VENDOR))?;
    write(&licences, text.as_bytes())?;
    let digest = sha256(&licences)?;
    fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
    let archive = directory.join(format!("{name}-vendored.tar.gz"));
    pack(&work, &name, &archive)?;
    fs::remove_dir_all(&work).with_context(|| format!("remove {}", work.display()))?;
    Ok((archive, digest))
}

fn pack(work: &Path, name: &str, archive: &Path) -> Result<()> {
    let time = time()?;
    let output = File::create(archive).with_context(|| format!("create {}", archive.display()))?;
    let mut tar = Command::new("tar");
    tar.current_dir(work).args([
        "--sort=name",
        "--owner=0",
        "--group=0",
        "--numeric-owner",
        "--format=gnu",
    ]);
    tar.args([
        "--mode=a+rX,u+w,go-w,a-s",
        &format!("--mtime=@{time}"),
        "-cf",
        "-",
        name,
    ]);
    let mut tar = tar.stdout(Stdio::piped()).spawn().context("start tar")?;
    let plain = tar.stdout.take().context("tar's output is a pipe")?;
    let gzip = Command::new("gzip")
        .args(["-9", "-n"])
        .stdin(plain)
        .stdout(output)
        .status()
        .context("run gzip")?;
    let packed = tar.wait().context("wait for tar")?;
    ensure!(
        gzip.success() && packed.success(),
        "{} could not be packed",
        archive.display()
    );
    Ok(())
}

/// Time of the sources, in seconds since 1970: the commit's time, which git archives give to all files.
fn time() -> Result<u64> {
    if !workspace::is_checkout() {
        let lock = workspace::root().join("Cargo.lock");
        let changed = fs::metadata(&lock).and_then(|lock| lock.modified());
        let changed = changed.with_context(|| format!("look at {}", lock.display()))?;
        return Ok(changed.duration_since(UNIX_EPOCH)?.as_secs());
    }
    let said = git(&["log", "-1", "--format=%ct"])?;
    said.trim()
        .parse()
        .with_context(|| format!("a commit's time: {said:?}"))
}

fn git(words: &[&str]) -> Result<String> {
    output_of(
        Command::new("git")
            .args(words)
            .current_dir(workspace::root()),
    )
}

/// Warns about uncommitted changes: the archive has the version's name all the same.
fn note_changes() -> Result<()> {
    if workspace::is_checkout() && !git(&["status", "--porcelain"])?.trim().is_empty() {
        eprintln!("note: what is not committed goes in, too; the archive is that of no commit");
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let content = fs::read(from).with_context(|| format!("read {}", from.display()))?;
    write(to, &content)?;
    let mode = fs::metadata(from)
        .with_context(|| format!("look at {}", from.display()))?
        .permissions()
        .mode();
    let mode = if mode & 0o100 == 0 { 0o644 } else { 0o755 };
    fs::set_permissions(to, fs::Permissions::from_mode(mode))
        .with_context(|| format!("set the mode of {}", to.display()))
}

fn write(path: &Path, content: &[u8]) -> Result<()> {
    let directory = path.parent().context("a file has a directory")?;
    fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
    let mut file = File::create(path).with_context(|| format!("create {}", path.display()))?;
    file.write_all(content)
        .with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, SystemTime};

    /// The archive is independent of the machine: order of file creation, times, umask.
    #[test]
    fn the_same_files_make_the_same_archive() {
        let folder = std::env::temp_dir().join(format!("xtask-dist-{}", std::process::id()));
        let make = |place: &str, names: [&str; 3], mode: u32, age: u64| {
            let work = folder.join(place);
            for name in names {
                let path = work.join("xdnsd").join(name);
                write(&path, name.as_bytes()).expect("written");
                let own = if name.ends_with(".sh") { 0o100 } else { 0 };
                fs::set_permissions(&path, PermissionsExt::from_mode(mode | own)).expect("set");
                let then = SystemTime::now() - Duration::from_secs(age);
                let file = File::options().write(true).open(&path);
                file.and_then(|file| file.set_modified(then)).expect("set");
            }
            let archive = work.join("archive");
            pack(&work, "xdnsd", &archive).expect("packed");
            fs::read(archive).expect("read")
        };
        let one = make("one", ["a", "b/c.sh", "d"], 0o644, 0);
        let other = make("a-longer/one", ["d", "b/c.sh", "a"], 0o600, 90_000);
        fs::remove_dir_all(&folder).expect("removed");
        assert!(one == other, "{} and {} bytes", one.len(), other.len());
    }
}
