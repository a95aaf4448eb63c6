//! Giving an answer, a stale one or a failure to every client that waits for a question.

use super::alias::{Shelf, render_alias};
use super::query::{Freshness, freshness, opt_reply, stale_ede};
use super::{CacheAccess, Effects, Engine, STALE_TTL_SECS, Turn};
use crate::answer::{Answer, Head, Key, Reply, Ttl, render};
use crate::cache::Found;
use crate::counters::Counter;
use crate::dns::build::Writer;
use crate::dns::edns::ede;
use crate::dns::header::{HEADER_LEN, flag};
use crate::dns::{Name, class, rcode};
use crate::forward::pending::{Pending, Waiter};
use crate::limits::CACHE_LARGE_BYTES;
use crate::policy::Policy;
use crate::time::Instant;

impl<R: Copy + PartialEq, C: CacheAccess> Engine<'_, R, C> {
    /// Gives the digested answer to everyone who waits; one that `is_cut` only to those who wait for a datagram.
    pub(super) fn reply_all(
        &mut self,
        turn: &Turn<'_>,
        index: u16,
        answer: &Answer,
        is_cut: bool,
        effects: &mut impl Effects<R>,
    ) {
        let whole = Shelf {
            head: &answer.head,
            body: answer.body_at..answer.body_end,
        };
        // As hits get it, of which the cache keeps no more than that it is long. Nor is a part of an RRset passed on.
        let no_records = Head {
            rcode: answer.head.rcode,
            ..Head::EMPTY
        };
        let none = Shelf {
            head: &no_records,
            body: 0..0,
        };
        let is_long = is_cut || self.is_longer_than_a_slot(index, &whole);
        let wanted = |waiter: &Waiter<R>| !(is_cut && waiter.is_tcp());
        while let Some(waiting) = self.tables.pending.pop_waiter_that(index, wanted) {
            let waiter = &waiting.0;
            let (shelf, extra) = if is_long && !waiter.is_tcp() {
                (&none, flag::TC)
            } else {
                (&whole, 0)
            };
            let mut reply = waiter_reply(waiter, shelf.head, Ttl::Aged(0), answer.head.ede, extra);
            reply.rotate = self.next_rotation();
            let (mut len, truncated) =
                self.render_waiting(turn.policy, index, &waiting, shelf, &reply);
            if waiter.is_unknown && len > self.settings.cookie_free_max {
                self.counters.count(Counter::BadCookies);
                len = self.render_cookie_wanted(turn.policy, index, &waiting);
            }
            if truncated || extra != 0 {
                self.counters.count(Counter::TruncatedGiven);
            }
            effects.reply(&waiter.route, &self.tables.reply[..len]);
        }
    }

    /// Whether the cache keeps no more of an answer than that it is long.
    fn is_longer_than_a_slot(&self, index: u16, shelf: &Shelf<'_>) -> bool {
        let name_len = |pending: &Pending| pending.name.as_wire().len();
        self.tables
            .pending
            .get(index)
            .is_some_and(|pending| name_len(pending) + shelf.body.len() > CACHE_LARGE_BYTES)
    }

    /// Gives everyone who waits the answer of the cache, stale or not. Whether there was one.
    pub(super) fn reply_stale(
        &mut self,
        turn: &Turn<'_>,
        index: u16,
        effects: &mut impl Effects<R>,
    ) -> bool {
        let Some(pending) = self.tables.pending.get(index) else {
            return false;
        };
        let (name, group, hash) = (pending.name, pending.group, pending.hash());
        let key = Key {
            name: name.as_wire(),
            ..pending.key()
        };
        self.judge_again(turn.policy, hash, &key, group, false);
        let Some(pending) = self.tables.pending.get(index) else {
            return false;
        };
        let template = &mut self.tables.template;
        let body_at = write_question(template, pending);
        let found = self.cache.with_shard(hash, |shard| {
            let Found { head, body } = shard.find(hash, &key)?;
            let end = body_at + body.len();
            template.get_mut(body_at..end)?.copy_from_slice(body);
            Some((head, end))
        });
        let Some((head, end)) = found else {
            return false;
        };
        let (ttl, code) = match freshness(&head, turn.now, &self.settings) {
            Freshness::Fresh { age_secs, .. } => (Ttl::Aged(age_secs), head.ede),
            Freshness::Stale { .. } => {
                self.note_failure(turn.now, hash, &key);
                (Ttl::Fixed(STALE_TTL_SECS), stale_ede(head.rcode))
            }
            Freshness::Expired | Freshness::TooLarge => return false,
        };
        let shelf = Shelf {
            head: &head,
            body: body_at..end,
        };
        while let Some(waiting) = self.tables.pending.pop_waiter(index) {
            let reply = waiter_reply(&waiting.0, &head, ttl, code, 0);
            let (len, _) = self.render_waiting(turn.policy, index, &waiting, &shelf, &reply);
            self.counters.count(Counter::CacheStale);
            effects.reply(&waiting.0.route, &self.tables.reply[..len]);
        }
        true
    }

    /// Remembers of a stale answer that it could not be refreshed.
    fn note_failure(&mut self, now: Instant, hash: u64, key: &Key<'_>) {
        self.cache.with_shard(hash, |shard| {
            shard.amend(hash, key, |head| {
                head.failed_secs = now.secs_since(head.stored).max(1);
            });
        });
    }

    /// Ends a question without a useful answer: stale if there is one, else the failure, which is kept for a moment.
    pub(super) fn fail(
        &mut self,
        turn: &Turn<'_>,
        index: u16,
        reason: u16,
        effects: &mut impl Effects<R>,
    ) {
        if !self.reply_stale(turn, index, effects) {
            let failure = self.tables.pending.get(index);
            let code = match failure.and_then(|pending| pending.failure) {
                Some(rcode::REFUSED) => rcode::REFUSED,
                // What an upstream thinks of our message, or of itself, is nothing to the client, whose own was understood.
                None | Some(_) => rcode::SERVFAIL,
            };
            let reason = match failure {
                // What an upstream says of its failure is good to know.
                Some(pending) if reason == ede::NONE => pending.failure_ede,
                Some(_) | None => reason,
            };
            self.reply_failure(turn, index, code, reason, effects);
        }
        self.end(turn.now, index, effects);
    }

    fn reply_failure(
        &mut self,
        turn: &Turn<'_>,
        index: u16,
        code: u8,
        reason: u16,
        effects: &mut impl Effects<R>,
    ) {
        let head = Head {
            rcode: code,
            ttl_secs: self.settings.failure_ttl_secs,
            stored: turn.now,
            ede: reason,
            ..Head::EMPTY
        };
        if let Some(pending) = self
            .tables
            .pending
            .get(index)
            .filter(|_| head.ttl_secs > 0 && reason != ede::NOT_READY)
        {
            let head = Head {
                generation: pending.generation,
                ..head
            };
            self.cache.with_shard(pending.hash(), |shard| {
                shard.insert(pending.hash(), &pending.key(), &head, &[])
            });
        }
        let shelf = Shelf {
            head: &head,
            body: 0..0,
        };
        while let Some(waiting) = self.tables.pending.pop_waiter(index) {
            let reply = waiter_reply(&waiting.0, &head, Ttl::Aged(0), reason, 0);
            let (len, _) = self.render_waiting(turn.policy, index, &waiting, &shelf, &reply);
            self.count_refusal(code);
            effects.reply(&waiting.0.route, &self.tables.reply[..len]);
        }
    }

    /// By how many places addresses are moved in the next answer.
    pub(super) fn next_rotation(&mut self) -> u16 {
        self.turn = self.turn.wrapping_add(1);
        if self.settings.rotate { self.turn } else { 0 }
    }

    /// Writes the client's own question, then the answer that stands in the template.
    fn render_waiting(
        &mut self,
        policy: &Policy<'_>,
        index: u16,
        (waiter, alias): &(Waiter<R>, Option<Name>),
        shelf: &Shelf<'_>,
        reply: &Reply,
    ) -> (usize, bool) {
        let Some(pending) = self.tables.pending.get(index) else {
            return (0, false);
        };
        let buffer = &mut self.tables.reply;
        let name = alias.as_ref().unwrap_or(&pending.name);
        let mut writer = Writer::new(buffer);
        writer
            .question(name.as_wire(), pending.qtype, class::IN)
            .expect("the buffer holds the longest name");
        let question_end = writer.position();
        waiter.case.apply(&mut buffer[HEADER_LEN..question_end - 4]);
        let template = &self.tables.template;
        match alias {
            None => {
                let body = &template[shelf.body.clone()];
                render(buffer, question_end, shelf.head, body, reply)
            }
            Some(name) => {
                let question = (name, pending.qtype);
                render_alias(buffer, question, policy, template, shelf, reply)
            }
        }
    }

    /// BADCOOKIE for a client that speaks cookies, TC for one that does not: a long answer goes to proven addresses only.
    fn render_cookie_wanted(
        &mut self,
        policy: &Policy<'_>,
        index: u16,
        waiting: &(Waiter<R>, Option<Name>),
    ) -> usize {
        let speaks = waiting.0.edns.is_some_and(|edns| edns.cookie.is_some());
        let (code, extra) = if speaks {
            (rcode::BADCOOKIE, 0)
        } else {
            (0, flag::TC)
        };
        let head = Head {
            rcode: (code & 0xf) as u8,
            ..Head::EMPTY
        };
        let mut reply = waiter_reply(&waiting.0, &head, Ttl::Aged(0), ede::NONE, extra);
        if let Some(opt) = &mut reply.opt {
            opt.extended_rcode = (code >> 4) as u8;
        }
        let shelf = Shelf {
            head: &head,
            body: 0..0,
        };
        self.render_waiting(policy, index, waiting, &shelf, &reply)
            .0
    }
}

/// Writes the question in flight into the template. Returns where a body belongs.
fn write_question(template: &mut [u8], pending: &Pending) -> usize {
    let mut writer = Writer::new(template);
    writer
        .question(pending.name.as_wire(), pending.qtype, class::IN)
        .expect("the template holds the longest name");
    writer.position()
}

/// What this waiting client gets.
fn waiter_reply<R>(
    waiter: &Waiter<R>,
    head: &Head,
    ttl: Ttl,
    code: u16,
    extra_flags: u16,
) -> Reply {
    let flags = if head.authentic_data {
        waiter.flags
    } else {
        waiter.flags & !flag::AD
    };
    Reply {
        id: waiter.id,
        flags: flags | extra_flags,
        ttl,
        limit: usize::from(waiter.limit),
        opt: waiter.edns.map(|edns| opt_reply(&edns, code)),
        rotate: 0,
    }
}
