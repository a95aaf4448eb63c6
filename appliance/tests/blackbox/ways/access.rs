//! Access of clients, by every way in: the table of `access.others`, by the device of a query and the route of its answer.

use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use anyhow::{Context, Result, ensure};
use xdnsd_abi::Reason;
use xdnsd_core::counters::Counter;
use xdnsd_lab::lab::{LAN, LAN_V4, LAN_V6, UPSTREAM_V4, UPSTREAM_V6, WAN};
use xdnsd_lab::netns::Namespace;
use xdnsd_lab::wait::wait_until;

use super::code;
use crate::support::ask::{Ask, rtype};
use crate::support::client::{DNS_PORT, Family};
use crate::support::metrics::Metric;
use crate::support::run::only;
use crate::support::scene::{Scene, Setup, scene};
use crate::support::script::Rule;
use crate::support::stream::{Next, Stream};
use crate::support::view::View;
use crate::support::ways::{Way, Ways};
use crate::support::{SILENCE, TIMEOUT};

/// Outcome of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Answer,
    Refused,
    Nothing,
}

impl Outcome {
    fn of(reply: Option<Vec<u8>>) -> Result<Self> {
        let Some(reply) = reply else {
            return Ok(Self::Nothing);
        };
        match View::parse(&reply)?.rcode() {
            code::NOERROR => Ok(Self::Answer),
            code::REFUSED => Ok(Self::Refused),
            other => anyhow::bail!("response code {other}"),
        }
    }

    /// Timeout for the outcome.
    fn patience(self) -> std::time::Duration {
        match self {
            Self::Answer | Self::Refused => TIMEOUT,
            Self::Nothing => SILENCE,
        }
    }
}

pub fn question() -> Vec<u8> {
    Ask::of("www.test.", rtype::A).bytes()
}

/// Answer of `server` to a host at `local` in `host`, by a UDP or TCP socket of its kernel.
pub fn by_socket(
    host: &Namespace,
    way: Way,
    local: IpAddr,
    server: IpAddr,
    expected: Outcome,
) -> Result<Outcome> {
    let server = SocketAddr::new(server, DNS_PORT);
    if way == Way::Tcp {
        let Ok(mut stream) = Stream::open_in(host, local, server, expected.patience()) else {
            return Ok(Outcome::Nothing);
        };
        // It may be closed already.
        let _ = stream.send(&question());
        return match stream.next(expected.patience())? {
            Next::Message(reply) => Outcome::of(Some(reply)),
            Next::Closed | Next::Nothing => Ok(Outcome::Nothing),
        };
    }
    let socket = host.run(|| UdpSocket::bind((local, 0)));
    let socket = socket.with_context(|| format!("a socket at {local}"))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(expected.patience()))?;
    socket.send(&question())?;
    let mut reply = vec![0; 4096];
    match socket.recv(&mut reply) {
        Ok(len) => Outcome::of(Some(reply[..len].to_vec())),
        Err(_) => Ok(Outcome::Nothing),
    }
}

/// Answer to a host at `source` beside the router: datagrams as frames of its own, streams by its kernel.
pub fn from_lan(
    scene: &Scene,
    ways: &Ways<'_>,
    way: Way,
    source: IpAddr,
    server: IpAddr,
    expected: Outcome,
) -> Result<Outcome> {
    if way == Way::Tcp {
        return by_socket(&scene.lab.client, way, source, server, expected);
    }
    let mut frame = ways.frame(way, Family::of_address(source), &question())?;
    frame.source.set_ip(source);
    frame.destination.set_ip(server);
    ways.raw().send(&frame.to_bytes())?;
    Outcome::of(ways.raw().next_for(&frame, expected.patience())?)
}

/// A device of the router that is not served, like docker's, with the namespace behind it.
pub fn docker(router: &Namespace) -> Result<Namespace> {
    let container = Namespace::unnamed()?;
    router.ip(&format!(
        "link add name docker0 type veth peer name eth0 netns {}
         link set docker0 up
         address add 172.17.0.1/16 dev docker0
         address add fd57::1/64 dev docker0 nodad\n",
        container.path()
    ))?;
    Ok(container)
}

