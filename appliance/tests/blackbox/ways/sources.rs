//! Queries with sources that must not get an answer: it would come back, or go to many. And clients that the config does not
//! answer.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, anyhow, ensure};
use xdnsd_core::counters::Counter;
use xdnsd_lab::lab::LAN;
use xdnsd_lab::wait::wait_until;

use super::code;
use crate::support::ask::{Ask, OptRecord, rtype};
use crate::support::client::{Family, client_address};
use crate::support::frame::UdpFrame;
use crate::support::run::only;
use crate::support::scene::{Scene, Setup, scene};
use crate::support::script::Rule;
use crate::support::stream::Next;
use crate::support::view::View;
use crate::support::ways::{Way, Ways};
use crate::support::{SILENCE, TIMEOUT};

/// Ports of services that answer any datagram.
const REFLECTORS: [u16; 5] = [7, 13, 17, 19, 37];

fn prepare(scene: &Scene) -> Result<Ways<'_>> {
    let www = Rule::addresses(300, &["192.0.2.1"]);
    scene.upstream.on("www.test.", www);
    let ways = Ways::open(scene)?;
    ways.same(&question())?;
    ways.check_tiers()?;
    Ok(ways)
}

fn question() -> Vec<u8> {
    Ask::of("www.test.", rtype::A).bytes()
}

/// A frame with another source.
fn frame(ways: &Ways<'_>, way: Way, source: SocketAddr) -> Result<UdpFrame> {
    let family = Family::of_address(source.ip());
    let mut frame = ways.frame(way, family, &question())?;
    frame.source = source;
    Ok(frame)
}

/// Sends all of these and asserts that none is answered, and that an ordinary query is.
fn assert_silent(ways: &Ways<'_>, frames: &[UdpFrame]) -> Result<()> {
    for frame in frames {
        ways.raw().send(&frame.to_bytes())?;
    }
    let answer = ways.raw().any_answer_to(frames, SILENCE)?;
    ensure!(answer.is_none(), "an answer: {answer:02x?}");
    ways.same(&question())?;
    Ok(())
}

#[test]
fn services_that_answer_everything_get_no_answer() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let scene = scene!(Setup::three_ways());
    let ways = prepare(&scene)?;
    let before = scene.daemon.metrics()?;
    let mut frames = Vec::new();
    for family in Family::ALL {
        for way in Way::DATAGRAMS {
            for port in REFLECTORS {
                frames.push(frame(
                    &ways,
                    way,
                    SocketAddr::new(client_address(family), port),
                )?);
            }
        }
    }
    assert_silent(&ways, &frames)?;
    let ignored = u64::try_from(frames.len())?;
    scene
        .daemon
        .wait_growth(&before, &[(&Counter::IgnoredSources, ignored)])?;
    // A stream begins with a handshake, so its source cannot be forged.
    for family in Family::ALL {
        let mut stream = ways.stream_from(family, 7)?;
        let reply = View::parse(&stream.exchange(&question())?)?;
        assert_eq!(reply.data(rtype::A).len(), 1);
    }
    Ok(())
}

#[test]
fn ports_beside_them_are_answered_and_53_is_one() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let scene = scene!(Setup::three_ways());
    let ways = prepare(&scene)?;
    for family in Family::ALL {
        for way in Way::DATAGRAMS {
            for port in [1, 6, 8, 53, 123, 1023, 1024, 5353, 65_535] {
                let source = SocketAddr::new(client_address(family), port);
                let reply = ways.raw().exchange(&frame(&ways, way, source)?)?;
                assert_eq!(View::parse(&reply)?.data(rtype::A).len(), 1, "{port}");
            }
        }
    }
    Ok(())
}

#[test]
fn the_config_says_which_ports_are_silent() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let sections = "[access]\nreflector_ports = [1900]\n";
    let scene = scene!(Setup::three_ways().sections(sections));
    let ways = prepare(&scene)?;
    let mut silent = Vec::new();
    for family in Family::ALL {
        for way in Way::DATAGRAMS {
            let from = |port| frame(&ways, way, SocketAddr::new(client_address(family), port));
            silent.push(from(1900)?);
            silent.push(from(0)?);
            ways.raw()
                .exchange(&from(7)?)
                .context("echo is not named")?;
        }
    }
    let before = scene.daemon.metrics()?;
    assert_silent(&ways, &silent)?;
    let ignored = u64::try_from(silent.len())?;
    scene
        .daemon
        .wait_growth(&before, &[(&Counter::IgnoredSources, ignored)])
}

#[test]
fn addresses_that_are_ours_or_nobodys_get_no_answer() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let scene = scene!(Setup::three_ways());
    let ways = prepare(&scene)?;
    let mut frames = Vec::new();
    let martians = [
        // Ours, on another port as well, and on a device that is not served; this network, and its first address; the loopback;
        // a group; broadcast addresses, limited and directed.
        "10.53.0.1",
        "10.54.0.1",
        "fd54::1",
        "10.53.0.0",
        "fd53::",
        "0.0.0.0",
        "0.1.2.3",
        "127.0.0.1",
        "224.0.0.251",
        "240.0.0.1",
        "10.53.0.255",
        "255.255.255.255",
        "fd53::1",
        "::",
        "::1",
        "::ffff:10.53.0.2",
        "ff02::fb",
        "ff0e::1",
    ];
    for address in martians {
        let address: IpAddr = address.parse()?;
        for way in Way::DATAGRAMS {
            for port in [53, 4_000] {
                frames.push(frame(&ways, way, SocketAddr::new(address, port))?);
            }
        }
    }
    assert_silent(&ways, &frames)
}

