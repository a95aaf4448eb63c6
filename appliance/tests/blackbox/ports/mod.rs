//! Source ports of questions to upstreams, by both ways: one for each question, open only to its server, closed with the
//! question.

mod forged;

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, sendto, socket,
};
use xdnsd_core::counters::Counter;
use xdnsd_lab::lab::{
    CLIENT_V4, CLIENT_V6, HOST_INTERFACE, LAN_V4, LAN_V6, UPSTREAM_V4, UPSTREAM_V6, WAN, WAN_V4,
    WAN_V6,
};
use xdnsd_lab::netns::Namespace;
use xdnsd_lab::process::{End, Process};
use xdnsd_lab::wait::wait_until;

use self::forged::Forger;
use crate::support::client::Family;
use crate::support::daemon::BINARY;
use crate::support::message::{addresses, query, query_edns, wire};
use crate::support::preload;
use crate::support::run::only;
use crate::support::scene::{Scene, Setup, WAYS, scene};
use crate::support::script::Rule;
use crate::support::upstream::SECOND_V4;
use crate::support::{ANSWER_TIMEOUT, TIMEOUT};

const ANSWER: &str = "192.0.2.1";

/// Lines of `[forward]` with this way in front.
fn forward(way: &str, lines: &str) -> String {
    format!("[forward]\nupstream_ports = \"{way}\"\n{lines}")
}

/// Both servers; the first is silent about names below `open.test.` and quick about others.
fn set(way: &str, server: IpAddr, test: &str) -> Result<Option<Scene>> {
    let setup = Setup::default()
        .servers(&[&server.to_string()])
        .sections(&forward(way, "give_up_ms = 30000\n"));
    let scene = Scene::set(test, &setup)?;
    if let Some(scene) = &scene {
        scene.upstream.on("*.open.test.", Rule::silence());
        scene
            .upstream
            .on("*.quick.test.", Rule::addresses(300, &[ANSWER]));
        wait_until("the way is in use", TIMEOUT, || {
            is_in_use(scene, way).unwrap_or(false)
        })?;
    }
    Ok(scene)
}

/// True if the router has the sockets for an open question that this way implies.
pub fn is_in_use(scene: &Scene, way: &str) -> Result<bool> {
    let from = open_question(scene, "way")?;
    Ok(has_socket(&scene.lab.router, from.port())? == (way == "connected"))
}

fn has_socket(host: &Namespace, port: u16) -> Result<bool> {
    let listed = host.output(&["cat", "/proc/net/udp", "/proc/net/udp6"])?;
    Ok(listed.contains(&format!(":{port:04X} ")))
}

/// Asks for a name without an answer, and returns the source of the latest upstream question for it.
fn open_question(scene: &Scene, label: &str) -> Result<SocketAddr> {
    let name = format!("{label}.open.test.");
    let client = scene.udp_client(Family::V4)?;
    client.send(&wire(&query(&name, RecordType::A)))?;
    wait_until("upstream is asked", TIMEOUT, || {
        !scene.upstream.asked(&name).is_empty()
    })?;
    let asked = scene.upstream.asked(&name);
    Ok(asked.last().context("asked")?.from)
}

/// Runs a test by both ways and with a server of either family.
macro_rules! each_way {
    ($test:expr) => {{
        fn here() {}
        let name = std::any::type_name_of_val(&here).trim_end_matches("::here");
        for way in WAYS {
            for server in [IpAddr::from(UPSTREAM_V4), UPSTREAM_V6.into()] {
                match set(way, server, name)? {
                    Some(scene) => {
                        $test(&scene, way, server).with_context(|| format!("{way}, {server}"))?
                    }
                    None => return Ok(()),
                }
            }
        }
        Ok(())
    }};
}
use each_way;

#[test]
fn a_port_is_open_while_its_question_is_and_no_longer() -> Result<()> {
    only!(ONCE, "ports towards upstreams, by each way that there is");
    each_way!(|scene: &Scene, way: &str, server: IpAddr| -> Result<()> {
        let client = scene.udp_client(Family::V4)?;
        let forger = Forger::open(&scene.lab.upstream, SocketAddr::new(server, 53))?;
        let before = scene.daemon.metrics()?;
        for number in 0..20 {
            let name = format!("n{number}.quick.test.");
            assert_eq!(
                addresses(&client.ask(&query(&name, RecordType::A))?),
                [ANSWER]
            );
            let asked = scene.upstream.asked(&name);
            let from = asked[0].from;
            if asked.len() > 1 {
                // A busy machine asked again: the unanswered port stays open for a moment.
                continue;
            }
            assert!(
                !has_socket(&scene.lab.router, from.port())?,
                "{way}: {from}"
            );
            // The server itself does not reach us through it either.
            forger.send(from, b"\x12\x34\x80\x00\0\0\0\0\0\0\0\0")?;
        }
        // Datagrams to an open port arrive after that.
        let open = open_question(scene, "after")?;
        forger.send(open, b"\x12\x34\x80\x00\0\0\0\0\0\0\0\0")?;
        scene
            .daemon
            .wait_growth(&before, &[(&Counter::UpstreamForged, 1)])?;
        let reached = scene
            .daemon
            .metrics()?
            .growth(&before, &Counter::UpstreamUnmatched);
        assert_eq!(reached, 0, "{way}");
        Ok(())
    })
}

