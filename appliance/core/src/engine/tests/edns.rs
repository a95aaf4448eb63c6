//! EDNS (RFC 6891), extended errors (RFC 8914), cookies (RFC 7873 and 9018), keepalive (RFC 7828).

use super::harness::*;

fn cookie_settings() -> Settings {
    Settings {
        cookies: Some(CookieSecrets::Made([3; 16])),
        ..Settings::DEFAULT
    }
}

/// An option in the form of an OPT record.
fn option(code: u16, data: &[u8]) -> Vec<u8> {
    let mut option = code.to_be_bytes().to_vec();
    option.extend((data.len() as u16).to_be_bytes());
    option.extend(data);
    option
}

#[test]
fn every_reply_has_opt_if_and_only_if_the_query_had() {
    with_world(Settings::DEFAULT, |world| {
        world.miss(1, &query("a.example.", 1));
        world.miss(2, &with_edns(query("a.example.", 2), false));
        world.respond(answer_a(60));
        for (reply_path, bytes) in &world.effects.replies {
            assert_eq!(opt(bytes).is_some(), *reply_path == 2, "after a miss");
        }
        // A hit; ANY; another class; a zone transfer; each with and without.
        for qtype in [RecordType::A, RecordType::ANY, RecordType::AXFR] {
            let plain = query_type("a.example.", qtype, 3).to_vec().unwrap();
            let mut chaos = plain.clone();
            *chaos.last_mut().unwrap() = 3;
            for bytes in [plain, chaos] {
                let query = Message::from_vec(&bytes).unwrap();
                assert!(opt(&world.hit_bytes(&bytes)).is_none());
                let reply = world.hit_bytes(&with_options(&query, 0, 1232, &[]));
                let reply = opt(&reply).unwrap();
                assert_eq!((reply.udp_size, reply.version), (1232, 0));
            }
        }
    });
}

#[test]
fn dnssec_ok_is_echoed_and_unknown_options_are_not() {
    with_world(Settings::DEFAULT, |world| {
        world.miss(1, &with_edns(query("a.example.", 1), true));
        world.respond(answer_a(60));
        assert!(opt(world.last_bytes()).unwrap().dnssec_ok);
        let options = [
            option(3, b""),
            option(8, &[0, 1, 24, 0, 192, 0, 2]),
            option(65_001, b"x"),
        ];
        let bytes = with_options(&query("a.example.", 2), 0, 1232, &options.concat());
        world.ask_bytes(1, &bytes);
        world.respond(answer_a(60));
        let reply = world.hit_bytes(&bytes);
        assert_eq!(
            reply[reply.len() - 11..],
            *b"\0\0\x29\x04\xd0\0\0\0\0\0\0",
            "no option"
        );
    });
}

#[test]
fn another_version_is_badvers_with_our_version() {
    with_world(Settings::DEFAULT, |world| {
        for version in [1, 255] {
            let bytes = with_options(&query("a.example.", 1), version, 1232, &[]);
            let reply = world.hit_bytes(&bytes);
            let opt = opt(&reply).unwrap();
            assert_eq!((opt.extended_rcode, opt.version, reply[3] & 0xf), (1, 0, 0));
            assert_eq!(Header::parse(&reply).unwrap().counts, [1, 0, 0, 1]);
        }
        assert!(world.effects.asked.is_empty());
    });
}

#[test]
fn malformed_options_are_formerr() {
    with_world(Settings::DEFAULT, |world| {
        let overrun = [0, 10, 0, 9, 1, 2, 3, 4, 5, 6, 7, 8];
        let short = [0, 10, 0];
        for options in [&overrun[..], &short] {
            let bytes = with_options(&query("a.example.", 1), 0, 1232, options);
            let reply = world.hit_bytes(&bytes);
            assert_eq!(Header::parse(&reply).unwrap().rcode(), 1);
        }
        let mut two = with_options(&query("a.example.", 1), 0, 1232, &[]);
        two[11] = 2;
        two.extend(*b"\0\0\x29\x04\xd0\0\0\0\0\0\0");
        assert_eq!(world.hit_bytes(&two)[3] & 0xf, 1, "two OPT records");
        let mut named = with_options(&query("a.example.", 1), 0, 1232, &[]);
        let at = named.len() - 11;
        named.splice(at..=at, *b"\x01a\0");
        assert_eq!(world.hit_bytes(&named)[3] & 0xf, 1, "OPT not at the root");
    });
}

