//! Aliases: in one answer, over several, in loops, in endless chains; and unrelated records in answers.

use std::time::{Duration, Instant};

use anyhow::Result;
use hickory_proto::op::ResponseCode;

use crate::support::message::{UDP_LEN_MAX, wire};
use crate::support::scene::{Scene, Setup, scene};
use crate::support::script::Rule;
use crate::support::text::{
    Case, ask_all, assert_answer, assert_records, check_all, ede, question,
};
use crate::support::ways::Ways;

const NX: ResponseCode = ResponseCode::NXDomain;
const OK: ResponseCode = ResponseCode::NoError;
const FAIL: ResponseCode = ResponseCode::ServFail;
const SOA: &str = "test. 60 SOA ns.test. h.test. 1 3600 600 86400 60";

fn on(scene: &Scene, name: &str, answers: &[&str]) {
    scene.upstream.on(name, Rule::records(answers));
}

/// Answers to clients in [`aliases_are_followed_to_their_end`].
const FOLLOWED: &[Case] = &[
    (
        "whole.test. A",
        OK,
        &[
            "whole.test. 300 CNAME a.test.",
            "a.test. 200 CNAME b.test.",
            "b.test. 100 A 192.0.2.1",
            "b.test. 100 A 192.0.2.2",
        ],
    ),
    (
        "cut.test. A",
        OK,
        &["cut.test. 300 CNAME end.test.", "end.test. 100 A 192.0.2.1"],
    ),
    (
        "twice.test. A",
        OK,
        &[
            "twice.test. 300 CNAME cut.test.",
            "cut.test. 300 CNAME end.test.",
            "end.test. 100 A 192.0.2.1",
        ],
    ),
    ("to-nx.test. A", NX, &["to-nx.test. 300 CNAME nx.test."]),
    (
        "whole-nx.test. A",
        NX,
        &["whole-nx.test. 300 CNAME nx.test."],
    ),
    (
        "to-empty.test. A",
        OK,
        &["to-empty.test. 300 CNAME empty.test."],
    ),
    ("to-bad.test. A", FAIL, &[]),
    // The alias itself.
    ("cut.test. CNAME", OK, &["cut.test. 300 CNAME end.test."]),
];

#[test]
fn aliases_are_followed_to_their_end() -> Result<()> {
    let scene = scene!(Setup::three_ways());
    let ways = Ways::open(&scene)?;
    // In one answer, in any order, with unrelated records between.
    on(
        &scene,
        "whole.test.",
        &[
            "b.test. 100 A 192.0.2.1",
            "other.test. 100 A 203.0.113.66",
            "a.test. 200 CNAME b.test.",
            "whole.test. 300 CNAME a.test.",
            "b.test. 100 A 192.0.2.2",
        ],
    );
    // Split over answers, once and twice.
    on(&scene, "cut.test.", &["cut.test. 300 CNAME end.test."]);
    on(&scene, "end.test.", &["end.test. 100 A 192.0.2.1"]);
    on(&scene, "twice.test.", &["twice.test. 300 CNAME cut.test."]);
    // To a name that does not exist, and to one without such a record.
    on(&scene, "to-nx.test.", &["to-nx.test. 300 CNAME nx.test."]);
    scene
        .upstream
        .on("nx.test.", Rule::sections(NX, [&[], &[SOA], &[]]));
    let whole_nx: &[&str] = &["whole-nx.test. 300 CNAME nx.test."];
    scene.upstream.on(
        "whole-nx.test.",
        Rule::sections(NX, [whole_nx, &[SOA], &[]]),
    );
    on(
        &scene,
        "to-empty.test.",
        &["to-empty.test. 300 CNAME empty.test."],
    );
    scene
        .upstream
        .on("empty.test.", Rule::sections(OK, [&[], &[SOA], &[]]));
    // To a name that fails.
    on(
        &scene,
        "to-bad.test.",
        &["to-bad.test. 300 CNAME bad.test."],
    );
    scene.upstream.on("bad.test.", Rule::code(FAIL));
    check_all(&ways, FOLLOWED)?;
    let first = ask_all(&ways, "to-nx.test. A edns")?;
    assert_records(first.name_servers(), &[SOA], &first);
    assert_eq!(
        scene.upstream.asked("cut.test.").len(),
        3,
        "for itself, for another, its CNAME"
    );
    assert_eq!(
        scene.upstream.asked("end.test.").len(),
        2,
        "with the chain it is one answer"
    );
    ways.check_tiers()
}

