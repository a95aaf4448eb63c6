//! The look-up of a question that policy has let through: one lock, and what the cache has to say.

use super::filter::Revalidation;
use super::nxdomain::denial_of;
use super::request::{Entry, Request, reply_to};
use super::{CacheAccess, Context, Engine, Live, STALE_TTL_SECS, Settings};
use crate::answer::{Head, Ttl, render};
use crate::cache::{Found, Shard};
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
    /// The answer.
    Hit {
        len: usize,
        truncated: bool,
        /// It is asked for again, although it was given.
        refresh: bool,
        stale: bool,
    },
    /// That the name does not exist, whatever is asked for.
    Denied { len: usize, truncated: bool },
    /// A stale answer, to be used if no upstream answers in time.
    Stale,
    /// That the answer is longer than a slot: to be fetched in a stream.
    Mark,
    /// Nothing.
    Miss,
}

impl<R: Copy + PartialEq, C: CacheAccess> Engine<'_, R, C> {
    /// Answers from the cache into the request's message if that can be done at once.
    pub(super) fn look_up(
        &mut self,
        context: &Context<'_>,
        entry: &Entry,
        request: &mut Request<'_, R>,
    ) -> Lookup {
        let rotate = self.next_rotation();
        let is_unreachable = self.upstreams.is_unreachable(entry.group);
        let mut reader = Reader {
            context,
            settings: &self.settings,
            tables: &mut *self.tables,
            rotate,
            is_unreachable,
        };
        self.cache
            .with_shard(entry.hash, |shard| reader.read(shard, entry, request))
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
    fn read(&mut self, shard: &mut Shard, entry: &Entry, request: &mut Request<'_, R>) -> Lookup {
        let policy = self.context.policy;
        let found = shard.find(entry.hash, &request.key());
        let is_outdated = |found: &Found<'_>| found.head.generation != policy.generation;
        let looked_up = match found {
            None => Lookup::Miss,
            Some(found) if is_outdated(&found) => {
                let revalidation = Revalidation {
                    policy,
                    group: entry.group,
                    is_decided: true,
                };
                revalidation.run(shard, entry.hash, &request.key());
                let found = shard.find(entry.hash, &request.key());
                found.map_or(Lookup::Miss, |found| self.serve(&found, request))
            }
            Some(found) => self.serve(&found, request),
        };
        if looked_up != Lookup::Miss {
            return looked_up;
        }
        let denial = denial_of(shard, entry.name_hash, request);
        denial
            .and_then(|found| self.deny(&found, request))
            .unwrap_or(Lookup::Miss)
    }

    /// Gives what was found, if it serves.
    fn serve(&mut self, found: &Found<'_>, request: &mut Request<'_, R>) -> Lookup {
        let head = &found.head;
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
        if is_too_large(head) {
            reply.flags |= flag::TC;
        }
        let (len, truncated) = match request.target {
            None => {
                let end = request.query.question_end;
                render(request.message, end, head, found.body, &reply)
            }
            Some(_) => {
                let policy = self.context.policy;
                self.tables.render_alias(policy, request, found, &reply)
            }
        };
        Lookup::Hit {
            len,
            truncated: truncated || is_too_large(head),
            refresh,
            stale,
        }
    }

    /// Gives a denial of the name, if it holds.
    fn deny(&self, found: &Found<'_>, request: &mut Request<'_, R>) -> Option<Lookup> {
        let head = &found.head;
        let fresh = freshness(head, self.context.now, self.settings);
        let Freshness::Fresh { age_secs, .. } = fresh else {
            return None;
        };
        if head.generation != self.context.policy.generation {
            return None;
        }
        let reply = reply_to(request, head, Ttl::Aged(age_secs), head.ede);
        let end = request.query.question_end;
        let (len, truncated) = render(request.message, end, head, found.body, &reply);
        Some(Lookup::Denied { len, truncated })
    }
}

/// How well the answer serves.
pub(super) fn freshness(head: &Head, now: Instant, settings: &Settings) -> Freshness {
    let age_secs = now.secs_since(head.stored);
    if age_secs < head.ttl_secs && !head.restored {
        if is_too_large(head) {
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

/// Whether the answer may be given past its TTL: a failure may not, nor what policy has withheld, because policy may be
/// another by now.
fn may_be_stale(head: &Head) -> bool {
    matches!(head.rcode, rcode::NOERROR | rcode::NXDOMAIN)
        && head.ede != ede::BLOCKED
        && !is_too_large(head)
}

/// Whether this is the mark of an answer that is longer than a slot. Nothing else that is kept has no records.
fn is_too_large(head: &Head) -> bool {
    head.rcode == rcode::NOERROR && head.answers == 0 && head.authorities == 0
}

/// The extended error of a stale answer (RFC 8914 sections 4.4 and 4.20).
pub(super) const fn stale_ede(code: u8) -> u16 {
    if code == rcode::NXDOMAIN {
        ede::STALE_NXDOMAIN
    } else {
        ede::STALE
    }
}
