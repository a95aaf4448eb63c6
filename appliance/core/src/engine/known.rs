//! Answers from the cache that policy need not be asked about again.

use super::query::{Asking, Freshness, freshness, reply_to};
use super::{CacheAccess, Engine, Outcome, Turn};
use crate::answer::{Ttl, render};
use crate::cache::Found;
use crate::counters::Counter;

/// What the cache says before policy is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// The answer: policy has let the question through before.
    Answered(Outcome),
    /// Nothing about this question, nor that its name does not exist: if policy forwards it, upstream is asked.
    Nothing,
    /// Something that is for policy to decide about first.
    Something,
}

impl<R: Copy + PartialEq, C: CacheAccess> Engine<'_, R, C> {
    /// Answers what is fresh in the cache and was kept under this very policy. The question was asked for under it then,
    /// so policy had nothing to say but to forward it, and would say the same again: names in local data and in lists are
    /// not looked for.
    pub(super) fn answer_known(
        &mut self,
        turn: &Turn<'_>,
        name_hash: u64,
        asking: &Asking<'_, R>,
        message: &mut [u8],
    ) -> Known {
        let settings = &self.settings;
        let rotation = self.turn.wrapping_add(1);
        let key = asking.key();
        let hash = key.hash_under(name_hash);
        let found = self.cache.with_shard(hash, |shard| {
            let Some(Found { head, body }) = shard.find(hash, &key) else {
                let of_name = key.of_name();
                let is_noted = shard
                    .head(of_name.hash_under(name_hash), &of_name)
                    .is_some();
                return Err(if is_noted {
                    Known::Something
                } else {
                    Known::Nothing
                });
            };
            if head.generation != turn.policy.generation {
                return Err(Known::Something);
            }
            let Freshness::Fresh {
                age_secs,
                aging: false,
            } = freshness(&head, turn.now, settings)
            else {
                return Err(Known::Something);
            };
            let ttl = Ttl::Aged(age_secs);
            let mut reply = reply_to(asking, &head, ttl, head.ede, message.len());
            reply.rotate = if settings.rotate { rotation } else { 0 };
            let end = asking.query.question_end;
            Ok(render(message, end, &head, body, &reply))
        });
        let (len, truncated) = match found {
            Ok(rendered) => rendered,
            Err(known) => return known,
        };
        self.turn = rotation;
        self.counters.count(Counter::CacheHits);
        if truncated {
            self.counters.count(Counter::TruncatedGiven);
        }
        Known::Answered(Outcome::Reply(len))
    }
}
