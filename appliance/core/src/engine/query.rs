//! From a client's query to an answer at once, or to a question in flight.

use super::alias::{Shelf, render_alias};
use super::known::Known;
use super::{
    CacheAccess, Client, Effects, Engine, Outcome, STALE_TTL_SECS, Settings, Tables, Transport,
    Turn,
};
use crate::answer::{Head, Key, Reply, Ttl, name_hash, render};
use crate::cache::Found;
use crate::counters::Counter;
use crate::dns::edns::{OptReply, ede};
use crate::dns::header::{HEADER_LEN, flag};
use crate::dns::query::Query;
use crate::dns::{Name, rcode, rtype};
use crate::forward::pending::ClientEdns;
use crate::limits::{TCP_MESSAGE_MAX, UDP_MESSAGE_MAX};
use crate::policy::Policy;
use crate::time::Instant;

/// Shortest UDP answer that every client takes (RFC 1035 section 4.2.1).
const UDP_WITHOUT_EDNS: usize = 512;
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

/// Where a question belongs.
pub(super) struct Question {
    /// Keyed hash of the name.
    pub name_hash: u64,
    /// Keyed hash: the place in cache and table.
    pub hash: u64,
    /// Group of upstreams.
    pub group: u8,
}

/// What the cache had for a query.
pub(super) enum Lookup {
    Reply {
        len: usize,
        truncated: bool,
        refresh: bool,
        stale: bool,
    },
    /// There is an answer from under another policy.
    Outdated,
    /// There is a stale answer, to be used if no upstream answers in time.
    Stale,
    /// The answer is longer than a slot: to be fetched in a stream.
    TooLarge,
    Nothing,
}

/// A well-formed query with what is decided about its reply before it is answered.
pub(super) struct Asking<'q, R> {
    /// The query.
    pub query: &'q Query,
    /// Who asks.
    pub client: &'q Client<R>,
    /// What its EDNS asks for; `None`: no EDNS.
    pub edns: Option<ClientEdns>,
    /// The longest reply that it may get.
    pub limit: usize,
    /// Whether longer replies than `Settings::cookie_free_max` are for clients with a cookie, and it has none.
    pub is_unknown: bool,
    /// The name to which local aliases lead, and whose records are to be found.
    pub target: Option<Name>,
}

impl<R> Asking<'_, R> {
    /// The name whose records are to be found.
    pub(super) fn name(&self) -> &Name {
        self.target.as_ref().unwrap_or(&self.query.name)
    }

    fn is_tcp(&self) -> bool {
        self.client.transport == Transport::Tcp
    }

    /// Whether the client wants upstream to be asked for it (RFC 1035 section 4.1.1, RD).
    pub(super) fn wants_recursion(&self) -> bool {
        self.query.header.has(flag::RD)
    }

    /// The key under which they are kept.
    pub(super) fn key(&self) -> Key<'_> {
        Key {
            name: self.name().as_wire(),
            ..Key::of(self.query)
        }
    }
}

