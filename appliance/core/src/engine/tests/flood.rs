//! Floods of names that nobody answers: under a few domains, from forged or real clients.

use super::harness::*;
use super::image;
use crate::forward::pending::crowd::CrowdLimits;
use crate::limits::PENDING;
use crate::policy::Routes;
use crate::testing::Random;
use std::collections::VecDeque;

/// Time that the servers take for names that they know, in milliseconds.
const ROUND_TRIP_MS: u64 = 150;
/// Forged queries per millisecond.
const PER_MS: u32 = 4;
/// Number of the first client that is not forged.
const HONEST: u32 = 60_000;

/// Of 100 new names that honest clients ask for, one in 10 ms, the number of those answered while forged clients ask for
/// names under so many domains that nobody answers.
fn answered_beside_a_flood(settings: Settings, domains: u32) -> usize {
    let mut answered = 0;
    with_world(settings, |world| {
        let mut random = Random::new(u64::from(domains));
        let mut due: VecDeque<(Instant, usize)> = VecDeque::new();
        let mut seen = 0;
        for ms in 0..1_400_u32 {
            for nth in (0..PER_MS).filter(|_| ms < 1_200) {
                let (label, domain) = (ms * PER_MS + nth, random.below(domains as usize));
                let flood = query(&format!("r{label}.silent{domain}.test."), nth as u16);
                world.ask(random.below(HONEST as usize) as u32, &flood);
            }
            if ms % 10 == 0 && (200..1_200).contains(&ms) {
                let number = ms / 10;
                world.ask(
                    HONEST + number % 20,
                    &query(&format!("www.calm{number:03}.test."), number as u16),
                );
            }
            for (nth, asked) in world.effects.asked.iter().enumerate().skip(seen) {
                if asked
                    .message
                    .windows(5)
                    .any(|label| label.eq_ignore_ascii_case(b"\x07calm"))
                {
                    due.push_back((world.now + ROUND_TRIP_MS, nth));
                }
            }
            seen = world.effects.asked.len();
            while let Some((_, nth)) = due.front().copied().filter(|(at, _)| *at <= world.now) {
                due.pop_front();
                world.respond_to(nth, answer_a(60));
            }
            world.pass(1);
        }
        let replies = world.effects.replies.iter();
        let honest = replies.filter(|(client, bytes)| {
            *client >= HONEST && !Message::from_vec(bytes).unwrap().answers().is_empty()
        });
        answered = honest.count();
    });
    answered
}

#[test]
fn new_names_of_honest_clients_are_answered_beside_a_flood_of_forged_ones() {
    for domains in [1, 3, 20] {
        let answered = answered_beside_a_flood(Settings::DEFAULT, domains);
        assert!(answered >= 95, "{answered} of 100, {domains} domains");
    }
}

/// Without a limit per domain.
const UNBOUND: Settings = Settings {
    bounds: CrowdLimits {
        zone: 0,
        ..CrowdLimits::DEFAULT
    },
    ..Settings::DEFAULT
};

/// Shows the purpose of the limit, and that these tests make a flood.
#[test]
fn without_a_bound_such_a_flood_takes_all_places() {
    let answered = answered_beside_a_flood(UNBOUND, 1);
    assert!(answered < 80, "{answered} of 100");
}

/// As many names under one domain as places are then free: the other group of servers has a quarter of the places.
const CROWD: u16 = PENDING as u16 * 3 / 8;

/// As many new names under one domain as allowed, each from another client.
fn crowd(world: &mut World<'_>) {
    for number in 0..CROWD {
        world.miss(number.into(), &query(&format!("r{number}.silent.test."), 1));
    }
}

#[test]
fn what_is_too_much_is_told_at_once_and_upstream_is_not_asked() {
    with_world(Settings::DEFAULT, |world| {
        crowd(world);
        let asked = world.effects.asked.len();
        let (outcome, bytes) = world.ask(9_000, &with_edns(query("new.silent.test.", 1), false));
        assert_ne!(outcome, Outcome::Pending);
        let reply = Message::from_vec(&bytes).unwrap();
        assert_eq!(reply.response_code(), ResponseCode::ServFail);
        assert_eq!(extended_error(&bytes), Some(ede::NOT_READY));
        assert_eq!(world.effects.asked.len(), asked);
        assert_eq!(world.get(Counter::ZoneFull), 1);
        // A name in flight takes no further question.
        world.miss(9_000, &query("r7.silent.test.", 2));
        world.miss(9_000, &query("new.other.test.", 3));
    });
}

