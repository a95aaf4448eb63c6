//! Cache misses: the client waits, and a question goes upstream unless one is in flight.

use super::lookup::Lookup;
use super::request::{Placement, Request, query_flags, reply_to};
use super::{CacheAccess, Call, Context, Effects, Engine, Outcome};
use crate::answer::{Answer, Head, Ttl};
use crate::counters::Counter;
use crate::dns::edns::ede;
use crate::dns::header::{HEADER_LEN, flag};
use crate::dns::{QUESTION_FIXED_LEN, rcode};
use crate::forward::pending::{LetterCase, PendingFull, Waiter, WaiterLinks};
use crate::forward::question::{Deadlines, Question, Stage};
use crate::forward::zone::DomainBuckets;
use crate::policy::Policy;
use crate::rate::RateKind;
use crate::time::Instant;
use core::net::IpAddr;
use xdnsd_abi::hash;

/// A question that is about to be taken on.
struct Candidate<'p> {
    placement: &'p Placement,
    /// Result of the cache look-up.
    missed: Lookup,
    /// Fair share bucket of the client.
    bucket: u8,
    /// Buckets of the name's domain.
    zone: DomainBuckets,
}

/// Place of a client among those that wait.
struct Seat {
    /// Question in flight that the client joins; `None` if it needs a new one.
    present: Option<u16>,
    /// Fair share bucket of the client.
    bucket: u8,
    /// True if QNAME is an alias of the name in flight.
    has_alias: bool,
}

