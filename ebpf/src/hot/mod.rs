//! Answers a query for a hot name in its own frame.
//!
//! The XDP program has checked the frame before: it is a complete query to us, in one buffer, with right checksums, and an
//! answer may leave the way it came. Here the question is read, its answer and its client are looked up, and the answer is
//! assembled beside the frame. Until then the frame is unchanged, so all doubtful queries are left to user space. Only then
//! the frame grows, at its head, where every driver has room, and is written anew.

#[cfg(target_arch = "bpf")]
pub mod kernel;
mod question;
mod reply;
mod sum;

use crate::cookie::DnsCookie;
use crate::flow::Frame;
use crate::flow::envelope::Envelope;
use crate::flow::network::Address;
use crate::frame::Cursor;
use crate::frame::write::CursorMut;
use crate::message::{get, put};
use question::{PlainQuestion, name_len, opt_len};
use reply::HotAnswer;
use xdnsd_abi::headers::dns::{self, opt};
use xdnsd_abi::headers::{ethernet, udp};
use xdnsd_abi::hot::entry_of_client::{LATELY, MARKS};
use xdnsd_abi::hot::{
    self, AnswerWords, BODY_MAX, HotOutcome, NAME_MAX, NAME_WORDS, QuestionHash, word, words_of,
};
use xdnsd_abi::rate::{COOKIE_AHEAD_MAX_SECS, COOKIE_RENEW_SECS};

/// Longest query that is answered here, in bytes.
const QUERY_MAX: usize = dns::HEADER_LEN + NAME_MAX + dns::QUESTION_FIXED_LEN + OPT_MAX;
/// Longest OPT record in bytes: with a DNS cookie.
const OPT_MAX: usize = opt::LEN + opt::COOKIE_OPTION_LEN;
/// Shortest query in bytes: for the root, without EDNS.
const QUERY_MIN: usize = dns::HEADER_LEN + 1 + dns::QUESTION_FIXED_LEN;
/// Longest answer in bytes. Without EDNS a client accepts 512 (RFC 1035 section 4.2.1), so no client's size matters.
const ANSWER_MAX: usize = QUERY_MAX + BODY_MAX;
const _: () = assert!(ANSWER_MAX <= 512);
/// Bytes of the longest header and question.
const END_MAX: usize = dns::HEADER_LEN + NAME_MAX + dns::QUESTION_FIXED_LEN;
/// Bytes that are copied at once.
const WORD: usize = size_of::<u64>();
const NANOS_PER_SEC: u64 = 1_000_000_000;

/// Scratch space of a processor, for reading the question and assembling the answer.
#[repr(C)]
pub struct HotScratch {
    /// QNAME in lower case, padded with zeros to the end of a word.
    name: [u64; NAME_WORDS],
    /// Aligns the question to eight bytes.
    padding: u32,
    /// The query, then the answer to it.
    message: AnswerBuffer,
    /// The option with the client's DNS cookie, if there is one. It goes back as it came.
    cookie: [u8; opt::COOKIE_OPTION_LEN],
    /// Length of QNAME in bytes. Kept here so that the verifier does not walk the rest once for each length.
    name_len: u64,
    /// Nonzero if no worker has answered this client lately.
    is_newcomer: u64,
    /// Bytes of the OPT record, of the query and of the answer. 0: there is none.
    opt_len: u64,
    /// Bytes of the query. 0: it is too short or too long.
    query_len: u64,
    /// What the message adds to a checksum, see `sum.rs`: the query's, then the answer's. 0: nobody knows.
    sum: u64,
    /// What the query's OPT record adds of that.
    opt_sum: u64,
    /// What stands in front of both. Here for the verifier as well, which knows what lies on the stack.
    envelope: Envelope,
}

const _: () = assert!(size_of::<HotScratch>() <= hot::SCRATCH_BYTES);
const _: () =
    assert!((core::mem::offset_of!(HotScratch, message) + dns::HEADER_LEN).is_multiple_of(8));

/// Room for an answer, and for what is written over its end. So long that no place in a body leads out of it, counted from another
/// one in it: then the verifier needs no comparison.
pub type AnswerBuffer = [u8; (END_MAX + 2 * BODY_MAX).next_multiple_of(8) + 4];
const _: () = assert!(ANSWER_MAX + WORD <= size_of::<AnswerBuffer>());

