//! VLANs: a reply leaves on the VLAN that its query came from, or the frame goes to the kernel.
//!
//! These tests need VLAN devices (CONFIG_VLAN_8021Q). `cargo xtask boot "tests of VLANs"` runs them in a guest whose kernel
//! has them, and on such a host they run as all others. What needs none, tags that are not ours, is in `frames`.

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use hickory_proto::rr::RecordType;
use xdnsd_abi::Reason;
use xdnsd_core::counters::Counter;
use xdnsd_lab::lab::{
    LAN, LAN_V4, LAN_V6, Lab, Spec, UPSTREAM_V4, UPSTREAM_V6, VLAN_CLIENT_V4, VLAN_CLIENT_V6,
    VLAN_ID, VLAN_V4, VLAN_V6, VlanTag,
};
use xdnsd_lab::wait::wait_until;

use crate::shield::protect::{PORT, comes_again, greets_both, serve};
use crate::shield::{wait_state, with_program};
use crate::support::TIMEOUT;
use crate::support::client::{DNS_PORT, Family, RawClient, UdpClient};
use crate::support::frame::{TPID_VLAN, UdpFrame};
use crate::support::message::{addresses, query, read_answer, wire};
use crate::support::run::{is_guest, only};
use crate::support::scene::{Scene, Setup, scene};
use crate::support::script::Rule;
use crate::support::stream::Stream;

/// Untagged and VLAN 10 on the same interface.
fn setup(tag: VlanTag) -> Setup {
    let section = format!(
        "[[interface]]\nname = \"lan0\"\nvlan = {VLAN_ID}\nlisten = [\"{VLAN_V4}\", \"{VLAN_V6}\"]\nxdp = \"native\""
    );
    let spec = Spec {
        vlan: Some(tag),
        ..Spec::default()
    };
    Setup::default().lab(spec).sections(&section)
}

/// True if this kernel supports VLAN devices. If not, the guest's kernel does, and another test checks that the guest runs
/// these tests.
pub fn has_vlan_devices(test: &str) -> Result<bool> {
    let spec = Spec {
        vlan: Some(VlanTag::InFrame),
        ..Spec::default()
    };
    match xdnsd_lab::privilege::is_root().then(|| Lab::up(&spec)) {
        Some(Err(error)) if !is_guest() && format!("{error:#}").contains("CONFIG_VLAN_8021Q") => {
            eprintln!(
                "{test}: this kernel has no VLAN devices, the test runs in the guest of \"tests of VLANs\""
            );
            Ok(false)
        }
        Some(lab) => lab.map(|_| true),
        // The scene reports what is missing.
        None => Ok(true),
    }
}

/// A client in the VLAN, with a kernel socket.
fn vlan_client(scene: &Scene, server: IpAddr) -> Result<UdpClient> {
    let local = match server {
        IpAddr::V4(_) => VLAN_CLIENT_V4.into(),
        IpAddr::V6(_) => VLAN_CLIENT_V6.into(),
    };
    UdpClient::open_from(&scene.lab, local, SocketAddr::new(server, DNS_PORT))
}

/// A tagged query to the router's address in the VLAN, with a priority that has to come back.
fn tagged(client: &RawClient, family: Family) -> Result<UdpFrame> {
    let (server, source): (IpAddr, IpAddr) = match family {
        Family::V4 => (VLAN_V4.into(), VLAN_CLIENT_V4.into()),
        Family::V6 => (VLAN_V6.into(), VLAN_CLIENT_V6.into()),
    };
    let message = wire(&query("www.test.", RecordType::A));
    let mut frame = client.frame(SocketAddr::new(server, DNS_PORT), &message)?;
    frame.tags = vec![(TPID_VLAN, 0xa000 | VLAN_ID)];
    frame.source.set_ip(source);
    Ok(frame)
}

