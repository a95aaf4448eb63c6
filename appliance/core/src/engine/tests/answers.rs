//! Answers that are odd but legal: what is kept of them, and what is not.

use super::harness::*;
use crate::counters::latency::BOUNDS_MICROS;

#[test]
fn only_the_questions_own_chain_is_kept() {
    with_world(Settings::DEFAULT, |world| {
        world.ask(1, &query("www.example.", 1));
        world.respond(|message| {
            // Out of order, with a foreign record among them.
            message.add_answer(address("b.example.", 60, 1));
            message.add_answer(address("victim.test.", 60, 66));
            message.add_answer(address("b.example.", 60, 2));
            let alias = |owner: &str, target: &str| {
                Record::from_rdata(name(owner), 60, RData::CNAME(CNAME(name(target))))
            };
            message.add_answer(alias("a.example.", "b.example."));
            message.add_answer(alias("www.example.", "a.example."));
            message.add_additional(address("victim.test.", 60, 66));
        });
        let reply = world.last_reply();
        let owners: Vec<String> = reply
            .answers()
            .iter()
            .map(|record| record.name().to_ascii())
            .collect();
        assert_eq!(
            owners,
            ["www.example.", "a.example.", "b.example.", "b.example."]
        );
        assert!(reply.additionals().is_empty());
        assert_eq!(world.ask(1, &query("victim.test.", 2)).0, Outcome::Pending);
    });
}

/// Another server would say the same, and this one is not to blame: the name's owner made it so.
#[test]
fn aliases_that_end_nowhere_fail_at_once_and_say_so() {
    let circle: fn(&mut Message) = |message| {
        message.add_answer(alias("a.example.", 60, "b.example."));
        message.add_answer(alias("b.example.", 60, "A.example."));
    };
    let own: fn(&mut Message) = |message| {
        message.add_answer(alias("a.example.", 60, "a.example."));
    };
    let long: fn(&mut Message) = |message| {
        message.add_answer(alias("a.example.", 60, "c0.example."));
        for link in 0..17 {
            let target = format!("c{}.example.", link + 1);
            message.add_answer(alias(&format!("c{link}.example."), 60, &target));
        }
        message.add_answer(address("c17.example.", 60, 1));
    };
    let denied: fn(&mut Message) = |message| {
        message.set_response_code(ResponseCode::NXDomain);
        message.add_answer(alias("a.example.", 60, "a.example."));
        message.add_name_server(soa("example.", 60, 60));
    };
    let truncated: fn(&mut Message) = |message| {
        message.set_truncated(true);
        message.add_answer(alias("a.example.", 60, "a.example."));
    };
    for answer in [circle, own, long, denied, truncated] {
        with_world(Settings::DEFAULT, |world| {
            let question = with_edns(query("a.example.", 1), false);
            world.miss(1, &question);
            world.respond(answer);
            let again = question.to_vec().expect("a query");
            for reply in [world.last_bytes().to_vec(), world.hit_bytes(&again)] {
                let message = Message::from_vec(&reply).expect("a message");
                assert_eq!(message.response_code(), ResponseCode::ServFail);
                assert_eq!(message.answers().len(), 0);
                assert_eq!(extended_error(&reply), Some(ede::OTHER));
            }
            assert_eq!(world.effects.asked.len(), 1, "no other server is asked");
            assert_eq!(world.get(Counter::UpstreamMalformed), 0);
            assert_eq!(world.get(Counter::UpstreamAnswers), 1);
            assert_eq!(world.engine.in_flight(), 0);
        });
    }
    // The records of a failure are not believed, and another server is asked.
    with_world(Settings::DEFAULT, |world| {
        world.miss(1, &query("a.example.", 1));
        world.respond(|message| {
            own(message);
            message.set_response_code(ResponseCode::ServFail);
        });
        assert_eq!(world.effects.asked.len(), 2);
    });
}

#[test]
fn uncompressed_names_odd_order_and_letter_case() {
    with_world(PLAIN_CASE, |world| {
        world.miss(1, &query("www.example.", 1));
        let asked = world.effects.asked[0].message.clone();
        // OPT first in the additional section, another record behind it; owner names in capitals and whole.
        let mut answer = asked[..12].to_vec();
        answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 2, 0, 0, 0, 2]);
        answer.extend(b"\x03WWW\x07EXAMPLE\0\0\x01\0\x01");
        answer.extend(b"\x01A\x07eXample\0\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x01");
        answer.extend(b"\x03wWw\x07example\0\0\x05\0\x01\0\0\0\x3c\0\x0b\x01a\x07Example\0");
        answer.extend(b"\0\0\x29\x04\xd0\0\0\0\0\0\0");
        answer.extend(b"\x01x\0\0\x01\0\x01\0\0\0\x3c\0\x04\x01\x02\x03\x04");
        world.respond_bytes(&answer);
        let reply = world.last_reply();
        assert_eq!(reply.answers().len(), 2);
        assert_eq!(reply.answers()[0].record_type(), RecordType::CNAME);
        assert!(reply.additionals().is_empty());
    });
}

