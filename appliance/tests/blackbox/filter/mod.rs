//! Blocked and allowed names, their lists, and answers with private addresses.

mod fetched;
mod files;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Result, ensure};
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use xdnsd_core::counters::Counter;
use xdnsd_lab::wait::wait_until;

use crate::support::TIMEOUT;
use crate::support::client::{Family, RawClient};
use crate::support::daemon;
use crate::support::message::query;
use crate::support::scene::{Scene, Setup, scene};
use crate::support::script::Rule;
use crate::support::text::{Case, ask_all, assert_answer, check_all, ede, question};
use crate::support::ways::Ways;

const NX: ResponseCode = ResponseCode::NXDomain;
const OK: ResponseCode = ResponseCode::NoError;
/// RFC 8914: Blocked.
const BLOCKED: Option<u16> = Some(15);

/// Writes a file before the daemon starts: `Setup` has no directory yet, so the test chooses the path.
fn write(path: &Path, text: &str) -> Result<()> {
    Ok(fs::write(path, text)?)
}

fn is_blocked(client: &RawClient, name: &str) -> Result<bool> {
    let answer = client.ask(Family::V4, &question(&format!("{name} A edns")))?;
    match (answer.response_code(), ede(&answer)) {
        (NX, BLOCKED) => Ok(true),
        (OK, None) => Ok(false),
        other => anyhow::bail!("{other:?}: {answer}"),
    }
}

fn wait_blocked(client: &RawClient, name: &str, blocked: bool) -> Result<()> {
    let what = format!("{name} is blocked: {blocked}");
    wait_until(&what, TIMEOUT, || {
        is_blocked(client, name).is_ok_and(|is| is == blocked)
    })
}

/// A folder of lists, removed at the end of the test.
struct Lists(crate::support::scene::Directory);

impl Lists {
    fn new(files: &[(&str, &str)]) -> Result<Self> {
        let lists = Self(crate::support::scene::Directory::new()?);
        for (file, text) in files {
            lists.write(file, text)?;
        }
        Ok(lists)
    }

    fn path(&self, file: &str) -> String {
        self.0.path().join(file).display().to_string()
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        write(&self.0.path().join(file), text)
    }
}

const HOSTS: &str = "127.0.0.1 localhost
0.0.0.0 exact.hosts.test # a comment
0.0.0.0 two.hosts.test three.hosts.test
:: six.hosts.test
192.168.1.5 not-a-block.test
";
const PLAIN: &str = "# domains\nplain.test\n*.wild.test\nUPPER.Test\nxn--mnchen-3ya.test\nBücher.test\n\nad.allowed.test\n";
const ADBLOCK: &str = "[Adblock Plus 2.0]
! title
||sub.adblock.test^
|exact.adblock.test^
||important.test^$important
||third.test^$third-party
||deny.adblock.test^
||nocaret.adblock.test
address=/one.dnsmasq.test/two.dnsmasq.test/0.0.0.0
server=/route.dnsmasq.test/192.0.2.1
@@||good.deny.adblock.test^
example.test##.banner
/banner/ads
";

/// Names that are blocked or not, by every form of list, wildcards and exceptions.
const BLOCKED_NAMES: &[&str] = &[
    "exact.hosts.test.",
    "two.hosts.test.",
    "three.hosts.test.",
    "six.hosts.test.",
    "plain.test.",
    "a.b.plain.test.",
    "PLAIN.tesT.",
    "x.wild.test.",
    "wild.test.",
    "upper.test.",
    "xn--mnchen-3ya.test.",
    "xn--bcher-kva.test.",
    "sub.adblock.test.",
    "x.sub.adblock.test.",
    "exact.adblock.test.",
    "important.test.",
    "deny.adblock.test.",
    "bad.deny.adblock.test.",
    "x.nocaret.adblock.test.",
    "one.dnsmasq.test.",
    "x.two.dnsmasq.test.",
    "config.test.",
    "a.config.test.",
    "below.star.test.",
];
const OTHER_NAMES: &[&str] = &[
    "sub.exact.hosts.test.",
    "not-a-block.test.",
    "notplain.test.",
    "x.exact.adblock.test.",
    "third.test.",
    "route.dnsmasq.test.",
    "good.deny.adblock.test.",
    "x.good.deny.adblock.test.",
    "example.test.",
    "ad.allowed.test.",
    "star.test.",
    "test.",
];

