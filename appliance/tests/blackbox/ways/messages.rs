//! Messages by RFC 1035 and its successors, and invalid ones.

use anyhow::{Context, Result};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RData;
use hickory_proto::rr::rdata::NULL;

use super::code;
use crate::support::ask::{
    Ask, OptRecord, class, flag, option, question, record, rtype, wire_name,
};
use crate::support::client::Family;
use crate::support::message::{HEADER_LEN, cname, txt};
use crate::support::random::Random;
use crate::support::run::only;
use crate::support::scene::{Setup, scene};
use crate::support::script::Rule;
use crate::support::view::View;
use crate::support::ways::Ways;

/// Asks each of these by all ways and compares the RCODE of the replies.
fn assert_codes(ways: &Ways<'_>, cases: &[(&str, u16, Vec<u8>)]) -> Result<()> {
    for (what, expected, message) in cases {
        let reply = ways.same(message).with_context(|| (*what).to_owned())?;
        assert_eq!(reply.rcode(), *expected, "{what}: {reply:?}");
        assert_eq!(reply.answers().len(), 0, "{what}: {reply:?}");
    }
    Ok(())
}

fn a(name: &str) -> Ask {
    Ask::of(name, rtype::A)
}

#[test]
fn an_answer_is_the_same_by_all_ways() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let scene = scene!(Setup::three_ways());
    let texts = ["192.0.2.1", "192.0.2.2", "2001:db8::1"];
    scene.upstream.on("www.test.", Rule::addresses(300, &texts));
    scene
        .upstream
        .on("missing.test.", Rule::code(ResponseCode::NXDomain));
    scene.upstream.on("empty.test.", Rule::nodata());
    let ways = Ways::open(&scene)?;
    let found = ways.same(&a("wWw.tEst.").bytes())?;
    assert_eq!(found.rcode(), code::NOERROR);
    assert_eq!(
        found.data(rtype::A),
        [[192, 0, 2, 1], [192, 0, 2, 2]].map(|octets| octets)
    );
    assert!(found.has(flag::RD | flag::RA) && !found.has(flag::AA | flag::AD));
    let aaaa = ways.same(&Ask::of("www.test", rtype::AAAA).bytes())?;
    assert_eq!(aaaa.data(rtype::AAAA).len(), 1);
    for (name, expected) in [
        ("missing.test.", code::NXDOMAIN),
        ("empty.test.", code::NOERROR),
    ] {
        let negative = ways.same(&a(name).bytes())?;
        let [soa] = &negative.sections[1][..] else {
            panic!("one SOA: {negative:?}")
        };
        assert_eq!((negative.rcode(), soa.rtype), (expected, rtype::SOA));
        assert_eq!(negative.answers(), []);
    }
    ways.check_tiers()
}

#[test]
fn opcodes_other_than_query_are_not_implemented() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let scene = scene!(Setup::three_ways());
    let ways = Ways::open(&scene)?;
    // IQUERY, STATUS, NOTIFY, UPDATE, DSO, and those without a name.
    for opcode in 1..=15 {
        let reply = ways.same(&a("www.test.").opcode(opcode).bytes())?;
        assert_eq!(reply.rcode(), code::NOTIMP, "{opcode}: {reply:?}");
        assert_eq!(reply.opcode(), opcode);
        assert_eq!(reply.opt, None);
        let with_edns = a("www.test.").opcode(opcode).edns(&OptRecord::size(1232));
        let reply = ways.same(&with_edns.bytes())?;
        assert_eq!(reply.rcode(), code::NOTIMP);
        assert!(reply.opt.is_some(), "{opcode}: {reply:?}");
    }
    let update = a("test.")
        .opcode(5)
        .and(&record(
            "www.test.",
            rtype::A,
            class::IN,
            60,
            &[192, 0, 2, 1],
        ))
        .count(2, 1)
        .count(3, 0);
    let dso = Ask::without_question().opcode(6);
    assert_codes(
        &ways,
        &[
            ("an update with a record", code::NOTIMP, update.bytes()),
            ("a message without a question", code::NOTIMP, dso.bytes()),
        ],
    )?;
    assert_eq!(scene.upstream.asked_all().len(), 0);
    ways.check_tiers()
}

