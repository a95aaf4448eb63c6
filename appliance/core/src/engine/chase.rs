//! Answers that end with an alias: its target is asked for, and the client gets one whole answer.
//!
//! A resolver follows aliases to their end (RFC 1034 section 4.3.1); an upstream that is no resolver, or that knows the
//! alias only, does not. The chain is cached and checked by policy as if it had come in one answer.

use super::{CacheAccess, Effects, Engine, Turn};
use crate::answer::{Answer, CHASE_BYTES, ChainStart};
use crate::counters::Counter;
use crate::dns::edns::ede;
use crate::dns::record::Records;
use crate::dns::{Name, rcode, rtype};
use crate::forward::pending::Chase;
use crate::policy::{Decision, Labels};
use heapless::Vec;

/// Targets that are asked for one after the other. A longer chain, or one that bites its tail, is a failure.
const STEPS_MAX: u8 = 8;

impl<R: Copy + PartialEq, C: CacheAccess> Engine<'_, R, C> {
    /// Asks for what the alias at the end of `answer` leads to. Whether the question goes on, or has failed; if not, the
    /// client gets the answer as it is: its target is nothing that upstream is asked for, or its chain is too long.
    pub(super) fn follow(
        &mut self,
        turn: &Turn<'_>,
        index: u16,
        answer: &Answer,
        effects: &mut impl Effects<R>,
    ) -> bool {
        let Some(pending) = self.tables.pending.get(index) else {
            return false;
        };
        let qtype = pending.qtype;
        let message = &self.tables.template[..answer.body_end];
        let Some(target) = last_target(message, answer) else {
            return false;
        };
        let decided = Labels::new(target.as_wire()).map(|name| turn.policy.decide(&name, qtype));
        let Some(Decision::Forward { group }) = decided else {
            return false;
        };
        let steps = 1 + self
            .tables
            .pending
            .chase(index)
            .map_or(0, |chase| chase.steps);
        if steps > STEPS_MAX {
            self.tables
                .pending
                .update(index, |pending| pending.failure = Some(rcode::SERVFAIL));
            self.fail(turn, index, ede::OTHER, effects);
            return true;
        }
        let Some(chain) = chain_start(message, answer) else {
            return false;
        };
        self.let_go(turn.now, index, effects);
        let chase = Chase {
            target,
            steps,
            chain,
        };
        if !self.take_place(turn, index, &chase, effects) {
            self.fail(turn, index, ede::NOT_READY, effects);
            return true;
        }
        self.tables
            .pending
            .update(index, |pending| pending.group = group as u8);
        self.ask_first(turn.now, index, effects);
        true
    }

    /// Notes the chain. All places are taken: the oldest chase of the client that has the most ends for it, as questions
    /// do. What stands in the template is lost then.
    fn take_place(
        &mut self,
        turn: &Turn<'_>,
        index: u16,
        chase: &Chase,
        effects: &mut impl Effects<R>,
    ) -> bool {
        if self.tables.pending.follow(index, chase) {
            return true;
        }
        self.counters.count(Counter::PendingFull);
        if let Some(victim) = self.tables.pending.chase_victim() {
            self.fail(turn, victim, ede::NOT_READY, effects);
        }
        self.tables.pending.follow(index, chase)
    }
}

/// The target of the last alias, in lower case.
fn last_target(message: &[u8], answer: &Answer) -> Option<Name> {
    let records = Records::new(message, answer.body_at, usize::from(answer.head.answers));
    let aliases = records
        .flatten()
        .filter(|record| record.rtype == rtype::CNAME);
    let (target, _) = Name::parse(message, aliases.last()?.rdata_at).ok()?;
    Some(target.to_lower())
}

/// The answer section. `None`: it is longer than [`CHASE_BYTES`].
fn chain_start(message: &[u8], answer: &Answer) -> Option<ChainStart> {
    let records = Records::new(message, answer.body_at, usize::from(answer.head.answers)).flatten();
    let (mut end, mut ttl_secs) = (answer.body_at, u32::MAX);
    for record in records {
        end = record.end;
        ttl_secs = ttl_secs.min(record.ttl_secs);
    }
    let body: Vec<u8, CHASE_BYTES> = Vec::from_slice(message.get(answer.body_at..end)?).ok()?;
    Some(ChainStart {
        answers: answer.head.answers,
        ttl_secs,
        authentic_data: answer.head.authentic_data,
        body,
    })
}
