//! Addresses of answers in sets of nftables, as `nft` shows them.

use std::fs;

use anyhow::{Context, Result, ensure};
use hickory_proto::rr::RecordType;
use xdnsd_lab::programs::find_program;
use xdnsd_lab::wait::wait_until;

use crate::support::TIMEOUT;
use crate::support::client::Family;
use crate::support::message::{query, wire};
use crate::support::metrics::Metric;
use crate::support::run::{not_in_guests, only};
use crate::support::scene::{Scene, Setup, scene};
use crate::support::script::Rule;
use crate::support::ways::{Way, Ways};

const SECTIONS: &str = "[[nftset]]\nnames = [\"vpn.test\"]\nsets = [\"inet#fw4#vpn4\", \"inet#fw4#vpn6\", \"4#t#ranges\"]\n\
     [[nftset]]\nnames = [\"timed.test\"]\nsets = [\"inet#fw4#timed\"]\n";

/// Sets as whoever makes the rules has them.
const RULES: &str = "add table inet fw4; add table ip t; \
     add set inet fw4 vpn4 { type ipv4_addr; }; add set inet fw4 vpn6 { type ipv6_addr; }; \
     add set inet fw4 timed { type ipv4_addr; flags timeout; timeout 1h; }; \
     add set ip t ranges { type ipv4_addr; flags interval; }";

