//! EDNS between us and upstreams: malformed OPT records, and servers that do not support EDNS.

use super::harness::*;

/// OPT: root, type, size, then extended RCODE, version, flags, and RDATA.
fn opt_record(extended_rcode: u8, version: u8, rdata: &[u8]) -> Vec<u8> {
    let mut record = vec![0, 0, 41, 4, 208, extended_rcode, version, 0, 0];
    record.extend((rdata.len() as u16).to_be_bytes());
    record.extend(rdata);
    record
}

/// Answers the latest question with an address and these additional records.
fn respond_with(world: &mut World<'_>, records: &[Vec<u8>]) {
    let asked = world.effects.asked.last().unwrap().message.clone();
    let mut message = response_to(&asked, answer_a(300));
    message[11] = records.len() as u8;
    message.extend(records.concat());
    world.respond_bytes(&message);
}

fn is_edns(message: &Message) -> bool {
    message.extensions().is_some()
}

#[test]
fn an_answer_with_a_broken_opt_is_used_without_it() {
    let good = opt_record(0, 0, b"\0\x0f\0\x02\0\x0f");
    let mut elsewhere = b"\x01x".to_vec();
    elsewhere.extend(&good);
    let mut pointer = vec![0xc0, 12];
    pointer.extend(&good[1..]);
    let cases: [(&str, Vec<Vec<u8>>); 8] = [
        (
            "an option without a length",
            vec![opt_record(0, 0, b"\0\x0f\0")],
        ),
        (
            "an option over the end",
            vec![opt_record(0, 0, b"\0\x0f\0\x09\0")],
        ),
        (
            "an option over the end behind a good one",
            vec![opt_record(0, 0, b"\0\x0f\0\x02\0\x0f\0\x0a\xff\xff")],
        ),
        ("twice", vec![good.clone(), good.clone()]),
        (
            "twice, one broken",
            vec![good.clone(), opt_record(0, 0, b"\0")],
        ),
        ("owner is no root", vec![elsewhere]),
        ("owner is a pointer", vec![pointer]),
        ("another version", vec![opt_record(0, 1, b"\0\x0f\0")]),
    ];
    for (what, records) in cases {
        with_world(Settings::DEFAULT, |world| {
            world.miss(1, &with_edns(query("a.example.", 1), false));
            respond_with(world, &records);
            assert_eq!(world.effects.replies.len(), 1, "{what}");
            let reply = world.last_reply();
            assert_eq!(reply.response_code(), ResponseCode::NoError, "{what}");
            assert_eq!(reply.answers().len(), 1, "{what}");
            assert!(is_edns(&reply), "our own OPT");
            assert_eq!(extended_error(world.last_bytes()), None, "{what}");
            assert_eq!(world.get(Counter::UpstreamMalformed), 0, "{what}");
        });
    }
}

/// The OPT record ends with the message. Other records behind it would show that more may be missing.
#[test]
fn an_answer_whose_opt_is_cut_off_is_used_without_it() {
    let mut over_the_end = opt_record(0, 0, b"\0\x0f");
    over_the_end[10] += 1;
    let whole = opt_record(0, 0, b"\0\x0f\0\x02\0\x0f");
    let cut = (3..whole.len()).map(|len| whole[..len].to_vec());
    for record in cut.chain([over_the_end]) {
        with_world(Settings::DEFAULT, |world| {
            world.miss(1, &with_edns(query("a.example.", 1), false));
            respond_with(world, std::slice::from_ref(&record));
            let reply = world.last_reply();
            assert_eq!(reply.response_code(), ResponseCode::NoError, "{record:?}");
            assert_eq!(reply.answers().len(), 1, "{record:?}");
            assert_eq!(world.get(Counter::UpstreamMalformed), 0, "{record:?}");
            // Without an answer the content of its OPT is unknown.
            world.miss(2, &query("b.example.", 2));
            let asked = world.effects.asked.last().unwrap().message.clone();
            let mut message = response_to(&asked, |_| {});
            message[11] = 1;
            message.extend(&record);
            world.respond_bytes(&message);
            assert_eq!(world.get(Counter::UpstreamMalformed), 1, "{record:?}");
        });
    }
}

#[test]
fn an_opt_in_another_section_is_nothing() {
    with_world(Settings::DEFAULT, |world| {
        for (number, section) in [(1, 7), (2, 9)] {
            world.miss(1, &query(&format!("n{number}.example."), number));
            let asked = world.effects.asked.last().unwrap().message.clone();
            let mut message = response_to(&asked, answer_a(300));
            message[section] += 1;
            message.extend(opt_record(0, 0, b""));
            world.respond_bytes(&message);
            assert_eq!(world.last_reply().answers().len(), 1);
        }
    });
}

/// Such an RCODE says that there is no answer, whatever the options.
#[test]
fn badvers_in_an_opt_with_broken_options_is_asked_again_without_edns() {
    with_world(Settings::DEFAULT, |world| {
        world.miss(1, &query("a.example.", 1));
        respond_with(world, &[opt_record(1, 0, b"\0\x0f\0")]);
        assert!(world.effects.replies.is_empty());
        assert!(!is_edns(&world.last_question()));
        world.respond(answer_a(60));
        assert_eq!(world.last_reply().answers().len(), 1);
    });
}

