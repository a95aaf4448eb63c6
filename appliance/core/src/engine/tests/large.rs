//! Answers that do not fit: the client's datagram, the upstream's, a cache slot.

use super::harness::*;
use crate::forward::question::STREAM_WAIT_MS;
use crate::forward::upstreams::FailureKind;
use crate::limits::STREAM_QUESTIONS;

#[test]
fn what_does_not_fit_is_cut_between_rrsets_and_says_so() {
    with_world(Settings::DEFAULT, |world| {
        let long = || {
            move |message: &mut Message| {
                let owner = message.queries()[0].name().clone();
                for number in 0..6 {
                    let text = format!("{number}{}", "x".repeat(150));
                    message.add_answer(Record::from_rdata(
                        owner.clone(),
                        60,
                        RData::TXT(TXT::new([text].into())),
                    ));
                }
            }
        };
        let mut txt = query("t.example.", 1);
        txt.queries_mut()[0].set_query_type(RecordType::TXT);
        world.ask(1, &txt);
        world.respond(long());
        let reply = world.last_reply();
        assert!(reply.truncated() && reply.answers().is_empty());
        let small = world.hit(&txt);
        assert!(small.truncated() && small.answers().is_empty());
        let large = world.hit(&with_edns(txt.clone(), false));
        assert!(!large.truncated() && large.answers().len() == 6);
        let (_, bytes) = world.ask_tcp(1, &txt);
        assert_eq!(Message::from_vec(&bytes).unwrap().answers().len(), 6);
    });
}

/// Enough strings to make an answer longer than any cache slot.
fn long_answer(message: &mut Message) {
    for number in 0..20 {
        let text = format!("{number}{}", "x".repeat(150));
        let owner = message.queries()[0].name().clone();
        message.add_answer(Record::from_rdata(
            owner,
            300,
            RData::TXT(TXT::new([text].into())),
        ));
    }
}

fn cut(message: &mut Message) {
    message.set_truncated(true);
}

#[test]
fn a_truncated_answer_is_fetched_in_a_stream() {
    with_world(Settings::DEFAULT, |world| {
        world.effects.stream_limit = 1;
        world.miss(1, &query("a.example.", 1));
        world.respond(cut);
        assert_eq!(world.effects.streams, [UPSTREAM_1.parse().unwrap()]);
        assert!(world.effects.replies.is_empty());
        world.respond(answer_a(60));
        assert_eq!(world.last_reply().answers().len(), 1);
        assert_eq!(world.hit(&query("a.example.", 2)).answers().len(), 1);
    });
}

#[test]
fn a_wrong_answer_over_a_stream_is_a_failed_attempt() {
    for wrong in [0, 1] {
        with_world(Settings::DEFAULT, |world| {
            world.effects.stream_limit = 1;
            world.miss(1, &query("a.example.", 1));
            world.respond(cut);
            let asked = world.effects.asked.last().unwrap().clone();
            let mut bytes = response_to(&asked.message, answer_a(60));
            // Another ID, another letter of the name.
            bytes[[1, 13][wrong]] ^= 2;
            world.receive(asked.via, asked.to, &bytes);
            assert_eq!(world.asked().last().unwrap(), UPSTREAM_2);
            world.respond(answer_a(60));
            assert_eq!(world.last_reply().answers().len(), 1);
        });
    }
}

#[test]
fn a_lost_stream_is_a_failed_attempt() {
    with_world(Settings::DEFAULT, |world| {
        world.effects.stream_limit = 2;
        world.miss(1, &query("a.example.", 1));
        world.respond(cut);
        world.lose_stream();
        assert_eq!(world.asked().last().unwrap(), UPSTREAM_2);
        world.respond(answer_a(60));
        assert_eq!(world.last_reply().answers().len(), 1);
    });
}

