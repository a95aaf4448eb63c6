//! Giving an answer, a stale one or a failure to every client that waits for a question.

use super::query::{opt_reply, stale_ede};
use super::{CacheAccess, Effects, Engine, STALE_TTL_SECS};
use crate::cache::{Found, Head};
use crate::counters::Counter;
use crate::dns::answer::Answer;
use crate::dns::build::Writer;
use crate::dns::edns::ede;
use crate::dns::header::{HEADER_LEN, flag};
use crate::dns::render::{Reply, Ttl, render};
use crate::dns::{class, rcode};
use crate::forward::pending::{Pending, Waiter};
use crate::time::Instant;

impl<R: Copy + PartialEq, C: CacheAccess> Engine<'_, R, C> {
    /// Gives the digested answer to everyone who waits.
    pub(super) fn reply_all(&mut self, index: u16, answer: &Answer, effects: &mut impl Effects<R>) {
        let opt_code = answer.head.ede;
        while let Some(waiter) = self.tables.pending.pop_waiter(index) {
            let Some(pending) = self.tables.pending.get(index) else {
                return;
            };
            let body = &self.tables.template[answer.body_at..answer.body_end];
            let mut head = answer.head;
            head.authoritative = false;
            let extra = if answer.truncated { flag::TC } else { 0 };
            let mut reply = waiter_reply(&waiter, &head, Ttl::Aged(0), opt_code, extra);
            if self.settings.rotate {
                self.turn = self.turn.wrapping_add(1);
                reply.rotate = self.turn;
            }
            let buffer = &mut self.tables.reply;
            let (mut len, truncated) = render_for(buffer, pending, &waiter, &head, body, &reply);
            if waiter.is_unknown && len > self.settings.cookie_free_max {
                self.counters.count(Counter::BadCookies);
                len = render_cookie_wanted(buffer, pending, &waiter);
            }
            if truncated || answer.truncated {
                self.counters.count(Counter::TruncatedGiven);
            }
            effects.reply(&waiter.route, &self.tables.reply[..len]);
        }
    }

    /// Gives everyone who waits the stale answer. Whether there was one.
    pub(super) fn reply_stale(
        &mut self,
        now: Instant,
        index: u16,
        effects: &mut impl Effects<R>,
    ) -> bool {
        let Some(pending) = self.tables.pending.get(index) else {
            return false;
        };
        let (hash, max_secs) = (pending.hash, self.settings.stale_max_secs);
        let template = &mut self.tables.template;
        let found = self.cache.with_shard(hash, |shard| {
            let Found { head, body } = shard.find(hash, &pending.key())?;
            let usable = head.restored
                || now.secs_since(head.stored) <= head.ttl_secs.saturating_add(max_secs);
            template
                .get_mut(..body.len())
                .filter(|_| usable)?
                .copy_from_slice(body);
            Some((head, body.len()))
        });
        let Some((head, len)) = found.filter(|_| self.settings.serve_stale) else {
            return false;
        };
        while let Some(waiter) = self.tables.pending.pop_waiter(index) {
            let Some(pending) = self.tables.pending.get(index) else {
                break;
            };
            let reply = waiter_reply(
                &waiter,
                &head,
                Ttl::Fixed(STALE_TTL_SECS),
                stale_ede(head.rcode),
                0,
            );
            let body = &self.tables.template[..len];
            let (len, _) = render_for(
                &mut self.tables.reply,
                pending,
                &waiter,
                &head,
                body,
                &reply,
            );
            self.counters.count(Counter::CacheStale);
            effects.reply(&waiter.route, &self.tables.reply[..len]);
        }
        true
    }

    /// Ends a question without a useful answer: stale if there is one, else the failure, which is kept for a moment.
    pub(super) fn fail(
        &mut self,
        now: Instant,
        index: u16,
        reason: u16,
        effects: &mut impl Effects<R>,
    ) {
        if !self.reply_stale(now, index, effects) {
            let code = self
                .tables
                .pending
                .get(index)
                .and_then(|pending| pending.failure)
                .unwrap_or(rcode::SERVFAIL);
            self.reply_failure(now, index, code, reason, effects);
        }
        self.tables.pending.remove(index);
    }

    fn reply_failure(
        &mut self,
        now: Instant,
        index: u16,
        code: u8,
        reason: u16,
        effects: &mut impl Effects<R>,
    ) {
        let head = Head {
            rcode: code,
            ttl_secs: self.settings.failure_ttl_secs,
            stored: now,
            ede: reason,
            ..Head::EMPTY
        };
        if let Some(pending) = self
            .tables
            .pending
            .get(index)
            .filter(|_| head.ttl_secs > 0 && reason != ede::NOT_READY)
        {
            self.cache.with_shard(pending.hash, |shard| {
                shard.insert(pending.hash, &pending.key(), &head, &[])
            });
        }
        while let Some(waiter) = self.tables.pending.pop_waiter(index) {
            let Some(pending) = self.tables.pending.get(index) else {
                return;
            };
            let reply = waiter_reply(&waiter, &head, Ttl::Aged(0), reason, 0);
            let (len, _) = render_for(&mut self.tables.reply, pending, &waiter, &head, &[], &reply);
            self.counters.count(Counter::ServfailGiven);
            effects.reply(&waiter.route, &self.tables.reply[..len]);
        }
    }
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

/// Writes the client's own question, then the answer behind it.
fn render_for<R>(
    buffer: &mut [u8],
    pending: &Pending,
    waiter: &Waiter<R>,
    head: &Head,
    body: &[u8],
    reply: &Reply,
) -> (usize, bool) {
    let mut writer = Writer::new(buffer);
    writer
        .question(pending.name.as_wire(), pending.qtype, class::IN)
        .expect("the buffer holds the longest name");
    let question_end = writer.position();
    waiter.case.apply(&mut buffer[HEADER_LEN..question_end - 4]);
    render(buffer, question_end, head, body, reply)
}

/// BADCOOKIE for a client that speaks cookies, TC for one that does not: a long answer goes to proven addresses only.
fn render_cookie_wanted<R>(buffer: &mut [u8], pending: &Pending, waiter: &Waiter<R>) -> usize {
    let speaks = waiter.edns.is_some_and(|edns| edns.cookie.is_some());
    let (code, extra) = if speaks {
        (rcode::BADCOOKIE, 0)
    } else {
        (0, flag::TC)
    };
    let head = Head {
        rcode: (code & 0xf) as u8,
        ..Head::EMPTY
    };
    let mut reply = waiter_reply(waiter, &head, Ttl::Aged(0), ede::NONE, extra);
    if let Some(opt) = &mut reply.opt {
        opt.extended_rcode = (code >> 4) as u8;
    }
    render_for(buffer, pending, waiter, &head, &[], &reply).0
}
