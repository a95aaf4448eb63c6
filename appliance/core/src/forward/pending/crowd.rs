//! Crowding of questions in flight, under a domain and at a group of servers, from any client.
//!
//! A flood of names that nobody answers may come from forged addresses, so that no client has many questions. But its names
//! are below one domain, or a few. So a domain gets at most as many questions as places are free, which leaves the last
//! places to domains with few. Likewise a silent group of servers leaves a part of the table to the others.

use super::super::zone::{DomainBuckets, ZONE_BUCKETS};
use super::PendingTable;
use crate::limits::{PENDING, STREAM_QUESTIONS, UPSTREAMS};
use core::cmp::Reverse;

/// Questions that any domain may have, however full the table is, unless the configured bound is lower.
const FEW: usize = 4;
/// Questions under one domain, from any client, from which on they are a crowd.
const CROWD: usize = PENDING / 8;
/// Questions from which on a client has many.
const MANY: u16 = 16;

/// Numbers of questions in flight, by domain and by group of servers.
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

    /// Number of questions under the domain.
    pub fn in_zone(&self, zone: DomainBuckets) -> u16 {
        let [first, second] = &self.zones;
        first[usize::from(zone.buckets()[0])].min(second[usize::from(zone.buckets()[1])])
    }

    /// Number of questions under the domain; 0 below a crowd.
    pub fn crowd_in_zone(&self, zone: DomainBuckets) -> u16 {
        let held = self.in_zone(zone);
        if usize::from(held) < CROWD { 0 } else { held }
    }
}

/// Most questions in flight of a domain and of a group. 0: no limit but the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrowdLimits {
    /// Under one domain, and never more than places are free.
    pub zone: u16,
    /// For one group of servers, if there are several.
    pub group: u16,
}

impl CrowdLimits {
    /// Defaults of the configuration: half of the table, and three quarters of it.
    pub const DEFAULT: Self = Self {
        zone: (PENDING / 2) as u16,
        group: (PENDING / 4 * 3) as u16,
    };
}

impl<R: Copy + PartialEq> PendingTable<R> {
    /// Free places for questions to this group of servers. `has_others`: there are other groups, which have places too.
    #[must_use]
    pub fn room_of_group(&self, group: u8, has_others: bool, bounds: CrowdLimits) -> usize {
        let free = PENDING - self.len();
        if !has_others || bounds.group == 0 {
            return free;
        }
        let held = self.crowds.groups.get(usize::from(group)).copied();
        free.min(bounds.group.saturating_sub(held.unwrap_or(0)).into())
    }

    /// True if another question for a new name under this domain is too many, with `free` places left.
    #[must_use]
    pub fn is_crowded(&self, zone: DomainBuckets, free: usize, bounds: CrowdLimits) -> bool {
        let bound = usize::from(bounds.zone).min(free.max(FEW));
        bounds.zone != 0 && usize::from(self.crowds.in_zone(zone)) >= bound
    }

    /// Bucket of the client of the question at `index`, if that may have a place in a stream; else `None`. While more than
    /// half of the places are in use, a client that has a quarter of them gets no more: servers that are slow over TCP
    /// would hold up everybody's long answers.
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

    /// The question that ends for another to its group of servers: the oldest one of the clients with the most questions.
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

    /// The question that ends under a crowded domain for one of this client: the oldest of a client that has many, and more
    /// than four times as many as this client.
    #[must_use]
    pub fn victim_for(&self, bucket: u8) -> Option<u16> {
        let own = self.held[usize::from(bucket)];
        let most = *self.held.iter().max()?;
        let is_unfair = most >= MANY && most / 4 > own;
        is_unfair.then(|| self.victim()).flatten()
    }
}
