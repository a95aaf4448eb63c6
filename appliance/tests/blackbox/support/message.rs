//! DNS messages by an independent implementation, and what must hold for every answer.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context, Result, ensure};
use hickory_proto::op::{Edns, Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, MX, TXT};
use hickory_proto::rr::{Name, RData, RecordType};

/// Largest answer over UDP to a client without EDNS, in bytes (RFC 1035 section 4.2.1).
pub const PLAIN_LEN_MAX: usize = 512;
/// Largest answer over UDP to any client, in bytes (RFC 9715).
pub const UDP_LEN_MAX: usize = 1232;
/// Length of the header.
pub const HEADER_LEN: usize = 12;

/// A query with RD, and an ID that no other query of this process has had lately.
pub fn query(name: &str, kind: RecordType) -> Message {
    static NEXT_ID: AtomicU16 = AtomicU16::new(0x1001);
    let mut query = Message::new();
    query
        .set_id(NEXT_ID.fetch_add(1, Ordering::Relaxed))
        .set_recursion_desired(true)
        .add_query(Query::query(self::name(name), kind));
    query
}

/// A query with an OPT record that advertises `size`, which hickory raises to 512.
pub fn query_edns(name: &str, kind: RecordType, size: u16) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(size);
    let mut query = query(name, kind);
    query.set_edns(edns);
    query
}

/// The bytes on the wire.
pub fn wire(message: &Message) -> Vec<u8> {
    message
        .to_vec()
        .expect("a message of a test can be written")
}

/// A name, keeping its letter case.
pub fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// An A or AAAA record's data.
pub fn address(text: &str) -> RData {
    match text.parse() {
        Ok(IpAddr::V4(v4)) => RData::A(A(v4)),
        Ok(IpAddr::V6(v6)) => RData::AAAA(AAAA(v6)),
        Err(error) => panic!("{text}: {error}"),
    }
}

/// A CNAME record's data.
pub fn cname(target: &str) -> RData {
    RData::CNAME(CNAME(name(target)))
}

/// An MX record's data.
pub fn mx(preference: u16, exchange: &str) -> RData {
    RData::MX(MX::new(preference, name(exchange)))
}

/// A TXT record's data: one string of `len` letters that differs by `number`.
pub fn txt(number: usize, len: usize) -> RData {
    let text: String = format!("{number:04}-")
        .chars()
        .chain(('a'..='z').cycle())
        .take(len)
        .collect();
    RData::TXT(TXT::new(vec![text]))
}

/// Parses the answer to `query` in a datagram, which must not exceed the client's size.
pub fn read_answer(query: &[u8], answer: &[u8]) -> Result<Message> {
    let asked = Message::from_vec(query).context("the query")?;
    let edns = asked.extensions().as_ref();
    let may_get = edns.map_or(PLAIN_LEN_MAX, |edns| usize::from(edns.max_payload()));
    let may_get = may_get.clamp(PLAIN_LEN_MAX, UDP_LEN_MAX);
    ensure!(
        answer.len() <= may_get,
        "{} bytes to a client that may get {may_get}",
        answer.len()
    );
    read_long_answer(query, answer)
}

/// Parses the answer to `query` and checks what holds for every answer: same ID, same question in the same letter case, flags,
/// and OPT if and only if the query had one.
pub fn read_long_answer(query: &[u8], answer: &[u8]) -> Result<Message> {
    let asked = Message::from_vec(query).context("the query")?;
    let message = Message::from_vec(answer).with_context(|| format!("the answer {answer:02x?}"))?;
    ensure!(message.id() == asked.id(), "another ID: {message}");
    ensure!(
        message.message_type() == MessageType::Response,
        "QR is not set: {message}"
    );
    ensure!(
        message.op_code() == asked.op_code()
            && message.recursion_desired() == asked.recursion_desired()
            && message.recursion_available()
            && !message.authoritative(),
        "flags: {message}"
    );
    let question = HEADER_LEN..question_end(query)?;
    ensure!(
        answer.get(question.clone()) == query.get(question),
        "another question, or another letter case: {message}"
    );
    ensure!(
        message.extensions().is_some() == asked.extensions().is_some(),
        "OPT where the query has none, or the reverse: {message}"
    );
    Ok(message)
}

/// Offset of the end of a query's question.
fn question_end(query: &[u8]) -> Result<usize> {
    let mut at = HEADER_LEN;
    loop {
        let len = usize::from(*query.get(at).context("the question ends in its name")?);
        at += 1 + len;
        if len == 0 {
            return Ok(at + 4);
        }
    }
}

/// Data of the answer section's records of type `kind`, sorted: RRsets have no order.
pub fn answers(message: &Message, kind: RecordType) -> Vec<String> {
    let of_kind = message
        .answers()
        .iter()
        .filter(|record| record.record_type() == kind);
    let mut data: Vec<String> = of_kind.map(|record| record.data().to_string()).collect();
    data.sort();
    data
}

/// Addresses of the answer section, sorted. The answer has to be NOERROR.
pub fn addresses(message: &Message) -> Vec<String> {
    assert_eq!(message.response_code(), ResponseCode::NoError, "{message}");
    let mut all = answers(message, RecordType::A);
    all.extend(answers(message, RecordType::AAAA));
    all
}

/// Smallest TTL of the answer section.
pub fn ttl(message: &Message) -> u32 {
    let ttls = message.answers().iter().map(|record| record.ttl());
    ttls.min().unwrap_or_else(|| panic!("no answer: {message}"))
}
