//! A sanitized response of an upstream, in the buffer into which it was written.

use super::{Answer, Head};
use crate::dns::record::Records;
use core::ops::Range;

/// A sanitized response. It borrows its buffer, so that nothing else is written there while it is in use.
///
/// ```
/// # use xdnsd_core::answer::{Expected, sanitize};
/// # use xdnsd_core::time::Instant;
/// # fn done(response: &[u8], expected: &Expected<'_>, now: Instant, scratch: &mut [u8]) {
/// let first = sanitize(response, expected, now, scratch);
/// drop(first);
/// let second = sanitize(response, expected, now, scratch);
/// # drop(second);
/// # }
/// ```
///
/// The compiler enforces it:
///
/// ```compile_fail,E0499
/// # use xdnsd_core::answer::{Expected, sanitize};
/// # use xdnsd_core::time::Instant;
/// # fn lost(response: &[u8], expected: &Expected<'_>, now: Instant, scratch: &mut [u8]) {
/// let first = sanitize(response, expected, now, scratch);
/// let second = sanitize(response, expected, now, scratch);
/// # drop((first, second));
/// # }
/// ```
#[derive(Debug)]
pub struct Response<'t> {
    pub(super) scratch: &'t mut [u8],
    pub(super) body: Range<usize>,
    /// Head for the cache. `ttl_secs` 0: not to be cached.
    pub head: Head,
    /// TC: the whole answer has to be fetched over TCP.
    pub truncated: bool,
    /// True if the response had an OPT record.
    pub has_edns: bool,
    /// True if it ends in an alias without records of the target, nor a proof that there are none: the target has to be
    /// asked for.
    pub ends_in_alias: bool,
    /// True if its aliases form a loop or exceed [`CHAIN_MAX`](super::CHAIN_MAX).
    pub is_endless: bool,
    /// True if it is a referral: NS records, neither an answer nor an SOA (RFC 2308 section 2.2), and AA is clear.
    pub is_referral: bool,
}

impl Response<'_> {
    /// Header, question and body. The header has no meaning.
    #[must_use]
    pub fn message(&self) -> &[u8] {
        &self.scratch[..self.body.end]
    }

    /// Range of the body in the message.
    #[must_use]
    pub fn body(&self) -> Range<usize> {
        self.body.clone()
    }

    /// Records of the answer section.
    #[must_use]
    pub fn records(&self) -> Records<'_> {
        let count = usize::from(self.head.answers);
        Records::new(self.message(), self.body.start, count)
    }

    /// The answer as the cache stores it.
    #[must_use]
    pub fn answer(&self) -> Answer<'_> {
        Answer {
            head: &self.head,
            body: &self.scratch[self.body.clone()],
        }
    }

    /// Replaces the answer by another one to the same question: `write` gets the whole buffer, and returns the head of the
    /// new answer and its end.
    ///
    /// # Errors
    /// Those of `write`; the buffer then holds no answer.
    pub fn replace<E>(
        &mut self,
        write: impl FnOnce(&mut [u8]) -> Result<(Head, usize), E>,
    ) -> Result<(), E> {
        (self.head, self.body.end) = write(self.scratch)?;
        self.truncated = false;
        Ok(())
    }
}
