//! Keeps the rules of one source of a list that was made of several: a source that shrank or cannot be read any more keeps its
//! rules, while the others change.
//!
//! An image has all of most rules except 48 bits of the name's hash. Those are kept beside it, six bytes a name; kept in full
//! is what an image merges: rules about a name that several sources have, rules that are taken back, rules with options. Of the
//! others an image has no text, so a later `$badfilter` does not take back kept rules.

use std::io;

use xdnsd_abi::hash::HashKey;
use xdnsd_core::policy::list::{CLAUSE_LEN, CLAUSES_MAX, ENTRY_LEN, field, tag};

use super::{Entry, ListBuilder, Special, TakenBack, is_same_name};

/// Bytes of a hash's first half that an image has.
const IN_IMAGE: std::ops::Range<usize> = 3..5;
/// Number of its bytes that an image lacks.
const REST_LEN: usize = size_of::<u64>() - (IN_IMAGE.end - IN_IMAGE.start);

/// What is needed to find the rules of each source in an image again.
#[derive(Debug)]
pub struct KeptRules {
    key: HashKey,
    exact_depths: u128,
    subtree_depths: u128,
    /// Missing bytes of each entry's hash, in the order of entries.
    rests: Vec<[u8; REST_LEN]>,
    /// Rules that no entry of the image has unchanged, in the order of their hashes.
    shared: Vec<Entry>,
    /// Rules that others take back.
    undone: Vec<Entry>,
    /// Rules with options, as they were added.
    specials: Vec<Special>,
    taken_back: Vec<TakenBack>,
}

/// Rules about names that several sources have.
pub(super) fn of_several_sources(entries: &[Entry]) -> impl Iterator<Item = Entry> {
    let names = entries.chunk_by(is_same_name);
    let several = names.filter(|name| name.iter().any(|entry| entry.list() != name[0].list()));
    several.flatten().copied()
}

/// True if the rules of an image's entry are among these, which are in the order of their hashes.
fn has(shared: &[Entry], entry: &Entry) -> bool {
    let first = shared.partition_point(|known| known.hash < entry.hash);
    let mut same = shared[first..]
        .iter()
        .take_while(|known| known.hash == entry.hash);
    same.any(|known| is_same_name(known, entry))
}

/// Entries that an image does not have unchanged.
#[derive(Debug, Default)]
pub(super) struct ChangedEntries {
    /// Entries of names that several sources have, in the order of their hashes.
    pub shared: Vec<Entry>,
    /// Entries that became clauses.
    pub moved: Vec<Entry>,
    /// Entries that were taken back.
    pub taken_back: Vec<Entry>,
    /// Rules that are no entries, as they were added.
    pub specials: Vec<Special>,
}

impl KeptRules {
    /// Keeps what the image made from `builder` lacks, and what was kept `apart`.
    pub(super) fn new(builder: ListBuilder, apart: ChangedEntries) -> Self {
        let ChangedEntries {
            mut shared,
            moved,
            taken_back,
            specials,
        } = apart;
        let moved: Vec<Entry> = moved
            .into_iter()
            .filter(|entry| !has(&shared, entry))
            .collect();
        shared.extend(moved);
        shared.sort_unstable_by_key(|entry| entry.hash);
        shared.shrink_to_fit();
        Self {
            key: builder.key,
            exact_depths: builder.exact_depths,
            subtree_depths: builder.subtree_depths,
            rests: builder.entries.iter().map(rest).collect(),
            shared,
            undone: taken_back,
            specials,
            taken_back: builder.taken_back,
        }
    }

    /// A builder that can take rules from here.
    #[must_use]
    pub fn builder(&self) -> ListBuilder {
        ListBuilder::with_key(self.key)
    }

    /// Size in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.rests.len() * REST_LEN
            + (self.shared.len() + self.undone.len()) * size_of::<Entry>()
            + self.specials.len() * size_of::<Special>()
            + self.specials.iter().map(Special::text_len).sum::<usize>()
            + self.taken_back.len() * size_of::<TakenBack>()
    }

    /// Rules that the image has unchanged.
    fn entries(&self, image: &[u8]) -> impl Iterator<Item = Entry> {
        let number = |at: usize| {
            let bytes = image[at..].first_chunk().copied().unwrap_or_default();
            u32::from_le_bytes(bytes) as usize
        };
        let clauses = usize::from(u16::from_le_bytes([
            image[field::CLAUSES],
            image[field::CLAUSES + 1],
        ]));
        let behind = clauses * CLAUSE_LEN + number(field::TEXTS);
        let entries = &image[..image.len() - behind];
        let entries = &entries[entries.len() - self.rests.len() * ENTRY_LEN..];
        let entries = entries.chunks_exact(ENTRY_LEN).zip(&self.rests);
        entries
            .map(|(bytes, rest)| entry(bytes, rest))
            .filter(|entry| entry.tag & tag::CLAUSES == 0 && !has(&self.shared, entry))
    }
}

impl ListBuilder {
    /// Adds the rules of source `from` of an earlier list as those of source `to`. The builder has to be made by
    /// [`KeptRules::builder`]. Returns the number of rules with options that did not fit.
    ///
    /// # Errors
    /// There is no room for its names.
    pub fn add_kept(
        &mut self,
        kept: &KeptRules,
        image: &[u8],
        from: u16,
        to: u16,
    ) -> io::Result<usize> {
        debug_assert_eq!(self.key, kept.key, "names have the hashes of then");
        self.exact_depths |= kept.exact_depths;
        self.subtree_depths |= kept.subtree_depths;
        let apart = kept.shared.iter().chain(&kept.undone).copied();
        for entry in kept.entries(image).chain(apart) {
            if entry.list() == from {
                self.check_room()?;
                let tag = entry.tag & !tag::LIST_MASK | to & tag::LIST_MASK;
                self.entries.push(Entry { tag, ..entry });
            }
        }
        let mut left_out = 0;
        for rule in kept.specials.iter().filter(|rule| rule.list == from) {
            if self.has_room_for_clauses(1 + rule.left_out.len()) {
                self.left_out += rule.left_out.len();
                self.specials.push(Special {
                    list: to,
                    ..rule.clone()
                });
            } else {
                left_out += 1;
            }
        }
        for other in kept.taken_back.iter().filter(|other| other.list == from) {
            if self.taken_back.len() < CLAUSES_MAX {
                self.taken_back.push(TakenBack { list: to, ..*other });
            } else {
                left_out += 1;
            }
        }
        self.check_room()?;
        Ok(left_out)
    }
}

/// Bytes of an entry's hash that an image lacks.
fn rest(entry: &Entry) -> [u8; REST_LEN] {
    let [a, b, c, _, _, d, e, f] = entry.hash.0.to_le_bytes();
    [a, b, c, d, e, f]
}

/// Entry from its bytes in an image and the missing bytes of its hash.
fn entry(bytes: &[u8], &[a, b, c, d, e, f]: &[u8; REST_LEN]) -> Entry {
    let low = bytes.first_chunk().copied().unwrap_or_default();
    let half = |at: usize| [bytes[at], bytes[at + 1]];
    let [first, second] = half(8);
    Entry {
        hash: (
            u64::from_le_bytes([a, b, c, first, second, d, e, f]),
            u64::from_le_bytes(low),
        ),
        tag: u16::from_le_bytes(half(10)),
        text: 0,
    }
}

const _: () = assert!(
    REST_LEN == 6 && IN_IMAGE.start * 8 == 24,
    "as `Spot` takes its bits"
);
