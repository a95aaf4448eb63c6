//! Tests of the appliance that need features the host's kernel may lack, or another verifier than its own, on a guest's kernel.
//!
//! The first root is the whole machine: busybox, the kernel's modules, the test program with the appliance and the tools that it
//! calls, all of them the host's. The test program contains the appliance's path, so a link leads from there to its place in the
//! guest. Init makes the links when everything is mounted, so the checkout may be anywhere, even below `/tmp`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::bench::Bench;
use crate::image;
use crate::image::cpio::Archive;
use crate::image::modules::collect;
use crate::image::packages::Role;
use crate::workspace;
use xdnsd_lab::process::output_of;
use xdnsd_lab::programs::find_program;

const MODULES: [&str; 8] = [
    "virtio_pci",
    "virtio_rng",
    "veth",
    "8021q",
    "bridge",
    "af_packet",
    "ipv6",
    "tcp_diag",
];
/// Busybox applets for init and its command.
const APPLETS: [&str; 7] = ["echo", "insmod", "ln", "mkdir", "mount", "poweroff", "sh"];
/// Directory of the built programs in the guest: one that no host has, and that nothing is mounted over.
const BUILT: &str = "/built-here";
/// Tools that the tests call.
const TOOLS: [&str; 10] = [
    "ip",
    "bridge",
    "ethtool",
    "ss",
    "tcpdump",
    "dig",
    "curl",
    "nc",
    "dropbear",
    "dropbearkey",
];
/// On an emulated processor all tests of VLANs take a minute, and those of SYN cookies three; twice that beside another machine.
const LIMIT: Duration = Duration::from_secs(800);
const MEMORY_MIB: u32 = 512;
/// Binary of the black-box tests.
const BLACK_BOX: &str = "blackbox";

/// All tests of VLANs, on a kernel that supports them.
pub fn vlan(bench: &Bench) -> Result<()> {
    run(bench, BLACK_BOX, "vlan::")
}

/// All tests of SYN cookies without the mark `not_in_guests!`: their program depends most on the verifier.
pub fn shield(bench: &Bench) -> Result<()> {
    run(bench, BLACK_BOX, "shield::")
}

/// Those of real clients, of what they offer, and of what the machine's own tools show.
pub fn shield_clients(bench: &Bench) -> Result<()> {
    run(
        bench,
        BLACK_BOX,
        "shield::clients:: shield::options:: shield::flood::",
    )
}

/// All tests of limits per client, as clients see them.
pub fn limits(bench: &Bench) -> Result<()> {
    run(bench, BLACK_BOX, "rate:: --skip shield::")
}

/// Those of the programs, frame by frame.
pub fn limits_by_frame(bench: &Bench) -> Result<()> {
    run(bench, "ebpf", "rate::")
}

/// Runs the tests of this binary that `filter`, arguments of it, names.
fn run(bench: &Bench, test: &str, filter: &str) -> Result<()> {
    let program = test_program(test)?;
    let initrd = bench.scratch.join("initrd");
    fs::write(&initrd, first_root(bench, &program, filter)?).context("write the first root")?;
    let mut image = bench.image.clone();
    image.initrd = Some(initrd);
    let data = bench.data_disk(&bench.configuration(""))?;
    let mut machine = bench.machine(bench.user_link()?, &data);
    machine.image = &image;
    machine.memory_mib = MEMORY_MIB;
    let mut guest = bench.start(&machine)?;
    guest.wait_for("tests ended with ", LIMIT)?;
    guest.wait_for("test result: ", LIMIT)?;
    let console = guest.console();
    let result = console.lines().find(|line| line.contains("test result: "));
    let result = result.context("the console has the line")?;
    println!("     {}: {result}", bench.name);
    let has_run = !result.contains(" 0 passed") && result.contains("test result: ok.");
    ensure!(
        has_run && !console.contains("SKIPPED") && console.contains("tests ended with 0"),
        "not every test has run and passed:\n{console}"
    );
    Ok(())
}

/// Builds these tests of the appliance; returns their path.
fn test_program(test: &str) -> Result<PathBuf> {
    let mut cargo = workspace::cargo();
    cargo.args([
        "test", "--locked", "-p", "xdnsd", "--test", test, "--no-run",
    ]);
    let done = cargo.output().context("start cargo")?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "the tests do not build:\n{said}");
    // "  Executable tests/blackbox/main.rs (target/debug/deps/blackbox-0123456789abcdef)"
    let line = said.lines().find(|line| line.contains("Executable"));
    let path = line.and_then(|line| line.rsplit_once('(')?.1.strip_suffix(')'));
    let path = path.with_context(|| format!("cargo does not say where they are:\n{said}"))?;
    let path = workspace::root().join(path);
    path.canonicalize()
        .with_context(|| path.display().to_string())
}

