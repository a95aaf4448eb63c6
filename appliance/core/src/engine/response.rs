//! Path of a response: from an upstream's message to the clients that wait for its answer.

use super::ask::CallerStep;
use super::nxdomain::note_existence;
use super::sets;
use super::{CacheAccess, Call, Context, Effects, Engine};
use crate::answer::{Answer, Expected, Head, Original, Response, ResponseError, sanitize};
use crate::cache::Inserted;
use crate::counters::Counter;
use crate::dns::header::{HEADER_LEN, Header};
use crate::dns::{Name, rcode};
use crate::forward::question::{Event, Failure, ServerTraits};
use crate::forward::tries::Attempt;
use crate::forward::upstreams::FailureKind;
use crate::forward::via::ResponseOrigin;
use crate::time::Instant;
use core::mem;

/// Longest TTL of a mark for an answer that is longer than a cache slot, in seconds.
const TOO_LARGE_TTL_SECS: u32 = 60;

impl<R: Copy + PartialEq, C: CacheAccess> Engine<'_, R, C> {
    /// Handles a message that comes from an upstream, or claims to.
    pub fn response<E: Effects<R>>(
        &mut self,
        call: &mut Call<'_, E>,
        origin: &ResponseOrigin,
        message: &mut [u8],
    ) {
        // An off-path attacker has to guess port and ID; the source address is checked first.
        let id = Header::parse(message).map(|header| header.id);
        let found = self.tables.pending.attempt_by(origin.via, origin.question);
        let is_asked = |attempt: &Attempt| {
            let upstream = self.upstreams.get(attempt.upstream);
            upstream.is_some_and(|upstream| upstream.config.is_at(origin.from))
        };
        let Some((index, attempt)) = found.filter(|(_, attempt)| is_asked(attempt)) else {
            return self.not_awaited(call, origin, id);
        };
        if id != Some(attempt.id) {
            return self.forged(call, index, &attempt);
        }
        let sent = self.sent_in_random_case(index, &attempt);
        let repeats_case = sent.as_ref().is_none_or(|sent| settle(message, sent));
        // Lent for this call, so that nothing overwrites the answer while it is in use.
        let scratch = mem::take(&mut self.scratch);
        match self.read(
            call.context.now,
            (index, sent.as_ref()),
            message,
            &mut *scratch,
        ) {
            Err(ResponseError::Foreign) => self.forged(call, index, &attempt),
            Err(ResponseError::Malformed) => {
                self.counters.count(Counter::UpstreamMalformed);
                let (server, now) = (attempt.upstream, call.context.now);
                self.upstreams.failed(server, FailureKind::Malformed, now);
                self.end_attempt(index, &attempt, call.effects);
                self.go_on(call, index, Event::Useless(Failure::SERVFAIL));
            }
            Ok(_) if !repeats_case => {
                self.counters.count(Counter::UpstreamForged);
                self.end_attempt(index, &attempt, call.effects);
                self.go_on(call, index, Event::WrongCase(attempt));
            }
            Ok(response) => {
                self.counters.count(Counter::UpstreamAnswers);
                self.end_attempt(index, &attempt, call.effects);
                self.accept(call, index, &attempt, response);
            }
        }
        self.scratch = scratch;
    }

    /// Reads a message as an answer to the question at this index, which was sent as `sent` if in random letter case.
    fn read<'t>(
        &self,
        now: Instant,
        (index, sent): (u16, Option<&Name>),
        message: &[u8],
        scratch: &'t mut [u8],
    ) -> Result<Response<'t>, ResponseError> {
        let pending = &self.tables.pending;
        let question = pending.get(index).ok_or(ResponseError::Foreign)?;
        let sub = pending.sub(index);
        let expected = Expected {
            name: sub.map_or(&question.name, |sub| &sub.name),
            qtype: question.asked_type(),
            dnssec_ok: question.dnssec_ok,
            sent,
            bounds: &self.settings.ttl,
            original: sub.map(|sub| Original {
                qname: &question.name,
                prefix: sub.prefix(),
            }),
        };
        sanitize(message, &expected, now, scratch)
    }

    /// Name as this attempt sent it; `None` if it was not in random letter case.
    fn sent_in_random_case(&self, index: u16, attempt: &Attempt) -> Option<Name> {
        let pending = &self.tables.pending;
        let (question, name) = (pending.get(index)?, pending.asked_name(index)?);
        let sent = || name.with_case(|wire| question.sent_case.apply(wire));
        attempt.random_case.then(sent)
    }

    /// Handles a response to our question: it is delivered, or the question goes on.
    fn accept<E: Effects<R>>(
        &mut self,
        call: &mut Call<'_, E>,
        index: u16,
        attempt: &Attempt,
        mut response: Response<'_>,
    ) {
        let (pending, mut question_context) = self.question_context(call.context.now);
        if let Some(question) = pending.get(index) {
            let seen = ServerTraits {
                has_edns: response.has_edns,
                is_useful: is_useful(response.head.rcode),
            };
            question.learn(attempt, seen, &mut question_context);
        }
        // After a failure, a referral or TC the question goes on or has ended already.
        if self.advance(call, index, event_of(attempt, &response)) != CallerStep::Deliver {
            return;
        }
        // First of all: AD counts only if the path to the server is trusted.
        let upstream = self.upstreams.get(attempt.upstream);
        let trusted = upstream.is_some_and(|upstream| upstream.config.trusted);
        response.head.authentic_data &= trusted;
        // Half a chain is not cached: the whole chain comes through here again.
        if response.ends_in_alias && self.follow(call, index, &mut response) {
            return;
        }
        // Filtered first, so that what policy withholds reaches neither cache nor clients.
        let is_withheld = self.filter(call, index, &mut response);
        if !is_withheld && self.translate(call, index, &mut response) {
            return;
        }
        self.keep(call.context, index, &response);
        self.reply_all(call, index, &response);
        // Clients on streams wait for the whole answer.
        let question = self.tables.pending.get(index);
        let others_wait = response.truncated && question.is_some_and(|one| one.has_waiters());
        self.go_on(call, index, Event::Delivered { others_wait });
    }

    /// Stores the answer in the cache, or a mark if it is longer than a slot.
    fn keep(&mut self, context: &Context<'_>, index: u16, response: &Response<'_>) {
        let Some(question) = self.tables.pending.get(index) else {
            return;
        };
        let key = question.key();
        let mark_secs = self.settings.ttl.negative_max_secs;
        let policy = context.of_view(question.view).policy;
        let has_sets = sets::sets_of(policy, question.name.as_wire(), &response.head).is_some();
        let head = Head {
            // If policy has changed meanwhile, the generation is an old one, and the answer is judged before it is given
            // again.
            generation: sets::marked(question.generation, has_sets),
            group: if question.is_of_many_groups {
                Head::MANY_GROUPS
            } else {
                question.group
            },
            translated: question.translated,
            ..response.head
        };
        let answer = Answer {
            head: &head,
            ..response.answer()
        };
        let inserted = self.cache.with_shard(key.hash(), |shard| {
            note_existence(shard, &key, &answer, mark_secs);
            if head.ttl_secs == 0 {
                return Inserted::TooLarge;
            }
            let inserted = shard.insert(&key, &answer);
            if inserted == Inserted::TooLarge {
                shard.insert(&key, &Answer::bare(&too_large(&head)))
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
}

/// The event that a response to `attempt` is to its question.
fn event_of(attempt: &Attempt, response: &Response<'_>) -> Event {
    let failure = Failure {
        rcode: response.head.rcode,
        ede: response.head.ede,
    };
    if attempt.edns && matches!(failure.rcode, rcode::FORMERR | rcode::NOTIMP) {
        return Event::NotUnderstood(*attempt, failure);
    }
    // Another server would give the same answer.
    if response.is_endless && is_useful(failure.rcode) {
        return Event::Endless;
    }
    // A referral, or TC over a stream: this server cannot answer.
    if response.is_referral || response.truncated && attempt.is_stream() {
        return Event::Useless(Failure::SERVFAIL);
    }
    if !is_useful(failure.rcode) {
        return Event::Useless(failure);
    }
    if response.truncated {
        Event::Truncated(*attempt)
    } else {
        Event::Answered
    }
}

/// True for an RCODE that says something about the name.
const fn is_useful(code: u8) -> bool {
    matches!(code, rcode::NOERROR | rcode::NXDOMAIN | rcode::YXDOMAIN)
}

/// Mark stored in place of an answer that is longer than a slot: UDP clients get TC at once; for others a stream to an
/// upstream fetches the whole answer.
fn too_large(head: &Head) -> Head {
    Head {
        ttl_secs: head.ttl_secs.min(TOO_LARGE_TTL_SECS),
        stored: head.stored,
        generation: head.generation,
        group: head.group,
        ..Head::EMPTY
    }
}

/// Returns true if the message has no question, or a question with the name exactly as it was sent. That name is changed to
/// lower case, because names of the answer are pointers to it.
fn settle(message: &mut [u8], sent: &Name) -> bool {
    if Header::parse(message).is_some_and(|header| header.counts[0] == 0) {
        return true;
    }
    let sent = sent.as_wire();
    match message.get_mut(HEADER_LEN..HEADER_LEN + sent.len()) {
        Some(place) if place == sent => {
            // Length bytes are at most 63, and letters begin at 65.
            place.make_ascii_lowercase();
            true
        }
        Some(_) | None => false,
    }
}
