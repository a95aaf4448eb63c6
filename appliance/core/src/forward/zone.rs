//! The domain under which a question is counted, against crowding.

use crate::dns::Name;
use crate::dns::name::suffixes;
use xdnsd_abi::hash;

/// Number of buckets among which domains are spread, twice and independently. The smaller count is taken, so that a domain
/// that shares a bucket with a flood's domain does not pay for it.
pub(super) const ZONE_BUCKETS: usize = 256;
/// Labels of a domain, without the root: `example.com` and all names below it are one domain.
const ZONE_LABELS: usize = 2;

/// A domain, as its two buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DomainBuckets([u8; 2]);

impl DomainBuckets {
    /// Domain of a question without a name.
    pub const NONE: Self = Self([0; 2]);

    /// Domain of a name: its last two labels, but never all of it. The hash is keyed, so that nobody can choose a name to
    /// share another's buckets.
    #[must_use]
    pub fn of(name: &Name, seed: &[u8; 16]) -> Self {
        let labels = suffixes(name.as_wire()).count().saturating_sub(1);
        let above = labels.saturating_sub(ZONE_LABELS).max(1);
        let zone = suffixes(name.as_wire()).nth(above);
        let [first, second, ..] = hash::of_bytes(zone.unwrap_or_default(), seed).to_le_bytes();
        Self([first, second])
    }

    /// Its buckets in the two tables.
    pub(super) const fn buckets(self) -> [u8; 2] {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    const SEED: [u8; 16] = *b"0123456789abcdef";

    fn zone(labels: &[&str]) -> DomainBuckets {
        let mut wire = Vec::new();
        for label in labels {
            wire.push(label.len() as u8);
            wire.extend(label.as_bytes());
        }
        wire.push(0);
        DomainBuckets::of(&Name::from_wire(&wire).expect("a name"), &SEED)
    }

    #[test]
    fn a_name_is_counted_under_its_last_two_labels_but_never_all_of_it() {
        let example = zone(&["www", "example", "com"]);
        for below in [
            &["a", "example", "com"][..],
            &["a", "b", "c", "example", "com"],
        ] {
            assert_eq!(zone(below), example, "{below:?}");
        }
        let com = zone(&["example", "com"]);
        assert_eq!(zone(&["another", "com"]), com);
        assert_ne!(com, example);
        let root = zone(&["com"]);
        assert_eq!(zone(&["org"]), root);
        assert_ne!(zone(&["www", "example", "org"]), example);
        zone(&[]);
    }
}
