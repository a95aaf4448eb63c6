//! Answers that end in an alias: the target is asked for.

use super::harness::*;
use super::image;
use crate::dns::rtype;
use crate::policy::{Kinds, LocalData, Routes};
use std::vec;

fn asked_name(world: &World<'_>) -> String {
    let name = world.last_question().queries()[0].name().to_lowercase();
    format!("{name}")
}

#[test]
fn the_target_of_an_alias_alone_is_asked_for() {
    with_world(Settings::DEFAULT, |world| {
        world.miss(1, &query("WWW.example.", 1));
        world.miss(2, &query("www.example.", 2));
        world.respond(|message| {
            message.add_answer(alias("www.example.", 300, "a.cdn.test."));
            message.add_answer(alias("a.cdn.test.", 200, "B.cdn.test."));
        });
        assert_eq!(
            (asked_name(world), world.effects.replies.len()),
            ("b.cdn.test.".into(), 0)
        );
        world.pass(100);
        // The earlier question's answer comes twice, and does not belong to this one.
        let late = world.effects.asked[0].clone();
        let again = response_to(&late.message, answer_a(60));
        world.receive(late.via, late.to, &again);
        assert_eq!(world.effects.replies.len(), 0);
        world.respond(|message| {
            message.add_answer(address("b.cdn.test.", 100, 1));
            message.add_answer(address("b.cdn.test.", 100, 2));
        });
        for (reply_path, bytes) in &world.effects.replies {
            let reply = Message::from_vec(bytes).unwrap();
            assert_eq!(u32::from(reply.id()), *reply_path);
            assert_eq!(reply.answers().len(), 4, "{reply}");
            assert_eq!(
                answers(&reply)[..2],
                [
                    "www.example. CNAME a.cdn.test.",
                    "a.cdn.test. CNAME B.cdn.test."
                ]
            );
        }
        assert_eq!(world.effects.replies.len(), 2);
        let hit = world.hit(&query("www.example.", 3));
        let ttls: Vec<u32> = hit.answers().iter().map(|record| record.ttl()).collect();
        assert_eq!(ttls, [300, 200, 100, 100]);
        world.pass(101_000);
        world.miss(1, &query("www.example.", 4));
    });
}

#[test]
fn an_alias_that_leads_to_nothing_says_so() {
    with_world(Settings::DEFAULT, |world| {
        for (number, code) in [(1, ResponseCode::NXDomain), (2, ResponseCode::NoError)] {
            let owner = format!("n{number}.example.");
            world.miss(1, &query(&owner, number));
            world.respond(|message| {
                message.add_answer(alias(&owner, 300, "no.test."));
            });
            world.respond(|message| {
                message.set_response_code(code);
                message.add_name_server(soa("test.", 60, 60));
            });
            for reply in [world.last_reply(), world.hit(&query(&owner, 9))] {
                assert_eq!(
                    (
                        reply.response_code(),
                        reply.answers().len(),
                        reply.name_servers().len()
                    ),
                    (code, 1, 1)
                );
            }
        }
        // An SOA says that the target has no such record: nothing is left to ask.
        let asked = world.effects.asked.len();
        world.miss(1, &query("whole.example.", 3));
        world.respond(|message| {
            message.add_answer(alias("whole.example.", 300, "no.test."));
            message.add_name_server(soa("test.", 60, 60));
        });
        assert_eq!(world.effects.asked.len(), asked + 1);
        assert_eq!(world.last_reply().answers().len(), 1);
        // Nor if the alias itself was asked for.
        world.miss(1, &query_type("whole.example.", RecordType::CNAME, 4));
        world.respond(|message| {
            message.add_answer(alias("whole.example.", 300, "no.test."));
        });
        assert_eq!(world.last_reply().answers().len(), 1);
    });
}

#[test]
fn a_target_is_asked_of_its_own_group_and_fails_as_a_question_does() {
    let routes = keep(image::table(&[("corp", 1)]));
    with_world(Settings::DEFAULT, |world| {
        world.policy.routes = Routes::view(routes).unwrap();
        world.miss(1, &query("a.example.", 1));
        world.respond(|message| {
            message.add_answer(alias("a.example.", 300, "host.corp."));
        });
        assert_eq!(world.asked().last().unwrap(), UPSTREAM_OTHER);
        world.respond(answer_a(60));
        assert_eq!(world.last_reply().answers().len(), 2);
        world.miss(1, &query("b.example.", 2));
        world.respond(|message| {
            message.add_answer(alias("b.example.", 300, "bad.corp."));
        });
        world.respond(code(ResponseCode::ServFail));
        assert_eq!(world.last_reply().response_code(), ResponseCode::ServFail);
        world.miss(1, &query("c.example.", 3));
        world.respond(|message| {
            message.add_answer(alias("c.example.", 300, "silent.corp."));
        });
        world.pass(4_500);
        assert_eq!(world.last_reply().response_code(), ResponseCode::ServFail);
        assert_eq!(world.engine.in_flight(), 0);
    });
}

