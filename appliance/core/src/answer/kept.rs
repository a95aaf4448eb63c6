//! An answer of the cache as a whole message again.

use crate::dns::QUESTION_FIXED_LEN;
use crate::dns::header::HEADER_LEN;
use crate::limits::CACHE_LARGE_BYTES;
use core::ops::Range;
use heapless::Vec;

/// The longest message that a slot of the cache makes.
const MESSAGE_MAX: usize = HEADER_LEN + QUESTION_FIXED_LEN + CACHE_LARGE_BYTES;
/// A length byte that is reserved (RFC 6891 section 5): no name begins or goes on there.
const NO_LABEL: u8 = 0x80;

/// A body behind its question, so that its compression pointers lead where they should. In memory of its own: it outlives the
/// lock of its shard, and no other answer is lost for it.
#[derive(Debug)]
pub struct Kept {
    message: Vec<u8, MESSAGE_MAX>,
    body_at: usize,
}

impl Kept {
    /// Puts `body` behind a question for `name`. A pointer to anywhere else leads to no name. `None`: they do not fit a
    /// slot, so they were none of the cache's.
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

    /// The message. What stands in its header and behind QNAME says nothing.
    #[must_use]
    pub fn message(&self) -> &[u8] {
        &self.message
    }

    /// Where the body stands in it.
    #[must_use]
    pub fn body(&self) -> Range<usize> {
        self.body_at..self.message.len()
    }
}