/// Archive of a machine that runs the tests whose names contain `filter`.
fn first_root(bench: &Bench, program: &Path, filter: &str) -> Result<Vec<u8>> {
    let mut packages = image::packages();
    let busybox = packages
        .unpack(Role::Userland, bench.image.arch)?
        .join("bin/busybox");
    let kernel = packages.unpack(Role::Kernel(bench.kernel), bench.image.arch)?;
    let mut root = Root::default();
    for directory in ["dev", "proc", "run", "sys", "tmp"] {
        root.directory(directory);
    }
    root.directory("bin");
    root.archive.character_device("dev/console", 5, 1);
    // tcpdump looks its account up.
    root.file(Path::new("/etc/passwd"), b"root:x:0:0:root:/:/bin/sh\n");
    let init = workspace::root().join("qemu-test/guest-tests/init");
    root.archive.program("init", &read(&init)?);
    root.archive.program("bin/busybox", &read(&busybox)?);
    for applet in APPLETS {
        root.archive.link(&format!("bin/{applet}"), "busybox");
    }
    root.directory("modules");
    let mut order = String::new();
    for module in collect(&kernel, &MODULES)? {
        let file = format!("{}.ko", module.name);
        root.archive
            .program(&format!("modules/{file}"), &module.object);
        order += &format!("{file}\n");
    }
    root.archive.program("modules/order", order.as_bytes());

    // The path that is compiled into the test program.
    let appliance = program
        .ancestors()
        .nth(2)
        .context("a test program is in deps/")?
        .join("xdnsd");
    let mut command = String::from("#!/bin/sh\nset -e\n");
    for path in [program, &appliance] {
        let built = Path::new(BUILT).join(path.file_name().context("a program has a name")?);
        root.with_libraries(path, &built, &stripped(bench, path)?)?;
        command += &link(&built, path)?;
    }
    command += &format!("exec {} {filter} --test-threads 1\n", shell_word(program)?);
    root.archive.program("run-tests", command.as_bytes());
    for tool in TOOLS {
        let path = find_program(tool).with_context(|| format!("no {tool} on this machine"))?;
        root.with_libraries(&path, &path, &read(&path)?)?;
        root.archive
            .link(&format!("bin/{tool}"), &path.to_string_lossy());
    }
    Ok(root.archive.finish())
}

/// Lines of a shell script that link `path` to `built`.
fn link(built: &Path, path: &Path) -> Result<String> {
    let folder = shell_word(path.parent().context("a program is in a folder")?)?;
    let (built, path) = (shell_word(built)?, shell_word(path)?);
    Ok(format!("mkdir -p {folder}\nln -s {built} {path}\n"))
}

/// A path quoted as one word of a shell script.
fn shell_word(path: &Path) -> Result<String> {
    let path = path.to_str().context("a path is UTF-8")?;
    Ok(format!("'{}'", path.replace('\'', r"'\''")))
}

/// An archive and the names in it.
#[derive(Default)]
struct Root {
    archive: Archive,
    present: BTreeSet<String>,
}

impl Root {
    fn directory(&mut self, name: &str) {
        if self.present.insert(name.to_owned()) {
            self.archive.directory(name);
        }
    }

    /// Adds a file, and the directories that lead to it.
    fn file(&mut self, path: &Path, data: &[u8]) {
        let name = path.to_string_lossy();
        let name = name.trim_start_matches('/');
        for (at, _) in name.match_indices('/') {
            self.directory(&name[..at]);
        }
        if self.present.insert(name.to_owned()) {
            self.archive.program(name, data);
        }
    }

    /// Adds the host's program at `path`, as `data` at `place`, and the libraries that the dynamic loader finds for it here.
    fn with_libraries(&mut self, path: &Path, place: &Path, data: &[u8]) -> Result<()> {
        self.file(place, data);
        for word in output_of(Command::new("ldd").arg(path))?.split_whitespace() {
            if word.starts_with('/') {
                self.file(Path::new(word), &read(Path::new(word))?);
            }
        }
        Ok(())
    }
}

/// The program without its debug information, which would not fit into the machine.
fn stripped(bench: &Bench, path: &Path) -> Result<Vec<u8>> {
    let small = bench.scratch.join("stripped");
    output_of(Command::new("strip").arg("-o").arg(&small).arg(path))?;
    read(&small)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A checkout below the guest's mount points (`/tmp`, `/run`, `/dev`), or with a name that a shell would split.
    #[test]
    fn link_leads_to_what_was_built_wherever_the_checkout_is() {
        let folder = std::env::temp_dir().join(format!("xdnsd-links-{}", std::process::id()));
        fs::create_dir(&folder).expect("a folder");
        let built = folder.join("built");
        fs::write(&built, "it").expect("a file");
        for name in ["tmp/x", "a b/c", "it's/here", "$HOME/`d`"] {
            let path = folder.join(name).join("xdnsd");
            let script = link(&built, &path).expect("a script");
            output_of(Command::new("sh").args(["-ec", &script])).expect("it runs");
            assert_eq!(fs::read(&path).expect("it leads there"), b"it", "{name}");
        }
        fs::remove_dir_all(&folder).expect("removed");
    }
}