#[test]
fn circles_and_endless_chains_fail_soon() -> Result<()> {
    let scene = scene!(Setup::three_ways());
    let ways = Ways::open(&scene)?;
    on(&scene, "self.test.", &["self.test. 300 CNAME self.test."]);
    on(
        &scene,
        "one.test.",
        &[
            "one.test. 300 CNAME two.test.",
            "two.test. 300 CNAME one.test.",
        ],
    );
    on(&scene, "ping.test.", &["ping.test. 300 CNAME pong.test."]);
    on(&scene, "pong.test.", &["pong.test. 300 CNAME ping.test."]);
    let long = |count: usize| -> Vec<String> {
        let link = |at| format!("n{at}.l{count}.test. 300 CNAME n{}.l{count}.test.", at + 1);
        let mut chain: Vec<String> = (0..count).map(link).collect();
        chain.push(format!("n{count}.l{count}.test. 300 A 192.0.2.1"));
        chain
    };
    for count in [12, 40] {
        let chain = long(count);
        let records: Vec<&str> = chain.iter().map(String::as_str).collect();
        on(&scene, &format!("n0.l{count}.test."), &records);
    }
    for name in ["self.test.", "one.test.", "ping.test.", "n0.l40.test."] {
        let start = Instant::now();
        let answer = ask_all(&ways, &format!("{name} A edns"))?;
        assert_answer(&answer, FAIL, &[]);
        assert_eq!(ede(&answer), Some(0), "whoever sees the end: {answer}");
        assert!(
            start.elapsed() < Duration::from_secs(2),
            "{name}: {:?}",
            start.elapsed()
        );
        assert!(scene.upstream.asked(name).len() <= 6, "{name}");
    }
    let answer = ask_all(&ways, "n0.l12.test. A edns")?;
    assert_eq!(
        (answer.response_code(), answer.answers().len()),
        (OK, 13),
        "{answer}"
    );
    Ok(())
}

#[test]
fn what_does_not_answer_the_question_is_neither_passed_on_nor_kept() -> Result<()> {
    const POISON: &str = "203.0.113.66";
    let scene = scene!(Setup::three_ways());
    let ways = Ways::open(&scene)?;
    let bad = |owner: &str| format!("{owner} 3600 A {POISON}");
    let victims = [
        "victim.test.",
        "bank.example.",
        "ns.test.",
        "www.test.test.",
    ];
    for victim in victims {
        scene
            .upstream
            .on(victim, Rule::addresses(300, &["192.0.2.9"]));
    }
    // In the answer, in the authority section, as glue, below the QNAME, in another class.
    let answer: Vec<String> = [
        "www.test. 300 A 192.0.2.1".to_owned(),
        bad("victim.test."),
        bad("bank.example."),
        bad("www.test.test."),
        "www.test. 300 AAAA 2001:db8::66".to_owned(),
        "www.test. 300 TXT nobody-asked".to_owned(),
    ]
    .to_vec();
    let answer: Vec<&str> = answer.iter().map(String::as_str).collect();
    let glue = victims.map(bad);
    let glue: Vec<&str> = glue.iter().map(String::as_str).collect();
    let authority = [
        "test. 3600 NS victim.test.",
        "example. 3600 NS bank.example.",
    ];
    scene.upstream.on(
        "www.test.",
        Rule::sections(OK, [&answer, &authority, &glue]),
    );
    // An unrelated alias with an unrelated target.
    let stray: &[&str] = &[
        "stray.test. 300 A 192.0.2.1",
        "victim.test. 300 CNAME bank.example.",
    ];
    scene
        .upstream
        .on("stray.test.", Rule::sections(OK, [stray, &[], &glue]));
    check_all(
        &ways,
        &[
            ("www.test. A", OK, &["www.test. 300 A 192.0.2.1"]),
            ("stray.test. A", OK, &["stray.test. 300 A 192.0.2.1"]),
            ("victim.test. A", OK, &["victim.test. 300 A 192.0.2.9"]),
            ("bank.example. A", OK, &["bank.example. 300 A 192.0.2.9"]),
            ("ns.test. A", OK, &["ns.test. 300 A 192.0.2.9"]),
            ("www.test.test. A", OK, &["www.test.test. 300 A 192.0.2.9"]),
        ],
    )?;
    let answer = ask_all(&ways, "www.test. A edns")?;
    assert!(
        answer.name_servers().is_empty() && answer.additionals().is_empty(),
        "{answer}"
    );
    let dump = scene.daemon.control("cache dump")?;
    assert!(!dump.contains(POISON), "{dump}");
    Ok(())
}

