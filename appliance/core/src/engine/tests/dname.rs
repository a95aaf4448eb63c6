//! DNAME (RFC 6672): its CNAME is synthesized if it is missing or wrong.

use super::harness::*;

fn dname(owner: &str, ttl_secs: u32, target: &str) -> Record {
    let target = name(target).to_lowercase();
    let mut rdata = Vec::new();
    for label in target.iter() {
        rdata.push(label.len() as u8);
        rdata.extend(label);
    }
    rdata.push(0);
    opaque(owner, ttl_secs, rtype::DNAME, &rdata)
}

/// Answer section in short: owner, type, TTL, and the target of a CNAME.
fn shown(message: &Message) -> Vec<String> {
    let records = message.answers().iter().map(|record| {
        let target = match record.data().as_cname() {
            Some(target) => format!(" {}", target.0),
            None => String::new(),
        };
        let owner = record.name();
        let kind = u16::from(record.record_type());
        format!("{owner} {kind} {}{target}", record.ttl())
    });
    records.collect()
}

/// Asks for A and answers with `records`; returns what the client gets. From the cache it has to be the same.
fn answered(world: &mut World<'_>, qname: &str, records: Vec<Record>) -> Vec<String> {
    world.miss(1, &query(qname, 1));
    world.respond(|message| {
        for record in records {
            message.add_answer(record);
        }
    });
    assert_eq!(world.last_reply().response_code(), ResponseCode::NoError);
    let first = shown(&world.last_reply());
    assert_eq!(shown(&world.hit(&query(qname, 2))), first);
    first
}

#[test]
fn a_cname_that_is_missing_is_made_with_the_ttl_of_its_dname() {
    with_world(Settings::DEFAULT, |world| {
        let records = vec![
            dname("old.example.", 70, "new.example."),
            address("www.new.example.", 300, 1),
        ];
        let expected = [
            "old.example. 39 70",
            "www.old.example. 5 70 www.new.example.",
            "www.new.example. 1 300",
        ];
        assert_eq!(answered(world, "www.old.example.", records), expected);
        assert_eq!(world.effects.asked.len(), 1);
    });
}

#[test]
fn the_order_of_records_does_not_matter_and_all_labels_are_kept() {
    with_world(Settings::DEFAULT, |world| {
        let records = vec![
            address("a.b.new.test.", 300, 1),
            dname("old.example.", 70, "new.test."),
        ];
        let expected = [
            "old.example. 39 70",
            "a.b.old.example. 5 70 a.b.new.test.",
            "a.b.new.test. 1 300",
        ];
        assert_eq!(answered(world, "a.b.old.example.", records), expected);
    });
}

#[test]
fn several_dnames_in_a_row_and_between_cnames() {
    with_world(Settings::DEFAULT, |world| {
        let records = vec![
            dname("one.example.", 70, "two.example."),
            dname("two.example.", 60, "three.example."),
            alias("www.three.example.", 50, "www.four.example."),
            dname("four.example.", 40, "five.example."),
            address("www.five.example.", 300, 1),
        ];
        let expected = [
            "one.example. 39 70",
            "www.one.example. 5 70 www.two.example.",
            "two.example. 39 60",
            "www.two.example. 5 60 www.three.example.",
            "www.three.example. 5 50 www.four.example.",
            "four.example. 39 40",
            "www.four.example. 5 40 www.five.example.",
            "www.five.example. 1 300",
        ];
        assert_eq!(answered(world, "www.one.example.", records), expected);
    });
}

#[test]
fn the_cname_that_is_there_is_kept_and_a_wrong_one_is_not() {
    with_world(PLAIN_CASE, |world| {
        let right = vec![
            dname("old.example.", 70, "new.example."),
            alias("www.old.example.", 0, "WWW.new.example."),
            address("www.new.example.", 300, 1),
        ];
        world.miss(1, &query("www.old.example.", 1));
        world.respond(|message| {
            for record in right {
                message.add_answer(record);
            }
        });
        let reply = shown(&world.last_reply());
        assert_eq!(reply[1], "www.old.example. 5 0 WWW.new.example.");
        let wrong = vec![
            dname("old.example.", 70, "new.example."),
            alias("ftp.old.example.", 300, "forged.example."),
            address("forged.example.", 300, 66),
            address("ftp.new.example.", 300, 1),
        ];
        let expected = [
            "old.example. 39 70",
            "ftp.old.example. 5 70 ftp.new.example.",
            "ftp.new.example. 1 300",
        ];
        assert_eq!(answered(world, "ftp.old.example.", wrong), expected);
    });
}

#[test]
fn a_dname_alone_is_followed_and_the_chain_is_one_answer() {
    with_world(Settings::DEFAULT, |world| {
        world.miss(1, &query("WWW.old.example.", 1));
        world.respond(|message| {
            message.add_answer(dname("old.example.", 70, "new.example."));
        });
        assert!(world.effects.replies.is_empty());
        let asked = world.last_question();
        assert_eq!(asked.queries()[0].name(), &name("www.new.example."));
        world.respond(answer_a(300));
        let reply = shown(&world.last_reply());
        assert_eq!(reply.len(), 3, "{reply:?}");
        assert_eq!(reply[1], "WWW.old.example. 5 70 www.new.example.");
    });
}

#[test]
fn a_cname_that_is_asked_for_itself_is_made() {
    with_world(Settings::DEFAULT, |world| {
        world.miss(1, &query_type("www.old.example.", RecordType::CNAME, 1));
        world.respond(|message| {
            message.add_answer(dname("old.example.", 70, "new.example."));
        });
        let expected = [
            "old.example. 39 70",
            "www.old.example. 5 70 www.new.example.",
        ];
        assert_eq!(shown(&world.last_reply()), expected);
    });
}

