//! Many clients: shared questions, full tables, fair shares.

use super::harness::*;
use super::image;
use crate::forward::pending::crowd::CrowdLimits;
use crate::limits::{ALIASES, PENDING, WAITERS};
use crate::policy::on_link::Network;
use crate::policy::{LocalData, OnLink};

/// Without a limit per domain, since these tests fill the table with names of one domain.
const UNBOUND: Settings = Settings {
    bounds: CrowdLimits { zone: 0, group: 0 },
    ..Settings::DEFAULT
};

#[test]
fn everyone_who_asks_the_same_shares_one_upstream_query_and_gets_its_own_reply() {
    with_world(UNBOUND, |world| {
        world.ask(1, &query("a.example.", 1));
        world.ask(2, &with_edns(query("A.example.", 2), false));
        world.ask(2, &with_edns(query("A.example.", 2), false));
        assert_eq!(world.effects.asked.len(), 1);
        world.respond(answer_a(60));
        assert_eq!(
            world.effects.replies.len(),
            2,
            "a repeated question is answered once"
        );
        for (reply_path, bytes) in &world.effects.replies {
            let reply = Message::from_vec(bytes).unwrap();
            assert_eq!(u32::from(reply.id()), *reply_path);
            assert_eq!(reply.extensions().is_some(), *reply_path == 2);
            assert_eq!(bytes[13] == b'A', *reply_path == 2);
        }
        assert_eq!(world.engine.in_flight(), 0);
    });
}

#[test]
fn a_full_table_ends_the_oldest_question_of_the_busiest_client() {
    with_world(UNBOUND, |world| {
        world.miss(7, &query("patient.example.", 1));
        for number in 0..crate::limits::PENDING as u16 - 1 {
            world.miss(1, &query(&format!("n{number}.example."), number));
        }
        assert!(
            world.effects.replies.is_empty(),
            "one client may use it all"
        );
        // The busy client goes on: it is its own oldest question that ends.
        world.miss(1, &with_edns(query("one-more.example.", 9_999), false));
        assert_eq!(world.effects.replies.len(), 1);
        let reply = world.last_reply();
        assert_eq!(
            (reply.id(), reply.response_code()),
            (0, ResponseCode::ServFail)
        );
        // Another client comes: it is served, and so is the first one.
        world.miss(8, &query("other.example.", 1));
        assert_eq!(world.last_reply().id(), 1);
        world.respond(answer_a(60));
        world.respond_to(0, answer_a(60));
        let served: Vec<ReplyPath> = world.effects.replies[2..]
            .iter()
            .map(|(reply_path, _)| *reply_path)
            .collect();
        assert_eq!(served, [8, 7]);
        assert_eq!(world.get(Counter::PendingFull), 2);
    });
}

#[test]
fn a_question_that_made_room_says_so_and_is_not_kept_as_a_failure() {
    with_world(UNBOUND, |world| {
        world.miss(1, &with_edns(query("first.example.", 1), false));
        for number in 0..crate::limits::PENDING as u16 {
            world.miss(1, &query(&format!("n{number}.example."), number));
        }
        assert_eq!(extended_error(world.last_bytes()), Some(ede::NOT_READY));
        world.miss(2, &query("first.example.", 2));
    });
}

#[test]
fn hits_never_wait_behind_misses() {
    with_world(UNBOUND, |world| {
        world.miss(1, &query("hot.example.", 1));
        world.respond(answer_a(3_600));
        for number in 0..3 * crate::limits::PENDING as u16 {
            world.ask(1, &query(&format!("n{number}.example."), number));
            if number % 100 == 0 {
                assert_eq!(world.hit(&query("hot.example.", 2)).answers().len(), 1);
            }
        }
    });
}

#[test]
fn one_client_cannot_take_all_the_places_to_wait_in() {
    with_world(UNBOUND, |world| {
        let mut refused = 0;
        for id in 0..crate::limits::WAITERS as u16 + 100 {
            let query = with_edns(query("a.example.", id), false);
            let (outcome, bytes) = world.ask(1, &query);
            if outcome != Outcome::Pending {
                refused += 1;
                assert_eq!(extended_error(&bytes), Some(ede::NOT_READY));
            }
        }
        assert!(refused > 100, "{refused}");
        world.miss(2, &query("a.example.", 1));
        world.miss(3, &query("b.example.", 1));
        world.respond(answer_a(60));
        assert_eq!(world.effects.replies[0].0, 3);
        world.respond_to(0, answer_a(60));
        let waited = crate::limits::WAITERS + 100 - refused + 2;
        assert_eq!(
            world.effects.replies.len(),
            waited,
            "everyone else was answered"
        );
    });
}