/// Ports of `net.ipv4.ip_local_reserved_ports`, which may change while the daemon runs.
#[test]
fn ports_that_the_administrator_keeps_are_not_asked_from() -> Result<()> {
    only!(ONCE, "ports towards upstreams, by each way that there is");
    each_way!(|scene: &Scene, way: &str, _| -> Result<()> {
        let client = scene.udp_client(Family::V4)?;
        let mut number = 0;
        for (kept, free) in [
            ("1024-32767", 32_768..=u16::MAX),
            ("32768-65535", 1_024..=32_767),
        ] {
            scene
                .lab
                .router
                .write("/proc/sys/net/ipv4/ip_local_reserved_ports", kept)?;
            let mut is_asked_from_there = || -> Result<bool> {
                number += 1;
                let name = format!("n{number}.quick.test.");
                client.ask(&query(&name, RecordType::A))?;
                let asked = scene.upstream.asked(&name);
                Ok(asked.iter().all(|asked| free.contains(&asked.from.port())))
            };
            // They are read once a second. By chance: once in 10^12 times.
            wait_until(
                &format!("40 questions in a row come by {way} from none of {kept}"),
                TIMEOUT,
                || (0..40).all(|_| is_asked_from_there().unwrap_or(false)),
            )?;
        }
        Ok(())
    })
}

/// Response to a probe from one host to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Refused,
    Nothing,
}

fn probe(host: &Namespace, from: IpAddr, to: SocketAddr) -> Result<Told> {
    host.run(|| -> Result<Told> {
        let socket = UdpSocket::bind((from, 0))?;
        socket.connect(to)?;
        socket.set_read_timeout(Some(Duration::from_millis(300)))?;
        let end = Instant::now() + ANSWER_TIMEOUT;
        // A busy kernel is late, and drops probes that it has no time for. A port that swallows probes never responds.
        while Instant::now() < end {
            socket.send(b"\x12\x34\x80\x00\0\0\0\0\0\0\0\0")?;
            match socket.recv(&mut [0; 64]) {
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                    return Ok(Told::Refused);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                other => panic!("{other:?}"),
            }
        }
        Ok(Told::Nothing)
    })
}

/// Sources of a scanner: its own address, further ones in a network that is routed to it, and the upstream's host with other
/// addresses and other ports.
fn scanners(scene: &Scene) -> Result<Vec<(&Namespace, IpAddr)>> {
    let (client, upstream) = (&scene.lab.client, &scene.lab.upstream);
    let mut sources: Vec<(&Namespace, IpAddr)> = vec![
        (client, CLIENT_V4.into()),
        (client, CLIENT_V6.into()),
        (upstream, UPSTREAM_V4.into()),
        (upstream, UPSTREAM_V6.into()),
        (upstream, SECOND_V4),
    ];
    for number in 1..=2 {
        let routed: IpAddr = format!("fd66:0:0:1::{number}").parse()?;
        client.ip(&format!(
            "address add {routed}/128 dev {HOST_INTERFACE} nodad\n"
        ))?;
        sources.push((client, routed));
    }
    scene
        .lab
        .router
        .ip(&format!("route add fd66:0:0:1::/64 via {CLIENT_V6}\n"))?;
    // Without rate limits, so that responses depend only on the port.
    for (file, value) in [
        ("ipv4/icmp_ratelimit", "0"),
        ("ipv4/icmp_msgs_per_sec", "100000"),
        ("ipv4/icmp_msgs_burst", "100000"),
        ("ipv6/icmp/ratelimit", "0"),
    ] {
        scene
            .lab
            .router
            .write(&format!("/proc/sys/net/{file}"), value)?;
    }
    Ok(sources)
}

