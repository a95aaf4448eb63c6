//! A question is answered, first by the upstream and then from the cache, with the right bytes.

use anyhow::Result;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{RData, RecordType};
use xdnsd_abi::Reason;
use xdnsd_core::counters::Counter;
use xdnsd_lab::wait::wait_until;

use crate::support::TIMEOUT;
use crate::support::client::{Family, RawClient, listen};
use crate::support::message::{
    UDP_LEN_MAX, addresses, answers, cname, mx, query, query_edns, read_answer, ttl, txt, wire,
};
use crate::support::run::{Run, only};
use crate::support::scene::{Setup, scene};
use crate::support::script::{NEGATIVE_TTL_SECS, Rule};

#[test]
fn first_hit_and_cache_hit_go_over_af_xdp() -> Result<()> {
    only!(OVER_XDP, "it counts what goes over AF_XDP");
    let scene = scene!(Setup::default());
    let texts = ["192.0.2.1", "192.0.2.2", "2001:db8::1"];
    scene.upstream.on("www.test.", Rule::addresses(300, &texts));
    let client = scene.raw_client()?;
    for (family, kind, expected) in [
        (Family::V4, RecordType::A, &texts[..2]),
        (Family::V6, RecordType::AAAA, &texts[2..]),
    ] {
        let before = scene.daemon.metrics()?;
        for _ in 0..2 {
            let answer = client.ask(family, &query("www.test.", kind))?;
            assert_eq!(addresses(&answer), expected);
        }
        scene.daemon.wait_growth(
            &before,
            &[
                (&Reason::Redirected, 2),
                (&Counter::QueriesXdp, 2),
                (&Counter::AnswersXdp, 2),
                (&Counter::QueriesUdp, 0),
                (&Counter::CacheMisses, 1),
                (&Counter::CacheHits, 1),
                (&Counter::UpstreamQueries, 1),
                (&Counter::UpstreamAnswers, 1),
            ],
        )?;
    }
    assert_eq!(scene.upstream.asked("www.test.").len(), 2);
    Ok(())
}

#[test]
fn letter_case_and_id_are_the_querys_own() -> Result<()> {
    let scene = scene!(Setup::default());
    scene
        .upstream
        .on("www.test.", Rule::addresses(300, &["192.0.2.1"]));
    let client = scene.raw_client()?;
    // `ask` compares the ID and every letter of the question.
    for name in ["wWw.TesT.", "WWW.test.", "www.test."] {
        for _ in 0..2 {
            let answer = client.ask(Family::V4, &query(name, RecordType::A))?;
            assert_eq!(addresses(&answer), ["192.0.2.1"]);
        }
    }
    assert_eq!(scene.upstream.asked("www.test.").len(), 1, "one name");
    Ok(())
}

#[test]
fn records_of_every_shape_arrive_whole() -> Result<()> {
    let scene = scene!(Setup::default());
    let upstream = &scene.upstream;
    upstream.on(
        "alias.test.",
        Rule::answer(300, &[cname("alias2.test.")])
            .and("alias2.test.", 200, &[cname("www.test.")])
            .and(
                "www.test.",
                100,
                &[crate::support::message::address("192.0.2.1")],
            ),
    );
    upstream.on(
        "mx.test.",
        Rule::answer(300, &[mx(10, "mail.test."), mx(20, "mail2.test.")]),
    );
    upstream.on("txt.test.", Rule::answer(300, &[txt(0, 200), txt(1, 30)]));
    let client = scene.raw_client()?;
    for hit in [false, true] {
        let alias = client.ask(Family::V4, &query("alias.test.", RecordType::A))?;
        assert_eq!(
            answers(&alias, RecordType::CNAME),
            ["alias2.test.", "www.test."]
        );
        assert_eq!(answers(&alias, RecordType::A), ["192.0.2.1"], "hit: {hit}");
        let mail = client.ask(Family::V6, &query("mx.test.", RecordType::MX))?;
        assert_eq!(
            answers(&mail, RecordType::MX),
            ["10 mail.test.", "20 mail2.test."]
        );
        let text = client.ask(Family::V4, &query("txt.test.", RecordType::TXT))?;
        let expected: Vec<String> = [txt(0, 200), txt(1, 30)]
            .iter()
            .map(RData::to_string)
            .collect();
        assert_eq!(answers(&text, RecordType::TXT), expected);
    }
    assert_eq!(upstream.asked_all().len(), 3);
    Ok(())
}