#[test]
fn every_form_of_list_blocks_what_it_says_and_nothing_else() -> Result<()> {
    let lists = Lists::new(&[
        ("hosts", HOSTS),
        ("plain", PLAIN),
        ("adblock", ADBLOCK),
        ("allow", "allowed.test\n"),
    ])?;
    let sections = format!(
        "[filter]\nblock_files = [{:?}, {:?}, {:?}]\nallow_files = [{:?}]\n\
         block = [\"config.test\", \"*.star.test\"]\n",
        lists.path("hosts"),
        lists.path("plain"),
        lists.path("adblock"),
        lists.path("allow"),
    );
    let scene = scene!(Setup::three_ways().sections(&sections));
    scene
        .upstream
        .on("*.test.", Rule::addresses(300, &["192.0.2.1"]));
    scene
        .upstream
        .on("test.", Rule::addresses(300, &["192.0.2.1"]));
    let ways = Ways::open(&scene)?;
    for name in BLOCKED_NAMES {
        let answer = ask_all(&ways, &format!("{name} A edns"))?;
        assert_answer(&answer, NX, &[]);
        assert_eq!(ede(&answer), BLOCKED, "{name}");
        assert!(scene.upstream.asked(name).is_empty(), "{name}");
    }
    for name in OTHER_NAMES {
        let answer = ask_all(&ways, &format!("{name} A edns"))?;
        assert_eq!((answer.response_code(), ede(&answer)), (OK, None), "{name}");
        assert_eq!(answer.answers().len(), 1, "{name}");
    }
    ways.check_tiers()
}

const ZONE: &str = "$TTL 30
@ SOA localhost. root.localhost. 1 86400 7200 2592000 86400
  NS localhost.
exact.zone.test CNAME .
*.ads.zone.test CNAME .
ok.ads.zone.test CNAME rpz-passthru.
none.zone.test CNAME *.
32.1.2.0.192.rpz-ip CNAME .
own.zone.test A 192.0.2.7
";

#[test]
fn a_response_policy_zone_is_a_list_by_its_first_line() -> Result<()> {
    let lists = Lists::new(&[("zone", ZONE), ("plain", "ads.zone.test\n")])?;
    let sections = format!(
        "[filter]\nblock_files = [{:?}, {:?}]\n",
        lists.path("zone"),
        lists.path("plain"),
    );
    let scene = scene!(Setup::three_ways().sections(&sections));
    scene
        .upstream
        .on("*.test.", Rule::addresses(300, &["192.0.2.1"]));
    let ways = Ways::open(&scene)?;
    for (name, code, said) in [
        ("exact.zone.test.", NX, BLOCKED),
        ("x.ads.zone.test.", NX, BLOCKED),
        ("none.zone.test.", OK, BLOCKED),
        // An exception to the other list, too.
        ("ok.ads.zone.test.", OK, None),
        ("a.exact.zone.test.", OK, None),
        ("own.zone.test.", OK, None),
    ] {
        let answer = ask_all(&ways, &format!("{name} A edns"))?;
        assert_eq!(
            (answer.response_code(), ede(&answer)),
            (code, said),
            "{name}"
        );
        assert_eq!(
            answer.answers().len(),
            usize::from(said.is_none()),
            "{name}"
        );
    }
    let log = scene.daemon.log();
    let read = "4 rules, 2 lines skipped; first: line 8 \"32.1.2.0.192.rpz-ip CNAME .\": trigger `rpz-ip` is not supported; read as 4 \
                of a response policy zone";
    ensure!(log.contains(read), "{log}");
    let why = scene.daemon.control("why x.ads.zone.test A 10.53.0.2")?;
    ensure!(why.contains("*.ads.zone.test CNAME ."), "{why}");
    ways.check_tiers()
}