#[test]
fn a_scan_cannot_tell_an_open_port_from_a_closed_one() -> Result<()> {
    only!(ONCE, "ports towards upstreams, by each way that there is");
    each_way!(|scene: &Scene, _, _| -> Result<()> {
        let open = open_question(scene, "scanned")?.port();
        let closed = (open ^ 1).max(1024);
        let ours: [IpAddr; 4] = [LAN_V4.into(), LAN_V6.into(), WAN_V4.into(), WAN_V6.into()];
        for (host, source) in scanners(scene)? {
            for address in ours {
                if address.is_ipv4() != source.is_ipv4() {
                    continue;
                }
                for port in [open, closed] {
                    let told = probe(host, source, SocketAddr::new(address, port))?;
                    assert_eq!(
                        told,
                        Told::Refused,
                        "{source} -> {address} {port}, open: {open}"
                    );
                }
            }
        }
        // None of it reached us.
        let metrics = scene.daemon.metrics()?;
        for counter in [Counter::UpstreamForged, Counter::UpstreamUnmatched] {
            assert_eq!(metrics.get(&counter), Some(0), "{counter:?}");
        }
        Ok(())
    })
}

/// Permanent sockets do not either: from outside every port is equally closed.
#[test]
fn an_idle_daemon_has_no_open_port_but_those_that_it_serves() -> Result<()> {
    only!(ONCE, "ports towards upstreams, by each way that there is");
    each_way!(|scene: &Scene, way: &str, _| -> Result<()> {
        wait_until("questions have ended", TIMEOUT, || {
            let listed = scene
                .lab
                .router
                .output(&["cat", "/proc/net/udp", "/proc/net/udp6"])
                .unwrap_or_default();
            let outside = listed
                .lines()
                .filter_map(|line| line.split_whitespace().nth(1));
            let loopback = ["0100007F:", "00000000000000000000000001000000:"];
            let mut others = outside.filter(|local| {
                local.contains(':')
                    && !local.ends_with(":0035")
                    && !loopback.iter().any(|address| local.starts_with(address))
            });
            way == "connected" || others.next().is_none()
        })
    })
}

#[test]
fn others_on_the_router_who_ask_the_same_server_keep_their_answers() -> Result<()> {
    only!(ONCE, "ports towards upstreams, by each way that there is");
    each_way!(|scene: &Scene, _, server: IpAddr| -> Result<()> {
        let to = SocketAddr::new(server, 53);
        let any: IpAddr = if server.is_ipv4() {
            "0.0.0.0".parse()?
        } else {
            "::".parse()?
        };
        let open = |is_connected: bool| -> Result<UdpSocket> {
            scene.lab.router.run(|| {
                let socket = UdpSocket::bind((any, 0))?;
                if is_connected {
                    socket.connect(to)?;
                }
                socket.set_read_timeout(Some(ANSWER_TIMEOUT))?;
                Ok(socket)
            })
        };
        let others = [open(false)?, open(true)?];
        let client = scene.udp_client(Family::V4)?;
        for number in 0..100 {
            open_question(scene, &format!("n{number}"))?;
            let name = format!("other{number}.quick.test.");
            let asks = wire(&query(&name, RecordType::A));
            for (socket, is_connected) in others.iter().zip([false, true]) {
                if is_connected {
                    socket.send(&asks)?;
                } else {
                    socket.send_to(&asks, to)?;
                }
                let mut answer = [0; 512];
                let len = socket.recv(&mut answer).context("its answer")?;
                ensure!(answer[..2] == asks[..2] && len > asks.len(), "{name}");
            }
            let name = format!("n{number}.quick.test.");
            let answer = client.ask(&query(&name, RecordType::A))?;
            assert_eq!(addresses(&answer), [ANSWER]);
        }
        Ok(())
    })
}

#[test]
fn what_icmp_refuses_is_asked_of_the_next_server_at_once() -> Result<()> {
    only!(ONCE, "ports towards upstreams, by each way that there is");
    for way in WAYS {
        for nobody in ["10.54.0.2:5399", "[fd54::2]:5399"] {
            let setup = Setup::default()
                .servers(&[nobody, &UPSTREAM_V4.to_string()])
                // So that the question does not move on by a timeout.
                .sections(&forward(way, "give_up_ms = 30000\n"));
            let scene = scene!(setup);
            scene
                .upstream
                .on("*.test.", Rule::addresses(300, &[ANSWER]));
            let client = scene.udp_client(Family::V4)?;
            for number in 0..3 {
                let name = format!("n{number}.test.");
                let answer = client.ask(&query(&name, RecordType::A))?;
                assert_eq!(addresses(&answer), [ANSWER]);
            }
            let metrics = scene.daemon.metrics()?;
            let counted = [Counter::UpstreamUnreachable, Counter::UpstreamTimeouts]
                .map(|counter| metrics.get(&counter));
            assert_eq!(counted, [Some(3), Some(0)], "{way}, {nobody}");
        }
    }
    Ok(())
}

