//! Servers that are asked by an interface or from an address: over two ways out, of which each leads to a server with the same
//! address and an answer of its own.
//!
//! ```text
//!  router  wan0  10.54.0.1, fd54::1 ──── the lab's upstream host  answers 192.0.2.10   the routes' way
//!          wan1  10.55.0.1, fd55::1 ──── another host             answers 192.0.2.11
//!                10.55.0.7, fd55::7: rules of their own lead by wan1
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context, Result};
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use xdnsd_lab::lab::{HOST_INTERFACE, UPSTREAM_V4, UPSTREAM_V6, WAN, WAN_V4, WAN_V6};
use xdnsd_lab::netns::Namespace;
use xdnsd_lab::scripted;
use xdnsd_lab::wait::wait_until;

use crate::ports::is_in_use;
use crate::support::TIMEOUT;
use crate::support::client::Family;
use crate::support::message::{addresses, query};
use crate::support::run::only;
use crate::support::scene::{Scene, Setup, WAYS};
use crate::support::script::Rule;

const SERVER_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 56, 0, 53));
const SERVER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd56, 0, 0, 0, 0, 0, 0, 0x53));
const BY_WAN0: &str = "192.0.2.10";
const BY_WAN1: &str = "192.0.2.11";
/// Names of groups, what stands behind their server of either family, which way out that is, and the source there.
const GROUPS: [(&str, [&str; 2], &str, [&str; 2]); 5] = [
    ("routes", ["", ""], BY_WAN0, ["10.54.0.1", "fd54::1"]),
    (
        "interface",
        ["@wan1", "@wan1"],
        BY_WAN1,
        ["10.55.0.1", "fd55::1"],
    ),
    (
        "source",
        ["@10.55.0.7", "@fd55::7"],
        BY_WAN1,
        ["10.55.0.7", "fd55::7"],
    ),
    (
        "both",
        ["@wan1@10.55.0.8", "@wan1@fd55::8"],
        BY_WAN1,
        ["10.55.0.8", "fd55::8"],
    ),
    (
        "other",
        ["@wan0@10.55.0.8", "@wan0@fd55::8"],
        BY_WAN0,
        ["10.55.0.8", "fd55::8"],
    ),
];

/// Sections with a group for each of [`GROUPS`] and family.
fn sections() -> String {
    let mut text = String::new();
    for (name, ways, ..) in GROUPS {
        for (family, server, way) in [
            ("v4", format!("{SERVER_V4}"), ways[0]),
            ("v6", format!("[{SERVER_V6}]:53"), ways[1]),
        ] {
            text += &format!(
                "[[upstream]]\nname = \"{name}-{family}\"\nservers = [\"{server}{way}\"]\ndomains = [\"{name}.{family}.test\"]\n"
            );
        }
    }
    text
}

/// The second way out, and the server behind it.
struct SecondUplink {
    host: Namespace,
    server: scripted::Upstream,
}

impl SecondUplink {
    /// Makes the host and its link, and the routes by either way out.
    fn up(scene: &mut Scene) -> Result<Self> {
        let host = Namespace::unnamed()?;
        host.ip("link set lo up\n")?;
        let refused = Rule::code(ResponseCode::Refused);
        let mut uplink = Self {
            host,
            server: scripted::Upstream::new(refused.into()),
        };
        for server in [SERVER_V4, SERVER_V6] {
            scene.upstream.serve_also(&scene.lab, server)?;
        }
        uplink.plug(&scene.lab.router)?;
        for server in [SERVER_V4, SERVER_V6] {
            let serve = || uplink.server.serve(SocketAddr::new(server, 53));
            uplink.host.run(serve)?;
        }
        Ok(uplink)
    }

