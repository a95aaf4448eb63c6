//! Queries of the benchmark: one frame, and the program that derives many from it.
//!
//! ```text
//!   Ethernet 14 | IPv4 20 | UDP 8 | DNS header 12 | 3 x y z | 5 bench | 4 test | 0 | A | IN
//!                           35: source port, low byte      55 56 57: letters x y z
//!                                   42 43: ID
//! ```
//! A letter increases by as much as its partner decreases, and both are at the same position of a 16-bit word, so every variant
//! has the UDP checksum of the original frame: x with the ID's low byte, y with the ID's high byte, z with the source port's low
//! byte.

use std::net::Ipv4Addr;

use xdnsd_abi::checksum::{Sum, pseudo_header};
use xdnsd_lab::bpf::instruction::{Instruction, R0, R1, R2, R6, Register};

/// Variants of each letter less one: a mask, so a power of two less one.
const X_MASK: i32 = 15;
const Y_MASK: i32 = 3;
const Z_MASK: i32 = 15;
/// Different names, each with its own ID and port.
pub const NAMES: usize = ((X_MASK + 1) * (Y_MASK + 1) * (Z_MASK + 1)) as usize;

const ETHERNET_LEN: usize = 14;
const IPV4_LEN: usize = 20;
const UDP_LEN: usize = 8;
/// Offset of the UDP header.
pub const UDP: usize = ETHERNET_LEN + IPV4_LEN;
/// Offset of the message.
pub const DNS: usize = UDP + UDP_LEN;
/// Offset of its QNAME.
pub const QNAME: usize = DNS + 12;
const SOURCE_PORT_LOW: usize = UDP + 1;
const CHECKSUM: usize = UDP + 6;
const IPV4_CHECKSUM: usize = ETHERNET_LEN + 10;
/// Destination port of queries.
pub const DNS_PORT: u16 = 53;
/// UDP's protocol number.
pub const PROTOCOL_UDP: u8 = 17;
/// Source port; the low byte starts at 0xff, since it only decreases.
const SOURCE_PORT: u16 = 0xc0ff;
/// The answer's record: owned by the QNAME, A, IN, a day, 192.0.2.1.
pub const ANSWER: [u8; 16] = [0xc0, 0x0c, 0, 1, 0, 1, 0, 1, 0x51, 0x80, 0, 4, 192, 0, 2, 1];
/// Letter of variant 0.
pub const FIRST_LETTER: u8 = b'a';

/// Addresses of a conversation.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// MAC address of the client.
    pub client_mac: [u8; 6],
    /// IPv4 address of the client.
    pub client: Ipv4Addr,
    /// MAC address of the server.
    pub server_mac: [u8; 6],
    /// IPv4 address of the server.
    pub server: Ipv4Addr,
}

/// Name of a variant, without its final dot.
pub fn name(index: usize) -> String {
    let x = index as i32 & X_MASK;
    let y = (index as i32 >> 4) & Y_MASK;
    let z = (index as i32 >> 6) & Z_MASK;
    let letter = |variant: i32| char::from(FIRST_LETTER + variant as u8);
    format!("{}{}{}.bench.test", letter(x), letter(y), letter(z))
}

