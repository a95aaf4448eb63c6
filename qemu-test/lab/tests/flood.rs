//! Floods are as specified, and their frames are valid: the kernel at the other end is the judge.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result};
use xdnsd_lab::flood::{self, Bounds, Flood, Kind, Order, Path, Report, SOURCES_V4, SOURCES_V6};
use xdnsd_lab::lab::{HOST_INTERFACE, LAN, LAN_V4, LAN_V6, Lab, Spec};
use xdnsd_lab::privilege::root_or_skip;

/// Frames of a flood: they fit the receive buffer of a socket, where each counts as a page.
const COUNT: u32 = 32;
const TIMEOUT: Duration = Duration::from_secs(5);
const BOTH: [(IpAddr, IpAddr); 2] = [
    (IpAddr::V4(LAN_V4), SOURCES_V4),
    (IpAddr::V6(LAN_V6), SOURCES_V6),
];

fn flood(lab: &Lab, kind: Kind, ends: (IpAddr, IpAddr)) -> Result<Report> {
    flood_of(lab, kind, ends, COUNT, None)
}

fn flood_of(
    lab: &Lab,
    kind: Kind,
    (to, from): (IpAddr, IpAddr),
    count: u32,
    rate: Option<u32>,
) -> Result<Report> {
    let path = Path {
        from: (&lab.client, HOST_INTERFACE),
        to: (&lab.router, LAN),
    };
    let order = Order {
        kind,
        from,
        to,
        port: 53,
        qname: "www.lab.test".to_owned(),
        rate,
    };
    let bounds = Bounds {
        count,
        length: TIMEOUT,
        core: None,
    };
    Flood::new(path, &order)?.run(bounds, || false)
}

#[test]
fn segments_reach_the_stack_with_right_checksums() -> Result<()> {
    if !root_or_skip("segments_reach_the_stack_with_right_checksums") {
        return Ok(());
    }
    let lab = Lab::up(&Spec::default())?;
    for kind in [Kind::Syn, Kind::Ack, Kind::Rst] {
        for ends in BOTH {
            let tcp = |name| lab.router.snmp("Tcp", name);
            let before = [tcp("InSegs")?, tcp("InErrs")?, tcp("InCsumErrors")?];
            let report = flood(&lab, kind, ends)?;
            let after = [tcp("InSegs")?, tcp("InErrs")?, tcp("InCsumErrors")?];
            // The client's kernel may have sent a neighbour solicitation meanwhile.
            let is_whole = (COUNT.into()..COUNT as u64 + 5).contains(&report.arrived);
            assert!(is_whole && report.lost == 0, "{kind:?}: {report:?}");
            let news = [0, 1, 2].map(|at| after[at] - before[at]);
            assert_eq!(news, [COUNT.into(), 0, 0], "{kind:?} to {}", ends.0);
        }
    }
    Ok(())
}

#[test]
fn a_flood_of_syns_fills_the_queue_of_a_listener() -> Result<()> {
    if !root_or_skip("a_flood_of_syns_fills_the_queue_of_a_listener") {
        return Ok(());
    }
    let lab = Lab::up(&Spec::default())?;
    for ends in BOTH {
        let address = SocketAddr::new(ends.0, 53);
        let _listener = lab.router.run(|| std::net::TcpListener::bind(address))?;
        let family = if ends.0.is_ipv4() { "-4" } else { "-6" };
        let ss = ["ss", family, "-Htn", "state", "syn-recv"];
        let half_open = || lab.router.output(&ss);
        assert_eq!(half_open()?, "");
        flood::learn_routes(&lab.router)?;
        flood(&lab, Kind::Syn, ends)?;
        let seen = half_open()?.lines().count();
        assert!(seen > COUNT as usize / 2, "{seen} of {COUNT}");
    }
    Ok(())
}

#[test]
fn datagrams_are_what_their_kind_says_from_many_sources() -> Result<()> {
    const ID: std::ops::Range<usize> = 0..2;
    /// Letters of a name that do not depend on the source port, behind the ID.
    const LETTERS: std::ops::Range<usize> = 14..22;
    if !root_or_skip("datagrams_are_what_their_kind_says_from_many_sources") {
        return Ok(());
    }
    let lab = Lab::up(&Spec::default())?;
    for ends in BOTH {
        let socket = lab.router.run(|| UdpSocket::bind((ends.0, 53)))?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        for kind in [Kind::Query, Kind::Names, Kind::Response, Kind::Garbage] {
            let report = flood(&lab, kind, ends)?;
            let (mut sources, mut ids, mut rest) = (HashSet::new(), HashSet::new(), HashSet::new());
            for at in 0..COUNT {
                let mut buffer = [0; 128];
                let (len, from) = socket.recv_from(&mut buffer).with_context(|| {
                    format!("{kind:?} to {}: datagram {at}, {report:?}", ends.0)
                })?;
                sources.insert(from);
                ids.insert(buffer[ID].to_vec());
                rest.insert(buffer[ID.end..len].to_vec());
            }
            // Of 65,536 values, so two may be equal.
            let many = COUNT as usize - 5;
            assert!(sources.len() >= many && ids.len() >= many, "{kind:?}");
            let question = b"\x03www\x03lab\x04test\0\0\x01\0\x01";
            let message = |flags: &[u8]| [flags, &[0, 1, 0, 0, 0, 0, 0, 0], question].concat();
            let same = |message: Vec<u8>| assert_eq!(rest, HashSet::from([message]), "{kind:?}");
            match kind {
                Kind::Query => same(message(&[1, 0])),
                Kind::Response => same(message(&[0x81, 0x80])),
                Kind::Garbage => same(Vec::new()),
                Kind::Names | Kind::Syn | Kind::Ack | Kind::Rst => {
                    assert!(rest.len() >= many);
                    assert!(rest.iter().all(|one| one.ends_with(question)));
                    let letters: HashSet<_> = rest.iter().map(|one| &one[LETTERS]).collect();
                    assert_eq!(letters.len(), COUNT as usize, "of 2^32 names");
                }
            }
        }
    }
    Ok(())
}

/// A slow machine makes fewer frames, but never more.
#[test]
fn a_flood_with_a_rate_keeps_it() -> Result<()> {
    const RATE: u32 = 2_000;
    const FRAMES: u32 = 800;
    if !root_or_skip("a_flood_with_a_rate_keeps_it") {
        return Ok(());
    }
    let lab = Lab::up(&Spec::default())?;
    for ends in BOTH {
        let report = flood_of(&lab, Kind::Garbage, ends, FRAMES, Some(RATE))?;
        let most = report.took.as_secs_f64() * f64::from(RATE) + 10.0;
        let is_kept = (20..=most as u64).contains(&report.arrived);
        assert!(is_kept, "{report:?}: {most} at most");
    }
    Ok(())
}