/// Like datagrams: the next server is asked at once, and no timeout is counted.
#[test]
fn a_stream_that_cannot_be_had_is_told_as_unreachable() {
    let told = |world: &World<'_>| {
        let failure = |server: usize| {
            let upstream = &world.engine.upstreams().as_slice()[server];
            upstream.failure().map(|(kind, _)| kind)
        };
        let counters = [Counter::UpstreamUnreachable, Counter::UpstreamTimeouts];
        (
            counters.map(|counter| world.get(counter)),
            [0, 1].map(failure),
        )
    };
    let unreachable = Some(FailureKind::Unreachable);
    with_world(Settings::DEFAULT, |world| {
        world.effects.stream_limit = 2;
        world.miss(1, &query("a.example.", 1));
        world.respond(cut);
        world.lose_stream_by(StreamLoss::Unreachable);
        assert_eq!(world.asked().last().unwrap(), UPSTREAM_2, "it refused");
        world.respond(answer_a(60));
        assert_eq!(world.last_reply().answers().len(), 1);
        assert_eq!(told(world), ([1, 0], [unreachable, None]));
    });
    with_world(Settings::DEFAULT, |world| {
        world.effects.stream_limit = 9;
        let txt = query_type("t.example.", RecordType::TXT, 1);
        assert_eq!(world.ask_tcp(1, &txt).0, Outcome::Pending);
        world.miss(2, &txt);
        // No route leads there any more.
        world.effects.no_way = [UPSTREAM_1, UPSTREAM_2]
            .map(|to| to.parse().unwrap())
            .into();
        world.respond(cut);
        assert_eq!(world.effects.replies.last().unwrap().0, 2);
        assert!(world.last_reply().truncated(), "as much as there is");
        world.pass(STREAM_WAIT_MS);
        assert_eq!(world.effects.replies.last().unwrap().0, 1);
        assert_eq!(world.last_reply().response_code(), ResponseCode::ServFail);
        assert_eq!(world.engine.in_flight(), 0);
        assert_eq!(told(world), ([2, 0], [unreachable, unreachable]));
    });
}

#[test]
fn an_answer_longer_than_a_slot_is_not_fetched_again_for_each_datagram() {
    with_world(Settings::DEFAULT, |world| {
        world.effects.stream_limit = 9;
        let txt = query_type("t.example.", RecordType::TXT, 1);
        world.miss(1, &txt);
        world.respond(cut);
        world.respond(long_answer);
        assert!(world.last_reply().truncated());
        // The mark is known: TC at once, and no question upstream.
        let asked = world.effects.asked.len();
        for id in 2..10 {
            let again = query_type("t.example.", RecordType::TXT, id);
            let reply = world.hit(&with_edns(again, false));
            assert!(reply.truncated() && reply.answers().is_empty() && reply.id() == id);
        }
        assert_eq!(world.effects.asked.len(), asked);
        // A TCP client gets the whole answer, over a stream from the start.
        assert_eq!(world.ask_tcp(3, &txt).0, Outcome::Pending);
        assert_eq!(
            (world.effects.streams.len(), world.effects.asked.len()),
            (2, asked + 1)
        );
        world.respond(long_answer);
        assert_eq!(world.last_reply().answers().len(), 20);
        // The mark ends, and it is never served as a stale answer.
        world.pass(61_000);
        world.miss(1, &txt);
        world.pass(5_000);
        assert_eq!(world.last_reply().response_code(), ResponseCode::ServFail);
    });
}