#[test]
fn the_size_that_the_client_gives_is_kept_to() {
    with_world(Settings::DEFAULT, |world| {
        let txt = query_type("t.example.", RecordType::TXT, 1);
        world.miss(1, &txt);
        world.respond(|message| {
            for number in 0..7 {
                let text = format!("{number}{}", "x".repeat(140));
                let rdata = RData::TXT(TXT::new([text].into()));
                message.add_answer(Record::from_rdata(name("t.example."), 60, rdata));
            }
        });
        for (size, whole) in [
            (0, false),
            (511, false),
            (1_000, false),
            (1_232, true),
            (65_535, true),
        ] {
            let reply = world.hit_bytes(&with_options(&txt, 0, size, &[]));
            let limit = usize::from(size).clamp(512, 1_232);
            assert!(reply.len() <= limit, "{size}: {}", reply.len());
            assert_eq!(
                Header::parse(&reply).unwrap().has(flag::TC),
                !whole,
                "{size}"
            );
            assert!(opt(&reply).is_some(), "OPT is in the truncated answer, too");
        }
    });
}

/// Filtered (RFC 8914 section 4.18).
const FILTERED: u16 = 17;

#[test]
fn extended_errors_say_what_happened() {
    let edns = |name: &str| with_edns(query(name, 1), false);
    with_world(Settings::DEFAULT, |world| {
        // An upstream's own extended error is passed on and cached.
        world.miss(1, &edns("filtered.example."));
        let asked = world.effects.asked.last().unwrap().message.clone();
        let mut answer = response_to(&asked, |message| {
            message.set_response_code(ResponseCode::NXDomain);
            message.add_name_server(soa("example.", 60, 60));
        });
        answer[11] = 1;
        answer.extend(*b"\0\0\x29\x04\xd0\0\0\0\0\0\x0a\0\x0f\0\x06\0\x11text");
        world.respond_bytes(&answer);
        assert_eq!(extended_error(world.last_bytes()), Some(FILTERED));
        let hit = world.hit_bytes(&edns("filtered.example.").to_vec().unwrap());
        assert_eq!(extended_error(&hit), Some(FILTERED));
        let mut hesiod = edns("a.example.").to_vec().unwrap();
        let at = hesiod.len() - 12;
        hesiod[at] = 4;
        let refused = world.hit_bytes(&hesiod);
        assert_eq!(
            (refused[3] & 0xf, extended_error(&refused)),
            (5, Some(ede::NOT_SUPPORTED))
        );
    });
}

#[test]
fn a_client_cookie_gets_a_server_cookie_that_is_valid() {
    with_world(cookie_settings(), |world| {
        let cookie =
            |data: &[u8]| with_options(&query("a.example.", 1), 0, 1232, &option(10, data));
        world.ask_bytes(9, &cookie(b"clientco"));
        world.respond(answer_a(60));
        let given = opt(world.last_bytes()).unwrap().cookie.unwrap();
        assert_eq!((&given.client, given.server_len), (b"clientco", 16));
        // It comes back unchanged while it is young, in hits and in misses.
        let full = [&given.client[..], &given.server[..16]].concat();
        let again = opt(&world.hit_bytes(&cookie(&full)))
            .unwrap()
            .cookie
            .unwrap();
        assert_eq!(again, given);
        // Invalid lengths.
        for len in [0, 1, 7, 9, 15, 41] {
            let reply = world.hit_bytes(&cookie(&vec![1; len]));
            assert_eq!(reply[3] & 0xf, 1, "{len} bytes are FORMERR");
        }
        for len in [16, 40] {
            assert_eq!(
                world.hit_bytes(&cookie(&vec![1; len]))[3] & 0xf,
                0,
                "{len} bytes"
            );
        }
    });
}