#[test]
fn records_of_other_classes_and_names_are_dropped() {
    with_world(Settings::DEFAULT, |world| {
        world.miss(1, &query("a.example.", 1));
        world.respond(|message| {
            let mut chaos = address("a.example.", 60, 66);
            chaos.set_dns_class(hickory_proto::rr::DNSClass::CH);
            message.add_answer(chaos);
            message.add_answer(address("a.example.", 60, 1));
            message.add_answer(address("b.example.", 60, 66));
            message.add_name_server(soa("example.", 60, 60));
            message.add_name_server(address("ns.example.", 60, 66));
            message.add_additional(address("ns.example.", 60, 66));
        });
        let reply = world.last_reply();
        assert_eq!(answers(&reply), ["a.example. A 192.0.2.1"]);
        assert!(reply.name_servers().is_empty() && reply.additionals().is_empty());
    });
}

#[test]
fn unknown_types_and_svcb_are_passed_as_they_are() {
    with_world(Settings::DEFAULT, |world| {
        for (number, rdata) in [
            (65_280, &b"\xc0\x0canything\0"[..]),
            (65, b"\0\x01\0\0\x01\0\x03\x02h2"),
            (64, b"\0\x01\x02ab\0"),
            (257, b"\0\x05issueca.example"),
        ] {
            let qtype = RecordType::from(number);
            world.miss(1, &query_type("t.example.", qtype, 1));
            world.respond(|message| {
                message.add_answer(opaque("t.example.", 60, number, rdata));
            });
            let bytes = world.last_bytes();
            assert_eq!(Header::parse(bytes).unwrap().counts, [1, 1, 0, 0]);
            assert!(bytes.ends_with(rdata), "type {number}");
            world.hit(&query_type("t.example.", qtype, 2));
        }
    });
}

#[test]
fn many_records_arrive_complete() {
    with_world(Settings::DEFAULT, |world| {
        let question = with_edns(query("a.example.", 1), false);
        world.miss(1, &question);
        world.respond(|message| {
            for last in 0..70 {
                message.add_answer(address("a.example.", 60, last));
            }
        });
        assert_eq!(world.last_reply().answers().len(), 70);
        assert_eq!(world.hit(&question).answers().len(), 70);
    });
}

#[test]
fn long_chains_are_followed_and_endless_ones_are_not() {
    for (links, whole) in [(15, true), (40, false)] {
        with_world(Settings::DEFAULT, |world| {
            let question = with_edns(query("c0.example.", 1), false);
            world.miss(1, &question);
            let chain = |message: &mut Message| {
                for link in (0..links).rev() {
                    let owner = format!("c{link}.example.");
                    message.add_answer(alias(&owner, 60, &format!("c{}.example.", link + 1)));
                }
                message.add_answer(address(&format!("c{links}.example."), 60, 1));
            };
            world.respond(chain);
            if whole {
                assert_eq!(world.last_reply().answers().len(), links + 1);
            } else {
                assert_eq!(world.last_reply().response_code(), ResponseCode::ServFail);
            }
        });
    }
}

#[test]
fn the_longest_names_in_question_and_records() {
    let label = "x".repeat(63);
    let long = format!("{label}.{label}.{label}.{}.", "y".repeat(61));
    with_world(Settings::DEFAULT, |world| {
        world.miss(1, &with_edns(query(&long, 1), false));
        world.respond(|message| {
            message.add_answer(alias(&long, 60, &long.replace('y', "z")));
            message.add_answer(address(&long.replace('y', "z"), 60, 1));
        });
        assert_eq!(world.last_reply().answers().len(), 2);
        assert_eq!(
            world
                .hit(&with_edns(query(&long, 2), false))
                .answers()
                .len(),
            2
        );
        assert!(world.hit(&query(&long, 3)).truncated());
    });
}

#[test]
fn dname_is_kept_with_the_cname_that_it_made() {
    with_world(Settings::DEFAULT, |world| {
        world.miss(1, &query("www.old.example.", 1));
        world.respond(|message| {
            message.add_answer(opaque(
                "old.example.",
                60,
                rtype::DNAME,
                b"\x03new\x07example\0",
            ));
            message.add_answer(alias("www.old.example.", 60, "www.new.example."));
            message.add_answer(address("www.new.example.", 60, 1));
        });
        let types: Vec<RecordType> = world
            .last_reply()
            .answers()
            .iter()
            .map(Record::record_type)
            .collect();
        assert_eq!(
            types,
            [RecordType::from(39), RecordType::CNAME, RecordType::A]
        );
    });
}

