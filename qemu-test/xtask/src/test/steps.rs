//! The steps of `cargo xtask test`, one row each.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::setup::Purpose;
use crate::workspace;

/// A row: what is run, what it needs, and how long it may take.
pub struct Step {
    /// What is tested; also the name of its log.
    pub name: &'static str,
    /// Whether `--quick` includes it.
    is_quick: bool,
    /// Whether all of it needs root. Tests that need root beside others that do not skip themselves.
    pub needs_root: bool,
    /// Whether it hands a filter on to test binaries.
    takes_filter: bool,
    /// What has to be installed.
    pub purposes: &'static [Purpose],
    /// After so many minutes something hangs. The long tests of the image take longer.
    limit_mins: u64,
    /// The command itself.
    pub command: fn(&Scope) -> Result<Command>,
}

impl Step {
    /// A step that needs nothing but cargo.
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
            command,
        }
    }

    /// `--quick` includes it.
    const fn quick(self) -> Self {
        Self {
            is_quick: true,
            ..self
        }
    }

    /// All of it needs root.
    const fn root(self) -> Self {
        Self {
            needs_root: true,
            ..self
        }
    }

    /// It hands a filter on.
    const fn filtered(self) -> Self {
        Self {
            takes_filter: true,
            ..self
        }
    }

    /// It needs packages for these purposes.
    const fn with(self, purposes: &'static [Purpose]) -> Self {
        Self { purposes, ..self }
    }
}

/// Themes of the black-box tests in which an AF_XDP socket does what it does in all others: once is enough.
const WITHOUT_XSK: [&str; 5] = ["examples::", "leases::", "log::", "ports::", "stubs::"];

/// Cheap ones first, so that a slip shows at once; each may fail without the others.
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
    Step::new("eBPF object", 30, |scope| Ok(scope.xtask("ebpf --check"))).with(&[Purpose::Ebpf]),
    Step::new("release", 40, |scope| Ok(scope.xtask("dist --check"))),
    Step::new("lab", 30, |scope| Ok(scope.xtask("run --lab --once")))
        .root()
        .with(&[Purpose::Lab]),
    Step::new("image", 40, |scope| Ok(scope.xtask(scope.boot()))).with(&[Purpose::Image]),
];

/// After so many minutes the long tests of the image hang: 50 power cuts, each with a boot.
const LONG_LIMIT_MINS: u64 = 120;

/// The part of the tests that takes seconds.
const QUICK_TESTS: &str = "quick tests";

/// Which steps are wanted, and which tests within them.
pub struct Scope {
    filter: Option<String>,
    is_quick: bool,
    /// Whether the image's long tests are wanted.
    is_long: bool,
    /// This program, as it was found before a build replaced it.
    program: PathBuf,
}

impl Scope {
    /// `filter` names steps, or else tests.
    pub fn new(filter: Option<String>, is_quick: bool) -> Result<Self> {
        let program = env::current_exe().context("find this program")?;
        Ok(Self {
            filter,
            is_quick,
            is_long: false,
            program,
        })
    }

    /// The same, with the long tests of the image.
    #[must_use]
    pub fn long(self, is_long: bool) -> Self {
        Self { is_long, ..self }
    }

    /// How many minutes the step may take.
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

    /// The steps to run, in order.
    pub fn steps(&self) -> Vec<&'static Step> {
        let wanted = STEPS.iter().filter(|step| step.is_quick || !self.is_quick);
        // The whole of the tests includes the quick ones.
        let wanted = wanted.filter(|step| self.is_quick || step.name != QUICK_TESTS);
        let named = self.names_a_step();
        let is_asked_for = |step: &&Step| match &self.filter {
            None => true,
            Some(filter) if named => step.name.contains(filter),
            Some(_) => step.takes_filter,
        };
        wanted.filter(is_asked_for).collect()
    }

    fn names_a_step(&self) -> bool {
        let filter = self.filter.as_deref();
        filter.is_some_and(|filter| STEPS.iter().any(|step| step.name.contains(filter)))
    }

    /// `cargo test`, not a runner that may be installed or not: what runs on a fresh machine runs everywhere, and
    /// tests that share a process may not disturb each other.
    fn cargo_test(&self, arguments: &str) -> Command {
        let mut command = cargo("test --no-fail-fast");
        command.args(arguments.split_whitespace());
        if let Some(filter) = self.filter.as_ref().filter(|_| !self.names_a_step()) {
            command.arg(filter);
        }
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

fn documentation() -> Command {
    let mut command = cargo("doc --workspace --no-deps --document-private-items --keep-going");
    // Nobody reads these pages without the private items: a link to one is good.
    command.env(
        "RUSTDOCFLAGS",
        "-D warnings -A rustdoc::private-intra-doc-links",
    );
    command
}

/// shellcheck of every file that a shell interprets.
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
    // Read busybox's shell as dash: it has what the scripts here use.
    command.arg("--exclude=SC2187").args(scripts);
    command.current_dir(workspace::root());
    Ok(command)
}
