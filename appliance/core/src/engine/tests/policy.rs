//! Policy: local data, blocked names, private addresses, routes, clients.

use super::harness::*;
use super::image;
use crate::policy::{Acl, BlockAnswer, List, LocalData, Rebind, Routes, Suffixes, rebind};

pub(super) fn blocking(names: &[&str]) -> crate::policy::Lists<'static> {
    let mut lists = crate::policy::Lists::EMPTY;
    let names = names.iter().map(|name| (image::wire(name), image::BLOCK));
    let image = keep(image::list(names));
    assert!(lists.push(List::check(image).unwrap()));
    lists
}

/// Local data of a house: `nas` has an address, `www` is its alias, other aliases lead outside.
fn house() -> LocalData<'static> {
    let cname = |target: &str| (rtype::CNAME, 120, image::wire(target));
    let image = image::local(&[
        ("nas.lan", &[(rtype::A, 60, vec![192, 168, 1, 2])]),
        ("www.lan", &[cname("nas.lan")]),
        ("out.lan", &[cname("cdn.example")]),
        ("twice.lan", &[cname("out.lan")]),
        ("bad.lan", &[cname("ads.example")]),
        ("corp.lan", &[cname("host.corp")]),
        ("self.lan", &[cname("localhost")]),
        ("plain.lan", &[cname("printer")]),
        ("loop.lan", &[cname("loop.lan")]),
    ]);
    LocalData::view(keep(image)).unwrap()
}

fn cdn(message: &mut Message) {
    message.add_answer(alias("cdn.example.", 300, "edge.example."));
    message.add_answer(address("edge.example.", 300, 1));
    message.add_answer(address("edge.example.", 300, 2));
}

/// A client that looks for the apex of a zone asks for its SOA, from the name upwards.
#[test]
fn the_apex_of_a_local_zone_has_its_soa_and_nothing_else_has() {
    let data = keep(image::local(&[
        ("nas.lan", &[(rtype::A, 60, vec![192, 168, 1, 2])]),
        ("lan", &[]),
    ]));
    with_world(Settings::DEFAULT, |world| {
        world.policy.local = LocalData::view(data).unwrap();
        for (name, rtype, is_answer) in [
            ("lan.", RecordType::SOA, true),
            ("nas.lan.", RecordType::SOA, false),
            ("phone.lan.", RecordType::SOA, false),
            ("lan.", RecordType::A, false),
            ("lan.", RecordType::NS, false),
        ] {
            let reply = world.hit(&query_type(name, rtype, 1));
            let soa = |records: &[Record]| {
                let of_lan = |record: &&Record| {
                    record.record_type() == RecordType::SOA
                        && *record.name() == super::harness::name("lan.")
                };
                records.iter().filter(of_lan).count()
            };
            let found = (soa(reply.answers()), soa(reply.name_servers()));
            let expected = if is_answer { (1, 0) } else { (0, 1) };
            assert_eq!(found, expected, "{name} {rtype}");
            assert!(reply.authoritative());
        }
    });
}

#[test]
fn local_aliases_within_local_data() {
    with_world(Settings::DEFAULT, |world| {
        world.policy.local = house();
        let reply = world.hit(&query("WWW.lan.", 1));
        assert!(reply.authoritative());
        assert_eq!(
            answers(&reply),
            ["www.lan. CNAME nas.lan.", "nas.lan. A 192.168.1.2"]
        );
        let nodata = world.hit(&query_type("nas.lan.", RecordType::AAAA, 2));
        assert_eq!(
            (nodata.response_code(), nodata.name_servers().len()),
            (ResponseCode::NoError, 1)
        );
        let question = with_edns(query("loop.lan.", 3), false).to_vec().unwrap();
        let endless = world.hit_bytes(&question);
        let shown = Message::from_vec(&endless).unwrap();
        assert_eq!(shown.response_code(), ResponseCode::ServFail);
        assert_eq!(shown.answers().len(), 0);
        assert_eq!(
            extended_error(&endless),
            Some(ede::OTHER),
            "as from upstream"
        );
        let any = world.hit_bytes(&query_type("nas.lan.", RecordType::ANY, 4).to_vec().unwrap());
        assert!(any.ends_with(b"\x07RFC8482\0"), "there are records");
        for (alias, target) in [("www.lan.", "nas.lan."), ("Out.lan.", "cdn.example.")] {
            let any = world.hit(&query_type(alias, RecordType::ANY, 5));
            let expected = format!("{} CNAME {target}", alias.to_lowercase());
            assert_eq!(answers(&any), [expected], "all that it has");
            assert_eq!(any.name_servers().len(), 0, "nothing is denied");
        }
        assert!(world.effects.asked.is_empty());
    });
}

