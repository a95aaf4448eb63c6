//! Hits that need no look at policy.

use super::lookup::{Freshness, fresh_secs, freshness};
use super::request::{Request, reply_to};
use super::{CacheAccess, Context, Engine, Outcome};
use crate::answer::{Fresh, Key, Ttl};
use crate::counters::{Counter, ViewCounter};

/// Result of the first look into the cache, before policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// Answered: the present policy has forwarded the question before.
    Answered(Outcome),
    /// The cache has no answer, nor a denial of the name: if policy forwards the question, an upstream is asked.
    Nothing,
    /// The cache has an entry, but policy decides first.
    Something,
}

impl<R: Copy + PartialEq, C: CacheAccess> Engine<'_, R, C> {
    /// Answers from a fresh entry that was stored under the present policy. The question was forwarded under that policy,
    /// and would be forwarded again, so local data and lists need not be searched.
    pub(super) fn answer_from_same_policy(
        &mut self,
        context: &Context<'_>,
        name_hash: u64,
        request: &mut Request<'_, R>,
    ) -> Known {
        let (settings, notes_hits, noted) = (&self.settings, self.notes_hits, &mut self.noted);
        let rotation = self.rotation.wrapping_add(1);
        // Keyed by QNAME: only policy knows of aliases.
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
            // An entry of an earlier policy is judged when a client asks for it: a reload does not walk the cache.
            if head.generation != context.policy.generation {
                return Err(Known::Something);
            }
            // For a stale or aging entry upstream is asked as well, and only policy knows the group.
            let Freshness::Fresh {
                age_secs,
                aging: false,
            } = freshness(head, context.now, settings)
            else {
                return Err(Known::Something);
            };
            // The program in the kernel knows no views, so it answers only clients that are in none.
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
        context.count(self.counters, ViewCounter::Cached);
        if rendered.truncated {
            self.counters.count(Counter::TruncatedGiven);
        }
        Known::Answered(Outcome::Reply(rendered.len))
    }
}
