//! From an upstream's answer, or its silence, to what every waiting client gets.

use super::query::{opt_reply, stale_ede};
use super::{CacheAccess, Effects, Engine, STALE_TTL_SECS};
use crate::cache::{Found, Head, Inserted};
use crate::counters::Counter;
use crate::dns::answer::{Answer, Asked, ResponseError, digest};
use crate::dns::build::Writer;
use crate::dns::edns::{OptReply, ede};
use crate::dns::header::{HEADER_LEN, Header, flag};
use crate::dns::render::{Reply, Ttl, render};
use crate::dns::{class, rcode};
use crate::forward::pending::{Attempt, Pending, Waiter};
use crate::limits::{NAME_MAX, UDP_MESSAGE_MAX, UPSTREAM_SOCKETS};
use crate::time::Instant;
use core::net::SocketAddr;

/// Longest question that we send: header, name, type and class, OPT.
const ASK_MAX: usize = HEADER_LEN + NAME_MAX + 4 + 11;
/// Times that a free message ID is looked for before the attempt counts as failed.
const ID_TRIES: usize = 8;

impl<R: Copy + PartialEq, C: CacheAccess> Engine<'_, R, C> {
    /// Takes what came from `from` on the upstream socket `socket`.
    pub fn response(
        &mut self,
        now: Instant,
        socket: u16,
        from: SocketAddr,
        message: &[u8],
        effects: &mut impl Effects<R>,
    ) {
        let Some((index, attempt)) = self.match_attempt(socket, from, message) else {
            self.counters.count(Counter::UpstreamSpoofed);
            return;
        };
        let Some(pending) = self.tables.pending.get(index) else {
            return;
        };
        let asked = Asked {
            name: &pending.name,
            sent_case: None,
            qtype: pending.qtype,
            dnssec_ok: pending.dnssec_ok,
        };
        match digest(
            message,
            &asked,
            &self.settings.ttl,
            now,
            &mut self.tables.template,
        ) {
            Err(ResponseError::Foreign) => self.counters.count(Counter::UpstreamSpoofed),
            Err(ResponseError::Malformed) => {
                self.counters.count(Counter::UpstreamMalformed);
                self.attempt_failed(now, index, &attempt, rcode::SERVFAIL, effects);
            }
            Ok(answer) => {
                self.counters.count(Counter::UpstreamAnswers);
                self.upstreams
                    .answered(attempt.upstream, now.millis_since(attempt.sent));
                self.accept(now, index, &attempt, answer, effects);
            }
        }
    }

    /// The transaction to which a message from `from` on `socket` belongs, if it is one of ours.
    fn match_attempt(
        &self,
        socket: u16,
        from: SocketAddr,
        message: &[u8],
    ) -> Option<(u16, Attempt)> {
        let id = Header::parse(message)?.id;
        let index = self.tables.pending.by_transaction(socket, id)?;
        let pending = self.tables.pending.get(index)?;
        let attempt = *pending
            .attempts
            .iter()
            .find(|attempt| attempt.socket == socket && attempt.id == id)?;
        let upstream = self.upstreams.get(attempt.upstream)?;
        (attempt.live && same_endpoint(upstream.config.address, from)).then_some((index, attempt))
    }

    /// An answer to our question: it helps, or the next upstream is asked.
    fn accept(
        &mut self,
        now: Instant,
        index: u16,
        attempt: &Attempt,
        mut answer: Answer,
        effects: &mut impl Effects<R>,
    ) {
        let code = answer.head.rcode;
        if matches!(code, rcode::FORMERR | rcode::NOTIMP) && attempt.edns && !answer.has_edns {
            // RFC 6891 section 7: it does not know EDNS. Asked again at once, without.
            if let Some(upstream) = self.upstreams.get_mut(attempt.upstream) {
                upstream.speaks_edns = false;
            }
            self.end_attempt(index, attempt);
            self.ask(now, index, attempt.upstream, effects);
            return;
        }
        if !matches!(code, rcode::NOERROR | rcode::NXDOMAIN) {
            self.attempt_failed(now, index, attempt, code, effects);
            return;
        }
        let trusted = self
            .upstreams
            .get(attempt.upstream)
            .is_some_and(|upstream| upstream.config.trusted);
        answer.head.authentic_data &= trusted;
        if answer.head.ttl_secs > 0 {
            self.keep(index, &answer);
        }
        self.reply_all(index, &answer, effects);
        self.tables.pending.remove(index);
    }

    /// Puts the digested answer into the cache.
    fn keep(&mut self, index: u16, answer: &Answer) {
        let Some(pending) = self.tables.pending.get(index) else {
            return;
        };
        let body = &self.tables.template[answer.body_at..answer.body_end];
        let inserted = self.cache.with_shard(pending.hash, |shard| {
            shard.insert(pending.hash, &pending.key(), &answer.head, body)
        });
        match inserted {
            Inserted::Added | Inserted::Replaced => self.counters.count(Counter::CacheInserts),
            Inserted::Evicted => {
                self.counters.count(Counter::CacheInserts);
                self.counters.count(Counter::CacheEvictions);
            }
            Inserted::TooLarge => {}
        }
    }

    /// Gives the digested answer to everyone who waits.
    fn reply_all(&mut self, index: u16, answer: &Answer, effects: &mut impl Effects<R>) {
        let opt_code = answer.head.ede;
        while let Some(waiter) = self.tables.pending.pop_waiter(index) {
            let Some(pending) = self.tables.pending.get(index) else {
                return;
            };
            let body = &self.tables.template[answer.body_at..answer.body_end];
            let mut head = answer.head;
            head.authoritative = false;
            let extra = if answer.truncated { flag::TC } else { 0 };
            let reply = waiter_reply(&waiter, &head, Ttl::Aged(0), opt_code, extra);
            let (len, truncated) = render_for(
                &mut self.tables.reply,
                pending,
                &waiter,
                &head,
                body,
                &reply,
            );
            if truncated || answer.truncated {
                self.counters.count(Counter::TruncatedGiven);
            }
            effects.reply(&waiter.route, &self.tables.reply[..len]);
        }
    }

    /// Gives everyone who waits the stale answer. Whether there was one.
    fn reply_stale(&mut self, now: Instant, index: u16, effects: &mut impl Effects<R>) -> bool {
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

    /// One upstream answered, but not usefully: the next one is asked, or the failure is passed on.
    fn attempt_failed(
        &mut self,
        now: Instant,
        index: u16,
        attempt: &Attempt,
        code: u8,
        effects: &mut impl Effects<R>,
    ) {
        self.end_attempt(index, attempt);
        let failure = self.tables.pending.update(index, |pending| {
            pending.failure = Some(pending.failure.unwrap_or(code));
            (pending.group, pending.tried, pending.has_live_attempt())
        });
        let Some((group, tried, waiting)) = failure else {
            return;
        };
        let untried = self
            .upstreams
            .pick(group, tried, now)
            .is_some_and(|next| tried & (1 << next) == 0);
        if untried {
            self.counters.count(Counter::UpstreamRetries);
            self.ask_next(now, index, effects);
        } else if !waiting {
            self.fail(now, index, ede::NONE, effects);
        }
    }

    fn end_attempt(&mut self, index: u16, ended: &Attempt) {
        self.tables.pending.update(index, |pending| {
            for attempt in &mut pending.attempts {
                attempt.live &= !(attempt.socket == ended.socket && attempt.id == ended.id);
            }
        });
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

    /// Does what is due at `now`.
    pub fn timeout(&mut self, now: Instant, effects: &mut impl Effects<R>) {
        // Bound: every question that is due gets a later deadline or ends.
        while let Some(index) = self.tables.pending.due(now) {
            let Some(pending) = self.tables.pending.get(index) else {
                return;
            };
            let (give_up, stale_at) = (pending.give_up, pending.stale_at);
            if give_up <= now {
                self.note_timeouts(now, index);
                self.fail(now, index, ede::NO_REACHABLE_AUTHORITY, effects);
            } else if stale_at <= now {
                self.reply_stale(now, index, effects);
                self.tables
                    .pending
                    .update(index, |pending| pending.stale_at = Instant::FAR_FUTURE);
            } else {
                self.note_timeouts(now, index);
                self.counters.count(Counter::UpstreamRetries);
                self.ask_next(now, index, effects);
            }
        }
    }

    /// Counts the last attempt as a timeout of its upstream. Its answer is still taken if it comes.
    fn note_timeouts(&mut self, now: Instant, index: u16) {
        let Some(last) = self
            .tables
            .pending
            .get(index)
            .and_then(|pending| pending.attempts.last())
        else {
            return;
        };
        if last.live {
            self.counters.count(Counter::UpstreamTimeouts);
            self.upstreams.timed_out(last.upstream, now);
        }
    }

    /// Asks the next upstream and sets the time at which the one after it is asked.
    pub(super) fn ask_next(&mut self, now: Instant, index: u16, effects: &mut impl Effects<R>) {
        let Some(pending) = self.tables.pending.get(index) else {
            return;
        };
        let next = if pending.attempts.is_full() {
            None
        } else {
            self.upstreams.pick(pending.group, pending.tried, now)
        };
        match next {
            Some(upstream) => self.ask(now, index, upstream, effects),
            // Nobody left to ask: wait for those who were asked.
            None => {
                self.tables
                    .pending
                    .update(index, |pending| pending.next_try = Instant::FAR_FUTURE);
            }
        }
    }

    fn ask(&mut self, now: Instant, index: u16, upstream: u8, effects: &mut impl Effects<R>) {
        let Some(server) = self.upstreams.get(upstream) else {
            return;
        };
        let (address, edns, retry_ms) =
            (server.config.address, server.speaks_edns, server.retry_ms());
        let sent = self.begin_attempt(now, index, upstream, edns, effects);
        let mut message = [0; ASK_MAX];
        let went_out = sent.is_some_and(|attempt| {
            let pending = self
                .tables
                .pending
                .get(index)
                .expect("the attempt was noted in it");
            let len = write_question(&mut message, pending, &attempt);
            effects.ask(attempt.socket, address, &message[..len])
        });
        self.counters.count(if went_out {
            Counter::UpstreamQueries
        } else {
            Counter::UpstreamSendErrors
        });
        self.tables.pending.update(index, |pending| {
            // Each round over the same servers waits twice as long as the one before.
            let round = pending.attempts.len().saturating_sub(1).min(4);
            let wait_ms = if went_out {
                u64::from(retry_ms) << (round / 2)
            } else {
                1
            };
            pending.next_try = if pending.attempts.is_full() {
                Instant::FAR_FUTURE
            } else {
                now + wait_ms
            };
        });
    }

    /// Notes a transaction with a random ID and a random socket.
    fn begin_attempt(
        &mut self,
        now: Instant,
        index: u16,
        upstream: u8,
        edns: bool,
        effects: &mut impl Effects<R>,
    ) -> Option<Attempt> {
        for _ in 0..ID_TRIES {
            let random = effects.random();
            let socket = (random >> 16) % UPSTREAM_SOCKETS as u32;
            let attempt = Attempt {
                upstream,
                socket: socket as u16,
                id: random as u16,
                sent: now,
                live: true,
                edns,
            };
            if self.tables.pending.begin(index, attempt).is_ok() {
                return Some(attempt);
            }
        }
        None
    }
}

/// Whether `from` is the server that was asked. A scope ID only counts where one was configured.
fn same_endpoint(asked: SocketAddr, from: SocketAddr) -> bool {
    asked.ip() == from.ip() && asked.port() == from.port()
}

/// Writes the question for an upstream: RD set, CD as the client had it, EDNS with DO as the client had it.
fn write_question(message: &mut [u8; ASK_MAX], pending: &Pending, attempt: &Attempt) -> usize {
    let mut writer = Writer::new(message);
    writer
        .question(pending.name.as_wire(), pending.qtype, class::IN)
        .expect("ASK_MAX holds the longest name");
    let mut end = writer.position();
    if attempt.edns {
        let opt = OptReply {
            dnssec_ok: pending.dnssec_ok,
            ..OptReply::default()
        };
        end = opt.emit(message, end).expect("ASK_MAX holds an OPT record");
    }
    let header = Header {
        id: attempt.id,
        flags: flag::RD
            | if pending.checking_disabled {
                flag::CD
            } else {
                0
            },
        counts: [1, 0, 0, u16::from(attempt.edns)],
    };
    header.emit(message).expect("ASK_MAX holds a header");
    end
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

const _: () = assert!(ASK_MAX <= UDP_MESSAGE_MAX);
