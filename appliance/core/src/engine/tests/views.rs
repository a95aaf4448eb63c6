//! Clients of different views: an answer for one view never reaches another, wherever it comes from.

use super::harness::*;
use super::image;
use super::policy::blocking;
use crate::policy::ranges::AddressRanges;
use crate::policy::{Kinds, LocalData, Routes};

/// The family, in no view.
const FAMILY: ReplyPath = 1;
/// Guests: one by address, another by device.
const GUEST: ReplyPath = 0x4201;
const BY_DEVICE: ReplyPath = 0x4301;
const GUEST_DEVICE: u32 = 7;

/// 10.0.66.0/24 is view 1.
fn clients() -> Vec<u8> {
    let mut bytes = Vec::new();
    for count in [3u32, 1] {
        bytes.extend(count.to_le_bytes());
    }
    for start in [0u32, 0x0a00_4200, 0x0a00_4300] {
        bytes.extend(start.to_le_bytes());
    }
    bytes.extend([0, 1, 0]);
    bytes.extend(0u128.to_le_bytes());
    bytes.push(0);
    bytes
}

/// The family has a machine and an alias of its own, a domain behind a VPN, and a list. Guests have another list, no names
/// of the house, and servers of their own.
fn policies() -> [Policy<'static>; 2] {
    let cname = |target: &str| (rtype::CNAME, 120, image::wire(target));
    let house = image::local(&[
        ("lan", &[]),
        ("nas.lan", &[(rtype::A, 60, vec![192, 168, 1, 2])]),
        ("out.lan", &[cname("cdn.example")]),
    ]);
    let zones = image::local(&[("lan", &[])]);
    let routes = image::table(&[("corp.example", 1)]);
    let family = Policy {
        generation: 5,
        local: LocalData::view(keep(house)).unwrap(),
        lists: blocking(&["games.example"]),
        routes: Routes::view(keep(routes)).unwrap(),
        special: Kinds::DEFAULT,
        block_ttl_secs: 10,
        ..Policy::OPEN
    };
    let guests = Policy {
        view: 1,
        local: LocalData::view(keep(zones)).unwrap(),
        lists: blocking(&["ads.example"]),
        routes: Routes::EMPTY,
        default_group: 1,
        ..family
    };
    [family, guests]
}

fn keep<T>(value: Vec<T>) -> &'static [T] {
    Vec::leak(value)
}

