//! The message header (RFC 1035 section 4.1.1, AD and CD by RFC 4035).
//!
//! ```text
//!  0  1  2  3  4  5  6  7  8  9 10 11 12 13 14 15
//! |                      ID                       |
//! |QR|   Opcode  |AA|TC|RD|RA| Z|AD|CD|   RCODE   |
//! |       QDCOUNT         |       ANCOUNT         |
//! |       NSCOUNT         |       ARCOUNT         |
//! ```

use xdnsd_abi::headers::dns;

/// Length of the header in bytes.
pub const HEADER_LEN: usize = dns::HEADER_LEN;

/// Bits of the flags, the header's second 16-bit word.
pub mod flag {
    /// The message is a response.
    pub const QR: u16 = super::dns::QR;
    /// All bits of the opcode.
    pub const OPCODE_MASK: u16 = super::dns::OPCODE;
    /// The server is authoritative for the name.
    pub const AA: u16 = 0x0400;
    /// The message is truncated.
    pub const TC: u16 = 0x0200;
    /// The client wants recursion.
    pub const RD: u16 = super::dns::RD;
    /// The server offers recursion.
    pub const RA: u16 = super::dns::RA;
    /// The server has validated the answer; in a query, the client understands AD (RFC 6840 section 5.7).
    pub const AD: u16 = super::dns::AD;
    /// The client validates by itself.
    pub const CD: u16 = super::dns::CD;
    /// All bits of the RCODE.
    pub const RCODE_MASK: u16 = 0x000f;
}

/// The header, decoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// ID, chosen by the sender of the query.
    pub id: u16,
    /// The flags word, see [`flag`].
    pub flags: u16,
    /// Numbers of questions, answers, authorities and additionals.
    pub counts: [u16; 4],
}

impl Header {
    /// Reads the header; `None` if the message is shorter.
    #[must_use]
    pub fn parse(message: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEADER_LEN] = message.first_chunk()?;
        let word = |i: usize| u16::from_be_bytes([bytes[2 * i], bytes[2 * i + 1]]);
        Some(Self {
            id: word(0),
            flags: word(1),
            counts: [word(2), word(3), word(4), word(5)],
        })
    }

    /// Writes the header; `None` if `message` is shorter.
    pub fn emit(&self, message: &mut [u8]) -> Option<()> {
        let bytes: &mut [u8; HEADER_LEN] = message.first_chunk_mut()?;
        let words = [
            self.id,
            self.flags,
            self.counts[0],
            self.counts[1],
            self.counts[2],
            self.counts[3],
        ];
        for (pair, word) in bytes.chunks_exact_mut(2).zip(words) {
            pair.copy_from_slice(&word.to_be_bytes());
        }
        Some(())
    }

    /// True if all bits of `mask` are set.
    #[must_use]
    pub const fn has(&self, mask: u16) -> bool {
        self.flags & mask == mask
    }

    /// Opcode: 0 is QUERY.
    #[must_use]
    pub const fn opcode(&self) -> u8 {
        ((self.flags & flag::OPCODE_MASK) >> 11) as u8
    }

    /// Low four bits of the RCODE.
    #[must_use]
    pub const fn rcode(&self) -> u8 {
        (self.flags & flag::RCODE_MASK) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_survives_a_dirty_buffer() {
        let header = Header {
            id: 0x1234,
            flags: flag::QR | flag::RD | flag::CD | 3,
            counts: [1, 2, 3, 4],
        };
        let mut buffer = [0xa5; 14];
        header.emit(&mut buffer).expect("long enough");
        assert_eq!(Header::parse(&buffer), Some(header));
        assert_eq!(
            buffer[12..],
            [0xa5, 0xa5],
            "nothing behind the header is touched"
        );
        assert_eq!(header.rcode(), 3);
    }

    #[test]
    fn the_opcode_has_four_bits() {
        let header = Header {
            flags: 0x7800,
            ..Header::default()
        };
        assert_eq!(header.opcode(), 15);
    }

    #[test]
    fn shorter_is_none() {
        for len in 0..HEADER_LEN {
            assert_eq!(Header::parse(&[0; HEADER_LEN][..len]), None);
        }
    }
}
