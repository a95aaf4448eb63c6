//! Names with more records of one type than a message holds.

use std::collections::{BTreeMap, HashSet};

use xdnsd_core::dns::build::LOCAL_ANSWER_MAX;

use super::{LocalBuilder, shown};

/// Header, type and class of the question.
const AROUND_QUESTION: usize = 12 + 4;
/// A record without its RDATA, with a pointer to its owner.
const RECORD_HEAD: usize = 12;

impl LocalBuilder {
    /// Names of which a client gets only some records of a type, each with its index among `owners`. Names in RDATA count in full.
    #[must_use]
    pub fn crowded(&self, owners: &[Vec<u8>]) -> Vec<(usize, String)> {
        let mut told = HashSet::new();
        let mut found = Vec::new();
        for (index, owner) in owners.iter().enumerate() {
            let Some(node) = self.nodes.get(owner).filter(|_| told.insert(owner)) else {
                continue;
            };
            let mut sizes: BTreeMap<u16, Vec<usize>> = BTreeMap::new();
            for record in &node.records {
                let size = RECORD_HEAD + record.rdata.len();
                sizes.entry(record.rtype).or_default().push(size);
            }
            for (rtype, sizes) in sizes {
                let mut room = LOCAL_ANSWER_MAX - AROUND_QUESTION - owner.len();
                let fits = sizes.iter().take_while(|&&size| {
                    let left = room.checked_sub(size);
                    room = left.unwrap_or(0);
                    left.is_some()
                });
                let fits = fits.count();
                if fits < sizes.len() {
                    let (name, count) = (shown(owner), sizes.len());
                    found.push((
                        index,
                        format!(
                            "`{name}` has {count} records of type {rtype}, of which a message holds {fits}: a client gets those over TCP"
                        ),
                    ));
                }
            }
        }
        found
    }
}
