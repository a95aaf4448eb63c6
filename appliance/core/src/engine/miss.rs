//! A query that the cache cannot answer: its client waits, and a question goes upstream if none is on its way.

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

/// A question that is to be taken on.
struct Candidate<'p> {
    placement: &'p Placement,
    /// What the cache has for it.
    missed: Lookup,
    /// Fair share bucket of the client.
    bucket: u8,
    /// The domain.
    zone: DomainBuckets,
}

/// A place among those who wait.
struct Seat {
    /// The question in flight that is waited for; `None`: it is to be taken on.
    present: Option<u16>,
    /// Fair share bucket of the client.
    bucket: u8,
    /// Whether its QNAME is another name than that in flight.
    has_alias: bool,
}

impl<R: Copy + PartialEq, C: CacheAccess> Engine<'_, R, C> {
    /// Puts the client among those who wait, and asks an upstream if nobody has yet. First of all it is clear that the
    /// client has a place to wait in: nobody is asked for a client that is refused.
    pub(super) fn miss<E: Effects<R>>(
        &mut self,
        call: &mut Call<'_, E>,
        placement: &Placement,
        request: &mut Request<'_, R>,
        missed: Lookup,
    ) -> Outcome {
        // Who asks what somebody has asked already waits for the same answer: one question goes upstream for all.
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
            // Once the client waits: a question that cannot be sent may end, with a reply, before this returns.
            Ok(index) if present.is_none() => self.begin(call, index),
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

    /// Answers for whom upstream is not asked: who does not want it, and who has had too much of what is new.
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

    /// The client as it waits.
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

    /// Answers a query without RD of which nothing is kept: the local aliases that lead to it, where it is such a name, or
    /// REFUSED (RFC 8914 section 4.21).
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

    /// SERVFAIL for lack of room: the client may ask again.
    fn refuse_full(&mut self, request: &mut Request<'_, R>) -> Outcome {
        self.refuse(request, rcode::SERVFAIL.into(), ede::NOT_READY)
    }

    /// A question that nobody has asked yet. Its domain is hashed here, so one that joins another does not pay for that.
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

    /// Whether upstream is not asked for a new name, for what is in flight under its domain or for its group of servers. What is
    /// in the cache, be it stale, is no new name, and who is where it says floods nobody in another's name.
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
        // A client that has many questions gives one up for a client that has few.
        let victim = pending.victim_for(candidate.bucket);
        self.counters.count(match victim {
            Some(_) => Counter::PendingFull,
            None => Counter::ZoneFull,
        });
        self.end_for_room(call, victim);
        victim.is_none()
    }

    /// Makes sure that one more client can wait. Whether it can. All places are taken: the oldest question of the client that
    /// has the most ends, among those that somebody waits for; never the one that is waited for here. Who has filled the
    /// table of questions pays with one of its own first, and with it with a place to wait in.
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
            Err(PendingFull::Questions | PendingFull::Aliases | PendingFull::Share) => false,
        }
    }

    /// Asks upstream although nobody waits, unless somebody asks already or the table is full.
    pub(super) fn refresh<E: Effects<R>>(
        &mut self,
        call: &mut Call<'_, E>,
        placement: &Placement,
        request: &Request<'_, R>,
    ) {
        let pending = &self.tables.pending;
        let key = request.key(placement.name_hash);
        if pending.is_full() || pending.find(&key).is_some() {
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

    /// Takes a question on. The table is full: the oldest question of the client that has the most ends for it.
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

/// The fair share bucket of a client: keyed, so that nobody can choose to share another's.
fn bucket(policy: &Policy<'_>, address: IpAddr, seed: &[u8; 16]) -> u8 {
    let octets = match policy.on_link.fairness_unit(address) {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    hash::of_bytes(&octets, seed) as u8
}