/// Metric: what became of addresses.
#[derive(Debug)]
struct InSets(&'static str);

impl Metric for InSets {
    fn family(&self) -> String {
        format!("xdnsd_nftset_{}_total", self.0)
    }

    fn label(&self) -> String {
        String::new()
    }
}

fn nft(scene: &Scene, command: &str) -> Result<String> {
    scene.lab.router.output(&["nft", command])
}

/// Whether a set of the table has this element, as `nft` writes it.
fn has(scene: &Scene, set: &str, element: &str) -> bool {
    let shown = nft(scene, &format!("list set {set}")).unwrap_or_default();
    let Some((_, elements)) = shown.split_once("elements = {") else {
        return false;
    };
    let mut words = elements.split([' ', ',', '\n', '\t']);
    words.any(|word| word == element)
}

fn wait_for(scene: &Scene, set: &str, element: &str) -> Result<()> {
    wait_until(&format!("{element} in {set}"), TIMEOUT, || {
        has(scene, set, element)
    })
}

/// What answers to all names leave in the sets.
const FILLED: [(&str, &str); 4] = [
    ("inet fw4 vpn4", "198.51.100.1"),
    ("inet fw4 vpn6", "2001:db8::9"),
    ("ip t ranges", "198.51.100.1"),
    ("inet fw4 timed", "198.51.100.2"),
];

/// Whether `nft` is here, which the lab installs.
fn prepare(scene: &Scene) -> Result<()> {
    find_program("nft").context("nft is missing: cargo xtask setup lab")?;
    nft(scene, RULES)?;
    let upstream = &scene.upstream;
    for (name, address) in [
        ("www.vpn.test.", "198.51.100.1"),
        ("timed.test.", "198.51.100.2"),
        ("other.test.", "198.51.100.3"),
    ] {
        upstream.on(name, Rule::addresses(300, &[address, "2001:db8::9"]));
    }
    Ok(())
}

#[test]
fn addresses_are_in_the_sets_of_their_names_by_all_ways_and_come_back() -> Result<()> {
    only!(ONCE, "by all ways");
    not_in_guests!("nft is not there");
    let scene = scene!(Setup::three_ways().sections(SECTIONS));
    prepare(&scene)?;
    let ways = Ways::open(&scene)?;
    for (name, rtype) in [
        ("other.test.", RecordType::A),
        ("WWW.vpn.test.", RecordType::A),
        ("www.vpn.test.", RecordType::AAAA),
        ("timed.test.", RecordType::A),
    ] {
        ways.same(&wire(&query(name, rtype)))?;
    }
    for (set, element) in FILLED {
        wait_for(&scene, set, element)?;
    }
    for set in ["inet fw4 vpn4", "ip t ranges", "inet fw4 timed"] {
        ensure!(!has(&scene, set, "198.51.100.3"), "{set}");
    }
    // Rules that are loaded anew have empty sets. An answer out of the cache fills them again, by each way.
    for way in [Way::Xdp, Way::Udp, Way::Tcp] {
        nft(&scene, "flush set inet fw4 vpn4")?;
        let message = wire(&query("www.vpn.test.", RecordType::A));
        wait_until(&format!("filled by {way:?}"), TIMEOUT, || {
            let asked = ways.ask(way, Family::V4, &message);
            asked.is_ok() && has(&scene, "inet fw4 vpn4", "198.51.100.1")
        })?;
    }
    let metrics = scene.daemon.metrics()?;
    ensure!(
        metrics.get(&InSets("added")) >= Some(5),
        "{}",
        metrics.text()
    );
    ensure!(metrics.get(&InSets("failures")) == Some(0));
    Ok(())
}

/// The log says once what is wrong with a set, and when it is over; the other sets are filled meanwhile.
#[test]
fn a_missing_set_is_told_once_and_a_reload_takes_others() -> Result<()> {
    only!(ONCE, "the log, and what nft shows");
    not_in_guests!("nft is not there");
    let missing =
        "[[nftset]]\nnames = [\"vpn.test\"]\nsets = [\"inet#fw4#later\", \"inet#fw4#vpn4\"]\n";
    let scene = scene!(Setup::default().sections(missing));
    prepare(&scene)?;
    scene
        .upstream
        .on("*.vpn.test.", Rule::addresses(300, &["198.51.100.1"]));
    let client = scene.udp_client(Family::V4)?;
    let ask = |name: &str| client.exchange(&wire(&query(name, RecordType::A)));
    ask("a.vpn.test.")?;
    wait_for(&scene, "inet fw4 vpn4", "198.51.100.1")?;
    let fault = "nftset: inet#fw4#later: there is no such set";
    scene.daemon.wait_log_count(fault, 1)?;
    let failures = InSets("failures");
    wait_until("tried again", TIMEOUT, || {
        let metrics = scene.daemon.metrics();
        ask("a.vpn.test.").is_ok() && metrics.is_ok_and(|now| now.get(&failures) >= Some(2))
    })?;
    nft(&scene, "add set inet fw4 later { type ipv4_addr; }")?;
    wait_until("filled later", TIMEOUT, || {
        ask("a.vpn.test.").is_ok() && has(&scene, "inet fw4 later", "198.51.100.1")
    })?;
    let over = "nftset: inet#fw4#later: addresses are added again";
    scene.daemon.wait_log_count(over, 1)?;
    ensure!(scene.daemon.log().matches(fault).count() == 1);

    let path = scene.directory.path().join("config.toml");
    let config = fs::read_to_string(&path)?;
    fs::write(&path, config.replace("inet#fw4#vpn4", "ip#t#ranges"))?;
    let said = scene.daemon.control("reload")?;
    ensure!(said.contains("nftset.sets"), "{said}");
    // Without a pause, as the sets are others.
    ask("a.vpn.test.")?;
    wait_for(&scene, "ip t ranges", "198.51.100.1")
}

/// The server has no right to change tables; sets that come by a reload are not its keeper's.
#[test]
fn a_keeper_fills_the_sets_of_the_start() -> Result<()> {
    only!(ONCE, "the log, and what nft shows");
    not_in_guests!("nft is not there");
    if cfg!(feature = "afxdp") {
        return Ok(());
    }
    let late = "[[nftset]]\nnames = [\"late.test\"]\nsets = [\"inet#fw4#later\"]\n";
    let sections = format!("{SECTIONS}{late}[security]\nkeeper = true\n");
    let scene = scene!(Setup::default().sections(&sections));
    prepare(&scene)?;
    let late = Rule::addresses(300, &["198.51.100.4"]);
    scene.upstream.on("late.test.", late);
    let client = scene.udp_client(Family::V4)?;
    let ask = |name: &str, rtype| client.exchange(&wire(&query(name, rtype)));
    ask("www.vpn.test.", RecordType::A)?;
    ask("www.vpn.test.", RecordType::AAAA)?;
    ask("timed.test.", RecordType::A)?;
    for (set, element) in FILLED {
        wait_for(&scene, set, element)?;
    }
    ask("late.test.", RecordType::A)?;
    let fault = "nftset: inet#fw4#later: there is no such set";
    scene.daemon.wait_log_count(fault, 1)?;

    let path = scene.directory.path().join("config.toml");
    let config = fs::read_to_string(&path)?;
    fs::write(&path, config.replace("inet#fw4#vpn4", "inet#fw4#other"))?;
    scene.daemon.control("reload")?;
    nft(&scene, "add set inet fw4 other { type ipv4_addr; }")?;
    ask("www.vpn.test.", RecordType::A)?;
    let fault = "nftset: inet#fw4#other: it was not in the config at the start";
    scene.daemon.wait_log_count(fault, 1)
}