#[test]
fn dname_is_kept_where_the_cname_that_it_made_is_asked_for() {
    with_world(Settings::DEFAULT, |world| {
        let question = query_type("www.old.example.", RecordType::CNAME, 1);
        world.miss(1, &question);
        world.respond(|message| {
            let target = b"\x03new\x07example\0";
            message.add_answer(opaque("old.example.", 60, rtype::DNAME, target));
            message.add_answer(alias("www.old.example.", 60, "www.new.example."));
            // The DNAME is not above the alias, so it made nothing.
            message.add_answer(opaque("www.old.example.", 60, rtype::DNAME, target));
        });
        let reply = world.last_reply();
        let owners: Vec<String> = reply
            .answers()
            .iter()
            .map(|record| record.name().to_ascii())
            .collect();
        assert_eq!(owners, ["old.example.", "www.old.example."]);
    });
}

#[test]
fn signatures_that_are_asked_for_keep_their_own_ttl() {
    with_world(Settings::DEFAULT, |world| {
        let question = query_type("www.example.", RecordType::RRSIG, 1);
        world.miss(1, &question);
        world.respond(|message| {
            message.add_answer(signature("www.example.", 3600, rtype::A));
            message.add_answer(signature("www.example.", 60, rtype::NSEC));
        });
        let ttls =
            |message: &Message| -> Vec<u32> { message.answers().iter().map(Record::ttl).collect() };
        assert_eq!(ttls(&world.last_reply()), [3600, 60]);
        assert_eq!(ttls(&world.hit(&question)), [3600, 60]);
    });
}

#[test]
fn what_a_validating_client_needs_is_kept() {
    with_world(Settings::DEFAULT, |world| {
        world.miss(1, &with_edns(query("no.example.", 1), true));
        let denial = |message: &mut Message| {
            message.set_response_code(ResponseCode::NXDomain);
            message.add_name_server(soa("example.", 60, 60));
            message.add_name_server(signature("example.", 60, rtype::SOA));
            message.add_name_server(opaque(
                "example.",
                60,
                rtype::NSEC,
                b"\x01z\x07example\0\0\x01\x40",
            ));
            message.add_name_server(signature("example.", 60, rtype::NSEC));
            message.add_name_server(opaque(
                "h.example.",
                60,
                rtype::NSEC3,
                b"\x01\0\0\0\0\x01x\0\x01\x40",
            ));
            message.add_name_server(signature("h.example.", 60, rtype::NSEC3));
        };
        world.respond(denial);
        assert_eq!(
            Header::parse(world.last_bytes()).unwrap().counts,
            [1, 0, 6, 1]
        );
        world.miss(1, &query("no.example.", 2));
        world.respond(denial);
        assert_eq!(
            Header::parse(world.last_bytes()).unwrap().counts,
            [1, 0, 1, 0]
        );
        // DS belongs to the parent, which also has the proof that there is none.
        world.miss(
            1,
            &with_edns(query_type("child.example.", RecordType::DS, 3), true),
        );
        world.respond(|message| {
            message.add_answer(opaque("child.example.", 60, rtype::DS, &[0; 36]));
            message.add_answer(signature("child.example.", 60, rtype::DS));
        });
        assert_eq!(
            Header::parse(world.last_bytes()).unwrap().counts,
            [1, 2, 0, 1]
        );
        // A wildcard's answer comes with the proof that the name itself does not exist.
        world.miss(1, &with_edns(query("w.example.", 4), true));
        world.respond(|message| {
            message.add_answer(address("w.example.", 60, 1));
            message.add_answer(signature("w.example.", 60, rtype::A));
            message.add_name_server(opaque(
                "v.example.",
                60,
                rtype::NSEC,
                b"\x01x\x07example\0\0\x01\x40",
            ));
            message.add_name_server(signature("v.example.", 60, rtype::NSEC));
        });
        assert_eq!(
            Header::parse(world.last_bytes()).unwrap().counts,
            [1, 2, 2, 1]
        );
        // Signatures and proofs can be asked for by type, too.
        world.miss(1, &query_type("a.example.", RecordType::RRSIG, 5));
        world.respond(|message| {
            message.add_answer(signature("a.example.", 60, rtype::A));
        });
        assert_eq!(
            Header::parse(world.last_bytes()).unwrap().counts,
            [1, 1, 0, 0]
        );
    });
}

