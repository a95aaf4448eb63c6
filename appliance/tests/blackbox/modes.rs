//! The ways in: AF_XDP in the driver and after it, one and several RX queues, and the kernel's sockets, with the same
//! answers.

use anyhow::{Context, Result, ensure};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use xdnsd_abi::Reason;
use xdnsd_core::counters::Counter;
use xdnsd_core::limits::SOCKETS;
use xdnsd_lab::lab::Spec;

use crate::support::client::{Family, RawClient, listen};
use crate::support::message::{
    HEADER_LEN, addresses, cname, query, query_edns, read_answer, txt, wire,
};
use crate::support::metrics::{Metric, OfQueue};
use crate::support::run::only;
use crate::support::scene::{Scene, Setup, scene};
use crate::support::script::Rule;

/// A miss and a hit over each family, counted by `way_in`.
fn ask_both_families(scene: &Scene, way_in: &[(&dyn Metric, u64)]) -> Result<()> {
    scene
        .upstream
        .on("www.test.", Rule::addresses(300, &["192.0.2.1"]));
    let client = scene.raw_client()?;
    let before = scene.daemon.metrics()?;
    for family in Family::ALL {
        for _ in 0..2 {
            let answer = client.ask(family, &query("www.test.", RecordType::A))?;
            assert_eq!(addresses(&answer), ["192.0.2.1"]);
        }
    }
    scene.daemon.wait_growth(&before, way_in)
}

#[test]
fn auto_attaches_in_the_driver() -> Result<()> {
    only!(ONCE, "it says its own modes");
    let scene = scene!(Setup::default().xdp("auto"));
    assert_eq!(scene.attached()?, "xdp");
    ask_both_families(
        &scene,
        &[(&Counter::AnswersXdp, 4), (&Counter::AnswersUdp, 0)],
    )
}

#[test]
fn generic_serves_over_af_xdp() -> Result<()> {
    only!(ONCE, "it says its own modes");
    let scene = scene!(Setup::default().xdp("generic"));
    assert_eq!(scene.attached()?, "xdpgeneric");
    ask_both_families(
        &scene,
        &[
            (&Reason::Redirected, 4),
            (&Counter::AnswersXdp, 4),
            (&Counter::AnswersUdp, 0),
        ],
    )
}

#[test]
fn off_serves_from_the_kernels_sockets_alone() -> Result<()> {
    only!(ONCE, "it says its own modes");
    let scene = scene!(Setup::default().xdp("off"));
    assert_eq!(scene.attached()?, "");
    ask_both_families(
        &scene,
        &[(&Counter::AnswersXdp, 0), (&Counter::AnswersUdp, 4)],
    )
}

#[test]
fn each_queue_has_its_own_worker() -> Result<()> {
    only!(ONCE, "it says its own modes");
    let spec = Spec {
        queues: 2,
        ..Spec::default()
    };
    let scene = scene!(Setup::default().lab(spec.clone()));
    scene
        .upstream
        .on("www.test.", Rule::addresses(300, &["192.0.2.1"]));
    for queue in [1, 0] {
        scene.lab.steer_client_to_queue(&spec, queue)?;
        let before = scene.daemon.metrics()?;
        for family in Family::ALL {
            let client = scene.udp_client(family)?;
            for _ in 0..4 {
                let answer = client.ask(&query("www.test.", RecordType::A))?;
                assert_eq!(addresses(&answer), ["192.0.2.1"]);
            }
        }
        scene.daemon.wait_growth(
            &before,
            &[
                (&OfQueue(queue, Counter::QueriesXdp), 8),
                (&OfQueue(queue, Counter::AnswersXdp), 8),
                (&OfQueue(1 - queue, Counter::QueriesXdp), 0),
                (&Counter::AnswersUdp, 0),
            ],
        )?;
    }
    assert_eq!(scene.upstream.asked("www.test.").len(), 1, "one cache");
    Ok(())
}

#[test]
fn queues_beyond_the_sockets_are_served_by_the_kernel() -> Result<()> {
    only!(ONCE, "it says its own modes");
    let last = u32::try_from(SOCKETS)?;
    let spec = Spec {
        queues: last + 1,
        ..Spec::default()
    };
    let scene = scene!(Setup::default().lab(spec.clone()));
    scene.lab.steer_client_to_queue(&spec, last)?;
    ask_both_families(
        &scene,
        &[
            (&Reason::Redirected, 0),
            (&Counter::AnswersXdp, 0),
            (&Counter::AnswersUdp, 4),
        ],
    )
}

/// Four bytes of IPv4 options that do nothing (RFC 791 section 3.1): such a packet goes to the kernel.
const NO_OPERATIONS: [u8; 4] = [1; 4];

