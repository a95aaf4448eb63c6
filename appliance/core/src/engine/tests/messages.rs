//! Malformed and unusual queries, and the replies to them.

use super::harness::*;

#[test]
fn messages_that_are_no_queries() {
    with_world(Settings::DEFAULT, |world| {
        let good = query("a.example.", 0x1234).to_vec().unwrap();
        let mut notify = good.clone();
        notify[2] |= 4 << 3;
        let (outcome, bytes) = world.ask_bytes(1, &notify);
        assert_eq!(outcome, Outcome::Reply(good.len()));
        let header = Header::parse(&bytes).unwrap();
        assert_eq!(
            (header.id, header.rcode(), header.opcode(), header.counts),
            (0x1234, 4, 4, [1, 0, 0, 0])
        );
        let mut chaos = good.clone();
        let end = chaos.len();
        chaos[end - 1] = 3;
        let (_, bytes) = world.ask_bytes(1, &chaos);
        assert_eq!(Header::parse(&bytes).unwrap().rcode(), 5);
        let mut response = good.clone();
        response[2] |= 0x80;
        assert_eq!(world.ask_bytes(1, &response).0, Outcome::Silence);
        for len in 0..good.len() {
            let (outcome, _) = world.ask_bytes(1, &good[..len]);
            assert_eq!(outcome == Outcome::Silence, len < 12, "cut at {len}");
        }
        let mut version = with_edns(query("a.example.", 5), false);
        version.extensions_mut().as_mut().unwrap().set_version(1);
        let (_, bytes) = world.ask(1, &version);
        let reply = Message::from_vec(&bytes).unwrap();
        assert_eq!(u16::from(reply.response_code()), 16, "BADVERS");
        assert!(world.effects.asked.is_empty());
    });
}

/// Header of the reply to these bytes.
fn header_of(world: &mut World<'_>, bytes: &[u8]) -> Header {
    Header::parse(&world.hit_bytes(bytes)).unwrap()
}

