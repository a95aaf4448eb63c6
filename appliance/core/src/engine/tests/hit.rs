//! Answers given without asking policy again, and when it is asked again.

use super::harness::*;
use super::policy::blocking;
use crate::answer::Key;
use crate::dns::Query;

/// The policy of a day: another generation, other lists.
fn day(generation: u32, blocked: &[&str]) -> Policy<'static> {
    Policy {
        generation,
        lists: blocking(blocked),
        block_ttl_secs: 10,
        ..Policy::OPEN
    }
}

fn ask_code(world: &mut World<'_>, id: u16) -> ResponseCode {
    world.hit(&query("www.example.", id)).response_code()
}

#[test]
fn a_name_that_is_blocked_from_now_on_is_blocked_although_it_is_cached() {
    with_world(Settings::DEFAULT, |world| {
        world.policy = day(1, &["other.example"]);
        world.miss(1, &query("www.example.", 1));
        world.respond(answer_a(3_600));
        assert_eq!(ask_code(world, 2), ResponseCode::NoError);
        world.policy = day(2, &["www.example"]);
        assert_eq!(ask_code(world, 3), ResponseCode::NXDomain);
        // The cached answer is still there on the day when the name is allowed again.
        world.policy = day(3, &["other.example"]);
        assert_eq!(ask_code(world, 4), ResponseCode::NoError);
    });
}

#[test]
fn generations_differ_in_each_of_their_32_bits() {
    for bit in 0..u32::BITS {
        with_world(Settings::DEFAULT, |world| {
            world.policy = day(0xa5a5_a5a5, &["other.example"]);
            world.miss(1, &query("www.example.", 1));
            world.respond(answer_a(3_600));
            assert_eq!(ask_code(world, 2), ResponseCode::NoError);
            world.policy = day(0xa5a5_a5a5 ^ 1 << bit, &["www.example"]);
            assert_eq!(ask_code(world, 3), ResponseCode::NXDomain, "bit {bit}");
        });
    }
}

#[test]
fn an_answer_that_comes_under_another_policy_is_not_known_under_it() {
    with_world(Settings::DEFAULT, |world| {
        world.policy = day(1, &["other.example"]);
        world.miss(1, &query("www.example.", 1));
        // The name is blocked while the question is in flight.
        world.policy = day(2, &["www.example"]);
        world.respond(answer_a(3_600));
        assert_eq!(ask_code(world, 2), ResponseCode::NXDomain);
    });
}

/// Waiting clients get it, since nothing better came; but this policy has not forwarded the question.
#[test]
fn an_answer_that_is_given_under_another_policy_is_not_known_under_it() {
    with_world(Settings::DEFAULT, |world| {
        world.policy = day(1, &["other.example"]);
        world.miss(1, &query("www.example.", 1));
        world.respond(answer_a(10));
        world.pass(20_000);
        world.miss(1, &query("www.example.", 2));
        world.policy = day(2, &["www.example"]);
        // Meanwhile a worker that still has the previous day's policy has got a fresh one.
        let bytes = query("www.example.", 2).to_vec().unwrap();
        let asked = Query::parse(&bytes).unwrap();
        let now = world.now;
        let cache = world.engine.cache;
        cache
            .shard
            .lock()
            .unwrap()
            .amend(&Key::of(&asked, 0).hashed(&cache.seed), |head| {
                (head.stored, head.ttl_secs) = (now, 3_600)
            });
        world.pass(5_000);
        assert_eq!(world.last_reply().response_code(), ResponseCode::NoError);
        assert_eq!(ask_code(world, 3), ResponseCode::NXDomain);
    });
}

#[test]
fn a_failure_that_comes_under_another_policy_is_not_known_under_it() {
    with_world(Settings::DEFAULT, |world| {
        world.policy = day(1, &["other.example"]);
        world.miss(1, &query("www.example.", 1));
        world.policy = day(2, &["www.example"]);
        world.pass(5_000);
        assert_eq!(world.last_reply().response_code(), ResponseCode::ServFail);
        assert_eq!(ask_code(world, 2), ResponseCode::NXDomain);
    });
}

#[test]
fn addresses_rotate_by_one_whatever_path_an_answer_takes() {
    let settings = Settings {
        rotate: true,
        ..Settings::DEFAULT
    };
    with_world(settings, |world| {
        world.miss(1, &query("www.example.", 1));
        world.respond(|message| {
            for last in 1..=3 {
                message.add_answer(address("www.example.", 3_600, last));
            }
        });
        let first = |message: &Message| format!("{:?}", message.answers()[0].data());
        let given: Vec<String> = (2..6)
            .map(|id| first(&world.hit(&query("www.example.", id))))
            .collect();
        assert_eq!(given[0], given[3]);
        assert_ne!(given[0], given[1]);
        assert_ne!(given[1], given[2]);
        assert_ne!(given[0], given[2]);
    });
}
