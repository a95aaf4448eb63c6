//! Choice of upstreams, timing of the next one, and beliefs about their capabilities.

use super::harness::*;
use super::image;
use crate::forward::tries::FORGED_MAX;
use crate::forward::upstreams::FailureKind;
use crate::limits::LINGERING;
use crate::policy::Routes;
use hickory_proto::rr::rdata::opt::EdnsOption;

#[test]
fn a_silent_upstream_costs_its_usual_time_and_the_next_one_answers() {
    with_world(Settings::DEFAULT, |world| {
        world.ask(1, &query("a.example.", 1));
        assert_eq!(world.effects.asked[0].to, UPSTREAM_1.parse().unwrap());
        world.pass(500);
        assert_eq!(world.effects.asked[1].to, UPSTREAM_2.parse().unwrap());
        assert_eq!(world.get(Counter::UpstreamTimeouts), 1);
        // A late answer of the first one is as good.
        world.respond_from(0, UPSTREAM_1.parse().unwrap(), answer_a(60));
        assert_eq!(world.last_reply().response_code(), ResponseCode::NoError);
        let servers = world.engine.upstreams().as_slice();
        let counts = |index: usize| {
            let counts = servers[index].counts();
            (counts.asked, counts.answered, counts.failed)
        };
        assert_eq!([counts(0), counts(1)], [(1, 1, 1), (1, 0, 0)]);
    });
}

/// Both have one address: the port that an answer comes to tells which of them was asked.
#[test]
fn one_address_by_two_ways_is_asked_by_each_and_the_answer_counts_for_its_own() {
    let by = |interface| {
        let mut config = server(UPSTREAM_1, 0);
        config.to.egress.interface = interface;
        config
    };
    let servers = [by(7), by(8)];
    with_servers(Settings::DEFAULT, &servers, Strategy::Ordered, |world| {
        world.ask(1, &query("a.example.", 1));
        world.pass(500);
        let asked = &world.effects.asked;
        let ways: Vec<u32> = asked.iter().map(|one| one.egress.interface).collect();
        assert_eq!(ways, [7, 8]);
        world.respond_from(1, UPSTREAM_1.parse().unwrap(), answer_a(60));
        assert_eq!(world.last_reply().response_code(), ResponseCode::NoError);
        let servers = world.engine.upstreams().as_slice();
        let answered = servers.iter().map(|server| server.counts().answered);
        assert_eq!(answered.collect::<Vec<_>>(), [0, 1]);
    });
}

#[test]
fn all_upstreams_silent_is_servfail_within_five_seconds() {
    with_world(Settings::DEFAULT, |world| {
        world.ask(1, &with_edns(query("a.example.", 1), false));
        world.pass(5_000);
        let reply = world.last_reply();
        assert_eq!(
            (reply.response_code(), world.effects.replies.len()),
            (ResponseCode::ServFail, 1)
        );
        assert_eq!(
            extended_error(&world.effects.replies[0].1),
            Some(ede::NO_REACHABLE_AUTHORITY)
        );
        let asked = world.effects.asked.len();
        assert!(
            (4..=6).contains(&asked),
            "both were tried repeatedly: {asked}"
        );
        // RFC 9520: the failure is cached for a moment.
        assert_eq!(
            world.hit(&query("a.example.", 2)).response_code(),
            ResponseCode::ServFail
        );
        world.pass(6_000);
        assert_eq!(world.ask(1, &query("a.example.", 3)).0, Outcome::Pending);
    });
}

#[test]
fn servfail_of_one_upstream_is_asked_of_the_next() {
    with_world(Settings::DEFAULT, |world| {
        world.ask(1, &query("a.example.", 1));
        world.respond(|message| {
            message.set_response_code(ResponseCode::Refused);
        });
        assert_eq!(
            (world.effects.asked.len(), world.effects.replies.len()),
            (2, 0)
        );
        world.respond(|message| {
            message.set_response_code(ResponseCode::ServFail);
        });
        assert_eq!(
            world.last_reply().response_code(),
            ResponseCode::Refused,
            "the first failure is passed on"
        );
    });
}

