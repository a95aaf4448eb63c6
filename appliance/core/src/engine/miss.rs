//! A query that the cache cannot answer: its client waits, and a question goes upstream if none is on its way.

use super::query::{Asking, Lookup, Question, query_flags, reply_to};
use super::{CacheAccess, Effects, Engine, Outcome, Turn};
use crate::answer::{Head, Key, Ttl};
use crate::counters::Counter;
use crate::dns::edns::ede;
use crate::dns::header::{HEADER_LEN, flag};
use crate::dns::rcode;
use crate::forward::pending::{LetterCase, Links, Pending, PendingFull, Waiter};
use crate::policy::Policy;
use crate::time::Instant;
use core::net::IpAddr;
use heapless::Vec;

impl<R: Copy + PartialEq, C: CacheAccess> Engine<'_, R, C> {
    /// Puts the client among those who wait, and asks an upstream if nobody has yet. First of all it is clear that the
    /// client has a place to wait in: nobody is asked for a client that is refused.
    pub(super) fn miss(
        &mut self,
        turn: &Turn<'_>,
        question: &Question,
        asking: &Asking<'_, R>,
        message: &mut [u8],
        missed: &Lookup,
        effects: &mut impl Effects<R>,
    ) -> Outcome {
        if !asking.wants_recursion() {
            return self.refuse_recursion(turn, asking, message);
        }
        self.counters.count(Counter::CacheMisses);
        let query = asking.query;
        let bucket = bucket(turn.policy, asking.client.address, &self.cache.seed());
        let waiter = Waiter {
            route: asking.client.route,
            id: query.header.id,
            flags: query_flags(query),
            limit: asking.limit as u16,
            edns: asking.edns,
            is_unknown: asking.is_unknown,
            case: LetterCase::of(&message[HEADER_LEN..query.question_end - 4]),
            bucket,
            links: Links::default(),
        };
        let alias = asking.target.as_ref().map(|_| &query.name);
        let present = self.tables.pending.find(question.hash, &asking.key());
        if present.is_some() {
            self.counters.count(Counter::Coalesced);
        }
        if let Some(index) = present
            && self.tables.pending.is_joined(index, &waiter, alias)
        {
            return Outcome::Pending;
        }
        if !self.make_room(turn, present, bucket, alias.is_some(), effects) {
            return self.refuse_full(message, asking);
        }
        let index = match present {
            Some(index) => Ok(index),
            None => self.begin(turn, question, asking, (missed, bucket), effects),
        };
        let joined = index.and_then(|index| {
            self.tables.pending.join(index, waiter, alias)?;
            Ok(index)
        });
        match joined {
            Ok(index) if present.is_none() => self.ask_first(turn.now, index, effects),
            Ok(_) => {}
            Err(
                PendingFull::Questions
                | PendingFull::Waiters
                | PendingFull::Aliases
                | PendingFull::Share,
            ) => {
                debug_assert!(false, "there was room");
                return self.refuse_full(message, asking);
            }
        }
        Outcome::Pending
    }

    /// Answers a query without RD of which nothing is kept: the local aliases that lead to it, where it is such a name, or
    /// REFUSED (RFC 8914 section 4.21).
    fn refuse_recursion(
        &mut self,
        turn: &Turn<'_>,
        asking: &Asking<'_, R>,
        message: &mut [u8],
    ) -> Outcome {
        if asking.target.is_none() {
            return self.refuse(
                message,
                asking,
                rcode::REFUSED.into(),
                ede::NOT_AUTHORITATIVE,
            );
        }
        let head = Head::EMPTY;
        let reply = reply_to(asking, &head, Ttl::Aged(0), ede::NONE, message.len());
        let tables = &mut *self.tables;
        let (len, _) = tables.render_alias(turn.policy, asking, message, &head, &[], &reply);
        Outcome::Reply(len)
    }

    /// SERVFAIL for lack of room: the client may ask again.
    fn refuse_full(&mut self, message: &mut [u8], asking: &Asking<'_, R>) -> Outcome {
        self.refuse(message, asking, rcode::SERVFAIL.into(), ede::NOT_READY)
    }

    /// Makes sure that one more client of this bucket can wait. Whether it can. All places are taken: the oldest question
    /// of the client that has the most ends, among those that somebody waits for; never the one at `present`. Who has
    /// filled the table of questions pays with one of its own first, and with it with a place to wait in.
    fn make_room(
        &mut self,
        turn: &Turn<'_>,
        present: Option<u16>,
        bucket: u8,
        has_alias: bool,
        effects: &mut impl Effects<R>,
    ) -> bool {
        let full = present.is_none() && self.tables.pending.is_full();
        if let Some(victim) = full.then(|| self.tables.pending.victim()).flatten()
            && let Some(ended) = self.tables.pending.get(victim)
            && ended.bucket == bucket
        {
            self.counters.count(Counter::PendingFull);
            self.fail(turn, victim, ede::NOT_READY, effects);
        }
        match self.tables.pending.room(bucket, has_alias) {
            Ok(()) => true,
            Err(PendingFull::Waiters) => {
                self.counters.count(Counter::WaitersFull);
                let victim = self.tables.pending.waited_victim(present);
                if let Some(victim) = victim {
                    self.fail(turn, victim, ede::NOT_READY, effects);
                }
                self.tables.pending.room(bucket, has_alias).is_ok()
            }
            Err(PendingFull::Questions | PendingFull::Aliases | PendingFull::Share) => false,
        }
    }

    /// Asks upstream although nobody waits, unless somebody asks already or the table is full.
    pub(super) fn refresh(
        &mut self,
        turn: &Turn<'_>,
        question: &Question,
        asking: &Asking<'_, R>,
        effects: &mut impl Effects<R>,
    ) {
        let pending = &self.tables.pending;
        if pending.is_full() || pending.find(question.hash, &asking.key()).is_some() {
            return;
        }
        let bucket = bucket(turn.policy, asking.client.address, &self.cache.seed());
        let begun = self.begin(turn, question, asking, (&Lookup::Nothing, bucket), effects);
        if let Ok(index) = begun {
            self.ask_first(turn.now, index, effects);
        }
    }

    /// Takes a question on. The table is full: the oldest question of the client that has the most ends for it.
    fn begin(
        &mut self,
        turn: &Turn<'_>,
        question: &Question,
        asking: &Asking<'_, R>,
        (missed, bucket): (&Lookup, u8),
        effects: &mut impl Effects<R>,
    ) -> Result<u16, PendingFull> {
        let query = asking.query;
        let now = turn.now;
        let pending = Pending {
            name: *asking.name(),
            qtype: query.qtype,
            dnssec_ok: query.dnssec_ok(),
            checking_disabled: query.header.has(flag::CD),
            name_hash: question.name_hash,
            group: question.group,
            started: now,
            next_try: now,
            give_up: now + self.settings.give_up_ms,
            stale_at: match missed {
                Lookup::Stale => now + self.settings.stale_after_ms,
                Lookup::Reply { .. } | Lookup::Outdated | Lookup::TooLarge | Lookup::Nothing => {
                    Instant::FAR_FUTURE
                }
            },
            attempts: Vec::new(),
            tried: 0,
            first_waiter: None,
            failure: None,
            failure_ede: ede::NO_REACHABLE_AUTHORITY,
            sent_case: LetterCase::LOWER,
            without_edns: 0,
            without_case: 0,
            by_stream: matches!(missed, Lookup::TooLarge),
            generation: turn.policy.generation,
            chase: None,
            bucket,
        };
        if self.tables.pending.is_full() {
            self.counters.count(Counter::PendingFull);
            if let Some(victim) = self.tables.pending.victim() {
                self.fail(turn, victim, ede::NOT_READY, effects);
            }
        }
        self.tables.pending.insert(pending)
    }
}

/// The fair share bucket of a client: keyed, so that nobody can choose to share another's.
fn bucket(policy: &Policy<'_>, address: IpAddr, seed: &[u8; 16]) -> u8 {
    let octets = match policy.on_link.share_of(address) {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    let key = Key {
        name: &octets,
        qtype: 0,
        dnssec_ok: false,
        checking_disabled: false,
    };
    // Its lowest bits are the name's alone.
    (key.hash(seed) >> 16) as u8
}
