//! Limits per client: excess queries are sent to TCP or dropped, hits go on while misses do not, and clients with a cookie are
//! exempt.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use nix::time::{ClockId, clock_gettime};
use xdnsd_abi::Reason;
use xdnsd_core::counters::Counter;
use xdnsd_lab::lab::{LAN, LAN_V4, LAN_V6};
use xdnsd_lab::wait::wait_until;

use crate::support::TIMEOUT;
use crate::support::ask::{Ask, OptRecord, flag, option, rtype};
use crate::support::client::{DNS_PORT, Family, UdpClient, client_address};
use crate::support::message::txt;
use crate::support::metrics::{Metric, Metrics};
use crate::support::run::only;
use crate::support::scene::{Scene, Setup, scene};
use crate::support::script::Rule;
use crate::support::view::View;

/// A miss and five queries per second, and the amount of four seconds at once.
const SECTION: &str = "[rate_limit]\nmisses = 1\nqueries = 5\nburst_secs = 4\nslips = 2\n";
const BURST_SECS: usize = 4;
const MISSES: usize = 1;
const QUERIES: usize = 5;
/// Number of queries sent at once, of which the limits allow a few.
const FLOOD: usize = 60;

fn setup(section: &str) -> Setup {
    // Neighbours and others differ, without being refused.
    Setup::three_ways().sections(&format!("{section}[access]\nothers = \"allow\"\n"))
}

/// Each name has an answer, and hosts behind a router ask from behind the client.
fn prepare(scene: &Scene) -> Result<()> {
    scene
        .upstream
        .on("*.test.", Rule::addresses(300, &["192.0.2.1"]));
    scene.lab.client.ip("address add 10.53.0.77/24 dev eth0
         address add fd53::77/64 dev eth0 nodad
         address add 198.51.100.7/32 dev eth0
         address add 198.51.100.77/32 dev eth0
         address add 2001:db8:0:7700::7/128 dev eth0 nodad
         address add 2001:db8:0:77ff::7/128 dev eth0 nodad\n")?;
    scene.lab.router.ip(&format!(
        "route add 198.51.100.0/24 via 10.53.0.2 dev {LAN}
         route add 2001:db8:0:7700::/56 via fd53::2 dev {LAN}\n"
    ))
}

fn client_at(scene: &Scene, local: &str) -> Result<UdpClient> {
    let local: IpAddr = local.parse()?;
    let server: IpAddr = match local {
        IpAddr::V4(_) => LAN_V4.into(),
        IpAddr::V6(_) => LAN_V6.into(),
    };
    UdpClient::open_from(&scene.lab, local, SocketAddr::new(server, DNS_PORT))
}

/// Fates of a flood.
#[derive(Debug, Default)]
struct Fates {
    answered: usize,
    slipped: usize,
    dropped: u64,
}

fn dropped_since(before: &Metrics, scene: &Scene) -> Result<u64> {
    let now = scene.daemon.metrics()?;
    let counters: [&dyn Metric; 3] = [
        &Counter::RateQueriesDropped,
        &Counter::RateMissesDropped,
        &Reason::DropRate,
    ];
    let grown = counters.iter().map(|counter| now.growth(before, *counter));
    Ok(grown.sum())
}

/// Sends all at once and waits until each is answered, or counted as dropped.
fn flood(scene: &Scene, client: &UdpClient, messages: &[Vec<u8>]) -> Result<Fates> {
    let before = scene.daemon.metrics()?;
    for message in messages {
        client.send(message)?;
    }
    let mut fates = Fates::default();
    let deadline = Instant::now() + TIMEOUT;
    loop {
        while let Some(answer) = client.try_receive() {
            let view = View::parse(&answer)?;
            if view.has(flag::TC) {
                ensure!(view.answers().is_empty(), "{view:?}");
                fates.slipped += 1;
            } else {
                ensure!(!view.answers().is_empty(), "{view:?}");
                fates.answered += 1;
            }
        }
        fates.dropped = dropped_since(&before, scene)?;
        let known = fates.answered + fates.slipped + fates.dropped as usize;
        if known == messages.len() {
            return Ok(fates);
        }
        ensure!(Instant::now() < deadline, "{fates:?} of {}", messages.len());
    }
}

/// Number of queries allowed to a client that was first seen at `since`: neither fewer nor more, however slow the machine is.
fn allowed(each_second: usize, since: Instant) -> RangeInclusive<usize> {
    let burst = each_second * BURST_SECS;
    let later = each_second as f64 * since.elapsed().as_secs_f64();
    burst..=burst + later.ceil() as usize
}

/// Waits until the coarse clock of the XDP program, which goes by the kernel's ticks, has reached the current time.
fn wait_for_tick() -> Result<()> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    wait_until("the kernel ticks", TIMEOUT, || {
        clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).is_ok_and(|coarse| coarse >= now)
    })
}