/// The route to a server goes after it was asked: a failure to send is noticed at once.
#[test]
fn what_cannot_be_sent_is_asked_of_the_next_server_at_once() -> Result<()> {
    only!(ONCE, "ports towards upstreams, by each way that there is");
    for way in WAYS {
        let [v4, v6] = [IpAddr::from(UPSTREAM_V4), UPSTREAM_V6.into()];
        for (first, second) in [(v4, v6), (v6, v4)] {
            let setup = Setup::default()
                .servers(&[&first.to_string(), &second.to_string()])
                .sections(&forward(way, "give_up_ms = 30000\n"));
            let scene = scene!(setup);
            let rule = Rule::addresses(300, &[ANSWER]);
            scene.upstream.on("*.test.", rule);
            let client = scene.udp_client(Family::V4)?;
            client.ask(&query("before.test.", RecordType::A))?;
            scene
                .lab
                .router
                .ip(&format!("route add unreachable {first}\n"))?;
            let answer = client.ask(&query("behind.test.", RecordType::A))?;
            assert_eq!(addresses(&answer), [ANSWER]);
            let metrics = scene.daemon.metrics()?;
            let count = |counter| metrics.get(&counter).unwrap_or(0);
            let failed = count(Counter::UpstreamUnreachable) + count(Counter::UpstreamSendErrors);
            assert!(failed > 0, "{way}, {first}");
        }
    }
    Ok(())
}

/// No host has the address: the router's own kernel reports it, after neighbour discovery.
#[test]
fn only_servers_that_refuse_are_servfail_at_once() -> Result<()> {
    only!(ONCE, "ports towards upstreams, by each way that there is");
    for way in WAYS {
        let nobody = ["10.54.0.2:5399", "[fd54::2]:5399"];
        let setup = Setup::default().servers(&nobody);
        let scene = scene!(setup.sections(&forward(way, "give_up_ms = 30000\n")));
        let client = scene.udp_client(Family::V4)?;
        let answer = client.ask(&query("www.test.", RecordType::A))?;
        assert_eq!(answer.response_code(), ResponseCode::ServFail, "{way}");
        let metrics = scene.daemon.metrics()?;
        assert_eq!(metrics.get(&Counter::UpstreamTimeouts), Some(0), "{way}");
    }
    Ok(())
}

/// The machine's own routes reject it: nothing is sent, and no client waits.
#[test]
fn what_no_route_leads_to_is_servfail_at_once() -> Result<()> {
    only!(ONCE, "ports towards upstreams, by each way that there is");
    for way in WAYS {
        let nowhere = ["203.0.113.1", "203.0.113.2", "203.0.113.3", "203.0.113.4"];
        let setup = Setup::default().servers(&nowhere);
        let scene = scene!(setup.sections(&forward(way, "give_up_ms = 30000\n")));
        let routes = "route add unreachable 203.0.113.1\nroute add prohibit 203.0.113.2\n\
                      route add blackhole 203.0.113.3\n";
        scene.lab.router.ip(routes)?;
        let client = scene.udp_client(Family::V4)?;
        let answer = client.ask(&query_edns("www.test.", RecordType::A, 1232))?;
        assert_eq!(answer.response_code(), ResponseCode::ServFail, "{way}");
        // RFC 8914 section 4.23: No Reachable Authority.
        let edns = answer.extensions().as_ref().expect("OPT");
        let reason = edns.option(EdnsCode::Unknown(15));
        let is_told =
            matches!(reason, Some(EdnsOption::Unknown(15, data)) if data.starts_with(&[0, 22]));
        assert!(is_told, "{way} {reason:?}");
        let metrics = scene.daemon.metrics()?;
        assert_eq!(metrics.get(&Counter::UpstreamTimeouts), Some(0), "{way}");
        assert_eq!(metrics.get(&Counter::UpstreamUnreachable), Some(4), "{way}");
        wait_until("each is told as what it is", TIMEOUT, || {
            let metrics = scene.daemon.metrics();
            let text = metrics.map_or_else(|_| String::new(), |metrics| metrics.text().to_owned());
            nowhere.iter().all(|server| {
                text.lines().any(|line| {
                    line.starts_with(&format!(
                        "xdnsd_upstream_last_failure_timestamp_seconds{{server=\"{server}:53\""
                    )) && line.contains("reason=\"unreachable\"")
                })
            })
        })?;
    }
    Ok(())
}

