//! DNS64: addresses made of IPv4 ones, for whom, for how long, and where none are made.

use super::harness::*;
use super::image;
use super::policy::blocking;
use crate::policy::ranges::AddressRanges;
use crate::policy::{
    Dns64, Kinds, LocalData, Rebind, Routes, Screen, Suffixes, TranslationPrefix, rebind,
};
use std::net::Ipv6Addr;

const NODATA: (ResponseCode, Vec<String>) = (ResponseCode::NoError, Vec::new());

fn prefix(text: &str) -> Option<TranslationPrefix> {
    TranslationPrefix::new(text.parse().unwrap(), 96)
}

/// A byte for each of these ranges of IPv4 addresses; none for IPv6.
fn ranges(starts: &[u32], values: &[u8]) -> AddressRanges<'static> {
    let mut bytes = Vec::new();
    for count in [starts.len() as u32, 1] {
        bytes.extend(count.to_le_bytes());
    }
    bytes.extend(starts.iter().flat_map(|start| start.to_le_bytes()));
    bytes.extend(values);
    bytes.extend(0u128.to_le_bytes());
    bytes.push(0);
    AddressRanges::view(keep(bytes)).unwrap()
}

/// ::ffff:0:0/96, which is every IPv4 address.
fn excluded() -> AddressRanges<'static> {
    ranges(&[0], &[1])
}

/// With a prefix of the network's own.
fn policy() -> Policy<'static> {
    Policy {
        generation: 1,
        dns64: Dns64 {
            prefix: prefix("2001:db8:64::"),
            excluded: excluded(),
        },
        block_ttl_secs: 10,
        ..Policy::OPEN
    }
}

