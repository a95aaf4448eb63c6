//! What is cached, under which key, for how long, and how it is given again.

use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use xdnsd_core::counters::Counter;
use xdnsd_lab::wait::wait_until;

use crate::support::TIMEOUT;
use crate::support::client::{Family, RawClient};
use crate::support::message::{addresses, ttl};
use crate::support::run::only;
use crate::support::scene::{Scene, Setup, scene};
use crate::support::script::Rule;
use crate::support::text::{
    ask_all, assert_answer, assert_records, ede, question, record, record_type,
};
use crate::support::upstream::Asked;
use crate::support::ways::Ways;

/// RFC 8914: Stale Answer, Stale NXDOMAIN Answer.
const STALE: Option<u16> = Some(3);
const STALE_NXDOMAIN: Option<u16> = Some(19);

fn ask(client: &RawClient, text: &str) -> Result<Message> {
    client.ask(Family::V4, &question(text))
}

/// Number of questions to the upstream for a name.
fn count(scene: &Scene, name: &str) -> usize {
    scene.upstream.asked(name).len()
}

const NX: ResponseCode = ResponseCode::NXDomain;
const OK: ResponseCode = ResponseCode::NoError;

/// Name, code, authority section of the upstream, authority section of the client's answer, number of upstream questions for
/// two queries.
type Negative = (
    &'static str,
    ResponseCode,
    &'static [&'static str],
    &'static [&'static str],
    usize,
);

#[test]
fn negative_answers_are_kept_by_the_soa_of_their_zone() -> Result<()> {
    let cases: &[Negative] = &[
        (
            "nx.test.",
            NX,
            &["test. 600 SOA ns.test. h.test. 1 3600 600 86400 60"],
            &["test. 60 SOA ns.test. h.test. 1 3600 600 86400 60"],
            1,
        ),
        (
            "nx-ttl.test.",
            NX,
            &["test. 30 SOA ns.test. h.test. 1 3600 600 86400 600"],
            &["test. 30 SOA ns.test. h.test. 1 3600 600 86400 600"],
            1,
        ),
        (
            "nodata.test.",
            OK,
            &["test. 600 SOA ns.test. h.test. 1 3600 600 86400 60"],
            &["test. 60 SOA ns.test. h.test. 1 3600 600 86400 60"],
            1,
        ),
        (
            "nodata-own.test.",
            OK,
            &["nodata-own.test. 20 SOA ns.test. h.test. 1 3600 600 86400 60"],
            &["nodata-own.test. 20 SOA ns.test. h.test. 1 3600 600 86400 60"],
            1,
        ),
        (
            "nx-root.test.",
            NX,
            &[". 86400 SOA a.root-servers.net. nstld.test. 1 1800 900 604800 86400"],
            // At most `negative_max_ttl`.
            &[". 3600 SOA a.root-servers.net. nstld.test. 1 1800 900 604800 86400"],
            1,
        ),
        ("nx-bare.test.", NX, &[], &[], 2),
        ("nodata-bare.test.", OK, &[], &[], 2),
        (
            "nx-zero.test.",
            NX,
            &["test. 600 SOA ns.test. h.test. 1 3600 600 86400 0"],
            &["test. 0 SOA ns.test. h.test. 1 3600 600 86400 0"],
            2,
        ),
        // The SOA of another zone says nothing about this name.
        (
            "nx-foreign.test.",
            NX,
            &["example. 600 SOA ns.example. h.example. 1 3600 600 86400 60"],
            &[],
            2,
        ),
    ];
    let scene = scene!(Setup::default());
    let client = scene.raw_client()?;
    for (name, code, upstream, expected, asked) in cases {
        scene
            .upstream
            .on(name, Rule::sections(*code, [&[], upstream, &[]]));
        for _ in 0..2 {
            let answer = ask(&client, &format!("{name} A"))?;
            assert_answer(&answer, *code, &[]);
            assert_records(answer.name_servers(), expected, &answer);
        }
        assert_eq!(count(&scene, name), *asked, "{name}");
    }
    Ok(())
}

/// RFC 2308 section 5.
#[test]
fn nxdomain_is_kept_for_all_types_and_nodata_for_one() -> Result<()> {
    let scene = scene!(Setup::three_ways());
    let ways = Ways::open(&scene)?;
    const SOA: &str = "test. 60 SOA ns.test. h.test. 1 3600 600 86400 60";
    for (name, code, asked) in [("none.test.", NX, 1), ("some.test.", OK, 4)] {
        scene
            .upstream
            .on(name, Rule::sections(code, [&[], &[SOA], &[]]));
        for qtype in ["A", "AAAA", "MX", "TYPE65280"] {
            let answer = ask_all(&ways, &format!("{name} {qtype}"))?;
            assert_answer(&answer, code, &[]);
            assert_records(answer.name_servers(), &[SOA], &answer);
        }
        assert_eq!(count(&scene, name), asked, "{name}");
    }
    Ok(())
}

