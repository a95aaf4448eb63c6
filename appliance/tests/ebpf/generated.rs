//! Generated answers and questions: the program for hot names gives the same bytes as the forwarder.

use crate::bench::monotonic_ns;
use crate::cookie::{cookie_option, with_options};
use crate::hot::{
    AD, CD, ONE, OPT, OPT_DO, RD, TTL_SECS, Tiers, address, both, key, message, record, wire_name,
    with_message,
};
use std::ops::Range;
use xdnsd_abi::hot::{BODY_MAX, HotOutcome, RECORDS_MAX};
use xdnsd_core::answer::Head;
use xdnsd_core::wire;

/// Number of questions, if the environment does not set another.
const QUESTIONS: usize = 2_000;
const QUESTIONS_VARIABLE: &str = "XDNSD_TIER0_QUESTIONS";
/// Number of questions after which all answers are withdrawn, to make room for more.
const ROOM: usize = 300;

/// Pseudo-random numbers, the same in each run (xorshift, Marsaglia 2003).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound
    }

    fn one_of<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }
}

/// Generated answers and questions: the program gives the same bytes as the forwarder, or leaves the frame unchanged. It gives
/// all answers that it could.
#[test]
fn generated_questions_get_the_forwarders_bytes() {
    let Some(mut tiers) = Tiers::new("generated_questions_get_the_forwarders_bytes") else {
        return;
    };
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let name = wire_name("www.example.com");
    tiers.keep(&key(&name, 1, RD, &OPT), ONE, &address(TTL_SECS));
    let cookies = both().map(|query| cookie_option(&tiers.cookie(&query)));
    let mut answered = 0;
    let count = std::env::var(QUESTIONS_VARIABLE).map_or(QUESTIONS, |count| {
        count
            .parse()
            .unwrap_or_else(|_| panic!("{QUESTIONS_VARIABLE}={count}"))
    });
    for turn in 0..count {
        if turn % ROOM == 0 {
            tiers.hot.forget();
            tiers.hot.sweep(monotonic_ns());
        }
        let text = random_name(&mut random, turn);
        let qtype = random.one_of(&[1, 28, 5, 15, 16, 65]);
        let flags = random.one_of(&[RD, 0, RD | AD, RD | CD, RD | AD | CD, AD]);
        let opt: &[u8] = random.one_of(&[&[][..], &OPT, &OPT_DO]);
        let (head, body) = random_answer(&mut random, qtype);
        let name = wire_name(&text);
        tiers.keep(&key(&name, qtype, flags, opt), head, &body);
        let query = random.one_of(&[0, 1]);
        let opt = match random.below(2) {
            0 if !opt.is_empty() => with_options(opt, &cookies[query]),
            _ => opt.to_vec(),
        };
        let asked = message(&mixed_case(&mut random, &text), qtype, flags, &opt);
        let tags: &[[u16; 2]] = random.one_of(&[&[][..], &[[0x8100, 0x6064]]]);
        let query = with_message(&both()[query], asked).tagged(tags);
        tiers.bench.listen_for(&query);
        tiers.age_secs = random.below(TTL_SECS as usize * 9 / 10) as u32;
        let frame = query.frame();
        let forwarded = tiers.forward(&frame);
        match tiers.ask(&frame) {
            Ok(answer) => {
                let (_, message) = wire::parse(&frame).expect("a query");
                let start = message.start + 12 + name.len() + 4;
                let is_same = match rotated_len(&head, qtype) {
                    None => answer == forwarded,
                    Some(len) => is_rotated(&answer, &forwarded, start..start + body.len(), len),
                };
                assert!(
                    is_same,
                    "turn {turn}: {text} {qtype}\n{answer:02x?}\n{forwarded:02x?}"
                );
                answered += 1;
            }
            Err(HotOutcome::Unknown) => {
                let again = rotated_len(&head, qtype).map_or(0, |len| {
                    // All but the last are stored twice.
                    (usize::from(head.answers) - 1) * len
                });
                let is_long = body.len() + again > BODY_MAX;
                let is_many = usize::from(head.answers + head.authorities) > RECORDS_MAX;
                assert!(is_long || is_many, "turn {turn}: {text} {head:?}");
            }
            Err(outcome) => panic!("turn {turn}: {outcome:?}"),
        }
    }
    assert!(answered > count / 2, "{answered} of {count}");
}

/// Bytes of each record that is rotated; `None` if none is.
fn rotated_len(head: &Head, qtype: u16) -> Option<usize> {
    match (qtype, head.answers) {
        (1, 2..) => Some(16),
        (28, 2..) => Some(28),
        _ => None,
    }
}

/// True if it is the other answer with the records in `run`, each of `len` bytes, rotated.
fn is_rotated(answer: &[u8], other: &[u8], run: Range<usize>, len: usize) -> bool {
    (0..run.len() / len).any(|by| {
        let mut rotated = answer.to_vec();
        rotated[run.clone()].rotate_left(by * len);
        rotated == other
    })
}

fn random_name(random: &mut Random, turn: usize) -> String {
    let letters = b"abcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = format!("n{turn}");
    for _ in 0..random.below(3) {
        text.push('.');
        let len = 1 + random.below(16);
        text.extend((0..len).map(|_| char::from(random.one_of(letters))));
    }
    text
}

fn mixed_case(random: &mut Random, text: &str) -> String {
    let upper = |letter: char| letter.to_ascii_uppercase();
    text.chars()
        .map(|letter| {
            if random.below(2) == 0 {
                upper(letter)
            } else {
                letter
            }
        })
        .collect()
}

fn random_answer(random: &mut Random, qtype: u16) -> (Head, Vec<u8>) {
    let head = Head {
        rcode: random.one_of(&[0, 0, 0, 3]),
        authentic_data: random.below(2) == 0,
        authoritative: random.below(4) == 0,
        ..Head::EMPTY
    };
    let count = 1 + random.below(10) * random.below(2);
    let mut body = Vec::new();
    for _ in 0..count {
        let rdata = match qtype {
            1 => vec![random.below(256) as u8; 4],
            28 => vec![random.below(256) as u8; 16],
            5 => vec![1, b'c', 0xc0, 12],
            15 => vec![0, 10, 1, b'm', 0xc0, 12],
            _ => [vec![30], vec![random.below(256) as u8; 30]].concat(),
        };
        body.extend(record(qtype, random.below(100_000) as u32, &rdata));
    }
    let answers = count as u16;
    if head.rcode == 0 {
        return (Head { answers, ..head }, body);
    }
    let head = Head {
        authorities: answers,
        ..head
    };
    (head, body)
}