#[test]
fn a_local_alias_that_leads_out_is_answered_with_what_its_target_has() {
    with_world(Settings::DEFAULT, |world| {
        world.policy.local = house();
        world.miss(1, &query("Out.lan.", 1));
        world.miss(2, &query("twice.lan.", 2));
        world.miss(3, &query("cdn.example.", 3));
        assert_eq!(world.effects.asked.len(), 1, "one question for all of them");
        assert_eq!(
            world.last_question().queries()[0].name(),
            &name("cdn.example.")
        );
        world.respond(cdn);
        let tail = [
            "cdn.example. CNAME edge.example.",
            "edge.example. A",
            "edge.example. A",
        ];
        for (reply_path, bytes) in world.effects.replies.clone() {
            let reply = Message::from_vec(&bytes).unwrap();
            let got = answers(&reply);
            let head: &[&str] = match reply_path {
                1 => &["out.lan. CNAME cdn.example."],
                2 => &["twice.lan. CNAME out.lan.", "out.lan. CNAME cdn.example."],
                _ => &[],
            };
            let expected = [head, &tail].concat();
            assert_eq!(got.len(), expected.len(), "{got:?}");
            for (got, expected) in got.iter().zip(expected) {
                assert!(got.starts_with(expected), "{got} {expected}");
            }
            assert_eq!(u32::from(reply.id()), reply_path);
            assert!(!reply.authoritative() && !reply.authentic_data());
        }
        let first = &world
            .effects
            .replies
            .iter()
            .find(|(reply_path, _)| *reply_path == 1)
            .unwrap()
            .1;
        assert!(
            first[12..].starts_with(b"\x03Out\x03lan\0"),
            "its letter case"
        );
        // From the cache: TTLs count down, but not those of local data.
        world.pass(100_000);
        let reply = world.hit(&query("twice.LAN.", 4));
        let ttls: Vec<u32> = reply.answers().iter().map(Record::ttl).collect();
        assert_eq!(ttls, [120, 120, 200, 200, 200]);
        assert_eq!(world.effects.asked.len(), 1);
        // The alias itself, and a target without the type.
        let itself = world.hit(&query_type("out.lan.", RecordType::CNAME, 5));
        assert_eq!(answers(&itself), ["out.lan. CNAME cdn.example."]);
        world.miss(1, &query_type("out.lan.", RecordType::AAAA, 6));
        world.respond(|message| {
            message.add_name_server(soa("example.", 60, 60));
        });
        let nodata = world.last_reply();
        assert_eq!(
            (nodata.answers().len(), nodata.name_servers().len()),
            (1, 1)
        );
    });
}

#[test]
fn a_local_alias_to_a_name_that_does_not_exist_fails_or_is_stale_with_it() {
    with_world(Settings::DEFAULT, |world| {
        world.policy.local = house();
        world.miss(1, &query("out.lan.", 1));
        world.respond(|message| {
            message.set_response_code(ResponseCode::NXDomain);
            message.add_name_server(soa("example.", 10, 10));
        });
        let gone = world.last_reply();
        assert_eq!(
            (
                gone.response_code(),
                gone.answers().len(),
                gone.name_servers().len()
            ),
            (ResponseCode::NXDomain, 1, 1)
        );
        world.miss(1, &query_type("out.lan.", RecordType::AAAA, 4));
        world.respond(|message| {
            message.set_response_code(ResponseCode::NXDomain);
        });
        let bare = world.last_reply();
        assert_eq!(
            (bare.response_code(), answers(&bare)),
            (
                ResponseCode::NXDomain,
                vec!["out.lan. CNAME cdn.example.".into()]
            ),
            "without SOA"
        );
        world.pass(11_000);
        world.miss(1, &with_edns(query("out.lan.", 2), false));
        world.pass(1_800);
        let stale = world.last_reply();
        assert_eq!(
            extended_error(world.last_bytes()),
            Some(ede::STALE_NXDOMAIN)
        );
        assert_eq!((stale.answers().len(), stale.answers()[0].ttl()), (1, 120));
        world.pass(100_000_000);
        world.miss(1, &query("out.lan.", 3));
        world.pass(5_000);
        let failed = world.last_reply();
        assert_eq!(
            (
                failed.response_code(),
                failed.answers().len(),
                failed.queries()[0].name()
            ),
            (ResponseCode::ServFail, 0, &name("out.lan."))
        );
    });
}