#[test]
fn an_icmp_error_that_quotes_no_question_in_flight_does_no_harm() -> Result<()> {
    only!(ONCE, "ports towards upstreams, by each way that there is");
    each_way!(|scene: &Scene, way: &str, server: IpAddr| -> Result<()> {
        let from = open_question(scene, "steady")?;
        let before = scene.daemon.metrics()?;
        // Our own address with another port, another server, another port of the server.
        let other: IpAddr = if server.is_ipv4() {
            SECOND_V4
        } else {
            "fd54::3".parse()?
        };
        for (local, remote) in [
            (from.port() ^ 1, SocketAddr::new(server, 53)),
            (from.port(), SocketAddr::new(other, 53)),
            (from.port(), SocketAddr::new(server, 54)),
        ] {
            icmp_refused(
                &scene.lab.upstream,
                SocketAddr::new(from.ip(), local),
                remote,
            )?;
        }
        let now = scene.daemon.metrics()?;
        let harm = now.growth(&before, &Counter::UpstreamUnreachable);
        assert_eq!(harm, 0, "{way}");
        // A correct one is believed, so such errors do arrive.
        icmp_refused(&scene.lab.upstream, from, SocketAddr::new(server, 53))?;
        scene
            .daemon
            .wait_growth(&before, &[(&Counter::UpstreamUnreachable, 1)])
    })
}

/// The kernel counts it as transient, and reports those to a connected socket only on request.
#[test]
fn an_icmp_error_that_says_host_unreachable_counts_as_one_that_says_port_unreachable() -> Result<()>
{
    only!(ONCE, "ports towards upstreams, by each way that there is");
    each_way!(|scene: &Scene, _, server: IpAddr| -> Result<()> {
        let from = open_question(scene, "host")?;
        let before = scene.daemon.metrics()?;
        let kind = if server.is_ipv4() { [3, 1] } else { [1, 3] };
        let server = SocketAddr::new(server, 53);
        icmp_error(&scene.lab.upstream, kind, from, server)?;
        scene
            .daemon
            .wait_growth(&before, &[(&Counter::UpstreamUnreachable, 1)])
    })
}

/// It is about the path, and the question may have arrived.
#[test]
fn an_icmp_error_that_says_too_big_is_no_refusal() -> Result<()> {
    only!(ONCE, "ports towards upstreams, by each way that there is");
    each_way!(|scene: &Scene, way: &str, server: IpAddr| -> Result<()> {
        let from = open_question(scene, "large")?;
        let before = scene.daemon.metrics()?;
        let server = SocketAddr::new(server, 53);
        let kind = if server.is_ipv4() { [3, 4] } else { [2, 0] };
        for _ in 0..3 {
            icmp_error(&scene.lab.upstream, kind, from, server)?;
        }
        scene
            .upstream
            .on("*.quick.test.", Rule::addresses(300, &[ANSWER]));
        let client = scene.udp_client(Family::V4)?;
        client.ask(&query("after.quick.test.", RecordType::A))?;
        let now = scene.daemon.metrics()?;
        let refused = now.growth(&before, &Counter::UpstreamUnreachable);
        assert_eq!(refused, 0, "{way}");
        icmp_refused(&scene.lab.upstream, from, server)?;
        scene
            .daemon
            .wait_growth(&before, &[(&Counter::UpstreamUnreachable, 1)])
    })
}

/// Sends a "port unreachable" that quotes the headers of a datagram.
fn icmp_refused(host: &Namespace, local: SocketAddr, remote: SocketAddr) -> Result<()> {
    let kind = if local.is_ipv4() { [3, 3] } else { [1, 4] };
    icmp_error(host, kind, local, remote)
}

/// Sends an ICMP error of this type and code that quotes the headers of a datagram. Its MTU, if it has one, is 1280.
fn icmp_error(
    host: &Namespace,
    kind: [u8; 2],
    local: SocketAddr,
    remote: SocketAddr,
) -> Result<()> {
    let mut quoted = match (local.ip(), remote.ip()) {
        (IpAddr::V4(local), IpAddr::V4(remote)) => {
            let mut header = vec![0x45, 0, 0, 60, 0, 0, 0, 0, 64, 17, 0, 0];
            header.extend(local.octets());
            header.extend(remote.octets());
            header
        }
        (IpAddr::V6(local), IpAddr::V6(remote)) => {
            let mut header = vec![0x60, 0, 0, 0, 0, 40, 17, 64];
            header.extend(local.octets());
            header.extend(remote.octets());
            header
        }
        _ => anyhow::bail!("two families"),
    };
    quoted.extend(local.port().to_be_bytes());
    quoted.extend(remote.port().to_be_bytes());
    quoted.extend([0, 40, 0, 0]);
    let v4 = local.is_ipv4();
    let (family, protocol) = if v4 {
        (AddressFamily::Inet, SockProtocol::Icmp)
    } else {
        (AddressFamily::Inet6, SockProtocol::IcmpV6)
    };
    let mut message = kind.to_vec();
    message.extend([0, 0, 0, 0]);
    message.extend(1280_u16.to_be_bytes());
    message.extend(quoted);
    if v4 {
        // The kernel computes the checksum of ICMPv6.
        let sum = message
            .chunks(2)
            .map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])))
            .sum::<u32>();
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    let raw = host.run(|| socket(family, SockType::Raw, SockFlag::empty(), protocol))?;
    let mut to = local;
    to.set_port(0);
    sendto(
        raw.as_raw_fd(),
        &message,
        &SockaddrStorage::from(to),
        MsgFlags::empty(),
    )?;
    Ok(())
}

