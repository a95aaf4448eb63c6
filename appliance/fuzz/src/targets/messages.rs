//! Messages: queries of clients, and what servers answer.

use hickory_proto::op::Message;
use xdnsd_core::answer::{Expected, Head, Response, TtlBounds, body_is_well_formed, sanitize};
use xdnsd_core::dns::{self, Name, rtype};
use xdnsd_core::engine::{Outcome, Settings, Transport};
use xdnsd_core::limits::{TCP_MESSAGE_MAX, UDP_MESSAGE_MAX};
use xdnsd_core::time::Instant;

use super::flags;
use super::line::{Line, with_engine};

/// Without EDNS a datagram has no more bytes (RFC 1035 section 4.2.1).
const PLAIN_UDP_MAX: usize = 512;
const NOW: Instant = Instant::from_millis(1_000_000);
const BOUNDS: TtlBounds = TtlBounds {
    min_secs: 5,
    max_secs: 86_400,
    negative_max_secs: 10_800,
};
/// What is asked of the server whose answer is tried.
const QNAME: &[u8] = b"\x03www\x07example\0";
const QTYPES: [u16; 8] = [
    rtype::A,
    28,
    rtype::CNAME,
    15,
    16,
    64,
    rtype::SOA,
    rtype::RRSIG,
];

/// Bits of a query's first byte.
mod how {
    pub const TCP: u8 = 1;
}

/// Any query is answered at once, asked upstream, or left alone; what comes back has its ID and its question to the letter, fits,
/// and is well-formed; what goes upstream is one question, about the same name.
pub fn query(input: &[u8]) -> bool {
    let (how, query) = flags(input);
    let transport = if how & how::TCP == 0 {
        Transport::Udp
    } else {
        Transport::Tcp
    };
    if query.len() > UDP_MESSAGE_MAX && transport == Transport::Udp {
        return false;
    }
    with_engine(Settings::DEFAULT, |line| {
        let (outcome, reply) = line.ask(7, transport, query);
        match outcome {
            Outcome::Reply(_) => assert_is_reply(query, &reply, transport),
            Outcome::Silence => assert!(line.effects.asked.is_empty()),
            Outcome::Pending => assert_is_asked(line, query, transport),
        }
        line.assert_ends();
        outcome == Outcome::Pending
    })
}

fn assert_is_reply(query: &[u8], reply: &[u8], transport: Transport) {
    assert!(reply.len() >= 12 && reply[..2] == query[..2], "the ID");
    assert!(reply[2] & 0x80 != 0, "QR");
    assert_eq!(reply[2] & 0x78, query[2] & 0x78, "OPCODE");
    let max = match transport {
        Transport::Udp => UDP_MESSAGE_MAX,
        Transport::Tcp => TCP_MESSAGE_MAX,
    };
    assert!(reply.len() <= max, "{} bytes", reply.len());
    if reply[4..6] == [0, 1] {
        let end = question_end(reply).expect("a whole question");
        assert_eq!(reply[12..end], query[12..end], "the question to the letter");
    }
    Message::from_vec(reply).unwrap_or_else(|error| panic!("{error}: {reply:02x?}"));
}

/// Where the first question of a message ends, whose name is not compressed.
fn question_end(message: &[u8]) -> Option<usize> {
    let (_, end) = Name::parse(message, 12).ok()?;
    (end + 4 <= message.len()).then_some(end + 4)
}

