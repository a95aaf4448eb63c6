//! Image of a list from a builder, in the layout of `xdnsd_core::policy::list`.

use std::cmp::Reverse;

use xdnsd_core::policy::list::{
    BUCKET_MAX, CLAUSE_LEN, CLAUSES_MAX, CRC, ENTRY_LEN, MAGIC, NAME_CLAUSES_MAX, NAMES_PER_BUCKET,
    Spot, VERSION, clause, field, left_out, tag,
};

use super::{Entry, ListBuilder, Special};
use crate::compile::table::put;

impl ListBuilder {
    /// Emits the clauses and their texts; each name with clauses becomes an entry that refers to its first one. All have room.
    pub(super) fn emit_clauses(&mut self) -> (Vec<u8>, Vec<u8>) {
        let (mut clauses, mut texts) = (Vec::new(), Vec::new());
        for group in self.specials.chunk_by(|a, b| a.hash == b.hash) {
            let index = clauses.len() / CLAUSE_LEN;
            let group = those_with_room(group);
            debug_assert!(index + group.len() <= CLAUSES_MAX, "others were left out");
            self.entries.push(Entry {
                hash: group[0].hash,
                tag: tag::CLAUSES | index as u16,
                text: 0,
            });
            for (at, special) in group.iter().enumerate() {
                let last = if at + 1 == group.len() {
                    clause::LAST
                } else {
                    0
                };
                emit_clause(&mut clauses, &mut texts, special, last);
            }
        }
        (clauses, texts)
    }

    /// Emits the list. `None`: see [`ListBuilder::build`].
    pub(super) fn emit(&self, clauses: &[u8], texts: &[u8]) -> Option<Vec<u8>> {
        let buckets = self.entries.len().div_ceil(NAMES_PER_BUCKET).max(1);
        let filter_at = field::HEADER_LEN;
        let starts_at = filter_at + buckets * 8;
        let entries_at = starts_at + (buckets + 1) * 4;
        let mut image = vec![0; entries_at + self.entries.len() * ENTRY_LEN];
        let mut counts = vec![0u8; buckets];
        for (index, entry) in self.entries.iter().enumerate() {
            let spot = Spot::new(entry.hash.0);
            let bucket = spot.bucket(buckets as u32);
            counts[bucket] = counts[bucket]
                .checked_add(1)
                .filter(|&count| usize::from(count) <= BUCKET_MAX)?;
            let word = &mut image[filter_at + bucket * 8..][..8];
            let bits = spot.filter_bits().to_le_bytes();
            word.iter_mut()
                .zip(bits)
                .for_each(|(word, bits)| *word |= bits);
            emit_entry(
                &mut image[entries_at + index * ENTRY_LEN..][..ENTRY_LEN],
                entry,
            );
        }
        let mut start = 0;
        for (bucket, count) in counts.into_iter().enumerate() {
            put(&mut image, starts_at + bucket * 4, start);
            start += u32::from(count);
        }
        put(&mut image, starts_at + buckets * 4, start);
        image.extend(clauses);
        image.extend(texts);
        let clauses = (clauses.len() / CLAUSE_LEN) as u16;
        image[field::CLAUSES..][..2].copy_from_slice(&clauses.to_le_bytes());
        put(&mut image, field::TEXTS, texts.len() as u32);
        self.emit_header(&mut image, buckets);
        Some(image)
    }

    fn emit_header(&self, image: &mut [u8], buckets: usize) {
        let with_tag = self.entries.iter().filter(|entry| {
            entry.tag & tag::CLAUSES == 0 && entry.tag & (tag::ALLOW_SELF | tag::ALLOW_BELOW) != 0
        });
        let names = self.specials.chunk_by(|a, b| a.hash == b.hash);
        let with_clauses = names.filter(|name| {
            name.iter()
                .any(|special| special.flags & clause::ALLOWS != 0)
        });
        let allows = with_tag.count() + with_clauses.count();
        let body_crc = CRC.checksum(&image[field::HEADER_LEN..]);
        let file_len = image.len() as u64;
        image[field::MAGIC..][..MAGIC.len()].copy_from_slice(&MAGIC);
        image[field::VERSION..][..2].copy_from_slice(&VERSION.to_le_bytes());
        put(image, field::COUNT, self.entries.len() as u32);
        put(image, field::BUCKETS, buckets as u32);
        put(image, field::ALLOWS, allows as u32);
        image[field::KEY..][..16].copy_from_slice(&self.key);
        image[field::EXACT_DEPTHS..][..16].copy_from_slice(&self.exact_depths.to_le_bytes());
        image[field::SUBTREE_DEPTHS..][..16].copy_from_slice(&self.subtree_depths.to_le_bytes());
        image[field::FILE_LEN..][..8].copy_from_slice(&file_len.to_le_bytes());
        put(image, field::BODY_CRC, body_crc);
        let header_crc = CRC.checksum(&image[..field::HEADER_CRC]);
        put(image, field::HEADER_CRC, header_crc);
    }
}

/// Rules about one name that have room: a name with too many costs no other its rules. Those of the highest rank come first.
fn those_with_room(group: &[Special]) -> Vec<&Special> {
    let mut group: Vec<&Special> = group.iter().collect();
    if group.len() > NAME_CLAUSES_MAX {
        let rank =
            |special: &&Special| Reverse(special.flags & (clause::IMPORTANT | clause::ALLOWS));
        group.sort_by_key(rank);
        group.truncate(NAME_CLAUSES_MAX);
    }
    group
}

fn emit_clause(clauses: &mut Vec<u8>, texts: &mut Vec<u8>, special: &Special, last: u16) {
    clauses.extend((special.flags | last).to_le_bytes());
    clauses.extend(special.list.to_le_bytes());
    clauses.extend(special.types.iter().flat_map(|rtype| rtype.to_le_bytes()));
    clauses.extend((texts.len() as u32).to_le_bytes());
    // At most PATTERN_MAX, and at most CLAUSES_MAX.
    clauses.extend([special.pattern.len() as u8, 0]);
    clauses.extend((special.left_out.len() as u16).to_le_bytes());
    texts.extend(&special.pattern);
    let names = special.left_out.iter();
    texts.extend(names.flat_map(|&(first, second)| left_out(first, second)));
}

fn emit_entry(bytes: &mut [u8], entry: &Entry) {
    let (low, high) = (entry.hash.1, Spot::new(entry.hash.0).fingerprint());
    bytes[..8].copy_from_slice(&low.to_le_bytes());
    bytes[8..10].copy_from_slice(&high.to_le_bytes());
    bytes[10..].copy_from_slice(&entry.tag.to_le_bytes());
}