#[test]
fn an_answer_after_the_end_is_late_and_nothing_else() -> Result<()> {
    only!(ONCE, "ports towards upstreams, by each way that there is");
    for way in WAYS {
        let setup = Setup::default().sections(&forward(
            way,
            "give_up_ms = 500\n[cache]\nserve_stale = false\n",
        ));
        let scene = scene!(setup);
        let delay = Duration::from_millis(1_000);
        let slow = Rule::addresses(300, &[ANSWER]).after(delay);
        scene.upstream.on("www.test.", slow);
        let client = scene.udp_client(Family::V4)?;
        let before = scene.daemon.metrics()?;
        let answer = client.ask(&query("www.test.", RecordType::A))?;
        assert_eq!(answer.response_code(), ResponseCode::ServFail);
        // It was asked again meanwhile: each answer comes.
        let asked = scene.upstream.asked("www.test.").len() as u64;
        scene.daemon.wait_growth(
            &before,
            &[
                (&Counter::UpstreamLate, asked),
                (&Counter::UpstreamForged, 0),
                (&Counter::UpstreamUnmatched, 0),
                (&Counter::UpstreamAnswers, 0),
            ],
        )?;
    }
    Ok(())
}

/// More questions than places, to a slow server: most ports are closed before their answers come, and would be in use by other
/// questions if they did not rest.
#[test]
fn late_answers_to_a_burst_are_nobodys_forgeries() -> Result<()> {
    only!(ONCE, "ports towards upstreams, by each way that there is");
    const BURST: u32 = 2_000;
    let slow = Rule::addresses(300, &[ANSWER]).after(Duration::from_millis(500));
    for way in WAYS {
        let scene = scene!(Setup::default().sections(&forward(way, "")));
        scene.upstream.on("*.slow.", slow.clone());
        let client = scene.udp_client(Family::V4)?;
        let before = scene.daemon.metrics()?;
        for number in 0..BURST {
            // Each in a domain of its own: one domain gets only a part of the places (`forward.zone_questions`).
            let name = format!("www.n{number}.slow.");
            client.send(&wire(&query(&name, RecordType::A)))?;
            if number % 64 == 63 {
                // As fast as the worker takes them.
                thread::sleep(Duration::from_millis(2));
            }
        }
        // The last question is answered last.
        let last = || client.ask(&query("www.last.slow.", RecordType::A));
        wait_until("the last one is answered", TIMEOUT, || {
            last().is_ok_and(|answer| addresses(&answer) == [ANSWER])
        })?;
        let now = scene.daemon.metrics()?;
        let grown = |counter| now.growth(&before, &counter);
        let [asked, answered, late] = [
            Counter::UpstreamQueries,
            Counter::UpstreamAnswers,
            Counter::UpstreamLate,
        ]
        .map(grown);
        ensure!(asked > answered + late + 500, "{way}: {}", now.text());
        assert_eq!(grown(Counter::UpstreamForged), 0, "{way}");
    }
    Ok(())
}

/// Restarts the daemon of `scene` with the capabilities that setpriv(1) leaves it.
fn start_bounded(scene: &mut Scene, capabilities: &str) -> Result<Process> {
    scene.daemon.terminate()?;
    scene.upstream.on("*.open.test.", Rule::silence());
    scene
        .upstream
        .on("*.quick.test.", Rule::addresses(300, &[ANSWER]));
    let mut command = scene.lab.router.command("setpriv");
    command
        .args(["--bounding-set", capabilities, BINARY, "run"])
        .arg(scene.directory.path().join("config.toml"));
    let log = scene.directory.path().join("bounded.log");
    let mut process = Process::spawn_with_end(command, &log, End::Kill)?;
    process.wait_for_log("ready: ", TIMEOUT)?;
    Ok(process)
}

/// Lines of the log about the way that is used.
fn said_of_ports(log: &str) -> Vec<&str> {
    let lines = log.lines();
    lines
        .filter(|line| line.contains("upstream_ports"))
        .collect()
}