/// Forms that mean less than they seem to, or something else.
const ODD: &str = "||dot.test.^
||taken.test^
||taken.test^$badfilter
other.test^
||other.test^$badfilter
||six.test^$dnstype=AAAA
||most.test^$denyallow=ok.most.test
@@||weighty.test^
||weighty.test^$important
://scheme.test^
.below.test^
||a*.star.test^
";

#[test]
fn odd_forms_of_rules_mean_what_adguards_engine_reads() -> Result<()> {
    let lists = Lists::new(&[("list", ODD)])?;
    let sections = format!("[filter]\nblock_files = [{:?}]\n", lists.path("list"));
    let scene = scene!(Setup::three_ways().sections(&sections));
    let rule = Rule::addresses(300, &["192.0.2.1", "2001:db8::1"]);
    scene.upstream.on("*.test.", rule);
    let ways = Ways::open(&scene)?;
    for (question, expected) in [
        ("dot.test. A", None),
        ("taken.test. A", None),
        // The rule that is not taken back.
        ("other.test. A", Some(NX)),
        ("six.test. A", None),
        // The name exists: NXDOMAIN would be wrong for A.
        ("six.test. AAAA", Some(OK)),
        ("a.most.test. A", Some(NX)),
        ("ok.most.test. A", None),
        ("weighty.test. A", Some(NX)),
        ("scheme.test. A", Some(NX)),
        ("a.scheme.test. A", None),
        ("below.test. A", None),
        ("a.below.test. A", Some(NX)),
        ("ads.star.test. A", Some(NX)),
        ("star.test. A", None),
        ("xads.star.test. A", None),
    ] {
        let answer = ask_all(&ways, &format!("{question} edns"))?;
        let (code, reason, records) = match expected {
            Some(code) => (code, BLOCKED, 0),
            None => (OK, None, 1),
        };
        assert_eq!(
            (answer.response_code(), ede(&answer)),
            (code, reason),
            "{question}"
        );
        assert_eq!(answer.answers().len(), records, "{question}");
    }
    ways.check_tiers()
}

#[test]
fn a_blocked_name_is_answered_as_the_config_says() -> Result<()> {
    const A: &str = "ads.test. A edns";
    const AAAA: &str = "ads.test. AAAA edns";
    const OTHER: &str = "ads.test. HTTPS edns";
    let cases: [(&str, &[Case]); 5] = [
        (
            "answer = \"nxdomain\"",
            &[(A, NX, &[]), (AAAA, NX, &[]), (OTHER, NX, &[])],
        ),
        (
            "answer = \"nodata\"",
            &[(A, OK, &[]), (AAAA, OK, &[]), (OTHER, OK, &[])],
        ),
        (
            "answer = \"zero\"\nttl = 7",
            &[
                (A, OK, &["ads.test. 7 A 0.0.0.0"]),
                (AAAA, OK, &["ads.test. 7 AAAA ::"]),
                (OTHER, OK, &[]),
            ],
        ),
        (
            "answer = \"address\"\naddresses = [\"192.0.2.7\", \"2001:db8::7\"]",
            &[
                (A, OK, &["ads.test. 60 A 192.0.2.7"]),
                (AAAA, OK, &["ads.test. 60 AAAA 2001:db8::7"]),
                (OTHER, OK, &[]),
            ],
        ),
        (
            "answer = \"address\"\naddresses = [\"192.0.2.7\"]",
            &[(A, OK, &["ads.test. 60 A 192.0.2.7"]), (AAAA, OK, &[])],
        ),
    ];
    for (lines, cases) in cases {
        let sections = format!("[filter]\nblock = [\"ads.test\"]\n{lines}\n");
        let scene = scene!(Setup::three_ways().sections(&sections));
        // The same behind an alias.
        let led = Rule::records(&["www.test. 300 CNAME ads.test.", "ads.test. 300 A 192.0.2.1"]);
        scene.upstream.on("www.test.", led);
        let ways = Ways::open(&scene)?;
        for (text, code, expected) in cases {
            let direct = ask_all(&ways, text)?;
            assert_answer(&direct, *code, expected);
            let text = text.replace("ads.test.", "www.test.");
            let through = ask_all(&ways, &text)?;
            let expected: Vec<String> = expected
                .iter()
                .map(|record| record.replace("ads.test.", "www.test."))
                .collect();
            let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
            assert_answer(&through, *code, &expected);
            for answer in [direct, through] {
                assert_eq!(ede(&answer), BLOCKED, "{answer}");
                // A negative answer has a TTL (RFC 2308).
                let is_negative = answer.answers().is_empty();
                assert_eq!(!answer.name_servers().is_empty(), is_negative, "{answer}");
            }
        }
        assert!(scene.upstream.asked("ads.test.").is_empty());
    }
    Ok(())
}