#[test]
fn every_type_and_dnssec_flag_is_a_question_of_its_own() -> Result<()> {
    let scene = scene!(Setup::default());
    scene.upstream.on(
        "www.test.",
        Rule::addresses(300, &["192.0.2.1", "2001:db8::1"]),
    );
    let client = scene.raw_client()?;
    let all = ["A", "AAAA", "MX", "A do", "A cd", "A do cd", "AAAA do"];
    for (number, question) in all.iter().enumerate() {
        for _ in 0..2 {
            ask(&client, &format!("www.test. {question}"))?;
        }
        let asked = scene.upstream.asked("www.test.");
        assert_eq!(asked.len(), number + 1, "{question}");
        let query = &asked[number].query;
        let dnssec_ok = query.extensions().as_ref().expect("OPT").flags().dnssec_ok;
        assert_eq!(dnssec_ok, question.contains("do"), "{question}");
        assert_eq!(
            query.checking_disabled(),
            question.contains("cd"),
            "{question}"
        );
        assert!(
            query.recursion_desired() && !query.authentic_data(),
            "{question}"
        );
    }
    // EDNS alone, AD and letter case make the same question.
    for same in [
        "www.test. A edns",
        "www.test. A ad",
        "WWW.Test. A",
        "wWw.tEST. AAAA edns",
    ] {
        ask(&client, same)?;
    }
    assert_eq!(count(&scene, "www.test."), all.len());
    Ok(())
}

#[test]
fn ttls_are_clamped_count_down_and_zero_is_not_kept() -> Result<()> {
    let scene =
        scene!(Setup::default().sections(
            "[cache]\nmin_ttl = 60\nmax_ttl = 100\nnegative_max_ttl = 50\nprefetch = false"
        ));
    // Name, TTL of the upstream, TTL of the client's answer, number of upstream questions for two queries.
    let cases = [
        ("short.test.", 5, 60, 1),
        ("low.test.", 60, 60, 1),
        ("between.test.", 80, 80, 1),
        ("long.test.", 86_400, 100, 1),
        ("zero.test.", 0, 0, 2),
        // RFC 2181 section 8: the high bit means zero.
        ("high.test.", 0x8000_0001, 0, 2),
    ];
    let client = scene.raw_client()?;
    for (name, given, expected, asked) in cases {
        scene
            .upstream
            .on(name, Rule::addresses(given, &["192.0.2.1"]));
        for _ in 0..2 {
            let answer = ask(&client, &format!("{name} A"))?;
            assert!(
                ttl(&answer) <= expected && ttl(&answer) + 3 > expected,
                "{name}: {answer}"
            );
        }
        assert_eq!(count(&scene, name), asked, "{name}");
    }
    // One RRset has one TTL, the shortest (RFC 2181 section 5.2); a chain's records have their own.
    let rule = Rule::records(&[
        "mixed.test. 90 CNAME end.test.",
        "end.test. 80 A 192.0.2.1",
        "end.test. 70 A 192.0.2.2",
    ]);
    scene.upstream.on("mixed.test.", rule);
    let first = ask(&client, "mixed.test. A")?;
    assert_answer(
        &first,
        OK,
        &[
            "mixed.test. 90 CNAME end.test.",
            "end.test. 70 A 192.0.2.1",
            "end.test. 70 A 192.0.2.2",
        ],
    );
    let negative = Rule::sections(
        NX,
        [
            &[],
            &["test. 600 SOA ns.test. h.test. 1 3600 600 86400 600"],
            &[],
        ],
    );
    scene.upstream.on("nx.test.", negative);
    let answer = ask(&client, "nx.test. A")?;
    assert_eq!(answer.name_servers()[0].ttl(), 50, "{answer}");
    sleep(Duration::from_millis(2_100));
    let later = ask(&client, "mixed.test. A")?;
    let ttls = |message: &Message| -> Vec<u32> {
        message
            .answers()
            .iter()
            .map(|record| record.ttl())
            .collect()
    };
    for (before, after) in ttls(&first).into_iter().zip(ttls(&later)) {
        assert!((2..=4).contains(&(before - after)), "{first} {later}");
    }
    Ok(())
}