/// RFC 2181 section 5, RFC 2308 section 2.2; codes about our message are not passed to the client.
#[test]
fn repetitions_referrals_and_strange_codes_stay_here() -> Result<()> {
    let scene = scene!(Setup::three_ways());
    let ways = Ways::open(&scene)?;
    on(
        &scene,
        "twice.test.",
        &[
            "twice.test. 300 A 192.0.2.1",
            "twice.test. 300 A 192.0.2.1",
            "twice.test. 300 A 192.0.2.2",
            "twice.test. 300 MX 5 mx.test.",
            "twice.test. 300 MX 5 mx.test.",
        ],
    );
    // A pointer into the question, in a type where it only has to be understood (RFC 3597 section 4).
    on(
        &scene,
        "naptr.test.",
        &["naptr.test. 300 TYPE35 \\# 000a0014 00 00 00 c00c"],
    );
    let lame: &[&str] = &["test. 600 NS ns.test."];
    let glue: &[&str] = &["ns.test. 600 A 192.0.2.9"];
    scene
        .upstream
        .on("lame.test.", Rule::sections(OK, [&[], lame, glue]));
    scene
        .upstream
        .on("strange.test.", Rule::code(ResponseCode::NotAuth));
    scene
        .upstream
        .on("refused.test.", Rule::code(ResponseCode::Refused));
    check_all(
        &ways,
        &[
            (
                "twice.test. A",
                OK,
                &["twice.test. 300 A 192.0.2.1", "twice.test. 300 A 192.0.2.2"],
            ),
            ("twice.test. MX", OK, &["twice.test. 300 MX 5 mx.test."]),
            (
                "naptr.test. TYPE35",
                OK,
                &["naptr.test. 300 TYPE35 \\# 000a0014 00 00 00 056e61707472047465737400"],
            ),
            ("lame.test. A edns", FAIL, &[]),
            ("strange.test. A edns", FAIL, &[]),
            ("refused.test. A edns", ResponseCode::Refused, &[]),
        ],
    )?;
    for name in ["lame.test.", "strange.test.", "refused.test."] {
        // RFC 8914 section 4.23.
        let answer = ask_all(&ways, &format!("{name} A edns"))?;
        assert_eq!(ede(&answer), Some(22), "{answer}");
    }
    Ok(())
}

#[test]
fn odd_answers_are_passed_on_whole() -> Result<()> {
    let scene = scene!(Setup::three_ways());
    let ways = Ways::open(&scene)?;
    // example. A, signed by test.: type covered 1 (or 48, 6), algorithm 8, labels 1, TTL, times, tag, signer, signature.
    let rrsig = |covered: &str| {
        format!("\\# {covered} 08 01 0000012c 70000000 60000000 1234 047465737400 aabbcc")
    };
    let (sig_a, sig_soa, sig_ds) = (rrsig("0001"), rrsig("0006"), rrsig("002b"));
    let lone = format!("lone.test. 300 RRSIG {sig_a}");
    on(&scene, "lone.test.", &[&lone]);
    let signed = [
        "signed.test. 300 A 192.0.2.1".to_owned(),
        format!("signed.test. 300 RRSIG {sig_a}"),
    ];
    on(&scene, "signed.test.", &[&signed[0], &signed[1]]);
    // The parent's side of a zone cut: DS, and its denial with proof.
    let ds = "child.test. 300 DS \\# 1234 08 02 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    let sig = format!("child.test. 300 RRSIG {sig_ds}");
    on(&scene, "child.test.", &[ds, &sig]);
    let proof = [
        SOA.to_owned(),
        format!("test. 60 RRSIG {sig_soa}"),
        "insecure.test. 60 NSEC \\# 047465737400 0006 200000000003".to_owned(),
    ];
    let proof: Vec<&str> = proof.iter().map(String::as_str).collect();
    scene
        .upstream
        .on("insecure.test.", Rule::sections(OK, [&[], &proof, &[]]));
    // DNAME (RFC 6672) with the synthesized CNAME.
    on(
        &scene,
        "host.old.test.",
        &[
            "old.test. 300 DNAME \\# 036e6577047465737400",
            "host.old.test. 300 CNAME host.new.test.",
            "host.new.test. 200 A 192.0.2.1",
        ],
    );
    let https = "svc.test. 300 HTTPS 1 . alpn=h2,h3 ipv4hint=192.0.2.1";
    on(&scene, "svc.test.", &[https]);
    // AliasMode (RFC 9460 section 2.4.2): no parameters, another owner as target, which the client follows.
    on(
        &scene,
        "alias.test.",
        &["alias.test. 300 HTTPS \\# 0000 03706f6f047465737400"],
    );
    on(
        &scene,
        "odd.test.",
        &["odd.test. 300 TYPE65280 \\# 0102030405"],
    );
    let signed: &[&str] = &["signed.test. 300 A 192.0.2.1"];
    check_all(
        &ways,
        &[("signed.test. A", OK, &["signed.test. 300 A 192.0.2.1"])],
    )?;
    for (text, expected) in [
        (
            "signed.test. A do",
            vec![
                signed[0].to_owned(),
                format!("signed.test. 300 RRSIG {sig_a}"),
            ],
        ),
        ("lone.test. RRSIG", vec![lone.clone()]),
        ("child.test. DS do", vec![ds.to_owned(), sig]),
        ("child.test. DS", vec![ds.to_owned()]),
        (
            "host.old.test. A",
            vec![
                "old.test. 300 DNAME \\# 036e6577047465737400".to_owned(),
                "host.old.test. 300 CNAME host.new.test.".to_owned(),
                "host.new.test. 200 A 192.0.2.1".to_owned(),
            ],
        ),
        ("svc.test. HTTPS", vec![https.to_owned()]),
        (
            "alias.test. HTTPS",
            vec!["alias.test. 300 HTTPS \\# 0000 03706f6f047465737400".to_owned()],
        ),
        (
            "odd.test. TYPE65280",
            vec!["odd.test. 300 TYPE65280 \\# 0102030405".to_owned()],
        ),
    ] {
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        assert_answer(&ask_all(&ways, text)?, OK, &expected);
    }
    let denied = ask_all(&ways, "insecure.test. DS do")?;
    assert_records(denied.name_servers(), &proof, &denied);
    // A lone signature is no address.
    assert_answer(&ask_all(&ways, "lone.test. A do")?, OK, &[]);
    Ok(())
}

