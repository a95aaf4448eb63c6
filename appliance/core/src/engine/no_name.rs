//! Names that do not exist: what was said for one type holds for all of them (RFC 2308 section 5, RFC 8020 section 2).

use super::query::{Asking, Freshness, freshness, reply_to};
use super::{CacheAccess, Engine, Outcome, Turn};
use crate::cache::{Found, Head, Key, NO_NAME};
use crate::counters::Counter;
use crate::dns::edns::ede;
use crate::dns::render::{Ttl, render};
use crate::dns::{rcode, rtype};

/// The key under which it is kept that the name of `key` does not exist.
const fn of_name<'a>(key: &Key<'a>) -> Key<'a> {
    Key {
        qtype: NO_NAME,
        ..*key
    }
}

/// Whether the answer says of the name itself that it does not exist, and not of an alias's target, nor by our own policy.
fn denies_name(head: &Head) -> bool {
    head.rcode == rcode::NXDOMAIN && head.answers == 0 && head.ede != ede::BLOCKED
}

impl<R: Copy + PartialEq, C: CacheAccess> Engine<'_, R, C> {
    /// Keeps for all types that the name does not exist, or forgets it where an answer for one of them shows that it does.
    /// A DS is asked of somebody else than the other types (RFC 4035 section 3.1.4.1), and says nothing about them.
    pub(super) fn note_existence(&self, key: &Key<'_>, head: &Head, body: &[u8]) {
        if key.qtype == rtype::DS {
            return;
        }
        let key = of_name(key);
        let hash = key.hash(&self.cache.seed());
        self.cache.with_shard(hash, |shard| {
            if denies_name(head) {
                shard.insert(hash, &key, head, body);
            } else {
                shard.remove(hash, &key);
            }
        });
    }

    /// Answers a question of which nothing is known but that its name does not exist. `None`: that is not known either.
    pub(super) fn answer_nonexistent(
        &mut self,
        turn: &Turn<'_>,
        asking: &Asking<'_, R>,
        message: &mut [u8],
    ) -> Option<Outcome> {
        if asking.query.qtype == rtype::DS || asking.target.is_some() {
            return None;
        }
        let settings = &self.settings;
        let key = of_name(&asking.key());
        let hash = key.hash(&self.cache.seed());
        let (len, truncated) = self.cache.with_shard(hash, |shard| {
            let Found { head, body } = shard.find(hash, &key)?;
            let Freshness::Fresh { age_secs, .. } = freshness(&head, turn.now, settings) else {
                return None;
            };
            if head.generation != turn.policy.generation || !denies_name(&head) {
                return None;
            }
            let reply = reply_to(asking, &head, Ttl::Aged(age_secs), head.ede, message.len());
            let end = asking.query.question_end;
            Some(render(message, end, &head, body, &reply))
        })?;
        self.counters.count(Counter::CacheHits);
        if truncated {
            self.counters.count(Counter::TruncatedGiven);
        }
        Some(Outcome::Reply(len))
    }
}
