//! Addresses of the config that the router has elsewhere by now, or only tentatively: by every way in.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use xdnsd_core::counters::Counter;
use xdnsd_lab::lab::{HOST_INTERFACE, LAN, LAN_V4, LAN_V6, UPSTREAM_V4, UPSTREAM_V6, WAN};
use xdnsd_lab::wait::wait_until;

use super::access::{Outcome, by_socket, from_lan};
use crate::support::TIMEOUT;
use crate::support::client::{Family, client_address};
use crate::support::run::only;
use crate::support::scene::{Scene, Setup, scene};
use crate::support::script::Rule;
use crate::support::ways::{Way, Ways};

/// Besides the router's usual addresses, which keep the networks on the LAN.
const MOVING_V4: &str = "10.53.0.98";
const MOVING_V6: &str = "fd53::98";
const MOVING: [(&str, &str); 2] = [(MOVING_V4, "/32"), (MOVING_V6, "/128 nodad")];

/// Listens on all of them. All clients are allowed, so that nothing else refuses a query.
fn set_up() -> Setup {
    Setup {
        listen: format!("listen = [\"{LAN_V4}\", \"{LAN_V6}\", \"{MOVING_V4}\", \"{MOVING_V6}\"]"),
        ..Setup::three_ways().sections("[access]\nothers = \"allow\"\n")
    }
}

/// Adds or deletes the moving addresses on this device of the router.
fn address(scene: &Scene, command: &str, device: &str) -> Result<()> {
    let lines = MOVING.map(|(address, length)| {
        let (length, nodad) = length.split_once(' ').unwrap_or((length, ""));
        let nodad = if command == "add" { nodad } else { "" };
        format!("address {command} {address}{length} dev {device} {nodad}\n")
    });
    scene.lab.router.ip(&lines.concat())
}

/// The client sends all packets to these addresses to the router, without neighbour discovery.
fn pin_neighbours(scene: &Scene) -> Result<()> {
    let path = format!("/sys/class/net/{LAN}/address");
    let mac = scene.lab.router.read(&path)?;
    for (address, _) in MOVING {
        scene.lab.client.ip(&format!(
            "neighbour replace {address} lladdr {} dev {HOST_INTERFACE} nud permanent\n",
            mac.trim()
        ))?;
    }
    Ok(())
}

fn prepare(scene: &Scene) -> Result<Ways<'_>> {
    scene
        .upstream
        .on("www.test.", Rule::addresses(300, &["192.0.2.1"]));
    pin_neighbours(scene)?;
    Ways::open(scene)
}

/// Outcomes for the neighbour at the moving addresses, by every way.
fn outcomes(
    scene: &Scene,
    ways: &Ways<'_>,
    expected: Outcome,
) -> Result<Vec<(Way, IpAddr, Outcome)>> {
    let mut outcomes = Vec::new();
    for (address, _) in MOVING {
        let server: IpAddr = address.parse()?;
        let client = client_address(Family::of_address(server));
        for way in Way::ALL {
            let outcome = from_lan(scene, ways, way, client, server, expected);
            let outcome = outcome.with_context(|| format!("{way:?} {server}"))?;
            outcomes.push((way, server, outcome));
        }
    }
    Ok(outcomes)
}

fn check(scene: &Scene, ways: &Ways<'_>, expected: Outcome) -> Result<()> {
    for (way, server, outcome) in outcomes(scene, ways, expected)? {
        ensure!(outcome == expected, "{way:?} {server}: {outcome:?}");
    }
    Ok(())
}

/// Waits until all of them are answered, over AF_XDP if that is the way.
fn wait_for_answers(scene: &Scene, ways: &Ways<'_>) -> Result<()> {
    wait_until("the addresses are answered again", TIMEOUT * 2, || {
        let answered = || -> Result<bool> {
            let before = scene.daemon.metrics()?;
            check(scene, ways, Outcome::Answer)?;
            let now = scene.daemon.metrics()?;
            Ok(now.growth(&before, &Counter::AnswersXdp) == 2)
        };
        answered().unwrap_or(false)
    })
}