/// The table of questions is full, and a client is refused for another reason: no room is made for it.
#[test]
fn who_is_refused_ends_no_question_of_another_client() {
    with_world(UNBOUND, |world| {
        for number in 0..PENDING as u16 {
            world.miss(1, &query(&format!("n{number}.example."), number));
        }
        for id in 0..WAITERS as u16 / 4 {
            world.miss(2, &query("n0.example.", id));
        }
        let (outcome, _) = world.ask(2, &query("new.example.", 9_999));
        assert_ne!(outcome, Outcome::Pending, "it has its share of the places");
        assert!(world.effects.replies.is_empty());
        assert_eq!(world.get(Counter::PendingFull), 0);
        assert_eq!(world.get(Counter::ShareFull), 1);
        assert_eq!(world.engine.in_flight(), PENDING);
    });
}

#[test]
fn when_all_places_are_taken_the_oldest_question_ends() {
    with_world(UNBOUND, |world| {
        for client in 0..crate::limits::WAITERS as u32 {
            world.miss(
                client,
                &query(&format!("n{}.example.", client / 16), client as u16),
            );
        }
        assert!(world.effects.replies.is_empty());
        world.miss(5_000, &query("new.example.", 1));
        assert_eq!(world.get(Counter::WaitersFull), 1);
        assert_eq!(world.effects.replies.len(), 16, "those of one question");
        world.respond(answer_a(60));
        assert_eq!(world.effects.replies.last().unwrap().0, 5_000);
    });
}

#[test]
fn the_same_id_from_two_clients_gets_each_its_own_answer() {
    with_world(UNBOUND, |world| {
        world.miss(1, &query("a.example.", 7));
        world.miss(2, &query("b.example.", 7));
        world.respond_to(0, |message| {
            message.add_answer(address("a.example.", 60, 1));
        });
        world.respond_to(1, |message| {
            message.add_answer(address("b.example.", 60, 2));
        });
        for (reply_path, bytes) in &world.effects.replies {
            let reply = Message::from_vec(bytes).unwrap();
            let owner = if *reply_path == 1 {
                "a.example."
            } else {
                "b.example."
            };
            assert_eq!(
                (
                    reply.id(),
                    reply.queries()[0].name(),
                    reply.answers()[0].name()
                ),
                (7, &name(owner), &name(owner))
            );
        }
    });
}

/// Fills the places for waiting clients as far as one host may, then asks as another one. Returns true if that is served.
fn is_served_beside_a_greedy(host: &str, other: &str, on_link: &'static [Network]) -> bool {
    let mut is_served = false;
    let client = |text: &str, reply_path| Client {
        reply_path,
        address: text.parse().unwrap(),
        transport: Transport::Udp,
        device: 0,
    };
    with_world(UNBOUND, |world| {
        world.policy.on_link = OnLink::view(on_link);
        for id in 0..crate::limits::WAITERS as u16 {
            let query = query("a.example.", id).to_vec().unwrap();
            world.ask_as(&client(host, 1), &query);
        }
        let query = query("a.example.", 1).to_vec().unwrap();
        is_served = world.ask_as(&client(other, 2), &query).0 == Outcome::Pending;
    });
    is_served
}

#[test]
fn a_greedy_neighbour_takes_its_own_share_and_a_host_off_link_that_of_its_64() {
    let lan: &'static [Network] = vec![
        Network::of([192, 168, 1, 1].into(), 24),
        Network::of("fd00:53::1".parse().unwrap(), 64),
    ]
    .leak();
    let cases: [(&str, &str, bool); 8] = [
        ("fd00:53::a", "fd00:53::b", true),
        ("fd00:53::a", "fd00:53::a", false),
        ("fe80::a", "fe80::b", true),
        ("192.168.1.10", "192.168.1.11", true),
        ("203.0.113.10", "203.0.113.11", true),
        ("2001:db8::a", "2001:db8::b", false),
        ("2001:db8::a", "2001:db8:0:1::b", true),
        ("::ffff:192.168.1.10", "192.168.1.10", false),
    ];
    for (host, other, expected) in cases {
        let is_served = is_served_beside_a_greedy(host, other, lan);
        assert_eq!(is_served, expected, "{host} and {other}");
    }
    assert!(!is_served_beside_a_greedy("fd00:53::a", "fd00:53::b", &[]));
}