/// Runs a scenario with two servers, under that policy.
fn with_dns64(scenario: impl FnOnce(&mut World<'_>) + Send) {
    with_world(Settings::DEFAULT, |world| {
        world.policy = policy();
        scenario(world);
    });
}

fn aaaa(name: &str, id: u16) -> Message {
    query_type(name, RecordType::AAAA, id)
}

fn v6(owner: &str, ttl_secs: u32, text: &str) -> Record {
    let octets = text.parse::<Ipv6Addr>().unwrap().octets();
    opaque(owner, ttl_secs, rtype::AAAA, &octets)
}

fn v4(owner: &str, ttl_secs: u32, octets: [u8; 4]) -> Record {
    opaque(owner, ttl_secs, rtype::A, &octets)
}

/// Name and type that upstream was asked for last, and how often it was asked in all.
fn asked(world: &World<'_>) -> (String, RecordType, usize) {
    let question = world.last_question().queries()[0].clone();
    let name = question.name().to_lowercase();
    (
        format!("{name}"),
        question.query_type(),
        world.effects.asked.len(),
    )
}

fn nodata(ttl_secs: u32) -> impl FnOnce(&mut Message) {
    move |message| {
        message.add_name_server(soa("example.", ttl_secs, ttl_secs));
    }
}

fn told(message: &Message) -> (ResponseCode, Vec<String>) {
    (message.response_code(), answers(message))
}

fn made(last: u8) -> String {
    format!("x.example. AAAA 2001:db8:64::c000:2{last:02x}")
}

/// The reply that has come, and the same out of the cache.
fn reply_and_hit(world: &mut World<'_>, asked: &Message) -> (ResponseCode, Vec<String>) {
    let reply = told(&world.last_reply());
    let before = world.effects.asked.len();
    let mut hit = told(&world.hit(asked));
    assert_eq!(world.effects.asked.len(), before);
    hit.1.sort();
    let mut sorted = reply.clone();
    sorted.1.sort();
    assert_eq!(hit, sorted);
    reply
}

#[test]
fn a_name_without_aaaa_records_gets_some_made_of_its_a_records() {
    with_dns64(|world| {
        world.miss(1, &aaaa("X.example.", 1));
        assert_eq!(asked(world), ("x.example.".into(), RecordType::AAAA, 1));
        world.respond(nodata(50));
        assert_eq!(asked(world), ("x.example.".into(), RecordType::A, 2));
        assert_eq!(world.effects.replies.len(), 0);
        // A second client joins, and asks nothing by itself.
        world.miss(2, &aaaa("x.example.", 2));
        world.respond(|message| {
            message.add_answer(address("x.example.", 300, 1));
            message.add_answer(address("x.example.", 300, 2));
        });
        assert_eq!(world.effects.replies.len(), 2);
        let expected = (ResponseCode::NoError, vec![made(1), made(2)]);
        let mut reply = reply_and_hit(world, &aaaa("x.example.", 3));
        reply.1.sort();
        assert_eq!(reply, expected);
        let last = world.last_reply();
        assert_eq!(last.queries()[0].query_type(), RecordType::AAAA);
        assert_eq!(last.name_servers().len(), 0);
        assert_eq!(world.get(Counter::Dns64Answers), 1);
        // A question for A is another one.
        world.miss(1, &query("x.example.", 4));
        world.respond(answer_a(300));
        assert_eq!(answers(&world.last_reply()), ["x.example. A 192.0.2.80"]);
    });
}

#[test]
fn a_made_address_lives_no_longer_than_the_denial_or_ten_minutes_without_one() {
    for (denial, of_a, expected) in [
        (Some(50), 300, 50),
        (Some(1_000), 300, 300),
        (None, 300, 300),
        (None, 3_000, 600),
    ] {
        with_dns64(|world| {
            world.miss(1, &aaaa("x.example.", 1));
            world.respond(|message| {
                if let Some(ttl_secs) = denial {
                    nodata(ttl_secs)(message);
                }
            });
            world.respond(answer_a(of_a));
            let ttl = |message: &Message| message.answers()[0].ttl();
            assert_eq!(ttl(&world.last_reply()), expected);
            world.pass(20_000);
            assert_eq!(ttl(&world.hit(&aaaa("x.example.", 2))), expected - 20);
            world.pass(u64::from(expected) * 1_000 - 20_000);
            world.miss(1, &aaaa("x.example.", 3));
        });
    }
}

#[test]
fn a_client_that_validates_by_itself_gets_nothing_that_is_made() {
    for (dnssec_ok, checking_disabled, is_made) in [
        (false, false, true),
        (true, false, true),
        (false, true, true),
        (true, true, false),
    ] {
        with_dns64(|world| {
            let mut asks = with_edns(aaaa("x.example.", 1), dnssec_ok);
            asks.set_checking_disabled(checking_disabled);
            world.miss(1, &asks);
            world.respond(nodata(50));
            if is_made {
                world.respond(answer_a(300));
            }
            let count = reply_and_hit(world, &asks).1.len();
            assert_eq!(
                count,
                usize::from(is_made),
                "{dnssec_ok} {checking_disabled}"
            );
            assert_eq!(world.effects.asked.len(), 1 + usize::from(is_made));
            // What one has is not what the other gets.
            asks.set_checking_disabled(!checking_disabled);
            world.miss(2, &asks);
        });
    }
}

#[test]
fn what_exists_and_what_does_not_exist_is_given_as_it_is() {
    with_dns64(|world| {
        world.miss(1, &aaaa("x.example.", 1));
        world.respond(|message| {
            message.add_answer(v6("x.example.", 60, "2001:db8::1"));
        });
        let real = vec!["x.example. AAAA 2001:db8::1".into()];
        let reply = reply_and_hit(world, &aaaa("x.example.", 1));
        assert_eq!(reply, (ResponseCode::NoError, real));
        world.miss(1, &aaaa("no.example.", 2));
        world.respond(|message| {
            message.set_response_code(ResponseCode::NXDomain);
            nodata(60)(message);
        });
        let reply = reply_and_hit(world, &aaaa("no.example.", 2));
        assert_eq!(reply, (ResponseCode::NXDomain, Vec::new()));
        assert_eq!(world.effects.asked.len(), 2);
        assert_eq!(world.get(Counter::Dns64Answers), 0);
    });
}

/// RFC 6147 section 5.1.6.
#[test]
fn a_name_without_any_address_gets_what_was_said_of_the_ipv4_ones() {
    for code in [ResponseCode::NoError, ResponseCode::NXDomain] {
        with_dns64(|world| {
            world.miss(1, &aaaa("x.example.", 1));
            world.respond(nodata(50));
            world.respond(|message| {
                message.set_response_code(code);
                nodata(60)(message);
            });
            let reply = reply_and_hit(world, &aaaa("x.example.", 1));
            assert_eq!(reply, (code, Vec::new()));
            assert_eq!(world.last_reply().name_servers().len(), 1);
            assert_eq!(world.effects.asked.len(), 2);
        });
    }
}

#[test]
fn after_a_failure_ipv4_addresses_are_asked_for() {
    with_dns64(|world| {
        world.miss(1, &aaaa("x.example.", 1));
        for _ in 0..2 {
            assert_eq!(asked(world).1, RecordType::AAAA);
            world.respond(code(ResponseCode::ServFail));
        }
        assert_eq!(asked(world), ("x.example.".into(), RecordType::A, 3));
        world.respond(answer_a(3_000));
        let reply = reply_and_hit(world, &aaaa("x.example.", 1));
        assert_eq!(reply, (ResponseCode::NoError, vec![made(80)]));
        assert_eq!(world.last_reply().answers()[0].ttl(), 600);
    });
    // Both fail.
    with_dns64(|world| {
        world.miss(1, &aaaa("x.example.", 1));
        for rtype in [RecordType::AAAA, RecordType::A] {
            for _ in 0..2 {
                assert_eq!(asked(world).1, rtype);
                world.respond(code(ResponseCode::ServFail));
            }
        }
        assert_eq!(world.effects.asked.len(), 4);
        let reply = reply_and_hit(world, &aaaa("x.example.", 1));
        assert_eq!(reply, (ResponseCode::ServFail, Vec::new()));
    });
}

/// RFC 6147 section 5.5: who can forge a denial must not be able to lead clients by it.
#[test]
fn a_denial_that_a_server_does_not_believe_is_no_reason_to_make_addresses() {
    for (ede, is_asked) in [(6, false), (12, false), (4, true), (22, true)] {
        with_dns64(|world| {
            world.miss(1, &with_edns(aaaa("x.example.", 1), false));
            for _ in 0..2 {
                let last = world.effects.asked.last().unwrap().message.clone();
                let mut message = response_to(&last, code(ResponseCode::ServFail));
                message[11] = 1;
                message.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 6, 0, 15, 0, 2, 0, ede]);
                world.respond_bytes(&message);
            }
            let has_turned = asked(world).1 == RecordType::A;
            assert_eq!(has_turned, is_asked, "{ede}");
            assert_eq!(world.effects.replies.is_empty(), is_asked, "{ede}");
        });
    }
}