#[test]
fn what_an_upstream_says_of_its_failure_is_passed_on() {
    with_world(Settings::DEFAULT, |world| {
        let asked = with_edns(query("bogus.example.", 1), false);
        world.miss(1, &asked);
        for said in [Some(6), None] {
            world.respond(|message| {
                message.set_response_code(ResponseCode::ServFail);
                if let Some(said) = said {
                    let mut edns = hickory_proto::op::Edns::new();
                    edns.options_mut()
                        .insert(EdnsOption::Unknown(15, vec![0, said]));
                    message.set_edns(edns);
                }
            });
        }
        assert_eq!(extended_error(world.last_bytes()), Some(6));
        let kept = world.hit_bytes(&asked.to_vec().unwrap());
        assert_eq!((kept[3] & 0xf, extended_error(&kept)), (2, Some(6)));
    });
}

#[test]
fn an_upstream_without_edns_is_asked_without() {
    with_world(Settings::DEFAULT, |world| {
        world.ask(1, &query("a.example.", 1));
        world.respond(|message| {
            message.set_response_code(ResponseCode::FormErr);
        });
        let question = world.last_question();
        assert!(question.extensions().is_none());
        assert_eq!(world.effects.asked[1].to, world.effects.asked[0].to);
        world.respond(answer_a(60));
        assert_eq!(world.last_reply().answers().len(), 1);
    });
}

#[test]
fn the_second_server_is_asked_after_the_first_ones_usual_time() {
    with_world(Settings::DEFAULT, |world| {
        for number in 0..30 {
            world.miss(1, &query(&format!("n{number}.example."), number));
            world.pass(20);
            world.respond(answer_a(60));
        }
        let asked = world.effects.asked.len();
        world.miss(1, &query("slow.example.", 1));
        world.pass(100);
        assert_eq!(
            world.asked()[asked..],
            [UPSTREAM_1, UPSTREAM_2],
            "within 100 ms, because 20 ms are usual"
        );
    });
}

#[test]
fn a_slow_upstream_is_waited_for() {
    let servers = [server(UPSTREAM_1, 0)];
    with_servers(Settings::DEFAULT, &servers, Strategy::Ordered, |world| {
        for number in 0..5 {
            let asked = world.effects.asked.len();
            world.miss(1, &query(&format!("n{number}.example."), number));
            world.pass(3_500);
            world.respond_to(asked, answer_a(60));
            let reply = world.last_reply();
            assert_eq!((reply.id(), reply.answers().len()), (number, 1));
        }
    });
}

#[test]
fn a_server_alone_is_not_asked_again_because_it_is_slower_than_usual() {
    let servers = [server(UPSTREAM_1, 0)];
    with_servers(Settings::DEFAULT, &servers, Strategy::Ordered, |world| {
        for number in 0..30 {
            world.miss(1, &query(&format!("n{number}.example."), number));
            world.pass(2);
            world.respond(answer_a(60));
        }
        let asked = world.effects.asked.len();
        world.miss(1, &query("slow.example.", 1));
        let mut times = Vec::new();
        for elapsed in 1..=4_000 {
            world.pass(1);
            times.resize(world.effects.asked.len() - asked, elapsed);
        }
        assert_eq!(times, [1, 400, 1_200, 2_800], "twice as long each time");
    });
}

#[test]
fn servers_that_were_all_asked_take_turns() {
    with_world(Settings::DEFAULT, |world| {
        world.miss(1, &query("a.example.", 1));
        for _ in 0..40 {
            world.pass(100);
        }
        assert_eq!(
            world.asked(),
            [
                UPSTREAM_1, UPSTREAM_2, UPSTREAM_1, UPSTREAM_2, UPSTREAM_1, UPSTREAM_2
            ]
        );
    });
}

#[test]
fn a_failure_with_one_name_marks_no_upstream() {
    with_world(Settings::DEFAULT, |world| {
        for id in 0..10 {
            world.ask(1, &query("bad.example.", id));
            if world.engine.in_flight() > 0 {
                world.respond(code(ResponseCode::Refused));
                world.respond(code(ResponseCode::ServFail));
            }
            world.pass(6_000);
        }
        world.miss(1, &query("good.example.", 1));
        assert_eq!(world.asked().last().unwrap(), UPSTREAM_1);
    });
}

#[test]
fn groups_have_their_own_health() {
    let routes = keep(super::image::table(&[("corp", 1)]));
    with_world(Settings::DEFAULT, |world| {
        world.policy.routes = crate::policy::Routes::view(routes).unwrap();
        for number in 0..3 {
            world.miss(1, &query(&format!("n{number}.corp."), number));
            assert_eq!(world.asked().last().unwrap(), UPSTREAM_OTHER);
            world.pass(5_000);
        }
        assert!(world.engine.upstreams().is_unreachable(1));
        assert!(!world.engine.upstreams().is_unreachable(0));
        world.miss(1, &query("a.example.", 1));
        assert_eq!(world.asked().last().unwrap(), UPSTREAM_1);
    });
}