/// The alias is a part of every answer, whatever is known about its target. That one type is withheld says nothing about
/// another.
#[test]
fn what_is_known_of_a_target_or_of_a_withheld_answer_is_not_known_of_the_name() {
    with_world(Settings::DEFAULT, |world| {
        world.policy.local = house();
        world.miss(1, &query("cdn.example.", 1));
        world.respond(|message| {
            message.set_response_code(ResponseCode::NXDomain);
            message.add_name_server(soa("example.", 60, 60));
        });
        world.miss(2, &query_type("out.lan.", RecordType::AAAA, 2));
        world.policy.lists = blocking(&["edge.example"]);
        world.policy.block_ttl_secs = 60;
        world.miss(3, &query("www.example.", 3));
        world.respond(|message| {
            message.add_answer(alias("www.example.", 300, "edge.example."));
            message.add_answer(address("edge.example.", 300, 1));
        });
        assert_eq!(world.last_reply().response_code(), ResponseCode::NXDomain);
        world.miss(4, &query_type("www.example.", RecordType::MX, 4));
    });
}

/// A target is answered in its original letter case, and looked up in lower case.
#[test]
fn the_target_of_a_local_alias_keeps_its_letter_case() {
    let cname = |target: &str| (rtype::CNAME, 120, image::wire(target));
    let lower = |target: &str| (crate::policy::local::TARGET, 0, image::wire(target));
    let data = keep(image::local(&[
        ("www.lan", &[cname("NAS.Lan"), lower("nas.lan")]),
        ("nas.lan", &[(rtype::A, 60, vec![192, 168, 1, 2])]),
        ("out.lan", &[cname("CDN.Example"), lower("cdn.example")]),
    ]));
    with_world(Settings::DEFAULT, |world| {
        world.policy.local = LocalData::view(data).unwrap();
        let reply = world.hit(&query("www.LAN.", 1));
        assert_eq!(
            written(&reply),
            ["www.LAN. CNAME NAS.Lan.", "NAS.Lan. A 192.168.1.2"]
        );
        world.miss(1, &query("out.lan.", 2));
        world.respond(|message| {
            message.add_answer(address("cdn.example.", 300, 1));
        });
        assert_eq!(
            written(&world.last_reply())[0],
            "out.lan. CNAME CDN.Example."
        );
    });
}

/// Over UDP nothing of an RRset that does not fit is given (RFC 2181 section 9).
#[test]
fn of_too_many_records_as_many_are_given_as_fit_a_message() {
    let addresses: Vec<image::ImageRecord> = (0..5_000u16)
        .map(|number| {
            let [high, low] = number.to_be_bytes();
            (rtype::A, 60, vec![10, 0, high, low])
        })
        .collect();
    let data = keep(image::local(&[("many.lan", &addresses)]));
    with_world(Settings::DEFAULT, |world| {
        world.policy.local = LocalData::view(data).unwrap();
        let reply = world.hit(&query("many.lan.", 1));
        assert_eq!(reply.response_code(), ResponseCode::NoError);
        assert!(reply.truncated() && reply.answers().is_empty());
        for question in [
            query("many.lan.", 2),
            with_edns(query("many.lan.", 2), false),
        ] {
            let (outcome, bytes) = world.ask_tcp(1, &question);
            assert!(matches!(outcome, Outcome::Reply(_)), "{outcome:?}");
            let reply = Message::from_vec(&bytes).unwrap();
            assert_eq!(reply.response_code(), ResponseCode::NoError);
            assert_eq!(reply.answers().len(), 4_091);
        }
    });
}

/// Records of an answer with their names as they are in the message.
fn written(reply: &Message) -> Vec<String> {
    let records = reply.answers().iter();
    let text = |record: &Record| {
        let (name, rtype, data) = (record.name(), record.record_type(), record.data());
        format!("{} {rtype} {data}", name.to_ascii())
    };
    records.map(text).collect()
}