/// Without CAP_BPF and the capabilities that imply it.
#[test]
fn without_bpf_each_question_has_a_socket_and_the_log_says_so_once() -> Result<()> {
    only!(ONCE, "ports towards upstreams, by each way that there is");
    for (way, level) in [("auto", "INFO"), ("sk_lookup", "WARN")] {
        let setup = Setup::default()
            .xdp("off")
            .sections(&forward(way, "give_up_ms = 30000\n"));
        let mut scene = scene!(setup);
        let process = start_bounded(&mut scene, "-bpf,-sys_admin")?;
        // The program is tried during the start, which does not wait for it.
        wait_until("the log says so", TIMEOUT, || {
            !said_of_ports(&process.log()).is_empty()
        })?;
        let from = open_question(&scene, "www")?;
        assert!(has_socket(&scene.lab.router, from.port())?);
        let client = scene.udp_client(Family::V4)?;
        let answer = client.ask(&query("www.quick.test.", RecordType::A))?;
        assert_eq!(addresses(&answer), [ANSWER]);
        let log = process.log();
        let said = said_of_ports(&log);
        assert_eq!(said.len(), 1, "{log}");
        assert!(said[0].contains(level), "{log}");
    }
    Ok(())
}

#[test]
fn the_four_capabilities_of_the_daemon_are_enough_for_sk_lookup() -> Result<()> {
    only!(ONCE, "ports towards upstreams, by each way that there is");
    let setup = Setup::default()
        .xdp("off")
        .sections(&forward("auto", "give_up_ms = 30000\n"));
    let mut scene = scene!(setup);
    let four = "-all,+net_admin,+net_raw,+net_bind_service,+bpf";
    let process = start_bounded(&mut scene, four)?;
    wait_until("it is in use", TIMEOUT, || {
        is_in_use(&scene, "sk_lookup").unwrap_or(false)
    })?;
    let log = process.log();
    assert!(said_of_ports(&log).is_empty(), "{log}");
    Ok(())
}

/// Nothing waits for the program: neither start nor question nor end.
#[test]
fn a_kernel_that_never_ends_with_the_program_holds_up_nothing() -> Result<()> {
    only!(ONCE, "ports towards upstreams, by each way that there is");
    let mut scene = scene!(Setup::default().sections(&forward("sk_lookup", "")));
    let folder = scene.directory.path();
    let stuck = preload::compile("stuck_bpf", folder)?;
    scene.daemon.terminate()?;
    scene
        .upstream
        .on("*.quick.test.", Rule::addresses(300, &[ANSWER]));
    scene.upstream.on("*.open.test.", Rule::silence());
    let mut command = scene.lab.router.command(BINARY);
    command.arg("run").arg(folder.join("config.toml"));
    command.env("LD_PRELOAD", &stuck);
    let log = folder.join("stuck.log");
    let mut process = Process::spawn_with_end(command, &log, End::Kill)?;
    process.wait_for_log("bpf: an sk_lookup program", TIMEOUT)?;
    process.wait_for_log("ready: ", TIMEOUT)?;
    let client = scene.udp_client(Family::V4)?;
    let answer = client.ask(&query("www.quick.test.", RecordType::A))?;
    assert_eq!(addresses(&answer), [ANSWER]);
    let from = open_question(&scene, "www")?;
    assert!(has_socket(&scene.lab.router, from.port())?);
    let socket = folder.join("sock");
    let asked = || xdnsd::control::ask(&socket, "stats", &mut std::io::sink()).is_ok();
    process.wait_until("it is answered about itself", 3 * TIMEOUT, asked)?;
    assert!(process.terminate()?.success(), "{}", process.log());
    Ok(())
}

/// The routes choose the local address, and datagrams to another one are refused.
#[test]
fn the_local_address_follows_the_route() -> Result<()> {
    only!(ONCE, "ports towards upstreams, by each way that there is");
    each_way!(|scene: &Scene, _, server: IpAddr| -> Result<()> {
        let (second, prefix): (IpAddr, u8) = if server.is_ipv4() {
            ("10.54.0.9".parse()?, 32)
        } else {
            ("fd54::9".parse()?, 128)
        };
        let first = open_question(scene, "first")?;
        scene.lab.router.ip(&format!(
            "address add {second}/{prefix} dev {WAN} {}
             route add {server} dev {WAN} src {second}\n",
            if server.is_ipv6() { "nodad" } else { "" }
        ))?;
        let deadline = Instant::now() + TIMEOUT;
        let mut number = 0;
        loop {
            number += 1;
            let from = open_question(scene, &format!("n{number}"))?;
            if from.ip() == second {
                break;
            }
            ensure!(
                from.ip() == first.ip() && Instant::now() < deadline,
                "{from}"
            );
            thread::yield_now();
        }
        Ok(())
    })
}