#[test]
fn the_root_can_be_asked_for() {
    with_world(Settings::DEFAULT, |world| {
        world.miss(1, &query_type(".", RecordType::NS, 1));
        world.respond(|message| {
            for letter in 'a'..='m' {
                let target = [b"\x01", &[letter as u8][..], b"\x0croot-servers\x03net\0"].concat();
                message.add_answer(opaque(".", 60, rtype::NS, &target));
            }
        });
        assert_eq!(world.last_reply().answers().len(), 13);
        world.effects.stream_limit = 1;
        let keys = with_edns(query_type(".", RecordType::DNSKEY, 2), true);
        assert_eq!(world.ask_tcp(1, &keys).0, Outcome::Pending);
        world.respond(|message| {
            message.set_truncated(true);
        });
        assert_eq!(world.effects.streams.len(), 1);
        world.respond(|message| {
            for number in 0..3 {
                message.add_answer(opaque(".", 60, 48, &[number; 264]));
            }
            message.add_answer(signature(".", 60, 48));
        });
        assert_eq!(
            Header::parse(world.last_bytes()).unwrap().counts,
            [1, 4, 0, 1]
        );
    });
}

/// RFC 2181 section 5: an RRset has no duplicate records.
#[test]
fn no_record_is_passed_on_twice() {
    with_world(Settings::DEFAULT, |world| {
        world.miss(1, &query("a.example.", 1));
        world.respond(|message| {
            for last in [1, 2, 1, 1, 3, 2] {
                message.add_answer(address("a.example.", 60, last));
            }
        });
        for reply in [world.last_reply(), world.hit(&query("a.example.", 2))] {
            let mut texts = answers(&reply);
            texts.sort();
            let of = |last| format!("a.example. A 192.0.2.{last}");
            assert_eq!(texts, [of(1), of(2), of(3)]);
        }
        // The second name is a pointer to the first, or has another letter case or preference.
        let mx = query_type("a.example.", RecordType::MX, 3);
        world.miss(1, &mx);
        let question = world.effects.asked.last().unwrap().message.clone();
        let mut bytes = response_to(&question, |_| {});
        bytes[7] = 4;
        let first = bytes.len() + 14;
        let rdata = [
            b"\0\x05\x02mx\x04test\0".to_vec(),
            [&[0, 5, 0xc0][..], &[first as u8]].concat(),
            b"\0\x05\x02Mx\x04teST\0".to_vec(),
            [&[0, 6, 0xc0][..], &[first as u8]].concat(),
        ];
        for rdata in rdata {
            bytes.extend([0xc0, 12, 0, 15, 0, 1, 0, 0, 0, 60, 0, rdata.len() as u8]);
            bytes.extend(rdata);
        }
        world.respond_bytes(&bytes);
        assert_eq!(
            answers(&world.last_reply()),
            ["a.example. MX 5 mx.test.", "a.example. MX 6 mx.test."]
        );
    });
}

/// RFC 3597 section 4 requires to read it, although RFC 3403 forbids to write it so.
#[test]
fn a_compressed_name_in_a_naptr_is_written_out() {
    let fixed = b"\0\x0a\0\x14\x01u\x07E2U+sip\0";
    with_world(Settings::DEFAULT, |world| {
        let naptr = query_type("a.example.", RecordType::NAPTR, 1);
        world.miss(1, &naptr);
        world.respond(|message| {
            let rdata = [&fixed[..], b"\x01x\xc0\x0c"].concat();
            message.add_answer(opaque("a.example.", 60, 35, &rdata));
        });
        let whole = [&fixed[..], b"\x01x\x01a\x07example\0"].concat();
        assert!(world.last_bytes().ends_with(&whole));
        // Without EDNS the record ends the message; a string that is cut makes the answer malformed.
        world.miss(2, &query_type("b.example.", RecordType::NAPTR, 2));
        world.respond(|message| {
            message.add_answer(opaque("b.example.", 60, 35, b"\0\x0a\0\x14\x09u\0"));
        });
        assert_eq!(world.asked().last().unwrap(), UPSTREAM_2);
    });
}

/// Whoever waits is counted by how long it took, whatever came of it.
#[test]
fn answers_after_a_wait_are_counted_by_how_long_it_was() {
    with_world(Settings::DEFAULT, |world| {
        world.miss(1, &query("www.example.", 1));
        world.miss(2, &query("www.example.", 2));
        world.pass(7);
        assert_eq!(world.waited().micros, 0);
        world.respond(|message| {
            message.add_answer(address("www.example.", 60, 1));
        });
        let reading = world.waited();
        assert_eq!(reading.micros, 2 * 7_000);
        let bucket = BOUNDS_MICROS.iter().position(|bound| *bound == 10_000);
        assert_eq!(reading.counts[bucket.expect("a bound")], 2);
        world.hit(&query("www.example.", 3));
        assert_eq!(world.waited(), reading, "a hit has not waited");
        world.miss(4, &query("gone.example.", 4));
        world.pass(60_000);
        let count: u64 = world.waited().counts.iter().sum();
        assert_eq!(count, 3, "a failure has");
    });
}
