//! A cached answer, restored to a whole message.

use crate::dns::QUESTION_FIXED_LEN;
use crate::dns::header::HEADER_LEN;
use crate::limits::CACHE_LARGE_BYTES;
use core::ops::Range;
use heapless::Vec;

/// Longest message that a slot of the cache makes, in bytes.
const MESSAGE_MAX: usize = HEADER_LEN + QUESTION_FIXED_LEN + CACHE_LARGE_BYTES;
/// A reserved length byte (RFC 6891 section 5): no name begins or continues there.
const NO_LABEL: u8 = 0x80;

/// A body behind its question, so that its compression pointers are right. It is a copy, so it outlives the lock of its
/// shard and leaves the engine's scratch buffer alone.
#[derive(Debug)]
pub struct Kept {
    message: Vec<u8, MESSAGE_MAX>,
    body_at: usize,
}

impl Kept {
    /// Puts `body` behind a question for `name`. A pointer to anywhere else finds no name. `None` if they do not fit a
    /// slot, and so do not come from the cache.
    #[must_use]
    pub fn new(name: &[u8], body: &[u8]) -> Option<Self> {
        let mut message = Vec::new();
        message.extend_from_slice(&[NO_LABEL; HEADER_LEN]).ok()?;
        message.extend_from_slice(name).ok()?;
        message
            .extend_from_slice(&[NO_LABEL; QUESTION_FIXED_LEN])
            .ok()?;
        let body_at = message.len();
        message.extend_from_slice(body).ok()?;
        Some(Self { message, body_at })
    }

    /// The message. Header, QTYPE and QCLASS in it have no meaning.
    #[must_use]
    pub fn message(&self) -> &[u8] {
        &self.message
    }

    /// Range of the body in the message.
    #[must_use]
    pub fn body(&self) -> Range<usize> {
        self.body_at..self.message.len()
    }
}
