//! Frames of a flood: a template of each kind, and the program that derives 2^32 different ones from it, or 2^64 with random names.
//!
//! ```text
//!   IPv4   source, low half   +  identification        IPv6   source, last 16 bits
//!   TCP    sequence, low half                          UDP    the message's first 16 bits
//!
//!   TCP    source port        +  sequence, high half   UDP    source port + two letters of the name
//!                                                      twice  two letters + two letters of the name
//! ```
//! A 16-bit word is random, and its partners are its complement. Together they add up to 0xffff, so every frame has the checksums
//! of its template.

use std::io;
use std::net::IpAddr;
use std::ops::Range;

use xdnsd_abi::checksum::Sum;
use xdnsd_abi::headers::{dns, ethernet, ethernet::ethertype, ipv4, ipv6, protocol, tcp, udp};

use super::Kind;
use crate::bpf::instruction::{Instruction, R0, R1, R2, R6, R7};
use crate::bpf::{XDP_DROP, maps};

/// TCP option of a usual SYN: MSS 1460 (RFC 9293 section 3.7.1).
const MSS: [u8; 4] = [2, 4, 0x05, 0xb4];
const TTL: u8 = 64;
/// Random bytes, in the template.
const RANDOM: [u8; 2] = [0, 0];
/// Their complement, in the template.
const COMPLEMENT: [u8; 2] = [0xff, 0xff];
/// Source port, if it is fixed.
const CLIENT_PORT: [u8; 2] = [0xc0, 0x00];

/// Source and destination of a flood.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// MAC address of the sending interface.
    pub from_mac: [u8; 6],
    /// MAC address of the flooded interface.
    pub to_mac: [u8; 6],
    /// Source address; its last 16 bits are drawn for each frame.
    pub from: IpAddr,
    /// Destination address, of the same family.
    pub to: IpAddr,
    /// Destination port.
    pub port: u16,
}

/// A frame, with the offsets that the program writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// The frame, with full checksums.
    pub frame: Vec<u8>,
    /// Words of the source address.
    address: Words,
    port: Option<Words>,
    /// Letters of a random name, from a random number of their own.
    letters: &'static [Words],
}

/// A random word and its partners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Words {
    random: usize,
    /// Partner in the IPv4 header.
    header: Option<usize>,
    /// Partner in the bytes that the transport's checksum covers.
    transport: usize,
}

impl Template {
    /// Template of `kind` between `ends`. `qname` is the name of queries, in wire format.
    #[must_use]
    pub fn new(kind: Kind, ends: &Ends, qname: &[u8]) -> Self {
        let mut transport = match kind {
            Kind::Syn => segment(tcp::flag::SYN, &MSS),
            Kind::Ack => segment(tcp::flag::ACK, &[]),
            Kind::Rst => segment(tcp::flag::RST, &[]),
            Kind::Query => datagram(&message(0x0100, qname)),
            Kind::Names => datagram(&message(0x0100, &random_name(qname))),
            Kind::Response => datagram(&message(0x8180, qname)),
            Kind::Garbage => datagram(&COMPLEMENT),
        };
        let has_port = kind.is_tcp() || kind == Kind::Names;
        let source_port = if has_port { RANDOM } else { CLIENT_PORT };
        // TCP has its ports at the same offsets.
        transport[udp::field::SOURCE_PORT].copy_from_slice(&source_port);
        transport[udp::field::DESTINATION_PORT].copy_from_slice(&ends.port.to_be_bytes());
        let (protocol, checksum) = if kind.is_tcp() {
            (protocol::TCP, tcp::field::CHECKSUM)
        } else {
            (protocol::UDP, udp::field::CHECKSUM)
        };
        let header = header(ends, protocol, transport.len());
        let sum = pseudo_sum(ends, protocol, transport.len()).add_bytes(&transport);
        // TCP lacks the rule for a zero checksum, but to a receiver both values are equal.
        transport[checksum].copy_from_slice(&sum.finish_udp().to_be_bytes());
        let start = ethernet::HEADER_LEN + header.len();
        let (v4, source) = match ends.to {
            IpAddr::V4(_) => (true, ipv4::field::SOURCE),
            IpAddr::V6(_) => (false, ipv6::field::SOURCE),
        };
        let (near, far) = if kind.is_tcp() {
            (tcp::field::SEQUENCE.start + 2, tcp::field::SEQUENCE.start)
        } else {
            (udp::HEADER_LEN, NAME_LETTERS)
        };
        let ethertype = if v4 { ethertype::IPV4 } else { ethertype::IPV6 };
        let frame = [
            ends.to_mac.as_slice(),
            &ends.from_mac,
            &ethertype.to_be_bytes(),
            &header,
            &transport,
        ];
        Self {
            frame: frame.concat(),
            address: Words {
                random: ethernet::HEADER_LEN + source.end - 2,
                header: v4.then_some(ethernet::HEADER_LEN + ipv4::field::ID.start),
                transport: start + near,
            },
            port: has_port.then_some(Words {
                random: start + udp::field::SOURCE_PORT.start,
                header: None,
                transport: start + far,
            }),
            letters: letters_of(kind, v4),
        }
    }