/// A public name gets no address of this network, and the extended error says that policy withholds it.
#[test]
fn an_alias_into_what_is_known_here_is_given_alone_and_says_so() {
    let nas = (rtype::A, 60, vec![192, 168, 1, 2]);
    let data = keep(image::local(&[("nas.lan", &[nas])]));
    with_world(Settings::DEFAULT, |world| {
        world.policy.local = LocalData::view(data).unwrap();
        world.policy.special = Kinds::DEFAULT;
        for (number, target) in [(1, "nas.lan."), (2, "localhost.")] {
            let owner = format!("n{number}.example.");
            world.miss(number.into(), &with_edns(query(&owner, number), false));
            let asked = world.effects.asked.len();
            world.respond(|message| {
                message.add_answer(alias(&owner, 300, target));
            });
            let reply = world.last_reply();
            assert_eq!(answers(&reply), [format!("{owner} CNAME {target}")]);
            assert_eq!(reply.response_code(), ResponseCode::NoError);
            let told = extended_error(world.last_bytes());
            assert_eq!(told, Some(ede::BLOCKED), "{target}");
            let now = world.effects.asked.len();
            assert_eq!(now, asked, "and nobody is asked for it");
        }
        // An alias that upstream follows itself says nothing about this network.
        world.miss(3, &with_edns(query("whole.example.", 3), false));
        world.respond(|message| {
            message.add_answer(alias("whole.example.", 300, "nas.lan."));
            message.add_answer(address("nas.lan.", 300, 1));
        });
        assert_eq!(world.last_reply().answers().len(), 2);
        assert_eq!(extended_error(world.last_bytes()), None);
    });
}

/// Asks for an alias of which upstream knows nothing but the alias.
fn begin_chase(world: &mut World<'_>, reply_path: ReplyPath, owner: &str) {
    world.miss(reply_path, &with_edns(query(owner, 1), false));
    world.respond(|message| {
        message.add_answer(alias(owner, 300, "x0.test."));
    });
}

#[test]
fn where_all_places_are_taken_the_oldest_chase_of_who_has_most_ends() {
    with_world(Settings::DEFAULT, |world| {
        begin_chase(world, 7, "patient.test.");
        for number in 1..crate::limits::SUB_QUESTIONS {
            begin_chase(world, 1, &format!("n{number}.test."));
        }
        assert!(world.effects.replies.is_empty(), "every place is used");
        for (reply_path, victim) in [(1, "n1.test."), (8, "n2.test.")] {
            begin_chase(world, reply_path, &format!("more{reply_path}.test."));
            let reply = world.last_reply();
            assert_eq!(reply.queries()[0].name(), &name(victim));
            assert_eq!(
                (reply.response_code(), reply.answers().len()),
                (ResponseCode::ServFail, 0)
            );
            assert_eq!(
                extended_error(world.last_bytes()),
                Some(ede::NOT_READY),
                "and it is not kept"
            );
        }
        assert_eq!(world.effects.replies.len(), 2);
        // The latest one goes on undisturbed.
        world.respond(answer_a(60));
        assert_eq!(world.effects.replies.last().unwrap().0, 8);
        assert_eq!(world.last_reply().answers().len(), 2);
        world.miss(1, &query("n1.test.", 2));
        world.pass(5_000);
        assert_eq!(world.engine.in_flight(), 0);
    });
}

#[test]
fn chains_end_after_eight_targets_and_places_are_given_back() {
    with_world(Settings::DEFAULT, |world| {
        for round in 0..3 {
            for number in 0..crate::limits::SUB_QUESTIONS {
                begin_chase(world, 1, &format!("n{number}.r{round}.test."));
            }
            assert_eq!(
                world.effects.replies.len(),
                round * crate::limits::SUB_QUESTIONS
            );
            world.pass(5_000);
            assert_eq!(world.engine.in_flight(), 0);
        }
    });
    with_world(Settings::DEFAULT, |world| {
        world.miss(1, &with_edns(query("endless.test.", 1), false));
        for step in 0..9 {
            let owner = world.last_question().queries()[0].name().clone();
            world.respond(|message| {
                let target = name(&format!("x{step}.test."));
                message.add_answer(Record::from_rdata(owner, 300, RData::CNAME(CNAME(target))));
            });
        }
        assert_eq!(world.effects.asked.len(), 9);
        assert_eq!(world.last_reply().response_code(), ResponseCode::ServFail);
        assert_eq!(extended_error(world.last_bytes()), Some(ede::OTHER));
        assert_eq!(world.engine.in_flight(), 0);
    });
}

/// RFC 4035 section 3.2.3: AD covers all records.
#[test]
fn a_chain_is_authentic_where_each_part_of_it_is() {
    let servers = [UpstreamConfig {
        trusted: true,
        ..server(UPSTREAM_1, 0)
    }];
    for (first, second) in [(true, true), (true, false), (false, true)] {
        with_servers(Settings::DEFAULT, &servers, Strategy::Ordered, |world| {
            let mut asks = query("a.example.", 1);
            asks.set_authentic_data(true);
            world.miss(1, &asks);
            world.respond(|message| {
                message.set_authentic_data(first);
                message.add_answer(alias("a.example.", 300, "b.example."));
            });
            world.respond(|message| {
                message.set_authentic_data(second);
                message.add_answer(address("b.example.", 300, 1));
            });
            for reply in [world.last_reply(), world.hit(&asks)] {
                assert_eq!(reply.authentic_data(), first && second);
            }
        });
    }
}
