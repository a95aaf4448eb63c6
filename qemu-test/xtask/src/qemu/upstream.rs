//! A name server for the guest, on this host: every answer is a function of its question.
//!
//! | name | answer |
//! |---|---|
//! | `big…` TXT | 12 strings of 200 bytes: truncated over UDP |
//! | any A | an address derived from the name's bytes, so that a wrong answer shows |
//! | anything else | NODATA |

use std::net::Ipv4Addr;

use anyhow::Result;
use xdnsd_lab::scripted::{self, A, Asked, Record, Rule, TXT};

/// TTL of every answer: longer than any test.
const TTL_SECS: u32 = 3600;
const BIG_STRINGS: usize = 12;
const BIG_STRING_LEN: usize = 200;

/// The server, until it is dropped.
#[derive(Debug)]
pub struct Upstream {
    /// Its port, for UDP and TCP.
    pub port: u16,
    _server: scripted::Upstream,
}

impl Upstream {
    /// Starts it on `address`, at a free port.
    pub fn start(address: Ipv4Addr) -> Result<Self> {
        let mut server = scripted::Upstream::without_record(Rule::answer(answer));
        let address = server.serve((address, 0).into())?;
        Ok(Self {
            port: address.port(),
            _server: server,
        })
    }
}

fn answer(asked: &Asked) -> Vec<u8> {
    let name = asked.wire_name();
    let is_big = name
        .get(1..4)
        .is_some_and(|label| label.eq_ignore_ascii_case(b"big"));
    let data = match asked.kind() {
        A => Some(address_of(name).octets().to_vec()),
        TXT if is_big => Some(big_data()),
        _ => None,
    };
    let record = data.map(|data| Record {
        kind: asked.kind(),
        ttl_secs: TTL_SECS,
        data,
    });
    asked.response(record.as_slice())
}

fn big_data() -> Vec<u8> {
    let string = [&[200_u8][..], &[b'x'; BIG_STRING_LEN]].concat();
    string.repeat(BIG_STRINGS)
}

/// Address of a name in wire format, independent of letter case: FNV-1a within 198.18.0.0/15.
fn address_of(name: &[u8]) -> Ipv4Addr {
    let hash = name.iter().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte.to_ascii_lowercase())).wrapping_mul(0x0100_0193)
    });
    Ipv4Addr::from(0xc612_0000 | (hash & 0x0001_ffff))
}

/// Address of `name`, given with dots.
#[must_use]
pub fn expected(name: &str) -> String {
    let mut wire = Vec::new();
    for label in name.trim_end_matches('.').split('.') {
        wire.push(u8::try_from(label.len()).expect("a label of a test is short"));
        wire.extend(label.bytes());
    }
    wire.push(0);
    address_of(&wire).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRUNCATED: u8 = 0x02;

    fn query(name: &[u8], kind: u16) -> Vec<u8> {
        let header = [0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        [&header, name, &kind.to_be_bytes(), &[0, 1]].concat()
    }

    /// The answer to these bytes.
    fn respond(query: &[u8], is_udp: bool) -> Option<Vec<u8>> {
        let read = if is_udp {
            Asked::over_udp
        } else {
            Asked::over_tcp
        };
        let server = "192.0.2.53:53".parse().expect("an address");
        read(query, server, server).map(|asked| answer(&asked))
    }

    #[test]
    fn address_follows_from_the_name_in_either_case() {
        let response = respond(&query(b"\x01A\x04test\0", A), true).expect("a response");
        assert_eq!(&response[..4], [0xab, 0xcd, 0x81, 0x80]);
        let last: [u8; 4] = response[response.len() - 4..]
            .try_into()
            .expect("four bytes");
        assert_eq!(Ipv4Addr::from(last).to_string(), expected("a.test"));
        assert_ne!(expected("a.test"), expected("b.test"));
    }

    #[test]
    fn big_answer_is_truncated_over_udp_and_whole_over_tcp() {
        let query = query(b"\x03big\x04test\0", TXT);
        let short = respond(&query, true).expect("a response");
        assert_eq!(short[2] & TRUNCATED, TRUNCATED);
        let long = respond(&query, false).expect("a response");
        assert_eq!(long[2] & TRUNCATED, 0);
        assert!(long.len() > BIG_STRINGS * BIG_STRING_LEN);
    }

    #[test]
    fn what_is_no_query_gets_nothing() {
        assert_eq!(respond(&[], true), None);
        let whole = query(b"\x01a\0", A);
        for len in 0..whole.len() {
            assert_eq!(respond(&whole[..len], true), None, "{len} bytes");
        }
    }
}