#[test]
fn a_dead_first_server_costs_nothing_once_it_is_known() {
    with_world(Settings::DEFAULT, |world| {
        let answer_2 = |world: &mut World<'_>| {
            let last = world
                .effects
                .asked
                .iter()
                .rposition(|asked| asked.to.is_ipv6());
            world.respond_to(last.unwrap(), answer_a(60));
        };
        for number in 0..3 {
            world.miss(1, &query(&format!("n{number}.example."), number));
            world.pass(500);
            answer_2(world);
        }
        for number in 0..200 {
            world.miss(1, &query(&format!("m{number}.example."), number));
            answer_2(world);
            assert_eq!(world.engine.in_flight(), 0, "no time has passed");
            world.pass(100);
        }
        let probes = world.asked()[6..]
            .iter()
            .filter(|to| *to == UPSTREAM_1)
            .count();
        assert!((2..=6).contains(&probes), "in 20 s: {probes}");
        // It is back: its answer to a probe shows that, although it comes late.
        let asked = world.effects.asked.len();
        world.pass(60_000);
        world.miss(1, &query("back.example.", 1));
        answer_2(world);
        world.pass(5);
        let probe = (asked..)
            .find(|&nth| world.asked()[nth] == UPSTREAM_1)
            .unwrap();
        world.respond_to(probe, answer_a(60));
        assert_eq!(world.get(Counter::UpstreamLate), 1);
        world.miss(1, &query("next.example.", 1));
        assert_eq!(world.asked().last().unwrap(), UPSTREAM_1);
    });
}

#[test]
fn the_fastest_is_asked_and_one_that_becomes_faster_is_found() {
    let servers = [server(UPSTREAM_1, 0), server(UPSTREAM_2, 0)];
    with_servers(Settings::DEFAULT, &servers, Strategy::Fastest, |world| {
        let mut millis = [30, 10];
        let mut first = [0, 0];
        for number in 0..400 {
            if number == 100 {
                millis = [2, 10];
            }
            if number == 300 {
                first = [0, 0];
            }
            let asked = world.effects.asked.len();
            world.miss(1, &query(&format!("n{number}.example."), number));
            first[usize::from(world.effects.asked[asked].to.is_ipv6())] += 1;
            let mut due: Vec<(u64, usize)> = (asked..world.effects.asked.len())
                .map(|nth| {
                    (
                        millis[usize::from(world.effects.asked[nth].to.is_ipv6())],
                        nth,
                    )
                })
                .collect();
            due.sort_unstable();
            let mut passed = 0;
            for (at, nth) in due {
                world.pass(at - passed);
                passed = at;
                world.respond_to(nth, answer_a(60));
            }
            world.pass(1_000);
            if number == 99 {
                assert!(first[1] > 95, "{first:?}");
            }
        }
        assert_eq!(first, [100, 0], "the faster one of now");
    });
}

#[test]
fn racing_asks_two_and_takes_the_first_good_answer() {
    let servers = [server(UPSTREAM_1, 0), server(UPSTREAM_2, 0)];
    with_servers(Settings::DEFAULT, &servers, Strategy::Race, |world| {
        world.miss(1, &query("a.example.", 1));
        assert_eq!(world.effects.asked.len(), 2);
        world.respond_to(0, code(ResponseCode::ServFail));
        assert!(world.effects.replies.is_empty());
        world.pass(20);
        world.respond_to(1, answer_a(60));
        assert_eq!(world.last_reply().answers().len(), 1);
        // The loser is measured as well.
        world.miss(1, &query("b.example.", 2));
        world.respond_to(2, answer_a(60));
        world.pass(30);
        world.respond_to(3, answer_a(60));
        assert_eq!(
            (
                world.get(Counter::UpstreamLate),
                world.get(Counter::UpstreamForged),
                world.get(Counter::UpstreamUnmatched)
            ),
            (1, 0, 0)
        );
        assert_eq!(world.effects.replies.len(), 2);
    });
}

#[test]
fn an_upstream_that_cannot_be_sent_to_is_passed_over_at_once() {
    with_world(Settings::DEFAULT, |world| {
        world.effects.unreachable = vec![UPSTREAM_1.parse().unwrap()];
        world.miss(1, &query("a.example.", 1));
        world.pass(2);
        assert_eq!(world.asked(), [UPSTREAM_2]);
    });
}