fn misses(prefix: &str) -> Vec<Vec<u8>> {
    let name = |at| format!("{prefix}{at}.test.");
    (0..FLOOD)
        .map(|at| Ask::of(&name(at), rtype::A).bytes())
        .collect()
}

fn hits(count: usize) -> Vec<Vec<u8>> {
    (0..count)
        .map(|_| Ask::of("www.test.", rtype::A).bytes())
        .collect()
}

/// Fills the cache, by a client of its own.
fn warm(scene: &Scene) -> Result<()> {
    let client = client_at(scene, "10.53.0.77")?;
    client.exchange(&hits(1)[0]).map(drop)
}

#[test]
fn misses_are_limited_first_and_hits_later() -> Result<()> {
    only!(IN_DATAGRAMS, "limits are for datagrams");
    let section = "[rate_limit]\nmisses = 1\nburst_secs = 4\nslips = 2\n";
    let scene = scene!(setup(section));
    prepare(&scene)?;
    warm(&scene)?;
    for family in Family::ALL {
        let client = client_at(&scene, &client_address(family).to_string())?;
        let since = Instant::now();
        let fates = flood(&scene, &client, &misses(&format!("a{family:?}")))?;
        let allowed = allowed(MISSES, since);
        let is_right = allowed.contains(&fates.answered) && fates.slipped > 0;
        assert!(is_right, "{family:?} {fates:?} {allowed:?}");
        let fates = flood(&scene, &client, &hits(FLOOD))?;
        assert_eq!(fates.answered, FLOOD, "{fates:?}");
    }
    Ok(())
}

/// 700 bytes count as two queries: who forges an address gets no more bytes for long answers.
#[test]
fn long_answers_from_the_cache_count_as_several_queries() -> Result<()> {
    only!(IN_DATAGRAMS, "limits are for datagrams");
    let scene = scene!(setup(SECTION));
    prepare(&scene)?;
    let texts: Vec<_> = (0..3).map(|number| txt(number, 220)).collect();
    scene.upstream.on("long.test.", Rule::answer(300, &texts));
    let long = Ask::of("long.test.", rtype::TXT).edns(&OptRecord::size(1232));
    client_at(&scene, "10.53.0.77")?.exchange(&long.bytes())?;
    for family in Family::ALL {
        let client = client_at(&scene, &client_address(family).to_string())?;
        let since = Instant::now();
        let fates = flood(&scene, &client, &vec![long.bytes(); FLOOD])?;
        let allowed = allowed(QUERIES, since);
        let paid = 2 * fates.answered;
        // The last one may be given on half of its price.
        let is_right = allowed.contains(&paid) || paid == allowed.end() + 1;
        assert!(
            is_right && fates.slipped > 0,
            "{family:?} {fates:?} {allowed:?}"
        );
    }
    Ok(())
}