/// The bound holds however many places are free. If few are free, a domain still gets four, but never more than the bound.
#[test]
fn a_low_bound_is_kept_to_the_unit() {
    for bound in [1, 2, 4, 5] {
        let bounds = CrowdLimits {
            zone: bound,
            ..CrowdLimits::DEFAULT
        };
        let settings = Settings {
            bounds,
            ..Settings::DEFAULT
        };
        with_world(settings, |world| {
            for number in 0..bound {
                world.miss(number.into(), &query(&format!("r{number}.silent.test."), 1));
            }
            let (outcome, _) = world.ask(9_000, &query("new.silent.test.", 1));
            assert_ne!(outcome, Outcome::Pending, "{bound}");
            assert_eq!(world.engine.in_flight(), usize::from(bound));
            world.miss(9_000, &query("new.other.test.", 2));
        });
    }
}

#[test]
fn a_domain_that_was_answered_has_places_again() {
    with_world(Settings::DEFAULT, |world| {
        crowd(world);
        assert_ne!(
            world.ask(9_000, &query("new.silent.test.", 1)).0,
            Outcome::Pending
        );
        world.respond_to(0, answer_a(60));
        world.miss(9_000, &query("new.silent.test.", 1));
    });
}

#[test]
fn names_that_the_cache_knows_and_clients_that_are_proven_are_free() {
    with_world(Settings::DEFAULT, |world| {
        world.miss(1, &query("known.silent.test.", 1));
        world.respond(answer_a(10));
        world.pass(20_000);
        crowd(world);
        world.miss(9_000, &query("known.silent.test.", 2));
        assert_ne!(
            world.ask(9_000, &query("new.silent.test.", 3)).0,
            Outcome::Pending
        );
        let (outcome, _) = world.ask_tcp(9_000, &query("new.silent.test.", 4));
        assert_eq!(outcome, Outcome::Pending);
    });
}

/// A single client that is not forged: it pays, as it does for the table as a whole.
#[test]
fn who_fills_a_domain_alone_makes_room_there_for_others_and_not_for_itself() {
    with_world(Settings::DEFAULT, |world| {
        for number in 0..CROWD {
            world.miss(1, &query(&format!("r{number}.silent.test."), number));
        }
        assert_ne!(
            world.ask(1, &query("more.silent.test.", 9_999)).0,
            Outcome::Pending
        );
        assert!(world.effects.replies.is_empty());
        world.miss(2, &query("new.silent.test.", 1));
        let ended: Vec<_> = world.effects.replies.iter().map(|reply| reply.0).collect();
        assert_eq!((ended, world.last_reply().id()), (vec![1], 0));
    });
}

#[test]
fn a_group_of_silent_servers_leaves_places_to_the_others() {
    let routes = keep(image::table(&[("corp", 1)]));
    with_world(UNBOUND, |world| {
        world.policy.routes = Routes::view(routes).unwrap();
        for number in 0..PENDING as u32 {
            world.miss(number, &query(&format!("n.d{number}.corp."), 1));
        }
        assert_eq!(world.engine.in_flight(), PENDING * 3 / 4);
        assert_eq!(world.effects.replies.len(), PENDING / 4);
        assert_eq!(extended_error(world.last_bytes()), None, "it has no EDNS");
        assert_eq!(world.last_reply().response_code(), ResponseCode::ServFail);
        assert_eq!(world.get(Counter::GroupFull), PENDING as u64 / 4);
        world.miss(9_000, &query("www.example.test.", 1));
        assert_eq!(world.get(Counter::PendingFull), 0);
    });
}

#[test]
fn the_only_group_may_have_all_places() {
    with_servers(
        UNBOUND,
        &[server(UPSTREAM_1, 0)],
        Strategy::Ordered,
        |world| {
            for number in 0..PENDING as u32 {
                world.miss(number, &query(&format!("n.d{number}.test."), 1));
            }
        },
    );
}
