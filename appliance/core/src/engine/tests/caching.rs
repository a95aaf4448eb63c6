//! Caching: which answers, for how long, and under which question.

use super::harness::*;

/// A reload while the process runs.
#[test]
fn other_settings_hold_from_the_next_answer_on_and_leave_alone_what_clients_rely_on() {
    let settings = Settings {
        version: Some("one"),
        tcp_idle_100ms: 7,
        ..Settings::DEFAULT
    };
    with_world(settings, |world| {
        let ttl_of_a_miss = |world: &mut World<'_>, name: &str| {
            world.miss(1, &query(name, 1));
            world.respond(answer_a(300));
            world.last_reply().answers()[0].ttl()
        };
        assert_eq!(ttl_of_a_miss(world, "a.example."), 300);
        let mut other = Settings::DEFAULT;
        other.ttl.max_secs = 60;
        world.engine.take_settings(&other);
        assert_eq!(ttl_of_a_miss(world, "b.example."), 60);
        assert_eq!(world.hit(&query("a.example.", 2)).answers()[0].ttl(), 300);
        let mut version = query("version.bind.", 3);
        version.queries_mut()[0]
            .set_query_type(RecordType::TXT)
            .set_query_class(hickory_proto::rr::DNSClass::CH);
        let reply = world.ask(2, &version).1;
        assert!(reply.ends_with(b"\x03one"), "{reply:02x?}");
    });
}

#[test]
fn a_miss_is_asked_upstream_and_the_next_query_is_a_hit_with_the_ttl_counted_down() {
    with_world(Settings::DEFAULT, |world| {
        let (outcome, _) = world.ask(1, &query("WwW.Example.", 77));
        assert_eq!(outcome, Outcome::Pending);
        let question = world.last_question();
        assert_eq!(
            question.queries()[0].name().to_lowercase(),
            name("www.example.")
        );
        assert!(question.recursion_desired() && question.extensions().is_some());
        world.respond(answer_a(300));
        let (reply_path, bytes) = world.effects.replies[0].clone();
        let reply = Message::from_vec(&bytes).unwrap();
        assert_eq!(
            (reply_path, reply.id(), reply.answers()[0].ttl()),
            (1, 77, 300)
        );
        assert!(
            bytes[12..].starts_with(b"\x03WwW\x07Example\0"),
            "the client's letter case"
        );
        assert!(
            reply.extensions().is_none(),
            "no OPT where the query had none"
        );
        assert!(reply.recursion_available() && !reply.authoritative());

        world.pass(100_000);
        let (_, bytes) = world.ask(2, &query("wWw.eXample.", 78));
        let reply = Message::from_vec(&bytes).unwrap();
        assert_eq!(
            (reply.id(), reply.answers().len(), reply.answers()[0].ttl()),
            (78, 1, 200)
        );
        assert!(bytes[12..].starts_with(b"\x03wWw\x07eXample\0"));
        assert_eq!(
            (world.get(Counter::CacheHits), world.effects.asked.len()),
            (1, 1)
        );
    });
}

#[test]
fn do_and_cd_are_questions_of_their_own() {
    with_world(Settings::DEFAULT, |world| {
        world.ask(1, &query("a.example.", 1));
        world.ask(1, &with_edns(query("a.example.", 2), true));
        let mut checking_disabled = query("a.example.", 3);
        checking_disabled.set_checking_disabled(true);
        world.ask(1, &checking_disabled);
        assert_eq!(world.effects.asked.len(), 3);
        assert!(world.last_question().checking_disabled());
        let question = Message::from_vec(&world.effects.asked[1].message).unwrap();
        assert!(question.extensions().as_ref().unwrap().flags().dnssec_ok);
    });
}

#[test]
fn negative_answers_are_kept_by_their_soa() {
    with_world(Settings::DEFAULT, |world| {
        world.ask(1, &query("no.example.", 1));
        world.respond(|message| {
            message.set_response_code(ResponseCode::NXDomain);
            message.add_name_server(soa("example.", 900, 120));
            message.add_name_server(soa("other.", 900, 120));
        });
        let reply = world.last_reply();
        assert_eq!(
            (reply.response_code(), reply.name_servers().len()),
            (ResponseCode::NXDomain, 1)
        );
        world.pass(119_000);
        assert_eq!(
            world.hit(&query("no.example.", 2)).name_servers()[0].ttl(),
            1
        );
        world.pass(1_000);
        assert_eq!(world.ask(1, &query("no.example.", 3)).0, Outcome::Pending);
    });
}

