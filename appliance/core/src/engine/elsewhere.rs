//! Questions that another engine asks already: its answer comes by way of the cache, which all engines share.

use super::deliver::Delivery;
use super::lookup::Freshness;
use super::{CacheAccess, Call, Effects, Engine};
use crate::answer::Ttl;
use crate::counters::Counter;
use crate::forward::question::{Event, Stage};
use crate::limits::PENDING;

impl<R: Copy + PartialEq, C: CacheAccess> Engine<'_, R, C> {
    /// Asks upstream for a question that was just taken on, or waits for the answer to the same question of another engine.
    pub(super) fn begin_unless_elsewhere<E: Effects<R>>(
        &mut self,
        call: &mut Call<'_, E>,
        index: u16,
    ) {
        if self.claim(index) || !self.waits_elsewhere(index) {
            return self.begin(call, index);
        }
        self.counters.count(Counter::AskedElsewhere);
        // In case that it is asked here after all.
        self.draw_case(index, call.effects);
        self.go_on(call, index, Event::AskedElsewhere);
    }

    /// Puts the question into the table of all engines. False if there is none, or another engine asks it.
    pub(super) fn claim(&mut self, index: u16) -> bool {
        let Some((sharing, (question, _))) = self.sharing.zip(self.tables.pending.get_mut(index))
        else {
            return false;
        };
        if !question.is_claimed {
            question.is_claimed = sharing.in_flight.take(question.hash(), sharing.engine);
        }
        question.is_claimed
    }

    /// True if another engine asks this question, and will wake this one. A long answer is fetched here, for clients on
    /// streams: the cache does not hold it.
    fn waits_elsewhere(&self, index: u16) -> bool {
        let question = self.tables.pending.get(index);
        let question = question.filter(|question| question.stage != Stage::Fetching);
        let shared = self.sharing.zip(question);
        shared.is_some_and(|(sharing, question)| {
            sharing.in_flight.wait(question.hash(), sharing.engine)
        })
    }

    /// True if another engine asks the question with this hash.
    pub(super) fn is_asked_elsewhere(&self, hash: u64) -> bool {
        let sharing = self.sharing;
        sharing.is_some_and(|sharing| sharing.in_flight.is_asked(hash, sharing.engine))
    }

    /// Takes a question that ends out of the table of all engines, and wakes those that wait for it.
    pub(super) fn release(&self, index: u16, effects: &mut impl Effects<R>) {
        let question = self.tables.pending.get(index);
        let question = question.filter(|question| question.is_claimed);
        let Some((sharing, question)) = self.sharing.zip(question) else {
            return;
        };
        let waiting = sharing.in_flight.release(question.hash(), sharing.engine);
        if !waiting.is_empty() {
            effects.wake(waiting);
        }
    }

    /// Looks for answers to the questions that other engines have asked, after one of them has called [`Effects::wake`].
    pub fn look_again<E: Effects<R>>(&mut self, call: &mut Call<'_, E>) {
        for index in 0..PENDING as u16 {
            let question = self.tables.pending.get(index);
            let waits = question.filter(|question| question.stage == Stage::Elsewhere);
            if waits.is_some_and(|question| !self.is_asked_elsewhere(question.hash())) {
                self.take_from_cache(call, index);
            }
        }
    }

    /// Answers the waiting clients from the cache; asks upstream for those for whom it has nothing. A question waits once: an
    /// answer that is not cached would keep the last of several engines for as many rounds.
    fn take_from_cache<E: Effects<R>>(&mut self, call: &mut Call<'_, E>, index: u16) {
        let Some((head, kept, fresh)) = self.find_kept(call.context, index) else {
            return self.begin(call, index);
        };
        let (age_secs, is_long) = match fresh {
            Freshness::Fresh { age_secs, .. } => (age_secs, false),
            Freshness::TooLarge => (0, true),
            Freshness::Stale { .. } | Freshness::Expired => return self.begin(call, index),
        };
        let delivery = Delivery {
            is_long,
            ..Delivery::of_kept(&head, &kept, Ttl::Aged(age_secs), head.ede)
        };
        self.reply_each(call, index, &delivery, |waiter| !(is_long && waiter.is_tcp));
        let Some((question, _)) = self.tables.pending.get_mut(index) else {
            return;
        };
        if question.has_waiters() {
            question.stage = Stage::Fetching;
            self.begin(call, index);
        } else {
            self.end(call.context.now, index, call.effects);
        }
    }
}