/// RFC 9460: a client follows the target of a service, in AliasMode or not.
#[test]
fn a_service_at_a_blocked_name_is_blocked() -> Result<()> {
    let scene = scene!(Setup::three_ways().sections("[filter]\nblock = [\"ads.test\"]\n"));
    let ways = Ways::open(&scene)?;
    // Priority, then the target in wire format.
    const ALIAS: &str = "0000 01 78 03 616473 04 74657374 00";
    const SERVICE: &str = "0001 03 616473 04 74657374 00";
    const OTHER: &str = "0001 03 666473 04 74657374 00";
    const ITSELF: &str = "0001 00";
    for (number, (rdata, is_blocked)) in [
        (ALIAS, true),
        (SERVICE, true),
        (OTHER, false),
        (ITSELF, false),
    ]
    .into_iter()
    .enumerate()
    {
        for kind in ["HTTPS", "SVCB"] {
            let name = format!("s{number}.test.");
            let record = format!("{name} 300 {kind} \\# {}", rdata.replace(' ', ""));
            scene.upstream.on(&name, Rule::records(&[&record]));
            let answer = ask_all(&ways, &format!("{name} {kind} edns"))?;
            let reason = if is_blocked { BLOCKED } else { None };
            // The name exists, and may have addresses.
            assert_eq!(
                (answer.response_code(), ede(&answer)),
                (OK, reason),
                "{record}"
            );
            assert_eq!(answer.answers().is_empty(), is_blocked, "{record}");
        }
    }
    Ok(())
}

#[test]
fn a_list_that_is_replaced_holds_for_what_is_cached() -> Result<()> {
    let lists = Lists::new(&[("list", "other.test\n")])?;
    let sections = format!("[filter]\nblock_files = [{:?}]\n", lists.path("list"));
    let scene = scene!(Setup::default().sections(&sections));
    let led = |owner: &str| {
        let alias = format!("{owner} 3600 CNAME ads.test.");
        Rule::records(&[&alias, "ads.test. 3600 A 192.0.2.1"])
    };
    for name in ["led.test.", "www.test."] {
        scene.upstream.on(name, led(name));
    }
    scene
        .upstream
        .on("plain.test.", Rule::addresses(3600, &["192.0.2.2"]));
    let client = scene.raw_client()?;
    let check = |expected: [bool; 3]| -> Result<()> {
        for (name, expected) in ["led.test.", "www.test.", "plain.test."]
            .iter()
            .zip(expected)
        {
            // Each worker takes the new list by itself.
            wait_blocked(&client, name, expected)?;
        }
        Ok(())
    };
    check([false, false, false])?;
    // Written in place.
    lists.write("list", "ads.test\n")?;
    wait_blocked(&client, "ads.test.", true)?;
    check([true, true, false])?;
    // Renamed over.
    lists.write("new", "ads.test\nplain.test\n@@||www.test^\n")?;
    fs::rename(lists.path("new"), lists.path("list"))?;
    wait_blocked(&client, "plain.test.", true)?;
    check([true, false, true])?;
    // A login page in place of the list: the old one stays.
    lists.write("list", "<html>\n<body>Please log in</body>\n")?;
    scene.daemon.wait_log_count("is it a blocklist?", 1)?;
    check([true, false, true])?;
    lists.write("list", "other.test\n")?;
    wait_blocked(&client, "plain.test.", false)?;
    check([false, false, false])?;
    assert_eq!(
        scene.upstream.asked("plain.test.").len(),
        1,
        "what was cached is still good"
    );
    Ok(())
}

