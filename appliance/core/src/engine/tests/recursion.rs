//! Queries without RD (RFC 1035 section 4.1.1): answered from what is here, without asking upstream.

use super::harness::*;
use super::image;
use crate::policy::{Kinds, LocalData};

fn without_rd(mut message: Message) -> Message {
    message.set_recursion_desired(false);
    message
}

#[test]
fn without_rd_what_is_not_kept_is_refused_and_nobody_asked() {
    with_world(Settings::DEFAULT, |world| {
        let query = without_rd(with_edns(query("a.example.", 1), false));
        let bytes = world.hit_bytes(&query.to_vec().unwrap());
        let reply = Message::from_vec(&bytes).unwrap();
        assert_eq!(reply.response_code(), ResponseCode::Refused);
        assert!(!reply.recursion_desired());
        assert_eq!(extended_error(&bytes), Some(ede::NOT_AUTHORITATIVE));
        let (_, bytes) = world.ask_tcp(1, &query);
        assert_eq!(
            Message::from_vec(&bytes).unwrap().response_code(),
            ResponseCode::Refused
        );
        assert!(world.effects.asked.is_empty());
        assert_eq!(world.engine.in_flight(), 0);
    });
}

#[test]
fn without_rd_nobody_waits_for_a_question_of_somebody_else() {
    with_world(Settings::DEFAULT, |world| {
        world.miss(1, &query("a.example.", 1));
        let reply = world.hit(&without_rd(query("a.example.", 2)));
        assert_eq!(reply.response_code(), ResponseCode::Refused);
        world.respond(answer_a(60));
        assert_eq!(world.effects.replies.len(), 1);
        let reply = world.hit(&without_rd(query("a.example.", 3)));
        assert_eq!(
            (reply.answers().len(), reply.recursion_desired()),
            (1, false)
        );
    });
}

#[test]
fn without_rd_nothing_is_refreshed() {
    with_world(Settings::DEFAULT, |world| {
        world.miss(1, &query("a.example.", 1));
        world.respond(answer_a(100));
        world.pass(95_000);
        let reply = world.hit(&without_rd(query("a.example.", 2)));
        assert_eq!(reply.answers().len(), 1, "in the last tenth of its TTL");
        assert_eq!(world.effects.asked.len(), 1);
        // Past its TTL: no upstream has failed, so a stale answer is not due.
        world.pass(10_000);
        let reply = world.hit(&without_rd(query("a.example.", 3)));
        assert_eq!(reply.response_code(), ResponseCode::Refused);
        assert_eq!(world.effects.asked.len(), 1);
        world.ask(1, &query("a.example.", 4));
        assert_eq!(world.effects.asked.len(), 2, "with RD it is asked for");
    });
}

#[test]
fn without_rd_a_denial_of_the_name_is_an_answer() {
    with_world(Settings::DEFAULT, |world| {
        world.miss(1, &query("no.example.", 1));
        world.respond(|message| {
            message.set_response_code(ResponseCode::NXDomain);
            message.add_name_server(soa("example.", 900, 120));
        });
        let reply = world.hit(&without_rd(query_type("no.example.", RecordType::MX, 2)));
        assert_eq!(reply.response_code(), ResponseCode::NXDomain);
    });
}

#[test]
fn without_rd_local_data_and_special_names_are_answered() {
    with_world(Settings::DEFAULT, |world| {
        let image = image::local(&[
            ("nas.lan", &[(rtype::A, 60, vec![192, 168, 1, 2])]),
            ("out.lan", &[(rtype::CNAME, 60, image::wire("cdn.example"))]),
        ]);
        world.policy.local = LocalData::view(keep(image)).unwrap();
        world.policy.special = Kinds::DEFAULT;
        world.policy.lists = super::policy::blocking(&["ads.example"]);
        for (name, code, count) in [
            ("nas.lan.", ResponseCode::NoError, 1),
            ("localhost.", ResponseCode::NoError, 1),
            ("x.invalid.", ResponseCode::NXDomain, 0),
            ("ads.example.", ResponseCode::NXDomain, 0),
            // The alias is local, its target unknown.
            ("out.lan.", ResponseCode::NoError, 1),
        ] {
            let reply = world.hit(&without_rd(query(name, 1)));
            assert_eq!(
                (reply.response_code(), reply.answers().len()),
                (code, count),
                "{name}"
            );
        }
        assert!(world.effects.asked.is_empty());
        world.miss(1, &query("cdn.example.", 2));
        world.respond(answer_a(60));
        let reply = world.hit(&without_rd(query("out.lan.", 3)));
        assert_eq!(reply.answers().len(), 2);
    });
}

#[test]
fn without_rd_an_answer_longer_than_a_slot_is_refused_on_every_way() {
    with_world(Settings::DEFAULT, |world| {
        world.effects.stream_limit = 1;
        world.miss(1, &query("long.example.", 1));
        world.respond(|message| {
            message.set_truncated(true);
        });
        world.respond(|message| {
            for last in 0..200 {
                message.add_answer(address("long.example.", 300, last));
            }
        });
        let asked = world.effects.asked.len();
        assert!(world.hit(&query("long.example.", 2)).truncated());
        let query = without_rd(query("long.example.", 3));
        for bytes in [world.ask(2, &query).1, world.ask_tcp(2, &query).1] {
            let reply = Message::from_vec(&bytes).unwrap();
            assert_eq!(reply.response_code(), ResponseCode::Refused);
        }
        assert_eq!(world.effects.asked.len(), asked);
    });
}