pub fn server_of(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V4(_) => LAN_V4.into(),
        IpAddr::V6(_) => LAN_V6.into(),
    }
}

fn parsed<const N: usize>(addresses: [&str; N]) -> Result<Vec<IpAddr>> {
    let parsed = addresses.iter().map(|address| address.parse());
    Ok(parsed.collect::<Result<_, _>>()?)
}

/// Addresses of hosts on both sides: in the config's list, behind the router on the LAN's side, and one of the LAN's own on the
/// WAN's side.
fn prepare(scene: &Scene) -> Result<()> {
    scene
        .upstream
        .on("www.test.", Rule::addresses(300, &["192.0.2.1"]));
    scene.lab.client.ip("address add 10.53.0.77/24 dev eth0
         address add fd53::77/64 dev eth0 nodad
         address add 198.51.100.7/32 dev eth0
         address add 2001:db8:77::7/128 dev eth0 nodad\n")?;
    scene
        .lab
        .upstream
        .ip("address add 10.53.0.99/32 dev eth0\naddress add fd53::99/128 dev eth0 nodad\n")?;
    scene.lab.router.ip(&format!(
        "route add 198.51.100.7/32 via 10.53.0.2 dev {LAN}
         route add 2001:db8:77::7/128 via fd53::2 dev {LAN}
         route add 10.53.0.99/32 dev {WAN}
         route add fd53::99/128 dev {WAN}\n"
    ))
}

#[test]
fn others_get_what_the_config_says_by_every_way_and_from_everywhere() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    use Outcome::{Answer, Nothing, Refused};
    for (others, neighbour, stranger) in [
        ("allow", Answer, Answer),
        ("refuse", Refused, Refused),
        ("drop", Nothing, Nothing),
        ("local", Answer, Nothing),
    ] {
        let scene = scene!(Setup::three_ways().sections(&format!(
            "[access]\nallow = [\"10.53.0.77\", \"fd53::77\"]\nothers = \"{others}\"\n"
        )));
        prepare(&scene)?;
        let ways = Ways::open(&scene)?;
        for way in Way::ALL {
            for (clients, expected) in [
                (["10.53.0.77", "fd53::77"], Answer),
                (["10.53.0.2", "fd53::2"], neighbour),
                (["198.51.100.7", "2001:db8:77::7"], stranger),
            ] {
                for client in parsed(clients)? {
                    let server = server_of(client);
                    let outcome = from_lan(&scene, &ways, way, client, server, expected)?;
                    assert_eq!(outcome, expected, "{others} {way:?} {client}");
                }
            }
        }
        // By another device: a neighbour's address there is forged, or has another route.
        let mut wan = vec![IpAddr::from(UPSTREAM_V4), UPSTREAM_V6.into()];
        wan.extend(parsed(["10.53.0.99", "fd53::99"])?);
        for way in [Way::Udp, Way::Tcp] {
            for &client in &wan {
                let host = &scene.lab.upstream;
                let outcome = by_socket(host, way, client, server_of(client), stranger)?;
                assert_eq!(outcome, stranger, "{others} {way:?} {client} by {WAN}");
            }
        }
    }
    Ok(())
}