/// What the program asks of the kernel.
pub trait HotKernel {
    /// The frame.
    fn frame(&self) -> Cursor<'_>;
    /// Length of the frame in bytes.
    fn frame_len(&self) -> usize;
    /// The number at this place, of which neither compiler nor verifier knows anything.
    fn opaque(&self, place: &u64) -> u64;
    /// The same number, hidden from the compiler. The verifier keeps the bounds that it knew.
    fn again(&self, number: u64) -> u64;
    /// An entry of [`hot::CONTROL`].
    fn control(&self, index: u32) -> u64;
    /// True if this source port gets no answer.
    fn is_silent(&self, port: u16) -> bool;
    /// An entry of [`hot::INDEX`].
    fn index(&self, place: u32) -> u64;
    /// The answer with this number.
    fn answer(&self, number: u32) -> Option<&AnswerWords>;
    /// How often it was given.
    fn hits(&self, number: u32) -> u64;
    /// Counts that it is given.
    fn hit(&self, number: u32);
    /// An entry of [`hot::CLIENTS`].
    fn client(&self, place: u32) -> u64;
    /// Writes an entry of [`hot::CLIENTS`].
    fn set_client(&self, place: u32, entry: u64);
    /// CLOCK_MONOTONIC in nanoseconds.
    fn now(&self) -> u64;
    /// Moves the start of the frame, so that it has `more` bytes more, or fewer. `None`: there is no room, and it is as it was.
    fn grow(&self, more: i32) -> Option<()>;
    /// The present frame, for writing.
    fn frame_mut(&self) -> CursorMut<'_>;
}

/// Answers the query in its own frame. `Err` leaves the frame unchanged.
#[inline(always)]
pub fn answer(kernel: &impl HotKernel, scratch: &mut HotScratch) -> Result<(), HotOutcome> {
    scratch.is_newcomer = 0;
    let Ok(Frame::Udp(flow)) = Frame::parse(kernel.frame()) else {
        return Err(HotOutcome::NotPlain);
    };
    scratch.envelope = Envelope::of(kernel.frame(), &flow).ok_or(HotOutcome::NotPlain)?;
    scratch.sum = sum::of_message(&flow);
    let len = u64::from(flow.transport.len()).wrapping_sub(udp::HEADER_LEN as u64);
    scratch.query_len = match copy(flow.transport.message, len, &mut scratch.message) {
        Some(()) => len,
        None => 0,
    };
    // Neither compiler nor verifier knows what lies there any more: so that the latter walks what follows once, and not for each
    // number of VLAN tags and either family.
    let scratch = core::hint::black_box(scratch);
    let valid = kernel.control(hot::control::VALID);
    let key = kernel.control(hot::control::KEY);
    let known = check_client(kernel, key, valid, &scratch.envelope);
    scratch.is_newcomer = (known.is_err() && valid != 0).into();
    let question = PlainQuestion::read(kernel, scratch).ok_or(HotOutcome::NotPlain)?;
    let (number, words) = find(kernel, key, &question, scratch).ok_or(HotOutcome::Unknown)?;
    let now = kernel.now();
    if valid == 0 || words[word::VALID] != valid {
        return Err(HotOutcome::Withdrawn);
    }
    if now >= words[word::OVER] {
        return Err(HotOutcome::Over);
    }
    if is_newcomer(kernel, scratch) {
        return Err(HotOutcome::NewClient);
    }
    check_cookie(kernel, scratch, now).ok_or(HotOutcome::NotPlain)?;
    let age_secs = now.saturating_sub(words[word::SINCE]) / NANOS_PER_SEC;
    let given = HotAnswer {
        words,
        number: kernel.hits(number),
        age_secs: age_secs as u32,
    };
    let len = given.put_together(kernel, scratch, &question);
    let len = len.ok_or(HotOutcome::Unknown)?;
    let envelope = &scratch.envelope;
    let frame_len = envelope.len() + len;
    let more = frame_len as i32 - kernel.frame_len() as i32;
    kernel.grow(more).ok_or(HotOutcome::NoRoom)?;
    kernel.hit(number);
    // From here on nothing can go wrong: the frame has these bytes. Only the verifier has to be told.
    let message = envelope.write(kernel.frame_mut(), len, scratch.sum);
    let written = message.and_then(|place| write(&scratch.message, len, place));
    written.ok_or(HotOutcome::NoRoom)
}

/// True if an unanswered query is of a client that no worker has answered lately, as far as is known.
#[inline(always)]
pub fn is_newcomer(kernel: &impl HotKernel, scratch: &HotScratch) -> bool {
    kernel.opaque(&scratch.is_newcomer) != 0
}

/// Copies a query of `len` bytes out of the frame, word by word: a helper takes longer than all of them. `None`: it is too short or
/// too long for a question that is answered here.
#[inline(always)]
fn copy(message: Cursor<'_>, len: u64, to: &mut AnswerBuffer) -> Option<()> {
    if len < QUERY_MIN as u64 || len > QUERY_MAX as u64 {
        return None;
    }
    let (header, mut rest) = message.take::<{ dns::HEADER_LEN }>()?;
    put(to, 0, header.get::<0, u64>().to_ne_bytes())?;
    put(to, WORD, header.get::<WORD, u32>().to_ne_bytes())?;
    let (mut at, mut left) = (dns::HEADER_LEN, len as usize - dns::HEADER_LEN);
    for _ in 0..QUERY_MAX / WORD {
        if left < WORD {
            break;
        }
        let (word, next) = rest.take::<WORD>()?;
        put(to, at, word.get::<0, u64>().to_ne_bytes())?;
        (rest, at, left) = (next, at + WORD, left - WORD);
    }
    // By the binary digits of what is left.
    if left & 4 != 0 {
        let (word, next) = rest.take::<4>()?;
        put(to, at, word.get::<0, u32>().to_ne_bytes())?;
        (rest, at) = (next, at + 4);
    }
    if left & 2 != 0 {
        let (word, next) = rest.take::<2>()?;
        put(to, at, word.get::<0, u16>().to_ne_bytes())?;
        (rest, at) = (next, at + 2);
    }
    if left & 1 != 0 {
        let (byte, _) = rest.take::<1>()?;
        put(to, at, [byte.get::<0, u8>()])?;
    }
    Some(())
}