/// A name that a lease or hosts file may add is denied for no longer than policy says; names fixed by RFCs as ever.
#[test]
fn names_of_this_network_are_denied_for_as_long_as_policy_says() {
    let ttl_of = |world: &mut World, name: &str, qtype| {
        let reply = world.hit(&query_type(name, qtype, 1));
        assert_eq!(reply.name_servers().len(), 1, "{name}: {reply}");
        reply.name_servers()[0].ttl()
    };
    let data = keep(image::local(&[
        ("nas.lan", &[(rtype::A, 60, vec![192, 168, 1, 2])]),
        ("lan", &[]),
    ]));
    let cases = [
        ("66.1.168.192.in-addr.arpa.", RecordType::PTR, 10_800),
        ("1.0.0.0.0.d.f.ip6.arpa.", RecordType::PTR, 10_800),
        ("phone.home.arpa.", RecordType::A, 10_800),
        ("phone.internal.", RecordType::A, 10_800),
        ("phone.local.", RecordType::A, 10_800),
        ("phone.lan.", RecordType::A, 60),
        ("nas.lan.", RecordType::AAAA, 60),
        ("phone.", RecordType::A, 60),
        ("phone.", RecordType::HTTPS, 60),
    ];
    let fixed = [
        ("x.invalid.", RecordType::A),
        ("x.onion.", RecordType::A),
        ("x.alt.", RecordType::A),
        ("_dns.resolver.arpa.", RecordType::SVCB),
        ("localhost.", RecordType::MX),
    ];
    with_world(Settings::DEFAULT, |world| {
        world.policy = Policy {
            local: LocalData::view(data).unwrap(),
            special: crate::policy::Kinds::DEFAULT,
            forward_plain_names: false,
            ..Policy::OPEN
        };
        for (name, qtype, ttl_secs) in cases {
            assert_eq!(ttl_of(world, name, qtype), ttl_secs, "{name}");
        }
        world.policy.denial_ttl_secs = Some(7);
        for (name, qtype, _) in cases {
            assert_eq!(ttl_of(world, name, qtype), 7, "{name}");
        }
        for (name, qtype) in fixed {
            assert_eq!(ttl_of(world, name, qtype), 10_800, "{name}");
        }
        assert!(world.effects.asked.is_empty());
    });
}

#[test]
fn an_alias_that_is_changed_meanwhile_is_asked_again() {
    with_world(Settings::DEFAULT, |world| {
        world.policy.local = house();
        world.miss(1, &query("out.lan.", 1));
        world.policy.local = LocalData::EMPTY;
        world.respond(cdn);
        assert_eq!(world.last_reply().response_code(), ResponseCode::ServFail);
    });
}

#[test]
fn the_target_of_a_local_alias_is_a_name_like_any_other() {
    let routes = keep(image::table(&[("corp", 1)]));
    with_world(Settings::DEFAULT, |world| {
        world.policy = Policy {
            local: house(),
            lists: blocking(&["ads.example"]),
            block_ttl_secs: 10,
            routes: Routes::view(routes).unwrap(),
            special: crate::policy::Kinds::DEFAULT,
            forward_plain_names: false,
            ..Policy::OPEN
        };
        world.miss(1, &query("corp.lan.", 1));
        assert_eq!(world.asked(), [UPSTREAM_OTHER]);
        let blocked = world.hit_bytes(&with_edns(query("bad.lan.", 2), false).to_vec().unwrap());
        assert_eq!(
            (blocked[3] & 0xf, extended_error(&blocked)),
            (3, Some(ede::BLOCKED))
        );
        assert_eq!(
            answers(&world.hit(&query("self.lan.", 3))),
            ["self.lan. CNAME localhost.", "localhost. A 127.0.0.1"]
        );
        let plain = world.hit(&query("plain.lan.", 4));
        assert_eq!(
            (plain.response_code(), answers(&plain)),
            (
                ResponseCode::NXDomain,
                vec![String::from("plain.lan. CNAME printer.")]
            )
        );
    });
}

/// `sub.lan` has a route, although `lan` is a local zone.
#[test]
fn a_local_alias_may_lead_into_a_routed_part_of_its_zone() {
    let routes = keep(image::table(&[("sub.lan", 1)]));
    let cname = |target: &str| (rtype::CNAME, 120, image::wire(target));
    let data = image::local(&[
        ("in.lan", &[cname("host.sub.lan")]),
        ("no.lan", &[cname("host.lan")]),
        ("lan", &[]),
    ]);
    let data = keep(data);
    with_world(Settings::DEFAULT, |world| {
        world.policy.local = LocalData::view(data).unwrap();
        world.policy.routes = Routes::view(routes).unwrap();
        world.miss(1, &query("in.lan.", 1));
        assert_eq!(world.asked(), [UPSTREAM_OTHER]);
        world.respond(answer_a(60));
        let expected = ["in.lan. CNAME host.sub.lan.", "host.sub.lan. A 192.0.2.80"];
        assert_eq!(answers(&world.last_reply()), expected);
        assert_eq!(answers(&world.hit(&query("in.lan.", 2))), expected);
        let denied = world.hit(&query("no.lan.", 3));
        assert_eq!(denied.response_code(), ResponseCode::NXDomain);
    });
}

