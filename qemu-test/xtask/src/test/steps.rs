//! The steps of `cargo xtask test`, one row each.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::setup::Purpose;
use crate::workspace;

/// A step: its command, requirements and time limit.
pub struct Step {
    /// Its subject, and the name of its log.
    pub name: &'static str,
    /// True if `--quick` includes it.
    is_quick: bool,
    /// True if all of it needs root. Tests that need root among others that do not skip themselves.
    pub needs_root: bool,
    /// True if it passes a filter to test binaries.
    takes_filter: bool,
    /// Purposes of required packages.
    pub purposes: &'static [Purpose],
    /// Time limit in minutes. The long tests of the image have another.
    limit_mins: u64,
    /// The way, for a step that only runs the black-box tests.
    way: Option<Way>,
    /// True if it runs only when its name is given: it needs a tool that cargo does not bring.
    is_apart: bool,
    /// Makes the command.
    pub command: fn(&Scope) -> Result<Command>,
}

/// Way of the black-box tests: how queries arrive, and from which ports questions are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Way {
    /// Queries come in over AF_XDP, questions leave from ports of one socket.
    Xdp,
    /// Queries come in through the kernel's UDP sockets.
    Udp,
    /// Queries come in over TCP.
    Tcp,
    /// Questions leave from a connected socket each.
    Connected,
    /// Queries come in over AF_XDP, and hot names are answered by the XDP program.
    Hot,
    /// Queries come in over AF_XDP, and the rights are a process of their own.
    Keeper,
    /// One after the other.
    All,
}

/// Environment of the black-box tests: the way, and the number of questions generated for all tiers.
const WAY_VARIABLE: &str = "XDNSD_TEST_WAY";
const QUESTIONS_VARIABLE: &str = "XDNSD_TIER0_QUESTIONS";
/// Number of questions in the long tests.
const QUESTIONS_LONG: &str = "10000";

impl Step {
    /// A step that needs only cargo.
    const fn new(
        name: &'static str,
        limit_mins: u64,
        command: fn(&Scope) -> Result<Command>,
    ) -> Self {
        Self {
            name,
            is_quick: false,
            needs_root: false,
            takes_filter: false,
            purposes: &[],
            limit_mins,
            way: None,
            is_apart: false,
            command,
        }
    }

    /// A step that runs only when its name is given.
    const fn apart(self) -> Self {
        Self {
            is_apart: true,
            ..self
        }
    }

    /// The black-box tests by one way.
    const fn black_box(
        name: &'static str,
        way: Way,
        command: fn(&Scope) -> Result<Command>,
    ) -> Self {
        Self {
            way: Some(way),
            ..Self::new(name, 45, command)
                .filtered()
                .with(&[Purpose::Lab])
        }
    }

    /// Includes the step in `--quick`.
    const fn quick(self) -> Self {
        Self {
            is_quick: true,
            ..self
        }
    }

    /// Marks the whole step as needing root.
    const fn root(self) -> Self {
        Self {
            needs_root: true,
            ..self
        }
    }

    /// Marks the step as taking a filter.
    const fn filtered(self) -> Self {
        Self {
            takes_filter: true,
            ..self
        }
    }

    /// True if the filter names this step. Steps apart are named from the beginning: their tools' names are in those of tests.
    fn is_named(&self, filter: &str) -> bool {
        if self.is_apart {
            return self.name.starts_with(filter);
        }
        self.name.contains(filter)
    }

    /// Sets the purposes of required packages.
    const fn with(self, purposes: &'static [Purpose]) -> Self {
        Self { purposes, ..self }
    }
}

/// Black-box themes unrelated to the path of queries, for which one run is enough: they test what is behind an AF_XDP socket or
/// beside it.
const WITHOUT_XSK: [&str; 17] = [
    "cache::",
    "caching::",
    "chains::",
    "choice::",
    "cli::",
    "examples::",
    "filter::",
    "leases::",
    "local::",
    "log::",
    "ports::",
    "prefixes::",
    "shield::",
    "stubs::",
    "upstreams::",
    "validate::",
    "why::",
];