    /// Makes the link, with addresses and routes.
    fn plug(&self, router: &Namespace) -> Result<()> {
        // Answers come by a way that is not the routes'.
        for scope in ["all", "default"] {
            let setting = format!("/proc/sys/net/ipv4/conf/{scope}/rp_filter");
            router.write(&setting, "0")?;
        }
        router.ip(&format!(
            "link add name wan1 type veth peer name {HOST_INTERFACE} netns {}
             link set wan1 up
             address add 10.55.0.1/24 dev wan1
             address add 10.55.0.7/24 dev wan1
             address add 10.55.0.8/24 dev wan1
             address add fd55::7/64 dev wan1 nodad preferred_lft 0
             address add fd55::8/64 dev wan1 nodad preferred_lft 0
             address add fd55::1/64 dev wan1 nodad
             route add {SERVER_V4} via {UPSTREAM_V4} dev {WAN} src {WAN_V4} metric 10
             route add {SERVER_V4} via 10.55.0.2 dev wan1 src 10.55.0.1 metric 20
             route add {SERVER_V6} via {UPSTREAM_V6} dev {WAN} src {WAN_V6} metric 10
             route add {SERVER_V6} via fd55::2 dev wan1 src fd55::1 metric 20
             route add {SERVER_V4} via 10.55.0.2 dev wan1 table 55
             route add {SERVER_V6} via fd55::2 dev wan1 table 55
             rule add from 10.55.0.7 lookup 55\n",
            self.host.path()
        ))?;
        let rule = ["ip", "-6", "rule", "add", "from", "fd55::7", "lookup", "55"];
        router.output(&rule)?;
        self.host.ip(&format!(
            "link set {HOST_INTERFACE} up
             address add 10.55.0.2/24 dev {HOST_INTERFACE}
             address add fd55::2/64 dev {HOST_INTERFACE} nodad
             address replace {SERVER_V4}/32 dev lo
             address replace {SERVER_V6}/128 dev lo nodad
             route add default via 10.55.0.1
             route add ::/0 via fd55::1\n"
        ))
    }
}

/// Many addresses: more than a datagram holds.
fn many(first: &str) -> Rule {
    let mut all = vec![first.to_owned()];
    all.extend((0..100).map(|last| format!("198.51.100.{last}")));
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    Rule::addresses(300, &all)
}

/// A scene with this way to source ports, and the second way out, which comes when the daemon serves already.
fn set(way: &str, test: &str) -> Result<Option<(Scene, SecondUplink)>> {
    let setup = Setup::default().ports(way).sections(&sections());
    let Some(mut scene) = Scene::set(test, &setup)? else {
        return Ok(None);
    };
    scene.upstream.on("*.open.test.", Rule::silence());
    wait_until("the way is in use", TIMEOUT, || {
        is_in_use(&scene, way).unwrap_or(false)
    })?;
    for missing in [
        "10.56.0.53:53@wan1: no such interface",
        "[fd56::53]:53@wan1@fd55::8: no such interface",
        "[fd56::53]:53@fd55::7: fd55::7 is not an address of this machine",
    ] {
        scene.daemon.wait_log_count(missing, 1)?;
    }
    assert_eq!(
        ask(&scene, "early.interface.v4.test.")?.response_code(),
        ResponseCode::ServFail
    );
    let uplink = SecondUplink::up(&mut scene)?;
    scene
        .upstream
        .on("*.test.", Rule::addresses(300, &[BY_WAN0]));
    let there = Rule::addresses(300, &[BY_WAN1]);
    uplink.server.on("*.test.", there);
    for (group, ..) in GROUPS {
        for family in ["v4", "v6"] {
            let name = format!("many.{group}.{family}.test.");
            scene.upstream.on(&name, many(BY_WAN0));
            uplink.server.on(&name, many(BY_WAN1));
        }
    }
    Ok(Some((scene, uplink)))
}

fn ask(scene: &Scene, name: &str) -> Result<Message> {
    scene
        .udp_client(Family::V4)?
        .ask(&query(name, RecordType::A))
}

/// Waits until new names below `zone` are answered by the way out that has this address.
fn wait_for(scene: &Scene, zone: &str, by: &str) -> Result<()> {
    let mut number = 0;
    wait_until(&format!("{zone} is asked by {by}"), TIMEOUT, || {
        number += 1;
        let answer = ask(scene, &format!("late{number}.{zone}"));
        answer.is_ok_and(|answer| {
            answer.response_code() == ResponseCode::NoError && addresses(&answer) == [by]
        })
    })
}

/// Sources of the questions for a name that were asked of the server behind a way out, and whether each came over TCP.
fn sources(scene: &Scene, uplink: &SecondUplink, by: &str, name: &str) -> Vec<(IpAddr, bool)> {
    if by == BY_WAN0 {
        let asked = scene.upstream.asked(name).into_iter();
        return asked.map(|one| (one.from.ip(), one.is_tcp)).collect();
    }
    let asked = uplink.server.asked().into_iter();
    let asked = asked.filter(|one| one.name().eq_ignore_ascii_case(name));
    asked.map(|one| (one.from.ip(), one.is_tcp)).collect()
}