#[test]
fn large_answers_are_for_clients_with_a_cookie_where_the_config_says_so() {
    let settings = Settings {
        nocookie_udp_size: 100,
        ..cookie_settings()
    };
    with_world(settings, |world| {
        let question = query("a.example.", 1);
        let cookie = |data: &[u8]| with_options(&question, 0, 1232, &option(10, data));
        let many = |message: &mut Message| {
            for last in 0..10 {
                message.add_answer(address("a.example.", 60, last));
            }
        };
        // After a miss: TC without a cookie, BADCOOKIE with half a cookie.
        world.miss(1, &question);
        world.ask_bytes(2, &cookie(b"clientco"));
        world.ask_tcp(3, &question);
        world.respond(many);
        for (reply_path, bytes) in world.effects.replies.clone() {
            let header = Header::parse(&bytes).unwrap();
            let extended = opt(&bytes).map(|opt| opt.extended_rcode);
            let expected = match reply_path {
                1 => (0, 0, true, None),
                2 => (0, 7, false, Some(1)),
                _ => (10, 0, false, None),
            };
            let got = (
                header.counts[1],
                header.rcode(),
                header.has(flag::TC),
                extended,
            );
            assert_eq!(got, expected, "client {reply_path}");
        }
        // The same for a hit; and the whole answer once the cookie comes back.
        assert!(
            Header::parse(&world.hit_bytes(&question.to_vec().unwrap()))
                .unwrap()
                .has(flag::TC)
        );
        let bad = world.hit_bytes(&cookie(b"clientco"));
        assert_eq!((bad[3] & 0xf, opt(&bad).unwrap().extended_rcode), (7, 1));
        let given = opt(&bad).unwrap().cookie.unwrap();
        let full = [&given.client[..], &given.server[..16]].concat();
        let whole = Message::from_vec(&world.hit_bytes(&cookie(&full))).unwrap();
        assert_eq!(whole.answers().len(), 10);
        // From another address the cookie is not valid.
        let (_, stolen) = world.ask_bytes(8, &cookie(&full));
        assert_eq!(opt(&stolen).unwrap().extended_rcode, 1);
    });
}

#[test]
fn without_a_secret_cookies_are_ignored() {
    with_world(Settings::DEFAULT, |world| {
        let bytes = with_options(&query("a.example.", 1), 0, 1232, &option(10, b"clientco"));
        world.ask_bytes(1, &bytes);
        world.respond(answer_a(60));
        assert!(opt(world.last_bytes()).unwrap().cookie.is_none());
    });
}

#[test]
fn keepalive_is_for_tcp_only() {
    with_world(Settings::DEFAULT, |world| {
        let question = query("a.example.", 1);
        world.miss(1, &question);
        world.respond(answer_a(60));
        let bytes = with_options(&question, 0, 1232, &option(11, b""));
        let client = Client {
            transport: Transport::Tcp,
            ..world.client(1)
        };
        let (_, over_tcp) = world.ask_as(&client, &bytes);
        assert!(over_tcp.ends_with(&[0, 11, 0, 2, 0, 100]));
        assert!(!opt(&world.hit_bytes(&bytes)).unwrap().keepalive);
    });
}

#[test]
fn authentic_data_only_from_trusted_upstreams_and_to_those_who_understand_it() {
    for trusted in [false, true] {
        let servers = [UpstreamConfig {
            trusted,
            ..server(UPSTREAM_1, 0)
        }];
        with_servers(Settings::DEFAULT, &servers, Strategy::Ordered, |world| {
            let mut with_ad = query("a.example.", 1);
            with_ad.set_authentic_data(true);
            world.miss(1, &with_ad);
            world.miss(2, &query("a.example.", 2));
            assert_eq!(world.last_question().authentic_data(), trusted);
            let authentic = |message: &mut Message| {
                message.set_authentic_data(true);
                message.add_answer(address("a.example.", 60, 1));
            };
            world.respond(authentic);
            world.miss(3, &with_edns(query("a.example.", 3), true));
            world.respond(authentic);
            for (reply_path, bytes) in &world.effects.replies {
                let said = Header::parse(bytes).unwrap().has(flag::AD);
                assert_eq!(said, trusted && *reply_path != 2, "client {reply_path}");
            }
            let hit = world.hit(&with_ad);
            assert_eq!(
                (hit.authentic_data(), hit.checking_disabled()),
                (trusted, false)
            );
            assert!(!world.hit(&query("a.example.", 4)).authentic_data());
        });
    }
}
