//! By which way a whole run of the suite goes. [`VARIABLE`] says it from outside, and is read here and nowhere else.
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
//! ```
//!
//! A plain query is one that a test asks with `ask`, or with the first of the ways of [`Ways`](super::ways::Ways). A test
//! that says its XDP mode or its way to ports has these in each run. A test that is about one way leaves the other runs out
//! with [`only!`], and says why. One that is not for the guests' kernels says that with [`not_in_guests!`].

use std::env;
use std::sync::LazyLock;

use xdnsd_core::counters::Counter;
use xdnsd_lab::privilege::leave_out;

use super::ways::Way;

/// Of the environment: the way's name.
const VARIABLE: &str = "XDNSD_TEST_WAY";

/// The runs that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    Xdp,
    Udp,
    Tcp,
    Connected,
    Hot,
}

/// For what goes on in every run as it does in the first: done by hand, by all ways, or by programs of others.
pub const ONCE: &[Run] = &[Run::Xdp];
/// For what an XDP program or an AF_XDP socket is needed.
pub const OVER_XDP: &[Run] = &[Run::Xdp, Run::Connected, Run::Hot];
/// The same, where the client's kernel has to take in many answers at once: of frames that come by a program of its own it takes fewer.
pub const OVER_XDP_IN_BURSTS: &[Run] = &[Run::Xdp, Run::Connected];
/// For what datagrams have, and streams have not.
pub const IN_DATAGRAMS: &[Run] = &[Run::Xdp, Run::Udp, Run::Connected, Run::Hot];

impl Run {
    const ALL: [(&'static str, Self); 5] = [
        ("xdp", Self::Xdp),
        ("udp", Self::Udp),
        ("tcp", Self::Tcp),
        ("connected", Self::Connected),
        ("hot", Self::Hot),
    ];

    /// This one.
    pub fn this() -> Self {
        static RUN: LazyLock<Run> = LazyLock::new(|| {
            let name = env::var(VARIABLE).unwrap_or_else(|_| "xdp".to_owned());
            let found = Run::ALL.into_iter().find(|(known, _)| *known == name);
            let (_, run) = found.unwrap_or_else(|| panic!("{VARIABLE}={name} is no way"));
            run
        });
        *RUN
    }

    /// The XDP mode of a test that does not say one.
    pub fn xdp(self) -> &'static str {
        match self {
            // Not "auto": a test of AF_XDP must not pass without it.
            Self::Xdp | Self::Tcp | Self::Connected | Self::Hot => "native",
            Self::Udp => "off",
        }
    }

    /// What [`Scene::attached`](super::scene::Scene::attached) says of a test that does not say its mode.
    pub fn attached(self) -> &'static str {
        match self.xdp() {
            "off" => "",
            _ => "xdp",
        }
    }

    /// The way to source ports of a test that does not say one, where it is not the config's default.
    pub fn ports(self) -> Option<&'static str> {
        (self == Self::Connected).then_some("connected")
    }

    /// Whether hot names are answered by the XDP program, in a test that does not say it.
    pub fn tier0(self) -> Option<&'static str> {
        (self == Self::Hot).then_some("on")
    }

    /// How a plain query goes.
    pub fn way(self) -> Way {
        match self {
            Self::Xdp | Self::Connected | Self::Hot => Way::Xdp,
            Self::Udp => Way::Udp,
            Self::Tcp => Way::Tcp,
        }
    }

    /// What counts answers to plain queries.
    pub fn answers(self) -> Counter {
        match self.way() {
            Way::Xdp => Counter::AnswersXdp,
            Way::Udp => Counter::AnswersUdp,
            Way::Tcp => Counter::AnswersTcp,
        }
    }

    /// Whether a test that is for `runs` takes part in this one. Otherwise it is reported with the reason.
    pub fn is_one_of(self, runs: &[Self], test: &str, why: &str) -> bool {
        let takes_part = runs.contains(&self);
        if !takes_part {
            leave_out(test, why);
        }
        takes_part
    }
}

/// Ends the test that calls it where it is not for this run. Behind the runs that it is for stands why.
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

/// Ends the test that calls it in a guest of "tests of SYN cookies" and its like. Behind it stands why.
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

/// The path of the function that it stands in.
macro_rules! this_test {
    () => {{
        fn here() {}
        std::any::type_name_of_val(&here).trim_end_matches("::here")
    }};
}
pub(crate) use this_test;

/// Whether the tests run in a guest, which is made for that: `qemu-test/guest-tests/init` says so.
pub fn is_guest() -> bool {
    env::var_os("XDNSD_GUEST").is_some()
}