#[test]
fn aliases_that_wait_are_bounded() {
    with_world(Settings::DEFAULT, |world| {
        world.policy.local = house();
        for id in 0..200 {
            world.ask(u32::from(id), &query("out.lan.", id));
        }
        world.miss(999, &query("cdn.example.", 1));
        world.respond(cdn);
        let answered = world
            .effects
            .replies
            .iter()
            .filter(|(_, bytes)| bytes[3] & 0xf == 0);
        assert_eq!(answered.count(), crate::limits::ALIASES + 1);
    });
}

#[test]
fn every_way_to_block_a_name() {
    let custom = BlockAnswer::Address {
        v4: Some([192, 0, 2, 99]),
        v6: None,
    };
    let cases = [
        (
            BlockAnswer::Nxdomain,
            RecordType::A,
            ResponseCode::NXDomain,
            None,
        ),
        (
            BlockAnswer::Nodata,
            RecordType::A,
            ResponseCode::NoError,
            None,
        ),
        (
            BlockAnswer::ZeroAddress,
            RecordType::A,
            ResponseCode::NoError,
            Some("0.0.0.0"),
        ),
        (
            BlockAnswer::ZeroAddress,
            RecordType::AAAA,
            ResponseCode::NoError,
            Some("::"),
        ),
        (
            BlockAnswer::ZeroAddress,
            RecordType::HTTPS,
            ResponseCode::NoError,
            None,
        ),
        (
            custom,
            RecordType::A,
            ResponseCode::NoError,
            Some("192.0.2.99"),
        ),
        (custom, RecordType::AAAA, ResponseCode::NoError, None),
    ];
    for (block_answer, qtype, code, said) in cases {
        with_world(Settings::DEFAULT, |world| {
            world.policy = Policy {
                lists: blocking(&["ads.example"]),
                block_answer,
                block_ttl_secs: 10,
                ..Policy::OPEN
            };
            let check = |reply: &Message, bytes: &[u8]| {
                assert_eq!(reply.response_code(), code, "{block_answer:?} {qtype}");
                let data: Vec<String> = reply
                    .answers()
                    .iter()
                    .map(|r| format!("{}", r.data()))
                    .collect();
                assert_eq!(data, said.into_iter().map(String::from).collect::<Vec<_>>());
                assert_eq!(reply.name_servers().len(), usize::from(said.is_none()));
                let ttls = reply
                    .answers()
                    .iter()
                    .chain(reply.name_servers())
                    .map(Record::ttl);
                let ttls: Vec<u32> = ttls.collect();
                assert_eq!(ttls, [10], "{block_answer:?} {reply:?}");
                assert_eq!(extended_error(bytes), Some(ede::BLOCKED));
                assert!(!reply.authoritative());
            };
            for dnssec_ok in [false, true] {
                // By its own name, and by a CNAME that leads there.
                let query = with_edns(query_type("x.Ads.example.", qtype, 1), dnssec_ok);
                let bytes = world.hit_bytes(&query.to_vec().unwrap());
                check(&Message::from_vec(&bytes).unwrap(), &bytes);
                let query = with_edns(query_type("innocent.example.", qtype, 2), dnssec_ok);
                world.miss(1, &query);
                world.respond(|message| {
                    message.add_answer(alias("innocent.example.", 3_600, "T.ads.example."));
                    message.add_answer(address("t.ads.example.", 3_600, 1));
                });
                check(&world.last_reply(), world.last_bytes());
                let bytes = world.hit_bytes(&query.to_vec().unwrap());
                check(&Message::from_vec(&bytes).unwrap(), &bytes);
            }
            assert_eq!(world.get(Counter::Blocked), 4);
        });
    }
}

