//! Stale answers (RFC 8767), and answers refreshed before they expire.

use super::harness::*;
use crate::answer::{Answer, Key};
use crate::dns::Query;

#[test]
fn stale_answers_come_after_the_client_has_waited_and_when_nobody_answers() {
    with_world(Settings::DEFAULT, |world| {
        world.ask(1, &query("a.example.", 1));
        world.respond(answer_a(10));
        world.pass(20_000);
        world.ask(2, &with_edns(query("a.example.", 2), false));
        world.pass(1_700);
        assert_eq!(world.effects.replies.len(), 1);
        world.pass(200);
        let (reply_path, bytes) = world.effects.replies.last().unwrap().clone();
        let reply = Message::from_vec(&bytes).unwrap();
        assert_eq!(
            (reply_path, reply.answers()[0].ttl(), extended_error(&bytes)),
            (2, 30, Some(ede::STALE))
        );
        // The refresh that is still in flight fills the cache.
        world.respond(answer_a(10));
        assert_eq!(world.hit(&query("a.example.", 3)).answers()[0].ttl(), 10);
    });
}

#[test]
fn a_restored_answer_is_served_stale_at_once_and_refreshed() {
    with_world(Settings::DEFAULT, |world| {
        world.ask(1, &query("a.example.", 1));
        world.respond(answer_a(1_000));
        let cache = world.engine.cache;
        {
            let mut shard = cache.shard.lock().unwrap();
            let bytes = query("a.example.", 1).to_vec().unwrap();
            let parsed = Query::parse(&bytes).unwrap();
            let key = Key::of(&parsed, 0).hashed(&cache.seed);
            let (head, body) = shard
                .find(&key)
                .map(|found| (*found.head, found.body.to_vec()))
                .unwrap();
            let restored = Answer {
                head: &crate::answer::Head {
                    restored: true,
                    ..head
                },
                body: &body,
            };
            shard.insert(&key, &restored);
        }
        assert_eq!(world.hit(&query("a.example.", 2)).answers()[0].ttl(), 30);
        assert_eq!(world.effects.asked.len(), 2, "refreshed");
        world.respond(answer_a(1_000));
        assert_eq!(world.hit(&query("a.example.", 3)).answers()[0].ttl(), 1_000);
    });
}

#[test]
fn the_last_tenth_of_a_ttl_is_refreshed_while_hits_go_on() {
    with_world(Settings::DEFAULT, |world| {
        world.ask(1, &query("a.example.", 1));
        world.respond(answer_a(100));
        world.pass(89_000);
        world.hit(&query("a.example.", 2));
        assert_eq!(world.effects.asked.len(), 1);
        world.pass(2_000);
        world.hit(&query("a.example.", 3));
        world.hit(&query("a.example.", 4));
        assert_eq!(world.effects.asked.len(), 2, "asked once");
    });
}

#[test]
fn all_upstreams_dead_means_stale_at_once_and_a_refresh() {
    with_world(Settings::DEFAULT, |world| {
        world.miss(1, &query("a.example.", 1));
        world.respond(answer_a(10));
        world.pass(20_000);
        // Three questions without an answer: both servers are silent.
        for number in 0..3 {
            world.miss(1, &query(&format!("n{number}.example."), number));
            world.pass(5_000);
        }
        let asked = world.effects.asked.len();
        let bytes = with_edns(query("a.example.", 2), false).to_vec().unwrap();
        let reply = world.hit_bytes(&bytes);
        assert_eq!(extended_error(&reply), Some(ede::STALE));
        assert_eq!(Message::from_vec(&reply).unwrap().answers()[0].ttl(), 30);
        assert!(world.effects.asked.len() > asked, "refreshed");
        world.respond(answer_a(10));
        assert_eq!(world.hit(&query("a.example.", 3)).answers()[0].ttl(), 10);
    });
}

#[test]
fn one_name_that_nobody_answers_leaves_other_names_alone() {
    with_world(Settings::DEFAULT, |world| {
        world.miss(1, &query("good.example.", 1));
        world.respond(answer_a(10));
        world.pass(20_000);
        for id in 0..5 {
            world.miss(1, &query("black-hole.example.", id));
            world.pass(11_000);
        }
        // The other name is asked for anew, at the first server, and gets no stale answer.
        world.miss(1, &query("good.example.", 2));
        assert_eq!(world.asked().last().unwrap(), UPSTREAM_1);
        world.respond(answer_a(10));
        assert_eq!(world.last_reply().answers()[0].ttl(), 10);
    });
}