/// An address that the router gets while it serves is no client's from then on; one that it loses may be.
#[test]
fn addresses_that_come_and_go_are_followed() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let scene = scene!(Setup::three_ways());
    let ways = prepare(&scene)?;
    let clients = ["10.53.0.77", "fd53::77"].map(|address| -> Result<UdpFrame> {
        frame(&ways, Way::Xdp, SocketAddr::new(address.parse()?, 4_000))
    });
    for (command, is_answered) in [("", true), ("add", false), ("delete", true)] {
        if !command.is_empty() {
            scene.lab.router.ip(&format!(
                "address {command} 10.53.0.77/24 dev {LAN}\naddress {command} fd53::77/64 dev {LAN}\n"
            ))?;
        }
        for client in &clients {
            let client = client.as_ref().map_err(|error| anyhow!("{error}"))?;
            wait_until("the address is followed", TIMEOUT, || {
                let frames = std::slice::from_ref(client);
                let sent = ways.raw().send(&client.to_bytes());
                let answer = sent.and_then(|()| ways.raw().any_answer_to(frames, SILENCE));
                answer.is_ok_and(|answer| answer.is_some() == is_answered)
            })?;
        }
    }
    Ok(())
}

#[test]
fn messages_to_many_get_no_answer() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let scene = scene!(Setup::three_ways());
    let ways = prepare(&scene)?;
    let mut frames = Vec::new();
    for destination in [
        "10.53.0.255",
        "255.255.255.255",
        "224.0.0.1",
        "ff02::1",
        "10.53.0.0",
    ] {
        let destination: IpAddr = destination.parse()?;
        let family = Family::of_address(destination);
        for mac in [None, Some([0xff; 6]), Some([0x33, 0x33, 0, 0, 0, 1])] {
            let mut frame = ways.frame(Way::Xdp, family, &question())?;
            frame.destination.set_ip(destination);
            frame.destination_mac = mac.unwrap_or(frame.destination_mac);
            frames.push(frame);
        }
    }
    // Our address, in a broadcast frame: the kernel does not deliver it, or answers the sender. From a group: the answer would
    // go to all of it.
    let mut from_group = ways.frame(Way::Xdp, Family::V4, &question())?;
    from_group.source_mac = [0xff; 6];
    frames.push(from_group);
    assert_silent(&ways, &frames)
}

#[test]
fn clients_get_what_the_access_list_says() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let sections = "[access]\nrefuse = [\"10.53.0.0/24\", \"fd53::/64\"]\n\
                    allow = [\"10.53.0.77\", \"fd53::77\"]\ndrop = [\"10.53.0.66\", \"fd53::66\"]\n";
    let scene = scene!(Setup::three_ways().sections(sections));
    scene
        .upstream
        .on("www.test.", Rule::addresses(300, &["192.0.2.1"]));
    for last in ["66", "77"] {
        scene.lab.client.ip(&format!(
            "address add 10.53.0.{last}/24 dev eth0\naddress add fd53::{last}/64 dev eth0 nodad\n"
        ))?;
    }
    let ways = Ways::open(&scene)?;
    let edns = Ask::of("www.test.", rtype::A).edns(&OptRecord::size(1232));
    let refused = ways.same(&edns.bytes())?;
    assert_eq!(
        (refused.rcode(), refused.ede()),
        (code::REFUSED, Some(code::PROHIBITED))
    );
    for ask in [
        Ask::of("localhost.", rtype::A),
        Ask::of_class("version.bind.", rtype::TXT, 3),
        Ask::of("x.", rtype::ANY),
    ] {
        assert_eq!(ways.same(&ask.bytes())?.rcode(), code::REFUSED);
    }
    assert_eq!(
        scene.upstream.asked_all().len(),
        0,
        "REFUSED before all else"
    );
    let mut dropped = Vec::new();
    for (family, allowed, denied) in [
        (Family::V4, "10.53.0.77", "10.53.0.66"),
        (Family::V6, "fd53::77", "fd53::66"),
    ] {
        for way in Way::DATAGRAMS {
            let from = |address: &str, message: &[u8]| -> Result<UdpFrame> {
                let mut frame = ways.frame(way, family, message)?;
                frame.source.set_ip(address.parse()?);
                Ok(frame)
            };
            let reply = ways.raw().exchange(&from(allowed, &question())?)?;
            assert_eq!(View::parse(&reply)?.data(rtype::A).len(), 1);
            dropped.push(from(denied, &question())?);
            // No answer: no FORMERR, no NOTIMP.
            dropped.push(from(denied, &Ask::without_question().bytes())?);
            dropped.push(from(denied, &Ask::of("a.", 1).opcode(4).bytes())?);
        }
        let mut stream = ways.stream_at(allowed.parse()?)?;
        let reply = View::parse(&stream.exchange(&question())?)?;
        assert_eq!(reply.data(rtype::A).len(), 1);
        let mut stream = ways.stream_at(denied.parse()?)?;
        stream.send(&question())?;
        assert_eq!(stream.next(SILENCE)?, Next::Nothing);
    }
    assert_silent(&ways, &dropped)
}

#[test]
fn the_others_of_the_access_list() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let sections = "[access]\nallow = [\"10.53.0.2\", \"192.0.2.0/24\"]\nothers = \"refuse\"\n";
    let scene = scene!(Setup::three_ways().sections(sections));
    scene
        .upstream
        .on("www.test.", Rule::addresses(300, &["192.0.2.1"]));
    let ways = Ways::open(&scene)?;
    for way in Way::ALL {
        let of = |family| ways.ask(way, family, &question());
        assert_eq!(of(Family::V4)?.rcode(), code::NOERROR);
        assert_eq!(of(Family::V6)?.rcode(), code::REFUSED);
    }
    ways.check_tiers()
}
