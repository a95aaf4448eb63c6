//! A client's query: its question, and the checks that it is well-formed.

use super::edns::{DNSSEC_OK, Edns};
use super::header::{HEADER_LEN, Header, flag};
use super::name::{self, Name};
use super::record::{FIXED_LEN, Records};
use super::{QUESTION_FIXED_LEN, rcode, rtype};

/// Most additional records of a query: OPT, and those of a signed query.
const ADDITIONALS_MAX: u16 = 4;
/// Most records of a malformed query that are searched for its OPT record.
const RECORDS_MAX: u16 = 32;

/// A well-formed query.
#[derive(Clone, Copy, Debug)]
pub struct Query {
    /// The header as received.
    pub header: Header,
    /// QNAME in lower case. The client's letter case stays in the message.
    pub name: Name,
    /// QTYPE; never one that only OPT, TKEY or TSIG records have.
    pub qtype: u16,
    /// QCLASS, any.
    pub qclass: u16,
    /// Offset of the end of the question.
    pub question_end: usize,
    /// OPT record; `None` if there is none.
    pub edns: Option<Edns>,
}

/// Response to a message that is not a well-formed query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryError {
    /// No reply: the message is shorter than a header, or a response.
    Ignore,
    /// A reply with this RCODE that keeps the first `keep` bytes: the header, or header and question.
    Reject {
        /// RCODE.
        rcode: u8,
        /// 12, or the end of the question.
        keep: usize,
    },
    /// A reply with our cookie: the query has no question, but an OPT record with a DNS cookie (RFC 7873 section 5.4).
    CookieOnly(Edns),
}

impl QueryError {
    const fn formerr(keep: usize) -> Self {
        Self::Reject {
            rcode: rcode::FORMERR,
            keep,
        }
    }
}

impl Query {
    /// Parses a query.
    ///
    /// # Errors
    /// [`QueryError`] says how to respond to a message that is not a well-formed query.
    #[inline(always)]
    pub fn parse(message: &[u8]) -> Result<Self, QueryError> {
        let header = Header::parse(message).ok_or(QueryError::Ignore)?;
        if header.has(flag::QR) {
            return Err(QueryError::Ignore);
        }
        let [questions, answers, authorities, additionals] = header.counts;
        if header.opcode() != 0 || questions != 1 {
            return Err(Self::reject(message, &header));
        }
        let question = Question::locate(message).ok_or(QueryError::formerr(HEADER_LEN))?;
        let Question { qtype, end, .. } = question;
        // No resolver sends these: FORMERR is better than a guess at their meaning.
        if answers != 0 || authorities != 0 || additionals > ADDITIONALS_MAX || header.has(flag::TC)
        {
            return Err(QueryError::formerr(end));
        }
        let Ok(edns) = find_opt(message, end, additionals) else {
            return Err(QueryError::formerr(end));
        };
        if matches!(qtype, 0 | rtype::OPT | rtype::TKEY | rtype::TSIG) {
            return Err(QueryError::formerr(end));
        }
        Ok(Self {
            header,
            // Last, so that it is built in place and not moved.
            name: Name::lower_of(&message[HEADER_LEN..question.name_end]),
            qtype,
            qclass: question.qclass,
            question_end: end,
            edns,
        })
    }

    /// Response to another opcode, or to a message without exactly one question.
    #[cold]
    fn reject(message: &[u8], header: &Header) -> QueryError {
        if header.opcode() != 0 {
            let question = (header.counts[0] == 1).then(|| Question::locate(message));
            let keep = question
                .flatten()
                .map_or(HEADER_LEN, |question| question.end);
            return QueryError::Reject {
                rcode: rcode::NOTIMP,
                keep,
            };
        }
        let cookie_only = match header.counts {
            [0, 0, 0, additionals @ 1..=ADDITIONALS_MAX] => {
                find_opt(message, HEADER_LEN, additionals).ok().flatten()
            }
            _ => None,
        };
        match cookie_only {
            Some(edns) if edns.cookie.is_some() => QueryError::CookieOnly(edns),
            Some(_) | None => QueryError::formerr(HEADER_LEN),
        }
    }

    /// DO: the client wants DNSSEC records.
    #[must_use]
    pub fn dnssec_ok(&self) -> bool {
        self.edns.is_some_and(|edns| edns.dnssec_ok)
    }
}

/// The only question of a message: a name without pointers, behind the header.
struct Question {
    name_end: usize,
    qtype: u16,
    qclass: u16,
    /// Offset of its end.
    end: usize,
}

impl Question {
    #[inline(always)]
    fn locate(message: &[u8]) -> Option<Self> {
        let name_end = name::plain_end(message, HEADER_LEN).ok()?;
        let fixed: &[u8; QUESTION_FIXED_LEN] = message.get(name_end..)?.first_chunk()?;
        let [qtype, qclass] = [[fixed[0], fixed[1]], [fixed[2], fixed[3]]].map(u16::from_be_bytes);
        Some(Self {
            name_end,
            qtype,
            qclass,
            end: name_end + fixed.len(),
        })
    }
}