/// Writes an answer of `len` bytes to its place in the frame, in the same way.
#[inline(always)]
fn write(message: &AnswerBuffer, len: usize, mut place: CursorMut<'_>) -> Option<()> {
    let (mut at, mut left) = (0, len);
    for _ in 0..ANSWER_MAX / WORD {
        if left < WORD {
            break;
        }
        let (mut word, next) = place.take::<WORD>()?;
        word.set::<0, u64>(u64::from_ne_bytes(get(message, at)?));
        (place, at, left) = (next, at + WORD, left - WORD);
    }
    if left & 4 != 0 {
        let (mut word, next) = place.take::<4>()?;
        word.set::<0, u32>(u32::from_ne_bytes(get(message, at)?));
        (place, at) = (next, at + 4);
    }
    if left & 2 != 0 {
        let (mut word, next) = place.take::<2>()?;
        word.set::<0, u16>(u16::from_ne_bytes(get(message, at)?));
        (place, at) = (next, at + 2);
    }
    if left & 1 != 0 {
        let (mut byte, _) = place.take::<1>()?;
        let [last] = get(message, at)?;
        byte.set::<0, u8>(last);
    }
    Some(())
}

/// The answer to this very question, and its number.
#[inline(always)]
fn find<'k>(
    kernel: &'k impl HotKernel,
    key: u64,
    question: &PlainQuestion,
    scratch: &HotScratch,
) -> Option<(u32, &'k AnswerWords)> {
    let mut hash = QuestionHash::new(key);
    let count = words_of(name_len(kernel, scratch)?);
    for word in scratch.name.iter().take(count) {
        hash = hash.add(*word);
    }
    let hash = hash.finish(question.kind);
    let number = hot::number(kernel.index(hot::place(hash)), hash)?;
    let words = kernel.answer(number)?;
    let mut difference = words[word::KIND] ^ question.kind;
    // The words include the name's end, so those behind it need no comparison.
    let count = words_of(name_len(kernel, scratch)?);
    for (at, word) in scratch.name.iter().enumerate().take(count) {
        difference |= words[word::NAME + at] ^ word;
    }
    (difference == 0).then_some((number, words))
}

/// Checks that user space has answered this client under the present `valid`, and answers its port.
#[inline(always)]
fn check_client(
    kernel: &impl HotKernel,
    key: u64,
    valid: u64,
    envelope: &Envelope,
) -> Result<(), HotOutcome> {
    let [first, ..] = envelope.client_mac.0[0].to_ne_bytes();
    // An answer to a group would go to many.
    let is_group = first & ethernet::GROUP != 0;
    if is_group || kernel.is_silent(u16::from_be(envelope.client_port)) {
        return Err(HotOutcome::NewClient);
    }
    let Address(high, low) = envelope.client;
    let client = hot::client(key, valid, [high, low]);
    let place = hot::client_place(client);
    let entry = kernel.client(place);
    if entry & !MARKS != client {
        return Err(HotOutcome::NewClient);
    }
    // Only now and then, so that the cache line mostly stays where it is.
    if entry & LATELY != LATELY {
        kernel.set_client(place, entry | LATELY);
    }
    Ok(())
}

/// Checks that a DNS cookie is one that user space would give back unchanged: of this client, by the present secret, and
/// young. A query without one passes.
#[inline(always)]
fn check_cookie(kernel: &impl HotKernel, scratch: &HotScratch, now: u64) -> Option<()> {
    if opt_len(kernel, scratch)? <= opt::LEN {
        return Some(());
    }
    if kernel.control(hot::control::HAS_COOKIES) == 0 {
        return None;
    }
    let cookie = DnsCookie::of(scratch.cookie.last_chunk()?);
    let secs = now / NANOS_PER_SEC;
    let age_secs = cookie.age_secs(secs.wrapping_add(kernel.control(hot::control::WALL)));
    if age_secs >= COOKIE_RENEW_SECS as i32 || age_secs < -(COOKIE_AHEAD_MAX_SECS as i32) {
        return None;
    }
    let [a, b, c, d, e, f, g, h] = kernel.control(hot::control::SECRET).to_ne_bytes();
    let [i, j, k, l, m, n, o, p] = kernel.control(hot::control::SECRET + 1).to_ne_bytes();
    let secret = [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p];
    cookie
        .is_made_for(scratch.envelope.client, &secret)
        .then_some(())
}

#[cfg(test)]
mod tests;