/// Some servers drop questions for AAAA alone (RFC 4074 section 4.1).
#[test]
fn after_silence_ipv4_addresses_are_asked_for_where_the_server_is_not_dead() {
    for is_dead in [false, true] {
        with_dns64(|world| {
            if is_dead {
                for number in 0..8 {
                    world.miss(1, &query(&format!("n{number}.example."), number));
                    world.pass(10_000);
                }
            }
            let begun = world.effects.asked.len();
            world.miss(1, &aaaa("x.example.", 1));
            world.effects.replies.clear();
            world.pass(Settings::DEFAULT.give_up_ms);
            let later = &world.effects.asked[begun..];
            let turned = later
                .iter()
                .any(|asked| asked.parsed().queries()[0].query_type() == RecordType::A);
            assert_eq!(turned, !is_dead);
            assert_eq!(world.effects.replies.len(), usize::from(is_dead));
            if !is_dead {
                world.pass(1_000);
                world.respond(answer_a(300));
                assert_eq!(answers(&world.last_reply()), [made(80)]);
            }
        });
    }
}

#[test]
fn excluded_addresses_count_as_none() {
    let mapped = || v6("x.example.", 60, "::ffff:192.0.2.9");
    with_dns64(|world| {
        world.miss(1, &aaaa("x.example.", 1));
        world.respond(|message| {
            message.add_answer(mapped());
        });
        assert_eq!(asked(world).1, RecordType::A);
        world.respond(answer_a(3_000));
        let reply = reply_and_hit(world, &aaaa("x.example.", 1));
        assert_eq!(reply.1, [made(80)]);
        assert_eq!(world.last_reply().answers()[0].ttl(), 600);
        // Beside one that counts it is left out, and so is the signature over both.
        let asks = with_edns(aaaa("y.example.", 2), true);
        world.miss(1, &asks);
        world.respond(|message| {
            message.add_answer(alias("y.example.", 60, "x.example."));
            message.add_answer(mapped());
            message.add_answer(v6("x.example.", 60, "2001:db8::7"));
            message.add_answer(signature("x.example.", 60, rtype::AAAA));
        });
        let left = ["y.example. CNAME x.example.", "x.example. AAAA 2001:db8::7"];
        assert_eq!(reply_and_hit(world, &asks).1, left);
        let mut validates = with_edns(aaaa("x.example.", 3), true);
        validates.set_checking_disabled(true);
        world.miss(1, &validates);
        world.respond(|message| {
            message.add_answer(mapped());
        });
        assert_eq!(world.last_reply().answers().len(), 1);
    });
}