/// RFC 9460 section 2.1: AliasMode is an alias, and ServiceMode names the host that the client goes to.
#[test]
fn a_service_at_a_blocked_name_is_blocked() {
    let blocked = b"\x01x\x03ads\x07example\0";
    let other = b"\x03cdn\x07example\0";
    let itself = b"\0";
    let cases: [(u16, &[u8], bool); 5] = [
        (0, blocked, true),
        (1, blocked, true),
        (0, other, false),
        (1, other, false),
        (1, itself, false),
    ];
    for (priority, target, is_blocked) in cases {
        for (qtype, number) in [(RecordType::HTTPS, 65), (RecordType::SVCB, 64)] {
            with_world(Settings::DEFAULT, |world| {
                world.policy.lists = blocking(&["ads.example"]);
                let query = with_edns(query_type("a.example.", qtype, 1), false);
                world.miss(1, &query);
                world.respond(|message| {
                    let rdata = [&priority.to_be_bytes(), target].concat();
                    message.add_answer(opaque("a.example.", 60, number, &rdata));
                });
                let expected = is_blocked.then_some(ede::BLOCKED);
                assert_eq!(extended_error(world.last_bytes()), expected, "{target:?}");
                let count = usize::from(!is_blocked);
                let reply = world.last_reply();
                assert_eq!(reply.answers().len(), count, "{target:?}");
                // The name exists, and may have addresses.
                assert_eq!(reply.response_code(), ResponseCode::NoError, "{target:?}");
            });
        }
    }
}

#[test]
fn an_allowed_name_may_lead_to_a_blocked_one() {
    let names = [
        (image::wire("ads.example"), image::BLOCK),
        (
            image::wire("shop.example"),
            crate::policy::list::tag::ALLOW_SELF,
        ),
    ];
    let list = keep(image::list(names.into_iter()));
    with_world(Settings::DEFAULT, |world| {
        assert!(world.policy.lists.push(List::check(list).unwrap()));
        for (asked, expected) in [
            ("shop.example.", ResponseCode::NoError),
            ("x.shop.example.", ResponseCode::NXDomain),
        ] {
            world.miss(1, &query(asked, 1));
            world.respond(|message| {
                message.add_answer(alias(asked, 60, "ads.example."));
                message.add_answer(address("ads.example.", 60, 1));
            });
            assert_eq!(world.last_reply().response_code(), expected, "{asked}");
        }
    });
}

#[test]
fn clients_are_answered_refused_or_ignored() {
    // From 10.0.0.0 on all are answered, from 10.0.0.2 on refused, from 10.0.0.3 on ignored; IPv6 is refused.
    let mut acl = [3u32, 1].map(u32::to_le_bytes).concat();
    for start in [0u32, 0x0a00_0002, 0x0a00_0003] {
        acl.extend(start.to_le_bytes());
    }
    acl.extend([0, 1, 2]);
    acl.extend([0; 16]);
    acl.push(1);
    let acl = Acl::view(keep(acl)).unwrap();
    with_world(Settings::DEFAULT, |world| {
        world.policy.acl = acl;
        let bytes = with_edns(query("a.example.", 1), false).to_vec().unwrap();
        assert_eq!(world.ask_bytes(1, &bytes).0, Outcome::Pending);
        let (_, refused) = world.ask_bytes(2, &bytes);
        assert_eq!(
            (refused[3] & 0xf, extended_error(&refused)),
            (5, Some(ede::PROHIBITED))
        );
        for bytes in [&bytes[..], &bytes[..20]] {
            assert_eq!(world.ask_bytes(3, bytes).0, Outcome::Silence);
        }
        assert_eq!(world.get(Counter::AclDropped), 2);
    });
}

#[test]
fn what_was_withheld_does_not_outlive_its_short_ttl() {
    with_world(Settings::DEFAULT, |world| {
        world.policy = Policy {
            lists: blocking(&["ads.example"]),
            block_ttl_secs: 10,
            ..Policy::OPEN
        };
        let answer = |message: &mut Message| {
            message.add_answer(alias("a.example.", 3_600, "ads.example."));
            message.add_answer(address("ads.example.", 3_600, 1));
        };
        world.miss(1, &query("a.example.", 1));
        world.respond(answer);
        assert_eq!(world.last_reply().response_code(), ResponseCode::NXDomain);
        world.policy = Policy::OPEN;
        world.pass(10_000);
        // Not even as a stale answer: it would be one of another policy.
        world.miss(1, &query("a.example.", 2));
        world.pass(5_000);
        assert_eq!(world.last_reply().response_code(), ResponseCode::ServFail);
        world.pass(10_000);
        world.miss(1, &query("a.example.", 3));
        world.respond(answer);
        assert_eq!(world.last_reply().answers().len(), 2);
    });
}

