//! EDNS: OPT, its options, extended errors and cookies.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RData;

use super::code;
use crate::support::ask::{Ask, OptRecord, class, flag, option, record, rtype};
use crate::support::client::Family;
use crate::support::daemon;
use crate::support::message::txt;
use crate::support::run::only;
use crate::support::scene::{Scene, Setup, scene};
use crate::support::script::Rule;
use crate::support::view::{Opt, View};
use crate::support::ways::{Way, Ways};

/// Secret of the cookies of these tests.
const SECRET: &str = "e5e973e5a6b2a43f48e7dc849e37bfcf";
/// One client's part of a cookie.
const CLIENT: [u8; 8] = *b"clientco";

fn a(name: &str) -> Ask {
    Ask::of(name, rtype::A)
}

/// `www.test.` with one address, and `long.test.` with 700 bytes of text.
fn prepare(scene: &Scene) {
    let www = Rule::addresses(300, &["192.0.2.1"]);
    scene.upstream.on("www.test.", www);
    let strings: Vec<RData> = (0..7).map(|number| txt(number, 100)).collect();
    scene.upstream.on("long.test.", Rule::answer(300, &strings));
}

fn opt_of(reply: &View) -> &Opt {
    reply.opt.as_ref().unwrap_or_else(|| panic!("{reply:?}"))
}

#[test]
fn opt_comes_back_if_it_came() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let scene = scene!(Setup::three_ways());
    prepare(&scene);
    let ways = Ways::open(&scene)?;
    let bad_type = Ask::of("www.test.", 0);
    for (what, ask) in [
        ("an answer", a("www.test.")),
        ("a local answer", a("localhost.")),
        ("ANY", Ask::of("www.test.", rtype::ANY)),
        ("a class", Ask::of_class("www.test.", rtype::A, class::CH)),
        ("AXFR", Ask::of("test.", 252)),
        ("REFUSED by the upstream", a("other.")),
        ("NOTIMP", a("www.test.").opcode(2)),
        ("type 0", bad_type),
        ("no question", Ask::without_question()),
        ("two questions", a("www.test.").and_question("b.test.", 1)),
        ("TC", a("www.test.").with(flag::TC)),
        ("a bad name", Ask::raw(b"\x41a\0\0\x01\0\x01")),
    ] {
        let plain = ways.same(&ask.bytes()).context(what)?;
        assert_eq!(plain.opt, None, "{what}: {plain:?}");
        for flags in [0, 0x8000] {
            let mut record = OptRecord::size(4096);
            record.flags = flags;
            let reply = ways
                .same(&ask.clone().edns(&record).bytes())
                .context(what)?;
            assert_eq!(reply.rcode(), plain.rcode(), "{what}");
            // A message without a valid name has no OPT that can be found.
            if what != "a bad name" {
                let opt = opt_of(&reply);
                assert_eq!(
                    (opt.size, opt.version, opt.flags),
                    (1232, 0, flags),
                    "{what}"
                );
            }
        }
    }
    ways.check_tiers()
}

#[test]
fn other_versions_are_told_ours() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let scene = scene!(Setup::three_ways());
    prepare(&scene);
    let ways = Ways::open(&scene)?;
    let of = |opt: &OptRecord| ways.same(&a("www.test.").edns(opt).bytes());
    for version in [1, 2, 255] {
        for opt in [
            OptRecord::dnssec_ok(1232).version(version),
            OptRecord::size(0).version(version),
            // Whatever RDATA means there, it is no format error.
            OptRecord::size(1232)
                .version(version)
                .garbage(b"\0\x0a\xff"),
            OptRecord::size(1232)
                .version(version)
                .option(option::COOKIE, b"x"),
        ] {
            let reply = of(&opt)?;
            assert_eq!(reply.rcode(), code::BADVERS, "{opt:?}: {reply:?}");
            assert_eq!((opt_of(&reply).version, reply.answers().len()), (0, 0));
            assert_eq!(opt_of(&reply).flags, opt.flags);
        }
    }
    // The high half of an RCODE means nothing in a query, nor do unknown flags: they do not come back.
    let mut strange = OptRecord::size(1232);
    strange.extended_rcode = 0xff;
    strange.flags = 0x7fff;
    let reply = of(&strange)?;
    assert_eq!((reply.rcode(), opt_of(&reply).flags), (code::NOERROR, 0));
    assert_eq!(reply.data(rtype::A).len(), 1);
    assert_eq!(scene.upstream.asked_all().len(), 1);
    ways.check_tiers()
}

