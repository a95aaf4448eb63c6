//! Messages of an attacker.

use super::harness::*;
use crate::testing::Random;
use std::collections::HashMap;

#[test]
fn forged_answers_are_counted_by_kind_and_not_taken() {
    with_world(Settings::DEFAULT, |world| {
        world.ask(1, &query("a.example.", 1));
        world.ask(2, &query("b.example.", 2));
        let to = world.effects.asked[0].to;
        // Another address, another port: not the server that was asked.
        world.respond_from(0, UPSTREAM_2.parse().unwrap(), answer_a(60));
        world.respond_from(0, SocketAddr::new(to.ip(), 54), answer_a(60));
        let via = world.effects.asked[0].via;
        let other = world.effects.asked[1].via;
        let good = response_to(&world.effects.asked[0].message, answer_a(60));
        // To another question's port; another ID, another question, a query instead of a response, no message at all.
        world.receive(other, to, &good);
        world.receive(via, to, &good[..1]);
        let mut wrong_id = good.clone();
        wrong_id[0] ^= 1;
        world.receive(via, to, &wrong_id);
        let mut wrong_name = good.clone();
        wrong_name[13] = b'b';
        world.receive(via, to, &wrong_name);
        let mut a_query = good.clone();
        a_query[2] &= 0x7f;
        world.receive(via, to, &a_query);
        let counted = [
            Counter::UpstreamForged,
            Counter::UpstreamUnmatched,
            Counter::UpstreamLate,
        ];
        assert_eq!(counted.map(|counter| world.get(counter)), [5, 2, 0]);
        assert!(world.effects.replies.is_empty());
        // The true answer still counts.
        world.receive(via, to, &good);
        assert_eq!(world.effects.replies.len(), 1);
    });
}

#[test]
fn whoever_has_found_a_port_gets_few_guesses_at_its_id() {
    for streams in [0, 1] {
        with_world(Settings::DEFAULT, |world| {
            world.effects.stream_limit = streams;
            world.ask(1, &query("a.example.", 1));
            let (via, to) = (world.effects.asked[0].via, world.effects.asked[0].to);
            let good = response_to(&world.effects.asked[0].message, answer_a(60));
            let right = u16::from_be_bytes([good[0], good[1]]);
            let mut guesses = 0;
            for id in (0..=u16::MAX).filter(|id| *id != right) {
                if !world.effects.is_open(via) {
                    break;
                }
                let guess = [&id.to_be_bytes(), &good[2..]].concat();
                world.receive(via, to, &guess);
                guesses += 1;
            }
            assert!(guesses <= 16, "{guesses}");
            // Asked again where guesses are useless.
            assert_eq!(world.effects.asked.len(), 2);
            assert_ne!(world.effects.asked[1].via, via);
            assert_eq!(world.effects.streams.len(), streams);
            world.receive(via, to, &good);
            assert!(world.effects.replies.is_empty(), "the old port is closed");
            world.respond(answer_a(60));
            assert_eq!(world.effects.replies.len(), 1);
        });
    }
}

/// A good answer of several kinds of records.
fn rich(message: &mut Message) {
    message.add_answer(alias("a.example.", 60, "b.example."));
    message.add_answer(address("b.example.", 60, 1));
    message.add_answer(address("b.example.", 60, 2));
    message.add_name_server(soa("example.", 60, 60));
    message.add_additional(address("ns.example.", 60, 3));
}

#[test]
fn answers_cut_at_any_length_are_malformed_and_the_next_server_is_asked() {
    with_world(Settings::DEFAULT, |world| {
        world.miss(1, &query("a.example.", 1));
        let good = response_to(&world.effects.asked[0].message, rich);
        world.respond(code(ResponseCode::Refused));
        world.respond(code(ResponseCode::Refused));
        let question_end = 12 + 11 + 4;
        for len in 0..good.len() {
            world.pass(10_000);
            let (asked, replies) = (world.effects.asked.len(), world.effects.replies.len());
            world.miss(1, &query("a.example.", len as u16));
            let mut cut = good[..len].to_vec();
            let id = world.effects.asked[asked].message[..2].to_vec();
            let id_len = len.min(2);
            cut[..id_len].copy_from_slice(&id[..id_len]);
            world.respond_bytes(&cut);
            assert_eq!(world.effects.replies.len(), replies, "cut at {len}");
            // Without the question it may be anybody's: the true answer is still awaited.
            let others = usize::from(len >= question_end);
            assert_eq!(
                world.effects.asked.len(),
                asked + 1 + others,
                "cut at {len}"
            );
            world.respond(rich);
            assert_eq!(world.last_reply().answers().len(), 3);
            world.pass(60_000);
        }
    });
}

