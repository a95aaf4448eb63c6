//! Builds the eBPF objects and compares them with the committed ones.
//!
//! The objects are committed, so that the appliance builds with stable Rust alone. [`build`] replaces them and the note about
//! their sources; [`check`] proves that they were made from the present sources.

mod note;
mod toolchain;

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use note::Note;
use toolchain::Toolchain;

use crate::workspace::{self, root};
use xdnsd_lab::bpf::OBJECT_VARIABLE;

const TARGET: &str = "bpfel-unknown-none";
const PROFILE: &str = "bpf";

/// A program with its own object.
#[derive(Clone, Copy, Debug)]
struct Program {
    binary: &'static str,
    object: &'static str,
}

/// The XDP program, loaded per interface; the sk_lookup program and the one for hot names, loaded once.
const XDP: Program = Program {
    binary: "xdnsd-bpf",
    object: "xdnsd.bpf.o",
};
const LOOKUP: Program = Program {
    binary: "xdnsd-ports-bpf",
    object: "xdnsd-ports.bpf.o",
};

const HOT: Program = Program {
    binary: "xdnsd-hot-bpf",
    object: "xdnsd-hot.bpf.o",
};
/// All programs.
const PROGRAMS: [Program; 3] = [XDP, LOOKUP, HOT];

/// Compiler flags, except path remapping. The note's hash covers them.
const RUSTFLAGS: [&str; 6] = [
    // BTF is generated from debug information.
    "-Cdebuginfo=2",
    "-Clink-arg=--btf",
    // 32-bit registers, and every jump instruction of Linux 5.3.
    "-Ctarget-cpu=v3",
    // The kernel allows loads of any alignment from a frame; LLVM would split each into bytes.
    "-Ctarget-feature=+allows-misaligned-mem-access",
    // Only selects the bindings of kprobe registers, unused here: one object serves every machine.
    "--cfg=bpf_target_arch=\"x86_64\"",
    "--check-cfg=cfg(bpf_target_arch,values(\"x86_64\"))",
];

/// Arguments of llvm-strip. Removes DWARF, and relocations of BTF, which no loader reads and ours would hold in memory, at a
/// hundred bytes each. BTF, which the verifier's messages quote, stays.
const STRIP: [&str; 3] = [
    "--strip-debug",
    "--remove-section=.rel.BTF",
    "--remove-section=.rel.BTF.ext",
];

/// Arguments of `ebpf`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Proves that the committed objects were built from these sources, and changes nothing.
    #[arg(long)]
    check: bool,
}

