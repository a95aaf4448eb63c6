//! An upstream's response after it was sanitized, in the buffer that it was written into.

use super::{Answer, Head};
use crate::dns::record::Records;
use core::ops::Range;

/// A sanitized response. It borrows the buffer that it stands in: while it is in hand, nothing else can be written there.
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
/// The compiler holds it:
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
    /// What the cache keeps beside the body. `ttl_secs` 0: not to be kept.
    pub head: Head,
    /// TC: the whole answer has to be fetched over TCP.
    pub truncated: bool,
    /// Whether the response carried EDNS.
    pub has_edns: bool,
    /// It ends with an alias, without records of the alias's target or a proof that there are none: the target has to be asked for.
    pub ends_in_alias: bool,
    /// Its aliases go in a circle, or further than [`CHAIN_MAX`](super::CHAIN_MAX): what it says of the name leads nowhere.
    pub is_endless: bool,
    /// A referral: NS records, neither an answer nor an SOA (RFC 2308 section 2.2), and AA is clear.
    pub is_referral: bool,
}

impl Response<'_> {
    /// Header, question and body. The header says nothing.
    #[must_use]
    pub fn message(&self) -> &[u8] {
        &self.scratch[..self.body.end]
    }

    /// Where the body stands in the message.
    #[must_use]
    pub fn body(&self) -> Range<usize> {
        self.body.clone()
    }

    /// The records of the answer section.
    #[must_use]
    pub fn records(&self) -> Records<'_> {
        let count = usize::from(self.head.answers);
        Records::new(self.message(), self.body.start, count)
    }

    /// The answer in it, as the cache keeps it.
    #[must_use]
    pub fn answer(&self) -> Answer<'_> {
        Answer {
            head: &self.head,
            body: &self.scratch[self.body.clone()],
        }
    }

    /// Writes another answer to the same question in its place: `write` gets the whole buffer, and returns what is known of
    /// the new answer and where it ends.
    ///
    /// # Errors
    /// Those of `write`; then the buffer holds no answer any more.
    pub fn replace<E>(
        &mut self,
        write: impl FnOnce(&mut [u8]) -> Result<(Head, usize), E>,
    ) -> Result<(), E> {
        (self.head, self.body.end) = write(self.scratch)?;
        self.truncated = false;
        Ok(())
    }
}