#[test]
fn opt_records_that_are_none() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let scene = scene!(Setup::three_ways());
    prepare(&scene);
    let ways = Ways::open(&scene)?;
    let opt = OptRecord::size(1232);
    let mut elsewhere = opt.clone();
    elsewhere.owner = b"\x01a\0".to_vec();
    for (what, ask) in [
        ("two OPT records", a("www.test.").edns(&opt).edns(&opt)),
        (
            "two, one behind another record",
            a("www.test.")
                .edns(&opt)
                .and(&record("x.", 1, 1, 0, &[0; 4]))
                .edns(&opt),
        ),
        ("OPT of a name", a("www.test.").edns(&elsewhere)),
        (
            "half an option",
            a("www.test.").edns(&opt.clone().garbage(b"\0\x03\0")),
        ),
        (
            "an option over the end",
            a("www.test.").edns(&opt.clone().garbage(b"\0\x03\0\x05ab")),
        ),
    ] {
        let reply = ways.same(&ask.bytes()).context(what)?;
        assert_eq!(reply.rcode(), code::FORMERR, "{what}: {reply:?}");
        assert_eq!(
            reply.opt.is_some(),
            what != "OPT of a name",
            "{what}: {reply:?}"
        );
    }
    assert_eq!(scene.upstream.asked_all().len(), 0);
    ways.check_tiers()
}

/// As unbound and dnsmasq do: the answer is used, whatever is wrong with the server's OPT. The client gets ours.
#[test]
fn an_answer_whose_opt_is_broken_is_given_with_ours() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    const GOOD: &[u8] = b"\0\0\x29\x04\xd0\0\0\0\0\0\0";
    let cases: [(&str, &[&[u8]]); 5] = [
        (
            "half an option",
            &[b"\0\0\x29\x04\xd0\0\0\0\0\0\x03\0\x0f\0"],
        ),
        (
            "an option over the end",
            &[b"\0\0\x29\x04\xd0\0\0\0\0\0\x05\0\x0f\0\x09\0"],
        ),
        ("two", &[GOOD, GOOD]),
        ("of a name", &[b"\x01x\0\0\x29\x04\xd0\0\0\0\0\0\0"]),
        ("cut off", &[b"\0\0\x29\x04\xd0\0"]),
    ];
    let scene = scene!(Setup::three_ways());
    let ways = Ways::open(&scene)?;
    for (number, (what, records)) in cases.into_iter().enumerate() {
        let name = format!("n{number}.test.");
        let rule = Rule::addresses(300, &["192.0.2.1"]).with_broken_opts(records);
        scene.upstream.on(&name, rule);
        for (has_opt, ask) in [
            (true, a(&name).edns(&OptRecord::size(1232))),
            (false, a(&name)),
        ] {
            let reply = ways.same(&ask.bytes()).context(what)?;
            assert_eq!(
                (reply.rcode(), reply.data(rtype::A).len()),
                (code::NOERROR, 1),
                "{what}"
            );
            assert_eq!(reply.opt.is_some(), has_opt, "{what}");
            if has_opt {
                let opt = opt_of(&reply);
                assert_eq!((opt.size, opt.version, opt.options.len()), (1232, 0, 0));
            }
        }
    }
    ways.check_tiers()
}

#[test]
fn options_that_we_do_not_speak_are_ignored() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let scene = scene!(Setup::three_ways());
    prepare(&scene);
    let ways = Ways::open(&scene)?;
    let opt = || OptRecord::size(1232);
    for (what, opt) in [
        ("unknown", opt().option(65_001, b"anything")),
        ("unknown and empty", opt().option(65_535, b"")),
        ("option 0", opt().option(0, &[7; 30])),
        ("NSID", opt().option(option::NSID, b"")),
        (
            "client subnet",
            opt().option(option::CLIENT_SUBNET, &[0, 1, 24, 0, 192, 0, 2]),
        ),
        (
            "a malformed client subnet",
            opt().option(option::CLIENT_SUBNET, &[0]),
        ),
        // RFC 7830 section 6, RFC 8467: padding is for encrypted transports.
        ("padding", opt().option(option::PADDING, &[0; 100])),
        ("an extended error", opt().option(option::EDE, &[0, 1])),
        ("half an extended error", opt().option(option::EDE, &[1])),
        (
            "many",
            (1..60).fold(opt(), |opt, code| opt.option(65_000 + code, b"x")),
        ),
    ] {
        let reply = ways
            .same(&a("www.test.").edns(&opt).bytes())
            .context(what)?;
        assert_eq!(reply.data(rtype::A).len(), 1, "{what}: {reply:?}");
        assert_eq!(opt_of(&reply).options, [], "{what}");
    }
    // None of it goes upstream.
    let asked = scene.upstream.asked("www.test.");
    let [asked] = &asked[..] else {
        panic!("one question: {asked:?}")
    };
    let sent = asked.query.extensions().as_ref().context("OPT")?;
    assert!(sent.options().as_ref().is_empty(), "{sent:?}");
    assert_eq!((sent.max_payload(), sent.version()), (1232, 0));
    ways.check_tiers()
}

