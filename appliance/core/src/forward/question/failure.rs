//! Why a question ends without an answer.

use crate::dns::edns::ede;
use crate::dns::rcode;

/// A failure, ours or an upstream's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// RCODE for the client, 1 to 15.
    pub rcode: u8,
    /// Extended error, or [`ede::NONE`].
    pub ede: u16,
}

impl Failure {
    /// SERVFAIL without further information.
    pub const SERVFAIL: Self = Self {
        rcode: rcode::SERVFAIL,
        ede: ede::NONE,
    };
}