#[test]
fn an_address_that_moves_to_an_interface_that_is_not_served_is_not_ours_until_it_is_back()
-> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let scene = scene!(set_up());
    let ways = prepare(&scene)?;
    address(&scene, "add", LAN)?;
    wait_for_answers(&scene, &ways)?;
    for round in 2..=3 {
        address(&scene, "delete", LAN)?;
        address(&scene, "add", WAN)?;
        let lost = format!("{MOVING_V6} is not an address of {LAN}");
        scene.daemon.wait_log_count(&lost, round)?;
        wait_until("nobody is answered", TIMEOUT, || {
            check(&scene, &ways, Outcome::Nothing).is_ok()
        })?;
        // Nor on its current device.
        for (local, (server, _)) in [IpAddr::from(UPSTREAM_V4), UPSTREAM_V6.into()]
            .into_iter()
            .zip(MOVING)
        {
            for way in [Way::Udp, Way::Tcp] {
                let host = &scene.lab.upstream;
                let server = server.parse()?;
                let outcome = by_socket(host, way, local, server, Outcome::Nothing)?;
                ensure!(outcome == Outcome::Nothing, "{way:?} {local}: {outcome:?}");
            }
        }
        address(&scene, "delete", WAN)?;
        address(&scene, "add", LAN)?;
        wait_for_answers(&scene, &ways)?;
    }
    Ok(())
}

/// If the other interface is served on all of its addresses, the address is served there; if it is served only on others,
/// nowhere.
#[test]
fn an_address_that_moves_to_another_interface_is_served_as_the_config_says_there() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    for (listen, expected) in [
        ("", Outcome::Answer),
        ("listen = [\"10.56.0.1\"]\n", Outcome::Nothing),
    ] {
        let other = format!("[[interface]]\nname = \"lan1\"\nxdp = \"native\"\n{listen}");
        let scene = scene!(set_up().sections(&other));
        let ways = prepare(&scene)?;
        address(&scene, "add", LAN)?;
        wait_for_answers(&scene, &ways)?;
        let (client, router) = (&scene.lab.client, &scene.lab.router);
        router.ip(&format!(
            "link add name lan1 numrxqueues 1 numtxqueues 1 type veth peer name late0 numrxqueues 1 numtxqueues 1 netns {}
             link set lan1 up
             address add 10.56.0.1/24 dev lan1\n",
            client.path()
        ))?;
        client.ip("link set late0 up\naddress add 10.56.0.2/24 dev late0\n")?;
        client.output(&["ethtool", "-K", "late0", "tx", "off"])?;
        router.output(&["ethtool", "-K", "lan1", "tx", "off"])?;
        scene
            .daemon
            .wait_log_count("lan1 queue 0: AF_XDP socket", 1)?;
        address(&scene, "delete", LAN)?;
        address(&scene, "add", "lan1")?;
        let lost = format!("{MOVING_V6} is not an address of {LAN}");
        scene.daemon.wait_log_count(&lost, 2)?;
        wait_until("it is as it is there", TIMEOUT, || {
            check(&scene, &ways, expected).is_ok()
        })?;
        // On the first interface it is left to the kernel, on the other one it is answered over AF_XDP.
        client.ip(&format!(
            "route add {MOVING_V4}/32 dev late0 src 10.56.0.2\n"
        ))?;
        client.ip(&format!(
            "neighbour delete {MOVING_V4} dev {HOST_INTERFACE}\n"
        ))?;
        let (local, server) = ("10.56.0.2".parse()?, MOVING_V4.parse()?);
        let by_xdp = u64::from(expected == Outcome::Answer);
        wait_until("and over AF_XDP", TIMEOUT, || {
            let asked = || -> Result<bool> {
                let before = scene.daemon.metrics()?;
                let outcome = by_socket(client, Way::Udp, local, server, expected)?;
                let now = scene.daemon.metrics()?;
                let grown = now.growth(&before, &Counter::AnswersXdp);
                Ok(outcome == expected && grown == by_xdp)
            };
            asked().unwrap_or(false)
        })?;
    }
    Ok(())
}