/// Longer than what is kept of a query, over UDP by fragments.
#[test]
fn a_query_is_answered_however_long_its_options_are() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let scene = scene!(Setup::three_ways());
    prepare(&scene);
    let ways = Ways::open(&scene)?;
    let padded = |len: usize| {
        let opt = OptRecord::size(1232).option(option::PADDING, &vec![0; len]);
        a("www.test.").edns(&opt).bytes()
    };
    for len in [2_000, 20_000, 65_000] {
        let reply = ways.ask(Way::Tcp, Family::V4, &padded(len))?;
        assert_eq!(reply.data(rtype::A).len(), 1, "{len}: {reply:?}");
        assert_eq!(opt_of(&reply).options, [], "{len}");
    }
    let client = scene.udp_client(Family::V4)?;
    for len in [2_000, 20_000, 65_000] {
        let reply = client.exchange(&padded(len))?;
        let (counts, rcode) = (&reply[4..8], reply[3] & 0xf);
        assert_eq!((counts, rcode), (&[0, 1, 0, 1][..], 0), "{len}");
    }
    Ok(())
}

#[test]
fn keepalive_is_said_to_streams_only() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let scene = scene!(Setup::three_ways().sections("[tcp]\nidle_secs = 7\n"));
    prepare(&scene);
    let ways = Ways::open(&scene)?;
    let asking = OptRecord::size(1232).option(option::KEEPALIVE, b"");
    let asking = a("www.test.").edns(&asking).bytes();
    let plain = a("www.test.").edns(&OptRecord::size(1232)).bytes();
    for family in Family::ALL {
        for way in Way::ALL {
            let reply = ways.ask(way, family, &asking)?;
            // RFC 7828 section 3.3.2: in units of 100 ms, and never over UDP.
            let expected = (way == Way::Tcp).then_some(&[0, 70][..]);
            assert_eq!(opt_of(&reply).option(option::KEEPALIVE), expected);
            let reply = ways.ask(way, family, &plain)?;
            assert_eq!(opt_of(&reply).option(option::KEEPALIVE), None);
        }
    }
    ways.check_tiers()
}

#[test]
fn extended_errors_say_why() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let sections = "[filter]\nblock = [\"blocked.test\"]\n[rebind]\nranges = [\"private\"]\n\
                    [forward]\ngive_up_ms = 2000\n";
    let scene = scene!(Setup::three_ways().sections(sections));
    prepare(&scene);
    let on = |name: &str, rule| scene.upstream.on(name, rule);
    on("rebind.test.", Rule::addresses(300, &["10.1.2.3"]));
    on("silent.test.", Rule::silence());
    on("fails.test.", Rule::code(ResponseCode::ServFail));
    let ways = Ways::open(&scene)?;
    for (ask, rcode, expected) in [
        (a("blocked.test."), code::NXDOMAIN, code::BLOCKED),
        (a("below.blocked.test."), code::NXDOMAIN, code::BLOCKED),
        (a("rebind.test."), code::NOERROR, code::BLOCKED),
        (
            Ask::of_class("x.", rtype::A, class::CH),
            code::REFUSED,
            code::NOT_SUPPORTED,
        ),
        (Ask::of("test.", 252), code::REFUSED, code::NOT_SUPPORTED),
        (
            a("silent.test."),
            code::SERVFAIL,
            code::NO_REACHABLE_AUTHORITY,
        ),
    ] {
        let with_edns = ask.clone().edns(&OptRecord::size(1232)).bytes();
        let reply = ways.same(&with_edns)?;
        assert_eq!(
            (reply.rcode(), reply.ede()),
            (rcode, Some(expected)),
            "{reply:?}"
        );
        let plain = ways.same(&ask.bytes())?;
        assert_eq!((plain.rcode(), plain.opt), (rcode, None));
    }
    let failed = a("fails.test.").edns(&OptRecord::size(1232)).bytes();
    assert_eq!(ways.same(&failed)?.rcode(), code::SERVFAIL);
    ways.check_tiers()
}