#[test]
fn ttl_counts_down_and_ends() -> Result<()> {
    let scene = scene!(Setup::default());
    scene
        .upstream
        .on("short.test.", Rule::addresses(2, &["192.0.2.3"]));
    let client = scene.raw_client()?;
    let mut seen = Vec::new();
    wait_until(
        "the TTL is over and the upstream is asked again",
        TIMEOUT,
        || {
            let answer = client.ask(Family::V4, &query("short.test.", RecordType::A));
            let answer = answer.expect("an answer at any time");
            assert_eq!(addresses(&answer), ["192.0.2.3"]);
            seen.push(ttl(&answer));
            scene.upstream.asked("short.test.").len() == 2
        },
    )?;
    assert_eq!(seen.first(), Some(&2));
    assert!(seen.contains(&1), "{seen:?}");
    assert!(
        !seen.contains(&0) && seen.iter().all(|ttl| *ttl <= 2),
        "{seen:?}"
    );
    let asked = scene.upstream.asked("short.test.");
    // Prefetch may ask in the last tenth.
    assert!(
        (asked[1].at - asked[0].at).as_millis() >= 1_790,
        "{asked:?}"
    );
    Ok(())
}

#[test]
fn ttl_0_is_given_but_not_kept() -> Result<()> {
    let scene = scene!(Setup::default());
    scene
        .upstream
        .on("zero.test.", Rule::addresses(0, &["192.0.2.4"]));
    let client = scene.raw_client()?;
    let before = scene.daemon.metrics()?;
    for _ in 0..3 {
        let answer = client.ask(Family::V4, &query("zero.test.", RecordType::A))?;
        assert_eq!(
            (addresses(&answer), ttl(&answer)),
            (vec!["192.0.2.4".into()], 0)
        );
    }
    assert_eq!(scene.upstream.asked("zero.test.").len(), 3);
    scene.daemon.wait_growth(
        &before,
        &[(&Counter::CacheMisses, 3), (&Counter::CacheInserts, 0)],
    )
}

#[test]
fn negative_answers_are_kept_by_their_soa() -> Result<()> {
    let scene = scene!(Setup::default());
    scene
        .upstream
        .on("missing.test.", Rule::code(ResponseCode::NXDomain));
    scene.upstream.on("nodata.test.", Rule::nodata());
    let client = scene.raw_client()?;
    let before = scene.daemon.metrics()?;
    for (name, code) in [
        ("missing.test.", ResponseCode::NXDomain),
        ("nodata.test.", ResponseCode::NoError),
    ] {
        for _ in 0..2 {
            let answer = client.ask(Family::V6, &query(name, RecordType::A))?;
            assert_eq!(answer.response_code(), code);
            assert!(answer.answers().is_empty());
            let [soa] = answer.name_servers() else {
                panic!("one SOA: {answer}")
            };
            assert_eq!(soa.record_type(), RecordType::SOA);
            assert!((NEGATIVE_TTL_SECS - 5..=NEGATIVE_TTL_SECS).contains(&soa.ttl()));
        }
        assert_eq!(scene.upstream.asked(name).len(), 1);
    }
    scene.daemon.wait_growth(
        &before,
        &[(&Counter::CacheHits, 2), (&Counter::CacheMisses, 2)],
    )
}

