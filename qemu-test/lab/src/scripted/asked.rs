//! A question as received, and the plain response to it.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Instant;

/// Type A.
pub const A: u16 = 1;
/// Type TXT.
pub const TXT: u16 = 16;
const OPT: u16 = 41;

const HEADER_LEN: usize = 12;
const FLAGS: usize = 2;
const QUESTION_COUNT: Range<usize> = 4..6;
const ADDITIONAL_COUNT: Range<usize> = 10..12;
/// Bytes of type and class after a name.
const TYPE_AND_CLASS_LEN: usize = 4;
/// A label's length has six bits; a forwarder's query has no compression pointers.
const LABEL_MAX: usize = 63;

const RESPONSE: u8 = 0x80;
const TRUNCATED: u8 = 0x02;
const RECURSION_DESIRED: u8 = 0x01;
const RECURSION_AVAILABLE: u8 = 0x80;
/// Pointer to the name at the start of the question (RFC 1035 section 4.1.4).
const POINTER_TO_QNAME: [u8; 2] = [0xc0, HEADER_LEN as u8];

/// UDP payload size without EDNS (RFC 1035 section 4.2.1), and the least that EDNS may advertise.
const PLAIN_ROOM: u16 = 512;

/// A received question.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Time of arrival.
    pub at: Instant,
    /// Server address that it was sent to.
    pub server: SocketAddr,
    /// Source address.
    pub from: SocketAddr,
    /// True over TCP.
    pub is_tcp: bool,
    /// The whole query.
    pub query: Vec<u8>,
    /// Range of the QNAME in it.
    name: Range<usize>,
}

/// A record owned by the QNAME, in class IN.
#[derive(Clone, Debug)]
pub struct Record {
    /// TYPE.
    pub kind: u16,
    /// TTL.
    pub ttl_secs: u32,
    /// RDATA.
    pub data: Vec<u8>,
}

impl Asked {
    /// Parses a query over UDP. `None` if it is not a query with exactly one complete question.
    #[must_use]
    pub fn over_udp(query: &[u8], server: SocketAddr, from: SocketAddr) -> Option<Self> {
        Some(Self {
            at: Instant::now(),
            server,
            from,
            is_tcp: false,
            query: query.to_vec(),
            name: name_of(query)?,
        })
    }

    /// [`Self::over_udp`] for a query over TCP.
    #[must_use]
    pub fn over_tcp(query: &[u8], server: SocketAddr, from: SocketAddr) -> Option<Self> {
        let asked = Self::over_udp(query, server, from)?;
        Some(Self {
            is_tcp: true,
            ..asked
        })
    }

    /// The QNAME's labels in wire format, its root included.
    #[must_use]
    pub fn wire_name(&self) -> &[u8] {
        &self.query[self.name.clone()]
    }

    /// The QNAME with dots, the final one included, in its letter case. Bytes other than ASCII show as U+FFFD.
    #[must_use]
    pub fn name(&self) -> String {
        let (mut name, mut at) = (String::new(), self.name.start);
        // The name was validated: its labels end before its root.
        while at + 1 < self.name.end {
            let label = at + 1..at + 1 + usize::from(self.query[at]);
            at = label.end;
            name += &String::from_utf8_lossy(&self.query[label]);
            name.push('.');
        }
        if name.is_empty() {
            ".".to_owned()
        } else {
            name
        }
    }

    /// QTYPE.
    #[must_use]
    pub fn kind(&self) -> u16 {
        number(&self.query, self.name.end).unwrap_or_default()
    }

    /// Most bytes of a response that the client accepts.
    #[must_use]
    pub fn room(&self) -> usize {
        let room = if self.is_tcp {
            u16::MAX
        } else {
            self.edns_size().unwrap_or(PLAIN_ROOM).max(PLAIN_ROOM)
        };
        usize::from(room)
    }

    /// UDP payload size in the OPT record right after the question (RFC 6891 section 6.1.2).
    fn edns_size(&self) -> Option<u16> {
        let additional = self.name.end + TYPE_AND_CLASS_LEN;
        let has_opt = self.query[ADDITIONAL_COUNT] != [0, 0]
            && self.query.get(additional) == Some(&0)
            && number(&self.query, additional + 1) == Some(OPT);
        number(&self.query, additional + 3).filter(|_| has_opt)
    }

    /// NOERROR with these records, without OPT. If they exceed the client's limit, an empty response with TC.
    #[must_use]
    pub fn response(&self, records: &[Record]) -> Vec<u8> {
        let whole = self.response_of(records, 0);
        if whole.len() <= self.room() {
            return whole;
        }
        self.response_of(&[], TRUNCATED)
    }