/// Asks until the answer comes over AF_XDP: the kernel has to know the client's MAC address before the FIB gives the program
/// the way back.
fn wait_for_way_back(scene: &Scene, client: &UdpClient) -> Result<()> {
    wait_until("the FIB knows the way back", TIMEOUT, || {
        let Ok(before) = scene.daemon.metrics() else {
            return false;
        };
        let answer = client.ask(&query("www.test.", RecordType::A));
        let now = scene.daemon.metrics();
        answer.is_ok() && now.is_ok_and(|now| now.growth(&before, &Counter::AnswersXdp) == 1)
    })
}

fn prepare(scene: &Scene) {
    let rule = Rule::addresses(300, &["192.0.2.1"]);
    scene.upstream.on("www.test.", rule);
}

#[test]
fn tagged_queries_are_answered_over_af_xdp_on_their_vlan() -> Result<()> {
    only!(ONCE, "tags in frames, as the XDP program takes them");
    if !has_vlan_devices("tagged_queries_are_answered_over_af_xdp_on_their_vlan")? {
        return Ok(());
    }
    let scene = scene!(setup(VlanTag::InFrame));
    prepare(&scene);
    let client = scene.raw_client()?;
    for family in Family::ALL {
        wait_for_way_back(&scene, &scene.udp_client(family)?)?;
        let server = tagged(&client, family)?.destination.ip();
        wait_for_way_back(&scene, &vlan_client(&scene, server)?)?;
        let before = scene.daemon.metrics()?;
        for _ in 0..3 {
            let frame = tagged(&client, family)?;
            // `exchange` compares the tags, priority included.
            let answer = read_answer(&frame.message, &client.exchange(&frame)?)?;
            assert_eq!(addresses(&answer), ["192.0.2.1"]);
            let answer = client.ask(family, &query("www.test.", RecordType::A))?;
            assert_eq!(addresses(&answer), ["192.0.2.1"], "untagged beside it");
        }
        scene.daemon.wait_growth(
            &before,
            &[(&Counter::AnswersXdp, 6), (&Counter::AnswersUdp, 0)],
        )?;
    }
    Ok(())
}

#[test]
fn a_tag_that_offload_hides_is_left_to_the_kernel() -> Result<()> {
    only!(ONCE, "tags in frames, as the XDP program takes them");
    if !has_vlan_devices("a_tag_that_offload_hides_is_left_to_the_kernel")? {
        return Ok(());
    }
    let scene = scene!(setup(VlanTag::BesideFrame));
    prepare(&scene);
    let before = scene.daemon.metrics()?;
    for server in [VLAN_V4.into(), VLAN_V6.into()] {
        let client = vlan_client(&scene, server)?;
        for _ in 0..3 {
            let answer = client.ask(&query("www.test.", RecordType::A))?;
            assert_eq!(addresses(&answer), ["192.0.2.1"]);
        }
    }
    scene.daemon.wait_growth(
        &before,
        &[
            (&Counter::AnswersUdp, 6),
            (&Counter::AnswersXdp, 0),
            (&Reason::Redirected, 0),
        ],
    )
}

#[test]
fn an_untagged_address_asked_from_a_hidden_vlan_is_answered_on_that_vlan() -> Result<()> {
    only!(ONCE, "tags in frames, as the XDP program takes them");
    let test = "an_untagged_address_asked_from_a_hidden_vlan_is_answered_on_that_vlan";
    if !has_vlan_devices(test)? {
        return Ok(());
    }
    let scene = scene!(setup(VlanTag::BesideFrame));
    prepare(&scene);
    // To XDP such a query looks like an untagged one to a listener of ours. An untagged reply would never arrive.
    scene.lab.client.ip(&format!(
        "route add {LAN_V4}/32 via {VLAN_V4} src {VLAN_CLIENT_V4}
         route add {LAN_V6}/128 via {VLAN_V6} src {VLAN_CLIENT_V6}\n"
    ))?;
    let before = scene.daemon.metrics()?;
    for server in [LAN_V4.into(), LAN_V6.into()] {
        let client = vlan_client(&scene, server)?;
        for _ in 0..3 {
            let answer = client.ask(&query("www.test.", RecordType::A))?;
            assert_eq!(addresses(&answer), ["192.0.2.1"]);
        }
    }
    scene.daemon.wait_growth(
        &before,
        &[
            (&Reason::PassRoute, 6),
            (&Counter::AnswersUdp, 6),
            (&Counter::AnswersXdp, 0),
        ],
    )
}

