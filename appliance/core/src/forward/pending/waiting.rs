//! Clients that wait for one question.

use super::{ALIASES, CLIENT_BUCKETS, Question, Slab, WAITERS, Waiter};
use crate::dns::Name;

/// A client that was removed from those that wait.
#[derive(Clone, Copy, Debug)]
pub struct Taken<R> {
    /// The client.
    pub waiter: Waiter<R>,
    /// QNAME of its query, if that is a local alias that led to the question.
    pub alias: Option<Name>,
}

/// Clients that wait for one question, to be removed one by one.
#[derive(Debug)]
pub struct Waiting<'t, R> {
    pub(super) question: &'t mut Question,
    pub(super) waiters: &'t mut Slab<Waiter<R>, WAITERS>,
    pub(super) aliases: &'t mut Slab<Name, ALIASES>,
    /// Number of waiting clients by bucket.
    pub(super) counts: &'t mut [u16; CLIENT_BUCKETS],
}

impl<R> Waiting<'_, R> {
    /// The question.
    #[must_use]
    pub const fn question(&self) -> &Question {
        self.question
    }

    /// Removes one of the clients.
    pub fn pop(&mut self) -> Option<Taken<R>> {
        self.pop_that(|_| true)
    }

    /// Removes one of the clients that are `wanted`.
    pub fn pop_that(&mut self, wanted: impl Fn(&Waiter<R>) -> bool) -> Option<Taken<R>> {
        let mut before = None;
        let mut at = self.question.first_waiter?;
        // Bound: the list consists of distinct entries of `waiters`.
        while !wanted(self.waiters.get(at)?) {
            before = Some(at);
            at = self.waiters.get(at)?.links.next?;
        }
        let waiter = self.waiters.remove(at)?;
        match before.and_then(|before| self.waiters.get_mut(before)) {
            Some(before) => before.links.next = waiter.links.next,
            None => self.question.first_waiter = waiter.links.next,
        }
        self.counts[usize::from(waiter.bucket)] -= 1;
        let alias = waiter.links.alias;
        let alias = alias.and_then(|alias| self.aliases.remove(alias));
        Some(Taken { waiter, alias })
    }
}
