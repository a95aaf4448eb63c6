//! `cargo xtask`: commands of this repository. Each is a variant of [`Command`], implemented in the module of that name.

mod arguments;
mod bench;
mod dist;
mod ebpf;
mod fuzz;
mod image;
mod lab;
mod measure;
mod package;
mod progress;
mod qemu;
mod run;
mod setup;
mod signals;
mod soak;
mod test;
mod tidy;
mod tools;
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
    /// Installs the Debian packages that are missing, for the given purposes or for all of them.
    Setup(setup::Arguments),
    /// Makes a client, a router and an upstream out of network namespaces (drawn in qemu-test/README.md).
    #[command(subcommand)]
    Lab(lab::Command),
    /// Builds the image without Buildroot: Debian's kernel and busybox, our overlay, scripts and server.
    Image(image::Arguments),
    /// Builds the eBPF programs into ebpf/object/, or with --check proves that what is there is up to date.
    Ebpf(ebpf::Arguments),
    /// Runs every test, or the steps or tests whose name contains FILTER.
    Test(test::Arguments),
    /// Tries what has to hold for any bytes from outside, for some minutes.
    Fuzz(fuzz::Arguments),
    /// Compares hits, misses and floods with bare programs and with other servers, a long blocklist with an empty one.
    #[command(subcommand)]
    Bench(bench::Command),
    /// Checks what no other tool checks: sizes, parameters, reasons for dependencies.
    Tidy,
    /// Prints a table of sizes, parameters, comments, tests and unsafe blocks of the sources.
    Measure(measure::Arguments),
    /// Asks the appliance in the lab all the time while one thing after the other goes wrong, and judges each answer.
    Soak(soak::Arguments),
    /// Boots the image, asks it a few names, and leaves its console; with --lab in namespaces instead.
    Run(run::Arguments),
    /// Tests the image in virtual machines; `test` includes this.
    Boot(qemu::tests::ImageArguments),
    /// Packs the release and its dependencies into one archive, for Buildroot; the same bytes each time.
    Dist(dist::Arguments),
    /// Makes a Debian package of the static server, its manual pages, its completion for bash and its unit.
    Package(package::Arguments),
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
        Command::Fuzz(arguments) => fuzz::main(&arguments, signals),
        Command::Bench(command) => bench::main(command, signals),
        Command::Tidy => tidy::main(),
        Command::Measure(arguments) => measure::main(&arguments),
        Command::Soak(arguments) => soak::main(&arguments, signals),
        Command::Run(arguments) => run::main(arguments, signals),
        Command::Boot(arguments) => qemu::tests::main(arguments, signals),
        Command::Dist(arguments) => dist::main(&arguments),
        Command::Package(arguments) => package::main(&arguments, signals),
    }
}
