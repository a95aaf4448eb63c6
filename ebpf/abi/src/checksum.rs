//! The Internet checksum (RFC 1071).

use crate::headers::protocol;

/// A ones' complement sum in progress.
///
/// The sum of 16-bit words with end-around carry may be computed over wider words and in the machine's own byte order (RFC
/// 1071 section 2, B and C): eight bytes are added per step, and folded and converted only at the end.
///
/// Only the last piece may have an odd length: each piece is summed as if it began at an even offset.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// The empty sum.
    #[must_use]
    pub const fn new() -> Self {
        Self(0)
    }

    /// Adds `bytes`; an odd last byte is padded with a zero.
    #[must_use]
    pub fn add_bytes(self, bytes: &[u8]) -> Self {
        let (words, tail) = bytes.as_chunks::<8>();
        let sum = words
            .iter()
            .fold(self, |sum, word| sum.add_word(u64::from_ne_bytes(*word)));
        sum.add_tail(tail)
    }

    /// Adds fewer than eight bytes that begin at an even offset. Piece by piece, because a copy of unknown length is a
    /// function call.
    fn add_tail(mut self, mut tail: &[u8]) -> Self {
        if let Some((four, rest)) = tail.split_first_chunk() {
            self = self.add_word(u32::from_ne_bytes(*four).into());
            tail = rest;
        }
        if let Some((two, rest)) = tail.split_first_chunk() {
            self = self.add_word(u16::from_ne_bytes(*two).into());
            tail = rest;
        }
        match tail {
            [last, ..] => self.add_word(u16::from_ne_bytes([*last, 0]).into()),
            [] => self,
        }
    }

    /// Adds one 16-bit word.
    #[must_use]
    pub const fn add_u16(self, word: u16) -> Self {
        self.add_word(word.to_be() as u64)
    }

    /// Adds a word with end-around carry. It carries at most once: a sum that overflowed is at most 2^64 - 2.
    const fn add_word(self, word: u64) -> Self {
        let (sum, carry) = self.0.overflowing_add(word);
        Self(sum.wrapping_add(carry as u64))
    }

    /// The sum of a few words of 16 or 32 bits in native order, added up by the caller without a carry out of 64 bits.
    #[inline(always)]
    #[must_use]
    pub const fn of_few(words: u64) -> Self {
        Self(words)
    }

    /// The 16-bit sum, not complemented.
    #[inline(always)]
    #[must_use]
    pub const fn fold(self) -> u16 {
        u16::from_be(self.fold_native())
    }

    /// True if the sum over data and its checksum is right: all ones, which is the same in either byte order.
    #[inline(always)]
    #[must_use]
    pub const fn adds_up(self) -> bool {
        self.fold_native() == 0xffff
    }

    #[inline(always)]
    const fn fold_native(self) -> u16 {
        let sum = (self.0 >> 32) + (self.0 & 0xffff_ffff);
        let sum = (sum >> 16) + (sum & 0xffff);
        let sum = (sum >> 16) + (sum & 0xffff);
        let sum = (sum >> 16) + (sum & 0xffff);
        sum as u16
    }

    /// The checksum: the complement of the sum.
    #[inline(always)]
    #[must_use]
    pub const fn finish(self) -> u16 {
        !self.fold()
    }

    /// Checksum of a UDP datagram. A computed 0 is sent as 0xffff, because 0 means "no checksum" (RFC 768), which IPv6
    /// forbids (RFC 8200 section 8.1).
    #[must_use]
    pub const fn finish_udp(self) -> u16 {
        match self.finish() {
            0 => 0xffff,
            checksum => checksum,
        }
    }
}

/// Sum over the pseudo-header of a UDP datagram (RFC 768; RFC 8200 section 8.1: with a 32-bit length, whose upper half is 0
/// for all our messages). `source` and `destination` are both IPv4 or both IPv6 addresses.
#[must_use]
pub fn pseudo_header(source: &[u8], destination: &[u8], udp_len: u16) -> Sum {
    Sum::new()
        .add_bytes(source)
        .add_bytes(destination)
        .add_u16(u16::from(protocol::UDP))
        .add_u16(udp_len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    /// Bytes without a pattern, the same in each run (xorshift, Marsaglia 2003).
    fn random(seed: u32, len: usize) -> Vec<u8> {
        let mut state = seed;
        let bytes = core::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as u8
        });
        bytes.take(len).collect()
    }

    /// RFC 1071 section 4.1, word by word.
    fn plain(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
        }
        while sum > 0xffff {
            sum = (sum >> 16) + (sum & 0xffff);
        }
        !(sum as u16)
    }

    #[test]
    fn the_example_of_rfc_1071_section_3() {
        let sum = Sum::new().add_bytes(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.fold(), 0xddf2);
        assert_eq!(sum.finish(), 0x220d);
    }

    #[test]
    fn equals_the_plain_sum_at_every_length() {
        for len in 0..300 {
            for bytes in [
                random(1 + len as u32, len),
                std::vec![0xff; len],
                std::vec![0; len],
            ] {
                assert_eq!(
                    Sum::new().add_bytes(&bytes).finish(),
                    plain(&bytes),
                    "{len} bytes"
                );
                let (front, back) = bytes.split_at(len / 4 * 2);
                assert_eq!(
                    Sum::new().add_bytes(front).add_bytes(back).finish(),
                    plain(&bytes)
                );
            }
        }
    }

    #[test]
    fn words_and_bytes_are_the_same() {
        let sum = Sum::new().add_u16(0x1234).add_u16(0xfedc);
        assert_eq!(
            sum.fold(),
            Sum::new().add_bytes(&[0x12, 0x34, 0xfe, 0xdc]).fold()
        );
    }

    #[test]
    fn a_carry_out_of_a_carry_is_not_lost() {
        let ones = [0xff; 8];
        let sum = Sum::new()
            .add_bytes(&ones)
            .add_bytes(&ones)
            .add_bytes(&[0, 1]);
        assert_eq!(sum.finish(), plain(&[0, 1]));
    }

    #[test]
    fn few_words_are_summed_in_either_width() {
        for len in (0..300).step_by(4) {
            let bytes = random(1 + len as u32, len);
            let (words, _) = bytes.as_chunks();
            let wide = words
                .iter()
                .map(|word| u64::from(u32::from_ne_bytes(*word)));
            let (words, _) = bytes.as_chunks();
            let narrow = words
                .iter()
                .map(|word| u64::from(u16::from_ne_bytes(*word)));
            for sum in [wide.sum(), narrow.sum()] {
                assert_eq!(Sum::of_few(sum).finish(), plain(&bytes), "{len} bytes");
            }
        }
    }

    #[test]
    fn data_with_its_checksum_adds_up_and_no_other() {
        let data = random(7, 40);
        let sum = Sum::new().add_bytes(&data);
        let right = sum.finish();
        for checksum in 0..=u16::MAX {
            let adds_up = sum.add_u16(checksum).adds_up();
            assert_eq!(adds_up, checksum == right, "{checksum:#06x}");
        }
        assert!(!Sum::new().adds_up(), "all zeros have no checksum");
    }

    #[test]
    fn udp_never_sends_zero() {
        assert_eq!(Sum::new().add_u16(0xffff).finish(), 0);
        assert_eq!(Sum::new().add_u16(0xffff).finish_udp(), 0xffff);
        assert_eq!(Sum::new().add_u16(0xfffe).finish_udp(), 1);
    }
}
