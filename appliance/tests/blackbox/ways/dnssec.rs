//! DNSSEC in a forwarder: AD from trusted upstreams, DO and CD from the client, records unchanged.

use anyhow::Result;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::NULL;
use hickory_proto::rr::{RData, Record};

use super::code;
use crate::support::ask::{Ask, OptRecord, flag, rtype};
use crate::support::message::{address, name};
use crate::support::run::only;
use crate::support::scene::{Scene, Setup, scene};
use crate::support::script::Rule;
use crate::support::view::View;
use crate::support::ways::Ways;

/// A group of upstreams whose AD is believed.
const TRUSTED: &str = "[[upstream]]\nname = \"trusted\"\nservers = [\"10.54.0.2\"]\n\
                       domains = [\"test\"]\ntrusted = true\n";
const RRSIG: u16 = 46;
const DNSKEY: u16 = 48;
const DS: u16 = 43;
const NSEC: u16 = 47;

/// The four kinds of queries that are cached apart: with and without DO, with and without CD.
const KEYS: [(bool, u16); 4] = [(false, 0), (true, 0), (false, flag::CD), (true, flag::CD)];

fn ask(name: &str, rtype: u16, dnssec_ok: bool, flags: u16) -> Vec<u8> {
    let ask = Ask::of(name, rtype).with(flags);
    let opt = OptRecord::dnssec_ok(1232);
    if dnssec_ok { ask.edns(&opt) } else { ask }.bytes()
}

fn unknown(rtype: u16, rdata: &[u8]) -> RData {
    RData::Unknown {
        code: rtype.into(),
        rdata: NULL::with(rdata.to_vec()),
    }
}

/// A signature over records of the type `covered` (RFC 4034 section 3.1).
fn signature(covered: u16) -> RData {
    let fixed = [13, 2, 0, 0, 1, 44, 0x7f, 0, 0, 0, 0x60, 0, 0, 0, 0x12, 0x34];
    let signer = b"\x04test\0";
    unknown(
        RRSIG,
        &[&covered.to_be_bytes()[..], &fixed, signer, &[0x5a; 64]].concat(),
    )
}

/// `www.test.` with an address that always has AD.
fn authentic(scene: &Scene) {
    let rule = Rule::made(|query, reply| {
        reply.set_authentic_data(true);
        let owner = query.queries()[0].name().clone();
        reply.add_answer(Record::from_rdata(owner, 300, address("192.0.2.1")));
    });
    scene.upstream.on("www.test.", rule);
}

#[test]
fn ad_comes_from_upstreams_that_are_trusted() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let scene = scene!(Setup::three_ways().sections(TRUSTED));
    authentic(&scene);
    let ways = Ways::open(&scene)?;
    // RFC 6840 section 5.8: to clients that understand it.
    for (dnssec_ok, flags, expected) in [
        (false, 0, false),
        (false, flag::AD, true),
        (true, 0, true),
        (true, flag::AD, true),
        (false, flag::CD, false),
        (false, flag::CD | flag::AD, true),
        (true, flag::CD, true),
    ] {
        let reply = ways.same(&ask("www.test.", rtype::A, dnssec_ok, flags))?;
        assert_eq!(
            reply.has(flag::AD),
            expected,
            "{dnssec_ok} {flags:04x}: {reply:?}"
        );
        assert_eq!(reply.data(rtype::A).len(), 1);
    }
    // An alias without AD, with a target that is asked for separately.
    scene.upstream.on(
        "alias.test.",
        Rule::records(&["alias.test. 300 CNAME www.test."]),
    );
    for _ in 0..2 {
        let reply = ways.same(&ask("alias.test.", rtype::A, true, flag::AD))?;
        assert_eq!((reply.has(flag::AD), reply.answers().len()), (false, 2));
    }
    // Section 5.7: AD in a query asks for it.
    for asked in scene.upstream.asked("www.test.") {
        assert!(asked.query.authentic_data(), "{}", asked.query);
    }
    ways.check_tiers()
}

#[test]
fn ad_of_others_is_worth_nothing() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let scene = scene!(Setup::three_ways());
    authentic(&scene);
    let ways = Ways::open(&scene)?;
    for (dnssec_ok, cd) in KEYS {
        for ad in [0, flag::AD] {
            let reply = ways.same(&ask("www.test.", rtype::A, dnssec_ok, cd | ad))?;
            assert!(!reply.has(flag::AD), "{dnssec_ok} {ad:04x}: {reply:?}");
            assert_eq!(reply.data(rtype::A).len(), 1);
        }
    }
    ways.check_tiers()
}