/// Ways by which all tests run, besides AF_XDP, by which `cargo test` runs: a minute each.
const USUAL_WAYS: [Way; 5] = [Way::Udp, Way::Tcp, Way::Connected, Way::Hot, Way::Keeper];
/// Black-box themes about answers and their lifetimes: in a run of all tests only these use the way of hot names.
const HOT_THEMES: [&str; 6] = [
    "caching::",
    "filter::",
    "local::",
    "prefixes::",
    "rate::",
    "reload::",
];
/// Black-box themes about what takes a right: in a run of all tests only these use the way of the keeper.
const KEEPER_THEMES: [&str; 10] = [
    "arrivals::",
    "bridge::",
    "devices::",
    "health::",
    "lifecycle::",
    "ports::",
    "prefixes::",
    "reload::",
    "shield::",
    "tier0::",
];
/// Concurrent black-box tests. They mostly wait for TTLs, timeouts and silence, so they may exceed the processors.
const BLACK_BOXES: &str = "--test-threads=6";

/// Cheap ones first, so that simple errors show at once; each may fail without the others.
const STEPS: &[Step] = &[
    Step::new("format", 5, |_| Ok(cargo("fmt --all --check"))).quick(),
    Step::new("tidy", 5, |scope| Ok(scope.xtask("tidy"))).quick(),
    Step::new("scripts", 5, |_| shellcheck())
        .quick()
        .with(&[Purpose::Scripts]),
    Step::new("clippy", 30, |_| {
        Ok(cargo("clippy --workspace --all-targets -- -D warnings"))
    })
    .quick(),
    Step::new("clippy with afxdp", 30, |_| {
        Ok(cargo(
            "clippy -p xdnsd --all-targets --features afxdp -- -D warnings",
        ))
    })
    .with(&[Purpose::AfXdp]),
    Step::new("documentation", 20, |_| Ok(documentation())),
    Step::new(QUICK_TESTS, 20, |scope| {
        Ok(scope.cargo_test("--workspace --lib --bins"))
    })
    .quick()
    .filtered(),
    Step::new("tests", 45, |scope| Ok(scope.cargo_test("--workspace")))
        .filtered()
        .with(&[Purpose::Lab]),
    Step::new("tests with afxdp", 45, |scope| {
        let mut command = scope.cargo_test("-p xdnsd --features afxdp --test *");
        command.arg("--");
        for theme in WITHOUT_XSK {
            command.args(["--skip", theme]);
        }
        Ok(command)
    })
    .filtered()
    .with(&[Purpose::Lab, Purpose::AfXdp]),
    Step::black_box("black box by xdp", Way::Xdp, |scope| {
        Ok(scope.black_box("xdp"))
    }),
    Step::black_box("black box by udp", Way::Udp, |scope| {
        Ok(scope.black_box("udp"))
    }),
    Step::black_box("black box by tcp", Way::Tcp, |scope| {
        Ok(scope.black_box("tcp"))
    }),
    Step::black_box("black box by connected", Way::Connected, |scope| {
        Ok(scope.black_box("connected"))
    }),
    Step::black_box("black box by hot", Way::Hot, |scope| {
        let mut command = scope.black_box("hot");
        if scope.ways.is_empty() && scope.filter.is_none() {
            command.args(HOT_THEMES);
        }
        Ok(command)
    }),
    Step::black_box("black box by keeper", Way::Keeper, |scope| {
        let mut command = scope.black_box("keeper");
        if scope.ways.is_empty() && scope.filter.is_none() {
            command.args(KEEPER_THEMES);
        }
        Ok(command)
    }),
    Step::new("eBPF object", 30, |scope| Ok(scope.xtask("ebpf --check"))).with(&[Purpose::Ebpf]),
    Step::new("release", 40, |scope| Ok(scope.xtask("dist --check"))),
    Step::new("lab", 30, |scope| Ok(scope.xtask("run --lab --once")))
        .root()
        .with(&[Purpose::Lab]),
    Step::new("image", 40, |scope| Ok(scope.xtask(scope.boot()))).with(&[Purpose::Image]),
    Step::new("package", 30, |scope| Ok(scope.xtask("package --check"))).with(&[Purpose::Package]),
    Step::new("miri core", 60, |_| Ok(miri(MIRI_CORE))).apart(),
    Step::new("miri chunks", 60, |_| Ok(miri(MIRI_CHUNKS))).apart(),
    Step::new("loom", 20, |_| Ok(loom())).apart(),
    Step::new("cargo-deny", 5, |_| Ok(deny())).apart(),
    Step::new("install", 40, |scope| Ok(scope.xtask("package --install")))
        .root()
        .with(&[Purpose::Lab, Purpose::Peers]),
];