/// Compiles a list with the real binary.
fn compile(lists: &Lists, out: &str, text: &str) -> Result<()> {
    lists.write("source", text)?;
    let (out, source) = (lists.path(out), lists.path("source"));
    let output = daemon::run(None, &["lists", "compile", &out, &source])?;
    ensure!(output.status.success(), "{output:?}");
    Ok(())
}

#[test]
fn a_compiled_list_is_replaced_under_load_without_a_lost_query() -> Result<()> {
    const NAMES: usize = 20_000;
    let lists = Lists::new(&[])?;
    let text = |first: &str| {
        let names = (0..NAMES).map(|number| format!("n{number}.list.test\n"));
        first.to_owned() + &names.collect::<String>()
    };
    compile(&lists, "list", &text("one.test\n"))?;
    let sections = format!("[filter]\ncompiled = [{:?}]\n", lists.path("list"));
    let scene = scene!(Setup::default().sections(&sections));
    scene
        .upstream
        .on("*.test.", Rule::addresses(300, &["192.0.2.1"]));
    let client = scene.raw_client()?;
    for (name, expected) in [
        ("one.test.", true),
        ("n19999.list.test.", true),
        ("two.test.", false),
    ] {
        assert_eq!(is_blocked(&client, name)?, expected, "{name}");
    }
    // All good names are cached, so that the load does not depend on an upstream, which a busy machine delays.
    for number in 0..GOOD_NAMES {
        assert!(!is_blocked(&client, &format!("good{number}.test."))?);
    }
    let is_over = AtomicBool::new(false);
    let lost = thread::scope(|scope| -> Result<usize> {
        let asking = scope.spawn(|| ask_all_the_time(&scene, &is_over));
        for round in 0..6 {
            let (now, then) = if round % 2 == 0 {
                ("two", "one")
            } else {
                ("one", "two")
            };
            let replaced = compile(&lists, "list", &text(&format!("{now}.test\n")))
                .and_then(|()| wait_blocked(&client, &format!("{now}.test."), true))
                .and_then(|()| wait_blocked(&client, &format!("{then}.test."), false));
            if replaced.is_err() {
                is_over.store(true, Ordering::Relaxed);
            }
            replaced?;
        }
        is_over.store(true, Ordering::Relaxed);
        asking.join().expect("no panic")
    })?;
    assert_eq!(lost, 0, "queries were lost");
    // A foreign file, and a truncated one in its place: the old list stays, and the process goes on.
    let whole = fs::read(lists.path("list"))?;
    for (bytes, says) in [
        (&b"no list at all"[..], "is not a compiled list"),
        (&whole[..whole.len() / 2], "is torn"),
    ] {
        fs::write(lists.path("new"), bytes)?;
        fs::rename(lists.path("new"), lists.path("list"))?;
        scene.daemon.wait_log_count(says, 1)?;
        assert!(is_blocked(&client, "n7.list.test.")?);
    }
    Ok(())
}

