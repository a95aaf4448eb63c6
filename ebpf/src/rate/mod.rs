//! Limits per client: a query over the limit is answered with TC, so that a real client comes back over TCP, or dropped.
//!
//! The XDP program has checked the frame before: it is a complete query to us, in one buffer, with right checksums, and an
//! answer may leave the way it came. User space makes and charges accounts; here a query over the limit ends, where that
//! costs least. A query that another program answers is charged here. In doubt a query goes on to user space, which judges
//! it again.

mod cookie;
mod question;

use crate::flow::envelope::Envelope;
use crate::flow::network::Address;
use crate::flow::transport::Datagram;
use crate::flow::{Flow, Frame};
use crate::frame::Cursor;
use crate::frame::write::CursorMut;
use crate::message::{opt_record, put};
use question::RateQuestion;
use xdnsd_abi::hash::HashKey;
use xdnsd_abi::headers::dns::{self, opt};
use xdnsd_abi::headers::udp;
use xdnsd_abi::rate::{
    ClientPrefix, ELEMENT_WORDS, NETWORKS_AT, NETWORKS_MAX, NETWORKS_OF_ELEMENT,
    NEWCOMER_PROVED_SECS, NEWCOMERS_DEPTH_NS, Rate, SCRATCH_BYTES, WAYS, account, control, element,
    network,
};
use xdnsd_abi::{Reason, few};

/// Longest message in bytes that is read here. A longer one of a client over its limit is dropped.
pub const READ_MAX: usize = 256;
/// Room for a message, and for what is written behind its end.
pub type QueryBuffer = [u8; 288];

/// Scratch space of a processor, for reading a message and assembling the answer.
#[repr(C)]
pub struct RateScratch {
    /// The query, then the answer to it.
    message: QueryBuffer,
    /// An offset in it, kept here so that the verifier does not walk the rest once for each value.
    at: u64,
}

const _: () = assert!(size_of::<RateScratch>() <= SCRATCH_BYTES);

/// Access that the program needs.
pub trait RateKernel {
    /// An element of the table.
    type Element: Copy;
    /// The frame.
    fn frame(&self) -> Cursor<'_>;
    /// An element of the table; `None` if there is no table.
    fn element(&self, index: u32) -> Option<Self::Element>;
    /// A word of an element.
    fn word(&self, element: Self::Element, at: usize) -> u64;
    /// Writes a word of an element.
    fn set_word(&self, element: Self::Element, at: usize, word: u64);
    /// CLOCK_MONOTONIC in nanoseconds.
    fn now(&self) -> u64;
    /// True if the client has brought a SYN cookie back in the last `secs` seconds.
    fn has_proved(&self, client: Address, secs: u32) -> bool;
    /// Charges one event to a rate that all share on this CPU, with its index in [`few`]. Returns true if there was room.
    fn take(&self, place: u32, rate: Rate) -> bool;
    /// True if answers leave.
    fn answers(&self) -> bool;
    /// The number at this place, of which neither compiler nor verifier knows anything.
    fn opaque(&self, place: &u64) -> u64;
    /// Copies `len` bytes of the frame, 1 to [`READ_MAX`], from offset `at`.
    fn load(&self, at: usize, len: usize, message: &mut QueryBuffer) -> Option<()>;
    /// Sum of the message's first `len` bytes as 16-bit words in native order. The bytes up to the next multiple of four
    /// must be zero.
    fn sum(&self, message: &QueryBuffer, len: usize) -> u64;
    /// Sets the length of the frame. `None` if that fails, which leaves it unchanged.
    fn resize(&self, len: usize) -> Option<()>;
    /// The present frame, for writing.
    fn frame_mut(&self) -> CursorMut<'_>;
    /// Writes `len` bytes of the message to the frame at offset `at`.
    fn store(&self, at: usize, message: &QueryBuffer, len: usize) -> Option<()>;
}

/// Account of a client.
#[derive(Clone, Copy)]
pub struct Account<E> {
    /// Index of its first word in the table.
    pub place: u32,
    element: E,
    /// Index of its first word in the element.
    at: usize,
    rate: Rate,
}