#[test]
fn a_dname_says_nothing_of_its_own_owner_nor_of_names_beside_it() {
    with_world(Settings::DEFAULT, |world| {
        for qname in ["old.example.", "bold.example.", "example."] {
            world.miss(1, &query(qname, 1));
            world.respond(|message| {
                message.add_answer(dname("old.example.", 70, "new.example."));
                message.add_name_server(soa("example.", 60, 60));
            });
            let reply = world.last_reply();
            assert_eq!(reply.response_code(), ResponseCode::NoError);
            assert_eq!(reply.answers().len(), 0, "{qname}");
        }
    });
}

#[test]
fn a_name_that_becomes_too_long_is_yxdomain_whatever_upstream_says() {
    let label = "x".repeat(60);
    let long = format!("{label}.{label}.{label}.");
    for said in [ResponseCode::NoError, ResponseCode::YXDomain] {
        with_world(Settings::DEFAULT, |world| {
            let qname = format!("{label}.old.example.");
            world.miss(1, &with_edns(query(&qname, 1), false));
            world.respond(|message| {
                message.set_response_code(said);
                message.add_answer(dname("old.example.", 70, &format!("yyyyyyyyyy.{long}")));
            });
            for reply in [world.last_reply(), world.hit(&query(&qname, 2))] {
                assert_eq!(reply.response_code(), ResponseCode::YXDomain);
                assert_eq!(shown(&reply), ["old.example. 39 70"]);
            }
            assert_eq!(world.effects.asked.len(), 1);
            // One byte less makes the longest possible name: 60, 11, three times 61, and the root.
            let fits = format!("{}.old.example.", "x".repeat(59));
            world.miss(1, &query(&fits, 3));
            world.respond(|message| {
                message.add_answer(dname("old.example.", 70, &format!("yyyyyyyyyy.{long}")));
                message.add_name_server(soa(".", 60, 60));
            });
            assert_eq!(world.last_reply().response_code(), ResponseCode::NoError);
            assert_eq!(world.last_reply().answers().len(), 2);
        });
    }
}

#[test]
fn yxdomain_without_such_a_dname_is_a_failure() {
    with_world(Settings::DEFAULT, |world| {
        world.miss(1, &query("a.example.", 1));
        world.respond(code(ResponseCode::YXDomain));
        world.respond(code(ResponseCode::YXDomain));
        assert_eq!(world.last_reply().response_code(), ResponseCode::ServFail);
    });
}

#[test]
fn a_dname_into_itself_ends() {
    with_world(Settings::DEFAULT, |world| {
        for (number, target) in [(1, "sub.old.example."), (2, "old.example.")] {
            let qname = format!("n{number}.old.example.");
            world.miss(1, &with_edns(query(&qname, number), false));
            world.respond(|message| {
                message.add_answer(dname("old.example.", 70, target));
            });
            assert_eq!(world.last_reply().response_code(), ResponseCode::ServFail);
            assert_eq!(extended_error(world.last_bytes()), Some(ede::OTHER));
            assert_eq!(world.engine.in_flight(), 0);
        }
    });
}

#[test]
fn with_do_the_signature_of_the_dname_comes_with_it() {
    with_world(Settings::DEFAULT, |world| {
        world.miss(1, &with_edns(query("www.old.example.", 1), true));
        world.respond(|message| {
            message.add_answer(dname("old.example.", 70, "new.example."));
            message.add_answer(signature("old.example.", 70, rtype::DNAME));
            message.add_answer(address("www.new.example.", 300, 1));
            message.add_answer(signature("www.new.example.", 300, rtype::A));
        });
        let kinds: Vec<u16> = world
            .last_reply()
            .answers()
            .iter()
            .map(|record| record.record_type().into())
            .collect();
        assert_eq!(kinds, [39, 46, 5, 1, 46]);
    });
}

#[test]
fn a_dname_of_another_class_or_with_a_broken_target_makes_nothing() {
    with_world(Settings::DEFAULT, |world| {
        world.miss(1, &query("www.old.example.", 1));
        world.respond(|message| {
            let mut chaos = dname("old.example.", 70, "new.example.");
            chaos.set_dns_class(hickory_proto::rr::DNSClass::CH);
            message.add_answer(chaos);
            message.add_name_server(soa("example.", 60, 60));
        });
        assert_eq!(world.last_reply().answers().len(), 0);
        world.miss(1, &query("ftp.old.example.", 2));
        for _ in 0..2 {
            world.respond(|message| {
                let broken = b"\x03new\x07example\0\0";
                message.add_answer(opaque("old.example.", 70, rtype::DNAME, broken));
            });
        }
        assert_eq!(world.last_reply().response_code(), ResponseCode::ServFail);
    });
}

/// Reading names is expensive, so their number is bounded for each step, by the steps of an honest chain.
#[test]
fn a_dname_behind_more_than_a_chain_has_steps_is_not_read() {
    with_world(Settings::DEFAULT, |world| {
        for (others, qname, expected) in [(15, "a.old.example.", 3), (16, "b.old.example.", 0)] {
            world.miss(others, &query(qname, others as u16));
            world.respond(|message| {
                for number in 0..others {
                    message.add_answer(dname(&format!("n{number}.example."), 70, "x.example."));
                }
                message.add_answer(dname("old.example.", 70, "new.example."));
                let target = qname.replace("old", "new");
                message.add_answer(address(&target, 300, 1));
                message.add_name_server(soa("example.", 60, 60));
            });
            assert_eq!(world.last_reply().answers().len(), expected, "{others}");
        }
    });
}