    /// A frame that the program might make.
    #[must_use]
    pub fn sample(&self) -> Vec<u8> {
        /// Any value would do, except a port that is never answered.
        const DRAWN: u16 = 0xc35a;
        let mut frame = self.frame.clone();
        let port = self.port.as_ref();
        for words in [&self.address].into_iter().chain(port).chain(self.letters) {
            let mut write = |at: usize, word: u16| {
                frame[at..at + 2].copy_from_slice(&word.to_be_bytes());
            };
            write(words.random, DRAWN);
            write(words.transport, !DRAWN);
            if let Some(header) = words.header {
                write(header, !DRAWN);
            }
        }
        frame
    }

    /// Program that makes a random frame and sends it out of `ifindex`, when due by `pace`.
    #[must_use]
    pub fn program(&self, ifindex: u32, pace: Option<&Pace>) -> Vec<Instruction> {
        const DATA: i16 = 0;
        const DATA_END: i16 = 4;
        const HELPER_RANDOM: i32 = 7;
        const HELPER_REDIRECT: i32 = 23;
        let mut body = pace.map_or_else(Vec::new, Pace::wait);
        body.push(Instruction::call(HELPER_RANDOM));
        // The whole frame: a host that answers in place leaves the answer there for the next one.
        body.extend(Instruction::store_bytes(R6, 0, &self.frame));
        body.extend(self.address.write(0));
        body.extend(self.port.iter().flat_map(|words| words.write(16)));
        if !self.letters.is_empty() {
            body.push(Instruction::call(HELPER_RANDOM));
        }
        let letters = self.letters.iter().zip([0, 16]);
        body.extend(letters.flat_map(|(words, shift)| words.write(shift)));
        body.extend([
            Instruction::set(R1, ifindex as i32),
            Instruction::set(R2, 0),
            Instruction::call(HELPER_REDIRECT),
        ]);
        let mut program = vec![
            Instruction::load_u32(R6, R1, DATA),
            Instruction::load_u32(R1, R1, DATA_END),
            // Checks that there is room for all that is written; otherwise the result stays 0, XDP_ABORTED.
            Instruction::set(R0, 0),
            Instruction::copy(R2, R6),
            Instruction::add(R2, self.frame.len() as i32),
            Instruction::skip_if_greater(R2, R1, body.len() as i16),
        ];
        program.extend(body);
        program.push(Instruction::exit());
        program
    }
}

/// Rate limit of a flood. Frames that are not due are dropped.
#[derive(Debug)]
pub struct Pace {
    /// When the next frame is due, in nanoseconds of CLOCK_MONOTONIC.
    next: maps::Words,
    interval_ns: i32,
}

impl Pace {
    /// At most a million million.
    ///
    /// # Errors
    /// The kernel refused the map.
    pub fn new(per_sec: u32) -> io::Result<Self> {
        const NANOS_PER_SEC: u32 = 1_000_000_000;
        let interval_ns = i32::try_from(NANOS_PER_SEC / per_sec.max(1)).unwrap_or(i32::MAX);
        let next = maps::Words::new(1)?;
        Ok(Self { next, interval_ns })
    }

    /// Ends the program with XDP_DROP if the next frame is not due yet.
    fn wait(&self) -> Vec<Instruction> {
        const HELPER_NOW: i32 = 5;
        /// A longer delay is not caught up.
        const BEHIND_NS: i32 = 50_000;
        let [map, rest] = Instruction::set_map_value(R7, self.next.descriptor(), 0);
        vec![
            Instruction::call(HELPER_NOW),
            map,
            rest,
            Instruction::load_u64(R1, R7, 0),
            Instruction::skip_if_greater(R1, R0, 2),
            Instruction::set(R2, 0),
            Instruction::skip_if_equal(R2, 0, 2),
            Instruction::set(R0, XDP_DROP),
            Instruction::exit(),
            // At least this long ago.
            Instruction::add(R0, -BEHIND_NS),
            Instruction::skip_if_greater(R1, R0, 1),
            Instruction::copy(R1, R0),
            Instruction::add(R1, self.interval_ns),
            Instruction::store_u64(R7, 0, R1),
        ]
    }
}

impl Words {
    /// Writes 16 bits of the random number, from bit `shift` on, and their complements.
    fn write(self, shift: i32) -> Vec<Instruction> {
        let mut program = vec![
            Instruction::copy(R1, R0),
            Instruction::shift_right(R1, shift),
            Instruction::and(R1, 0xffff),
            Instruction::store_u16(R6, self.random as i16, R1),
            Instruction::xor(R1, 0xffff),
            Instruction::store_u16(R6, self.transport as i16, R1),
        ];
        program.extend(
            self.header
                .map(|place| Instruction::store_u16(R6, place as i16, R1)),
        );
        program
    }
}