fn with_views(settings: Settings, scenario: impl FnOnce(&mut World<'_>) + Send) {
    with_world(settings, |world| {
        let policies = keep(policies().to_vec());
        world.policy = policies[0];
        world.views = Views {
            clients: AddressRanges::view(keep(clients())).unwrap(),
            devices: &[(GUEST_DEVICE, 1)],
            carried: &[],
            policies,
            count: 2,
        };
        scenario(world);
    });
}

fn asks(world: &mut World<'_>, who: ReplyPath, message: &Message) -> Option<Message> {
    let client = Client {
        device: if who == BY_DEVICE { GUEST_DEVICE } else { 3 },
        ..world.client(who)
    };
    let (outcome, reply) = world.ask_as(&client, &message.to_vec().unwrap());
    matches!(outcome, Outcome::Reply(_)).then(|| Message::from_vec(&reply).unwrap())
}

/// The immediate reply: RCODE and answer section; `None` if the query waits.
fn told(world: &mut World<'_>, who: ReplyPath, name: &str) -> Option<(ResponseCode, Vec<String>)> {
    let reply = asks(world, who, &query(name, 1))?;
    Some((reply.response_code(), answers(&reply)))
}

fn one(text: &str) -> Option<(ResponseCode, Vec<String>)> {
    Some((ResponseCode::NoError, vec![text.into()]))
}

fn none(code: ResponseCode) -> Option<(ResponseCode, Vec<String>)> {
    Some((code, Vec::new()))
}

/// Lets the server that was asked last give the name this address.
fn respond(world: &mut World<'_>, ttl_secs: u32, last: u8) {
    world.respond(|message| {
        let owner = message.queries()[0].name().to_ascii();
        message.add_answer(address(&owner, ttl_secs, last));
    });
}

fn asked_last(world: &World<'_>) -> String {
    world.asked().pop().unwrap_or_default()
}

#[test]
fn each_view_has_its_own_names_lists_and_routes() {
    with_views(Settings::DEFAULT, |world| {
        let denied = none(ResponseCode::NXDomain);
        assert_eq!(
            told(world, FAMILY, "nas.lan."),
            one("nas.lan. A 192.168.1.2")
        );
        assert_eq!(told(world, FAMILY, "games.example."), denied);
        for guest in [GUEST, BY_DEVICE] {
            assert_eq!(told(world, guest, "nas.lan."), denied, "{guest}");
            assert_eq!(told(world, guest, "out.lan."), denied);
            assert_eq!(told(world, guest, "ads.example."), denied);
            assert_eq!(
                told(world, guest, "localhost."),
                one("localhost. A 127.0.0.1")
            );
        }
        assert!(world.effects.asked.is_empty());
        for (who, name, to) in [
            (FAMILY, "ads.example.", UPSTREAM_1),
            (FAMILY, "www.corp.example.", UPSTREAM_OTHER),
            (GUEST, "www.corp.example.", UPSTREAM_OTHER),
            (GUEST, "games.example.", UPSTREAM_OTHER),
            (BY_DEVICE, "net.example.", UPSTREAM_OTHER),
        ] {
            assert_eq!(told(world, who, name), None, "{who} {name}");
            assert_eq!(asked_last(world), to, "{who} {name}");
        }
    });
}

#[test]
fn what_is_cached_for_one_view_is_fresh_aging_and_stale_for_that_one_alone() {
    with_views(Settings::DEFAULT, |world| {
        let name = "www.example.";
        assert_eq!(told(world, FAMILY, name), None);
        assert_eq!(asked_last(world), UPSTREAM_1);
        respond(world, 100, 1);
        assert_eq!(
            told(world, GUEST, name),
            None,
            "not from the family's answer"
        );
        assert_eq!(asked_last(world), UPSTREAM_OTHER);
        respond(world, 100, 2);
        let family = one("www.example. A 192.0.2.1");
        let guests = one("www.example. A 192.0.2.2");
        for _ in 0..2 {
            assert_eq!(told(world, FAMILY, name), family);
            assert_eq!(told(world, GUEST, name), guests);
            assert_eq!(told(world, BY_DEVICE, name), guests);
        }
        // Aging: each view refreshes at its own servers.
        world.pass(95_000);
        assert_eq!(told(world, GUEST, name), guests);
        assert_eq!(asked_last(world), UPSTREAM_OTHER);
        assert_eq!(told(world, FAMILY, name), family);
        assert_eq!(asked_last(world), UPSTREAM_1);
        assert_eq!(world.asked().len(), 4);
        // No server answers: each view gets its own stale answer, and the cached failure of one does not affect the other.
        world.pass(30_000);
        for (who, expected) in [(GUEST, guests), (FAMILY, family)] {
            assert_eq!(told(world, who, name), None, "{who}");
            world.pass(10_000);
            let reply = world.last_reply();
            assert_eq!(Some((reply.response_code(), answers(&reply))), expected);
        }
    });
}

#[test]
fn who_waits_in_one_view_gets_nothing_of_another() {
    with_views(Settings::DEFAULT, |world| {
        let name = "www.example.";
        for who in [FAMILY, GUEST, BY_DEVICE] {
            assert_eq!(told(world, who, name), None);
        }
        assert_eq!(
            world.asked(),
            [UPSTREAM_1, UPSTREAM_OTHER],
            "one for each view"
        );
        world.respond_to(1, |message| {
            message.add_answer(address("www.example.", 60, 2));
        });
        let got = |world: &World<'_>, who| {
            let mut replies = world.effects.replies.iter();
            let found = replies.find(|(reply_path, _)| *reply_path == who);
            found.map(|(_, bytes)| answers(&Message::from_vec(bytes).unwrap()))
        };
        for guest in [GUEST, BY_DEVICE] {
            assert_eq!(got(world, guest).unwrap(), ["www.example. A 192.0.2.2"]);
        }
        assert_eq!(got(world, FAMILY), None);
        world.respond_to(0, |message| {
            message.add_answer(address("www.example.", 60, 1));
        });
        assert_eq!(got(world, FAMILY).unwrap(), ["www.example. A 192.0.2.1"]);
    });
}

/// Each answer is inspected with the lists of the clients that wait for it, whichever client called last.
#[test]
fn an_answer_is_filtered_and_followed_by_the_policy_of_its_view() {
    with_views(Settings::DEFAULT, |world| {
        let leads = |message: &mut Message| {
            message.add_answer(alias("cdn.example.", 60, "ads.example."));
            message.add_answer(address("ads.example.", 60, 9));
        };
        assert_eq!(told(world, GUEST, "cdn.example."), None);
        world.respond(leads);
        assert_eq!(world.last_reply().response_code(), ResponseCode::NXDomain);
        assert_eq!(
            told(world, GUEST, "cdn.example."),
            none(ResponseCode::NXDomain)
        );
        // Through the family's own alias, which only they have.
        assert_eq!(told(world, FAMILY, "out.lan."), None);
        world.respond(leads);
        let whole = [
            "out.lan. CNAME cdn.example.",
            "cdn.example. CNAME ads.example.",
            "ads.example. A 192.0.2.9",
        ];
        assert_eq!(answers(&world.last_reply()), whole);
        let again = told(world, FAMILY, "out.lan.").unwrap();
        assert_eq!(again.1, whole);
        // Half a chain: the rest is asked where the view asks. The family's goes by a route, guests have none.
        for (who, first, rest) in [
            (FAMILY, UPSTREAM_1, UPSTREAM_OTHER),
            (GUEST, UPSTREAM_OTHER, UPSTREAM_OTHER),
        ] {
            assert_eq!(told(world, who, "half.example."), None);
            assert_eq!(asked_last(world), first);
            world.respond(|message| {
                message.add_answer(alias("half.example.", 60, "www.corp.example."));
            });
            assert_eq!(asked_last(world), rest, "{who}");
            respond(world, 60, 4);
            assert_eq!(world.last_reply().answers().len(), 2);
        }
    });
}