#[test]
fn a_server_is_asked_by_its_interface_and_from_its_address() -> Result<()> {
    only!(ONCE, "the way to upstream, by each way that there is");
    for way in WAYS {
        let test = "a_server_is_asked_by_its_interface_and_from_its_address";
        let Some((scene, uplink)) = set(way, test)? else {
            return Ok(());
        };
        for (group, _, by, from) in GROUPS {
            for (family, from) in [("v4", from[0]), ("v6", from[1])] {
                let zone = format!("{group}.{family}.test.");
                leaves_by(&scene, &uplink, &zone, (by, from))
                    .with_context(|| format!("{way}: {zone}"))?;
            }
        }
        let table = scene.daemon.control("upstreams")?;
        let metrics = scene.daemon.metrics()?;
        for server in [
            "10.56.0.53:53@wan1",
            "10.56.0.53:53@10.55.0.7",
            "[fd56::53]:53@wan0@fd55::8",
        ] {
            let is_row = |row: &str| row.split_whitespace().nth(1) == Some(server);
            assert!(table.lines().any(is_row), "{server}\n{table}");
            let series = format!("xdnsd_upstream_up{{server=\"{server}\",");
            assert!(metrics.text().contains(&series), "{}", metrics.text());
        }
    }
    Ok(())
}

/// By UDP and by TCP.
fn leaves_by(
    scene: &Scene,
    uplink: &SecondUplink,
    zone: &str,
    (by, from): (&str, &str),
) -> Result<()> {
    wait_for(scene, zone, by)?;
    let (short, long) = (format!("one.{zone}"), format!("many.{zone}"));
    assert_eq!(addresses(&ask(scene, &short)?), [by]);
    let answer = ask(scene, &long)?;
    assert!(answer.truncated(), "{answer}");
    wait_until("TCP is asked", TIMEOUT, || {
        let asked = sources(scene, uplink, by, &long);
        asked.iter().any(|(_, is_tcp)| *is_tcp)
    })?;
    let from: IpAddr = from.parse()?;
    for name in [short, long] {
        let sources = sources(scene, uplink, by, &name);
        assert!(!sources.is_empty(), "{name}");
        assert!(
            sources.iter().all(|(source, _)| *source == from),
            "{sources:?}"
        );
    }
    Ok(())
}

/// An address that goes and comes back, and an interface that does, under another index.
#[test]
fn a_way_out_that_goes_is_left_and_one_that_is_back_is_asked_by() -> Result<()> {
    only!(ONCE, "the way to upstream, by each way that there is");
    for way in WAYS {
        let test = "a_way_out_that_goes_is_left_and_one_that_is_back_is_asked_by";
        let Some((scene, uplink)) = set(way, test)? else {
            return Ok(());
        };
        let router = &scene.lab.router;
        wait_for(&scene, "source.v4.test.", BY_WAN1)?;
        router.ip("address delete 10.55.0.7/24 dev wan1\n")?;
        let gone = "10.56.0.53:53@10.55.0.7: 10.55.0.7 is not an address of this machine";
        scene.daemon.wait_log_count(gone, 2)?;
        let code = ask(&scene, "gone.source.v4.test.")?.response_code();
        assert_eq!(code, ResponseCode::ServFail, "{way}");
        router.ip("address add 10.55.0.7/24 dev wan1\n")?;
        wait_for(&scene, "source.v4.test.", BY_WAN1)?;

        router.ip("link delete wan1\nrule delete lookup 55\n")?;
        router.output(&["ip", "-6", "rule", "delete", "lookup", "55"])?;
        scene
            .daemon
            .wait_log_count("10.56.0.53:53@wan1: no such interface", 2)?;
        let code = ask(&scene, "gone.interface.v4.test.")?.response_code();
        assert_eq!(code, ResponseCode::ServFail, "{way}");
        wait_for(&scene, "routes.v4.test.", BY_WAN0)?;
        router.ip(&format!(
            "route delete {SERVER_V4}\nroute delete {SERVER_V6}\n"
        ))?;
        uplink.plug(router)?;
        wait_for(&scene, "interface.v4.test.", BY_WAN1)?;
        wait_for(&scene, "both.v6.test.", BY_WAN1)?;
    }
    Ok(())
}
