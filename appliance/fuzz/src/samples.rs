//! Samples that no person can write: `cargo run -p xdnsd-fuzz -- --write-samples` puts them into `corpus/`, beside those in text. A
//! test holds that they are there, so that samples follow a format that changes.

use hickory_proto::op::{Edns, Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME, MX, NS, SOA, TXT};
use hickory_proto::rr::{Name as HickoryName, RData, Record, RecordType};
use xdnsd_core::answer::{Expected, Head, Key, TtlBounds, sanitize};
use xdnsd_core::dns::{self, Name};
use xdnsd_core::limits::{CACHE_LARGE_BYTES, TCP_MESSAGE_MAX};

use crate::image;
use crate::targets::files::{CRC_LEN, FRAME_LEN, NOW, record};

/// Target, name of the file, bytes.
pub type Sample = (&'static str, String, Vec<u8>);

/// All of them.
#[must_use]
pub fn all() -> Vec<Sample> {
    let by_target: [(&'static str, Vec<Vec<u8>>); 9] = [
        ("frame", frames()),
        ("query", queries()),
        ("answer", answers()),
        ("engine", scenarios()),
        ("stream", streams()),
        ("answer-stream", answer_streams()),
        ("snapshot", payloads()),
        ("list", lists()),
        ("local", local_data()),
    ];
    let named = |(target, samples): (&'static str, Vec<Vec<u8>>)| {
        let numbered = samples.into_iter().enumerate();
        numbered.map(move |(number, bytes)| (target, format!("{number:02}.bin"), bytes))
    };
    by_target.into_iter().flat_map(named).collect()
}

/// A query in an Ethernet frame, with correct checksums.
fn frame(is_v4: bool, tags: &[[u8; 4]]) -> Vec<u8> {
    let message = plain_query("example.com.", RecordType::A, true);
    let udp_len = (8 + message.len()) as u16;
    let addresses: Vec<u8> = if is_v4 {
        vec![192, 0, 2, 77, 192, 0, 2, 1]
    } else {
        let mut both = vec![0; 32];
        both[..4].copy_from_slice(&[0x20, 1, 0xd, 0xb8]);
        both[16..20].copy_from_slice(&[0x20, 1, 0xd, 0xb8]);
        (both[15], both[31]) = (0x11, 1);
        both
    };
    let mut datagram = [
        &[0xe9, 0xac, 0, 53][..],
        &udp_len.to_be_bytes(),
        &[0, 0],
        &message,
    ]
    .concat();
    let pseudo = [&addresses[..], &[0, 17], &udp_len.to_be_bytes()].concat();
    let sum = checksum(&[&pseudo[..], &datagram].concat());
    datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    let mut frame = vec![2, 0, 0, 0, 0, 0x22, 2, 0, 0, 0, 0, 0x11];
    frame.extend(tags.concat());
    if is_v4 {
        let mut header = vec![0x45, 0, 0, 0, 0x5b, 0xbf, 0, 0, 64, 17, 0, 0];
        header[2..4].copy_from_slice(&(20 + udp_len).to_be_bytes());
        header.extend(addresses);
        let sum = checksum(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        frame.extend([8, 0]);
        frame.extend(header);
    } else {
        frame.extend([0x86, 0xdd, 0x60, 6, 0xc9, 0xd5]);
        frame.extend(udp_len.to_be_bytes());
        frame.extend([17, 64]);
        frame.extend(addresses);
    }
    frame.extend(datagram);
    frame
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !(((folded & 0xffff) + (folded >> 16)) as u16)
}

fn frames() -> Vec<Vec<u8>> {
    vec![
        frame(true, &[]),
        frame(false, &[]),
        frame(true, &[[0x81, 0, 0, 10]]),
        frame(false, &[[0x88, 0xa8, 0, 7], [0x81, 0, 0xe0, 10]]),
    ]
}

fn name(text: &str) -> HickoryName {
    HickoryName::from_ascii(text).expect("a name")
}

fn plain_query(text: &str, rtype: RecordType, has_edns: bool) -> Vec<u8> {
    let mut message = Message::new();
    message
        .set_id(0x1234)
        .set_message_type(MessageType::Query)
        .set_recursion_desired(true)
        .add_query(Query::query(name(text), rtype));
    if has_edns {
        let mut edns = Edns::new();
        edns.set_max_payload(1_232)
            .set_version(0)
            .set_dnssec_ok(rtype == RecordType::AAAA);
        message.set_edns(edns);
    }
    message.to_vec().expect("a message")
}

/// Behind the byte that says how they come.
fn queries() -> Vec<Vec<u8>> {
    let with = |how: u8, query: Vec<u8>| [&[how][..], &query].concat();
    let long = "a-label-of-some-length.".repeat(9);
    let mut cookie = plain_query("www.example.", RecordType::A, true);
    let end = cookie.len();
    cookie[end - 2..].copy_from_slice(&[0, 12]);
    cookie.extend([0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8]);
    vec![
        with(0, plain_query("www.example.", RecordType::A, false)),
        with(1, plain_query("www.example.", RecordType::AAAA, true)),
        with(0, plain_query(&long, RecordType::TXT, true)),
        with(
            0,
            plain_query("1.0.0.127.in-addr.arpa.", RecordType::PTR, true),
        ),
        with(1, plain_query(".", RecordType::NS, false)),
        with(0, cookie),
    ]
}

/// A response to `www.example. A`, with EDNS.
fn response(
    code: ResponseCode,
    answers: &[(&str, RData)],
    authorities: &[(&str, RData)],
) -> Vec<u8> {
    let record = |(owner, data): &(&str, RData)| Record::from_rdata(name(owner), 300, data.clone());
    let mut message = Message::new();
    message
        .set_id(0x1234)
        .set_message_type(MessageType::Response)
        .set_response_code(code)
        .add_query(Query::query(name("www.example."), RecordType::A))
        .add_answers(answers.iter().map(record))
        .add_name_servers(authorities.iter().map(record))
        .set_edns(Edns::new());
    message.to_vec().expect("a message")
}

fn responses() -> Vec<Vec<u8>> {
    let address = |last| RData::A(A::new(192, 0, 2, last));
    let alias = |target| RData::CNAME(CNAME(name(target)));
    let (ns, hostmaster) = (name("ns.example."), name("h.example."));
    let soa = RData::SOA(SOA::new(ns.clone(), hostmaster, 1, 3600, 600, 86_400, 60));
    let mx = RData::MX(MX::new(10, name("mail.example.")));
    let txt = RData::TXT(TXT::new(vec!["text".repeat(20)]));
    let (good, none) = (ResponseCode::NoError, ResponseCode::NXDomain);
    vec![
        response(
            good,
            &[("www.example.", address(1)), ("www.example.", address(2))],
            &[],
        ),
        response(
            good,
            &[
                ("www.example.", alias("web.example.")),
                ("web.example.", alias("host.example.")),
                ("host.example.", address(3)),
            ],
            &[("example.", RData::NS(NS(ns.clone())))],
        ),
        response(good, &[("www.example.", alias("elsewhere.test."))], &[]),
        response(none, &[], &[("example.", soa.clone())]),
        response(good, &[], &[("example.", soa)]),
        response(
            good,
            &[("www.example.", mx), ("www.example.", txt)],
            &[("example.", RData::NS(NS(ns)))],
        ),
        response(ResponseCode::ServFail, &[], &[]),
        with_dname(),
    ]
}

/// A DNAME, the CNAME that it makes with labels of the question, and an address.
fn with_dname() -> Vec<u8> {
    let mut message = response(ResponseCode::NoError, &[], &[]);
    message.truncate(12 + 13 + 4);
    message[7] = 3;
    message[11] = 0;
    message.extend(b"\xc0\x10\0\x27\0\x01\0\0\0\x3c\0\x05\x03new\0");
    message.extend(b"\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x09\x03WWW\x03new\0");
    message.extend(b"\x03www\x03new\0\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x01");
    message
}

/// Behind the byte that says what was asked, and how.
fn answers() -> Vec<Vec<u8>> {
    let kinds = [0, 0, 8, 0, 1, 3, 32, 16];
    let responses = responses().into_iter();
    let with_kind = responses
        .zip(kinds)
        .map(|(response, kind)| [&[kind][..], &response].concat());
    with_kind.collect()
}

/// Steps of clients, servers and time.
fn scenarios() -> Vec<Vec<u8>> {
    let kinds: [[u8; 5]; 4] = [
        [0x30, 0x10, 0x30, 0x04, 0x50],
        [0x01, 0x02, 0x30, 0x03, 0x35],
        [0xb0, 0x30, 0x81, 0xb4, 0x30],
        [0x35, 0x05, 0x35, 0x30, 0x03],
    ];
    let scenario = |(seed, kinds): (u8, &[u8; 5])| {
        let mut steps = vec![seed];
        for round in 0..24_u8 {
            steps.extend([0, round.wrapping_mul(7 + seed) % 9, round.wrapping_mul(37)]);
            if round % 3 != seed % 3 {
                steps.extend([4, round & 3, kinds[usize::from(round % 5)]]);
            }
            // What a hostile server changes, and steps elsewhere.
            steps.extend([round, seed.wrapping_mul(round), 7, round.wrapping_mul(11)]);
        }
        steps
    };
    (0..).zip(&kinds).map(scenario).collect()
}

/// Behind the sizes of the pieces that they come in, messages behind their lengths.
fn stream(sizes: [u8; 4], messages: &[Vec<u8>]) -> Vec<u8> {
    let mut stream = sizes.to_vec();
    for message in messages {
        stream.extend((message.len() as u16).to_be_bytes());
        stream.extend(message);
    }
    stream
}

fn streams() -> Vec<Vec<u8>> {
    let query = plain_query("www.example.", RecordType::A, true);
    let long = [&query[..], &[0x5a; 3_000]].concat();
    vec![
        stream([0, 0, 0, 0], std::slice::from_ref(&query)),
        stream(
            [11, 1, 60, 255],
            &[query.clone(), query.clone(), query.clone()],
        ),
        stream([255, 0, 2, 90], &[long, vec![], vec![7], query]),
    ]
}

/// Answers to the questions of a connection, whose IDs there are 1 to 4.
fn answer_streams() -> Vec<Vec<u8>> {
    let answer = |id: u8, len: usize| [&[0, id][..], &vec![id; len]].concat();
    vec![
        stream(
            [5, 0, 30, 2],
            &[answer(1, 20), answer(2, 40), answer(3, 10), answer(4, 90)],
        ),
        stream(
            [255, 1, 1, 1],
            &[answer(4, 2_000), answer(2, 10), answer(2, 10)],
        ),
        stream([0, 7, 7, 7], &[answer(3, 11), answer(9, 30), answer(1, 30)]),
        stream([200, 7, 0, 7], &[answer(1, 50), answer(1, 3)]),
    ]
}

/// Payloads of records of the snapshot, what stands between length and CRC, behind the byte that says that they are one.
fn payloads() -> Vec<Vec<u8>> {
    let name = Name::from_wire(b"\x03www\x07example\0").expect("a name");
    let key = Key {
        name: name.as_wire(),
        qtype: dns::rtype::A,
        dnssec_ok: true,
        checking_disabled: false,
        view: 0,
    };
    let bounds = TtlBounds {
        min_secs: 5,
        max_secs: 86_400,
        negative_max_secs: 10_800,
    };
    let expected = Expected {
        name: &name,
        qtype: dns::rtype::A,
        dnssec_ok: false,
        sent: None,
        bounds: &bounds,
        original: None,
    };
    let mut scratch = vec![0; TCP_MESSAGE_MAX];
    let mut payloads = Vec::new();
    for response in responses() {
        let response = sanitize(&response, &expected, NOW, &mut scratch).expect("a response");
        let bytes = record(&key, &response.answer()).expect("a record");
        payloads.push(bytes[FRAME_LEN..bytes.len() - CRC_LEN].to_vec());
    }
    // About as long as the longest that is kept: no mutation makes a short one so long and leaves it well-formed.
    payloads.push(text_payload(&name, CACHE_LARGE_BYTES));
    payloads.push(text_payload(&name, CACHE_LARGE_BYTES + 1));
    let marked = payloads.iter().map(|payload| [&[0][..], payload].concat());
    marked.collect()
}

/// The payload of a record whose name and body, one TXT record, have `len` bytes, also where that is too many: postcard's format.
fn text_payload(name: &Name, len: usize) -> Vec<u8> {
    const TO_RDATA: usize = 12;
    let name = name.as_wire();
    let mut rdata = vec![b't'; len - name.len() - TO_RDATA];
    let rdata_len = rdata.len() as u16;
    for string in rdata.chunks_mut(256) {
        string[0] = (string.len() - 1) as u8;
    }
    let mut body = vec![0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 60];
    body.extend(rdata_len.to_be_bytes());
    body.extend(rdata);
    // Name, QTYPE, flags, RCODE, counts, EDE, TTL, age, body.
    let mut payload = varint(name.len());
    payload.extend(name);
    payload.extend([16, 0, 0, 1, 0, 0]);
    payload.extend(varint(usize::from(Head::EMPTY.ede)));
    payload.extend([60, 7]);
    payload.extend(varint(body.len()));
    payload.extend(body);
    payload
}

/// Seven bits a byte, the lowest first.
fn varint(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 0x7f {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// Behind the byte that has their CRCs made to fit.
fn lists() -> Vec<Vec<u8>> {
    let names = ["listed.example", "a.b.example", "x", "tracker.test"];
    let list = |count: usize| {
        let names = names[..count].iter();
        image::list(names.map(|name| (image::wire(name), image::BLOCK)))
    };
    let with = |how: u8, count: usize| [&[how][..], &list(count)].concat();
    vec![with(0, 1), with(0, 4), with(1, 3), with(2, 2)]
}

fn local_data() -> Vec<Vec<u8>> {
    let address = (dns::rtype::A, 60, vec![192, 0, 2, 1]);
    let alias = (dns::rtype::CNAME, 60, image::wire("listed.example"));
    let several = image::local(&[
        ("listed.example", &[address.clone(), address.clone()]),
        ("other.test", &[alias]),
        ("test", &[]),
    ]);
    vec![several, image::local(&[("x", &[address])])]
}