/// `Ok`: the query goes on; the value is its client's account. `Err`: the verdict. With [`Reason::RateSlipped`] the answer
/// is in the frame.
#[inline(always)]
pub fn judge<K: RateKernel>(
    kernel: &K,
    scratch: &mut RateScratch,
) -> Result<Option<Account<K::Element>>, Reason> {
    let Ok(Frame::Udp(flow)) = Frame::parse(kernel.frame()) else {
        return Ok(None);
    };
    let Some((header, _)) = flow.transport.message.take::<{ dns::HEADER_LEN }>() else {
        return Ok(None);
    };
    let has_records = header.get::<{ dns::field::ADDITIONALS.start }, u16>() != 0;
    let Some(account) = find(kernel, scratch, flow.packet.source) else {
        return Ok(None);
    };
    let Account {
        element, at, rate, ..
    } = account;
    let now = kernel.now();
    if rate.has_room(kernel.word(element, at + account::QUERIES), now) {
        return Ok(Some(account));
    }
    let slips = rate_at(kernel, control::SLIP_INTERVAL);
    let slipped = kernel.word(element, at + account::SLIPS);
    let may_slip = slips.is_on() && slips.has_room(slipped, now);
    // Most of a flood ends here: no answer, and no record that could contain a cookie.
    if !may_slip && !has_records {
        return Err(Reason::DropRate);
    }
    let Some((envelope, asked)) = read(kernel, scratch, &flow) else {
        return Err(Reason::DropRate);
    };
    if asked.cookie != 0 && cookie::is_good(kernel, scratch, &asked, flow.packet.source) {
        return Ok(None);
    }
    if !may_slip {
        return Err(Reason::DropRate);
    }
    // User space answers with TC, and counts it. In generic mode the kernel would complete the checksum of an answer in this frame.
    if !kernel.answers() || flow.has_partial_checksum() {
        return Ok(None);
    }
    slip(kernel, scratch, &envelope, &asked).ok_or(Reason::DropRate)?;
    kernel.set_word(element, at + account::SLIPS, slips.charge(slipped, now));
    Err(Reason::RateSlipped)
}

/// Judges a query within its client's limits, from a client that no worker has answered lately. All such clients share a
/// rate of queries to user space; otherwise forged sources would take all of it. Neighbours have a rate of their own.
#[inline(always)]
pub fn judge_newcomer<K: RateKernel>(kernel: &K, scratch: &mut RateScratch) -> Result<(), Reason> {
    let interval_ns = word_at(kernel, control::NEWCOMERS);
    let rate = Rate {
        interval_ns,
        depth_ns: interval_ns.max(NEWCOMERS_DEPTH_NS),
    };
    let Ok(Frame::Udp(flow)) = Frame::parse(kernel.frame()) else {
        return Ok(());
    };
    if rate.interval_ns == 0 {
        return Ok(());
    }
    let client = flow.packet.source;
    // If not all networks are known, all clients share one rate.
    let is_near = client.is_link_local() || is_on_link(kernel, client).unwrap_or(false);
    let share = usize::from(!is_near);
    if kernel.take(few::NEWCOMERS[share], rate) || kernel.has_proved(client, NEWCOMER_PROVED_SECS) {
        return Ok(());
    }
    let Some((header, _)) = flow.transport.message.take::<{ dns::HEADER_LEN }>() else {
        return Err(Reason::DropNewcomer);
    };
    let has_records = header.get::<{ dns::field::ADDITIONALS.start }, u16>() != 0;
    let may_slip = kernel.answers() && rate_at(kernel, control::SLIP_INTERVAL).is_on();
    let may_slip = may_slip && !flow.has_partial_checksum();
    let slips = || may_slip && kernel.take(few::NEWCOMER_SLIPS[share], rate);
    // Most of a flood ends here.
    if !has_records && !slips() {
        return Err(Reason::DropNewcomer);
    }
    let Some((envelope, asked)) = read(kernel, scratch, &flow) else {
        return Err(Reason::DropNewcomer);
    };
    if asked.cookie != 0 && cookie::is_good(kernel, scratch, &asked, client) {
        return Ok(());
    }
    if has_records && !slips() {
        return Err(Reason::DropNewcomer);
    }
    slip(kernel, scratch, &envelope, &asked).ok_or(Reason::DropNewcomer)?;
    Err(Reason::RateSlipped)
}

/// Charges a query that user space does not see to the account at this index.
#[inline(always)]
pub fn charge<K: RateKernel>(kernel: &K, place: u32) {
    let Some(element) = kernel.element(place / ELEMENT_WORDS as u32) else {
        return;
    };
    let at = place as usize % ELEMENT_WORDS;
    let rate = rate_at(kernel, control::QUERY_INTERVAL);
    let clear_at = kernel.word(element, at + account::QUERIES);
    let charged = rate.charge(clear_at, kernel.now());
    kernel.set_word(element, at + account::QUERIES, charged);
}

/// A word of the first element.
#[inline(always)]
fn word_at<K: RateKernel>(kernel: &K, at: usize) -> u64 {
    let Some(head) = kernel.element(0) else {
        return 0;
    };
    kernel.word(head, at)
}

#[inline(always)]
fn rate_at<K: RateKernel>(kernel: &K, at: usize) -> Rate {
    let Some(head) = kernel.element(0) else {
        return Rate::NONE;
    };
    Rate {
        interval_ns: kernel.word(head, at),
        depth_ns: kernel.word(head, at + 1),
    }
}

