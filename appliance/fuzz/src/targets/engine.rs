//! The engine over time: clients that ask, servers that answer or do not, time that passes, all as the input says.

use std::collections::HashMap;

use hickory_proto::op::Message;
use hickory_proto::rr::RData;
use xdnsd_core::dns::rtype;
use xdnsd_core::engine::{Outcome, Settings, Transport};
use xdnsd_core::policy::{Dns64, Policy, TranslationPrefix};

use super::Choices;
use super::line::{Asked, Line, with_engine};

/// Names that are asked for.
const NAMES: u8 = 40;
/// Bytes of an OPT record without options.
const OPT: [u8; 11] = [0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0];
/// Policy with DNS64.
const TRANSLATING: Policy<'static> = Policy {
    dns64: Dns64 {
        prefix: Some(TranslationPrefix::WELL_KNOWN),
        ..Dns64::OFF
    },
    ..Policy::OPEN
};
/// Questions that are remembered to be answered later.
const ASKED_MAX: usize = 200;

/// What a client asked and waits for.
struct Open {
    /// ID and question, to the letter.
    question: Vec<u8>,
    limit: usize,
}

struct Scenario<'l, 'a> {
    line: &'l mut Line<'a>,
    open: HashMap<u32, Open>,
    next_client: u32,
    /// A server has changed bytes of its answers: what they say is not known.
    is_hostile: bool,
    replies: usize,
}

/// Whatever happens, every reply is its query's own and is well-formed, nobody is forgotten, and, where servers are honest, a
/// client gets the address of the name that it asked for, or the one that DNS64 makes of it. Taken: somebody got an answer.
pub fn over_time(input: &[u8]) -> bool {
    let mut choices = Choices::new(input);
    let how = choices.byte();
    let settings = Settings {
        random_case: how & 1 == 0,
        ..Settings::DEFAULT
    };
    with_engine(settings, |line| {
        if how & 2 != 0 {
            line.policy = &TRANSLATING;
        }
        let mut scenario = Scenario {
            line,
            open: HashMap::new(),
            next_client: 0,
            is_hostile: false,
            replies: 0,
        };
        while let Some(step) = choices.next() {
            match step % 8 {
                0..=3 => scenario.ask(&mut choices),
                4..=6 => scenario.answer(&mut choices),
                _ => scenario.line.pass(u64::from(choices.byte()) * 3),
            }
            scenario.check_replies();
        }
        scenario.line.assert_ends();
        scenario.check_replies();
        assert!(
            scenario.open.is_empty(),
            "{} are forgotten",
            scenario.open.len()
        );
        scenario.replies > 0
    })
}

impl Scenario<'_, '_> {
    fn ask(&mut self, choices: &mut Choices<'_>) {
        self.next_client += 1;
        let (number, how) = (choices.byte() % NAMES, choices.byte());
        let (is_tcp, has_edns) = (how & 1 != 0, how & 2 != 0);
        let mut name = format!("\x03n{number:02}\x07example\0").into_bytes();
        if how & 4 != 0 {
            name.make_ascii_uppercase();
        }
        let qtype = if how & 8 == 0 { rtype::A } else { rtype::AAAA };
        let question = [&name[..], &qtype.to_be_bytes(), &[0, 1]].concat();
        let id = [how, self.next_client as u8];
        let header = [1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(has_edns)];
        let mut query = [&id[..], &header, &question].concat();
        if has_edns {
            query.extend(OPT);
        }
        let (transport, limit) = match (is_tcp, has_edns) {
            (true, _) => (Transport::Tcp, 65_535),
            (false, true) => (Transport::Udp, 1_232),
            (false, false) => (Transport::Udp, 512),
        };
        let question = [&id[..], &question].concat();
        self.open.insert(self.next_client, Open { question, limit });
        let (outcome, reply) = self.line.ask(self.next_client, transport, &query);
        match outcome {
            Outcome::Reply(_) => self.check(self.next_client, &reply),
            Outcome::Pending => {}
            Outcome::Silence => panic!("a good query is not left alone"),
        }
    }

    fn answer(&mut self, choices: &mut Choices<'_>) {
        let asked = &mut self.line.effects.asked;
        if asked.len() > ASKED_MAX {
            asked.drain(..ASKED_MAX / 2);
        }
        if asked.is_empty() {
            return;
        }
        // Mostly the latest.
        let place = asked.len() - 1 - usize::from(choices.byte() >> 2) % asked.len();
        let asked = asked[place].clone();
        let kind = choices.byte();
        let mut message = response(&asked, kind);
        if kind & 0x80 != 0 {
            self.is_hostile = true;
            for _ in 0..2 {
                let at = usize::from(choices.byte()) % message.len();
                message[at] = choices.byte();
            }
        }
        self.line.answer(&asked, &message);
    }

    fn check_replies(&mut self) {
        let replies: Vec<_> = self.line.effects.replies.drain(..).collect();
        for (client, reply) in replies {
            self.check(client, &reply);
        }
    }

    fn check(&mut self, client: u32, reply: &[u8]) {
        let open = self.open.remove(&client).expect("asked, and answered once");
        let Open { question, limit } = open;
        assert!(reply.len() <= limit, "{} of {limit} bytes", reply.len());
        let end = 12 + question.len() - 2;
        assert_eq!(reply[..2], question[..2], "the ID");
        assert_eq!(reply[12..end], question[2..], "the question to the letter");
        let message = Message::from_vec(reply).expect("well-formed");
        self.replies += message.answers().len();
        if self.is_hostile {
            return;
        }
        let address = address_of(&question[2..]);
        for record in message.answers() {
            let is_right = if let RData::A(given) = record.data() {
                question.ends_with(&[0, 1, 0, 1]) && given.octets() == address
            } else if let RData::AAAA(given) = record.data() {
                let made = TranslationPrefix::WELL_KNOWN.embed(address);
                question.ends_with(&[0, 28, 0, 1]) && given.octets() == made
            } else {
                false
            };
            assert!(is_right, "{record}");
        }
    }
}

/// The address that the name at the beginning of `question` has: every name another one.
fn address_of(question: &[u8]) -> [u8; 4] {
    [198, 0, 2, (question[2] - b'0') * 10 + question[3] - b'0']
}

/// What a server says: an address, or that there is none of IPv6; failures, a truncated answer, an answer without the question's letter case.
fn response(asked: &Asked, kind: u8) -> Vec<u8> {
    let end = 12 + 13 + 4;
    let mut message = asked.message[..end].to_vec();
    let (flags, code, count) = match kind & 0x0f {
        1 => (0x80, 2, 0),
        2 => (0x80, 1, 0),
        3 if asked.via.port().is_some() => (0x82, 0, 0),
        4 => (0x80, 3, 0),
        _ if asked.message[end - 4..end] == [0, 28, 0, 1] => (0x80, 0, 0),
        _ => (0x80, 0, 1),
    };
    message[2..12].copy_from_slice(&[flags, 0x80 | code, 0, 1, 0, count, 0, 0, 0, 0]);
    if kind & 0x0f == 5 {
        message[12..end].make_ascii_lowercase();
    }
    if count == 1 {
        let ttl_secs = kind >> 4 & 7;
        message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, ttl_secs, 0, 4]);
        message.extend(address_of(&asked.message[12..]));
    }
    message
}