/// RFC 2308 section 5: the lesser of the SOA's own TTL and of its last field.
#[test]
fn an_soa_with_a_short_ttl_ends_with_it() {
    with_world(Settings::DEFAULT, |world| {
        world.miss(1, &query("no.example.", 1));
        world.respond(|message| {
            message.set_response_code(ResponseCode::NXDomain);
            message.add_name_server(soa("example.", 30, 900));
        });
        assert_eq!(world.last_reply().name_servers()[0].ttl(), 30);
        world.pass(30_000);
        world.miss(1, &query("no.example.", 2));
    });
}

#[test]
fn ttl_zero_and_negatives_without_soa_are_not_kept() {
    with_world(Settings::DEFAULT, |world| {
        world.ask(1, &query("a.example.", 1));
        world.respond(answer_a(0));
        assert_eq!(world.last_reply().answers()[0].ttl(), 0);
        assert_eq!(world.ask(1, &query("a.example.", 2)).0, Outcome::Pending);
        world.respond(|_| {});
        assert_eq!(world.ask(1, &query("a.example.", 3)).0, Outcome::Pending);
    });
}

#[test]
fn addresses_rotate_and_stay_whole() {
    with_world(Settings::DEFAULT, |world| {
        world.ask(1, &query("a.example.", 1));
        world.respond(|message| {
            for last in 1..=3 {
                message.add_answer(address("a.example.", 60, last));
            }
        });
        let mut firsts = Vec::new();
        for id in 0..3 {
            let reply = world.hit(&query("a.example.", id));
            assert_eq!(reply.answers().len(), 3);
            firsts.push(format!("{}", reply.answers()[0].data()));
        }
        firsts.sort();
        assert_eq!(firsts, ["192.0.2.1", "192.0.2.2", "192.0.2.3"]);
    });
}

#[test]
fn nodata_is_kept_per_type() {
    with_world(Settings::DEFAULT, |world| {
        world.miss(1, &query("a.example.", 1));
        world.respond(|message| {
            message.add_name_server(soa("example.", 60, 60));
        });
        let reply = world.hit(&query("a.example.", 2));
        assert_eq!(
            (
                reply.response_code(),
                reply.answers().len(),
                reply.name_servers().len()
            ),
            (ResponseCode::NoError, 0, 1)
        );
        world.miss(1, &query_type("a.example.", RecordType::AAAA, 3));
    });
}

#[test]
fn negative_ttls_are_clamped() {
    let settings = Settings {
        ttl: crate::answer::TtlBounds {
            negative_max_secs: 100,
            ..Settings::DEFAULT.ttl
        },
        ..Settings::DEFAULT
    };
    with_world(settings, |world| {
        world.miss(1, &query("no.example.", 1));
        world.respond(|message| {
            message.set_response_code(ResponseCode::NXDomain);
            message.add_name_server(soa("example.", 9_000, 9_000));
        });
        assert_eq!(world.last_reply().name_servers()[0].ttl(), 100);
        world.pass(100_000);
        world.miss(1, &query("no.example.", 2));
    });
    let settings = Settings {
        ttl: crate::answer::TtlBounds {
            min_secs: 200,
            ..settings.ttl
        },
        ..settings
    };
    with_world(settings, |world| {
        world.miss(1, &query("no.example.", 1));
        world.respond(|message| {
            message.set_response_code(ResponseCode::NXDomain);
            message.add_name_server(soa("example.", 50, 50));
        });
        assert_eq!(
            world.last_reply().name_servers()[0].ttl(),
            100,
            "no client keeps it longer than we do"
        );
    });
}

/// RFC 2308 section 2.1: the RCODE is about the name at the end of the chain.
#[test]
fn nxdomain_at_the_end_of_a_chain_is_kept_with_the_chain() {
    with_world(Settings::DEFAULT, |world| {
        world.miss(1, &query("www.example.", 1));
        world.respond(|message| {
            message.set_response_code(ResponseCode::NXDomain);
            message.add_answer(alias("www.example.", 30, "no.other."));
            message.add_name_server(soa("other.", 900, 900));
        });
        let reply = world.hit(&query("www.example.", 2));
        assert_eq!(
            (reply.response_code(), answers(&reply)),
            (
                ResponseCode::NXDomain,
                vec![String::from("www.example. CNAME no.other.")]
            )
        );
        assert_eq!(reply.name_servers()[0].name(), &name("other."));
        world.pass(30_000);
        world.miss(1, &query("www.example.", 3));
        world.miss(1, &query("no.other.", 4));
    });
}