/// Clients that are dropped for their address: in the XDP program where it sees them, in user space elsewhere. What is more
/// specific holds in both, and a reload at once.
#[test]
fn a_client_that_is_dropped_by_its_address_comes_no_further_than_the_program() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    use Outcome::{Answer, Nothing};
    let scene = scene!(Setup::three_ways().sections("[access]\nothers = \"allow\"\n"));
    prepare(&scene)?;
    let ways = Ways::open(&scene)?;
    let beside = parsed(["10.53.0.77", "fd53::77"])?;
    let others = parsed(["10.53.0.2", "fd53::2"])?;
    let asked = |expected: Outcome| -> Result<()> {
        for way in Way::ALL {
            for (clients, expected) in [(&beside, Answer), (&others, expected)] {
                for &client in clients {
                    let server = server_of(client);
                    let outcome = from_lan(&scene, &ways, way, client, server, expected)?;
                    assert_eq!(outcome, expected, "{way:?} {client}");
                }
            }
        }
        Ok(())
    };
    asked(Answer)?;
    let config = scene.directory.path().join("config.toml");
    let open = fs::read_to_string(&config)?;
    let rules =
        "drop = [\"10.53.0.0/24\", \"fd53::/64\"]\nallow = [\"10.53.0.77\", \"fd53::77\"]\n";
    let named = open.replace("[access]\n", &format!("[access]\n{rules}"));
    let all = named
        .replace(rules, "allow = [\"10.53.0.77\", \"fd53::77\"]\n")
        .replace("others = \"allow\"", "others = \"drop\"");
    for text in [named, all] {
        fs::write(&config, text)?;
        scene.daemon.control("reload")?;
        let before = scene.daemon.metrics()?;
        asked(Nothing)?;
        let expected: [(&dyn Metric, u64); 4] = [
            (&Reason::DropAccess, 2),
            (&Counter::QueriesXdp, 2),
            (&Counter::QueriesUdp, 4),
            (&Counter::AclDropped, 4),
        ];
        scene.daemon.wait_growth(&before, &expected)?;
    }
    fs::write(&config, open)?;
    scene.daemon.control("reload")?;
    let before = scene.daemon.metrics()?;
    asked(Answer)?;
    scene
        .daemon
        .wait_growth(&before, &[(&Reason::DropAccess, 0)])
}

/// Unanswered queries are counted by their reason, connections too.
#[test]
fn strangers_are_counted_by_every_way() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let scene = scene!(Setup::three_ways());
    prepare(&scene)?;
    let ways = Ways::open(&scene)?;
    let before = scene.daemon.metrics()?;
    for client in parsed(["198.51.100.7", "2001:db8:77::7"])? {
        for way in Way::ALL {
            let nothing = Outcome::Nothing;
            let outcome = from_lan(&scene, &ways, way, client, server_of(client), nothing)?;
            ensure!(outcome == nothing, "{way:?} {client}: {outcome:?}");
        }
    }
    for client in parsed(["10.53.0.99", "fd53::99"])? {
        for way in [Way::Udp, Way::Tcp] {
            let host = &scene.lab.upstream;
            by_socket(host, way, client, server_of(client), Outcome::Nothing)?;
        }
    }
    let expected: [(&dyn Metric, u64); 4] = [
        (&Counter::AclDropped, 10),
        (&Counter::QueriesXdp, 2),
        (&Counter::QueriesUdp, 4),
        (&Counter::QueriesTcp, 0),
    ];
    scene.daemon.wait_growth(&before, &expected)
}

