//! Mutated input for the parsers of what comes from outside: frames, responses, snapshots, lists, local data. The seed is fixed,
//! so each run sees the same bytes.
//!
//! Each target mutates whole samples as fuzzers do (bits, bytes, lengths, pieces of other samples), and says what has to hold for
//! what is still accepted. A failed assertion names the round; a panic in a parser fails the test by itself.
//!
//! `XDNSD_FUZZ_ROUNDS` and `XDNSD_FUZZ_SEED` in the environment give a longer run, or another one.

#[path = "../src/engine/tests/image.rs"]
mod image;
#[expect(dead_code, reason = "the tests beside the code use all of it")]
#[path = "../src/testing.rs"]
mod testing;

use std::ops::Range;

use crc::{CRC_32_ISO_HDLC, Crc};
use hickory_proto::op::{Edns, Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME, MX, NS, SOA, TXT};
use hickory_proto::rr::{Name as HickoryName, RData, Record, RecordType};
use smoltcp::wire::{EthernetFrame, Ipv4Packet, Ipv6Packet, UdpPacket};
use testing::{QUERY_IPV4, QUERY_IPV6, Random, tagged};
use xdnsd_core::answer::{
    Answer, Expected, Head, Key, Response, TtlBounds, body_is_well_formed, is_key_name, sanitize,
};
use xdnsd_core::cache::snapshot::{Encoder, Marker, RECORD_MAX, SnapshotHeader, open};
use xdnsd_core::dns::{self, Name};
use xdnsd_core::limits::{CACHE_LARGE_BYTES, NAME_MAX, TCP_MESSAGE_MAX, UDP_MESSAGE_MAX};
use xdnsd_core::policy::list::{CRC, field};
use xdnsd_core::policy::{Labels, List, LocalData};
use xdnsd_core::time::Instant;
use xdnsd_core::wire;

/// Mutated inputs for each target.
const ROUNDS: u64 = 30_000;
/// What parsers like least.
const ODD_BYTES: [u8; 10] = [0, 1, 0x3f, 0x40, 0x7f, 0x80, 0xbf, 0xc0, 0xfe, 0xff];
const ODD_LENGTHS: [u16; 8] = [0, 1, 11, 12, 255, 256, 0x7fff, 0xffff];
/// A mutation touches no more bytes in a row.
const PIECE_MAX: usize = 24;
const NOW: Instant = Instant::from_millis(1_000_000);
const BOUNDS: TtlBounds = TtlBounds {
    min_secs: 5,
    max_secs: 86_400,
    negative_max_secs: 10_800,
};

/// Samples, and the generator that mutates them.
struct Fuzzer {
    samples: Vec<Vec<u8>>,
    random: Random,
    rounds: u64,
    /// How many inputs the target accepted.
    taken: u64,
}

/// What a person has set, or what is the same in each run.
fn setting(variable: &str, default: u64) -> u64 {
    let set = std::env::var(variable).ok();
    set.map_or(default, |set| set.parse().expect("a number"))
}

impl Fuzzer {
    fn new(samples: Vec<Vec<u8>>) -> Self {
        Self {
            samples,
            random: Random::new(setting("XDNSD_FUZZ_SEED", 1)),
            rounds: setting("XDNSD_FUZZ_ROUNDS", ROUNDS),
            taken: 0,
        }
    }

    /// Where everything or nothing is accepted, only the first lines of a parser are tested.
    fn assert_both_ways(&self) {
        let Self { rounds, taken, .. } = self;
        let (least, refused) = (rounds / 50, rounds - taken);
        assert!(
            *taken > least && refused > least,
            "{taken} of {rounds} were accepted"
        );
    }

    /// A sample with up to four mutations.
    fn input(&mut self) -> Vec<u8> {
        let mut bytes = self.sample();
        for _ in 0..self.random.below(5) {
            self.mutate(&mut bytes);
        }
        bytes
    }

