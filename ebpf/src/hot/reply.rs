//! The answer: its message, put together beside the frame.

use super::question::opt_len;
use super::{AnswerBuffer, HotKernel, HotScratch, PlainQuestion};
use crate::message::{opt_record, put};
use xdnsd_abi::headers::dns::{self, opt};
use xdnsd_abi::hot::{
    AnswerShape, AnswerWords, BODY_MAX, BODY_WORDS, NAME_MAX, RECORDS_MAX, kind, word,
};

/// The longest question, with the header.
const END_MAX: usize = dns::HEADER_LEN + NAME_MAX + dns::QUESTION_FIXED_LEN;

/// Makes the answer of the query that stands in the scratch, and gives its length. `None`: the answer is not one.
#[inline(always)]
pub fn put_together(
    kernel: &impl HotKernel,
    scratch: &mut HotScratch,
    question: &PlainQuestion,
    words: &AnswerWords,
    age_secs: u32,
) -> Option<usize> {
    let shape = AnswerShape::from_word(words[word::SHAPE]);
    let end = question.end;
    if end > END_MAX {
        return None;
    }
    let len = body_len(kernel, words)?;
    let opt_len = opt_len(kernel, scratch)?;
    let message = &mut scratch.message;
    for at in 0..BODY_WORDS {
        if at * size_of::<u64>() >= len {
            break;
        }
        put(
            message,
            end + at * size_of::<u64>(),
            words[word::BODY + at].to_ne_bytes(),
        )?;
    }
    write_ttls(message, end, words[word::TTLS], age_secs)?;
    // Anew, as the name's length: the loop has ended at another number of words each time.
    let body_end = end + body_len(kernel, words)?;
    write_opt(scratch, question, body_end)?;
    let message = &mut scratch.message;
    let len = body_end + opt_len;
    // What a sum in words takes for a part of it.
    put(message, len, [0; 4])?;
    write_header(message, question, &shape)?;
    Some(len)
}

/// Bytes of the answer's body.
#[inline(always)]
fn body_len(kernel: &impl HotKernel, words: &AnswerWords) -> Option<usize> {
    let shape = AnswerShape::from_word(kernel.opaque(&words[word::SHAPE]));
    if usize::from(shape.body_len) > BODY_MAX {
        return None;
    }
    // As with the name's length: what was put by before the comparison has no bounds to the verifier of Linux 6.1.
    Some(kernel.again(shape.body_len.into()) as usize)
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
    put(&mut scratch.message, at, record)
}

/// Counts the TTLs down. `places` are those of an answer, from `end` on.
#[inline(always)]
fn write_ttls(message: &mut AnswerBuffer, end: usize, places: u64, age_secs: u32) -> Option<()> {
    let places = places.to_ne_bytes();
    for place in places.into_iter().take(RECORDS_MAX) {
        if place == 0 {
            break;
        }
        let at = end + usize::from(place);
        let ttl: &mut [u8; 4] = message.get_mut(at..at + 4)?.first_chunk_mut()?;
        *ttl = u32::from_be_bytes(*ttl)
            .saturating_sub(age_secs)
            .to_be_bytes();
    }
    Some(())
}

/// The ID stays, and so do RD and CD.
#[inline(always)]
fn write_header(
    message: &mut AnswerBuffer,
    question: &PlainQuestion,
    shape: &AnswerShape,
) -> Option<()> {
    // RFC 6840 section 5.7: AD is for who asks for it, or for DNSSEC records.
    let understands = question.flags & dns::AD != 0 || question.kind & kind::DNSSEC_OK != 0;
    let of_answer = if understands {
        shape.flags
    } else {
        shape.flags & !dns::AD
    };
    let flags = dns::QR | dns::RA | question.flags & (dns::RD | dns::CD) | of_answer;
    put(message, dns::field::FLAGS.start, flags.to_be_bytes())?;
    put(message, 6, shape.answers.to_be_bytes())?;
    put(message, 8, shape.authorities.to_be_bytes())?;
    let has_edns = question.kind & kind::EDNS != 0;
    put(message, 10, u16::from(has_edns).to_be_bytes())
}
