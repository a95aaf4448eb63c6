//! Delivery of an answer, a stale answer or a failure to every client that waits for a question.

use super::alias::{AliasQuestion, AnswerMessage};
use super::filter::Revalidation;
use super::lookup::{Freshness, freshness, stale_ede};
use super::request::{count_refusal, opt_reply};
use super::{CacheAccess, Call, Context, Effects, Engine, STALE_TTL_SECS, next_rotation};
use crate::answer::{Answer, Head, Kept, Rendered, Reply, Response, Ttl};
use crate::counters::latency::Tier;
use crate::counters::{Counter, Counters};
use crate::dns::build::Writer;
use crate::dns::edns::ede;
use crate::dns::header::{HEADER_LEN, flag};
use crate::dns::{QUESTION_FIXED_LEN, class, rcode};
use crate::forward::pending::{Taken, Waiter};
use crate::forward::question::{Failure, Question};
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
        let tables = &mut *self.tables;
        let Some(mut waiting) = tables.pending.waiting(index) else {
            return;
        };
        let whole = AnswerMessage {
            head: &response.head,
            message: response.message(),
            body: response.body(),
        };
        // The same as a hit on the cache's mark: no record of a truncated RRset is passed on.
        let none = AnswerMessage {
            head: &Head {
                rcode: response.head.rcode,
                ..Head::EMPTY
            },
            body: 0..0,
            ..whole
        };
        // The cache holds a mark for such an answer: UDP clients get TC, now as well as from the cache.
        let name_len = waiting.question().name.as_wire().len();
        let is_long = response.truncated || name_len + whole.body.len() > CACHE_LARGE_BYTES;
        // Clients on streams wait on for the whole answer.
        let wanted = |waiter: &Waiter<R>| !(response.truncated && waiter.is_tcp);
        let mut renderer = Renderer {
            policy: call.context.of_view(waiting.question().view).policy,
            buffer: &mut tables.reply,
        };
        let wait = Wait::of(waiting.question(), call.context.now);
        while let Some(client) = waiting.pop_that(wanted) {
            let waiter = &client.waiter;
            let (source, extra) = if is_long && !waiter.is_tcp {
                (&none, flag::TC)
            } else {
                (&whole, 0)
            };
            let mut reply = waiter_reply(waiter, source.head, Ttl::Aged(0), response.head.ede);
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
        let Some((head, kept, fresh)) = self.find_stale(call.context, index) else {
            return false;
        };
        let (ttl, code) = match fresh {
            Freshness::Fresh { age_secs, .. } => (Ttl::Aged(age_secs), head.ede),
            Freshness::Stale { .. } => (Ttl::Fixed(STALE_TTL_SECS), stale_ede(head.rcode)),
            Freshness::Expired | Freshness::TooLarge => return false,
        };
        let tables = &mut *self.tables;
        let Some(mut waiting) = tables.pending.waiting(index) else {
            return false;
        };
        let source = AnswerMessage {
            head: &head,
            message: kept.message(),
            body: kept.body(),
        };
        let mut renderer = Renderer {
            policy: call.context.of_view(waiting.question().view).policy,
            buffer: &mut tables.reply,
        };
        let wait = Wait::of(waiting.question(), call.context.now);
        while let Some(client) = waiting.pop() {
            let reply = waiter_reply(&client.waiter, &head, ttl, code);
            let rendered = renderer.render(waiting.question(), &client, &source, &reply);
            self.counters.count(Counter::CacheStale);
            let message = renderer.message(rendered.len);
            call.effects.reply(&client.waiter.reply_path, message);
            wait.count(self.counters);
        }
        true
    }

    /// Finds the cached answer of the question. In a stale one it notes the failed refresh.
    fn find_stale(&mut self, context: &Context<'_>, index: u16) -> Option<(Head, Kept, Freshness)> {
        let question = self.tables.pending.get(index)?;
        let settings = &self.settings;
        let key = question.key();
        self.cache.with_shard(key.hash(), |shard| {
            let revalidation = Revalidation {
                policy: context.of_view(question.view).policy,
                group: question.group,
                is_decided: false,
            };
            revalidation.run(shard, &key);
            let found = shard.find(&key)?;
            let (head, kept) = (*found.head, Kept::new(key.key().name, found.body)?);
            let fresh = freshness(&head, context.now, settings);
            if matches!(fresh, Freshness::Stale { .. }) {
                shard.amend(&key, |head| {
                    head.failed_secs = context.now.secs_since(head.stored).max(1);
                });
            }
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

/// How long the clients of a question have waited: since it was first sent, in microseconds; 0 if it never was.
struct Wait(u64);

impl Wait {
    fn of(question: &Question, now: Instant) -> Self {
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