    fn sample(&mut self) -> Vec<u8> {
        let at = self.random.below(self.samples.len());
        self.samples[at].clone()
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        let random = &mut self.random;
        let at = random.below(bytes.len() + 1);
        let end = (at + 1 + random.below(PIECE_MAX)).min(bytes.len());
        match random.below(8) {
            0 => change(bytes, at, |byte| byte ^ 1 << random.below(8)),
            1 => change(bytes, at, |_| random.next() as u8),
            2 => change(bytes, at, |_| ODD_BYTES[random.below(ODD_BYTES.len())]),
            3 if end >= at + 2 => {
                let length = ODD_LENGTHS[random.below(ODD_LENGTHS.len())];
                bytes[at..at + 2].copy_from_slice(&length.to_be_bytes());
            }
            4 => drop(bytes.drain(at.min(end)..end)),
            5 => {
                let len = random.below(PIECE_MAX);
                let piece = random.bytes(len);
                bytes.splice(at..at, piece);
            }
            6 => bytes.truncate(at),
            _ => {
                let other = self.sample();
                let from = self.random.below(other.len() + 1);
                let to = (from + self.random.below(PIECE_MAX)).min(other.len());
                bytes.splice(at..at, other[from..to].iter().copied());
            }
        }
    }
}

fn change(bytes: &mut [u8], at: usize, change: impl FnOnce(u8) -> u8) {
    if let Some(byte) = bytes.get_mut(at) {
        *byte = change(*byte);
    }
}

#[test]
fn any_frame_is_refused_or_is_a_query_that_a_network_stack_sees_too() {
    let mut fuzzer = Fuzzer::new(vec![
        QUERY_IPV4.to_vec(),
        QUERY_IPV6.to_vec(),
        tagged(QUERY_IPV4, &[(0x8100, 10)]),
        tagged(QUERY_IPV6, &[(0x88a8, 7), (0x8100, 0xe00a)]),
    ]);
    for round in 0..fuzzer.rounds {
        let frame = fuzzer.input();
        let Ok((path, message)) = wire::parse(&frame) else {
            continue;
        };
        fuzzer.taken += 1;
        assert_eq!(message.start, path.header_len(), "round {round}");
        assert!(message.start <= message.end && message.end <= frame.len());
        if path.tags().is_empty() {
            let ports = [path.client().port(), path.local().port()];
            assert_eq!(stack(&frame), (ports, message.clone()), "round {round}");
        }
        round_trip(&path, &frame[message]);
    }
    fuzzer.assert_both_ways();
}

/// What smoltcp sees: the ports, and where the message stands.
fn stack(frame: &[u8]) -> ([u16; 2], Range<usize>) {
    let frame = EthernetFrame::new_checked(frame).expect("a frame");
    let payload = frame.payload();
    let (header_len, datagram) = if payload[0] >> 4 == 4 {
        let packet = Ipv4Packet::new_checked(payload).expect("an IPv4 packet");
        (usize::from(packet.header_len()), packet.payload())
    } else {
        let packet = Ipv6Packet::new_checked(payload).expect("an IPv6 packet");
        (packet.header_len(), packet.payload())
    };
    let datagram = UdpPacket::new_checked(datagram).expect("a datagram");
    let start = 14 + header_len + 8;
    let ports = [datagram.src_port(), datagram.dst_port()];
    (ports, start..start + datagram.payload().len())
}

/// The reply's frame is one that we understand, and it goes back by the way that the query came.
fn round_trip(path: &wire::Path, message: &[u8]) {
    let mut reply = vec![0xa5; path.header_len() + message.len() + 1];
    let start = path.header_len();
    reply[start..start + message.len()].copy_from_slice(message);
    match path.emit(&mut reply, message.len()) {
        Ok(len) => {
            let (back, range) = wire::parse(&reply[..len]).expect("our own frame");
            assert_eq!((back.client(), back.local()), (path.local(), path.client()));
            assert_eq!((back.tags(), &reply[range]), (path.tags(), message));
            assert_eq!(reply[len..], [0xa5], "no byte behind it is touched");
        }
        Err(_) => assert!(message.len() > UDP_MESSAGE_MAX),
    }
}