/// What was asked is the client's question, and its answer is the client's.
fn assert_is_asked(line: &mut Line<'_>, query: &[u8], transport: Transport) {
    let asked = line.effects.asked[0].clone();
    let parsed = Message::from_vec(&asked.message).expect("well-formed");
    assert_eq!(parsed.queries().len(), 1);
    let end = question_end(query).expect("it was read");
    let question = &asked.message[12..end];
    assert!(
        question.eq_ignore_ascii_case(&query[12..end]),
        "the question"
    );
    let is_address = asked.message[end - 4..end - 2] == rtype::A.to_be_bytes();
    let mut answer = asked.message[..end].to_vec();
    answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(is_address), 0, 0, 0, 0]);
    if is_address {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 7]);
    }
    line.answer(&asked, &answer);
    line.pass(10_000);
    let [(client, reply)] = &line.effects.replies[..] else {
        panic!("{} replies", line.effects.replies.len());
    };
    assert_eq!(*client, 7);
    assert_is_reply(query, reply, transport);
    assert!(
        transport == Transport::Tcp || query[10..12] != [0, 0] || reply.len() <= PLAIN_UDP_MAX,
        "{} bytes without EDNS",
        reply.len()
    );
}

/// Bits of an answer's first byte.
mod kind {
    /// Which of the types is asked for.
    pub const QTYPE: u8 = 7;
    pub const DNSSEC_OK: u8 = 8;
    /// The name was sent in random letter case.
    pub const SENT: u8 = 16;
    /// Header and question stay as they are in the input, and are not those of the question.
    pub const FOREIGN: u8 = 32;
}

/// Of any answer only what is well-formed is kept, and what is kept says the same when it is read again.
pub fn answer(input: &[u8]) -> bool {
    let (kind, bytes) = flags(input);
    let name = Name::from_wire(QNAME).expect("a name");
    let sent = name.with_case(|wire| wire.make_ascii_uppercase());
    let qtype = QTYPES[usize::from(kind & kind::QTYPE)];
    let mut message = bytes.to_vec();
    let question = [QNAME, &qtype.to_be_bytes(), &dns::class::IN.to_be_bytes()].concat();
    let question_end = 12 + question.len();
    if kind & kind::FOREIGN == 0 && message.len() >= question_end {
        message[2] = message[2] & 0x07 | 0x80;
        message[4..6].copy_from_slice(&[0, 1]);
        message[12..question_end].copy_from_slice(&question);
    }
    let expected = Expected {
        name: &name,
        qtype,
        dnssec_ok: kind & kind::DNSSEC_OK != 0,
        sent: (kind & kind::SENT != 0).then_some(&sent),
        bounds: &BOUNDS,
        original: None,
    };
    let mut scratch = vec![0xa5; TCP_MESSAGE_MAX];
    let Ok(response) = sanitize(&message, &expected, NOW, &mut scratch) else {
        return false;
    };
    assert_is_kept_whole(&response, &expected);
    true
}

fn assert_is_kept_whole(response: &Response<'_>, expected: &Expected<'_>) {
    let Head {
        answers,
        authorities,
        ttl_secs,
        rcode,
        ..
    } = response.head;
    let records = usize::from(answers) + usize::from(authorities);
    let body = response.answer().body;
    assert!(body_is_well_formed(expected.name.as_wire(), records, body));
    if ttl_secs == 0 {
        return;
    }
    assert!((1..=BOUNDS.max_secs).contains(&ttl_secs), "{ttl_secs}");
    let mut scratch = vec![0xa5; TCP_MESSAGE_MAX];
    let kept = again(response);
    let again = sanitize(&kept, expected, NOW, &mut scratch).expect("our own");
    let head = again.head;
    assert_eq!(
        (head.answers, head.authorities, head.rcode),
        (answers, authorities, rcode)
    );
    assert_eq!(again.answer().body, body, "what is kept says the same");
}

/// What is kept, as a response.
fn again(response: &Response<'_>) -> Vec<u8> {
    let mut message = response.message().to_vec();
    let Head {
        answers,
        authorities,
        rcode,
        ..
    } = response.head;
    message[..2].copy_from_slice(&[0, 0]);
    message[2..4].copy_from_slice(&[0x80, rcode]);
    for (at, count) in [(4, 1), (6, answers), (8, authorities), (10, 0)] {
        message[at..at + 2].copy_from_slice(&count.to_be_bytes());
    }
    message
}