fn with_cookie(name: &str, rtype: u16, cookie: &[u8]) -> Vec<u8> {
    let opt = OptRecord::size(1232).option(option::COOKIE, cookie);
    Ask::of(name, rtype).edns(&opt).bytes()
}

/// Cookie of a reply: the client's part unchanged, and 16 octets of ours in the form of RFC 9018 section 4.
fn cookie_of(reply: &View) -> Result<Vec<u8>> {
    let cookie = opt_of(reply).option(option::COOKIE).context("a cookie")?;
    assert_eq!((&cookie[..8], cookie.len()), (&CLIENT[..], 24));
    assert_eq!(cookie[8..12], [1, 0, 0, 0], "version and reserved");
    let made = u32::from_be_bytes([cookie[12], cookie[13], cookie[14], cookie[15]]);
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    assert!(now.abs_diff(made.into()) < 10, "made at {made}, now {now}");
    Ok(cookie.to_vec())
}

#[test]
fn cookies_are_made_and_checked() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let sections = format!("[edns]\ncookie_secrets = [\"{SECRET}\"]\n");
    let scene = scene!(Setup::three_ways().sections(&sections));
    prepare(&scene);
    let ways = Ways::open(&scene)?;
    for family in Family::ALL {
        let of = |way, cookie: &[u8]| -> Result<Vec<u8>> {
            let reply = ways.ask(way, family, &with_cookie("www.test.", rtype::A, cookie))?;
            assert_eq!(reply.data(rtype::A).len(), 1);
            cookie_of(&reply)
        };
        let given = of(Way::Xdp, &CLIENT)?;
        for way in Way::ALL {
            // A valid one comes back unchanged by any way; another gets a successor.
            assert_eq!(of(way, &given)?, given, "{way:?}");
            let mut wrong = given.clone();
            wrong[20] ^= 1;
            assert_ne!(of(way, &wrong)?, wrong, "{way:?}");
            assert_ne!(of(way, &[&CLIENT[..], &[0; 32]].concat())?.len(), 40);
        }
        let twice = OptRecord::size(1232)
            .option(option::COOKIE, &CLIENT)
            .option(option::COOKIE, b"short");
        let reply = ways.ask(Way::Xdp, family, &a("www.test.").edns(&twice).bytes())?;
        cookie_of(&reply).context("the first of two")?;
    }
    for len in [0, 1, 7, 9, 15, 41, 100] {
        let reply = ways.same(&with_cookie("www.test.", rtype::A, &vec![7; len]))?;
        assert_eq!(reply.rcode(), code::FORMERR, "{len}: {reply:?}");
        assert_eq!(opt_of(&reply).option(option::COOKIE), None);
    }
    ways.check_tiers()
}

#[test]
fn a_cookie_can_be_asked_for_alone() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let sections = format!("[edns]\ncookie_secrets = [\"{SECRET}\"]\n");
    let scene = scene!(Setup::three_ways().sections(&sections));
    let ways = Ways::open(&scene)?;
    let alone = |cookie: &[u8]| {
        let opt = OptRecord::size(1232).option(option::COOKIE, cookie);
        Ask::without_question().edns(&opt).bytes()
    };
    // RFC 7873 section 5.4.
    let reply = ways.same(&alone(&CLIENT))?;
    assert_eq!((reply.rcode(), reply.question.len()), (code::NOERROR, 0));
    let given = cookie_of(&reply)?;
    let reply = ways.ask(Way::Tcp, Family::V4, &alone(&given))?;
    assert_eq!((reply.rcode(), cookie_of(&reply)?), (code::NOERROR, given));
    let reply = ways.same(&alone(&[&CLIENT[..], &[7; 16]].concat()))?;
    assert_eq!(reply.rcode(), code::BADCOOKIE);
    cookie_of(&reply)?;
    let reply = ways.same(&alone(b"short"))?;
    assert_eq!(reply.rcode(), code::FORMERR);
    ways.check_tiers()
}

/// A drawn secret is changed while cookies by it are in use: at once for all ways.
#[test]
fn cookies_outlive_one_turn_of_a_drawn_secret() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let scene = scene!(Setup::three_ways());
    let ways = Ways::open(&scene)?;
    let alone = |cookie: &[u8]| {
        let opt = OptRecord::size(1232).option(option::COOKIE, cookie);
        Ask::without_question().edns(&opt).bytes()
    };
    let given = cookie_of(&ways.ask(Way::Xdp, Family::V4, &alone(&CLIENT))?)?;
    for code in [code::NOERROR, code::BADCOOKIE] {
        let said = scene.daemon.control("shield secret rotate")?;
        assert!(said.contains("DNS cookies: another secret, "), "{said}");
        for way in Way::ALL {
            let reply = ways.ask(way, Family::V4, &alone(&given))?;
            assert_eq!(reply.rcode(), code, "{way:?}");
            assert_ne!(cookie_of(&reply)?[16..], given[16..], "{way:?}");
        }
    }
    Ok(())
}

