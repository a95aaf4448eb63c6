//! Delivery of an answer, a stale answer or a failure to every client that waits for a question.

use super::alias::{AliasQuestion, AnswerMessage};
use super::filter::Revalidation;
use super::lookup::{Freshness, freshness, stale_ede};
use super::request::{count_refusal, opt_reply};
use super::sets;
use super::{CacheAccess, Call, Context, Effects, Engine, STALE_TTL_SECS, group_of, next_rotation};
use crate::answer::{Answer, Head, Kept, Rendered, Reply, Response, Ttl};
use crate::counters::latency::Tier;
use crate::counters::{Counter, Counters, ViewCounter};
use crate::dns::build::Writer;
use crate::dns::edns::ede;
use crate::dns::header::{HEADER_LEN, flag};
use crate::dns::record::Records;
use crate::dns::{Name, QUESTION_FIXED_LEN, class, rcode};
use crate::forward::pending::{Taken, Waiter};
use crate::forward::question::{ELSEWHERE_MS, Failure, Question, Stage};
use crate::limits::CACHE_LARGE_BYTES;
use crate::policy::Policy;
use crate::time::Instant;

impl<R: Copy + PartialEq, C: CacheAccess> Engine<'_, R, C> {
    /// Sends the answer to all waiting clients; a truncated one to those over UDP only.
    pub(super) fn reply_all<E: Effects<R>>(
        &mut self,
        call: &mut Call<'_, E>,
        index: u16,
        response: &Response<'_>,
    ) {
        let Some(question) = self.tables.pending.get(index) else {
            return;
        };
        let body = response.body();
        // The cache holds a mark for such an answer: UDP clients get TC, now as well as from the cache.
        let name_len = question.name.as_wire().len();
        let is_long = response.truncated || name_len + body.len() > CACHE_LARGE_BYTES;
        let delivery = Delivery {
            whole: AnswerMessage {
                head: &response.head,
                message: response.message(),
                body,
            },
            is_long,
            ttl: Ttl::Aged(0),
            code: response.head.ede,
            counted: None,
        };
        // Clients on streams wait on for the whole answer.
        let wanted = |waiter: &Waiter<R>| !(response.truncated && waiter.is_tcp);
        self.reply_each(call, index, &delivery, wanted);
    }

    /// Sends an answer to each of the waiting clients that are `wanted`.
    pub(super) fn reply_each<E: Effects<R>>(
        &mut self,
        call: &mut Call<'_, E>,
        index: u16,
        delivery: &Delivery<'_>,
        wanted: impl Fn(&Waiter<R>) -> bool,
    ) {
        let tables = &mut *self.tables;
        let Some(mut waiting) = tables.pending.waiting(index) else {
            return;
        };
        // The same as a hit on the cache's mark: no record of a truncated RRset is passed on.
        let none = AnswerMessage {
            head: &Head {
                rcode: delivery.whole.head.rcode,
                ..Head::EMPTY
            },
            message: delivery.whole.message,
            body: 0..0,
        };
        let policy = call.context.of_view(waiting.question().view).policy;
        delivery.fill_sets(call.effects, policy, &waiting.question().name);
        let mut renderer = Renderer {
            policy,
            buffer: &mut tables.reply,
        };
        let wait = Wait::of(waiting.question(), call.context.now);
        while let Some(client) = waiting.pop_that(&wanted) {
            let waiter = &client.waiter;
            let (source, extra) = if delivery.is_long && !waiter.is_tcp {
                (&none, flag::TC)
            } else {
                (&delivery.whole, 0)
            };
            let mut reply = waiter_reply(waiter, source.head, delivery.ttl, delivery.code);
            reply.flags |= extra;
            reply.rotate = next_rotation(&mut self.rotation, &self.settings);
            let question = waiting.question();
            let Rendered { mut len, truncated } =
                renderer.render(question, &client, source, &reply);
            if waiter.lacks_cookie && len > self.settings.nocookie_udp_size {
                self.counters.count(Counter::BadCookies);
                len = renderer.render_cookie_wanted(question, &client);
            }
            if truncated || extra != 0 {
                self.counters.count(Counter::TruncatedGiven);
            }
            if let Some(counter) = delivery.counted {
                self.counters.count(counter);
                self.counters.count_for(policy.view, ViewCounter::Cached);
            }
            call.effects
                .reply(&waiter.reply_path, renderer.message(len));
            wait.count(self.counters);
        }
    }

    /// Sends the cached answer, stale or fresh, to all waiting clients. Returns true if there was one.
    pub(super) fn reply_stale<E: Effects<R>>(
        &mut self,
        call: &mut Call<'_, E>,
        index: u16,
    ) -> bool {
        let Some((head, kept, fresh)) = self.find_kept(call.context, index) else {
            return false;
        };
        let (ttl, code) = match fresh {
            Freshness::Fresh { age_secs, .. } => (Ttl::Aged(age_secs), head.ede),
            Freshness::Stale { .. } => {
                self.note_failed_refresh(call.context.now, index);
                (Ttl::Fixed(STALE_TTL_SECS), stale_ede(head.rcode))
            }
            Freshness::Expired | Freshness::TooLarge => return false,
        };
        let delivery = Delivery {
            counted: Some(Counter::CacheStale),
            ..Delivery::of_kept(&head, &kept, ttl, code)
        };
        self.reply_each(call, index, &delivery, |_| true);
        true
    }

    /// Notes in the cached answer of the question that it could not be refreshed.
    fn note_failed_refresh(&self, now: Instant, index: u16) {
        let Some(question) = self.tables.pending.get(index) else {
            return;
        };
        let key = question.key();
        let note = |head: &mut Head| head.failed_secs = now.secs_since(head.stored).max(1);
        self.cache
            .with_shard(key.hash(), |shard| shard.amend(&key, note));
    }

    /// Finds the cached answer of the question.
    pub(super) fn find_kept(
        &mut self,
        context: &Context<'_>,
        index: u16,
    ) -> Option<(Head, Kept, Freshness)> {
        let question = self.tables.pending.get(index)?;
        let settings = &self.settings;
        let key = question.key();
        self.cache.with_shard(key.hash(), |shard| {
            let policy = context.of_view(question.view).policy;
            let revalidation = Revalidation {
                policy,
                // Its sub-question may be another group's.
                group: || {
                    group_of(policy, &question.name, question.qtype).unwrap_or(question.group)
                },
                is_decided: false,
            };
            revalidation.run(shard, &key);
            let found = shard.find(&key)?;
            let (head, kept) = (*found.head, Kept::new(key.key().name, found.body)?);
            let fresh = freshness(&head, context.now, settings);
            Some((head, kept, fresh))
        })
    }

    /// Ends a question to make room for another.
    pub(super) fn end_for_room<E: Effects<R>>(
        &mut self,
        call: &mut Call<'_, E>,
        victim: Option<u16>,
    ) {
        if let Some(victim) = victim
            && let Some(question) = self.tables.pending.get(victim)
        {
            let failure = question.failure(ede::NOT_READY);
            self.fail(call, victim, failure);
        }
    }

    /// Ends a question without a useful answer: clients get a stale answer if there is one, else the failure, which is
    /// cached for `failure_ttl_secs`.
    pub(super) fn fail<E: Effects<R>>(
        &mut self,
        call: &mut Call<'_, E>,
        index: u16,
        failure: Failure,
    ) {
        if !self.reply_stale(call, index) {
            self.reply_failure(call, index, failure);
        }
        self.end(call.context.now, index, call.effects);
    }

    fn reply_failure<E: Effects<R>>(
        &mut self,
        call: &mut Call<'_, E>,
        index: u16,
        failure: Failure,
    ) {
        let tables = &mut *self.tables;
        let Some(mut waiting) = tables.pending.waiting(index) else {
            return;
        };
        let head = Head {
            rcode: failure.rcode,
            ttl_secs: self.settings.failure_ttl_secs,
            stored: call.context.now,
            ede: failure.ede,
            generation: waiting.question().generation,
            ..Head::EMPTY
        };
        // A failure for lack of room says nothing about the name.
        if head.ttl_secs > 0 && failure.ede != ede::NOT_READY {
            let key = waiting.question().key();
            let failed = Answer::bare(&head);
            self.cache
                .with_shard(key.hash(), |shard| shard.insert(&key, &failed));
        }
        let source = AnswerMessage::bare(&head);
        let mut renderer = Renderer {
            policy: call.context.of_view(waiting.question().view).policy,
            buffer: &mut tables.reply,
        };
        let wait = Wait::of(waiting.question(), call.context.now);
        while let Some(client) = waiting.pop() {
            let reply = waiter_reply(&client.waiter, &head, Ttl::Aged(0), failure.ede);
            let rendered = renderer.render(waiting.question(), &client, &source, &reply);
            count_refusal(self.counters, failure.rcode);
            let message = renderer.message(rendered.len);
            call.effects.reply(&client.waiter.reply_path, message);
            wait.count(self.counters);
        }
    }
}