/// New lists apply to cached answers as well: a blocked one is removed at once, an allowed one stays without asking
/// upstream again.
#[test]
fn what_is_cached_is_judged_again_under_another_policy() {
    let policies = [
        Policy::OPEN,
        Policy {
            generation: 1,
            lists: blocking(&["ads.example"]),
            block_ttl_secs: 1_000,
            ..Policy::OPEN
        },
        Policy {
            generation: 2,
            ..Policy::OPEN
        },
    ];
    with_world(Settings::DEFAULT, |world| {
        let led = |message: &mut Message| {
            message.add_answer(alias("www.example.", 3_600, "ads.example."));
            message.add_answer(address("ads.example.", 3_600, 1));
        };
        for (policy, code) in policies.into_iter().zip([
            ResponseCode::NoError,
            ResponseCode::NXDomain,
            ResponseCode::NoError,
        ]) {
            world.policy = policy;
            world.miss(1, &query("www.example.", 1));
            world.respond(led);
            assert_eq!(world.last_reply().response_code(), code);
            for _ in 0..2 {
                let hit = world.hit(&query("www.example.", 2));
                assert_eq!(hit.response_code(), code);
            }
            if policy.generation == 0 {
                world.miss(1, &query("good.example.", 1));
                world.respond(answer_a(3_600));
            }
            let hit = world.hit(&query("good.example.", 2));
            assert_eq!(hit.answers()[0].ttl(), 3_600, "kept all the time");
        }
    });
}

#[test]
fn a_stale_answer_is_judged_again_too() {
    with_world(Settings::DEFAULT, |world| {
        for owner in ["www.example.", "good.example."] {
            world.miss(1, &query(owner, 1));
            let target = format!(
                "{}.end.example.",
                if owner.starts_with('w') { "ads" } else { "x" }
            );
            world.respond(|message| {
                message.add_answer(alias(owner, 10, &target));
                message.add_answer(address(&target, 10, 1));
            });
        }
        world.pass(20_000);
        for owner in ["www.example.", "good.example."] {
            world.miss(1, &query(owner, 2));
        }
        // The lists change while two clients wait.
        world.policy = Policy {
            generation: 1,
            lists: blocking(&["ads.end.example"]),
            ..Policy::OPEN
        };
        world.pass(5_000);
        let replies = world.effects.replies.iter().rev().take(2);
        let mut codes: Vec<_> = replies
            .map(|(_, bytes)| Message::from_vec(bytes).unwrap())
            .map(|reply| {
                (
                    format!("{}", reply.queries()[0].name()),
                    reply.response_code(),
                )
            })
            .collect();
        codes.sort_by(|one, other| one.0.cmp(&other.0));
        assert_eq!(
            codes,
            [
                ("good.example.".into(), ResponseCode::NoError),
                ("www.example.".into(), ResponseCode::ServFail)
            ]
        );
    });
}

#[test]
fn a_name_that_is_routed_elsewhere_is_asked_there() {
    let routes = keep(image::table(&[("corp.example", 1)]));
    with_world(Settings::DEFAULT, |world| {
        for owner in ["a.corp.example.", "b.example."] {
            world.miss(1, &query(owner, 1));
            world.respond(answer_a(3_600));
        }
        world.policy.generation = 1;
        world.policy.routes = Routes::view(routes).unwrap();
        world.hit(&query("b.example.", 2));
        world.miss(1, &query("a.corp.example.", 2));
        assert_eq!(world.asked().last().unwrap(), UPSTREAM_OTHER);
    });
}

/// A chain is judged link by link. One that several groups told is asked for again under every policy.
#[test]
fn an_alias_whose_target_is_routed_or_told_otherwise_is_asked_for_again() {
    let routes = keep(image::table(&[("corp.example", 1)]));
    let nas = (rtype::A, 60, vec![192, 168, 1, 2]);
    let local = keep(image::local(&[("nas.lan", &[nas])]));
    let chains = [
        ("w1.test.", "h.corp.example."),
        ("w2.test.", "nas.lan."),
        ("w3.test.", "other.example."),
    ];
    // The target's address comes with the alias, or is asked for.
    for is_whole in [true, false] {
        with_world(Settings::DEFAULT, |world| {
            for (owner, target) in chains {
                world.miss(1, &query(owner, 1));
                let answer = address(target, 300, 1);
                world.respond(|message| {
                    message.add_answer(alias(owner, 300, target));
                    if is_whole {
                        message.add_answer(answer.clone());
                    }
                });
                if !is_whole {
                    world.respond(|message| {
                        message.add_answer(answer);
                    });
                }
                assert_eq!(world.hit(&query(owner, 2)).answers().len(), 2, "{owner}");
            }
            world.policy.generation = 1;
            world.policy.routes = Routes::view(routes).unwrap();
            world.policy.local = LocalData::view(local).unwrap();
            world.hit(&query("w3.test.", 2));
            world.miss(1, &query("w2.test.", 2));
            world.miss(1, &query("w1.test.", 2));
            world.respond(|message| {
                message.add_answer(alias("w1.test.", 300, "h.corp.example."));
            });
            assert_eq!(world.asked().last().unwrap(), UPSTREAM_OTHER);
            world.respond(|message| {
                message.add_answer(address("h.corp.example.", 300, 2));
            });
            world.hit(&query("w1.test.", 3));
            // The same routes: the group of each link is the same, but nobody notes them all.
            world.policy.generation = 2;
            world.miss(1, &query("w1.test.", 4));
        });
    }
}