/// Asks with an OPT record of this `size`, which may be below 512.
fn ask_with_size(client: &RawClient, name: &str, size: u16) -> Result<(usize, Message)> {
    let mut bytes = wire(&query_edns(name, RecordType::TXT, 512));
    // OPT ends the message: root name, type, class (which is the size), TTL, no data.
    let at = bytes.len() - 8;
    bytes[at..at + 2].copy_from_slice(&size.to_be_bytes());
    let answer = client.exchange(&client.frame(listen(Family::V4), &bytes)?)?;
    Ok((answer.len(), read_answer(&bytes, &answer)?))
}

fn assert_truncated(answer: &Message) {
    assert!(answer.truncated(), "{answer}");
    assert_eq!(answer.response_code(), ResponseCode::NoError);
    assert!(answer.answers().is_empty(), "whole RRsets only: {answer}");
}

#[test]
fn edns_size_is_respected_to_the_byte() -> Result<()> {
    only!(IN_DATAGRAMS, "what a datagram holds");
    let scene = scene!(Setup::default());
    let strings: Vec<RData> = (0..8).map(|number| txt(number, 100)).collect();
    scene
        .upstream
        .on("medium.test.", Rule::answer(300, &strings));
    let client = scene.raw_client()?;
    let before = scene.daemon.metrics()?;
    // The first one is a miss, all others are hits.
    let whole = |size| -> Result<usize> {
        let (len, answer) = ask_with_size(&client, "medium.test.", size)?;
        assert!(!answer.truncated());
        assert_eq!(answers(&answer, RecordType::TXT).len(), strings.len());
        Ok(len)
    };
    let len = whole(1232)?;
    assert!(len > 800, "{len}");
    let exact = u16::try_from(len)?;
    for size in [exact, exact + 1, 1400, 4096, u16::MAX] {
        assert_eq!(whole(size)?, len);
    }
    for size in [exact - 1, 600, 512, 511, 100, 0] {
        let (len, answer) = ask_with_size(&client, "medium.test.", size)?;
        assert_truncated(&answer);
        assert!(len <= usize::from(size).max(512));
    }
    let plain = client.ask(Family::V6, &query("medium.test.", RecordType::TXT))?;
    assert_truncated(&plain);
    assert_eq!(scene.upstream.asked("medium.test.").len(), 1);
    scene.daemon.wait_growth(
        &before,
        &[
            (&Counter::TruncatedGiven, 7),
            (&Run::this().answers(), 13),
            (&Counter::CacheHits, 12),
        ],
    )
}

#[test]
fn what_no_datagram_holds_is_truncated_and_never_fragmented() -> Result<()> {
    only!(IN_DATAGRAMS, "what a datagram holds");
    let scene = scene!(Setup::default());
    let strings: Vec<RData> = (0..14).map(|number| txt(number, 120)).collect();
    scene.upstream.on("big.test.", Rule::answer(300, &strings));
    let client = scene.raw_client()?;
    for _ in 0..2 {
        let (len, answer) = ask_with_size(&client, "big.test.", 4096)?;
        assert_truncated(&answer);
        assert!(len <= UDP_LEN_MAX);
    }
    Ok(())
}

#[test]
fn opt_is_in_the_reply_if_it_is_in_the_query() -> Result<()> {
    let scene = scene!(Setup::default());
    scene
        .upstream
        .on("www.test.", Rule::addresses(300, &["192.0.2.1"]));
    scene.upstream.on(
        "old.test.",
        Rule::addresses(300, &["192.0.2.2"]).without_edns(),
    );
    let client = scene.raw_client()?;
    for name in ["www.test.", "old.test."] {
        for _ in 0..2 {
            // `ask` looks for OPT in both.
            client.ask(Family::V4, &query(name, RecordType::A))?;
            let answer = client.ask(Family::V4, &query_edns(name, RecordType::A, 1400))?;
            let edns = answer.extensions().as_ref().expect("OPT");
            assert_eq!(
                (usize::from(edns.max_payload()), edns.version()),
                (UDP_LEN_MAX, 0)
            );
        }
    }
    Ok(())
}
