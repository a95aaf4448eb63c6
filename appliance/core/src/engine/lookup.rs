//! Cache look-up of a question that policy forwards, under one lock.

use super::filter::Revalidation;
use super::nxdomain::denial_of;
use super::request::{Placement, Request, reply_to};
use super::sets;
use super::{CacheAccess, Context, Engine, Live, STALE_TTL_SECS, Settings};
use crate::answer::{Answer, Head, Rendered, Ttl};
use crate::cache::Shard;
use crate::dns::edns::ede;
use crate::dns::header::flag;
use crate::dns::rcode;
use crate::time::Instant;

/// An answer is refreshed when at most this fraction (1/N) of its TTL is left.
const PREFETCH_PART: u32 = 10;

/// Freshness of a cached answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Freshness {
    /// Within its TTL; `aging`: in the last tenth.
    Fresh { age_secs: u32, aging: bool },
    /// Past its TTL, or of unknown age from before a restart. `at_once`: clients get it without waiting for a fresh one.
    /// `refresh`: upstream is asked for a fresh one, unless that has failed just now.
    Stale { at_once: bool, refresh: bool },
    /// Too old to be served.
    Expired,
    /// Within its TTL: a mark of an answer that is longer than a slot.
    TooLarge,
}

/// Result of a cache look-up. For `Hit` and `Denied` the reply stands in the request's message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lookup {
    /// The reply is written.
    Hit {
        rendered: Rendered,
        /// The answer is to be refreshed.
        refresh: bool,
        stale: bool,
        /// Sets that its addresses go into.
        sets: Option<u16>,
    },
    /// The name does not exist, for all types; the reply is written.
    Denied(Rendered),
    /// A stale answer, for the case that no upstream answers in time.
    Stale,
    /// A mark: the answer is longer than a slot, and is fetched over a stream.
    Mark,
    /// No entry that serves.
    Miss,
}

impl<R: Copy + PartialEq, C: CacheAccess> Engine<'_, R, C> {
    /// Looks the question up, and writes the reply into the request's message if it can be given at once.
    pub(super) fn look_up(
        &mut self,
        context: &Context<'_>,
        placement: &Placement,
        request: &mut Request<'_, R>,
    ) -> Lookup {
        let rotate = self.next_rotation();
        let is_unreachable = self.upstreams.is_unreachable(placement.group);
        let mut reader = Reader {
            context,
            settings: &self.settings,
            tables: &mut *self.tables,
            rotate,
            is_unreachable,
        };
        let hash = request.key(placement.name_hash).hash();
        self.cache
            .with_shard(hash, |shard| reader.read(shard, placement, request))
    }
}

/// State of a look-up, while the shard is locked.
struct Reader<'a, R> {
    context: &'a Context<'a>,
    settings: &'a Settings,
    tables: &'a mut Live<R>,
    rotate: u16,
    is_unreachable: bool,
}

