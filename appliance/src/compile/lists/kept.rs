//! The rules of one source, out of a list that was made of several: a source that shrank or cannot be read any more goes on
//! to say what it said, while the others change.
//!
//! An image has all of most rules but 48 bits of the name's hash. Those are kept beside it, six bytes a name; and in full
//! what an image puts together: rules about a name that several sources have, rules that are taken back, rules with options.
//! Of the others an image has no text, so a `$badfilter` that comes later takes nothing back that is kept.

use std::io;

use xdnsd_abi::hash::HashKey;
use xdnsd_core::policy::list::{CLAUSE_LEN, CLAUSES_MAX, ENTRY_LEN, field, tag};

use super::{Entry, ListBuilder, Special, TakenBack, is_same_name};

/// Bits of a hash's first half that an image keeps, as bytes of it.
const IN_IMAGE: std::ops::Range<usize> = 3..5;
/// Bytes of it that it does not.
const REST_LEN: usize = size_of::<u64>() - (IN_IMAGE.end - IN_IMAGE.start);

/// What it takes to find the rules of each source in an image again.
#[derive(Debug)]
pub struct KeptRules {
    key: HashKey,
    exact_depths: u128,
    subtree_depths: u128,
    /// What the image does not have of the hash of each of its entries, in their order.
    rests: Vec<[u8; REST_LEN]>,
    /// Rules that are in no entry of the image as they are, in the order of their hashes.
    shared: Vec<Entry>,
    /// Rules that others take back.
    undone: Vec<Entry>,
    /// As they were added.
    specials: Vec<Special>,
    taken_back: Vec<TakenBack>,
}

/// Rules about names that several sources have.
pub(super) fn of_several_sources(entries: &[Entry]) -> impl Iterator<Item = Entry> {
    let names = entries.chunk_by(is_same_name);
    let several = names.filter(|name| name.iter().any(|entry| entry.list() != name[0].list()));
    several.flatten().copied()
}

/// Whether the rules that an entry of an image stands for are among these, which are in the order of their hashes.
fn has(shared: &[Entry], entry: &Entry) -> bool {
    let first = shared.partition_point(|known| known.hash < entry.hash);
    let mut same = shared[first..]
        .iter()
        .take_while(|known| known.hash == entry.hash);
    same.any(|known| is_same_name(known, entry))
}

/// Entries that an image does not have as they are.
#[derive(Debug, Default)]
pub(super) struct Apart {
    /// Those of names that several sources have, in the order of their hashes.
    pub shared: Vec<Entry>,
    /// Those that are clauses now.
    pub moved: Vec<Entry>,
    /// Those that were taken back.
    pub taken_back: Vec<Entry>,
    /// Rules that are no entries, as they were added.
    pub specials: Vec<Special>,
}

impl KeptRules {
    /// Of what an image was just made of, and what stood apart.
    pub(super) fn new(builder: ListBuilder, apart: Apart) -> Self {
        let Apart {
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

    /// Bytes of it.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.rests.len() * REST_LEN
            + (self.shared.len() + self.undone.len()) * size_of::<Entry>()
            + self.specials.len() * size_of::<Special>()
            + self.taken_back.len() * size_of::<TakenBack>()
    }

    /// The rules that the image has as they are.
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
    /// Adds the rules that the source `from` of an earlier list has there, as those of the source `to`. The builder is
    /// [`KeptRules::builder`]'s. Gives how many of those with options there is no room for.
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
        // The parts of a rule have one number, and stand together.
        for rule in kept.specials.chunk_by(|a, b| a.number == b.number) {
            if rule[0].list != from {
                continue;
            }
            if !self.has_room_for_clauses(rule.len()) {
                left_out += 1;
                continue;
            }
            let number = self.specials.len() as u32;
            let parts = rule.iter().cloned();
            self.specials.extend(parts.map(|part| Special {
                list: to,
                number,
                ..part
            }));
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

/// What an image does not have of an entry's hash.
fn rest(entry: &Entry) -> [u8; REST_LEN] {
    let [a, b, c, _, _, d, e, f] = entry.hash.0.to_le_bytes();
    [a, b, c, d, e, f]
}

/// An entry of an image, and the rest of its hash.
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