/// Where no A record may be asked for, an excluded address is still not given.
#[test]
fn an_excluded_address_is_not_given_whatever_becomes_of_ipv4_ones() {
    with_dns64(|world| {
        world.miss(1, &aaaa("x.example.", 1));
        // The lists come while the question is in flight.
        world.policy.lists = blocking(&["x.example"]);
        world.respond(|message| {
            message.add_answer(v6("x.example.", 60, "::ffff:192.0.2.9"));
        });
        assert_eq!(world.effects.asked.len(), 1);
        assert_eq!(told(&world.last_reply()), NODATA);
        assert_eq!(world.last_reply().name_servers().len(), 1);
    });
}

/// A list may be about A alone. What it says of QNAME holds for what its aliases lead to.
#[test]
fn a_name_that_is_blocked_for_a_gets_no_address_by_its_alias() {
    with_dns64(|world| {
        world.miss(1, &aaaa("x.example.", 1));
        world.respond(|message| {
            message.add_answer(alias("x.example.", 60, "y.example."));
        });
        world.policy.lists = blocking(&["x.example"]);
        world.respond(nodata(60));
        assert_eq!(asked(world), ("y.example.".into(), RecordType::AAAA, 2));
        let reply = told(&world.last_reply());
        assert_eq!(reply.1, ["x.example. CNAME y.example."]);
    });
}

#[test]
fn chains_of_aliases_are_kept() {
    let expected = [
        "x.example. CNAME y.example.",
        "y.example. CNAME z.test.",
        "z.test. AAAA 2001:db8:64::c000:201",
    ];
    // The server follows them.
    with_dns64(|world| {
        let chain = |message: &mut Message| {
            message.add_answer(alias("x.example.", 40, "y.example."));
            message.add_answer(alias("y.example.", 300, "z.test."));
        };
        world.miss(1, &aaaa("x.example.", 1));
        world.respond(|message| {
            chain(message);
            message.add_name_server(soa("test.", 100, 100));
        });
        assert_eq!(asked(world), ("x.example.".into(), RecordType::A, 2));
        world.respond(|message| {
            chain(message);
            message.add_answer(address("z.test.", 300, 1));
        });
        assert_eq!(reply_and_hit(world, &aaaa("x.example.", 1)).1, expected);
        let ttls =
            |message: &Message| -> Vec<u32> { message.answers().iter().map(Record::ttl).collect() };
        assert_eq!(ttls(&world.last_reply()), [40, 300, 100]);
    });
    // It gives each alias alone, for either type.
    with_dns64(|world| {
        world.miss(1, &aaaa("x.example.", 1));
        world.respond(|message| {
            message.add_answer(alias("x.example.", 300, "y.example."));
        });
        assert_eq!(asked(world), ("y.example.".into(), RecordType::AAAA, 2));
        world.respond(nodata(60));
        assert_eq!(asked(world), ("y.example.".into(), RecordType::A, 3));
        world.respond(|message| {
            message.add_answer(alias("y.example.", 300, "z.test."));
        });
        assert_eq!(asked(world), ("z.test.".into(), RecordType::A, 4));
        world.respond(|message| {
            message.add_answer(address("z.test.", 300, 1));
        });
        assert_eq!(reply_and_hit(world, &aaaa("x.example.", 1)).1, expected);
    });
}

#[test]
fn a_dname_and_signatures_of_what_is_not_made_are_kept() {
    with_dns64(|world| {
        let asks = with_edns(aaaa("x.old.example.", 1), true);
        world.miss(1, &asks);
        world.respond(nodata(60));
        world.respond(|message| {
            let target = b"\x03new\x07example\0";
            message.add_answer(opaque("old.example.", 60, rtype::DNAME, target));
            message.add_answer(signature("old.example.", 60, rtype::DNAME));
            message.add_answer(alias("x.old.example.", 60, "x.new.example."));
            message.add_answer(address("x.new.example.", 60, 1));
            message.add_answer(signature("x.new.example.", 60, rtype::A));
        });
        let types: Vec<RecordType> = {
            let reply = world.last_reply();
            reply.answers().iter().map(Record::record_type).collect()
        };
        let expected = [
            RecordType::from(rtype::DNAME),
            RecordType::RRSIG,
            RecordType::CNAME,
            RecordType::AAAA,
        ];
        assert_eq!(types, expected);
        reply_and_hit(world, &asks);
    });
}