#[test]
fn a_failing_upstream_means_stale_at_once_and_no_kept_failure() {
    with_world(Settings::DEFAULT, |world| {
        world.miss(1, &query("a.example.", 1));
        world.respond(answer_a(10));
        world.pass(20_000);
        for id in 2..5 {
            world.miss(1, &query("a.example.", id));
            world.respond(code(ResponseCode::ServFail));
            world.respond(code(ResponseCode::ServFail));
            let reply = world.last_reply();
            assert_eq!((reply.id(), reply.answers()[0].ttl()), (id, 30));
            world.pass(5_000);
        }
    });
}

#[test]
fn failures_are_never_served_stale() {
    for failure in [ResponseCode::ServFail, ResponseCode::Refused] {
        with_world(Settings::DEFAULT, |world| {
            let asked = with_edns(query("a.example.", 1), false);
            world.miss(1, &asked);
            world.respond(code(failure));
            world.respond(code(failure));
            assert_eq!(world.last_reply().response_code(), failure);
            assert_eq!(world.hit(&asked).response_code(), failure);
            // After its few seconds it is forgotten, even if no server answers.
            world.pass(6_000);
            world.miss(1, &asked);
            world.pass(5_000);
            assert_eq!(world.last_reply().response_code(), ResponseCode::ServFail);
            assert_eq!(
                extended_error(world.last_bytes()),
                Some(ede::NO_REACHABLE_AUTHORITY)
            );
        });
    }
}

#[test]
fn a_stale_nxdomain_is_said_to_be_one() {
    with_world(Settings::DEFAULT, |world| {
        let asked = with_edns(query("no.example.", 1), false);
        world.miss(1, &asked);
        world.respond(|message| {
            message.set_response_code(ResponseCode::NXDomain);
            message.add_name_server(soa("example.", 10, 10));
        });
        world.pass(20_000);
        world.miss(1, &asked);
        world.pass(1_800);
        assert_eq!(
            extended_error(world.last_bytes()),
            Some(ede::STALE_NXDOMAIN)
        );
        assert_eq!(world.last_reply().response_code(), ResponseCode::NXDomain);
    });
}

#[test]
fn stale_answers_end_and_can_be_switched_off() {
    let short = Settings {
        stale_max_secs: 100,
        ..Settings::DEFAULT
    };
    let off = Settings {
        serve_stale: false,
        ..Settings::DEFAULT
    };
    for (settings, passes) in [(short, 111_000), (off, 11_000)] {
        with_world(settings, |world| {
            world.miss(1, &query("a.example.", 1));
            world.respond(answer_a(10));
            world.pass(passes);
            world.miss(1, &query("a.example.", 2));
            world.pass(5_000);
            assert_eq!(world.last_reply().response_code(), ResponseCode::ServFail);
        });
    }
}

#[test]
fn a_failing_prefetch_changes_nothing() {
    with_world(Settings::DEFAULT, |world| {
        world.miss(1, &query("a.example.", 1));
        world.respond(answer_a(100));
        world.pass(95_000);
        world.hit(&query("a.example.", 2));
        world.respond(code(ResponseCode::ServFail));
        world.respond(code(ResponseCode::ServFail));
        assert_eq!(world.engine.in_flight(), 0);
        assert_eq!(world.hit(&query("a.example.", 3)).answers()[0].ttl(), 5);
    });
}

/// RFC 8767 section 5, the failure recheck timer: a client that asks again gets it at once, and no server is asked.
#[test]
fn an_answer_that_could_not_be_refreshed_is_not_waited_for_again() {
    let settings = Settings {
        failure_ttl_secs: 7,
        ..Settings::DEFAULT
    };
    with_world(settings, |world| {
        world.miss(1, &query("a.example.", 1));
        world.respond(answer_a(10));
        world.pass(20_000);
        world.miss(1, &query("a.example.", 2));
        world.respond(code(ResponseCode::ServFail));
        world.respond(code(ResponseCode::ServFail));
        assert_eq!(world.last_reply().answers()[0].ttl(), 30);
        let asked = world.effects.asked.len();
        for _ in 0..3 {
            assert_eq!(world.hit(&query("a.example.", 3)).answers()[0].ttl(), 30);
            world.pass(2_000);
        }
        assert_eq!(world.effects.asked.len(), asked);
        world.pass(1_000);
        world.miss(1, &query("a.example.", 4));
        world.respond(answer_a(10));
        assert_eq!(world.hit(&query("a.example.", 5)).answers()[0].ttl(), 10);
    });
}