/// Account of this client, if user space has made one and queries are limited.
#[inline(always)]
fn find<K: RateKernel>(
    kernel: &K,
    scratch: &mut RateScratch,
    client: Address,
) -> Option<Account<K::Element>> {
    let rate = rate_at(kernel, control::QUERY_INTERVAL);
    if !rate.is_on() {
        return None;
    }
    let Address(high, low) = client;
    let unit = if client.is_link_local() || is_on_link(kernel, client)? {
        ClientPrefix::whole([high, low])
    } else {
        ClientPrefix::prefix([high, low])
    };
    let tag = unit.tag(&key(kernel, control::KEY)?);
    let index = element(tag);
    let element = kernel.element(index)?;
    scratch.at = u64::MAX;
    for way in 0..WAYS {
        if kernel.word(element, way * account::COUNT + account::TAG) == tag {
            scratch.at = (way * account::COUNT) as u64;
            break;
        }
    }
    let at = kernel.opaque(&scratch.at) as usize;
    if at >= WAYS * account::COUNT {
        return None;
    }
    Some(Account {
        place: index * ELEMENT_WORDS as u32 + at as u32,
        element,
        at,
        rate,
    })
}

/// True if the client is a neighbour; `None` if there are more networks than are known here.
#[inline(always)]
fn is_on_link<K: RateKernel>(kernel: &K, client: Address) -> Option<bool> {
    let count = kernel.word(kernel.element(0)?, control::NETWORKS);
    if count > NETWORKS_MAX as u64 {
        return None;
    }
    let Address(high, low) = client;
    // Hidden: the compiler would leave the bound out, and to the verifier of Linux 6.1 a loop up to an unknown number never ends.
    let count = kernel.opaque(&count) as usize;
    for index in 0..NETWORKS_MAX {
        if index == count {
            break;
        }
        let networks = kernel.element(NETWORKS_AT + (index / NETWORKS_OF_ELEMENT) as u32)?;
        let word = |at| kernel.word(networks, index % NETWORKS_OF_ELEMENT * network::COUNT + at);
        let differs = high & word(network::MASK) ^ word(network::FIRST)
            | low & word(network::MASK + 1) ^ word(network::FIRST + 1);
        if differs == 0 {
            return Some(true);
        }
    }
    Some(false)
}

#[inline(always)]
fn key<K: RateKernel>(kernel: &K, at: usize) -> Option<HashKey> {
    let head = kernel.element(0)?;
    let [a, b, c, d, e, f, g, h] = kernel.word(head, at).to_ne_bytes();
    let [i, j, k, l, m, n, o, p] = kernel.word(head, at + 1).to_ne_bytes();
    Some([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p])
}

/// Reads the question into the scratch; `None` if it is not read here.
#[inline(always)]
fn read<K: RateKernel>(
    kernel: &K,
    scratch: &mut RateScratch,
    flow: &Flow<Datagram<'_>>,
) -> Option<(Envelope, RateQuestion)> {
    let envelope = Envelope::of(kernel.frame(), flow)?;
    let len = usize::from(flow.transport.len()).checked_sub(udp::HEADER_LEN)?;
    if !(dns::HEADER_LEN..=READ_MAX).contains(&len) {
        return None;
    }
    kernel.load(envelope.len(), len, &mut scratch.message)?;
    let asked = RateQuestion::read(kernel, scratch, len)?;
    Some((envelope, asked))
}

/// Writes the answer with TC in place of the query: its question, and an OPT record if it has one. `None` leaves the frame
/// in an undefined state.
#[inline(always)]
fn slip<K: RateKernel>(
    kernel: &K,
    scratch: &mut RateScratch,
    envelope: &Envelope,
    asked: &RateQuestion,
) -> Option<()> {
    let message = &mut scratch.message;
    let opt_len = if asked.has_opt { opt::LEN } else { 0 };
    let len = asked.end + opt_len;
    if asked.has_opt {
        put(message, asked.end, opt_record(asked.opt_flags))?;
    }
    // Padding for the sum, which is in whole words.
    put(message, len, [0; 4])?;
    let flags = dns::QR | dns::TC | dns::RA | asked.flags & (dns::RD | dns::CD);
    put(message, dns::field::FLAGS.start, flags.to_be_bytes())?;
    put(message, 6, [0, 0, 0, 0, 0, u8::from(asked.has_opt)])?;
    let sum = kernel.sum(&scratch.message, len);
    kernel.resize(envelope.len() + len)?;
    envelope.write(kernel.frame_mut(), len, sum)?;
    kernel.store(envelope.len(), &scratch.message, len)
}

#[cfg(test)]
mod tests;