/// The kernel answers until the FIB knows the way back, and the program from then on.
#[test]
fn a_connection_on_a_vlan_begins_with_a_cookie_on_that_vlan() -> Result<()> {
    only!(ONCE, "tags in frames, as the XDP program takes them");
    if !has_vlan_devices("a_connection_on_a_vlan_begins_with_a_cookie_on_that_vlan")? {
        return Ok(());
    }
    let shield = "[shield]\nsyn_cookies = \"always\"\nstate_file = \"{directory}/syncookies\"\n";
    let scene = scene!(setup(VlanTag::InFrame).sections(shield));
    prepare(&scene);
    let _program = with_program(&scene.lab.client)?;
    wait_state(&scene.daemon, "")?;
    let query = wire(&query("www.test.", RecordType::A));
    for (server, local) in [
        (IpAddr::from(VLAN_V4), IpAddr::from(VLAN_CLIENT_V4)),
        (VLAN_V6.into(), VLAN_CLIENT_V6.into()),
    ] {
        wait_for_way_back(&scene, &vlan_client(&scene, server)?)?;
        let before = scene.daemon.metrics()?;
        let server = SocketAddr::new(server, DNS_PORT);
        let mut stream = Stream::open_in(&scene.lab.client, local, server, TIMEOUT)?;
        let answer = read_answer(&query, &stream.exchange(&query)?)?;
        assert_eq!(addresses(&answer), ["192.0.2.1"]);
        scene
            .daemon
            .wait_growth(&before, &[(&Reason::SynCookie, 1)])?;
    }
    Ok(())
}

/// A host behind the router is protected from clients of the VLAN, whose answers have its tag, and from no others.
#[test]
fn a_host_is_protected_from_the_clients_of_a_vlan_and_they_come_again() -> Result<()> {
    only!(ONCE, "tags in frames, as the XDP program takes them");
    if !has_vlan_devices("a_host_is_protected_from_the_clients_of_a_vlan_and_they_come_again")? {
        return Ok(());
    }
    let hosts = [IpAddr::from(UPSTREAM_V4), IpAddr::from(UPSTREAM_V6)];
    let section = format!(
        "[[protect]]\ninterface = \"{LAN}\"\nvlan = {VLAN_ID}\naddresses = [\"{UPSTREAM_V4}\", \"{UPSTREAM_V6}\"]\nports = [{PORT}]\n"
    );
    let scene = scene!(setup(VlanTag::InFrame).sections(&section));
    let _program = with_program(&scene.lab.client)?;
    scene.daemon.wait_log_count("answers leave again", 1)?;
    serve(&scene.lab.upstream)?;
    let before = scene.daemon.metrics()?;
    greets_both(&scene.lab.client, hosts)?;
    scene.lab.client.ip(&format!(
        "route add {UPSTREAM_V4}/32 via {VLAN_V4} src {VLAN_CLIENT_V4}
         route add {UPSTREAM_V6}/128 via {VLAN_V6} src {VLAN_CLIENT_V6}\n"
    ))?;
    for (local, host) in [VLAN_CLIENT_V4.into(), VLAN_CLIENT_V6.into()]
        .into_iter()
        .zip(hosts)
    {
        comes_again(&scene.lab.client, local, host)?;
    }
    scene.daemon.wait_growth(
        &before,
        &[(&Reason::ForwardProof, 2), (&Reason::ForwardVerified, 6)],
    )
}
