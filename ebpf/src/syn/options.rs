//! Options of a SYN, and those that a cookie keeps.
//!
//! A cookie has room for an MSS only. Linux writes the client's other abilities into the low bits of its timestamp, which
//! the client sends back (`cookie_init_timestamp` in net/ipv4/syncookies.c). The same is done here, bit by bit.
//!
//! ```text
//!  31           6   5     4      3       0
//!   | milliseconds | ECN | SACK | scale    |      scale 15: no window scaling
//! ```

use xdnsd_abi::RestoredOptions;
use xdnsd_abi::headers::tcp;
use xdnsd_abi::headers::tcp::option;

/// Room for the longest TCP header, in words, and one word more.
pub type SynHeader = [u32; tcp::HEADER_LEN_MAX / size_of::<u32>() + 1];

/// Room without a header in it, see [`OptionWalk::new`].
#[inline(always)]
pub fn no_header(zero: u32) -> SynHeader {
    [zero; _]
}

/// Most options of a header.
pub const COUNT_MAX: u32 = (tcp::HEADER_LEN_MAX - tcp::HEADER_LEN) as u32;

/// Number of low bits of the timestamp that hold the client's abilities.
const BITS: u32 = 6;
const SACK: u32 = 1 << 4;
/// Value of the scale bits without window scaling.
const NO_SCALE: u8 = 0xf;
const NANOSECONDS_PER_MS: u64 = 1_000_000;

/// Options behind the MSS in an answer: all of them, or none.
///
/// Not an `Option`: for `None` the compiler saves bytes that were never written, which the verifier refuses.
pub struct TcpOptions {
    /// True if there are any.
    pub are_there: bool,
    /// Big-endian in memory; zero if there are none.
    pub words: [u32; WORDS],
}

const WORDS: usize = 4;

impl TcpOptions {
    /// Length of the options in bytes, if there are any.
    pub const LEN: usize = size_of::<[u32; WORDS]>();
    /// No options.
    pub const NONE: Self = Self {
        are_there: false,
        words: [0; WORDS],
    };
}

/// A walk over the options of a header, which is zero behind its end.
///
/// Each option is one call of a function, [`OptionWalk::step`], that the verifier checks once and not each time. It knows
/// the walk from this structure, so no field may be a number whose steps it can track. It does not track a number in the
/// upper half of eight bytes, or a single byte.
#[repr(C, align(8))]
pub struct OptionWalk {
    /// The header.
    pub header: SynHeader,
    /// Timestamp of the client, big-endian in memory.
    timestamp: u32,
    /// Offset of the next option.
    at: u32,
    has_timestamp: u8,
    has_sack: u8,
    scale: u8,
    /// Length of the header in bytes.
    end: u8,
    padding: u32,
}

impl OptionWalk {
    /// Every field is `zero`. From known numbers the compiler would make one store, which the verifier wants aligned, or a
    /// call of memset, which goes byte by byte.
    #[inline(always)]
    pub fn new(zero: u32) -> Self {
        let [has_timestamp, has_sack, scale, end] = zero.to_ne_bytes();
        Self {
            header: no_header(zero),
            timestamp: zero,
            at: zero,
            has_timestamp,
            has_sack,
            scale,
            end,
            padding: zero,
        }
    }

    /// Goes to the first option of a header of `len` bytes, which has been copied by now.
    #[inline(always)]
    pub fn begin(&mut self, len: u8) {
        self.at = tcp::HEADER_LEN as u32;
        self.scale = NO_SCALE;
        self.end = len;
    }

    /// Reads one option, as Linux does (`tcp_parse_options`). Returns false if there are no more, or the rest cannot be
    /// read.
    #[inline(always)]
    pub fn step(&mut self) -> bool {
        let at = self.at;
        let kind = self.octet(at);
        if kind == option::NOP {
            self.at = at + 1;
            return true;
        }
        let len = self.octet(at + 1);
        // Behind the end all bytes are zero, and so is an option there.
        if kind == option::END || len < 2 || at + u32::from(len) > u32::from(self.end) {
            return false;
        }
        match [kind, len] {
            option::SCALE => self.scale = self.octet(at + 2).min(option::SCALE_MAX),
            option::SACK_PERMITTED => self.has_sack = 1,
            option::TIMESTAMPS => {
                let octets = [2, 3, 4, 5].map(|offset| self.octet(at + offset));
                self.timestamp = u32::from_ne_bytes(octets);
                self.has_timestamp = 1;
            }
            _ => {}
        }
        self.at = at + u32::from(len);
        true
    }

    /// A byte of the header; any other byte if the offset is too large.
    #[inline(always)]
    fn octet(&self, at: u32) -> u8 {
        const LAST: usize = size_of::<SynHeader>() / size_of::<u32>() - 1;
        const { assert!(LAST.count_ones() == LAST.trailing_ones()) };
        let word = u32::from_be(self.header[(at as usize / size_of::<u32>()) & LAST]);
        (word >> (24 - 8 * (at % 4))) as u8
    }

    /// Options of the answer behind its MSS, after all options have been read. Without the client's timestamp nothing can
    /// be kept.
    #[inline(always)]
    pub fn answer(&self, kept: RestoredOptions, now_ns: u64) -> TcpOptions {
        const NOTHING: [u8; 2] = [option::NOP; 2];
        if self.has_timestamp == 0 {
            return TcpOptions::NONE;
        }
        let has_sack = self.has_sack != 0 && kept.sack;
        let [sack, sack_len] = if has_sack {
            option::SACK_PERMITTED
        } else {
            NOTHING
        };
        let [timestamps, timestamps_len] = option::TIMESTAMPS;
        let ours = kept.scale.filter(|_| self.scale != NO_SCALE);
        let (scale, scale_option) = match ours {
            Some(ours) => {
                let [kind, len] = option::SCALE;
                (self.scale, [option::NOP, kind, len, ours])
            }
            None => (NO_SCALE, [option::NOP; 4]),
        };
        let bits = u32::from(scale) | if has_sack { SACK } else { 0 };
        TcpOptions {
            are_there: true,
            words: [
                u32::from_ne_bytes([sack, sack_len, timestamps, timestamps_len]),
                stamp(now_ns / NANOSECONDS_PER_MS, bits).to_be(),
                self.timestamp,
                u32::from_ne_bytes(scale_option),
            ],
        }
    }
}

/// The latest timestamp up to now that ends in these bits.
#[inline(always)]
const fn stamp(now_ms: u64, bits: u32) -> u32 {
    let stamp = (now_ms >> BITS << BITS) | bits as u64;
    if stamp > now_ms {
        stamp.wrapping_sub(1 << BITS) as u32
    } else {
        stamp as u32
    }
}
