//! Answers that need the answer to a sub-question, before the client gets one complete answer.
//!
//! The only case so far is an answer that ends in an alias, of upstream or of DNS64's making. A resolver follows aliases to their end (RFC 1034 section
//! 4.3.1); an upstream that is not a resolver, or that knows the alias alone, does not. Cache and policy treat the chain
//! like one answer.

use super::ask::CallerStep;
use super::{CacheAccess, Call, Effects, Engine, group_of};
use crate::answer::{CHAIN_PREFIX_BYTES, ChainPrefix, Response};
use crate::counters::Counter;
use crate::dns::edns::ede;
use crate::dns::{Name, rtype};
use crate::forward::pending::{SubKind, SubQuestion};
use crate::forward::question::{Event, STEPS_MAX};
use heapless::Vec;

impl<R: Copy + PartialEq, C: CacheAccess> Engine<'_, R, C> {
    /// Asks for the target of the alias at the end of `response`. Returns true if the question goes on or has failed. If
    /// false, the client gets the answer as it is: policy does not forward the target, which the extended error says, or the
    /// chain is too long to keep.
    pub(super) fn follow<E: Effects<R>>(
        &mut self,
        call: &mut Call<'_, E>,
        index: u16,
        response: &mut Response<'_>,
    ) -> bool {
        let pending = &self.tables.pending;
        let Some(question) = pending.get(index) else {
            return false;
        };
        // Counted over the whole chain, so that a loop ends.
        let steps = 1 + pending.sub(index).map_or(0, |sub| sub.steps);
        let Some(name) = last_target(response) else {
            return false;
        };
        let policy = call.context.of_view(question.view).policy;
        let Some(group) = group_of(policy, &name, question.asked_type()) else {
            // What policy has for the target is withheld, as a private address is.
            response.head.ede = ede::BLOCKED;
            return false;
        };
        let prefix = chain_prefix(response);
        if prefix.is_none() && steps <= STEPS_MAX {
            return false;
        }
        let rest = self.advance(call, index, Event::Incomplete { steps });
        if let (CallerStep::Ask, Some(prefix)) = (rest, prefix) {
            let sub = SubQuestion {
                name,
                steps,
                kind: SubKind::Alias(prefix),
            };
            self.ask_sub(call, index, &sub, group);
        }
        true
    }

    /// Asks `sub` in place of the question itself. If all places are taken, the oldest such question of the client with the
    /// most questions ends.
    pub(super) fn ask_sub<E: Effects<R>>(
        &mut self,
        call: &mut Call<'_, E>,
        index: u16,
        sub: &SubQuestion,
        group: u8,
    ) {
        // Late answers to the question itself are useless: a later part of the chain is asked for.
        self.let_go(call.context.now, index, call.effects);
        if !self.tables.pending.wait_for(index, sub, group) {
            self.counters.count(Counter::PendingFull);
            let victim = self.tables.pending.sub_victim();
            self.end_for_room(call, victim);
            if !self.tables.pending.wait_for(index, sub, group) {
                return self.go_on(call, index, Event::NoRoom);
            }
        }
        self.begin(call, index);
    }
}

/// Target of the last alias, in lower case.
fn last_target(response: &Response<'_>) -> Option<Name> {
    let aliases = response
        .records()
        .flatten()
        .filter(|record| record.rtype == rtype::CNAME);
    let (target, _) = Name::parse(response.message(), aliases.last()?.rdata_at).ok()?;
    Some(target.to_lower())
}

/// The answer section; `None` if it is longer than [`CHAIN_PREFIX_BYTES`].
fn chain_prefix(response: &Response<'_>) -> Option<ChainPrefix> {
    let start = response.body().start;
    let (mut end, mut ttl_secs) = (start, u32::MAX);
    for record in response.records().flatten() {
        end = record.end;
        ttl_secs = ttl_secs.min(record.ttl_secs);
    }
    let body: Vec<u8, CHAIN_PREFIX_BYTES> =
        Vec::from_slice(response.message().get(start..end)?).ok()?;
    Some(ChainPrefix {
        answers: response.head.answers,
        ttl_secs,
        authentic_data: response.head.authentic_data,
        body,
    })
}
