//! The answer's checksum, without a look at what the answer has of the query (RFC 1624).
//!
//! A query's checksum was right, so it says what the message adds up to. Added to that is what the answer has more, and the complement
//! of what it has no more. Sums are of 16-bit words in native order, modulo 2^16 - 1, in 64 bits that nothing is carried out of.

use super::HotScratch;
use crate::flow::Flow;
use crate::flow::answer::word;
use crate::flow::transport::Datagram;
use xdnsd_abi::headers::dns::opt;

/// A multiple of 2^16 - 1 that is more than all that is subtracted here.
const WHOLE: u64 = (1 << 48) - 1;

/// What the message of a datagram adds up to whose checksum is right. 0: it has none, or a part of one.
#[inline(always)]
pub fn of_message(flow: &Flow<Datagram<'_>>) -> u64 {
    let datagram = &flow.transport;
    if !datagram.has_checksum() || flow.has_partial_checksum() {
        return 0;
    }
    // The length counts twice: in the header, and in the pseudo-header.
    let others = flow.pseudo_sum()
        + word(datagram.len())
        + u64::from(datagram.source_port())
        + u64::from(datagram.destination_port())
        + u64::from(datagram.checksum());
    less(others)
}

/// What bytes add at this place that add `sum` at an even one.
#[inline(always)]
pub const fn at(place: usize, sum: u64) -> u64 {
    sum << (place % 2 * 8)
}

/// Takes this away.
#[inline(always)]
pub const fn less(sum: u64) -> u64 {
    WHOLE - sum
}

/// What it adds at an even place that a number of four bytes is another one now.
#[inline(always)]
pub const fn change(before: u32, after: u32) -> u64 {
    after.to_be() as u64 + u32::MAX as u64 - before.to_be() as u64
}

/// The same of two bytes.
#[inline(always)]
pub const fn change_16(before: u16, after: u16) -> u64 {
    word(after) + u16::MAX as u64 - word(before)
}

/// What an OPT record adds at `place`, with the option of the scratch where there is one.
#[inline(always)]
pub fn of_opt(scratch: &HotScratch, place: usize, record: &[u8; opt::LEN]) -> u64 {
    let [a, b, c, d, e, f, g, h, i, j, k] = *record;
    let of_record = of_word(u64::from_ne_bytes([a, b, c, d, e, f, g, h]))
        + u64::from(u32::from_ne_bytes([i, j, k, 0]));
    let mut sum = at(place, of_record);
    if scratch.opt_len > opt::LEN as u64 {
        let (words, _) = scratch.cookie.as_chunks();
        let of_words = words
            .iter()
            .map(|word| u64::from(u32::from_ne_bytes(*word)));
        // Shifted once: twice, it could be more than `WHOLE`.
        sum += at(place + opt::LEN, of_words.sum());
    }
    sum
}

/// Of eight bytes at an even place.
#[inline(always)]
const fn of_word(word: u64) -> u64 {
    (word >> 32) + (word & u32::MAX as u64)
}