impl<R: Copy + PartialEq, C: CacheAccess> Engine<'_, R, C> {
    /// Lets the client wait, and asks an upstream if no question for the name is in flight. A place for the client is made
    /// sure of first, so that no upstream is asked for a client that is refused.
    pub(super) fn miss<E: Effects<R>>(
        &mut self,
        call: &mut Call<'_, E>,
        placement: &Placement,
        request: &mut Request<'_, R>,
        missed: Lookup,
    ) -> Outcome {
        // Clients that ask the same share one question.
        let present = self.tables.pending.find(&request.key(placement.name_hash));
        if let Some(outcome) = self.refuse_miss(call.context, request, present) {
            return outcome;
        }
        self.counters.count(Counter::CacheMisses);
        let waiter = self.waiter(call.context, request);
        let alias = request.target.is_some().then_some(&request.query.name);
        if let Some(index) = present {
            self.counters.count(Counter::Coalesced);
            if self.tables.pending.is_joined(index, &waiter, alias) {
                return Outcome::Pending;
            }
        }
        let seat = Seat {
            present,
            bucket: waiter.bucket,
            has_alias: alias.is_some(),
        };
        let question =
            present.ok_or_else(|| self.candidate(placement, missed, seat.bucket, request));
        if let Err(candidate) = &question
            && self.is_one_too_many(call, candidate, request)
        {
            return self.refuse_full(request);
        }
        if !self.make_room(call, &seat) {
            return self.refuse_full(request);
        }
        let index = question.or_else(|candidate| self.take_on(call, &candidate, request));
        let joined = index.and_then(|index| {
            self.tables.pending.join(index, waiter, alias)?;
            Ok(index)
        });
        match joined {
            // After the client has joined: a question that cannot be sent may end with a reply before this returns.
            Ok(index) if present.is_none() => self.begin_unless_elsewhere(call, index),
            Ok(_) => {}
            Err(
                PendingFull::Questions
                | PendingFull::Waiters
                | PendingFull::Aliases
                | PendingFull::Share,
            ) => {
                debug_assert!(false, "there was room");
                return self.refuse_full(request);
            }
        }
        Outcome::Pending
    }

    /// Refuses a query for which no upstream is asked: one without RD, or one over the client's limit of misses.
    fn refuse_miss(
        &mut self,
        context: &Context<'_>,
        request: &mut Request<'_, R>,
        present: Option<u16>,
    ) -> Option<Outcome> {
        if !request.wants_recursion() {
            return Some(self.refuse_recursion(context, request));
        }
        match present {
            Some(_) => None,
            None => self.limit(context, request, RateKind::Miss),
        }
    }

    /// The client's entry among those that wait.
    fn waiter(&self, context: &Context<'_>, request: &Request<'_, R>) -> Waiter<R> {
        let query = request.query;
        let name_end = query.question_end - QUESTION_FIXED_LEN;
        Waiter {
            reply_path: request.client.reply_path,
            id: query.header.id,
            flags: query_flags(query),
            limit: request.limit as u16,
            is_tcp: request.is_tcp(),
            edns: request.edns,
            lacks_cookie: request.lacks_cookie,
            case: LetterCase::of(&request.message[HEADER_LEN..name_end]),
            bucket: bucket(context.policy, request.client.address, &self.cache.seed()),
            links: WaiterLinks::default(),
        }
    }

    /// Answers a query without RD that the cache cannot answer: the local aliases for an alias, else REFUSED (RFC 8914
    /// section 4.21).
    fn refuse_recursion(&mut self, context: &Context<'_>, request: &mut Request<'_, R>) -> Outcome {
        if request.target.is_none() {
            return self.refuse(request, rcode::REFUSED.into(), ede::NOT_AUTHORITATIVE);
        }
        let nothing = Answer::bare(&Head::EMPTY);
        let reply = reply_to(request, nothing.head, Ttl::Aged(0), ede::NONE);
        let tables = &mut *self.tables;
        let rendered = tables.render_alias(context.policy, request, &nothing, &reply);
        Outcome::Reply(rendered.len)
    }

    /// Answers SERVFAIL for lack of room; the client may ask again.
    fn refuse_full(&mut self, request: &mut Request<'_, R>) -> Outcome {
        self.refuse(request, rcode::SERVFAIL.into(), ede::NOT_READY)
    }

    /// Describes a new question. The domain is hashed here, so that a query that joins a question in flight does not pay
    /// for it.
    fn candidate<'p>(
        &self,
        placement: &'p Placement,
        missed: Lookup,
        bucket: u8,
        request: &Request<'_, R>,
    ) -> Candidate<'p> {
        Candidate {
            placement,
            missed,
            bucket,
            zone: DomainBuckets::of(request.name(), &self.cache.seed()),
        }
    }

    /// True if a new name is refused because too many questions are in flight under its domain. If its group of servers is
    /// full, one of the group's questions ends instead. A name in the cache, even a stale one, is not new; a client with a
    /// proven address is exempt, as it cannot flood under a forged one.
    fn is_one_too_many<E: Effects<R>>(
        &mut self,
        call: &mut Call<'_, E>,
        candidate: &Candidate<'_>,
        request: &Request<'_, R>,
    ) -> bool {
        if candidate.missed != Lookup::Miss || request.is_proven {
            return false;
        }
        let (pending, bounds) = (&self.tables.pending, self.settings.bounds);
        let group = candidate.placement.group;
        let room = pending.room_of_group(group, self.upstreams.has_other(group), bounds);
        if room == 0 && !pending.is_full() {
            self.counters.count(Counter::GroupFull);
            let victim = pending.group_victim(group);
            self.end_for_room(call, victim);
            return false;
        }
        if !pending.is_crowded(candidate.zone, room, bounds) {
            return false;
        }
        // A client with many questions gives one up for a client with few.
        let victim = pending.victim_for(candidate.bucket);
        self.counters.count(match victim {
            Some(_) => Counter::PendingFull,
            None => Counter::ZoneFull,
        });
        self.end_for_room(call, victim);
        victim.is_none()
    }

    /// Makes room for one more waiting client; true if there is room. If all places for clients are taken, the oldest
    /// question of the client with the most questions ends, among those with waiting clients and never the one that is
    /// joined here. A client that has itself filled the table of questions first gives up one of its own, and so a place to
    /// wait in.
    fn make_room<E: Effects<R>>(&mut self, call: &mut Call<'_, E>, seat: &Seat) -> bool {
        let full = seat.present.is_none() && self.tables.pending.is_full();
        if let Some(victim) = full.then(|| self.tables.pending.victim()).flatten()
            && let Some(ended) = self.tables.pending.get(victim)
            && ended.bucket == seat.bucket
        {
            self.counters.count(Counter::PendingFull);
            self.end_for_room(call, Some(victim));
        }
        match self.tables.pending.room(seat.bucket, seat.has_alias) {
            Ok(()) => true,
            Err(PendingFull::Waiters) => {
                self.counters.count(Counter::WaitersFull);
                let victim = self.tables.pending.waited_victim(seat.present);
                self.end_for_room(call, victim);
                let pending = &self.tables.pending;
                pending.room(seat.bucket, seat.has_alias).is_ok()
            }
            Err(PendingFull::Aliases) => {
                self.counters.count(Counter::AliasesFull);
                false
            }
            Err(PendingFull::Share) => {
                self.counters.count(Counter::ShareFull);
                false
            }
            Err(PendingFull::Questions) => false,
        }
    }

    /// Asks upstream for a fresh answer without a waiting client, unless the question is in flight or the table is full.
    pub(super) fn refresh<E: Effects<R>>(
        &mut self,
        call: &mut Call<'_, E>,
        placement: &Placement,
        request: &Request<'_, R>,
    ) {
        let pending = &self.tables.pending;
        let key = request.key(placement.name_hash);
        let is_asked = pending.find(&key).is_some() || self.is_asked_elsewhere(key.hash());
        if pending.is_full() || is_asked {
            return;
        }
        let (policy, address) = (call.context.policy, request.client.address);
        let bucket = bucket(policy, address, &self.cache.seed());
        let candidate = self.candidate(placement, Lookup::Miss, bucket, request);
        let taken = self.take_on(call, &candidate, request);
        if let Ok(index) = taken {
            self.begin(call, index);
        }
    }

    /// Inserts a question into the table. If the table is full, the oldest question of the client with the most questions
    /// ends.
    fn take_on<E: Effects<R>>(
        &mut self,
        call: &mut Call<'_, E>,
        candidate: &Candidate<'_>,
        request: &Request<'_, R>,
    ) -> Result<u16, PendingFull> {
        let (query, now) = (request.query, call.context.now);
        if self.tables.pending.is_full() {
            self.counters.count(Counter::PendingFull);
            let victim = self.tables.pending.victim();
            self.end_for_room(call, victim);
        }
        let stage = match candidate.missed {
            Lookup::Mark => Stage::Fetching,
            Lookup::Hit { .. } | Lookup::Denied(_) | Lookup::Stale | Lookup::Miss => {
                Stage::Beginning
            }
        };
        let deadlines = Deadlines {
            next_try: now,
            stale: match candidate.missed {
                Lookup::Stale => now + self.settings.stale_after_ms,
                Lookup::Hit { .. } | Lookup::Denied(_) | Lookup::Mark | Lookup::Miss => {
                    Instant::FAR_FUTURE
                }
            },
            give_up: now + self.settings.give_up_ms,
        };
        let mut question = Question::new(*request.name(), stage, deadlines);
        question.qtype = query.qtype;
        question.dnssec_ok = query.dnssec_ok();
        question.checking_disabled = query.header.has(flag::CD);
        question.view = request.view;
        question.name_hash = candidate.placement.name_hash;
        question.group = candidate.placement.group;
        question.generation = call.context.policy.generation;
        question.bucket = candidate.bucket;
        question.zone = candidate.zone;
        self.tables.pending.insert(question)
    }
}

/// Fair share bucket of a client, by a keyed hash, so that no client can choose another's bucket.
fn bucket(policy: &Policy<'_>, address: IpAddr, seed: &[u8; 16]) -> u8 {
    let octets = match policy.on_link.fairness_unit(address) {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    hash::of_bytes(&octets, seed) as u8
}