#[test]
fn one_question_is_asked_or_none_is_answered() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let scene = scene!(Setup::three_ways());
    let ways = Ways::open(&scene)?;
    let none = Ask::without_question();
    let two = a("www.test.").and_question("www.test.", rtype::AAAA);
    let says_two = a("www.test.").count(0, 2);
    let says_many = a("www.test.").count(0, 0xffff);
    let says_one = Ask::without_question().count(0, 1);
    let cases = [
        ("no question", none.bytes()),
        ("no question, bytes", none.tail(b"whatever").bytes()),
        ("two questions", two.bytes()),
        ("two, of which one is there", says_two.bytes()),
        ("65,535 questions", says_many.bytes()),
        ("one that is not there", says_one.bytes()),
    ];
    for (what, message) in cases {
        let reply = ways.same(&message).context(what)?;
        assert_eq!(reply.rcode(), code::FORMERR, "{what}: {reply:?}");
        assert_eq!((reply.bytes.len(), reply.question.len()), (HEADER_LEN, 0));
    }
    ways.check_tiers()
}

#[test]
fn malformed_names_are_a_format_error() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let scene = scene!(Setup::three_ways());
    let ways = Ways::open(&scene)?;
    let of = |name: &[u8]| Ask::raw(&question(name, rtype::A, class::IN)).bytes();
    let labels = |count: usize| [&b"\x07abcdefg".repeat(count)[..], b"\0"].concat();
    let mut cut = Vec::new();
    let whole = a("www.test.").bytes();
    for len in HEADER_LEN..whole.len() {
        cut.push((
            "a question that breaks off",
            code::FORMERR,
            whole[..len].to_vec(),
        ));
    }
    assert_codes(&ways, &cut)?;
    assert_codes(
        &ways,
        &[
            ("a pointer to itself", code::FORMERR, of(b"\xc0\x0c")),
            ("a pointer to the header", code::FORMERR, of(b"\xc0\x00")),
            ("a pointer forwards", code::FORMERR, of(b"\xc0\x20")),
            (
                "a pointer behind a label",
                code::FORMERR,
                of(b"\x03www\xc0\x0c"),
            ),
            ("half a pointer", code::FORMERR, Ask::raw(b"\xc0").bytes()),
            ("label type 01", code::FORMERR, of(b"\x41abc\0")),
            ("label type 10", code::FORMERR, of(b"\x80abc\0")),
            (
                "a label of 64",
                code::FORMERR,
                of(&[&[64][..], &[b'a'; 64], b"\0"].concat()),
            ),
            ("a name of 257 octets", code::FORMERR, of(&labels(32))),
            (
                "a name of 256 octets",
                code::FORMERR,
                of(&[&labels(31)[..248], b"\x06abcdef\0"].concat()),
            ),
            (
                "a label over the end",
                code::FORMERR,
                Ask::raw(b"\x3fabc").bytes(),
            ),
        ],
    )?;
    assert_eq!(scene.upstream.asked_all().len(), 0);
    ways.check_tiers()
}

#[test]
fn names_of_any_bytes_and_the_longest_ones_are_answered() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let scene = scene!(Setup::three_ways());
    scene
        .upstream
        .on("*.", Rule::addresses(300, &["192.0.2.1"]));
    scene
        .upstream
        .on("*.test.", Rule::addresses(300, &["192.0.2.1"]));
    let ways = Ways::open(&scene)?;
    let longest = "a2345678.".repeat(27) + "b2345.test.";
    assert_eq!(wire_name(&longest).len(), 255);
    let deepest = "a.".repeat(124) + "test.";
    assert_eq!(wire_name(&deepest).len(), 254);
    for name in [
        longest,
        deepest,
        "x".repeat(63) + ".test.",
        "_ipp._tcp.test.".into(),
        "with space.test.".into(),
        "*.test.".into(),
        "-.test.".into(),
        "xn--mnchen-3ya.test.".into(),
        "zero\0byte.test.".into(),
        "\u{7f}\u{1}\".test.".into(),
        "a\\b.test.".into(),
        "@.TEST.".into(),
    ] {
        let reply = ways.same(&a(&name).bytes())?;
        assert_eq!(reply.data(rtype::A).len(), 1, "{name}: {reply:?}");
    }
    let bytes = Ask::raw(&question(b"\x03\xff\x00.\x04test\0", rtype::A, class::IN)).bytes();
    assert_eq!(ways.same(&bytes)?.data(rtype::A).len(), 1);
    ways.check_tiers()
}