fn hickory_name(text: &str) -> HickoryName {
    HickoryName::from_ascii(text).expect("a name")
}

/// A response to `www.example. A`, with EDNS.
fn response(
    code: ResponseCode,
    answers: &[(&str, RData)],
    authorities: &[(&str, RData)],
) -> Vec<u8> {
    let record =
        |(owner, data): &(&str, RData)| Record::from_rdata(hickory_name(owner), 300, data.clone());
    let mut message = Message::new();
    message
        .set_id(0x1234)
        .set_message_type(MessageType::Response)
        .set_response_code(code)
        .add_query(Query::query(hickory_name("www.example."), RecordType::A))
        .add_answers(answers.iter().map(record))
        .add_name_servers(authorities.iter().map(record))
        .set_edns(Edns::new());
    message.to_vec().expect("a message")
}

fn responses() -> Vec<Vec<u8>> {
    let address = |last| RData::A(A::new(192, 0, 2, last));
    let alias = |target| RData::CNAME(CNAME(hickory_name(target)));
    let (ns, hostmaster) = (hickory_name("ns.example."), hickory_name("h.example."));
    let soa = RData::SOA(SOA::new(ns.clone(), hostmaster, 1, 3600, 600, 86_400, 60));
    let mx = RData::MX(MX::new(10, hickory_name("mail.example.")));
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
    ]
}

#[test]
fn of_any_response_only_what_is_well_formed_is_kept_and_it_is_kept_whole() {
    let name = Name::from_wire(b"\x03www\x07example\0").expect("a name");
    let expected = Expected {
        name: &name,
        qtype: dns::rtype::A,
        dnssec_ok: false,
        sent: None,
        bounds: &BOUNDS,
        original: None,
    };
    let mut fuzzer = Fuzzer::new(responses());
    let (mut first, mut second) = (vec![0xa5; TCP_MESSAGE_MAX], vec![0xa5; TCP_MESSAGE_MAX]);
    for round in 0..fuzzer.rounds {
        let bytes = fuzzer.input();
        let Ok(response) = sanitize(&bytes, &expected, NOW, &mut first) else {
            continue;
        };
        fuzzer.taken += 1;
        let Head {
            answers,
            authorities,
            ttl_secs,
            ..
        } = response.head;
        let records = usize::from(answers) + usize::from(authorities);
        let body = response.answer().body;
        assert!(
            body_is_well_formed(name.as_wire(), records, body),
            "round {round}"
        );
        if ttl_secs == 0 {
            continue;
        }
        assert!((1..=BOUNDS.max_secs).contains(&ttl_secs), "round {round}");
        // What is kept says the same when it is read again.
        let again = again(&response);
        let again = sanitize(&again, &expected, NOW, &mut second);
        let again = again.unwrap_or_else(|error| panic!("round {round}: {error:?}"));
        let Head {
            answers: a,
            authorities: b,
            rcode,
            ..
        } = again.head;
        assert_eq!(
            (a, b, rcode),
            (answers, authorities, response.head.rcode),
            "round {round}"
        );
        assert_eq!(again.answer().body, body, "round {round}");
    }
    fuzzer.assert_both_ways();
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
    message[2..4].copy_from_slice(&[0x80, rcode]);
    for (at, count) in [(4, 1), (6, answers), (8, authorities), (10, 0)] {
        message[at..at + 2].copy_from_slice(&count.to_be_bytes());
    }
    message
}

/// What stands before each record of the snapshot.
const MARKER: Marker = Marker(*b"\x91marker\xee");
/// Marker and length stand before a record's payload, its CRC ends it.
const FRAME_LEN: usize = 10;
const CRC_LEN: usize = 4;

