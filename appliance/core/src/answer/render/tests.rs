//! Rotation of a reply's records, and ageing of their TTLs.

use super::*;
use crate::dns::record::Records;
use std::vec;
use std::vec::Vec;

/// The question is for `q.` and type A.
const QUESTION: &[u8] = b"\x01q\0\0\x01\0\x01";
const QUESTION_END: usize = 12 + QUESTION.len();
/// A pointer to the question's name.
const TO_QUESTION: &[u8] = b"\xc0\x0c";

/// A record with a TTL of 100 s.
fn record(owner: &[u8], rtype: u16, rdata: &[u8]) -> Vec<u8> {
    let [high, low] = rtype.to_be_bytes();
    let mut record = owner.to_vec();
    record.extend([high, low, 0, 1, 0, 0, 0, 100, 0, rdata.len() as u8]);
    record.extend(rdata);
    record
}

fn a(last: u8) -> Vec<u8> {
    record(TO_QUESTION, rtype::A, &[192, 0, 2, last])
}

fn aaaa(last: u8) -> Vec<u8> {
    let mut address = [0; 16];
    address[15] = last;
    record(TO_QUESTION, rtype::AAAA, &address)
}

/// Renders `body` 7 s after it was stored, rotated by one. Returns the last byte and the TTL of each record.
fn rendered(counts: [u16; 2], body: &[u8]) -> Vec<(u8, u32)> {
    let mut message = vec![0; QUESTION_END + body.len()];
    message[12..QUESTION_END].copy_from_slice(QUESTION);
    let head = Head {
        answers: counts[0],
        authorities: counts[1],
        ..Head::EMPTY
    };
    let reply = Reply {
        id: 1,
        flags: 0,
        ttl: Ttl::Aged(7),
        limit: message.len(),
        opt: None,
        rotate: 1,
    };
    let answer = Answer { head: &head, body };
    let rendered = reply.render(&mut message, QUESTION_END, &answer);
    assert_eq!((rendered.len, rendered.truncated), (message.len(), false));
    let count = usize::from(counts[0] + counts[1]);
    Records::new(&message, QUESTION_END, count)
        .map_while(Result::ok)
        .map(|record| (message[record.end - 1], record.ttl_secs))
        .collect()
}

/// Description, counts, records, and the last bytes of the rendered ones.
type Case<'c> = (&'c str, [u16; 2], Vec<Vec<u8>>, &'c [u8]);

#[test]
fn the_addresses_of_one_rrset_are_rotated_and_all_ttls_are_aged() {
    let text = || record(TO_QUESTION, rtype::TXT, &[1, 9]);
    let written_out = || record(b"\x01q\0", rtype::A, &[192, 0, 2, 8]);
    let alias = || record(TO_QUESTION, rtype::CNAME, &[1, b'x', 0]);
    // The name in the alias's RDATA, which stands behind an owner and ten bytes.
    let of_target = |last| {
        record(
            &[0xc0, (QUESTION_END + 12) as u8],
            rtype::A,
            &[192, 0, 2, last],
        )
    };
    let cases: [Case<'_>; 9] = [
        ("A", [3, 0], vec![a(1), a(2), a(3)], &[2, 3, 1]),
        ("AAAA", [3, 0], vec![aaaa(1), aaaa(2), aaaa(3)], &[2, 3, 1]),
        ("one", [1, 0], vec![a(1)], &[1]),
        (
            "of an alias",
            [3, 0],
            vec![alias(), of_target(1), of_target(2)],
            &[0, 2, 1],
        ),
        ("other types", [2, 0], vec![text(), text()], &[9, 9]),
        (
            "a type between",
            [4, 0],
            vec![a(1), text(), a(2), a(3)],
            &[1, 9, 3, 2],
        ),
        (
            "a type behind",
            [3, 0],
            vec![a(1), a(2), text()],
            &[2, 1, 9],
        ),
        (
            "no pointer between",
            [3, 0],
            vec![a(1), written_out(), a(2)],
            &[1, 8, 2],
        ),
        (
            "authority",
            [2, 2],
            vec![a(1), a(2), a(3), a(4)],
            &[2, 1, 3, 4],
        ),
    ];
    for (what, counts, records, expected) in cases {
        let expected: Vec<_> = expected.iter().map(|&last| (last, 93)).collect();
        assert_eq!(rendered(counts, &records.concat()), expected, "{what}");
    }
}

/// Never happens with our own bodies: a record that claims to be longer than the message counts as absent.
#[test]
fn a_record_that_reaches_over_the_end_is_none() {
    for len in 5..=255 {
        let mut broken = a(2);
        broken[11] = len;
        let body = [a(1), broken].concat();
        assert_eq!(rendered([2, 0], &body), [(1, 93)], "{len}");
    }
}