/// A download over the list removes the mapped pages while queries come.
#[test]
fn a_compiled_list_that_is_overwritten_in_place_ends_nothing() -> Result<()> {
    let lists = Lists::new(&[])?;
    let names: String = (0..50_000)
        .map(|number| format!("n{number}.list.test\n"))
        .collect();
    compile(&lists, "list", &names)?;
    compile(&lists, "next", &names.replace(".list.", ".other."))?;
    let sections = format!("[filter]\ncompiled = [{:?}]\n", lists.path("list"));
    let scene = scene!(Setup::default().sections(&sections));
    scene
        .upstream
        .on("*.test.", Rule::addresses(300, &["192.0.2.1"]));
    let client = scene.raw_client()?;
    assert!(is_blocked(&client, "n7.list.test.")?);
    let file = fs::OpenOptions::new()
        .write(true)
        .open(lists.path("list"))?;
    file.set_len(0)?;
    for number in 0..500 {
        let name = format!("n{}.list.test.", number * 97);
        ensure!(
            is_blocked(&client, &name)?,
            "{name}: the file is gone, the list is not"
        );
    }
    drop(file);
    scene.daemon.wait_log_count("is not a compiled list", 1)?;
    ensure!(
        is_blocked(&client, "n7.list.test.")?,
        "half a list is worse than yesterday's"
    );
    fs::write(lists.path("list"), fs::read(lists.path("next"))?)?;
    wait_blocked(&client, "n7.other.test.", true)?;
    // Another worker may have this name, and take the list a moment later.
    wait_blocked(&client, "n8.list.test.", false)
}

/// Names without a list, of those asked for under load.
const GOOD_NAMES: u32 = 50;

/// Asks for blocked and other names until it is over. Returns the number of unanswered queries.
fn ask_all_the_time(scene: &Scene, is_over: &AtomicBool) -> Result<usize> {
    let client = scene.udp_client(Family::V4)?;
    let mut lost = 0;
    let mut number = 0;
    while !is_over.load(Ordering::Relaxed) {
        number += 1;
        let name = if number % 2 == 0 {
            format!("n{}.list.test. A", number % 1000)
        } else {
            format!("good{}.test. A", number % GOOD_NAMES)
        };
        let query = crate::support::message::wire(&question(&name));
        client.send(&query)?;
        match client.answer_to(&query) {
            Ok(bytes) => {
                let code = Message::from_vec(&bytes)?.response_code();
                let expected = if number % 2 == 0 { NX } else { OK };
                ensure!(code == expected, "{name}: {code}");
            }
            Err(_) => lost += 1,
        }
    }
    Ok(lost)
}

#[test]
fn answers_that_lead_into_the_house_are_withheld_and_said() -> Result<()> {
    let scene = scene!(Setup::three_ways().sections(
        "[rebind]\nranges = [\"private\", \"loopback\", \"link-local\", \"unique-local\", \"this-host\"]\n\
         allow = [\"allowed.test\"]\n\
         [[upstream]]\nname = \"corp\"\nservers = [\"10.54.0.2\"]\ndomains = [\"corp.test\"]\n"
    ));
    let ways = Ways::open(&scene)?;
    let withheld: &[(&str, &str, &str)] = &[
        ("a10.test.", "A", "10.1.2.3"),
        ("a172.test.", "A", "172.31.255.255"),
        ("a192.test.", "A", "192.168.1.1"),
        ("a127.test.", "A", "127.0.0.1"),
        ("a169.test.", "A", "169.254.169.254"),
        ("a0.test.", "A", "0.0.0.0"),
        ("ula.test.", "AAAA", "fd00::1"),
        ("ll.test.", "AAAA", "fe80::1"),
        ("lo.test.", "AAAA", "::1"),
        ("any.test.", "AAAA", "::"),
        ("mapped.test.", "AAAA", "::ffff:192.168.1.1"),
        ("nat64.test.", "AAAA", "64:ff9b::10.0.0.1"),
        ("sixtofour.test.", "AAAA", "2002:c0a8:101::1"),
        (
            "https.test.",
            "HTTPS",
            "1 . alpn=h2 ipv4hint=192.0.2.1,192.168.1.1",
        ),
        ("https6.test.", "HTTPS", "1 . ipv6hint=fd00::1"),
        ("svcb.test.", "SVCB", "1 . ipv4hint=10.0.0.1"),
    ];
    let passed: &[(&str, &str, &str)] = &[
        ("public.test.", "A", "192.0.2.1"),
        ("edge172.test.", "A", "172.32.0.1"),
        ("cgn.test.", "A", "100.64.0.1"),
        ("public6.test.", "AAAA", "2001:db8::1"),
        ("hint.test.", "HTTPS", "1 . ipv4hint=192.0.2.1"),
        ("text.test.", "TXT", "10.0.0.1"),
        ("allowed.test.", "A", "192.168.1.1"),
        ("x.allowed.test.", "AAAA", "fd00::1"),
        ("x.corp.test.", "A", "10.1.2.3"),
    ];
    for (name, kind, data) in withheld.iter().chain(passed) {
        scene
            .upstream
            .on(name, Rule::records(&[&format!("{name} 300 {kind} {data}")]));
    }
    // One of several addresses, and at the end of an alias.
    scene.upstream.on(
        "mixed.test.",
        Rule::addresses(300, &["192.0.2.1", "192.168.1.1"]),
    );
    let led = [
        "led.test. 300 CNAME end.test.",
        "end.test. 300 A 192.168.1.1",
    ];
    scene.upstream.on("led.test.", Rule::records(&led));
    let before = scene.daemon.metrics()?;
    let more = [("mixed.test.", "A", ""), ("led.test.", "A", "")];
    for (name, kind, _) in withheld.iter().chain(&more) {
        let answer = ask_all(&ways, &format!("{name} {kind} edns"))?;
        assert_answer(&answer, OK, &[]);
        assert_eq!(ede(&answer), BLOCKED, "{name}");
        scene.daemon.wait_log_count(name.trim_end_matches('.'), 1)?;
    }
    let count = u64::try_from(withheld.len() + more.len())?;
    scene
        .daemon
        .wait_growth(&before, &[(&Counter::RebindWithheld, count)])?;
    for (name, kind, data) in passed {
        if kind != &"PTR" {
            let answer = ask_all(&ways, &format!("{name} {kind} edns"))?;
            assert_answer(&answer, OK, &[&format!("{name} 300 {kind} {data}")]);
            assert_eq!(ede(&answer), None, "{name}");
        }
    }
    Ok(())
}

