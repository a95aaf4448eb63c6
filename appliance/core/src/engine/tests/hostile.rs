//! Messages of somebody who means harm.

use super::harness::*;

#[test]
fn spoofed_answers_are_counted_and_not_taken() {
    with_world(Settings::DEFAULT, |world| {
        world.ask(1, &query("a.example.", 1));
        let to = world.effects.asked[0].to;
        // Another address, another port, another socket, another ID, another question, a query instead of a response.
        world.respond_from(0, UPSTREAM_2.parse().unwrap(), answer_a(60));
        world.respond_from(0, SocketAddr::new(to.ip(), 54), answer_a(60));
        let socket = world.effects.asked[0].socket;
        let good = response_to(&world.effects.asked[0].message, answer_a(60));
        world.receive((socket + 1) % 32, to, &good);
        let mut wrong_id = good.clone();
        wrong_id[0] ^= 1;
        world.receive(socket, to, &wrong_id);
        let mut wrong_name = good.clone();
        wrong_name[13] = b'b';
        world.receive(socket, to, &wrong_name);
        let mut a_query = good.clone();
        a_query[2] &= 0x7f;
        world.receive(socket, to, &a_query);
        assert_eq!(
            (
                world.get(Counter::UpstreamSpoofed),
                world.effects.replies.len()
            ),
            (6, 0)
        );
        // The true answer still counts.
        world.receive(socket, to, &good);
        assert_eq!(world.effects.replies.len(), 1);
    });
}

#[test]
fn any_bytes_into_the_engine_never_panic_and_never_exceed_the_limit() {
    with_world(Settings::DEFAULT, |world| {
        world.ask(1, &query("a.example.", 1));
        let question = world.effects.asked[0].message.clone();
        let (socket, to) = (world.effects.asked[0].socket, world.effects.asked[0].to);
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
            // ID and question intact, so that the digest is reached.
            let end = question.len() - 11;
            if round % 2 == 1 && bytes.len() > end {
                bytes[2] |= 0x80;
                bytes[..2].copy_from_slice(&question[..2]);
                bytes[12..end].copy_from_slice(&question[12..end]);
            }
            world.receive(socket, to, &bytes);
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
