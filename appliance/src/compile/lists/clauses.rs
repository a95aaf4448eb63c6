//! Rules that do not fit a tag, with types, patterns or excluded names: how many of them fit a list.
//!
//! An image has room for [`CLAUSES_MAX`] of them, and for as many that take others back. Rules that do not fit are left out and
//! reported: a line by its number, and the total of those for names that have other rules as well.

use std::cmp::Reverse;
use std::collections::HashSet;

use xdnsd_core::policy::list::{CLAUSES_MAX, NAME_CLAUSES_MAX, TYPES_MAX, clause, tag};

use super::super::rules::{NotARule, Rule};
use super::{Entry, ListBuilder, Special};

/// Why a rule with options is skipped that does not fit.
pub(super) const NO_ROOM: NotARule = NotARule("more than 32768 rules with options");
const _: () = assert!(CLAUSES_MAX == 32_768, "as it says");

impl ListBuilder {
    /// True if the rule fits.
    pub(super) fn has_room_for(&self, rule: &Rule) -> bool {
        if rule.is_badfilter {
            self.taken_back.len() < CLAUSES_MAX
        } else {
            !rule.has_options() || self.has_room_for_clauses(1 + rule.left_out.len())
        }
    }

    /// True if `count` more clauses and excluded names fit.
    pub(super) const fn has_room_for_clauses(&self, count: usize) -> bool {
        self.specials.len() + self.left_out + count <= CLAUSES_MAX
    }

    /// Turns all rules into clauses for names with rules of two ranks, and for names with clauses. Returns their entries, and
    /// the number of rules that did not fit.
    pub(super) fn move_what_no_tag_holds(&mut self) -> (Vec<Entry>, usize) {
        let pairs = self.entries.windows(2);
        let of_two_ranks = pairs.filter(|pair| pair[0].hash == pair[1].hash);
        let mut hashes: HashSet<(u64, u64)> = of_two_ranks.map(|pair| pair[0].hash).collect();
        hashes.extend(self.specials.iter().map(|special| special.hash));
        let mut moved = Vec::new();
        if hashes.is_empty() {
            return (moved, 0);
        }
        let specials = &mut self.specials;
        self.entries.retain(|entry| {
            let is_moved = hashes.contains(&entry.hash);
            if is_moved {
                specials.extend(specials_of(entry));
                moved.push(*entry);
            }
            !is_moved
        });
        // Of equal rank the last one is heard: a rule for all types, since with it the name has nothing, and of the first list.
        const TYPES: u16 = clause::TYPES_ONLY | clause::TYPES_NOT;
        self.specials.sort_by_key(|special| {
            (
                special.hash,
                special.flags & TYPES == 0,
                Reverse(special.list),
            )
        });
        let left_out = self.leave_out_what_has_no_room(&moved);
        (moved, left_out)
    }

    /// Names whose clauses do not fit keep one rule at most: that of the highest rank among those without options. Returns the
    /// number of rules that were left out.
    fn leave_out_what_has_no_room(&mut self, moved: &[Entry]) -> usize {
        let names = self.specials.chunk_by(|a, b| a.hash == b.hash);
        let takes = |name: &[Special]| name.len().min(NAME_CLAUSES_MAX);
        if names.clone().map(takes).sum::<usize>() <= CLAUSES_MAX {
            return 0;
        }
        let (mut used, mut left_out) = (0, 0);
        let mut without = HashSet::new();
        for name in names {
            if used + takes(name) <= CLAUSES_MAX {
                used += takes(name);
                continue;
            }
            let hash = name[0].hash;
            without.insert(hash);
            left_out += name.len();
            // In the order of hashes, the higher rank after the lower.
            let end = moved.partition_point(|entry| entry.hash <= hash);
            let last = moved[..end].last().filter(|entry| entry.hash == hash);
            if let Some(entry) = last {
                left_out -= specials_of(entry).count();
                self.entries.push(*entry);
            }
        }
        self.specials
            .retain(|special| !without.contains(&special.hash));
        left_out
    }
}

/// Clauses of a tag: separate ones for what blocks and what allows.
fn specials_of(entry: &Entry) -> impl Iterator<Item = Special> {
    let (hash, tag) = (entry.hash, entry.tag);
    let important = if tag & tag::IMPORTANT == 0 {
        0
    } else {
        clause::IMPORTANT
    };
    let sides = [
        (tag::BLOCK_SELF, tag::BLOCK_BELOW, 0),
        (tag::ALLOW_SELF, tag::ALLOW_BELOW, clause::ALLOWS),
    ];
    sides
        .into_iter()
        .filter_map(move |(itself, below, allows)| {
            let is = |flag, clause| if tag & flag == 0 { 0 } else { clause };
            let covers = is(itself, clause::SELF) | is(below, clause::BELOW);
            (covers != 0).then_some(Special {
                hash,
                flags: covers | allows | important,
                list: tag & tag::LIST_MASK,
                types: [0; TYPES_MAX],
                pattern: Vec::new(),
                left_out: Vec::new(),
                text: 0,
            })
        })
}