#[test]
fn what_stands_behind_the_question() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let scene = scene!(Setup::three_ways());
    scene
        .upstream
        .on("www.test.", Rule::addresses(300, &["192.0.2.1"]));
    let ways = Ways::open(&scene)?;
    let more = record("x.test.", rtype::A, class::IN, 60, &[192, 0, 2, 9]);
    let tsig = record("key.test.", 250, 255, 0, &[0; 30]);
    let sig0 = record(".", 24, 255, 0, &[0; 30]);
    let opt = OptRecord::size(1232);
    for (what, message) in [
        ("trailing bytes", a("www.test.").tail(b"\0trailing").bytes()),
        ("trailing record", a("www.test.").tail(&more).bytes()),
        ("an additional record", a("www.test.").and(&more).bytes()),
        ("TSIG", a("www.test.").and(&tsig).bytes()),
        ("SIG(0)", a("www.test.").edns(&opt).and(&sig0).bytes()),
        (
            "trailing bytes behind OPT",
            a("www.test.").edns(&opt).tail(&[0xff; 300]).bytes(),
        ),
    ] {
        let reply = ways.same(&message).context(what)?;
        assert_eq!(reply.data(rtype::A).len(), 1, "{what}: {reply:?}");
    }
    assert_codes(
        &ways,
        &[
            (
                "an answer",
                code::FORMERR,
                a("www.test.").tail(&more).count(1, 1).bytes(),
            ),
            (
                "an authority",
                code::FORMERR,
                a("www.test.").tail(&more).count(2, 1).bytes(),
            ),
            (
                "a record that is not there",
                code::FORMERR,
                a("www.test.").count(3, 1).bytes(),
            ),
            (
                "a record that breaks off",
                code::FORMERR,
                a("www.test.").and(&more[..20]).bytes(),
            ),
            (
                "60,000 records",
                code::FORMERR,
                a("www.test.").and(&more).count(3, 60_000).bytes(),
            ),
        ],
    )?;
    ways.check_tiers()
}

#[test]
fn what_is_no_query_gets_no_answer() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let scene = scene!(Setup::three_ways());
    scene
        .upstream
        .on("www.test.", Rule::addresses(300, &["192.0.2.1"]));
    let ways = Ways::open(&scene)?;
    let query = a("www.test.").bytes();
    for len in [1, 2, 5, 11] {
        ways.silent(&query[..len])?;
    }
    ways.silent(&a("www.test.").with(flag::QR).bytes())?;
    ways.silent(&a("www.test.").opcode(4).with(flag::QR).bytes())?;
    ways.silent(
        &a("www.test.")
            .with(flag::QR | flag::TC)
            .edns(&OptRecord::size(512))
            .bytes(),
    )?;
    // The length of an ICMP error: a whole answer of another server.
    let mut answer = a("www.test.").with(flag::QR | flag::RA).count(1, 1);
    answer = answer.tail(&record("www.test.", rtype::A, class::IN, 9, &[1, 2, 3, 4]));
    ways.silent(&answer.bytes())?;
    ways.check_tiers()?;
    assert_eq!(scene.upstream.asked_all().len(), 0);
    Ok(())
}