#[test]
fn a_failure_is_kept_for_a_moment_and_only_for_its_own_question() -> Result<()> {
    let scene = scene!(Setup::default().sections("[forward]\nfailure_ttl = 4"));
    for code in [ResponseCode::ServFail, ResponseCode::Refused] {
        let name = format!("code{}.test.", u16::from(code));
        scene.upstream.on(&name, Rule::code(code));
    }
    let client = scene.raw_client()?;
    for name in ["code2.test.", "code5.test."] {
        let start = Instant::now();
        let first = ask(&client, &format!("{name} A"))?;
        let asked = count(&scene, name);
        for _ in 0..3 {
            let again = ask(&client, &format!("{name} A"))?;
            assert_eq!(again.response_code(), first.response_code());
        }
        assert!(start.elapsed() < Duration::from_secs(4), "too slow to tell");
        assert_eq!(count(&scene, name), asked, "{name} is remembered");
        ask(&client, &format!("{name} AAAA"))?;
        assert_eq!(
            count(&scene, name),
            2 * asked,
            "another type is another question"
        );
        scene
            .upstream
            .on(name, Rule::addresses(300, &["192.0.2.1"]));
        wait_until("the failure is forgotten", TIMEOUT, || {
            ask(&client, &format!("{name} A")).is_ok_and(|answer| answer.response_code() == OK)
        })?;
    }
    Ok(())
}

/// The first address of each of `times` answers. Each answer has to have `all`.
fn firsts(client: &RawClient, name: &str, times: usize, all: &[&str]) -> Result<BTreeSet<String>> {
    let mut firsts = BTreeSet::new();
    for _ in 0..times {
        let answer = ask(client, &format!("{name} A"))?;
        assert_eq!(addresses(&answer), all);
        let records = answer.answers().iter();
        let mut of_type = records.filter(|record| record.record_type() == RecordType::A);
        let first = of_type.next().expect("an address");
        firsts.insert(first.data().to_string());
        let alias = answer
            .answers()
            .iter()
            .position(|record| record.record_type() == RecordType::CNAME);
        assert!(
            alias.is_none_or(|at| at == 0),
            "an alias stays in front: {answer}"
        );
    }
    Ok(firsts)
}

#[test]
fn addresses_change_their_order_or_keep_it_as_the_config_says() -> Result<()> {
    let all = ["192.0.2.1", "192.0.2.2", "192.0.2.3"];
    for (rotate, different) in [(true, 3), (false, 1)] {
        let scene = scene!(Setup::default().sections(&format!("[cache]\nrotate = {rotate}")));
        scene.upstream.on("www.test.", Rule::addresses(300, &all));
        let alias = Rule::records(&[
            "alias.test. 300 CNAME end.test.",
            "end.test. 300 A 192.0.2.1",
            "end.test. 300 A 192.0.2.2",
            "end.test. 300 A 192.0.2.3",
        ]);
        scene.upstream.on("alias.test.", alias);
        let client = scene.raw_client()?;
        for name in ["www.test.", "alias.test."] {
            let firsts = firsts(&client, name, 12, &all)?;
            assert_eq!(
                firsts.len(),
                different,
                "{name}, rotate: {rotate}: {firsts:?}"
            );
            assert!(
                rotate || firsts.contains("192.0.2.1"),
                "as the upstream has it: {firsts:?}"
            );
        }
    }
    Ok(())
}

#[test]
fn what_is_asked_for_in_the_last_tenth_is_fetched_before_it_is_missed() -> Result<()> {
    const TTL_SECS: u32 = 20;
    let scene = scene!(Setup::default());
    scene
        .upstream
        .on("*.test.", Rule::addresses(TTL_SECS, &["192.0.2.1"]));
    let client = scene.raw_client()?;
    let before = scene.daemon.metrics()?;
    for name in ["asked.test.", "forgotten.test."] {
        ask(&client, &format!("{name} A"))?;
    }
    sleep(Duration::from_millis(4_000));
    ask(&client, "asked.test. A")?;
    assert_eq!(count(&scene, "asked.test."), 1, "half of it is left");
    sleep(Duration::from_millis(14_300));
    // Slow: the client's answer does not wait for it.
    scene.upstream.on(
        "*.test.",
        Rule::addresses(TTL_SECS, &["192.0.2.2"]).after(Duration::from_millis(300)),
    );
    let answer = ask(&client, "asked.test. A")?;
    assert_eq!(addresses(&answer), ["192.0.2.1"]);
    wait_until("the new answer is there", TIMEOUT, || {
        ask(&client, "asked.test. A").is_ok_and(|answer| addresses(&answer) == ["192.0.2.2"])
    })?;
    assert_eq!(count(&scene, "asked.test."), 2, "fetched once");
    assert_eq!(count(&scene, "forgotten.test."), 1);
    let now = scene.daemon.metrics()?;
    assert_eq!(
        now.growth(&before, &Counter::CacheMisses),
        2,
        "nobody has waited"
    );
    Ok(())
}