/// Answers over AF_XDP and over the kernel's sockets, within the same second of the entry's age.
fn both_ways(client: &RawClient, message: &[u8]) -> Result<[Vec<u8>; 2]> {
    const TRIES: usize = 5;
    let over_xdp = client.frame(listen(Family::V4), message)?;
    let mut over_kernel = over_xdp.clone();
    over_kernel.extra = NO_OPERATIONS.to_vec();
    let mut last = None;
    for _ in 0..TRIES {
        let both = [client.exchange(&over_xdp)?, client.exchange(&over_kernel)?];
        // The second may begin between the two.
        if both[0] == both[1] {
            return Ok(both);
        }
        last = Some(both);
    }
    last.context("at least one try")
}

/// Questions of every kind, and messages that are not queries.
fn messages() -> Result<Vec<Vec<u8>>> {
    let mut messages = Vec::new();
    for name in [
        "www.test.",
        "WwW.tEst.",
        "alias.test.",
        "missing.test.",
        "nodata.test.",
        "zero.test.",
        "refused.test.",
        "medium.test.",
    ] {
        messages.push(wire(&query(name, RecordType::A)));
        for size in [512, 1232, 4096] {
            let mut query = query_edns(name, RecordType::TXT, size);
            messages.push(wire(&query));
            query
                .set_checking_disabled(true)
                .set_recursion_desired(false);
            let edns = query.extensions_mut().as_mut().context("it has OPT")?;
            edns.set_dnssec_ok(true);
            messages.push(wire(&query));
            // Version 1 (RFC 6891 section 6.1.3): the octet behind the extended code.
            let mut bytes = wire(&query);
            let at = bytes.len() - 5;
            bytes[at] = 1;
            messages.push(bytes);
        }
    }
    let plain = wire(&query("www.test.", RecordType::A));
    // Opcode STATUS, two questions, none, an answer in a query, class CH, type ANY, AXFR, trailing bytes, half a
    // question, the header alone.
    for (at, value) in [(2, 0x11), (5, 2), (5, 0), (7, 1)] {
        let mut bytes = plain.clone();
        bytes[at] = value;
        messages.push(bytes);
    }
    for (from_end, value) in [(1, 3), (3, 255), (3, 252)] {
        let mut bytes = plain.clone();
        let at = bytes.len() - from_end;
        bytes[at] = value;
        messages.push(bytes);
    }
    messages.push([plain.as_slice(), &[0xa5; 7]].concat());
    messages.push(plain[..plain.len() - 3].to_vec());
    messages.push(plain[..HEADER_LEN].to_vec());
    Ok(messages)
}

#[test]
fn af_xdp_and_the_kernels_sockets_give_the_same_bytes() -> Result<()> {
    only!(ONCE, "it says its own modes");
    let scene = scene!(Setup::default().sections("[cache]\nrotate = false"));
    let upstream = &scene.upstream;
    upstream.on(
        "www.test.",
        Rule::addresses(300, &["192.0.2.1", "192.0.2.2", "2001:db8::1"]),
    );
    upstream.on(
        "alias.test.",
        Rule::answer(300, &[cname("www.test.")]).and(
            "www.test.",
            200,
            &[crate::support::message::address("192.0.2.1")],
        ),
    );
    upstream.on("missing.test.", Rule::code(ResponseCode::NXDomain));
    upstream.on("nodata.test.", Rule::nodata());
    upstream.on("zero.test.", Rule::addresses(0, &["192.0.2.4"]));
    let strings: Vec<_> = (0..8).map(|number| txt(number, 100)).collect();
    upstream.on("medium.test.", Rule::answer(300, &strings));
    let client = scene.raw_client()?;
    let before = scene.daemon.metrics()?;
    let messages = messages()?;
    for message in &messages {
        let [over_xdp, over_kernel] = both_ways(&client, message)?;
        assert_eq!(over_xdp, over_kernel, "asked: {message:02x?}");
    }
    let now = scene.daemon.metrics()?;
    let count = u64::try_from(messages.len())?;
    ensure!(now.growth(&before, &Counter::AnswersXdp) >= count);
    ensure!(now.growth(&before, &Counter::AnswersUdp) >= count);
    Ok(())
}

#[test]
fn ordinary_sockets_are_answered_over_af_xdp() -> Result<()> {
    only!(ONCE, "it says its own modes");
    let scene = scene!(Setup::default());
    scene
        .upstream
        .on("www.test.", Rule::addresses(300, &["192.0.2.1"]));
    let before = scene.daemon.metrics()?;
    for family in Family::ALL {
        let client = scene.udp_client(family)?;
        let query = wire(&query("www.test.", RecordType::A));
        let answer = read_answer(&query, &client.exchange(&query)?)?;
        assert_eq!(addresses(&answer), ["192.0.2.1"]);
    }
    scene.daemon.wait_growth(
        &before,
        &[(&Counter::AnswersXdp, 2), (&Counter::AnswersUdp, 0)],
    )
}
