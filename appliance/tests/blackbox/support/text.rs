//! Questions and answers as text, so that tests can be tables.

use anyhow::{Context, Result};
use hickory_proto::op::{Edns, Message, ResponseCode};
use hickory_proto::rr::rdata::NULL;
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use hickory_proto::rr::{DNSClass, RData, Record, RecordType};
use hickory_proto::serialize::txt::RDataParser;
use xdnsd_lab::wait::wait_until;

use super::TIMEOUT;
use super::client::Family;
use super::message::{name, query, wire};
use super::run::Run;
use super::scene;
use super::ways::Ways;

/// Maximum age of an answer beyond what a test expects, in seconds.
const AGE_MAX_SECS: u32 = 3;

/// The same for a younger scene: its cache has nothing older than itself, in whole seconds.
pub fn age_max() -> u32 {
    AGE_MAX_SECS.max(scene::age_secs() + 1)
}

/// A query: name, type, and any of `edns`, `do`, `cd`, `ad`.
pub fn question(text: &str) -> Message {
    let mut words = text.split(' ');
    let (Some(owner), Some(kind)) = (words.next(), words.next()) else {
        panic!("{text:?} is no question");
    };
    let mut message = query(owner, record_type(kind));
    for word in words {
        match word {
            "cd" => {
                message.set_checking_disabled(true);
            }
            "ad" => {
                message.set_authentic_data(true);
            }
            "edns" | "do" => {
                let mut edns = Edns::new();
                edns.set_max_payload(1232).set_dnssec_ok(word == "do");
                message.set_edns(edns);
            }
            other => panic!("{other:?} in {text:?}"),
        }
    }
    message
}

/// A type from its name, or `TYPE65280`.
pub fn record_type(text: &str) -> RecordType {
    let number = text
        .strip_prefix("TYPE")
        .and_then(|digits| digits.parse::<u16>().ok());
    match number {
        Some(number) => RecordType::from(number),
        None => match text {
            "RRSIG" => RecordType::from(46),
            "NSEC" => RecordType::from(47),
            "DNSKEY" => RecordType::from(48),
            "NSEC3" => RecordType::from(50),
            "DS" => RecordType::from(43),
            "DNAME" => RecordType::from(39),
            _ => text
                .parse()
                .unwrap_or_else(|error| panic!("{text}: {error}")),
        },
    }
}

/// A record: `www.test. 300 A 192.0.2.1`, or with any type `x.test. 300 TYPE39 \# 03 01 61 00`.
pub fn record(text: &str) -> Record {
    let mut words = text.splitn(4, ' ');
    let mut word = || {
        words
            .next()
            .unwrap_or_else(|| panic!("{text:?} is no record"))
    };
    let (owner, ttl, kind, data) = (word(), word(), record_type(word()), word());
    let ttl = ttl
        .parse()
        .unwrap_or_else(|error| panic!("{text}: {error}"));
    let data = match data.strip_prefix("\\# ") {
        Some(digits) => RData::Unknown {
            code: kind,
            rdata: NULL::with(hex(digits)),
        },
        None => RData::try_from_str(kind, data).unwrap_or_else(|error| panic!("{text}: {error}")),
    };
    let mut record = Record::from_rdata(name(owner), ttl, data);
    record.set_dns_class(DNSClass::IN);
    record
}

/// Bytes from their hexadecimal digits.
pub fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<u8> = digits
        .chars()
        .filter_map(|digit| digit.to_digit(16).map(|value| value as u8))
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

/// Extended error of an answer (RFC 8914).
pub fn ede(message: &Message) -> Option<u16> {
    let edns = message.extensions().as_ref()?;
    let EdnsOption::Unknown(15, data) = edns.option(EdnsCode::Unknown(15))? else {
        return None;
    };
    Some(u16::from_be_bytes(*data.first_chunk()?))
}

/// Checks the code and the records of the answer section, in any order. A TTL may be slightly less than expected.
pub fn assert_answer(answer: &Message, code: ResponseCode, expected: &[&str]) {
    assert_eq!(answer.response_code(), code, "{answer}");
    assert_records(answer.answers(), expected, answer);
}

/// Checks the records of one section of `answer` in the same way.
pub fn assert_records(section: &[Record], expected: &[&str], answer: &Message) {
    let mut left: Vec<&Record> = section.iter().collect();
    for text in expected {
        let wanted = record(text);
        let same = |found: &&Record| {
            let ttls = wanted.ttl().saturating_sub(age_max())..=wanted.ttl();
            found.name() == wanted.name()
                && ttls.contains(&found.ttl())
                && found.record_type() == wanted.record_type()
                && rdata_bytes(found) == rdata_bytes(&wanted)
        };
        let Some(at) = left.iter().position(same) else {
            panic!("{text} is missing in {left:?} of {answer}");
        };
        left.swap_remove(at);
    }
    assert!(left.is_empty(), "{left:?} is not expected in {answer}");
}

/// RDATA in wire form, with names in lower case or as they are.
fn rdata_bytes(record: &Record) -> Vec<u8> {
    use hickory_proto::serialize::binary::BinEncodable;
    let data = record.data();
    if let RData::Unknown { rdata, .. } = data {
        return rdata.anything().to_vec();
    }
    data.to_bytes().expect("a test's record can be written")
}

/// Waits until every way in gives this answer: one may follow a change before another. The way of this run is asked first, and
/// the others once it has it. The error has the last answer.
pub fn wait_for_answer(
    ways: &Ways<'_>,
    text: &str,
    is_such: impl Fn(&Message) -> bool,
) -> Result<()> {
    let mut last = String::new();
    let mut comes_by = |ask: fn(&Ways<'_>, &str) -> Result<Message>| {
        let answer = ask(ways, text);
        last = match &answer {
            Ok(answer) => answer.to_string(),
            Err(error) => format!("{error:#}"),
        };
        answer.is_ok_and(|answer| is_such(&answer))
    };
    let waited = wait_until(&format!("{text} changes"), TIMEOUT, || {
        comes_by(ask_once) && comes_by(ask_all)
    });
    waited.with_context(|| last)
}

/// Asks by the way of this run alone. With two sockets for frames, one of them would fill up meanwhile.
fn ask_once(ways: &Ways<'_>, text: &str) -> Result<Message> {
    let view = ways.ask(Run::this().way(), Family::V4, &wire(&question(text)))?;
    Ok(Message::from_vec(&view.bytes)?)
}

/// Asks by every way in, and returns the answer that all of them got.
pub fn ask_all(ways: &Ways<'_>, text: &str) -> Result<Message> {
    let view = ways.same(&wire(&question(text)))?;
    Ok(Message::from_vec(&view.bytes)?)
}

/// A question, the code of its answer, and the records of the answer section.
pub type Case = (&'static str, ResponseCode, &'static [&'static str]);

/// Asks every question by every way in and compares.
pub fn check_all(ways: &Ways<'_>, cases: &[(&str, ResponseCode, &[&str])]) -> Result<()> {
    for (text, code, expected) in cases {
        let answer = ask_all(ways, text)?;
        assert_answer(&answer, *code, expected);
    }
    Ok(())
}