#[test]
fn private_addresses_are_withheld_said_and_noted() {
    let allowed = keep(image::table(&[("home.example", 0)]));
    let protect = Policy {
        rebind: Rebind::new(rebind::Ranges::DEFAULT, Suffixes::view(allowed).unwrap()),
        block_ttl_secs: 10,
        ..Policy::OPEN
    };
    let hint = b"\0\x01\0\0\x04\0\x04\x0a\0\0\x01";
    let private: [(RecordType, Record); 4] = [
        (
            RecordType::A,
            opaque("x.example.", 60, 1, &[192, 168, 1, 1]),
        ),
        (
            RecordType::AAAA,
            opaque(
                "x.example.",
                60,
                28,
                &[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
            ),
        ),
        (RecordType::HTTPS, opaque("x.example.", 60, 65, hint)),
        (RecordType::SVCB, opaque("x.example.", 60, 64, hint)),
    ];
    for (qtype, record) in private {
        with_world(Settings::DEFAULT, |world| {
            world.policy = protect;
            world.miss(1, &with_edns(query_type("x.example.", qtype, 1), false));
            world.respond(|message| {
                message.add_answer(record.clone());
            });
            let reply = world.last_reply();
            assert_eq!(
                (
                    reply.response_code(),
                    reply.answers().len(),
                    reply.name_servers().len()
                ),
                (ResponseCode::NoError, 0, 1)
            );
            assert_eq!(extended_error(world.last_bytes()), Some(ede::BLOCKED));
            assert_eq!(world.effects.notices, ["Rebind x.example."]);
            assert_eq!(world.get(Counter::RebindWithheld), 1);
            // Names of the house may.
            let mut record = record;
            record.set_name(name("nas.home.example."));
            world.miss(1, &query_type("nas.home.example.", qtype, 2));
            world.respond(|message| {
                message.add_answer(record);
            });
            assert_eq!(world.last_reply().answers().len(), 1);
        });
    }
}

#[test]
fn the_longest_route_wins() {
    let routes = keep(image::table(&[
        ("example", 0),
        ("corp.example", 1),
        ("168.192.in-addr.arpa", 1),
    ]));
    with_world(Settings::DEFAULT, |world| {
        world.policy.routes = Routes::view(routes).unwrap();
        for (asked, to) in [
            ("a.example.", UPSTREAM_1),
            ("a.corp.example.", UPSTREAM_OTHER),
            ("corp.example.", UPSTREAM_OTHER),
            ("notcorp.example.", UPSTREAM_1),
            ("1.1.168.192.in-addr.arpa.", UPSTREAM_OTHER),
        ] {
            world.miss(1, &query(asked, 1));
            assert_eq!(world.asked().last().unwrap(), to, "{asked}");
        }
        for (asked, to) in [
            ("corp.example.", UPSTREAM_1),
            ("sub.corp.example.", UPSTREAM_OTHER),
        ] {
            world.miss(1, &query_type(asked, RecordType::from(43), 1));
            assert_eq!(world.asked().last().unwrap(), to, "DS of {asked}");
        }
    });
}

/// RFC 4035 section 3.1.4.1: the DS of a zone belongs to its parent, which alone can prove that the zone is not signed.
#[test]
fn the_ds_of_a_local_zone_is_asked_of_its_parent() {
    let data = image::local(&[
        ("lan", &[]),
        ("sub.lan", &[]),
        ("nas.lan", &[(rtype::A, 60, vec![192, 168, 1, 2])]),
    ]);
    with_world(Settings::DEFAULT, |world| {
        world.policy.local = LocalData::view(keep(data)).unwrap();
        let ds = |asked| query_type(asked, RecordType::from(43), 1);
        world.miss(1, &ds("lan."));
        // A zone whose parent is local, a name that is no zone, and all other types.
        for asked in [ds("sub.lan."), ds("nas.lan."), query("lan.", 1)] {
            let reply = world.hit(&asked);
            assert_eq!(
                (reply.response_code(), reply.name_servers().len()),
                (ResponseCode::NoError, 1)
            );
        }
    });
}
