//! Switches of an operator: programs are detached and attached again, and secrets are changed.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};
use hickory_proto::rr::RecordType;
use xdnsd_abi::Reason;
use xdnsd_core::counters::Counter;
use xdnsd_lab::lab::{LAN, UPSTREAM_V4};
use xdnsd_lab::wait::wait_until;

use super::{always, cookie, prepare, proof, wait_state, with_program};
use crate::support::TIMEOUT;
use crate::support::client::Family;
use crate::support::message::query;
use crate::support::run::{not_in_guests, only};
use crate::support::scene::{Setup, scene};

const PORT: u16 = 8080;

#[test]
fn a_program_is_taken_off_and_put_back_at_once_and_clients_are_answered_all_the_while() -> Result<()>
{
    only!(ONCE, "the XDP program itself");
    not_in_guests!("times what happens to an interface, and a guest may be emulated");
    let scene = scene!(always());
    prepare(&scene);
    let _program = with_program(&scene.lab.client)?;
    wait_state(&scene.daemon, "")?;
    let client = scene.raw_client()?;
    let asked = || client.ask(Family::V4, &query("www.test.", RecordType::A));
    let has_program = || -> Result<bool> {
        let shown = scene.lab.router.output(&["ip", "link", "show", LAN])?;
        Ok(shown.contains("xdp"))
    };
    asked()?;
    for _ in 0..2 {
        assert!(has_program()?);
        let said = scene.daemon.control(&format!("shield detach {LAN}"))?;
        assert_eq!(said, format!("{LAN}: XDP program detached\n"));
        assert!(!has_program()?, "at once");
        let before = scene.daemon.metrics()?;
        asked()?;
        let by_kernel = scene
            .daemon
            .metrics()?
            .growth(&before, &Counter::QueriesUdp);
        assert_eq!(by_kernel, 1, "the kernel's sockets serve");
        // A reload, or any change of the machine, keeps it.
        scene.daemon.control("reload")?;
        scene
            .lab
            .router
            .ip("link add other0 type veth peer name other1\nlink delete other0\n")?;
        assert!(!has_program()?);
        let status = scene.daemon.control("shield status")?;
        assert!(status.contains("nothing in force"), "{status}");
        assert!(scene.daemon.control("shield deny 192.0.2.1").is_err());
        let said = scene.daemon.control(&format!("json shield attach {LAN}"))?;
        assert_eq!(
            said,
            format!("{{\"attached\":true,\"interface\":\"{LAN}\"}}\n")
        );
        assert!(has_program()?, "at once");
        wait_until("queries come over AF_XDP again", TIMEOUT, || {
            let before = scene.daemon.metrics().ok();
            asked().is_ok()
                && before.is_some_and(|before| {
                    scene
                        .daemon
                        .metrics()
                        .is_ok_and(|now| now.growth(&before, &Counter::QueriesXdp) == 1)
                })
        })?;
        wait_state(&scene.daemon, "")?;
    }
    let said = scene.daemon.control("shield detach eth9");
    let said = format!("{:#}", said.err().context("there is none")?);
    let allowed = format!(
        "`eth9` is not an interface of the config that may have an XDP program; allowed: {LAN}"
    );
    assert!(said.contains(&allowed), "{said}");
    Ok(())
}

#[test]
fn a_cookie_by_the_secret_before_is_good_and_one_by_an_older_one_is_not() -> Result<()> {
    only!(ONCE, "the shield in front of all ways");
    not_in_guests!("times what happens to an interface, and a guest may be emulated");
    let section = format!(
        "[[protect]]\ninterface = \"{LAN}\"\naddresses = [\"{UPSTREAM_V4}\"]\nports = [{PORT}]\n"
    );
    let scene = scene!(Setup::default().sections(&section));
    let _program = with_program(&scene.lab.client)?;
    let status = || scene.daemon.control("shield status");
    wait_until("it is in force", TIMEOUT, || {
        status().is_ok_and(|status| status.contains("port 8080: in force"))
    })?;
    let client = scene.raw_client()?;
    // Hosts without a kernel, which would answer with an RST.
    let source = |last: u8| SocketAddr::new(Ipv4Addr::new(10, 53, 0, last).into(), 40_000);
    let server = SocketAddr::new(UPSTREAM_V4.into(), PORT);
    let rotate = || scene.daemon.control("shield secret rotate");
    let own = cookie(&client, source(71), server)?;
    assert_eq!(own, cookie(&client, source(71), server)?, "the same secret");
    let older = cookie(&client, source(72), server)?;
    rotate()?;
    assert_ne!(own, cookie(&client, source(71), server)?, "another secret");
    let before = scene.daemon.metrics()?;
    client.send(&proof(&client, source(71), server, own)?)?;
    scene
        .daemon
        .wait_growth(&before, &[(&Reason::ForwardProof, 1)])?;
    rotate()?;
    client.send(&proof(&client, source(72), server, older)?)?;
    // Its answer comes after the previous frame was handled.
    cookie(&client, source(73), server)?;
    let proofs = scene
        .daemon
        .metrics()?
        .growth(&before, &Reason::ForwardProof);
    assert_eq!(proofs, 1, "the older one is none");
    Ok(())
}
