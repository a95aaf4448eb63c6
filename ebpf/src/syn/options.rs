//! The options of a SYN, and what a cookie keeps of them.
//!
//! A cookie has room for an MSS alone. What else the client can do, Linux writes into the lowest bits of the timestamp of its
//! answer, which the client sends back (`cookie_init_timestamp` in net/ipv4/syncookies.c): so it is done here, bit by bit.
//!
//! ```text
//!  31           6   5     4      3       0
//!  | milliseconds | ECN | SACK | scale    |      scale 15: the client scales no windows
//! ```

use xdnsd_abi::RestoredOptions;
use xdnsd_abi::headers::tcp;
use xdnsd_abi::headers::tcp::option;

/// Room for the longest TCP header, in words, the last of which is not needed.
pub type SynHeader = [u32; tcp::HEADER_LEN_MAX / size_of::<u32>() + 1];

/// Room without a header in it: see [`OptionWalk::new`].
#[inline(always)]
pub fn no_header(zero: u32) -> SynHeader {
    [zero; _]
}

/// Options that a header can hold.
pub const COUNT_MAX: u32 = (tcp::HEADER_LEN_MAX - tcp::HEADER_LEN) as u32;

/// Bits of the timestamp that say what the client can do.
const BITS: u32 = 6;
const SACK: u32 = 1 << 4;
/// In place of a scale.
const NO_SCALE: u8 = 0xf;
const NANOSECONDS_PER_MS: u64 = 1_000_000;

/// The options behind the MSS in an answer: all of them, or none.
///
/// Not an `Option`: of one that is `None` the compiler saves bytes that nobody has written, and the verifier refuses that.
pub struct TcpOptions {
    /// Whether they are there.
    pub are_there: bool,
    /// Big-endian in memory; zero where they are not there.
    pub words: [u32; WORDS],
}

const WORDS: usize = 4;

impl TcpOptions {
    /// Bytes of them, where they are there.
    pub const LEN: usize = size_of::<[u32; WORDS]>();
    /// An MSS and nothing else.
    pub const NONE: Self = Self {
        are_there: false,
        words: [0; WORDS],
    };
}

/// A walk over the options of a header, which is zero behind its end.
///
/// One option is one call of a function that the verifier looks at once, and not each time: [`OptionWalk::step`]. What it knows of the
/// walk it has from this structure, so nothing here may be a number that it can count along. Of a number in the upper half of
/// eight bytes, or of a single byte, it remembers nothing.
#[repr(C, align(8))]
pub struct OptionWalk {
    /// The header.
    pub header: SynHeader,
    /// The client's timestamp, big-endian in memory.
    timestamp: u32,
    /// Where the next option stands.
    at: u32,
    has_timestamp: u8,
    has_sack: u8,
    scale: u8,
    /// Bytes of the header.
    end: u8,
    padding: u32,
}

impl OptionWalk {
    /// All of it is `zero`: of numbers that it knows the compiler makes one store, and the verifier wants those aligned, or a call
    /// of memset, which goes byte by byte.
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

    /// Stands at the first option of a header of so many bytes, which is there by now.
    #[inline(always)]
    pub fn begin(&mut self, len: u8) {
        self.at = tcp::HEADER_LEN as u32;
        self.scale = NO_SCALE;
        self.end = len;
    }

    /// Looks at one option, as Linux does (`tcp_parse_options`). False: there are no more, or the rest cannot be read.
    #[inline(always)]
    pub fn step(&mut self) -> bool {
        let at = self.at;
        let kind = self.octet(at);
        if kind == option::NOP {
            self.at = at + 1;
            return true;
        }
        let len = self.octet(at + 1);
        // Behind the end everything is zero, and so is the option there.
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

    /// One of the header's bytes; some other one where there are so many not.
    #[inline(always)]
    fn octet(&self, at: u32) -> u8 {
        const LAST: usize = size_of::<SynHeader>() / size_of::<u32>() - 1;
        const { assert!(LAST.count_ones() == LAST.trailing_ones()) };
        let word = u32::from_be(self.header[(at as usize / size_of::<u32>()) & LAST]);
        (word >> (24 - 8 * (at % 4))) as u8
    }

    /// What the answer says behind its MSS, after all options were looked at. Without the client's timestamp there is nothing to
    /// keep it in.
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

/// The latest timestamp that is not in the future and ends in these bits.
#[inline(always)]
const fn stamp(now_ms: u64, bits: u32) -> u32 {
    let stamp = (now_ms >> BITS << BITS) | bits as u64;
    if stamp > now_ms {
        stamp.wrapping_sub(1 << BITS) as u32
    } else {
        stamp as u32
    }
}
