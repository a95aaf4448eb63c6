//! Unusual frames: the fast path answers those that it understands, leaves the rest to the kernel unchanged, and never answers
//! damaged ones wrongly.

use anyhow::Result;
use hickory_proto::rr::RecordType;
use xdnsd_abi::Reason;
use xdnsd_core::counters::Counter;
use xdnsd_core::limits::CHUNKS_PER_QUEUE;
use xdnsd_lab::lab::{Offload, Spec};
use xdnsd_lab::wait::wait_until;

use crate::support::TIMEOUT;
use crate::support::client::{Family, RawClient, listen};
use crate::support::frame::{ETHERNET_MIN, TPID_VLAN, UdpFrame};
use crate::support::message::{addresses, query, read_answer, wire};
use crate::support::metrics::Metric;
use crate::support::run::only;
use crate::support::scene::{Scene, Setup, scene};
use crate::support::script::Rule;

/// The shortest name, so that a query is shorter than Ethernet's least.
const SHORT: &str = ".";
/// IPv4 options that do nothing (RFC 791 section 3.1).
const NO_OPERATIONS: [u8; 4] = [1; 4];
/// An IPv6 destination options header before UDP: six octets of padding (RFC 8200 section 4.6).
const DESTINATION_OPTIONS: [u8; 8] = [17, 0, 1, 4, 0, 0, 0, 0];

/// Fills the scene's cache with `www.test.` and the root, and opens a client.
fn prepare(scene: &Scene) -> Result<RawClient> {
    scene
        .upstream
        .on("www.test.", Rule::addresses(300, &["192.0.2.1"]));
    scene
        .upstream
        .on(SHORT, Rule::addresses(300, &["192.0.2.9"]));
    let client = scene.raw_client()?;
    for name in ["www.test.", SHORT] {
        client.ask(Family::V4, &query(name, RecordType::A))?;
    }
    Ok(client)
}

/// An ordinary query for `name`.
fn frame(client: &RawClient, family: Family, name: &str) -> Result<UdpFrame> {
    client.frame(listen(family), &wire(&query(name, RecordType::A)))
}

/// Waits for the answer to `frame` and compares its address.
fn assert_answered(client: &RawClient, frame: &UdpFrame, address: &str) -> Result<()> {
    let answer = client.answer_to(frame)?;
    let answer = read_answer(&frame.message, &answer)?;
    assert_eq!(addresses(&answer), [address]);
    Ok(())
}

/// Counters of `queries` that the kernel answered, and the reason.
fn by_kernel(reason: &dyn Metric, frames: u64, queries: u64) -> [(&dyn Metric, u64); 4] {
    [
        (reason, frames),
        (&Reason::Redirected, 0),
        (&Counter::AnswersXdp, 0),
        (&Counter::AnswersUdp, queries),
    ]
}

/// Chunks of all sockets.
#[derive(Debug)]
struct Chunks;

impl Metric for Chunks {
    fn family(&self) -> String {
        "xdnsd_xsk_chunks".to_owned()
    }
}

/// Frames that sockets passed to the worker.
#[derive(Debug)]
struct Received;

impl Metric for Received {
    fn family(&self) -> String {
        "xdnsd_xsk_received_total".to_owned()
    }
}

#[test]
fn each_chunk_of_a_socket_is_shown_in_one_place() -> Result<()> {
    only!(ONCE, "frames by hand, as the XDP program takes them");
    let scene = scene!(Setup::default());
    let client = prepare(&scene)?;
    let before = scene.daemon.metrics()?;
    for _ in 0..5 {
        client.ask(Family::V4, &query("www.test.", RecordType::A))?;
    }
    // Statistics are copied twice a second.
    let mut shown = before.clone();
    wait_until("frames are shown", TIMEOUT, || {
        if let Ok(metrics) = scene.daemon.metrics() {
            shown = metrics;
        }
        shown.growth(&before, &Received) >= 5
    })?;
    let chunks = shown.get(&Chunks).unwrap_or(0) as usize;
    assert!(chunks > 0, "{}", shown.text());
    assert_eq!(chunks % CHUNKS_PER_QUEUE, 0, "{}", shown.text());
    Ok(())
}

