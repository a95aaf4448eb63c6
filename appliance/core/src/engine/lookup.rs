//! The look-up of a question that policy has let through: one lock, and what the cache has to say.

use super::filter::Revalidation;
use super::nxdomain::denial_of;
use super::request::{Placement, Request, reply_to};
use super::{CacheAccess, Context, Engine, Live, STALE_TTL_SECS, Settings};
use crate::answer::{Answer, Head, Rendered, Ttl};
use crate::cache::Shard;
use crate::dns::edns::ede;
use crate::dns::header::flag;
use crate::dns::rcode;
use crate::time::Instant;

/// An answer is asked for again when less than one part in this many of its TTL is left.
const PREFETCH_PART: u32 = 10;

/// How well a cached answer serves now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Freshness {
    /// Within its TTL; `aging`: in the last tenth.
    Fresh { age_secs: u32, aging: bool },
    /// Past its TTL, or of unknown age from before a restart.
    /// `at_once`: clients do not wait for a fresh one. `refresh`: it is asked for, since that has not failed just now.
    Stale { at_once: bool, refresh: bool },
    /// Too old for anything.
    Expired,
    /// Within its TTL, but only known to be longer than a slot.
    TooLarge,
}

/// What the cache has for a question. An answer stands in the request's message already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lookup {
    /// An answer that was given.
    Hit {
        rendered: Rendered,
        /// It is asked for again, although it was given.
        refresh: bool,
        stale: bool,
    },
    /// That the name does not exist, whatever is asked for.
    Denied(Rendered),
    /// A stale answer, to be used if no upstream answers in time.
    Stale,
    /// That the answer is longer than a slot: to be fetched in a stream.
    Mark,
    /// Nothing that serves.
    Miss,
}

impl<R: Copy + PartialEq, C: CacheAccess> Engine<'_, R, C> {
    /// Answers from the cache into the request's message if that can be done at once.
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

/// Who looks up, while the shard is locked.
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
        // Under the same lock: between two of them another worker could put another answer here.
        if found.is_some_and(|answer| answer.head.generation != policy.generation) {
            let revalidation = Revalidation {
                policy,
                group: placement.group,
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

    /// Gives what was found, if it serves.
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
            // Without recursion nobody is asked for the rest, so that TC would be a promise.
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
        }
    }

    /// Gives a denial of the name, if it holds.
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

/// How well the answer serves.
pub(super) fn freshness(head: &Head, now: Instant, settings: &Settings) -> Freshness {
    let age_secs = now.secs_since(head.stored);
    // What comes from a snapshot of unknown age is never fresh, however young it looks.
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

/// For how long after it was stored the answer is given without that upstream is asked, in seconds.
pub(super) const fn fresh_secs(head: &Head, settings: &Settings) -> u32 {
    if settings.prefetch {
        head.ttl_secs - head.ttl_secs / PREFETCH_PART
    } else {
        head.ttl_secs
    }
}

/// Whether the answer may be given past its TTL: a failure may not, nor what policy has withheld, because policy may be
/// another by now.
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