#[test]
fn an_answer_is_authentic_if_both_are() {
    for (denial, records, is_authentic) in [
        (true, true, true),
        (true, false, false),
        (false, true, false),
    ] {
        let trusted = UpstreamConfig {
            trusted: true,
            ..server(UPSTREAM_1, 0)
        };
        with_servers(Settings::DEFAULT, &[trusted], Strategy::Ordered, |world| {
            world.policy = policy();
            let asks = with_edns(aaaa("x.example.", 1), true);
            world.miss(1, &asks);
            world.respond(|message| {
                message.set_authentic_data(denial);
                nodata(60)(message);
            });
            world.respond(|message| {
                message.set_authentic_data(records);
                answer_a(60)(message);
            });
            for reply in [world.last_reply(), world.hit(&asks)] {
                assert_eq!(reply.authentic_data(), is_authentic);
            }
        });
    }
}

/// RFC 7050: the IPv4 addresses of the name are known, so nobody is asked.
#[test]
fn clients_learn_the_prefix_by_its_name() {
    let asks = aaaa("IPv4Only.arpa.", 1);
    with_dns64(|world| {
        let mut records = answers(&world.hit(&asks));
        records.sort();
        let expected =
            ["c000:aa", "c000:ab"].map(|last| format!("ipv4only.arpa. AAAA 2001:db8:64::{last}"));
        assert_eq!(records, expected);
        assert!(world.effects.asked.is_empty());
        world.miss(1, &query("ipv4only.arpa.", 2));
        let routes = keep(image::table(&[("ipv4only.arpa", 1)]));
        world.policy.routes = Routes::view(routes).unwrap();
        world.miss(1, &asks);
        world.policy = Policy::OPEN;
        world.miss(2, &aaaa("ipv4only.arpa.", 3));
    });
}

#[test]
fn the_well_known_prefix_has_global_addresses_alone() {
    let (private, global) = ([192, 168, 1, 1], [8, 8, 4, 4]);
    for (v4s, expected) in [
        (vec![private], vec![]),
        (vec![private, global], vec!["64:ff9b::808:404"]),
        (
            vec![[192, 0, 0, 170], [192, 0, 0, 171]],
            vec!["64:ff9b::c000:aa", "64:ff9b::c000:ab"],
        ),
    ] {
        with_dns64(|world| {
            world.policy.dns64.prefix = Some(TranslationPrefix::WELL_KNOWN);
            let asks = aaaa("x.example.", 1);
            world.miss(1, &asks);
            world.respond(nodata(60));
            world.respond(|message| {
                for octets in &v4s {
                    message.add_answer(v4("x.example.", 300, *octets));
                }
            });
            let mut reply = reply_and_hit(world, &asks);
            reply.1.sort();
            let of = |text: &&str| format!("x.example. AAAA {text}");
            let expected: Vec<String> = expected.iter().map(of).collect();
            let has_soa = expected.is_empty();
            assert_eq!(reply, (ResponseCode::NoError, expected));
            let authorities = world.last_reply().name_servers().len();
            assert_eq!(authorities, usize::from(has_soa));
        });
    }
}