#[test]
fn without_a_free_stream_datagrams_get_tc_and_tcp_clients_wait() {
    with_world(Settings::DEFAULT, |world| {
        let txt = query_type("t.example.", RecordType::TXT, 1);
        assert_eq!(world.ask_tcp(1, &txt).0, Outcome::Pending);
        world.miss(2, &txt);
        world.miss(
            3,
            &with_edns(query_type("t.example.", RecordType::TXT, 3), false),
        );
        world.respond(|message| {
            cut(message);
            message.add_answer(Record::from_rdata(
                name("t.example."),
                60,
                RData::TXT(TXT::new(["x".into()].into())),
            ));
        });
        let reply_paths: Vec<ReplyPath> = world
            .effects
            .replies
            .iter()
            .map(|(reply_path, _)| *reply_path)
            .collect();
        assert_eq!(reply_paths, [3, 2]);
        assert!(world.last_reply().truncated());
        world.pass(200);
        world.effects.stream_limit = 1;
        world.pass(100);
        assert_eq!(world.effects.streams.len(), 1);
        world.respond(long_answer);
        assert_eq!(
            (
                world.effects.replies[2].0,
                world.last_reply().answers().len()
            ),
            (1, 20)
        );
        assert_eq!(world.engine.in_flight(), 0);
    });
}

/// The cache has a mark for such an answer: the first client gets no more than later ones.
#[test]
fn the_first_client_of_a_long_answer_gets_the_same_bytes_as_those_that_follow() {
    with_world(Settings::DEFAULT, |world| {
        let txt = with_edns(query_type("t.example.", RecordType::TXT, 1), false);
        world.miss(1, &txt);
        world.respond(|message| {
            message.add_answer(alias("t.example.", 300, "long.example."));
            for number in 0..20 {
                let text = format!("{number}{}", "x".repeat(150));
                let rdata = RData::TXT(TXT::new([text].into()));
                message.add_answer(Record::from_rdata(name("long.example."), 300, rdata));
            }
        });
        let first = world.last_bytes().to_vec();
        assert!(Message::from_vec(&first).unwrap().truncated());
        assert_eq!(world.hit_bytes(&txt.to_vec().unwrap()), first);
    });
}

/// The upstream may have cut an RRset in two (RFC 2181 section 9).
#[test]
fn what_a_truncated_answer_holds_is_not_passed_on() {
    with_world(Settings::DEFAULT, |world| {
        world.miss(1, &query("a.example.", 1));
        world.respond(|message| {
            answer_a(60)(message);
            message.set_truncated(true);
        });
        let reply = world.last_reply();
        assert!(reply.truncated() && reply.answers().is_empty());
    });
    // Over a stream it is useless.
    with_world(Settings::DEFAULT, |world| {
        world.effects.stream_limit = 1;
        world.miss(1, &query("a.example.", 1));
        world.respond(cut);
        world.respond(cut);
        assert_eq!(world.asked().last().unwrap(), UPSTREAM_2);
    });
}

/// Asks over TCP for a name of its own, whose answer is longer than a datagram.
fn ask_long(world: &mut World<'_>, client: u32, number: u16) {
    let txt = query_type(&format!("t{number}.example."), RecordType::TXT, number);
    assert_eq!(world.ask_tcp(client, &txt).0, Outcome::Pending);
    world.respond(cut);
}

#[test]
fn a_client_of_slow_long_answers_leaves_places_in_streams_to_others() {
    with_world(Settings::DEFAULT, |world| {
        world.effects.stream_limit = STREAM_QUESTIONS;
        for number in 0..STREAM_QUESTIONS as u16 {
            ask_long(world, 1, number);
        }
        let greedy = STREAM_QUESTIONS / 2 + 1;
        assert_eq!(world.effects.streams.len(), greedy);
        for client in 2..6 {
            ask_long(world, client, 100 + client as u16);
        }
        assert_eq!(world.effects.streams.len(), greedy + 4);
    });
}

#[test]
fn a_place_in_a_stream_is_given_back_when_nobody_waits_any_more() {
    with_world(Settings::DEFAULT, |world| {
        world.effects.stream_limit = 1;
        ask_long(world, 1, 1);
        assert!(world.effects.left_streams.is_empty());
        // The next server is asked as well, and answers.
        world.pass(1_500);
        world.respond(answer_a(60));
        assert_eq!(world.effects.left_streams, [1]);
    });
}
