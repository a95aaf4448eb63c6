//! Counters by interface: the one that a query came in by, whichever address was asked and whichever worker took it.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use xdnsd_core::counters::Counter;
use xdnsd_lab::lab::{LAN, LAN_V4, LAN_V6, UPSTREAM_V4, UPSTREAM_V6, WAN};
use xdnsd_lab::netns::Namespace;
use xdnsd_lab::wait::wait_until;

use super::access::{Outcome, by_socket, docker, question, server_of};
use crate::support::TIMEOUT;
use crate::support::client::Family;
use crate::support::metrics::Metric;
use crate::support::run::only;
use crate::support::scene::{Scene, Setup, scene};
use crate::support::script::Rule;
use crate::support::ways::{Way, Ways};

/// A counter of queries from this interface.
#[derive(Debug)]
struct CameBy(&'static str, Counter);

impl Metric for CameBy {
    fn family(&self) -> String {
        self.1.family()
    }

    fn label(&self) -> String {
        format!("interface=\"{}\"", self.0)
    }
}

/// Counters of a way: queries and answers.
const COUNTED: [(Way, Counter, Counter); 2] = [
    (Way::Udp, Counter::QueriesUdp, Counter::AnswersUdp),
    (Way::Tcp, Counter::QueriesTcp, Counter::AnswersTcp),
];

/// A device that is not served, with a host behind it.
fn docker_with_host(scene: &Scene) -> Result<Namespace> {
    let container = docker(&scene.lab.router)?;
    container.ip("link set lo up
         link set eth0 up
         address add 172.17.0.2/16 dev eth0
         address add fd57::2/64 dev eth0 nodad
         route add default via 172.17.0.1
         route add ::/0 via fd57::1\n")?;
    container.output(&["ethtool", "-K", "eth0", "tx", "off"])?;
    Ok(container)
}

/// One query by each way from everywhere to an address of the LAN: three by `lo`, two by each other interface, one for each
/// family. Those from elsewhere get `elsewhere`.
fn ask_from_everywhere(scene: &Scene, container: &Namespace, elsewhere: Outcome) -> Result<()> {
    let lab = &scene.lab;
    for (way, ..) in COUNTED {
        for (local, server) in [
            ("10.54.0.1", IpAddr::from(LAN_V4)),
            ("fd53::1", LAN_V6.into()),
            ("127.0.0.1", IpAddr::from([127, 0, 0, 1])),
        ] {
            let local = local.parse()?;
            let outcome = by_socket(&lab.router, way, local, server, Outcome::Answer)?;
            ensure!(outcome == Outcome::Answer, "{way:?} {local}: {outcome:?}");
        }
        for (host, local) in [
            (&lab.upstream, IpAddr::from(UPSTREAM_V4)),
            (&lab.upstream, UPSTREAM_V6.into()),
            (container, "172.17.0.2".parse()?),
            (container, "fd57::2".parse()?),
        ] {
            let outcome = by_socket(host, way, local, server_of(local), elsewhere)?;
            ensure!(outcome == elsewhere, "{way:?} {local}: {outcome:?}");
        }
    }
    let ways = Ways::open(scene)?;
    for family in Family::ALL {
        for (way, ..) in COUNTED {
            ways.ask(way, family, &question())?;
        }
    }
    Ok(())
}

fn set_up(access: &str) -> Setup {
    Setup::three_ways().sections(&format!(
        "[[interface]]\nname = \"lo\"\nlisten = [\"127.0.0.1\"]\nxdp = \"off\"\n{access}"
    ))
}

fn prepare(scene: &Scene) -> Result<Namespace> {
    scene
        .upstream
        .on("www.test.", Rule::addresses(300, &["192.0.2.1"]));
    docker_with_host(scene)
}

#[test]
fn queries_and_answers_are_counted_for_the_interface_that_the_query_came_in_by() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let scene = scene!(set_up("[access]\nothers = \"allow\"\n"));
    let container = prepare(&scene)?;
    let before = scene.daemon.metrics()?;
    ask_from_everywhere(&scene, &container, Outcome::Answer)?;
    for (_, queries, answers) in COUNTED {
        for counter in [queries, answers] {
            let by = |interface| CameBy(interface, counter);
            let expected: [(&dyn Metric, u64); 6] = [
                (&by("lo"), 3),
                (&by(WAN), 2),
                (&by("docker0"), 2),
                (&by(LAN), 2),
                (&by("other"), 0),
                (&counter, 9),
            ];
            let grown = scene.daemon.wait_growth(&before, &expected);
            grown.with_context(|| format!("{counter:?}"))?;
        }
    }
    // No counter of a worker names an interface that its queries need not have come by.
    let stats = scene.daemon.control("stats")?;
    for family in [
        "cache_hits",
        "acl_dropped",
        "refused_given",
        "upstream_queries",
    ] {
        let of_family = |line: &&str| line.starts_with(&format!("xdnsd_{family}_total"));
        let mut lines = stats.lines().filter(of_family).peekable();
        ensure!(lines.peek().is_some(), "{stats}");
        ensure!(lines.all(|line| line.contains("{worker=\"")), "{stats}");
    }
    // A deleted interface leaves its counts with the others.
    scene.lab.router.ip("link delete docker0\n")?;
    wait_until("docker0 is other", TIMEOUT, || {
        let Ok(now) = scene.daemon.metrics() else {
            return false;
        };
        let grown = |interface| now.growth(&before, &CameBy(interface, Counter::QueriesTcp));
        now.get(&CameBy("docker0", Counter::QueriesTcp)).is_none() && grown("other") == 2
    })
}

#[test]
fn queries_that_are_not_answered_are_counted_for_their_interface_too() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let scene = scene!(set_up(""));
    let container = prepare(&scene)?;
    let before = scene.daemon.metrics()?;
    ask_from_everywhere(&scene, &container, Outcome::Nothing)?;
    let expected: [(&dyn Metric, u64); 9] = [
        (&CameBy(WAN, Counter::QueriesUdp), 2),
        (&CameBy(WAN, Counter::AnswersUdp), 0),
        (&CameBy("docker0", Counter::QueriesUdp), 2),
        (&CameBy("docker0", Counter::AnswersUdp), 0),
        (&CameBy(LAN, Counter::QueriesUdp), 2),
        (&CameBy(LAN, Counter::AnswersUdp), 2),
        // Their connections are closed before anything is asked.
        (&CameBy(WAN, Counter::QueriesTcp), 0),
        (&Counter::QueriesTcp, 5),
        (&Counter::AclDropped, 8),
    ];
    scene.daemon.wait_growth(&before, &expected)
}
