//! The Internet checksum (RFC 1071).

use super::PROTOCOL_UDP;

/// A ones' complement sum under way.
///
/// The sum of 16-bit words with end-around carry may be taken over wider words and in the machine's own byte order
/// (RFC 1071 section 2, B and C): eight bytes are added a step, and folded and put in order only at the end.
///
/// Only the last piece may have an odd length: each piece is summed as if it began at an even offset.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// The sum of nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self(0)
    }

    /// Adds `bytes`; an odd last byte counts as if a zero followed it.
    #[must_use]
    pub fn add_bytes(self, bytes: &[u8]) -> Self {
        let (words, tail) = bytes.as_chunks::<8>();
        let sum = words
            .iter()
            .fold(self, |sum, word| sum.add_word(u64::from_ne_bytes(*word)));
        if tail.is_empty() {
            return sum;
        }
        let mut last = [0; 8];
        last[..tail.len()].copy_from_slice(tail);
        sum.add_word(u64::from_ne_bytes(last))
    }

    /// Adds one 16-bit word.
    #[must_use]
    pub const fn add_u16(self, word: u16) -> Self {
        self.add_word(word.to_be() as u64)
    }

    /// One step: the carry goes around the end. It cannot carry twice: a sum that overflowed is at most 2^64 - 2.
    const fn add_word(self, word: u64) -> Self {
        let (sum, carry) = self.0.overflowing_add(word);
        Self(sum.wrapping_add(carry as u64))
    }

    /// The 16-bit sum, not complemented.
    #[must_use]
    pub const fn fold(self) -> u16 {
        let sum = (self.0 >> 32) + (self.0 & 0xffff_ffff);
        let sum = (sum >> 16) + (sum & 0xffff);
        let sum = (sum >> 16) + (sum & 0xffff);
        let sum = (sum >> 16) + (sum & 0xffff);
        u16::from_be(sum as u16)
    }

    /// The checksum: the complement of the sum.
    #[must_use]
    pub const fn finish(self) -> u16 {
        !self.fold()
    }

    /// The checksum of a UDP datagram: a computed 0 is sent as 0xffff, because 0 says "no checksum" (RFC 768), which
    /// IPv6 forbids (RFC 8200 section 8.1).
    #[must_use]
    pub const fn finish_udp(self) -> u16 {
        match self.finish() {
            0 => 0xffff,
            checksum => checksum,
        }
    }
}

/// The sum over the pseudo-header of a UDP datagram (RFC 768; RFC 8200 section 8.1: with a 32-bit length, whose upper
/// half is 0 for all that we send). `source` and `destination` are both IPv4 or both IPv6 addresses.
#[must_use]
pub fn pseudo_header(source: &[u8], destination: &[u8], udp_len: u16) -> Sum {
    Sum::new()
        .add_bytes(source)
        .add_bytes(destination)
        .add_u16(u16::from(PROTOCOL_UDP))
        .add_u16(udp_len)
}