#[test]
fn a_name_that_is_denied_in_one_view_may_exist_in_another() {
    with_views(Settings::DEFAULT, |world| {
        let name = "new.example.";
        assert_eq!(told(world, FAMILY, name), None);
        world.respond(|message| {
            message.set_response_code(ResponseCode::NXDomain);
            message.add_name_server(soa("example.", 60, 60));
        });
        let other_type = query_type(name, RecordType::MX, 2);
        let denied = asks(world, FAMILY, &other_type).expect("the denial is for all types");
        assert_eq!(denied.response_code(), ResponseCode::NXDomain);
        assert!(asks(world, GUEST, &other_type).is_none());
        assert_eq!(told(world, GUEST, name), None);
        respond(world, 60, 2);
        assert_eq!(told(world, GUEST, name), one("new.example. A 192.0.2.2"));
        assert_eq!(told(world, FAMILY, name), none(ResponseCode::NXDomain));
    });
}

/// The program in the kernel knows only clients and answers of no view.
#[test]
fn answers_of_a_view_are_not_noted_for_all() {
    with_views(Settings::DEFAULT, |world| {
        world.engine.note_hits(true);
        for (who, is_noted) in [(FAMILY, true), (GUEST, false), (BY_DEVICE, false)] {
            if told(world, who, "www.example.").is_none() {
                respond(world, 60, 1);
            }
            assert!(told(world, who, "www.example.").is_some());
            assert_eq!(world.engine.take_noted().is_some(), is_noted, "{who}");
        }
    });
}

/// One client's question may end another's, of another view: those clients get their own view's answer.
#[test]
fn a_question_that_ends_for_room_ends_by_its_own_view() {
    with_views(Settings::DEFAULT, |world| {
        for (who, last) in [(FAMILY, 1), (GUEST, 2)] {
            assert_eq!(told(world, who, "www.example."), None);
            respond(world, 1, last);
        }
        world.pass(5_000);
        assert_eq!(told(world, FAMILY, "www.example."), None);
        // So many that the oldest gives way.
        for number in 0..crate::limits::PENDING {
            let _ = told(world, GUEST, &format!("n{number}.example."));
        }
        let mut replies = world.effects.replies.iter();
        let family = replies.rfind(|(reply_path, _)| *reply_path == FAMILY);
        let reply = Message::from_vec(&family.unwrap().1).unwrap();
        assert_eq!(answers(&reply), ["www.example. A 192.0.2.1"]);
    });
}

#[test]
fn questions_of_views_end_where_their_numbers_become_those_of_others() {
    with_views(Settings::DEFAULT, |world| {
        for who in [FAMILY, GUEST] {
            assert_eq!(told(world, who, "www.example."), None);
        }
        let context = World::context(world.now, &world.policy, &Views::NONE);
        world
            .engine
            .leave_views(&mut context.call(&mut world.effects));
        assert_eq!(world.engine.in_flight(), 1);
        let [(who, bytes)] = &world.effects.replies[..] else {
            panic!("the guest alone")
        };
        let reply = Message::from_vec(bytes).unwrap();
        assert_eq!(
            (*who, reply.response_code()),
            (GUEST, ResponseCode::ServFail)
        );
    });
}

/// Queries, answers from the cache and blocked names of a view.
fn counted(world: &World<'_>, view: usize) -> [u64; 3] {
    ViewCounter::ALL
        .iter()
        .map(|counter| world.get_for(view, *counter))
        .collect::<Vec<_>>()
        .try_into()
        .unwrap()
}

#[test]
fn what_is_asked_is_counted_for_each_view_until_numbers_change() {
    with_views(Settings::DEFAULT, |world| {
        for who in [FAMILY, GUEST] {
            assert_eq!(told(world, who, "cdn.example."), None);
            respond(world, 300, 9);
        }
        for (who, times) in [(FAMILY, 1), (GUEST, 2), (BY_DEVICE, 1)] {
            for _ in 0..times {
                assert!(told(world, who, "cdn.example.").is_some());
            }
        }
        told(world, FAMILY, "games.example.");
        for who in [GUEST, BY_DEVICE] {
            told(world, who, "ads.example.");
        }
        assert_eq!(counted(world, 0), [3, 1, 1]);
        assert_eq!(counted(world, 1), [6, 3, 2]);
        assert_eq!(counted(world, 2), [0, 0, 0]);
        let context = World::context(world.now, &world.policy, &world.views);
        let call = &mut context.call(&mut world.effects);
        world.engine.leave_views(call);
        assert_eq!([counted(world, 0), counted(world, 1)], [[0; 3]; 2]);
    });
}

/// The hits of a machine without views pay nothing for it.
#[test]
fn without_views_queries_are_not_counted_for_any() {
    with_world(Settings::DEFAULT, |world| {
        world.miss(1, &query("cdn.example.", 1));
        respond(world, 300, 9);
        world.hit(&query("cdn.example.", 2));
        assert_eq!(counted(world, 0), [0, 0, 0]);
    });
}
