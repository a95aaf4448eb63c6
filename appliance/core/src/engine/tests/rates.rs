//! Limits per client: what is over the limit, which of it slips, and which clients are exempt.

use super::harness::*;
use crate::policy::on_link::{Network, OnLink};
use crate::rate::RateLimits;
use xdnsd_abi::rate::Rate;

/// Five queries at once, three misses, one answer with TC for those over the limit.
const RULES: RateLimits = RateLimits {
    queries: Rate::new(5, 1),
    misses: Rate::new(3, 1),
    slips: Rate::new(1, 1),
    newcomers: 0,
    answer_size: 100,
};

fn limited(rates: RateLimits) -> Settings {
    Settings {
        cookies: Some(CookieSecrets::Made([3; 16])),
        rates,
        ..Settings::DEFAULT
    }
}

fn client(address: &str) -> Client<ReplyPath> {
    Client {
        reply_path: 1,
        address: address.parse().unwrap(),
        transport: Transport::Udp,
        device: 0,
    }
}

fn is_slip(reply: &(Outcome, Vec<u8>), asked: &Message) -> bool {
    let (Outcome::Reply(_), bytes) = reply else {
        return false;
    };
    let message = Message::from_vec(bytes).unwrap();
    message.truncated()
        && message.id() == asked.id()
        && message.queries() == asked.queries()
        && message.response_code() == ResponseCode::NoError
        && message.answers().is_empty()
}

/// Asks once, and returns the result as a letter: answered, waiting, slipped, dropped.
fn fate(world: &mut World<'_>, client: &Client<ReplyPath>, message: &Message) -> char {
    let reply = world.ask_as(client, &message.to_vec().unwrap());
    match reply.0 {
        Outcome::Pending => 'w',
        Outcome::Silence => 'd',
        Outcome::Reply(_) if is_slip(&reply, message) => 's',
        Outcome::Reply(_) => 'a',
    }
}

/// The same for `count` new names.
fn misses(world: &mut World<'_>, client: &Client<ReplyPath>, prefix: &str, count: usize) -> String {
    (0..count)
        .map(|at| {
            fate(
                world,
                client,
                &query(&format!("{prefix}{at}.example."), at as u16),
            )
        })
        .collect()
}

fn hits(world: &mut World<'_>, client: &Client<ReplyPath>, count: usize) -> String {
    (0..count)
        .map(|at| fate(world, client, &query("hot.example.", at as u16)))
        .collect()
}

/// Puts the answer into the cache, asked for by another client.
fn warm(world: &mut World<'_>) {
    let other = client("192.0.2.250");
    assert_eq!(fate(world, &other, &query("hot.example.", 1)), 'w');
    world.respond(answer_a(600));
}

#[test]
fn misses_are_limited_while_hits_are_not() {
    with_world(limited(RULES), |world| {
        warm(world);
        let one = client("203.0.113.7");
        assert_eq!(misses(world, &one, "a", 5), "wwwsd");
        // These were five queries. A moment later there is room for one.
        world.now = world.now + 200;
        assert_eq!(hits(world, &one, 2), "ad");
        let counted = |counter| world.get(counter);
        assert_eq!(counted(Counter::RateMissesSlipped), 1);
        assert_eq!(counted(Counter::RateMissesDropped), 1);
        assert_eq!(counted(Counter::RateQueriesSlipped), 0);
        assert_eq!(counted(Counter::RateQueriesDropped), 1);
        assert_eq!(
            counted(Counter::CacheMisses),
            4,
            "nobody was asked for the rest"
        );
        // Other clients are not affected.
        assert_eq!(misses(world, &client("198.51.100.7"), "b", 3), "www");
    });
}

#[test]
fn without_a_limit_of_queries_hits_are_never_limited() {
    let rules = RateLimits {
        queries: Rate::NONE,
        ..RULES
    };
    with_world(limited(rules), |world| {
        warm(world);
        let one = client("203.0.113.7");
        assert_eq!(misses(world, &one, "a", 5), "wwwsd");
        assert_eq!(hits(world, &one, 50), "a".repeat(50));
    });
}

/// An answer of three times the size counts as three queries, and is free for who has shown that the address is real.
#[test]
fn long_hits_count_as_several_queries() {
    let long = |message: &mut Message| {
        let owner = message.queries()[0].name().clone();
        let text = || TXT::new(vec![String::from_utf8(vec![b'x'; 210]).unwrap()]);
        message.add_answer(Record::from_rdata(owner, 600, RData::TXT(text())));
    };
    with_world(limited(RULES), |world| {
        warm(world);
        let question = query_type("long.example.", RecordType::TXT, 1);
        let other = client("192.0.2.251");
        assert_eq!(fate(world, &other, &question), 'w');
        world.respond(long);
        let mut ask = |address: &str, transport| {
            let client = Client {
                transport,
                ..client(address)
            };
            (0..5)
                .map(|_| fate(world, &client, &question))
                .collect::<String>()
        };
        assert_eq!(ask("203.0.113.7", Transport::Udp), "aasdd");
        assert_eq!(ask("203.0.113.9", Transport::Tcp), "aaaaa");
        assert_eq!(
            hits(world, &client("198.51.100.8"), 5),
            "aaaaa",
            "short ones"
        );
        // Two of five paid for six; a second later there is room for four.
        world.now = world.now + 1_000;
        assert_eq!(hits(world, &client("203.0.113.7"), 6), "aaaasd");
    });
}