#[test]
fn an_answer_without_opt_has_the_code_of_its_header() {
    with_world(Settings::DEFAULT, |world| {
        world.miss(1, &query("a.example.", 1));
        respond_with(world, &[]);
        assert_eq!(world.last_reply().response_code(), ResponseCode::NoError);
    });
}

#[test]
fn without_edns_in_the_config_no_question_has_it() {
    let servers = [UpstreamConfig {
        edns: false,
        ..server(UPSTREAM_1, 0)
    }];
    with_servers(Settings::DEFAULT, &servers, Strategy::Ordered, |world| {
        for number in 0..5 {
            world.miss(
                1,
                &with_edns(query(&format!("n{number}.example."), number), true),
            );
            assert!(!is_edns(&world.last_question()));
            // An OPT that was not asked for changes nothing.
            respond_with(world, &[opt_record(0, 0, b"")]);
            assert!(is_edns(&world.last_reply()));
        }
        world.miss(1, &query("silent.example.", 9));
        world.pass(4_000);
        let last = world.effects.asked.iter().rev().take(3);
        assert!(last.map(Asked::parsed).all(|question| !is_edns(&question)));
    });
}

/// Answers queries without EDNS, like a box that drops the others. Returns the time that took, in milliseconds.
fn ask_a_dropper(world: &mut World<'_>, number: u16) -> Option<u64> {
    let start = world.now;
    let replies = world.effects.replies.len();
    world.miss(1, &query(&format!("n{number}.example."), number));
    for _ in 0..100 {
        let asked: Vec<_> = world.effects.asked.drain(..).collect();
        for asked in asked.iter().filter(|asked| !is_edns(&asked.parsed())) {
            let message = response_to(&asked.message, answer_a(60));
            world.receive(asked.via, asked.to, &message);
        }
        if world.effects.replies.len() > replies {
            let answered = world.last_reply().answers().len() == 1;
            return answered.then(|| world.now.millis_since(start));
        }
        world.pass(50);
    }
    None
}

#[test]
fn a_server_that_drops_edns_is_asked_without_and_that_is_remembered() {
    for servers in [
        &[server(UPSTREAM_1, 0)][..],
        &[server(UPSTREAM_1, 0), server(UPSTREAM_2, 0)],
    ] {
        with_servers(Settings::DEFAULT, servers, Strategy::Ordered, |world| {
            for number in 0..12 {
                let took_ms = ask_a_dropper(world, number).expect("answered");
                assert!(took_ms <= 1_500, "{number}: {took_ms} ms");
            }
            for number in 12..20 {
                assert_eq!(ask_a_dropper(world, number), Some(0), "{number}");
            }
            // It is tried again after a quarter of an hour.
            world.pass(16 * 60 * 1_000);
            let before = world.effects.asked.len();
            world.miss(1, &query("later.example.", 1));
            assert!(is_edns(&world.effects.asked[before].parsed()));
        });
    }
}

#[test]
fn a_server_that_has_answered_with_edns_is_silent_for_another_reason() {
    let servers = [server(UPSTREAM_1, 0)];
    with_servers(Settings::DEFAULT, &servers, Strategy::Ordered, |world| {
        world.miss(1, &query("a.example.", 1));
        respond_with(world, &[opt_record(0, 0, b"")]);
        world.effects.asked.clear();
        for number in 0..5 {
            world.miss(1, &query(&format!("n{number}.example."), number));
            world.pass(5_000);
        }
        let questions = world.effects.asked.iter().map(Asked::parsed);
        assert!(questions.count() > 5);
        let mut questions = world.effects.asked.iter().map(Asked::parsed);
        assert!(questions.all(|question| is_edns(&question)));
    });
}

#[test]
fn a_datagram_that_was_lost_once_does_not_end_edns() {
    let servers = [server(UPSTREAM_1, 0)];
    with_servers(Settings::DEFAULT, &servers, Strategy::Ordered, |world| {
        world.miss(1, &query("a.example.", 1));
        world.pass(450);
        assert!(!is_edns(&world.last_question()), "its second try");
        world.respond(answer_a(60));
        world.miss(1, &query("b.example.", 2));
        assert!(is_edns(&world.last_question()));
    });
}