#[test]
fn ttls_with_the_high_bit_are_zero_and_those_of_one_set_are_equal() {
    with_world(Settings::DEFAULT, |world| {
        world.miss(1, &query("a.example.", 1));
        world.respond(answer_a(0x8000_0001));
        assert_eq!(world.last_reply().answers()[0].ttl(), 0);
        world.miss(1, &query("a.example.", 2));
        world.respond(|message| {
            message.add_answer(address("a.example.", 300, 1));
            message.add_answer(address("a.example.", 100, 2));
        });
        let ttls =
            |reply: Message| -> Vec<u32> { reply.answers().iter().map(Record::ttl).collect() };
        assert_eq!(ttls(world.last_reply()), [100, 100]);
        world.pass(60_000);
        assert_eq!(ttls(world.hit(&query("a.example.", 3))), [40, 40]);
        world.pass(40_000);
        world.miss(1, &query("a.example.", 4));
    });
}

#[test]
fn ttls_are_clamped_to_the_bounds() {
    let settings = Settings {
        ttl: crate::answer::TtlBounds {
            min_secs: 60,
            max_secs: 600,
            ..Settings::DEFAULT.ttl
        },
        ..Settings::DEFAULT
    };
    with_world(settings, |world| {
        for (name, given, kept) in [("s.example.", 5, 60), ("l.example.", 100_000, 600)] {
            world.miss(1, &query(name, 1));
            world.respond(answer_a(given));
            assert_eq!(world.last_reply().answers()[0].ttl(), kept);
            // An answer is kept for as long as its TTL states.
            world.pass(u64::from(kept) * 1_000 - 1);
            assert_eq!(world.hit(&query(name, 2)).answers()[0].ttl(), 1);
            world.respond(code(ResponseCode::ServFail));
            world.pass(1);
            world.miss(1, &query(name, 3));
        }
        // TTL 0 is not cached, whatever the shortest TTL of the cache.
        world.miss(1, &query("z.example.", 4));
        world.respond(answer_a(0));
        assert_eq!(world.last_reply().answers()[0].ttl(), 0);
        world.miss(1, &query("z.example.", 5));
    });
}

#[test]
fn failures_are_kept_for_seconds_and_only_for_their_own_question() {
    with_world(Settings::DEFAULT, |world| {
        world.miss(1, &query("a.example.", 1));
        world.respond(code(ResponseCode::ServFail));
        world.respond(code(ResponseCode::ServFail));
        assert_eq!(
            world.hit(&query("a.example.", 2)).response_code(),
            ResponseCode::ServFail
        );
        world.miss(1, &query_type("a.example.", RecordType::AAAA, 3));
        world.miss(1, &query("b.example.", 4));
        world.respond(answer_a(60));
        world.pass(4_999);
        assert_eq!(
            world.hit(&query("a.example.", 5)).response_code(),
            ResponseCode::ServFail
        );
        world.pass(1);
        world.miss(1, &query("a.example.", 6));
    });
}

#[test]
fn an_answer_with_signatures_is_another_answer() {
    with_world(Settings::DEFAULT, |world| {
        let signed = |message: &mut Message| {
            message.add_answer(address("a.example.", 60, 1));
            message.add_answer(signature("a.example.", 60, rtype::A));
        };
        world.miss(1, &with_edns(query("a.example.", 1), true));
        world.respond(signed);
        assert_eq!(world.last_reply().answers().len(), 2);
        world.miss(1, &query("a.example.", 2));
        // An upstream that gives signatures unasked.
        world.respond(signed);
        assert_eq!(world.last_reply().answers().len(), 1);
        assert_eq!(world.hit(&query("a.example.", 3)).answers().len(), 1);
        let dnssec = world.hit(&with_edns(query("a.example.", 4), true));
        assert_eq!(dnssec.answers().len(), 2);
    });
}