#[test]
fn counts_that_lie_and_pointers_that_go_astray() {
    with_world(PLAIN_CASE, |world| {
        let mut number = 0;
        let mut refused = |world: &mut World<'_>, change: &dyn Fn(&mut Vec<u8>)| {
            number += 1;
            world.miss(1, &query("a.example.", number));
            let asked = world.effects.asked.last().unwrap().message.clone();
            let mut bad = response_to(&asked, rich);
            change(&mut bad);
            let before = world.get(Counter::UpstreamMalformed);
            world.respond_bytes(&bad);
            assert_eq!(
                world.get(Counter::UpstreamMalformed),
                before + 1,
                "{number}"
            );
            // The other server gives a useful answer; it has expired when the next case comes.
            world.respond(answer_a(1));
            assert_eq!(world.last_reply().answers().len(), 1);
            world.pass(90_000_000);
        };
        for at in [6, 8, 10] {
            refused(world, &|bad| bad[at] = 0xff);
            refused(world, &|bad| bad[at + 1] += 1);
        }
        // The first record's owner: a pointer to itself, forwards, into the header, behind the end; an invalid label type.
        for pointer in [
            [0xc0, 27],
            [0xc0, 40],
            [0xc0, 2],
            [0xff, 0xff],
            [0x40, 1],
            [0x80, 12],
        ] {
            refused(world, &|bad| bad[27..29].copy_from_slice(&pointer));
        }
        // RDLENGTH too long, and a CNAME that is longer than its name.
        refused(world, &|bad| bad[37] = 0xff);
        refused(world, &|bad| bad[38] += 1);
    });
}

#[test]
fn options_and_records_without_end_are_survived() {
    with_world(Settings::DEFAULT, |world| {
        // A query of 64 KiB full of options, over TCP.
        let options: Vec<u8> = std::iter::repeat_n([0xfd, 0xe9, 0, 0], 16_000)
            .flatten()
            .collect();
        let bomb = with_options(&query("a.example.", 1), 0, 1232, &options);
        let client = Client {
            transport: Transport::Tcp,
            ..world.client(1)
        };
        assert_eq!(world.ask_as(&client, &bomb).0, Outcome::Pending);
        // An answer of 64 KiB full of OPT records, then one full of foreign records.
        let asked = world.effects.asked[0].message.clone();
        for record in [
            &b"\0\0\x29\x04\xd0\0\0\0\0\0\0"[..],
            b"\x01x\0\0\x01\0\x01\0\0\0\x3c\0\x04\x01\x02\x03\x04",
        ] {
            let count = 60_000 / record.len();
            let mut answer = asked[..12 + 15].to_vec();
            answer[2] |= 0x80;
            answer[10..12].copy_from_slice(&(count as u16).to_be_bytes());
            answer.extend(std::iter::repeat_n(record, count).flatten());
            assert!(world.effects.replies.len() < 2);
            world.respond_bytes(&answer);
            world.miss(1, &query("a.example.", 2));
        }
    });
}

/// A client's open query.
struct Open {
    question: Vec<u8>,
    limit: usize,
}

/// Address of a name. Each name has another one, so that a mix-up shows.
fn address_of(name: &Name) -> u8 {
    let label = name.iter().next().unwrap_or(b"");
    label
        .to_ascii_lowercase()
        .iter()
        .fold(7, |sum: u8, byte| sum.wrapping_mul(31) ^ byte)
}

/// Clients that ask at random, an upstream that answers at random, time that passes at random.
struct Chaos {
    random: Random,
    open: HashMap<ReplyPath, Open>,
    next_reply_path: ReplyPath,
    /// The upstream changes bytes of its answers.
    hostile: bool,
}

impl Chaos {
    fn step(&mut self, world: &mut World<'_>) {
        match self.random.below(8) {
            0..=3 => self.ask(world),
            4..=6 => self.answer(world),
            _ => world.pass(self.random.below(700) as u64),
        }
        let replies: Vec<_> = world.effects.replies.drain(..).collect();
        for (reply_path, bytes) in replies {
            self.check(reply_path, &bytes);
        }
        if world.effects.asked.len() > 300 {
            world.effects.asked.drain(..100);
        }
        world.effects.streams.clear();
    }

    fn ask(&mut self, world: &mut World<'_>) {
        self.next_reply_path += 1;
        let text = format!("n{}.example.", self.random.below(40));
        let mut message = query(&text, self.random.next() as u16);
        if self.random.below(2) == 0 {
            message = with_edns(message, self.random.below(2) == 0);
        }
        let mut bytes = message.to_vec().unwrap();
        let end = 12 + text.len() + 1;
        for byte in &mut bytes[12..end] {
            if self.random.below(2) == 0 {
                byte.make_ascii_uppercase();
            }
        }
        let tcp = self.random.below(4) == 0;
        let limit = match (tcp, message.extensions()) {
            (true, _) => 65_535,
            (false, Some(_)) => 1_232,
            (false, None) => 512,
        };
        let question = [&bytes[..2], &bytes[12..end + 4]].concat();
        self.open
            .insert(self.next_reply_path, Open { question, limit });
        let client = Client {
            transport: if tcp { Transport::Tcp } else { Transport::Udp },
            ..world.client(self.next_reply_path)
        };
        let (outcome, reply) = world.ask_as(&client, &bytes);
        if matches!(outcome, Outcome::Reply(_)) {
            self.check(self.next_reply_path, &reply);
        }
    }

