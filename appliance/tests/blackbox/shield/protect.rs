//! Protected hosts behind the router: a client that has not proved its address opens no connection to them, on an interface
//! that is served and on one that is not.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::time::Duration;

use anyhow::Result;
use xdnsd_abi::Reason;
use xdnsd_lab::lab::{CLIENT_V4, CLIENT_V6, LAN, UPSTREAM_V4, UPSTREAM_V6, WAN};
use xdnsd_lab::netns::Namespace;
use xdnsd_lab::wait::wait_until;

use super::{syn, with_program, with_program_on};
use crate::support::TIMEOUT;
use crate::support::daemon::run;
use crate::support::metrics::Metric;
use crate::support::run::{not_in_guests, only};
use crate::support::scene::{Setup, scene};
use crate::support::stream::{Next, Stream};

pub const PORT: u16 = 8080;
const OTHER_PORT: u16 = 8081;
const GREETING: &[u8] = b"hello";
/// Time for a flood to be detected, and over: some looks of a second each, on a machine that may be slow.
const PATIENCE: Duration = Duration::from_secs(30);

fn setup(interface: &str, hosts: [IpAddr; 2]) -> Setup {
    let [one, other] = hosts;
    let section = format!(
        "[[protect]]\ninterface = \"{interface}\"\naddresses = [\"{one}\", \"{other}\"]\nports = [{PORT}]\n"
    );
    Setup::default().sections(&section)
}