/// What a list, rebind protection or a filter says of the IPv4 address holds for that which would be made of it.
#[test]
fn what_is_withheld_stays_so() {
    let blocked = |world: &World<'_>| extended_error(world.last_bytes()) == Some(ede::BLOCKED);
    let rebind = || Rebind::new(rebind::Ranges::DEFAULT, Suffixes::EMPTY);
    let asks = with_edns(aaaa("x.example.", 1), false);
    let through = |policy: Policy<'static>, v4s: [u8; 4], expected: ResponseCode, is_made: bool| {
        with_dns64(|world| {
            world.policy = policy;
            world.miss(1, &asks);
            world.respond(nodata(60));
            world.respond(|message| {
                message.add_answer(alias("x.example.", 60, "ads.test."));
                message.add_answer(v4("ads.test.", 60, v4s));
            });
            let reply = reply_and_hit(world, &asks);
            assert_eq!(reply.0, expected);
            assert_eq!(reply.1.len(), if is_made { 2 } else { 0 }, "{reply:?}");
            assert_eq!(blocked(world), !is_made);
        });
    };
    let ok = ResponseCode::NoError;
    through(policy(), [10, 0, 0, 1], ok, true);
    let guarded = Policy {
        rebind: rebind(),
        ..policy()
    };
    through(guarded, [10, 0, 0, 1], ok, false);
    through(guarded, [192, 0, 2, 1], ok, true);
    let listed = Policy {
        lists: blocking(&["ads.test"]),
        ..policy()
    };
    through(listed, [192, 0, 2, 1], ResponseCode::NXDomain, false);
    // Every IPv4 address is bogus here.
    let screen = Screen {
        bogus: excluded(),
        ..Screen::OFF
    };
    let bogus = Policy { screen, ..policy() };
    through(bogus, [192, 0, 2, 1], ResponseCode::NXDomain, false);
    // Clients get no IPv4 addresses, but those that are made of them.
    let screen = Screen {
        bogus: ranges(&[0, 0xc633_6400, 0xc633_6500], &[0, 1, 0]),
        without_a: true,
        ..Screen::OFF
    };
    through(Policy { screen, ..policy() }, [192, 0, 2, 1], ok, true);
}

#[test]
fn where_ipv6_addresses_are_withheld_none_are_made() {
    with_dns64(|world| {
        world.policy.screen.without_aaaa = true;
        world.miss(1, &aaaa("x.example.", 1));
        world.respond(nodata(60));
        assert_eq!(reply_and_hit(world, &aaaa("x.example.", 1)), NODATA);
        world.miss(1, &aaaa("y.example.", 1));
        world.respond(|message| {
            message.add_answer(v6("y.example.", 60, "2001:db8::1"));
        });
        assert_eq!(reply_and_hit(world, &aaaa("y.example.", 1)), NODATA);
        assert_eq!(world.effects.asked.len(), 2);
    });
}

#[test]
fn a_withheld_ipv6_address_is_no_reason_to_ask_for_ipv4_ones() {
    with_dns64(|world| {
        world.policy.rebind = Rebind::new(rebind::Ranges::DEFAULT, Suffixes::EMPTY);
        world.miss(1, &aaaa("x.example.", 1));
        world.respond(|message| {
            message.add_answer(v6("x.example.", 60, "fd00::1"));
        });
        assert_eq!(reply_and_hit(world, &aaaa("x.example.", 1)), NODATA);
        assert_eq!(world.effects.asked.len(), 1);
    });
}

#[test]
fn local_data_stays_as_it_is_and_an_alias_out_of_it_leads_to_made_addresses() {
    let local = keep(image::local(&[
        ("nas.lan", &[(rtype::A, 60, vec![192, 168, 1, 2])]),
        ("out.lan", &[(rtype::CNAME, 60, image::wire("x.example"))]),
    ]));
    with_dns64(|world| {
        world.policy.local = LocalData::view(local).unwrap();
        let reply = world.hit(&aaaa("nas.lan.", 1));
        assert_eq!(told(&reply), NODATA);
        world.miss(1, &aaaa("out.lan.", 1));
        world.respond(nodata(60));
        world.respond(answer_a(60));
        let reply = reply_and_hit(world, &aaaa("out.lan.", 1));
        assert_eq!(reply.1, ["out.lan. CNAME x.example.".into(), made(80)]);
    });
}

/// Guests are 10.0.66.0/24, and have DNS64; all others have not.
#[test]
fn who_has_no_dns64_never_gets_an_address_of_one_who_has() {
    const GUEST: ReplyPath = 0x4201;
    let clients = ranges(&[0, 0x0a00_4200, 0x0a00_4300], &[0, 1, 0]);
    with_dns64(|world| {
        let guests = Policy {
            view: 1,
            ..policy()
        };
        world.policy.dns64 = Dns64::OFF;
        world.views = Views {
            clients,
            policies: vec![world.policy, guests].leak(),
            count: 2,
            ..Views::NONE
        };
        let asks = aaaa("x.example.", 1);
        for who in [GUEST, 1] {
            world.miss(who, &asks);
            world.respond(nodata(60));
            if who == GUEST {
                world.respond(answer_a(60));
            }
            let expected = if who == GUEST { vec![made(80)] } else { vec![] };
            assert_eq!(answers(&world.last_reply()), expected, "{who:x}");
            let (_, hit) = world.ask(who, &asks);
            assert_eq!(answers(&Message::from_vec(&hit).unwrap()), expected);
        }
        assert_eq!(world.effects.asked.len(), 3);
    });
}