/// Carries out `ebpf`: builds the objects, or with `--check` verifies the committed ones.
///
/// # Errors
/// As [`build`] and [`check`]; or the eBPF tests fail on the object of another toolchain.
pub fn main(arguments: &Arguments) -> Result<ExitCode> {
    if !arguments.check {
        for object in build()? {
            println!("{}", object.display());
        }
        return Ok(ExitCode::SUCCESS);
    }
    match check()? {
        Checked::SameBytes => println!("ebpf/object holds what its sources make"),
        Checked::OtherToolchain(object) => {
            println!(
                "another toolchain made the object: the eBPF tests run on {}",
                object.display()
            );
            let mut tests = workspace::cargo();
            tests.args(["test", "--package", "xdnsd", "--test", "ebpf"]);
            run(tests.env(OBJECT_VARIABLE, &object))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Result of [`check`].
#[derive(Debug, PartialEq, Eq)]
pub enum Checked {
    /// This toolchain made the committed object, and reproduces its bytes.
    SameBytes,
    /// Another toolchain made it. This is the present one's object: the eBPF tests have to pass on it, too.
    OtherToolchain(PathBuf),
}

/// Builds the objects and their note into `ebpf/object/`, and returns the objects' paths.
///
/// # Errors
/// There is no toolchain for eBPF, or a program does not compile.
pub fn build() -> Result<[PathBuf; 3]> {
    let toolchain = Toolchain::find()?;
    eprintln!("eBPF: {} with {}", toolchain.rustc, toolchain.linker);
    for program in PROGRAMS {
        let object = compile(&toolchain, program, &workspace::target().join("ebpf"))?;
        let committed = committed(program);
        fs::copy(&object, &committed).with_context(|| format!("write {}", committed.display()))?;
    }
    Note::of(&toolchain)?.write()?;
    Ok(PROGRAMS.map(committed))
}

/// Compares the committed objects with their sources: by hash, and by building them again in a scratch directory.
///
/// # Errors
/// An object does not match the sources or its note, or cannot be built here.
pub fn check() -> Result<Checked> {
    let note = Note::read()?;
    check_source()?;
    let toolchain = Toolchain::find()?;
    let scratch = Scratch::new()?;
    let object = compile(&toolchain, XDP, &scratch.0)?;
    let lookup = compile(&toolchain, LOOKUP, &scratch.0)?;
    let hot = compile(&toolchain, HOT, &scratch.0)?;
    if Note::of(&toolchain)? == note {
        for (program, object) in [(XDP, &object), (LOOKUP, &lookup), (HOT, &hot)] {
            ensure!(
                fs::read(object)? == fs::read(committed(program))?,
                "ebpf/object/{} is not what its sources make with the same toolchain: run `cargo xtask ebpf`",
                program.object
            );
        }
        return Ok(Checked::SameBytes);
    }
    let kept = workspace::target().join("ebpf/other-toolchain.bpf.o");
    fs::create_dir_all(kept.parent().unwrap_or(Path::new(".")))?;
    fs::copy(&object, &kept).with_context(|| format!("write {}", kept.display()))?;
    Ok(Checked::OtherToolchain(kept))
}

/// Compares the note with the sources and the committed objects, without a toolchain.
///
/// # Errors
/// One of them changed without the others.
pub fn check_source() -> Result<()> {
    let note = Note::read()?;
    ensure!(
        note.source == note::hash_of_source()?,
        "the sources of the eBPF program changed and ebpf/object/ did not: run `cargo xtask ebpf` and commit both"
    );
    for (program, hash) in [
        (XDP, &note.object),
        (LOOKUP, &note.lookup),
        (HOT, &note.hot),
    ] {
        ensure!(
            *hash == note::hash_of_file(&committed(program))?,
            "ebpf/object/{} is not the object of ebpf/object/NOTE.toml: run `cargo xtask ebpf`",
            program.object
        );
    }
    Ok(())
}

/// Compiles and strips a program; returns the object's path.
fn compile(toolchain: &Toolchain, program: Program, target_dir: &Path) -> Result<PathBuf> {
    let mut cargo = toolchain.cargo();
    cargo
        .args(["build", "--locked", "--package", "xdnsd-ebpf"])
        .args([
            "--bin",
            program.binary,
            "--target",
            TARGET,
            "--profile",
            PROFILE,
        ])
        .current_dir(root())
        .env("CARGO_TARGET_DIR", target_dir)
        .env(
            "CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER",
            &toolchain.linker_path,
        )
        // These flags override all others, so the environment does not affect the object.
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            rustflags(toolchain)?.join("\x1f"),
        );
    for variable in env::vars_os().map(|(name, _)| name) {
        if changes_profile(&variable) {
            cargo.env_remove(variable);
        }
    }
    run(&mut cargo)?;
    let built = target_dir.join(TARGET).join(PROFILE).join(program.binary);
    let stripped = target_dir.join(program.object);
    let mut strip = Command::new(&toolchain.strip_path);
    run(strip.args(STRIP).arg("-o").arg(&stripped).arg(&built))?;
    leave_lines_out(toolchain, &stripped)?;
    Ok(stripped)
}

/// Whether a variable of the environment changes Cargo's profiles, and so the object: the profile of Cargo.toml alone counts.
fn changes_profile(variable: &OsStr) -> bool {
    let name = variable.to_string_lossy();
    name == "CARGO_INCREMENTAL"
        || name.starts_with("CARGO_PROFILE_")
        || name == "CARGO_BUILD_INCREMENTAL"
}

/// Removes line information from the object's `.BTF.ext`. It is a third of the object, our loader would hold it in memory, and
/// only the verifier's messages would quote it. Function information stays: the kernel requires it where `bpf_loop` calls a
/// function.
fn leave_lines_out(toolchain: &Toolchain, object: &Path) -> Result<()> {
    let section = object.with_extension("btf-ext");
    let objcopy = |words: String| -> Result<()> {
        let mut command = Command::new(&toolchain.objcopy_path);
        run(command.arg(words).arg(object))
    };
    objcopy(format!("--dump-section=.BTF.ext={}", section.display()))?;
    let bytes = fs::read(&section).with_context(|| format!("read {}", section.display()))?;
    let bytes =
        without_lines(&bytes).context(".BTF.ext is not as the kernel's BTF document has it")?;
    fs::write(&section, bytes).with_context(|| format!("write {}", section.display()))?;
    objcopy(format!("--update-section=.BTF.ext={}", section.display()))
}

/// `.BTF.ext` (kernel document bpf/btf.rst) without its second part, the line information; `None` if there is a third part.
///
/// ```text
///  0       4         8             12            16            20            24
///  | magic | hdr_len | func_off    | func_len    | line_off    | line_len    | core_off, core_len
/// ```
fn without_lines(ext: &[u8]) -> Option<Vec<u8>> {
    const LINE_LEN: usize = 20;
    const CORE_OFF: usize = 24;
    let word = |at: usize| -> Option<usize> {
        let bytes = ext.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    let (header, line_off) = (word(4)?, word(16)?);
    let is_usual = header == 32 && word(8)? == 0 && word(12)? == line_off && word(28)? == 0;
    let mut kept = ext.get(..header + line_off).filter(|_| is_usual)?.to_vec();
    kept[LINE_LEN..LINE_LEN + 4].fill(0);
    kept[CORE_OFF..CORE_OFF + 4].copy_from_slice(&ext[16..20]);
    Some(kept)
}

/// [`RUSTFLAGS`], and remapping of every path of this machine in the debug information.
fn rustflags(toolchain: &Toolchain) -> Result<Vec<String>> {
    let mut flags: Vec<String> = RUSTFLAGS.map(str::to_owned).to_vec();
    let mut remap = |from: &Path, to: &str| {
        flags.push(format!("--remap-path-prefix={}={to}", from.display()));
    };
    remap(&toolchain.library_path, "rust");
    // Cargo unpacks each registry into its own directory below this one.
    let registries = cargo_home()?.join("registry/src");
    for entry in fs::read_dir(&registries).into_iter().flatten() {
        remap(&entry?.path(), "");
    }
    remap(&root(), "");
    Ok(flags)
}

fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("run {program}"))?;
    if !status.success() {
        bail!("{program} failed: {status}");
    }
    Ok(())
}

fn committed(program: Program) -> PathBuf {
    root().join("ebpf/object").join(program.object)
}

fn cargo_home() -> Result<PathBuf> {
    let home = || env::home_dir().map(|home| home.join(".cargo"));
    let found = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(home);
    found.context("neither CARGO_HOME nor a home directory")
}

/// A directory for one build, removed when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        let path = env::temp_dir().join(format!("xdnsd-ebpf-{}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A file left behind in the temporary directory does no harm.
        drop(fs::remove_dir_all(&self.0));
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_environment_changes_no_profile_of_the_object() {
        let changes = |name: &str| super::changes_profile(name.as_ref());
        for name in [
            "CARGO_INCREMENTAL",
            "CARGO_BUILD_INCREMENTAL",
            "CARGO_PROFILE_RELEASE_DEBUG",
            "CARGO_PROFILE_BPF_OPT_LEVEL",
        ] {
            assert!(changes(name), "{name}");
        }
        for name in ["CARGO_HOME", "CARGO_NET_OFFLINE", "PATH"] {
            assert!(!changes(name), "{name}");
        }
    }

    #[test]
    fn lines_go_and_functions_stay() {
        let header = |lines: u32, core: u32, cores: u32| -> Vec<u8> {
            let words = [32, 0, 8, 8, lines, core, cores].map(u32::to_le_bytes);
            [&[0x9f, 0xeb, 1, 0][..], words.as_flattened()].concat()
        };
        let whole = [header(12, 20, 0), vec![7; 8], vec![9; 12]].concat();
        let kept = [header(0, 8, 0), vec![7; 8]].concat();
        assert_eq!(super::without_lines(&whole), Some(kept));
        let with_core = [header(12, 20, 4), vec![7; 24]].concat();
        assert_eq!(super::without_lines(&with_core), None);
        assert_eq!(super::without_lines(&whole[..30]), None);
    }

    #[test]
    fn the_committed_objects_are_of_these_sources() {
        super::check_source().expect("objects, note and sources agree");
    }
}