/// Time limit in minutes of the image's long tests: 50 power cuts, each with a boot.
const LONG_LIMIT_MINS: u64 = 120;

/// The step with the tests that take seconds.
const QUICK_TESTS: &str = "quick tests";

/// Selection of steps, and of tests within them.
pub struct Scope {
    filter: Option<String>,
    is_quick: bool,
    /// True to include the image's long tests.
    is_long: bool,
    /// If not empty, only the black-box tests by these ways.
    ways: Vec<Way>,
    /// Path of this program, determined before a build replaces it.
    program: PathBuf,
}

impl Scope {
    /// `filter` names steps, or otherwise tests.
    pub fn new(filter: Option<String>, is_quick: bool) -> Result<Self> {
        let program = env::current_exe().context("find this program")?;
        Ok(Self {
            filter,
            is_quick,
            is_long: false,
            ways: Vec::new(),
            program,
        })
    }

    /// The scope with the long tests of the image, and of hot names.
    #[must_use]
    pub fn long(self, is_long: bool) -> Self {
        Self { is_long, ..self }
    }

    /// The scope with only the black-box tests by these ways.
    #[must_use]
    pub fn ways(self, ways: Vec<Way>) -> Self {
        Self { ways, ..self }
    }

    /// Time limit of the step in minutes.
    pub fn limit_mins(&self, step: &Step) -> u64 {
        let is_long = self.is_long && step.purposes.contains(&Purpose::Image);
        if is_long {
            LONG_LIMIT_MINS
        } else {
            step.limit_mins
        }
    }

    fn boot(&self) -> &'static str {
        if self.is_long { "boot --long" } else { "boot" }
    }

    /// Steps to run, in order.
    pub fn steps(&self) -> Vec<&'static Step> {
        let is_of_ways = |step: &&Step| match step.way {
            None => self.ways.is_empty(),
            Some(way) if self.ways.is_empty() => USUAL_WAYS.contains(&way),
            Some(way) => self.ways.contains(&way) || self.ways.contains(&Way::All),
        };
        let wanted = STEPS.iter().filter(is_of_ways);
        let wanted = wanted.filter(|step| step.is_quick || !self.is_quick);
        // The full tests include the quick ones.
        let wanted = wanted.filter(|step| self.is_quick || step.name != QUICK_TESTS);
        let named = self.names_a_step();
        let is_asked_for = |step: &&Step| match &self.filter {
            None => !step.is_apart,
            Some(filter) if named => step.is_named(filter),
            Some(_) => step.takes_filter,
        };
        wanted.filter(is_asked_for).collect()
    }

    fn names_a_step(&self) -> bool {
        let filter = self.filter.as_deref();
        // Ways have their own option: `tcp` is in the names of many tests.
        let mut steps = STEPS.iter().filter(|step| step.way.is_none());
        filter.is_some_and(|filter| steps.any(|step| step.is_named(filter)))
    }

    /// Uses `cargo test` rather than a runner that may be missing: what runs on a fresh machine runs everywhere, and tests that
    /// share a process must not disturb each other.
    fn cargo_test(&self, arguments: &str) -> Command {
        let mut command = cargo("test --no-fail-fast");
        command.args(arguments.split_whitespace());
        if self.is_long {
            command.env(QUESTIONS_VARIABLE, QUESTIONS_LONG);
        }
        if let Some(filter) = self.filter.as_ref().filter(|_| !self.names_a_step()) {
            command.arg(filter);
        }
        command
    }

    fn black_box(&self, way: &str) -> Command {
        let mut command = self.cargo_test("-p xdnsd --test blackbox");
        command.args(["--", BLACK_BOXES]).env(WAY_VARIABLE, way);
        command
    }

    fn xtask(&self, arguments: &str) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments.split_whitespace())
            .current_dir(workspace::root());
        command
    }
}

