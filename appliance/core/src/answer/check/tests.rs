//! Bytes that are accepted from a file as an answer.

use std::vec;
use std::vec::Vec;

use hickory_proto::op::{Message, Query};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, MX, NS, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

use super::{body_is_well_formed, is_key_name};
use crate::dns::name::POINTERS_MAX;
use crate::testing::Random;

/// www.example.com in wire form.
const WWW: &[u8] = b"\x03www\x07example\x03com\0";
/// Offset of the body after a question for [`WWW`].
const BODY: usize = 12 + WWW.len() + 4;

fn dns_name(text: &str) -> Name {
    Name::from_ascii(text).expect("a name")
}

fn record(owner: &str, data: RData) -> Record {
    Record::from_rdata(dns_name(owner), 300, data)
}

/// An answer with names compressed in owner names and in RDATA, as a server writes it.
fn message() -> Message {
    let soa = SOA::new(
        dns_name("ns1.example.com."),
        dns_name("admin.example.com."),
        1,
        2,
        3,
        4,
        5,
    );
    let mut message = Message::new();
    message.add_query(Query::query(dns_name("www.example.com."), RecordType::A));
    for data in [
        RData::CNAME(CNAME(dns_name("web.example.com."))),
        RData::TXT(TXT::new(vec!["some text".into(), "more".into()])),
        RData::MX(MX::new(10, dns_name("mail.example.com."))),
        RData::SRV(SRV::new(1, 2, 3, dns_name("srv.example.com."))),
    ] {
        message.add_answer(record("www.example.com.", data));
    }
    message.add_answer(record(
        "web.example.com.",
        RData::A(A::new(198, 51, 100, 5)),
    ));
    message.add_name_server(record(
        "example.com.",
        RData::NS(NS(dns_name("ns1.example.com."))),
    ));
    message.add_name_server(record("example.com.", RData::SOA(soa)));
    let address = AAAA::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    message.add_additional(record("ns1.example.com.", RData::AAAA(address)));
    message
}

fn body() -> (Vec<u8>, usize) {
    let message = message();
    let bytes = message.to_vec().expect("it encodes");
    assert!(bytes[BODY..].contains(&0xc0), "names are compressed");
    let records =
        message.answers().len() + message.name_servers().len() + message.additionals().len();
    (bytes[BODY..].to_vec(), records)
}

/// A record of TYPE `rtype` whose owner is the question's name.
fn rr(rtype: u16, rdata: &[u8]) -> Vec<u8> {
    owned(&[0xc0, 12], rtype, rdata)
}

fn owned(owner: &[u8], rtype: u16, rdata: &[u8]) -> Vec<u8> {
    let mut record = owner.to_vec();
    record.extend(rtype.to_be_bytes());
    record.extend([0, 1, 0, 0, 1, 44]);
    record.extend((rdata.len() as u16).to_be_bytes());
    record.extend(rdata);
    record
}

fn is_well_formed(records: &[Vec<u8>]) -> bool {
    body_is_well_formed(WWW, records.len(), &records.concat())
}

/// A pointer to the offset `at` of the body.
fn pointer(at: usize) -> [u8; 2] {
    (0xc000 | (BODY + at) as u16).to_be_bytes()
}

#[test]
fn a_servers_answer_is_well_formed() {
    let (body, records) = body();
    assert!(body_is_well_formed(WWW, records, &body));
    assert!(
        body_is_well_formed(WWW, 0, &[]),
        "no records: NXDOMAIN without SOA"
    );
    assert!(
        body_is_well_formed(b"\0", 1, &rr(1, &[192, 0, 2, 1])),
        "of the root"
    );
}

#[test]
fn counts_have_to_match() {
    let (body, records) = body();
    for other in (0..40).filter(|other| *other != records) {
        assert!(!body_is_well_formed(WWW, other, &body), "{other} records");
    }
}

#[test]
fn cut_at_every_length() {
    let (body, records) = body();
    for len in 0..body.len() {
        assert!(
            !body_is_well_formed(WWW, records, &body[..len]),
            "{len} bytes"
        );
    }
    let mut longer = body;
    longer.push(0);
    assert!(!body_is_well_formed(WWW, records, &longer));
}