/// A record of the snapshot.
fn record(key: &Key<'_>, answer: &Answer<'_>) -> Vec<u8> {
    let encoder = Encoder {
        marker: MARKER,
        now: NOW,
    };
    let mut buffer = vec![0xa5; RECORD_MAX];
    let len = encoder.encode(&mut buffer, key, answer);
    buffer.truncate(len.expect("a record"));
    buffer
}

/// Payloads of records: what stands between length and CRC.
fn payloads() -> Vec<Vec<u8>> {
    let name = Name::from_wire(b"\x03www\x07example\0").expect("a name");
    let key = Key {
        name: name.as_wire(),
        qtype: dns::rtype::A,
        dnssec_ok: true,
        checking_disabled: false,
    };
    let expected = Expected {
        name: &name,
        qtype: dns::rtype::A,
        dnssec_ok: false,
        sent: None,
        bounds: &BOUNDS,
        original: None,
    };
    let mut scratch = vec![0; TCP_MESSAGE_MAX];
    let mut payloads = Vec::new();
    for response in responses() {
        let response = sanitize(&response, &expected, NOW, &mut scratch).expect("a response");
        let bytes = record(&key, &response.answer());
        payloads.push(bytes[FRAME_LEN..bytes.len() - CRC_LEN].to_vec());
    }
    // About as long as the longest that is kept: no mutation makes a short one so long and leaves it well-formed.
    let lengths = [
        CACHE_LARGE_BYTES - 1,
        CACHE_LARGE_BYTES,
        CACHE_LARGE_BYTES + 1,
    ];
    payloads.extend(lengths.map(|len| text_payload(&name, len)));
    payloads
}

/// The payload of a record whose name and body, one TXT record, have `len` bytes; the encoder refuses those that are too long.
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
    type Fields<'a> = (&'a [u8], u16, u8, u8, [u16; 3], u16, u32, u32, &'a [u8]);
    let fields: Fields<'_> = (name, 16, 0, 0, [1, 0, 0], Head::EMPTY.ede, 60, 7, &body);
    let mut buffer = vec![0; 2 * RECORD_MAX];
    let used = postcard::to_slice(&fields, &mut buffer).expect("it fits");
    used.to_vec()
}

/// A snapshot of one mutated record between two whole ones; its CRC holds.
fn file(whole: &[u8], payload: &[u8]) -> Vec<u8> {
    const CRC_OF_RECORDS: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);
    let header = SnapshotHeader {
        marker: MARKER,
        records: Some(3),
        saved_secs: 1,
        clock_synchronised: true,
    };
    let len = (payload.len() + CRC_LEN) as u16;
    let crc = CRC_OF_RECORDS.checksum(payload);
    [
        &header.encode()[..],
        whole,
        &MARKER.0,
        &len.to_le_bytes(),
        payload,
        &crc.to_le_bytes(),
        whole,
    ]
    .concat()
}

#[test]
fn of_any_snapshot_only_answers_of_ours_are_read() {
    let mut fuzzer = Fuzzer::new(payloads());
    let name = b"\x01a\x07example\0";
    let key = Key {
        name,
        qtype: 1,
        dnssec_ok: false,
        checking_disabled: false,
    };
    let whole = record(
        &key,
        &Answer::bare(&Head {
            ttl_secs: 60,
            ..Head::EMPTY
        }),
    );
    let mut longest = 0;
    for round in 0..fuzzer.rounds {
        let payload = fuzzer.input();
        let mut bytes = file(&whole, &payload);
        if round % 8 == 0 {
            // Anywhere, header and markers among it, and without a CRC that holds.
            fuzzer.mutate(&mut bytes);
        }
        let Ok((_, records)) = open(&bytes) else {
            continue;
        };
        let found: Vec<_> = records.take(bytes.len()).flatten().collect();
        fuzzer.taken += u64::from(found.len() > 2);
        for record in found {
            let head = record.head(NOW, Some(0));
            let count = usize::from(head.answers) + usize::from(head.authorities);
            assert!(
                head.rcode <= 15 && is_key_name(record.key.name),
                "round {round}"
            );
            let len = record.key.name.len() + record.body.len();
            assert!(len <= CACHE_LARGE_BYTES, "round {round}: {len} bytes");
            longest = longest.max(len);
            assert!(
                body_is_well_formed(record.key.name, count, record.body),
                "round {round}"
            );
        }
    }
    fuzzer.assert_both_ways();
    assert_eq!(longest, CACHE_LARGE_BYTES, "the limit was reached");
}

