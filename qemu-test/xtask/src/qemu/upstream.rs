//! A name server for the guest to ask, on this host: every answer follows from its question.
//!
//! | name | answer |
//! |---|---|
//! | `big…` TXT | 12 strings of 200 bytes: truncated over UDP |
//! | any A | an address made of the name's bytes, so that a wrong answer shows |
//! | anything else | no data |
//!
//! It keeps no state.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

/// The TTL of every answer: longer than any test.
const TTL: u32 = 3600;
/// Between two looks at whether to end.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
const HEADER_LEN: usize = 12;
const TYPE_A: u16 = 1;
const TYPE_TXT: u16 = 16;
const FLAG_RESPONSE: u8 = 0x80;
const FLAG_TRUNCATED: u8 = 0x02;
const FLAG_RECURSION_AVAILABLE: u8 = 0x80;
const BIG_STRINGS: usize = 12;
const BIG_STRING_LEN: usize = 200;

/// The server, until it is dropped.
#[derive(Debug)]
pub struct Upstream {
    /// Where it listens, UDP and TCP.
    pub port: u16,
    is_over: Arc<AtomicBool>,
}

impl Upstream {
    /// Starts it on `address`, at any port.
    pub fn start(address: Ipv4Addr) -> Result<Self> {
        let udp = UdpSocket::bind((address, 0)).context("bind the upstream's UDP socket")?;
        let port = udp
            .local_addr()
            .context("a bound socket has an address")?
            .port();
        let tcp = TcpListener::bind((address, port)).context("bind the upstream's TCP socket")?;
        let server = Self {
            port,
            is_over: Arc::default(),
        };
        udp.set_read_timeout(Some(LOOK_INTERVAL))
            .context("limit the wait of a socket")?;
        tcp.set_nonblocking(true)
            .context("make a socket non-blocking")?;
        let is_over = Arc::clone(&server.is_over);
        thread::spawn(move || serve_udp(&udp, &is_over));
        let is_over = Arc::clone(&server.is_over);
        thread::spawn(move || serve_tcp(&tcp, &is_over));
        Ok(server)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

fn serve_udp(socket: &UdpSocket, is_over: &AtomicBool) {
    let mut query = [0; 4096];
    while !is_over.load(Ordering::Relaxed) {
        let Ok((len, client)) = socket.recv_from(&mut query) else {
            continue;
        };
        if let Some(response) = respond(&query[..len], true) {
            send(socket, &response, client);
        }
    }
}

fn send(socket: &UdpSocket, response: &[u8], client: SocketAddr) {
    // The guest may be gone; it asks again if it is not.
    drop(socket.send_to(response, client));
}

fn serve_tcp(listener: &TcpListener, is_over: &AtomicBool) {
    while !is_over.load(Ordering::Relaxed) {
        let Ok((mut stream, _)) = listener.accept() else {
            thread::sleep(LOOK_INTERVAL / 10);
            continue;
        };
        // One question per connection is all that a test needs; an error ends the connection.
        drop(stream.set_nonblocking(false));
        drop(stream.set_read_timeout(Some(Duration::from_secs(2))));
        while let Some(response) = read_query(&mut stream) {
            let len = u16::try_from(response.len())
                .unwrap_or(u16::MAX)
                .to_be_bytes();
            if stream
                .write_all(&[&len, response.as_slice()].concat())
                .is_err()
            {
                break;
            }
        }
    }
}

fn read_query(stream: &mut impl Read) -> Option<Vec<u8>> {
    let mut len = [0; 2];
    stream.read_exact(&mut len).ok()?;
    let mut query = vec![0; usize::from(u16::from_be_bytes(len))];
    stream.read_exact(&mut query).ok()?;
    respond(&query, false)
}

/// The response to a query with one question, or nothing for anything else.
fn respond(query: &[u8], is_udp: bool) -> Option<Vec<u8>> {
    let question = question_of(query)?;
    let (name, fixed) = question.split_at(question.len() - 4);
    let qtype = u16::from_be_bytes([fixed[0], fixed[1]]);
    let is_big = qtype == TYPE_TXT && name.get(1..4)?.eq_ignore_ascii_case(b"big");
    let mut response = query[..2].to_vec();
    let truncated = if is_big && is_udp { FLAG_TRUNCATED } else { 0 };
    let recursion_desired = query[2] & 1;
    response.extend([
        FLAG_RESPONSE | truncated | recursion_desired,
        FLAG_RECURSION_AVAILABLE,
    ]);
    let answers = u16::from(qtype == TYPE_A || (is_big && !is_udp));
    for count in [1, answers, 0, 0] {
        response.extend(count.to_be_bytes());
    }
    response.extend(question);
    if answers == 1 {
        let data = if qtype == TYPE_A {
            address_of(name).octets().to_vec()
        } else {
            big_data()
        };
        response.extend([0xc0, 12]);
        response.extend(fixed);
        response.extend(TTL.to_be_bytes());
        response.extend(u16::try_from(data.len()).ok()?.to_be_bytes());
        response.extend(data);
    }
    Some(response)
}

/// Name, type and class of the only question.
fn question_of(query: &[u8]) -> Option<&[u8]> {
    if query.get(4..6)? != [0, 1] || query[2] & FLAG_RESPONSE != 0 {
        return None;
    }
    let mut at = HEADER_LEN;
    loop {
        let len = usize::from(*query.get(at)?);
        at += 1 + len;
        if len == 0 {
            return query.get(HEADER_LEN..at + 4);
        }
    }
}

fn big_data() -> Vec<u8> {
    let string = [&[200_u8][..], &[b'x'; BIG_STRING_LEN]].concat();
    string.repeat(BIG_STRINGS)
}

/// The address of a name in wire format, the same for either case: FNV-1a within 198.18.0.0/15.
fn address_of(name: &[u8]) -> Ipv4Addr {
    let hash = name.iter().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte.to_ascii_lowercase())).wrapping_mul(0x0100_0193)
    });
    Ipv4Addr::from(0xc612_0000 | (hash & 0x0001_ffff))
}

/// The address that `name`, with dots, is answered with.
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

    fn query(name: &[u8], qtype: u16) -> Vec<u8> {
        let header = [0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        [&header, name, &qtype.to_be_bytes(), &[0, 1]].concat()
    }

    #[test]
    fn address_follows_from_the_name_in_either_case() {
        let response = respond(&query(b"\x01A\x04test\0", TYPE_A), true).expect("a response");
        assert_eq!(&response[..4], [0xab, 0xcd, 0x81, 0x80]);
        let last: [u8; 4] = response[response.len() - 4..]
            .try_into()
            .expect("four bytes");
        assert_eq!(Ipv4Addr::from(last).to_string(), expected("a.test"));
        assert_ne!(expected("a.test"), expected("b.test"));
    }

    #[test]
    fn big_answer_is_truncated_over_udp_and_whole_over_tcp() {
        let query = query(b"\x03big\x04test\0", TYPE_TXT);
        let short = respond(&query, true).expect("a response");
        assert_eq!(short[2] & FLAG_TRUNCATED, FLAG_TRUNCATED);
        let long = respond(&query, false).expect("a response");
        assert_eq!(long[2] & FLAG_TRUNCATED, 0);
        assert!(long.len() > BIG_STRINGS * BIG_STRING_LEN);
    }

    #[test]
    fn what_is_no_query_gets_nothing() {
        assert_eq!(respond(&[], true), None);
        let whole = query(b"\x01a\0", TYPE_A);
        for len in 0..whole.len() {
            assert_eq!(respond(&whole[..len], true), None, "{len} bytes");
        }
    }
}