#[test]
fn a_neighbour_that_fills_the_table_of_questions_ends_none_of_another_neighbours() {
    let lan: &'static [Network] = vec![Network::of("fd00:53::1".parse().unwrap(), 64)].leak();
    with_world(UNBOUND, |world| {
        world.policy.on_link = OnLink::view(lan);
        let client = |last: u16, reply_path| Client {
            reply_path,
            address: core::net::Ipv6Addr::new(0xfd00, 0x53, 0, 0, 0, 0, 0, last).into(),
            transport: Transport::Udp,
            device: 0,
        };
        let patient = query("patient.example.", 1).to_vec().unwrap();
        world.ask_as(&client(7, 7), &patient);
        for number in 0..crate::limits::PENDING as u16 {
            let query = query(&format!("n{number}.example."), number);
            world.ask_as(&client(1, 1), &query.to_vec().unwrap());
        }
        let ended: Vec<ReplyPath> = world.effects.replies.iter().map(|reply| reply.0).collect();
        assert_eq!(ended, [1]);
    });
}

#[test]
fn where_ports_are_scarce_the_client_that_has_the_most_questions_gives_one_up() {
    with_world(UNBOUND, |world| {
        world.effects.no_more_ports = Some((4, NoPort::Full));
        world.miss(7, &query("patient.example.", 1));
        for number in 0..8 {
            world.pass(1);
            world.miss(1, &query(&format!("n{number}.example."), number));
        }
        world.pass(1);
        world.miss(8, &query("another.example.", 9));
        let open: Vec<usize> = (0..world.effects.asked.len())
            .filter(|nth| world.effects.is_open(world.effects.asked[*nth].via))
            .collect();
        assert_eq!(open, [0, 7, 8, 9], "the oldest of the client with eight");
        world.respond_to(0, answer_a(60));
        assert_eq!(world.last_reply().id(), 1);
    });
}

/// `a0.lan` and so on are aliases of as many names outside.
fn aliases(count: usize) -> LocalData<'static> {
    let names: Vec<String> = (0..count).map(|number| format!("a{number}.lan")).collect();
    let records: Vec<_> = (0..count)
        .map(|number| {
            let target = image::wire(&format!("t{number}.example"));
            [(rtype::CNAME, 60, target)]
        })
        .collect();
    let pairs = names.iter().zip(&records);
    let image: Vec<_> = pairs
        .map(|(name, records)| (name.as_str(), &records[..]))
        .collect();
    LocalData::view(keep(image::local(&image))).unwrap()
}

#[test]
fn a_full_table_of_aliases_refuses_the_newcomer_and_ends_nobodys_question() {
    with_world(UNBOUND, |world| {
        world.policy.local = aliases(ALIASES + 1);
        world.miss(5_000, &query("patient.example.", 1));
        for number in 0..ALIASES as u16 {
            world.miss(number.into(), &query(&format!("a{number}.lan."), number));
        }
        let asked = world.effects.asked.len();
        let last = with_edns(query(&format!("a{ALIASES}.lan."), 9), false);
        let (outcome, bytes) = world.ask(9_999, &last);
        assert_ne!(outcome, Outcome::Pending);
        let reply = Message::from_vec(&bytes).expect("a message");
        assert_eq!(reply.response_code(), ResponseCode::ServFail);
        assert_eq!(extended_error(&bytes), Some(ede::NOT_READY));
        assert_eq!(world.get(Counter::AliasesFull), 1);
        assert!(world.effects.replies.is_empty(), "nobody pays for it");
        assert_eq!(world.effects.asked.len(), asked, "nor is upstream asked");
        // A name without an alias is served, and an alias again as soon as one is answered.
        world.miss(9_999, &query("plain.example.", 10));
        world.respond_to(1, answer_a(60));
        world.miss(9_999, &last);
    });
}

