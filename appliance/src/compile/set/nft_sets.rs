//! Names whose addresses go into sets of nf_tables, compiled for `xdnsd_core::policy::address_sets`.

use std::sync::Arc;

use xdnsd_core::policy::AddressSets;

use super::COMPILED;
use crate::compile::name;
use crate::compile::problem::Problem;
use crate::compile::table::{TableBuilder, random_key};
use crate::os::nf_tables::{SetName, SetQueue};

/// Names, each with all names below it, and the sets for the addresses of their answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NftSetInput {
    /// Names, each in one section.
    pub names: Vec<String>,
    /// Sets.
    pub sets: Vec<SetName>,
}

/// The same, compiled, with the queue for the addresses.
#[derive(Clone, Debug)]
pub(super) struct NftSets {
    table: Arc<[u8]>,
    pub queue: Option<Arc<SetQueue>>,
}

impl NftSets {
    /// # Errors
    /// A name is wrong.
    pub fn of(input: &[NftSetInput]) -> Result<Self, Problem> {
        let mut table = TableBuilder::default();
        for (number, section) in input.iter().enumerate() {
            for text in &section.names {
                let name = name::parse(text)
                    .map_err(|error| Problem::of("nftset.names", format!("`{text}` {error}")))?;
                table.insert(&name, number as u32);
            }
        }
        let sets = || input.iter().map(|section| section.sets.clone()).collect();
        let has_names = input.iter().any(|section| !section.names.is_empty());
        Ok(Self {
            table: table.build(random_key).into(),
            queue: has_names.then(|| Arc::new(SetQueue::new(sets()))),
        })
    }

    /// The same with the queue of an earlier one, if that is for the same sets: its thread goes on.
    pub fn with_queue_of(&self, earlier: &Self) -> Self {
        let both = self.queue.as_ref().zip(earlier.queue.as_ref());
        let is_same = both.is_some_and(|(own, earlier)| own.sets() == earlier.sets());
        Self {
            table: Arc::clone(&self.table),
            queue: if is_same {
                earlier.queue.clone()
            } else {
                self.queue.clone()
            },
        }
    }

    pub fn view(&self) -> AddressSets<'_> {
        AddressSets::view(&self.table).expect(COMPILED)
    }

    pub fn bytes(&self) -> usize {
        self.table.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(sections: &[(&[&str], &str)]) -> Vec<NftSetInput> {
        let section = |(names, set): &(&[&str], &str)| NftSetInput {
            names: names.iter().map(|&name| name.into()).collect(),
            sets: vec![set.parse().expect("a set")],
        };
        sections.iter().map(section).collect()
    }

    fn number(sets: &NftSets, name: &str) -> Option<u16> {
        sets.view().of(&name::parse(name).expect("a name"))
    }

    #[test]
    fn the_longest_name_decides() {
        let some = input(&[
            (&["example.net", "corp.example"], "t#a"),
            (&["a.example.net"], "t#b"),
        ]);
        let sets = NftSets::of(&some).expect("compiled");
        for (name, expected) in [
            ("example.net", Some(0)),
            ("x.example.net", Some(0)),
            ("x.a.example.net", Some(1)),
            ("corp.example", Some(0)),
            ("example", None),
            ("myexample.net", None),
        ] {
            assert_eq!(number(&sets, name), expected, "{name}");
        }
        let all = NftSets::of(&input(&[(&["."], "t#a")])).expect("compiled");
        assert_eq!(number(&all, "any.example"), Some(0));
        let none = NftSets::of(&[]).expect("compiled");
        assert_eq!(number(&none, "any.example"), None);
        assert!(none.queue.is_none());
    }

    #[test]
    fn the_queue_stays_while_the_sets_do() {
        let of = |sections: &[(&[&str], &str)]| NftSets::of(&input(sections)).expect("compiled");
        let first = of(&[(&["example.net"], "t#a")]);
        let is_kept = |next: &NftSets| {
            let queue = next.with_queue_of(&first).queue.expect("there are sets");
            Arc::ptr_eq(&queue, first.queue.as_ref().expect("there are sets"))
        };
        assert!(is_kept(&of(&[(&["example.org"], "t#a")])));
        assert!(!is_kept(&of(&[(&["example.net"], "t#b")])));
        assert!(of(&[]).with_queue_of(&first).queue.is_none());
    }
}