/// What was made, and what was not, follows the config; what it does not concern stays.
#[test]
fn what_is_kept_follows_the_config() {
    let asks = aaaa("x.example.", 1);
    let on = policy().dns64;
    let other = Dns64 {
        prefix: prefix("2001:db8:65::"),
        ..on
    };
    for (before, after, stays) in [
        (on, on, true),
        (on, other, false),
        (on, Dns64::OFF, false),
        (Dns64::OFF, on, false),
        (Dns64::OFF, Dns64::OFF, true),
    ] {
        with_dns64(|world| {
            world.policy.dns64 = before;
            world.miss(1, &asks);
            world.respond(nodata(60));
            if before.prefix.is_some() {
                world.respond(answer_a(60));
            }
            let real = aaaa("real.example.", 2);
            world.miss(1, &real);
            world.respond(|message| {
                message.add_answer(v6("real.example.", 60, "2001:db8::1"));
            });
            world.policy.dns64 = after;
            world.policy.generation = 2;
            world.hit(&real);
            let (outcome, _) = world.ask(1, &asks);
            assert_eq!(outcome != Outcome::Pending, stays, "{before:?} {after:?}");
        });
    }
    // An address that is made of one that is withheld by now goes.
    with_dns64(|world| {
        world.miss(1, &asks);
        world.respond(nodata(60));
        world.respond(|message| {
            message.add_answer(v4("x.example.", 60, [10, 0, 0, 1]));
        });
        world.hit(&asks);
        world.policy.rebind = Rebind::new(rebind::Ranges::DEFAULT, Suffixes::EMPTY);
        world.policy.generation = 2;
        world.miss(1, &asks);
    });
    // So does one that is excluded by now.
    with_dns64(|world| {
        world.policy.dns64.excluded = AddressRanges::EMPTY;
        world.miss(1, &asks);
        world.respond(|message| {
            message.add_answer(v6("x.example.", 60, "::ffff:192.0.2.9"));
        });
        assert_eq!(answers(&world.hit(&asks)).len(), 1);
        world.policy.dns64.excluded = excluded();
        world.policy.generation = 2;
        world.miss(1, &asks);
    });
}

/// DNS64 is switched off while A records are under way.
#[test]
fn a_records_answer_no_question_for_aaaa_whatever_happens_meanwhile() {
    with_dns64(|world| {
        world.miss(1, &aaaa("x.example.", 1));
        world.respond(nodata(60));
        world.policy.dns64 = Dns64::OFF;
        world.policy.generation = 2;
        world.respond(answer_a(60));
        assert_eq!(told(&world.last_reply()), NODATA);
    });
}

#[test]
fn more_addresses_than_a_message_holds_are_none() {
    with_dns64(|world| {
        world.miss(1, &aaaa("x.example.", 1));
        world.respond(nodata(60));
        world.respond(|message| {
            for number in 0..3_000u16 {
                let [high, low] = number.to_be_bytes();
                message.add_answer(v4("x.example.", 60, [198, 7, high, low]));
            }
        });
        assert_eq!(told(&world.last_reply()), NODATA);
        assert_eq!(world.get(Counter::Dns64Answers), 0);
    });
}

#[test]
fn a_made_address_is_served_stale_where_nobody_answers() {
    with_dns64(|world| {
        world.miss(1, &aaaa("x.example.", 1));
        world.respond(nodata(60));
        world.respond(answer_a(60));
        world.pass(70_000);
        world.miss(1, &aaaa("x.example.", 2));
        world.pass(3_000);
        assert_eq!(answers(&world.last_reply()), [made(80)]);
    });
}

/// 192.0.2.33 below the prefix.
const MADE_NAME: &str = "1.2.2.0.0.0.0.c.0.0.0.0.0.0.0.0.0.0.0.0.4.6.0.0.8.b.d.0.1.0.0.2.ip6.arpa.";

fn pointer(owner: &str, target: &str) -> Record {
    opaque(owner, 300, rtype::PTR, &image::wire(target))
}