impl<R: Copy + PartialEq> Reader<'_, R> {
    fn read(
        &mut self,
        shard: &mut Shard,
        placement: &Placement,
        request: &mut Request<'_, R>,
    ) -> Lookup {
        let policy = self.context.policy;
        let key = request.key(placement.name_hash);
        let mut found = shard.find(&key);
        // Under the same lock: if it were taken again, another worker could have replaced the answer.
        let name = request.name().as_wire();
        let is_earlier = |answer: Answer<'_>| {
            answer.head.generation != sets::generation(policy, name, answer.head)
        };
        if found.is_some_and(is_earlier) {
            let revalidation = Revalidation {
                policy,
                group: || placement.group,
                is_decided: true,
            };
            revalidation.run(shard, &key);
            found = shard.find(&key);
        }
        let looked_up = found.map_or(Lookup::Miss, |answer| self.serve(&answer, request));
        if looked_up != Lookup::Miss {
            return looked_up;
        }
        let denial = denial_of(shard, placement.name_hash, request);
        denial
            .and_then(|answer| self.deny(&answer, request))
            .unwrap_or(Lookup::Miss)
    }

    /// Writes the reply from the entry that was found, if it serves.
    fn serve(&mut self, answer: &Answer<'_>, request: &mut Request<'_, R>) -> Lookup {
        let head = answer.head;
        let (ttl, code, refresh, stale) = match freshness(head, self.context.now, self.settings) {
            Freshness::Fresh { age_secs, aging } => (Ttl::Aged(age_secs), head.ede, aging, false),
            Freshness::Stale { at_once, refresh } if at_once || self.is_unreachable => (
                Ttl::Fixed(STALE_TTL_SECS),
                stale_ede(head.rcode),
                refresh || self.is_unreachable,
                true,
            ),
            Freshness::Stale { .. } => return Lookup::Stale,
            // Without RD no upstream is asked for the rest, so TC would promise what a retry over TCP does not get.
            Freshness::TooLarge if request.is_tcp() || !request.wants_recursion() => {
                return Lookup::Mark;
            }
            Freshness::TooLarge => (Ttl::Aged(0), ede::NONE, false, false),
            Freshness::Expired => return Lookup::Miss,
        };
        let mut reply = reply_to(request, head, ttl, code);
        reply.rotate = self.rotate;
        if head.is_mark() {
            reply.flags |= flag::TC;
        }
        let sets = sets::sets_of(self.context.policy, request.name().as_wire(), head);
        let mut rendered = match request.target {
            None => {
                let end = request.query.question_end;
                reply.render(request.message, end, answer)
            }
            Some(_) => {
                let policy = self.context.policy;
                self.tables.render_alias(policy, request, answer, &reply)
            }
        };
        rendered.truncated |= head.is_mark();
        Lookup::Hit {
            rendered,
            refresh,
            stale,
            sets,
        }
    }

    /// Writes the reply from a denial of the name, if it is fresh and of the present policy.
    fn deny(&self, answer: &Answer<'_>, request: &mut Request<'_, R>) -> Option<Lookup> {
        let head = answer.head;
        let fresh = freshness(head, self.context.now, self.settings);
        let Freshness::Fresh { age_secs, .. } = fresh else {
            return None;
        };
        if head.generation != self.context.policy.generation {
            return None;
        }
        let reply = reply_to(request, head, Ttl::Aged(age_secs), head.ede);
        let end = request.query.question_end;
        Some(Lookup::Denied(reply.render(request.message, end, answer)))
    }
}

/// Freshness of the answer at `now`.
pub(super) fn freshness(head: &Head, now: Instant, settings: &Settings) -> Freshness {
    let age_secs = now.secs_since(head.stored);
    // An entry of unknown age from a snapshot is never fresh, however young it looks.
    if age_secs < head.ttl_secs && !head.restored {
        if head.is_mark() {
            return Freshness::TooLarge;
        }
        let left = head.ttl_secs - age_secs;
        return Freshness::Fresh {
            age_secs,
            aging: settings.prefetch && left <= head.ttl_secs / PREFETCH_PART,
        };
    }
    let is_recent = age_secs.saturating_sub(head.ttl_secs) <= settings.stale_max_secs;
    if settings.serve_stale && may_be_stale(head) && (head.restored || is_recent) {
        // RFC 8767 section 5, the failure recheck timer.
        let has_just_failed =
            head.failed_secs > 0 && age_secs < head.failed_secs + settings.failure_ttl_secs;
        return Freshness::Stale {
            at_once: head.restored || has_just_failed,
            refresh: !has_just_failed,
        };
    }
    Freshness::Expired
}

/// Time after storing for which the answer is given without asking upstream, in seconds.
pub(super) const fn fresh_secs(head: &Head, settings: &Settings) -> u32 {
    if settings.prefetch {
        head.ttl_secs - head.ttl_secs / PREFETCH_PART
    } else {
        head.ttl_secs
    }
}

/// True if the answer may be served past its TTL: not a failure, and not an answer that policy has withheld, since policy
/// may have changed.
fn may_be_stale(head: &Head) -> bool {
    matches!(head.rcode, rcode::NOERROR | rcode::NXDOMAIN)
        && head.ede != ede::BLOCKED
        && !head.is_mark()
}

/// The extended error of a stale answer (RFC 8914 sections 4.4 and 4.20).
pub(super) const fn stale_ede(code: u8) -> u16 {
    if code == rcode::NXDOMAIN {
        ede::STALE_NXDOMAIN
    } else {
        ede::STALE
    }
}