/// An answer for waiting clients.
pub(super) struct Delivery<'d> {
    pub whole: AnswerMessage<'d>,
    /// True if clients over UDP get TC in its place.
    pub is_long: bool,
    pub ttl: Ttl,
    /// Extended error, or [`ede::NONE`].
    pub code: u16,
    /// Counted for each client.
    pub counted: Option<Counter>,
}

impl<'d> Delivery<'d> {
    /// Hands on the addresses of an answer to this name that go into sets.
    fn fill_sets<R>(&self, effects: &mut impl Effects<R>, policy: &Policy<'_>, name: &Name) {
        let AnswerMessage {
            head,
            message,
            body,
        } = &self.whole;
        if let Some(sets) = sets::sets_of(policy, name.as_wire(), head) {
            let records = Records::new(message, body.start, head.answers.into());
            sets::hand_on(effects, sets, message, records);
        }
    }

    /// The delivery of an answer of the cache.
    pub fn of_kept(head: &'d Head, kept: &'d Kept, ttl: Ttl, code: u16) -> Self {
        Self {
            whole: AnswerMessage {
                head,
                message: kept.message(),
                body: kept.body(),
            },
            is_long: false,
            ttl,
            code,
            counted: None,
        }
    }
}

/// How long the clients of a question have waited: since it was first sent, or another engine's answer was waited for, in
/// microseconds; 0 if neither was.
struct Wait(u64);

