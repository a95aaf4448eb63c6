//! Two engines with one cache: what one of them asks, the other waits for.

use super::harness::*;
use crate::forward::question::ELSEWHERE_MS;
use std::boxed::Box;

/// Two engines beside each other, numbers 0 and 1, each with its effects and its clock.
struct Pair<'a> {
    first: World<'a>,
    second: World<'a>,
}

impl Pair<'_> {
    /// Lets time pass for both.
    fn pass(&mut self, millis: u64) {
        self.first.pass(millis);
        self.second.pass(millis);
    }

    /// Has the second look again, if the first has woken it. Returns true if it has.
    fn wake(&mut self) -> bool {
        let woken = std::mem::take(&mut self.first.effects.woken);
        let is_woken = woken.iter().any(|engines| engines.has(1));
        if is_woken {
            let World {
                now,
                policy,
                views,
                engine,
                effects,
                ..
            } = &mut self.second;
            let context = World::context(*now, policy, views);
            engine.look_again(&mut context.call(effects));
        }
        is_woken
    }

    /// Numbers of questions that both have sent.
    fn asked(&self) -> (usize, usize) {
        let asked = |world: &World<'_>| world.effects.asked.len();
        (asked(&self.first), asked(&self.second))
    }
}

fn with_pair(settings: Settings, scenario: impl FnOnce(&mut Pair<'_>) + Send) {
    crate::testing::on_large_stack(|| {
        let (cache, in_flight) = (TestCache::new(), Box::new(InFlight::new()));
        let counters = [Counters::new(), Counters::new()];
        let mut tables = [Box::new(Tables::new()), Box::new(Tables::new())];
        let [first, second] = &mut tables;
        let world = |tables, engine: u8| {
            let mut upstreams = Upstreams::new();
            let servers = [server(UPSTREAM_1, 0), server(UPSTREAM_2, 0)];
            upstreams.configure(&servers).unwrap();
            let counters = &counters[usize::from(engine)];
            let sharing = Sharing {
                in_flight: &in_flight,
                engine,
            };
            let engine = Engine::new(tables, &cache, counters, settings)
                .with_upstreams(upstreams)
                .beside(sharing);
            World::new(engine, counters)
        };
        scenario(&mut Pair {
            first: world(&mut **first, 0),
            second: world(&mut **second, 1),
        });
    });
}

#[test]
fn a_question_that_another_engine_asks_is_not_asked_again() {
    with_pair(Settings::DEFAULT, |pair| {
        pair.first.miss(1, &query("www.example.", 1));
        pair.second.miss(2, &query("WWW.example.", 2));
        pair.second.miss(3, &query("www.EXAMPLE.", 3));
        assert_eq!(pair.asked(), (1, 0));
        pair.pass(300);
        pair.first.respond(answer_a(60));
        assert!(pair.wake());
        let replies = &pair.second.effects.replies;
        let paths: Vec<ReplyPath> = replies.iter().map(|(path, _)| *path).collect();
        assert_eq!(paths, [3, 2]);
        let reply = pair.second.last_reply();
        assert_eq!((reply.id(), reply.answers().len()), (2, 1));
        assert_eq!(reply.queries()[0].name().to_ascii(), "WWW.example.");
        assert_eq!((pair.asked(), pair.second.engine.in_flight()), ((1, 0), 0));
        let get = |counter| pair.second.get(counter);
        assert_eq!(
            (get(Counter::AskedElsewhere), get(Counter::Coalesced)),
            (1, 1)
        );
        assert_eq!(pair.second.waited().micros, 2 * 300_000);
        // The table is empty again: the next question is the second's own.
        pair.second.miss(4, &query("other.example.", 4));
        assert_eq!(pair.asked(), (1, 1));
    });
}

#[test]
fn an_answer_that_is_not_kept_is_asked_for_by_each_at_once() {
    with_pair(Settings::DEFAULT, |pair| {
        pair.first.miss(1, &query("www.example.", 1));
        pair.second.miss(2, &query("www.example.", 2));
        pair.first.respond(answer_a(0));
        assert!(pair.wake());
        assert_eq!(pair.asked(), (1, 1));
        pair.second.respond(answer_a(0));
        assert_eq!(pair.second.effects.replies.len(), 1);
        assert_eq!(pair.second.engine.in_flight(), 0);
    });
}

#[test]
fn a_failure_is_everybodys_and_one_for_lack_of_room_is_not() {
    with_pair(Settings::DEFAULT, |pair| {
        pair.first.miss(1, &query("www.example.", 1));
        pair.second.miss(2, &query("www.example.", 2));
        pair.first.respond(code(ResponseCode::Refused));
        pair.first.respond(code(ResponseCode::Refused));
        assert!(pair.wake());
        assert_eq!(pair.asked(), (2, 0));
        assert_eq!(
            pair.second.last_reply().response_code(),
            ResponseCode::Refused
        );

        pair.first.miss(1, &query("new.example.", 1));
        pair.second.miss(2, &query("new.example.", 2));
        let first = &mut pair.first;
        let context = World::context(first.now, &first.policy, &first.views);
        first
            .engine
            .end_for_room(&mut context.call(&mut first.effects), Some(0));
        assert!(pair.wake());
        assert_eq!(pair.asked(), (3, 1), "it asks for itself");
    });
}

#[test]
fn nobody_waits_for_another_engine_for_long() {
    with_pair(Settings::DEFAULT, |pair| {
        pair.first.miss(1, &query("www.example.", 1));
        pair.second.miss(2, &query("www.example.", 2));
        // The first one stands still.
        pair.second.pass(ELSEWHERE_MS - 1);
        assert_eq!(pair.asked(), (1, 0));
        pair.second.pass(1);
        assert_eq!(pair.asked(), (1, 1));
        let asked = pair.second.last_question();
        let sent = asked.queries()[0].name().to_ascii();
        assert_ne!(sent, sent.to_lowercase(), "in random letter case");
        pair.second.respond(answer_a(60));
        assert_eq!(pair.second.effects.replies.len(), 1);
        assert!(pair.second.effects.woken.is_empty(), "it was the first's");
        // What was woken in vain finds nothing to do.
        pair.first.respond(answer_a(60));
        assert!(pair.wake());
        assert_eq!(pair.second.effects.replies.len(), 1);
    });
}

#[test]
fn a_long_answer_is_told_of_over_udp_and_fetched_over_tcp() {
    let long = |message: &mut Message| {
        let text = |index: u8| TXT::new(vec![String::from_utf8(vec![b'a' + index; 200]).unwrap()]);
        for index in 0..12 {
            let owner = message.queries()[0].name().clone();
            message.add_answer(Record::from_rdata(owner, 60, RData::TXT(text(index))));
        }
    };
    with_pair(Settings::DEFAULT, |pair| {
        pair.second.effects.stream_limit = 1;
        let question = query_type("long.example.", RecordType::TXT, 7);
        pair.first.miss(1, &question);
        pair.second.miss(2, &question);
        assert_eq!(pair.second.ask_tcp(3, &question).0, Outcome::Pending);
        pair.first.respond(long);
        assert!(pair.wake());
        let (path, reply) = pair.second.effects.replies.last().unwrap();
        let header = Header::parse(reply).unwrap();
        assert_eq!((*path, header.has(flag::TC)), (2, true));
        assert_eq!(pair.asked(), (1, 1));
        assert!(pair.second.effects.asked[0].via.is_stream());
        pair.second.respond(long);
        let (path, _) = pair.second.effects.replies.last().unwrap();
        assert_eq!((*path, pair.second.last_reply().answers().len()), (3, 12));
    });
}

#[test]
fn a_stale_answer_comes_as_soon_as_without_another_engine() {
    with_pair(Settings::DEFAULT, |pair| {
        pair.first.miss(1, &query("www.example.", 1));
        pair.first.respond(answer_a(10));
        pair.pass(20_000);
        pair.first.miss(1, &query("www.example.", 1));
        pair.second.miss(2, &query("www.example.", 2));
        assert_eq!(pair.second.effects.replies.len(), 0);
        pair.pass(Settings::DEFAULT.stale_after_ms);
        assert_eq!(pair.second.effects.replies.len(), 1);
        assert_eq!(pair.second.last_reply().answers()[0].ttl(), STALE_TTL_SECS);
    });
}

#[test]
fn an_answer_that_another_engine_refreshes_is_left_to_it() {
    with_pair(Settings::DEFAULT, |pair| {
        pair.first.miss(1, &query("www.example.", 1));
        pair.first.respond(answer_a(100));
        pair.pass(95_000);
        for world in [&mut pair.first, &mut pair.second] {
            assert_eq!(world.hit(&query("www.example.", 2)).answers().len(), 1);
        }
        assert_eq!(pair.asked(), (2, 0));
        pair.first.respond(answer_a(100));
        assert!(!pair.wake(), "nobody waits for it");
    });
}

#[test]
fn views_and_types_are_questions_of_their_own() {
    with_pair(Settings::DEFAULT, |pair| {
        pair.first.miss(1, &query("www.example.", 1));
        pair.second
            .miss(2, &query_type("www.example.", RecordType::AAAA, 2));
        pair.second
            .miss(3, &with_edns(query("www.example.", 3), true));
        assert_eq!(pair.asked(), (1, 2));
    });
}
