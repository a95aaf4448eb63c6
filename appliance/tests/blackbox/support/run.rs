//! The way that a whole run of the suite takes. [`VARIABLE`] selects it, and is read only here.
//!
//! ```text
//!             clients' plain queries come in             questions leave to upstreams
//!  xdp        over AF_XDP                                from ports that one socket takes by sk_lookup
//!  udp        through the kernel's UDP sockets:          likewise
//!             no XDP program is attached
//!  tcp        over TCP, each by a connection of its own  likewise
//!  connected  over AF_XDP                                each from a connected socket of its own
//!  hot        over AF_XDP, hot names are answered        likewise, as by xdp
//!             by the XDP program
//!  keeper     over AF_XDP; the server has no rights,     likewise
//!             they are a process of their own
//! ```
//!
//! A plain query is one that a test asks with `ask`, or with the first of the ways of [`Ways`](super::ways::Ways). A test that
//! sets its XDP mode or its way to ports keeps these in each run. A test about one way excludes the other runs with [`only!`],
//! with a reason. A test that does not work in the guests' kernels is marked with [`not_in_guests!`].

use std::env;
use std::sync::LazyLock;

use xdnsd_core::counters::Counter;
use xdnsd_lab::privilege::leave_out;

use super::ways::Way;

/// Environment variable with the way's name.
const VARIABLE: &str = "XDNSD_TEST_WAY";

/// Runs of the suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    Xdp,
    Udp,
    Tcp,
    Connected,
    Hot,
    Keeper,
}

/// For what is the same in every run: done by hand, by all ways, or by other programs.
pub const ONCE: &[Run] = &[Run::Xdp];
/// For what needs an XDP program or an AF_XDP socket.
pub const OVER_XDP: &[Run] = &[Run::Xdp, Run::Connected, Run::Hot, Run::Keeper];
/// The same, for tests in which the client's kernel gets many answers at once: with a program of its own it takes fewer frames.
pub const OVER_XDP_IN_BURSTS: &[Run] = &[Run::Xdp, Run::Connected, Run::Keeper];
/// For properties of datagrams that streams lack.
pub const IN_DATAGRAMS: &[Run] = &[Run::Xdp, Run::Udp, Run::Connected, Run::Hot, Run::Keeper];

impl Run {
    const ALL: [(&'static str, Self); 6] = [
        ("xdp", Self::Xdp),
        ("udp", Self::Udp),
        ("tcp", Self::Tcp),
        ("connected", Self::Connected),
        ("hot", Self::Hot),
        ("keeper", Self::Keeper),
    ];

    /// The current run.
    pub fn this() -> Self {
        static RUN: LazyLock<Run> = LazyLock::new(|| {
            let name = env::var(VARIABLE).unwrap_or_else(|_| "xdp".to_owned());
            let found = Run::ALL.into_iter().find(|(known, _)| *known == name);
            let (_, run) = found.unwrap_or_else(|| panic!("{VARIABLE}={name} is no way"));
            run
        });
        *RUN
    }

    /// XDP mode of a test that does not set one.
    pub fn xdp(self) -> &'static str {
        match self {
            // Not "auto": a test of AF_XDP must fail without it.
            Self::Xdp | Self::Tcp | Self::Connected | Self::Hot | Self::Keeper => "native",
            Self::Udp => "off",
        }
    }

    /// Expected [`Scene::attached`](super::scene::Scene::attached) in a test that does not set its mode.
    pub fn attached(self) -> &'static str {
        match self.xdp() {
            "off" => "",
            _ => "xdp",
        }
    }

    /// Way to source ports in a test that does not set one; `None`: the config's default.
    pub fn ports(self) -> Option<&'static str> {
        (self == Self::Connected).then_some("connected")
    }

    /// Whether the XDP program answers hot names, in a test that does not set it.
    pub fn tier0(self) -> Option<&'static str> {
        (self == Self::Hot).then_some("on")
    }

    /// Whether the rights are a process of their own, in a test that does not set it.
    pub fn keeper(self) -> Option<&'static str> {
        (self == Self::Keeper).then_some("true")
    }

    /// Way of a plain query.
    pub fn way(self) -> Way {
        match self {
            Self::Xdp | Self::Connected | Self::Hot | Self::Keeper => Way::Xdp,
            Self::Udp => Way::Udp,
            Self::Tcp => Way::Tcp,
        }
    }

    /// Counter of answers to plain queries.
    pub fn answers(self) -> Counter {
        match self.way() {
            Way::Xdp => Counter::AnswersXdp,
            Way::Udp => Counter::AnswersUdp,
            Way::Tcp => Counter::AnswersTcp,
        }
    }

    /// True if a test for `runs` takes part in this one. Otherwise prints the reason.
    pub fn is_one_of(self, runs: &[Self], test: &str, why: &str) -> bool {
        let takes_part = runs.contains(&self);
        if !takes_part {
            leave_out(test, why);
        }
        takes_part
    }
}

/// Ends the calling test if it is not for this run. The runs are followed by the reason.
macro_rules! only {
    ($runs:ident, $why:literal) => {{
        let runs = $crate::support::run::$runs;
        let test = $crate::support::run::this_test!();
        if !$crate::support::run::Run::this().is_one_of(runs, test, $why) {
            return Ok(());
        }
    }};
}
pub(crate) use only;

/// Ends the calling test in a guest such as that of "tests of SYN cookies". The reason is the argument.
macro_rules! not_in_guests {
    ($why:literal) => {{
        if $crate::support::run::is_guest() {
            let test = $crate::support::run::this_test!();
            xdnsd_lab::privilege::leave_out(test, $why);
            return Ok(());
        }
    }};
}
pub(crate) use not_in_guests;

/// Path of the enclosing function.
macro_rules! this_test {
    () => {{
        fn here() {}
        std::any::type_name_of_val(&here).trim_end_matches("::here")
    }};
}
pub(crate) use this_test;

/// True in a guest that was made for tests: `qemu-test/guest-tests/init` sets it.
pub fn is_guest() -> bool {
    env::var_os("XDNSD_GUEST").is_some()
}