impl Wait {
    fn of(question: &Question, now: Instant) -> Self {
        if question.stage == Stage::Elsewhere {
            let left_ms = question.deadlines.next_try.millis_since(now);
            return Self(ELSEWHERE_MS.saturating_sub(left_ms) * 1000);
        }
        let first = question.tries.as_slice().first();
        Self(first.map_or(0, |first| now.millis_since(first.sent) * 1000))
    }

    /// Counts one of them as answered.
    fn count(&self, counters: &Counters) {
        counters.latency(Tier::Upstream).observe(self.0, 1);
    }
}

/// Renders the replies to waiting clients, one after the other.
struct Renderer<'r> {
    policy: &'r Policy<'r>,
    buffer: &'r mut [u8],
}

impl Renderer<'_> {
    /// The reply that was rendered last.
    fn message(&self, len: usize) -> &[u8] {
        &self.buffer[..len]
    }

    /// Writes the client's own question, then the answer.
    fn render<R>(
        &mut self,
        question: &Question,
        Taken { waiter, alias }: &Taken<R>,
        source: &AnswerMessage<'_>,
        reply: &Reply,
    ) -> Rendered {
        let name = alias.as_ref().unwrap_or(&question.name);
        let mut writer = Writer::new(self.buffer);
        writer
            .question(name.as_wire(), question.qtype, class::IN)
            .expect("the buffer holds the longest name");
        let question_end = writer.position();
        let written = &mut self.buffer[HEADER_LEN..question_end - QUESTION_FIXED_LEN];
        waiter.case.apply(written);
        match alias {
            None => {
                let answer = source.answer();
                reply.render(self.buffer, question_end, &answer)
            }
            Some(name) => {
                let alias = AliasQuestion {
                    name,
                    qtype: question.qtype,
                    policy: self.policy,
                };
                alias.render(self.buffer, source, reply)
            }
        }
    }

    /// Renders BADCOOKIE for a client with cookies, else TC: long answers are for proven addresses only.
    fn render_cookie_wanted<R>(&mut self, question: &Question, client: &Taken<R>) -> usize {
        let speaks = client.waiter.edns.is_some_and(|edns| edns.cookie.is_some());
        let (code, extra) = if speaks {
            (rcode::BADCOOKIE, 0)
        } else {
            (0, flag::TC)
        };
        let head = Head {
            rcode: (code & 0xf) as u8,
            ..Head::EMPTY
        };
        let mut reply = waiter_reply(&client.waiter, &head, Ttl::Aged(0), ede::NONE);
        reply.flags |= extra;
        if let Some(opt) = &mut reply.opt {
            opt.extended_rcode = (code >> 4) as u8;
        }
        let source = AnswerMessage::bare(&head);
        self.render(question, client, &source, &reply).len
    }
}

/// The reply to a waiting client.
fn waiter_reply<R>(waiter: &Waiter<R>, head: &Head, ttl: Ttl, code: u16) -> Reply {
    Reply {
        id: waiter.id,
        flags: if head.authentic_data {
            waiter.flags
        } else {
            waiter.flags & !flag::AD
        },
        ttl,
        limit: usize::from(waiter.limit),
        opt: waiter.edns.map(|edns| opt_reply(&edns, code)),
        rotate: 0,
    }
}