#[test]
fn without_the_section_private_addresses_pass() -> Result<()> {
    let scene = scene!(Setup::three_ways());
    scene
        .upstream
        .on("nas.test.", Rule::addresses(300, &["192.168.1.1"]));
    let ways = Ways::open(&scene)?;
    check_all(
        &ways,
        &[("nas.test. A", OK, &["nas.test. 300 A 192.168.1.1"])],
    )
}

#[test]
fn lists_that_are_paused_block_nothing_until_they_are_in_force_again() -> Result<()> {
    let scene = scene!(Setup::default().sections("[filter]\nblock = [\"ads.test\"]\n"));
    let rule = || Rule::addresses(300, &["192.0.2.1"]);
    scene.upstream.on("www.ads.test.", rule());
    let client = scene.raw_client()?;
    let code = || -> Result<ResponseCode> {
        let answer = client.ask(Family::V4, &query("www.ads.test.", RecordType::A))?;
        Ok(answer.response_code())
    };
    let control = |request: &str| scene.daemon.control(request);
    assert_eq!(code()?, ResponseCode::NXDomain);
    assert_eq!(control("pause")?, "lists are in force\n");
    assert_eq!(control("pause 1h")?, "lists are paused for 3600 s\n");
    // At once, and from the cache.
    for _ in 0..2 {
        assert_eq!(code()?, ResponseCode::NoError);
    }
    assert!(control("stats")?.contains("\nxdnsd_lists_paused 1\n"));
    let why = control("why www.ads.test")?;
    assert!(why.contains("www.ads.test. A: forwarded"), "{why}");
    // A reload does not change that.
    control("reload")?;
    assert_eq!(code()?, ResponseCode::NoError);
    assert_eq!(control("resume")?, "lists are in force again\n");
    assert_eq!(code()?, ResponseCode::NXDomain, "not what is cached");
    assert_eq!(control("resume")?, "lists were not paused\n");
    // It ends by itself.
    control("pause 1s")?;
    wait_until("the pause is over", TIMEOUT, || {
        code().is_ok_and(|code| code == ResponseCode::NXDomain)
    })?;
    assert_eq!(control("pause")?, "lists are in force\n");
    Ok(())
}