/// A TCP segment without ports and checksum.
fn segment(flags: u8, options: &[u8]) -> Vec<u8> {
    let words = ((tcp::HEADER_LEN + options.len()) / 4) as u8;
    let mut segment = vec![0; tcp::HEADER_LEN];
    segment[tcp::field::SEQUENCE].copy_from_slice(&[COMPLEMENT, COMPLEMENT].concat());
    segment[tcp::field::OFFSET] = words << 4;
    segment[tcp::field::FLAGS] = flags;
    segment[tcp::field::WINDOW].copy_from_slice(&[0xfa, 0xf0]);
    segment.extend(options);
    segment
}

/// A UDP datagram without ports and checksum. The message begins with the complement of the source address.
fn datagram(message: &[u8]) -> Vec<u8> {
    let len = (udp::HEADER_LEN + message.len()) as u16;
    let mut datagram = vec![0; udp::HEADER_LEN];
    datagram[udp::field::LENGTH].copy_from_slice(&len.to_be_bytes());
    datagram.extend(message);
    datagram
}

/// Offset of a random name's letters: even, after the label's length and its first letter.
const NAME_LETTERS: usize = udp::HEADER_LEN + dns::HEADER_LEN + 2;

/// Letters of a random name that do not depend on the source port.
const fn letters_of(kind: Kind, v4: bool) -> &'static [Words] {
    match (kind, v4) {
        (Kind::Names, true) => &const { letters(ipv4::HEADER_LEN) },
        (Kind::Names, false) => &const { letters(ipv6::HEADER_LEN) },
        _ => &[],
    }
}

/// These letters in a frame with an IP header of this length.
const fn letters(ip_len: usize) -> [Words; 2] {
    let start = ethernet::HEADER_LEN + ip_len + NAME_LETTERS + COMPLEMENT.len();
    [pair(start), pair(start + RANDOM.len() + COMPLEMENT.len())]
}

/// A random word with its complement behind it.
const fn pair(at: usize) -> Words {
    Words {
        random: at,
        header: None,
        transport: at + RANDOM.len(),
    }
}

/// A random label in front of `qname`.
fn random_name(qname: &[u8]) -> Vec<u8> {
    let letters = [RANDOM, COMPLEMENT, RANDOM, COMPLEMENT].concat();
    let label = [&b"x"[..], &COMPLEMENT, &letters, b"x"].concat();
    [&[label.len() as u8][..], &label, qname].concat()
}

/// A message with one question of type A, class IN.
fn message(flags: u16, qname: &[u8]) -> Vec<u8> {
    let mut message = vec![0; dns::HEADER_LEN];
    message[..2].copy_from_slice(&COMPLEMENT);
    message[dns::field::FLAGS].copy_from_slice(&flags.to_be_bytes());
    message[QDCOUNT].copy_from_slice(&[0, 1]);
    message.extend(qname);
    message.extend([0, 1, 0, 1]);
    message
}

/// Number of questions (RFC 1035 section 4.1.1).
const QDCOUNT: Range<usize> = 4..6;

fn header(ends: &Ends, protocol: u8, len: usize) -> Vec<u8> {
    match (ends.from, ends.to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut header = vec![0; ipv4::HEADER_LEN];
            let total = (ipv4::HEADER_LEN + len) as u16;
            header[ipv4::field::VERSION_IHL] = ipv4::VERSION_4_IHL_5;
            header[ipv4::field::TOTAL_LEN].copy_from_slice(&total.to_be_bytes());
            header[ipv4::field::ID].copy_from_slice(&COMPLEMENT);
            header[ipv4::field::TTL] = TTL;
            header[ipv4::field::PROTOCOL] = protocol;
            header[ipv4::field::SOURCE].copy_from_slice(&from.octets());
            header[ipv4::field::SOURCE.end - 2..ipv4::field::SOURCE.end].copy_from_slice(&RANDOM);
            header[ipv4::field::DESTINATION].copy_from_slice(&to.octets());
            let sum = Sum::new().add_bytes(&header);
            header[ipv4::field::CHECKSUM].copy_from_slice(&sum.finish().to_be_bytes());
            header
        }
        (from, to) => {
            let mut header = vec![0; ipv6::HEADER_LEN];
            header[ipv6::field::VERSION_CLASS_FLOW].copy_from_slice(&ipv6::VERSION_6);
            header[ipv6::field::PAYLOAD_LEN].copy_from_slice(&(len as u16).to_be_bytes());
            header[ipv6::field::NEXT_HEADER] = protocol;
            header[ipv6::field::HOP_LIMIT] = TTL;
            header[ipv6::field::SOURCE].copy_from_slice(&octets(from));
            header[ipv6::field::SOURCE.end - 2..ipv6::field::SOURCE.end].copy_from_slice(&RANDOM);
            header[ipv6::field::DESTINATION].copy_from_slice(&octets(to));
            header
        }
    }
}

/// Sum of the template's pseudo-header, whose source ends with 16 zero bits.
fn pseudo_sum(ends: &Ends, protocol: u8, len: usize) -> Sum {
    let mut from = octets(ends.from);
    let end = from.len();
    from[end - 2..].copy_from_slice(&RANDOM);
    Sum::new()
        .add_bytes(&from)
        .add_bytes(&octets(ends.to))
        .add_u16(protocol.into())
        .add_u16(len as u16)
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}