/// A source with a route by another device is answered only where the kernel would, and no other is affected.
#[test]
fn the_check_of_sources_follows_rp_filter() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let scene = scene!(Setup::three_ways().sections("[access]\nothers = \"allow\"\n"));
    prepare(&scene)?;
    let router = &scene.lab.router;
    router.ip(&format!(
        "route add 203.0.113.0/24 via {UPSTREAM_V4} dev {WAN}
         route add 2001:db8:9::/48 via {UPSTREAM_V6} dev {WAN}\n"
    ))?;
    let ways = Ways::open(&scene)?;
    // The kernel knows the way back to existing hosts.
    ways.same(&question())?;
    let [forged, forged_v6] = parsed(["203.0.113.7", "2001:db8:9::7"])?[..] else {
        anyhow::bail!("two addresses")
    };
    let ask = |client: IpAddr, expected| {
        from_lan(&scene, &ways, Way::Xdp, client, server_of(client), expected)
    };
    // The larger of both values counts, and 2 requires any route at all.
    for (all, lan, expected) in [
        ("0", "0", Outcome::Answer),
        ("0", "1", Outcome::Nothing),
        ("2", "1", Outcome::Answer),
        ("1", "0", Outcome::Nothing),
        ("0", "0", Outcome::Answer),
    ] {
        for (of, value) in [("all", all), (LAN, lan)] {
            router.write(&format!("/proc/sys/net/ipv4/conf/{of}/rp_filter"), value)?;
        }
        wait_until("rp_filter is followed", TIMEOUT, || {
            ask(forged, expected).is_ok_and(|outcome| outcome == expected)
        })
        .with_context(|| format!("rp_filter: all {all}, {LAN} {lan}"))?;
        let before = scene.daemon.metrics()?;
        for client in parsed(["10.53.0.2", "fd53::2"])? {
            assert_eq!(ask(client, Outcome::Answer)?, Outcome::Answer, "{client}");
        }
        // The kernel has no such check for IPv6.
        assert_eq!(ask(forged_v6, Outcome::Answer)?, Outcome::Answer);
        scene
            .daemon
            .wait_growth(&before, &[(&Counter::AnswersXdp, 3)])?;
    }
    Ok(())
}

/// `always` leaves it to the kernel, which answers along the routes, or not at all; `never` answers where it came from.
#[test]
fn the_check_of_sources_is_a_key() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    for (check, expected) in [("always", Outcome::Nothing), ("never", Outcome::Answer)] {
        let scene = scene!(Setup {
            interface: format!("route_check = \"{check}\"\n"),
            ..Setup::three_ways().sections("[access]\nothers = \"allow\"\n")
        });
        prepare(&scene)?;
        scene.lab.router.ip(&format!(
            "route add 203.0.113.0/24 via {UPSTREAM_V4} dev {WAN}
             route add 2001:db8:9::/48 via {UPSTREAM_V6} dev {WAN}\n"
        ))?;
        scene
            .lab
            .router
            .write(&format!("/proc/sys/net/ipv4/conf/{LAN}/rp_filter"), "1")?;
        let ways = Ways::open(&scene)?;
        ways.same(&question())?;
        for client in parsed(["203.0.113.7", "2001:db8:9::7"])? {
            let before = scene.daemon.metrics()?;
            let outcome = from_lan(&scene, &ways, Way::Xdp, client, server_of(client), expected)?;
            assert_eq!(outcome, expected, "{check} {client}");
            let passed = u64::from(expected == Outcome::Nothing);
            scene
                .daemon
                .wait_growth(&before, &[(&Reason::PassRoute, passed)])?;
        }
        let before = scene.daemon.metrics()?;
        for client in parsed(["10.53.0.2", "fd53::2"])? {
            let server = server_of(client);
            let outcome = from_lan(&scene, &ways, Way::Xdp, client, server, Outcome::Answer)?;
            assert_eq!(outcome, Outcome::Answer, "{check} {client}");
        }
        scene
            .daemon
            .wait_growth(&before, &[(&Counter::AnswersXdp, 2)])?;
    }
    Ok(())
}

/// Of a family that it does not forward the kernel tells programs no routes.
#[test]
fn without_forwarding_what_asks_the_routes_is_left_to_the_kernel_and_told() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let scene = scene!(Setup {
        interface: "route_check = \"always\"\n".into(),
        ..Setup::three_ways()
    });
    prepare(&scene)?;
    let ways = Ways::open(&scene)?;
    ways.same(&question())?;
    let is_off = "net.ipv4.conf.lo.forwarding is 0, so the kernel tells the XDP program no routes";
    for (times, value, said, [passed, by_xdp]) in [
        (1, "0", is_off, [1, 1]),
        (1, "1", "forwarding is on: ", [0, 2]),
        (2, "0", is_off, [1, 1]),
    ] {
        let setting = "/proc/sys/net/ipv4/conf/lo/forwarding";
        scene.lab.router.write(setting, value)?;
        scene.daemon.wait_log_count(said, times)?;
        let before = scene.daemon.metrics()?;
        for client in parsed(["10.53.0.2", "fd53::2"])? {
            let server = server_of(client);
            let outcome = from_lan(&scene, &ways, Way::Xdp, client, server, Outcome::Answer)?;
            assert_eq!(outcome, Outcome::Answer, "{value} {client}");
        }
        let expected: [(&dyn Metric, u64); 2] =
            [(&Reason::PassRoute, passed), (&Counter::AnswersXdp, by_xdp)];
        scene.daemon.wait_growth(&before, &expected)?;
    }
    Ok(())
}