#[test]
fn under_another_name_the_pointers_are_wrong() {
    let (body, records) = body();
    // One byte less of question: pointers to the body's names now point one byte into them.
    assert!(!body_is_well_formed(
        b"\x02ww\x07example\x03com\0",
        records,
        &body
    ));
    assert!(!body_is_well_formed(b"\0", records, &body));
}

#[test]
fn pointers_go_strictly_backwards() {
    let address = [192, 0, 2, 1];
    assert!(
        is_well_formed(&[owned(&[0xc0, 12], 1, &address)]),
        "the question's name"
    );
    assert!(
        is_well_formed(&[owned(&[0xc0, 16], 1, &address)]),
        "its second label"
    );
    for (owner, what) in [
        (pointer(0).to_vec(), "itself"),
        (pointer(1).to_vec(), "its own second byte"),
        (pointer(12).to_vec(), "its RDATA"),
        (pointer(4000).to_vec(), "past the end"),
        (vec![0xc0, 0], "the header"),
        (vec![0xc0, 11], "the header's last byte"),
        (
            [&[1, b'a'][..], &pointer(0)].concat(),
            "the label before it",
        ),
        (vec![0xc0], "half a pointer"),
    ] {
        assert!(!is_well_formed(&[owned(&owner, 1, &address)]), "{what}");
    }
    let tail = 12 + WWW.len() as u8;
    assert!(
        !is_well_formed(&[owned(&[0xc0, tail], 1, &address)]),
        "QTYPE"
    );
    // A later record may point into an earlier one's RDATA; an earlier one not into a later one's.
    let earlier = rr(5, b"\x01a\0");
    let later = owned(&pointer(12), 1, &address);
    assert!(is_well_formed(&[earlier.clone(), later]));
    let forward = owned(&pointer(16 + 12), 1, &address);
    assert!(!is_well_formed(&[forward, earlier]));
}

#[test]
fn a_chain_of_pointers_ends() {
    // Each owner points to the one before it: the last name goes through all of them.
    let chain = |len: usize| {
        let mut records = vec![rr(16, b"")];
        for index in 1..len {
            let before = (index - 1) * 12;
            records.push(owned(&pointer(before), 16, b""));
        }
        is_well_formed(&records)
    };
    assert!(chain(2) && chain(100));
    assert!(!chain(200), "longer than a slot");
    // Pointers one after the other in one record's RDATA, each to the one before it, and an owner that goes through all.
    let through = |len: usize| {
        let mut pointers = vec![0];
        for index in 0..len {
            pointers.extend(pointer(if index == 0 { 12 } else { 12 + 2 * index - 1 }));
        }
        let owner = pointer(12 + 2 * len - 1);
        is_well_formed(&[rr(16, &pointers), owned(&owner, 1, &[192, 0, 2, 1])])
    };
    assert!(through(POINTERS_MAX - 1));
    assert!(
        !through(POINTERS_MAX),
        "no server needs so many for one name"
    );
}

#[test]
fn labels_and_names_have_their_bounds() {
    let label = |len: u8| [&[len][..], &vec![b'x'; usize::from(len)]].concat();
    let address = [192, 0, 2, 1];
    let is_owner = |owner: &[u8]| is_well_formed(&[owned(owner, 1, &address)]);
    assert!(is_owner(&[label(63), vec![0]].concat()));
    for kind in [0x40, 0x80, 0xbf] {
        assert!(
            !is_owner(&[&[kind][..], &[0; 200]].concat()),
            "reserved label type {kind:#x}"
        );
    }
    let whole = [label(63), label(63), label(63), label(61), vec![0]].concat();
    assert_eq!(whole.len(), 255);
    assert!(is_owner(&whole));
    let longer = [label(63), label(63), label(63), label(62), vec![0]].concat();
    assert!(!is_owner(&longer));
    // Through a pointer: 238 bytes in front of the 17 of the question's name, and one more.
    let in_front = |last| [label(63), label(63), label(63), label(last), vec![0xc0, 12]].concat();
    assert!(is_owner(&in_front(45)));
    assert!(!is_owner(&in_front(46)));
}