#[test]
fn what_no_datagram_holds_comes_over_streams() -> Result<()> {
    let scene = scene!(Setup::three_ways());
    let ways = Ways::open(&scene)?;
    let strings: Vec<String> = (0..12)
        .map(|n| format!("big.test. 300 TXT {n:02}{}", "x".repeat(240)))
        .collect();
    let records: Vec<&str> = strings.iter().map(String::as_str).collect();
    on(&scene, "big.test.", &records);
    let message = wire(&question("big.test. TXT edns"));
    let (short, long) = ways.truncated(&message)?;
    assert!(short.bytes.len() <= UDP_LEN_MAX);
    assert_eq!(long.sections[0].len(), 12);
    let asked = scene.upstream.asked("big.test.");
    assert!(
        asked[0]
            .query
            .extensions()
            .as_ref()
            .is_some_and(|edns| edns.max_payload() == 1232)
    );
    assert!(asked.iter().any(|asked| asked.is_tcp));
    Ok(())
}

/// RFC 6672 section 3.4: some servers omit the CNAME. It is synthesized: for the question, for a name in the middle of a chain,
/// and for one that becomes too long.
#[test]
fn a_cname_that_a_dname_leaves_out_is_made() -> Result<()> {
    let scene = scene!(Setup::three_ways());
    let ways = Ways::open(&scene)?;
    const DNAME: &str = "old.test. 300 DNAME \\# 036e6577047465737400";
    on(
        &scene,
        "a.b.old.test.",
        &[DNAME, "a.b.new.test. 200 A 192.0.2.1"],
    );
    on(&scene, "host.old.test.", &[DNAME]);
    on(
        &scene,
        "host.new.test.",
        &["host.new.test. 200 A 192.0.2.2"],
    );
    let long = format!("{0}.{0}.{0}.{1}.old.test.", "l".repeat(63), "l".repeat(48));
    let target = "n".repeat(20);
    let longer = format!("old.test. 300 DNAME \\# 14{}047465737400", "6e".repeat(20));
    assert!(
        long.len() - "old".len() + target.len() > 254,
        "{}",
        long.len()
    );
    on(&scene, &long, &[&longer]);
    check_all(
        &ways,
        &[
            (
                "a.b.old.test. A",
                OK,
                &[
                    DNAME,
                    "a.b.old.test. 300 CNAME a.b.new.test.",
                    "a.b.new.test. 200 A 192.0.2.1",
                ],
            ),
            (
                "host.old.test. A",
                OK,
                &[
                    DNAME,
                    "host.old.test. 300 CNAME host.new.test.",
                    "host.new.test. 200 A 192.0.2.2",
                ],
            ),
            (&format!("{long} A"), ResponseCode::YXDomain, &[&longer]),
        ],
    )
}