/// True if `ip` shows this flag of the router's moving IPv6 address.
fn is_shown(scene: &Scene, flag: &str) -> bool {
    let shown = scene
        .lab
        .router
        .output(&["ip", "-6", "address", "show", "dev", LAN]);
    shown.is_ok_and(|shown| {
        let mut lines = shown.lines();
        lines.any(|line| line.contains(MOVING_V6) && line.contains(flag))
    })
}

/// While the kernel checks for duplicates (RFC 4862 section 5.4) nothing is delivered to it, and nothing after a duplicate was
/// found.
#[test]
fn an_ipv6_address_that_is_tentative_or_a_duplicate_is_not_answered_until_it_is_ours() -> Result<()>
{
    only!(ONCE, "it goes by all ways in each run");
    let scene = scene!(set_up());
    let ways = prepare(&scene)?;
    let router = &scene.lab.router;
    let setting = |name: &str, value: &str| {
        router.write(&format!("/proc/sys/net/ipv6/conf/{LAN}/{name}"), value)
    };
    setting("accept_dad", "1")?;
    let server: IpAddr = MOVING_V6.parse()?;
    let client = client_address(Family::V6);
    let ask = |way, expected| from_lan(&scene, &ways, way, client, server, expected);
    for (round, flag, transmits) in [(1, "tentative", "200"), (2, "dadfailed", "1")] {
        setting("dad_transmits", transmits)?;
        if flag == "dadfailed" {
            let held = format!("address add {MOVING_V6}/128 dev {HOST_INTERFACE} nodad\n");
            scene.lab.client.ip(&held)?;
        }
        router.ip(&format!("address add {MOVING_V6}/128 dev {LAN}\n"))?;
        wait_until(flag, TIMEOUT, || is_shown(&scene, flag))?;
        // Then the duplicate is gone, and could hear an answer to its packets.
        if flag == "dadfailed" {
            let held = format!("address delete {MOVING_V6}/128 dev {HOST_INTERFACE}\n");
            scene.lab.client.ip(&held)?;
        }
        pin_neighbours(&scene)?;
        let known = format!("listening on [{MOVING_V6}]:53, too");
        scene.daemon.wait_log_count(&known, 2 * round - 1)?;
        for way in Way::ALL {
            let outcome = ask(way, Outcome::Nothing)?;
            ensure!(outcome == Outcome::Nothing, "{flag} {way:?}: {outcome:?}");
        }
        ensure!(is_shown(&scene, flag), "no longer {flag}");
        router.ip(&format!("address delete {MOVING_V6}/128 dev {LAN}\n"))?;
        let lost = format!("{MOVING_V6} is not an address of {LAN}");
        scene.daemon.wait_log_count(&lost, 2 * round)?;
        router.ip(&format!("address add {MOVING_V6}/128 dev {LAN} nodad\n"))?;
        wait_until("it is ours", TIMEOUT, || {
            let asked = || -> Result<bool> {
                let before = scene.daemon.metrics()?;
                for way in Way::ALL {
                    ensure!(ask(way, Outcome::Answer)? == Outcome::Answer);
                }
                let now = scene.daemon.metrics()?;
                Ok(now.growth(&before, &Counter::AnswersXdp) == 1)
            };
            asked().unwrap_or(false)
        })?;
        router.ip(&format!("address delete {MOVING_V6}/128 dev {LAN}\n"))?;
        scene.daemon.wait_log_count(&lost, 2 * round + 1)?;
    }
    Ok(())
}