/// A source that is ours on a device that is not served, or that no host has: the kernel drops it, and so do we before it. All
/// clients are allowed, so that nothing else excludes them.
#[test]
fn own_addresses_of_other_devices_and_those_of_networks_are_nobodys_whoever_is_allowed()
-> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let scene = scene!(Setup::three_ways().sections("[access]\nothers = \"allow\"\n"));
    prepare(&scene)?;
    let _container = docker(&scene.lab.router)?;
    let ways = Ways::open(&scene)?;
    ways.same(&question())?;
    let nobodys = parsed([
        "172.17.0.1",
        "172.17.0.0",
        "172.17.255.255",
        "fd57::1",
        "fd57::",
        "10.54.0.1",
        "10.54.0.0",
        "10.54.0.255",
        "fd54::1",
        "fd54::",
        "10.53.0.1",
        "10.53.0.0",
        "10.53.0.255",
        "fd53::",
    ])?;
    let beside = parsed([
        "172.17.0.2",
        "172.17.255.254",
        "fd57::2",
        "10.54.0.3",
        "fd54::3",
    ])?;
    wait_until("the device is known", TIMEOUT, || {
        let nothing = Outcome::Nothing;
        let asked = nobodys[..5].iter().map(|&address| {
            from_lan(
                &scene,
                &ways,
                Way::Xdp,
                address,
                server_of(address),
                nothing,
            )
        });
        asked
            .into_iter()
            .all(|outcome| outcome.is_ok_and(|outcome| outcome == nothing))
    })?;
    let before = scene.daemon.metrics()?;
    let mut frames = Vec::new();
    for way in Way::DATAGRAMS {
        for &address in &nobodys {
            for port in [53, 4_000] {
                let mut frame = ways.frame(way, Family::of_address(address), &question())?;
                frame.source = SocketAddr::new(address, port);
                ways.raw().send(&frame.to_bytes())?;
                frames.push(frame);
            }
        }
    }
    let answer = ways.raw().any_answer_to(&frames, SILENCE)?;
    ensure!(answer.is_none(), "an answer: {answer:02x?}");
    // All but the one that the program detects by itself: the destination.
    let seen = 2 * (nobodys.len() as u64 - 1);
    scene.daemon.wait_growth(
        &before,
        &[(&Counter::QueriesXdp, seen), (&Counter::AnswersXdp, 0)],
    )?;
    // A host with such an address gets no connection.
    for (address, length) in [
        ("172.17.0.1", "/32 dev eth0"),
        ("10.54.0.1", "/32 dev eth0"),
        ("fd57::1", "/128 dev eth0 nodad"),
        ("fd54::1", "/128 dev eth0 nodad"),
    ] {
        let host = &scene.lab.client;
        host.ip(&format!("address add {address}{length}\n"))?;
        let (local, nothing) = (address.parse()?, Outcome::Nothing);
        let outcome = by_socket(host, Way::Tcp, local, server_of(local), nothing)?;
        assert_eq!(outcome, nothing, "{address}");
    }
    // Their neighbours are ordinary hosts.
    for &address in &beside {
        let answer = Outcome::Answer;
        let outcome = from_lan(&scene, &ways, Way::Xdp, address, server_of(address), answer)?;
        assert_eq!(outcome, answer, "{address}");
    }
    Ok(())
}