/// `wan0` is deleted and made again with another address, then with a route of its own to the server.
#[test]
fn source_and_route_follow_a_device_that_is_made_anew() -> Result<()> {
    only!(ONCE, "ports towards upstreams, by each way that there is");
    each_way!(|scene: &Scene, way: &str, server: IpAddr| -> Result<()> {
        let (router, upstream) = (&scene.lab.router, &scene.lab.upstream);
        let (old, new, flags) = match server {
            IpAddr::V4(_) => (IpAddr::from(WAN_V4), "10.54.0.77/24", ""),
            IpAddr::V6(_) => (WAN_V6.into(), "fd54::77/64", "nodad"),
        };
        let first = open_question(scene, "first")?;
        ensure!(first.ip() == old, "{first}");
        router.ip(&format!("link delete {WAN}\n"))?;
        router.ip(&format!(
            "link add name {WAN} type veth peer name {HOST_INTERFACE} netns {}
             link set {WAN} up
             address add {new} dev {WAN} {flags}\n",
            upstream.path()
        ))?;
        let prefix = if server.is_ipv4() { "24" } else { "64" };
        upstream.ip(&format!(
            "link set {HOST_INTERFACE} up
             address add {server}/{prefix} dev {HOST_INTERFACE} {flags}\n"
        ))?;
        let client = scene.udp_client(Family::V4)?;
        let mut number = 0;
        let mut from = || -> Option<IpAddr> {
            number += 1;
            let name = format!("n{number}.quick.test.");
            let answer = client.ask(&query(&name, RecordType::A)).ok()?;
            (answer.response_code() == ResponseCode::NoError).then(|| {
                scene
                    .upstream
                    .asked(&name)
                    .last()
                    .map(|asked| asked.from.ip())
            })?
        };
        let expected: IpAddr = new.split('/').next().context("an address")?.parse()?;
        wait_until(&format!("{way} asks from {expected}"), 2 * TIMEOUT, || {
            from() == Some(expected)
        })?;
        // A route with a source address.
        let other: IpAddr = if server.is_ipv4() {
            "10.54.0.78"
        } else {
            "fd54::78"
        }
        .parse()?;
        let host = if server.is_ipv4() { "32" } else { "128" };
        router.ip(&format!(
            "address add {other}/{host} dev {WAN} {flags}
             route add {server} dev {WAN} src {other}\n"
        ))?;
        wait_until(&format!("{way} asks from {other}"), TIMEOUT, || {
            from() == Some(other)
        })
    })
}

/// A server at a link-local address of the upstream's host, which answers all questions with one address.
fn serve_link_local(host: &Namespace) -> Result<()> {
    host.ip(&format!(
        "address add fe80::53/64 dev {HOST_INTERFACE} nodad\n"
    ))?;
    let socket = host.run(|| -> Result<UdpSocket> {
        let link = nix::net::if_::if_nametoindex(HOST_INTERFACE)?;
        let address = std::net::SocketAddrV6::new("fe80::53".parse()?, 53, 0, link);
        Ok(UdpSocket::bind(address)?)
    })?;
    thread::spawn(move || {
        let mut query = [0; 512];
        // Ends with the test, or with its address.
        while let Ok((_, from)) = socket.recv_from(&mut query) {
            let name_len = query[12..].iter().position(|byte| *byte == 0).unwrap_or(0) + 1;
            let mut answer = query[..12 + name_len + 4].to_vec();
            answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1]);
            if socket.send_to(&answer, from).is_err() {
                return;
            }
        }
    });
    Ok(())
}

/// `wan0` is renamed, which keeps its index, then deleted and made again, with another index.
#[test]
fn a_link_local_server_is_asked_on_the_device_of_its_zones_name_whenever_that_is_made() -> Result<()>
{
    only!(ONCE, "ports towards upstreams, by each way that there is");
    for way in WAYS {
        let setup = Setup::default()
            .servers(&["fe80::53%wan0"])
            .sections(&forward(way, ""));
        let scene = scene!(setup);
        let (router, upstream) = (&scene.lab.router, &scene.lab.upstream);
        serve_link_local(upstream)?;
        let client = scene.udp_client(Family::V4)?;
        let mut number = 0;
        let mut is_answered = || {
            number += 1;
            let answer = client.ask(&query(&format!("n{number}.test."), RecordType::A));
            answer.is_ok_and(|answer| answer.response_code() == ResponseCode::NoError)
        };
        wait_until("it is asked on wan0", TIMEOUT, &mut is_answered)?;
        router.ip(&format!(
            "link set {WAN} down name late9\nlink set late9 up\n"
        ))?;
        wait_until("it is not asked on late9", TIMEOUT, || {
            (0..5).all(|_| !is_answered())
        })?;
        router.ip("link delete late9\n")?;
        router.ip(&format!(
            "link add name {WAN} type veth peer name {HOST_INTERFACE} netns {}
             link set {WAN} up\n",
            upstream.path()
        ))?;
        upstream.ip(&format!("link set {HOST_INTERFACE} up\n"))?;
        serve_link_local(upstream)?;
        wait_until("it is asked on the new wan0", 2 * TIMEOUT, &mut is_answered)?;
    }
    Ok(())
}
