//! Answers from the cache that policy need not be asked about again.

use super::query::{Asking, Freshness, freshness, reply_to};
use super::{CacheAccess, Engine, Outcome, Turn};
use crate::cache::Found;
use crate::counters::Counter;
use crate::dns::render::{Ttl, render};

impl<R: Copy + PartialEq, C: CacheAccess> Engine<'_, R, C> {
    /// Answers what is fresh in the cache and was kept under this very policy. The question was asked for under it then,
    /// so policy had nothing to say but to forward it, and would say the same again: names in local data and in lists are
    /// not looked for. `None`: all else, that is to be decided as if nothing was known.
    pub(super) fn answer_known(
        &mut self,
        turn: &Turn<'_>,
        hash: u64,
        asking: &Asking<'_, R>,
        message: &mut [u8],
    ) -> Option<Outcome> {
        let settings = &self.settings;
        let rotation = self.turn.wrapping_add(1);
        let (len, truncated) = self.cache.with_shard(hash, |shard| {
            let Found { head, body } = shard.find(hash, &asking.key())?;
            if head.generation != turn.policy.generation {
                return None;
            }
            let Freshness::Fresh {
                age_secs,
                aging: false,
            } = freshness(&head, turn.now, settings)
            else {
                return None;
            };
            let ttl = Ttl::Aged(age_secs);
            let mut reply = reply_to(asking, &head, ttl, head.ede, message.len());
            reply.rotate = if settings.rotate { rotation } else { 0 };
            let end = asking.query.question_end;
            Some(render(message, end, &head, body, &reply))
        })?;
        self.turn = rotation;
        self.counters.count(Counter::CacheHits);
        if truncated {
            self.counters.count(Counter::TruncatedGiven);
        }
        Some(Outcome::Reply(len))
    }
}