#[test]
fn ethernet_padding_is_no_part_of_the_query() -> Result<()> {
    only!(ONCE, "frames by hand, as the XDP program takes them");
    let scene = scene!(Setup::default());
    let client = prepare(&scene)?;
    let before = scene.daemon.metrics()?;
    let frame = frame(&client, Family::V4, SHORT)?;
    assert!(frame.to_bytes().len() < ETHERNET_MIN);
    // To the minimum, and more than any hardware would.
    for (len, padding) in [(ETHERNET_MIN, 0), (ETHERNET_MIN, 0xa5), (100, 0xa5)] {
        let mut bytes = frame.to_bytes();
        bytes.resize(len, padding);
        client.send(&bytes)?;
        assert_answered(&client, &frame, "192.0.2.9")?;
    }
    scene.daemon.wait_growth(
        &before,
        &[(&Reason::Redirected, 3), (&Counter::AnswersXdp, 3)],
    )
}

#[test]
fn ip_options_go_to_the_kernel_and_are_answered() -> Result<()> {
    only!(ONCE, "frames by hand, as the XDP program takes them");
    let scene = scene!(Setup::default());
    let client = prepare(&scene)?;
    for (family, extra, reason) in [
        (Family::V4, &NO_OPERATIONS[..], Reason::PassIpv4Options),
        (Family::V6, &DESTINATION_OPTIONS[..], Reason::PassProtocol),
    ] {
        let mut frame = frame(&client, family, "www.test.")?;
        frame.extra = extra.to_vec();
        let before = scene.daemon.metrics()?;
        client.send(&frame.to_bytes())?;
        assert_answered(&client, &frame, "192.0.2.1")?;
        scene.daemon.wait_growth(
            &before,
            &[
                (&Reason::Redirected, 0),
                (&Counter::AnswersXdp, 0),
                (&Counter::AnswersUdp, 1),
            ],
        )?;
        // Neighbour discovery is no UDP either.
        assert!(scene.daemon.metrics()?.growth(&before, &reason) >= 1);
    }
    Ok(())
}

#[test]
fn fragments_are_put_together_by_the_kernel() -> Result<()> {
    only!(ONCE, "frames by hand, as the XDP program takes them");
    let scene = scene!(Setup::default());
    let client = prepare(&scene)?;
    for (family, reason) in [
        (Family::V4, Reason::PassFragment),
        (Family::V6, Reason::PassProtocol),
    ] {
        // In order and reversed, split behind the UDP header and within the name.
        for (ident, first_len) in [(1, 8), (2, 24)] {
            for is_reversed in [false, true] {
                let frame = frame(&client, family, "www.test.")?;
                let mut parts = frame.to_fragments(first_len, ident + u16::from(is_reversed) * 2);
                if is_reversed {
                    parts.reverse();
                }
                let before = scene.daemon.metrics()?;
                for part in &parts {
                    client.send(part)?;
                }
                assert_answered(&client, &frame, "192.0.2.1")?;
                let now = scene.daemon.metrics()?;
                assert!(now.growth(&before, &reason) >= 2, "{}", now.text());
                assert_eq!(now.growth(&before, &Counter::AnswersXdp), 0);
                scene
                    .daemon
                    .wait_growth(&before, &[(&Counter::AnswersUdp, 1)])?;
            }
        }
    }
    Ok(())
}

#[test]
fn damaged_frames_are_never_answered_and_hold_nothing_up() -> Result<()> {
    only!(ONCE, "frames by hand, as the XDP program takes them");
    let scene = scene!(Setup::default());
    let client = prepare(&scene)?;
    for (family, offset_in_packet, reason) in [
        // Each header checksum, then the last letter of the name.
        (Family::V4, 10, Reason::PassIpv4Checksum),
        (Family::V4, 26, Reason::PassUdpChecksum),
        (Family::V4, 48, Reason::PassUdpChecksum),
        (Family::V6, 46, Reason::PassUdpChecksum),
        (Family::V6, 68, Reason::PassUdpChecksum),
    ] {
        let before = scene.daemon.metrics()?;
        let damaged = frame(&client, family, "www.test.")?;
        let mut bytes = damaged.to_bytes();
        bytes[damaged.ip_offset() + offset_in_packet] ^= 0x01;
        client.send(&bytes)?;
        let sound = frame(&client, family, "www.test.")?;
        client.send(&sound.to_bytes())?;
        assert_answered(&client, &sound, "192.0.2.1")?;
        scene.daemon.wait_growth(
            &before,
            &[
                (&reason, 1),
                (&Counter::AnswersXdp, 1),
                (&Counter::QueriesUdp, 0),
            ],
        )?;
        assert!(
            client.gets_nothing(&damaged)?,
            "{family:?} {offset_in_packet}"
        );
    }
    Ok(())
}

