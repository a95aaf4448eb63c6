//! Answers from the cache that policy need not be asked about again.

use super::lookup::{Freshness, fresh_secs, freshness};
use super::request::{Request, reply_to};
use super::{CacheAccess, Context, Engine, Outcome};
use crate::answer::{Fresh, Key, Ttl};
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
    pub(super) fn answer_from_same_policy(
        &mut self,
        context: &Context<'_>,
        name_hash: u64,
        request: &mut Request<'_, R>,
    ) -> Known {
        let (settings, notes_hits, noted) = (&self.settings, self.notes_hits, &mut self.noted);
        let rotation = self.rotation.wrapping_add(1);
        // No alias is known yet: that is policy's to say.
        let key = Key::of(request.query, request.view).with_name_hash(name_hash);
        let found = self.cache.with_shard(key.hash(), |shard| {
            let Some(answer) = shard.find(&key) else {
                let is_noted = shard.head(&key.any_type()).is_some();
                return Err(if is_noted {
                    Known::Something
                } else {
                    Known::Nothing
                });
            };
            let head = answer.head;
            // What was kept under an earlier policy is judged when it is asked for: nobody walks the cache at a change.
            if head.generation != context.policy.generation {
                return Err(Known::Something);
            }
            // Stale or aging: upstream is asked as well, and only policy knows which group.
            let Freshness::Fresh {
                age_secs,
                aging: false,
            } = freshness(head, context.now, settings)
            else {
                return Err(Known::Something);
            };
            // The program in the kernel knows of no views: it answers those clients alone who are in none.
            *noted = (notes_hits && key.key().view == 0).then(|| Fresh {
                hash: key.hash(),
                since: head.stored.add_secs(age_secs),
                until: head.stored.add_secs(fresh_secs(head, settings)),
                authentic_data: head.authentic_data,
                rotates: settings.rotate,
            });
            let mut reply = reply_to(request, head, Ttl::Aged(age_secs), head.ede);
            reply.rotate = if settings.rotate { rotation } else { 0 };
            let end = request.query.question_end;
            Ok(reply.render(request.message, end, &answer))
        });
        let rendered = match found {
            Ok(rendered) => rendered,
            Err(known) => return known,
        };
        self.rotation = rotation;
        self.counters.count(Counter::CacheHits);
        if rendered.truncated {
            self.counters.count(Counter::TruncatedGiven);
        }
        Known::Answered(Outcome::Reply(rendered.len))
    }
}