#[test]
fn without_cookies_the_option_is_unknown() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let scene = scene!(Setup::three_ways().sections("[edns]\ncookies = false\n"));
    prepare(&scene);
    let ways = Ways::open(&scene)?;
    for cookie in [&CLIENT[..], &[7; 24], b"short", b""] {
        let reply = ways.same(&with_cookie("www.test.", rtype::A, cookie))?;
        assert_eq!(reply.data(rtype::A).len(), 1, "{reply:?}");
        assert_eq!(opt_of(&reply).options, []);
    }
    let opt = OptRecord::size(1232).option(option::COOKIE, &CLIENT);
    let alone = ways.same(&Ask::without_question().edns(&opt).bytes())?;
    assert_eq!(alone.rcode(), code::FORMERR);
    ways.check_tiers()
}

#[test]
fn long_answers_are_for_clients_that_proved_their_address() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let sections = format!("[edns]\ncookie_secrets = [\"{SECRET}\"]\nnocookie_udp_size = 600\n");
    let scene = scene!(Setup::three_ways().sections(&sections));
    prepare(&scene);
    let ways = Ways::open(&scene)?;
    let long = |cookie: &[u8]| with_cookie("long.test.", rtype::TXT, cookie);
    let plain = Ask::of("long.test.", rtype::TXT).edns(&OptRecord::size(1232));
    // A client without cookies has to use TCP.
    let (short, whole) = ways.truncated(&plain.bytes())?;
    assert_eq!((short.answers().len(), whole.answers().len()), (0, 7));
    for family in Family::ALL {
        for way in Way::DATAGRAMS {
            for cookie in [&CLIENT[..], &[&CLIENT[..], &[7; 16]].concat()] {
                let refused = ways.ask(way, family, &long(cookie))?;
                assert_eq!(refused.rcode(), code::BADCOOKIE, "{refused:?}");
                assert_eq!(refused.answers().len(), 0);
                let given = cookie_of(&refused)?;
                let whole = ways.ask(way, family, &long(&given))?;
                assert_eq!(whole.data(rtype::TXT).len(), 7, "{whole:?}");
            }
        }
        let whole = ways.ask(Way::Tcp, family, &long(&CLIENT))?;
        assert_eq!(whole.data(rtype::TXT).len(), 7);
        let small = ways.ask(
            Way::Xdp,
            family,
            &with_cookie("www.test.", rtype::A, &CLIENT),
        )?;
        assert_eq!(small.data(rtype::A).len(), 1);
    }
    ways.check_tiers()
}

#[test]
fn cookies_outlive_one_change_of_the_secret() -> Result<()> {
    only!(ONCE, "it goes by all ways in each run");
    let with_secrets = |secrets: &[&str]| {
        Setup::three_ways().sections(&format!(
            "[edns]\ncookie_secrets = {secrets:?}\nnocookie_udp_size = 600\n"
        ))
    };
    let [first, second, third] = [SECRET, &"5".repeat(32), &"6".repeat(32)];
    let mut scene = scene!(with_secrets(&[first]));
    prepare(&scene);
    let long = |cookie: &[u8]| with_cookie("long.test.", rtype::TXT, cookie);
    let given = cookie_of(&Ways::open(&scene)?.ask(Way::Xdp, Family::V4, &long(&CLIENT))?)?;
    for (secrets, is_good) in [([second, first], true), ([third, second], false)] {
        let directory = scene.directory.path();
        daemon::write(
            directory,
            "config.toml",
            &with_secrets(&secrets).config(directory),
        )?;
        scene.daemon.terminate()?;
        scene.daemon.start_again(&scene.lab)?;
        let ways = Ways::open(&scene)?;
        for way in Way::DATAGRAMS {
            let reply = ways.ask(way, Family::V4, &long(&given))?;
            let code = if is_good {
                code::NOERROR
            } else {
                code::BADCOOKIE
            };
            assert_eq!(reply.rcode(), code, "{secrets:?} {way:?}");
            assert_ne!(cookie_of(&reply)?, given, "made with the new secret");
        }
        ways.check_tiers()?;
    }
    Ok(())
}
