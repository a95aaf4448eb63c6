//! Addresses that go into sets of the packet filter.

use super::harness::*;
use super::image;
use crate::policy::rebind::Ranges;
use crate::policy::{AddressSets, LocalData, Rebind, Suffixes};
use core::net::IpAddr;

/// Sets 3 are for vpn.example and all below it, sets 4 for a.vpn.example.
fn policy(generation: u32) -> Policy<'static> {
    let names = [("vpn.example", 3), ("a.vpn.example", 4)];
    Policy {
        generation,
        address_sets: AddressSets::view(keep(image::table(&names))).unwrap(),
        ..Policy::OPEN
    }
}

/// What was handed on since the last call: replies before it, sets, address.
fn handed_on(world: &mut World<'_>) -> Vec<(usize, u16, String)> {
    let all = world.effects.in_sets.drain(..);
    all.map(|(replies, sets, address): (usize, u16, IpAddr)| (replies, sets, format!("{address}")))
        .collect()
}

fn one(replies: usize, sets: u16) -> Vec<(usize, u16, String)> {
    vec![(replies, sets, "192.0.2.80".into())]
}

#[test]
fn addresses_are_handed_on_before_the_answer_and_with_each_hit() {
    with_world(Settings::DEFAULT, |world| {
        world.policy = policy(1);
        world.miss(1, &query("www.vpn.example.", 1));
        world.miss(2, &query("www.vpn.example.", 2));
        assert_eq!(handed_on(world), []);
        world.respond(answer_a(3_600));
        assert_eq!(world.effects.replies.len(), 2);
        assert_eq!(handed_on(world), one(0, 3), "once for both");
        for id in 2..4 {
            world.hit(&query("WWW.vpn.example.", id));
            assert_eq!(handed_on(world), one(2, 3), "hit {id}");
        }
        // A reload that keeps the names changes nothing.
        world.policy = policy(2);
        world.hit(&query("www.vpn.example.", 5));
        assert_eq!(handed_on(world), one(2, 3));
        assert_eq!(world.get(Counter::CacheHits), 3);
        assert_eq!(world.effects.asked.len(), 1);
    });
}

#[test]
fn the_longest_name_decides_and_others_have_no_sets() {
    with_world(Settings::DEFAULT, |world| {
        world.policy = policy(1);
        let cases = [
            ("vpn.example.", Some(3)),
            ("a.vpn.example.", Some(4)),
            ("b.a.vpn.example.", Some(4)),
            ("xvpn.example.", None),
            ("example.", None),
        ];
        for (name, sets) in cases {
            world.miss(1, &query(name, 1));
            world.respond(answer_a(3_600));
            let replies = world.effects.replies.len() - 1;
            let expected = sets.map_or(Vec::new(), |sets| one(replies, sets));
            assert_eq!(handed_on(world), expected, "{name}");
        }
    });
}

#[test]
fn both_families_are_handed_on_behind_aliases_and_no_other_type() {
    with_world(Settings::DEFAULT, |world| {
        world.policy = policy(1);
        let v6 = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
        world.miss(1, &query_type("www.vpn.example.", RecordType::AAAA, 1));
        world.respond(|message| {
            message.add_answer(alias("www.vpn.example.", 60, "cdn.example."));
            message.add_answer(opaque("cdn.example.", 60, rtype::AAAA, &v6));
        });
        assert_eq!(handed_on(world), [(0, 3, "2001:db8::9".into())]);
        world.miss(1, &query_type("www.vpn.example.", RecordType::TXT, 1));
        world.respond(|message| {
            message.add_answer(opaque("www.vpn.example.", 60, rtype::TXT, b"\x04text"));
        });
        world.miss(1, &query("no.vpn.example.", 1));
        world.respond(code(ResponseCode::NXDomain));
        assert_eq!(handed_on(world), []);
    });
}

/// The program for hot names fills no sets.
#[test]
fn such_a_name_is_never_noted_as_hot() {
    with_world(Settings::DEFAULT, |world| {
        world.policy = policy(1);
        world.engine.note_hits(true);
        for (name, is_noted) in [("www.vpn.example.", false), ("www.example.", true)] {
            world.miss(1, &query(name, 1));
            world.respond(answer_a(3_600));
            for id in 0..3 {
                world.hit(&query(name, id));
                let noted = world.engine.take_noted();
                assert_eq!(noted.is_some(), is_noted, "{name}");
            }
        }
    });
}

#[test]
fn a_stale_answer_is_handed_on_as_well() {
    with_world(Settings::DEFAULT, |world| {
        world.policy = policy(1);
        world.miss(1, &query("www.vpn.example.", 1));
        world.respond(answer_a(10));
        assert_eq!(handed_on(world), one(0, 3));
        world.pass(20_000);
        world.miss(2, &query("www.vpn.example.", 2));
        world.pass(1_900);
        assert_eq!(world.effects.replies.len(), 2);
        assert_eq!(handed_on(world), one(1, 3));
    });
}

#[test]
fn of_a_local_alias_the_name_that_is_asked_for_counts() {
    with_world(Settings::DEFAULT, |world| {
        let cname = (rtype::CNAME, 120, image::wire("www.vpn.example"));
        let local = image::local(&[("out.lan", &[cname])]);
        world.policy = Policy {
            local: LocalData::view(keep(local)).unwrap(),
            ..policy(1)
        };
        world.miss(1, &query("out.lan.", 1));
        world.respond(answer_a(3_600));
        assert_eq!(handed_on(world), one(0, 3));
        world.hit(&query("out.lan.", 2));
        assert_eq!(handed_on(world), one(1, 3));
    });
}

#[test]
fn what_policy_withholds_is_not_handed_on() {
    with_world(Settings::DEFAULT, |world| {
        world.policy = Policy {
            rebind: Rebind::new(Ranges::DEFAULT, Suffixes::EMPTY),
            ..policy(1)
        };
        world.miss(1, &query("www.vpn.example.", 1));
        world.respond(|message| {
            message.add_answer(opaque("www.vpn.example.", 60, rtype::A, &[192, 168, 1, 1]));
        });
        assert_eq!(world.get(Counter::RebindWithheld), 1);
        assert_eq!(handed_on(world), []);
    });
}

#[test]
fn what_was_cached_before_its_name_had_sets_is_handed_on_from_then_on() {
    with_world(Settings::DEFAULT, |world| {
        world.policy = Policy {
            generation: 1,
            ..Policy::OPEN
        };
        world.miss(1, &query("www.vpn.example.", 1));
        world.respond(answer_a(3_600));
        world.hit(&query("www.vpn.example.", 2));
        assert_eq!(handed_on(world), []);
        world.policy = policy(2);
        for id in 3..5 {
            world.hit(&query("www.vpn.example.", id));
            assert_eq!(handed_on(world), one(1, 3), "{id}");
        }
    });
}
