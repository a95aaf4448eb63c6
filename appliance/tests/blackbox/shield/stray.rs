//! Segments without a connection end in the driver, and clients that have proved their address are known.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use anyhow::Result;
use xdnsd_abi::Reason;
use xdnsd_lab::lab::{LAN_V4, LAN_V6};

use super::{
    ACK, GUARDED, always, ask_over_tcp, counted, prepare, seal, setup, syn, wait_state,
    with_program,
};
use crate::support::client::{Family, RawClient, listen};
use crate::support::run::only;
use crate::support::scene::scene;
use crate::support::stream::Stream;

const RST: u8 = 0x04;

/// A segment of a connection that never existed.
fn stray(client: &RawClient, number: u32, flags: u8) -> Result<Vec<u8>> {
    let [_, _, c, d] = number.to_be_bytes();
    let port = 1024 + (number % 50_000) as u16;
    let (source, family): (IpAddr, _) = match number % 2 {
        0 => (Ipv4Addr::new(100, 64, c, d).into(), Family::V4),
        _ => {
            let last = u16::from_be_bytes([c, d]);
            let source = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last);
            (source.into(), Family::V6)
        }
    };
    let (source, server) = (SocketAddr::new(source, port), listen(family));
    let mut frame = syn(client, source, server)?;
    let tcp = frame.len() - 24;
    frame[tcp + 8..tcp + 12].copy_from_slice(&number.wrapping_mul(2_654_435_761).to_be_bytes());
    frame[tcp + 13] = flags;
    seal(&mut frame, source, server);
    Ok(frame)
}

#[test]
fn floods_of_acks_and_resets_leave_the_stack_alone_and_connections_too() -> Result<()> {
    only!(ONCE, "the shield in front of all ways");
    const FLOOD: u32 = 10_000;
    let scene = scene!(always());
    prepare(&scene);
    let _program = with_program(&scene.lab.client)?;
    wait_state(&scene.daemon, "")?;
    let client = scene.raw_client()?;
    let mut open = ask_over_tcp(&scene, Family::V4)?;
    for (flags, reason, most) in [
        // A few per second are left to the kernel, which says that there is no such connection.
        (ACK, Reason::DropStray, 0),
        (RST, Reason::DropReset, FLOOD),
    ] {
        let before = scene.daemon.metrics()?;
        let segments = counted(&scene, "InSegs")?;
        for number in 0..FLOOD {
            client.send(&stray(&client, number, flags)?)?;
            if number == FLOOD / 2 {
                let query = super::wire(&super::query("www.test.", super::RecordType::A));
                super::read_answer(&query, &open.exchange(&query)?)?;
                for family in Family::ALL {
                    drop(ask_over_tcp(&scene, family)?);
                }
            }
        }
        let now = scene.daemon.metrics()?;
        let dropped = now.growth(&before, &reason);
        let passed = now.growth(&before, &Reason::PassStray);
        assert!(dropped + passed >= u64::from(FLOOD), "{dropped} {passed}");
        assert!(dropped >= u64::from(most), "{dropped}");
        assert!(dropped > u64::from(FLOOD) / 2, "{dropped}");
        let segments = counted(&scene, "InSegs")? - segments;
        assert!(segments <= passed + 60, "{segments} {passed}");
    }
    Ok(())
}

/// Segments that a client sends directly after the ACK with the cookie are not taken for strays.
#[test]
fn what_follows_a_cookie_at_once_arrives() -> Result<()> {
    only!(ONCE, "the shield in front of all ways");
    const ROUNDS: usize = 20;
    let scene = scene!(always());
    let _program = with_program(&scene.lab.client)?;
    wait_state(&scene.daemon, "")?;
    let listener = scene
        .lab
        .router
        .run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, GUARDED)))?;
    let server = std::thread::spawn(move || -> std::io::Result<()> {
        for _ in 0..2 * ROUNDS {
            let (mut stream, _) = listener.accept()?;
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes)?;
            stream.write_all(&[&[0, 3][..], &bytes[..3]].concat())?;
        }
        Ok(())
    });
    let before = scene.daemon.metrics()?;
    for _ in 0..ROUNDS {
        for address in [IpAddr::from(LAN_V4), IpAddr::from(LAN_V6)] {
            let mut stream = Stream::open_to(&scene.lab, SocketAddr::new(address, GUARDED))?;
            // A window full of segments.
            stream.write(&[b'x'; 14_000])?;
            stream.end()?;
            assert_eq!(stream.receive()?, b"xxx");
        }
    }
    server.join().expect("it only serves")?;
    scene.daemon.wait_growth(
        &before,
        &[
            (&Reason::SynCookie, 2 * ROUNDS as u64),
            (&Reason::DropStray, 0),
            (&Reason::PassStray, 0),
        ],
    )
}

#[test]
fn a_client_that_brought_a_cookie_back_is_not_asked_again() -> Result<()> {
    only!(ONCE, "the shield in front of all ways");
    let scene = scene!(setup("syn_cookies = \"always\"\nverified_secs = 3600"));
    prepare(&scene);
    let _program = with_program(&scene.lab.client)?;
    wait_state(&scene.daemon, "")?;
    for family in Family::ALL {
        let before = scene.daemon.metrics()?;
        for _ in 0..4 {
            drop(ask_over_tcp(&scene, family)?);
        }
        // The kernel's own answers are cookies too, and come back.
        scene
            .daemon
            .wait_growth(&before, &[(&Reason::SynCookie, 1)])?;
        assert!(
            scene
                .daemon
                .metrics()?
                .growth(&before, &Reason::PassVerified)
                >= 3
        );
    }
    Ok(())
}
