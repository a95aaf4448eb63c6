//! The default access: neighbours on the served interfaces, by all ways. And which frames are ours.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use xdnsd_abi::Reason;
use xdnsd_core::counters::Counter;
use xdnsd_lab::lab::{LAN, LAN_V4, LAN_V6, Spec, UPSTREAM_V4, UPSTREAM_V6};
use xdnsd_lab::wait::wait_until;

use crate::support::ask::{Ask, rtype};
use crate::support::client::{DNS_PORT, Family};
use crate::support::frame::UdpFrame;
use crate::support::run::only;
use crate::support::scene::{Scene, Setup, scene};
use crate::support::script::Rule;
use crate::support::view::View;
use crate::support::ways::{Way, Ways};
use crate::support::{SILENCE, TIMEOUT};

fn question() -> Vec<u8> {
    Ask::of("www.test.", rtype::A).bytes()
}

fn prepare(scene: &Scene) -> Result<Ways<'_>> {
    let www = Rule::addresses(300, &["192.0.2.1"]);
    scene.upstream.on("www.test.", www);
    let ways = Ways::open(scene)?;
    ways.same(&question())?;
    Ok(ways)
}

/// A query from this address to the router's address on the LAN, by a datagram way.
fn from(ways: &Ways<'_>, way: Way, source: &str) -> Result<UdpFrame> {
    let source: IpAddr = source.parse()?;
    let mut frame = ways.frame(way, Family::of_address(source), &question())?;
    frame.source = SocketAddr::new(source, 4_000);
    Ok(frame)
}

/// True if the router's address on the LAN answers a host on the WAN side that asks from `local`.
fn answers_the_wan(scene: &Scene, local: IpAddr) -> Result<bool> {
    let server: IpAddr = match local {
        IpAddr::V4(_) => LAN_V4.into(),
        IpAddr::V6(_) => LAN_V6.into(),
    };
    let socket = scene
        .lab
        .upstream
        .run(|| UdpSocket::bind((local, 0)))
        .context("a socket on the WAN side")?;
    socket.connect((server, DNS_PORT))?;
    socket.set_read_timeout(Some(SILENCE))?;
    socket.send(&question())?;
    Ok(socket.recv(&mut [0; 512]).is_ok())
}

/// True if a stream from there is answered.
fn answers_the_wans_stream(scene: &Scene, server: IpAddr) -> Result<bool> {
    use std::io::{Read as _, Write as _};
    let open = || std::net::TcpStream::connect((server, DNS_PORT));
    let mut stream = scene.lab.upstream.run(open)?;
    stream.set_read_timeout(Some(SILENCE))?;
    let message = question();
    let prefix = u16::try_from(message.len())?.to_be_bytes();
    // It may be closed already.
    let _ = stream.write_all(&[&prefix[..], &message].concat());
    Ok(stream.read_exact(&mut [0; 2]).is_ok())
}

#[test]
fn who_is_no_neighbour_gets_nothing_unless_he_is_allowed() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let sections = "[access]\nallow = [\"203.0.113.0/24\", \"2001:db8:9::/48\"]\n";
    let scene = scene!(Setup::three_ways().sections(sections));
    let ways = prepare(&scene)?;
    let mut silent = Vec::new();
    for way in Way::DATAGRAMS {
        for stranger in ["198.51.100.7", "8.8.8.8", "2001:db8:77::7", "fd54::9"] {
            silent.push(from(&ways, way, stranger)?);
        }
    }
    for frame in &silent {
        ways.raw().send(&frame.to_bytes())?;
    }
    let answer = ways.raw().any_answer_to(&silent, SILENCE)?;
    ensure!(answer.is_none(), "a stranger was answered: {answer:02x?}");
    for neighbour in [
        "10.53.0.9",
        "fd53::9",
        "fe80::9",
        "203.0.113.7",
        "2001:db8:9::7",
    ] {
        let frame = from(&ways, Way::Xdp, neighbour)?;
        let reply = ways.raw().exchange(&frame).context(neighbour)?;
        assert_eq!(View::parse(&reply)?.data(rtype::A).len(), 1, "{neighbour}");
    }
    Ok(())
}

#[test]
fn the_address_on_the_lan_does_not_answer_the_wan() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let scene = scene!(Setup::three_ways());
    prepare(&scene)?;
    // By its own address, and by one in the LAN's network.
    scene
        .lab
        .upstream
        .ip("address add 10.53.0.99/32 dev eth0\naddress add fd53::99/128 dev eth0 nodad\n")?;
    scene
        .lab
        .router
        .ip("route add 10.53.0.99/32 dev wan0\nroute add fd53::99/128 dev wan0\n")?;
    for local in [UPSTREAM_V4.into(), UPSTREAM_V6.into()] {
        assert!(!answers_the_wan(&scene, local)?, "{local}");
    }
    for local in ["10.53.0.99", "fd53::99"] {
        assert!(!answers_the_wan(&scene, local.parse()?)?, "{local}");
    }
    for server in [LAN_V4.into(), LAN_V6.into()] {
        assert!(!answers_the_wans_stream(&scene, server)?, "{server}");
    }
    Ok(())
}