#[test]
fn counts_that_are_not_those_of_a_query() {
    with_world(Settings::DEFAULT, |world| {
        let good = query("a.example.", 1).to_vec().unwrap();
        // QDCOUNT 0 and 2, ANCOUNT and NSCOUNT 1, records that are not there.
        for (at, count) in [(5, 0), (5, 2), (7, 1), (9, 1), (11, 1), (11, 200)] {
            let mut bytes = good.clone();
            bytes[at] = count;
            assert_eq!(header_of(world, &bytes).rcode(), 1, "{count} at {at}");
        }
        let empty = [0, 7, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let header = header_of(world, &empty);
        assert_eq!((header.id, header.rcode(), header.counts), (7, 1, [0; 4]));
        assert!(world.effects.asked.is_empty());
    });
}

#[test]
fn every_opcode_but_query_is_not_implemented() {
    with_world(Settings::DEFAULT, |world| {
        let good = query("a.example.", 1).to_vec().unwrap();
        for opcode in 1..16 {
            let mut bytes = good.clone();
            bytes[2] |= opcode << 3;
            let header = header_of(world, &bytes);
            assert_eq!((header.rcode(), header.opcode()), (4, opcode));
        }
    });
}

#[test]
fn names_that_are_none() {
    with_world(Settings::DEFAULT, |world| {
        let question =
            |name: &[u8]| [&[0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0], name, &[0, 1, 0, 1]].concat();
        let too_long =
            [&b"\x3fabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijk"[..]; 4]
                .concat();
        for name in [
            &b"\xc0\x0c"[..],
            b"\x01a\xc0\x0c",
            b"\x01a\xc0\x00",
            b"\x40a\0",
            b"\x80a\0",
            b"\x3fa\0",
            &[&too_long[..], b"\0"].concat(),
        ] {
            assert_eq!(header_of(world, &question(name)).rcode(), 1, "{name:?}");
        }
        // The longest name, odd bytes, a label of 63: well-formed.
        let longest = [&too_long[..192], b"\x3d", &[b'x'; 61], b"\0"].concat();
        for name in [&longest[..], b"\x04\0.\xff\\\x01*\0", b"\0"] {
            let (outcome, _) = world.ask_bytes(1, &question(name));
            assert_eq!(outcome, Outcome::Pending, "{name:?}");
            let asked = &world.effects.asked.last().unwrap().message[12..];
            assert!(asked[..name.len()].eq_ignore_ascii_case(name));
        }
    });
}

#[test]
fn types_that_nobody_can_ask_a_forwarder_for() {
    with_world(Settings::DEFAULT, |world| {
        // Reserved, OPT, TKEY and TSIG: malformed. Transfers and the old mailbox types: refused.
        for (qtype, rcode) in [
            (0, 1),
            (41, 1),
            (249, 1),
            (250, 1),
            (251, 5),
            (252, 5),
            (253, 5),
            (254, 5),
        ] {
            let mut bytes = query("a.example.", 1).to_vec().unwrap();
            let at = bytes.len() - 3;
            bytes[at] = qtype;
            assert_eq!(header_of(world, &bytes).rcode(), rcode, "type {qtype}");
        }
        assert!(world.effects.asked.is_empty());
    });
}

#[test]
fn classes_but_the_internets_are_refused() {
    with_world(Settings::DEFAULT, |world| {
        for class in [0, 3, 4, 254, 255] {
            let mut bytes = query("a.example.", 1).to_vec().unwrap();
            *bytes.last_mut().unwrap() = class;
            assert_eq!(header_of(world, &bytes).rcode(), 5, "class {class}");
        }
    });
}

#[test]
fn chaos_says_who_we_are_only_if_the_config_does() {
    let settings = Settings {
        version: Some("xdnsd 1"),
        identity: Some("router"),
        ..Settings::DEFAULT
    };
    let chaos = |text: &str| {
        let mut bytes = query_type(text, RecordType::TXT, 1).to_vec().unwrap();
        *bytes.last_mut().unwrap() = 3;
        bytes
    };
    with_world(settings, |world| {
        for (text, said) in [
            ("VERSION.bind.", "xdnsd 1"),
            ("version.server.", "xdnsd 1"),
            ("id.server.", "router"),
            ("hostname.bind.", "router"),
        ] {
            let reply = Message::from_vec(&world.hit_bytes(&chaos(text))).unwrap();
            let record = &reply.answers()[0];
            assert_eq!(u16::from(record.dns_class()), 3);
            assert_eq!(
                (format!("{}", record.data()), record.ttl()),
                (said.into(), 0)
            );
        }
        assert_eq!(header_of(world, &chaos("authors.bind.")).rcode(), 5);
    });
    with_world(Settings::DEFAULT, |world| {
        assert_eq!(header_of(world, &chaos("version.bind.")).rcode(), 5);
    });
}

#[test]
fn any_is_answered_with_hinfo() {
    with_world(Settings::DEFAULT, |world| {
        let reply = world.hit_bytes(
            &query_type("a.example.", RecordType::ANY, 1)
                .to_vec()
                .unwrap(),
        );
        let header = Header::parse(&reply).unwrap();
        assert_eq!((header.rcode(), header.counts), (0, [1, 1, 0, 0]));
        assert!(reply.ends_with(b"\x07RFC8482\0"));
        assert!(world.effects.asked.is_empty());
    });
}

#[test]
fn flags_are_repeated_as_they_should_be() {
    with_world(Settings::DEFAULT, |world| {
        world.miss(1, &query("a.example.", 1));
        world.respond(answer_a(60));
        let good = query("a.example.", 1).to_vec().unwrap();
        // RD is copied, Z is not; AA, RA, AD and the RCODE of a query are ignored.
        for (bits, expected) in [
            ([0x01, 0x00], 0x8180),
            ([0x00, 0x00], 0x8080),
            ([0x01, 0x40], 0x8180),
            ([0x01, 0x20], 0x8180),
            ([0x05, 0x8b], 0x8180),
        ] {
            let mut bytes = good.clone();
            bytes[2..4].copy_from_slice(&bits);
            assert_eq!(header_of(world, &bytes).flags, expected, "{bits:x?}");
        }
        // Upstream is asked with RD.
        world.miss(1, &query("b.example.", 2));
        assert!(world.last_question().recursion_desired());
        world.respond(answer_a(60));
        assert!(world.last_reply().recursion_desired());
    });
}

#[test]
fn trailing_bytes_are_not_read() {
    with_world(Settings::DEFAULT, |world| {
        world.miss(1, &query("a.example.", 1));
        world.respond(answer_a(60));
        let mut bytes = query("a.example.", 1).to_vec().unwrap();
        let clean = world.hit_bytes(&bytes);
        bytes.extend(*b"\0\0\x29\x04\xd0\0\0\x80\0\0\0");
        assert_eq!(world.hit_bytes(&bytes), clean);
    });
}

#[test]
fn a_datagram_that_is_repeated_gets_one_answer_and_every_query_of_a_stream_its_own() {
    with_world(Settings::DEFAULT, |world| {
        let question = query("a.example.", 7);
        for _ in 0..3 {
            world.ask(1, &question);
            world.ask_tcp(2, &question);
        }
        world.respond(answer_a(60));
        let replies = world.effects.replies.iter();
        let mut reply_paths: Vec<_> = replies.map(|(reply_path, _)| *reply_path).collect();
        reply_paths.sort_unstable();
        assert_eq!(reply_paths, [1, 2, 2, 2]);
    });
}