/// Its own usual time counts, not that of the other server whose time triggers the repetition.
#[test]
fn a_server_whose_answers_may_take_long_is_asked_again_with_edns() {
    let servers = [server(UPSTREAM_1, 0), server(UPSTREAM_2, 0)];
    with_servers(Settings::DEFAULT, &servers, Strategy::Race, |world| {
        // The first is the faster one as a rule, but not always; the second is steady.
        for number in 0..9 {
            let asked = world.effects.asked.len();
            world.miss(1, &query(&format!("n{number}.example."), number));
            let steps = if number == 8 {
                [(UPSTREAM_2, 300), (UPSTREAM_1, 1_200)]
            } else {
                [(UPSTREAM_1, 20), (UPSTREAM_2, 280)]
            };
            for (server, after_ms) in steps {
                world.pass(after_ms);
                let nth = (asked..asked + 2).find(|nth| world.asked()[*nth] == server);
                world.respond_to(nth.expect("both were asked"), answer_a(60));
            }
        }
        let asked = world.effects.asked.len();
        world.miss(1, &query("lost.example.", 9));
        world.pass(700);
        let again = &world.effects.asked[asked + 2..];
        assert_eq!(again.len(), 1);
        assert_eq!(again[0].to, UPSTREAM_1.parse().unwrap());
        assert!(is_edns(&again[0].parsed()));
    });
}

/// As at a router's start: clients ask before the line is up, and their questions are sent again when it is.
#[test]
fn a_line_that_comes_up_with_questions_in_flight_does_not_end_edns() {
    // Two ways to lose the questions: silently, or with an ICMP error.
    for is_told in [false, true] {
        for servers in [
            &[server(UPSTREAM_1, 0)][..],
            &[server(UPSTREAM_1, 0), server(UPSTREAM_2, 0)],
        ] {
            with_servers(Settings::DEFAULT, servers, Strategy::Ordered, |world| {
                for number in 0..8 {
                    let first = world.effects.asked.len();
                    world.miss(1, &query(&format!("n{number}.example."), number));
                    if is_told {
                        world.unreachable(first, None);
                    }
                }
                world.pass(900);
                world.effects.asked.clear();
                for number in 8..16 {
                    world.miss(1, &query(&format!("n{number}.example."), number));
                }
                world.pass(1_000);
                let asked: Vec<_> = world.effects.asked.drain(..).collect();
                assert!(!asked.is_empty());
                for asked in asked {
                    let mut message = response_to(&asked.message, answer_a(60));
                    if is_edns(&asked.parsed()) {
                        message[11] = 1;
                        message.extend(opt_record(0, 0, b""));
                    }
                    world.receive(asked.via, asked.to, &message);
                }
                for number in 16..20 {
                    world.miss(1, &query(&format!("n{number}.example."), number));
                    assert!(is_edns(&world.last_question()), "{is_told}, {number}");
                }
            });
        }
    }
}

#[test]
fn a_silent_server_is_asked_with_dnssec_where_the_client_wants_it() {
    let servers = [server(UPSTREAM_1, 0)];
    with_servers(Settings::DEFAULT, &servers, Strategy::Ordered, |world| {
        for number in 0..4 {
            world.miss(1, &query(&format!("n{number}.example."), number));
        }
        world.pass(8_000);
        world.miss(1, &query("plain.example.", 8));
        assert!(!is_edns(&world.last_question()));
        world.miss(1, &with_edns(query("signed.example.", 9), true));
        assert!(is_edns(&world.last_question()));
    });
}

/// Answers all questions without EDNS, and returns their number.
fn answer_plain(world: &mut World<'_>, to: &str) -> usize {
    let asked: Vec<_> = world.effects.asked.drain(..).collect();
    let is_plain = |asked: &&Asked| asked.to == to.parse().unwrap() && !is_edns(&asked.parsed());
    let plain = asked.iter().filter(is_plain);
    plain
        .map(|asked| {
            let message = response_to(&asked.message, answer_a(60));
            world.receive(asked.via, asked.to, &message);
        })
        .count()
}

#[test]
fn what_icmp_refused_was_not_refused_for_edns() {
    let servers = [server(UPSTREAM_1, 0), server(UPSTREAM_2, 0)];
    with_servers(Settings::DEFAULT, &servers, Strategy::Ordered, |world| {
        for number in 0..3 {
            let first = world.effects.asked.len();
            world.miss(1, &query(&format!("n{number}.example."), number));
            assert!(is_edns(&world.effects.asked[first].parsed()));
            world.unreachable(first, None);
        }
        world.pass(1_500);
        assert_eq!(answer_plain(world, UPSTREAM_1), 3);
        world.miss(1, &query("later.example.", 9));
        let asked = &world.effects.asked[0];
        assert!(asked.to == UPSTREAM_1.parse().unwrap() && is_edns(&asked.parsed()));
    });
}

#[test]
fn a_line_that_was_down_for_long_does_not_end_edns() {
    let servers = [server(UPSTREAM_1, 0)];
    with_servers(Settings::DEFAULT, &servers, Strategy::Ordered, |world| {
        world.miss(1, &query("lost.example.", 1));
        world.pass(450);
        assert_eq!(answer_plain(world, UPSTREAM_1), 1);
        world.miss(1, &query("known.example.", 2));
        respond_with(world, &[opt_record(0, 0, b"")]);
        world.pass(16 * 60 * 1_000);
        for number in 0..4 {
            world.miss(1, &query(&format!("n{number}.example."), number));
        }
        world.pass(1_500);
        assert!(answer_plain(world, UPSTREAM_1) >= 3);
        world.miss(1, &query("later.example.", 9));
        assert!(is_edns(&world.last_question()));
    });
}
