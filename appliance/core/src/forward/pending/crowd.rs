//! Where questions in flight pile up: under a domain, and at a group of servers, from any client.
//!
//! A flood of names that nobody answers may come from forged addresses, so that no client has many questions. But the
//! names stand below one domain, or a few. So no domain has more questions than there are places free, and the last places are
//! for domains with few. Likewise a group of servers that are silent leaves a part of the table to the others.

use super::super::zone::{DomainBuckets, ZONE_BUCKETS};
use super::PendingTable;
use crate::limits::{PENDING, STREAM_QUESTIONS, UPSTREAMS};
use core::cmp::Reverse;

/// So many questions any domain may have, however full the table is.
const FEW: usize = 4;
/// So many questions under one domain are a crowd, from any client.
const CROWD: usize = PENDING / 8;
/// A client has many questions from here on.
const MANY: u16 = 16;

/// How many questions are in flight under each domain, and for each group of servers.
#[derive(Debug)]
pub(super) struct Crowds {
    zones: [[u16; ZONE_BUCKETS]; 2],
    groups: [u16; UPSTREAMS],
}

impl Crowds {
    pub const fn new() -> Self {
        Self {
            zones: [[0; ZONE_BUCKETS]; 2],
            groups: [0; UPSTREAMS],
        }
    }

    pub fn enter(&mut self, zone: DomainBuckets, group: u8) {
        for (buckets, zone) in self.zones.iter_mut().zip(zone.buckets()) {
            buckets[usize::from(zone)] += 1;
        }
        self.enter_group(group);
    }

    pub fn leave(&mut self, zone: DomainBuckets, group: u8) {
        for (buckets, zone) in self.zones.iter_mut().zip(zone.buckets()) {
            buckets[usize::from(zone)] -= 1;
        }
        self.leave_group(group);
    }

    pub fn enter_group(&mut self, group: u8) {
        if let Some(held) = self.groups.get_mut(usize::from(group)) {
            *held += 1;
        }
    }

    pub fn leave_group(&mut self, group: u8) {
        if let Some(held) = self.groups.get_mut(usize::from(group)) {
            *held -= 1;
        }
    }

    /// Questions under the domain.
    pub fn in_zone(&self, zone: DomainBuckets) -> u16 {
        let [first, second] = &self.zones;
        first[usize::from(zone.buckets()[0])].min(second[usize::from(zone.buckets()[1])])
    }

    /// Questions under the domain, where they are a crowd.
    pub fn crowd_in_zone(&self, zone: DomainBuckets) -> u16 {
        let held = self.in_zone(zone);
        if usize::from(held) < CROWD { 0 } else { held }
    }
}

/// How many questions may be in flight. 0: as many as there are places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrowdLimits {
    /// Under one domain, and never more than places are free.
    pub zone: u16,
    /// For one group of servers, where there are several.
    pub group: u16,
}

impl CrowdLimits {
    /// What holds where the configuration is silent: half of the table, and three quarters of it.
    pub const DEFAULT: Self = Self {
        zone: (PENDING / 2) as u16,
        group: (PENDING / 4 * 3) as u16,
    };
}

impl<R: Copy + PartialEq> PendingTable<R> {
    /// Places that are free for questions to this group of servers; `has_others`: there are other groups, which have places too.
    #[must_use]
    pub fn room_of_group(&self, group: u8, has_others: bool, bounds: CrowdLimits) -> usize {
        let free = PENDING - self.len();
        if !has_others || bounds.group == 0 {
            return free;
        }
        let held = self.crowds.groups.get(usize::from(group)).copied();
        free.min(bounds.group.saturating_sub(held.unwrap_or(0)).into())
    }

    /// Whether another question for a new name under this domain is one too many, where so many places are free.
    #[must_use]
    pub fn is_crowded(&self, zone: DomainBuckets, free: usize, bounds: CrowdLimits) -> bool {
        let bound = usize::from(bounds.zone).min(free).max(FEW);
        bounds.zone != 0 && usize::from(self.crowds.in_zone(zone)) >= bound
    }

    /// Whether the question at `index` may have a place in a stream: the bucket of its client. While more than half of them are
    /// in use, a client that has a quarter of them gets no more: servers that are slow over TCP would hold up everybody's long
    /// answers.
    #[must_use]
    pub fn room_in_streams(&self, index: u16) -> Option<u8> {
        let bucket = self.questions.get(index)?.bucket;
        let (mut all, mut own) = (0, 0);
        for (_, other) in self.questions.iter() {
            let held = other.tries.live_streams();
            all += held;
            own += if other.bucket == bucket { held } else { 0 };
        }
        (all <= STREAM_QUESTIONS / 2 || own < STREAM_QUESTIONS / 4).then_some(bucket)
    }

    /// The question that makes room for another to its group of servers: the oldest of those clients that have the most.
    #[must_use]
    pub fn group_victim(&self, group: u8) -> Option<u16> {
        let of_group = self
            .questions
            .iter()
            .filter(|(_, question)| question.group == group);
        of_group
            .max_by_key(|(index, question)| {
                let held = self.held[usize::from(question.bucket)];
                (held, Reverse(self.ages[usize::from(*index)]))
            })
            .map(|(index, _)| index)
    }

    /// The question that makes room under a crowded domain for one of this client: the oldest of a client that has many, and
    /// more than four times as many.
    #[must_use]
    pub fn victim_for(&self, bucket: u8) -> Option<u16> {
        let own = self.held[usize::from(bucket)];
        let most = *self.held.iter().max()?;
        let is_unfair = most >= MANY && most / 4 > own;
        is_unfair.then(|| self.victim()).flatten()
    }
}