    fn response_of(&self, records: &[Record], flags: u8) -> Vec<u8> {
        let mut response = self.query[..FLAGS].to_vec();
        let desired = self.query[FLAGS] & RECURSION_DESIRED;
        response.extend([RESPONSE | desired | flags, RECURSION_AVAILABLE]);
        for count in [1, records.len(), 0, 0] {
            response.extend((count as u16).to_be_bytes());
        }
        response.extend(&self.query[HEADER_LEN..self.name.end + TYPE_AND_CLASS_LEN]);
        for record in records {
            response.extend(POINTER_TO_QNAME);
            response.extend(record.kind.to_be_bytes());
            response.extend([0, 1]);
            response.extend(record.ttl_secs.to_be_bytes());
            response.extend((record.data.len() as u16).to_be_bytes());
            response.extend(&record.data);
        }
        response
    }
}

/// Range of the only question's name.
fn name_of(query: &[u8]) -> Option<Range<usize>> {
    if query.len() < HEADER_LEN || query[FLAGS] & RESPONSE != 0 || query[QUESTION_COUNT] != [0, 1] {
        return None;
    }
    let mut at = HEADER_LEN;
    // Each turn advances by at least a byte, and the query is finite.
    loop {
        let len = usize::from(*query.get(at)?);
        if len > LABEL_MAX {
            return None;
        }
        at += 1 + len;
        if len == 0 {
            let is_whole = query.len() >= at + TYPE_AND_CLASS_LEN;
            return is_whole.then_some(HEADER_LEN..at);
        }
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::{A, Asked, Record, TXT};

    const SERVER: &str = "192.0.2.53:53";

    fn query(question: &[u8], additional: &[u8]) -> Vec<u8> {
        let count = u8::from(!additional.is_empty());
        let header = [0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, count];
        [&header, question, additional].concat()
    }

    fn over_udp(query: &[u8]) -> Option<Asked> {
        let server = SERVER.parse().expect("an address");
        Asked::over_udp(query, server, server)
    }

    fn record(len: usize) -> Record {
        Record {
            kind: TXT,
            ttl_secs: 0x0102_0304,
            data: vec![0xa5; len],
        }
    }

    #[test]
    fn a_question_is_read_with_its_letter_case() {
        let asked = over_udp(&query(b"\x03wWw\x04test\0\0\x10\0\x01", &[])).expect("a query");
        assert_eq!(asked.name(), "wWw.test.");
        assert_eq!(asked.wire_name(), b"\x03wWw\x04test\0");
        assert_eq!(asked.kind(), TXT);
        let root = over_udp(&query(b"\0\0\x01\0\x01", &[])).expect("a query");
        assert_eq!((root.name().as_str(), root.kind()), (".", A));
    }

    #[test]
    fn what_is_no_query_is_not_taken() {
        let whole = query(b"\x01a\0\0\x01\0\x01", &[]);
        assert!(over_udp(&whole).is_some());
        for len in 0..whole.len() {
            assert!(over_udp(&whole[..len]).is_none(), "{len} bytes");
        }
        for (at, value, what) in [
            (2, 0x81, "a response"),
            (5, 2, "two questions"),
            (5, 0, "no question"),
            (12, 0xc0, "a pointer"),
        ] {
            // So that any label length fits.
            let mut wrong = [whole.as_slice(), &[0; 512]].concat();
            assert!(over_udp(&wrong).is_some());
            wrong[at] = value;
            assert!(over_udp(&wrong).is_none(), "{what}");
        }
    }

    #[test]
    fn a_response_has_the_id_the_question_and_the_records() {
        let question = b"\x01A\0\0\x10\0\x01";
        let asked = over_udp(&query(question, &[])).expect("a query");
        let header = [0xab, 0xcd, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
        let record_bytes = b"\xc0\x0c\0\x10\0\x01\x01\x02\x03\x04\0\x02\xa5\xa5";
        let wanted = [&header, question.as_slice(), record_bytes].concat();
        assert_eq!(asked.response(&[record(2)]), wanted);
    }

    #[test]
    fn what_the_asker_has_no_room_for_is_truncated() {
        let question = b"\x01a\0\0\x10\0\x01";
        let opt = |size: u16| {
            let [high, low] = size.to_be_bytes();
            vec![0, 0, 41, high, low, 0, 0, 0, 0, 0, 0]
        };
        // Header, question, and a record without its data.
        let other_len = 12 + question.len() + 12;
        for (additional, room) in [(vec![], 512), (opt(1232), 1232), (opt(100), 512)] {
            let asked = over_udp(&query(question, &additional)).expect("a query");
            assert_eq!(asked.room(), room);
            let fits = asked.response(&[record(room - other_len)]);
            assert_eq!((fits.len(), fits[2], fits[7]), (room, 0x81, 1));
            let cut = asked.response(&[record(room - other_len + 1)]);
            assert_eq!((cut.len(), cut[2], cut[7]), (12 + question.len(), 0x83, 0));
            let server = asked.server;
            let asked = Asked::over_tcp(&asked.query, server, server).expect("a query");
            assert_eq!(asked.room(), 65_535);
        }
    }
}