#[test]
fn queries_are_limited_and_a_valid_cookie_is_exempt() -> Result<()> {
    only!(IN_DATAGRAMS, "limits are for datagrams");
    let scene = scene!(setup(SECTION));
    prepare(&scene)?;
    warm(&scene)?;
    for family in Family::ALL {
        let client = client_at(&scene, &client_address(family).to_string())?;
        let with_cookie = |cookie: &[u8]| {
            let opt = OptRecord::size(1232)
                .option(option::NSID, &[])
                .option(option::COOKIE, cookie);
            Ask::of("www.test.", rtype::A).edns(&opt).bytes()
        };
        let since = Instant::now();
        let first = View::parse(&client.exchange(&with_cookie(b"clients!"))?)?;
        let cookie = first
            .opt
            .and_then(|opt| opt.option(option::COOKIE).map(<[u8]>::to_vec))
            .context("a cookie")?;
        wait_for_tick()?;
        let fates = flood(&scene, &client, &hits(FLOOD))?;
        let allowed = allowed(QUERIES, since);
        // Including the first one.
        let is_right = allowed.contains(&(fates.answered + 1)) && fates.slipped > 0;
        assert!(is_right, "{family:?} {fates:?} {allowed:?}");
        let good: Vec<_> = (0..FLOOD).map(|_| with_cookie(&cookie)).collect();
        let fates = flood(&scene, &client, &good)?;
        assert_eq!(fates.answered, FLOOD, "{family:?} {fates:?}");
        // Neither a forged one nor one of another address.
        let mut forged = cookie.clone();
        forged[23] ^= 1;
        let bad: Vec<_> = (0..FLOOD).map(|_| with_cookie(&forged)).collect();
        let fates = flood(&scene, &client, &bad)?;
        assert!(fates.answered < FLOOD, "{family:?} {fates:?}");
    }
    Ok(())
}

#[test]
fn a_neighbour_counts_for_itself_and_others_for_their_prefix() -> Result<()> {
    only!(IN_DATAGRAMS, "limits are for datagrams");
    let scene = scene!(setup(SECTION));
    prepare(&scene)?;
    warm(&scene)?;
    for (one, other, is_one_client) in [
        ("10.53.0.2", "10.53.0.77", false),
        ("fd53::2", "fd53::77", false),
        ("198.51.100.7", "198.51.100.77", true),
        ("2001:db8:0:7700::7", "2001:db8:0:77ff::7", true),
    ] {
        let (first, second) = (client_at(&scene, one)?, client_at(&scene, other)?);
        flood(&scene, &first, &hits(FLOOD))?;
        // What a neighbour may send at once, and more than a slow machine replenishes.
        let count = if is_one_client { FLOOD } else { 15 };
        let fates = flood(&scene, &second, &hits(count))?;
        let is_limited = fates.answered < count;
        assert_eq!(is_limited, is_one_client, "{one} {other} {fates:?}");
    }
    Ok(())
}

/// A stub comes back over TCP.
#[test]
fn dig_falls_back_to_tcp() -> Result<()> {
    only!(IN_DATAGRAMS, "limits are for datagrams");
    // One query each second is earned back: an emulated processor takes most of it to start dig.
    let section = SECTION.replace("queries = 5", "queries = 1");
    let section = section.replace("slips = 2", "slips = 1000");
    let scene = scene!(setup(&section));
    prepare(&scene)?;
    warm(&scene)?;
    for family in Family::ALL {
        let local = client_address(family).to_string();
        let client = client_at(&scene, &local)?;
        let server: IpAddr = match family {
            Family::V4 => LAN_V4.into(),
            Family::V6 => LAN_V6.into(),
        };
        let at = format!("@{server}");
        let arguments = ["dig", "-b", &local, &at, "+tries=1", "www.test.", "A"];
        // Where dig has taken longer, it is tried again.
        let start = Instant::now();
        let (before, printed) = loop {
            flood(&scene, &client, &hits(FLOOD))?;
            let before = scene.daemon.metrics()?;
            let printed = scene.lab.client.output(&arguments)?;
            if printed.contains("retrying in TCP mode") || start.elapsed() > TIMEOUT {
                break (before, printed);
            }
        };
        ensure!(printed.contains("retrying in TCP mode"), "{printed}");
        ensure!(printed.contains("192.0.2.1"), "{printed}");
        scene
            .daemon
            .wait_growth(&before, &[(&Counter::QueriesTcp, 1)])?;
    }
    Ok(())
}