#[test]
fn rdata_keeps_to_its_type() {
    let cases: &[(u16, &[u8], bool)] = &[
        (1, &[192, 0, 2, 1], true),
        (1, &[192, 0, 2], false),
        (1, &[192, 0, 2, 1, 0], false),
        (28, &[0; 16], true),
        (28, &[0; 4], false),
        (5, b"\xc0\x0c", true),
        (5, b"\xc0\x0c\0", false),
        (5, b"\x01a", false),
        (5, b"", false),
        (6, b"\xc0\x0c\xc0\x0c01234567890123456789", true),
        (6, b"\xc0\x0c\xc0\x0c0123456789012345678", false),
        (15, b"\0\x0a\xc0\x0c", true),
        (15, b"\0\x0a", false),
        (33, b"\0\x01\0\x02\0\x03\xc0\x0c", true),
        (33, b"\0\x01\0\x02\0\x03\xc0\xff", false),
        (46, b"0123456789abcdefgh\x07example\0signature", true),
        (46, b"0123456789abcdefgh\x3fexample\0signature", false),
        (46, b"0123456789abcdefg", false),
        (35, b"\0\x01\0\x02\x01s\x01t\0\xc0\x0c", true),
        (35, b"\0\x01\0\x02\x01s\x01t\x05\xc0\x0c", false),
        (16, b"\xff\xff\xff anything", true),
        (65, b"", true),
    ];
    for (rtype, rdata, expected) in cases {
        let record = rr(*rtype, rdata);
        assert_eq!(
            is_well_formed(&[record]),
            *expected,
            "TYPE {rtype} {rdata:02x?}"
        );
    }
    // A name may not run out of its RDATA into the next record, though the bytes there are good.
    let owner = b"\x01b\0";
    let running_over = rr(5, b"\x01a\x03");
    assert!(!is_well_formed(&[running_over, owned(owner, 1, &[0; 4])]));
}

/// True if we are stricter than hickory, which accepts pointers into the header and the question's tail, and does not parse
/// the RDATA of some types.
fn is_strict(message: &Message, bytes: &[u8]) -> bool {
    const OPAQUE: [u16; 14] = [3, 4, 7, 8, 9, 14, 17, 18, 21, 24, 26, 36, 39, 46];
    let no_name = |pair: &[u8]| {
        let target = usize::from(u16::from_be_bytes([pair[0], pair[1]]) & 0x3fff);
        pair[0] >= 0xc0 && (target < 12 || (BODY - 4..BODY).contains(&target))
    };
    bytes[BODY..].windows(2).any(no_name)
        || message
            .all_sections()
            .any(|record| OPAQUE.contains(&record.record_type().into()))
}

#[test]
fn what_another_implementation_reads_is_let_in() {
    let mut random = Random::new(5);
    let bytes = message().to_vec().expect("it encodes");
    let (_, records) = body();
    let (mut read, mut refused) = (0, 0);
    for _ in 0..20_000 {
        let mut damaged = bytes.clone();
        for _ in 0..1 + random.below(2) {
            let at = BODY + random.below(bytes.len() - BODY);
            damaged[at] = random.next() as u8;
        }
        let ours = body_is_well_formed(WWW, records, &damaged[BODY..]);
        let mut decoder = BinDecoder::new(&damaged);
        match Message::read(&mut decoder) {
            Ok(message) if !decoder.is_empty() || is_strict(&message, &damaged) => {}
            Ok(message) => {
                assert!(ours, "{message:?} {damaged:02x?}");
                read += 1;
            }
            Err(_) => refused += usize::from(!ours),
        }
    }
    assert!(
        read > 1000 && refused > 1000,
        "{read} read, {refused} refused by both"
    );
}

#[test]
fn key_names() {
    let label = [&[63][..], &[b'x'; 63]].concat();
    let longest = [&label[..], &label, &label, &[61], &[b'x'; 61], &[0]].concat();
    assert_eq!(longest.len(), 255);
    for good in [&b"\0"[..], WWW, b"\x01*\0", b"\x03a.\0\0", &longest] {
        assert!(is_key_name(good), "{good:?}");
    }
    let longer = [&label[..], &label, &label, &[62], &[b'x'; 62], &[0]].concat();
    let long_label = [&[64][..], &[b'x'; 64], &[0]].concat();
    for bad in [
        &b""[..],
        b"\x01a",
        b"\x02a\0",
        b"\0\0",
        b"\x01a\0b",
        b"\x01A\0",
        b"\xc0\x0c",
        b"\x40",
        &long_label,
        &longer,
    ] {
        assert!(!is_key_name(bad), "{bad:?}");
    }
}
