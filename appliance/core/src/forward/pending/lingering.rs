//! Datagrams to upstreams: which of them makes room for another, and those that no client waits for any more.

use core::cmp::Reverse;

use super::{Attempt, PendingTable};
use crate::forward::upstreams::UpstreamConfig;
use crate::time::Instant;

/// A datagram that no client waits for any more. Its port stays open for a while.
#[derive(Clone, Copy, Debug)]
pub struct Lingering {
    /// Name of the port.
    pub port: u16,
    /// Message ID.
    pub id: u16,
    /// Server that was asked.
    pub server: UpstreamConfig,
    /// Time at which the port is closed.
    until: Instant,
}

impl<R: Copy + PartialEq> PendingTable<R> {
    /// The question and datagram whose port is closed for another, by the rule of [`victim`](Self::victim): of the clients
    /// with the most questions, the datagram that has waited longest for its answer.
    #[must_use]
    pub fn datagram_victim(&self) -> Option<(u16, Attempt)> {
        let waiting = self.questions.iter().flat_map(|(index, question)| {
            let attempts = question.tries.as_slice().iter();
            let waits = |attempt: &&Attempt| attempt.live && attempt.port().is_some();
            let held = self.held[usize::from(question.bucket)]
                .max(self.crowds.crowd_in_zone(question.zone));
            attempts
                .filter(waits)
                .map(move |attempt| (held, index, *attempt))
        });
        waiting
            .max_by_key(|(held, _, attempt)| (*held, Reverse(attempt.sent)))
            .map(|(_, index, attempt)| (index, attempt))
    }

    /// Keeps an attempt's port open until `until`. Returns the port of the oldest one, if that makes room: the caller leaves it.
    pub fn linger(
        &mut self,
        attempt: &Attempt,
        server: UpstreamConfig,
        until: Instant,
    ) -> Option<u16> {
        let (port, id) = (attempt.port()?, attempt.id);
        let oldest = if self.lingering.is_full() {
            self.lingering.pop_front()
        } else {
            None
        };
        // Has room: the oldest was removed.
        let _ = self.lingering.push_back(Lingering {
            port,
            id,
            server,
            until,
        });
        oldest.map(|oldest| oldest.port)
    }

    /// The datagram that was sent from a port, if no client waits for its answer any more.
    #[must_use]
    pub fn lingering(&self, port: u16) -> Option<&Lingering> {
        self.lingering.iter().find(|ended| ended.port == port)
    }

    /// Removes the entry of a port. Returns true if there was one; the caller then closes the port.
    pub fn forget_lingering(&mut self, port: u16) -> bool {
        let mut found = false;
        // Bound: each entry goes round once, which keeps their order.
        for _ in 0..self.lingering.len() {
            let Some(ended) = self.lingering.pop_front() else {
                break;
            };
            if ended.port == port {
                found = true;
            } else {
                // Has room: an entry was just removed.
                let _ = self.lingering.push_back(ended);
            }
        }
        found
    }

    /// Removes and returns a port whose time is over at `now`, for the caller to close. Called repeatedly until `None`.
    pub fn linger_no_longer(&mut self, now: Instant) -> Option<u16> {
        let is_over = self.lingering.front()?.until <= now;
        is_over
            .then(|| self.lingering.pop_front())
            .flatten()
            .map(|ended| ended.port)
    }
}