#[test]
fn hits_do_not_wait_behind_misses() -> Result<()> {
    const SLOW: usize = 200;
    let scene = scene!(Setup::default());
    scene
        .upstream
        .on("hit.test.", Rule::addresses(300, &["192.0.2.1"]));
    scene.upstream.on("*.slow.test.", Rule::silence());
    let client = scene.raw_client()?;
    ask(&client, "hit.test. A")?;
    for number in 0..SLOW {
        let query = question(&format!("n{number}.slow.test. A"));
        let listen = crate::support::client::listen(Family::V4);
        let frame = client.frame(listen, &crate::support::message::wire(&query))?;
        client.send(&frame.to_bytes())?;
        if number % 20 == 0 {
            let start = Instant::now();
            ask(&client, "hit.test. A")?;
            assert!(
                start.elapsed() < Duration::from_millis(2_000),
                "{:?}",
                start.elapsed()
            );
        }
    }
    Ok(())
}

/// Puts the rules' answers into the cache and waits until their TTL of one second has expired.
fn expired(scene: &Scene, client: &RawClient, rules: &[(&str, Rule)]) -> Result<()> {
    for (name, rule) in rules {
        scene.upstream.on(name, rule.clone());
        ask(client, &format!("{name} A"))?;
    }
    sleep(Duration::from_millis(1_200));
    Ok(())
}

/// Asks with EDNS and measures the time to the answer.
fn timed(client: &RawClient, name: &str) -> Result<(Message, Duration)> {
    let start = Instant::now();
    let answer = ask(client, &format!("{name} A edns"))?;
    Ok((answer, start.elapsed()))
}

#[test]
fn a_stale_answer_comes_after_the_client_has_waited() -> Result<()> {
    let scene = scene!(Setup::default());
    let client = scene.raw_client()?;
    let short = || Rule::addresses(1, &["192.0.2.1"]);
    let gone = Rule::sections(
        NX,
        [
            &[],
            &["test. 1 SOA ns.test. h.test. 1 3600 600 86400 1"],
            &[],
        ],
    );
    let names = ["silent.test.", "slow.test.", "late.test.", "failing.test."];
    let rules = names.map(|name| (name, short()));
    expired(
        &scene,
        &client,
        &[rules.as_slice(), &[("gone.test.", gone)]].concat(),
    )?;
    let ms = Duration::from_millis;
    let fresh = || Rule::addresses(300, &["192.0.2.2"]);
    scene.upstream.on("slow.test.", fresh().after(ms(800)));
    scene.upstream.on("late.test.", fresh().after(ms(3_500)));
    scene
        .upstream
        .on("failing.test.", Rule::code(ResponseCode::ServFail));
    scene.upstream.on("silent.test.", Rule::silence());
    scene.upstream.on("gone.test.", Rule::silence());
    // Name, code, address, EDE, when.
    let cases = [
        ("slow.test.", OK, "192.0.2.2", None, 800..1_750),
        ("late.test.", OK, "192.0.2.1", STALE, 1_750..3_400),
        ("failing.test.", OK, "192.0.2.1", STALE, 0..1_700),
        ("silent.test.", OK, "192.0.2.1", STALE, 1_750..4_000),
        ("gone.test.", NX, "", STALE_NXDOMAIN, 1_750..4_000),
    ];
    for (name, code, address, extended, when) in cases {
        let (answer, took) = timed(&client, name)?;
        assert!(
            when.contains(&(took.as_millis() as u64)),
            "{name} took {took:?}: {answer}"
        );
        assert_eq!(answer.response_code(), code, "{answer}");
        assert_eq!(ede(&answer), extended, "{name}: {answer}");
        if code == OK {
            assert_eq!(addresses(&answer), [address], "{name}");
        }
        if extended == STALE {
            assert_eq!(ttl(&answer), 30, "RFC 8767 section 5.11");
        }
    }
    // The answer that came too late for one client is there for the next.
    wait_until("the late answer is there", TIMEOUT, || {
        timed(&client, "late.test.")
            .is_ok_and(|(answer, _)| addresses(&answer) == ["192.0.2.2"] && ede(&answer).is_none())
    })?;
    Ok(())
}

