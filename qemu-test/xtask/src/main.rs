//! `cargo xtask`: the commands of this repository. Each is a row of [`COMMANDS`]; the work is in the module of that name.

mod arguments;
mod bench;
mod dist;
mod ebpf;
mod image;
mod lab;
mod progress;
mod qemu;
mod run;
mod setup;
mod signals;
mod test;
mod tidy;
mod workspace;

use std::env;
use std::process::ExitCode;

use crate::arguments::Arguments;
use crate::setup::Purpose;
use crate::signals::Signals;
use anyhow::{Context, Result};

/// A command of `cargo xtask`.
struct Command {
    name: &'static str,
    usage: &'static str,
    about: &'static str,
    main: fn(Arguments, &Signals) -> Result<ExitCode>,
}

const COMMANDS: &[Command] = &[
    Command {
        name: "setup",
        usage: "setup [lab] [afxdp] [ebpf] [scripts] [image] [image-aarch64]",
        about: "Installs the Debian packages that are missing: for these purposes, or for all.",
        main: set_up,
    },
    Command {
        name: "lab",
        usage: lab::USAGE,
        about: "A client, a router and an upstream as network namespaces (qemu-test/README.md draws them).",
        main: lab::main,
    },
    Command {
        name: "image",
        usage: image::USAGE,
        about: "The image without Buildroot: Debian's kernel and busybox, our overlay, scripts and server.",
        main: image::main,
    },
    Command {
        name: "ebpf",
        usage: ebpf::USAGE,
        about: "Builds the XDP program into ebpf/object/; with --check compares it with what is there.",
        main: ebpf::main,
    },
    Command {
        name: "test",
        usage: test::USAGE,
        about: "Every test there is, or those of FILTER (a step or a test); --quick leaves out what takes minutes.",
        main: test::main,
    },
    Command {
        name: "bench",
        usage: bench::USAGE,
        about: "Hits beside bare echoes; misses beside dnsmasq and unbound; a long blocklist beside an empty one.",
        main: bench::main,
    },
    Command {
        name: "tidy",
        usage: "tidy",
        about: "The habits of this repository that no other tool checks.",
        main: tidy::main,
    },
    Command {
        name: "run",
        usage: qemu::run::USAGE,
        about: "Boots the image, asks it a few names, and leaves its console.",
        main: run::main,
    },
    // Only to be listed: "run" carries out both.
    Command {
        name: "run --lab",
        usage: run::LAB_USAGE,
        about: "The same in the lab: an upstream and the appliance in namespaces, asked, checked, and left to try.",
        main: run::main,
    },
    Command {
        name: "boot",
        usage: qemu::tests::USAGE,
        about: "Tests of the image in virtual machines; `test` includes them.",
        main: qemu::tests::main,
    },
    Command {
        name: "dist",
        usage: dist::USAGE,
        about: "The release as one archive with its dependencies, for Buildroot; the same bytes each time.",
        main: dist::main,
    },
    Command {
        name: "help",
        usage: "help",
        about: "Lists the commands.",
        main: help,
    },
];

fn main() -> ExitCode {
    match dispatch() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch() -> Result<ExitCode> {
    let signals = Signals::catch()?;
    let mut arguments = Arguments::new(env::args().skip(1));
    let name = arguments.next();
    let name = name.filter(|name| !matches!(name.as_str(), "-h" | "--help"));
    let name = name.unwrap_or_else(|| "help".to_owned());
    let command = COMMANDS.iter().find(|command| command.name == name);
    let command = command.with_context(|| format!("no command {name:?}: `cargo xtask help`"))?;
    (command.main)(arguments, &signals)
}

fn set_up(mut arguments: Arguments, signals: &Signals) -> Result<ExitCode> {
    let mut purposes = Vec::new();
    while let Some(name) = arguments.next() {
        purposes.push(Purpose::parse(&name)?);
    }
    if purposes.is_empty() {
        purposes.extend(Purpose::ALL);
    }
    setup::ensure_all(&purposes, signals)?;
    println!("Nothing is missing.");
    Ok(ExitCode::SUCCESS)
}

fn help(_: Arguments, _: &Signals) -> Result<ExitCode> {
    for command in COMMANDS {
        println!("cargo xtask {}\n    {}\n", command.usage, command.about);
    }
    Ok(ExitCode::SUCCESS)
}
