//! The steps of `cargo xtask test`, one row each.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

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
    /// Which of the ways it is, of a step that runs the black-box tests alone.
    way: Option<Way>,
    /// The command itself.
    pub command: fn(&Scope) -> Result<Command>,
}

/// By which way the black-box tests go: how queries come in, and from which ports questions leave.
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
    /// One after the other.
    All,
}

/// Of the environment of the black-box tests: their way, and how many questions are generated for all tiers.
const WAY_VARIABLE: &str = "XDNSD_TEST_WAY";
const QUESTIONS_VARIABLE: &str = "XDNSD_TIER0_QUESTIONS";
/// Of them in the long tests.
const QUESTIONS_LONG: &str = "10000";

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
            way: None,
            command,
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

/// Themes of the black-box tests that are about what is behind an AF_XDP socket or beside it, and to which it does what it does in
/// all others: once is enough.
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

/// Ways that the whole of the tests goes by, besides that over AF_XDP, by which `cargo test` goes: a minute each.
const USUAL_WAYS: [Way; 4] = [Way::Udp, Way::Tcp, Way::Connected, Way::Hot];
/// Themes of the black-box tests about answers and how long they hold: in a run of all tests these alone go by the way of hot names.
const HOT_THEMES: [&str; 6] = [
    "caching::",
    "filter::",
    "local::",
    "prefixes::",
    "rate::",
    "reload::",
];
/// Black-box tests at once. They mostly wait, for TTLs, timeouts and silence, so there may be more than processors.
const BLACK_BOXES: &str = "--test-threads=6";

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
    Step::new("eBPF object", 30, |scope| Ok(scope.xtask("ebpf --check"))).with(&[Purpose::Ebpf]),
    Step::new("release", 40, |scope| Ok(scope.xtask("dist --check"))),
    Step::new("lab", 30, |scope| Ok(scope.xtask("run --lab --once")))
        .root()
        .with(&[Purpose::Lab]),
    Step::new("image", 40, |scope| Ok(scope.xtask(scope.boot()))).with(&[Purpose::Image]),
    Step::new("package", 30, |scope| Ok(scope.xtask("package --check"))).with(&[Purpose::Package]),
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
    /// Where there are any, the black-box tests by these ways and nothing else.
    ways: Vec<Way>,
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
            ways: Vec::new(),
            program,
        })
    }

    /// The same, with the long tests of the image, and of hot names.
    #[must_use]
    pub fn long(self, is_long: bool) -> Self {
        Self { is_long, ..self }
    }

    /// The black-box tests alone, by these ways.
    #[must_use]
    pub fn ways(self, ways: Vec<Way>) -> Self {
        Self { ways, ..self }
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
        let is_of_ways = |step: &&Step| match step.way {
            None => self.ways.is_empty(),
            Some(way) if self.ways.is_empty() => USUAL_WAYS.contains(&way),
            Some(way) => self.ways.contains(&way) || self.ways.contains(&Way::All),
        };
        let wanted = STEPS.iter().filter(is_of_ways);
        let wanted = wanted.filter(|step| step.is_quick || !self.is_quick);
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
        // Ways are named by an option of their own: `tcp` is in the names of many tests.
        let mut steps = STEPS.iter().filter(|step| step.way.is_none());
        filter.is_some_and(|filter| steps.any(|step| step.name.contains(filter)))
    }

    /// `cargo test`, not a runner that may be installed or not: what runs on a fresh machine runs everywhere, and
    /// tests that share a process may not disturb each other.
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

fn documentation() -> Command {
    let mut command = cargo("doc --workspace --no-deps --document-private-items --keep-going");
    // The pages have the private items, so a link to one is good.
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