/// In the driver, which does not report lost answers, and after it, where all of them leave.
#[test]
fn the_xdp_program_keeps_out_who_has_had_too_much() -> Result<()> {
    only!(ONCE, "the XDP program keeps them out by itself");
    for (mode, slips) in [("native", false), ("generic", true)] {
        let scene = scene!(setup(SECTION).xdp(mode));
        prepare(&scene)?;
        warm(&scene)?;
        for family in Family::ALL {
            let client = client_at(&scene, &client_address(family).to_string())?;
            let with_cookie = |cookie: &[u8]| {
                let opt = OptRecord::size(1232).option(option::COOKIE, cookie);
                Ask::of("www.test.", rtype::A).edns(&opt).bytes()
            };
            let first = View::parse(&client.exchange(&with_cookie(b"clients!"))?)?;
            let opt = first.opt.context("EDNS")?;
            let cookie = opt.option(option::COOKIE).context("a cookie")?.to_vec();
            let before = scene.daemon.metrics()?;
            let grown = |reason: Reason| {
                let now = scene.daemon.metrics();
                now.map(|now| now.growth(&before, &reason))
            };
            // It begins within a second, and from then on user space sees none of them.
            wait_until("the program keeps them out", TIMEOUT, || {
                flood(&scene, &client, &hits(FLOOD)).is_ok()
                    && grown(Reason::DropRate).is_ok_and(|dropped| dropped > 40)
                    && (!slips || grown(Reason::RateSlipped).is_ok_and(|slipped| slipped > 0))
            })?;
            if !slips {
                assert_eq!(grown(Reason::RateSlipped)?, 0, "{mode}");
            }
            let good: Vec<_> = (0..FLOOD).map(|_| with_cookie(&cookie)).collect();
            let fates = flood(&scene, &client, &good)?;
            assert_eq!(fates.answered, FLOOD, "{mode} {family:?} {fates:?}");
            let other = client_at(
                &scene,
                &client_address(family)
                    .to_string()
                    .replace("::2", "::77")
                    .replace(".0.2", ".0.77"),
            )?;
            let fates = flood(&scene, &other, &hits(15))?;
            assert_eq!(fates.answered, 15, "{mode} {family:?} {fates:?}");
        }
        let status = scene.daemon.control("shield status")?;
        ensure!(!status.contains("drop_rate 0\n"), "{status}");
        ensure!(status.contains("limits per client, by workers"), "{status}");
    }
    Ok(())
}

#[test]
fn limits_come_and_go_by_a_reload() -> Result<()> {
    only!(IN_DATAGRAMS, "limits are for datagrams");
    let scene = scene!(setup(""));
    prepare(&scene)?;
    warm(&scene)?;
    let client = client_at(&scene, "10.53.0.2")?;
    for (turn, section) in ["", SECTION, ""].into_iter().enumerate() {
        if turn > 0 {
            let path = scene.directory.path();
            fs::write(path.join("config.toml"), setup(section).config(path))?;
            let told = scene.daemon.control("reload")?;
            ensure!(told.contains("rate_limit.queries"), "{told}");
        }
        let fates = flood(&scene, &client, &hits(FLOOD))?;
        let is_limited = fates.answered < FLOOD;
        assert_eq!(is_limited, !section.is_empty(), "{turn}: {fates:?}");
    }
    Ok(())
}