#[test]
fn flags_of_the_query_and_of_its_answer() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let scene = scene!(Setup::three_ways());
    scene
        .upstream
        .on("www.test.", Rule::addresses(300, &["192.0.2.1"]));
    let ways = Ways::open(&scene)?;
    let of = |flags| ways.same(&a("www.test.").flags(flags).bytes());
    // RD and CD come back; AA, RA, Z and an RCODE in the query mean nothing; AD needs a trusted upstream.
    for (flags, expected) in [
        (flag::RD, flag::RD),
        (0, 0),
        (flag::RD | flag::CD, flag::RD | flag::CD),
        (flag::CD, flag::CD),
        (flag::RD | flag::AA, flag::RD),
        (flag::RD | flag::RA | flag::Z, flag::RD),
        (flag::RD | flag::AD, flag::RD),
        (flag::RD | 0xf, flag::RD),
    ] {
        let reply = of(flags)?;
        assert_eq!(
            reply.flags,
            flag::QR | flag::RA | expected,
            "{flags:04x}: {reply:?}"
        );
        assert_eq!(reply.data(rtype::A).len(), 1);
    }
    // A query cannot be truncated.
    assert_eq!(of(flag::RD | flag::TC)?.rcode(), code::FORMERR);
    ways.check_tiers()
}

#[test]
fn types_that_are_unknown_and_types_that_ask_for_no_record() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let scene = scene!(Setup::three_ways());
    let opaque = |rtype: u16| RData::Unknown {
        code: rtype.into(),
        rdata: NULL::with(b"\x03www\xc0\x0c any bytes".to_vec()),
    };
    for rtype in [65_280, 65_534, 1_234] {
        let name = format!("type{rtype}.test.");
        scene
            .upstream
            .on(&name, Rule::answer(300, &[opaque(rtype)]));
    }
    let ways = Ways::open(&scene)?;
    for rtype in [65_280, 65_534, 1_234] {
        let reply = ways.same(&Ask::of(&format!("type{rtype}.test."), rtype).bytes())?;
        assert_eq!(reply.data(rtype), [b"\x03www\xc0\x0c any bytes"]);
    }
    let asked = scene.upstream.asked_all().len();
    let meta = |rtype| Ask::of("test.", rtype).bytes();
    assert_codes(
        &ways,
        &[
            ("AXFR", code::REFUSED, meta(252)),
            ("IXFR", code::REFUSED, meta(251)),
            ("MAILB", code::REFUSED, meta(253)),
            ("MAILA", code::REFUSED, meta(254)),
            ("TSIG", code::FORMERR, meta(250)),
            ("TKEY", code::FORMERR, meta(249)),
            ("OPT", code::FORMERR, meta(41)),
            ("type 0", code::FORMERR, meta(0)),
        ],
    )?;
    assert_eq!(scene.upstream.asked_all().len(), asked);
    ways.check_tiers()
}

#[test]
fn any_is_answered_with_as_little_as_can_be() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let scene = scene!(Setup::three_ways());
    let ways = Ways::open(&scene)?;
    for ask in [
        Ask::of("Www.test.", rtype::ANY),
        Ask::of("test.", rtype::ANY).edns(&OptRecord::dnssec_ok(4096)),
        Ask::of(".", rtype::ANY),
    ] {
        let reply = ways.same(&ask.bytes())?;
        // RFC 8482 section 4.2.
        let [hinfo] = reply.answers() else {
            panic!("one record: {reply:?}")
        };
        assert_eq!((reply.rcode(), hinfo.rtype), (code::NOERROR, rtype::HINFO));
        assert_eq!(hinfo.rdata, b"\x07RFC8482\0");
        assert!(!reply.has(flag::AA | flag::TC));
    }
    assert_eq!(scene.upstream.asked_all().len(), 0);
    ways.check_tiers()
}

#[test]
fn other_classes_are_refused() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let scene = scene!(Setup::three_ways());
    let ways = Ways::open(&scene)?;
    let mut cases = Vec::new();
    // Reserved, CSNET, CHAOS, Hesiod, NONE, ANY, private.
    for class in [0, 2, 3, 4, 254, 255, 65_280] {
        let ask = Ask::of_class("www.test.", rtype::A, class);
        cases.push(("a class", code::REFUSED, ask.bytes()));
        let with_edns = ask.edns(&OptRecord::size(1232)).bytes();
        assert_eq!(ways.same(&with_edns)?.ede(), Some(code::NOT_SUPPORTED));
    }
    for name in [
        "version.bind.",
        "version.server.",
        "id.server.",
        "hostname.bind.",
        "authors.bind.",
    ] {
        let ask = Ask::of_class(name, rtype::TXT, class::CH);
        cases.push(("CHAOS without config", code::REFUSED, ask.bytes()));
    }
    assert_codes(&ways, &cases)?;
    assert_eq!(scene.upstream.asked_all().len(), 0);
    ways.check_tiers()
}

