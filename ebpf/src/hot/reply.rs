//! The answer: its message, put together beside the frame.

use super::question::opt_len;
use super::{END_MAX, HotKernel, HotScratch, PlainQuestion, WORD, sum};
use crate::message::{get, opt_record, put};
use xdnsd_abi::headers::dns::{self, opt};
use xdnsd_abi::hot::{AnswerShape, AnswerWords, BODY_MAX, BODY_WORDS, RECORDS_MAX, kind, word};

/// Bytes of rotated addresses that are moved at once.
const PIECE: usize = 4;

/// An answer that is given.
pub struct HotAnswer<'a> {
    /// What user space has put there.
    pub words: &'a AnswerWords,
    /// Number of times that it was given before.
    pub number: u64,
    /// For how long its TTLs have counted down.
    pub age_secs: u32,
}

impl HotAnswer<'_> {
    /// Makes the answer of the query that stands in the scratch, and gives its length. `None`: the answer is not one.
    #[inline(always)]
    pub fn put_together(
        &self,
        kernel: &impl HotKernel,
        scratch: &mut HotScratch,
        question: &PlainQuestion,
    ) -> Option<usize> {
        let end = question.end;
        if end > END_MAX {
            return None;
        }
        let opt_len = opt_len(kernel, scratch)?;
        self.copy_body(kernel, scratch, end)?;
        self.rotate_addresses(kernel, scratch, end)?;
        self.write_ttls(scratch, end)?;
        // Anew, as the name's length: the loop has ended at another number of words each time.
        let body_end = end + self.body_len(kernel)?;
        write_opt(scratch, question, body_end)?;
        self.write_header(scratch, question)?;
        Some(body_end + opt_len)
    }

    /// How it looks, of which the verifier knows nothing.
    #[inline(always)]
    fn shape(&self, kernel: &impl HotKernel) -> AnswerShape {
        AnswerShape::from_word(kernel.opaque(&self.words[word::SHAPE]))
    }

    /// Bytes of the body.
    #[inline(always)]
    fn body_len(&self, kernel: &impl HotKernel) -> Option<usize> {
        bounded(kernel, self.shape(kernel).body_len.into())
    }

    /// Copies the body, with the addresses behind it that are rotated.
    #[inline(always)]
    fn copy_body(
        &self,
        kernel: &impl HotKernel,
        scratch: &mut HotScratch,
        end: usize,
    ) -> Option<()> {
        let shape = self.shape(kernel);
        let others = u64::from(shape.rotation.count.saturating_sub(1));
        let len = u64::from(shape.body_len) + others * u64::from(shape.rotation.record_len);
        let len = bounded(kernel, len)?;
        for at in 0..BODY_WORDS {
            if at * WORD >= len {
                break;
            }
            let word = self.words[word::BODY + at];
            put(&mut scratch.message, end + at * WORD, word.to_ne_bytes())?;
        }
        scratch.sum += sum::at(end, self.words[word::SUM]);
        Some(())
    }

    /// Rotates the addresses by one from answer to answer. Their part of the checksum stays the same, because a record has an even
    /// number of bytes.
    #[inline(always)]
    fn rotate_addresses(
        &self,
        kernel: &impl HotKernel,
        scratch: &mut HotScratch,
        end: usize,
    ) -> Option<()> {
        let shape = self.shape(kernel);
        let offset = shape.rotation.offset(self.number);
        if offset == 0 {
            return Some(());
        }
        let start = u64::from(shape.rotation.start);
        let to = bounded(kernel, start)?;
        let from = bounded(kernel, start + u64::from(offset))?;
        let len = bounded(kernel, u64::from(shape.body_len) - start)?;
        for at in 0..BODY_MAX / PIECE {
            if at * PIECE >= len {
                break;
            }
            let piece: [u8; PIECE] = get(&scratch.message, end + from + at * PIECE)?;
            put(&mut scratch.message, end + to + at * PIECE, piece)?;
        }
        Some(())
    }

    /// Counts the TTLs down, which are in the body at `end`.
    #[inline(always)]
    fn write_ttls(&self, scratch: &mut HotScratch, end: usize) -> Option<()> {
        let mut more = 0;
        let places = self.words[word::TTLS].to_ne_bytes();
        for place in places.into_iter().take(RECORDS_MAX) {
            if place == 0 {
                break;
            }
            let at = end + usize::from(place);
            let before = u32::from_be_bytes(get(&scratch.message, at)?);
            let after = before.saturating_sub(self.age_secs);
            put(&mut scratch.message, at, after.to_be_bytes())?;
            more += sum::at(at, sum::change(before, after));
        }
        scratch.sum += more;
        Some(())
    }

    /// The ID stays, RD and CD, and the number of additional records.
    #[inline(always)]
    fn write_header(&self, scratch: &mut HotScratch, question: &PlainQuestion) -> Option<()> {
        let shape = AnswerShape::from_word(self.words[word::SHAPE]);
        // RFC 6840 section 5.7: AD is for who asks for it, or for DNSSEC records.
        let understands = question.flags & dns::AD != 0 || question.kind & kind::DNSSEC_OK != 0;
        let of_answer = if understands {
            shape.flags
        } else {
            shape.flags & !dns::AD
        };
        let flags = dns::QR | dns::RA | question.flags & (dns::RD | dns::CD) | of_answer;
        let [answers, authorities] = [shape.answers, shape.authorities].map(u16::from);
        scratch.sum += sum::change_16(question.flags, flags)
            + sum::change_16(0, answers)
            + sum::change_16(0, authorities);
        let message = &mut scratch.message;
        put(message, dns::field::FLAGS.start, flags.to_be_bytes())?;
        put(message, 6, answers.to_be_bytes())?;
        put(message, 8, authorities.to_be_bytes())
    }
}

/// A number of bytes of a body. `None`: it is more than there can be.
#[inline(always)]
fn bounded(kernel: &impl HotKernel, len: u64) -> Option<usize> {
    let len = kernel.again(len);
    if len > BODY_MAX as u64 {
        return None;
    }
    // To the verifier of Linux 6.1 what was put by before the comparison has no bounds.
    Some(kernel.again(len) as usize)
}

/// Writes the OPT record behind the records. It is as long as the client's, so there is always room.
#[inline(always)]
fn write_opt(scratch: &mut HotScratch, question: &PlainQuestion, at: usize) -> Option<()> {
    if question.kind & kind::EDNS == 0 {
        return Some(());
    }
    let flags = if question.kind & kind::DNSSEC_OK != 0 {
        opt::DNSSEC_OK
    } else {
        0
    };
    let mut record = opt_record(flags);
    if scratch.opt_len > opt::LEN as u64 {
        record[opt::LEN - 1] = opt::COOKIE_OPTION_LEN as u8;
        put(&mut scratch.message, at + opt::LEN, scratch.cookie)?;
    }
    scratch.sum += sum::less(scratch.opt_sum) + sum::of_opt(scratch, at, &record);
    put(&mut scratch.message, at, record)
}
