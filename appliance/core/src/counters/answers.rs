//! Answers by RCODE, for each way that they go out by.

use core::sync::atomic::{AtomicU64, Ordering};

use super::add;
use crate::dns::rcode;

xdnsd_abi::counters! {
    /// The way that an answer goes out by. Those of the XDP program are not counted here.
    pub enum AnswerWay: usize {
        /// The TX ring of an AF_XDP socket.
        AfXdp = "af_xdp",
        /// A UDP socket of the kernel.
        Udp = "udp",
        /// TCP.
        Tcp = "tcp",
    }
}

/// The RCODEs that are told apart, with their names (RFC 6895 section 2.3). All others are counted together.
pub const RCODES: [(u8, &str); 6] = [
    (rcode::NOERROR, "NOERROR"),
    (rcode::FORMERR, "FORMERR"),
    (rcode::SERVFAIL, "SERVFAIL"),
    (rcode::NXDOMAIN, "NXDOMAIN"),
    (rcode::NOTIMP, "NOTIMP"),
    (rcode::REFUSED, "REFUSED"),
];

/// Number of counters of a way: one for each of [`RCODES`], and one for all others.
pub const KINDS: usize = RCODES.len() + 1;

/// Answers by [`AnswerWay`] and RCODE. One thread writes, everyone may read.
#[derive(Debug)]
pub struct AnswerCounts([[AtomicU64; KINDS]; AnswerWay::COUNT]);

/// The values at one moment, or of several workers together.
pub type AnswerReading = [[u64; KINDS]; AnswerWay::COUNT];

impl AnswerCounts {
    /// No answers.
    #[must_use]
    pub const fn new() -> Self {
        Self([const { [const { AtomicU64::new(0) }; KINDS] }; AnswerWay::COUNT])
    }

    /// Counts an answer by the RCODE of its header; the high bits of an extended one do not count.
    #[inline]
    pub fn count(&self, way: AnswerWay, message: &[u8]) {
        let code = message.get(3).map_or(rcode::NOERROR, |byte| byte & 0xf);
        // The known ones are 0 to 5, in this order.
        let kind = usize::from(code).min(RCODES.len());
        add(&self.0[way as usize][kind], 1);
    }

    /// The present values.
    #[must_use]
    pub fn read(&self) -> AnswerReading {
        let of_way =
            |way: usize| core::array::from_fn(|kind| self.0[way][kind].load(Ordering::Relaxed));
        core::array::from_fn(of_way)
    }
}

impl Default for AnswerCounts {
    fn default() -> Self {
        Self::new()
    }
}

const _: () = {
    let mut index = 0;
    while index < RCODES.len() {
        assert!(RCODES[index].0 as usize == index);
        index += 1;
    }
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_for_its_way_and_rcode() {
        let counts = AnswerCounts::new();
        for (way, code, times) in [
            (AnswerWay::AfXdp, 0, 3),
            (AnswerWay::Udp, 3, 2),
            (AnswerWay::Tcp, 5, 1),
            (AnswerWay::Tcp, 9, 1),
            (AnswerWay::Tcp, 15, 1),
        ] {
            for _ in 0..times {
                counts.count(way, &[0, 1, 0x81, 0x80 | code]);
            }
        }
        assert_eq!(
            counts.read(),
            [
                [3, 0, 0, 0, 0, 0, 0],
                [0, 0, 0, 2, 0, 0, 0],
                [0, 0, 0, 0, 0, 1, 2],
            ]
        );
    }
}
