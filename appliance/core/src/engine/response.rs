//! From an upstream's answer, or its silence, to what is done about it.

use super::ask::STREAM_WAIT_MS;
use super::local::Draft;
use super::no_name::note_existence;
use super::{CacheAccess, Effects, Engine, Notice, Turn};
use crate::answer::{Answer, Asked, Head, Key, Led, ResponseError, sanitize};
use crate::cache::{Found, Inserted};
use crate::counters::Counter;
use crate::dns::build::Writer;
use crate::dns::edns::ede;
use crate::dns::header::{HEADER_LEN, Header};
use crate::dns::record::{Record, Records};
use crate::dns::{Name, class, rcode, rtype};
use crate::forward::pending::{Attempt, Pending};
use crate::forward::upstreams::Upstream;
use crate::forward::via::Origin;
use crate::policy::rebind::Finding;
use crate::policy::{BlockRecord, Blocked, Labels, Policy};
use crate::time::Instant;

/// For how long it is known of an answer that it is longer than a slot of the cache.
const TOO_LARGE_TTL_SECS: u32 = 60;
impl<R: Copy + PartialEq, C: CacheAccess> Engine<'_, R, C> {
    /// Takes what came from an upstream, or pretends to.
    pub fn response(
        &mut self,
        turn: &Turn<'_>,
        origin: Origin,
        message: &[u8],
        effects: &mut impl Effects<R>,
    ) {
        let id = Header::parse(message).map(|header| header.id);
        let found = self.attempt_of(origin.via, origin.question);
        let is_asked = |attempt: &Attempt| {
            let upstream = self.upstreams.get(attempt.upstream);
            upstream.is_some_and(|upstream| upstream.config.is_at(origin.from))
        };
        let found = found.filter(|(_, attempt)| attempt.live && is_asked(attempt));
        let Some((index, attempt)) = found else {
            return self.not_awaited(turn.now, origin, id, effects);
        };
        if id != Some(attempt.id) {
            return self.forged(turn, index, &attempt, effects);
        }
        let Some(pending) = self.tables.pending.get(index) else {
            return;
        };
        let Some(mut sent) = self.tables.pending.asked_name(index).copied() else {
            return;
        };
        let target = sent;
        if attempt.random_case {
            sent = sent.with_case(|wire| pending.sent_case.apply(wire));
        }
        let asked = Asked {
            name: &target,
            qtype: pending.qtype,
            dnssec_ok: pending.dnssec_ok,
            led: self.tables.pending.chase(index).map(|chase| Led {
                qname: &pending.name,
                chain: &chase.chain,
            }),
        };
        let bounds = &self.settings.ttl;
        let sanitized = sanitize(message, &asked, bounds, turn.now, &mut self.tables.template);
        match sanitized {
            Err(ResponseError::Foreign) => self.forged(turn, index, &attempt, effects),
            Err(ResponseError::Malformed) => {
                self.counters.count(Counter::UpstreamMalformed);
                self.attempt_failed(turn, index, &attempt, rcode::SERVFAIL, effects);
            }
            Ok(_) if attempt.random_case && !repeats_case(message, &sent) => {
                self.case_lost(turn.now, index, &attempt, effects);
            }
            Ok(answer) => {
                self.counters.count(Counter::UpstreamAnswers);
                self.end_attempt(index, &attempt, effects);
                let rtt_ms = turn.now.millis_since(attempt.sent);
                self.upstreams.answered(attempt.upstream, rtt_ms, turn.now);
                self.note_abilities(turn.now, index, &attempt, &answer);
                self.accept(turn, index, &attempt, answer, effects);
            }
        }
    }

    /// The stream in `slot` ended without an answer.
    pub fn lost(&mut self, turn: &Turn<'_>, slot: u16, effects: &mut impl Effects<R>) {
        let Some((index, attempt)) = self.tables.pending.by_stream(slot) else {
            return;
        };
        self.note_timeout(turn.now, index, &attempt);
        let upstream = attempt.upstream;
        let only_lost_case = self.tables.pending.get(index).is_some_and(|pending| {
            let plain = |attempt: &Attempt| {
                attempt.upstream == upstream && !attempt.random_case && attempt.port().is_some()
            };
            pending.without_case & (1 << upstream) != 0 && !pending.attempts.iter().any(plain)
        });
        if only_lost_case && self.has_attempts_left(index) {
            self.end_attempt(index, &attempt, effects);
            self.ask(turn.now, index, upstream, effects);
        } else {
            self.attempt_failed(turn, index, &attempt, rcode::SERVFAIL, effects);
        }
    }

    /// Learns from an answer what the server understands. What one name is answered with is not enough to tell.
    fn note_abilities(&mut self, now: Instant, index: u16, attempt: &Attempt, answer: &Answer) {
        let Some(pending) = self.tables.pending.get(index) else {
            return;
        };
        let (upstream, question) = (attempt.upstream, pending.hash());
        if attempt.random_case {
            self.upstreams.repeated_case(upstream, true, question, now);
        }
        let fell_back = pending.without_edns & (1 << upstream) != 0;
        if answer.has_edns && attempt.edns {
            self.upstreams.spoke_edns(upstream, now);
        } else if fell_back && is_useful(answer.head.rcode) {
            if self.has_failed_with_edns(pending, upstream) {
                self.upstreams.lacked_edns(upstream, question, now);
            }
            self.upstreams.spoke_plain(upstream, attempt.sent);
        }
    }

    /// Whether it was because of EDNS that `upstream` did not help with this question: it said so, or was silent while it
    /// answered others.
    fn has_failed_with_edns(&self, pending: &Pending, upstream: u8) -> bool {
        let server = self.upstreams.get(upstream);
        let was_there = |sent| server.is_some_and(|server| server.was_there(sent));
        pending
            .attempts
            .iter()
            .filter(|attempt| attempt.upstream == upstream && attempt.edns)
            .any(|attempt| match (attempt.live, attempt.overdue) {
                (true, _) => was_there(attempt.sent),
                (false, is_lost) => !is_lost,
            })
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
        self.counters.count(Counter::UpstreamForged);
        let upstream = attempt.upstream;
        let hash = self.tables.pending.update(index, |pending| {
            pending.without_case |= 1 << upstream;
            pending.hash()
        });
        self.upstreams
            .repeated_case(upstream, false, hash.unwrap_or(0), now);
        self.end_attempt(index, attempt, effects);
        if !self.ask_stream(now, index, upstream, effects) {
            self.ask(now, index, upstream, effects);
        }
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
        if matches!(code, rcode::FORMERR | rcode::NOTIMP)
            && attempt.edns
            && self.has_attempts_left(index)
        {
            self.ask_without_edns(now, index, attempt, effects);
            return;
        }
        if answer.is_referral || answer.truncated && attempt.is_stream() {
            // Whoever says who else may know is no resolver for this name; or cannot say what it knows.
            self.attempt_failed(turn, index, attempt, rcode::SERVFAIL, effects);
            return;
        }
        if !is_useful(code) {
            self.tables.pending.update(index, |pending| {
                if answer.head.ede != ede::NONE {
                    pending.failure_ede = answer.head.ede;
                }
            });
            self.attempt_failed(turn, index, attempt, code, effects);
            return;
        }
        if answer.truncated {
            // RFC 7766 section 5. Without a free stream those who wait for a datagram get what there is, and TC.
            if self.ask_stream(now, index, attempt.upstream, effects) {
                return;
            }
        }
        let trusted = self
            .upstreams
            .get(attempt.upstream)
            .is_some_and(|upstream| upstream.config.trusted);
        answer.head.authentic_data &= trusted;
        if answer.is_cut && self.follow(turn, index, &answer, effects) {
            return;
        }
        self.withhold(turn, index, &mut answer, effects);
        self.keep(index, &answer);
        let is_cut = answer.truncated;
        self.reply_all(turn, index, &answer, is_cut, effects);
        if is_cut && self.has_waiters(index) {
            self.wait_for_stream(now, index);
        } else {
            self.end(now, index, effects);
        }
    }

    /// Clients on streams get whole answers: they wait until a stream to the upstream is free.
    fn wait_for_stream(&mut self, now: Instant, index: u16) {
        self.tables.pending.update(index, |pending| {
            pending.by_stream = true;
            pending.next_try = now + STREAM_WAIT_MS;
        });
    }

    /// RFC 6891 section 7: the server may not know EDNS. It is asked again at once, without.
    fn ask_without_edns(
        &mut self,
        now: Instant,
        index: u16,
        attempt: &Attempt,
        effects: &mut impl Effects<R>,
    ) {
        let upstream = attempt.upstream;
        self.tables
            .pending
            .update(index, |pending| pending.without_edns |= 1 << upstream);
        if !attempt.is_stream() || !self.ask_stream(now, index, upstream, effects) {
            self.ask(now, index, upstream, effects);
        }
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
        let answers = usize::from(answer.head.answers);
        let qname = pending.name.as_wire();
        let record = match verdict(
            policy,
            (qname, pending.qtype),
            message,
            answer.body_at,
            answers,
        ) {
            Verdict::Pass => return,
            Verdict::Blocked(blocked) => {
                self.counters.count(Counter::Blocked);
                policy.block_record(blocked, pending.qtype)
            }
            Verdict::Rebind => {
                self.counters.count(Counter::RebindWithheld);
                effects.notice(Notice::Rebind, &pending.name);
                BlockRecord::Nodata
            }
        };
        let ttl_secs = policy.block_ttl_secs;
        let (name, template) = (pending.name.as_wire(), &mut self.tables.template);
        let drafted = Draft::new(template, name, pending.qtype, class::IN).and_then(|mut draft| {
            draft.blocked(name, record, ttl_secs)?;
            Ok((draft.head, draft.writer.position()))
        });
        let (head, body_end) = drafted.expect("the template holds a name and one record");
        answer.body_end = body_end;
        answer.truncated = false;
        answer.head = Head {
            stored: answer.head.stored,
            authoritative: false,
            ttl_secs,
            ede: ede::BLOCKED,
            ..head
        };
    }

    /// Looks again at an answer that was kept under another policy. It stays where this one would keep it, too, and is
    /// forgotten where it withholds it, or would have asked somebody else, or where the other one had withheld it.
    /// `is_decided`: this policy has let the question through, so the answer is one of its own from now on.
    #[cold]
    pub(super) fn judge_again(
        &mut self,
        policy: &Policy<'_>,
        hash: u64,
        key: &Key<'_>,
        group: u8,
        is_decided: bool,
    ) {
        let template = &mut self.tables.template;
        self.cache.with_shard(hash, |shard| {
            let Some(Found { head, body }) = shard.find(hash, key) else {
                return;
            };
            if head.generation == policy.generation {
                return;
            }
            let is_of_group = head.group == group || head.group == Head::ANY_GROUP;
            let was_withheld = head.ede == ede::BLOCKED;
            if !is_of_group || was_withheld || !passes(policy, key, &head, body, template) {
                shard.remove(hash, key);
            } else if is_decided {
                shard.amend(hash, key, |head| head.generation = policy.generation);
            }
        });
    }

    /// Puts the digested answer into the cache; for one that is longer than a slot, the mark that it is.
    fn keep(&mut self, index: u16, answer: &Answer) {
        let Some(pending) = self.tables.pending.get(index) else {
            return;
        };
        let body = &self.tables.template[answer.body_at..answer.body_end];
        let (name_hash, key) = (pending.name_hash, pending.key());
        let hash = key.hash_under(name_hash);
        let mark_secs = self.settings.ttl.negative_max_secs;
        let head = Head {
            // Another policy has not decided about the question yet: it will, before the answer is given again.
            generation: pending.generation,
            // A chase may have led to several.
            group: match pending.chase {
                None => pending.group,
                Some(_) => Head::ANY_GROUP,
            },
            ..answer.head
        };
        let inserted = self.cache.with_shard(hash, |shard| {
            note_existence(shard, name_hash, &key, (&head, body), mark_secs);
            if head.ttl_secs == 0 {
                return Inserted::TooLarge;
            }
            let inserted = shard.insert(hash, &key, &head, body);
            if inserted == Inserted::TooLarge {
                shard.insert(hash, &key, &too_large(&head), &[])
            } else {
                inserted
            }
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
    pub(super) fn attempt_failed(
        &mut self,
        turn: &Turn<'_>,
        index: u16,
        attempt: &Attempt,
        code: u8,
        effects: &mut impl Effects<R>,
    ) {
        self.end_attempt(index, attempt, effects);
        let failure = self.tables.pending.update(index, |pending| {
            pending.failure = Some(pending.failure.unwrap_or(code));
            (pending.group, pending.tried, pending.has_live_attempt())
        });
        let Some((group, tried, waiting)) = failure else {
            return;
        };
        let untried = self
            .upstreams
            .pick(group, tried)
            .is_some_and(|next| tried & (1 << next) == 0);
        if untried && self.has_attempts_left(index) {
            self.counters.count(Counter::UpstreamRetries);
            self.ask_next(turn.now, index, effects);
        } else if !waiting {
            self.fail(turn, index, ede::NONE, effects);
        }
    }

    fn has_waiters(&self, index: u16) -> bool {
        let pending = self.tables.pending.get(index);
        pending.is_some_and(|pending| pending.first_waiter.is_some())
    }

    pub(super) fn has_attempts_left(&self, index: u16) -> bool {
        let pending = self.tables.pending.get(index);
        pending.is_some_and(|pending| !pending.attempts.is_full())
    }

    /// Does what is due at `turn.now`.
    pub fn timeout(&mut self, turn: &Turn<'_>, effects: &mut impl Effects<R>) {
        let now = turn.now;
        while let Some(port) = self.tables.pending.linger_no_longer(now) {
            effects.close_port(port);
        }
        // Bound: every question that is due gets a later deadline or ends.
        while let Some(index) = self.tables.pending.due(now) {
            let Some(pending) = self.tables.pending.get(index) else {
                return;
            };
            let (give_up, stale_at) = (pending.give_up, pending.stale_at);
            if give_up <= now {
                self.note_timeouts(now, index);
                self.fail(turn, index, ede::NO_REACHABLE_AUTHORITY, effects);
            } else if stale_at <= now {
                self.reply_stale(turn, index, effects);
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

    /// Counts as timeouts the attempts that take longer than their upstream usually does. Their answers are still taken
    /// if they come.
    fn note_timeouts(&mut self, now: Instant, index: u16) {
        let Some(pending) = self.tables.pending.get(index) else {
            return;
        };
        for attempt in pending.attempts.clone() {
            let usual_ms = self.upstreams.get(attempt.upstream).map(Upstream::retry_ms);
            let is_over =
                usual_ms.is_some_and(|ms| now.millis_since(attempt.sent) >= u64::from(ms));
            if attempt.live && !attempt.overdue && is_over {
                self.note_timeout(now, index, &attempt);
            }
        }
    }

    pub(super) fn note_timeout(&mut self, now: Instant, index: u16, overdue: &Attempt) {
        self.counters.count(Counter::UpstreamTimeouts);
        let hash = self.tables.pending.update(index, |pending| {
            for attempt in &mut pending.attempts {
                attempt.overdue |= attempt.via == overdue.via && attempt.id == overdue.id;
            }
            pending.hash()
        });
        if let Some(hash) = hash {
            self.upstreams.timed_out(overdue.upstream, hash, now);
        }
    }
}

/// Whether an answer with this code says something about the name.
const fn is_useful(code: u8) -> bool {
    matches!(code, rcode::NOERROR | rcode::NXDOMAIN | rcode::YXDOMAIN)
}

/// What is kept of an answer that is longer than a slot: UDP clients get TC at once, the others are answered in full by
/// an upstream, over a stream.
fn too_large(head: &Head) -> Head {
    Head {
        ttl_secs: head.ttl_secs.min(TOO_LARGE_TTL_SECS),
        stored: head.stored,
        generation: head.generation,
        group: head.group,
        ..Head::EMPTY
    }
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
    Blocked(Blocked),
    Rebind,
}

/// Whether the names in an answer are looked up in the lists: not where a list allows the name that was asked for.
fn is_listed(policy: &Policy<'_>, qname: &Labels<'_>, qtype: u16) -> bool {
    !policy.lists.as_slice().is_empty() && !policy.lists.allows(qname, qtype)
}

/// Whether policy finds nothing to withhold in a kept answer.
fn passes(
    policy: &Policy<'_>,
    key: &Key<'_>,
    head: &Head,
    body: &[u8],
    template: &mut [u8],
) -> bool {
    let mut writer = Writer::new(template);
    if writer.question(key.name, key.qtype, class::IN).is_err() {
        return false;
    }
    let body_at = writer.position();
    let Some(place) = template.get_mut(body_at..body_at + body.len()) else {
        return false;
    };
    place.copy_from_slice(body);
    let answers = usize::from(head.answers);
    matches!(
        verdict(policy, (key.name, key.qtype), template, body_at, answers),
        Verdict::Pass
    )
}

/// Looks at every answer record of the digested `message` for a question: where it leads, and its addresses.
fn verdict(
    policy: &Policy<'_>,
    (qname, qtype): (&[u8], u16),
    message: &[u8],
    body_at: usize,
    answers: usize,
) -> Verdict {
    let Some(qname) = Labels::new(qname) else {
        return Verdict::Pass;
    };
    let lists = is_listed(policy, &qname, qtype);
    let rebind = policy.rebind.guards(&qname);
    if !lists && !rebind {
        return Verdict::Pass;
    }
    for record in Records::new(message, body_at, answers).flatten() {
        if rebind {
            match policy
                .rebind
                .inspect(record.rtype, &message[record.rdata()])
            {
                Finding::Harmless => {}
                Finding::Rebind(_) | Finding::Malformed => return Verdict::Rebind,
            }
        }
        let led_to = leads_to(message, &record).filter(|_| lists);
        let blocked = led_to.and_then(|target| {
            let name = Labels::new(target.as_wire())?;
            policy.lists.blocked(&name, qtype)
        });
        if let Some(blocked) = blocked {
            return Verdict::Blocked(blocked);
        }
    }
    Verdict::Pass
}

/// The name to which a client goes on from this record, in lower case: an alias's, or that of a service (RFC 9460
/// section 2.1: AliasMode or not). The root is no name to go to.
fn leads_to(message: &[u8], record: &Record) -> Option<Name> {
    let at = match record.rtype {
        rtype::CNAME => record.rdata_at,
        rtype::SVCB | rtype::HTTPS => record.rdata_at + 2,
        _ => return None,
    };
    Some(Name::parse(message, at).ok()?.0.to_lower())
}
