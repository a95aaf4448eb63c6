//! The appliance takes only packets addressed to it: all others cross the router as without it.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::Result;
use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;
use xdnsd_abi::Reason;
use xdnsd_core::counters::Counter;
use xdnsd_lab::lab::{LAN_V4, LAN_V6, UPSTREAM_V4, UPSTREAM_V6, WAN_V4, WAN_V6};

use crate::support::ANSWER_TIMEOUT;
use crate::support::client::{Fate, UdpClient};
use crate::support::message::{addresses, query, wire};
use crate::support::run::only;
use crate::support::scene::{Setup, scene};
use crate::support::script::Rule;

#[test]
fn dns_to_other_addresses_passes_through() -> Result<()> {
    only!(ONCE, "what the XDP program lets pass");
    let scene = scene!(Setup::default());
    scene
        .upstream
        .on("www.test.", Rule::addresses(300, &["192.0.2.1"]));
    for server in [IpAddr::from(UPSTREAM_V4), UPSTREAM_V6.into()] {
        let before = scene.daemon.metrics()?;
        let client = UdpClient::open_to(&scene.lab, SocketAddr::new(server, 53))?;
        let query = query("wWw.test.", RecordType::A);
        let answer = client.ask(&query)?;
        assert_eq!(addresses(&answer), ["192.0.2.1"]);
        // It came from the client itself, unchanged.
        let asked = scene.upstream.asked("www.test.");
        let last = asked.last().expect("it was asked");
        assert_eq!((last.server, last.from), (server, client.address()?));
        assert_eq!(wire(&last.query), wire(&query));
        scene.daemon.wait_growth(
            &before,
            &[
                (&Reason::PassForeign, 1),
                (&Reason::Redirected, 0),
                (&Counter::QueriesXdp, 0),
                (&Counter::QueriesUdp, 0),
                (&Counter::UpstreamQueries, 0),
            ],
        )?;
    }
    Ok(())
}

#[test]
fn dns_over_tcp_to_other_addresses_passes_through() -> Result<()> {
    only!(ONCE, "what the XDP program lets pass");
    let scene = scene!(Setup::default());
    scene
        .upstream
        .on("www.test.", Rule::addresses(300, &["192.0.2.1"]));
    for server in [IpAddr::from(UPSTREAM_V4), UPSTREAM_V6.into()] {
        let connect = || TcpStream::connect((server, 53));
        let mut stream = scene.lab.client.run(connect)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        let bytes = wire(&query("www.test.", RecordType::A));
        stream.write_all(&u16::try_from(bytes.len())?.to_be_bytes())?;
        stream.write_all(&bytes)?;
        let mut len = [0; 2];
        stream.read_exact(&mut len)?;
        let mut answer = vec![0; usize::from(u16::from_be_bytes(len))];
        stream.read_exact(&mut answer)?;
        assert_eq!(addresses(&Message::from_vec(&answer)?), ["192.0.2.1"]);
        let asked = scene.upstream.asked("www.test.");
        assert!(asked.last().is_some_and(|asked| asked.is_tcp));
    }
    Ok(())
}

#[test]
fn ports_and_addresses_that_are_not_configured_are_refused_by_the_kernel() -> Result<()> {
    only!(ONCE, "what the XDP program lets pass");
    let scene = scene!(Setup::default());
    for (server, port) in [
        (IpAddr::from(LAN_V4), 54),
        (LAN_V6.into(), 54),
        (WAN_V4.into(), 53),
        (WAN_V6.into(), 53),
    ] {
        let before = scene.daemon.metrics()?;
        let client = UdpClient::open_to(&scene.lab, SocketAddr::new(server, port))?;
        let fate = client.try_ask(
            &wire(&query("www.test.", RecordType::A)),
            Duration::from_secs(2),
        );
        assert_eq!(fate, Fate::Refused, "{server} port {port}");
        scene.daemon.wait_growth(
            &before,
            &[
                (&Reason::PassForeign, 1),
                (&Counter::QueriesXdp, 0),
                (&Counter::QueriesUdp, 0),
            ],
        )?;
    }
    Ok(())
}

#[test]
fn other_services_of_the_router_are_reached_as_before() -> Result<()> {
    only!(ONCE, "what the XDP program lets pass");
    let scene = scene!(Setup::default());
    for address in [IpAddr::from(LAN_V4), LAN_V6.into()] {
        let listener = scene.lab.router.run(|| TcpListener::bind((address, 0)))?;
        let server = listener.local_addr()?;
        let mut client = scene.lab.client.run(|| TcpStream::connect(server))?;
        let (mut accepted, _) = listener.accept()?;
        client.write_all(b"there")?;
        let mut buffer = [0; 5];
        accepted.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        accepted.read_exact(&mut buffer)?;
        assert_eq!(&buffer, b"there");
    }
    Ok(())
}