#[test]
fn the_name_of_a_made_address_leads_to_that_of_its_ipv4_address() {
    let asks = query_type(MADE_NAME, RecordType::PTR, 1);
    with_dns64(|world| {
        world.miss(1, &asks);
        let name = "33.2.0.192.in-addr.arpa.";
        assert_eq!(asked(world), (name.into(), RecordType::PTR, 1));
        world.respond(|message| {
            message.add_answer(pointer(name, "host.example"));
        });
        let expected = [
            format!("{MADE_NAME} CNAME {name}"),
            format!("{name} PTR host.example."),
        ];
        assert_eq!(reply_and_hit(world, &asks).1, expected);
        let ttls: Vec<u32> = world
            .last_reply()
            .answers()
            .iter()
            .map(Record::ttl)
            .collect();
        assert_eq!(ttls, [600, 300]);
        // Without the prefix it is a name like any other.
        world.policy.dns64 = Dns64::OFF;
        world.policy.generation = 2;
        world.miss(1, &asks);
        assert_eq!(asked(world), (MADE_NAME.into(), RecordType::PTR, 2));
        world.respond(|message| {
            message.set_response_code(ResponseCode::NXDomain);
            nodata(60)(message);
        });
        // And with it again, what was said of the name does not count.
        world.policy = Policy {
            generation: 3,
            ..policy()
        };
        world.miss(1, &asks);
        assert_eq!(asked(world).0, name);
    });
}

#[test]
fn the_name_of_a_made_address_is_answered_here_if_that_of_its_ipv4_address_is() {
    let asks = query_type(MADE_NAME, RecordType::PTR, 1);
    let name = "33.2.0.192.in-addr.arpa";
    let pointer = (rtype::PTR, 60, image::wire("nas.lan"));
    let local = keep(image::local(&[(name, &[pointer])]));
    with_dns64(|world| {
        world.policy.local = LocalData::view(local).unwrap();
        let expected = [
            format!("{MADE_NAME} CNAME {name}."),
            format!("{name}. PTR nas.lan."),
        ];
        assert_eq!(answers(&world.hit(&asks)), expected);
        // 192.0.2.0/24 is one of the reverse zones that are empty here.
        world.policy.local = LocalData::EMPTY;
        world.policy.special = Kinds::DEFAULT;
        let (code, records) = told(&world.hit(&asks));
        assert_eq!(
            (code, &records[..]),
            (ResponseCode::NXDomain, &expected[..1])
        );
        assert!(world.effects.asked.is_empty());
        // A route for the zone of the prefix goes before it.
        let routes = keep(image::table(&[("1.0.0.2.ip6.arpa", 1)]));
        world.policy.special = Kinds::NONE;
        world.policy.routes = Routes::view(routes).unwrap();
        world.miss(1, &asks);
        assert_eq!(asked(world), (MADE_NAME.into(), RecordType::PTR, 1));
        assert_eq!(world.asked(), [UPSTREAM_OTHER]);
    });
}

#[test]
fn other_questions_for_such_a_name_are_asked_as_they_are() {
    with_dns64(|world| {
        world.miss(1, &query_type(MADE_NAME, RecordType::TXT, 1));
        assert_eq!(asked(world).0, MADE_NAME);
        let mut validates = with_edns(query_type(MADE_NAME, RecordType::PTR, 2), true);
        validates.set_checking_disabled(true);
        world.miss(1, &validates);
        assert_eq!(asked(world).0, MADE_NAME);
        let beside = MADE_NAME.replacen("4.6.0.0", "5.6.0.0", 1);
        world.miss(1, &query_type(&beside, RecordType::PTR, 3));
        assert_eq!(asked(world).0, beside);
    });
}

/// Each question for such a name takes a place among the sub-questions.
#[test]
fn many_names_of_made_addresses_make_room_for_each_other() {
    with_dns64(|world| {
        let count = crate::limits::SUB_QUESTIONS + 3;
        for number in 0..count {
            let name = MADE_NAME.replacen("1.2.2.0", &format!("{:x}.2.2.0", number % 16), 1);
            world.miss(
                number as u32,
                &query_type(&name, RecordType::PTR, number as u16),
            );
        }
        assert_eq!(world.effects.asked.len(), count);
        assert_eq!(
            world.effects.replies.len(),
            3,
            "{}",
            world.get(Counter::PendingFull)
        );
        assert_eq!(world.engine.in_flight(), count - 3);
    });
}