#[test]
fn chaos_says_what_the_config_says() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let sections = "[identity]\nversion = \"one 1.0\"\nid = \"router 7\"\n";
    let scene = scene!(Setup::three_ways().sections(sections));
    let ways = Ways::open(&scene)?;
    for (name, text) in [
        ("version.bind.", "one 1.0"),
        ("VERSION.server.", "one 1.0"),
        ("id.Server.", "router 7"),
        ("hostname.bind.", "router 7"),
    ] {
        for rtype in [rtype::TXT, rtype::ANY] {
            let reply = ways.same(&Ask::of_class(name, rtype, class::CH).bytes())?;
            let [record] = reply.answers() else {
                panic!("one record: {reply:?}")
            };
            let said = [&[u8::try_from(text.len())?][..], text.as_bytes()].concat();
            assert_eq!(record.rdata, said, "{name}");
            assert_eq!(
                (record.rtype, record.class, record.ttl),
                (rtype::TXT, class::CH, 0)
            );
        }
    }
    assert_codes(
        &ways,
        &[
            (
                "another name",
                code::REFUSED,
                Ask::of_class("authors.bind.", rtype::TXT, class::CH).bytes(),
            ),
            (
                "another type",
                code::REFUSED,
                Ask::of_class("version.bind.", rtype::A, class::CH).bytes(),
            ),
            (
                "below",
                code::REFUSED,
                Ask::of_class("x.version.bind.", rtype::TXT, class::CH).bytes(),
            ),
            (
                "Hesiod",
                code::REFUSED,
                Ask::of_class("version.bind.", rtype::TXT, 4).bytes(),
            ),
        ],
    )?;
    assert_eq!(scene.upstream.asked_all().len(), 0);
    ways.check_tiers()
}

#[test]
fn what_no_datagram_holds_comes_whole_in_a_stream() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let scene = scene!(Setup::three_ways());
    let strings: Vec<RData> = (0..40).map(|number| txt(number, 250)).collect();
    scene.upstream.on("big.test.", Rule::answer(300, &strings));
    let few: Vec<RData> = (0..5).map(|number| txt(number, 200)).collect();
    scene.upstream.on("few.test.", Rule::answer(300, &few));
    let ways = Ways::open(&scene)?;
    let sizes = [0, 511, 512, 513, 800, 1232, 1233, 4096, 65_535];
    for (name, count, fits_at) in [("big.test.", 40, u16::MAX), ("few.test.", 5, 1232)] {
        let plain = Ask::of(name, rtype::TXT);
        let (short, long) = ways.truncated(&plain.bytes())?;
        assert!(short.bytes.len() <= 512 && short.opt.is_none(), "{short:?}");
        assert_eq!(long.data(rtype::TXT).len(), count);
        for size in sizes {
            let ask = plain.clone().edns(&OptRecord::dnssec_ok(size)).bytes();
            let long = if name == "few.test." && size >= fits_at {
                ways.same(&ask)?
            } else {
                let (short, long) = ways.truncated(&ask)?;
                assert!(short.bytes.len() <= usize::from(size).clamp(512, 1232));
                assert_opt(&short);
                long
            };
            assert_opt(&long);
            assert_eq!(long.data(rtype::TXT).len(), count);
        }
    }
    ways.check_tiers()
}

#[test]
fn what_fits_of_a_long_answer_is_whole_rrsets() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let scene = scene!(Setup::three_ways());
    let strings: Vec<RData> = (0..5).map(|number| txt(number, 150)).collect();
    let chain = Rule::answer(300, &[cname("big.test.")]).and("big.test.", 300, &strings);
    scene.upstream.on("alias.test.", chain);
    let ways = Ways::open(&scene)?;
    for ask in [
        Ask::of("alias.test.", rtype::TXT),
        Ask::of("alias.test.", rtype::TXT).edns(&OptRecord::size(700)),
    ] {
        // `truncated` checks that no RRset is incomplete.
        let (short, long) = ways.truncated(&ask.bytes())?;
        let types = short.answers().iter().map(|record| record.rtype);
        assert_eq!(types.collect::<Vec<_>>(), [rtype::CNAME], "{short:?}");
        assert_eq!(long.answers().len(), 6);
    }
    ways.check_tiers()
}