fn cargo(arguments: &str) -> Command {
    let mut command = workspace::cargo();
    command.args(arguments.split_whitespace());
    command
}

/// What Miri can run: no sockets, no kernel, and no thousands of rounds.
const MIRI_CORE: &str = "-p xdnsd-core --lib -- forward::in_flight forward::slab dns::header";
const MIRI_CHUNKS: &str = "-p xdnsd --lib -- os::xsk::pool::tests::a_";

/// Tests under Miri, which is a component of nightly toolchains: undefined behaviour, and data races in some orders of steps.
fn miri(arguments: &str) -> Command {
    let mut command = other_toolchain(&["+nightly", "miri", "test"]);
    // Files of the machine and its clock are no part of what is tried.
    command.env("MIRIFLAGS", "-Zmiri-disable-isolation");
    command.args(arguments.split_whitespace());
    command
}

/// What all workers share, in every order of steps.
fn loom() -> Command {
    let mut command = cargo("test --release --manifest-path appliance/loom/Cargo.toml");
    command
        .env("RUSTFLAGS", "--cfg loom")
        .env("CARGO_TARGET_DIR", workspace::target().join("loom"));
    command
}

/// Everything of deny.toml, advisories included: `tidy` holds the rest of it without cargo-deny.
fn deny() -> Command {
    let mut command = other_toolchain(&["deny", "check"]);
    command.args(["-D", "warnings"]);
    command
}

/// cargo by the name that PATH knows: this program's own has a toolchain already.
fn other_toolchain(arguments: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command
        .current_dir(workspace::root())
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("CARGO")
        .args(arguments);
    command
}

fn documentation() -> Command {
    let mut command = cargo("doc --workspace --no-deps --document-private-items --keep-going");
    // The pages include private items, so links to them are valid.
    command.env(
        "RUSTDOCFLAGS",
        "-D warnings -A rustdoc::private-intra-doc-links",
    );
    command
}

/// shellcheck of every shell script.
fn shellcheck() -> Result<Command> {
    let mut scripts = Vec::new();
    for file in workspace::files()? {
        let bytes = fs::read(workspace::root().join(&file));
        let bytes = bytes.with_context(|| format!("read {}", file.display()))?;
        let first = bytes
            .split(|byte| *byte == b'\n')
            .next()
            .unwrap_or_default();
        let interpreter = String::from_utf8_lossy(first).into_owned();
        let is_shell = interpreter.starts_with("#!")
            && interpreter
                .split(['/', ' '])
                .any(|word| matches!(word, "sh" | "bash" | "dash"));
        if is_shell {
            scripts.push(file);
        }
    }
    if scripts.is_empty() {
        bail!("no script is found, although .ci/run is one");
    }
    let mut command = Command::new("shellcheck");
    // Checks scripts for busybox's shell as dash: it supports what they use.
    command.arg("--exclude=SC2187").args(scripts);
    command.current_dir(workspace::root());
    Ok(command)
}