/// Finds the only OPT record among `count` additional records. Bytes behind them are ignored.
#[inline]
fn find_opt(message: &[u8], offset: usize, count: u16) -> Result<Option<Edns>, ()> {
    let mut found = None;
    for record in Records::new(message, offset, usize::from(count)) {
        let record = record.map_err(|_| ())?;
        if record.rtype != rtype::OPT {
            continue;
        }
        if found.is_some() {
            return Err(());
        }
        found = Some(Edns::parse(message, &record).map_err(|_| ())?);
    }
    Ok(found)
}

/// Makes a whole query of the first bytes of a longer one, if they end within its OPT record: options that are not there whole are
/// left out, and with them what stood behind. Such options are padding, or none of ours: a query is never that long for those
/// that have a meaning here. Returns the length; bytes that end elsewhere, and whole queries, stay as they are.
#[cold]
pub fn shorten(message: &mut [u8]) -> usize {
    shortened(message).unwrap_or(message.len())
}

fn shortened(message: &mut [u8]) -> Option<usize> {
    let mut header = Header::parse(message)?;
    let [1, 0, 0, additionals @ 1..=ADDITIONALS_MAX] = header.counts else {
        return None;
    };
    let mut at = Question::locate(message)?.end;
    for index in 0..additionals {
        let owner_end = name::skip(message, at).ok()?;
        let fixed: [u8; FIXED_LEN] = *message.get(owner_end..)?.first_chunk()?;
        let start = owner_end + FIXED_LEN;
        let end = start + usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
        if end <= message.len() {
            at = end;
            continue;
        }
        if u16::from_be_bytes([fixed[0], fixed[1]]) != rtype::OPT {
            return None;
        }
        let mut kept = start;
        // Bound: every option takes at least four bytes.
        while let Some(&[_, _, high, low]) = message.get(kept..)?.first_chunk() {
            let next = kept + 4 + usize::from(u16::from_be_bytes([high, low]));
            if next > message.len() {
                break;
            }
            kept = next;
        }
        let len = (kept - start) as u16;
        message[start - 2..start].copy_from_slice(&len.to_be_bytes());
        header.counts[3] = index + 1;
        header.emit(message)?;
        return Some(kept);
    }
    None
}