impl<R: Copy + PartialEq, C: CacheAccess> Engine<'_, R, C> {
    /// Takes the query that stands in `message[..len]`. An answer that can be given at once is written over it; the
    /// buffer should hold [`UDP_MESSAGE_MAX`] bytes (TCP: 65,535), or answers are truncated to what it holds.
    pub fn query(
        &mut self,
        turn: &Turn<'_>,
        client: &Client<R>,
        message: &mut [u8],
        len: usize,
        effects: &mut impl Effects<R>,
    ) -> Outcome {
        let query = match Query::parse(&message[..len]) {
            Ok(query) => query,
            Err(error) => return self.reject(turn, client, message, len, error),
        };
        let mut asking = self.asking(turn, &query, client);
        if let Some(outcome) = self.admit(turn, &asking, message) {
            return outcome;
        }
        let outcome = match self.refuse_kind(&asking, message) {
            Some(outcome) => outcome,
            None => self.answer(turn, &mut asking, message, effects),
        };
        let is_long = matches!(outcome, Outcome::Reply(len) if len > self.settings.cookie_free_max);
        if asking.is_unknown && is_long {
            return self.ask_for_cookie(&asking, message);
        }
        outcome
    }

    /// What can be said of the reply before the answer is known.
    #[inline(always)]
    fn asking<'q>(
        &self,
        turn: &Turn<'_>,
        query: &'q Query,
        client: &'q Client<R>,
    ) -> Asking<'q, R> {
        let tcp = client.transport == Transport::Tcp;
        let mut has_cookie = false;
        let edns = query.edns.map(|edns| ClientEdns {
            dnssec_ok: edns.dnssec_ok,
            cookie: edns
                .cookie
                .zip(self.settings.cookies)
                .map(|(cookie, secret)| {
                    let checked = secret.check(&cookie, client.address, turn.unix_secs);
                    has_cookie = checked.is_valid;
                    checked.reply
                }),
            keepalive: (tcp && edns.keepalive).then_some(self.settings.tcp_idle_100ms),
        });
        Asking {
            query,
            client,
            edns,
            limit: reply_limit(query, client.transport),
            is_unknown: self.settings.cookies.is_some() && !tcp && !has_cookie,
            target: None,
        }
    }

    /// Answers a question of class IN.
    fn answer(
        &mut self,
        turn: &Turn<'_>,
        asking: &mut Asking<'_, R>,
        message: &mut [u8],
        effects: &mut impl Effects<R>,
    ) -> Outcome {
        let mut name_hash = name_hash(asking.name().as_wire(), &self.cache.seed());
        let known = self.answer_known(turn, name_hash, asking, message);
        if let Known::Answered(outcome) = known {
            return outcome;
        }
        let group = match self.answer_by_policy(turn, asking, message) {
            Ok(outcome) => return outcome,
            Err(_) if asking.query.qtype == rtype::ANY => return self.answer_any(asking, message),
            Err(group) => group,
        };
        let has_alias = asking.target.is_some();
        if has_alias {
            name_hash = crate::answer::name_hash(asking.name().as_wire(), &self.cache.seed());
        }
        let question = Question {
            name_hash,
            hash: asking.key().hash_under(name_hash),
            group,
        };
        if known == Known::Nothing && !has_alias {
            // It may have come since: then it is asked for once more, and nothing else.
            return self.miss(turn, &question, asking, message, &Lookup::Nothing, effects);
        }
        self.answer_from_cache(turn, &question, asking, message, effects)
    }

    fn answer_from_cache(
        &mut self,
        turn: &Turn<'_>,
        question: &Question,
        asking: &Asking<'_, R>,
        message: &mut [u8],
        effects: &mut impl Effects<R>,
    ) -> Outcome {
        let mut found = self.look_up(turn, question, asking, message);
        if matches!(found, Lookup::Outdated) {
            let (hash, group) = (question.hash, question.group);
            self.judge_again(turn.policy, hash, &asking.key(), group, true);
            found = self.look_up(turn, question, asking, message);
        }
        if matches!(found, Lookup::Nothing)
            && let Some(outcome) =
                self.answer_nonexistent(turn, question.name_hash, asking, message)
        {
            return outcome;
        }
        let missed = match found {
            Lookup::Reply {
                len,
                truncated,
                refresh,
                stale,
            } => {
                let counter = if stale {
                    Counter::CacheStale
                } else {
                    Counter::CacheHits
                };
                self.counters.count(counter);
                if truncated {
                    self.counters.count(Counter::TruncatedGiven);
                }
                if refresh && asking.wants_recursion() {
                    self.refresh(turn, question, asking, effects);
                }
                return Outcome::Reply(len);
            }
            missed @ (Lookup::Outdated | Lookup::Stale | Lookup::TooLarge | Lookup::Nothing) => {
                missed
            }
        };
        self.miss(turn, question, asking, message, &missed, effects)
    }

    /// Answers from the cache into `message` if that can be done at once.
    fn look_up(
        &mut self,
        turn: &Turn<'_>,
        question: &Question,
        asking: &Asking<'_, R>,
        message: &mut [u8],
    ) -> Lookup {
        let rotate = self.next_rotation();
        let settings = &self.settings;
        let unreachable = self.upstreams.is_unreachable(question.group);
        let tables = &mut *self.tables;
        self.cache.with_shard(question.hash, |shard| {
            let Some(Found { head, body }) = shard.find(question.hash, &asking.key()) else {
                return Lookup::Nothing;
            };
            if head.generation != turn.policy.generation {
                return Lookup::Outdated;
            }
            let (ttl, code, refresh, stale) = match freshness(&head, turn.now, settings) {
                Freshness::Fresh { age_secs, aging } => {
                    (Ttl::Aged(age_secs), head.ede, aging, false)
                }
                Freshness::Stale { at_once, refresh } if at_once || unreachable => (
                    Ttl::Fixed(STALE_TTL_SECS),
                    stale_ede(head.rcode),
                    refresh || unreachable,
                    true,
                ),
                Freshness::Stale { .. } => return Lookup::Stale,
                // Without recursion nobody is asked for the rest, so that TC would be a promise.
                Freshness::TooLarge if asking.is_tcp() || !asking.wants_recursion() => {
                    return Lookup::TooLarge;
                }
                Freshness::TooLarge => (Ttl::Aged(0), ede::NONE, false, false),
                Freshness::Expired => return Lookup::Nothing,
            };
            let mut reply = reply_to(asking, &head, ttl, code, message.len());
            reply.rotate = rotate;
            if is_too_large(&head) {
                reply.flags |= flag::TC;
            }
            let end = asking.query.question_end;
            let (len, truncated) = match &asking.target {
                None => render(message, end, &head, body, &reply),
                Some(_) => tables.render_alias(turn.policy, asking, message, &head, body, &reply),
            };
            Lookup::Reply {
                len,
                truncated: truncated || is_too_large(&head),
                refresh,
                stale,
            }
        })
    }

    /// Withholds a long answer from a client whose address is not proven: BADCOOKIE if it speaks cookies (RFC 7873
    /// section 5.2.3), TC if it does not.
    fn ask_for_cookie(&mut self, asking: &Asking<'_, R>, message: &mut [u8]) -> Outcome {
        self.counters.count(Counter::BadCookies);
        if asking.edns.is_some_and(|edns| edns.cookie.is_some()) {
            return self.refuse(message, asking, rcode::BADCOOKIE, ede::NONE);
        }
        let mut reply = reply_to(asking, &Head::EMPTY, Ttl::Aged(0), ede::NONE, message.len());
        reply.flags |= flag::TC;
        Outcome::Reply(
            render(
                message,
                asking.query.question_end,
                &Head::EMPTY,
                &[],
                &reply,
            )
            .0,
        )
    }

    /// Answers a well-formed query with a code and nothing else, in place.
    pub(super) fn refuse(
        &mut self,
        message: &mut [u8],
        asking: &Asking<'_, R>,
        code: u16,
        extended: u16,
    ) -> Outcome {
        self.count_refusal((code & 0xf) as u8);
        let head = Head {
            rcode: (code & 0xf) as u8,
            ..Head::EMPTY
        };
        let mut reply = reply_to(asking, &head, Ttl::Aged(0), extended, message.len());
        if let Some(opt) = &mut reply.opt {
            opt.extended_rcode = (code >> 4) as u8;
        }
        Outcome::Reply(render(message, asking.query.question_end, &head, &[], &reply).0)
    }

    pub(super) fn count_refusal(&self, code: u8) {
        match code {
            rcode::FORMERR => self.counters.count(Counter::FormerrGiven),
            rcode::NOTIMP => self.counters.count(Counter::NotimpGiven),
            rcode::REFUSED => self.counters.count(Counter::RefusedGiven),
            rcode::SERVFAIL => self.counters.count(Counter::ServfailGiven),
            _ => {}
        }
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

/// Flags of the query that its reply repeats, and AD where the client understands it (RFC 6840 section 5.7).
pub(super) fn query_flags(query: &Query) -> u16 {
    let authentic = if query.dnssec_ok() {
        flag::AD
    } else {
        query.header.flags & flag::AD
    };
    query.header.flags & (flag::RD | flag::CD) | authentic
}

/// What the client gets for an answer with this head. `code` is an extended error or [`ede::NONE`].
pub(super) fn reply_to<R>(
    asking: &Asking<'_, R>,
    head: &Head,
    ttl: Ttl,
    code: u16,
    room: usize,
) -> Reply {
    let flags = query_flags(asking.query);
    Reply {
        id: asking.query.header.id,
        flags: if head.authentic_data {
            flags
        } else {
            flags & !flag::AD
        },
        ttl,
        limit: asking.limit.min(room),
        opt: asking.edns.map(|edns| opt_reply(&edns, code)),
        rotate: 0,
    }
}

impl<R: Copy + PartialEq> Tables<R> {
    /// Answers an alias from the cached records of its target.
    pub(super) fn render_alias(
        &mut self,
        policy: &Policy<'_>,
        asking: &Asking<'_, R>,
        message: &mut [u8],
        head: &Head,
        body: &[u8],
        reply: &Reply,
    ) -> (usize, bool) {
        let (query, name) = (asking.query, asking.name().as_wire());
        let body_at = HEADER_LEN + name.len() + 4;
        let end = body_at + body.len();
        self.template[HEADER_LEN..HEADER_LEN + name.len()].copy_from_slice(name);
        self.template[body_at..end].copy_from_slice(body);
        let shelf = Shelf {
            head,
            body: body_at..end,
        };
        self.reply[..query.question_end].copy_from_slice(&message[..query.question_end]);
        let question = (&query.name, query.qtype);
        let (len, truncated) = render_alias(
            &mut self.reply,
            question,
            policy,
            &self.template,
            &shelf,
            reply,
        );
        message[..len].copy_from_slice(&self.reply[..len]);
        (len, truncated)
    }
}

/// The longest reply in bytes that the client may get.
fn reply_limit(query: &Query, transport: Transport) -> usize {
    match transport {
        Transport::Tcp => TCP_MESSAGE_MAX,
        Transport::Udp => query
            .edns
            .map_or(UDP_WITHOUT_EDNS, |edns| edns.udp_limit())
            .min(UDP_MESSAGE_MAX),
    }
}

/// The OPT record of a reply.
pub(super) fn opt_reply(edns: &ClientEdns, code: u16) -> OptReply {
    OptReply {
        extended_rcode: 0,
        dnssec_ok: edns.dnssec_ok,
        ede: (code != ede::NONE).then_some(code),
        cookie: edns.cookie,
        keepalive: edns.keepalive,
    }
}
