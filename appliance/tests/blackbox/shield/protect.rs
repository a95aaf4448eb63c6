//! Hosts behind the router: who has not shown that it is where it says opens no connection to them, on an interface that is served
//! and on one that is not.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use anyhow::Result;
use xdnsd_abi::Reason;
use xdnsd_lab::lab::{CLIENT_V4, CLIENT_V6, LAN, UPSTREAM_V4, UPSTREAM_V6, WAN};
use xdnsd_lab::netns::Namespace;
use xdnsd_lab::wait::wait_until;

use super::{syn, with_program};
use crate::support::TIMEOUT;
use crate::support::run::only;
use crate::support::scene::{Setup, scene};
use crate::support::stream::{Next, Stream};

const PORT: u16 = 8080;
const OTHER_PORT: u16 = 8081;
const GREETING: &[u8] = b"hello";

fn setup(interface: &str, hosts: [IpAddr; 2]) -> Setup {
    let [one, other] = hosts;
    let section = format!(
        "[[protect]]\ninterface = \"{interface}\"\naddresses = [\"{one}\", \"{other}\"]\nports = [{PORT}]\n"
    );
    Setup::default().sections(&section)
}

/// Answers each who asks, on both ports.
fn serve(host: &Namespace) -> Result<()> {
    for port in [PORT, OTHER_PORT] {
        let listener = host.run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)))?;
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut bytes = [0; 2];
                if stream.read_exact(&mut bytes).is_ok() {
                    let _ = stream.write_all(&[&[0, 5][..], GREETING].concat());
                }
            }
        });
    }
    Ok(())
}

/// Whether somebody answers.
fn greet(client: &Namespace, local: IpAddr, server: SocketAddr) -> Result<bool> {
    let mut stream = Stream::open_in(client, local, server, TIMEOUT)?;
    let _ = stream.write(b"hi");
    match stream.next(TIMEOUT)? {
        Next::Message(message) => {
            assert_eq!(message, GREETING);
            Ok(true)
        }
        Next::Closed => Ok(false),
        Next::Nothing => anyhow::bail!("neither an answer nor a reset"),
    }
}

/// The first connection is reset, and the next ones are answered; other ports are nobody's business.
fn comes_again(client: &Namespace, local: IpAddr, host: IpAddr) -> Result<()> {
    assert!(greet(client, local, SocketAddr::new(host, OTHER_PORT))?);
    let server = SocketAddr::new(host, PORT);
    // The program may not know yet whom it protects.
    wait_until("the first connection is reset", TIMEOUT, || {
        !greet(client, local, server).unwrap_or(false)
    })?;
    for _ in 0..3 {
        assert!(
            greet(client, local, server)?,
            "a client that has come again"
        );
    }
    Ok(())
}

#[test]
fn a_client_of_a_served_interface_comes_again_and_a_flood_does_not_reach_the_host() -> Result<()> {
    only!(ONCE, "the shield in front of all ways");
    const FORGED: u32 = 5_000;
    let hosts = [IpAddr::from(UPSTREAM_V4), IpAddr::from(UPSTREAM_V6)];
    let scene = scene!(setup(LAN, hosts));
    let _program = with_program(&scene.lab.client)?;
    serve(&scene.lab.upstream)?;
    let before = scene.daemon.metrics()?;
    for (local, host) in [CLIENT_V4.into(), CLIENT_V6.into()].into_iter().zip(hosts) {
        comes_again(&scene.lab.client, local, host)?;
    }
    scene.daemon.wait_growth(
        &before,
        &[(&Reason::ForwardProof, 2), (&Reason::ForwardVerified, 6)],
    )?;
    let client = scene.raw_client()?;
    let (before, segments) = (
        scene.daemon.metrics()?,
        scene.lab.upstream.snmp("Tcp", "InSegs")?,
    );
    for number in 0..FORGED {
        let [_, _, c, d] = number.to_be_bytes();
        let source: IpAddr = match number % 2 {
            0 => Ipv4Addr::new(100, 64, c, d).into(),
            _ => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from_be_bytes([c, d])).into(),
        };
        let host = hosts[number as usize % 2];
        let frame = syn(
            &client,
            SocketAddr::new(source, 40_000),
            SocketAddr::new(host, PORT),
        )?;
        client.send(&frame)?;
        if number == FORGED / 2 {
            assert!(greet(
                &scene.lab.client,
                CLIENT_V4.into(),
                SocketAddr::new(hosts[0], PORT)
            )?);
        }
    }
    scene
        .daemon
        .wait_growth(&before, &[(&Reason::ForwardCookie, u64::from(FORGED))])?;
    let segments = scene.lab.upstream.snmp("Tcp", "InSegs")? - segments;
    assert!(segments < 100, "{segments} segments came to the host");
    Ok(())
}

#[test]
fn an_interface_that_is_not_served_has_the_shield_alone() -> Result<()> {
    only!(ONCE, "the shield in front of all ways");
    let hosts = [IpAddr::from(CLIENT_V4), IpAddr::from(CLIENT_V6)];
    let scene = scene!(setup(WAN, hosts));
    let _program = with_program(&scene.lab.upstream)?;
    serve(&scene.lab.client)?;
    for (local, host) in [UPSTREAM_V4.into(), UPSTREAM_V6.into()]
        .into_iter()
        .zip(hosts)
    {
        comes_again(&scene.lab.upstream, local, host)?;
    }
    let log = scene.daemon.log();
    assert!(
        log.contains(&format!("{WAN}: XDP program attached")),
        "{log}"
    );
    assert!(
        !log.contains(&format!("{WAN} queue")),
        "no socket there: {log}"
    );
    Ok(())
}

/// Without a program at its other end a veth pair loses what XDP sends: better no shield than no connection.
#[test]
fn where_answers_go_nowhere_all_passes() -> Result<()> {
    only!(ONCE, "the shield in front of all ways");
    let hosts = [IpAddr::from(UPSTREAM_V4), IpAddr::from(UPSTREAM_V6)];
    let scene = scene!(setup(LAN, hosts));
    serve(&scene.lab.upstream)?;
    for (local, host) in [CLIENT_V4.into(), CLIENT_V6.into()].into_iter().zip(hosts) {
        // The client asks again after a second, and by then it was noticed.
        assert!(greet(
            &scene.lab.client,
            local,
            SocketAddr::new(host, PORT)
        )?);
    }
    Ok(())
}
