//! The question of a plain query: a header, one question of class IN, at most an OPT record with at most a DNS cookie, and
//! nothing else.

use super::{HotKernel, HotScratch, OPT_MAX, WORD, sum};
use crate::message::be16;
use xdnsd_abi::headers::dns::{self, opt};
use xdnsd_abi::hot::{self, NAME_MAX, NAME_WORDS, kind};

/// RD, AD, CD: the flags that a plain query may have.
const FLAGS: u16 = dns::RD | dns::AD | dns::CD;
/// QDCOUNT 1, and all other counts 0, in message order. ARCOUNT is compared by itself.
const ONE_QUESTION: u64 = 1 << 48;
/// Class IN.
const CLASS_IN: u16 = 1;
/// Most labels of the longest name, including the root: each of the others has at least one byte.
const LABELS_MAX: usize = NAME_MAX.div_ceil(2);

/// A question without QNAME, which is in the scratch.
pub struct PlainQuestion {
    /// Kind as in an answer's key.
    pub kind: u64,
    /// Flags of the header.
    pub flags: u16,
    /// Offset of the question's end: at most that of the longest name.
    pub end: usize,
}

impl PlainQuestion {
    /// Reads the message. The bytes behind it are of other messages, and none of them counts: the parts have to add up to its
    /// length. `None`: it is not plain.
    #[inline(always)]
    pub fn read(kernel: &impl HotKernel, scratch: &mut HotScratch) -> Option<Self> {
        let len = kernel.opaque(&scratch.query_len) as usize;
        if len == 0 || kernel.opaque(&scratch.sum) == 0 {
            return None;
        }
        let flags = be16(&scratch.message, dns::field::FLAGS.start)?;
        let counts = scratch.message.get(4..)?.first_chunk()?;
        let additionals = u64::from_be_bytes(*counts) ^ ONE_QUESTION;
        if flags & !FLAGS != 0 || additionals > 1 {
            return None;
        }
        read_name(scratch)?;
        let name_len = name_len(kernel, scratch)?;
        copy_name(scratch, name_len);
        let name_len = self::name_len(kernel, scratch)?;
        let name_end = dns::HEADER_LEN + name_len;
        let end = name_end + dns::QUESTION_FIXED_LEN;
        if be16(&scratch.message, name_end + 2)? != CLASS_IN {
            return None;
        }
        let qtype = be16(&scratch.message, name_end)?;
        scratch.opt_len = 0;
        let edns = if additionals == 1 {
            read_opt(scratch, end)?
        } else {
            0
        };
        if len != end + opt_len(kernel, scratch)? {
            return None;
        }
        let checking_disabled = if flags & dns::CD != 0 {
            kind::CHECKING_DISABLED
        } else {
            0
        };
        Some(Self {
            kind: u64::from(qtype) | edns | checking_disabled,
            flags,
            end,
        })
    }
}

/// Walks QNAME, and leaves its length in the scratch.
#[inline(always)]
fn read_name(scratch: &mut HotScratch) -> Option<()> {
    let mut at = 0;
    for _ in 0..LABELS_MAX {
        let label_len = *scratch.message.get(dns::HEADER_LEN + at)?;
        at += 1;
        if label_len == 0 {
            scratch.name_len = at as u64;
            return Some(());
        }
        at += usize::from(label_len);
        if label_len > dns::LABEL_MAX || at >= NAME_MAX {
            return None;
        }
    }
    None
}

/// Length of QNAME, read anew for each loop over its words. Otherwise the verifier, which walks a loop once for each number
/// of words, would walk all that follows as often.
#[inline(always)]
pub fn name_len(kernel: &impl HotKernel, scratch: &HotScratch) -> Option<usize> {
    let len = kernel.opaque(&scratch.name_len);
    // Not `1..`, which compares the number minus one. The verifier before Linux 6.18 learns nothing about the number from
    // that.
    if len > NAME_MAX as u64 {
        return None;
    }
    // To the verifier of Linux 6.1 a sum from before the comparison has no bounds.
    Some(kernel.again(len) as usize)
}

/// Writes QNAME to the scratch in lower case.
#[inline(always)]
fn copy_name(scratch: &mut HotScratch, name_len: usize) {
    for at in 0..NAME_WORDS {
        let Some(left @ 1..) = name_len.checked_sub(at * WORD) else {
            break;
        };
        let from = dns::HEADER_LEN + at * WORD;
        let bytes = scratch.message[from..].first_chunk();
        let word = hot::lower_case(u64::from_ne_bytes(*bytes.unwrap_or(&[0; WORD])));
        scratch.name[at] = if left < WORD {
            hot::first_bytes(word, left)
        } else {
            word
        };
    }
}

/// Length of the OPT record, read anew like the name's.
#[inline(always)]
pub fn opt_len(kernel: &impl HotKernel, scratch: &HotScratch) -> Option<usize> {
    let len = kernel.opaque(&scratch.opt_len);
    if len > OPT_MAX as u64 {
        return None;
    }
    Some(kernel.again(len) as usize)
}

/// Kind bits of the OPT record at `at`; its length and its cookie are left in the scratch. `None` if it is another record,
/// or has more than DO, a size, and a cookie with a server cookie.
#[inline(always)]
fn read_opt(scratch: &mut HotScratch, at: usize) -> Option<u64> {
    const COOKIE: u8 = opt::COOKIE_OPTION_LEN as u8;
    let record: &[u8; opt::LEN] = scratch.message.get(at..at + opt::LEN)?.first_chunk()?;
    // Root, type 41, size, extended RCODE, version, DO and reserved bits, length.
    let record = *record;
    let [0, 0, opt::TYPE, _, _, 0, 0, flags, 0, 0, options_len] = record else {
        return None;
    };
    match options_len {
        0 => scratch.opt_len = opt::LEN as u64,
        COOKIE => {
            read_cookie(scratch, at + opt::LEN)?;
            scratch.opt_len = OPT_MAX as u64;
        }
        _ => return None,
    }
    scratch.opt_sum = sum::of_opt(scratch, at, &record);
    match flags {
        0 => Some(kind::EDNS),
        opt::DNSSEC_OK => Some(kind::EDNS | kind::DNSSEC_OK),
        _ => None,
    }
}

/// Leaves the cookie option at `at` in the scratch; `None` if it is another option, or of another length.
#[inline(always)]
fn read_cookie(scratch: &mut HotScratch, at: usize) -> Option<()> {
    const CODE: [u8; 2] = opt::COOKIE.to_be_bytes();
    const LEN: [u8; 2] = (opt::COOKIE_LEN as u16).to_be_bytes();
    let end = at + opt::COOKIE_OPTION_LEN;
    let option: &[u8; opt::COOKIE_OPTION_LEN] = scratch.message.get(at..end)?.first_chunk()?;
    let [a, b, c, d, ..] = *option;
    if [a, b] != CODE || [c, d] != LEN {
        return None;
    }
    scratch.cookie = *option;
    Some(())
}
