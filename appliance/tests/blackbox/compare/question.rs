//! A question, and how it is asked.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};

use anyhow::{Context, Result};

use crate::support::TIMEOUT;
use crate::support::random::Random;

/// Types that are asked for: A and AAAA most often, then others, including some without records.
const TYPES: &[u16] = &[
    1, 1, 1, 1, 28, 28, 28, 16, 16, 15, 33, 5, 2, 6, 43, 65, 65, 255, 48, 12, 64, 257, 35, 44, 52,
    39, 46, 47, 50, 65280, 65281,
];
/// Prefixes of the names of aliases.
const ALIASES: &[&str] = &[
    "c",
    "to-",
    "out-",
    "loop",
    "dangling",
    "one.cwild",
    "host.dname",
    "deep.host.dname",
];
const RD: u8 = 0x01;
const AD: u8 = 0x20;
const CD: u8 = 0x10;
const DO: u8 = 0x80;

/// A question with everything that may change its answer.
#[derive(Clone, Debug)]
pub struct Question {
    /// Name for reports.
    pub name: String,
    pub qtype: u16,
    /// RD, AD and CD.
    pub rd: bool,
    pub ad: bool,
    pub cd: bool,
    /// Advertised size and DO, with EDNS.
    pub edns: Option<(u16, bool)>,
    pub over_tcp: bool,
    /// True if the name is that of a CNAME, or below a DNAME.
    pub is_alias: bool,
    /// The message, with ID 0.
    pub wire: Vec<u8>,
}

impl Question {
    /// A question about `name`; the rest is random.
    pub fn random(name: &str, random: &mut Random) -> Self {
        let qtype = match name.strip_suffix("in-addr.arpa.") {
            Some(_) if random.percent(80) => 12,
            _ => random.pick(TYPES),
        };
        let edns = random.percent(70).then(|| {
            let size = random.pick(&[512, 1232, 1232, 1400, 4096, 0, 65535]);
            (size, random.percent(45))
        });
        let mut question = Self {
            name: name.to_owned(),
            qtype,
            rd: !random.percent(3),
            ad: random.percent(10),
            cd: random.percent(10),
            edns,
            over_tcp: random.percent(20),
            is_alias: ALIASES.iter().any(|start| name.starts_with(start)),
            wire: Vec::new(),
        };
        let odd_case = random.percent(40);
        question.wire = question.write(odd_case.then_some(random));
        question
    }

    fn write(&self, odd_case: Option<&mut Random>) -> Vec<u8> {
        let mut wire = vec![0; 12];
        wire[2] = if self.rd { RD } else { 0 };
        wire[3] = if self.ad { AD } else { 0 } | if self.cd { CD } else { 0 };
        wire[5] = 1;
        wire[11] = u8::from(self.edns.is_some());
        let name_at = wire.len();
        write_name(&mut wire, &self.name);
        if let Some(random) = odd_case {
            // A length byte is never a letter: it is at most 63, and letters begin at 65.
            let letters = wire[name_at..]
                .iter_mut()
                .filter(|byte| byte.is_ascii_alphabetic());
            for letter in letters {
                if random.percent(50) {
                    *letter ^= 0x20;
                }
            }
        }
        wire.extend(self.qtype.to_be_bytes());
        wire.extend([0, 1]);
        if let Some((size, dnssec_ok)) = self.edns {
            let flags = if dnssec_ok { DO } else { 0 };
            wire.extend([0, 0, 41]);
            wire.extend(size.to_be_bytes());
            wire.extend([0, 0, flags, 0, 0, 0]);
        }
        wire
    }

    /// Maximum length of the answer, in bytes.
    pub fn len_max(&self) -> usize {
        let over_udp = self
            .edns
            .map_or(512, |(size, _)| usize::from(size).clamp(512, 1232));
        if self.over_tcp { 65_535 } else { over_udp }
    }

    pub fn dnssec_ok(&self) -> bool {
        self.edns.is_some_and(|(_, dnssec_ok)| dnssec_ok)
    }

    /// Asks `server` from the namespace of the calling thread.
    pub fn ask(&self, server: SocketAddr, udp: &UdpSocket, id: u16) -> Result<Vec<u8>> {
        let mut wire = self.wire.clone();
        wire[..2].copy_from_slice(&id.to_be_bytes());
        if self.over_tcp {
            return ask_tcp(server, &wire);
        }
        udp.send(&wire)?;
        let mut answer = [0; 65_535];
        loop {
            let len = udp.recv(&mut answer).context("no answer")?;
            if answer[..2] == wire[..2] {
                return Ok(answer[..len].to_vec());
            }
        }
    }
}

/// Writes the wire form of a name in zone file syntax, with `\\.` and `\\DDD` (RFC 1035 section 5.1).
fn write_name(wire: &mut Vec<u8>, name: &str) {
    let mut label = Vec::new();
    let mut rest = name.as_bytes();
    loop {
        rest = match rest {
            [] => break,
            [b'.', rest @ ..] => {
                if !label.is_empty() {
                    wire.push(label.len() as u8);
                    wire.append(&mut label);
                }
                rest
            }
            [b'\\', a @ b'0'..=b'9', b, c, rest @ ..] => {
                let digits = [*a, *b, *c].map(|digit| u32::from(digit - b'0'));
                label.push((100 * digits[0] + 10 * digits[1] + digits[2]) as u8);
                rest
            }
            [b'\\', byte, rest @ ..] | [byte, rest @ ..] => {
                label.push(*byte);
                rest
            }
        };
    }
    wire.push(0);
}

fn ask_tcp(server: SocketAddr, wire: &[u8]) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&server, TIMEOUT).context("connect")?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let mut message = (wire.len() as u16).to_be_bytes().to_vec();
    message.extend(wire);
    stream.write_all(&message)?;
    let mut len = [0; 2];
    stream.read_exact(&mut len).context("no answer over TCP")?;
    let mut answer = vec![0; u16::from_be_bytes(len).into()];
    stream.read_exact(&mut answer).context("half an answer")?;
    Ok(answer)
}