#[test]
fn edns_is_given_up_per_question_and_per_server_only_after_several() {
    with_world(Settings::DEFAULT, |world| {
        for number in 0..4 {
            let asked = world.effects.asked.len();
            world.miss(1, &query(&format!("n{number}.example."), number));
            let knows = number == 3;
            let tried = world.effects.asked[asked].parsed().extensions().is_some();
            assert_eq!(tried, !knows, "question {number}");
            if tried {
                world.respond(code(ResponseCode::FormErr));
            }
            world.respond(answer_a(60));
            assert_eq!(world.last_reply().answers().len(), 1);
        }
        // The fault may have been mended.
        world.pass(16 * 60 * 1_000);
        world.miss(1, &query("later.example.", 1));
        assert!(world.last_question().extensions().is_some());
    });
}

#[test]
fn edns_is_also_given_up_for_badvers_and_for_formerr_with_opt() {
    with_world(Settings::DEFAULT, |world| {
        for (number, extended, low) in [(0, 0, 1), (1, 1, 0), (2, 0, 4)] {
            world.miss(1, &query(&format!("n{number}.example."), number));
            let asked = world.effects.asked.last().unwrap().message.clone();
            let mut refusal = asked.clone();
            refusal[2] |= 0x80;
            refusal[3] |= low;
            let ttl_at = refusal.len() - 6;
            refusal[ttl_at] = extended;
            world.respond_bytes(&refusal);
            assert!(world.last_question().extensions().is_none(), "{number}");
            world.respond(answer_a(60));
            assert_eq!(world.last_reply().answers().len(), 1);
        }
    });
}

