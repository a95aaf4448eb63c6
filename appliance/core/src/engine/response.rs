//! From an upstream's answer, or its silence, to what is done about it.

use super::{CacheAccess, Effects, Engine, Notice, Turn};
use crate::cache::{Head, Inserted};
use crate::counters::Counter;
use crate::dns::answer::{Answer, Asked, ResponseError, digest};
use crate::dns::build::Writer;
use crate::dns::edns::ede;
use crate::dns::header::{HEADER_LEN, Header};
use crate::dns::record::Records;
use crate::dns::{Name, class, rcode, rtype};
use crate::forward::pending::{Attempt, Pending};
use crate::limits::UPSTREAM_SOCKETS;
use crate::policy::rebind::Finding;
use crate::policy::special::SOA_TAIL;
use crate::policy::{BlockRecord, Labels, Policy};
use crate::time::Instant;
use core::net::SocketAddr;

impl<R: Copy + PartialEq, C: CacheAccess> Engine<'_, R, C> {
    /// Takes what came from `from` on the upstream socket or stream `socket`.
    pub fn response(
        &mut self,
        turn: &Turn<'_>,
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
        let mut sent = pending.name;
        if attempt.random_case {
            sent = sent.with_case(|wire| pending.sent_case.apply(wire));
        }
        let asked = Asked {
            name: &pending.name,
            qtype: pending.qtype,
            dnssec_ok: pending.dnssec_ok,
        };
        let bounds = &self.settings.ttl;
        let digested = digest(message, &asked, bounds, turn.now, &mut self.tables.template);
        match digested {
            Err(ResponseError::Foreign) => self.counters.count(Counter::UpstreamSpoofed),
            Err(ResponseError::Malformed) => {
                self.counters.count(Counter::UpstreamMalformed);
                self.attempt_failed(turn.now, index, &attempt, rcode::SERVFAIL, effects);
            }
            Ok(_) if attempt.random_case && !repeats_case(message, &sent) => {
                self.case_lost(turn.now, index, &attempt, effects);
            }
            Ok(answer) => {
                self.counters.count(Counter::UpstreamAnswers);
                let rtt_ms = turn.now.millis_since(attempt.sent);
                self.upstreams.answered(attempt.upstream, rtt_ms);
                self.accept(turn, index, &attempt, answer, effects);
            }
        }
    }

    /// The stream `socket` ended without an answer.
    pub fn lost(&mut self, now: Instant, socket: u16, effects: &mut impl Effects<R>) {
        let found = self.tables.pending.by_socket(socket);
        if let Some((index, attempt)) = found {
            self.upstreams.timed_out(attempt.upstream, now);
            self.attempt_failed(now, index, &attempt, rcode::SERVFAIL, effects);
        }
    }

    /// The letter case did not come back: the answer may be forged, or the server loses the case. A stream cannot be
    /// forged from aside, so it is asked there.
    fn case_lost(
        &mut self,
        now: Instant,
        index: u16,
        attempt: &Attempt,
        effects: &mut impl Effects<R>,
    ) {
        if is_stream(attempt.socket) {
            return;
        }
        self.counters.count(Counter::UpstreamSpoofed);
        if let Some(upstream) = self.upstreams.get_mut(attempt.upstream) {
            upstream.keeps_case = false;
        }
        self.end_attempt(index, attempt);
        if !self.ask_stream(now, index, attempt.upstream, effects) {
            self.ask(now, index, attempt.upstream, effects);
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

    /// An answer to our question: it helps, or somebody else is asked.
    fn accept(
        &mut self,
        turn: &Turn<'_>,
        index: u16,
        attempt: &Attempt,
        mut answer: Answer,
        effects: &mut impl Effects<R>,
    ) {
        let code = answer.head.rcode;
        let now = turn.now;
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
        if answer.truncated && !is_stream(attempt.socket) {
            self.end_attempt(index, attempt);
            // RFC 7766 section 5. Without a free stream those who wait get what there is, and TC.
            if self.ask_stream(now, index, attempt.upstream, effects) {
                return;
            }
        }
        let trusted = self
            .upstreams
            .get(attempt.upstream)
            .is_some_and(|upstream| upstream.config.trusted);
        answer.head.authentic_data &= trusted;
        self.withhold(turn, index, &mut answer, effects);
        if answer.head.ttl_secs > 0 {
            self.keep(index, &answer);
        }
        self.reply_all(index, &answer, effects);
        self.tables.pending.remove(index);
    }

    /// Replaces an answer that leads to a blocked name, or to a private address, by one that does not.
    fn withhold(
        &mut self,
        turn: &Turn<'_>,
        index: u16,
        answer: &mut Answer,
        effects: &mut impl Effects<R>,
    ) {
        let Some(pending) = self.tables.pending.get(index) else {
            return;
        };
        let policy = turn.policy;
        let message = &self.tables.template[..answer.body_end];
        let record = match verdict(policy, pending, message, answer) {
            Verdict::Pass => return,
            Verdict::Blocked => {
                self.counters.count(Counter::Blocked);
                policy.block_answer.record(pending.qtype)
            }
            Verdict::Rebind => {
                self.counters.count(Counter::RebindWithheld);
                effects.notice(Notice::Rebind, &pending.name);
                BlockRecord::Nodata
            }
        };
        let (name, qtype) = (pending.name, pending.qtype);
        let ttl_secs = policy.block_ttl_secs.min(answer.head.ttl_secs);
        let mut writer = Writer::new(&mut self.tables.template);
        writer
            .question(name.as_wire(), qtype, class::IN)
            .expect("the template holds the longest name");
        let mut head = Head {
            stored: answer.head.stored,
            ttl_secs,
            ede: ede::BLOCKED,
            ..Head::EMPTY
        };
        let written = match record {
            BlockRecord::A(address) => {
                head.answers = 1;
                writer.record(name.as_wire(), rtype::A, ttl_secs, &address)
            }
            BlockRecord::Aaaa(address) => {
                head.answers = 1;
                writer.record(name.as_wire(), rtype::AAAA, ttl_secs, &address)
            }
            BlockRecord::Nodata | BlockRecord::Nxdomain => {
                head.authorities = 1;
                writer.soa(name.as_wire(), ttl_secs, SOA_TAIL)
            }
        };
        written.expect("the template holds a name and one record");
        if record == BlockRecord::Nxdomain {
            head.rcode = rcode::NXDOMAIN;
        }
        answer.body_end = writer.position();
        answer.truncated = false;
        answer.head = head;
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
}

/// Whether `from` is the server that was asked. A scope ID only counts where one was configured.
fn same_endpoint(asked: SocketAddr, from: SocketAddr) -> bool {
    asked.ip() == from.ip() && asked.port() == from.port()
}

/// Whether the number names a stream.
pub(super) const fn is_stream(socket: u16) -> bool {
    socket as usize >= UPSTREAM_SOCKETS
}

/// Whether the question came back letter by letter as it was sent.
fn repeats_case(message: &[u8], sent: &Name) -> bool {
    let without_question = Header::parse(message).is_some_and(|header| header.counts[0] == 0);
    without_question
        || message
            .get(HEADER_LEN..)
            .is_some_and(|rest| rest.starts_with(sent.as_wire()))
}

/// What policy says of an answer from upstream.
enum Verdict {
    Pass,
    Blocked,
    Rebind,
}

/// Looks at every answer record of the digested `message`: where its CNAMEs lead, and its addresses.
fn verdict(policy: &Policy<'_>, pending: &Pending, message: &[u8], answer: &Answer) -> Verdict {
    let Some(qname) = Labels::new(pending.name.as_wire()) else {
        return Verdict::Pass;
    };
    let lists = !policy.lists.as_slice().is_empty();
    let rebind = policy.rebind.guards(&qname);
    if !lists && !rebind {
        return Verdict::Pass;
    }
    let records = Records::new(message, answer.body_at, usize::from(answer.head.answers));
    for record in records.flatten() {
        if rebind {
            match policy
                .rebind
                .inspect(record.rtype, &message[record.rdata()])
            {
                Finding::Harmless => {}
                Finding::Rebind(_) | Finding::Malformed => return Verdict::Rebind,
            }
        }
        if lists && record.rtype == rtype::CNAME {
            let target = Name::parse(message, record.rdata_at).map(|(name, _)| name.to_lower());
            let blocked = target.is_ok_and(|target| {
                Labels::new(target.as_wire())
                    .is_some_and(|name| policy.lists.blocked(&name).is_some())
            });
            if blocked {
                return Verdict::Blocked;
            }
        }
    }
    Verdict::Pass
}