#[test]
fn queries_longer_than_any_are_answered_all_the_same() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let scene = scene!(Setup::three_ways());
    scene
        .upstream
        .on("www.test.", Rule::addresses(300, &["192.0.2.1"]));
    for family in Family::ALL {
        // In fragments, which the kernel reassembles.
        let client = scene.udp_client(family)?;
        for len in [1_232, 1_500, 4_095, 4_096, 4_097, 9_000, 60_000] {
            let mut query = a("www.test.").bytes();
            query.resize(len, 0);
            let reply = View::parse(&client.exchange(&query)?)?;
            assert_eq!(reply.data(rtype::A).len(), 1, "{len}: {reply:?}");
        }
    }
    Ok(())
}

#[test]
fn damaged_queries_have_the_same_fate_by_all_ways() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let scene = scene!(Setup::three_ways());
    let ways = Ways::open(&scene)?;
    let cookie = OptRecord::dnssec_ok(1232).option(option::COOKIE, b"clientco");
    let more = record("x.lan.", rtype::A, class::IN, 60, &[192, 0, 2, 1]);
    let sound = [
        a("a.localhost.").edns(&cookie).bytes(),
        Ask::of_class("version.bind.", rtype::TXT, class::CH).bytes(),
        a("home.arpa.")
            .and(&more)
            .edns(&OptRecord::size(600))
            .bytes(),
    ];
    let mut random = Random::new(1);
    let (mut answered, mut silent) = (0, 0);
    for round in 0..400 {
        let mut message = sound[round % sound.len()].clone();
        // After the ID, so that answers can be told apart. Damaged names may be asked anywhere.
        for _ in 0..=random.below(3) {
            let at = 2 + usize::try_from(random.below(message.len() as u64 - 2))?;
            message[at] = random.pick(&[0, 1, 0xc0, 0xff, 0x80, 12]);
        }
        if random.percent(12) {
            let len = usize::try_from(random.below(message.len() as u64))?;
            message.truncate(len);
        }
        let family = Family::ALL[round % 2];
        match ways.same_or_silent(family, &message)? {
            Some(_) => answered += 1,
            None => silent += 1,
        }
    }
    assert!(answered > 200 && silent > 5, "{answered} {silent}");
    ways.check_tiers()
}

/// OPT with our size and the DO of the query.
fn assert_opt(reply: &View) {
    let opt = reply.opt.as_ref().expect("OPT");
    assert_eq!((opt.size, opt.version, opt.flags), (1232, 0, 0x8000));
}

/// RFC 1035 section 4.1.1: without RD the client gets only local and cached data.
#[test]
fn without_rd_nothing_leaves() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let setup = Setup::three_ways().sections("[local]\nrecords = [\"nas.lan A 192.168.1.2\"]\n");
    let scene = scene!(setup);
    let rule = Rule::addresses(300, &["192.0.2.1"]);
    scene.upstream.on("www.test.", rule);
    let ways = Ways::open(&scene)?;
    let without = |name: &str| ways.same(&a(name).flags(0).edns(&OptRecord::size(1232)).bytes());
    let refused = without("www.test.")?;
    assert_eq!(refused.rcode(), code::REFUSED);
    assert!(!refused.has(flag::RD));
    assert_eq!(without("localhost.")?.rcode(), code::NOERROR);
    assert_eq!(without("nas.lan.")?.answers().len(), 1);
    assert!(scene.upstream.asked("www.test.").is_empty());
    ways.same(&a("www.test.").bytes())?;
    let kept = without("www.test.")?;
    assert_eq!((kept.rcode(), kept.answers().len()), (code::NOERROR, 1));
    assert_eq!(scene.upstream.asked("www.test.").len(), 1);
    Ok(())
}
