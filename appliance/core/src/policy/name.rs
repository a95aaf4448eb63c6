//! Names cut at their labels: every table of policy is searched for a name and for its parents.
//!
//! Names are in wire form without compression, root byte included, in lower case (RFC 1035 section 3.1).

use crate::dns::name::LABEL_MAX;
use crate::limits::NAME_MAX;
use xdnsd_abi::hash::{Hash, HashKey, NameHash};

/// Most labels of a name, without the root: each takes at least two bytes, the root one.
pub const LABELS_MAX: usize = (NAME_MAX - 1) / 2;

/// A well-formed name and the offsets of its labels.
#[derive(Clone, Copy, Debug)]
pub struct Labels<'n> {
    name: &'n [u8],
    starts: [u8; LABELS_MAX],
    count: u8,
}

impl<'n> Labels<'n> {
    /// Cuts `name`; `None` if it is not exactly one name in wire form.
    #[must_use]
    #[inline(always)]
    pub fn new(name: &'n [u8]) -> Option<Self> {
        if name.len() > NAME_MAX {
            return None;
        }
        let mut starts = [0; LABELS_MAX];
        let mut count = 0;
        let mut at = 0;
        // Bound: every label advances `at` by two bytes at least.
        loop {
            let len = usize::from(*name.get(at)?);
            if len == 0 {
                break;
            }
            if len > LABEL_MAX {
                return None;
            }
            *starts.get_mut(usize::from(count))? = at as u8;
            count += 1;
            at += 1 + len;
        }
        (at + 1 == name.len()).then_some(Self {
            name,
            starts,
            count,
        })
    }

    /// Number of labels, without the root.
    #[must_use]
    pub fn count(&self) -> usize {
        usize::from(self.count)
    }

    /// The whole name.
    #[must_use]
    pub const fn name(&self) -> &'n [u8] {
        self.name
    }

    /// Offset of the parent with `depth` labels: 0 labels is the root, [`Self::count`] the name itself.
    #[must_use]
    pub fn start(&self, depth: usize) -> usize {
        let index = self.count().checked_sub(depth);
        match index.and_then(|index| self.starts.get(index)) {
            Some(&start) if depth > 0 => usize::from(start),
            _ => self.name.len() - 1,
        }
    }

    /// The parent with `depth` labels, in wire form.
    #[must_use]
    pub fn suffix(&self, depth: usize) -> &'n [u8] {
        self.name.get(self.start(depth)..).unwrap_or_default()
    }

    /// Hash of the whole name.
    #[must_use]
    pub fn hash(&self, key: &HashKey) -> Hash {
        let mut hash = NameHash::new(key);
        for depth in 1..=self.count() {
            hash.push(self.label(depth));
        }
        hash.hash()
    }

    /// Leftmost label of the parent with `depth` labels, with its length byte; empty for the root.
    pub(super) fn label(&self, depth: usize) -> &'n [u8] {
        let end = if depth == 0 {
            self.name.len() - 1
        } else {
            self.start(depth - 1)
        };
        self.name.get(self.start(depth)..end).unwrap_or_default()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::vec::Vec;

    /// The wire form of a name in plain text.
    pub(crate) fn wire(text: &str) -> Vec<u8> {
        let mut name = Vec::new();
        for label in text.split('.').filter(|label| !label.is_empty()) {
            name.push(label.len() as u8);
            name.extend(label.bytes());
        }
        name.push(0);
        name
    }

    const WWW: &[u8] = b"\x03www\x07example\x03org\0";

    #[test]
    fn labels_are_cut_from_the_root_down() {
        let labels = Labels::new(WWW).expect("well-formed");
        assert_eq!(labels.count(), 3);
        assert_eq!(labels.suffix(0), b"\0");
        assert_eq!(labels.suffix(1), b"\x03org\0");
        assert_eq!(labels.suffix(2), b"\x07example\x03org\0");
        assert_eq!(labels.suffix(3), WWW);
        assert_eq!(labels.label(0), b"");
        assert_eq!(labels.label(1), b"\x03org");
        assert_eq!(labels.label(3), b"\x03www");
        assert_eq!(
            labels.suffix(4),
            b"\0",
            "deeper than the name: nothing but the root"
        );
    }

    #[test]
    fn the_root_is_a_name_without_labels() {
        let labels = Labels::new(b"\0").expect("well-formed");
        assert_eq!(
            (labels.count(), labels.suffix(0), labels.label(0)),
            (0, &b"\0"[..], &b""[..])
        );
    }

    #[test]
    fn what_is_not_a_whole_name_is_refused() {
        for len in 0..WWW.len() {
            assert!(Labels::new(&WWW[..len]).is_none(), "cut at {len}");
        }
        let mut longer = Vec::from(WWW);
        longer.push(0);
        assert!(Labels::new(&longer).is_none(), "bytes behind the root");
        assert!(Labels::new(b"\xc0\x0c").is_none(), "a compression pointer");
        assert!(Labels::new(b"\x40").is_none(), "a label of 64 bytes");
    }

    #[test]
    fn the_longest_names_fit() {
        let mut deepest: Vec<u8> = std::iter::repeat_n(*b"\x01a", 127).flatten().collect();
        deepest.push(0);
        assert_eq!(deepest.len(), 255);
        assert_eq!(
            Labels::new(&deepest).map(|labels| labels.count()),
            Some(127)
        );
        deepest.splice(0..0, *b"\x01a");
        assert!(Labels::new(&deepest).is_none(), "257 bytes");
    }
}