#[test]
fn one_client_cannot_take_all_the_places_for_aliases() {
    with_world(UNBOUND, |world| {
        world.policy.local = aliases(ALIASES + 1);
        let served = (0..ALIASES as u16)
            .filter(|&number| {
                let query = query(&format!("a{number}.lan."), number);
                world.ask(1, &query).0 == Outcome::Pending
            })
            .count();
        assert!((ALIASES / 4..=ALIASES / 2).contains(&served), "{served}");
        assert_eq!(world.effects.asked.len(), served);
        let other = query(&format!("a{ALIASES}.lan."), 1);
        world.miss(2, &other);
    });
}

#[test]
fn nobody_is_asked_for_a_client_that_is_refused() {
    with_world(UNBOUND, |world| {
        // Its share of the places for clients, on one question; then each of its queries is for another name.
        for id in 0..WAITERS as u16 {
            world.ask(1, &query("a.example.", id));
        }
        let (asked, in_flight) = (world.effects.asked.len(), world.engine.in_flight());
        for number in 0..100 {
            let query = query(&format!("n{number}.example."), number);
            assert_ne!(world.ask(1, &query).0, Outcome::Pending);
        }
        assert_eq!(world.effects.asked.len(), asked);
        assert_eq!(world.engine.in_flight(), in_flight);
    });
}

#[test]
fn a_client_that_is_refused_ends_nobodys_question() {
    with_world(UNBOUND, |world| {
        for id in 0..WAITERS as u16 {
            world.ask(1, &query("a.example.", id));
        }
        for number in 0..PENDING as u16 - 1 {
            world.ask(
                2 + u32::from(number),
                &query(&format!("n{number}.example."), 1),
            );
        }
        let replies = world.effects.replies.len();
        assert_ne!(world.ask(1, &query("more.example.", 1)).0, Outcome::Pending);
        assert_eq!(world.effects.replies.len(), replies);
    });
}

/// Otherwise it would have nothing to wait for.
#[test]
fn room_for_a_client_is_not_made_by_the_question_that_it_waits_for() {
    let fill = |world: &mut World<'_>| {
        for client in 0..WAITERS as u32 {
            let query = query(&format!("n{}.example.", client / 16), client as u16);
            world.miss(client, &query);
        }
    };
    let mut victim = Default::default();
    with_world(UNBOUND, |world| {
        fill(world);
        world.miss(9_000, &query("new.example.", 1));
        victim = world.last_reply().queries()[0].name().to_utf8();
    });
    with_world(UNBOUND, |world| {
        fill(world);
        world.miss(9_000, &query(&victim, 1));
        assert_eq!(world.effects.replies.len(), 16);
        let ended = world.last_reply().queries()[0].name().to_utf8();
        assert_ne!(ended, victim);
    });
}

/// Questions that are only refreshed have no waiting clients: to end them frees no place for a client.
#[test]
fn room_for_a_client_is_made_by_a_question_that_somebody_waits_for() {
    with_world(UNBOUND, |world| {
        // One client has the most questions, all of them refreshes.
        for number in 0..100 {
            world.miss(1, &query(&format!("old{number}.example."), number));
            world.respond(answer_a(10));
        }
        world.pass(9_500);
        for number in 0..100 {
            let reply = world.ask(1, &query(&format!("old{number}.example."), number));
            assert_ne!(reply.0, Outcome::Pending);
        }
        assert_eq!(world.engine.in_flight(), 100);
        let replies = world.effects.replies.len();
        for client in 0..WAITERS as u32 {
            let query = query(&format!("n{}.example.", client / 16), client as u16);
            world.miss(100 + client, &query);
        }
        world.miss(9_000, &query("new.example.", 1));
        assert_eq!(world.get(Counter::WaitersFull), 1);
        assert_eq!(world.effects.replies.len(), replies + 16);
    });
}

#[test]
fn a_datagram_that_comes_again_takes_no_second_place() {
    with_world(UNBOUND, |world| {
        for client in 0..WAITERS as u32 {
            world.miss(client, &query(&format!("n{}.example.", client / 16), 7));
        }
        // All places are taken, one of them by this client.
        world.miss(5, &query("n0.example.", 7));
        assert_eq!(world.get(Counter::WaitersFull), 0);
        assert!(world.effects.replies.is_empty());
    });
}