    fn answer(&mut self, world: &mut World<'_>) {
        if world.effects.asked.is_empty() {
            return;
        }
        let nth = self.random.below(world.effects.asked.len());
        let asked = world.effects.asked[nth].clone();
        let kind = self.random.below(12);
        let mut bytes = response_to(&asked.message, |message| {
            let owner = message.queries()[0].name().clone();
            let count = if kind == 1 { 90 } else { 1 };
            match kind {
                2 => drop(message.set_response_code(ResponseCode::ServFail)),
                3 => drop(message.set_response_code(ResponseCode::FormErr)),
                4 if !asked.via.is_stream() => drop(message.set_truncated(true)),
                _ => (0..count).for_each(|_| {
                    let rdata = RData::A(A::new(192, 0, 2, address_of(&owner)));
                    message.add_answer(Record::from_rdata(owner.clone(), 5, rdata));
                }),
            }
        });
        if self.hostile {
            for _ in 0..self.random.below(4) {
                let at = self.random.below(bytes.len());
                bytes[at] = self.random.next() as u8;
            }
            bytes.truncate(bytes.len() - self.random.below(3));
        }
        world.receive(asked.via, asked.to, &bytes);
    }

    /// Checks that every reply belongs to its query: asked for once, with its ID and its question to the letter, and not
    /// too long.
    fn check(&mut self, reply_path: ReplyPath, bytes: &[u8]) {
        let open = self
            .open
            .remove(&reply_path)
            .expect("asked, and not answered before");
        assert!(
            bytes.len() <= open.limit,
            "{} of {}",
            bytes.len(),
            open.limit
        );
        let question_end = 12 + open.question.len() - 2;
        assert_eq!(bytes[..2], open.question[..2]);
        assert_eq!(bytes[12..question_end], open.question[2..]);
        let message = Message::from_vec(bytes).expect("well-formed");
        if self.hostile {
            return;
        }
        let asked = message.queries()[0].name();
        for record in message.answers() {
            assert_eq!(record.name(), asked);
            assert_eq!(
                *record.data(),
                RData::A(A::new(192, 0, 2, address_of(asked)))
            );
        }
    }
}

#[test]
fn whatever_happens_every_reply_is_its_querys_own() {
    for hostile in [false, true] {
        for (seed, strategy) in [
            (1, Strategy::Ordered),
            (2, Strategy::Fastest),
            (3, Strategy::Race),
        ] {
            let servers = [server(UPSTREAM_1, 0), server(UPSTREAM_2, 0)];
            let settings = Settings {
                random_case: seed == 2,
                ..Settings::DEFAULT
            };
            with_servers(settings, &servers, strategy, |world| {
                world.effects.stream_limit = 1;
                let mut chaos = Chaos {
                    random: Random::new(seed),
                    open: HashMap::new(),
                    next_reply_path: 0,
                    hostile,
                };
                for _ in 0..6_000 {
                    chaos.step(world);
                }
                // Every client is answered.
                world.pass(60_000);
                let replies: Vec<_> = world.effects.replies.drain(..).collect();
                for (reply_path, bytes) in replies {
                    chaos.check(reply_path, &bytes);
                }
                assert_eq!((chaos.open.len(), world.engine.in_flight()), (0, 0));
                assert!(world.effects.ports.is_empty(), "no port stays open");
                assert!(world.get(Counter::CacheHits) > 100);
            });
        }
    }
}

#[test]
fn any_bytes_into_the_engine_never_panic_and_never_exceed_the_limit() {
    with_world(Settings::DEFAULT, |world| {
        world.ask(1, &query("a.example.", 1));
        let question = world.effects.asked[0].message.clone();
        let (via, to) = (world.effects.asked[0].via, world.effects.asked[0].to);
        let good = response_to(&question, |message| {
            message.add_answer(address("a.example.", 60, 1));
            message.add_name_server(soa("example.", 5, 5));
        });
        let seeds = [
            with_edns(query("www.a.example.", 3), true)
                .to_vec()
                .unwrap(),
            good,
        ];
        let mut state = 1u64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for round in 0..60_000 {
            let mut bytes = seeds[round % 2].clone();
            for _ in 0..=random() % 4 {
                let at = random() as usize % bytes.len();
                bytes[at] = random() as u8;
            }
            bytes.truncate(bytes.len() - random() as usize % 4);
            if let (Outcome::Reply(len), reply) = world.ask_bytes(1, &bytes) {
                assert!(len <= 1232 && reply[..2] == bytes[..2] && reply[2] & 0x80 != 0);
            }
            // ID and question intact, so that it is sanitized.
            let end = question.len() - 11;
            if round % 2 == 1 && bytes.len() > end {
                bytes[2] |= 0x80;
                bytes[..2].copy_from_slice(&question[..2]);
                bytes[12..end].copy_from_slice(&question[12..end]);
            }
            world.receive(via, to, &bytes);
            for (_, reply) in world.effects.replies.drain(..) {
                assert!(reply.len() <= 1232 && Header::parse(&reply).unwrap().has(flag::QR));
            }
            if round % 64 == 0 {
                world.pass(700);
                world.effects.asked.clear();
            }
        }
    });
}