/// Answers each client, on both ports.
pub fn serve(host: &Namespace) -> Result<()> {
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

/// True if the server answers.
pub fn greet(client: &Namespace, local: IpAddr, server: SocketAddr) -> Result<bool> {
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

/// Each host answers the client at once, over its family.
pub fn greets_both(client: &Namespace, hosts: [IpAddr; 2]) -> Result<()> {
    for (local, host) in [CLIENT_V4.into(), CLIENT_V6.into()].into_iter().zip(hosts) {
        assert!(greet(client, local, SocketAddr::new(host, PORT))?);
    }
    Ok(())
}

/// The first connection is reset, and the next ones are answered; other ports are not protected.
pub fn comes_again(client: &Namespace, local: IpAddr, host: IpAddr) -> Result<()> {
    assert!(greet(client, local, SocketAddr::new(host, OTHER_PORT))?);
    let server = SocketAddr::new(host, PORT);
    // The program may not know the protected hosts yet.
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
    scene.daemon.wait_log_count("answers leave again", 1)?;
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
    scene.daemon.wait_log_count("answers leave again", 1)?;
    serve(&scene.lab.client)?;
    for (local, host) in [UPSTREAM_V4.into(), UPSTREAM_V6.into()]
        .into_iter()
        .zip(hosts)
    {
        comes_again(&scene.lab.upstream, local, host)?;
    }
    let status = scene.daemon.control("shield status")?;
    for host in [format!("{CLIENT_V4}/32"), format!("{CLIENT_V6}/128")] {
        let line = format!("{WAN}: protects {host}, port {PORT}: in force\n");
        assert!(status.contains(&line), "{status}");
    }
    let proofs = Reason::ForwardProof.name();
    assert!(status.contains(&format!("  {proofs} 2\n")), "{status}");
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

/// Without a program at its other end a veth pair loses what XDP sends: then connections matter more than protection.
#[test]
fn where_answers_go_nowhere_all_passes() -> Result<()> {
    only!(ONCE, "the shield in front of all ways");
    let hosts = [IpAddr::from(UPSTREAM_V4), IpAddr::from(UPSTREAM_V6)];
    let scene = scene!(setup(LAN, hosts));
    serve(&scene.lab.upstream)?;
    greets_both(&scene.lab.client, hosts)?;
    let status = scene.daemon.control("shield status")?;
    let not = format!(
        "{LAN}: protects {UPSTREAM_V4}/32, port {PORT}: not in force (answers_lost): all to it passes\n"
    );
    assert!(status.contains(&not), "{status}");
    Ok(())
}

/// A missing interface is reported with file, line and key; when it comes, it is protected.
#[test]
fn an_interface_that_comes_late_is_said_and_then_protected() -> Result<()> {
    only!(ONCE, "the shield in front of all ways");
    not_in_guests!("times what happens to an interface, and a guest may be emulated");
    let hosts = [IpAddr::from(CLIENT_V4), IpAddr::from(CLIENT_V6)];
    let scene = scene!(setup("dmz0", hosts));
    let config = scene.directory.path().join("config.toml");
    let text = std::fs::read_to_string(&config)?;
    let line = text.lines().position(|line| line.contains("dmz0"));
    let line = line.map_or(0, |line| line + 1);
    let fault = format!(
        "config.toml:{line}:1: protect.interface: no interface dmz0 on this machine; allowed: "
    );
    scene.daemon.wait_log_count(&fault, 1)?;
    let output = run(Some(&scene.lab), &["check", &config.display().to_string()])?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains(&fault), "{said}");
    let status = || scene.daemon.control("shield status");
    let line = format!("dmz0: protects {CLIENT_V4}/32, port {PORT}: ");
    let shown = status()?;
    assert!(
        shown.contains(&format!("{line}not in force (no_program)")),
        "{shown}"
    );
    scene
        .lab
        .router
        .ip("link add dmz0 type veth peer name dmz1\nlink set dmz0 up\n")?;
    let _program = with_program_on(&scene.lab.router, "dmz1")?;
    wait_until("it is protected", TIMEOUT, || {
        status().is_ok_and(|shown| shown.contains(&format!("{line}in force\n")))
    })?;
    scene.lab.router.ip("link delete dmz0\n")?;
    wait_until("it is gone", TIMEOUT, || {
        status().is_ok_and(|shown| shown.contains(&format!("{line}not in force (no_program)")))
    })?;
    scene
        .daemon
        .wait_log_count("dmz0: the interface is gone", 1)
}

/// Clients are not challenged while it is calm, and new ones are in a flood.
#[test]
fn where_floods_alone_are_kept_away_clients_are_asked_in_a_flood() -> Result<()> {
    only!(ONCE, "the shield in front of all ways");
    let hosts = [IpAddr::from(UPSTREAM_V4), IpAddr::from(UPSTREAM_V6)];
    let [one, other] = hosts;
    let section = format!(
        "[shield]\nsyn_threshold = 100\ncalm_secs = 1\n\
         [[protect]]\ninterface = \"{LAN}\"\naddresses = [\"{one}\", \"{other}\"]\nports = [{PORT}]\nask = \"auto\"\n"
    );
    let scene = scene!(Setup::default().sections(&section));
    let _program = with_program(&scene.lab.client)?;
    scene.daemon.wait_log_count("answers leave again", 1)?;
    serve(&scene.lab.upstream)?;
    let (client, server) = (&scene.lab.client, SocketAddr::new(one, PORT));
    let before = scene.daemon.metrics()?;
    assert!(greet(client, CLIENT_V4.into(), server)?, "it is calm");
    let calm = [(&Reason::ForwardCalm as &dyn Metric, 1)];
    scene.daemon.wait_growth(&before, &calm)?;
    let status = || scene.daemon.control("shield status");
    let is = |state: &str| status().is_ok_and(|shown| shown.contains(&format!("{PORT}: {state}")));
    assert!(is("not in force (calm)"), "{}", status()?);
    let raw = scene.raw_client()?;
    let flood = |number: u32| -> Result<()> {
        let [_, _, c, d] = number.to_be_bytes();
        let source = SocketAddr::new(Ipv4Addr::new(100, 64, c, d).into(), 40_000);
        raw.send(&syn(&raw, source, server)?)
    };
    // More than the threshold in any second, for as long as it takes.
    let mut number = 0;
    wait_until("clients are asked", PATIENCE, || {
        for _ in 0..100 {
            number += 1;
            flood(number).expect("a frame is sent");
        }
        is("in force")
    })?;
    wait_until("the first connection is reset", TIMEOUT, || {
        !greet(client, CLIENT_V4.into(), server).unwrap_or(false)
    })?;
    assert!(greet(client, CLIENT_V4.into(), server)?);
    wait_until("it is calm again", PATIENCE, || is("not in force (calm)"))?;
    assert!(greet(
        client,
        CLIENT_V6.into(),
        SocketAddr::new(other, PORT)
    )?);
    scene.daemon.wait_log_count("protect: it is calm again", 1)
}