#[test]
fn a_refusal_without_the_question_counts() {
    with_world(Settings::DEFAULT, |world| {
        world.miss(1, &query("a.example.", 1));
        let asked = world.effects.asked.last().unwrap().message.clone();
        world.respond_bytes(&[asked[0], asked[1], 0x80, 5, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(world.asked(), [UPSTREAM_1, UPSTREAM_2]);
    });
}

fn random_case() -> Settings {
    Settings {
        random_case: true,
        ..Settings::DEFAULT
    }
}

#[test]
fn random_case_is_sent_checked_and_not_shown_to_the_client() {
    with_world(random_case(), |world| {
        world.miss(1, &query("a-long-name-with-letters.example.", 1));
        let asked = world.effects.asked[0].message.clone();
        assert_ne!(asked[12..40], asked[12..40].to_ascii_lowercase());
        world.respond(answer_a(60));
        assert!(world.last_bytes()[12..].starts_with(b"\x18a-long-name-with-letters"));
        assert!(
            world
                .hit(&query("a-long-name-with-letters.example.", 2))
                .answers()
                .len()
                == 1
        );
    });
}

/// The answer to `asked`, with records whose names are pointers into the question.
fn pointing_into(asked: &[u8], records: &[&[u8]]) -> Vec<u8> {
    let question_end = asked.len() - 11;
    let mut message = asked[..question_end].to_vec();
    message[2] |= 0x80;
    message[7] = records.len() as u8;
    message[11] = 0;
    message.extend(records.concat());
    message
}

/// A server compresses names against the question, so they come back in the question's letter case.
#[test]
fn names_in_an_answer_are_not_shown_in_the_random_case_of_the_question() {
    const A: &[u8] = b"\x00\x01\x00\x01\x00\x00\x01\x2c\x00\x04\xc0\x00\x02\x07";
    const CNAME: &[u8] = b"\xc0\x0c\x00\x05\x00\x01\x00\x00\x01\x2c\x00\x06\x03web\xc0\x15";
    // Names that may not be compressed are written out, but some servers compress them.
    const SRV: &[u8] =
        b"\xc0\x0c\x00\x21\x00\x01\x00\x00\x01\x2c\x00\x08\x00\x0a\x00\x05\x13\xc4\xc0\x0c";
    with_world(random_case(), |world| {
        let qname = "hostname.quite-a-long-zone.example.";
        let is_lower = |name: &Name| name.to_ascii() == name.to_lowercase().to_ascii();
        world.miss(1, &query(qname, 1));
        let asked = world.effects.asked[0].message.clone();
        assert_ne!(asked[21..40], asked[21..40].to_ascii_lowercase());
        let target = [b"\xc0".as_slice(), &[asked.len() as u8 - 11 + 12], A].concat();
        world.respond_bytes(&pointing_into(&asked, &[CNAME, &target]));
        for reply in [world.last_reply(), world.hit(&query(qname, 2))] {
            assert_eq!(shown(&reply), "web.quite-a-long-zone.example.");
            assert!(reply.answers().iter().all(|record| is_lower(record.name())));
        }
        world.miss(1, &query_type(qname, RecordType::SRV, 3));
        let asked = world.effects.asked[1].message.clone();
        world.respond_bytes(&pointing_into(&asked, &[SRV]));
        let reply = world.hit(&query_type(qname, RecordType::SRV, 4));
        let target = reply.answers()[0].data().as_srv().unwrap().target().clone();
        assert!(is_lower(&target), "{target}");
    });

    /// Target of the first record.
    fn shown(message: &Message) -> String {
        message.answers()[0].data().as_cname().unwrap().0.to_ascii()
    }
}

/// A server that makes a CNAME of a DNAME copies labels of the question.
#[test]
fn a_cname_that_a_dname_made_is_not_shown_in_the_random_case_of_the_question() {
    with_world(random_case(), |world| {
        let qname = "quite-a-long-host.old.example.";
        world.miss(1, &query(qname, 1));
        let asked = world.last_question().queries()[0].name().clone();
        let made = format!(
            "{}.New.example.",
            asked.to_ascii().split('.').next().unwrap()
        );
        assert_ne!(made, made.to_lowercase());
        world.respond(|message| {
            message.add_answer(opaque(
                "old.example.",
                70,
                rtype::DNAME,
                b"\x03New\x07example\0",
            ));
            message.add_answer(alias(qname, 70, &made));
            message.add_answer(address("quite-a-long-host.new.example.", 300, 1));
        });
        let reply = world.last_reply();
        let target = reply.answers()[1].data().as_cname().unwrap().0.to_ascii();
        assert_eq!(target, "quite-a-long-host.New.example.");
        assert_eq!(reply.answers().len(), 3);
    });
}

#[test]
fn lost_case_is_asked_again_in_a_stream_and_then_plainly() {
    lost_case(|world| world.lose_stream_by(StreamLoss::Unanswered));
    lost_case(|world| world.lose_stream_by(StreamLoss::Unreachable));
}

fn lost_case(lose_stream: impl Fn(&mut World<'_>) + Sync) {
    with_world(random_case(), |world| {
        world.effects.stream_limit = 9;
        for number in 0..4 {
            let asked = world.effects.asked.len();
            world.miss(1, &query(&format!("letters-{number}.example."), number));
            let sent = world.effects.asked[asked].message.clone();
            let has_case = sent[12..30] != sent[12..30].to_ascii_lowercase();
            assert_eq!(has_case, number < 3, "three names in a row are enough");
            let mut lower = response_to(&sent, answer_a(60));
            lower[12..30].make_ascii_lowercase();
            world.respond_bytes(&lower);
            if has_case {
                assert_eq!(world.effects.streams.len(), usize::from(number) + 1);
                // This server has no TCP either.
                lose_stream(world);
                world.respond(answer_a(60));
            }
            let reply = world.last_reply();
            assert_eq!((reply.id(), reply.answers().len()), (number, 1));
        }
    });
}

/// Other servers while questions are in flight: each question is asked anew by the new configuration, and no client waits
/// longer.
#[test]
fn other_servers_are_taken_over_and_questions_begin_anew() {
    let routes = keep(image::table(&[("corp.example", 1)]));
    with_world(Settings::DEFAULT, |world| {
        world.miss(1, &query("a.example.", 1));
        world.miss(2, &query("b.corp.example.", 2));
        assert_eq!(world.asked(), [UPSTREAM_1, UPSTREAM_1]);
        let servers = [server("192.0.2.77:53", 0), server(UPSTREAM_OTHER, 1)];
        world.policy.routes = Routes::view(routes).unwrap();
        for _ in 0..2 {
            // The second time nothing has changed.
            let context = World::context(world.now, &world.policy, &world.views);
            world
                .engine
                .take_servers(&mut context.call(&mut world.effects), &servers)
                .unwrap();
        }
        world.pass(1);
        let asked = world.asked();
        assert_eq!(asked.len(), 4, "{asked:?}");
        assert!(asked[2..].contains(&"192.0.2.77:53".into()), "{asked:?}");
        assert!(asked[2..].contains(&UPSTREAM_OTHER.into()), "{asked:?}");
        // Answers of the earlier ones are no longer believed.
        world.respond_to(0, answer_a(60));
        assert!(world.effects.replies.is_empty());
        world.respond_to(2, answer_a(60));
        world.respond_to(3, answer_a(60));
        assert_eq!(world.effects.replies.len(), 2);
        assert_eq!(world.engine.in_flight(), 0);
        let context = World::context(world.now, &world.policy, &world.views);
        let many = [servers[0]; crate::limits::UPSTREAMS + 1];
        assert!(
            world
                .engine
                .take_servers(&mut context.call(&mut world.effects), &many)
                .is_err()
        );
    });
}

/// A server that is no resolver refers to others. That is no answer: another server is asked.
#[test]
fn a_referral_is_a_failure() {
    let refer = |message: &mut Message| {
        let servers = RData::NS(hickory_proto::rr::rdata::NS(name("ns.example.")));
        message.add_name_server(Record::from_rdata(name("example."), 300, servers));
    };
    with_world(Settings::DEFAULT, |world| {
        world.miss(1, &query("a.example.", 1));
        world.respond(refer);
        assert_eq!(world.asked(), [UPSTREAM_1, UPSTREAM_2]);
        world.respond(answer_a(60));
        assert_eq!(world.last_reply().answers().len(), 1);
        world.miss(1, &query("b.example.", 2));
        world.respond(refer);
        world.respond(refer);
        assert_eq!(world.last_reply().response_code(), ResponseCode::ServFail);
        // An authoritative server says that there is nothing, and so does one that names servers of another zone.
        world.miss(1, &query("c.example.", 3));
        world.respond(|message| {
            refer(message);
            message.set_authoritative(true);
        });
        assert_eq!(world.last_reply().response_code(), ResponseCode::NoError);
        world.miss(1, &query("d.other.", 4));
        world.respond(refer);
        assert_eq!(world.last_reply().response_code(), ResponseCode::NoError);
        assert_eq!(world.engine.in_flight(), 0);
    });
}

/// FORMERR or NOTIMP of a server is about our message or itself, and of no use to the client; a refusal is.
#[test]
fn only_failure_and_refusal_reach_the_client() {
    with_world(Settings::DEFAULT, |world| {
        for (number, given, got) in [
            (1, ResponseCode::NotAuth, ResponseCode::ServFail),
            (2, ResponseCode::YXDomain, ResponseCode::ServFail),
            (3, ResponseCode::ServFail, ResponseCode::ServFail),
            (4, ResponseCode::Refused, ResponseCode::Refused),
        ] {
            let asks = with_edns(query(&format!("n{number}.example."), number), false);
            world.miss(1, &asks);
            world.respond(code(given));
            world.respond(code(given));
            for bytes in [
                world.last_bytes().to_vec(),
                world.hit_bytes(&asks.to_vec().unwrap()),
            ] {
                let reply = Message::from_vec(&bytes).unwrap();
                assert_eq!(reply.response_code(), got, "{given}");
                // The reply says so, whatever the server left out (RFC 8914 section 4.23).
                assert_eq!(extended_error(&bytes), Some(ede::NO_REACHABLE_AUTHORITY));
            }
        }
    });
}

#[test]
fn a_server_that_answers_after_the_end_is_late_and_no_forger() {
    with_world(Settings::DEFAULT, |world| {
        world.miss(1, &query("a.example.", 1));
        world.pass(Settings::DEFAULT.give_up_ms);
        assert_eq!(world.engine.in_flight(), 0);
        let (via, to) = (world.effects.asked[0].via, world.effects.asked[0].to);
        let late = response_to(&world.effects.asked[0].message, answer_a(60));
        let mut wrong_id = late.clone();
        wrong_id[0] ^= 1;
        world.receive(via, to, &wrong_id);
        world.receive(via, UPSTREAM_OTHER.parse().unwrap(), &late);
        world.receive(via, to, &late);
        let counted = |world: &World<'_>| {
            [
                Counter::UpstreamLate,
                Counter::UpstreamForged,
                Counter::UpstreamUnmatched,
                Counter::UpstreamAnswers,
            ]
            .map(|counter| world.get(counter))
        };
        assert_eq!(counted(world), [1, 1, 1, 0]);
        assert!(!world.effects.is_open(via), "closed with it");
        // No client waits for ever.
        assert!(!world.effects.ports.is_empty());
        world.pass(10_000);
        assert!(world.effects.ports.is_empty());
    });
}

#[test]
fn what_icmp_says_of_a_question_in_flight_counts_at_once() {
    with_world(Settings::DEFAULT, |world| {
        world.miss(1, &query("a.example.", 1));
        let id = world.last_question().id();
        // Forged: it quotes another message than was sent.
        world.unreachable(0, Some(id ^ 1));
        assert_eq!(world.asked(), [UPSTREAM_1]);
        world.unreachable(0, Some(id));
        assert_eq!(world.asked(), [UPSTREAM_1, UPSTREAM_2]);
        // Once for each question: its port is closed.
        world.unreachable(0, Some(id));
        assert_eq!(world.get(Counter::UpstreamUnreachable), 1);
        // Routers quote as little as eight bytes of a packet (RFC 792), which has no ID.
        world.unreachable(1, None);
        assert_eq!(world.last_reply().response_code(), ResponseCode::ServFail);
        assert!(world.effects.ports.is_empty());
    });
}

#[test]
fn a_server_that_icmp_says_is_not_there_is_left_out_after_three_questions() {
    with_world(Settings::DEFAULT, |world| {
        for number in 0..4 {
            world.miss(1, &query(&format!("n{number}.example."), number));
            if number < 3 {
                let last = world.effects.asked.len() - 1;
                assert_eq!(world.asked()[last], UPSTREAM_1);
                world.unreachable(last, None);
            }
            assert_eq!(world.asked().last().unwrap(), UPSTREAM_2);
            world.respond(answer_a(60));
        }
        assert_eq!(world.effects.replies.len(), 4);
    });
}

/// No route, or a forbidding one, is known at once, and nothing is waited for.
#[test]
fn a_server_that_no_route_leads_to_is_left_at_once_and_told_as_what_it_is() {
    with_world(Settings::DEFAULT, |world| {
        let [first, second] = [UPSTREAM_1, UPSTREAM_2].map(|server| server.parse().unwrap());
        world.effects.no_way = std::vec![first];
        world.miss(1, &query("a.example.", 1));
        assert_eq!(
            world.asked(),
            [UPSTREAM_2],
            "the next one, in the same moment"
        );
        world.respond(answer_a(60));
        assert_eq!(world.last_reply().response_code(), ResponseCode::NoError);
        world.effects.no_way.push(second);
        world.miss(1, &query("b.example.", 2));
        let reply = world.last_reply();
        assert_eq!(
            (reply.id(), reply.response_code()),
            (2, ResponseCode::ServFail)
        );
        assert_eq!(world.engine.in_flight(), 0);
        assert_eq!(world.asked(), [UPSTREAM_2]);
        assert_eq!(world.get(Counter::UpstreamUnreachable), 3);
        assert_eq!(world.get(Counter::UpstreamTimeouts), 0);
        for server in [0, 1] {
            let upstream = &world.engine.upstreams().as_slice()[server];
            let failure = upstream.failure().map(|(kind, _)| kind);
            assert_eq!(failure, Some(FailureKind::Unreachable));
        }
        world.effects.no_way.clear();
        world.pass(20_000);
        world.miss(1, &query("c.example.", 3));
        world.respond(answer_a(60));
        assert_eq!(world.last_reply().response_code(), ResponseCode::NoError);
    });
}

#[test]
fn without_a_port_to_be_had_a_question_fails_and_takes_no_time_of_others() {
    with_world(Settings::DEFAULT, |world| {
        world.effects.no_more_ports = Some((0, NoPort::Failed));
        world.miss(1, &query("a.example.", 1));
        world.pass(Settings::DEFAULT.give_up_ms);
        assert!(world.effects.asked.is_empty());
        assert_eq!(world.last_reply().response_code(), ResponseCode::ServFail);
        let tries = world.get(Counter::UpstreamSendErrors);
        assert!((1..=8).contains(&tries), "{tries}");
        world.effects.no_more_ports = None;
        world.pass(10_000);
        world.miss(1, &query("a.example.", 2));
        world.respond(answer_a(60));
        assert_eq!(world.last_reply().response_code(), ResponseCode::NoError);
    });
}

#[test]
fn a_link_local_server_is_one_only_on_its_link() {
    let config = server("[fe80::53%7]:53", 0);
    let at = |text: &str| config.is_at(text.parse().unwrap());
    assert!(at("[fe80::53%7]:53"));
    assert!(!at("[fe80::53%8]:53") && !at("[fe80::53]:53") && !at("[fe80::53%7]:54"));
    let global = server("[2001:db8::53]:53", 0);
    assert!(
        global.is_at("[2001:db8::53%7]:53".parse().unwrap()),
        "no link belongs to it"
    );
}

#[test]
fn where_ports_are_scarce_a_new_question_takes_that_of_its_clients_oldest() {
    with_world(Settings::DEFAULT, |world| {
        world.effects.no_more_ports = Some((4, NoPort::Full));
        for number in 0..5 {
            world.miss(1, &query(&format!("n{number}.example."), number));
            world.pass(1);
        }
        assert_eq!(world.effects.asked.len(), 5);
        let closed = world.effects.asked[0].via;
        assert!(!world.effects.is_open(closed), "the oldest");
        world.respond(answer_a(60));
        assert_eq!(world.last_reply().id(), 4);
        // Its question is asked again.
        world.pass(500);
        let names = world
            .effects
            .asked
            .iter()
            .map(|asked| format!("{}", asked.parsed().queries()[0].name().to_lowercase()));
        assert_eq!(names.filter(|name| name == "n0.example.").count(), 2);
        // Lingering ones make room first.
        world.pass(Settings::DEFAULT.give_up_ms);
        assert_eq!(
            (world.engine.in_flight(), world.effects.ports.len()),
            (0, 4)
        );
        world.miss(2, &query("later.example.", 11));
        world.respond(answer_a(60));
        assert_eq!(world.last_reply().id(), 11);
        world.pass(20_000);
        assert!(world.effects.ports.is_empty());
    });
}

/// Otherwise the next question with such a port would get the previous one's answer.
#[test]
fn a_port_that_is_closed_before_its_answer_came_is_left_and_any_other_is_not() {
    type Case = (&'static str, usize, fn(&mut World<'_>));
    let cases: [Case; 5] = [
        ("answered", 0, |world| {
            world.miss(1, &query("a.example.", 1));
            world.respond(answer_a(60));
        }),
        ("refused", 0, |world| {
            world.miss(1, &query("a.example.", 1));
            world.unreachable(0, None);
            world.respond(answer_a(60));
        }),
        ("waited for long enough", 0, |world| {
            world.miss(1, &query("a.example.", 1));
            world.pass(Settings::DEFAULT.give_up_ms + 5_000);
            assert!(world.effects.asked.len() > 1 && world.effects.ports.is_empty());
        }),
        ("guessed at", 1, |world| {
            world.miss(1, &query("a.example.", 1));
            let (via, to) = (world.effects.asked[0].via, world.effects.asked[0].to);
            let mut guess = response_to(&world.effects.asked[0].message, answer_a(60));
            guess[0] ^= 1;
            (0..FORGED_MAX).for_each(|_| world.receive(via, to, &guess));
            assert!(!world.effects.is_open(via));
            world.respond(answer_a(60));
        }),
        ("more of them than linger", 3, |world| {
            const COUNT: usize = LINGERING + 3;
            for number in 0..COUNT {
                world.miss(1, &query(&format!("n{number}.example."), 1));
            }
            world.pass(500);
            for second in COUNT..2 * COUNT {
                world.respond_to(second, answer_a(60));
            }
        }),
    ];
    for (what, left, scenario) in cases {
        with_world(Settings::DEFAULT, |world| {
            scenario(world);
            assert_eq!(world.effects.left.len(), left, "{what}");
        });
    }
    with_world(Settings::DEFAULT, |world| {
        world.effects.no_more_ports = Some((1, NoPort::Full));
        world.miss(1, &query("a.example.", 1));
        world.miss(1, &query("b.example.", 2));
        assert_eq!(world.effects.left, [1_024], "made room");
    });
}

#[test]
fn what_icmp_refuses_is_not_waited_for_after_its_end() {
    with_servers(
        Settings::DEFAULT,
        &[server(UPSTREAM_1, 0)],
        Strategy::Ordered,
        |world| {
            world.miss(1, &query("a.example.", 1));
            let give_up_ms = Settings::DEFAULT.give_up_ms;
            world.pass(give_up_ms);
            assert_eq!(world.engine.in_flight(), 0);
            let (asked, open) = (world.effects.asked.len(), world.effects.ports.len());
            assert!(open > 0, "they are open for late answers");
            world.unreachable(asked - 1, None);
            assert_eq!(world.effects.ports.len(), open - 1);
        },
    );
}