#[test]
fn a_dead_upstream_costs_nothing_where_there_is_a_stale_answer() -> Result<()> {
    only!(
        OVER_XDP,
        "what one worker has learnt; names are spread over several"
    );
    let scene = scene!(Setup::default().sections("[cache]\nstale_max_ttl = 5"));
    let client = scene.raw_client()?;
    expired(
        &scene,
        &client,
        &[("www.test.", Rule::addresses(1, &["192.0.2.1"]))],
    )?;
    scene.upstream.on("*.test.", Rule::silence());
    scene.upstream.on("www.test.", Rule::silence());
    // Three different questions show that the server is silent.
    for name in ["a.test.", "b.test.", "c.test."] {
        let frame = client.frame(
            crate::support::client::listen(Family::V4),
            &crate::support::message::wire(&question(&format!("{name} A"))),
        )?;
        client.send(&frame.to_bytes())?;
    }
    sleep(Duration::from_millis(1_000));
    for _ in 0..5 {
        let (answer, took) = timed(&client, "www.test.")?;
        assert_eq!(
            (addresses(&answer), ede(&answer)),
            (vec!["192.0.2.1".to_owned()], STALE)
        );
        assert!(took < Duration::from_millis(1_500), "{took:?}");
    }
    // It comes back, and is found.
    scene
        .upstream
        .on("www.test.", Rule::addresses(2, &["192.0.2.2"]));
    wait_until("the upstream is found again", TIMEOUT, || {
        timed(&client, "www.test.").is_ok_and(|(answer, _)| ede(&answer).is_none())
    })?;
    scene.upstream.on("www.test.", Rule::silence());
    sleep(Duration::from_millis(8_700));
    let (answer, _) = timed(&client, "www.test.")?;
    assert_eq!(
        answer.response_code(),
        ResponseCode::ServFail,
        "older than `stale_max_ttl`: {answer}"
    );
    Ok(())
}

#[test]
fn without_serve_stale_an_answer_ends_with_its_ttl() -> Result<()> {
    let scene = scene!(
        Setup::default().sections("[cache]\nserve_stale = false\n[forward]\ngive_up_ms = 600")
    );
    let client = scene.raw_client()?;
    expired(
        &scene,
        &client,
        &[("www.test.", Rule::addresses(1, &["192.0.2.1"]))],
    )?;
    scene.upstream.on("www.test.", Rule::silence());
    let (answer, took) = timed(&client, "www.test.")?;
    assert_eq!(answer.response_code(), ResponseCode::ServFail, "{answer}");
    assert_eq!(ede(&answer), Some(22), "No Reachable Authority");
    assert!(
        (550..4_000).contains(&(took.as_millis() as u64)),
        "{took:?}"
    );
    Ok(())
}

/// The address has TTL 0 and is never cached: a denial of another type says nothing about it (RFC 4074 section 4.2).
#[test]
fn an_upstream_that_denies_the_name_for_another_type_is_believed_for_that_type_alone() -> Result<()>
{
    const SOA: &str = "test. 3600 SOA ns.test. h.test. 1 3600 600 86400 3600";
    let scene = scene!(Setup::three_ways());
    let address = |query: &Message, reply: &mut Message| {
        let kind = query.queries()[0].query_type();
        if kind == RecordType::A {
            let name = query.queries()[0].name();
            reply.add_answer(record(&format!("{name} 0 A 192.0.2.1")));
        } else {
            reply.set_response_code(NX);
            reply.add_name_server(record(SOA));
        }
    };
    scene.upstream.on("zero.test.", Rule::made(address));
    scene.upstream.on("later.test.", Rule::made(address));
    let ways = Ways::open(&scene)?;
    // Before the address is known.
    assert_answer(&ask_all(&ways, "later.test. AAAA")?, NX, &[]);
    let answer = ask_all(&ways, "later.test. A")?;
    assert_answer(&answer, OK, &["later.test. 0 A 192.0.2.1"]);
    for kind in ["AAAA", "HTTPS"] {
        for _ in 0..2 {
            let answer = ask_all(&ways, "zero.test. A")?;
            assert_answer(&answer, OK, &["zero.test. 0 A 192.0.2.1"]);
            assert_answer(&ask_all(&ways, &format!("zero.test. {kind}"))?, NX, &[]);
        }
        let asked = scene.upstream.asked("zero.test.");
        let of_kind = |asked: &&Asked| asked.query.queries()[0].query_type() == record_type(kind);
        let count = asked.iter().filter(of_kind).count();
        assert!(count <= 2, "its own denial is kept: {kind} {count}");
    }
    Ok(())
}