#[test]
fn order_is_kept_where_the_config_says_so() {
    let settings = Settings {
        rotate: false,
        ..Settings::DEFAULT
    };
    with_world(settings, |world| {
        world.miss(1, &query("a.example.", 1));
        world.respond(|message| {
            for last in 1..=3 {
                message.add_answer(address("a.example.", 60, last));
            }
        });
        let first = answers(&world.hit(&query("a.example.", 2)));
        assert_eq!(first, answers(&world.hit(&query("a.example.", 3))));
    });
}

/// RFC 2308 section 5: NXDOMAIN is kept by QNAME and QCLASS.
#[test]
fn a_name_that_does_not_exist_has_no_other_types() {
    with_world(Settings::DEFAULT, |world| {
        let deny = |message: &mut Message| {
            message.set_response_code(ResponseCode::NXDomain);
            message.add_name_server(soa("example.", 900, 120));
        };
        world.miss(1, &query("no.example.", 1));
        world.respond(deny);
        world.pass(20_000);
        for qtype in [RecordType::AAAA, RecordType::MX, RecordType::HTTPS] {
            let reply = world.hit(&query_type("NO.example.", qtype, 2));
            assert_eq!(reply.response_code(), ResponseCode::NXDomain);
            assert_eq!(reply.name_servers()[0].ttl(), 100);
            assert_eq!(reply.queries()[0].query_type(), qtype);
        }
        assert_eq!(world.effects.asked.len(), 1);
        // With proofs it is a different answer; a DS belongs to another server, and so do names below.
        world.miss(
            2,
            &with_edns(query_type("no.example.", RecordType::AAAA, 3), true),
        );
        world.miss(3, &query_type("no.example.", RecordType::from(43), 4));
        world.miss(4, &query("a.no.example.", 5));
        world.pass(100_000);
        world.miss(5, &query_type("no.example.", RecordType::MX, 6));
    });
}

#[test]
fn what_shows_that_a_name_exists_ends_its_denial() {
    with_world(Settings::DEFAULT, |world| {
        let deny = |message: &mut Message| {
            message.set_response_code(ResponseCode::NXDomain);
            message.add_name_server(soa("example.", 900, 120));
        };
        // In flight at the same time: the later answer counts.
        world.miss(1, &query("a.example.", 1));
        world.miss(2, &query_type("a.example.", RecordType::AAAA, 2));
        world.respond_to(0, deny);
        world.respond_to(1, |message| {
            message.add_name_server(soa("example.", 900, 120));
        });
        world.miss(3, &query_type("a.example.", RecordType::MX, 3));
        // What an alias's target lacks says nothing about the alias.
        world.miss(4, &query("b.example.", 4));
        world.respond(|message| {
            deny(message);
            message.add_answer(alias("b.example.", 60, "c.example."));
        });
        world.miss(5, &query_type("b.example.", RecordType::CNAME, 5));
        // Nor does the parent's answer.
        let ds = query_type("e.example.", RecordType::from(43), 6);
        world.miss(6, &ds);
        world.respond(deny);
        world.miss(7, &query("e.example.", 7));
    });
}

/// Some servers deny a name because it lacks an AAAA (RFC 4074 section 4.2).
#[test]
fn what_is_known_of_a_type_counts_more_than_what_is_known_of_the_name() {
    with_world(Settings::DEFAULT, |world| {
        world.miss(6, &query("d.example.", 6));
        world.respond(answer_a(30));
        world.miss(7, &query_type("d.example.", RecordType::AAAA, 7));
        world.respond(|message| {
            message.set_response_code(ResponseCode::NXDomain);
            message.add_name_server(soa("example.", 900, 120));
        });
        assert_eq!(world.hit(&query("d.example.", 8)).answers().len(), 1);
        // Also past its TTL.
        world.pass(31_000);
        world.miss(8, &query("d.example.", 9));
    });
}

/// An earlier policy is no reason to forward the question.
#[test]
fn a_denial_from_under_another_policy_is_not_used() {
    with_world(Settings::DEFAULT, |world| {
        world.miss(1, &query("no.example.", 1));
        world.respond(|message| {
            message.set_response_code(ResponseCode::NXDomain);
            message.add_name_server(soa("example.", 900, 120));
        });
        world.policy.generation += 1;
        world.miss(2, &query_type("no.example.", RecordType::MX, 2));
    });
}