#[test]
fn do_and_cd_are_passed_on_and_kept_apart() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let scene = scene!(Setup::three_ways());
    // The address shows what the upstream was asked.
    let rule = Rule::made(|query, reply| {
        let dnssec_ok = query
            .extensions()
            .as_ref()
            .is_some_and(|edns| edns.flags().dnssec_ok);
        let last = u8::from(dnssec_ok) + 2 * u8::from(query.checking_disabled());
        let owner = query.queries()[0].name().clone();
        let data = address(&format!("192.0.2.{last}"));
        reply.add_answer(Record::from_rdata(owner, 300, data));
    });
    scene.upstream.on("www.test.", rule);
    // The answer of a validating upstream to a bogus name.
    let bogus = Rule::made(|query, reply| {
        if !query.checking_disabled() {
            reply.set_response_code(ResponseCode::ServFail);
            return;
        }
        let owner = query.queries()[0].name().clone();
        reply.add_answer(Record::from_rdata(owner, 300, address("192.0.2.66")));
    });
    scene.upstream.on("bogus.test.", bogus);
    let ways = Ways::open(&scene)?;
    for _ in 0..2 {
        for (dnssec_ok, cd) in KEYS {
            let reply = ways.same(&ask("www.test.", rtype::A, dnssec_ok, cd))?;
            let last = u8::from(dnssec_ok) + 2 * u8::from(cd != 0);
            assert_eq!(reply.data(rtype::A), [[192, 0, 2, last]], "{reply:?}");
            assert_eq!(reply.has(flag::CD), cd != 0);
            let bogus = ways.same(&ask("bogus.test.", rtype::A, dnssec_ok, cd))?;
            let expected = if cd == 0 {
                code::SERVFAIL
            } else {
                code::NOERROR
            };
            assert_eq!(bogus.rcode(), expected, "{bogus:?}");
        }
    }
    assert_eq!(scene.upstream.asked("www.test.").len(), KEYS.len());
    ways.check_tiers()
}

fn count(reply: &View, rtype: u16) -> usize {
    let records = reply.sections.iter().flatten();
    records.filter(|record| record.rtype == rtype).count()
}

#[test]
fn signatures_and_proofs_come_whole_to_those_who_want_them() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let scene = scene!(Setup::three_ways());
    let rule = |data: Vec<RData>| {
        Rule::made(move |query, reply| {
            let owner = query.queries()[0].name().clone();
            for data in &data {
                reply.add_answer(Record::from_rdata(owner.clone(), 300, data.clone()));
            }
        })
    };
    let on = |name: &str, rule| scene.upstream.on(name, rule);
    on(
        "www.test.",
        rule(vec![
            address("192.0.2.1"),
            address("192.0.2.2"),
            signature(rtype::A),
        ]),
    );
    let key = unknown(DNSKEY, &[&[1, 1, 3, 13][..], &[7; 64]].concat());
    on("key.test.", rule(vec![key, signature(DNSKEY)]));
    on("ds.test.", rule(vec![unknown(DS, &[7; 36]), signature(DS)]));
    on(
        "missing.test.",
        Rule::made(|_, reply| {
            reply.set_response_code(ResponseCode::NXDomain);
            let soa = b"\x02ns\x04test\0\x01h\x04test\0\0\0\0\x01\0\0\x0e\x10\0\0\x02\x58\0\x01\x51\x80\0\0\0\x3c";
            let next = b"\x03www\x04test\0\0\x01\x40";
            for data in [
                unknown(6, soa),
                signature(6),
                unknown(NSEC, next),
                signature(NSEC),
            ] {
                reply.add_name_server(Record::from_rdata(name("test."), 60, data));
            }
        }),
    );
    let ways = Ways::open(&scene)?;
    for _ in 0..2 {
        for (name, rtype, records) in [
            ("www.test.", rtype::A, 2),
            ("key.test.", DNSKEY, 1),
            ("ds.test.", DS, 1),
        ] {
            let plain = ways.same(&ask(name, rtype, false, 0))?;
            assert_eq!(
                (count(&plain, rtype), count(&plain, RRSIG)),
                (records, 0),
                "{plain:?}"
            );
            let signed = ways.same(&ask(name, rtype, true, 0))?;
            assert_eq!(
                (count(&signed, rtype), count(&signed, RRSIG)),
                (records, 1),
                "{signed:?}"
            );
        }
        let plain = ways.same(&ask("missing.test.", rtype::A, false, 0))?;
        assert_eq!(plain.rcode(), code::NXDOMAIN);
        let counts = [rtype::SOA, NSEC, RRSIG].map(|rtype| count(&plain, rtype));
        assert_eq!(counts, [1, 0, 0], "{plain:?}");
        let proven = ways.same(&ask("missing.test.", rtype::A, true, 0))?;
        let counts = [rtype::SOA, NSEC, RRSIG].map(|rtype| count(&proven, rtype));
        assert_eq!(counts, [1, 1, 2], "{proven:?}");
    }
    // A query for signatures gets them without DO.
    let asked = ways.same(&ask("www.test.", RRSIG, false, 0))?;
    assert_eq!(count(&asked, RRSIG), 1, "{asked:?}");
    ways.check_tiers()
}
