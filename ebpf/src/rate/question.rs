//! The question of a query, and its DNS cookie.

use super::{RateKernel, RateScratch};
use crate::message::be16;
use xdnsd_abi::headers::dns::{self, opt};

/// Most labels of the longest name.
const LABELS_MAX: usize = dns::NAME_MAX.div_ceil(2);
/// Bits that a query does not have.
const NO_QUERY: u16 = dns::QR | dns::OPCODE;
/// Most options that are read. A cookie behind them is not found, and its client has to come over TCP.
const OPTIONS_MAX: usize = 8;

/// The parts of a question that matter here.
pub struct RateQuestion {
    /// Flags of the header.
    pub flags: u16,
    /// Offset of the question's end.
    pub end: usize,
    /// True if an OPT record follows.
    pub has_opt: bool,
    /// DO of the OPT record.
    pub opt_flags: u8,
    /// Offset of a cookie of [`opt::COOKIE_LEN`] bytes; 0 if there is none.
    pub cookie: usize,
}

impl RateQuestion {
    /// Reads the message of `len` bytes in the scratch; `None` if it is not a query with one question.
    #[inline(always)]
    pub fn read(kernel: &impl RateKernel, scratch: &mut RateScratch, len: usize) -> Option<Self> {
        let flags = be16(&scratch.message, dns::field::FLAGS.start)?;
        if flags & NO_QUERY != 0 || be16(&scratch.message, 4)? != 1 {
            return None;
        }
        let between = be16(&scratch.message, 6)? | be16(&scratch.message, 8)?;
        let additionals = be16(&scratch.message, 10)?;
        walk_name(scratch)?;
        let name_end = kernel.opaque(&scratch.at) as usize;
        if name_end > dns::HEADER_LEN + dns::NAME_MAX {
            return None;
        }
        let end = name_end + dns::QUESTION_FIXED_LEN;
        if end > len {
            return None;
        }
        let mut asked = Self {
            flags,
            end,
            has_opt: false,
            opt_flags: 0,
            cookie: 0,
        };
        if between == 0 && additionals != 0 && end + opt::LEN <= len {
            asked.read_opt(kernel, scratch, len)?;
        }
        Some(asked)
    }

    #[inline(always)]
    fn read_opt(
        &mut self,
        kernel: &impl RateKernel,
        scratch: &mut RateScratch,
        len: usize,
    ) -> Option<()> {
        let start = self.end + opt::LEN;
        let record: &[u8; opt::LEN] = scratch.message.get(self.end..start)?.first_chunk()?;
        // Root, type 41, size, extended RCODE, version, DO and reserved bits, length.
        let [0, 0, opt::TYPE, _, _, _, _, flags, _, high, low] = *record else {
            return Some(());
        };
        self.has_opt = true;
        self.opt_flags = flags & opt::DNSSEC_OK;
        let end = start + usize::from(u16::from_be_bytes([high, low]));
        if end <= len {
            walk_options(scratch, start, end);
            self.cookie = kernel.opaque(&scratch.at) as usize;
        }
        Some(())
    }
}

/// Walks QNAME, and leaves the offset of its end in the scratch.
#[inline(always)]
fn walk_name(scratch: &mut RateScratch) -> Option<()> {
    let mut at = dns::HEADER_LEN;
    for _ in 0..LABELS_MAX {
        let len = *scratch.message.get(at)?;
        if len > dns::LABEL_MAX {
            return None;
        }
        at += 1 + usize::from(len);
        if len == 0 {
            scratch.at = at as u64;
            return Some(());
        }
    }
    None
}

/// Looks for the first cookie, and leaves its offset in the scratch; 0 if there is none of the right length.
#[inline(always)]
fn walk_options(scratch: &mut RateScratch, start: usize, end: usize) {
    scratch.at = 0;
    let mut at = start;
    for _ in 0..OPTIONS_MAX {
        let (Some(code), Some(len)) = (be16(&scratch.message, at), be16(&scratch.message, at + 2))
        else {
            return;
        };
        let data = at + 4;
        let next = data + usize::from(len);
        if next > end {
            return;
        }
        if code == opt::COOKIE {
            if usize::from(len) == opt::COOKIE_LEN {
                scratch.at = data as u64;
            }
            return;
        }
        at = next;
    }
}