#[test]
fn the_wan_is_answered_where_its_network_is_allowed_and_where_all_are() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    for sections in [
        "[access]\nallow = [\"10.54.0.0/24\", \"fd54::/64\"]\n",
        "[access]\nothers = \"allow\"\n",
    ] {
        let scene = scene!(Setup::three_ways().sections(sections));
        prepare(&scene)?;
        for (local, server) in [
            (UPSTREAM_V4.into(), LAN_V4.into()),
            (UPSTREAM_V6.into(), IpAddr::from(LAN_V6)),
        ] {
            assert!(answers_the_wan(&scene, local)?, "{local}");
            assert!(answers_the_wans_stream(&scene, server)?, "{server}");
        }
    }
    Ok(())
}

/// The router's own processes ask its address on the LAN, from any of its own addresses.
#[test]
fn the_router_itself_is_answered() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let scene = scene!(Setup::three_ways());
    prepare(&scene)?;
    for local in ["127.0.0.1", "10.53.0.1", "10.54.0.1"] {
        let socket = scene.lab.router.run(|| UdpSocket::bind((local, 0)))?;
        socket.connect((LAN_V4, DNS_PORT))?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        socket.send(&question())?;
        socket.recv(&mut [0; 512]).context(local)?;
    }
    Ok(())
}

#[test]
fn a_frame_to_another_station_is_not_answered_and_a_new_mac_is_followed() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    const OTHER: [u8; 6] = [0x02, 0, 0, 0, 0x77, 0x01];
    for xdp in ["native", "generic"] {
        let scene = scene!(Setup::three_ways().xdp(xdp));
        let ways = prepare(&scene)?;
        scene
            .lab
            .router
            .ip(&format!("link set {LAN} promisc on\n"))?;
        let before = scene.daemon.metrics()?;
        let mut frames = Vec::new();
        for family in Family::ALL {
            let mut frame = ways.frame(Way::Xdp, family, &question())?;
            frame.destination_mac = OTHER;
            ways.raw().send(&frame.to_bytes())?;
            frames.push(frame);
        }
        let answer = ways.raw().any_answer_to(&frames, SILENCE)?;
        ensure!(answer.is_none(), "{xdp}: {answer:02x?}");
        scene
            .daemon
            .wait_growth(&before, &[(&Reason::PassOtherMac, 2)])?;
        scene
            .lab
            .router
            .ip(&format!("link set {LAN} address 02:00:00:00:77:01\n"))?;
        wait_until("the new address is followed", TIMEOUT, || {
            let Ok(before) = scene.daemon.metrics() else {
                return false;
            };
            let reply = ways.raw().exchange(&frames[0]);
            let now = scene.daemon.metrics();
            reply.is_ok() && now.is_ok_and(|now| now.growth(&before, &Counter::AnswersXdp) == 1)
        })?;
    }
    Ok(())
}

/// A configured address that the router has lost is not answered, and answered again when it is back.
#[test]
fn an_explicit_address_that_is_lost_is_not_answered_until_it_is_back() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    // With the address goes its network, and access for its neighbours.
    let scene = scene!(Setup::three_ways().sections("[access]\nothers = \"allow\"\n"));
    let ways = prepare(&scene)?;
    for (family, address) in [(Family::V4, "10.53.0.1/24"), (Family::V6, "fd53::1/64")] {
        for (command, is_answered) in [("delete", false), ("add", true)] {
            let nodad = if family == Family::V6 && command == "add" {
                " nodad"
            } else {
                ""
            };
            scene
                .lab
                .router
                .ip(&format!("address {command} {address} dev {LAN}{nodad}\n"))?;
            wait_until("the address is followed", TIMEOUT, || {
                let Ok(frame) = ways.frame(Way::Xdp, family, &question()) else {
                    return false;
                };
                let sent = ways.raw().send(&frame.to_bytes());
                let answer = sent.and_then(|()| ways.raw().any_answer_to(&[frame], SILENCE));
                answer.is_ok_and(|answer| answer.is_some() == is_answered)
            })?;
        }
    }
    Ok(())
}

/// MTU 9000: the program stays in the driver, other hosts' jumbo frames cross the router, and queries are answered over AF_XDP.
#[test]
fn jumbo_frames_of_others_pass_and_queries_are_answered_over_af_xdp() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let spec = Spec {
        mtu: 9_000,
        ..Spec::default()
    };
    let scene = scene!(Setup::three_ways().lab(spec).xdp("auto"));
    assert_eq!(scene.attached()?, "xdp");
    let ways = prepare(&scene)?;
    let receiver = scene.lab.router.run(|| UdpSocket::bind((LAN_V4, 9_999)))?;
    receiver.set_read_timeout(Some(Duration::from_secs(2)))?;
    let sender = scene.lab.client.run(|| UdpSocket::bind(("10.53.0.2", 0)))?;
    for len in [1_400, 4_000, 8_900] {
        sender.send_to(&vec![0xa5; len], (LAN_V4, 9_999))?;
        assert_eq!(receiver.recv(&mut [0; 9_000])?, len);
    }
    let before = scene.daemon.metrics()?;
    ways.ask(Way::Xdp, Family::V4, &question())?;
    scene
        .daemon
        .wait_growth(&before, &[(&Counter::AnswersXdp, 1)])
}