#[test]
fn an_absent_udp_checksum_is_legal_over_ipv4_only() -> Result<()> {
    only!(ONCE, "frames by hand, as the XDP program takes them");
    let scene = scene!(Setup::default());
    let client = prepare(&scene)?;
    let without = |family| -> Result<(UdpFrame, Vec<u8>)> {
        let frame = frame(&client, family, "www.test.")?;
        let (mut bytes, at) = (frame.to_bytes(), frame.udp_offset() + 6);
        bytes[at..at + 2].fill(0);
        Ok((frame, bytes))
    };
    let before = scene.daemon.metrics()?;
    let (frame, bytes) = without(Family::V4)?;
    client.send(&bytes)?;
    assert_answered(&client, &frame, "192.0.2.1")?;
    let (frame, bytes) = without(Family::V6)?;
    client.send(&bytes)?;
    assert!(client.gets_nothing(&frame)?);
    scene.daemon.wait_growth(
        &before,
        &[
            (&Counter::AnswersXdp, 1),
            (&Reason::PassUdpChecksum, 1),
            (&Counter::QueriesUdp, 0),
        ],
    )
}

#[test]
fn lengths_that_lie_are_the_kernels_business() -> Result<()> {
    only!(ONCE, "frames by hand, as the XDP program takes them");
    let scene = scene!(Setup::default());
    let client = prepare(&scene)?;
    // UDP longer than IP's length, shorter, shorter than its own header; IP longer than the frame, shorter than UDP's length.
    for (offset_in_packet, change) in [(24, 4), (24, -4), (24, -30), (2, 4), (2, -4)] {
        let before = scene.daemon.metrics()?;
        let lying = frame(&client, Family::V4, "www.test.")?;
        let mut bytes = lying.to_bytes();
        let at = lying.ip_offset() + offset_in_packet;
        let len = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        bytes[at..at + 2].copy_from_slice(&len.wrapping_add_signed(change).to_be_bytes());
        fix_ipv4_checksum(&mut bytes, lying.ip_offset());
        client.send(&bytes)?;
        assert!(client.gets_nothing(&lying)?, "{offset_in_packet} {change}");
        let sound = frame(&client, Family::V4, "www.test.")?;
        client.send(&sound.to_bytes())?;
        assert_answered(&client, &sound, "192.0.2.1")?;
        scene.daemon.wait_growth(
            &before,
            &[(&Counter::AnswersXdp, 1), (&Counter::QueriesUdp, 0)],
        )?;
    }
    Ok(())
}

fn fix_ipv4_checksum(frame: &mut [u8], at: usize) {
    smoltcp::wire::Ipv4Packet::new_unchecked(&mut frame[at..]).fill_checksum();
}

#[test]
fn checksums_that_offload_leaves_in_part_are_answered_over_af_xdp() -> Result<()> {
    only!(ONCE, "frames by hand, as the XDP program takes them");
    let scene = scene!(Setup::default().lab(Spec {
        offload: Offload::On,
        ..Spec::default()
    }));
    prepare(&scene)?;
    for family in Family::ALL {
        let client = scene.udp_client(family)?;
        let before = scene.daemon.metrics()?;
        for _ in 0..3 {
            let answer = client.ask(&query("www.test.", RecordType::A))?;
            assert_eq!(addresses(&answer), ["192.0.2.1"]);
        }
        scene.daemon.wait_growth(
            &before,
            &[
                (&Reason::Redirected, 3),
                (&Reason::PassUdpChecksum, 0),
                (&Counter::AnswersXdp, 3),
                (&Counter::AnswersUdp, 0),
            ],
        )?;
    }
    Ok(())
}