#[test]
fn who_waits_for_what_somebody_has_asked_is_no_miss() {
    with_world(limited(RULES), |world| {
        let one = client("203.0.113.7");
        assert_eq!(misses(world, &client("198.51.100.7"), "a", 3), "www");
        assert_eq!(misses(world, &one, "b", 3), "www");
        assert_eq!(misses(world, &one, "a", 2), "ww", "the other's questions");
    });
}

#[test]
fn a_neighbour_counts_for_itself_and_others_for_their_prefix() {
    let networks = ["192.0.2.0/24", "2001:db8::/64"].map(|text| {
        let (address, len) = text.split_once('/').unwrap();
        Network::of(address.parse().unwrap(), len.parse().unwrap())
    });
    // Leaked, since the world's policy borrows them.
    let networks = Vec::leak(networks.to_vec());
    with_world(limited(RULES), |world| {
        world.policy.on_link = OnLink::view(networks);
        for (one, other, fates) in [
            ("192.0.2.7", "192.0.2.8", "www"),
            ("2001:db8::7", "2001:db8::8", "www"),
            ("fe80::7", "fe80::8", "www"),
            ("203.0.113.7", "203.0.113.8", "sdd"),
            ("2001:db8:0:101::7", "2001:db8:0:1ff::8", "sdd"),
            ("::ffff:198.51.100.7", "198.51.100.8", "sdd"),
        ] {
            let (one, other) = (client(one), client(other));
            let name = format!("{}", other.address).replace([':', '.'], "-");
            assert_eq!(misses(world, &one, &format!("a{name}"), 3), "www");
            assert_eq!(
                misses(world, &other, &format!("b{name}"), 3),
                fates,
                "{name}"
            );
        }
    });
}

#[test]
fn who_is_proven_and_this_machine_are_not_limited() {
    let own = Vec::leak(vec!["192.0.2.1".parse().unwrap()]);
    with_world(limited(RULES), |world| {
        let one = client("203.0.113.7");
        let stream = Client {
            transport: Transport::Tcp,
            ..one
        };
        assert_eq!(misses(world, &stream, "a", 20), "w".repeat(20));
        assert_eq!(misses(world, &client("127.0.0.1"), "b", 20), "w".repeat(20));
        world.policy.martian_sources = own;
        assert_eq!(misses(world, &client("192.0.2.1"), "c", 20), "w".repeat(20));
    });
}

#[test]
fn what_slips_brings_a_cookie_that_no_limit_is_applied_to() {
    with_world(limited(RULES), |world| {
        warm(world);
        let one = client("203.0.113.7");
        assert_eq!(hits(world, &one, 5), "aaaaa");
        let cookie = |server: &[u8]| {
            let len = 8 + server.len() as u8;
            let option = [&[0, 10, 0, len][..], b"clients!", server].concat();
            with_options(&query("hot.example.", 7), 0, 1232, &option)
        };
        // A foreign cookie, and none at all.
        let (outcome, _) = world.ask_as(&one, &cookie(&[1; 16]));
        let Outcome::Reply(_) = outcome else {
            panic!("{outcome:?}")
        };
        world.now = world.now + 1_000;
        assert_eq!(hits(world, &one, 5), "aaaaa");
        let (_, slipped) = world.ask_as(&one, &cookie(&[]));
        let message = Message::from_vec(&slipped).unwrap();
        assert!(message.truncated());
        let server = opt(&slipped).unwrap().cookie.unwrap().server[..16].to_vec();
        for _ in 0..20 {
            let (outcome, reply) = world.ask_as(&one, &cookie(&server));
            assert!(matches!(outcome, Outcome::Reply(_)));
            assert_eq!(Message::from_vec(&reply).unwrap().answers().len(), 1);
        }
        // From another address it is not valid.
        let other = client("198.51.100.7");
        assert_eq!(hits(world, &other, 5), "aaaaa");
        let (_, slipped) = world.ask_as(&other, &cookie(&server));
        assert!(Message::from_vec(&slipped).unwrap().truncated());
    });
}

#[test]
fn what_cannot_be_read_counts_as_a_query_and_never_slips() {
    with_world(limited(RULES), |world| {
        let one = client("203.0.113.7");
        let mut broken = query("a.example.", 7).to_vec().unwrap();
        broken.truncate(20);
        for at in 0..8 {
            let (outcome, _) = world.ask_as(&one, &broken);
            let is_answered = matches!(outcome, Outcome::Reply(_));
            assert_eq!(is_answered, at < 5, "{at}: {outcome:?}");
        }
    });
}

/// A client that is not answered at all has no account.
#[test]
fn what_other_rules_refuse_is_not_counted() {
    with_world(limited(RULES), |world| {
        let one = client("203.0.113.7");
        let mut again = query("cold.example.", 7);
        again.set_recursion_desired(false);
        assert_eq!(fate(world, &one, &again), 'a', "REFUSED, and no miss");
        assert_eq!(misses(world, &one, "a", 3), "www");
    });
}
