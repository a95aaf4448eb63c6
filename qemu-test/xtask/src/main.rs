//! `cargo xtask`: the commands of this repository. Each is a variant of [`Command`]; the work is in the module of that name.

mod arguments;
mod bench;
mod dist;
mod ebpf;
mod image;
mod lab;
mod measure;
mod progress;
mod qemu;
mod run;
mod setup;
mod signals;
mod test;
mod tidy;
mod workspace;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{CommandFactory, Parser, Subcommand};

use crate::signals::Signals;

/// The commands of xdnsd's repository.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Installs the Debian packages that are missing: for these purposes, or for all.
    Setup(setup::Arguments),
    /// A client, a router and an upstream as network namespaces (qemu-test/README.md draws them).
    #[command(subcommand)]
    Lab(lab::Command),
    /// The image without Buildroot: Debian's kernel and busybox, our overlay, scripts and server.
    Image(image::Arguments),
    /// Builds the XDP program into ebpf/object/; with --check compares it with what is there.
    Ebpf(ebpf::Arguments),
    /// Every test there is, or those of FILTER (a step or a test); --quick leaves out what takes minutes.
    Test(test::Arguments),
    /// Hits beside bare echoes; misses beside dnsmasq and unbound; a long blocklist beside an empty one.
    #[command(subcommand)]
    Bench(bench::Command),
    /// The habits of this repository that no other tool checks.
    Tidy,
    /// Sizes and habits of the sources as a table; --list names what is long or wide.
    Measure(measure::Arguments),
    /// Boots the image, asks it a few names, and leaves its console; with --lab without a virtual machine.
    Run(run::Arguments),
    /// Tests of the image in virtual machines; `test` includes them.
    Boot(qemu::tests::ImageArguments),
    /// The release as one archive with its dependencies, for Buildroot; the same bytes each time.
    Dist(dist::Arguments),
}

fn main() -> ExitCode {
    match carry_out(CommandLine::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn carry_out(line: CommandLine) -> Result<ExitCode> {
    let signals = &Signals::catch()?;
    let Some(command) = line.command else {
        let printed = CommandLine::command().print_help();
        return printed
            .map(|()| ExitCode::SUCCESS)
            .context("print the help");
    };
    match command {
        Command::Setup(arguments) => setup::main(arguments, signals),
        Command::Lab(command) => lab::main(command, signals),
        Command::Image(arguments) => image::main(arguments, signals),
        Command::Ebpf(arguments) => ebpf::main(&arguments),
        Command::Test(arguments) => test::main(arguments, signals),
        Command::Bench(command) => bench::main(command, signals),
        Command::Tidy => tidy::main(),
        Command::Measure(arguments) => measure::main(&arguments),
        Command::Run(arguments) => run::main(arguments, signals),
        Command::Boot(arguments) => qemu::tests::main(arguments, signals),
        Command::Dist(arguments) => dist::main(&arguments),
    }
}