#[test]
fn a_vlan_that_is_not_ours_is_not_answered() -> Result<()> {
    only!(ONCE, "frames by hand, as the XDP program takes them");
    let scene = scene!(Setup::default());
    let client = prepare(&scene)?;
    for tags in [vec![(TPID_VLAN, 10)], vec![(0x88a8, 10), (TPID_VLAN, 20)]] {
        let before = scene.daemon.metrics()?;
        let mut tagged = frame(&client, Family::V4, "www.test.")?;
        tagged.tags = tags;
        client.send(&tagged.to_bytes())?;
        assert!(client.gets_nothing(&tagged)?);
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
fn a_tag_that_carries_only_a_priority_is_answered_by_the_kernel() -> Result<()> {
    only!(ONCE, "frames by hand, as the XDP program takes them");
    let scene = scene!(Setup::default());
    let client = prepare(&scene)?;
    let before = scene.daemon.metrics()?;
    let untagged = frame(&client, Family::V4, "www.test.")?;
    let mut tagged = untagged.clone();
    tagged.tags = vec![(TPID_VLAN, 0xa000)];
    client.send(&tagged.to_bytes())?;
    assert_answered(&client, &untagged, "192.0.2.1")?;
    scene
        .daemon
        .wait_growth(&before, &by_kernel(&Reason::PassVlanPriority, 1, 1))
}

/// Sends garbage and unanswerable frames, and asserts that they get no answer.
fn send_garbage(scene: &Scene, client: &RawClient) -> Result<()> {
    let mut response = frame(client, Family::V4, "www.test.")?;
    response.message[2] |= 0x80;
    let mut from_us = frame(client, Family::V4, "www.test.")?;
    from_us.source = listen(Family::V4);
    let mut headless = frame(client, Family::V6, "www.test.")?;
    headless.message.truncate(11);
    let mut from_port_0 = frame(client, Family::V4, "www.test.")?;
    from_port_0.source.set_port(0);
    let mut from_loopback = frame(client, Family::V4, "www.test.")?;
    from_loopback.source.set_ip([127, 0, 0, 1].into());
    let all = [response, from_us, headless, from_port_0, from_loopback];
    let before = scene.daemon.metrics()?;
    for frame in &all {
        client.send(&frame.to_bytes())?;
    }
    for frame in &all {
        assert!(client.gets_nothing(frame)?, "{frame:?}");
    }
    scene.daemon.wait_growth(
        &before,
        &[(&Counter::AnswersXdp, 0), (&Counter::AnswersUdp, 0)],
    )
}

#[test]
fn what_can_only_be_an_attack_ends_in_the_driver_and_other_impossible_sources_get_no_answer()
-> Result<()> {
    only!(ONCE, "frames by hand, as the XDP program takes them");
    let scene = scene!(Setup::default());
    let client = prepare(&scene)?;
    let before = scene.daemon.metrics()?;
    send_garbage(&scene, &client)?;
    scene.daemon.wait_growth(
        &before,
        &[
            (&Reason::DropResponse, 1),
            (&Reason::DropSource, 1),
            (&Reason::DropTruncated, 1),
            (&Reason::PassSource, 2),
        ],
    )
}

#[test]
fn garbage_gets_no_answer_where_it_is_left_to_the_kernel() -> Result<()> {
    only!(ONCE, "frames by hand, as the XDP program takes them");
    let scene = scene!(Setup::default().sections("[shield]\ndrop_garbage = false\n"));
    let client = prepare(&scene)?;
    let before = scene.daemon.metrics()?;
    send_garbage(&scene, &client)?;
    scene.daemon.wait_growth(
        &before,
        &[
            (&Reason::PassResponse, 1),
            (&Reason::PassLength, 1),
            (&Reason::PassSource, 3),
            (&Reason::DropResponse, 0),
            (&Reason::DropSource, 0),
            (&Reason::DropTruncated, 0),
        ],
    )
}

#[test]
fn a_client_may_ask_from_port_53() -> Result<()> {
    only!(ONCE, "frames by hand, as the XDP program takes them");
    let scene = scene!(Setup::default());
    let client = prepare(&scene)?;
    for family in Family::ALL {
        let mut from_53 = frame(&client, family, "www.test.")?;
        from_53.source.set_port(53);
        client.send(&from_53.to_bytes())?;
        assert_answered(&client, &from_53, "192.0.2.1")?;
    }
    Ok(())
}

#[test]
fn the_longest_query_and_a_longer_one_are_answered() -> Result<()> {
    only!(ONCE, "frames by hand, as the XDP program takes them");
    let scene = scene!(Setup::default());
    let client = prepare(&scene)?;
    let before = scene.daemon.metrics()?;
    // The program verifies checksums up to 512 bytes; bytes after the message's last record are ignored.
    for len in [512, 513, 1400] {
        let mut long = frame(&client, Family::V4, "www.test.")?;
        long.message.resize(len, 0);
        client.send(&long.to_bytes())?;
        let answer = client.answer_to(&long)?;
        assert_eq!(answer.get(..2), long.message.get(..2));
    }
    scene.daemon.wait_growth(
        &before,
        &[
            (&Reason::Redirected, 1),
            (&Reason::PassLong, 2),
            (&Counter::AnswersXdp, 1),
            (&Counter::AnswersUdp, 2),
        ],
    )
}