/// DO of a malformed query's OPT record; `None` if no such record is found. A reply has OPT if the query has, even a
/// malformed one (RFC 6891 section 6.1.1).
#[cold]
#[must_use]
pub fn rejected_opt(message: &[u8]) -> Option<bool> {
    let header = Header::parse(message)?;
    let [questions, others @ ..] = header.counts;
    let mut at = HEADER_LEN;
    for _ in 0..questions.min(ADDITIONALS_MAX) {
        at = name::skip(message, at).ok()? + QUESTION_FIXED_LEN;
    }
    let count = others.into_iter().fold(0, u16::saturating_add);
    Records::new(message, at, usize::from(count.min(RECORDS_MAX)))
        .map_while(Result::ok)
        .find(|record| record.rtype == rtype::OPT && message.get(record.owner) == Some(&0))
        .map(|record| record.ttl_secs & DNSSEC_OK != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn query(tail: &[u8], counts: [u16; 4], flags: u16) -> Vec<u8> {
        let mut message = std::vec![0; HEADER_LEN];
        Header {
            id: 7,
            flags,
            counts,
        }
        .emit(&mut message)
        .expect("fits");
        message.extend_from_slice(tail);
        message
    }

    const QUESTION: &[u8] = b"\x03wWw\x02ab\0\0\x01\0\x01";
    const OPT: &[u8] = b"\0\0\x29\x10\0\0\0\x80\0\0\0";

    #[test]
    fn a_query_with_edns() {
        let message = query(&[QUESTION, OPT].concat(), [1, 0, 0, 1], flag::RD);
        let query = Query::parse(&message).expect("well-formed");
        assert_eq!(query.name.as_wire(), b"\x03www\x02ab\0");
        assert_eq!(
            (query.qtype, query.qclass, query.question_end),
            (1, 1, 12 + QUESTION.len())
        );
        assert!(query.dnssec_ok() && query.edns.expect("edns").udp_limit() == 1232);
    }

    #[test]
    fn a_truncated_query_is_never_accepted() {
        let message = query(&[QUESTION, OPT].concat(), [1, 0, 0, 1], flag::RD);
        for len in 0..message.len() {
            let error = Query::parse(&message[..len]).expect_err("cut");
            assert_eq!(
                error == QueryError::Ignore,
                len < HEADER_LEN,
                "cut at {len}"
            );
        }
    }

    #[test]
    fn what_is_refused_and_how() {
        let end = 12 + QUESTION.len();
        let reject = |rcode, keep| Some(QueryError::Reject { rcode, keep });
        let parse = |message: &[u8]| Query::parse(message).err();
        assert_eq!(
            parse(&query(QUESTION, [1, 0, 0, 0], flag::QR)),
            Some(QueryError::Ignore)
        );
        assert_eq!(
            parse(&query(QUESTION, [1, 0, 0, 0], 4 << 11)),
            reject(4, end)
        );
        assert_eq!(
            parse(&query(b"\xc0\x0c\0\x06\0\x01", [1, 0, 0, 0], 4 << 11)),
            reject(4, 12)
        );
        assert_eq!(parse(&query(b"", [0, 0, 0, 0], 0)), reject(1, 12));
        assert_eq!(parse(&query(QUESTION, [2, 0, 0, 0], 0)), reject(1, 12));
        assert_eq!(
            parse(&query(b"\xc0\x0c\0\x01\0\x01", [1, 0, 0, 0], 0)),
            reject(1, 12)
        );
        assert_eq!(parse(&query(QUESTION, [1, 1, 0, 0], 0)), reject(1, end));
        assert_eq!(
            parse(&query(&[QUESTION, OPT, OPT].concat(), [1, 0, 0, 2], 0)),
            reject(1, end)
        );
        assert_eq!(
            parse(&query(QUESTION, [1, 0, 0, 0], flag::TC)),
            reject(1, end)
        );
        let cookie = b"\0\0\x29\x04\xd0\0\0\0\0\0\x0c\0\x0a\0\x08abcdefgh";
        assert!(matches!(
            parse(&query(cookie, [0, 0, 0, 1], 0)),
            Some(QueryError::CookieOnly(_))
        ));
        assert_eq!(parse(&query(OPT, [0, 0, 0, 1], 0)), reject(1, 12));
        // Trailing bytes are tolerated and not read.
        assert_eq!(
            parse(&query(&[QUESTION, b"xyz"].concat(), [1, 0, 0, 0], 0)),
            None
        );
    }

    #[test]
    fn opt_is_found_in_what_is_no_query() {
        let plain_opt = b"\0\0\x29\x04\xd0\0\0\0\0\0\0";
        let record = b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04abcd";
        for (tail, counts, expected) in [
            (&[QUESTION, OPT].concat()[..], [1, 0, 0, 1], Some(true)),
            (
                &[QUESTION, plain_opt, OPT].concat(),
                [1, 0, 0, 2],
                Some(false),
            ),
            (
                &[QUESTION, QUESTION, OPT].concat(),
                [2, 0, 0, 1],
                Some(true),
            ),
            (&[QUESTION, record, OPT].concat(), [1, 0, 1, 1], Some(true)),
            (OPT, [0, 0, 0, 1], Some(true)),
            (QUESTION, [1, 0, 0, 1], None),
            (&[QUESTION, record].concat(), [1, 0, 0, 1], None),
            (&[QUESTION, OPT].concat(), [1, 0, 0, 0], None),
            (&[QUESTION, OPT].concat(), [0xffff; 4], None),
            (&[QUESTION, b"\x01a", OPT].concat(), [1, 0, 0, 1], None),
        ] {
            let message = query(tail, counts, 0);
            assert_eq!(rejected_opt(&message), expected, "{tail:02x?} {counts:?}");
            for len in 0..message.len() {
                let _ = rejected_opt(&message[..len]);
            }
        }
    }

    /// A client that pads its query over TCP to any length, cut off at every place.
    #[test]
    fn a_query_that_ends_within_its_options_is_made_whole() {
        const COOKIE: [u8; 12] = [0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8];
        let mut tail = b"\x01a\0\0\x01\0\x01".to_vec();
        tail.extend([0, 0, 41, 4, 208, 0, 0, 128, 0, 0, 48]);
        tail.extend(COOKIE);
        // Padding (RFC 7830), and what may stand behind the record.
        tail.extend([0, 12, 0, 32]);
        tail.extend([0; 32]);
        let record_end = HEADER_LEN + tail.len();
        tail.extend([0, 0, 250, 0, 255, 0, 0, 0, 0, 0, 1, 7]);
        let whole = query(&tail, [1, 0, 0, 2], flag::RD);
        let (options, padding) = (record_end - 48, record_end - 36);
        for len in 0..=whole.len() {
            let mut message = whole[..len].to_vec();
            let kept = shorten(&mut message);
            let parsed = Query::parse(&message[..kept]);
            let expected = match len {
                _ if len < options => None,
                _ if len < padding => Some(options),
                _ if len < record_end => Some(padding),
                _ => None,
            };
            let Some(expected) = expected else {
                assert_eq!((kept, &message[..]), (len, &whole[..len]));
                continue;
            };
            assert_eq!(kept, expected, "{len}");
            let edns = parsed.expect("well-formed").edns.expect("an OPT record");
            assert!(edns.dnssec_ok && edns.udp_size == 1232);
            assert_eq!(edns.cookie.is_some(), kept == padding, "{len}");
        }
    }
}