/// Query message for the name of a variant.
pub fn message(index: usize, id: u16) -> Vec<u8> {
    let mut message = Vec::new();
    message.extend(id.to_be_bytes());
    // RD; one question, nothing else.
    message.extend([0x01, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name(index).split('.') {
        message.push(label.len() as u8);
        message.extend(label.as_bytes());
    }
    // The root, A, IN.
    message.extend([0, 0, 1, 0, 1]);
    message
}

/// Frame of variant 0, with full checksums.
pub fn frame(ends: &Ends) -> Vec<u8> {
    frame_from(ends, SOURCE_PORT, 0xffff)
}

/// Frame for the first name, with this source port and ID, with full checksums.
pub fn frame_from(ends: &Ends, source_port: u16, id: u16) -> Vec<u8> {
    let message = message(0, id);
    let udp_len = (UDP_LEN + message.len()) as u16;
    let mut frame = Vec::new();
    frame.extend(ends.server_mac);
    frame.extend(ends.client_mac);
    frame.extend([0x08, 0x00]);
    frame.extend([0x45, 0]);
    frame.extend((IPV4_LEN as u16 + udp_len).to_be_bytes());
    // No ID, do not fragment, TTL 64.
    frame.extend([0, 0, 0x40, 0, 64, PROTOCOL_UDP, 0, 0]);
    frame.extend(ends.client.octets());
    frame.extend(ends.server.octets());
    frame.extend(source_port.to_be_bytes());
    frame.extend(DNS_PORT.to_be_bytes());
    frame.extend(udp_len.to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(&message);
    let header = Sum::new().add_bytes(&frame[ETHERNET_LEN..UDP]).finish();
    frame[IPV4_CHECKSUM..IPV4_CHECKSUM + 2].copy_from_slice(&header.to_be_bytes());
    let datagram = datagram_sum(&frame, ends).finish();
    frame[CHECKSUM..CHECKSUM + 2].copy_from_slice(&datagram.to_be_bytes());
    frame
}

/// Program that makes a random variant of the frame and sends it out of `ifindex`.
pub fn program(ifindex: u32) -> Vec<Instruction> {
    const DATA: i16 = 0;
    const DATA_END: i16 = 4;
    const HELPER_RANDOM: i32 = 7;
    const HELPER_REDIRECT: i32 = 23;
    let random = R0;
    let data = R6;
    let mut program = vec![
        Instruction::load_u32(data, R1, DATA),
        Instruction::load_u32(R1, R1, DATA_END),
        // Checks that there is room for all that is written; otherwise the result stays 0, XDP_ABORTED.
        Instruction::set(R0, 0),
        Instruction::copy(R2, data),
        Instruction::add(R2, QNAME as i32 + 4),
        Instruction::skip_if_greater(R2, R1, (1 + 3 * VARY_LEN + 3) as i16),
        Instruction::call(HELPER_RANDOM),
    ];
    let letters = [
        (0, X_MASK, QNAME + 1, DNS + 1),
        (4, Y_MASK, QNAME + 2, DNS),
        (6, Z_MASK, QNAME + 3, SOURCE_PORT_LOW),
    ];
    for (shift, mask, place, partner) in letters {
        let letter = Letter {
            shift,
            mask,
            place,
            partner,
        };
        program.extend(letter.vary(data, random));
    }
    program.extend([
        Instruction::set(R1, ifindex as i32),
        Instruction::set(R2, 0),
        Instruction::call(HELPER_REDIRECT),
        Instruction::exit(),
    ]);
    program
}

/// Number of instructions of [`Letter::vary`].
const VARY_LEN: usize = 8;

/// A letter of the name that varies, and the byte that compensates in the checksum.
struct Letter {
    /// First bit in the random number.
    shift: i32,
    /// Mask of the bits from there.
    mask: i32,
    /// Offset in the frame.
    place: usize,
    /// Offset of the partner.
    partner: usize,
}

impl Letter {
    /// Takes bits of the random number, adds them to the letter and subtracts them from 255 in its partner.
    fn vary(&self, data: Register, random: Register) -> [Instruction; VARY_LEN] {
        [
            Instruction::copy(R1, random),
            Instruction::shift_right(R1, self.shift),
            Instruction::and(R1, self.mask),
            Instruction::copy(R2, R1),
            Instruction::add(R2, FIRST_LETTER.into()),
            Instruction::store_u8(data, self.place as i16, R2),
            // At most 255, so this is 255 - r1.
            Instruction::xor(R1, 0xff),
            Instruction::store_u8(data, self.partner as i16, R1),
        ]
    }
}

/// Sum over a frame's datagram and its pseudo-header.
pub fn datagram_sum(frame: &[u8], ends: &Ends) -> Sum {
    let datagram = &frame[UDP..];
    let addresses = [ends.client, ends.server].map(|address| address.octets());
    pseudo_header(&addresses[0], &addresses[1], datagram.len() as u16).add_bytes(datagram)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDS: Ends = Ends {
        client_mac: [2, 0, 0, 0, 0, 9],
        client: Ipv4Addr::new(10, 77, 0, 9),
        server_mac: [2, 0, 0, 0, 0, 1],
        server: Ipv4Addr::new(10, 77, 0, 1),
    };

    #[test]
    fn checksums_add_up_in_every_variant() {
        for index in 0..NAMES {
            let mut frame = frame(&ENDS);
            let [x, y, z] = [index & 15, (index >> 4) & 3, (index >> 6) & 15];
            for (letter, partner, by) in [
                (QNAME + 1, DNS + 1, x),
                (QNAME + 2, DNS, y),
                (QNAME + 3, SOURCE_PORT_LOW, z),
            ] {
                frame[letter] += by as u8;
                frame[partner] -= by as u8;
            }
            assert_eq!(frame[QNAME + 1..QNAME + 4], name(index).as_bytes()[..3]);
            assert!(Sum::new().add_bytes(&frame[ETHERNET_LEN..UDP]).adds_up());
            assert!(datagram_sum(&frame, &ENDS).adds_up());
        }
    }

    #[test]
    fn names_are_all_different() {
        let names: std::collections::HashSet<String> = (0..NAMES).map(name).collect();
        assert_eq!(names.len(), NAMES);
    }
}
