//! Questions in datagrams whose answer may still come, and those of them that no client waits for any more.

use core::cmp::Reverse;

use super::{Attempt, PendingTable};
use crate::forward::upstreams::UpstreamConfig;
use crate::time::Instant;

/// A datagram that nobody waits for any more. Its port is open for a while.
#[derive(Clone, Copy, Debug)]
pub struct Lingering {
    /// The port's name.
    pub port: u16,
    /// The message ID.
    pub id: u16,
    /// Who was asked.
    pub server: UpstreamConfig,
    /// When the port is closed.
    until: Instant,
}

impl<R: Copy + PartialEq> PendingTable<R> {
    /// The datagram whose port makes room for another, and its question, by the rule of [`victim`](Self::victim): of those
    /// clients that have the most questions, the one that has waited for its answer for longest.
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

    /// Remembers an attempt that nobody waits for any more until `until`. The port that makes room for it, to be closed.
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
        // Cannot be full: room was made.
        let _ = self.lingering.push_back(Lingering {
            port,
            id,
            server,
            until,
        });
        oldest.map(|oldest| oldest.port)
    }

    /// What was sent from a port, where nobody waits for the answer any more.
    #[must_use]
    pub fn lingering(&self, port: u16) -> Option<&Lingering> {
        self.lingering.iter().find(|ended| ended.port == port)
    }

    /// Forgets one. Whether there was one: its port is to be closed.
    pub fn forget_lingering(&mut self, port: u16) -> bool {
        let mut found = false;
        // Bound: each that is there goes round once, which keeps their order.
        for _ in 0..self.lingering.len() {
            let Some(ended) = self.lingering.pop_front() else {
                break;
            };
            if ended.port == port {
                found = true;
            } else {
                // Cannot be full: one has just left it.
                let _ = self.lingering.push_back(ended);
            }
        }
        found
    }

    /// A port whose time is over at `now`, to be closed. Asked repeatedly until `None`.
    pub fn linger_no_longer(&mut self, now: Instant) -> Option<u16> {
        let is_over = self.lingering.front()?.until <= now;
        is_over
            .then(|| self.lingering.pop_front())
            .flatten()
            .map(|ended| ended.port)
    }
}