/// Names that are asked for, as labels.
const ASKED: [&str; 4] = ["listed.example", "a.listed.example", "other.test", "x"];

#[test]
fn any_bytes_as_a_compiled_list_are_refused_or_give_verdicts() {
    let names = ["listed.example", "a.b.example", "x", "tracker.test"];
    let list = |count: usize| {
        image::list(
            names[..count]
                .iter()
                .map(|name| (image::wire(name), image::BLOCK)),
        )
    };
    let mut fuzzer = Fuzzer::new(vec![list(1), list(4), list(3)]);
    for round in 0..fuzzer.rounds {
        let mut bytes = fuzzer.input();
        // A CRC says nothing about who wrote it.
        mend(&mut bytes, round % 4 != 0);
        let viewed = List::view(&bytes);
        let checked = List::check(&bytes);
        fuzzer.taken += u64::from(checked.is_ok());
        for name in ASKED.map(image::wire) {
            let labels = Labels::new(&name).expect("a name");
            let verdicts = [&viewed, &checked].map(|list| {
                list.as_ref()
                    .ok()
                    .map(|list| list.listing(&labels, dns::rtype::A))
            });
            assert!(
                checked.is_err() || verdicts[0] == verdicts[1],
                "round {round}"
            );
        }
    }
    fuzzer.assert_both_ways();
}

/// Makes lengths and CRCs of a compiled list fit its bytes, the length where that is wanted.
fn mend(bytes: &mut [u8], is_length_mended: bool) {
    if bytes.len() < field::HEADER_LEN {
        return;
    }
    if is_length_mended {
        let len = bytes.len() as u64;
        bytes[field::FILE_LEN..][..8].copy_from_slice(&len.to_le_bytes());
    }
    let body = CRC.checksum(&bytes[field::HEADER_LEN..]);
    bytes[field::BODY_CRC..][..4].copy_from_slice(&body.to_le_bytes());
    let header = CRC.checksum(&bytes[..field::HEADER_CRC]);
    bytes[field::HEADER_CRC..][..4].copy_from_slice(&header.to_le_bytes());
}

#[test]
fn any_bytes_as_local_data_are_refused_or_give_records_of_theirs() {
    let address = (dns::rtype::A, 60, vec![192, 0, 2, 1]);
    let alias = (dns::rtype::CNAME, 60, image::wire("listed.example"));
    let image = image::local(&[
        ("listed.example", &[address.clone(), address]),
        ("other.test", &[alias]),
        ("test", &[]),
    ]);
    let mut fuzzer = Fuzzer::new(vec![image]);
    for round in 0..fuzzer.rounds {
        let bytes = fuzzer.input();
        let Ok(data) = LocalData::view(&bytes) else {
            continue;
        };
        fuzzer.taken += 1;
        let inside = bytes.as_ptr_range();
        for name in ASKED.map(image::wire) {
            let labels = Labels::new(&name).expect("a name");
            data.resolve(
                &labels,
                dns::rtype::A,
                |_, _| false,
                |owner, record| {
                    assert!(owner.len() <= NAME_MAX, "round {round}");
                    let rdata = record.rdata.as_ptr_range();
                    assert!(inside.start <= rdata.start && rdata.end <= inside.end);
                },
            );
        }
    }
    fuzzer.assert_both_ways();
}
